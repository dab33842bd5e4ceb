"""Likelihood-ratio tests: between fits, of random terms, against ordinary regression; mixtures of chi-squares.

A variance that is zero under the null lies on the boundary. With one more variance and k more covariances the statistic
is an even mixture of chi-squares on k and k + 1 degrees of freedom (Stram & Lee); with more than one variance the
weights depend on the model, and the p-value from the chi-square on all degrees of freedom is an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import ComparisonError, listing
from bayeslmm.formula.design import Design, build_design, refuse_survey_weights
from bayeslmm.formula.syntax import render
from bayeslmm.frequentist.bootstrap import Outcome, refit, run_replicates, simulate_response
from bayeslmm.frequentist.estimated import EstimatedFit
from bayeslmm.frequentist.lmm_fit import LmmFit, fit_lmm
from bayeslmm.frequentist.optimize import Control, optimize
from bayeslmm.likelihood.lmm import LmmKernel
from bayeslmm.report.numbers import format_p
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.syntax import Node
    from bayeslmm.formula.terms import RandomTerm
    from bayeslmm.likelihood.covariance import Covariance
    from bayeslmm.likelihood.crossproducts import CrossProducts

SAME_SPACE = 1e-8
WALD_INSTEAD = "Wald tests of coefficients do without, for Gaussian models with the standard errors of robust()."


def gain(small: float, big: float) -> float:
    """Return by how much the larger model lowers the criterion, 0 when that is within rounding.

    At a zero variance both criteria are one number, computed in two ways, and the p-value of a mixture jumps at 0.
    """
    return small - big if small - big > 1e-11 * abs(big) else 0.0


@dataclass(frozen=True)
class ChiBarSquare:
    """A mixture of chi-squares.

    Parameters
    ----------
    df : tuple of int
        Degrees of freedom; 0 is a point mass at zero.
    weights : tuple of float
        Adding up to 1.

    Examples
    --------
    >>> round(ChiBarSquare((0, 1), (0.5, 0.5)).sf(2.7055), 4)
    0.05

    References
    ----------
    Self & Liang (1987), *JASA* 82(398); Stram & Lee (1994), *Biometrics* 50(4).
    """

    df: tuple[int, ...]
    weights: tuple[float, ...]

    def sf(self, x: float) -> float:
        """Return the probability of a value of at least `x`."""
        parts = ((1.0 if x <= 0 else 0.0) if df == 0 else float(stats.chi2.sf(x, df)) for df in self.df)
        return sum(weight * part for weight, part in zip(self.weights, parts, strict=True))

    def __str__(self) -> str:
        return f"chibar2({''.join(map(str, self.df))})"


@dataclass(frozen=True, repr=False)
class LikelihoodRatioTest(Tabular):
    """One likelihood-ratio test.

    Parameters
    ----------
    name : str
        What is tested.
    method : str
        "ML" or "REML".
    statistic : float
        Twice the difference of the log-likelihoods, at least 0.
    df : int
        Difference in parameters.
    mixture : ChiBarSquare or None
        Null distribution on the boundary, where it is known.
    simulated : ndarray or None
        Statistics simulated under the null.
    failures : int
        Simulations that failed.
    """

    name: str
    method: str
    statistic: float
    df: int
    mixture: ChiBarSquare | None = None
    simulated: NDArray[np.float64] | None = None
    failures: int = 0
    conservative: bool = False

    @property
    def p_chi2(self) -> float:
        """p-value from the chi-square on `df`; an upper bound where a variance is tested."""
        return float(stats.chi2.sf(self.statistic, self.df))

    @property
    def p_mixture(self) -> float | None:
        """p-value from the mixture."""
        return None if self.mixture is None else self.mixture.sf(self.statistic)

    @property
    def p_simulated(self) -> float | None:
        """Share of simulated statistics at least as large, the observed one counted in."""
        if self.simulated is None:
            return None
        reached = np.count_nonzero(self.simulated >= self.statistic - 1e-8)
        return float((1 + reached) / (1 + len(self.simulated)))

    @property
    def p_value(self) -> float:
        """The mixture's p-value where it is known, that of the chi-square otherwise."""
        return self.p_chi2 if self.mixture is None else self.mixture.sf(self.statistic)

    def __str__(self) -> str:
        distribution = str(self.mixture) if self.mixture else f"chi2({self.df})"
        text = f"LR test {self.name} ({self.method}): {distribution} = {self.statistic:.2f}, p {_p(self.p_value)}"
        if self.conservative:
            text += "\n  The p-value is an upper bound: more than one variance is zero under the null."
        if self.simulated is not None:
            text += f"\n  Simulated null, {len(self.simulated):,} draws: p {_p(self.p_simulated or 0.0)}"
            text += f" ({self.failures:,} draws failed)" if self.failures else ""
        return text

    def table(self) -> Table:
        """Return the test as a table of one row.

        Returns
        -------
        Table
            Columns Chisq, Df, Pr(>Chisq), and Pr(>chibar2) and the simulated p-value where there are any.
        """
        row = {"Chisq": self.statistic, "Df": self.df, "Pr(>Chisq)": self.p_chi2}
        row |= {} if self.p_mixture is None else {"Pr(>chibar2)": self.p_mixture}
        row |= {} if self.p_simulated is None else {"Pr(simulated)": self.p_simulated}
        return Table(pd.DataFrame(row, index=[self.name]), title=f"Likelihood-ratio test ({self.method})")


