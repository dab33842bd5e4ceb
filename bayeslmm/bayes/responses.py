"""New responses and log densities of rows, given draws of the linear predictor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import DataError, listing
from bayeslmm.formula.design import refuse_survey_weights
from bayeslmm.formula.residuals import refuse
from bayeslmm.likelihood.residual import ResidualRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Design
    from bayeslmm.formula.response import Limits


def parameter_values(post: Posterior, design: Design, name: str, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return draws of a further parameter of the family: one number for all rows, or what its formula makes of each.

    Parameters
    ----------
    post : Posterior
        Draws.
    design : Design
        The rows.
    name : str
        The parameter: "sigma", "alpha", ...
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, 1) or (S, n)
        Values.
    """
    part = design.auxiliary.get(name)
    if part is None:
        return post.draws(name)[chosen, None]
    from bayeslmm.families import LINKS, auxiliary_link

    eta = post.draws(f"{name}_beta")[chosen] @ part.X.T
    return LINKS[auxiliary_link(name)].inverse(eta if part.offset is None else eta + part.offset)


def residual_scale(post: Posterior, design: Design, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the residual SD of each draw and row.

    Parameters
    ----------
    post : Posterior
        Draws of sigma.
    design : Design
        Prior weights of the rows.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, 1) or (S, n)
        Residual SDs.
    """
    sigma = parameter_values(post, design, "sigma", chosen)
    if post.design.residuals is not None and post.design.residuals.levels:
        if design.residuals is None:
            raise DataError(
                f"the residual SD of new rows depends on {post.design.residuals.spec.by!r}, which they do not have."
            )
        ratios = post.draws("sigma_ratio")[chosen]
        sigma = sigma * np.column_stack([np.ones(len(ratios)), ratios])[:, design.residuals.strata]
    return sigma if design.weights is None else sigma / np.sqrt(design.weights)


def mean_residual_variance(post: Posterior) -> NDArray[np.float64]:
    """Return draws (S,) of the residual variance, averaged over the fitted rows.

    Parameters
    ----------
    post : Posterior
        A Gaussian posterior.

    Returns
    -------
    ndarray (S,)
        Variances.
    """
    weights = np.ones(post.design.n) if post.design.weights is None else post.design.weights
    if "sigma" in post.design.auxiliary:
        parts = np.array_split(np.arange(post.n_draws), max(1, post.n_draws // 100))
        return np.concatenate([np.square(residual_scale(post, post.design, part)).mean(axis=1) for part in parts])
    variance = np.square(post.draws("sigma"))
    structure = post.design.residuals
    if structure is None or not structure.levels:
        return variance * float(np.mean(1 / weights))
    shares = np.bincount(structure.strata, 1 / weights, minlength=len(structure.levels)) / post.design.n
    return variance * (shares[0] + np.square(post.draws("sigma_ratio")) @ shares[1:])


def residual_noise(
    post: Posterior, design: Design, chosen: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return random residuals (S, n), correlated within groups where the model says so.

    Parameters
    ----------
    post : Posterior
        Draws of sigma, ratios and correlation.
    design : Design
        The rows.
    chosen : ndarray (S,)
        Positions of the draws.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    ndarray (S, n)
        In units of the response.
    """
    noise = rng.standard_normal((len(chosen), design.n))
    scale = residual_scale(post, design, chosen)
    fitted = post.design.residuals
    if fitted is None or fitted.spec.kind == "independent":
        return scale * noise
    if design.residuals is None:
        raise DataError(
            f"the residuals of new rows depend on {listing(map(repr, fitted.spec.columns))}, which they do not have."
        )
    lowest = ResidualRows.from_design(post.design).lowest
    one_stratum = np.zeros(design.n, dtype=np.int64)
    rows = replace(ResidualRows.from_design(design, lowest), n_strata=1, strata=one_stratum)
    for i, rho in enumerate(post.draws("rho")[chosen]):
        noise[i] = rows.colour(noise[i], rows.unconstrained([], float(rho)))
    return scale * noise


def simulate(
    post: Posterior,
    design: Design,
    eta: NDArray[np.float64],
    chosen: NDArray[np.intp],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return new responses for draws of the linear predictor.

    Parameters
    ----------
    post : Posterior
        Draws of the other parameters.
    design : Design
        The rows.
    eta : ndarray (S, n)
        Linear predictor.
    chosen : ndarray (S,)
        Positions of the draws.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    ndarray (S, n)
        Responses.
    """
    if post.response.is_gaussian_identity:
        if design.limits is not None and design.limits.kind == "truncated":
            scale = residual_scale(post, design, chosen)
            from scipy.stats import truncnorm

            lower, upper = ((bound - eta) / scale for bound in (design.limits.lower, design.limits.upper))
            return eta + scale * np.asarray(truncnorm.rvs(lower, upper, size=eta.shape, random_state=rng))
        return eta + residual_noise(post, design, chosen, rng)
    from bayeslmm.bayes.bambi import simulate_bambi

    return simulate_bambi(post, design, eta, chosen, rng)


def log_density_of_rows(
    post: Posterior, design: Design, eta: NDArray[np.float64], chosen: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the log density of each row's response for draws of the linear predictor.

    Parameters
    ----------
    post : Posterior
        Draws of the other parameters.
    design : Design
        The rows.
    eta : ndarray (S, n)
        Linear predictor.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, n)
        Log densities.
    """
    refuse_survey_weights(post.design, "loo()", "Compare the models without the weights.")
    if post.response.is_gaussian_identity:
        refuse(
            design.residuals, "the log density of single rows (loo(), log_likelihood())",
            "Rows of one group are correlated: none can be left out alone. Compare ML fits by AIC.",
            correlated_only=True,
        )  # fmt: skip
        scale = residual_scale(post, design, chosen)
        if design.limits is not None:
            return cut_normal_density(np.asarray(design.y), eta, scale, design.limits)
        return -0.5 * np.square((np.asarray(design.y) - eta) / scale) - np.log(scale) - 0.5 * np.log(2 * np.pi)
    from bayeslmm.bayes.bambi import log_density_bambi

    return log_density_bambi(post, design, eta, chosen)


def cut_normal_density(
    y: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64], limits: Limits
) -> NDArray[np.float64]:
    """Return the log density of censored or truncated normal responses.

    Parameters
    ----------
    y : ndarray (n,)
        Responses.
    mean : ndarray (S, n)
        Means before anything is cut off.
    scale : ndarray (S, 1) or (S, n)
        Standard deviations.
    limits : Limits
        Where they are cut off.

    Returns
    -------
    ndarray (S, n)
        Log densities; log probabilities of lying beyond where a response is censored.
    """
    from scipy.stats import norm

    inside = norm.logpdf(y, mean, scale)
    if limits.kind == "censored":
        left, right = np.isfinite(limits.lower), np.isfinite(limits.upper)
        return np.asarray(
            np.where(left, norm.logcdf(y, mean, scale), np.where(right, norm.logsf(y, mean, scale), inside))
        )
    lower, upper = ((bound - mean) / scale for bound in (limits.lower, limits.upper))
    # In the tail on whichever side is nearer, so that the difference keeps its digits.
    flipped = lower > 0
    a, b = np.where(flipped, -upper, lower), np.where(flipped, -lower, upper)
    mass = norm.logcdf(b) + np.log1p(-np.exp(norm.logcdf(a) - norm.logcdf(b)))
    return np.asarray(inside - mass)
