"""Do the priors matter? Log densities of the priors at every draw, and power-scaling sensitivity through ArviZ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bayes.priors import FAMILIES, JOINT, Prior, PriorEntry, is_homogeneous
from bayeslmm.errors import DataError, PriorError, did_you_mean, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from arviz_plots import PlotCollection
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior

PLOTS = {"dist": "plot_psense_dist", "quantities": "plot_psense_quantities"}


def power_scaling(post: Posterior, names: Sequence[str] | None = None, threshold: float = 0.05) -> pd.DataFrame:
    """Return how far the posterior moves when the prior, or the likelihood, is raised to a power near one.

    Parameters
    ----------
    post : Posterior
        The posterior.
    names : sequence of str, optional
        Parameters as printed; all but the group effects when absent.
    threshold : float, default 0.05
        Sensitivity above which ArviZ says so.

    Returns
    -------
    DataFrame
        Columns `prior`, `likelihood`, `diagnosis`; one row per parameter.

    References
    ----------
    Kallioinen, Paananen, Bürkner & Vehtari (2024), *Statistics and Computing* 34, 57.
    """
    from arviz_stats import psense_summary

    chosen = _chosen_names(post, names)
    return pd.DataFrame(psense_summary(density_tree(post), var_names=chosen, threshold=threshold, round_to=6))


def plot_power_scaling(
    post: Posterior, kind: Literal["dist", "quantities"], names: Sequence[str] | None, **options: Any
) -> PlotCollection:
    """Plot posteriors, or their means and SDs, under a prior and a likelihood raised to powers around one, by ArviZ.

    Parameters
    ----------
    post : Posterior
        The posterior.
    kind : {"dist", "quantities"}
        Densities, or means and standard deviations.
    names : sequence of str or None
        Parameters as printed.
    **options : Any
        Passed to the ArviZ plot.

    Returns
    -------
    PlotCollection
        The plot.
    """
    import arviz_plots

    if kind not in PLOTS:
        raise DataError(
            f"kind={kind!r} is not one of {listing(map(repr, PLOTS))}. {did_you_mean(kind, PLOTS)}".rstrip()
        )
    return getattr(arviz_plots, PLOTS[kind])(density_tree(post), var_names=_chosen_names(post, names), **options)


def _chosen_names(post: Posterior, names: Sequence[str] | None) -> list[str]:
    chosen = list(post.parameters) if names is None else [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in post.parameters:
            hint = did_you_mean(name, post.parameters)
            raise DataError(
                f"there is no parameter {name!r}.\n  Parameters: {listing(post.parameters)}. {hint}".rstrip()
            )
    return chosen


def density_tree(post: Posterior) -> xr.DataTree:
    """Return parameters by name with the groups `log_prior` and `log_likelihood`, as ArviZ's sensitivity wants them.

    Parameters
    ----------
    post : Posterior
        The posterior.

    Returns
    -------
    xarray.DataTree
        Groups `posterior`, `log_prior` and `log_likelihood` (of rows given their groups).
    """
    from bayeslmm.bayes.checks import log_likelihood_tree

    tree = log_likelihood_tree(post)
    tree["log_prior"] = log_prior_dataset(post)
    return tree


def log_prior_dataset(post: Posterior) -> xr.Dataset:
    """Return the log density of the prior of each parameter at every draw, correlations up to a constant.

    The distribution of the group effects given their standard deviations is part of the model, not of its prior, and
    is left out, as in brms.

    Parameters
    ----------
    post : Posterior
        The posterior.

    Returns
    -------
    xarray.Dataset
        One variable (chain, draw) per prior.

    Raises
    ------
    PriorError
        If the density of a prior cannot be told from the draws.
    """
    import xarray as xr

    shape = tuple(post.data["posterior"].sizes[dim] for dim in ("chain", "draw"))
    coords = {dim: post.data["posterior"][dim].values for dim in ("chain", "draw")}
    variables = {
        entry.name: (("chain", "draw"), log_prior_of(post, entry).reshape(shape))
        for entry in post.priors
        if entry.prior.name not in ("Flat", "HalfFlat")
    }
    if not variables:
        raise PriorError("every prior is flat: there is nothing to scale.")
    return xr.Dataset(variables, coords=coords)


def log_prior_of(post: Posterior, entry: PriorEntry) -> NDArray[np.float64]:
    """Return the log density of one prior at every draw.

    Parameters
    ----------
    post : Posterior
        The posterior.
    entry : PriorEntry
        The prior and what it is the prior of.

    Returns
    -------
    ndarray (S,)
        Log densities; for correlations up to a constant.
    """
    if entry.prior.name in JOINT:
        raise PriorError(
            f"the prior of {entry.name!r} is {entry.prior!r}, whose inner scales are not kept with the draws:\n"
            "  its density cannot be told from them. pymc.compute_log_prior works on draws of model.to_pymc()."
        )
    if entry.kind == "corr":
        return (float(entry.prior.args["eta"]) - 1.0) * log_determinant(post, entry.term)
    if entry.kind in ("intercept", "coefficient"):
        return log_density(entry.prior, coefficient_draws(post, entry.name), entry.name)
    if entry.kind == "sd":
        return log_density(entry.prior, sd_draws(post, entry), entry.name)
    if entry.kind == "distributional":
        return log_density(entry.prior, post.parameters[entry.name].ravel(), entry.name)
    values = post.draws(entry.name)
    if entry.name == "threshold":
        from bayeslmm.bayes.bambi import threshold_prior, threshold_shift

        mu, sigma = threshold_prior(values.shape[1], entry.prior)
        values = values - (post.draws("beta") @ threshold_shift(post.design))[:, None]
        return log_density(Prior("Normal", mu=0.0, sigma=1.0), (values - mu) / sigma, entry.name).sum(axis=1)
    return log_density(entry.prior, values, entry.name)


def coefficient_draws(post: Posterior, name: str) -> NDArray[np.float64]:
    """Return the draws of a coefficient on the scale of its prior: the intercept is that of centred predictors.

    Parameters
    ----------
    post : Posterior
        The posterior.
    name : str
        A coefficient.

    Returns
    -------
    ndarray (S,)
        Draws.
    """
    design, beta = post.design, post.draws("beta")
    at = design.coef_names.index(name)
    if name != "Intercept" or not post.priors.centred:
        return beta[:, at]
    rows = design.condensed
    means = np.array([0.0 if i == at else design.moments(rows.X[:, i])[0] for i in range(rows.X.shape[1])])
    return beta[:, at] + beta @ means


def sd_draws(post: Posterior, entry: PriorEntry) -> NDArray[np.float64]:
    """Return the draws of the standard deviation a prior is for.

    Parameters
    ----------
    post : Posterior
        The posterior.
    entry : PriorEntry
        A prior of kind "sd".

    Returns
    -------
    ndarray (S,)
        Draws.
    """
    term = post.design.terms[entry.term]
    name = f"sd_{term.factor}[{term.sd_labels[0]}]" if is_homogeneous(term) else entry.name
    return post.parameters[name].ravel()


def log_determinant(post: Posterior, term: int) -> NDArray[np.float64]:
    """Return the log determinant of a term's correlation matrix at every draw.

    Parameters
    ----------
    post : Posterior
        The posterior.
    term : int
        Position of the random term.

    Returns
    -------
    ndarray (S,)
        At most zero.
    """
    factor = next(factor for factor in post.design.factors if term in factor.term_indices)
    start = sum(len(post.design.terms[i].effects) for i in factor.term_indices if i < term)
    part = slice(start, start + len(post.design.terms[term].effects))
    return np.linalg.slogdet(post.draws(f"corr_{factor.name}")[:, part, part])[1]


def log_density(prior: Prior, values: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Return the log density of a prior, by our own table or by PyMC.

    Parameters
    ----------
    prior : Prior
        The prior.
    values : ndarray
        Where.
    where : str
        The parameter, for messages.

    Returns
    -------
    ndarray
        Log densities, shaped like `values`.

    Raises
    ------
    PriorError
        If the prior has parameters that are priors themselves, or makes its distribution in a way of its own.
    """
    if prior.name in FAMILIES and prior.dist is None:
        return prior.logpdf(values)
    import pymc as pm

    from bayeslmm.bayes.latent import double

    make = getattr(getattr(pm, prior.name, None) if prior.dist is None else prior.dist, "dist", None)
    if make is None or any(isinstance(value, Prior) for value in prior.args.values()):
        raise PriorError(f"the density of the prior of {where!r}, {prior!r}, cannot be told from the draws alone.")
    parameters = {key: double(value) for key, value in prior.args.items()}
    return np.asarray(pm.logp(make(**parameters), values).eval(mode="FAST_COMPILE"), dtype=np.float64)
