"""Sums over many cells and draws at once: the linear predictor as a sum of rows looked up in small tables.

Cells share their parts: a million cells may hold a hundred distinct rows of X and a few thousand levels of each
grouping factor. For a block of draws every distinct row of every part is computed once; a cell's linear predictor is
then a sum of as many looked-up rows as there are parts. Only a block of draws times a chunk of cells stands in memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.contract import Fit, NewLevels
from bayeslmm.errors import DataError
from bayeslmm.families import LINKS, Link
from bayeslmm.likelihood._compiled import compiled
from bayeslmm.likelihood.cells import group_rows
from bayeslmm.mrp.grouping import Groups
from bayeslmm.predict import included_factors, matrix_root

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design

DRAWS_PER_BLOCK = 512
CELLS_PER_CHUNK = 512
CELLS_PER_DESIGN = 50_000
TABLE_VALUES = 8_000_000
PROBE_ROWS = 8


@dataclass(frozen=True)
class Part:
    """One part of the linear predictor: fixed columns, or one grouping factor's.

    Parameters
    ----------
    columns : ndarray (U, K)
        Distinct rows of X, or of Z.
    levels : ndarray (U,) of intp
        Level of each; zero for fixed columns.
    codes : ndarray (n,) of int32
        Which distinct row a cell has.
    effects : ndarray (S, J, K)
        Draws of the coefficients by level.
    """

    columns: NDArray[np.float64]
    levels: NDArray[np.intp]
    codes: NDArray[np.int32]
    effects: NDArray[Any]

    def block(self, draws: slice) -> NDArray[np.float64]:
        """Return the coefficients of a block of draws as (J, K, B), draws last so that they are contiguous."""
        return np.ascontiguousarray(np.moveaxis(self.effects[draws], 0, -1), dtype=np.float64)


@dataclass(frozen=True)
class Predictor:
    """The linear predictor of all cells, not computed yet.

    Parameters
    ----------
    parts : tuple of Part
        They add up.
    offset : ndarray (n,) or None
        Known part.
    link : Link
        From the linear predictor to the mean.
    n_draws : int
        S.
    """

    parts: tuple[Part, ...]
    offset: NDArray[np.float64] | None
    link: Link
    n_draws: int


def link_of(fit: Fit) -> Link | None:
    """Return the link by which a fit turns its linear predictor into its expected response.

    The fit itself is asked, on a few of its own rows, so that families whose mean is no function of the linear
    predictor alone are told apart for certain.

    Parameters
    ----------
    fit : Fit
        Any result.

    Returns
    -------
    Link or None
        None where no link explains the expected response.
    """
    data = fit.design.spanning().data
    rows = data.iloc[np.linspace(0, len(data) - 1, PROBE_ROWS).astype(int)]
    eta = fit.linpred_draws(rows, draws=PROBE_ROWS, seed=0)
    mean = fit.epred_draws(rows, draws=PROBE_ROWS, seed=0)
    for link in LINKS.values():
        with np.errstate(all="ignore"):
            guess = link.inverse(eta)
        if guess.shape == mean.shape and np.allclose(guess, mean, rtol=1e-7, atol=1e-12):
            return link
    return None


def predictor(
    fit: Fit,
    cells: pd.DataFrame,
    *,
    new_levels: NewLevels,
    include: Sequence[str] | None,
    draws: int | None,
    seed: int,
) -> Predictor | None:
    """Return the linear predictor of all cells as a sum of parts.

    Parameters
    ----------
    fit : Fit
        Whose draws.
    cells : DataFrame
        Covariates, n rows.
    new_levels : {"error", "zero", "sample"}
        Policy for unseen levels; "error" must have been checked before.
    include : sequence of str or None
        Grouping factors that count.
    draws : int or None
        How many of the fit's draws, spread evenly; all when None.
    seed : int
        For the effects of unseen levels.

    Returns
    -------
    Predictor or None
        None where the expected response is no function of the linear predictor, or more draws are wanted than the fit
        holds.
    """
    link = link_of(fit)
    posterior = fit.to_datatree()["posterior"]
    total = int(posterior.sizes["chain"] * posterior.sizes["draw"])
    if link is None or (draws is not None and draws > total):
        return None
    chosen = np.arange(total) if draws is None else np.linspace(0, total - 1, draws).round().astype(np.intp)

    def of(name: str) -> NDArray[Any]:
        values = np.asarray(posterior[name].values)
        return values.reshape(total, *values.shape[2:])[chosen]

    rows = [_distinct_rows(fit.design.at(part), include) for part in _slices(cells)]
    fixed = _merge([row.fixed for row in rows])
    parts = [Part(fixed.columns, np.zeros(len(fixed.columns), np.intp), fixed.codes, of("beta")[:, None, :])]
    rng = np.random.default_rng(seed)
    for index, factor in enumerate(included_factors(fit.design, include)):
        merged = _merge([row.factors[index] for row in rows])
        effects = of(f"b_{factor.name}")
        unseen = list(dict.fromkeys(label for row in rows for label in row.unseen[index]))
        levels = _global_levels(merged, [row.unseen[index] for row in rows], unseen, len(factor.levels))
        if unseen:
            fresh = np.zeros((len(chosen), len(unseen), effects.shape[2]))
            if new_levels == "sample":
                corr = of(f"corr_{factor.name}") if f"corr_{factor.name}" in posterior else None
                fresh = _draw_unseen(rng, of(f"sd_{factor.name}"), corr, len(unseen))
            effects = np.concatenate([effects, fresh], axis=1)
        parts.append(Part(merged.columns, levels, merged.codes, effects))
    offsets = [row.offset for row in rows if row.offset is not None]
    offset = np.concatenate(offsets) if len(offsets) == len(rows) else None
    return Predictor(tuple(parts), offset, link, len(chosen))


def _slices(cells: pd.DataFrame) -> list[pd.DataFrame]:
    return [cells.iloc[start : start + CELLS_PER_DESIGN] for start in range(0, len(cells), CELLS_PER_DESIGN)]


def _draw_unseen(
    rng: np.random.Generator, sd: NDArray[np.float64], corr: NDArray[np.float64] | None, count: int
) -> NDArray[np.float64]:
    """Draw effects (S, count, K) of levels that the survey never saw."""
    noise = rng.standard_normal((len(sd), count, sd.shape[1]))
    if corr is None:
        return sd[:, None, :] * noise
    return np.einsum("skl,sjl->sjk", matrix_root(sd[:, :, None] * sd[:, None, :] * corr), noise)


@dataclass(frozen=True)
class Distinct:
    """Distinct rows of one part in one slice of cells, or in all."""

    columns: NDArray[np.float64]
    levels: NDArray[np.int64]
    slice_of: NDArray[np.intp]
    codes: NDArray[np.int32]


@dataclass(frozen=True)
class SliceRows:
    """Distinct rows of every part of a slice of cells, and its unseen levels."""

    fixed: Distinct
    factors: tuple[Distinct, ...]
    unseen: tuple[tuple[str, ...], ...]
    offset: NDArray[np.float64] | None


def _distinct_rows(design: Design, include: Sequence[str] | None) -> SliceRows:
    factors = included_factors(design, include)
    return SliceRows(
        _distinct(design.X, np.zeros(design.n, np.int64)),
        tuple(_distinct(factor.Z, factor.codes.astype(np.int64)) for factor in factors),
        tuple(factor.new_levels for factor in factors),
        design.offset,
    )


def _distinct(columns: NDArray[np.float64], levels: NDArray[np.int64]) -> Distinct:
    code, first = group_rows(np.ascontiguousarray(columns + 0.0), levels[:, None])
    return Distinct(columns[first], levels[first], np.zeros(len(first), np.intp), code.astype(np.int32))


def _merge(slices: Sequence[Distinct]) -> Distinct:
    """Return the distinct rows of all slices, with where each came from: slices number unseen levels anew."""
    start = np.cumsum([0, *(len(part.levels) for part in slices)])
    return Distinct(
        np.concatenate([part.columns for part in slices]),
        np.concatenate([part.levels for part in slices]),
        np.repeat(np.arange(len(slices)), np.diff(start)),
        np.concatenate([part.codes + np.int32(start[i]) for i, part in enumerate(slices)]),
    )


def _global_levels(
    merged: Distinct, unseen_of: Sequence[Sequence[str]], unseen: Sequence[str], fitted: int
) -> NDArray[np.intp]:
    """Return the level of each distinct row, unseen ones numbered over all slices."""
    levels = merged.levels.astype(np.intp)
    place = {label: fitted + position for position, label in enumerate(unseen)}
    for index, labels in enumerate(unseen_of):
        for local, label in enumerate(labels):
            here = (merged.slice_of == index) & (merged.levels == fitted + local)
            levels[here] = place[label]
    return levels


def sum_over_cells(
    source: Predictor,
    groups: Groups,
    weights: NDArray[np.float64],
    count_draws: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return weighted sums of the expected response over groups of cells, draw by draw.

    Parameters
    ----------
    source : Predictor
        The linear predictor of n cells.
    groups : Groups
        Which cells make which of G sums.
    weights : ndarray (n,)
        Weight of each cell.
    count_draws : ndarray (D, n), optional
        Further weights that vary by draw; draw s uses row s mod D.

    Returns
    -------
    ndarray (G, S)
        Sums.
    """
    n = len(weights)
    sums = np.zeros((len(groups.labels), source.n_draws))
    group_of = np.stack(groups.codes, axis=1)

    def work(first: int) -> None:
        draws = slice(first, min(first + DRAWS_PER_BLOCK, source.n_draws))
        block = _Block(source, draws)
        total = np.zeros((len(groups.labels), draws.stop - draws.start))
        for start in range(0, n, CELLS_PER_CHUNK):
            cells = slice(start, min(start + CELLS_PER_CHUNK, n))
            values = block.expected(cells)
            if count_draws is not None:
                values *= count_draws[np.arange(draws.start, draws.stop) % len(count_draws), cells].T
            _add_to_groups(values, group_of[cells], weights[cells], total)
        sums[:, draws] = total

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, range(0, source.n_draws, DRAWS_PER_BLOCK)))
    return sums


