"""A = Lambda' Z'Z Lambda + I = L L' from Python: solves, selected inverse and gradient with a factor that is there.

Every function takes the symbolic `Structure` (shared, read only) and a `Workspace` (one per thread), and lets the
engine do the work; `bayeslmm.likelihood.factor` is the same for compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood.engine import engine
from bayeslmm.likelihood.handle import engine_handle, set_argument
from bayeslmm.likelihood.numeric import Workspace
from bayeslmm.likelihood.operations import (
    FACTORS,
    GATHER,
    INVERT,
    MIX,
    MIXING,
    OUT,
    RHS,
    SOLVE_HALF,
    SOLVE_OTHER_HALF,
    TEMPLATES,
    B,
)
from bayeslmm.likelihood.symbolic import Structure

Floats = NDArray[np.float64]


def _run(s: Structure, w: Workspace, arguments: Mapping[int, Floats], *operations: int) -> None:
    """Let the engine do operations, one after the other, with the same arguments."""
    handle = engine_handle(s, w)
    for argument, array in arguments.items():
        if array.dtype != np.float64 or not array.flags.c_contiguous:
            raise TypeError("the factorisation takes C-ordered arrays of float64")
        set_argument(handle, argument, array)
    for operation in operations:
        handle[0] = operation
        engine.native(handle.ctypes.data)


def solve_half(s: Structure, w: Workspace, b: Floats) -> None:
    """Overwrite `b` (q, r), C-ordered, by the solution of L x = b; the factor is in the workspace."""
    _run(s, w, {B: b}, SOLVE_HALF)


def solve_other_half(s: Structure, w: Workspace, b: Floats) -> None:
    """Overwrite `b` (q, r), C-ordered, by the solution of L' x = b; the factor is in the workspace."""
    _run(s, w, {B: b}, SOLVE_OTHER_HALF)


def invert(s: Structure, w: Workspace) -> None:
    """Fill the entries of A^-1 on the pattern of L; the factor is overwritten.

    Diagonal blocks are complete; the tail has its lower triangle.

    References
    ----------
    Takahashi, Fagan & Chin (1973), Formation of a sparse bus impedance matrix; Erisman & Tinney (1975), *CACM* 18(3).
    """
    _run(s, w, {}, INVERT)


def pull_back(
    s: Structure, w: Workspace, templates: Floats, rhs: Floats, mixing: Floats, weight: float, scale: float, out: Floats
) -> None:
    """Fill `out` with the gradient of `weight log|A| + scale tr(F' Q F)` in the templates.

    The products were reduced; the factor is overwritten by the selected inverse. With S = A^-1, B = S Lambda' W F
    and R = W F - Z'Z Lambda B, the two parts are 2 Z'Z Lambda S and -2 R B', each only where Lambda has entries.

    Parameters
    ----------
    s : Structure
    w : Workspace
    templates : float64
        Lambda of each factor, (K, K) in C order, one after the other.
    rhs : (q, p + 1)
        W = Z'[X y].
    mixing : (p + 1, any)
        F: with `scale F F'` the derivative of a criterion in Q.
    weight, scale : float
        Factors of the two parts.
    out : float64
        Shaped as `templates`.
    """
    q, rank = len(w.place), mixing.shape[1]
    full = w.full[: q * rank].reshape(q, rank)
    arguments = {TEMPLATES: templates, RHS: rhs, MIXING: mixing, OUT: out, FACTORS: np.array([weight, scale]), B: full}
    _run(s, w, arguments, MIX, SOLVE_OTHER_HALF, INVERT, GATHER)
