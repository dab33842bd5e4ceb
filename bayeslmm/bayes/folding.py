"""Folded coordinates in compiled code: out of them, and gradients back into them (see `bayeslmm.bayes.folded`)."""

from __future__ import annotations

from math import atanh, copysign, cosh, exp, expm1, inf, log, sqrt, tanh
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from bayeslmm.likelihood._compiled import internal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SMALLEST = 1e-9
"""What a coordinate with a sign counts for at least, either way: the logarithm of the SD stays finite."""
FIELDS = (
    "fold_signed:l1 fold_log_unit:f1 fold_correlation:l1 fold_row:l1 fold_column:l1 fold_centred:l1 fold_shift:f1 "
    "fold_slopes:f2 v:f1 "
)


class Folds(NamedTuple):
    """Which elements of the sampled vector are replaced, and by what: the first fields of a record, without scratch.

    Parameters
    ----------
    signed : ndarray (m,)
        Places of log SDs that get a sign.
    log_unit : ndarray (m,)
        Logarithms of their units.
    correlation : ndarray (c,)
        Places of Fisher's z of (partial) correlations.
    row, column : ndarray (c,)
        Which of `signed` the SDs of the two effects are, or -1.
    centred : ndarray (h,)
        Where unstructured terms of two effects begin that are centred.
    shift : ndarray (h,)
        m: their first effect is taken at this value of the second one's predictor.
    """

    signed: NDArray[np.int64]
    log_unit: NDArray[np.float64]
    correlation: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    centred: NDArray[np.int64]
    shift: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        units: Mapping[int, float] | None = None,
        correlations: Sequence[tuple[int, int, int]] = (),
        shifts: Mapping[int, float] | None = None,
    ) -> Self:
        """Return the folds of SDs with their units, correlations with their SDs, and terms with shifts, all by place.

        The SDs of a correlation need not be among those with a sign.
        """
        units, shifts = units or {}, shifts or {}
        which = {place: i for i, place in enumerate(units)}
        pairs = [(at, which.get(row, -1), which.get(column, -1)) for at, row, column in correlations]
        at, row, column = np.array(pairs, dtype=np.int64).reshape(-1, 3).T.copy()
        return cls(
            np.array(list(units), dtype=np.int64),
            np.log(np.array(list(units.values()), dtype=np.float64)),
            at,
            row,
            column,
            np.array(list(shifts), dtype=np.int64),
            np.array(list(shifts.values()), dtype=np.float64),
        )

    def arrays(self, size: int) -> dict[str, Any]:
        """Return the fields of a record by name, with scratch of its own for a sampled vector of this size."""
        given = {f"fold_{name}": array for name, array in self._asdict().items()}
        return {**given, "fold_slopes": np.zeros((len(self.centred), 6)), "v": np.empty(size)}

    def inward(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates (d,) of a sampled vector, all SDs with a positive sign.

        Parameters
        ----------
        x : ndarray (d,)
            The sampled vector.

        Returns
        -------
        ndarray (d,)
            Coordinates.

        Examples
        --------
        >>> Folds.of({1: 1.0}).inward(np.array([2.0, 0.0, -1.5])).round(3).tolist()
        [2.0, 0.881, -1.5]
        """
        v = x.copy()
        for at, m in zip(self.centred, self.shift, strict=True):
            v[at], v[at + 2] = _centred(x[at : at + 3], m)
        v[self.signed] = np.arcsinh(np.exp(v[self.signed] - self.log_unit))
        return v


def _centred(x: NDArray[np.float64], m: float) -> tuple[float, float]:
    """Return log SD of b0 + m b1 and Fisher's z with b1, given log SDs and Fisher's z (3,) of b0 and b1."""
    root = np.exp(x[:2])[:, None] * np.array([[1.0, 0.0], [np.tanh(x[2]), 1.0 / np.cosh(x[2])]])
    root = np.array([[1.0, m], [0.0, 1.0]]) @ root
    across = abs(root[0, 0] * root[1, 1] - root[0, 1] * root[1, 0])
    return float(np.log(np.linalg.norm(root[0]))), float(np.arcsinh(float(root[0] @ root[1]) / across))


@internal
def shear(l0, l1, z, m, slopes, t):  # type: ignore[no-untyped-def]
    """Return log SD of b0 - m b1 and Fisher's z with b1; fill row t of the derivatives of the first and the last."""
    for j in range(6):
        slopes[t, j] = 0.0
    if not (abs(l0) < 300.0 and abs(l1) < 300.0 and abs(z) < 300.0):
        return inf, inf
    s0, s1, r, free = exp(l0), exp(l1), tanh(z), cosh(z) ** -2
    variance = s0 * s0 * free + (r * s0 - m * s1) ** 2
    if not (variance > 1e-300 and variance < inf):
        return inf, inf
    size = sqrt(variance)
    correlation, rest = (r * s0 - m * s1) / size, s0 * s0 * free / variance
    if not rest > 1e-300:
        return log(size), inf
    if abs(correlation) > 0.9:
        zeta = copysign(0.5 * log((1 + abs(correlation)) ** 2 / rest), correlation)
    else:
        zeta = atanh(correlation)
    cross = m * r * s0 * s1
    slopes[t, 0] = (s0 * s0 - cross) / variance
    slopes[t, 1] = (m * m * s1 * s1 - cross) / variance
    slopes[t, 2] = -m * s0 * s1 * free / variance
    slopes[t, 3] = (r * s0 / size - correlation * slopes[t, 0]) / rest
    slopes[t, 4] = (-m * s1 / size - correlation * slopes[t, 1]) / rest
    slopes[t, 5] = (s0 * free / size - correlation * slopes[t, 2]) / rest
    return log(size), zeta


@internal
def sign_of(e, v, which):  # type: ignore[no-untyped-def]
    """Return the sign of the SD that is number `which` of those with a sign; 1 for -1."""
    return 1.0 if which < 0 else copysign(1.0, v[e.fold_signed[which]])


@internal
def unfold(e, v, x):  # type: ignore[no-untyped-def]
    """Fill the sampled vector x of folded coordinates v; return the log of the determinant of dx/dv.

    Elements of x are not finite where two effects are as good as collinear.
    """
    log_slope = 0.0
    for i in range(v.size):
        x[i] = v[i]
    for i in range(e.fold_signed.size):
        size = max(abs(v[e.fold_signed[i]]), SMALLEST)
        x[e.fold_signed[i]] = e.fold_log_unit[i] + size + log(-0.5 * expm1(-2.0 * size))
        log_slope -= log(tanh(size))
    for i in range(e.fold_correlation.size):
        x[e.fold_correlation[i]] *= sign_of(e, v, e.fold_row[i]) * sign_of(e, v, e.fold_column[i])
    for t in range(e.fold_centred.size):
        at = e.fold_centred[t]
        log_slope += x[at]
        x[at], x[at + 2] = shear(x[at], x[at + 1], x[at + 2], e.fold_shift[t], e.fold_slopes, t)
        log_slope -= x[at]
    return log_slope


@internal
def fold_back(e, v, gradient):  # type: ignore[no-untyped-def]
    """Turn the gradient in the sampled vector into that in v, log determinant included; follows `unfold`."""
    for t in range(e.fold_centred.size):
        at = e.fold_centred[t]
        first, middle, last = gradient[at] - 1.0, gradient[at + 1], gradient[at + 2]
        for j in range(3):
            gradient[at + j] = first * e.fold_slopes[t, j] + last * e.fold_slopes[t, 3 + j]
        gradient[at] += 1.0
        gradient[at + 1] += middle
    for i in range(e.fold_correlation.size):
        gradient[e.fold_correlation[i]] *= sign_of(e, v, e.fold_row[i]) * sign_of(e, v, e.fold_column[i])
    for i in range(e.fold_signed.size):
        at = e.fold_signed[i]
        slope = tanh(max(abs(v[at]), SMALLEST))
        gradient[at] = ((gradient[at] - 1.0) / slope + slope) * copysign(1.0, v[at])
