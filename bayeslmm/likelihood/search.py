"""The search for the optimum of the criterion, in compiled code from start to finish.

The search coordinates x remove scale and most of the correlation. With `C` the mean of a term's `Z_j' Z_j` over its
levels and `C = T'T`, `T` lower triangular, the balanced problem depends on `T Lambda` alone, and `x = asinh(T Lambda)`,
entry by entry: linear near a zero variance, so that the boundary is an ordinary smooth minimum, and logarithmic for
large variances, where the criterion is close to quadratic in the logarithm.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import compiled
from bayeslmm.likelihood.covariance import KINDS, Layout, fill_lambda, n_parameters
from bayeslmm.likelihood.lmm import evaluate, small_cholesky, small_inverse_root

_US, _DIAG, _CS, _AR1 = range(len(KINDS))
CONVERGED, OUT_OF_EVALUATIONS, STALLED, STOPPED = range(4)


class Space(NamedTuple):
    """The search coordinates as arrays, for compiled code.

    Parameters
    ----------
    n_levels : (T,) int64
        Levels of each term's factor.
    root_start : (T,) int64
        Where each term's `T` starts in `roots`.
    roots, inverse_roots : float64
        `T` and its inverse, (k, k) for each term.
    """

    n_levels: NDArray[np.int64]
    root_start: NDArray[np.int64]
    roots: NDArray[np.float64]
    inverse_roots: NDArray[np.float64]


def new_space(layout: Layout) -> Space:
    """Allocate the coordinates of a layout; `fill_space` computes them."""
    sizes = [covariance.k**2 for covariance in layout.covariances]
    return Space(
        n_levels=np.array([layout.n_levels[f] for f in layout.term_factor], dtype=np.int64),
        root_start=np.array([sum(sizes[:t]) for t in range(len(sizes))], dtype=np.int64),
        roots=np.zeros(sum(sizes)),
        inverse_roots=np.zeros(sum(sizes)),
    )


@compiled
def fill_space(s, terms, space):  # type: ignore[no-untyped-def]
    """Compute the roots T of each term's mean cross-products, T' T = C with T lower triangular."""
    for t in range(terms.kind.size):
        f, k, column = terms.factor[t], terms.k[t], terms.column[t]
        width = terms.factor_k[f]
        mean = np.zeros((k, k))
        for b in range(s.block_row.size):
            r = s.block_row[b]
            if s.node_factor[r] == f and s.block_column[b] == r:
                for i in range(k):
                    for j in range(k):
                        mean[i, j] += s.block_values[s.block_start[b] + (column + i) * width + column + j]
        flipped = np.zeros((k, k))
        for i in range(k):
            for j in range(k):
                flipped[i, j] = mean[k - 1 - i, k - 1 - j] / space.n_levels[t]
                if i != j and terms.kind[t] != _US:
                    flipped[i, j] = 0.0
            flipped[i, i] *= 1.0 + 1e-8
            if not flipped[i, i] > 0.0:
                flipped[i, i] = 1.0
        small_cholesky(flipped)
        root = np.zeros((k, k))
        for i in range(k):
            for j in range(i + 1):
                root[i, j] = flipped[k - 1 - j, k - 1 - i]
        inverse = np.empty((k, k))
        small_inverse_root(root, inverse)
        at = space.root_start[t]
        for i in range(k):
            for j in range(k):
                space.roots[at + i * k + j] = root[i, j]
                space.inverse_roots[at + i * k + j] = inverse[i, j]


@compiled
def scale_of(space, t, k, i, hom):  # type: ignore[no-untyped-def]
    """Return the scale of the i-th standard deviation of a term without rotation."""
    if not hom:
        return space.roots[space.root_start[t] + i * k + i]
    total = 0.0
    for j in range(k):
        total += space.roots[space.root_start[t] + j * k + j] ** 2
    return np.sqrt(total / k)


@compiled
def to_theta(terms, space, x, theta):  # type: ignore[no-untyped-def]
    """Fill `theta` from search coordinates."""
    for t in range(terms.kind.size):
        kind, k, hom, first = terms.kind[t], terms.k[t], terms.hom[t], terms.theta_start[t]
        if kind == _US:
            base = space.root_start[t]
            at = first
            for j in range(k):
                for i in range(j, k):
                    total = 0.0
                    for l in range(j, i + 1):
                        total += space.inverse_roots[base + i * k + l] * np.sinh(x[first + triangle(l, j, k)])
                    theta[at] = total
                    at += 1
            continue
        count = 1 if hom else k
        for i in range(count):
            move = x[first + i]
            size = np.exp(move) if kind != _DIAG else np.sinh(move)
            theta[first + i] = size / scale_of(space, t, k, i, hom)
        if kind != _DIAG:
            low = -1.0 / (k - 1) if kind == _CS else -1.0
            theta[first + count] = 0.5 * (1.0 + low) + 0.5 * (1.0 - low) * np.tanh(x[first + count])


@compiled
def triangle(i, j, k):  # type: ignore[no-untyped-def]
    """Return the place of entry (i, j) in the lower triangle column by column."""
    return j * k - j * (j - 1) // 2 + i - j


@compiled
def from_theta(terms, space, theta, x):  # type: ignore[no-untyped-def]
    """Fill search coordinates from `theta`."""
    for t in range(terms.kind.size):
        kind, k, hom, first = terms.kind[t], terms.k[t], terms.hom[t], terms.theta_start[t]
        if kind == _US:
            base = space.root_start[t]
            for j in range(k):
                for i in range(j, k):
                    total = 0.0
                    for l in range(j, i + 1):
                        total += space.roots[base + i * k + l] * theta[first + triangle(l, j, k)]
                    x[first + triangle(i, j, k)] = np.arcsinh(total)
            continue
        count = 1 if hom else k
        for i in range(count):
            size = theta[first + i] * scale_of(space, t, k, i, hom)
            x[first + i] = np.log(max(size, 1e-4)) if kind != _DIAG else np.arcsinh(size)
        if kind != _DIAG:
            low = -1.0 / (k - 1) if kind == _CS else -1.0
            unit = (theta[first + count] - 0.5 * (1.0 + low)) / (0.5 * (1.0 - low))
            x[first + count] = np.arctanh(max(-0.999, min(0.999, unit)))


@compiled
def pull_theta(terms, space, x, gradient, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient in search coordinates, given the `gradient` in theta."""
    for t in range(terms.kind.size):
        kind, k, hom, first = terms.kind[t], terms.k[t], terms.hom[t], terms.theta_start[t]
        if kind == _US:
            base = space.root_start[t]
            for j in range(k):
                for l in range(j, k):
                    total = 0.0
                    for i in range(l, k):
                        total += space.inverse_roots[base + i * k + l] * gradient[first + triangle(i, j, k)]
                    at = first + triangle(l, j, k)
                    out[at] = total * np.cosh(x[at])
            continue
        count = 1 if hom else k
        for i in range(count):
            move = x[first + i]
            slope = np.exp(move) if kind != _DIAG else np.cosh(move)
            out[first + i] = gradient[first + i] * slope / scale_of(space, t, k, i, hom)
        if kind != _DIAG:
            low = -1.0 / (k - 1) if kind == _CS else -1.0
            out[first + count] = gradient[first + count] * 0.5 * (1.0 - low) / np.cosh(x[first + count]) ** 2


