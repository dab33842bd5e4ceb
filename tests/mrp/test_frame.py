"""Frames from every source, their changes, and counts that cannot be used."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from bayeslmm.errors import DataError
from bayeslmm.mrp.frame import PoststratFrame
from bayeslmm.mrp.recoding import group_predictors


@pytest.fixture
def frame(cells):
    return PoststratFrame(cells)


def same(a, b):
    pd.testing.assert_frame_equal(a.data, b.data, check_dtype=False)


SOURCES = {
    "pandas": lambda cells, folder: cells,
    "polars": lambda cells, folder: pl.DataFrame(cells.to_dict("list")),
    "polars lazy": lambda cells, folder: pl.DataFrame(cells.to_dict("list")).lazy(),
    "pyarrow": lambda cells, folder: pa.Table.from_pandas(cells, preserve_index=False),
    "mapping": lambda cells, folder: cells.to_dict("list"),
    "parquet": lambda cells, folder: cells.to_parquet(folder / "cells.parquet") or folder / "cells.parquet",
    "path as text": lambda cells, folder: cells.to_parquet(folder / "c.parquet") or str(folder / "c.parquet"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_cells(cells, tmp_path, source):
    same(PoststratFrame(SOURCES[source](cells, tmp_path)), PoststratFrame(cells))


def test_a_database_sums_microdata_before_they_are_loaded(cells):
    duckdb = pytest.importorskip("duckdb")
    people = duckdb.from_arrow(pa.Table.from_pandas(cells, preserve_index=False))
    frame = PoststratFrame.from_microdata(people, ["state", "age"], weights="n")
    same(frame, PoststratFrame(cells).by("state", "age"))


def test_an_ibis_table_is_summed_too(cells):
    ibis = pytest.importorskip("ibis")
    frame = PoststratFrame.from_microdata(ibis.memtable(cells), ["state"], weights="n")
    same(frame, PoststratFrame(cells).by("state"))


def test_microdata_are_counted_or_weighed(poll):
    counted = PoststratFrame.from_microdata(poll, ["state", "sex"])
    assert counted.total == len(poll)
    weighed = PoststratFrame.from_microdata(poll, ["state", "sex"], weights="w", counts="people")
    expected = poll.groupby(["state", "sex"])["w"].sum()
    np.testing.assert_allclose(weighed.weights, expected)
    assert weighed.counts == "people"


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, -1], r"negative in 1 cell \(row 1, from 0\)"),
        ([-1, -1], r"negative in 2 cells \(rows 0, 1, from 0\)"),
        ([1, np.nan], r"missing or infinite in 1 cell "),
        ([1, np.inf], r"missing or infinite"),
        ([0, 0], r"all zero"),
        (["1", "2"], r"not numbers"),
        ([True, False], r"not numbers"),
    ],
)
def test_unusable_counts_are_refused(counts, message):
    with pytest.raises(DataError, match=message):
        PoststratFrame({"g": ["a", "b"], "n": counts})


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({"g": ["a"], "N": [1]}, {}, r"(?s)no column 'n'.*Did you mean 'N'"),
        (3.5, {}, r"a float is not a table"),
        ("nowhere.parquet", {}, r"no file 'nowhere.parquet'"),
        ({"g": [], "n": np.array([], dtype=float)}, {}, r"no cells"),
    ],
)
def test_what_is_no_frame_is_refused(source, options, message):
    with pytest.raises(DataError, match=message):
        PoststratFrame(source, **options)


@pytest.mark.parametrize("source", ["pandas", "polars", "polars lazy", "pyarrow", "duckdb"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, None, 2.0], r"the weights 'w' are missing in 1 row\."),
        ([3.0, -1.0, -1.0], r"the weights 'w' are negative in 2 rows\."),
        (["a", "b", "c"], r"the weights 'w' are not numbers"),
    ],
)
def test_weights_that_a_sum_would_hide_are_refused(source, weights, message):
    people = pa.table({"g": ["a", "a", "b"], "w": weights})
    if source == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        given = duckdb.from_arrow(people)
    else:
        given = {
            "pandas": people.to_pandas,
            "polars": lambda: pl.from_arrow(people),
            "polars lazy": lambda: pl.from_arrow(people).lazy(),
            "pyarrow": lambda: people,
        }[source]()
    with pytest.raises(DataError, match=message):
        PoststratFrame.from_microdata(given, ["g"], weights="w")


def test_a_text_file_is_not_taken_for_parquet(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("g,n\na,1\n")
    with pytest.raises(DataError, match="not a Parquet file"):
        PoststratFrame(path)


def test_collapsing_keeps_the_total_and_the_original(frame, cells):
    states = frame.by("state")
    assert states.covariates == ("state",)
    assert states.total == frame.total
    assert len(frame) == len(cells)
    with pytest.raises(DataError, match="no column 'stat'"):
        frame.by("stat")


def test_crossing_splits_by_proportions_within(frame):
    by_age = PoststratFrame({"age": ["18-44", "18-44", "45+"], "educ": ["lo", "hi", "lo"], "n": [1, 3, 10]})
    crossed = frame.cross(by_age, on=["age"])
    same(crossed.by("state", "age", "sex"), frame.by("state", "age", "sex"))
    young = crossed.filter({"age": "18-44"})
    assert young.filter({"educ": "hi"}).total == pytest.approx(0.75 * young.total)
    with pytest.raises(DataError, match="both frames have 'age'"):
        frame.cross(by_age)
    with pytest.raises(DataError, match="the other frame lacks"):
        frame.cross(by_age.filter({"age": "45+"}), on=["age"])


def test_filters(frame, cells):
    assert (
        frame.filter({"state": ["CA", "TX"], "sex": "f"}).total
        == cells.query("state != 'NY' and sex == 'f'")["n"].sum()
    )
    assert frame.filter((cells["n"] > 100).to_numpy()).weights.min() > 100
    with pytest.raises(DataError, match="no cell has 'sex' equal to 'x'"):
        frame.filter({"sex": "x"})
    with pytest.raises(DataError, match="no cell is left"):
        frame.filter(np.zeros(len(cells), dtype=bool))


def test_other_counts(frame, cells):
    turnout = PoststratFrame(cells.assign(voters=cells["n"] // 2)).with_counts("voters")
    assert turnout.total == (cells["n"] // 2).sum()
    assert "n" not in turnout.data
    assert frame.with_counts(np.arange(1, 13)).total == 78
    with pytest.raises(DataError, match="12 cells"):
        frame.with_counts([1.0])
    with pytest.raises(DataError, match="negative"):
        frame.with_counts(-cells["n"])


def test_recoding_merges_cells_and_keeps_the_audit(frame):
    merged = frame.recode({"state": {"NY": "CA"}})
    assert merged.by("state").data.set_index("state")["n"].to_dict() == {
        "CA": frame.filter({"state": ["CA", "NY"]}).total,
        "TX": frame.filter({"state": "TX"}).total,
    }
    assert "mapped" in str(merged.describe())
    assert merged.total == frame.total


def test_group_predictors_join(frame):
    votes = group_predictors({"state": ["CA", "NY", "TX"], "dem": [0.6, 0.5, 0.4]}, on="state")
    joined = frame.join(votes)
    assert joined.data.groupby("state")["dem"].first().round(9).to_dict() == {"CA": 1.0, "NY": 0.0, "TX": -1.0}
    with pytest.raises(DataError, match="already have 'dem'"):
        joined.join(votes)


def test_describe_counts_levels_and_missing_cells(cells):
    cells["sex"] = cells["sex"].where(np.arange(len(cells)) > 0)
    table = PoststratFrame(cells).describe().to_pandas()
    assert table.loc["state", "levels"] == 3
    assert table.loc["sex", "missing cells"] == 1
    assert "<table" in PoststratFrame(cells)._repr_html_()