class _Block:
    """The parts of a block of draws; those with few distinct rows stand in one table, one below the other."""

    def __init__(self, source: Predictor, draws: slice) -> None:
        self.source = source
        width = draws.stop - draws.start
        small = [len(part.levels) * width <= TABLE_VALUES for part in source.parts]
        tables, codes, start = [], [], 0
        self.large = []
        for part, tabulated in zip(source.parts, small, strict=True):
            effects = part.block(draws)
            if not tabulated:
                self.large.append((part, effects))
                continue
            tables.append(_contribution(part.columns, part.levels, effects))
            codes.append(part.codes + np.int32(start))
            start += len(part.levels)
        self.table = np.concatenate(tables) if tables else np.zeros((1, width))
        self.codes = np.stack(codes, axis=1) if codes else np.zeros((len(source.parts[0].codes), 1), np.int32)
        self.memory = np.empty((CELLS_PER_CHUNK, width))

    def expected(self, cells: slice) -> NDArray[np.float64]:
        """Return the expected response (cells, B), in memory that the next call uses again."""
        eta = self.memory[: cells.stop - cells.start]
        _sum_of_rows(self.table, self.codes[cells], eta)
        for part, effects in self.large:
            codes = part.codes[cells]
            eta += _contribution(part.columns[codes], part.levels[codes], effects)
        if self.source.offset is not None:
            eta += self.source.offset[cells, None]
        return _mean_in_place(self.source.link, eta)


