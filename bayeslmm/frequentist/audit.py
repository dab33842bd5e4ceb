"""What looks wrong with a fit, in plain words, each with a remedy: what a course teaches to look for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import listing
from bayeslmm.formula.term_contrasts import TermContrasts
from bayeslmm.frequentist.diagnostics import effect_sd, influence, residuals, root_weights, vif
from bayeslmm.likelihood.lmm import LmmKernel, solve
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Factor
    from bayeslmm.frequentist.lmm_fit import LmmFit

_WORD = re.compile(r"[^\W\d]\w*(?![\w.]*\()")
SEVERITIES = ("serious", "caution", "note")

VERY_FEW_GROUPS, FEW_GROUPS = 5, 10
SCALE_RATIO = 1e3  # largest over smallest SD of the numeric predictors
FAR_FROM_ZERO = 10.0  # mean over SD
HIGH_VIF, MODERATE_VIF = 10.0, 5.0
CONDITION_NUMBER = 30.0
NEAR_ONE = 0.95
CLEAR = 0.001  # p-value below which a pattern is mentioned, if it is also large
OUTLIER_CHANCE = 0.01
SKEWED, HEAVY = 1.0, 3.0
SPREAD_RATIO = 2.0
SPREAD_CORRELATION = 0.2
MISSING_SHARE = 0.05
SINGLETON_SHARE = 0.25
AT_LIMIT_SHARE = 0.05
FEW_VALUES = 7
ENOUGH_LEVELS = 20
DFBETA = 1.0
COSTLY = 2e8  # rows times columns of Z, above which the influence of groups is left to `influence`


@dataclass(frozen=True)
class Finding:
    """One thing that deserves a look.

    Parameters
    ----------
    severity : str
        "serious": conclusions may be wrong; "caution": look before you conclude; "note": good to know.
    topic : str
        In a word or two.
    message : str
        What is the matter, with its numbers.
    remedy : str
        What to do.
    """

    severity: str
    topic: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.message}\n    {self.remedy}"


@dataclass(frozen=True, repr=False)
class Audit(Tabular):
    """Findings about a fit, the serious ones first.

    Parameters
    ----------
    findings : tuple of Finding
        What deserves a look.
    passed : tuple of str
        Topics that were looked at without a finding.
    skipped : tuple of str
        What was not looked at, and why.

    Examples
    --------
    >>> few = Finding("caution", "few groups", "'site' has 6 levels.", "Use Kenward-Roger tests.")
    >>> print(Audit((few,), ("outliers",)))
    caution
      few groups: 'site' has 6 levels.
        Use Kenward-Roger tests.
    Nothing found about: outliers.
    """

    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.findings)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per finding.

        Returns
        -------
        DataFrame
            Columns severity, topic, message, remedy.
        """
        rows = [(entry.severity, entry.topic, entry.message, entry.remedy) for entry in self.findings]
        return pd.DataFrame(rows, columns=["severity", "topic", "message", "remedy"])

    def table(self) -> Table:
        """Return the findings as a table.

        Returns
        -------
        Table
            One row per finding.
        """
        frame = self.to_pandas().set_index("topic").rename_axis(None)
        return Table(frame, title="Audit", notes=tuple(f"Not looked at: {reason}" for reason in self.skipped))

    def __str__(self) -> str:
        lines = []
        for severity in SEVERITIES:
            chosen = [entry for entry in self.findings if entry.severity == severity]
            if chosen:
                lines.append(severity)
                lines += [f"  {entry}" for entry in chosen]
        if self.passed:
            lines.append(f"Nothing found about: {', '.join(self.passed)}.")
        lines += [f"Not looked at: {reason}" for reason in self.skipped]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        items = "".join(
            f"<li><b>{escape(entry.severity)}: {escape(entry.topic)}.</b> {escape(entry.message)} "
            f"<i>{escape(entry.remedy)}</i></li>"
            for entry in self.findings
        )
        passed = f"<p>Nothing found about: {escape(', '.join(self.passed))}.</p>" if self.passed else ""
        skipped = "".join(f"<p>Not looked at: {escape(reason)}</p>" for reason in self.skipped)
        return f"<ul>{items}</ul>{passed}{skipped}"


class NotLookedAt(Exception):
    """A check that was left out, and why."""


