"""Draws from the prior: what a model expects before it sees the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import truncnorm

from bayeslmm.bayes.bambi import threshold_prior, threshold_shift
from bayeslmm.bayes.latent import correlation_beta
from bayeslmm.bayes.priors import Prior, Priors, has_intercept
from bayeslmm.datatree import SAMPLE_DIMS, THRESHOLD_DIM
from bayeslmm.errors import DataWarning, PriorError, warn
from bayeslmm.families import check_response
from bayeslmm.formula.residuals import refuse
from bayeslmm.predict import linear_predictor

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design, GroupTerm
    from bayeslmm.models import Model

Draw = Callable[[np.random.Generator, Mapping[str, float], int], "NDArray[np.float64]"]
RANDOM: Mapping[str, Draw] = {
    "Normal": lambda rng, a, n: rng.normal(a["mu"], a["sigma"], n),
    "StudentT": lambda rng, a, n: a["mu"] + a["sigma"] * rng.standard_t(a["nu"], n),
    "Cauchy": lambda rng, a, n: a["alpha"] + a["beta"] * rng.standard_cauchy(n),
    "Laplace": lambda rng, a, n: rng.laplace(a["mu"], a["b"], n),
    "HalfNormal": lambda rng, a, n: np.abs(rng.normal(0, a["sigma"], n)),
    "HalfStudentT": lambda rng, a, n: np.abs(a["sigma"] * rng.standard_t(a["nu"], n)),
    "HalfCauchy": lambda rng, a, n: np.abs(a["beta"] * rng.standard_cauchy(n)),
    "Exponential": lambda rng, a, n: rng.exponential(1 / a["lam"], n),
    "Gamma": lambda rng, a, n: rng.gamma(a["alpha"], 1 / a["beta"], n),
    "InverseGamma": lambda rng, a, n: 1 / rng.gamma(a["alpha"], 1 / a["beta"], n),
    "LogNormal": lambda rng, a, n: rng.lognormal(a["mu"], a["sigma"], n),
    "Uniform": lambda rng, a, n: rng.uniform(a["lower"], a["upper"], n),
    "SqrtInverseGamma": lambda rng, a, n: rng.gamma(a["alpha"], 1 / a["beta"], n) ** -0.5,
}
ABSURD = 100.0


@dataclass(frozen=True)
class PriorDraws:
    """Draws from the prior and of the responses it expects.

    Parameters
    ----------
    beta : ndarray (S, p)
        Coefficients.
    sd, corr, effects : dict of str to ndarray
        By grouping factor: (S, K), (S, K, K), (S, J, K).
    sigma : ndarray (S,) or None
        Residual standard deviation.
    y : ndarray (S, n)
        Responses.
    aux : dict of str to ndarray
        Further parameters of the family.
    """

    beta: NDArray[np.float64]
    sd: dict[str, NDArray[np.float64]]
    corr: dict[str, NDArray[np.float64]]
    effects: dict[str, NDArray[np.float64]]
    sigma: NDArray[np.float64] | None
    y: NDArray[np.float64]
    aux: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def tree(self, design: Design, part: slice) -> xr.DataTree:
        """Return some of the draws as the group `posterior` of a posterior: one chain.

        Parameters
        ----------
        design : Design
            Names.
        part : slice
            Which draws.

        Returns
        -------
        xarray.DataTree
            In the dimensions all engines share.
        """
        import xarray as xr

        from bayeslmm.datatree import posterior_dataset

        dataset = posterior_dataset(
            design,
            beta=self.beta[None, part],
            sd={name: value[None, part] for name, value in self.sd.items()},
            corr={name: value[None, part] for name, value in self.corr.items()},
            effects={name: value[None, part] for name, value in self.effects.items()},
            sigma=None if self.sigma is None else self.sigma[None, part],
        )
        return xr.DataTree.from_dict({"posterior": dataset.assign(self.further(part))})

    def further(self, part: slice = slice(None)) -> dict[str, tuple[tuple[str, ...], NDArray[np.float64]]]:
        """Return draws of the family's further parameters as variables of a Dataset.

        Parameters
        ----------
        part : slice
            Which draws.

        Returns
        -------
        dict
            Dimensions and values by name.
        """
        dims = {name: (*SAMPLE_DIMS, *[THRESHOLD_DIM] * (value.ndim - 1)) for name, value in self.aux.items()}
        return {name: (dims[name], value[None, part]) for name, value in self.aux.items()}


def random_values(prior: Prior, name: str, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return draws from a prior.

    Parameters
    ----------
    prior : Prior
        The prior.
    name : str
        What it is the prior of, for messages.
    rng : numpy Generator
        Source of randomness.
    count : int
        How many.

    Returns
    -------
    ndarray (count,)
        The draws.

    Raises
    ------
    PriorError
        If the prior is improper, or of a family only PyMC knows.
    """
    if prior.name in ("Flat", "HalfFlat"):
        raise PriorError(f"the prior of {name!r} is flat: there is nothing to draw from. Give it a proper prior.")
    if prior.name not in RANDOM or prior.dist is not None:
        raise PriorError(
            f"the prior of {name!r}, {prior!r}, can only be drawn from by PyMC:\n"
            "  pymc.sample_prior_predictive(model=model.to_pymc())"
        )
    return RANDOM[prior.name](rng, prior.args, count)


