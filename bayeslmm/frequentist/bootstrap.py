"""The parametric bootstrap: simulate from a fit, refit, collect any statistic.

A refit costs a few products Z'y and one compiled search that starts at the fit; the search releases the interpreter
lock, so that workers are threads and nothing has to be copied to them. Each replicate has a random stream of its own:
results do not depend on the number of workers.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import BayesLmmError, ComparisonError, DataError, FitError, did_you_mean, listing
from bayeslmm.formula.residuals import refuse
from bayeslmm.frequentist.estimated import EstimatedFit
from bayeslmm.frequentist.lmm_fit import LmmFit, check_level, estimate
from bayeslmm.frequentist.optimize import Control, optimize
from bayeslmm.frequentist.variance_parameters import (
    natural_parameters,
    variance_parameter_covariance,
    variance_parameters,
)
from bayeslmm.likelihood.lmm import solve
from bayeslmm.parallel import in_order
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.formula.design import Design

IntervalKind = Literal["percentile", "basic", "studentised"]
PATIENCE = 1.0
BEYOND = 1e150
SCALES = ("sd", "sigma", "own")


@dataclass(frozen=True, repr=False)
class Bootstrap(Tabular):
    """Replicates of a statistic.

    Parameters
    ----------
    estimate : Series (k,)
        The statistic in the fit.
    replicates : DataFrame (n, k)
        Its value in each refit; NaN where the refit failed.
    failures : mapping of str to int
        How many refits failed, by reason.
    singular : int
        Refits with an estimate on the boundary; they count as results.
    se, estimate_se : DataFrame (n, k) and Series (k,), or None
        Standard errors on the working scale (log for standard deviations, Fisher's z for correlations).
    kinds : Series (k,), or None
        "fixed", "sd", "corr", "sigma" or "own"; None for a statistic of the user's own.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> boot = fit.bootstrap(50, seed=1, progress=False)
    >>> boot.confint(0.9).shape, boot.n_failed
    ((3, 2), 0)
    """

    estimate: pd.Series
    replicates: pd.DataFrame
    failures: Mapping[str, int]
    singular: int
    se: pd.DataFrame | None = field(default=None, repr=False)
    estimate_se: pd.Series | None = field(default=None, repr=False)
    kinds: pd.Series | None = None

    @property
    def n_failed(self) -> int:
        """Number of replicates without a result."""
        return sum(self.failures.values())

    @property
    def standard_error(self) -> pd.Series:
        """Standard deviation of the replicates."""
        return self.replicates.std()

    @property
    def bias(self) -> pd.Series:
        """Mean of the replicates less the estimate."""
        return self.replicates.mean() - self.estimate

    def confint(self, level: float = 0.95, kind: IntervalKind = "percentile") -> pd.DataFrame:
        """Return intervals from the replicates that have a result.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.
        kind : {"percentile", "basic", "studentised"}, default "percentile"
            Quantiles of the replicates; the same mirrored at the estimate; quantiles of t ratios times the standard
            error, made for variances and for Fisher's z of correlations. Studentised limits of standard deviations
            have no upper end where more replicates than the tail holds are zero. A parameter on the boundary has no
            standard error to studentise with: its limits are those of "percentile".

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`.

        Raises
        ------
        ComparisonError
            If there are too few replicates, or no standard errors to studentise with.
        """
        tail = (1 - check_level(level)) / 2
        good = self.replicates.dropna(how="any")
        lower: pd.Series
        upper: pd.Series
        if len(good) < 2 or len(good) * tail < 1:
            raise ComparisonError(
                f"{len(good)} replicates do not reach the {100 * tail:g} % tails of a {100 * level:g} % interval.\n"
                f"  Use bootstrap(n={int(np.ceil(20 / tail)):,}) or more."
            )
        if kind == "percentile":
            lower, upper = (good.quantile(q) for q in (tail, 1 - tail))
        elif kind == "basic":
            lower, upper = (2 * self.estimate - good.quantile(q) for q in (1 - tail, tail))
        elif kind == "studentised":
            lower, upper = self._studentised(tail)
            assert self.estimate_se is not None
            unknown = self.estimate_se.isna()
            lower, upper = lower.mask(unknown, good.quantile(tail)), upper.mask(unknown, good.quantile(1 - tail))
        else:
            raise ComparisonError(f'kind={kind!r} is not one of "percentile", "basic", "studentised".')
        return pd.DataFrame({"lower": lower, "upper": upper})

    def _studentised(self, tail: float) -> tuple[pd.Series, pd.Series]:
        if self.se is None or self.estimate_se is None or self.kinds is None:
            raise ComparisonError(
                "there are no standard errors to studentise with.\n"
                "  Use bootstrap(studentise=True), which computes them in each replicate, without a statistic."
            )
        forward, backward = _working_scale(self.kinds)
        is_sd = self.kinds.isin(SCALES).to_numpy()
        replicates, estimate = self.replicates.to_numpy(), self.estimate.to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            se = np.where(is_sd, 2 * replicates**2, 1.0) * self.se.to_numpy()
            ratio = (forward(replicates) - forward(estimate)) / se
            ratio[~np.isfinite(ratio)] = np.nan
            ratio[is_sd & (replicates == 0)] = -BEYOND  # no standard error at zero, but nothing lies below it
            low, high = np.nanquantile(ratio, [tail, 1 - tail], axis=0)
            own = np.where(is_sd, 2 * estimate**2, 1.0) * self.estimate_se.to_numpy()
            upper = np.where(low < -BEYOND / 1e6, np.inf, forward(estimate) - low * own)
            limits = backward(forward(estimate) - high * own), backward(upper)
        return tuple(pd.Series(limit, index=self.estimate.index) for limit in limits)  # type: ignore[return-value]

    def table(self) -> Table:
        """Return estimate, bias and standard error of each component of the statistic.

        Returns
        -------
        Table
            With the number of replicates, of those on the boundary, and of those that failed, by reason.
        """
        frame = pd.DataFrame({"Estimate": self.estimate, "bias": self.bias, "Std. Error": self.standard_error})
        n = len(self.replicates)
        notes = [f"Parametric bootstrap: {n - self.n_failed:,} of {n:,} replicates, {self.singular:,} on the boundary."]
        notes += [f"{count:,} failed: {reason}" for reason, count in self.failures.items()]
        return Table(frame, notes=tuple(notes))


def _working_scale(kinds: pd.Series) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the map to the scale on which t ratios are made, and its inverse: variances, and Fisher's z.

    The t ratio of a logarithm would not do: near zero its standard error grows faster than the logarithm falls, so that
    the most extreme replicates have the smallest ratios.
    """
    is_sd = kinds.isin(SCALES).to_numpy()
    is_corr = (kinds == "corr").to_numpy()

    def forward(values: NDArray[np.float64]) -> NDArray[np.float64]:
        fisher = np.where(is_corr, np.arctanh(np.where(is_corr, values, 0.0)), values)
        return np.where(is_sd, values**2, fisher)

    def backward(values: NDArray[np.float64]) -> NDArray[np.float64]:
        roots = np.sqrt(np.where(is_sd, np.maximum(values, 0.0), 0.0))
        return np.where(is_sd, roots, np.where(is_corr, np.tanh(np.where(is_corr, values, 0.0)), values))

    return forward, backward


def simulate_response(
    fit: EstimatedFit, rng: np.random.Generator, *, keep_effects: bool = False
) -> NDArray[np.float64]:
    """Draw a response from the fitted model.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    rng : numpy Generator
        Source of randomness.
    keep_effects : bool, default False
        Keep the group effects at their estimates and draw the response about them only.

    Returns
    -------
    ndarray (n,)
        The response: a proportion for binomial families, a category's code for ordered ones.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> simulate_response(fit, np.random.default_rng(1)).shape
    (30,)
    """
    design = fit.design
    scale = fit.sigma if fit.response_family.is_gaussian_identity else 1.0
    mean = design.X @ fit.beta
    if design.offset is not None:
        mean = mean + design.offset
    templates = fit.kernel.layout.templates(fit.theta)
    for i, (factor, template) in enumerate(zip(design.factors, templates, strict=True)):
        if keep_effects:
            effects = fit.solution.b[i]
        else:
            effects = scale * rng.standard_normal((len(factor.levels), template.shape[0])) @ template.T
        mean = mean + np.einsum("nk,nk->n", factor.Z, effects[factor.codes])
    return fit.draw_given(mean, rng)


def refit(fit: LmmFit, y: ArrayLike, *, reml: bool | None = None) -> LmmFit:
    """Fit the same design to another response, starting at a fit.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    y : array_like (n,)
        The response, one value per row kept.
    reml : bool, optional
        As in the fit when absent.

    Returns
    -------
    LmmFit
        The new fit.

    Raises
    ------
    DataError
        If `y` has another length, or is not finite.
    FitError
        If the search breaks down.
    """
    response = check_new_response(fit.design, y)
    use_reml = fit.reml if reml is None else reml
    if fit.residual is not None:
        base = fit.residual.kernel.base.with_response(response)
        return estimate(replace(fit.design, y=response), base, Control(reml=use_reml), near=fit)
    kernel = fit.kernel.with_response(response)
    optimum = optimize(kernel, Control(reml=use_reml), near=fit.optimum)
    return LmmFit(
        design=fit.design.with_response(response),
        kernel=kernel,
        solution=solve(optimum.theta, kernel, reml=use_reml),
        optimum=optimum,
        reml=use_reml,
    )


def check_new_response(design: Design, y: ArrayLike) -> NDArray[np.float64]:
    """Return a response for the rows of a design, refusing other lengths and values that are not finite.

    Parameters
    ----------
    design : Design
        The rows.
    y : array_like (n,)
        The response, one value per row kept.

    Returns
    -------
    ndarray (n,)
        The same as floats.

    Raises
    ------
    DataError
        If `y` has another length, or is not finite.
    """
    response = np.array(y, dtype=np.float64)
    if response.shape != (design.n,):
        dropped = design.n_total - design.n
        hint = f"\n  {dropped:,} rows of the data were left out: pass y[fit.design.rows]." if dropped else ""
        raise DataError(f"the new response has shape {response.shape}; the fit has {design.n:,} rows.{hint}")
    if not np.isfinite(response).all():
        raise DataError(f"the new response is not finite in {np.count_nonzero(~np.isfinite(response)):,} rows.")
    return response


def bootstrap(
    fit: EstimatedFit,
    n: int = 1000,
    statistic: Callable[[Any], Any] | None = None,
    *,
    seed: int | None = None,
    workers: int = 1,
    progress: bool = True,
    keep_effects: bool = False,
    studentise: bool = False,
) -> Bootstrap:
    """Simulate from a fit and refit, n times.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    n : int, default 1000
        Replicates.
    statistic : callable, optional
        From a fit to a number, an array or a Series. Every parameter when absent, which is faster.
    seed : int, optional
        Makes the replicates reproducible, whatever the number of workers.
    workers : int, default 1
        Threads; -1 for all processors. Inside ``joblib.parallel_config`` the backend chosen there is used.
    progress : bool, default True
        Show a bar when it takes longer than a second.
    keep_effects : bool, default False
        Keep the group effects at their estimates and draw residuals only.
    studentise : bool, default False
        Compute standard errors of all parameters in each replicate, for studentised intervals.

    Returns
    -------
    Bootstrap
        Replicates and intervals; replicates that failed are counted.

    Raises
    ------
    FitError
        If every replicate failed.

    References
    ----------
    Davison & Hinkley (1997), *Bootstrap Methods and their Application*, chapters 2 and 5.
    """
    if n < 1:
        raise ComparisonError(f"n={n}: at least one replicate is needed.")
    compute: _ParameterReplicate | _StatisticReplicate
    if statistic is None:
        refuse(fit.design.residuals if studentise else None, "studentise=True", "Take percentile intervals.")
        compute = _ParameterReplicate(fit, keep_effects, studentise)
        labels = list(fit.parameter_frame().index)
    else:
        if studentise:
            raise ComparisonError("studentise=True works on the model's parameters, not on a statistic of your own.")
        own = _StatisticReplicate(fit, keep_effects, statistic)
        compute, labels = own, own.labels
    results = run_replicates(compute, n, seed=seed, workers=workers, progress=progress, label="bootstrap")
    return _collect(fit, compute, results, labels)


@dataclass(frozen=True)
class Outcome:
    """What one replicate gave: values and standard errors, or the reason why there are none."""

    values: NDArray[np.float64] | None
    se: NDArray[np.float64] | None = None
    singular: bool = False
    failure: str = ""


@dataclass(frozen=True)
class _ParameterReplicate:
    """Refit without building a fit: the parameters alone."""

    fit: EstimatedFit
    keep_effects: bool
    studentise: bool

    def __call__(self, rng: np.random.Generator) -> Outcome:
        y = simulate_response(self.fit, rng, keep_effects=self.keep_effects)
        return self.fit.estimates_of(y, errors=self.studentise)


def gaussian_estimates(fit: LmmFit, y: NDArray[np.float64] | None, *, errors: bool) -> Outcome:
    """Return the parameters of a Gaussian model for another response, without building a fit.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    y : ndarray (n,) or None
        The response; None for the estimates of the fit itself.
    errors : bool
        Whether to compute standard errors on the working scales.

    Returns
    -------
    Outcome
        Values in the order of ``fit.parameter_frame()``.
    """
    if fit.residual is not None:
        again = fit if y is None else refit(fit, y)
        if not again.optimum.converged:
            return Outcome(None, failure=f"the optimiser {again.optimum.status}")
        return Outcome(again.natural_estimates(), None, again.singular)
    kernel, solution, optimum = fit.kernel, fit.solution, fit.optimum
    if y is not None:
        kernel = kernel.with_response(y)
        optimum = optimize(kernel, Control(reml=fit.reml), near=fit.optimum)
        if not optimum.converged:
            return Outcome(None, failure=f"the optimiser {optimum.status}")
        solution = solve(optimum.theta, kernel, reml=fit.reml)
    natural = natural_parameters(kernel.layout, np.append(solution.theta, solution.sigma))
    values = np.concatenate([solution.beta, natural])
    if not errors:
        return Outcome(values, None, optimum.singular)
    covariance = variance_parameter_covariance(kernel, solution, reml=fit.reml)
    working = variance_parameters(fit.design, kernel.layout, solution.theta, solution.sigma, covariance)
    return Outcome(values, np.concatenate([np.sqrt(np.diag(solution.vcov)), working.working_se]), optimum.singular)


@dataclass(frozen=True)
class _StatisticReplicate:
    """Refit and compute a statistic of the user's own."""

    fit: EstimatedFit
    keep_effects: bool
    statistic: Callable[[Any], Any]

    @property
    def labels(self) -> list[str]:
        value = self.statistic(self.fit)
        if isinstance(value, pd.Series):
            return [str(name) for name in value.index]
        size = np.atleast_1d(np.asarray(value, dtype=float)).size
        name = getattr(self.statistic, "__name__", "statistic").replace("<lambda>", "statistic")
        return [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]

    def value(self, fit: EstimatedFit) -> NDArray[np.float64]:
        return np.atleast_1d(np.asarray(self.statistic(fit), dtype=float)).ravel()

    def __call__(self, rng: np.random.Generator) -> Outcome:
        refitted = self.fit.refit(simulate_response(self.fit, rng, keep_effects=self.keep_effects))
        if not refitted.optimum.converged:
            return Outcome(None, failure=f"the optimiser {refitted.optimum.status}")
        return Outcome(self.value(refitted), singular=refitted.singular)


def run_replicates(
    compute: Callable[[np.random.Generator], Outcome],
    n: int,
    *,
    seed: int | None,
    workers: int = 1,
    progress: bool = True,
    label: str = "replicates",
) -> list[Outcome]:
    """Call a function with n independent random streams, in threads, keeping count of failures.

    Parameters
    ----------
    compute : callable
        From a random generator to an `Outcome`.
    n : int
        How often.
    seed : int, optional
        Seed of all streams.
    workers : int, default 1
        Threads; -1 for all processors.
    progress : bool, default True
        Show a bar when it takes longer than a second.
    label : str
        Text of the bar.

    Returns
    -------
    list of Outcome
        In the order of the streams.

    Raises
    ------
    FitError
        If none of them succeeded.
    """
    streams = np.random.SeedSequence(seed).spawn(n)

    def one(stream: np.random.SeedSequence) -> Outcome:
        try:
            return compute(np.random.default_rng(stream))
        except (BayesLmmError, ArithmeticError, np.linalg.LinAlgError) as error:
            return Outcome(None, failure=str(error).splitlines()[0])

    with warnings.catch_warnings(), _bar(n, label, progress) as advance:
        warnings.simplefilter("ignore", category=RuntimeWarning)
        outcomes = []
        for outcome in in_order(one, streams, workers):
            outcomes.append(outcome)
            advance()
    if all(outcome.values is None for outcome in outcomes):
        raise FitError(f"all {n:,} replicates failed; the first because: {outcomes[0].failure}")
    return outcomes


@contextmanager
def _bar(n: int, label: str, show: bool) -> Iterator[Callable[[], None]]:
    """Give a function that counts one step, behind a bar that appears after a second."""
    if not show:
        yield lambda: None
        return
    import time

    from rich.progress import Progress

    started = time.monotonic()
    bar = Progress(transient=True)
    task = bar.add_task(label, total=n)
    shown = False

    def advance() -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > PATIENCE:
            bar.start()
            shown = True
        bar.advance(task)

    try:
        yield advance
    finally:
        if shown:
            bar.stop()


def _collect(
    fit: EstimatedFit, compute: _ParameterReplicate | _StatisticReplicate, outcomes: list[Outcome], labels: list[str]
) -> Bootstrap:
    missing = np.full(len(labels), np.nan)
    values = np.array([missing if outcome.values is None else outcome.values for outcome in outcomes])
    frame = pd.DataFrame(values, columns=labels)
    failures = dict(Counter(outcome.failure for outcome in outcomes if outcome.values is None))
    singular = sum(outcome.singular for outcome in outcomes)
    if isinstance(compute, _StatisticReplicate):
        return Bootstrap(pd.Series(compute.value(fit), index=labels), frame, failures, singular)
    own, kinds = fit.estimates_of(None, errors=compute.studentise), fit.parameter_frame()["kind"]
    if own.se is None:
        return Bootstrap(pd.Series(own.values, index=labels), frame, failures, singular, kinds=kinds)
    errors = np.array([missing if outcome.se is None else outcome.se for outcome in outcomes])
    return Bootstrap(
        pd.Series(own.values, index=labels),
        frame,
        failures,
        singular,
        se=pd.DataFrame(errors, columns=labels),
        estimate_se=pd.Series(own.se, index=labels),
        kinds=kinds,
    )


def check_parameters(known: list[str], wanted: str | list[str] | tuple[str, ...] | None) -> list[str]:
    """Return the parameters asked for, refusing unknown names.

    Parameters
    ----------
    known : list of str
        All parameters.
    wanted : str or sequence of str, optional
        All when absent.

    Returns
    -------
    list of str
        In the order asked.

    Raises
    ------
    ComparisonError
        If a name is not known.

    Examples
    --------
    >>> check_parameters(["a", "b"], "b")
    ['b']
    """
    if wanted is None:
        return list(known)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ComparisonError(
                f"there is no parameter {name!r}.\n  Parameters: {listing(known, 30)}. {hint}".rstrip()
            )
    return names
