"""Linear forms of the coefficients as draws: hypotheses, tests of terms, estimated marginal means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bayes.effects import EffectDraws
from bayeslmm.errors import ComparisonError, listing
from bayeslmm.formula.hypotheses import read_hypotheses
from bayeslmm.formula.reference_grid import contrast_rows, reference_means
from bayeslmm.formula.term_contrasts import MEANING, ROMAN, TermContrasts
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.families import Family

Scale = Literal["link", "response"]
FARTHER = "share of the draws that lie farther from the posterior mean, in units of the posterior covariance"


def tail_share(draws: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the share of draws that lie at least as far from their mean as some values do.

    The distance is Mahalanobis': for a normal posterior the share is the probability outside of the credible ellipsoid
    that the values lie on, and with flat priors and many rows the p-value of the joint test.

    Parameters
    ----------
    draws : ndarray (S, q)
        Draws.
    values : ndarray (q,)
        The values.

    Returns
    -------
    float
        Between 0 and 1.

    References
    ----------
    Box & Tiao (1973), *Bayesian Inference in Statistical Analysis*, section 2.8.

    Examples
    --------
    >>> tail_share(np.array([[-1.0], [0.0], [1.0], [2.0], [-2.0]]), np.array([1.5]))
    0.4
    """
    centred = np.vstack([draws, values]) - draws.mean(axis=0)
    covariance = np.atleast_2d(np.cov(draws, rowvar=False))
    distance = np.einsum("sq,sq->s", centred, np.linalg.solve(covariance, centred.T).T)
    return float((distance[:-1] >= distance[-1]).mean())


def share_text(share: float, draws: int) -> str:
    """Return a share of draws as text; what no draw reached is less than one in all of them.

    Parameters
    ----------
    share : float
        The share.
    draws : int
        Draws.

    Returns
    -------
    str
        With its relation.

    Examples
    --------
    >>> share_text(0.25, 4000), share_text(0.0, 4000)
    ('= 0.25', '< 0.00025')
    """
    return f"= {share:.3g}" if share else f"< {1 / draws:.2g}"


