"""Which hypothesis each term of the fixed part stands for: types I, II and III.

Type I tests terms in the order written; type II each term after all that do not contain it; type III, in any coding of
the factors, what the term's columns are in sum-to-zero coding. A term contains another if it has the same numeric
columns and more factors (SAS' rule).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from bayeslmm.errors import ComparisonError
from bayeslmm.formula.functions import evaluate
from bayeslmm.formula.grouping import as_categorical, relevel
from bayeslmm.formula.syntax import Call, Group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.formula.syntax import Node

ESTIMABLE = 1e-8
ROMAN = {1: "I", 2: "II", 3: "III"}
MEANING = {
    1: "each term after those before it in the formula",
    2: "each term after all that do not contain it",
    3: "each term after all others, factors in sum-to-zero coding whatever coding the model uses",
}


@dataclass(frozen=True)
class Part:
    """A product of columns that formulaic coded together: part of a term.

    Parameters
    ----------
    factors : tuple of (str, bool)
        Label of each factor and whether it has one column less than levels.
    """

    factors: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class FixedTerm:
    """One term of the fixed part.

    Parameters
    ----------
    name : str
        As printed.
    columns : ndarray of intp
        Its columns of X; dropped ones are not counted.
    numeric, categorical : frozenset of str
        Labels of its numeric columns and of its factors.
    parts : tuple of Part
        How formulaic coded it.
    """

    name: str
    columns: NDArray[np.intp]
    numeric: frozenset[str]
    categorical: frozenset[str]
    parts: tuple[Part, ...]

    def is_contained_in(self, other: FixedTerm) -> bool:
        """Return whether `other` has the same numeric columns and more factors."""
        return self.numeric == other.numeric and self.categorical < other.categorical


@dataclass(frozen=True)
class TermContrasts:
    """The fixed part of a design, term by term.

    Parameters
    ----------
    design : Design
        The design.
    information : ndarray (p, p), optional
        Inverse covariance of the coefficients: the metric in which types I and II adjust terms for one another; X'X
        when absent.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("distance ~ age * Sex + (1 | Subject)", blm.datasets.load("Orthodont"))
    >>> [term.name for term in TermContrasts(design).terms]
    ['age', 'Sex', 'age:Sex']
    >>> TermContrasts(design).contrasts(3)["age"]
    array([[0. , 1. , 0. , 0.5]])
    """

    design: Design
    information: NDArray[np.float64] | None = None

    @cached_property
    def all_terms(self) -> tuple[FixedTerm, ...]:
        """Terms in the order of X, the intercept included."""
        spec, kept = self.design.encoder.fixed.spec, self.design.encoder.kept
        position = {int(column): i for i, column in enumerate(kept)}
        kinds = {name: kind.value for name, (kind, _) in spec.encoder_state.items()}
        terms, at = [], 0
        for entry in spec.structure:
            columns = [position[i] for i in range(at, at + len(entry.columns)) if i in position]
            at += len(entry.columns)
            labels = [factor.expr for factor in entry.term.factors if factor.expr != "1"]
            parts = tuple(
                Part(tuple((scoped.factor.expr, bool(scoped.reduced)) for scoped in part.factors))
                for part in entry.scoped_terms
            )
            terms.append(
                FixedTerm(
                    name=":".join(labels) or "Intercept",
                    columns=np.array(columns, dtype=np.intp),
                    numeric=frozenset(name for name in labels if kinds.get(name) != "categorical"),
                    categorical=frozenset(name for name in labels if kinds.get(name) == "categorical"),
                    parts=parts,
                )
            )
        return tuple(terms)

    @property
    def terms(self) -> tuple[FixedTerm, ...]:
        """Terms that tables list: all but the intercept, with at least one column left."""
        return tuple(term for term in self.all_terms if term.parts and term.name != "Intercept" and len(term.columns))

    def contrasts(self, type: int) -> dict[str, NDArray[np.float64]]:
        """Return the hypothesis of each term.

        Parameters
        ----------
        type : {1, 2, 3}
            Sequential, hierarchical or marginal.

        Returns
        -------
        dict of str to ndarray (q, p)
            ``L beta = 0`` by term, L of full row rank.

        Raises
        ------
        ComparisonError
            If a type III hypothesis is not estimable, or the type is not 1, 2 or 3.

        References
        ----------
        Searle (1987), *Linear Models for Unbalanced Data*; Goodnight (1980), SAS Technical Report R-101.
        """
        if type not in (1, 2, 3):
            raise ComparisonError(f"type={type!r}: there are types 1, 2 and 3.")
        if type == 3:
            return self._type3()
        return {term.name: self._after(term, self._before(term, type), type) for term in self.terms}

    def _before(self, term: FixedTerm, type: int) -> NDArray[np.intp]:
        """Return the columns a term is adjusted for."""
        position = self.all_terms.index(term)
        if type == 1:
            others = self.all_terms[:position]
        else:
            others = tuple(other for other in self.all_terms if other is not term and not term.is_contained_in(other))
        return np.concatenate([other.columns for other in others] or [np.zeros(0, dtype=np.intp)])

    def _after(self, term: FixedTerm, before: NDArray[np.intp], type: int) -> NDArray[np.float64]:
        """Return what least squares attributes to the term's columns after those before, one column after the other.

        The rows span the hypothesis; Fai and Cornelius' degrees of freedom depend a little on which rows do. These are
        the ones of lmerTest: unit triangular (Doolittle), and the coefficients themselves in type II where nothing
        comes after.
        """
        p = len(self.design.coef_names)
        used = np.concatenate([before, term.columns])
        if type == 2 and len(used) == p:
            return np.eye(p)[term.columns]
        rest = np.setdiff1d(np.arange(p), used)
        order = np.concatenate([used, rest])
        rows = self._triangle(order)[len(before) : len(used)]
        L = np.zeros((len(term.columns), p))
        L[:, order] = rows / np.diagonal(rows, offset=len(before))[:, None]
        L[np.abs(L) < 1e-10] = 0.0
        return L

    def _triangle(self, order: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the upper triangular root of the information of the coefficients in this order."""
        if self.information is None:
            return np.linalg.qr(self.design.condensed.X[:, order], mode="r")
        return np.linalg.cholesky(self.information[np.ix_(order, order)]).T

    @cached_property
    def _rows(self) -> Design:
        """Rows that span what the model can tell apart: the fitted ones, or some made up where those stay away."""
        return self.design.spanning()

    def _type3(self) -> dict[str, NDArray[np.float64]]:
        blocks = [self._sum_coded(term) for term in self.all_terms]
        recoded = np.concatenate(blocks, axis=1)
        X = self._rows.X
        to_recoded, _, rank, _ = np.linalg.lstsq(recoded, X, rcond=1e-10)
        gap = np.abs(recoded @ to_recoded - X).max(initial=0.0)
        if rank < recoded.shape[1] or gap > ESTIMABLE * max(1.0, np.abs(X).max(initial=0.0)):
            dropped = self.design.dropped_columns
            why = f" (columns left out of X: {', '.join(dropped)})" if dropped else ""
            raise ComparisonError(
                f"type III hypotheses are not estimable here{why}: some combination of factor levels does not occur, "
                "or terms determine one another.\n"
                "  type=2 tests each term after those that do not contain it, and needs no complete table of cells."
            )
        to_recoded[np.abs(to_recoded) < 1e-12] = 0.0
        ends = np.cumsum([block.shape[1] for block in blocks])
        found = {}
        for term, block, end in zip(self.all_terms, blocks, ends, strict=True):
            if term in self.terms:
                L = self._differences(term) @ to_recoded[end - block.shape[1] : end]
                found[term.name] = np.where(np.abs(L) < 1e-12, 0.0, L)
        return found

    def _differences(self, term: FixedTerm) -> NDArray[np.float64]:
        """Return the map from sum-to-zero coefficients of a term to differences from each factor's first level."""
        maps = []
        for part in term.parts:
            product: NDArray[Any] = np.eye(1)
            for label, reduced in part.factors:
                product = np.kron(product, self._difference(label, reduced))
            maps.append(product)
        return block_diag(*maps)

    def _difference(self, label: str, reduced: bool) -> NDArray[np.float64]:
        width = self._factor_columns(label, reduced).shape[1]
        if not reduced:
            return np.eye(width)
        coding = sum_coding(width + 1)
        return coding[1:] - coding[0]

    def _sum_coded(self, term: FixedTerm) -> NDArray[np.float64]:
        """Return the term's columns with every factor in sum-to-zero coding."""
        n = self._rows.n
        columns = []
        for part in term.parts:
            product = np.ones((n, 1))
            for label, reduced in part.factors:
                block = self._factor_columns(label, reduced)
                product = (product[:, :, None] * block[:, None, :]).reshape(n, -1)
            columns.append(product)
        return np.concatenate(columns, axis=1) if columns else np.zeros((n, 0))

    def _factor_columns(self, label: str, reduced: bool) -> NDArray[np.float64]:
        encoder = self.design.encoder
        node = encoder.fixed.atoms[label]
        kind, state = encoder.fixed.spec.encoder_state[label]
        if kind.value != "categorical":
            return _as_columns(evaluate(node, self._values, encoder.coding.states, encoder.fixed.text))
        levels = [str(level) for level in state["categories"]]
        inner = _categories_behind(node)
        value = evaluate(inner, self._values, encoder.coding.states, encoder.fixed.text)
        value = value if isinstance(value, pd.Categorical) else as_categorical(value)
        codes = relevel(value, levels, label).codes
        return sum_coding(len(levels))[codes] if reduced else np.eye(len(levels))[codes]

    @cached_property
    def _values(self) -> Mapping[str, Any]:
        return self.design.encoder.coding.values(self._rows.data, self.design.encoder.names)


def _categories_behind(node: Node) -> Node:
    """Return the expression inside C(...)."""
    while isinstance(node, Call | Group):
        node = node.arguments[0][1] if isinstance(node, Call) else node.inner
    return node


def _as_columns(value: Any) -> NDArray[np.float64]:
    """Return a column or a basis as a matrix."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return np.column_stack([np.asarray(column, dtype=float) for _, column in value.items()])
    array = np.asarray(value, dtype=float)
    return array[:, None] if array.ndim == 1 else array


def sum_coding(levels: int) -> NDArray[np.float64]:
    """Return sum-to-zero contrasts.

    Parameters
    ----------
    levels : int
        Number of levels.

    Returns
    -------
    ndarray (levels, levels - 1)
        The last level has -1 everywhere.

    Examples
    --------
    >>> sum_coding(3)
    array([[ 1.,  0.],
           [ 0.,  1.],
           [-1., -1.]])
    """
    return np.vstack([np.eye(levels - 1), -np.ones(levels - 1)])