def _p(p: float) -> str:
    text = format_p(p).strip() if p >= 1e-4 else "<0.0001"
    return text if text.startswith("<") else f"= {text}"


@dataclass(frozen=True, repr=False)
class ModelComparison(Tabular):
    """Fits compared by likelihood ratio, in order of their number of parameters.

    Parameters
    ----------
    frame : DataFrame
        Columns npar, AIC, BIC, logLik, deviance, Chisq, Df, Pr(>Chisq), and Pr(>chibar2) where a variance is tested.
    tests : tuple of LikelihoodRatioTest
        Each fit against the one before.
    notes : tuple of str
        Formulas, and what was refitted.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> schools = blm.datasets.load("nlschools")
    >>> small = blm.lmer("lang ~ GS + SES + COMB + (1 | class)", schools)
    >>> large = blm.lmer("lang ~ IQ + GS + SES + COMB + (1 | class)", schools)
    >>> round(blm.anova(small, large).tests[0].statistic, 2)
    825.09
    """

    frame: pd.DataFrame
    tests: tuple[LikelihoodRatioTest, ...]
    notes: tuple[str, ...]

    def table(self) -> Table:
        """Return the comparison as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        shared = (("AIC", "BIC"), ("logLik", "deviance"))
        return Table(self.frame, title="Likelihood ratio tests", notes=self.notes, shared=shared, digits=6)


def anova(
    *fits: EstimatedFit, refit_ml: bool | None = None, simulate: int = 0, **options: Any
) -> ModelComparison | Table:
    """Compare nested fits by likelihood ratio; with one fit, test its terms.

    REML fits with different fixed parts are refitted by ML, and the notes say so.

    Parameters
    ----------
    *fits : LmmFit or GlmmFit
        Two or more fits of the same rows, response and family; one fit gives its own `anova`.
    refit_ml : bool, optional
        True refits REML fits by ML in any case, as lme4 does; when absent only where REML cannot compare them.
    simulate : int, default 0
        Also simulate each null distribution this many times (parametric bootstrap).
    **options : Any
        For simulations: seed, workers, progress. For a single fit: type, ddf.

    Returns
    -------
    ModelComparison or Table
        The tests.

    Raises
    ------
    ComparisonError
        If rows, response, weights or offset differ, or the models are not nested.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> data = blm.datasets.load("sleepstudy")
    >>> fits = [blm.lmer(f"Reaction ~ Days + ({bar})", data) for bar in ("1 | Subject", "Days | Subject")]
    >>> blm.anova(*fits).frame["Df"].tolist()[1]
    2
    """
    for position, fit in enumerate(fits, start=1):
        if not isinstance(fit, EstimatedFit):
            raise ComparisonError(
                f"anova() compares REML, ML and Laplace fits; argument {position} is a {type(fit).__name__}.\n"
                "  For posteriors use loo() and az.compare; blm.compare(fit, post) puts a fit beside a posterior."
            )
    if not fits:
        raise ComparisonError("anova() needs at least one fit.")
    if len(fits) == 1:
        return fits[0].anova(**options)
    check_same_likelihood(fits)
    ordered = sorted(fits, key=lambda fit: fit.n_parameters)
    check_same_data(ordered)
    ordered, note = _comparable(ordered, refit_ml)
    tests = tuple(
        likelihood_ratio(small, big, name=f"{i} against {i + 1}", simulate=simulate, **options)
        for i, (small, big) in enumerate(pairwise(ordered), start=1)
    )
    notes = [f"{i}: {fit.design.formula.text}" for i, fit in enumerate(ordered, start=1)]
    if any(test.conservative for test in tests):
        notes.append("A p-value is an upper bound where more than one variance is zero under the null; see simulate=.")
    return ModelComparison(_comparison_frame(ordered, tests), tests, (*notes, note))


def _comparison_frame(fits: Sequence[EstimatedFit], tests: Sequence[LikelihoodRatioTest]) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "npar": [fit.n_parameters for fit in fits],
            "AIC": [fit.aic for fit in fits],
            "BIC": [fit.bic for fit in fits],
            "logLik": [fit.loglik for fit in fits],
            "deviance": [fit.criterion for fit in fits],
            "Chisq": [np.nan, *(test.statistic for test in tests)],
            "Df": pd.array([pd.NA, *(test.df for test in tests)], dtype="Int64"),
            "Pr(>Chisq)": [np.nan, *(test.p_chi2 for test in tests)],
        },
        index=[str(i) for i in range(1, len(fits) + 1)],
    )
    if any(test.mixture for test in tests):
        mixture = [test.p_mixture for test in tests]
        frame["Pr(>chibar2)"] = [np.nan, *(np.nan if p is None else p for p in mixture)]
    if any(test.simulated is not None for test in tests):
        frame["Pr(simulated)"] = [np.nan, *(test.p_simulated for test in tests)]
    return frame


def check_same_likelihood(fits: Sequence[EstimatedFit]) -> None:
    """Refuse fits of different families, links or approximations.

    Parameters
    ----------
    fits : sequence of LmmFit or GlmmFit
        The fits.

    Raises
    ------
    ComparisonError
        If family or link differ, or one is by Laplace and another by quadrature.
    """
    first = fits[0]
    for fit in fits[1:]:
        if fit.response_family != first.response_family:
            raise ComparisonError(
                f"the fits have different families: {first.response_family} and {fit.response_family}.\n"
                "  They are not nested; compare their AIC, or loo() of posteriors."
            )
        if first.family != "gaussian" and fit.engine != first.engine:
            raise ComparisonError(
                f"the log-likelihoods are approximated differently: {first.engine} and {fit.engine}.\n"
                "  Fit both with the same quadrature=."
            )


def check_same_data(fits: Sequence[EstimatedFit]) -> None:
    """Refuse fits whose likelihoods are not of the same numbers.

    Parameters
    ----------
    fits : sequence of LmmFit or GlmmFit
        The fits.

    Raises
    ------
    ComparisonError
        If rows, response, trials, weights or offset differ.
    """
    first = fits[0].design
    for fit in fits:
        refuse_survey_weights(fit.design, "a likelihood-ratio test", WALD_INSTEAD)
    for fit in fits[1:]:
        design = fit.design
        if design.n != first.n:
            missing = [f"{name!r} ({count:,})" for d in (first, design) for name, count in d.missing.items()]
            why = f"\n  Missing values left rows out: {listing(missing)}." if missing else ""
            raise ComparisonError(
                f"the fits use different rows: {first.n:,} and {design.n:,}.{why}\n"
                "  Fit both to the same data: first drop the rows where any of their columns is missing."
            )
        if not design.same_response(first):
            names = sorted({first.response_name, design.response_name})
            what = f"{names[0]!r} and {names[1]!r}" if len(names) > 1 else f"{names[0]!r} with other values or rows"
            raise ComparisonError(f"the fits have different responses ({what}); their likelihoods cannot be compared.")
        for role in ("trials", "weights", "offset", "survey_weights"):
            if not _same_role(first, design, role):
                raise ComparisonError(f"the fits have different {role}; their likelihoods cannot be compared.")


def _same_role(one: Design, other: Design, role: str) -> bool:
    """Return whether two designs have the same trials, weights or offset; of a source as far as its moments tell."""
    a, b = getattr(one, role), getattr(other, role)
    if a is None or b is None or one.condensation is None or other.condensation is None:
        return _equal(a, b)
    moments = []
    for design in (one, other):
        assert design.condensation is not None
        values = np.asarray(getattr(design.condensed, role))
        moments.append(design.moments(values / design.condensation.counts if role == "weights" else values))
    return bool(np.allclose(moments[0], moments[1], rtol=1e-9, atol=1e-12))


def _equal(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(one, other))


def _comparable(fits: Sequence[EstimatedFit], refit_ml: bool | None) -> tuple[list[EstimatedFit], str]:
    """Return fits by one criterion, and a sentence that says which."""
    gaussian = [fit for fit in fits if isinstance(fit, LmmFit)]
    if not gaussian:
        return list(fits), f"Fits by maximum likelihood ({fits[0].engine})."
    found, note = _by_one_criterion(gaussian, refit_ml)
    return list(found), note


def _by_one_criterion(fits: list[LmmFit], refit_ml: bool | None) -> tuple[list[LmmFit], str]:
    if not any(fit.reml for fit in fits):
        return fits, "Fits by ML."
    same_fixed = all(fit.design.same_fixed(fits[0].design) for fit in fits)
    if all(fit.reml for fit in fits) and same_fixed and not refit_ml:
        return fits, "Fits by REML: the fixed parts are the same."
    why = "" if same_fixed else "; REML likelihoods of different fixed parts cannot be compared"
    count = sum(fit.reml for fit in fits)
    refitted = [_by_ml(fit) if fit.reml else fit for fit in fits]
    return refitted, f"{count} REML fit{'s' * (count > 1)} refitted by ML{why}."


def _by_ml(fit: LmmFit) -> LmmFit:
    """Return the same model fitted by ML, from its cross-products where the rows stay in their source."""
    if fit.design.condensation is not None:
        return fit_lmm(fit.design, fit.kernel, reml=False)
    return refit(fit, _response(fit.design), reml=False)


def _response(design: Design) -> NDArray[np.float64]:
    assert design.y is not None
    return design.y


def likelihood_ratio(
    small: EstimatedFit, big: EstimatedFit, *, name: str = "", simulate: int = 0, **options: Any
) -> LikelihoodRatioTest:
    """Test a fit against a larger one that contains it, both by the same criterion.

    Parameters
    ----------
    small, big : LmmFit or GlmmFit
        The fits.
    name : str
        What is tested.
    simulate : int, default 0
        Simulations of the null distribution.
    **options : Any
        seed, workers, progress.

    Returns
    -------
    LikelihoodRatioTest
        The test.

    Raises
    ------
    ComparisonError
        If the models are not nested.
    """
    check_nested(small.design, big.design)
    df = big.n_parameters - small.n_parameters
    if df == 0:
        raise ComparisonError(
            f"both models have {big.n_parameters} parameters: {small.design.formula.text!r} and "
            f"{big.design.formula.text!r} are the same model, or not nested."
        )
    statistic = gain(small.criterion, big.criterion)
    variances, _ = _counts(big.kernel.layout.covariances, small.kernel.layout.covariances)
    fixed = big.design.X.shape[1] - small.design.X.shape[1]
    fixed += len(big.residual_parameters) - len(small.residual_parameters)
    mixture = _mixture(variances, df) if fixed == 0 else None
    simulated, failures = _simulate_null(small, big, simulate, options)
    return LikelihoodRatioTest(
        name, big.engine, statistic, df, mixture, simulated, failures, variances > 0 and mixture is None
    )


def _counts(big: Sequence[Covariance], small: Sequence[Covariance]) -> tuple[int, int]:
    """Return how many more variances and covariances the first has."""

    def count(covariances: Sequence[Covariance]) -> NDArray[np.int64]:
        variances = [1 if c.hom and c.kind != "us" else c.k for c in covariances]
        parameters = [c.n_theta for c in covariances]
        return np.array([sum(variances), sum(parameters) - sum(variances)])

    variances, others = count(big) - count(small)
    return int(variances), int(others)


def _mixture(variances: int, df: int) -> ChiBarSquare | None:
    """Return the even mixture that one more variance, and its covariances, bring."""
    return ChiBarSquare((df - 1, df), (0.5, 0.5)) if variances == 1 else None


def _simulate_null(
    small: EstimatedFit, big: EstimatedFit, n: int, options: dict[str, Any]
) -> tuple[NDArray[np.float64] | None, int]:
    if not n:
        return None, 0

    def replicate(rng: np.random.Generator) -> Outcome:
        y = simulate_response(small, rng)
        return Outcome(np.array([small.criterion_of(y) - big.criterion_of(y)]))

    return _run(replicate, n, options)


def _run(replicate: Any, n: int, options: dict[str, Any]) -> tuple[NDArray[np.float64], int]:
    outcomes = run_replicates(
        replicate,
        n,
        seed=options.get("seed"),
        workers=options.get("workers", 1),
        progress=options.get("progress", True),
        label="simulating the null",
    )
    values = np.array([outcome.values[0] for outcome in outcomes if outcome.values is not None])
    return np.maximum(values, 0.0), n - len(values)


# --- nesting -----------------------------------------------------------------------------------------------------


def check_nested(small: Design, big: Design) -> None:
    """Refuse two models of which the second does not contain the first.

    Parameters
    ----------
    small, big : Design
        The designs.

    Raises
    ------
    ComparisonError
        If the columns of X, or the covariances of the smaller model, are not among those of the larger.
    """
    texts = f"{small.formula.text!r} and {big.formula.text!r}"
    if small.residuals is not None and not small.residuals.within(big.residuals):
        raise ComparisonError(
            f"the models are not nested: {texts}.\n  The residuals of the first, {small.residuals.spec!r}, are no "
            "special case of the second's. Non-nested models can be compared by AIC or BIC."
        )
    if big.condensation is not None:
        frame = big.spanning().data
        small, big = small.at(frame), big.at(frame)
    if not _spans(big.X, small.X):
        raise ComparisonError(
            f"the models are not nested: {texts}.\n  The fixed part of the first is not contained in that of the "
            "second. Non-nested models can be compared by AIC or BIC (ML fits), or by loo() of posteriors."
        )
    if not random_part_is_nested(small, big):
        raise ComparisonError(
            f"the models are not nested: {texts}.\n  The second cannot produce every covariance that the first can. "
            "Non-nested models can be compared by AIC or BIC, or by loo() of posteriors."
        )


def _spans(big: NDArray[np.float64], small: NDArray[np.float64]) -> bool:
    if not small.shape[1]:
        return True
    if not big.shape[1]:
        return False
    rest = small - big @ np.linalg.lstsq(big, small, rcond=None)[0]
    return bool((np.linalg.norm(rest, axis=0) <= SAME_SPACE * np.linalg.norm(small, axis=0)).all())


def random_part_is_nested(small: Design, big: Design, seed: int = 0) -> bool:
    """Return whether each covariance that the smaller model's terms add up lies in the span of the larger's.

    Symmetric matrices are compared by their quadratic forms in random vectors, which identify them with probability 1.

    Parameters
    ----------
    small, big : Design
        Designs of the same rows.
    seed : int, default 0
        Of the random vectors.

    Returns
    -------
    bool
        True if nested.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> data = blm.datasets.load("Machines")
    >>> nested = blm.build_design("score ~ 1 + (1 | Worker/Machine)", data)
    >>> general = blm.build_design("score ~ 1 + (0 + Machine | Worker)", data)
    >>> random_part_is_nested(nested, general), random_part_is_nested(general, nested)
    (True, False)
    """
    atoms = {_key(term.term) for term in big.terms}
    terms = [term for term in small.terms if _key(term.term) not in atoms]
    ours = [form for term in terms for form in _forms(term, hull=True)]
    if not ours:
        return True
    theirs = [form for term in big.terms for form in _forms(term, hull=False)]
    probes = np.random.default_rng(seed).standard_normal((len(ours) + len(theirs) + 12, small.n))
    left = np.array([_quadratic_forms(term, S, probes) for term, S in ours]).T
    identity = (probes**2 / (1.0 if small.weights is None else small.weights)).sum(axis=1)
    right = np.array([*(_quadratic_forms(term, S, probes) for term, S in theirs), identity]).T
    return _spans(right / np.linalg.norm(right, axis=0), left)


def _key(term: RandomTerm) -> tuple[Any, ...]:
    return (term.columns, term.group, term.covariance, term.hom, term.structure)


def _forms(group: Any, *, hull: bool) -> Iterator[tuple[Any, NDArray[np.float64]]]:
    """Yield symmetric matrices whose combinations a term's covariance is: all of them (hull), or enough of them."""
    k = group.Z.shape[1]
    kind, hom = group.term.covariance, group.term.hom
    unit = np.eye(k)
    pairs = [(a, b) for a in range(k) for b in range(a)]
    if hom:
        yield group, unit
    else:
        yield from ((group, np.outer(unit[a], unit[a])) for a in range(k))
    linear = kind == "us" or (kind == "cs" and hom)
    if kind == "diag" or not (linear or hull):
        return
    if kind == "cs" and hom:
        yield group, np.ones((k, k)) - unit
    elif kind == "ar1" and hom:
        yield from ((group, np.eye(k, k=lag) + np.eye(k, k=-lag)) for lag in range(1, k))
    else:
        yield from ((group, np.outer(unit[a], unit[b]) + np.outer(unit[b], unit[a])) for a, b in pairs)


