"""NUTS over standard deviations and correlations, coefficients and group effects integrated out by Laplace.

For families other than the Gaussian the group effects cannot be integrated out exactly. Their Laplace approximation,
the coefficients among them, leaves a density of a few dimensions that NUTS explores in no time. Afterwards coefficients
and effects are drawn from the Gaussian at the mode, and every draw is weighted by the exact joint density over the
approximate one: with f the exact log joint density of (u, beta) given the sampled vector, and z the standard normal
numbers behind a draw,

    log weight = f(draw) - f(mode) + z'z / 2.

The weights are Pareto-smoothed; the shape k of their tail says whether the approximation may be trusted at all.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.bambi import threshold_prior, threshold_shift
from bayeslmm.bayes.chains import Chains
from bayeslmm.bayes.coordinates import LOG_SCALE, Coordinates, coordinates
from bayeslmm.bayes.labels import data_groups, variance_draws
from bayeslmm.bayes.laplace_entry import density, draw_given, new_laplace_state
from bayeslmm.bayes.logposterior import shear_of
from bayeslmm.bayes.marginal import Draws, Mode, available_cores, axes_at, keep_complete, one_blas_thread
from bayeslmm.bayes.priors import Prior, PriorEntry, Priors, has_intercept, is_correlated, is_homogeneous
from bayeslmm.bayes.proposals import METHOD, fit_proposal
from bayeslmm.bayes.surrogate import FLATTENED, fit_surrogate
from bayeslmm.datatree import SAMPLE_DIMS, THRESHOLD_DIM, posterior_dataset
from bayeslmm.errors import SamplingError
from bayeslmm.likelihood.compile_time import Stopwatch
from bayeslmm.likelihood.descent import bfgs
from bayeslmm.likelihood.families_jit import FAMILY_CODES, LINK_CODES
from bayeslmm.likelihood.laplace import LaplaceKernel, compile_for, start_aux

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.bayes.state import State
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design

TUNE = 200
TARGET_ACCEPT = 0.8
LOOSE = 1e-4
"""Newton decrement at which the sampler's search for the mode ends; what is left is taken without a new curvature."""
WORST_PARETO_K = 0.7
CHUNK = 250
SLOW_EVALUATION = 2.5e-4
"""Seconds of an evaluation above which a stand-in for the density is learned, instead of running NUTS on it."""
FACTORISATIONS = 6
SUM_SECONDS = 1.1e-8
ROW_SECONDS = 7e-7
"""Of a row of a family without a loop of its own, all steps of a search for the mode together."""
WORST_STAND_IN_K = 0.7
LEAST_EFFICIENCY = 0.4
PILOT_CHUNK = 25
VECTORISED = tuple(
    (FAMILY_CODES[family], LINK_CODES[link]) for family, link in (("binomial", "logit"), ("poisson", "log"))
)
FEWEST = 25
"""Draws below which the tail of their weights has fewer than the five that ArviZ needs."""


