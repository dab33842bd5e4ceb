"""REML and ML fits of Gaussian models: `LmmFit` and the function that makes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.contract import NewLevels, RandomEffects, level_effects, one_sd_per_structure
from bayeslmm.errors import ConvergenceWarning, DataError, SingularFitWarning, listing, warn
from bayeslmm.families import Family, as_family
from bayeslmm.formula.residuals import refuse
from bayeslmm.frequentist.degrees_of_freedom import Denominator, coefficient_table
from bayeslmm.frequentist.estimated import EstimatedFit
from bayeslmm.frequentist.optimize import Control, Optimum, optimize
from bayeslmm.frequentist.progress import fit_progress
from bayeslmm.frequentist.residual_fit import ResidualFit, optimize_residual, residual_covariance
from bayeslmm.frequentist.tails import normal_quantile
from bayeslmm.frequentist.variance_parameters import (
    VarianceParameters,
    natural_parameters,
    variance_parameter_covariance,
    variance_parameters,
)
from bayeslmm.likelihood.lmm import LmmKernel, Solution, solve
from bayeslmm.likelihood.residual import ResidualKernel, ResidualRows
from bayeslmm.predict import linear_predictor, predict_lazily, stays_in_engine
from bayeslmm.report.tables import Summary, Table
from bayeslmm.report.varcorr import VarCorr, VarCorrEntry

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.formula.residuals import ResidualStructure
    from bayeslmm.formula.terms import RandomTerm
    from bayeslmm.frequentist.audit import Audit
    from bayeslmm.frequentist.bootstrap import Outcome
    from bayeslmm.frequentist.diagnostics import Influence, ResidualKind
    from bayeslmm.frequentist.model_quality import ConditionalAic
    from bayeslmm.frequentist.profile import Profile
    from bayeslmm.frequentist.robust import Robust

GAUSSIAN = as_family("gaussian")
DEFAULT_DRAWS = 1000
EXACT_ZERO = 1e-8


def fit_lmm(
    design: Design,
    kernel: LmmKernel,
    *,
    reml: bool = True,
    control: Control | None = None,
    progress: bool = False,
) -> LmmFit:
    """Estimate a Gaussian mixed model by REML or ML.

    Parameters
    ----------
    design : Design
        The formula met by data.
    kernel : LmmKernel
        Its likelihood kernel.
    reml : bool, default True
        REML; `False` for ML.
    control : Control, optional
        Settings of the optimiser.
    progress : bool, default False
        Show a bar when the fit takes longer than a second.

    Returns
    -------
    LmmFit
        The fit.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> round(fit_lmm(design, blm.LmmKernel.from_design(design)).criterion, 4)
    319.6543

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), *J. Stat. Softw.* 67(1), equations 30-42.
    """
    settings = replace(control or Control(), reml=reml)
    if progress:
        with fit_progress() as watch:
            fit = estimate(design, kernel, settings, watch)
    else:
        fit = estimate(design, kernel, settings)
    if not fit.optimum.converged:
        warn(f"the optimiser {fit.optimum.status}.", ConvergenceWarning)
    if fit.residual is not None and fit.residual.at_limit:
        warn(fit.residual.limit_message, ConvergenceWarning)
    if fit.singular:
        warn(fit.singular_message, SingularFitWarning)
    return fit


def estimate(
    design: Design,
    kernel: LmmKernel,
    settings: Control,
    watch: Callable[[int, float], None] | None = None,
    near: LmmFit | None = None,
) -> LmmFit:
    """Return the fit of a design, without a word about it.

    Parameters
    ----------
    design : Design
        The formula met by data.
    kernel : LmmKernel
        Its kernel, for residuals of one variance.
    settings : Control
        Of the optimiser.
    watch : callable, optional
        Called while a long fit runs.
    near : LmmFit, optional
        A fit of the same design to a similar response, where the search starts.

    Returns
    -------
    LmmFit
        The fit; parameters of the residuals are estimated too where the design has any.
    """
    residual = None
    if design.residuals is None:
        optimum = optimize(kernel, settings, watch, None if near is None else near.optimum)
    else:
        start = None if near is None or near.residual is None else near.residual.psi
        kernels = ResidualKernel(kernel, ResidualRows.from_design(design))
        optimum, psi = optimize_residual(kernels, settings, watch, start)
        residual, kernel = ResidualFit(design.residuals, kernels, psi), kernels.at(psi, with_rows=True)
    solution = solve(optimum.theta, kernel, reml=settings.reml)
    return LmmFit(design, kernel, solution, optimum, settings.reml, residual)


@dataclass(frozen=True, repr=False)
class LmmFit(EstimatedFit):
    """A Gaussian mixed model estimated by REML or ML.

    Parameters
    ----------
    design : Design
        The formula met by data.
    kernel : LmmKernel
        The likelihood kernel it was estimated with.
    solution : Solution
        Coefficients and group effects at the optimum.
    optimum : Optimum
        What the optimiser found, and how.
    reml : bool
        Whether the criterion was REML.
    residual : ResidualFit, optional
        Estimated parameters of unequal or correlated residuals; the kernel is then that of these estimates.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> round(fit.criterion, 4)
    1743.6283
    """

    design: Design
    kernel: LmmKernel
    solution: Solution
    optimum: Optimum
    reml: bool
    residual: ResidualFit | None = None
    response_family: Family = field(default=GAUSSIAN, init=False, repr=False)

    # --- estimates -----------------------------------------------------------------------------------------------

    @property
    def family(self) -> str:
        """Always "gaussian"."""
        return "gaussian"

    @property
    def engine(self) -> str:
        """Which criterion was minimised: "REML" or "ML"."""
        return "REML" if self.reml else "ML"

    @property
    def beta(self) -> NDArray[np.float64]:
        """Coefficients (p,)."""
        return self.solution.beta

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of an observation with weight 1, in the reference level of `residuals`)."""
        return float(self.solution.sigma)

    @property
    def residual_parameters(self) -> pd.Series:
        """Ratios of residual standard deviations to `sigma`, and the residual correlation; empty without any."""
        if self.residual is None:
            return pd.Series(dtype=float, name="estimate")
        return pd.Series(self.residual.natural, index=list(self.residual.structure.parameter_names), name="estimate")

    def natural_estimates(self) -> NDArray[np.float64]:
        """Return every parameter's estimate in the order of `parameter_frame`, without standard errors."""
        natural = natural_parameters(self.kernel.layout, np.append(self.theta, self.sigma))
        return np.concatenate([self.solution.beta, natural, self.residual_parameters])

    def residual_sd(self, design: Design | None = None) -> NDArray[np.float64]:
        """Return the residual standard deviation of each row: sigma, its level's ratio and its weight.

        Parameters
        ----------
        design : Design, optional
            Rows; the fitted ones when absent.

        Returns
        -------
        ndarray (n,)
            In units of the response.

        Raises
        ------
        DataError
            If new rows lack the column that says which ratio is theirs.
        """
        rows = self.design if design is None else design
        scale = np.full(rows.n, self.sigma) if rows.weights is None else self.sigma / np.sqrt(rows.weights)
        if self.residual is None:
            return scale
        if self.residual.structure.spec.by is None:
            return scale
        return scale * self.residual.ratios[known_residuals(self.design, rows).strata]

    def residual_noise(self, rng: np.random.Generator, count: int, design: Design | None = None) -> NDArray[np.float64]:
        """Return random residuals (count, n), correlated as estimated within a group.

        Parameters
        ----------
        rng : numpy Generator
            Source of randomness.
        count : int
            How many sets.
        design : Design, optional
            Rows; the fitted ones when absent.

        Returns
        -------
        ndarray (count, n)
            In units of the response.
        """
        rows = self.design if design is None else design
        noise = rng.standard_normal((count, rows.n))
        if self.residual is None:
            return self.residual_sd(rows) * noise
        known_residuals(self.design, rows)
        lowest = self.residual.kernel.rows.lowest
        coloured = ResidualRows.from_design(rows, lowest).colour(noise.T, self.residual.psi).T
        return self.sigma * coloured if rows.weights is None else self.sigma / np.sqrt(rows.weights) * coloured

    @property
    def theta(self) -> NDArray[np.float64]:
        """Relative covariance parameters, in lme4's order."""
        return self.optimum.theta

    @cached_property
    def vcov(self) -> pd.DataFrame:
        """Covariance of the coefficients, sigma² (RX'RX)⁻¹."""
        names = pd.Index(self.design.coef_names)
        return pd.DataFrame(self.solution.vcov, index=names, columns=names)

    @cached_property
    def ranef(self) -> RandomEffects:
        """Conditional modes of the group effects with their conditional covariance."""
        modes, cov = {}, {}
        for i, factor in enumerate(self.design.factors):
            within = self.sigma**2 * self.solution.conditional_cov(i)
            modes[factor.name], cov[factor.name] = level_effects(self.design, i, self.solution.b[i], within)
        return RandomEffects(modes, cov)

    @cached_property
    def varcorr(self) -> VarCorr:
        """Standard deviations and correlations of the group effects, term by term, and the residual SD."""
        entries = []
        for index, term in enumerate(self.design.terms):
            covariance = self.kernel.layout.covariances[index]
            sd, corr = covariance.sd_corr(self.theta[self.kernel.layout.theta_slices[index]])
            entries.append(
                VarCorrEntry(
                    factor=term.factor,
                    effects=term.shown_effects,
                    sd=self.sigma * sd[: len(term.shown_effects)],
                    corr=corr if covariance.is_correlated else None,
                )
            )
        if self.residual is None:
            return VarCorr(tuple(entries), self.sigma)
        levels = self.residual.structure.levels
        strata = tuple(zip(levels, self.sigma * self.residual.ratios, strict=True)) if levels else ()
        return VarCorr(tuple(entries), self.sigma, strata, self.residual.rho)

    # --- criterion -----------------------------------------------------------------------------------------------

    @property
    def criterion(self) -> float:
        """REML criterion or deviance at the optimum (minus twice the log-likelihood)."""
        return float(self.solution.criterion)

    @property
    def n_parameters(self) -> int:
        """Number of parameters: coefficients, variance parameters and sigma."""
        return len(self.design.coef_names) + len(self.theta) + 1 + len(self.residual_parameters)

    @property
    def singular(self) -> bool:
        """Whether some direction of the group effects has zero variance."""
        return self.optimum.singular

    @property
    def singular_terms(self) -> tuple[int, ...]:
        """Positions in `design.terms` of the terms with a direction of zero variance."""
        if not self.singular:
            return ()
        layout = self.kernel.layout
        smallest = [
            float(np.linalg.svd(covariance.Lambda(part), compute_uv=False).min())
            for covariance, part in zip(layout.covariances, layout.split(self.theta), strict=True)
        ]
        return tuple(i for i, value in enumerate(smallest) if value <= max(min(smallest), EXACT_ZERO))

    @property
    def singular_message(self) -> str:
        """The boundary in words: which term, and the way out; empty when there is none."""
        if not self.singular:
            return ""
        formula = self.design.formula
        named = [formula.text[slice(*self.design.terms[i].term.span)] for i in self.singular_terms]
        simpler = [
            f"({self.design.terms[i].term.columns} || {self.design.terms[i].factor})"
            for i in self.singular_terms
            if self.kernel.layout.covariances[i].is_correlated
        ]
        remedy = f"try {simpler[0]}, or " if simpler else ""
        have = "has" if len(named) == 1 else "have"
        return (
            f"the fit is on the boundary: {' and '.join(named)} {have} a direction of zero variance.\n"
            f"  The data do not support this many effects: {remedy}sample() with a prior on the standard deviations."
        )

    # --- fitted values -------------------------------------------------------------------------------------------

    @cached_property
    def fitted(self) -> NDArray[np.float64]:
        """Fitted values with the group effects (n,)."""
        return self._linear_predictor(self.design)[0]

    def residuals(self, kind: ResidualKind = "raw") -> NDArray[np.float64]:
        """Return residuals of one kind.

        Parameters
        ----------
        kind : str, default "raw"
            "raw" or "conditional" (response minus fitted values), "pearson" (over the row's residual SD),
            "standardized" (over their own SD), "marginal" (without group effects), "marginal-standardized",
            "normalized" ("pearson", made independent where residuals are correlated, as in nlme).

        Returns
        -------
        ndarray (n,)
            The residuals.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.residuals("marginal")[:2].round(3)
        array([-1.845, -3.168])
        """
        from bayeslmm.frequentist.diagnostics import residuals

        return residuals(self, kind)

    @property
    def scaled_residuals(self) -> NDArray[np.float64]:
        """Residuals times the root of the weights, divided by sigma (n,)."""
        return self.residuals("pearson")

    # --- uncertainty ---------------------------------------------------------------------------------------------

    @cached_property
    def varpar_cov(self) -> NDArray[np.float64]:
        """Asymptotic covariance of (theta, sigma), then of the residuals' psi; NaN for parameters on the boundary."""
        if self.residual is not None:
            return residual_covariance(self.residual, self.solution, reml=self.reml)
        return variance_parameter_covariance(self.kernel, self.solution, reml=self.reml)

    @cached_property
    def variance_parameters(self) -> VarianceParameters:
        """Standard deviations, correlations and sigma with delta-method standard errors."""
        size = len(self.theta) + 1
        covariance = self.varpar_cov[:size, :size]
        return variance_parameters(self.design, self.kernel.layout, self.theta, self.sigma, covariance)

    def parameter_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return every parameter's estimate, standard error and Wald interval.

        Intervals of standard deviations are computed on the log scale, of correlations on Fisher's z.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.

        Returns
        -------
        DataFrame
            Columns `kind`, `estimate`, `se`, `lower`, `upper`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> list(fit.parameter_frame().index)
        ['Intercept', 'sd_Batch[Intercept]', 'sigma']
        """
        z = normal_quantile(0.5 + check_level(level) / 2)
        se = np.sqrt(np.diag(self.vcov))
        fixed = pd.DataFrame(
            {
                "kind": "fixed",
                "estimate": self.solution.beta,
                "se": se,
                "lower": self.solution.beta - z * se,
                "upper": self.solution.beta + z * se,
            },
            index=list(self.design.coef_names),
        )
        parts = [fixed, self.variance_parameters.frame(z)]
        if self.residual is not None:
            size = len(self.theta) + 1
            parts.append(self.residual.frame(z, self.varpar_cov[size:, size:]))
        return one_sd_per_structure(pd.concat(parts).rename_axis("parameter"), self.design)

    def confint(
        self, level: float = 0.95, *, method: Literal["wald", "profile", "boot"] = "wald", **options: Any
    ) -> pd.DataFrame:
        """Return intervals of every parameter.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.
        method : {"wald", "profile", "boot"}, default "wald"
            Normal approximation; profile likelihood, on the ML criterion; parametric bootstrap.
        **options : Any
            Of `bayeslmm.frequentist.intervals.confint`: parameters, scale ("sd" or "variance"), ddf; for the bootstrap
            n, seed, kind, workers, progress.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.confint().loc["Days"].round(3).to_dict()
        {'lower': 7.438, 'upper': 13.497}
        >>> fit.confint(method="profile", parameters="sd_Subject[Days]").iloc[0].round(3).to_dict()
        {'lower': 3.801, 'upper': 8.753}
        """
        from bayeslmm.frequentist.intervals import confint

        return one_sd_per_structure(confint(self, level, method=method, **options), self.design)

    # --- tests ---------------------------------------------------------------------------------------------------

    def denominator(self, ddf: str | None = None) -> Denominator:
        """Return covariance and degrees of freedom of the coefficients' tests by one method, computed once."""
        from bayeslmm.frequentist.degrees_of_freedom import check_ddf, denominator

        name = check_ddf("satterthwaite" if ddf is None else ddf)
        if name not in self._denominators:
            self._denominators[name] = denominator(self, name)
        return self._denominators[name]

    @cached_property
    def _denominators(self) -> dict[str, Denominator]:
        return {}

    def anova(self, type: Literal[1, 2, 3] = 3, *, ddf: str | None = None) -> Table:
        """Return F tests of the terms of the fixed part.

        Parameters
        ----------
        type : {1, 2, 3}, default 3
            Sequential; each term after those that do not contain it; marginal, whatever the coding of the factors.
        ddf : str, optional
            Degrees of freedom of the denominators, Satterthwaite's when absent.

        Returns
        -------
        Table
            Columns Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F).

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("distance ~ age * Sex + (1 | Subject)", blm.datasets.load("Orthodont"))
        >>> list(fit.anova(type=2).frame.index)
        ['age', 'Sex', 'age:Sex']
        """
        from bayeslmm.frequentist.anova import anova_table

        return anova_table(self, type, ddf=ddf)

    def robust(self, cluster: str | ArrayLike | None = None, type: str = "CR2") -> Robust:
        """Return sandwich standard errors of the coefficients.

        Parameters
        ----------
        cluster : str or array_like (n,), optional
            Grouping factor, column or labels; the coarsest grouping factor when absent.
        type : str, default "CR2"
            CR0, CR1, CR1S, CR1p, CR2 (with Bell-McCaffrey degrees of freedom), or HC0 to HC3 for single rows.

        Returns
        -------
        Robust
            Table, covariance, intervals and tests.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.robust("Subject", type="CR0").se.round(3).to_dict()
        {'Intercept': 6.632, 'Days': 1.502}
        """
        from bayeslmm.frequentist.robust import robust

        return robust(self, cluster, type)

    # --- refits --------------------------------------------------------------------------------------------------

    def refit(self, y: ArrayLike, *, reml: bool | None = None) -> LmmFit:
        """Fit the same design to another response, starting at this fit.

        Parameters
        ----------
        y : array_like (n,)
            The response, one value per row kept.
        reml : bool, optional
            As in this fit when absent.

        Returns
        -------
        LmmFit
            The fit; its design has the new response.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> fit.refit(fit.design.y + 1).fixef.round(2).to_dict()
        {'Intercept': 1528.5}
        """
        from bayeslmm.frequentist.bootstrap import refit

        return refit(self, y, reml=reml)

    def coefficient_frame(self, ddf: str | None = "satterthwaite") -> pd.DataFrame:
        """Return the coefficients with standard errors and t tests, as the summary prints them."""
        method = None if ddf is None else self.denominator(ddf)
        return coefficient_table(self.solution.beta, self.design.coef_names, method, self.solution.vcov)

    def criterion_of(self, y: NDArray[np.float64]) -> float:
        """Return the criterion of the same model at its optimum for another response."""
        if self.residual is not None:
            return self.refit(y).criterion
        start = None if self.singular else self.theta
        return optimize(self.kernel.with_response(y), Control(reml=self.reml, start=start)).value

    def estimates_of(self, y: NDArray[np.float64] | None, *, errors: bool) -> Outcome:
        """Return every parameter's estimate for another response, or its own, without building a fit."""
        from bayeslmm.frequentist.bootstrap import gaussian_estimates

        return gaussian_estimates(self, y, errors=errors)

    def profile_limits(self, parameters: Sequence[str] | None, level: float) -> pd.DataFrame:
        """Return profile-likelihood intervals of these parameters; all when None."""
        from bayeslmm.frequentist.profile import profile_intervals

        return profile_intervals(self, list(self.parameter_frame().index) if parameters is None else parameters, level)

    def draw_given(self, eta: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a response drawn about a linear predictor (n,)."""
        return eta + self.residual_noise(rng, 1)[0]

    def without_terms(self, random: tuple[RandomTerm, ...]) -> LmmFit:
        """Return the fit of the model with these random terms in place of its own, by the same criterion."""
        from bayeslmm.frequentist.likelihood_ratio import reduced_design

        design = reduced_design(self.design, random)
        return estimate(design, LmmKernel.from_design(design), Control(reml=self.reml))

    def regression_criterion(self) -> float:
        """Return the criterion of (weighted) least squares on the same columns."""
        from bayeslmm.frequentist.likelihood_ratio import least_squares_criterion

        return least_squares_criterion(self.kernel, reml=self.reml)

    def regression_gain(self, rng: np.random.Generator) -> float:
        """Draw a response from ordinary regression and return by how much the group effects lower the criterion."""
        from bayeslmm.frequentist.likelihood_ratio import gain_over_least_squares

        return gain_over_least_squares(self, rng)

    def profile(self, parameters: str | Sequence[str] | None = None, level: float = 0.99) -> Profile:
        """Profile the ML deviance in each parameter.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Which; all when absent.
        level : float, default 0.99
            How far out: as far as an interval of this coverage.

        Returns
        -------
        Profile
            Values and zeta (signed roots), with `confint()`, `plot_zeta()` and `plot_density()`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> fit.profile("sigma").confint().round(2).loc["sigma"].tolist()
        [38.23, 67.66]
        """
        from bayeslmm.frequentist.profile import profile

        return profile(self, parameters, level)

    def plot_profile(
        self, parameters: str | Sequence[str] | None = None, kind: Literal["zeta", "density"] = "zeta"
    ) -> Figure:
        """Draw the profile likelihood of parameters.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Which; all when absent.
        kind : {"zeta", "density"}, default "zeta"
            zeta against the value, straight where the likelihood is normal; or the density that makes it so.

        Returns
        -------
        matplotlib Figure
            One panel per parameter.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> fit.plot_profile("sigma", kind="density").axes[0].get_title()
        'sigma'
        """
        return self.profile(parameters).plot(kind)

    # --- prediction ----------------------------------------------------------------------------------------------

    def _linear_predictor(
        self, design: Design, new_levels: NewLevels = "error", include: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        effects = {factor.name: self.solution.b[i][None] for i, factor in enumerate(self.design.factors)}
        return linear_predictor(
            design, self.solution.beta[None], effects, new_levels="zero" if new_levels == "sample" else new_levels,
            include=include,
        )  # fmt: skip

    def effect_covariances(self) -> dict[str, NDArray[np.float64]]:
        """Return the covariance (K, K) of each grouping factor's effects.

        Returns
        -------
        dict of str to ndarray (K, K)
            In units of the response, squared.
        """
        templates = self.kernel.layout.templates(self.theta)
        return {
            factor.name: self.sigma**2 * template @ template.T
            for factor, template in zip(self.design.factors, templates, strict=True)
        }

    def linpred_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return draws of the linear predictor given the estimated variance parameters.

        Coefficients and group effects vary as they would with theta and sigma known, so intervals from these draws
        are a little too short when there are few groups.

        Parameters
        ----------
        new_data : data frame, optional
            Rows to predict; the fitted rows when absent.
        new_levels : {"error", "zero", "sample"}, default "error"
            Policy for unseen levels.
        include : sequence of str, optional
            Grouping factors that count; all when absent.
        draws : int, optional
            How many, 1,000 when absent.
        seed : int, optional
            Makes the draws reproducible.

        Returns
        -------
        ndarray (S, n)
            The draws.
        """
        rng = np.random.default_rng(seed)
        count = DEFAULT_DRAWS if draws is None else draws
        beta, effects = self.solution.draws(rng, count)
        names = [factor.name for factor in self.design.factors]
        covariances = {
            name: np.broadcast_to(value, (count, *value.shape)) for name, value in self.effect_covariances().items()
        }
        return linear_predictor(
            self._design_for(new_data),
            beta,
            dict(zip(names, effects, strict=True)),
            covariances=covariances,
            new_levels=new_levels,
            include=include,
            rng=rng,
        )

    def epred_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return draws of the expected response; for Gaussian models the linear predictor. See `linpred_draws`."""
        return self.linpred_draws(new_data, new_levels=new_levels, include=include, draws=draws, seed=seed)

    def predictive_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return draws of new responses: `linpred_draws` plus residual noise."""
        eta = self.linpred_draws(new_data, new_levels=new_levels, include=include, draws=draws, seed=seed)
        rng = np.random.default_rng(None if seed is None else [seed, 1])
        return eta + self.residual_noise(rng, len(eta), self._design_for(new_data))

    def predict(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        interval: Literal["confidence", "prediction"] | None = None,
        level: float = 0.95,
    ) -> Any:
        """Return the expected response per row, with a standard error and an interval when asked.

        Parameters
        ----------
        new_data : data frame or table of an engine, optional
            Rows to predict; the fitted rows when absent. Rows in an engine stay there: see Returns.
        new_levels : {"error", "zero", "sample"}, default "error"
            Policy for unseen levels; "zero" and "sample" have the same expectation and different standard errors.
        include : sequence of str, optional
            Grouping factors that count; all when absent, the population mean when empty.
        interval : {"confidence", "prediction"}, optional
            For the expected response, or for a new observation.
        level : float, default 0.95
            Coverage.

        Returns
        -------
        ndarray (n,), DataFrame or lazy table
            For a table of an engine the same table, lazily, with a column `estimate`; else predictions; with `interval`
            a frame `estimate`, `se`, `lower`, `upper`.

        Raises
        ------
        NewLevelsError
            If `new_data` has unseen levels and the policy is "error".

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.predict({"Days": [0, 9], "Subject": ["308", "308"]}).round(2)
        array([253.66, 430.66])
        """
        if stays_in_engine(self.design, new_data):
            return predict_lazily(
                self, new_data, link="identity", new_levels=new_levels, include=include, interval=interval
            )
        design = self._design_for(new_data)
        estimate = self._linear_predictor(design, new_levels, include)[0]
        if interval is None:
            return estimate
        from bayeslmm.frequentist.prediction import prediction_variance

        variance = prediction_variance(self, design, new_levels=new_levels, include=include)
        if interval == "prediction":
            variance = variance + self.residual_sd(design) ** 2
        elif interval != "confidence":
            raise DataError(f'interval={interval!r} is not one of "confidence", "prediction".')
        se = np.sqrt(variance)
        z = normal_quantile(0.5 + check_level(level) / 2)
        return pd.DataFrame({"estimate": estimate, "se": se, "lower": estimate - z * se, "upper": estimate + z * se})

    # --- quality -------------------------------------------------------------------------------------------------

    def design_effect(self) -> Table:
        """Return by how much grouping inflates the variance of a mean, and the effective number of rows.

        Returns
        -------
        Table
            One row per grouping factor, and one for all together.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> round(float(fit.design_effect().frame.loc["Batch", "Effective rows"]), 1)
        11.2
        """
        from bayeslmm.frequentist.model_quality import design_effect

        return design_effect(self)

    def conditional_aic(self, method: Literal["greven-kneib", "vaida-blanchard"] = "greven-kneib") -> ConditionalAic:
        """Return the conditional AIC, which compares models for the groups in the data.

        Parameters
        ----------
        method : {"greven-kneib", "vaida-blanchard"}, default "greven-kneib"
            Whether the degrees of freedom account for the estimation of the variance parameters.

        Returns
        -------
        ConditionalAic
            Value, log-likelihood and degrees of freedom.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> round(fit.conditional_aic().df, 2)
        31.3
        """
        from bayeslmm.frequentist.model_quality import conditional_aic

        return conditional_aic(self, method)

    # --- diagnostics ---------------------------------------------------------------------------------------------

    @cached_property
    def leverage(self) -> NDArray[np.float64]:
        """Diagonal (n,) of the matrix from response to fitted values; its sum is the effective size of the model."""
        refuse(self.design.residuals, "leverage", "Correlated rows share it.", correlated_only=True)
        return self.solution.leverage()

    def influence(self, by: str | None = None, *, refit: bool = False) -> Influence:
        """Return how the coefficients change when single rows or groups are left out.

        Parameters
        ----------
        by : str, optional
            A grouping factor or a column; single rows when absent.
        refit : bool, default False
            Estimate the variance parameters anew each time; without it the result is exact given them, and immediate.

        Returns
        -------
        Influence
            Changes, in standard errors too, and Cook's distances; `plot()`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.influence("Subject").dfbetas.loc["337"].round(2).to_dict()
        {'Intercept': 0.33, 'Days': 0.33}
        """
        from bayeslmm.frequentist.diagnostics import influence

        return influence(self, by, refit=refit)

    def cooks_distance(
        self, by: str | None = None, *, of: Literal["coefficients", "fitted"] = "coefficients"
    ) -> pd.Series:
        """Return Cook's distances of rows or groups.

        Parameters
        ----------
        by : str, optional
            A grouping factor or a column; single rows when absent.
        of : {"coefficients", "fitted"}, default "coefficients"
            Movement of the coefficients, or of the fitted values of single rows as in lme4.

        Returns
        -------
        Series
            Indexed by row of the caller's frame or by group.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
        >>> fit.cooks_distance("Subject").idxmax()
        '309'
        """
        from bayeslmm.frequentist.diagnostics import cooks_distance

        return cooks_distance(self, by, of=of)

    def audit(self) -> Audit:
        """List what looks wrong with the model or the data, in plain words, each with a remedy.

        Returns
        -------
        Audit
            Findings, the serious ones first, and what was looked at.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> [finding.topic for finding in fit.audit().findings]
        ['few groups']
        """
        from bayeslmm.frequentist.audit import audit

        return audit(self)

    def plot_residuals(self, kind: ResidualKind = "standardized", against: str | None = None, ax: Any = None) -> Any:
        """Draw residuals against the fitted values or a column, with a smooth.

        Parameters
        ----------
        kind : str, default "standardized"
            Kind of residual; see `residuals`.
        against : str, optional
            A numeric column of the model; the fitted values when absent (without group effects for marginal residuals).
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.frequentist.diagnostic_views import residual_view

        return residual_view(self, kind, against, ax)

    def plot_scale_location(self, ax: Any = None) -> Any:
        """Draw the root of the standardised residuals' size against the fitted values.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            A rising smooth means a spread that grows with the mean.
        """
        from bayeslmm.frequentist.diagnostic_views import scale_location_view

        return scale_location_view(self, ax)

    def plot_leverage(self, ax: Any = None) -> Any:
        """Draw standardised residuals against leverage, with contours of Cook's distance.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.frequentist.diagnostic_views import leverage_view

        return leverage_view(self, ax)

    def plot_qq(self, *, n_sim: int = 500, level: float = 0.95, seed: int | None = 0, ax: Any = None) -> Any:
        """Draw a normal Q-Q plot of the standardised residuals with a simulation envelope.

        Parameters
        ----------
        n_sim : int, default 500
            Simulated responses.
        level : float, default 0.95
            Share of the simulations that lie within the band everywhere.
        seed : int, optional
            Makes the band reproducible.
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.frequentist.diagnostics import residual_qq

        return residual_qq(self, n_sim=n_sim, level=level, seed=seed).plot(ax)

    def plot_ranef_qq(
        self,
        factor: str | None = None,
        effect: str | None = None,
        *,
        n_sim: int = 500,
        level: float = 0.95,
        seed: int | None = 0,
        ax: Any = None,
    ) -> Any:
        """Draw a normal Q-Q plot of standardised group effects with a simulation envelope.

        Parameters
        ----------
        factor, effect : str, optional
            Grouping factor and effect; the first ones when absent.
        n_sim, level, seed, ax
            As in `plot_qq`.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.frequentist.diagnostics import effect_qq

        return effect_qq(self, factor, effect, n_sim=n_sim, level=level, seed=seed).plot(ax)

    def plot_diagnostics(self, seed: int | None = 0) -> Any:
        """Draw residuals, their spread, their quantiles and their leverage in one figure.

        Parameters
        ----------
        seed : int, optional
            Of the simulation envelope.

        Returns
        -------
        ndarray (2, 2) of matplotlib.axes.Axes
            The four panels.
        """
        from bayeslmm.frequentist.diagnostic_views import panel

        return panel(self, seed)

    # --- tidy frames ---------------------------------------------------------------------------------------------

    def augment(self) -> pd.DataFrame:
        """Return the rows used with fitted values, residuals and influence, under broom.mixed's column names.

        Returns
        -------
        DataFrame
            The columns of the formula, then .fitted, .resid, .hat, .cooksd and others.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> fit.augment().shape
        (30, 14)
        """
        from bayeslmm.frequentist.tidy import augment

        return augment(self)

    # --- output --------------------------------------------------------------------------------------------------

    def summary(self, ddf: str | None = "satterthwaite") -> Summary:
        """Return the fit in lme4's layout, as text and HTML.

        Parameters
        ----------
        ddf : str, optional
            Degrees of freedom of the t tests: "satterthwaite" (default), "kenward-roger", "residual",
            "between-within"; None for t values without p-values, as lme4 prints them.

        Returns
        -------
        Summary
            Prints in a terminal and renders in a notebook.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> print(fit.summary())  # doctest: +ELLIPSIS
        Linear mixed model fit by REML
        ...
        """
        return lmm_summary(self, ddf)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def to_datatree(self) -> xr.DataTree:
        """Return 1,000 draws given the estimated variance parameters, in the dimensions of a posterior.

        Returns
        -------
        xarray.DataTree
            Group `posterior` with `beta`, `sigma`, `sd_<factor>`, `corr_<factor>` and `b_<factor>`.
        """
        from bayeslmm.frequentist.datatree import fit_to_datatree

        return fit_to_datatree(self)


def known_residuals(fitted: Design, rows: Design) -> ResidualStructure:
    """Return the residual structure of rows, refusing new data without the columns that tell it.

    Parameters
    ----------
    fitted : Design
        The fitted rows.
    rows : Design
        These rows.

    Returns
    -------
    ResidualStructure
        Of the rows.

    Raises
    ------
    DataError
        With the columns that are missing.
    """
    if rows.residuals is None:
        assert fitted.residuals is not None
        raise DataError(
            f"the residuals of new rows depend on {listing(map(repr, fitted.residuals.spec.columns))}, "
            "which the new data do not have."
        )
    return rows.residuals


def check_level(level: float) -> float:
    """Return a coverage, refusing what is not between 0 and 1.

    Parameters
    ----------
    level : float
        Coverage of an interval.

    Returns
    -------
    float
        The same.

    Raises
    ------
    DataError
        If it is not a probability.

    Examples
    --------
    >>> check_level(0.9)
    0.9
    """
    if not 0 < level < 1:
        raise DataError(f"level={level!r} is not between 0 and 1; 95 % is level=0.95.")
    return level


def lmm_summary(fit: LmmFit, ddf: str | None = "satterthwaite") -> Summary:
    """Collect the record that prints as lme4's summary.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    ddf : str, optional
        Degrees of freedom of the t tests; None for none.

    Returns
    -------
    Summary
        The record.
    """
    se = np.sqrt(np.diag(fit.vcov))
    method = None if ddf is None else fit.denominator(ddf)
    coefficients = fit.coefficient_frame(ddf)
    tests = () if method is None else (f"t tests with {method.title} degrees of freedom.",)
    information = {} if fit.reml else {"AIC": fit.aic, "BIC": fit.bic, "logLik": fit.loglik, "deviance": fit.criterion}
    names = list(fit.design.coef_names)
    correlation = pd.DataFrame(fit.vcov.to_numpy() / np.outer(se, se), names, names) if len(se) > 1 else None
    criterion = "REML" if fit.reml else "maximum likelihood"
    return Summary(
        title=f"Linear {'mixed ' if fit.design.terms else ''}model fit by {criterion}",
        formula=fit.design.formula.text,
        criterion_name="REML criterion at convergence" if fit.reml else "Deviance at convergence",
        criterion=fit.criterion,
        information=information,
        scaled_residuals=residual_quantiles(fit),
        varcorr=fit.varcorr,
        n_obs=fit.n_obs,
        groups=group_sizes(fit.design),
        coefficients=coefficients,
        coef_corr=correlation,
        notes=(
            *(() if fit.residual is None else (fit.residual.structure.describe(),)),
            *tests,
            *fit.design.notes,
            *((fit.singular_message,) if fit.singular else ()),
        ),
    )


def residual_quantiles(fit: Any) -> NDArray[np.float64] | None:
    """Return the quantiles of the scaled residuals of a fit.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.

    Returns
    -------
    ndarray (5,) or None
        None where the rows stay in their source.
    """
    if fit.design.condensation is not None:
        return None
    return np.quantile(fit.scaled_residuals, [0, 0.25, 0.5, 0.75, 1])


def group_sizes(design: Design) -> tuple[tuple[str, int, int, float, int], ...]:
    """Return name, number of levels, and smallest, average and largest group of each factor.

    Parameters
    ----------
    design : Design
        The design.

    Returns
    -------
    tuple
        One entry per grouping factor.
    """
    sizes = [(factor.name, design.sizes(factor.name)) for factor in design.factors]
    return tuple((name, len(size), int(size.min()), float(size.mean()), int(size.max())) for name, size in sizes)
