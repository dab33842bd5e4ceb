"""A design from matrices instead of a formula, as MATLAB's `fitlmematrix` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayeslmm.errors import DataError
from bayeslmm.formula.design import Design, build_design
from bayeslmm.formula.syntax import quote
from bayeslmm.formula.terms import Covariance, Formula, RandomTerm

Floats = NDArray[np.float64]


def design_from_arrays(
    y: ArrayLike,
    X: ArrayLike,
    terms: Sequence[tuple[Any, ...]],
    *,
    weights: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    coef_names: Sequence[str] | None = None,
) -> Design:
    """Name the columns of matrices and build the design of the formula that says the same.

    Parameters
    ----------
    y : array (n,)
        Response.
    X : array (n, p)
        Columns of the coefficients.
    terms : sequence of tuple
        ``(Z, groups)``, ``(Z, groups, name)`` or ``(Z, groups, name, covariance)``.
    weights, offset : array (n,), optional
        As in `build_design`.
    coef_names : sequence of str, length p, optional
        Names of the columns of X.

    Returns
    -------
    Design
        As from a formula.

    Raises
    ------
    DataError
        If shapes or names do not fit.

    Examples
    --------
    >>> design = design_from_arrays([1.0, 2.0, 4.0, 3.0], np.ones((4, 1)), [(np.ones(4), [1, 1, 2, 2], "g")])
    >>> design.formula.text
    'y ~ 0 + Intercept + (0 + Intercept | g)'
    """
    matrix = _matrix(X, "X")
    columns: dict[str, Any] = {"y": np.asarray(y, dtype=np.float64)}
    names = list(coef_names) if coef_names is not None else _default_names(matrix, "x")
    _add_columns(columns, matrix, names, "coef_names")
    random = []
    for position, entry in enumerate(terms, start=1):
        Z, groups = entry[:2]
        factor = entry[2] if len(entry) > 2 else f"g{position}"
        covariance = entry[3] if len(entry) > 3 else "us"
        block = _matrix(Z, f"Z of term {position}")
        effects = _default_names(block, f"z{position}_")
        _add_columns(columns, block, effects, f"effects of term {position}")
        _add_columns(columns, np.asarray(groups).reshape(-1, 1), [factor], f"the factor of term {position}")
        random.append(RandomTerm(_sum_of(effects), (factor,), _known_covariance(covariance)))
    fixed = _sum_of(names)
    text = " + ".join([f"y ~ {fixed}", *map(str, random)])
    return build_design(Formula(text, "y", fixed, tuple(random)), columns, weights=weights, offset=offset)


def _matrix(values: ArrayLike, name: str) -> Floats:
    matrix = np.asarray(values, dtype=np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2:
        raise DataError(f"{name} has shape {matrix.shape}; it must be a matrix.")
    return matrix


def _default_names(matrix: Floats, stem: str) -> list[str]:
    return [
        "Intercept" if np.all(column == 1) else f"{stem}{position}" for position, column in enumerate(matrix.T, start=1)
    ]


def _add_columns(columns: dict[str, Any], matrix: NDArray[Any], names: Sequence[str], what: str) -> None:
    if matrix.shape[1] != len(names):
        raise DataError(f"{what}: {len(names)} names for {matrix.shape[1]} columns.")
    for name, values in zip(names, matrix.T, strict=True):
        if name in columns and not np.array_equal(columns[name], values):
            raise DataError(f"{what}: the name {name!r} already stands for another column.")
        columns[name] = values


def _sum_of(names: Sequence[str]) -> str:
    return " + ".join(["0", *map(quote, names)])


def _known_covariance(covariance: str) -> Covariance:
    match covariance:
        case "us" | "diag" | "cs" | "ar1":
            return covariance
    raise DataError(f"{covariance!r} is no covariance structure; give 'us', 'diag', 'cs' or 'ar1'.")
