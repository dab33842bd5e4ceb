"""Generalised mixed models estimated by Laplace or quadrature: `GlmmFit` and the function that makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.contract import NewLevels, RandomEffects, level_effects, one_sd_per_structure
from bayeslmm.errors import ComparisonError, ConvergenceWarning, DataError, DataWarning, SingularFitWarning, warn
from bayeslmm.families import Family, check_response
from bayeslmm.frequentist.degrees_of_freedom import LargeSample
from bayeslmm.frequentist.estimated import EstimatedFit
from bayeslmm.frequentist.glmm_prediction import (
    effect_variance,
    expected_response,
    integrated_mean,
    response_draws,
)
from bayeslmm.frequentist.glmm_search import GlmmOptimum, optimize_glmm
from bayeslmm.frequentist.lmm_fit import check_level, group_sizes, residual_quantiles
from bayeslmm.frequentist.optimize import Control
from bayeslmm.frequentist.tails import normal_quantile, two_sided_t
from bayeslmm.frequentist.variance_parameters import (
    VarianceParameters,
    natural_parameters,
    parameter_names,
    variance_parameters,
)
from bayeslmm.likelihood.conditional import Conditional, conditional
from bayeslmm.likelihood.laplace import LaplaceKernel
from bayeslmm.likelihood.quadrature import check_quadrature
from bayeslmm.predict import included_factors, linear_predictor, numeric_column, predict_lazily, stays_in_engine
from bayeslmm.report.tables import Summary, Table
from bayeslmm.report.varcorr import VarCorr, VarCorrEntry

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.formula.design import Design, GroupTerm
    from bayeslmm.formula.terms import RandomTerm
    from bayeslmm.frequentist.bootstrap import Outcome
    from bayeslmm.frequentist.glmm_checks import Audit, GlmmResidual
    from bayeslmm.frequentist.glmm_refit import Regression

DEFAULT_DRAWS = 1000
EXTREME_ETA = 15.0
"""A linear predictor of the coefficients beyond this, on a probability scale, is the mark of separation."""
EXTREME_SD = 7.0
"""Group effects spread this far on a logit or log scale put nearly every level at its end of the scale."""


def fit_glmm(
    design: Design,
    family: Family,
    *,
    quadrature: int = 1,
    control: Control | None = None,
    kernel: LaplaceKernel | None = None,
) -> GlmmFit:
    """Estimate a generalised mixed model by maximum likelihood, group effects integrated out approximately.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family with its link.
    quadrature : int, default 1
        1 is the Laplace approximation; more are points per dimension of adaptive Gauss-Hermite quadrature, for one
        grouping factor with one to three effects; 0 is Laplace with the coefficients at their joint mode with the group
        effects, faster and a little biased (lme4's nAGQ = 0).
    control : Control, optional
        Settings of the optimiser.
    kernel : LaplaceKernel, optional
        The model's kernel, if there is one already.

    Returns
    -------
    GlmmFit
        The fit.

    Raises
    ------
    DataError
        If the family cannot produce the response.
    FitError
        If the quadrature does not apply, or the likelihood cannot be computed.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> from bayeslmm.families import as_family
    >>> design = blm.build_design("cbind(incidence, size - incidence) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> round(fit_glmm(design, as_family("binomial")).loglik, 4)
    -92.0263

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), *J. Stat. Softw.* 67(1); Pinheiro & Chao (2006), Efficient Laplacian and
    adaptive Gaussian quadrature algorithms for multilevel generalized linear mixed models, *J. Comput. Graph. Stat.*
    15(1).
    """
    rows = design.condensed
    if rows.y is None:
        raise DataError("the design has no response.")
    check_response(family, rows.y, rows.trials, repr(design.response_name))
    design = thresholds_for_intercept(design, family)
    kernel = LaplaceKernel.from_design(design, family) if kernel is None else kernel
    check_quadrature(kernel, quadrature)
    optimum = optimize_glmm(kernel, quadrature, control)
    fit = assemble(design, family, kernel, optimum)
    for message, kind in fit.warnings:
        warn(message, kind)
    return fit


def assemble(design: Design, family: Family, kernel: LaplaceKernel, optimum: GlmmOptimum) -> GlmmFit:
    """Return the fit at an optimum, with the group effects there.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family with its link.
    kernel : LaplaceKernel
        The likelihood kernel.
    optimum : GlmmOptimum
        What the search found.

    Returns
    -------
    GlmmFit
        The fit.
    """
    solution = conditional(kernel, optimum.theta, optimum.beta, optimum.aux)
    return GlmmFit(design=design, response_family=family, kernel=kernel, optimum=optimum, solution=solution)


def thresholds_for_intercept(design: Design, family: Family) -> Design:
    """Return the design without its intercept column when the family has thresholds in its place.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.

    Returns
    -------
    Design
        The same design for other families.
    """
    if family.name != "cumulative" or "Intercept" not in design.coef_names:
        return design
    at = design.coef_names.index("Intercept")
    return replace(
        design,
        X=np.ascontiguousarray(np.delete(design.X, at, axis=1)),
        coef_names=tuple(name for name in design.coef_names if name != "Intercept"),
        encoder=replace(design.encoder, kept=np.delete(design.encoder.kept, at)),
    )


DELETION = "leaving rows or groups out is exact for Gaussian fits only; fit() of the data without them"
QUANTILES = 'residuals("quantile") are standard normal where the model holds; plot_residuals() draws them'
NO_RESIDUALS = "a family without residual variance has no residual structure"
GAUSSIAN_ONLY: Mapping[str, str] = {
    "conditional_aic": "aic is marginal; loo() of a posterior judges predictions given the groups",
    "cooks_distance": DELETION,
    "design_effect": "icc() has the intraclass correlation; the design effect is 1 + (m - 1) ICC",
    "influence": DELETION,
    "leverage": DELETION,
    "natural_estimates": "parameter_frame()",
    "plot_leverage": DELETION,
    "plot_profile": 'confint(method="profile") has the intervals',
    "plot_ranef_qq": "plot_caterpillar()",
    "plot_scale_location": QUANTILES,
    "profile": 'confint(method="profile") has the intervals',
    "reml": "generalised fits are by maximum likelihood",
    "residual": NO_RESIDUALS,
    "residual_noise": NO_RESIDUALS,
    "residual_sd": NO_RESIDUALS,
    "robust": 'sandwiches are for Gaussian fits; confint(method="boot") or overdispersion() look at the same worry',
    "singular_terms": "singular, singular_message",
    "varpar_cov": "variance_parameters",
}
"""Words of a Gaussian fit that a generalised one does not have, and what answers the question there."""


@dataclass(frozen=True, repr=False)
class GlmmFit(EstimatedFit):
    """A generalised mixed model estimated by maximum likelihood.

    Parameters
    ----------
    design : Design
        The formula met by data.
    response_family : Family
        Response family with its link.
    kernel : LaplaceKernel
        The likelihood kernel it was estimated with.
    optimum : GlmmOptimum
        Estimates, their covariance, and how they were found.
    solution : Conditional
        Group effects at the optimum.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("use ~ age + (1 | district)", blm.datasets.load("Contraception"), family="bernoulli")
    >>> fit.fixef.round(4).to_dict()
    {'Intercept': -0.54, 'age': 0.0085}
    """

    design: Design
    response_family: Family
    kernel: LaplaceKernel
    optimum: GlmmOptimum
    solution: Conditional

    # --- estimates -----------------------------------------------------------------------------------------------

    @property
    def family(self) -> str:
        """Name of the response family."""
        return self.response_family.name

    @property
    def engine(self) -> str:
        """Which approximation was maximised: "Laplace", "Laplace (nAGQ = 0)" or "quadrature (9)"."""
        points = self.optimum.quadrature
        return {0: "Laplace (nAGQ = 0)", 1: "Laplace"}.get(points, f"quadrature ({points})")

    @property
    def beta(self) -> NDArray[np.float64]:
        """Coefficients (p,)."""
        return self.optimum.beta

    @property
    def theta(self) -> NDArray[np.float64]:
        """Covariance parameters, in lme4's order."""
        return self.optimum.theta

    @property
    def sigma(self) -> float:
        """Residual standard deviation of a Gaussian response with another link; 1 for other families."""
        return float(np.exp(self.optimum.aux[0])) if self.family == "gaussian" else 1.0

    @property
    def auxiliary(self) -> pd.Series:
        """The family's own parameters: shape, size, precision, or thresholds between categories."""
        if self.family == "cumulative":
            return pd.Series(self.optimum.aux, index=list(self._threshold_names), name="estimate")
        return pd.Series(np.exp(self.optimum.aux), index=[self.response_family.parameter] * self.kernel.n_aux)

    @property
    def phi(self) -> float:
        """The family's own parameter; 1 for families without one."""
        return float(np.exp(self.optimum.aux[0])) if self.kernel.n_aux and self.family != "cumulative" else 1.0

    @property
    def _threshold_names(self) -> tuple[str, ...]:
        return tuple(f"threshold[{label}]" for label in self.design.threshold_labels)

    @cached_property
    def vcov(self) -> pd.DataFrame:
        """Covariance of the coefficients, from the Hessian in all parameters."""
        names = list(self.design.coef_names)
        m, p = len(self.theta), len(names)
        return pd.DataFrame(self.optimum.covariance[m : m + p, m : m + p], index=names, columns=names)

    @cached_property
    def ranef(self) -> RandomEffects:
        """Conditional modes of the group effects with their covariance given the parameters."""
        modes, cov = {}, {}
        for i, factor in enumerate(self.design.factors):
            within = self.solution.conditional_cov(i)
            modes[factor.name], cov[factor.name] = level_effects(self.design, i, self.solution.b[i], within)
        return RandomEffects(modes, cov)

    @cached_property
    def varcorr(self) -> VarCorr:
        """Standard deviations and correlations of the group effects, term by term."""
        entries = []
        for index, term in enumerate(self.design.terms):
            covariance = self.kernel.layout.covariances[index]
            sd, corr = covariance.sd_corr(self.theta[self.kernel.layout.theta_slices[index]])
            own = corr if covariance.is_correlated else None
            entries.append(VarCorrEntry(term.factor, term.shown_effects, sd[: len(term.shown_effects)], own))
        return VarCorr(tuple(entries), self.sigma if self.family == "gaussian" else None)

    # --- criterion -----------------------------------------------------------------------------------------------

    @property
    def criterion(self) -> float:
        """Minus twice the approximate log-likelihood at the optimum."""
        return self.optimum.value

    @property
    def n_parameters(self) -> int:
        """Number of parameters: coefficients, covariance parameters and the family's own."""
        return len(self.design.coef_names) + len(self.theta) + self.kernel.n_aux

    @property
    def singular(self) -> bool:
        """Whether some direction of the group effects has zero variance."""
        return self.optimum.singular

    @property
    def singular_message(self) -> str:
        """The boundary in words; empty when the fit is not on it."""
        if not self.singular:
            return ""
        layout = self.kernel.layout
        smallest = [
            float(np.linalg.svd(covariance.Lambda(part), compute_uv=False).min())
            for covariance, part in zip(layout.covariances, layout.split(self.theta), strict=True)
        ]
        text = self.design.formula.text
        named = [
            text[slice(*term.term.span)]
            for term, value in zip(self.design.terms, smallest, strict=True)
            if value <= max(min(smallest), 1e-8)
        ]
        have = "has" if len(named) == 1 else "have"
        return (
            f"the fit is on the boundary: {' and '.join(named)} {have} a direction of zero variance.\n"
            "  The data do not support this many effects: leave one out, or sample() with a prior on the standard "
            "deviations."
        )

    @property
    def warnings(self) -> tuple[tuple[str, type[Warning]], ...]:
        """What the user should know before trusting the estimates: message and class of each warning."""
        found: list[tuple[str, type[Warning]]] = []
        if not self.optimum.converged:
            found.append((f"the optimiser {self.optimum.status}.", ConvergenceWarning))
        if separated := self.separated:
            found.append((separated, DataWarning))
        elif runaway := self.runaway:
            found.append((runaway, DataWarning))
        elif not self.optimum.hessian_pd and not self.singular:
            found.append(
                (
                    "the likelihood is flat in some direction: standard errors are not available.\n"
                    "  audit() names the parameters; sample() with a weakly informative prior has intervals.",
                    ConvergenceWarning,
                )
            )
        if self.singular:
            found.append((self.singular_message, SingularFitWarning))
        return tuple(found)

    @cached_property
    def separated(self) -> str:
        """Separation in words: which coefficients run away; empty when none does."""
        counted = self.family in ("poisson", "negativebinomial") and self.response_family.link == "log"
        if not (counted or self.response_family.link in ("logit", "probit", "cloglog")) or not len(self.optimum.beta):
            return ""
        rows = self.design.condensed
        spread = np.array([self.design.moments(column)[1] for column in rows.X.T])
        spread = np.where(spread > 0, spread, 1.0)
        limit = EXTREME_ETA if self.response_family.link != "probit" else EXTREME_ETA / 2
        eta = np.abs(rows.X * self.optimum.beta).max(axis=0) if len(rows.X) else spread
        se = np.sqrt(np.abs(np.diag(self.vcov)))
        wild = (eta > limit) & ~(se * spread < 5.0)
        if not wild.any():
            return ""
        names = ", ".join(name for name, bad in zip(self.design.coef_names, wild, strict=True) if bad)
        return (
            f"the coefficients of {names} run away: some values of the predictors separate the responses completely.\n"
            '  Their estimates are infinite. sample() with a prior such as Prior("Normal", mu=0, sigma=2.5) on them '
            "gives finite answers."
        )

    @cached_property
    def runaway(self) -> str:
        """Standard deviations without a finite estimate in words: which terms' run away; empty when none does."""
        limit = {"logit": 1.0, "log": 1.0, "cloglog": 1.0, "probit": 0.5}.get(self.response_family.link)
        if limit is None or self.singular:
            return ""
        text, named = self.design.formula.text, []
        for term, entry in zip(self.design.condensed.terms, self.varcorr.entries, strict=True):
            wide = entry.sd * np.sqrt(np.mean(term.Z**2, axis=0)) > limit * EXTREME_SD
            alike = "Intercept" in term.effects and _levels_are_pure(self, term.codes, len(term.levels))
            if alike or (wide.any() and (wide & ~(self._log_errors(term) < 0.5)).any()):
                named.append(text[slice(*term.term.span)])
        if not named:
            return ""
        return (
            f"the standard deviation of {' and '.join(named)} runs away: the responses within a level are (nearly) all "
            "alike, and no spread between levels\n  is wide enough for that. Leave the term out, or "
            'sample() with a prior such as Prior("HalfNormal", sigma=2.5) on it.'
        )

    def _log_errors(self, term: GroupTerm) -> NDArray[np.float64]:
        """Return the standard error of the logarithm of each SD of a term; not a number where there is none."""
        frame = self.variance_parameters.frame(1.0)
        names = [f"sd_{term.factor}[{effect}]" for effect in term.effects]
        return np.array([np.log(frame["upper"].get(n, np.nan) / frame["estimate"].get(n, 1.0)) for n in names])

    # --- fitted values -------------------------------------------------------------------------------------------

    @cached_property
    def fitted(self) -> NDArray[np.float64]:
        """Expected response with the group effects (n,); (n, C) probabilities for an ordered response."""
        return self.predict()

    def residuals(self, kind: GlmmResidual = "raw", *, seed: int | None = 0) -> NDArray[np.float64]:
        """Return residuals of one kind, group effects included in what is expected.

        Parameters
        ----------
        kind : {"raw", "pearson", "deviance", "quantile"}, default "raw"
            Response minus expected response; in units of the response's standard deviation; signed roots of the unit
            deviances; randomised quantile residuals, standard normal under the model whatever the family.
        seed : int, optional
            Of the simulations behind quantile residuals.

        Returns
        -------
        ndarray (n,)
            The residuals; category codes count as numbers for an ordered response.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.residuals("deviance")[:3].round(3)
        array([-1.438,  0.989,  2.357])
        """
        from bayeslmm.frequentist.glmm_checks import residuals

        return residuals(self, kind, seed)

    @property
    def scaled_residuals(self) -> NDArray[np.float64]:
        """Pearson residuals: residuals in units of the response's standard deviation (n,)."""
        return self.residuals("pearson")

    # --- uncertainty ---------------------------------------------------------------------------------------------

    @cached_property
    def variance_parameters(self) -> VarianceParameters:
        """Standard deviations and correlations with delta-method standard errors."""
        m = len(self.theta)
        if not np.isfinite(self.optimum.covariance).all() and not self.optimum.hessian_pd:
            names, kinds = parameter_names(self.design, self.kernel.layout)
            natural = natural_parameters(self.kernel.layout, np.append(self.theta, 1.0))[:-1]
            return VarianceParameters(names[:-1], kinds[:-1], natural, np.full(len(natural), np.nan))
        covariance = np.full((m + 1, m + 1), np.nan)
        free = np.flatnonzero(~self.optimum.boundary)
        covariance[np.ix_(free, free)] = self.optimum.covariance[np.ix_(free, free)]
        found = variance_parameters(self.design, self.kernel.layout, self.theta, 1.0, covariance)
        return VarianceParameters(found.names[:-1], found.kinds[:-1], found.estimates[:-1], found.working_se[:-1])

    def parameter_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return every parameter's estimate, standard error and Wald interval.

        Intervals of standard deviations and of the family's own parameter are computed on the log scale, of
        correlations on Fisher's z.

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
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> list(fit.parameter_frame().index)[-2:]
        ['period[T.4]', 'sd_herd[Intercept]']
        """
        z = normal_quantile(0.5 + check_level(level) / 2)
        fixed = self._wald(self.optimum.beta, np.sqrt(np.diag(self.vcov)), z, list(self.design.coef_names), "fixed")
        frame = pd.concat([fixed, self.variance_parameters.frame(z), self._own_frame(z)]).rename_axis("parameter")
        return one_sd_per_structure(frame, self.design)

    def _wald(
        self, estimate: NDArray[np.float64], se: NDArray[np.float64], z: float, names: list[str], kind: str
    ) -> pd.DataFrame:
        return pd.DataFrame(
            {"kind": kind, "estimate": estimate, "se": se, "lower": estimate - z * se, "upper": estimate + z * se},
            index=names,
        )

    def _own_frame(self, z: float) -> pd.DataFrame:
        aux = self.optimum.aux
        first = len(self.theta) + len(self.optimum.beta)
        se = np.sqrt(np.diag(self.optimum.covariance)[first:])
        if self.family == "cumulative":
            return self._wald(aux, se, z, list(self._threshold_names), "aux")
        name = self.response_family.parameter
        frame = self._wald(aux, se, z, [name] * len(aux), "sigma" if name == "sigma" else "aux")
        frame["se"] = np.exp(aux) * se
        frame[["estimate", "lower", "upper"]] = np.exp(frame[["estimate", "lower", "upper"]])
        return frame

    def confint(
        self, level: float = 0.95, *, method: Literal["wald", "profile", "boot"] = "wald", **options: Any
    ) -> pd.DataFrame:
        """Return intervals of the parameters.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.
        method : {"wald", "profile", "boot"}, default "wald"
            Normal approximation; where the profile likelihood has dropped by the chi-squared quantile; parametric
            bootstrap.
        **options : Any
            Of `bayeslmm.frequentist.intervals.confint`: parameters, scale ("sd" or "variance"); for the bootstrap
            n, seed, kind, workers, progress.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.confint().loc["period[T.2]"].round(3).to_dict()
        {'lower': -1.593, 'upper': -0.391}
        """
        from bayeslmm.frequentist.intervals import confint

        return confint(self, level, method=method, **options)

    # --- tests ---------------------------------------------------------------------------------------------------

    def denominator(self, ddf: str | None = None) -> LargeSample:
        """Return covariance and normal reference distribution of the coefficients' tests; there is no other."""
        if ddf is not None:
            raise ComparisonError(
                f"ddf={ddf!r}: degrees of freedom belong to Gaussian models. Tests of a generalised fit are normal\n"
                '  and chi-squared; with few groups use confint(method="boot"), or anova(small, large, simulate=1000).'
            )
        return LargeSample(self.vcov.to_numpy())

    def anova(self, type: Literal[1, 2, 3] = 3, *, ddf: str | None = None) -> Table:
        """Return Wald's chi-squared tests of the terms of the fixed part.

        Parameters
        ----------
        type : {1, 2, 3}, default 3
            Sequential; each term after those that do not contain it; marginal, whatever the coding of the factors.
        ddf : None
            There are no degrees of freedom to choose.

        Returns
        -------
        Table
            Columns Chisq, Df, Pr(>Chisq).

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.anova().frame["Chisq"].round(2).tolist()
        [24.95]
        """
        from bayeslmm.frequentist.anova import wald_table

        self.denominator(ddf)
        return wald_table(self, type)

    # --- refits --------------------------------------------------------------------------------------------------

    def refit(self, y: ArrayLike) -> GlmmFit:
        """Fit the same model to another response, from this fit's estimates.

        Parameters
        ----------
        y : array_like (n,)
            Response of the rows used; for binomial families proportions, for ordered ones category codes.

        Returns
        -------
        GlmmFit
            The fit; its design has the new response.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> abs(fit.refit(fit.design.y).loglik - fit.loglik) < 1e-8
        True
        """
        from bayeslmm.frequentist.glmm_refit import refit

        return refit(self, y)

    def coefficient_frame(self, ddf: str | None = None) -> pd.DataFrame:
        """Return the coefficients with standard errors and z tests, as the summary prints them."""
        se = np.sqrt(np.diag(self.vcov))
        z = self.beta / se
        columns = {"Estimate": self.beta, "Std. Error": se, "z value": z, "Pr(>|z|)": two_sided_t(z, np.inf)}
        return pd.DataFrame(columns, index=list(self.design.coef_names))

    def criterion_of(self, y: NDArray[np.float64]) -> float:
        """Return the deviance of the same model at its optimum for another response."""
        from bayeslmm.frequentist.glmm_refit import criterion_of

        return criterion_of(self, y)

    def estimates_of(self, y: NDArray[np.float64] | None, *, errors: bool) -> Outcome:
        """Return every parameter's estimate for another response, or its own."""
        from bayeslmm.frequentist.glmm_refit import estimates_of

        return estimates_of(self, y, errors=errors)

    def profile_limits(self, parameters: Sequence[str] | None, level: float) -> pd.DataFrame:
        """Return profile-likelihood intervals of these parameters; all that have one when None."""
        from bayeslmm.frequentist.glmm_profile import profile_intervals

        return profile_intervals(self, level, parameters)

    def draw_given(self, eta: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a response drawn about a linear predictor (n,)."""
        from bayeslmm.frequentist.simulation import draw_given

        return draw_given(self.design, self.response_family, eta, self.optimum.aux, rng)

    def without_terms(self, random: tuple[RandomTerm, ...]) -> GlmmFit:
        """Return the fit of the model with these random terms in place of its own, by the same approximation."""
        from bayeslmm.frequentist.glmm_refit import without_terms

        return without_terms(self, random)

    @cached_property
    def plain(self) -> Regression:
        """Deviance and estimates of the model without group effects."""
        from bayeslmm.frequentist.glmm_refit import regression

        return regression(self.kernel)

    def regression_criterion(self) -> float:
        """Return the deviance of the model without group effects."""
        return self.plain.deviance

    def regression_gain(self, rng: np.random.Generator) -> float:
        """Draw a response from the model without group effects; return by how much these lower the deviance."""
        from bayeslmm.frequentist.glmm_refit import regression_gain

        return regression_gain(self, rng)

    # --- prediction ----------------------------------------------------------------------------------------------

    def _linear_predictor(
        self, design: Design, new_levels: NewLevels = "error", include: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        effects = {factor.name: self.solution.b[i][None] for i, factor in enumerate(self.design.factors)}
        policy: NewLevels = "zero" if new_levels == "sample" else new_levels
        return linear_predictor(design, self.optimum.beta[None], effects, new_levels=policy, include=include)[0]

    def effect_covariances(self) -> dict[str, NDArray[np.float64]]:
        """Return the covariance (K, K) of each grouping factor's effects.

        Returns
        -------
        dict of str to ndarray (K, K)
            In units of the linear predictor, squared.
        """
        return {
            factor.name: template @ template.T
            for factor, template in zip(self.design.factors, self.solution.templates, strict=True)
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
        """Return draws of the linear predictor from the Gaussian at the mode, covariance parameters held fixed.

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
        beta, effects = self.solution.draws(rng, count, np.nan_to_num(self.vcov.to_numpy()))
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
        """Return draws of the expected response (S, n); for an ordered response probabilities (S, n, C).

        See `linpred_draws`.
        """
        eta = self.linpred_draws(new_data, new_levels=new_levels, include=include, draws=draws, seed=seed)
        return expected_response(self.response_family, eta, self.optimum.aux)

    def predictive_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return draws of new responses (S, n): proportions for binomial families, codes for ordered ones.

        See `linpred_draws`. Binomial rows need their number of trials: new data without it count one trial each.
        """
        design = self._design_for(new_data)
        eta = self.linpred_draws(new_data, new_levels=new_levels, include=include, draws=draws, seed=seed)
        rng = np.random.default_rng(None if seed is None else [seed, 1])
        return response_draws(self.response_family, rng, eta, self.optimum.aux, design.trials)

    def predict(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        interval: Literal["confidence", "prediction"] | None = None,
        level: float = 0.95,
        scale: Literal["response", "link"] = "response",
    ) -> Any:
        """Return the expected response per row, with a standard error and an interval when asked.

        Parameters
        ----------
        new_data : data frame or table of an engine, optional
            Rows to predict; the fitted rows when absent. Rows in an engine stay there: see Returns.
        new_levels : {"error", "zero", "sample"}, default "error"
            Policy for unseen levels: "zero" predicts for a typical level, "sample" averages over levels.
        include : sequence of str, optional
            Grouping factors that count; all when absent, a typical level of each when empty.
        interval : {"confidence", "prediction"}, optional
            For the expected response (computed on the linear predictor and transformed), or for a new observation (by
            simulation).
        level : float, default 0.95
            Coverage.
        scale : {"response", "link"}, default "response"
            Expected response, or linear predictor.

        Returns
        -------
        ndarray (n,), DataFrame or lazy table
            For a table of an engine the same table, lazily, with a column `estimate`; else predictions, (n, C)
            probabilities for an ordered response; with `interval` a frame `estimate`, `se`, `lower`, `upper`.

        Raises
        ------
        NewLevelsError
            If `new_data` has unseen levels and the policy is "error".

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.predict({"period": ["1", "4"], "herd": ["1", "1"]}).round(4)
        array([0.3082, 0.084 ])
        """
        if scale not in ("response", "link"):
            raise DataError(f'scale={scale!r} is not one of "response", "link".')
        if stays_in_engine(self.design, new_data):
            return predict_lazily(
                self,
                new_data,
                link=self.response_family.link if scale == "response" else "identity",
                new_levels=new_levels,
                include=include,
                interval=interval,
                covariances=self.effect_covariances(),
            )
        design = self._design_for(new_data)
        eta = self._linear_predictor(design, new_levels, include)
        fresh = new_levels == "sample" and any(factor.new_levels for factor in included_factors(design, include))
        if interval is None:
            if scale == "link":
                return eta
            spread = effect_variance(self, design, include, only_new=True) if fresh else None
            return integrated_mean(self.response_family, eta, spread, self.optimum.aux)
        if self.family == "cumulative" and scale == "response":
            raise DataError(
                "intervals of category probabilities come from epred_draws(), e.g. np.quantile(draws, q, axis=0)."
            )
        z = normal_quantile(0.5 + check_level(level) / 2)
        if interval == "prediction":
            return self._prediction_interval(new_data, new_levels, include, level, design, eta)
        if interval != "confidence":
            raise DataError(f'interval={interval!r} is not one of "confidence", "prediction".')
        factors = included_factors(design, include)
        names = {factor.name for factor in factors}
        variance = self.solution.prediction_variance(
            design.X,
            [factor.Z * (factor.name in names) for factor in design.factors],
            [factor.codes for factor in design.factors],
            self.vcov.to_numpy(),
        )
        if fresh:
            variance = variance + effect_variance(self, design, include, only_new=True)
        se = np.sqrt(variance)
        if scale == "link":
            return pd.DataFrame({"estimate": eta, "se": se, "lower": eta - z * se, "upper": eta + z * se})
        family = self.response_family
        ends = np.sort([family.inverse_link(eta - z * se), family.inverse_link(eta + z * se)], axis=0)
        estimate = self.predict(new_data, new_levels=new_levels, include=include)
        return pd.DataFrame({"estimate": estimate, "se": family.slope(eta) * se, "lower": ends[0], "upper": ends[1]})

    def _prediction_interval(
        self,
        new_data: Any,
        new_levels: NewLevels,
        include: Sequence[str] | None,
        level: float,
        design: Design,
        eta: NDArray[np.float64],
    ) -> pd.DataFrame:
        draws = self.predictive_draws(new_data, new_levels=new_levels, include=include, draws=2000, seed=0)
        lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        estimate = self.response_family.inverse_link(eta)
        return pd.DataFrame({"estimate": estimate, "se": draws.std(axis=0), "lower": lower, "upper": upper})

    def population_average(self, new_data: Any = None, *, include: Sequence[str] | None = ()) -> NDArray[np.float64]:
        """Return the expected response averaged over the group effects, not at their mean.

        On a curved link the two differ: an average probability is nearer to one half than that of an average group.

        Parameters
        ----------
        new_data : data frame, optional
            Rows to predict; the fitted rows when absent. Grouping factors may hold any level.
        include : sequence of str, optional
            Grouping factors whose own effects count instead of being averaged over; none by default.

        Returns
        -------
        ndarray (n,)
            Expected responses; (n, C) probabilities for an ordered response.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> rows = {"period": ["1"], "herd": ["1"]}
        >>> fit.predict(rows, include=[]).round(4), fit.population_average(rows).round(4)
        (array([0.198]), array([0.2161]))
        """
        design = self._design_for(new_data)
        eta = self._linear_predictor(design, "zero", include)
        kept = {factor.name for factor in included_factors(design, include)}
        others = [factor.name for factor in design.factors if factor.name not in kept]
        spread = effect_variance(self, design, others, only_new=False)
        return integrated_mean(self.response_family, eta, spread, self.optimum.aux)

    # --- checks --------------------------------------------------------------------------------------------------

    def plot_residuals(
        self, kind: GlmmResidual = "quantile", against: str | None = None, *, seed: int | None = 0, ax: Any = None
    ) -> Any:
        """Draw residuals against the expected response or a column.

        Parameters
        ----------
        kind : {"quantile", "deviance", "pearson", "raw"}, default "quantile"
            Kind of residual; quantile residuals are standard normal under the model, whatever the family.
        against : str, optional
            A numeric column; the expected response when absent.
        seed : int, default 0
            Of quantile residuals.
        ax : matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.diagnostic_plots import residual_plot

        name = f"expected {self.design.response_name}"
        mean = self.fitted if self.fitted.ndim == 1 else self.fitted @ np.arange(self.fitted.shape[1])
        x, label = (mean, name) if against is None else (numeric_column(self.design, against), against)
        values = self.residuals(kind, seed=seed)
        return residual_plot(x, values, x_label=label, y_label=f"{kind} residual", labels=self.design.rows, ax=ax)

    def plot_qq(self, *, n_sim: int = 500, level: float = 0.95, seed: int | None = 0, ax: Any = None) -> Any:
        """Draw a normal Q-Q plot of the quantile residuals, with the band of as many standard normal values.

        Parameters
        ----------
        n_sim : int, default 500
            Samples behind the band.
        level : float, default 0.95
            Share of the samples that lie within the band everywhere.
        seed : int, default 0
            Of residuals and band.
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.plot_qq().get_ylabel()
        'quantile residual'
        """
        from bayeslmm.frequentist.glmm_checks import quantile_qq

        return quantile_qq(self, n_sim=n_sim, level=level, seed=seed).plot(ax)

    def plot_diagnostics(self, seed: int | None = 0) -> Any:
        """Draw quantile residuals against normal quantiles, and against the expected response, in one figure.

        Parameters
        ----------
        seed : int, default 0
            Of residuals and band.

        Returns
        -------
        ndarray (2,) of matplotlib.axes.Axes
            The two panels, as DHARMa shows them.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.plot_diagnostics().shape
        (2,)
        """
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
        self.plot_qq(seed=seed, ax=axes[0])
        self.plot_residuals(seed=seed, ax=axes[1])
        figure.suptitle(f"{self.design.formula.text}, {self.response_family}", fontsize=10)
        return axes

    def __getattr__(self, name: str) -> Any:
        if name in GAUSSIAN_ONLY:
            raise AttributeError(f"a generalised fit has no {name!r}: {GAUSSIAN_ONLY[name]}.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def audit(self) -> Audit:
        """Look for separation, tiny groups, badly scaled predictors, flat directions, over-dispersion.

        Returns
        -------
        Audit
            One line per finding, with the way out.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.audit()
        Nothing stands out.
        """
        from bayeslmm.frequentist.glmm_checks import audit

        return audit(self)

    def overdispersion(self) -> pd.Series:
        """Return the sum of squared Pearson residuals, its ratio to the residual degrees of freedom, and a p-value.

        Returns
        -------
        Series
            `pearson`, `df`, `ratio`, `p`; for single 0/1 responses the ratio says nothing.
        """
        from bayeslmm.frequentist.glmm_checks import overdispersion

        return overdispersion(self)

    def zeros(self, *, draws: int = 500, seed: int | None = 0) -> pd.Series:
        """Compare the number of zeros with that of simulated responses.

        Parameters
        ----------
        draws : int, default 500
            Simulations.
        seed : int, optional
            Makes them reproducible.

        Returns
        -------
        Series
            `observed`, `expected`, `ratio`, two-sided `p`.
        """
        from bayeslmm.frequentist.glmm_checks import zeros

        return zeros(self, draws=draws, seed=seed)

    # --- output --------------------------------------------------------------------------------------------------

    def ratios(self, level: float = 0.95) -> Table:
        """Return exponentiated coefficients: odds, rate, hazard or mean ratios with transformed Wald intervals.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.

        Returns
        -------
        Table
            The standard error is the delta method's, the interval is that of the coefficient, transformed.

        Raises
        ------
        DataError
            If exponentiated coefficients mean nothing under the link.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> round(float(fit.ratios().frame.loc["period[T.2]", "Odds ratio"]), 4)
        0.3707
        """
        return Table(_ratio_frame(self, level), notes=(_RATIO_NOTE,))

    def summary(self, *, exp: bool = False, level: float = 0.95) -> Summary:
        """Return the fit in the layout of lme4's glmer, as text and HTML.

        Parameters
        ----------
        exp : bool, default False
            Exponentiated coefficients: odds, rate, hazard or mean ratios with intervals.
        level : float, default 0.95
            Coverage of those intervals.

        Returns
        -------
        Summary
            Prints in a terminal and renders in a notebook.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> print(fit.summary())  # doctest: +ELLIPSIS
        Generalized linear mixed model fit by maximum likelihood (Laplace approximation)
         Family: binomial (logit)
        ...
        """
        return glmm_summary(self, exp=exp, level=level)

    def augment(self) -> pd.DataFrame:
        """Return the rows used with linear predictors, expected responses and residuals, as broom.mixed names them.

        Returns
        -------
        DataFrame
            The columns of the formula, then .fitted, .resid (of the deviance), .mu and others.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
        >>> fit.augment().shape
        (56, 11)
        """
        from bayeslmm.frequentist.tidy import augment_generalised

        return augment_generalised(self)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def to_datatree(self) -> xr.DataTree:
        """Return 1,000 draws given the estimated covariance parameters, in the dimensions of a posterior.

        Returns
        -------
        xarray.DataTree
            Group `posterior` with `beta`, `sd_<factor>`, `corr_<factor>` and `b_<factor>`.
        """
        from bayeslmm.frequentist.glmm_prediction import fit_to_datatree

        return fit_to_datatree(self)


_RATIO_NOTE = "Standard errors by the delta method; intervals are those of the coefficients, transformed."


def ratio_name(family: Family) -> str:
    """Return what an exponentiated coefficient is.

    Parameters
    ----------
    family : Family
        Response family with its link.

    Returns
    -------
    str
        "Odds ratio", "Rate ratio", "Hazard ratio", "Mean ratio" or "Risk ratio".

    Raises
    ------
    DataError
        If it is nothing that has a name.

    Examples
    --------
    >>> from bayeslmm.families import as_family
    >>> ratio_name(as_family("poisson"))
    'Rate ratio'
    """
    if family.link == "logit":
        return "Odds ratio"
    if family.link == "cloglog":
        return "Hazard ratio"
    if family.link == "log":
        if family.name in ("poisson", "negativebinomial"):
            return "Rate ratio"
        return "Risk ratio" if family.name in ("bernoulli", "binomial") else "Mean ratio"
    raise DataError(f"exponentiated coefficients have no meaning under the link {family.link!r}; use summary().")


def _ratio_frame(fit: GlmmFit, level: float) -> pd.DataFrame:
    z = normal_quantile(0.5 + check_level(level) / 2)
    beta, se = fit.optimum.beta, np.sqrt(np.diag(fit.vcov))
    tail = 50 * (1 - level)
    return pd.DataFrame(
        {
            ratio_name(fit.response_family): np.exp(beta),
            "Std. Error": np.exp(beta) * se,
            f"{tail:g} %": np.exp(beta - z * se),
            f"{100 - tail:g} %": np.exp(beta + z * se),
            "z value": beta / se,
            "Pr(>|z|)": two_sided_t(beta / se, np.inf),
        },
        index=list(fit.design.coef_names),
    )


def glmm_summary(fit: GlmmFit, *, exp: bool = False, level: float = 0.95) -> Summary:
    """Collect the record that prints as glmer's summary.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    exp : bool, default False
        Exponentiated coefficients.
    level : float, default 0.95
        Coverage of their intervals.

    Returns
    -------
    Summary
        The record.
    """
    se = np.sqrt(np.diag(fit.vcov))
    coefficients = _ratio_frame(fit, level) if exp else fit.coefficient_frame()
    how = {
        0: "Laplace approximation, coefficients at their joint mode",
        1: "Laplace approximation",
    }.get(fit.optimum.quadrature, f"adaptive Gauss-Hermite quadrature, {fit.optimum.quadrature} points")
    notes = [*fit.design.notes, *_own_notes(fit), *((_RATIO_NOTE,) if exp else ())]
    notes += [message for message, _ in fit.warnings]
    return Summary(
        title=f"Generalized linear mixed model fit by maximum likelihood ({how})",
        formula=fit.design.formula.text,
        criterion_name="",
        criterion=None,
        information={
            "AIC": fit.aic,
            "BIC": fit.bic,
            "logLik": fit.loglik,
            "deviance": fit.criterion,
            "df.resid": fit.df_resid,
        },
        scaled_residuals=residual_quantiles(fit),
        varcorr=fit.varcorr,
        n_obs=fit.n_obs,
        groups=group_sizes(fit.design),
        coefficients=coefficients,
        coef_corr=fit.vcov.div(se, axis=0).div(se, axis=1) if len(se) > 1 else None,
        notes=tuple(notes),
        family=str(fit.response_family),
    )


def _own_notes(fit: GlmmFit) -> list[str]:
    """Return the family's own parameters in words."""
    if not fit.kernel.n_aux or fit.family == "gaussian":
        return []
    frame = fit.parameter_frame()
    own = frame[frame["kind"] == "aux"]
    if fit.family == "cumulative":
        lines = [f"  {name}  {row['estimate']:.4f} (s.e. {row['se']:.4f})" for name, row in own.iterrows()]
        return ["\n".join(["Thresholds:", *lines])]
    what = {
        "gamma": "Shape",
        "inverse_gaussian": "Shape lambda",
        "negativebinomial": "Size",
        "beta": "Precision",
        "beta_binomial": "Precision",
    }[fit.family]
    row = own.iloc[0]
    return [f"{what} {own.index[0]}: {row['estimate']:.4g} (95 % from {row['lower']:.4g} to {row['upper']:.4g})"]


def _levels_are_pure(fit: GlmmFit, codes: NDArray[np.int32], n_levels: int) -> bool:
    """Return whether levels of several binary responses hold nothing but failures, or nothing but successes."""
    design = fit.design.condensed
    if fit.family not in ("bernoulli", "binomial") or design.y is None:
        return False
    trials = np.ones(len(codes)) if design.trials is None else design.trials
    total = np.bincount(codes, trials, n_levels)
    successes = np.bincount(codes, design.y * trials, n_levels)
    several = total > 1.5
    mixed = (successes > 0.5) & (successes < total - 0.5)
    return bool(several.any() and not mixed.any())
