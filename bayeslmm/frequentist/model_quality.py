"""How much a model explains, and at what price: ICC, R², design effects, corrected and conditional AIC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import DataError
from bayeslmm.formula.grouping import sharing
from bayeslmm.formula.residuals import refuse
from bayeslmm.frequentist.estimated import EstimatedFit, QualityScale
from bayeslmm.frequentist.lmm_fit import LmmFit, check_level
from bayeslmm.likelihood.lmm import solve
from bayeslmm.report.tables import Table, Tabular
from bayeslmm.report.variance_partition import VariancePartition, variance_partition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.frequentist.glmm_fit import GlmmFit

STEP = 1e-5
SCALE_NOTES = {
    "latent": "On the scale of the linear predictor.",
    "observation": "On the scale of the response.",
}


def partition(fit: EstimatedFit, scale: QualityScale = "latent") -> VariancePartition:
    """Split the variance of an average row of a fit into its parts.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    scale : {"latent", "observation"}, default "latent"
        See `bayeslmm.frequentist.glmm_quality.generalised_partition`; for Gaussian fits the two are one.

    Returns
    -------
    VariancePartition
        The parts.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> partition(fit).shares.round(3).to_dict()
    {'fixed part': 0.0, 'Batch': 0.418, 'Residual': 0.582}
    """
    if (generalised := _generalised(fit, scale)) is not None:
        from bayeslmm.frequentist.glmm_quality import generalised_partition

        return generalised_partition(generalised, scale)
    parts = variance_partition(fit.design, fit.beta, fit.effect_covariances(), fit.sigma)
    if isinstance(fit, LmmFit) and fit.residual is not None:
        return replace(parts, residual=float(np.mean(fit.residual_sd() ** 2)))
    return parts


def _generalised(fit: EstimatedFit, scale: str) -> GlmmFit | None:
    """Return a generalised fit as such, None for a Gaussian one; refuse an unknown scale."""
    if isinstance(fit, LmmFit):
        if scale not in ("latent", "observation"):
            raise DataError(f'scale={scale!r} is not one of "latent", "observation".')
        return None
    from bayeslmm.frequentist.glmm_fit import GlmmFit

    assert isinstance(fit, GlmmFit)
    return fit


# --- intraclass correlation --------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Icc(Tabular):
    """Intraclass correlations.

    Parameters
    ----------
    adjusted : float
        Variance of all group effects over that plus the residual variance: the coefficients are held fixed.
    conditional : float
        The same over the total variance, that of the coefficients' part included (`unadjusted` in R's performance).
    by_factor : DataFrame
        One row per grouping factor: `share` of its own effects in the variance of effects and residuals; `icc`, the
        correlation of two rows that share a level of it, and so of every factor it is nested in; `se`, `lower`,
        `upper` of that correlation by the delta method on the logit scale, NaN on the boundary.
    level : float
        Coverage of the intervals.
    slopes : bool
        Whether there are random slopes: variances are then averages over the rows.
    scale : str
        For generalised fits: "latent" or "observation".

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> round(fit.icc().adjusted, 4)
    0.4185
    """

    adjusted: float
    conditional: float
    by_factor: pd.DataFrame
    level: float
    slopes: bool
    scale: str = ""

    def table(self) -> Table:
        """Return the correlations as a table.

        Returns
        -------
        Table
            By grouping factor, with the adjusted and the conditional ICC below.
        """
        percent = f"{100 * self.level:.4g} %"
        names = {"share": "Share", "icc": "ICC", "se": "Std. Error"}
        names |= {"lower": f"{percent} low", "upper": f"{percent} high"}
        notes = [f"Adjusted ICC {self.adjusted:.4f}, conditional ICC {self.conditional:.4f}."]
        notes += ["With random slopes the variances are averages over the rows."] if self.slopes else []
        notes += [SCALE_NOTES[self.scale]] if self.scale else []
        return Table(
            self.by_factor.rename(columns=names),
            title="Intraclass correlation",
            notes=tuple(notes),
            shared=(tuple(names.values()),),
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return the correlations by factor.

        Returns
        -------
        DataFrame
            A copy of `by_factor`.
        """
        return self.by_factor.copy()


