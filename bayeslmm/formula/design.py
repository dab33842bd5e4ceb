"""A formula met by data: the one middle object that feeds every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayeslmm.errors import DataError, listing, underline
from bayeslmm.families import FAMILIES
from bayeslmm.formula import checks
from bayeslmm.formula.columns import Coding, Matrix, Recipe, expand_dot, learn, model_matrix
from bayeslmm.formula.frame import Selection, Table, read_table, select_rows
from bayeslmm.formula.functions import State, evaluate
from bayeslmm.formula.grouping import Codes, Levels, factorise, joint_levels, match
from bayeslmm.formula.parse import formula_names, known_columns, parse_formula, side_names
from bayeslmm.formula.residuals import Residuals, ResidualStructure, check_columns, residual_structure
from bayeslmm.formula.response import CATEGORICAL, Limits, Response, read_response
from bayeslmm.formula.source import Elsewhere, is_source
from bayeslmm.formula.structured import Loading, areas, random_walk
from bayeslmm.formula.syntax import parse_syntax
from bayeslmm.formula.terms import Formula, RandomTerm

Floats = NDArray[np.float64]
PSEUDO_LIKELIHOOD = (
    "survey weights make this a pseudo-likelihood: each row's density to the power of its weight, weights of mean 1.\n"
    "  Standard errors and intervals are not design-based, and as a rule too short: weighted rows count as independent."
)


@dataclass(frozen=True, eq=False)
class GroupTerm:
    """A random term met by data.

    Parameters
    ----------
    term : RandomTerm
        What it means.
    effects : tuple of str, length k
        Names of the effects; the intercept is called ``"Intercept"``.
    Z : ndarray (n, k)
        Their columns.
    codes : ndarray (n,) of int32
        Level of each row; J, J + 1, ... for levels in `new_levels`.
    levels : tuple of str, length J
        Levels of the fitted data.
    new_levels : tuple of str
        Levels that only new data have.
    """

    term: RandomTerm
    effects: tuple[str, ...]
    Z: Floats = field(repr=False)
    codes: Codes = field(repr=False)
    levels: tuple[str, ...] = field(repr=False)
    new_levels: tuple[str, ...] = ()

    @property
    def factor(self) -> str:
        """Name of the grouping factor."""
        return self.term.factor

    @property
    def shown_effects(self) -> tuple[str, ...]:
        """Effects whose SDs are shown: those of a structured term share one, that of its levels' intercepts."""
        return self.effects if self.term.structure is None else ("Intercept",)

    @property
    def sd_labels(self) -> tuple[str, ...]:
        """What the SD of each effect is called: the first of a structured term's stands for all of them."""
        return (*self.shown_effects, *self.effects[len(self.shown_effects) :])


@dataclass(frozen=True, eq=False)
class Factor:
    """All random terms of one grouping factor.

    Parameters
    ----------
    name : str
        The factor.
    levels : tuple of str, length J
        Levels of the fitted data.
    codes : ndarray (n,) of int32
        Level of each row.
    term_indices : tuple of int
        Which of `Design.terms` they are.
    effects : tuple of str, length K
        Effects of all terms.
    Z : ndarray (n, K)
        Their columns.
    new_levels : tuple of str
        Levels that only new data have.
    members : tuple of str
        What the user calls levels. A structured term keeps all of its effects, the modes, on one level; its members are
        the categories or areas.
    member_codes : ndarray (n,) of int32
        Member of each row.
    loading : Loading or None
        What each member of a structured term loads on.
    """

    name: str
    levels: tuple[str, ...] = field(repr=False)
    codes: Codes = field(repr=False)
    term_indices: tuple[int, ...]
    effects: tuple[str, ...]
    Z: Floats = field(repr=False)
    new_levels: tuple[str, ...] = ()
    members: tuple[str, ...] = field(repr=False, default=())
    member_codes: Codes = field(repr=False, default_factory=lambda: np.empty(0, dtype=np.int32))
    loading: Loading | None = field(repr=False, default=None)

    @property
    def shown_effects(self) -> tuple[str, ...]:
        """Effects of a member: the intercept alone for a structured term."""
        return self.effects if self.loading is None else ("Intercept",)

    @property
    def sd_labels(self) -> tuple[str, ...]:
        """What the SD of each effect is called: the first of a structured term's stands for all of them."""
        return (*self.shown_effects, *self.effects[len(self.shown_effects) :])

    def of_members(self, effects: Floats) -> Floats:
        """Return the effects (..., M, k) of the members, given those of the levels (..., J, K)."""
        return effects if self.loading is None else np.swapaxes(effects @ self.loading.matrix.T, -1, -2)


