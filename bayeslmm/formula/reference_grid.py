"""Estimated marginal means as linear forms of the coefficients: averages of rows of X over a grid of factor levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import ComparisonError, did_you_mean, listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design

ESTIMABLE = 1e-7
LARGEST_GRID = 100_000


@dataclass(frozen=True)
class ReferenceMeans:
    """Means over a balanced grid as linear forms of the coefficients.

    Parameters
    ----------
    labels : tuple of str
        One per mean.
    grid : DataFrame
        Values of the factors asked for, one row per mean.
    L : ndarray (q, p)
        The linear forms; NaN where a mean is not estimable.
    offset : float
        Average offset, part of each mean.
    notes : tuple of str
        What was averaged over.
    """

    labels: tuple[str, ...]
    grid: pd.DataFrame = field(repr=False)
    L: NDArray[np.float64] = field(repr=False)
    offset: float = 0.0
    notes: tuple[str, ...] = ()


def reference_means(
    design: Design,
    specs: str | Sequence[str],
    *,
    at: Mapping[str, Any] | None = None,
    weights: Literal["equal", "proportional"] = "equal",
) -> ReferenceMeans:
    """Return means over a balanced grid: other factors averaged, numeric columns at their mean.

    Parameters
    ----------
    design : Design
        The design.
    specs : str or sequence of str
        Factors whose levels, and combinations of levels, are wanted; also numeric columns with values in `at`.
    at : mapping of str to value or sequence, optional
        Values of columns in place of all levels or the mean.
    weights : {"equal", "proportional"}, default "equal"
        How levels of factors that are averaged over count: all the same, or as often as they occur.

    Returns
    -------
    ReferenceMeans
        The linear forms.

    Raises
    ------
    ComparisonError
        If a name is no column of the fixed part, or the grid is too large.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("score ~ Machine + (1 | Worker)", blm.datasets.load("Machines"))
    >>> reference_means(design, "Machine").L
    array([[1., 0., 0.],
           [1., 1., 0.],
           [1., 0., 1.]])
    """
    wanted = [specs] if isinstance(specs, str) else list(specs)
    values, factors = grid_values(design, at or {})
    for name in wanted:
        if name not in values:
            raise ComparisonError(
                f"{name!r} is no column of the fixed part.\n"
                f"  Columns: {listing(values)}. {did_you_mean(name, values)}".rstrip()
            )
    cells = pd.DataFrame(list(product(*values.values())), columns=list(values))
    for name, levels in values.items():
        cells[name] = cells[name].astype(pd.Series(levels).dtype)
    rows = grid_rows(design, cells)
    weight = _cell_weights(design, cells, [name for name in factors if name not in wanted], weights)
    keys = cells[wanted].apply(tuple, axis=1)
    kept = keys.drop_duplicates()
    L = np.array([np.average(rows[keys == key], axis=0, weights=weight[keys == key]) for key in kept])
    labels = tuple(
        " ".join(_cell_label(name, value, factors) for name, value in zip(wanted, key, strict=True)) for key in kept
    )
    others = [name for name in factors if name not in wanted]
    fixed = [f"{name} = {levels[0]:.4g}" for name, levels in values.items() if name not in factors and len(levels) == 1]
    how = "equal weights" if weights == "equal" else "weights as observed"
    notes = [f"Averaged over {listing(others)} ({how})."] if others else []
    notes += [f"At {listing(fixed)}."] if fixed else []
    notes += ["NaN: not estimable, some combination of levels does not occur."] if np.isnan(L).any() else []
    offset = 0.0 if design.offset is None else float(design.offset.mean())
    return ReferenceMeans(labels, cells[wanted].loc[kept.index].reset_index(drop=True), L, offset, tuple(notes))


def contrast_rows(
    weights: Mapping[str, Sequence[float]], labels: Sequence[str], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return linear combinations of means, NaN where one with a weight is not estimable.

    Parameters
    ----------
    weights : mapping of str to sequence of float (q,)
        One weight per mean, by name of the contrast.
    labels : sequence of str
        Names of the means.
    values : ndarray (q, m)
        The means: linear forms, or draws.

    Returns
    -------
    ndarray (k, m)
        The combinations.

    Raises
    ------
    ComparisonError
        If a contrast has not one weight for each mean.

    Examples
    --------
    >>> contrast_rows({"both": [1, 1, 0]}, ["a", "b", "c"], np.array([[1.0], [2.0], [np.nan]]))
    array([[3.]])
    """
    table = np.array([np.asarray(row, dtype=float) for row in weights.values()])
    if table.ndim != 2 or table.shape[1] != len(labels):
        raise ComparisonError(f"a contrast has one weight for each of the means: {listing(labels)}.")
    rows = table @ np.where(np.isnan(values), 0.0, values)
    rows[(np.abs(table) > 0) @ np.isnan(values).any(axis=1)] = np.nan
    return rows


