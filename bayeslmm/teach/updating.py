"""From prior to posterior: what the data add to what was assumed about a group SD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.bayes.logposterior import log_posterior_of
from bayeslmm.bayes.priors import Prior, as_prior
from bayeslmm.errors import PriorError
from bayeslmm.frequentist.lmm_fit import fit_lmm
from bayeslmm.report.plots import BLUE, GREY, ORANGE, new_figure
from bayeslmm.teach.scalar import kernel_of, scalar_term, sd_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGMA_POINTS = 41
SIGMA_REACH = 6.0
"""Sigma is integrated out over this many standard errors of its logarithm to either side."""


@dataclass(frozen=True)
class PriorToPosterior:
    """Priors, likelihood and posteriors of a standard deviation on one grid.

    Parameters
    ----------
    name : str
        The parameter.
    priors : mapping of str to Prior
        By label.
    frame : DataFrame
        Indexed by the standard deviation; column "likelihood" (largest value 1, sigma and coefficients integrated
        out) and for every label (label, "prior") and (label, "posterior"), densities.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> prior_to_posterior(m, points=40).table().columns.tolist()
    ['prior median', 'posterior median', 'posterior mean', 'posterior sd']
    """

    name: str
    priors: Mapping[str, Prior]
    frame: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Return medians, mean and SD for every prior.

        Returns
        -------
        DataFrame
            One row per prior.
        """
        grid = self.frame.index.to_numpy()
        rows = {}
        for label in self.priors:
            before, after = self.frame[label, "prior"].to_numpy(), self.frame[label, "posterior"].to_numpy()
            mean = _area(grid * after, grid)
            rows[label] = {
                "prior median": _prior_median(self.priors[label], grid, before),
                "posterior median": _median(grid, after),
                "posterior mean": mean,
                "posterior sd": np.sqrt(_area((grid - mean) ** 2 * after, grid)),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def plot(self, columns: int = 3) -> Figure:
        """Draw one panel per prior: prior, likelihood and posterior.

        Parameters
        ----------
        columns : int, default 3
            Panels beside each other.

        Returns
        -------
        matplotlib.figure.Figure
            The likelihood is scaled to the height of the posterior.
        """
        columns = min(columns, len(self.priors))
        rows = -(-len(self.priors) // columns)
        figure = new_figure(3.3 * columns, 2.6 * rows + 0.5)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        likelihood = self.frame["likelihood", ""]
        for ax, (label, prior) in zip(axes, self.priors.items(), strict=False):
            after = self.frame[label, "posterior"]
            ax.plot(self.frame.index, self.frame[label, "prior"], color=GREY, linestyle=":", label="prior")
            ax.plot(
                self.frame.index, likelihood * after.max(), color=ORANGE, linestyle="--", label="likelihood, scaled"
            )
            ax.plot(self.frame.index, after, color=BLUE, label="posterior")
            ax.fill_between(self.frame.index, after, color=BLUE, alpha=0.15)
            ax.set_title(f"{label}\n{prior}" if label != str(prior) else label, fontsize=8.5, loc="left")
            ax.set_xlim(0, self.frame.index[-1])
            ax.set_ylim(0, 1.15 * after.max())
            ax.set_yticks([])
            ax.spines[["top", "right", "left"]].set_visible(False)
        for ax in axes[len(self.priors) :]:
            ax.set_axis_off()
        figure.supxlabel(self.name, fontsize=10)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        return figure

    def _repr_html_(self) -> str:
        from bayeslmm.report.html import figure_html

        return figure_html(self.plot(), f"Prior, likelihood and posterior of {self.name}")


def prior_to_posterior(
    model: Any, priors: Mapping[str, Prior] | None = None, *, points: int = 200, largest: float | None = None
) -> PriorToPosterior:
    """Show what different priors on the group SD lead to, without drawing a sample.

    The likelihood of the standard deviation, with sigma and all coefficients integrated out over their priors, is
    computed once by the exact engine; each posterior is that times a prior.

    Parameters
    ----------
    model : Model
        A Gaussian model with one random term of one effect.
    priors : mapping of str to Prior, optional
        Priors of the standard deviation by label; the model's own when absent.
    points : int, default 200
        Length of the grid.
    largest : float, optional
        Where the grid ends; chosen when absent.

    Returns
    -------
    PriorToPosterior
        Densities with `plot()` and `table()`.

    Raises
    ------
    FormulaError
        If the model has more than one standard deviation of group effects.
    PriorError
        If a prior is not one that the exact engine knows, or a coefficient's prior is not normal.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> seen = blm.teach.prior_to_posterior(m, {"narrow": blm.Prior("HalfNormal", sigma=5)}, points=60)
    >>> bool(seen.table().loc["narrow", "posterior median"] < 10)
    True
    """
    term, kernel = scalar_term(model), kernel_of(model)
    name = f"sd_{term.factor}[{term.effects[0]}]"
    own = next(entry.prior for entry in model.priors.entries if entry.name == name)
    chosen = {label: as_prior(prior, name) for label, prior in (priors or {"default": own}).items()}
    for label, prior in chosen.items():
        if not prior.is_known:
            raise PriorError(f"the prior {label!r} is {prior}, whose density the exact engine does not know.")
    fit = fit_lmm(model.design, kernel, reml=True)
    estimate = float(fit.theta[0] * fit.sigma)
    end = largest or 1.3 * sd_grid(estimate, fit.sigma, len(term.levels), 2)[-1]
    grid = np.linspace(end / (20.0 * points), end, points)
    log_likelihood = _integrated(model, kernel, name, fit.sigma, grid)
    columns: dict[tuple[str, str], Any] = {("likelihood", ""): np.exp(log_likelihood)}
    for label, prior in chosen.items():
        density = prior.logpdf(grid)
        posterior = np.exp(log_likelihood + density - np.max(log_likelihood + density))
        columns[label, "prior"] = np.exp(density)
        columns[label, "posterior"] = posterior / _area(posterior, grid)
    return PriorToPosterior(name, chosen, pd.DataFrame(columns, index=pd.Index(grid, name="sd")))


def _integrated(model: Any, kernel: Any, name: str, sigma: float, grid: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the log-likelihood of the SD with sigma and coefficients integrated out, 0 at its largest."""
    flat = Prior("HalfNormal", sigma=100.0 * float(grid[-1]))
    reference = model.with_priors({name: flat})
    density = log_posterior_of(reference.design, reference.priors, kernel)
    if density.coordinates.names != (name, "sigma"):
        raise PriorError("this picture needs normal priors on the coefficients, so that they can be integrated out.")
    state = density.state()
    reach = SIGMA_REACH / np.sqrt(
        2.0 * max(kernel.n_rows - kernel.products.n_fixed - len(model.design.terms[0].levels), 2)
    )
    log_sigma = np.log(sigma) + np.linspace(-reach, reach, SIGMA_POINTS)
    table = np.array(
        [[density.value_and_gradient(np.array([np.log(sd), s]), state)[0] for s in log_sigma] for sd in grid]
    )
    top = table.max()
    integrated = np.log(np.exp(table - top).sum(axis=1)) - np.log(grid) - flat.logpdf(grid)
    return integrated - integrated.max()


def _area(values: np.ndarray[Any, Any], grid: np.ndarray[Any, Any]) -> float:
    return float(np.trapezoid(values, grid))


def _median(grid: np.ndarray[Any, Any], density: np.ndarray[Any, Any]) -> float:
    steps = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    return float(np.interp(0.5 * steps[-1], steps, grid))


def _prior_median(prior: Prior, grid: np.ndarray[Any, Any], density: np.ndarray[Any, Any]) -> float:
    """Return the median over the grid, or on a wider one when the prior reaches further."""
    wide = np.geomspace(grid[0], 1e3 * grid[-1], 4000)
    return _median(wide, np.exp(prior.logpdf(wide))) if _area(density, grid) < 0.999 else _median(grid, density)
