"""The Laplace approximation of a generalised mixed model's likelihood, with its gradient by implicit differentiation.

With the mode u of the penalised log-likelihood and A = Lambda' Z'WZ Lambda + I there,

    log L(theta, beta, phi) = l(y | u) - u'u / 2 - log|A| / 2.

W depends on u, and u on the parameters: with h_i the leverages (Z Lambda A^-1 Lambda' Z')_ii, s_i = w'_i h_i and
delta = A^-1 Lambda' Z's,

    d log L / d beta    = X' r,                 r = l' - (s - W Z Lambda delta) / 2
    d log L / d Lambda  = Z'r u' - Z'l' delta' / 2 - Z'WZ Lambda A^-1     (entries in the pattern of Lambda)
    d log L / d phi     = sum dl/dphi - (h dw/dphi + (Z Lambda delta) dl'/dphi) / 2.

Coefficients may instead move with u: integrated out like u (a Bayesian's step, with a normal prior) or only maximised
(lme4's nAGQ = 0). Then the same formulas hold for the bordered system.

References
----------
Bates et al. (2015), *J. Stat. Softw.* 67(1), section 3; Skaug & Fournier (2006), Automatic approximation of the
marginal likelihood in non-Gaussian hierarchical models, *Comput. Stat. Data Anal.* 51(2); Kristensen et al. (2016),
TMB, *J. Stat. Softw.* 70(5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from bayeslmm.errors import DataError, FitError
from bayeslmm.families import LINKS, Family
from bayeslmm.likelihood._compiled import CFunction, c_entry, internal, solve_lower
from bayeslmm.likelihood.cells import COMPILED as OF_CELLS
from bayeslmm.likelihood.cells import Cells, Collapsed, collapse, place, whitened
from bayeslmm.likelihood.coordinates_entry import coordinates
from bayeslmm.likelihood.covariance import Layout
from bayeslmm.likelihood.crossproducts import COMPILED as OF_ROWS
from bayeslmm.likelihood.crossproducts import CrossProducts, cross_products
from bayeslmm.likelihood.engine import engine
from bayeslmm.likelihood.factor import factorise, invert, solve_half, solve_other_half
from bayeslmm.likelihood.families_jit import FAMILY_CODES, LINK_CODES, likelihood_constant
from bayeslmm.likelihood.glmm_record import GLMM
from bayeslmm.likelihood.pirls import (
    FIXED,
    JOINT,
    PROFILE,
    State,
    conditional_mode,
    log_prior,
    new_state,
    solve_schur,
    times_lambda,
    times_lambda_transposed,
)
from bayeslmm.likelihood.record import record_at, scratch_column
from bayeslmm.likelihood.row_entry import rows as row_entry
from bayeslmm.likelihood.rows import (
    add_column_forms,
    add_columns,
    add_rows,
    evaluate_rows,
    fill_blocks,
    own_parameter_gradient,
    predictor,
    quadratic_forms,
    weighted_columns,
)
from bayeslmm.likelihood.small import add_to, copy_to, fill
from bayeslmm.likelihood.symbolic import COMPILED as OF_STRUCTURE
from bayeslmm.likelihood.symbolic import Analysis, Structure, analyse
from bayeslmm.likelihood.together import load_together

Floats = NDArray[np.float64]
TIGHT = 1e-19
"""Newton decrement at which a search for the mode ends: log|A| is then free of the start to about ten digits."""
NOTHING = 1e-14
"""Newton decrement of a step that is not worth taking."""
glmm_at = record_at(GLMM)
_u = np.uint64  # an unsigned index is not tested for being negative


@internal
def gather_inverse(s, w, values):  # type: ignore[no-untyped-def]
    """Copy the selected inverse to the layout of the blocks of Z'WZ."""
    n_head = s.row_start.size - 1
    n_head_rows = s.offset[n_head]
    for block in range(s.block_row.size):
        r, c = s.block_row[block], s.block_column[block]
        height = s.factor_k[s.node_factor[r]]
        width = s.factor_k[s.node_factor[c]]
        start, target = s.block_start[block], s.block_target[block]
        row, column = s.offset[r] - n_head_rows, s.offset[c] - n_head_rows
        for i in range(height):
            for j in range(width):
                if target >= 0:
                    values[start + i * width + j] = w.head_inverse[target + i * width + j]
                else:
                    a, b = row + i, column + j
                    values[start + i * width + j] = w.tail[max(a, b), min(a, b)]


