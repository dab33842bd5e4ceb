"""The C function that holds all loops of the factorisation, compiled once and cached on disk."""

from __future__ import annotations

from bayeslmm.likelihood._compiled import c_entry, longs
from bayeslmm.likelihood.handle import argument, unpack_structure, unpack_workspace, width
from bayeslmm.likelihood.numeric import (
    factorise,
    gather_gradient,
    invert,
    mix,
    solve_half,
    solve_other_half,
    spread_templates,
    subtract_gram,
)
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


@c_entry
def engine(address):  # type: ignore[no-untyped-def]
    """Do what the handle at `address` asks for."""
    handle = longs(address)
    s, w = unpack_structure(handle), unpack_workspace(handle)
    operation, templates = handle[0], argument(handle, TEMPLATES)
    answer = 0.0
    if operation == FACTORISE:
        answer = factorise(s, w, templates)
    elif operation == SOLVE_HALF:
        solve_half(s, w, argument(handle, B), width(handle, B))
    elif operation == SOLVE_OTHER_HALF:
        solve_other_half(s, w, argument(handle, B), width(handle, B))
    elif operation == INVERT:
        invert(s, w)
    elif operation == SPREAD:
        spread_templates(s, w, templates, argument(handle, RHS), width(handle, RHS))
    elif operation == GRAM:
        subtract_gram(s, w, argument(handle, B), argument(handle, ROOT), width(handle, B))
    elif operation == MIX:
        mix(s, w, argument(handle, RHS), argument(handle, MIXING), width(handle, RHS), width(handle, MIXING))
    elif operation == GATHER:
        factors = argument(handle, FACTORS)
        gather_gradient(s, w, templates, width(handle, MIXING), factors[0], factors[1], argument(handle, OUT))
    return answer
