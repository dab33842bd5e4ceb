"""Coordinates for NUTS where the variance of an intercept or slope may be zero: centred, and with signs.

With an intercept b0 and a slope b1 on a predictor far from zero, the SDs of b0 and b1 and their correlation lie on a
bent ridge, and where the SD of a slope may be zero its logarithm has a long left tail. Both go away when NUTS moves in
the SDs and the correlation of (b0 + m b1, b1), with m the mean of the predictor, and in an SD itself, of either sign,
rather than in its logarithm: the density is even in (SD, correlation) and smooth through zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, copysign, cosh, exp, inf, log, sqrt, tanh
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from bayeslmm.bayes.coordinates import LOG_SCALE, US
from bayeslmm.bayes.densities import HALF_CAUCHY, HALF_FLAT, HALF_NORMAL, HALF_STUDENT_T

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.logposterior import LogPosterior

WITHIN_REACH = 4.0
"""Posterior SDs from zero up to which a standard deviation gets a sign."""
SMALLEST = 1e-9
"""Part of its size at the mode that a signed SD never falls below: its logarithm stays finite."""
EVEN = (HALF_FLAT, HALF_NORMAL, HALF_STUDENT_T, HALF_CAUCHY)
"""Priors whose density is smooth through zero when mirrored there."""


@dataclass(frozen=True)
class FoldedTerm:
    """An unstructured term of two effects in centred, possibly signed coordinates (a0, a1, zeta).

    Parameters
    ----------
    at : int
        Where its log SDs and Fisher's z stand in the sampled vector.
    shift : float
        m: the first effect is taken at this value of the second one's predictor.
    scales : tuple of float
        SDs at the mode.
    signed : tuple of bool
        Which coordinates are SDs of either sign; the others are logarithms.

    Examples
    --------
    >>> term = FoldedTerm(0, 10.0, (1.0, 1.0), (False, True))
    >>> x = np.array([2.0, -1.0, -1.5])
    >>> term.outward(term.inward(x))[0].round(12).tolist()
    [2.0, -1.0, -1.5]
    """

    at: int
    shift: float
    scales: tuple[float, float]
    signed: tuple[bool, bool]

    def inward(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates (3,) of log SDs and Fisher's z as in the sampled vector."""
        l0, _, zeta, _, _ = _sheared(float(x[0]), float(x[1]), float(x[2]), -self.shift)
        logs = (l0, float(x[1]))
        return np.array([*(exp(v) if s else v for v, s in zip(logs, self.signed, strict=True)), zeta])

    def outward(self, a: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
        """Return log SDs and Fisher's z (3,) of the effects as written, and what gradients need.

        Parameters
        ----------
        a : ndarray (3,)
            Coordinates.

        Returns
        -------
        x : ndarray (3,)
            As in the sampled vector; not finite where the effects are as good as collinear.
        jacobian : ndarray (3, 3)
            Of x in (log SD, log SD, signed zeta) of the centred effects.
        log_slope : float
            Log of the determinant of dx/da.
        sign : float
            Of the correlation.
        """
        sign, logs, log_slope = 1.0, [0.0, 0.0], 0.0
        for i in range(2):
            logs[i] = float(a[i])
            if self.signed[i]:
                sign *= copysign(1.0, a[i])
                logs[i] = log(max(abs(a[i]), SMALLEST * self.scales[i]))
                log_slope -= logs[i]
        l0, l1, zeta, first, last = _sheared(logs[0], logs[1], sign * float(a[2]), self.shift)
        jacobian = np.array([first, (0.0, 1.0, 0.0), last])
        return np.array([l0, l1, zeta]), jacobian, log_slope + logs[0] - l0, sign

    def pulled(
        self, a: NDArray[np.float64], jacobian: NDArray[np.float64], sign: float, gradient: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the gradient (3,) of the log density in the coordinates, given that in the sampled vector."""
        out = jacobian.T @ gradient - jacobian[0]
        out[0] += 1.0
        for i in range(2):
            if self.signed[i]:
                out[i] = (out[i] - 1.0) / copysign(max(abs(a[i]), SMALLEST * self.scales[i]), a[i])
        out[2] *= sign
        return out


def _sheared(l0: float, l1: float, z: float, m: float) -> tuple[float, float, float, Any, Any]:
    """Return log SDs and Fisher's z of (b0 - m b1, b1), and the rows of the derivative of the first and the last."""
    if not (abs(l0) < 300.0 and abs(l1) < 300.0 and abs(z) < 300.0):
        return inf, l1, inf, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    s0, s1, r, free = exp(l0), exp(l1), tanh(z), cosh(z) ** -2
    variance = s0 * s0 * free + (r * s0 - m * s1) ** 2
    if not 1e-300 < variance < inf:
        return inf, l1, inf, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    size = sqrt(variance)
    correlation, rest = (r * s0 - m * s1) / size, s0 * s0 * free / variance
    if not rest > 1e-300:
        return log(size), l1, inf, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    far = abs(correlation) > 0.9
    zeta = copysign(0.5 * log((1 + abs(correlation)) ** 2 / rest), correlation) if far else atanh(correlation)
    cross = m * r * s0 * s1
    by_size = (
        (s0 * s0 - cross) / variance, (m * m * s1 * s1 - cross) / variance, -m * s0 * s1 * free / variance
    )  # fmt: skip
    by_slope = (r * s0 / size, -m * s1 / size, s0 * free / size)
    last = tuple((one - correlation * other) / rest for one, other in zip(by_slope, by_size, strict=True))
    return log(size), l1, zeta, by_size, last


@dataclass(frozen=True)
class FoldedDensity:
    """The marginal log posterior in folded coordinates, whitened around its mode there.

    Parameters
    ----------
    density : LogPosterior
        In the sampled vector.
    terms : tuple of FoldedTerm
        Which of its elements are replaced.
    centre : ndarray (d,)
        The mode, in folded coordinates.
    spread : ndarray (d, d)
        Axes around it.
    """

    density: LogPosterior
    terms: tuple[FoldedTerm, ...]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    def evaluate(self, state: Any, v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log density and its gradient at folded coordinates v (d,)."""
        x, slope = v.copy(), np.zeros(len(v))
        log_slope, found = 0.0, []
        for term in self.terms:
            where = slice(term.at, term.at + 3)
            x[where], jacobian, part, sign = term.outward(v[where])
            log_slope += part
            found.append((term, where, jacobian, sign))
        if not np.isfinite(x).all():
            return -inf, slope
        value = self.density.evaluate(state, x, slope)
        if not np.isfinite(value):
            return -inf, np.zeros(len(v))
        for term, where, jacobian, sign in found:
            slope[where] = term.pulled(v[where], jacobian, sign, slope[where])
        return value + log_slope, slope

    def evaluate_whitened(self, state: Any, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log density and its gradient in whitened coordinates w (d,)."""
        value, slope = self.evaluate(state, self.centre + self.spread @ w)
        return value, self.spread.T @ slope

    def outward(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sampled vectors (..., d) of whitened coordinates."""
        v = self.centre + w @ self.spread.T
        x = v.copy()
        for term in self.terms:
            part = v[..., term.at : term.at + 3].reshape(-1, 3)
            moved = np.array([term.outward(a)[0] for a in part])
            x[..., term.at : term.at + 3] = moved.reshape(*v.shape[:-1], 3)
        return x


def fold(density: LogPosterior, x: NDArray[np.float64]) -> FoldedDensity | None:
    """Return the density in folded coordinates where that helps NUTS.

    Parameters
    ----------
    density : LogPosterior
        The marginal log posterior.
    x : ndarray (d,)
        Its mode in the sampled vector.

    Returns
    -------
    FoldedDensity or None
        None where no SD of a term that can be folded has zero within `WITHIN_REACH` posterior SDs.
    """
    terms = _candidates(density, x)
    if not terms:
        return None
    whole = _at_its_mode(density, terms, x)
    if whole is None:
        return None
    deviation = np.sqrt(np.square(whole.spread).sum(axis=1))
    near = [
        FoldedTerm(t.at, t.shift, t.scales, _reach(whole.centre[t.at : t.at + 2], deviation[t.at : t.at + 2]))
        for t in terms
    ]
    kept = tuple(term for term in near if any(term.signed))
    return _at_its_mode(density, kept, x) if kept else None


def _reach(size: Sequence[float] | NDArray[np.float64], deviation: NDArray[np.float64]) -> tuple[bool, bool]:
    near = np.abs(np.asarray(size)) < WITHIN_REACH * deviation
    return bool(near[0]), bool(near[1])


def _candidates(density: LogPosterior, x: NDArray[np.float64]) -> tuple[FoldedTerm, ...]:
    """Return every unstructured term of two effects with SDs on the log scale and even priors, both SDs signed."""
    plan = density.coordinates.plan
    found: list[FoldedTerm] = []
    for t, term in enumerate(density.design.condensed.terms):
        at = int(plan.x_start[t])
        places = np.flatnonzero((plan.scale_at >= at) & (plan.scale_at < at + 2))
        smooth = (plan.transform[places] == LOG_SCALE) & np.isin(plan.scale_family[places], EVEN)
        if plan.terms.kind[t] != US or plan.terms.k[t] != 2 or len(places) != 2 or not smooth.all():
            continue
        first, second = term.Z.T
        plain = FoldedTerm(at, float(first @ second / (first @ first)), (1.0, 1.0), (True, True))
        scales = plain.inward(x[at : at + 3])
        found.append(FoldedTerm(at, plain.shift, (float(scales[0]), float(scales[1])), (True, True)))
    return tuple(found)


def _at_its_mode(density: LogPosterior, terms: tuple[FoldedTerm, ...], x: NDArray[np.float64]) -> FoldedDensity | None:
    """Return the density whitened at its mode in folded coordinates; None where the search ends badly."""
    from bayeslmm.bayes.marginal import axes_at

    start = x.copy()
    for term in terms:
        start[term.at : term.at + 3] = term.inward(x[term.at : term.at + 3])
    plain = FoldedDensity(density, terms, start, np.eye(len(x)))
    state = density.state()

    def negative(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = plain.evaluate(state, np.ascontiguousarray(v))
        return (-value, -slope) if np.isfinite(value) else (1e300, np.zeros(len(v)))

    found = minimize(negative, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-6, "ftol": 1e-13})
    if not found.fun < 1e300:
        return None
    return FoldedDensity(density, terms, found.x, axes_at(found.x, negative))
