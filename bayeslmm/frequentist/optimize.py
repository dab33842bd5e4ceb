"""REML and ML estimation of the covariance parameters: settings in, optimum out.

The search itself is compiled (`bayeslmm.likelihood.search`); this module starts it, watches it and reports on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bayeslmm.errors import FitError
from bayeslmm.likelihood.covariance import Covariance, Layout, semidefinite_root
from bayeslmm.likelihood.lmm import LmmKernel, criterion_and_gradient
from bayeslmm.likelihood.search import (
    CONVERGED,
    STALLED,
    STOPPED,
    Journal,
    Space,
    fill_space,
    from_theta,
    minimise,
    new_space,
    pull_theta,
    to_theta,
)

_MESSAGES = (
    "converged",
    "stopped after the largest number of evaluations allowed",
    "stalled: no further decrease was found although the gradient is not zero",
    "interrupted",
)
_WATCHED_WORK = 2e7
_FINE_WORK = 2e6


@dataclass(frozen=True)
class Control:
    """Settings of the optimiser.

    Parameters
    ----------
    reml : bool, default True
        REML, or maximum likelihood.
    tolerance : float, default 1e-9
        The search ends when the decrease of the criterion still to be had, by the quadratic model, is below this. The
        criterion is a deviance, so the test does not depend on any unit: 1e-9 puts theta within 3e-5 standard errors.
    max_evaluations : int, default 500
        Largest number of evaluations of criterion and gradient.
    start : (m,) array, optional
        Where to start; moment estimates from the data when absent.

    Examples
    --------
    >>> Control(reml=False).tolerance
    1e-09
    """

    reml: bool = True
    tolerance: float = 1e-9
    max_evaluations: int = 500
    start: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Optimum:
    """Where the optimiser ended, and how.

    Parameters
    ----------
    theta : (m,)
        Covariance parameters.
    value : float
        REML criterion or ML deviance.
    reml : bool
        Which of the two.
    evaluations : int
        Evaluations of criterion and gradient.
    converged : bool
        Whether the tolerance was reached.
    status : str
        The same in words.
    path : (evaluations,)
        Criterion at each evaluation.
    gradient : (m,)
        Gradient of the criterion in theta at the optimum.
    hessian : (m, m) or None
        Second derivatives of the criterion in theta; None when evaluations are too costly to difference.
    hessian_pd : bool or None
        Whether the Hessian in the search coordinates is positive definite: on the boundary too, the optimum is then an
        isolated minimum.
    singular : bool
        Whether some combination of effects has zero variance.
    """

    theta: NDArray[np.float64]
    value: float
    reml: bool
    evaluations: int
    converged: bool
    status: str
    path: NDArray[np.float64] = field(repr=False)
    gradient: NDArray[np.float64] = field(repr=False)
    hessian: NDArray[np.float64] | None = field(repr=False)
    hessian_pd: bool | None
    singular: bool


def optimize(
    model: LmmKernel, control: Control | None = None, watch: Callable[[int, float], None] | None = None
) -> Optimum:
    """Find the covariance parameters that minimise the REML criterion or the ML deviance.

    Parameters
    ----------
    model : LmmKernel
        The design.
    control : Control, optional
        Settings.
    watch : callable, optional
        Called a few times a second with the number of evaluations and the last value while a long fit runs.

    Returns
    -------
    Optimum

    Raises
    ------
    FitError
        If the criterion cannot be computed anywhere near the start.

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), *J. Stat. Softw.* 67(1), section 3; Nocedal & Wright (2006), *Numerical
    Optimization*, chapter 6.

    Examples
    --------
    >>> import numpy as np
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> from bayeslmm.likelihood.crossproducts import cross_products
    >>> codes = np.repeat([0, 1, 2], 2)
    >>> products = cross_products([1.0, 2, 4, 5, 9, 8], np.ones((6, 1)), [(np.ones((6, 1)), codes, 3)])
    >>> optimum = optimize(LmmKernel(products, Layout((Covariance("us", 1),), (0,), (3,))))
    >>> optimum.converged, optimum.theta.round(4)
    (True, array([5.1316]))
    """
    control = control or Control()
    layout, structure = model.layout, model.analysis.structure
    m = layout.n_theta
    space = new_space(layout)
    fill_space(structure, layout.arrays, space)
    x, slope, hessian = np.zeros(m), np.empty(m), np.empty((m, m))
    if control.start is not None:
        from_theta(layout.arrays, space, np.ascontiguousarray(control.start, dtype=np.float64), x)
    journal = Journal(np.zeros(2, dtype=np.int64), np.empty(control.max_evaluations))
    work = _work(model)
    arguments = (
        structure, model.workspace, layout.arrays, space, model.rhs, model.products.gram, model.n_rows, control.reml,
        model.constant(control.reml), control.start is not None, control.tolerance, work * m < _FINE_WORK, x, slope,
        hessian, journal,
    )  # fmt: skip
    watched = watch is not None or work > _WATCHED_WORK
    value, status, definite = _watched(arguments, journal, watch) if watched else minimise(*arguments)
    if status == STALLED and not np.isfinite(value):
        raise FitError(
            "the criterion could not be computed: the response may be an exact linear function of the predictors,\n"
            "  so that no residual variance is left, or a column may be too large for double precision."
        )
    return _report(model, control, space, x, slope, hessian, journal, value, status, definite)


def _report(
    model: LmmKernel,
    control: Control,
    space: Space,
    x: NDArray[np.float64],
    slope: NDArray[np.float64],
    hessian: NDArray[np.float64],
    journal: Journal,
    value: float,
    status: int,
    definite: int,
) -> Optimum:
    layout = model.layout
    theta = np.empty(len(x))
    to_theta(layout.arrays, space, x, theta)
    jacobian = _jacobian(layout, space, x)
    gradient = np.linalg.solve(jacobian.T, slope)
    inverse = np.linalg.inv(jacobian)
    settled = canonical(layout, theta)
    evaluations = int(journal.counts[0])
    return Optimum(
        theta=settled,
        value=float(value),
        reml=control.reml,
        evaluations=evaluations,
        converged=status == CONVERGED,
        status=_MESSAGES[status],
        path=journal.values[:evaluations].copy(),
        gradient=gradient,
        hessian=inverse.T @ hessian @ inverse if definite >= 0 else None,
        hessian_pd=bool(definite) if definite >= 0 else None,
        singular=is_singular(layout, space, settled),
    )


def _work(model: LmmKernel) -> float:
    """Return a rough number of multiply-adds in one evaluation."""
    s = model.analysis.structure
    heights = np.diff(s.row_start).astype(np.float64)
    widths = np.diff(s.value_start) / np.maximum(1.0, np.sqrt(np.diff(s.value_start)))
    head = float((heights * (heights + widths)).sum()) * 2.0
    return head + 10.0 * len(s.block_values) + model.analysis.n_tail**3 / 10.0 + model.rhs.size * 10.0


def _watched(arguments: tuple, journal: Journal, watch: Callable[[int, float], None] | None) -> tuple[float, int, int]:
    """Run the search in a thread, so that it can be watched and interrupted from the keyboard."""
    answers: list[tuple[float, int, int]] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(minimise(*arguments))
        except BaseException as failure:  # noqa: BLE001 - handed over to the caller's thread
            failures.append(failure)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.25)
            if watch is not None and journal.counts[0]:
                count = int(journal.counts[0])
                watch(count, float(journal.values[min(count, len(journal.values)) - 1]))
    except KeyboardInterrupt:
        journal.counts[1] = 1
        worker.join()
        raise
    if failures:
        raise failures[0]
    return answers[0]


def _jacobian(layout: Layout, space: Space, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the derivative (m, m) of theta in the search coordinates."""
    out = np.empty((len(x), len(x)))
    for i, unit in enumerate(np.eye(len(x))):
        pull_theta(layout.arrays, space, x, unit, out[i])
    return out


