"""A REML or ML fit in ArviZ's container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.datatree import posterior_dataset, sd_and_corr

if TYPE_CHECKING:
    import xarray as xr

    from bayeslmm.frequentist.lmm_fit import LmmFit


def fit_to_datatree(fit: LmmFit, draws: int = 1000, seed: int = 0) -> xr.DataTree:
    """Return draws of coefficients and group effects given the estimated variance parameters.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    draws : int, default 1000
        How many, in one chain.
    seed : int, default 0
        Seed of the draws.

    Returns
    -------
    xarray.DataTree
        Groups `posterior` and `observed_data`; the attribute `note` says what the draws leave out.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> fit_to_datatree(fit)["posterior"]["b_Batch"].shape
    (1, 1000, 6, 1)
    """
    import xarray as xr

    beta, effects = fit.solution.draws(np.random.default_rng(seed), draws)
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
        sigma=np.full((1, draws), fit.sigma),
    )
    posterior.attrs["note"] = f"draws given the {fit.engine} estimates of the variance parameters, held fixed"
    if fit.design.condensation is not None:
        return xr.DataTree.from_dict({"posterior": posterior})  # the rows stay in their source
    observed = xr.Dataset({"y": (("obs",), fit.design.y)}, coords={"obs": fit.design.rows})
    return xr.DataTree.from_dict({"posterior": posterior, "observed_data": observed})
