"""How numerical loops are compiled, and LAPACK and BLAS for use inside them.

The routines are scipy's own, reached by address. Registering the address under a name lets compiled code be cached on
disk, since only the name is stored; numba's own `np.linalg` support would add seconds of compilation for each call.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, event, sigutils, types
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.extending import get_cython_function_address, intrinsic

from bayeslmm.likelihood.compile_time import watch

watch()


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a numerical loop: cached on disk, IEEE division, releases the interpreter lock.

    Numba knows a cached function by its own file and would run a stale copy of what it calls in other files. The stamp
    is therefore taken over the function's own file and all it imports.
    """
    dispatcher = numba.njit(cache=True, error_model="numpy", nogil=True, **options)(function)
    dispatcher._cache._cache_file._source_stamp = _stamp(inspect.getfile(function))
    return dispatcher


class _Part(JITCodeLibrary):
    """Code that waits to be linked into a C function, which is optimised as a whole: its parts need not be."""

    def add_llvm_module(self, ll_module: Any) -> None:
        self._final_module.link_in(ll_module)

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Python objects that belong to the code are of no use to it: it has no way in from Python."""


_FOR_OTHER_CODE = {
    "WithLifting",
    "InlineClosureLikes",
    "RewriteSemanticConstants",
    "DeadBranchPrune",
    "RewriteDynamicRaises",
    "MakeFunctionToJitFunction",
    "InlineInlinables",
    "FindLiterallyCalls",
    "LiteralUnroll",
    "LiteralPropagationSubPipelinePass",
    "InlineOverloads",
    "NopythonRewrites",
    "DumpParforDiagnostics",
}
"""Steps of numba that find nothing in loops over numbers: no closures, literals, array expressions or exceptions."""


class _Whole(JITCodeLibrary):
    """Code of a C function with all its parts: numba's first round of passes, for counts of references, is left out."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


class _LoopCompiler(Compiler):
    """Numba's compiler without the steps for other code than loops over numbers."""

    def define_pipelines(self) -> list[PassManager]:
        shorter = []
        for full in super().define_pipelines():
            manager = PassManager(full.pipeline_name)
            manager.passes = [item for item in full.passes if item[0].__name__ not in _FOR_OTHER_CODE]
            manager.finalize()
            shorter.append(manager)
        return shorter


class _PartCompiler(_LoopCompiler):
    """Such a compiler with a `_Part` as its result."""

    def __init__(self, typing_context, target_context, library, *rest):  # type: ignore[no-untyped-def]
        super().__init__(typing_context, target_context, _Part(target_context.codegen(), "part"), *rest)


class _WholeCompiler(_LoopCompiler):
    """Such a compiler with a `_Whole` as its result."""

    def __init__(self, typing_context, target_context, library, *rest):  # type: ignore[no-untyped-def]
        whole = _Whole(target_context.codegen(), "entry")
        whole.enable_object_caching()
        super().__init__(typing_context, target_context, whole, *rest)


