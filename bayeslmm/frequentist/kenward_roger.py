"""Kenward and Roger's covariance of the coefficients and their F tests, without an n x n matrix.

Everything comes from `C = Z'Z` and `Z'X`. Levels that never meet in a row, directly or through others, do not share
entries of `Z' V0^-1 Z`: the sums run over the connected components of the levels, equal ones side by side. For one
factor a component is a level, for nested factors a level of the outermost; crossed factors make one component, whose
number of effects is what limits the method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import block_diag

from bayeslmm.errors import FitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.likelihood.covariance import Layout
    from bayeslmm.likelihood.crossproducts import CrossProducts
    from bayeslmm.likelihood.lmm import LmmKernel, Solution

LARGEST_COMPONENT = 6000
"""Effects of levels that meet, together: a few matrices of this size squared are held."""


@dataclass(frozen=True)
class KenwardRoger:
    """Adjusted covariance of the coefficients, and what their F tests need.

    Parameters
    ----------
    vcov : ndarray (p, p)
        Covariance of the coefficients, sigma² (X'V0⁻¹X)⁻¹.
    adjusted : ndarray (p, p)
        With the variance of the estimated variance parameters taken in.
    slopes : ndarray (r, p, p)
        Derivatives P of the information X'V⁻¹X in each variance parameter, in units of sigma².
    parameter_cov : ndarray (r, r)
        Covariance W of the variance parameters, in the same units.
    sigma : float
        Residual standard deviation.

    References
    ----------
    Kenward & Roger (1997), *Biometrics* 53(3); Halekoh & Højsgaard (2014), *J. Stat. Softw.* 59(9).
    """

    vcov: NDArray[np.float64]
    adjusted: NDArray[np.float64]
    slopes: NDArray[np.float64]
    parameter_cov: NDArray[np.float64]
    sigma: float

    def moments(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return denominator degrees of freedom and scale of the F statistic for ``L beta = 0``.

        Parameters
        ----------
        L : ndarray (q, p)
            Contrasts, of full row rank.

        Returns
        -------
        df, scale : float
            The scaled statistic ``scale * F`` is referred to F(q, df).
        """
        q = L.shape[0]
        phi = self.vcov / self.sigma**2
        middle = L.T @ np.linalg.solve(L @ phi @ L.T, L)
        parts = np.einsum("ab,bc,rcd,de->rae", middle, phi, self.slopes, phi)
        traces = np.einsum("raa->r", parts)
        first = float(traces @ self.parameter_cov @ traces)
        second = float(np.einsum("rs,rab,sba->", self.parameter_cov, parts, parts))
        return _match_moments(q, first, second)


def _match_moments(q: int, first: float, second: float) -> tuple[float, float]:
    """Return df and scale from A1 and A2 of Kenward & Roger (1997), section 3."""
    if second <= 0:
        return np.inf, 1.0
    B = (first + 6 * second) / (2 * q)
    g = ((q + 1) * first - (q + 4) * second) / ((q + 2) * second)
    common = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / common, (q - g) / common, (q + 2 - g) / common
    v0, v1, v2 = (0.0 if abs(v) < 1e-10 else v for v in (1 + c1 * B, 1 - c2 * B, 1 - c3 * B))
    expectation = 1 - second / q
    ratio = 1.0 if expectation == 0 and v1 == 0 else expectation / v1
    rho = ratio**2 * v0 / v2 / q
    df = 4 + (q + 2) / (q * rho - 1)
    scale = 1.0 if abs(df - 2) < 1e-2 else df * expectation / (df - 2)
    return float(df), float(scale)


def kenward_roger(kernel: LmmKernel, solution: Solution) -> KenwardRoger:
    """Compute Kenward and Roger's adjustment at the REML estimate.

    Parameters
    ----------
    kernel : LmmKernel
        The kernel.
    solution : Solution
        The REML optimum.

    Returns
    -------
    KenwardRoger
        Adjusted covariance and test moments.

    Raises
    ------
    FitError
        If the covariance of a term is not linear in its parameters, or too many levels meet.

    References
    ----------
    Kenward & Roger (1997), *Biometrics* 53(3), equations 1-5, with a covariance linear in its parameters.
    """
    layout, products = kernel.layout, kernel.products
    generators = covariance_generators(layout)
    sums = _Sums.zeros(len(generators), products.n_fixed)
    templates = layout.templates(solution.theta)
    for block in component_blocks(products):
        sums.add(block, templates, generators)
    information, P, Q, K = sums.finish(products.gram[:-1, :-1], products.n_rows)
    phi = np.linalg.inv(information)
    phi_P = phi @ P
    expected = K - 2 * np.einsum("ab,rsba->rs", phi, Q) + np.einsum("rab,sba->rs", phi_P, phi_P)
    W = 2 * np.linalg.pinv((expected + expected.T) / 2, rcond=1e-14, hermitian=True)
    inner = np.einsum("rs,rsab->ab", W, Q - np.einsum("rab,bc,scd->rsad", P, phi, P))
    adjusted = phi + 2 * phi @ ((inner + inner.T) / 2) @ phi
    back = np.linalg.inv(products.R0)
    return KenwardRoger(
        vcov=solution.sigma**2 * back @ phi @ back.T,
        adjusted=solution.sigma**2 * back @ adjusted @ back.T,
        slopes=products.R0.T @ P @ products.R0,
        parameter_cov=W,
        sigma=solution.sigma,
    )


def covariance_generators(layout: Layout) -> list[tuple[int, NDArray[np.float64]]]:
    """Return the derivative of a factor's covariance (K, K) in each variance or covariance.

    Parameters
    ----------
    layout : Layout
        The random terms.

    Returns
    -------
    list of (int, ndarray (K, K))
        Factor and symmetric derivative, one per parameter.

    Raises
    ------
    FitError
        For a structure whose covariance is not linear in its parameters.

    Examples
    --------
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> [matrix.tolist() for _, matrix in covariance_generators(Layout((Covariance("us", 2),), (0,), (5,)))]
    [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]
    """
    generators = []
    for covariance, factor, columns in zip(layout.covariances, layout.term_factor, layout.term_columns, strict=True):
        k, first, width = covariance.k, columns.start, layout.n_effects[factor]
        pairs = [(a, b) for a in range(k) for b in range(a, k)]
        if covariance.kind == "us":
            groups = [[pair] for pair in pairs]
        elif covariance.kind == "diag":
            groups = [[(a, a) for a in range(k)]] if covariance.hom else [[(a, a)] for a in range(k)]
        elif covariance.kind == "cs" and covariance.hom:
            groups = [[(a, a) for a in range(k)], [(a, b) for a, b in pairs if a != b]]
        else:
            raise FitError(
                f"Kenward-Roger needs a covariance that is linear in its parameters; {covariance.kind!r} is not.\n"
                '  Use ddf="satterthwaite", which has no such need.'
            )
        for group in groups:
            matrix = np.zeros((width, width))
            for a, b in group:
                matrix[first + a, first + b] = matrix[first + b, first + a] = 1.0
            generators.append((factor, matrix))
    return generators


@dataclass(frozen=True)
class Block:
    """Components of levels with equally many levels of each factor, side by side.

    Parameters
    ----------
    counts : tuple of int
        Levels of each factor in one component.
    columns : tuple of slice
        Columns of each factor.
    C : ndarray (B, q, q)
        Z'Z.
    ZX : ndarray (B, q, p)
        Z'X in whitened coordinates.
    """

    counts: tuple[int, ...]
    columns: tuple[slice, ...]
    C: NDArray[np.float64]
    ZX: NDArray[np.float64]


def component_blocks(products: CrossProducts) -> Iterator[Block]:
    """Yield the connected components of the levels, those of equal shape together.

    Parameters
    ----------
    products : CrossProducts
        The data.

    Yields
    ------
    Block
        Z'Z and Z'X of the components.

    Raises
    ------
    FitError
        If a component has more than `LARGEST_COMPONENT` effects.
    """
    component = level_components(products)
    counts = np.stack([np.bincount(c, minlength=component[0].max() + 1) for c in component], axis=1)
    shapes, batch_of = np.unique(counts, axis=0, return_inverse=True)
    batch_of = batch_of.ravel()
    sizes = shapes @ np.array(products.n_effects)
    if sizes.max() > LARGEST_COMPONENT:
        raise FitError(
            f"Kenward-Roger works on all levels that meet in some row; here {sizes.max():,} effects meet, and "
            f"{LARGEST_COMPONENT:,} is the limit.\n"
            '  Use ddf="satterthwaite", which has none; with so many levels the two agree closely.'
        )
    slots = [_rank_within(c) for c in component]
    place = np.zeros(len(batch_of), dtype=np.intp)
    for batch in range(len(shapes)):
        members = np.flatnonzero(batch_of == batch)
        place[members] = np.arange(len(members))
        yield _fill_block(products, shapes[batch], len(members), component, batch_of == batch, place, slots)


def level_components(products: CrossProducts) -> list[NDArray[np.intp]]:
    """Return, for each factor, which connected component each of its levels (J,) belongs to.

    Parameters
    ----------
    products : CrossProducts
        The data.

    Returns
    -------
    list of ndarray (J,)
        Component numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from bayeslmm.likelihood.crossproducts import cross_products
    >>> inner, outer = np.arange(4), np.array([0, 0, 1, 1])
    >>> ones = np.ones((4, 1))
    >>> level_components(cross_products(np.arange(4.0), ones, [(ones, inner, 4), (ones, outer, 2)]))
    [array([0, 0, 1, 1]), array([0, 1])]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = np.concatenate([[0], np.cumsum(products.n_levels)])
    rows = np.concatenate([pair.rows + first[pair.first] for pair in products.pairs] or [np.zeros(0, dtype=int)])
    columns = np.concatenate([pair.columns + first[pair.second] for pair in products.pairs] or [np.zeros(0, dtype=int)])
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(first[-1], first[-1]))
    labels = connected_components(graph, directed=False)[1].astype(np.intp)
    return [labels[start:stop] for start, stop in pairwise(first)]


def _rank_within(component: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the position of each level among the levels of its component."""
    order = np.argsort(component, kind="stable")
    ordered = component[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rank = np.empty(len(component), dtype=np.intp)
    rank[order] = np.arange(len(component)) - np.repeat(starts, np.diff(np.r_[starts, len(component)]))
    return rank


def _fill_block(
    products: CrossProducts,
    counts: NDArray[np.intp],
    n_components: int,
    component: list[NDArray[np.intp]],
    member: NDArray[np.bool_],
    place: NDArray[np.intp],
    slots: list[NDArray[np.intp]],
) -> Block:
    widths = counts * np.array(products.n_effects)
    first = np.concatenate([[0], np.cumsum(widths)])
    p = products.n_fixed
    C = np.zeros((n_components, first[-1], first[-1]))
    ZX = np.zeros((n_components, first[-1], p))

    def rows_of(factor: int, levels: NDArray[np.integer]) -> NDArray[np.intp]:
        k = products.n_effects[factor]
        return first[factor] + slots[factor][levels][:, None] * k + np.arange(k)

    for f in range(len(counts)):
        levels = np.flatnonzero(member[component[f]])
        where, rows = place[component[f][levels]], rows_of(f, levels)
        C[where[:, None, None], rows[:, :, None], rows[:, None, :]] = products.diagonal[f][levels]
        ZX[where[:, None], rows] = products.rhs[f][levels][:, :, :p]
    for pair in products.pairs:
        inside = np.flatnonzero(member[component[pair.first][pair.rows]])
        where = place[component[pair.first][pair.rows[inside]]]
        rows, columns = rows_of(pair.first, pair.rows[inside]), rows_of(pair.second, pair.columns[inside])
        C[where[:, None, None], rows[:, :, None], columns[:, None, :]] = pair.values[inside]
        C[where[:, None, None], columns[:, :, None], rows[:, None, :]] = pair.values[inside].transpose(0, 2, 1)
    columns_of = tuple(slice(int(a), int(b)) for a, b in pairwise(first))
    return Block(tuple(int(count) for count in counts), columns_of, C, ZX)


@dataclass
class _Sums:
    """Traces and products, summed over components, in units of sigma² and whitened X.

    With M = Lambda A⁻¹ Lambda', V0⁻¹ = I - Z M Z': H = Z'V0⁻¹Z and D = Z'V0⁻¹X. The residual variance is the last
    parameter, with the identity for its derivative.
    """

    one: NDArray[np.float64]
    two: NDArray[np.float64]
    three: NDArray[np.float64]
    P: NDArray[np.float64]
    Q: NDArray[np.float64]
    K: NDArray[np.float64]

    @classmethod
    def zeros(cls, r: int, p: int) -> _Sums:
        one, two, three = np.zeros((3, p, p))
        return cls(one, two, three, np.zeros((r + 1, p, p)), np.zeros((r + 1, r + 1, p, p)), np.zeros((r + 1, r + 1)))

    def add(
        self,
        block: Block,
        templates: tuple[NDArray[np.float64], ...],
        generators: list[tuple[int, NDArray[np.float64]]],
    ) -> None:
        root = block_diag(*(np.kron(np.eye(m), T) for m, T in zip(block.counts, templates, strict=True)))
        C, ZX = block.C, block.ZX
        A = root.T @ C @ root + np.eye(len(root))
        M = root @ np.linalg.solve(A, np.broadcast_to(root.T, C.shape))
        CM = C @ M
        rest = np.eye(len(root)) - CM
        H, D = rest @ C, rest @ ZX
        H2, E = H @ rest.transpose(0, 2, 1), rest @ D
        self.one += np.einsum("bqa,bqc->ac", ZX, M @ ZX)
        self.two += np.einsum("bqa,bqc->ac", D, M @ ZX)
        self.three += np.einsum("bqa,bqc->ac", D, M @ D)
        self.K[-1, -1] += np.einsum("bij,bji->", CM, CM) - 2 * np.einsum("bii->", CM)
        moved = [_apply(block, factor, S, D) for factor, S in generators]
        for j, (factor, S) in enumerate(generators):
            self.P[j] -= np.einsum("bqa,bqc->ac", D, moved[j])
            cross = np.einsum("bqa,bqc->ac", E, moved[j])
            self.Q[-1, j] += cross
            self.Q[j, -1] += cross.T
            trace = float(np.einsum("bij,ji->", H2, _spread(block, factor, S)))
            self.K[-1, j] += trace
            self.K[j, -1] += trace
            HU = H @ moved[j]
            for i in range(len(generators)):
                self.Q[i, j] += np.einsum("bqa,bqc->ac", moved[i], HU)
        self._add_traces(block, H, generators)

    def _add_traces(
        self, block: Block, H: NDArray[np.float64], generators: list[tuple[int, NDArray[np.float64]]]
    ) -> None:
        """Add tr(G_i V0⁻¹ G_j V0⁻¹) from the Gram matrix of the (level, level) blocks of H."""
        n_factors = len(block.counts)
        widths = [(c.stop - c.start) // max(m, 1) for c, m in zip(block.columns, block.counts, strict=True)]
        for f in range(n_factors):
            for g in range(f, n_factors):
                mine = [(i, S) for i, (factor, S) in enumerate(generators) if factor == f]
                other = [(j, S) for j, (factor, S) in enumerate(generators) if factor == g]
                cells = H[:, block.columns[f], block.columns[g]].reshape(
                    len(H), block.counts[f], widths[f], block.counts[g], widths[g]
                )
                flat = cells.transpose(0, 1, 3, 2, 4).reshape(-1, widths[f] * widths[g])
                gram = (flat.T @ flat).reshape(widths[f], widths[g], widths[f], widths[g])
                for i, S in mine:
                    for j, R in other:
                        value = float(np.einsum("ab,cd,bcad->", S, R, gram))
                        self.K[i, j] += value
                        if f != g:
                            self.K[j, i] += value

    def finish(
        self, gram: NDArray[np.float64], n_rows: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return X'V0⁻¹X, P (r, p, p), Q (r, r, p, p) and the traces (r, r)."""
        information = gram - self.one
        squared = information - self.two
        self.P[-1] = -squared
        self.Q[-1, -1] = squared - self.three
        self.K[-1, -1] += n_rows
        return information, self.P, self.Q, self.K


def _apply(block: Block, factor: int, S: NDArray[np.float64], D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (I ⊗ S) D, zero outside the factor's columns."""
    out = np.zeros_like(D)
    columns, m = block.columns[factor], block.counts[factor]
    if m:
        part = D[:, columns].reshape(len(D), m, S.shape[0], D.shape[2])
        out[:, columns] = np.einsum("ac,nmcp->nmap", S, part).reshape(len(D), -1, D.shape[2])
    return out


def _spread(block: Block, factor: int, S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return I ⊗ S in the rows and columns of the factor."""
    size = block.C.shape[1]
    out = np.zeros((size, size))
    columns = block.columns[factor]
    out[columns, columns] = np.kron(np.eye(block.counts[factor]), S)
    return out
