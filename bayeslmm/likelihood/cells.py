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
from scipy.linalg import solve_triangular

from bayeslmm.likelihood._compiled import c_function
from bayeslmm.likelihood.row_entry import rows as row_entry
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
    root_at : (R, n) int32
        As `at`, of the factors whose levels are not sets of another's levels; none unless every factor is one column
        of ones.
    root_pair : (P, n) int32
        Start of the block of Z'WZ where two of them meet.
    fold_from, fold_to : int32
        Effects: sums over rows of the first are part of the sum of the second, in this order.
    derive_from, derive_to : int32
        The same for the numbers of Z'WZ.
    carrier : (q, p)
        C, when X = Z C: then X has no columns here. No rows otherwise.
    carries : (F,) bool
        Factors with rows of C that are not zero.
    evaluator : (1,) int64
        Address of the compiled evaluation of rows.
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
    root_at: NDArray[np.int32]
    root_pair: NDArray[np.int32]
    fold_from: NDArray[np.int32]
    fold_to: NDArray[np.int32]
    derive_from: NDArray[np.int32]
    derive_to: NDArray[np.int32]
    carrier: Floats
    carries: NDArray[np.bool_]
    evaluator: NDArray[np.int64]


@c_function(f"int64({', '.join(['int64'] * 4 + ['CPointer(int64)'] * 6)})")
def _group_rows(n, width, n_codes, slots, bits, codes, table, hashes, cell, first):  # type: ignore[no-untyped-def]
    """Do `group_rows`; return the number of cells."""
    count = 0
    for i in range(slots):
        table[i] = -1
    for i in range(n):
        h = np.uint64(1469598103934665603)
        for j in range(width):
            h = (h ^ np.uint64(bits[i * width + j])) * np.uint64(1099511628211)
            h ^= h >> np.uint64(29)
        for j in range(n_codes):
            h = (h ^ np.uint64(codes[i * n_codes + j])) * np.uint64(1099511628211)
            h ^= h >> np.uint64(29)
        hashes[i] = np.int64(h)
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
            same = hashes[other] == hashes[i]
            if same:
                for j in range(width):
                    if bits[i * width + j] != bits[other * width + j]:
                        same = False
                        break
            if same:
                for j in range(n_codes):
                    if codes[i * n_codes + j] != codes[other * n_codes + j]:
                        same = False
                        break
            if same:
                cell[i] = known
                break
            slot = (slot + 1) & (slots - 1)
    return count


