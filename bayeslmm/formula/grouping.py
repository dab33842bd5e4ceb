"""Levels and codes of categories and grouping factors; vectorised over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, did_you_mean, listing

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Levels:
    """Which level each row has.

    Parameters
    ----------
    codes : ndarray (n,) of int32
        Position in `labels`; -1 where the value is missing.
    labels : tuple of str
        Levels that occur, in order.
    """

    codes: Codes
    labels: tuple[str, ...]


def label(value: Any) -> str:
    """Return the name of a level.

    Parameters
    ----------
    value : object
        A value of a column; whole floats are named like integers.

    Returns
    -------
    str
        The name.

    Examples
    --------
    >>> label(308.0), label("a"), label(0.5)
    ('308', 'a', '0.5')
    """
    if isinstance(value, float | np.floating):
        return format(float(value), ".15g")
    return str(value)


def factorise(series: pd.Series) -> Levels:
    """Return codes and levels of a column.

    Parameters
    ----------
    series : Series
        Any column. Categories keep their order, unused ones are left out; numbers are ordered as numbers, text as text.

    Returns
    -------
    Levels
        Codes and labels.

    Examples
    --------
    >>> factorise(pd.Series([10, 9, 10])).labels
    ('9', '10')
    >>> factorise(pd.Series(pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"]))).labels
    ('lo', 'hi')
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes = series.cat.codes.to_numpy()
        return _compress(codes, [label(value) for value in series.cat.categories.tolist()])
    if pd.api.types.is_numeric_dtype(series.dtype) or pd.api.types.is_datetime64_any_dtype(series.dtype):
        codes, uniques = pd.factorize(series, sort=True)
        return Levels(codes.astype(np.int32), tuple(label(value) for value in np.asarray(uniques).tolist()))
    codes, uniques = pd.factorize(series)
    return _sorted(codes, uniques.tolist())


def _compress(codes: NDArray[Any], labels: Sequence[str]) -> Levels:
    """Drop levels that do not occur."""
    used = np.bincount(codes[codes >= 0] if codes.size and codes.min() < 0 else codes, minlength=len(labels)) > 0
    if used.all():
        return Levels(codes.astype(np.int32), tuple(labels))
    position = np.append(np.cumsum(used) - 1, -1).astype(np.int32)
    return Levels(position[codes], tuple(name for name, kept in zip(labels, used, strict=True) if kept))


def _sorted(codes: NDArray[Any], values: list[Any]) -> Levels:
    """Order levels of a column of text or of mixed values; values with one name are one level."""
    order = sorted({label(value): _order_key(value) for value in values}.items(), key=lambda item: item[1])
    place = {name: position for position, (name, _) in enumerate(order)}
    position = np.array([*(place[label(value)] for value in values), -1], dtype=np.int32)
    return Levels(position[codes], tuple(place))


def _order_key(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float | np.number):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def as_categorical(values: NDArray[Any] | pd.Series) -> pd.Categorical[Any]:
    """Return a column as categories named by text, in the order of `factorise`.

    Parameters
    ----------
    values : ndarray (n,) or Series
        Any column without missing values.

    Returns
    -------
    Categorical
        Its categories are the labels that occur.

    Examples
    --------
    >>> list(as_categorical(np.array([2.0, 1.0])).categories)
    ['1', '2']
    """
    found = factorise(values if isinstance(values, pd.Series) else pd.Series(values))
    return pd.Categorical.from_codes(found.codes, categories=pd.Index(found.labels))


def relevel(values: pd.Categorical, levels: Sequence[str], name: str) -> pd.Categorical[Any]:
    """Return the same column with the given levels in the given order.

    Parameters
    ----------
    values : Categorical
        The column.
    levels : sequence of str
        Every level it may have.
    name : str
        The column's name, for the message.

    Returns
    -------
    Categorical
        Categories are `levels`.

    Raises
    ------
    DataError
        If the column holds another level.

    Examples
    --------
    >>> relevel(pd.Categorical(["a", "b"]), ["b", "a"], "f").codes.tolist()
    [1, 0]
    """
    codes, strangers = match(Levels(values.codes.astype(np.int32), tuple(values.categories)), levels)
    if strangers:
        rows = int(np.count_nonzero(codes >= len(levels)))
        raise DataError(
            f"{name!r} holds {listing(map(repr, strangers))}, not among its levels ({rows} row{'s' * (rows != 1)}).\n"
            f"  Levels: {listing(levels)}. {did_you_mean(strangers[0], levels)}".rstrip()
            + "\n  A coefficient exists only for these; leave the rows out, or recode them."
        )
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(levels)))


