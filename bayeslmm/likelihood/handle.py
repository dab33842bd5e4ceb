"""How arrays travel to compiled code that is reached by address: addresses and sizes in one int64 array, the *handle*.

Entry 0 says what to do; then come the arrays of a `Structure` and a `Workspace`, of the layout and of the search
coordinates, then the arguments, each as its address followed by its sizes. A handle is only valid while the arrays it
points to live.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import doubles, ints, longs, octets, step
from bayeslmm.likelihood.covariance import Space, TermArrays
from bayeslmm.likelihood.numeric import Addresses, Workspace
from bayeslmm.likelihood.operations import N_ARGUMENTS
from bayeslmm.likelihood.record import Fields
from bayeslmm.likelihood.symbolic import Structure

ENGINE, HALF, FULL = 35, 44, 47
TERMS = 65
SPACE = TERMS + 16
ARGUMENTS = SPACE + 8
SIZE = ARGUMENTS + 3 * N_ARGUMENTS

STRUCTURE = Fields(
    "Structure",
    "factor_k:l1 template_start:l1 node_factor:i1 offset:l1 row_start:l1 rows:i1 value_start:l1 tail_first:l1 "
    "padded:u1 list_start:l1 list_column:i1 list_at:l1 block_row:i1 block_column:i1 block_start:l1 block_target:l1 "
    "block_values:f1 engine:l1",
    1,
)
"""The arrays of a `Structure` in a handle; the record's address is that of the handle."""
WORKSPACE = Fields(
    "Workspace",
    "head:f1 head_inverse:f1 tail:f2 half:f2 full:f1 effects:f1 rest:f1 place:l1 panel:f2 panel_product:f2 small:f3",
    STRUCTURE.end,
)
"""The arrays of a `Workspace`, likewise."""


@intrinsic
def call(typing_context, address, handle):  # type: ignore[no-untyped-def]
    """Call the C function `double f(int64_t *handle)` at `address`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = arguments[1]
        if isinstance(signature.args[1], types.Array):
            data = cgutils.create_struct_proxy(signature.args[1])(context, builder, value=data).data
        kind = ir.FunctionType(ir.DoubleType(), [data.type])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [data])

    return types.float64(types.int64, handle), generate


def entries(arrays: Iterable[NDArray]) -> list[int]:
    """Return address and sizes of arrays, one after the other."""
    out: list[int] = []
    for array in arrays:
        out.append(array.__array_interface__["data"][0])
        out.extend(array.shape)
    return out


def new_handle(structure: Structure, workspace: Workspace, terms: TermArrays, space: Space) -> NDArray[np.int64]:
    """Return a handle of everything but the arguments."""
    handle = np.zeros(SIZE, dtype=np.int64)
    handle[1:ARGUMENTS] = entries((*structure, *workspace, *terms, *space))
    return handle


def engine_handle(structure: Structure, workspace: Workspace) -> NDArray[np.int64]:
    """Return a handle of what the factorisation needs."""
    handle = np.zeros(SIZE, dtype=np.int64)
    handle[STRUCTURE.first : STRUCTURE.end] = STRUCTURE.words(structure)
    handle[WORKSPACE.first : WORKSPACE.end] = WORKSPACE.words(workspace)
    return handle


def coordinates_handle(terms: TermArrays, space: Space) -> NDArray[np.int64]:
    """Return a handle that knows the layout and the search coordinates only."""
    handle = np.zeros(SIZE, dtype=np.int64)
    handle[TERMS:ARGUMENTS] = entries((*terms, *space))
    return handle


def set_argument(handle: NDArray[np.int64], argument: int, array: NDArray[np.float64]) -> None:
    """Write address and sizes of an argument; the caller keeps the array alive."""
    at = ARGUMENTS + 3 * argument
    handle[at : at + 1 + array.ndim] = (array.__array_interface__["data"][0], *array.shape)


def _word(builder: Any, handle: Any, which: Any, entry: int) -> Any:
    """Return where the address (0) or a size (1, 2) of an argument stands in a handle."""
    whole = ir.IntType(64)
    return builder.gep(handle, [builder.add(builder.mul(which, whole(3)), whole(ARGUMENTS + entry))])


def _setter(n_sizes):  # type: ignore[no-untyped-def]
    @intrinsic
    def write(typing_context, handle, which, array):  # type: ignore[no-untyped-def]
        """Write address and sizes of an argument."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            view = cgutils.create_struct_proxy(signature.args[2])(context, builder, value=arguments[2])
            sizes = [view.nitems] if n_sizes == 1 else cgutils.unpack_tuple(builder, view.shape)
            for entry, value in enumerate([builder.ptrtoint(view.data, ir.IntType(64)), *sizes]):
                builder.store(value, _word(builder, arguments[0], arguments[1], entry))
            return context.get_dummy_value()

        return types.void(_HANDLE, types.int64, array), generate

    return write


