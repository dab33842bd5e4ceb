"""What the text of a formula means: the right-hand side sorted into fixed columns, random terms and offsets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from typing import cast

from bayeslmm.errors import FormulaError, did_you_mean, listing
from bayeslmm.formula.functions import FUNCTIONS, check_expression, column_names, locate
from bayeslmm.formula.syntax import (
    Binary,
    Call,
    Dot,
    Group,
    Name,
    Node,
    Number,
    String,
    Sum,
    Unary,
    children,
    fail,
    parse_syntax,
    quote,
    render,
    walk,
)
from bayeslmm.formula.terms import Covariance, Formula, RandomTerm, Structure

STRUCTURES: dict[str, tuple[Covariance, bool]] = {
    "us": ("us", False),
    "diag": ("diag", False),
    "homdiag": ("diag", True),
    "cs": ("cs", False),
    "homcs": ("cs", True),
    "ar1": ("ar1", True),
}
"""Structured random terms: the covariance and whether its variances are equal unless `hom=` says otherwise."""

RELATED_LEVELS: dict[str, tuple[Structure | None, ...]] = {
    "rw": ("rw",),
    "icar": ("icar",),
    "bym2": ("icar", None),
}
"""Random intercepts whose levels are related, and the terms they stand for; None is an ordinary random intercept."""

RESPONSE_FUNCTIONS = ("cbind", "prop")
LIMITED = ("censored", "truncated")
MAX_TERMS = 10_000
_EXAMPLE = 'Write for example "y ~ x + (1 | group)".'
_BARS = ("|", "||")


@dataclass
class _RightSide:
    """The right-hand side, sorted."""

    fixed: list[tuple[str, Node]] = field(default_factory=list)
    random: list[RandomTerm] = field(default_factory=list)
    varying: list[tuple[str, Node]] = field(default_factory=list)
    offsets: list[Node] = field(default_factory=list)
    group_names: list[Name] = field(default_factory=list)


def parse_formula(text: str) -> Formula:
    """Read a formula.

    Parameters
    ----------
    text : str
        ``response ~ columns + (columns | group)``, as in lme4.

    Returns
    -------
    Formula
        Its meaning; no data needed.

    Raises
    ------
    FormulaError
        With a caret under what cannot be read or is not allowed.

    Examples
    --------
    >>> formula = parse_formula("strength ~ 1 + (1 | batch/cask)")
    >>> [str(term) for term in formula.random]
    ['(1 | cask:batch)', '(1 | batch)']
    """
    if not isinstance(text, str):
        raise FormulaError(f"a formula is text, not {type(text).__name__}.\n  {_EXAMPLE}")
    try:
        return _parse(text)
    except RecursionError:
        raise FormulaError("the formula is nested too deeply to be read.") from None


def _parse(text: str) -> Formula:
    response, right = _split_at_tilde(parse_syntax(text), text)
    _check_response(response, text)
    sides = _RightSide()
    for sign, node in _parts(right):
        _sort(sign, node, sides, text)
    _check_response_alone(response, sides, text)
    return Formula(
        text=text,
        response=render(response),
        fixed=_columns_text(sides.fixed, text),
        random=tuple(sides.random),
        offsets=tuple(render(node) for node in sides.offsets),
    )


def _split_at_tilde(tree: Node, text: str) -> tuple[Node, Node]:
    if not (isinstance(tree, Binary) and tree.operator == "~"):
        for node in walk(tree):
            if isinstance(node, Binary) and node.operator == "~":
                fail(text, node.operator_span, "'~' cannot stand in parentheses", _EXAMPLE)
        fail(text, tree.span, "there is no '~' between a response and its predictors", _EXAMPLE)
    for node in (*walk(tree.left), *walk(tree.right)):
        if isinstance(node, Binary) and node.operator == "~":
            fail(text, tree.operator_span, "a formula has one '~'")
    return tree.left, tree.right


def _parts(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the parts of a sum with their signs; a leading sign belongs to the first part."""
    if not isinstance(node, Sum):
        node = Sum((("+", node),), node.span)
    for sign, part in node.parts:
        while isinstance(part, Unary):
            sign = "+" if sign == part.operator else "-"
            part = part.operand
        yield sign, part