@internal
def divide(root, rows, out):  # type: ignore[no-untyped-def]
    """Set out = rows L'^-1, row by row, L = `root` lower triangular."""
    for i in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            total = rows[i, c]
            for d in range(c):
                total -= root[c, d] * out[i, d]
            out[i, c] = total / root[c, c]


@internal
def prepare_border(cells, s, templates, state, template_gradient):  # type: ignore[no-untyped-def]
    """Fill tilt = B L'^-1 and reach = (C - Lambda B) L'^-1, L L' = P; add what the border gives to the gradient.

    The inverse of the bordered system is A^-1 + tilt tilt' for the effects, and reach reach' is what the coefficients
    add to the covariance of what rows see of them.
    """
    p = state.border.shape[1]
    divide(state.schur, state.border, state.tilt)
    divide(state.schur, state.products, state.reach)
    for node in range(s.node_factor.size):
        f = s.node_factor[node]
        k, base, t = s.factor_k[f], s.offset[node], s.template_start[f]
        for i in range(k):
            for j in range(k):
                total = 0.0
                for c in range(p):
                    total += state.reach[base + i, c] * state.tilt[base + j, c]
                template_gradient[t + i * k + j] += total
    if cells.carrier.shape[0] > 0:
        divide(state.schur, cells.carrier, state.reach)
    else:
        fill(state.reach, 0.0)
    for node in range(s.node_factor.size):
        f = s.node_factor[node]
        k, base, t = s.factor_k[f], s.offset[node], s.template_start[f]
        for i in range(k):
            for j in range(i + 1):
                x = templates[t + i * k + j]
                for c in range(p):
                    state.reach[base + i, c] -= x * state.tilt[base + j, c]


