"""Intervals of every parameter: Wald, profile likelihood, parametric bootstrap; SDs or variances as the caller says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import ComparisonError
from bayeslmm.frequentist.bootstrap import IntervalKind, bootstrap, check_parameters
from bayeslmm.frequentist.tails import t_quantile

if TYPE_CHECKING:
    from bayeslmm.frequentist.estimated import EstimatedFit

METHODS = ("wald", "profile", "boot")


def confint(
    fit: EstimatedFit,
    level: float = 0.95,
    *,
    method: Literal["wald", "profile", "boot"] = "wald",
    parameters: str | Sequence[str] | None = None,
    scale: Literal["sd", "variance"] = "sd",
    ddf: str | None = None,
    n: int = 1000,
    kind: IntervalKind = "percentile",
    seed: int | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Return intervals of the parameters of a fit.

    Parameters
    ----------
    fit : LmmFit or GlmmFit
        The fit.
    level : float, default 0.95
        Coverage.
    method : {"wald", "profile", "boot"}, default "wald"
        Wald intervals are made on the log scale for standard deviations and on Fisher's z for correlations. Profiles
        are of the ML criterion; of a generalised fit, of its Laplace or quadrature deviance.
    parameters : str or sequence of str, optional
        Which, as named in `parameter_frame`; all when absent.
    scale : {"sd", "variance"}, default "sd"
        Give standard deviations, or variances under the names ``var_...`` and ``sigma2``.
    ddf : str, optional
        For Wald intervals of coefficients: degrees of freedom of a t interval; normal when absent.
    n, kind, seed, workers, progress
        Of the bootstrap: replicates, "percentile", "basic" or "studentised", and how it runs.

    Returns
    -------
    DataFrame
        Columns `lower` and `upper`.

    Raises
    ------
    ComparisonError
        If a method, scale or parameter is not known.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> confint(fit, method="profile", scale="variance").round(1).loc["sigma2"].tolist()
    [1461.5, 4577.6]
    """
    if method not in METHODS:
        raise ComparisonError(f'method={method!r} is not one of "wald", "profile", "boot".')
    if scale not in ("sd", "variance"):
        raise ComparisonError(f'scale={scale!r} is not one of "sd", "variance".')
    if ddf is not None and method != "wald":
        raise ComparisonError("ddf belongs to Wald intervals; profile and bootstrap need no degrees of freedom.")
    kinds = fit.parameter_frame()["kind"]
    known = list(kinds.index)
    names = check_parameters(known, parameters if parameters is None or isinstance(parameters, str) else [*parameters])
    if method == "profile":
        limits = fit.profile_limits(None if parameters is None else names, level)
    elif method == "boot":
        replicates = bootstrap(fit, n, seed=seed, workers=workers, progress=progress, studentise=kind == "studentised")
        limits = replicates.confint(level, kind).loc[names]
    else:
        limits = _wald(fit, level, ddf).loc[names]
    limits = limits.rename_axis("parameter")
    return _as_variances(limits, kinds) if scale == "variance" else limits


def _wald(fit: EstimatedFit, level: float, ddf: str | None) -> pd.DataFrame:
    frame = fit.parameter_frame(level)[["lower", "upper"]].copy()
    if ddf is None:
        return frame
    method = fit.denominator(ddf)
    p = len(fit.beta)
    half = t_quantile(0.5 + level / 2, method.df(np.eye(p))) * np.sqrt(np.diag(method.vcov))
    frame.iloc[:p, 0] = fit.beta - half
    frame.iloc[:p, 1] = fit.beta + half
    return frame


def _as_variances(limits: pd.DataFrame, kinds: pd.Series) -> pd.DataFrame:
    """Square the limits of standard deviations and name them so."""
    out = limits.copy()
    renamed = []
    for position, name in enumerate(limits.index):
        if kinds[name] in ("sd", "sigma"):
            out.iloc[position] = limits.iloc[position] ** 2
        renamed.append({"sd": "var" + name.removeprefix("sd"), "sigma": "sigma2"}.get(kinds[name], name))
    out.index = pd.Index(renamed, name="parameter")
    return out