_INTERNAL = {"error_model": "numpy", "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def internal(function: Callable[..., Any]) -> Any:
    """Compile a loop that only compiled code calls: not cached by itself, no reference counts."""
    return numba.njit(pipeline_class=_PartCompiler, **_INTERNAL)(function)


def step(function: Callable[..., Any]) -> Any:
    """Compile such a loop once and put it wherever it is called; LLVM does this in a fraction of numba's time."""
    return numba.njit(pipeline_class=_PartCompiler, forceinline=True, **_INTERNAL)(function)


class _Entry(CFunc):
    """Numba's C callback with its cache: loaded without all that compiling needs, and said when it is compiled."""

    _cache: Any
    _sig: Any
    _targetdescr: Any

    def compile(self) -> None:
        """Load it from the cache or compile it.

        Numba itself gets ready to compile before it looks into the cache, which takes longer than to load all we have.
        """
        with global_compiler_lock, self._cache._guard_against_spurious_io_errors():
            found = self._cache._load_overload(self._sig, self._targetdescr.target_context)
            if found is not None:
                self._library, self._wrapper_name = found.library, found.fndesc.llvm_cfunc_wrapper_name
                self._wrapper_address = self._library.get_pointer_to_function(self._wrapper_name)
                return
        # LLVM does its part when the address is asked for: that is compiling, too.
        with event.trigger_event("numba:compile", data={"dispatcher": self}):
            super().compile()

    @property
    def is_cached(self) -> bool:
        """Whether the cache has it."""
        key = self._cache._index_key(self._sig, self._targetdescr.target_context.codegen())
        return key in self._cache._cache_file._load_index()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Let no garbage be looked for: a tenth of the time to compile goes there, and little is found."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class CFunction:
    """A loop with the calling convention of C: arrays go in by address, without numba's checks and conversions.

    It is compiled on first use, or loaded from numba's cache on disk when it is there. It allocates nothing, so that no
    reference is counted: that is a good part of the time to compile.

    Parameters
    ----------
    function : callable
        What to compile.
    signature : str
        Numba's notation of result and arguments; an array is `CPointer(its type)`.
    """

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        self.function, self.signature = function, signature
        self.kinds = [kind.strip() for kind in signature[signature.index("(") + 1 : -1].split(", ")]

    def __call__(self, *arguments: Any) -> Any:
        """Call it with C-ordered arrays and numbers."""
        return self.native(*map(_as_c, arguments, self.kinds))

    @property
    def place(self) -> str:
        """Module and name, by which another process finds it."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    @cached_property
    def _entry(self) -> _Entry:
        kind, options = sigutils.normalize_signature(self.signature), {"error_model": "numpy", "_nrt": False}
        entry = _Entry(self.function, kind, locals={}, options=options, pipeline_class=_WholeCompiler)
        entry.enable_caching()
        entry._cache._cache_file._source_stamp = _stamp(inspect.getfile(self.function))
        return entry

    @property
    def is_cached(self) -> bool:
        """Whether it is compiled already, in this process or on disk."""
        return "address" in self.__dict__ or self._entry.is_cached

    @cached_property
    def address(self) -> int:
        """Where the compiled code starts. Threads that ask first, together, wait for one of them to compile it."""
        with global_compiler_lock, _no_garbage_collection():
            if self._entry.address is None:
                self._entry.compile()
            return int(self._entry.address)  # type: ignore[arg-type]

    @cached_property
    def native(self) -> Any:
        """The compiled function for Python, of numbers and addresses; it lets other threads run meanwhile."""
        result = {"void": None, "int64": ctypes.c_int64, "float64": ctypes.c_double}[self.signature.partition("(")[0]]
        parameters = [ctypes.c_double if kind == "float64" else ctypes.c_int64 for kind in self.kinds]
        return ctypes.CFUNCTYPE(result, *parameters)(self.address)


def c_function(signature: str) -> Callable[[Callable[..., Any]], CFunction]:
    """Make a loop a `CFunction`."""
    return lambda function: CFunction(function, signature)


def c_entry(function: Callable[..., Any]) -> CFunction:
    """Make a function of the address of a record or handle a `CFunction` that returns a number."""
    return CFunction(function, "float64(int64)")


def _as_c(value: Any, kind: str) -> Any:
    """Return what C receives: a number, or the address of an array."""
    if not isinstance(value, np.ndarray):
        return value
    if kind != _POINTERS.get(value.dtype) or not value.flags.c_contiguous:
        raise TypeError(f"expected a C-ordered array for {kind}, not one of {value.dtype.name}")
    return value.__array_interface__["data"][0]


_POINTERS = {np.dtype(name): f"CPointer({name})" for name in ("float64", "int64", "int32", "uint8")}


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
        elif isinstance(signature.args[part], types.CPointer):  # type: ignore[attr-defined]
            value = arguments[part]
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


def _address_of(kind):  # type: ignore[no-untyped-def]
    @intrinsic
    def address(typing_context, number):  # type: ignore[no-untyped-def]
        """Return a number as the address of an array, which compiled code reads and writes without knowing its size."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.inttoptr(arguments[0], context.get_data_type(kind).as_pointer())

        return types.CPointer(kind)(types.int64), generate  # type: ignore[attr-defined]

    return address


doubles, longs, ints, octets = (_address_of(kind) for kind in (types.float64, types.int64, types.int32, types.uint8))


@intrinsic
def address_of(typing_context, array):  # type: ignore[no-untyped-def]
    """Return the address of an array."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data

    return types.CPointer(array.dtype)(array), generate  # type: ignore[attr-defined]


@intrinsic
def beyond(typing_context, address, count):  # type: ignore[no-untyped-def]
    """Return the address of entry `count` of an array."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.gep(arguments[0], [arguments[1]])

    return address(address, types.int64), generate


@intrinsic
def potrf(typing_context, n, a):  # type: ignore[no-untyped-def]
    """Factor the lower triangle of C-ordered `a` (n, n) in place; return 0 on success."""

    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _POTRF, ("U", 0, 1, 0, "info"))  # type: ignore[call-arg]

    return types.int64(types.int64, a), generate


