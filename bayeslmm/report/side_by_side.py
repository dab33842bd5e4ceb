"""Several results side by side: coefficients, variance parameters, and what there is to say about each fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import ComparisonError
from bayeslmm.report.grid import STYLE, Grid
from bayeslmm.report.numbers import format_count, format_number, shared_decimals
from bayeslmm.report.tables import notes_html

if TYPE_CHECKING:
    from bayeslmm.contract import Fit

Show = Literal["se", "interval", "none"]
SECTIONS = (("Fixed effects", ("fixed",)), ("Standard deviations and correlations", ("sd", "corr", "sigma", "aux")))
STATISTIC_NAMES = {"logLik": "Log-likelihood", "REMLcrit": "REML criterion", "deviance": "Deviance"}
LEFT_OUT = ("sigma", "df.residual", "algorithm", "pss")  # sigma is among the parameters already


@dataclass(frozen=True, repr=False)
class SideBySide:
    """Estimates of several results in one table.

    Parameters
    ----------
    names, engines : tuple of str
        What the results are called, and how each was computed.
    estimates : DataFrame
        One row per parameter (indexed by kind and name), one column per result; likewise `spread`, `lower`, `upper`.
    spread, lower, upper : DataFrame
        Standard errors (posterior SDs) and intervals.
    statistics : DataFrame
        Counts and criteria, one column per result.
    show : {"se", "interval", "none"}
        What stands in brackets behind an estimate.
    level : float
        Coverage of the intervals.
    digits : int
        Significant digits of the smallest number in a row.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> dyes = blm.datasets.load("Dyestuff")
    >>> both = [blm.lmer("Yield ~ 1 + (1 | Batch)", dyes, reml=reml) for reml in (True, False)]
    >>> blm.table(*both).estimates.round(2).to_dict("list")
    {'REML': [1527.5, 42.0, 49.51], 'ML': [1527.5, 37.26, 49.51]}
    """

    names: tuple[str, ...]
    engines: tuple[str, ...]
    estimates: pd.DataFrame
    spread: pd.DataFrame
    lower: pd.DataFrame
    upper: pd.DataFrame
    statistics: pd.DataFrame
    show: Show = "se"
    level: float = 0.95
    digits: int = 3

    @property
    def notes(self) -> tuple[str, ...]:
        """What the brackets hold."""
        if self.show == "none":
            return ()
        if self.show == "interval":
            return (f"In brackets: {100 * self.level:.4g} % intervals.",)
        bayes = any(engine.startswith("NUTS") for engine in self.engines)
        return ("In brackets: standard errors" + (" (REML, ML) or posterior standard deviations." if bayes else "."),)

    def grid(self) -> Grid:
        """Return the cells.

        Returns
        -------
        Grid
            Sections of coefficients, variance parameters and statistics.
        """
        width = len(self.names)
        rows: list[tuple[str, ...]] = []
        parts = []
        kinds = self.estimates.index.get_level_values("kind")
        for title, wanted in SECTIONS:
            chosen = np.flatnonzero(kinds.isin(wanted))
            if len(chosen):
                parts.append(len(rows))
                rows.append((title, *[""] * width))
                rows += [self._parameter_row(int(i)) for i in chosen]
        parts.append(len(rows))
        rows.append(("Fit", *[""] * width))
        if self.engines != self.names:
            rows.append(("Estimation", *self.engines))
        rows += [self._statistic_row(str(name)) for name in self.statistics.index]
        return Grid(("", *self.names), tuple(rows), "l" + "r" * width, parts=tuple(parts))

    def _parameter_row(self, i: int) -> tuple[str, ...]:
        sides = [self.spread] if self.show == "se" else [self.lower, self.upper] if self.show == "interval" else []
        values = self.estimates.iloc[i].to_numpy(dtype=float)
        others = [side.iloc[i].to_numpy(dtype=float) for side in sides]
        numbers = np.concatenate([values, *others]) if self.show == "se" else values
        decimals = shared_decimals(numbers.tolist(), self.digits)
        cells = [self._cell(value, [other[j] for other in others], decimals) for j, value in enumerate(values)]
        return (str(self.estimates.index[i][1]), *cells)

    def _cell(self, value: float, others: Sequence[float], decimals: int | None) -> str:
        if np.isnan(value):
            return ""
        text = format_number(value, decimals, self.digits)
        inside = [format_number(other, decimals, self.digits) for other in others if np.isfinite(other)]
        if not others:
            return text
        if self.show == "interval":
            return f"{text} [{', '.join(inside)}]" if len(inside) == 2 else text
        return f"{text} ({inside[0]})" if inside else f"{text} (–)"

    def _statistic_row(self, name: str) -> tuple[str, ...]:
        values: list[float] = self.statistics.to_numpy()[self.statistics.index.get_loc(name)].tolist()
        whole = name == "Observations" or name.startswith("Levels of")
        decimals = 2 if np.nanmax(np.abs(values), initial=0.0) >= 10 else 4
        cells = [
            "" if np.isnan(value) else format_count(value) if whole else format_number(value, decimals)
            for value in values
        ]
        return (name, *cells)

    def to_text(self) -> str:
        """Return the table as plain text.

        Returns
        -------
        str
            The lines, with the notes.
        """
        return "\n".join([self.grid().text(gap="  "), *self.notes])

    def to_html(self) -> str:
        """Return the table as an HTML fragment that brings its own style.

        Returns
        -------
        str
            A ``<style>`` and a ``<table>`` element, then the notes.
        """
        return STYLE + self.grid().html() + notes_html(self.notes)

    def to_latex(self, caption: str = "", label: str = "") -> str:
        """Return the table in LaTeX's booktabs style.

        Parameters
        ----------
        caption, label : str, default ""
            Title, and name for references.

        Returns
        -------
        str
            A ``tabular``, inside a ``table`` if there is a caption or label.
        """
        return self.grid().latex(caption, label)

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
            One row per parameter; columns by result, each with estimate, se, lower and upper.
        """
        parts = {"estimate": self.estimates, "se": self.spread, "lower": self.lower, "upper": self.upper}
        frame = pd.concat(parts, axis=1).swaplevel(axis=1)
        return frame[[(name, part) for name in self.names for part in parts]]

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()


