"""From formula text to a tree. Nothing here, or later, evaluates the text as Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from bayeslmm.errors import FormulaError, underline

Span = tuple[int, int]

MAX_DEPTH = 50
"""Deepest nesting of parentheses and operators that is read."""

_NAME = r"(?:[^\W\d]|\.(?=[^\W\d]))[\w.]*"
_TOKEN = re.compile(
    rf"""
    (?P<space>\s+)
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>{_NAME})
  | (?P<quoted>`[^`]+`)
  | (?P<string>"[^"]*"|'[^']*')
  | (?P<symbol>\*\*|\|\||==|!=|<=|>=|[-+*/:^~|(),=<>\[\].])
    """,
    re.VERBOSE,
)
_PLAIN_NAME = re.compile(_NAME)
_CLOSING = {"(": ")", "[": "]"}

# Binding power, weakest first, as in R; `|` and `~` are weaker than every sum.
_BINARY = {
    "~": 1,
    "|": 2,
    "||": 2,
    "==": 3,
    "!=": 3,
    "<": 3,
    "<=": 3,
    ">": 3,
    ">=": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    ":": 7,
    "^": 9,
    "**": 9,
}
_UNARY = 8
_RIGHT_ASSOCIATIVE = {"^", "**"}
_TIGHT = {":", "^", "**"}


@dataclass(frozen=True)
class Token:
    """A piece of formula text: its kind, its text and its place."""

    kind: str
    text: str
    span: Span


@dataclass(frozen=True)
class Name:
    """A column or, where called, a function."""

    name: str
    span: Span


@dataclass(frozen=True)
class Number:
    """A number, as typed."""

    text: str
    span: Span


@dataclass(frozen=True)
class String:
    """Text in quotes."""

    value: str
    span: Span


@dataclass(frozen=True)
class Dot:
    """`.`: every column not used elsewhere."""

    span: Span


@dataclass(frozen=True)
class Group:
    """An expression in parentheses."""

    inner: Node
    span: Span


@dataclass(frozen=True)
class Sequence:
    """`[1, 2]`: a list of constants."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True)
class Call:
    """A function call with its arguments in order; the name is None for a positional one."""

    function: str
    arguments: tuple[tuple[str | None, Node], ...]
    span: Span
    name_span: Span


@dataclass(frozen=True)
class Unary:
    """`-x` or `+x`."""

    operator: str
    operand: Node
    span: Span


@dataclass(frozen=True)
class Binary:
    """An operator between two expressions."""

    operator: str
    left: Node
    right: Node
    span: Span
    operator_span: Span


@dataclass(frozen=True)
class Sum:
    """A chain of `+` and `-`, flat however long it is; each part has its sign."""

    parts: tuple[tuple[str, Node], ...]
    span: Span


Node = Name | Number | String | Dot | Group | Sequence | Call | Unary | Binary | Sum


def fail(text: str, span: Span, problem: str, way_out: str = "") -> NoReturn:
    """Raise a FormulaError with a caret under `span`.

    Parameters
    ----------
    text : str
        The formula.
    span : tuple of int
        What to underline.
    problem : str
        What is wrong.
    way_out : str, optional
        What to write instead.

    Raises
    ------
    FormulaError
        Always.

    Examples
    --------
    >>> fail("y ~ x +", (6, 7), "something is missing after '+'")
    Traceback (most recent call last):
    ...
    bayeslmm.errors.FormulaError: something is missing after '+'
      y ~ x +
            ^
    """
    raise FormulaError("\n".join(filter(None, [problem, underline(text, span), way_out and f"  {way_out}"])))


def tokenize(text: str) -> tuple[Token, ...]:
    """Split formula text into tokens, blanks left out.

    Parameters
    ----------
    text : str
        The formula.

    Returns
    -------
    tuple of Token
        In order.

    Raises
    ------
    FormulaError
        At a character that no formula contains, and at a quote that is not closed.

    Examples
    --------
    >>> [token.text for token in tokenize("y ~ `a b` + (1 | g)")]
    ['y', '~', '`a b`', '+', '(', '1', '|', 'g', ')']
    """
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            _fail_at_character(text, position)
        if match.lastgroup != "space":
            tokens.append(Token(str(match.lastgroup), match.group(), match.span()))
        position = match.end()
    return tuple(tokens)


def _fail_at_character(text: str, position: int) -> NoReturn:
    character = text[position]
    if character in "`'\"":
        fail(text, (position, len(text)), f"the quote {character} is not closed")
    hint = "A column with such a name goes in backticks: `a b`." if character.isprintable() else ""
    fail(text, (position, position + 1), f"{character!r} has no meaning in a formula", hint)


