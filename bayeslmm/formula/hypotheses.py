"""Linear hypotheses about coefficients, read from text, a mapping or a matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from bayeslmm.errors import ComparisonError, did_you_mean, listing, underline

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Hypotheses:
    """Linear hypotheses ``L beta = rhs``.

    Parameters
    ----------
    L : ndarray (q, p)
        Contrasts.
    rhs : ndarray (q,)
        Right-hand side.
    labels : tuple of str
        As printed.
    """

    L: NDArray[np.float64]
    rhs: NDArray[np.float64]
    labels: tuple[str, ...]


def read_hypotheses(
    names: Sequence[str], hypothesis: Any, rhs: ArrayLike | None = None, dropped: Sequence[str] = ()
) -> Hypotheses:
    """Read linear hypotheses from text, a mapping or a matrix.

    Parameters
    ----------
    names : sequence of str, length p
        Coefficients; they may contain any characters.
    hypothesis : str, sequence of str, mapping or array_like (q, p)
        What is to be tested.
    rhs : array_like (q,), optional
        Right-hand side of a matrix.
    dropped : sequence of str, optional
        Columns left out of X, whose coefficients are not estimable.

    Returns
    -------
    Hypotheses
        With L of full row rank.

    Raises
    ------
    ComparisonError
        If something is wrong, with a caret where there is text.

    Examples
    --------
    >>> read_hypotheses(("Intercept", "IQ", "C(x)[T.a, b]"), "2 IQ = C(x)[T.a, b] + 1").L
    array([[ 0.,  2., -1.]])
    """
    if isinstance(hypothesis, Mapping):
        hypothesis = [f"{_quoted(name)} = {value}" for name, value in hypothesis.items()]
    if isinstance(hypothesis, str):
        found = _read_text(hypothesis, names, dropped)
    elif _is_texts(hypothesis):
        parts = [_read_text(text, names, dropped) for text in hypothesis]
        found = Hypotheses(
            np.vstack([part.L for part in parts]),
            np.concatenate([part.rhs for part in parts]),
            tuple(label for part in parts for label in part.labels),
        )
    else:
        return _check_rank(_read_matrix(names, hypothesis, rhs))
    if rhs is not None:
        raise ComparisonError("rhs goes with a matrix; in text write the right-hand side after '='.")
    return _check_rank(found)


def _quoted(name: str) -> str:
    return f"`{name}`"


def _is_texts(hypothesis: Any) -> bool:
    return (
        isinstance(hypothesis, Sequence) and len(hypothesis) > 0 and all(isinstance(item, str) for item in hypothesis)
    )


def _read_matrix(names: Sequence[str], matrix: Any, rhs: ArrayLike | None) -> Hypotheses:
    if isinstance(matrix, pd.DataFrame):
        unknown = [str(column) for column in matrix.columns if column not in names]
        if unknown:
            raise ComparisonError(f"there is no coefficient {unknown[0]!r}.\n  Coefficients: {listing(names)}.")
        matrix = matrix.reindex(columns=list(names), fill_value=0.0)
    L = np.atleast_2d(np.asarray(matrix, dtype=float))
    if L.ndim != 2 or L.shape[1] != len(names) or not np.isfinite(L).all():
        raise ComparisonError(
            f"a matrix of contrasts has one column per coefficient and finite entries: {len(names)} columns, "
            f"not {L.shape}.\n  Coefficients: {listing(names)}."
        )
    value = np.zeros(len(L)) if rhs is None else np.atleast_1d(np.asarray(rhs, dtype=float))
    if value.shape != (len(L),):
        raise ComparisonError(f"rhs has shape {value.shape} for {len(L)} contrasts.")
    return Hypotheses(L, value, tuple(_label(row, names, right) for row, right in zip(L, value, strict=True)))


def _label(row: NDArray[np.float64], names: Sequence[str], right: float) -> str:
    text = ""
    for weight, name in zip(row, names, strict=True):
        if weight:
            size = "" if abs(weight) == 1 else f"{abs(weight):g} "
            text += (" - " if weight < 0 else " + " if text else "") + size + name
    return f"{text.strip()} = {right:g}"


def _check_rank(found: Hypotheses) -> Hypotheses:
    """Refuse hypotheses without content, and those that contradict or repeat one another."""
    scale = np.abs(found.L).max(axis=1, initial=0.0)
    if not scale.all():
        raise ComparisonError(f"the hypothesis {found.labels[int(np.argmin(scale))]!r} involves no coefficient.")
    L, rhs = found.L / scale[:, None], found.rhs / scale
    rank = np.linalg.matrix_rank(L, tol=1e-9)
    if rank == len(L):
        return found
    for i in range(1, len(L)):
        if np.linalg.matrix_rank(L[: i + 1], tol=1e-9) == i:
            weights = np.linalg.lstsq(L[:i].T, L[i], rcond=None)[0]
            agrees = abs(weights @ rhs[:i] - rhs[i]) < 1e-9 * max(1.0, np.abs(rhs).max())
            raise ComparisonError(
                f"the hypothesis {found.labels[i]!r} "
                + ("follows from those before it; leave it out." if agrees else "contradicts those before it.")
            )
    raise AssertionError("some row depends on those before it")


@dataclass
class _Linear:
    """A linear form: weights of the coefficients and a constant."""

    weights: NDArray[np.float64]
    constant: float

    def scaled(self, factor: float) -> _Linear:
        return _Linear(self.weights * factor, self.constant * factor)

    def plus(self, other: _Linear, sign: float = 1.0) -> _Linear:
        return _Linear(self.weights + sign * other.weights, self.constant + sign * other.constant)

    @property
    def is_number(self) -> bool:
        return not self.weights.any()


@dataclass(frozen=True)
class _Token:
    kind: str  # "name", "number", or the sign itself
    value: Any
    span: tuple[int, int]


def _read_text(text: str, names: Sequence[str], dropped: Sequence[str]) -> Hypotheses:
    reader = _Reader(text, _tokens(text, names, dropped), len(names))
    forms, labels = [], []
    while True:
        start = reader.here
        left = reader.sum()
        if reader.take("="):
            left = left.plus(reader.sum(), -1.0)
        forms.append(left)
        labels.append(text[start : reader.behind].strip())
        if not reader.take(","):
            break
    reader.expect_end()
    L = np.array([form.weights for form in forms])
    return Hypotheses(L, np.array([0.0 - form.constant for form in forms]), tuple(labels))


def _tokens(text: str, names: Sequence[str], dropped: Sequence[str]) -> list[_Token]:
    """Cut the text, taking the longest coefficient name that fits at each place."""
    by_length = sorted(names, key=len, reverse=True)
    tokens, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = _quoted_name(text, at, names, dropped) or _name_at(text, at, by_length, names)
        if token is None and (match := _NUMBER.match(text, at)) and not _touches_word(text, match.end()):
            token = _Token("number", float(match.group()), match.span())
        if token is None and text[at] in "+-*/(),=":
            token = _Token(text[at], text[at], (at, at + 1))
        if token is None:
            _fail_unknown(text, at, names, dropped)
        tokens.append(token)
        at = token.span[1]
    return tokens


def _quoted_name(text: str, at: int, names: Sequence[str], dropped: Sequence[str]) -> _Token | None:
    if text[at] != "`":
        return None
    end = text.find("`", at + 1)
    name = text[at + 1 : end] if end > 0 else ""
    if name not in names:
        _fail_name(text, (at, end + 1 if end > 0 else len(text)), name, names, dropped)
    return _Token("name", names.index(name), (at, end + 1))


def _name_at(text: str, at: int, by_length: Sequence[str], names: Sequence[str]) -> _Token | None:
    for name in by_length:
        end = at + len(name)
        inside_word = _is_word(name[-1:]) and _touches_word(text, end)
        if name and text.startswith(name, at) and not inside_word:
            return _Token("name", names.index(name), (at, end))
    return None


def _is_word(character: str) -> bool:
    return character.isalnum() or character in ("_", ".")


def _touches_word(text: str, at: int) -> bool:
    return at < len(text) and _is_word(text[at])


def _fail_unknown(text: str, at: int, names: Sequence[str], dropped: Sequence[str]) -> NoReturn:
    match = re.compile(r"[^\s+\-*/(),=]+").match(text, at)
    end = match.end() if match else at + 1
    for name in sorted(dropped, key=len, reverse=True):
        if text.startswith(name, at):
            end = at + len(name)
    _fail_name(text, (at, end), text[at:end], names, dropped)


def _fail_name(text: str, span: tuple[int, int], name: str, names: Sequence[str], dropped: Sequence[str]) -> NoReturn:
    if name in dropped:
        raise ComparisonError(
            f"the coefficient of {name!r} is not estimable: other columns of X determine it\n{underline(text, span)}"
        )
    raise ComparisonError(
        f"there is no coefficient {name!r}\n{underline(text, span)}\n"
        f"  Coefficients: {listing(names)}. {did_you_mean(name, names)}".rstrip()
    )


@dataclass
class _Reader:
    """Recursive descent over sums and products of numbers and coefficients."""

    text: str
    tokens: list[_Token]
    p: int
    position: int = 0

    @property
    def here(self) -> int:
        return self.tokens[self.position].span[0] if self.position < len(self.tokens) else len(self.text)

    @property
    def behind(self) -> int:
        return self.tokens[self.position - 1].span[1] if self.position else 0

    def peek(self) -> str:
        return self.tokens[self.position].kind if self.position < len(self.tokens) else "end"

    def take(self, kind: str) -> bool:
        if self.peek() == kind:
            self.position += 1
            return True
        return False

    def fail(self, problem: str) -> NoReturn:
        span = self.tokens[self.position].span if self.position < len(self.tokens) else (len(self.text),) * 2
        raise ComparisonError(
            f"{problem}\n{underline(self.text, span)}\n  Write hypotheses as 'IQ = 2.2, 2 * SES - GS = 0'."
        )

    def expect_end(self) -> None:
        if self.peek() != "end":
            self.fail("this does not belong to a linear hypothesis")

    def sum(self) -> _Linear:
        total = self.product()
        while self.peek() in ("+", "-"):
            sign = 1.0 if self.take("+") else -float(self.take("-"))
            total = total.plus(self.product(), sign)
        return total

    def product(self) -> _Linear:
        value = self.unit()
        while True:
            if self.take("*") or self.peek() in ("name", "("):
                value = self._times(value, self.unit())
            elif self.take("/"):
                divisor = self.unit()
                if not divisor.is_number or divisor.constant == 0:
                    self.fail("only division by a number other than zero is linear")
                value = value.scaled(1.0 / divisor.constant)
            else:
                return value

    def _times(self, left: _Linear, right: _Linear) -> _Linear:
        if left.is_number:
            return right.scaled(left.constant)
        if not right.is_number:
            self.fail("a product of coefficients is not linear")
        return left.scaled(right.constant)

    def unit(self) -> _Linear:
        sign = 1.0
        while self.peek() in ("+", "-"):
            sign *= 1.0 if self.take("+") else -float(self.take("-"))
        weights = np.zeros(self.p)
        if self.peek() == "name":
            weights[self.tokens[self.position].value] = sign
            self.position += 1
            return _Linear(weights, 0.0)
        if self.peek() == "number":
            value = sign * self.tokens[self.position].value
            self.position += 1
            return _Linear(weights, value)
        if self.take("("):
            inner = self.sum()
            if not self.take(")"):
                self.fail("a closing parenthesis is missing")
            return inner.scaled(sign)
        self.fail("a coefficient or a number is missing")
