"""Plots of residuals, influence, quantiles, variance shares and power, from arrays and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.report.plots import BLUE, GREY, ORANGE, clean, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

type Labels = Sequence[Any] | NDArray[Any]

# Okabe and Ito's colours: distinct for colour-blind readers, and different in grey.
SHARES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MANY_POINTS = 1500
SMOOTH_AT = 60
SMOOTH_SPAN = 0.5
NAMED_LEVELS = 40
CROWDED = 0.04  # share of the axes within which a second label would hide the first


@dataclass(frozen=True)
class QQ:
    """Sorted values against normal quantiles, with what the fitted model itself would give.

    Parameters
    ----------
    theoretical, observed : ndarray (n,)
        Normal quantiles and sorted values.
    labels : ndarray (n,)
        What each value belongs to.
    at, lower, upper : ndarray (m,)
        Band of simulated values at some of the quantiles.
    level : float
        Share of the simulations that lie within the band at all its points.
    outside : int
        Values outside the band.
    name : str
        What the values are.
    """

    theoretical: NDArray[np.float64]
    observed: NDArray[np.float64]
    labels: NDArray[Any]
    at: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    level: float
    outside: int
    name: str

    def plot(self, ax: Any = None) -> Any:
        """Draw the quantiles and the band.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        return quantile_plot(self, ax=ax)


