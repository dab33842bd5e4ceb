"""Expressions of a formula as expressions of a database engine, through Ibis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bayeslmm.errors import DataError, FormulaError, underline
from bayeslmm.formula.functions import FUNCTIONS, State, _bind_options, locate
from bayeslmm.formula.syntax import Binary, Call, Group, Name, Node, Number, String, Sum, Unary, children, render

_FUNCTIONS = {"log": "ln", "log2": "log2", "log10": "log10", "exp": "exp", "sqrt": "sqrt", "abs": "abs"}
_TRIGONOMETRY = ("sin", "cos", "tan")
MOMENT_FUNCTIONS = ("scale", "standardize", "center")
PUSHED = (*_FUNCTIONS, *_TRIGONOMETRY, "log1p", "expm1", "I", "C", "factor", *MOMENT_FUNCTIONS, "poly(raw=TRUE)")
"""Functions that an engine computes."""


def is_text(table: Any, name: str) -> bool:
    """Return whether a column holds categories.

    Parameters
    ----------
    table : ibis.Table
        The table.
    name : str
        The column.

    Returns
    -------
    bool
        True for text; False for numbers and truth values.

    Raises
    ------
    DataError
        For dates and other types that a formula cannot use.
    """
    kind = table[name].type()
    if kind.is_string():
        return True
    if kind.is_numeric() or kind.is_boolean():
        return False
    raise DataError(
        f"column {name!r} is of type {kind}, which has no scale of its own.\n"
        f"  Compute a number in the engine before, e.g. table.mutate(days=table[{name!r}].epoch_days()); or use it as "
        f"a grouping factor: (1 | {name})."
    )


def moment_calls(node: Node) -> Iterator[Call]:
    """Yield the calls that must know mean or spread, inner ones first.

    Parameters
    ----------
    node : Node
        An expression.

    Yields
    ------
    Call
        `scale`, `standardize` and `center`.
    """
    for child in (node.arguments[0][1],) if isinstance(node, Call) else children(node):
        yield from moment_calls(child)
    if isinstance(node, Call) and node.function in MOMENT_FUNCTIONS:
        yield node


def columns_of(node: Node, table: Any, states: State, text: str) -> list[Any]:
    """Return a numeric factor of a formula as expressions, several for a polynomial.

    Parameters
    ----------
    node : Node
        The factor.
    table : ibis.Table
        The table.
    states : mapping
        What `scale` and `center` learnt.
    text : str
        The formula, for carets.

    Returns
    -------
    list of ibis expression
        Of type float64.

    Raises
    ------
    FormulaError
        If the engine cannot compute a function, with its name and the way out.
    """
    if isinstance(node, Call) and node.function == "poly":
        options = _options(node, text)
        if not options.get("raw"):
            raise _not_pushed(node, text, "Write raw=TRUE, or center the column: poly(x, 2, raw=TRUE).")
        base = number(node.arguments[0][1], table, states, text)
        powers = [base]
        for _ in range(1, options.get("degree", 1)):
            powers.append(powers[-1] * base)
        return powers
    return [number(node, table, states, text)]


def number(node: Node, table: Any, states: State, text: str) -> Any:
    """Return an expression of a formula as one of the engine's.

    Parameters
    ----------
    node : Node
        The expression.
    table : ibis.Table
        The table.
    states : mapping
        What `scale` and `center` learnt.
    text : str
        The formula, for carets.

    Returns
    -------
    ibis expression
        Of type float64.
    """
    import ibis

    def part(inner: Node) -> Any:
        return number(inner, table, states, text)

    match node:
        case Name(name):
            if is_text(table, name):
                raise DataError(_caret(f"{name} holds text, and arithmetic needs numbers", node, text))
            column = table[name]
            return (column.cast("int8") if column.type().is_boolean() else column).cast("float64")
        case Number(digits):
            return ibis.literal(float(digits), type="float64")
        case Group(inner):
            return part(inner)
        case Unary(operator, operand):
            return -part(operand) if operator == "-" else part(operand)
        case Sum(parts):
            total = part(parts[0][1])
            for sign, inner in parts[1:]:
                total = total + part(inner) if sign == "+" else total - part(inner)
            return total
        case Binary(operator, left, right):
            return _binary(operator, left, right, table, states, text)
        case Call():
            return _call(node, table, states, text)
    raise FormulaError(_caret(f"{render(node)} is no number", node, text))


def _binary(operator: str, left: Node, right: Node, table: Any, states: State, text: str) -> Any:
    if operator in ("==", "!=", "<", "<=", ">", ">="):
        sides = [_side(part, table, states, text) for part in (left, right)]
        compared = {
            "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
            "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
        }[operator](*sides)  # fmt: skip
        return compared.cast("int8").cast("float64")
    base = number(left, table, states, text)
    if operator in ("^", "**"):
        if isinstance(right, Number) and right.text.isdecimal() and 1 <= int(right.text) <= 8:
            product = base
            for _ in range(1, int(right.text)):
                product = product * base
            return product
        return base ** number(right, table, states, text)
    other = number(right, table, states, text)
    return base * other if operator == "*" else base / other


def _side(node: Node, table: Any, states: State, text: str) -> Any:
    import ibis

    if isinstance(node, String):
        return ibis.literal(node.value)
    if isinstance(node, Name) and is_text(table, node.name):
        return table[node.name]
    return number(node, table, states, text)


def _call(node: Call, table: Any, states: State, text: str) -> Any:
    inner, name = node.arguments[0][1], node.function
    if name == "I":
        return number(inner, table, states, text)
    if name in MOMENT_FUNCTIONS:
        value, state = number(inner, table, states, text), states[render(node)]
        centred = value if state["center"] is None else value - float(state["center"])
        return centred if state["scale"] is None else centred / float(state["scale"])
    if name in _FUNCTIONS:
        return getattr(number(inner, table, states, text), _FUNCTIONS[name])()
    if name in _TRIGONOMETRY:
        return getattr(number(inner, table, states, text), name)()
    if name == "log1p":
        return (number(inner, table, states, text) + 1.0).ln()
    if name == "expm1":
        return number(inner, table, states, text).exp() - 1.0
    raise _not_pushed(node, text, "Compute the column in the engine: table.mutate(z=...), and use z.")


def _options(node: Call, text: str) -> dict[str, Any]:
    return _bind_options(node.function, FUNCTIONS[node.function].options, node.arguments[1:], node, text)


def learn_state(node: Call, mean: float, sum_of_squares: float, n: int, text: str) -> dict[str, Any]:
    """Return what `scale` or `center` learns from rows, in formulaic's terms.

    Parameters
    ----------
    node : Call
        The call.
    mean, sum_of_squares : float
        Mean, and sum of squared deviations from it.
    n : int
        Rows.
    text : str
        The formula.

    Returns
    -------
    dict
        `center`, `scale`, `ddof`.
    """
    import numpy as np

    if node.function == "center":
        return {"center": np.float64(mean), "scale": None, "ddof": 1}
    options = _options(node, text)
    ddof = options.get("ddof", 1 if node.function == "scale" else 0)
    center, spread = options.get("center", True), options.get("scale", options.get("rescale", True))
    middle = (mean if center else None) if isinstance(center, bool) else float(center)
    about = sum_of_squares + n * (mean - (middle or 0.0)) ** 2
    width = (np.sqrt(about / (n - ddof)) if spread else None) if isinstance(spread, bool) else float(spread)
    return {"center": None if middle is None else np.float64(middle), "scale": width, "ddof": ddof}


def _not_pushed(node: Call, text: str, way_out: str) -> FormulaError:
    return FormulaError(
        _caret(f"{node.function}() cannot be computed by the engine that holds the data", node, text)
        + f"\n  {way_out}\n  Functions of an engine: {', '.join(PUSHED)}."
    )


def _caret(problem: str, node: Node, text: str) -> str:
    span = locate(node, text)
    return problem if span is None else f"{problem}\n{underline(text, span)}"