@internal
def spread_inverse(cells, s, w, templates, state, joint, template_gradient):  # type: ignore[no-untyped-def]
    """Fill inverse_values with the covariance of Z'WZ's pairs of effects as rows see them.

    That is Lambda A^-1 Lambda', with what the coefficients add when they are carried by the effects. Half the
    derivative of the log-determinant in Lambda, Z'WZ Lambda times the effects' block of the inverse, is subtracted from
    the gradient.
    """
    p = state.tilt.shape[1] if joint == JOINT else 0
    reach = p if cells.carrier.shape[0] > 0 else 0
    n_head_rows = s.offset[s.row_start.size - 1]
    inner, below, beside = w.small[0], w.small[1], w.small[2]
    for b in range(s.block_row.size):
        r, c = s.block_row[b], s.block_column[b]
        fr, fc = s.node_factor[r], s.node_factor[c]
        height, width = s.factor_k[fr], s.factor_k[fc]
        left, right = s.template_start[fr], s.template_start[fc]
        start, target = s.block_start[b], s.block_target[b]
        row, column = s.offset[r], s.offset[c]
        if height == 1 and width == 1:
            x = w.head_inverse[_u(target)] if target >= 0 else w.tail[_u(row - n_head_rows), _u(column - n_head_rows)]
            value = x * templates[left] * templates[right]
            for k in range(reach):
                value += state.reach[_u(row), k] * state.reach[_u(column), k]
            for k in range(p):
                x += state.tilt[_u(row), k] * state.tilt[_u(column), k]
            state.inverse_values[start] = value
            x *= s.block_values[start]
            template_gradient[right] -= x * templates[left]
            if r != c:
                template_gradient[left] -= x * templates[right]
            continue
        for i in range(height):
            for j in range(width):
                if target >= 0:
                    inner[i, j] = w.head_inverse[target + i * width + j]
                else:
                    first, second = row + i - n_head_rows, column + j - n_head_rows
                    inner[i, j] = w.tail[max(first, second), min(first, second)]
        for i in range(height):
            for j in range(width):
                total = 0.0
                for l in range(i + 1):
                    total += templates[left + i * height + l] * inner[l, j]
                below[i, j] = total
        for i in range(height):
            for j in range(width):
                total = 0.0
                for l in range(j + 1):
                    total += below[i, l] * templates[right + j * width + l]
                for k in range(reach):
                    total += state.reach[row + i, k] * state.reach[column + j, k]
                state.inverse_values[start + i * width + j] = total
        for i in range(height):
            for j in range(width):
                for k in range(p):
                    inner[i, j] += state.tilt[row + i, k] * state.tilt[column + j, k]
        for i in range(height):
            for j in range(width):
                total = 0.0
                for l in range(i + 1):
                    total += templates[left + i * height + l] * inner[l, j]
                below[i, j] = total
                total = 0.0
                for l in range(j + 1):
                    total += templates[right + j * width + l] * inner[i, l]
                beside[i, j] = total
        for i in range(height):
            for j in range(width):
                x = s.block_values[start + i * width + j]
                for l in range(width):
                    template_gradient[right + j * width + l] -= x * below[i, l]
                if r != c:
                    for l in range(height):
                        template_gradient[left + i * height + l] -= x * beside[l, j]


@internal
def leverages(cells, s, templates, state, joint, leverage, template_gradient):  # type: ignore[no-untyped-def]
    """Fill the leverage of each cell, and subtract d log-determinant / d Lambda / 2 from the template gradient."""
    work, inverse = state.work, state.inverse_work
    copy_to(inverse.head, work.head)
    copy_to(inverse.tail, work.tail)
    invert(inverse)
    if joint == JOINT:
        prepare_border(cells, s, templates, state, template_gradient)
    spread_inverse(cells, s, inverse, templates, state, joint, template_gradient)
    quadratic_forms(cells, s, state.inverse_values, leverage)
    if joint == JOINT and cells.carrier.shape[0] == 0:
        add_column_forms(cells, state.schur, state.reach, leverage)


@internal
def solve_system(s, state, joint, right, right_beta):  # type: ignore[no-untyped-def]
    """Overwrite (right, right_beta) by the solution of the (bordered) system; border must be in place."""
    p = state.border.shape[1]
    if joint != FIXED:
        for i in range(right.shape[0]):
            for c in range(p):
                right_beta[c, 0] -= state.border[i, c] * right[i, 0]
        solve_schur(state, right_beta)
    solve_half(state.work, right)
    solve_other_half(state.work, right)
    if joint != FIXED:
        for i in range(right.shape[0]):
            for c in range(p):
                right[i, 0] -= state.border[i, c] * right_beta[c, 0]


@internal
def outer_by_factor(s, left, right, scale, template_gradient):  # type: ignore[no-untyped-def]
    """Add scale * sum over levels of left right' to the gradient in each template."""
    for node in range(s.node_factor.size):
        f = s.node_factor[node]
        k, base, t = s.factor_k[f], s.offset[node], s.template_start[f]
        for a in range(k):
            for b in range(k):
                template_gradient[t + a * k + b] += scale * left[base + a, 0] * right[base + b, 0]


