"""Checks of a posterior: did the sampler work, do replicated data look like the data, does it predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, did_you_mean, listing

if TYPE_CHECKING:
    import xarray as xr
    from arviz_plots import PlotCollection
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior

MOST_RHAT = 1.01
RHAT_NOISE = 10.0
LEAST_ESS_PER_CHAIN = 100
LEAST_BFMI = 0.3
CURVES = "observed black, replicated blue"
"""Which is which in ArviZ's predictive plots."""
PPC_KINDS: Mapping[str, str] = {
    "dist": "plot_ppc_dist",
    "tstat": "plot_ppc_tstat",
    "pit": "plot_ppc_pit",
    "rootogram": "plot_ppc_rootogram",
    "interval": "plot_ppc_interval",
    "calibration": "plot_ppc_pava",
    "groups": "plot_ppc_interval",
}


@dataclass(frozen=True, repr=False)
class Diagnostics:
    """How the sampler fared, over all parameters.

    Parameters
    ----------
    max_rhat, min_ess_bulk, min_ess_tail : float
        Worst values, group effects included.
    worst : mapping of str to str
        The parameters with those values.
    divergences, deepest : int
        Transitions that diverged, and that reached the greatest tree depth.
    bfmi : float
        Smallest energy fraction of a chain; not a number without energies.
    lines : tuple of str
        The account in words, remedies included.
    ok : bool
        Whether nothing is wrong.
    """

    max_rhat: float
    min_ess_bulk: float
    min_ess_tail: float
    worst: Mapping[str, str]
    divergences: int
    deepest: int
    bfmi: float
    lines: tuple[str, ...]
    ok: bool

    def to_pandas(self) -> pd.Series:
        """Return the figures.

        Returns
        -------
        Series
            One value per diagnostic.
        """
        names = ("max_rhat", "min_ess_bulk", "min_ess_tail", "divergences", "deepest", "bfmi")
        return pd.Series({name: getattr(self, name) for name in names}, name="value")

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return "".join(f"<p>{escape(line)}</p>" for line in self.lines)


def diagnose(post: Posterior) -> Diagnostics:
    """Return R-hat, effective sample sizes, divergences and E-BFMI over all parameters, through ArviZ.

    Parameters
    ----------
    post : Posterior
        The posterior.

    Returns
    -------
    Diagnostics
        With remedies in words.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), *Bayesian Analysis* 16(2).
    """
    draws = dict(flat_parameters(post))
    measures = {
        "rhat": worst_of(draws, "rhat", largest=True),
        "ess_bulk": worst_of(draws, "ess", largest=False, method="bulk"),
        "ess_tail": worst_of(draws, "ess", largest=False, method="tail", prob=(0.05, 0.95)),
    }
    statistics: Mapping[str, Any] = {}
    if "sample_stats" in post.data.children:
        statistics = {str(name): values.values for name, values in post.data["sample_stats"].data_vars.items()}
    divergences = int(statistics["diverging"].sum()) if "diverging" in statistics else 0
    deepest = int(statistics["reached_max_treedepth"].sum()) if "reached_max_treedepth" in statistics else 0
    bfmi = smallest_bfmi(statistics["energy"]) if "energy" in statistics else float("nan")
    figures = {name: value for name, (value, _) in measures.items()}
    remedies = tuple(_remedies(post, figures, divergences, deepest, bfmi))
    return Diagnostics(
        max_rhat=figures["rhat"],
        min_ess_bulk=figures["ess_bulk"],
        min_ess_tail=figures["ess_tail"],
        worst={name: where for name, (_, where) in measures.items()},
        divergences=divergences,
        deepest=deepest,
        bfmi=bfmi,
        lines=(_account(figures, divergences, post), *remedies),
        ok=not remedies,
    )


