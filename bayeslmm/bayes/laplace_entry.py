"""The approximate log posterior of a generalised model, coefficients and group effects integrated out, compiled.

One C function turns a sampled vector into templates and its prior, lets the C function of generalised models
(`bayeslmm.likelihood.laplace`) approximate the likelihood, and pulls the gradient back; or draws coefficients and
effects from the Gaussian at the mode. Each thread has a record of its own.
"""

from __future__ import annotations

from math import exp, inf, log
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.coordinates import PLAN, Plan, plan_words, pull, unpack
from bayeslmm.bayes.densities import HALF_LOG_2PI
from bayeslmm.bayes.state import DRAW, EVALUATE, WHITENED, State
from bayeslmm.likelihood._compiled import c_entry, internal
from bayeslmm.likelihood.glmm_record import GLMM
from bayeslmm.likelihood.handle import call
from bayeslmm.likelihood.laplace import DRAW as DRAW_ONE
from bayeslmm.likelihood.laplace import LAPLACE, LaplaceKernel, glmm
from bayeslmm.likelihood.pirls import JOINT
from bayeslmm.likelihood.record import Fields, record_at, words_of
from bayeslmm.likelihood.small import fill

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIGHT = 1e-10
"""Newton decrement at which the search for the mode ends where effects are drawn."""
OPERATION = GLMM.places["operation"]

DENSITY = Fields(
    "Density",
    "operation:int function:int constant:float centre:f1 spread:f2 w:f1 x:f1 by_x:f1 slope:f1 scales:f1 nothing:f1 "
    "points:f2 beta_noises:f2 noises:f2 betas:f2 effects:f2 exact:f1 approximate:f1 cut_means:f1 cut_sds:f1",
    GLMM.end + PLAN.end,
    {"glmm": (GLMM, 0), "plan": (PLAN, GLMM.end)},
)
"""What is read and written, after the record of the likelihood and the plan of the sampled vector.

Thresholds of an ordered response stand at the end of the sampled vector, the first as it is and then the logarithms of
the distances between neighbours; their normal prior has means `cut_means` and standard deviations `cut_sds`.
"""
density_at = record_at(DENSITY)


@internal
def thresholds_at(e, x, thresholds):  # type: ignore[no-untyped-def]
    """Fill the thresholds of an ordered response; return their log prior, Jacobian included."""
    count = thresholds.size
    first = x.size - count
    prior = 0.0
    for i in range(count):
        thresholds[i] = x[first] if i == 0 else thresholds[i - 1] + exp(x[first + i])
        z = (thresholds[i] - e.cut_means[i]) / e.cut_sds[i]
        prior += (x[first + i] if i > 0 else 0.0) - 0.5 * z * z - log(e.cut_sds[i]) - HALF_LOG_2PI
    return prior


@internal
def pull_thresholds(e, x, thresholds, by_threshold, gradient):  # type: ignore[no-untyped-def]
    """Fill the end of the gradient in x, given the gradient of the log likelihood in the thresholds."""
    count = thresholds.size
    first = x.size - count
    above = 0.0
    for i in range(count - 1, -1, -1):
        above += by_threshold[i] - (thresholds[i] - e.cut_means[i]) / (e.cut_sds[i] * e.cut_sds[i])
        gradient[first + i] = above * exp(x[first + i]) + 1.0 if i > 0 else above


@internal
def templates_at(e, x):  # type: ignore[no-untyped-def]
    """Fill templates and the log of the family's own parameter, or thresholds; return the log prior of x."""
    flat, scales, aux = e.glmm.templates, e.scales, e.glmm.aux
    prior = unpack(e.plan, x, flat, scales, e.nothing)
    own = scales[scales.size - 1]
    for i in range(flat.size):
        flat[i] *= own
    if e.cut_means.size > 0:
        prior += thresholds_at(e, x, aux)
    elif aux.size > 0:
        aux[0] = log(own)
    return prior


@internal
def value_at(e, x, gradient):  # type: ignore[no-untyped-def]
    """Return the approximate log posterior of the sampled vector; fill its `gradient`. -inf where there is no mode."""
    fill(gradient, 0.0)
    for i in range(x.size):
        if not abs(x[i]) < 100.0:
            return -inf
    prior = templates_at(e, x)
    if not (prior > -inf and prior < inf):
        return -inf
    words_of(e)[OPERATION] = LAPLACE
    value = prior + e.constant + call(e.function, words_of(e))
    if not (value > -inf and value < inf):
        return -inf
    flat, by_flat, scales, by_aux = e.glmm.templates, e.glmm.by_template, e.scales, e.glmm.by_aux
    own = scales[scales.size - 1]
    ordered = e.cut_means.size > 0
    by_own = by_aux[0] / own if by_aux.size > 0 and not ordered else 0.0
    for i in range(flat.size):
        by_own += by_flat[i] * flat[i] / own
        by_flat[i] *= own
    pull(e.plan, x, scales, by_flat, by_own, e.nothing, gradient)
    if ordered:
        pull_thresholds(e, x, e.glmm.aux, by_aux, gradient)
    for i in range(x.size):
        if not (gradient[i] > -inf and gradient[i] < inf):
            fill(gradient, 0.0)
            return -inf
    return value