def _getter(entry):  # type: ignore[no-untyped-def]
    @intrinsic
    def read(typing_context, handle, which):  # type: ignore[no-untyped-def]
        """Return the address of an argument, or one of its sizes: in a matrix rows, then columns."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            value = builder.load(_word(builder, arguments[0], arguments[1], entry))
            return builder.inttoptr(value, ir.DoubleType().as_pointer()) if entry == 0 else value

        return (_DOUBLES if entry == 0 else types.int64)(_HANDLE, types.int64), generate

    return read


_HANDLE, _DOUBLES = types.CPointer(types.int64), types.CPointer(types.float64)  # type: ignore[attr-defined]
# not functions: numba would compile one for every argument that is asked for, which is a constant
set_vector, set_matrix = _setter(1), _setter(2)
argument, length, width = _getter(0), _getter(1), _getter(2)


@intrinsic
def run(typing_context, handle, operation):  # type: ignore[no-untyped-def]
    """Let the factorisation do one operation on a handle."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        handle, operation = arguments
        builder.store(operation, handle)
        place = builder.load(builder.gep(handle, [ir.IntType(64)(ENGINE)]))
        engine = builder.load(builder.inttoptr(place, handle.type))
        kind = ir.FunctionType(ir.DoubleType(), [handle.type])
        return builder.call(builder.inttoptr(engine, kind.as_pointer()), [handle])

    return types.float64(_HANDLE, types.int64), generate


@step
def unpack_structure(handle):  # type: ignore[no-untyped-def]
    """Return the structure of a handle."""
    offset = longs(handle[7])
    n_nodes, n_head, n_factors = handle[6], handle[10] - 1, handle[2]
    n_templates = 0
    for f in range(n_factors):
        n_templates += longs(handle[1])[f] * longs(handle[1])[f]
    return Addresses(
        longs(handle[1]),
        longs(handle[3]),
        ints(handle[5]),
        longs(handle[7]),
        longs(handle[9]),
        ints(handle[11]),
        longs(handle[13]),
        longs(handle[15]),
        octets(handle[17]),
        longs(handle[19]),
        ints(handle[21]),
        longs(handle[23]),
        ints(handle[25]),
        ints(handle[27]),
        longs(handle[29]),
        longs(handle[31]),
        doubles(handle[33]),
        n_nodes,
        n_head,
        offset[n_head],
        offset[n_nodes] - offset[n_head],
        handle[26],
        handle[56],
        n_templates,
        offset[n_nodes],
    )


@step
def unpack_workspace(handle):  # type: ignore[no-untyped-def]
    """Return the workspace of a handle."""
    return Workspace(
        doubles(handle[37]),
        doubles(handle[39]),
        doubles(handle[41]),
        doubles(handle[44]),
        doubles(handle[47]),
        doubles(handle[49]),
        doubles(handle[51]),
        longs(handle[53]),
        doubles(handle[55]),
        doubles(handle[58]),
        doubles(handle[61]),
    )


@step
def unpack_terms(handle):  # type: ignore[no-untyped-def]
    """Return the layout of a handle."""
    at = TERMS
    return TermArrays(
        longs(handle[at]),
        longs(handle[at + 2]),
        longs(handle[at + 4]),
        longs(handle[at + 6]),
        longs(handle[at + 8]),
        longs(handle[at + 10]),
        longs(handle[at + 12]),
        longs(handle[at + 14]),
    )


@step
def unpack_space(handle):  # type: ignore[no-untyped-def]
    """Return the search coordinates of a handle."""
    at = SPACE
    return Space(longs(handle[at]), longs(handle[at + 2]), doubles(handle[at + 4]), doubles(handle[at + 6]))
