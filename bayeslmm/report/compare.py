"""A fit and a posterior of the same model side by side, and in plain words where and why they disagree."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import ComparisonError, listing
from bayeslmm.report.grid import STYLE, Grid
from bayeslmm.report.numbers import format_number, shared_decimals
from bayeslmm.report.tables import notes_html

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arviz_plots import PlotCollection
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bayeslmm.contract import Fit
    from bayeslmm.formula.design import Design

FIT_COLUMNS = ["estimate", "se", "lower", "upper"]
POSTERIOR_COLUMNS = ["post_mean", "post_sd", "post_lower", "post_upper"]
PARTS = {
    "fixed": "Fixed effects",
    "sd": "Standard deviations of group effects",
    "corr": "Correlations of group effects",
    "sigma": "Residual standard deviation",
    "aux": "Other parameters",
}

TEXT_WIDTH = 100
FEW_LEVELS = 10
WIDER, NARROWER = 1.15, 0.87
SHIFT = 0.25
SKEWED = 0.5
NEGLIGIBLE = 1e-5
WEAK_CORRELATION = 1.8
WEAK_RATIO = 100.0
ENOUGH_DRAWS = 400
MOST_RHAT = 1.01


@dataclass(frozen=True)
class DrawShape:
    """What the draws of one parameter look like; missing where there are none.

    Parameters
    ----------
    median, skewness : float
        Of all draws.
    ess, rhat : float
        Effective number of draws and R-hat.
    """

    median: float = float("nan")
    skewness: float = float("nan")
    ess: float = float("nan")
    rhat: float = float("nan")


@dataclass(frozen=True)
class Row:
    """One parameter under both results, with what is needed to judge the difference.

    Parameters
    ----------
    name, kind : str
        As in `Fit.parameter_frame`.
    estimate, se, lower, upper : float
        From the fit; `se` is missing on the boundary.
    mean, sd, post_lower, post_upper : float
        From the posterior.
    draws : DrawShape
        Of the posterior.
    factor : str
        Grouping factor of an SD or correlation; else empty.
    levels : int
        Its number of levels; 0 if there is no factor.
    """

    name: str
    kind: str
    estimate: float
    se: float
    lower: float
    upper: float
    mean: float
    sd: float
    post_lower: float
    post_upper: float
    draws: DrawShape = DrawShape()
    factor: str = ""
    levels: int = 0

    @property
    def shift(self) -> float:
        """Posterior mean minus estimate, in posterior SDs."""
        return (self.mean - self.estimate) / self.sd if self.sd > 0 else float("nan")

    @property
    def is_simulation_noise(self) -> bool:
        """Whether the difference of the points is within four Monte Carlo standard errors."""
        return (
            bool(abs(self.mean - self.estimate) < 4 * self.sd / np.sqrt(self.draws.ess))
            if self.draws.ess > 0
            else False
        )


@dataclass(frozen=True)
class Flag:
    """A disagreement: the parameter, a word for the table, a sentence for the reader."""

    parameter: str
    word: str
    sentence: str


@dataclass(frozen=True, repr=False)
class Comparison:
    """A fit beside a posterior, parameter by parameter.

    Parameters
    ----------
    formula : str
        The model.
    engines : tuple of str
        How each was computed.
    level : float
        Coverage of both intervals.
    frame : DataFrame
        Indexed by parameter: kind, estimate, se, lower, upper, post_mean, post_sd, post_lower, post_upper, flag.
    inner : DataFrame
        The same intervals at coverage 0.5, for plots.
    flags : tuple of Flag
        Where the two disagree, and why.
    notes : tuple of str
        What to know about both, such as too few draws.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
    >>> both = blm.compare(model.fit(), model.sample(draws=500, seed=1, progress=False))
    >>> both.frame.loc["sd_Batch[Intercept]", "flag"]
    'boundary, few groups'
    """

    formula: str
    engines: tuple[str, str]
    level: float
    frame: pd.DataFrame
    inner: pd.DataFrame
    flags: tuple[Flag, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is compared."""
        return f"{self.engines[0]} beside {self.engines[1]}: {self.formula}"

    def grid(self) -> Grid:
        """Return the cells: one section per kind of parameter, every row with decimals of its own.

        Returns
        -------
        Grid
            Ten columns.
        """
        low, high = (_percent(q) for q in ((1 - self.level) / 2, (1 + self.level) / 2))
        rows: list[tuple[str, ...]] = []
        parts: list[int] = []
        for kind, title in PARTS.items():
            block = self.frame[self.frame["kind"] == kind]
            if len(block):
                parts.append(len(rows))
                rows.append((title, *[""] * 9))
                rows.extend(_cells(name, row) for name, row in block.iterrows())
        header = ("", "Estimate", "SE", low, high, "Mean", "SD", low, high, "")
        over = (("", 1), (self.engines[0], 4), (self.engines[1], 4), ("", 1))
        return Grid(header, tuple(rows), "l" + "d" * 8 + "l", over, tuple(parts))

    def to_text(self) -> str:
        """Return the comparison as plain text.

        Returns
        -------
        str
            Title, table, then one sentence per disagreement.
        """
        return "\n".join([self.title, "", self.grid().text(), "", *self._closing_lines()])

    def to_html(self) -> str:
        """Return the comparison as an HTML fragment that brings its own style.

        Returns
        -------
        str
            A table and a list of sentences.
        """
        return STYLE + self.grid().html(self.title) + self.closing_html()

    def closing_html(self, with_notes: bool = True) -> str:
        """Return the sentences below the table as HTML.

        Parameters
        ----------
        with_notes : bool, default True
            Whether the notes follow the disagreements.

        Returns
        -------
        str
            A list of disagreements, or a sentence that there are none, then the notes.
        """
        if self.flags:
            items = (
                f"<li><b>{html.escape(flag.parameter)}</b> ({flag.word}): {html.escape(flag.sentence)}</li>"
                for flag in self.flags
            )
            body = f"<p>Where they disagree, and why:</p><ul>{''.join(items)}</ul>"
        else:
            body = f"<p>{html.escape(self.agreement)}</p>"
        return body + (notes_html(self.notes) if with_notes else "")

    @property
    def agreement(self) -> str:
        """What is said when nothing is flagged."""
        return "No disagreement worth a remark: points and intervals tell the same story."

    def to_latex(self, label: str = "") -> str:
        """Return the table in LaTeX's booktabs style.

        Parameters
        ----------
        label : str, default ""
            For a reference from the text.

        Returns
        -------
        str
            A ``table`` environment.
        """
        return self.grid().latex(self.title, label)

    def to_markdown(self) -> str:
        """Return the table as a Markdown pipe table.

        Returns
        -------
        str
            The lines.
        """
        return self.grid().markdown()

    def to_pandas(self) -> pd.DataFrame:
        """Return the numbers, unrounded.

        Returns
        -------
        DataFrame
            A copy of `frame`.
        """
        return self.frame.copy()

    def plot_forest(self, parameters: Sequence[str] | None = None, **options: Any) -> PlotCollection:
        """Draw both intervals of every parameter on one axis, with ArviZ.

        Parameters
        ----------
        parameters : sequence of str, optional
            Which ones; all but the intercept when absent.
        **options : Any
            Passed to `arviz_plots.plot_forest`.

        Returns
        -------
        arviz_plots.PlotCollection
            Thick lines hold half of the probability, thin ones `level`.
        """
        from bayeslmm.report.plots import arviz_forest

        return arviz_forest(self, parameters, **options)

    def plot_panels(self, parameters: Sequence[str] | None = None, columns: int = 3) -> Figure:
        """Draw both intervals of every parameter, each on an axis of its own.

        Parameters
        ----------
        parameters : sequence of str, optional
            Which ones; all when absent.
        columns : int, default 3
            Panels beside each other.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.
        """
        from bayeslmm.report.plots import forest_panels

        return forest_panels(self, parameters, columns)

    def _closing_lines(self) -> Iterator[str]:
        if not self.flags:
            yield self.agreement
        for flag in self.flags:
            yield _wrapped(f"{flag.parameter} ({flag.word}): {flag.sentence}")
        yield from map(_wrapped, self.notes)

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()


