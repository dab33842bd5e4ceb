"""Responses from a fit or from given parameters, and the power of a planned study by simulating it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import ComparisonError, DataError, FitError, did_you_mean, listing
from bayeslmm.families import Family, as_family
from bayeslmm.formula.frame import read_table
from bayeslmm.formula.term_contrasts import TermContrasts
from bayeslmm.frequentist.bootstrap import Outcome, run_replicates
from bayeslmm.frequentist.diagnostics import root_weights, subset
from bayeslmm.frequentist.estimated import EstimatedFit
from bayeslmm.frequentist.glmm_prediction import response_draws
from bayeslmm.frequentist.lmm_fit import LmmFit, estimate
from bayeslmm.frequentist.optimize import Control
from bayeslmm.frequentist.variance_parameters import parameter_names
from bayeslmm.likelihood.covariance import Layout
from bayeslmm.likelihood.lmm import LmmKernel
from bayeslmm.likelihood.residual import ResidualRows
from bayeslmm.predict import matrix_root
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.frequentist.glmm_fit import GlmmFit

SEMIDEFINITE = -1e-10


class HasDesign(Protocol):
    """A model or a fit."""

    @property
    def design(self) -> Design:
        """The formula met by data."""

    @property
    def family(self) -> Family | str:
        """Response family; a fit gives its name."""


@dataclass(frozen=True)
class Truth:
    """Parameters to simulate from.

    Parameters
    ----------
    beta : ndarray (p,)
        Coefficients.
    covariances : mapping of str to ndarray (K, K)
        Covariance of each grouping factor's effects.
    family : Family
        Response family with its link.
    aux : ndarray (a,)
        Logarithm of the family's own parameter (for Gaussian responses sigma, of a row with weight 1), thresholds of
        an ordered response, nothing for other families.
    psi : ndarray (k,)
        Unconstrained parameters of unequal or correlated residuals; empty without any.
    """

    beta: NDArray[np.float64]
    covariances: Mapping[str, NDArray[np.float64]]
    family: Family
    aux: NDArray[np.float64]
    psi: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def truth(source: HasDesign, parameters: Mapping[str, float] | None = None) -> Truth:
    """Return the parameters to simulate from: those given, and for the rest those of a fit.

    Parameters
    ----------
    source : LmmFit, GlmmFit or Model
        A fit gives all parameters that are not in `parameters`; a model none.
    parameters : mapping of str to float, optional
        By the names of ``fit.parameter_frame()``: coefficients, ``sd_<factor>[<effect>]``,
        ``corr_<factor>[<effect>,<effect>]``, ``sigma`` or the family's own parameter, ``threshold[<level>|<level>]``.
        For a model, correlations that are not given are zero.

    Returns
    -------
    Truth
        All of them.

    Raises
    ------
    DataError
        If a name is unknown, one is missing, or the values are impossible.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> truth(model, {"Intercept": 1500, "sd_Batch[Intercept]": 40, "sigma": 50}).covariances["Batch"]
    array([[1600.]])
    """
    design, family = design_of(source), response_family(source)
    layout = Layout.from_design(design)
    variance_names, variance_kinds = (part[:-1] for part in parameter_names(design, layout))
    own = own_parameters(design, family)
    kind = dict.fromkeys(design.coef_names, "fixed") | dict(zip(variance_names, variance_kinds, strict=True))
    kind |= dict.fromkeys(own, "fixed" if family.name == "cumulative" else "own")
    if design.residuals is not None:
        kind |= {name: "corr" if name == "rho" else "own" for name in design.residuals.parameter_names}
    values = dict.fromkeys((name for name in kind if kind[name] == "corr"), 0.0)
    if isinstance(source, EstimatedFit):
        values = {str(name): float(value) for name, value in source.parameter_frame()["estimate"].items()}
    for name, value in (parameters or {}).items():
        _check_parameter(name, value, list(kind), kind.get(name, "fixed"))
        values[name] = float(value)
    missing = [name for name in kind if name not in values]
    if missing:
        raise DataError(
            f"to simulate from a model every parameter is needed; missing: {listing(map(repr, missing))}.\n"
            "  Pass them as parameters={...}; a fit would give its own estimates."
        )
    beta = np.array([values[name] for name in design.coef_names])
    aux = np.array([values[name] for name in own])
    if family.name == "cumulative":
        if (np.diff(aux) <= 0).any():
            raise DataError(f"thresholds must increase; they are {listing(f'{value:g}' for value in aux)}.")
    else:
        with np.errstate(divide="ignore"):
            aux = np.log(aux)
    psi = np.zeros(0) if design.residuals is None else _psi(design, values)
    return Truth(beta, _covariances(design, layout, values), family, aux, psi)


def _psi(design: Design, values: Mapping[str, float]) -> NDArray[np.float64]:
    assert design.residuals is not None
    rows, names = ResidualRows.from_design(design), design.residuals.parameter_names
    ratios = [values[name] for name in names if name != "rho"]
    rho = values.get("rho", 0.0)
    if not rows.lowest < rho < 1:
        raise DataError(f"rho = {rho:g} must lie between {rows.lowest:g} and 1.")
    return rows.unconstrained(ratios, rho)


def design_of(source: HasDesign) -> Design:
    """Return the design of a model or a fit; that of an ordered model without the intercept that thresholds replace.

    Parameters
    ----------
    source : LmmFit, GlmmFit or Model
        Where from.

    Returns
    -------
    Design
        The design.
    """
    if response_family(source).name != "cumulative":
        return source.design
    from bayeslmm.frequentist.glmm_fit import thresholds_for_intercept

    return thresholds_for_intercept(source.design, response_family(source))


def response_family(source: HasDesign) -> Family:
    """Return the family and link of a model or a fit.

    Parameters
    ----------
    source : LmmFit, GlmmFit or Model
        Where from.

    Returns
    -------
    Family
        With its link.
    """
    return source.response_family if isinstance(source, EstimatedFit) else as_family(source.family)


def own_parameters(design: Design, family: Family) -> tuple[str, ...]:
    """Return the names of the family's own parameters, as ``parameter_frame()`` has them.

    Parameters
    ----------
    design : Design
        Levels of an ordered response.
    family : Family
        The family.

    Returns
    -------
    tuple of str
        Empty for families without any.

    Raises
    ------
    DataError
        If responses of the family cannot be drawn here.
    """
    if family.name == "cumulative":
        return tuple(f"threshold[{label}]" for label in design.threshold_labels)
    if family.row.draw is None:
        raise DataError(
            f"responses of the family {family.name!r} are simulated by prior_predictive() and sample() only."
        )
    return (family.parameter,) if family.parameter else ()


def _check_parameter(name: str, value: float, names: Sequence[str], kind: str) -> None:
    if name not in names:
        hint = did_you_mean(str(name), names)
        raise DataError(f"there is no parameter {name!r}.\n  Parameters: {listing(names, 30)}. {hint}".rstrip())
    if not np.isfinite(value):
        raise DataError(f"{name} = {value} is not a finite number.")
    if (kind == "sd" or name == "sigma") and value < 0:
        raise DataError(f"{name} = {value:g} is a standard deviation and cannot be negative.")
    if kind == "own" and name != "sigma" and value <= 0:
        raise DataError(f"{name} = {value:g} must be positive.")
    if kind == "corr" and not -1 <= value <= 1:
        raise DataError(f"{name} = {value:g} is a correlation and lies between -1 and 1.")


def _covariances(design: Design, layout: Layout, values: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
    out = {}
    for factor in design.factors:
        blocks = [_term_covariance(design, layout, index, values) for index in factor.term_indices]
        whole = np.zeros((len(factor.effects), len(factor.effects)))
        at = 0
        for block in blocks:
            whole[at : at + len(block), at : at + len(block)] = block
            at += len(block)
        out[factor.name] = whole
    return out


def _term_covariance(design: Design, layout: Layout, index: int, values: Mapping[str, float]) -> NDArray[np.float64]:
    term = design.terms[index]
    sd = np.array([values[f"sd_{term.factor}[{label}]"] for label in term.sd_labels])
    corr = np.eye(len(sd))
    if layout.covariances[index].is_correlated:
        for i, first in enumerate(term.effects):
            for j in range(i + 1, len(sd)):
                corr[i, j] = corr[j, i] = values[f"corr_{term.factor}[{first},{term.effects[j]}]"]
    if np.linalg.eigvalsh(corr).min() < SEMIDEFINITE:
        raise DataError(f"the correlations of {term.factor!r} contradict each other: no such covariance matrix exists.")
    return corr * np.outer(sd, sd)


def draw(
    design: Design, values: Truth, rng: np.random.Generator, effects: Mapping[str, NDArray[np.float64]] | None = None
) -> NDArray[np.float64]:
    """Draw one response of a design.

    Parameters
    ----------
    design : Design
        Rows; levels of new data have effects of their own.
    values : Truth
        Parameters.
    rng : numpy Generator
        Source of randomness.
    effects : mapping of str to ndarray (J, K), optional
        Effects of the fitted levels, to be kept; all levels are drawn when absent.

    Returns
    -------
    ndarray (n,)
        The response.
    """
    eta = design.X @ values.beta + (0.0 if design.offset is None else design.offset)
    for factor in design.factors:
        count = len(factor.levels) + len(factor.new_levels)
        drawn = rng.standard_normal((count, len(factor.effects))) @ matrix_root(values.covariances[factor.name]).T
        if effects is not None:
            drawn[: len(factor.levels)] = effects[factor.name]
        eta = eta + np.einsum("nk,nk->n", factor.Z, drawn[factor.codes])
    if len(values.psi):
        noise = ResidualRows.from_design(design).colour(rng.standard_normal(design.n), values.psi)
        return eta + np.exp(values.aux[0]) / root_weights(design) * noise
    return draw_given(design, values.family, eta, values.aux, rng)


def draw_given(
    design: Design, family: Family, eta: NDArray[np.float64], aux: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a response about a linear predictor.

    Parameters
    ----------
    design : Design
        Weights of a Gaussian response, trials of a binomial one.
    family : Family
        Response family with its link.
    eta : ndarray (n,)
        Linear predictor.
    aux : ndarray (a,)
        Log of the family's own parameter, or thresholds.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    ndarray (n,)
        The response.

    Raises
    ------
    DataError
        If rows have weights and the family is not Gaussian: a weighted row stands for no response in particular.
    """
    if family.name == "gaussian":
        return family.inverse_link(eta) + np.exp(aux[0]) / root_weights(design) * rng.standard_normal(design.n)
    if design.weights is not None:
        raise DataError(
            f"responses of the family {family.name!r} cannot be simulated for rows with weights: a weight of 2 may be\n"
            "  two equal rows, or one that counts twice. Write rows out, or give numbers of trials."
        )
    return response_draws(family, rng, eta[None], aux, design.trials)[0]


