"""From a fit and a frame to estimates: W times the expected response, streamed over chunks of cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayeslmm.contract import NEW_LEVELS, Fit, NewLevels
from bayeslmm.errors import DataError, NewLevelsError, listing
from bayeslmm.formula.design import PSEUDO_LIKELIHOOD
from bayeslmm.formula.grouping import factorise
from bayeslmm.mrp.checking import covariates, grouping_columns, outside
from bayeslmm.mrp.estimates import Estimates
from bayeslmm.mrp.frame import PoststratFrame
from bayeslmm.mrp.grouping import By, Groups, grouping_sets, make_groups
from bayeslmm.mrp.streaming import CELLS_PER_DESIGN, Predictor, check_draws, predictor, sum_over_cells
from bayeslmm.mrp.survey import respondents

CHUNK_VALUES = 4_000_000
DRAFTS = ("REML", "ML", "Laplace", "quadrature")
DRAFT_NOTE = (
    "A fast draft: estimates at the modes of the {engine} fit. Its intervals take the variance parameters as known and"
    " are too short; sample() gives the full posterior."
)


def poststratify(
    fit: Fit,
    frame: PoststratFrame,
    by: By = None,
    *,
    margins: bool = False,
    where: Mapping[str, Any] | ArrayLike | None = None,
    new_levels: NewLevels = "error",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    count_draws: ArrayLike | None = None,
    category: str | None = None,
    draws: int | None = None,
    seed: int | None = None,
    chunk: int | None = None,
) -> Estimates:
    """Average the expected response of a fit over the population's cells.

    Every estimate is a sum over cells of count times expected response, divided by the sum of counts, draw by draw.
    Cells pass by in chunks, so that cells times draws never stand in memory.

    Parameters
    ----------
    fit : Fit
        A posterior, or a REML, ML or Laplace fit: the fast draft, whose estimates are taken at the modes and whose
        intervals take the variance parameters as known.
    frame : PoststratFrame
        The population.
    by : str or sequence, optional
        ``"state"``; ``["state", "age"]`` for their crossing; ``["state", ("state", "age"), ()]`` for several groupings
        at once; the whole population when absent.
    margins : bool, default False
        Add every margin of `by`, down to the whole population.
    where : mapping or array_like (n,) of bool, optional
        Keep a sub-population, as in `PoststratFrame.filter`.
    new_levels : {"error", "zero", "sample"}, default "error"
        Levels of a grouping factor that the survey never saw: refuse, take the population mean, or draw their effects
        from the fitted distribution, which is what MRP wants.
    include : sequence of str, optional
        Grouping factors that count; all when absent.
    exclude : sequence of str, optional
        Grouping factors that do not count, such as the poll a respondent was in; their columns need not be in the
        frame.
    count_draws : array_like (D, n), optional
        Uncertain counts: D draws of the counts of all cells (before `where`); draw s of an estimate uses row s mod D.
    category : str, optional
        For an ordered response: the category whose share is estimated.
    draws : int, optional
        Number of draws; all of a posterior, 1,000 of a fit when absent.
    seed : int, optional
        Makes the draws reproducible.
    chunk : int, optional
        Cells per chunk, for families whose mean is no function of the linear predictor alone; chosen so that a chunk
        takes about 32 MB when absent.

    Returns
    -------
    Estimates
        With the raw estimates of the survey beside them where the grouping variables are in the model.

    Raises
    ------
    DataError
        If the frame lacks a column, has missing values, or `by` is not a column.
    NewLevelsError
        If there are unseen levels and the policy is "error".

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy")).fit()
    >>> frame = blm.PoststratFrame({"Days": [0, 9, 9], "Subject": ["308", "308", "309"], "n": [1, 1, 2]})
    >>> blm.poststratify(fit, frame, by="Subject", seed=1).estimate.round(1).tolist()
    [339.3, 267.8]

    References
    ----------
    Gelman & Little (1997), *Survey Methodology* 23, 127-135. Park, Gelman & Bafumi (2004), *Political Analysis* 12,
    375-385.
    """
    if new_levels not in NEW_LEVELS:
        raise DataError(f"new_levels={new_levels!r} is not one of {listing(map(repr, NEW_LEVELS))}.")
    check_draws(draws)
    _check_arguments(fit, frame)
    sets = grouping_sets(by, margins)
    plan = _plan(fit, frame, sets, where, include, exclude, count_draws)
    seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
    request = Request(fit, plan.include, new_levels, draws, seed, _category(fit, category))
    sums = _stream(request, plan, chunk)
    estimates = sums.draws / sums.counts
    modes = is_draft(fit)
    return Estimates(
        groups=plan.groups.labels,
        draws=estimates,
        population=sums.counts.mean(axis=0),
        plug_in=sums.modes / plan.groups.sums(plan.weights) if modes else None,
        survey=_survey(fit, request.category, plan.groups.labels, sets),
        outcome=fit.design.response_name if category is None else f"{fit.design.response_name} = {category}",
        engine=fit.engine,
        chains=_chains(fit, len(estimates)),
        notes=tuple(_notes(fit, modes, outside(frame.data, fit.design, plan.include))),
    )


def _check_arguments(fit: Any, frame: Any) -> None:
    if not isinstance(fit, Fit):
        raise DataError(f"a {type(fit).__name__} has no estimates to poststratify: give model.fit() or model.sample().")
    if not isinstance(frame, PoststratFrame):
        raise DataError(
            f"a {type(frame).__name__} is not a population frame.\n"
            '  Make one of a table of cells: PoststratFrame(cells, counts="n").'
        )


def _notes(fit: Fit, modes: bool, strangers: tuple[str, ...]) -> Iterator[str]:
    yield from strangers
    if modes:
        yield DRAFT_NOTE.format(engine=fit.engine)
    if fit.design.survey_weights is not None:
        yield PSEUDO_LIKELIHOOD


def is_draft(fit: Fit) -> bool:
    """Return whether a result is an estimate, whose draws hold the variance parameters fixed.

    Parameters
    ----------
    fit : Fit
        Any result.

    Returns
    -------
    bool
        False for a posterior.
    """
    return fit.engine.split()[0] in DRAFTS


def _category(fit: Fit, category: str | None) -> int | None:
    """Return the position of the wanted category of an ordered response, None for other responses."""
    levels = fit.design.response_levels if len(fit.design.response_levels) > 2 else ()
    if not levels and category is None:
        return None
    if category not in levels:
        what = f"category={category!r} is not one of its categories" if levels else "the response has no categories"
        raise DataError(f"{what}.\n  Categories of {fit.design.response_name!r}: {listing(levels) or 'none'}.")
    return levels.index(category)


def _survey(
    fit: Fit, category: int | None, labels: pd.DataFrame, sets: tuple[tuple[str, ...], ...]
) -> pd.DataFrame | None:
    """Return raw estimates of the survey; None where rows in a source are no cells of equal respondents."""
    design, cells = fit.design, fit.design.condensation
    if cells is None:
        y = _response(fit, category)
        return respondents(design.data, y, design.trials, labels, sets, design.survey_weights)
    if design.encoder.family not in ("bernoulli", "binomial"):
        return None
    rows = cells.design
    trials = cells.counts * (1.0 if rows.trials is None else rows.trials)
    return respondents(rows.data, np.asarray(rows.y), trials, labels, sets)


def _response(fit: Fit, category: int | None) -> NDArray[np.float64]:
    assert fit.design.y is not None
    return fit.design.y if category is None else (fit.design.y == category).astype(np.float64)


def _chains(fit: Fit, draws: int) -> int:
    """Return the number of chains, where all draws of a posterior were used."""
    if is_draft(fit):
        return 1
    sizes = fit.to_datatree()["posterior"].sizes
    return int(sizes["chain"]) if sizes["chain"] * sizes["draw"] == draws else 1


@dataclass(frozen=True)
class Plan:
    """What is to be averaged over what.

    Parameters
    ----------
    cells : DataFrame
        Covariates, n rows, equal cells merged.
    weights : ndarray (n,)
        Counts.
    count_draws : ndarray (D, n) or None
        Draws of the counts.
    groups : Groups
        Groups of cells.
    include : tuple of str or None
        Grouping factors that count.
    ledger : DataFrame
        One row for every unseen level, so that each chunk sees the same unseen levels in the same order.
    """

    cells: pd.DataFrame
    weights: NDArray[np.float64]
    count_draws: NDArray[np.float64] | None
    groups: Groups
    include: tuple[str, ...] | None
    ledger: pd.DataFrame


def _plan(
    fit: Fit,
    frame: PoststratFrame,
    sets: tuple[tuple[str, ...], ...],
    where: Mapping[str, Any] | ArrayLike | None,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    count_draws: ArrayLike | None,
) -> Plan:
    uncertain = _checked_count_draws(count_draws, len(frame))
    kept = np.ones(len(frame), dtype=bool) if where is None else frame.kept(where)
    population = frame.filter(kept)
    factors = _included(fit, include, exclude)
    data = _with_idle_columns(population, fit, factors)
    by_columns = [name for names in sets for name in names]
    needed = [name for name in dict.fromkeys((*covariates(fit.design), *by_columns)) if name in data.columns]
    if uncertain is None:
        data = _merged(data, needed, frame.counts)
    data = data.loc[data[frame.counts].to_numpy() > 0] if uncertain is None else data
    data = data.reset_index(drop=True)
    _refuse_missing(data, covariates(fit.design))
    return Plan(
        cells=data[needed],
        weights=data[frame.counts].to_numpy(dtype=np.float64),
        count_draws=None if uncertain is None else uncertain[:, kept],
        groups=make_groups(data, sets),
        include=factors,
        ledger=_ledger(data[needed], fit, factors),
    )


def _checked_count_draws(count_draws: ArrayLike | None, n: int) -> NDArray[np.float64] | None:
    if count_draws is None:
        return None
    values = np.asarray(count_draws, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != n:
        raise DataError(f"count_draws has shape {values.shape}; it needs one column per cell, {n:,} of them.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("count_draws holds missing, infinite or negative counts.")
    return values


def _included(fit: Fit, include: Sequence[str] | None, exclude: Sequence[str]) -> tuple[str, ...] | None:
    names = [factor.name for factor in fit.design.factors]
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    for name in (*exclude, *(include or ())):
        if name not in names:
            raise DataError(f"there is no grouping factor {name!r}.\n  Grouping factors: {listing(names)}.")
    if include is None and not exclude:
        return None
    return tuple(name for name in (names if include is None else include) if name not in exclude)


def _with_idle_columns(frame: PoststratFrame, fit: Fit, factors: tuple[str, ...] | None) -> pd.DataFrame:
    """Fill in columns that only factors which do not count would use."""
    data, design = frame.data, fit.design
    used = set(design.encoder.names) | set(grouping_columns(design, factors))
    absent = [name for name in covariates(design) if name not in data.columns]
    lacking = [name for name in absent if name in used]
    if lacking:
        idle = [name for name in lacking if name in grouping_columns(design) and name not in design.encoder.names]
        way_out = (
            f"\n  If it belongs to the survey alone, as the poll or the interviewer does: exclude=({idle[0]!r},)."
            if idle
            else ""
        )
        raise DataError(
            f"the frame has no column{'s' * (len(lacking) > 1)} {listing(map(repr, lacking))}, which the model uses.\n"
            f"  Columns: {listing(frame.covariates)}. frame.check(model) lists everything that differs.{way_out}"
        )
    return data.assign(**{name: design.condensed.data[name].iloc[0] for name in absent})


def _merged(data: pd.DataFrame, needed: list[str], counts: str) -> pd.DataFrame:
    """Merge cells that neither the model nor the grouping tells apart."""
    if len(needed) == len(data.columns) - 1:
        return data
    if not needed:
        return pd.DataFrame({counts: [data[counts].sum()]})
    return data.groupby(needed, observed=True, sort=False, dropna=False)[counts].sum().reset_index()


def _refuse_missing(data: pd.DataFrame, names: Sequence[str]) -> None:
    missing = {name: int(data[name].isna().sum()) for name in names if data[name].isna().any()}
    if missing:
        shown = listing(f"{name} ({count:,} cell{'s' * (count != 1)})" for name, count in missing.items())
        raise DataError(
            f"the frame has missing covariates: {shown}.\n  Fill them in, or leave such cells out with frame.filter."
        )


def _ledger(cells: pd.DataFrame, fit: Fit, factors: tuple[str, ...] | None) -> pd.DataFrame:
    """Return one row per unseen level of every factor that counts; a structured term knows all of its levels."""
    rows: list[NDArray[np.intp]] = []
    for term in fit.design.formula.random:
        if term.structure is not None or (factors is not None and term.factor not in factors):
            continue
        rows.append(_first_rows_of_unseen(cells, term.group, fit))
    if not rows:
        return cells.iloc[:0]
    return cells.iloc[np.unique(np.concatenate(rows))].reset_index(drop=True)


def _first_rows_of_unseen(cells: pd.DataFrame, group: tuple[str, ...], fit: Fit) -> NDArray[np.intp]:
    frames = [
        pd.DataFrame({name: _level_names(data[name]) for name in group}) for data in (cells, fit.design.condensed.data)
    ]
    distinct = frames[0].drop_duplicates()
    seen = pd.MultiIndex.from_frame(frames[1].drop_duplicates())
    return distinct.index[~pd.MultiIndex.from_frame(distinct).isin(seen)].to_numpy(np.intp)


def _level_names(column: pd.Series) -> NDArray[Any]:
    found = factorise(column)
    return np.array([*found.labels, None], dtype=object)[found.codes]


@dataclass(frozen=True)
class Request:
    """Whose expected response, with which effects and draws."""

    fit: Fit
    include: tuple[str, ...] | None
    new_levels: NewLevels
    draws: int | None
    seed: int
    category: int | None = None

    def share(self, expected: Any) -> NDArray[np.float64]:
        """Return the expected response, of one category where there are several."""
        values = np.asarray(expected)
        return values if self.category is None else values[..., self.category]


@dataclass(frozen=True)
class Sums:
    """Sums over the cells of every group.

    Parameters
    ----------
    draws : ndarray (S, G)
        Count times expected response.
    modes : ndarray (G,)
        The same at the modes; zeros for a posterior.
    counts : ndarray (S, G) or (1, G)
        Counts.
    """

    draws: NDArray[np.float64]
    modes: NDArray[np.float64]
    counts: NDArray[np.float64]


def _stream(request: Request, plan: Plan, chunk: int | None) -> Sums:
    if len(plan.ledger) and request.new_levels == "error":
        _refuse_new_levels(request, plan.ledger)
    source = predictor(
        request.fit,
        plan.cells,
        new_levels=request.new_levels,
        include=request.include,
        draws=request.draws,
        seed=request.seed,
    )
    draws, counts = _from_chunks(request, plan, chunk) if source is None else _from_parts(source, plan)
    return Sums(draws.T, _sums_at_modes(request, plan), counts.T)


def _from_parts(source: Predictor, plan: Plan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if plan.count_draws is None:
        return sum_over_cells(source, plan.groups, plan.weights), plan.groups.sums(plan.weights)[:, None]
    ones = np.ones(len(plan.cells))
    order = np.arange(source.n_draws) % len(plan.count_draws)
    counts = plan.groups.indicator(ones) @ plan.count_draws.T
    return sum_over_cells(source, plan.groups, ones, plan.count_draws), counts[:, order]


def _from_chunks(request: Request, plan: Plan, chunk: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums where the expected response is no function of the linear predictor alone: ask the fit itself."""
    weights = plan.groups.indicator(plan.weights)
    presence = plan.groups.indicator(np.ones(len(plan.cells)))
    sums: Any = 0.0
    counts: Any = plan.groups.sums(plan.weights)[:, None] if plan.count_draws is None else 0.0
    for rows, values in _chunks(request, plan, chunk):
        if plan.count_draws is None:
            sums = sums + weights[:, rows] @ values
        else:
            uncertain = plan.count_draws[np.arange(values.shape[1]) % len(plan.count_draws), rows].T
            sums = sums + presence[:, rows] @ (uncertain * values)
            counts = counts + presence[:, rows] @ uncertain
    return sums, counts


