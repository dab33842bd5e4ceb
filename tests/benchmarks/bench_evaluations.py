"""One criterion with its gradient beside the dense algebra that it cannot do without; adds to docs/benchmarks.md.

Run ``python tests/benchmarks/bench_evaluations.py`` (``--no-write``: print only). Both sides of a row are timed in
turns, in one process with the BLAS threads of the machine, and the medians are compared:

- InstEval: `potrf` and `potri` of a matrix as large as the dense tail would be without a sparse elimination of part of
  the second factor (all lecturers and departments), and of one as large as it is;
- partly_crossed: the same evaluation with everything beyond the largest factor in a fully dense tail;
- crossed_slopes: the dense algebra of the tail and of what the largest factor, block diagonal, adds to it: `potrf`,
  `syrk`, `potri`, `symm`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_kernel import PROBLEMS, RESULTS, write_page
from scipy.linalg import blas, lapack

import bayeslmm as blm
from bayeslmm.likelihood import symbolic
from bayeslmm.likelihood.coordinates import moment_start, to_theta
from bayeslmm.likelihood.lmm import LmmKernel, criterion_and_gradient

SECONDS = 8.0
"""Time given to each row."""


def kernel_of(name: str) -> LmmKernel:
    """Return the kernel of a problem."""
    item = PROBLEMS[name]
    return LmmKernel.from_design(blm.build_design(item.formula, item.data()))


def evaluation(kernel: LmmKernel) -> Callable[[], Any]:
    """Return a call that evaluates criterion and gradient where the search would start."""
    space, theta = kernel.prepared(reml=True).space, np.empty(kernel.layout.n_theta)
    to_theta(kernel.layout.arrays, space, moment_start(kernel.products, kernel.layout, space), theta)
    return lambda: criterion_and_gradient(theta, kernel)


def positive_definite(n: int) -> np.ndarray:
    """Return a well-conditioned matrix (n, n) in Fortran's order."""
    return np.asfortranarray(np.full((n, n), 0.5) + n * np.eye(n))


def potrf_potri(n: int) -> Callable[[], Any]:
    """Return a call that factors and inverts a matrix of n columns in place."""
    matrix = positive_definite(n)
    work = matrix.copy(order="F")

    def call() -> None:
        work[:] = matrix
        lapack.dpotrf(work, lower=1, overwrite_a=1, clean=0)
        lapack.dpotri(work, lower=1, overwrite_c=1)

    return call


def dense_algebra(rows: int, n: int) -> Callable[[], Any]:
    """Return a call that does the dense algebra of a tail of n columns below a head of `rows` columns."""
    inverse, panel = potrf_potri(n), np.asfortranarray(np.random.default_rng(0).normal(size=(n, rows)))
    square, product = positive_definite(n), np.empty((n, rows), order="F")

    def call() -> None:
        blas.dsyrk(-1.0, panel, beta=1.0, c=square, overwrite_c=1)
        inverse()
        blas.dsymm(1.0, square, panel, c=product, overwrite_c=1)

    return call


def in_turns(one: Callable[[], Any], other: Callable[[], Any]) -> tuple[float, float]:
    """Return the median milliseconds of two calls that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    one(), other()
    stop = time.perf_counter() + SECONDS
    while time.perf_counter() < stop:
        for call, list_of in zip((one, other), times, strict=True):
            start = time.perf_counter()
            call()
            list_of.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def insteval() -> tuple[str, str, float, float]:
    """Compare InstEval with the bare algebra of a tail that holds its two smaller factors whole."""
    kernel = kernel_of("InstEval")
    n = sum(sorted(kernel.layout.n_levels)[:-1])
    return (
        "InstEval",
        f"potrf and potri of {n} columns: its two smaller factors",
        *in_turns(evaluation(kernel), potrf_potri(n)),
    )


def insteval_tail() -> tuple[str, str, float, float]:
    """Compare InstEval with the bare algebra of the tail that is left of them."""
    kernel = kernel_of("InstEval")
    n = kernel.analysis.n_tail
    return ("InstEval", f"potrf and potri of its tail of {n} columns", *in_turns(evaluation(kernel), potrf_potri(n)))


def partly_crossed() -> tuple[str, str, float, float]:
    """Compare the partly crossed problem with a fully dense second factor."""
    kernel = kernel_of("partly_crossed")
    usual, symbolic.SPARSE_SECONDS = symbolic.SPARSE_SECONDS, 1.0
    dense = LmmKernel(kernel.products, kernel.layout)
    symbolic.SPARSE_SECONDS = usual
    text = f"the same with a tail of {dense.analysis.n_tail} instead of {kernel.analysis.n_tail} columns"
    return ("partly_crossed", text, *in_turns(evaluation(kernel), evaluation(dense)))


def crossed_slopes() -> tuple[str, str, float, float]:
    """Compare three crossed factors with slopes with the dense algebra of the same sizes."""
    kernel = kernel_of("crossed_slopes")
    head, n = kernel.analysis.n_head, kernel.analysis.n_tail
    text = f"syrk, potrf, potri, symm of {head} rows and a {n} x {n} tail"
    return ("crossed_slopes", text, *in_turns(evaluation(kernel), dense_algebra(head, n)))


def main(arguments: list[str]) -> None:
    """Measure, print, and add to the page."""
    rows = []
    for measure in (insteval, insteval_tail, partly_crossed, crossed_slopes):
        rows.append(measure())
        print(rows[-1], f"ratio {rows[-1][2] / rows[-1][3]:.2f}", flush=True)
    if "--no-write" not in arguments:
        known = {**json.loads(RESULTS.read_text()), "evaluations": rows}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        write_page(known)


if __name__ == "__main__":
    main(sys.argv[1:])
