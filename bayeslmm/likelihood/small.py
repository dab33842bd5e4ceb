"""Dense algebra on matrices of a few rows, in compiled loops: a LAPACK call would cost more than the work."""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import step


@step
def small_cholesky(a, n):  # type: ignore[no-untyped-def]
    """Overwrite the lower triangle of a flat (n, n) matrix by its Cholesky factor; a negative pivot becomes NaN."""
    for j in range(n):
        for i in range(j, n):
            total = a[i * n + j]
            for l in range(j):
                total -= a[i * n + l] * a[j * n + l]
            a[i * n + j] = np.sqrt(total) if i == j else total / a[j * n + j]


@step
def small_inverse_root(root, out, n):  # type: ignore[no-untyped-def]
    """Fill the flat `out` with the inverse of the lower triangular `root` (n, n)."""
    for j in range(n):
        for i in range(n):
            total = 1.0 if i == j else 0.0
            for l in range(j, i):
                total -= root[i * n + l] * out[l * n + j]
            out[i * n + j] = total / root[i * n + i] if i >= j else 0.0
