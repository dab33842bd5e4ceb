"""Where the variance of a generalised response comes from, on the scale of the linear predictor and on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError
from bayeslmm.frequentist.glmm_prediction import integrated_mean
from bayeslmm.report.variance_partition import VariancePartition, variance_partition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.frequentist.estimated import QualityScale
    from bayeslmm.frequentist.glmm_fit import GlmmFit

SCALES = ("latent", "observation")
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
STEP = 1e-4
ROWS_AT_ONCE = 20_000
JOINTLY = "jointly"


def check_scale(scale: str) -> None:
    """Refuse a scale that does not exist.

    Parameters
    ----------
    scale : str
        "latent" or "observation".

    Raises
    ------
    DataError
        If it is neither.
    """
    if scale not in SCALES:
        raise DataError(f'scale={scale!r} is not one of "latent", "observation".')


def generalised_partition(fit: GlmmFit, scale: QualityScale = "latent") -> VariancePartition:
    """Split the variance of an average row of a generalised fit into its parts.

    On the latent scale the residual is the variance of the distribution behind a binary response (pi²/3 for the logit
    link), log(1 + V / mu²) for a log link, and V (d eta / d mu)² for other links, V being the variance of a response
    (of a single trial, for proportions) at the average expected response mu. On the observation scale all parts are
    variances of the response: of its expectation over the rows, of that over the group effects (by quadrature), and
    about it. There the parts of several factors do not add up; what is left stands under "jointly".

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    scale : {"latent", "observation"}, default "latent"
        The scale.

    Returns
    -------
    VariancePartition
        The parts.

    Raises
    ------
    DataError
        If there is no such scale, or the variance does not exist there.

    References
    ----------
    Nakagawa, Johnson & Schielzeth (2017), *J. R. Soc. Interface* 14: 20170213; Goldstein, Browne & Rasbash (2002),
    *Understanding Statistics* 1(4); de Villemereuil et al. (2016), *Genetics* 204(3).

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> generalised_partition(fit).shares.round(3).to_dict()
    {'fixed part': 0.085, 'herd': 0.102, 'Residual': 0.813}
    """
    check_scale(scale)
    if scale == "latent":
        parts = variance_partition(fit.design, fit.beta, fit.effect_covariances(), 0.0)
        return replace(parts, residual=latent_residual(fit, *_estimates(fit)))
    _refuse_ordered(fit)
    theta, beta, aux = _estimates(fit)
    names = [factor.name for factor in fit.design.factors]
    own = {name: _between(fit, theta, beta, aux, {name}) for name in names}
    total = _between(fit, theta, beta, aux, set(names))
    if len(names) > 1:
        own[JOINTLY] = total - sum(own.values())
    eta, variances = _rows(fit, theta, beta)
    means = integrated_mean(fit.response_family, eta, _sum(eta, variances), aux)
    fixed = fit.design.moments(means)[1] ** 2
    return VariancePartition(fixed, pd.Series(own, dtype=float), _about(fit, theta, beta, aux))


def correlation_with_se(fit: GlmmFit, shared: set[str], scale: QualityScale) -> tuple[float, float]:
    """Return the correlation of two rows that share levels of some factors, with its standard error.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    shared : set of str
        Names of these factors.
    scale : {"latent", "observation"}
        The scale.

    Returns
    -------
    value, se : float
        By the delta method over all parameters; NaN for a correlation of zero.
    """
    m, p = len(fit.theta), len(fit.beta)
    point = np.concatenate(_estimates(fit))

    def correlation(x: NDArray[np.float64]) -> float:
        return _correlation(fit, x[:m], x[m : m + p], x[m + p :], shared, scale)

    value = correlation(point)
    covariance = fit.optimum.covariance
    free = np.flatnonzero(np.isfinite(np.diag(covariance)) & (np.diag(covariance) > 0))
    free = np.setdiff1d(free, np.flatnonzero(fit.optimum.boundary))
    if value <= 0 or not len(free):
        return value, np.nan
    gradient = _gradient(correlation, point, np.sqrt(np.diag(covariance)), free)
    return value, float(np.sqrt(gradient @ covariance[np.ix_(free, free)] @ gradient))


def latent_residual(
    fit: GlmmFit, theta: NDArray[np.float64], beta: NDArray[np.float64], aux: NDArray[np.float64]
) -> float:
    """Return the variance of a response about its expectation, on the scale of the linear predictor.

    Parameters
    ----------
    fit : GlmmFit
        Rows and family.
    theta, beta, aux : ndarray
        Parameters.

    Returns
    -------
    float
        See `generalised_partition`.
    """
    if fit.family in ("bernoulli", "binomial", "cumulative"):
        return float(fit.response_family.latent_variance(np.array(0.5)))
    eta, variances = _rows(fit, theta, beta)
    means = integrated_mean(fit.response_family, eta, _sum(eta, variances), aux)
    mean = np.array(np.average(means, weights=_counts(fit)))
    return float(fit.response_family.latent_variance(mean, _phi(fit, aux)))


# --- parts ---------------------------------------------------------------------------------------------------------


def _refuse_ordered(fit: GlmmFit) -> None:
    if fit.family == "cumulative":
        raise DataError('the categories of an ordered response have no variance; use scale="latent".')


def _estimates(fit: GlmmFit) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    return fit.theta, fit.beta, fit.optimum.aux


def _phi(fit: GlmmFit, aux: NDArray[np.float64]) -> float:
    return float(np.exp(aux[0])) if len(aux) else 1.0


def _counts(fit: GlmmFit) -> NDArray[np.float64]:
    design = fit.design
    return np.ones(len(design.condensed.X)) if design.condensation is None else design.condensation.counts


def _rows(
    fit: GlmmFit, theta: NDArray[np.float64], beta: NDArray[np.float64]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return the linear predictor of the coefficients and the variance that each factor's effects give it, by row."""
    rows = fit.design.condensed
    eta = rows.X @ beta + (0.0 if rows.offset is None else rows.offset)
    templates = fit.kernel.layout.templates(theta)
    variances = {
        factor.name: np.square(factor.Z @ template).sum(axis=1)
        for factor, template in zip(rows.factors, templates, strict=True)
    }
    return eta, variances


