"""From an engine's arrays to a labelled DataTree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.coordinates import Coordinates
from bayeslmm.bayes.priors import is_correlated
from bayeslmm.datatree import posterior_dataset, sd_and_corr

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.bayes.logposterior import LogPosterior
    from bayeslmm.bayes.marginal import Draws
    from bayeslmm.formula.design import Design


def label_draws(density: LogPosterior, raw: Draws) -> xr.DataTree:
    """Return the draws of the exact engine in the dimensions all engines share.

    Parameters
    ----------
    density : LogPosterior
        What was sampled.
    raw : Draws
        The draws.

    Returns
    -------
    xarray.DataTree
        Groups `posterior`, `sample_stats`, `observed_data` and `constant_data`.
    """
    import xarray as xr

    design = density.design
    own = np.ascontiguousarray(raw.x[..., : density.coordinates.size])
    sd, corr, sigma = variance_draws(density.coordinates, own)
    names = [factor.name for factor in design.factors]
    correlated = {term.factor for term in design.terms if is_correlated(term)}
    posterior = posterior_dataset(
        design,
        beta=raw.beta,
        sd=dict(zip(names, sd, strict=True)),
        corr={name: value for name, value in zip(names, corr, strict=True) if name in correlated},
        effects=raw.effects,
        sigma=sigma,
    )
    if density.residual is not None:
        further = density.residual.natural(raw.x[..., density.coordinates.size :])
        posterior = posterior.assign(residual_variables(design, further))
        posterior = posterior.assign_coords(residual_coords(design))
    chains, draws = raw.x.shape[:2]
    statistics = xr.Dataset(
        {name: (("chain", "draw"), values) for name, values in raw.statistics.items()},
        coords={"chain": np.arange(chains), "draw": np.arange(draws)},
    )
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": statistics, **data_groups(design)})


def residual_coords(design: Design) -> dict[str, list[str]]:
    """Return the coordinate of the levels whose residual SD has a ratio to sigma.

    Parameters
    ----------
    design : Design
        The formula met by data.

    Returns
    -------
    dict
        Empty where there are none.
    """
    levels = () if design.residuals is None else design.residuals.levels[1:]
    return {"residual_level": list(levels)} if levels else {}


def residual_variables(design: Design, values: NDArray[np.float64]) -> dict[str, tuple[Any, ...]]:
    """Return draws of ratios and correlation of residuals under the names all engines share.

    Parameters
    ----------
    design : Design
        The formula met by data.
    values : ndarray (C, D, k)
        Ratios, then the correlation.

    Returns
    -------
    dict
        `sigma_ratio[residual_level]` and `rho`, as far as the model has them.
    """
    assert design.residuals is not None
    count = max(0, len(design.residuals.levels) - 1)
    found: dict[str, tuple[Any, ...]] = {}
    if count:
        found["sigma_ratio"] = (("chain", "draw", "residual_level"), values[..., :count])
    if values.shape[-1] > count:
        found["rho"] = (("chain", "draw"), values[..., count])
    return found


def data_groups(design: Design) -> dict[str, xr.Dataset]:
    """Return the groups that hold the data: the response, and what stands beside it.

    Parameters
    ----------
    design : Design
        The formula met by data.

    Returns
    -------
    dict of str to Dataset
        `observed_data` and `constant_data`.
    """
    import xarray as xr

    if design.condensation is not None:
        return {}  # the rows stay in their source
    rows = np.asarray(design.rows)
    constant: dict[str, tuple[tuple[str, ...], NDArray[np.float64]]] = {"X": (("obs", "coef"), design.X)}
    for name in ("weights", "offset", "trials", "survey_weights"):
        values = getattr(design, name)
        if values is not None:
            constant[name] = (("obs",), values)
    coords = {"obs": rows, "coef": list(design.coef_names)}
    return {
        "observed_data": xr.Dataset({"y": (("obs",), design.y)}, coords={"obs": rows}),
        "constant_data": xr.Dataset(constant, coords=coords),
    }


def variance_draws(
    where: Coordinates, x: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], NDArray[np.float64]]:
    """Return standard deviations, correlations and sigma of each sampled vector.

    Parameters
    ----------
    where : Coordinates
        What the vector means.
    x : ndarray (C, D, d)
        Sampled vectors.

    Returns
    -------
    sd : list of ndarray (C, D, K)
        One per factor.
    corr : list of ndarray (C, D, K, K)
        One per factor.
    sigma : ndarray (C, D)
        Residual standard deviation.
    """
    shape = x.shape[:2]
    points = np.ascontiguousarray(x.reshape(-1, x.shape[2]))
    flat, scales, _, _ = where.unpack_all(points)
    sigma = scales[:, -1]
    sds, corrs = [], []
    for start, k in zip(where.layout.arrays.template_start, where.layout.n_effects, strict=True):
        root = flat[:, start : start + k * k].reshape(-1, k, k) * sigma[:, None, None]
        sd, corr = sd_and_corr(root @ root.transpose(0, 2, 1))
        sds.append(sd.reshape(*shape, k))
        corrs.append(corr.reshape(*shape, k, k))
    return sds, corrs, sigma.reshape(shape)
