"""Profile-likelihood intervals of generalised fits: where the deviance, all else at its best, has risen far enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import optimize, stats

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.frequentist.glmm_search import GRADIENT_STEP
from bayeslmm.likelihood.descent import bfgs
from bayeslmm.likelihood.quadrature import adaptive_loglik

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.frequentist.glmm_fit import GlmmFit

WIDEST = 12.0
"""Farthest end of an interval that is looked for, in standard errors."""


def profile_intervals(fit: GlmmFit, level: float, parameters: str | Sequence[str] | None) -> pd.DataFrame:
    """Return profile-likelihood intervals of coefficients and of the standard deviations of scalar terms.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    level : float
        Coverage.
    parameters : str or sequence of str, optional
        Which; all coefficients and scalar standard deviations when absent.

    Returns
    -------
    DataFrame
        Columns `lower` and `upper`; infinite where the likelihood never drops far enough.

    Raises
    ------
    DataError
        If a parameter is not there, or has no profile here.

    References
    ----------
    Venzon & Moolgavkar (1988), *Applied Statistics* 37(1).
    """
    known = _positions(fit)
    wanted = list(known) if parameters is None else [parameters] if isinstance(parameters, str) else list(parameters)
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            raise DataError(f"there is no profile of {name!r}.\n  Profiles: {listing(known)}. {hint}".rstrip())
    rows = [_interval(fit, known[name], float(stats.chi2.ppf(level, 1))) for name in wanted]
    return pd.DataFrame(rows, index=pd.Index(wanted, name="parameter"), columns=["lower", "upper"])


def _positions(fit: GlmmFit) -> dict[str, int]:
    """Return the place of each parameter with a profile in (theta, beta, aux)."""
    layout, m = fit.kernel.layout, len(fit.theta)
    found = {name: m + i for i, name in enumerate(fit.design.coef_names)}
    for term, covariance, where in zip(fit.design.terms, layout.covariances, layout.theta_slices, strict=True):
        if term.term.structure is not None:
            found[f"sd_{term.factor}[Intercept]"] = where.start
        elif covariance.kind == "diag" or covariance.k == 1:
            for i, effect in enumerate(term.effects if covariance.n_theta == covariance.k else ()):
                found[f"sd_{term.factor}[{effect}]"] = where.start + i
    return found


def _interval(fit: GlmmFit, position: int, rise: float) -> tuple[float, float]:
    kernel, m, p = fit.kernel, len(fit.theta), len(fit.optimum.beta)
    estimate = np.concatenate([fit.theta, fit.optimum.beta, fit.optimum.aux])
    covariance = np.where(np.isfinite(fit.optimum.covariance), fit.optimum.covariance, 0.0)
    se = np.sqrt(np.diag(covariance))
    se = np.where(se > 0, se, 0.1)
    others = np.delete(np.arange(len(estimate)), position)
    inverse = 0.5 * np.diag(se[others] ** 2)
    points = fit.optimum.quadrature

    def deviance(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta, beta, aux = x[:m], x[m : m + p], x[m + p :]
        found = kernel.evaluate(theta, kernel.whiten(beta), aux)
        slope = np.concatenate([found.theta, kernel.R0.T @ found.beta, found.aux])
        return (-2 * found.value, -2 * slope) if np.isfinite(found.value) else (np.inf, np.zeros(len(x)))

    def by_quadrature(x: NDArray[np.float64]) -> float:
        return -2 * adaptive_loglik(kernel, x[:m], kernel.whiten(x[m : m + p]), x[m + p :], points)

    warm = estimate[others].copy()

    def excess(value: float) -> float:
        def reduced(rest: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            x = np.insert(rest, position, value)
            if points <= 1:
                level, slope = deviance(x)
                return level, slope[others]
            moves = GRADIENT_STEP * 10 * se[others]
            steps = np.eye(len(x))[others] * moves[:, None]
            slope = np.array([by_quadrature(x + step) - by_quadrature(x - step) for step in steps]) / (2 * moves)
            return by_quadrature(x), slope

        found = bfgs(reduced, warm, inverse, 1e-7, 200)
        if np.isfinite(found.value):
            warm[:] = found.x
        return found.value - fit.criterion - rise

    ends = []
    lowest = 0.0 if position < m else -np.inf
    for sign in (-1.0, 1.0):
        warm[:] = estimate[others]
        ends.append(_crossing(excess, estimate[position], sign * se[position], lowest, np.sqrt(rise)))
    return ends[0], ends[1]


def _crossing(excess, centre: float, se: float, lowest: float, start: float) -> float:  # type: ignore[no-untyped-def]
    """Return where the deviance has risen far enough, on the side that `se` points to."""
    inside, reach = centre, start
    while reach < WIDEST * start:
        outside = max(centre + reach * se, lowest)
        if excess(outside) > 0:
            return float(optimize.brentq(excess, inside, outside, xtol=1e-4 * abs(se), rtol=1e-10))
        if outside == lowest:
            return lowest
        inside, reach = outside, 1.5 * reach
    return float(np.copysign(np.inf, se))