@dataclass(frozen=True)
class Encoder:
    """What the fitted data taught about coding; enough to build the same columns from other rows.

    Parameters
    ----------
    coding : Coding
        Levels and states of the right-hand side.
    response_states : mapping
        States of stateful functions in the response.
    fixed : Recipe
        Columns of X before dependent ones were dropped.
    kept : ndarray of intp
        Columns of X that were kept.
    random : tuple of Recipe
        Columns of Z, one per term.
    names : tuple of str
        Columns used in expressions of the right-hand side, offsets included.
    weights, offset : str or None
        Columns named by the arguments.
    offset_was_array : bool
        Whether the offset argument was numbers, which new data cannot provide.
    family : str or None
        Family of the response.
    loadings : mapping of str to Loading
        How the levels of structured terms are related, by factor.
    adjacency : object or None
        Which areas are neighbours, as given.
    """

    coding: Coding
    response_states: State
    fixed: Recipe
    kept: NDArray[np.intp]
    random: tuple[Recipe, ...]
    names: tuple[str, ...]
    weights: str | None
    offset: str | None
    offset_was_array: bool
    family: str | None
    loadings: Mapping[str, Loading] = field(default_factory=dict)
    adjacency: Any = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Condensed:
    """The few rows that stand for all rows of a source.

    Parameters
    ----------
    design : Design
        Its rows are numbers in memory.
    ones : ndarray (m,)
        What became of a column of ones.
    counts : ndarray (m,)
        How often each row counts in sums of products.
    sizes : mapping of str to ndarray (J,) of int64
        Rows of each level of each grouping factor.
    source : Source
        Where the rows are.
    scans : Pushdown
        How its columns are computed by the engine.
    """

    design: Design
    ones: Floats = field(repr=False)
    counts: Floats = field(repr=False)
    sizes: Mapping[str, NDArray[np.int64]] = field(repr=False)
    source: Any = field(repr=False)
    scans: Any = field(repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Design:
    """A formula met by data.

    Parameters
    ----------
    formula : Formula
        The formula.
    y : ndarray (n,) or None
        Response; the proportion of successes where there are trials, codes where there are categories; None for new
        data without response.
    X : ndarray (n, p)
        Columns of the coefficients, in C order.
    coef_names : tuple of str, length p
        Their names.
    terms : tuple of GroupTerm
        Random terms in the order written.
    weights : ndarray (n,) or None
        Prior weights: the variance of a row is sigma^2 / weight.
    offset : ndarray (n,) or None
        Sum of all offsets, in units of the linear predictor.
    rows : ndarray (n,) of intp
        Positions of the rows kept in the caller's frame.
    n_total : int
        Rows of the caller's frame.
    missing : dict of str to int
        Rows missing per column.
    dropped_columns : tuple of str
        Columns of X left out because they depend on earlier ones.
    response_name : str
        The left-hand side.
    data : DataFrame
        Columns the formula uses, as given, rows kept, numbered from 0.
    trials : ndarray (n,) or None
        Trials of a binomial response.
    response_levels : tuple of str
        Categories of a categorical or binary response.
    residuals : ResidualStructure or None
        Unequal variances and correlations of the residuals; None also for new data without the columns it needs.
    auxiliary : mapping of str to Design
        Columns of further parameters that have a formula, on the same rows.
    limits : Limits or None
        Of a censored or truncated response.
    survey_weights : ndarray (n,) or None
        Powers of the rows' densities in a pseudo-likelihood, with mean 1; they say nothing about the variance of a row.

    Examples
    --------
    >>> data = {"y": [1.0, 2.0, 3.0, 5.0], "x": [0, 1, 0, 1], "g": ["a", "a", "b", "b"]}
    >>> design = build_design("y ~ x + (1 | g)", data)
    >>> design.coef_names, design.terms[0].levels
    (('Intercept', 'x'), ('a', 'b'))
    """

    formula: Formula
    y: Floats | None
    X: Floats
    coef_names: tuple[str, ...]
    terms: tuple[GroupTerm, ...]
    weights: Floats | None
    offset: Floats | None
    rows: NDArray[np.intp]
    n_total: int
    missing: Mapping[str, int]
    dropped_columns: tuple[str, ...]
    response_name: str
    data: pd.DataFrame
    encoder: Encoder
    trials: Floats | None = None
    response_levels: tuple[str, ...] = ()
    condensation: Condensed | None = None
    residuals: ResidualStructure | None = None
    auxiliary: Mapping[str, Design] = field(default_factory=dict)
    limits: Limits | None = None
    survey_weights: Floats | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What every result has to say of its data: rows and columns left out, and what survey weights mean."""
        found = []
        if self.missing:
            parts = ", ".join(f"{name}: {count}" for name, count in self.missing.items())
            left_out = self.n_total - len(self.rows)
            found.append(f"{left_out} of {self.n_total} rows left out for missing values ({parts})")
        if self.dropped_columns:
            found.append(f"columns left out because others determine them: {', '.join(self.dropped_columns)}")
        if self.survey_weights is not None:
            found.append(PSEUDO_LIKELIHOOD)
        return tuple(found)

    @property
    def likelihood_weights(self) -> Floats | None:
        """What a row counts for in the likelihood (n,): prior weight times survey weight; None where all are 1."""
        if self.survey_weights is None or self.weights is None:
            return self.weights if self.survey_weights is None else self.survey_weights
        return self.weights * self.survey_weights

    @property
    def condensed(self) -> Design:
        """Rows with the same likelihood: these rows, or, where the data stay in a source, the few that stand for them.

        For a Gaussian model they have the same cross-products within each cell of the grouping factors, for other
        families they are the distinct rows, with their numbers as weights.
        """
        return self if self.condensation is None else self.condensation.design

    def spanning(self) -> Design:
        """Return rows on which columns that differ do differ: these, or made up from levels and ranges of a source."""
        if self.condensation is None:
            return self
        return self.at(self.condensation.scans.spanning(self.condensed))

    def moments(self, column: Floats) -> tuple[float, float]:
        """Return mean and standard deviation (of n - 1) over all rows of a column of `condensed`."""
        if self.condensation is None:
            return float(np.mean(column)), float(np.std(column, ddof=1)) if len(column) > 1 else 0.0
        ones, counts = self.condensation.ones, self.condensation.counts
        mean = float((counts * ones) @ column) / self.n
        rest = column - mean * ones
        return mean, float(np.sqrt((counts * rest) @ rest / max(self.n - 1, 1)))

    def centred(self, columns: Floats) -> Floats:
        """Return columns (m, p) of `condensed` less their means over all rows; a constant column becomes zero."""
        ones = np.ones(len(columns)) if self.condensation is None else self.condensation.ones
        return columns - np.outer(ones, [self.moments(column)[0] for column in columns.T])

    @property
    def n(self) -> int:
        """Rows kept."""
        return self.X.shape[0]

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        """Grouping factors in order of first appearance, the terms of each merged."""
        names = dict.fromkeys(term.factor for term in self.terms)
        return tuple(self._factor(name) for name in names)

    def with_response(self, y: Floats) -> Design:
        """Return the design with another response (n,), sharing all else: `dataclasses.replace` takes far longer."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, y=y)
        return other

    @property
    def threshold_labels(self) -> tuple[str, ...]:
        """The categories of an ordered response on either side of each threshold."""
        levels = self.response_levels if len(self.response_levels) > 2 else ()
        return tuple(f"{low}|{high}" for low, high in pairwise(levels))

    def same_response(self, other: Design) -> bool:
        """Return whether another design has the same rows of the same response, as far as can be seen."""
        if self.n != other.n or self.response_name != other.response_name:
            return False
        if self.condensation is None or other.condensation is None:
            rows = (self, other)
            return all(d.condensation is None for d in rows) and np.array_equal(np.asarray(self.y), np.asarray(other.y))
        pairs = zip(*(d.moments(np.asarray(d.condensed.y)) for d in (self, other)), strict=True)
        return all(np.isclose(a, b, rtol=1e-9, atol=0.0) for a, b in pairs)

    def same_fixed(self, other: Design) -> bool:
        """Return whether another design has the same columns of X."""
        if self.condensation is None or other.condensation is None:
            return self.condensation is other.condensation and np.array_equal(self.X, other.X)
        return self.coef_names == other.coef_names

    def is_indicator(self, column: Floats) -> bool:
        """Return whether a column of `condensed` is made of zeros and ones in every row."""
        if self.condensation is None:
            return bool(np.isin(column, (0.0, 1.0)).all())
        ones, counts = self.condensation.ones, self.condensation.counts
        squares = float(counts @ column**2)
        return abs(squares - float((counts * ones) @ column)) <= 1e-9 * squares

    def sizes(self, factor: str) -> NDArray[np.int64]:
        """Return the number of rows (J,) of each level of a grouping factor."""
        if self.condensation is not None:
            return self.condensation.sizes[factor]
        found = next(other for other in self.factors if other.name == factor)
        return np.bincount(found.member_codes, minlength=len(found.members)).astype(np.int64)

    def _factor(self, name: str) -> Factor:
        indices = tuple(index for index, term in enumerate(self.terms) if term.factor == name)
        terms = [self.terms[index] for index in indices]
        members, member_codes, loading = terms[0].levels, terms[0].codes, self.encoder.loadings.get(name)
        if loading is not None:
            members = loading.levels
            member_codes = match(factorise(self.data[terms[0].term.group[0]]), members)[0]
        return Factor(
            name=name,
            levels=terms[0].levels,
            codes=terms[0].codes,
            term_indices=indices,
            effects=tuple(effect for term in terms for effect in term.effects),
            Z=_side_by_side([term.Z for term in terms]),
            new_levels=terms[0].new_levels,
            members=members,
            member_codes=member_codes,
            loading=loading,
        )

    def __repr__(self) -> str:
        groups = ", ".join(f"{factor.name} {len(factor.members)}" for factor in self.factors)
        dropped = f", {self.n_total - self.n} dropped" if self.n_total > self.n else ""
        levels = f"; levels: {groups}" if groups else ""
        count = len(self.coef_names)
        coefficients = f"{count} coefficient{'s' * (count != 1)}"
        return f"Design({self.formula.text!r}: {self.n} rows{dropped}, {coefficients}{levels})"

    def at(
        self,
        new_data: Any,
        *,
        weights: str | ArrayLike | None = None,
        offset: str | ArrayLike | None = None,
        na: Literal["error", "drop"] = "error",
    ) -> Design:
        """Return the design of other rows in the same coding.

        Parameters
        ----------
        new_data : data frame or mapping
            Columns of the right-hand side; the response is read where it is there.
        weights, offset : str or array, optional
            As in `build_design`; columns named when the model was built are used again.
        na : {"error", "drop"}, default "error"
            What to do with rows with missing values.

        Returns
        -------
        Design
            Unseen levels of a grouping factor get codes J, J + 1, ... and are listed in `new_levels`.

        Raises
        ------
        DataError
            If a column is not there, a value is missing, or a category was not in the fitted data.

        Examples
        --------
        >>> data = {"y": [1.0, 2.0, 3.0, 5.0], "x": [0, 1, 0, 1], "g": ["a", "a", "b", "b"]}
        >>> design = build_design("y ~ x + (1 | g)", data)
        >>> design.at({"x": [2], "g": ["c"]}).terms[0].new_levels
        ('c',)
        """
        if na not in ("error", "drop"):
            raise DataError(f"na={na!r} is neither 'error' nor 'drop'.")
        table = read_table(new_data)
        found = _at(self, table, weights, offset, na)
        parts = {name: _at(part, table, None, None, na) for name, part in self.auxiliary.items()}
        return replace(found, auxiliary=parts)

    @classmethod
    def from_arrays(
        cls,
        y: ArrayLike,
        X: ArrayLike,
        terms: Sequence[tuple[Any, ...]],
        *,
        weights: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        coef_names: Sequence[str] | None = None,
    ) -> Design:
        """Build a design from matrices instead of a formula, as MATLAB's `fitlmematrix` does.

        Parameters
        ----------
        y : array (n,)
            Response.
        X : array (n, p)
            Columns of the coefficients; include a column of ones for an intercept.
        terms : sequence of tuple
            ``(Z, groups)``, ``(Z, groups, name)`` or ``(Z, groups, name, covariance)`` with Z (n,) or (n, k), the
            group of each row (n,), a name of the factor and ``"us"``, ``"diag"``, ``"cs"`` or ``"ar1"``.
        weights, offset : array (n,), optional
            As in `build_design`.
        coef_names : sequence of str, length p, optional
            Names of the columns of X; by default ``Intercept`` for a column of ones, ``x1``, ``x2``, ... otherwise.

        Returns
        -------
        Design
            The design. Its `at` takes a frame with the columns named in `coef_names`, `terms[i].effects` and the
            factors.

        Raises
        ------
        DataError
            If shapes or names do not fit.

        Examples
        --------
        >>> design = Design.from_arrays([1.0, 2.0, 4.0, 3.0], np.ones((4, 1)), [(np.ones(4), [1, 1, 2, 2])])
        >>> design.coef_names, design.factors[0].name
        (('Intercept',), 'g1')
        """
        from bayeslmm.formula.matrices import design_from_arrays

        return design_from_arrays(y, X, terms, weights=weights, offset=offset, coef_names=coef_names)


def take_rows(design: Design, rows: slice | NDArray[np.intp]) -> Design:
    """Return some rows of a design; all levels of the grouping factors stay.

    Parameters
    ----------
    design : Design
        A design.
    rows : slice or ndarray of intp
        Which.

    Returns
    -------
    Design
        Same coding, fewer rows.
    """
    arrays: dict[str, Any] = {
        name: None if getattr(design, name) is None else getattr(design, name)[rows]
        for name in ("y", "X", "weights", "offset", "rows", "trials")
    }
    powers = rescaled(design.survey_weights, rows)
    terms = tuple(replace(term, Z=term.Z[rows], codes=term.codes[rows]) for term in design.terms)
    parts = {name: take_rows(part, rows) for name, part in design.auxiliary.items()}
    limits = None if design.limits is None else design.limits.rows(rows)
    structure = None if design.residuals is None else design.residuals.take(np.arange(len(design.rows))[rows])
    return replace(
        design, terms=terms, data=design.data.iloc[rows], auxiliary=parts, limits=limits, residuals=structure,
        survey_weights=powers, **arrays,
    )  # fmt: skip


def rescaled(survey_weights: Floats | None, rows: Any = slice(None)) -> Floats | None:
    """Return the survey weights of some rows, adding up to their number.

    Parameters
    ----------
    survey_weights : ndarray (n,) or None
        On any scale.
    rows : slice or ndarray, optional
        Which; all when absent.

    Returns
    -------
    ndarray or None
        With mean 1.

    Examples
    --------
    >>> rescaled(np.array([200.0, 100.0, 300.0]))
    array([1. , 0.5, 1.5])
    """
    if survey_weights is None or not len(survey_weights[rows]):
        return None
    chosen = survey_weights[rows]
    return chosen / chosen.mean()


def refuse_survey_weights(design: Design, what: str, way_out: str) -> None:
    """Refuse what a pseudo-likelihood has no answer to.

    Parameters
    ----------
    design : Design
        The formula met by data.
    what : str
        What was asked for.
    way_out : str
        What to do instead.

    Raises
    ------
    DataError
        If rows have survey weights.
    """
    if design.survey_weights is not None:
        raise DataError(
            f"{what} needs the density of the data, and with survey weights there is only a pseudo-likelihood.\n"
            f"  {way_out}"
        )


def build_design(
    formula: Formula | str,
    data: Any,
    *,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    family: Any = None,
    adjacency: Any = None,
    residuals: Residuals | None = None,
    survey_weights: str | ArrayLike | None = None,
) -> Design:
    """Let a formula meet data.

    Parameters
    ----------
    formula : Formula or str
        The formula.
    data : data frame or mapping
        pandas, polars or pyarrow, or a mapping of names to arrays.
    weights : str or array (n_total,), optional
        Prior weights: the variance of a row is sigma^2 / weight. For a binomial response given as a proportion they
        are the numbers of trials.
    offset : str or array (n_total,), optional
        Added to the linear predictor, beside every `offset()` of the formula.
    family : str or Family, optional
        Shapes the response; gaussian, or binomial for `cbind()` and `prop()`, when absent.
    adjacency : mapping, pairs, square DataFrame or GeoDataFrame, optional
        Which areas are neighbours, for `icar()` and `bym2()`; see `bayeslmm.formula.structured.read_adjacency`.
    residuals : Residuals, optional
        Unequal variances or correlations of the residuals; see `bayeslmm.formula.residuals`.
    survey_weights : str or array (n_total,), optional
        Powers of the rows' densities, rescaled to add up to the number of rows; see `bayeslmm.model`.

    Returns
    -------
    Design
        The rows without missing values, coded.

    Raises
    ------
    FormulaError
        If the formula cannot be read or names an unknown column.
    DataError
        If the data do not fit the formula.

    Warns
    -----
    DataWarning
        If columns of X depend on earlier ones; they are dropped and named.

    Examples
    --------
    >>> data = {"y": [1.0, 2.0, 3.0, 5.0], "x": [0, 1, 0, 1], "g": ["a", "a", "b", "b"]}
    >>> build_design("y ~ x + (1 | g)", data)
    Design('y ~ x + (1 | g)': 4 rows, 2 coefficients; levels: g 2)
    """
    formula = formula if isinstance(formula, Formula) else parse_formula(formula)
    family_name = None if family is None else str(getattr(family, "name", family))
    if survey_weights is not None and residuals is not None:
        raise DataError(
            "survey weights are powers of the densities of single rows, which residuals= does not have.\n"
            "  Leave one of the two out."
        )
    if is_source(data):
        from bayeslmm.formula.pushdown import source_design

        _refuse_related_levels(formula)
        if residuals is not None:
            raise DataError(
                "residuals= needs the rows in memory: their order and strata cannot be had from sums over a source.\n"
                "  Fetch the columns of the formula into a data frame first."
            )
        if survey_weights is not None:
            raise DataError(
                "survey weights need the rows in memory.\n  Fetch the columns of the formula into a data frame first."
            )
        return source_design(formula, data, weights=weights, offset=offset, family=family_name)
    return design_of_frame(
        formula, data, weights, offset, family_name, adjacency=adjacency, residuals=residuals,
        survey_weights=survey_weights,
    )  # fmt: skip


def design_of_frame(
    formula: Formula,
    data: Any,
    weights: str | ArrayLike | None,
    offset: str | ArrayLike | None,
    family_name: str | None,
    known_states: State | None = None,
    adjacency: Any = None,
    residuals: Residuals | None = None,
    survey_weights: str | ArrayLike | None = None,
) -> Design:
    """Let a formula meet rows in memory; see `build_design`.

    Parameters
    ----------
    formula, data, weights, offset
        As in `build_design`.
    family_name : str or None
        The family.
    known_states : mapping, optional
        What stateful functions learnt from more rows than these.
    adjacency : mapping, pairs, square DataFrame or GeoDataFrame, optional
        As in `build_design`.
    residuals : Residuals, optional
        As in `build_design`.
    survey_weights : str or array (n_total,), optional
        As in `build_design`.

    Returns
    -------
    Design
        The rows without missing values, coded.
    """
    table = read_table(data)
    if table.n_rows == 0:
        raise DataError("the data have no rows.")
    known_columns(formula, table.names)
    if residuals is not None:
        check_columns(residuals, table.names)
    fixed = _expand_fixed(formula, table, weights, offset, survey_weights)
    names, response_names = _right_names(fixed, formula), side_names(formula.response)
    beside = () if residuals is None else residuals.columns
    chosen = select_rows(
        table, (*response_names, *names, *_group_names(formula), *beside), weights, offset, survey_weights
    )
    frame, rows = chosen.frame, chosen.rows
    if not len(rows.kept):
        shown = listing(f"{name} {count}" for name, count in rows.missing.items())
        raise DataError(f"every one of the {rows.n_total} rows has a missing value.\n  Missing: {shown}.")

    coding, values = learn(frame, names)
    coding.states.update(known_states or {})
    matrix = model_matrix(fixed, values, coding.states, len(frame), text=formula.text)
    loadings = _loadings(formula, frame, adjacency)
    terms, recipes = _group_terms(formula, frame, values, coding.states, matrix, loadings)
    response_coding, response_values = learn(frame, response_names)
    response = read_response(
        formula.response,
        response_values,
        response_coding.states,
        family_name,
        trials=chosen.weights,
        text=formula.text,
    )
    if family_name in CATEGORICAL and formula.response in frame:
        checks.warn_order(frame[formula.response], response.levels)
    kept = _independent_columns(matrix, family_name)
    dropped = np.delete(np.arange(len(matrix.names)), kept)
    encoder = Encoder(
        coding=coding,
        response_states=response_coding.states,
        fixed=matrix.recipe,
        kept=kept,
        random=recipes,
        names=names,
        weights=chosen.weights_name,
        offset=chosen.offset_name,
        offset_was_array=chosen.offset is not None and chosen.offset_name is None,
        family=family_name,
        loadings=loadings,
        adjacency=adjacency,
    )
    design = Design(
        formula=formula,
        y=response.y,
        X=_take_columns(matrix.values, kept),
        coef_names=tuple(matrix.names[index] for index in kept),
        terms=terms,
        weights=None if response.trials is chosen.weights else chosen.weights,
        offset=_total_offset(formula, values, coding.states, chosen.offset),
        rows=rows.kept,
        n_total=rows.n_total,
        missing=rows.missing,
        dropped_columns=tuple(matrix.names[i] for i in dropped if matrix.names[i] != "Intercept"),
        response_name=formula.response,
        data=frame,
        encoder=encoder,
        trials=response.trials,
        response_levels=response.levels,
        residuals=None if residuals is None else residual_structure(residuals, frame, _codes(terms)),
        limits=response.limits,
        survey_weights=rescaled(chosen.survey_weights),
    )
    _check(design)
    return design


def has_thresholds(family_name: str | None) -> bool:
    """Return whether a family has thresholds between categories in the place of an intercept.

    Parameters
    ----------
    family_name : str or None
        Name of the family.

    Returns
    -------
    bool

    Examples
    --------
    >>> has_thresholds("cumulative"), has_thresholds("bernoulli")
    (True, False)
    """
    row = FAMILIES.get(family_name or "")
    return row is not None and row.parameter == "threshold"


def _independent_columns(matrix: Matrix, family_name: str | None) -> NDArray[np.intp]:
    """Return the columns that no earlier ones make up; thresholds stand for a constant before the first."""
    if not has_thresholds(family_name):
        return checks.independent_columns(matrix.values)
    constant = np.ones((len(matrix.values), 1))
    return checks.independent_columns(np.hstack([constant, matrix.values]))[1:] - 1


def _codes(terms: Sequence[GroupTerm]) -> dict[str, Codes]:
    return {term.factor: term.codes for term in terms}


def _expand_fixed(formula: Formula, table: Table, *arguments: Any) -> str:
    elsewhere = {*formula_names(formula), *(given for given in arguments if isinstance(given, str))}
    return expand_dot(formula.fixed, tuple(name for name in table.names if name not in elsewhere))


def _right_names(fixed: str, formula: Formula) -> tuple[str, ...]:
    sides = (fixed, *(term.columns for term in formula.random), *formula.offsets)
    return tuple(dict.fromkeys(name for side in sides for name in side_names(side)))


def _group_names(formula: Formula) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for term in formula.random for name in term.group))


