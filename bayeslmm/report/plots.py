"""Plots of results in colours that colour-blind readers can tell apart; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.contract import check_effect
from bayeslmm.errors import DataError, did_you_mean, listing

if TYPE_CHECKING:
    import xarray as xr
    from arviz_plots import PlotCollection
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bayeslmm.contract import RandomEffects
    from bayeslmm.report.compare import Comparison

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
CHAIN_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", GREY)
PANEL_WIDTH, PANEL_HEIGHT = 3.2, 0.95
LABELLED_LEVELS = 60


def caterpillar(
    ranef: RandomEffects,
    factor: str | None = None,
    effect: str | None = None,
    *,
    level: float = 0.95,
    sort: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the group effects of one kind with their intervals, smallest first.

    Parameters
    ----------
    ranef : RandomEffects
        ``fit.ranef``.
    factor : str, optional
        Grouping factor; the first when absent.
    effect : str, optional
        Which effect of it; the first when absent.
    level : float, default 0.95
        Coverage of the intervals (normal, from the conditional or posterior SD).
    sort : bool, default True
        By size; otherwise in the order of the levels.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        Levels whose interval excludes zero are drawn in full colour, the others in grey.

    Raises
    ------
    DataError
        If there is no such factor or effect.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> caterpillar(fit.ranef, effect="Days").get_xlabel()
    'Days by Subject, with 95 % intervals'
    """
    from scipy.special import ndtri

    factor = next(iter(ranef)) if factor is None else factor
    frame = ranef[factor]
    effect = str(frame.columns[0]) if effect is None else check_effect(factor, effect, list(frame.columns))
    values = frame[effect].sort_values() if sort else frame[effect][::-1]
    reach = float(ndtri((1 + level) / 2)) * ranef.sd[factor][effect].reindex(values.index).to_numpy()
    if ax is None:
        ax = new_axes(height=min(max(2.0, 0.17 * len(values) + 0.8), 11.0))
    place = np.arange(len(values))
    clear = np.abs(values.to_numpy()) > reach
    for chosen, colour in ((clear, BLUE), (~clear, GREY)):
        ax.hlines(
            place[chosen], (values - reach)[chosen], (values + reach)[chosen], color=colour, linewidth=1.2, alpha=0.9
        )
        ax.plot(values[chosen], place[chosen], "o", color=colour, markersize=3.2)
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    if len(values) <= LABELLED_LEVELS:
        ax.set_yticks(place, [str(label) for label in values.index], fontsize=7)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(values):,} levels of {factor}")
    ax.set_ylim(-0.8, len(values) - 0.2)
    ax.set_xlabel(f"{effect} by {factor}, with {100 * level:.4g} % intervals")
    clean(ax)
    return ax


def forest(
    frame: pd.DataFrame, *, parameters: Sequence[str] | None = None, label: str = "", ax: Axes | None = None
) -> Axes:
    """Draw estimates with their intervals, one line per parameter.

    Parameters
    ----------
    frame : DataFrame
        With columns `estimate`, `lower` and `upper`, indexed by parameter: ``fit.parameter_frame()``.
    parameters : sequence of str, optional
        Which ones; all when absent.
    label : str, default ""
        Name of the result, for a legend.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when absent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Examples
    --------
    >>> frame = pd.DataFrame({"estimate": [1.0], "lower": [0.5], "upper": [1.5]}, index=["x"])
    >>> [text.get_text() for text in forest(frame).get_yticklabels()]
    ['x']
    """
    chosen = frame.loc[list(frame.index if parameters is None else check_parameters(frame, parameters))][::-1]
    ax = new_axes(height=0.32 * len(chosen) + 0.9) if ax is None else ax
    place = np.arange(len(chosen))
    ax.hlines(place, chosen["lower"], chosen["upper"], color=BLUE, linewidth=1.6)
    ax.plot(chosen["estimate"], place, "o", color=BLUE, markersize=4.5, label=label or None)
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_yticks(place, list(map(str, chosen.index)))
    ax.set_ylim(-0.7, len(chosen) - 0.3)
    clean(ax)
    return ax


