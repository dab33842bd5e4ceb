"""The coordinates of the search for the optimum, and where it starts.

The search coordinates x remove scale and most of the correlation. With `C` the mean of a term's `Z_j' Z_j` over its
levels and `C = T'T`, `T` lower triangular, the balanced problem depends on `T Lambda` alone, and `x = asinh(T Lambda)`,
entry by entry: linear near a zero variance, so that the boundary is an ordinary smooth minimum, and logarithmic for
large variances, where the criterion is close to quadratic in the logarithm. Standard deviations beside a correlation
(cs, ar1) are taken by their logarithm, the correlation by a hyperbolic tangent between its bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import internal, step
from bayeslmm.likelihood.covariance import KINDS, Covariance, Layout, Space, TermArrays, by_column, semidefinite_root
from bayeslmm.likelihood.crossproducts import CrossProducts
from bayeslmm.likelihood.operations import POINT, PULL_THETA, SLOPE, THETA, THETA_SLOPE, TO_THETA

_US, _DIAG, _CS, _AR1 = range(len(KINDS))
_NEAR = 0.02
"""A coordinate this close to zero counts as on the boundary."""

Floats = NDArray[np.float64]


def new_space(layout: Layout) -> Space:
    """Allocate the coordinates of a layout; `fill_space` or `fill_from_means` computes them."""
    sizes = [covariance.k**2 for covariance in layout.covariances]
    return Space(
        n_levels=np.array([layout.n_levels[f] for f in layout.term_factor], dtype=np.int64),
        root_start=np.array([sum(sizes[:t]) for t in range(len(sizes))], dtype=np.int64),
        roots=np.zeros(sum(sizes)),
        inverse_roots=np.zeros(sum(sizes)),
    )


def fill_space(structure: Any, terms: TermArrays, space: Space) -> None:
    """Compute the roots T of each term from the Z'Z of a symbolic structure."""
    own = structure.block_row == structure.block_column
    factors, starts = structure.node_factor[structure.block_row[own]], structure.block_start[own]
    means = []
    for f, k in enumerate(terms.factor_k):
        at = starts[factors == f]
        means.append(structure.block_values[at[:, None] + np.arange(k * k)].mean(axis=0).reshape(k, k))
    fill_from_means(means, terms, space)


def fill_from_means(means: list[Floats], terms: TermArrays, space: Space) -> None:
    """Compute the roots T of each term from the mean Z_j' Z_j (K, K) of each factor: T'T = C, T lower triangular.

    Terms without a free correlation keep their scales only.
    """
    for t, (kind, k, hom, _, factor, column) in enumerate(zip(*terms[:6], strict=True)):
        mean = means[factor][column : column + k, column : column + k].copy()
        scale = np.where(np.diag(mean) > 0.0, np.diag(mean), 1.0)
        if kind != _US:
            mean = np.diag(np.full(k, scale.mean()) if hom else scale)
        np.fill_diagonal(mean, scale if kind == _US else np.diag(mean))
        mean[np.diag_indices(k)] *= 1.0 + 1e-8
        root = np.linalg.cholesky(mean[::-1, ::-1])[::-1, ::-1].T
        at = slice(space.root_start[t], space.root_start[t] + k * k)
        space.roots[at] = root.ravel()
        space.inverse_roots[at] = np.linalg.inv(root).ravel()


@step
def triangle(i, j, k):  # type: ignore[no-untyped-def]
    """Return the place of entry (i, j) in the lower triangle column by column."""
    return j * k - j * (j - 1) // 2 + i - j


@internal
def theta_of(terms, n_terms, space, x, theta):  # type: ignore[no-untyped-def]
    """Fill `theta` from search coordinates."""
    for t in range(n_terms):
        kind, k, first, base = terms.kind[t], terms.k[t], terms.theta_start[t], space.root_start[t]
        if kind == _US:
            for j in range(k):
                for i in range(j, k):
                    total = 0.0
                    for l in range(j, i + 1):
                        total += space.inverse_roots[base + i * k + l] * np.sinh(x[first + triangle(l, j, k)])
                    theta[first + triangle(i, j, k)] = total
        else:
            count = 1 if terms.hom[t] else k
            for i in range(count):
                size = np.sinh(x[first + i]) if kind == _DIAG else np.exp(x[first + i])
                theta[first + i] = size * space.inverse_roots[base + i * (k + 1)]
            if kind != _DIAG:
                low = -1.0 / (k - 1) if kind == _CS else -1.0
                theta[first + count] = 0.5 * (1.0 + low) + 0.5 * (1.0 - low) * np.tanh(x[first + count])


