"""The ML deviance with one parameter held: what a profile minimises.

Held on the scale the user sees, a parameter is built into the way the rest are written, so that the search is free:
a standard deviation is the length of a row of Lambda sigma, a correlation the angle between two rows, a coefficient a
linear constraint that shifts the residual. Nothing breaks at a standard deviation of zero or a correlation of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.linalg import solve_triangular

from bayeslmm.likelihood.cholesky import pull_back
from bayeslmm.likelihood.covariance import Covariance
from bayeslmm.likelihood.lmm import LmmKernel
from bayeslmm.likelihood.lmm import profile as factorise_and_reduce

if TYPE_CHECKING:
    from numpy.typing import NDArray

TINY = 1e-12


@dataclass(frozen=True)
class Point:
    """Deviance and its derivatives.

    Parameters
    ----------
    value : float
        ML deviance.
    slopes : tuple of ndarray (K, K)
        In the lower triangle of each factor's template.
    log_sigma : float
        In log sigma; 0 where sigma is profiled out.
    """

    value: float
    slopes: tuple[NDArray[np.float64], ...]
    log_sigma: float


def ml_deviance(
    kernel: LmmKernel,
    flat: NDArray[np.float64],
    log_sigma: float | None = None,
    held: tuple[NDArray[np.float64], float] | None = None,
) -> Point:
    """Return the ML deviance at given templates, coefficients profiled out, perhaps under one linear constraint.

    Parameters
    ----------
    kernel : LmmKernel
        The kernel.
    flat : ndarray
        Templates of all factors, one after the other.
    log_sigma : float, optional
        Residual SD; profiled out when absent.
    held : (ndarray (p,), float), optional
        ``l' beta = value``, in the coordinates of X as given.

    Returns
    -------
    Point
        Value and gradient.
    """
    s, w, products = kernel.analysis.structure, kernel.workspace, kernel.products
    p, n = products.n_fixed, kernel.n_rows
    root = np.empty(products.gram.shape)
    _, log_det = factorise_and_reduce(s, w, flat, kernel.rhs, products.gram, n, False, 0.0, root)
    squares = float(root[p, p] ** 2)
    beta = solve_triangular(root[:p, :p], root[p, :p], lower=True, trans="T") if p else np.zeros(0)
    if held is not None:
        contrast = solve_triangular(products.R0, held[0], trans="T")
        half = solve_triangular(root[:p, :p], contrast, lower=True)
        length = float(half @ half)
        gap = held[1] - float(held[0] @ products.beta0) - float(contrast @ beta)
        squares += gap**2 / length
        beta = beta + solve_triangular(root[:p, :p], half, lower=True, trans="T") * (gap / length)
    value = float(log_det) + kernel.constant(False)
    if log_sigma is None:
        value += n * (1.0 + np.log(2.0 * np.pi * squares / n))
        scale, slope = n / squares, 0.0
    else:
        scale = np.exp(-2.0 * log_sigma)
        value += n * (np.log(2.0 * np.pi) + 2.0 * log_sigma) + squares * scale
        slope = 2.0 * n - 2.0 * squares * scale
    gradient = np.empty_like(flat)
    mixing = np.ascontiguousarray(np.append(-beta, 1.0)[:, None])
    pull_back(s, w, flat, kernel.rhs, mixing, 1.0, float(scale), gradient)
    return Point(value, kernel.layout.unflatten(gradient), float(slope))


class Chart(Protocol):
    """Free coordinates of one term's template, perhaps with one of its parameters held."""

    def start(self, root: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return coordinates near a template (k, k)."""

    def root(self, x: NDArray[np.float64], sigma: float, held: float) -> NDArray[np.float64]:
        """Return the template (k, k)."""

    def pull(
        self, x: NDArray[np.float64], sigma: float, held: float, slope: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the gradient in the coordinates, and in log sigma through a held standard deviation."""

    def settle(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return coordinates of the same template without drift along directions that do not count."""


@dataclass(frozen=True)
class FreeRoot:
    """All entries of an unstructured root, of any sign."""

    k: int

    def start(self, root: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the lower triangle."""
        return root[np.tril_indices(self.k)]

    def root(self, x: NDArray[np.float64], sigma: float, held: float) -> NDArray[np.float64]:
        """Return the triangle as a matrix."""
        out = np.zeros((self.k, self.k))
        out[np.tril_indices(self.k)] = x
        return out

    def pull(
        self, x: NDArray[np.float64], sigma: float, held: float, slope: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the slope's triangle."""
        return slope[np.tril_indices(self.k)], 0.0

    def settle(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the same: all coordinates count."""
        return x


@dataclass(frozen=True)
class HeldSd:
    """An unstructured root whose row `effect` has length held / sigma; its direction is free."""

    k: int
    effect: int

    def start(self, root: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the lower triangle, the held row as a direction."""
        out = root.copy()
        out[self.effect, : self.effect + 1] = _direction(root[self.effect, : self.effect + 1])
        return out[np.tril_indices(self.k)]

    def root(self, x: NDArray[np.float64], sigma: float, held: float) -> NDArray[np.float64]:
        """Return the matrix with the held row at its length."""
        out = FreeRoot(self.k).root(x, sigma, held)
        row = out[self.effect]
        out[self.effect] = held / sigma * row / max(float(np.linalg.norm(row)), TINY)
        return out

    def pull(
        self, x: NDArray[np.float64], sigma: float, held: float, slope: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the gradient; along the held row only its direction counts."""
        row = FreeRoot(self.k).root(x, sigma, held)[self.effect]
        size = max(float(np.linalg.norm(row)), TINY)
        unit = row / size
        own = np.where(np.arange(self.k) <= self.effect, slope[self.effect], 0.0)
        along = float(unit @ own)
        out = slope.copy()
        out[self.effect] = held / sigma * (own - along * unit) / size
        return out[np.tril_indices(self.k)], -held / sigma * along

    def settle(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the held row at unit length."""
        return self.start(FreeRoot(self.k).root(x, 1.0, 0.0))


@dataclass(frozen=True)
class HeldCorr:
    """An unstructured root whose rows `first` < `second` meet at an angle of cosine `held`.

    With u the direction of the first row and p the part of the free row g at right angles to it, the second row is
    held |p| u + sqrt(1 - held²) p.
    """

    k: int
    first: int
    second: int

    def start(self, root: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the lower triangle; the second row stands for g, as long as the standard deviation it makes."""
        out = root.copy()
        a, b = self.first, self.second
        unit = np.zeros(self.k)
        unit[: a + 1] = _direction(root[a, : a + 1])
        rest = root[b] - unit * float(unit @ root[b])
        if np.linalg.norm(rest) < 1e-6:
            rest = np.eye(self.k)[b] - unit * unit[b]
        out[b] = rest / np.linalg.norm(rest) * max(float(np.linalg.norm(root[b])), 1e-3)
        return out[np.tril_indices(self.k)]

    def root(self, x: NDArray[np.float64], sigma: float, held: float) -> NDArray[np.float64]:
        """Return the matrix with the second row turned to the held angle."""
        out = FreeRoot(self.k).root(x, sigma, held)
        unit = _unit(out[self.first])
        rest = out[self.second] - unit * float(unit @ out[self.second])
        out[self.second] = held * np.linalg.norm(rest) * unit + np.sqrt(1 - held**2) * rest
        return out

    def pull(
        self, x: NDArray[np.float64], sigma: float, held: float, slope: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the gradient through the angle."""
        free = FreeRoot(self.k).root(x, sigma, held)
        row, g = free[self.first], free[self.second]
        unit, size = _unit(row), max(float(np.linalg.norm(row)), TINY)
        rest = g - unit * float(unit @ g)
        length = float(np.linalg.norm(rest))
        own = np.where(np.arange(self.k) <= self.second, slope[self.second], 0.0)
        at_rest = held * float(unit @ own) * rest / max(length, TINY) + np.sqrt(1 - held**2) * own
        at_unit = held * length * own - float(unit @ g) * at_rest - float(unit @ at_rest) * g
        out = slope.copy()
        out[self.second] = at_rest - unit * float(unit @ at_rest)
        out[self.first] = out[self.first] + (at_unit - unit * float(unit @ at_unit)) / size
        return out[np.tril_indices(self.k)], 0.0

    def settle(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the second row without its part along the first."""
        out = FreeRoot(self.k).root(x, 1.0, 0.0)
        unit = _unit(out[self.first])
        out[self.second] -= unit * float(unit @ out[self.second])
        return out[np.tril_indices(self.k)]


@dataclass(frozen=True)
class Structured:
    """A diag, cs or ar1 template; one of its parameters may be held.

    Parameters
    ----------
    covariance : Covariance
        The structure.
    held_index : int or None
        Position in its theta.
    """

    covariance: Covariance
    held_index: int | None = None

    @property
    def _has_rho(self) -> bool:
        return self.covariance.kind in ("cs", "ar1")

    def _is_rho(self, index: int | None) -> bool:
        return self._has_rho and index == self.covariance.n_theta - 1

    def _bounds(self) -> tuple[float, float]:
        return float(self.covariance.lower[-1]), float(self.covariance.upper[-1])

    def start(self, root: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return standard deviations, and the correlation on an unbounded scale."""
        sd = np.linalg.norm(root, axis=1)
        unit = root / np.maximum(sd, TINY)[:, None]
        theta = self.covariance.theta_from(sd, unit @ unit.T)
        if self._has_rho:
            low, high = self._bounds()
            share = np.clip((theta[-1] - low) / (high - low), 1e-6, 1 - 1e-6)
            theta[-1] = np.log(share / (1 - share))
        return theta if self.held_index is None else np.delete(theta, self.held_index)

    def _theta(self, x: NDArray[np.float64], sigma: float, held: float) -> NDArray[np.float64]:
        theta = x.copy() if self.held_index is None else np.insert(x, self.held_index, 0.0)
        if self._has_rho and not self._is_rho(self.held_index):
            low, high = self._bounds()
            theta[-1] = low + (high - low) / (1 + np.exp(-theta[-1]))
        if self.held_index is not None:
            theta[self.held_index] = held if self._is_rho(self.held_index) else held / sigma
        return theta

    def root(self, x: NDArray[np.float64], sigma: float, held: float) -> NDArray[np.float64]:
        """Return the template."""
        return self.covariance.Lambda(self._theta(x, sigma, held))

    def pull(
        self, x: NDArray[np.float64], sigma: float, held: float, slope: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the gradient through the structure."""
        theta = self._theta(x, sigma, held)
        gradient = np.einsum("mij,ij->m", self.covariance.dLambda(theta), np.tril(slope))
        if self._has_rho and not self._is_rho(self.held_index):
            low, high = self._bounds()
            gradient[-1] *= (theta[-1] - low) * (high - theta[-1]) / (high - low)
        if self.held_index is None:
            return gradient, 0.0
        through = 0.0 if self._is_rho(self.held_index) else -theta[self.held_index] * gradient[self.held_index]
        return np.delete(gradient, self.held_index), float(through)

    def settle(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the same: all coordinates count."""
        return x


def free_chart(covariance: Covariance) -> Chart:
    """Return free coordinates of a term's template.

    Parameters
    ----------
    covariance : Covariance
        Its structure.

    Returns
    -------
    Chart
        The coordinates.
    """
    return FreeRoot(covariance.k) if covariance.kind == "us" else Structured(covariance)


def _unit(row: NDArray[np.float64]) -> NDArray[np.float64]:
    return row / max(float(np.linalg.norm(row)), TINY)


def _direction(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit vector along a row, the last axis where it is zero."""
    size = float(np.linalg.norm(row))
    return row / size if size > 1e-8 else np.eye(len(row))[-1]


@dataclass(frozen=True)
class Constrained:
    """The ML deviance as a function of free coordinates, with one parameter held.

    Parameters
    ----------
    kernel : LmmKernel
        The kernel.
    charts : tuple of Chart
        One per random term, in the order written.
    contrast : ndarray (p,) or None
        The held linear form of the coefficients.
    sigma : {"profiled", "free", "held"}
        How the residual SD is treated; free, its logarithm is the last coordinate.
    """

    kernel: LmmKernel
    charts: tuple[Chart, ...]
    contrast: NDArray[np.float64] | None = None
    sigma: str = "profiled"

    def start(self, theta: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
        """Return the coordinates of an estimate."""
        layout = self.kernel.layout
        roots = [c.Lambda(part) for c, part in zip(layout.covariances, layout.split(theta), strict=True)]
        parts = [chart.start(root) for chart, root in zip(self.charts, roots, strict=True)]
        return np.concatenate([*parts, [np.log(sigma)] if self.sigma == "free" else []])

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Coordinates of each term."""
        covariances = self.kernel.layout.covariances
        return tuple(len(chart.start(np.eye(c.k))) for chart, c in zip(self.charts, covariances, strict=True))

    def _parts(self, x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return np.split(x[: sum(self.sizes)], np.cumsum(self.sizes)[:-1])

    def settle(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return coordinates of the same templates without idle drift."""
        parts = [chart.settle(part) for chart, part in zip(self.charts, self._parts(x), strict=True)]
        return np.concatenate([*parts, x[sum(self.sizes) :]])

    def __call__(self, x: NDArray[np.float64], held: float) -> tuple[float, NDArray[np.float64]]:
        """Return deviance and gradient at coordinates `x`."""
        layout = self.kernel.layout
        log_sigma = {"profiled": None, "free": float(x[-1]), "held": None}[self.sigma]
        if self.sigma == "held":
            log_sigma = float(np.log(held))
        sigma = 1.0 if log_sigma is None else float(np.exp(log_sigma))
        parts = self._parts(x)
        templates = [np.zeros((k, k)) for k in layout.n_effects]
        for chart, part, factor, columns in zip(
            self.charts, parts, layout.term_factor, layout.term_columns, strict=True
        ):
            templates[factor][columns, columns] = chart.root(part, sigma, held)
        flat = np.concatenate([template.ravel() for template in templates])
        constraint = None if self.contrast is None else (self.contrast, held)
        point = ml_deviance(self.kernel, flat, log_sigma, constraint)
        if not np.isfinite(point.value):
            return np.inf, np.zeros_like(x)
        gradient, through = [], point.log_sigma
        for chart, part, factor, columns in zip(
            self.charts, parts, layout.term_factor, layout.term_columns, strict=True
        ):
            own, more = chart.pull(part, sigma, held, point.slopes[factor][columns, columns])
            gradient.append(own)
            through += more
        return point.value, np.concatenate([*gradient, [through] if self.sigma == "free" else []])