def audit(fit: LmmFit) -> Audit:
    """Look at a fit the way a careful colleague would.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    Audit
        Findings, the serious ones first, and the topics without one.
    """
    findings: list[Finding] = []
    passed, skipped = [], []
    for topic, check in CHECKS.items():
        try:
            found = list(check(fit))
        except NotLookedAt as reason:
            skipped.append(f"{topic}: {reason}")
            continue
        findings += found
        if not found:
            passed.append(topic)
    findings.sort(key=lambda entry: SEVERITIES.index(entry.severity))
    return Audit(tuple(findings), tuple(passed), tuple(skipped))


# --- the optimum -------------------------------------------------------------------------------------------------


def check_convergence(fit: LmmFit) -> Iterator[Finding]:
    """Yield what the optimiser had to say."""
    if not fit.optimum.converged:
        yield Finding(
            "serious",
            "convergence",
            f"the optimiser {fit.optimum.status}.",
            "Rescale the predictors, simplify the random part, or allow more steps by Control(max_evaluations=...).",
        )
    if fit.optimum.hessian_pd is False:
        yield Finding(
            "serious",
            "convergence",
            "the criterion is flat in some direction: the data do not determine the variances.",
            "Remove a random effect that repeats another one, or sample() with priors.",
        )


def check_boundary(fit: LmmFit) -> Iterator[Finding]:
    """Yield terms with zero variance or correlations at one."""
    if fit.singular:
        yield Finding(
            "serious",
            "singular fit",
            fit.singular_message.splitlines()[0].removeprefix("the fit is on the boundary: "),
            "Take out a slope or use || for uncorrelated effects; or keep the term and sample() with a prior on the "
            "standard deviations. Standard errors and p-values given here take the variance as exactly zero.",
        )
    for term in fit.varcorr:
        if term.corr is None or fit.singular:
            continue
        for i, j in zip(*np.tril_indices(len(term.effects), -1), strict=True):
            if abs(term.corr[i, j]) > NEAR_ONE:
                pair = f"{term.effects[j]!r} and {term.effects[i]!r} by {term.factor!r}"
                yield Finding(
                    "caution",
                    "singular fit",
                    f"the effects {pair} are correlated by {term.corr[i, j]:.2f}.",
                    "Centre the predictor, so that the intercept is an effect in the middle of the data; if the "
                    "correlation stays, the data hardly tell the two effects apart.",
                )


# --- groups ------------------------------------------------------------------------------------------------------


def _independent_factors(fit: LmmFit) -> tuple[Factor, ...]:
    """Return the factors whose levels are independent of each other: the modes of a structured term are no slopes."""
    return tuple(factor for factor in fit.design.factors if factor.loading is None)


def check_few_groups(fit: LmmFit) -> Iterator[Finding]:
    """Yield grouping factors with too few levels to estimate a variance."""
    for factor in fit.design.factors:
        count = len(factor.members)
        if count < VERY_FEW_GROUPS:
            yield Finding(
                "serious",
                "few groups",
                f"{factor.name!r} has {count} levels: a variance estimated from {count} numbers.",
                f"Make {factor.name!r} a fixed effect, or sample() with a prior on its standard deviation.",
            )
        elif count < FEW_GROUPS:
            yield Finding(
                "caution",
                "few groups",
                f"{factor.name!r} has {count} levels: its variance is known roughly.",
                'Use summary(ddf="kenward-roger") and profile intervals, not z values; or sample() with a prior.',
            )


def check_balance(fit: LmmFit) -> Iterator[Finding]:
    """Yield factors with many levels of one row, or of fewer rows than effects."""
    for factor in _independent_factors(fit):
        size = np.bincount(factor.codes, minlength=len(factor.levels))
        effects = len(factor.effects)
        small = size < 2 if effects == 1 else size < effects
        if small.mean() > SINGLETON_SHARE:
            rows = "a single row" if effects == 1 else f"fewer rows than the {effects} effects"
            yield Finding(
                "caution",
                "unbalanced groups",
                f"{small.sum():,} of {len(size):,} levels of {factor.name!r} have {rows} "
                f"(sizes {size.min():,} to {size.max():,}, median {np.median(size):g}).",
                "That is allowed; but variance within and between such groups is told apart by the other groups alone. "
                "Random slopes rest on the groups with several rows.",
            )