def _side_by_side(blocks: list[Floats]) -> Floats:
    if len(blocks) == 1:
        return blocks[0]
    if isinstance(blocks[0], Elsewhere):
        return blocks[0].widened(sum(block.shape[1] for block in blocks))
    return np.ascontiguousarray(np.hstack(blocks))


def _take_columns(matrix: Floats, kept: NDArray[np.intp]) -> Floats:
    return matrix if len(kept) == matrix.shape[1] else np.ascontiguousarray(matrix[:, kept])


def _total_offset(formula: Formula, values: Mapping[str, Any], states: State, argument: Floats | None) -> Floats | None:
    """Add up every offset of the formula and the argument."""
    total = argument
    for text in formula.offsets:
        value = evaluate(parse_syntax(text), values, states, formula.text)
        if not isinstance(value, np.ndarray) or value.ndim != 1:
            raise DataError(f"offset({text}) must be one column of numbers.")
        checks.check_offset(value, f"offset({text})")
        total = value.astype(np.float64) if total is None else total + value
    return total


def _refuse_related_levels(formula: Formula) -> None:
    for term in formula.random:
        if term.structure is not None:
            raise DataError(
                f"{term} cannot be summed by a database, because each row loads on every mode of the structure\n"
                f"{underline(formula.text, term.span)}\n  Read the columns into memory and give the data frame."
            )


