"""Standard errors of variance parameters: Hessian in (theta, sigma), delta method for SDs and correlations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.likelihood.lmm import LmmKernel, Solution, criterion_and_gradient, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.likelihood.covariance import Covariance, Layout

BOUNDARY = 1e-4
STEP = 1e-4


@dataclass(frozen=True)
class VarianceParameters:
    """Standard deviations, correlations and sigma, with standard errors on their working scales.

    Parameters
    ----------
    names : tuple of str
        ``sd_<factor>[<effect>]``, ``corr_<factor>[<effect>,<effect>]``, ``sigma``.
    kinds : tuple of str
        "sd", "corr" or "sigma".
    estimates : ndarray (v,)
        On the natural scale.
    working_se : ndarray (v,)
        Standard errors of log SD and of Fisher's z; NaN on the boundary.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    estimates: NDArray[np.float64]
    working_se: NDArray[np.float64]

    def frame(self, z: float) -> pd.DataFrame:
        """Return estimates, standard errors and Wald intervals made on the working scales.

        Parameters
        ----------
        z : float
            Normal quantile of the interval.

        Returns
        -------
        DataFrame
            Columns `kind`, `estimate`, `se`, `lower`, `upper`.
        """
        estimate, working = self.estimates, self.working_se
        is_corr = np.array([kind == "corr" for kind in self.kinds])
        with np.errstate(divide="ignore", invalid="ignore"):
            fisher = np.arctanh(np.where(is_corr, estimate, 0.0))
            se = np.where(is_corr, (1 - estimate**2) * working, estimate * working)
            lower = np.where(is_corr, np.tanh(fisher - z * working), estimate * np.exp(-z * working))
            upper = np.where(is_corr, np.tanh(fisher + z * working), estimate * np.exp(z * working))
        return pd.DataFrame(
            {"kind": list(self.kinds), "estimate": estimate, "se": se, "lower": lower, "upper": upper},
            index=list(self.names),
        )


def variance_parameter_covariance(kernel: LmmKernel, solution: Solution, *, reml: bool) -> NDArray[np.float64]:
    """Return the asymptotic covariance of (theta, sigma): twice the inverse Hessian of the unprofiled deviance.

    With N = n (ML) or n - p (REML) and s = log sigma², the deviance is ``L(theta) + N s + r²(theta) exp(-s)``.
    Its Hessian at the optimum follows from that of the profiled criterion and the gradient of log r².

    Parameters
    ----------
    kernel : LmmKernel
        The kernel.
    solution : Solution
        The optimum.
    reml : bool
        Whether the criterion is REML.

    Returns
    -------
    ndarray (m + 1, m + 1)
        NaN in the rows and columns of parameters on the boundary.

    References
    ----------
    Bates et al. (2015), equations 34 and 41, before profiling sigma out.
    """
    theta = solution.theta
    dof = kernel.n_rows - (kernel.products.n_fixed if reml else 0)
    free = np.flatnonzero(~on_boundary(kernel, theta))
    hessian = np.zeros((len(free), len(free)))
    slope = np.zeros(len(free))
    for row, j in enumerate(free):
        step = STEP * max(1.0, abs(theta[j]))
        up, down = theta.copy(), theta.copy()
        up[j] += step
        down[j] -= step
        gradients = [criterion_and_gradient(point, kernel, reml=reml)[1] for point in (up, down)]
        hessian[row] = (gradients[0] - gradients[1])[free] / (2 * step)
        slope[row] = np.log(solve(up, kernel, reml=reml).pwrss / solve(down, kernel, reml=reml).pwrss) / (2 * step)
    joint = np.zeros((len(free) + 1, len(free) + 1))
    joint[:-1, :-1] = (hessian + hessian.T) / 2 + dof * np.outer(slope, slope)
    joint[:-1, -1] = joint[-1, :-1] = -dof * slope
    joint[-1, -1] = dof
    covariance = np.full((len(theta) + 1, len(theta) + 1), np.nan)
    scale = np.ones(len(free) + 1)
    scale[-1] = solution.sigma / 2
    keep = np.append(free, len(theta))
    covariance[np.ix_(keep, keep)] = 2 * np.linalg.inv(joint) * np.outer(scale, scale)
    return covariance


