"""Residuals with unequal variances and correlations within groups, at a cost that does not depend on the rows.

The precision of the residuals is a sum of fixed matrices with coefficients that depend on few parameters,

    R(psi)^-1 = sum_k c_k(psi) M_k,    M_k = T_k' T_k,

with T_k a matrix of zeros and ones that picks rows or adds up rows of one group. So do all cross-products: those of the
rows ``T_k [Z X y]`` are computed once, and every psi costs one weighted sum of them. With strata s of standard
deviations delta_s (in units of sigma) and r = rho^gap:

    unequal variances    c_s = delta_s^-2
    AR(1)                first row of a group delta_s^-2; rows i, j at a distance `gap`:
                         (e_j / delta_j - r e_i / delta_i)^2 / (1 - r^2)
    exchangeable         (I - rho / (1 + (m - 1) rho) 1 1') / (1 - rho) within a group of m rows

where products of different rows are taken as ``e_i e_j' + e_j e_i' = (e_i + e_j)(e_i + e_j)' - e_i e_i' - e_j e_j'``.
Rows of one group share their level of every grouping factor, so the pattern of Z'Z never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayeslmm.likelihood.crossproducts import Rows, all_pairs, one_pass
from bayeslmm.likelihood.lmm import LmmKernel
from bayeslmm.likelihood.symbolic import Analysis, analyse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FARTHEST = 12.0


@dataclass(frozen=True, eq=False)
class ResidualRows:
    """Which rows share a standard deviation, and which are correlated.

    Parameters
    ----------
    kind : {"independent", "ar1", "exchangeable"}
        Correlation within a group.
    strata : (n,) int
        Stratum of each row, from 0, the reference.
    n_strata : int
        Their number.
    groups : (n,) int
        Group of each row.
    position : (n,) int
        Time of each row, distinct within a group.
    floor : float, optional
        Lower end of the range of the correlation, where it is that of other rows.

    Examples
    --------
    >>> rows = ResidualRows("ar1", np.zeros(3, int), 1, np.array([0, 0, 0]), np.array([0, 1, 3]))
    >>> rows.correlation([np.arctanh(0.5)]).round(3)
    array([[1.   , 0.5  , 0.125],
           [0.5  , 1.   , 0.25 ],
           [0.125, 0.25 , 1.   ]])
    """

    kind: Literal["independent", "ar1", "exchangeable"]
    strata: Ints
    n_strata: int
    groups: Ints
    position: Ints
    floor: float | None = None

    @classmethod
    def from_design(cls, design: Any, floor: float | None = None) -> ResidualRows:
        """Return the rows of a design with a residual structure."""
        structure = design.residuals
        strata = np.asarray(structure.strata, dtype=np.int64)
        groups = np.asarray(structure.groups, dtype=np.int64)
        return cls(structure.spec.kind, strata, max(1, len(structure.levels)), groups, structure.position, floor)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.strata)

    @property
    def n_parameters(self) -> int:
        """Number of parameters: a ratio for every stratum but the first, and the correlation."""
        return self.n_strata - 1 + (self.kind != "independent")

    @cached_property
    def lowest(self) -> float:
        """Lower end of the range of the correlation: -1 for AR(1), -1 / (m - 1) for the largest group of m rows."""
        if self.floor is not None:
            return self.floor
        return -1.0 if self.kind != "exchangeable" else -1.0 / max(1, int(np.bincount(self.groups).max()) - 1)

    def natural(self, psi: ArrayLike) -> tuple[Floats, float]:
        """Return the standard deviation of each stratum in units of sigma, and the correlation.

        The unconstrained psi holds logarithms of the ratios to the first stratum, then Fisher's z of an AR(1)
        correlation, or the logit of the place of an exchangeable one in its range.
        """
        psi = np.asarray(psi, dtype=np.float64)
        ratios = np.concatenate([[1.0], np.exp(psi[: self.n_strata - 1])])
        if self.kind == "independent":
            return ratios, 0.0
        if self.kind == "ar1":
            return ratios, float(np.tanh(psi[-1]))
        return ratios, float(self.lowest + (1.0 - self.lowest) / (1.0 + np.exp(-psi[-1])))

    def unconstrained(self, ratios: ArrayLike, rho: float = 0.0) -> Floats:
        """Return psi for ratios (S - 1,) of standard deviations and a correlation; the inverse of `natural`."""
        logs = np.log(np.asarray(ratios, dtype=np.float64))
        if self.kind == "independent":
            return logs
        if self.kind == "ar1":
            return np.append(logs, np.arctanh(rho))
        share = (rho - self.lowest) / (1.0 - self.lowest)
        return np.append(logs, np.log(share / (1.0 - share)))

    def natural_slopes(self, psi: ArrayLike) -> Floats:
        """Return the derivative of each ratio and of the correlation in its own element of psi (n_parameters,)."""
        ratios, rho = self.natural(psi)
        slopes = list(ratios[1:])
        if self.kind == "ar1":
            slopes.append(1.0 - rho**2)
        elif self.kind == "exchangeable":
            slopes.append((rho - self.lowest) * (1.0 - rho) / (1.0 - self.lowest))
        return np.array(slopes)

    def scale(self, psi: ArrayLike) -> Floats:
        """Return the standard deviation of each row in units of sigma (n,), prior weights aside."""
        return self.natural(psi)[0][self.strata]

    def correlation(self, psi: ArrayLike) -> Floats:
        """Return the correlation matrix of the residuals (n, n): the witness of everything else here."""
        rho = self.natural(psi)[1]
        same = self.groups[:, None] == self.groups[None, :]
        if self.kind == "independent":
            return np.eye(self.n)
        if self.kind == "ar1":
            return np.where(same, rho ** np.abs(self.position[:, None] - self.position[None, :]), 0.0)
        return np.where(np.eye(self.n, dtype=bool), 1.0, np.where(same, rho, 0.0))

    # --- rows in order -------------------------------------------------------------------------------------------

    @cached_property
    def order(self) -> Ints:
        """Rows sorted by group and time (n,)."""
        return np.lexsort((self.position, self.groups))

    @cached_property
    def previous(self) -> tuple[Ints, Ints]:
        """For each row the row before it in its group, -1 for the first, and how many are before it."""
        order = self.order
        first = np.ones(self.n, dtype=bool)
        first[1:] = self.groups[order][1:] != self.groups[order][:-1]
        before = np.full(self.n, -1)
        before[order[1:]] = np.where(first[1:], -1, order[:-1])
        starts = np.maximum.accumulate(np.where(first, np.arange(self.n), 0))
        count = np.empty(self.n, dtype=np.int64)
        count[order] = np.arange(self.n) - starts
        return before, count

    def innovations(self, psi: ArrayLike) -> tuple[Floats, Floats]:
        """Return what a standardised residual's past in its group says about it.

        Returns
        -------
        weight : (n,)
            Of the residual before it (AR(1)), or of the sum of all before it (exchangeable).
        sd : (n,)
            What remains unknown.
        """
        rho = self.natural(psi)[1]
        before, count = self.previous
        weight, sd = np.zeros(self.n), np.ones(self.n)
        later = before >= 0
        if self.kind == "ar1":
            gap = self.position[later] - self.position[before[later]]
            weight[later] = rho**gap
            sd[later] = np.sqrt(-np.expm1(2.0 * gap * np.log(np.abs(rho)))) if rho else 1.0
        elif self.kind == "exchangeable":
            k = count[later]
            weight[later] = rho / (1.0 + (k - 1) * rho)
            sd[later] = np.sqrt((1.0 - rho) * (1.0 + k * rho) / (1.0 + (k - 1) * rho))
        return weight, sd

    def past(self, standard: Floats) -> Floats:
        """Return for each row the residual before it (AR(1)), or the sum of those before it (exchangeable)."""
        before, count = self.previous
        later = before >= 0
        out = np.zeros_like(standard)
        if self.kind == "ar1":
            out[later] = standard[before[later]]
        elif self.kind == "exchangeable":
            for step in range(1, int(count.max(initial=0)) + 1):
                now = np.flatnonzero(count == step)
                out[now] = out[before[now]] + standard[before[now]]
        return out

    def whiten(self, values: Floats, psi: ArrayLike) -> Floats:
        """Return residuals (n, ...) made independent with variance 1, in units of sigma; rows keep their place."""
        scale, (weight, sd) = self.scale(psi), self.innovations(psi)
        shape = (-1, *[1] * (values.ndim - 1))
        standard = values / scale.reshape(shape)
        if self.kind == "independent":
            return standard
        return (standard - weight.reshape(shape) * self.past(standard)) / sd.reshape(shape)

    def colour(self, noise: Floats, psi: ArrayLike) -> Floats:
        """Return residuals in units of sigma from independent normal numbers (n, ...): the inverse of `whiten`."""
        scale, (weight, sd) = self.scale(psi), self.innovations(psi)
        shape = (-1, *[1] * (noise.ndim - 1))
        standard = noise * sd.reshape(shape)
        if self.kind != "independent":
            before, count = self.previous
            sums = np.zeros_like(standard)
            for step in range(1, int(count.max(initial=0)) + 1):
                now = np.flatnonzero(count == step)
                held = sums[before[now]] if self.kind == "exchangeable" else 0.0
                sums[now] = held + standard[before[now]]
                standard[now] += weight[now].reshape(shape) * sums[now]
        return standard * scale.reshape(shape)

    def log_det(self, psi: ArrayLike) -> float:
        """Return the logarithm of the determinant of the covariance of the residuals in units of sigma squared."""
        ratios, rho = self.natural(psi)
        kinds, counts = self._innovation_kinds
        value = 2.0 * float(self._stratum_sizes @ np.log(ratios))
        if self.kind == "ar1" and rho != 0.0:
            value += float(counts @ np.log(-np.expm1(2.0 * kinds * np.log(abs(rho)))))
        elif self.kind == "exchangeable":
            value += float(counts @ np.log((1.0 - rho) * (1.0 + kinds * rho) / (1.0 + (kinds - 1) * rho)))
        return value

    @cached_property
    def _stratum_sizes(self) -> Ints:
        return np.bincount(self.strata, minlength=self.n_strata)

    @cached_property
    def _innovation_kinds(self) -> tuple[Ints, Ints]:
        """Distinct gaps (AR(1)) or numbers of rows before (exchangeable) of all but first rows, and how often each."""
        before, count = self.previous
        later = np.flatnonzero(before >= 0)
        kinds = self.position[later] - self.position[before[later]] if self.kind == "ar1" else count[later]
        return np.unique(kinds, return_counts=True)

    # --- sums ----------------------------------------------------------------------------------------------------

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The matrices T_k with their coefficients."""
        makers = {"independent": _strata, "ar1": _autoregressive, "exchangeable": _exchangeable}
        return tuple(makers[self.kind](self))