def forest_panels(comparison: Comparison, parameters: Sequence[str] | None = None, columns: int = 3) -> Figure:
    """Draw the intervals of a fit and a posterior, every parameter on an axis of its own.

    Parameters
    ----------
    comparison : Comparison
        From `compare`.
    parameters : sequence of str, optional
        Which ones; all when absent.
    columns : int, default 3
        Panels beside each other.

    Returns
    -------
    matplotlib.figure.Figure
        Thick lines hold half of the probability, thin ones the comparison's level; an estimate on the boundary has
        a point only.
    """
    names = list(comparison.frame.index if parameters is None else check_parameters(comparison.frame, parameters))
    columns = max(1, min(columns, len(names)))
    rows = -(-len(names) // columns)
    figure = new_figure(PANEL_WIDTH * columns, PANEL_HEIGHT * rows + 0.45)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        _panel(ax, comparison.frame.loc[name], comparison.inner.loc[name])
        ax.set_title(name, fontsize=9, loc="left")
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    handles = axes[0].get_lines()[:2]
    figure.legend(handles, list(comparison.engines), loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def _panel(ax: Axes, outer: pd.Series, inner: pd.Series) -> None:
    sides = ((1, "estimate", "", BLUE, "s"), (0, "post_mean", "post_", ORANGE, "o"))
    for height, point, _, colour, marker in sides:
        ax.plot(outer[point], height, marker, color=colour, markersize=5, zorder=3)
    for height, _, prefix, colour, _ in sides:
        for values, width in ((outer, 1.2), (inner, 3.2)):
            ends = values[f"{prefix}lower"], values[f"{prefix}upper"]
            if np.all(np.isfinite(np.asarray(ends, dtype=float))):
                ax.hlines(height, *ends, color=colour, linewidth=width)
    ax.set_ylim(-0.7, 1.7)
    ax.set_yticks([])
    ax.margins(x=0.08)
    if outer["kind"] == "fixed" and ax.get_xlim()[0] < 0 < ax.get_xlim()[1]:
        ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(labelsize=8)
    clean(ax)


def arviz_forest(comparison: Comparison, parameters: Sequence[str] | None = None, **options: Any) -> PlotCollection:
    """Draw the intervals of a fit and a posterior on one axis with `arviz_plots.plot_forest`.

    Parameters
    ----------
    comparison : Comparison
        From `compare`.
    parameters : sequence of str, optional
        Which ones; all but the intercept when absent.
    **options : Any
        Passed to `arviz_plots.plot_forest`.

    Returns
    -------
    arviz_plots.PlotCollection
        With a legend of the two engines.
    """
    import arviz_plots
    import xarray as xr

    frame = comparison.frame
    chosen = check_parameters(frame, parameters) if parameters is not None else _without_intercept(frame)
    models = dict(zip(comparison.engines, ("", "post_"), strict=True))
    points = ("estimate", "post_mean")
    trees = {
        engine: xr.DataTree.from_dict(
            {"posterior": _point_dataset(frame.loc[chosen, point]).expand_dims(chain=1, draw=1)}
        )
        for engine, point in zip(models, points, strict=True)
    }
    stats: Mapping[str, xr.Dataset] = {
        "point_estimate": xr.concat(
            [_point_dataset(frame.loc[chosen, point]) for point in points], _model_index(models)
        ),
        "trunk": _interval_dataset(comparison.inner.loc[chosen], models),
        "twig": _interval_dataset(frame.loc[chosen], models),
    }
    settings = {"color": [BLUE, ORANGE], "labels": ["parameter"], "combined": True, **options}
    plot = arviz_plots.plot_forest(trees, stats=stats, **settings)
    plot.add_legend("model", title="")
    return plot


def traces(draws: Mapping[str, NDArray[np.float64]], columns: int = 3) -> PlotCollection:
    """Draw the values of each parameter in the order they were drawn, chains in colours, with ArviZ.

    Parameters
    ----------
    draws : mapping of str to ndarray (chains, draws)
        Draws by parameter.
    columns : int, default 3
        Panels beside each other.

    Returns
    -------
    arviz_plots.PlotCollection
        One panel per parameter.
    """
    import arviz_plots
    import matplotlib as mpl
    import xarray as xr

    chains, length = next(iter(draws.values())).shape
    posterior = xr.Dataset(
        {name: (("chain", "draw"), values) for name, values in draws.items()},
        coords={"chain": np.arange(chains), "draw": np.arange(length)},
    )
    rows = -(-len(draws) // columns)
    size = {"figsize": (PANEL_WIDTH * columns, 1.7 * rows), "figsize_units": "inches", "layout": "constrained"}
    with mpl.rc_context({"font.size": 8, "lines.linewidth": 0.5, "axes.titlesize": 9}):
        return arviz_plots.plot_trace(
            xr.DataTree.from_dict({"posterior": posterior}),
            color=list(CHAIN_COLOURS),
            col_wrap=columns,
            visuals={"xlabel": False, "trace": {"width": 0.4}, "title": {"size": 9}},
            figure_kwargs=size,
        )


def _without_intercept(frame: pd.DataFrame) -> list[str]:
    kept = [str(name) for name in frame.index if name != "Intercept"]
    return kept or [str(name) for name in frame.index]


def _model_index(models: Mapping[str, str]) -> pd.Index:
    return pd.Index(list(models), name="model")


def _point_dataset(values: pd.Series) -> xr.Dataset:
    import xarray as xr

    return xr.Dataset({"value": ("parameter", values.to_numpy(dtype=float))}, coords={"parameter": list(values.index)})


def _interval_dataset(frame: pd.DataFrame, models: Mapping[str, str]) -> xr.Dataset:
    import xarray as xr

    sides = [
        xr.concat(
            [_point_dataset(frame[f"{prefix}{side}"]) for side in ("lower", "upper")],
            pd.Index(["lower", "upper"], name="ci_bound"),
        )
        for prefix in models.values()
    ]
    return xr.concat(sides, _model_index(models))


def check_parameters(frame: pd.DataFrame, parameters: Sequence[str]) -> list[str]:
    """Return the names, refusing those that are not in the frame.

    Parameters
    ----------
    frame : DataFrame
        Indexed by parameter.
    parameters : sequence of str
        Names.

    Returns
    -------
    list of str
        The names.

    Raises
    ------
    DataError
        If one is not there.

    Examples
    --------
    >>> check_parameters(pd.DataFrame(index=["IQ", "SES"]), ["SES"])
    ['SES']
    """
    names = [parameters] if isinstance(parameters, str) else list(parameters)
    for name in names:
        if name not in frame.index:
            hint = did_you_mean(name, map(str, frame.index))
            raise DataError(f"there is no parameter {name!r}.\n  Parameters: {listing(frame.index)}. {hint}".rstrip())
    return names


def new_axes(width: float = 6.4, height: float = 4.0) -> Axes:
    """Return the axes of a new pyplot figure, so that notebooks show it.

    Parameters
    ----------
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.axes.Axes
        One set of axes.
    """
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own, outside pyplot, that a notebook shows as an image when it ends a cell.

    Parameters
    ----------
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        An empty figure.
    """
    return _picture()(figsize=(width, height), layout="constrained")


@cache
def _picture() -> type[Figure]:
    """Return a Figure that knows its PNG: notebooks know plain ones only after pyplot has drawn."""
    from io import BytesIO

    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    return Picture


def clean(ax: Axes) -> None:
    """Remove the frame lines that carry nothing.

    Parameters
    ----------
    ax : matplotlib Axes
        Changed in place.
    """
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
