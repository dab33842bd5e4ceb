"""The latent engine: NUTS on the PyMC model, for every family and prior PyMC has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.chains import STATISTICS as CHAIN_STATISTICS
from bayeslmm.bayes.labels import data_groups
from bayeslmm.bayes.latent import build_pymc_model
from bayeslmm.bayes.marginal import available_cores, keep_complete
from bayeslmm.bayes.posterior import Posterior, Run
from bayeslmm.errors import MissingDependencyError, SamplingError, did_you_mean, listing

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.bayes.priors import Priors
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design, GroupTerm

TUNE = 1000
SAMPLERS = {"nutpie": ("nutpie",), "pymc": ("pymc",), "numpyro": ("numpyro", "jax"), "blackjax": ("blackjax", "jax")}
STATISTICS = CHAIN_STATISTICS | {name: name for name in CHAIN_STATISTICS.values()}
"""Statistics that are kept, by nutpie's name and by PyMC's, which is ArviZ's."""
INFORMATIVE = 9.0


def sample_latent(
    design: Design,
    family: Family,
    priors: Priors,
    *,
    draws: int,
    tune: int | None,
    chains: int,
    seed: int,
    progress: bool,
    target_accept: float | None = None,
    cores: int | None = None,
    sampler: str = "nutpie",
    centred: Sequence[str] | None = None,
    reason: str = "",
) -> Posterior:
    """Draw from the posterior by NUTS on the PyMC model.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.
    priors : Priors
        Every prior.
    draws, tune, chains : int
        Draws and warm-up steps per chain, and chains.
    seed : int
        Makes the draws reproducible.
    progress : bool
        Show a bar.
    target_accept : float, optional
        Acceptance the step size is tuned to; 0.9 when absent.
    cores : int, optional
        Chains at a time.
    sampler : {"nutpie", "pymc", "numpyro", "blackjax"}, default "nutpie"
        What runs.
    centred : sequence of str, optional
        Grouping factors, or terms such as "(1 | g)", with centred effects; chosen from the data when absent.
    reason : str
        Why this engine.

    Returns
    -------
    Posterior
        The draws in the dimensions all engines share.

    Raises
    ------
    MissingDependencyError
        If the sampler is not installed, with the command that installs it.
    """
    check_sampler(sampler)
    rows = design.condensed
    began = time.perf_counter()
    centred = choose_centred(rows, family) if centred is None else checked_centred(design, centred)
    model = build_pymc_model(design, family, priors, centred=centred)
    tune = TUNE if tune is None else tune
    settings = {"draws": draws, "tune": tune, "chains": chains, "cores": min(chains, cores or available_cores())}
    target = 0.9 if target_accept is None else target_accept
    run_one = run_nutpie if sampler == "nutpie" else run_pymc
    tree = run_one(model, sampler=sampler, seed=seed, progress=progress, target_accept=target, **settings)
    data, notes = relabel(tree, design, priors, draws)
    if centred:
        notes = (*notes, f"centred group effects: {', '.join(centred)}")
    run = run_of(data, sampler, tune, seed, time.perf_counter() - began, reason, notes)
    return Posterior(design, family, priors, data, run, None)


def run_of(
    data: xr.DataTree, sampler: str, tune: int, seed: int, seconds: float, reason: str, notes: tuple[str, ...]
) -> Run:
    """Return the record of how the latent engine drew.

    Parameters
    ----------
    data : DataTree
        The draws.
    sampler : str
        What ran.
    tune, seed : int
        Warm-up steps per chain, and seed.
    seconds : float
        Wall time.
    reason : str
        Why this engine.
    notes : tuple of str
        Remarks.

    Returns
    -------
    Run
        The record.
    """
    sizes = data["posterior"].sizes
    return Run(
        engine="latent",
        method="NUTS",
        sampler=f"{sampler} {version(sampler)}",
        draws=int(sizes["draw"]),
        chains=int(sizes["chain"]),
        tune=tune,
        seed=seed,
        seconds=seconds,
        reason=reason,
        notes=notes,
    )


