"""How numerical loops are compiled, and LAPACK and BLAS for use inside them.

The routines are scipy's own, reached by address. Registering the address under a name lets compiled code be cached on
disk, since only the name is stored; numba's own `np.linalg` support would add seconds of compilation for each call.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
from numba.core import types
from numba.extending import get_cython_function_address

compiled: Any = numba.njit(cache=True, error_model="numpy", nogil=True)
"""Decorator of every numerical loop: cached on disk, IEEE division, releases the interpreter lock."""

_NUMBER = types.CPointer(types.float64)
_INTEGER = types.CPointer(types.int32)
_LETTER = types.CPointer(types.uint8)


def _external(library: str, name: str, *arguments: Any) -> types.ExternalFunction:
    symbol = f"bayeslmm_{name}"
    llvmlite.binding.add_symbol(symbol, get_cython_function_address(f"scipy.linalg.cython_{library}", name))
    return types.ExternalFunction(symbol, types.void(*arguments))


_dpotrf = _external("lapack", "dpotrf", _LETTER, _INTEGER, _NUMBER, _INTEGER, _INTEGER)
_dpotri = _external("lapack", "dpotri", _LETTER, _INTEGER, _NUMBER, _INTEGER, _INTEGER)
_dtrsm = _external(
    "blas", "dtrsm", _LETTER, _LETTER, _LETTER, _LETTER, _INTEGER, _INTEGER, _NUMBER, _NUMBER, _INTEGER, _NUMBER, _INTEGER
)
_dsyrk = _external(
    "blas", "dsyrk", _LETTER, _LETTER, _INTEGER, _INTEGER, _NUMBER, _NUMBER, _INTEGER, _NUMBER, _NUMBER, _INTEGER
)