@dataclass(frozen=True, eq=False)
class Component:
    """One matrix T_k, as places of its ones, and its coefficient.

    Parameters
    ----------
    target, source : (m,) int
        Row `source` of the data is added to row `target` of the result.
    coefficient : callable
        From the standard deviations of the strata (S,) and the correlation to c_k.
    """

    target: Ints
    source: Ints
    coefficient: Callable[[Floats, float], float]

    def of(self, columns: Floats) -> Floats:
        """Return T_k times columns (n, ...)."""
        out = np.zeros_like(columns)
        np.add.at(out, self.target, columns[self.source])
        return out


def _rows_of(rows: Ints, coefficient: Callable[[Floats, float], float]) -> Component:
    return Component(rows, rows, coefficient)


def _own_variance(s: int, *, by_rho: bool = False) -> Callable[[Floats, float], float]:
    return lambda d, rho: float(d[s] ** -2 / (1.0 - rho if by_rho else 1.0))


def _times_variance(s: int, share: Callable[[float], float]) -> Callable[[Floats, float], float]:
    return lambda d, rho: float(share(rho) / d[s] ** 2)


def _strata(rows: ResidualRows) -> Iterator[Component]:
    for s in range(rows.n_strata):
        yield _rows_of(np.flatnonzero(rows.strata == s), _own_variance(s))


