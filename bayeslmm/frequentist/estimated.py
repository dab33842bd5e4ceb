"""What every fit by maximum likelihood answers, Gaussian or not: the words, once; the numbers live in their modules."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.contract import Fit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design
    from bayeslmm.frequentist.bootstrap import Bootstrap, Outcome
    from bayeslmm.frequentist.degrees_of_freedom import Denominator
    from bayeslmm.frequentist.hypotheses import HypothesisTest
    from bayeslmm.frequentist.likelihood_ratio import LikelihoodRatioTest
    from bayeslmm.frequentist.marginal_effects import MarginalEffects
    from bayeslmm.frequentist.marginal_means import MarginalMeans
    from bayeslmm.frequentist.model_quality import R2, Icc
    from bayeslmm.report.tables import Table
    from bayeslmm.report.variance_partition import VariancePartition

QualityScale = Literal["latent", "observation"]


class EstimatedFit(Fit):
    """A fit by restricted or full maximum likelihood: estimates, their covariance, and tests made of them."""

    response_family: Family
    # The kernels of Gaussian and of generalised models share their layout, and little else.
    kernel: Any
    solution: Any

    # --- what a fit has to know ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def beta(self) -> NDArray[np.float64]:
        """Coefficients (p,)."""

    @property
    @abstractmethod
    def theta(self) -> NDArray[np.float64]:
        """Covariance parameters, in lme4's order."""

    @property
    @abstractmethod
    def criterion(self) -> float:
        """Minus twice the (restricted) log-likelihood at the optimum."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of estimated parameters."""

    @property
    @abstractmethod
    def singular(self) -> bool:
        """Whether some direction of the group effects has zero variance."""

    @abstractmethod
    def denominator(self, ddf: str | None = None) -> Denominator:
        """Return covariance and reference distribution of the coefficients' tests."""

    @abstractmethod
    def coefficient_frame(self, ddf: str | None = None) -> pd.DataFrame:
        """Return the coefficients with standard errors and tests, as the summary prints them."""

    @abstractmethod
    def anova(self, type: Literal[1, 2, 3] = 3, *, ddf: str | None = None) -> Table:
        """Return tests of the terms of the fixed part."""

    @abstractmethod
    def effect_covariances(self) -> dict[str, NDArray[np.float64]]:
        """Return the covariance (K, K) of each grouping factor's effects."""

    @abstractmethod
    def refit(self, y: ArrayLike) -> Any:
        """Fit the same design to another response, one value per row kept, starting at this fit."""

    @abstractmethod
    def confint(
        self, level: float = 0.95, *, method: Literal["wald", "profile", "boot"] = "wald", **options: Any
    ) -> pd.DataFrame:
        """Return intervals of the parameters."""

    @abstractmethod
    def profile_limits(self, parameters: Sequence[str] | None, level: float) -> pd.DataFrame:
        """Return profile-likelihood intervals of these parameters, of all that have one when None."""

    @abstractmethod
    def draw_given(self, eta: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a response drawn about a linear predictor (n,) of the fitted rows."""

    @abstractmethod
    def estimates_of(self, y: NDArray[np.float64] | None, *, errors: bool) -> Outcome:
        """Return every parameter's estimate for another response (for its own when None), in `parameter_frame`'s order.

        With `errors` standard errors stand beside them: of logarithms of standard deviations and of the family's own
        parameter, of Fisher's z of correlations.
        """

    @abstractmethod
    def criterion_of(self, y: NDArray[np.float64]) -> float:
        """Return the criterion of the same model at its optimum for another response."""

    @abstractmethod
    def without_terms(self, random: tuple[Any, ...]) -> Any:
        """Return the fit of the model with these random terms in place of its own, by the same criterion."""

    @abstractmethod
    def regression_criterion(self) -> float:
        """Return the criterion of the model without group effects."""

    @abstractmethod
    def regression_gain(self, rng: np.random.Generator) -> float:
        """Draw a response from the model without group effects; return by how much these lower the criterion."""

    # --- criterion -----------------------------------------------------------------------------------------------

    @property
    def fixef(self) -> pd.Series:
        """Coefficients, indexed by name."""
        return pd.Series(self.beta, index=list(self.design.coef_names), name="estimate")

    @property
    def loglik(self) -> float:
        """Restricted or full log-likelihood at the optimum, constants included; approximate for generalised fits."""
        return -0.5 * self.criterion

    @property
    def residual_parameters(self) -> pd.Series:
        """Ratios of residual standard deviations to `sigma`, and the residual correlation; empty without any."""
        return pd.Series(dtype=float, name="estimate")

    @property
    def n_obs(self) -> int:
        """Number of rows used."""
        return int(self.design.X.shape[0])

    @property
    def df_resid(self) -> int:
        """Rows minus parameters."""
        return self.n_obs - self.n_parameters

    @property
    def aic(self) -> float:
        """Akaike's criterion from `loglik` (for REML, from the restricted one, as lme4 does)."""
        return self.criterion + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz's criterion from `loglik`, with the number of rows."""
        return self.criterion + float(np.log(self.n_obs)) * self.n_parameters

    @property
    def aicc(self) -> float:
        """Akaike's criterion with the correction for few rows."""
        from bayeslmm.frequentist.model_quality import aicc

        return aicc(self)

    # --- tests ---------------------------------------------------------------------------------------------------

    def test(self, hypothesis: Any, rhs: ArrayLike | None = None, *, ddf: str | None = None) -> HypothesisTest:
        """Test linear hypotheses about the coefficients, one by one and together.

        Parameters
        ----------
        hypothesis : str, sequence of str, mapping or array_like (q, p)
            ``"IQ = 2.2, SES = 0"``, ``{"IQ": 2.2}``, or a matrix of contrasts. Names may contain any characters;
            backticks around a name are allowed.
        rhs : array_like (q,), optional
            Right-hand side of a matrix.
        ddf : str, optional
            Degrees of freedom of a Gaussian fit: "satterthwaite" (when absent), "kenward-roger", "residual" or
            "between-within". Tests of generalised fits are normal and chi-squared.

        Returns
        -------
        HypothesisTest
            t (or z) tests and the joint F (or chi-squared) test.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("lang ~ IQ + SES + (1 | class)", blm.datasets.load("nlschools"))
        >>> fit.test("IQ - 10 * SES = 0").contrasts.shape
        (1, 6)
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> round(fit.test("period[T.2] = period[T.3]").p_value, 4)
        0.7203
        """
        from bayeslmm.frequentist.hypotheses import hypothesis_test

        return hypothesis_test(self.design, self.beta, self.denominator(ddf), hypothesis, rhs)

    def lr_test(self, term: str | int | None = None, *, simulate: int = 0, **options: Any) -> LikelihoodRatioTest:
        """Test a random term, or all of them against ordinary regression, by likelihood ratio.

        Parameters
        ----------
        term : str or int, optional
            The term to leave out, as written or by position in `design.terms`; all when absent, the last line that
            Stata's `mixed` and `melogit` print.
        simulate : int, default 0
            Also simulate the null distribution this many times.
        **options : Any
            For the simulation: seed, workers, progress.

        Returns
        -------
        LikelihoodRatioTest
            Statistic and p-value from the mixture of chi-squares where it is known.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("lang ~ IQ + GS + SES + COMB + (1 | class)", blm.datasets.load("nlschools"), reml=False)
        >>> print(fit.lr_test())
        LR test against ordinary regression (ML): chibar2(01) = 222.38, p <0.0001
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> print(fit.lr_test())
        LR test against ordinary regression (Laplace): chibar2(01) = 14.01, p <0.0001
        """
        from bayeslmm.frequentist.likelihood_ratio import random_term_test

        return random_term_test(self, term, simulate=simulate, **options)

    def emmeans(self, specs: str | Sequence[str], **options: Any) -> MarginalMeans:
        """Return estimated marginal means of the levels of one or several factors.

        Parameters
        ----------
        specs : str or sequence of str
            Factors (or numeric columns with values in `at`).
        **options : Any
            Of `bayeslmm.frequentist.marginal_means.emmeans`: at, weights, ddf, level, and for generalised fits
            scale ("link" or "response").

        Returns
        -------
        MarginalMeans
            Means with intervals; `pairs()` compares them.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("score ~ Machine + (1 | Worker)", blm.datasets.load("Machines"))
        >>> fit.emmeans("Machine").frame["mean"].round(3).tolist()
        [52.356, 60.322, 66.272]
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.emmeans("period", scale="response").frame["mean"].round(3).tolist()
        [0.198, 0.084, 0.074, 0.048]
        """
        from bayeslmm.frequentist.marginal_means import emmeans

        return emmeans(self, specs, **options)

    def marginal_effects(self, variables: str | Sequence[str] | None = None, **options: Any) -> MarginalEffects:
        """Return average marginal effects of columns on the expected response.

        Parameters
        ----------
        variables : str or sequence of str, optional
            Columns of the fixed part; all when absent.
        **options : Any
            Of `bayeslmm.frequentist.marginal_effects.marginal_effects`: group_effects ("integrated", "zero",
            "fitted"), level.

        Returns
        -------
        MarginalEffects
            Derivatives for numeric columns, differences from the first level for factors.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("use ~ age + urban + (1 | district)", blm.datasets.load("Contraception"), "bernoulli")
        >>> fit.marginal_effects("urban").frame["estimate"].round(3).tolist()
        [0.15]
        """
        from bayeslmm.frequentist.marginal_effects import marginal_effects

        return marginal_effects(self, variables, **options)

    # --- simulation ----------------------------------------------------------------------------------------------

    def bootstrap(self, n: int = 1000, statistic: Any = None, **options: Any) -> Bootstrap:
        """Simulate from the fit and refit, n times.

        Parameters
        ----------
        n : int, default 1000
            Replicates.
        statistic : callable, optional
            From a fit to a number, an array or a Series; every parameter when absent.
        **options : Any
            Of `bayeslmm.frequentist.bootstrap.bootstrap`: seed, workers, progress, keep_effects, studentise.

        Returns
        -------
        Bootstrap
            Replicates and intervals; replicates that failed are counted.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> fit.bootstrap(20, seed=1, progress=False).replicates.shape
        (20, 3)
        """
        from bayeslmm.frequentist.bootstrap import bootstrap

        return bootstrap(self, n, statistic, **options)

    def simulate(
        self,
        n: int = 1,
        new_data: Any = None,
        *,
        parameters: Mapping[str, float] | None = None,
        keep_effects: bool = False,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Simulate responses from the fit, or from parameters that replace its estimates.

        Parameters
        ----------
        n : int, default 1
            Responses.
        new_data : data frame, optional
            Rows to simulate; the fitted rows when absent. New levels of grouping factors are welcome.
        parameters : mapping of str to float, optional
            Values that replace estimates, by the names of `parameter_frame`.
        keep_effects : bool, default False
            Keep the estimated group effects and draw the rest only.
        seed : int, optional
            Makes the responses reproducible.

        Returns
        -------
        ndarray (n, rows)
            One response per line: proportions for binomial families, category codes for ordered ones.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> fit.simulate(2, parameters={"sigma": 0, "sd_Batch[Intercept]": 0})[:, 0]
        array([1527.5, 1527.5])
        """
        from bayeslmm.frequentist.simulation import simulate

        return simulate(self, n, new_data, parameters=parameters, keep_effects=keep_effects, seed=seed)

    # --- quality -------------------------------------------------------------------------------------------------

    def variance_partition(self, scale: QualityScale = "latent") -> VariancePartition:
        """Split the variance of an average row into coefficients, each grouping factor and residual.

        Parameters
        ----------
        scale : {"latent", "observation"}, default "latent"
            For generalised fits: variances of the linear predictor, or of the response itself.

        Returns
        -------
        VariancePartition
            Prints as a table; `plot()` draws it.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.variance_partition().shares.round(3).to_dict()
        {'fixed part': 0.279, 'Subject': 0.521, 'Residual': 0.201}
        """
        from bayeslmm.frequentist.model_quality import partition

        return partition(self, scale)

    def icc(self, level: float = 0.95, *, scale: QualityScale = "latent") -> Icc:
        """Return intraclass correlations: adjusted, conditional, and by grouping factor with intervals.

        Parameters
        ----------
        level : float, default 0.95
            Coverage of the intervals.
        scale : {"latent", "observation"}, default "latent"
            For generalised fits: on the scale of the linear predictor, or of the response itself.

        Returns
        -------
        Icc
            With random slopes, variances are averages over the rows.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> round(fit.icc().adjusted, 4), round(fit.icc().conditional, 4)
        (0.7217, 0.5206)
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> round(fit.icc().adjusted, 4), round(fit.icc(scale="observation").adjusted, 4)
        (0.1114, 0.0475)
        """
        from bayeslmm.frequentist.model_quality import icc

        return icc(self, level, scale)

    def r2(self, scale: QualityScale = "latent") -> R2:
        """Return Nakagawa's R², marginal and conditional.

        Parameters
        ----------
        scale : {"latent", "observation"}, default "latent"
            For generalised fits: on the scale of the linear predictor, or of the response itself.

        Returns
        -------
        R2
            Both.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> blm.lmer("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy")).r2()
        R2: marginal 0.2799, conditional 0.7043
        """
        from bayeslmm.frequentist.model_quality import r2

        return r2(self, scale)

    # --- diagnostics ---------------------------------------------------------------------------------------------

    def vif(self) -> Table:
        """Return variance inflation factors, generalised for terms of several columns.

        Returns
        -------
        Table
            One row per term.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("lang ~ IQ + SES + (1 | class)", blm.datasets.load("nlschools"))
        >>> fit.vif().frame["GVIF"].round(3).to_dict()
        {'IQ': 1.094, 'SES': 1.094}
        """
        from bayeslmm.frequentist.diagnostics import vif

        return vif(self)

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

    # --- tidy frames ---------------------------------------------------------------------------------------------

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars"), **options: Any) -> pd.DataFrame:
        """Return estimates in one long frame, with broom.mixed's column names.

        Parameters
        ----------
        effects : str or sequence of str, default ("fixed", "ran_pars")
            Also "ran_vals" (group effects) and "ran_coefs" (coefficients of each level).
        **options : Any
            Of `bayeslmm.frequentist.tidy.tidy`: conf_int, level, method, ddf, exp.

        Returns
        -------
        DataFrame
            One row per estimate.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.tidy("fixed")[["term", "estimate", "std.error"]].round(2).values.tolist()
        [['Intercept', 251.41, 6.82], ['Days', 10.47, 1.55]]
        """
        from bayeslmm.frequentist.tidy import tidy

        return tidy(self, effects, **options)

    def glance(self) -> pd.DataFrame:
        """Return one row about the whole fit, with broom.mixed's column names.

        Returns
        -------
        DataFrame
            nobs, sigma, logLik, AIC, BIC, REMLcrit or deviance, df.residual.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> fit.glance()[["nobs", "AIC"]].round(2).values.tolist()
        [[30.0, 325.65]]
        """
        from bayeslmm.frequentist.tidy import glance

        return glance(self)

    # --- help for the methods of both kinds of fit ---------------------------------------------------------------

    def _design_for(self, new_data: Any) -> Design:
        return self.design if new_data is None else self.design.at(new_data)