def _check_response(node: Node, text: str) -> None:
    if isinstance(node, Binary) and node.operator in _BARS:
        way_out = "For k successes in n trials write cbind(k, n - k) or prop(k, n)."
        fail(text, node.operator_span, f"{node.operator!r} cannot stand in the response", way_out)
    if isinstance(node, Call) and node.function in RESPONSE_FUNCTIONS:
        if [key for key, _ in node.arguments] != [None, None]:
            meaning = "cbind(successes, failures)" if node.function == "cbind" else "prop(successes, trials)"
            fail(text, node.span, f"{node.function}() takes two columns", f"Write {meaning}.")
        for _, argument in node.arguments:
            check_expression(argument, text)
    elif isinstance(node, Call) and node.function in LIMITED:
        _check_limited(node, text)
    else:
        check_expression(node, text)
        for part in walk(node):
            if isinstance(part, Call) and FUNCTIONS[part.function].kind == "categorical":
                fail(text, part.span, "categories cannot be made in the response", "Make the column before.")
            if isinstance(part, Call) and part.function in ("poly", "bs", "cr", "cs", "cc"):
                fail(text, part.span, f"{part.function}() has several columns and cannot be a response")
    if not any(True for _ in column_names(node)):
        fail(text, node.span, "the response holds no column", _EXAMPLE)


def _check_limited(node: Call, text: str) -> None:
    """Refuse what is not `censored(y, status)` or `truncated(y, lb, ub)`, as bambi spells them."""
    keys = [key for key, _ in node.arguments]
    if node.function == "censored" and len(keys) == 3:
        fail(text, node.span, "interval censoring has no likelihood in PyMC", "Write censored(y, status).")
    if node.function == "censored" and keys != [None, None]:
        fail(text, node.span, "censored() takes two columns", "Write censored(y, status), status left, none or right.")
    named = [key for key in keys[1:] if key is not None]
    if node.function == "truncated" and (
        not 2 <= len(keys) <= 3 or keys[0] is not None or not set(named) <= {"lb", "ub"}
    ):
        fail(text, node.span, "truncated() takes a column and one or two bounds", "Write truncated(y, lb=0, ub=10).")
    for _, argument in node.arguments:
        check_expression(argument, text)


def _check_response_alone(response: Node, sides: _RightSide, text: str) -> None:
    """Refuse a response that also predicts itself; parts of a computed response may (change on baseline)."""
    names = {name.name for name in column_names(response)}
    for name in sides.group_names:
        if name.name in names:
            fail(text, name.span, f"{quote(name.name)!r} is the response and cannot be a grouping factor")
    if not isinstance(response, Name):
        return
    for sign, node in (*sides.fixed, *sides.varying, *(("+", node) for node in sides.offsets)):
        for name in column_names(node):
            if name.name in names and sign == "+":
                fail(text, name.span, f"{quote(name.name)!r} is the response and cannot predict itself")


def _sort(sign: str, node: Node, sides: _RightSide, text: str) -> None:
    """Put one part of the right-hand side where it belongs."""
    bare = _unwrap(node)
    if isinstance(bare, Binary) and bare.operator in _BARS:
        if not isinstance(node, Group):
            fail(
                text,
                bare.operator_span,
                f"a random term needs parentheses around its {bare.operator!r}",
                f"Write {_suggest_parentheses(bare)}.",
            )
        _add_random(sign, bare, sides, text, structure=None, span=node.span)
    elif isinstance(node, Call) and node.function in STRUCTURES and _has_bar(node):
        _add_random(sign, _bar_of(node, text), sides, text, structure=node, span=node.span)
    elif isinstance(node, Call) and node.function in RELATED_LEVELS:
        _add_related(sign, node, sides, text)
    elif isinstance(node, Call) and node.function == "offset":
        _add_offset(sign, node, sides, text)
    else:
        check_terms(node, text, top=True)
        sides.fixed.append((sign, node))


def _unwrap(node: Node) -> Node:
    while isinstance(node, Group):
        node = node.inner
    return node


