"""The loops behind `bayeslmm.likelihood.engine`: factor, solves and selected inverse, with a LAPACK tail.

Nothing here raises: a matrix that cannot be factored gives a log determinant that is not a number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import (
    beyond,
    internal,
    potrf,
    potri,
    step,
    symm,
    syrk,
    trsm_plain,
    trsm_transposed,
)
from bayeslmm.likelihood.symbolic import Analysis

PANEL = 64
"""Columns gathered before dense algebra updates the tail."""


class Workspace(NamedTuple):
    """The numbers that change with theta.

    Parameters
    ----------
    head, head_inverse : float64
        The factor's head and the selected inverse on the same pattern.
    tail : (t, t)
        Lower triangle of the tail: Schur complement, its factor, then its inverse.
    half : (q, p + 1)
        L^-1 Lambda' W, with W = Z'[X y].
    full, effects, rest : (q * (p + 1),)
        For the gradient: A^-1 Lambda' W F, Lambda times that, and W F - Z'Z times that, F (p + 1, up to p + 1).
    place : (q,) int64
        Where a row stands in the column at work.
    panel, panel_product : (PANEL, t)
        Padded columns.
    small : (3, K, K)
        Scratch for one node.
    """

    head: NDArray[np.float64]
    head_inverse: NDArray[np.float64]
    tail: NDArray[np.float64]
    half: NDArray[np.float64]
    full: NDArray[np.float64]
    effects: NDArray[np.float64]
    rest: NDArray[np.float64]
    place: NDArray[np.int64]
    panel: NDArray[np.float64]
    panel_product: NDArray[np.float64]
    small: NDArray[np.float64]


def new_workspace(analysis: Analysis, n_rhs: int) -> Workspace:
    """Allocate the numbers of one factorisation.

    Parameters
    ----------
    analysis : Analysis
        The symbolic factorisation.
    n_rhs : int
        Columns p + 1 of [X y].

    Returns
    -------
    Workspace
    """
    q, t = analysis.n_columns, analysis.n_tail
    width = int(analysis.structure.factor_k.max(initial=1))
    panel = (PANEL if analysis.structure.padded.any() else 0, t)
    return Workspace(
        head=np.empty(analysis.n_head_values),
        head_inverse=np.empty(analysis.n_head_values),
        tail=np.empty((t, t)),
        half=np.empty((q, n_rhs)),
        full=np.empty(q * n_rhs),
        effects=np.empty(q * n_rhs),
        rest=np.empty(q * n_rhs),
        place=np.zeros(q, dtype=np.int64),
        panel=np.zeros(panel),
        panel_product=np.zeros(panel),
        small=np.empty((3, width, width)),
    )


class Addresses(NamedTuple):
    """A `Structure` as the loops see it: where its arrays lie, and the counts that their lengths would tell."""

    factor_k: Any
    template_start: Any
    node_factor: Any
    offset: Any
    row_start: Any
    rows: Any
    value_start: Any
    tail_first: Any
    padded: Any
    list_start: Any
    list_column: Any
    list_at: Any
    block_row: Any
    block_column: Any
    block_start: Any
    block_target: Any
    block_values: Any
    n_nodes: int
    n_head: int
    n_head_rows: int
    n_tail: int
    n_blocks: int
    n_panel: int
    n_templates: int
    n_columns: int


@internal
def clear(numbers, count):  # type: ignore[no-untyped-def]
    """Set numbers to zero."""
    for i in range(count):
        numbers[i] = 0.0


@internal
def flush_panel(s, w):  # type: ignore[no-untyped-def]
    """Let the gathered columns update the tail; none are left."""
    syrk(s.n_tail, s.n_panel, -1.0, w.panel, 1.0, w.tail)
    clear(w.panel, s.n_panel * s.n_tail)


@internal
def assemble(s, w, templates):  # type: ignore[no-untyped-def]
    """Write Lambda' Z'Z Lambda + I into head and tail."""
    n_head_rows = s.n_head_rows
    clear(w.head, s.value_start[s.n_head])
    clear(w.tail, s.n_tail * s.n_tail)
    inner = w.small
    for b in range(s.n_blocks):
        r, c = s.block_row[b], s.block_column[b]
        fr, fc = s.node_factor[r], s.node_factor[c]
        height, width = s.factor_k[fr], s.factor_k[fc]
        left, right = s.template_start[fr], s.template_start[fc]
        start, target = s.block_start[b], s.block_target[b]
        row, column = s.offset[r] - n_head_rows, s.offset[c] - n_head_rows
        if height == 1 and width == 1:
            value = s.block_values[start] * templates[left] * templates[right]
            if r == c:
                value += 1.0
            if target >= 0:
                w.head[target] = value
            else:
                w.tail[row * s.n_tail + column] = value
            continue
        for i in range(height):
            for j in range(width):
                total = 0.0
                for l in range(j, width):
                    total += s.block_values[start + i * width + l] * templates[right + l * width + j]
                inner[i * width + j] = total
        for i in range(height):
            for j in range(width):
                total = 1.0 if r == c and i == j else 0.0
                for l in range(i, height):
                    total += templates[left + l * height + i] * inner[l * width + j]
                if target >= 0:
                    w.head[target + i * width + j] = total
                else:
                    w.tail[(row + i) * s.n_tail + column + j] = total


@step
def update_column(s, w, h):  # type: ignore[no-untyped-def]
    """Subtract from head column h what the earlier columns contribute."""
    k = s.offset[h + 1] - s.offset[h]
    base = s.value_start[h]
    for a in range(k):
        w.place[s.offset[h] + a] = base + a * k
    for at in range(s.row_start[h], s.row_start[h + 1]):
        w.place[s.rows[at]] = base + k * (k + at - s.row_start[h])
    for item in range(s.list_start[h], s.list_start[h + 1]):
        e, first = s.list_column[item], s.list_at[item]
        width = s.offset[e + 1] - s.offset[e]
        values = s.value_start[e] + width * width
        own = values + first * width
        rows = s.row_start[e]
        for a in range(first, s.row_start[e + 1] - rows):
            target = w.place[s.rows[rows + a]]
            mine = values + a * width
            if k == 1 and width == 1:
                w.head[target] -= w.head[mine] * w.head[own]
                continue
            for c in range(k):
                total = 0.0
                for d in range(width):
                    total += w.head[mine + d] * w.head[own + c * width + d]
                w.head[target + c] -= total


@step
def factor_column(s, w, h):  # type: ignore[no-untyped-def]
    """Factor the diagonal of head column h, divide the rows below; return the product of the pivots."""
    k = s.offset[h + 1] - s.offset[h]
    base = s.value_start[h]
    stop = s.value_start[h + 1]
    product = 1.0
    if k == 1:
        product = np.sqrt(w.head[base])
        w.head[base] = product
        for at in range(base + 1, stop):
            w.head[at] /= product
    else:
        for j in range(k):
            pivot = w.head[base + j * k + j]
            for l in range(j):
                pivot -= w.head[base + j * k + l] * w.head[base + j * k + l]
            pivot = np.sqrt(pivot)
            w.head[base + j * k + j] = pivot
            product *= pivot
            for i in range(j + 1, k):
                total = w.head[base + i * k + j]
                for l in range(j):
                    total -= w.head[base + i * k + l] * w.head[base + j * k + l]
                w.head[base + i * k + j] = total / pivot
        for row in range(base + k * k, stop, k):
            for j in range(k):
                total = w.head[row + j]
                for l in range(j):
                    total -= w.head[row + l] * w.head[base + j * k + l]
                w.head[row + j] = total / w.head[base + j * k + j]
    return product


@step
def update_tail(s, w, h):  # type: ignore[no-untyped-def]
    """Subtract from the tail what head column h contributes, entry by entry."""
    k = s.offset[h + 1] - s.offset[h]
    n_head_rows = s.n_head_rows
    first = s.row_start[h] + s.tail_first[h]
    count = s.row_start[h + 1] - first
    rows = beyond(s.rows, first)
    values = beyond(w.head, s.value_start[h] + k * (k + s.tail_first[h]))
    for a in range(count):
        tail = beyond(w.tail, (rows[a] - n_head_rows) * s.n_tail)
        if k == 1:
            x = values[a]
            for b in range(a + 1):
                tail[rows[b] - n_head_rows] -= x * values[b]
        elif k == 2:
            x, y = values[2 * a], values[2 * a + 1]
            for b in range(a + 1):
                tail[rows[b] - n_head_rows] -= x * values[2 * b] + y * values[2 * b + 1]
        else:
            for b in range(a + 1):
                total = 0.0
                for d in range(k):
                    total += values[a * k + d] * values[b * k + d]
                tail[rows[b] - n_head_rows] -= total


@step
def pad_column(s, w, h, source, at):  # type: ignore[no-untyped-def]
    """Spread the tail rows of head column h over rows `at`... of the panel; the panel is zero there."""
    k = s.offset[h + 1] - s.offset[h]
    n_head_rows = s.n_head_rows
    first = s.row_start[h] + s.tail_first[h]
    values = s.value_start[h] + k * (k + s.tail_first[h])
    for a in range(first, s.row_start[h + 1]):
        row = s.rows[a] - n_head_rows
        for d in range(k):
            w.panel[(at + d) * s.n_tail + row] = source[values + (a - first) * k + d]


@internal
def factorise(s, w, templates):  # type: ignore[no-untyped-def]
    """Factor A in the workspace; return log|A|, not a number when A is not positive definite in floating point."""
    assemble(s, w, templates)
    n_head = s.n_head
    log_product, product = 0.0, 1.0
    filled = 0
    for h in range(n_head):
        if s.list_start[h + 1] > s.list_start[h]:
            update_column(s, w, h)
        product *= factor_column(s, w, h)
        if not product < 1e100:
            log_product += np.log(product)
            product = 1.0
        if s.padded[h]:
            k = s.offset[h + 1] - s.offset[h]
            if filled + k > s.n_panel:
                flush_panel(s, w)
                filled = 0
            pad_column(s, w, h, w.head, filled)
            filled += k
        elif s.row_start[h + 1] - s.row_start[h] > s.tail_first[h]:
            update_tail(s, w, h)
    if filled > 0:
        flush_panel(s, w)
    log_product += np.log(product)
    if s.n_tail > 0:
        if potrf(s.n_tail, w.tail) != 0:
            log_product = np.nan
        for i in range(s.n_tail):
            log_product += np.log(w.tail[i * (s.n_tail + 1)])
    return 2.0 * log_product


@internal
def solve_half(s, w, b, n_rhs):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r) by the solution of L x = b."""
    n_head = s.n_head
    for h in range(n_head):
        k = s.offset[h + 1] - s.offset[h]
        base, own = s.value_start[h], s.offset[h]
        for j in range(k):
            for l in range(j):
                x = w.head[base + j * k + l]
                for c in range(n_rhs):
                    b[(own + j) * n_rhs + c] -= x * b[(own + l) * n_rhs + c]
            for c in range(n_rhs):
                b[(own + j) * n_rhs + c] /= w.head[base + j * k + j]
        values = base + k * k
        mine = beyond(b, own * n_rhs)
        for at in range(s.row_start[h], s.row_start[h + 1]):
            target = beyond(b, s.rows[at] * n_rhs)
            for d in range(k):
                x = w.head[values]
                values += 1
                for c in range(n_rhs):
                    target[c] -= x * mine[d * n_rhs + c]
    if s.n_tail > 0:
        trsm_plain(s.n_tail, n_rhs, 1.0, w.tail, beyond(b, s.n_head_rows * n_rhs))