def _autoregressive(rows: ResidualRows) -> Iterator[Component]:
    before, _ = rows.previous
    for s in range(rows.n_strata):
        first = np.flatnonzero((before < 0) & (rows.strata == s))
        if len(first):
            yield _rows_of(first, _own_variance(s))
    later = np.flatnonzero(before >= 0)
    earlier = before[later]
    gap = rows.position[later] - rows.position[earlier]
    kinds = np.stack([gap, rows.strata[earlier], rows.strata[later]])
    distinct, which = np.unique(kinds, axis=1, return_inverse=True)
    for number, (g, s, t) in enumerate(distinct.T):
        chosen = np.ravel(which) == number
        j, i = later[chosen], earlier[chosen]

        def cross(d: Floats, rho: float, g: int = g, s: int = s, t: int = t) -> float:
            return float(-(rho**g) / ((1.0 - rho ** (2 * g)) * d[s] * d[t]))

        def after(
            d: Floats, rho: float, g: int = g, t: int = t, cross: Callable[[Floats, float], float] = cross
        ) -> float:
            return float(1.0 / ((1.0 - rho ** (2 * g)) * d[t] ** 2)) - cross(d, rho)

        def ahead(
            d: Floats, rho: float, g: int = g, s: int = s, cross: Callable[[Floats, float], float] = cross
        ) -> float:
            return float(rho ** (2 * g) / ((1.0 - rho ** (2 * g)) * d[s] ** 2)) - cross(d, rho)

        yield _rows_of(j, after)
        yield _rows_of(i, ahead)
        yield Component(np.concatenate([j, j]), np.concatenate([j, i]), cross)


