"""Estimated marginal means and their comparisons: averages of predictions over a grid of factor levels.

A mean is a linear form of the coefficients, so that it has the degrees of freedom of any contrast: Satterthwaite or
Kenward-Roger, one number for each mean and each difference. For generalised fits these are means of the linear
predictor with normal intervals, and what the inverse link makes of them; `bayeslmm.frequentist.marginal_effects` has
averages of expected responses instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import ComparisonError
from bayeslmm.families import Family, as_family
from bayeslmm.formula.reference_grid import contrast_rows, reference_means
from bayeslmm.frequentist.degrees_of_freedom import Denominator, reference_note
from bayeslmm.frequentist.lmm_fit import check_level
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.frequentist.estimated import EstimatedFit

Adjustment = Literal["tukey", "holm", "bonferroni", "none"]
Scale = Literal["link", "response"]
GAUSSIAN = as_family("gaussian")


@dataclass(frozen=True, repr=False)
class MarginalMeans(Tabular):
    """Estimated marginal means.

    Parameters
    ----------
    labels : tuple of str
        One per mean.
    grid : DataFrame
        Values of the factors asked for, one row per mean.
    L : ndarray (q, p)
        The means as linear forms of the coefficients; NaN where a mean is not estimable.
    beta : ndarray (p,)
        Coefficients.
    method : Denominator
        Covariance and degrees of freedom.
    offset : float
        Average offset, part of each mean.
    notes : tuple of str
        What was averaged over.
    level : float
        Coverage of the intervals.
    family : Family
        Response family with its link.
    scale : {"link", "response"}
        Means of the linear predictor, or what the inverse link makes of them.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("score ~ Machine + (1 | Worker)", blm.datasets.load("Machines"))
    >>> means = fit.emmeans("Machine")
    >>> means.pairs().frame["difference"].round(3).tolist()
    [-7.967, -13.917, -5.95]
    """

    labels: tuple[str, ...]
    grid: pd.DataFrame = field(repr=False)
    L: NDArray[np.float64] = field(repr=False)
    beta: NDArray[np.float64] = field(repr=False)
    method: Denominator = field(repr=False)
    offset: float = 0.0
    notes: tuple[str, ...] = ()
    level: float = 0.95
    family: Family = GAUSSIAN
    scale: Scale = "link"

    @property
    def frame(self) -> pd.DataFrame:
        """Columns of the factors, then mean, se, df, lower, upper."""
        mean, se, df = _estimates(self.L, self.beta, self.method)
        half = stats.t.ppf(0.5 + self.level / 2, df) * se
        mean = mean + self.offset
        ends = np.array([mean - half, mean + half])
        if self.scale == "response":
            se = self.family.slope(mean) * se
            mean, ends = self.family.inverse_link(mean), np.sort(self.family.inverse_link(ends), axis=0)
        numbers = pd.DataFrame({"mean": mean, "se": se, "df": df, "lower": ends[0], "upper": ends[1]})
        return pd.concat([self.grid.reset_index(drop=True), numbers], axis=1)

    @property
    def _ratio(self) -> str:
        """What exponentials of differences are called, where they are shown."""
        return self.family.ratio if self.scale == "response" else ""

    def pairs(self, adjust: Adjustment = "tukey", level: float | None = None) -> Comparisons:
        """Return all pairwise differences.

        Parameters
        ----------
        adjust : {"tukey", "holm", "bonferroni", "none"}, default "tukey"
            How p-values, and intervals, allow for the number of comparisons. Holm has no intervals of its own: those
            shown are Bonferroni's, which it implies.
        level : float, optional
            Coverage, that of the means when absent.

        Returns
        -------
        Comparisons
            Differences, first less second; on the response scale their exponentials for the links logit (odds ratios)
            and log (ratios), differences of the linear predictor for other links.
        """
        pairs = list(combinations(range(len(self.labels)), 2))
        if not pairs:
            raise ComparisonError("there is one mean only: nothing to compare.")
        rows = np.array([self.L[i] - self.L[j] for i, j in pairs])
        labels = tuple(f"{self.labels[i]} - {self.labels[j]}" for i, j in pairs)
        return compare_means(
            rows, labels, len(self.labels), self.beta, self.method, adjust, level or self.level, self._ratio
        )

    def contrast(
        self, weights: Mapping[str, Sequence[float]], adjust: Adjustment = "holm", level: float | None = None
    ) -> Comparisons:
        """Return chosen linear combinations of the means.

        Parameters
        ----------
        weights : mapping of str to sequence of float (q,)
            One weight per mean, by name of the contrast.
        adjust : {"holm", "bonferroni", "none"}, default "holm"
            As in `pairs`; Tukey's is for pairs only.
        level : float, optional
            Coverage, that of the means when absent.

        Returns
        -------
        Comparisons
            The contrasts.
        """
        if adjust == "tukey":
            raise ComparisonError('adjust="tukey" is for all pairwise differences; use "holm" for other contrasts.')
        rows = contrast_rows(weights, self.labels, self.L)
        return compare_means(rows, tuple(weights), 0, self.beta, self.method, adjust, level or self.level, self._ratio)

    def table(self) -> Table:
        """Return the means as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        frame = self.frame
        numbers = frame[["mean", "se", "df", "lower", "upper"]].set_axis(list(self.labels))
        notes = [*self.notes, f"{100 * self.level:g} % intervals with {reference_note(self.method.title)}."]
        if self.scale == "response":
            notes.append(
                f"Back-transformed from the link ({self.family.link}): expected responses of an average group."
            )
        return Table(
            numbers, title="Estimated marginal means", notes=tuple(notes), shared=(("mean", "se", "lower", "upper"),)
        )


