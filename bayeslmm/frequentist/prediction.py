"""Standard errors of predictions from a REML or ML fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.likelihood import prediction
from bayeslmm.predict import check_new_levels, included_factors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.contract import NewLevels
    from bayeslmm.formula.design import Design
    from bayeslmm.frequentist.lmm_fit import LmmFit


def prediction_variance(
    fit: LmmFit, design: Design, *, new_levels: NewLevels = "error", include: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Return the variance of each row's linear predictor, with theta and sigma at their estimates.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    design : Design
        Rows to predict.
    new_levels : {"error", "zero", "sample"}, default "error"
        "sample" adds the variance of the effects of unseen levels.
    include : sequence of str, optional
        Grouping factors that count; all when absent.

    Returns
    -------
    ndarray (n,)
        In units of the response, squared.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> mean_only = prediction_variance(fit, fit.design, include=[])
    >>> bool(abs(mean_only[0] - fit.vcov.iloc[0, 0]) < 1e-8)
    True
    """
    check_new_levels(design, new_levels, include)
    counted = {factor.name for factor in included_factors(design, include)}
    factors = design.factors
    variance = fit.sigma**2 * prediction.prediction_variance(
        fit.solution,
        design.X,
        [factor.Z if factor.name in counted else np.zeros_like(factor.Z) for factor in factors],
        [factor.codes for factor in factors],
    )
    if new_levels == "sample":
        covariances = fit.effect_covariances()
        for factor in factors:
            fresh = factor.codes >= len(factor.levels)
            if factor.name in counted and fresh.any():
                z = factor.Z[fresh]
                variance[fresh] += np.einsum("nk,kl,nl->n", z, covariances[factor.name], z)
    return variance
