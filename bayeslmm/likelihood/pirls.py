"""The conditional mode of the group effects: Newton steps on the penalised log-likelihood, with step halving.

With b = Lambda u and w = -l'' at the current linear predictor, every step factors A = Lambda' Z'WZ Lambda + I: the
pattern is that of the Gaussian kernel, only the numbers change. The coefficients are either fixed or move with u; then
the system is bordered by p dense columns with Schur complement P = X'WX + S^-1 - X'WZ Lambda A^-1 Lambda' Z'WX.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import cholesky, internal, solve_lower
from bayeslmm.likelihood.cells import Cells
from bayeslmm.likelihood.factor import factorise, solve_half, solve_other_half
from bayeslmm.likelihood.glmm_record import WORDS as GLMM_WORDS
from bayeslmm.likelihood.glmm_record import fill_handle
from bayeslmm.likelihood.numeric import Workspace, new_workspace
from bayeslmm.likelihood.record import scratch_column, scratch_doubles
from bayeslmm.likelihood.rows import (
    add_columns,
    add_rows,
    add_weighted_gram,
    evaluate_rows,
    fill_blocks,
    predictor,
    weighted_columns,
)
from bayeslmm.likelihood.small import copy_to, fill
from bayeslmm.likelihood.symbolic import Analysis, Structure

Floats = NDArray[np.float64]

FIXED, JOINT, PROFILE = 0, 1, 2
"""Coefficients: given; moving with u and integrated out like u; moving with u but not integrated."""

MAX_STEPS = 100
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
    terms : (4, n)
        Log-likelihood, l', w = -l'' and w', weighted, per cell.
    block_values, inverse_values : float64
        Z'WZ, and the selected inverse of A on its pattern.
    step, trial : (q, 1)
        Newton step of the effects, and scratch.
    beta_step : (p, 1)
        Newton step of the coefficients.
    products, border : (q, p)
        Z'WX and A^-1 Lambda' Z'WX.
    schur : (p, p)
        Lower Cholesky factor of P.
    change, before : (n,)
        Direction of the linear predictor, and where it was.
    rows : (3, n)
        Scratch per cell.
    effects : (q,)
        Scratch.
    reach, tilt : (q, p)
        With P = L L': (C - Lambda B) L'^-1 and B L'^-1, for the border B and the carrier C.
    work, inverse_work : Workspace
        Of the factor, and of the selected inverse.
    structure, cells
        What the numbers belong to; Z'WZ is that of the state.
    handle : int64
        Where all this lies: what compiled code is given.
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
    beta_step: Floats
    products: Floats
    border: Floats
    schur: Floats
    change: Floats
    before: Floats
    rows: Floats
    effects: Floats
    reach: Floats
    tilt: Floats
    work: Workspace
    inverse_work: Workspace
    structure: Structure
    cells: Cells
    handle: NDArray[np.int64]


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
    n, p = len(cells.y), cells.carrier.shape[1]
    q = analysis.n_columns
    blocks = analysis.structure.block_values
    own_blocks = np.zeros_like(blocks)
    state = State(
        u=np.zeros((q, 1)),
        b=np.zeros((q, 1)),
        beta=cold_beta.reshape(p, 1).copy(),
        warm=np.zeros(1),
        cold_beta=cold_beta.reshape(p, 1).copy(),
        eta=np.zeros(n),
        terms=np.zeros((4, n)),
        block_values=own_blocks,
        inverse_values=np.zeros_like(blocks),
        step=np.zeros((q, 1)),
        trial=np.zeros((q, 1)),
        beta_step=np.zeros((p, 1)),
        products=np.zeros((q, p)),
        border=np.zeros((q, p)),
        schur=np.zeros((p, p)),
        change=np.zeros(n),
        before=np.zeros(n),
        rows=np.zeros((3, n)),
        effects=np.zeros(q),
        reach=np.zeros((q, p)),
        tilt=np.zeros((q, p)),
        work=new_workspace(analysis, 1),
        inverse_work=new_workspace(analysis, 1),
        structure=analysis.structure._replace(block_values=own_blocks),
        cells=cells,
        handle=np.zeros(GLMM_WORDS, dtype=np.int64),
    )
    fill_handle(state.handle, state)
    return state


@internal
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


@internal
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


@internal
def start_effects(s, templates, state):  # type: ignore[no-untyped-def]
    """Set u from the last mode: keep u, or keep b = Lambda u, whichever is nearer to zero, level by level."""
    if state.warm[0] == 0.0:
        fill(state.u, 0.0)
        return
    keep = scratch_doubles(state.work.small.shape[1])
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


@internal
def log_prior(mean, precision, beta):  # type: ignore[no-untyped-def]
    """Return -(beta - m)' S^-1 (beta - m) / 2."""
    total = 0.0
    for i in range(precision.shape[0]):
        for j in range(precision.shape[0]):
            total -= 0.5 * (beta[i, 0] - mean[i]) * precision[i, j] * (beta[j, 0] - mean[j])
    return total