def _quadratic_forms(group: Any, S: NDArray[np.float64], probes: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros((len(group.levels), group.Z.shape[1], len(probes)))
    np.add.at(sums, group.codes, group.Z[:, :, None] * probes.T[:, None, :])
    return np.einsum("jap,ab,jbp->p", sums, S, sums)


# --- random terms ------------------------------------------------------------------------------------------------


def random_term_test(
    fit: EstimatedFit, term: str | int | None = None, *, simulate: int = 0, **options: Any
) -> LikelihoodRatioTest:
    """Test one random term, or all of them, by the fit's own criterion.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    term : str or int, optional
        The term to leave out, as written or by position; all when absent.
    simulate : int, default 0
        Simulations of the null distribution.
    **options : Any
        seed, workers, progress.

    Returns
    -------
    LikelihoodRatioTest
        The test.

    Raises
    ------
    ComparisonError
        If there is no such term.
    """
    terms = fit.design.formula.random
    if term is None or len(terms) == 1:
        if term is not None:
            find_term(fit.design, term)
        if fit.design.residuals is not None:
            name = "against the same residuals without group effects"
            return likelihood_ratio(fit.without_terms(()), fit, name=name, simulate=simulate, **options)
        return regression_test(fit, simulate=simulate, **options)
    index = find_term(fit.design, term)
    rest = tuple(other for i, other in enumerate(terms) if i != index)
    return likelihood_ratio(fit.without_terms(rest), fit, name=f"of {terms[index]}", simulate=simulate, **options)


def find_term(design: Design, term: str | int) -> int:
    """Return the position of a random term.

    Parameters
    ----------
    design : Design
        The design.
    term : str or int
        Position, the term as written (blanks and parentheses do not matter), or its factor if that has one term.

    Returns
    -------
    int
        Position in `design.terms`.

    Raises
    ------
    ComparisonError
        If there is no such term.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> find_term(design, "Days | Subject"), find_term(design, "Subject")
    (0, 0)
    """
    terms = design.formula.random
    if isinstance(term, int):
        if 0 <= term < len(terms):
            return term
    else:
        wanted = _bare(term)
        written = [_bare(design.formula.text[slice(*entry.span)]) for entry in terms]
        spelled = [_bare(str(entry)) for entry in terms]
        factors = [_bare(entry.factor) for entry in terms]
        for names in (written, spelled, factors):
            if names.count(wanted) == 1:
                return names.index(wanted)
    raise ComparisonError(f"there is no one random term {term!r}.\n  Random terms: {listing(map(str, terms))}.")


def _bare(text: str) -> str:
    return "".join(text.split()).strip("()").replace("`", "")


def reduced_design(design: Design, random: tuple[RandomTerm, ...]) -> Design:
    """Return the design of the same rows with other random terms.

    Parameters
    ----------
    design : Design
        The design.
    random : tuple of RandomTerm
        Terms over columns of the same data.

    Returns
    -------
    Design
        With the same X, response, weights and offset.
    """
    text = " + ".join([f"{design.formula.response} ~ {design.formula.fixed}", *map(str, random)])
    formula = replace(design.formula, text=text, random=random, offsets=())
    weights = design.trials if design.encoder.weights is not None and design.weights is None else design.weights
    built = build_design(
        formula, design.data, weights=weights, offset=design.offset, family=design.encoder.family,
        adjacency=design.encoder.adjacency,
    )  # fmt: skip
    encoder = replace(built.encoder, fixed=design.encoder.fixed, kept=design.encoder.kept)
    return replace(
        built, y=design.y, X=design.X, coef_names=design.coef_names, weights=design.weights, trials=design.trials,
        encoder=encoder, response_levels=design.response_levels, residuals=design.residuals,
        survey_weights=design.survey_weights,
    )  # fmt: skip


def regression_test(fit: EstimatedFit, *, simulate: int = 0, **options: Any) -> LikelihoodRatioTest:
    """Test all random terms together against ordinary regression, as Stata does below each `mixed` table.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    simulate : int, default 0
        Simulations of the null distribution.
    **options : Any
        seed, workers, progress.

    Returns
    -------
    LikelihoodRatioTest
        The test.
    """
    refuse_survey_weights(fit.design, "a likelihood-ratio test", WALD_INSTEAD)
    df = len(fit.theta)
    variances, _ = _counts(fit.kernel.layout.covariances, ())
    mixture = _mixture(variances, df)
    statistic = gain(fit.regression_criterion(), fit.criterion)
    simulated, failures = None, 0
    if simulate:
        simulated, failures = _run(lambda rng: Outcome(np.array([fit.regression_gain(rng)])), simulate, options)
    return LikelihoodRatioTest(
        "against ordinary regression", fit.engine, statistic, df, mixture, simulated, failures, mixture is None
    )


def least_squares_criterion(kernel: LmmKernel, *, reml: bool) -> float:
    """Return the REML criterion or ML deviance of ordinary (weighted) least squares on the same columns.

    Parameters
    ----------
    kernel : LmmKernel
        The kernel.
    reml : bool
        REML or ML.

    Returns
    -------
    float
        Minus twice the log-likelihood.
    """
    degrees = kernel.n_rows - (kernel.products.n_fixed if reml else 0)
    squares = _residual_squares(kernel.products)
    return float(kernel.constant(reml) + degrees * (1 + np.log(2 * np.pi * squares / degrees)))


def _residual_squares(products: CrossProducts) -> float:
    gram, p = products.gram, products.n_fixed
    return float(gram[p, p] - gram[:p, p] @ np.linalg.solve(gram[:p, :p], gram[:p, p]) if p else gram[p, p])


def gain_over_least_squares(fit: LmmFit, rng: np.random.Generator) -> float:
    """Draw a response from ordinary regression and return by how much group effects lower the criterion.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    float
        The likelihood-ratio statistic of one simulation.
    """
    design, products = fit.design, fit.kernel.products
    sigma = np.sqrt(_residual_squares(products) / (design.n - products.n_fixed))
    mean = design.X @ products.beta0 + (0.0 if design.offset is None else design.offset)
    scale = sigma if design.weights is None else sigma / np.sqrt(design.weights)
    kernel = fit.kernel.with_response(mean + scale * rng.standard_normal(design.n))
    big = optimize(kernel, Control(reml=fit.reml)).value
    return least_squares_criterion(kernel, reml=fit.reml) - big


def ranova(fit: EstimatedFit, *, simulate: int = 0, **options: Any) -> Table:
    """Test each part of the random structure: slopes of a bar one by one, bars with one effect as a whole.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit; compared by its own criterion.
    simulate : int, default 0
        Simulations of each null distribution.
    **options : Any
        seed, workers, progress.

    Returns
    -------
    Table
        Columns npar, logLik, AIC, LRT, Df, Pr(>Chisq), Pr(>chibar2).

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> round(float(blm.ranova(fit).frame.loc["Days in (1 + Days | Subject)", "LRT"]), 3)
    42.837
    """
    rows: dict[str, tuple[float, ...]] = {"<none>": (fit.n_parameters, fit.loglik, fit.aic, *[np.nan] * 4)}
    conservative = False
    terms = fit.design.formula.random
    for position, term in enumerate(terms):
        for label, replacement in _reductions(fit.design, position):
            rest = tuple(new for i, old in enumerate(terms) for new in (replacement if i == position else (old,)))
            if rest or fit.design.residuals is not None:
                test = likelihood_ratio(fit.without_terms(rest), fit, simulate=simulate, **options)
            else:
                test = regression_test(fit, simulate=simulate, **options)
            loglik, npar = fit.loglik - test.statistic / 2, fit.n_parameters - test.df
            p_mixture = np.nan if test.p_mixture is None else test.p_mixture
            values = (npar, loglik, 2 * (npar - loglik), test.statistic, test.df, test.p_chi2, p_mixture)
            rows[f"{label} in {term}" if label else str(term)] = (
                *values, *((test.p_simulated,) if test.p_simulated is not None else ()),
            )  # fmt: skip
            conservative |= test.conservative
    columns = ["npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)", "Pr(>chibar2)"]
    if simulate:
        columns.append("Pr(simulated)")
        rows["<none>"] += (np.nan,)
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype({"npar": int, "Df": "Int64"})
    notes = ["Pr(>chibar2): one variance is zero under the null; Pr(>Chisq) is then an upper bound."]
    if conservative:
        notes.append("Where Pr(>chibar2) is missing, more than one variance is zero under the null; see simulate=.")
    return Table(frame, title=f"Random terms left out in turn ({fit.engine})", notes=tuple(notes), digits=6)


def _reductions(design: Design, position: int) -> list[tuple[str, tuple[RandomTerm, ...]]]:
    """Return what can be left out of a term: each column term that no other contains, or the whole term."""
    term, recipe = design.formula.random[position], design.encoder.random[position]
    slopes = {}
    has_intercept = False
    for entry in recipe.spec.structure:
        labels = [factor.expr for factor in entry.term.factors if factor.expr != "1"]
        has_intercept |= not labels
        if labels:
            slopes[":".join(labels)] = labels
    if not slopes or (len(slopes) == 1 and not has_intercept):
        return [("", ())]
    reductions: list[tuple[str, tuple[RandomTerm, ...]]] = []
    for name, labels in slopes.items():
        if any(set(labels) < set(other) for other in slopes.values()):
            continue
        rest = [":".join(map(render_label(recipe.atoms), other)) for key, other in slopes.items() if key != name]
        columns = " + ".join(["1" if has_intercept else "0", *rest])
        reductions.append((name, (replace(term, columns=columns),)))
    return reductions


def render_label(atoms: Mapping[str, Node]) -> Callable[[str], str]:
    """Return a function that spells a factor of a term so that the formula language reads it again.

    Parameters
    ----------
    atoms : mapping of str to Node
        Labels and the expressions behind them.

    Returns
    -------
    callable
        From label to text, names quoted where they need it.
    """
    return lambda label: render(atoms[label])