@compiled
def moment_start(s, terms, space, rhs, gram, n_rows, x):  # type: ignore[no-untyped-def]
    """Fill `x` with moment estimates of the variance ratios from least squares residuals.

    Each term is one component `s_t C_t^-1`; the expected sums of squares of its level totals, whitened by `C_t`, are
    linear in the components, and with the total sum of squares give as many equations as unknowns.
    """
    n_terms = terms.kind.size
    last = rhs.shape[1] - 1
    system = np.zeros((n_terms + 1, n_terms + 2))
    system[n_terms, n_terms] = n_rows
    system[n_terms, n_terms + 1] = gram[last, last]
    shape_start = space.root_start
    shapes = np.zeros(space.roots.size)
    for t in range(n_terms):
        system[n_terms, t] = space.n_levels[t] * terms.k[t]
    for h in range(s.node_factor.size):
        for t in range(n_terms):
            if terms.factor[t] == s.node_factor[h]:
                add_shape(s, terms, space, t, rhs, h, last, shapes)
    for t in range(n_terms):
        for i in range(terms.k[t]):
            system[t, n_terms + 1] += shapes[shape_start[t] + i * terms.k[t] + i]
    for b in range(s.block_row.size):
        r, c = s.block_row[b], s.block_column[b]
        for t in range(n_terms):
            if terms.factor[t] != s.node_factor[r]:
                continue
            for other in range(n_terms):
                if terms.factor[other] == s.node_factor[c]:
                    square, trace = whitened_square(s, terms, space, b, t, other)
                    system[t, other] += square
                    if r != c:
                        system[other, t] += square
                    elif t == other:
                        system[t, n_terms] += trace
    eliminate_gauss(system)
    sigma2 = max(system[n_terms, n_terms + 1], 0.05 * gram[last, last] / n_rows)
    for t in range(n_terms):
        ratio = max(system[t, n_terms + 1] / sigma2, 0.05)
        k = terms.k[t]
        trace = 1e-300
        for i in range(k):
            trace += shapes[shape_start[t] + i * k + i]
        root = np.zeros((k, k))
        for i in range(k):
            for j in range(k):
                off = 0.9 if i != j else 1.0
                root[i, j] = off * shapes[shape_start[t] + i * k + j] * k * ratio / trace
            root[i, i] += 1e-3 * ratio
        write_start(terms, t, root, x)