@dataclass(frozen=True, repr=False)
class Comparisons(Tabular):
    """Differences of marginal means.

    Parameters
    ----------
    frame : DataFrame
        Columns difference (or ratio), se, df, t value (z value where df is infinite), p, lower, upper.
    adjust : str
        How p-values and intervals allow for the number of comparisons.
    method : str
        Where the degrees of freedom come from.
    level : float
        Coverage of the intervals.
    """

    frame: pd.DataFrame
    adjust: str
    method: str
    level: float

    def table(self) -> Table:
        """Return the comparisons as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        words = {
            "none": "Neither p-values nor intervals allow for the number of comparisons.",
            "holm": f"p-values adjusted by Holm's method, intervals by Bonferroni's ({len(self.frame)} comparisons).",
        }
        note = words.get(
            self.adjust,
            f"p-values and intervals adjusted by {self.adjust.title()}'s method ({len(self.frame)} comparisons).",
        )
        return Table(
            self.frame,
            title="Comparisons of marginal means",
            notes=(note, f"{100 * self.level:g} % intervals with {reference_note(self.method)}."),
            shared=((str(self.frame.columns[0]), "se", "lower", "upper"),),
        )


def _estimates(
    L: NDArray[np.float64], beta: NDArray[np.float64], method: Denominator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return estimate, standard error and degrees of freedom of each row, NaN where it is not estimable."""
    good = ~np.isnan(L).any(axis=1)
    mean, se, df = (np.full(len(L), np.nan) for _ in range(3))
    mean[good] = L[good] @ beta
    se[good] = np.sqrt(np.einsum("qa,ab,qb->q", L[good], method.vcov, L[good]))
    df[good] = method.df(L[good])
    return mean, se, df


