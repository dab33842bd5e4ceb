"""The C function that evaluates the rows of a generalised model, compiled once and cached on disk.

All families and links are a lot of code: reached by address they are compiled once, not again in every caller. Rows of
the two commonest models (logit, log counts) go through loops that use the vector units of the processor, with exp and
log1p by their series: a library call for each row would cost more than all the rest.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from bayeslmm.likelihood._compiled import c_entry, internal, longs
from bayeslmm.likelihood.families_jit import FAMILY_CODES, LINK_CODES, row_terms

SIZE = 16
EVALUATE, OWN_PARAMETER = range(2)
_BINOMIAL, _POISSON, _CUMULATIVE = (FAMILY_CODES[name] for name in ("binomial", "poisson", "cumulative"))
_LOGIT, _LOG = LINK_CODES["logit"], LINK_CODES["log"]
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest whole number in the low bits


@intrinsic
def _power_of_two(typing_context, rounded):  # type: ignore[no-untyped-def]
    """Return 2^k for k + `_ROUND` given."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        whole = ir.IntType(64)
        bits = builder.shl(builder.bitcast(arguments[0], whole), ir.Constant(whole, 52))
        return builder.bitcast(builder.add(bits, ir.Constant(whole, 1023 << 52)), ir.DoubleType())

    return types.float64(types.float64), generate


@intrinsic
def _array(typing_context, address, size):  # type: ignore[no-untyped-def]
    """Return the array of doubles at an address; nobody counts references to it."""
    kind = types.Array(types.float64, 1, "C")

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = context.make_array(kind)(context, builder)
        data = builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())
        width = context.get_constant(types.intp, 8)
        populate_array(array, data=data, shape=[arguments[1]], strides=[width], itemsize=width, meminfo=None)
        return array._getvalue()

    return kind(types.int64, types.int64), generate


def _fast(function: Any) -> Any:
    """Compile a piece of a loop over rows: multiplications may be fused with additions, nothing else is relaxed."""
    return numba.njit(error_model="numpy", _nrt=False, inline="always", fastmath={"contract"})(function)


@_fast
def _exp(x):  # type: ignore[no-untyped-def]
    """Return e^x for |x| <= 708: 2^k e^r, |r| <= log(2) / 2, by 14 terms of the series."""
    rounded = x * _LOG2_E + _ROUND
    k = rounded - _ROUND
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _power_of_two(rounded)


@_fast
def _log1p(e):  # type: ignore[no-untyped-def]
    """Return log(1 + e) for 0 <= e <= 1: 2 artanh(e / (2 + e)), by 16 terms of the series."""
    s = e / (2.0 + e)
    t = s * s
    p = 1.0 / 31.0
    p = p * t + 1.0 / 29.0
    p = p * t + 1.0 / 27.0
    p = p * t + 1.0 / 25.0
    p = p * t + 1.0 / 23.0
    p = p * t + 1.0 / 21.0
    p = p * t + 1.0 / 19.0
    p = p * t + 1.0 / 17.0
    p = p * t + 1.0 / 15.0
    p = p * t + 1.0 / 13.0
    p = p * t + 1.0 / 11.0
    p = p * t + 1.0 / 9.0
    p = p * t + 1.0 / 7.0
    p = p * t + 1.0 / 5.0
    p = p * t + 1.0 / 3.0
    p = p * t + 1.0
    return 2.0 * s * p


@numba.njit(error_model="numpy", _nrt=False, fastmath={"contract"}, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def logit_rows(y, weight, eta, value, slope, curve, bend):  # type: ignore[no-untyped-def]
    """Fill the terms of binomial rows with a logit link."""
    for i in range(eta.size):
        x, w = eta[i], weight[i]
        size = abs(x)
        e = _exp(-(size if size < 708.0 else 708.0))
        large = 1.0 / (1.0 + e)
        small = e * large
        gap = large - small
        above = x > 0.0
        value[i] = w * (y[i] * x - (x if above else 0.0) - _log1p(e))
        slope[i] = w * (y[i] - (large if above else small))
        product = w * (large * small)
        curve[i] = product
        bend[i] = product * (-gap if above else gap)


@numba.njit(error_model="numpy", _nrt=False, fastmath={"contract"}, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def log_count_rows(y, weight, eta, value, slope, curve, bend):  # type: ignore[no-untyped-def]
    """Fill the terms of Poisson rows with a log link."""
    for i in range(eta.size):
        x, w = eta[i], weight[i]
        inside = x if x < 708.0 else 708.0
        mu = _exp(inside if inside > -708.0 else -708.0)
        value[i] = w * (y[i] * x - mu)
        slope[i] = w * (y[i] - mu)
        curve[i] = w * mu
        bend[i] = w * mu


@internal
def any_rows(family, link, y, size, extra, weight, eta, aux, value, slope, curve, bend):  # type: ignore[no-untyped-def]
    """Fill the terms of rows of any family."""
    for i in range(eta.size):
        l, l1, l2, l3, _, _, _, _, _, _ = row_terms(family, link, y[i], size[i], extra[i], eta[i], aux)
        w = weight[i]
        value[i] = w * l
        slope[i] = w * l1
        curve[i] = w * l2
        bend[i] = w * l3


@internal
def own_parameter(family, link, y, size, extra, weight, eta, aux, leverage, response, out):  # type: ignore[no-untyped-def]
    """Add the gradient in the family's own parameters to `out`."""
    for i in range(eta.size):
        _, _, _, _, la, ga, wa, lb, gb, wb = row_terms(family, link, y[i], size[i], extra[i], eta[i], aux)
        w = weight[i]
        category = int(y[i]) if family == _CUMULATIVE else 0
        if category < aux.size:
            out[category] += w * (la - 0.5 * (leverage[i] * wa + ga * response[i]))
        if category > 0:
            out[category - 1] += w * (lb - 0.5 * (leverage[i] * wb + gb * response[i]))


@c_entry
def rows(address):  # type: ignore[no-untyped-def]
    """Do what the handle at `address` asks for: evaluate rows and return their sum, or the family's own gradient."""
    handle = longs(address)
    family, link, n = handle[1], handle[2], handle[3]
    y, size, extra = _array(handle[4], n), _array(handle[5], n), _array(handle[6], n)
    weight, eta = _array(handle[7], n), _array(handle[8], n)
    aux = _array(handle[9], handle[10])
    total = 0.0
    if handle[0] == OWN_PARAMETER:
        leverage, response = _array(handle[11], n), _array(handle[12], n)
        out = _array(handle[13], handle[10])
        own_parameter(family, link, y, size, extra, weight, eta, aux, leverage, response, out)
        return total
    terms = _array(handle[11], 4 * n)
    value, slope = _array(handle[11], n), terms[n : 2 * n]
    curve, bend = terms[2 * n : 3 * n], terms[3 * n : 4 * n]
    if family == _BINOMIAL and link == _LOGIT:
        logit_rows(y, weight, eta, value, slope, curve, bend)
    elif family == _POISSON and link == _LOG:
        log_count_rows(y, weight, eta, value, slope, curve, bend)
    else:
        any_rows(family, link, y, size, extra, weight, eta, aux, value, slope, curve, bend)
    for i in range(n):
        total += value[i]
    return total
