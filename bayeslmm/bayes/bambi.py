"""bambi's families for the PyMC model, and the hand-over of whole models to bambi."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.priors import JOINT, Prior, Priors, as_prior, has_intercept, is_correlated, is_homogeneous
from bayeslmm.bayes.responses import parameter_values
from bayeslmm.datatree import THRESHOLD_DIM
from bayeslmm.errors import FormulaError
from bayeslmm.families import COUNTS

if TYPE_CHECKING:
    import bambi
    from numpy.typing import NDArray
    from pytensor.tensor.variable import TensorVariable

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design

BAMBI_NAMES: Mapping[str, str] = {"inverse_gaussian": "wald"}
BINOMIAL = ("binomial", "beta_binomial", "zero_inflated_binomial")


def bambi_family(family: Family) -> bambi.Family:
    """Return bambi's family object, with our link for the mean.

    Parameters
    ----------
    family : Family
        Ours.

    Returns
    -------
    bambi.Family
        bambi's, with its default priors for further parameters.
    """
    from bambi.defaults.families import get_builtin_family

    theirs = get_builtin_family(BAMBI_NAMES.get(family.name, family.name))
    links = {name: link.name for name, link in theirs.link.items()}
    theirs.link = {**links, theirs.likelihood.parent: family.link}
    return theirs


def auxiliary_defaults(family: Family) -> dict[str, Prior]:
    """Return bambi's default priors of a family's further parameters.

    Parameters
    ----------
    family : Family
        The family.

    Returns
    -------
    dict of str to Prior
        By parameter, in alphabetical order.
    """
    defaults = bambi_family(family).default_priors
    return {name: as_prior(prior, name) for name, prior in sorted(defaults.items())}


def add_bambi_response(
    design: Design, family: Family, priors: Priors, eta: TensorVariable, replaceable: bool = False
) -> None:
    """Add the response through bambi's family and likelihood objects.

    Parameters
    ----------
    design : Design
        Response, trials and weights.
    family : Family
        The family.
    priors : Priors
        Priors of its further parameters.
    eta : TensorVariable (n,)
        The linear predictor.
    replaceable : bool, default False
        Whether rows and response are data of the model.
    """
    from bambi.backend.pymc import PyMCModel
    from bambi.backend.utils import get_distribution_from_likelihood, get_linkinv

    from bayeslmm.bayes.latent import add_distribution, observe, parameter_by_formula, random_scalar

    theirs = bambi_family(family)
    seen = observe(design, observed_values(design, family), replaceable)
    kwargs: dict[str, Any] = {"observed": seen.values}
    if priors.sigma is not None:
        kwargs["sigma"] = random_scalar("sigma", priors.sigma)
    for name, prior in priors.aux.items():
        kwargs[name] = thresholds(design, family, priors) if name == "threshold" else random_scalar(name, prior)
    for name in design.auxiliary:
        kwargs[name] = seen.of(parameter_by_formula(design, priors, name))
    if design.weights is not None and family.name == "t":
        kwargs["sigma"] = kwargs["sigma"] / seen.of(np.sqrt(design.weights))
    elif design.weights is not None:
        # A row of weight w is w rows, as in the Laplace engine.
        design = replace(design, weights=None, survey_weights=design.likelihood_weights)
    eta = seen.of(eta)
    parent = theirs.likelihood.parent
    transform = getattr(theirs, "transform_backend_eta", None)
    output = eta if transform is None else transform(eta, kwargs)
    kwargs[parent] = get_linkinv(theirs.link[parent], PyMCModel.INVLINKS)(output)
    rearrange = getattr(theirs, "transform_backend_kwargs", None)
    if rearrange is not None:
        kwargs = rearrange(kwargs)
    final = replace(seen, values=kwargs.pop("observed"))
    add_distribution(design, final, get_distribution_from_likelihood(theirs.likelihood), kwargs)


def observed_values(design: Design, family: Family) -> NDArray[np.generic]:
    """Return the response as bambi's families take it.

    Parameters
    ----------
    design : Design
        Response and trials.
    family : Family
        The family.

    Returns
    -------
    ndarray (n,) or (n, 2)
        Successes and trials for binomial families, whole numbers for counts and categories.
    """
    y = np.asarray(design.y)
    if family.name in BINOMIAL:
        trials = np.ones_like(y) if design.trials is None else np.asarray(design.trials)
        return np.column_stack([np.round(y * trials), trials]).astype(np.int64)
    if family.name in ("bernoulli", "cumulative", "sratio", *COUNTS):
        return y.astype(np.int64)
    return y


def thresholds(design: Design, family: Family, priors: Priors) -> TensorVariable:
    """Add thresholds between the categories of the response, increasing in a cumulative model.

    Parameters
    ----------
    design : Design
        Its categories and columns.
    family : Family
        Cumulative, or stopping ratio.
    priors : Priors
        With that of the thresholds: for predictors at their means, where there is no intercept.

    Returns
    -------
    TensorVariable (C - 1,)
        Thresholds for predictors at their means, or for predictors at zero beside an intercept. The variable
        `threshold` has those for predictors at zero in any case.
    """
    import pymc as pm
    import pytensor.tensor as pt

    mu, sigma = threshold_prior(int(np.max(np.asarray(design.y))), priors.aux["threshold"])
    # Thresholds of a stopping ratio need not increase.
    ordered = {"transform": pm.distributions.transforms.ordered} if family.name == "cumulative" else {}
    settings = {"initval": np.linspace(-1.0, 1.0, len(mu)), "dims": THRESHOLD_DIM, **ordered}
    means = threshold_shift(design)
    if not means.any():
        return pm.Normal("threshold", mu=mu, sigma=sigma, **settings)
    centred = pm.Normal("threshold_centred", mu=mu, sigma=sigma, **settings)
    beta = pm.modelcontext(None)["beta"]
    pm.Deterministic("threshold", centred + pt.dot(means, beta), dims=THRESHOLD_DIM)
    return centred


def threshold_shift(design: Design) -> NDArray[np.float64]:
    """Return the means (p,) of the columns, at which the thresholds of the prior are; zeros beside an intercept.

    Parameters
    ----------
    design : Design
        Of an ordered response.

    Returns
    -------
    ndarray (p,)
    """
    X = design.condensed.X
    return np.zeros(X.shape[1]) if has_intercept(design) else np.array([design.moments(column)[0] for column in X.T])


def threshold_prior(count: int, prior: Prior) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and SDs of the normal prior of thresholds.

    Parameters
    ----------
    count : int
        Thresholds.
    prior : Prior
        Normal; its mean is spread over the categories.

    Returns
    -------
    mu, sigma : ndarray (count,)
        Means and standard deviations.
    """
    spread = np.linspace(-2.0, 2.0, count) if count > 1 else np.zeros(count)
    return float(prior.args["mu"]) + spread, np.full(count, float(prior.args["sigma"]))