def compare_means(
    L: NDArray[np.float64],
    labels: tuple[str, ...],
    family: int,
    beta: NDArray[np.float64],
    method: Denominator,
    adjust: str,
    level: float,
    ratio: str = "",
) -> Comparisons:
    """Test contrasts of means, allowing for their number.

    Parameters
    ----------
    L : ndarray (k, p)
        Contrasts.
    labels : tuple of str
        Their names.
    family : int
        Number of means compared, for Tukey.
    beta : ndarray (p,)
        Coefficients.
    method : Denominator
        Covariance and degrees of freedom.
    adjust : {"tukey", "holm", "bonferroni", "none"}
        The adjustment.
    level : float
        Coverage.
    ratio : str
        What the exponentials of the contrasts are, to be shown in place of the contrasts.

    Returns
    -------
    Comparisons
        The tests.

    Raises
    ------
    ComparisonError
        If the adjustment is not known.

    References
    ----------
    Tukey (1949), *Biometrics* 5(2); Kramer (1956), *Biometrics* 12(3); Holm (1979), *Scand. J. Stat.* 6(2).
    """
    difference, se, df = _estimates(L, beta, method)
    t = difference / se
    p = np.asarray(2 * stats.t.sf(np.abs(t), df))
    good, tail = ~np.isnan(p), (1 - check_level(level)) / 2
    count = int(good.sum())
    if adjust == "tukey":
        p[good] = stats.studentized_range.sf(np.sqrt(2) * np.abs(t[good]), family, np.minimum(df[good], 1e5))
        reach = stats.studentized_range.ppf(level, family, np.minimum(df, 1e5)) / np.sqrt(2)
    elif adjust in ("holm", "bonferroni"):
        p[good] = _holm(p[good]) if adjust == "holm" else np.minimum(1.0, count * p[good])
        reach = stats.t.isf(tail / max(count, 1), df)
    elif adjust == "none":
        reach = stats.t.isf(tail, df)
    else:
        raise ComparisonError(f'adjust={adjust!r} is not one of "tukey", "holm", "bonferroni", "none".')
    estimate, ends = difference, np.array([difference - reach * se, difference + reach * se])
    if ratio:
        estimate, ends = np.exp(difference), np.exp(ends)
        se = estimate * se
    frame = pd.DataFrame(
        {
            ratio or "difference": estimate,
            "se": se,
            "df": df,
            "z value" if np.isinf(df[good]).all() else "t value": t,
            "p": p,
            "lower": ends[0],
            "upper": ends[1],
        },
        index=list(labels),
    )
    return Comparisons(frame, adjust, method.title, level)


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1.0)
    return out


def emmeans(
    fit: EstimatedFit,
    specs: str | Sequence[str],
    *,
    at: Mapping[str, Any] | None = None,
    weights: Literal["equal", "proportional"] = "equal",
    ddf: str | None = None,
    level: float = 0.95,
    scale: Scale = "link",
) -> MarginalMeans:
    """Return means over a balanced grid: other factors averaged, numeric columns at their mean.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    specs : str or sequence of str
        Factors whose levels, and combinations of levels, are wanted; also numeric columns with values in `at`.
    at : mapping of str to value or sequence, optional
        Values of columns in place of all levels or the mean.
    weights : {"equal", "proportional"}, default "equal"
        How levels of factors that are averaged over count: all the same, or as often as they occur.
    ddf : str, optional
        Degrees of freedom of a Gaussian fit, Satterthwaite's when absent; generalised fits have normal intervals.
    level : float, default 0.95
        Coverage of the intervals.
    scale : {"link", "response"}, default "link"
        For generalised fits: means of the linear predictor, or these with their intervals through the inverse link.

    Returns
    -------
    MarginalMeans
        Means, and `pairs()`.

    Raises
    ------
    ComparisonError
        If a name is no column of the fixed part, the grid is too large, or there is no such scale.

    References
    ----------
    Searle, Speed & Milliken (1980), *The American Statistician* 34(4).
    """
    design, family = fit.design, fit.response_family
    if scale not in ("link", "response"):
        raise ComparisonError(f'scale={scale!r} is not one of "link", "response".')
    if scale == "response" and family.name == "cumulative":
        raise ComparisonError(
            'an ordered response has probabilities of categories, not one mean: use predict(), or scale="link".'
        )
    means = reference_means(design, specs, at=at, weights=weights)
    return MarginalMeans(
        labels=means.labels,
        grid=means.grid,
        L=means.L,
        beta=fit.beta,
        method=fit.denominator(ddf),
        offset=means.offset,
        notes=means.notes,
        level=check_level(level),
        family=family,
        scale=scale,
    )