def icc(fit: EstimatedFit, level: float = 0.95, scale: QualityScale = "latent") -> Icc:
    """Return intraclass correlations: adjusted, conditional, and by grouping factor.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    level : float, default 0.95
        Coverage of the intervals.
    scale : {"latent", "observation"}, default "latent"
        For generalised fits.

    Returns
    -------
    Icc
        The correlations.

    References
    ----------
    Nakagawa, Johnson & Schielzeth (2017), *J. R. Soc. Interface* 14: 20170213; Johnson (2014), *Methods Ecol. Evol.*
    5(9); Goldstein, Browne & Rasbash (2002), *Understanding Statistics* 1(4).
    """
    refuse(fit.design.residuals, "icc()", "See variance_partition() and rho itself.", correlated_only=True)
    parts, generalised = partition(fit, scale), _generalised(fit, scale)
    within = float(parts.random.sum() + parts.residual)
    rows = {}
    z = float(stats.norm.ppf(0.5 + check_level(level) / 2))
    codes = {factor.name: factor.codes for factor in fit.design.factors}
    for factor in fit.design.factors:
        shared = sharing(codes, factor.name)
        value, se = _correlation_with_se(fit, shared, parts, scale)
        low, high = _logit_interval(value, se, z)
        rows[factor.name] = (parts.random[factor.name] / within, value, se, low, high)
    by_factor = pd.DataFrame.from_dict(rows, orient="index", columns=["share", "icc", "se", "lower", "upper"])
    return Icc(
        adjusted=float(parts.random.sum()) / within,
        conditional=float(parts.random.sum()) / parts.total,
        by_factor=by_factor.rename_axis("Groups"),
        level=level,
        slopes=any(factor.effects != ("Intercept",) for factor in fit.design.factors),
        scale="" if generalised is None else scale,
    )


def _mean_squares(fit: LmmFit) -> dict[str, NDArray[np.float64]]:
    """Return Z'Z / n of each factor: with it the mean variance is a trace."""
    return {factor.name: factor.Z.T @ factor.Z / fit.n_obs for factor in fit.design.condensed.factors}


def _correlation_with_se(
    fit: EstimatedFit, shared: set[str], parts: VariancePartition, scale: QualityScale
) -> tuple[float, float]:
    """Return the correlation and its standard error; for Gaussian fits it depends on theta alone, sigma cancels."""
    if not isinstance(fit, LmmFit):
        from bayeslmm.frequentist.glmm_quality import correlation_with_se

        generalised = _generalised(fit, scale)
        assert generalised is not None
        return correlation_with_se(generalised, shared, scale)
    squares = _mean_squares(fit)
    noise = parts.residual / fit.sigma**2
    names = [factor.name for factor in fit.design.factors]

    def correlation(theta: NDArray[np.float64]) -> float:
        variances = {
            name: float(np.einsum("kl,km,lm->", squares[name], T, T))
            for name, T in zip(names, fit.kernel.layout.templates(theta), strict=True)
        }
        return sum(variances[name] for name in shared) / (sum(variances.values()) + noise)

    covariance = fit.varpar_cov[: len(fit.theta), : len(fit.theta)]
    free = ~np.isnan(np.diag(covariance))
    gradient = np.zeros(len(fit.theta))
    for j in np.flatnonzero(free):
        step = STEP * max(1.0, abs(fit.theta[j])) * np.eye(len(fit.theta))[j]
        gradient[j] = (correlation(fit.theta + step) - correlation(fit.theta - step)) / (2 * step[j])
    value = correlation(fit.theta)
    if not free.any() or value <= 0:
        return value, np.nan
    variance = gradient[free] @ covariance[np.ix_(free, free)] @ gradient[free]
    return value, float(np.sqrt(max(variance, 0.0)))


def _logit_interval(value: float, se: float, z: float) -> tuple[float, float]:
    if not (0 < value < 1 and np.isfinite(se)):
        return np.nan, np.nan
    centre, reach = np.log(value / (1 - value)), z * se / (value * (1 - value))
    return float(1 / (1 + np.exp(reach - centre))), float(1 / (1 + np.exp(-reach - centre)))