def _exchangeable(rows: ResidualRows) -> Iterator[Component]:
    for s in range(rows.n_strata):
        yield _rows_of(np.flatnonzero(rows.strata == s), _own_variance(s, by_rho=True))
    size = np.bincount(rows.groups)
    first = np.full(len(size), -1)
    first[rows.groups[rows.order[::-1]]] = rows.order[::-1]
    has = np.zeros((len(size), rows.n_strata), dtype=bool)
    has[rows.groups, rows.strata] = True

    def adding(
        groups: NDArray[np.bool_], strata: tuple[int, ...], factor: Callable[[Floats, float], float]
    ) -> Component:
        source = np.flatnonzero(groups[rows.groups] & np.isin(rows.strata, strata))
        return Component(first[rows.groups[source]], source, factor)

    for m in np.unique(size[size > 0]):
        of_size = size == m

        def share(rho: float, m: int = m) -> float:
            return float(-rho / ((1.0 - rho) * (1.0 + (m - 1) * rho)))

        for s in range(rows.n_strata):
            if (of_size & has[:, s]).any():
                yield adding(of_size & has[:, s], (s,), _times_variance(s, share))
            for t in range(s):
                both = of_size & has[:, s] & has[:, t]
                if not both.any():
                    continue

                def cross(
                    d: Floats, rho: float, s: int = s, t: int = t, share: Callable[[float], float] = share
                ) -> float:
                    return share(rho) / (d[s] * d[t])

                def minus(d: Floats, rho: float, cross: Callable[[Floats, float], float] = cross) -> float:
                    return -cross(d, rho)

                yield adding(both, (s, t), cross)
                yield adding(both, (s,), minus)
                yield adding(both, (t,), minus)