def check_slopes(fit: LmmFit) -> Iterator[Finding]:
    """Yield random slopes that the groups cannot show, and slopes without a fixed effect."""
    for factor in _independent_factors(fit):
        for position, effect in enumerate(factor.effects):
            column = factor.Z[:, position]
            constant = _share_constant(factor, column)
            if np.ptp(column) == 0:
                continue
            if constant == 1 and not _is_indicator(column):
                yield Finding(
                    "serious",
                    "group-constant slope",
                    f"{effect!r} does not vary within any level of {factor.name!r}.",
                    f"No group shows a slope of its own: the term models a variance between groups that changes with "
                    f"{effect!r}. Take it out of the random part unless that is meant.",
                )
            elif constant > 0.5 and constant < 1:
                yield Finding(
                    "caution",
                    "group-constant slope",
                    f"{effect!r} does not vary within {100 * constant:.0f} % of the levels of {factor.name!r}.",
                    "The slope's variance rests on the other levels.",
                )
            if not _is_spanned(fit, column):
                yield Finding(
                    "caution",
                    "slope without fixed effect",
                    f"({effect} | {factor.name}) has no fixed effect {effect!r}.",
                    f"The slopes are forced to average zero. Add {effect} to the fixed part unless that is meant.",
                )


def _share_constant(factor: Factor, column: NDArray[np.float64]) -> float:
    """Return the share of the levels within which a column does not vary."""
    low, high = (np.full(len(factor.levels), limit) for limit in (np.inf, -np.inf))
    np.minimum.at(low, factor.codes, column)
    np.maximum.at(high, factor.codes, column)
    return float(np.mean(high - low <= 1e-12 * np.abs(column).max()))


def _is_indicator(column: NDArray[np.float64]) -> bool:
    return bool(np.isin(column, (0.0, 1.0)).all())


def _is_spanned(fit: LmmFit, column: NDArray[np.float64]) -> bool:
    X = fit.design.X
    if not X.shape[1]:
        return False
    rest = column - X @ np.linalg.lstsq(X, column, rcond=None)[0]
    return bool(np.linalg.norm(rest) < 1e-6 * np.linalg.norm(column))


def check_within_between(fit: LmmFit) -> Iterator[Finding]:
    """Yield predictors whose slope between groups differs from that within them."""
    for factor in _independent_factors(fit):
        if len(factor.levels) < FEW_GROUPS:
            continue
        means, names = _group_means(fit, factor)
        if not names:
            continue
        design = replace(fit.design, X=np.hstack([fit.design.X, means]), coef_names=(*fit.design.coef_names, *names))
        solution = solve(fit.theta, LmmKernel.from_design(design), reml=fit.reml)
        count = len(names)
        value, se = solution.beta[-count:], np.sqrt(np.diag(solution.vcov))[-count:]
        for name, difference, error in zip(names, value, se, strict=True):
            p = 2 * stats.norm.sf(abs(difference / error))
            if p < CLEAR:
                yield Finding(
                    "caution",
                    "within and between",
                    f"the slope of {name!r} between levels of {factor.name!r} differs from that within them by "
                    f"{difference:.3g} (standard error {error:.2g}).",
                    f"The coefficient mixes the two. Add the group mean of {name} as a predictor (Mundlak), or centre "
                    f"{name} within {factor.name}.",
                )


def _group_means(fit: LmmFit, factor: Factor) -> tuple[NDArray[np.float64], list[str]]:
    """Return the group means of numeric predictors that vary within and between the groups, and their names."""
    size = np.bincount(factor.codes, minlength=len(factor.levels))
    basis, columns, names = fit.design.X, [], []
    for term in TermContrasts(fit.design).terms:
        if term.categorical or len(term.columns) != 1 or len(term.numeric) != 1:
            continue
        column = fit.design.X[:, term.columns[0]]
        mean = (np.bincount(factor.codes, weights=column, minlength=len(size)) / size)[factor.codes]
        with_mean = np.column_stack([basis, mean])
        within = np.var(column - mean)
        if within > 1e-8 * np.var(column) and _adds_rank(basis, mean):
            basis = with_mean
            columns.append(mean)
            names.append(term.name)
    return np.column_stack(columns) if columns else np.empty((fit.n_obs, 0)), names


def _adds_rank(basis: NDArray[np.float64], column: NDArray[np.float64]) -> bool:
    rest = column - basis @ np.linalg.lstsq(basis, column, rcond=None)[0]
    return bool(np.linalg.norm(rest) > 1e-4 * np.linalg.norm(column - column.mean()) > 0)


# --- predictors --------------------------------------------------------------------------------------------------