def _loadings(formula: Formula, frame: pd.DataFrame, adjacency: Any) -> dict[str, Loading]:
    """Return how the levels of structured terms are related, by factor."""
    found = {}
    for term in formula.random:
        if term.structure == "rw":
            found[term.factor] = random_walk(frame[term.group[0]], term.group[0])
        elif term.structure == "icar":
            if adjacency is None:
                raise DataError(
                    f"{term} needs to know which areas are neighbours\n{underline(formula.text, term.span)}\n"
                    "  Give adjacency={'NY': ['NJ', 'CT', ...], ...}, pairs, a square table or a GeoDataFrame."
                )
            found[term.factor] = areas(adjacency)
    return found


def _related_term(term: RandomTerm, loading: Loading, column: Levels) -> GroupTerm:
    """Return a structured term: all its effects belong to the one level of a factor."""
    Z = loading.rows(column, term)
    return GroupTerm(term, loading.modes, Z, np.zeros(len(Z), dtype=np.int32), ("all",))


def _group_terms(
    formula: Formula,
    frame: pd.DataFrame,
    values: Mapping[str, Any],
    states: State,
    fixed: Matrix,
    loadings: Mapping[str, Loading],
) -> tuple[tuple[GroupTerm, ...], tuple[Recipe, ...]]:
    """Build every random term; equal right-hand sides, the fixed one included, share one matrix."""
    given = dict(frame.items())
    columns = {name: _group_column(given[name], name) for name in _group_names(formula)}
    factors = {term.group: joint_levels([columns[name] for name in term.group], term.factor) for term in formula.random}
    matrices = {fixed.recipe.side: fixed}
    for term in formula.random:
        if term.columns not in matrices:
            matrices[term.columns] = model_matrix(term.columns, values, states, len(frame), text=formula.text)
    terms = []
    for term in formula.random:
        if term.factor in loadings:
            terms.append(_related_term(term, loadings[term.factor], columns[term.group[0]]))
            continue
        matrix, levels = matrices[term.columns], factors[term.group]
        terms.append(GroupTerm(term, matrix.names, matrix.values, levels.codes, levels.labels))
    return tuple(terms), tuple(matrices[term.columns].recipe for term in formula.random)