@dataclass(frozen=True, eq=False)
class ResidualKernel:
    """A kernel for every psi: cross-products of each component, to be added up.

    Parameters
    ----------
    base : LmmKernel
        The kernel of the same design with independent residuals of one variance.
    rows : ResidualRows
        Strata and groups.

    Examples
    --------
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> from bayeslmm.likelihood.crossproducts import cross_products
    >>> from bayeslmm.likelihood.lmm import criterion
    >>> codes = np.repeat([0, 1, 2], 2)
    >>> products = cross_products([1.0, 2, 4, 5, 9, 8], np.ones((6, 1)), [(np.ones((6, 1)), codes, 3)])
    >>> base = LmmKernel(products, Layout((Covariance("us", 1),), (0,), (3,)))
    >>> kernel = ResidualKernel(base, ResidualRows("ar1", np.zeros(6, int), 1, codes, np.tile([0, 1], 3)))
    >>> # psi is atanh(rho) here, so that 0.5 is a correlation of 0.46
    >>> round(criterion([1.0], kernel.at([0.0])), 6), round(criterion([1.0], kernel.at([0.5])), 6)
    (24.567583, 22.734656)
    """

    base: LmmKernel
    rows: ResidualRows
    stack: Floats = field(init=False, repr=False)
    places: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stack", self._stacked())
        object.__setattr__(self, "places", self._engine_places())

    @property
    def n_parameters(self) -> int:
        """Length of psi."""
        return self.rows.n_parameters

    def with_response(self, y: ArrayLike) -> ResidualKernel:
        """Return the kernel of the same design with another response (n,)."""
        return ResidualKernel(self.base.with_response(y), self.rows)

    def _stacked(self) -> Floats:
        """Return gram, Z'[X y], Z'Z within factors and between them, flat, a line for each component."""
        products = self.base.products
        source = products.source
        root = np.sqrt(source.weights) if source.weights.size else np.ones(products.n_rows)
        X, response = source.X * root[:, None], source.response * root
        Z = [block * root[:, None] for block in source.Z]
        none = np.empty(0)
        lines = []
        for component in self.rows.components:
            moved = Rows(
                y=component.of(response), X=component.of(X), Z=tuple(component.of(block) for block in Z),
                codes=source.codes, n_levels=source.n_levels, weights=none, offset=none,
            )  # fmt: skip
            gram, diagonal, rhs = one_pass(moved, moved.y, products.whitener, products.beta0)
            pairs = [pair.values for pair in all_pairs(moved)]
            lines.append(np.concatenate([part.ravel() for part in (gram, *rhs, *diagonal, *pairs)]))
        return np.array(lines)

    def _split(self, flat: NDArray) -> tuple[NDArray, list[NDArray], list[NDArray], list[NDArray]]:
        """Return gram, rhs, diagonal and pairs as views of a flat line."""
        products = self.base.products
        at = 0

        def take(like: NDArray) -> NDArray:
            nonlocal at
            at += like.size
            return flat[at - like.size : at].reshape(like.shape)

        gram = take(products.gram)
        rhs = [take(block) for block in products.rhs]
        diagonal = [take(block) for block in products.diagonal]
        return gram, rhs, diagonal, [take(pair.values) for pair in products.pairs]

    def _engine_places(self) -> Ints:
        """Return where in a flat line the kernel's numbers stand: gram, rhs in engine order, blocks of Z'Z."""
        products = self.base.products
        gram, rhs, diagonal, pairs = self._split(np.arange(self.stack.shape[1], dtype=np.float64))
        numbered = replace(
            products, gram=gram, rhs=tuple(rhs), diagonal=tuple(diagonal),
            pairs=tuple(replace(pair, values=values) for pair, values in zip(products.pairs, pairs, strict=True)),
        )  # fmt: skip
        blocks = analyse(numbered).structure.block_values
        return np.concatenate([gram.ravel(), self.base.permuted_rhs(numbered).ravel(), blocks]).astype(np.int64)

    @cached_property
    def engine_stack(self) -> Floats:
        """The components in the order of `engine_views`."""
        return np.ascontiguousarray(self.stack[:, self.places])

    def engine_views(self, buffer: Floats) -> tuple[Floats, Floats, Floats]:
        """Return gram, rhs and blocks of Z'Z as views of a buffer as long as a line of `engine_stack`."""
        size = self.base.products.gram.shape[0]
        q = self.base.analysis.n_columns
        gram, rhs = buffer[: size * size], buffer[size * size : size * size + q * size]
        return gram.reshape(size, size), rhs.reshape(q, size), buffer[size * size + q * size :]

    def coefficients(self, psi: ArrayLike) -> Floats:
        """Return c_k(psi) (K,)."""
        ratios, rho = self.rows.natural(psi)
        return np.array([component.coefficient(ratios, rho) for component in self.rows.components])

    def sum_log_weights(self, psi: ArrayLike) -> float:
        """Return log |R(psi)^-1|, prior weights included."""
        return self.base.products.sum_log_weights - self.rows.log_det(psi)

    def at(self, psi: ArrayLike, *, with_rows: bool = False) -> LmmKernel:
        """Return the kernel of the design at psi (n_parameters,).

        Parameters
        ----------
        psi : (n_parameters,) array_like
            Unconstrained parameters of the residuals.
        with_rows : bool, default False
            Whether its rows are to be those of psi too: what leverage and influence ask for. Independent residuals
            become weights, correlated ones whitened rows.

        Returns
        -------
        LmmKernel
            With the log determinant of the residuals among its constants.
        """
        kernel = Moving(self).at(psi)
        if not with_rows:
            return kernel
        return kernel.with_products(replace(kernel.products, source=self._rows_at(psi)))

    def _rows_at(self, psi: ArrayLike) -> Rows:
        source = self.base.products.source
        weights = source.weights if source.weights.size else np.ones(self.rows.n)
        if self.rows.kind == "independent":
            return replace(source, weights=weights / self.rows.scale(psi) ** 2)
        root = np.sqrt(weights)
        none = np.empty(0)
        return replace(
            source, y=self.rows.whiten(source.response * root, psi), X=self.rows.whiten(source.X * root[:, None], psi),
            Z=tuple(self.rows.whiten(block * root[:, None], psi) for block in source.Z), weights=none, offset=none,
        )  # fmt: skip


