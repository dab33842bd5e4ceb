"""The functions a formula can call, and how its expressions are computed.

An expression is a tree from `bayeslmm.formula.syntax`, walked node by node: it reaches columns of the data and the
functions of `FUNCTIONS`, and there is no way from it to anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, did_you_mean, listing, underline
from bayeslmm.formula.grouping import as_categorical, label, relevel
from bayeslmm.formula.syntax import (
    Binary,
    Call,
    Dot,
    Group,
    Name,
    Node,
    Number,
    Sequence,
    Span,
    String,
    Sum,
    Unary,
    children,
    fail,
    parse_syntax,
    render,
    walk,
)

Value = NDArray[np.float64] | NDArray[np.bool_] | pd.Categorical
State = MutableMapping[str, dict[str, Any]]

MAX_COUNT = 200
"""Largest degree or number of columns a basis function may be asked for."""


@dataclass(frozen=True)
class Function:
    """A function of one column, with options that are constants."""

    name: str
    kind: Literal["elementwise", "identity", "basis", "categorical"]
    options: tuple[str, ...] = ()
    implementation: Callable[..., Any] | None = None


_SPLINE_OPTIONS = ("df", "knots", "lower_bound", "upper_bound", "constraints", "extrapolation")
_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
}

FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        function.name: function
        for function in (
            *(Function(name, "elementwise", (), ufunc) for name, ufunc in _ELEMENTWISE.items()),
            Function("I", "identity"),
            Function("C", "categorical", ("contrasts", "levels")),
            Function("factor", "categorical", ("contrasts", "levels")),
            Function("poly", "basis", ("degree", "raw")),
            Function(
                "bs",
                "basis",
                ("df", "knots", "degree", "include_intercept", "lower_bound", "upper_bound", "extrapolation"),
            ),
            Function("cr", "basis", _SPLINE_OPTIONS),
            Function("cs", "basis", _SPLINE_OPTIONS),
            Function("cc", "basis", _SPLINE_OPTIONS),
            Function("center", "basis"),
            Function("scale", "basis", ("center", "scale", "ddof")),
            Function("standardize", "basis", ("center", "rescale", "ddof")),
        )
    }
)
"""Every function of a column, by name."""

CONTRASTS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Treatment": ("TreatmentContrasts", ("base",)),
        "contr.treatment": ("TreatmentContrasts", ("base",)),
        "contr.SAS": ("SASContrasts", ("base",)),
        "Sum": ("SumContrasts", ()),
        "contr.sum": ("SumContrasts", ()),
        "Helmert": ("HelmertContrasts", ("reverse", "scale")),
        "contr.helmert": ("HelmertContrasts", ("reverse", "scale")),
        "Diff": ("DiffContrasts", ("backward",)),
        "contr.diff": ("DiffContrasts", ("backward",)),
        "Poly": ("PolyContrasts", ("scores",)),
        "contr.poly": ("PolyContrasts", ("scores",)),
    }
)
"""Contrast codings for the second argument of `C`: formulaic's class and its options."""

_CONSTANTS = {"TRUE": True, "True": True, "FALSE": False, "False": False, "None": None, "NULL": None}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "**": np.power,
}
_FUNCTION_HELP = f"Functions: {listing(FUNCTIONS, 40)}, offset."


def check_expression(node: Node, text: str) -> None:
    """Refuse an expression that asks for anything but columns, constants and known functions.

    Parameters
    ----------
    node : Node
        An expression: an argument of a function, the response, an offset.
    text : str
        The formula, for the caret.

    Raises
    ------
    FormulaError
        With a caret under what is not allowed.

    Examples
    --------
    >>> from bayeslmm.formula.syntax import parse_syntax
    >>> check_expression(parse_syntax("log(x + 1)"), "log(x + 1)")
    >>> check_expression(parse_syntax("system(x)"), "system(x)")
    Traceback (most recent call last):
    ...
    bayeslmm.errors.FormulaError: there is no function 'system' in the formula language
      system(x)
      ^^^^^^
      Functions: log, log2, log10, log1p, exp, expm1, sqrt, abs, sin, cos, tan, I, C, factor, poly, bs, cr, cs, cc, \
center, scale, standardize, offset.
    """
    match node:
        case Binary(operator) if operator in ("|", "||"):
            fail(
                text,
                node.operator_span,
                f"{operator!r} has no meaning inside a function",
                "A random term stands by itself: y ~ x + (1 | group).",
            )
        case Binary(operator) if operator not in _ARITHMETIC and operator not in _COMPARISONS:
            fail(text, node.operator_span, f"{operator!r} has no meaning in arithmetic")
        case Dot():
            fail(text, node.span, "'.' stands for columns and cannot be computed with")
        case Sequence():
            fail(text, node.span, "a list can only be an option such as knots=[1, 2]")
        case Call():
            _check_call(node, text)
            return
    for child in children(node):
        check_expression(child, text)


