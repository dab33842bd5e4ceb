"""Data that stay where they are: tables of a database seen through Ibis, scanned only by sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import pandas as pd

from bayeslmm.errors import DataError, MissingDependencyError, listing

BESIDE = "group_effects"
"""What the caller's frame is called in statements over a relation of DuckDB."""


@dataclass(frozen=True, eq=False)
class Source:
    """A table in an engine.

    Parameters
    ----------
    table : ibis.Table
        The table, unbound where `execute` runs the query by other means.
    dialect : str
        Which SQL the engine speaks; "" for an engine without SQL.
    execute : callable
        From an Ibis expression to a pandas frame.
    log : list of (str, Expr)
        The scans that were run, with what they were for.
    lazily : callable, optional
        From an Ibis expression, and a frame it may use, to a lazy table of the kind that the caller gave.
    """

    table: Any
    dialect: str
    execute: Callable[..., pd.DataFrame]
    log: list[tuple[str, Any]] = field(default_factory=list)
    lazily: Callable[[Any, pd.DataFrame], Any] = lambda expression, frame: expression

    def beside(self, frame: pd.DataFrame) -> Any:
        """Return a frame of the caller's as a table that expressions on this source can join.

        Parameters
        ----------
        frame : DataFrame
            Few rows.

        Returns
        -------
        ibis.Table
            Nothing is written to the source: engines see the frame under a name of the session.
        """
        import ibis

        if self.relation:
            return ibis.table(ibis.memtable(frame).schema(), name=BESIDE)
        return ibis.memtable(frame)

    @property
    def relation(self) -> bool:
        """Whether the table is a relation of DuckDB, whose connection Ibis does not have."""
        return isinstance(self.table.op(), _unbound())

    def run(self, expression: Any, purpose: str, *, beside: pd.DataFrame | None = None) -> pd.DataFrame:
        """Run a query and keep it for `sql`.

        Parameters
        ----------
        expression : ibis.Table
            The query.
        purpose : str
            What it is for, in a few words.
        beside : DataFrame, optional
            What `beside` made a table of.

        Returns
        -------
        DataFrame
            Its result.

        Raises
        ------
        DataError
            With the engine's own message.
        """
        try:
            result = self.execute(expression) if beside is None else self.execute(expression, beside)
        except Exception as error:
            raise DataError(
                f"{self.dialect or 'the engine'} could not compute the {purpose}: {type(error).__name__}: {error}\n"
                "  The query is an ordinary GROUP BY over the columns of the formula; nothing was written."
            ) from error
        self.log.append((purpose, expression))
        return result

    def distinct(self, table: Any, names: Sequence[str], where: Any) -> Any:
        """Return the number of distinct combinations of columns, estimated by the engine while it scans.

        Parameters
        ----------
        table : ibis.Table
            The table.
        names : sequence of str
            Columns.
        where : ibis expression
            Which rows count.

        Returns
        -------
        ibis expression
            A HyperLogLog estimate; exact in engines without one.
        """
        import ibis

        if self.dialect in ("duckdb", "spark"):  # a hash of the whole key: a fifth of what text of it would cost
            return ibis.struct({name: table[name] for name in names}).approx_nunique(where=where)
        joined = table[names[0]].cast("string")
        for name in names[1:]:
            joined = joined + ":" + table[name].cast("string")
        return joined.approx_nunique(where=where)

    def sql(self, dialect: str | None = None) -> str:
        """Return the text of the scans.

        Parameters
        ----------
        dialect : str, optional
            As Ibis names it ("duckdb", "bigquery", "postgres"); the engine's own when absent.

        Returns
        -------
        str
            One statement per scan, each under a comment that says what it is for.

        Raises
        ------
        DataError
            If Ibis cannot write that dialect without a connection, as for Spark.
        """
        return "\n\n".join(f"-- {purpose}\n{self._statement(query, dialect)};" for purpose, query in self.log)

    def _statement(self, query: Any, dialect: str | None) -> str:
        import ibis

        own = self.dialect or "duckdb"
        if dialect in (None, own):
            # A relation of DuckDB has no connection that Ibis could ask for its dialect.
            return str(ibis.to_sql(query, dialect="duckdb") if own == "duckdb" else ibis.to_sql(query))
        try:
            return str(ibis.to_sql(query, dialect=dialect))
        except Exception as error:
            raise DataError(
                f"Ibis cannot write the scans for {dialect!r} without a connection to it: {error}.\n"
                "  Make the model from a table of that engine and ask for model.sql()."
            ) from error


def is_source(data: Any) -> bool:
    """Return whether data are a table to be left where it is.

    Parameters
    ----------
    data : object
        What the caller gave.

    Returns
    -------
    bool
        True for a path, an Ibis table, a DuckDB relation and a Polars LazyFrame.

    Examples
    --------
    >>> is_source("ratings/*.parquet"), is_source({"y": [1.0]})
    (True, False)
    """
    if isinstance(data, str | Path | Source):
        return True
    kind = type(data)
    home = kind.__module__.split(".")[0].lstrip("_")
    return (home, kind.__name__) in {("ibis", "Table"), ("duckdb", "DuckDBPyRelation"), ("polars", "LazyFrame")}


