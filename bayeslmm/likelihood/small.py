"""Dense algebra on matrices of a few rows, in compiled loops: a LAPACK call would cost more than the work."""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import address_of, internal, step


@internal
def fill(a, value):  # type: ignore[no-untyped-def]
    """Set all numbers of a C-ordered array, of any number of dimensions; an array expression compiles far slower."""
    numbers = address_of(a)
    for i in range(a.size):
        numbers[i] = value


@internal
def copy_to(out, a):  # type: ignore[no-untyped-def]
    """Copy a C-ordered array to another of the same size."""
    to, numbers = address_of(out), address_of(a)
    for i in range(out.size):
        to[i] = numbers[i]


@internal
def add_to(out, a):  # type: ignore[no-untyped-def]
    """Add a C-ordered array to another of the same size."""
    to, numbers = address_of(out), address_of(a)
    for i in range(out.size):
        to[i] += numbers[i]


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