@internal
def laplace(  # type: ignore[no-untyped-def]
    cells, s, state, family, link, templates, aux, joint, mean, precision, tolerance, gradients,
    template_gradient, beta_gradient, aux_gradient,
):  # fmt: skip
    """Return the Laplace log-likelihood at state.beta without its constant, and fill the gradients when asked.

    Not a number when the mode cannot be found. In the joint modes state.beta moves to the mode and its gradient stays
    zero. With gradients, the Newton step that the search left is taken: everything but the curvature is then exact to
    second order, and log|A| is corrected to first order, so that the value does not depend on where the search started.
    """
    value, log_a, log_p, decrement = conditional_mode(
        cells, s, templates, state, family, link, aux, joint, mean, precision, tolerance
    )
    total = -0.5 * log_a - (0.5 * log_p if joint == JOINT else 0.0)
    if value != value or total != total or not gradients:
        return value + total + 0.5 * decrement
    fill(template_gradient, 0.0)
    fill(beta_gradient, 0.0)
    p = state.border.shape[1]
    leverage, pull, response = state.rows[0], state.rows[1], state.rows[2]
    leverages(cells, s, templates, state, joint, leverage, template_gradient)
    for i in range(leverage.size):
        total -= 0.5 * state.terms[3, i] * leverage[i] * state.change[i]
    if decrement > NOTHING:
        value = take_step(cells, s, templates, state, family, link, aux, mean, precision)
    total += value
    for i in range(leverage.size):
        pull[i] = state.terms[3, i] * leverage[i]
    delta, delta_beta = state.step, scratch_column(p)
    fill(delta_beta, 0.0)
    add_rows(cells, pull, delta)
    if joint != FIXED:
        add_columns(cells, pull, delta, delta_beta)
    times_lambda_transposed(s, templates, delta)
    solve_system(s, state, joint, delta, delta_beta)
    times_lambda(s, templates, delta, state.trial)
    predictor(cells, state.trial, delta_beta, False, state.effects, response)
    add_rows(cells, state.terms[1], state.trial)
    outer_by_factor(s, state.trial, delta, -0.5, template_gradient)
    for i in range(leverage.size):
        pull[i] = state.terms[1, i] - 0.5 * (pull[i] - state.terms[2, i] * response[i])
    add_rows(cells, pull, state.trial)
    if joint == FIXED:
        by_beta = scratch_column(p)
        add_columns(cells, pull, state.trial, by_beta)
        copy_to(beta_gradient, by_beta)
    outer_by_factor(s, state.trial, state.u, 1.0, template_gradient)
    own_parameter_gradient(cells, family, link, aux, state.eta, leverage, response, aux_gradient)
    return total


@internal
def take_step(cells, s, templates, state, family, link, aux, mean, precision):  # type: ignore[no-untyped-def]
    """Take the Newton step that a search left; return the penalised log-likelihood there."""
    add_to(state.u, state.step)
    add_to(state.beta, state.beta_step)
    times_lambda(s, templates, state.u, state.b)
    add_to(state.eta, state.change)
    value = evaluate_rows(cells, family, link, aux, state.eta, state.terms) + log_prior(mean, precision, state.beta)
    for i in range(state.u.shape[0]):
        value -= 0.5 * state.u[i, 0] ** 2
    return value


