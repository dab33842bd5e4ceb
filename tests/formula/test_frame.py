"""Data frames in: columns, missing rows, weights and offsets."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from bayeslmm.errors import DataError
from bayeslmm.formula.design import build_design
from bayeslmm.formula.frame import read_table, select_rows, values_of


@pytest.fixture
def pandas_frame():
    n = 24
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": np.where(np.arange(n) == 5, np.nan, rng.normal(size=n)),
            "i": np.arange(n),
            "b": np.arange(n) % 5 == 0,
            "f": pd.Categorical(np.array(["lo", "hi"])[np.arange(n) % 2], categories=["lo", "mid", "hi"], ordered=True),
            "s": np.array(["v", "u", "w"])[np.arange(n) % 3],
            "g": np.repeat(np.arange(4), 6),
        }
    )


def kinds(frame):
    f = frame["f"]
    plain = frame.assign(f=f.astype(str))
    enum = pl.from_pandas(plain).with_columns(pl.col("f").cast(pl.Enum(["lo", "mid", "hi"])))
    return {
        "pandas": frame,
        "pandas with an index": frame.set_index(pd.Index(np.arange(len(frame))[::-1] + 7)),
        "polars": enum,
        "pyarrow": pa.Table.from_pandas(frame),
        "dict": {name: frame[name].to_numpy() if name != "f" else f for name in frame},
        "nullable": frame.assign(x=frame["x"].astype("Float64"), i=frame["i"].astype("Int64")),
        "arrow dtypes": frame.drop(columns="f").convert_dtypes(dtype_backend="pyarrow").assign(f=f),
    }


@pytest.mark.parametrize(
    "kind", ["pandas", "pandas with an index", "polars", "pyarrow", "dict", "nullable", "arrow dtypes"]
)
def test_every_kind_of_frame_gives_the_same_design(kind, pandas_frame):
    formula = "y ~ x + i + b + f + s + (x|g) + (1|s:f)"
    expected = build_design(formula, pandas_frame)
    design = build_design(formula, kinds(pandas_frame)[kind])
    assert design.coef_names == expected.coef_names
    np.testing.assert_array_equal(design.X, expected.X)
    np.testing.assert_array_equal(design.y, expected.y)
    np.testing.assert_array_equal(design.rows, np.delete(np.arange(24), 5))
    assert design.missing == {"x": 1}
    for term, other in zip(design.terms, expected.terms, strict=True):
        assert term.levels == other.levels
        np.testing.assert_array_equal(term.codes, other.codes)
        np.testing.assert_array_equal(term.Z, other.Z)


def test_polars_categories_without_a_declared_order_are_sorted(pandas_frame):
    frame = pl.from_pandas(pandas_frame.assign(f=pandas_frame["f"].astype(str)))
    frame = frame.with_columns(pl.col("f").cast(pl.Categorical))
    assert build_design("y ~ s + (1|f)", frame).terms[0].levels == ("hi", "lo")


def test_the_callers_frame_is_neither_changed_nor_shared(pandas_frame):
    before = pandas_frame.copy(deep=True)
    design = build_design("y ~ i + f + (1|g)", pandas_frame)
    pd.testing.assert_frame_equal(pandas_frame, before)
    kept = design.data.copy(deep=True)
    pandas_frame.loc[:, "i"] = -1
    pandas_frame.loc[:, "y"] = -1.0
    pd.testing.assert_frame_equal(design.data, kept)
    assert design.X[3, 1] == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data of type int cannot be read"),
        (pl.DataFrame({"y": [1.0]}).lazy(), "collect\\(\\) a lazy frame before"),
        ({"y": [1, 2], "x": [1]}, "the columns differ in length: y 2, x 1"),
        ({"y": [[1, 2]], "x": [1]}, "data\\['y'\\] has shape"),
        ({"y": 1.0}, "a column has one dimension"),
    ],
)
def test_no_table(data, message):
    with pytest.raises(DataError, match=message):
        read_table(data)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.date_range("2020-01-01", periods=3), "holds dates or times"),
        (pd.to_timedelta([1, 2, 3], unit="D"), "holds dates or times"),
        (pd.period_range("2020-01", periods=3, freq="M"), "holds dates or times"),
        ([np.datetime64("2020-01-01").astype(object)] * 3, "holds dates or times"),
        ([1.0, np.inf, -np.inf], "is infinite in 2 rows"),
        ([1 + 2j, 3, 4], "complex numbers"),
        ([1, "a", 2.5], "mixes kinds of values"),
    ],
)
def test_columns_that_are_no_numbers_and_no_categories(values, message):
    with pytest.raises(DataError, match=message):
        values_of(pd.Series(values), "when")


def test_object_columns_of_numbers_are_numbers():
    from decimal import Decimal

    for values in ([1, 2.5], [Decimal("1"), Decimal("2.5")], [1, 2]):
        found = values_of(pd.Series(values, dtype=object), "x")
        assert found.dtype == np.float64
    assert values_of(pd.Series([True, False], dtype=object), "x").dtype == np.bool_


def test_rows_with_missing_values_are_counted_by_column():
    data = {
        "y": [1.0, np.nan, 3.0, 4.0, 5.0, 7.0],
        "x": [1.0, np.nan, np.nan, 4.0, 5.0, 6.5],
        "g": ["a", "b", "a", None, "b", "a"],
    }
    chosen = select_rows(read_table(data), ["y", "x", "g"], [1, 1, 1, 1, np.nan, 2], None)
    assert chosen.rows.missing == {"y": 1, "x": 2, "g": 1, "weights": 1}
    assert chosen.rows.kept.tolist() == [0, 5]
    assert chosen.weights.tolist() == [1, 2]
    assert chosen.frame["x"].tolist() == [1.0, 6.5]


def test_rows_without_an_offset_or_a_weight_are_left_out(pandas_frame):
    frame = pandas_frame.assign(o=np.where(np.arange(24) < 3, np.nan, 0.1), w=np.where(np.arange(24) > 21, np.nan, 2.0))
    design = build_design("y ~ b + (1|g)", frame, offset="o", weights="w")
    assert design.n == 19
    assert sum(design.missing.values()) == 5


def test_missing_values_in_columns_not_used_do_not_matter(pandas_frame):
    pandas_frame["z"] = np.nan
    assert build_design("y ~ i + (1|g)", pandas_frame).missing == {}


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("weights", np.ones(3), "weights has shape \\(3,\\), and the data have 24 rows"),
        ("weights", 2.0, "weights has shape \\(\\)"),
        ("weights", ["a"] * 24, "weights must be a column name or numbers"),
        ("weights", "ii", "weights='ii': there is no such column"),
        ("weights", "s", "weights='s' must hold numbers"),
        ("weights", "i", "weights must be positive; 1 row has a weight of zero or less"),
        ("weights", np.full(24, np.inf), "column 'weights' is infinite in 24 rows"),
        ("offset", "ofset", "offset='ofset': there is no such column"),
        ("offset", np.ones((24, 1)), "offset has shape"),
    ],
)
def test_bad_weights_and_offsets(argument, value, message, pandas_frame):
    with pytest.raises(DataError, match=message):
        build_design("y ~ b + (1|g)", pandas_frame, **{argument: value})


def test_weights_and_offsets_by_name_or_as_numbers(pandas_frame):
    frame = pandas_frame.assign(w=np.arange(24) + 1.0)
    by_name = build_design("y ~ b + (1|g)", frame, weights="w", offset="i")
    as_array = build_design("y ~ b + (1|g)", frame, weights=np.arange(24) + 1, offset=frame["i"])
    np.testing.assert_array_equal(by_name.weights, as_array.weights)
    np.testing.assert_array_equal(by_name.offset, as_array.offset)
    assert "w" in by_name.data
    assert build_design("y ~ b + (1|g)", frame, offset=2).offset.tolist() == [2.0] * 24
    assert build_design("y ~ b + (1|g)", frame).weights is None


def test_offsets_of_the_formula_and_the_argument_add_up(pandas_frame):
    design = build_design("y ~ b + offset(log(i + 1)) + offset(i) + (1|g)", pandas_frame, offset="i")
    i = np.arange(24)
    np.testing.assert_allclose(design.offset, np.log(i + 1) + 2 * i)
