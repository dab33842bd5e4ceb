"""New responses and log densities of rows, given draws of the linear predictor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import DataError, listing
from bayeslmm.formula.residuals import refuse
from bayeslmm.likelihood.residual import ResidualRows

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
    if post.response.is_gaussian_identity:
        refuse(
            design.residuals, "the log density of single rows (loo(), log_likelihood())",
            "Rows of one group are correlated: none can be left out alone. Compare ML fits by AIC.",
            correlated_only=True,
        )  # fmt: skip
        scale = residual_scale(post, design, chosen)
        return -0.5 * np.square((np.asarray(design.y) - eta) / scale) - np.log(scale) - 0.5 * np.log(2 * np.pi)
    from bayeslmm.bayes.bambi import log_density_bambi

    return log_density_bambi(post, design, eta, chosen)
