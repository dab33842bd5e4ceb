"""A = Lambda' Z'Z Lambda + I = L L' from compiled code: factor, solves, selected inverse and gradient, on a record.

Every function takes the record of a `Workspace` (one per thread), whose handle also holds the symbolic `Structure`
(shared, read only). None of them raises: a matrix that cannot be factored gives a log determinant that is not a number.

The loops themselves (`bayeslmm.likelihood.numeric`) are a lot of code. They are compiled once, as one C function, and
reached through its address in the structure: a caller (criterion, Laplace approximation, sampler) links only the few
lines here. `bayeslmm.likelihood.cholesky` is the same for Python.
"""

from __future__ import annotations

from bayeslmm.likelihood._compiled import internal, step
from bayeslmm.likelihood.handle import ARGUMENTS, FULL, HALF, run, set_matrix, set_vector
from bayeslmm.likelihood.operations import (
    FACTORISE,
    FACTORS,
    GATHER,
    GRAM,
    INVERT,
    MIX,
    MIXING,
    OUT,
    RHS,
    ROOT,
    SOLVE_HALF,
    SOLVE_OTHER_HALF,
    SPREAD,
    TEMPLATES,
    B,
)
from bayeslmm.likelihood.record import scratch_doubles, words_of


@step
def reduce_with(handle):  # type: ignore[no-untyped-def]
    """Do `reduce_products` on a handle that holds its arguments, gram as B."""
    run(handle, SPREAD)
    gram, rows, columns = handle[ARGUMENTS + 3 * B], handle[ARGUMENTS + 3 * B + 1], handle[ARGUMENTS + 3 * B + 2]
    aim(handle, handle[HALF], handle[HALF + 1], handle[HALF + 2])
    run(handle, SOLVE_HALF)
    aim(handle, gram, rows, columns)
    run(handle, GRAM)


@step
def pull_back_with(handle):  # type: ignore[no-untyped-def]
    """Do `pull_back` on a handle that holds its arguments."""
    run(handle, MIX)
    aim(handle, handle[FULL], handle[HALF + 1], handle[ARGUMENTS + 3 * MIXING + 2])
    run(handle, SOLVE_OTHER_HALF)
    run(handle, INVERT)
    run(handle, GATHER)


@step
def aim(handle, address, rows, columns):  # type: ignore[no-untyped-def]
    """Make the matrix at `address` the argument B."""
    handle[ARGUMENTS + 3 * B] = address
    handle[ARGUMENTS + 3 * B + 1] = rows
    handle[ARGUMENTS + 3 * B + 2] = columns


@internal
def factorise(w, templates):  # type: ignore[no-untyped-def]
    """Factor A in the workspace of a record; return log|A|, not a number when A is not positive definite."""
    handle = words_of(w)
    set_vector(handle, TEMPLATES, templates)
    return run(handle, FACTORISE)


@internal
def solve_half(w, b):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r), C-ordered, by the solution of L x = b; `factorise` has been called."""
    handle = words_of(w)
    set_matrix(handle, B, b)
    run(handle, SOLVE_HALF)


@internal
def solve_other_half(w, b):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r), C-ordered, by the solution of L' x = b; `factorise` has been called."""
    handle = words_of(w)
    set_matrix(handle, B, b)
    run(handle, SOLVE_OTHER_HALF)


@internal
def invert(w):  # type: ignore[no-untyped-def]
    """Fill the entries of A^-1 on the pattern of L; the factor is overwritten."""
    run(words_of(w), INVERT)


@internal
def reduce_products(w, templates, rhs, gram, out):  # type: ignore[no-untyped-def]
    """Fill the lower triangle of `out` with Q = [X y]' V0^-1 [X y] = gram - half' half; `factorise` has been called.

    Parameters
    ----------
    w : record
        Its `half` is filled: L^-1 Lambda' rhs.
    templates : float64
        Lambda of each factor, (K, K) in C order, one after the other.
    rhs : (q, p + 1)
        Z'[X y].
    gram, out : (p + 1, p + 1)
        [X y]'[X y], and the result.
    """
    handle = words_of(w)
    set_vector(handle, TEMPLATES, templates)
    set_matrix(handle, RHS, rhs)
    set_matrix(handle, B, gram)
    set_matrix(handle, ROOT, out)
    reduce_with(handle)


@internal
def pull_back(w, templates, rhs, mixing, weight, scale, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient of `weight log|A| + scale tr(F' Q F)` in the templates; `mixing` is F."""
    factors = scratch_doubles(2)
    factors[0], factors[1] = weight, scale
    handle = words_of(w)
    set_vector(handle, TEMPLATES, templates)
    set_matrix(handle, RHS, rhs)
    set_matrix(handle, MIXING, mixing)
    set_vector(handle, FACTORS, factors)
    set_vector(handle, OUT, out)
    pull_back_with(handle)
