"""Does a generalised fit describe its data? Over-dispersion, zeros, quantile residuals, and an audit in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.frequentist.glmm_prediction import response_draws
from bayeslmm.likelihood.descent import bfgs
from bayeslmm.likelihood.laplace import start_aux
from bayeslmm.predict import linear_predictor
from bayeslmm.report.tables import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.frequentist.glmm_fit import GlmmFit

SMALL_GROUPS = 5.0
FEW_LEVELS = 5
WIDE_SCALE = 1e3


@dataclass(frozen=True)
class LikelihoodRatio:
    """A likelihood-ratio test.

    Parameters
    ----------
    statistic : float
        Twice the difference of the log-likelihoods.
    df : int
        Parameters tested.
    p_value : float
        Of the reference distribution.
    reference : str
        The distribution, in words.
    """

    statistic: float
    df: int
    p_value: float
    reference: str

    def __str__(self) -> str:
        return f"LR = {self.statistic:.3f}, {self.reference}, p = {self.p_value:.4g}"


def test_against_glm(fit: GlmmFit) -> LikelihoodRatio:
    """Test all group effects at once: the fit against the model without them.

    The null hypothesis lies on the boundary. With one variance the reference is the even mixture of chi-squared with 0
    and 1 degree of freedom; with several parameters chi-squared with as many degrees of freedom is an upper bound of p.

    Parameters
    ----------
    fit : GlmmFit
        The fit.

    Returns
    -------
    LikelihoodRatio

    References
    ----------
    Self & Liang (1987), *J. Amer. Statist. Assoc.* 82; Stram & Lee (1994), *Biometrics* 50(4).

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> print(test_against_glm(fit))
    LR = 14.006, 50:50 mixture of chi-squared with 0 and 1 df, p = 9.112e-05
    """
    statistic = max(0.0, glm_deviance(fit) - fit.criterion)
    m = len(fit.theta)
    if m == 1:
        p = 1.0 if statistic == 0 else 0.5 * float(stats.chi2.sf(statistic, 1))
        return LikelihoodRatio(statistic, 1, p, "50:50 mixture of chi-squared with 0 and 1 df")
    return LikelihoodRatio(statistic, m, float(stats.chi2.sf(statistic, m)), f"chi-squared with {m} df (conservative)")


test_against_glm.__test__ = False  # type: ignore[attr-defined]


def glm_deviance(fit: GlmmFit) -> float:
    """Return minus twice the maximised log-likelihood of the model without group effects.

    Parameters
    ----------
    fit : GlmmFit
        The fit.

    Returns
    -------
    float
    """
    kernel, zero = fit.kernel, np.zeros(len(fit.theta))
    state = kernel.new_state()
    if not kernel.n_aux:
        return -2 * kernel.evaluate(zero, None, gradient=False, state=state).value

    def deviance(aux: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = kernel.evaluate(zero, None, aux, state=state)
        return (-2 * found.value, -2 * found.aux) if np.isfinite(found.value) else (np.inf, np.zeros_like(aux))

    start = start_aux(kernel)
    scale = 4.0 / kernel.cells.weight.sum()
    return bfgs(deviance, start, np.eye(len(start)) * scale, 1e-10, 200).value


def overdispersion(fit: GlmmFit) -> pd.Series:
    """Return the sum of squared Pearson residuals, its ratio to the residual degrees of freedom, and a p-value.

    Parameters
    ----------
    fit : GlmmFit
        A fit of counts or proportions; for single 0/1 responses the ratio says nothing.

    Returns
    -------
    Series
        `pearson`, `df`, `ratio`, `p`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> overdispersion(fit).round(2).to_dict()
    {'pearson': 63.08, 'df': 51.0, 'ratio': 1.24, 'p': 0.12}
    """
    pearson = float(np.sum(fit.scaled_residuals**2))
    df = fit.df_resid
    return pd.Series({"pearson": pearson, "df": df, "ratio": pearson / df, "p": float(stats.chi2.sf(pearson, df))})


def zeros(fit: GlmmFit, *, draws: int = 500, seed: int | None = 0) -> pd.Series:
    """Compare the number of zeros with that of simulated responses.

    Parameters
    ----------
    fit : GlmmFit
        A fit of counts.
    draws : int, default 500
        Simulations.
    seed : int, optional
        Makes them reproducible.

    Returns
    -------
    Series
        `observed`, `expected`, `ratio`, two-sided `p`.
    """
    assert fit.design.y is not None
    simulated = (simulate(fit, draws, seed) == 0).sum(axis=1)
    observed = int((fit.design.y == 0).sum())
    p = 2 * min(np.mean(simulated >= observed), np.mean(simulated <= observed))
    expected = float(simulated.mean())
    ratio = observed / expected if expected else np.nan
    return pd.Series({"observed": observed, "expected": expected, "ratio": ratio, "p": min(1.0, float(p))})


def simulate(fit: GlmmFit, draws: int, seed: int | None = 0, *, conditional: bool = False) -> NDArray[np.float64]:
    """Simulate responses at the estimates, group effects drawn anew or kept.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    draws : int
        How many.
    seed : int, optional
        Makes them reproducible.
    conditional : bool, default False
        Keep the estimated group effects.

    Returns
    -------
    ndarray (S, n)
    """
    rng = np.random.default_rng(seed)
    effects = {}
    for i, factor in enumerate(fit.design.factors):
        if conditional:
            effects[factor.name] = np.broadcast_to(fit.solution.b[i], (draws, *fit.solution.b[i].shape))
        else:
            noise = rng.standard_normal((draws, *fit.solution.b[i].shape))
            effects[factor.name] = noise @ fit.solution.templates[i].T
    beta = np.broadcast_to(fit.optimum.beta, (draws, len(fit.optimum.beta)))
    eta = linear_predictor(fit.design, beta, effects)
    return response_draws(fit.response_family, rng, eta, fit.optimum.aux, fit.design.trials)


def quantile_residuals(
    fit: GlmmFit, *, draws: int = 500, conditional: bool = True, seed: int | None = 0
) -> NDArray[np.float64]:
    """Return randomised quantile residuals: uniform on (0, 1) under the model, whatever the family.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    draws : int, default 500
        Simulations each row is compared with.
    conditional : bool, default True
        Keep the estimated group effects in the simulations; DHARMa draws them anew.
    seed : int, optional
        Makes them reproducible.

    Returns
    -------
    ndarray (n,)

    References
    ----------
    Dunn & Smyth (1996), *J. Comput. Graph. Stat.* 5(3); Hartig, DHARMa.
    """
    assert fit.design.y is not None
    simulated = simulate(fit, draws, seed, conditional=conditional)
    below = (simulated < fit.design.y - 1e-10).sum(axis=0)
    ties = (np.abs(simulated - fit.design.y) <= 1e-10).sum(axis=0)
    spread = np.random.default_rng(None if seed is None else [seed, 3]).uniform(size=len(below))
    return (below + spread * (ties + 1)) / (draws + 1)


@dataclass(frozen=True, repr=False)
class Audit:
    """Findings of `audit`: what, how bad, and the way out.

    Parameters
    ----------
    frame : DataFrame
        Columns `check`, `finding`, `advice`.
    """

    frame: pd.DataFrame

    def __str__(self) -> str:
        if self.frame.empty:
            return "Nothing stands out."
        return str(Table(self.frame.set_index("check").rename_axis(None)))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return Table(self.frame.set_index("check").rename_axis(None)).to_html()


def audit(fit: GlmmFit) -> Audit:
    """Look for what commonly goes wrong in a generalised mixed model.

    Parameters
    ----------
    fit : GlmmFit
        The fit.

    Returns
    -------
    Audit
        One row per finding; empty when nothing stands out.
    """
    rows = [*_shape_findings(fit), *_group_findings(fit), *_column_findings(fit), *_dispersion_findings(fit)]
    return Audit(pd.DataFrame(rows, columns=["check", "finding", "advice"]))


def _shape_findings(fit: GlmmFit) -> list[tuple[str, str, str]]:
    rows = []
    if not fit.optimum.converged:
        rows.append(("convergence", fit.optimum.status, "rescale predictors, or start elsewhere: Control(start=...)"))
    if fit.separated:
        rows.append(("separation", fit.separated.split("\n")[0], "sample() with a normal prior on the coefficients"))
    if fit.singular:
        rows.append(("singular fit", fit.singular_message.split("\n")[0], "leave a term out, or sample() with a prior"))
    if not fit.optimum.hessian_pd:
        rows.append(("flat direction", "the Hessian is not positive definite", "sample() with a prior"))
    return rows


def _group_findings(fit: GlmmFit) -> list[tuple[str, str, str]]:
    rows = []
    size = np.ones(fit.n_obs) if fit.design.trials is None else fit.design.trials
    binary = fit.family in ("bernoulli", "binomial")
    for factor in fit.design.factors:
        average = float(np.bincount(factor.codes, weights=size).mean())
        if len(factor.levels) < FEW_LEVELS:
            found = f"{len(factor.levels)} levels of {factor.name}"
            rows.append(("few levels", found, "a fixed effect, or sample() with an informative prior"))
        if binary and average < SMALL_GROUPS and fit.optimum.quadrature <= 1:
            found = f"{average:.1f} binary responses per level of {factor.name}: Laplace is biased"
            rows.append(("tiny groups", found, "fit(quadrature=9) with one factor, or sample()"))
    return rows


def _column_findings(fit: GlmmFit) -> list[tuple[str, str, str]]:
    spread = fit.design.X.std(axis=0)
    used = spread > 0
    if used.sum() > 1 and spread[used].max() / spread[used].min() > WIDE_SCALE:
        names = np.array(fit.design.coef_names)
        found = f"{names[used][spread[used].argmax()]} and {names[used][spread[used].argmin()]} differ in scale"
        return [("scaling", found, "standardise predictors to read coefficients side by side; the fit does not mind")]
    return []


def _dispersion_findings(fit: GlmmFit) -> list[tuple[str, str, str]]:
    counted = fit.family == "poisson" or (fit.family == "binomial" and fit.design.trials is not None)
    if not counted:
        return []
    found = overdispersion(fit)
    if found["p"] > 0.05:
        return []
    other = "negativebinomial" if fit.family == "poisson" else "beta_binomial"
    text = f"Pearson residuals {found['ratio']:.2f} times their variance (p = {found['p']:.2g})"
    return [("over-dispersion", text, f'family="{other}", or a group effect per row')]
