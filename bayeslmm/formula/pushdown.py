"""A formula met by data that stay in an engine: two scans of sums, and the few rows that stand for all of them.

The first scan counts rows, missing values and moments; the second groups by the grouping factors and the categories of
the formula and sums products of its numbers, centred and scaled before. Within a cell of that grouping, the rows
matter to a Gaussian model only through `[1 w]'[1 w]` of their numbers w. Any rows with the same products serve, and the
rows of its Cholesky factor are the fewest: they *condense* the cell by an orthogonal transformation of its rows. For
other families the cells are the distinct rows themselves, with their number as weight.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import or_
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, FormulaError, SourceChangedError, listing
from bayeslmm.formula import checks
from bayeslmm.formula.columns import Coding, Matrix, learn, model_matrix, side_factors
from bayeslmm.formula.design import (
    Condensed,
    Design,
    Encoder,
    GroupTerm,
    _expand_fixed,
    _group_column,
    _group_names,
    _right_names,
    _take_columns,
    design_of_frame,
)
from bayeslmm.formula.expressions import columns_of, is_text, learn_state, moment_calls, number
from bayeslmm.formula.frame import Table, named_column
from bayeslmm.formula.functions import State
from bayeslmm.formula.grouping import joint_levels
from bayeslmm.formula.parse import known_columns, side_names
from bayeslmm.formula.source import Elsewhere, Source, complete, missing, open_source
from bayeslmm.formula.syntax import Call, Name, Node, parse_syntax, render
from bayeslmm.formula.terms import Formula

Floats = NDArray[np.float64]

MAX_CELLS = 20_000_000
"""Most cells that are fetched; each takes about 100 bytes."""

_RANGE = ("min", "mean", "max")

ROUNDING = 2e-16
"""An eigenvalue of the products of a cell below this part of their trace is rounding."""

CHUNK = 200_000
"""Cells whose products are taken apart at once."""


@dataclass(frozen=True, eq=False)
class Side:
    """A right-hand side split into what differs between cells and what is summed.

    Parameters
    ----------
    matrix : Matrix
        Columns for each combination of categories, every number being 1.
    products : tuple of tuple of (str, int)
        For each column the numbers multiplied in it: label of the factor and which of its columns.
    """

    matrix: Matrix
    products: tuple[tuple[tuple[str, int], ...], ...]


def source_design(
    formula: Formula, data: Any, *, weights: Any = None, offset: Any = None, family: str | None = None
) -> Design:
    """Let a formula meet a table that stays in its engine.

    Parameters
    ----------
    formula : Formula
        The formula.
    data : Ibis table, DuckDB relation, Polars LazyFrame, path or Source
        The table.
    weights, offset : str, optional
        Columns.
    family : str, optional
        The family; gaussian when absent.

    Returns
    -------
    Design
        Without rows; `condensed` holds those that stand for them.

    Raises
    ------
    DataError
        If the data do not fit the formula, or there are too many cells.
    FormulaError
        If the engine cannot compute a function.
    """
    for role, given in (("weights", weights), ("offset", offset)):
        if given is not None and not isinstance(given, str):
            raise DataError(f"{role} of a table that stays in its engine must be the name of a column.")
    opened = open_source(data)
    source = Source(opened.table, opened.dialect, opened.execute, lazily=opened.lazily)
    return Pushdown(formula, source, weights, offset, family).design()


class Pushdown:
    """The scans of one formula over one source."""

    def __init__(
        self,
        formula: Formula,
        source: Source,
        weights: str | None,
        offset: str | None,
        family: str | None,
        also: tuple[str, ...] = (),
    ) -> None:
        self.formula, self.source, self.family = formula, source, family
        self.weights, self.offset, self.also = weights, offset, also
        self.table = source.table
        names = Table(tuple(self.table.columns), 0, None)
        known_columns(formula, names.names)
        for role, given in (("weights", weights), ("offset", offset)):
            named_column(given, role, names.names)  # type: ignore[arg-type]
        self.fixed = _expand_fixed(formula, names, weights, offset)
        self.names = _right_names(self.fixed, formula)
        self.response_names = side_names(formula.response)
        extra = [name for name in (weights, offset) if name is not None]
        self.used = tuple(dict.fromkeys((*self.response_names, *self.names, *_group_names(formula), *extra)))
        self.states: State = {}
        self.missing: dict[str, int] = {}
        self.n_total = self.n = 0
        self.cells: int | None = None

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """What the second scan groups by: for a Gaussian model, what is not summed; else every column."""
        if self.counted:
            return (*self.used, *self.also)
        return tuple(dict.fromkeys((*_group_names(self.formula), *self._category_columns(), *self.also)))

    @property
    def counted(self) -> bool:
        """Whether the rows are counted, not summed."""
        return self.family not in (None, "gaussian")

    @property
    def sides(self) -> tuple[str, ...]:
        """The right-hand sides: fixed, then of each random term."""
        return (self.fixed, *(term.columns for term in self.formula.random))

    def design(self) -> Design:
        """Run the scans."""
        if self.counted and self.family not in ("bernoulli", "binomial", "poisson"):
            raise DataError(
                f'family "{self.family}" needs the rows; data that stay in their engine serve gaussian, bernoulli, '
                "binomial and poisson.\n  Fetch the rows: blm.model(formula, table.to_pandas(), ...)."
            )
        if not self.counted and (self.weights or self.offset or self.formula.offsets):
            raise DataError(
                "weights and offsets of a gaussian model are not summed by the engine.\n"
                "  Subtract an offset from the response: I(y - o) ~ ...; with weights fetch the rows."
            )
        self._check_expressions()
        return self._counted_design() if self.counted else self._gaussian_design()

    def split(self, by: str) -> Condensed:
        """Return the condensed rows of the same model with cells that a further column tells apart: two more scans."""
        again = Pushdown(self.formula, self.source, self.weights, self.offset, self.family, (*self.also, by)).design()
        if again.n != self.n:
            raise SourceChangedError(
                f"the source changed since the model was built: {self.n:,} complete rows then, {again.n:,} now.\n"
                "  Fit from a snapshot, or a table nobody writes to."
            )
        assert again.condensation is not None
        return again.condensation

    def _check_expressions(self) -> None:
        for name in self.names:
            is_text(self.table, name)
        for label, node in self.factors.items():
            if not self.is_category(node) and not any(True for _ in moment_calls(node)):
                columns_of(node, self.table, {}, self.formula.text)
            elif self.is_category(node) and isinstance(node, Call) and not isinstance(node.arguments[0][1], Name):
                raise FormulaError(f"{label}: the engine groups by columns; compute the categories there before.")

    @property
    def factors(self) -> dict[str, Node]:
        """Factors of all right-hand sides by label."""
        return {label: node for side in self.sides for label, node in side_factors(side).items()}

    def is_category(self, node: Node) -> bool:
        """Whether a factor is coded by its levels."""
        if isinstance(node, Call):
            return node.function in ("C", "factor")
        return isinstance(node, Name) and is_text(self.table, node.name)

    # --- the scans -------------------------------------------------------------------------------------------------

    def _first_scan(self, numbers: Sequence[Any]) -> tuple[Floats, Floats]:
        """Count rows and missing values; return mean and SD of numbers over the complete rows."""
        t = self.table
        gone = {f"m{i}": missing(t, name) for i, name in enumerate(self.used)}
        floating = [name for name in self.used if t[name].type().is_floating()]
        infinite = {f"i{i}": t[name].isinf() for i, name in enumerate(floating)}
        keys = {f"k{i}": t[name] for i, name in enumerate(self.keys if self.cells is None else ())}
        t = t.select(**keys, **gone, **infinite, **{f"w{i}": value for i, value in enumerate(numbers)})
        whole = ~reduce(or_, (t[label] for label in gone))
        t = t.mutate(whole=whole)
        sums = {"n_total": t.count(), "n": t.whole.cast("int64").sum()}
        sums |= {label: t[label].cast("int64").sum() for label in (*gone, *infinite)}
        if keys:
            sums["cells"] = self.source.distinct(t, list(keys), t.whole)
        for i in range(len(numbers)):
            w = t[f"w{i}"]
            sums |= {f"a{i}": w.mean(where=t.whole), f"v{i}": w.var(how="pop", where=t.whole)}
            sums |= {f"c{i}": w.count(where=t.whole)}
        found = self.source.run(t.aggregate(**sums), "first scan: rows, missing values, moments").iloc[0]
        self.n_total, self.n = int(found["n_total"]), int(found["n"] or 0)
        self.missing = {name: int(found[f"m{i}"]) for i, name in enumerate(self.used) if found[f"m{i}"]}
        if keys:
            self.cells = int(found["cells"])
        if self.n_total == 0:
            raise DataError("the data have no rows.")
        if self.n == 0:
            shown = listing(f"{name} {count}" for name, count in self.missing.items())
            raise DataError(f"every one of the {self.n_total} rows has a missing value.\n  Missing: {shown}.")
        for i, name in enumerate(floating):
            if found[f"i{i}"]:
                raise DataError(
                    f"column {name!r} is infinite in {int(found[f'i{i}'])} rows.\n"
                    "  Infinity is not a missing value: correct it, or make it null to leave the rows out."
                )
        mean = np.array([float(found[f"a{i}"]) for i in range(len(numbers))])
        variance = np.array([float(found[f"v{i}"]) for i in range(len(numbers))])
        lost = [i for i in range(len(numbers)) if int(found[f"c{i}"]) != self.n]
        if lost or not np.isfinite(mean).all() or not np.isfinite(variance).all():
            raise DataError(
                "a function of the formula was taken outside its domain, such as log() of zero or less.\n"
                "  Correct the column in the engine, or filter these rows out."
            )
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def _learn_states(self) -> None:
        """Let `scale` and `center` learn their moments, inner calls first: one scan per depth."""
        calls = {render(call): call for node in self.factors.values() for call in moment_calls(node)}
        if self.offset is None and self.formula.offsets:
            calls |= {render(c): c for text in self.formula.offsets for c in moment_calls(parse_syntax(text))}
        while waiting := {label: call for label, call in calls.items() if label not in self.states}:
            ready = [
                call
                for call in waiting.values()
                if all(render(inner) in self.states for inner in moment_calls(call.arguments[0][1]))
            ]
            values = [number(call.arguments[0][1], self.table, self.states, self.formula.text) for call in ready]
            mean, spread = self._first_scan(values)
            for call, m, s in zip(ready, mean, spread, strict=True):
                self.states[render(call)] = learn_state(
                    call, float(m), float(s * s) * self.n, self.n, self.formula.text
                )

    def _cells(self, sums: Mapping[str, Any]) -> pd.DataFrame:
        """Group the complete rows by keys; check that the rows are those of the first scan."""
        self._check_cells()
        keys = self.keys
        t = complete(self.table, self.used, self.missing)
        if sums:
            t = t.select(*keys, **sums)
        measures = {"n__": t.count()}
        labels = list(sums)
        for i, first in enumerate(labels):
            measures[f"s{i}"] = t[first].sum()
            for j in range(i, len(labels)):
                measures[f"s{i}_{j}"] = (t[first] * t[labels[j]]).sum()
        query = t.group_by(*keys).aggregate(**measures) if keys else t.aggregate(**measures)
        found = self.source.run(query, "second scan: sums by cell")
        if int(found["n__"].sum()) != self.n:
            raise SourceChangedError(
                f"the source changed while it was read: {self.n:,} complete rows in the first scan, "
                f"{int(found['n__'].sum()):,} in the second.\n  Fit from a snapshot, or a table nobody writes to."
            )
        return found

    def _check_cells(self) -> None:
        """Refuse more cells than are fetched, as the first scan estimated them."""
        if self.n > MAX_CELLS and self.cells is not None and self.cells > 1.1 * MAX_CELLS:
            raise DataError(
                f"{listing(map(repr, self.keys))} make about {self.cells:,} cells; {MAX_CELLS:,} are the limit.\n"
                "  Use fewer or coarser grouping factors and categories, or bin a numeric covariate in the engine."
            )

    def spanning(self, rows: Design) -> pd.DataFrame:
        """Return made-up rows: every combination of categories that occurs, with numbers from the columns' ranges."""
        categories = list(self._category_columns())
        numeric = [name for name in self.names if name not in categories]
        t = complete(self.table, self.used, self.missing)
        sums: dict[str, Any] = {
            f"{how}{i}": getattr(t[name], how)() for i, name in enumerate(numeric) for how in _RANGE
        }
        sums = sums or {"rows": t.count()}
        found = self.source.run(
            t.group_by(*categories).aggregate(**sums) if categories else t.aggregate(**sums),
            "ranges of the columns, for tests of terms",
        )
        copies = 8 * (1 + len(numeric))
        frame = found.loc[found.index.repeat(copies)].reset_index(drop=True)
        rng = np.random.default_rng(0)
        picked = {
            name: np.choose(rng.integers(3, size=len(frame)), [frame[f"{how}{i}"].astype(float) for how in _RANGE])
            for i, name in enumerate(numeric)
        }
        groups = [name for name in _group_names(self.formula) if name not in (*categories, *numeric)]
        some = rows.data[groups].drop_duplicates().sample(6, replace=True, random_state=0)
        drawn = some.iloc[rng.integers(6, size=len(frame))].reset_index(drop=True)
        return frame[categories].assign(**picked, **{name: drawn[name] for name in groups})

    # --- counted families --------------------------------------------------------------------------------------------

    def _counted_design(self) -> Design:
        self._learn_states()
        if not self.n:
            self._first_scan([])
        cells = self._cells({})
        cells = cells.sort_values(list(self.used), ignore_index=True)
        counts = cells.pop("n__").to_numpy(dtype=np.float64)
        built = design_of_frame(self.formula, cells, self.weights, self.offset, self.family, self.states)
        weights = counts if built.weights is None else counts * built.weights
        sizes = {
            factor.name: np.bincount(factor.codes, counts, len(factor.levels)).astype(np.int64)
            for factor in built.factors
        }
        inner = replace(built, weights=weights, data=built.data.assign(**{name: cells[name] for name in self.also}))
        condensed = Condensed(inner, np.ones(len(counts)), counts, sizes, self.source, self)
        return self._without_rows(built, condensed)

    def _without_rows(self, built: Design, condensed: Condensed) -> Design:
        n = self.n

        def absent(name: str, shape: tuple[int, ...], columns: Sequence[str] = ()) -> Any:
            return Elsewhere(name, shape, columns)

        terms = tuple(
            replace(
                term,
                Z=absent(f"columns of {term.term}", (n, len(term.effects))),
                codes=absent(f"levels of {term.factor}", (n,)),
            )
            for term in built.terms
        )
        return replace(
            built,
            y=absent("response", (n,)),
            X=absent("columns of X", (n, len(built.coef_names))),
            terms=terms,
            weights=None if built.weights is None else absent("weights", (n,)),
            offset=None if built.offset is None else absent("offset", (n,)),
            trials=None if built.trials is None else absent("trials", (n,)),
            rows=absent("positions of rows", (n,)),
            n_total=self.n_total,
            missing=self.missing,
            data=absent("data", (n, len(self.used)), self.used),
            condensation=condensed,
        )

    # --- gaussian ----------------------------------------------------------------------------------------------------

    def _gaussian_design(self) -> Design:
        text = self.formula.text
        self._learn_states()
        categories = self._category_columns()
        response = parse_syntax(self.formula.response)
        if isinstance(response, Name) and is_text(self.table, response.name):
            raise DataError(f'the response {response.name!r} holds text, and family "gaussian" needs numbers.')
        numbers = {
            (label, i): value
            for label, node in self.factors.items()
            if not self.is_category(node)
            for i, value in enumerate(columns_of(node, self.table, self.states, text))
        }
        products = self._products(numbers)
        values = [_product(numbers, product) for product in products]
        values.append(number(response, self.table, self.states, text))
        mean, spread = self._first_scan(values)
        if spread[-1] == 0.0:
            raise DataError(f"the response {self.formula.response!r} is {mean[-1]:g} in every row.")
        step = np.exp2(np.round(np.log2(np.where(spread > 0, spread, 1.0))))
        scaled = {
            f"w{i}": (value - float(m)) * float(1.0 / s)
            for i, (value, m, s) in enumerate(zip(values, mean, step, strict=True))
        }
        cells = self._cells(scaled)
        return self._condense(cells, categories, products, mean, step, numbers)

    def _category_columns(self) -> tuple[str, ...]:
        found = []
        for node in self.factors.values():
            if self.is_category(node):
                inner = node.arguments[0][1] if isinstance(node, Call) else node
                assert isinstance(inner, Name)
                found.append(inner.name)
        return tuple(dict.fromkeys(found))

    def _products(self, numbers: Mapping[tuple[str, int], Any]) -> list[tuple[tuple[str, int], ...]]:
        """Return every product of numbers that stands in a column, by trying the terms on one made-up row."""
        found: dict[tuple[tuple[str, int], ...], None] = {}
        for side in dict.fromkeys(self.sides):
            for products in self._terms_of(side, numbers):
                found.setdefault(products)
        found.pop((), None)
        return list(found)

    def _terms_of(self, side: str, numbers: Mapping[tuple[str, int], Any]) -> list[tuple[tuple[str, int], ...]]:
        """Return the products of numbers in the terms of a side, whatever its categories."""
        labels = side_factors(side)
        widths = {label: 1 + max((i for name, i in numbers if name == label), default=0) for label in labels}
        numeric = {label for label, _ in numbers}
        given = {label: np.ones((1, widths[label])) if widths[label] > 1 else np.ones(1) for label in labels}
        base = model_matrix(side, {}, {}, 1, given=given)
        return _marks(side, {}, {}, 1, given, base.values, numeric)

    def _side(self, side: str, values: Mapping[str, Any], n: int, numbers: Mapping[tuple[str, int], Any]) -> Side:
        labels = [label for label, node in side_factors(side).items() if not self.is_category(node)]
        widths = {label: 1 + max(i for name, i in numbers if name == label) for label in labels}
        given = {label: np.ones((n, width)) if width > 1 else np.ones(n) for label, width in widths.items()}
        matrix = model_matrix(side, values, self.states, n, text=self.formula.text, given=given)
        marks = _marks(side, values, self.states, n, given, matrix.values, set(labels))
        return Side(matrix, tuple(marks))

    def _condense(
        self,
        cells: pd.DataFrame,
        categories: Sequence[str],
        products: Sequence[tuple[tuple[str, int], ...]],
        mean: Floats,
        step: Floats,
        numbers: Mapping[tuple[str, int], Any],
    ) -> Design:
        formula = self.formula
        columns = {name: _group_column(cells[name], name) for name in _group_names(formula)}
        factors = {
            term.group: joint_levels([columns[name] for name in term.group], term.factor) for term in formula.random
        }
        combos, combo = _combinations(cells, categories)
        coding, values = learn(combos, tuple(categories))
        levels = {name: () if is_text(self.table, name) else None for name in self.names} | dict(coding.levels)
        coding = Coding(levels, self.states)
        sides = {side: self._side(side, values, len(combos), numbers) for side in dict.fromkeys(self.sides)}

        counts = cells["n__"].to_numpy(dtype=np.int64)
        order = np.lexsort([levels.codes for levels in factors.values()][::-1]) if factors else np.arange(len(counts))
        roots, cell = cell_roots(cells, counts, len(mean), order)
        ones, combo_of = roots[:, 0].copy(), combo[cell]
        place = {product: i for i, product in enumerate(products)}

        def column(product: tuple[tuple[str, int], ...]) -> Floats:
            if not product:
                return ones
            i = place[product]
            return mean[i] * ones + step[i] * roots[:, i + 1]

        built = {side: _fill(found, combo_of, column) for side, found in sides.items()}
        y = mean[-1] * ones + step[-1] * roots[:, -1]
        X = built[self.fixed]
        kept = checks.independent_columns(X)
        matrix = sides[self.fixed].matrix
        dropped = np.delete(np.arange(X.shape[1]), kept)
        terms = tuple(
            GroupTerm(
                term,
                sides[term.columns].matrix.names,
                built[term.columns],
                factors[term.group].codes[cell],
                factors[term.group].labels,
            )
            for term in formula.random
        )
        encoder = Encoder(
            coding=coding,
            response_states=self.states,
            fixed=matrix.recipe,
            kept=kept,
            random=tuple(sides[term.columns].matrix.recipe for term in formula.random),
            names=self.names,
            weights=None,
            offset=None,
            offset_was_array=False,
            family=self.family,
        )
        inner = Design(
            formula=formula,
            y=y,
            X=_take_columns(X, kept),
            coef_names=tuple(matrix.names[i] for i in kept),
            terms=terms,
            weights=None,
            offset=None,
            rows=np.arange(len(y)),
            n_total=len(y),
            missing={},
            dropped_columns=tuple(matrix.names[i] for i in dropped),
            response_name=formula.response,
            data=cells[list(self.keys)].iloc[cell].reset_index(drop=True),
            encoder=encoder,
        )
        sizes = {
            term.factor: np.bincount(factors[term.group].codes, counts, len(factors[term.group].labels)).astype(
                np.int64
            )
            for term in formula.random
        }
        condensed = Condensed(inner, ones, np.ones(len(ones)), sizes, self.source, self)
        _check_condensed(inner, ones, self.n)
        return self._without_rows(inner, condensed)


