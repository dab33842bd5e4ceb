"""The log posterior of variance parameters, coefficients and group effects integrated out: compiled, with its gradient.

With intercept and predictors centred (coefficients gamma, beta = T^-1 gamma), gamma_s the coefficients that are part of
the sampled vector, gamma_r the others with independent normal (or flat) priors N(m, D^-1), and Q from the likelihood
kernel in its whitened coordinates, the residual of the sampled coefficients is the direction

    v = [-W_s (gamma_s - T beta0), 1],    V = [W_r, 0],    W = R0 T^-1
    P = V'QV / sigma² + D,   h = V'Qv / sigma² + D m,   g = P^-1 h
    log p(y | Lambda, sigma, gamma_s) = -n/2 log(2 pi sigma²) - ½ log|A| + ½ log|D| - ½ log|P|
                                        - ½ (v'Qv / sigma² + m'Dm - h'g)

and its derivative in Q is -F F' / (2 sigma²) with F = [V P^-½, v - V g]. Everything is one compiled function of the
sampled vector, the same for every model: nothing is compiled per model.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, pi
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.experimental import structref

from bayeslmm.bayes.coordinates import Coordinates, coordinates, pull, unpack
from bayeslmm.bayes.priors import Priors, has_intercept
from bayeslmm.bayes.residual_part import ResidualPart, ResidualState
from bayeslmm.likelihood._compiled import address_of, compiled
from bayeslmm.likelihood.cholesky import factorise, pull_back, reduce_products, solve_other_half
from bayeslmm.likelihood.lmm import LmmKernel, small_cholesky, small_inverse_root
from bayeslmm.likelihood.residual import ResidualKernel, ResidualRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design


@structref.register
class StateType(types.StructRef):
    """Numba's type of `State`."""

    def preprocess_fields(self, fields: Any) -> Any:
        """Forget literal values, so that all models share one compiled function."""
        return tuple((name, types.unliteral(kind)) for name, kind in fields)


class State(structref.StructRefProxy):
    """All that the compiled log posterior reads, handed over as one pointer; one per thread."""

    def __new__(cls, *fields: Any) -> Any:
        """Make the record in compiled code."""
        return structref.StructRefProxy.__new__(cls, *fields)


FIELDS = (
    "structure",
    "work",
    "rhs",
    "gram",
    "plan",
    "V",
    "W_sampled",
    "origin",
    "prior_mean",
    "prior_precision",
    "constant",
    "n_rows",
    "centre",
    "spread",
)
structref.define_proxy(State, StateType, list(FIELDS))


@compiled
def new_state(  # type: ignore[no-untyped-def]
    structure,
    work,
    rhs,
    gram,
    plan,
    V,
    W_sampled,
    origin,
    prior_mean,
    prior_precision,
    constant,
    n_rows,
    centre,
    spread,
):
    """Make a `State`; the compiled constructor is cached on disk."""
    return State(
        structure, work, rhs, gram, plan, V, W_sampled, origin, prior_mean, prior_precision, constant, n_rows, centre,
        spread,
    )  # fmt: skip


@compiled
def evidence(e, sigma, sampled, log_det, Q, mixing, direction, mean, root):  # type: ignore[no-untyped-def]
    """Return log p(y | Lambda, sigma, sampled coefficients); `Q` (lower triangle filled) is made symmetric.

    Fills `mixing` (p + 1, r + 1) with F, `direction` (p + 1,) with v, `mean` (r,) with g and `root` (r, r) with the
    Cholesky factor of P.
    """
    size, r = e.V.shape
    precision = 1.0 / (sigma * sigma)
    for i in range(size):
        for j in range(i):
            Q[j, i] = Q[i, j]
    for i in range(size):
        total = 1.0 if i == size - 1 else 0.0
        for j in range(sampled.size):
            total -= e.W_sampled[i, j] * (sampled[j] - e.origin[j])
        direction[i] = total
    QV = np.zeros((size, r))
    Qv = np.zeros(size)
    for i in range(size):
        for l in range(size):
            Qv[i] += Q[i, l] * direction[l]
            for c in range(r):
                QV[i, c] += Q[i, l] * e.V[l, c]
    quadratic = 0.0
    for i in range(size):
        quadratic += direction[i] * Qv[i]
    quadratic *= precision
    h = np.empty(r)
    for a in range(r):
        h[a] = e.prior_precision[a] * e.prior_mean[a]
        quadratic += h[a] * e.prior_mean[a]
        for i in range(size):
            h[a] += precision * e.V[i, a] * Qv[i]
        for b in range(a + 1):
            total = e.prior_precision[a] if a == b else 0.0
            for i in range(size):
                total += precision * e.V[i, a] * QV[i, b]
            root[a, b] = total
    small_cholesky(address_of(root), r)
    inverse = np.empty((r, r))
    small_inverse_root(address_of(root), address_of(inverse), r)
    value = e.constant - e.n_rows * log(sigma) - 0.5 * log_det
    half = np.zeros(r)
    for a in range(r):
        value -= log(root[a, a])
        for b in range(a + 1):
            half[a] += inverse[a, b] * h[b]
        quadratic -= half[a] * half[a]
    for a in range(r):
        mean[a] = 0.0
        for b in range(a, r):
            mean[a] += inverse[b, a] * half[b]
    for i in range(size):
        last = direction[i]
        for a in range(r):
            last -= e.V[i, a] * mean[a]
            total = 0.0
            for b in range(a + 1):
                total += e.V[i, b] * inverse[a, b]
            mixing[i, a] = total
        mixing[i, r] = last
    return value - 0.5 * quadratic


