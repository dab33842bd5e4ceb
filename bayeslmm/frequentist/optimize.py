"""REML and ML estimation of the covariance parameters: settings in, optimum out.

The search itself is compiled (`bayeslmm.likelihood.search`); this module starts it, watches it and reports on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bayeslmm.errors import FitError
from bayeslmm.likelihood.coordinates import expected_information, from_theta, jacobian, lift, moment_start
from bayeslmm.likelihood.covariance import Covariance, Layout, Space, by_column, semidefinite_root
from bayeslmm.likelihood.lmm import LmmKernel
from bayeslmm.likelihood.operations import (
    EVALUATIONS,
    INITIAL,
    INVERSE_HESSIAN,
    JOURNAL,
    MEASURE,
    POINT,
    SCRATCH,
    SEARCH,
    SLOPE,
    STATUS,
    STOP,
    TRUST,
    VALUES,
)
from bayeslmm.likelihood.search import CONVERGED, STALLED, STOPPED

_MESSAGES = (
    "converged",
    "stopped after the largest number of evaluations allowed",
    "stalled: no further decrease was found although the gradient is not zero",
    "interrupted",
)
_ROUNDED = (
    "ended where rounding hides the optimum: the response varies so much more among groups than within them that\n"
    "  too few digits are left for the smaller variances. Take the effects of the dominating factor as fixed, or\n"
    "  subtract its group means from the response"
)
_VISIBLE = 1e-4
"""Rounding of the criterion above this spoils the estimates: it moves theta by some hundredths of a standard error."""
_WATCHED_WORK = 2e7
_FINE_WORK = 2e6
_ZERO = 1e-6


@dataclass(frozen=True)
class Control:
    """Settings of the optimiser.

    Parameters
    ----------
    reml : bool, default True
        REML, or maximum likelihood.
    tolerance : float, default 1e-7
        The search ends when the decrease of the criterion still to be had, by the quadratic model, is below this. The
        criterion is a deviance, so the test does not depend on any unit. The step that brings this decrease is still
        taken: theta ends within some 1e-5 standard errors, and by Newton steps at the limit of rounding where
        evaluations are cheap.
    max_evaluations : int, default 500
        Largest number of evaluations of criterion and gradient.
    start : (m,) array, optional
        Where to start; moment estimates from the data when absent.

    Examples
    --------
    >>> Control(reml=False).tolerance
    1e-07
    """

    reml: bool = True
    tolerance: float = 1e-7
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
    hessian_pd : bool or None
        Whether the Hessian in the search coordinates is positive definite: on the boundary too, the optimum is then an
        isolated minimum. None when the Hessian was not computed.
    singular : bool
        Whether some combination of effects has zero variance.
    x, slope : (m,)
        Search coordinates, and the gradient in them.
    x_hessian : (m, m) or None
        Second derivatives in the search coordinates; None when evaluations are too costly to difference, or after a
        refit.
    x_inverse : (m, m)
        The search's own estimate of their inverse.
    layout, space
        What the search coordinates mean.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> optimum = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")).optimum
    >>> optimum.status, optimum.hessian_pd, optimum.theta.round(4)
    ('converged', True, array([0.8483]))
    """

    theta: NDArray[np.float64]
    value: float
    reml: bool
    evaluations: int
    converged: bool
    status: str
    path: NDArray[np.float64] = field(repr=False)
    hessian_pd: bool | None
    singular: bool
    x: NDArray[np.float64] = field(repr=False)
    slope: NDArray[np.float64] = field(repr=False)
    x_hessian: NDArray[np.float64] | None = field(repr=False)
    x_inverse: NDArray[np.float64] = field(repr=False)
    layout: Layout = field(repr=False)
    space: Space = field(repr=False)

    @cached_property
    def jacobian(self) -> NDArray[np.float64]:
        """Derivative (m, m) of theta in the search coordinates."""
        return jacobian(self.layout, self.space, self.x)

    @cached_property
    def gradient(self) -> NDArray[np.float64]:
        """Gradient of the criterion in theta at the optimum (m,)."""
        return np.linalg.solve(self.jacobian.T, self.slope)

    @cached_property
    def hessian(self) -> NDArray[np.float64] | None:
        """Second derivatives of the criterion in theta (m, m), or None, as for `x_hessian`."""
        if self.x_hessian is None:
            return None
        inverse = np.linalg.inv(self.jacobian)
        return inverse.T @ self.x_hessian @ inverse


