"""bambi's families for the PyMC model, and the hand-over of whole models to bambi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.priors import Prior, Priors, as_prior, is_correlated, is_homogeneous
from bayeslmm.errors import FormulaError

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
    """Return bambi's default priors of a family's further parameters, sigma apart.

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
    return {name: as_prior(prior, name) for name, prior in sorted(defaults.items()) if name != "sigma"}


def add_bambi_response(design: Design, family: Family, priors: Priors, eta: TensorVariable) -> None:
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
    """
    from bambi.backend.pymc import PyMCModel
    from bambi.backend.utils import get_distribution_from_likelihood, get_linkinv

    from bayeslmm.bayes.latent import obs_dim, random_scalar

    theirs = bambi_family(family)
    kwargs: dict[str, Any] = {"observed": observed_values(design, family)}
    if priors.sigma is not None:
        kwargs["sigma"] = random_scalar("sigma", priors.sigma)
    for name, prior in priors.aux.items():
        kwargs[name] = thresholds(design, prior) if name == "threshold" else random_scalar(name, prior)
    if design.weights is not None:
        if family.name != "t":
            raise FormulaError(
                f"prior weights have no meaning for the family {family.name!r}; give trials or an offset."
            )
        kwargs["sigma"] = kwargs["sigma"] / np.sqrt(design.weights)
    parent = theirs.likelihood.parent
    transform = getattr(theirs, "transform_backend_eta", None)
    output = eta if transform is None else transform(eta, kwargs)
    kwargs[parent] = get_linkinv(theirs.link[parent], PyMCModel.INVLINKS)(output)
    rearrange = getattr(theirs, "transform_backend_kwargs", None)
    if rearrange is not None:
        kwargs = rearrange(kwargs)
    get_distribution_from_likelihood(theirs.likelihood)("y", **kwargs, dims=obs_dim(design))


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
    if family.name in ("bernoulli", "poisson", "negativebinomial", "cumulative", "sratio", "categorical"):
        return y.astype(np.int64)
    return y


def thresholds(design: Design, prior: Prior) -> TensorVariable:
    """Add ordered thresholds between the categories of the response.

    Parameters
    ----------
    design : Design
        Its categories.
    prior : Prior
        Normal; spread over the categories when its mean is one number.

    Returns
    -------
    TensorVariable (C - 1,)
        Increasing thresholds.
    """
    import pymc as pm

    count = int(np.max(np.asarray(design.y)))
    mu = np.broadcast_to(np.asarray(prior.args.get("mu", 0.0), dtype=np.float64), count)
    if np.ptp(mu) == 0 and count > 1:
        mu = mu + np.linspace(-2.0, 2.0, count)
    sigma = float(np.asarray(prior.args.get("sigma", 1.0)).ravel()[0])
    return pm.Normal(
        "threshold", mu=mu, sigma=sigma, shape=count, transform=pm.distributions.transforms.ordered,
        initval=np.linspace(-1.0, 1.0, count),
    )  # fmt: skip


# --- new responses, log densities ----------------------------------------------------------------------------------


def response_arguments(post: Posterior, chosen: NDArray[np.intp]) -> NDArray[np.float64] | float:
    """Return the family's own parameter (S, 1), or 1 when it has none.

    Parameters
    ----------
    post : Posterior
        Its draws.
    chosen : ndarray (S,)
        Positions of the draws.

    Returns
    -------
    ndarray (S, 1) or float
        The parameter.
    """
    name = post.response.parameter
    return post.draws(name)[chosen, None] if name and name in post.data["posterior"].data_vars else 1.0


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
    if family.name == "cumulative":
        cumulated = category_probabilities(post, eta, chosen).cumsum(axis=2)[:, :, :-1]
        return (rng.random(eta.shape)[:, :, None] > cumulated).sum(axis=2).astype(np.float64)
    mu = family.inverse_link(eta)
    if family.name == "t":
        return mu + student_scale(post, design, chosen) * rng.standard_t(post.draws("nu")[chosen, None], size=eta.shape)
    size = 1.0 if design.trials is None else design.trials
    return family.draw(rng, mu, response_arguments(post, chosen), size)


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
    if family.name == "cumulative":
        probabilities = category_probabilities(post, eta, chosen)
        codes = y.astype(np.intp)[None, :, None]
        return np.log(np.take_along_axis(probabilities, np.broadcast_to(codes, (*eta.shape, 1)), axis=2)[:, :, 0])
    mu = family.inverse_link(eta)
    if family.name == "t":
        from scipy.stats import t

        scale = student_scale(post, design, chosen)
        return np.asarray(t.logpdf(y, post.draws("nu")[chosen, None], loc=mu, scale=scale))
    size = 1.0 if design.trials is None else design.trials
    return family.loglik(y, mu, response_arguments(post, chosen), size)


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
        if is_correlated(term):
            raise FormulaError(
                f"bambi cannot express {term.term}: its group effects are independent.\n"
                f"  Write ({term.term.columns} || {term.factor}) for independent effects, or use to_pymc()."
            )
        if is_homogeneous(term):
            raise FormulaError(
                f"bambi cannot express {term.term}: each of its effects has a standard deviation of its own."
            )
    if design.weights is not None:
        raise FormulaError("bambi cannot express prior weights of a mixed model; use to_pymc().")
    text = bambi_formula(design)
    chosen = {name: bambi_prior(priors[name]) for name in design.coef_names if "[" not in name}
    for index, term in enumerate(design.terms):
        for effect, prior in zip(term.effects, priors.sd(index), strict=True):
            label = "1" if effect == "Intercept" else effect
            chosen[f"{label}|{term.factor}"] = bambi.Prior("Normal", mu=0, sigma=bambi_prior(prior))
    if priors.sigma is not None:
        chosen["sigma"] = bambi_prior(priors.sigma)
    model = bambi.Model(text, design.data, family=bambi_family(family))
    known = set(model.parameters[model.family.likelihood.parent].terms) | set(model.marginal_parameters)
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
    """
    import bambi

    return bambi.Prior(prior.name, auto_scale=False, dist=prior.dist, **prior.args)
