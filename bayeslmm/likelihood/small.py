"""Dense algebra on matrices of a few rows, in compiled loops: a LAPACK call would cost more than the work."""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import inlined


@inlined
def small_cholesky(a):  # type: ignore[no-untyped-def]
    """Overwrite the lower triangle of a small `a` by its Cholesky factor; a negative pivot becomes not a number."""
    n = a.shape[0]
    for j in range(n):
        pivot = a[j, j]
        for l in range(j):
            pivot -= a[j, l] * a[j, l]
        pivot = np.sqrt(pivot)
        a[j, j] = pivot
        for i in range(j + 1, n):
            total = a[i, j]
            for l in range(j):
                total -= a[i, l] * a[j, l]
            a[i, j] = total / pivot


@inlined
def small_inverse_root(root, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the inverse of the lower triangular `root`."""
    n = root.shape[0]
    out[:, :] = 0.0
    for j in range(n):
        out[j, j] = 1.0 / root[j, j]
        for i in range(j + 1, n):
            total = 0.0
            for l in range(j, i):
                total -= root[i, l] * out[l, j]
            out[i, j] = total / root[i, i]