@internal
def solve_other_half(s, w, b, n_rhs):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r) by the solution of L' x = b."""
    n_head = s.n_head
    if s.n_tail > 0:
        trsm_transposed(s.n_tail, n_rhs, 1.0, w.tail, beyond(b, s.n_head_rows * n_rhs))
    for h in range(n_head - 1, -1, -1):
        k = s.offset[h + 1] - s.offset[h]
        base, own = s.value_start[h], s.offset[h]
        values = base + k * k
        mine = beyond(b, own * n_rhs)
        for at in range(s.row_start[h], s.row_start[h + 1]):
            source = beyond(b, s.rows[at] * n_rhs)
            for d in range(k):
                x = w.head[values]
                values += 1
                for c in range(n_rhs):
                    mine[d * n_rhs + c] -= x * source[c]
        for j in range(k - 1, -1, -1):
            for l in range(j + 1, k):
                x = w.head[base + l * k + j]
                for c in range(n_rhs):
                    b[(own + j) * n_rhs + c] -= x * b[(own + l) * n_rhs + c]
            for c in range(n_rhs):
                b[(own + j) * n_rhs + c] /= w.head[base + j * k + j]


@step
def divide_panel(s, w, h):  # type: ignore[no-untyped-def]
    """Overwrite the rows of head column h by Y = L_Rh L_hh^-1, set the selected inverse's rows to zero."""
    k = s.offset[h + 1] - s.offset[h]
    base, stop = s.value_start[h], s.value_start[h + 1]
    for row in range(base + k * k, stop, k):
        for j in range(k - 1, -1, -1):
            total = w.head[row + j]
            for l in range(j + 1, k):
                total -= w.head[row + l] * w.head[base + l * k + j]
            w.head[row + j] = total / w.head[base + j * k + j]
            w.head_inverse[row + j] = 0.0


