"""The C function that knows the model, compiled once and cached on disk; Python calls it through its address."""

from __future__ import annotations

from bayeslmm.likelihood._compiled import c_entry, longs
from bayeslmm.likelihood.handle import argument, length
from bayeslmm.likelihood.operations import (
    EVALUATE,
    MEASURE,
    POINT,
    PROFILE,
    SEARCH,
    SLOPE,
)
from bayeslmm.likelihood.profiled import evaluate, measure, profile
from bayeslmm.likelihood.search import descend


@c_entry
def model(address):  # type: ignore[no-untyped-def]
    """Do what the handle at `address` asks for."""
    handle = longs(address)
    operation = handle[0]
    answer = 0.0
    if operation == PROFILE:
        answer = profile(handle)
    elif operation == EVALUATE:
        answer = evaluate(handle, argument(handle, POINT), argument(handle, SLOPE), length(handle, SLOPE))
    elif operation == MEASURE:
        answer = measure(handle, argument(handle, POINT), argument(handle, SLOPE))
    elif operation == SEARCH:
        answer = descend(handle)
    return answer
