"""Rows of a generalised model as compiled code wants them: equal rows collapsed into cells, and where each meets Z'WZ.

Rows that agree in every column of X and Z, in every group and in the offset have the same linear predictor, whatever
the parameters are. For exponential families their likelihood depends on the sum of weights and the weighted mean of y
(and of one further statistic for families with a scale), so one cell with those sums replaces them, exactly. Other
families collapse rows that also agree in y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import compiled
from bayeslmm.likelihood.symbolic import Analysis

Floats = NDArray[np.float64]

SUFFICIENT_MEAN = ("bernoulli", "binomial", "poisson", "gamma", "inverse_gaussian", "gaussian")
"""Families whose cells need only the weighted mean of y and of `extra`."""


class Cells(NamedTuple):
    """Distinct rows, in the order of the largest factor's levels.

    Parameters
    ----------
    y, size, extra, weight, offset : (n,)
        Response (mean over the cell), trials, further statistic, weight, known part of the linear predictor.
    X : (n, p)
        Whitened columns of the coefficients.
    Z : (n, M)
        Columns of all factors side by side.
    at : (n, F) int32
        Scalar row, in engine order, of the first effect of the level of each factor.
    pair : (n, F (F + 1) / 2) int64
        For factors f <= g: one plus the start of their block of Z'WZ, negative when g supplies its rows (never for
        two scalar factors, whose block is one number).
    z_start : (F + 1,) int64
        First column of each factor in Z.
    """

    y: Floats
    size: Floats
    extra: Floats
    weight: Floats
    offset: Floats
    X: Floats
    Z: Floats
    at: NDArray[np.int32]
    pair: NDArray[np.int64]
    z_start: NDArray[np.int64]


@compiled
def group_rows(columns, codes):  # type: ignore[no-untyped-def]
    """Return the cell of each row and the first row of each cell: equal bits are equal rows.

    A hash table with open addressing; every candidate is compared in full.
    """
    n, width = columns.shape
    slots = 16
    while slots < 2 * n:
        slots *= 2
    table = np.full(slots, -1, dtype=np.int64)
    hashes = np.empty(n, dtype=np.uint64)
    cell = np.empty(n, dtype=np.int64)
    first = np.empty(n, dtype=np.int64)
    count = 0
    bits = columns.view(np.uint64)
    for i in range(n):
        h = np.uint64(1469598103934665603)
        for j in range(width):
            h = (h ^ bits[i, j]) * np.uint64(1099511628211)
            h ^= h >> np.uint64(29)
        for j in range(codes.shape[1]):
            h = (h ^ np.uint64(codes[i, j])) * np.uint64(1099511628211)
            h ^= h >> np.uint64(29)
        hashes[i] = h
        slot = np.int64(h & np.uint64(slots - 1))
        while True:
            known = table[slot]
            if known < 0:
                table[slot] = count
                first[count] = i
                cell[i] = count
                count += 1
                break
            other = first[known]
            same = hashes[other] == h
            if same:
                for j in range(width):
                    if bits[i, j] != bits[other, j]:
                        same = False
                        break
            if same:
                for j in range(codes.shape[1]):
                    if codes[i, j] != codes[other, j]:
                        same = False
                        break
            if same:
                cell[i] = known
                break
            slot = (slot + 1) & (slots - 1)
    return cell, first[:count]


class Collapsed(NamedTuple):
    """Cells before they meet the factorisation; `first` holds a representative row of each, `cell` the cell of rows."""

    y: Floats
    size: Floats
    extra: Floats
    weight: Floats
    offset: Floats
    X: Floats
    Z: tuple[Floats, ...]
    codes: tuple[NDArray[np.int32], ...]
    cell: NDArray[np.int64]


def collapse(
    family: str,
    y: Floats,
    X: Floats,
    terms: Sequence[tuple[Floats, NDArray[np.int32]]],
    *,
    trials: Floats | None = None,
    weights: Floats | None = None,
    offset: Floats | None = None,
) -> Collapsed:
    """Merge equal rows.

    Parameters
    ----------
    family : str
        Name of the family.
    y : ndarray (n,)
        Response; for binomial families the proportion.
    X : ndarray (n, p)
        Columns of the coefficients.
    terms : sequence of (Z (n, K), codes (n,))
        One per factor.
    trials, weights, offset : ndarray (n,), optional
        Number of trials, weights of the log-likelihood, known part of the linear predictor.

    Returns
    -------
    Collapsed
        Sorted by the level of the factor with most levels, so that neighbours share memory.

    Examples
    --------
    >>> y, X = np.array([0.0, 1.0, 1.0]), np.ones((3, 1))
    >>> cells = collapse("bernoulli", y, X, [(np.ones((3, 1)), np.array([0, 0, 1], dtype=np.int32))])
    >>> cells.y, cells.weight
    (array([0.5, 1. ]), array([2., 1.]))
    """
    n = len(y)
    one = np.ones(n)
    size = one if trials is None else trials
    weight = one if weights is None else weights
    if family == "binomial":
        weight = weight * size
    off = np.zeros(n) if offset is None else offset
    keys = [X, off[:, None], *(Z for Z, _ in terms)]
    if family not in SUFFICIENT_MEAN:
        keys += [y[:, None], size[:, None]]
    codes = np.stack([c for _, c in terms], axis=1) if terms else np.zeros((n, 0), dtype=np.int32)
    cell, first = group_rows(np.ascontiguousarray(np.hstack(keys) + 0.0), codes.astype(np.int64))
    largest = max(range(len(terms)), key=lambda f: terms[f][1].max(), default=None) if terms else None
    order = np.arange(len(first)) if largest is None else np.argsort(terms[largest][1][first], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    cell, first = rank[cell], first[order]
    total = np.bincount(cell, weights=weight)
    extra = {"gamma": np.log, "inverse_gaussian": np.reciprocal, "gaussian": np.square}.get(family, np.zeros_like)(y)
    return Collapsed(
        y=np.bincount(cell, weights=weight * y) / total if family in SUFFICIENT_MEAN else y[first],
        size=size[first],
        extra=np.bincount(cell, weights=weight * extra) / total,
        weight=total,
        offset=off[first],
        X=np.ascontiguousarray(X[first]),
        Z=tuple(np.ascontiguousarray(Z[first]) for Z, _ in terms),
        codes=tuple(np.ascontiguousarray(c[first]) for _, c in terms),
        cell=cell,
    )


def place(cells: Collapsed, analysis: Analysis, X: Floats) -> Cells:
    """Tell each cell where its effects and its blocks of Z'WZ are.

    Parameters
    ----------
    cells : Collapsed
        The cells.
    analysis : Analysis
        The symbolic factorisation of their Z'Z.
    X : ndarray (n, p)
        Whitened columns.

    Returns
    -------
    Cells
    """
    s = analysis.structure
    n, F = len(cells.y), len(cells.Z)
    at = np.zeros((n, F), dtype=np.int32)
    positions = np.zeros((n, F), dtype=np.int64)
    for f in range(F):
        rows = analysis.first_row[f]
        at[:, f] = rows[cells.codes[f]]
        positions[:, f] = (np.searchsorted(s.offset, rows, side="right") - 1)[cells.codes[f]]
    n_nodes = len(s.offset) - 1
    keys = s.block_column.astype(np.int64) * n_nodes + s.block_row
    pair = np.zeros((n, F * (F + 1) // 2), dtype=np.int64)
    p = 0
    for f in range(F):
        for g in range(f, F):
            high, low = np.maximum(positions[:, f], positions[:, g]), np.minimum(positions[:, f], positions[:, g])
            start = s.block_start[np.searchsorted(keys, low * n_nodes + high)] + 1
            scalar = cells.Z[f].shape[1] == 1 and cells.Z[g].shape[1] == 1
            pair[:, p] = np.where(scalar | (positions[:, f] >= positions[:, g]), start, -start)
            p += 1
    widths = [Z.shape[1] for Z in cells.Z]
    return Cells(
        y=cells.y,
        size=cells.size,
        extra=cells.extra,
        weight=cells.weight,
        offset=cells.offset,
        X=np.ascontiguousarray(X),
        Z=np.ascontiguousarray(np.hstack(cells.Z)) if F else np.zeros((n, 0)),
        at=at,
        pair=pair,
        z_start=np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
    )
