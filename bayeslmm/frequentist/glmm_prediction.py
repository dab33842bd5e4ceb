"""Expected responses, averages over group effects, random responses and draws of a generalised fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.datatree import posterior_dataset, sd_and_corr
from bayeslmm.families import LINKS, Family
from bayeslmm.predict import NODES, WEIGHTS, included_factors

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.frequentist.glmm_fit import GlmmFit


def category_probabilities(
    family: Family, eta: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probability of each category of an ordered response.

    Parameters
    ----------
    family : Family
        An ordered family with its link.
    eta : ndarray (...)
        Linear predictor.
    thresholds : ndarray (C - 1,) or (S, C - 1)
        Increasing; one set per draw when two-dimensional, draws being the first axis of `eta`.

    Returns
    -------
    ndarray (..., C)

    Examples
    --------
    >>> from bayeslmm.families import as_family
    >>> category_probabilities(as_family("cumulative"), np.array([0.0]), np.array([-1.0, 1.0])).round(3)
    array([[0.269, 0.462, 0.269]])
    """
    eta = np.asarray(eta, dtype=np.float64)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.ndim == 2:
        thresholds = thresholds.reshape(thresholds.shape[0], *[1] * (eta.ndim - 1), -1)
    below = LINKS[family.link].inverse(thresholds - eta[..., None])
    ends = np.concatenate([np.zeros((*eta.shape, 1)), below, np.ones((*eta.shape, 1))], axis=-1)
    return np.diff(ends, axis=-1)


def expected_response(family: Family, eta: NDArray[np.float64], aux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the expected response of a linear predictor; category probabilities for an ordered family.

    Parameters
    ----------
    family : Family
        Response family with its link.
    eta : ndarray
        Linear predictor.
    aux : ndarray (a,)
        Thresholds of an ordered family; not used otherwise.

    Returns
    -------
    ndarray
        Shaped like `eta`, with a last axis of categories for an ordered family.
    """
    return category_probabilities(family, eta, aux) if family.name == "cumulative" else family.inverse_link(eta)


def integrated_mean(
    family: Family, eta: NDArray[np.float64], variance: NDArray[np.float64] | None, aux: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the expected response averaged over a normal part of the linear predictor, by Gauss-Hermite quadrature.

    Parameters
    ----------
    family : Family
        Response family with its link.
    eta : ndarray (n,)
        Mean of the linear predictor.
    variance : ndarray (n,) or None
        Variance of the normal part; nothing to average over when None.
    aux : ndarray (a,)
        Thresholds of an ordered family.

    Returns
    -------
    ndarray (n,) or (n, C)

    Examples
    --------
    >>> from bayeslmm.families import as_family
    >>> round(float(integrated_mean(as_family("poisson"), np.zeros(1), np.ones(1), np.zeros(0))[0]), 6)
    1.648721
    """
    if variance is None:
        return expected_response(family, eta, aux)
    shifted = eta + NODES[:, None] * np.sqrt(variance)
    return np.tensordot(WEIGHTS, expected_response(family, shifted, aux), axes=1)


def effect_variance(
    fit: GlmmFit, design: Design, include: Sequence[str] | None, *, only_new: bool
) -> NDArray[np.float64]:
    """Return the variance that group effects give each row's linear predictor.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    design : Design
        The rows.
    include : sequence of str, optional
        Grouping factors that count; all when absent.
    only_new : bool
        Count only levels that the fitted data did not hold.

    Returns
    -------
    ndarray (n,)
    """
    covariances = fit.effect_covariances()
    total = np.zeros(len(design.X))
    for factor in included_factors(design, include):
        part = np.einsum("nk,kl,nl->n", factor.Z, covariances[factor.name], factor.Z)
        total += np.where(factor.codes >= len(factor.levels), part, 0.0) if only_new else part
    return total


def response_draws(
    family: Family,
    rng: np.random.Generator,
    eta: NDArray[np.float64],
    aux: NDArray[np.float64],
    trials: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Draw responses given linear predictors.

    Parameters
    ----------
    family : Family
        Response family with its link.
    rng : numpy Generator
        Source.
    eta : ndarray (S, n)
        Linear predictors.
    aux : ndarray (a,)
        Log of the family's own parameter, or thresholds.
    trials : ndarray (n,) or None
        Number of trials.

    Returns
    -------
    ndarray (S, n)
        Proportions for binomial families, category codes for ordered ones.
    """
    if family.name == "cumulative":
        upper = np.cumsum(category_probabilities(family, eta, aux), axis=-1)[..., :-1]
        return (rng.uniform(size=eta.shape)[..., None] > upper).sum(axis=-1).astype(np.float64)
    phi = np.exp(aux[0]) if len(aux) else 1.0
    return family.draw(rng, family.inverse_link(eta), phi, 1.0 if trials is None else trials)


def fit_to_datatree(fit: GlmmFit, draws: int = 1000, seed: int = 0) -> xr.DataTree:
    """Return draws of coefficients and group effects given the estimated covariance parameters.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    draws : int, default 1000
        How many, in one chain.
    seed : int, default 0
        Seed of the draws.

    Returns
    -------
    xarray.DataTree
        Groups `posterior` and `observed_data`; the attribute `note` says what the draws leave out.
    """
    import xarray as xr

    beta, effects = fit.solution.draws(np.random.default_rng(seed), draws, fit.vcov.to_numpy())
    sd, corr = {}, {}
    for name, covariance in fit.effect_covariances().items():
        sds, correlations = sd_and_corr(covariance)
        sd[name] = np.broadcast_to(sds, (1, draws, *sds.shape))
        if len(sds) > 1:
            corr[name] = np.broadcast_to(correlations, (1, draws, *correlations.shape))
    posterior = posterior_dataset(
        fit.design,
        beta=beta[None],
        sd=sd,
        corr=corr,
        effects={factor.name: values[None] for factor, values in zip(fit.design.factors, effects, strict=True)},
        sigma=np.full((1, draws), fit.sigma) if fit.family == "gaussian" else None,
    )
    if fit.kernel.n_aux and fit.family not in ("gaussian", "cumulative"):
        posterior[fit.response_family.parameter] = (("chain", "draw"), np.full((1, draws), fit.phi))
    posterior.attrs["note"] = f"draws given the {fit.engine} estimates of the covariance parameters, held fixed"
    if fit.design.condensation is not None:
        return xr.DataTree.from_dict({"posterior": posterior})  # the rows stay in their source
    observed = xr.Dataset({"y": (("obs",), fit.design.y)}, coords={"obs": fit.design.rows})
    return xr.DataTree.from_dict({"posterior": posterior, "observed_data": observed})
