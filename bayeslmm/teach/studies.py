"""Power as a picture: every simulated study is one estimate, and only some become a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import ComparisonError
from bayeslmm.frequentist.simulation import Power
from bayeslmm.report.plots import BLUE, ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def studies(power: Power, bins: int = 30, ax: Axes | None = None) -> Axes:
    """Draw the estimates of simulated studies, the significant ones in full colour.

    Parameters
    ----------
    power : Power
        From `power`, for a single coefficient.
    bins : int, default 30
        Bars.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        A stacked histogram with the true value. Where power is low, the coloured part lies to one side of the truth:
        what is published exaggerates.

    Raises
    ------
    ComparisonError
        If the simulations have no single estimate.

    Examples
    --------
    >>> import numpy as np
    >>> from bayeslmm.frequentist.simulation import Power
    >>> seen = Power("x", 0.05, np.array([0.01, 0.2, 0.03]), np.array([3.0, 1.0, 2.5]), 2.0, {}, 0, 60)
    >>> studies(seen).get_xlabel()
    'estimate of x'
    """
    done = np.isfinite(power.p_values) & np.isfinite(power.estimates)
    if not done.any():
        raise ComparisonError(
            f"the simulations tested {power.effect!r}, which has no single estimate; give a coefficient to power()."
        )
    ax = new_axes() if ax is None else ax
    found = power.p_values[done] < power.alpha
    estimates = power.estimates[done]
    ax.hist(
        [estimates[found], estimates[~found]],
        bins=bins,
        stacked=True,
        color=[BLUE, "#c7d8e6"],
        label=[f"p < {power.alpha:g}: {found.mean():.0%}", "not significant"],
    )
    if np.isfinite(power.truth):
        ax.axvline(power.truth, color=ORANGE, linewidth=1.8, label=f"truth {power.truth:.4g}")
    ax.set_xlabel(f"estimate of {power.effect}")
    ax.set_ylabel("simulated studies")
    if np.isfinite(power.exaggeration):
        ax.set_title(f"significant estimates are {power.exaggeration:.2f} times the truth on average", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
