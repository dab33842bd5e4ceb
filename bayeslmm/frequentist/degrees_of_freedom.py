"""Denominator degrees of freedom of t and F tests: Satterthwaite, Kenward-Roger, residual, between-within."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
import pandas as pd

from bayeslmm.errors import ComparisonError, did_you_mean, listing
from bayeslmm.formula.grouping import is_nested
from bayeslmm.formula.residuals import refuse
from bayeslmm.frequentist.kenward_roger import KenwardRoger, kenward_roger
from bayeslmm.frequentist.tails import f_above, two_sided_t
from bayeslmm.frequentist.variance_parameters import STEP
from bayeslmm.likelihood.lmm import LmmKernel, Solution, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.frequentist.lmm_fit import LmmFit

Ddf = Literal["satterthwaite", "kenward-roger", "residual", "between-within"]
METHODS: tuple[str, ...] = get_args(Ddf)
_SHORT = {"kr": "kenward-roger", "kenwardroger": "kenward-roger", "betweenwithin": "between-within"}


class Denominator(Protocol):
    """A covariance of the coefficients, and the reference distribution of tests made with it."""

    @property
    def title(self) -> str:
        """Name for a table's note: "Satterthwaite"."""

    @property
    def vcov(self) -> NDArray[np.float64]:
        """Covariance of the coefficients (p, p) that the tests use."""

    def df(self, L: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return degrees of freedom (q,) of the t test of each row of L (q, p)."""

    def joint(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return degrees of freedom and scale of the F test of all rows of L (q, p) together."""


@dataclass(frozen=True)
class Satterthwaite:
    """Moment-matched degrees of freedom, as in lmerTest.

    Parameters
    ----------
    vcov : ndarray (p, p)
        Covariance of the coefficients.
    slopes : ndarray (v, p, p)
        Its derivative in each free variance parameter.
    parameter_cov : ndarray (v, v)
        Asymptotic covariance of these parameters.

    References
    ----------
    Satterthwaite (1946), *Biometrics Bulletin* 2(6); Fai & Cornelius (1996), *J. Stat. Comput. Simul.* 54(4);
    Kuznetsova, Brockhoff & Christensen (2017), *J. Stat. Softw.* 82(13).
    """

    vcov: NDArray[np.float64]
    slopes: NDArray[np.float64]
    parameter_cov: NDArray[np.float64]
    title: str = "Satterthwaite"

    def df(self, L: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 2 v² / Var(v) for the variance v of each contrast (q,)."""
        variance = np.einsum("qa,ab,qb->q", L, self.vcov, L)
        gradient = np.einsum("qa,vab,qb->qv", L, self.slopes, L)
        spread = np.einsum("qv,vw,qw->q", gradient, self.parameter_cov, gradient)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread > 0, 2 * variance**2 / spread, np.inf)

    def joint(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return Fai and Cornelius' degrees of freedom from those of the independent directions; the scale is 1."""
        if len(L) == 1:
            return float(self.df(L)[0]), 1.0
        vectors = np.linalg.eigh(L @ self.vcov @ L.T)[1]
        return _pool(self.df(vectors.T @ L)), 1.0


def _pool(df: NDArray[np.float64]) -> float:
    """Return the df for which the mean of F equals that of a sum of squared t's."""
    if np.ptp(df) < 1e-8:
        return float(df.mean())
    if df.min() <= 2:
        return 2.0
    expectation = float((df / (df - 2)).sum())
    return 2 * expectation / (expectation - len(df))


def satterthwaite(kernel: LmmKernel, solution: Solution, parameter_cov: NDArray[np.float64]) -> Satterthwaite:
    """Compute how the covariance of the coefficients moves with the variance parameters.

    Parameters
    ----------
    kernel : LmmKernel
        The kernel.
    solution : Solution
        The optimum.
    parameter_cov : ndarray (m + 1, m + 1)
        Asymptotic covariance of (theta, sigma), NaN for parameters on the boundary, which are taken as known.

    Returns
    -------
    Satterthwaite
        Ready to give degrees of freedom of any contrast.
    """
    theta, sigma = solution.theta, solution.sigma
    free = np.flatnonzero(~np.isnan(np.diag(parameter_cov)))
    vcov = solution.vcov
    slopes = np.empty((len(free), *vcov.shape))
    for row, j in enumerate(free):
        if j == len(theta):
            slopes[row] = 2 * vcov / sigma
            continue
        step = STEP * max(1.0, abs(theta[j]))
        up, down = theta.copy(), theta.copy()
        up[j] += step
        down[j] -= step
        slopes[row] = (_scaled_vcov(up, kernel, sigma) - _scaled_vcov(down, kernel, sigma)) / (2 * step)
    return Satterthwaite(vcov, slopes, parameter_cov[np.ix_(free, free)])


def _scaled_vcov(theta: NDArray[np.float64], kernel: LmmKernel, sigma: float) -> NDArray[np.float64]:
    solution = solve(theta, kernel)
    return solution.vcov * (sigma / solution.sigma) ** 2


@dataclass(frozen=True)
class KenwardRogerTests:
    """Kenward and Roger's tests; each single contrast is an F test with one numerator degree of freedom."""

    adjustment: KenwardRoger
    title: str = "Kenward-Roger"

    @property
    def vcov(self) -> NDArray[np.float64]:
        """The adjusted covariance of the coefficients (p, p)."""
        return self.adjustment.adjusted

    def df(self, L: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the degrees of freedom of each contrast (q,); with one contrast the scale is 1."""
        return np.array([self.adjustment.moments(row[None])[0] for row in L])

    def joint(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return degrees of freedom and scale of the joint F test."""
        return self.adjustment.moments(L)


@dataclass(frozen=True)
class FixedDf:
    """Degrees of freedom that belong to coefficients, not to variances: residual, between-within.

    Parameters
    ----------
    vcov : ndarray (p, p)
        Covariance of the coefficients.
    per_coef : ndarray (p,)
        Degrees of freedom of each coefficient.
    title : str
        Name for the tables.
    """

    vcov: NDArray[np.float64]
    per_coef: NDArray[np.float64]
    title: str

    def df(self, L: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smallest degrees of freedom of the coefficients in each contrast (q,)."""
        return np.array([self.per_coef[np.abs(row) > 1e-12].min(initial=np.inf) for row in L])

    def joint(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return the smallest degrees of freedom of any coefficient tested; the scale is 1."""
        return float(self.df(L).min()), 1.0


@dataclass(frozen=True)
class LargeSample:
    """Normal and chi-squared tests of estimates by maximum likelihood: no degrees of freedom, as for glmer.

    Parameters
    ----------
    vcov : ndarray (p, p)
        Covariance of the coefficients.
    """

    vcov: NDArray[np.float64]
    title: str = "infinite"

    def df(self, L: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return infinity for each contrast (q,)."""
        return np.full(len(L), np.inf)

    def joint(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return infinity; the scale is 1."""
        return np.inf, 1.0


def reference_note(method: str) -> str:
    """Return in words where the reference distribution of tests comes from.

    Parameters
    ----------
    method : str
        Title of a denominator.

    Returns
    -------
    str
        For a note below a table.

    Examples
    --------
    >>> reference_note("Satterthwaite"), reference_note("infinite")
    ('Satterthwaite degrees of freedom', 'the normal distribution')
    """
    return "the normal distribution" if method == "infinite" else f"{method} degrees of freedom"


def between_within_df(design: Design) -> NDArray[np.float64]:
    """Return between-within degrees of freedom of each coefficient.

    A coefficient belongs to the coarsest grouping factor within whose levels its column is constant, else to the rows.
    With m levels on a stratum, m' on the next coarser one (0 above the coarsest) and p coefficients of its own, the
    stratum has m - m' - p degrees of freedom.

    Parameters
    ----------
    design : Design
        The design; its grouping factors must be nested.

    Returns
    -------
    ndarray (p,)
        At least 1.

    Raises
    ------
    ComparisonError
        If the grouping factors are crossed.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> between_within_df(blm.build_design("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy")))
    array([ 17., 161.])

    References
    ----------
    Schluchter & Elashoff (1990), *J. Stat. Comput. Simul.* 37(1-2); Pinheiro & Bates (2000), section 2.4.2.
    """
    if any(factor.loading is not None for factor in design.factors):
        raise ComparisonError(
            "between-within degrees of freedom need independent groups, and the levels of rw() or icar() are not.\n"
            '  Use ddf="satterthwaite" or "kenward-roger".'
        )
    factors = sorted(design.factors, key=lambda factor: len(factor.levels))
    for outer, inner in pairwise(factors):
        if not is_nested(inner.codes, outer.codes):
            raise ComparisonError(
                f"between-within degrees of freedom need nested grouping factors; {inner.name!r} and {outer.name!r} "
                'are crossed.\n  Use ddf="satterthwaite" or "kenward-roger".'
            )
    strata = [factor.codes for factor in factors] + [np.arange(design.n)]
    sizes = [len(factor.levels) for factor in factors] + [design.n]
    home = np.array([_stratum(column, strata) for column in design.X.T], dtype=int)
    df = np.array(
        [size - (sizes[i - 1] if i else 0) - np.count_nonzero(home == i) for i, size in enumerate(sizes)], dtype=float
    )
    return np.maximum(df, 1.0)[home]


def _stratum(column: NDArray[np.float64], strata: Sequence[NDArray[np.integer]]) -> int:
    for i, codes in enumerate(strata):
        first = np.zeros(codes.max() + 1)
        first[codes] = column
        if np.array_equal(first[codes], column):
            return i
    raise AssertionError("every column is constant within a row")


def check_ddf(ddf: str) -> str:
    """Return the full name of a method, accepting short forms and any case.

    Parameters
    ----------
    ddf : str
        As the user wrote it.

    Returns
    -------
    str
        One of `METHODS`.

    Raises
    ------
    ComparisonError
        If there is no such method.

    Examples
    --------
    >>> check_ddf("Kenward-Roger"), check_ddf("KR")
    ('kenward-roger', 'kenward-roger')
    """
    name = str(ddf).strip().casefold().replace("_", "-").replace(" ", "-")
    name = _SHORT.get(name.replace("-", ""), name)
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise ComparisonError(
            f"ddf={ddf!r} is no method for degrees of freedom.\n  Methods: {listing(METHODS)}. {hint}".rstrip()
        )
    return name


def denominator(fit: LmmFit, ddf: str = "satterthwaite") -> Denominator:
    """Return the reference distribution of a fit's tests by one of the methods.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    ddf : {"satterthwaite", "kenward-roger", "residual", "between-within"}, default "satterthwaite"
        The method.

    Returns
    -------
    Denominator
        Its covariance and degrees of freedom.

    Raises
    ------
    ComparisonError
        If the method is not known, or Kenward-Roger is asked of an ML fit.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> denominator(fit, "kenward-roger").df(np.eye(2)).round(6)
    array([17., 17.])
    """
    match check_ddf(ddf):
        case "satterthwaite":
            if fit.residual is not None:
                from bayeslmm.frequentist.residual_fit import residual_satterthwaite

                return residual_satterthwaite(fit.residual, fit.kernel, fit.solution, fit.varpar_cov)
            return satterthwaite(fit.kernel, fit.solution, fit.varpar_cov)
        case "kenward-roger":
            refuse(fit.design.residuals, "Kenward-Roger", 'Use ddf="satterthwaite", which counts their parameters too.')
            if not fit.reml:
                raise ComparisonError(
                    "Kenward-Roger is defined for REML estimates; this fit is by ML.\n"
                    '  Fit with reml=True, or use ddf="satterthwaite".'
                )
            return KenwardRogerTests(kenward_roger(fit.kernel, fit.solution))
        case "between-within":
            return FixedDf(fit.solution.vcov, between_within_df(fit.design), "between-within")
        case _:
            df = np.full(fit.design.X.shape[1], float(fit.n_obs - fit.design.X.shape[1]))
            return FixedDf(fit.solution.vcov, df, "residual")


def coefficient_table(
    estimate: NDArray[np.float64], names: Sequence[str], method: Denominator | None, vcov: NDArray[np.float64]
) -> pd.DataFrame:
    """Return coefficients with standard errors and t tests.

    Parameters
    ----------
    estimate : ndarray (p,)
        Coefficients.
    names : sequence of str
        Their names.
    method : Denominator, optional
        Degrees of freedom; without it there are t values and no p-values.
    vcov : ndarray (p, p)
        Covariance to use without a method.

    Returns
    -------
    DataFrame
        Columns Estimate, Std. Error, df, t value, Pr(>|t|); without a method Estimate, Std. Error, t value.
    """
    se = np.sqrt(np.diag(vcov if method is None else method.vcov))
    columns = {"Estimate": estimate, "Std. Error": se}
    t = estimate / se
    if method is None:
        return pd.DataFrame({**columns, "t value": t}, index=list(names))
    df = method.df(np.eye(len(estimate)))
    p = two_sided_t(t, df)
    return pd.DataFrame({**columns, "df": df, "t value": t, "Pr(>|t|)": p}, index=list(names))


@dataclass(frozen=True)
class FTest:
    """The F test of a set of contrasts.

    Parameters
    ----------
    statistic : float
        F, scaled by the method where it has a scale.
    df_num, df_den : float
        Degrees of freedom.
    p_value : float
        Upper tail.
    """

    statistic: float
    df_num: int
    df_den: float
    p_value: float


def f_test(
    L: NDArray[np.float64], beta: NDArray[np.float64], method: Denominator, rhs: NDArray[np.float64] | None = None
) -> FTest:
    """Test ``L beta = rhs``.

    Parameters
    ----------
    L : ndarray (q, p)
        Contrasts, of full row rank.
    beta : ndarray (p,)
        Coefficients.
    method : Denominator
        Covariance and degrees of freedom.
    rhs : ndarray (q,), optional
        Zero when absent.

    Returns
    -------
    FTest
        The test.
    """
    difference = L @ beta - (0.0 if rhs is None else rhs)
    df, scale = method.joint(L)
    wald = float(difference @ np.linalg.solve(L @ method.vcov @ L.T, difference)) / len(L)
    statistic = scale * wald
    p_value = f_above(statistic, len(L), df)
    return FTest(statistic, len(L), df, p_value)