@internal
def slope_of(terms, n_terms, space, x, gradient, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient in search coordinates, given the `gradient` in theta."""
    for t in range(n_terms):
        kind, k, first, base = terms.kind[t], terms.k[t], terms.theta_start[t], space.root_start[t]
        if kind == _US:
            for j in range(k):
                for l in range(j, k):
                    total = 0.0
                    for i in range(l, k):
                        total += space.inverse_roots[base + i * k + l] * gradient[first + triangle(i, j, k)]
                    at = first + triangle(l, j, k)
                    out[at] = total * np.cosh(x[at])
        else:
            count = 1 if terms.hom[t] else k
            for i in range(count):
                slope = np.cosh(x[first + i]) if kind == _DIAG else np.exp(x[first + i])
                out[first + i] = gradient[first + i] * slope * space.inverse_roots[base + i * (k + 1)]
            if kind != _DIAG:
                low = -1.0 / (k - 1) if kind == _CS else -1.0
                hyperbolic = np.cosh(x[first + count])
                out[first + count] = gradient[first + count] * 0.5 * (1.0 - low) / (hyperbolic * hyperbolic)


def to_theta(terms: TermArrays, space: Space, x: Floats, theta: Floats) -> None:
    """Fill `theta` from search coordinates."""
    _run(TO_THETA, terms, space, ((POINT, x), (THETA, theta)))


def pull_theta(terms: TermArrays, space: Space, x: Floats, gradient: Floats, out: Floats) -> None:
    """Fill `out` with the gradient in search coordinates, given the `gradient` in theta."""
    _run(PULL_THETA, terms, space, ((POINT, x), (THETA_SLOPE, gradient), (SLOPE, out)))


def _run(operation: int, terms: TermArrays, space: Space, arguments: tuple[tuple[int, Floats], ...]) -> None:
    """Let compiled code go between search coordinates and theta: it needs no data."""
    from bayeslmm.likelihood.coordinates_entry import coordinates
    from bayeslmm.likelihood.handle import coordinates_handle, set_argument

    handle = coordinates_handle(terms, space)
    handle[0] = operation
    for argument, array in arguments:
        set_argument(handle, argument, array)
    coordinates.native(handle.ctypes.data)


def _terms(terms: TermArrays, space: Space) -> Iterator[tuple[int, Covariance, slice, Floats]]:
    """Yield index, covariance, place in theta and T of each term."""
    for t, (kind, k, hom, first) in enumerate(zip(*terms[:4], strict=True)):
        covariance = Covariance(KINDS[kind], int(k), bool(hom))
        at = space.root_start[t]
        yield t, covariance, slice(first, first + covariance.n_theta), space.roots[at : at + k * k].reshape(k, k)


def _coordinates(covariance: Covariance, root: Floats, theta: Floats) -> Floats:
    """Return the search coordinates of one term."""
    k = covariance.k
    if covariance.kind == "us":
        return np.arcsinh(root @ covariance.Lambda(theta))[by_column(k)]
    scales = np.diag(root)[:1] if covariance.hom else np.diag(root)
    if covariance.kind == "diag":
        return np.arcsinh(theta * scales)
    low = covariance.lower[-1]
    unit = (theta[-1] - 0.5 * (1.0 + low)) / (0.5 * (1.0 - low))
    return np.append(np.log(np.maximum(theta[:-1] * scales, 1e-4)), np.arctanh(np.clip(unit, -0.999, 0.999)))


def from_theta(terms: TermArrays, space: Space, theta: Floats, x: Floats) -> None:
    """Fill search coordinates from `theta`."""
    for _, covariance, place, root in _terms(terms, space):
        x[place] = _coordinates(covariance, root, theta[place])


def lift(terms: TermArrays, space: Space, x: Floats, new_x: Floats) -> bool:
    """Fill `new_x` with `x` moved off the boundary; return whether it was on it."""
    new_x[:] = x
    if np.abs(x).min(initial=1.0) >= _NEAR and not (terms.kind > _DIAG).any():
        return False
    theta = np.empty_like(x)
    to_theta(terms, space, x, theta)
    for _, covariance, place, root in _terms(terms, space):
        here = new_x[place]
        if covariance.kind == "us":
            template = root @ covariance.Lambda(theta[place])
            if np.abs(np.diag(template)).min() < _NEAR:
                raised = semidefinite_root(template @ template.T + 0.3 * np.eye(covariance.k))
                here[:] = np.arcsinh(raised)[by_column(covariance.k)]
        elif covariance.kind == "diag":
            here[np.abs(here) < _NEAR] = 0.5
        else:
            here[:-1][here[:-1] < -4.0] = -0.7
            here[-1] = np.clip(here[-1], -3.0, 3.0) / (6.0 if abs(here[-1]) > 3.0 else 1.0)
    return bool((new_x != x).any())


def moment_start(products: CrossProducts, layout: Layout, space: Space) -> Floats:
    """Return search coordinates (m,) from moment estimates of the variance ratios.

    Each term is one component `s_t C_t^-1`. The expected sums of squares of the level totals of the least squares
    residuals, whitened by `C_t`, are linear in the components and the residual variance; with the total sum of squares
    there are as many equations as unknowns.

    Parameters
    ----------
    products : CrossProducts
        The data.
    layout : Layout
        The random terms.
    space : Space
        The scales.
    """
    n_terms = len(layout.covariances)
    whiteners = []
    for t, covariance in enumerate(layout.covariances):
        at = space.root_start[t]
        whiteners.append(space.inverse_roots[at : at + covariance.k**2].reshape(covariance.k, covariance.k))
    columns = layout.term_columns

    def whiten(blocks: Floats, t: int, other: int) -> Floats:
        return whiteners[t].T @ blocks[:, columns[t], columns[other]] @ whiteners[other]

    system, right = np.zeros((n_terms + 1, n_terms + 1)), np.zeros(n_terms + 1)
    system[n_terms, n_terms], right[n_terms] = products.n_rows, products.gram[-1, -1]
    shapes = []
    for t, f in enumerate(layout.term_factor):
        totals = products.rhs[f][:, columns[t], -1] @ whiteners[t]
        shapes.append(totals.T @ totals)
        right[t] = np.trace(shapes[t])
        for other, g in enumerate(layout.term_factor):
            if f == g:
                own = whiten(products.diagonal[f], t, other)
                system[t, other] = (own * own).sum()
                if t == other:
                    system[t, n_terms] = system[n_terms, t] = np.einsum("jkk->", own)
    for pair in products.pairs:
        for t in (t for t, f in enumerate(layout.term_factor) if f == pair.first):
            for other in (t for t, f in enumerate(layout.term_factor) if f == pair.second):
                square = (whiten(pair.values, t, other) ** 2).sum()
                system[t, other] = system[other, t] = square
    parts = np.linalg.lstsq(system, right, rcond=1e-10)[0]
    sigma2 = max(parts[n_terms], 0.05 * right[n_terms] / products.n_rows)
    starts = []
    for t, covariance in enumerate(layout.covariances):
        ratio = max(parts[t] / sigma2, 0.05) if sigma2 > 0.0 else 1.0
        starts.append(_start(covariance, shapes[t], ratio))
    return layout.gather(starts)


def _start(covariance: Covariance, shape: Floats, ratio: float) -> Floats:
    """Return the coordinates of one term: the shape of its whitened totals, scaled to the mean variance `ratio`."""
    k = covariance.k
    trace = np.trace(shape)
    whitened = shape * (0.9 * k * ratio / trace) if trace > 0.0 else np.zeros((k, k))
    np.fill_diagonal(whitened, np.diag(whitened) / 0.9 + 1e-3 * ratio)
    if covariance.kind == "us":
        return np.arcsinh(np.linalg.cholesky(whitened))[by_column(k)]
    theta = covariance.theta_from(np.sqrt(np.diag(whitened)), np.eye(k))
    if covariance.kind != "diag":
        theta[-1] = 0.2
    return _coordinates(covariance, np.eye(k), theta)


def expected_information(layout: Layout, space: Space, x: Floats) -> Floats:
    """Return the expected Hessian (m, m) of the balanced problem at `x`, block diagonal in the terms.

    With V = I + T Lambda (T Lambda)' its entries are J tr(V^-1 dV_a V^-1 dV_b), J the number of levels.

    Parameters
    ----------
    layout : Layout
        The random terms.
    space : Space
        The scales.
    x : (m,)
        Search coordinates.
    """
    out = np.zeros((len(x), len(x)))
    theta = np.empty_like(x)
    to_theta(layout.arrays, space, x, theta)
    slopes_of_theta = jacobian(layout, space, x)
    for t, covariance, place, root in _terms(layout.arrays, space):
        template = root @ covariance.Lambda(theta[place])
        slopes = np.tensordot(slopes_of_theta[place, place], root @ covariance.dLambda(theta[place]), (0, 0))
        white = np.linalg.inv(np.linalg.cholesky(np.eye(covariance.k) + template @ template.T))
        change = white @ (slopes @ template.T + template @ slopes.transpose(0, 2, 1)) @ white.T
        flat = change.reshape(len(change), -1)
        out[place, place] = space.n_levels[t] * (flat @ flat.T + 0.05 * np.eye(len(flat)))
    return out


def jacobian(layout: Layout, space: Space, x: Floats) -> Floats:
    """Return the derivative (m, m) of theta in the search coordinates, block diagonal in the terms."""
    out = np.zeros((len(x), len(x)))
    for _, covariance, place, root in _terms(layout.arrays, space):
        here = x[place]
        if covariance.kind == "us":
            rows, columns = by_column(covariance.k)
            block = np.linalg.inv(root)[np.ix_(rows, rows)] * (columns[:, None] == columns) * np.cosh(here)
        else:
            count = 1 if covariance.hom else covariance.k
            growth = np.cosh(here[:count]) if covariance.kind == "diag" else np.exp(here[:count])
            block = np.diag(np.append(growth / np.diag(root)[:count], np.zeros(len(here) - count)))
            if len(here) > count:
                block[-1, -1] = 0.5 * (1.0 - covariance.lower[-1]) / np.cosh(here[-1]) ** 2
        out[place, place] = block
    return out
