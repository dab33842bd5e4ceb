"""Whole groups: their likelihood with the group's own effects integrated out, and their ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.contract import check_effect
from bayeslmm.errors import BayesLmmError, DataError, did_you_mean, listing
from bayeslmm.formula.design import refuse_survey_weights
from bayeslmm.formula.residuals import refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Factor

CHUNK_NUMBERS = 1 << 22


def factor_named(post: Posterior, name: str) -> Factor:
    """Return a grouping factor by name.

    Parameters
    ----------
    post : Posterior
        The posterior.
    name : str
        The factor.

    Returns
    -------
    Factor
        The factor.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    for factor in post.design.factors:
        if factor.name == name:
            return factor
    names = [factor.name for factor in post.design.factors]
    raise DataError(f"there is no grouping factor {name!r}.\n  Factors: {listing(names)}. {did_you_mean(name, names)}")


def effect_draws(
    post: Posterior, group: str, effect: str, error: type[BayesLmmError] = DataError
) -> tuple[Factor, NDArray[np.float64]]:
    """Return a grouping factor and the draws of one of its effects.

    Parameters
    ----------
    post : Posterior
        The posterior.
    group : str
        The factor.
    effect : str
        The effect.
    error : type, default DataError
        What is raised where the factor has no such effect.

    Returns
    -------
    factor : Factor
        The factor.
    draws : ndarray (S, J)
        One column for each of its members.
    """
    factor = factor_named(post, group)
    known = factor.shown_effects
    check_effect(group, effect, known, error)
    return factor, factor.of_members(post.draws(f"b_{group}"))[:, :, known.index(effect)]


def group_log_likelihood(post: Posterior, group: str) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Return the log likelihood of all rows of each level, the level's own effects integrated out.

    Gaussian models exactly, others by adaptive quadrature (`bayeslmm.bayes.group_integrals`). With r the residual of
    coefficients and of the other factors' effects, C = Z'WZ and Lambda the relative root of the effects' covariance,
    log p(y_j) = -n_j/2 log(2 pi sigma²) + ½ Σ log w - ½ log|I + Λ'CΛ|
    - ½ (r'Wr - |L⁻¹Λ'Z'Wr|²) / sigma².

    Parameters
    ----------
    post : Posterior
        The posterior.
    group : str
        A grouping factor.

    Returns
    -------
    values : ndarray (S, J)
        Log densities.
    levels : ndarray (J,)
        Names of the levels.

    Raises
    ------
    DataError
        If the model has no such factor, or its rows are not independent given the effects.

    References
    ----------
    Merkle, Furr & Rabe-Hesketh (2019), *Psychometrika* 84(3).
    """
    refuse_survey_weights(post.design, "loo(group=)", "Compare the models without the weights.")
    refuse(post.design.residuals, "loo(group=)", "loo() of single rows works where their SDs differ only.")
    if post.design.condensation is not None:
        raise DataError("the rows of this model stay in their source: loo(group=) needs them in memory.")
    factor, design = factor_named(post, group), post.design
    if factor.loading is not None:
        raise DataError(
            f"the effects of {group!r} depend on each other: leaving out one of its levels leaves no group."
        )
    if not post.response.is_gaussian_identity or design.limits is not None or design.auxiliary:
        from bayeslmm.bayes.group_integrals import integrated_log_likelihood

        return integrated_log_likelihood(post, factor), np.asarray(factor.levels, dtype=object)
    others = [other.name for other in design.factors if other.name != group]
    levels, width = len(factor.levels), factor.Z.shape[1]
    weights = np.ones(len(factor.codes)) if design.weights is None else np.asarray(design.weights)
    products = np.zeros((levels, width, width))
    np.add.at(products, factor.codes, weights[:, None, None] * factor.Z[:, :, None] * factor.Z[:, None, :])
    sizes = np.bincount(factor.codes, minlength=levels)
    log_weights = np.bincount(factor.codes, np.log(weights), minlength=levels)
    roots = np.linalg.cholesky(post.effect_covariances()[group] + 1e-300 * np.eye(width))
    sigma = post.draws("sigma")
    values = np.empty((post.n_draws, levels))
    step = max(1, CHUNK_NUMBERS // len(factor.codes))
    for start in range(0, post.n_draws, step):
        chosen = np.arange(start, min(start + step, post.n_draws))
        residual = np.asarray(design.y) - post._linear(design, chosen, "error", others, None)
        scaled = weights * residual
        square = by_level(factor, scaled * residual)
        moments = np.stack([by_level(factor, scaled * factor.Z[:, k]) for k in range(width)], axis=-1)
        root = roots[chosen] / sigma[chosen, None, None]
        inner = np.einsum("sla,jlm,smb->sjab", root, products, root) + np.eye(width)
        lower = np.linalg.cholesky(inner)
        pulled = np.linalg.solve(lower, np.einsum("sla,sjl->sja", root, moments)[..., None])[..., 0]
        log_det = np.log(np.einsum("sjkk->sjk", lower)).sum(axis=2)
        variance = np.square(sigma[chosen, None])
        quadratic = (square - np.square(pulled).sum(axis=2)) / variance
        values[chosen] = -0.5 * sizes * np.log(2 * np.pi * variance) + 0.5 * log_weights - log_det - 0.5 * quadratic
    return values, np.asarray(factor.levels, dtype=object)


def by_level(factor: Factor, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums (S, J) over the rows of each level.

    Parameters
    ----------
    factor : Factor
        Codes of the rows.
    rows : ndarray (S, n)
        Values.

    Returns
    -------
    ndarray (S, J)
        Sums.
    """
    levels = len(factor.levels)
    flat = factor.codes + levels * np.arange(len(rows))[:, None]
    return np.bincount(flat.ravel(), rows.ravel(), minlength=levels * len(rows)).reshape(len(rows), levels)


def group_ranks(post: Posterior, group: str, effect: str, level: float) -> pd.DataFrame:
    """Return the league table of a factor's levels with its uncertainty; rank 1 is the largest effect.

    Parameters
    ----------
    post : Posterior
        The posterior.
    group : str
        A grouping factor.
    effect : str
        One of its effects.
    level : float
        Probability inside the interval of the rank.

    Returns
    -------
    DataFrame
        Columns `effect`, `rank` (mean), `lower`, `upper`, `first` (probability of rank 1), best level first.

    Raises
    ------
    DataError
        If there is no such factor or effect.
    """
    factor, draws = effect_draws(post, group, effect)
    ranks = (-draws).argsort(axis=1).argsort(axis=1) + 1
    lower, upper = np.quantile(ranks, [(1 - level) / 2, (1 + level) / 2], axis=0, method="nearest")
    frame = pd.DataFrame(
        {
            "effect": draws.mean(axis=0),
            "rank": ranks.mean(axis=0),
            "lower": lower.astype(int),
            "upper": upper.astype(int),
            "first": (ranks == 1).mean(axis=0),
        },
        index=pd.Index(factor.members, name=group),
    )
    return frame.sort_values("rank")