def compare(fit: Fit, post: Fit, level: float = 0.95) -> Comparison:
    """Put a REML or ML fit beside a posterior of the same model and explain where they disagree.

    Parameters
    ----------
    fit : Fit
        From `Model.fit()`.
    post : Fit
        From `Model.sample()`.
    level : float, default 0.95
        Coverage of the intervals of both.

    Returns
    -------
    Comparison
        One table with a flag per disagreement and a sentence for each.

    Raises
    ------
    ComparisonError
        If the two are not results of the same model on the same rows.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> model = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    >>> both = blm.compare(model.fit(), model.sample(draws=500, seed=1, progress=False))
    >>> both.frame.loc["Days", ["estimate", "post_mean"]].astype(float).round(1).to_list()
    [10.5, 10.5]
    """
    check_same_model(fit.design, post.design)
    frame = _join(fit.parameter_frame(level), post.parameter_frame(level))
    inner = _join(fit.parameter_frame(0.5), post.parameter_frame(0.5))
    rows = _rows(frame, parameter_draws(post), post.design)
    flags = tuple(flag for row in rows for flag in flags_of(row, fit.engine, level))
    words = {name: ", ".join(flag.word for flag in flags if flag.parameter == name) for name in frame.index}
    return Comparison(
        formula=fit.design.formula.text,
        engines=(fit.engine, post.engine),
        level=level,
        frame=frame.assign(flag=pd.Series(words)),
        inner=inner,
        flags=flags,
        notes=sampling_notes(rows),
    )