def flat_parameters(post: Posterior) -> Mapping[str, NDArray[np.float64]]:
    """Return draws (C, D, m) of every variable, elements that never move left out.

    Parameters
    ----------
    post : Posterior
        The posterior.

    Returns
    -------
    mapping of str to ndarray (C, D, m)
        Parameters of the summary under "", group effects under their variable's name.
    """
    stacked = np.stack(list(post.parameters.values()), axis=-1)
    posterior = post.data["posterior"].to_dataset()
    effects = {f"b_{factor.name}": posterior[f"b_{factor.name}"].values for factor in post.design.factors}
    return {"": stacked, **{name: values.reshape(*values.shape[:2], -1) for name, values in effects.items()}}


def worst_of(
    draws: Mapping[str, NDArray[np.float64]], measure: str, *, largest: bool, **options: Any
) -> tuple[float, str]:
    """Return the worst value of one of ArviZ's measures, and where it is.

    Parameters
    ----------
    draws : mapping of str to ndarray (C, D, m)
        Draws.
    measure : {"rhat", "ess"}
        The measure.
    largest : bool
        Whether large is bad.
    **options : Any
        Passed to ArviZ.

    Returns
    -------
    value : float
        The worst value.
    where : str
        Name of the block it stands in, and position.
    """
    from arviz_stats.base import array_stats

    worst, where = (-np.inf if largest else np.inf), ""
    for name, values in draws.items():
        if values.shape[-1] == 0:
            continue
        found = np.asarray(getattr(array_stats, measure)(values, chain_axis=0, draw_axis=1, **options), dtype=float)
        if not np.isfinite(found).any():
            continue
        at = int(np.nanargmax(found) if largest else np.nanargmin(found))
        if (found.flat[at] > worst) == largest and found.flat[at] != worst:
            worst, where = float(found.flat[at]), f"{name}[{at}]"
    return (worst if np.isfinite(worst) else float("nan")), where


def smallest_bfmi(energy: NDArray[np.float64]) -> float:
    """Return the smallest energy Bayesian fraction of missing information over chains.

    Parameters
    ----------
    energy : ndarray (C, D)
        Energies.

    Returns
    -------
    float
        Below 0.3 the chains move slowly through the tails.

    References
    ----------
    Betancourt (2016), arXiv:1604.00695.
    """
    return float((np.square(np.diff(energy, axis=1)).mean(axis=1) / energy.var(axis=1)).min())


def _account(figures: Mapping[str, float], divergences: int, post: Posterior) -> str:
    return (
        f"R-hat at most {figures['rhat']:.3f}; effective draws at least {figures['ess_bulk']:,.0f} (bulk) and "
        f"{figures['ess_tail']:,.0f} (tail) of {post.n_draws:,}, group effects included; "
        f"{divergences} divergence{'s' * (divergences != 1)}."
    )


def _remedies(post: Posterior, figures: Mapping[str, float], divergences: int, deepest: int, bfmi: float) -> list[str]:
    lines = []
    chains = post.data["posterior"].sizes["chain"]
    # The worst of many R-hats of a short run exceeds 1.01 by chance.
    if figures["rhat"] > MOST_RHAT + RHAT_NOISE / post.n_draws:
        lines.append(
            f"Chains disagree (R-hat above {MOST_RHAT}): draw more, with a longer warm-up: tune=2000, draws=4000."
        )
    if min(figures["ess_bulk"], figures["ess_tail"]) < LEAST_ESS_PER_CHAIN * chains:
        lines.append(
            f"Fewer than {LEAST_ESS_PER_CHAIN * chains} effective draws: means and interval ends are rough; draw more."
        )
    if divergences > 0:
        other = ', or engine="marginal"' if post.run.engine == "latent" and post.response.is_gaussian_identity else ""
        lines.append(
            "Divergences: some region could not be followed, and estimates may be biased. Try target_accept=0.99"
            f"{other}; tighter priors on standard deviations help where few groups say little."
        )
    if deepest > 0:
        lines.append(f"{deepest} transitions reached the greatest tree depth: slow, not wrong; rescale the predictors.")
    if bfmi < LEAST_BFMI:
        lines.append("E-BFMI is low: heavy tails slow the chains; use priors with lighter tails, or draw more.")
    return lines