@compiled
def write_start(terms, t, root, x):  # type: ignore[no-untyped-def]
    """Write the start of one term, given the covariance `root` (overwritten) in whitened coordinates."""
    kind, k, hom, first = terms.kind[t], terms.k[t], terms.hom[t], terms.theta_start[t]
    if kind == _US:
        small_cholesky(root)
        for j in range(k):
            for i in range(j, k):
                x[first + triangle(i, j, k)] = np.arcsinh(root[i, j])
        return
    mean = 0.0
    for i in range(k):
        mean += root[i, i] / k
    count = 1 if hom else k
    for i in range(count):
        size = np.sqrt(mean if hom else root[i, i])
        x[first + i] = np.log(size) if kind != _DIAG else np.arcsinh(size)
    if kind != _DIAG:
        low = -1.0 / (k - 1) if kind == _CS else -1.0
        x[first + count] = np.arctanh((0.2 - 0.5 * (1.0 + low)) / (0.5 * (1.0 - low)))


@compiled
def add_shape(s, terms, space, t, rhs, h, last, shapes):  # type: ignore[no-untyped-def]
    """Add T^-T w w' T^-1 of one level, w its total of residuals, to the term's place in `shapes`."""
    k, base = terms.k[t], space.root_start[t]
    own = s.offset[h] + terms.column[t]
    white = np.zeros(k)
    for i in range(k):
        for l in range(i, k):
            white[i] += space.inverse_roots[base + l * k + i] * rhs[own + l, last]
    for i in range(k):
        for j in range(k):
            shapes[base + i * k + j] += white[i] * white[j]


@compiled
def whitened_square(s, terms, space, b, t, other):  # type: ignore[no-untyped-def]
    """Return the sum of squares, and the trace, of T^-T C T'^-1 for one block of Z'Z and two terms."""
    width = terms.factor_k[terms.factor[other]]
    start = s.block_start[b] + terms.column[t] * width + terms.column[other]
    left, right = space.root_start[t], space.root_start[other]
    kl, kr = terms.k[t], terms.k[other]
    square, trace = 0.0, 0.0
    for i in range(kl):
        for j in range(kr):
            total = 0.0
            for l in range(i, kl):
                for m in range(j, kr):
                    total += (
                        space.inverse_roots[left + l * kl + i]
                        * s.block_values[start + l * width + m]
                        * space.inverse_roots[right + m * kr + j]
                    )
            square += total * total
            if i == j:
                trace += total
    return square, trace


@compiled
def eliminate_gauss(system):  # type: ignore[no-untyped-def]
    """Solve the small linear system (n, n + 1) in place; the solution is its last column."""
    n = system.shape[0]
    for i in range(n):
        best = i
        for r in range(i + 1, n):
            if abs(system[r, i]) > abs(system[best, i]):
                best = r
        for c in range(n + 1):
            system[i, c], system[best, c] = system[best, c], system[i, c]
        if system[i, i] == 0.0:
            system[i, i] = 1.0
        for r in range(n):
            if r != i:
                factor = system[r, i] / system[i, i]
                for c in range(i, n + 1):
                    system[r, c] -= factor * system[i, c]
    for i in range(n):
        system[i, n] /= system[i, i]


