"""The C function that holds all loops of the factorisation, compiled once and cached on disk."""

from __future__ import annotations

from numba import carray
from numba.core import types

from bayeslmm.likelihood._compiled import c_entry
from bayeslmm.likelihood.handle import (
    FACTORISE,
    INVERT,
    REDUCE,
    SIZE,
    SOLVE_HALF,
    SOLVE_OTHER_HALF,
    matrix,
    unpack,
    vector,
)
from bayeslmm.likelihood.numeric import factorise, invert, pull_back, reduce_products, solve_half, solve_other_half


def engine(address):  # type: ignore[no-untyped-def]
    """Do what the handle at `address` asks for."""
    handle = carray(address, (SIZE,))
    s, w = unpack(handle)
    operation = handle[0]
    if operation == FACTORISE:
        return factorise(s, w, vector(handle, 0))
    if operation == SOLVE_HALF:
        solve_half(s, w, matrix(handle, 0))
    elif operation == SOLVE_OTHER_HALF:
        solve_other_half(s, w, matrix(handle, 0))
    elif operation == INVERT:
        invert(s, w)
    elif operation == REDUCE:
        reduce_products(s, w, vector(handle, 0), matrix(handle, 1), matrix(handle, 2), matrix(handle, 3))
    else:
        factors = vector(handle, 3)
        pull_back(
            s, w, vector(handle, 0), matrix(handle, 1), matrix(handle, 2), factors[0], factors[1], vector(handle, 4)
        )
    return 0.0


def compile_engine() -> int:
    """Return the address of the compiled engine."""
    return c_entry(engine, types.float64(types.CPointer(types.int64)))
