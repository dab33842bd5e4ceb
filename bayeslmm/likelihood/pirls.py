"""The conditional mode of the group effects: Newton steps on the penalised log-likelihood, with step halving.

With b = Lambda u and w = -l'' at the current linear predictor, every step factors A = Lambda' Z'WZ Lambda + I: the
pattern is that of the Gaussian kernel, only the numbers change. The coefficients are either fixed or move with u; then
the system is bordered by p dense columns with Schur complement P = X'WX + S^-1 - X'WZ Lambda A^-1 Lambda' Z'WX.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import cholesky, compiled, solve_lower
from bayeslmm.likelihood.cells import Cells
from bayeslmm.likelihood.cholesky import Workspace, factorise, new_workspace, solve_half, solve_other_half
from bayeslmm.likelihood.families_jit import row_terms
from bayeslmm.likelihood.symbolic import Analysis, Structure

Floats = NDArray[np.float64]

FIXED, JOINT, PROFILE = 0, 1, 2
"""Coefficients: given; moving with u and integrated out like u; moving with u but not integrated."""

MAX_STEPS = 100
_u = np.uint64  # an unsigned index is not tested for being negative
MAX_HALVINGS = 40


class State(NamedTuple):
    """The numbers of one thread: where the last search ended, and scratch.

    Parameters
    ----------
    u, b : (q, 1)
        Spherical and natural effects at the mode.
    beta : (p, 1)
        Whitened coefficients.
    warm : (1,)
        1 when u, b and beta hold a mode to start from.
    cold_beta : (p, 1)
        Coefficients that a cold search starts from.
    eta : (n,)
        Linear predictor.
    terms : (n, 4)
        Log-likelihood, l', w = -l'' and w', weighted, per cell.
    block_values, inverse_values : float64
        Z'WZ, and the selected inverse of A on its pattern.
    step, trial : (q, 1)
        Scratch.
    border : (q, p)
        A^-1 Lambda' Z'WX.
    schur : (p, p)
        Lower Cholesky factor of P.
    change : (n,)
        Direction of the linear predictor.
    rows : (n, 3)
        Scratch per cell.
    """

    u: Floats
    b: Floats
    beta: Floats
    warm: Floats
    cold_beta: Floats
    eta: Floats
    terms: Floats
    block_values: Floats
    inverse_values: Floats
    step: Floats
    trial: Floats
    border: Floats
    schur: Floats
    change: Floats
    rows: Floats
    work: Workspace
    inverse_work: Workspace


def new_state(cells: Cells, analysis: Analysis, cold_beta: Floats) -> State:
    """Allocate the numbers of one thread.

    Parameters
    ----------
    cells : Cells
        The data.
    analysis : Analysis
        Their symbolic factorisation.
    cold_beta : ndarray (p,)
        Whitened coefficients that a cold search starts from, inside the domain of the link.

    Returns
    -------
    State
        Cold: the first search starts at zero.
    """
    n, p = cells.X.shape
    q = analysis.n_columns
    blocks = analysis.structure.block_values
    return State(
        u=np.zeros((q, 1)),
        b=np.zeros((q, 1)),
        beta=cold_beta.reshape(p, 1).copy(),
        warm=np.zeros(1),
        cold_beta=cold_beta.reshape(p, 1).copy(),
        eta=np.zeros(n),
        terms=np.zeros((n, 4)),
        block_values=np.zeros_like(blocks),
        inverse_values=np.zeros_like(blocks),
        step=np.zeros((q, 1)),
        trial=np.zeros((q, 1)),
        border=np.zeros((q, p)),
        schur=np.zeros((p, p)),
        change=np.zeros(n),
        rows=np.zeros((n, 3)),
        work=new_workspace(analysis, 1),
        inverse_work=new_workspace(analysis, 1),
    )


def with_blocks(structure: Structure, values: Floats) -> Structure:
    """Return the structure with its own copy of the numbers of Z'WZ."""
    return structure._replace(block_values=values)


@compiled
def times_lambda(s, templates, u, b):  # type: ignore[no-untyped-def]
    """Set b = Lambda u."""
    for node in range(s.node_factor.size):
        f = s.node_factor[node]
        k, base, t = s.factor_k[f], s.offset[node], s.template_start[f]
        if k == 1:
            b[base, 0] = templates[t] * u[base, 0]
            continue
        for i in range(k):
            total = 0.0
            for j in range(i + 1):
                total += templates[t + i * k + j] * u[base + j, 0]
            b[base + i, 0] = total