def match(found: Levels, fitted: Sequence[str]) -> tuple[Codes, tuple[str, ...]]:
    """Express levels in terms of those of the fitted data.

    Parameters
    ----------
    found : Levels
        Levels of new data.
    fitted : sequence of str, length J
        Levels of the fitted data.

    Returns
    -------
    codes : ndarray (n,) of int32
        Positions in `fitted`; J, J + 1, ... for the unseen levels, in their order.
    unseen : tuple of str
        Levels that `fitted` lacks and that occur.

    Examples
    --------
    >>> codes, unseen = match(Levels(np.array([0, 1, 1], dtype=np.int32), ("a", "z")), ["b", "a"])
    >>> codes.tolist(), unseen
    ([1, 2, 2], ('z',))
    """
    place = {name: position for position, name in enumerate(fitted)}
    occurring = np.bincount(found.codes[found.codes >= 0], minlength=len(found.labels)) > 0
    unseen = [name for name, occurs in zip(found.labels, occurring, strict=True) if occurs and name not in place]
    place.update((name, len(fitted) + position) for position, name in enumerate(unseen))
    position = np.array([*(place.get(name, -1) for name in found.labels), -1], dtype=np.int32)
    return position[found.codes], tuple(unseen)


def joint_levels(parts: Sequence[Levels], name: str) -> Levels:
    """Combine columns into one grouping factor.

    Parameters
    ----------
    parts : sequence of Levels
        One per column, inner first; no missing values.
    name : str
        The factor's name, for messages.

    Returns
    -------
    Levels
        Combinations that occur, labelled ``"inner:outer"``; the first column varies slowest.

    Raises
    ------
    DataError
        If two combinations would have one label.

    Examples
    --------
    >>> a = Levels(np.array([0, 0, 1]), ("x", "y"))
    >>> b = Levels(np.array([1, 1, 0]), ("1", "2"))
    >>> joint_levels([a, b], "a:b").labels
    ('x:2', 'y:1')
    """
    joint = parts[0]
    for part in parts[1:]:
        width = len(part.labels)
        codes, pairs = pd.factorize(joint.codes.astype(np.int64) * width + part.codes, sort=True)
        labels = tuple(f"{joint.labels[pair // width]}:{part.labels[pair % width]}" for pair in pairs.tolist())
        joint = Levels(codes.astype(np.int32), labels)
    if len(parts) > 1 and len(set(joint.labels)) < len(joint.labels):
        raise DataError(f"levels of {name!r} cannot be told apart, because level names contain ':'. Rename them.")
    return joint


def is_nested(inner: NDArray[np.integer], outer: NDArray[np.integer]) -> bool:
    """Return whether each inner level meets one outer level only.

    Parameters
    ----------
    inner, outer : ndarray (n,) of int
        Codes.

    Returns
    -------
    bool
        True if nested.

    Examples
    --------
    >>> is_nested(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1]))
    True
    >>> is_nested(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1]))
    False
    """
    first = np.zeros(inner.max(initial=-1) + 1, dtype=outer.dtype)
    first[inner] = outer
    return bool(np.array_equal(first[inner], outer))


def sharing(codes: Mapping[str, NDArray[np.integer]], name: str) -> set[str]:
    """Return a grouping factor and every one it is nested in: rows of one of its levels share levels of all these.

    Parameters
    ----------
    codes : mapping of str to ndarray (n,) of int
        Codes of every grouping factor.
    name : str
        One of them.

    Returns
    -------
    set of str
        Names.

    Examples
    --------
    >>> sorted(sharing({"school": np.array([0, 0, 1]), "class": np.array([0, 1, 2])}, "class"))
    ['class', 'school']
    """
    return {other for other, outer in codes.items() if other == name or is_nested(codes[name], outer)}