@step
def multiply_tail(s, w, h):  # type: ignore[no-untyped-def]
    """Subtract tail inverse times Y from the selected inverse's tail rows of head column h."""
    k = s.offset[h + 1] - s.offset[h]
    n_head_rows = s.n_head_rows
    first = s.row_start[h] + s.tail_first[h]
    count = s.row_start[h + 1] - first
    rows = beyond(s.rows, first)
    start = s.value_start[h] + k * (k + s.tail_first[h])
    values, inverse = beyond(w.head, start), beyond(w.head_inverse, start)
    for a in range(count):
        tail = beyond(w.tail, (rows[a] - n_head_rows) * s.n_tail)
        diagonal = tail[rows[a] - n_head_rows]
        if k == 1:
            x = values[a]
            total, other = diagonal * x, 0.0  # two sums: one would wait for each addition before the next
            for b in range(0, a - 1, 2):
                t, v = tail[rows[b] - n_head_rows], tail[rows[b + 1] - n_head_rows]
                total += t * values[b]
                other += v * values[b + 1]
                inverse[b] -= t * x
                inverse[b + 1] -= v * x
            if a % 2 == 1:
                t = tail[rows[a - 1] - n_head_rows]
                total += t * values[a - 1]
                inverse[a - 1] -= t * x
            inverse[a] -= total + other
            continue
        for d in range(k):
            inverse[a * k + d] -= diagonal * values[a * k + d]
        for b in range(a):
            t = tail[rows[b] - n_head_rows]
            for d in range(k):
                inverse[a * k + d] -= t * values[b * k + d]
                inverse[b * k + d] -= t * values[a * k + d]


