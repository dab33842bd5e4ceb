"""Statistics of groups, observed and replicated: from rows in memory, or from the sums and cells of a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.formula.grouping import factorise

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Condensed, Design

STATISTICS = ("mean", "sd", "zeros", "ones")
"""Mean and SD of the responses of a group, and the shares of those that are 0 and 1."""

COUNTED = ("bernoulli", "binomial", "poisson")
NUMBERS_AT_ONCE = 1 << 23
NOT_THERE = "(missing)"


def group_statistics(
    post: Posterior, by: str, statistics: Sequence[str], draws: int, *, marginal: bool, seed: int | None
) -> xr.DataTree:
    """Return statistics of groups of rows, observed and replicated.

    Rows in memory are replicated one by one. Of a source, a Gaussian group of n rows with linear predictor eta has mean
    ``N(mean(eta), sigma² / n)`` and, independently, a sum of squares about it of sigma² times a non-central chi-square
    of n - 1 degrees of freedom with ``sum((eta - mean(eta))²) / sigma²``; the moments of eta come from condensed rows.
    For the counted families the number of rows of a cell that show each value is drawn.

    Parameters
    ----------
    post : Posterior
        The posterior.
    by : str
        A grouping factor or a column.
    statistics : sequence of str
        Some of `STATISTICS`.
    draws : int
        Replications.
    marginal : bool
        Whether groups are new ones.
    seed : int or None
        Makes them reproducible.

    Returns
    -------
    xarray.DataTree
        Groups `posterior_predictive` and `observed_data`, a variable per statistic over the levels of `by`.
    """
    import xarray as xr

    statistics = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    for name in statistics:
        if name not in STATISTICS:
            hint = did_you_mean(str(name), STATISTICS)
            raise DataError(f"{name!r} is not one of {listing(map(repr, STATISTICS))}. {hint}".rstrip())
    if post.design.condensation is not None and post.response.is_gaussian_identity:
        shares = [name for name in statistics if name in ("zeros", "ones")]
        if shares:
            raise DataError(
                f"{listing(map(repr, shares))} of a normal response is 0 in every replication, and its sums do not "
                'tell which rows are 0 or 1.\n  Ask for "mean" and "sd".'
            )
    chosen = post._chosen(draws)
    stream = np.random.SeedSequence(seed)
    found = _in_memory if post.design.condensation is None else _in_source
    levels, observed, replicated = found(post, by, chosen, marginal, stream)
    draw_coords = {by: levels, "chain": [0], "draw": np.arange(len(chosen))}
    return xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset(
                {name: (("chain", "draw", by), replicated[name][None]) for name in statistics}, coords=draw_coords
            ),
            "observed_data": xr.Dataset({name: ((by,), observed[name]) for name in statistics}, coords={by: levels}),
        }
    )


def as_variables(tree: xr.DataTree, by: str, statistic: str) -> xr.DataTree:
    """Return one statistic with a variable for each level, each of one observation, as ArviZ's panels want it.

    Parameters
    ----------
    tree : DataTree
        From `group_statistics`.
    by : str
        Its grouping.
    statistic : str
        Which.

    Returns
    -------
    DataTree
        `posterior_predictive` and `observed_data`.
    """
    import xarray as xr

    from bayeslmm.bayes.checks import variable

    parts = {}
    for group in ("posterior_predictive", "observed_data"):
        values = tree[group][statistic]
        panels = {}
        for i, level in enumerate(np.asarray(values[by])):
            panels[variable(f"{by}: {level}")] = values.isel({by: [i]}).drop_vars(by).rename({by: f"group_{i}"})
        parts[group] = xr.Dataset(panels)
    return xr.DataTree.from_dict(parts)


# --- rows in memory --------------------------------------------------------------------------------------------------

Found = tuple[list[str], "dict[str, NDArray[np.float64]]", "dict[str, NDArray[np.float64]]"]


def _in_memory(
    post: Posterior, by: str, chosen: NDArray[np.intp], marginal: bool, stream: np.random.SeedSequence
) -> Found:
    from bayeslmm.bayes.checks import column_labels, with_new_groups
    from bayeslmm.bayes.responses import simulate

    levels, codes = _levels(pd.Series(column_labels(post, by)))
    design = with_new_groups(post.design) if marginal else post.design
    assert post.design.y is not None
    of_rows = _RowStatistics(codes, len(levels))
    parts = []
    for part, seed in _parts(chosen, design.n, stream):
        eta = post._linear(design, part, "sample" if marginal else "error", None, _number(seed))
        parts.append(of_rows(simulate(post, design, eta, part, np.random.default_rng([_number(seed), 1]))))
    observed = {name: values[0] for name, values in of_rows(post.design.y[None]).items()}
    return levels, observed, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _RowStatistics:
    """Statistics of groups of rows (S, n), for every draw."""

    def __init__(self, codes: NDArray[np.intp], count: int) -> None:
        self.order = np.argsort(codes, kind="stable")
        self.codes, self.n = codes, np.bincount(codes, minlength=count)
        self.first = np.concatenate([[0], np.cumsum(self.n)[:-1]])

    def __call__(self, y: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        mean = self._mean(y)
        rest = self._mean(np.square(y - mean[:, self.codes])) * self.n
        return {"mean": mean, "sd": _sd(rest, self.n), "zeros": self._mean(y == 0.0), "ones": self._mean(y == 1.0)}

    def _mean(self, values: NDArray[Any]) -> NDArray[np.float64]:
        return np.add.reduceat(values[:, self.order].astype(np.float64), self.first, axis=1) / self.n


def _sd(squares: NDArray[np.float64], n: NDArray[Any]) -> NDArray[np.float64]:
    """Return standard deviations from sums of squares about the mean; none for a single row."""
    return np.where(n > 1, np.sqrt(np.maximum(squares, 0.0) / np.maximum(n - 1, 1)), np.nan)


def _parts(
    chosen: NDArray[np.intp], rows: int, stream: np.random.SeedSequence
) -> Iterator[tuple[NDArray[np.intp], np.random.SeedSequence]]:
    """Yield draws, as many at a time as rows times draws should stand in memory, each part with its own stream."""
    count = max(1, min(len(chosen), len(chosen) * rows // NUMBERS_AT_ONCE + 1))
    yield from zip(np.array_split(chosen, count), stream.spawn(count), strict=True)


def _number(seed: np.random.SeedSequence) -> int:
    return int(seed.generate_state(1)[0])


def _levels(labels: pd.Series) -> tuple[list[str], NDArray[np.intp]]:
    """Return the levels of a column and the code of each row; missing ones are a level of their own."""
    found = factorise(labels)
    codes = np.asarray(found.codes, dtype=np.intp)
    levels = list(found.labels)
    if (codes < 0).any():
        codes = np.where(codes < 0, len(levels), codes)
        levels.append(NOT_THERE)
    return levels, codes


# --- rows in a source ------------------------------------------------------------------------------------------------


def _in_source(
    post: Posterior, by: str, chosen: NDArray[np.intp], marginal: bool, stream: np.random.SeedSequence
) -> Found:
    from bayeslmm.bayes.checks import with_new_groups

    cells, labels = _cells_by(post.design, by)
    levels, codes = _levels(labels)
    design = with_new_groups(cells.design) if marginal else cells.design
    if post.response.is_gaussian_identity:
        replicate: _Gaussian | _Counted = _Gaussian(cells, codes, len(levels))
    elif post.family in COUNTED:
        replicate = _Counted(cells, codes, len(levels), post)
    else:
        raise DataError(f"responses of the family {post.family!r} are replicated from rows; fetch them first.")
    parts = []
    for part, seed in _parts(chosen, design.n, stream):
        eta = post._linear(design, part, "sample" if marginal else "error", None, _number(seed))
        sigma = post.draws("sigma")[part] if post.response.is_gaussian_identity else np.ones(len(part))
        parts.append(replicate(eta, sigma, np.random.default_rng([_number(seed), 1])))
    return levels, replicate.observed(), {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _cells_by(design: Design, by: str) -> tuple[Condensed, pd.Series]:
    """Return cells each of which lies in one group, and the groups; the engine splits the cells where it must."""
    cells = design.condensation
    assert cells is not None
    for factor in cells.design.factors:
        if factor.name == by:
            return cells, pd.Series(np.asarray(factor.members, dtype=object)[factor.member_codes])
    if by not in cells.design.data.columns:
        columns = list(cells.source.table.columns)
        if by not in columns:
            hint = did_you_mean(by, columns)
            raise DataError(f"there is no column {by!r} to group by.\n  Columns: {listing(columns)}. {hint}".rstrip())
        cells = cells.scans.split(by)
    return cells, cells.design.data[by]


class _Gaussian:
    """Means and SDs of groups of rows whose sums stand in condensed rows."""

    def __init__(self, cells: Condensed, codes: NDArray[np.intp], count: int) -> None:
        from scipy import sparse

        rows = cells.design
        assert rows.y is not None
        self.y = rows.y
        m = np.arange(rows.n)
        self.sums = sparse.csr_array((cells.ones, (codes, m)), shape=(count, rows.n))
        self.squares = sparse.csr_array((np.ones(rows.n), (codes, m)), shape=(count, rows.n))
        self.ones, self.codes = cells.ones, codes
        self.n = np.round(self.squares @ np.square(cells.ones))

    def moments(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and sum of squares about it (S, G) of a column of the rows (S, m)."""
        mean = (self.sums @ values.T).T / self.n
        # About the mean before squaring: nothing cancels.
        rest = values - mean[:, self.codes] * self.ones
        return mean, (self.squares @ np.square(rest).T).T

    def observed(self) -> dict[str, NDArray[np.float64]]:
        """Return the statistics of the response."""
        mean, squares = self.moments(self.y[None])
        return self._named(mean[0], squares[0])

    def __call__(
        self, eta: NDArray[np.float64], sigma: NDArray[np.float64], rng: np.random.Generator
    ) -> dict[str, NDArray[np.float64]]:
        mean, squares = self.moments(eta)
        variance = np.square(sigma)[:, None]
        mean = mean + np.sqrt(variance / self.n) * rng.standard_normal(mean.shape)
        several = np.maximum(self.n - 1, 1)
        return self._named(mean, variance * rng.noncentral_chisquare(several, squares / variance))

    def _named(self, mean: NDArray[np.float64], squares: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"mean": mean, "sd": _sd(squares, self.n)}


