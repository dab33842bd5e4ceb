"""How arrays travel to compiled code that is reached by address: addresses and sizes in one int64 array, the *handle*.

Entry 0 says what to do; then come the arrays of a `Structure` and a `Workspace`, of the layout and of the search
coordinates, then the arguments, each as its address followed by its sizes. A handle is only valid while the arrays it
points to live.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import compiled, inlined
from bayeslmm.likelihood.covariance import Space, TermArrays
from bayeslmm.likelihood.numeric import Workspace
from bayeslmm.likelihood.operations import N_ARGUMENTS
from bayeslmm.likelihood.symbolic import Structure

HALF, FULL = 44, 47
TERMS = 65
SPACE = TERMS + 16
ARGUMENTS = SPACE + 8
SIZE = ARGUMENTS + 3 * N_ARGUMENTS


@intrinsic
def call(typing_context, address, handle):  # type: ignore[no-untyped-def]
    """Call the C function `double f(int64_t *handle)` at `address`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = cgutils.create_struct_proxy(signature.args[1])(context, builder, value=arguments[1]).data
        kind = ir.FunctionType(ir.DoubleType(), [data.type])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [data])

    return types.float64(types.int64, handle), generate


def _array_at(context, builder, kind, address, sizes):  # type: ignore[no-untyped-def]
    """Return an array of the type `kind` that lies at an address; nobody counts references to it."""
    item = context.get_data_type(kind.dtype)
    width = context.get_constant(types.intp, context.get_abi_sizeof(item))
    strides = [width]
    for size in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    array = context.make_array(kind)(context, builder)
    data = builder.inttoptr(address, item.as_pointer())
    populate_array(array, data=data, shape=sizes, strides=strides, itemsize=width, meminfo=None)
    return array._getvalue()


def _view(kind):  # type: ignore[no-untyped-def]
    """Return a function for compiled code that sees an array at an address."""

    @intrinsic
    def view(typing_context, address, shape):  # type: ignore[no-untyped-def]
        array = types.Array(kind, len(shape), "C")

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _array_at(context, builder, array, arguments[0], cgutils.unpack_tuple(builder, arguments[1]))

        return array(types.int64, shape), generate

    return view


def _argument(handle, argument, n_dim):  # type: ignore[no-untyped-def]
    array = types.Array(types.float64, n_dim, "C")

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data
        place = ARGUMENTS + 3 * signature.args[1].literal_value
        values = [builder.load(cgutils.gep(builder, data, place + part)) for part in range(n_dim + 1)]
        return _array_at(context, builder, array, values[0], values[1:])

    return array(handle, types.literal(argument.literal_value)), generate  # type: ignore[attr-defined]


doubles, longs, ints, octets = (_view(kind) for kind in (types.float64, types.int64, types.int32, types.uint8))


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


def set_argument(handle: NDArray[np.int64], argument: int, array: NDArray[np.float64]) -> None:
    """Write address and sizes of an argument; the caller keeps the array alive."""
    at = ARGUMENTS + 3 * argument
    handle[at] = array.__array_interface__["data"][0]
    handle[at + 1 : at + 1 + array.ndim] = array.shape


@inlined
def set_vector(handle, argument, array):  # type: ignore[no-untyped-def]
    """Write address and size of an argument."""
    at = ARGUMENTS + 3 * argument
    handle[at] = array.ctypes.data
    handle[at + 1] = array.size


@inlined
def set_matrix(handle, argument, array):  # type: ignore[no-untyped-def]
    """Write address and shape of an argument."""
    at = ARGUMENTS + 3 * argument
    handle[at] = array.ctypes.data
    handle[at + 1] = array.shape[0]
    handle[at + 2] = array.shape[1]


@intrinsic(prefer_literal=True)
def vector(typing_context, handle, argument):  # type: ignore[no-untyped-def]
    """Return an argument as an array."""
    return _argument(handle, argument, 1)


@intrinsic(prefer_literal=True)
def matrix(typing_context, handle, argument):  # type: ignore[no-untyped-def]
    """Return an argument as a matrix."""
    return _argument(handle, argument, 2)


