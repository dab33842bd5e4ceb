"""Where the factor of A = Lambda' Z'Z Lambda + I has its entries: ordering, sparse head, dense tail.

A *node* is one level of one factor, with as many columns as the factor has effects. The factor with most levels is
eliminated first: its nodes never meet. Then nodes of least degree follow, for as long as a sparse elimination is
cheaper than leaving the node to the dense tail. One cost rule covers nested, crossed and partly crossed designs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import beyond, c_function
from bayeslmm.likelihood.crossproducts import CrossProducts, bucket

SPARSE_SECONDS = 1.5e-9
"""Seconds for one multiply-add of the sparse head, factor and selected inverse together."""
DENSE_SECONDS = 3e-11
"""Seconds for one floating-point operation of the dense tail."""
NODE_SECONDS = 3e-7
"""Seconds every node of the head costs whatever its rows."""
PADDED_SHARE = 0.35
"""A head column with more than this share of the tail's rows is updated by dense algebra on padded columns."""


class Structure(NamedTuple):
    """The symbolic factorisation as arrays, for compiled code. Positions are places in the elimination order.

    Parameters
    ----------
    factor_k, template_start : (F,) int64
        Width of each factor's nodes, and where its template starts in the flat templates.
    node_factor : (N,) int32
        Factor of the node at each position.
    offset : (N + 1,) int64
        First scalar row of each position.
    row_start : (H + 1,) int64
        For each head position where its rows start in `rows`.
    rows : int32
        Scalar rows below the diagonal of each head column, ascending.
    value_start : (H + 1,) int64
        Where the numbers of each head position start: its (k, k) diagonal, then (rows, k).
    tail_first : (H,) int64
        Index, among the rows of a head position, of the first that lies in the tail.
    padded : (H,) uint8
        Whether its update of the tail goes through padded dense columns.
    list_start, list_column, list_at
        For each head position the earlier positions that reach it, and the index among their rows where they do.
    block_row, block_column : (B,) int32
        Positions of the blocks of Z'Z, lower triangle, sorted by column and row.
    block_start, block_target : (B,) int64
        Where a block starts in `block_values`, and in the numbers of the head (-1: in the tail).
    block_values : float64
        Z'Z.
    engine : (1,) int64
        Address of the compiled factorisation, see `bayeslmm.likelihood.engine`.
    """

    factor_k: NDArray[np.int64]
    template_start: NDArray[np.int64]
    node_factor: NDArray[np.int32]
    offset: NDArray[np.int64]
    row_start: NDArray[np.int64]
    rows: NDArray[np.int32]
    value_start: NDArray[np.int64]
    tail_first: NDArray[np.int64]
    padded: NDArray[np.uint8]
    list_start: NDArray[np.int64]
    list_column: NDArray[np.int32]
    list_at: NDArray[np.int64]
    block_row: NDArray[np.int32]
    block_column: NDArray[np.int32]
    block_start: NDArray[np.int64]
    block_target: NDArray[np.int64]
    block_values: NDArray[np.float64]
    engine: NDArray[np.int64]


@dataclass(frozen=True)
class Analysis:
    """The symbolic factorisation and the map between the user's order and the engine's.

    Parameters
    ----------
    structure : Structure
        For compiled code.
    first_row : tuple of (J,) int64
        For each factor, in the user's order, the first scalar row of each level in the engine's order.
    """

    structure: Structure
    first_row: tuple[NDArray[np.int64], ...]

    @cached_property
    def rows(self) -> tuple[NDArray[np.int64], ...]:
        """For each factor, in the user's order, the scalar rows (J, K) of its effects in the engine's order."""
        widths = self.structure.factor_k
        return tuple(first[:, None] + np.arange(k) for first, k in zip(self.first_row, widths, strict=True))

    @property
    def n_columns(self) -> int:
        """Columns q of Z."""
        return int(self.structure.offset[-1])

    @property
    def n_head(self) -> int:
        """Columns of the sparse head."""
        return int(self.structure.offset[len(self.structure.row_start) - 1])

    @property
    def n_tail(self) -> int:
        """Columns of the dense tail."""
        return self.n_columns - self.n_head

    @property
    def n_head_values(self) -> int:
        """Numbers stored for the sparse head."""
        return int(self.structure.value_start[-1])

    @property
    def seconds(self) -> float:
        """What a value and its gradient cost on a usual processor, by the rule that chose where the tail starts.

        It is counted and not measured: what is decided by it is the same on a busy machine.
        """
        rows = np.diff(self.structure.row_start).astype(np.float64)
        widths = self.structure.factor_k[self.structure.node_factor[: len(rows)]]
        head = np.sum(widths * rows * (rows + widths) / 2) * SPARSE_SECONDS + len(rows) * NODE_SECONDS
        return float(head) + self.n_tail**3 * DENSE_SECONDS