# --- hypotheses ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class HypothesisDraws(Tabular):
    """Linear hypotheses about the coefficients, judged one by one and together.

    Parameters
    ----------
    labels : tuple of str
        As typed.
    rhs : ndarray (q,)
        Right-hand sides.
    draws : ndarray (S, q)
        Draws of the left-hand sides.
    level : float
        Probability inside the intervals.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("lang ~ IQ + SES + (1 | class)", blm.datasets.load("nlschools"))
    >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
    >>> post.test("IQ = 2.2, SES = 0").p_value
    0.0
    """

    labels: tuple[str, ...]
    rhs: NDArray[np.float64]
    draws: NDArray[np.float64] = field(repr=False)
    level: float = 0.95

    @property
    def contrasts(self) -> pd.DataFrame:
        """Columns Estimate, Std. Error (posterior mean and SD), rhs, lower, upper, P(> rhs): one row per hypothesis."""
        tail = (1 - self.level) / 2
        lower, upper = np.quantile(self.draws, [tail, 1 - tail], axis=0)
        columns = {
            "Estimate": self.draws.mean(axis=0),
            "Std. Error": self.draws.std(axis=0, ddof=1),
            "rhs": self.rhs,
            "lower": lower,
            "upper": upper,
            "P(> rhs)": (self.draws > self.rhs).mean(axis=0),
        }
        return pd.DataFrame(columns, index=list(self.labels))

    @property
    def p_value(self) -> float:
        """Share of the draws farther from the posterior mean than all right-hand sides together."""
        return tail_share(self.draws, self.rhs)

    def table(self) -> Table:
        """Return the hypotheses as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        together = f"{'Together: ' if len(self.labels) > 1 else ''}p {share_text(self.p_value, len(self.draws))}"
        notes = (
            f"{together}: {FARTHER}.",
            f"{100 * self.level:g} % intervals; P(> rhs): posterior probability of being above the right-hand side.",
        )
        shared = (("Estimate", "Std. Error", "rhs", "lower", "upper"),)
        return Table(self.contrasts, title="Linear hypotheses", notes=notes, shared=shared)


def hypothesis_draws(
    post: Posterior, hypothesis: Any, rhs: ArrayLike | None = None, level: float = 0.95
) -> HypothesisDraws:
    """Return linear hypotheses about the coefficients as draws.

    Parameters
    ----------
    post : Posterior
        The posterior.
    hypothesis : str, sequence of str, mapping or array_like (q, p)
        As in `LmmFit.test`.
    rhs : array_like (q,), optional
        Right-hand side of a matrix.
    level : float, default 0.95
        Probability inside the intervals.

    Returns
    -------
    HypothesisDraws
        One by one and together.

    Raises
    ------
    ComparisonError
        If a hypothesis cannot be read, names what is not there, is not estimable, or contradicts another.
    """
    design = post.design
    found = read_hypotheses(design.coef_names, hypothesis, rhs, dropped=design.dropped_columns)
    return HypothesisDraws(found.labels, found.rhs, post.draws("beta") @ found.L.T, level)


# --- terms ---------------------------------------------------------------------------------------------------------


def term_table(post: Posterior, type: int = 3, level: float = 0.95) -> Table:
    """Return for each term of the fixed part how much it moves the response, and how far it is from doing nothing.

    Parameters
    ----------
    post : Posterior
        The posterior.
    type : {1, 2, 3}, default 3
        Which hypothesis a term stands for, as in `LmmFit.anova`.
    level : float, default 0.95
        Probability inside the intervals.

    Returns
    -------
    Table
        Columns NumDF, SD (over the rows, of the term's part of the linear predictor: posterior mean and interval) and
        farther: the share of draws farther from the posterior mean than the hypothesis that the term is zero.

    Raises
    ------
    ComparisonError
        If the fixed part has no term but the intercept, or a type III hypothesis is not estimable.

    References
    ----------
    Gelman (2005), *Ann. Stat.* 33(1), for the standard deviations.
    """
    gaussian = post.response.is_gaussian_identity
    terms = TermContrasts(post.design, None if gaussian else np.linalg.inv(post.vcov.to_numpy()))
    contrasts = terms.contrasts(type)
    if not contrasts:
        raise ComparisonError(f"the fixed part of {post.design.formula.text!r} has no term to test.")
    beta, X = post.draws("beta"), post.design.condensed.X
    tail = (1 - level) / 2
    rows = {}
    for term in terms.terms:
        part = X[:, term.columns]
        covariance = part.T @ post.design.centred(part) / post.design.n
        own = beta[:, term.columns]
        sd = np.sqrt(np.maximum(np.einsum("sa,ab,sb->s", own, covariance, own), 0.0))
        L = contrasts[term.name]
        low, high = np.quantile(sd, [tail, 1 - tail])
        rows[term.name] = (len(L), float(sd.mean()), low, high, tail_share(beta @ L.T, np.zeros(len(L))))
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["NumDF", "SD", "lower", "upper", "farther"])
    return Table(
        frame.astype({"NumDF": int}),
        title=f"Type {ROMAN[type]} tests of the fixed part, from {len(beta):,} draws",
        notes=(
            f"Type {ROMAN[type]}: {MEANING[type]}.",
            f"SD: over the rows, of the term's part of the linear predictor, with {100 * level:g} % intervals.",
            f"farther: {FARTHER} than zero does.",
        ),
        shared=(("SD", "lower", "upper"),),
    )


# --- marginal means ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class MarginalMeanDraws(Tabular):
    """Estimated marginal means as draws.

    Parameters
    ----------
    labels : tuple of str
        One per mean.
    grid : DataFrame
        Values of the factors asked for, one row per mean.
    linear : ndarray (S, q)
        Draws of the means of the linear predictor, offset included; NaN where a mean is not estimable.
    notes : tuple of str
        What was averaged over.
    level : float
        Probability inside the intervals.
    family : Family
        Response family with its link.
    scale : {"link", "response"}
        Means of the linear predictor, or what the inverse link makes of them.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("score ~ Machine + (1 | Worker)", blm.datasets.load("Machines"))
    >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
    >>> post.emmeans("Machine").pairs().frame["contrast"].tolist()
    ['A - B', 'A - C', 'B - C']
    """

    labels: tuple[str, ...]
    grid: pd.DataFrame = field(repr=False)
    linear: NDArray[np.float64] = field(repr=False)
    notes: tuple[str, ...]
    level: float
    family: Family
    scale: Scale = "link"

    @property
    def draws(self) -> NDArray[np.float64]:
        """Draws (S, q) of the means on their scale."""
        return self.linear if self.scale == "link" else self.family.inverse_link(self.linear)

    @property
    def frame(self) -> pd.DataFrame:
        """Columns of the factors, then posterior mean, SD (`se`), and ends of the central interval."""
        tail = (1 - self.level) / 2
        lower, upper = np.quantile(self.draws, [tail, 1 - tail], axis=0)
        mean, se = self.draws.mean(axis=0), self.draws.std(axis=0, ddof=1)
        numbers = pd.DataFrame({"mean": mean, "se": se, "lower": lower, "upper": upper})
        return pd.concat([self.grid.reset_index(drop=True), numbers], axis=1)

    def pairs(self, level: float | None = None) -> EffectDraws:
        """Return all pairwise differences, first less second.

        Parameters
        ----------
        level : float, optional
            Probability inside the intervals, that of the means when absent.

        Returns
        -------
        EffectDraws
            On the response scale their exponentials for the links logit (odds ratios) and log (ratios), differences
            of the linear predictor for other links. No adjustment for their number: each is its own statement.
        """
        pairs = list(combinations(range(len(self.labels)), 2))
        if not pairs:
            raise ComparisonError("there is one mean only: nothing to compare.")
        names = [f"{self.labels[i]} - {self.labels[j]}" for i, j in pairs]
        return self._compared(names, np.column_stack([self.linear[:, i] - self.linear[:, j] for i, j in pairs]), level)

    def contrast(self, weights: Mapping[str, Sequence[float]], level: float | None = None) -> EffectDraws:
        """Return chosen linear combinations of the means.

        Parameters
        ----------
        weights : mapping of str to sequence of float (q,)
            One weight per mean, by name of the contrast.
        level : float, optional
            Probability inside the intervals, that of the means when absent.

        Returns
        -------
        EffectDraws
            The combinations, as in `pairs`.
        """
        rows = contrast_rows(weights, self.labels, self.linear.T)
        return self._compared(list(weights), rows.T, level)

    def _compared(self, names: Sequence[str], draws: NDArray[np.float64], level: float | None) -> EffectDraws:
        ratio = self.family.ratio if self.scale == "response" else ""
        labels = pd.DataFrame({"contrast": names})
        notes = (f"Estimates are {ratio}s.",) if ratio else ()
        return EffectDraws(
            labels,
            np.exp(draws) if ratio else draws,
            level or self.level,
            "Comparisons of marginal means",
            notes,
            null=1.0 if ratio else 0.0,
        )

    def table(self) -> Table:
        """Return the means as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        numbers = self.frame[["mean", "se", "lower", "upper"]].set_axis(list(self.labels))
        notes = [*self.notes, f"{100 * self.level:g} % intervals."]
        if self.scale == "response":
            notes.append(
                f"Back-transformed from the link ({self.family.link}): expected responses of an average group."
            )
        shared = (("mean", "se", "lower", "upper"),)
        return Table(numbers, title="Estimated marginal means", notes=tuple(notes), shared=shared)


def marginal_mean_draws(
    post: Posterior,
    specs: str | Sequence[str],
    *,
    at: Mapping[str, Any] | None = None,
    weights: Literal["equal", "proportional"] = "equal",
    level: float = 0.95,
    scale: Scale = "link",
) -> MarginalMeanDraws:
    """Return draws of means over a balanced grid: other factors averaged, numeric columns at their mean.

    Parameters
    ----------
    post : Posterior
        The posterior.
    specs : str or sequence of str
        Factors whose levels, and combinations of levels, are wanted; also numeric columns with values in `at`.
    at : mapping of str to value or sequence, optional
        Values of columns in place of all levels or the mean.
    weights : {"equal", "proportional"}, default "equal"
        How levels of factors that are averaged over count: all the same, or as often as they occur.
    level : float, default 0.95
        Probability inside the intervals.
    scale : {"link", "response"}, default "link"
        Means of the linear predictor, or these through the inverse link.

    Returns
    -------
    MarginalMeanDraws
        Means, `pairs()` and `contrast()`.

    Raises
    ------
    ComparisonError
        If a name is no column of the fixed part, the grid is too large, or there is no such scale.
    """
    if scale not in ("link", "response"):
        raise ComparisonError(f"scale={scale!r} is not one of {listing(['link', 'response'])}.")
    if scale == "response" and post.response.name == "cumulative":
        raise ComparisonError(
            'an ordered response has probabilities of categories, not one mean: use predict(), or scale="link".'
        )
    means = reference_means(post.design, specs, at=at, weights=weights)
    linear = post.draws("beta") @ means.L.T + means.offset
    return MarginalMeanDraws(means.labels, means.grid, linear, means.notes, level, post.response, scale)