# --- replicated responses ------------------------------------------------------------------------------------------


def replicate_responses(post: Posterior, draws: int, *, marginal: bool, seed: int | None) -> xr.DataTree:
    """Return replicated responses beside the observed one.

    Parameters
    ----------
    post : Posterior
        The posterior.
    draws : int
        Replications.
    marginal : bool
        Whether groups are new ones.
    seed : int or None
        Makes them reproducible.

    Returns
    -------
    xarray.DataTree
        Groups `posterior_predictive` and `observed_data`.
    """
    import xarray as xr

    if post.design.condensation is not None:
        raise DataError(
            f"replicated responses need the rows, and the {post.design.n:,} rows stay in their source.\n"
            '  Statistics of groups do not: ppc(by="g"), plot_ppc("tstat", by="g", t_stat="mean"); or replicate from a '
            "model on a sample."
        )
    design = with_new_groups(post.design) if marginal else post.design
    from bayeslmm.bayes.responses import simulate

    chosen = post._chosen(draws)
    eta = post._linear(design, chosen, "sample" if marginal else "error", None, seed)
    replicated = simulate(post, design, eta, chosen, np.random.default_rng(None if seed is None else [seed, 1]))
    coords = {"chain": [0], "draw": np.arange(len(chosen)), "obs": np.asarray(design.rows)}
    predictive = xr.Dataset({"y": (("chain", "draw", "obs"), replicated[None])}, coords=coords)
    observed = xr.Dataset({"y": (("obs",), post.design.y)}, coords={"obs": np.asarray(design.rows)})
    return xr.DataTree.from_dict({"posterior_predictive": predictive, "observed_data": observed})


def simulate_responses(
    post: Posterior, n: int, new_data: Any, *, keep_effects: bool, seed: int | None
) -> NDArray[np.float64]:
    """Return simulated responses, each from a draw of its own; draws repeat where more are asked for than there are.

    Parameters
    ----------
    post : Posterior
        The posterior.
    n : int
        Responses.
    new_data : data frame, optional
        Rows; the fitted ones when None.
    keep_effects : bool
        Keep the draws of the fitted groups' effects; otherwise every group is a new one.
    seed : int or None
        Makes them reproducible.

    Returns
    -------
    ndarray (n, rows)
        Responses.
    """
    from bayeslmm.bayes.responses import simulate

    if n < 1:
        raise DataError(f"n={n}: at least one response is needed.")
    design = post._design_for(new_data)
    design = design if keep_effects else with_new_groups(design)
    rng = np.random.default_rng(None if seed is None else [seed, 1])
    chosen = rng.choice(post.n_draws, size=n, replace=n > post.n_draws)
    eta = post._linear(design, chosen, "sample", None, seed)
    return simulate(post, design, eta, chosen, rng)


def with_new_groups(design: Any) -> Any:
    """Return the design with every level of every grouping factor replaced by one that was never seen.

    Parameters
    ----------
    design : Design
        The fitted design.

    Returns
    -------
    Design
        Same rows, unseen levels.
    """
    terms = tuple(
        replace(
            term,
            codes=term.codes + np.int32(len(term.levels)),
            new_levels=(*(f"new {name}" for name in term.levels), *term.new_levels),
        )
        for term in design.terms
    )
    return replace(design, terms=terms)