def check_sampler(sampler: str) -> None:
    """Refuse a sampler that does not exist or is not installed.

    Parameters
    ----------
    sampler : str
        Its name.

    Raises
    ------
    SamplingError
        If there is no such sampler.
    MissingDependencyError
        If it is not installed, with the command that installs it.
    """
    if sampler not in SAMPLERS:
        hint = did_you_mean(str(sampler), SAMPLERS)
        raise SamplingError(f"sampler={sampler!r} is not one of {listing(map(repr, SAMPLERS))}. {hint}".rstrip())
    missing = [name for name in SAMPLERS[sampler] if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"sampler={sampler!r} needs {' and '.join(missing)}, not installed here.\n"
            f"  python -m pip install {' '.join(SAMPLERS[sampler])}"
        )


def choose_centred(design: Design, family: Family) -> tuple[str, ...]:
    """Return the random terms whose effects are better centred: those the data determine well.

    Standardised effects suit groups about which the prior knows more than the data. A term is centred where the rows of
    even its least informed level outweigh the spread between levels nine to one, by moments of the response. What
    factors of fewer levels explain is taken out first: levels of `sex:ethnicity` differ as ethnicities do, too.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.

    Returns
    -------
    tuple of str
        Grouping factors all terms of which are to be centred, and terms such as "(1 | g)" of the others.

    References
    ----------
    Papaspiliopoulos, Roberts & Sköld (2007), *Statistical Science* 22(1); Betancourt & Girolami (2015).
    """
    y = np.asarray(design.y, dtype=np.float64)
    if np.all(y > 0) and (family.link == "log" or "lognormal" in family.name):
        y = np.log(y)
    y = y if design.offset is None or family.link != "identity" else y - design.offset
    y = y - design.X @ np.linalg.lstsq(design.X, y, rcond=None)[0] if design.X.shape[1] else y - y.mean()
    found: dict[str, list[str]] = {}
    for factor in sorted(design.factors, key=lambda factor: len(factor.levels)):
        own = []
        for term in (design.terms[i] for i in factor.term_indices):
            ratio, fitted = signal_to_noise(term, y)
            y = y - fitted
            own += [str(term.term)] if ratio > INFORMATIVE else []
        found[factor.name] = [factor.name] if len(own) == len(factor.term_indices) else own
    return tuple(name for factor in design.factors for name in found[factor.name])


def checked_centred(design: Design, centred: Sequence[str]) -> tuple[str, ...]:
    """Return what the user wants centred, refusing names of nothing.

    Parameters
    ----------
    design : Design
        Its terms.
    centred : sequence of str
        Grouping factors or terms.

    Returns
    -------
    tuple of str
        The same.

    Raises
    ------
    SamplingError
        If there is no such factor or term.
    """
    known = [*(factor.name for factor in design.factors), *(str(term.term) for term in design.terms)]
    names = (centred,) if isinstance(centred, str) else tuple(centred)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise SamplingError(
                f"centred={name!r} is neither a grouping factor nor a term: {listing(known)}. {hint}".rstrip()
            )
    return names