@internal
def draw(g):  # type: ignore[no-untyped-def]
    """Draw whitened coefficients and effects from the Gaussian at the mode; return the log weight of the draw.

    With f the penalised log-likelihood and z the standard normal numbers behind the draw, that is
    f(draw) - f(mode) + z'z / 2. The Laplace log-likelihood, coefficients integrated out, goes to `found`.
    """
    cells, s, state = g.cells, g.structure, g.state
    at_mode, log_a, log_p, left = conditional_mode(
        cells, s, g.templates, state, g.family, g.link, g.aux, g.joint, g.mean, g.precision, g.tolerance
    )
    g.found[0] = at_mode + 0.5 * left - 0.5 * (log_a + log_p)
    q, p = state.border.shape
    u, shift = state.step, state.beta_step
    square = 0.0
    for c in range(p):
        shift[c, 0] = g.beta_noise[c]
        square += g.beta_noise[c] ** 2
    if p > 0:
        solve_lower(state.schur, shift, True)
    for i in range(q):
        u[i, 0] = g.noise[i]
        square += g.noise[i] ** 2
    solve_other_half(state.work, u)
    penalty = 0.0
    for i in range(q):
        total = state.u[i, 0] + u[i, 0]
        for c in range(p):
            total -= state.border[i, c] * shift[c, 0]
        u[i, 0] = total
        penalty += 0.5 * total * total
    for c in range(p):
        shift[c, 0] += state.beta[c, 0]
        g.beta_out[c] = shift[c, 0]
    times_lambda(s, g.templates, u, state.trial)
    for i in range(q):
        g.effects_out[i] = state.trial[i, 0]
    predictor(cells, state.trial, shift, True, state.effects, state.change)
    value = evaluate_rows(cells, g.family, g.link, g.aux, state.change, state.terms) - penalty
    value += log_prior(g.mean, g.precision, shift)
    return value - at_mode - 0.5 * left + 0.5 * square


@c_entry
def glmm(address):  # type: ignore[no-untyped-def]
    """Do what the record at `address` asks for: the C function of generalised models."""
    g = glmm_at(address)
    cells, s, state = g.cells, g.structure, g.state
    answer = 0.0
    if g.operation == LAPLACE:
        answer = laplace(
            cells, s, state, g.family, g.link, g.templates, g.aux, g.joint, g.mean, g.precision, g.tolerance,
            g.gradients, g.by_template, g.by_beta, g.by_aux,
        )  # fmt: skip
    elif g.operation == DRAW:
        answer = draw(g)
    elif g.operation == BLOCKS:
        fill_blocks(cells, state.terms[2], state.block_values)
    elif g.operation == BORDER:
        weighted_columns(cells, s, state.terms[2], state.border)
        times_lambda_transposed(s, g.templates, state.border)
        solve_half(state.work, state.border)
        solve_other_half(state.work, state.border)
    elif g.operation == FACTOR:
        answer = factorise(state.work, g.templates)
    elif g.operation == INVERSE:
        copy_to(state.inverse_work.head, state.work.head)
        copy_to(state.inverse_work.tail, state.work.tail)
        invert(state.inverse_work)
        gather_inverse(s, state.inverse_work, state.inverse_values)
    return answer


def compile_for(*more: CFunction) -> None:
    """Compile, or find in the cache, what generalised models need, with `more` beside it."""
    load_together((engine, row_entry, coordinates, *OF_ROWS, *OF_CELLS, *OF_STRUCTURE, *more), (glmm,))


LAPLACE, DRAW, BLOCKS, BORDER, FACTOR, INVERSE = range(6)
"""Operations: value and gradient; a draw; Z'WZ; A^-1 Lambda' Z'WX; log|A|; A^-1 on the pattern of Z'WZ. The last four
take the terms, Z'WZ and the factor as they are."""


def run(state: State, operation: int, **arguments: Any) -> float:
    """Let compiled code do an operation on a state; it lets other threads run meanwhile.

    Parameters
    ----------
    state : State
        Of one thread.
    operation : int
        One of the constants of this module.
    **arguments
        Fields of `bayeslmm.likelihood.glmm_record.GLMM`.

    Returns
    -------
    float
    """
    for field, value in arguments.items():
        GLMM.write(state.handle, field, value)
    GLMM.write(state.handle, "operation", operation)
    return float(glmm.native(state.handle.ctypes.data))


class Approximation(NamedTuple):
    """A value of the approximate log-likelihood and its gradient.

    Parameters
    ----------
    value : float
        Log-likelihood, constants included; not a number where there is no mode.
    theta, beta, aux : ndarray
        Its gradient in theta (m,), the coefficients (p,) and the family's own parameters as `aux` has them.
    """

    value: float
    theta: Floats
    beta: Floats
    aux: Floats