# --- new responses, log densities ----------------------------------------------------------------------------------


def response_arguments(post: Posterior, design: Design, chosen: NDArray[np.intp]) -> NDArray[np.float64] | float:
    """Return the family's own parameter (S, 1) or (S, n), or 1 when it has none.

    Parameters
    ----------
    post : Posterior
        Its draws.
    design : Design
        The rows.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, 1) or float
        The parameter.
    """
    name = post.response.parameter
    has_draws = name in design.auxiliary or (bool(name) and name in post.data["posterior"].data_vars)
    return parameter_values(post, design, name, chosen) if has_draws else 1.0


def category_probabilities(post: Posterior, eta: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the probability of each category of an ordered response.

    Parameters
    ----------
    post : Posterior
        Draws of the thresholds.
    eta : ndarray (S, n)
        Linear predictor.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, n, C)
        Probabilities, adding up to one.
    """
    limits = post.draws("threshold")[chosen][:, None, :]
    below = post.response.inverse_link(limits - eta[:, :, None])
    if post.response.name == "sratio":  # stops at k, not having stopped before
        going = np.cumprod(1 - below, axis=2)
        before = np.concatenate([np.ones((*eta.shape, 1)), going[:, :, :-1]], axis=2)
        return np.concatenate([below * before, going[:, :, -1:]], axis=2)
    edges = np.concatenate([np.zeros((*eta.shape, 1)), below, np.ones((*eta.shape, 1))], axis=2)
    return np.diff(edges, axis=2)


def simulate_bambi(
    post: Posterior, design: Design, eta: NDArray[np.float64], chosen: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return new responses of a family that is not Gaussian.

    Parameters
    ----------
    post : Posterior
        Draws of its further parameters.
    design : Design
        Trials.
    eta : ndarray (S, n)
        Linear predictor.
    chosen : ndarray (S,)
        Positions of the draws.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    ndarray (S, n)
        Responses; proportions where there are trials.
    """
    family = post.response
    if family.parameter == "threshold":
        cumulated = category_probabilities(post, eta, chosen).cumsum(axis=2)[:, :, :-1]
        return (rng.random(eta.shape)[:, :, None] > cumulated).sum(axis=2).astype(np.float64)
    mu = family.inverse_link(eta)
    truncated = design.limits is not None and design.limits.kind == "truncated"
    if family.name == "t" and not truncated:
        return mu + student_scale(post, design, chosen) * rng.standard_t(
            parameter_values(post, design, "nu", chosen), size=eta.shape
        )
    if family.row.draw is None or truncated:
        import pymc as pm

        rows = row_distribution(post, design, mu, chosen)
        drawn = pm.draw(cut_off(rows, design) if truncated else rows, random_seed=rng, mode="FAST_COMPILE")
        return np.asarray(drawn, dtype=np.float64) / (1.0 if design.trials is None else design.trials)
    size = 1.0 if design.trials is None else design.trials
    return family.draw(rng, mu, response_arguments(post, design, chosen), size)