def simulate(
    source: HasDesign,
    n: int = 1,
    new_data: Any = None,
    *,
    parameters: Mapping[str, float] | None = None,
    keep_effects: bool = False,
    seed: int | None = None,
) -> NDArray[np.float64]:
    """Simulate responses from a fit, or from given parameters.

    Parameters
    ----------
    source : LmmFit, GlmmFit or Model
        What to simulate from.
    n : int, default 1
        Responses.
    new_data : data frame, optional
        Rows to simulate, without a response; the fitted rows when absent. New levels of grouping factors are welcome.
    parameters : mapping of str to float, optional
        Values that replace the estimates, by the names of ``fit.parameter_frame()``; for a model all of them.
    keep_effects : bool, default False
        Keep the estimated effects of the groups of a fit and draw the response about them only.
    seed : int, optional
        Makes the responses reproducible.

    Returns
    -------
    ndarray (n, rows)
        One response per line: proportions for binomial families, category codes for ordered ones.

    Raises
    ------
    DataError
        If a parameter is unknown, missing or impossible.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> model = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    >>> y = simulate(
    ...     model, 3, parameters={"Intercept": 250, "Days": 10, "sd_Subject[Intercept]": 30, "sigma": 25}, seed=1
    ... )
    >>> y.shape
    (3, 180)
    """
    if n < 1:
        raise DataError(f"n={n}: simulate one response or more.")
    values = truth(source, parameters)
    design = design_of(source)
    design = design if new_data is None else design.at(new_data)
    effects = None
    if keep_effects:
        if not isinstance(source, EstimatedFit):
            raise DataError("keep_effects=True needs a fit: a model has no estimated effects.")
        effects = {factor.name: source.solution.b[i] for i, factor in enumerate(source.design.factors)}
    rng = np.random.default_rng(seed)
    return np.stack([draw(design, values, rng, effects) for _ in range(n)])