@compiled
def whitened_template(terms, space, t, theta, out):  # type: ignore[no-untyped-def]
    """Fill `out` (k, k) with T Lambda of one term."""
    k, first, base = terms.k[t], terms.theta_start[t], space.root_start[t]
    template = np.empty((k, k))
    size = n_parameters(terms.kind[t], k, terms.hom[t])
    fill_lambda(terms.kind[t], terms.hom[t], theta[first : first + size], template)
    for i in range(k):
        for j in range(k):
            total = 0.0
            for l in range(i + 1):
                total += space.roots[base + i * k + l] * template[l, j]
            out[i, j] = total


@compiled
def information(terms, space, x, inverse):  # type: ignore[no-untyped-def]
    """Fill `inverse` (m, m) with the inverse of the expected Hessian of the balanced problem, block by block."""
    m = x.size
    inverse[:, :] = 0.0
    theta = np.empty(m)
    moved = x.copy()
    for t in range(terms.kind.size):
        k, first = terms.k[t], terms.theta_start[t]
        size = n_parameters(terms.kind[t], k, terms.hom[t])
        base = np.empty((k, k))
        to_theta(terms, space, x, theta)
        whitened_template(terms, space, t, theta, base)
        scale = np.eye(k)
        for i in range(k):
            for j in range(k):
                for l in range(k):
                    scale[i, j] += base[i, l] * base[j, l]
        small_cholesky(scale)
        white = np.empty((k, k))
        small_inverse_root(scale, white)
        slopes = np.zeros((size, k, k))
        other = np.empty((k, k))
        for a in range(size):
            moved[first + a] += 1e-6
            to_theta(terms, space, moved, theta)
            moved[first + a] = x[first + a]
            whitened_template(terms, space, t, theta, other)
            change = np.zeros((k, k))
            for i in range(k):
                for j in range(k):
                    for l in range(k):
                        change[i, j] += (other[i, l] * other[j, l] - base[i, l] * base[j, l]) * 1e6
            for i in range(k):
                for j in range(k):
                    total = 0.0
                    for l in range(i + 1):
                        for n in range(j + 1):
                            total += white[i, l] * change[l, n] * white[j, n]
                    slopes[a, i, j] = total
        hessian = np.zeros((size, size))
        for a in range(size):
            for b in range(size):
                for i in range(k):
                    for j in range(k):
                        hessian[a, b] += slopes[a, i, j] * slopes[b, i, j]
                hessian[a, b] *= space.n_levels[t]
            hessian[a, a] += 0.05 * space.n_levels[t]
        small_cholesky(hessian)
        root = np.empty((size, size))
        small_inverse_root(hessian, root)
        for a in range(size):
            for b in range(size):
                for l in range(size):
                    inverse[first + a, first + b] += root[l, a] * root[l, b]


class Journal(NamedTuple):
    """What the search writes while it runs; another thread may read it, and ask it to stop.

    Parameters
    ----------
    counts : (2,) int64
        Evaluations so far; set the second to 1 to stop after the evaluation at work.
    values : (max_evaluations,) float64
        Criterion at each evaluation.
    """

    counts: NDArray[np.int64]
    values: NDArray[np.float64]


@compiled
def measure(s, w, terms, space, rhs, gram, n_rows, reml, constant, x, slope, journal):  # type: ignore[no-untyped-def]
    """Return the criterion at search coordinates `x`, fill its gradient `slope`, keep the journal."""
    theta = np.empty(x.size)
    gradient = np.empty(x.size)
    to_theta(terms, space, x, theta)
    value = evaluate(s, w, terms, theta, rhs, gram, n_rows, reml, constant, gradient)
    pull_theta(terms, space, x, gradient, slope)
    if journal.counts[0] < journal.values.size:
        journal.values[journal.counts[0]] = value
    journal.counts[0] += 1
    for i in range(x.size):
        if not np.isfinite(slope[i]):
            value = np.inf
    return value if np.isfinite(value) else np.inf


