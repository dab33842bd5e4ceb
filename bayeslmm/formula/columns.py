"""Columns of model matrices: formulaic expands and codes the terms, over values that we computed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, FormulaError, listing
from bayeslmm.formula.frame import values_of
from bayeslmm.formula.functions import State, Value, evaluate
from bayeslmm.formula.grouping import as_categorical, relevel
from bayeslmm.formula.syntax import (
    Binary,
    Call,
    Group,
    Name,
    Node,
    Number,
    Sum,
    children,
    parse_syntax,
    quote,
    render,
    tokenize,
)

if TYPE_CHECKING:
    from formulaic import ModelSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coding:
    """How columns of data became numbers: levels of every categorical column, states of every stateful function.

    Parameters
    ----------
    levels : mapping of str to tuple of str, or None
        Per column used in an expression: its levels, or None for a numeric column; none at all for text that is only
        compared with constants by an engine, which never told its levels.
    states : mapping
        What centring, scaling and bases learnt, by the text of their call.
    """

    levels: Mapping[str, tuple[str, ...] | None]
    states: State = field(default_factory=dict, repr=False)

    def values(self, frame: pd.DataFrame, names: tuple[str, ...]) -> dict[str, Value]:
        """Return columns of new data in the coding of the fitted data.

        Parameters
        ----------
        frame : DataFrame
            New data, without missing values.
        names : tuple of str
            Columns.

        Returns
        -------
        dict of str to ndarray (n,) or Categorical
            The values.

        Raises
        ------
        DataError
            If a column holds text where it held numbers, or a level the fitted data did not have.
        """
        return {name: self._value(frame[name], name) for name in names}

    def _value(self, series: pd.Series, name: str) -> Value:
        value = values_of(series, name)
        levels = self.levels[name]
        if levels is not None:
            if not isinstance(value, pd.Categorical):
                value = as_categorical(value)
            return relevel(value, levels, name) if levels else value
        if isinstance(value, pd.Categorical):
            raise DataError(f"column {name!r} held numbers in the fitted data and holds text or categories here.")
        return value


def learn(frame: pd.DataFrame, names: tuple[str, ...]) -> tuple[Coding, dict[str, Value]]:
    """Read columns of the data to be fitted.

    Parameters
    ----------
    frame : DataFrame
        Data without missing values.
    names : tuple of str
        Columns used in expressions.

    Returns
    -------
    coding : Coding
        How to read the same columns of new data.
    values : dict of str to ndarray (n,) or Categorical
        The values.

    Raises
    ------
    DataError
        If a level has a name that formulaic reserves.

    Examples
    --------
    >>> coding, values = learn(pd.DataFrame({"f": ["b", "a"]}), ("f",))
    >>> coding.levels
    {'f': ('a', 'b')}
    """
    columns = dict(frame.items())  # one by one they would be looked up in an index of text
    values = {name: values_of(columns[name], name) for name in names}
    levels = {
        name: tuple(value.categories.tolist()) if isinstance(value, pd.Categorical) else None
        for name, value in values.items()
    }
    for name, found in levels.items():
        reserved = [level for level in found or () if level.startswith("__")]
        if reserved:
            raise DataError(
                f"column {name!r} has the level {reserved[0]!r}; formulaic leaves out levels that begin with two "
                "underscores.\n  Rename it."
            )
    return Coding(levels), values


@dataclass(frozen=True)
class Matrix:
    """A model matrix and what is needed to build it again from other rows.

    Parameters
    ----------
    values : ndarray (n, k)
        The columns.
    names : tuple of str
        Their names, as formulaic gives them.
    recipe : Recipe
        How they were made.
    """

    values: Floats
    names: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Recipe:
    """Terms of a right-hand side and formulaic's record of how it coded them.

    Parameters
    ----------
    side : str
        The right-hand side, intercept rule first, without `.`.
    text : str
        The formula, for carets.
    atoms : mapping of str to Node
        Label of each factor and the expression behind it.
    spec : ModelSpec
        formulaic's record.
    """

    side: str
    text: str = field(repr=False)
    atoms: Mapping[str, Node] = field(repr=False)
    spec: ModelSpec = field(repr=False)

    def apply(
        self, values: Mapping[str, Value], states: State, n: int, *, given: Mapping[str, Any] | None = None
    ) -> Floats:
        """Build the same columns from other rows.

        Parameters
        ----------
        values : mapping of str to ndarray (n,) or Categorical
            Columns in the coding of the fitted data.
        states : mapping
            What stateful functions learnt.
        n : int
            Rows.
        given : mapping of str to array, optional
            Values of factors that were computed elsewhere, by label.

        Returns
        -------
        ndarray (n, k)
            The columns.
        """
        known = {} if given is None else given
        rest = {name: node for name, node in self.atoms.items() if name not in known}
        matrix = _materialise(self.spec, {**known, **_context(rest, values, states, n, self.text)}, n)
        return _as_floats(matrix, tuple(self.spec.column_names), n)


def model_matrix(
    side: str,
    values: Mapping[str, Value],
    states: State,
    n: int,
    *,
    text: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Matrix:
    """Build the columns of a right-hand side.

    Parameters
    ----------
    side : str
        Right-hand side, intercept rule first, `.` already expanded.
    values : mapping of str to ndarray (n,) or Categorical
        Columns of the data.
    states : mapping
        Filled with what stateful functions learn.
    n : int
        Rows.
    text : str, optional
        The whole formula, for carets; the right-hand side when absent.
    given : mapping of str to array, optional
        Values of factors that were computed elsewhere, by label.

    Returns
    -------
    Matrix
        Values, names and recipe.

    Raises
    ------
    DataError
        If a function gives numbers that are not finite, or a basis cannot be computed.

    Examples
    --------
    >>> model_matrix("1 + x", {"x": np.array([1.0, 2.0])}, {}, 2).names
    ('Intercept', 'x')
    """
    tree = parse_syntax(side)
    text = side if text is None else text
    atoms = {_label(node): node for node in _factors(tree)}
    if not atoms:
        row, names, spec = _constant(side)
        return Matrix(np.repeat(row, n, axis=0), names, Recipe(side, text, atoms, spec))
    known = {} if given is None else given
    rest = {name: node for name, node in atoms.items() if name not in known}
    context = {**known, **_context(rest, values, states, n, text)}
    placeholders = {label: f"x{position}" for position, label in enumerate(atoms)}
    terms = _terms(_skeleton(tree, placeholders), tuple(atoms))
    matrix = _materialise(terms, context, n)
    spec = matrix.model_spec
    names = tuple(spec.column_names)
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"two columns of the model would be called {twice!r}. Rename a column of the data.")
    return Matrix(_as_floats(matrix, names, n), names, Recipe(side, text, atoms, spec))


@lru_cache(maxsize=64)
def _constant(side: str) -> tuple[Floats, tuple[str, ...], ModelSpec]:
    """Return the row (1, k) that is every row of a side without factors, its names and formulaic's record."""
    matrix = _materialise(_terms(_skeleton(parse_syntax(side), {}), ()), {}, 1)
    names = tuple(matrix.model_spec.column_names)
    return _as_floats(matrix, names, 1), names, matrix.model_spec


