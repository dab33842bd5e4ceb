"""Criterion and gradient of a linear mixed model, in theta or in search coordinates, in compiled code on a handle."""

from __future__ import annotations

import numpy as np

from bayeslmm.likelihood._compiled import internal
from bayeslmm.likelihood.coordinates import slope_of, theta_of
from bayeslmm.likelihood.covariance import templates_or_pull
from bayeslmm.likelihood.factor import pull_back_with, reduce_with
from bayeslmm.likelihood.handle import ARGUMENTS, TERMS, argument, length, run, unpack_space, unpack_terms
from bayeslmm.likelihood.numeric import clear
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
    root, settings, size = argument(handle, ROOT), argument(handle, SETTINGS), length(handle, ROOT)
    for i in range(3):
        handle[ARGUMENTS + 3 * B + i] = handle[ARGUMENTS + 3 * GRAM_MATRIX + i]
    log_det = run(handle, FACTORISE)
    reduce_with(handle)
    small_cholesky(root, size)
    n_rows, reml = settings[0], settings[1] > 0.0
    p = size - 1
    degrees = n_rows - p if reml else n_rows
    rest = root[p * size + p]
    value = log_det + settings[2] + degrees * (1.0 + np.log(2.0 * np.pi * (rest * rest) / degrees))
    if reml:
        for i in range(p):
            value += 2.0 * np.log(root[i * size + i])
    settings[3] = log_det
    return value


@internal
def profile_gradient(handle):  # type: ignore[no-untyped-def]
    """Fill OUT with the gradient of the criterion in the templates; `profile` has been called.

    With Q = root root', rows of the inverse root give (X'V0^-1 X)^-1 and, the last one, (-beta, 1) / r: F F' with F
    made of them is the derivative of the criterion in Q.
    """
    root, inverse, settings = argument(handle, ROOT), argument(handle, INVERSE), argument(handle, SETTINGS)
    size = length(handle, ROOT)
    n_rows, reml = settings[0], settings[1] > 0.0
    small_inverse_root(root, inverse, size)
    rank = size if reml else 1
    degrees = n_rows - size + 1 if reml else n_rows
    mixing = argument(handle, MIXING)
    for i in range(size):
        for c in range(rank - 1):
            mixing[i * rank + c] = inverse[c * size + i]
        mixing[i * rank + rank - 1] = np.sqrt(degrees) * inverse[(size - 1) * size + i]
    place = ARGUMENTS + 3 * MIXING
    handle[place + 1], handle[place + 2] = size, rank
    pull_back_with(handle)
    handle[place + 1] = size * size


@internal
def evaluate(handle, theta, gradient, n_gradient):  # type: ignore[no-untyped-def]
    """Return the criterion at `theta`; fill `gradient` (m,) unless `n_gradient` is 0."""
    terms, n_terms = unpack_terms(handle), handle[TERMS + 1]
    templates = argument(handle, TEMPLATES)
    clear(templates, length(handle, TEMPLATES))
    templates_or_pull(terms, n_terms, theta, templates, gradient, False)
    value = profile(handle)
    if n_gradient > 0:
        profile_gradient(handle)
        clear(gradient, n_gradient)
        templates_or_pull(terms, n_terms, theta, argument(handle, OUT), gradient, True)
    return value


@internal
def measure(handle, x, slope):  # type: ignore[no-untyped-def]
    """Return the criterion at search coordinates `x` (infinite where it fails), fill its gradient `slope`."""
    terms, n_terms, space = unpack_terms(handle), handle[TERMS + 1], unpack_space(handle)
    theta, gradient, m = argument(handle, THETA), argument(handle, THETA_SLOPE), length(handle, THETA)
    journal = argument(handle, JOURNAL)
    theta_of(terms, n_terms, space, x, theta)
    value = evaluate(handle, theta, gradient, m)
    slope_of(terms, n_terms, space, x, gradient, slope)
    count = np.int64(journal[EVALUATIONS])
    if count < length(handle, VALUES):
        argument(handle, VALUES)[count] = value
    journal[EVALUATIONS] = count + 1
    total = value
    for i in range(m):
        total += slope[i]
    return value if np.isfinite(total) else np.inf
