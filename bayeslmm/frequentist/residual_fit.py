"""REML and ML with unequal or correlated residuals: the search over their parameters, and how sure we are of them.

For every psi, the parameters of the residuals, the covariance parameters theta are estimated as in any other fit; psi
is then sought where the criterion at its best theta is least. Its gradient is the partial derivative in psi (the
envelope theorem), by differences of fourth order, whose error is below 1e-8 of a deviance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError, listing
from bayeslmm.frequentist.degrees_of_freedom import Satterthwaite
from bayeslmm.frequentist.optimize import Control, Optimum, optimize
from bayeslmm.frequentist.variance_parameters import STEP, on_boundary
from bayeslmm.likelihood.lmm import LmmKernel, Solution, criterion, criterion_and_gradient, solve
from bayeslmm.likelihood.residual import FARTHEST, Moving, ResidualKernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.residuals import ResidualStructure

WIDTH = 1e-2
IMPOSSIBLE = 1e10
NEWTON_STEPS = 3
STARTS = (0.0, 1.0, -1.0)
"""Where the correlation starts on its unconstrained scale; with a random intercept there may be two optima."""


@dataclass(frozen=True, eq=False)
class ResidualFit:
    """The residual part of a fit.

    Parameters
    ----------
    structure : ResidualStructure
        What was asked for, met by data.
    kernel : ResidualKernel
        The kernels of all psi.
    psi : ndarray (k,)
        Estimates on the unconstrained scale.
    """

    structure: ResidualStructure
    kernel: ResidualKernel = field(repr=False)
    psi: NDArray[np.float64]

    @property
    def natural(self) -> NDArray[np.float64]:
        """Ratios of standard deviations, then the correlation (k,)."""
        ratios, rho = self.kernel.rows.natural(self.psi)
        return np.append(ratios[1:], rho) if self.kernel.rows.kind != "independent" else ratios[1:]

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Standard deviation of each level in units of sigma (S,)."""
        return self.kernel.rows.natural(self.psi)[0]

    @property
    def rho(self) -> float | None:
        """The correlation; None for independent residuals."""
        return None if self.kernel.rows.kind == "independent" else self.kernel.rows.natural(self.psi)[1]

    @property
    def at_limit(self) -> bool:
        """Whether a ratio or the correlation ran to the end of its range."""
        return bool(np.abs(self.psi).max(initial=0.0) > FARTHEST - 1.0)

    @property
    def limit_message(self) -> str:
        """Which, in words, and the way out."""
        names = [
            name for name, x in zip(self.structure.parameter_names, self.psi, strict=True) if abs(x) > FARTHEST - 1
        ]
        return (
            f"{listing(names)} ran to the end of its range: the data do not determine it beside the other variances.\n"
            "  Leave out the term it competes with, or use a simpler residual structure."
        )

    def frame(self, z: float, covariance: NDArray[np.float64]) -> pd.DataFrame:
        """Return estimates with standard errors and Wald intervals made on the unconstrained scale.

        Parameters
        ----------
        z : float
            Normal quantile.
        covariance : ndarray (k, k)
            Of psi.

        Returns
        -------
        DataFrame
            Columns `kind`, `estimate`, `se`, `lower`, `upper`.
        """
        se, k = np.sqrt(np.diag(covariance)), len(self.psi)
        ends = []
        for sign in (-1.0, 1.0):
            ratios, rho = self.kernel.rows.natural(self.psi + sign * z * se)
            ends.append(np.append(ratios[1:], rho)[:k])
        return pd.DataFrame(
            {
                "kind": "aux",
                "estimate": self.natural,
                "se": se * self.kernel.rows.natural_slopes(self.psi),
                "lower": ends[0],
                "upper": ends[1],
            },
            index=list(self.structure.parameter_names),
        )


