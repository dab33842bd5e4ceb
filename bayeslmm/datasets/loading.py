"""From a name to a pandas frame."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from bayeslmm.datasets.catalogue import CATALOGUE, DataSet
from bayeslmm.errors import DataError, did_you_mean, listing

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import pandas as pd


def names() -> tuple[str, ...]:
    """Return the names that `load` takes.

    Returns
    -------
    tuple of str
        Names of the packaged data sets.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> "nlschools" in blm.datasets.names()
    True
    """
    return tuple(entry.name for entry in CATALOGUE)


def load(name: str | None = None) -> pd.DataFrame:
    """Load a packaged data set, or list all of them.

    Factors are pandas categoricals whose levels stand in the order of the source (ordered where the source is), so
    that the first level is the reference of a treatment contrast as in R.

    Parameters
    ----------
    name : str, optional
        Name of a data set. Without it the list is returned.

    Returns
    -------
    pandas.DataFrame
        The data, a new frame at every call; or, without a name, one row per data set with its name, number of rows
        and columns, title, source and licence.

    Raises
    ------
    DataError
        If there is no such data set.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> schools = blm.datasets.load("nlschools")
    >>> schools.shape
    (2287, 6)
    >>> blm.datasets.load()["name"].head(3).to_list()
    ['nlschools', 'sleepstudy', 'InstEval']
    """
    import pandas as pd

    if name is None:
        return _list_of_data_sets()
    with _file(_entry(name)).open("rb") as stream:
        return pd.read_parquet(stream, engine="pyarrow")


def describe(name: str) -> pd.DataFrame:
    """Say what each column of a packaged data set means.

    Parameters
    ----------
    name : str
        Name of a data set.

    Returns
    -------
    pandas.DataFrame
        One row per column: its name, its kind ("number", "factor" or "ordered factor") and its meaning with units.

    Raises
    ------
    DataError
        If there is no such data set.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> blm.datasets.describe("sleepstudy").loc[0].to_list()
    ['Reaction', 'number', 'mean reaction time of the day (ms)']
    """
    import pandas as pd

    entry = _entry(name)
    frame = load(name)
    rows = [(column, _kind(frame[column]), meaning) for column, meaning in entry.columns.items()]
    return pd.DataFrame(rows, columns=["column", "kind", "meaning"])


def _entry(name: str) -> DataSet:
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    sentences = [
        f"there is no packaged data set {name!r}.",
        f"Packaged: {listing(names(), limit=len(CATALOGUE))}.",
        did_you_mean(str(name), names()),
    ]
    raise DataError(" ".join(sentence for sentence in sentences if sentence))


def _file(entry: DataSet) -> Traversable:
    return resources.files("bayeslmm.datasets").joinpath(f"{entry.name}.parquet")


def _kind(column: pd.Series) -> str:
    import pandas as pd

    if not isinstance(column.dtype, pd.CategoricalDtype):
        return "number"
    return "ordered factor" if column.dtype.ordered else "factor"


def _list_of_data_sets() -> pd.DataFrame:
    import pandas as pd
    from pyarrow import parquet

    rows = []
    for entry in CATALOGUE:
        with _file(entry).open("rb") as stream:
            n_rows = parquet.read_metadata(stream).num_rows
        rows.append((entry.name, n_rows, len(entry.columns), entry.title, entry.source, entry.licence))
    return pd.DataFrame(rows, columns=["name", "rows", "columns", "title", "source", "licence"])