def _numeric_columns(fit: LmmFit) -> dict[str, NDArray[np.float64]]:
    """Return the columns of X that come from one numeric variable."""
    columns = {}
    for term in TermContrasts(fit.design).terms:
        if len(term.columns) == 1 and len(term.numeric) == 1 and not term.categorical:
            column = fit.design.X[:, term.columns[0]]
            if not _is_indicator(column):
                columns[term.name] = column
    return columns


def check_scaling(fit: LmmFit) -> Iterator[Finding]:
    """Yield predictors in very different units, or far from zero."""
    columns = _numeric_columns(fit)
    sds = pd.Series({name: float(column.std()) for name, column in columns.items()}, dtype=float)
    sds = sds[sds > 0]
    if len(sds) > 1 and sds.max() / sds.min() > SCALE_RATIO:
        large, small = str(sds.idxmax()), str(sds.idxmin())
        yield Finding(
            "note",
            "scaling",
            f"predictors are in very different units: SD of {large!r} {sds[large]:.3g}, {small!r} {sds[small]:.3g}.",
            "The fit does not mind; for readable coefficients (and priors) divide by a convenient unit or use scale().",
        )
    slopes = {effect for factor in _independent_factors(fit) for effect in factor.effects}
    for name in sds.index:
        mean = float(columns[name].mean())
        if abs(mean) / sds[name] > FAR_FROM_ZERO:
            yield Finding(
                "caution" if name in slopes else "note",
                "scaling",
                f"zero lies {abs(mean) / sds[name]:.0f} standard deviations from the mean of {name!r}: the intercept "
                "is far outside the data.",
                f"Centre it: ({name} - {mean:.4g}); the intercept and its variance then are those of an average row.",
            )


def check_collinearity(fit: LmmFit) -> Iterator[Finding]:
    """Yield terms that others nearly determine."""
    if fit.design.dropped_columns:
        yield Finding(
            "note",
            "collinearity",
            f"left out because other columns determine them: {listing(fit.design.dropped_columns)}.",
            "Nothing is lost; decide yourself which of them should stay.",
        )
    terms = [term for term in TermContrasts(fit.design).terms if len(term.columns)]
    if len(terms) < 2:
        return
    squared = vif(fit).frame["GVIF^(1/(2 Df))"] ** 2
    products = _products([term.name for term in terms])
    for name, value in squared.items():
        if value > MODERATE_VIF and name not in products:
            yield Finding(
                "serious" if value > HIGH_VIF else "caution",
                "collinearity",
                f"the variance of {name!r} is inflated {value:.1f} times by the other predictors.",
                "The data do not separate it from them: combine or leave out predictors, or accept wide intervals; the "
                "joint test of the group is not affected.",
            )
    inflated = squared[squared.index.isin(list(products)) & (squared > HIGH_VIF)]
    if len(inflated):
        yield Finding(
            "note",
            "collinearity",
            f"terms made of the same variables inflate each other (up to {inflated.max():.0f} times): "
            f"{listing(inflated.index)}.",
            "Centre the numeric predictors: lower-order terms then are those of an average row. The highest-order term "
            "and the fitted values are not affected.",
        )


def _products(names: list[str]) -> set[str]:
    """Return the terms that share a variable with another: interactions, powers, and what they are made of."""
    words = {name: set(_WORD.findall(name)) for name in names}
    return {name for name in names if any(other != name and words[other] & words[name] for other in names)}


# --- residuals ---------------------------------------------------------------------------------------------------


def outlier_limit(count: int) -> float:
    """Return the size that one of `count` standard normal values exceeds with probability 0.01."""
    return float(stats.norm.isf(OUTLIER_CHANCE / 2 / max(1, count)))


def check_outliers(fit: LmmFit) -> Iterator[Finding]:
    """Yield rows whose residual would hardly occur among so many."""
    standard = residuals(fit, "standardized")
    good = np.isfinite(standard)
    limit = outlier_limit(int(good.sum()))
    out = np.flatnonzero(good & (np.abs(standard) > limit))
    if len(out):
        worst = out[np.argsort(-np.abs(standard[out]))][:5]
        rows = ", ".join(f"row {fit.design.rows[i]} ({standard[i]:+.1f})" for i in worst)
        more = f" and {len(out) - 5:,} more" if len(out) > 5 else ""
        yield Finding(
            "caution",
            "outliers",
            f"{len(out):,} residual{'s' * (len(out) != 1)} beyond ±{limit:.1f} standard deviations: {rows}{more}.",
            "Check these rows for errors; fit with and without them; a model with family='t' is robust to them.",
        )


