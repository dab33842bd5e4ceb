"""Variance of a predicted linear predictor: coefficients and group effects together, theta known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from bayeslmm.likelihood.cholesky import solve_half
from bayeslmm.likelihood.lmm import profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.likelihood.lmm import Solution

NUMBERS_AT_ONCE = 2_000_000


def prediction_variance(
    solution: Solution,
    X: NDArray[np.float64],
    Z: Sequence[NDArray[np.float64]],
    codes: Sequence[NDArray[np.int32]],
) -> NDArray[np.float64]:
    """Return the variance of x'(beta_hat - beta) + z'(b_hat - b) for each row, in units of sigma squared.

    With ``h = L⁻¹ Λ'z`` it is ``h'h + |RX⁻ᵀ (x - RZX'h)|²``.

    Parameters
    ----------
    solution : Solution
        A fit.
    X : ndarray (m, p)
        Rows of the fixed part.
    Z : sequence of ndarray (m, K)
        Rows of each factor's effects; zero where a factor does not count.
    codes : sequence of ndarray (m,)
        Levels; those outside the fitted ones have no effect.

    Returns
    -------
    ndarray (m,)
        Variances.

    References
    ----------
    Henderson (1975), *Biometrics* 31(2), the inverse of the mixed model equations.
    """
    model = solution.model
    products, analysis = model.products, model.analysis
    s, w = analysis.structure, model.workspace
    p = products.n_fixed
    root = np.empty(products.gram.shape)
    flat = model.layout.flat_templates(solution.theta)
    profile(s, w, flat, model.rhs, products.gram, model.n_rows, solution.reml, 0.0, root)
    half = w.half[:, :p].copy()
    fixed = solve_triangular(products.R0, X.T, trans="T") if p else np.zeros((0, len(X)))
    scaled = [z @ template for z, template in zip(Z, model.layout.templates(solution.theta), strict=True)]
    out = np.empty(len(X))
    step = max(1, NUMBERS_AT_ONCE // max(1, analysis.n_columns))
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        rhs = _right_hand_side(solution, [z[rows] for z in scaled], [code[rows] for code in codes])
        solve_half(s, w, rhs)
        rest = fixed[:, rows] - half.T @ rhs
        share = solve_triangular(root[:p, :p], rest, lower=True) if p else rest
        out[rows] = (rhs * rhs).sum(axis=0) + (share * share).sum(axis=0)
    return out


def _right_hand_side(
    solution: Solution, scaled: Sequence[NDArray[np.float64]], codes: Sequence[NDArray[np.int32]]
) -> NDArray[np.float64]:
    """Return Λ'z, one column per row to predict, in the engine's order."""
    analysis = solution.model.analysis
    count = len(scaled[0]) if scaled else 0
    rhs = np.zeros((analysis.n_columns, count))
    columns = np.arange(count)
    for first, z, code in zip(analysis.first_row, scaled, codes, strict=True):
        known = (code >= 0) & (code < len(first))
        at = first[code[known]]
        for k in range(z.shape[1]):
            rhs[at + k, columns[known]] = z[known, k]
    return rhs
