"""A posterior as data frames with the column names of R's broom.mixed, and its residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.bayes.responses import residual_scale
from bayeslmm.contract import tidy_effects
from bayeslmm.errors import ComparisonError, DataError, listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Factor

EFFECTS: tuple[str, ...] = ("fixed", "ran_pars", "ran_vals", "ran_coefs")
RESIDUALS: tuple[str, ...] = ("raw", "pearson")


def tidy(
    post: Posterior,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    *,
    conf_int: bool = True,
    level: float = 0.95,
    exp: bool = False,
) -> pd.DataFrame:
    """Return posterior means, SDs and central intervals in one long frame, with broom.mixed's column names.

    Parameters
    ----------
    post : Posterior
        The posterior.
    effects : str or sequence of str, default ("fixed", "ran_pars")
        Which: "fixed" coefficients, "ran_pars" standard deviations, correlations and further parameters, "ran_vals"
        group effects, "ran_coefs" coefficients of each level (fixed plus group effect).
    conf_int : bool, default True
        Add `conf.low` and `conf.high`.
    level : float, default 0.95
        Probability inside the interval.
    exp : bool, default False
        Exponentiate the draws of the coefficients: odds ratios for a logit, ratios for a log link.

    Returns
    -------
    DataFrame
        Columns `effect`, `group`, `level` (for group effects), `term`, `estimate`, `std.error`, `conf.low`,
        `conf.high`.

    Raises
    ------
    DataError
        If there is no such kind of effect.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
    >>> tidy(post)["term"].tolist()
    ['Intercept', 'sd__Intercept', 'sd__Observation']
    """
    wanted = tidy_effects(effects, EFFECTS)
    frame = post.parameter_frame(level)
    makers = {
        "fixed": lambda: _exponentiated(post, level) if exp else _fixed(frame),
        "ran_pars": lambda: _variance_parameters(post, frame),
        "ran_vals": lambda: _group_effects(post, level),
        "ran_coefs": lambda: _group_coefficients(post, level),
    }
    found = pd.concat([makers[name]() for name in wanted], ignore_index=True)
    order = ["effect", "group", "level", "term", "estimate", "std.error"]
    order += ["conf.low", "conf.high"] if conf_int else []
    return found[[name for name in order if name in found]]


def _columns(frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    names = {"estimate": "estimate", "se": "std.error", "lower": "conf.low", "upper": "conf.high"}
    return {theirs: frame[ours].to_numpy() for ours, theirs in names.items()}


def _fixed(frame: pd.DataFrame) -> pd.DataFrame:
    own = frame[frame["kind"] == "fixed"]
    return pd.DataFrame({"effect": "fixed", "group": None, "term": list(own.index), **_columns(own)})


def _variance_parameters(post: Posterior, frame: pd.DataFrame) -> pd.DataFrame:
    names: dict[str, tuple[str, str]] = {}
    for factor in post.design.factors:
        for i, first in enumerate(factor.shown_effects):
            names[f"sd_{factor.name}[{first}]"] = (factor.name, f"sd__{first}")
            for second in factor.shown_effects[i + 1 :]:
                names[f"corr_{factor.name}[{first},{second}]"] = (factor.name, f"cor__{first}.{second}")
    names["sigma"] = ("Residual", "sd__Observation")
    own = frame[frame["kind"] != "fixed"]
    pairs = [names.get(name, (None, name)) for name in own.index]
    groups, terms = [group for group, _ in pairs], [term for _, term in pairs]
    return pd.DataFrame({"effect": "ran_pars", "group": groups, "term": terms, **_columns(own)})


def _exponentiated(post: Posterior, level: float) -> pd.DataFrame:
    names = list(post.design.coef_names)
    return pd.DataFrame({"effect": "fixed", "group": None, "term": names, **_summed(np.exp(post.draws("beta")), level)})


def _summed(draws: NDArray[np.float64], level: float) -> dict[str, NDArray[np.float64]]:
    """Return mean, SD and central interval over the draws (S, ...), flattened."""
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    columns = {"estimate": draws.mean(axis=0), "std.error": draws.std(axis=0, ddof=1)}
    return {name: part.ravel() for name, part in (columns | {"conf.low": lower, "conf.high": upper}).items()}


def _group_effects(post: Posterior, level: float) -> pd.DataFrame:
    parts = []
    for factor in post.design.factors:
        draws = factor.of_members(post.draws(f"b_{factor.name}").astype(np.float64, copy=False))
        parts.append(_of_levels("ran_vals", factor, factor.shown_effects, draws, level))
    return pd.concat(parts, ignore_index=True)


def _group_coefficients(post: Posterior, level: float) -> pd.DataFrame:
    """Return the coefficients that vary by level, group effects added; an effect without coefficient varies about 0."""
    beta, names = post.draws("beta"), list(post.design.coef_names)
    parts = []
    for factor in post.design.factors:
        draws = factor.of_members(post.draws(f"b_{factor.name}").astype(np.float64, copy=False))
        for position, effect in enumerate(factor.shown_effects):
            own = draws[:, :, [position]]
            if effect in names:
                own = own + beta[:, names.index(effect), None, None]
            parts.append(_of_levels("ran_coefs", factor, (effect,), own, level))
    return pd.concat(parts, ignore_index=True)


def _of_levels(
    kind: str, factor: Factor, effects: Sequence[str], draws: NDArray[np.float64], level: float
) -> pd.DataFrame:
    levels = len(factor.members)
    columns: dict[str, Any] = {
        "effect": kind,
        "group": factor.name,
        "level": np.repeat(np.asarray(factor.members, dtype=object), len(effects)),
        "term": np.tile(np.asarray(effects, dtype=object), levels),
    }
    return pd.DataFrame(columns | _summed(draws, level))


def glance(post: Posterior, *, looic: bool = False) -> pd.DataFrame:
    """Return one row about the whole posterior, with broom.mixed's column names for a Bayesian model.

    Parameters
    ----------
    post : Posterior
        The posterior.
    looic : bool, default False
        Add leave-one-out cross-validation: `looic`, `elpd_loo`, `se_elpd_loo`, `p_loo`.

    Returns
    -------
    DataFrame
        Columns `algorithm`, `pss` (draws of all chains), `nobs`, `sigma`, and those of `looic`.
    """
    row = {"algorithm": post.engine, "pss": post.n_draws, "nobs": post.design.n, "sigma": post.sigma}
    if looic:
        loo = post.loo()
        row |= {"looic": -2 * float(loo.elpd), "elpd_loo": float(loo.elpd), "se_elpd_loo": float(loo.se)}
        row |= {"p_loo": float(loo.p)}
    return pd.DataFrame([row])


def residuals(post: Posterior, kind: Literal["raw", "pearson"] = "raw") -> NDArray[np.float64]:
    """Return observed minus posterior mean expected response, group effects included.

    Parameters
    ----------
    post : Posterior
        A posterior of a family with a mean for each row; responses of binomial families are proportions.
    kind : {"raw", "pearson"}, default "raw"
        In units of the response, or divided by the SD of the row's response: for Gaussian models the posterior mean of
        sigma over the root of the weight, for others by the family's variance at the expected response.

    Returns
    -------
    ndarray (n,)
        One for each row used.

    Raises
    ------
    ComparisonError
        If the response is ordered, or the family has no variance function here.
    DataError
        If there is no such kind.
    """
    if kind not in RESIDUALS:
        raise DataError(f"there are no residuals of kind {kind!r}. Kinds: {listing(RESIDUALS)}.")
    if post.response.row.variance is None:
        raise ComparisonError(f"responses of the family {post.family!r} have no mean and variance per row here.")
    raw = np.asarray(post.design.y, dtype=np.float64) - post.predict()
    if kind == "raw":
        return raw
    if post.response.is_gaussian_identity:
        return raw / residual_scale(post, post.design, np.arange(post.n_draws)).mean(axis=0)
    weights = np.ones(post.design.n) if post.design.weights is None else post.design.weights
    own, size = post.response.parameter, post.design.trials
    phi = float(post.draws(own).mean()) if own else 1.0
    variance = post.response.variance(post.predict(), phi, 1.0 if size is None else size)
    return raw * np.sqrt(weights / variance)


def augment(post: Posterior) -> pd.DataFrame:
    """Return the rows used with `.fitted`, `.se.fit` and `.resid`, broom.mixed's names for a Bayesian model.

    Parameters
    ----------
    post : Posterior
        A posterior of a family with a mean for each row.

    Returns
    -------
    DataFrame
        The columns of the formula, then posterior mean and SD of the expected response and the raw residual. The index
        is the position of the row in the caller's frame.

    Raises
    ------
    ComparisonError
        If the response is ordered, or the family has no variance function here.
    """
    raw = residuals(post)
    fitted = post.predict(interval="confidence")
    added = {".fitted": fitted.iloc[:, 0].to_numpy(), ".se.fit": fitted["se"].to_numpy(), ".resid": raw}
    frame = pd.concat([post.design.data.reset_index(drop=True), pd.DataFrame(added)], axis=1)
    return frame.set_index(pd.Index(post.design.rows, name="row"))
