"""The exact engine for Gaussian models: sample the variance parameters, then draw all else from its exact conditional.

The posterior mode and its Hessian come first; NUTS then runs in coordinates in which the posterior is nearly standard
normal, so warm-up is short. Coefficients and group effects follow from one factorisation per draw.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from bayeslmm.bayes.chains import Chains
from bayeslmm.bayes.folded import fold
from bayeslmm.bayes.logposterior import LogPosterior, posterior
from bayeslmm.bayes.priors import effect_scale, is_homogeneous
from bayeslmm.errors import SamplingError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

TUNE, TARGET_ACCEPT = 200, 0.8
DEAR, DEAR_TUNE, DEAR_ACCEPT = 1e-3, 100, 0.65
"""Where an evaluation costs more than so many seconds: a shorter warm-up, as the whitened coordinates need little, and
longer steps, which in few dimensions cost fewer evaluations per effective draw."""
STEP = 1e-4
WIDEST = 3.0
FARTHEST = 12.0
CHUNK_NUMBERS = 1 << 21


@dataclass(frozen=True)
class Mode:
    """The posterior mode of the sampled vector and the shape of the posterior around it.

    Parameters
    ----------
    x : ndarray (d,)
        The mode.
    spread : ndarray (d, d)
        S with S S' the inverse of the negative Hessian: axes of about one posterior SD.
    value : float
        Log posterior there.
    evaluations : int
        How many it took.
    """

    x: NDArray[np.float64]
    spread: NDArray[np.float64]
    value: float
    evaluations: int


@dataclass(frozen=True)
class Draws:
    """What an engine hands over: draws by chain, before they are labelled.

    Parameters
    ----------
    x : ndarray (C, D, d)
        Sampled vectors.
    beta : ndarray (C, D, p)
        Coefficients.
    effects : mapping of str to ndarray (C, D, J, K)
        Group effects by factor.
    statistics : mapping of str to ndarray (C, D)
        How the sampler fared.
    tune : int
        Warm-up steps per chain.
    method : str
        "NUTS" or "independent proposals".
    pareto_k : float
        Shape of the tail of the importance weights; not a number for NUTS.
    notes : tuple of str
        Remarks for the reader.
    """

    x: NDArray[np.float64]
    beta: NDArray[np.float64]
    effects: Mapping[str, NDArray[np.floating[Any]]]
    statistics: Mapping[str, NDArray[Any]]
    tune: int
    method: str
    pareto_k: float = float("nan")
    notes: tuple[str, ...] = field(default=())


# --- mode ----------------------------------------------------------------------------------------------------------


def find_mode(density: LogPosterior) -> Mode:
    """Return the posterior mode of the sampled vector and the axes around it.

    Parameters
    ----------
    density : LogPosterior
        The marginal log posterior.

    Returns
    -------
    Mode
        Mode and axes.

    Raises
    ------
    SamplingError
        If the density is not finite at any start.
    """
    state = density.state()
    start = starting_point(density)
    gradient = np.empty(density.size)

    def negative(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value = density.evaluate(state, np.ascontiguousarray(x), gradient)
        return (-value, -gradient) if np.isfinite(value) else (1e300, np.zeros_like(gradient))

    if negative(start)[0] == 1e300:
        raise SamplingError(
            "the posterior density is not finite at its starting point.\n"
            "  Is there a column of very large numbers, or a prior that excludes all plausible values?"
        )
    bounds = [(value - FARTHEST, value + FARTHEST) for value in start]
    bounds[density.coefficients_at] = [(None, None)] * len(density.coordinates.plan.sampled)
    # Between bounds the first step of L-BFGS-B is a whole gradient. With residual parameters it would end where the
    # density is not finite, and the search with it: in this unit of the density it has length one.
    unit = 1.0 if density.residual is None else max(1.0, float(np.linalg.norm(negative(start)[1])))

    def scaled(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = negative(x)
        return value / unit, slope / unit

    found = minimize(
        scaled, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"gtol": 1e-6 / unit, "ftol": 1e-13}
    )
    return Mode(found.x, axes_at(found.x, negative), -unit * float(found.fun), int(found.nfev))


def starting_point(density: LogPosterior) -> NDArray[np.float64]:
    """Return a plausible point: a third of the response's SD for each group effect, two thirds for sigma.

    Parameters
    ----------
    density : LogPosterior
        The density.

    Returns
    -------
    ndarray (d,)
        The point.
    """
    design = density.design
    rows = design.condensed
    residual = np.asarray(rows.y) - rows.X @ density.kernel.products.beta0
    residual = residual if rows.offset is None else residual - rows.offset
    scale = max(design.moments(residual)[1], 1e-6 * design.moments(np.asarray(rows.y))[1])
    sds = []
    for term in rows.terms:
        scales = [effect_scale(column, design)[0] for column in term.Z.T]
        sds += [float(np.mean(scales))] if is_homogeneous(term) else scales
    weight = 1.0 if rows.weights is None else float(np.sqrt(np.mean(rows.weights)))
    origin = density.shear @ density.kernel.products.beta0
    sampled = origin[density.coordinates.plan.sampled]
    point = density.coordinates.start(0.7 * scale * weight, [0.4 * scale / value for value in sds], sampled)
    return point if density.residual is None else np.append(point, density.residual.start)


def axes_at(x: NDArray[np.float64], negative: Any) -> NDArray[np.float64]:
    """Return S (d, d) with S S' the inverse Hessian of `negative` at x, no axis longer than `WIDEST`.

    Parameters
    ----------
    x : ndarray (d,)
        The mode.
    negative : callable
        Returns minus the log density and its gradient.

    Returns
    -------
    ndarray (d, d)
        Axes as columns.
    """
    size = len(x)
    hessian = np.empty((size, size))
    for i in range(size):
        step = np.zeros(size)
        step[i] = STEP * max(1.0, abs(x[i]) * 1e-2)
        up = negative(x + step)[1].copy()
        hessian[i] = (up - negative(x - step)[1]) / (2 * step[i])
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    return vectors / np.sqrt(np.maximum(values, WIDEST**-2))


# --- NUTS ----------------------------------------------------------------------------------------------------------


def sample_nuts(
    density: LogPosterior,
    mode: Mode,
    *,
    draws: int,
    tune: int | None,
    chains: int,
    seed: int,
    progress: bool,
    target_accept: float | None = None,
    cores: int | None = None,
    storage: DTypeLike = np.float64,
) -> Draws:
    """Draw the sampled vector by NUTS in whitened coordinates, and everything else given it.

    Parameters
    ----------
    density : LogPosterior
        The marginal log posterior.
    mode : Mode
        Its mode and axes.
    draws, tune, chains : int
        Draws and warm-up steps per chain, and chains; 200 warm-up steps when absent, 100 where an evaluation is dear.
    seed : int
        Makes the draws reproducible.
    progress : bool
        Show a bar.
    target_accept : float, optional
        Acceptance the step size is tuned to; 0.8 when absent, 0.65 where an evaluation is dear.
    cores : int, optional
        Chains at a time.
    storage : dtype, default float64
        Of the group effects.

    Returns
    -------
    Draws
        All parameters.
    """
    cores = min(chains, cores or available_cores())
    dear = density.seconds > DEAR
    tune = (DEAR_TUNE if dear else TUNE) if tune is None else tune
    accept = (DEAR_ACCEPT if dear else TARGET_ACCEPT) if target_accept is None else target_accept
    folded = fold(density, mode.x)

    def new_state() -> Any:
        return density.state(mode.x, mode.spread) if folded is None else folded.state()

    def make_density() -> Any:
        state = new_state()
        return lambda w: density.evaluate_whitened(state, w)

    work = Chains(density.size, draws, tune, chains, cores, seed, progress, accept)
    with one_blas_thread(cores > 1):
        if density.residual is None:
            w, statistics = work.run_compiled(posterior.address, [new_state().ready() for _ in range(cores)])
        else:
            w, statistics = work.run_callable(make_density)
    w, statistics, notes = keep_complete(w, statistics, draws)
    x = mode.x + w @ mode.spread.T if folded is None else folded.outward(w)
    beta, effects, values = conditional_draws(
        density, x, seed=seed, progress=progress, cores=cores, storage=storage, keep=True
    )
    everything = {"x": x, "beta": beta, **{f"b_{name}": block for name, block in effects.items()}, **statistics}
    _, everything, more = keep_complete(values[..., None], everything, x.shape[1])
    return Draws(
        everything["x"],
        everything["beta"],
        {name: everything[f"b_{name}"] for name in effects},
        {name: everything[name] for name in statistics},
        tune,
        "NUTS",
        notes=(*notes, *more),
    )


def keep_complete(
    w: NDArray[np.float64], statistics: dict[str, NDArray[Any]], wanted: int
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return the draws all chains have, and a note when the sampler was interrupted.

    Parameters
    ----------
    w : ndarray (C, D, d)
        Draws, not a number where a chain did not get that far.
    statistics : dict of str to ndarray (C, D)
        Alongside.
    wanted : int
        Draws asked for.

    Returns
    -------
    w, statistics
        Cut to the draws that are complete, chains without any left out.
    notes : tuple of str
        Empty when nothing was cut.

    Raises
    ------
    SamplingError
        If no chain has a draw.
    """
    finite = np.isfinite(w).all(axis=2) if w.size else np.zeros(w.shape[:2], dtype=bool)
    done = np.logical_and.accumulate(finite, axis=1).sum(axis=1)
    if (done == wanted).all():
        return w, statistics, ()
    chains = done > 0
    if not chains.any():
        raise SamplingError(
            "sampling was interrupted in warm-up, or before any draw was complete: there are no draws to keep."
        )
    count = int(done[chains].min())
    note = f"interrupted: {count} of {wanted} draws of {int(chains.sum())} chains were kept"
    return w[chains, :count], {name: value[chains, :count] for name, value in statistics.items()}, (note,)


