"""Maximum likelihood of generalised mixed models: where the Laplace deviance is least, and its curvature there.

The search runs in coordinates where the problem is close to a standard normal one: covariance parameters as for
Gaussian models (`bayeslmm.likelihood.search`), scaled by the information W at the start; coefficients of whitened
columns; logarithms of the family's own parameters. A first search over the few covariance parameters, with the
coefficients at their joint mode (lme4's nAGQ = 0), supplies the start and the first curvature of the second, over
everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bayeslmm.errors import FitError
from bayeslmm.frequentist.optimize import Control, canonical, is_singular
from bayeslmm.likelihood.descent import Descent, Objective, bfgs
from bayeslmm.likelihood.laplace import BLOCKS, LAPLACE, TIGHT, Approximation, LaplaceKernel, run, start_aux
from bayeslmm.likelihood.pirls import JOINT
from bayeslmm.likelihood.quadrature import adaptive_loglik
from bayeslmm.likelihood.search import Space, fill_space, from_theta, lift, new_space, pull_theta, to_theta

Floats = NDArray[np.float64]
CHEAP = 3.0
"""Rise of the deviance up to which a term is tried without."""
HESSIAN_STEP = 3e-3
"""Step of differences of the gradient, in standard errors."""
WEAK_PRECISION = 0.16
"""Of a normal prior with SD 2.5 on whitened coefficients."""
GRADIENT_STEP = 2e-3
"""Step of differences of the quadrature deviance, in standard errors."""


@dataclass(frozen=True)
class GlmmOptimum:
    """Where the search ended, and how.

    Parameters
    ----------
    theta : ndarray (m,)
        Covariance parameters.
    beta : ndarray (p,)
        Coefficients.
    aux : ndarray (a,)
        Log of the family's own parameter, or the thresholds.
    value : float
        Deviance: minus twice the approximate log-likelihood.
    quadrature : int
        Points per dimension: 1 is Laplace, 0 Laplace with the coefficients at their joint mode.
    evaluations : int
        Evaluations of deviance and gradient.
    converged : bool
        Whether the tolerance was reached.
    status : str
        The same in words.
    path : ndarray (evaluations,)
        Deviance at each evaluation.
    covariance : ndarray (m + p + a, m + p + a)
        Asymptotic covariance of (theta, beta, aux): twice the inverse Hessian of the deviance.
    decrement : float
        Decrease of the deviance still to be had by the quadratic model.
    hessian_pd : bool
        Whether the Hessian is positive definite.
    singular : bool
        Whether some combination of effects has zero variance.
    boundary : ndarray (m,) of bool
        Elements of theta at a bound.
    """

    theta: Floats
    beta: Floats
    aux: Floats
    value: float
    quadrature: int
    evaluations: int
    converged: bool
    status: str
    path: Floats = field(repr=False)
    covariance: Floats = field(repr=False)
    decrement: float
    hessian_pd: bool
    singular: bool
    boundary: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class Problem:
    """The deviance in search coordinates (x, whitened beta, aux)."""

    kernel: LaplaceKernel
    space: Space
    m: int

    def theta(self, x: Floats) -> Floats:
        """Return theta of search coordinates."""
        theta = np.empty(self.m)
        to_theta(self.kernel.layout.arrays, self.space, np.ascontiguousarray(x[: self.m]), theta)
        return theta

    def pulled(self, x: Floats, gradient: Floats) -> Floats:
        """Return the gradient in search coordinates."""
        out = np.empty(self.m)
        pull_theta(self.kernel.layout.arrays, self.space, np.ascontiguousarray(x[: self.m]), gradient, out)
        return out

    def _deviance(self, found: Approximation, x: Floats, parts: list[Floats]) -> tuple[float, Floats]:
        slope = -2.0 * np.concatenate([self.pulled(x, found.theta), *parts])
        if not (np.isfinite(found.value) and np.isfinite(slope).all()):
            return np.inf, np.zeros_like(slope)
        return -2.0 * found.value, slope

    def profile(self, x: Floats) -> tuple[float, Floats]:
        """Return deviance and gradient in (x, aux), coefficients at their joint mode with the effects."""
        found = self.kernel.evaluate(self.theta(x), None, x[self.m :])
        return self._deviance(found, x, [found.aux])

    def full(self, x: Floats) -> tuple[float, Floats]:
        """Return deviance and gradient in (x, beta, aux)."""
        middle = self.m + self.kernel.p
        found = self.kernel.evaluate(self.theta(x), x[self.m : middle], x[middle:])
        return self._deviance(found, x, [found.beta, found.aux])

    def quadrature(self, x: Floats, points: int) -> float:
        """Return the deviance by adaptive Gauss-Hermite quadrature."""
        middle = self.m + self.kernel.p
        value = -2.0 * adaptive_loglik(self.kernel, self.theta(x), x[self.m : middle], x[middle:], points)
        return value if np.isfinite(value) else np.inf


def optimize_glmm(kernel: LaplaceKernel, quadrature: int = 1, control: Control | None = None) -> GlmmOptimum:
    """Minimise the approximate deviance.

    Parameters
    ----------
    kernel : LaplaceKernel
        The model.
    quadrature : int, default 1
        Points per dimension; 1 is Laplace, 0 Laplace with the coefficients at their joint mode with the effects.
    control : Control, optional
        Tolerance, largest number of evaluations, start (theta).

    Returns
    -------
    GlmmOptimum
        With the covariance of all parameters.

    Raises
    ------
    FitError
        If the deviance cannot be computed at any start.
    """
    control = control or Control()
    problem, first, penalised = _start(kernel, control)
    if penalised is not None:
        return _separated(problem, first, penalised, quadrature, control)
    settle = 1e-3 if quadrature else control.tolerance
    found = _both_sides(problem, problem.profile, first, settle, control)
    beta = kernel.state.beta[:, 0].copy()
    root = kernel.state.schur.copy()
    if quadrature == 0:
        return _report_profile(problem, found, beta, root)
    point, inverse = _joined(problem, found, beta, root)
    laplace = bfgs(problem.full, point, inverse, control.tolerance, control.max_evaluations)
    if not laplace.value <= found.value + 1e-6:
        laplace = bfgs(problem.full, point, np.diag(np.diag(inverse)), control.tolerance, control.max_evaluations)
    laplace = _without_small_terms(problem, _off_the_boundary(problem, laplace, control), control)
    path = found.path + laplace.path
    polished, hessian = refine(problem.full, laplace)
    if quadrature > 1:
        scale = _standard_errors(hessian)
        objective = _differenced(lambda x: problem.quadrature(x, quadrature), scale)
        better = bfgs(objective, polished.x, polished.inverse, control.tolerance, control.max_evaluations)
        path += better.path
        polished, hessian = refine(objective, better, step=0.05)
    return _report(problem, polished, hessian, path, quadrature)


def _start(kernel: LaplaceKernel, control: Control) -> tuple[Problem, Floats, Floats | None]:
    """Return the problem scaled by the information at the start, where to start, and penalised coefficients if any."""
    layout, state = kernel.layout, kernel.state
    aux = start_aux(kernel)
    base = kernel.evaluate(np.zeros(layout.n_theta), None, aux, gradient=False)
    penalised = None if np.isfinite(base.value) else _penalised_coefficients(kernel, aux)
    np.maximum(state.terms[2], 1e-8, out=state.terms[2])
    run(state, BLOCKS)
    space = new_space(layout)
    fill_space(state.structure, layout.arrays, space)
    problem = Problem(kernel, space, layout.n_theta)
    x = np.zeros(layout.n_theta)
    if control.start is not None:
        from_theta(layout.arrays, space, np.asarray(control.start, dtype=np.float64), x)
    else:
        for covariance, where in zip(layout.covariances, layout.theta_slices, strict=True):
            part = np.zeros(covariance.n_theta)
            part[np.isfinite(covariance.lower) & np.isinf(covariance.upper)] = 0.9
            x[where] = part
            if covariance.kind in ("cs", "ar1"):
                x[where] = np.append(np.full(len(part) - 1, -0.1), 0.1)
    return problem, np.concatenate([x, aux]), penalised


def _penalised_coefficients(kernel: LaplaceKernel, aux: Floats) -> Floats:
    """Return whitened coefficients of ordinary regression with a weak normal prior, finite where predictors separate.

    The state is left at the mode there.
    """
    state = kernel.new_state()
    zero = np.zeros(kernel.layout.n_theta)
    family, link = kernel.codes
    flat = kernel.layout.flat_templates(zero)
    mean, precision = np.zeros(kernel.p), WEAK_PRECISION * np.eye(kernel.p)
    slope = np.zeros_like(flat), np.zeros(kernel.p), np.zeros(kernel.n_aux)
    value = run(
        state, LAPLACE, family=family, link=link, templates=flat, aux=aux, joint=JOINT, mean=mean, precision=precision,
        tolerance=TIGHT, gradients=False, by_template=slope[0], by_beta=slope[1], by_aux=slope[2],
    )  # fmt: skip
    beta = state.beta[:, 0].copy()
    if not (np.isfinite(value) and np.isfinite(kernel.evaluate(zero, beta, aux, gradient=False).value)):
        raise FitError(
            "the likelihood cannot be computed even without group effects: the link may send the linear predictor\n"
            "  outside the family's domain, or the predictors separate the responses completely.\n"
            "  Try the family's default link, or sample() with a normal prior on the coefficients."
        )
    return beta


def _separated(problem: Problem, first: Floats, beta: Floats, quadrature: int, control: Control) -> GlmmOptimum:
    """Search over everything from penalised coefficients: those without a finite optimum run until nothing is gained.

    The likelihood is flat where they go, and the fit says so; quadrature would refine nothing.
    """
    m = problem.m
    point = np.concatenate([first[:m], beta, first[m:]])
    found = bfgs(problem.full, point, np.eye(len(point)) * 0.1, control.tolerance, control.max_evaluations)
    polished, hessian = refine(problem.full, found)
    return _report(problem, polished, hessian, found.path, min(quadrature, 1))


def _both_sides(problem: Problem, objective: Objective, start: Floats, tolerance: float, control: Control) -> Descent:
    """Search from the start, and from a tenth of it should the deviance not exist there."""
    shrink = np.ones(len(start))
    for _ in range(12):
        value, _ = objective(start * shrink)
        if np.isfinite(value):
            break
        shrink[: problem.m] *= 0.5
    else:
        raise FitError("the deviance cannot be computed at any start; the response may be far too large for this link.")
    inverse = np.eye(len(start)) * 0.5
    levels = [problem.kernel.layout.n_levels[f] for f in problem.kernel.layout.term_factor]
    for where, count in zip(problem.kernel.layout.theta_slices, levels, strict=True):
        inverse[where, where] = np.eye(where.stop - where.start) * min(1.0, 2.0 / max(count, 1))
    for a in range(problem.m, len(start)):
        inverse[a, a] = 4.0 / problem.kernel.cells.weight.sum()
    found = bfgs(objective, start * shrink, inverse, tolerance, control.max_evaluations)
    return _off_the_boundary(problem, found, control, objective)


def _off_the_boundary(
    problem: Problem, found: Descent, control: Control, objective: Objective | None = None
) -> Descent:
    """Search again from the interior after a search that ended at a zero variance; keep the better end."""
    kernel = problem.kernel
    lifted = np.empty(problem.m)
    here = np.ascontiguousarray(found.x[: problem.m])
    if not lift(kernel.layout.arrays, problem.space, here, lifted):
        return found
    again = found.x.copy()
    again[: problem.m] = lifted
    tolerance = control.tolerance if objective is None else 1e-3
    other = bfgs(
        problem.full if objective is None else objective, again, found.inverse, tolerance, control.max_evaluations
    )
    best = other if other.value < found.value - 1e-7 else found
    return replace(best, path=found.path + other.path)


def _without_small_terms(problem: Problem, found: Descent, control: Control) -> Descent:
    """Look at zero variance too: a term may have one optimum there and a worse one inside.

    Every scalar or independent effect whose removal costs little is removed and the search goes on from there; the
    gradient being zero at zero, it stays removed.
    """
    layout = problem.kernel.layout
    best = found
    for covariance, where in zip(layout.covariances, layout.theta_slices, strict=True):
        if covariance.is_correlated:
            continue
        for place in range(where.start, where.stop):
            if best.x[place] == 0.0:
                continue
            point = best.x.copy()
            point[place] = 0.0
            if problem.full(point)[0] > best.value + CHEAP:
                continue
            inverse = best.inverse.copy()
            inverse[place] = inverse[:, place] = 0.0
            inverse[place, place] = 1.0
            other = bfgs(problem.full, point, inverse, control.tolerance, control.max_evaluations)
            path = best.path + other.path
            best = replace(other if other.value < best.value - 1e-7 else best, path=path)
    return best


def _joined(problem: Problem, found: Descent, beta: Floats, root: Floats) -> tuple[Floats, Floats]:
    """Return start and first inverse Hessian of the search over everything."""
    m, p = problem.m, problem.kernel.p
    point = np.concatenate([found.x[:m], beta, found.x[m:]])
    inverse = np.zeros((len(point), len(point)))
    outer = np.r_[np.arange(m), np.arange(m + p, len(point))]
    inverse[np.ix_(outer, outer)] = found.inverse
    lower = np.tril(root)
    inverse[m : m + p, m : m + p] = 0.5 * np.linalg.pinv(lower @ lower.T) if p else 0.0
    return point, inverse


def refine(objective: Objective, found: Descent, step: float = HESSIAN_STEP) -> tuple[Descent, Floats]:
    """Compute the Hessian by central differences of the gradient, and take Newton steps with it.

    Parameters
    ----------
    objective : callable
        Returns value and gradient.
    found : Descent
        End of the search.
    step : float
        Step of the differences, in standard errors.

    Returns
    -------
    found : Descent
        After at most three Newton steps.
    hessian : ndarray (d, d)
        At the end of the search.
    """
    d = len(found.x)
    scale = np.sqrt(2.0 * np.maximum(np.diag(found.inverse), 1e-12))
    scale = np.minimum(scale, 1.0)
    hessian = np.empty((d, d))
    for i in range(d):
        move = np.zeros(d)
        move[i] = step * scale[i]
        hessian[i] = (objective(found.x + move)[1] - objective(found.x - move)[1]) / (2 * move[i])
    hessian = (hessian + hessian.T) / 2
    if not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian)[0] <= 0:
        return found, hessian
    inverse = np.linalg.inv(hessian)
    here = replace(found, inverse=inverse)
    for _ in range(3):
        if here.decrement < 1e-14 or here.decrement > 1e-2:
            break
        point = here.x - inverse @ here.gradient
        value, slope = objective(point)
        if not value <= here.value + 1e-10 * abs(here.value):
            break
        here = replace(here, x=point, value=value, gradient=slope)
    if here.decrement < 1e-6 and not here.status.startswith("stopped"):
        here = replace(here, status="converged")
    return here, hessian


def _differenced(function: Callable[[Floats], float], scale: Floats) -> Objective:
    """Return value and gradient by central differences of fourth order."""

    def objective(x: Floats) -> tuple[float, Floats]:
        value = function(x)
        slope = np.zeros(len(x))
        if not np.isfinite(value):
            return np.inf, slope
        for i in range(len(x)):
            move = np.zeros(len(x))
            move[i] = GRADIENT_STEP * scale[i] * 10
            one = function(x + move) - function(x - move)
            two = function(x + 2 * move) - function(x - 2 * move)
            slope[i] = (8 * one - two) / (12 * move[i])
        return (value, slope) if np.isfinite(slope).all() else (np.inf, np.zeros(len(x)))

    return objective


def _standard_errors(hessian: Floats) -> Floats:
    diagonal = np.diag(hessian)
    return np.sqrt(2.0 / np.maximum(diagonal, 2.0))


def _report(problem: Problem, found: Descent, hessian: Floats, path: tuple[float, ...], quadrature: int) -> GlmmOptimum:
    kernel, m, p = problem.kernel, problem.m, problem.kernel.p
    values = np.linalg.eigvalsh(hessian) if np.isfinite(hessian).all() else np.array([-1.0])
    definite = bool(values[0] > 1e-10 * max(values[-1], 1e-300))
    inverse = 2.0 * np.linalg.inv(hessian) if definite else np.full_like(hessian, np.nan)
    theta = problem.theta(found.x)
    settled = canonical(kernel.layout, theta)
    outward = np.zeros_like(hessian)
    outward[:m, :m] = _jacobian(problem, found.x, settled)
    outward[m : m + p, m : m + p] = np.linalg.inv(kernel.R0) if p else 0.0
    outward[m + p :, m + p :] = np.eye(len(found.x) - m - p)
    kernel.evaluate(settled, found.x[m : m + p], found.x[m + p :], gradient=False)
    return GlmmOptimum(
        theta=settled,
        beta=kernel.unwhiten(found.x[m : m + p]),
        aux=found.x[m + p :].copy(),
        value=float(found.value),
        quadrature=quadrature,
        evaluations=len(path),
        converged=found.status == "converged",
        status=found.status,
        path=np.array(path),
        covariance=outward @ inverse @ outward.T,
        decrement=found.decrement,
        hessian_pd=definite,
        singular=is_singular(kernel.layout, problem.space, settled),
        boundary=_at_bound(problem, settled),
    )


def _at_bound(problem: Problem, theta: Floats) -> NDArray[np.bool_]:
    """Return which elements of theta sit at a bound, whatever the units of the predictors."""
    layout = problem.kernel.layout
    x = np.empty(problem.m)
    from_theta(layout.arrays, problem.space, theta, x)
    deviations = np.isfinite(layout.lower) & np.isinf(layout.upper)
    small = np.zeros(problem.m, dtype=bool)
    for covariance, where in zip(layout.covariances, layout.theta_slices, strict=True):
        small[where] = x[where] < -7.0 if covariance.kind in ("cs", "ar1") else np.abs(x[where]) < 1e-3
    correlations = np.isfinite(layout.upper) & (np.minimum(theta - layout.lower, layout.upper - theta) < 1e-4)
    return (deviations & small) | correlations


def _jacobian(problem: Problem, x: Floats, settled: Floats) -> Floats:
    """Return the derivative (m, m) of the settled theta (signs made positive) in the search coordinates."""
    out = np.empty((problem.m, problem.m))
    for i in range(problem.m):
        step = np.zeros(len(x))
        step[i] = 1e-5
        up, down = (canonical(problem.kernel.layout, problem.theta(x + sign * step)) for sign in (1.0, -1.0))
        out[:, i] = (up - down) / 2e-5
    return out


def _inverse_or_nan(matrix: Floats) -> Floats:
    """Return the inverse of an information matrix, not a number where coefficients have none left."""
    if matrix.size and not np.linalg.cond(matrix) < 1e15:
        return np.full_like(matrix, np.nan)
    return np.linalg.inv(matrix)


def _report_profile(problem: Problem, found: Descent, beta: Floats, root: Floats) -> GlmmOptimum:
    """Report the nAGQ = 0 optimum; coefficients have the covariance they have given theta, as in lme4."""
    kernel, m, p = problem.kernel, problem.m, problem.kernel.p
    polished, hessian = refine(problem.profile, found)
    theta = canonical(kernel.layout, problem.theta(polished.x))
    kernel.evaluate(theta, None, polished.x[m:], gradient=False)
    lower = np.tril(kernel.state.schur)
    white = _inverse_or_nan(lower @ lower.T)
    unwhite = np.linalg.inv(kernel.R0) if p else white
    n_aux = kernel.n_aux
    covariance = np.zeros((m + p + n_aux, m + p + n_aux))
    outer = np.r_[np.arange(m), np.arange(m + p, m + p + n_aux)]
    outward = np.eye(m + n_aux)
    outward[:m, :m] = _jacobian(problem, polished.x, theta)
    values = np.linalg.eigvalsh(hessian) if np.isfinite(hessian).all() else np.array([-1.0])
    definite = bool(values[0] > 0)
    inverse = 2.0 * np.linalg.inv(hessian) if definite else np.full_like(hessian, np.nan)
    covariance[np.ix_(outer, outer)] = outward @ inverse @ outward.T
    covariance[m : m + p, m : m + p] = unwhite @ white @ unwhite.T
    return GlmmOptimum(
        theta=theta,
        beta=kernel.unwhiten(kernel.state.beta[:, 0]),
        aux=polished.x[m:].copy(),
        value=float(polished.value),
        quadrature=0,
        evaluations=len(found.path),
        converged=polished.status == "converged",
        status=polished.status,
        path=np.array(found.path),
        covariance=covariance,
        decrement=polished.decrement,
        hessian_pd=definite,
        singular=is_singular(kernel.layout, problem.space, theta),
        boundary=_at_bound(problem, theta),
    )
