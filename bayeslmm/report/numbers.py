"""Numbers as text: one rule for how many decimals a column shows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

MOST_DECIMALS = 7
SMALLEST_P = 2.2e-16
ROUNDING = 1e-12


def shared_decimals(
    values: Iterable[float], significant: int = 4, most: int = MOST_DECIMALS, trim: bool = True
) -> int | None:
    """Return the decimals at which the smallest number still shows `significant` digits, as R does.

    Parameters
    ----------
    values : iterable of float
        Numbers of one column; what is not finite, zero, or rounding error beside the largest does not count.
    significant : int, default 4
        Significant digits of the smallest number.
    most : int, default 7
        Upper limit.
    trim : bool, default True
        Leave out decimals that every number, rounded to `significant` digits, can do without.

    Returns
    -------
    int or None
        The number of decimals; None where even `most` decimals would hide the smallest number.

    Examples
    --------
    >>> shared_decimals([251.405, 6.8246, 10.467, 1.5458])
    3
    >>> shared_decimals([2.0, 12.5])
    1
    """
    finite = [abs(value) for value in values if math.isfinite(value)]
    magnitudes = [magnitude for magnitude in finite if magnitude > ROUNDING * max(finite)]
    if not magnitudes:
        return 0
    exponent = math.floor(math.log10(min(magnitudes)))
    if -exponent > most:
        return None
    needed = min(max(significant - 1 - exponent, 0), most)
    if not trim:
        return needed
    return max(min(_needed_decimals(magnitude, significant), needed) for magnitude in magnitudes)


def _needed_decimals(magnitude: float, significant: int) -> int:
    """Return the decimals of a number rounded to so many significant digits, without zeros at the end."""
    mantissa, _, exponent = f"{magnitude:.{significant - 1}e}".partition("e")
    digits = mantissa.replace(".", "").rstrip("0")
    return max(len(digits) - 1 - int(exponent), 0)


def format_numbers(
    values: Iterable[float], significant: int = 4, decimals: int | None = None, most: int = MOST_DECIMALS
) -> list[str]:
    """Return numbers of one column as text with the same decimals.

    Parameters
    ----------
    values : iterable of float
        The numbers; missing ones become an empty text.
    significant : int, default 4
        Significant digits of the smallest number.
    decimals : int, optional
        Fixes the decimals instead.
    most : int, default 7
        Upper limit of the decimals.

    Returns
    -------
    list of str
        One text per number.

    Examples
    --------
    >>> format_numbers([612.1, 35.07166, float("nan")])
    ['612.10', '35.07', '']
    """
    numbers = [float(value) for value in values]
    if decimals is None:
        decimals = shared_decimals(numbers, significant, most)
    return [format_number(number, decimals, significant) for number in numbers]


def format_number(value: float, decimals: int | None, significant: int = 4) -> str:
    """Return one number as text; an empty text if it is missing.

    Parameters
    ----------
    value : float
        The number.
    decimals : int or None
        Decimals; None chooses the shortest form with `significant` digits.
    significant : int, default 4
        Used where `decimals` is None.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> format_number(-0.00001, 3), format_number(1234567.0, None)
    ('0.000', '1.235e+06')
    """
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    text = f"{value:.{significant}g}" if decimals is None else f"{value:.{decimals}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def format_p(value: float) -> str:
    """Return a p-value as text.

    Parameters
    ----------
    value : float
        Between 0 and 1, or missing.

    Returns
    -------
    str
        Four decimals, three digits with an exponent below 0.0001, or ``"<2e-16"``.

    Examples
    --------
    >>> format_p(0.0341), format_p(3.264e-06), format_p(0.0)
    ('0.0341', '3.26e-06', '<2e-16')
    """
    if math.isnan(value):
        return ""
    if value < SMALLEST_P:
        return "<2e-16"
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.2e}"


def format_count(value: float) -> str:
    """Return a count with commas between thousands.

    Parameters
    ----------
    value : float
        The count.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> format_count(73421)
    '73,421'
    """
    return f"{int(value):,}"


def align_decimal_points(texts: Iterable[str], space: str = " ", point: str = " ") -> list[str]:
    """Pad numbers on the right so that their decimal points stand below each other when aligned right.

    Parameters
    ----------
    texts : iterable of str
        Formatted numbers.
    space : str, default " "
        Stands for a missing digit; a figure space in HTML.
    point : str, default " "
        Stands for a missing decimal point; a punctuation space in HTML.

    Returns
    -------
    list of str
        The padded texts.

    Examples
    --------
    >>> align_decimal_points(["251.4", "0.066", "7"])
    ['251.4  ', '0.066', '7    ']
    """
    texts = list(texts)
    tails = [len(text.partition(".")[2]) for text in texts]
    longest = max(tails, default=0)
    has_point = any("." in text for text in texts)
    return [
        text + (point if has_point and "." not in text else "") + space * (longest - tail)
        for text, tail in zip(texts, tails, strict=True)
    ]


def correlation_texts(corr: np.ndarray, decimals: int) -> list[list[str]]:
    """Return the lower triangle of a correlation matrix as text, without the diagonal.

    Parameters
    ----------
    corr : ndarray (k, k)
        Correlations.
    decimals : int
        Decimals shown.

    Returns
    -------
    list of list of str
        k rows of k - 1 cells, empty above the diagonal.

    Examples
    --------
    >>> correlation_texts(np.array([[1.0, 0.066], [0.066, 1.0]]), 2)
    [[''], ['0.07']]
    """
    k = len(corr)
    return [[format_number(corr[i, j], decimals) if j < i else "" for j in range(k - 1)] for i in range(k)]