@compiled
def _sum_of_rows(table, codes, out):  # type: ignore[no-untyped-def]
    """Set every row of `out` to the sum of the rows of `table` that its codes name."""
    width = out.shape[1]
    for i in range(codes.shape[0]):
        row = out[i]
        row[:] = table[codes[i, 0]]
        for p in range(1, codes.shape[1]):
            addend = table[codes[i, p]]
            for s in range(width):
                row[s] += addend[s]


@compiled
def _add_to_groups(values, group_of, weights, total):  # type: ignore[no-untyped-def]
    """Add every row of `values`, times its weight, to the rows of `total` that it belongs to."""
    width = values.shape[1]
    for i in range(values.shape[0]):
        row, weight = values[i], weights[i]
        for g in range(group_of.shape[1]):
            target = total[group_of[i, g]]
            for s in range(width):
                target[s] += weight * row[s]


def _contribution(
    columns: NDArray[np.float64], levels: NDArray[np.intp], effects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the contribution (U, B) of rows to the linear predictor: columns times the effects of their levels."""
    if len(effects) == 1:
        return columns @ effects[0]
    total = columns[:, [0]] * effects[levels, 0]
    for k in range(1, columns.shape[1]):
        total += columns[:, [k]] * effects[levels, k]
    return total


def _mean_in_place(link: Link, eta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean, for the two commonest links in the same memory; numpy's exp takes half the time of its tanh."""
    if link.name == "identity":
        return eta
    if link.name == "logit":
        np.negative(eta, out=eta)
        with np.errstate(over="ignore"):  # beyond 709 the mean is zero
            np.exp(eta, out=eta)
        eta += 1.0
        return np.reciprocal(eta, out=eta)
    return np.asarray(link.inverse(eta))


def check_draws(draws: int | None) -> None:
    """Refuse a number of draws that is none.

    Parameters
    ----------
    draws : int or None
        Wanted.

    Raises
    ------
    DataError
        If it is less than 1.
    """
    if draws is not None and draws < 1:
        raise DataError(f"draws={draws!r} must be at least 1.")