def plot_replications(
    post: Posterior, kind: str, *, by: str | None, draws: int, marginal: bool, seed: int | None, **options: Any
) -> PlotCollection:
    """Plot replicated responses against the observed one.

    Parameters
    ----------
    post : Posterior
        The posterior.
    kind : str
        One of `PPC_KINDS`.
    by : str or None
        A column of the data: one panel per value.
    draws : int
        Replications.
    marginal : bool
        Whether groups are new ones.
    seed : int or None
        Makes them reproducible.
    **options : Any
        Passed to the ArviZ plot.

    Returns
    -------
    PlotCollection
        The plot.
    """
    import arviz_plots

    from bayeslmm.bayes.predictive_views import calibration_view, groups_view

    if kind not in PPC_KINDS:
        hint = did_you_mean(str(kind), PPC_KINDS)
        raise DataError(f"kind={kind!r} is not one of {listing(map(repr, PPC_KINDS))}. {hint}".rstrip())
    options = with_room_for_labels(options)
    if kind == "groups":
        return groups_view(post, by, draws=draws, marginal=marginal, seed=seed, **options)
    if kind == "calibration":
        if by is not None:
            raise DataError('a calibration curve is of all rows; kind="groups" with by= shows the groups.')
        return calibration_view(post, draws=draws, marginal=marginal, seed=seed, **options)
    if kind == "tstat" and by is not None and (post.design.condensation is not None or _of_groups(options)):
        from bayeslmm.bayes.group_checks import as_variables, group_statistics

        name = options.pop("t_stat", "mean")
        name = "sd" if name == "std" else name
        groups = group_statistics(post, by, (name,), draws, marginal=marginal, seed=seed)
        # Each panel holds one observation, the statistic itself: its mean is itself.
        plot = arviz_plots.plot_ppc_tstat(as_variables(groups, by, name), t_stat="mean", **options)
        return name_the_axis(plot, f"{name} of {post.design.response_name}")
    tree = replicate_responses(post, draws, marginal=marginal, seed=seed)
    labels = None if by is None else column_labels(post, by)
    response = post.design.response_name
    for group in ("posterior_predictive", "observed_data"):
        dataset = tree[group].to_dataset()
        if kind == "rootogram":
            dataset["y"] = as_counts(dataset["y"])
        tree[group] = dataset.rename(y=variable(response)) if labels is None else split_by(dataset, labels, str(by))
    if kind not in ("dist", "tstat"):
        return getattr(arviz_plots, PPC_KINDS[kind])(tree, **options)
    if kind == "dist":
        options.setdefault("num_samples", min(draws, 50))
    if labels is None:
        options["visuals"] = {"title": False, **options.get("visuals", {})}
    plot = getattr(arviz_plots, PPC_KINDS[kind])(tree, **options)
    if kind == "dist":
        return name_the_axis(plot, response)
    statistic = options.get("t_stat", "median")
    return name_the_axis(plot, f"{getattr(statistic, '__name__', statistic)} of {response}")


