"""A dense BFGS search for a handful of parameters, shared by the Laplace fit and the Laplace posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]
LONGEST = 3.0
"""Longest step of the search, in any coordinate."""


@dataclass(frozen=True)
class Descent:
    """State of a quasi-Newton search: point, value, gradient, inverse Hessian, history."""

    x: Floats
    value: float
    gradient: Floats
    inverse: Floats
    path: tuple[float, ...]
    status: str

    @property
    def decrement(self) -> float:
        """Decrease still to be had."""
        return float(self.gradient @ self.inverse @ self.gradient) / 2


def bfgs(objective: Objective, x: Floats, inverse: Floats, tolerance: float, max_evaluations: int) -> Descent:
    """Minimise by BFGS with a weak Wolfe search, until the Newton decrement is below the tolerance.

    Parameters
    ----------
    objective : callable
        Returns value and gradient; the value is infinite outside the domain.
    x : ndarray (d,)
        Start.
    inverse : ndarray (d, d)
        First inverse Hessian.
    tolerance : float
        Decrease still to be had at which to stop.
    max_evaluations : int
        Largest number of evaluations.

    Returns
    -------
    Descent
        Where the search ended.

    References
    ----------
    Nocedal & Wright (2006), *Numerical Optimization*, chapter 6.

    Examples
    --------
    >>> found = bfgs(lambda x: (float(x @ x), 2 * x), np.ones(2), np.eye(2), 1e-12, 100)
    >>> found.status, bool(found.value < 1e-12)
    ('converged', True)
    """
    value, slope = objective(x)
    path = [value]
    first, fresh = inverse, True
    status = "converged"
    while True:
        direction = -inverse @ slope
        decline = float(direction @ slope)
        if not np.isfinite(value):
            status = "stalled: the deviance cannot be computed"
            break
        if -decline / 2 < tolerance:
            break
        if len(path) >= max_evaluations:
            status = "stopped after the largest number of evaluations allowed"
            break
        step, new_x, new_value, new_slope = _line_search(objective, x, value, direction, decline, path, max_evaluations)
        if step == 0.0:
            if fresh:
                status = "converged" if -decline / 2 < 1e-6 else "stalled: no further decrease was found"
                break
            inverse, fresh = first, True
            continue
        moved, bend = new_x - x, new_slope - slope
        curvature = float(moved @ bend)
        if curvature > 1e-300:
            image = inverse @ bend
            inverse = (
                inverse
                + (1 + bend @ image / curvature) * np.outer(moved, moved) / curvature
                - (np.outer(image, moved) + np.outer(moved, image)) / curvature
            )
            fresh = False
        x, value, slope = new_x, new_value, new_slope
    return Descent(x, value, slope, inverse, tuple(path), status)


def _line_search(
    objective: Objective,
    x: Floats,
    value: float,
    direction: Floats,
    decline: float,
    path: list[float],
    max_evaluations: int,
) -> tuple[float, Floats, float, Floats]:
    """Return (step, point, value, gradient); the step is 0 when no decrease was found."""
    longest = float(np.abs(direction).max())
    step = min(1.0, LONGEST / longest)
    low, high = 0.0, np.inf
    best = (0.0, x, value, np.zeros_like(x))
    for _ in range(30):
        point = x + step * direction
        new_value, new_slope = objective(point)
        path.append(new_value)
        new_decline = float(new_slope @ direction)
        near = new_value <= value + 1e-12 * abs(value) and abs(new_decline) <= 0.8 * abs(decline)
        if not (new_value <= value + 1e-4 * step * decline or near):
            high = step
            share = decline / (decline - new_decline) if np.isfinite(new_value) and new_decline > decline else 0.3
            step = low + min(max(share, 0.1), 0.6) * (high - low)
        elif new_decline < 0.9 * decline and step * longest < LONGEST:
            low, best = step, (step, point, new_value, new_slope)
            step = min(3.0 * step, LONGEST / longest * 1.001) if np.isinf(high) else 0.5 * (low + high)
        else:
            return step, point, new_value, new_slope
        if (high - low) * longest < 1e-12 or len(path) >= max_evaluations:
            break
    return best
