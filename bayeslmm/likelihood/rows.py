"""What the rows of a generalised model give and take: linear predictors, sums over rows, quadratic forms.

Everything else happens on the effects, whose number does not grow with the data. Where every factor has one effect of
unit columns, rows speak with few tables only: a factor whose levels are sets of levels of another (education, beside
education by age) gets its sums from that one, and two factors meet only in the finest pairs of levels. Coefficients
whose columns are constant within the levels of a factor are carried by its effects: then X = Z C, and no row sees X.
"""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import internal
from bayeslmm.likelihood.handle import call
from bayeslmm.likelihood.record import scratch_doubles, scratch_longs, where
from bayeslmm.likelihood.row_entry import EVALUATE, OWN_PARAMETER, SIZE
from bayeslmm.likelihood.small import copy_to, fill

_u = np.uint64  # an unsigned index is not tested for being negative


@internal
def evaluate_rows(cells, family, link, aux, eta, terms):  # type: ignore[no-untyped-def]
    """Fill terms (4, n), return the log-likelihood; minus infinity where it is not a number."""
    handle = scratch_longs(SIZE)
    fill_handle(cells, EVALUATE, family, link, aux, eta, handle)
    handle[11] = where(terms)
    total = call(cells.evaluator[0], handle)
    return total if total < np.inf else -np.inf


@internal
def own_parameter_gradient(cells, family, link, aux, eta, leverage, response, out):  # type: ignore[no-untyped-def]
    """Fill the gradient in the family's own parameters, `response` being Z Lambda delta (+ X delta_beta)."""
    fill(out, 0.0)
    if aux.size > 0:
        handle = scratch_longs(SIZE)
        fill_handle(cells, OWN_PARAMETER, family, link, aux, eta, handle)
        handle[11], handle[12], handle[13] = where(leverage), where(response), where(out)
        call(cells.evaluator[0], handle)


@internal
def fill_handle(cells, operation, family, link, aux, eta, handle):  # type: ignore[no-untyped-def]
    """Tell the compiled evaluation where the rows are."""
    handle[0], handle[1], handle[2], handle[3] = operation, family, link, eta.size
    handle[4], handle[5], handle[6] = where(cells.y), where(cells.size), where(cells.extra)
    handle[7], handle[8] = where(cells.weight), where(eta)
    handle[9], handle[10] = where(aux), aux.size


@internal
def predictor(cells, b, beta, with_offset, scratch, eta):  # type: ignore[no-untyped-def]
    """Set eta = X beta + Z b, plus the offset."""
    n, p = cells.X.shape
    if with_offset:
        copy_to(eta, cells.offset)
    else:
        fill(eta, 0.0)
    for i in range(n):
        for c in range(p):
            eta[i] += cells.X[i, c] * beta[c, 0]
    if cells.root_at.shape[0] > 0:
        for j in range(scratch.size):
            scratch[j] = b[j, 0]
        for j in range(cells.carrier.shape[0]):
            for c in range(cells.carrier.shape[1]):
                scratch[j] += cells.carrier[j, c] * beta[c, 0]
        for k in range(cells.fold_to.size - 1, -1, -1):
            scratch[_u(cells.fold_from[k])] += scratch[_u(cells.fold_to[k])]
        for f in range(cells.root_at.shape[0]):
            at = cells.root_at[f]
            for i in range(n):
                eta[i] += scratch[_u(at[i])]
        return
    for i in range(n):
        total = eta[i]
        for f in range(cells.at.shape[1]):
            base = cells.at[i, f]
            first = cells.z_start[f]
            for a in range(cells.z_start[f + 1] - first):
                total += cells.Z[i, first + a] * b[base + a, 0]
        eta[i] = total