def _check_call(node: Call, text: str) -> None:
    function = FUNCTIONS.get(node.function)
    if function is None:
        _fail_unknown_function(node, text)
    if not node.arguments:
        fail(text, node.span, f"{node.function}() needs a column", f"Write {node.function}(x).")
    key, first = node.arguments[0]
    if key is not None:
        fail(text, node.span, f"the first argument of {node.function}() is a column, without a name")
    check_expression(first, text)
    _bind_options(function.name, function.options, node.arguments[1:], node, text)


def _fail_unknown_function(node: Call, text: str) -> NoReturn:
    name = node.function
    if name in CONTRASTS:
        way_out = f"{name} is a contrast: write C(x, {name})."
    elif name in ("us", "diag", "cs", "ar1", "homdiag", "homcs"):
        way_out = f"As a covariance structure it holds a bar and stands by itself: {name}(x | group)."
    elif name in ("cbind", "prop"):
        way_out = f"{name}() can only be the response."
    elif name == "offset":
        way_out = "offset() stands by itself: y ~ x + offset(z)."
    else:
        way_out = f"{_FUNCTION_HELP} {did_you_mean(name, FUNCTIONS)}".rstrip()
    if "." in name.strip(".") and name not in CONTRASTS:
        way_out += "\n  Attribute access is not part of the formula language."
    fail(text, node.name_span, f"there is no function {name!r} in the formula language", way_out)


def _bind_options(
    name: str, allowed: tuple[str, ...], arguments: tuple[tuple[str | None, Node], ...], node: Call, text: str
) -> dict[str, Any]:
    """Match options to their names as Python does, refusing what the function does not know."""
    bound: dict[str, Any] = {}
    for position, (key, value) in enumerate(arguments):
        if key is None and position >= len(allowed):
            known = f"Options: {listing(allowed)}." if allowed else f"Write {name}(x)."
            fail(text, value.span, f"{name}() has too many arguments", known)
        option = allowed[position] if key is None else key
        if option not in allowed:
            known = f"Options: {listing(allowed)}." if allowed else f"{name}() has no options."
            hint = did_you_mean(option, allowed)
            fail(text, value.span, f"{name}() has no option {option!r}", f"{known} {hint}".rstrip())
        if option in bound:
            fail(text, value.span, f"the option {option!r} is given twice")
        bound[option] = _constant(value, text, contrasts=option == "contrasts")
        _check_count(option, bound[option], value, text)
    return bound


def _check_count(option: str, value: Any, node: Node, text: str) -> None:
    if option in ("df", "degree") and not (isinstance(value, int) and 0 <= value <= MAX_COUNT):
        fail(text, node.span, f"{option} must be a whole number between 0 and {MAX_COUNT}")