# --- R squared ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class R2(Tabular):
    """Share of the variance that the model explains.

    Parameters
    ----------
    marginal : float
        By the coefficients.
    conditional : float
        By the coefficients and the group effects.

    Examples
    --------
    >>> R2(0.25, 0.5)
    R2: marginal 0.2500, conditional 0.5000
    """

    marginal: float
    conditional: float

    def table(self) -> Table:
        """Return both as a table of one row.

        Returns
        -------
        Table
            Columns `marginal` and `conditional`.
        """
        frame = pd.DataFrame({"marginal": [self.marginal], "conditional": [self.conditional]}, index=["R2"])
        return Table(frame, shared=(("marginal", "conditional"),))

    def __str__(self) -> str:
        return f"R2: marginal {self.marginal:.4f}, conditional {self.conditional:.4f}"


def r2(fit: EstimatedFit, scale: QualityScale = "latent") -> R2:
    """Return Nakagawa's R², marginal and conditional.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    scale : {"latent", "observation"}, default "latent"
        For generalised fits.

    Returns
    -------
    R2
        Both.

    References
    ----------
    Nakagawa & Schielzeth (2013), *Methods Ecol. Evol.* 4(2); Johnson (2014), *Methods Ecol. Evol.* 5(9), for slopes.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> r2(blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy")))
    R2: marginal 0.2787, conditional 0.7992
    """
    parts = partition(fit, scale)
    return R2(parts.fixed / parts.total, (parts.fixed + float(parts.random.sum())) / parts.total)


# --- design effect -----------------------------------------------------------------------------------------------