@compiled
def times_lambda_transposed(s, templates, c):  # type: ignore[no-untyped-def]
    """Overwrite c (q, r) by Lambda' c."""
    for node in range(s.node_factor.size):
        f = s.node_factor[node]
        k, base, t = s.factor_k[f], s.offset[node], s.template_start[f]
        for column in range(c.shape[1]):
            for j in range(k):
                total = 0.0
                for i in range(j, k):
                    total += templates[t + i * k + j] * c[base + i, column]
                c[base + j, column] = total


@compiled
def predictor(cells, b, beta, offset, eta):  # type: ignore[no-untyped-def]
    """Set eta = offset + X beta + Z b."""
    n, p = cells.X.shape
    n_factors = cells.at.shape[1]
    scalars = cells.Z.shape[1] == n_factors
    for i in range(n):
        total = offset[i]
        for c in range(p):
            total += cells.X[i, c] * beta[c, 0]
        if scalars:
            for f in range(n_factors):
                total += cells.Z[i, f] * b[_u(cells.at[i, f]), 0]
            eta[i] = total
            continue
        for f in range(n_factors):
            base = cells.at[i, f]
            first = cells.z_start[f]
            for a in range(cells.z_start[f + 1] - first):
                total += cells.Z[i, first + a] * b[base + a, 0]
        eta[i] = total


@compiled
def add_rows(cells, values, out):  # type: ignore[no-untyped-def]
    """Set out (q, 1) = Z' values."""
    out[:, 0] = 0.0
    for i in range(values.size):
        x = values[i]
        for f in range(cells.at.shape[1]):
            base = cells.at[i, f]
            first = cells.z_start[f]
            for a in range(cells.z_start[f + 1] - first):
                out[base + a, 0] += cells.Z[i, first + a] * x


@compiled
def add_weighted_columns(cells, weights, out):  # type: ignore[no-untyped-def]
    """Set out (q, p) = Z' W X."""
    out[:, :] = 0.0
    for i in range(weights.size):
        w = weights[i]
        for f in range(cells.at.shape[1]):
            base = cells.at[i, f]
            first = cells.z_start[f]
            for a in range(cells.z_start[f + 1] - first):
                wz = w * cells.Z[i, first + a]
                row = _u(base + a)
                for c in range(cells.X.shape[1]):
                    out[row, c] += wz * cells.X[i, c]


@compiled
def fill_scalars(cells, weights, values):  # type: ignore[no-untyped-def]
    """Do `fill_blocks` when every factor has one effect."""
    n_factors = cells.at.shape[1]
    for i in range(weights.size):
        w = weights[i]
        p = 0
        for f in range(n_factors):
            wz = w * cells.Z[i, f]
            for g in range(f, n_factors):
                values[_u(cells.pair[i, p] - 1)] += wz * cells.Z[i, g]
                p += 1


@compiled
def fill_blocks(cells, weights, values):  # type: ignore[no-untyped-def]
    """Set the numbers of Z' W Z."""
    values[:] = 0.0
    n_factors = cells.at.shape[1]
    if cells.Z.shape[1] == n_factors:
        fill_scalars(cells, weights, values)
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


@compiled
def evaluate_rows(cells, family, link, aux, eta, terms):  # type: ignore[no-untyped-def]
    """Fill terms (n, 4), return the log-likelihood; minus infinity where it is not a number."""
    total = 0.0
    for i in range(eta.size):
        value, slope, curve, bend, _, _, _, _, _, _ = row_terms(
            family, link, cells.y[i], cells.size[i], cells.extra[i], eta[i], aux
        )
        w = cells.weight[i]
        terms[i, 0] = w * value
        terms[i, 1] = w * slope
        terms[i, 2] = w * curve
        terms[i, 3] = w * bend
        total += w * value
    return total if total == total else -np.inf


