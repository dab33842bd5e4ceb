"""The obvious implementation, with n x n matrices: the witness that every fast path is tested against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def marginal_covariance(
    n_rows: int,
    blocks: Sequence[tuple[ArrayLike, ArrayLike]],
    templates: Sequence[NDArray[np.float64]],
    weights: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return V0 = Z Lambda Lambda' Z' + W^-1 (n, n), the covariance of y in units of sigma squared.

    Parameters
    ----------
    n_rows : int
        Number of observations.
    blocks : sequence of (Z, codes)
        Columns (n, K) and level of each row (n,), one pair per factor.
    templates : sequence of (K, K) arrays
        Lambda of each factor.
    weights : (n,) array_like, optional
        Prior weights.

    Returns
    -------
    (n, n) ndarray

    Examples
    --------
    >>> marginal_covariance(2, [(np.ones((2, 1)), [0, 0])], [np.array([[2.0]])])
    array([[5., 4.],
           [4., 5.]])
    """
    covariance = np.diag(np.ones(n_rows) if weights is None else 1.0 / np.asarray(weights, dtype=np.float64))
    for (Z, codes), template in zip(blocks, templates, strict=True):
        codes = np.asarray(codes)
        scaled = np.asarray(Z, dtype=np.float64) @ template
        covariance += (scaled @ scaled.T) * (codes[:, None] == codes[None, :])
    return covariance


def criterion(
    y: ArrayLike, X: NDArray[np.float64], covariance: NDArray[np.float64], reml: bool = True
) -> tuple[float, NDArray[np.float64], float]:
    """Return the profiled deviance or REML criterion, the coefficients and sigma, from the covariance of y.

    Parameters
    ----------
    y : (n,) array_like
        Response, offset taken off.
    X : (n, p) ndarray
        Fixed effects columns.
    covariance : (n, n) ndarray
        V0 as from `marginal_covariance`.
    reml : bool, default True
        REML criterion, or the ML deviance.

    Returns
    -------
    value : float
    beta : (p,) ndarray
    sigma : float

    Examples
    --------
    >>> value, beta, sigma = criterion([1.0, 3.0], np.ones((2, 1)), np.eye(2))
    >>> beta, round(sigma, 6)
    (array([2.]), 1.414214)
    """
    y = np.asarray(y, dtype=np.float64)
    precision = np.linalg.inv(covariance)
    information = X.T @ precision @ X
    beta = np.linalg.solve(information, X.T @ precision @ y) if X.shape[1] else np.zeros(0)
    rest = y - X @ beta
    degrees = len(y) - (X.shape[1] if reml else 0)
    pwrss = float(rest @ precision @ rest)
    value = np.linalg.slogdet(covariance)[1] + degrees * (1.0 + np.log(2.0 * np.pi * pwrss / degrees))
    if reml and X.shape[1]:
        value += np.linalg.slogdet(information)[1]
    return float(value), beta, float(np.sqrt(pwrss / degrees))
