"""Coordinates for NUTS where the standard deviation of group effects may be zero: with signs, and centred.

Where an SD may be zero its logarithm has a long left tail; the SD itself has a long right one where groups are few.
NUTS moves instead in c with SD = unit sinh |c|: an SD of either sign near zero, its logarithm far from there. Flipping
the sign of an effect flips those of its correlations, so the density is even in both together and smooth through zero.
With an intercept b0 and a slope b1 on a predictor far from zero, the SDs of b0 and b1 and their correlation also lie on
a bent ridge; it goes away in the SDs and the correlation of (b0 + m b1, b1), with m the mean of the predictor.

The change of coordinates itself is compiled: `bayeslmm.bayes.folding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.coordinates import LOG_SCALE, US
from bayeslmm.bayes.densities import EXPONENTIAL, HALF_CAUCHY, HALF_FLAT, HALF_NORMAL, HALF_STUDENT_T
from bayeslmm.bayes.folding import Folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.logposterior import LogPosterior

WITHIN_REACH = log(100.0)
"""How far the log density may fall from the mode to an SD of zero for that SD to get a sign: to a hundredth."""
FAR, STEP = 20.0, 1e-3
"""Steps of a log SD: to where the SD is as good as zero, and for second derivatives."""
EVEN = (HALF_FLAT, HALF_NORMAL, HALF_STUDENT_T, HALF_CAUCHY, EXPONENTIAL)
"""Priors whose density, mirrored at zero, is continuous there and above zero."""


@dataclass(frozen=True)
class FoldedDensity:
    """The marginal log posterior in folded coordinates, whitened.

    Parameters
    ----------
    density : LogPosterior
        In the sampled vector.
    folds : Folds
        Which of its elements are replaced.
    centre : ndarray (d,)
        The mode of the sampled vector, in folded coordinates.
    spread : ndarray (d, d)
        Axes around it.
    """

    density: LogPosterior
    folds: Folds
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    def state(self) -> Any:
        """Return a state for one thread."""
        return self.density.state(self.centre, self.spread, self.folds)

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
        None where no SD that can have a sign has zero within reach.
    """
    as_written = _near_zero(density, x, {})
    # Where the SD of an intercept may be zero it stays as it is: centred, that would be a correlation of one.
    shifts = {at: m for at, m in _means(density).items() if at not in as_written}
    near = _near_zero(density, x, shifts) if shifts else as_written
    return _whitened(density, _folds_of(density, near, shifts), x) if near else None


def _means(density: LogPosterior) -> dict[int, float]:
    """Return where unstructured terms of two effects begin, and the mean of the second one's predictor."""
    plan, found = density.coordinates.plan, {}
    for t, term in enumerate(density.design.condensed.terms):
        if plan.terms.kind[t] == US and plan.n_sd[t] == 2 and _can_have_sign(density, int(plan.x_start[t]) + 1):
            first, second = term.Z.T
            found[int(plan.x_start[t])] = float(first @ second / (first @ first))
    return found


def _can_have_sign(density: LogPosterior, place: int) -> bool:
    """Return whether the prior of the SD at a place of the sampled vector can be mirrored at zero."""
    plan = density.coordinates.plan
    (i,) = np.flatnonzero(plan.scale_at == place)
    return bool(plan.transform[i] == LOG_SCALE and plan.scale_family[i] in EVEN)


def _near_zero(density: LogPosterior, x: NDArray[np.float64], shifts: Mapping[int, float]) -> dict[int, float]:
    """Return the places of SDs that have zero within reach, all else as at the mode, and the units they want.

    The more sharply the density falls in the logarithm of an SD, the less of it lies where a logarithm is needed: the
    unit is the SD at the mode times that curvature.
    """
    logs = Folds.of(shifts=shifts)
    state, mode = density.state(folds=logs), logs.inward(x)
    here, near = density.evaluate_whitened(state, mode)[0], {}
    for place in _with_sign(density):
        step = np.zeros(len(x))
        step[place] = 1.0
        if here - (density.evaluate_whitened(state, mode - FAR * step)[0] + FAR) < WITHIN_REACH:
            up, down = (density.evaluate_whitened(state, mode + h * step)[1][place] for h in (STEP, -STEP))
            near[place] = exp(mode[place]) * max((down - up) / (2.0 * STEP), 1.0)
    return near


def _with_sign(density: LogPosterior) -> list[int]:
    """Return the places of SDs that can have a sign: not those of effects with SDs of their own but one correlation."""
    plan, found = density.coordinates.plan, []
    for t in range(len(plan.x_start)):
        at, n_sd = int(plan.x_start[t]), int(plan.n_sd[t])
        if plan.terms.kind[t] == US or n_sd == 1 or not plan.n_corr[t]:
            found += [place for place in range(at, at + n_sd) if _can_have_sign(density, place)]
    return found


def _folds_of(density: LogPosterior, units: Mapping[int, float], shifts: Mapping[int, float]) -> Folds:
    """Return the folds of SDs at places with their units; their terms are centred where they have a shift."""
    plan = density.coordinates.plan
    correlations: list[tuple[int, int, int]] = []
    centred = {}
    for t in np.flatnonzero(plan.terms.kind == US):
        at, n_sd = int(plan.x_start[t]), int(plan.n_sd[t])
        if units.keys().isdisjoint(range(at, at + n_sd)):
            continue
        pairs = [(at + i, at + j) for i in range(n_sd) for j in range(i)]
        correlations += [(at + n_sd + c, row, column) for c, (row, column) in enumerate(pairs)]
        if at in shifts:
            centred[at] = shifts[at]
    return Folds.of(units, correlations, centred)


def _whitened(density: LogPosterior, folds: Folds, x: NDArray[np.float64]) -> FoldedDensity:
    """Return the density whitened where the sampled vector has its mode.

    That is an SD of usual size, where the mode of an SD with a sign may be zero and say nothing of correlations.
    """
    from bayeslmm.bayes.marginal import axes_at

    centre, state = folds.inward(x), density.state(folds=folds)

    def negative(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = density.evaluate_whitened(state, v)
        return -value, -slope

    return FoldedDensity(density, folds, centre, axes_at(centre, negative))
