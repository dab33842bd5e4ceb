"""What a change makes: contrasts of group effects, and comparisons and slopes averaged over the data, as draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bayes.groups import effect_draws
from bayeslmm.bayes.inference import spread_of_effects
from bayeslmm.errors import ComparisonError, did_you_mean, listing
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Design, Factor

Scale = Literal["response", "link"]
GroupEffects = Literal["integrated", "zero", "fitted"]
CHUNK_NUMBERS = 1 << 22
STEP = 1e-4
NODES = 21
MEANINGS = {
    "integrated": "group effects integrated over their distribution",
    "zero": "in an average group",
    "fitted": "in the fitted groups",
}
FACTOR_CONTRASTS = ("reference", "sequential", "pairwise")
NUMBER_CONTRASTS = ("sd", "iqr", "minmax")


@dataclass(frozen=True, repr=False)
class EffectDraws(Tabular):
    """Draws of differences, with labels.

    Parameters
    ----------
    labels : DataFrame (m, ...)
        What each difference is.
    draws : ndarray (S, m)
        The draws.
    level : float
        Probability inside the intervals.
    title : str
        What the table is called.
    notes : tuple of str
        What was averaged over.
    null : float
        No difference: 0, or 1 for ratios.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
    >>> bool(post.contrast("Subject", "308 - 309", effect="Days").frame["estimate"].between(12, 22).all())
    True
    """

    labels: pd.DataFrame
    draws: NDArray[np.float64] = field(repr=False)
    level: float = 0.95
    title: str = "Contrasts"
    notes: tuple[str, ...] = ()
    null: float = 0.0

    @property
    def frame(self) -> pd.DataFrame:
        """The labels, then posterior mean, SD, central interval, and the probability of being above `null`."""
        tail = (1 - self.level) / 2
        lower, upper = np.quantile(self.draws, [tail, 1 - tail], axis=0)
        numbers = {
            "estimate": self.draws.mean(axis=0),
            "se": self.draws.std(axis=0, ddof=1),
            "lower": lower,
            "upper": upper,
            "positive": np.where(np.isnan(self.draws[0]), np.nan, (self.draws > self.null).mean(axis=0)),
        }
        return self.labels.reset_index(drop=True).assign(**numbers)

    def to_pandas(self) -> pd.DataFrame:
        """Return `frame`.

        Returns
        -------
        DataFrame
            One row per difference.
        """
        return self.frame

    def table(self) -> Table:
        """Return the differences as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        frame = self.frame
        names = [" ".join(map(str, row)) for row in self.labels.itertuples(index=False)]
        numbers = frame[["estimate", "se", "lower", "upper", "positive"]].set_axis(names)
        meaning = f"positive: posterior probability of being above {self.null:g}"
        notes = (*self.notes, f"{100 * self.level:g} % intervals; {meaning}.")
        return Table(numbers, title=self.title, notes=notes, shared=(("estimate", "se", "lower", "upper"),))


# --- contrasts of group effects ------------------------------------------------------------------------------------


def group_contrasts(
    post: Posterior,
    group: str,
    contrasts: str | Mapping[str, float] | Sequence[str] | Mapping[str, Mapping[str, float]],
    effect: str,
    level: float,
) -> EffectDraws:
    """Return linear combinations of the effects of a factor's levels.

    Parameters
    ----------
    post : Posterior
        The posterior.
    group : str
        A grouping factor.
    contrasts : str, sequence of str, mapping of str to float, or mapping of str to such mappings
        ``"A - B"``, several of these, weights by level, or such weights by name of the contrast; ``"pairwise"`` for
        all pairs.
    effect : str
        One of its effects.
    level : float
        Probability inside the intervals.

    Returns
    -------
    EffectDraws
        Columns `group`, `effect`, `contrast`.

    Raises
    ------
    ComparisonError
        If a level or effect is not there.
    """
    factor, members = effect_draws(post, group, effect, ComparisonError)
    weights = dict(_named_weights(factor, contrasts))
    matrix = np.zeros((len(factor.members), len(weights)))
    for column, chosen in enumerate(weights.values()):
        for name, weight in chosen.items():
            matrix[_level_position(factor, name), column] = weight
    labels = pd.DataFrame({"group": group, "effect": effect, "contrast": list(weights)})
    return EffectDraws(labels, members @ matrix, level, "Contrasts of group effects")