@dataclass(frozen=True)
class LaplaceKernel:
    """A generalised mixed model as the Laplace approximation sees it: cells, symbolic factorisation, layout.

    Parameters
    ----------
    family : Family
        Response family with its link.
    layout : Layout
        Random terms.
    collapsed : Collapsed
        Distinct rows as given.
    cells : Cells
        The same for compiled code.
    analysis : Analysis
        Where the factor of A has its entries.
    R0 : ndarray (p, p)
        Upper triangular; whitened columns are X R0^-1.
    constant : float
        Part of the log-likelihood that no parameter touches.
    n_rows : int
        Rows of the data.
    cold_beta : ndarray (p,)
        Coefficients inside the domain of the link, where cold searches start.
    n_aux : int
        Number of the family's own parameters.

    Examples
    --------
    >>> X, codes = np.ones((4, 1)), np.array([0, 0, 1, 1], dtype=np.int32)
    >>> from bayeslmm.families import as_family
    >>> from bayeslmm.likelihood.covariance import Covariance
    >>> layout = Layout((Covariance("us", 1),), (0,), (2,))
    >>> kernel = LaplaceKernel.from_arrays(
    ...     as_family("poisson"), layout, np.array([1.0, 2.0, 4.0, 3.0]), X, [(X, codes)]
    ... )
    >>> round(kernel.loglik([0.5], [0.7]), 6)
    -6.889322
    """

    family: Family
    layout: Layout
    collapsed: Collapsed
    cells: Cells
    analysis: Analysis
    R0: Floats
    constant: float
    n_rows: int
    cold_beta: Floats
    n_aux: int

    @classmethod
    def from_arrays(
        cls,
        family: Family,
        layout: Layout,
        y: Floats,
        X: Floats,
        terms: list[tuple[Floats, NDArray[np.int32]]],
        *,
        trials: Floats | None = None,
        weights: Floats | None = None,
        offset: Floats | None = None,
    ) -> LaplaceKernel:
        """Build the kernel.

        Parameters
        ----------
        family : Family
            Response family with its link.
        layout : Layout
            Random terms.
        y : ndarray (n,)
            Response; for binomial families the proportion, for ordered ones category codes.
        X : ndarray (n, p)
            Columns of the coefficients, of full rank.
        terms : list of (Z (n, K), codes (n,))
            One per factor.
        trials, weights, offset : ndarray (n,), optional
            Number of trials, weights of the log-likelihood, known part of the linear predictor.

        Returns
        -------
        LaplaceKernel
        """
        if family.name not in FAMILY_CODES:
            raise FitError(f"the family {family.name!r} has no Laplace approximation here. Use sample().")
        compile_for()
        n = len(y)
        cells = collapse(family.name, y, X, terms, trials=trials, weights=weights, offset=offset)
        blocks = [(Z, codes, layout.n_levels[f]) for f, (Z, codes) in enumerate(zip(cells.Z, cells.codes, strict=True))]
        products: CrossProducts = cross_products(np.zeros(len(cells.y)), cells.X, blocks, cells.weight)
        analysis = analyse(products)
        R0 = products.R0 / np.sqrt(cells.weight.sum()) if X.shape[1] else products.R0
        ones = np.ones(n)
        weight = ones if weights is None else weights
        n_aux = int(y.max()) if family.name == "cumulative" else int(family.parameter != "")
        return cls(
            family=family,
            layout=layout,
            collapsed=cells,
            cells=place(cells, analysis, R0),
            analysis=analysis,
            R0=R0,
            constant=likelihood_constant(family.name, y, trials, weight),
            n_rows=n,
            cold_beta=_cold_start(family, cells, whitened(cells.X, R0)),
            n_aux=n_aux,
        )

    @classmethod
    def from_design(cls, design: Any, family: Family) -> LaplaceKernel:
        """Build the kernel of a design.

        Parameters
        ----------
        design : Design
            The formula met by data.
        family : Family
            Response family with its link.

        Returns
        -------
        LaplaceKernel
        """
        rows = design.condensed
        return cls.from_arrays(
            family,
            Layout.from_design(rows),
            rows.y,
            rows.X,
            [(factor.Z, factor.codes) for factor in rows.factors],
            trials=rows.trials,
            weights=rows.likelihood_weights,
            offset=rows.offset,
        )

    @property
    def p(self) -> int:
        """Number of coefficients."""
        return len(self.R0)

    @property
    def codes(self) -> tuple[int, int]:
        """Family and link as compiled code knows them."""
        return FAMILY_CODES[self.family.name], LINK_CODES[self.family.link]

    @cached_property
    def structure(self) -> Structure:
        """The symbolic factorisation, without the numbers of Z'WZ."""
        return self.analysis.structure

    def new_state(self) -> State:
        """Return the numbers of one thread, cold.

        Returns
        -------
        State
        """
        return new_state(self.cells, self.analysis, self.cold_beta)

    @cached_property
    def state(self) -> State:
        """The state that calls without one of their own share; warm from one call to the next."""
        return self.new_state()

    def whiten(self, beta: ArrayLike) -> Floats:
        """Return coefficients (p,) of the whitened columns."""
        return np.asarray(self.R0 @ np.asarray(beta, dtype=np.float64))

    def unwhiten(self, beta: ArrayLike) -> Floats:
        """Return coefficients (p,) of the columns as given."""
        white = np.asarray(beta, dtype=np.float64)
        return solve_triangular(self.R0, white, lower=False) if white.size else white

    def evaluate(
        self,
        theta: ArrayLike,
        white_beta: ArrayLike | None,
        aux: ArrayLike = (),
        *,
        gradient: bool = True,
        integrate_beta: bool = False,
        state: State | None = None,
    ) -> Approximation:
        """Return the approximate log-likelihood and its gradient, coefficients in whitened coordinates.

        Parameters
        ----------
        theta : array_like (m,)
            Relative covariance parameters.
        white_beta : array_like (p,) or None
            Coefficients of the whitened columns; None lets them move with the effects.
        aux : array_like (n_aux,), optional
            Log of the family's own parameter, or the thresholds.
        gradient : bool, default True
            Whether to compute the gradient.
        integrate_beta : bool, default False
            With `white_beta` None: integrate over the coefficients (flat prior) instead of maximising.
        state : State, optional
            Where to keep the mode.

        Returns
        -------
        Approximation
        """
        state = self.state if state is None else state
        theta = np.asarray(theta, dtype=np.float64)
        flat = self.layout.flat_templates(theta)
        joint = FIXED
        if white_beta is None:
            joint = JOINT if integrate_beta else PROFILE
        else:
            state.beta[:, 0] = white_beta
        slope = np.zeros_like(flat), np.zeros(self.p), np.zeros(self.n_aux)
        family, link = self.codes
        own, flat_prior = np.array(aux, dtype=np.float64).reshape(-1), (np.zeros(0), np.zeros((0, 0)))
        value = run(
            state, LAPLACE, family=family, link=link, templates=flat, aux=own, joint=joint, mean=flat_prior[0],
            precision=flat_prior[1], tolerance=TIGHT, gradients=gradient,
            by_template=slope[0], by_beta=slope[1], by_aux=slope[2],
        )  # fmt: skip
        return Approximation(value + self.constant, self.layout.pull(theta, slope[0]), slope[1], slope[2])

    def loglik(self, theta: ArrayLike, beta: ArrayLike, aux: ArrayLike = ()) -> float:
        """Return the Laplace log-likelihood.

        Parameters
        ----------
        theta : array_like (m,)
            Relative covariance parameters.
        beta : array_like (p,)
            Coefficients of the columns as given.
        aux : array_like (n_aux,), optional
            Log of the family's own parameter, or the thresholds.

        Returns
        -------
        float
        """
        return float(self.evaluate(theta, self.whiten(beta), aux, gradient=False).value)

    def with_response(self, y: Floats, trials: Floats | None = None, weights: Floats | None = None) -> LaplaceKernel:
        """Return the kernel of the same design with another response.

        Only families whose cells do not depend on y can share them; the others build a new kernel.

        Parameters
        ----------
        y : ndarray (n,)
            Response.
        trials, weights : ndarray (n,), optional
            As when the kernel was built.

        Returns
        -------
        LaplaceKernel

        Raises
        ------
        DataError
            If the response has another length, or the cells depend on y.
        """
        if len(y) != self.n_rows:
            raise DataError(f"the new response has {len(y)} rows, the design has {self.n_rows}.")
        if self.family.name not in ("bernoulli", "binomial", "poisson"):
            raise DataError(f"cells of the family {self.family.name!r} depend on the response; build a new kernel.")
        ones = np.ones(len(y))
        weight = ones if weights is None else weights
        total = weight * trials if self.family.name == "binomial" and trials is not None else weight
        mean = np.bincount(self.collapsed.cell, weights=total * y) / self.cells.weight
        return replace(
            self,
            collapsed=self.collapsed._replace(y=mean),
            cells=self.cells._replace(y=mean),
            constant=likelihood_constant(self.family.name, y, trials, weight),
        )


