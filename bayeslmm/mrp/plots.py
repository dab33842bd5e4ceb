"""Pictures of poststratified estimates, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, listing
from bayeslmm.formula.grouping import label
from bayeslmm.mrp.grouping import ALL
from bayeslmm.mrp.reading import require_column
from bayeslmm.mrp.tiles import US_TILES
from bayeslmm.report.plots import BLUE, GREY, ORANGE, clean, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bayeslmm.mrp.estimates import Estimates

COLOURS = "cividis"
LIGHT_BLUE = "#8CC5E8"
INNER_LEVEL = 0.5
LINE_HEIGHT, TALLEST = 0.19, 11.0
LIGHT_TEXT_BELOW = 0.45


def plot_intervals(
    estimates: Estimates,
    *,
    level: float = 0.95,
    sort: bool = True,
    raw: bool = True,
    truth: Mapping[str, float] | None = None,
    percent: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one dot per group with its interval, the survey's own estimate beside it.

    Parameters
    ----------
    estimates : Estimates
        From `poststratify`.
    level : float, default 0.95
        Coverage of the thin line; the thick one holds half.
    sort : bool, default True
        Largest on top; otherwise in the order of the groups.
    raw : bool, default True
        Mark the survey's estimates (weighted where known, else raw), if there are any.
    truth : mapping of str to float, optional
        Known outcomes by label.
    percent : bool, optional
        Label the axis in percent; decided by the values when absent.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from bayeslmm.mrp.estimates import Estimates
    >>> two = Estimates(pd.DataFrame({"state": ["CA", "TX"]}), np.array([[0.6, 0.4], [0.7, 0.5]]), np.ones(2))
    >>> [text.get_text() for text in plot_intervals(two).get_yticklabels()]
    ['TX', 'CA']
    """
    order = np.argsort(estimates.estimate, kind="stable") if sort else np.arange(len(estimates))[::-1]
    shown = estimates.select(order)
    ax = new_axes(height=float(np.clip(LINE_HEIGHT * len(shown) + 0.9, 2.0, TALLEST))) if ax is None else ax
    place = np.arange(len(shown))
    for coverage, colour, width in ((level, BLUE, 1.1), (INNER_LEVEL, LIGHT_BLUE, 3.6)):
        ax.hlines(place, *shown.interval(coverage).T, color=colour, linewidth=width)
    ax.plot(shown.estimate, place, "o", color=BLUE, markersize=4.5, label="MRP")
    if raw and shown.survey is not None:
        column = "weighted" if "weighted" in shown.survey else "raw"
        ax.plot(shown.survey[column], place, "x", color=ORANGE, markersize=4.5, label=f"{column} survey mean")
    if truth is not None:
        known = pd.Series(dict(truth)).reindex(shown.labels)
        ax.plot(known, place, "d", color="black", markersize=4, fillstyle="none", label="known outcome")
    ax.set_yticks(place, shown.labels, fontsize=8 if len(shown) <= 30 else 7)
    ax.set_ylim(-0.8, len(shown) - 0.2)
    ax.set_xlabel(f"{estimates.outcome}, with {100 * INNER_LEVEL:.0f} % and {100 * level:.4g} % intervals")
    _finish(ax, shown, percent, axis="x")
    if len(ax.get_legend_handles_labels()[0]) > 1:
        ax.legend(
            frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.0,
            handletextpad=0.2, columnspacing=1.4,
        )  # fmt: skip
    return ax