def check_same_model(first: Design, second: Design) -> None:
    """Refuse to compare results of different models or different rows.

    Parameters
    ----------
    first, second : Design
        The designs of the two results.

    Raises
    ------
    ComparisonError
        If formulas, coefficients or rows differ.
    """
    if first is second:
        return
    if first.coef_names != second.coef_names or [t.term.factor for t in first.terms] != [
        t.term.factor for t in second.terms
    ]:
        raise ComparisonError(
            "the two results are of different models:\n"
            f"  {first.formula.text}\n  {second.formula.text}\n"
            "  Call fit() and sample() on the same model."
        )
    if not first.same_response(second):
        raise ComparisonError(
            f"the two results rest on different rows ({len(first.rows)} and {len(second.rows)}).\n"
            "  Call fit() and sample() on the same model."
        )


def parameter_draws(post: Fit) -> dict[str, NDArray[np.float64]]:
    """Return the draws of every coefficient, SD, correlation and sigma by parameter name.

    Parameters
    ----------
    post : Fit
        A result with draws.

    Returns
    -------
    dict of str to ndarray (chains, draws)
        Named as in `Fit.parameter_frame`; parameters without draws are left out.
    """
    posterior = post.to_datatree()["posterior"].to_dataset()
    places: dict[str, tuple[str, tuple[int, ...]]] = {
        name: ("beta", (position,)) for position, name in enumerate(post.design.coef_names)
    }
    for factor in post.design.factors:
        for k, effect in enumerate(factor.sd_labels):
            places[f"sd_{factor.name}[{effect}]"] = (f"sd_{factor.name}", (k,))
        for (i, a), (j, b) in combinations(enumerate(factor.effects), 2):
            places[f"corr_{factor.name}[{a},{b}]"] = (f"corr_{factor.name}", (i, j))
    places["sigma"] = ("sigma", ())
    return {
        name: np.moveaxis(posterior[variable].to_numpy(), (0, 1), (-2, -1))[where]
        for name, (variable, where) in places.items()
        if variable in posterior
    }


def flags_of(row: Row, engine: str, level: float) -> list[Flag]:
    """Return what deserves a remark about one parameter.

    Parameters
    ----------
    row : Row
        The parameter under both results.
    engine : str
        Name of the fit's method, for the sentences.
    level : float
        Coverage of the intervals.

    Returns
    -------
    list of Flag
        Empty where the two agree.
    """
    found: list[Flag] = []
    for check in CHECKS:
        answer = check(row, engine, level)
        if answer is not None:
            found.append(Flag(row.name, *answer))
            if answer[0] == "boundary" and row.kind == "corr":
                break
    return found