@internal
def whitened_value(e):  # type: ignore[no-untyped-def]
    """Return the log posterior and fill its gradient in coordinates w, x = centre + spread w."""
    size, d = e.spread.shape
    spread, x, by_x, slope = e.spread, e.x, e.by_x, e.slope
    for i in range(size):
        total = e.centre[i]
        for j in range(d):
            total += spread[i, j] * e.w[j]
        x[i] = total
    value = value_at(e, x, by_x)
    for j in range(d):
        total = 0.0
        for i in range(size):
            total += spread[i, j] * by_x[i]
        slope[j] = total
    return value


@internal
def draw_at_points(e):  # type: ignore[no-untyped-def]
    """Do `draw_given`."""
    g = e.glmm
    p, q = g.beta_noise.size, g.noise.size
    for draw in range(e.points.shape[0]):
        prior = templates_at(e, e.points[draw]) + e.constant
        for c in range(p):
            g.beta_noise[c] = e.beta_noises[draw, c]
        for i in range(q):
            g.noise[i] = e.noises[draw, i]
        words_of(e)[OPERATION] = DRAW_ONE
        weight = call(e.function, words_of(e))
        for c in range(p):
            e.betas[draw, c] = g.beta_out[c]
        for i in range(q):
            e.effects[draw, i] = g.effects_out[i]
        e.approximate[draw] = prior + g.found[0]
        e.exact[draw] = prior + g.found[0] + weight


@c_entry
def density(address):  # type: ignore[no-untyped-def]
    """Do what the record at `address` asks for: the C function of the approximate log posterior."""
    e = density_at(address)
    if e.operation == EVALUATE:
        return value_at(e, e.x, e.by_x)
    if e.operation == WHITENED:
        return whitened_value(e)
    draw_at_points(e)
    return 0.0


def new_laplace_state(
    kernel: LaplaceKernel,
    plan: Plan,
    mean: NDArray[np.float64],
    precision: NDArray[np.float64],
    constant: float,
    centre: NDArray[np.float64],
    spread: NDArray[np.float64],
    tolerance: float,
    thresholds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> State:
    """Return a state of its own for one thread.

    Parameters
    ----------
    kernel : LaplaceKernel
        The likelihood.
    plan : Plan
        What the sampled vector means.
    mean, precision : ndarray (p,), (p, p)
        Normal prior of the whitened coefficients.
    constant : float
        Constants of likelihood and prior.
    centre, spread : ndarray (d,), (d, a)
        Origin and axes of whitened coordinates.
    tolerance : float
        Newton decrement at which a search for the mode ends.
    thresholds : tuple of ndarray (c,), optional
        Means and standard deviations of the normal prior of the thresholds at the end of the sampled vector.

    Returns
    -------
    State
    """
    own, (family, link) = kernel.new_state(), kernel.codes
    n_flat = int(plan.terms.template_start[-1] + plan.terms.factor_k[-1] ** 2)
    (size, d), p, q = spread.shape, kernel.p, kernel.analysis.n_columns
    likelihood: dict[str, Any] = {
        "operation": LAPLACE, "family": family, "link": link, "joint": JOINT, "gradients": 1, "tolerance": tolerance,
        "templates": np.zeros(n_flat), "aux": np.zeros(kernel.n_aux), "mean": mean, "precision": precision,
        "by_template": np.zeros(n_flat), "by_beta": np.zeros(p), "by_aux": np.zeros(kernel.n_aux),
        "beta_noise": np.zeros(p), "noise": np.zeros(q), "beta_out": np.zeros(p), "effects_out": np.zeros(q),
        "found": np.zeros(1),
    }  # fmt: skip
    shapes: dict[str, int | tuple[int, ...]] = {
        "w": d, "x": size, "by_x": size, "slope": d, "scales": len(plan.scale_at), "nothing": 0, "points": (0, size),
        "beta_noises": (0, p), "noises": (0, q), "betas": (0, p), "effects": (0, q), "exact": 0, "approximate": 0,
    }  # fmt: skip
    arrays = {"centre": centre, "spread": spread, **{name: np.empty(shape) for name, shape in shapes.items()}}
    cuts = (np.empty(0), np.empty(0)) if thresholds is None else thresholds
    arrays |= {"cut_means": cuts[0], "cut_sds": cuts[1]}
    plan_part, scratch = plan_words(plan)
    density_part = DENSITY.words((0, glmm.address, constant, *arrays.values()))
    words = np.concatenate([own.handle, plan_part, density_part])
    for field, value in likelihood.items():
        GLMM.write(words, field, value)
    return State(DENSITY, density, words, arrays, (own, plan, scratch, likelihood))


def draw_given(
    state: State,
    points: NDArray[np.float64],
    beta_noise: NDArray[np.float64],
    noise: NDArray[np.float64],
    beta: NDArray[np.float64],
    effects: NDArray[np.float64],
    exact: NDArray[np.float64],
    approximate: NDArray[np.float64],
) -> None:
    """Draw whitened coefficients and effects from the Gaussian at the mode of each point.

    Fills the exact log joint density of point and draw less that of the draw given the point, and the approximate log
    posterior of the point: the same if the Gaussian is.
    """
    state.give(
        points=points, beta_noises=beta_noise, noises=noise, betas=beta, effects=effects, exact=exact,
        approximate=approximate,
    )  # fmt: skip
    GLMM.write(state.words, "tolerance", TIGHT)
    state.run(DRAW)