def _label(node: Node) -> str:
    """Return the name of a factor; a column called `1` keeps its quotes, 1 being the intercept."""
    return render(node, quoted=node == Name("1", node.span))


def _factors(node: Node) -> Iterator[Node]:
    """Yield the names and calls that terms are made of."""
    if isinstance(node, Name | Call):
        yield node
    else:
        for child in children(node):
            yield from _factors(child)


@lru_cache(maxsize=256)
def _terms(skeleton: str, labels: tuple[str, ...]) -> Any:
    """Let formulaic expand terms over placeholders: its parser, which can run code, sees no word of the user's."""
    from formulaic import Formula
    from formulaic.parser import DefaultFormulaParser
    from formulaic.parser.types import Factor, Term

    expanded = Formula(skeleton, _parser=DefaultFormulaParser(include_intercept=False))
    factors = {f"x{position}": Factor(label, eval_method="lookup") for position, label in enumerate(labels)}
    return Formula([Term([factors.get(factor.expr, factor) for factor in term.factors]) for term in expanded])


def _skeleton(node: Node, placeholders: Mapping[str, str]) -> str:
    """Return the terms of a right-hand side with a placeholder for every factor."""
    match node:
        case Number(digits):
            return digits
        case Name() | Call():
            return placeholders[_label(node)]
        case Group(inner):
            return f"({_skeleton(inner, placeholders)})"
        case Sum(parts):
            rest = "".join(f" {sign} {_skeleton(part, placeholders)}" for sign, part in parts[1:])
            return _skeleton(parts[0][1], placeholders) + rest
        case Binary(operator, left, right):
            return f"{_skeleton(left, placeholders)} {operator} {_skeleton(right, placeholders)}"
    raise AssertionError(node)  # check_terms let only the above through