def signal_to_noise(term: GroupTerm, residual: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return how far the variance between levels exceeds the sampling variance of the least informed level.

    Parameters
    ----------
    term : GroupTerm
        A random term.
    residual : ndarray (n,)
        Response less its regression on X and on the effects of factors with fewer levels.

    Returns
    -------
    ratio : float
        Smallest over the effects of the term; 0 where a level does not determine its effects at all.
    fitted : ndarray (n,)
        The residual's regression on the effects; 0 where it is not determined.
    """
    levels, k = len(term.levels), term.Z.shape[1]
    products, moments = np.zeros((levels, k, k)), np.zeros((levels, k))
    np.add.at(products, term.codes, term.Z[:, :, None] * term.Z[:, None, :])
    np.add.at(moments, term.codes, term.Z * residual[:, None])
    values = np.linalg.eigvalsh(products)
    freedom = len(residual) - levels * k
    if levels < 3 or freedom < 1 or np.any(values[:, 0] <= 1e-9 * values[:, -1]):
        return 0.0, np.zeros(len(residual))
    inverse = np.linalg.inv(products)
    effects = np.einsum("jkl,jl->jk", inverse, moments)
    fitted = (term.Z * effects[term.codes]).sum(axis=1)
    left = residual - fitted
    noise = np.einsum("jkk->jk", inverse) * float(left @ left) / freedom
    signal = np.maximum(effects.var(axis=0, ddof=1) - noise.mean(axis=0), 0.0)
    return float((signal / np.maximum(noise.max(axis=0), 1e-300)).min()), fitted


def run_nutpie(
    model: pm.Model, *, sampler: str, seed: int, progress: bool, target_accept: float, **settings: Any
) -> xr.DataTree:
    """Run nutpie on a PyMC model.

    Parameters
    ----------
    model : pymc.Model
        The model.
    sampler : str
        Always "nutpie".
    seed : int
        Seed.
    progress : bool
        Show a bar.
    target_accept : float
        Acceptance the step size is tuned to.
    **settings : Any
        draws, tune, chains, cores.

    Returns
    -------
    xarray.DataTree
        Its draws.
    """
    import nutpie

    compiled_model = nutpie.compile_pymc_model(model, jitter_rvs=spread_at_start(model))
    return nutpie.sample(
        compiled_model, seed=seed, progress_bar=progress, target_accept=target_accept, save_warmup=False, **settings
    )


def spread_at_start(model: pm.Model) -> set[Any]:
    """Return the variables to which nutpie adds uniform noise at the start of a chain: all but the slopes.

    One unit of a slope is as much as its column's unit makes of it; a chain may start where probabilities round to
    zero, and stay there.

    Parameters
    ----------
    model : pymc.Model
        The model.

    Returns
    -------
    set of TensorVariable
    """
    return {variable for variable in model.free_RVs if variable.name != "slopes" and "beta[" not in variable.name}


def run_pymc(
    model: pm.Model, *, sampler: str, seed: int, progress: bool, target_accept: float, **settings: Any
) -> xr.DataTree:
    """Run one of PyMC's other samplers.

    Parameters
    ----------
    model : pymc.Model
        The model.
    sampler : {"pymc", "numpyro", "blackjax"}
        Which.
    seed : int
        Seed.
    progress : bool
        Show a bar.
    target_accept : float
        Acceptance the step size is tuned to.
    **settings : Any
        draws, tune, chains, cores.

    Returns
    -------
    xarray.DataTree
        Its draws.
    """
    import pymc as pm

    with model:
        return pm.sample(
            nuts_sampler=sampler,
            random_seed=seed,
            progressbar=progress,
            nuts={"target_accept": target_accept},
            **settings,
        )


def relabel(tree: xr.DataTree, design: Design, priors: Priors, wanted: int) -> tuple[xr.DataTree, tuple[str, ...]]:
    """Return PyMC's draws under the names and dimensions all engines share.

    Parameters
    ----------
    tree : DataTree
        From the sampler.
    design : Design
        Names.
    priors : Priors
        Further parameters.
    wanted : int
        Draws asked for; fewer came when the sampler was interrupted.

    Returns
    -------
    data : DataTree
        Groups `posterior`, `sample_stats`, `observed_data` and `constant_data`.
    notes : tuple of str
        Remarks.
    """
    import xarray as xr

    posterior = tree["posterior"].to_dataset()
    names = ["beta"]
    for factor in design.factors:
        names += [f"sd_{factor.name}", f"corr_{factor.name}", f"b_{factor.name}"]
    names += ["sigma", "sigma_ratio", "rho", *priors.aux, "R2", *(f"{name}_beta" for name in design.auxiliary)]
    kept = [name for name in dict.fromkeys(names) if name in posterior]
    statistics = tree["sample_stats"].to_dataset()
    found = {ours: np.asarray(statistics[theirs].values) for theirs, ours in STATISTICS.items() if theirs in statistics}
    probe = posterior["beta"].values if len(design.coef_names) else posterior[kept[-1]].values[..., None]
    probe = probe.reshape(*probe.shape[:2], -1)
    _, found, notes = keep_complete(probe, found, wanted)
    chains = np.flatnonzero(np.isfinite(probe).all(axis=2).any(axis=1))
    draws = next(iter(found.values())).shape[1]
    chosen = posterior[kept].isel(chain=chains, draw=slice(0, draws))
    if not design.coef_names:
        chosen["beta"] = (("chain", "draw", "coef"), np.empty((len(chains), draws, 0)))
    chosen = chosen.assign_coords(chain=np.arange(len(chains)), draw=np.arange(draws))
    stats = xr.Dataset(
        {name: (("chain", "draw"), values) for name, values in found.items() if values.ndim == 2},
        coords={"chain": np.arange(len(chains)), "draw": np.arange(draws)},
    )
    chosen.attrs = {}
    return xr.DataTree.from_dict({"posterior": chosen, "sample_stats": stats, **data_groups(design)}), notes
