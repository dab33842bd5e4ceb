"""Folded coordinates in compiled code: out of them, and gradients back into them (see `bayeslmm.bayes.folded`)."""

from __future__ import annotations

from math import atanh, copysign, cosh, exp, inf, log, sqrt, tanh
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from bayeslmm.likelihood._compiled import internal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bayeslmm.bayes.folded import FoldedTerm

SMALLEST = 1e-9
"""Part of its size at the mode that a signed SD never falls below: its logarithm stays finite."""
FIELDS = "fold_at:l1 fold_pair:u1 fold_shift:f1 fold_floor:f2 fold_signed:u2 fold_slopes:f2 fold_sign:f1 v:f1 "


class Folds(NamedTuple):
    """The folded terms as arrays: the first fields of a record, without scratch.

    Parameters
    ----------
    at : ndarray (T,)
        Where the SDs stand in the sampled vector.
    pair : ndarray (T,)
        1 for two SDs and Fisher's z of their correlation, 0 for one SD.
    shift : ndarray (T,)
        Value of the second effect's predictor at which the first effect is taken.
    floor : ndarray (T, 2)
        Below this an SD of either sign counts as this.
    signed : ndarray (T, 2)
        Which coordinates are SDs of either sign; the others are logarithms.
    """

    at: NDArray[np.int64]
    pair: NDArray[np.uint8]
    shift: NDArray[np.float64]
    floor: NDArray[np.float64]
    signed: NDArray[np.uint8]

    @classmethod
    def of(cls, terms: Sequence[FoldedTerm]) -> Self:
        """Return the arrays of these terms."""
        pairs = [(*term.scales, 0.0)[:2] for term in terms]
        signs = [(*term.signed, False)[:2] for term in terms]
        return cls(
            np.array([term.at for term in terms], dtype=np.int64),
            np.array([len(term.scales) == 2 for term in terms], dtype=np.uint8),
            np.array([term.shift for term in terms], dtype=np.float64),
            SMALLEST * np.array(pairs, dtype=np.float64).reshape(-1, 2),
            np.array(signs, dtype=np.uint8).reshape(-1, 2),
        )

    def arrays(self, size: int) -> dict[str, Any]:
        """Return the fields of a record by name, with scratch of its own for a sampled vector of this size."""
        count = len(self.at)
        given = {f"fold_{name}": array for name, array in self._asdict().items()}
        return {
            **given, "fold_slopes": np.zeros((count, 6)), "fold_sign": np.ones(count), "v": np.empty(size),
        }  # fmt: skip


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
def unfold(e, v, x):  # type: ignore[no-untyped-def]
    """Fill the sampled vector x of folded coordinates v; return the log of the determinant of dx/dv.

    Elements of x are not finite where two effects are as good as collinear.
    """
    log_slope = 0.0
    for i in range(v.size):
        x[i] = v[i]
    for t in range(e.fold_at.size):
        at, pair, sign = e.fold_at[t], e.fold_pair[t], 1.0
        for i in range(1 + pair):
            if e.fold_signed[t, i]:
                sign *= copysign(1.0, v[at + i])
                x[at + i] = log(max(abs(v[at + i]), e.fold_floor[t, i]))
                log_slope -= x[at + i]
        e.fold_sign[t] = sign
        if pair:
            log_slope += x[at]
            x[at], x[at + 2] = shear(x[at], x[at + 1], sign * v[at + 2], e.fold_shift[t], e.fold_slopes, t)
            log_slope -= x[at]
    return log_slope


@internal
def fold_back(e, v, gradient):  # type: ignore[no-untyped-def]
    """Turn the gradient in the sampled vector into that in v, log determinant included; follows `unfold`."""
    for t in range(e.fold_at.size):
        at, pair = e.fold_at[t], e.fold_pair[t]
        if pair:
            first, middle, last = gradient[at] - 1.0, gradient[at + 1], gradient[at + 2]
            for j in range(3):
                gradient[at + j] = first * e.fold_slopes[t, j] + last * e.fold_slopes[t, 3 + j]
            gradient[at] += 1.0
            gradient[at + 1] += middle
            gradient[at + 2] *= e.fold_sign[t]
        for i in range(1 + pair):
            if e.fold_signed[t, i]:
                size = copysign(max(abs(v[at + i]), e.fold_floor[t, i]), v[at + i])
                gradient[at + i] = (gradient[at + i] - 1.0) / size