SWEEPS = 200


def random_thresholds(labels: int, prior: Prior, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return increasing thresholds drawn from independent normals given their order, by Gibbs sampling.

    Parameters
    ----------
    labels : int
        How many thresholds.
    prior : Prior
        Their prior.
    rng : numpy Generator
        Source of randomness.
    count : int
        How many draws, each from a chain of its own.

    Returns
    -------
    ndarray (count, labels)
        Increasing in each row.
    """
    mu, sigma = threshold_prior(labels, prior)
    found = np.sort(mu + sigma * rng.standard_normal((count, labels)), axis=1)
    edges = np.column_stack([np.full(count, -np.inf), found, np.full(count, np.inf)])
    for _ in range(SWEEPS if labels > 1 else 0):
        for k in range(labels):
            low, high = ((edges[:, at] - mu[k]) / sigma[k] for at in (k, k + 2))
            edges[:, k + 1] = mu[k] + sigma[k] * truncnorm.rvs(low, high, random_state=rng)
    return edges[:, 1:-1]


def correlation_roots(
    term: GroupTerm, prior: Prior | None, rng: np.random.Generator, count: int
) -> NDArray[np.float64]:
    """Return Cholesky roots of correlation matrices drawn from LKJ.

    Parameters
    ----------
    term : GroupTerm
        Structure and number of effects.
    prior : Prior or None
        LKJ; None for independent effects.
    rng : numpy Generator
        Source of randomness.
    count : int
        How many.

    Returns
    -------
    ndarray (count, k, k)
        Lower triangular roots.

    References
    ----------
    Lewandowski, Kurowicka & Joe (2009), *J. Multivariate Analysis* 100(9).
    """
    k = len(term.effects)
    if prior is None:
        return np.broadcast_to(np.eye(k), (count, k, k))
    eta = float(prior.args["eta"])
    if term.term.covariance != "us":
        lower, a, b = correlation_beta(term.term.covariance, k, eta)
        rho = (lower + (1 - lower) * rng.beta(a, b, count))[:, None, None]
        distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        matrix = rho**distance if term.term.covariance == "ar1" else rho + (1 - rho) * np.eye(k)
        return np.linalg.cholesky(matrix)
    root = np.zeros((count, k, k))
    for i in range(k):
        rest = np.ones(count)
        for j in range(i):
            shape = eta + 0.5 * (k - 2 - j)
            partial = 2 * rng.beta(shape, shape, count) - 1
            root[:, i, j] = partial * rest
            rest = rest * np.sqrt(1 - partial**2)
        root[:, i, i] = rest
    return root


def prior_draws(design: Design, family: Family, priors: Priors, count: int, seed: int | None = None) -> PriorDraws:
    """Draw parameters, group effects and responses from the prior.

    Parameters
    ----------
    design : Design
        The rows.
    family : Family
        Response family.
    priors : Priors
        Every prior, all proper.
    count : int
        How many.
    seed : int, optional
        Makes the draws reproducible.

    Returns
    -------
    PriorDraws
        The draws.
    """
    rng = np.random.default_rng(seed)
    columns = [
        random_values(prior, name, rng, count)
        for name, prior in zip(design.coef_names, priors.coefficients, strict=True)
    ]
    beta = np.column_stack(columns) if columns else np.zeros((count, 0))
    if has_intercept(design):
        slopes = np.array([name != "Intercept" for name in design.coef_names])
        beta[:, ~slopes] -= (beta[:, slopes] @ design.X.mean(axis=0)[slopes])[:, None]
    sd: dict[str, NDArray[np.float64]] = {}
    corr: dict[str, NDArray[np.float64]] = {}
    effects: dict[str, NDArray[np.float64]] = {}
    for factor in design.factors:
        width = len(factor.effects)
        root, at = np.zeros((count, width, width)), 0
        for index in factor.term_indices:
            term = design.terms[index]
            k = len(term.effects)
            chosen = [random_values(prior, f"sd_{factor.name}", rng, count) for prior in priors.sd(index)]
            scales = np.column_stack(chosen * (k // len(chosen)))
            part = slice(at, at + k)
            root[:, part, part] = scales[:, :, None] * correlation_roots(term, priors.corr(index), rng, count)
            at += k
        covariance = root @ root.transpose(0, 2, 1)
        sd[factor.name] = np.sqrt(np.einsum("skk->sk", covariance))
        corr[factor.name] = covariance / (sd[factor.name][:, :, None] * sd[factor.name][:, None, :])
        standard = rng.standard_normal((count, len(factor.levels), width))
        effects[factor.name] = np.einsum("skl,sjl->sjk", root, standard)
    eta = linear_predictor(design, beta, effects)
    sigma = None if priors.sigma is None else random_values(priors.sigma, "sigma", rng, count)
    aux = {
        name: random_values(prior, name, rng, count)
        for name, prior in priors.aux.items()
        if name not in ("sigma", "threshold")
    }
    if family.name == "cumulative":
        aux["threshold"] = random_thresholds(len(design.threshold_labels), priors.aux["threshold"], rng, count)
        aux["threshold"] += (beta @ threshold_shift(design))[:, None]
    y = _responses(design, family, eta, sigma, aux, rng)
    return PriorDraws(beta, sd, corr, effects, sigma, y, aux)


def _responses(
    design: Design,
    family: Family,
    eta: NDArray[np.float64],
    sigma: NDArray[np.float64] | None,
    aux: Mapping[str, NDArray[np.float64]],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    if family.is_gaussian_identity:
        assert sigma is not None
        scale = sigma[:, None] / (1.0 if design.weights is None else np.sqrt(design.weights))
        return eta + scale * rng.standard_normal(eta.shape)
    own = family.parameter
    if own == "threshold":
        below = family.inverse_link(aux[own][:, None, :] - eta[:, :, None])
        return (rng.random(eta.shape)[:, :, None] > below).sum(axis=2).astype(np.float64)
    phi: Any = sigma[:, None] if own == "sigma" and sigma is not None else aux[own][:, None] if own in aux else 1.0
    return family.draw(rng, family.inverse_link(eta), phi, 1.0 if design.trials is None else design.trials)


def prior_predictive(model: Model, draws: int = 500, seed: int | None = None) -> xr.DataTree:
    """Return responses the model expects before it sees the data, as ArviZ wants them.

    Parameters
    ----------
    model : Model
        The model.
    draws : int, default 500
        How many.
    seed : int, optional
        Makes the draws reproducible.

    Returns
    -------
    xarray.DataTree
        Groups `prior`, `prior_predictive` and `observed_data`. A warning says when most of the expected responses lie
        far beyond the scale of the observed ones.

    Raises
    ------
    DataError
        If the observed responses cannot come from the family.
    """
    import xarray as xr

    from bayeslmm.datatree import posterior_dataset

    refuse(
        model.design.residuals,
        "prior_predictive()",
        "Leave residuals= out: the priors of everything else are the same.",
    )
    if not model.family.is_gaussian_identity:
        seen, name = model.design.condensed, repr(model.design.response_name)
        check_response(model.family, np.asarray(seen.y, dtype=np.float64), seen.trials, name)
    if needs_pymc(model):
        return prior_predictive_by_pymc(model, draws, seed)
    found = prior_draws(model.design, model.family, model.priors, draws, seed)
    warn_if_absurd(found.y, np.asarray(model.design.y))
    wide = {name: value[None] for name, value in found.corr.items() if value.shape[1] > 1}
    prior = posterior_dataset(
        model.design,
        beta=found.beta[None],
        sd={name: value[None] for name, value in found.sd.items()},
        corr=wide,
        effects={name: value[None] for name, value in found.effects.items()},
        sigma=None if found.sigma is None else found.sigma[None],
    ).assign(found.further())
    rows = np.asarray(model.design.rows)
    predictive = xr.Dataset(
        {"y": (("chain", "draw", "obs"), found.y[None])}, coords={"chain": [0], "draw": np.arange(draws), "obs": rows}
    )
    observed = xr.Dataset({"y": (("obs",), model.design.y)}, coords={"obs": rows})
    return xr.DataTree.from_dict({"prior": prior, "prior_predictive": predictive, "observed_data": observed})


def needs_pymc(model: Model) -> bool:
    """Return whether only PyMC can draw from a model's prior: joint or rare priors, or a family that only bambi has.

    Parameters
    ----------
    model : Model
        The model.

    Returns
    -------
    bool
        False where numpy does it without compiling.
    """
    priors = [entry.prior for entry in model.priors if entry.kind != "corr"]
    drawable = (prior.name in (*RANDOM, "Flat", "HalfFlat") and prior.dist is None for prior in priors)
    special = bool(model.design.auxiliary) or model.design.limits is not None
    without_draws = model.family.row.draw is None and model.family.name != "cumulative"
    return without_draws or special or not all(drawable)


def prior_predictive_by_pymc(model: Model, draws: int, seed: int | None) -> xr.DataTree:
    """Return draws from the prior of the PyMC model, in the groups `prior_predictive` returns.

    Parameters
    ----------
    model : Model
        The model.
    draws : int
        How many.
    seed : int or None
        Makes the draws reproducible.

    Returns
    -------
    xarray.DataTree
        Groups `prior`, `prior_predictive` and `observed_data`.

    Raises
    ------
    PriorError
        If a prior is flat.
    """
    import pymc as pm
    import xarray as xr

    for entry in model.priors:
        if entry.prior.name in ("Flat", "HalfFlat"):
            random_values(entry.prior, entry.name, np.random.default_rng(), 1)
    with model.to_pymc():
        tree = pm.sample_prior_predictive(draws, random_seed=seed)
    rows = np.asarray(model.design.rows)
    y = np.asarray(tree["prior_predictive"]["y"].values, dtype=np.float64)
    if model.design.trials is not None:
        y = y / model.design.trials
    warn_if_absurd(y[0], np.asarray(model.design.y))
    coords = {"chain": [0], "draw": np.arange(draws), "obs": rows}
    predictive = xr.Dataset({"y": (("chain", "draw", "obs"), y)}, coords=coords)
    observed = xr.Dataset({"y": (("obs",), model.design.y)}, coords={"obs": rows})
    prior = tree["prior"].to_dataset()
    return xr.DataTree.from_dict({"prior": prior, "prior_predictive": predictive, "observed_data": observed})


def plot_prior_predictive(model: Model, draws: int = 100, seed: int | None = None) -> Any:
    """Plot responses that the priors expect beside the observed ones, by ArviZ.

    Parameters
    ----------
    model : Model
        The model.
    draws : int, default 100
        How many data sets.
    seed : int, optional
        Makes the draws reproducible.

    Returns
    -------
    PlotCollection
        The plot.
    """
    import arviz_plots as azp

    from bayeslmm.bayes.checks import name_the_axis, with_room_for_labels

    tree = prior_predictive(model, draws=draws, seed=seed)
    plot = azp.plot_ppc_dist(
        tree,
        group="prior_predictive",
        num_samples=draws,
        visuals={"observed_dist": {}, "title": False},
        **with_room_for_labels({"backend": "matplotlib"}),
    )
    return name_the_axis(plot, model.design.response_name)


def warn_if_absurd(expected: NDArray[np.float64], observed: NDArray[np.float64]) -> None:
    """Warn when the middle half of the expected responses is a hundred times as wide as the observed ones, or more.

    Parameters
    ----------
    expected : ndarray (S, n)
        Responses drawn from the prior.
    observed : ndarray (n,)
        The data.
    """
    width = float(np.subtract(*np.quantile(expected, [0.75, 0.25])))
    spread = float(np.ptp(observed))
    if spread > 0 and width > ABSURD * spread:
        warn(
            f"the prior expects responses spread over {width:.3g} where the data span {spread:.3g}: the priors are far "
            "too wide for the unit of the response.",
            DataWarning,
        )
