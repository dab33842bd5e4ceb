"""Profile-likelihood intervals of generalised fits: where the deviance, all else at its best, has risen far enough.

Held is what the user sees: a standard deviation, a correlation, a coefficient, a threshold, the logarithm of the
family's own parameter. All else moves in the free coordinates of `bayeslmm.frequentist.constrained`, coefficients and
own parameters in standard errors from the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.frequentist.constrained import Chart, HeldCorr, HeldSd, Structured, free_chart
from bayeslmm.frequentist.profile import Curve, Target, power_of_interval
from bayeslmm.frequentist.variance_parameters import parameter_names
from bayeslmm.likelihood.covariance import by_column
from bayeslmm.likelihood.laplace import LAPLACE, TIGHT, LaplaceKernel, run
from bayeslmm.likelihood.pirls import FIXED
from bayeslmm.likelihood.quadrature import adaptive_loglik

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.frequentist.glmm_fit import GlmmFit

WIDEST = 12.0
"""Farthest end of an interval that is looked for, in half widths of the Wald interval."""
WIDEST_LOGARITHM = 1.0
"""Standard error above which the logarithm of an own parameter is as good as unknown."""
NOWHERE = 1e15
"""Deviance where there is none."""
DIFFERENCE = 2e-2
"""Step of differences of the quadrature deviance, in standard errors."""


@dataclass(frozen=True)
class HeldDeviance:
    """The deviance as a function of free coordinates, with one parameter held.

    Parameters
    ----------
    kernel : LaplaceKernel
        The kernel.
    charts : tuple of Chart
        One per random term, in the order written.
    estimate, scale : ndarray (p + a,)
        Coefficients and own parameters, and their standard errors.
    held : int or None
        Which of these is held; None where a chart holds a parameter.
    points : int
        Points per dimension of the quadrature; 1 is Laplace.
    """

    kernel: LaplaceKernel
    charts: tuple[Chart, ...]
    estimate: NDArray[np.float64]
    scale: NDArray[np.float64]
    held: int | None
    points: int
    sigma: str = "profiled"

    @property
    def free(self) -> NDArray[np.intp]:
        """Positions of the coefficients and own parameters that move."""
        every = np.arange(len(self.estimate))
        return every if self.held is None else np.delete(every, self.held)

    @cached_property
    def ends(self) -> NDArray[np.intp]:
        """Where the coordinates of each term end."""
        covariances = self.kernel.layout.covariances
        sizes = [len(chart.start(np.eye(c.k))) for chart, c in zip(self.charts, covariances, strict=True)]
        return np.cumsum(sizes, dtype=np.intp)

    def start(self, theta: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
        """Return the coordinates of the estimate."""
        layout = self.kernel.layout
        roots = [c.Lambda(part) for c, part in zip(layout.covariances, layout.split(theta), strict=True)]
        parts = [chart.start(root) for chart, root in zip(self.charts, roots, strict=True)]
        return np.concatenate([*parts, np.zeros(len(self.free))])

    def settle(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return coordinates of the same templates without idle drift."""
        *parts, rest = np.split(x, self.ends)
        return np.concatenate([*(chart.settle(part) for chart, part in zip(self.charts, parts, strict=True)), rest])

    def _natural(
        self, x: NDArray[np.float64], held: float
    ) -> tuple[list[NDArray[np.float64]], NDArray[np.float64], NDArray[np.float64]]:
        """Return the templates of the terms, the coefficients and the own parameters."""
        *parts, rest = np.split(x, self.ends)
        values = self.estimate.copy()
        values[self.free] += self.scale[self.free] * rest
        if self.held is not None:
            values[self.held] = held
        roots = [chart.root(part, 1.0, held) for chart, part in zip(self.charts, parts, strict=True)]
        return roots, values[: self.kernel.p], values[self.kernel.p :]

    def __call__(self, x: NDArray[np.float64], held: float) -> tuple[float, NDArray[np.float64]]:
        """Return deviance and gradient at coordinates `x`."""
        value, gradient = self._by_quadrature(x, held) if self.points > 1 else self._by_laplace(x, held)
        if np.isfinite(value) and np.isfinite(gradient).all():
            return value, gradient
        return NOWHERE, np.zeros_like(x)

    def _by_laplace(self, x: NDArray[np.float64], held: float) -> tuple[float, NDArray[np.float64]]:
        kernel, layout = self.kernel, self.kernel.layout
        roots, beta, aux = self._natural(x, held)
        templates = [np.zeros((k, k)) for k in layout.n_effects]
        for root, factor, columns in zip(roots, layout.term_factor, layout.term_columns, strict=True):
            templates[factor][columns, columns] = root
        flat = np.concatenate([template.ravel() for template in templates])
        slopes, by_beta, by_aux = np.zeros_like(flat), np.zeros(kernel.p), np.zeros(kernel.n_aux)
        kernel.state.beta[:, 0] = kernel.whiten(beta)
        family, link = kernel.codes
        value = run(
            kernel.state, LAPLACE, family=family, link=link, templates=flat, aux=aux, joint=FIXED, mean=np.zeros(0),
            precision=np.zeros((0, 0)), tolerance=TIGHT, gradients=True,
            by_template=slopes, by_beta=by_beta, by_aux=by_aux,
        )  # fmt: skip
        by_template = layout.unflatten(slopes)
        *parts, _ = np.split(x, self.ends)
        pulled = [
            chart.pull(part, 1.0, held, by_template[factor][columns, columns])[0]
            for chart, part, factor, columns in zip(
                self.charts, parts, layout.term_factor, layout.term_columns, strict=True
            )
        ]
        outer = np.concatenate([kernel.R0.T @ by_beta, by_aux]) * self.scale
        return -2.0 * (value + kernel.constant), -2.0 * np.concatenate([*pulled, outer[self.free]])

    def _by_quadrature(self, x: NDArray[np.float64], held: float) -> tuple[float, NDArray[np.float64]]:
        value = self._quadrature_deviance(x, held)
        steps = DIFFERENCE * np.eye(len(x))
        rises = [self._quadrature_deviance(x + h, held) - self._quadrature_deviance(x - h, held) for h in steps]
        return value, np.array(rises) / (2 * DIFFERENCE)

    def _quadrature_deviance(self, x: NDArray[np.float64], held: float) -> float:
        roots, beta, aux = self._natural(x, held)
        theta = [
            root[by_column(covariance.k)] if covariance.kind == "us" else covariance.theta_from(*_sd_corr(root))
            for covariance, root in zip(self.kernel.layout.covariances, roots, strict=True)
        ]
        return -2.0 * adaptive_loglik(self.kernel, np.concatenate(theta), self.kernel.whiten(beta), aux, self.points)