@compiled
def log_posterior(e, x, gradient):  # type: ignore[no-untyped-def]
    """Return the log posterior of the sampled vector; fill its `gradient`. -inf where numbers overflow."""
    gradient[:] = 0.0
    flat = np.empty(e.plan.terms.template_start[-1] + e.plan.terms.factor_k[-1] ** 2)
    scales = np.empty(e.plan.scale_at.size)
    sampled = np.empty(e.plan.sampled.size)
    prior = unpack(e.plan, x, flat, scales, sampled)
    sigma = scales[scales.size - 1]
    if not (prior > -inf and prior < inf and sigma > 1e-150 and sigma < 1e150):
        return -inf
    size, r = e.V.shape
    Q = np.empty((size, size))
    mixing, direction = np.empty((size, r + 1)), np.empty(size)
    mean, root = np.empty(r), np.empty((r, r))
    log_det = factorise(e.structure, e.work, flat)
    reduce_products(e.structure, e.work, flat, e.rhs, e.gram, Q)
    value = prior + evidence(e, sigma, sampled, log_det, Q, mixing, direction, mean, root)
    if not (value > -inf and value < inf):
        return -inf
    precision = 1.0 / (sigma * sigma)
    by_flat = np.empty(flat.size)
    pull_back(e.structure, e.work, flat, e.rhs, mixing, -0.5, -0.5 * precision, by_flat)
    trace = 0.0
    by_sampled = np.zeros(sampled.size)
    for i in range(size):
        for c in range(r + 1):
            total = 0.0
            for l in range(size):
                total += Q[i, l] * mixing[l, c]
            trace += total * mixing[i, c]
            if c == r:
                for j in range(sampled.size):
                    by_sampled[j] += precision * e.W_sampled[i, j] * total
    by_sigma = (trace * precision - e.n_rows) / sigma
    pull(e.plan, x, scales, by_flat, by_sigma, by_sampled, gradient)
    for i in range(x.size):
        if not (gradient[i] > -inf and gradient[i] < inf):
            gradient[:] = 0.0
            return -inf
    return value


@compiled
def whitened_log_posterior(e, w):  # type: ignore[no-untyped-def]
    """Return the log posterior and its gradient in coordinates w, x = centre + spread w."""
    d = w.size
    x, by_x, gradient = np.empty(d), np.empty(d), np.zeros(d)
    for i in range(d):
        total = e.centre[i]
        for j in range(d):
            total += e.spread[i, j] * w[j]
        x[i] = total
    value = log_posterior(e, x, by_x)
    for i in range(d):
        for j in range(d):
            gradient[j] += e.spread[i, j] * by_x[i]
    return value, gradient


