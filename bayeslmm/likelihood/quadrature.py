"""Adaptive Gauss-Hermite quadrature for one grouping factor with one to three effects per level.

With the mode u_j of level j and A_j = L L' its curvature, the integral over the k effects of that level is taken on a
product grid centred at u_j and scaled by L'^-1. One point is the Laplace approximation. lme4 offers scalar effects;
Stata's mean-variance adaptive quadrature, and this, vectors.

References
----------
Pinheiro & Bates (1995), Approximations to the log-likelihood function in the nonlinear mixed-effects model, *J. Comput.
Graph. Stat.* 4(1); Rabe-Hesketh, Skrondal & Pickles (2005), *J. Econometrics* 128(2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayeslmm.errors import FitError
from bayeslmm.likelihood._compiled import c_entry
from bayeslmm.likelihood.factor import solve_other_half
from bayeslmm.likelihood.families_jit import row_terms
from bayeslmm.likelihood.laplace import FACTOR, LaplaceKernel, glmm_at, run
from bayeslmm.likelihood.pirls import State
from bayeslmm.likelihood.record import Fields, record_at

Floats = NDArray[np.float64]
WIDEST = 3
"""Effects per level up to which a product grid is practical."""


def grid(points: int, width: int) -> tuple[Floats, Floats]:
    """Return nodes (G, width) of a standard normal and the log of their weights divided by its density.

    Parameters
    ----------
    points : int
        Points per dimension.
    width : int
        Dimensions.

    Returns
    -------
    nodes : ndarray (G, width)
    log_weights : ndarray (G,)

    Examples
    --------
    >>> nodes, log_weights = grid(1, 2)
    >>> nodes.shape, round(float(log_weights[0]), 6)
    ((1, 2), 1.837877)
    """
    x, w = np.polynomial.hermite_e.hermegauss(points)
    nodes = np.stack(np.meshgrid(*[x] * width, indexing="ij"), axis=-1).reshape(-1, width)
    single = np.log(w) + 0.5 * x**2
    logs = np.stack(np.meshgrid(*[single] * width, indexing="ij"), axis=-1).reshape(-1, width).sum(axis=1)
    return nodes, logs


LEVELS = Fields("Levels", "glmm:int nodes:f2 log_weights:f1 starts:l1 order:l1 scaled:f2 values:f2")
levels_at = record_at(LEVELS)


@c_entry
def level_integrals(address):  # type: ignore[no-untyped-def]
    """Fill values (G, J): log of integrand times weight at each node of each level. A C function of a record."""
    levels = levels_at(address)
    g, nodes, scaled = glmm_at(levels.glmm), levels.nodes, levels.scaled
    cells, state, templates = g.cells, g.state, g.templates
    k = nodes.shape[1]
    for node in range(nodes.shape[0]):
        for j in range(scaled.shape[0]):
            scaled[j, 0] = nodes[node, j % k]
        solve_other_half(state.work, scaled)
        for level in range(levels.starts.size - 1):
            base = level * k
            value = levels.log_weights[node]
            for a in range(k):
                value -= 0.5 * (state.u[base + a, 0] + scaled[base + a, 0]) ** 2
            for item in range(levels.starts[level], levels.starts[level + 1]):
                i = levels.order[item]
                eta = state.eta[i]
                for a in range(k):
                    shift = 0.0
                    for b in range(a + 1):
                        shift += templates[a * k + b] * scaled[base + b, 0]
                    eta += cells.Z[i, a] * shift
                terms = row_terms(g.family, g.link, cells.y[i], cells.size[i], cells.extra[i], eta, g.aux)
                value += cells.weight[i] * terms[0]
            levels.values[node, level] = value
    return 0.0


def check_quadrature(kernel: LaplaceKernel, points: int) -> None:
    """Refuse quadrature where the integral does not factor into small ones.

    Parameters
    ----------
    kernel : LaplaceKernel
        The model.
    points : int
        Points per dimension.

    Raises
    ------
    FitError
        If there are several grouping factors, more than three effects per level, or no sensible number of points.
    """
    if points != int(points) or not 0 <= points <= 100:
        raise FitError(f"quadrature={points!r} is not a number of points from 0 to 100; 1 is Laplace, 9 is plenty.")
    if points <= 1:
        return
    if len(kernel.layout.n_levels) != 1:
        raise FitError(
            f"quadrature={points} needs one grouping factor; this model has {len(kernel.layout.n_levels)}, and with "
            "several the integral does not factor.\n"
            "  quadrature=1 (Laplace) fits it; sample() tells how good the approximation is."
        )
    width = kernel.layout.n_effects[0]
    if width > WIDEST:
        raise FitError(
            f"quadrature={points} needs a grid of {points}^{width} points per level: at most {WIDEST} effects per "
            "level are integrated.\n  quadrature=1 (Laplace) fits the model."
        )


def adaptive_loglik(
    kernel: LaplaceKernel,
    theta: ArrayLike,
    white_beta: ArrayLike,
    aux: ArrayLike,
    points: int,
    state: State | None = None,
) -> float:
    """Return the log-likelihood by adaptive Gauss-Hermite quadrature.

    Parameters
    ----------
    kernel : LaplaceKernel
        A model with one grouping factor.
    theta : array_like (m,)
        Relative covariance parameters.
    white_beta : array_like (p,)
        Coefficients of the whitened columns.
    aux : array_like (a,)
        Log of the family's own parameter, or the thresholds.
    points : int
        Points per dimension.
    state : State, optional
        Where to keep the mode.

    Returns
    -------
    float
        Not a number where there is no mode.

    Examples
    --------
    >>> import numpy as np
    >>> from bayeslmm.families import as_family
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> one, codes = np.ones((2, 1)), np.array([0, 1], dtype=np.int32)
    >>> layout = Layout((Covariance("us", 1),), (0,), (2,))
    >>> kernel = LaplaceKernel.from_arrays(as_family("bernoulli"), layout, np.array([0.0, 1.0]), one, [(one, codes)])
    >>> round(adaptive_loglik(kernel, [2.0], [0.0], [], 25), 6)
    -1.386294
    """
    state = kernel.state if state is None else state
    if np.isnan(kernel.evaluate(theta, white_beta, aux, gradient=False, state=state).value):
        return np.nan
    width = kernel.layout.n_effects[0]
    nodes, log_weights = grid(points, width)
    starts, order = levels_in_engine_order(kernel)
    values = np.empty((len(nodes), len(starts) - 1))
    flat, own = kernel.layout.flat_templates(theta), np.array(aux, dtype=np.float64).reshape(-1)
    log_a = run(state, FACTOR, templates=flat, aux=own)
    fields = (state.handle.ctypes.data, nodes, log_weights, starts, order, np.empty_like(state.u), values)
    words = LEVELS.words(fields)
    level_integrals.native(words.ctypes.data)
    top = values.max(axis=0)
    integrals = top + np.log(np.exp(values - top).sum(axis=0))
    q = width * (len(starts) - 1)
    return float(integrals.sum() - 0.5 * log_a - 0.5 * q * np.log(2 * np.pi) + kernel.constant)


def levels_in_engine_order(kernel: LaplaceKernel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each level's cells start, levels in engine order, and the cells in that order.

    Parameters
    ----------
    kernel : LaplaceKernel
        A model with one grouping factor.

    Returns
    -------
    starts : ndarray (J + 1,)
    order : ndarray (n,)
    """
    level = kernel.cells.at[:, 0] // kernel.layout.n_effects[0]
    order = np.argsort(level, kind="stable")
    counts = np.bincount(level, minlength=kernel.layout.n_levels[0])
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), order.astype(np.int64)