def _cell_label(name: str, value: Any, factors: Sequence[str]) -> str:
    return str(value) if name in factors else f"{name}={value:g}"


def grid_values(design: Design, at: Mapping[str, Any]) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the values of each column of the fixed part on the grid, and which columns are factors.

    Parameters
    ----------
    design : Design
        The design.
    at : mapping
        Values chosen by the user.

    Returns
    -------
    values : dict of str to list
        All levels of a factor, the mean of a numeric column.
    factors : list of str
        Names of the factors.

    Raises
    ------
    ComparisonError
        If `at` names what is not there, or a level that was not in the data.
    """
    from bayeslmm.formula.parse import side_names

    used = set(side_names(design.encoder.fixed.text))
    levels = {name: kinds for name, kinds in design.encoder.coding.levels.items() if name in used}
    unknown = [name for name in at if name not in levels]
    if unknown:
        raise ComparisonError(
            f"at: {unknown[0]!r} is no column of the fixed part.\n"
            f"  Columns: {listing(levels)}. {did_you_mean(unknown[0], levels)}".rstrip()
        )
    coded_as_factors = _numbers_used_as_factors(design)
    values: dict[str, list[Any]] = {}
    factors = []
    for name, kinds in levels.items():
        column = design.data[name]
        if kinds is not None or name in coded_as_factors:
            factors.append(name)
            values[name] = list(kinds) if kinds is not None else sorted(column.unique())
        else:
            values[name] = [float(column.mean())]
        if name in at:
            chosen = (
                list(at[name])
                if isinstance(at[name], Sequence | np.ndarray) and not isinstance(at[name], str)
                else [at[name]]
            )
            absent = [value for value in chosen if name in factors and value not in values[name]]
            if absent:
                raise ComparisonError(f"at: {absent[0]!r} is no level of {name!r}.\n  Levels: {listing(values[name])}.")
            values[name] = chosen if name in factors else [float(value) for value in chosen]
    size = int(np.prod([len(levels) for levels in values.values()], dtype=float))
    if size > LARGEST_GRID:
        raise ComparisonError(
            f"the grid has {size:,} cells, more than {LARGEST_GRID:,}.\n"
            "  Give values in at= for factors with many levels."
        )
    return values, factors


def _numbers_used_as_factors(design: Design) -> set[str]:
    """Return numeric columns that stand in the formula as C(x) only."""
    from bayeslmm.formula.functions import column_names

    kinds = {name: kind.value for name, (kind, _) in design.encoder.fixed.spec.encoder_state.items()}
    as_factor: set[str] = set()
    as_number: set[str] = set()
    for label, node in design.encoder.fixed.atoms.items():
        names = {name.name for name in column_names(node)}
        (as_factor if kinds.get(label) == "categorical" else as_number).update(names)
    return as_factor - as_number


def grid_rows(design: Design, cells: pd.DataFrame) -> NDArray[np.float64]:
    """Return the row of X of each cell, NaN where it is not estimable.

    Parameters
    ----------
    design : Design
        The design.
    cells : DataFrame
        Values of the columns of the fixed part.

    Returns
    -------
    ndarray (cells, p)
        Rows of X in the coding of the fit.
    """
    encoder, names = design.encoder, tuple(cells.columns)
    states = encoder.coding.states
    rows = encoder.fixed.apply(encoder.coding.values(cells, names), states, len(cells))
    if rows.shape[1] == len(encoder.kept):
        return rows
    left_out = np.setdiff1d(np.arange(rows.shape[1]), encoder.kept)
    if "Intercept" not in design.coef_names:  # thresholds stand in its place
        left_out = np.setdiff1d(left_out, np.flatnonzero(np.asarray(encoder.fixed.spec.column_names) == "Intercept"))
    if not len(left_out):
        return rows[:, encoder.kept]
    full = encoder.fixed.apply(encoder.coding.values(design.data, names), states, design.n)
    relation = np.linalg.lstsq(full[:, encoder.kept], full[:, left_out], rcond=None)[0]
    gap = np.abs(rows[:, encoder.kept] @ relation - rows[:, left_out]).max(axis=1)
    kept = rows[:, encoder.kept]
    kept[gap > ESTIMABLE * max(1.0, float(np.abs(full).max()))] = np.nan
    return kept


def _cell_weights(design: Design, cells: pd.DataFrame, averaged: Sequence[str], weights: str) -> NDArray[np.float64]:
    if weights == "equal":
        return np.ones(len(cells))
    if weights != "proportional":
        raise ComparisonError(f'weights={weights!r} is not one of "equal", "proportional".')
    out = np.ones(len(cells))
    for name in averaged:
        share = design.data[name].astype(str).value_counts(normalize=True)
        out *= cells[name].astype(str).map(share).to_numpy(dtype=float)
    return out