def on_boundary(kernel: LmmKernel, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which elements of theta sit at a bound, whatever the units of the predictors.

    Parameters
    ----------
    kernel : LmmKernel
        Order and bounds of theta, and the columns of the random terms.
    theta : ndarray (m,)
        The point.

    Returns
    -------
    ndarray (m,) of bool
        True at the bound.
    """
    layout = kernel.layout
    scale = layout.gather(
        [
            _theta_scale(covariance, kernel.products.source.Z[factor][:, columns], kernel.n_rows)
            for covariance, factor, columns in zip(
                layout.covariances, layout.term_factor, layout.term_columns, strict=True
            )
        ]
    )
    return ((theta - layout.lower) * scale < BOUNDARY) | (layout.upper - theta < BOUNDARY)


def _theta_scale(covariance: Covariance, Z: NDArray[np.float64], n_rows: int) -> NDArray[np.float64]:
    """Return how far one unit of each parameter moves the linear predictor (m,)."""
    size = np.sqrt((Z * Z).sum(axis=0) / n_rows)
    moved = np.abs(covariance.dLambda(covariance.start())) * size[:, None]
    return np.where(np.isfinite(covariance.upper), 1.0, moved.max(axis=(1, 2)))


def variance_parameters(
    design: Design,
    layout: Layout,
    theta: NDArray[np.float64],
    sigma: float,
    covariance: NDArray[np.float64],
) -> VarianceParameters:
    """Return SDs, correlations and sigma with delta-method standard errors.

    Parameters
    ----------
    design : Design
        Names of factors and effects.
    layout : Layout
        Order of theta.
    theta : ndarray (m,)
        Relative covariance parameters.
    sigma : float
        Residual SD.
    covariance : ndarray (m + 1, m + 1)
        Of (theta, sigma), NaN on the boundary.

    Returns
    -------
    VarianceParameters
        In the order of the design's terms, sigma last.
    """
    names, kinds = parameter_names(design, layout)
    fixed = np.isnan(np.diag(covariance))
    free = np.flatnonzero(~fixed)
    point = np.append(np.where(fixed[:-1] & np.isfinite(layout.lower), np.maximum(layout.lower, 0.0), theta), sigma)
    natural = natural_parameters(layout, point)
    working = _working(natural, kinds)
    jacobian = np.zeros((len(natural), len(free)))
    for column, j in enumerate(free):
        step = 1e-6 * max(1.0, abs(point[j]))
        up, down = point.copy(), point.copy()
        up[j] += step
        down[j] -= step
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = [_working(natural_parameters(layout, end), kinds) for end in (up, down)]
            jacobian[:, column] = (ends[0] - ends[1]) / (2 * step)
    with np.errstate(invalid="ignore"):
        variance = np.einsum("ij,jk,ik->i", jacobian, covariance[np.ix_(free, free)], jacobian)
    se = np.where(np.isfinite(working), np.sqrt(np.maximum(variance, 0.0)), np.nan)
    return VarianceParameters(names, kinds, natural, se)


def parameter_names(design: Design, layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and kinds of the variance parameters: SDs, then correlations, term by term, then sigma.

    Parameters
    ----------
    design : Design
        Names of factors and effects.
    layout : Layout
        Which terms are correlated.

    Returns
    -------
    names, kinds : tuple of str
        Of equal length.
    """
    names: list[str] = []
    kinds: list[str] = []
    for term, covariance in zip(design.terms, layout.covariances, strict=True):
        names += [f"sd_{term.factor}[{label}]" for label in term.sd_labels]
        kinds += ["sd"] * len(term.effects)
        if covariance.is_correlated:
            pairs = [f"corr_{term.factor}[{a},{b}]" for a, b in combinations(term.effects, 2)]
            names += pairs
            kinds += ["corr"] * len(pairs)
    return (*names, "sigma"), (*kinds, "sigma")


def natural_parameters(layout: Layout, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard deviations and correlations, term by term, and sigma, in the order of `parameter_names`.

    Parameters
    ----------
    layout : Layout
        Order of theta.
    point : ndarray (m + 1,)
        Theta and sigma.

    Returns
    -------
    ndarray (v,)
        In units of the response; a correlation with an effect of zero variance is not a number.

    Examples
    --------
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> natural_parameters(Layout((Covariance("us", 1),), (0,), (5,)), np.array([0.5, 2.0]))
    array([1., 2.])
    """
    theta, sigma = point[:-1], point[-1]
    values: list[float] = []
    for covariance, where in zip(layout.covariances, layout.theta_slices, strict=True):
        sd, corr = covariance.sd_corr(theta[where])
        values += list(sigma * sd)
        if covariance.is_correlated:
            values += [corr[i, j] for i, j in combinations(range(len(sd)), 2)]
    return np.array([*values, sigma])


def _working(natural: NDArray[np.float64], kinds: tuple[str, ...]) -> NDArray[np.float64]:
    is_corr = np.array([kind == "corr" for kind in kinds])
    with np.errstate(divide="ignore", invalid="ignore"):
        near_one = np.abs(natural) > 1 - 1e-8
        fisher = np.where(near_one, np.inf, np.arctanh(np.where(is_corr & ~near_one, natural, 0.0)))
        return np.where(is_corr, fisher, np.log(np.where(natural > 0, natural, 0.0)))