class _Profile:
    """The criterion of psi at its best theta, with its gradient."""

    def __init__(self, kernel: ResidualKernel, control: Control, watch: Callable[[int, float], None] | None) -> None:
        self.moving, self.control, self.watch = Moving(kernel), control, watch
        self.theta = control.start
        self.evaluations = 0
        self.optimum: Optimum | None = None

    def __call__(self, psi: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        reml = self.control.reml
        settings = Control(reml, self.control.tolerance, self.control.max_evaluations, self.theta)
        try:
            self.optimum = optimize(self.moving.at(psi), settings, self.watch)
        except FitError:  # a step to a numerically singular correlation: the line search has to come back
            return IMPOSSIBLE, np.zeros(len(psi))
        self.theta = self.optimum.theta
        self.evaluations += self.optimum.evaluations
        return self.optimum.value, partial(self.moving, self.theta, psi, reml)


def partial(moving: Moving, theta: NDArray[np.float64], psi: NDArray[np.float64], reml: bool) -> NDArray[np.float64]:
    """Return the derivative (k,) of the criterion in psi at theta, by differences of fourth order.

    Parameters
    ----------
    moving : Moving
        The kernel.
    theta : ndarray (m,)
        Covariance parameters.
    psi : ndarray (k,)
        Residual parameters.
    reml : bool
        REML or ML.

    Returns
    -------
    ndarray (k,)
        The gradient.
    """
    out = np.empty(len(psi))
    for j in range(len(psi)):
        values = []
        for steps in (-2.0, -1.0, 1.0, 2.0):
            point = psi.copy()
            point[j] += steps * WIDTH
            values.append(criterion(theta, moving.at(point), reml))
        out[j] = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * WIDTH)
    return out


def optimize_residual(
    kernel: ResidualKernel,
    control: Control,
    watch: Callable[[int, float], None] | None = None,
    near: NDArray[np.float64] | None = None,
) -> tuple[Optimum, NDArray[np.float64]]:
    """Estimate the covariance parameters and those of the residuals together.

    Parameters
    ----------
    kernel : ResidualKernel
        The kernels of all psi.
    control : Control
        Settings.
    watch : callable, optional
        Called while a long fit runs.
    near : ndarray (k,), optional
        Start of psi; several starts are tried when absent.

    Returns
    -------
    Optimum
        Where theta ended.
    ndarray (k,)
        Where psi ended.

    Raises
    ------
    FitError
        If the criterion cannot be computed near any start.
    """
    best: tuple[float, NDArray[np.float64], _Profile] | None = None
    for start in _starts(kernel) if near is None else [near]:
        profile = _Profile(kernel, control, watch)
        found, psi = _descend(profile, start)
        if found < IMPOSSIBLE and (best is None or found < best[0] - 1e-7):
            best = (found, psi, profile)
    if best is None:
        raise FitError("the criterion could not be computed for any start of the residual parameters.")
    _, psi, profile = best
    if np.abs(psi).max(initial=0.0) < FARTHEST - 1.0:
        psi = _polish(profile, psi)
    profile(psi)
    assert profile.optimum is not None
    return profile.optimum, psi


def _starts(kernel: ResidualKernel) -> list[NDArray[np.float64]]:
    zero = kernel.rows.unconstrained(np.ones(kernel.rows.n_strata - 1), 0.0)
    if kernel.rows.kind == "independent":
        return [zero]
    starts = []
    for shift in STARTS[: 3 if kernel.rows.kind == "ar1" else 2]:
        start = zero.copy()
        start[-1] += shift
        starts.append(start)
    return starts


def _descend(profile: _Profile, start: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    from scipy.optimize import minimize

    bounds = [(-FARTHEST, FARTHEST)] * len(start)
    found = minimize(profile, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"gtol": 1e-5, "ftol": 1e-13})
    return float(found.fun), np.asarray(found.x)


