"""Coordinates for NUTS where the variance of an intercept or slope may be zero: centred, and with signs.

With an intercept b0 and a slope b1 on a predictor far from zero, the SDs of b0 and b1 and their correlation lie on a
bent ridge, and where the SD of a slope may be zero its logarithm has a long left tail. Both go away when NUTS moves in
the SDs and the correlation of (b0 + m b1, b1), with m the mean of the predictor, and in an SD itself, of either sign,
rather than in its logarithm: the density is even in (SD, correlation) and smooth through zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    >>> FoldedTerm(0, 0.0, (1.0, 1.0), (False, True)).inward(np.array([2.0, 0.0, -1.5])).round(12).tolist()
    [2.0, 1.0, -1.5]
    """

    at: int
    shift: float
    scales: tuple[float, float]
    signed: tuple[bool, bool]

    def inward(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates (3,) of log SDs and Fisher's z as in the sampled vector."""
        sds, correlation = np.exp(x[:2]), np.tanh(x[2])
        root = sds[:, None] * np.array([[1.0, 0.0], [correlation, 1.0 / np.cosh(x[2])]])
        root = np.array([[1.0, self.shift], [0.0, 1.0]]) @ root
        size = np.sqrt(np.square(root).sum(axis=1))
        across = abs(root[0, 0] * root[1, 1] - root[0, 1] * root[1, 0])
        zeta = np.arcsinh(float(root[0] @ root[1]) / across)
        return np.array([*np.where(self.signed, size, np.log(size)), zeta])


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

    def state(self) -> Any:
        """Return a state for one thread."""
        return self.density.state(self.centre, self.spread, self.terms)

    def evaluate_whitened(self, state: Any, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log density and its gradient in whitened coordinates w (d,), with a state of `state()`."""
        return self.density.evaluate_whitened(state, w)

    def outward(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sampled vectors (..., d) of whitened coordinates."""
        v = self.centre + w @ self.spread.T
        points = np.ascontiguousarray(v.reshape(-1, v.shape[-1]))
        self.density.unfold(self.state(), points)
        return points.reshape(v.shape)


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
    plain = FoldedDensity(density, terms, np.zeros(len(x)), np.eye(len(x)))
    state = plain.state()

    def negative(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = plain.evaluate_whitened(state, v)
        return (-value, -slope) if np.isfinite(value) else (1e300, np.zeros(len(v)))

    found = minimize(negative, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-6, "ftol": 1e-13})
    if not found.fun < 1e300:
        return None
    return FoldedDensity(density, terms, found.x, axes_at(found.x, negative))