def _boundary(row: Row, engine: str, level: float) -> tuple[str, str] | None:
    if row.kind not in ("sd", "corr") or not _on_boundary(row):
        return None
    between = f"{_short(row.post_lower)} and {_short(row.post_upper)}"
    holds = f"The posterior holds {_percent(level)} between {between}"
    if row.kind == "sd":
        return "boundary", (
            f"{engine} estimates zero, the edge of what is possible, where a standard error has no meaning. {holds}: "
            "small values fit, and how small is up to the prior."
        )
    if np.isnan(row.estimate):
        return "boundary", f"{engine} gives none, as one of its SDs is zero; the posterior lies between {between}."
    return "boundary", (
        f"{engine} estimates {row.estimate:.2f}, the edge of what is possible: the data do not support this many "
        f"group effects. {holds}."
    )


def _weak(row: Row, engine: str, level: float) -> tuple[str, str] | None:
    if not _is_weak(row):
        return None
    return "weak data", (
        f"the {engine} interval from {_short(row.lower)} to {_short(row.upper)} says that the data hardly inform it; "
        f"the posterior, {_short(row.post_lower)} to {_short(row.post_upper)}, is largely the prior's work."
    )


def _few_groups(row: Row, engine: str, level: float) -> tuple[str, str] | None:
    if not 0 < row.levels < FEW_LEVELS:
        return None
    if not (_on_boundary(row) or abs(row.shift) > SHIFT or row.sd > WIDER * row.se):
        return None
    rough = "" if _on_boundary(row) else f"the {engine} interval is rough and "
    return "few groups", (
        f"it rests on {row.levels} levels of {row.factor}, so {rough}the posterior leans on its prior; "
        "try a second prior."
    )


def _skewed(row: Row, engine: str, level: float) -> tuple[str, str] | None:
    if row.kind not in ("sd", "sigma") or _on_boundary(row) or not row.draws.skewness > SKEWED or not row.shift > SHIFT:
        return None
    return "skewed", (
        f"the posterior has a long right tail, so its mean {_short(row.mean)} lies above the {engine} estimate "
        f"{_short(row.estimate)} (median {_short(row.draws.median)}); compare the intervals."
    )


def _shifted(row: Row, engine: str, level: float) -> tuple[str, str] | None:
    if _on_boundary(row) or not abs(row.shift) > SHIFT or row.is_simulation_noise:
        return None
    if _is_weak(row) or 0 < row.levels < FEW_LEVELS or (row.kind in ("sd", "sigma") and row.draws.skewness > SKEWED):
        return None
    if row.kind == "corr":
        inward = abs(row.mean) < abs(row.estimate)
        cause = "the prior favours small correlations" if inward else "the posterior averages over the SDs"
        return "prior" if inward else "shifted", (
            f"{cause} and moves the mean to {row.mean:.2f} ({engine}: {row.estimate:.2f})."
        )
    return "shifted", (
        f"the posterior mean lies {abs(row.shift):.1f} posterior SDs {'above' if row.shift > 0 else 'below'} the "
        f"{engine} estimate; {_cause_of_shift(row)}."
    )


def _cause_of_shift(row: Row) -> str:
    if row.kind in ("sd", "sigma"):
        return (
            "a mean over a posterior that reaches further up than down; compare the intervals"
            if row.shift > 0
            else "the priors pull it down"
        )
    return "the prior pulls" if row.sd < row.se else "the posterior averages over the variance parameters"


def _width(row: Row, engine: str, level: float) -> tuple[str, str] | None:
    if row.kind != "fixed" or not row.se > 0:
        return None
    ratio = row.sd / row.se
    if ratio > WIDER:
        return "wider", (
            f"the posterior SD is {ratio:.2f} times the standard error: it carries the uncertainty about the variance "
            "parameters, which the standard error leaves out. The posterior interval is the safer one."
        )
    if ratio < NARROWER:
        return "narrower", f"the posterior SD is {ratio:.2f} times the standard error: the prior adds information."
    return None


CHECKS: tuple[Callable[[Row, str, float], tuple[str, str] | None], ...] = (
    _boundary,
    _weak,
    _few_groups,
    _skewed,
    _shifted,
    _width,
)