def _suggest_parentheses(bar: Binary) -> str:
    parts = list(_parts(bar.left))
    before = " + ".join(render(part) for _, part in parts[:-1])
    term = f"({render(parts[-1][1])} {bar.operator} {render(bar.right)})"
    return f"{before} + {term}" if before else term


def _has_bar(node: Call) -> bool:
    return any(isinstance(value, Binary) and value.operator in _BARS for _, value in node.arguments)


def _bar_of(node: Call, text: str) -> Binary:
    key, bar = node.arguments[0]
    if key is not None or not isinstance(bar, Binary) or bar.operator != "|":
        way_out = f"Write {node.function}(x | group)."
        fail(text, node.span, f"{node.function}() takes one random term with a single bar", way_out)
    return bar


def _add_offset(sign: str, node: Call, sides: _RightSide, text: str) -> None:
    if sign == "-":
        fail(text, node.span, "an offset cannot be taken away", "Write offset(-x).")
    if len(node.arguments) != 1 or node.arguments[0][0] is not None:
        fail(text, node.span, "offset() takes one column", "Write offset(x) or offset(log(n)).")
    check_expression(node.arguments[0][1], text)
    sides.offsets.append(node.arguments[0][1])


def _add_random(
    sign: str, bar: Binary, sides: _RightSide, text: str, *, structure: Call | None, span: tuple[int, int]
) -> None:
    if sign == "-":
        fail(text, span, "a random term cannot be taken away", "Leave it out.")
    for side in (bar.left, bar.right):
        for node in walk(side):
            if isinstance(node, Binary) and node.operator in _BARS:
                fail(text, node.operator_span, "a random term has one bar", "Write (x | a) + (x | b).")
    covariance, hom = _structure(bar, structure, text)
    columns = _random_columns(bar.left, text)
    sides.varying.extend(_parts(bar.left))
    for group in _groups(bar.right, text):
        sides.random.append(RandomTerm(columns, tuple(name.name for name in group), covariance, hom, span))
        sides.group_names.extend(group)


def _add_related(sign: str, node: Call, sides: _RightSide, text: str) -> None:
    """Add the terms of `rw()`, `icar()` or `bym2()`: random intercepts of one column."""
    way_out = f"Write {node.function}(1 | group)."
    single = len(node.arguments) == 1 and isinstance(node.arguments[0][1], Binary)
    bar = node.arguments[0][1] if single else None
    if not isinstance(bar, Binary) or bar.operator != "|":
        fail(text, node.span, f"{node.function}() takes one random intercept and nothing else", way_out)
    if not (isinstance(bar.left, Number) and bar.left.text == "1"):
        fail(text, bar.left.span, f"only the intercept can vary in {node.function}()", way_out)
    if not isinstance(group := _unwrap(bar.right), Name):
        fail(text, bar.right.span, f"the levels of {node.function}() are those of one column", way_out)
    for structure in RELATED_LEVELS[node.function]:
        before = len(sides.random)
        _add_random(sign, replace(bar, right=group), sides, text, structure=None, span=node.span)
        if structure is not None:
            sides.random[before] = replace(sides.random[before], covariance="diag", hom=True, structure=structure)


def _structure(bar: Binary, structure: Call | None, text: str) -> tuple[Covariance, bool]:
    if structure is None:
        return ("diag" if bar.operator == "||" else "us"), False
    covariance, hom = STRUCTURES[structure.function]
    for key, value in structure.arguments[1:]:
        if key != "hom":
            hint = f"{structure.function}() has the option hom=TRUE or hom=FALSE. {did_you_mean(key or '', ['hom'])}"
            fail(text, value.span, f"{structure.function}() has no option {key or render(value)!r}", hint.rstrip())
        if structure.function in ("us", "homdiag", "homcs"):
            fail(text, value.span, f"{structure.function}() takes no hom=")
        if not isinstance(value, Name) or value.name not in ("TRUE", "True", "FALSE", "False"):
            fail(text, value.span, "hom is TRUE or FALSE")
        hom = value.name in ("TRUE", "True")
    return covariance, hom