def _cold_start(family: Family, cells: Collapsed, white: Floats) -> Floats:
    """Return coefficients (p,) from a regression of the linked response, pulled towards its mean into the domain."""
    if not white.shape[1] or family.name == "cumulative":
        return np.zeros(white.shape[1])
    mean = np.average(cells.y, weights=cells.weight)
    mu = 0.5 * (cells.y + mean)
    if family.link in ("logit", "probit", "cloglog", "cauchit"):
        mu = np.clip(mu, 0.01, 0.99)
    with np.errstate(all="ignore"):
        target = LINKS[family.link].link(mu) - cells.offset
        flat = LINKS[family.link].link(np.full(1, mean))[0]
    target = np.where(np.isfinite(target), target, flat)
    root = np.sqrt(cells.weight)
    beta = np.linalg.lstsq(white * root[:, None], target * root, rcond=None)[0]
    fitted = LINKS[family.link].inverse(white @ beta + cells.offset)
    if np.all(np.isfinite(fitted)) and (family.name == "gaussian" or np.all(fitted > 0)):
        return np.asarray(beta)
    level = np.full(len(target), flat) - cells.offset
    return np.asarray(np.linalg.lstsq(white * root[:, None], level * root, rcond=None)[0])


def start_aux(kernel: LaplaceKernel) -> Floats:
    """Return first values of the family's own parameters, by the method of moments.

    Parameters
    ----------
    kernel : LaplaceKernel
        The model.

    Returns
    -------
    ndarray (a,)
        Log of the parameter, or thresholds.
    """
    y, weight, name = kernel.cells.y, kernel.cells.weight, kernel.family.name
    if name == "cumulative":
        share = np.cumsum(np.bincount(y.astype(int), weights=weight))[:-1] / weight.sum()
        return np.asarray(LINKS[kernel.family.link].link(share))
    if kernel.n_aux == 0:
        return np.zeros(0)
    mean = np.average(y, weights=weight)
    variance = np.average((y - mean) ** 2, weights=weight)
    if name == "gaussian":
        variance = np.average(kernel.cells.extra, weights=weight) - mean**2
    moment = {
        "gaussian": np.sqrt(variance),
        "gamma": mean**2 / variance,
        "inverse_gaussian": mean**3 / variance,
        "negativebinomial": mean**2 / max(variance - mean, 0.1 * mean),
        "beta": max(mean * (1 - mean) / variance - 1, 0.5),
        "beta_binomial": 5.0,
    }[name]
    return np.array([np.log(moment if np.isfinite(moment) and moment > 0 else 1.0)])