class Moving:
    """A kernel that moves with psi and keeps its memory: for searches. One per thread.

    Parameters
    ----------
    kernel : ResidualKernel
        The kernels of all psi.
    """

    def __init__(self, kernel: ResidualKernel) -> None:
        base, symbolic = kernel.base, kernel.base.analysis
        self.kernel = kernel
        self.flat = np.empty(kernel.stack.shape[1])
        gram, rhs, diagonal, pairs = kernel._split(self.flat)
        own = symbolic.structure._replace(block_values=np.empty_like(symbolic.structure.block_values))
        self.blocks = own.block_values
        self.places = kernel.places[len(kernel.places) - len(self.blocks) :]
        self._fill(np.zeros(kernel.n_parameters))
        products = replace(
            base.products, gram=gram, rhs=tuple(rhs), diagonal=tuple(diagonal),
            pairs=tuple(replace(pair, values=values) for pair, values in zip(base.products.pairs, pairs, strict=True)),
        )  # fmt: skip
        self.model = base.with_products(products, Analysis(own, symbolic.first_row))

    def _fill(self, psi: ArrayLike) -> None:
        np.dot(self.kernel.coefficients(psi), self.kernel.stack, out=self.flat)
        np.take(self.flat, self.places, out=self.blocks)

    def at(self, psi: ArrayLike) -> LmmKernel:
        """Return the kernel at psi (n_parameters,); it changes with the next call."""
        self._fill(psi)
        constant = self.kernel.sum_log_weights(psi)
        return self.model.with_products(replace(self.model.products, sum_log_weights=constant))