@lru_cache(maxsize=256)
def parse_syntax(text: str) -> Node:
    """Read formula text into a tree; what the tree means is decided elsewhere.

    Parameters
    ----------
    text : str
        A whole formula, or one side of it.

    Returns
    -------
    Node
        The tree; every node knows its place in `text`.

    Raises
    ------
    FormulaError
        If parentheses or operators do not fit together.

    Examples
    --------
    >>> render(parse_syntax("y~x+( 1|g )"))
    'y ~ x + (1 | g)'
    """
    return _Parser(text).parse()


class _Parser:
    """Operator-precedence parser over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.position = 0
        self.depth = 0

    def parse(self) -> Node:
        if not self.tokens:
            raise FormulaError('the formula is empty.\n  Write for example "y ~ x + (1 | group)".')
        tree = self.expression(0)
        token = self.peek()
        if token is not None:
            self.fail_at(token)
        return tree

    def peek(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def peek_symbol(self) -> str | None:
        token = self.peek()
        return token.text if token is not None and token.kind == "symbol" else None

    def advance(self) -> Token:
        token = self.tokens[self.position]
        self.position += 1
        return token

    def fail_at(self, token: Token) -> NoReturn:
        if token.text in (")", "]"):
            fail(self.text, token.span, f"this {token.text!r} closes nothing")
        previous = self.tokens[self.position - 1] if self.position else None
        if token.text == "[":
            fail(self.text, token.span, "subscripts are not part of the formula language")
        if token.text == "(" and previous is not None and previous.kind == "quoted":
            fail(self.text, previous.span, "a name in backticks is a column and cannot be called")
        if previous is not None and token.text.startswith(".") and previous.text in (")", "]"):
            fail(self.text, token.span, "attribute access is not part of the formula language")
        if token.kind == "symbol" and token.text in ("=", ",", "."):
            fail(self.text, token.span, f"{token.text!r} has no meaning here")
        place = f"after {previous.text!r}" if previous is not None else "here"
        hint = "Terms are joined with '+'; a column whose name has blanks goes in backticks." if previous else ""
        fail(self.text, token.span, f"{token.text!r} cannot stand {place}", hint)

    def expression(self, floor: int) -> Node:
        """Read an expression whose operators bind more tightly than `floor`."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            fail(self.text, self.tokens[self.position - 1].span, f"nested more than {MAX_DEPTH} deep")
        left = self.prefix()
        chain = 0
        while (symbol := self.peek_symbol()) in _BINARY and _BINARY[symbol] > floor:
            power = _BINARY[symbol]
            if symbol in ("+", "-"):
                left = self.sum(left)
                continue
            chain += 1
            operator = self.advance()
            if chain > MAX_DEPTH:
                fail(self.text, operator.span, f"more than {MAX_DEPTH} operators in a row")
            right = self.operand(operator, power - 1 if symbol in _RIGHT_ASSOCIATIVE else power)
            left = Binary(symbol, left, right, (left.span[0], right.span[1]), operator.span)
        self.depth -= 1
        return left

    def sum(self, first: Node) -> Node:
        parts = [("+", first)]
        while self.peek_symbol() in ("+", "-"):
            operator = self.advance()
            parts.append((operator.text, self.operand(operator, _BINARY["+"])))
        return Sum(tuple(parts), (first.span[0], parts[-1][1].span[1]))

    def operand(self, operator: Token, floor: int) -> Node:
        token = self.peek()
        if token is None or token.text in (")", "]", ","):
            fail(self.text, operator.span, f"something is missing after {operator.text!r}")
        return self.expression(floor)

    def prefix(self) -> Node:
        token = self.peek()
        if token is None:
            fail(self.text, (len(self.text), len(self.text)), "the formula ends too early")
        if token.kind == "number":
            return self.number()
        if token.kind == "string":
            self.advance()
            return String(token.text[1:-1], token.span)
        if token.kind == "quoted":
            self.advance()
            return Name(token.text[1:-1], token.span)
        if token.kind == "name":
            return self.name_or_call()
        return self.prefix_symbol(token)

    def number(self) -> Node:
        token = self.advance()
        following = self.peek()
        if following is not None and following.kind in ("name", "number") and following.span[0] == token.span[1]:
            name = self.text[token.span[0] : following.span[1]]
            way_out = f"A column with this name goes in backticks: `{name}`."
            fail(self.text, (token.span[0], following.span[1]), f"{name!r} is neither a number nor a name", way_out)
        return Number(token.text, token.span)

    def name_or_call(self) -> Node:
        token = self.advance()
        if self.peek_symbol() != "(":
            return Name(token.text, token.span)
        opening = self.advance()
        arguments = self.arguments(opening)
        closing = self.close(opening)
        return Call(token.text, arguments, (token.span[0], closing.span[1]), token.span)

    def arguments(self, opening: Token) -> tuple[tuple[str | None, Node], ...]:
        found: list[tuple[str | None, Node]] = []
        while self.peek_symbol() != _CLOSING[opening.text]:
            if found:
                self.separator(opening)
            found.append((self.keyword(), self.expression(0)))
        return tuple(found)

    def separator(self, opening: Token) -> None:
        token = self.peek()
        if token is None:
            fail(self.text, opening.span, f"this {opening.text!r} is not closed")
        if token.text != ",":
            self.fail_at(token)
        self.advance()

    def keyword(self) -> str | None:
        following = self.tokens[self.position + 1 : self.position + 2]
        token = self.peek()
        if token is not None and token.kind == "name" and following and following[0].text == "=":
            self.position += 2
            return token.text
        return None

    def close(self, opening: Token) -> Token:
        token = self.peek()
        if token is None:
            fail(self.text, opening.span, f"this {opening.text!r} is not closed")
        if token.text != _CLOSING[opening.text]:
            self.fail_at(token)
        return self.advance()

    def prefix_symbol(self, token: Token) -> Node:
        if token.text == "(":
            self.advance()
            if self.peek_symbol() == ")":
                fail(self.text, (token.span[0], token.span[1] + 1), "there is nothing in these parentheses")
            inner = self.expression(0)
            return Group(inner, (token.span[0], self.close(token).span[1]))
        if token.text == "[":
            self.advance()
            items = tuple(value for _, value in self.arguments(token))
            return Sequence(items, (token.span[0], self.close(token).span[1]))
        if token.text in ("+", "-"):
            self.advance()
            operand = self.operand(token, _UNARY)
            return Unary(token.text, operand, (token.span[0], operand.span[1]))
        if token.text == ".":
            self.advance()
            return Dot(token.span)
        if token.text == "~":
            fail(self.text, token.span, "the response is missing", 'Write for example "y ~ x + (1 | group)".')
        if token.text in _BINARY:
            fail(self.text, token.span, f"something is missing before {token.text!r}")
        self.fail_at(token)