def _named_weights(factor: Factor, contrasts: Any) -> Iterator[tuple[str, Mapping[str, float]]]:
    if isinstance(contrasts, str) and contrasts == "pairwise":
        yield from ((f"{a} - {b}", {a: 1.0, b: -1.0}) for a, b in combinations(factor.members, 2))
    elif isinstance(contrasts, str):
        yield contrasts, _difference(factor, contrasts)
    elif isinstance(contrasts, Mapping):
        if all(isinstance(value, Mapping) for value in contrasts.values()):
            yield from ((str(name), _weights(value)) for name, value in contrasts.items())
        else:
            weights = _weights(contrasts)
            yield " + ".join(f"{weight:g} * {name}" for name, weight in weights.items()).replace("+ -", "- "), weights
    else:
        yield from ((text, _difference(factor, text)) for text in contrasts)


def _weights(given: Mapping[Any, Any]) -> dict[str, float]:
    try:
        return {str(name): float(weight) for name, weight in given.items()}
    except (TypeError, ValueError):
        raise ComparisonError(f"the weights {dict(given)!r} must be numbers, one for each level.") from None


def _difference(factor: Factor, text: str) -> dict[str, float]:
    """Return the weights of "A - B", where names of levels may themselves hold " - "."""
    parts = str(text).split(" - ")
    for at in range(1, len(parts)):
        a, b = " - ".join(parts[:at]).strip(), " - ".join(parts[at:]).strip()
        if a in factor.members and b in factor.members:
            return {a: 1.0, b: -1.0}
    if len(parts) < 2:
        raise ComparisonError(
            f"the contrast {text!r} cannot be read: write 'A - B' with a level of {factor.name!r} on either side,\n"
            "  or give weights by level: {'A': 1, 'B': -0.5, 'C': -0.5}."
        )
    for name in (parts[0].strip(), " - ".join(parts[1:]).strip()):
        _level_position(factor, name)
    raise ComparisonError(f"the contrast {text!r} cannot be read.")


def _level_position(factor: Factor, name: str) -> int:
    if name not in factor.members:
        hint = did_you_mean(name, factor.members)
        raise ComparisonError(
            f"{factor.name!r} has no level {name!r}.\n  Levels: {listing(factor.members)}. {hint}".rstrip()
        )
    return factor.members.index(name)


