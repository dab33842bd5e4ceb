"""A = Lambda' Z'Z Lambda + I = L L': factor, solves, selected inverse and gradient, callable from compiled code.

Every function takes the symbolic `Structure` (shared, read only) and a `Workspace` (one per thread). None of them
raises: a matrix that cannot be factored gives a log determinant that is not a number.

The loops themselves (`bayeslmm.likelihood.numeric`) are a lot of code. They are compiled once, as one C function, and
reached through its address in the structure: a caller (criterion, evidence, optimiser, sampler) links only the few
lines here, so that it compiles in a second instead of ten.
"""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import compiled
from bayeslmm.likelihood.handle import (
    FACTORISE,
    INVERT,
    PULL_BACK,
    REDUCE,
    SOLVE_HALF,
    SOLVE_OTHER_HALF,
    add_matrix,
    add_vector,
    call_engine,
    pack,
)
from bayeslmm.likelihood.numeric import Workspace, new_workspace

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
    handle = pack(FACTORISE, s, w)
    add_vector(handle, 0, templates)
    return call_engine(s.engine[0], handle)


@compiled
def solve_half(s, w, b):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r), C-ordered, by the solution of L x = b; `factorise` has been called."""
    handle = pack(SOLVE_HALF, s, w)
    add_matrix(handle, 0, b)
    call_engine(s.engine[0], handle)


@compiled
def solve_other_half(s, w, b):  # type: ignore[no-untyped-def]
    """Overwrite `b` (q, r), C-ordered, by the solution of L' x = b; `factorise` has been called."""
    handle = pack(SOLVE_OTHER_HALF, s, w)
    add_matrix(handle, 0, b)
    call_engine(s.engine[0], handle)


@compiled
def invert(s, w):  # type: ignore[no-untyped-def]
    """Fill the entries of A^-1 on the pattern of L; the factor is overwritten.

    Diagonal blocks are complete; the tail has its lower triangle.

    References
    ----------
    Takahashi, Fagan & Chin (1973), Formation of a sparse bus impedance matrix; Erisman & Tinney (1975), *CACM* 18(3).
    """
    call_engine(s.engine[0], pack(INVERT, s, w))


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
    handle = pack(REDUCE, s, w)
    add_vector(handle, 0, templates)
    add_matrix(handle, 1, rhs)
    add_matrix(handle, 2, gram)
    add_matrix(handle, 3, out)
    call_engine(s.engine[0], handle)


@compiled
def pull_back(s, w, templates, rhs, mixing, weight, scale, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient of `weight log|A| + scale tr(F' Q F)` in the templates.

    `reduce_products` has been called; the factor is overwritten by the selected inverse. With S = A^-1, B = S Lambda' W F
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
    handle = pack(PULL_BACK, s, w)
    add_vector(handle, 0, templates)
    add_matrix(handle, 1, rhs)
    add_matrix(handle, 2, mixing)
    add_vector(handle, 3, factors)
    add_vector(handle, 4, out)
    call_engine(s.engine[0], handle)
    return factors[0]