def _group_column(series: pd.Series, name: str) -> Levels:
    if pd.api.types.is_float_dtype(series.dtype):
        values = series.to_numpy(dtype=np.float64)
        broken = int(np.count_nonzero(values != np.floor(values)))
        if broken or np.isinf(values).any():
            example = values[np.argmax(values != np.floor(values))] if broken else np.inf
            raise DataError(
                f"grouping factor {name!r} holds numbers that are not whole, e.g. {example:g}.\n"
                "  A grouping factor names groups: make it text, integers or categories."
            )
    return factorise(series)


def _check(design: Design) -> None:
    """Refuse data that leave something undetermined; warn about dropped columns."""
    for term in design.terms:
        if term.term.structure is None:
            checks.check_levels(term)
            checks.warn_constant_slopes(term)
    checks.check_distinct_effects(design.terms, design.formula.text)
    checks.check_distinct_factors(design.terms, design.formula.text)
    if design.trials is None and design.y is not None:
        checks.check_variation(design.y, design.offset, design.response_name)
    checks.check_exchangeable(design.residuals, design.terms)
    if design.encoder.family in (None, "gaussian") and design.trials is None:
        checks.check_degrees_of_freedom(design.n, design.coef_names)
        for term in design.terms:
            checks.check_residual(term, design.weights)
            checks.warn_many_effects(term)
    checks.warn_single_levels(design.encoder.coding.levels)
    checks.warn_dropped(design.dropped_columns)