def check_residual_shape(fit: LmmFit) -> Iterator[Finding]:
    """Yield skewed or heavy-tailed residuals."""
    standard = residuals(fit, "standardized")
    standard = standard[np.isfinite(standard)]
    if len(standard) < ENOUGH_LEVELS:
        return
    within = standard[np.abs(standard) <= outlier_limit(len(standard))]  # a single outlier is not a skewed distribution
    skew, kurtosis = float(stats.skew(within)), float(stats.kurtosis(standard))
    if abs(skew) > SKEWED:
        assert fit.design.y is not None
        log = "A log response, or" if skew > 0 and fit.design.y.min() > 0 else "Consider a transformation, or"
        yield Finding(
            "caution",
            "residual distribution",
            f"the residuals are skewed (skewness {skew:+.1f}).",
            f"{log} a family that fits (gamma). Coefficients and their standard errors suffer little, "
            "prediction intervals a lot; robust() protects the tests.",
        )
    elif kurtosis > HEAVY:
        yield Finding(
            "caution",
            "residual distribution",
            f"the residuals have heavy tails (excess kurtosis {kurtosis:.1f}).",
            "Look at plot_qq(); a model with family='t', or robust() standard errors.",
        )


def check_spread(fit: LmmFit) -> Iterator[Finding]:
    """Yield residuals whose spread depends on the fitted values or on the group."""
    standard = residuals(fit, "standardized")
    good = np.isfinite(standard)
    if good.sum() < ENOUGH_LEVELS:
        return
    if np.ptp(fit.fitted) > 0:
        result = stats.spearmanr(np.abs(standard[good]), fit.fitted[good])
        rank_correlation, p_value = float(result.statistic), float(result.pvalue)
        if abs(rank_correlation) > SPREAD_CORRELATION and p_value < CLEAR:
            grows = rank_correlation > 0
            yield Finding(
                "caution",
                "unequal spread",
                f"the residuals' spread {'grows' if grows else 'falls'} with the fitted values (rank correlation "
                f"{rank_correlation:+.2f}).",
                ("A log response or a gamma family; " if grows else "")
                + "robust() standard errors; prediction intervals are too wide at one end and too narrow at the other.",
            )
    for factor in _independent_factors(fit):
        yield from _spread_by_group(fit, factor, standard, good)


def _spread_by_group(
    fit: LmmFit, factor: Factor, standard: NDArray[np.float64], good: NDArray[np.bool_]
) -> Iterator[Finding]:
    size = np.bincount(factor.codes[good], minlength=len(factor.levels))
    large = np.flatnonzero(size >= max(4, len(factor.effects) + 2))
    if len(large) < 2:
        return
    order = np.argsort(factor.codes, kind="stable")
    ends = np.cumsum(np.bincount(factor.codes, minlength=len(factor.levels)))[:-1]
    parts = [standard[rows][np.isfinite(standard[rows])] for rows in np.split(order, ends)]
    parts = [parts[j] for j in large]
    p = float(stats.levene(*parts, center="median").pvalue)
    spread = np.array([part.std(ddof=1) for part in parts])
    low, high = (float(value) for value in np.quantile(spread, [0.1, 0.9]))
    if p < CLEAR and high > SPREAD_RATIO * low:
        yield Finding(
            "caution",
            "unequal spread",
            f"the residual SD differs between levels of {factor.name!r}: {low * fit.sigma:.3g} to "
            f"{high * fit.sigma:.3g} in the middle 80 % (Brown-Forsythe p = {p:.1g}).",
            f"robust(cluster={factor.name!r}) standard errors; a variance by group, or a log response if the spread "
            "goes with the mean.",
        )


def check_effect_shape(fit: LmmFit) -> Iterator[Finding]:
    """Yield group effects that are far from normal, or single groups far from the others."""
    for position, factor in enumerate(fit.design.factors):
        if len(factor.levels) < ENOUGH_LEVELS or factor.loading is not None:
            continue
        sd, modes = effect_sd(fit, position), fit.ranef[factor.name].to_numpy()
        for column, effect in enumerate(factor.effects):
            keep = sd[:, column] > 0
            if keep.sum() < ENOUGH_LEVELS:
                continue
            standard = modes[keep, column] / sd[keep, column]
            limit = outlier_limit(len(standard))
            levels = [factor.levels[j] for j in np.flatnonzero(keep)[np.abs(standard) > limit]]
            if levels:
                yield Finding(
                    "caution",
                    "group effects",
                    f"{effect!r} of {listing(map(repr, levels), 5)} lies beyond ±{limit:.1f} "
                    f"standard deviations of {factor.name!r}.",
                    "Check these groups; see influence() for what depends on them.",
                )
            elif abs(stats.skew(standard)) > SKEWED:
                yield Finding(
                    "note",
                    "group effects",
                    f"{effect!r} by {factor.name!r} is skewed (skewness {stats.skew(standard):+.1f}).",
                    "Look at plot_ranef_qq(); a missing group-level predictor is the usual cause.",
                )


