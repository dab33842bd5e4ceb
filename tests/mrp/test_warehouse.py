"""Poll and census in a database give the estimates of the same tables in memory, and go back as a table elsewhere."""

from pathlib import Path

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError
from tests.formula.test_pushdown import spark  # noqa: F401  a fixture

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'bayeslmm[scale]'")
ibis = pytest.importorskip("ibis", reason="ibis is not installed: pip install 'bayeslmm[scale]'")

FORMULA = "yes ~ sex + (1 | state) + (1 | age)"
CELLS = ["state", "sex", "age"]


@pytest.fixture(scope="module")
def simulated():
    return blm.datasets.simulate_poll(1500, seed=1)


@pytest.fixture
def warehouse(simulated, tmp_path):
    """A DuckDB file with the poll and the census, one row per cell."""
    path = tmp_path / "warehouse.duckdb"
    poll, census = (table.astype(str_columns(table)) for table in (simulated.poll, simulated.population))
    with duckdb.connect(path) as connection:
        connection.register("p", poll)
        connection.register("c", census)
        connection.execute("create table poll as select * from p")
        connection.execute("create table census as select * from c")
    return path


def str_columns(table):
    return {name: str for name in table if table[name].dtype.kind not in "iuf"}


def estimates(poll, census):
    model = blm.model(FORMULA, poll, family="bernoulli")
    frame = blm.PoststratFrame.from_microdata(census, CELLS, weights="n")
    assert not [finding for finding in frame.check(model).findings if finding.severity == "error"]
    return blm.poststratify(model.fit(), frame, by="state", new_levels="sample", seed=1)


def assert_same(found, expected):
    assert list(found.groups["state"]) == list(expected.groups["state"])
    np.testing.assert_allclose(found.estimate, expected.estimate, rtol=1e-9)
    np.testing.assert_allclose(found.population, expected.population)
    for name in ("n", "raw", "raw_se"):
        np.testing.assert_allclose(found.survey[name], expected.survey[name], rtol=1e-9)


def test_poll_and_census_in_a_duckdb_file(simulated, warehouse, tmp_path):
    before = warehouse.read_bytes(), warehouse.stat().st_mtime_ns
    expected = estimates(simulated.poll, simulated.population)
    results = tmp_path / "results.duckdb"
    with duckdb.connect(warehouse, read_only=True) as source, duckdb.connect(results) as target:
        found = estimates(source.table("poll"), source.table("census"))
        assert_same(found, expected)
        written = found.to_table(target, "by_state")
        assert written.columns == list(found.to_pandas().columns)
        with pytest.raises(DataError, match=r"there is a table 'by_state' already"):
            found.to_table(target, "by_state")
        found.to_table(target, "by_state", overwrite=True)
        with pytest.raises(DataError, match=r"'elsewhere' was not written: (.|\n)*read-only"):
            found.to_table(source, "elsewhere")
    back = duckdb.connect(results, read_only=True).table("by_state").df()
    np.testing.assert_allclose(back["estimate"], expected.estimate, rtol=1e-9)
    assert (warehouse.read_bytes(), warehouse.stat().st_mtime_ns) == before
    assert not Path(f"{warehouse}.wal").exists()


def test_ibis_tables_and_globs(simulated, warehouse, tmp_path):
    expected = estimates(simulated.poll, simulated.population)
    backend = ibis.duckdb.connect(warehouse, read_only=True)
    found = estimates(backend.table("poll"), backend.table("census"))
    assert_same(found, expected)
    written = found.to_table(ibis.duckdb.connect(), "by_state")
    np.testing.assert_allclose(written.to_pandas()["estimate"], expected.estimate, rtol=1e-9)
    half = len(simulated.population) // 2
    for name, part in (("a", slice(None, half)), ("b", slice(half, None))):
        rows = simulated.population.iloc[part]
        rows.astype(str_columns(rows)).to_parquet(tmp_path / f"{name}.parquet")
    frame = blm.PoststratFrame.from_microdata(str(tmp_path / "*.parquet"), CELLS, weights="n")
    assert frame.total == simulated.population["n"].sum()


def test_poll_and_census_in_spark(simulated, spark, tmp_path):  # noqa: F811
    expected = estimates(simulated.poll, simulated.population)
    tables = []
    for name, table in (("poll", simulated.poll), ("census", simulated.population)):
        table.astype(str_columns(table)).to_parquet(tmp_path / f"{name}.parquet")
        tables.append(spark.read_parquet(str(tmp_path / f"{name}.parquet"), table_name=f"warehouse_{name}"))
    found = estimates(*tables)
    assert_same(found, expected)
    spark._session.sql(f"create database if not exists results location '{tmp_path}/results'")
    spark._session.sql("use results")
    written = found.to_table(spark, "by_state")
    np.testing.assert_allclose(np.sort(written.to_pandas()["estimate"]), np.sort(expected.estimate), rtol=1e-9)
    spark._session.sql("use default")
    spark._session.sql("drop database results cascade")


def test_what_is_no_connection_is_named(simulated):
    found = estimates(simulated.poll, simulated.population)
    with pytest.raises(DataError, match=r"a str is no connection(.|\n)*duckdb.connect"):
        found.to_table("results.duckdb", "by_state")