@intrinsic
def potri(typing_context, n, a):  # type: ignore[no-untyped-def]
    """Turn such a factor into the lower triangle of the inverse; return 0 on success."""

    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _POTRI, ("U", 0, 1, 0, "info"))  # type: ignore[call-arg]

    return types.int64(types.int64, a), generate


@intrinsic
def trsm_plain(typing_context, n, r, one, a, b):  # type: ignore[no-untyped-def]
    """Overwrite C-ordered `b` (n, r) by the solution of `a x = b`."""

    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _TRSM, ("R", "U", "N", "N", 1, 0, 2, 3, 0, 4, 1))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, b), generate


@intrinsic
def trsm_transposed(typing_context, n, r, one, a, b):  # type: ignore[no-untyped-def]
    """Overwrite C-ordered `b` (n, r) by the solution of `a' x = b`."""

    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _TRSM, ("R", "U", "T", "N", 1, 0, 2, 3, 0, 4, 1))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, b), generate


@intrinsic
def syrk(typing_context, n, m, scale, a, keep, c):  # type: ignore[no-untyped-def]
    """Set the lower triangle of `c` (n, n) to `keep * c + scale * a' a`, `a` (m, n)."""

    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _SYRK, ("U", "N", 0, 1, 2, 3, 0, 4, 5, 0))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, types.float64, c), generate


@intrinsic
def symm(typing_context, n, m, one, a, b, zero, c):  # type: ignore[no-untyped-def]
    """Set `c` (m, n) to `b a`, `a` (n, n) symmetric with its lower triangle given, `b` (m, n)."""

    def generate(*context):  # type: ignore[no-untyped-def]
        return _emit(*context, _SYMM, ("L", "U", 0, 1, 2, 3, 0, 4, 0, 5, 6, 0))  # type: ignore[call-arg]

    return types.int64(types.int64, types.int64, types.float64, a, b, types.float64, c), generate


@step
def cholesky(a):  # type: ignore[no-untyped-def]
    """Overwrite the lower triangle of C-ordered `a` (n, n) by its Cholesky factor; return 0 on success."""
    return potrf(a.shape[0], a)


@step
def solve_lower(root, b, transposed):  # type: ignore[no-untyped-def]
    """Overwrite C-ordered `b` (n, r) by the solution of `root x = b`, or of `root' x = b` when transposed."""
    if transposed:
        trsm_transposed(b.shape[0], b.shape[1], 1.0, root, b)
    else:
        trsm_plain(b.shape[0], b.shape[1], 1.0, root, b)
