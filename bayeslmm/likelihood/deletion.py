"""What the coefficients would be without some of the rows, theta unchanged: exact, and without a new fit.

Leaving rows I out of a generalised least squares fit is the same as giving each of them a column of its own. With
``P = V0⁻¹ - V0⁻¹X (X'V0⁻¹X)⁻¹ X'V0⁻¹`` and residuals r the new columns have coefficients ``P_II⁻¹ (P y)_I``, and
``P y = W r``, ``P_ii = w_i (1 - h_i)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, lapack, solve_triangular

from bayeslmm.likelihood.cholesky import solve_half, solve_other_half
from bayeslmm.likelihood.lmm import profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.likelihood.lmm import Solution

SMALLEST_SHARE = 1e-8


def coefficient_changes(
    solution: Solution, residuals: NDArray[np.float64], groups: Sequence[NDArray[np.intp]]
) -> NDArray[np.float64]:
    """Return how each coefficient falls when groups of rows are left out, theta unchanged.

    Parameters
    ----------
    solution : Solution
        A fit.
    residuals : ndarray (n,)
        Response minus fitted values, group effects included.
    groups : sequence of ndarray of intp
        Rows of each group.

    Returns
    -------
    ndarray (G, p)
        Coefficients with all rows minus coefficients without the group; NaN where the rest of the data do not
        determine them.

    References
    ----------
    Christensen, Pearson & Johnson (1992), *Technometrics* 34(1), 38-45; Demidenko & Stukel (2005), *Stat. Med.* 24(6).
    """
    model, rows = solution.model, solution.model.products.source
    s, w, p = model.analysis.structure, model.workspace, model.products.n_fixed
    weights = rows.weights if rows.weights.size else np.ones(model.n_rows)
    scores = _whitened_scores(solution, weights)
    to_beta = lapack.dtrtri(solution.RX)[0] if p else np.zeros((0, 0))
    scaled = [Z @ T for Z, T in zip(rows.Z, model.layout.templates(solution.theta), strict=True)]
    out = np.empty((len(groups), p))
    for position, group in enumerate(groups):
        half = np.zeros((model.analysis.n_columns, len(group)))
        for first, Z, codes in zip(model.analysis.first_row, scaled, rows.codes, strict=True):
            for k in range(Z.shape[1]):
                half[first[codes[group]] + k, np.arange(len(group))] = Z[group, k]
        solve_half(s, w, half)
        half *= weights[group]
        kernel = np.diag(weights[group]) - half.T @ half - scores[group] @ scores[group].T
        shift = _solve_definite(kernel, weights[group] * residuals[group], weights[group])
        out[position] = to_beta @ (scores[group].T @ shift)
    return out


def row_changes(
    solution: Solution, residuals: NDArray[np.float64], leverage: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the same for every single row, from the leverages.

    Parameters
    ----------
    solution : Solution
        A fit.
    residuals, leverage : ndarray (n,)
        Residuals with the group effects, and `Solution.leverage`.

    Returns
    -------
    ndarray (n, p)
        NaN for rows with leverage 1.
    """
    rows, p = solution.model.products.source, solution.model.products.n_fixed
    weights = rows.weights if rows.weights.size else np.ones(solution.model.n_rows)
    scores = _whitened_scores(solution, weights)
    rest = np.where(1 - leverage > SMALLEST_SHARE, 1 - leverage, np.nan)
    to_beta = lapack.dtrtri(solution.RX)[0] if p else np.zeros((0, 0))
    return (scores * (residuals / rest)[:, None]) @ to_beta.T


def _whitened_scores(solution: Solution, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return V0⁻¹ X RX⁻¹ (n, p), and leave the factorisation at theta in the workspace."""
    model, rows = solution.model, solution.model.products.source
    s, w, p = model.analysis.structure, model.workspace, model.products.n_fixed
    root = np.empty(model.products.gram.shape)
    flat = model.layout.flat_templates(solution.theta)
    profile(s, w, flat, model.rhs, model.products.gram, model.n_rows, solution.reml, 0.0, root)
    effects = w.half[:, :p].copy()
    if effects.size:
        solve_other_half(s, w, effects)
    whitened = solve_triangular(model.products.R0, rows.X.T, trans="T").T if p else np.zeros((model.n_rows, 0))
    templates = model.layout.templates(solution.theta)
    for first, Z, codes, template in zip(model.analysis.first_row, rows.Z, rows.codes, templates, strict=True):
        scaled = Z @ template
        at = first[codes]
        for k in range(scaled.shape[1]):
            whitened -= scaled[:, [k]] * effects[at + k]
    whitened *= weights[:, None]
    return solve_triangular(root[:p, :p], whitened.T, lower=True).T if p else whitened


def _solve_definite(
    matrix: NDArray[np.float64], rhs: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve a symmetric system, or return NaN where it is singular relative to `scale`."""
    unit = 1.0 / np.sqrt(scale)
    try:
        factor = cho_factor(matrix * np.outer(unit, unit), lower=True)
    except LinAlgError:
        return np.full(len(rhs), np.nan)
    if np.diag(factor[0]).min() ** 2 < SMALLEST_SHARE:
        return np.full(len(rhs), np.nan)
    return unit * cho_solve(factor, unit * rhs)