def available_cores() -> int:
    """Return how many processors this process may use.

    Returns
    -------
    int
        At least one.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else (os.cpu_count() or 1)


@contextmanager
def one_blas_thread(active: bool) -> Iterator[None]:
    """Keep BLAS to one thread while chains run side by side.

    Parameters
    ----------
    active : bool
        Whether to do anything.
    """
    if not active:
        yield
        return
    with _thread_controller().limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _thread_controller() -> Any:
    """Return what limits the threads of the libraries loaded by now, scipy's among them.

    Looking for them takes 14 ms, as long as a whole search for the mode.
    """
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


# --- coefficients and group effects --------------------------------------------------------------------------------


def conditional_draws(
    density: LogPosterior,
    x: NDArray[np.float64],
    *,
    seed: int,
    progress: bool,
    cores: int,
    storage: DTypeLike = np.float64,
    keep: bool = False,
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.floating[Any]]], NDArray[np.float64]]:
    """Draw coefficients and group effects given each sampled vector, in parallel and in chunks.

    The draws do not depend on the number of cores: every chunk has a random stream of its own.

    Parameters
    ----------
    density : LogPosterior
        The marginal log posterior.
    x : ndarray (C, D, d)
        Sampled vectors.
    seed : int
        Makes the draws reproducible.
    progress : bool
        Show a bar when it takes longer than a second.
    cores : int
        Threads.
    storage : dtype, default float64
        Of the group effects.
    keep : bool, default False
        When interrupted, return what is complete instead of raising; `values` is not a number elsewhere.

    Returns
    -------
    beta : ndarray (C, D, p)
        Coefficients.
    effects : dict of str to ndarray (C, D, J, K)
        Group effects by factor.
    values : ndarray (C, D)
        Log posterior of each sampled vector.
    """
    chains, draws, size = x.shape
    points = np.ascontiguousarray(x.reshape(-1, size))
    layout, first_rows = density.kernel.layout, density.kernel.analysis.first_row
    q = density.kernel.analysis.n_columns
    beta = np.empty((len(points), len(density.shear)))
    values = np.full(len(points), np.nan)
    shapes = [(len(points), levels, k) for levels, k in zip(layout.n_levels, layout.n_effects, strict=True)]
    blocks = [np.empty(shape, dtype=storage) for shape in shapes]
    step = max(8, min(250, CHUNK_NUMBERS // max(q, 1)))
    starts = range(0, len(points), step)
    streams = np.random.SeedSequence([seed, 1]).spawn(len(starts))

    def work(start: int, stream: np.random.SeedSequence, states: list[Any]) -> int:
        part = slice(start, min(start + step, len(points)))
        rng = np.random.default_rng(stream)
        count, r = part.stop - start, len(density.integrated)
        gamma, flat = np.empty((count, r)), np.empty((count, q))
        try:
            state = states.pop()
        except IndexError:
            state = density.state()
        density.draw(
            state,
            points[part],
            rng.standard_normal((count, r)),
            rng.standard_normal((count, q)),
            gamma,
            flat,
            values[part],
        )
        states.append(state)
        beta[part] = density.coefficients(gamma, points[part])
        for block, first, k in zip(blocks, first_rows, layout.n_effects, strict=True):
            block[part] = flat[:, first[:, None] + np.arange(k)]
        return count

    states: list[Any] = []
    with one_blas_thread(cores > 1), ThreadPoolExecutor(max_workers=cores) as pool:
        futures = [pool.submit(work, start, stream, states) for start, stream in zip(starts, streams, strict=True)]
        try:
            wait_for(futures, len(points), progress)
        except KeyboardInterrupt:
            if not keep:
                raise
    names = [factor.name for factor in density.design.factors]
    effects = {name: block.reshape(chains, draws, *block.shape[1:]) for name, block in zip(names, blocks, strict=True)}
    return beta.reshape(chains, draws, -1), effects, values.reshape(chains, draws)


def wait_for(futures: list[Future[int]], total: int, progress: bool) -> None:
    """Wait for all futures, showing a bar once that has taken a second; cancel them when interrupted.

    Parameters
    ----------
    futures : list of Future
        Each returns how many draws it made.
    total : int
        Draws in all.
    progress : bool
        Whether a bar may be shown.
    """
    began = time.monotonic()
    bar: Any = None
    try:
        for number, future in enumerate(futures):
            done = future.result()
            if progress and bar is None and time.monotonic() - began > 1.0 and number < len(futures) - 1:
                from rich.progress import Progress

                bar = Progress(transient=True)
                task = bar.add_task("drawing group effects", total=total)
                bar.start()
                done = sum(other.result() for other in futures[: number + 1])
            if bar is not None:
                bar.advance(task, done)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    finally:
        if bar is not None:
            bar.stop()