def quote(name: str) -> str:
    """Return a column name as a formula writes it: in backticks where it has to be.

    Parameters
    ----------
    name : str
        The column.

    Returns
    -------
    str
        The name, quoted if needed.

    Examples
    --------
    >>> quote("a b"), quote("class")
    ('`a b`', 'class')
    """
    return name if _PLAIN_NAME.fullmatch(name) else f"`{name}`"


def render(node: Node, *, quoted: bool = True) -> str:
    """Return the text of a tree, with blanks in one fixed way.

    Parameters
    ----------
    node : Node
        The tree.
    quoted : bool, default True
        Put backticks where the formula language needs them; labels go without.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> render(parse_syntax("I( `a b`^2 )"), quoted=False)
    'I(a b^2)'
    """

    def text(part: Node) -> str:
        return render(part, quoted=quoted)

    match node:
        case Name(name):
            return quote(name) if quoted else name
        case Number(digits):
            return digits
        case String(value):
            return f'"{value}"' if "'" in value else f"'{value}'"
        case Dot():
            return "."
        case Group(inner):
            return f"({text(inner)})"
        case Sequence(items):
            return f"[{', '.join(map(text, items))}]"
        case Call(function, arguments):
            inside = ", ".join(f"{key}={text(value)}" if key else text(value) for key, value in arguments)
            return f"{function}({inside})"
        case Unary(operator, operand):
            return f"{operator}{text(operand)}"
        case Binary(operator, left, right):
            blank = "" if operator in _TIGHT else " "
            return f"{text(left)}{blank}{operator}{blank}{text(right)}"
        case Sum(parts):
            rest = "".join(f" {sign} {text(part)}" for sign, part in parts[1:])
            return text(parts[0][1]) + rest


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below a node.

    Parameters
    ----------
    node : Node
        The tree.

    Returns
    -------
    tuple of Node
        In the order of the text.

    Examples
    --------
    >>> [render(child) for child in children(parse_syntax("a + b:c"))]
    ['a', 'b:c']
    """
    match node:
        case Group(inner):
            return (inner,)
        case Sequence(items):
            return items
        case Call(_, arguments):
            return tuple(value for _, value in arguments)
        case Unary(_, operand):
            return (operand,)
        case Binary(_, left, right):
            return (left, right)
        case Sum(parts):
            return tuple(part for _, part in parts)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes below it.

    Parameters
    ----------
    node : Node
        The tree.

    Yields
    ------
    Node
        Outer ones first, in the order of the text.

    Examples
    --------
    >>> [render(part) for part in walk(parse_syntax("a:b"))]
    ['a:b', 'a', 'b']
    """
    yield node
    for child in children(node):
        yield from walk(child)
