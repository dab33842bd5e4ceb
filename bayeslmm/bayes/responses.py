"""New responses and log densities of rows, given draws of the linear predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Design


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
    sigma = post.draws("sigma")[chosen, None]
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
        return eta + residual_scale(post, design, chosen) * rng.standard_normal(eta.shape)
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
        return -0.5 * np.square((np.asarray(design.y) - eta) / scale) - np.log(scale) - 0.5 * np.log(2 * np.pi)
    from bayeslmm.bayes.bambi import log_density_bambi

    return log_density_bambi(post, design, eta, chosen)