def _at(
    design: Design,
    table: Table,
    weights: str | ArrayLike | None,
    offset: str | ArrayLike | None,
    na: Literal["error", "drop"],
) -> Design:
    encoder, formula = design.encoder, design.formula
    weights = encoder.weights if weights is None and encoder.weights in table.names else weights
    offset = encoder.offset if offset is None else offset
    if offset is None and encoder.offset_was_array:
        raise DataError(
            "the model was built with an offset given as numbers, which new data do not have.\n"
            "  Give the offset as a column name, or as offset(x) in the formula; or pass offset= here."
        )
    structure = design.residuals
    if structure is not None and not set(structure.spec.columns) <= set(table.names):
        structure = None
    beside = () if structure is None else structure.spec.columns
    needed = dict.fromkeys((*encoder.names, *_group_names(formula), *beside))
    absent = [name for name in needed if name not in table.names]
    if absent:
        raise DataError(
            f"the new data have no column{'s' * (len(absent) > 1)} {listing(map(repr, absent))}.\n"
            f"  Needed: {listing(needed)}."
        )
    chosen = select_rows(table, needed, weights, offset)
    rows, n = chosen.rows, len(chosen.frame)
    if rows.missing and na == "error":
        shown = listing(f"{name} ({count} row{'s' * (count != 1)})" for name, count in rows.missing.items())
        raise DataError(f"the new data have missing values: {shown}.\n  na='drop' leaves these rows out.")

    states = encoder.coding.states
    values = encoder.coding.values(chosen.frame, encoder.names)
    response, frame = _new_response(design, table, chosen)
    trials = None if response is None else response.trials
    terms = _terms_at(design, frame, values, n)
    return replace(
        design,
        y=None if response is None else response.y,
        X=_take_columns(encoder.fixed.apply(values, states, n), encoder.kept),
        terms=terms,
        weights=None if trials is chosen.weights else chosen.weights,
        offset=_total_offset(formula, values, states, chosen.offset),
        rows=rows.kept,
        n_total=rows.n_total,
        missing=rows.missing,
        data=frame,
        trials=trials,
        residuals=None
        if structure is None
        else residual_structure(structure.spec, frame, _codes(terms), fitted=structure),
        limits=None if response is None else response.limits,
        survey_weights=None,
    )