# --- averages over the data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """Two values of one variable between which predictions are compared.

    Parameters
    ----------
    variable : str
        The variable.
    label : str
        What is compared.
    low, high : ndarray (n,) or Series
        Its two values in each row.
    divisor : float
        What the difference is divided by: the step of a slope.
    """

    variable: str
    label: str
    low: Any
    high: Any
    divisor: float = 1.0


def comparisons(
    post: Posterior,
    variables: str | Sequence[str] | Mapping[str, Any] | None,
    *,
    by: str | Sequence[str] | None,
    scale: Scale,
    include: Sequence[str] | None,
    new_data: Any,
    level: float,
) -> EffectDraws:
    """Return how far the expected response moves with a change of each variable, averaged over the data.

    Parameters
    ----------
    post : Posterior
        The posterior.
    variables : str, sequence of str or mapping, optional
        Which, and what change: see `Posterior.comparisons`.
    by : str or sequence of str, optional
        Columns: an average for each of their values.
    scale : {"response", "link"}
        Expected response, or linear predictor.
    include : sequence of str, optional
        Grouping factors that count.
    new_data : data frame, optional
        Rows to average over; the fitted rows when absent.
    level : float
        Probability inside the intervals.

    Returns
    -------
    EffectDraws
        Columns `term`, `contrast`, and those of `by`.

    References
    ----------
    Arel-Bundock, Greifer & Heiss (2024), *Journal of Statistical Software* 111(9).
    """
    frame = rows_to_average(post, new_data)
    asked = _asked(post, frame, variables)
    changes = [change for name, how in asked.items() for change in changes_of(frame, name, how)]
    return _averaged(post, frame, changes, by, scale, include, level, "Average comparisons")


def slopes(
    post: Posterior,
    variables: str | Sequence[str] | None,
    *,
    by: str | Sequence[str] | None,
    scale: Scale,
    include: Sequence[str] | None,
    new_data: Any,
    level: float,
) -> EffectDraws:
    """Return derivatives of the expected response by each number, averaged over the data; see `comparisons`.

    Parameters
    ----------
    post : Posterior
        The posterior.
    variables : str or sequence of str, optional
        Numbers among the predictors; all of them when absent.
    by, scale, include, new_data, level
        As in `comparisons`.

    Returns
    -------
    EffectDraws
        Columns `term`, `contrast` ("dY/dX"), and those of `by`.
    """
    frame = rows_to_average(post, new_data)
    numbers = [name for name in predictors(post) if _is_number(frame[name])]
    asked = numbers if variables is None else list(_asked(post, frame, variables))
    for name in asked:
        if name not in numbers:
            raise ComparisonError(f"{name!r} is not a number, so it has no slope: use comparisons().")
    changes = [_slope_change(frame, name) for name in asked]
    return _averaged(post, frame, changes, by, scale, include, level, "Average slopes")


def _slope_change(frame: pd.DataFrame, name: str) -> Change:
    x = frame[name].to_numpy(dtype=np.float64)
    step = STEP * (float(np.ptp(x)) or 1.0)
    return Change(name, "dY/dX", x - step / 2, x + step / 2, step)


def marginal_effects(
    post: Posterior, variables: str | Sequence[str] | None, group_effects: GroupEffects, level: float
) -> EffectDraws:
    """Return derivatives for numbers and differences from the first level for factors, averaged over the data.

    Parameters
    ----------
    post : Posterior
        The posterior.
    variables : str or sequence of str, optional
        Predictors; all when absent.
    group_effects : {"integrated", "zero", "fitted"}
        Expected responses averaged over the distribution of the group effects, by quadrature; of an average group; of
        the fitted groups.
    level : float
        Probability inside the intervals.

    Returns
    -------
    EffectDraws
        Columns `term`, `contrast`.

    Raises
    ------
    ComparisonError
        If there is no such predictor, or no such choice of group effects.
    """
    if group_effects not in MEANINGS:
        raise ComparisonError(f"group_effects={group_effects!r} is not one of {listing(map(repr, MEANINGS))}.")
    frame = rows_to_average(post, None)
    changes = []
    for name in _asked(post, frame, variables):
        changes += [_slope_change(frame, name)] if _is_number(frame[name]) else changes_of(frame, name, None)
    include = None if group_effects == "fitted" else ()
    return _averaged(
        post, frame, changes, None, "response", include, level, "Average marginal effects", MEANINGS[group_effects],
        integrate=group_effects == "integrated",
    )  # fmt: skip


def rows_to_average(post: Posterior, new_data: Any) -> pd.DataFrame:
    """Return the rows predictions are averaged over, numbered from 0.

    Parameters
    ----------
    post : Posterior
        The posterior.
    new_data : data frame or None
        Rows of the caller; the fitted ones when None.

    Returns
    -------
    DataFrame
        Columns of the formula.
    """
    if new_data is not None:
        return post.design.at(new_data).data.reset_index(drop=True)
    if post.design.condensation is not None:
        raise ComparisonError(
            "the rows of this model stay in their source, so there are none to average over: give new_data=."
        )
    return post.design.data.reset_index(drop=True)


def predictors(post: Posterior) -> list[str]:
    """Return the columns that expressions of the right-hand side use, grouping factors and offsets aside.

    Parameters
    ----------
    post : Posterior
        The posterior.

    Returns
    -------
    list of str
        In order of appearance.
    """
    from bayeslmm.formula.parse import side_names

    formula = post.design.formula
    others = (part.encoder.fixed.side for part in post.design.auxiliary.values())
    sides = (post.design.encoder.fixed.side, *(term.columns for term in formula.random), *others)
    return list(dict.fromkeys(name for side in sides for name in side_names(side)))


def _asked(post: Posterior, frame: pd.DataFrame, variables: Any) -> dict[str, Any]:
    known = predictors(post)
    if variables is None:
        asked = dict.fromkeys(known)
    elif isinstance(variables, str):
        asked = {variables: None}
    else:
        asked = dict(variables) if isinstance(variables, Mapping) else dict.fromkeys(variables)
    for name in asked:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ComparisonError(
                f"{name!r} is no predictor of the model.\n  Predictors: {listing(known)}. {hint}".rstrip()
            )
    if not asked:
        raise ComparisonError("the model has no predictors to compare.")
    return asked


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def changes_of(frame: pd.DataFrame, name: str, how: Any) -> list[Change]:
    """Return the changes of one variable that were asked for.

    Parameters
    ----------
    frame : DataFrame
        The rows.
    name : str
        The variable.
    how : object
        As in `Posterior.comparisons`.

    Returns
    -------
    list of Change
        At least one.

    Raises
    ------
    ComparisonError
        If it cannot be read.
    """
    column = frame[name]
    return _number_changes(column, name, how) if _is_number(column) else _level_changes(column, name, how)


def _number_changes(column: pd.Series, name: str, how: Any) -> list[Change]:
    x = column.to_numpy(dtype=np.float64)
    if how is None or (isinstance(how, int | float) and not isinstance(how, bool)):
        step = 1.0 if how is None else float(how)
        return [Change(name, f"+{step:g}" if step >= 0 else f"{step:g}", x, x + step)]
    if how == "sd":
        half = float(np.std(x, ddof=1)) / 2
        return [Change(name, "+1 SD, centred", x - half, x + half)]
    if isinstance(how, str) and how in ("iqr", "minmax"):
        low, high = np.quantile(x, [0.25, 0.75] if how == "iqr" else [0.0, 1.0])
        return [Change(name, f"{high:g} - {low:g}", np.full(len(x), low), np.full(len(x), high))]
    if isinstance(how, Sequence) and not isinstance(how, str) and len(how) == 2:
        low, high = map(float, how)
        return [Change(name, f"{high:g} - {low:g}", np.full(len(x), low), np.full(len(x), high))]
    raise ComparisonError(
        f"the change {how!r} of {name!r} cannot be read: give a step, two values, or one of "
        f"{listing(map(repr, NUMBER_CONTRASTS))}."
    )


def _level_changes(column: pd.Series, name: str, how: Any) -> list[Change]:
    from bayeslmm.formula.grouping import as_categorical

    names = [str(value) for value in as_categorical(column).categories]
    text = column.astype(str)
    values = {str(value): value for value in column.drop_duplicates()}
    levels = [level for level in names if level in values] or list(dict.fromkeys(text))
    if how is None or how == "reference":
        pairs = [(levels[0], level) for level in levels[1:]]
    elif isinstance(how, str) and how == "sequential":
        pairs = list(pairwise(levels))
    elif isinstance(how, str) and how == "pairwise":
        pairs = list(combinations(levels, 2))
    elif isinstance(how, Sequence) and not isinstance(how, str) and len(how) == 2:
        pairs = [(str(how[0]), str(how[1]))]
    else:
        raise ComparisonError(
            f"the change {how!r} of {name!r} cannot be read: give two levels, or one of "
            f"{listing(map(repr, FACTOR_CONTRASTS))}."
        )
    for level in (level for pair in pairs for level in pair):
        if level not in values:
            hint = did_you_mean(level, values)
            raise ComparisonError(f"{name!r} has no level {level!r}.\n  Levels: {listing(values)}. {hint}".rstrip())
    if not pairs:
        raise ComparisonError(f"{name!r} has one level only: nothing to compare.")
    return [
        Change(name, f"{high} - {low}", _constant(column, values[low]), _constant(column, values[high]))
        for low, high in pairs
    ]


def _constant(column: pd.Series, value: Any) -> pd.Series:
    return pd.Series([value] * len(column), dtype=column.dtype, index=column.index)


def _averaged(
    post: Posterior,
    frame: pd.DataFrame,
    changes: Sequence[Change],
    by: str | Sequence[str] | None,
    scale: Scale,
    include: Sequence[str] | None,
    level: float,
    title: str,
    whose: str = "",
    *,
    integrate: bool = False,
) -> EffectDraws:
    if scale not in ("response", "link"):
        raise ComparisonError(f'scale={scale!r} is not one of "response", "link".')
    if scale == "response" and post.response.parameter == "threshold":
        raise ComparisonError(
            'an ordered response has probabilities of categories, not one mean: use epred_draws(), or scale="link".'
        )
    names = [by] if isinstance(by, str) else list(by or ())
    for name in names:
        if name not in frame:
            hint = did_you_mean(name, frame.columns)
            raise ComparisonError(f"there is no column {name!r} to average by. {hint}".rstrip())
    codes, keys = numbered_rows(frame, names)
    average = np.zeros((len(frame), len(keys)))
    average[np.arange(len(frame)), codes] = 1 / np.bincount(codes, minlength=len(keys))[codes]
    parts, labels = [], []
    for change in changes:
        high, low = (
            averaged_predictions(
                post, _design_of(post, frame.assign(**{change.variable: value})), average, scale, include, integrate
            )
            for value in (change.high, change.low)
        )
        parts.append((high - low) / change.divisor)
        labels += [
            {"term": change.variable, "contrast": change.label, **dict(zip(names, key, strict=True))} for key in keys
        ]
    what = "expected response" if scale == "response" else "linear predictor"
    chosen = "group effects included" if include is None else f"group effects of {listing(include) or 'none'} included"
    note = f"Of the {what}, averaged over {len(frame):,} rows, {whose or chosen}."
    return EffectDraws(pd.DataFrame(labels), np.concatenate(parts, axis=1), level, title, (note,))


def numbered_rows(frame: pd.DataFrame, names: Sequence[str]) -> tuple[NDArray[np.intp], list[tuple[Any, ...]]]:
    """Return for each row the number of its combination of values, and the combinations, sorted.

    Parameters
    ----------
    frame : DataFrame
        The rows.
    names : sequence of str
        Columns; one combination for all rows when empty.

    Returns
    -------
    codes : ndarray (n,)
        From 0.
    keys : list of tuple
        Values of the columns.
    """
    if not names:
        return np.zeros(len(frame), dtype=np.intp), [()]
    codes = frame.groupby(list(names), sort=True, observed=True).ngroup().to_numpy()
    first = np.unique(codes, return_index=True)[1]
    return codes.astype(np.intp), list(frame[list(names)].iloc[first].itertuples(index=False, name=None))


def _design_of(post: Posterior, frame: pd.DataFrame) -> Design:
    """Return the design of changed rows; an offset that was given as numbers stays with its rows."""
    design = post.design
    if not design.encoder.offset_was_array:
        return design.at(frame)
    zeros = np.zeros(len(frame))
    if len(frame) != design.n:
        raise ComparisonError("the model was built with an offset given as numbers, which new data do not have.")
    assert design.offset is not None
    changed, before = design.at(frame, offset=zeros), design.at(design.data, offset=zeros)
    assert changed.offset is not None
    assert before.offset is not None
    return replace(changed, offset=changed.offset + design.offset - before.offset)


def averaged_predictions(
    post: Posterior,
    design: Design,
    average: NDArray[np.float64],
    scale: Scale,
    include: Sequence[str] | None,
    integrate: bool = False,
) -> NDArray[np.float64]:
    """Return weighted sums of predictions over rows, for every draw, in pieces.

    Parameters
    ----------
    post : Posterior
        The posterior.
    design : Design
        The rows.
    average : ndarray (n, m)
        Weights.
    scale : {"response", "link"}
        What is predicted.
    include : sequence of str, optional
        Grouping factors that count.
    integrate : bool, default False
        Average over the distribution of the group effects, by quadrature; `include` is then empty.

    Returns
    -------
    ndarray (S, m)
        Draws of the averages.
    """
    total = np.empty((post.n_draws, average.shape[1]))
    step = max(1, CHUNK_NUMBERS // max(design.n, 1))
    covariances = post.effect_covariances() if integrate else {}
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    for start in range(0, post.n_draws, step):
        chosen = np.arange(start, min(start + step, post.n_draws))
        eta = post._linear(design, chosen, "error", include, None)
        if scale == "link" or not integrate:
            total[chosen] = (eta if scale == "link" else post._expected(design, eta, chosen)) @ average
            continue
        spread = spread_of_effects(design, {name: value[chosen] for name, value in covariances.items()})
        total[chosen] = sum(
            weight * (post._expected(design, eta + z * spread, chosen) @ average)
            for z, weight in zip(nodes, weights / weights.sum(), strict=True)
        )
    return total
