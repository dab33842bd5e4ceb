"""How arrays travel to the compiled factorisation: addresses and sizes in one int64 array, the *handle*.

Entry 0 says what to do; then come address and sizes of every array of a `Structure` and a `Workspace`, then those of the
arguments. A handle lives only for the call it is made for.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import cgutils, types
from numba.extending import intrinsic

from bayeslmm.likelihood._compiled import inlined
from bayeslmm.likelihood.numeric import Workspace
from bayeslmm.likelihood.symbolic import Structure

FACTORISE, SOLVE_HALF, SOLVE_OTHER_HALF, INVERT, REDUCE, PULL_BACK = range(6)
N_ARGUMENTS = 5
_FIRST_ARGUMENT = 80
SIZE = _FIRST_ARGUMENT + 3 * N_ARGUMENTS


@intrinsic
def call_engine(typing_context, address, handle):  # type: ignore[no-untyped-def]
    """Call the C function `double f(int64_t *handle)` at `address`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = cgutils.create_struct_proxy(signature.args[1])(context, builder, value=arguments[1]).data
        kind = ir.FunctionType(ir.DoubleType(), [data.type])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [data])

    return types.float64(types.int64, handle), generate


def _pointer(kind):  # type: ignore[no-untyped-def]
    @intrinsic
    def cast(typing_context, address):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return cast


_doubles, _longs, _ints, _bytes = (_pointer(kind) for kind in (types.float64, types.int64, types.int32, types.uint8))


@inlined
def add_vector(handle, argument, array):  # type: ignore[no-untyped-def]
    """Write address and size of an argument."""
    at = _FIRST_ARGUMENT + 3 * argument
    handle[at] = array.ctypes.data
    handle[at + 1] = array.size


@inlined
def add_matrix(handle, argument, array):  # type: ignore[no-untyped-def]
    """Write address and shape of an argument."""
    at = _FIRST_ARGUMENT + 3 * argument
    handle[at] = array.ctypes.data
    handle[at + 1] = array.shape[0]
    handle[at + 2] = array.shape[1]


@inlined
def vector(handle, argument):  # type: ignore[no-untyped-def]
    """Return an argument as an array."""
    at = _FIRST_ARGUMENT + 3 * argument
    return carray(_doubles(handle[at]), (handle[at + 1],))


@inlined
def matrix(handle, argument):  # type: ignore[no-untyped-def]
    """Return an argument as a matrix."""
    at = _FIRST_ARGUMENT + 3 * argument
    return carray(_doubles(handle[at]), (handle[at + 1], handle[at + 2]))


@inlined
def pack(operation, s, w):  # type: ignore[no-untyped-def]
    """Return a handle of the structure and the workspace."""
    handle = np.empty(SIZE, dtype=np.int64)
    handle[0] = operation
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
    handle[41], handle[42] = w.tail.ctypes.data, w.tail.shape[0]
    handle[43], handle[44], handle[45] = w.half.ctypes.data, w.half.shape[0], w.half.shape[1]
    handle[46], handle[47] = w.full.ctypes.data, w.full.size
    handle[48], handle[49] = w.effects.ctypes.data, w.effects.size
    handle[50], handle[51] = w.rest.ctypes.data, w.rest.size
    handle[52], handle[53] = w.place.ctypes.data, w.place.size
    handle[54], handle[55], handle[56] = w.panel.ctypes.data, w.panel.shape[0], w.panel.shape[1]
    handle[57], handle[58], handle[59] = w.panel_product.ctypes.data, w.panel_product.shape[0], w.panel_product.shape[1]
    handle[60], handle[61] = w.small.ctypes.data, w.small.shape[1]
    return handle


@inlined
def unpack(handle):  # type: ignore[no-untyped-def]
    """Return the structure and the workspace of a handle."""
    structure = Structure(
        carray(_longs(handle[1]), (handle[2],)),
        carray(_longs(handle[3]), (handle[4],)),
        carray(_ints(handle[5]), (handle[6],)),
        carray(_longs(handle[7]), (handle[8],)),
        carray(_longs(handle[9]), (handle[10],)),
        carray(_ints(handle[11]), (handle[12],)),
        carray(_longs(handle[13]), (handle[14],)),
        carray(_longs(handle[15]), (handle[16],)),
        carray(_bytes(handle[17]), (handle[18],)),
        carray(_longs(handle[19]), (handle[20],)),
        carray(_ints(handle[21]), (handle[22],)),
        carray(_longs(handle[23]), (handle[24],)),
        carray(_ints(handle[25]), (handle[26],)),
        carray(_ints(handle[27]), (handle[28],)),
        carray(_longs(handle[29]), (handle[30],)),
        carray(_longs(handle[31]), (handle[32],)),
        carray(_doubles(handle[33]), (handle[34],)),
        carray(_longs(handle[35]), (handle[36],)),
    )
    workspace = Workspace(
        carray(_doubles(handle[37]), (handle[38],)),
        carray(_doubles(handle[39]), (handle[40],)),
        carray(_doubles(handle[41]), (handle[42], handle[42])),
        carray(_doubles(handle[43]), (handle[44], handle[45])),
        carray(_doubles(handle[46]), (handle[47],)),
        carray(_doubles(handle[48]), (handle[49],)),
        carray(_doubles(handle[50]), (handle[51],)),
        carray(_longs(handle[52]), (handle[53],)),
        carray(_doubles(handle[54]), (handle[55], handle[56])),
        carray(_doubles(handle[57]), (handle[58], handle[59])),
        carray(_doubles(handle[60]), (3, handle[61], handle[61])),
    )
    return structure, workspace