def analyse(products: CrossProducts) -> Analysis:
    """Order the columns of Z, split them into sparse head and dense tail, and lay out the factor.

    Parameters
    ----------
    products : CrossProducts
        Only the pattern of Z'Z matters here; its numbers are copied in engine order.

    Returns
    -------
    Analysis
    """
    from bayeslmm.likelihood.engine import engine

    by_size = sorted(range(len(products.n_levels)), key=lambda f: -products.n_levels[f])
    node_start = np.zeros(len(by_size), dtype=np.int64)
    at = 0
    for f in by_size:
        node_start[f] = at
        at += products.n_levels[f]
    factor_of_node = np.repeat(np.array(by_size, dtype=np.int32), [products.n_levels[f] for f in by_size])
    factor_k = np.array(products.n_effects, dtype=np.int64)
    template_start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(factor_k**2)])[:-1]
    widths = factor_k[factor_of_node]
    edge_a, edge_b = _edges(products, node_start)
    n_first = products.n_levels[by_size[0]] if by_size else 0

    order, pattern_start, pattern = eliminate(n_first, widths, edge_a, edge_b, SPARSE_SECONDS, DENSE_SECONDS)
    position = np.empty(at, dtype=np.int32)
    position[order] = np.arange(at, dtype=np.int32)
    offset = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(widths[order])])
    panels = lay_out(pattern_start, pattern, position, offset, PADDED_SHARE)
    blocks = _blocks(products, by_size, node_start, position, offset, panels)
    address = np.array([engine.address], dtype=np.int64)
    structure = Structure(factor_k, template_start, factor_of_node[order], offset, *panels, *blocks, address)  # type: ignore[call-arg]
    first_row = tuple(
        offset[position[node_start[f] : node_start[f] + products.n_levels[f]]] for f in range(len(by_size))
    )
    return Analysis(structure, first_row)


