"""Large data: independent proposals from a split-t approximation of the few variance parameters, corrected exactly.

Proposals are drawn side by side, each with its coefficients and group effects from the same factorisation. Independence
Metropolis turns them into chains with the exact posterior as their distribution, so that every later summary and its
effective sample size are what they seem; the tail shape of the importance weights says whether the approximation
covers the posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln

from bayeslmm.bayes.logposterior import LogPosterior, whitened_log_posterior
from bayeslmm.bayes.marginal import Draws, Mode, available_cores, conditional_draws

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

DEGREES = 5.0
PROBES = (1.5, 2.5, 3.5)


@dataclass(frozen=True)
class SplitT:
    """A multivariate t whose scale differs on either side of each axis.

    Parameters
    ----------
    left, right : ndarray (d,)
        Scales below and above zero.
    degrees : float
        Degrees of freedom.

    References
    ----------
    Geweke (1989), *Econometrica* 57(6).
    """

    left: NDArray[np.float64]
    right: NDArray[np.float64]
    degrees: float = DEGREES

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
        normal = rng.standard_normal((count, len(self.left)))
        radius = np.sqrt(self.degrees / rng.chisquare(self.degrees, size=(count, 1)))
        return normal * np.where(normal < 0, self.left, self.right) * radius

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
        size = w.shape[1]
        scale = np.where(w < 0, self.left, self.right)
        square = np.square(w / scale).sum(axis=1)
        constant = (
            gammaln((self.degrees + size) / 2) - gammaln(self.degrees / 2) - size / 2 * np.log(self.degrees * np.pi)
        )
        return constant - np.log(scale).sum(axis=1) - (self.degrees + size) / 2 * np.log1p(square / self.degrees)


def fit_split_t(density: LogPosterior, mode: Mode) -> SplitT:
    """Return the split-t that falls no faster than the posterior on either side of each axis, up to 3.5 SDs out.

    Parameters
    ----------
    density : LogPosterior
        The marginal log posterior.
    mode : Mode
        Its mode and axes.

    Returns
    -------
    SplitT
        In whitened coordinates.
    """
    state = density.state(mode.x, mode.spread)
    scales = np.ones((2, density.size))
    for axis in range(density.size):
        for side, sign in enumerate((-1.0, 1.0)):
            needed = []
            for probe in PROBES:
                w = np.zeros(density.size)
                w[axis] = sign * probe
                fall = mode.value - whitened_log_posterior(state, w)[0]
                needed.append(probe / np.sqrt(2 * max(fall, 1e-2)))
            scales[side, axis] = np.clip(max(needed), 0.3, 5.0)
    return SplitT(scales[0], scales[1])


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
    """Draw by independence Metropolis with proposals from the split-t approximation.

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
    proposal = fit_split_t(density, mode)
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
    return Draws(x[rows, kept], beta[rows, kept], moved, statistics, 0, "split-t proposals", pareto_k=k)


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
