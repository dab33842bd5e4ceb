"""New responses and log densities of rows, given draws of the linear predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
    return sigma if design.weights is None else sigma / np.sqrt(design.weights)


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
        scale = residual_scale(post, design, chosen)
        if design.limits is not None and design.limits.kind == "truncated":
            from scipy.stats import truncnorm

            lower, upper = ((bound - eta) / scale for bound in (design.limits.lower, design.limits.upper))
            return eta + scale * np.asarray(truncnorm.rvs(lower, upper, size=eta.shape, random_state=rng))
        return eta + scale * rng.standard_normal(eta.shape)
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
    if post.response.is_gaussian_identity:
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
