"""Named arrays at one address: what compiled code of the kernel is handed instead of tuples of arrays.

A tuple of twenty arrays is some hundred and fifty arguments of every function that it is given to, and most of the time
to compile goes there. A *record* is one pointer, to words of 64 bits that hold addresses, sizes and numbers; compiled
code writes `record.field` and gets an array. The words of a record do not change while compiled code runs, and LLVM is
told so: no loop reads them twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, register_model
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

_ARRAYS = {"f": types.float64, "l": types.int64, "i": types.int32, "u": types.uint8, "b": types.boolean}
_NUMBERS = {"int": types.int64, "float": types.float64}


class Fields:
    """What a record holds, and where.

    Parameters
    ----------
    name : str
        Of the record's type.
    arrays : str
        Fields in the order of their words, each `name:kind`. Kinds of arrays are a letter (f float64, l int64, i int32,
        u uint8, b bool) and the number of dimensions, with as many words and one more; numbers are `int` or `float`.
    at : int
        Words from the record's address to the first field.
    inner : mapping of str to (Fields, int), optional
        Records that belong to this one: their fields, and words from this record's address to theirs.
    """

    def __init__(self, name: str, arrays: str, at: int = 0, inner: Mapping[str, tuple[Fields, int]] | None = None):
        self.name, self.first = name, at
        self.kinds = dict(field.split(":") for field in arrays.split())
        self.places: dict[str, int] = {}
        for field, kind in self.kinds.items():
            self.places[field] = at
            at += 1 if kind in _NUMBERS else 1 + int(kind[1])
        self.end = at
        self.inner = dict(inner or {})
        self.type = RecordType(self)

    def words(self, values: Iterable[Any]) -> NDArray[np.int64]:
        """Return the words of the fields, in their order; the caller keeps the arrays alive."""
        words = np.empty(self.end - self.first, dtype=np.int64)
        for field, value in zip(self.kinds, values, strict=True):
            self.write(words, field, value, -self.first)
        return words

    def write(self, words: NDArray[np.int64], field: str, value: Any, base: int = 0) -> None:
        """Write one field of a record that starts at word `base`; the caller keeps the array alive."""
        kind, at = self.kinds[field], base + self.places[field]
        if kind in _NUMBERS:
            words[at] = value if kind == "int" else np.float64(value).view(np.int64)
            return
        expected = _ARRAYS[kind[0]].name.removesuffix("ean")
        if value.dtype.name != expected or value.ndim != int(kind[1]) or not value.flags.c_contiguous:
            raise TypeError(f"{self.name}.{field} is a C-ordered array of {expected} of {kind[1]} dimensions")
        words[at] = value.__array_interface__["data"][0]
        words[at + 1 : at + 1 + value.ndim] = value.shape


class RecordType(types.Type):
    """Numba's type of a record."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        super().__init__(name=f"Record({fields.name})")

    def of(self, field: str) -> Any:
        """Return numba's type of a field, nothing when there is none of that name."""
        if field in self.fields.inner:
            return self.fields.inner[field][0].type
        kind = self.fields.kinds.get(field)
        if kind is None or kind in _NUMBERS:
            return _NUMBERS.get(kind or "")
        return types.Array(_ARRAYS[kind[0]], int(kind[1]), "C")


@register_model(RecordType)
class _RecordModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64).as_pointer())

    def from_argument(self, builder: Any, value: Any) -> Any:
        """Promise that all words can be read, so that reading them moves out of loops that may not run at all."""
        if isinstance(value, ir.Argument):
            value.attributes.dereferenceable = 8 * self._fe_type.fields.end
        return value


@infer_getattr
class _RecordAttribute(AttributeTemplate):
    key = RecordType

    def generic_resolve(self, typ: Any, attr: str) -> Any:
        return typ.of(attr)


@lower_getattr_generic(RecordType)
def _read_field(context, builder, kind, value, field):  # type: ignore[no-untyped-def]
    def word(at):  # type: ignore[no-untyped-def]
        loaded = builder.load(builder.gep(value, [ir.Constant(ir.IntType(64), at)]))
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        return loaded

    if field in kind.fields.inner:
        return builder.gep(value, [ir.Constant(ir.IntType(64), kind.fields.inner[field][1])])
    at, result = kind.fields.places[field], kind.of(field)
    if result == types.float64:
        return builder.bitcast(word(at), ir.DoubleType())
    if result == types.int64:
        return word(at)
    shape = [word(at + 1 + axis) for axis in range(result.ndim)]
    return _array_at(context, builder, result, word(at), shape)


def _array_at(context, builder, kind, address, shape):  # type: ignore[no-untyped-def]
    """Return an array that nobody counts references to; `address` is a number or a pointer."""
    array = context.make_array(kind)(context, builder)
    width = context.get_constant(types.intp, kind.dtype.bitwidth // 8 if kind.dtype != types.boolean else 1)
    pointer = context.get_data_type(kind.dtype).as_pointer()
    data = address if isinstance(address.type, ir.PointerType) else builder.inttoptr(address, pointer)
    strides = [width]
    for size in shape[:0:-1]:
        strides.insert(0, builder.mul(strides[0], size))
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=width, meminfo=None)
    return array._getvalue()


def record_at(fields: Fields) -> Any:
    """Return the compiled function that takes an address, as a number, for that of a record.

    Parameters
    ----------
    fields : Fields
        What is there.

    Returns
    -------
    intrinsic
    """

    @intrinsic
    def take(typing_context, address):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())

        return fields.type(types.int64), generate

    return take


@intrinsic
def words_of(typing_context, record):  # type: ignore[no-untyped-def]
    """Return the words of a record as an array without a size."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return arguments[0]

    return types.CPointer(types.int64)(record), generate  # type: ignore[attr-defined]


@intrinsic
def where(typing_context, array):  # type: ignore[no-untyped-def]
    """Return the address of an array as a number."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), generate


@intrinsic
def as_matrix(typing_context, vector, rows, columns):  # type: ignore[no-untyped-def]
    """Return the beginning of a vector as a matrix in C order."""
    result = types.Array(vector.dtype, 2, "C")

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data
        return _array_at(context, builder, result, data, [arguments[1], arguments[2]])

    return result(vector, types.int64, types.int64), generate


def _on_the_stack(kind, column=False):  # type: ignore[no-untyped-def]
    result = types.Array(kind, 2 if column else 1, "C")

    @intrinsic
    def allocate(typing_context, size):  # type: ignore[no-untyped-def]
        """Return scratch that is gone when the function returns: for vectors, never inside a long loop."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            data = builder.alloca(context.get_data_type(kind), size=arguments[0])
            shape = [arguments[0], ir.Constant(ir.IntType(64), 1)] if column else [arguments[0]]
            return _array_at(context, builder, result, data, shape)

        return result(types.int64), generate

    return allocate


scratch_doubles, scratch_longs = _on_the_stack(types.float64), _on_the_stack(types.int64)
scratch_column = _on_the_stack(types.float64, column=True)