def _random_columns(left: Node, text: str) -> str:
    parts = list(_parts(left))
    for _, node in parts:
        if isinstance(node, Call) and node.function == "offset":
            fail(text, node.span, "offset() cannot stand in a random term")
        for below in walk(node):
            if isinstance(below, Dot):
                fail(text, below.span, "'.' cannot stand in a random term", "Name the columns that vary.")
        check_terms(node, text, top=True)
    columns = _columns_text(parts, text)
    if columns == "0":
        fail(text, left.span, "nothing varies in this random term", "Write (1 | group) or (0 + x | group).")
    return columns


def _groups(node: Node, text: str) -> list[tuple[Name, ...]]:
    """Expand `a/b`, `a*b` and `a:b` into grouping factors, in lme4's order, inner columns first."""
    match node:
        case Name():
            return [(node,)]
        case Group(inner):
            return _groups(inner, text)
        case Binary(":", left, right):
            return [_joined(a, b) for a in _groups(left, text) for b in _groups(right, text)]
        case Binary("/", left, right):
            outer = _groups(left, text)
            whole = reduce(_joined, outer)
            return [_joined(inner, whole) for inner in _groups(right, text)] + outer
        case Binary("*", left, right):
            first, second = _groups(left, text), _groups(right, text)
            return first + second + [_joined(a, b) for a in first for b in second]
    if isinstance(node, Sum):
        way_out = " + ".join(f"(1 | {render(part)})" for _, part in node.parts)
        fail(text, node.span, "grouping factors are not added inside a random term", f"Write {way_out}.")
    if isinstance(node, Number):
        fail(text, node.span, "a grouping factor is a column, not a number", _EXAMPLE)
    fail(
        text,
        node.span,
        f"{render(node)!r} cannot be a grouping factor",
        "A grouping factor is a column, or columns joined by ':', '/' or '*'. Compute it in the data before.",
    )


def _joined(a: tuple[Name, ...], b: tuple[Name, ...]) -> tuple[Name, ...]:
    seen = {name.name for name in a}
    return a + tuple(name for name in b if name.name not in seen)


def check_terms(node: Node, text: str, *, top: bool = False) -> None:
    """Refuse what cannot be a term of a linear model.

    Parameters
    ----------
    node : Node
        A part of a right-hand side.
    text : str
        The formula, for the caret.
    top : bool, default False
        Whether this is a whole part, where 0 and 1 rule the intercept.

    Raises
    ------
    FormulaError
        With a caret under what is not allowed.

    Examples
    --------
    >>> check_terms(parse_syntax("a * log(b)"), "a * log(b)")
    """
    match node:
        case Name() | Dot():
            return
        case Number(digits):
            if not top or digits not in ("0", "1"):
                _fail_number(node, text)
        case String():
            fail(text, node.span, "text in quotes cannot be a term", "A column whose name has blanks: `a b`.")
        case Call():
            _check_term_call(node, text)
        case Binary(operator) if operator in ("^", "**"):
            _check_power(node, text)
        case Binary(operator) if operator in _BARS:
            fail(text, node.operator_span, "a random term stands by itself, joined with '+'", _EXAMPLE)
        case Binary(operator) if operator not in ("*", "/", ":"):
            fail(text, node.operator_span, f"{operator!r} compares; as a term write I({render(node)})")
        case Group() | Sum() | Binary():
            for child in children(node):
                check_terms(child, text)
        case _:
            fail(text, node.span, f"{render(node)!r} cannot be a term")
    if top and _count(node) > MAX_TERMS:
        fail(text, node.span, f"this expands to more than {MAX_TERMS:,} terms")


def _fail_number(node: Number, text: str) -> None:
    way_out = "0 or 1 alone removes or keeps the intercept; to multiply write I(2 * x), for an offset offset(x)."
    fail(text, node.span, f"the number {node.text} has no meaning as a term", way_out)


def _check_term_call(node: Call, text: str) -> None:
    if node.function == "offset":
        fail(text, node.span, "offset() stands by itself, joined with '+'", "Write y ~ x + offset(z).")
    if node.function in RELATED_LEVELS or (node.function in STRUCTURES and _has_bar(node)):
        fail(text, node.span, "a random term stands by itself, joined with '+'", _EXAMPLE)
    check_expression(node, text)
    if not any(True for _ in column_names(node)):
        fail(text, node.span, f"{render(node)} holds no column")


