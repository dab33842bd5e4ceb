"""Where the factor of A = Lambda' Z'Z Lambda + I has its entries: ordering, sparse head, dense tail.

A *node* is one level of one factor, with as many columns as the factor has effects. The factor with most levels is
eliminated first: its nodes never meet. Then nodes of least degree follow, for as long as a sparse elimination is
cheaper than leaving the node to the dense tail. One cost rule covers nested, crossed and partly crossed designs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import compiled
from bayeslmm.likelihood.crossproducts import CrossProducts, bucket

SPARSE_SECONDS = 1.5e-9
"""Seconds for one multiply-add of the sparse head, factor and selected inverse together."""
DENSE_SECONDS = 3e-11
"""Seconds for one floating-point operation of the dense tail."""
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
        Address of the compiled factorisation, see `bayeslmm.likelihood.cholesky`.
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
    from bayeslmm.likelihood.engine import engine_address

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
    engine = np.array([engine_address()], dtype=np.int64)
    structure = Structure(factor_k, template_start, factor_of_node[order], offset, *panels, *blocks, engine)  # type: ignore[call-arg]
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


@compiled
def eliminate(n_first, widths, edge_a, edge_b, sparse_seconds, dense_seconds):  # type: ignore[no-untyped-def]
    """Return the elimination order and, for each head node, the nodes below it in the factor.

    Minimum degree on the quotient graph: an eliminated node becomes an *element*, the clique of the nodes below it. The
    nodes of the first factor are elements from the start. Elimination stops where the dense tail is cheaper.

    References
    ----------
    Amestoy, Davis & Duff (1996), An approximate minimum degree ordering algorithm, *SIAM J. Matrix Anal. Appl.* 17(4).
    """
    n = widths.size
    count = np.zeros(n + 1, dtype=np.int64)
    for e in range(edge_a.size):
        count[edge_a[e] + 1] += 1
        count[edge_b[e] + 1] += 1
    for i in range(n):
        count[i + 1] += count[i]
    start = count.copy()
    lists = np.empty(count[n], dtype=np.int32)
    n_elements = np.zeros(n, dtype=np.int64)
    for sweep in range(2):
        for e in range(edge_a.size):
            for side in range(2):
                i = edge_a[e] if side == 0 else edge_b[e]
                other = edge_b[e] if side == 0 else edge_a[e]
                if (other < n_first and i >= n_first) == (sweep == 0):
                    lists[count[i]] = other
                    count[i] += 1
                    if sweep == 0:
                        n_elements[i] += 1
    length = count[:n] - start[:n]

    element_start = np.empty(n, dtype=np.int64)
    element_stop = np.empty(n, dtype=np.int64)
    element_weight = np.zeros(n, dtype=np.int64)
    pattern = np.empty(max(16, start[n]), dtype=np.int32)
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
    seen = np.full(n, -1, dtype=np.int64)
    degree = np.zeros(n, dtype=np.int64)
    bucket_head = np.full(remaining + 1, -1, dtype=np.int64)
    following = np.full(n, -1, dtype=np.int64)
    preceding = np.full(n, -1, dtype=np.int64)
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

    order = np.empty(n, dtype=np.int64)
    for j in range(n_first):
        order[j] = j
    n_head = n_first
    alive = np.ones(n, dtype=np.uint8)
    outside = np.ones(n, dtype=np.int64)  # 0: absorbed; below `base`: not met by this pivot; else base + weight outside
    base = np.int64(2)
    whole = remaining
    seen[:] = -1
    least = 0
    while n_head < n:
        while bucket_head[least] < 0:
            least += 1
        p = bucket_head[least]
        below = float(least + widths[p])
        if below * below * sparse_seconds > 3.0 * float(remaining) * float(remaining) * dense_seconds:
            break
        bucket_head[least] = following[p]
        if following[p] >= 0:
            preceding[following[p]] = -1
        alive[p] = 0
        remaining -= widths[p]
        if used + n > pattern.size:
            grown = np.empty(2 * pattern.size + n, dtype=np.int32)
            grown[:used] = pattern[:used]
            pattern = grown
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
                e = np.uint64(lists[at])  # type: ignore[assignment]
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
                here = outside[np.uint64(lists[at])]
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
            new = min(bound, degree[i] + weight - widths[i], remaining - widths[i])
            degree[i] = new
            preceding[i] = -1
            following[i] = bucket_head[new]
            if bucket_head[new] >= 0:
                preceding[bucket_head[new]] = i
            bucket_head[new] = i
            least = min(least, new)
        base += whole + 1

    at = n_head
    for i in range(n_first, n):
        if alive[i]:
            order[at] = i
            at += 1
    pattern_start = np.empty(n_head + 1, dtype=np.int64)
    pattern_start[0] = 0
    for h in range(n_head):
        pattern_start[h + 1] = element_stop[order[h]]
    return order, pattern_start, pattern[:used]


@compiled
def lay_out(pattern_start, pattern, position, offset, padded_share):  # type: ignore[no-untyped-def]
    """Return rows, numbers and row lists of the head, the rows of each column ascending."""
    n, n_head = position.size, pattern_start.size - 1
    count = np.zeros(n + 1, dtype=np.int64)
    for at in range(pattern.size):
        count[position[pattern[at]] + 1] += 1
    for i in range(n):
        count[i + 1] += count[i]
    column = np.empty(pattern.size, dtype=np.int32)
    fill = count.copy()
    row_start = np.zeros(n_head + 1, dtype=np.int64)
    value_start = np.zeros(n_head + 1, dtype=np.int64)
    for h in range(n_head):
        height = 0
        for at in range(pattern_start[h], pattern_start[h + 1]):
            i = position[pattern[at]]
            column[fill[i]] = h
            fill[i] += 1
            height += offset[i + 1] - offset[i]
        k = offset[h + 1] - offset[h]
        row_start[h + 1] = row_start[h] + height
        value_start[h + 1] = value_start[h] + k * (k + height)

    rows = np.empty(row_start[n_head], dtype=np.int32)
    list_start = count[: n_head + 1].copy()
    list_column = column[: count[n_head]].copy()
    list_at = np.empty(count[n_head], dtype=np.int64)
    tail_first = np.zeros(n_head, dtype=np.int64)
    write = row_start[:n_head].copy()
    for i in range(n):
        if i == n_head:
            tail_first[:] = write - row_start[:n_head]
        for at in range(count[i], count[i + 1]):
            h = column[at]
            if i < n_head:
                list_at[at] = write[h] - row_start[h]
            for row in range(offset[i], offset[i + 1]):
                rows[write[h]] = row
                write[h] += 1
    if n == n_head:
        tail_first[:] = write - row_start[:n_head]
    share = padded_share * (offset[n] - offset[n_head])
    padded = np.zeros(n_head, dtype=np.uint8)
    for h in range(n_head):
        height = row_start[h + 1] - row_start[h] - tail_first[h]
        padded[h] = 1 if height > 8 and height > share else 0
    return row_start, rows, value_start, tail_first, padded, list_start, list_column, list_at


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
    by_row, _ = bucket(row, position.size)
    by_column, _ = bucket(column[by_row], position.size)
    order = by_row[by_column]
    return place_blocks(order, first, second, raw, offset, *panels[:3])


@compiled
def place_blocks(order, first, second, raw, offset, row_start, rows, value_start):  # type: ignore[no-untyped-def]
    """Copy the blocks of Z'Z in the given order, lower triangle, and find their places in the factor."""
    n_blocks, n_head = order.size, row_start.size - 1
    raw_start = np.empty(n_blocks + 1, dtype=np.int64)
    raw_start[0] = 0
    for b in range(n_blocks):
        height = offset[first[b] + 1] - offset[first[b]]
        width = offset[second[b] + 1] - offset[second[b]]
        raw_start[b + 1] = raw_start[b] + height * width
    block_row = np.empty(n_blocks, dtype=np.int32)
    block_column = np.empty(n_blocks, dtype=np.int32)
    block_start = np.empty(n_blocks, dtype=np.int64)
    block_target = np.empty(n_blocks, dtype=np.int64)
    values = np.empty(raw.size)
    at, walk, current = 0, 0, -1
    for new in range(n_blocks):
        b = order[new]
        r, c = max(first[b], second[b]), min(first[b], second[b])
        height, width = offset[r + 1] - offset[r], offset[c + 1] - offset[c]
        block_row[new], block_column[new], block_start[new] = r, c, at
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
    return block_row, block_column, block_start, block_target, values
