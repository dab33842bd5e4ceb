"""Where the variance of the response comes from, as draws: the partition, intraclass correlations, Nakagawa's R²."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.bayes.inference import latent_residual
from bayeslmm.bayes.responses import mean_residual_variance
from bayeslmm.formula.grouping import sharing
from bayeslmm.formula.residuals import refuse
from bayeslmm.report.tables import Table, Tabular
from bayeslmm.report.variance_partition import FIXED, RESIDUAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.bayes.posterior import Posterior

LATENT = "On the scale of the linear predictor."
AVERAGES = "With random slopes the variances are averages over the rows."


@dataclass(frozen=True, repr=False)
class ShareDraws(Tabular):
    """Draws of variances or of shares of variance, one column each.

    Parameters
    ----------
    draws : DataFrame (S, m)
        The draws.
    title : str
        What the table is called.
    notes : tuple of str
        Stand below the table.
    level : float
        Probability inside the intervals.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
    >>> list(post.icc().draws)
    ['Batch', 'adjusted', 'conditional']
    """

    draws: pd.DataFrame = field(repr=False)
    title: str = ""
    notes: tuple[str, ...] = ()
    level: float = 0.95

    @property
    def frame(self) -> pd.DataFrame:
        """Posterior mean, SD and ends of the central interval, one row per column of the draws."""
        tail = (1 - self.level) / 2
        columns = {
            "mean": self.draws.mean(),
            "se": self.draws.std(),
            "lower": self.draws.quantile(tail),
            "upper": self.draws.quantile(1 - tail),
        }
        return pd.DataFrame(columns)

    def __getitem__(self, name: str) -> pd.Series:
        """Return the draws of one column."""
        return self.draws[name]

    def table(self) -> Table:
        """Return means, SDs and intervals as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        notes = (*self.notes, f"{100 * self.level:g} % intervals.")
        return Table(self.frame, title=self.title, notes=notes, shared=(("mean", "se", "lower", "upper"),))


class PartitionDraws(ShareDraws):
    """Draws of the variance of an average row, part by part: `fixed part`, grouping factors, `Residual`."""

    @property
    def shares(self) -> pd.Series:
        """Posterior mean of each part's share of the total."""
        return self.draws.div(self.draws.sum(axis=1), axis=0).mean()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the shares as one bar.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.diagnostic_plots import share_bar

        return share_bar(self.shares, ax=ax)


class IccDraws(ShareDraws):
    """Draws of intraclass correlations: of each grouping factor, adjusted and conditional, as in `LmmFit.icc`."""

    @property
    def adjusted(self) -> float:
        """Posterior mean of the variance of all group effects over that plus the residual variance."""
        return float(self.draws["adjusted"].mean())

    @property
    def conditional(self) -> float:
        """Posterior mean of the same over the total variance, that of the coefficients' part included."""
        return float(self.draws["conditional"].mean())


class R2Draws(ShareDraws):
    """Draws of Nakagawa's R², `marginal` and `conditional`."""

    @property
    def marginal(self) -> float:
        """Posterior mean of the share explained by the coefficients."""
        return float(self.draws["marginal"].mean())

    @property
    def conditional(self) -> float:
        """Posterior mean of the share explained by coefficients and group effects."""
        return float(self.draws["conditional"].mean())


def variance_partition(post: Posterior, level: float = 0.95) -> PartitionDraws:
    """Return draws of the variance that coefficients, each grouping factor and the residual contribute.

    For other than Gaussian models these are variances on the scale of the linear predictor; see
    `Family.latent_variance`.

    Parameters
    ----------
    post : Posterior
        The posterior.
    level : float, default 0.95
        Probability inside the intervals.

    Returns
    -------
    PartitionDraws
        Variances of an average row.

    Raises
    ------
    ComparisonError
        If the family has no variance function here.

    References
    ----------
    Nakagawa & Schielzeth (2013), *Methods Ecol. Evol.* 4(2); Johnson (2014), *Methods Ecol. Evol.* 5(9), for slopes.
    """
    design, X = post.design, post.design.centred(post.design.condensed.X)
    parts = {FIXED: np.array([design.moments(X @ beta)[1] ** 2 for beta in post.draws("beta")])}
    covariances = post.effect_covariances()
    for factor in design.condensed.factors:
        second_moment = factor.Z.T @ factor.Z / design.n
        parts[factor.name] = np.einsum("skl,kl->s", covariances[factor.name], second_moment)
    gaussian = post.response.is_gaussian_identity
    parts[RESIDUAL] = mean_residual_variance(post) if gaussian else latent_residual(post)
    return PartitionDraws(pd.DataFrame(parts), "Variance partition", _notes(post), level)


def _notes(post: Posterior) -> tuple[str, ...]:
    slopes = any(factor.effects != ("Intercept",) for factor in post.design.factors)
    return (*([AVERAGES] if slopes else []), *([] if post.response.is_gaussian_identity else [LATENT]))


def icc(post: Posterior, level: float = 0.95) -> IccDraws:
    """Return draws of intraclass correlations.

    Parameters
    ----------
    post : Posterior
        The posterior; for other than Gaussian models on the scale of the linear predictor.
    level : float, default 0.95
        Probability inside the intervals.

    Returns
    -------
    IccDraws
        By grouping factor the correlation of two rows that share a level of it, and so of every factor it is nested
        in; `adjusted` and `conditional` for all of them together.
    """
    refuse(post.design.residuals, "icc()", "See variance_partition() and rho itself.", correlated_only=True)
    parts = variance_partition(post).draws
    random = parts.drop(columns=[FIXED, RESIDUAL])
    within = random.sum(axis=1) + parts[RESIDUAL]
    codes = {factor.name: factor.codes for factor in post.design.factors}
    columns = {name: random[sorted(sharing(codes, name))].sum(axis=1) / within for name in codes}
    columns["adjusted"] = random.sum(axis=1) / within
    columns["conditional"] = random.sum(axis=1) / parts.sum(axis=1)
    return IccDraws(pd.DataFrame(columns), "Intraclass correlation", _notes(post), level)


def r2(post: Posterior, level: float = 0.95) -> R2Draws:
    """Return draws of Nakagawa's R², marginal and conditional.

    Parameters
    ----------
    post : Posterior
        The posterior; for other than Gaussian models on the scale of the linear predictor.
    level : float, default 0.95
        Probability inside the intervals.

    Returns
    -------
    R2Draws
        Shares explained by the coefficients (`marginal`), and by coefficients and group effects (`conditional`).

    Raises
    ------
    ComparisonError
        If the family has no variance function here.

    Notes
    -----
    The parts are variances of the model's distributions of group effects, as in `LmmFit.r2`; `bayes_r2` instead takes
    the variance of the drawn linear predictor.
    """
    parts = variance_partition(post).draws
    total = parts.sum(axis=1)
    shares = {"marginal": parts[FIXED] / total, "conditional": 1 - parts[RESIDUAL] / total}
    return R2Draws(pd.DataFrame(shares), "R2", _notes(post), level)
