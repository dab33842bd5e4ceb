"""Shrinkage: what happens to the effects of groups when their standard deviation is turned up and down."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, MissingDependencyError
from bayeslmm.frequentist.lmm_fit import LmmFit
from bayeslmm.likelihood.lmm import solve
from bayeslmm.report.plots import BLUE, GREY, ORANGE, new_figure
from bayeslmm.teach.scalar import scalar_term

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

FREE = 1e4
"""Ratio of group SD to sigma at which nothing is shrunk to four digits."""


@dataclass(frozen=True)
class Shrinkage:
    """The effects of groups as a function of their standard deviation.

    Parameters
    ----------
    fit : LmmFit
        A fit with one random term of one effect.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> from bayeslmm.teach import Shrinkage
    >>> s = Shrinkage(blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")))
    >>> s.effects(0.0).abs().max()
    np.float64(0.0)
    """

    fit: LmmFit
    _seen: dict[float, pd.Series] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scalar_term(self.fit)

    @property
    def estimate(self) -> float:
        """The fit's own standard deviation of the group effects."""
        return float(self.fit.theta[0] * self.fit.sigma)

    @property
    def name(self) -> str:
        """The parameter: ``sd_class[Intercept]``."""
        term = scalar_term(self.fit)
        return f"sd_{term.factor}[{term.effects[0]}]"

    def effects(self, sd: float) -> pd.Series:
        """Return the group effects for a given standard deviation, coefficients estimated anew.

        Parameters
        ----------
        sd : float
            Standard deviation of the group effects, in units of the response; sigma stays at its estimate.

        Returns
        -------
        Series
            One effect per level.

        Raises
        ------
        DataError
            If `sd` is negative.
        """
        if not sd >= 0:
            raise DataError(f"sd={sd}: a standard deviation is not negative.")
        if sd not in self._seen:
            ratio = min(sd / self.fit.sigma, FREE)
            term = scalar_term(self.fit)
            b = solve([ratio], self.fit.kernel, self.fit.reml).b[0][:, 0]
            self._seen[sd] = pd.Series(b, index=pd.Index(term.levels, name=term.factor), name=term.effects[0])
        return self._seen[sd]

    @cached_property
    def no_pooling(self) -> pd.Series:
        """The effects when nothing is shrunk: every group for itself."""
        return self.effects(FREE * self.fit.sigma)

    @cached_property
    def sizes(self) -> pd.Series:
        """Rows per level."""
        term = scalar_term(self.fit)
        counts = np.bincount(term.codes, minlength=len(term.levels))
        return pd.Series(counts, index=pd.Index(term.levels, name=term.factor), name="rows")

    def path(self, sds: ArrayLike) -> pd.DataFrame:
        """Return the effects for many standard deviations.

        Parameters
        ----------
        sds : array_like (m,)
            Standard deviations.

        Returns
        -------
        DataFrame (m x levels)
            One row per standard deviation.
        """
        values = np.asarray(sds, dtype=np.float64)
        return pd.DataFrame([self.effects(float(sd)) for sd in values], index=pd.Index(values, name=self.name))

    def factors(self, sd: float | None = None) -> pd.Series:
        """Return how much of every group's own deviation is kept: 0 complete pooling, 1 none.

        Parameters
        ----------
        sd : float, optional
            The estimate when absent.

        Returns
        -------
        Series
            For a random intercept without weights n sd² / (n sd² + sigma²).
        """
        sd = self.estimate if sd is None else sd
        term, weights = scalar_term(self.fit), self.fit.design.weights
        squares = term.Z[:, 0] ** 2 * (1.0 if weights is None else weights)
        information = np.bincount(term.codes, squares, minlength=len(term.levels)) * sd**2
        return pd.Series(information / (information + self.fit.sigma**2), index=self.sizes.index, name="kept")

    def plot(self, sd: float | None = None, figure: Figure | None = None) -> Figure:
        """Draw how far every group is pulled in, by its size and along the standard deviation.

        Parameters
        ----------
        sd : float, optional
            The estimate when absent.
        figure : matplotlib Figure, optional
            Where to draw; a new one when absent.

        Returns
        -------
        matplotlib.figure.Figure
            Left: arrows from no pooling to the shrunken effect, by rows in the group. Right: the effects as the
            standard deviation grows, and where the REML estimate stands.
        """
        sd = self.estimate if sd is None else float(sd)
        figure = new_figure(9.0, 4.0) if figure is None else figure
        left, right = figure.subplots(1, 2, sharey=True)
        self._arrows(left, sd)
        self._paths(right, sd)
        return figure

    def _arrows(self, ax: Axes, sd: float) -> None:
        own, pulled, sizes = self.no_pooling, self.effects(sd), self.sizes
        spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(own)) if sizes.nunique() < len(sizes) else 0.0
        x = sizes + spread
        ax.vlines(x, own, pulled, color=GREY, linewidth=0.8, alpha=0.6)
        ax.plot(x, own, "o", color=ORANGE, markersize=3.5, fillstyle="none", label="no pooling")
        ax.plot(x, pulled, "o", color=BLUE, markersize=3.5, label="partial pooling")
        ax.axhline(0, color="black", linewidth=0.8, linestyle=":", label="complete pooling")
        ax.set_xlabel(f"rows in the {sizes.index.name}")
        ax.set_ylabel(f"effect of the {sizes.index.name} on {self.fit.design.response_name}")
        ax.set_title(f"SD {sd:.3g}: {100 * self.factors(sd).mean():.0f} % of a deviation kept on average", fontsize=10)
        low, high = float(own.min()), float(own.max())
        ax.set_ylim(low - 0.2 * (high - low), high + 0.06 * (high - low))
        ax.legend(frameon=False, fontsize=8, loc="lower center", ncols=3)
        ax.spines[["top", "right"]].set_visible(False)

    def _paths(self, ax: Axes, sd: float) -> None:
        grid = np.linspace(0.0, max(3.0 * self.estimate, self.fit.sigma, sd), 60)
        ax.plot(grid, self.path(grid).to_numpy(), color=GREY, linewidth=0.6, alpha=0.6)
        ax.axvline(self.estimate, color="black", linewidth=0.9, linestyle="--")
        ax.text(
            self.estimate, 0.98, " REML " if self.fit.reml else " ML ", transform=ax.get_xaxis_transform(), va="top"
        )
        ax.axvline(sd, color=BLUE, linewidth=1.6)
        ax.plot(np.full(len(self.sizes), sd), self.effects(sd), "o", color=BLUE, markersize=3)
        ax.set_xlabel(f"{self.name}, in units of {self.fit.design.response_name}")
        ax.spines[["top", "right"]].set_visible(False)

    def slider(self, largest: float | None = None) -> Any:
        """Return a notebook widget: the picture under a slider for the standard deviation.

        Parameters
        ----------
        largest : float, optional
            End of the slider; three times the estimate when absent.

        Returns
        -------
        ipywidgets.Widget
            Needs `ipywidgets`.

        Raises
        ------
        MissingDependencyError
            If ipywidgets is not installed.
        """
        try:
            from ipywidgets import FloatSlider, Output, VBox
        except ImportError:
            raise MissingDependencyError(
                "the slider needs ipywidgets.\n  Install it with: pip install ipywidgets\n"
                "  Without it: shrinkage(fit).plot(sd=2) draws one position."
            ) from None
        largest = max(3.0 * self.estimate, self.fit.sigma) if largest is None else largest
        knob = FloatSlider(
            value=self.estimate,
            min=0.0,
            max=largest,
            step=largest / 60,
            description="group SD",
            continuous_update=False,
            readout_format=".3g",
        )
        screen = Output()

        def redraw(change: Any) -> None:
            screen.outputs = ()
            screen.append_display_data(self.plot(change["new"]))

        knob.observe(redraw, names="value")
        redraw({"new": self.estimate})
        return VBox([knob, screen])

    def _repr_html_(self) -> str:
        from bayeslmm.report.html import figure_html

        return figure_html(self.plot(), "Group effects as their standard deviation grows")


def shrinkage(fit: LmmFit) -> Shrinkage:
    """Show what the standard deviation of group effects does to them.

    Parameters
    ----------
    fit : LmmFit
        A fit with one random term of one effect, such as ``(1 | class)``.

    Returns
    -------
    Shrinkage
        `plot()` for paper, `slider()` for a notebook, `effects(sd)` for numbers.

    Raises
    ------
    FormulaError
        If the model has more than one standard deviation of group effects.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> blm.teach.shrinkage(fit).factors().round(3).iloc[0]
    np.float64(0.783)
    """
    return Shrinkage(fit)
