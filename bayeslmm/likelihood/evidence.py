"""The Bayesian evidence of a linear mixed model: coefficients and group effects integrated out exactly.

With beta ~ N(m, S), or a flat prior, and sigma a parameter in its own right, Q = [X y]' V0^-1 [X y] gives

    P = Q_xx / sigma^2 + S^-1,   h = Q_xy / sigma^2 + S^-1 m,   beta~ = P^-1 h
    log p(y) = - n/2 log(2 pi sigma^2) - 1/2 (log|A| + log|S| + log|P|)
               - 1/2 (Q_yy / sigma^2 + m' S^-1 m - h' beta~)
    d/dQ     = - (v v' + P^-1) / (2 sigma^2),   v = (-beta~, 1)

and after sampling, beta and the group effects are drawn from their exact joint distribution given the rest. A sampler's
compiled log density does the same steps through `bayeslmm.likelihood.factor`: `factorise(w, templates)`,
`reduce_products(w, templates, rhs, gram, Q)`, then `pull_back(w, templates, rhs, F, -1/2, -1/(2 sigma^2), out)` with
F F' = v v' + P^-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from bayeslmm.likelihood.lmm import LmmKernel

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """The log evidence at one point, its gradient, and the distribution of coefficients and effects there.

    Parameters
    ----------
    model : LmmKernel
        The design.
    templates : tuple of (K, K)
        Lambda of each factor.
    sigma : float
        Residual standard deviation.
    value : float
        Log evidence, minus infinity where it cannot be computed.
    mean : (p,)
        Mean of the coefficients given templates and sigma.
    covariance : (p, p)
        Their covariance.
    """

    model: LmmKernel
    templates: tuple[Floats, ...]
    sigma: float
    value: float
    mean: Floats
    covariance: Floats

    def _reduce(self) -> tuple[Floats, Floats, Floats]:
        """Factorise, and return Q, the whitened mean and the root of the whitened covariance."""
        R0 = self.model.products.R0
        covariance = R0 @ self.covariance @ R0.T
        root = np.linalg.cholesky(covariance) if len(R0) else covariance
        return self.model.reduced(self.templates), R0 @ (self.mean - self.model.products.beta0), root

    @cached_property
    def gradient(self) -> tuple[tuple[Floats, ...], float]:
        """Derivatives in the entries of each factor's template (K, K), lower triangle, and in sigma."""
        Q, shifted, root = self._reduce()
        p, sigma = len(shifted), self.sigma
        mixing = np.zeros((p + 1, p + 1))
        mixing[:p, :p] = root
        mixing[:, p] = np.append(-shifted, 1.0)
        flat = self.model.pull_back(mixing, -0.5, -0.5 / sigma**2)
        spread = float(np.einsum("ic,kc,ik->", mixing, mixing, Q))
        return self.model.layout.unflatten(flat), spread / sigma**3 - self.model.n_rows / sigma

    def draws(self, rng: np.random.Generator, n: int) -> tuple[Floats, tuple[Floats, ...]]:
        """Draw coefficients (n, p) and group effects, (n, J, K) for each factor, given templates and sigma."""
        _, shifted, root = self._reduce()
        whitened = shifted[:, None] + root @ rng.standard_normal((len(shifted), n))
        noise = self.sigma * rng.standard_normal((self.model.analysis.n_columns, n))
        beta = self.model.products.beta0 + (self.model.products.whitener @ whitened).T
        return beta, self.model.effects_given(whitened, noise, self.templates)


def log_evidence(
    templates: Sequence[ArrayLike],
    sigma: float,
    model: LmmKernel,
    prior_mean: ArrayLike | None = None,
    prior_precision: ArrayLike | None = None,
) -> Evidence:
    """Return the log density of the response with coefficients and group effects integrated out.

    Parameters
    ----------
    templates : sequence of (K, K)
        Lambda of each factor: `Lambda @ Lambda.T * sigma**2` is the covariance of a level's effects.
    sigma : float
        Residual standard deviation.
    model : LmmKernel
        The design.
    prior_mean : (p,) array_like, optional
        Mean of the coefficients' normal prior; 0 when absent.
    prior_precision : (p, p) array_like, optional
        Inverse of its covariance; a flat prior of density 1 when absent.

    Returns
    -------
    Evidence

    Examples
    --------
    >>> import numpy as np
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> from bayeslmm.likelihood.crossproducts import cross_products
    >>> terms = [(np.ones((4, 1)), [0, 0, 1, 1], 2)]
    >>> products = cross_products([1.0, 2, 4, 5], np.ones((4, 1)), terms)
    >>> model = LmmKernel(products, Layout((Covariance("us", 1),), (0,), (2,)))
    >>> round(log_evidence([[[2.0]]], 0.7, model).value, 6)
    -5.519367
    """
    blocks = tuple(np.array(template, dtype=np.float64, ndmin=2) for template in templates)
    products = model.products
    p = products.n_fixed
    Q = model.reduced(blocks)
    log_det = model.log_det_A
    mean = np.zeros(p) if prior_mean is None else np.asarray(prior_mean, dtype=np.float64)
    shifted = products.R0 @ (mean - products.beta0)
    precision = np.zeros((p, p))
    log_det_prior = -p * np.log(2.0 * np.pi)
    if prior_precision is not None:
        given = np.asarray(prior_precision, dtype=np.float64)
        precision = products.whitener.T @ given @ products.whitener
        log_det_prior = -float(np.linalg.slogdet(given)[1])
    P = Q[:p, :p] / sigma**2 + precision
    h = Q[:p, p] / sigma**2 + precision @ shifted
    root, failed = lapack.dpotrf(P, lower=1) if p else (P, 0)
    if failed or not np.isfinite(Q).all():
        return Evidence(model, blocks, sigma, -np.inf, np.full(p, np.nan), np.full((p, p), np.nan))
    inverse = lapack.dtrtri(root, lower=1)[0] if p else root
    centre = inverse.T @ (inverse @ h)
    log_det_P = 2.0 * (np.log(np.diag(root)).sum() + products.logdet_R0)
    square = Q[p, p] / sigma**2 + shifted @ precision @ shifted - h @ centre
    value = -0.5 * (
        model.n_rows * np.log(2.0 * np.pi * sigma**2)
        - products.sum_log_weights
        + log_det
        + log_det_prior
        + log_det_P
        + square
    )
    return Evidence(
        model,
        blocks,
        sigma,
        float(value) if np.isfinite(value) else -np.inf,
        products.beta0 + products.whitener @ centre,
        products.whitener @ inverse.T @ inverse @ products.whitener.T,
    )