def row_distribution(
    post: Posterior, design: Design, mu: NDArray[np.float64], chosen: NDArray[np.intp]
) -> TensorVariable:
    """Return PyMC's distribution of every draw and row, for families that only bambi has.

    Parameters
    ----------
    post : Posterior
        Draws of the further parameters.
    design : Design
        Trials.
    mu : ndarray (S, n)
        The mean, or what bambi's family has in its place.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    TensorVariable (S, n)
        A random variable outside any model.
    """
    from bambi.backend.utils import get_distribution_from_likelihood

    theirs = bambi_family(post.response)
    kwargs: dict[str, Any] = {theirs.likelihood.parent: mu}
    for name in further_parameters(post):
        kwargs[name] = np.broadcast_to(parameter_values(post, design, name, chosen), mu.shape)
    if post.response.name in BINOMIAL:
        trials = np.ones(mu.shape[1]) if design.trials is None else design.trials
        kwargs["observed"] = np.column_stack([np.zeros(mu.shape[1]), trials]).astype(np.int64)
    rearrange = getattr(theirs, "transform_backend_kwargs", None)
    if rearrange is not None:
        kwargs = rearrange(kwargs)
    kwargs.pop("observed", None)
    return get_distribution_from_likelihood(theirs.likelihood).dist(**kwargs)


def cut_off(rows: TensorVariable, design: Design) -> TensorVariable:
    """Return the distribution of censored or truncated responses.

    Parameters
    ----------
    rows : TensorVariable (S, n)
        Their distribution before.
    design : Design
        Limits; unchanged without any.

    Returns
    -------
    TensorVariable (S, n)
        A random variable outside any model.
    """
    if design.limits is None:
        return rows
    import pymc as pm

    cut = pm.Censored if design.limits.kind == "censored" else pm.Truncated
    return cut.dist(rows, lower=design.limits.lower, upper=design.limits.upper)


def further_parameters(post: Posterior) -> tuple[str, ...]:
    """Return the names of the parameters a family has beside its mean.

    Parameters
    ----------
    post : Posterior
        A posterior.

    Returns
    -------
    tuple of str
        Sigma first.
    """
    own = ("sigma",) if post.priors.sigma is not None else ()
    return tuple(dict.fromkeys([*own, *post.priors.aux, *post.priors.distributional]))


