"""Data meet the model once: Z'Z, Z'[X y] and [X y]'[X y] from integer codes and columns.

Everything after this step has a cost that does not depend on the number of rows. An indicator matrix is never formed:
`Z'Z` is kept as one small matrix per level and one per pair of levels that occur together in a row.

Columns are stored in *whitened* coordinates: with `X'X = R0' R0` and ordinary least squares coefficients `beta0`, the
last axis of every right-hand side holds `X R0^-1` and then the residual `y - X beta0`. Nothing changes in the model,
but a large mean of y, or a year as a predictor, then costs no digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from bayeslmm.errors import DataError
from bayeslmm.likelihood._compiled import c_function

_CHUNK_NUMBERS = 1 << 20


@dataclass(frozen=True)
class PairBlocks:
    """The off-diagonal part of Z'Z for two factors.

    Parameters
    ----------
    first, second : int
        The factors, `first` supplying the rows of each block.
    rows, columns : (B,) int32
        Levels that occur together, sorted by `rows`.
    values : (B, K_first, K_second)
        Their cross-products.
    """

    first: int
    second: int
    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class CrossProducts:
    """All that a Gaussian mixed model needs to know about its data.

    Parameters
    ----------
    n_rows : int
        Number of observations.
    n_levels, n_effects : tuple of int
        Levels J and effects per level K of each factor.
    diagonal : tuple of (J, K, K)
        Z'Z within each factor.
    pairs : tuple of PairBlocks
        Z'Z between factors.
    rhs : tuple of (J, K, p + 1)
        Z'[X y] in whitened coordinates.
    gram : (p + 1, p + 1)
        [X y]'[X y] in whitened coordinates.
    R0 : (p, p)
        Upper triangular, `X R0^-1` is orthonormal up to rounding.
    beta0 : (p,)
        Ordinary (weighted) least squares coefficients.
    sum_log_weights : float
        Sum of the logarithms of the prior weights, 0 without weights.

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), *J. Stat. Softw.* 67(1), section 3.
    """

    n_rows: int
    n_levels: tuple[int, ...]
    n_effects: tuple[int, ...]
    diagonal: tuple[NDArray[np.float64], ...]
    pairs: tuple[PairBlocks, ...]
    rhs: tuple[NDArray[np.float64], ...]
    gram: NDArray[np.float64]
    R0: NDArray[np.float64]
    beta0: NDArray[np.float64]
    sum_log_weights: float
    source: Rows

    @cached_property
    def whitener(self) -> NDArray[np.float64]:
        """The inverse of R0 (p, p)."""
        return _inverse_upper(self.R0)

    @cached_property
    def logdet_R0(self) -> float:
        """Logarithm of the determinant of R0."""
        return float(np.log(np.diag(self.R0)).sum())

    @property
    def n_fixed(self) -> int:
        """Number p of columns of X."""
        return len(self.beta0)

    def with_response(self, y: ArrayLike) -> CrossProducts:
        """Return the cross-products of the same design with another response.

        Only Z'y, X'y and y'y are computed anew; weights and offset stay.

        Parameters
        ----------
        y : (n,) array_like
            The new response.

        Returns
        -------
        CrossProducts
            Sharing every other array with this one.
        """
        rows = replace(self.source, y=np.ascontiguousarray(y, dtype=np.float64))
        if rows.y.shape != (self.n_rows,):
            raise DataError(f"the new response has shape {rows.y.shape}, the design has {self.n_rows} rows")
        inverse = self.whitener
        rhs = tuple(block.copy() for block in self.rhs)
        gram = self.gram.copy()
        response = rows.response
        beta0 = _least_squares(rows, response, inverse)
        _residual_products(rows, response - rows.X @ beta0, inverse, gram, rhs)
        other = copy(self)
        for name, value in (("rhs", rhs), ("gram", gram), ("beta0", beta0), ("source", rows)):
            object.__setattr__(other, name, value)
        return other


@dataclass(frozen=True)
class Rows:
    """The rows as given: what cross-products are computed from.

    Parameters
    ----------
    y : (n,)
        Response.
    X : (n, p)
        Fixed effects columns.
    Z : tuple of (n, K)
        Columns of each factor, all its terms together.
    codes : tuple of (n,) int32
        Level of each row in each factor.
    n_levels : tuple of int
        Number of levels of each factor.
    weights : (n,) or empty
        Prior weights.
    offset : (n,) or empty
        Known part of the linear predictor.
    """

    y: NDArray[np.float64]
    X: NDArray[np.float64]
    Z: tuple[NDArray[np.float64], ...]
    codes: tuple[NDArray[np.int32], ...]
    n_levels: tuple[int, ...]
    weights: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def response(self) -> NDArray[np.float64]:
        """The response without the offset (n,)."""
        return self.y - self.offset if self.offset.size else self.y


def cross_products(
    y: Any,
    X: ArrayLike | None = None,
    terms: Sequence[tuple[ArrayLike, ArrayLike, int]] = (),
    weights: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> CrossProducts:
    """Compute the cross-products of a design in one pass over its rows.

    Parameters
    ----------
    y : (n,) array_like, or a design
        Response; or a `Design`, and then nothing else is given.
    X : (n, p) array_like, optional
        Fixed effects columns, of full rank; p may be 0.
    terms : sequence of (Z, codes, n_levels)
        For each grouping factor its columns (n, K), all terms on the factor side by side, the level of each row, and
        the number of levels.
    weights : (n,) array_like, optional
        Prior weights, positive.
    offset : (n,) array_like, optional
        Known part of the linear predictor.

    Returns
    -------
    CrossProducts

    Raises
    ------
    DataError
        If shapes do not agree, codes are outside their range, weights are not positive or X is not of full rank.

    Examples
    --------
    >>> import numpy as np
    >>> products = cross_products([1.0, 2.0, 4.0], np.ones((3, 1)), [(np.ones((3, 1)), [0, 0, 1], 2)])
    >>> products.diagonal[0].ravel()
    array([2., 1.])
    """
    if hasattr(y, "factors"):
        rows, n_rows = _rows_of_design(y.condensed), y.n
        powers = y.survey_weights
    else:
        rows = _rows_of_arrays(y, X, terms, weights, offset)
        n_rows, powers = len(rows.y), None
    _check(rows)
    products = _from_rows(rows, n_rows)
    if powers is None:
        return products
    # a density's power w with mean 1 is the density of variance sigma^2 / w without its root of w
    return replace(products, sum_log_weights=products.sum_log_weights - float(np.log(powers).sum()))


def _rows_of_design(design: Any) -> Rows:
    factors = design.factors
    terms = [(factor.Z, factor.codes, len(factor.levels)) for factor in factors]
    return _rows_of_arrays(design.y, design.X, terms, design.likelihood_weights, design.offset)


def _rows_of_arrays(
    y: ArrayLike,
    X: ArrayLike | None,
    terms: Sequence[tuple[ArrayLike, ArrayLike, int]],
    weights: ArrayLike | None,
    offset: ArrayLike | None,
) -> Rows:
    response = np.ascontiguousarray(y, dtype=np.float64)
    n = response.shape[0]
    fixed = np.empty((n, 0)) if X is None else np.ascontiguousarray(X, dtype=np.float64)
    columns = [np.ascontiguousarray(Z, dtype=np.float64) for Z, _, _ in terms]
    empty = np.empty(0)
    return Rows(
        y=response,
        X=fixed,
        Z=tuple(Z[:, None] if Z.ndim == 1 else Z for Z in columns),
        codes=tuple(np.ascontiguousarray(codes, dtype=np.int32) for _, codes, _ in terms),
        n_levels=tuple(int(levels) for _, _, levels in terms),
        weights=empty if weights is None else np.ascontiguousarray(weights, dtype=np.float64),
        offset=empty if offset is None else np.ascontiguousarray(offset, dtype=np.float64),
    )


def _check(rows: Rows) -> None:
    n = rows.y.shape[0]
    for name, array in [("X", rows.X), *((f"Z[{f}]", Z) for f, Z in enumerate(rows.Z))]:
        if array.ndim != 2 or array.shape[0] != n:
            raise DataError(f"{name} has shape {array.shape}, the response has {n} rows")
    for f, (codes, levels) in enumerate(zip(rows.codes, rows.n_levels, strict=True)):
        if codes.shape != (n,):
            raise DataError(f"codes[{f}] has shape {codes.shape}, the response has {n} rows")
        if n and (codes.min() < 0 or codes.max() >= levels):
            raise DataError(f"codes[{f}] must lie between 0 and {levels - 1}: rows without a level cannot be fitted")
    if rows.weights.size and not (rows.weights.shape == (n,) and (rows.weights > 0.0).all()):
        raise DataError("weights must be positive, one for each row; drop rows of weight zero")
    if rows.offset.size and rows.offset.shape != (n,):
        raise DataError(f"the offset has shape {rows.offset.shape}, the response has {n} rows")


def _from_rows(rows: Rows, n_rows: int) -> CrossProducts:
    R0 = _whitener(rows)
    inverse = _inverse_upper(R0)
    response = rows.response
    beta0 = _least_squares(rows, response, inverse)
    gram, diagonal, rhs = one_pass(rows, response, inverse, beta0)
    return CrossProducts(
        n_rows=n_rows,
        n_levels=rows.n_levels,
        n_effects=tuple(Z.shape[1] for Z in rows.Z),
        diagonal=diagonal,
        pairs=all_pairs(rows),
        rhs=rhs,
        gram=gram,
        R0=R0,
        beta0=beta0,
        sum_log_weights=float(np.log(rows.weights).sum()) if rows.weights.size else 0.0,
        source=rows,
    )


def _weighted(rows: Rows, X: NDArray[np.float64]) -> NDArray[np.float64]:
    return X * rows.weights[:, None] if rows.weights.size else X


def _whitener(rows: Rows) -> NDArray[np.float64]:
    """Return R0: from the Cholesky factor of the scaled X'X, or from QR when X is badly conditioned."""
    X = rows.X
    if X.shape[1] == 0:
        return np.empty((0, 0))
    gram = X.T @ _weighted(rows, X)
    scale = np.sqrt(np.diag(gram))
    if scale.min() > 0.0:
        root, info = lapack.dpotrf(gram / np.outer(scale, scale), lower=0)
        if info == 0 and np.diag(root).min() > 1e-5:
            return root * scale
    weighted = X * np.sqrt(rows.weights)[:, None] if rows.weights.size else X
    root = np.linalg.qr(weighted, mode="r")
    root = root * np.where(np.diag(root) < 0.0, -1.0, 1.0)[:, None]
    if root.shape[0] < X.shape[1] or np.diag(root).min() <= 1e-13 * scale.max():
        raise DataError("the columns of X are linearly dependent; drop the redundant ones")
    return root


