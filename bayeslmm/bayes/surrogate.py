"""Independent draws from a smooth stand-in for a log density that is dear to evaluate.

The product of the density's own slices along its axes (`bayeslmm.bayes.proposals`) misses how the axes depend on each
other. In coordinates z in which every slice is standard normal the difference R(z) between the log density and that
product is smooth and of moderate size. A Gaussian process learns it from values and gradients at a few hundred points,
half of them chosen by what it learned from the others. Draws from the stand-in cost next to nothing; importance weights
against the exact density correct them, and say how good the stand-in was.

References
----------
Rasmussen (2003), Gaussian processes to speed up hybrid Monte Carlo for expensive Bayesian integrals, *Bayesian
Statistics* 7; Solak et al. (2003), Derivative observations in Gaussian process models of dynamic systems, *NIPS 15*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import gammaln, ndtr, ndtri

from bayeslmm.bayes.proposals import Proposal, independence_metropolis

if TYPE_CHECKING:
    from numpy.typing import NDArray

EQUATIONS = 1680
"""Values and derivatives that the Gaussian process is fitted to, at most."""
LENGTHS = (1.5, 2.2, 3.2, 4.7)
TREND_VARIANCE = 0.1
"""Of the kernel (1 + z'z')², which carries quadratic trends beyond the points."""
NOISE = 0.02
FARTHEST = 7.0
"""In z: beyond, nothing is learned, and the difference is taken for constant."""
NEGLIGIBLE = -15.0
DEFENSIVE_SHARE = 0.05
THINNING = 4
FLATTENED = 0.85
"""Power of the stand-in to draw from: its tails are then too heavy rather than too light."""
POOL, POOL_POWER = 1500, 0.6
ROUNDS, MOST_POINTS = 4, 80
TAIL = (2.0, 5.0)
CANDIDATES, CENTRES = 8000, 400
LOCAL_SHARE = 0.7
FREEDOM = 5.0

Evaluate = Callable[["NDArray[np.float64]"], tuple["NDArray[np.float64]", "NDArray[np.float64]"]]


@dataclass(frozen=True)
class Difference:
    """The mean of a Gaussian process given values and gradients of a function.

    Parameters
    ----------
    points : ndarray (n, d)
        Where they are given.
    by_value : ndarray (n,)
        Coefficients of k(z, point).
    by_slope : ndarray (n, d)
        Coefficients of the derivatives of k(z, point) in the point.
    length : float
        Of the kernel k(z, z') = exp(-|z - z'|² / (2 length²)) + `TREND_VARIANCE` (1 + z'z')².

    References
    ----------
    Solak et al. (2003), Derivative observations in Gaussian process models of dynamic systems, *NIPS 15*.
    """

    points: NDArray[np.float64]
    by_value: NDArray[np.float64]
    by_slope: NDArray[np.float64]
    length: float

    @classmethod
    def fit(
        cls,
        points: NDArray[np.float64],
        value: NDArray[np.float64],
        slope: NDArray[np.float64],
        noise: NDArray[np.float64],
        lengths: tuple[float, ...] = LENGTHS,
    ) -> Difference:
        """Learn a function, with the length under which the data are most likely.

        Parameters
        ----------
        points : ndarray (n, d)
            Where it is known.
        value : ndarray (n,)
            Its values.
        slope : ndarray (n, d)
            Its gradients.
        noise : ndarray (n,)
            How far the function may stay from value and gradient, relative to its own SD.
        lengths : tuple of float
            Lengths to choose from.

        Returns
        -------
        Difference
        """
        n, d = points.shape
        target = np.concatenate([value, slope.T.ravel()])
        best, chosen, length = -np.inf, np.zeros_like(target), lengths[0]
        for candidate in lengths:
            covariance = _covariance(points, candidate)
            covariance[np.diag_indices_from(covariance)] += np.tile(noise**2, 1 + d)
            root = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
            coefficients = cho_solve(root, target, check_finite=False)
            variance = max(float(target @ coefficients) / len(target), 1e-12)
            likelihood = -0.5 * len(target) * np.log(variance) - float(np.log(np.diag(root[0])).sum())
            if likelihood > best:
                best, chosen, length = likelihood, coefficients, candidate
        return cls(points, chosen[:n], np.ascontiguousarray(chosen[n:].reshape(d, n).T), length)

    def __call__(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the function at each row of z (S, d).

        Parameters
        ----------
        z : ndarray (S, d)
            Points.

        Returns
        -------
        ndarray (S,)
            Values.
        """
        square = self.length**2
        distance = (z**2).sum(axis=1)[:, None] + (self.points**2).sum(axis=1) - 2.0 * (z @ self.points.T)
        factor = self.by_value + (z @ self.by_slope.T - (self.points * self.by_slope).sum(axis=1)) / square
        kernel = np.exp(-0.5 * distance / square)
        inner = 1.0 + z @ self.points.T
        trend = inner * (inner * self.by_value + 2.0 * (z @ self.by_slope.T))
        return np.asarray((kernel * factor + TREND_VARIANCE * trend).sum(axis=1))