@internal
def border_system(cells, s, templates, state, weights, precision):  # type: ignore[no-untyped-def]
    """Fill border = A^-1 Lambda' Z'WX and factor P; return log|P|, not a number when P is not positive definite."""
    p = state.border.shape[1]
    weighted_columns(cells, s, weights, state.products)
    copy_to(state.border, state.products)
    times_lambda_transposed(s, templates, state.border)
    solve_half(state.work, state.border)
    for i in range(p):
        for j in range(i + 1):
            state.schur[i, j] = precision[i, j] if precision.size else 0.0
    add_weighted_gram(cells, weights, state.products, state.schur)
    for row in range(state.border.shape[0]):
        for c in range(p):
            x = state.border[row, c]
            for d in range(c + 1):
                state.schur[c, d] -= x * state.border[row, d]
    solve_other_half(state.work, state.border)
    if p == 0:
        return 0.0
    if cholesky(state.schur) != 0:
        return np.nan
    total = 0.0
    for c in range(p):
        total += 2.0 * np.log(state.schur[c, c])
    return total


@internal
def solve_schur(state, x):  # type: ignore[no-untyped-def]
    """Overwrite x (p, 1) by P^-1 x."""
    if x.shape[0] > 0:
        solve_lower(state.schur, x, False)
        solve_lower(state.schur, x, True)


@internal
def newton_system(cells, s, templates, state, joint, precision):  # type: ignore[no-untyped-def]
    """Factor the system at the current terms; return (log|A|, log|P|, whether curvature had to be made positive)."""
    for bent in range(2):
        if bent:
            for i in range(state.terms.shape[1]):
                state.terms[2, i] = abs(state.terms[2, i])
        fill_blocks(cells, state.terms[2], state.block_values)
        log_a = factorise(state.work, templates)
        log_p = 0.0
        if log_a == log_a and joint != FIXED:
            log_p = border_system(cells, s, templates, state, state.terms[2], precision)
        if log_a == log_a and log_p == log_p:
            return log_a, log_p, bent == 1
    return np.nan, np.nan, True


@internal
def newton_direction(cells, s, templates, state, joint, mean, precision, beta_step):  # type: ignore[no-untyped-def]
    """Fill step, beta_step and change; return the Newton decrement."""
    p = state.border.shape[1]
    gradient = scratch_column(p)
    fill(gradient, 0.0)
    add_rows(cells, state.terms[1], state.step)
    if joint != FIXED:
        add_columns(cells, state.terms[1], state.step, gradient)
    times_lambda_transposed(s, templates, state.step)
    decrement = 0.0
    for i in range(state.u.shape[0]):
        state.step[i, 0] -= state.u[i, 0]
        state.trial[i, 0] = state.step[i, 0]
    solve_half(state.work, state.step)
    solve_other_half(state.work, state.step)
    if joint != FIXED:
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


@internal
def search(cells, s, templates, state, family, link, aux, joint, mean, precision, tolerance):  # type: ignore[no-untyped-def]
    """Find the mode from state.u and state.beta; return (penalised log-likelihood, log|A|, log|P|, decrement).

    The value is not a number when the search fails. On return `terms` belong to `eta`, the factor to `terms`, and `b`
    to `u`; `change` and the decrement describe the Newton step not taken.
    """
    q, p = state.border.shape
    beta_step = state.beta_step
    fill(beta_step, 0.0)
    times_lambda(s, templates, state.u, state.b)
    predictor(cells, state.b, state.beta, True, state.effects, state.eta)
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
        predictor(cells, state.trial, beta_step, False, state.effects, state.change)
        if decrement < tolerance:
            if bent:
                return np.nan, np.nan, np.nan, np.nan
            return value, log_a, log_p, decrement
        copy_to(state.before, state.eta)
        scale = 1.0
        accepted = False
        for _ in range(MAX_HALVINGS):
            for i in range(state.eta.size):
                state.eta[i] = state.before[i] + scale * state.change[i]
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


@internal
def conditional_mode(cells, s, templates, state, family, link, aux, joint, mean, precision, tolerance):  # type: ignore[no-untyped-def]
    """Search from the last mode, and once more from zero if that fails; a failure leaves the state cold."""
    beta = scratch_column(state.beta.shape[0])
    copy_to(beta, state.beta)
    start_effects(s, templates, state)
    value, log_a, log_p, decrement = np.nan, np.nan, np.nan, np.nan
    for attempt in range(2):
        if attempt:
            fill(state.u, 0.0)
            copy_to(state.beta, beta if joint == FIXED else state.cold_beta)
        value, log_a, log_p, decrement = search(
            cells, s, templates, state, family, link, aux, joint, mean, precision, tolerance
        )
        if value == value:
            break
    state.warm[0] = 1.0 if value == value else 0.0
    if value != value:
        fill(state.u, 0.0)
        fill(state.b, 0.0)
        copy_to(state.beta, beta)
    return value, log_a, log_p, decrement