def _constant(node: Node, text: str, *, contrasts: bool = False) -> Any:
    """Return the value of an option; contrasts come back as (class name, options)."""
    match node:
        case Number(digits):
            return int(digits) if digits.isdecimal() else float(digits)
        case String(value):
            return value
        case Unary(operator, Number()):
            value = _constant(node.operand, text)
            return -value if operator == "-" else value
        case Sequence(items):
            return [_constant(item, text) for item in items]
        case Group(inner):
            return _constant(inner, text, contrasts=contrasts)
        case Call("c", arguments):
            return [_constant(value, text) for _, value in arguments]
        case Name(name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case Name(name) if contrasts and name in CONTRASTS:
            return CONTRASTS[name][0], {}
        case Call(name, arguments) if contrasts and name in CONTRASTS:
            kind, options = CONTRASTS[name]
            return kind, _bind_options(name, options, arguments, node, text)
    if contrasts:
        way_out = f"Contrasts: {listing(CONTRASTS, 20)}."
        fail(text, node.span, f"{render(node)!r} is not a contrast", way_out)
    way_out = "An option is a number, text in quotes, TRUE, FALSE or a list such as [1, 2]."
    fail(text, node.span, f"{render(node)!r} is not a constant", way_out)


def locate(node: Node, text: str) -> Span | None:
    """Find an expression in the user's own text, which a right-hand side is a rewriting of.

    Parameters
    ----------
    node : Node
        The expression.
    text : str
        The formula.

    Returns
    -------
    tuple of int or None
        Where it stands first; None if the user did not write it, as what `.` stands for.

    Examples
    --------
    >>> locate(Name("x", (0, 1)), "y ~ x")
    (4, 5)
    """
    wanted = render(node)
    return next((found.span for found in walk(parse_syntax(text)) if render(found) == wanted), None)


def column_names(node: Node) -> Iterator[Name]:
    """Yield the columns an expression or a sum of terms refers to.

    Parameters
    ----------
    node : Node
        The tree; options of functions are constants and are left out.

    Yields
    ------
    Name
        In the order of the text.

    Examples
    --------
    >>> from bayeslmm.formula.syntax import parse_syntax
    >>> [name.name for name in column_names(parse_syntax("a:log(b) + C(f, Sum)"))]
    ['a', 'b', 'f']
    """
    if isinstance(node, Name):
        yield node
    below = (node.arguments[0][1],) if isinstance(node, Call) and node.function in FUNCTIONS else children(node)
    for child in below:
        yield from column_names(child)


def evaluate(node: Node, columns: Mapping[str, Value], states: State, text: str) -> Any:
    """Return the value of an expression that `check_expression` let through.

    Parameters
    ----------
    node : Node
        The expression.
    columns : mapping of str to ndarray (n,) or Categorical
        The data.
    states : mapping
        What stateful functions (centre, knots, levels) learnt from the fitted data, by their text; filled at the
        first evaluation and obeyed afterwards.
    text : str
        The formula, for carets.

    Returns
    -------
    ndarray (n,), (n, k), mapping of columns or Categorical
        A column as it is; arithmetic as float64; a basis as formulaic represents it.

    Raises
    ------
    DataError
        If text or categories stand where numbers are needed, or a basis cannot be computed.

    Examples
    --------
    >>> import numpy as np
    >>> from bayeslmm.formula.syntax import parse_syntax
    >>> evaluate(parse_syntax("I(x^2 + 1)"), {"x": np.array([1.0, 2.0])}, {}, "I(x^2 + 1)")
    array([2., 5.])
    """
    with np.errstate(all="ignore"):
        return _evaluate(node, columns, states, text)


def _evaluate(node: Node, columns: Mapping[str, Value], states: State, text: str) -> Any:
    match node:
        case Name(name):
            return columns[name]
        case Group(inner):
            return _evaluate(inner, columns, states, text)
        case Number(digits):
            return float(digits)
        case String(value):
            return value
        case Call():
            return _evaluate_call(node, columns, states, text)
        case Binary(operator, left, right) if operator in _COMPARISONS:
            return _compare(node, _evaluate(left, columns, states, text), _evaluate(right, columns, states, text), text)
    return _arithmetic(node, columns, states, text)


def _arithmetic(node: Node, columns: Mapping[str, Value], states: State, text: str) -> Any:
    def number(part: Node) -> Any:
        return _as_number(_evaluate(part, columns, states, text), part, text)

    match node:
        case Unary(operator, operand):
            return np.negative(number(operand)) if operator == "-" else number(operand)
        case Binary(operator, left, right):
            return _ARITHMETIC[operator](number(left), number(right))
        case Sum(parts):
            total = number(parts[0][1])
            for sign, part in parts[1:]:
                total = total + number(part) if sign == "+" else total - number(part)
            return total
    raise AssertionError(node)  # check_expression let only the above through


def _as_number(value: Any, node: Node, text: str) -> Any:
    if isinstance(value, str | pd.Categorical):
        what = "text" if isinstance(value, str) else "categories"
        raise DataError(
            _with_caret(
                f"{render(node)} holds {what}, and arithmetic needs numbers",
                node,
                text,
                "Use it as a term of its own, or compare it with a level: I(x == 'a').",
            )
        )
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.astype(np.float64, copy=False)
    if isinstance(value, float):
        return np.float64(value)
    raise DataError(_with_caret(f"{render(node)} has several columns; arithmetic needs one", node, text))


def _compare(node: Binary, left: Any, right: Any, text: str) -> NDArray[np.bool_]:
    symbolic = [isinstance(side, str | pd.Categorical) for side in (left, right)]
    if not any(symbolic):
        return np.asarray(
            _COMPARISONS[node.operator](_as_number(left, node.left, text), _as_number(right, node.right, text))
        )
    if not all(symbolic) or node.operator not in ("==", "!="):
        raise DataError(_with_caret("categories can only be compared with a level in quotes, by == or !=", node, text))
    sides = [np.asarray(side, dtype=object) for side in (left, right)]
    return np.asarray(_COMPARISONS[node.operator](sides[0], sides[1]), dtype=bool)


def _evaluate_call(node: Call, columns: Mapping[str, Value], states: State, text: str) -> Any:
    function = FUNCTIONS[node.function]
    first = node.arguments[0][1]
    value = _evaluate(first, columns, states, text)
    if function.kind == "identity" and (isinstance(value, pd.Categorical) or np.ndim(value) == 1):
        return value
    options = _bind_options(function.name, function.options, node.arguments[1:], node, text)
    if function.kind == "categorical":
        return _categorical(value, options, states, node, text)
    number = np.atleast_1d(_as_number(value, first, text))
    if function.kind == "identity":
        return number
    if function.implementation is not None:
        return function.implementation(number)
    return _basis(function.name, number, options, states, node, text)


def _basis(name: str, value: Any, options: dict[str, Any], states: State, node: Call, text: str) -> Any:
    from formulaic.transforms import TRANSFORMS

    state = states.setdefault(render(node), {})
    fitted = bool(state)
    try:
        return TRANSFORMS[name](value, **options, _state=state)
    except (ValueError, TypeError, ArithmeticError, np.linalg.LinAlgError) as error:
        beyond = fitted and name in ("bs", "cr", "cs", "cc") and "bound" in str(error)
        way_out = (
            "extrapolation='extend' or 'clip' says what to do beyond the range of the fitted data."
            if beyond
            else f"Options of {name}(): {listing(FUNCTIONS[name].options)}."
        )
        raise DataError(_with_caret(f"{render(node)} cannot be computed: {error}", node, text, way_out)) from error


def _categorical(value: Any, options: dict[str, Any], states: State, node: Call, text: str) -> Any:
    from formulaic import transforms
    from formulaic.transforms import contrasts as codings

    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = as_categorical(value)
    if not isinstance(value, pd.Categorical):
        raise DataError(_with_caret(f"{render(node)} cannot be computed: it needs one column", node, text))
    state = states.setdefault(render(node), {})
    levels = options.get("levels") or state.get("levels")
    if levels is not None:
        value = relevel(value, [label(level) for level in levels], render(node.arguments[0][1], quoted=False))
    state["levels"] = list(value.categories)
    coding = None
    if options.get("contrasts") is not None:
        kind, settings = options["contrasts"]
        if "base" in settings:
            settings = {"base": _reference(settings["base"], value, node, text)}
        coding = getattr(codings, kind)(**settings)
    return transforms.C(value, coding)


def _reference(base: Any, value: pd.Categorical, node: Call, text: str) -> str:
    if label(base) in value.categories:
        return label(base)
    hint = did_you_mean(label(base), value.categories)
    raise DataError(
        _with_caret(
            f"the reference level {base!r} does not occur", node, text, f"Levels: {listing(value.categories)}. {hint}"
        ).rstrip()
    )


def _with_caret(problem: str, node: Node, text: str, way_out: str = "") -> str:
    span = locate(node, text)
    shown = "" if span is None else underline(text, span)
    return "\n".join(filter(None, [problem, shown, way_out and f"  {way_out}"]))
