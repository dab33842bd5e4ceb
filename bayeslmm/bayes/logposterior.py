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

from bayeslmm.bayes.coordinates import PLAN, Coordinates, coordinates, plan_words, pull, unpack, unpack_points
from bayeslmm.bayes.folding import FIELDS as FOLDS
from bayeslmm.bayes.folding import Folds, fold_back, unfold
from bayeslmm.bayes.priors import Priors, has_intercept
from bayeslmm.bayes.residual_part import ResidualPart, ResidualState
from bayeslmm.bayes.state import DRAW, EVALUATE, WHITENED, State
from bayeslmm.likelihood._compiled import address_of, c_entry, internal
from bayeslmm.likelihood.crossproducts import COMPILED as OF_ROWS
from bayeslmm.likelihood.engine import engine
from bayeslmm.likelihood.factor import factorise, pull_back, reduce_products, solve_other_half
from bayeslmm.likelihood.handle import SIZE, STRUCTURE, WORKSPACE, engine_handle
from bayeslmm.likelihood.lmm import LmmKernel
from bayeslmm.likelihood.record import Fields, record_at
from bayeslmm.likelihood.residual import ResidualKernel, ResidualRows
from bayeslmm.likelihood.small import fill, small_cholesky, small_inverse_root
from bayeslmm.likelihood.symbolic import COMPILED as OF_STRUCTURE
from bayeslmm.likelihood.together import load_together

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.likelihood.numeric import Workspace
    from bayeslmm.likelihood.symbolic import Structure


POSTERIOR = Fields(
    "Posterior",
    "operation:int n_rows:int constant:float rhs:f2 gram:f2 V:f2 W_sampled:f2 origin:f1 prior_mean:f1 "
    "prior_precision:f1 centre:f1 spread:f2 w:f1 x:f1 by_x:f1 slope:f1 flat:f1 by_flat:f1 scales:f1 sampled:f1 "
    "by_sampled:f1 Q:f2 QV:f2 Qv:f1 mixing:f2 direction:f1 mean:f1 root:f2 inverse:f2 h:f1 half:f1 u:f2 "
    f"points:f2 coefficient_noise:f2 effect_noise:f2 gamma:f2 effects:f2 values:f1 {FOLDS}",
    SIZE + PLAN.end,
    {"structure": (STRUCTURE, 0), "work": (WORKSPACE, 0), "plan": (PLAN, SIZE)},
)
"""All that the compiled log posterior reads and writes, after the handle of the factor and the plan."""
posterior_at = record_at(POSTERIOR)
UNFOLD, FOLD_BACK = range(DRAW + 1, DRAW + 3)


def new_state(
    structure: Structure,
    work: Workspace,
    fields: tuple[Any, ...],
    centre: NDArray[np.float64],
    spread: NDArray[np.float64],
    folds: Folds,
) -> State:
    """Return a state of its own for one thread; `fields` are those of a `LogPosterior`."""
    rhs, gram, plan, V, W_sampled, origin, prior_mean, prior_precision, constant, n_rows = fields
    (size, r), d, q, s = V.shape, len(centre), len(rhs), len(plan.sampled)
    n_flat = int(plan.terms.template_start[-1] + plan.terms.factor_k[-1] ** 2)
    shapes: dict[str, int | tuple[int, ...]] = {
        "w": d, "x": d, "by_x": d, "slope": d, "flat": n_flat, "by_flat": n_flat, "scales": len(plan.scale_at),
        "sampled": s, "by_sampled": s, "Q": (size, size), "QV": (size, r), "Qv": size, "mixing": (size, r + 1),
        "direction": size, "mean": r, "root": (r, r), "inverse": (r, r), "h": r, "half": r, "u": (q, 1),
        "points": (0, d), "coefficient_noise": (0, r), "effect_noise": (0, q), "gamma": (0, r), "effects": (0, q),
        "values": 0,
    }  # fmt: skip
    given = {"rhs": rhs, "gram": gram, "V": V, "W_sampled": W_sampled, "origin": origin, "prior_mean": prior_mean,
             "prior_precision": prior_precision, "centre": centre, "spread": spread}  # fmt: skip
    arrays = {**given, **{name: np.empty(shape) for name, shape in shapes.items()}, **folds.arrays(d)}
    numbers = {"operation": 0, "n_rows": n_rows, "constant": constant}
    plan_part, scratch = plan_words(plan)
    own = POSTERIOR.words([*numbers.values(), *(arrays[name] for name in POSTERIOR.kinds if name in arrays)])
    words = np.concatenate([engine_handle(structure, work), plan_part, own])
    return State(POSTERIOR, posterior, words, arrays, (structure, work, plan, scratch))