def table(
    *fits: Fit,
    names: Sequence[str] | None = None,
    show: Show = "se",
    level: float = 0.95,
    digits: int = 3,
    statistics: Mapping[str, Callable[[Any], float]] | None = None,
) -> SideBySide:
    """Put several results side by side, whichever engine computed them.

    Parameters
    ----------
    *fits : Fit
        REML, ML and Laplace fits, posteriors, in any mixture.
    names : sequence of str, optional
        What to call them; numbered, or by engine where the engines differ, when absent.
    show : {"se", "interval", "none"}, default "se"
        What stands in brackets behind an estimate.
    level : float, default 0.95
        Coverage of the intervals.
    digits : int, default 3
        Significant digits of the smallest number in a row.
    statistics : mapping of str to callable, optional
        Further rows: a name, and a function from a result to a number.

    Returns
    -------
    SideBySide
        Prints as text, HTML, LaTeX and Markdown.

    Raises
    ------
    ComparisonError
        If there is nothing to show, or the names do not match.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> sleep = blm.datasets.load("sleepstudy")
    >>> m1 = blm.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    >>> m2 = blm.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> print(blm.table(m1, m2, names=["intercept", "slope"], statistics={"ICC": lambda fit: fit.icc().adjusted}))
                                       intercept            slope
    Fixed effects
    Intercept                      251.41 (9.75)    251.41 (6.82)
    Days                          10.467 (0.804)   10.467 (1.546)
    Standard deviations and correlations
    sd_Subject[Intercept]           37.12 (6.81)     24.74 (5.84)
    sd_Subject[Days]                                  5.92 (1.25)
    corr_Subject[Intercept,Days]                  0.0656 (0.3250)
    sigma                           30.99 (1.73)     25.59 (1.51)
    Fit
    Estimation                              REML             REML
    Observations                             180              180
    Levels of Subject                         18               18
    Log-likelihood                       -893.23          -871.81
    AIC                                  1794.47          1755.63
    BIC                                  1807.24          1774.79
    REML criterion                       1786.47          1743.63
    ICC                                   0.5893           0.7217
    In brackets: standard errors.
    """
    if not fits:
        raise ComparisonError("there is nothing to put into a table: pass one or more results.")
    if show not in ("se", "interval", "none"):
        raise ComparisonError(f'show={show!r} is not one of "se", "interval", "none".')
    labels = _labels(fits, names)
    frames = dict(zip(labels, (fit.parameter_frame(level) for fit in fits), strict=True))
    order = _merged_order(list(frames.values()))
    aligned = {label: frame.reindex(order.get_level_values("name")) for label, frame in frames.items()}
    columns = {
        part: pd.DataFrame({label: frame[part].to_numpy(dtype=float) for label, frame in aligned.items()}, index=order)
        for part in ("estimate", "se", "lower", "upper")
    }
    return SideBySide(
        names=tuple(labels),
        engines=tuple(fit.engine for fit in fits),
        estimates=columns["estimate"],
        spread=columns["se"],
        lower=columns["lower"],
        upper=columns["upper"],
        statistics=_statistics(fits, labels, statistics or {}),
        show=show,
        level=level,
        digits=digits,
    )