class _Counted:
    """Statistics of groups of cells of equal rows: how many of a cell's rows show each value is drawn."""

    def __init__(self, cells: Condensed, codes: NDArray[np.intp], count: int, post: Posterior) -> None:
        from scipy import sparse

        self.rows, self.counts, self.family = cells.design, cells.counts.astype(np.int64), post.response
        self.trials = np.ones(self.rows.n) if self.rows.trials is None else np.asarray(self.rows.trials)
        self.groups = sparse.csr_array((np.ones(self.rows.n), (codes, np.arange(self.rows.n))), (count, self.rows.n))
        self.n = self.groups @ self.counts

    def observed(self) -> dict[str, NDArray[np.float64]]:
        """Return the statistics of the response."""
        y = np.asarray(self.rows.y)[None]
        return {name: value[0] for name, value in self._named([(y, self.counts[None])], (1, len(self.n))).items()}

    def __call__(
        self, eta: NDArray[np.float64], _: NDArray[np.float64], rng: np.random.Generator
    ) -> dict[str, NDArray[np.float64]]:
        return self._named(self._values(self.family.inverse_link(eta), rng), (len(eta), len(self.n)))

    def _values(
        self, mu: NDArray[np.float64], rng: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Yield each value of the response in turn, and how many of the rows left show it: a multinomial in steps."""
        from scipy.stats import binom, poisson

        left = np.broadcast_to(self.counts, mu.shape).copy()
        bounded = self.family.name != "poisson"
        k = 0
        while left.any():
            where = np.nonzero(left)
            mean, trials = mu[where], self.trials[where[1]]
            law = binom(trials, mean) if bounded else poisson(mean)
            reaching = np.asarray(law.sf(k - 1))
            hazard = np.divide(law.pmf(k), reaching, out=np.ones_like(mean), where=reaching > 0)
            if bounded:
                hazard[trials <= k] = 1.0
            shown = np.zeros_like(left)
            shown[where] = rng.binomial(left[where], np.clip(hazard, 0.0, 1.0))
            left -= shown
            yield np.broadcast_to(k / self.trials, mu.shape), shown
            k += 1

    def _named(self, values: Any, shape: tuple[int, int]) -> dict[str, NDArray[np.float64]]:
        sums = {name: np.zeros(shape) for name in ("total", "squares", "zeros", "ones")}
        for value, count in values:
            parts = {"total": value, "squares": np.square(value), "zeros": value == 0.0, "ones": value == 1.0}
            for name, factor in parts.items():
                sums[name] += (self.groups @ (count * factor).T).T
        mean = sums["total"] / self.n
        return {
            "mean": mean,
            "sd": _sd(sums["squares"] - self.n * np.square(mean), self.n),
            "zeros": sums["zeros"] / self.n,
            "ones": sums["ones"] / self.n,
        }
