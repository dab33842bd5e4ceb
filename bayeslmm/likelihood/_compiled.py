"""How numerical loops are compiled, and LAPACK and BLAS for use inside them.

The routines are scipy's own, reached by address. Registering the address under a name lets compiled code be cached on
disk, since only the name is stored; numba's own `np.linalg` support would add seconds of compilation for each call.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba.core import sigutils, types
from numba.core.ccallback import CFunc
from numba.extending import get_cython_function_address


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a numerical loop: cached on disk, IEEE division, releases the interpreter lock.

    Numba knows a cached function by its own file and would run a stale copy of what it calls in other files. The stamp
    is therefore taken over the function's own file and all it imports.
    """
    dispatcher = numba.njit(cache=True, error_model="numpy", nogil=True, **options)(function)
    dispatcher._cache._cache_file._source_stamp = _stamp(inspect.getfile(function))
    return dispatcher


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a step of such a loop: a call would copy the descriptors of every array for each level."""
    return compiled(function, forceinline=True)


def c_entry(function: Callable[..., Any], kind: Any) -> int:
    """Return the address of `function` compiled with the calling convention of C, from the cache when it is there."""
    entry = CFunc(function, sigutils.normalize_signature(kind), locals={}, options={"error_model": "numpy"})
    entry.enable_caching()
    entry._cache._cache_file._source_stamp = _stamp(inspect.getfile(function))
    entry.compile()
    return int(entry.address)


def _stamp(path: str) -> bytes:
    digest = hashlib.sha256()
    for source in sorted(_sources(path)):
        digest.update(_text(source))
    return digest.digest()


@lru_cache(maxsize=None)
def _sources(path: str) -> frozenset[str]:
    """Return the file and all files of this package that it imports, directly or not."""
    found, waiting = {path}, [path]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    while waiting:
        for module in re.findall(rb"^\s*from (bayeslmm[\w.]*) import", _text(waiting.pop()), re.MULTILINE):
            source = os.path.join(root, *module.decode().split(".")) + ".py"
            if source not in found and os.path.exists(source):
                found.add(source)
                waiting.append(source)
    return frozenset(found)


@lru_cache(maxsize=None)
def _text(path: str) -> bytes:
    with open(path, "rb") as source:
        return source.read()


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
_dsymm = _external(
    "blas", "dsymm", _LETTER, _LETTER, _INTEGER, _INTEGER, _NUMBER, _NUMBER, _INTEGER, _NUMBER, _INTEGER, _NUMBER,
    _NUMBER, _INTEGER,
)  # fmt: skip

_LEFT, _RIGHT, _UPPER, _PLAIN, _TRANSPOSED, _NONUNIT = (ord(letter) for letter in "LRUNTN")


@compiled
def _letters(first, second, third, fourth):  # type: ignore[no-untyped-def]
    out = np.empty(4, dtype=np.uint8)
    out[0], out[1], out[2], out[3] = first, second, third, fourth
    return out


@compiled
def cholesky(a):  # type: ignore[no-untyped-def]
    """Overwrite the lower triangle of C-ordered `a` (n, n) by its Cholesky factor; return 0 on success."""
    letters = _letters(_UPPER, 0, 0, 0)
    sizes = np.empty(2, dtype=np.int32)
    sizes[0], sizes[1] = a.shape[0], 0
    _dpotrf(letters.ctypes, sizes.ctypes, a.ctypes, sizes.ctypes, sizes[1:].ctypes)
    return sizes[1]


@compiled
def inverse_from_cholesky(a):  # type: ignore[no-untyped-def]
    """Overwrite the lower triangle of C-ordered `a`, a Cholesky factor, by that of the inverse; return 0 on success."""
    letters = _letters(_UPPER, 0, 0, 0)
    sizes = np.empty(2, dtype=np.int32)
    sizes[0], sizes[1] = a.shape[0], 0
    _dpotri(letters.ctypes, sizes.ctypes, a.ctypes, sizes.ctypes, sizes[1:].ctypes)
    return sizes[1]


@compiled
def solve_lower(root, b, transposed):  # type: ignore[no-untyped-def]
    """Overwrite C-ordered `b` (n, r) by the solution of `root x = b`, or of `root' x = b` when transposed."""
    letters = _letters(_RIGHT, _UPPER, _TRANSPOSED if transposed else _PLAIN, _NONUNIT)
    sizes = np.empty(2, dtype=np.int32)
    sizes[0], sizes[1] = b.shape[1], b.shape[0]
    one = np.ones(1)
    _dtrsm(
        letters.ctypes, letters[1:].ctypes, letters[2:].ctypes, letters[3:].ctypes, sizes.ctypes, sizes[1:].ctypes,
        one.ctypes, root.ctypes, sizes[1:].ctypes, b.ctypes, sizes.ctypes,
    )  # fmt: skip


@compiled
def add_gram(rows, scale, keep, out):  # type: ignore[no-untyped-def]
    """Set the lower triangle of C-ordered `out` (n, n) to `keep * out + scale * rows' rows`, `rows` (m, n) C-ordered."""
    letters = _letters(_UPPER, _PLAIN, 0, 0)
    sizes = np.empty(2, dtype=np.int32)
    sizes[0], sizes[1] = rows.shape[1], rows.shape[0]
    factors = np.empty(2)
    factors[0], factors[1] = scale, keep
    _dsyrk(
        letters.ctypes, letters[1:].ctypes, sizes.ctypes, sizes[1:].ctypes, factors.ctypes, rows.ctypes, sizes.ctypes,
        factors[1:].ctypes, out.ctypes, sizes.ctypes,
    )  # fmt: skip


@compiled
def symmetric_product(matrix, rows, out):  # type: ignore[no-untyped-def]
    """Set `out` (m, n) to `rows @ matrix`, `matrix` (n, n) symmetric with its lower triangle given, all C-ordered."""
    letters = _letters(_LEFT, _UPPER, 0, 0)
    sizes = np.empty(2, dtype=np.int32)
    sizes[0], sizes[1] = rows.shape[1], rows.shape[0]
    factors = np.zeros(2)
    factors[0] = 1.0
    _dsymm(
        letters.ctypes, letters[1:].ctypes, sizes.ctypes, sizes[1:].ctypes, factors.ctypes, matrix.ctypes, sizes.ctypes,
        rows.ctypes, sizes.ctypes, factors[1:].ctypes, out.ctypes, sizes.ctypes,
    )  # fmt: skip
