"""The linear predictor of a fitted model as an expression of the engine that holds the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product as combinations
from operator import or_
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.formula.columns import Recipe
from bayeslmm.formula.expressions import columns_of, number
from bayeslmm.formula.functions import State
from bayeslmm.formula.source import Source, missing
from bayeslmm.formula.syntax import Call, Name, parse_syntax

if TYPE_CHECKING:
    from bayeslmm.formula.design import Design, Factor

Floats = NDArray[np.float64]
Product = tuple[tuple[str, int], ...]

MAX_CASES = 20_000
"""Most combinations of categories that one column of a model is written out for."""

OWN = "__bayeslmm"
"""How names of columns begin that stand in a prediction only on the way."""


@dataclass(frozen=True, eq=False)
class CodedColumn:
    """A column of a model matrix as numbers times a value for each combination of categories.

    Parameters
    ----------
    numbers : tuple of (str, int)
        Factors of the column that are numbers: label, and which of its columns.
    categories : tuple of str
        Columns of the data whose levels decide the value.
    levels : tuple of tuple of str
        Combinations of their levels.
    values : ndarray (G,)
        The value at each combination.
    """

    numbers: Product
    categories: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    values: Floats


def level_text(table: Any, name: str) -> Any:
    """Return a column as the names of its levels, as `formula.grouping.label` gives them.

    Parameters
    ----------
    table : ibis.Table
        The table.
    name : str
        A column of text, numbers or truth values.

    Returns
    -------
    ibis expression
        Text.

    Raises
    ------
    DataError
        For a column of another type.
    """
    import ibis

    column = table[name]
    kind = column.type()
    if kind.is_string():
        return column
    if kind.is_integer():
        return column.cast("string")
    if kind.is_boolean():
        return ibis.cases((column, "True"), (~column, "False"))
    if kind.is_floating():
        whole = column.cast("int64")
        return ibis.cases((column == whole, whole.cast("string")), else_=column.cast("string"))
    raise DataError(
        f"levels of {name!r} are of type {kind}, which engines write as text in different ways.\n"
        f"  Make it text or an integer in the engine before the model is built: table.mutate({name}=...)."
    )


def coded_columns(recipe: Recipe, table: Any, states: State) -> tuple[CodedColumn, ...]:
    """Take every column of a model matrix apart into numbers and categories.

    Parameters
    ----------
    recipe : Recipe
        How the columns were made.
    table : ibis.Table
        Where the numbers will be computed.
    states : mapping
        What stateful functions learnt.

    Returns
    -------
    tuple of CodedColumn
        One per column.
    """
    coded = {label: list(state["categories"]) for label, (_, state) in recipe.spec.encoder_state.items() if state}
    names = {label: _column_of(recipe, label) for label in coded}
    widths = {
        label: len(columns_of(node, table, states, recipe.text))
        for label, node in recipe.atoms.items()
        if label not in coded
    }
    place = {name: i for i, name in enumerate(recipe.spec.column_names)}
    first = {names[label]: [levels[0]] for label, levels in coded.items()}
    found: dict[int, CodedColumn] = {}
    for part in recipe.spec.structure:
        labels = [factor.expr for factor in part.term.factors]
        varying = {names[label]: coded[label] for label in labels if label in coded}
        if np.prod([len(levels) for levels in varying.values()], dtype=np.float64) > MAX_CASES:
            raise DataError(
                f"{part.term} has more than {MAX_CASES:,} combinations of categories, too many for one SQL expression."
            )
        grid = pd.DataFrame(list(combinations(*varying.values())), columns=list(varying), dtype=object)
        n = max(1, len(grid))
        values = {
            name: pd.Categorical(grid[name] if name in varying else levels * n, categories=_levels(coded, names, name))
            for name, levels in first.items()
        }
        ones = {label: np.ones((n, width)) if width > 1 else np.ones(n) for label, width in widths.items()}
        base = recipe.apply(values, states, n, given=ones)
        columns = [place[name] for name in part.columns]
        numbers = _numbers(recipe, values, states, ones, base, columns, [label for label in labels if label in widths])
        levels = tuple(grid.itertuples(index=False, name=None))
        for j in columns:
            found[j] = CodedColumn(numbers[j], tuple(varying), levels, base[:, j])
    return tuple(found[j] for j in range(len(place)))


def _levels(coded: Mapping[str, list[str]], names: Mapping[str, str], name: str) -> list[str]:
    return next(coded[label] for label in coded if names[label] == name)


def _column_of(recipe: Recipe, label: str) -> str:
    node = recipe.atoms[label]
    inner = node.arguments[0][1] if isinstance(node, Call) else node
    if not isinstance(inner, Name):
        raise DataError(f"{label}: an engine tells categories apart by columns; compute the categories there before.")
    return inner.name


def _numbers(
    recipe: Recipe,
    values: Mapping[str, Any],
    states: State,
    ones: Mapping[str, Floats],
    base: Floats,
    columns: Sequence[int],
    labels: Sequence[str],
) -> dict[int, Product]:
    """Return which numbers are factors of each column: doubling one doubles the columns that hold it."""
    n, size = len(base), np.abs(base).sum(axis=0)
    found: dict[int, list[tuple[str, int]]] = {j: [] for j in columns}
    for label in labels:
        for i in range(ones[label].reshape(n, -1).shape[1]):
            doubled = ones[label].copy()
            doubled.reshape(n, -1)[:, i] = 2.0
            other = np.abs(recipe.apply(values, states, n, given={**ones, label: doubled})).sum(axis=0)
            for j in columns:
                if other[j] > 1.5 * size[j]:
                    found[j].append((label, i))
    return {j: tuple(numbers) for j, numbers in found.items()}


class LazyPredictor:
    """The linear predictor of every row of a table, as columns of a lazy table.

    Parameters
    ----------
    design : Design
        Of the fitted model.
    source : Source
        The rows to predict.
    beta : ndarray (p,)
        Coefficients.
    effects : mapping of str to ndarray (J, K)
        Group effects of the grouping factors that count.
    """

    def __init__(self, design: Design, source: Source, beta: Floats, effects: Mapping[str, Floats]) -> None:
        encoder = design.encoder
        self.design, self.source = design, source
        self.states: State = encoder.coding.states
        table = source.table
        self.factors: list[Factor] = [factor for factor in design.factors if factor.name in effects]
        groups = {name for factor in self.factors for name in design.terms[factor.term_indices[0]].term.group}
        offset = (encoder.offset,) if encoder.offset else ()
        self.needed = tuple(dict.fromkeys((*encoder.names, *sorted(groups), *offset)))
        absent = [name for name in self.needed if name not in table.columns]
        if absent:
            hint = did_you_mean(absent[0], table.columns)
            raise DataError(
                f"the table has no column{'s' * (len(absent) > 1)} {listing(map(repr, absent))}.\n"
                f"  Needed: {listing(self.needed)}. {hint}".rstrip()
            )
        if encoder.offset_was_array:
            raise DataError("the model was built with an offset given as numbers, which a table in an engine has not.")
        clash = [name for name in table.columns if name == "estimate" or name.startswith(OWN)]
        if clash:
            raise DataError(f"the prediction is called 'estimate'; rename the column {clash[0]!r} of the table.")
        self.beta = np.zeros(len(encoder.fixed.spec.column_names))
        self.beta[encoder.kept] = beta
        self.frame = self._effect_frame(effects)
        self.joined = self._join(table)

    def _effect_frame(self, effects: Mapping[str, Floats]) -> pd.DataFrame:
        width = max((effects[factor.name].shape[1] for factor in self.factors), default=0)
        parts = []
        for factor in self.factors:
            values = effects[factor.name]
            columns = {f"e{k}": values[:, k] if k < values.shape[1] else np.nan for k in range(width)}
            parts.append(pd.DataFrame({"factor": factor.name, "level": list(factor.levels), **columns}))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def _join(self, table: Any) -> Any:
        if not self.factors:
            return table
        effects = self.source.beside(self.frame)
        for f, factor in enumerate(self.factors):
            group = self.design.terms[factor.term_indices[0]].term.group
            key = level_text(table, group[0])
            for name in group[1:]:
                key = key + ":" + level_text(table, name)
            own = effects.filter(effects.factor == factor.name)
            own = own.select(
                **{f"{OWN}l{f}": own.level}, **{f"{OWN}{f}e{k}": own[f"e{k}"] for k in range(len(factor.effects))}
            )
            table = table.mutate(**{f"{OWN}k{f}": key})
            table = table.left_join(own, table[f"{OWN}k{f}"] == own[f"{OWN}l{f}"])
        return table

    def unseen(self) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[int, str]]]:
        """Count, by one scan, rows with levels that the fitted data did not hold.

        Returns
        -------
        factors, categories : dict of str to (int, str)
            Rows and one such level, for every grouping factor and every category where there are any.
        """
        t = self.joined
        sums: dict[str, Any] = {}
        levels = self._category_levels()
        for f in range(len(self.factors)):
            new = t[f"{OWN}l{f}"].isnull() & t[f"{OWN}k{f}"].notnull()
            sums |= {f"f{f}": new.cast("int64").sum(), f"g{f}": t[f"{OWN}k{f}"].min(where=new)}
        for c, (name, known) in enumerate(levels.items()):
            new = level_text(t, name).notin(known)
            sums |= {f"c{c}": new.cast("int64").sum(), f"d{c}": level_text(t, name).min(where=new)}
        if not sums:
            return {}, {}
        found = self.source.run(t.aggregate(**sums), "levels that the fitted data did not hold", beside=self.frame)
        row = found.iloc[0]

        def counted(count: str, example: str, labels: Sequence[str]) -> dict[str, tuple[int, str]]:
            pairs = {label: (row[f"{count}{i}"], row[f"{example}{i}"]) for i, label in enumerate(labels)}
            return {k: (int(n), str(level)) for k, (n, level) in pairs.items() if pd.notna(n) and n}

        return counted("f", "g", [factor.name for factor in self.factors]), counted("c", "d", list(levels))

    def _category_levels(self) -> dict[str, list[str]]:
        recipes = (self.design.encoder.fixed, *self.design.encoder.random)
        return {
            _column_of(recipe, label): list(state["categories"])
            for recipe in recipes
            for label, (_, state) in recipe.spec.encoder_state.items()
            if state
        }

    def predictor(self, covariances: Mapping[str, Floats] | None = None) -> tuple[Any, Any]:
        """Return the linear predictor, and the variance of the effects of unseen levels.

        Parameters
        ----------
        covariances : mapping of str to ndarray (K, K), optional
            Of the effects of each grouping factor.

        Returns
        -------
        eta, variance : ibis expression
            Columns of `joined`; null where a value is missing. No variance without covariances.
        """
        import ibis

        t, encoder, text = self.joined, self.design.encoder, self.design.formula.text
        parts: list[Any] = []
        sums: dict[tuple[Any, ...], tuple[CodedColumn, Floats]] = {}
        for column, value in zip(coded_columns(encoder.fixed, t, self.states), self.beta, strict=True):
            key = (column.numbers, column.categories)
            before = sums[key][1] if key in sums else 0.0
            sums[key] = column, before + value * column.values
        for column, values in sums.values():
            parts.append(self._times(column, values, encoder.fixed))
        if encoder.offset:
            parts.append(t[encoder.offset].cast("float64"))
        parts.extend(number(parse_syntax(offset), t, self.states, text) for offset in self.design.formula.offsets)
        variance: Any = None
        for f, factor in enumerate(self.factors):
            columns = [
                self._times(column, column.values, encoder.random[index])
                for index in factor.term_indices
                for column in coded_columns(encoder.random[index], t, self.states)
            ]
            parts.extend(ibis.coalesce(t[f"{OWN}{f}e{k}"], 0.0) * column for k, column in enumerate(columns))
            if covariances is not None:
                square = _quadratic(covariances[factor.name], columns)
                own = ibis.cases((t[f"{OWN}l{f}"].isnull(), square), else_=0.0)
                variance = own if variance is None else variance + own
        eta = reduce(lambda a, b: a + b, parts)
        gone = [missing(t, name) for name in self.needed]
        whole = ibis.cases((~reduce(or_, gone), eta)) if gone else eta
        return whole, variance

    def _times(self, column: CodedColumn, values: Floats, recipe: Recipe) -> Any:
        import ibis

        t = self.joined
        if not column.categories:
            found: Any = ibis.literal(float(values[0]), type="float64")
        else:
            keys = [level_text(t, name) for name in column.categories]
            cases = [
                (reduce(lambda a, b: a & b, [k == level for k, level in zip(keys, levels, strict=True)]), float(value))
                for levels, value in zip(column.levels, values, strict=True)
            ]
            found = ibis.cases(*cases)
        for label, i in column.numbers:
            found = found * columns_of(recipe.atoms[label], t, self.states, recipe.text)[i]
        return found


def _quadratic(matrix: Floats, columns: Sequence[Any]) -> Any:
    total: Any = None
    for i, first in enumerate(columns):
        for j in range(i + 1):
            part = float(matrix[i, j] * (1 if i == j else 2)) * first * columns[j]
            total = part if total is None else total + part
    return total
