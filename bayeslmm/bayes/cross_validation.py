"""K-fold cross-validation by rows or by whole groups, through ArviZ; nothing is compiled for a fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from arviz_stats import SamplingWrapper, loo_kfold

from bayeslmm.bayes.checks import column_labels, log_likelihood_tree
from bayeslmm.bayes.posterior import Posterior
from bayeslmm.bayes.refit import refitter
from bayeslmm.bayes.responses import log_density_of_rows
from bayeslmm.errors import DataError
from bayeslmm.formula.design import take_rows

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

FOLDS = 10


class Folds(SamplingWrapper):
    """What ArviZ asks of a model that is to be drawn again without some of its rows.

    Parameters
    ----------
    post : Posterior
        The posterior of all rows.
    settings : Any
        draws, chains, tune, cores, seed.
    """

    def __init__(self, post: Posterior, **settings: Any) -> None:
        super().__init__(post)
        self.post = post
        self.settings = settings
        method = "nuts" if post.run.method == "NUTS" else "proposals"
        self.refit = refitter(post.design, post.response, post.priors, post.run.engine.lower(), method)

    def sel_observations(self, idx: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows kept and the rows left out."""
        return np.setdiff1d(np.arange(self.post.design.n), idx), np.asarray(idx)

    def sample(self, modified_observed_data: NDArray[np.intp]) -> Posterior:
        """Return the posterior given the rows kept."""
        rows = modified_observed_data
        return self.refit(take_rows(self.post.design, rows), rows, **self.settings)

    def get_inference_data(self, fitted_model: Posterior) -> Posterior:
        """Return the posterior: ArviZ only hands it on."""
        return fitted_model

    def log_likelihood__i(self, excluded_obs: NDArray[np.intp], idata__i: Posterior) -> xr.DataArray:
        """Return the log density of the rows left out at every draw; groups left out are new groups."""
        import xarray as xr

        part, chosen = take_rows(self.post.design, excluded_obs), np.arange(idata__i.n_draws)
        eta = idata__i._linear(part, chosen, "error", None, None)
        values = log_density_of_rows(idata__i, part, eta, chosen)
        sizes = idata__i.data["posterior"].sizes
        return xr.DataArray(values.reshape(sizes["chain"], sizes["draw"], -1), dims=("chain", "draw", "obs"))


def k_fold(
    post: Posterior,
    k: int | None,
    *,
    group: str | None,
    folds: Sequence[int] | None,
    seed: int,
    **settings: Any,
) -> Any:
    """Return k-fold cross-validation.

    Parameters
    ----------
    post : Posterior
        The posterior of all rows.
    k : int or None
        Folds.
    group : str or None
        Levels that stay together.
    folds : sequence of int or None
        The fold of each row.
    seed : int
        Of folds and draws.
    **settings : Any
        draws, chains, tune, cores.

    Returns
    -------
    ELPDData
        Expected log predictive density.

    Raises
    ------
    DataError
        If the folds cannot be made.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), *Statistics and Computing* 27(5).
    """
    if post.design.condensation is not None:
        raise DataError("the rows of this model stay in their source: k-fold needs them in memory.")
    labels = None if group is None else column_labels(post, group)
    chosen = checked_folds(post.design.n, k, labels, folds)
    return loo_kfold(
        log_likelihood_tree(post), Folds(post, seed=seed, **settings), pointwise=True, k=chosen, group_by=labels,
        folds=None if folds is None else np.asarray(folds), seed=seed,
    )  # fmt: skip


def checked_folds(n: int, k: int | None, labels: NDArray[Any] | None, folds: Sequence[int] | None) -> int:
    """Return the number of folds.

    Parameters
    ----------
    n : int
        Rows.
    k : int or None
        What was asked for.
    labels : ndarray (n,) or None
        Groups that stay together.
    folds : sequence of int or None
        The fold of each row.

    Returns
    -------
    int
        At least 2.

    Raises
    ------
    DataError
        If there are too few or too many.
    """
    if folds is not None:
        if labels is not None or k is not None:
            raise DataError("folds= says which rows belong together: leave out k= and group=.")
        if len(folds) != n:
            raise DataError(f"folds has {len(folds)} values for the {n} rows used.")
        if len(set(folds)) < 2:
            raise DataError("folds names one fold only: there would be nothing left to learn from.")
        return len(set(folds))
    most, what = (n, "rows") if labels is None else (len(set(labels)), "groups")
    k = min(FOLDS, most) if k is None else k
    if int(k) != k or not 2 <= k <= most:
        raise DataError(f"k={k!r} must be a whole number from 2 to {most}, the number of {what}.")
    return int(k)