def plot_raw_against_mrp(
    estimates: Estimates, *, labels: int = 12, percent: bool | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the survey's own estimate of every group against MRP, with bubbles as large as there are respondents.

    Parameters
    ----------
    estimates : Estimates
        With survey estimates.
    labels : int, default 12
        How many groups to name: those that MRP moved most.
    percent : bool, optional
        Label the axes in percent; decided by the values when absent.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        Points on the diagonal did not move.

    Raises
    ------
    DataError
        If there are no survey estimates.
    """
    survey = _survey(estimates)
    ax = new_axes(width=5.4, height=5.2) if ax is None else ax
    column = "weighted" if "weighted" in survey else "raw"
    raw, mrp, n = survey[column].to_numpy(), estimates.estimate, survey["n"].to_numpy()
    polled = n > 0
    ends = np.array([min(np.nanmin(raw), mrp.min()), max(np.nanmax(raw), mrp.max())])
    ax.plot(ends, ends, color=GREY, linewidth=0.9, linestyle="--")
    ax.axhline(float(np.average(mrp[polled], weights=n[polled])), color=GREY, linewidth=0.7, linestyle=":")
    areas = _areas(n)
    ax.scatter(raw[polled], mrp[polled], s=areas[polled], color=BLUE, alpha=0.55, edgecolor="white", linewidth=0.7)
    moved = np.argsort(-np.abs(np.nan_to_num(mrp - raw)) * polled)[: min(labels, int(polled.sum()))]
    for index in _apart(moved, raw, mrp, 0.03 * float(ends[1] - ends[0])):
        beside = 2.0 + 0.5 * float(np.sqrt(areas[index]))
        ax.annotate(
            estimates.labels[index], (raw[index], mrp[index]), xytext=(beside, 0), textcoords="offset points",
            fontsize=7.5, va="center",
        )  # fmt: skip
    ax.set_xlabel(f"{column} survey mean of {estimates.outcome}")
    ax.set_ylabel("MRP estimate")
    ax.text(0.02, 0.98, _size_note(n[polled]), transform=ax.transAxes, va="top", fontsize=8, color=GREY)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.1)
    _finish(ax, estimates, percent, axis="both")
    return ax


def plot_pooling(
    estimates: Estimates, *, labels: int = 10, percent: bool | None = None, ax: Axes | None = None
) -> Axes:
    """Draw every group's way from complete pooling over the multilevel model to no pooling.

    Left, everybody gets the survey's overall mean; right, every group has its own mean alone; between them stands the
    model, which trusts large groups more than small ones.

    Parameters
    ----------
    estimates : Estimates
        With survey estimates.
    labels : int, default 10
        How many groups to name at the right: the outermost.
    percent : bool, optional
        Label the axis in percent; decided by the values when absent.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        Lines are darker for groups with more respondents.

    Raises
    ------
    DataError
        If there are no survey estimates.
    """
    from matplotlib import colormaps

    survey = _survey(estimates)
    polled = (survey["n"] > 0).to_numpy()
    raw, n = survey["raw"].to_numpy()[polled], survey["n"].to_numpy()[polled]
    mrp, names = estimates.estimate[polled], np.array(estimates.labels)[polled]
    overall = float(np.average(raw, weights=n))
    ax = new_axes(width=6.0, height=5.0) if ax is None else ax
    depth = np.log(n + 1.0) / np.log(n.max() + 1.0)
    for index in np.argsort(n):
        colour = colormaps["Blues"](0.25 + 0.7 * depth[index])
        ax.plot([0, 1, 2], [overall, mrp[index], raw[index]], "-o", color=colour, linewidth=1.3, markersize=3)
    outermost = np.argsort(-np.abs(raw - np.median(raw)))[:labels]
    for index, height in zip(outermost, _spread(raw[outermost], 0.035 * np.ptp(raw)), strict=True):
        ax.annotate(f"{names[index]} ({n[index]:,})", (2, raw[index]), xytext=(2.06, height), fontsize=7.5, va="center")
    ax.set_xticks([0, 1, 2], ["complete pooling\n(overall mean)", "partial pooling\n(MRP)", "no pooling\n(own mean)"])
    ax.set_xlim(-0.15, 2.5)
    ax.set_ylabel(estimates.outcome)
    ax.set_title("darker: more respondents; in brackets: how many", fontsize=8, color=GREY, loc="left")
    _finish(ax, estimates, percent, axis="y")
    ax.spines["left"].set_visible(True)
    return ax


def plot_panels(
    estimates: Estimates,
    panel: str,
    *,
    level: float = 0.95,
    columns: int = 6,
    percent: bool | None = None,
) -> Figure:
    """Draw small multiples: one panel per level of a variable, the other variable along the axis.

    Parameters
    ----------
    estimates : Estimates
        Of a crossing of two variables.
    panel : str
        The variable that gets the panels, for example "state".
    level : float, default 0.95
        Coverage of the bars.
    columns : int, default 6
        Panels in a row.
    percent : bool, optional
        Label the axes in percent; decided by the values when absent.

    Returns
    -------
    matplotlib.figure.Figure
        Panels share both axes; the grey line is the mean over panels.

    Raises
    ------
    DataError
        If the estimates are not of two variables.
    """
    import matplotlib.pyplot as plt

    require_column(panel, estimates.variables, "variable")
    others = [name for name in estimates.variables if name != panel]
    if len(others) != 1:
        raise DataError(f"panels need estimates by two variables; these are by {listing(estimates.variables)}.")
    inner = estimates.groups[others[0]].map(label)
    whole = (estimates.groups[panel].map(label) == ALL) | (inner == ALL)
    shown = estimates.select((~whole).to_numpy())
    panels = list(dict.fromkeys(shown.groups[panel].map(label)))
    levels = list(dict.fromkeys(shown.groups[others[0]].map(label)))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.55 * columns + 0.8, 1.3 * rows + 0.9), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    table = shown.to_pandas(level).assign(
        panel=shown.groups[panel].map(label), place=shown.groups[others[0]].map(label).map(levels.index)
    )
    average = table.groupby("place")["estimate"].mean()
    for ax, name in zip(grid.flat, panels, strict=False):
        part = table[table["panel"] == name].sort_values("place")
        ax.plot(average.index, average, color=GREY, linewidth=1)
        ax.vlines(part["place"], part["lower"], part["upper"], color=BLUE, linewidth=1.2)
        ax.plot(part["place"], part["estimate"], "o", color=BLUE, markersize=3.2)
        if "raw" in part:
            ax.plot(part["place"], part["raw"], "x", color=ORANGE, markersize=3, alpha=0.8)
        ax.set_title(name, fontsize=8, pad=2)
        ax.set_xticks(range(len(levels)), levels, rotation=90, fontsize=7)
        ax.set_xlim(-0.6, len(levels) - 0.4)
        ax.tick_params(axis="y", labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        _percent_axis(ax.yaxis, _as_percent(shown, percent))
    for ax in list(grid.flat)[len(panels) :]:
        ax.set_visible(False)
    for ax in list(grid.flat)[max(len(panels) - columns, 0) : len(panels)]:
        ax.tick_params(axis="x", labelbottom=True)
    low, high = table["lower"].min(), table["upper"].max()
    grid[0, 0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    raw_note = ", crosses: raw survey means" if shown.survey is not None else ""
    if raw_note and ((table["raw"] < low) | (table["raw"] > high)).any():
        raw_note += " within this range"
    figure.supxlabel(others[0], fontsize=9)
    figure.supylabel(estimates.outcome, fontsize=9)
    figure.suptitle(f"dots: MRP with {100 * level:.4g} % intervals, line: mean over panels{raw_note}", fontsize=9)
    return figure


def plot_states(
    estimates: Estimates,
    *,
    what: str = "estimate",
    limits: tuple[float, float] | None = None,
    percent: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a tile-grid map of US states, every state a square of one size.

    Parameters
    ----------
    estimates : Estimates
        By one variable whose levels are postal abbreviations; others are left out.
    what : str, default "estimate"
        Column of `Estimates.to_pandas` to draw: "estimate", "sd", "raw", "shift".
    limits : tuple of float, optional
        Ends of the colour scale.
    percent : bool, optional
        Write values in percent; decided by the values when absent.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The map, values written in the tiles.

    Raises
    ------
    DataError
        If no level is the abbreviation of a state.
    """
    from matplotlib.patches import FancyBboxPatch

    values = _by_label(estimates, what)
    known = {state: value for state, value in values.items() if state in US_TILES}
    if not known:
        raise DataError(f"no group is a state's postal abbreviation: {listing(values)}.")
    in_percent = _as_percent(estimates, percent)
    colours, norm = _colour_scale(list(known.values()), limits, diverging=what == "shift")
    ax = new_axes(width=7.6, height=5.4) if ax is None else ax
    for state, (row, column) in US_TILES.items():
        value = known.get(state, np.nan)
        face = colours(norm(value)) if np.isfinite(value) else (0.93, 0.93, 0.93, 1.0)
        ax.add_patch(
            FancyBboxPatch((column - 0.44, row - 0.44), 0.88, 0.88, boxstyle="round,pad=0,rounding_size=0.08",
                           facecolor=face, edgecolor="none")
        )  # fmt: skip
        ink = "white" if _luminance(face) < LIGHT_TEXT_BELOW else "black"
        ax.text(column, row - 0.14, state, ha="center", va="center", fontsize=9, color=ink, weight="bold")
        ax.text(column, row + 0.2, _number(value, in_percent), ha="center", va="center", fontsize=8, color=ink)
    ax.set_xlim(-0.6, 10.6)
    ax.set_ylim(7.6, -0.6)
    ax.set_aspect("equal")
    ax.axis("off")
    _colour_bar(ax, colours, norm, _what_is_shown(estimates, what), in_percent)
    return ax


def plot_map(
    estimates: Estimates,
    shapes: Any,
    key: str,
    *,
    what: str = "estimate",
    limits: tuple[float, float] | None = None,
    percent: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a choropleth on given shapes.

    Parameters
    ----------
    estimates : Estimates
        By one variable.
    shapes : path, mapping or GeoPandas frame
        GeoJSON polygons: a file, the parsed mapping, or anything with `__geo_interface__`.
    key : str
        Property of the shapes that holds the level's name.
    what : str, default "estimate"
        Column of `Estimates.to_pandas` to draw.
    limits : tuple of float, optional
        Ends of the colour scale.
    percent : bool, optional
        Label colours in percent; decided by the values when absent.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        Shapes without an estimate are grey.

    Raises
    ------
    DataError
        If no shape has the name of a group.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import PathPatch

    values = _by_label(estimates, what)
    features = list(_features(shapes, key))
    if not any(name in values for name, _ in features):
        raise DataError(
            f"no shape's {key!r} is a group: shapes have {listing(name for name, _ in features)}; groups are "
            f"{listing(values)}."
        )
    colours, norm = _colour_scale(list(values.values()), limits, diverging=what == "shift")
    ax = new_axes(width=7.0, height=5.0) if ax is None else ax
    patches, faces = [], []
    for name, rings in features:
        value = values.get(name, np.nan)
        face = colours(norm(value)) if np.isfinite(value) else (0.88, 0.88, 0.88, 1.0)
        for polygon in rings:
            patches.append(PathPatch(_path(polygon)))
            faces.append(face)
    ax.add_collection(PatchCollection(patches, facecolor=faces, edgecolor="white", linewidth=0.5))
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.axis("off")
    _colour_bar(ax, colours, norm, _what_is_shown(estimates, what), _as_percent(estimates, percent))
    return ax


def _features(shapes: Any, key: str) -> Iterator[tuple[str, list[list[NDArray[np.float64]]]]]:
    """Yield the name and the polygons (outer ring first) of every shape."""
    if isinstance(shapes, str | Path):
        shapes = json.loads(Path(shapes).read_text(encoding="utf-8"))
    collection = shapes if isinstance(shapes, Mapping) else shapes.__geo_interface__
    for feature in collection["features"]:
        properties = feature.get("properties") or {}
        require_column(key, properties, "property")
        geometry = feature["geometry"]
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        if geometry["type"] not in ("Polygon", "MultiPolygon"):
            raise DataError(f"a shape is a {geometry['type']}; a choropleth needs polygons.")
        rings = [[np.asarray(ring, dtype=float)[:, :2] for ring in polygon] for polygon in polygons]
        yield label(properties[key]), rings


def _path(rings: Sequence[NDArray[np.float64]]) -> Any:
    from matplotlib.path import Path as Outline

    return Outline.make_compound_path(*(Outline(ring, closed=True) for ring in rings))


def _by_label(estimates: Estimates, what: str) -> dict[str, float]:
    if len(estimates.variables) != 1:
        raise DataError(f"a map needs estimates by one variable; these are by {listing(estimates.variables)}.")
    table = estimates.to_pandas()
    numbers = [name for name in table.columns if name != estimates.variables[0]]
    require_column(what, numbers)
    return dict(zip(estimates.labels, table[what].to_numpy(dtype=float), strict=True))


def _what_is_shown(estimates: Estimates, what: str) -> str:
    survey = "weighted" if estimates.survey is not None and "weighted" in estimates.survey else "raw"
    words = {"sd": "standard deviation of", "shift": f"MRP less {survey} survey mean of", "raw": "raw survey mean of"}
    return f"{words.get(what, what + ' of')} {estimates.outcome}"


def _survey(estimates: Estimates) -> pd.DataFrame:
    if estimates.survey is None:
        raise DataError(
            "there are no survey estimates beside these.\n"
            "  Add them: estimates.with_survey(survey_estimates(poll, outcome, by))."
        )
    return estimates.survey


def _as_percent(estimates: Estimates, percent: bool | None) -> bool:
    """Shares of 0 to 1 are shown in percent, unless told otherwise."""
    return bool(estimates.draws.min() >= -1 and estimates.draws.max() <= 1) if percent is None else percent


def _finish(ax: Axes, estimates: Estimates, percent: bool | None, axis: str) -> None:
    clean(ax)
    if axis == "both":
        ax.spines["left"].set_visible(True)
    in_percent = _as_percent(estimates, percent)
    for name, which in (("x", ax.xaxis), ("y", ax.yaxis)):
        if axis in (name, "both"):
            _percent_axis(which, in_percent)
            ax.grid(axis=name, color="0.9", linewidth=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)


def _percent_axis(which: Any, in_percent: bool) -> None:
    if in_percent:
        which.set_major_formatter(lambda value, _: f"{100 * value:.6g} %".replace("-", "\N{MINUS SIGN}"))


def _areas(n: NDArray[Any]) -> NDArray[np.float64]:
    return 15 + 360 * n / n.max()


def _size_note(n: NDArray[Any]) -> str:
    return (
        f"bubbles: {n.min():,} to {n.max():,} respondents\n"
        "dashed: not moved by the model\ndotted: mean of the estimates by respondents"
    )


def _apart(chosen: NDArray[np.intp], x: NDArray[np.float64], y: NDArray[np.float64], least: float) -> Iterator[int]:
    """Yield points whose label has room: none whose neighbour is labelled already."""
    named: list[int] = []
    for index in chosen:
        if all(abs(x[index] - x[other]) > 3 * least or abs(y[index] - y[other]) > least for other in named):
            named.append(int(index))
            yield int(index)


def _spread(heights: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return heights moved apart so that labels at them do not overlap."""
    order = np.argsort(heights)
    moved = heights[order].copy()
    for _ in range(200):
        gap = np.diff(moved)
        close = gap < least
        if not close.any():
            break
        push = np.where(close, (least - gap) / 2 + 1e-12, 0.0)
        moved[:-1] -= push
        moved[1:] += push
    out = np.empty_like(moved)
    out[order] = moved
    return out


def _colour_scale(
    values: Sequence[float], limits: tuple[float, float] | None, *, diverging: bool
) -> tuple[Colormap, Normalize]:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = (finite.min(), finite.max()) if limits is None else limits
    if diverging and limits is None:
        high = max(abs(low), abs(high))
        low = -high
    return colormaps["PuOr" if diverging else COLOURS], Normalize(low, high)


def _colour_bar(ax: Axes, colours: Colormap, norm: Normalize, text: str, in_percent: bool) -> None:
    from matplotlib.cm import ScalarMappable

    bar = ax.figure.colorbar(
        ScalarMappable(norm, colours), ax=ax, orientation="horizontal", shrink=0.5, aspect=28, pad=0.02
    )
    bar.set_label(text, fontsize=9)
    bar.outline.set_visible(False)
    _percent_axis(bar.ax.xaxis, in_percent)


def _luminance(colour: Sequence[float]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _number(value: float, in_percent: bool) -> str:
    if not np.isfinite(value):
        return ""
    text = f"{round(100 * value) + 0:d}" if in_percent else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")
