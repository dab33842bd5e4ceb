"""Unequal and correlated residuals in the exact engine: their parameters join the sampled vector.

For every psi the cross-products are a weighted sum of fixed ones (`bayeslmm.likelihood.residual`); the compiled log
posterior then does all else. The gradient in psi is taken by differences of fourth order, exact to about 1e-8, so an
evaluation costs one plus four for each residual parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.bayes.densities import log_density
from bayeslmm.likelihood.residual import ResidualKernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.priors import PriorEntry
    from bayeslmm.bayes.state import State

WIDTH = 1e-2
FARTHEST = 15.0


@dataclass(frozen=True, eq=False)
class MovedArrays:
    """Memory of one thread: a flat line of numbers and the arrays of the kernel that are views of it."""

    flat: NDArray[np.float64]
    gram: NDArray[np.float64]
    rhs: NDArray[np.float64]
    blocks: NDArray[np.float64]


@dataclass(eq=False)
class ResidualState:
    """What one thread needs: the compiled state, its arrays, and whitened coordinates.

    Parameters
    ----------
    inner : State
        Of the compiled log posterior; its arrays are those of `arrays`.
    arrays : MovedArrays
        Overwritten for every psi.
    centre, spread : ndarray (d,), (d, d)
        Whitened coordinates.
    """

    inner: State
    arrays: MovedArrays
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ResidualPart:
    """The parameters psi of the residuals: kernels, priors, and what they add to the log posterior.

    Parameters
    ----------
    kernel : ResidualKernel
        The kernels of all psi.
    priors : tuple of PriorEntry
        One for each element of psi, for its natural value.
    """

    kernel: ResidualKernel
    priors: tuple[PriorEntry, ...]

    @property
    def size(self) -> int:
        """Number of parameters k."""
        return self.kernel.n_parameters

    @property
    def start(self) -> NDArray[np.float64]:
        """Where the search for the mode starts: equal variances, no correlation."""
        return self.kernel.rows.unconstrained(np.ones(self.kernel.rows.n_strata - 1), 0.0)

    def natural(self, psi: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ratios and correlation (..., k) of psi (..., k)."""
        out = np.exp(psi)
        rows = self.kernel.rows
        if rows.kind == "ar1":
            out[..., -1] = np.tanh(psi[..., -1])
        elif rows.kind == "exchangeable":
            out[..., -1] = rows.lowest + (1.0 - rows.lowest) / (1.0 + np.exp(-psi[..., -1]))
        return out

    def arrays(self) -> MovedArrays:
        """Return memory for one thread."""
        flat = np.empty(self.kernel.engine_stack.shape[1])
        return MovedArrays(flat, *self.kernel.engine_views(flat))

    def move(self, state: ResidualState, psi: NDArray[np.float64]) -> None:
        """Overwrite the cross-products of a state by those of psi (k,)."""
        np.dot(self.kernel.coefficients(psi), self.kernel.engine_stack, out=state.arrays.flat)

    def log_prior(self, psi: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log prior density of psi (k,), Jacobian included, and its gradient."""
        natural, slopes = self.natural(psi), self.kernel.rows.natural_slopes(psi)
        value, gradient = 0.0, np.empty(self.size)
        for j, entry in enumerate(self.priors):
            code, (a, b, c) = entry.prior.coded
            density, slope = log_density(code, a, b, c, natural[j])[:2]
            bend = 1.0
            if entry.kind == "rho":
                ar1 = self.kernel.rows.kind == "ar1"
                bend = -2.0 * natural[j] if ar1 else -np.tanh(psi[j] / 2.0)
            value += density + (np.log(slopes[j]) if slopes[j] > 0 else -inf)
            gradient[j] = slope * slopes[j] + bend
        return float(value), gradient

    def constant(self, psi: NDArray[np.float64]) -> float:
        """Return what psi (k,) adds to the log posterior beside the cross-products: determinant and prior."""
        return -0.5 * self.kernel.rows.log_det(psi) + self.log_prior(psi)[0]

    def log_posterior(self, state: ResidualState, x: NDArray[np.float64], gradient: NDArray[np.float64]) -> float:
        """Return the log posterior of the sampled vector, psi last, and fill its gradient.

        Parameters
        ----------
        state : ResidualState
            Of this thread.
        x, gradient : ndarray (d,)
            The point, and where its gradient goes.

        Returns
        -------
        float
            Minus infinity where it cannot be computed.
        """
        d = len(x) - self.size
        main, psi = np.ascontiguousarray(x[:d]), x[d:].copy()
        gradient[:] = 0.0
        if not np.abs(psi).max(initial=0.0) < FARTHEST:
            return -inf
        prior, prior_slope = self.log_prior(psi)
        self.move(state, psi)
        slope, unused = np.zeros(d), np.empty(d)
        value = state.inner.evaluate(main, slope) - 0.5 * self.kernel.rows.log_det(psi) + prior
        if not np.isfinite(value):
            return -inf
        by_psi = np.empty(self.size)
        for j in range(self.size):
            values = []
            for steps in (-2.0, -1.0, 1.0, 2.0):
                point = psi.copy()
                point[j] += steps * WIDTH
                self.move(state, point)
                values.append(state.inner.evaluate(main, unused) - 0.5 * self.kernel.rows.log_det(point))
            by_psi[j] = (values[0] - 8.0 * values[1] + 8.0 * values[2] - values[3]) / (12.0 * WIDTH)
        if not np.isfinite(by_psi).all():
            return -inf
        gradient[:d], gradient[d:] = slope, by_psi + prior_slope
        return float(value)
