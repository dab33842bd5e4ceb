"""Does a generalised fit describe its data? Over-dispersion, zeros, quantile residuals, and an audit in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.frequentist.tails import chi2_above
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.frequentist.glmm_fit import GlmmFit
    from bayeslmm.report.diagnostic_plots import QQ

SMALL_GROUPS = 5.0
FEW_LEVELS = 5
WIDE_SCALE = 1e3


GlmmResidual = Literal["raw", "pearson", "deviance", "quantile"]
RESIDUALS: tuple[str, ...] = get_args(GlmmResidual)


def residuals(fit: GlmmFit, kind: GlmmResidual = "raw", seed: int | None = 0) -> NDArray[np.float64]:
    """Return residuals of one kind.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    kind : {"raw", "pearson", "deviance", "quantile"}, default "raw"
        See `GlmmFit.residuals`.
    seed : int, optional
        Of the simulations behind quantile residuals.

    Returns
    -------
    ndarray (n,)
        The residuals.

    Raises
    ------
    DataError
        If there is no such kind, or an ordered response has none.

    References
    ----------
    Dunn & Smyth (1996), *J. Comput. Graph. Stat.* 5(3), for quantile residuals.
    """
    if kind not in RESIDUALS:
        hint = did_you_mean(str(kind), RESIDUALS)
        raise DataError(f"there are no residuals of kind {kind!r}. Kinds: {listing(RESIDUALS)}. {hint}".rstrip())
    if kind == "quantile":
        return special.ndtri(quantile_residuals(fit, seed=seed))
    design, family = fit.design, fit.response_family
    assert design.y is not None
    size = 1.0 if design.trials is None else design.trials
    weights = 1.0 if design.weights is None else design.weights
    if fit.family == "cumulative":
        if kind == "deviance":
            raise DataError("an ordered response has no deviance per row; quantile residuals suit every family.")
        codes = np.arange(fit.fitted.shape[1])
        mean, square = fit.fitted @ codes, fit.fitted @ codes**2
        raw = design.y - mean
        return raw if kind == "raw" else raw / np.sqrt(square - mean**2)
    raw = design.y - fit.fitted
    if kind == "raw":
        return raw
    if kind == "deviance":
        unit = family.deviance(design.y, fit.fitted, fit.phi, size)
        return np.sign(raw) * np.sqrt(np.maximum(weights * unit, 0.0))
    phi = 1.0 if fit.family in ("gamma", "inverse_gaussian") else fit.phi
    return raw * np.sqrt(weights / family.variance(fit.fitted, phi, size))


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
    return pd.Series({"pearson": pearson, "df": df, "ratio": pearson / df, "p": chi2_above(pearson, df)})


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
    from bayeslmm.frequentist.bootstrap import simulate_response

    rng = np.random.default_rng(seed)
    return np.stack([simulate_response(fit, rng, keep_effects=conditional) for _ in range(draws)])


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


def quantile_qq(fit: GlmmFit, *, n_sim: int = 500, level: float = 0.95, seed: int | None = 0) -> QQ:
    """Return sorted quantile residuals against normal quantiles, with a global band of independent normal values.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    n_sim : int, default 500
        Samples behind the band.
    level : float, default 0.95
        Share of the samples that lie within the band everywhere.
    seed : int, optional
        Makes residuals and band reproducible.

    Returns
    -------
    QQ
        Ready to plot.

    References
    ----------
    Myllymäki et al. (2017), *J. R. Stat. Soc. B* 79(2), for the global band.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> quantile_qq(fit).outside
    0
    """
    from bayeslmm.frequentist.diagnostics import normal_qq

    values = residuals(fit, "quantile", seed)
    return normal_qq(values, fit.design.rows, n_sim=n_sim, level=level, seed=seed, name="quantile residual")


@dataclass(frozen=True, repr=False)
class Audit(Tabular):
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
        return self.to_text()

    def table(self) -> Table:
        """Return the findings as a table.

        Returns
        -------
        Table
            One row per finding.
        """
        return Table(self.frame.set_index("check").rename_axis(None))


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
    if fit.runaway:
        rows.append(("runaway SD", fit.runaway.split(":")[0], "leave the term out, or sample() with a prior on it"))
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
        average = float(np.bincount(factor.member_codes, weights=size).mean())
        if len(factor.members) < FEW_LEVELS:
            found = f"{len(factor.members)} levels of {factor.name}"
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
