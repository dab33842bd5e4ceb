"""Small multiples: every group with its own line, the line for all, and what a multilevel model makes of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.report.plots import BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayeslmm.contract import Fit

PANEL = (2.1, 1.9)


def pooling(
    fit: Fit, x: str, groups: int | Sequence[Any] = 12, *, factor: str | None = None, columns: int = 4
) -> Figure:
    """Draw groups in panels with the lines of complete, none and partial pooling.

    The line of a group alone is ordinary regression of the response on `x` in that group; the line of complete
    pooling the same in all rows. The multilevel line is the fit's expected response at the group's own rows, other
    predictors at their mean or first level in the group.

    Parameters
    ----------
    fit : LmmFit or Posterior
        A Gaussian fit.
    x : str
        A numeric column of the data, on the horizontal axis.
    groups : int or sequence, default 12
        Which groups, or how many: then from the smallest to the largest.
    factor : str, optional
        Grouping factor; the first when absent.
    columns : int, default 4
        Panels beside each other.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per group, titled with its label and number of rows.

    Raises
    ------
    DataError
        If a column or group is not there.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> figure = pooling(fit, "Days", groups=6)
    >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
    ['308 (10)', '330 (10)']
    """
    data = fit.design.data
    factor = fit.design.factors[0].name if factor is None else factor
    _check_numeric(data, x)
    labels = _group_labels(fit, factor)
    chosen = _choose(labels, groups)
    rows = -(-len(chosen) // columns)
    figure = new_figure(PANEL[0] * columns, PANEL[1] * rows + 0.5)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    y = fit.design.y
    assert y is not None
    values = data[x].to_numpy(dtype=np.float64)
    everyone = np.polyfit(values, y, 1)
    ends = np.array([values.min(), values.max()])
    for ax, group in zip(axes, chosen, strict=False):
        mine = labels == group
        ax.plot(values[mine], y[mine], "o", color=GREY, markersize=2.5, alpha=0.7)
        ax.plot(ends, np.polyval(everyone, ends), color="black", linewidth=0.9, linestyle=":", label="complete pooling")
        if np.ptp(values[mine]) > 0:
            alone = np.polyfit(values[mine], y[mine], 1)
            ax.plot(ends, np.polyval(alone, ends), color=ORANGE, linewidth=1.1, linestyle="--", label="no pooling")
        ax.plot(ends, _line(fit, data[mine], x, ends), color=BLUE, linewidth=1.6, label="partial pooling")
        ax.set_title(f"{group} ({int(mine.sum())})", fontsize=8, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    for ax in axes[max(len(chosen) - columns, 0) : len(chosen)]:
        ax.tick_params(labelbottom=True)
    low, high = np.nanmin(y), np.nanmax(y)
    axes[0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    figure.supxlabel(x, fontsize=10)
    figure.supylabel(fit.design.response_name, fontsize=10)
    shown = {line.get_label(): line for ax in axes for line in ax.get_lines() if not line.get_label().startswith("_")}
    figure.legend(shown.values(), shown.keys(), loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _check_numeric(data: pd.DataFrame, x: str) -> None:
    if x not in data.columns:
        hint = did_you_mean(x, data.columns)
        raise DataError(f"the model has no column {x!r}.\n  Columns: {listing(data.columns)}. {hint}".rstrip())
    if not pd.api.types.is_numeric_dtype(data[x]):
        raise DataError(f"{x!r} is not numeric, so no line can be drawn against it.")


def _group_labels(fit: Fit, factor: str) -> np.ndarray[Any, Any]:
    known = {each.name: each for each in fit.design.factors}
    if factor not in known:
        raise DataError(f"there is no grouping factor {factor!r}; there is {listing(known)}.")
    return np.asarray(known[factor].levels, dtype=object)[known[factor].codes]


def _choose(labels: np.ndarray[Any, Any], groups: int | Sequence[Any]) -> list[Any]:
    sizes = pd.Series(labels).value_counts(sort=False).sort_index().sort_values(kind="stable")
    if isinstance(groups, int):
        places = np.linspace(0, len(sizes) - 1, min(groups, len(sizes))).round().astype(int)
        return [sizes.index[place] for place in places]
    wanted = [str(group) for group in groups]
    for group in wanted:
        if group not in sizes.index:
            raise DataError(f"there is no group {group!r}. {did_you_mean(group, sizes.index)}".rstrip())
    return wanted


def _line(fit: Fit, mine: pd.DataFrame, x: str, ends: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the expected response of a group at two values of x, the other columns at their middle."""
    middle = {
        str(name): column.mean() if pd.api.types.is_float_dtype(column) else column.iloc[0]
        for name, column in mine.items()
    }
    two = mine.iloc[[0, 0]].assign(**{name: value for name, value in middle.items() if name != x})
    two[x] = ends
    return np.asarray(fit.predict(two))
