"""Formulae built once and written twice: as LaTeX for documents and notebooks, as MathML for pages without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

LATEX_NAMES = str.maketrans(
    {
        "\\": r"\backslash ",
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"{\sim}",
        "^": r"\hat{\ }",
        " ": r"\ ",
        ":": "{:}",
        "-": r"\text{-}",
    }
)


@dataclass(frozen=True)
class Math:
    r"""A piece of a formula in both languages.

    Parameters
    ----------
    latex : str
        LaTeX for math mode.
    mathml : str
        One MathML element.

    Examples
    --------
    >>> sub(symbol("beta"), number(0))
    Math(latex='\\beta_{0}', mathml='<msub><mi>β</mi><mn>0</mn></msub>')
    """

    latex: str
    mathml: str


GREEK = {
    "alpha": "α",
    "beta": "β",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "nu": "ν",
    "phi": "φ",
    "psi": "ψ",
    "rho": "ρ",
    "epsilon": "ε",
    "sigma": "σ",
}
SIM = Math(r"\sim", '<mo lspace="0.3em" rspace="0.3em">∼</mo>')
EQUALS = Math("=", "<mo>=</mo>")
PLUS = Math("+", "<mo>+</mo>")
MINUS = Math("-", "<mo>−</mo>")
COMMA = Math(r",\ ", '<mo separator="true">,</mo><mspace width="0.25em"/>')
TIMES = Math(r"\,", '<mspace width="0.17em"/>')
QUAD = Math(r"\qquad", '<mspace width="2em"/>')
DOTS = Math(r"\dots", "<mo>…</mo>")
NOT_EQUAL = Math(r"\neq", "<mo>≠</mo>")
TRANSPOSE = Math(r"\top", "<mo>⊤</mo>")
CALLIGRAPHIC_N = Math(r"\mathcal{N}", "<mi>𝒩</mi>")


def symbol(name: str) -> Math:
    """Return a variable: a Greek letter by its name, or a Latin letter.

    Parameters
    ----------
    name : str
        ``"beta"``, ``"i"``.

    Returns
    -------
    Math
        In italics.
    """
    if name in GREEK:
        return Math(f"\\{name}", f"<mi>{GREEK[name]}</mi>")
    return Math(name, f"<mi>{html.escape(name)}</mi>")


def bold(name: str) -> Math:
    """Return a vector's or matrix's letter.

    Parameters
    ----------
    name : str
        A letter, a digit or the name of a Greek letter.

    Returns
    -------
    Math
        In bold.
    """
    if name in GREEK:
        return Math(rf"\boldsymbol{{\{name}}}", f'<mi mathvariant="bold" style="font-weight:bold">{GREEK[name]}</mi>')
    return Math(rf"\mathbf{{{name}}}", f'<mi mathvariant="normal" style="font-weight:bold">{html.escape(name)}</mi>')


def word(text: str) -> Math:
    r"""Return a name as it is written in the data, upright and escaped.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    Math
        The name.

    Examples
    --------
    >>> word("a_b").latex
    '\\mathrm{a\\_b}'
    """
    return Math(rf"\mathrm{{{text.translate(LATEX_NAMES)}}}", f"<mtext>{html.escape(text)}</mtext>")


def operator(name: str) -> Math:
    """Return the name of a function, upright.

    Parameters
    ----------
    name : str
        ``"logit"``.

    Returns
    -------
    Math
        The name.
    """
    return Math(rf"\operatorname{{{name}}}", f'<mi mathvariant="normal">{html.escape(name)}</mi>')


def number(value: float) -> Math:
    r"""Return a number with up to four significant digits (all of an integer's).

    Parameters
    ----------
    value : float
        The number.

    Returns
    -------
    Math
        Powers of ten are written as such.

    Examples
    --------
    >>> number(2287).latex, number(22.4567).latex, number(-1.5e-07).latex
    ('2287', '22.46', '-1.5 \\times 10^{-7}')
    """
    text = str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    mantissa, _, exponent = text.partition("e")
    sign, digits = ("<mo>−</mo>", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    written = f"<mn>{digits}</mn>" if not sign else f"<mrow>{sign}<mn>{digits}</mn></mrow>"
    if not exponent:
        return Math(mantissa, written)
    power = int(exponent)
    return Math(
        rf"{mantissa} \times 10^{{{power}}}",
        f"<mrow>{written}<mo>×</mo><msup><mn>10</mn><mn>{str(power).replace('-', '−')}</mn></msup></mrow>",
    )


def row(*parts: Math) -> Math:
    """Return parts one after the other.

    Parameters
    ----------
    *parts : Math
        The parts.

    Returns
    -------
    Math
        One element.
    """
    return Math(" ".join(part.latex for part in parts), f"<mrow>{''.join(part.mathml for part in parts)}</mrow>")


def row_tight(*parts: Math) -> Math:
    """Return parts without blanks between them, to be one name.

    Parameters
    ----------
    *parts : Math
        The parts.

    Returns
    -------
    Math
        One element.
    """
    return Math("".join(part.latex for part in parts), f"<mrow>{''.join(part.mathml for part in parts)}</mrow>")


def sub(base: Math, *index: Math) -> Math:
    """Return a base with a lower index.

    Parameters
    ----------
    base : Math
        What is indexed.
    *index : Math
        Indices, parted by commas.

    Returns
    -------
    Math
        The indexed base.
    """
    inside = _joined(index)
    return Math(f"{base.latex}_{{{inside.latex}}}", f"<msub>{base.mathml}{inside.mathml}</msub>")


def sup(base: Math, power: Math) -> Math:
    """Return a base with a power, which stands above the index if there is one.

    Parameters
    ----------
    base : Math
        What is raised.
    power : Math
        The power.

    Returns
    -------
    Math
        The raised base.
    """
    latex = f"{base.latex}^{{{power.latex}}}"
    if base.mathml.startswith("<msub>"):
        inside = base.mathml.removeprefix("<msub>").removesuffix("</msub>")
        return Math(latex, f"<msubsup>{inside}{power.mathml}</msubsup>")
    return Math(latex, f"<msup>{base.mathml}{power.mathml}</msup>")


def squared(base: Math) -> Math:
    """Return the square.

    Parameters
    ----------
    base : Math
        What is squared.

    Returns
    -------
    Math
        The square.
    """
    return sup(bracketed(base) if r"\times" in base.latex else base, number(2))


def bracketed(inside: Math) -> Math:
    """Return what is given in round brackets, as high as a matrix if it holds one.

    Parameters
    ----------
    inside : Math
        What stands between the brackets.

    Returns
    -------
    Math
        The brackets and what they hold.
    """
    if "pmatrix" in inside.latex:
        return Math(rf"\left({inside.latex}\right)", f"<mrow><mo>(</mo>{inside.mathml}<mo>)</mo></mrow>")
    return Math(f"({inside.latex})", f"<mrow>{_fence('(')}{inside.mathml}{_fence(')')}</mrow>")


def _fence(character: str) -> str:
    return f'<mo stretchy="false">{character}</mo>'


def bar(base: Math) -> Math:
    """Return a base under a bar: its mean.

    Parameters
    ----------
    base : Math
        What is averaged.

    Returns
    -------
    Math
        The base with a bar.
    """
    return Math(rf"\bar{{{base.latex}}}", f'<mover accent="true">{base.mathml}<mo>¯</mo></mover>')


def at(name: Math, index: str) -> Math:
    """Return ``name[index]``.

    Parameters
    ----------
    name : Math
        A grouping factor.
    index : str
        A letter.

    Returns
    -------
    Math
        The name with its index in square brackets.
    """
    letter = symbol(index)
    return Math(f"{name.latex}[{letter.latex}]", f"<mrow>{name.mathml}{_fence('[')}{letter.mathml}{_fence(']')}</mrow>")


def call(function: Math, *arguments: Math) -> Math:
    """Return ``function(arguments)``.

    Parameters
    ----------
    function : Math
        Its name.
    *arguments : Math
        What stands between the brackets, parted by commas.

    Returns
    -------
    Math
        The call.
    """
    return row_tight(function, bracketed(_joined(arguments, COMMA)))


def matrix(rows: Sequence[Sequence[Math]]) -> Math:
    """Return a matrix in round brackets.

    Parameters
    ----------
    rows : sequence of sequence of Math
        The elements.

    Returns
    -------
    Math
        The matrix.
    """
    latex = r" \\ ".join(" & ".join(cell.latex for cell in cells) for cells in rows)
    body = "".join(f"<mtr>{''.join(f'<mtd>{cell.mathml}</mtd>' for cell in cells)}</mtr>" for cells in rows)
    return Math(
        rf"\begin{{pmatrix}} {latex} \end{{pmatrix}}", f"<mrow><mo>(</mo><mtable>{body}</mtable><mo>)</mo></mrow>"
    )


def _joined(parts: Sequence[Math], separator: Math | None = None) -> Math:
    separator = separator or Math(",", '<mo separator="true">,</mo>')
    if len(parts) == 1:
        return parts[0]
    pieces = [piece for part in parts for piece in (separator, part)][1:]
    return Math("".join(piece.latex for piece in pieces), f"<mrow>{''.join(piece.mathml for piece in pieces)}</mrow>")