def _inverse_upper(R0: NDArray[np.float64]) -> NDArray[np.float64]:
    return lapack.dtrtri(R0, lower=0)[0] if R0.size else R0


def _least_squares(rows: Rows, response: NDArray[np.float64], inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weighted least squares coefficients, with one step of refinement."""
    weighted = response * rows.weights if rows.weights.size else response
    beta = inverse @ (inverse.T @ (rows.X.T @ weighted))
    rest = response - rows.X @ beta
    return beta + inverse @ (inverse.T @ (rows.X.T @ (rest * rows.weights if rows.weights.size else rest)))


def one_pass(
    rows: Rows, response: NDArray[np.float64], inverse: NDArray[np.float64], beta0: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...], tuple[NDArray[np.float64], ...]]:
    """Return gram, diagonal and rhs, going through the rows in pieces that fit in the cache."""
    n, p = rows.X.shape
    gram = np.zeros((p + 1, p + 1))
    diagonal = tuple(np.zeros((J, Z.shape[1], Z.shape[1])) for J, Z in zip(rows.n_levels, rows.Z, strict=True))
    rhs = tuple(np.zeros((J, Z.shape[1], p + 1)) for J, Z in zip(rows.n_levels, rows.Z, strict=True))
    step = max(1, _CHUNK_NUMBERS // (p + 1))
    for start in range(0, n, step):
        part = slice(start, min(n, start + step))
        columns = np.empty((part.stop - start, p + 1))
        np.matmul(rows.X[part], inverse, out=columns[:, :p])
        columns[:, p] = response[part] - rows.X[part] @ beta0
        weights = rows.weights[part] if rows.weights.size else rows.weights
        gram += columns.T @ (columns * weights[:, None] if weights.size else columns)
        for f, Z in enumerate(rows.Z):
            _accumulate(
                len(columns), Z.shape[1], p + 1, weights.size, rows.codes[f][part], Z[part], weights, columns,
                diagonal[f], rhs[f],
            )  # fmt: skip
    return gram, diagonal, rhs


def _residual_products(
    rows: Rows,
    residual: NDArray[np.float64],
    inverse: NDArray[np.float64],
    gram: NDArray[np.float64],
    rhs: tuple[NDArray[np.float64], ...],
) -> None:
    """Overwrite the last column of gram and rhs with the products of a new residual."""
    p = rows.X.shape[1]
    weighted = residual * rows.weights if rows.weights.size else residual
    gram[:p, p] = gram[p, :p] = inverse.T @ (rows.X.T @ weighted)
    gram[p, p] = residual @ weighted
    for f, Z in enumerate(rows.Z):
        rhs[f][:, :, -1] = 0.0
        _accumulate_residual(len(Z), Z.shape[1], p + 1, rows.codes[f], Z, weighted, rhs[f])


_INTS, _LONGS, _DOUBLES = "CPointer(int32)", "CPointer(int64)", "CPointer(float64)"


@c_function(f"void(int64, int64, int64, int64, {_INTS}, {', '.join([_DOUBLES] * 5)})")
def _accumulate(n, k, r, n_weights, codes, Z, weights, columns, diagonal, rhs):  # type: ignore[no-untyped-def]
    for i in range(n):
        w = weights[i] if n_weights > 0 else 1.0
        for a in range(k):
            za = w * Z[i * k + a]
            place = codes[i] * k + a
            for b in range(k):
                diagonal[place * k + b] += za * Z[i * k + b]
            for c in range(r):
                rhs[place * r + c] += za * columns[i * r + c]


@c_function(f"void(int64, int64, int64, {_INTS}, {_DOUBLES}, {_DOUBLES}, {_DOUBLES})")
def _accumulate_residual(n, k, r, codes, Z, residual, rhs):  # type: ignore[no-untyped-def]
    for i in range(n):
        for a in range(k):
            rhs[(codes[i] * k + a) * r + r - 1] += Z[i * k + a] * residual[i]


def all_pairs(rows: Rows) -> tuple[PairBlocks, ...]:
    """Return the off-diagonal blocks, the factor with more levels supplying their rows."""
    by_size = sorted(range(len(rows.Z)), key=lambda f: -rows.n_levels[f])
    pairs = []
    for i, first in enumerate(by_size[:-1]):
        order, starts = bucket(rows.codes[first], rows.n_levels[first])
        for second in by_size[i + 1 :]:
            J = rows.n_levels[first]
            seen = np.empty(rows.n_levels[second], dtype=np.int64)
            count = _count_pairs(J, len(seen), order, starts, rows.codes[second], seen)
            levels = np.empty((2, count), dtype=np.int32)
            Z1, Z2 = rows.Z[first], rows.Z[second]
            values = np.zeros((count, Z1.shape[1], Z2.shape[1]))
            _fill_pairs(
                J, len(seen), Z1.shape[1], Z2.shape[1], rows.weights.size, order, starts, rows.codes[second], Z1, Z2,
                rows.weights, seen, levels[0], levels[1], values,
            )  # fmt: skip
            pairs.append(PairBlocks(first, second, levels[0], levels[1], values))
    return tuple(pairs)


def bucket(codes: NDArray[np.int32], n_levels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows sorted by level, and where each level starts."""
    order, starts = np.empty(len(codes), dtype=np.int64), np.zeros(n_levels + 2, dtype=np.int64)
    _bucket(len(codes), n_levels, codes, order, starts)
    return order, starts[:-1]


@c_function(f"void(int64, int64, {_INTS}, {_LONGS}, {_LONGS})")
def _bucket(n, n_levels, codes, order, starts):  # type: ignore[no-untyped-def]
    # counts stand two places further on, so that each becomes a start when it has been counted up
    for i in range(n):
        starts[codes[i] + 2] += 1
    for j in range(n_levels):
        starts[j + 2] += starts[j + 1]
    for i in range(n):
        order[starts[codes[i] + 1]] = i
        starts[codes[i] + 1] += 1


@c_function(f"int64(int64, int64, {_LONGS}, {_LONGS}, {_INTS}, {_LONGS})")
def _count_pairs(n_first, n_second, order, starts, codes, seen):  # type: ignore[no-untyped-def]
    for j in range(n_second):
        seen[j] = -1
    count = 0
    for j in range(n_first):
        for at in range(starts[j], starts[j + 1]):
            other = codes[order[at]]
            if seen[other] != j:
                seen[other] = j
                count += 1
    return count


@c_function(
    f"void(int64, int64, int64, int64, int64, {_LONGS}, {_LONGS}, {_INTS}, {', '.join([_DOUBLES] * 3)}, "
    f"{_LONGS}, {_INTS}, {_INTS}, {_DOUBLES})"
)
def _fill_pairs(  # type: ignore[no-untyped-def]
    n_first, n_second, k1, k2, n_weights, order, starts, codes, Z1, Z2, weights, place, rows, columns, values
):
    for j in range(n_second):
        place[j] = -1
    count = 0
    for j in range(n_first):
        first = count
        for at in range(starts[j], starts[j + 1]):
            i = order[at]
            other = codes[i]
            if place[other] < first:
                place[other] = count
                rows[count] = j
                columns[count] = other
                count += 1
            w = weights[i] if n_weights > 0 else 1.0
            for a in range(k1):
                for c in range(k2):
                    values[(place[other] * k1 + a) * k2 + c] += w * Z1[i * k1 + a] * Z2[i * k2 + c]


COMPILED = (_accumulate, _bucket, _count_pairs, _fill_pairs)
"""What a design needs."""