@step
def gather_panel(s, w, h, at):  # type: ignore[no-untyped-def]
    """Subtract rows `at`... of the panel product from the selected inverse's tail rows of head column h."""
    k = s.offset[h + 1] - s.offset[h]
    n_head_rows = s.n_head_rows
    first = s.row_start[h] + s.tail_first[h]
    values = s.value_start[h] + k * (k + s.tail_first[h])
    for a in range(first, s.row_start[h + 1]):
        row = s.rows[a] - n_head_rows
        for d in range(k):
            w.head_inverse[values + (a - first) * k + d] -= w.panel_product[(at + d) * s.n_tail + row]


@internal
def multiply_padded_tail(s, w):  # type: ignore[no-untyped-def]
    """Do `multiply_tail` for all padded columns, a panel at a time."""
    n_head = s.n_head
    begin, filled = 0, 0
    for h in range(n_head + 1):
        k = s.offset[h + 1] - s.offset[h] if h < n_head and s.padded[h] else 0
        if filled > 0 and (h == n_head or filled + k > s.n_panel):
            symm(s.n_tail, s.n_panel, 1.0, w.tail, w.panel, 0.0, w.panel_product)
            at = 0
            for e in range(begin, h):
                if s.padded[e]:
                    gather_panel(s, w, e, at)
                    at += s.offset[e + 1] - s.offset[e]
            clear(w.panel, s.n_panel * s.n_tail)
            begin, filled = h, 0
        if k > 0:
            pad_column(s, w, h, w.head, filled)
            filled += k


@step
def finish_diagonal(s, w, h):  # type: ignore[no-untyped-def]
    """Fill the diagonal of the selected inverse at head column h: (L_hh L_hh')^-1 - Y' S_Rh."""
    k = s.offset[h + 1] - s.offset[h]
    base, stop = s.value_start[h], s.value_start[h + 1]
    if k == 1:
        total = 1.0 / (w.head[base] * w.head[base])
        for at in range(base + 1, stop):
            total -= w.head[at] * w.head_inverse[at]
        w.head_inverse[base] = total
    else:
        inverse = w.small
        for j in range(k):
            for i in range(k):
                inverse[i * k + j] = 0.0
            inverse[j * k + j] = 1.0 / w.head[base + j * k + j]
            for i in range(j + 1, k):
                total = 0.0
                for l in range(j, i):
                    total -= w.head[base + i * k + l] * inverse[l * k + j]
                inverse[i * k + j] = total / w.head[base + i * k + i]
        for i in range(k):
            for j in range(i + 1):
                total = 0.0
                for l in range(i, k):
                    total += inverse[l * k + i] * inverse[l * k + j]
                for row in range(base + k * k, stop, k):
                    total -= w.head[row + i] * w.head_inverse[row + j]
                w.head_inverse[base + i * k + j] = total
                w.head_inverse[base + j * k + i] = total