@compiled
def pack(s, w):  # type: ignore[no-untyped-def]
    """Return a handle of structure and workspace, from compiled code."""
    handle = np.empty(SIZE, dtype=np.int64)
    handle[1], handle[2] = s.factor_k.ctypes.data, s.factor_k.size
    handle[3], handle[4] = s.template_start.ctypes.data, s.template_start.size
    handle[5], handle[6] = s.node_factor.ctypes.data, s.node_factor.size
    handle[7], handle[8] = s.offset.ctypes.data, s.offset.size
    handle[9], handle[10] = s.row_start.ctypes.data, s.row_start.size
    handle[11], handle[12] = s.rows.ctypes.data, s.rows.size
    handle[13], handle[14] = s.value_start.ctypes.data, s.value_start.size
    handle[15], handle[16] = s.tail_first.ctypes.data, s.tail_first.size
    handle[17], handle[18] = s.padded.ctypes.data, s.padded.size
    handle[19], handle[20] = s.list_start.ctypes.data, s.list_start.size
    handle[21], handle[22] = s.list_column.ctypes.data, s.list_column.size
    handle[23], handle[24] = s.list_at.ctypes.data, s.list_at.size
    handle[25], handle[26] = s.block_row.ctypes.data, s.block_row.size
    handle[27], handle[28] = s.block_column.ctypes.data, s.block_column.size
    handle[29], handle[30] = s.block_start.ctypes.data, s.block_start.size
    handle[31], handle[32] = s.block_target.ctypes.data, s.block_target.size
    handle[33], handle[34] = s.block_values.ctypes.data, s.block_values.size
    handle[35], handle[36] = s.engine.ctypes.data, s.engine.size
    handle[37], handle[38] = w.head.ctypes.data, w.head.size
    handle[39], handle[40] = w.head_inverse.ctypes.data, w.head_inverse.size
    handle[41], handle[42], handle[43] = w.tail.ctypes.data, w.tail.shape[0], w.tail.shape[1]
    handle[44], handle[45], handle[46] = w.half.ctypes.data, w.half.shape[0], w.half.shape[1]
    handle[47], handle[48] = w.full.ctypes.data, w.full.size
    handle[49], handle[50] = w.effects.ctypes.data, w.effects.size
    handle[51], handle[52] = w.rest.ctypes.data, w.rest.size
    handle[53], handle[54] = w.place.ctypes.data, w.place.size
    handle[55], handle[56], handle[57] = w.panel.ctypes.data, w.panel.shape[0], w.panel.shape[1]
    handle[58], handle[59], handle[60] = w.panel_product.ctypes.data, w.panel_product.shape[0], w.panel_product.shape[1]
    handle[61], handle[62], handle[63], handle[64] = w.small.ctypes.data, 3, w.small.shape[1], w.small.shape[2]
    return handle


@inlined
def unpack_structure(handle):  # type: ignore[no-untyped-def]
    """Return the structure of a handle."""
    return Structure(
        longs(handle[1], (handle[2],)),
        longs(handle[3], (handle[4],)),
        ints(handle[5], (handle[6],)),
        longs(handle[7], (handle[8],)),
        longs(handle[9], (handle[10],)),
        ints(handle[11], (handle[12],)),
        longs(handle[13], (handle[14],)),
        longs(handle[15], (handle[16],)),
        octets(handle[17], (handle[18],)),
        longs(handle[19], (handle[20],)),
        ints(handle[21], (handle[22],)),
        longs(handle[23], (handle[24],)),
        ints(handle[25], (handle[26],)),
        ints(handle[27], (handle[28],)),
        longs(handle[29], (handle[30],)),
        longs(handle[31], (handle[32],)),
        doubles(handle[33], (handle[34],)),
        longs(handle[35], (handle[36],)),
    )


@inlined
def unpack_workspace(handle):  # type: ignore[no-untyped-def]
    """Return the workspace of a handle."""
    return Workspace(
        doubles(handle[37], (handle[38],)),
        doubles(handle[39], (handle[40],)),
        doubles(handle[41], (handle[42], handle[43])),
        doubles(handle[44], (handle[45], handle[46])),
        doubles(handle[47], (handle[48],)),
        doubles(handle[49], (handle[50],)),
        doubles(handle[51], (handle[52],)),
        longs(handle[53], (handle[54],)),
        doubles(handle[55], (handle[56], handle[57])),
        doubles(handle[58], (handle[59], handle[60])),
        doubles(handle[61], (handle[62], handle[63], handle[64])),
    )


@inlined
def unpack_terms(handle):  # type: ignore[no-untyped-def]
    """Return the layout of a handle."""
    at = TERMS
    return TermArrays(
        longs(handle[at], (handle[at + 1],)),
        longs(handle[at + 2], (handle[at + 3],)),
        longs(handle[at + 4], (handle[at + 5],)),
        longs(handle[at + 6], (handle[at + 7],)),
        longs(handle[at + 8], (handle[at + 9],)),
        longs(handle[at + 10], (handle[at + 11],)),
        longs(handle[at + 12], (handle[at + 13],)),
        longs(handle[at + 14], (handle[at + 15],)),
    )


@inlined
def unpack_space(handle):  # type: ignore[no-untyped-def]
    """Return the search coordinates of a handle."""
    at = SPACE
    return Space(
        longs(handle[at], (handle[at + 1],)),
        longs(handle[at + 2], (handle[at + 3],)),
        doubles(handle[at + 4], (handle[at + 5],)),
        doubles(handle[at + 6], (handle[at + 7],)),
    )


@inlined
def engine_of(handle):  # type: ignore[no-untyped-def]
    """Return the address of the compiled factorisation."""
    return longs(handle[35], (1,))[0]