def open_source(data: Any) -> Source:
    """Reach a table through Ibis.

    Parameters
    ----------
    data : Ibis table, DuckDB relation, Polars LazyFrame, str or Path
        The table; a path or glob names Parquet files, read by an embedded DuckDB.

    Returns
    -------
    Source
        The table and how to query it.

    Raises
    ------
    MissingDependencyError
        If Ibis is not installed.
    DataError
        If there is no such file.
    """
    if isinstance(data, Source):
        return data
    try:
        import ibis
    except ImportError as error:
        raise MissingDependencyError(
            f"a {type(data).__name__} stays where it is and is reached through Ibis, which is not installed.\n"
            "  pip install 'bayeslmm[scale]'"
        ) from error
    if isinstance(data, str | Path):
        return _bound(ibis.duckdb.connect().read_parquet(_parquet_files(str(data))))
    if isinstance(data, ibis.Table):
        return _bound(data)
    if type(data).__name__ == "LazyFrame":
        connection = ibis.polars.connect({"source": data})
        return _bound(connection.table("source"), lambda query, _: connection.compile(query))
    return _of_relation(data)


def _parquet_files(path: str) -> str | list[str]:
    if "://" in path:
        return path
    found = sorted(glob(path, recursive=True))
    if len(found) == 1 and Path(found[0]).is_dir():
        found = sorted(glob(f"{found[0]}/**/*.parquet", recursive=True))
    if not found:
        raise DataError(
            f"there is no file {path!r}.\n  Give the path of a Parquet file, or a glob such as 'd/*.parquet'."
        )
    other = [name for name in found if not name.endswith((".parquet", ".pq"))]
    if other:
        raise DataError(f"{listing(map(repr, other))} is no Parquet file.\n  Read it with pandas and give the frame.")
    return found


def _unbound() -> type:
    from ibis.expr.operations import UnboundTable

    return UnboundTable


def _bound(table: Any, lazily: Callable[[Any, pd.DataFrame], Any] = lambda query, _: query) -> Source:
    backend = table.get_backend()
    dialect = "" if backend.name == "polars" else {"pyspark": "spark"}.get(backend.name, backend.name)
    return Source(table, dialect, lambda query, _=None: backend.to_pandas(query), lazily=lazily)


def _of_relation(relation: Any) -> Source:
    """Reach a relation through SQL over itself: it does not give away its connection, and no view is left behind."""
    import ibis

    schema = ibis.Schema.from_pyarrow(relation.limit(0).to_arrow_table().schema)
    table = ibis.table(schema, name="source")

    def lazily(query: Any, group_effects: pd.DataFrame | None = None) -> Any:
        # DuckDB finds the table `group_effects` of the statement among the variables of this function.
        return relation.query("source", str(ibis.to_sql(query, dialect="duckdb")))

    def execute(query: Any, group_effects: pd.DataFrame | None = None) -> pd.DataFrame:
        return lazily(query, group_effects).to_arrow_table().to_pandas()

    return Source(table, "duckdb", execute, lazily=lazily)


class Elsewhere:
    """An array of rows that stays in its source: it has a shape, and says so when its values are asked for.

    Parameters
    ----------
    name : str
        What it holds.
    shape : tuple of int
        Its shape.
    columns : sequence of str
        Names, for a table.
    """

    def __init__(self, name: str, shape: tuple[int, ...], columns: Sequence[str] = ()) -> None:
        self.name, self.shape, self.columns = name, shape, tuple(columns)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.name}: {self.shape[0]:,} rows in their source>"

    def widened(self, width: int) -> Any:
        """Return the same with another number of columns."""
        return Elsewhere(self.name, (self.shape[0], width))

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise DataError(
            f"this needs the {self.name} row by row, and the {self.shape[0]:,} rows stay in their source.\n"
            "  Ask for it of a model on a sample: blm.model(formula, table.sample(0.01).to_pandas())."
        )

    __array__ = __getitem__ = __iter__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __matmul__ = __rmatmul__ = __neg__ = __abs__ = __truediv__ = __rtruediv__ = __array_ufunc__ = _refuse
    __eq__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._refuse()


def missing(table: Any, name: str) -> Any:
    """Return the condition that a value is missing: null, or not a number.

    Parameters
    ----------
    table : ibis.Table
        The table.
    name : str
        A column.

    Returns
    -------
    ibis expression
        Boolean.
    """
    column = table[name]
    return column.isnull() | column.isnan() if column.type().is_floating() else column.isnull()


def complete(table: Any, names: Sequence[str], counts: Mapping[str, int] | None = None) -> Any:
    """Return the table without rows where a column is missing.

    Parameters
    ----------
    table : ibis.Table
        The table.
    names : sequence of str
        Columns.
    counts : mapping of str to int, optional
        Missing values per column where known; a column without any is not looked at.

    Returns
    -------
    ibis.Table
        The rows.
    """
    needed = [name for name in names if counts is None or counts.get(name)]
    return table.filter(*(~missing(table, name) for name in needed)) if needed else table
