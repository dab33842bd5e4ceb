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
from functools import cache
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import cgutils, sigutils, types
from numba.core.ccallback import CFunc
from numba.extending import get_cython_function_address, intrinsic


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a numerical loop: cached on disk, IEEE division, releases the interpreter lock.

    Numba knows a cached function by its own file and would run a stale copy of what it calls in other files. The stamp
    is therefore taken over the function's own file and all it imports.
    """
    dispatcher = numba.njit(cache=True, error_model="numpy", nogil=True, **options)(function)
    dispatcher._cache._cache_file._source_stamp = _stamp(inspect.getfile(function))
    return dispatcher


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a step of such a loop into its caller: alone it would cost a whole compilation, and a call each time."""
    return compiled(function, inline="always")


def internal(function: Callable[..., Any]) -> Any:
    """Compile a loop that only a C entry calls: not cached by itself, no way in from Python, no reference counts."""
    options = {"error_model": "numpy", "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**options)(function)


def c_entry(function: Callable[..., Any], kind: Any) -> int:
    """Return the address of `function` compiled with the calling convention of C, from the cache when it is there.

    It allocates nothing, so that no reference is counted: that is a good part of the time to compile.
    """
    options = {"error_model": "numpy", "_nrt": False}
    entry = CFunc(function, sigutils.normalize_signature(kind), locals={}, options=options)
    entry.enable_caching()
    entry._cache._cache_file._source_stamp = _stamp(inspect.getfile(function))  # type: ignore[attr-defined]
    entry.compile()
    return int(entry.address)  # type: ignore[arg-type]


def _stamp(path: str) -> bytes:
    digest = hashlib.sha256()
    for source in sorted(_sources(path)):
        digest.update(_text(source))
    return digest.digest()


@cache
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


@cache
def _text(path: str) -> bytes:
    with open(path, "rb") as source:
        return source.read()


def _routine(library: str, name: str) -> str:
    """Register a routine of scipy's BLAS or LAPACK, return the name under which compiled code finds it."""
    symbol = f"bayeslmm_{name}"
    llvmlite.binding.add_symbol(symbol, get_cython_function_address(f"scipy.linalg.cython_{library}", name))
    return symbol


def _emit(context, builder, signature, arguments, symbol, pattern):  # type: ignore[no-untyped-def]
    """Write a call in Fortran's convention: every argument by address, numbers put on the stack.

    `pattern` has one entry per argument of the routine: a letter for a constant character, the position of one of our
    arguments, or "info" for the returned status, which becomes our result (0 without one).
    """
    stack, kinds, values = cgutils.alloca_once, [], []
    info = stack(builder, ir.IntType(32))
    builder.store(ir.Constant(ir.IntType(32), 0), info)
    for part in pattern:
        if part == "info":
            value = info
        elif isinstance(part, str):
            value = stack(builder, ir.IntType(8))
            builder.store(ir.Constant(ir.IntType(8), ord(part)), value)
        elif isinstance(signature.args[part], types.Array):
            value = cgutils.create_struct_proxy(signature.args[part])(context, builder, value=arguments[part]).data
        elif signature.args[part] == types.float64:
            value = stack(builder, ir.DoubleType())
            builder.store(arguments[part], value)
        else:
            value = stack(builder, ir.IntType(32))
            builder.store(builder.trunc(arguments[part], ir.IntType(32)), value)
        values.append(value)
        kinds.append(value.type)
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kinds), symbol)
    builder.call(function, values)
    return builder.sext(builder.load(info), ir.IntType(64))


_POTRF, _POTRI = _routine("lapack", "dpotrf"), _routine("lapack", "dpotri")
_TRSM, _SYRK, _SYMM = _routine("blas", "dtrsm"), _routine("blas", "dsyrk"), _routine("blas", "dsymm")


@intrinsic
def _potrf(typing_context, n, a):  # type: ignore[no-untyped-def]
    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _POTRF, ("U", 0, 1, 0, "info"))  # type: ignore[call-arg]

    return types.int64(types.int64, a), generate


@intrinsic
def _potri(typing_context, n, a):  # type: ignore[no-untyped-def]
    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _POTRI, ("U", 0, 1, 0, "info"))  # type: ignore[call-arg]

    return types.int64(types.int64, a), generate


@intrinsic
def _trsm_plain(typing_context, n, r, one, a, b):  # type: ignore[no-untyped-def]
    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _TRSM, ("R", "U", "N", "N", 1, 0, 2, 3, 0, 4, 1))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, b), generate


@intrinsic
def _trsm_transposed(typing_context, n, r, one, a, b):  # type: ignore[no-untyped-def]
    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _TRSM, ("R", "U", "T", "N", 1, 0, 2, 3, 0, 4, 1))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, b), generate


@intrinsic
def _syrk(typing_context, n, m, scale, a, keep, c):  # type: ignore[no-untyped-def]
    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _SYRK, ("U", "N", 0, 1, 2, 3, 0, 4, 5, 0))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, types.float64, c), generate


@intrinsic
def _symm(typing_context, n, m, one, a, b, zero, c):  # type: ignore[no-untyped-def]
    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _SYMM, ("L", "U", 0, 1, 2, 3, 0, 4, 0, 5, 6, 0))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, b, types.float64, c), generate


@inlined
def cholesky(a):  # type: ignore[no-untyped-def]
    """Overwrite the lower triangle of C-ordered `a` (n, n) by its Cholesky factor; return 0 on success."""
    return _potrf(a.shape[0], a)


@inlined
def inverse_from_cholesky(a):  # type: ignore[no-untyped-def]
    """Overwrite the lower triangle of C-ordered `a`, a Cholesky factor, by that of the inverse; return 0 on success."""
    return _potri(a.shape[0], a)


@inlined
def solve_lower(root, b, transposed):  # type: ignore[no-untyped-def]
    """Overwrite C-ordered `b` (n, r) by the solution of `root x = b`, or of `root' x = b` when transposed."""
    if transposed:
        _trsm_transposed(b.shape[0], b.shape[1], 1.0, root, b)
    else:
        _trsm_plain(b.shape[0], b.shape[1], 1.0, root, b)


@inlined
def add_gram(rows, scale, keep, out):  # type: ignore[no-untyped-def]
    """Set the lower triangle of `out` (n, n) to `keep * out + scale * rows' rows`, `rows` (m, n); both C-ordered."""
    _syrk(rows.shape[1], rows.shape[0], scale, rows, keep, out)


@inlined
def symmetric_product(matrix, rows, out):  # type: ignore[no-untyped-def]
    """Set `out` (m, n) to `rows @ matrix`, `matrix` (n, n) symmetric with its lower triangle given, all C-ordered."""
    _symm(rows.shape[1], rows.shape[0], 1.0, matrix, rows, 0.0, out)
