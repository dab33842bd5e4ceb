"""Raw and weighted survey estimates with design-based standard errors, to stand beside MRP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, listing
from bayeslmm.formula.grouping import label
from bayeslmm.mrp.grouping import By, Groups, grouping_sets, make_groups
from bayeslmm.mrp.reading import read_frame, require_column

if TYPE_CHECKING:
    from numpy.typing import NDArray


def survey_estimates(
    survey: Any,
    outcome: str,
    by: By = None,
    *,
    weights: str | None = None,
    strata: str | None = None,
    clusters: str | None = None,
    margins: bool = False,
) -> pd.DataFrame:
    """Estimate means from respondents alone, raw and weighted.

    Parameters
    ----------
    survey : data frame
        One row per respondent.
    outcome : str
        Numeric column, 0 and 1 for a share.
    by : str or sequence, optional
        As in `poststratify`.
    weights : str, optional
        Survey weights; without it only raw means are given.
    strata, clusters : str, optional
        Design of the sample, for the standard errors of weighted means.
    margins : bool, default False
        Add every margin of `by`.

    Returns
    -------
    DataFrame
        Columns of `by`, then `n`, `raw`, `raw_se`, and with weights `weighted`, `weighted_se`, `n_eff` (Kish).

    Raises
    ------
    DataError
        If a column is missing, the outcome is not numeric, or weights are negative or all zero.

    Notes
    -----
    Standard errors of weighted means are Taylor-linearised for domains, with the sample taken as drawn with
    replacement within strata: the whole sample's design counts, not the group's alone.

    Examples
    --------
    >>> import pandas as pd
    >>> survey = pd.DataFrame({"g": ["a", "a", "b", "b"], "yes": [1, 0, 1, 1], "w": [1.0, 3.0, 1.0, 1.0]})
    >>> survey_estimates(survey, "yes", "g", weights="w")[["g", "n", "raw", "weighted"]].to_dict("list")
    {'g': ['a', 'b'], 'n': [2, 2], 'raw': [0.5, 1.0], 'weighted': [0.25, 1.0]}

    References
    ----------
    Lumley (2010), *Complex Surveys*, chapter 2. Kish (1965), *Survey Sampling*.
    """
    data = read_frame(survey)
    sets = grouping_sets(by, margins)
    needed = [outcome, *(name for names in sets for name in names), *filter(None, (weights, strata, clusters))]
    for name in needed:
        require_column(name, data.columns)
    data = data.loc[data[list(dict.fromkeys(needed))].notna().all(axis=1)].reset_index(drop=True)
    if data.empty:
        raise DataError(f"no respondent has a value in all of {listing(needed)}.")
    y = _numbers(data[outcome])
    groups = make_groups(data, sets)
    table = pd.concat([groups.labels, raw_means(groups, y, np.ones(len(y)))], axis=1)
    if weights is None:
        return table
    w = _numbers(data[weights])
    if (w < 0).any() or not w.sum() > 0:
        raise DataError(f"the survey weights {weights!r} are negative or all zero.")
    units = _units(data, strata, clusters)
    return pd.concat([table, weighted_means(groups, y, w, *units)], axis=1)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    if not pd.api.types.is_numeric_dtype(column.dtype):
        raise DataError(f"{column.name!r} is not numeric; recode it to 0 and 1 to estimate a share.")
    return column.to_numpy(dtype=np.float64)


def _units(data: pd.DataFrame, strata: str | None, clusters: str | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the sampling unit of each respondent and the stratum of each unit."""
    stratum = np.zeros(len(data)) if strata is None else data.groupby(strata).ngroup().to_numpy()
    inner = pd.Series(np.arange(len(data))) if clusters is None else data[clusters]
    unit = pd.DataFrame({"stratum": stratum, "unit": inner.to_numpy()}).groupby(["stratum", "unit"]).ngroup()
    unit_codes = np.asarray(unit, dtype=np.intp)
    unit_stratum = np.zeros(unit_codes.max() + 1, np.intp)
    unit_stratum[unit_codes] = stratum
    return unit_codes, unit_stratum


def raw_means(groups: Groups, y: NDArray[np.float64], trials: NDArray[np.float64]) -> pd.DataFrame:
    """Return number of respondents, mean and its simple-random-sample standard error for every group.

    Parameters
    ----------
    groups : Groups
        Of rows.
    y : ndarray (n,)
        Outcome; for binomial rows the share.
    trials : ndarray (n,)
        Respondents a row stands for.

    Returns
    -------
    DataFrame
        Columns `n`, `raw`, `raw_se`.
    """
    n = groups.sums(trials)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = groups.sums(trials * y) / n
        # a row of several trials holds 0s and 1s, whose squares are themselves
        squares = groups.sums(trials * np.where(trials > 1, y, y**2))
        se = np.sqrt(np.maximum(squares / n - mean**2, 0.0) / (n - 1))
    se[n < 2] = np.nan
    return pd.DataFrame({"n": n.round().astype(np.int64), "raw": mean, "raw_se": se})


