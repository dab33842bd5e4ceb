"""Group effects of a generalised model given its parameters: modes, their covariance, draws, variances of predictions.

Everything rests on the Gaussian at the mode: u ~ N(u_hat, A^-1) given the coefficients, and u_hat moves with them by
du_hat / d beta = -A^-1 Lambda' Z'WX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayeslmm.errors import FitError
from bayeslmm.likelihood.cholesky import solve_half, solve_other_half
from bayeslmm.likelihood.laplace import BORDER, INVERSE, LaplaceKernel, run
from bayeslmm.likelihood.pirls import State

Floats = NDArray[np.float64]
NUMBERS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Conditional:
    """The group effects at given parameters.

    Parameters
    ----------
    kernel : LaplaceKernel
        The model.
    theta : ndarray (m,)
        Covariance parameters.
    beta : ndarray (p,)
        Coefficients.
    aux : ndarray (a,)
        Log of the family's own parameter, or thresholds.
    state : State
        The mode and the factor of A there; nobody else's.
    """

    kernel: LaplaceKernel
    theta: Floats
    beta: Floats
    aux: Floats
    state: State

    @cached_property
    def templates(self) -> tuple[Floats, ...]:
        """Lambda of each factor (K, K)."""
        return self.kernel.layout.templates(self.theta)

    def by_level(self, factor: int, values: Floats) -> Floats:
        """Return the rows of one factor from the engine's order: (q, S) to (J, K, S)."""
        width = self.kernel.layout.n_effects[factor]
        return values[self.kernel.analysis.first_row[factor][:, None] + np.arange(width)]

    @cached_property
    def b(self) -> tuple[Floats, ...]:
        """Modes of the effects of each factor (J, K)."""
        return tuple(self.by_level(f, self.state.u)[:, :, 0] @ template.T for f, template in enumerate(self.templates))

    @cached_property
    def border(self) -> Floats:
        """Minus the derivative of u_hat in the coefficients of the columns as given (q, p)."""
        run(self.state, BORDER, templates=self.kernel.layout.flat_templates(self.theta))
        return np.asarray(self.state.border @ self.kernel.R0)

    @cached_property
    def _inverse_blocks(self) -> Floats:
        run(self.state, INVERSE)
        return self.state.inverse_values.copy()

    def conditional_cov(self, factor: int) -> Floats:
        """Return the covariance of the effects of each level given the coefficients.

        Parameters
        ----------
        factor : int
            Position in the design's factors.

        Returns
        -------
        ndarray (J, K, K)
        """
        s, first = self.kernel.structure, self.kernel.analysis.first_row[factor]
        width = self.kernel.layout.n_effects[factor]
        n_nodes = len(s.offset) - 1
        position = np.searchsorted(s.offset, first, side="right") - 1
        keys = s.block_column.astype(np.int64) * n_nodes + s.block_row
        starts = s.block_start[np.searchsorted(keys, position * (n_nodes + 1))]
        blocks = self._inverse_blocks[starts[:, None] + np.arange(width * width)].reshape(-1, width, width)
        template = self.templates[factor]
        return template @ blocks @ template.T

    def draws(self, rng: np.random.Generator, count: int, vcov: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        """Draw coefficients and group effects.

        Parameters
        ----------
        rng : numpy Generator
            Source.
        count : int
            Number S of draws.
        vcov : ndarray (p, p)
            Covariance of the coefficients.

        Returns
        -------
        beta : ndarray (S, p)
        effects : tuple of ndarray (S, J, K)
            One per factor.
        """
        values, vectors = np.linalg.eigh(vcov)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        moved = rng.standard_normal((count, len(values))) @ root.T
        u = rng.standard_normal((self.kernel.analysis.n_columns, count))
        solve_other_half(self.kernel.structure, self.state.work, u)
        u += self.state.u - self.border @ moved.T
        effects = tuple(
            np.einsum("kl,jls->sjk", template, self.by_level(f, u)) for f, template in enumerate(self.templates)
        )
        return self.beta + moved, effects

    def prediction_variance(
        self, X: Floats, Z: Sequence[Floats], codes: Sequence[NDArray[np.int32]], vcov: Floats
    ) -> Floats:
        """Return the variance of x'beta + z'b for each row, theta and the family's own parameter known.

        Parameters
        ----------
        X : ndarray (n, p)
            Rows of the fixed part.
        Z : sequence of ndarray (n, K)
            Rows of each factor's effects; zero where a factor does not count.
        codes : sequence of ndarray (n,)
            Levels; those outside the fitted ones have no effect.
        vcov : ndarray (p, p)
            Covariance of the coefficients.

        Returns
        -------
        ndarray (n,)
        """
        q = self.kernel.analysis.n_columns
        out = np.empty(len(X))
        step = max(1, NUMBERS_AT_ONCE // max(q, 1))
        for start in range(0, len(X), step):
            part = slice(start, min(len(X), start + step))
            v = np.zeros((q, part.stop - part.start))
            for f, template in enumerate(self.templates):
                first = self.kernel.analysis.first_row[f]
                level = codes[f][part]
                known = np.flatnonzero((level >= 0) & (level < len(first)))
                scaled = Z[f][part] @ template
                for k in range(scaled.shape[1]):
                    v[first[level[known]] + k, known] += scaled[known, k]
            rest = X[part] - v.T @ self.border
            solve_half(self.kernel.structure, self.state.work, v)
            out[part] = (v**2).sum(axis=0) + np.einsum("ij,jk,ik->i", rest, vcov, rest)
        return out


def conditional(kernel: LaplaceKernel, theta: ArrayLike, beta: ArrayLike, aux: ArrayLike = ()) -> Conditional:
    """Find the mode of the group effects at given parameters.

    Parameters
    ----------
    kernel : LaplaceKernel
        The model.
    theta : array_like (m,)
        Covariance parameters.
    beta : array_like (p,)
        Coefficients.
    aux : array_like (a,), optional
        Log of the family's own parameter, or thresholds.

    Returns
    -------
    Conditional

    Raises
    ------
    FitError
        If there is no mode.

    Examples
    --------
    >>> from bayeslmm.families import as_family
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> one, codes = np.ones((2, 1)), np.array([0, 1], dtype=np.int32)
    >>> layout = Layout((Covariance("us", 1),), (0,), (2,))
    >>> kernel = LaplaceKernel.from_arrays(as_family("poisson"), layout, np.array([1.0, 3.0]), one, [(one, codes)])
    >>> conditional(kernel, [1.0], [0.5]).b[0].ravel().round(4)
    array([-0.265,  0.44 ])
    """
    state = kernel.new_state()
    found = kernel.evaluate(theta, kernel.whiten(beta), aux, gradient=False, state=state)
    if not np.isfinite(found.value):
        raise FitError("the group effects have no mode at these parameters.")
    return Conditional(
        kernel=kernel,
        theta=np.asarray(theta, dtype=np.float64),
        beta=np.asarray(beta, dtype=np.float64),
        aux=np.asarray(aux, dtype=np.float64),
        state=state,
    )