@step
def spread_column(s, w, h):  # type: ignore[no-untyped-def]
    """Add what the finished column h of the selected inverse contributes to the earlier columns that reach it."""
    k = s.offset[h + 1] - s.offset[h]
    base = s.value_start[h]
    for a in range(k):
        w.place[s.offset[h] + a] = base + a * k
    for at in range(s.row_start[h], s.row_start[h + 1]):
        w.place[s.rows[at]] = base + k * (k + at - s.row_start[h])
    for item in range(s.list_start[h], s.list_start[h + 1]):
        e, first = s.list_column[item], s.list_at[item]
        width = s.offset[e + 1] - s.offset[e]
        values = s.value_start[e] + width * width
        own = values + first * width
        count = s.row_start[e + 1] - s.row_start[e] - first
        rows = beyond(s.rows, s.row_start[e] + first)
        if k == 1 and width == 1:
            x = w.head[own]
            total = -w.head_inverse[base] * x
            for a in range(1, count):
                inverse = w.head_inverse[w.place[rows[a]]]
                w.head_inverse[own + a] -= inverse * x
                total -= inverse * w.head[own + a]
            w.head_inverse[own] += total
            continue
        for a in range(count):
            source = w.place[rows[a]]
            mine = own + a * width
            for c in range(k):
                x = w.head_inverse[source + c]
                for d in range(width):
                    w.head_inverse[mine + d] -= x * w.head[own + c * width + d]
                    if a >= k:
                        w.head_inverse[own + c * width + d] -= x * w.head[mine + d]


@internal
def invert(s, w):  # type: ignore[no-untyped-def]
    """Fill the entries of A^-1 on the pattern of L; the factor is overwritten.

    References
    ----------
    Takahashi, Fagan & Chin (1973), Formation of a sparse bus impedance matrix; Erisman & Tinney (1975), *CACM* 18(3).
    """
    n_head = s.n_head
    if s.n_tail > 0:
        potri(s.n_tail, w.tail)
    for h in range(n_head):
        divide_panel(s, w, h)
    if s.n_panel > 0:
        multiply_padded_tail(s, w)
    for h in range(n_head - 1, -1, -1):
        if not s.padded[h] and s.row_start[h + 1] - s.row_start[h] > s.tail_first[h]:
            multiply_tail(s, w, h)
        finish_diagonal(s, w, h)
        if s.list_start[h + 1] > s.list_start[h]:
            spread_column(s, w, h)


@internal
def spread_templates(s, w, templates, rhs, n_rhs):  # type: ignore[no-untyped-def]
    """Fill `half` with Lambda' rhs."""
    for h in range(s.n_nodes):
        f = s.node_factor[h]
        k, base, own = s.factor_k[f], s.template_start[f], s.offset[h]
        for i in range(k):
            for c in range(n_rhs):
                total = 0.0
                for l in range(i, k):
                    total += templates[base + l * k + i] * rhs[(own + l) * n_rhs + c]
                w.half[(own + i) * n_rhs + c] = total


@internal
def subtract_gram(s, w, gram, out, n_rhs):  # type: ignore[no-untyped-def]
    """Fill the lower triangle of `out` with gram - half' half."""
    for i in range(n_rhs * n_rhs):
        out[i] = gram[i]
    if n_rhs > 4 and s.n_columns > 0:
        syrk(n_rhs, s.n_columns, -1.0, w.half, 1.0, out)
    else:
        for row in range(0, s.n_columns * n_rhs, n_rhs):
            for i in range(n_rhs):
                x = w.half[row + i]
                for j in range(i + 1):
                    out[i * n_rhs + j] -= x * w.half[row + j]