@compiled
def line_search(s, w, terms, space, rhs, gram, n_rows, reml, constant, x, value, direction, decline, journal, new_x, new_slope):  # type: ignore[no-untyped-def]  # fmt: skip
    """Move from `x` along `direction` until the (weak, or near rounding the approximate) Wolfe conditions hold.

    Return the value and the step, 0 when none was found; `new_x` and `new_slope` are filled.

    References
    ----------
    Hager & Zhang (2005), A new conjugate gradient method with guaranteed descent, *SIAM J. Optim.* 16(1).
    """
    longest = 0.0
    for i in range(x.size):
        longest = max(longest, abs(direction[i]))
    step = min(1.0, 1.5 / longest)
    low, high = 0.0, np.inf
    low_decline = decline
    for _ in range(30):
        for i in range(x.size):
            new_x[i] = x[i] + step * direction[i]
        new_value = measure(s, w, terms, space, rhs, gram, n_rows, reml, constant, new_x, new_slope, journal)
        new_decline = 0.0
        for i in range(x.size):
            new_decline += new_slope[i] * direction[i]
        enough = new_value <= value + 1e-4 * step * decline
        if not enough and new_value <= value + 1e-12 * abs(value):
            enough = new_decline <= -0.8 * decline
        if not enough:
            high = step
            share = 0.5
            if new_value < np.inf and new_decline > 0.0:
                share = low_decline / (low_decline - new_decline)
            step = low + max(0.1, min(0.7, share)) * (high - low)
        elif new_decline < 0.9 * decline and step * longest < 8.0:
            low, low_decline = step, new_decline
            step = 3.0 * step if high == np.inf else 0.5 * (low + high)
        else:
            return new_value, step
        if journal.counts[1] or (high - low) * longest < 1e-12:
            break
    return value, 0.0


@compiled
def descend(s, w, terms, space, rhs, gram, n_rows, reml, constant, tolerance, x, slope, journal):  # type: ignore[no-untyped-def]
    """Minimise from `x` by BFGS; return value, status. `x` and `slope` are those of the minimum.

    The test is the Newton decrement, the decrease still to be had in units of the criterion: free of any scale.
    """
    m = x.size
    inverse = np.empty((m, m))
    direction, new_x, new_slope = np.empty(m), np.empty(m), np.empty(m)
    image = np.empty(m)
    value = measure(s, w, terms, space, rhs, gram, n_rows, reml, constant, x, slope, journal)
    for _ in range(20):
        if value < np.inf:
            break
        for i in range(m):
            x[i] *= 0.5
        value = measure(s, w, terms, space, rhs, gram, n_rows, reml, constant, x, slope, journal)
    information(terms, space, x, inverse)
    fresh = True
    while True:
        decline = 0.0
        for i in range(m):
            direction[i] = 0.0
            for j in range(m):
                direction[i] -= inverse[i, j] * slope[j]
            decline += direction[i] * slope[i]
        if not value < np.inf:
            return value, STALLED
        if -decline < tolerance:
            return value, CONVERGED
        if journal.counts[1]:
            return value, STOPPED
        if journal.counts[0] >= journal.values.size:
            return value, OUT_OF_EVALUATIONS
        new_value, step = line_search(
            s, w, terms, space, rhs, gram, n_rows, reml, constant, x, value, direction, decline, journal, new_x, new_slope
        )
        if step == 0.0:
            if fresh:
                return value, CONVERGED if -decline < 1e-6 else STALLED
            information(terms, space, x, inverse)
            fresh = True
            continue
        curvature, quadratic = 0.0, 0.0
        for i in range(m):
            curvature += step * direction[i] * (new_slope[i] - slope[i])
        if curvature > 0.0:
            for i in range(m):
                image[i] = 0.0
                for j in range(m):
                    image[i] += inverse[i, j] * (new_slope[j] - slope[j])
            for i in range(m):
                quadratic += image[i] * (new_slope[i] - slope[i])
            for i in range(m):
                for j in range(m):
                    inverse[i, j] += (1.0 + quadratic / curvature) * step * direction[i] * step * direction[j] / curvature
                    inverse[i, j] -= step * (image[i] * direction[j] + direction[i] * image[j]) / curvature
            fresh = False
        for i in range(m):
            x[i] = new_x[i]
            slope[i] = new_slope[i]
        value = new_value


