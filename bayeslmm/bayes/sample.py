"""Draw from the posterior: which engine, and what it hands over becomes a `Posterior`."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bayeslmm.bayes.posterior import Posterior, Run
from bayeslmm.bayes.priors import FAMILIES, Priors
from bayeslmm.errors import PriorError, SamplingError, did_you_mean, listing
from bayeslmm.families import check_response
from bayeslmm.likelihood.compile_time import Stopwatch

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from bayeslmm.bayes.logposterior import LogPosterior
    from bayeslmm.bayes.marginal import Draws, Mode
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design
    from bayeslmm.likelihood.lmm import LmmKernel

ENGINES = ("marginal", "laplace", "latent")
METHODS = ("nuts", "proposals")
SLOW_EVALUATION = 1e-3
WORST_PARETO_K = 0.5
LEAST_EFFICIENCY = 0.25


def sample(
    design: Design,
    family: Family,
    priors: Priors,
    *,
    kernel: LmmKernel | None = None,
    draws: int = 1000,
    tune: int | None = None,
    chains: int = 4,
    seed: int | None = None,
    engine: Literal["marginal", "laplace", "latent"] | None = None,
    method: Literal["nuts", "proposals"] | None = None,
    progress: bool = True,
    target_accept: float | None = None,
    cores: int | None = None,
    storage: DTypeLike = np.float64,
    sampler: str = "nutpie",
    centred: tuple[str, ...] | None = None,
) -> Posterior:
    """Draw from the posterior of a model.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.
    priors : Priors
        Every prior.
    kernel : LmmKernel, optional
        Its likelihood kernel, when there is one already.
    draws : int, default 1000
        Draws per chain.
    tune : int, optional
        Warm-up steps per chain; the engine's own number when absent.
    chains : int, default 4
        Chains.
    seed : int, optional
        Makes the draws reproducible, exactly.
    engine : {"marginal", "laplace", "latent"}, optional
        "marginal" integrates coefficients and group effects out and draws them afterwards, exactly: Gaussian models.
        "laplace" does so approximately for other families, corrected by importance weights; the PyMC model takes over
        when the weights say the approximation is too poor, unless this engine was asked for. "latent" runs NUTS on the
        PyMC model. Chosen by the model when absent.
    method : {"nuts", "proposals"}, optional
        For the marginal and the Laplace engine: NUTS, or independent draws from an approximation of the posterior
        of the variance parameters, corrected exactly. Chosen by what one evaluation costs when absent.
    progress : bool, default True
        Show a progress bar.
    target_accept : float, optional
        Acceptance NUTS tunes its step size to.
    cores : int, optional
        Chains at a time; all processors when absent.
    storage : dtype, default float64
        Of the group effects; float32 halves the memory of large models.
    sampler : {"nutpie", "pymc", "numpyro", "blackjax"}, default "nutpie"
        For the latent engine.
    centred : tuple of str, optional
        For the latent engine: grouping factors with centred effects; chosen from the data when absent.

    Returns
    -------
    Posterior
        Draws with summaries and checks.

    Raises
    ------
    PriorError
        If the marginal engine is asked for and does not know a prior, or the posterior would be improper.
    SamplingError
        If nothing could be drawn.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> post = sample(m.design, m.family, m.priors, draws=100, chains=2, seed=1, progress=False)
    >>> post.data["posterior"]["b_Batch"].shape
    (2, 100, 6, 1)
    """
    check_counts(draws=draws, chains=chains, tune=tune)
    check_proper(design, priors)
    rows = design.condensed
    if not family.is_gaussian_identity:
        check_response(family, np.asarray(rows.y, dtype=np.float64), rows.trials, repr(design.response_name))
    if method is not None and method not in METHODS:
        raise SamplingError(f"method={method!r} is not one of {listing(map(repr, METHODS))}.")
    chosen, reason = choose_engine(design, family, priors, engine)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else check_seed(seed)
    clock = Stopwatch()
    if chosen == "laplace":
        from bayeslmm.bayes.laplace_nuts import WORST_PARETO_K, sample_laplace

        post = sample_laplace(
            design, family, priors, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress,
            target_accept=target_accept, cores=cores, method=method, reason=reason,
        )  # fmt: skip
        if engine is not None or not post.run.pareto_k > WORST_PARETO_K:
            return post
        chosen = "latent"
        reason = f"Pareto k of the Laplace approximation was {post.run.pareto_k:.2f}, above {WORST_PARETO_K}"
    if chosen == "latent":
        from bayeslmm.bayes.nuts import sample_latent

        return sample_latent(
            design, family, priors, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress,
            target_accept=target_accept, cores=cores, sampler=sampler, centred=centred, reason=reason,
        )  # fmt: skip
    from bayeslmm.bayes.labels import label_draws
    from bayeslmm.bayes.logposterior import log_posterior_of
    from bayeslmm.bayes.marginal import find_mode
    from bayeslmm.likelihood.lmm import LmmKernel

    density = log_posterior_of(design, priors, LmmKernel.from_design(design) if kernel is None else kernel)
    mode = find_mode(density)
    raw, why = draw_marginal(
        density, mode, method, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress,
        target_accept=target_accept, cores=cores, storage=storage,
    )  # fmt: skip
    run = Run(
        engine="marginal",
        method=raw.method,
        sampler=f"nutpie {version('nutpie')}" if raw.method == "NUTS" else "bayeslmm",
        draws=raw.x.shape[1],
        chains=raw.x.shape[0],
        tune=raw.tune,
        seed=seed,
        seconds=clock.seconds(),
        pareto_k=raw.pareto_k,
        reason=why,
        notes=(*raw.notes, *clock.notes()),
    )
    return Posterior(design, family, priors, label_draws(density, raw), run, density.kernel)


def draw_marginal(
    density: LogPosterior, mode: Mode, method: str | None, *, draws: int, chains: int, **options: Any
) -> tuple[Draws, str]:
    """Draw by the method asked for, or by the one the cost of an evaluation suggests.

    Parameters
    ----------
    density : LogPosterior
        The marginal log posterior.
    mode : Mode
        Its mode.
    method : {"nuts", "proposals"} or None
        The method.
    draws, chains : int
        How many.
    **options : Any
        Options of `sample_nuts`.

    Returns
    -------
    Draws
        The draws.
    str
        Why this method, in words.
    """
    from bayeslmm.bayes.marginal import sample_nuts
    from bayeslmm.bayes.proposals import sample_proposals

    options = {name: value for name, value in options.items() if value is not None or name == "tune"}
    cost = f"one evaluation costs about {density.seconds * 1e3:.1g} ms"
    if method == "proposals" or (method is None and density.seconds > SLOW_EVALUATION):
        plain = {name: options[name] for name in ("seed", "progress", "cores", "storage") if name in options}
        raw = sample_proposals(density, mode, draws=draws, chains=chains, **plain)
        share = least_effective_share(raw.x)
        if method == "proposals" or (raw.pareto_k < WORST_PARETO_K and share > LEAST_EFFICIENCY):
            return raw, "asked for" if method else cost
        cost = f"independent proposals had Pareto k {raw.pareto_k:.2f} and {share:.0%} of them were effective"
    return sample_nuts(density, mode, draws=draws, chains=chains, **options), "asked for" if method else cost


def least_effective_share(x: NDArray[np.float64]) -> float:
    """Return the smallest bulk effective sample size among sampled parameters, as a share of the draws.

    Parameters
    ----------
    x : ndarray (C, D, d)
        Sampled vectors.

    Returns
    -------
    float
        Above zero; 1 for independent draws, 0 when there are too few to tell.
    """
    from arviz_stats.base import array_stats

    if x.shape[1] < 4:
        return 0.0
    ess = array_stats.ess(x, chain_axis=0, draw_axis=1, method="bulk")
    return float(np.min(ess)) / (x.shape[0] * x.shape[1])


# --- checks --------------------------------------------------------------------------------------------------------


def check_counts(*, draws: int, chains: int, tune: int | None) -> None:
    """Refuse numbers of draws, chains and warm-up steps that make no sense.

    Parameters
    ----------
    draws, chains : int
        At least one.
    tune : int or None
        At least one.

    Raises
    ------
    SamplingError
        If one is below 1 or not whole.
    """
    for name, value in (("draws", draws), ("chains", chains), ("tune", tune)):
        if value is not None and (int(value) != value or value < 1):
            raise SamplingError(f"{name}={value!r} must be a whole number of at least 1.")


def check_seed(seed: int) -> int:
    """Return a seed as a non-negative whole number.

    Parameters
    ----------
    seed : int
        The seed.

    Returns
    -------
    int
        The same.

    Raises
    ------
    SamplingError
        If it is negative or not whole.
    """
    try:
        value = int(seed)
    except (TypeError, ValueError):
        value = -1
    if value < 0 or value != seed:
        raise SamplingError(f"seed={seed!r} must be a whole number of at least 0.")
    return value


def check_proper(design: Design, priors: Priors) -> None:
    """Refuse a flat prior where the posterior would be improper.

    With a flat prior on a standard deviation the likelihood has to bring its own decay, which takes three levels.

    Parameters
    ----------
    design : Design
        Levels of the grouping factors.
    priors : Priors
        Every prior.

    Raises
    ------
    PriorError
        With the reason.

    References
    ----------
    Gelman (2006), *Bayesian Analysis* 1(3), section 3.2.
    """
    for entry in priors:
        if entry.kind != "sd" or entry.prior.name not in ("HalfFlat", "Flat"):
            continue
        levels = len(design.terms[entry.term].levels)
        needed = len(design.terms[entry.term].effects) + 2
        if levels < needed:
            raise PriorError(
                f"a flat prior on {entry.name!r} with {levels} levels of {design.terms[entry.term].factor!r} makes the "
                f"posterior improper: arbitrarily large values stay plausible.\n"
                f"  It takes at least {needed} levels. Way out: a proper prior such as the default half-t."
            )


def choose_engine(
    design: Design, family: Family, priors: Priors, engine: str | None
) -> tuple[Literal["marginal", "laplace", "latent"], str]:
    """Return the engine and the reason for it.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.
    priors : Priors
        Every prior.
    engine : str or None
        What the user asked for.

    Returns
    -------
    engine : {"marginal", "laplace", "latent"}
        The engine.
    reason : str
        In words.

    Raises
    ------
    SamplingError
        If the marginal engine is asked for and the model is not Gaussian.
    PriorError
        If it is asked for and does not know a prior.
    """
    if engine is not None and engine not in ENGINES:
        hint = did_you_mean(str(engine), ENGINES)
        raise SamplingError(f"engine={engine!r} is not one of {listing(map(repr, ENGINES))}. {hint}".rstrip())
    if engine == "latent":
        return "latent", "asked for"
    if design.limits is not None:
        if engine is not None:
            raise SamplingError(f'engine={engine!r} has no {design.limits.kind} responses; use engine="latent".')
        return "latent", f"the response is {design.limits.kind}"
    if design.auxiliary:
        names = listing(map(repr, design.auxiliary))
        if engine is not None:
            raise SamplingError(f'engine={engine!r} has no formula of {names}; use engine="latent".')
        return "latent", f"there is a formula of {names}"
    if not family.is_gaussian_identity:
        return _choose_approximate(design, family, priors, engine)
    if engine == "laplace":
        raise SamplingError('the Laplace engine is for other families than the Gaussian; use engine="marginal".')
    if not design.terms:
        return "latent", "there are no group effects to integrate out"
    if priors.unknown:
        entry = priors.unknown[0]
        if engine == "marginal":
            known = listing((name for name in FAMILIES), 30)
            raise PriorError(
                f"the marginal engine does not know the prior of {entry.name!r}, {entry.prior!r}.\n"
                f'  It knows {known}. Use engine="latent", or leave the choice to sample().'
            )
        return "latent", f"the prior of {entry.name!r} is {entry.prior!r}"
    return "marginal", ""


def _choose_approximate(
    design: Design, family: Family, priors: Priors, engine: str | None
) -> tuple[Literal["laplace", "latent"], str]:
    """Return the engine of a model that is not Gaussian, and the reason."""
    from bayeslmm.bayes.laplace_nuts import cannot_integrate

    if engine == "marginal":
        raise SamplingError(
            f"the marginal engine is for Gaussian models with an identity link; this one is {family}.\n"
            '  Use engine="laplace" or "latent", or leave the choice to sample().'
        )
    reason = cannot_integrate(design, family, priors)
    if not reason:
        return "laplace", "asked for" if engine else f"the family is {family}"
    if engine == "laplace":
        raise SamplingError(f'the Laplace engine cannot be used: {reason}.\n  Use engine="latent".')
    return "latent", reason