def _labels(fits: Sequence[Fit], names: Sequence[str] | None) -> list[str]:
    if names is None:
        engines = [fit.engine for fit in fits]
        return engines if len(set(engines)) == len(fits) else [f"({i})" for i in range(1, len(fits) + 1)]
    labels = [str(name) for name in names]
    if len(labels) != len(fits) or len(set(labels)) != len(labels):
        raise ComparisonError(f"{len(fits)} results need {len(fits)} different names, not {labels!r}.")
    return labels


def _merged_order(frames: Sequence[pd.DataFrame]) -> pd.MultiIndex:
    """Return all parameters, coefficients first, each where the first result that has it puts it."""
    kinds: dict[str, str] = {}
    order: list[str] = []
    for frame in frames:
        at = 0
        for name, kind in frame["kind"].items():
            if name in kinds:
                at = order.index(str(name)) + 1
            else:
                kinds[str(name)] = kind
                order.insert(at, str(name))
                at += 1
    rank = {kind: i for i, (_, group) in enumerate(SECTIONS) for kind in group}
    order.sort(key=lambda name: (rank.get(kinds[name], len(SECTIONS)), kinds[name] in ("sigma", "aux")))
    return pd.MultiIndex.from_tuples([(kinds[name], name) for name in order], names=["kind", "name"])


def _statistics(
    fits: Sequence[Fit], labels: Sequence[str], further: Mapping[str, Callable[[Any], float]]
) -> pd.DataFrame:
    columns = {}
    for label, fit in zip(labels, fits, strict=True):
        row = fit.glance().iloc[0]
        values = {"Observations": float(row["nobs"])}
        values |= {f"Levels of {factor.name}": float(len(factor.members)) for factor in fit.design.factors}
        others = row.drop(labels=["nobs", *LEFT_OUT], errors="ignore")
        values |= {STATISTIC_NAMES.get(str(name), str(name)): float(value) for name, value in others.items()}
        columns[label] = values | {name: float(function(fit)) for name, function in further.items()}
    order = list(dict.fromkeys(name for values in columns.values() for name in values))
    order.sort(key=lambda name: (name != "Observations", not name.startswith("Levels of"), name in further))
    return pd.DataFrame(columns, index=order, dtype=float)[list(labels)]
