"""Is a posterior calibrated? Truths from the prior, data from the truths, and where the truths rank among the draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.bayes.refit import Refit, refitter
from bayeslmm.bayes.simulation import PriorDraws, prior_draws
from bayeslmm.errors import DataError, SamplingError, did_you_mean, listing
from bayeslmm.formula.residuals import refuse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Design
    from bayeslmm.models import Model

BAND_SIMULATIONS = 4000
PANEL_COLUMNS = 3
CHAINS = 4
THIN = 8


@dataclass(frozen=True, repr=False)
class Calibration:
    """Ranks of true values among posterior draws, uniform when prior, likelihood and sampler fit together.

    Parameters
    ----------
    ranks : DataFrame (n_sims, parameters)
        Rank of the true value, 0 to `n_draws`.
    n_draws : int
        Draws the ranks are taken among.
    pareto_k : ndarray (n_sims,)
        How far each posterior's approximation could be trusted; not a number where the engine was exact.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv:1804.06788; Säilynoja, Bürkner & Vehtari (2022),
    *Statistics and Computing* 32, 32.
    """

    ranks: pd.DataFrame
    n_draws: int
    pareto_k: NDArray[np.float64]

    def bands(self, level: float = 0.95) -> pd.DataFrame:
        """Return the simultaneous band that the ECDF of uniform ranks stays in with this probability.

        Parameters
        ----------
        level : float, default 0.95
            Probability that the whole curve is inside.

        Returns
        -------
        DataFrame
            Columns `z`, `lower`, `upper`: for each possible rank the uniform probability of at most that rank.
        """
        from arviz_stats.ecdf_utils import get_pointwise_confidence_band, simulate_confidence_bands

        z = np.arange(1, self.n_draws + 1) / (self.n_draws + 1)
        rng = np.random.default_rng(0)
        pointwise = simulate_confidence_bands(len(self.ranks), 1, z, level, BAND_SIMULATIONS, rng)
        lower, upper = get_pointwise_confidence_band(pointwise, len(self.ranks), z)
        return pd.DataFrame({"z": z, "lower": lower, "upper": upper})

    def ecdf(self, name: str) -> NDArray[np.float64]:
        """Return the share of simulations with at most each possible rank but the last.

        Parameters
        ----------
        name : str
            A parameter.

        Returns
        -------
        ndarray (n_draws,)
            At `bands()["z"]`.
        """
        if name not in self.ranks:
            names = [str(column) for column in self.ranks]
            hint = did_you_mean(name, names)
            raise DataError(f"there is no parameter {name!r}.\n  Parameters: {listing(names)}. {hint}".rstrip())
        return np.searchsorted(np.sort(self.ranks[name]), np.arange(self.n_draws), side="right") / len(self.ranks)

    def uniformity(self, bins: int = 10, level: float = 0.95) -> pd.DataFrame:
        """Return for each parameter a chi-squared test of uniform ranks, and whether their ECDF stays in its band.

        Parameters
        ----------
        bins : int, default 10
            Bins of equal width.
        level : float, default 0.95
            Of the simultaneous band.

        Returns
        -------
        DataFrame
            Columns `chisq`, `p`, `inside`, and `farthest`, the largest distance of the ECDF from the diagonal.
        """
        band = self.bands(level)
        edges = np.linspace(-0.5, self.n_draws + 0.5, bins + 1)
        sizes = np.histogram(np.arange(self.n_draws + 1), edges)[0]
        rows = {}
        for name in self.ranks:
            counts = np.histogram(self.ranks[name], edges)[0]
            test = stats.chisquare(counts, len(self.ranks) * sizes / sizes.sum())
            ecdf = self.ecdf(str(name))
            inside = bool(((ecdf >= band["lower"]) & (ecdf <= band["upper"])).all())
            farthest = float(np.abs(ecdf - band["z"]).max())
            rows[name] = (float(test.statistic), float(test.pvalue), inside, farthest)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["chisq", "p", "inside", "farthest"])

    def plot(self, kind: str = "ecdf", *, level: float = 0.95, bins: int = 20) -> Figure:
        """Plot the ranks of every parameter, a panel each.

        Parameters
        ----------
        kind : {"ecdf", "rank"}, default "ecdf"
            ECDF less the diagonal with its simultaneous band, or histograms with the band of a bin.
        level : float, default 0.95
            Of the bands.
        bins : int, default 20
            Of the histograms.

        Returns
        -------
        Figure
            matplotlib's.
        """
        from bayeslmm.report.plots import clean, new_figure

        panels = {"ecdf": self._ecdf_panel, "rank": self._rank_panel}
        if kind not in panels:
            hint = did_you_mean(str(kind), panels)
            raise DataError(f"kind={kind!r} is not one of {listing(map(repr, panels))}. {hint}".rstrip())
        columns = min(PANEL_COLUMNS, len(self.ranks.columns))
        lines = -(-len(self.ranks.columns) // columns)
        figure = new_figure(3.2 * columns, 2.4 * lines)
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for name, ax in zip(self.ranks, axes, strict=False):
            panels[kind](ax, str(name), level, bins)
            ax.set_title(str(name), fontsize=9)
            clean(ax)
        for ax in axes[len(self.ranks.columns) :]:
            ax.set_visible(False)
        return figure

    def _ecdf_panel(self, ax: Axes, name: str, level: float, bins: int) -> None:
        from bayeslmm.report.plots import BLUE, GREY

        band = self.bands(level)
        z = band["z"].to_numpy()
        ax.fill_between(z, band["lower"] - z, band["upper"] - z, color=GREY, alpha=0.3, step="post", linewidth=0)
        ax.step(z, self.ecdf(name) - z, color=BLUE, where="post")
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set_xlabel("fractional rank")
        ax.set_ylabel("ECDF - uniform")

    def _rank_panel(self, ax: Axes, name: str, level: float, bins: int) -> None:
        from bayeslmm.report.plots import BLUE, GREY

        edges = np.linspace(-0.5, self.n_draws + 0.5, bins + 1)
        expected = stats.binom(len(self.ranks), 1 / bins)
        ax.axhspan(expected.ppf((1 - level) / 2), expected.ppf((1 + level) / 2), color=GREY, alpha=0.3, linewidth=0)
        ax.hist(self.ranks[name], edges.tolist(), color=BLUE, alpha=0.8)
        ax.set_xlabel("rank")

    def __repr__(self) -> str:
        title = f"Simulation-based calibration, {len(self.ranks)} data sets, ranks among {self.n_draws} draws"
        return f"{title}\n{self.uniformity().round(4).to_string()}"


def sbc(
    model: Model, n_sims: int = 200, *, draws: int = 100, seed: int = 0, engine: Any = None, workers: int = -1
) -> Calibration:
    """Check the sampler by simulation: draw truths from the prior, data from the truths, and rank the truths.

    Beside the parameters, the first level's effects of each grouping factor and the log likelihood of all rows are
    ranked: the latter sees errors that leave every single margin as it was.

    Parameters
    ----------
    model : Model
        The model; its priors are held fixed while the response is replaced. The PyMC model is compiled once.
    n_sims : int, default 200
        Data sets.
    draws : int, default 100
        Nearly independent draws of each posterior the truth is ranked among.
    seed : int, default 0
        Makes all of it reproducible, whatever the number of workers.
    engine : {"marginal", "laplace", "latent"}, optional
        As in `sample`.
    workers : int, default -1
        Threads, through joblib; -1 for all processors.

    Returns
    -------
    Calibration
        Ranks, tests of their uniformity, plots.

    Raises
    ------
    SamplingError
        If there are no simulations or too few draws.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> calibration = sbc(m, n_sims=2, draws=20, seed=1)

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari & Gelman (2018), arXiv:1804.06788; Modrák et al. (2023), *Bayesian Analysis*.
    """
    from joblib import Parallel, delayed

    if n_sims < 1:
        raise SamplingError(f"n_sims={n_sims!r} must be at least 1.")
    if draws < 1:
        raise SamplingError(f"draws={draws!r} must be at least 1.")
    if model.design.limits is not None or model.design.auxiliary:
        raise SamplingError("sbc() is for models of one formula whose response is neither censored nor truncated.")
    refuse(model.design.residuals, "sbc()", "Leave residuals= out: all other priors are the same.")
    truth = prior_draws(model.design, model.family, model.priors, n_sims, seed)
    refit = refitter(model.design, model.family, model.priors, engine)
    work = (delayed(ranks_of)(model.design, truth, i, refit, draws, seed + i) for i in range(n_sims))
    rows, pareto_k = zip(*Parallel(n_jobs=workers, prefer="threads")(work), strict=True)
    return Calibration(pd.DataFrame(list(rows)), draws, np.array(pareto_k))


def ranks_of(
    design: Design, truth: PriorDraws, i: int, refit: Refit, draws: int, seed: int
) -> tuple[dict[str, int], float]:
    """Return the ranks of the true values of one simulation.

    Parameters
    ----------
    design : Design
        The rows.
    truth : PriorDraws
        All truths.
    i : int
        The simulation.
    refit : callable
        Draws from the posterior.
    draws : int
        Draws the truth is ranked among.
    seed : int
        Seed.

    Returns
    -------
    ranks : dict of str to int
        By parameter.
    pareto_k : float
        Of the posterior's approximation.
    """
    part = replace(design, y=truth.y[i])
    post = refit(part, None, draws=-(-draws * THIN // CHAINS), chains=CHAINS, seed=seed, cores=1)
    values = true_values(post, truth, i)
    found = ranked_draws(post)
    ranks = {name: int((found[name][::THIN][:draws] < value).sum()) for name, value in values.items()}
    return ranks, post.run.pareto_k


def ranked_draws(post: Posterior) -> dict[str, NDArray[np.float64]]:
    """Return the draws (S,) of everything that is ranked.

    Parameters
    ----------
    post : Posterior
        The posterior.

    Returns
    -------
    dict of str to ndarray (S,)
        Parameters, effects of the first level of each factor, log likelihood.
    """
    found = {name: values.ravel() for name, values in post.parameters.items()}
    for factor in post.design.factors:
        effects = post.draws(f"b_{factor.name}")[:, 0]
        found |= {_effect_name(factor, k): effects[:, k] for k in range(effects.shape[1])}
    return found | {"log likelihood": post.log_likelihood().sum(axis=1)}


def _effect_name(factor: Any, k: int) -> str:
    return f"b_{factor.name}[{factor.levels[0]},{factor.effects[k]}]"


def true_values(post: Posterior, truth: PriorDraws, i: int) -> dict[str, float]:
    """Return the true value of everything that is ranked, of one simulation.

    Parameters
    ----------
    post : Posterior
        Names of the parameters.
    truth : PriorDraws
        The truths.
    i : int
        The simulation.

    Returns
    -------
    dict of str to float
        Values.
    """
    one = replace(post, data=truth.tree(post.design, slice(i, i + 1)))
    return {name: float(values[0]) for name, values in ranked_draws(one).items()}