@internal
def add_rows(cells, values, out):  # type: ignore[no-untyped-def]
    """Set out (q, 1) = Z' values."""
    fill(out, 0.0)
    if cells.root_at.shape[0] > 0:
        for f in range(cells.root_at.shape[0]):
            at = cells.root_at[f]
            for i in range(values.size):
                out[_u(at[i]), 0] += values[i]
        for k in range(cells.fold_to.size):
            out[_u(cells.fold_to[k]), 0] += out[_u(cells.fold_from[k]), 0]
        return
    for i in range(values.size):
        x = values[i]
        for f in range(cells.at.shape[1]):
            base = cells.at[i, f]
            first = cells.z_start[f]
            for a in range(cells.z_start[f + 1] - first):
                out[base + a, 0] += cells.Z[i, first + a] * x


@internal
def add_columns(cells, values, by_effect, out):  # type: ignore[no-untyped-def]
    """Set out (p, 1) = X' values; `by_effect` holds Z' values."""
    fill(out, 0.0)
    for j in range(cells.carrier.shape[0]):
        for c in range(cells.carrier.shape[1]):
            out[c, 0] += cells.carrier[j, c] * by_effect[j, 0]
    for i in range(cells.X.shape[0]):
        for c in range(cells.X.shape[1]):
            out[c, 0] += cells.X[i, c] * values[i]


@internal
def fill_blocks(cells, weights, values):  # type: ignore[no-untyped-def]
    """Set the numbers of Z' W Z."""
    fill(values, 0.0)
    n_factors = cells.at.shape[1]
    if cells.root_at.shape[0] > 0:
        for p in range(cells.root_pair.shape[0]):
            pair = cells.root_pair[p]
            for i in range(weights.size):
                values[_u(pair[i])] += weights[i]
        for k in range(cells.derive_to.size):
            values[_u(cells.derive_to[k])] += values[_u(cells.derive_from[k])]
        return
    for i in range(weights.size):
        w = weights[i]
        p = 0
        for f in range(n_factors):
            first_f = cells.z_start[f]
            k_f = cells.z_start[f + 1] - first_f
            for g in range(f, n_factors):
                first_g = cells.z_start[g]
                k_g = cells.z_start[g + 1] - first_g
                start = cells.pair[i, p]
                p += 1
                if k_f == 1 and k_g == 1:
                    values[abs(start) - 1] += w * cells.Z[i, first_f] * cells.Z[i, first_g]
                elif start > 0:
                    for a in range(k_f):
                        for b in range(k_g):
                            values[start - 1 + a * k_g + b] += w * cells.Z[i, first_f + a] * cells.Z[i, first_g + b]
                else:
                    for b in range(k_g):
                        for a in range(k_f):
                            values[-start - 1 + b * k_f + a] += w * cells.Z[i, first_f + a] * cells.Z[i, first_g + b]


@internal
def weighted_columns(cells, s, weights, out):  # type: ignore[no-untyped-def]
    """Set out (q, p) = Z' W X; the numbers of Z'WZ are in place."""
    fill(out, 0.0)
    p = cells.carrier.shape[1]
    if cells.carrier.shape[0] > 0:
        for b in range(s.block_row.size):
            r, c = s.block_row[b], s.block_column[b]
            x = s.block_values[s.block_start[b]]
            if cells.carries[s.node_factor[c]]:
                for k in range(p):
                    out[r, k] += x * cells.carrier[c, k]
            if r != c and cells.carries[s.node_factor[r]]:
                for k in range(p):
                    out[c, k] += x * cells.carrier[r, k]
        return
    X, Z, at, z_start = cells.X, cells.Z, cells.at, cells.z_start
    if cells.root_at.shape[0] > 0:
        for f in range(cells.root_at.shape[0]):
            root = cells.root_at[f]
            for i in range(weights.size):
                w, row = weights[i], _u(root[i])
                for c in range(p):
                    out[row, c] += w * X[i, c]
        for k in range(cells.fold_to.size):
            to, source = _u(cells.fold_to[k]), _u(cells.fold_from[k])
            for c in range(p):
                out[to, c] += out[source, c]
        return
    for i in range(weights.size):
        w = weights[i]
        for f in range(at.shape[1]):
            base = at[i, f]
            first = z_start[f]
            for a in range(z_start[f + 1] - first):
                wz = w * Z[i, first + a]
                row = _u(base + a)
                for c in range(p):
                    out[row, c] += wz * X[i, c]