@compiled
def draw_effects(e, points, coefficient_noise, effect_noise, gamma, effects, values):  # type: ignore[no-untyped-def]
    """Draw coefficients and group effects from their exact conditional at each of the `points` (S, d).

    Fills `gamma` (S, r), the integrated coefficients less their origin, and `effects` (S, q) in the kernel's order,
    from standard normal `coefficient_noise` (S, r) and `effect_noise` (S, q), and `values` (S,) with the log posterior.
    """
    size, r = e.V.shape
    q = e.rhs.shape[0]
    flat = np.empty(e.plan.terms.template_start[-1] + e.plan.terms.factor_k[-1] ** 2)
    scales = np.empty(e.plan.scale_at.size)
    sampled = np.empty(e.plan.sampled.size)
    Q, mixing, direction = np.empty((size, size)), np.empty((size, r + 1)), np.empty(size)
    mean, root, inverse = np.empty(r), np.empty((r, r)), np.empty((r, r))
    u = np.empty((q, 1))
    for draw in range(points.shape[0]):
        prior = unpack(e.plan, points[draw], flat, scales, sampled)
        sigma = scales[scales.size - 1]
        log_det = factorise(e.structure, e.work, flat)
        reduce_products(e.structure, e.work, flat, e.rhs, e.gram, Q)
        value = prior + evidence(e, sigma, sampled, log_det, Q, mixing, direction, mean, root)
        values[draw] = value if value > -inf and value < inf else -inf
        small_inverse_root(address_of(root), address_of(inverse), r)
        for a in range(r):
            total = mean[a]
            for b in range(a, r):
                total += inverse[b, a] * coefficient_noise[draw, b]
            gamma[draw, a] = total
        for i in range(size):
            for a in range(r):
                direction[i] -= e.V[i, a] * gamma[draw, a]
        for row in range(q):
            total = sigma * effect_noise[draw, row]
            for i in range(size):
                total += e.work.half[row, i] * direction[i]
            u[row, 0] = total
        solve_other_half(e.structure, e.work, u)
        for node in range(e.structure.node_factor.size):
            f = e.structure.node_factor[node]
            k, base, own = e.structure.factor_k[f], e.structure.template_start[f], e.structure.offset[node]
            for i in range(k):
                total = 0.0
                for j in range(i + 1):
                    total += flat[base + i * k + j] * u[own + j, 0]
                effects[draw, own + i] = total