@internal
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
    QV, Qv, h, half, inverse = e.QV, e.Qv, e.h, e.half, e.inverse
    fill(QV, 0.0)
    fill(Qv, 0.0)
    for i in range(size):
        for l in range(size):
            Qv[i] += Q[i, l] * direction[l]
            for c in range(r):
                QV[i, c] += Q[i, l] * e.V[l, c]
    quadratic = 0.0
    for i in range(size):
        quadratic += direction[i] * Qv[i]
    quadratic *= precision
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
    small_inverse_root(address_of(root), address_of(inverse), r)
    value = e.constant - e.n_rows * log(sigma) - 0.5 * log_det
    fill(half, 0.0)
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


@internal
def value_at(e, x, gradient):  # type: ignore[no-untyped-def]
    """Return the log posterior of the sampled vector; fill its `gradient`. -inf where numbers overflow."""
    fill(gradient, 0.0)
    flat, scales, sampled, Q, mixing = e.flat, e.scales, e.sampled, e.Q, e.mixing
    prior = unpack(e.plan, x, flat, scales, sampled)
    sigma = scales[scales.size - 1]
    if not (prior > -inf and prior < inf and sigma > 1e-150 and sigma < 1e150):
        return -inf
    size, r = e.V.shape
    log_det = factorise(e.work, flat)
    reduce_products(e.work, flat, e.rhs, e.gram, Q)
    value = prior + evidence(e, sigma, sampled, log_det, Q, mixing, e.direction, e.mean, e.root)
    if not (value > -inf and value < inf):
        return -inf
    precision = 1.0 / (sigma * sigma)
    by_flat, by_sampled = e.by_flat, e.by_sampled
    pull_back(e.work, flat, e.rhs, mixing, -0.5, -0.5 * precision, by_flat)
    trace = 0.0
    fill(by_sampled, 0.0)
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
            fill(gradient, 0.0)
            return -inf
    return value


@internal
def whitened_value(e, w, gradient):  # type: ignore[no-untyped-def]
    """Return the log posterior in coordinates w, v = centre + spread w the folded vector; fill its gradient."""
    d = w.size
    v, x, by_x = e.v, e.x, e.by_x
    fill(gradient, 0.0)
    for i in range(d):
        total = e.centre[i]
        for j in range(d):
            total += e.spread[i, j] * w[j]
        v[i] = total
    log_slope = unfold(e, v, x)
    if not (log_slope > -inf and log_slope < inf):
        return -inf
    value = value_at(e, x, by_x) + log_slope
    if not value > -inf:
        return -inf
    fold_back(e, v, by_x)
    for i in range(d):
        for j in range(d):
            gradient[j] += e.spread[i, j] * by_x[i]
    return value


@internal
def unfold_points(e):  # type: ignore[no-untyped-def]
    """Overwrite folded vectors by sampled vectors; return the log of the determinant at the last one."""
    points, v, x, log_slope = e.points, e.v, e.x, 0.0
    for row in range(points.shape[0]):
        for i in range(v.size):
            v[i] = points[row, i]
        log_slope = unfold(e, v, x)
        for i in range(v.size):
            points[row, i] = x[i]
    return log_slope


@internal
def draw_at_points(e):  # type: ignore[no-untyped-def]
    """Do `draw_effects`."""
    points, coefficient_noise, effect_noise = e.points, e.coefficient_noise, e.effect_noise
    gamma, effects, values = e.gamma, e.effects, e.values
    size, r = e.V.shape
    q = e.rhs.shape[0]
    flat, scales, sampled, Q, mixing = e.flat, e.scales, e.sampled, e.Q, e.mixing
    direction, mean, root, inverse, u = e.direction, e.mean, e.root, e.inverse, e.u
    for draw in range(points.shape[0]):
        prior = unpack(e.plan, points[draw], flat, scales, sampled)
        sigma = scales[scales.size - 1]
        log_det = factorise(e.work, flat)
        reduce_products(e.work, flat, e.rhs, e.gram, Q)
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
        solve_other_half(e.work, u)
        for node in range(e.structure.node_factor.size):
            f = e.structure.node_factor[node]
            k, base, own = e.structure.factor_k[f], e.structure.template_start[f], e.structure.offset[node]
            for i in range(k):
                total = 0.0
                for j in range(i + 1):
                    total += flat[base + i * k + j] * u[own + j, 0]
                effects[draw, own + i] = total