@internal
def add_weighted_gram(cells, weights, products, out):  # type: ignore[no-untyped-def]
    """Add the lower triangle of X' W X to `out`; `products` holds Z' W X."""
    for j in range(cells.carrier.shape[0]):
        for c in range(out.shape[0]):
            x = cells.carrier[j, c]
            for d in range(c + 1):
                out[c, d] += x * products[j, d]
    for i in range(cells.X.shape[0]):
        for c in range(cells.X.shape[1]):
            wx = weights[i] * cells.X[i, c]
            for d in range(c + 1):
                out[c, d] += wx * cells.X[i, d]


@internal
def quadratic_forms(cells, s, values, out):  # type: ignore[no-untyped-def]
    """Set out (n,) = z' M z for each row, `values` holding M on the pattern of Z'WZ; they are overwritten."""
    n_factors = cells.at.shape[1]
    if cells.root_at.shape[0] > 0:
        for b in range(s.block_row.size):
            if s.block_row[b] != s.block_column[b]:
                values[s.block_start[b]] *= 2.0
        for k in range(cells.derive_to.size - 1, -1, -1):
            values[_u(cells.derive_from[k])] += values[_u(cells.derive_to[k])]
        fill(out, 0.0)
        for p in range(cells.root_pair.shape[0]):
            pair = cells.root_pair[p]
            for i in range(out.size):
                out[i] += values[_u(pair[i])]
        return
    for i in range(out.size):
        total = 0.0
        p = 0
        for f in range(n_factors):
            first_f = cells.z_start[f]
            k_f = cells.z_start[f + 1] - first_f
            for g in range(f, n_factors):
                first_g = cells.z_start[g]
                k_g = cells.z_start[g + 1] - first_g
                start = cells.pair[i, p]
                p += 1
                times = 1.0 if f == g else 2.0
                for a in range(k_f):
                    z = times * cells.Z[i, first_f + a]
                    for b in range(k_g):
                        at = start - 1 + a * k_g + b if start > 0 else -start - 1 + b * k_f + a
                        total += z * cells.Z[i, first_g + b] * values[at]
        out[i] = total


@internal
def add_column_forms(cells, root, reach, out):  # type: ignore[no-untyped-def]
    """Add |L^-1 x + D' z|^2 to out (n,) for each row, L = `root` lower triangular and D = `reach`; X is not carried.

    `reach` is overwritten.
    """
    X, Z, at, z_start, root_at = cells.X, cells.Z, cells.at, cells.z_start, cells.root_at
    p, n_roots = X.shape[1], root_at.shape[0]
    t = scratch_doubles(p)
    if n_roots > 0:
        for k in range(cells.fold_to.size - 1, -1, -1):
            to, source = _u(cells.fold_to[k]), _u(cells.fold_from[k])
            for c in range(p):
                reach[source, c] += reach[to, c]
    for i in range(X.shape[0]):
        for c in range(p):
            total = X[i, c]
            for d in range(c):
                total -= root[c, d] * t[d]
            t[c] = total / root[c, c]
        for f in range(n_roots):
            row = _u(root_at[f, i])
            for c in range(p):
                t[c] += reach[row, c]
        for f in range(0 if n_roots > 0 else at.shape[1]):
            base, first = at[i, f], z_start[f]
            for a in range(z_start[f + 1] - first):
                row, z = _u(base + a), Z[i, first + a]
                for c in range(p):
                    t[c] += z * reach[row, c]
        for c in range(p):
            out[i] += t[c] * t[c]
