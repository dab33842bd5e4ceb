"""Are probabilities borne out, and are groups? Calibration curves and intervals of group statistics, drawn by ArviZ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import DataError, listing

if TYPE_CHECKING:
    import xarray as xr
    from arviz_plots import PlotCollection
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior

CALIBRATION_DRAWS = 1000
"""Replications behind a calibration curve: the share of ones among them is the probability on its axis."""
MOST_NAMED = 40
BINARY = ("bernoulli", "binomial", "beta_binomial")


def calibration_view(
    post: Posterior, *, draws: int, marginal: bool, seed: int | None, **options: Any
) -> PlotCollection:
    """Plot how often an event happened against how probable it was said to be, by isotonic regression.

    Parameters
    ----------
    post : Posterior
        Of a binary, binomial or ordered response; an ordered one has a curve for each threshold.
    draws : int
        Replications; at least `CALIBRATION_DRAWS` are used.
    marginal : bool
        Whether groups are new ones.
    seed : int or None
        Makes them reproducible.
    **options : Any
        Passed to ArviZ's `plot_ppc_pava`.

    Returns
    -------
    PlotCollection
        The plot, with the band in which a calibrated model's curve would lie.

    Raises
    ------
    DataError
        If the response has no probabilities.

    References
    ----------
    Dimitriadis, Gneiting & Jordan (2021), *PNAS* 118(8).
    """
    import arviz_plots

    from bayeslmm.bayes.checks import replicate_responses, variable

    family = post.response
    ordered = family.parameter == "threshold"
    if not (ordered or family.name in BINARY):
        raise DataError(
            f"a calibration curve is for binary, binomial and ordered responses, not for the family {family.name!r}.\n"
            '  kind="pit" shows the calibration of any other.'
        )
    tree = replicate_responses(post, max(draws, CALIBRATION_DRAWS), marginal=marginal, seed=seed)
    if post.design.trials is not None:
        tree = single_trials(tree, post.design.trials, np.random.default_rng(None if seed is None else [seed, 2]))
    for group in ("posterior_predictive", "observed_data"):
        named = tree[group].to_dataset().rename(y=variable(post.design.response_name))
        tree[group] = named.astype(np.int64)
    labels = {"xlabel": {"text": "probability according to the model"}, "ylabel": {"text": "share that happened"}}
    options["visuals"] = {**labels, **options.get("visuals", {})}
    return arviz_plots.plot_ppc_pava(tree, data_type="ordinal" if ordered else "binary", **options)


def single_trials(tree: xr.DataTree, trials: NDArray[np.float64], rng: np.random.Generator) -> xr.DataTree:
    """Return proportions of trials as single trials, the successes of a row at random places.

    Parameters
    ----------
    tree : DataTree
        `posterior_predictive` and `observed_data` with proportions `y` over `obs`.
    trials : ndarray (n,)
        Trials of each row.
    rng : numpy Generator
        Of the places.

    Returns
    -------
    DataTree
        The same with 0 and 1 over all trials.
    """
    import xarray as xr

    counts = np.round(trials).astype(np.intp)
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)

    def split(proportions: NDArray[np.float64]) -> NDArray[np.int64]:
        successes = np.round(proportions * trials)[:, row] > place
        order = np.argsort(row + rng.random((len(proportions), len(row))), axis=1)
        out = np.empty(successes.shape, dtype=np.int64)
        np.put_along_axis(out, order, successes.astype(np.int64), axis=1)
        return out

    replicated = split(tree["posterior_predictive"].to_dataset()["y"].values[0])
    observed = split(tree["observed_data"].to_dataset()["y"].values[None])[0]
    return xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset({"y": (("chain", "draw", "trial"), replicated[None])}),
            "observed_data": xr.Dataset({"y": (("trial",), observed)}),
        }
    )


def groups_view(
    post: Posterior, by: str | None, *, draws: int, marginal: bool, seed: int | None, **options: Any
) -> PlotCollection:
    """Plot a statistic of every group beside the intervals of its replications.

    Parameters
    ----------
    post : Posterior
        The posterior.
    by : str or None
        A grouping factor or a column.
    draws : int
        Replications.
    marginal : bool
        Whether groups are new ones.
    seed : int or None
        Makes them reproducible.
    **options : Any
        `t_stat` ("mean", "sd", "zeros" or "ones"); the rest is passed to ArviZ's `plot_ppc_interval`.

    Returns
    -------
    PlotCollection
        The plot; groups in the order of the observed statistic.

    Raises
    ------
    DataError
        If no grouping is given.
    """
    import arviz_plots

    from bayeslmm.bayes.checks import CURVES
    from bayeslmm.bayes.group_checks import group_statistics

    if by is None:
        names = listing(factor.name for factor in post.design.factors)
        raise DataError(f'kind="groups" needs by=, a grouping factor or a column. Factors: {names}.')
    name = options.pop("t_stat", "mean")
    name = "sd" if name == "std" else name
    tree = group_statistics(post, by, (name,), draws, marginal=marginal, seed=seed)
    observed = tree["observed_data"].to_dataset()
    order = np.argsort(observed[name].values, kind="stable")
    levels = [str(level) for level in observed[by].values[order]]
    proportion = name == "mean" and post.family in BINARY
    label = "proportion" if proportion else name
    for group in ("posterior_predictive", "observed_data"):
        tree[group] = tree[group].to_dataset().isel({by: order}).rename({name: label})
    axis = f"{by}: {post.design.response_name} {CURVES}"
    options["visuals"] = {"xlabel": {"text": axis}, **options.get("visuals", {})}
    options.setdefault("ci_kind", "eti")
    plot = arviz_plots.plot_ppc_interval(tree, **options)
    if plot.backend == "matplotlib" and len(levels) <= MOST_NAMED:
        for ax in plot.viz["figure"].item().axes:
            ax.set_xticks(range(len(levels)), levels, rotation=90 if len("".join(levels)) > MOST_NAMED else 0)
    return plot
