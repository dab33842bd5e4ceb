"""Average marginal effects: what a column does to the expected response, averaged over the rows, with errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError
from bayeslmm.frequentist.glmm_prediction import integrated_mean
from bayeslmm.frequentist.lmm_fit import LmmFit, check_level
from bayeslmm.frequentist.tails import normal_quantile, two_sided_t
from bayeslmm.predict import counterfactuals
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.frequentist.estimated import EstimatedFit
    from bayeslmm.frequentist.glmm_fit import GlmmFit

GroupEffects = Literal["integrated", "zero", "fitted"]
MEANINGS = {
    "integrated": "averaged over the distribution of the group effects",
    "zero": "in an average group",
    "fitted": "in the fitted groups, their effects taken as known",
}
STEP = 1e-3
"""Step of differences in a parameter, in standard errors."""


@dataclass(frozen=True, repr=False)
class MarginalEffects(Tabular):
    """Average marginal effects.

    Parameters
    ----------
    frame : DataFrame
        Columns term, contrast, (category), estimate, std.error, statistic, p.value, conf.low, conf.high.
    meaning : str
        What was done with the group effects, in words.
    level : float
        Coverage of the intervals.
    """

    frame: pd.DataFrame
    meaning: str
    level: float

    def table(self) -> Table:
        """Return the effects as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        names = ["term", "contrast", *(["category"] if "category" in self.frame else [])]
        labels = self.frame[names].astype(str).agg(" ".join, axis=1)
        shown = self.frame.drop(columns=names).set_axis(list(labels))
        shown = shown.rename(columns={"estimate": "Estimate", "std.error": "Std. Error", "statistic": "z value"})
        shown = shown.rename(columns={"p.value": "Pr(>|z|)", "conf.low": "lower", "conf.high": "upper"})
        return Table(
            shown,
            title="Average marginal effects on the expected response",
            notes=(f"Expected responses {self.meaning}; {100 * self.level:g} % intervals by the delta method.",),
            shared=(("Estimate", "Std. Error", "lower", "upper"),),
        )


def marginal_effects(
    fit: EstimatedFit,
    variables: str | Sequence[str] | None = None,
    *,
    group_effects: GroupEffects = "integrated",
    level: float = 0.95,
) -> MarginalEffects:
    """Return the average marginal effects of columns on the expected response.

    For a numeric column the effect is the derivative of the expected response, for a factor the difference between a
    level and the first, each averaged over the fitted rows, all other columns as they are.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    variables : str or sequence of str, optional
        Columns of the fixed part; all when absent.
    group_effects : {"integrated", "zero", "fitted"}, default "integrated"
        Expected responses averaged over the distribution of the group effects (Stata's ``margins, predict(mu
        marginal)``); of an average group; with the estimated effects of the row's groups, taken as known (R's
        marginaleffects). For identity links the three agree where there are no random slopes.
    level : float, default 0.95
        Coverage.

    Returns
    -------
    MarginalEffects
        Effects with standard errors by the delta method, over all parameters.

    Raises
    ------
    DataError
        If there is no such column, or no such choice of group effects.

    References
    ----------
    Williams (2012), *Stata Journal* 12(2); Arel-Bundock, Greifer & Heiss (2024), *J. Stat. Softw.* 111(9).

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> marginal_effects(fit).frame["estimate"].round(3).tolist()
    [-0.119, -0.13, -0.159]
    """
    if group_effects not in MEANINGS:
        raise DataError(f'group_effects={group_effects!r} is not one of "integrated", "zero", "fitted".')
    point, covariance = _parameters(fit)
    free = np.flatnonzero(np.isfinite(np.diag(covariance)) & (np.diag(covariance) > 0))
    steps = STEP * np.sqrt(np.diag(covariance)[free])
    z = normal_quantile(0.5 + check_level(level) / 2)
    parts = []
    for change in counterfactuals(fit.design, variables):

        def effect(x: NDArray[np.float64]) -> NDArray[np.float64]:
            low, high = (_mean_response(fit, rows, x, group_effects) for rows in (change.low, change.high))  # noqa: B023
            return np.atleast_1d((high - low) / change.step)  # noqa: B023

        estimate = effect(point)
        slopes = np.empty((len(estimate), len(free)))
        for column, (j, step) in enumerate(zip(free, steps, strict=True)):
            move = np.zeros(len(point))
            move[j] = step
            slopes[:, column] = (effect(point + move) - effect(point - move)) / (2 * step)
        se = np.sqrt(np.einsum("ci,ij,cj->c", slopes, covariance[np.ix_(free, free)], slopes))
        columns: dict[str, Any] = {"term": change.term, "contrast": change.contrast}
        if len(estimate) > 1:
            columns["category"] = list(fit.design.response_levels)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = estimate / se
        columns |= {"estimate": estimate, "std.error": se, "statistic": ratio, "p.value": two_sided_t(ratio, np.inf)}
        parts.append(pd.DataFrame(columns | {"conf.low": estimate - z * se, "conf.high": estimate + z * se}))
    if not parts:
        raise DataError(f"the fixed part of {fit.design.formula.text!r} has no column.")
    return MarginalEffects(pd.concat(parts, ignore_index=True), MEANINGS[group_effects], level)


def _parameters(fit: EstimatedFit) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (theta, beta, aux) and their covariance; a Gaussian expectation depends on the coefficients alone."""
    if isinstance(fit, LmmFit):
        m, p = len(fit.theta), len(fit.beta)
        covariance = np.zeros((m + p, m + p))
        covariance[m:, m:] = fit.vcov
        return np.concatenate([fit.theta, fit.beta]), covariance
    generalised: GlmmFit = fit  # type: ignore[assignment]
    optimum = generalised.optimum
    covariance = optimum.covariance.copy()
    covariance[np.flatnonzero(optimum.boundary)] = covariance[:, np.flatnonzero(optimum.boundary)] = 0.0
    return np.concatenate([optimum.theta, optimum.beta, optimum.aux]), covariance


def _mean_response(
    fit: EstimatedFit, design: Design, x: NDArray[np.float64], group_effects: GroupEffects
) -> NDArray[np.float64]:
    """Return the average expected response of some rows: a number, or one for each category."""
    m, p = len(fit.theta), len(fit.beta)
    theta, beta, aux = x[:m], x[m : m + p], x[m + p :]
    eta = design.X @ beta + (0.0 if design.offset is None else design.offset)
    variance = None
    if group_effects == "fitted":
        for factor, effects in zip(design.factors, fit.solution.b, strict=True):
            eta = eta + np.einsum("nk,nk->n", factor.Z, effects[factor.codes])
    elif group_effects == "integrated" and fit.response_family.link != "identity":
        templates = fit.kernel.layout.templates(theta)
        variance = np.zeros(len(eta))
        for factor, template in zip(design.factors, templates, strict=True):
            variance += np.square(factor.Z @ template).sum(axis=1)
    return np.asarray(integrated_mean(fit.response_family, eta, variance, aux).mean(axis=0))