def with_room_for_labels(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of an ArviZ plot under which a saved matplotlib figure does not cut its labels off.

    Parameters
    ----------
    options : mapping
        As the caller gave them.

    Returns
    -------
    dict
        The same, with a layout for matplotlib.
    """
    import arviz_base

    if options.get("backend", arviz_base.rcParams["plot.backend"]) not in ("matplotlib", "auto"):
        return dict(options)
    return {**options, "figure_kwargs": {"layout": "constrained", **options.get("figure_kwargs", {})}}


def name_the_axis(plot: PlotCollection, text: str) -> PlotCollection:
    """Write below each panel what its axis measures and which curve is which: ArviZ's own plots leave both out.

    Parameters
    ----------
    plot : PlotCollection
        Replicated values beside the observed one.
    text : str
        What is measured.

    Returns
    -------
    PlotCollection
        The same plot.
    """
    from arviz_plots.visuals import labelled_x

    plot.map(labelled_x, "xlabel", ignore_aes="all", text=f"{text}: {CURVES}")
    return plot


def as_counts(values: xr.DataArray) -> xr.DataArray:
    """Return counts as integers: a rootogram has a bar for each.

    Parameters
    ----------
    values : DataArray
        Observed or replicated responses.

    Returns
    -------
    DataArray
        The same values.

    Raises
    ------
    DataError
        If they are not whole numbers.
    """
    if (values != np.round(values)).any():
        raise DataError('a rootogram is for counts, and the response is not whole. Say kind="dist" or kind="pit".')
    return values.astype(np.int64)


def variable(name: str) -> str:
    """Return a name that xarray takes: in a DataTree the slash separates groups.

    Parameters
    ----------
    name : str
        A response as typed, a level.

    Returns
    -------
    str
        The same to the eye.
    """
    return name.replace("/", "\N{DIVISION SLASH}")


def _of_groups(options: Mapping[str, Any]) -> bool:
    """Return whether a statistic is one that ArviZ does not name."""
    return options.get("t_stat") in ("sd", "zeros", "ones")


def column_labels(post: Posterior, by: str) -> NDArray[np.object_]:
    """Return the values of a column of the data as text, one per row.

    Parameters
    ----------
    post : Posterior
        The posterior.
    by : str
        The column, or a grouping factor.

    Returns
    -------
    ndarray (n,)
        Labels.
    """
    for factor in post.design.factors:
        if factor.name == by:
            return np.asarray(factor.members, dtype=object)[factor.member_codes]
    columns = list(post.design.data.columns)
    if by not in columns:
        hint = did_you_mean(by, columns)
        raise DataError(f"there is no column {by!r} to plot by.\n  Columns: {listing(columns)}. {hint}".rstrip())
    return post.design.data[by].astype(str).to_numpy(dtype=object)


def split_by(dataset: xr.Dataset, labels: NDArray[np.object_], by: str) -> Any:
    """Return a dataset with one variable per label in place of `y`.

    Parameters
    ----------
    dataset : Dataset
        With `y` over `obs`.
    labels : ndarray (n,)
        One label per row.
    by : str
        The column they come from.

    Returns
    -------
    DataTree
        Variables named by column and label.
    """
    import xarray as xr

    parts = {}
    for number, label in enumerate(dict.fromkeys(labels)):
        rows = np.flatnonzero(labels == label)
        part = dataset["y"].isel(obs=rows).rename(obs=f"obs_{number}")
        parts[variable(f"{by}: {label}")] = part
    return xr.DataTree(xr.Dataset(parts))


# --- predictive accuracy -------------------------------------------------------------------------------------------


def leave_one_out(post: Posterior, group: str | None = None) -> Any:
    """Return leave-one-out cross-validation through ArviZ.

    Parameters
    ----------
    post : Posterior
        The posterior.
    group : str or None
        A grouping factor whose levels are left out one by one; rows when None.

    Returns
    -------
    ELPDData
        Expected log predictive density.
    """
    import arviz_stats

    return arviz_stats.loo(log_likelihood_tree(post, group))


def log_likelihood_tree(post: Posterior, group: str | None = None) -> xr.DataTree:
    """Return the posterior with a group `log_likelihood`: of rows given their groups, or of whole groups.

    Parameters
    ----------
    post : Posterior
        The posterior.
    group : str or None
        A grouping factor.

    Returns
    -------
    xarray.DataTree
        For `arviz.loo` and `arviz.compare`.
    """
    import xarray as xr

    shape = post.data["posterior"].sizes["chain"], post.data["posterior"].sizes["draw"]
    if group is None:
        values, dim = post.log_likelihood(), "obs"
        labels: list[Any] = list(post.design.rows)
    else:
        from bayeslmm.bayes.groups import group_log_likelihood

        values, levels = group_log_likelihood(post, group)
        dim, labels = group, list(levels)
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), dim: labels}
    pointwise = xr.Dataset({"y": (("chain", "draw", dim), values.reshape(*shape, -1))}, coords=coords)
    parameters = xr.Dataset({name: (("chain", "draw"), draws) for name, draws in post.parameters.items()})
    return xr.DataTree.from_dict({"posterior": parameters, "log_likelihood": pointwise})