def _edges(products: CrossProducts, node_start: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the pairs of nodes that occur together, each pair once."""
    first = [(pair.rows + node_start[pair.first]).astype(np.int32) for pair in products.pairs]
    second = [(pair.columns + node_start[pair.second]).astype(np.int32) for pair in products.pairs]
    empty = np.empty(0, dtype=np.int32)
    return np.concatenate([empty, *first]), np.concatenate([empty, *second])


_INTS, _LONGS = "CPointer(int32)", "CPointer(int64)"
_GROWING = -1


def eliminate(
    n_first: int,
    widths: NDArray[np.int64],
    edge_a: NDArray[np.int32],
    edge_b: NDArray[np.int32],
    sparse_seconds: float,
    dense_seconds: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Return the elimination order and, for each head node, the nodes below it in the factor.

    Minimum degree on the quotient graph: an eliminated node becomes an *element*, the clique of the nodes below it. The
    nodes of the first factor are elements from the start. Elimination stops where the dense tail is cheaper.

    References
    ----------
    Amestoy, Davis & Duff (1996), An approximate minimum degree ordering algorithm, *SIAM J. Matrix Anal. Appl.* 17(4).
    """
    n, n_edges = len(widths), len(edge_a)
    order, pattern_start = np.empty(n, dtype=np.int64), np.empty(n + 1, dtype=np.int64)
    lists = np.empty(2 * n_edges, dtype=np.int32)
    scratch = np.empty(_SCRATCH * (n + 1) + int(widths[n_first:].sum()) + 1, dtype=np.int64)
    n_head, room = _GROWING, 2 * n_edges + 4 * n + 16
    while n_head == _GROWING:
        pattern = np.empty(room, dtype=np.int32)
        n_head = _eliminate(
            n_first, n, n_edges, room, widths, edge_a, edge_b, sparse_seconds, dense_seconds, order, pattern_start,
            pattern, lists, scratch,
        )  # fmt: skip
        room *= 4
    return order, pattern_start[: n_head + 1], pattern[: pattern_start[n_head]].copy()


_SCRATCH = 14


@c_function(
    f"int64(int64, int64, int64, int64, {_LONGS}, {_INTS}, {_INTS}, float64, float64, {_LONGS}, {_LONGS}, {_INTS}, "
    f"{_INTS}, {_LONGS})"
)
def _eliminate(  # type: ignore[no-untyped-def]
    n_first, n, n_edges, room, widths, edge_a, edge_b, sparse_seconds, dense_seconds, order, pattern_start,
    pattern, lists, scratch,
):  # fmt: skip
    """Do `eliminate`; return the number of head nodes, or -1 when `pattern` has no room for the patterns."""
    size = n + 1
    count, start, length = scratch, beyond(scratch, size), beyond(scratch, 2 * size)
    n_elements, element_start = beyond(scratch, 3 * size), beyond(scratch, 4 * size)
    element_stop, element_weight = beyond(scratch, 5 * size), beyond(scratch, 6 * size)
    seen, degree = beyond(scratch, 7 * size), beyond(scratch, 8 * size)
    following, preceding = beyond(scratch, 9 * size), beyond(scratch, 10 * size)
    alive, outside = beyond(scratch, 11 * size), beyond(scratch, 12 * size)
    bucket_head = beyond(scratch, 13 * size)
    for i in range(size):
        count[i] = n_elements[i] = element_weight[i] = degree[i] = 0
        seen[i] = following[i] = preceding[i] = -1
        alive[i] = outside[i] = 1  # outside is 0: absorbed; below `base`: not met by this pivot; else base + weight
    for e in range(n_edges):
        count[edge_a[e] + 1] += 1
        count[edge_b[e] + 1] += 1
    for i in range(n):
        count[i + 1] += count[i]
    for i in range(size):
        start[i] = count[i]
    for sweep in range(2):
        for e in range(n_edges):
            for side in range(2):
                i = edge_a[e] if side == 0 else edge_b[e]
                other = edge_b[e] if side == 0 else edge_a[e]
                if (other < n_first and i >= n_first) == (sweep == 0):
                    lists[count[i]] = other
                    count[i] += 1
                    if sweep == 0:
                        n_elements[i] += 1
    for i in range(n):
        length[i] = count[i] - start[i]

    used = 0
    for j in range(n_first):
        element_start[j] = used
        for at in range(start[j], start[j] + length[j]):
            pattern[used] = lists[at]
            element_weight[j] += widths[lists[at]]
            used += 1
        element_stop[j] = used

    remaining = 0
    for i in range(n_first, n):
        remaining += widths[i]
    for d in range(remaining + 1):
        bucket_head[d] = -1
    for i in range(n_first, n):
        seen[i] = i
        for at in range(start[i], start[i] + length[i]):
            node = lists[at]
            if at < start[i] + n_elements[i]:
                for member in range(element_start[node], element_stop[node]):
                    other = pattern[member]
                    if seen[other] != i:
                        seen[other] = i
                        degree[i] += widths[other]
            elif seen[node] != i:
                seen[node] = i
                degree[i] += widths[node]
        following[i] = bucket_head[degree[i]]
        if bucket_head[degree[i]] >= 0:
            preceding[bucket_head[degree[i]]] = i
        bucket_head[degree[i]] = i

    for j in range(n_first):
        order[j] = j
    n_head = n_first
    base = 2
    whole = remaining
    for i in range(n):
        seen[i] = -1
    least = 0
    while n_head < n:
        while bucket_head[least] < 0:
            least += 1
        p = bucket_head[least]
        below, rest = 1.0 * (least + widths[p]), 1.0 * remaining
        if below * below * sparse_seconds > 3.0 * rest * rest * dense_seconds:
            break
        bucket_head[least] = following[p]
        if following[p] >= 0:
            preceding[following[p]] = -1
        alive[p] = 0
        remaining -= widths[p]
        if used + n > room:
            return _GROWING
        element_start[p] = used
        seen[p] = p
        weight = 0
        for at in range(start[p], start[p] + length[p]):
            node = lists[at]
            if at < start[p] + n_elements[p]:
                if outside[node] == 0:
                    continue
                outside[node] = 0
                for member in range(element_start[node], element_stop[node]):
                    other = pattern[member]
                    if seen[other] != p:
                        seen[other] = p
                        pattern[used] = other
                        used += 1
                        weight += widths[other]
            elif alive[node] and seen[node] != p:
                seen[node] = p
                pattern[used] = node
                used += 1
                weight += widths[node]
        element_stop[p] = used
        element_weight[p] = weight
        order[n_head] = p
        n_head += 1

        for member in range(element_start[p], used):
            i = pattern[member]
            width = widths[i]
            for at in range(start[i], start[i] + n_elements[i]):
                e = lists[at]
                here = outside[e]
                if here > 0:
                    outside[e] = (here if here >= base else base + element_weight[e]) - width
        for member in range(element_start[p], used):
            i = pattern[member]
            if preceding[i] >= 0:
                following[preceding[i]] = following[i]
            else:
                bucket_head[degree[i]] = following[i]
            if following[i] >= 0:
                preceding[following[i]] = preceding[i]
            write = start[i]
            bound = weight - widths[i]
            first_other = start[i] + n_elements[i]
            stop = start[i] + length[i]
            for at in range(start[i], first_other):
                here = outside[lists[at]]
                if here > base:
                    bound += here - base
                    lists[write] = lists[at]
                    write += 1
            kept_elements = write - start[i]
            for at in range(first_other, stop):
                node = lists[at]
                if alive[node] and seen[node] != p:
                    bound += widths[node]
                    lists[write] = node
                    write += 1
            lists[write] = lists[start[i] + kept_elements] if write > start[i] + kept_elements else p
            lists[start[i] + kept_elements] = p
            n_elements[i] = kept_elements + 1
            length[i] = write + 1 - start[i]
            new = degree[i] + weight - widths[i]
            if bound < new:
                new = bound
            if remaining - widths[i] < new:
                new = remaining - widths[i]
            degree[i] = new
            preceding[i] = -1
            following[i] = bucket_head[new]
            if bucket_head[new] >= 0:
                preceding[bucket_head[new]] = i
            bucket_head[new] = i
            if new < least:
                least = new
        base += whole + 1

    at = n_head
    for i in range(n_first, n):
        if alive[i]:
            order[at] = i
            at += 1
    pattern_start[0] = 0
    for h in range(n_head):
        pattern_start[h + 1] = element_stop[order[h]]
    return n_head


def lay_out(
    pattern_start: NDArray[np.int64],
    pattern: NDArray[np.int32],
    position: NDArray[np.int32],
    offset: NDArray[np.int64],
    padded_share: float,
) -> tuple[NDArray[Any], ...]:
    """Return rows, numbers and row lists of the head, the rows of each column ascending."""
    n, n_head, n_pattern = len(position), len(pattern_start) - 1, len(pattern)
    heights = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.diff(offset)[position[pattern]])])
    row_start = heights[pattern_start]
    widths = np.diff(offset[: n_head + 1])
    value_start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(widths * (widths + np.diff(row_start)))])
    rows = np.empty(row_start[-1], dtype=np.int32)
    count, column = np.zeros(n + 2, dtype=np.int64), np.empty(n_pattern, dtype=np.int32)
    list_at, tail_first = np.empty(n_pattern, dtype=np.int64), np.empty(n_head, dtype=np.int64)
    write = row_start.copy()
    _lay_out(
        n, n_head, pattern_start, pattern, position, offset, row_start, count, column, write, rows, list_at, tail_first
    )
    n_listed = count[n_head]
    below = np.diff(row_start) - tail_first
    padded = (below > np.maximum(8, padded_share * (offset[n] - offset[n_head]))).astype(np.uint8)
    lists = count[: n_head + 1].copy(), column[:n_listed].copy(), list_at[:n_listed].copy()
    return row_start, rows, value_start, tail_first, padded, *lists