@internal
def mix(s, w, rhs, mixing, n_rhs, rank):  # type: ignore[no-untyped-def]
    """Fill `full` with half F and `rest` with rhs F."""
    at = 0
    for row in range(0, s.n_columns * n_rhs, n_rhs):
        full, rest = beyond(w.full, at), beyond(w.rest, at)
        at += rank
        x, y = w.half[row], rhs[row]
        for c in range(rank):
            full[c] = x * mixing[c]
            rest[c] = y * mixing[c]
        for l in range(1, n_rhs):  # side by side in c: one sum would wait for each addition before the next
            x, y = w.half[row + l], rhs[row + l]
            column = beyond(mixing, l * rank)
            for c in range(rank):
                full[c] += x * column[c]
                rest[c] += y * column[c]


@internal
def gather_gradient(s, w, templates, rank, weight, scale, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient in the templates, from the selected inverse, `full` and `rest`."""
    for h in range(s.n_nodes):
        f = s.node_factor[h]
        k, base, own = s.factor_k[f], s.template_start[f], s.offset[h]
        for i in range(k):
            for c in range(rank):
                total = 0.0
                for l in range(i + 1):
                    total += templates[base + i * k + l] * w.full[(own + l) * rank + c]
                w.effects[(own + i) * rank + c] = total
    clear(out, s.n_templates)
    for b in range(s.n_blocks):
        subtract_block(s, w, b, rank)
    for b in range(s.n_blocks):
        add_block(s, w, b, templates, 2.0 * weight, out)
    for h in range(s.n_nodes):
        f = s.node_factor[h]
        k, base, own = s.factor_k[f], s.template_start[f], s.offset[h]
        for i in range(k):
            for j in range(i + 1):
                total = 0.0
                for c in range(rank):
                    total += w.rest[(own + i) * rank + c] * w.full[(own + j) * rank + c]
                out[base + i * k + j] -= 2.0 * scale * total


@step
def subtract_block(s, w, b, rank):  # type: ignore[no-untyped-def]
    """Subtract one block of Z'Z times `effects` from `rest`."""
    r, c = s.block_row[b], s.block_column[b]
    height, width = s.offset[r + 1] - s.offset[r], s.offset[c + 1] - s.offset[c]
    for i in range(height):
        row = (s.offset[r] + i) * rank
        for j in range(width):
            column = (s.offset[c] + j) * rank
            x = s.block_values[s.block_start[b] + i * width + j]
            for d in range(rank):
                w.rest[row + d] -= x * w.effects[column + d]
            if r != c:
                for d in range(rank):
                    w.rest[column + d] -= x * w.effects[row + d]


@step
def add_block(s, w, b, templates, weight, out):  # type: ignore[no-untyped-def]
    """Add what one block of Z'Z gives to `weight` Z'Z Lambda S, on the pattern of Lambda, to `out`."""
    n_head_rows = s.n_head_rows
    r, c = s.block_row[b], s.block_column[b]
    fr, fc = s.node_factor[r], s.node_factor[c]
    height, width = s.factor_k[fr], s.factor_k[fc]
    left, right = s.template_start[fr], s.template_start[fc]
    start, target = s.block_start[b], s.block_target[b]
    row, column = s.offset[r] - n_head_rows, s.offset[c] - n_head_rows
    inverse, below, beside = w.small, beyond(w.small, height * width), beyond(w.small, 2 * height * width)
    if height == 1 and width == 1:
        x = w.head_inverse[target] if target >= 0 else w.tail[row * s.n_tail + column]
        x *= weight * s.block_values[start]
        out[right] += x * templates[left]
        if r != c:
            out[left] += x * templates[right]
    else:
        for i in range(height):
            for j in range(width):
                if target >= 0:
                    inverse[i * width + j] = w.head_inverse[target + i * width + j]
                else:
                    later, earlier = row + i, column + j
                    if later < earlier:
                        later, earlier = earlier, later
                    inverse[i * width + j] = w.tail[later * s.n_tail + earlier]
        for i in range(height):
            for j in range(width):
                total = 0.0
                for l in range(i + 1):
                    total += templates[left + i * height + l] * inverse[l * width + j]
                below[i * width + j] = total
                total = 0.0
                for l in range(j + 1):
                    total += templates[right + j * width + l] * inverse[i * width + l]
                beside[i * width + j] = total
        for i in range(height):
            for j in range(width):
                x = weight * s.block_values[start + i * width + j]
                for l in range(width):
                    out[right + j * width + l] += x * below[i * width + l]
                if r != c:
                    for l in range(height):
                        out[left + i * height + l] += x * beside[l * width + j]
