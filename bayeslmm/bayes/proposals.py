"""Large data: independent proposals from the posterior's own profile along each axis, corrected exactly.

Along each axis of the whitened coordinates the log posterior is evaluated from the mode outwards until nothing is left;
what lies between is interpolated, and the product of these densities, with a wider share for the tails between the
axes, is the proposal. Proposals are drawn side by side, each with its coefficients and group effects from the same
factorisation. Independence Metropolis turns them into chains with the exact posterior as their distribution, so that
every later summary and its effective sample size are what they seem; the tail shape of the importance weights and the
effective size of the chains say whether the approximation covers the posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from bayeslmm.bayes.logposterior import LogPosterior
from bayeslmm.bayes.marginal import Draws, Mode, available_cores, conditional_draws

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

METHOD = "independent proposals"
STEPS = (0.5, 1.0, 1.75, 2.75, 4.0, 6.0, 9.0, 13.0, 19.0, 28.0, 40.0)
NOTHING_LEFT = -14.0
PIECES = 32
WIDE_SHARE = 0.2
WIDE_POWER = 0.5
LEAST_TAIL = 0.05


@dataclass(frozen=True)
class AxisDensity:
    """A density on the line whose logarithm is linear between knots and beyond the last ones.

    Parameters
    ----------
    knots : ndarray (m,)
        Where the log density is given, increasing.
    log_height : ndarray (m,)
        The log density there, up to a constant.
    left, right : float
        Rates, above zero, at which it falls beyond the first and the last knot.

    Examples
    --------
    >>> tent = AxisDensity(np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 0.0, -1.0]), 1.0, 1.0)
    >>> bool(np.isclose(np.exp(tent.logpdf(np.array([2.0]))), 0.5 * np.exp(-2))[0])
    True
    """

    knots: NDArray[np.float64]
    log_height: NDArray[np.float64]
    left: float
    right: float

    @classmethod
    def from_slopes(
        cls, w: NDArray[np.float64], value: NDArray[np.float64], slope: NDArray[np.float64], power: float = 1.0
    ) -> Self:
        """Return the density through values and slopes of a log density, raised to a power.

        Parameters
        ----------
        w, value, slope : ndarray (m,)
            Points, increasing, the log density there and its derivative.
        power : float, default 1
            Below 1 the density is wider.

        Returns
        -------
        AxisDensity
            Between the points by cubic Hermite interpolation, cut into pieces.
        """
        pieces = [np.linspace(a, b, PIECES, endpoint=False) for a, b in pairwise(w)]
        knots = np.concatenate([*pieces, w[-1:]])
        height = power * CubicHermiteSpline(w, value, slope)(knots)
        return cls(knots, height, max(power * slope[0], LEAST_TAIL), max(-power * slope[-1], LEAST_TAIL))

    @cached_property
    def mass(self) -> NDArray[np.float64]:
        """Mass (m + 1,) left of the first knot, of each piece, and right of the last; not normalised."""
        height = np.exp(self.log_height)
        rise, width = np.diff(self.log_height), np.diff(self.knots)
        inner = height[:-1] * width * _mean_exponential(rise)
        return np.concatenate([height[:1] / self.left, inner, height[-1:] / self.right])

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return independent draws (count,).

        Parameters
        ----------
        rng : numpy Generator
            Source of randomness.
        count : int
            How many.

        Returns
        -------
        ndarray (count,)
            The draws.
        """
        piece = rng.choice(len(self.mass), count, p=self.mass / self.mass.sum())
        return self._within(piece, 1 - rng.random(count))

    def quantile(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where a probability (S,) lies below.

        Parameters
        ----------
        probability : ndarray (S,)
            Between 0 and 1.

        Returns
        -------
        ndarray (S,)
            Quantiles.
        """
        share = self.mass / self.mass.sum()
        ends = np.cumsum(share)
        piece = np.minimum(np.searchsorted(ends, probability), len(share) - 1)
        part = np.clip((probability - ends[piece] + share[piece]) / share[piece], 1e-300, 1.0)
        return self._within(piece, np.where(piece == len(self.knots), np.clip(1.0 - part, 1e-300, 1.0), part))

    def _within(self, piece: NDArray[np.intp], uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the point of each piece (S,) below which a share of its mass lies; in the last piece, above which."""
        left, right = piece == 0, piece == len(self.knots)
        inner = np.clip(piece - 1, 0, len(self.knots) - 2)
        rise = np.diff(self.log_height)[inner]
        flat = np.abs(rise) < 1e-9
        share = np.where(flat, uniform, np.log1p(uniform * np.expm1(rise)) / np.where(flat, 1.0, rise))
        between = self.knots[inner] + share * np.diff(self.knots)[inner]
        below = self.knots[0] + np.log(uniform) / self.left
        above = self.knots[-1] - np.log(uniform) / self.right
        return np.where(left, below, np.where(right, above, between))

    def logpdf(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log density of each w (S,).

        Parameters
        ----------
        w : ndarray (S,)
            Points.

        Returns
        -------
        ndarray (S,)
            Log densities.
        """
        value = np.interp(w, self.knots, self.log_height)
        value -= self.left * np.maximum(self.knots[0] - w, 0) + self.right * np.maximum(w - self.knots[-1], 0)
        return value - np.log(self.mass.sum())

    def slope(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the derivative of the log density at each w (S,).

        Parameters
        ----------
        w : ndarray (S,)
            Points.

        Returns
        -------
        ndarray (S,)
            Slopes.
        """
        slopes = np.concatenate([[self.left], np.diff(self.log_height) / np.diff(self.knots), [-self.right]])
        return np.asarray(slopes[np.searchsorted(self.knots, w, side="right")])

    def cdf(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability below each w (S,).

        Parameters
        ----------
        w : ndarray (S,)
            Points.

        Returns
        -------
        ndarray (S,)
            Probabilities.
        """
        share = self.mass / self.mass.sum()
        before = np.concatenate([[0.0], np.cumsum(share)])
        piece = np.searchsorted(self.knots, w, side="right")
        inner = np.clip(piece - 1, 0, len(self.knots) - 2)
        rise, width = np.diff(self.log_height)[inner], np.diff(self.knots)[inner]
        part = np.clip((w - self.knots[inner]) / width, 0.0, 1.0)
        between = before[inner + 1] + share[inner + 1] * (
            part * _mean_exponential(part * rise) / _mean_exponential(rise)
        )
        below = share[0] * np.exp(self.left * np.minimum(w - self.knots[0], 0.0))
        above = 1.0 - share[-1] * np.exp(self.right * np.minimum(self.knots[-1] - w, 0.0))
        return np.where(piece == 0, below, np.where(piece == len(self.knots), above, between))


def _mean_exponential(rise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of exp over [0, rise]."""
    flat = np.abs(rise) < 1e-9
    return np.where(flat, 1.0, np.expm1(rise) / np.where(flat, 1.0, rise))


@dataclass(frozen=True)
class Proposal:
    """Independent axes: most proposals follow the posterior along each of them, some a wider version for the tails.

    Parameters
    ----------
    close, wide : tuple of AxisDensity
        One for each axis.

    References
    ----------
    Hesterberg (1995), *Technometrics* 37(2): a share of wider proposals bounds the weights.
    """

    close: tuple[AxisDensity, ...]
    wide: tuple[AxisDensity, ...]

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
            The draws.
        """
        close = np.column_stack([axis.draw(rng, count) for axis in self.close])
        wide = np.column_stack([axis.draw(rng, count) for axis in self.wide])
        return np.where(rng.random((count, 1)) < WIDE_SHARE, wide, close)

    def logpdf(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log density of each row of w (S, d).

        Parameters
        ----------
        w : ndarray (S, d)
            Points.

        Returns
        -------
        ndarray (S,)
            Log densities.
        """
        close, wide = self.parts(w)
        return np.logaddexp(np.log1p(-WIDE_SHARE) + close, np.log(WIDE_SHARE) + wide)

    def parts(self, w: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log density of each row of w (S, d) under the close and under the wide proposals.

        Parameters
        ----------
        w : ndarray (S, d)
            Points.

        Returns
        -------
        close, wide : ndarray (S,)
            Log densities.
        """
        close = np.sum([axis.logpdf(column) for axis, column in zip(self.close, w.T, strict=True)], axis=0)
        wide = np.sum([axis.logpdf(column) for axis, column in zip(self.wide, w.T, strict=True)], axis=0)
        return close, wide


class Whitened(Protocol):
    """A log density in whitened coordinates."""

    @property
    def size(self) -> int:
        """How many coordinates there are."""
        ...

    def state(self, centre: NDArray[np.float64], spread: NDArray[np.float64]) -> Any:
        """Return the numbers of one thread."""
        ...

    def evaluate_whitened(self, state: Any, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log density and its gradient."""
        ...


def fit_proposal(density: Whitened, mode: Mode) -> Proposal:
    """Return the proposal that follows the posterior from its mode along each axis, as far as there is any mass.

    Parameters
    ----------
    density : Whitened
        The log posterior.
    mode : Mode
        Its mode and axes.

    Returns
    -------
    Proposal
        In whitened coordinates.
    """
    state = density.state(mode.x, mode.spread)
    close, wide = [], []
    for axis in range(density.size):
        points = [(0.0, 0.0, 0.0)]
        for sign in (-1.0, 1.0):
            for step in STEPS:
                w = np.zeros(density.size)
                w[axis] = sign * step
                value, gradient = density.evaluate_whitened(state, w)
                if not np.isfinite(value):
                    break
                points.append((w[axis], value - mode.value, gradient[axis]))
                if value - mode.value < NOTHING_LEFT:
                    break
        where, height, slope = np.array(sorted(points)).T
        close.append(AxisDensity.from_slopes(where, height, slope))
        wide.append(AxisDensity.from_slopes(where, height, slope, WIDE_POWER))
    return Proposal(tuple(close), tuple(wide))


def sample_proposals(
    density: LogPosterior,
    mode: Mode,
    *,
    draws: int,
    chains: int,
    seed: int,
    progress: bool,
    cores: int | None = None,
    storage: DTypeLike = np.float64,
) -> Draws:
    """Draw by independence Metropolis with proposals that follow the posterior along its axes.

    Parameters
    ----------
    density : LogPosterior
        The marginal log posterior.
    mode : Mode
        Its mode and axes.
    draws, chains : int
        Draws per chain, and chains.
    seed : int
        Makes the draws reproducible.
    progress : bool
        Show a bar.
    cores : int, optional
        Threads.
    storage : dtype, default float64
        Of the group effects.

    Returns
    -------
    Draws
        All parameters; `statistics` holds the log weights and which proposals were accepted.
    """
    proposal = fit_proposal(density, mode)
    rng = np.random.default_rng([seed, 2])
    w = proposal.draw(rng, chains * draws)
    x = (mode.x + w @ mode.spread.T).reshape(chains, draws, -1)
    beta, effects, values = conditional_draws(
        density, x, seed=seed, progress=progress, cores=cores or available_cores(), storage=storage
    )
    log_weights = values - proposal.logpdf(w).reshape(chains, draws)
    kept, accepted = independence_metropolis(log_weights, rng)
    rows = np.arange(chains)[:, None]
    statistics: dict[str, NDArray[Any]] = {
        "accepted": accepted,
        "log_weight": log_weights[rows, kept],
        "lp": values[rows, kept],
    }
    moved = {name: block[rows, kept] for name, block in effects.items()}
    k = pareto_k(log_weights)
    return Draws(x[rows, kept], beta[rows, kept], moved, statistics, 0, METHOD, pareto_k=k)


def independence_metropolis(
    log_weights: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return which proposal each draw of each chain holds.

    A chain starts at one of its own proposals, chosen by weight, so it is in equilibrium at once.

    Parameters
    ----------
    log_weights : ndarray (C, D)
        Log of posterior over proposal density, up to a constant.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    kept : ndarray (C, D) of int
        Positions of proposals within the chain.
    accepted : ndarray (C, D) of bool
        Whether the draw is a new one.
    """
    chains, draws = log_weights.shape
    kept = np.empty((chains, draws), dtype=np.intp)
    accepted = np.zeros((chains, draws), dtype=bool)
    log_uniform = np.log(rng.random((chains, draws)))
    for chain in range(chains):
        weights = np.exp(log_weights[chain] - log_weights[chain].max())
        current = int(rng.choice(draws, p=weights / weights.sum()))
        for draw in range(draws):
            if log_uniform[chain, draw] < log_weights[chain, draw] - log_weights[chain, current]:
                current = draw
                accepted[chain, draw] = True
            kept[chain, draw] = current
    return kept, accepted


def pareto_k(log_weights: NDArray[np.float64]) -> float:
    """Return the shape of the tail of importance weights; below 0.5 their variance is finite.

    Parameters
    ----------
    log_weights : ndarray
        Log importance weights, up to a constant.

    Returns
    -------
    float
        Pareto k.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), *J. Machine Learning Research* 25(72).
    """
    from arviz_stats.base import array_stats

    # ArviZ smooths leave-one-out weights, whose logarithm is minus its argument.
    _, k = array_stats.psislw(-log_weights.ravel())
    return float(k)