def weighted_means(
    groups: Groups,
    y: NDArray[np.float64],
    w: NDArray[np.float64],
    units: NDArray[np.intp],
    unit_strata: NDArray[np.intp],
) -> pd.DataFrame:
    """Return weighted means with linearised standard errors and Kish's effective sample size.

    Parameters
    ----------
    groups : Groups
        Of respondents.
    y, w : ndarray (n,)
        Outcome and weights.
    units : ndarray (n,)
        Sampling unit of each respondent.
    unit_strata : ndarray (U,)
        Stratum of each unit.

    Returns
    -------
    DataFrame
        Columns `weighted`, `weighted_se`, `n_eff`.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = groups.sums(w)
        mean = groups.sums(w * y) / whole
        n_eff = whole**2 / groups.sums(w**2)
    variance = np.zeros(len(whole))
    for codes in groups.codes:
        for group in np.unique(codes):
            rows = codes == group
            score = np.zeros(len(unit_strata))
            np.add.at(score, units[rows], w[rows] * (y[rows] - mean[group]) / whole[group])
            variance[group] = _stratified_variance(score, unit_strata)
    return pd.DataFrame({"weighted": mean, "weighted_se": np.sqrt(variance), "n_eff": n_eff})


def _stratified_variance(score: NDArray[np.float64], strata: NDArray[np.intp]) -> float:
    """Variance of a sum of unit totals, units drawn with replacement within strata."""
    size = np.bincount(strata)
    mean = np.bincount(strata, weights=score) / size
    spread = np.bincount(strata, weights=(score - mean[strata]) ** 2)
    return float(np.sum(np.divide(size, size - 1.0, out=np.full(len(size), np.nan), where=size > 1) * spread))


def respondents(
    columns: pd.DataFrame,
    y: NDArray[np.float64],
    trials: NDArray[np.float64] | None,
    labels: pd.DataFrame,
    sets: Sequence[tuple[str, ...]],
    weights: NDArray[np.float64] | None = None,
) -> pd.DataFrame | None:
    """Return raw estimates from the fitted rows for the groups of a poststratification.

    Parameters
    ----------
    columns : DataFrame
        Covariates of the fitted rows.
    y : ndarray (n,)
        Fitted response.
    trials : ndarray (n,) or None
        Binomial denominators.
    labels : DataFrame
        Groups of the estimates.
    sets : sequence of tuple of str
        Grouping sets.
    weights : ndarray (n,), optional
        Survey weights; not used for binomial rows, which stand for several respondents.

    Returns
    -------
    DataFrame or None
        Columns `n`, `raw`, `raw_se`, and with weights `weighted`, `weighted_se`, `n_eff`, in the order of `labels`;
        None if the rows lack a grouping variable.
    """
    variables = list(labels.columns)
    if not set(variables) <= set(columns.columns):
        return None
    groups = make_groups(columns[variables], tuple(sets)) if variables else make_groups(columns, ((),))
    means = raw_means(groups, y, np.ones(len(y)) if trials is None else trials)
    if weights is not None and trials is None:
        alone, one_stratum = np.arange(len(y)), np.zeros(len(y), np.intp)
        means = pd.concat([means, weighted_means(groups, y, weights, alone, one_stratum)], axis=1)
    return align(pd.concat([groups.labels, means], axis=1), labels)


def align(table: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of a table in the order of other labels; groups without respondents get n = 0.

    Parameters
    ----------
    table : DataFrame
        Label columns, then numbers.
    labels : DataFrame
        The wanted order.

    Returns
    -------
    DataFrame
        Numbers only.
    """
    variables = list(labels.columns)
    numbers = [name for name in table.columns if name not in variables]
    keyed = table[numbers].set_axis(_keys(table[variables]))
    aligned = keyed.reindex(_keys(labels)).reset_index(drop=True)
    aligned["n"] = aligned["n"].fillna(0).astype(np.int64)
    return aligned


def _keys(labels: pd.DataFrame) -> pd.Index:
    """Return one key per row, made of level names, so that 1, 1.0 and "1" are one level."""
    return pd.Index(["\0".join(map(label, row)) for row in labels.itertuples(index=False, name=None)])