@c_function(
    f"void(int64, int64, {_LONGS}, {_INTS}, {_INTS}, {_LONGS}, {_LONGS}, {_LONGS}, {_INTS}, {_LONGS}, {_INTS}, "
    f"{_LONGS}, {_LONGS})"
)
def _lay_out(  # type: ignore[no-untyped-def]
    n, n_head, pattern_start, pattern, position, offset, row_start, count, column, write, rows, list_at, tail_first
):
    # counts stand two places further on, so that each becomes a start when it has been counted up
    for at in range(pattern_start[n_head]):
        count[position[pattern[at]] + 2] += 1
    for i in range(n):
        count[i + 2] += count[i + 1]
    for h in range(n_head):
        for at in range(pattern_start[h], pattern_start[h + 1]):
            i = position[pattern[at]]
            column[count[i + 1]] = h
            count[i + 1] += 1
    for i in range(n):
        if i == n_head:
            for h in range(n_head):
                tail_first[h] = write[h] - row_start[h]
        for at in range(count[i], count[i + 1]):
            h = column[at]
            list_at[at] = write[h] - row_start[h]
            for row in range(offset[i], offset[i + 1]):
                rows[write[h]] = row
                write[h] += 1
    if n == n_head:
        for h in range(n_head):
            tail_first[h] = write[h] - row_start[h]


