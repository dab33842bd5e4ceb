"""A grid of ready-made cells, and the four ways to write it: text, HTML, LaTeX, Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from bayeslmm.report.numbers import align_decimal_points

FIGURE_SPACE, POINT_SPACE = "\u2007", "\u2008"

STYLE = (
    "<style>"
    ".blm{border-collapse:collapse;border-top:1.5px solid;border-bottom:1.5px solid;margin:.6em 0;"
    "font-variant-numeric:tabular-nums}"
    ".blm caption{text-align:left;font-weight:600;padding:.2em 0;white-space:nowrap}"
    ".blm th,.blm td{padding:.15em .7em;border:0;text-align:right;white-space:nowrap;background:none}"
    ".blm .l{text-align:left}.blm td.l{white-space:normal;max-width:42em}.blm .c{text-align:center}"
    ".blm thead tr:last-child th{border-bottom:1px solid}.blm th.over{border-bottom:1px solid;text-align:center}"
    ".blm th{font-weight:600}.blm tbody th{font-weight:400}.blm tr.part td{font-weight:600;padding-top:.5em}"
    "</style>"
)

LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\u2007": r"\phantom{0}",
        "\u2008": r"\phantom{.}",
    }
)


def escape_latex(text: str) -> str:
    r"""Return text that LaTeX prints as it is.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        The escaped text.

    Examples
    --------
    >>> escape_latex("100 % of a_b")
    '100 \\% of a\\_b'
    """
    return text.translate(LATEX_ESCAPES)


def escape_markdown(text: str) -> str:
    r"""Return text that a Markdown table prints as it is.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        The escaped text.

    Examples
    --------
    >>> escape_markdown("Pr(>|t|)")
    'Pr(>\\|t\\|)'
    """
    for character in "\\|*_`[]":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;").replace("\n", " ")


@dataclass(frozen=True)
class Grid:
    """Cells with a header; a row whose only filled cell is the first one and `part` marks a section.

    Parameters
    ----------
    header : tuple of str
        Names of the columns.
    rows : tuple of tuple of str
        Cells, as wide as the header.
    align : str
        One letter per column: "l" left, "r" right, "d" right with decimal points below each other.
    over : tuple of (str, int)
        Labels above the header, each with the number of columns it covers.
    parts : tuple of int
        Positions of the rows that are section titles.

    Examples
    --------
    >>> print(Grid(("name", "x"), (("a", "1.5"), ("b", "10"))).text())
    name  x
    a    1.5
    b     10
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str = ""
    over: tuple[tuple[str, int], ...] = ()
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.align:
            object.__setattr__(self, "align", "l" + "r" * (len(self.header) - 1))

    def text(self, indent: str = "", gap: str = " ") -> str:
        """Return the grid as aligned plain text.

        Parameters
        ----------
        indent : str, default ""
            Put before every line.
        gap : str, default " "
            Put between columns.

        Returns
        -------
        str
            The lines, without blanks at their ends.
        """
        columns = self._padded_columns(" ", " ")
        widths = [max(map(len, (name, *cells))) for name, cells in zip(self.header, columns, strict=True)]
        lines = [self._over_line(widths, gap)] if self.over else []
        if any(self.header):
            lines.append(_text_line(self.header, widths, self.align, gap))
        for position, cells in enumerate(zip(*columns, strict=True)):
            lines.append(
                self.rows[position][0] if position in self.parts else _text_line(cells, widths, self.align, gap)
            )
        return "\n".join((indent + line).rstrip() for line in lines)

    def html(self, caption: str = "") -> str:
        """Return the grid as an HTML table; its looks come from `STYLE`.

        Parameters
        ----------
        caption : str, default ""
            Title of the table.

        Returns
        -------
        str
            A ``<table class="blm">`` element with everything escaped.
        """
        title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        head = self._html_over() + _html_row(self.header, self.align, "th") if any(self.header) else ""
        body = []
        columns = self._padded_columns(FIGURE_SPACE, POINT_SPACE)
        for position, cells in enumerate(zip(*columns, strict=True)):
            if position in self.parts:
                body.append(
                    f'<tr class="part"><td class="l" colspan="{len(self.header)}">'
                    f"{html.escape(self.rows[position][0])}</td></tr>"
                )
            else:
                body.append(_html_row(cells, self.align, "td"))
        return f'<table class="blm">{title}<thead>{head}</thead><tbody>{"".join(body)}</tbody></table>'

    def latex(self, caption: str = "", label: str = "") -> str:
        r"""Return the grid as a LaTeX table in booktabs style.

        Parameters
        ----------
        caption : str, default ""
            Title; with it, or with a label, the tabular stands in a ``table`` environment.
        label : str, default ""
            For ``\ref``.

        Returns
        -------
        str
            LaTeX that needs ``\usepackage{booktabs}``.
        """
        width = len(self.header)
        lines = [rf"\begin{{tabular}}{{{self.align.replace('d', 'r')}}}", r"\toprule"]
        if self.over:
            lines.extend(self._latex_over())
        if any(self.header):
            lines.extend([_latex_line(self.header), r"\midrule"])
        for position, cells in enumerate(zip(*self._padded_columns(FIGURE_SPACE, POINT_SPACE), strict=True)):
            if position in self.parts:
                title = escape_latex(self.rows[position][0])
                lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textbf{{{title}}}}} \\")
            else:
                lines.append(_latex_line(cells, self.align))
        lines.extend([r"\bottomrule", r"\end{tabular}"])
        if not (caption or label):
            return "\n".join(lines)
        head = [r"\begin{table}", r"\centering"]
        if caption:
            head.append(rf"\caption{{{escape_latex(caption)}}}")
        if label:
            head.append(rf"\label{{{label}}}")
        return "\n".join([*head, *lines, r"\end{table}"])

    def markdown(self) -> str:
        """Return the grid as a Markdown table.

        Returns
        -------
        str
            A pipe table.
        """
        rules = ["---" if letter == "l" else "---:" for letter in self.align]
        lines = [_markdown_line(self._flat_header()), "| " + " | ".join(rules) + " |"]
        for position, cells in enumerate(self.rows):
            if position in self.parts:
                cells = (f"**{escape_markdown(cells[0])}**", *("" for _ in cells[1:]))
                lines.append("| " + " | ".join(cells) + " |")
            else:
                lines.append(_markdown_line(cells))
        return "\n".join(lines)

    def _padded_columns(self, space: str, point: str) -> list[list[str]]:
        columns: list[list[str]] = []
        for j, letter in enumerate(self.align):
            cells = ["" if i in self.parts else row[j] for i, row in enumerate(self.rows)]
            columns.append(align_decimal_points(cells, space, point) if letter == "d" else cells)
        return columns

    def _spans(self) -> list[tuple[str, int, int]]:
        spans, start = [], 0
        for label, count in self.over:
            spans.append((label, start, start + count))
            start += count
        return spans

    def _flat_header(self) -> tuple[str, ...]:
        names = list(self.header)
        for label, start, stop in self._spans():
            for j in range(start, stop):
                names[j] = f"{label} {names[j]}".strip()
        return tuple(names)

    def _over_line(self, widths: list[int], gap: str) -> str:
        pieces = []
        for label, start, stop in self._spans():
            width = sum(widths[start:stop]) + len(gap) * (stop - start - 1)
            pieces.append(f" {label} ".center(width, "-") if label else " " * width)
        return gap.join(pieces)

    def _html_over(self) -> str:
        if not self.over:
            return ""
        cells = [
            f'<th class="over" colspan="{stop - start}">{html.escape(label)}</th>'
            if label
            else f'<th colspan="{stop - start}"></th>'
            for label, start, stop in self._spans()
        ]
        return f"<tr>{''.join(cells)}</tr>"

    def _latex_over(self) -> list[str]:
        cells, rules = [], []
        for label, start, stop in self._spans():
            cells.append(rf"\multicolumn{{{stop - start}}}{{c}}{{{escape_latex(label)}}}")
            if label:
                rules.append(rf"\cmidrule(lr){{{start + 1}-{stop}}}")
        return [" & ".join(cells) + r" \\", " ".join(rules)]


def _text_line(cells: Sequence[str], widths: Sequence[int], align: str, gap: str) -> str:
    return gap.join(
        cell.ljust(width) if letter == "l" else cell.rjust(width)
        for cell, width, letter in zip(cells, widths, align, strict=True)
    )


def _html_row(cells: Sequence[str], align: str, tag: str) -> str:
    return (
        "<tr>"
        + "".join(
            f'<{tag} class="l">{html.escape(cell)}</{tag}>' if letter == "l" else f"<{tag}>{html.escape(cell)}</{tag}>"
            for cell, letter in zip(cells, align, strict=True)
        )
        + "</tr>"
    )


def _latex_line(cells: Sequence[str], align: str = "") -> str:
    letters = align or "l" * len(cells)
    return " & ".join(map(_latex_cell, cells, letters)) + r" \\"


def _latex_cell(cell: str, letter: str) -> str:
    if letter != "l" and cell.startswith("-"):
        return "$-$" + escape_latex(cell[1:])
    return escape_latex(cell)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"
