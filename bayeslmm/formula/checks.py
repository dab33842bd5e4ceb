"""What the data must allow before a model makes sense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, DataWarning, FormulaError, listing, underline, warn
from bayeslmm.formula.grouping import label

if TYPE_CHECKING:
    from bayeslmm.formula.design import GroupTerm
    from bayeslmm.formula.residuals import ResidualStructure

Floats = NDArray[np.float64]

RANK_TOLERANCE = 1e-7
"""A column is dependent if less than this part of its length is left over by the columns before it (lme4's value)."""


def independent_columns(X: Floats) -> NDArray[np.intp]:
    """Find the columns that do not depend linearly on earlier ones.

    Parameters
    ----------
    X : ndarray (n, p)
        The columns.

    Returns
    -------
    ndarray of intp
        Positions kept, ascending; of a dependent set the earliest columns stay.

    Examples
    --------
    >>> independent_columns(np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 1.0]])).tolist()
    [0, 2]
    """
    kept = np.arange(X.shape[1])
    length = np.sqrt(np.einsum("ij,ij->j", X, X))
    scaled = X / np.where(length > 0, length, 1.0)
    if _clearly_independent(scaled.T @ scaled) and X.shape[0] >= X.shape[1]:
        return kept
    triangle = np.linalg.qr(scaled, mode="r") if X.shape[0] > X.shape[1] else scaled
    while kept.size:
        diagonal = np.zeros(kept.size)
        r = np.linalg.qr(triangle[:, kept], mode="r")
        diagonal[: min(r.shape)] = np.abs(np.diag(r))
        dependent = np.flatnonzero(diagonal < RANK_TOLERANCE)
        if not dependent.size:
            break
        kept = np.delete(kept, dependent[0])
    return kept


def _clearly_independent(gram: Floats) -> bool:
    """Cholesky of the correlation-like matrix: cheap, and safe far from the tolerance it cannot resolve."""
    try:
        return bool(np.diag(np.linalg.cholesky(gram)).min(initial=1.0) > 1e3 * RANK_TOLERANCE)
    except np.linalg.LinAlgError:
        return False


def check_levels(term: GroupTerm) -> None:
    """Refuse a grouping factor with a single level.

    Parameters
    ----------
    term : GroupTerm
        A random term met by data.

    Raises
    ------
    DataError
        If all rows have one level.
    """
    if len(term.levels) < 2:
        raise DataError(
            f"grouping factor {term.factor!r} has one level ({term.levels[0]!r}); how effects vary among levels cannot "
            f"be seen.\n  Leave {term.term} out."
        )


def check_distinct_effects(terms: Sequence[GroupTerm], text: str) -> None:
    """Refuse an effect that varies by one factor in two terms.

    Parameters
    ----------
    terms : sequence of GroupTerm
        Random terms met by data.
    text : str
        The formula, for the caret.

    Raises
    ------
    FormulaError
        If the same effect of the same factor comes twice.
    """
    seen: dict[tuple[str, str], GroupTerm] = {}
    for term in terms:
        for effect in term.shown_effects:
            before = seen.setdefault((term.factor, effect), term)
            if before is not term:
                raise FormulaError(
                    f"{effect} varies by {term.factor!r} in two terms, {before.term} and {term.term}\n"
                    f"{underline(text, term.term.span)}\n"
                    "  Their variances could not be told apart: take it out of one, e.g. (0 + x | group)."
                )


def check_distinct_factors(terms: Sequence[GroupTerm], text: str) -> None:
    """Refuse an effect that varies by two factors which split the rows in the same way.

    Parameters
    ----------
    terms : sequence of GroupTerm
        Random terms met by data.
    text : str
        The formula, for the caret.

    Raises
    ------
    DataError
        If two factors are the same but for the names of their levels, and share an effect.
    """
    for first, second in combinations([term for term in terms if term.term.structure is None], 2):
        shared = [effect for effect in second.effects if effect in first.effects]
        if shared and first.factor != second.factor and same_groups(first, second):
            raise DataError(
                f"{first.factor!r} and {second.factor!r} split the rows in the same way, "
                f"and {shared[0]} varies by both\n"
                f"{underline(text, second.term.span)}\n"
                f"  Their variances could not be told apart: leave {first.term} or {second.term} out."
            )


def same_groups(first: GroupTerm, second: GroupTerm) -> bool:
    """Return whether two factors split the rows in the same way, whatever their levels are called.

    Parameters
    ----------
    first, second : GroupTerm
        Random terms met by the same rows.

    Returns
    -------
    bool
        True if each level of one is a level of the other.
    """
    if len(first.levels) != len(second.levels):
        return False
    partner = np.empty(len(first.levels), dtype=second.codes.dtype)
    partner[first.codes] = second.codes
    return bool(np.array_equal(partner[first.codes], second.codes))


def warn_constant_slopes(term: GroupTerm, ones: Floats | None = None) -> None:
    """Warn about a slope whose predictor does not vary within any group.

    Parameters
    ----------
    term : GroupTerm
        A random term met by data.
    ones : ndarray (n,), optional
        What became of a column of ones where the rows are condensed ones.

    Warns
    -----
    DataWarning
        Naming the effects: such a slope only lets the variance of the group means depend on the predictor.
    """
    if "Intercept" not in term.effects or (ones is None and len(term.levels) == len(term.codes)):
        return
    if ones is None:
        last = np.empty((len(term.levels), len(term.effects)))
        last[term.codes] = term.Z
        constant = (last[term.codes] == term.Z).all(axis=0)
    else:
        # Constant within a level is a multiple of the ones; condensed rows carry rounding.
        size = np.bincount(term.codes, ones**2, len(term.levels))
        means = [np.bincount(term.codes, ones * z, len(term.levels)) / size for z in term.Z.T]
        rest = term.Z - ones[:, None] * np.stack(means, axis=1)[term.codes]
        constant = np.abs(rest).max(axis=0) <= 1e-7 * np.abs(term.Z).max(axis=0)
    names = [effect for effect, flat in zip(term.effects, constant, strict=True) if flat and effect != "Intercept"]
    if names:
        warn(
            f"{listing(names)} does not vary within any level of {term.factor!r}, so {term.term} holds no slope that "
            "could be seen:\n  it only lets the spread of the group means depend on it. Use (1 | "
            f"{term.factor}) and keep {names[0]} among the fixed effects.",
            DataWarning,
        )


def check_residual(term: GroupTerm, weights: Floats | None) -> None:
    """Refuse a random term that the residual of a Gaussian model cannot be told from.

    With one row per level the variance of row i is z_i' T z_i + sigma^2 / w_i. If 1 / w is a combination of products
    of the columns of Z, the same variance comes from T alone and from sigma alone.

    Parameters
    ----------
    term : GroupTerm
        A random term met by data.
    weights : ndarray (n,) or None
        Prior weights.

    Raises
    ------
    DataError
        If every row has its own level and the two variances cannot be separated.
    """
    n, k = term.Z.shape
    if len(term.levels) < n:
        return
    pairs = ((a, a) for a in range(k)) if term.term.covariance == "diag" else combinations_with_replacement(range(k), 2)
    products = np.column_stack([term.Z[:, a] * term.Z[:, b] for a, b in pairs])
    residual = np.ones(n) if weights is None else 1.0 / weights
    fit = products @ np.linalg.lstsq(products, residual, rcond=None)[0]
    if np.linalg.norm(residual - fit) < 1e-8 * np.linalg.norm(residual):
        raise DataError(
            f"every row has its own level of {term.factor!r} ({n} levels, {n} rows), so the variance of {term.term} "
            "cannot be told from the residual variance.\n"
            "  Group by something that repeats, or give known sampling variances through weights."
        )


def warn_many_effects(term: GroupTerm) -> None:
    """Warn where a random term has as many effects as there are rows, or more.

    Parameters
    ----------
    term : GroupTerm
        A random term of several effects, met by data.

    Warns
    -----
    DataWarning
        If so; lme4 refuses such a term.
    """
    n, k = term.Z.shape
    if k > 1 and len(term.levels) * k >= n:
        warn(
            f"{term.term} has {len(term.levels) * k} effects for {n} rows: its variances may not be told from the "
            "residual variance.",
            DataWarning,
        )


def warn_single_levels(levels: Mapping[str, tuple[str, ...] | None]) -> None:
    """Warn about columns of categories that do not vary.

    Parameters
    ----------
    levels : mapping of str to tuple of str, or None
        Levels per column; None for numbers.

    Warns
    -----
    DataWarning
        Naming the columns with one level.
    """
    single = [name for name, found in levels.items() if found is not None and len(found) == 1]
    if single:
        warn(f"one level only, and so no difference to estimate: {listing(single)}.", DataWarning)


def warn_dropped(names: tuple[str, ...]) -> None:
    """Warn about columns of X that were dropped.

    Parameters
    ----------
    names : tuple of str
        The columns.

    Warns
    -----
    DataWarning
        Naming them, if any.
    """
    if names:
        several = len(names) != 1
        warn(
            f"{len(names)} column{'s' * several} of X dropped, being {'' if several else 'a '}linear "
            f"combination{'s' * several} of earlier ones: {listing(names)}.",
            DataWarning,
        )


def check_degrees_of_freedom(n: int, coefficients: Sequence[str]) -> None:
    """Refuse a Gaussian model without more rows than coefficients.

    Parameters
    ----------
    n : int
        Rows.
    coefficients : sequence of str
        Their names.

    Raises
    ------
    DataError
        If nothing is left to estimate a variance from.
    """
    p = len(coefficients)
    if n > p:
        return
    column, levels = Counter(name.partition("[")[0] for name in coefficients).most_common(1)[0] if p else ("", 0)
    way_out = "Use fewer terms or more data."
    if levels > max(p / 2, 2):
        way_out = (
            f"{levels} of them are levels of {column!r}, text or categories with a coefficient for each.\n"
            "  If it holds numbers or dates, convert it (pd.to_numeric, pd.to_datetime); if it names groups, say "
            f"(1 | {column})."
        )
    raise DataError(
        f"{n} row{'s' * (n != 1)} cannot support {p} coefficient{'s' * (p != 1)} and a variance.\n  {way_out}"
    )


def check_variation(y: Floats, offset: Floats | None, name: str) -> None:
    """Refuse a response that does not vary.

    Parameters
    ----------
    y : ndarray (n,)
        The response.
    offset : ndarray (n,) or None
        The offset.
    name : str
        The response's name.

    Raises
    ------
    DataError
        If all values are equal.
    """
    if np.ptp(y if offset is None else y - offset) == 0:
        raise DataError(f"the response {name!r} is {y[0]:g} in every row; there is no variation to explain.")


def check_offset(offset: Floats, text: str) -> None:
    """Refuse an offset that is not a finite number in every row.

    Parameters
    ----------
    offset : ndarray (n,)
        One offset of the formula.
    text : str
        How it is written there.

    Raises
    ------
    DataError
        With the first such row.
    """
    bad = np.flatnonzero(~np.isfinite(offset))
    if not len(bad):
        return
    raise DataError(
        f"{text} is not a finite number in {len(bad)} row{'s' * (len(bad) != 1)} (the first is row {bad[0]} of those "
        "used).\n  log(exposure) needs an exposure above zero: nothing can be counted in no time or area. Leave such "
        "rows out, or correct them."
    )


def warn_order(column: pd.Series, levels: tuple[str, ...]) -> None:
    """Warn about an ordered response whose categories have no order of their own, or of which some never occur.

    Parameters
    ----------
    column : Series
        The response as the caller gave it, rows used.
    levels : tuple of str
        Categories that occur, in the order the model takes.

    Warns
    -----
    DataWarning
        If text was put in order by the alphabet, or declared categories are empty.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        empty = [str(level) for level in column.cat.categories if label(level) not in levels]
        if empty:
            several = len(empty) != 1
            warn(
                f"no row has {'categories' if several else 'category'} {listing(map(repr, empty))} of the response "
                f"{column.name!r}: nothing says where {'their' if several else 'its'} threshold"
                f"{'s lie' if several else ' lies'}.\n  The model has the other {len(levels)} and gives "
                f"{'them' if several else 'it'} no probability. Merge with a neighbour if that is not meant.",
                DataWarning,
            )
    elif pd.api.types.infer_dtype(column) == "string":
        warn(
            f"the categories of the response {column.name!r} are text, which has no order; the alphabet's is used: "
            f"{' < '.join(levels)}.\n  Give it one: pd.Categorical(..., categories=[...], ordered=True).",
            DataWarning,
        )


def check_exchangeable(structure: ResidualStructure | None, terms: Sequence[GroupTerm]) -> None:
    """Refuse exchangeable residuals beside an intercept for the same groups: the two are one parameter.

    Parameters
    ----------
    structure : ResidualStructure or None
        Residual structure of the model.
    terms : sequence of GroupTerm
        Random terms met by data.

    Raises
    ------
    DataError
        If an intercept varies over the same groups.
    """
    if structure is None or structure.spec.kind != "exchangeable":
        return
    for term in terms:
        if len(term.levels) != structure.n_groups:
            continue
        rest = np.linalg.lstsq(term.Z, np.ones(len(term.Z)), rcond=None)[1]
        constant = rest[0] < 1e-8 * len(term.Z) if len(rest) else np.allclose(term.Z @ np.linalg.pinv(term.Z).sum(1), 1)
        if constant:
            raise DataError(
                f"residuals={structure.spec!r} and ({term.term.columns} | {term.factor}) both give rows of one "
                f"{term.factor} a common correlation: the data cannot tell them apart.\n"
                "  Leave out the intercept of that term, or the residual correlation."
            )