def check_influence(fit: LmmFit) -> Iterator[Finding]:
    """Yield groups without which a coefficient would move by more than its standard error."""
    if not len(fit.fixef):
        return
    if fit.n_obs * fit.kernel.analysis.n_columns > COSTLY:
        raise NotLookedAt("it takes long with so many rows and groups; influence('<factor>') does it.")
    for factor in fit.design.factors:
        if len(factor.members) < 3:
            continue
        dfbetas = influence(fit, factor.name).dfbetas
        moves = -dfbetas.to_numpy()
        size = np.nan_to_num(np.abs(moves))
        for flat in np.argsort(-size, axis=None, kind="stable")[:3]:
            at = np.unravel_index(flat, size.shape)
            if size[at] <= DFBETA:
                break
            level, name, moved = dfbetas.index[at[0]], dfbetas.columns[at[1]], moves[at]
            yield Finding(
                "caution",
                "influence",
                f"without {factor.name} {level!r} the coefficient of {name!r} moves by {moved:+.1f} standard errors.",
                f"Report the result with and without it; see influence({factor.name!r}).",
            )


# --- data --------------------------------------------------------------------------------------------------------


def check_missing(fit: LmmFit) -> Iterator[Finding]:
    """Yield how many rows were left out."""
    design = fit.design
    dropped = design.n_total - design.n
    if dropped > MISSING_SHARE * design.n_total:
        columns = ", ".join(f"{name}: {count:,}" for name, count in design.missing.items())
        yield Finding(
            "caution",
            "missing values",
            f"{dropped:,} of {design.n_total:,} rows were left out ({columns}).",
            "Complete rows are enough if what is missing depends on the predictors alone; otherwise impute.",
        )


def check_response(fit: LmmFit) -> Iterator[Finding]:
    """Yield responses with few values or many at a limit: a Gaussian model is then an approximation."""
    assert fit.design.y is not None
    values, counts = np.unique(fit.design.y, return_counts=True)
    name = fit.design.response_name
    if len(values) <= FEW_VALUES:
        yield Finding(
            "caution",
            "response",
            f"{name!r} has {len(values)} distinct values.",
            'For two values use family="bernoulli", for ordered categories family="cumulative", for counts "poisson".',
        )
        return
    for count, value, end in ((counts[0], values[0], "smallest"), (counts[-1], values[-1], "largest")):
        if count >= ENOUGH_LEVELS / 2 and count > max(AT_LIMIT_SHARE * fit.n_obs, 2 * np.median(counts)):
            yield Finding(
                "caution",
                "response",
                f"{100 * count / fit.n_obs:.0f} % of {name!r} are at its {end} value, {value:g}.",
                "If the measure has a floor or ceiling there, slopes are flattened: think of a censored family.",
            )


def check_weights(fit: LmmFit) -> Iterator[Finding]:
    """Yield weights that give a few rows most of the say."""
    if fit.design.weights is None:
        return
    weights = root_weights(fit.design) ** 2
    effective = weights.sum() ** 2 / (weights**2).sum()
    if effective < 0.5 * fit.n_obs:
        yield Finding(
            "caution",
            "weights",
            f"the weights leave the information of {effective:,.0f} of {fit.n_obs:,} rows.",
            "Weights here are inverse residual variances, not sampling weights; for the latter use poststratification.",
        )


CHECKS: dict[str, Callable[[LmmFit], Iterator[Finding]]] = {
    "convergence": check_convergence,
    "singular fit": check_boundary,
    "few groups": check_few_groups,
    "unbalanced groups": check_balance,
    "random slopes": check_slopes,
    "within and between": check_within_between,
    "scaling": check_scaling,
    "collinearity": check_collinearity,
    "outliers": check_outliers,
    "residual distribution": check_residual_shape,
    "unequal spread": check_spread,
    "group effects": check_effect_shape,
    "influence": check_influence,
    "missing values": check_missing,
    "response": check_response,
    "weights": check_weights,
}
