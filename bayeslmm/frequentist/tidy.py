"""Results as data frames with the column names of R's broom.mixed: tidy, glance, augment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.contract import tidy_effects
from bayeslmm.frequentist.diagnostics import cooks_distance, residuals

if TYPE_CHECKING:
    from bayeslmm.frequentist.estimated import EstimatedFit
    from bayeslmm.frequentist.glmm_fit import GlmmFit
    from bayeslmm.frequentist.lmm_fit import LmmFit

Effects = Literal["fixed", "ran_pars", "ran_vals", "ran_coefs"]
COLUMN_NAMES = {
    "Estimate": "estimate",
    "Std. Error": "std.error",
    "t value": "statistic",
    "df": "df",
    "Pr(>|t|)": "p.value",
    "z value": "statistic",
    "Pr(>|z|)": "p.value",
}
EFFECTS: tuple[str, ...] = ("fixed", "ran_pars", "ran_vals", "ran_coefs")


def tidy(
    fit: EstimatedFit,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    *,
    conf_int: bool = False,
    level: float = 0.95,
    method: Literal["wald", "profile", "boot"] = "wald",
    ddf: str | None = "satterthwaite",
    exp: bool = False,
) -> pd.DataFrame:
    """Return estimates in one long frame, with broom.mixed's column names.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    effects : str or sequence of str, default ("fixed", "ran_pars")
        Which: "fixed" coefficients, "ran_pars" standard deviations and correlations, "ran_vals" group effects,
        "ran_coefs" coefficients of each level (fixed plus group effect).
    conf_int : bool, default False
        Add `conf.low` and `conf.high`.
    level : float, default 0.95
        Coverage.
    method : {"wald", "profile", "boot"}, default "wald"
        Of the intervals of fixed effects and variance parameters; those of group effects are normal.
    ddf : str, optional
        Degrees of freedom of the t tests of a Gaussian fit; None for none, as lme4 prints them.
    exp : bool, default False
        Exponentiate the coefficients and their intervals; their standard errors are then the delta method's.

    Returns
    -------
    DataFrame
        Columns `effect`, `group`, `level` (for group effects), `term`, `estimate`, `std.error`, `statistic`, `df`,
        `p.value`, `conf.low`, `conf.high`, as far as they are asked for. Names of coefficients are those of the fit:
        the intercept is "Intercept".

    Raises
    ------
    DataError
        If there is no such kind of effect.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> tidy(fit)["term"].tolist()
    ['Intercept', 'Days', 'sd__Intercept', 'cor__Intercept.Days', 'sd__Days', 'sd__Observation']
    """
    wanted = tidy_effects(effects, EFFECTS)
    intervals = None
    if conf_int and {"fixed", "ran_pars"} & set(wanted):
        intervals = fit.confint(level) if method == "wald" else fit.confint(level, method=method)
    makers = {
        "fixed": lambda: _fixed(fit, ddf, intervals, exp),
        "ran_pars": lambda: _variance_parameters(fit, intervals),
        "ran_vals": lambda: _group_effects(fit, conf_int, level),
        "ran_coefs": lambda: _group_coefficients(fit),
    }
    parts = [makers[name]() for name in wanted]
    return pd.concat(parts, ignore_index=True)[_columns(parts)]


def _columns(parts: Sequence[pd.DataFrame]) -> list[str]:
    order = ("effect", "group", "level", "term", "estimate", "std.error", "statistic", "df", "p.value")
    present = {name for part in parts for name in part.columns}
    return [name for name in (*order, "conf.low", "conf.high") if name in present]


def _fixed(fit: EstimatedFit, ddf: str | None, intervals: pd.DataFrame | None, exp: bool) -> pd.DataFrame:
    table = fit.coefficient_frame(ddf)
    frame = pd.DataFrame({"effect": "fixed", "group": None, "term": list(table.index)})
    for theirs, ours in COLUMN_NAMES.items():
        if theirs in table:
            frame[ours] = table[theirs].to_numpy()
    frame = _with_intervals(frame, list(table.index), intervals)
    if exp:
        frame["std.error"] *= np.exp(frame["estimate"])
        scaled = [name for name in ("estimate", "conf.low", "conf.high") if name in frame]
        frame[scaled] = np.exp(frame[scaled])
    return frame


def _with_intervals(frame: pd.DataFrame, rows: Sequence[str], intervals: pd.DataFrame | None) -> pd.DataFrame:
    if intervals is None:
        return frame
    chosen = intervals.loc[list(rows)]
    return frame.assign(**{"conf.low": chosen["lower"].to_numpy(), "conf.high": chosen["upper"].to_numpy()})


def _variance_parameters(fit: EstimatedFit, intervals: pd.DataFrame | None) -> pd.DataFrame:
    """Return SDs and correlations in broom's order: down the columns of each term's lower triangle."""
    frame = fit.parameter_frame()
    rows: list[tuple[str, str, str]] = []
    for term, covariance in zip(fit.design.terms, fit.kernel.layout.covariances, strict=True):
        for i, first in enumerate(term.shown_effects):
            rows.append((term.factor, f"sd__{first}", f"sd_{term.factor}[{first}]"))
            if covariance.is_correlated:
                rows += [
                    (term.factor, f"cor__{first}.{second}", f"corr_{term.factor}[{first},{second}]")
                    for second in term.effects[i + 1 :]
                ]
    for name in frame.index[frame["kind"].isin(["sigma", "aux"])]:
        label = {"sigma": "sd__Observation", "rho": "cor__Observation"}.get(name, name)
        rows.append(("Residual", label, name))
    names = [name for _, _, name in rows]
    table = pd.DataFrame(
        {
            "effect": "ran_pars",
            "group": [group for group, _, _ in rows],
            "term": [term for _, term, _ in rows],
            "estimate": frame.loc[names, "estimate"].to_numpy(),
            "std.error": frame.loc[names, "se"].to_numpy(),
        }
    )
    return _with_intervals(table, names, intervals)


def _group_effects(fit: EstimatedFit, conf_int: bool, level: float) -> pd.DataFrame:
    from scipy.special import ndtri

    long = fit.ranef.to_pandas().rename(
        columns={"factor": "group", "effect": "term", "value": "estimate", "sd": "std.error"}
    )
    long.insert(0, "effect", "ran_vals")
    if conf_int:
        reach = float(ndtri(0.5 + level / 2)) * long["std.error"]
        long = long.assign(**{"conf.low": long["estimate"] - reach, "conf.high": long["estimate"] + reach})
    return long


def _group_coefficients(fit: EstimatedFit) -> pd.DataFrame:
    long = fit.ranef.to_pandas().rename(columns={"factor": "group", "effect": "term", "value": "estimate"})
    fixed = fit.fixef.reindex(long["term"]).fillna(0.0).to_numpy()
    return long.assign(effect="ran_coefs", estimate=long["estimate"] + fixed).drop(columns="sd")


def glance(fit: EstimatedFit) -> pd.DataFrame:
    """Return one row about the whole fit, with broom.mixed's column names.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.

    Returns
    -------
    DataFrame
        Columns `nobs`, `sigma`, `logLik`, `AIC`, `BIC`, `REMLcrit` or `deviance`, `df.residual`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> int(glance(fit).loc[0, "df.residual"])
    174
    """
    row: dict[str, Any] = {
        "nobs": fit.n_obs,
        "sigma": fit.sigma,
        "logLik": fit.loglik,
        "AIC": fit.aic,
        "BIC": fit.bic,
        "REMLcrit" if fit.engine == "REML" else "deviance": fit.criterion,
        "df.residual": fit.df_resid,
    }
    return pd.DataFrame([row])


def augment(fit: LmmFit) -> pd.DataFrame:
    """Return the rows used, with fitted values, residuals and influence, under broom.mixed's column names.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    DataFrame
        The columns of the formula, then `.fitted` (group effects included), `.resid`, `.hat` (leverage), `.cooksd`
        (of the fitted values, as in lme4), `.fixed` (coefficients only), `.mu`, `.offset`, `.sqrtXwt`, `.sqrtrwt`,
        `.weights`, `.wtres`; `.std.resid` (standardised) has no counterpart in broom.mixed. The index is the position
        of the row in the caller's frame. Where residuals are correlated there is no leverage of single rows, and
        `.std.resid` is the normalised residual.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> augment(fit)[[".fitted", ".resid", ".hat"]].head(1).round(3).values.tolist()
    [[253.664, -4.104, 0.229]]
    """
    design, raw, roots = fit.design, residuals(fit), fit.sigma / fit.residual_sd()
    correlated = fit.residual is not None and fit.residual.rho is not None
    offset = np.zeros(design.n) if design.offset is None else design.offset
    added = {
        ".fitted": fit.fitted,
        ".resid": raw,
        **({} if correlated else {".hat": fit.leverage, ".cooksd": cooks_distance(fit, of="fitted").to_numpy()}),
        ".fixed": design.X @ fit.solution.beta + offset,
        ".mu": fit.fitted,
        ".offset": offset,
        ".sqrtXwt": roots,
        ".sqrtrwt": roots,
        ".weights": roots**2,
        ".wtres": raw * roots,
        ".std.resid": residuals(fit, "normalized" if correlated else "standardized"),
    }
    frame = pd.concat([design.data.reset_index(drop=True), pd.DataFrame(added)], axis=1)
    return frame.set_index(pd.Index(design.rows, name="row"))


def augment_generalised(fit: GlmmFit) -> pd.DataFrame:
    """Return the rows used, with expected responses and residuals, under broom.mixed's column names.

    Parameters
    ----------
    fit : GlmmFit
        A fit of any family but the ordered ones.

    Returns
    -------
    DataFrame
        The columns of the formula, then `.fitted` and `.fixed` (linear predictors, with and without group effects),
        `.mu` (expected response), `.resid` (of the deviance), `.offset`; `.pearson` and `.quantile` (randomised, normal
        under the model) have no counterpart in broom.mixed.

    Raises
    ------
    DataError
        If the response is ordered.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> augment_generalised(fit)[[".fitted", ".mu", ".resid"]].head(1).round(3).values.tolist()
    [[-0.809, 0.308, -1.438]]
    """
    design = fit.design
    added = {
        ".fitted": fit.predict(scale="link"),
        ".resid": fit.residuals("deviance"),
        ".fixed": fit.predict(scale="link", include=[]),
        ".mu": fit.fitted,
        ".offset": np.zeros(design.n) if design.offset is None else design.offset,
        ".pearson": fit.residuals("pearson"),
        ".quantile": fit.residuals("quantile"),
    }
    frame = pd.concat([design.data.reset_index(drop=True), pd.DataFrame(added)], axis=1)
    return frame.set_index(pd.Index(design.rows, name="row"))