@compiled
def start_effects(s, templates, state):  # type: ignore[no-untyped-def]
    """Set u from the last mode: keep u, or keep b = Lambda u, whichever is nearer to zero, level by level."""
    if state.warm[0] == 0.0:
        state.u[:, 0] = 0.0
        return
    keep = np.empty(s.factor_k.max() if s.factor_k.size else 1)
    for node in range(s.node_factor.size):
        f = s.node_factor[node]
        k, base, t = s.factor_k[f], s.offset[node], s.template_start[f]
        old, new = 0.0, 0.0
        for i in range(k):
            total = state.b[base + i, 0]
            for j in range(i):
                total -= templates[t + i * k + j] * keep[j]
            keep[i] = total / templates[t + i * k + i]
            new += keep[i] * keep[i]
            old += state.u[base + i, 0] ** 2
        if new < old:
            for i in range(k):
                state.u[base + i, 0] = keep[i]


@compiled
def log_prior(mean, precision, beta):  # type: ignore[no-untyped-def]
    """Return -(beta - m)' S^-1 (beta - m) / 2."""
    total = 0.0
    for i in range(precision.shape[0]):
        for j in range(precision.shape[0]):
            total -= 0.5 * (beta[i, 0] - mean[i]) * precision[i, j] * (beta[j, 0] - mean[j])
    return total


@compiled
def border_system(cells, s, templates, state, weights, precision):  # type: ignore[no-untyped-def]
    """Fill border = A^-1 Lambda' Z'WX and factor P; return log|P|, not a number when P is not positive definite."""
    p = cells.X.shape[1]
    add_weighted_columns(cells, weights, state.border)
    times_lambda_transposed(s, templates, state.border)
    solve_half(s, state.work, state.border)
    for i in range(p):
        for j in range(i + 1):
            state.schur[i, j] = precision[i, j] if precision.size else 0.0
    for i in range(weights.size):
        for c in range(p):
            wx = weights[i] * cells.X[i, c]
            for d in range(c + 1):
                state.schur[c, d] += wx * cells.X[i, d]
    for row in range(state.border.shape[0]):
        for c in range(p):
            x = state.border[row, c]
            for d in range(c + 1):
                state.schur[c, d] -= x * state.border[row, d]
    solve_other_half(s, state.work, state.border)
    if p == 0:
        return 0.0
    if cholesky(state.schur) != 0:
        return np.nan
    total = 0.0
    for c in range(p):
        total += 2.0 * np.log(state.schur[c, c])
    return total


@compiled
def solve_schur(state, x):  # type: ignore[no-untyped-def]
    """Overwrite x (p, 1) by P^-1 x."""
    if x.shape[0] > 0:
        solve_lower(state.schur, x, False)
        solve_lower(state.schur, x, True)


@compiled
def newton_system(cells, s, templates, state, joint, precision):  # type: ignore[no-untyped-def]
    """Factor the system at the current terms; return (log|A|, log|P|, whether curvature had to be made positive)."""
    for bent in range(2):
        if bent:
            for i in range(state.terms.shape[0]):
                state.terms[i, 2] = abs(state.terms[i, 2])
        fill_blocks(cells, state.terms[:, 2], state.block_values)
        log_a = factorise(s, state.work, templates)
        log_p = 0.0
        if log_a == log_a and joint != FIXED:
            log_p = border_system(cells, s, templates, state, state.terms[:, 2], precision)
        if log_a == log_a and log_p == log_p:
            return log_a, log_p, bent == 1
    return np.nan, np.nan, True


@compiled
def newton_direction(cells, s, templates, state, joint, mean, precision, beta_step):  # type: ignore[no-untyped-def]
    """Fill step, beta_step and change; return the Newton decrement."""
    p = cells.X.shape[1]
    add_rows(cells, state.terms[:, 1], state.step)
    times_lambda_transposed(s, templates, state.step)
    decrement = 0.0
    for i in range(state.u.shape[0]):
        state.step[i, 0] -= state.u[i, 0]
        state.trial[i, 0] = state.step[i, 0]
    solve_half(s, state.work, state.step)
    solve_other_half(s, state.work, state.step)
    if joint != FIXED:
        gradient = np.zeros((p, 1))
        for i in range(state.terms.shape[0]):
            for c in range(p):
                gradient[c, 0] += cells.X[i, c] * state.terms[i, 1]
        for c in range(precision.shape[0]):
            for d in range(precision.shape[0]):
                gradient[c, 0] -= precision[c, d] * (state.beta[d, 0] - mean[d])
        for c in range(p):
            beta_step[c, 0] = gradient[c, 0]
        for i in range(state.u.shape[0]):
            for c in range(p):
                beta_step[c, 0] -= state.border[i, c] * state.trial[i, 0]
        solve_schur(state, beta_step)
        for c in range(p):
            decrement += gradient[c, 0] * beta_step[c, 0]
        for i in range(state.u.shape[0]):
            for c in range(p):
                state.step[i, 0] -= state.border[i, c] * beta_step[c, 0]
    for i in range(state.u.shape[0]):
        decrement += state.trial[i, 0] * state.step[i, 0]
    return decrement


