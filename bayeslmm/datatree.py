"""The dimensions and names that draws of every engine share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design

SAMPLE_DIMS = ("chain", "draw")
THRESHOLD_DIM = "threshold_dim"


def posterior_dataset(
    design: Design,
    *,
    beta: NDArray[np.float64],
    sd: Mapping[str, NDArray[np.float64]],
    corr: Mapping[str, NDArray[np.float64]],
    effects: Mapping[str, NDArray[np.floating[Any]]],
    sigma: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Return draws labelled `beta[coef]`, `sd_<g>`, `corr_<g>`, `b_<g>[<g>, <g>_effect]` and `sigma`.

    Parameters
    ----------
    design : Design
        Names of coefficients, factors, levels and effects.
    beta : ndarray (C, D, p)
        Coefficients by chain and draw.
    sd : mapping of str to ndarray (C, D, K)
        Standard deviations by grouping factor.
    corr : mapping of str to ndarray (C, D, K, K)
        Correlations, for factors that have any.
    effects : mapping of str to ndarray (C, D, J, K)
        Group effects by grouping factor.
    sigma : ndarray (C, D), optional
        Residual standard deviation.

    Returns
    -------
    xarray.Dataset
        With named dimensions and coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> ds = posterior_dataset(
    ...     design, beta=np.zeros((1, 2, 1)), sd={"Batch": np.ones((1, 2, 1))}, corr={},
    ...     effects={"Batch": np.zeros((1, 2, 6, 1))}, sigma=np.ones((1, 2)),
    ... )
    >>> ds["b_Batch"].dims
    ('chain', 'draw', 'Batch', 'Batch_effect')
    """
    import xarray as xr

    chains, draws = beta.shape[:2]
    coords: dict[str, object] = {
        "chain": np.arange(chains),
        "draw": np.arange(draws),
        "coef": list(design.coef_names),
    }
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.floating[Any]]]] = {"beta": ((*SAMPLE_DIMS, "coef"), beta)}
    for factor in design.factors:
        name, effect = factor.name, f"{factor.name}_effect"
        coords[name] = list(factor.levels)
        coords[effect] = list(factor.effects)
        variables[f"sd_{name}"] = ((*SAMPLE_DIMS, effect), sd[name])
        if name in corr:
            coords[f"{effect}_bis"] = list(factor.effects)
            variables[f"corr_{name}"] = ((*SAMPLE_DIMS, effect, f"{effect}_bis"), corr[name])
        variables[f"b_{name}"] = ((*SAMPLE_DIMS, name, effect), effects[name])
    if sigma is not None:
        variables["sigma"] = (SAMPLE_DIMS, sigma)
    return xr.Dataset(variables, coords=coords)


def sd_and_corr(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split covariance matrices into standard deviations and correlations.

    Parameters
    ----------
    covariance : ndarray (..., K, K)
        Symmetric, positive semi-definite.

    Returns
    -------
    sd : ndarray (..., K)
        Standard deviations.
    corr : ndarray (..., K, K)
        Correlations; 0 where a standard deviation is 0, 1 on the diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> sd, corr = sd_and_corr(np.array([[4.0, 1.0], [1.0, 1.0]]))
    >>> sd, corr[0, 1]
    (array([2., 1.]), np.float64(0.5))
    """
    sd = np.sqrt(np.einsum("...kk->...k", covariance))
    scale = sd[..., :, None] * sd[..., None, :]
    corr = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    diagonal = np.arange(covariance.shape[-1])
    corr[..., diagonal, diagonal] = 1.0
    return sd, corr