def optimize(
    model: LmmKernel,
    control: Control | None = None,
    watch: Callable[[int, float], None] | None = None,
    near: Optimum | None = None,
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
    near : Optimum, optional
        The optimum of the same design for a similar response: the search starts there, with its curvature, and computes
        no Hessian of its own. This is what makes refits fast.

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
    (True, array([4.916]))
    """
    control = control or Control()
    search = _Search(model, control, watch)
    x = search.start(near)
    fine = near is None and search.call.work * len(x) < _FINE_WORK
    search.journal[TRUST] = not fine
    value = search.descend(x, None if near is None else near.x_inverse)
    lifted = np.empty_like(x)
    if search.status != STOPPED and lift(model.layout.arrays, search.space, x, lifted):
        first, slope, inverse = search.status, search.slope.copy(), search.inverse.copy()
        other = search.descend(lifted, None)
        if other < value - 1e-8:
            value, x = other, lifted
        else:
            search.journal[STATUS], search.slope[:], search.inverse[:] = first, slope, inverse
    hessian, definite = None, None
    if fine and search.status in (CONVERGED, STALLED) and np.isfinite(value):
        hessian = search.hessian(x)
        definite = _is_definite(hessian)
        if definite:
            value = search.polish(x, value, hessian)
    if not np.isfinite(value):
        raise FitError(
            "the criterion could not be computed: the response may be an exact linear function of the predictors,\n"
            "  so that no residual variance is left, or a column may be too large for double precision."
        )
    return search.report(x, value, hessian, definite)


class _Search:
    """One search: the call into compiled code, the arrays it works on, and what came of it."""

    def __init__(self, model: LmmKernel, control: Control, watch: Callable[[int, float], None] | None) -> None:
        m = model.layout.n_theta
        self.model, self.control, self.watch = model, control, watch
        self.call = model.prepared(control.reml)
        self.space = self.call.space
        self.call.work = self.call.work or _work(model)
        buffers = self.call.buffers
        if len(buffers.get("values", ())) != control.max_evaluations:
            buffers["values"], buffers["journal"], buffers["slope"] = (
                np.empty(control.max_evaluations),
                np.empty(5),
                np.empty(m),
            )
            buffers["inverse"], buffers["initial"] = np.empty((m, m)), np.empty((m, m))
            self.call.set(SCRATCH, np.empty(4 * m))
            for argument, name in (
                (VALUES, "values"), (JOURNAL, "journal"), (INVERSE_HESSIAN, "inverse"), (INITIAL, "initial"),
            ):  # fmt: skip
                self.call.set(argument, buffers[name])
        self.slope, self.values, self.journal = buffers["slope"], buffers["values"], buffers["journal"]
        self.inverse, self.initial = buffers["inverse"], buffers["initial"]
        self.journal[:] = 0.0, 0.0, STALLED, control.tolerance, 0.0

    @property
    def status(self) -> int:
        return int(self.journal[STATUS])

    @property
    def evaluations(self) -> int:
        return int(self.journal[EVALUATIONS])

    def start(self, near: Optimum | None) -> NDArray[np.float64]:
        """Return where to start: at what was asked for, near another optimum, or at moment estimates."""
        layout = self.model.layout
        if self.control.start is not None:
            x = np.empty(layout.n_theta)
            from_theta(layout.arrays, self.space, np.asarray(self.control.start, dtype=np.float64), x)
            return x
        return moment_start(self.model.products, layout, self.space) if near is None else _off_zero(near.x)

    def descend(self, x: NDArray[np.float64], inverse: NDArray[np.float64] | None) -> float:
        """Minimise from `x`, which ends at the minimum, with a first inverse Hessian; return the criterion there."""
        if inverse is None:
            inverse = np.linalg.inv(expected_information(self.model.layout, self.space, x))
        self.inverse[:] = self.initial[:] = inverse
        self.call.set(POINT, x)
        self.call.set(SLOPE, self.slope)
        if self.watch is None and self.call.work < _WATCHED_WORK:
            return self.call(SEARCH)
        return self._watched()

    def _watched(self) -> float:
        """Run the search in a thread, so that it can be watched and interrupted from the keyboard."""
        answers: list[float] = []
        worker = threading.Thread(target=lambda: answers.append(self.call(SEARCH)), daemon=True)
        with _quiet_blas():
            worker.start()
            try:
                while worker.is_alive():
                    worker.join(0.25)
                    if self.watch is not None and self.evaluations:
                        self.watch(self.evaluations, float(self.values[min(self.evaluations, len(self.values)) - 1]))
            except KeyboardInterrupt:
                self.journal[STOP] = 1.0
                worker.join()
                raise
        return answers[0]

    def measure(self, x: NDArray[np.float64], slope: NDArray[np.float64]) -> float:
        """Return the criterion at `x`, fill its gradient."""
        self.call.set(POINT, x)
        self.call.set(SLOPE, slope)
        return self.call(MEASURE)

    def hessian(self, x: NDArray[np.float64], width: float = 1e-4) -> NDArray[np.float64]:
        """Return the second derivatives (m, m) at `x` by central differences of the gradient."""
        m = len(x)
        out, high, low = np.empty((m, m)), np.empty(m), np.empty(m)
        for i in range(m):
            moved = x.copy()
            moved[i] = x[i] + width
            self.measure(moved, high)
            moved[i] = x[i] - width
            self.measure(moved, low)
            out[i] = (high - low) / (2.0 * width)
        return 0.5 * (out + out.T)

    def polish(self, x: NDArray[np.float64], value: float, hessian: NDArray[np.float64]) -> float:
        """Take one or two Newton steps from `x`, which ends at the limit of double precision; return the criterion."""
        moved_slope = np.empty_like(x)
        for _ in range(2):
            step = np.linalg.solve(hessian, self.slope)
            if not 1e-20 < self.slope @ step < 1e-3:
                break
            moved = x - step
            new_value = self.measure(moved, moved_slope)
            if not new_value <= value + 1e-11 * abs(value):
                break
            value, x[:], self.slope[:] = new_value, moved, moved_slope
        return value

    def rounding(self) -> float:
        """Return how far rounding may have moved the criterion of the last evaluation.

        The penalised residual sum of squares is a difference: of the total, and of what groups and coefficients take.
        """
        total, rest = self.model.products.gram[-1, -1], self.call.root[-1, -1] ** 2
        return float(self.model.n_rows * np.finfo(np.float64).eps * total / rest) if rest > 0.0 else 0.0

    def report(
        self, x: NDArray[np.float64], value: float, hessian: NDArray[np.float64] | None, definite: bool | None
    ) -> Optimum:
        """Return the record of the search that ended at `x`."""
        layout = self.model.layout
        settled = canonical(layout, self.call.theta(np.where(np.abs(x) < _ZERO, 0.0, x)))
        precise = self.rounding() < _VISIBLE
        return Optimum(
            theta=settled,
            value=float(value),
            reml=self.control.reml,
            evaluations=self.evaluations,
            converged=self.status == CONVERGED and precise,
            status=_MESSAGES[self.status] if precise else _ROUNDED,
            path=self.values[: self.evaluations].copy(),
            hessian_pd=definite,
            singular=is_singular(layout, self.space, settled),
            x=x,
            slope=self.slope.copy(),
            x_hessian=hessian,
            x_inverse=self.inverse.copy() if hessian is None or not definite else np.linalg.inv(hessian),
            layout=layout,
            space=self.space,
        )


@contextmanager
def _quiet_blas() -> Iterator[None]:
    """Keep BLAS to one thread where the machine is busy: its threads spin while they wait for each other.

    On two cores shared with two other processes a fit took ten times as long with two threads as with one.
    """
    try:
        busy = os.getloadavg()[0] > (os.cpu_count() or 1) + 0.5
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except (AttributeError, OSError, ImportError):
        busy = False
    if not busy:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield


def _off_zero(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a start near `x` from which a zero variance can grow: at zero its gradient is zero."""
    if np.abs(x).min(initial=1.0) >= 0.1:
        return x.copy()
    return np.where(np.abs(x) < 0.1, np.where(x < 0.0, -0.1, 0.1), x)


def _is_definite(hessian: NDArray[np.float64]) -> bool:
    """Return whether a Hessian is positive definite, its diagonal scaled to one, beyond rounding."""
    scale = np.sqrt(np.maximum(np.diag(hessian), 1e-10))
    return bool(np.linalg.eigvalsh(hessian / np.outer(scale, scale)).min(initial=1.0) > 1e-7)


def _work(model: LmmKernel) -> float:
    """Return a rough number of multiply-adds in one evaluation."""
    s = model.analysis.structure
    heights = np.diff(s.row_start).astype(np.float64)
    widths = np.diff(s.value_start) / np.maximum(1.0, np.sqrt(np.diff(s.value_start)))
    head = float((heights * (heights + widths)).sum()) * 2.0
    return head + 10.0 * len(s.block_values) + model.analysis.n_tail**3 / 10.0 + model.rhs.size * 10.0


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
    if (theta[layout.lower == 0.0] > 0.0).all():  # diagonals and standard deviations: nothing to mend
        return theta.copy()
    return layout.gather(
        [
            _canonical_term(covariance, part)
            for covariance, part in zip(layout.covariances, layout.split(theta), strict=True)
        ]
    )


def _canonical_term(covariance: Covariance, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    if covariance.kind != "us":
        out = theta.copy()
        deviations = out if covariance.kind == "diag" else out[:-1]
        np.abs(deviations, out=deviations)
        return out
    root = covariance.Lambda(theta)
    if np.diag(root).min() > 0.0:
        return theta
    return semidefinite_root(root @ root.T)[by_column(covariance.k)]


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
        if np.abs(np.diag(whitened)).min() < tolerance:
            return True
    return False
