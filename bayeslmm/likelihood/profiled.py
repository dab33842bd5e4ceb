"""Criterion and gradient of a linear mixed model, in theta or in search coordinates, in compiled code on a handle."""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import internal
from bayeslmm.likelihood.cholesky import pull_back_with, reduce_with, run
from bayeslmm.likelihood.coordinates import pull_theta, to_theta
from bayeslmm.likelihood.covariance import templates_or_pull
from bayeslmm.likelihood.handle import ARGUMENTS, matrix, unpack_space, unpack_terms, vector
from bayeslmm.likelihood.operations import (
    EVALUATIONS,
    FACTORISE,
    GRAM_MATRIX,
    INVERSE,
    JOURNAL,
    MIXING,
    OUT,
    ROOT,
    SETTINGS,
    TEMPLATES,
    THETA,
    THETA_SLOPE,
    VALUES,
    B,
)
from bayeslmm.likelihood.small import small_cholesky, small_inverse_root


@internal
def profile(handle):  # type: ignore[no-untyped-def]
    """Return the criterion; fill root with the Cholesky factor of Q and the last setting with log|A|."""
    root, settings = matrix(handle, ROOT), vector(handle, SETTINGS)
    for i in range(3):
        handle[ARGUMENTS + 3 * B + i] = handle[ARGUMENTS + 3 * GRAM_MATRIX + i]
    log_det = run(handle, FACTORISE)
    reduce_with(handle)
    small_cholesky(root)
    n_rows, reml = settings[0], settings[1] > 0.0
    p = root.shape[0] - 1
    degrees = n_rows - p if reml else n_rows
    value = log_det + settings[2] + degrees * (1.0 + np.log(2.0 * np.pi * root[p, p] ** 2 / degrees))
    if reml:
        for i in range(p):
            value += 2.0 * np.log(root[i, i])
    settings[3] = log_det
    return value


@internal
def profile_gradient(handle):  # type: ignore[no-untyped-def]
    """Fill OUT with the gradient of the criterion in the templates; `profile` has been called.

    With Q = root root', rows of the inverse root give (X'V0^-1 X)^-1 and, the last one, (-beta, 1) / r: F F' with F
    made of them is the derivative of the criterion in Q.
    """
    root, inverse, settings = matrix(handle, ROOT), matrix(handle, INVERSE), vector(handle, SETTINGS)
    size = root.shape[0]
    n_rows, reml = settings[0], settings[1] > 0.0
    small_inverse_root(root, inverse)
    rank = size if reml else 1
    degrees = n_rows - size + 1 if reml else n_rows
    mixing = vector(handle, MIXING)
    for i in range(size):
        for c in range(rank - 1):
            mixing[i * rank + c] = inverse[c, i]
        mixing[i * rank + rank - 1] = np.sqrt(degrees) * inverse[size - 1, i]
    place = ARGUMENTS + 3 * MIXING
    handle[place + 1], handle[place + 2] = size, rank
    pull_back_with(handle)
    handle[place + 1] = size * size


@internal
def evaluate(handle, theta, gradient):  # type: ignore[no-untyped-def]
    """Return the criterion at `theta`; fill `gradient` (m,) unless it is empty."""
    terms = unpack_terms(handle)
    templates_or_pull(terms, theta, vector(handle, TEMPLATES), theta[:0])
    value = profile(handle)
    if gradient.size > 0:
        profile_gradient(handle)
        templates_or_pull(terms, theta, vector(handle, OUT), gradient)
    return value


@internal
def measure(handle, x, slope):  # type: ignore[no-untyped-def]
    """Return the criterion at search coordinates `x` (infinite where it fails), fill its gradient `slope`."""
    terms, space = unpack_terms(handle), unpack_space(handle)
    theta, gradient = vector(handle, THETA), vector(handle, THETA_SLOPE)
    journal, values = vector(handle, JOURNAL), vector(handle, VALUES)
    to_theta(terms, space, x, theta)
    value = evaluate(handle, theta, gradient)
    pull_theta(terms, space, x, gradient, slope)
    count = np.int64(journal[EVALUATIONS])
    if count < values.size:
        values[count] = value
    journal[EVALUATIONS] = count + 1
    total = value
    for i in range(x.size):
        total += slope[i]
    return value if np.isfinite(total) else np.inf
