"""A posterior: draws in a plain DataTree, answering the same words as a REML fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.contract import Fit, NewLevels, RandomEffects, level_effects
from bayeslmm.errors import DataError
from bayeslmm.formula.design import take_rows
from bayeslmm.predict import linear_predictor, numeric_column, predict_lazily, stays_in_engine
from bayeslmm.report.tables import Table
from bayeslmm.report.varcorr import VarCorr, VarCorrEntry

if TYPE_CHECKING:
    import xarray as xr
    from arviz_plots import PlotCollection
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.bayes.checks import Diagnostics
    from bayeslmm.bayes.effects import EffectDraws
    from bayeslmm.bayes.inference import Hypothesis
    from bayeslmm.bayes.linear_forms import HypothesisDraws, MarginalMeanDraws
    from bayeslmm.bayes.priors import Priors
    from bayeslmm.bayes.shares import IccDraws, PartitionDraws, R2Draws
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design
    from bayeslmm.likelihood.lmm import LmmKernel

CHUNK_NUMBERS = 1 << 23


@dataclass(frozen=True)
class Run:
    """How a posterior was drawn.

    Parameters
    ----------
    engine : {"marginal", "latent"}
        Group effects integrated out, or parameters of the PyMC model.
    method : str
        "NUTS" or "independent proposals".
    sampler : str
        What ran, with its version.
    draws, chains, tune : int
        Draws and warm-up steps per chain, and chains.
    seed : int
        The seed used.
    seconds : float
        Wall time, without the compiling of our own code, which is done once on a machine.
    pareto_k : float
        Tail shape of the importance weights; not a number for NUTS.
    reason : str
        Why this engine and method.
    notes : tuple of str
        Remarks for the reader.
    """

    engine: str
    method: str
    sampler: str
    draws: int
    chains: int
    tune: int
    seed: int
    seconds: float
    pareto_k: float = float("nan")
    reason: str = ""
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, repr=False, eq=False)
class Posterior(Fit):
    """Draws from the posterior of a hierarchical model.

    Parameters
    ----------
    design : Design
        The formula met by data.
    response : Family
        Response family with its link.
    priors : Priors
        Every prior.
    data : xarray.DataTree
        Groups `posterior`, `sample_stats`, `observed_data`, `constant_data`; plain ArviZ from here on.
    run : Run
        How it was drawn.
    kernel : LmmKernel, optional
        The likelihood kernel of a Gaussian model.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
    >>> post.engine, list(post.parameter_frame().index)
    ('NUTS (marginal)', ['Intercept', 'sd_Batch[Intercept]', 'sigma'])
    """

    design: Design
    response: Family
    priors: Priors
    data: xr.DataTree
    run: Run
    kernel: LmmKernel | None = None

    # --- draws ---------------------------------------------------------------------------------------------------

    @property
    def family(self) -> str:
        """Name of the response family."""
        return self.response.name

    @property
    def engine(self) -> str:
        """Method and engine: "NUTS (marginal)"."""
        return f"{self.run.method} ({self.run.engine})"

    @property
    def n_draws(self) -> int:
        """Draws of all chains together."""
        sizes = self.data["posterior"].sizes
        return int(sizes["chain"] * sizes["draw"])

    def draws(self, name: str) -> NDArray[np.float64]:
        """Return all draws of a variable, chains one after the other.

        Parameters
        ----------
        name : str
            A variable of the group `posterior`.

        Returns
        -------
        ndarray (S, ...)
            Its draws.

        Raises
        ------
        DataError
            If there is no such variable.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> m.sample(draws=100, chains=2, seed=1, progress=False).draws("b_Batch").shape
        (200, 6, 1)
        """
        posterior = self.data["posterior"]
        if name not in posterior.data_vars:
            known = ", ".join(map(str, posterior.data_vars))
            raise DataError(f"the posterior has no variable {name!r}.\n  Variables: {known}.")
        values = np.asarray(posterior[name].values)
        return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])

    @cached_property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """Draws (chains, draws) of every coefficient, SD, correlation, sigma and further parameter, by name."""
        return dict(parameter_draws(self.design, self.data["posterior"].to_dataset(), self.priors))

    # --- estimates -----------------------------------------------------------------------------------------------

    @property
    def fixef(self) -> pd.Series:
        """Posterior means of the coefficients."""
        return pd.Series(self.draws("beta").mean(axis=0), index=list(self.design.coef_names), name="mean")

    @property
    def vcov(self) -> pd.DataFrame:
        """Posterior covariance of the coefficients (p, p)."""
        names = list(self.design.coef_names)
        beta = self.draws("beta")
        covariance = np.cov(beta, rowvar=False).reshape(len(names), len(names)) if names else np.zeros((0, 0))
        return pd.DataFrame(covariance, index=names, columns=names)

    @property
    def sigma(self) -> float:
        """Posterior mean of the residual standard deviation; 1 for families without one."""
        return float(self.data["posterior"]["sigma"].mean()) if "sigma" in self.data["posterior"].data_vars else 1.0

    @cached_property
    def ranef(self) -> RandomEffects:
        """Posterior means of the group effects with their posterior covariance."""
        modes, cov = {}, {}
        for i, factor in enumerate(self.design.factors):
            draws = self.draws(f"b_{factor.name}").astype(np.float64, copy=False)
            mean = draws.mean(axis=0)
            deviations = draws - mean
            within = np.einsum("sjk,sjl->jkl", deviations, deviations) / (len(draws) - 1)
            modes[factor.name], cov[factor.name] = level_effects(self.design, i, mean, within)
        return RandomEffects(modes, cov)

    @cached_property
    def varcorr(self) -> VarCorr:
        """Posterior means of standard deviations and correlations, term by term, and of sigma."""
        entries = []
        for factor in self.design.factors:
            sd = self.draws(f"sd_{factor.name}").mean(axis=0)
            has_corr = f"corr_{factor.name}" in self.data["posterior"].data_vars
            corr = self.draws(f"corr_{factor.name}").mean(axis=0) if has_corr else None
            at = 0
            for index in factor.term_indices:
                term = self.design.terms[index]
                part = slice(at, at + len(term.effects))
                at = part.stop
                own = None if corr is None or self.priors.corr(index) is None else corr[part, part]
                shown = term.shown_effects
                entries.append(VarCorrEntry(factor.name, shown, sd[part][: len(shown)], own))
        has_sigma = "sigma" in self.data["posterior"].data_vars
        if self.design.residuals is None:
            return VarCorr(tuple(entries), self.sigma if has_sigma else None)
        means = {name: float(draws.mean()) for name, draws in self.parameters.items()}
        levels = self.design.residuals.levels
        ratios = [self.parameters[f"sigma_ratio[{level}]"] for level in levels[1:]]
        sds = [self.sigma, *(float((self.parameters["sigma"] * ratio).mean()) for ratio in ratios)]
        strata = tuple(zip(levels, sds, strict=True)) if levels else ()
        return VarCorr(tuple(entries), self.sigma, strata, means.get("rho"))

    # --- uncertainty ---------------------------------------------------------------------------------------------

    def parameter_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return posterior mean, SD and central interval of every parameter but the group effects.

        Parameters
        ----------
        level : float, default 0.95
            Probability inside the interval.

        Returns
        -------
        DataFrame
            Columns `kind`, `estimate`, `se`, `lower`, `upper`, indexed by parameter.
        """
        tail = (1 - checked_level(level)) / 2
        rows = {}
        for name, draws in self.parameters.items():
            lower, upper = np.quantile(draws, [tail, 1 - tail])
            rows[name] = (self._kind(name), draws.mean(), draws.std(ddof=1), lower, upper)
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=["kind", "estimate", "se", "lower", "upper"])
        return frame.rename_axis("parameter")

    def _kind(self, name: str) -> str:
        if name in self.design.coef_names:
            return "fixed"
        for kind in ("sd", "corr"):
            if any(name.startswith(f"{kind}_{factor.name}[") for factor in self.design.factors):
                return kind
        return "sigma" if name == "sigma" else "aux"

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Return central posterior intervals.

        Parameters
        ----------
        level : float, default 0.95
            Probability inside the interval.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`.
        """
        return self.parameter_frame(level)[["lower", "upper"]]

    def summary(self, level: float = 0.95) -> PosteriorSummary:
        """Return means, SDs, intervals, R-hat and effective sample sizes of all parameters but the group effects.

        Parameters
        ----------
        level : float, default 0.95
            Probability inside the interval.

        Returns
        -------
        PosteriorSummary
            Prints in a terminal and renders in a notebook.
        """
        return summarise(self, level)

    @cached_property
    def diagnostics_record(self) -> Diagnostics:
        """What `diagnostics()` returns."""
        from bayeslmm.bayes.checks import diagnose

        return diagnose(self)

    def diagnostics(self) -> Diagnostics:
        """Return R-hat, effective sample sizes, divergences and E-BFMI over all parameters, with remedies in words.

        Returns
        -------
        Diagnostics
            Prints its account.
        """
        return self.diagnostics_record

    # --- prediction ----------------------------------------------------------------------------------------------

    def _chosen(self, draws: int | None) -> NDArray[np.intp]:
        """Return positions of `draws` draws, evenly spread over all."""
        total = self.n_draws
        if draws is None or draws >= total:
            return np.arange(total)
        if draws < 1:
            raise DataError(f"draws={draws!r} must be at least 1.")
        return np.linspace(0, total - 1, draws).round().astype(np.intp)

    def _linear(
        self,
        design: Design,
        chosen: NDArray[np.intp],
        new_levels: NewLevels,
        include: Sequence[str] | None,
        seed: int | None,
    ) -> NDArray[np.float64]:
        names = [factor.name for factor in self.design.factors]
        covariances = None
        if new_levels == "sample" and any(factor.new_levels for factor in design.factors):
            covariances = {name: value[chosen] for name, value in self.effect_covariances().items()}
        return linear_predictor(
            design,
            self.draws("beta")[chosen],
            {name: self.draws(f"b_{name}")[chosen] for name in names},
            covariances=covariances,
            new_levels=new_levels,
            include=include,
            rng=np.random.default_rng(seed),
        )

    def _design_for(self, new_data: Any) -> Design:
        return self.design if new_data is None else self.design.at(new_data)

    def effect_covariances(self) -> dict[str, NDArray[np.float64]]:
        """Return draws of the covariance (S, K, K) of each grouping factor's effects.

        Returns
        -------
        dict of str to ndarray (S, K, K)
            In units of the linear predictor, squared.
        """
        covariances = {}
        for factor in self.design.factors:
            sd = self.draws(f"sd_{factor.name}")
            scale = sd[:, :, None] * sd[:, None, :]
            name = f"corr_{factor.name}"
            corr = self.draws(name) if name in self.data["posterior"].data_vars else np.eye(sd.shape[1])
            covariances[factor.name] = scale * corr
        return covariances

    def linpred_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return posterior draws of the linear predictor.

        Parameters
        ----------
        new_data : data frame, optional
            Rows to predict; the fitted rows when absent.
        new_levels : {"error", "zero", "sample"}, default "error"
            Policy for unseen levels.
        include : sequence of str, optional
            Grouping factors that count; all when absent, none when empty.
        draws : int, optional
            How many, spread evenly over all; all when absent.
        seed : int, optional
            Makes the effects of unseen levels reproducible.

        Returns
        -------
        ndarray (S, n)
            The draws.
        """
        return self._linear(self._design_for(new_data), self._chosen(draws), new_levels, include, seed)

    def epred_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return posterior draws of the expected response (S, n). See `linpred_draws`.

        Of an ordered response, the probability of each category (S, n, C).
        """
        design, chosen = self._design_for(new_data), self._chosen(draws)
        return self._expected(design, self._linear(design, chosen, new_levels, include, seed), chosen)

    def _expected(self, design: Design, eta: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        if self.response.parameter == "threshold":
            from bayeslmm.bayes.bambi import category_probabilities

            return category_probabilities(self, eta, chosen)
        mu = eta if self.response.link == "identity" else self.response.inverse_link(eta)
        if self.response.row.loglik is not None:
            return mu
        from bayeslmm.bayes.bambi import expected_response

        return expected_response(self, design, mu, chosen)

    def predictive_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return posterior draws of new responses (S, n). See `linpred_draws`."""
        from bayeslmm.bayes.responses import simulate

        design = self._design_for(new_data)
        chosen = self._chosen(draws)
        eta = self._linear(design, chosen, new_levels, include, seed)
        rng = np.random.default_rng(None if seed is None else [seed, 1])
        return simulate(self, design, eta, chosen, rng)

    def predict(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        interval: Literal["confidence", "prediction"] | None = None,
        level: float = 0.95,
        seed: int | None = 0,
    ) -> Any:
        """Return the posterior mean of the expected response per row, with an SD and an interval when asked.

        Rows are worked through in chunks, so memory does not grow with their number.

        Parameters
        ----------
        new_data : data frame or table of an engine, optional
            Rows to predict; the fitted rows when absent. Rows in an engine stay there: see Returns.
        new_levels : {"error", "zero", "sample"}, default "error"
            Policy for unseen levels.
        include : sequence of str, optional
            Grouping factors that count; all when absent, the population mean when empty.
        interval : {"confidence", "prediction"}, optional
            For the expected response, or for a new observation.
        level : float, default 0.95
            Probability inside the interval.
        seed : int, default 0
            Of the effects of unseen levels and of new observations.

        Returns
        -------
        ndarray (n,), DataFrame or lazy table
            For a table of an engine the same table, lazily, with a column `estimate`; else predictions, of an ordered
            response the probability of each category (n, C); with `interval` a frame `estimate`, `se`, `lower`,
            `upper`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
        >>> post.predict({"Days": [0, 9], "Subject": ["308", "new"]}, new_levels="sample").shape
        (2,)
        """
        if interval not in (None, "confidence", "prediction"):
            raise DataError(f'interval={interval!r} is not one of "confidence", "prediction".')
        if interval is not None and self.response.parameter == "threshold":
            raise DataError(
                "intervals of category probabilities come from epred_draws(), e.g. np.quantile(draws, q, axis=0)."
            )
        if stays_in_engine(self.design, new_data):
            if self.response.link != "identity":
                raise DataError(
                    "the posterior mean of a transformed linear predictor is an average over draws, row by row.\n"
                    "  fit().predict(table) is an expression of the engine; or fetch the rows."
                )
            return predict_lazily(
                self, new_data, link="identity", new_levels=new_levels, include=include, interval=interval
            )
        from bayeslmm.bayes.responses import simulate

        design = self._design_for(new_data)
        chosen = self._chosen(None)
        tail = (1 - checked_level(level)) / 2
        parts: list[NDArray[np.float64]] = []
        rng = np.random.default_rng(None if seed is None else [seed, 1])
        for part in row_chunks(design, max(1, CHUNK_NUMBERS // len(chosen))):
            eta = self._linear(part, chosen, new_levels, include, seed)
            expected = self._expected(part, eta, chosen)
            spread = simulate(self, part, eta, chosen, rng) if interval == "prediction" else expected
            if interval is None:
                parts.append(expected.mean(axis=0)[None])
            else:
                bounds = np.quantile(spread, [tail, 1 - tail], axis=0)
                parts.append(np.vstack([expected.mean(axis=0), spread.std(axis=0, ddof=1), bounds]))
        values = np.concatenate(parts, axis=1)
        if interval is None:
            return values[0]
        return pd.DataFrame(values.T, columns=["estimate", "se", "lower", "upper"])

    # --- checks --------------------------------------------------------------------------------------------------

    def ppc(
        self,
        draws: int = 200,
        *,
        by: str | None = None,
        statistics: Sequence[str] = ("mean", "sd"),
        marginal: bool = False,
        seed: int | None = 0,
    ) -> xr.DataTree:
        """Return replicated responses beside the observed one, as ArviZ wants them; with `by`, statistics of groups.

        Parameters
        ----------
        draws : int, default 200
            Replications.
        by : str, optional
            A grouping factor or a column: statistics of the rows of each of its levels in place of the rows. The only
            way where the rows stay in their source, from whose sums both sides are computed without fetching a row.
        statistics : sequence of {"mean", "sd", "zeros", "ones"}, default ("mean", "sd")
            With `by`: mean and SD of the responses of a group, and the shares of those that are 0 and 1.
        marginal : bool, default False
            Replicate with new groups in place of the fitted ones; otherwise given the fitted groups' effects.
        seed : int, default 0
            Makes the replications reproducible.

        Returns
        -------
        xarray.DataTree
            Groups `posterior_predictive` and `observed_data`: `y` by row, or a variable per statistic by level.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
        >>> post.ppc(by="Batch")["observed_data"]["mean"].values.tolist()
        [1505.0, 1528.0, 1564.0, 1498.0, 1600.0, 1470.0]
        """
        if by is not None:
            from bayeslmm.bayes.group_checks import group_statistics

            return group_statistics(self, by, statistics, draws, marginal=marginal, seed=seed)
        from bayeslmm.bayes.checks import replicate_responses

        return replicate_responses(self, draws, marginal=marginal, seed=seed)

    def plot_ppc(
        self,
        kind: str = "dist",
        *,
        by: str | None = None,
        draws: int = 200,
        marginal: bool = False,
        seed: int | None = 0,
        **options: Any,
    ) -> PlotCollection:
        """Plot replicated responses against the observed one, through ArviZ.

        Parameters
        ----------
        kind : {"dist", "tstat", "pit", "rootogram", "interval", "calibration", "groups"}, default "dist"
            Densities, a test statistic, probability integral transforms, a rootogram (counts), intervals per row; how
            often an event happened against its probability (binary, binomial and ordered responses); means, which are
            proportions of binary responses, or another ``t_stat`` of the groups of `by` beside their intervals.
        by : str, optional
            A column of the data: one panel per value. With ``kind="tstat"`` and ``t_stat="mean"``, "sd", "zeros" or
            "ones" also for rows that stay in their source.
        draws : int, default 200
            Replications.
        marginal : bool, default False
            Replicate with new groups.
        seed : int, default 0
            Makes the replications reproducible.
        **options : Any
            Passed to the ArviZ plot.

        Returns
        -------
        PlotCollection
            The plot.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> post = m.sample(draws=100, chains=2, seed=1, progress=False)
        >>> type(post.plot_ppc("tstat", t_stat="std", draws=50)).__name__
        'PlotCollection'
        """
        from bayeslmm.bayes.checks import plot_replications

        return plot_replications(self, kind, by=by, draws=draws, marginal=marginal, seed=seed, **options)

    def log_likelihood(self, draws: int | None = None) -> NDArray[np.float64]:
        """Return the log likelihood of each row given its group effects.

        Parameters
        ----------
        draws : int, optional
            How many draws; all when absent.

        Returns
        -------
        ndarray (S, n)
            Log densities.
        """
        from bayeslmm.bayes.responses import log_density_of_rows

        chosen = self._chosen(draws)
        eta = self._linear(self.design, chosen, "error", None, None)
        return log_density_of_rows(self, self.design, eta, chosen)

    def loo(self, *, group: str | None = None) -> Any:
        """Return leave-one-out cross-validation by Pareto-smoothed importance sampling, through ArviZ.

        Parameters
        ----------
        group : str, optional
            A grouping factor: leave out whole groups, their effects integrated out: exactly in Gaussian models, by
            adaptive quadrature in others (at most three effects per level).

        Returns
        -------
        ELPDData
            Expected log predictive density with its standard error.
        """
        from bayeslmm.bayes.checks import leave_one_out

        return leave_one_out(self, group)

    def kfold(
        self,
        k: int | None = None,
        *,
        group: str | None = None,
        folds: Sequence[int] | None = None,
        draws: int = 500,
        chains: int = 4,
        tune: int | None = None,
        cores: int | None = None,
        seed: int = 0,
    ) -> Any:
        """Return exact k-fold cross-validation: the posterior drawn again without each fold, nothing compiled again.

        Parameters
        ----------
        k : int, optional
            Folds; 10, or the number of levels of `group` where that is less.
        group : str, optional
            A grouping factor or column whose levels stay together: whole groups are left out, and predicted as new
            ones (brms' `folds="grouped"`).
        folds : sequence of int (n,), optional
            The fold of each row used, instead of random ones.
        draws, chains, tune, cores : int
            As in `sample`, for each fold.
        seed : int, default 0
            Of the folds and of the draws.

        Returns
        -------
        ELPDData
            ArviZ's, with the expected log predictive density of each row; `compare_models` takes posteriors,
            `arviz.compare` takes this.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
        >>> post.kfold(group="Batch", draws=200, chains=2).n_folds
        6
        """
        from bayeslmm.bayes.cross_validation import k_fold

        return k_fold(self, k, group=group, folds=folds, draws=draws, chains=chains, tune=tune, cores=cores, seed=seed)

    def psense(self, names: Sequence[str] | None = None, *, threshold: float = 0.05) -> pd.DataFrame:
        """Return how sensitive the posterior is to power-scaling the prior and the likelihood, through ArviZ.

        Parameters
        ----------
        names : sequence of str, optional
            Parameters as printed; all but the group effects when absent.
        threshold : float, default 0.05
            Sensitivity above which the diagnosis says so.

        Returns
        -------
        DataFrame
            Columns `prior`, `likelihood`, `diagnosis`. See `bayeslmm.bayes.sensitivity.power_scaling`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
        >>> m.sample(draws=500, chains=2, seed=1, progress=False).psense(["Days"])["diagnosis"].tolist()
        ['✓']
        """
        from bayeslmm.bayes.sensitivity import power_scaling

        return power_scaling(self, names, threshold)

    def plot_psense(
        self, names: Sequence[str] | None = None, *, kind: Literal["dist", "quantities"] = "dist", **options: Any
    ) -> PlotCollection:
        """Plot the posterior under a prior and a likelihood raised to powers around one, through ArviZ.

        Parameters
        ----------
        names : sequence of str, optional
            Parameters as printed; all but the group effects when absent.
        kind : {"dist", "quantities"}, default "dist"
            Densities, or means and standard deviations.
        **options : Any
            Passed to the ArviZ plot.

        Returns
        -------
        PlotCollection
            The plot.
        """
        from bayeslmm.bayes.sensitivity import plot_power_scaling

        return plot_power_scaling(self, kind, names, **options)

    # --- questions -----------------------------------------------------------------------------------------------

    def hypothesis(self, text: str) -> Hypothesis:
        """Return the posterior probability of an inequality such as ``"IQ > 2"`` or ``"IQ > 2 * SES"``.

        Parameters
        ----------
        text : str
            Parameters as printed, numbers, arithmetic, and one < or >.

        Returns
        -------
        Hypothesis
            Probability, odds, and the difference with its interval.
        """
        from bayeslmm.bayes.inference import hypothesis

        return hypothesis(self, text)

    def rope(self, name: str, lower: float, upper: float) -> pd.Series:
        """Return the probability below, inside and above a region of practical equivalence.

        Parameters
        ----------
        name : str
            A parameter as printed.
        lower, upper : float
            Ends of the region.

        Returns
        -------
        Series
            `below`, `inside`, `above`.
        """
        from bayeslmm.bayes.inference import rope

        return rope(self, name, lower, upper)

    def test(self, hypothesis: Any, rhs: ArrayLike | None = None, *, level: float = 0.95) -> HypothesisDraws:
        """Judge linear hypotheses about the coefficients, one by one and together; the word of a REML fit.

        Parameters
        ----------
        hypothesis : str, sequence of str, mapping or array_like (q, p)
            ``"IQ = 2.2, SES = 0"``, ``{"IQ": 2.2}``, or a matrix of contrasts. Inequalities, and other parameters,
            are for `hypothesis`.
        rhs : array_like (q,), optional
            Right-hand side of a matrix.
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        HypothesisDraws
            `contrasts`, and `p_value`: the share of draws farther from the posterior mean than the values.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
        >>> post.test("Days = 10").p_value > 0.3
        True
        """
        from bayeslmm.bayes.linear_forms import hypothesis_draws

        return hypothesis_draws(self, hypothesis, rhs, checked_level(level))

    def anova(self, type: Literal[1, 2, 3] = 3, *, level: float = 0.95) -> Table:
        """Return for each term of the fixed part how much it moves the response, and how far from nothing it is.

        Parameters
        ----------
        type : {1, 2, 3}, default 3
            Which hypothesis a term stands for.
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        Table
            Columns NumDF, SD, lower, upper, farther. See `bayeslmm.bayes.linear_forms.term_table`.
        """
        from bayeslmm.bayes.linear_forms import term_table

        return term_table(self, type, checked_level(level))

    def emmeans(self, specs: str | Sequence[str], *, level: float = 0.95, **options: Any) -> MarginalMeanDraws:
        """Return estimated marginal means of the levels of one or several factors, as draws.

        Parameters
        ----------
        specs : str or sequence of str
            Factors (or numeric columns with values in `at`).
        level : float, default 0.95
            Probability inside the intervals.
        **options : Any
            Of `bayeslmm.bayes.linear_forms.marginal_mean_draws`: at, weights, scale ("link" or "response").

        Returns
        -------
        MarginalMeanDraws
            Means with intervals; `pairs()` and `contrast()` compare them.
        """
        from bayeslmm.bayes.linear_forms import marginal_mean_draws

        return marginal_mean_draws(self, specs, level=checked_level(level), **options)

    def marginal_effects(
        self,
        variables: str | Sequence[str] | None = None,
        *,
        group_effects: Literal["integrated", "zero", "fitted"] = "integrated",
        level: float = 0.95,
    ) -> EffectDraws:
        """Return average marginal effects of columns on the expected response, as draws; the word of a REML fit.

        Parameters
        ----------
        variables : str or sequence of str, optional
            Predictors; all when absent.
        group_effects : {"integrated", "zero", "fitted"}, default "integrated"
            Expected responses averaged over the distribution of the group effects, of an average group, or of the
            fitted groups.
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        EffectDraws
            Derivatives for numbers, differences from the first level for factors. `slopes` and `comparisons` have
            more choices.
        """
        from bayeslmm.bayes.effects import marginal_effects

        return marginal_effects(self, variables, group_effects, checked_level(level))

    def simulate(
        self, n: int = 1, new_data: Any = None, *, keep_effects: bool = False, seed: int | None = None
    ) -> NDArray[np.float64]:
        """Simulate responses, each from a draw of its own; the word of a REML fit.

        Parameters
        ----------
        n : int, default 1
            Responses.
        new_data : data frame, optional
            Rows to simulate; the fitted rows when absent. New levels of grouping factors are welcome.
        keep_effects : bool, default False
            Keep the draws of the fitted groups' effects; otherwise every group is a new one.
        seed : int, optional
            Makes the responses reproducible. Chosen parameters are for `blm.simulate(model, parameters={...})`.

        Returns
        -------
        ndarray (n, rows)
            One response per line.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> m.sample(draws=200, chains=2, seed=1, progress=False).simulate(3, seed=1).shape
        (3, 30)
        """
        from bayeslmm.bayes.checks import simulate_responses

        return simulate_responses(self, n, new_data, keep_effects=keep_effects, seed=seed)

    def variance_partition(self, level: float = 0.95) -> PartitionDraws:
        """Return draws of the variance that coefficients, each grouping factor and the residual contribute.

        Parameters
        ----------
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        PartitionDraws
            `draws`, `shares`, `plot()`; prints as a table.
        """
        from bayeslmm.bayes.shares import variance_partition

        return variance_partition(self, checked_level(level))

    def icc(self, level: float = 0.95) -> IccDraws:
        """Return draws of intraclass correlations: by grouping factor, adjusted and conditional.

        Parameters
        ----------
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        IccDraws
            `draws`, `adjusted`, `conditional`; prints as a table.
        """
        from bayeslmm.bayes.shares import icc

        return icc(self, checked_level(level))

    def r2(self, level: float = 0.95) -> R2Draws:
        """Return draws of Nakagawa's R², marginal and conditional; the word of a REML fit.

        Parameters
        ----------
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        R2Draws
            `draws`, `marginal`, `conditional`; prints as a table.
        """
        from bayeslmm.bayes.shares import r2

        return r2(self, checked_level(level))

    def plot_caterpillar(self, factor: str | None = None, effect: str | None = None, **options: Any) -> Any:
        """Draw the group effects with their intervals, smallest first.

        Parameters
        ----------
        factor, effect : str, optional
            Grouping factor and effect; the first ones when absent.
        **options : Any
            Of `bayeslmm.report.plots.caterpillar`: level, sort, ax.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.plots import caterpillar

        return caterpillar(self.ranef, factor, effect, **options)

    def plot_residuals(
        self, kind: Literal["raw", "pearson"] = "pearson", against: str | None = None, ax: Any = None
    ) -> Any:
        """Draw residuals about the posterior mean against the expected response or a column.

        Parameters
        ----------
        kind : {"raw", "pearson"}, default "pearson"
            Kind of residual.
        against : str, optional
            A numeric column; the expected response when absent.
        ax : matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.diagnostic_plots import residual_plot

        name = f"expected {self.design.response_name}"
        x, label = (self.predict(), name) if against is None else (numeric_column(self.design, against), against)
        return residual_plot(
            x, self.residuals(kind), x_label=label, y_label=f"{kind} residual", labels=self.design.rows, ax=ax
        )

    def plot_scale_location(self, ax: Any = None) -> Any:
        """Draw the spread of the Pearson residuals against the expected response.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.diagnostic_plots import scale_location_plot

        return scale_location_plot(
            self.predict(), self.residuals("pearson"), x_label=f"expected {self.design.response_name}",
            labels=self.design.rows, ax=ax,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        from bayeslmm.bayes.counterparts import NO_COUNTERPART

        if name in NO_COUNTERPART:
            raise AttributeError(f"a posterior has no {name!r}: {NO_COUNTERPART[name]}.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def residuals(self, kind: Literal["raw", "pearson"] = "raw") -> NDArray[np.float64]:
        """Return observed minus posterior mean expected response (n,), group effects included.

        Parameters
        ----------
        kind : {"raw", "pearson"}, default "raw"
            In units of the response, or divided by the residual SD of the row.

        Returns
        -------
        ndarray (n,)
            One for each row used.
        """
        from bayeslmm.bayes.tidy import residuals

        return residuals(self, kind)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        conf_int: bool = True,
        level: float = 0.95,
        exp: bool = False,
    ) -> pd.DataFrame:
        """Return posterior means, SDs and intervals in one long frame, with broom.mixed's column names.

        Parameters
        ----------
        effects : str or sequence of str, default ("fixed", "ran_pars")
            Which: "fixed", "ran_pars", "ran_vals", "ran_coefs".
        conf_int : bool, default True
            Add `conf.low` and `conf.high`.
        level : float, default 0.95
            Probability inside the interval.
        exp : bool, default False
            Exponentiate the coefficients.

        Returns
        -------
        DataFrame
            Columns `effect`, `group`, `level`, `term`, `estimate`, `std.error`, `conf.low`, `conf.high`.
        """
        from bayeslmm.bayes.tidy import tidy

        return tidy(self, effects, conf_int=conf_int, level=checked_level(level), exp=exp)

    def glance(self, *, looic: bool = False) -> pd.DataFrame:
        """Return one row about the whole posterior, with broom.mixed's column names.

        Parameters
        ----------
        looic : bool, default False
            Add leave-one-out cross-validation.

        Returns
        -------
        DataFrame
            Columns `algorithm`, `pss` (draws), `nobs`, `sigma`; `looic`, `elpd_loo`, `se_elpd_loo`, `p_loo`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> post = m.sample(draws=100, chains=2, seed=1, progress=False)
        >>> post.glance()[["pss", "nobs"]].to_numpy().tolist()
        [[200, 30]]
        """
        from bayeslmm.bayes.tidy import glance

        return glance(self, looic=looic)

    def augment(self) -> pd.DataFrame:
        """Return the rows used with `.fitted`, `.se.fit` and `.resid`, as broom.mixed names them.

        Returns
        -------
        DataFrame
            The columns of the formula and these.
        """
        from bayeslmm.bayes.tidy import augment

        return augment(self)

    def bayes_r2(self) -> NDArray[np.float64]:
        """Return draws (S,) of the share of variance the linear predictor explains (Gelman et al. 2019).

        Returns
        -------
        ndarray (S,)
            Between 0 and 1.
        """
        from bayeslmm.bayes.inference import bayes_r2

        return bayes_r2(self)

    def ranks(self, group: str, effect: str = "Intercept", level: float = 0.95) -> pd.DataFrame:
        """Return the league table of a factor's levels with the uncertainty of each rank.

        Parameters
        ----------
        group : str
            A grouping factor.
        effect : str, default "Intercept"
            One of its effects.
        level : float, default 0.95
            Probability inside the interval of the rank.

        Returns
        -------
        DataFrame
            Columns `effect`, `rank`, `lower`, `upper`, `first`; best level first.
        """
        from bayeslmm.bayes.groups import group_ranks

        return group_ranks(self, group, effect, checked_level(level))

    def contrast(
        self, group: str, contrasts: Any = "pairwise", *, effect: str = "Intercept", level: float = 0.95
    ) -> EffectDraws:
        """Return differences and other linear combinations of the effects of a factor's levels, as draws.

        Parameters
        ----------
        group : str
            A grouping factor.
        contrasts : str, sequence of str or mapping, default "pairwise"
            ``"A - B"``, several of these, weights by level (``{"A": 1, "B": -0.5, "C": -0.5}``), or such weights by
            name of the contrast; "pairwise" for all pairs.
        effect : str, default "Intercept"
            One of the factor's effects.
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        EffectDraws
            `frame` and `draws`; prints as a table.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
        >>> post.contrast("Batch", ["C - F", "E - F"]).frame["positive"].tolist()
        [1.0, 1.0]
        """
        from bayeslmm.bayes.effects import group_contrasts

        return group_contrasts(self, group, contrasts, effect, checked_level(level))

    def comparisons(
        self,
        variables: str | Sequence[str] | Mapping[str, Any] | None = None,
        *,
        by: str | Sequence[str] | None = None,
        scale: Literal["response", "link"] = "response",
        include: Sequence[str] | None = None,
        new_data: Any = None,
        level: float = 0.95,
    ) -> EffectDraws:
        """Return how far the expected response moves with each predictor, averaged over the data, as draws.

        These are marginaleffects' `avg_comparisons`: every row is predicted twice, the differences are averaged.

        Parameters
        ----------
        variables : str, sequence of str or mapping, optional
            Predictors; all when absent. A mapping says what change: for a number a step, two values, "sd", "iqr" or
            "minmax" (default: a step of 1); for a category two levels, "reference", "sequential" or "pairwise"
            (default: each level less the first).
        by : str or sequence of str, optional
            Columns: an average for each of their values.
        scale : {"response", "link"}, default "response"
            Expected response, or linear predictor.
        include : sequence of str, optional
            Grouping factors whose effects count; all when absent, none when empty.
        new_data : data frame, optional
            Rows to average over; the fitted rows when absent.
        level : float, default 0.95
            Probability inside the intervals.

        Returns
        -------
        EffectDraws
            `frame` and `draws`; prints as a table.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
        >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
        >>> bool(abs(post.comparisons({"Days": 2}).frame["estimate"][0] - 2 * post.fixef["Days"]) < 1e-9)
        True
        """
        from bayeslmm.bayes.effects import comparisons

        return comparisons(
            self, variables, by=by, scale=scale, include=include, new_data=new_data, level=checked_level(level)
        )

    def slopes(
        self,
        variables: str | Sequence[str] | None = None,
        *,
        by: str | Sequence[str] | None = None,
        scale: Literal["response", "link"] = "response",
        include: Sequence[str] | None = None,
        new_data: Any = None,
        level: float = 0.95,
    ) -> EffectDraws:
        """Return marginal effects: derivatives of the expected response by each number, averaged over the data.

        These are marginaleffects' `avg_slopes`, Stata's `margins, dydx()`.

        Parameters
        ----------
        variables : str or sequence of str, optional
            Numbers among the predictors; all of them when absent.
        by, scale, include, new_data, level
            As in `comparisons`.

        Returns
        -------
        EffectDraws
            `frame` and `draws`; prints as a table.
        """
        from bayeslmm.bayes.effects import slopes

        return slopes(
            self, variables, by=by, scale=scale, include=include, new_data=new_data, level=checked_level(level)
        )

    # --- output --------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> Path:
        """Write model, data and draws to one file; `Posterior.load` reads it back.

        Parameters
        ----------
        path : str or path
            Where; an earlier file is replaced only once the new one is complete.

        Returns
        -------
        Path
            The file.
        """
        from bayeslmm.bayes.storage import save_posterior

        return save_posterior(self, path)

    @staticmethod
    def load(path: str | PathLike[str]) -> Posterior:
        """Read what `save` wrote; nothing in the file is executed.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        Posterior
            The same draws, summaries and predictions.
        """
        from bayeslmm.bayes.storage import load_posterior

        return load_posterior(path)

    def to_datatree(self, *, log_likelihood: bool = False, log_prior: bool = False) -> xr.DataTree:
        """Return `data`: the draws in ArviZ's container, with groups of log densities when asked.

        Parameters
        ----------
        log_likelihood : bool, default False
            Add the log likelihood of each row given its groups, for `arviz.loo`.
        log_prior : bool, default False
            Add the log density of each prior, correlations up to a constant, for `arviz.psense`.

        Returns
        -------
        xarray.DataTree
            The same object when nothing is added.
        """
        if not (log_likelihood or log_prior):
            return self.data
        tree = self.data.copy()
        if log_likelihood:
            from bayeslmm.bayes.checks import log_likelihood_tree

            tree["log_likelihood"] = log_likelihood_tree(self)["log_likelihood"].to_dataset()
        if log_prior:
            from bayeslmm.bayes.sensitivity import log_prior_dataset

            tree["log_prior"] = log_prior_dataset(self)
        return tree

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def checked_level(level: float) -> float:
    """Return a probability, refusing what is not between 0 and 1.

    Parameters
    ----------
    level : float
        Probability inside an interval.

    Returns
    -------
    float
        The same.

    Raises
    ------
    DataError
        If it is not a probability.
    """
    if not 0 < level < 1:
        raise DataError(f"level={level!r} is not between 0 and 1; 95 % is level=0.95.")
    return level


def parameter_draws(design: Design, posterior: xr.Dataset, priors: Priors) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield name and draws of coefficients, SDs and correlations term by term, then sigma and what else there is.

    Parameters
    ----------
    design : Design
        Names.
    posterior : Dataset
        The draws.
    priors : Priors
        Which terms are correlated, and names of further parameters.

    Yields
    ------
    name : str
        As in `parameter_frame`.
    draws : ndarray (C, D)
        Its draws.
    """
    for position, name in enumerate(design.coef_names):
        yield name, posterior["beta"].values[..., position]
    starts = {factor.name: 0 for factor in design.factors}
    for index, term in enumerate(design.terms):
        first = starts[term.factor]
        starts[term.factor] += len(term.effects)
        for k, effect in enumerate(term.shown_effects):
            yield f"sd_{term.factor}[{effect}]", posterior[f"sd_{term.factor}"].values[..., first + k]
        if priors.corr(index) is not None:
            values = posterior[f"corr_{term.factor}"].values
            for (i, a), (j, b) in combinations(enumerate(term.effects), 2):
                yield f"corr_{term.factor}[{a},{b}]", values[..., first + i, first + j]
    if design.residuals is not None:
        yield "sigma", posterior["sigma"].values
        for at, level in enumerate(design.residuals.levels[1:]):
            yield f"sigma_ratio[{level}]", posterior["sigma_ratio"].values[..., at]
        if "rho" in posterior:
            yield "rho", posterior["rho"].values
        return
    for name, part in design.auxiliary.items():
        for position, coefficient in enumerate(part.coef_names):
            yield f"{name}_{coefficient}", posterior[f"{name}_beta"].values[..., position]
    for name in dict.fromkeys(["sigma", *priors.aux]):
        if name in posterior:
            values = posterior[name].values
            if values.ndim == 2:
                yield name, values
            else:
                labels = design.threshold_labels or range(values.shape[-1])
                for label, part in zip(labels, np.moveaxis(values, -1, 0), strict=True):
                    yield f"{name}[{label}]", part


def row_chunks(design: Design, step: int) -> Iterator[Design]:
    """Yield the design in pieces of at most `step` rows.

    Parameters
    ----------
    design : Design
        A design.
    step : int
        Rows per piece.

    Yields
    ------
    Design
        Same coding, fewer rows.
    """
    n = design.X.shape[0]
    if n <= step:
        yield design
        return
    for start in range(0, n, step):
        yield take_rows(design, slice(start, start + step))


# --- summary -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class PosteriorSummary:
    """The printed account of a posterior.

    Parameters
    ----------
    title : str
        What was drawn and how.
    lines : tuple of str
        Formula, rows and groups.
    table : Table
        One row per parameter.
    notes : tuple of str
        Convergence in words, and rows left out.
    """

    title: str
    lines: tuple[str, ...]
    table: Table
    notes: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return the numbers, unrounded.

        Returns
        -------
        DataFrame
            One row per parameter.
        """
        return self.table.to_pandas()

    def to_text(self) -> str:
        """Return the summary as plain text.

        Returns
        -------
        str
            Title, model, table and notes.
        """
        return "\n".join([self.title, *self.lines, "", self.table.to_text(), "", *self.notes])

    def to_html(self) -> str:
        """Return the summary as an HTML fragment.

        Returns
        -------
        str
            All text escaped.
        """
        from html import escape

        head = "".join(f"<p>{escape(line)}</p>" for line in (self.title, *self.lines))
        foot = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return head + self.table.to_html() + foot

    def to_latex(self, label: str = "") -> str:
        """Return the table of parameters in LaTeX's booktabs style.

        Parameters
        ----------
        label : str, default ""
            For a reference from the text.

        Returns
        -------
        str
            A ``tabular``, inside a ``table`` with the title.
        """
        return self.table.grid().latex(self.title, label)

    def to_markdown(self) -> str:
        """Return the table of parameters as a Markdown pipe table.

        Returns
        -------
        str
            The lines.
        """
        return self.table.to_markdown()

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()


def summarise(post: Posterior, level: float = 0.95) -> PosteriorSummary:
    """Collect the record that prints as the summary of a posterior; figures come from ArviZ.

    Parameters
    ----------
    post : Posterior
        The posterior.
    level : float, default 0.95
        Probability inside the intervals.

    Returns
    -------
    PosteriorSummary
        The record.
    """
    frame = arviz_summary(post.parameters, level)
    design, run = post.design, post.run
    groups = "; ".join(f"{factor.name} {len(factor.members):,}" for factor in design.factors)
    how = f"{run.chains} chains of {run.draws:,} draws"
    title = f"Posterior by {post.engine}: {how} in {run.seconds:.2f} s"
    lines = (
        *((f" Family: {post.response}",) if not post.response.is_gaussian_identity else ()),
        f"Formula: {design.formula.text}",
        *(f"         {part.formula.text}" for part in design.auxiliary.values()),
        f"Rows: {len(design.rows):,}" + (f"; groups: {groups}" if groups else ""),
        *((design.residuals.describe(),) if design.residuals is not None else ()),
    )
    notes = (
        *post.diagnostics().lines,
        *((f"Pareto k of the proposals: {run.pareto_k:.2f}",) if np.isfinite(run.pareto_k) else ()),
        *run.notes,
        *design.notes,
    )
    return PosteriorSummary(title, lines, Table(frame), notes)


def arviz_summary(parameters: Mapping[str, NDArray[np.float64]], level: float) -> pd.DataFrame:
    """Return ArviZ's summary of scalar parameters.

    Parameters
    ----------
    parameters : mapping of str to ndarray (C, D)
        Draws by name.
    level : float
        Probability inside the intervals.

    Returns
    -------
    DataFrame
        Columns mean, sd, the interval's ends, r_hat, ess_bulk, ess_tail.
    """
    import xarray as xr
    from arviz_stats import summary

    dataset = xr.Dataset({name: (("chain", "draw"), values) for name, values in parameters.items()})
    frame = pd.DataFrame(summary(dataset, ci_prob=level, ci_kind="eti", round_to="none"))
    bounds = [name for name in frame.columns if name.startswith("eti")]
    lower, upper = (f"{100 * q:.4g}%" for q in ((1 - level) / 2, (1 + level) / 2))
    frame = frame[["mean", "sd", *bounds, "r_hat", "ess_bulk", "ess_tail"]]
    return frame.rename(columns=dict(zip(bounds, (lower, upper), strict=True))).astype(float)