def _sd_corr(root: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sd = np.linalg.norm(root, axis=1)
    unit = root / np.maximum(sd, 1e-300)[:, None]
    return sd, unit @ unit.T


def profile_intervals(fit: GlmmFit, level: float, parameters: str | Sequence[str] | None) -> pd.DataFrame:
    """Return profile-likelihood intervals of every parameter.

    Parameters
    ----------
    fit : GlmmFit
        The fit; with `quadrature=0` the profile is of the Laplace deviance, at its own optimum.
    level : float
        Coverage.
    parameters : str or sequence of str, optional
        Which; all when absent.

    Returns
    -------
    DataFrame
        Columns `lower` and `upper`; infinite where the likelihood never drops far enough, 0 for a standard deviation
        and -1 or 1 for a correlation at the edge of the parameter space.

    Raises
    ------
    DataError
        If a parameter is not there.
    FitError
        If a lower deviance than the fit's turns up.

    References
    ----------
    Venzon & Moolgavkar (1988), *Applied Statistics* 37(1).
    """
    fit = _at_laplace(fit)
    z = float(stats.norm.ppf(0.5 + level / 2))
    known = {target.name: target for target in profile_targets(fit, z)}
    wanted = list(known) if parameters is None else [parameters] if isinstance(parameters, str) else list(parameters)
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            raise DataError(f"there is no profile of {name!r}.\n  Profiles: {listing(known)}. {hint}".rstrip())
    found: dict[int, tuple[float, float]] = {}
    rows = []
    for target in (known[name] for name in wanted):
        if id(target.problem) not in found:
            curve = Curve(target, fit)
            ends = [curve.limit(side, z) for side in (-1, 1)]
            found[id(target.problem)] = (ends[0], ends[1])
        rows.append(_on_the_users_scale(fit, target, found[id(target.problem)]))
    return pd.DataFrame(rows, index=pd.Index(wanted, name="parameter"), columns=["lower", "upper"])


def _at_laplace(fit: GlmmFit) -> GlmmFit:
    """Return the fit, or for the coefficients' joint mode with the effects (nAGQ = 0) that by Laplace."""
    if fit.optimum.quadrature > 0:
        return fit
    from bayeslmm.frequentist.glmm_fit import assemble
    from bayeslmm.frequentist.glmm_search import optimize_glmm

    return assemble(fit.design, fit.response_family, fit.kernel, optimize_glmm(fit.kernel, 1))


def _is_logarithm(fit: GlmmFit, name: str) -> bool:
    return name == fit.response_family.parameter and name not in fit.design.coef_names


def _on_the_users_scale(fit: GlmmFit, target: Target, ends: tuple[float, float]) -> tuple[float, float]:
    """Return the limits of the parameter: infinite where none was found, not the logarithm of an own parameter."""
    is_open = target.problem.held is not None
    lower, upper = (
        float(np.copysign(np.inf, side)) if is_open and end == edge else end
        for side, end, edge in zip((-1.0, 1.0), ends, target.bounds, strict=True)
    )
    if _is_logarithm(fit, target.name):
        return float(np.exp(lower)), float(np.exp(upper))
    return power_of_interval(lower, upper, target.power)


def profile_targets(fit: GlmmFit, z: float) -> list[Target]:
    """Return what can be profiled, in the order of `parameter_frame`.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    z : float
        Normal quantile of the intervals.

    Returns
    -------
    list of Target
        Coefficients, standard deviations and correlations term by term, own parameters.
    """
    layout, p, m = fit.kernel.layout, fit.kernel.p, len(fit.theta)
    estimate = np.concatenate([fit.optimum.beta, fit.optimum.aux])
    variance = np.diag(fit.optimum.covariance)[m:]
    scale = np.sqrt(np.where(np.isfinite(variance) & (variance > 0), variance, 0.25))
    if fit.response_family.parameter != "threshold":
        scale[p:] = np.minimum(scale[p:], WIDEST_LOGARITHM)
    free = tuple(free_chart(covariance) for covariance in layout.covariances)
    plain = HeldDeviance(fit.kernel, free, estimate, scale, None, fit.optimum.quadrature)
    own = list(fit.auxiliary.index)
    outer = []
    for i, name in enumerate([*fit.design.coef_names, *own]):
        reach = WIDEST * z * scale[i]
        bounds = (float(estimate[i] - reach), float(estimate[i] + reach))
        outer.append(Target(str(name), replace(plain, held=i), float(estimate[i]), float(scale[i]), bounds))
    inner: list[Target] = []
    names = iter(parameter_names(fit.design, layout)[0])
    for position, (term, covariance) in enumerate(zip(fit.design.terms, layout.covariances, strict=True)):
        sd, corr = covariance.sd_corr(layout.split(fit.theta)[position])
        added = _sd_targets(plain, position, sd, names)
        inner += added[:1] if term.term.structure is not None else added
        if covariance.is_correlated:
            inner += _corr_targets(plain, position, sd, corr, names)
    return [*outer[:p], *inner, *outer[p:]]


def _with(problem: HeldDeviance, position: int, chart: Chart) -> HeldDeviance:
    return replace(problem, charts=(*problem.charts[:position], chart, *problem.charts[position + 1 :]))


def _sd_targets(plain, position, sd, names) -> list[Target]:  # type: ignore[no-untyped-def]
    layout = plain.kernel.layout
    covariance, levels = layout.covariances[position], layout.n_levels[layout.term_factor[position]]
    problems: dict[int, HeldDeviance] = {}
    targets = []
    for effect in range(covariance.k):
        which = 0 if covariance.kind != "us" and covariance.hom else effect
        if which not in problems:
            chart = HeldSd(covariance.k, which) if covariance.kind == "us" else Structured(covariance, which)
            problems[which] = _with(plain, position, chart)
        step = max(float(sd[effect]), 0.1 * float(sd.max()), 1e-3) / np.sqrt(2 * levels)
        targets.append(Target(next(names), problems[which], float(sd[effect]), step, (0.0, np.inf)))
    return targets


def _corr_targets(plain, position, sd, corr, names) -> list[Target]:  # type: ignore[no-untyped-def]
    layout = plain.kernel.layout
    covariance, levels = layout.covariances[position], layout.n_levels[layout.term_factor[position]]
    k, step = covariance.k, 1.0 / np.sqrt(levels)
    pairs = [(a, b) for a in range(k) for b in range(a + 1, k)]
    if covariance.kind == "us":
        defined = sd > 1e-8 * max(float(sd.max()), 1e-300)
        estimates = [float(corr[a, b]) if defined[a] and defined[b] else np.nan for a, b in pairs]
        problems = [_with(plain, position, HeldCorr(k, a, b)) for a, b in pairs]
        found = zip(problems, estimates, strict=True)
        return [Target(next(names), problem, value, step, (-1.0, 1.0)) for problem, value in found]
    problem = _with(plain, position, Structured(covariance, covariance.n_theta - 1))
    rho, edges = float(corr[0, 1]), (float(covariance.lower[-1]) + 1e-6, 1 - 1e-6)
    powers = [b - a if covariance.kind == "ar1" else 1 for a, b in pairs]
    return [Target(next(names), problem, rho, step, edges, power=power) for power in powers]