@dataclass(frozen=True)
class LogPosterior:
    """The marginal log posterior of a Gaussian model as a Python object.

    Parameters
    ----------
    design : Design
        The formula met by data.
    kernel : LmmKernel
        Its likelihood kernel.
    coordinates : Coordinates
        What the sampled vector means.
    integrated : tuple of int
        Positions of the coefficients that are integrated out.
    shear : ndarray (p, p)
        T: centred coefficients are T beta.
    fields : tuple
        What `new_state` needs beside the structure and a workspace.
    residual : ResidualPart, optional
        Parameters of unequal or correlated residuals, which follow the sampled vector of `coordinates`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> density = log_posterior_of(m.design, m.priors, m.kernel)
    >>> density.coordinates.names
    ('sd_Batch[Intercept]', 'sigma')
    """

    design: Design
    kernel: LmmKernel
    coordinates: Coordinates
    integrated: tuple[int, ...]
    shear: NDArray[np.float64]
    fields: tuple[Any, ...]
    residual: ResidualPart | None = None

    @property
    def size(self) -> int:
        """Number of sampled parameters."""
        return self.coordinates.size + (0 if self.residual is None else self.residual.size)

    @property
    def seconds(self) -> float:
        """What an evaluation costs on a usual processor, counted from the structure of the factor."""
        return self.kernel.analysis.seconds * (1 if self.residual is None else 1 + 4 * self.residual.size)

    @property
    def coefficients_at(self) -> slice:
        """Where the sampled coefficients stand in the sampled vector."""
        return slice(self.coordinates.size - len(self.coordinates.plan.sampled), self.coordinates.size)

    def state(self, centre: NDArray[np.float64] | None = None, spread: NDArray[np.float64] | None = None) -> Any:
        """Return a state with a workspace of its own, for one thread.

        Parameters
        ----------
        centre : ndarray (d,), optional
            Origin of whitened coordinates.
        spread : ndarray (d, d), optional
            Their axes.

        Returns
        -------
        State or ResidualState
            For `evaluate`, `evaluate_whitened` and `draw`.
        """
        centre = np.zeros(self.size) if centre is None else np.ascontiguousarray(centre)
        spread = np.eye(self.size) if spread is None else np.ascontiguousarray(spread)
        work = self.kernel.new_workspace()
        if self.residual is None:
            return new_state(self.kernel.analysis.structure, work, *self.fields, centre, spread)
        moved = self.residual.arrays()
        d = self.coordinates.size
        structure = self.kernel.analysis.structure._replace(block_values=moved.blocks)
        inner = new_state(structure, work, moved.rhs, moved.gram, *self.fields[2:], np.zeros(d), np.eye(d))
        return ResidualState(inner, moved, centre, spread)

    def evaluate(self, state: Any, x: NDArray[np.float64], gradient: NDArray[np.float64]) -> float:
        """Return the log posterior of the sampled vector x (d,) and fill its gradient (d,)."""
        if self.residual is None:
            return float(log_posterior(state, x, gradient))
        return self.residual.log_posterior(state, x, gradient, log_posterior)

    def evaluate_whitened(self, state: Any, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log posterior and its gradient in whitened coordinates w (d,)."""
        if self.residual is None:
            return whitened_log_posterior(state, w)
        gradient = np.zeros(self.size)
        value = self.evaluate(state, state.centre + state.spread @ w, gradient)
        return value, state.spread.T @ gradient

    def draw(
        self,
        state: Any,
        points: NDArray[np.float64],
        coefficient_noise: NDArray[np.float64],
        effect_noise: NDArray[np.float64],
        gamma: NDArray[np.float64],
        effects: NDArray[np.float64],
        values: NDArray[np.float64],
    ) -> None:
        """Draw coefficients and group effects given each of the points (S, d); see `draw_effects`."""
        if self.residual is None:
            draw_effects(state, points, coefficient_noise, effect_noise, gamma, effects, values)
            return
        d = self.coordinates.size
        for i, point in enumerate(points):
            one = slice(i, i + 1)
            self.residual.move(state, point[d:])
            start = np.ascontiguousarray(point[None, :d])
            draw_effects(
                state.inner, start, coefficient_noise[one], effect_noise[one], gamma[one], effects[one], values[one]
            )
            values[i] += self.residual.constant(point[d:])

    def value_and_gradient(self, x: NDArray[np.float64], state: Any = None) -> tuple[float, NDArray[np.float64]]:
        """Return the log posterior density of x, normalised up to the evidence, and its gradient.

        Parameters
        ----------
        x : ndarray (d,)
            A point.
        state : State, optional
            Reused when given.

        Returns
        -------
        float, ndarray (d,)
            Value and gradient.
        """
        gradient = np.empty(self.size)
        x = np.ascontiguousarray(x, dtype=np.float64)
        return self.evaluate(self.state() if state is None else state, x, gradient), gradient

    def coefficients(self, gamma: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return draws of beta from those of the integrated coefficients and the sampled vector.

        Parameters
        ----------
        gamma : ndarray (S, r)
            From `draw_effects`.
        x : ndarray (S, d)
            Sampled vectors.

        Returns
        -------
        ndarray (S, p)
            Coefficients as in the design.
        """
        sampled = self.coordinates.plan.sampled
        centred = np.empty((len(x), len(self.shear)))
        origin = self.shear @ self.kernel.products.beta0
        centred[:, list(self.integrated)] = gamma + origin[list(self.integrated)]
        centred[:, sampled] = x[:, self.coefficients_at]
        return np.linalg.solve(self.shear, centred.T).T if self.shear.size else centred


def shear_of(design: Design) -> NDArray[np.float64]:
    """Return T (p, p) with T beta the coefficients for centred predictors: only the intercept differs.

    Parameters
    ----------
    design : Design
        Columns and names.

    Returns
    -------
    ndarray (p, p)
        Identity but for the intercept's row, which holds the means of the columns.
    """
    T = np.eye(len(design.coef_names))
    if has_intercept(design):
        T[design.coef_names.index("Intercept")] = [design.moments(column)[0] for column in design.condensed.X.T]
    return T


def log_posterior_of(design: Design, priors: Priors, kernel: LmmKernel) -> LogPosterior:
    """Return the marginal log posterior of a Gaussian model.

    Parameters
    ----------
    design : Design
        The formula met by data.
    priors : Priors
        All of families the exact engine knows.
    kernel : LmmKernel
        The likelihood kernel.

    Returns
    -------
    LogPosterior
        The density.
    """
    where = coordinates(design, priors, kernel.layout)
    sampled = where.plan.sampled
    integrated = np.array([i for i in range(len(design.coef_names)) if i not in set(sampled)], dtype=np.int64)
    shear = shear_of(design)
    products = kernel.products
    whitened = np.vstack([products.R0 @ np.linalg.inv(shear), np.zeros((1, len(shear)))])
    origin = shear @ products.beta0
    chosen = [priors.coefficients[i] for i in integrated]
    is_flat = np.array([prior.name == "Flat" for prior in chosen], dtype=bool)
    mean = np.array([0.0 if prior.name == "Flat" else prior.args["mu"] for prior in chosen], dtype=np.float64)
    precision = np.array(
        [0.0 if prior.name == "Flat" else prior.args["sigma"] ** -2 for prior in chosen], dtype=np.float64
    )
    constant = (
        0.5 * products.sum_log_weights
        - 0.5 * (kernel.n_rows - int(is_flat.sum())) * log(2 * pi)
        + 0.5 * float(np.log(precision[~is_flat]).sum())
    )
    fields = (
        kernel.rhs,
        products.gram,
        where.plan,
        np.ascontiguousarray(whitened[:, integrated]),
        np.ascontiguousarray(whitened[:, sampled]),
        origin[sampled],
        mean - origin[integrated],
        precision,
        float(constant),
        int(kernel.n_rows),
    )
    residual = None
    if design.residuals is not None:
        residual = ResidualPart(ResidualKernel(kernel, ResidualRows.from_design(design)), priors.residual)
    return LogPosterior(design, kernel, where, tuple(int(i) for i in integrated), shear, fields, residual)