@dataclass(frozen=True)
class LaplaceDensity:
    """The approximate marginal log posterior of a generalised model.

    Parameters
    ----------
    design : Design
        The formula met by data.
    kernel : LaplaceKernel
        Its likelihood kernel.
    coordinates : Coordinates
        What the sampled vector means; its last standard deviation is the family's own parameter, or a constant 1.
    mean, precision : ndarray (p,), (p, p)
        Normal prior of the whitened coefficients.
    constant : float
        Constants of likelihood and prior.
    thresholds : tuple of ndarray (c,), optional
        Of an ordered response: means and standard deviations of the normal prior of its thresholds, for predictors at
        their means. They follow the vector of `coordinates`: the first, then log distances between neighbours.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"), family="binomial")
    >>> laplace_density(m.design, m.family, m.priors).active
    array([0])
    """

    design: Design
    kernel: LaplaceKernel
    coordinates: Coordinates
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    constant: float
    thresholds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    @property
    def length(self) -> int:
        """Elements of the vector, with the constant that stands for an own parameter where the family has none."""
        return self.coordinates.size + (0 if self.thresholds is None else len(self.thresholds[0]))

    @property
    def size(self) -> int:
        """How many numbers are sampled."""
        return len(self.active)

    @property
    def seconds(self) -> float:
        """What a value and its gradient cost on a usual processor: counted from factor and cells, not measured."""
        cells = self.kernel.cells
        columns = len(cells.root_at) if len(cells.root_at) else cells.Z.shape[1]
        per_cell = columns * (columns + 3) / 2 + cells.X.shape[1]
        rows = 0.0 if self.kernel.codes in VECTORISED else ROW_SECONDS
        return FACTORISATIONS * self.kernel.analysis.seconds + len(cells.y) * (per_cell * SUM_SECONDS + rows)

    @property
    def is_slow(self) -> bool:
        """Whether an evaluation costs so much that NUTS would be slower than learning a stand-in."""
        return self.seconds > SLOW_EVALUATION

    @property
    def active(self) -> NDArray[np.intp]:
        """Elements of the vector that are sampled."""
        constant = self.coordinates.size - 1
        has_scale = self.kernel.n_aux and self.thresholds is None
        return np.arange(self.length) if has_scale else np.delete(np.arange(self.length), constant)

    def state(
        self,
        centre: NDArray[np.float64] | None = None,
        spread: NDArray[np.float64] | None = None,
        tolerance: float = LOOSE,
    ) -> State:
        """Return a state of its own for one thread.

        Parameters
        ----------
        centre : ndarray (d,), optional
            Origin of whitened coordinates.
        spread : ndarray (d, a), optional
            Their axes.
        tolerance : float
            Newton decrement at which a search for the mode ends.

        Returns
        -------
        State
        """
        size = self.length
        return new_laplace_state(
            self.kernel,
            self.coordinates.plan,
            self.mean,
            self.precision,
            self.constant,
            np.zeros(size) if centre is None else np.ascontiguousarray(centre),
            np.eye(size) if spread is None else np.ascontiguousarray(spread),
            tolerance,
            self.thresholds,
        )

    def evaluate_whitened(self, state: State, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log posterior and its gradient in whitened coordinates.

        Parameters
        ----------
        state : State
            A state with centre and axes.
        w : ndarray (a,)
            Whitened point.

        Returns
        -------
        value : float
        gradient : ndarray (a,)
        """
        return state.evaluate_whitened(w)

    def start(self) -> NDArray[np.float64]:
        """Return a plausible point: every group effect with half a unit of the linear predictor."""
        sds: list[float] = []
        for term in self.design.condensed.terms:
            sizes = [0.5 / max(float(np.sqrt(np.mean(column**2))), 1e-12) for column in term.Z.T]
            sds += [float(np.mean(sizes))] if is_homogeneous(term) else sizes
        aux = start_aux(self.kernel)
        if self.thresholds is not None:
            cuts = np.concatenate([aux[:1], np.log(np.diff(aux))])
            return np.concatenate([self.coordinates.start(1.0, sds, np.zeros(0)), cuts])
        return self.coordinates.start(float(np.exp(aux[0])) if len(aux) else 1.0, sds, np.zeros(0))

    def threshold_draws(self, x: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the thresholds of an ordered response for predictors at zero.

        Parameters
        ----------
        x : ndarray (C, D, d)
            Sampled vectors.
        beta : ndarray (C, D, p)
            Coefficients.

        Returns
        -------
        ndarray (C, D, c)
            Increasing.
        """
        cuts = x[..., self.coordinates.size :].copy()
        cuts[..., 1:] = np.exp(cuts[..., 1:])
        return cuts.cumsum(axis=-1) + (beta @ threshold_shift(self.design))[..., None]


def cannot_integrate(design: Design, family: Family, priors: Priors) -> str:
    """Return why the Laplace engine does not apply to a model; empty when it does.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.
    priors : Priors
        Every prior.

    Returns
    -------
    str
        The reason, in words.
    """
    if family.is_gaussian_identity or family.name not in FAMILY_CODES:
        return f"the family is {family}"
    if not design.terms:
        return "there are no group effects to integrate out"
    if priors.unknown:
        return f"the prior of {priors.unknown[0].name!r} is {priors.unknown[0].prior!r}"
    for name, prior in zip(design.coef_names, priors.coefficients, strict=True):
        if not prior.is_normal:
            return f"the prior of {name!r} is not normal"
    return ""


def laplace_density(
    design: Design, family: Family, priors: Priors, kernel: LaplaceKernel | None = None
) -> LaplaceDensity:
    """Return the approximate marginal log posterior of a generalised model.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family with its link.
    priors : Priors
        Normal or flat for the coefficients.
    kernel : LaplaceKernel, optional
        The likelihood kernel, when there is one already; of an ordered response that with centred columns.

    Returns
    -------
    LaplaceDensity
    """
    compile_for(density)
    ordered = family.name == "cumulative"
    if kernel is None:
        kernel = LaplaceKernel.from_design(_at_means(design) if ordered else design, family)
    where = coordinates(design, _with_own_parameter(priors), kernel.layout)
    from_white = shear_of(design) @ np.linalg.inv(kernel.R0) if kernel.p else np.zeros((0, 0))
    is_flat = np.array([prior.name == "Flat" for prior in priors.coefficients], dtype=bool)
    centred_mean = np.array([0.0 if prior.name == "Flat" else prior.args["mu"] for prior in priors.coefficients])
    sds = np.array([np.inf if prior.name == "Flat" else prior.args["sigma"] for prior in priors.coefficients])
    proper = ~is_flat
    constant = kernel.constant - float(np.log(sds[proper]).sum()) + 0.5 * np.log(2 * np.pi) * float(is_flat.sum())
    constant -= float(np.linalg.slogdet(kernel.R0)[1])
    return LaplaceDensity(
        design=design,
        kernel=kernel,
        coordinates=where,
        mean=np.linalg.solve(from_white, centred_mean) if kernel.p else np.zeros(0),
        precision=np.ascontiguousarray(from_white.T @ (from_white / sds[:, None] ** 2)),
        constant=constant,
        thresholds=threshold_prior(kernel.n_aux, priors.aux["threshold"]) if ordered else None,
    )


def _at_means(design: Design) -> Design:
    """Return the design whose thresholds are those of the prior: for predictors at their means."""
    return design if has_intercept(design) else replace(design, X=np.ascontiguousarray(design.centred(design.X)))


def _with_own_parameter(priors: Priors) -> Priors:
    """Return the priors with the family's own parameter in the place of sigma; a constant when it has none."""
    if priors.sigma is not None:
        return priors
    further = [prior for name, prior in priors.aux.items() if name != "threshold"]
    own = next(iter(further), Prior("HalfNormal", sigma=1))
    return Priors((*priors.entries, PriorEntry("sigma", "sigma", own, "")), priors.centred)


def find_laplace_mode(density: LaplaceDensity) -> Mode:
    """Return the mode of the sampled vector and the axes around it.

    Parameters
    ----------
    density : LaplaceDensity
        The density.

    Returns
    -------
    Mode

    Raises
    ------
    SamplingError
        If the density is not finite at any start.
    """
    state, active = density.state(), density.active
    start = density.start()
    gradient = np.empty(density.length)
    scales = np.isin(active, density.coordinates.plan.scale_at[density.coordinates.plan.transform == LOG_SCALE])

    def negative(part: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        x = start.copy()
        x[active] = part
        value = state.evaluate(x, gradient)
        return (-value, -gradient[active]) if np.isfinite(value) else (np.inf, np.zeros(len(active)))

    for shrink in (1.0, 0.3, 0.1, 0.03):
        begin = start[active] + np.log(shrink) * scales
        if np.isfinite(negative(begin)[0]):
            break
    else:
        raise SamplingError(
            "the posterior density is not finite at its starting point.\n"
            "  Is there a column of very large numbers, or a response far outside what the link allows?"
        )
    found = bfgs(negative, begin, np.eye(len(active)) * 0.3, 1e-6, 300)
    spread = np.zeros((density.length, len(active)))
    spread[active] = axes_at(found.x, negative)
    x = start.copy()
    x[active] = found.x
    return Mode(x, spread, -found.value, len(found.path))


def sample_laplace(
    design: Design,
    family: Family,
    priors: Priors,
    *,
    kernel: LaplaceKernel | None = None,
    draws: int = 1000,
    tune: int | None = None,
    chains: int = 4,
    seed: int = 0,
    progress: bool = False,
    target_accept: float | None = None,
    cores: int | None = None,
    method: str | None = None,
    reason: str = "",
) -> Posterior:
    """Draw from the posterior of a generalised model with coefficients and group effects integrated out by Laplace.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family with its link.
    priors : Priors
        Every prior; normal or flat for the coefficients.
    kernel : LaplaceKernel, optional
        The likelihood kernel, when there is one already.
    draws, tune, chains : int
        Draws and warm-up steps per chain, and chains.
    seed : int
        Makes the draws reproducible.
    progress : bool
        Show a bar.
    target_accept : float, optional
        Acceptance the step size is tuned to; 0.8 when absent.
    cores : int, optional
        Chains at a time.
    method : {"nuts", "proposals"}, optional
        NUTS, or independent draws from a stand-in for the density (`bayeslmm.bayes.surrogate`). When absent, the
        latter where an evaluation is dear, unless warm-up or acceptance are given.
    reason : str
        Why this engine.

    Returns
    -------
    Posterior
        Draws after the importance correction; `run.pareto_k` says how good the approximation was.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"), family="binomial")
    >>> post = sample_laplace(m.design, m.family, m.priors, draws=250, chains=2, seed=1)
    >>> post.run.engine, bool(post.run.pareto_k < 0.7)
    ('Laplace', True)
    """
    from bayeslmm.bayes.posterior import Posterior, Run

    clock = Stopwatch()
    density = laplace_density(design, family, priors, kernel)
    # A tail of a hundred columns gains nothing from threads, and waits for them on a busy machine.
    with one_blas_thread(True):
        mode = find_laplace_mode(density)
    cores = min(chains, cores or available_cores())
    raw = None
    if method == "proposals" or (method is None and tune is None and target_accept is None and density.is_slow):
        raw = draw_from_stand_in(density, mode, draws=draws, chains=chains, seed=seed, cores=cores)
    if raw is None or (method is None and raw.pareto_k > WORST_STAND_IN_K):
        raw = draw_by_nuts(
            density, mode, draws=draws, tune=TUNE if tune is None else tune, chains=chains, seed=seed,
            progress=progress, cores=cores, target_accept=TARGET_ACCEPT if target_accept is None else target_accept,
        )  # fmt: skip
    smoothed, k = smooth(raw.log_weights)
    kept = resample(smoothed, np.random.default_rng([seed, 2]))
    efficiency = 1.0 / float(np.sum(np.exp(2 * smoothed))) / smoothed.size
    chain = np.arange(raw.x.shape[0])[:, None]
    tree = _labelled(
        density,
        family,
        raw.x[chain, kept],
        raw.beta[chain, kept],
        {name: value[chain, kept] for name, value in raw.effects.items()},
        {**raw.statistics, "log_weight": raw.log_weights},
    )
    run = Run(
        engine="Laplace",
        method=raw.method,
        sampler=f"nutpie {version('nutpie')}" if raw.method == "NUTS" else "bayeslmm",
        draws=raw.x.shape[1],
        chains=raw.x.shape[0],
        tune=raw.tune,
        seed=seed,
        seconds=clock.seconds(),
        pareto_k=k,
        reason=reason,
        notes=(*raw.notes, _quality(k, efficiency), *clock.notes()),
    )
    return Posterior(design, family, priors, tree, run)


@dataclass(frozen=True, kw_only=True)
class WeightedDraws(Draws):
    """Draws from an approximate posterior, before their weights correct them.

    Their `pareto_k` is that of the Laplace posterior over its stand-in.

    Parameters
    ----------
    log_weights : ndarray (C, D)
        Exact over approximate density, up to a constant.
    """

    log_weights: NDArray[np.float64]


def draw_from_stand_in(
    density: LaplaceDensity, mode: Mode, *, draws: int, chains: int, seed: int, cores: int
) -> WeightedDraws | None:
    """Draw from a stand-in for the approximate posterior that a few hundred evaluations gave.

    Parameters
    ----------
    density : LaplaceDensity
        The approximate posterior.
    mode : Mode
        Its mode and axes.
    draws, chains : int
        Draws per chain, and chains.
    seed : int
        Makes the draws reproducible, whatever the number of cores.
    cores : int
        Threads.

    Returns
    -------
    WeightedDraws or None
        None where no stand-in can be learned that is worth drawing from.
    """
    rng = np.random.default_rng([seed, 3])

    def part(points: NDArray[np.float64]) -> list[tuple[float, NDArray[np.float64]]]:
        state = density.state(mode.x, mode.spread)
        return [density.evaluate_whitened(state, point) for point in points]

    with one_blas_thread(True), ThreadPoolExecutor(max_workers=cores) as pool:

        def evaluate(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            parts = np.array_split(points, max(1, len(points) // PILOT_CHUNK))
            values, slopes = zip(*(pair for pairs in pool.map(part, parts) for pair in pairs), strict=True)
            return np.array(values), np.array(slopes)

        stand_in = fit_surrogate(fit_proposal(density, mode), evaluate, rng)
        if not stand_in.efficiency > LEAST_EFFICIENCY:
            return None
        w = stand_in.draw(rng, chains, draws, FLATTENED)
        log_stand_in = FLATTENED * stand_in.logpdf(w.reshape(-1, density.size)).reshape(chains, draws)
    x = mode.x + w @ mode.spread.T
    beta, effects, exact, approximate = conditional_draws(density, x, seed=seed, cores=cores)
    _, k = smooth(approximate - log_stand_in)
    return WeightedDraws(x, beta, effects, {"lp": approximate}, 0, METHOD, pareto_k=k, log_weights=exact - log_stand_in)


def draw_by_nuts(
    density: LaplaceDensity, mode: Mode, *, draws: int, tune: int, chains: int, seed: int, progress: bool, cores: int,
    target_accept: float,
) -> WeightedDraws:  # fmt: skip
    """Draw from the approximate posterior by NUTS.

    Parameters
    ----------
    density : LaplaceDensity
        The approximate posterior.
    mode : Mode
        Its mode and axes.
    draws, tune, chains : int
        Draws and warm-up steps per chain, and chains.
    seed : int
        Makes the draws reproducible.
    progress : bool
        Show a bar.
    cores : int
        Chains at a time.
    target_accept : float
        Acceptance the step size is tuned to.

    Returns
    -------
    WeightedDraws
    """
    w, statistics, notes = _run_nuts(
        density, mode, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress, cores=cores,
        target_accept=target_accept,
    )  # fmt: skip
    x = mode.x + w @ mode.spread.T
    beta, effects, exact, approximate = conditional_draws(density, x, seed=seed, cores=cores)
    return WeightedDraws(x, beta, effects, statistics, tune, "NUTS", notes=notes, log_weights=exact - approximate)


def _quality(k: float, efficiency: float) -> str:
    return (
        "group effects and coefficients integrated out by Laplace, corrected by importance weights: "
        f"Pareto k {k:.2f}, weights {100 * efficiency:.0f} % efficient"
    )


def _run_nuts(
    density: LaplaceDensity, mode: Mode, *, draws: int, tune: int, chains: int, seed: int, progress: bool, cores: int,
    target_accept: float,
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]], tuple[str, ...]]:  # fmt: skip
    """Return draws of the whitened vector (C, D, a), sampler statistics, and notes."""

    def make_density() -> Any:
        state = density.state(mode.x, mode.spread)
        return state.evaluate_whitened

    work = Chains(mode.spread.shape[1], draws, tune, chains, cores, seed, progress, target_accept, jitter=0.5)
    with one_blas_thread(cores > 1):
        w, statistics = work.run_callable(make_density)
    return keep_complete(w, statistics, draws)


def conditional_draws(
    density: LaplaceDensity, x: NDArray[np.float64], *, seed: int, cores: int
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]], NDArray[np.float64], NDArray[np.float64]]:
    """Draw coefficients and group effects from the Gaussian at the mode of each sampled vector.

    Parameters
    ----------
    density : LaplaceDensity
        What was sampled.
    x : ndarray (C, D, d)
        Sampled vectors.
    seed : int
        Makes the draws reproducible, whatever the number of cores.
    cores : int
        Threads.

    Returns
    -------
    beta : ndarray (C, D, p)
        Coefficients.
    effects : dict of str to ndarray (C, D, J, K)
        Group effects by factor.
    exact : ndarray (C, D)
        Exact log joint density of vector, coefficients and effects, less that of the latter two given the vector.
    approximate : ndarray (C, D)
        Approximate log posterior of the vector: the same, if the Gaussian were exact.
    """
    chains, draws, size = x.shape
    points = np.ascontiguousarray(x.reshape(-1, size))
    kernel = density.kernel
    p, q = kernel.p, kernel.analysis.n_columns
    white, flat = np.empty((len(points), p)), np.empty((len(points), q))
    exact, approximate = np.empty(len(points)), np.empty(len(points))
    starts = range(0, len(points), CHUNK)
    streams = np.random.SeedSequence([seed, 1]).spawn(len(starts))

    def work(start: int, stream: np.random.SeedSequence) -> None:
        part = slice(start, min(start + CHUNK, len(points)))
        rng = np.random.default_rng(stream)
        count = part.stop - start
        draw_given(
            density.state(), points[part], rng.standard_normal((count, p)), rng.standard_normal((count, q)),
            white[part], flat[part], exact[part], approximate[part],
        )  # fmt: skip

    with one_blas_thread(cores > 1), ThreadPoolExecutor(max_workers=cores) as pool:
        list(pool.map(work, starts, streams))
    beta = np.linalg.solve(kernel.R0, white.T).T if p else white
    effects = {
        factor.name: flat[:, first[:, None] + np.arange(k)].reshape(chains, draws, len(first), k)
        for factor, first, k in zip(
            density.design.factors, kernel.analysis.first_row, kernel.layout.n_effects, strict=True
        )
    }
    ok = np.isfinite(exact) & np.isfinite(approximate)
    exact, approximate = np.where(ok, exact, -np.inf), np.where(ok, approximate, 0.0)
    return beta.reshape(chains, draws, p), effects, exact.reshape(chains, draws), approximate.reshape(chains, draws)


def smooth(log_weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return Pareto-smoothed log importance weights that sum to one, and the shape of their tail.

    Parameters
    ----------
    log_weights : ndarray (C, D)
        Up to a constant.

    Returns
    -------
    smoothed : ndarray (C, D)
    pareto_k : float
        Not a number for fewer than `FEWEST` draws, whose weights are left as they are.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), *J. Machine Learning Research* 25(72).
    """
    from arviz_stats.base import array_stats

    finite = np.maximum(log_weights, np.max(log_weights) - 500.0)
    smoothed, k = finite, np.nan
    if finite.size >= FEWEST:
        # ArviZ smooths leave-one-out weights, whose logarithm is minus its argument.
        smoothed, k = array_stats.psislw(-finite.ravel())
        smoothed = np.asarray(smoothed).reshape(log_weights.shape)
    top = smoothed.max()
    return smoothed - top - np.log(np.exp(smoothed - top).sum()), float(k)


def resample(smoothed: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return, chain by chain, draws chosen with their weights: systematic, so that equal weights keep every draw.

    Parameters
    ----------
    smoothed : ndarray (C, D)
        Log weights.
    rng : numpy Generator
        One number per chain.

    Returns
    -------
    ndarray (C, D) of int
        Positions in the chain, ascending.

    Examples
    --------
    >>> resample(np.log(np.full((1, 4), 0.25)), np.random.default_rng(1))
    array([[0, 1, 2, 3]])
    """
    chains, draws = smoothed.shape
    kept = np.empty((chains, draws), dtype=np.intp)
    for chain in range(chains):
        weights = np.exp(smoothed[chain] - smoothed[chain].max())
        edges = np.cumsum(weights) / weights.sum()
        edges[-1] = 1.0
        kept[chain] = np.searchsorted(edges, (np.arange(draws) + rng.uniform()) / draws)
    return kept


def _labelled(
    density: LaplaceDensity,
    family: Family,
    x: NDArray[np.float64],
    beta: NDArray[np.float64],
    effects: dict[str, NDArray[np.floating[Any]]],
    statistics: dict[str, NDArray[Any]],
) -> xr.DataTree:
    """Return the draws in the dimensions all engines share."""
    import xarray as xr

    design = density.design
    sd, corr, own = variance_draws(density.coordinates, x[..., : density.coordinates.size])
    names = [factor.name for factor in design.factors]
    correlated = {term.factor for term in design.terms if is_correlated(term)}
    posterior = posterior_dataset(
        design,
        beta=beta,
        sd=dict(zip(names, sd, strict=True)),
        corr={name: value for name, value in zip(names, corr, strict=True) if name in correlated},
        effects=effects,
        sigma=own if family.name == "gaussian" else None,
    )
    if density.thresholds is not None:
        labels = {THRESHOLD_DIM: list(design.threshold_labels)}
        cuts = density.threshold_draws(x, beta)
        posterior = posterior.assign(threshold=((*SAMPLE_DIMS, THRESHOLD_DIM), cuts)).assign_coords(labels)
    elif density.kernel.n_aux and family.name != "gaussian":
        posterior[family.parameter] = (("chain", "draw"), own)
    chains, draws = x.shape[:2]
    stats = xr.Dataset(
        {name: (("chain", "draw"), values) for name, values in statistics.items()},
        coords={"chain": np.arange(chains), "draw": np.arange(draws)},
    )
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats, **data_groups(design)})