@compiled
def search(cells, s, templates, state, family, link, aux, joint, mean, precision, tolerance):  # type: ignore[no-untyped-def]
    """Find the mode from state.u and state.beta; return (penalised log-likelihood, log|A|, log|P|, decrement).

    The value is not a number when the search fails. On return `terms` belong to `eta`, the factor to `terms`, and `b`
    to `u`; `change` and the decrement describe the Newton step not taken.
    """
    q, p = state.u.shape[0], cells.X.shape[1]
    no_offset = np.zeros(state.eta.size)
    beta_step = np.zeros((p, 1))
    before = np.empty(state.eta.size)
    times_lambda(s, templates, state.u, state.b)
    predictor(cells, state.b, state.beta, cells.offset, state.eta)
    value = evaluate_rows(cells, family, link, aux, state.eta, state.terms)
    value += log_prior(mean, precision, state.beta)
    for i in range(q):
        value -= 0.5 * state.u[i, 0] ** 2
    if value == -np.inf:
        return np.nan, np.nan, np.nan, np.nan
    for _ in range(MAX_STEPS):
        log_a, log_p, bent = newton_system(cells, s, templates, state, joint, precision)
        if log_a != log_a:
            return np.nan, np.nan, np.nan, np.nan
        decrement = newton_direction(cells, s, templates, state, joint, mean, precision, beta_step)
        if not decrement >= 0.0:
            return np.nan, np.nan, np.nan, np.nan
        times_lambda(s, templates, state.step, state.trial)
        predictor(cells, state.trial, beta_step, no_offset, state.change)
        if decrement < tolerance:
            if bent:
                return np.nan, np.nan, np.nan, np.nan
            return value, log_a, log_p, decrement
        before[:] = state.eta
        scale = 1.0
        accepted = False
        for _ in range(MAX_HALVINGS):
            for i in range(state.eta.size):
                state.eta[i] = before[i] + scale * state.change[i]
            new = evaluate_rows(cells, family, link, aux, state.eta, state.terms)
            for i in range(q):
                new -= 0.5 * (state.u[i, 0] + scale * state.step[i, 0]) ** 2
            if precision.shape[0]:
                for c in range(p):
                    state.beta[c, 0] += scale * beta_step[c, 0]
                new += log_prior(mean, precision, state.beta)
                for c in range(p):
                    state.beta[c, 0] -= scale * beta_step[c, 0]
            if new >= value - 1e-12 * abs(value):
                accepted = True
                break
            scale *= 0.5
        if not accepted:
            return np.nan, np.nan, np.nan, np.nan
        value = new
        for i in range(q):
            state.u[i, 0] += scale * state.step[i, 0]
        for c in range(p):
            state.beta[c, 0] += scale * beta_step[c, 0]
        times_lambda(s, templates, state.u, state.b)
    return np.nan, np.nan, np.nan, np.nan


@compiled
def conditional_mode(cells, s, templates, state, family, link, aux, joint, mean, precision, tolerance):  # type: ignore[no-untyped-def]
    """Search from the last mode, and once more from zero if that fails; a failure leaves the state cold."""
    beta = state.beta.copy()
    start_effects(s, templates, state)
    value, log_a, log_p, decrement = np.nan, np.nan, np.nan, np.nan
    for attempt in range(2):
        if attempt:
            state.u[:, 0] = 0.0
            state.beta[:, :] = beta if joint == FIXED else state.cold_beta
        value, log_a, log_p, decrement = search(
            cells, s, templates, state, family, link, aux, joint, mean, precision, tolerance
        )
        if value == value:
            break
    state.warm[0] = 1.0 if value == value else 0.0
    if value != value:
        state.u[:, 0] = 0.0
        state.b[:, 0] = 0.0
        state.beta[:, :] = beta
    return value, log_a, log_p, decrement