def _sum(eta: NDArray[np.float64], variances: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the variance that several factors give each row together, zero for none."""
    return np.asarray(sum(variances.values(), np.zeros_like(eta)))


def _between(
    fit: GlmmFit, theta: NDArray[np.float64], beta: NDArray[np.float64], aux: NDArray[np.float64], shared: set[str]
) -> float:
    """Return the variance over the effects of some factors of the response's expectation, the others averaged over."""
    family, counts = fit.response_family, _counts(fit)
    eta, variances = _rows(fit, theta, beta)
    inner = _sum(eta, {name: values for name, values in variances.items() if name in shared})
    outer = _sum(eta, variances) - inner
    total = 0.0
    for start in range(0, len(eta), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        given = np.stack(
            [integrated_mean(family, eta[part] + z * np.sqrt(inner[part]), outer[part], aux) for z in NODES]
        )
        mean = WEIGHTS @ given
        total += float(counts[part] @ (WEIGHTS @ np.square(given - mean)))
    return total / float(counts.sum())


def _about(fit: GlmmFit, theta: NDArray[np.float64], beta: NDArray[np.float64], aux: NDArray[np.float64]) -> float:
    """Return the average variance of a response about its expectation given the group effects."""
    family = fit.response_family
    eta, variances = _rows(fit, theta, beta)
    spread = np.sqrt(_sum(eta, variances))
    phi = _phi(fit, aux)
    each = sum(
        weight * family.variance(family.inverse_link(eta + z * spread), phi)
        for z, weight in zip(NODES, WEIGHTS, strict=True)
    )
    return float(np.average(each, weights=_counts(fit)))


def _correlation(
    fit: GlmmFit,
    theta: NDArray[np.float64],
    beta: NDArray[np.float64],
    aux: NDArray[np.float64],
    shared: set[str],
    scale: QualityScale,
) -> float:
    if scale == "latent":
        _, variances = _rows(fit, theta, beta)
        mean = {name: float(np.average(values, weights=_counts(fit))) for name, values in variances.items()}
        within = sum(mean.values()) + latent_residual(fit, theta, beta, aux)
        return sum(mean[name] for name in shared) / within
    _refuse_ordered(fit)
    everything = {factor.name for factor in fit.design.factors}
    total = _between(fit, theta, beta, aux, everything)
    part = total if shared == everything else _between(fit, theta, beta, aux, shared)
    return part / (total + _about(fit, theta, beta, aux))


def _gradient(
    function: Callable[[NDArray[np.float64]], float],
    point: NDArray[np.float64],
    scale: NDArray[np.float64],
    places: Sequence[int] | NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return central differences in some of the coordinates, steps in standard errors."""
    slopes = []
    for j in places:
        step = np.zeros(len(point))
        step[j] = STEP * scale[j]
        slopes.append((function(point + step) - function(point - step)) / (2 * step[j]))
    return np.array(slopes)