def group_rows(columns: Floats, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cell of each row and the first row of each cell: equal bits are equal rows.

    A hash table with open addressing; every candidate is compared in full.
    """
    n, width = columns.shape
    slots = 16
    while slots < 2 * n:
        slots *= 2
    table, hashes, cell, first = (np.empty(size, dtype=np.int64) for size in (slots, n, n, n))
    bits = np.ascontiguousarray(columns).view(np.int64)
    count = _group_rows(
        n, width, codes.shape[1], slots, bits, np.ascontiguousarray(codes), table, hashes, cell, first
    )  # fmt: skip
    return cell, first[:count].copy()


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


def place(cells: Collapsed, analysis: Analysis, R0: Floats) -> Cells:
    """Tell each cell where its effects and its blocks of Z'WZ are.

    Parameters
    ----------
    cells : Collapsed
        The cells.
    analysis : Analysis
        The symbolic factorisation of their Z'Z.
    R0 : ndarray (p, p)
        Upper triangular; whitened columns are X R0^-1.

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
    for p, (f, g) in enumerate(_pairs(F)):
        high, low = np.maximum(positions[:, f], positions[:, g]), np.minimum(positions[:, f], positions[:, g])
        start = s.block_start[np.searchsorted(keys, low * n_nodes + high)] + 1
        scalar = cells.Z[f].shape[1] == 1 and cells.Z[g].shape[1] == 1
        pair[:, p] = np.where(scalar | (positions[:, f] >= positions[:, g]), start, -start)
    tables = _tables(cells, at, pair)
    carrier = _carrier(cells, at, analysis.n_columns) if len(tables.root_at) else None
    widths = [Z.shape[1] for Z in cells.Z]
    return Cells(
        y=cells.y,
        size=cells.size,
        extra=cells.extra,
        weight=cells.weight,
        offset=cells.offset,
        X=whitened(cells.X, R0) if carrier is None else np.zeros((n, 0)),
        Z=np.ascontiguousarray(np.hstack(cells.Z)) if F else np.zeros((n, 0)),
        at=at,
        pair=pair,
        z_start=np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
        **tables._asdict(),
        carrier=np.zeros((0, len(R0))) if carrier is None else whitened(carrier, R0),
        carries=np.array(
            [carrier is not None and bool(carrier[rows].any()) for rows in analysis.first_row], dtype=bool
        ),
        evaluator=np.array([row_entry.address], dtype=np.int64),
    )


def whitened(X: Floats, R0: Floats) -> Floats:
    """Return X R0^-1, in C order.

    Parameters
    ----------
    X : ndarray (n, p)
        Columns as given.
    R0 : ndarray (p, p)
        Upper triangular.

    Returns
    -------
    ndarray (n, p)
    """
    if not X.shape[1]:
        return X
    return np.ascontiguousarray(solve_triangular(R0, X.T, trans="T", lower=False).T)


class Tables(NamedTuple):
    """How sums over rows follow from few tables; the fields of `Cells` with these names."""

    root_at: NDArray[np.int32]
    root_pair: NDArray[np.int32]
    fold_from: NDArray[np.int32]
    fold_to: NDArray[np.int32]
    derive_from: NDArray[np.int32]
    derive_to: NDArray[np.int32]


def _pairs(F: int) -> list[tuple[int, int]]:
    return [(f, g) for f in range(F) for g in range(f, F)]


def _tables(cells: Collapsed, at: NDArray[np.int32], pair: NDArray[np.int64]) -> Tables:
    """Find the factors whose levels are sets of another's, and which sums follow from which."""
    n, F = at.shape
    none = np.zeros(0, dtype=np.int32)
    if not F or any(Z.shape[1] != 1 or np.any(Z != 1.0) for Z in cells.Z):
        return Tables(np.zeros((0, n), dtype=np.int32), np.zeros((0, n), dtype=np.int32), none, none, none, none)
    order, parent = _finer(cells.codes)
    roots = [f for f in order if parent[f] < 0]
    entry = {}
    for p, (f, g) in enumerate(_pairs(F)):
        entry[f, g] = entry[g, f] = pair[:, p] - 1
    fold = [_distinct(at[:, parent[f]], at[:, f]) for f in order if parent[f] >= 0]
    met = [(f, g) for i, f in enumerate(roots) for g in roots[:i]] or [(roots[0], roots[0])]
    derived = []
    if len(roots) > 1:
        for f in roots:
            partner = min((g for g in roots if g != f), key=lambda g: cells.codes[g].max())
            derived.append(_distinct(entry[f, partner], entry[f, f]))
    for i, f in enumerate(order):
        for g in order[: i + 1]:
            if parent[f] >= 0:
                derived.append(_distinct(entry[parent[f], f if g == f else g], entry[f, g]))
            elif parent[g] >= 0:
                derived.append(_distinct(entry[parent[g], f], entry[f, g]))
    return Tables(
        np.ascontiguousarray(at[:, roots].T),
        np.array([entry[couple] for couple in met], dtype=np.int32),
        *_joined(fold),
        *_joined(derived),
    )


def _finer(codes: Sequence[NDArray[np.int32]]) -> tuple[list[int], list[int]]:
    """Return the factors, finer ones first, and for each the nearest whose levels its own are sets of; -1 for none."""
    count = [int(c.max()) + 1 for c in codes]
    order = sorted(range(len(codes)), key=lambda f: (-count[f], f))
    parent = [-1] * len(codes)
    for i, f in enumerate(order):
        for g in reversed(order[:i]):
            level = np.zeros(count[g], dtype=np.int64)
            level[codes[g]] = codes[f]
            if np.array_equal(level[codes[g]], codes[f]):
                parent[f] = g
                break
    return order, parent


def _distinct(fine: NDArray, coarse: NDArray) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    values, first = np.unique(fine, return_index=True)
    return values.astype(np.int32), coarse[first].astype(np.int32)


def _joined(parts: list[tuple[NDArray[np.int32], NDArray[np.int32]]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    none = np.zeros(0, dtype=np.int32)
    return np.concatenate([none, *(a for a, _ in parts)]), np.concatenate([none, *(b for _, b in parts)])


def _carrier(cells: Collapsed, at: NDArray[np.int32], q: int) -> Floats | None:
    """Return C (q, p) with X = Z C, each column on the smallest factor that determines it; None if one has none."""
    out = np.zeros((q, cells.X.shape[1]))
    by_size = sorted(range(len(cells.codes)), key=lambda f: int(cells.codes[f].max()))
    for c, x in enumerate(cells.X.T):
        for f in by_size:
            values = np.zeros(q)
            values[at[:, f]] = x
            if np.array_equal(values[at[:, f]], x):
                out[:, c] = values
                break
        else:
            return None
    return out


COMPILED = (_group_rows,)
"""What collapsing needs."""
