"""A = Lambda' Z'Z Lambda + I = L L': factor, solves, selected inverse and gradient, callable from compiled code.

Every function takes the symbolic `Structure` (shared, read only) and a `Workspace` (one per thread). None of them
raises: a matrix that cannot be factored gives a log determinant that is not a number.

The loops themselves (`bayeslmm.likelihood.numeric`) are a lot of code. They are compiled once, as one C function, and
reached through its address in the structure: a caller (criterion, evidence, optimiser, sampler) links only the few
lines here, so that it compiles in a second instead of ten.
"""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import compiled, step
from bayeslmm.likelihood.handle import ARGUMENTS, FULL, HALF, call, engine_of, pack, set_matrix, set_vector
from bayeslmm.likelihood.numeric import Workspace, new_workspace
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

__all__ = [
    "Workspace",
    "factorise",
    "invert",
    "new_workspace",
    "pull_back",
    "reduce_products",
    "solve_half",
    "solve_other_half",
]


@step
def run(handle, operation):  # type: ignore[no-untyped-def]
    """Let the factorisation do one operation on a handle."""
    handle[0] = operation
    return call(engine_of(handle), handle)


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


@compiled
def factorise(s, w, templates):  # type: ignore[no-untyped-def]
    """Factor A in the workspace; return log|A|, not a number when A is not positive definite in floating point.

    Parameters
    ----------
    s : Structure
    w : Workspace
    templates : float64
        Lambda of each factor, (K, K) in C order, one after the other.
    """
    handle = pack(s, w)
    set_vector(handle, TEMPLATES, templates)
    return run(handle, FACTORISE)


@compiled
def solve_half(s, w, b):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r), C-ordered, by the solution of L x = b; `factorise` has been called."""
    handle = pack(s, w)
    set_matrix(handle, B, b)
    run(handle, SOLVE_HALF)


@compiled
def solve_other_half(s, w, b):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r), C-ordered, by the solution of L' x = b; `factorise` has been called."""
    handle = pack(s, w)
    set_matrix(handle, B, b)
    run(handle, SOLVE_OTHER_HALF)


@compiled
def invert(s, w):  # type: ignore[no-untyped-def]
    """Fill the entries of A^-1 on the pattern of L; the factor is overwritten.

    Diagonal blocks are complete; the tail has its lower triangle.

    References
    ----------
    Takahashi, Fagan & Chin (1973), Formation of a sparse bus impedance matrix; Erisman & Tinney (1975), *CACM* 18(3).
    """
    run(pack(s, w), INVERT)


@compiled
def reduce_products(s, w, templates, rhs, gram, out):  # type: ignore[no-untyped-def]
    """Fill the lower triangle of `out` with Q = [X y]' V0^-1 [X y] = gram - half' half; `factorise` has been called.

    Parameters
    ----------
    s : Structure
    w : Workspace
        Its `half` is filled: L^-1 Lambda' rhs.
    templates : float64
        As for `factorise`.
    rhs : (q, p + 1)
        Z'[X y].
    gram, out : (p + 1, p + 1)
        [X y]'[X y], and the result.
    """
    handle = pack(s, w)
    set_vector(handle, TEMPLATES, templates)
    set_matrix(handle, RHS, rhs)
    set_matrix(handle, B, gram)
    set_matrix(handle, ROOT, out)
    reduce_with(handle)


@compiled
def pull_back(s, w, templates, rhs, mixing, weight, scale, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient of `weight log|A| + scale tr(F' Q F)` in the templates.

    `reduce_products` was called; the factor is overwritten by the selected inverse. With S = A^-1, B = S Lambda' W F
    and R = W F - Z'Z Lambda B, the two parts are 2 Z'Z Lambda S and -2 R B', each only where Lambda has entries.

    Parameters
    ----------
    s : Structure
    w : Workspace
    templates, rhs
        As for `reduce_products`.
    mixing : (p + 1, any)
        F: with `scale F F'` the derivative of a criterion in Q.
    weight, scale : float
        Factors of the two parts.
    out : float64
        Shaped as `templates`.
    """
    factors = np.empty(2)
    factors[0], factors[1] = weight, scale
    handle = pack(s, w)
    set_vector(handle, TEMPLATES, templates)
    set_matrix(handle, RHS, rhs)
    set_matrix(handle, MIXING, mixing)
    set_vector(handle, FACTORS, factors)
    set_vector(handle, OUT, out)
    pull_back_with(handle)
    factors[0] = 0.0  # keeps the array alive until here
