"""Which cells make which estimate: `by` and its margins as codes and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError
from bayeslmm.mrp.reading import require_column

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

ALL = "(all)"
By = str | Sequence[str | Sequence[str]] | None


def grouping_sets(by: By, margins: bool = False) -> tuple[tuple[str, ...], ...]:
    """Return the sets of variables to group by, each set once.

    Parameters
    ----------
    by : str, sequence or None
        ``"state"`` for one variable, ``["state", "age"]`` for their crossing, ``["state", ("state", "age"), ()]`` for
        several groupings at once, None for the whole population.
    margins : bool, default False
        Add every subset of the variables, down to the whole population.

    Returns
    -------
    tuple of tuple of str
        Largest sets last when margins are added.

    Examples
    --------
    >>> grouping_sets(["state", "age"])
    (('state', 'age'),)
    >>> grouping_sets(["state", "age"], margins=True)
    ((), ('state',), ('age',), ('state', 'age'))
    >>> grouping_sets(["state", ()])
    (('state',), ())
    """
    if by is None:
        sets: list[tuple[str, ...]] = [()]
    elif isinstance(by, str):
        sets = [(by,)]
    elif by and all(isinstance(entry, str) for entry in by):
        sets = [tuple(map(str, by))]
    else:
        sets = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in by] or [()]
    if margins:
        sets = [subset for whole in sets for size in range(len(whole) + 1) for subset in combinations(whole, size)]
    return tuple(dict.fromkeys(sets))


@dataclass(frozen=True)
class Groups:
    """Groups of cells: for every grouping set one code per cell, numbered over all sets.

    Parameters
    ----------
    labels : DataFrame
        One row per group, one column per variable; `(all)` where a variable is summed over.
    codes : tuple of ndarray (n,)
        One array per grouping set; a cell belongs to one group of each.

    Examples
    --------
    >>> import pandas as pd
    >>> groups = make_groups(pd.DataFrame({"g": ["a", "b", "a"]}), (("g",), ()))
    >>> groups.labels["g"].tolist(), [codes.tolist() for codes in groups.codes]
    (['a', 'b', '(all)'], [[0, 1, 0], [2, 2, 2]])
    """

    labels: pd.DataFrame
    codes: tuple[NDArray[np.intp], ...]

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of one value per cell over every group.

        Parameters
        ----------
        values : ndarray (n,)
            One value per cell.

        Returns
        -------
        ndarray (G,)
            Sums.
        """
        count = len(self.labels)
        return np.sum([np.bincount(codes, weights=values, minlength=count) for codes in self.codes], axis=0)

    def indicator(self, values: NDArray[np.float64]) -> sparse.csr_array:
        """Return the matrix (G, n) that turns one value per cell into weighted sums over groups.

        Parameters
        ----------
        values : ndarray (n,)
            Weight of each cell.

        Returns
        -------
        scipy.sparse.csr_array (G, n)
            One entry per cell and grouping set.
        """
        from scipy import sparse

        n, sets = len(values), len(self.codes)
        rows = np.concatenate(self.codes)
        columns = np.tile(np.arange(n), sets)
        return sparse.csr_array((np.tile(values, sets), (rows, columns)), shape=(len(self.labels), n))


def make_groups(data: pd.DataFrame, sets: tuple[tuple[str, ...], ...]) -> Groups:
    """Return the groups that occur in a frame.

    Parameters
    ----------
    data : DataFrame
        Cells, n rows.
    sets : tuple of tuple of str
        From `grouping_sets`.

    Returns
    -------
    Groups
        In the order of categories, or sorted.

    Raises
    ------
    DataError
        If a variable is not a column, or has missing values.
    """
    variables = list(dict.fromkeys(name for names in sets for name in names))
    for name in variables:
        require_column(name, data.columns)
        if data[name].isna().any():
            raise DataError(
                f"{int(data[name].isna().sum())} cells have no value of {name!r}, which the estimates are to be "
                "grouped by.\n  Give them a level of their own, or leave them out with frame.filter."
            )
    parts, codes, start = [], [], 0
    for names in sets:
        grouped = data.groupby(list(names), observed=True, sort=True) if names else None
        part = pd.DataFrame(index=range(1)) if grouped is None else _labels(grouped, names)
        codes.append(start + (np.zeros(len(data), np.intp) if grouped is None else grouped.ngroup().to_numpy(np.intp)))
        parts.append(part.reindex(columns=variables).astype(object))
        start += len(part)
    labels = pd.concat(parts, ignore_index=True)
    return Groups(labels.where(labels.notna(), ALL), tuple(np.asarray(code, dtype=np.intp) for code in codes))


def _labels(grouped: pd.api.typing.DataFrameGroupBy, names: Iterable[str]) -> pd.DataFrame:
    index = grouped.size().index
    return pd.DataFrame({name: index.get_level_values(name) for name in names}).astype(object)