@c_entry
def posterior(address):  # type: ignore[no-untyped-def]
    """Do what the record at `address` asks for: the C function of the log posterior."""
    e = posterior_at(address)
    if e.operation == EVALUATE:
        return value_at(e, e.x, e.by_x)
    if e.operation == WHITENED:
        return whitened_value(e, e.w, e.slope)
    if e.operation == UNFOLD:
        return unfold_points(e)
    if e.operation == FOLD_BACK:
        fold_back(e, e.v, e.by_x)
        return 0.0
    draw_at_points(e)
    return 0.0


def compile_for_posterior() -> None:
    """Compile, or find in the cache, what the posterior of a Gaussian model needs, the kernel's share among it."""
    load_together((engine, *OF_ROWS, *OF_STRUCTURE), (posterior, unpack_points))


def draw_effects(
    state: State,
    points: NDArray[np.float64],
    coefficient_noise: NDArray[np.float64],
    effect_noise: NDArray[np.float64],
    gamma: NDArray[np.float64],
    effects: NDArray[np.float64],
    values: NDArray[np.float64],
) -> None:
    """Draw coefficients and group effects from their exact conditional at each of the `points` (S, d).

    Fills `gamma` (S, r), the integrated coefficients less their origin, and `effects` (S, q) in the kernel's order,
    from standard normal `coefficient_noise` (S, r) and `effect_noise` (S, q), and `values` (S,) with the log posterior.
    """
    state.give(
        points=points, coefficient_noise=coefficient_noise, effect_noise=effect_noise, gamma=gamma, effects=effects,
        values=values,
    )  # fmt: skip
    state.run(DRAW)


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

    def state(
        self,
        centre: NDArray[np.float64] | None = None,
        spread: NDArray[np.float64] | None = None,
        folds: Folds | None = None,
    ) -> Any:
        """Return a state with a workspace of its own, for one thread.

        Parameters
        ----------
        centre : ndarray (d,), optional
            Origin of whitened coordinates.
        spread : ndarray (d, d), optional
            Their axes.
        folds : Folds, optional
            Which elements of the vector that `centre` and `spread` belong to are folded.

        Returns
        -------
        State or ResidualState
            For `evaluate`, `evaluate_whitened` and `draw`.
        """
        centre = np.zeros(self.size) if centre is None else np.ascontiguousarray(centre)
        spread = np.eye(self.size) if spread is None else np.ascontiguousarray(spread)
        folds = Folds.of() if folds is None else folds
        work = self.kernel.new_workspace()
        if self.residual is None:
            return new_state(self.kernel.analysis.structure, work, self.fields, centre, spread, folds)
        moved = self.residual.arrays()
        d = self.coordinates.size
        structure = self.kernel.analysis.structure._replace(block_values=moved.blocks)
        inner = new_state(structure, work, (moved.rhs, moved.gram, *self.fields[2:]), np.zeros(d), np.eye(d), folds)
        return ResidualState(inner, moved, centre, spread)

    def evaluate(self, state: Any, x: NDArray[np.float64], gradient: NDArray[np.float64]) -> float:
        """Return the log posterior of the sampled vector x (d,) and fill its gradient (d,)."""
        if self.residual is None:
            return float(state.evaluate(x, gradient))
        return self.residual.log_posterior(state, x, gradient)

    def evaluate_whitened(self, state: Any, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log posterior and its gradient in whitened coordinates w (d,), folded where the state is."""
        if self.residual is None:
            value, slope = state.evaluate_whitened(w)
            return float(value), slope
        v, gradient = state.centre + state.spread @ w, np.zeros(self.size)
        x = v.copy()
        log_slope = self.unfold(state, x[None])
        value = self.evaluate(state, x, gradient) + log_slope if np.isfinite(log_slope) else -np.inf
        if not np.isfinite(value):
            return -np.inf, np.zeros(self.size)
        arrays, d = state.inner.arrays, self.coordinates.size
        arrays["v"][:], arrays["by_x"][:] = v[:d], gradient[:d]
        state.inner.run(FOLD_BACK)
        gradient[:d] = arrays["by_x"]
        return value, state.spread.T @ gradient

    def unfold(self, state: Any, points: NDArray[np.float64]) -> float:
        """Overwrite folded vectors (S, d) by sampled ones; return the log determinant of the change at the last one."""
        compiled, main = (state, points) if self.residual is None else (state.inner, points[:, : self.coordinates.size])
        folded = np.ascontiguousarray(main)
        compiled.give(points=folded)
        log_slope = float(compiled.run(UNFOLD))
        main[:] = folded
        return log_slope

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
