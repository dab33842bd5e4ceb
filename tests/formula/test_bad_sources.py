"""What can go wrong with a table that somebody else keeps: each is named."""

import threading

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, FormulaError

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'bayeslmm[scale]'")
pytest.importorskip("ibis", reason="ibis is not installed: pip install 'bayeslmm[scale]'")
FORMULA = "y ~ x + (1 | g)"


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    g = rng.integers(6, size=200)
    x = rng.normal(size=200)
    return pd.DataFrame({"y": x + g / 2 + rng.normal(size=200), "x": x, "g": g.astype(str)})


def test_columns_that_are_missing_or_of_the_wrong_type_are_named(rows):
    connection = duckdb.connect()
    with pytest.raises(FormulaError, match=r"no column 'z'(.|\n)*\^"):
        blm.model("y ~ z + (1 | g)", connection.from_df(rows))
    with pytest.raises(DataError, match=r"'x' is of type date(.|\n)*mutate"):
        blm.model(FORMULA, connection.from_df(rows).project("y, date '2020-01-01' as x, g"))
    with pytest.raises(DataError, match=r"'y' holds text"):
        blm.model(FORMULA, connection.from_df(rows.assign(y="high")))


def test_nulls_in_a_grouping_column_are_counted(rows):
    rows.loc[[1, 5, 8], "g"] = None
    fit = blm.model(FORMULA, duckdb.connect().from_df(rows)).fit()
    assert (fit.n_obs, fit.design.n_total, dict(fit.design.missing)) == (197, 200, {"g": 3})


def test_an_error_of_the_engine_keeps_its_message(rows):
    x = "cast(case when x > 0 then 'much' else '1' end as double) as x"
    broken = duckdb.connect().from_df(rows).project(f"y, {x}, g")
    with pytest.raises(
        DataError, match=r"duckdb could not compute the first scan(.|\n)*'much'(.|\n)*nothing was written"
    ):
        blm.model(FORMULA, broken)


def test_an_interrupted_query_says_so():
    connection = duckdb.connect()
    y = "sum(i) over (order by i) + random() as y"
    endless = connection.sql(f"select {y}, random() as x, i % 9 as g from range(200000000) r(i)")
    over = threading.Event()

    def interrupt() -> None:  # again and again: an interrupt that comes between two queries stops neither
        while not over.wait(0.5):
            connection.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(DataError, match=r"(?i)interrupt(.|\n)*nothing was written"):
            blm.model(FORMULA, endless)
    finally:
        over.set()
        thread.join()