def expected_response(
    post: Posterior, design: Design, mu: NDArray[np.float64], chosen: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the mean of the response where a family's parameter `mu` is not the mean.

    Parameters
    ----------
    post : Posterior
        Draws of the further parameters.
    design : Design
        The rows.
    mu : ndarray (S, n)
        Inverse link of the linear predictor.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, n)
        Expected responses.
    """
    name = post.response.name
    if name not in MEANS:
        return mu
    own = {key: parameter_values(post, design, key, chosen) for key in further_parameters(post)}
    return MEANS[name](mu, own)


def _asymmetric_laplace_mean(mu: NDArray[np.float64], p: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return mu - (p["kappa"] - 1 / p["kappa"]) / p["b"]


def _hurdle_negative_binomial_mean(
    mu: NDArray[np.float64], p: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    return p["psi"] * mu / -np.expm1(-p["alpha"] * np.log1p(mu / p["alpha"]))


MEANS: Mapping[str, Callable[..., NDArray[np.float64]]] = {
    "asymmetriclaplace": _asymmetric_laplace_mean,
    "exgaussian": lambda mu, p: mu + p["nu"],
    "hurdle_gamma": lambda mu, p: p["psi"] * mu,
    "hurdle_lognormal": lambda mu, p: p["psi"] * np.exp(mu + p["sigma"] ** 2 / 2),
    "hurdle_negativebinomial": _hurdle_negative_binomial_mean,
    "hurdle_poisson": lambda mu, p: p["psi"] * mu / -np.expm1(-mu),
    "lognormal": lambda mu, p: np.exp(mu + p["sigma"] ** 2 / 2),
    "zero_inflated_binomial": lambda mu, p: p["psi"] * mu,
    "zero_inflated_negativebinomial": lambda mu, p: p["psi"] * mu,
    "zero_inflated_poisson": lambda mu, p: p["psi"] * mu,
}
"""Means of families whose parameter `mu` is another quantity; psi is the probability of not being a structural zero."""


def student_scale(post: Posterior, design: Design, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the scale of Student's t for each draw and row.

    Parameters
    ----------
    post : Posterior
        Draws of sigma.
    design : Design
        Prior weights.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, 1) or (S, n)
        Scales.
    """
    from bayeslmm.bayes.responses import residual_scale

    return residual_scale(post, design, chosen)


