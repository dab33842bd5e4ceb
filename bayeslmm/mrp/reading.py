"""Tables in and out: any data frame, Parquet, or sums that a database makes before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import pandas as pd

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.formula.source import open_source

OUTGOING = "bayeslmm_outgoing"
"""What a frame is called for as long as it is being written."""


def read_frame(source: Any, *, cells: Sequence[str] | None = None, total: str | None = None) -> pd.DataFrame:
    """Return a table as pandas, summed over all but some columns where asked.

    Parameters
    ----------
    source : data frame, mapping, str or Path
        pandas, polars (also lazy), pyarrow, a DuckDB relation, an Ibis table, a mapping of names to columns, or the
        path or glob of Parquet files.
    cells : sequence of str, optional
        Columns to keep, one row per combination that occurs; the sum is done where the data are.
    total : str, optional
        Column to sum over the rows of a cell; without it rows are counted, into a column `n`.

    Returns
    -------
    DataFrame
        A copy with a fresh index.

    Raises
    ------
    DataError
        If the source is not a table, a column is not in it, or rows to be summed are missing or negative.

    Examples
    --------
    >>> read_frame({"g": ["a", "b", "a"], "w": [1, 2, 4]}, cells=["g"], total="w")
       g  w
    0  a  5
    1  b  2
    """
    frame = _as_narwhals(source)
    if cells is not None:
        names = frame.collect_schema().names()
        for name in (*cells, *((total,) if total else ())):
            require_column(name, names)
        if total is not None:
            _check_weights(frame, total)
        summed = nw.len().alias("n") if total is None else nw.col(total).sum()
        if isinstance(frame, nw.LazyFrame):
            summed = summed.cast(nw.Float64)  # DuckDB sums integers into 128 bits, which pandas takes for objects
        frame = frame.group_by(*cells).agg(summed).sort(*cells)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect("pyarrow")
    return frame.to_pandas().reset_index(drop=True)


def _check_weights(frame: nw.DataFrame[Any] | nw.LazyFrame[Any], name: str) -> None:
    """Refuse what a sum would hide; counted where the rows are."""
    weight = nw.col(name)
    if not frame.collect_schema()[name].is_numeric():
        raise DataError(f"the weights {name!r} are not numbers.")
    bad = frame.select(weight.is_null().sum().alias("missing"), (weight < 0).sum().alias("negative"))
    counts = (bad.collect("pyarrow") if isinstance(bad, nw.LazyFrame) else bad).row(0)
    for count, what in zip(counts, ("missing", "negative"), strict=True):
        if count:
            raise DataError(
                f"the weights {name!r} are {what} in {count:,} row{'s' * (count != 1)}.\n"
                "  A weight says how many people a row stands for: leave out rows without any, or write 0."
            )


def _as_narwhals(source: Any) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:
    if isinstance(source, Mapping):
        source = pd.DataFrame(dict(source))
    elif isinstance(source, str | Path) and (any(mark in str(source) for mark in "*?[") or Path(source).is_dir()):
        source = open_source(source).table
    elif isinstance(source, str | Path):
        source = _read_parquet(Path(source))
    try:
        frame = nw.from_native(source)
    except TypeError:
        raise DataError(
            f"a {type(source).__name__} is not a table.\n"
            "  Give pandas, polars, pyarrow, a DuckDB relation, an Ibis table, or the path of a Parquet file."
        ) from None
    return frame


def _read_parquet(path: Path) -> Any:
    from pyarrow import parquet

    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}.")
    if path.is_file() and path.suffix not in (".parquet", ".pq"):
        raise DataError(f"{str(path)!r} is not a Parquet file; read it with pandas or polars and give the frame.")
    return parquet.read_table(path)


def require_column(name: str, names: Iterable[str], what: str = "column") -> None:
    """Refuse a name that is not there.

    Parameters
    ----------
    name : str
        What was asked for.
    names : iterable of str
        What there is.
    what : str, default "column"
        What is being named.

    Raises
    ------
    DataError
        With the names there are and the nearest of them.

    Examples
    --------
    >>> require_column("state", ["state", "n"])
    """
    names = [str(other) for other in names]
    if name not in names:
        hint = did_you_mean(str(name), names)
        raise DataError(f"there is no {what} {name!r}.\n  {what.capitalize()}s: {listing(names)}. {hint}".rstrip())


def write_table(frame: pd.DataFrame, connection: Any, name: str, *, overwrite: bool = False) -> Any:
    """Write a frame as a table of a database.

    Parameters
    ----------
    frame : DataFrame
        What to write.
    connection : DuckDB connection or Ibis backend
        Where to.
    name : str
        The table.
    overwrite : bool, default False
        Replace a table of that name.

    Returns
    -------
    DuckDB relation or Ibis table
        The table written.

    Raises
    ------
    DataError
        If there is a table of that name already, or the engine refuses.

    Examples
    --------
    >>> import duckdb
    >>> write_table(pd.DataFrame({"g": ["a"], "n": [3]}), duckdb.connect(), "cells").fetchall()
    [('a', 3)]
    """
    if getattr(connection, "name", None) == "duckdb":  # Ibis 12 drops its temporary view in words DuckDB 2 cannot read
        write_table(frame, connection.con, name, overwrite=overwrite)
        return connection.table(name)
    is_duckdb = type(connection).__name__ == "DuckDBPyConnection"
    if not is_duckdb and not hasattr(connection, "create_table"):
        raise DataError(
            f"a {type(connection).__name__} is no connection that a table could be written to.\n"
            '  Give duckdb.connect("results.duckdb") or an Ibis backend, such as ibis.pyspark.connect(session).'
        )
    try:
        there = {row[0] for row in connection.execute("show tables").fetchall()} if is_duckdb else connection.tables
        if name in there and not overwrite:
            raise DataError(f"there is a table {name!r} already.\n  Choose another name, or overwrite=True.")
        if not is_duckdb:
            return connection.create_table(name, frame, overwrite=overwrite)
        quoted = '"' + name.replace('"', '""') + '"'
        connection.register(OUTGOING, frame)
        try:
            connection.execute(f"create or replace table {quoted} as select * from {OUTGOING}")
        finally:
            connection.unregister(OUTGOING)
        return connection.table(quoted)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"the table {name!r} was not written: {type(error).__name__}: {error}") from error