def residual_plot(
    x: ArrayLike,
    residuals: ArrayLike,
    *,
    x_label: str,
    y_label: str,
    labels: Labels = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw residuals against something, with a smooth that should lie on zero.

    Parameters
    ----------
    x, residuals : array_like (n,)
        Points.
    x_label, y_label : str
        Axis labels, with units.
    labels : sequence, optional
        Names of the points; the three largest residuals are labelled.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes() if ax is None else ax
    across, up = np.asarray(x, dtype=float), np.asarray(residuals, dtype=float)
    ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
    _points(ax, across, up)
    _smooth_line(ax, across, up)
    _name_largest(ax, across, up, np.abs(up), labels)
    return _finish(ax, x_label, y_label)


def scale_location_plot(
    fitted: ArrayLike, standardised: ArrayLike, *, x_label: str, labels: Labels = (), ax: Axes | None = None
) -> Axes:
    """Draw the root of the standardised residuals' size: a rising smooth means a spread that grows.

    Parameters
    ----------
    fitted, standardised : array_like (n,)
        Fitted values and standardised residuals.
    x_label : str
        Axis label, with units.
    labels : sequence, optional
        Names of the points.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes() if ax is None else ax
    across, up = np.asarray(fitted, dtype=float), np.sqrt(np.abs(np.asarray(standardised, dtype=float)))
    ax.axhline(0.822, color="black", linewidth=0.8, linestyle=":")  # mean root of the size of a standard normal value
    _points(ax, across, up)
    _smooth_line(ax, across, up)
    _name_largest(ax, across, up, up, labels)
    ax.set_ylim(bottom=0)
    return _finish(ax, x_label, "√|standardised residual|")


def leverage_plot(
    leverage: ArrayLike,
    standardised: ArrayLike,
    n_coefficients: int,
    *,
    labels: Labels = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw standardised residuals against leverage, with contours of Cook's distance of the fitted values.

    Parameters
    ----------
    leverage, standardised : array_like (n,)
        Leverages and standardised residuals.
    n_coefficients : int
        Number of coefficients, by which Cook's distance is divided.
    labels : sequence, optional
        Names of the points; the three with the largest distance are labelled.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes() if ax is None else ax
    h, r = np.asarray(leverage, dtype=float), np.asarray(standardised, dtype=float)
    ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
    _points(ax, h, r)
    p = max(1, n_coefficients)
    with np.errstate(divide="ignore", invalid="ignore"):
        cooks = r**2 * h / (1 - h) / p
    _name_largest(ax, h, r, cooks, labels)
    top = 1.12 * float(np.nanmax(np.abs(r)))
    right = float(np.nanmax(h))
    left = max(0.0, float(np.nanmin(h)) - 0.08 * (right - float(np.nanmin(h))))
    ax.set_xlim(left, right + 0.06 * max(right - left, 1e-6))
    ax.set_ylim(-top, top)
    grid = np.linspace(max(left, 1e-6), min(ax.get_xlim()[1], 1 - 1e-9), 200)
    for distance in (0.5, 1.0):
        curve = np.sqrt(distance * p * (1 - grid) / grid)
        seen = curve < top
        if seen.any():
            for sign in (1, -1):
                ax.plot(grid[seen], sign * curve[seen], color=ORANGE, linewidth=1, linestyle="--")
            end = (grid[seen][-1], curve[seen][-1])
            side = "bottom" if distance == 1 else "top"
            ax.annotate(f"Cook {distance:g}", end, color=ORANGE, fontsize=8, ha="right", va=side)
    return _finish(ax, "leverage of the row", "standardised residual")


def stems(values: pd.Series, *, label: str, most: int = 5, ax: Axes | None = None) -> Axes:
    """Draw one line per value and label the largest.

    Parameters
    ----------
    values : Series (G,)
        Values, not negative, indexed by what they belong to.
    label : str
        Label of the value axis.
    most : int, default 5
        How many labels.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes() if ax is None else ax
    place, height = np.arange(len(values)), values.to_numpy(dtype=float)
    ax.vlines(place, 0, height, color=BLUE, linewidth=1.2 if len(values) < 200 else 0.6)
    if len(values) < 200:
        ax.plot(place, height, "o", color=BLUE, markersize=3)
    ax.set_ylim(0, 1.12 * float(np.nanmax(height)) if np.isfinite(height).any() and np.nanmax(height) > 0 else 1)
    name = "row" if values.index.name is None else str(values.index.name)
    if len(values) <= NAMED_LEVELS:
        ax.set_xticks(place, [str(level) for level in values.index], rotation=90, fontsize=8)
        return _finish(ax, name, label)
    _name_largest(ax, place.astype(float), height, height, list(values.index), most)
    return _finish(ax, f"{name}, in the order of the {'data' if name == 'row' else 'levels'}", label)


def quantile_plot(quantiles: QQ, *, most: int = 3, ax: Axes | None = None) -> Axes:
    """Draw sorted values against normal quantiles, with the band of values simulated from the model.

    Parameters
    ----------
    quantiles : QQ
        From `residual_qq` or `effect_qq`.
    most : int, default 3
        How many of the extreme values outside the band are labelled.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        Points outside the band are orange.
    """
    ax = new_axes(5.0, 4.6) if ax is None else ax
    x, y = quantiles.theoretical, quantiles.observed
    low, high = (np.interp(x, quantiles.at, side) for side in (quantiles.lower, quantiles.upper))
    out = (y < low) | (y > high)
    share = f"{100 * quantiles.level:.4g} % of simulations"
    ax.fill_between(quantiles.at, quantiles.lower, quantiles.upper, color=GREY, alpha=0.22, linewidth=0, label=share)
    ax.axline((0, 0), slope=1, color="black", linewidth=0.8, linestyle=":")
    size = 3.2 if len(x) <= MANY_POINTS else 2
    ax.plot(x[~out], y[~out], "o", color=BLUE, markersize=size, alpha=0.7, markeredgewidth=0)
    ax.plot(
        x[out],
        y[out],
        "D",
        color=ORANGE,
        markersize=size + 0.6,
        markeredgewidth=0,
        label=f"outside ({out.sum():,})",
    )
    distance = np.where(out, np.abs(y - x), -np.inf)
    _name_largest(ax, x, y, distance, quantiles.labels, min(most, int(out.sum())))
    handles, names = ax.get_legend_handles_labels()
    shown = len(handles) if out.any() else 1
    ax.legend(handles[:shown], names[:shown], frameon=False, fontsize=8, loc="upper left")
    return _finish(ax, "standard normal quantile", quantiles.name)


def share_bar(shares: pd.Series, *, ax: Axes | None = None) -> Axes:
    """Draw shares of the variance as one bar, named underneath.

    Parameters
    ----------
    shares : Series
        Shares that sum to one, indexed by name.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes(6.4, 1.9) if ax is None else ax
    start = 0.0
    for i, (name, share) in enumerate(shares.items()):
        colour = GREY if i == len(shares) - 1 else SHARES[i % len(SHARES)]
        ax.barh(
            0, 100 * share, left=start, height=0.6, color=colour, edgecolor="white", linewidth=1.5,
            label=f"{name} {100 * share:.1f} %",
        )  # fmt: skip
        start += 100 * share
    ax.set_xlim(0, 100)
    ax.set_yticks([])
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(shares)), frameon=False, fontsize=8,
        handlelength=1, columnspacing=1.2,
    )  # fmt: skip
    return _finish(ax, "share of the variance of the response (%)", "")


def power_plot(frame: pd.DataFrame, along: str, *, ax: Axes | None = None) -> Axes:
    """Draw power against the size of a study, with the intervals of the simulation.

    Parameters
    ----------
    frame : DataFrame
        Columns power, lower, upper, effect and alpha, indexed by size.
    along : str
        What is counted.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        With a line at 80 %.
    """
    ax = new_axes() if ax is None else ax
    sizes = frame.index.to_numpy(dtype=float)
    ax.axhline(80, color="black", linewidth=0.8, linestyle=":")
    ax.vlines(sizes, 100 * frame["lower"], 100 * frame["upper"], color=BLUE, linewidth=1.6)
    ax.plot(sizes, 100 * frame["power"], "-o", color=BLUE, markersize=5, linewidth=1)
    ax.set_ylim(0, 102)
    ax.set_xticks(sizes)
    effect, alpha = frame["effect"].iloc[0], frame["alpha"].iloc[0]
    return _finish(ax, f"number of levels of {along}", f"power for {effect} at α = {alpha:g} (%)")


def smooth(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a local linear smooth of y with tricube weights over the nearest half of the points.

    Parameters
    ----------
    x, y : ndarray (n,)
        Points.
    at : ndarray (m,)
        Where to compute it.

    Returns
    -------
    ndarray (m,)
        The smooth.

    References
    ----------
    Cleveland (1979), *J. Am. Stat. Assoc.* 74, without the robustness steps.

    Examples
    --------
    >>> x = np.linspace(0, 1, 50)
    >>> bool(np.allclose(smooth(x, 2 * x, np.array([0.3])), 0.6))
    True
    """
    count = max(2, int(np.ceil(SMOOTH_SPAN * len(x))))
    out = np.empty(len(at))
    for i, centre in enumerate(at):
        distance = np.abs(x - centre)
        reach = max(float(np.partition(distance, count - 1)[count - 1]), 1e-12)
        weight = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
        total = weight.sum()
        mean_x, mean_y = (weight @ x) / total, (weight @ y) / total
        spread = weight @ (x - mean_x) ** 2
        slope = (weight @ ((x - mean_x) * (y - mean_y))) / spread if spread > 1e-12 * reach**2 * total else 0.0
        out[i] = mean_y + slope * (centre - mean_x)
    return out


def _points(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    many = len(x) > MANY_POINTS
    ax.plot(
        x, y, "o", color=BLUE, markersize=2 if many else 3.4, alpha=0.35 if many else 0.65, markeredgewidth=0,
        rasterized=len(x) > 10 * MANY_POINTS,
    )  # fmt: skip


def _smooth_line(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    good = np.isfinite(x) & np.isfinite(y)
    if good.sum() < 10 or np.ptp(x[good]) == 0:
        return
    low, high = np.quantile(x[good], [0.005, 0.995])
    at = np.linspace(low, high, SMOOTH_AT)
    ax.plot(at, smooth(x[good], y[good], at), color=ORANGE, linewidth=1.8)


def _largest(values: NDArray[np.float64], count: int) -> list[int]:
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
    return [int(i) for i in order[:count]]


def _name_largest(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    size: NDArray[np.float64],
    labels: Labels,
    most: int = 3,
) -> None:
    """Write names beside the largest points, on the side where there is room, leaving out those that would overlap."""
    if not len(labels):
        return
    middle = (np.nanmin(x) + np.nanmax(x)) / 2
    wide, high = max(float(np.ptp(x)), 1e-12), max(float(np.nanmax(y) - np.nanmin(y)), 1e-12)
    named: list[int] = []
    for i in _largest(size, most):
        if any(abs(x[i] - x[k]) < 2 * CROWDED * wide and abs(y[i] - y[k]) < CROWDED * high for k in named):
            continue
        named.append(i)
        left = x[i] > middle
        ax.annotate(
            str(labels[i]),
            (x[i], y[i]),
            (-5 if left else 5, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
            ha="right" if left else "left",
        )


def _finish(ax: Axes, x_label: str, y_label: str) -> Axes:
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    clean(ax)
    return ax