def sampling_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a warning about parameters whose draws are too few or do not agree between chains.

    Parameters
    ----------
    rows : sequence of Row
        All parameters.

    Returns
    -------
    tuple of str
        Empty when the draws are fine.
    """
    few = [row.name for row in rows if row.draws.ess < ENOUGH_DRAWS]
    apart = [row.name for row in rows if row.draws.rhat > MOST_RHAT]
    notes = []
    if apart:
        notes.append(f"The chains disagree (R-hat above {MOST_RHAT}) on {listing(apart, 5)}: sample longer first.")
    if few:
        notes.append(f"Fewer than {ENOUGH_DRAWS} effective draws of {listing(few, 5)}: sample longer first.")
    return tuple(notes)


def _join(fit: pd.DataFrame, post: pd.DataFrame) -> pd.DataFrame:
    """Put the two parameter frames beside each other; the fit's order leads."""
    right = post[FIT_COLUMNS].set_axis(POSTERIOR_COLUMNS, axis=1)
    index = fit.index.append(post.index.difference(fit.index, sort=False))
    kind = fit["kind"].reindex(index).fillna(post["kind"].reindex(index))
    return pd.concat([kind, fit[FIT_COLUMNS].reindex(index), right.reindex(index)], axis=1)


def _rows(frame: pd.DataFrame, draws: Mapping[str, NDArray[np.float64]], design: Design) -> list[Row]:
    owner = {
        f"{kind}_{factor.name}[": (factor.name, len(factor.members))
        for factor in design.factors
        for kind in ("sd", "corr")
    }
    return [_row(str(name), values, draws, owner) for name, values in frame.iterrows()]


def _row(
    name: str, values: pd.Series, draws: Mapping[str, NDArray[np.float64]], owner: Mapping[str, tuple[str, int]]
) -> Row:
    factor, levels = next((found for prefix, found in owner.items() if name.startswith(prefix)), ("", 0))
    estimate, se, lower, upper = (float(values[column]) for column in FIT_COLUMNS)
    mean, sd, post_lower, post_upper = (float(values[column]) for column in POSTERIOR_COLUMNS)
    shape = _shape(draws.get(name))
    return Row(
        name, str(values["kind"]), estimate, se, lower, upper, mean, sd, post_lower, post_upper, shape, factor, levels
    )


def _shape(draws: NDArray[np.float64] | None) -> DrawShape:
    if draws is None or not draws.std() > 0:
        return DrawShape()
    from arviz_stats.base import array_stats

    deviations = draws - draws.mean()
    return DrawShape(
        median=float(np.median(draws)),
        skewness=float(np.mean(deviations**3) / np.mean(deviations**2) ** 1.5),
        ess=float(array_stats.ess(draws, chain_axis=0, draw_axis=1)),
        rhat=float(array_stats.rhat(draws, chain_axis=0, draw_axis=1)) if len(draws) > 1 else float("nan"),
    )


def _on_boundary(row: Row) -> bool:
    if row.kind == "corr":
        return not row.se > 0 or abs(row.estimate) > 1 - NEGLIGIBLE
    return row.kind == "sd" and (not row.se > 0 or row.estimate < NEGLIGIBLE * row.mean)


def _is_weak(row: Row) -> bool:
    """Whether the fit's interval covers nearly all that is possible."""
    if _on_boundary(row):
        return False
    if row.kind == "corr":
        return row.upper - row.lower > WEAK_CORRELATION
    return row.kind == "sd" and row.upper > WEAK_RATIO * row.lower


def _percent(level: float) -> str:
    return f"{100 * level:.4g} %"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, TEXT_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _short(value: float) -> str:
    return format_number(value, None, 3)


def _cells(name: object, row: pd.Series) -> tuple[str, ...]:
    """Return one line of the table; its decimals show three digits of the smaller of SE and posterior SD."""
    numbers = [float(row[column]) for column in FIT_COLUMNS + POSTERIOR_COLUMNS]
    scales = [value for value in (numbers[1], numbers[5]) if value > 0] or numbers
    decimals = shared_decimals([min(scales)], 3, trim=False)
    return (str(name), *(format_number(value, decimals, 3) for value in numbers), str(row["flag"]))
