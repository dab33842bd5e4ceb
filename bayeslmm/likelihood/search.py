"""The search for the optimum of the criterion: BFGS in the coordinates of `bayeslmm.likelihood.coordinates`, compiled.

All it needs is in a handle: point, gradient, inverse Hessian, scratch, and a journal that another thread may read.
"""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import beyond, internal
from bayeslmm.likelihood.coordinates import (
    expected_information,
    fill_space,
    from_theta,
    lift,
    moment_start,
    new_space,
    pull_theta,
    to_theta,
)
from bayeslmm.likelihood.covariance import Space
from bayeslmm.likelihood.handle import argument, length
from bayeslmm.likelihood.operations import (
    EVALUATIONS,
    INITIAL,
    INVERSE_HESSIAN,
    JOURNAL,
    POINT,
    SCRATCH,
    SLOPE,
    STATUS,
    STOP,
    TOLERANCE,
    TRUST,
    VALUES,
)
from bayeslmm.likelihood.profiled import measure

__all__ = [
    "CONVERGED",
    "OUT_OF_EVALUATIONS",
    "STALLED",
    "STOPPED",
    "Space",
    "descend",
    "expected_information",
    "fill_space",
    "from_theta",
    "lift",
    "moment_start",
    "new_space",
    "pull_theta",
    "to_theta",
]

CONVERGED, OUT_OF_EVALUATIONS, STALLED, STOPPED = range(4)


@internal
def inner(a, b, m):  # type: ignore[no-untyped-def]
    """Return the inner product."""
    total = 0.0
    for i in range(m):
        total += a[i] * b[i]
    return total


@internal
def line_search(handle, x, m, value, direction, decline, new_x, new_slope):  # type: ignore[no-untyped-def]
    """Move from `x` along `direction` until the (weak, or near rounding the approximate) Wolfe conditions hold.

    Return the value and the step, 0 when none was found; `new_x` and `new_slope` are filled.

    References
    ----------
    Hager & Zhang (2005), A new conjugate gradient method with guaranteed descent, *SIAM J. Optim.* 16(1).
    """
    journal = argument(handle, JOURNAL)
    longest = 0.0
    for i in range(m):
        if abs(direction[i]) > longest:
            longest = abs(direction[i])
    step = 1.0 if longest <= 1.5 else 1.5 / longest
    low, high = 0.0, np.inf
    low_decline, new_value, found = decline, value, 0.0
    for _ in range(30):
        for i in range(m):
            new_x[i] = x[i] + step * direction[i]
        new_value = measure(handle, new_x, new_slope)
        new_decline = inner(new_slope, direction, m)
        enough = new_value <= value + 1e-4 * step * decline
        if not enough and new_value <= value + 1e-12 * abs(value):
            enough = new_decline <= -0.8 * decline
        if not enough:
            high = step
            share = 0.5
            if new_value < np.inf and new_decline > 0.0:
                share = low_decline / (low_decline - new_decline)
            share = 0.1 if share < 0.1 else (0.7 if share > 0.7 else share)
            step = low + share * (high - low)
        elif new_decline < 0.9 * decline and step * longest < 8.0:
            low, low_decline = step, new_decline
            step = 3.0 * step if high == np.inf else 0.5 * (low + high)
        else:
            found = step
            break
        if journal[STOP] > 0.0 or (high - low) * longest < 1e-12:
            break
    return new_value, found


@internal
def update(inverse, m, image, step, direction, slope, new_slope):  # type: ignore[no-untyped-def]
    """Let the inverse Hessian learn from a step by the BFGS formula; return whether it could."""
    curvature = step * (inner(direction, new_slope, m) - inner(direction, slope, m))
    if curvature > 0.0:
        quadratic = 0.0
        for i in range(m):
            image[i] = 0.0
            for j in range(m):
                image[i] += inverse[i * m + j] * (new_slope[j] - slope[j])
            quadratic += image[i] * (new_slope[i] - slope[i])
        for i in range(m):
            for j in range(m):
                outer = step * direction[i] * step * direction[j]
                cross = step * (image[i] * direction[j] + direction[i] * image[j])
                inverse[i * m + j] += ((1.0 + quadratic / curvature) * outer - cross) / curvature
    return curvature > 0.0


@internal
def descend(handle):  # type: ignore[no-untyped-def]
    """Minimise from POINT by BFGS; return the value, note the status in the journal. POINT ends at the minimum.

    The test is the Newton decrement, the decrease still to be had in units of the criterion: free of any scale. With
    TRUST the step that would bring this decrease is taken without another evaluation.
    """
    x, slope, journal = argument(handle, POINT), argument(handle, SLOPE), argument(handle, JOURNAL)
    inverse, initial = argument(handle, INVERSE_HESSIAN), argument(handle, INITIAL)
    m, direction = length(handle, POINT), argument(handle, SCRATCH)
    new_x, new_slope, image = beyond(direction, m), beyond(direction, 2 * m), beyond(direction, 3 * m)
    value = measure(handle, x, slope)
    for _ in range(20):
        if value < np.inf:
            break
        for i in range(m):
            x[i] *= 0.5
        value = measure(handle, x, slope)
    fresh, status = True, STALLED
    while value < np.inf:
        for i in range(m):
            direction[i] = -inner(beyond(inverse, i * m), slope, m)
        decline = inner(direction, slope, m)
        if -decline < journal[TOLERANCE]:
            status = CONVERGED
            if journal[TRUST] > 0.0:
                value += 0.5 * decline
                for i in range(m):
                    x[i] += direction[i]
                    slope[i] = 0.0
            break
        if journal[STOP] > 0.0:
            status = STOPPED
            break
        if journal[EVALUATIONS] >= length(handle, VALUES):
            status = OUT_OF_EVALUATIONS
            break
        new_value, step = line_search(handle, x, m, value, direction, decline, new_x, new_slope)
        if step == 0.0:
            if fresh:
                status = CONVERGED if -decline < 1e-6 else STALLED
                break
            for i in range(m * m):
                inverse[i] = initial[i]
            fresh = True
            continue
        if update(inverse, m, image, step, direction, slope, new_slope):
            fresh = False
        for i in range(m):
            x[i] = new_x[i]
            slope[i] = new_slope[i]
        value = new_value
    journal[STATUS] = status
    return value