def _blocks(products, by_size, node_start, position, offset, panels):  # type: ignore[no-untyped-def]
    """Return the blocks of Z'Z in engine order, sorted by column and row, with their places in the factor."""
    diagonal = [position[node_start[f] : node_start[f] + products.n_levels[f]] for f in by_size]
    one = [position[pair.rows + node_start[pair.first]] for pair in products.pairs]
    two = [position[pair.columns + node_start[pair.second]] for pair in products.pairs]
    empty = np.empty(0, dtype=np.int32)
    first = np.concatenate([empty, *diagonal, *one])
    second = np.concatenate([empty, *diagonal, *two])
    raw = np.concatenate(
        [
            np.empty(0),
            *(products.diagonal[f].ravel() for f in by_size),
            *(pair.values.ravel() for pair in products.pairs),
        ]
    )
    row, column = np.maximum(first, second), np.minimum(first, second)
    by_row, _ = bucket(row, len(position))
    by_column, _ = bucket(column[by_row], len(position))
    order = by_row[by_column]
    widths = np.diff(offset)
    raw_start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(widths[first] * widths[second])])
    n_blocks, n_head = len(order), len(panels[0]) - 1
    block_start, block_target = np.empty(n_blocks, dtype=np.int64), np.empty(n_blocks, dtype=np.int64)
    values = np.empty(len(raw))
    block_row, block_column = row[order], column[order]
    _place_blocks(
        n_blocks, n_head, order, first, raw_start, raw, offset, *panels[:3], block_row, block_column, block_start,
        block_target, values,
    )  # fmt: skip
    return block_row, block_column, block_start, block_target, values


@c_function(
    f"void(int64, int64, {_LONGS}, {_INTS}, {_LONGS}, CPointer(float64), {_LONGS}, {_LONGS}, {_INTS}, {_LONGS}, "
    f"{_INTS}, {_INTS}, {_LONGS}, {_LONGS}, CPointer(float64))"
)
def _place_blocks(  # type: ignore[no-untyped-def]
    n_blocks, n_head, order, first, raw_start, raw, offset, row_start, rows, value_start, block_row, block_column,
    block_start, block_target, values,
):  # fmt: skip
    """Copy the blocks of Z'Z in the given order, lower triangle, and find their places in the factor."""
    at, walk, current = 0, 0, -1
    for new in range(n_blocks):
        b, r, c = order[new], block_row[new], block_column[new]
        height, width = offset[r + 1] - offset[r], offset[c + 1] - offset[c]
        block_start[new] = at
        if c >= n_head:
            block_target[new] = -1
        elif r == c:
            block_target[new] = value_start[c]
        else:
            if c != current:
                walk, current = row_start[c], c
            while rows[walk] != offset[r]:
                walk += 1
            block_target[new] = value_start[c] + width * (width + walk - row_start[c])
        for i in range(height):
            for j in range(width):
                source = i * width + j if first[b] == r else j * height + i
                values[at + i * width + j] = raw[raw_start[b] + source]
        at += height * width


COMPILED = (_eliminate, _lay_out, _place_blocks)
"""What an analysis needs."""