def _terms_at(design: Design, frame: pd.DataFrame, values: Mapping[str, Any], n: int) -> tuple[GroupTerm, ...]:
    states = design.encoder.coding.states
    columns = {name: _group_column(frame[name], name) for name in _group_names(design.formula)}
    terms = []
    for term, recipe in zip(design.terms, design.encoder.random, strict=True):
        if term.factor in design.encoder.loadings:
            loading = design.encoder.loadings[term.factor]
            terms.append(_related_term(term.term, loading, columns[term.term.group[0]]))
            continue
        found = joint_levels([columns[name] for name in term.term.group], term.factor)
        codes, unseen = match(found, term.levels)
        terms.append(replace(term, Z=recipe.apply(values, states, n), codes=codes, new_levels=unseen))
    return tuple(terms)


def _new_response(design: Design, table: Table, chosen: Selection) -> tuple[Response | None, pd.DataFrame]:
    """Read the response of new data where all of it is there; its columns join the frame."""
    side, encoder = design.formula.response, design.encoder
    names = side_names(side)
    if not all(name in table.names for name in names):
        return None, chosen.frame
    columns = table.select(names).take(chosen.rows.kept).reset_index(drop=True)
    frame = pd.concat([columns, chosen.frame.drop(columns=[name for name in names if name in chosen.frame])], axis=1)
    if columns.isna().to_numpy().any():
        return None, frame
    _, values = learn(columns, names)
    states, text = encoder.response_states, design.formula.text
    response = read_response(side, values, states, encoder.family, trials=chosen.weights, text=text)
    return _in_fitted_levels(response, design), frame


def _in_fitted_levels(response: Response, design: Design) -> Response:
    """Express a categorical response in the categories of the fitted data."""
    if not design.response_levels or response.levels == design.response_levels:
        return response
    found = Levels(response.y.astype(np.int32), response.levels)
    codes, unseen = match(found, design.response_levels)
    if unseen:
        raise DataError(
            f"the response {design.response_name!r} holds {listing(map(repr, unseen))}, which the fitted data did not."
        )
    return replace(response, y=codes.astype(np.float64), levels=design.response_levels)
