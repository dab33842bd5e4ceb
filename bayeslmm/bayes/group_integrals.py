"""The likelihood of whole groups of models that are not Gaussian: a level's own effects integrated by quadrature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.bayes.responses import log_density_of_rows
from bayeslmm.errors import DataError
from bayeslmm.likelihood.quadrature import WIDEST, grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Factor

CHUNK_NUMBERS = 1 << 21
POINTS = {1: 15, 2: 9, 3: 7}
"""Points per dimension, by the number of effects of a level."""
NEWTON_STEPS = 12
CLOSE = 0.05
"""Distance to the mode, in standard deviations of the level's effects given its rows, at which Newton's steps end."""
LONGEST = 3.0
"""Longest step, in standard deviations of the effects between levels."""


def integrated_log_likelihood(post: Posterior, factor: Factor) -> NDArray[np.float64]:
    """Return the log likelihood of all rows of each level, the level's effects integrated out.

    For every draw of the parameters and of the other factors' effects, and every level, adaptive Gauss-Hermite
    quadrature: a product grid at the mode of the level's effects, scaled by the curvature there. Derivatives of the log
    density of a row are taken by differences in the linear predictor, so that every family with a density has them.

    Parameters
    ----------
    post : Posterior
        Draws.
    factor : Factor
        The grouping factor, at most three effects per level.

    Returns
    -------
    ndarray (S, J)
        Log densities.

    Raises
    ------
    DataError
        If there are too many effects for a grid.

    References
    ----------
    Pinheiro & Bates (1995), *J. Comput. Graph. Stat.* 4(1); Merkle, Furr & Rabe-Hesketh (2019), *Psychometrika* 84(3).
    """
    width = factor.Z.shape[1]
    if width > WIDEST:
        raise DataError(
            f"{factor.name!r} has {width} effects per level, and a grid integrates at most {WIDEST}.\n"
            "  kfold(group=...) leaves out whole groups of any model."
        )
    values = np.empty((post.n_draws, len(factor.levels)))
    step = max(1, CHUNK_NUMBERS // len(factor.codes))
    # Far nodes may leave the domain of a density; they then have probability zero.
    with np.errstate(all="ignore"):
        for start in range(0, post.n_draws, step):
            chosen = np.arange(start, min(start + step, post.n_draws))
            values[chosen] = _Integrand(post, factor, chosen).integrals()
    return values


class _Integrand:
    """Rows of some draws as functions of one factor's standardised effects u, b = Lambda u."""

    def __init__(self, post: Posterior, factor: Factor, chosen: NDArray[np.intp]) -> None:
        self.post, self.factor, self.chosen = post, factor, chosen
        self.levels, self.width = len(factor.levels), factor.Z.shape[1]
        others = [other.name for other in post.design.factors if other.name != factor.name]
        self.rest = post._linear(post.design, chosen, "error", others, None)
        covariance = post.effect_covariances()[factor.name][chosen]
        self.root = np.linalg.cholesky(covariance + 1e-300 * np.eye(self.width))
        effects = post.draws(f"b_{factor.name}")[chosen]
        self.start = np.linalg.solve(self.root[:, None], effects[..., None])[..., 0]
        spread = np.sqrt(np.einsum("nk,skl,nl->s", factor.Z, covariance, factor.Z) / len(factor.codes))
        self.step = 0.1 * (spread if post.response.link == "identity" else np.minimum(spread, 1.0))[:, None]
        # Rows in the order of their levels, so that sums over a level are sums over neighbours.
        self.order = np.argsort(factor.codes, kind="stable")
        self.first = np.searchsorted(factor.codes[self.order], np.arange(self.levels))

    def predictor(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the linear predictor (S, n) at effects (S, J, K)."""
        effects = np.einsum("skl,sjl->sjk", self.root, u)
        return self.rest + np.einsum("snk,nk->sn", effects[:, self.factor.codes], self.factor.Z)

    def density(self, eta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log density of each row (S, n), minus infinity where there is none."""
        found = log_density_of_rows(self.post, self.post.design, eta, self.chosen)
        return np.where(np.isnan(found), -np.inf, found)

    def by_level(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sums (S, J) over the rows of each level."""
        return np.add.reduceat(rows[:, self.order], self.first, axis=1)

    def newton(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Newton's step (S, J, K) and the precision (S, J, K, K) at effects u."""
        eta, h, Z = self.predictor(u), self.step, self.factor.Z
        here, up, down = self.density(eta), self.density(eta + h), self.density(eta - h)
        first = np.nan_to_num((up - down) / (2 * h), posinf=0.0, neginf=0.0)
        second = np.nan_to_num((up - 2 * here + down) / h**2, posinf=0.0, neginf=0.0)
        slope = np.stack([self.by_level(first * Z[:, k]) for k in range(self.width)], axis=-1)
        curvature = np.empty((*u.shape, self.width))
        for k in range(self.width):
            for m in range(k + 1):
                curvature[:, :, k, m] = curvature[:, :, m, k] = self.by_level(
                    np.maximum(-second, 0.0) * Z[:, k] * Z[:, m]
                )
        gradient = np.einsum("slk,sjl->sjk", self.root, slope) - u
        precision = np.einsum("sla,sjlm,smb->sjab", self.root, curvature, self.root) + np.eye(self.width)
        return np.linalg.solve(precision, gradient[..., None])[..., 0], precision

    def centre(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the modes (S, J, K) and the lower roots (S, J, K, K) of the precision there."""
        u = self.start
        for _ in range(NEWTON_STEPS):
            move, precision = self.newton(u)
            length = np.sqrt(np.square(move).sum(axis=-1, keepdims=True))
            move = move * np.minimum(1.0, LONGEST / np.maximum(length, 1e-300))
            u = u + move
            if np.einsum("sja,sjab,sjb->sj", move, precision, move).max() < CLOSE**2:
                break
        return u, np.linalg.cholesky(precision)

    def integrals(self) -> NDArray[np.float64]:
        """Return log integrals (S, J)."""
        mode, lower = self.centre()
        nodes, log_weights = grid(POINTS[self.width], self.width)
        across = np.linalg.inv(lower).swapaxes(-1, -2)
        terms = np.empty((len(nodes), *mode.shape[:2]))
        for g, node in enumerate(nodes):
            u = mode + across @ node
            terms[g] = log_weights[g] + self.by_level(self.density(self.predictor(u))) - 0.5 * np.square(u).sum(axis=-1)
        top = terms.max(axis=0)
        total = top + np.log(np.exp(terms - top).sum(axis=0))
        log_det = np.log(np.einsum("sjkk->sjk", lower)).sum(axis=-1)
        return total - log_det - 0.5 * self.width * np.log(2 * np.pi)