def _check_power(node: Binary, text: str) -> None:
    check_terms(node.left, text)
    right = node.right
    if not (isinstance(right, Number) and right.text.isdecimal() and 1 <= int(right.text) <= 9):
        fail(text, right.span, "the exponent of terms is a whole number from 1 to 9", "For a power of x: I(x^2).")
    if isinstance(node.left, Name):
        name = render(node.left)
        way_out = f"Write I({name}^{right.text}) for the power; ^ on terms crosses them: (a + b)^2."
        fail(text, node.span, f"as terms {name}^{right.text} is just {name}", way_out)


def _count(node: Node) -> int:
    """Return how many products formulaic will form for a part."""
    match node:
        case Group(inner):
            return _count(inner)
        case Sum(parts):
            return sum(_count(part) for _, part in parts)
        case Binary("*", left, right):
            a, b = _count(left), _count(right)
            return a + b + a * b
        case Binary(":", left, right):
            return _count(left) * _count(right)
        case Binary("^" | "**", left, right):
            return int(_count(left) ** int(cast(Number, right).text))
        case Binary(_, left, right):
            return _count(left) + _count(right)
    return 1


def _columns_text(parts: list[tuple[str, Node]], text: str) -> str:
    """Return a right-hand side with the intercept rule in front: the last of 0, 1, -1 wins."""
    intercept = True
    kept: list[str] = []
    for sign, node in parts:
        if isinstance(node, Number):
            intercept = (node.text == "1") == (sign == "+")
        elif sign == "-" and not kept:
            fail(text, node.span, f"{render(node)!r} is taken away before anything was added")
        else:
            kept.append(f"{sign} {render(node)}")
    return " ".join(["1" if intercept else "0", *kept])


def known_columns(formula: Formula, names: tuple[str, ...]) -> None:
    """Refuse a formula that names a column the data do not have.

    Parameters
    ----------
    formula : Formula
        The formula.
    names : tuple of str
        Columns of the data.

    Raises
    ------
    FormulaError
        With a caret under the first unknown name.

    Examples
    --------
    >>> known_columns(parse_formula("y ~ x + (1 | g)"), ("y", "x", "g"))
    """
    for name in formula_names(formula):
        if name not in names:
            hint = did_you_mean(name, names)
            _fail_unknown_column(formula, name, f"Columns: {listing(names)}. {hint}".rstrip())


def _fail_unknown_column(formula: Formula, name: str, way_out: str) -> None:
    problem = f"there is no column {name!r}"
    span = locate(Name(name, (0, 0)), formula.text)
    if span is None:
        raise FormulaError(f"{problem}\n  {way_out}")
    fail(formula.text, span, problem, way_out)


def formula_names(formula: Formula) -> tuple[str, ...]:
    """Return the columns a formula names, each once, `.` not expanded.

    Parameters
    ----------
    formula : Formula
        The formula.

    Returns
    -------
    tuple of str
        Response first, then fixed columns, random terms and offsets.

    Examples
    --------
    >>> formula_names(parse_formula("y ~ log(x) + (z | g)"))
    ('y', 'x', 'z', 'g')
    """
    found: dict[str, None] = dict.fromkeys(side_names(formula.response))
    found.update(dict.fromkeys(side_names(formula.fixed)))
    for term in formula.random:
        found.update(dict.fromkeys((*side_names(term.columns), *term.group)))
    for offset in formula.offsets:
        found.update(dict.fromkeys(side_names(offset)))
    return tuple(found)


@lru_cache(maxsize=256)
def side_names(text: str) -> tuple[str, ...]:
    """Return the columns one side of a formula names, each once.

    Parameters
    ----------
    text : str
        A right-hand side, a response or an offset.

    Returns
    -------
    tuple of str
        In order of appearance.

    Examples
    --------
    >>> side_names("1 + x*log(z) + x")
    ('x', 'z')
    """
    return tuple(dict.fromkeys(name.name for name in column_names(parse_syntax(text))))
