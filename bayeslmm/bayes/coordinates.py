"""What the exact engine samples: an unconstrained vector, and the variance parameters it stands for.

The vector x holds, term by term as written, the standard deviations (their logarithm; a logit where the prior is
uniform) and the correlations (Fisher's z of the canonical partial correlations of an unstructured term; the logit of
the place of the one correlation in its range for compound symmetry and autoregression), then sigma, then the
coefficients whose prior is not normal. With canonical partial correlations LKJ is a product of beta densities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, log1p, tanh
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bayeslmm.bayes.densities import LOG_2, log_beta, log_density, log_sech2, sqrt_sech2
from bayeslmm.bayes.latent import correlation_beta
from bayeslmm.bayes.priors import Prior, Priors, is_homogeneous
from bayeslmm.likelihood._compiled import c_entry, internal
from bayeslmm.likelihood.covariance import KINDS, Layout, TermArrays, correlation_root
from bayeslmm.likelihood.record import Fields, as_matrix, record_at
from bayeslmm.likelihood.small import fill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design

LOG_SCALE, INTERVAL = 0, 1
US, DIAG = KINDS.index("us"), KINDS.index("diag")


class Plan(NamedTuple):
    """The sampled vector as arrays, for compiled code.

    Parameters
    ----------
    terms : TermArrays
        The layout of the templates.
    x_start : (T,)
        First element of each term in x.
    n_sd, n_corr : (T,)
        How many standard deviations and correlations each term has there.
    scale_at : (S,)
        Places in x of all standard deviations, sigma last.
    transform : (S,)
        `LOG_SCALE` or `INTERVAL`.
    scale_family, scale_parameters : (S,), (S, 3)
        Their priors.
    corr : (T, 3)
        Lower end, alpha and beta of the one correlation; for an unstructured term eta in the first place.
    sampled : (s,)
        Positions of the coefficients in x's tail among all coefficients.
    coef_family, coef_parameters : (s,), (s, 3)
        Their priors.
    """

    terms: TermArrays
    x_start: NDArray[np.int64]
    n_sd: NDArray[np.int64]
    n_corr: NDArray[np.int64]
    scale_at: NDArray[np.int64]
    transform: NDArray[np.int64]
    scale_family: NDArray[np.int64]
    scale_parameters: NDArray[np.float64]
    corr: NDArray[np.float64]
    sampled: NDArray[np.int64]
    coef_family: NDArray[np.int64]
    coef_parameters: NDArray[np.float64]


TERMS = Fields("TermArrays", "kind:l1 k:l1 hom:l1 theta_start:l1 factor:l1 column:l1 factor_k:l1 template_start:l1", 0)
PLAN = Fields(
    "Plan",
    "x_start:l1 n_sd:l1 n_corr:l1 scale_at:l1 transform:l1 scale_family:l1 scale_parameters:f2 corr:f2 sampled:l1 "
    "coef_family:l1 coef_parameters:f2 root:f1 other:f1 by_root:f1 slope:f1 part:f1 by_scale:f1",
    TERMS.end,
    {"terms": (TERMS, 0)},
)
"""What `Plan` is for compiled code, with scratch of one thread: three roots of a term, two vectors of its correlations,
and a number for each scale."""


def plan_words(plan: Plan) -> tuple[NDArray[np.int64], tuple[NDArray[np.float64], ...]]:
    """Return the words of a plan for one thread, and the scratch among them, which the caller keeps alive."""
    size, count = int(plan.terms.k.max(initial=1)), int(plan.n_corr.max(initial=1))
    scratch = (*(np.empty(size * size) for _ in range(3)), np.empty(max(count, 1)), np.empty(max(count, 1)))
    scratch = (*scratch, np.empty(len(plan.scale_at)))
    return np.concatenate([TERMS.words(plan.terms), PLAN.words((*plan[1:], *scratch))]), scratch


@dataclass(frozen=True)
class Coordinates:
    """The sampled vector of a model: its length, names, and compiled plan.

    Parameters
    ----------
    layout : Layout
        Covariance structures of the terms.
    names : tuple of str
        What each element of x stands for.
    plan : Plan
        The same for compiled code.
    """

    layout: Layout
    names: tuple[str, ...]
    plan: Plan

    @property
    def size(self) -> int:
        """Number of elements of x."""
        return len(self.names)

    @property
    def n_flat(self) -> int:
        """Numbers in the flat templates of all factors."""
        return sum(k * k for k in self.layout.n_effects)

    def unpack(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, NDArray[np.float64], float]:
        """Return what x stands for.

        Parameters
        ----------
        x : ndarray (d,)
            A point.

        Returns
        -------
        flat : ndarray
            Templates of all factors, in units of sigma.
        sigma : float
            Residual standard deviation.
        sampled : ndarray (s,)
            Coefficients that are part of x.
        log_prior : float
            Log prior density of x, Jacobian included.
        """
        flat, scales, sampled, value = self.unpack_all(np.ascontiguousarray(x, dtype=np.float64)[None])
        return flat[0], float(scales[0, -1]), sampled[0], float(value[0])

    def unpack_all(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return what each of several points stands for.

        Parameters
        ----------
        points : ndarray (S, d)
            Points.

        Returns
        -------
        flat : ndarray (S, m)
            Templates of all factors, in units of sigma.
        scales : ndarray (S, s)
            Standard deviations, the residual's last.
        sampled : ndarray (S, r)
            Coefficients that are part of the points.
        log_prior : ndarray (S,)
            Log prior densities, Jacobian included.
        """
        count = len(points)
        out = (
            np.empty((count, self.n_flat)), np.empty((count, len(self.plan.scale_at))),
            np.empty((count, len(self.plan.sampled))), np.empty(count),
        )  # fmt: skip
        plan, scratch = plan_words(self.plan)
        words = np.concatenate([plan, POINTS.words((np.ascontiguousarray(points), *out))])
        unpack_points.native(words.ctypes.data)
        del scratch
        return out

    def start(self, sigma: float, sd: Sequence[float], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a point with these values and no correlations.

        Parameters
        ----------
        sigma : float
            Residual standard deviation.
        sd : sequence of float
            Group standard deviations in the order of x.
        coefficients : ndarray (s,)
            Coefficients that are part of x.

        Returns
        -------
        ndarray (d,)
            The point.
        """
        x = np.zeros(self.size)
        for i, (place, value) in enumerate(zip(self.plan.scale_at, [*sd, sigma], strict=True)):
            if self.plan.transform[i] == INTERVAL:
                lower, upper = self.plan.scale_parameters[i, :2]
                share = np.clip((value - lower) / (upper - lower), 0.05, 0.95)
                x[place] = np.log(share / (1 - share))
            else:
                x[place] = np.log(value)
        x[self.size - len(coefficients) :] = coefficients
        return x


def coordinates(design: Design, priors: Priors, layout: Layout) -> Coordinates:
    """Return the sampled vector of a Gaussian model.

    Parameters
    ----------
    design : Design
        Names of terms and coefficients.
    priors : Priors
        Every prior, all of families the exact engine knows.
    layout : Layout
        Covariance structures.

    Returns
    -------
    Coordinates
        The vector and its plan.
    """
    names: list[str] = []
    x_start: list[int] = []
    n_sd: list[int] = []
    n_corr: list[int] = []
    corr: list[tuple[float, float, float]] = []
    scale_at: list[int] = []
    scale_priors: list[Prior] = []
    for t, term in enumerate(design.terms):
        structure = layout.covariances[t]
        x_start.append(len(names))
        chosen = priors.sd(t)
        scale_at += range(len(names), len(names) + len(chosen))
        scale_priors += chosen
        names += [f"sd_{term.factor}"] if is_homogeneous(term) else [f"sd_{term.factor}[{e}]" for e in term.effects]
        count = _n_correlations(structure.kind, structure.k)
        names += [f"corr_{term.factor}.{i}" for i in range(count)]
        n_sd.append(len(chosen))
        n_corr.append(count)
        corr.append(_correlation_prior(structure.kind, structure.k, priors.corr(t)))
    scale_at.append(len(names))
    names.append("sigma")
    assert priors.sigma is not None
    scale_priors.append(priors.sigma)
    sampled = [i for i, prior in enumerate(priors.coefficients) if not prior.is_normal]
    names += [f"beta[{design.coef_names[i]}]" for i in sampled]
    scale_family, scale_parameters = _coded(scale_priors)
    coef_family, coef_parameters = _coded([priors.coefficients[i] for i in sampled])
    plan = Plan(
        terms=layout.arrays,
        x_start=_ints(x_start),
        n_sd=_ints(n_sd),
        n_corr=_ints(n_corr),
        scale_at=_ints(scale_at),
        transform=_ints([INTERVAL if prior.name == "Uniform" else LOG_SCALE for prior in scale_priors]),
        scale_family=scale_family,
        scale_parameters=scale_parameters,
        corr=np.array(corr, dtype=np.float64).reshape(-1, 3),
        sampled=_ints(sampled),
        coef_family=coef_family,
        coef_parameters=coef_parameters,
    )
    return Coordinates(layout, tuple(names), plan)


def _ints(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _n_correlations(kind: str, k: int) -> int:
    if kind == "us":
        return k * (k - 1) // 2
    return 0 if kind == "diag" else 1


def _correlation_prior(kind: str, k: int, prior: Prior | None) -> tuple[float, float, float]:
    if prior is None:
        return 0.0, 0.0, 0.0
    eta = float(prior.args["eta"])
    return (eta, 0.0, 0.0) if kind == "us" else correlation_beta(kind, k, eta)


def _coded(priors: Sequence[Prior]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    codes = [prior.coded for prior in priors]
    parameters = np.array([values for _, values in codes], dtype=np.float64).reshape(-1, 3)
    return _ints([code for code, _ in codes]), parameters


# --- compiled ------------------------------------------------------------------------------------------------------


@internal
def scale_value(transform, parameters, x):  # type: ignore[no-untyped-def]
    """Return a standard deviation, its derivative in x, and log |derivative| with its own derivative."""
    if transform == INTERVAL:
        width = parameters[1] - parameters[0]
        share = 1.0 / (1.0 + exp(-x))
        log_slope = log(width) - abs(x) - 2.0 * log1p(exp(-abs(x)))
        return parameters[0] + width * share, width * share * (1.0 - share), log_slope, 1.0 - 2.0 * share
    value = exp(x)
    return value, value, x, 1.0


@internal
def fill_partial(z, root):  # type: ignore[no-untyped-def]
    """Fill the Cholesky root (k, k) of a correlation matrix from Fisher's z of its canonical partial correlations.

    Partial correlations run row by row below the diagonal. See Lewandowski, Kurowicka & Joe (2009), *J. Multivariate
    Analysis* 100(9).
    """
    k = root.shape[0]
    fill(root, 0.0)
    at = 0
    for i in range(k):
        rest = 1.0
        for j in range(i):
            root[i, j] = tanh(z[at]) * rest
            rest *= sqrt_sech2(z[at])
            at += 1
        root[i, i] = rest


@internal
def pull_partial(z, root, gradient, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient in z, given the `gradient` (k, k) in the root."""
    k = root.shape[0]
    at = 0
    for i in range(k):
        rest = 1.0
        for j in range(i):
            narrow = sqrt_sech2(z[at])
            total = gradient[i, j] * rest * narrow * narrow
            partial = tanh(z[at])
            for later in range(j + 1, i + 1):
                total -= gradient[i, later] * root[i, later] * partial
            out[at] = total
            rest *= narrow
            at += 1


@internal
def lkj_log_prior(z, k, eta, slope):  # type: ignore[no-untyped-def]
    """Return the log density of Fisher's z under LKJ(eta), Jacobian included; add its gradient to `slope`."""
    value = 0.0
    at = 0
    for i in range(k):
        for j in range(i):
            shape = eta + 0.5 * (k - 2 - j)
            value += shape * log_sech2(z[at]) - (2.0 * shape - 1.0) * LOG_2 - log_beta(shape, shape)
            slope[at] += -2.0 * shape * tanh(z[at])
            at += 1
    return value


@internal
def unpack(plan, x, flat, scales, sampled):  # type: ignore[no-untyped-def]
    """Fill templates (in units of sigma), scales and sampled coefficients; return the log prior of x."""
    value = 0.0
    n_scales = plan.scale_at.size
    for i in range(n_scales):
        scale, _, log_slope, _ = scale_value(plan.transform[i], plan.scale_parameters[i], x[plan.scale_at[i]])
        scales[i] = scale
        a, b, c = plan.scale_parameters[i, 0], plan.scale_parameters[i, 1], plan.scale_parameters[i, 2]
        value += log_density(plan.scale_family[i], a, b, c, scale)[0] + log_slope
    first = x.size - sampled.size
    for i in range(sampled.size):
        sampled[i] = x[first + i]
        a, b, c = plan.coef_parameters[i, 0], plan.coef_parameters[i, 1], plan.coef_parameters[i, 2]
        value += log_density(plan.coef_family[i], a, b, c, sampled[i])[0]
    fill(flat, 0.0)
    sigma = scales[n_scales - 1]
    scale_at = 0
    for t in range(plan.x_start.size):
        k, n_sd, n_corr = plan.terms.k[t], plan.n_sd[t], plan.n_corr[t]
        begin = plan.x_start[t] + n_sd
        root, slope = as_matrix(plan.root, k, k), plan.slope
        fill(slope, 0.0)
        value += term_root(plan, t, x[begin : begin + n_corr], root, slope)
        width = plan.terms.factor_k[plan.terms.factor[t]]
        base = plan.terms.template_start[plan.terms.factor[t]] + plan.terms.column[t] * (width + 1)
        for i in range(k):
            sd = scales[scale_at + (i if n_sd == k else 0)] / sigma
            for j in range(i + 1):
                flat[base + i * width + j] = sd * root[i, j]
        scale_at += n_sd
    return value


POINTS = Fields("Points", "points:f2 flat:f2 scales:f2 sampled:f2 values:f1", PLAN.end, {"plan": (PLAN, 0)})
points_at = record_at(POINTS)


@c_entry
def unpack_points(address):  # type: ignore[no-untyped-def]
    """Do `unpack` for every point: the C function of a record."""
    e = points_at(address)
    for i in range(e.points.shape[0]):
        e.values[i] = unpack(e.plan, e.points[i], e.flat[i], e.scales[i], e.sampled[i])
    return 0.0


@internal
def term_root(plan, t, z, root, slope):  # type: ignore[no-untyped-def]
    """Fill the root of a term's correlation matrix; return the log prior of z, its gradient added to `slope`."""
    k, kind = plan.terms.k[t], plan.terms.kind[t]
    if z.size == 0:
        fill(root, 0.0)
        for i in range(k):
            root[i, i] = 1.0
        return 0.0
    if kind == US:
        fill_partial(z, root)
        return lkj_log_prior(z, k, plan.corr[t, 0], slope)
    lower, a, b = plan.corr[t, 0], plan.corr[t, 1], plan.corr[t, 2]
    share = 1.0 / (1.0 + exp(-z[0]))
    unused = as_matrix(plan.other, k, k)
    correlation_root(kind, lower + (1.0 - lower) * share, root, unused)
    slope[0] += a - (a + b) * share
    log_share = -log1p(exp(-abs(z[0]))) + min(z[0], 0.0)
    return a * log_share + b * (log_share - z[0]) - log_beta(a, b)


@internal
def pull(plan, x, scales, flat_gradient, sigma_gradient, sampled_gradient, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the gradient in x of the log posterior.

    `flat_gradient`, `sigma_gradient` and `sampled_gradient` are those of the log likelihood in the templates (in units
    of sigma), in sigma and in the sampled coefficients; the prior's part is added here.
    """
    n_scales = plan.scale_at.size
    sigma = scales[n_scales - 1]
    by_scale = plan.by_scale
    fill(by_scale, 0.0)
    by_scale[n_scales - 1] = sigma_gradient
    scale_at = 0
    for t in range(plan.x_start.size):
        k, n_sd, n_corr = plan.terms.k[t], plan.n_sd[t], plan.n_corr[t]
        begin = plan.x_start[t] + n_sd
        z = x[begin : begin + n_corr]
        root, slope = as_matrix(plan.root, k, k), plan.slope
        fill(slope, 0.0)
        term_root(plan, t, z, root, slope)
        width = plan.terms.factor_k[plan.terms.factor[t]]
        base = plan.terms.template_start[plan.terms.factor[t]] + plan.terms.column[t] * (width + 1)
        by_root = as_matrix(plan.by_root, k, k)
        fill(by_root, 0.0)
        for i in range(k):
            which = scale_at + (i if n_sd == k else 0)
            sd = scales[which] / sigma
            for j in range(i + 1):
                entry = flat_gradient[base + i * width + j]
                by_root[i, j] = entry * sd
                by_scale[which] += entry * root[i, j] / sigma
                by_scale[n_scales - 1] -= entry * root[i, j] * sd / sigma
        if n_corr > 0:
            pull_correlations(plan, t, z, root, by_root, slope)
            for i in range(n_corr):
                out[begin + i] = slope[i]
        scale_at += n_sd
    for i in range(n_scales):
        a, b, c = plan.scale_parameters[i, 0], plan.scale_parameters[i, 1], plan.scale_parameters[i, 2]
        _, derivative, _, log_slope = scale_value(plan.transform[i], plan.scale_parameters[i], x[plan.scale_at[i]])
        prior_slope = log_density(plan.scale_family[i], a, b, c, scales[i])[1]
        out[plan.scale_at[i]] = (by_scale[i] + prior_slope) * derivative + log_slope
    first = x.size - sampled_gradient.size
    for i in range(sampled_gradient.size):
        a, b, c = plan.coef_parameters[i, 0], plan.coef_parameters[i, 1], plan.coef_parameters[i, 2]
        out[first + i] = sampled_gradient[i] + log_density(plan.coef_family[i], a, b, c, x[first + i])[1]


@internal
def pull_correlations(plan, t, z, root, by_root, slope):  # type: ignore[no-untyped-def]
    """Add to `slope` the gradient in a term's correlation coordinates, given that in its root."""
    k, kind = plan.terms.k[t], plan.terms.kind[t]
    if kind == US:
        pull_partial(z, root, by_root, plan.part)
        for i in range(z.size):
            slope[i] += plan.part[i]
        return
    lower = plan.corr[t, 0]
    share = 1.0 / (1.0 + exp(-z[0]))
    again, derivative = as_matrix(plan.root, k, k), as_matrix(plan.other, k, k)
    correlation_root(kind, lower + (1.0 - lower) * share, again, derivative)
    total = 0.0
    for i in range(k):
        for j in range(k):
            total += by_root[i, j] * derivative[i, j]
    slope[0] += total * (1.0 - lower) * share * (1.0 - share)