def _sums_at_modes(request: Request, plan: Plan) -> NDArray[np.float64]:
    """Return count times expected response at the modes, summed over groups; zeros for a posterior."""
    sums = np.zeros(len(plan.groups.labels))
    if not is_draft(request.fit):
        return sums
    weights = plan.groups.indicator(plan.weights)
    for start in range(0, len(plan.cells), CELLS_PER_DESIGN):
        rows = slice(start, min(start + CELLS_PER_DESIGN, len(plan.cells)))
        cells = plan.cells.iloc[rows].reset_index(drop=True)
        sums += weights[:, rows] @ request.share(
            request.fit.predict(cells, new_levels=request.new_levels, include=request.include)
        )
    return sums


def _refuse_new_levels(request: Request, ledger: pd.DataFrame) -> None:
    """Let the fit itself say which levels are new."""
    request.fit.predict(ledger, new_levels="error", include=request.include)
    raise NewLevelsError("the frame holds levels that were not in the fitted data.")


def _chunks(request: Request, plan: Plan, chunk: int | None) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield slices of cells with their expected responses (cells, S).

    The ledger goes before every chunk, so that unseen levels have the same places, and with the same seed the same
    effects, in all of them.
    """
    lead = len(plan.ledger)
    start, n = 0, len(plan.cells)
    size = chunk or 64
    while start < n:
        stop = min(start + size, n)
        part = plan.cells.iloc[start:stop]
        values = request.share(
            request.fit.epred_draws(
                pd.concat([plan.ledger, part], ignore_index=True) if lead else part.reset_index(drop=True),
                new_levels=request.new_levels,
                include=request.include,
                draws=request.draws,
                seed=request.seed,
            )
        )[:, lead:]
        yield slice(start, stop), values.T
        size = chunk or max(1, CHUNK_VALUES // len(values))
        start = stop