def design_effect(fit: LmmFit) -> Table:
    """Return by how much grouping inflates the variance of the mean, and the number of rows left.

    The design effect is ``1 + (m - 1) ICC``, with m the average size of the group of a row; with random slopes and
    several factors the variance of the mean of the rows under the model over what it would be were they independent.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    Table
        One row per grouping factor and one for all together: average group size, design effect, its root (by which
        naive standard errors of a mean are too small) and effective number of rows.

    References
    ----------
    Kish (1965), *Survey Sampling*, section 8.2.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> round(float(design_effect(fit).frame.loc["Batch", "Design effect"]), 3)
    2.674
    """
    refuse(fit.design.residuals, "design_effect()", "See variance_partition() and rho itself.", correlated_only=True)
    parts, n = partition(fit), fit.n_obs
    total = float(parts.random.sum() + parts.residual)
    covariances = fit.effect_covariances()
    rows, excess = {}, 0.0
    for factor in fit.design.factors:
        sums = np.zeros((len(factor.levels), factor.Z.shape[1]))
        np.add.at(sums, factor.codes, factor.Z)
        of_mean = float(np.einsum("jk,kl,jl->", sums, covariances[factor.name], sums)) / n
        inflation = (of_mean - float(parts.random[factor.name])) / total
        excess += inflation
        size = np.bincount(factor.codes, minlength=len(factor.levels))
        rows[factor.name] = (float((size**2).sum() / n), 1 + inflation, np.sqrt(1 + inflation), n / (1 + inflation))
    rows["all"] = (np.nan, 1 + excess, np.sqrt(1 + excess), n / (1 + excess))
    columns = ["Average size", "Design effect", "Root", "Effective rows"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("Groups")
    return Table(frame, title="Design effect of a mean", notes=(f"{n:,} rows.",))


# --- information criteria ----------------------------------------------------------------------------------------


def aicc(fit: EstimatedFit) -> float:
    """Return Akaike's criterion with the correction for few rows.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    float
        AIC + 2 k (k + 1) / (n - k - 1); infinite if there are too few rows.

    References
    ----------
    Hurvich & Tsai (1989), *Biometrika* 76(2).

    Examples
    --------
    >>> import bayeslmm as blm
    >>> round(aicc(blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))), 3)
    1756.114
    """
    k, n = fit.n_parameters, fit.n_obs
    return fit.aic + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else float("inf")


@dataclass(frozen=True, repr=False)
class ConditionalAic:
    """AIC for predicting new rows of the same groups.

    Parameters
    ----------
    loglik : float
        Log-likelihood of the response given the group effects.
    df : float
        Effective degrees of freedom, that of sigma included.
    method : str
        Where they come from.

    Examples
    --------
    >>> ConditionalAic(-824.51, 31.30, "Greven & Kneib (2010)").value
    1711.62
    """

    loglik: float
    df: float
    method: str

    @property
    def value(self) -> float:
        """-2 loglik + 2 df."""
        return -2 * self.loglik + 2 * self.df

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"cAIC {self.value:.2f} (conditional log-likelihood {self.loglik:.2f}, {self.df:.2f} df, {self.method})"


def conditional_aic(fit: LmmFit, method: Literal["greven-kneib", "vaida-blanchard"] = "greven-kneib") -> ConditionalAic:
    """Return the conditional AIC, which compares models for the groups in the data.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    method : {"greven-kneib", "vaida-blanchard"}, default "greven-kneib"
        The degrees of freedom are the sum of the derivatives of the fitted values in their own responses, plus one for
        sigma. Vaida and Blanchard take theta as known, which favours models with more group effects; Greven and Kneib
        let it follow the response, except for parts on the boundary.

    Returns
    -------
    ConditionalAic
        Value, log-likelihood and degrees of freedom.

    References
    ----------
    Vaida & Blanchard (2005), *Biometrika* 92(2), 351-370; Greven & Kneib (2010), *Biometrika* 97(4), 773-789.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> conditional_aic(blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy")))
    cAIC 1711.52 (conditional log-likelihood -824.51, 31.25 df, Greven & Kneib (2010))
    """
    if method not in ("greven-kneib", "vaida-blanchard"):
        raise DataError(f'method={method!r} is not one of "greven-kneib", "vaida-blanchard".')
    refuse(fit.design.residuals, "conditional_aic()", "Compare fits by aic, or posteriors by loo().")
    weights = np.ones(fit.n_obs) if fit.design.weights is None else fit.design.weights
    scale = fit.sigma / np.sqrt(weights)
    loglik = float(stats.norm.logpdf(fit.scaled_residuals).sum() - np.log(scale).sum())
    df = float(fit.solution.leverage().sum()) + 1
    if method == "vaida-blanchard":
        return ConditionalAic(loglik, df, "Vaida & Blanchard (2005)")
    return ConditionalAic(loglik, df + _estimation_of_theta(fit, weights), "Greven & Kneib (2010)")


def _estimation_of_theta(fit: LmmFit, weights: NDArray[np.float64]) -> float:
    """Return sum_i (d fitted_i / d theta)' (d theta / d y_i), theta implicitly by the criterion's gradient being zero.

    The criterion's derivative in y is 2 d W r / pwrss, with d rows minus coefficients (rows for ML), r the residuals.
    """
    free = np.flatnonzero(~np.isnan(np.diag(fit.varpar_cov)[:-1]))
    if not len(free):
        return 0.0
    degrees = fit.n_obs - (len(fit.fixef) if fit.reml else 0)

    def at(theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        solution = solve(theta, fit.kernel, reml=fit.reml)
        fitted = fit.design.X @ solution.beta
        for factor, effects in zip(fit.design.factors, solution.b, strict=True):
            fitted = fitted + np.einsum("nk,nk->n", factor.Z, effects[factor.codes])
        response = fit.kernel.products.source.response
        return fitted, 2 * degrees * weights * (response - fitted) / solution.pwrss

    moved, slopes = np.empty((len(free), fit.n_obs)), np.empty((len(free), fit.n_obs))
    for row, j in enumerate(free):
        step = STEP * max(1.0, abs(fit.theta[j])) * np.eye(len(fit.theta))[j]
        (up, slope_up), (down, slope_down) = at(fit.theta + step), at(fit.theta - step)
        moved[row], slopes[row] = (up - down) / (2 * step[j]), (slope_up - slope_down) / (2 * step[j])
    return -float(np.trace(np.linalg.solve(_profiled_hessian(fit, free), slopes @ moved.T)))


def _profiled_hessian(fit: LmmFit, free: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return second derivatives of the profiled criterion in the free part of theta.

    The covariance of theta among (theta, sigma) is twice the inverse of that matrix: sigma has been profiled out.
    """
    return 2 * np.linalg.inv(fit.varpar_cov[np.ix_(free, free)])
