"""Tables of results: a labelled frame that prints everywhere, and the summary of a fit in lme4's layout."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.report.grid import STYLE, Grid
from bayeslmm.report.numbers import (
    correlation_texts,
    format_count,
    format_number,
    format_numbers,
    format_p,
    shared_decimals,
)
from bayeslmm.report.varcorr import VarCorr

SHARED_SCALE = ("Estimate", "Std. Error")
TEST_STATISTICS = ("t value", "z value", "F value", "Chisq")
RESIDUAL_NAMES = ("Min", "1Q", "Median", "3Q", "Max")
WIDEST_CORRELATION = 20


@dataclass(frozen=True, repr=False)
class Table:
    """A labelled frame that prints as text, HTML, LaTeX and Markdown.

    Parameters
    ----------
    frame : DataFrame
        The numbers. Columns named ``Pr(...)`` or ``p`` are written as p-values.
    title : str, default ""
        Stands above the table.
    notes : tuple of str
        Stand below the table.
    digits : int, default 4
        Significant digits of the smallest number of a column.
    shared : tuple of tuple of str
        Columns in the same unit, written with the same number of decimals.

    Examples
    --------
    >>> frame = pd.DataFrame({"Estimate": [251.405, 10.467], "Std. Error": [6.825, 1.546]}, index=["Intercept", "Days"])
    >>> print(Table(frame))
              Estimate Std. Error
    Intercept  251.405      6.825
    Days        10.467      1.546
    >>> print(Table(frame).to_markdown())
    |  | Estimate | Std. Error |
    | --- | ---: | ---: |
    | Intercept | 251.405 | 6.825 |
    | Days | 10.467 | 1.546 |
    """

    frame: pd.DataFrame
    title: str = ""
    notes: tuple[str, ...] = ()
    digits: int = 4
    shared: tuple[tuple[str, ...], ...] = (SHARED_SCALE,)

    def grid(self) -> Grid:
        """Return the cells.

        Returns
        -------
        Grid
            Row labels first, then one column per column of the frame.
        """
        labels, label_names = _row_labels(self.frame.index)
        columns = [
            format_column(self._scale_of(position), self.frame.iloc[:, position], self.digits)
            for position in range(self.frame.shape[1])
        ]
        align = "l" * len(label_names) + "".join("r" if _is_number(dtype) else "l" for dtype in self.frame.dtypes)
        header = (*label_names, *map(str, self.frame.columns))
        return Grid(header, tuple(zip(*labels, *columns, strict=True)), align)

    def _scale_of(self, position: int) -> pd.DataFrame:
        """Return the columns whose numbers share decimals with the one at `position`."""
        name = self.frame.columns[position]
        for names in self.shared:
            if name in names:
                return self.frame.loc[:, self.frame.columns.isin(names)]
        return self.frame.iloc[:, [position]]

    def to_text(self) -> str:
        """Return the table as plain text, with its title and notes.

        Returns
        -------
        str
            The lines.
        """
        return "\n".join([*([self.title] if self.title else []), self.grid().text(), *self.notes])

    def to_html(self) -> str:
        """Return the table as an HTML fragment that brings its own style.

        Returns
        -------
        str
            A ``<style>`` and a ``<table>`` element, then the notes.
        """
        return STYLE + self.grid().html(self.title) + notes_html(self.notes)

    def to_latex(self, label: str = "") -> str:
        """Return the table in LaTeX's booktabs style.

        Parameters
        ----------
        label : str, default ""
            For a reference from the text.

        Returns
        -------
        str
            A ``tabular``, inside a ``table`` if there is a title or label.
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
            A copy.
        """
        return self.frame.copy()

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()


class Tabular(ABC):
    """A result that shows as a table: text, HTML, LaTeX, Markdown and a frame all come from `table()`."""

    @abstractmethod
    def table(self) -> Table:
        """Return the result as a table."""

    def to_text(self) -> str:
        """Return the table as plain text, with its title and notes.

        Returns
        -------
        str
            The lines.
        """
        return self.table().to_text()

    def to_html(self) -> str:
        """Return the table as an HTML fragment that brings its own style.

        Returns
        -------
        str
            A ``<style>`` and a ``<table>`` element, then the notes.
        """
        return self.table().to_html()

    def to_latex(self, label: str = "") -> str:
        """Return the table in LaTeX's booktabs style.

        Parameters
        ----------
        label : str, default ""
            For a reference from the text.

        Returns
        -------
        str
            A ``tabular``, inside a ``table`` if there is a title or label.
        """
        return self.table().to_latex(label)

    def to_markdown(self) -> str:
        """Return the table as a Markdown pipe table.

        Returns
        -------
        str
            The lines.
        """
        return self.table().to_markdown()

    def to_pandas(self) -> pd.DataFrame:
        """Return the numbers, unrounded.

        Returns
        -------
        DataFrame
            A copy.
        """
        return self.table().to_pandas()

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.to_html()


@dataclass(frozen=True, repr=False)
class Summary:
    """The account of a fit, in the order lme4 users read it.

    Parameters
    ----------
    title : str
        What was fitted and how: "Linear mixed model fit by REML".
    formula : str
        As typed.
    criterion_name : str
        "REML criterion at convergence"; empty if `information` says it all.
    criterion : float or None
        Its value.
    information : mapping of str to float
        AIC, BIC, logLik, deviance, df.resid: printed in one line; may be empty.
    scaled_residuals : ndarray (5,) or None
        Minimum, quartiles and maximum.
    varcorr : VarCorr
        Variance parameters.
    n_obs : int
        Rows used.
    groups : tuple of (str, int, int, float, int)
        Factor, number of levels, and smallest, average and largest group size.
    coefficients : DataFrame
        One row per coefficient; columns as available: Estimate, Std. Error, df, t value or z value, Pr(>|t|).
    coef_corr : DataFrame or None
        Correlation of the coefficients (p, p).
    notes : tuple of str
        Dropped rows and columns, a singular fit, why there are no p-values.
    family : str, default ""
        Family and link, for models that are not Gaussian: "binomial (logit)".
    data_name : str, default ""
        What the data are called, if known.
    """

    title: str
    formula: str
    criterion_name: str
    criterion: float | None
    information: Mapping[str, float]
    scaled_residuals: NDArray[np.float64] | None
    varcorr: VarCorr
    n_obs: int
    groups: tuple[tuple[str, int, int, float, int], ...]
    coefficients: pd.DataFrame
    coef_corr: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    family: str = ""
    data_name: str = field(default="")

    def to_text(self) -> str:
        """Return the summary as plain text.

        Returns
        -------
        str
            Sections parted by blank lines, in lme4's order.
        """
        sections = [
            "\n".join([self.title, *self._model_lines()]),
            self._criterion_line(),
            self._information_grid().text() if self.information else "",
            self._residual_section(),
            "\n".join(["Random effects:", str(self.varcorr), *self._count_lines()]),
            "Fixed effects:\n" + self._coefficient_table().grid().text(),
            self._correlation_section(),
            "\n".join(self.notes),
        ]
        return "\n\n".join(section for section in sections if section)

    def to_html(self) -> str:
        """Return the summary as an HTML fragment that brings its own style.

        Returns
        -------
        str
            Headings, tables and notes, all escaped.
        """
        return STYLE + "".join(self._html_sections())

    def to_pandas(self) -> pd.DataFrame:
        """Return the coefficients, unrounded.

        Returns
        -------
        DataFrame
            A copy.
        """
        return self.coefficients.copy()

    def to_latex(self, label: str = "") -> str:
        """Return the coefficients and the variance parameters as two LaTeX tables.

        Parameters
        ----------
        label : str, default ""
            For a reference to the coefficients.

        Returns
        -------
        str
            LaTeX in booktabs style.
        """
        return (
            self._coefficient_table().grid().latex("Fixed effects", label)
            + "\n\n"
            + self.varcorr.grid().latex("Random effects")
        )

    def to_markdown(self) -> str:
        """Return the coefficients and the variance parameters as two Markdown tables.

        Returns
        -------
        str
            Pipe tables with headings.
        """
        return (
            f"**Fixed effects**\n\n{self._coefficient_table().to_markdown()}\n\n"
            f"**Random effects**\n\n{self.varcorr.grid().markdown()}"
        )

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def _model_lines(self) -> list[str]:
        lines = [f" Family: {self.family}"] if self.family else []
        lines.append(f"Formula: {self.formula}")
        return [*lines, f"   Data: {self.data_name}"] if self.data_name else lines

    def _criterion_line(self) -> str:
        return "" if self.criterion is None else f"{self.criterion_name}: {self.criterion:.2f}"

    def _information_grid(self) -> Grid:
        cells = tuple(
            format_count(value) if name == "df.resid" else f"{value:.1f}" for name, value in self.information.items()
        )
        return Grid(tuple(self.information), (cells,), "r" * len(cells))

    def _residual_grid(self) -> Grid:
        quantiles = np.asarray(self.scaled_residuals, dtype=float)
        decimals = 4 if np.max(np.abs(quantiles)) < 10 else 3
        return Grid(RESIDUAL_NAMES, (tuple(format_numbers(quantiles, decimals=decimals)),), "rrrrr")

    def _residual_section(self) -> str:
        return "" if self.scaled_residuals is None else "Scaled residuals:\n" + self._residual_grid().text()

    def _count_lines(self) -> list[str]:
        levels = "; ".join(f"{factor}, {format_count(count)}" for factor, count, *_ in self.groups)
        first = f"Number of obs: {format_count(self.n_obs)}" + (f", groups: {levels}" if levels else "")
        return [first, f"Group sizes (min, mean, max): {self._size_text()}"] if self.groups else [first]

    def _size_text(self) -> str:
        return "; ".join(
            f"{factor} {format_count(low)}, {mean:,.1f}, {format_count(high)}"
            for factor, _, low, mean, high in self.groups
        )

    def _coefficient_table(self) -> Table:
        return Table(self.coefficients)

    def _correlation_grid(self) -> Grid | None:
        if self.coef_corr is None or not 1 < len(self.coef_corr) <= WIDEST_CORRELATION:
            return None
        names = tuple(map(str, self.coef_corr.index))
        triangle = correlation_texts(self.coef_corr.to_numpy(), 3)[1:]
        rows = tuple((name, *cells) for name, cells in zip(names[1:], triangle, strict=True))
        return Grid(("", *abbreviate(names[:-1])), rows)

    def _correlation_section(self) -> str:
        grid = self._correlation_grid()
        return "" if grid is None else "Correlation of Fixed Effects:\n" + grid.text()

    def _html_sections(self) -> list[str]:
        correlation = self._correlation_grid()
        lines = [html.escape(line.strip()) for line in (*self._model_lines(), self._criterion_line()) if line]
        return [
            f"<p><b>{html.escape(self.title)}</b><br>{'<br>'.join(lines)}</p>",
            self._information_grid().html() if self.information else "",
            "" if self.scaled_residuals is None else self._residual_grid().html("Scaled residuals"),
            self.varcorr.grid().html("Random effects"),
            f"<p>{'<br>'.join(map(html.escape, self._count_lines()))}</p>",
            self._coefficient_table().grid().html("Fixed effects"),
            "" if correlation is None else correlation.html("Correlation of fixed effects"),
            notes_html(self.notes),
        ]


def notes_html(notes: Sequence[str]) -> str:
    """Return notes as one HTML paragraph per note.

    Parameters
    ----------
    notes : sequence of str
        Plain text.

    Returns
    -------
    str
        Escaped paragraphs.

    Examples
    --------
    >>> notes_html(["3 rows < 4"])
    '<p>3 rows &lt; 4</p>'
    """
    return "".join(f"<p>{html.escape(note).replace(chr(10), '<br>')}</p>" for note in notes)


def format_column(scale: pd.DataFrame, column: pd.Series, digits: int = 4) -> list[str]:
    """Return the cells of one column as text, by what the column holds.

    Parameters
    ----------
    scale : DataFrame
        All columns that share decimals with it, itself included.
    column : Series
        The column.
    digits : int, default 4
        Significant digits of the smallest number.

    Returns
    -------
    list of str
        One text per row.

    Examples
    --------
    >>> counts = pd.Series([1000, 20], name="n")
    >>> format_column(counts.to_frame(), counts)
    ['1,000', '20']
    """
    name = str(column.name)
    if not _is_number(column.dtype):
        return ["" if value is None or value is pd.NA or value != value else str(value) for value in column]
    values = column.to_numpy(dtype=float, na_value=np.nan)
    if name.startswith("Pr(") or name in ("p", "p value", "p-value"):
        return [format_p(value) for value in values]
    if pd.api.types.is_integer_dtype(column.dtype):
        return ["" if np.isnan(value) else format_count(value) for value in values]
    numbers = scale.to_numpy(dtype=float, na_value=np.nan).ravel()
    if name in TEST_STATISTICS:
        return format_numbers(values, digits, most=digits - 1)
    decimals = shared_decimals(numbers, digits)
    return [format_number(value, decimals, digits) for value in values]


def _is_number(dtype: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype))


def abbreviate(names: Sequence[str], length: int = 6) -> tuple[str, ...]:
    """Shorten names for the head of a correlation table, keeping them distinct.

    Parameters
    ----------
    names : sequence of str
        Distinct names.
    length : int, default 6
        Wanted length; exceeded where names would become equal.

    Returns
    -------
    tuple of str
        Lower-case vowels go first, then lower-case letters, from the end; then the tail is cut.

    Examples
    --------
    >>> abbreviate(["Intercept", "period[T.2]", "IQ"])
    ('Intrcp', 'p[T.2]', 'IQ')
    """
    while True:
        short = tuple(_abbreviated(name, length) for name in names)
        if len(set(short)) == len(set(names)) or length > max(map(len, names)):
            return short
        length += 1


def _abbreviated(name: str, length: int) -> str:
    for droppable in ("aeiou", "abcdefghijklmnopqrstuvwxyz"):
        for position in range(len(name) - 1, 0, -1):
            if len(name) <= length:
                return name
            if name[position] in droppable:
                name = name[:position] + name[position + 1 :]
    return name[:length]


def _row_labels(index: pd.Index) -> tuple[list[list[str]], tuple[str, ...]]:
    """Return the row labels as columns of text, and what those columns are called."""
    columns = [[str(label) for label in index.get_level_values(level)] for level in range(index.nlevels)]
    return columns, tuple("" if name is None else str(name) for name in index.names)