def _product(numbers: Mapping[tuple[str, int], Any], product: tuple[tuple[str, int], ...]) -> Any:
    value = numbers[product[0]]
    for other in product[1:]:
        value = value * numbers[other]
    return value


def _marks(
    side: str,
    values: Mapping[str, Any],
    states: State,
    n: int,
    given: Mapping[str, Floats],
    base: Floats,
    numeric: set[str],
) -> list[tuple[tuple[str, int], ...]]:
    """Return which numbers are factors of each column: doubling one doubles the columns that hold it."""
    products: list[list[tuple[str, int]]] = [[] for _ in range(base.shape[1])]
    size = np.abs(base).sum(axis=0)
    for label, ones in given.items():
        if label not in numeric:
            continue
        for i in range(ones.shape[1] if ones.ndim == 2 else 1):
            doubled = ones.copy()
            doubled[..., i if ones.ndim == 2 else slice(None)] = 2.0
            other = model_matrix(side, values, states, n, given={**given, label: doubled}).values
            for column in np.flatnonzero(np.abs(other).sum(axis=0) > 1.5 * size):
                products[column].append((label, i))
    return [tuple(sorted(found)) for found in products]


def _combinations(cells: pd.DataFrame, categories: Sequence[str]) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Return the combinations of categories that occur, and which of them each cell has."""
    if not categories:
        return pd.DataFrame(index=pd.RangeIndex(1)), np.zeros(len(cells), dtype=np.intp)
    groups = cells.groupby(list(categories), sort=True, observed=True)
    codes: NDArray[np.intp] = np.asarray(groups.ngroup(), dtype=np.intp)
    _, first = np.unique(codes, return_index=True)
    return cells[list(categories)].iloc[np.asarray(first)].reset_index(drop=True), codes


def _fill(side: Side, combo: NDArray[np.intp], column: Any) -> Floats:
    out = np.empty((len(combo), len(side.products)))
    for i, product in enumerate(side.products):
        coding = side.matrix.values[:, i]
        value = column(product)
        out[:, i] = value if (coding == 1.0).all() else coding[combo] * value
    return out


def cell_roots(
    cells: pd.DataFrame, counts: NDArray[np.int64], width: int, order: NDArray[np.intp]
) -> tuple[Floats, NDArray[np.intp]]:
    """Return the fewest rows with the products of each cell.

    Parameters
    ----------
    cells : DataFrame
        Sums `s<i>` and sums of products `s<i>_<j>` by cell.
    counts : ndarray (C,)
        Rows of each cell.
    width : int
        How many numbers m.
    order : ndarray (C,)
        In which order the cells come.

    Returns
    -------
    roots : ndarray (P, m + 1)
        Rows R with R'R = [1 w]'[1 w] for each cell; the first column is what became of the ones.
    cell : ndarray (P,)
        The cell of each row.
    """
    n = counts[order].astype(np.float64)
    sums = np.column_stack([cells[f"s{i}"].to_numpy(dtype=np.float64)[order] for i in range(width)])
    root = np.sqrt(n)
    rows, owner = [np.column_stack([root, sums / root[:, None]])], [np.arange(len(n))]
    several = np.flatnonzero(n > 1)
    parts = np.array_split(several, 1 + len(several) // CHUNK)

    def apart(part: NDArray[np.intp]) -> tuple[Floats, Any]:
        scatter, whole = _scatter(cells, order[part], n[part], sums[part])
        return whole, np.linalg.eigh(scatter)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # eigh of many small matrices lets other threads run
        found = list(pool.map(apart, parts))
    for part, (whole, (size, direction)) in zip(parts, found, strict=True):
        for i in range(width):  # ascending: the last eigenvalues are the largest
            good = (size[:, i] > ROUNDING * whole) & (width - i < n[part])
            row = np.zeros((int(good.sum()), width + 1))
            row[:, 1:] = np.sqrt(size[good, i])[:, None] * direction[good, :, i]
            rows.append(row)
            owner.append(part[good])
    position = np.concatenate(owner)
    by_cell = np.argsort(position, kind="stable")
    return np.concatenate(rows)[by_cell], order[position[by_cell]]


def _scatter(cells: pd.DataFrame, at: NDArray[np.intp], n: Floats, sums: Floats) -> tuple[Floats, Floats]:
    """Return products about the means of cells, and the trace of the products before."""
    width = sums.shape[1]
    scatter = np.empty((len(at), width, width))
    whole = np.zeros(len(at))
    for i in range(width):
        for j in range(i, width):
            second = cells[f"s{i}_{j}"].to_numpy(dtype=np.float64)[at]
            if i == j:
                whole += second
            scatter[:, i, j] = scatter[:, j, i] = second - sums[:, i] * sums[:, j] / n
    return scatter, whole


def _check_condensed(inner: Design, ones: Floats, n: int) -> None:
    checks.check_degrees_of_freedom(n, inner.coef_names)
    for term in inner.terms:
        checks.check_levels(term)
        if len(term.levels) == n:
            checks.check_residual(term, None)
        else:
            checks.warn_constant_slopes(term, ones)
        if len(term.effects) > 1 and len(term.levels) * len(term.effects) >= n:
            checks.warn_many_effects(term)
    checks.check_distinct_effects(inner.terms, inner.formula.text)
    checks.check_distinct_factors(inner.terms, inner.formula.text)
    checks.warn_single_levels(inner.encoder.coding.levels)
    checks.warn_dropped(inner.dropped_columns)