def _context(
    atoms: Mapping[str, Node], values: Mapping[str, Value], states: State, n: int, text: str
) -> dict[str, Any]:
    return {name: _as_factor(evaluate(node, values, states, text), n) for name, node in atoms.items()}


def side_factors(side: str) -> dict[str, Node]:
    """Return the names and calls that the terms of a right-hand side are made of, by label.

    Parameters
    ----------
    side : str
        Right-hand side.

    Returns
    -------
    dict of str to Node
        In the order of the text.

    Examples
    --------
    >>> list(side_factors("1 + a:log(b)"))
    ['a', 'log(b)']
    """
    return {_label(node): node for node in _factors(parse_syntax(side))}


def _materialise(terms: Any, context: Mapping[str, Any], n: int) -> Any:
    from formulaic.errors import DataMismatchWarning
    from formulaic.materializers import PandasMaterializer

    materializer = PandasMaterializer(pd.DataFrame(index=pd.RangeIndex(n)), context=context)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataMismatchWarning)
        return materializer.get_model_matrix(terms, output="numpy", na_action="ignore")


def _as_factor(value: Any, n: int) -> Any:
    """Give formulaic numbers as float64 and constants as full columns."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.astype(np.float64, copy=False)
        return np.full(n, value[0]) if value.shape != (n,) else value
    return value


def _as_floats(matrix: Any, names: tuple[str, ...], n: int) -> Floats:
    values = np.ascontiguousarray(np.asarray(matrix).reshape(n, len(names)), dtype=np.float64)
    if not np.isfinite(values).all():
        bad = {name: int(count) for name, count in zip(names, (~np.isfinite(values)).sum(axis=0), strict=True) if count}
        shown = listing(f"{name} ({count} row{'s' * (count != 1)})" for name, count in bad.items())
        raise DataError(
            f"not a finite number: {shown}.\n"
            "  A function was taken outside its domain, such as log() of zero or less. Correct the column, or set the\n"
            "  values to NaN to leave the rows out."
        )
    return values


def expand_dot(text: str, names: tuple[str, ...]) -> str:
    """Write out `.` in a right-hand side.

    Parameters
    ----------
    text : str
        Right-hand side.
    names : tuple of str
        Columns that `.` stands for.

    Returns
    -------
    str
        The same without `.`.

    Raises
    ------
    FormulaError
        If there is a `.` and no column is left for it.

    Examples
    --------
    >>> expand_dot("1 + . - b", ("a", "b"))
    '1 + (a + b) - b'
    """
    tokens = tokenize(text)
    dots = [token.span for token in tokens if token.text == "."]
    if not dots:
        return text
    if not names:
        raise FormulaError("'.' stands for the columns not used elsewhere in the formula, and none is left.")
    for name in names:
        if "`" in name:
            raise FormulaError(f"'.' would stand for the column {name!r}, which a formula cannot name. Rename it.")
    written = f"({' + '.join(map(quote, names))})"
    for start, stop in reversed(dots):
        text = text[:start] + written + text[stop:]
    return text
