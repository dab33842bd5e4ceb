"""The response: numbers, truth values, counts of trials or ordered categories, as the family needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, FormulaError, listing
from bayeslmm.formula.functions import State, Value, evaluate
from bayeslmm.formula.grouping import as_categorical
from bayeslmm.formula.syntax import Call, parse_syntax, render

Floats = NDArray[np.float64]

COUNTED = ("binomial", "beta_binomial", "zero_inflated_binomial")
CATEGORICAL = ("cumulative", "sratio", "cratio", "acat", "categorical")


STATUSES = {"left": -1, "none": 0, "right": 1}


@dataclass(frozen=True, eq=False)
class Limits:
    """What is known of each response beside its value: on which side it was cut off, or where none could be seen.

    Parameters
    ----------
    kind : {"censored", "truncated"}
        Censored: at a finite limit the response is known to lie there or beyond. Truncated: responses outside the
        limits were never recorded.
    lower, upper : ndarray (n,)
        Limits; infinite where there is none.
    """

    kind: str
    lower: Floats
    upper: Floats

    def rows(self, index: Any) -> Limits:
        """Return the limits of some rows."""
        return Limits(self.kind, self.lower[index], self.upper[index])


@dataclass(frozen=True)
class Response:
    """The response of the rows kept.

    Parameters
    ----------
    y : ndarray (n,)
        Values; proportions of trials; codes of categories.
    trials : ndarray (n,) or None
        Trials per row of a binomial response.
    levels : tuple of str
        Categories of a categorical response, or the two values of a binary one; empty for numbers.
    limits : Limits or None
        Of a censored or truncated response.
    """

    y: Floats
    trials: Floats | None = None
    levels: tuple[str, ...] = ()
    limits: Limits | None = None


def read_response(
    side: str,
    values: Mapping[str, Value],
    states: State,
    family: str | None,
    *,
    trials: Floats | None = None,
    text: str | None = None,
) -> Response:
    """Compute the response.

    Parameters
    ----------
    side : str
        Left-hand side.
    values : mapping of str to ndarray (n,) or Categorical
        Columns of the data.
    states : mapping
        States of stateful functions.
    family : str or None
        Name of the family; None stands for gaussian, or for binomial where `cbind` or `prop` says so.
    trials : ndarray (n,), optional
        Weights of a binomial response given as a proportion.
    text : str, optional
        The whole formula, for carets; the left-hand side when absent.

    Returns
    -------
    Response
        Values, trials, levels.

    Raises
    ------
    DataError
        If the column does not fit the family.
    FormulaError
        If `cbind` or `prop` is used with another family.

    Examples
    --------
    >>> values = {"k": np.array([1.0, 2.0]), "n": np.array([2.0, 8.0])}
    >>> read_response("prop(k, n)", values, {}, "binomial").y
    array([0.5 , 0.25])
    """
    node = parse_syntax(side)
    text = side if text is None else text
    if isinstance(node, Call) and node.function in ("cbind", "prop"):
        return _counted(node, values, states, family, text)
    if isinstance(node, Call) and node.function in ("censored", "truncated"):
        return _limited(node, values, states, family, text)
    value = evaluate(node, values, states, text)
    name = render(node, quoted=False)
    if family in CATEGORICAL:
        return _categories(value)
    if family == "bernoulli" or (family == "binomial" and not _is_number(value)):
        return _binary(value, name)
    numbers = _numbers(value, name, family)
    if family == "binomial":
        return _proportion(numbers, trials, name)
    return Response(numbers)


def _limited(node: Call, values: Mapping[str, Value], states: State, family: str | None, text: str) -> Response:
    if family in (*COUNTED, *CATEGORICAL, "bernoulli"):
        raise FormulaError(f'{node.function}() is for numbers on a scale, not for family "{family}".')
    (_, first), *others = node.arguments
    y = _numbers(evaluate(first, values, states, text), render(first, quoted=False), family)
    if node.function == "censored":
        status = _statuses(evaluate(others[0][1], values, states, text), render(others[0][1], quoted=False))
        return Response(y, limits=Limits("censored", np.where(status < 0, y, -np.inf), np.where(status > 0, y, np.inf)))
    keys = [key or ("lb", "ub")[position] for position, (key, _) in enumerate(others)]
    bounds = {
        key: np.broadcast_to(np.asarray(evaluate(bound, values, states, text), dtype=np.float64), y.shape)
        for key, (_, bound) in zip(keys, others, strict=True)
    }
    limits = Limits(
        "truncated",
        np.array(bounds.get("lb", np.full(y.shape, -np.inf))),
        np.array(bounds.get("ub", np.full(y.shape, np.inf))),
    )
    outside = (y < limits.lower) | (y > limits.upper) | (limits.lower >= limits.upper)
    if np.any(outside):
        raise DataError(
            f"the response lies outside its bounds of truncation in {_rows(outside)}.\n"
            "  Such responses could not have been recorded: correct the bounds, or write censored(y, status)."
        )
    return Response(y, limits=limits)


def _statuses(value: Any, name: str) -> NDArray[np.int64]:
    """Return -1, 0 or 1 per row for left, none and right."""
    category = value if isinstance(value, pd.Categorical) else as_categorical(value)
    known = {**STATUSES, **{str(code): code for code in STATUSES.values()}}
    unknown = [str(level) for level in category.categories if str(level) not in known]
    if unknown:
        interval = "\n  Interval censoring has no likelihood in PyMC." * ("interval" in unknown)
        raise DataError(
            f"the status {name!r} of a censored response holds {listing(map(repr, unknown))}, not one of "
            f"{listing(map(repr, STATUSES))}.{interval}"
        )
    codes = np.array([known[str(level)] for level in category.categories], dtype=np.int64)
    return codes[category.codes]


def _is_number(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype != np.bool_


def _numbers(value: Any, name: str, family: str | None) -> Floats:
    if isinstance(value, pd.Categorical):
        levels = listing(map(repr, value.categories))
        way_out = (
            'For a response with two values: family="bernoulli".'
            if len(value.categories) == 2
            else 'For ordered categories: family="cumulative".'
        )
        raise DataError(
            f"the response {name!r} holds text or categories ({levels}), and family "
            f'"{family or "gaussian"}" needs numbers.\n  {way_out}'
        )
    numbers = np.asarray(value, dtype=np.float64)
    bad = int(np.count_nonzero(~np.isfinite(numbers)))
    if bad:
        raise DataError(
            f"the response {name!r} is not a finite number in {bad} row{'s' * (bad != 1)}.\n"
            "  A function was taken outside its domain, such as log() of zero or less."
        )
    return numbers


def _categories(value: Any) -> Response:
    category = value if isinstance(value, pd.Categorical) else as_categorical(value)
    return Response(category.codes.astype(np.float64), levels=tuple(category.categories))


def _binary(value: Any, name: str) -> Response:
    if isinstance(value, pd.Categorical):
        if len(value.categories) == 1:
            raise DataError(
                f"the response {name!r} has one class only: every value is {value.categories[0]!r}.\n"
                "  There is nothing to explain. Was a filter applied to the rows?"
            )
        if len(value.categories) != 2:
            raise DataError(
                f"the response {name!r} has {len(value.categories)} levels ({listing(map(repr, value.categories))}), "
                'and family "bernoulli" needs two.\n  For ordered categories: family="cumulative".'
            )
        return Response(value.codes.astype(np.float64), levels=tuple(value.categories))
    numbers = np.asarray(value, dtype=np.float64)
    other = numbers[(numbers != 0) & (numbers != 1)]
    if other.size:
        raise DataError(
            f'the response {name!r} must be 0 or 1 for family "bernoulli"; {other.size} row'
            f"{'s hold' if other.size != 1 else ' holds'} something else, e.g. {other[0]:g}.\n"
            '  For k successes in n trials: cbind(k, n - k) or prop(k, n) with family="binomial".'
        )
    return Response(numbers, levels=("False", "True") if np.asarray(value).dtype == np.bool_ else ())


def _proportion(numbers: Floats, trials: Floats | None, name: str) -> Response:
    outside = (numbers < 0) | (numbers > 1)
    if np.any(outside):
        raise DataError(
            f'the response {name!r} of family "binomial" is not between 0 and 1 in {_rows(outside)}.\n'
            "  For k successes in n trials write cbind(k, n - k) or prop(k, n)."
        )
    if trials is not None:
        _check_counts(np.round(numbers * trials, 6), trials, f"{name} * weights")
        return Response(numbers, trials)
    if np.any((numbers != 0) & (numbers != 1)):
        raise DataError(
            f"the response {name!r} holds proportions, and the number of trials is not known.\n"
            "  Write cbind(k, n - k) or prop(k, n), or give the trials as weights."
        )
    return Response(numbers)


def _counted(node: Call, values: Mapping[str, Value], states: State, family: str | None, text: str) -> Response:
    if family is not None and family not in COUNTED:
        raise FormulaError(f'{node.function}() is a response of family "binomial", not of "{family}".')
    first, second = (
        _numbers(evaluate(argument, values, states, text), render(argument), "binomial")
        for _, argument in node.arguments
    )
    if node.function == "cbind":
        name = render(node.arguments[1][1])
        if np.any(second < 0):
            raise DataError(
                f"{name} is negative in {_rows(second < 0)}: cbind() takes successes and failures.\n"
                "  For successes and trials write cbind(k, n - k) or prop(k, n)."
            )
        second = first + second
    successes, trials = np.broadcast_arrays(first, second)
    _check_counts(successes, trials, render(node.arguments[0][1]))
    return Response(successes / trials, np.array(trials))


def _check_counts(successes: Floats, trials: Floats, name: str) -> None:
    problems = (
        (trials <= 0, "there are no trials"),
        (successes < 0, f"{name} is negative"),
        ((successes != np.round(successes)) | (trials != np.round(trials)), "successes or trials are no whole numbers"),
        (successes > trials, f"{name} is larger than the number of trials"),
    )
    for mask, problem in problems:
        if np.any(mask):
            way_out = "Leave the rows out." if problem == "there are no trials" else "Correct the counts."
            raise DataError(f"{problem} in {_rows(mask)}.\n  {way_out}")


def _rows(mask: NDArray[np.bool_]) -> str:
    count = int(np.count_nonzero(mask))
    return f"{count} row{'s' * (count != 1)} (the first is row {int(np.argmax(mask))} of those used)"