def canonical(layout: Layout, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same model with non-negative diagonals and standard deviations, exact zeros on the boundary.

    Parameters
    ----------
    layout : Layout
        The random terms.
    theta : (m,) ndarray
        Covariance parameters, of any sign.

    Returns
    -------
    (m,) ndarray
    """
    return layout.gather(
        [_canonical_term(covariance, part) for covariance, part in zip(layout.covariances, layout.split(theta), strict=True)]
    )


def _canonical_term(covariance: Covariance, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    if covariance.kind != "us":
        out = theta.copy()
        deviations = out if covariance.kind == "diag" else out[:-1]
        np.abs(deviations, out=deviations)
        return out
    root = covariance.Lambda(theta)
    return semidefinite_root(root @ root.T).T[np.triu_indices(covariance.k)]


def is_singular(layout: Layout, space: Space, theta: NDArray[np.float64], tolerance: float = 1e-4) -> bool:
    """Return whether some combination of effects has no variance, whatever the units of the predictors.

    Parameters
    ----------
    layout : Layout
        The random terms.
    space : Space
        Their scales.
    theta : (m,) ndarray
        Covariance parameters.
    tolerance : float, default 1e-4
        A standard deviation counts as zero below this, in units of the standard error of a level's own mean.
    """
    for t, (covariance, part) in enumerate(zip(layout.covariances, layout.split(theta), strict=True)):
        k, at = covariance.k, space.root_start[t]
        whitened = space.roots[at : at + k * k].reshape(k, k) @ covariance.Lambda(part)
        if np.linalg.svd(whitened, compute_uv=False).min() < tolerance:
            return True
    return False
