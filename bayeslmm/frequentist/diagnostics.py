"""Residuals of every kind, leverage, influence of rows and groups, variance inflation, simulation envelopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from bayeslmm.contract import check_effect
from bayeslmm.errors import BayesLmmError, DataError, did_you_mean, listing
from bayeslmm.formula.checks import independent_columns
from bayeslmm.formula.design import rescaled
from bayeslmm.formula.residuals import refuse
from bayeslmm.formula.term_contrasts import TermContrasts
from bayeslmm.frequentist.bootstrap import simulate_response
from bayeslmm.likelihood.deletion import coefficient_changes, row_changes
from bayeslmm.likelihood.lmm import LmmKernel, solve
from bayeslmm.report.diagnostic_plots import QQ
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design, GroupTerm
    from bayeslmm.frequentist.estimated import EstimatedFit
    from bayeslmm.frequentist.lmm_fit import LmmFit

ResidualKind = Literal[
    "raw", "conditional", "pearson", "standardized", "marginal", "marginal-standardized", "normalized"
]
RESIDUAL_KINDS: tuple[str, ...] = get_args(ResidualKind)
FULL_LEVERAGE = 1e-8
NO_ROWS = (
    "Correlated rows cannot be left out one by one; look at residuals('normalized'), or refit without a group's rows."
)
ENVELOPE_POINTS, ENVELOPE_TAIL = 400, 50
MANY_ROWS = 20_000

type Values = Callable[[NDArray[np.float64], Any], NDArray[np.float64]]


def residuals(fit: LmmFit, kind: ResidualKind = "raw") -> NDArray[np.float64]:
    """Return residuals of one kind.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    kind : str, default "raw"
        One of "raw", "conditional", "pearson", "standardized", "marginal", "marginal-standardized", "normalized".
        "raw" and "conditional" are y - X beta - Z b; "pearson" these over the residual standard deviation of the row,
        sigma / sqrt(weight); "standardized" over their own standard deviation, which is sqrt(1 - leverage) times that;
        "marginal" y - X beta; "marginal-standardized" these over their own standard deviation; "normalized" Pearson
        residuals, made independent where the model says they are correlated within a group (nlme's word).

    Returns
    -------
    ndarray (n,)
        The residuals; standardised ones are NaN where the leverage is 1.

    Raises
    ------
    DataError
        If there is no such kind.

    References
    ----------
    Nobre & Singer (2007), *Biom. J.* 49(6), 863-875.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> residuals(fit, "standardized")[:3].round(3)
    array([-0.183, -0.627, -1.764])
    """
    if kind not in RESIDUAL_KINDS:
        hint = did_you_mean(str(kind), RESIDUAL_KINDS)
        raise DataError(f"there is no kind of residual {kind!r}.\n  Kinds: {listing(RESIDUAL_KINDS)}. {hint}".rstrip())
    assert fit.design.y is not None
    if kind == "marginal" or kind == "marginal-standardized":
        marginal = fit.design.y - fit.predict(include=())
        return marginal if kind == "marginal" else marginal / np.sqrt(marginal_variance(fit))
    raw = fit.design.y - fit.fitted
    if kind in ("raw", "conditional"):
        return raw
    if kind == "normalized" and fit.residual is not None:
        return fit.residual.kernel.rows.whiten(raw * root_weights(fit.design), fit.residual.psi) / fit.sigma
    pearson = raw / fit.residual_sd()
    return pearson if kind in ("pearson", "normalized") else pearson / np.sqrt(_share_left(fit.leverage))


def root_weights(design: Design) -> NDArray[np.float64]:
    """Return the roots of the prior weights (n,), ones where there are none."""
    return np.ones(design.n) if design.weights is None else np.sqrt(design.weights)


def _share_left(leverage: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(1 - leverage > FULL_LEVERAGE, 1 - leverage, np.nan)


def marginal_variance(fit: LmmFit) -> NDArray[np.float64]:
    """Return the variance of y - X beta-hat of each row: that of y less that of x'beta-hat.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    ndarray (n,)
        In units of the response, squared.
    """
    design, covariances = fit.design, fit.effect_covariances()
    variance = fit.residual_sd() ** 2
    for factor in design.factors:
        variance = variance + np.einsum("nk,kl,nl->n", factor.Z, covariances[factor.name], factor.Z)
    return variance - np.einsum("np,pq,nq->n", design.X, fit.vcov.to_numpy(), design.X)


# --- influence ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Influence(Tabular):
    """What leaving out a row or a group would change.

    Parameters
    ----------
    unit : str
        "row", or the grouping factor or column whose values make the groups.
    change : DataFrame (G, p)
        Coefficients with all rows minus coefficients without the group; NaN where the other rows do not determine
        them.
    cooks : Series (G,)
        Cook's distance of the coefficients: ``change' vcov⁻¹ change / p``.
    se : Series (p,)
        Standard errors of the coefficients in the full fit.
    refit : bool
        Whether the variance parameters were estimated anew without each group.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> fit.influence("Subject").cooks.idxmax()
    '309'
    """

    unit: str
    change: pd.DataFrame
    cooks: pd.Series
    se: pd.Series
    refit: bool = False

    @property
    def dfbetas(self) -> pd.DataFrame:
        """Changes in units of the coefficients' standard errors."""
        return self.change / self.se

    def to_pandas(self) -> pd.DataFrame:
        """Return Cook's distance and the changes in standard errors, the most influential first.

        Returns
        -------
        DataFrame
            One row per group.
        """
        frame = pd.concat([self.cooks.rename("Cook's distance"), self.dfbetas], axis=1)
        return frame.sort_values("Cook's distance", ascending=False)

    def table(self, most: int = 10) -> Table:
        """Return the most influential ones as a table.

        Parameters
        ----------
        most : int, default 10
            How many.

        Returns
        -------
        Table
            Cook's distance, and each coefficient's change in standard errors.
        """
        how = "variance parameters estimated anew" if self.refit else "variance parameters as in the full fit"
        note = f"Coefficients: with all rows minus without, in standard errors; {how}."
        return Table(self.to_pandas().head(most), title=f"Influence by {self.unit}", notes=(note,), digits=3)

    def plot(self, most: int = 5, ax: Any = None) -> Any:
        """Draw Cook's distances and label the largest.

        Parameters
        ----------
        most : int, default 5
            How many labels.
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.diagnostic_plots import stems

        what = "row" if self.unit == "row" else f"level of {self.unit}"
        label = f"Cook's distance (one {what} left out)"
        return stems(self.cooks, label=label, most=most, ax=ax)


def influence(fit: LmmFit, by: str | None = None, *, refit: bool = False) -> Influence:
    """Return how the coefficients depend on single rows or groups.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    by : str, optional
        A grouping factor or a column of the model; single rows when absent.
    refit : bool, default False
        Estimate the variance parameters anew without each group. Without it they stay as they are, and the result is
        exact and needs no fit at all.

    Returns
    -------
    Influence
        Changes of the coefficients and Cook's distances.

    Raises
    ------
    DataError
        If there is no such factor or column, or it has one value only.

    References
    ----------
    Christensen, Pearson & Johnson (1992), *Technometrics* 34(1); Cook (1977), *Technometrics* 19(1).
    """
    refuse(fit.design.residuals, "influence()", NO_ROWS, correlated_only=True)
    labels, groups = _groups(fit.design, by)
    raw = residuals(fit)
    if refit:
        change = np.array([_change_by_refit(fit, rows) for rows in groups])
    elif by is None:
        change = row_changes(fit.solution, raw, fit.leverage)
    else:
        change = coefficient_changes(fit.solution, raw, groups)
    names = list(fit.design.coef_names)
    standard = (change @ fit.solution.RX.T) / fit.sigma
    cooks = (standard**2).sum(axis=1) / max(1, len(names))
    index = pd.Index(labels, name=by or "row")
    return Influence(
        unit=by or "row",
        change=pd.DataFrame(change, index=index, columns=names),
        cooks=pd.Series(cooks, index=index, name="cooks"),
        se=pd.Series(np.sqrt(np.diag(fit.vcov)), index=names),
        refit=refit,
    )


def _groups(design: Design, by: str | None) -> tuple[Sequence[Any], list[NDArray[np.intp]]]:
    """Return the label and the rows of each group."""
    if by is None:
        return [int(row) for row in design.rows], [np.array([i]) for i in range(design.n)]
    factors = {factor.name: factor for factor in design.factors}
    if by in factors:
        codes, labels = factors[by].member_codes, list(factors[by].members)
    elif by in design.data:
        codes, values = pd.factorize(design.data[by], sort=True)  # type: ignore[assignment]
        labels = [str(value) for value in values]
    else:
        names = [*factors, *map(str, design.data.columns)]
        hint = did_you_mean(by, names)
        raise DataError(f"there is no factor or column {by!r}.\n  There are: {listing(names)}. {hint}".rstrip())
    size = np.bincount(codes, minlength=len(labels))
    if np.count_nonzero(size) < 2:
        raise DataError(f"{by!r} has one value: leaving it out leaves nothing.")
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.cumsum(size)[:-1])
    return [label for label, count in zip(labels, size, strict=True) if count], [part for part in rows if len(part)]


def _change_by_refit(fit: LmmFit, left_out: NDArray[np.intp]) -> NDArray[np.float64]:
    from bayeslmm.frequentist.lmm_fit import estimate
    from bayeslmm.frequentist.optimize import Control

    kept = np.setdiff1d(np.arange(fit.n_obs), left_out)
    missing = np.full(len(fit.fixef), np.nan)
    if len(kept) <= len(fit.fixef) or len(independent_columns(fit.design.X[kept])) < len(fit.fixef):
        return missing
    try:
        design = subset(fit.design, kept)
        other = estimate(design, LmmKernel.from_design(design), Control(reml=fit.reml))
        return fit.solution.beta - other.solution.beta
    except BayesLmmError:
        return missing


def subset(design: Design, rows: NDArray[np.intp]) -> Design:
    """Return the design of some of the rows, with the levels that occur in them.

    Parameters
    ----------
    design : Design
        The design.
    rows : ndarray of intp
        Positions among its rows.

    Returns
    -------
    Design
        Levels of new data count as fitted ones.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> subset(design, np.arange(10)).factors[0].levels
    ('A', 'B')
    """

    def part(values: Any) -> Any:
        return None if values is None else np.ascontiguousarray(values[rows])

    return replace(
        design,
        y=part(design.y),
        X=part(design.X),
        terms=tuple(_subset_term(term, rows) for term in design.terms),
        weights=part(design.weights),
        offset=part(design.offset),
        survey_weights=rescaled(design.survey_weights, rows),
        rows=design.rows[rows],
        data=design.data.iloc[rows].reset_index(drop=True),
        trials=part(design.trials),
        residuals=None if design.residuals is None else design.residuals.take(rows),
    )


def _subset_term(term: GroupTerm, rows: NDArray[np.intp]) -> GroupTerm:
    present, codes = np.unique(term.codes[rows], return_inverse=True)
    labels = (*term.levels, *term.new_levels)
    return replace(
        term,
        Z=np.ascontiguousarray(term.Z[rows]),
        codes=codes.astype(np.int32),
        levels=tuple(labels[code] for code in present),
        new_levels=(),
    )


def cooks_distance(
    fit: LmmFit, by: str | None = None, *, of: Literal["coefficients", "fitted"] = "coefficients"
) -> pd.Series:
    """Return Cook's distances of rows or groups.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    by : str, optional
        A grouping factor or a column; single rows when absent.
    of : {"coefficients", "fitted"}, default "coefficients"
        Movement of the coefficients, or, for single rows, of the fitted values with their group effects: the latter is
        what lme4's `cooks.distance` gives, ``r² h / (p (1 - h))`` with standardised residuals r and leverages h.

    Returns
    -------
    Series
        Indexed by row of the caller's frame or by group.

    Raises
    ------
    DataError
        If `of` is not one of the two, or "fitted" is combined with groups.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> round(float(cooks_distance(fit, of="fitted").iloc[0]), 6)
    0.004963
    """
    if of == "coefficients":
        return influence(fit, by).cooks
    if of != "fitted":
        raise DataError(f'of={of!r} is not one of "coefficients", "fitted".')
    if by is not None:
        raise DataError('of="fitted" is for single rows; for groups use of="coefficients".')
    leverage = fit.leverage
    values = residuals(fit, "standardized") ** 2 * leverage / _share_left(leverage) / max(1, len(fit.fixef))
    return pd.Series(values, index=pd.Index(fit.design.rows, name="row"), name="cooks")


# --- collinearity ------------------------------------------------------------------------------------------------


def vif(fit: EstimatedFit) -> Table:
    """Return variance inflation factors, term by term.

    For a term of several columns it is Fox and Monette's generalised factor; its root to the power 1 / (2 df) compares
    terms of different size, and its square with the usual limits for a VIF.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    Table
        Columns GVIF, Df and GVIF^(1/(2 Df)).

    Raises
    ------
    DataError
        If there are fewer than two terms beside the intercept.

    References
    ----------
    Fox & Monette (1992), *J. Am. Stat. Assoc.* 87, 178-183.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("lang ~ IQ + SES + GS + COMB + (1 | class)", blm.datasets.load("nlschools"))
    >>> vif(fit).frame["GVIF"].round(2).to_dict()
    {'IQ': 1.1, 'SES': 1.1, 'GS': 1.0, 'COMB': 1.0}
    """
    terms = [term for term in TermContrasts(fit.design).terms if len(term.columns)]
    if len(terms) < 2:
        raise DataError("variance inflation needs two or more terms beside the intercept.")
    columns = np.concatenate([term.columns for term in terms])
    covariance = fit.vcov.to_numpy()[np.ix_(columns, columns)]
    scale = 1 / np.sqrt(np.diag(covariance))
    correlation = pd.DataFrame(covariance * np.outer(scale, scale), index=columns, columns=columns)
    rows = {}
    whole = np.linalg.slogdet(correlation.to_numpy())[1]
    for term in terms:
        rest = np.setdiff1d(columns, term.columns)
        own, others = correlation.loc[term.columns, term.columns], correlation.loc[rest, rest]
        value = float(np.exp(np.linalg.slogdet(own)[1] + np.linalg.slogdet(others)[1] - whole))
        rows[term.name] = (value, len(term.columns), value ** (1 / (2 * len(term.columns))))
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["GVIF", "Df", "GVIF^(1/(2 Df))"])
    return Table(frame, title="Variance inflation")


# --- quantiles ---------------------------------------------------------------------------------------------------


def residual_qq(fit: LmmFit, *, n_sim: int = 500, level: float = 0.95, seed: int | None = 0) -> QQ:
    """Return quantiles of the standardised residuals with a simulation envelope.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    n_sim : int, default 500
        Responses simulated from the fit; theta is not estimated anew. With more than 20,000 rows the residuals are
        drawn as independent normal values of mean zero and variance one, which they nearly are then.
    level : float, default 0.95
        Share of the simulations that lie within the band everywhere.
    seed : int, optional
        Makes the band reproducible.

    Returns
    -------
    QQ
        Ready to plot.

    References
    ----------
    Atkinson (1981), *Biometrika* 68(1); Myllymäki et al. (2017), *J. R. Stat. Soc. B* 79(2), for the global band.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> residual_qq(fit).outside
    0
    """
    refuse(fit.design.residuals, "plot_qq()", NO_ROWS, correlated_only=True)
    scale = fit.sigma / fit.residual_sd() / np.sqrt(_share_left(fit.leverage))
    keep = np.isfinite(scale)

    def values(y: NDArray[np.float64], solution: Any) -> NDArray[np.float64]:
        fitted = fit.design.X @ solution.beta + (0.0 if fit.design.offset is None else fit.design.offset)
        for factor, effects in zip(fit.design.factors, solution.b, strict=True):
            fitted = fitted + np.einsum("nk,nk->n", factor.Z, effects[factor.codes])
        return ((y - fitted) * scale / solution.sigma)[keep]

    assert fit.design.y is not None
    observed = values(fit.design.y, fit.solution)
    many = fit.n_obs > MANY_ROWS
    return _qq(fit, observed, fit.design.rows[keep], values, n_sim, level, seed, "standardised residual", many)


def effect_qq(
    fit: LmmFit,
    factor: str | None = None,
    effect: str | None = None,
    *,
    n_sim: int = 500,
    level: float = 0.95,
    seed: int | None = 0,
) -> QQ:
    """Return quantiles of standardised group effects with a simulation envelope.

    Each mode is divided by its own standard deviation under the model, which is smaller for levels with few rows.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    factor, effect : str, optional
        Grouping factor and effect; the first ones when absent.
    n_sim, level, seed
        As in `residual_qq`.

    Returns
    -------
    QQ
        Ready to plot.

    Raises
    ------
    DataError
        If there is no such factor or effect, or its variance is zero.

    References
    ----------
    Lange & Ryan (1989), *Ann. Stat.* 17(2), 624-642.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> effect_qq(fit).name
    'standardised Batch effect: Intercept'
    """
    refuse(fit.design.residuals, "plot_ranef_qq()", "Look at plot_caterpillar().", correlated_only=True)
    factor = fit.design.factors[0].name if factor is None else factor
    frame = fit.ranef[factor]
    if factor in fit.design.encoder.loadings:
        raise DataError(f"the effects of {factor} depend on each other: their quantiles say nothing of their shape.")
    effect = str(frame.columns[0]) if effect is None else check_effect(factor, effect, list(frame.columns))
    position = [entry.name for entry in fit.design.factors].index(factor)
    column = list(frame.columns).index(effect)
    sd = effect_sd(fit, position)[:, column]
    if not (sd > 0).any():
        raise DataError(f"the variance of {effect!r} by {factor!r} is estimated as zero: there is nothing to plot.")
    keep = sd > 0

    def values(y: NDArray[np.float64], solution: Any) -> NDArray[np.float64]:
        return (solution.b[position][:, column] / (sd * solution.sigma / fit.sigma))[keep]

    assert fit.design.y is not None
    observed = values(fit.design.y, fit.solution)
    name = f"standardised {factor} effect: {effect}"
    return _qq(fit, observed, np.asarray(frame.index)[keep], values, n_sim, level, seed, name)


def effect_sd(fit: LmmFit, position: int) -> NDArray[np.float64]:
    """Return the standard deviation of each mode of a factor under the model.

    The variance of a mode is that of the effect less its conditional variance, up to the estimation of the
    coefficients.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    position : int
        The factor.

    Returns
    -------
    ndarray (J, K)
        In units of the effects; zero where there is no variance.
    """
    name = fit.design.factors[position].name
    prior = np.diag(fit.effect_covariances()[name])
    left = np.einsum("jkk->jk", fit.ranef.cov[name])
    variance = prior - left
    return np.sqrt(np.where(variance > 1e-10 * prior, variance, 0.0))


def _qq(
    fit: LmmFit,
    observed: NDArray[np.float64],
    labels: NDArray[Any],
    values: Values,
    n_sim: int,
    level: float,
    seed: int | None,
    name: str,
    independent: bool = False,
) -> QQ:
    def simulate(rng: np.random.Generator, at: NDArray[np.intp]) -> NDArray[np.float64]:
        if independent:
            return _centred(normal_order_statistics(rng, n_sim, len(observed), at), at)
        return _refitted(fit, values, rng, n_sim, at)

    return _with_band(observed, labels, simulate, n_sim, level, seed, name)


def normal_qq(
    observed: NDArray[np.float64], labels: NDArray[Any], *, n_sim: int, level: float, seed: int | None, name: str
) -> QQ:
    """Return quantiles of values that should be independent and standard normal.

    Parameters
    ----------
    observed : ndarray (n,)
        The values.
    labels : ndarray (n,)
        What each belongs to.
    n_sim : int
        Samples behind the band.
    level : float
        Share of the samples that lie within the band everywhere.
    seed : int or None
        Makes the band reproducible.
    name : str
        What the values are.

    Returns
    -------
    QQ
        Ready to plot.
    """

    def simulate(rng: np.random.Generator, at: NDArray[np.intp]) -> NDArray[np.float64]:
        return normal_order_statistics(rng, n_sim, len(observed), at)

    return _with_band(observed, labels, simulate, n_sim, level, seed, name)


def _with_band(
    observed: NDArray[np.float64],
    labels: NDArray[Any],
    simulate: Callable[[np.random.Generator, NDArray[np.intp]], NDArray[np.float64]],
    n_sim: int,
    level: float,
    seed: int | None,
    name: str,
) -> QQ:
    from scipy.special import ndtri

    from bayeslmm.frequentist.lmm_fit import check_level

    if n_sim < 20:
        raise DataError(f"n_sim={n_sim}: a band needs 20 simulations or more.")
    order = np.argsort(observed)
    n = len(observed)
    at = _envelope_ranks(n)
    lower, upper = global_band(simulate(np.random.default_rng(seed), at), check_level(level))
    theoretical = ndtri((np.arange(n) + 0.5) / n)
    ordered = observed[order]
    low, high = (np.interp(theoretical, theoretical[at], side) for side in (lower, upper))
    return QQ(
        theoretical=theoretical,
        observed=ordered,
        labels=labels[order],
        at=theoretical[at],
        lower=lower,
        upper=upper,
        level=level,
        outside=int(np.count_nonzero((ordered < low) | (ordered > high))),
        name=name,
    )


def _envelope_ranks(n: int) -> NDArray[np.intp]:
    """Return the ranks at which a band is computed: all of them in the tails, some between."""
    tail = np.arange(min(n, ENVELOPE_TAIL))
    between = np.linspace(0, n - 1, min(n, ENVELOPE_POINTS)).round().astype(np.intp)
    return np.unique(np.concatenate([tail, between, n - 1 - tail]))


def _centred(ordered: NDArray[np.float64], at: NDArray[np.intp]) -> NDArray[np.float64]:
    """Give each sample mean zero and variance one, as residuals have: the fit follows the level and the spread."""
    ends = np.concatenate([[at[0]], (at[1:] + at[:-1]) / 2, [at[-1]]])
    weights = np.diff(ends) / (ends[-1] - ends[0])
    centred = ordered - (ordered @ weights)[:, None]
    return centred / np.sqrt(centred**2 @ weights)[:, None]


def _refitted(
    fit: LmmFit, values: Values, rng: np.random.Generator, n_sim: int, at: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return sorted values of responses simulated from the fit, at some ranks."""
    simulated = np.empty((n_sim, len(at)))
    for row in simulated:
        y = simulate_response(fit, rng)
        row[:] = np.sort(values(y, solve(fit.theta, fit.kernel.with_response(y), reml=fit.reml)))[at]
    return simulated


def normal_order_statistics(rng: np.random.Generator, n_sim: int, n: int, at: NDArray[np.intp]) -> NDArray[np.float64]:
    """Draw some of the order statistics of n standard normal values without drawing the values.

    Parameters
    ----------
    rng : numpy Generator
        Source of randomness.
    n_sim, n : int
        Samples, and values in each.
    at : ndarray (m,) of intp
        Ranks, from 0, increasing.

    Returns
    -------
    ndarray (n_sim, m)
        Quantiles of partial sums of exponentials, which are sums of gammas between the ranks.

    References
    ----------
    Devroye (1986), *Non-Uniform Random Variate Generation*, section V.3.

    Examples
    --------
    >>> import numpy as np
    >>> normal_order_statistics(np.random.default_rng(1), 2, 1_000_000, np.array([0, 999_999])).shape
    (2, 2)
    """
    from scipy.special import ndtri

    sums = rng.gamma(np.diff(at, prepend=-1, append=n), size=(n_sim, len(at) + 1)).cumsum(axis=1)
    return ndtri(sums[:, :-1] / sums[:, -1:])


def global_band(simulated: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a band that holds a share of the simulated curves as a whole.

    Parameters
    ----------
    simulated : ndarray (S, m)
        One curve per row.
    level : float
        Share of the curves within the band at all points.

    Returns
    -------
    lower, upper : ndarray (m,)
        Order statistics of the curves at each point.

    References
    ----------
    Myllymäki, Mrkvička, Grabarnik, Seijo & Hahn (2017), *J. R. Stat. Soc. B* 79(2), the extreme rank envelope.

    Examples
    --------
    >>> import numpy as np
    >>> curves = np.arange(100.0)[:, None] + np.zeros((1, 3))
    >>> [side.tolist() for side in global_band(curves, 0.9)]
    [[4.0, 4.0, 4.0], [95.0, 95.0, 95.0]]
    """
    count = len(simulated)
    ordered = np.sort(simulated, axis=0)
    ranks = simulated.argsort(axis=0).argsort(axis=0)
    extreme = np.minimum(ranks, count - 1 - ranks).min(axis=1)
    k = int(np.sort(extreme)[int(np.floor((1 - level) * count))])
    return ordered[k], ordered[count - 1 - k]