# --- power -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Power(Tabular):
    """How often a test rejects in studies simulated from a known truth.

    Parameters
    ----------
    effect : str
        What is tested.
    alpha : float
        Size of the test.
    p_values : ndarray (n_sim,)
        NaN where the fit failed.
    estimates : ndarray (n_sim,)
        Estimates of a single coefficient or contrast; NaN where there is none.
    truth : float
        Its value in the simulations; NaN where there is none.
    failures : mapping of str to int
        Simulations without a result, by reason.
    singular : int
        Simulations with an estimate on the boundary; they count.
    rows : int
        Rows of a simulated study.
    level : float
        Coverage of the interval.

    Examples
    --------
    >>> Power("x", 0.05, np.array([0.01, 0.2, 0.03, 0.04]), np.full(4, np.nan), np.nan, {}, 0, 60)
    Power for x at alpha = 0.05: 75.0 % (95 % interval of the simulation 19.4 to 99.4 %), 4 studies of 60 rows
    """

    effect: str
    alpha: float
    p_values: NDArray[np.float64]
    estimates: NDArray[np.float64]
    truth: float
    failures: Mapping[str, int]
    singular: int
    rows: int
    level: float = field(default=0.95)

    @property
    def _done(self) -> NDArray[np.bool_]:
        return np.isfinite(self.p_values)

    @property
    def n_sim(self) -> int:
        """Simulations that gave a result."""
        return int(self._done.sum())

    @property
    def power(self) -> float:
        """Share of them that reject."""
        return float((self.p_values[self._done] < self.alpha).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval of the power: what the number of simulations leaves open."""
        result = stats.binomtest(round(self.power * self.n_sim), self.n_sim).proportion_ci(self.level, method="exact")
        return float(result.low), float(result.high)

    @property
    def exaggeration(self) -> float:
        """Average size of the significant estimates over the true size; NaN without a true value."""
        found = self._done & (self.p_values < self.alpha) & np.isfinite(self.estimates)
        if not found.any() or not np.isfinite(self.truth) or self.truth == 0:
            return float("nan")
        return float(np.abs(self.estimates[found]).mean() / abs(self.truth))

    def table(self) -> Table:
        """Return the row of `to_pandas` as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        return Table(self.to_pandas().set_index("effect").rename_axis(None), title="Power")

    def to_pandas(self) -> pd.DataFrame:
        """Return one row.

        Returns
        -------
        DataFrame
            Columns effect, rows, alpha, power, lower, upper, n_sim, failed, singular, exaggeration.
        """
        lower, upper = self.interval
        return pd.DataFrame(
            {
                "effect": [self.effect],
                "rows": [self.rows],
                "alpha": [self.alpha],
                "power": [self.power],
                "lower": [lower],
                "upper": [upper],
                "n_sim": [self.n_sim],
                "failed": [sum(self.failures.values())],
                "singular": [self.singular],
                "exaggeration": [self.exaggeration],
            }
        )

    def __str__(self) -> str:
        lower, upper = self.interval
        text = (
            f"Power for {self.effect} at alpha = {self.alpha:g}: {100 * self.power:.1f} % "
            f"({100 * self.level:.4g} % interval of the simulation {100 * lower:.1f} to {100 * upper:.1f} %), "
            f"{self.n_sim:,} studies of {self.rows:,} rows"
        )
        if np.isfinite(self.exaggeration):
            text += f"\n  Significant estimates are {self.exaggeration:.2f} times the true size on average."
        if self.singular:
            text += f"\n  {self.singular:,} fits on the boundary."
        return text + "".join(f"\n  {count:,} failed: {reason}" for reason, count in self.failures.items())


def power(
    source: HasDesign,
    effect: str | Callable[[Any], float],
    *,
    parameters: Mapping[str, float] | None = None,
    new_data: Any = None,
    n_sim: int = 1000,
    alpha: float = 0.05,
    ddf: str | None = None,
    seed: int | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Power:
    """Simulate a study many times, fit each, and count how often a test rejects.

    Parameters
    ----------
    source : LmmFit, GlmmFit or Model
        A pilot fit, whose estimates are the truth unless `parameters` says otherwise; or a model, with all parameters
        given.
    effect : str or callable
        A coefficient, a term of the fixed part (all its columns together), a hypothesis such as ``"IQ = 0, SES = 0"``,
        or a function from a fit to a p-value.
    parameters : mapping of str to float, optional
        True values, by the names of ``fit.parameter_frame()``.
    new_data : data frame, optional
        Rows of the planned study; those of the source when absent. See `extend`.
    n_sim : int, default 1000
        Studies.
    alpha : float, default 0.05
        Size of the test.
    ddf : str, optional
        Degrees of freedom of the test of a Gaussian model: "satterthwaite" (when absent), "kenward-roger", "residual"
        or "between-within".
    seed : int, optional
        Makes the result reproducible, whatever the number of workers.
    workers : int, default 1
        Threads; -1 for all processors.
    progress : bool, default True
        Show a bar when it takes longer than a second.

    Returns
    -------
    Power
        Share of rejections with the interval that the number of simulations leaves open.

    Raises
    ------
    DataError
        If a parameter is unknown, missing or impossible.
    ComparisonError
        If the effect cannot be tested.

    References
    ----------
    Green & MacLeod (2016), *Methods Ecol. Evol.* 7(4); Gelman & Carlin (2014), *Perspect. Psychol. Sci.* 9(6), for
    the exaggeration.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> pilot = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> power(pilot, "Days", parameters={"Days": 3}, n_sim=50, seed=1, progress=False).n_sim
    50
    """
    if n_sim < 1:
        raise ComparisonError(f"n_sim={n_sim}: at least one study is needed.")
    if not 0 < alpha < 1:
        raise ComparisonError(f"alpha={alpha!r} is not between 0 and 1.")
    values = truth(source, parameters)
    design = design_of(source)
    design = design if new_data is None else design.at(new_data)
    own = subset(design, np.arange(design.n)) if design.y is not None else subset(_blank(design), np.arange(design.n))
    test, label, aim = _test_of(own, effect, ddf, values)
    rng = np.random.default_rng(seed)
    study: Callable[[np.random.Generator], Outcome]
    if values.family.is_gaussian_identity:
        kernel = LmmKernel.from_design(replace(own, y=draw(own, values, rng)))
        reml = source.reml if isinstance(source, LmmFit) else True
        study = _Study(own, kernel, values, reml, test)
    else:
        points = source.optimum.quadrature if isinstance(source, EstimatedFit) else 1  # type: ignore[attr-defined]
        study = _GeneralisedStudy(own, values, points, test)
    outcomes = run_replicates(study, n_sim, seed=seed, workers=workers, progress=progress, label="power")
    results = np.array([(np.nan, np.nan) if outcome.values is None else outcome.values for outcome in outcomes])
    return Power(
        effect=label,
        alpha=alpha,
        p_values=results[:, 0],
        estimates=results[:, 1],
        truth=aim,
        failures=dict(Counter(outcome.failure for outcome in outcomes if outcome.values is None)),
        singular=sum(outcome.singular for outcome in outcomes),
        rows=own.n,
    )


def _blank(design: Design) -> Design:
    return replace(design, y=np.zeros(design.n))


def _test_of(
    design: Design, effect: str | Callable[[Any], float], ddf: str | None, values: Truth
) -> tuple[Callable[[Any], tuple[float, float]], str, float]:
    """Return a function from a fit to p-value and estimate, what to call it, and the estimate's true value."""
    from bayeslmm.formula.hypotheses import read_hypotheses
    from bayeslmm.frequentist.degrees_of_freedom import check_ddf

    if callable(effect):
        return (lambda fit: (float(effect(fit)), np.nan)), getattr(effect, "__name__", "test"), float("nan")
    if ddf is not None:
        check_ddf(ddf)
        if not values.family.is_gaussian_identity:
            raise ComparisonError(f"ddf={ddf!r}: degrees of freedom belong to Gaussian models.")
    names = list(design.coef_names)
    columns = {term.name: term.columns for term in TermContrasts(design).terms}
    if effect in names:
        L, rhs = np.eye(len(names))[[names.index(effect)]], np.zeros(1)
    elif effect in columns:
        L, rhs = np.eye(len(names))[columns[effect]], np.zeros(len(columns[effect]))
    else:
        found = read_hypotheses(names, effect)
        L, rhs = found.L, found.rhs

    def test(fit: EstimatedFit) -> tuple[float, float]:
        result = fit.test(L, rhs, ddf=ddf)
        return result.p_value, float(L[0] @ fit.beta - rhs[0]) if len(L) == 1 else np.nan

    return test, effect, float(L[0] @ values.beta - rhs[0]) if len(L) == 1 else float("nan")


@dataclass(frozen=True)
class _Study:
    """One simulated study: response, fit, test."""

    design: Design
    kernel: LmmKernel
    values: Truth
    reml: bool
    test: Callable[[Any], tuple[float, float]]

    def __call__(self, rng: np.random.Generator) -> Outcome:
        y = draw(self.design, self.values, rng)
        fit = estimate(replace(self.design, y=y), self.kernel.with_response(y), Control(reml=self.reml))
        if not fit.optimum.converged:
            return Outcome(None, failure=f"the optimiser {fit.optimum.status}")
        return _tested(fit, self.test)


@dataclass(frozen=True)
class _GeneralisedStudy:
    """The same for other families."""

    design: Design
    values: Truth
    quadrature: int
    test: Callable[[Any], tuple[float, float]]

    def __call__(self, rng: np.random.Generator) -> Outcome:
        from bayeslmm.frequentist.glmm_refit import fit_silently

        fit: GlmmFit = fit_silently(
            replace(self.design, y=draw(self.design, self.values, rng)), self.values.family, self.quadrature
        )
        if not fit.optimum.converged:
            return Outcome(None, failure=f"the optimiser {fit.optimum.status}")
        return _tested(fit, self.test)


def _tested(fit: EstimatedFit, test: Callable[[Any], tuple[float, float]]) -> Outcome:
    p_value, estimate = test(fit)
    if not np.isfinite(p_value):
        raise FitError("the test gave no p-value")
    return Outcome(np.array([p_value, estimate]), singular=fit.singular)


# --- larger studies ----------------------------------------------------------------------------------------------


def extend(data: Any, along: str, n: int) -> pd.DataFrame:
    """Return data with another number of levels of a column: the rows of existing levels, under new names.

    Parameters
    ----------
    data : data frame
        A pilot study, or a small plan.
    along : str
        Column whose levels are counted: a grouping factor.
    n : int
        Levels wanted. The first n levels are kept where there are more.

    Returns
    -------
    DataFrame
        Levels repeat the rows of the existing ones in turn.

    Raises
    ------
    DataError
        If there is no such column, or n is less than one.

    Examples
    --------
    >>> extend({"g": ["a", "b"], "x": [0.0, 1.0]}, "g", 3)["g"].tolist()
    ['1', '2', '3']
    """
    table = read_table(data)
    frame = table.select(table.names)
    if along not in frame:
        hint = did_you_mean(along, map(str, frame.columns))
        raise DataError(f"there is no column {along!r}.\n  Columns: {listing(frame.columns)}. {hint}".rstrip())
    if n < 1:
        raise DataError(f"n={n}: one level or more.")
    levels = pd.unique(frame[along])
    width = len(str(n))
    parts = [frame[frame[along] == levels[i % len(levels)]].assign(**{along: f"{i + 1:0{width}d}"}) for i in range(n)]
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True, repr=False)
class PowerCurve(Tabular):
    """Power against the size of a study.

    Parameters
    ----------
    along : str
        What is counted.
    sizes : tuple of int
        Its numbers of levels.
    points : tuple of Power
        The power at each.
    """

    along: str
    sizes: tuple[int, ...]
    points: tuple[Power, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per size.

        Returns
        -------
        DataFrame
            The columns of `Power.to_pandas`, indexed by size.
        """
        frame = pd.concat([point.to_pandas() for point in self.points], ignore_index=True)
        return frame.set_index(pd.Index(self.sizes, name=self.along))

    def plot(self, ax: Any = None) -> Any:
        """Draw the power with its intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.diagnostic_plots import power_plot

        return power_plot(self.to_pandas(), self.along, ax=ax)

    def table(self) -> Table:
        """Return the curve as a table.

        Returns
        -------
        Table
            One row per size.
        """
        return Table(self.to_pandas().drop(columns=["effect", "alpha"]), title=f"Power for {self.points[0].effect}")


def power_curve(
    source: HasDesign, effect: str | Callable[[Any], float], *, along: str, sizes: Sequence[int], **options: Any
) -> PowerCurve:
    """Return the power of studies with different numbers of groups.

    Parameters
    ----------
    source : LmmFit or Model
        As in `power`.
    effect : str or callable
        As in `power`.
    along : str
        Column whose levels are counted.
    sizes : sequence of int
        Numbers of levels.
    **options : Any
        Of `power`.

    Returns
    -------
    PowerCurve
        Prints as a table; `plot()`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> pilot = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> curve = power_curve(
    ...     pilot, "Days", along="Subject", sizes=[6, 12], parameters={"Days": 4}, n_sim=40, seed=1, progress=False
    ... )
    >>> curve.to_pandas()["rows"].tolist()
    [60, 120]
    """
    data = source.design.data
    points = [power(source, effect, new_data=extend(data, along, size), **options) for size in sizes]
    return PowerCurve(along, tuple(int(size) for size in sizes), tuple(points))