def _covariance(points: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """Return the covariance (n (1 + d), n (1 + d)) of values and derivatives, coordinate by coordinate."""
    n, d = points.shape
    apart = (points[:, None, :] - points[None, :, :]) / length
    kernel = np.exp(-0.5 * (apart**2).sum(axis=2))
    inner = 1.0 + points @ points.T
    out = np.empty((1 + d, n, 1 + d, n))
    out[0, :, 0] = kernel + TREND_VARIANCE * inner**2
    for i in range(d):
        by_one = kernel * apart[:, :, i] / length
        trend = 2.0 * TREND_VARIANCE * inner * points[:, i : i + 1]
        out[0, :, 1 + i] = by_one + trend
        out[1 + i, :, 0] = -by_one + trend.T
        for j in range(d):
            bend = 2.0 * TREND_VARIANCE * (points[:, j : j + 1] * points[:, i] + float(i == j) * inner)
            out[1 + i, :, 1 + j] = (float(i == j) * kernel / length - by_one * apart[:, :, j]) / length + bend
    return out.reshape(n * (1 + d), n * (1 + d))


@dataclass(frozen=True)
class Surrogate:
    """A stand-in for a log density, from which one can draw.

    Parameters
    ----------
    proposal : Proposal
        Product of slices.
    difference : Difference
        What is added to the logarithm of its close part, in coordinates in which that is standard normal.
    efficiency : float
        Effective share of the points that judged the first stand-in.
    """

    proposal: Proposal
    difference: Difference
    efficiency: float = 1.0

    def logpdf(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log density of each row of w (S, d), up to a constant.

        Parameters
        ----------
        w : ndarray (S, d)
            Points in whitened coordinates.

        Returns
        -------
        ndarray (S,)
            Log densities.
        """
        close, wide = self.proposal.parts(w)
        learned = self.difference(np.clip(normal_coordinates(self.proposal, w), -FARTHEST, FARTHEST))
        return np.logaddexp(close + learned, np.log(DEFENSIVE_SHARE) + wide)

    def draw(self, rng: np.random.Generator, chains: int, draws: int, power: float = 1.0) -> NDArray[np.float64]:
        """Return draws (C, D, d), next to independent.

        Parameters
        ----------
        rng : numpy Generator
            Source of randomness.
        chains, draws : int
            How many.
        power : float, default 1
            Power of the density to draw from.

        Returns
        -------
        ndarray (C, D, d)
            Every `THINNING`-th state of independence Metropolis, whose proposals come from the slices and from the
            neighbourhood of a first run's draws.
        """
        pilot = self.proposal.draw(rng, CANDIDATES)
        ratio = power * self.logpdf(pilot) - self.proposal.logpdf(pilot)
        first = pilot[independence_metropolis(ratio[None, :], rng)[0][0]]
        near = Neighbourhood.of(first[:: CANDIDATES // CENTRES])
        count = chains * draws * THINNING
        local = rng.random(count) < LOCAL_SHARE
        w = np.where(local[:, None], near.draw(rng, count), self.proposal.draw(rng, count))
        height = np.logaddexp(np.log(LOCAL_SHARE) + near.logpdf(w), np.log1p(-LOCAL_SHARE) + self.proposal.logpdf(w))
        kept, _ = independence_metropolis((power * self.logpdf(w) - height).reshape(chains, -1), rng)
        return w.reshape(chains, draws * THINNING, -1)[np.arange(chains)[:, None], kept[:, ::THINNING]]


@dataclass(frozen=True)
class Neighbourhood:
    """A mixture of multivariate t densities, one about each of some draws.

    Parameters
    ----------
    centres : ndarray (n, d)
        The draws.
    root : ndarray (d, d)
        Lower triangular factor of the scale of each.
    """

    centres: NDArray[np.float64]
    root: NDArray[np.float64]

    @classmethod
    def of(cls, draws: NDArray[np.float64]) -> Neighbourhood:
        """Return the neighbourhood of draws, as wide as a kernel density estimate would have it.

        Parameters
        ----------
        draws : ndarray (n, d)
            Draws.

        Returns
        -------
        Neighbourhood
        """
        n, d = draws.shape
        width = (4.0 / ((d + 2.0) * n)) ** (1.0 / (d + 4.0))
        covariance = np.atleast_2d(np.cov(draws.T)) + 1e-6 * np.eye(d)
        return cls(draws, width * np.linalg.cholesky(covariance))

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return draws (count, d).

        Parameters
        ----------
        rng : numpy Generator
            Source of randomness.
        count : int
            How many.

        Returns
        -------
        ndarray (count, d)
        """
        n, d = self.centres.shape
        heavy = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (count, 1)))
        return np.asarray(
            self.centres[rng.integers(n, size=count)] + heavy * rng.standard_normal((count, d)) @ self.root.T
        )

    def logpdf(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log density of each row of w (S, d).

        Parameters
        ----------
        w : ndarray (S, d)
            Points.

        Returns
        -------
        ndarray (S,)
        """
        d = self.centres.shape[1]
        own = solve_triangular(self.root, self.centres.T, lower=True).T
        white = solve_triangular(self.root, w.T, lower=True).T
        square = (white**2).sum(axis=1)[:, None] + (own**2).sum(axis=1) - 2.0 * (white @ own.T)
        total = (1.0 + np.maximum(square, 0.0) / FREEDOM) ** (-0.5 * (FREEDOM + d))
        constant = gammaln(0.5 * (FREEDOM + d)) - gammaln(0.5 * FREEDOM) - 0.5 * d * np.log(FREEDOM * np.pi)
        return np.asarray(np.log(total.mean(axis=1)) + constant - np.log(np.diag(self.root)).sum())


def normal_coordinates(proposal: Proposal, w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return z (S, d), standard normal and independent when w follows the close part of a proposal.

    Parameters
    ----------
    proposal : Proposal
        Product of slices.
    w : ndarray (S, d)
        Points.

    Returns
    -------
    ndarray (S, d)
        Points.
    """
    below = np.column_stack([axis.cdf(column) for axis, column in zip(proposal.close, w.T, strict=True)])
    return np.asarray(ndtri(np.clip(below, 1e-15, 1.0 - 1e-15)))


def fit_surrogate(proposal: Proposal, evaluate: Evaluate, rng: np.random.Generator) -> Surrogate:
    """Learn a log density from a few hundred evaluations.

    Parameters
    ----------
    proposal : Proposal
        Product of its slices.
    evaluate : callable
        From points (n, d) to log densities (n,) and gradients (n, d).
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    Surrogate
        Learned from points of the proposal, then from draws of a first stand-in, and from what these left open.
    """
    d = len(proposal.close)
    size = min(EQUATIONS // (ROUNDS * (1 + d)), MOST_POINTS)
    points = proposal.draw(rng, size)
    value, slope = evaluate(points)
    stand_in = Surrogate(proposal, _learn(proposal, points, value, slope, LENGTHS))
    for number in range(1, ROUNDS):
        near = stand_in.draw(rng, 1, size - size // 2)[0]
        if number == 1:
            far = _in_the_tails(proposal, near, max(1, size // (4 * d)), rng)
        else:
            far = _least_known(stand_in, np.vstack([points, near]), size // 2, rng)
        more, slopes = evaluate(np.vstack([near, far]))
        efficiency = _effective_share(more[: len(near)] - stand_in.logpdf(near))
        points, value, slope = np.vstack([points, near, far]), np.append(value, more), np.vstack([slope, slopes])
        lengths = (stand_in.difference.length,)
        stand_in = Surrogate(proposal, _learn(proposal, points, value, slope, lengths), efficiency)
    return stand_in


def _effective_share(log_weights: NDArray[np.float64]) -> float:
    """Return the effective number of draws with these weights, as a share."""
    finite = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    weights = np.exp(finite - finite.max())
    return float(weights.sum() ** 2 / (weights**2).sum() / len(weights))


def _least_known(
    draft: Surrogate, known: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return points (count, d) of a flattened draft, each as far as possible from all others, in z."""

    def place(w: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(normal_coordinates(draft.proposal, w), -FARTHEST, FARTHEST)

    pool = draft.draw(rng, 1, POOL, POOL_POWER)[0]
    z = place(pool)
    gap = ((z[:, None, :] - place(known)) ** 2).sum(axis=2).min(axis=1)
    chosen = np.empty(count, dtype=np.intp)
    for i in range(count):
        chosen[i] = np.argmax(gap)
        gap = np.minimum(gap, ((z - z[chosen[i]]) ** 2).sum(axis=1))
    return pool[chosen]


def _in_the_tails(
    proposal: Proposal, draws: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return draws with one coordinate moved into a tail of its slice: `count` for each tail of each axis."""
    nearest, farthest = TAIL
    probes = []
    for axis, density in enumerate(proposal.close):
        for side in (-1.0, 1.0):
            w = draws[rng.choice(len(draws), count)].copy()
            z = nearest + (farthest - nearest) * (np.arange(count) + rng.random(count)) / count
            w[:, axis] = density.quantile(ndtr(side * z))
            probes.append(w)
    return np.vstack(probes)


def _learn(
    proposal: Proposal,
    w: NDArray[np.float64],
    value: NDArray[np.float64],
    slope: NDArray[np.float64],
    lengths: tuple[float, ...],
) -> Difference:
    """Return what the log density has beyond the slices, from its values and gradients in w."""
    z = normal_coordinates(proposal, w)
    close = proposal.parts(w)[0]
    apart = value - close
    apart -= np.median(apart[np.isfinite(apart)])
    use = np.isfinite(apart) & (np.abs(z) < FARTHEST).all(axis=1) & (apart > NEGLIGIBLE)
    axes = list(zip(proposal.close, w.T, strict=True))
    log_height = np.column_stack([axis.logpdf(column) for axis, column in axes])
    own_slope = np.column_stack([axis.slope(column) for axis, column in axes])
    stretch = np.exp(-0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) - log_height)
    by_z = (slope - own_slope) * stretch
    # Where the density is far below the slices, that it is so suffices.
    noise = NOISE * (1.0 + np.maximum(-1.0 - apart, 0.0) ** 2)
    return Difference.fit(z[use], apart[use], by_z[use], noise[use], lengths)