@compiled
def refine(s, w, terms, space, rhs, gram, n_rows, reml, constant, value, x, slope, hessian, journal):  # type: ignore[no-untyped-def]
    """Take Newton steps with a Hessian by central differences; return the value and whether it is positive definite.

    `hessian` (m, m) in search coordinates is filled; two steps reach the limit of double precision.
    """
    m = x.size
    moved, high, low = np.empty(m), np.empty(m), np.empty(m)
    root, inverse = np.empty((m, m)), np.empty((m, m))
    width = 1e-4
    for a in range(m):
        for i in range(m):
            moved[i] = x[i]
        moved[a] = x[a] + width
        measure(s, w, terms, space, rhs, gram, n_rows, reml, constant, moved, high, journal)
        moved[a] = x[a] - width
        measure(s, w, terms, space, rhs, gram, n_rows, reml, constant, moved, low, journal)
        for b in range(m):
            hessian[a, b] = (high[b] - low[b]) / (2.0 * width)
    for a in range(m):
        for b in range(a + 1):
            hessian[a, b] = hessian[b, a] = 0.5 * (hessian[a, b] + hessian[b, a])
            root[a, b] = hessian[a, b]
    small_cholesky(root)
    for a in range(m):
        if not root[a, a] * root[a, a] > 1e-7 * abs(hessian[a, a]) + 1e-10:
            return value, False
    small_inverse_root(root, inverse)
    for _ in range(2):
        decrement = 0.0
        for i in range(m):
            moved[i] = x[i]
        for l in range(m):
            part = 0.0
            for i in range(l + 1):
                part += inverse[l, i] * slope[i]
            decrement += part * part
            for i in range(l + 1):
                moved[i] -= inverse[l, i] * part
        if decrement < 1e-20 or decrement > 1e-3:
            break
        new_value = measure(s, w, terms, space, rhs, gram, n_rows, reml, constant, moved, high, journal)
        if not new_value <= value + 1e-11 * abs(value):
            break
        value = new_value
        for i in range(m):
            x[i] = moved[i]
            slope[i] = high[i]
    return value, True


@compiled
def lift(terms, space, x, new_x):  # type: ignore[no-untyped-def]
    """Fill `new_x` with `x` moved off the boundary; return whether it was on it."""
    touched = False
    theta = np.empty(x.size)
    to_theta(terms, space, x, theta)
    for i in range(x.size):
        new_x[i] = x[i]
    for t in range(terms.kind.size):
        kind, k, hom, first = terms.kind[t], terms.k[t], terms.hom[t], terms.theta_start[t]
        if kind == _US:
            flat = False
            for j in range(k):
                flat = flat or abs(x[first + triangle(j, j, k)]) < 0.02
            if flat:
                touched = True
                template, raised = np.empty((k, k)), np.zeros((k, k))
                whitened_template(terms, space, t, theta, template)
                for i in range(k):
                    raised[i, i] = 0.3
                    for j in range(k):
                        for l in range(k):
                            raised[i, j] += template[i, l] * template[j, l]
                small_cholesky(raised)
                for j in range(k):
                    for i in range(j, k):
                        new_x[first + triangle(i, j, k)] = np.arcsinh(raised[i, j])
            continue
        count = 1 if hom else k
        for i in range(count):
            if kind == _DIAG and abs(x[first + i]) < 0.02:
                new_x[first + i], touched = 0.5, True
            elif kind != _DIAG and x[first + i] < -4.0:
                new_x[first + i], touched = -0.7, True
        if kind != _DIAG and abs(x[first + count]) > 3.0:
            new_x[first + count], touched = 0.5 * np.sign(x[first + count]), True
    return touched


@compiled
def minimise(s, w, terms, space, rhs, gram, n_rows, reml, constant, started, tolerance, fine, x, slope, hessian, journal):  # type: ignore[no-untyped-def]  # fmt: skip
    """Find the best minimum: start, descent, a second descent from the interior after a boundary, Newton steps.

    Parameters
    ----------
    started : bool
        Whether `x` holds the start already.
    fine : bool
        Whether evaluations are cheap enough for a Hessian by differences.

    Returns
    -------
    value, status, whether the Hessian is positive definite (-1 when not computed)
    """
    if not started:
        moment_start(s, terms, space, rhs, gram, n_rows, x)
    value, status = descend(s, w, terms, space, rhs, gram, n_rows, reml, constant, tolerance, x, slope, journal)
    other_x, other_slope = np.empty(x.size), np.empty(x.size)
    if status != STOPPED and lift(terms, space, x, other_x):
        other, other_status = descend(
            s, w, terms, space, rhs, gram, n_rows, reml, constant, tolerance, other_x, other_slope, journal
        )
        if other < value - 1e-8:
            value, status = other, other_status
            for i in range(x.size):
                x[i], slope[i] = other_x[i], other_slope[i]
    definite = -1
    if fine and status != STOPPED:
        value, positive = refine(
            s, w, terms, space, rhs, gram, n_rows, reml, constant, value, x, slope, hessian, journal
        )
        definite = 1 if positive else 0
    return value, status, definite
