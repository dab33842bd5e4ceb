"""The C function that goes between search coordinates and theta, compiled once and cached on disk.

Apart from that of the model, so that a generalised fit, which has another search, need not compile the Gaussian one.
"""

from __future__ import annotations

from bayeslmm.likelihood._compiled import c_entry, longs
from bayeslmm.likelihood.coordinates import slope_of, theta_of
from bayeslmm.likelihood.handle import TERMS, argument, unpack_space, unpack_terms
from bayeslmm.likelihood.operations import POINT, SLOPE, THETA, THETA_SLOPE, TO_THETA


@c_entry
def coordinates(address):  # type: ignore[no-untyped-def]
    """Do what the handle at `address` asks for."""
    handle = longs(address)
    terms, space, n_terms, x = unpack_terms(handle), unpack_space(handle), handle[TERMS + 1], argument(handle, POINT)
    if handle[0] == TO_THETA:
        theta_of(terms, n_terms, space, x, argument(handle, THETA))
    else:
        slope_of(terms, n_terms, space, x, argument(handle, THETA_SLOPE), argument(handle, SLOPE))
    return 0.0