def _polish(profile: _Profile, psi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take Newton steps, which end at the limit of the gradient's accuracy."""
    value, gradient = profile(psi)
    hessian = np.empty((len(psi), len(psi)))
    for j in range(len(psi)):
        ends = []
        for sign in (1.0, -1.0):
            point = psi.copy()
            point[j] += sign * WIDTH
            ends.append(profile(point)[1])
        hessian[j] = (ends[0] - ends[1]) / (2.0 * WIDTH)
    hessian = 0.5 * (hessian + hessian.T)
    if len(psi) == 0 or np.linalg.eigvalsh(hessian).min() <= 1e-8:
        return psi
    for _ in range(NEWTON_STEPS):
        moved = psi - np.linalg.solve(hessian, gradient)
        new_value, new_gradient = profile(moved)
        if not (np.abs(moved - psi).max() < 0.5 and new_value <= value + 1e-9 * abs(value)):
            break
        psi, value, gradient = moved, new_value, new_gradient
    return psi


# --- how sure we are -----------------------------------------------------------------------------------------------


def residual_covariance(residual: ResidualFit, solution: Solution, *, reml: bool) -> NDArray[np.float64]:
    """Return the asymptotic covariance of (theta, sigma, psi), from the Hessian of the unprofiled deviance.

    Parameters
    ----------
    residual : ResidualFit
        Residual parameters.
    solution : Solution
        The optimum.
    reml : bool
        Whether the criterion is REML.

    Returns
    -------
    ndarray (m + 1 + k, m + 1 + k)
        NaN in the rows and columns of parameters on the boundary.
    """
    theta, psi, m = solution.theta, residual.psi, len(solution.theta)
    moving = Moving(residual.kernel)
    model = moving.at(psi)
    dof = model.n_rows - (model.products.n_fixed if reml else 0)
    fixed = np.append(on_boundary(model, theta), np.abs(psi) > FARTHEST - 1.0)
    free = np.flatnonzero(~fixed)
    point = np.append(theta, psi)

    def slopes(at: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        own = moving.at(at[m:])
        by_theta = criterion_and_gradient(at[:m], own, reml=reml)[1]
        squares = solve(at[:m], own, reml=reml).pwrss
        return np.append(by_theta, partial(moving, at[:m], at[m:], reml)), float(np.log(squares))

    hessian, slope = np.zeros((len(free), len(free))), np.zeros(len(free))
    for row, j in enumerate(free):
        step = 10 * STEP * max(1.0, abs(point[j]))
        up, down = point.copy(), point.copy()
        up[j] += step
        down[j] -= step
        (high, log_high), (low, log_low) = slopes(up), slopes(down)
        hessian[row] = (high - low)[free] / (2 * step)
        slope[row] = (log_high - log_low) / (2 * step)
    joint = np.zeros((len(free) + 1, len(free) + 1))
    joint[:-1, :-1] = (hessian + hessian.T) / 2 + dof * np.outer(slope, slope)
    joint[:-1, -1] = joint[-1, :-1] = -dof * slope
    joint[-1, -1] = dof
    scale = np.append(np.ones(len(free)), solution.sigma / 2)
    keep = np.append(np.where(free < m, free, free + 1), m)
    covariance = np.full((len(point) + 1, len(point) + 1), np.nan)
    covariance[np.ix_(keep, keep)] = 2 * np.linalg.inv(joint) * np.outer(scale, scale)
    return covariance


def residual_satterthwaite(
    residual: ResidualFit, kernel: LmmKernel, solution: Solution, parameter_cov: NDArray[np.float64]
) -> Satterthwaite:
    """Compute how the covariance of the coefficients moves with theta, sigma and psi.

    Parameters
    ----------
    residual : ResidualFit
        Residual parameters.
    kernel : LmmKernel
        The kernel at their estimates.
    solution : Solution
        The optimum.
    parameter_cov : ndarray (m + 1 + k, m + 1 + k)
        Asymptotic covariance of (theta, sigma, psi).

    Returns
    -------
    Satterthwaite
        Degrees of freedom that honour the uncertainty of the residual parameters too.
    """
    theta, sigma, m = solution.theta, solution.sigma, len(solution.theta)
    moving = Moving(residual.kernel)
    free = np.flatnonzero(~np.isnan(np.diag(parameter_cov)))
    vcov = solution.vcov

    def scaled(at_theta: NDArray[np.float64], at_psi: NDArray[np.float64]) -> NDArray[np.float64]:
        found = solve(at_theta, moving.at(at_psi))
        return found.vcov * (sigma / found.sigma) ** 2

    slopes = np.empty((len(free), *vcov.shape))
    for row, j in enumerate(free):
        if j == m:
            slopes[row] = 2 * vcov / sigma
            continue
        ends = []
        for sign in (1.0, -1.0):
            at_theta, at_psi = theta.copy(), residual.psi.copy()
            step = STEP * max(1.0, abs(theta[j] if j < m else residual.psi[j - m - 1]))
            if j < m:
                at_theta[j] += sign * step
            else:
                at_psi[j - m - 1] += sign * step
            ends.append(scaled(at_theta, at_psi))
        slopes[row] = (ends[0] - ends[1]) / (2 * step)
    return Satterthwaite(vcov, slopes, parameter_cov[np.ix_(free, free)])
