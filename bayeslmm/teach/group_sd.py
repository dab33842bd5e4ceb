"""The likelihood as a function of the group SD, by ML and by REML, everything else at its best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from bayeslmm.frequentist.lmm_fit import fit_lmm
from bayeslmm.likelihood.lmm import LmmKernel, solve
from bayeslmm.report.plots import BLUE, ORANGE, new_figure
from bayeslmm.teach.scalar import kernel_of, scalar_term, sd_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CUT = 3.841458820694124
"""95 % point of chi-squared with one degree of freedom."""


@dataclass(frozen=True)
class SdLikelihood:
    """Profile likelihoods of a standard deviation of group effects.

    Parameters
    ----------
    name : str
        The parameter.
    frame : DataFrame
        Columns ML and REML: how far the deviance stands above its minimum; indexed by the standard deviation.
    ml, reml : float
        The two estimates.
    n_groups, n_coefficients : int
        What makes them differ.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> seen = sd_likelihood(blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")), points=20)
    >>> bool(seen.ml < seen.reml)
    True
    """

    name: str
    frame: pd.DataFrame
    ml: float
    reml: float
    n_groups: int
    n_coefficients: int

    def plot(self, ax: Axes | None = None, *, deviance: bool = True) -> Axes:
        """Draw both curves with their minima and the 95 % cut.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.
        deviance : bool, default True
            Minus twice the log-likelihood above its minimum; otherwise the likelihood, 1 at its maximum.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.plots import new_axes

        ax = new_axes() if ax is None else ax
        for column, estimate, colour, style in (("ML", self.ml, ORANGE, "--"), ("REML", self.reml, BLUE, "-")):
            curve = self.frame[column] if deviance else np.exp(-0.5 * self.frame[column])
            ax.plot(self.frame.index, curve, color=colour, linestyle=style, label=f"{column}: {estimate:.4g}")
            ax.plot([estimate], [0.0 if deviance else 1.0], "o", color=colour)
        if deviance:
            ax.axhline(CUT, color="black", linewidth=0.8, linestyle=":")
            ax.text(self.frame.index[-1], CUT, "95 % ", ha="right", va="bottom", fontsize=8)
            ax.set_ylim(-0.4, 12)
        ax.set_xlabel(self.name)
        ax.set_ylabel("deviance above its minimum" if deviance else "relative likelihood")
        plural = "s" * (self.n_coefficients != 1)
        ax.set_title(f"{self.n_groups} groups, {self.n_coefficients} coefficient{plural}", fontsize=10)
        ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax

    def _repr_html_(self) -> str:
        from bayeslmm.report.html import figure_html

        figure = new_figure(6.4, 4.0)
        self.plot(figure.subplots())
        return figure_html(figure, "Likelihood of the group standard deviation")


def sd_likelihood(source: Any, *, points: int = 120, largest: float | None = None) -> SdLikelihood:
    """Return the ML and the REML profile likelihood of the group SD: sigma and coefficients at their best for each.

    Parameters
    ----------
    source : Model or LmmFit
        A Gaussian model with one random term of one effect.
    points : int, default 120
        Length of the grid.
    largest : float, optional
        Where the grid ends; chosen when absent.

    Returns
    -------
    SdLikelihood
        The curves with `plot()`.

    Raises
    ------
    FormulaError
        If the model has more than one standard deviation of group effects.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> seen = blm.teach.sd_likelihood(blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")), points=9)
    >>> round(seen.ml, 3), round(seen.reml, 3)
    (37.26, 42.001)
    """
    term, kernel = scalar_term(source), kernel_of(source)
    fits = {name: fit_lmm(source.design, kernel, reml=reml) for name, reml in (("ML", False), ("REML", True))}
    estimates = {name: float(fit.theta[0] * fit.sigma) for name, fit in fits.items()}
    grid = sd_grid(estimates["REML"], fits["REML"].sigma, len(term.levels), points)
    if largest is not None:
        grid = np.linspace(0.0, largest, points)
    curves = {name: _profile(kernel, grid, fit.sigma, fit.reml, fit.criterion) for name, fit in fits.items()}
    return SdLikelihood(
        name=f"sd_{term.factor}[{term.effects[0]}]",
        frame=pd.DataFrame(curves, index=pd.Index(grid, name="sd")),
        ml=estimates["ML"],
        reml=estimates["REML"],
        n_groups=len(term.levels),
        n_coefficients=kernel.products.n_fixed,
    )


def _profile(
    kernel: LmmKernel, grid: np.ndarray[Any, Any], sigma: float, reml: bool, smallest: float
) -> np.ndarray[Any, Any]:
    """Return the smallest deviance over sigma at each SD, minus the smallest of all."""
    values, best = np.empty(len(grid)), float(np.log(sigma))
    for i, sd in enumerate(grid):
        found = minimize_scalar(
            lambda log_sigma, sd=sd: deviance(kernel, sd, float(np.exp(log_sigma)), reml),
            bracket=(best - 0.02, best + 0.02),
            tol=1e-5,
        )
        values[i], best = found.fun - smallest, float(found.x)
    return values


def deviance(kernel: LmmKernel, sd: float, sigma: float, reml: bool) -> float:
    """Return minus twice the (restricted) log-likelihood at given standard deviations, coefficients at their best.

    Parameters
    ----------
    kernel : LmmKernel
        Of a model with one random term of one effect.
    sd, sigma : float
        Standard deviations of group effects and residuals.
    reml : bool
        Restricted.

    Returns
    -------
    float
        log|A| (+ log|X'V0^-1 X|) + m log(2 pi sigma²) + pwrss / sigma², m = n - p for REML and n for ML.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> at = deviance(fit.kernel, fit.theta[0] * fit.sigma, fit.sigma, reml=True)
    >>> abs(at - fit.criterion) < 1e-8
    np.True_
    """
    solved = solve([sd / sigma], kernel, reml)
    degrees = kernel.n_rows - (kernel.products.n_fixed if reml else 0)
    value = solved.logdet_A + (solved.logdet_RX2 if reml else 0.0) - kernel.products.sum_log_weights
    return value + degrees * np.log(2.0 * np.pi * sigma**2) + solved.pwrss / sigma**2