def log_density_bambi(
    post: Posterior, design: Design, eta: NDArray[np.float64], chosen: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the log density of each row for a family that is not Gaussian.

    Parameters
    ----------
    post : Posterior
        Draws of its further parameters.
    design : Design
        Response and trials.
    eta : ndarray (S, n)
        Linear predictor.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, n)
        Log densities.
    """
    family, y = post.response, np.asarray(design.y)
    if family.parameter == "threshold":
        probabilities = category_probabilities(post, eta, chosen)
        codes = y.astype(np.intp)[None, :, None]
        return np.log(np.take_along_axis(probabilities, np.broadcast_to(codes, (*eta.shape, 1)), axis=2)[:, :, 0])
    mu = family.inverse_link(eta)
    if family.name == "t" and design.limits is None:
        from scipy.stats import t

        scale = student_scale(post, design, chosen)
        return np.asarray(t.logpdf(y, parameter_values(post, design, "nu", chosen), loc=mu, scale=scale))
    if family.row.loglik is None or design.limits is not None:
        import pymc as pm

        values = observed_values(design, family)
        values = values[:, 0] if values.ndim == 2 else values
        rows = cut_off(row_distribution(post, design, mu, chosen), design)
        return np.asarray(pm.logp(rows, np.broadcast_to(values, mu.shape)).eval(mode="FAST_COMPILE"))
    size = 1.0 if design.trials is None else design.trials
    density = family.loglik(y, mu, response_arguments(post, design, chosen), size)
    # Of a family without a residual SD to divide, a row of weight w is w rows, as in the likelihood that was sampled.
    return density if design.weights is None else density * design.weights


# --- hand-over -----------------------------------------------------------------------------------------------------


def to_bambi(design: Design, family: Family, priors: Priors) -> bambi.Model:
    """Return the same model in bambi, priors included.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.
    priors : Priors
        Every prior.

    Returns
    -------
    bambi.Model
        Not yet built.

    Raises
    ------
    FormulaError
        If bambi cannot express it, with the reason.
    """
    import bambi

    for term in design.terms:
        if term.term.structure is not None:
            raise FormulaError(f"bambi cannot express {term.term}: its levels are independent. Use to_pymc().")
        if is_correlated(term):
            raise FormulaError(
                f"bambi cannot express {term.term}: its group effects are independent.\n"
                f"  Write ({term.term.columns} || {term.factor}) for independent effects, or use to_pymc()."
            )
        if is_homogeneous(term):
            raise FormulaError(
                f"bambi cannot express {term.term}: each of its effects has a standard deviation of its own."
            )
    if design.residuals is not None:
        raise FormulaError(f"bambi cannot express residuals={design.residuals.spec!r}; use to_pymc().")
    if design.likelihood_weights is not None:
        kind = "prior" if design.survey_weights is None else "survey"
        raise FormulaError(f"bambi cannot express {kind} weights of a mixed model; use to_pymc().")
    text = bambi_formula(design)
    others = [f"{name} ~ {part.formula.fixed}" for name, part in design.auxiliary.items()]
    chosen = {name: bambi_prior(priors[name]) for name in design.coef_names if "[" not in name}
    for index, term in enumerate(design.terms):
        for effect, prior in zip(term.effects, priors.sd(index), strict=True):
            label = "1" if effect == "Intercept" else effect
            chosen[f"{label}|{term.factor}"] = bambi.Prior("Normal", mu=0, sigma=bambi_prior(prior))
    if priors.sigma is not None:
        chosen["sigma"] = bambi_prior(priors.sigma)
    if "threshold" in priors.aux:
        mu, sigma = threshold_prior(int(np.max(np.asarray(design.y))), priors.aux["threshold"])
        default = bambi_family(family).default_priors["threshold"]
        chosen["threshold"] = bambi.Prior("Normal", auto_scale=False, **{**default.args, "mu": mu, "sigma": sigma[0]})
    for name, part in design.auxiliary.items():
        own = zip(part.coef_names, priors.distributional[name], strict=True)
        chosen[name] = {column: bambi_prior(prior) for column, prior in own if "[" not in column}
    model = bambi.Model(bambi.Formula(text, *others), design.data, family=bambi_family(family))
    known = set(model.parameters[model.family.likelihood.parent].terms) | set(model.marginal_parameters)
    known |= set(design.auxiliary)
    model.set_priors({name: prior for name, prior in chosen.items() if name in known})
    return model


def bambi_formula(design: Design) -> str:
    """Return the formula in bambi's language.

    Parameters
    ----------
    design : Design
        The formula met by data.

    Returns
    -------
    str
        ``y ~ fixed + (1|g) + (0 + x|g)``.
    """
    formula = design.formula
    parts = [formula.fixed]
    for term in formula.random:
        columns = term.columns.replace(" ", "")
        group = ":".join(term.group)
        if columns == "1":
            parts.append(f"(1|{group})")
            continue
        if columns.startswith("1+"):
            parts.append(f"(1|{group})")
            columns = "0+" + columns[2:]
        parts.append(f"({columns}|{group})")
    parts += [f"offset({offset})" for offset in formula.offsets]
    return f"{formula.response} ~ {' + '.join(parts)}"


def bambi_prior(prior: Prior) -> bambi.Prior:
    """Return bambi's prior object.

    Parameters
    ----------
    prior : Prior
        Ours.

    Returns
    -------
    bambi.Prior
        bambi's.

    Raises
    ------
    FormulaError
        If bambi has no such prior.
    """
    import bambi

    if prior.name in JOINT or prior.name == "SqrtInverseGamma":
        raise FormulaError(f"bambi cannot express the prior {prior!r}; use to_pymc().")
    return bambi.Prior(prior.name, auto_scale=False, dist=prior.dist, **prior.args)
