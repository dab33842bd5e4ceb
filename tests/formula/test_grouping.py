"""Levels and codes."""

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError
from bayeslmm.formula.grouping import Levels, as_categorical, factorise, joint_levels, label, match, relevel

ORDERS = [
    ([10, 9, 10], ("9", "10")),
    ([10.0, 9.0, 10.0], ("9", "10")),
    (["10", "9", "10"], ("10", "9")),
    (["b", "a", "B"], ("B", "a", "b")),
    ([True, False, True], ("False", "True")),
    ([2, "b", 1, "a"], ("1", "2", "a", "b")),
    (["1", 1, 2], ("1", "2")),
    (pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"]), ("lo", "hi")),
    (pd.Categorical([3, 1], categories=[3, 2, 1]), ("3", "1")),
    (pd.array([2, 1, 2], dtype="Int64"), ("1", "2")),
    (pd.to_datetime(["2020-02-01", "2020-01-01"]), ("2020-01-01 00:00:00", "2020-02-01 00:00:00")),
    (pd.array(["b", "a"], dtype="string"), ("a", "b")),
]


@pytest.mark.parametrize(("values", "labels"), ORDERS, ids=[str(row[1]) for row in ORDERS])
def test_levels_come_in_their_natural_order(values, labels):
    found = factorise(pd.Series(values))
    if isinstance(values, pd.DatetimeIndex):
        assert len(found.labels) == 2
        assert found.labels == tuple(sorted(found.labels))
    else:
        assert found.labels == labels
        assert [found.labels[code] for code in found.codes] == [label(value) for value in values]
    assert found.codes.dtype == np.int32


def test_missing_values_have_no_level():
    assert factorise(pd.Series(["b", None, "a"])).codes.tolist() == [1, -1, 0]
    assert factorise(pd.Series([2.0, np.nan, 1.0])).codes.tolist() == [1, -1, 0]
    assert factorise(pd.Series(pd.Categorical(["b", None], categories=["a", "b"]))).codes.tolist() == [0, -1]


def test_joint_levels_agree_with_a_loop_over_rows():
    rng = np.random.default_rng(1)
    columns = [
        pd.Series(rng.choice(list("wxyz"), 200)),
        pd.Series(rng.integers(8, 12, 200)),
        pd.Series(rng.random(200) > 0.5),
    ]
    parts = [factorise(column) for column in columns]
    joint = joint_levels(parts, "a:b:c")
    rows = list(zip(*(part.codes.tolist() for part in parts), strict=True))
    ordered = sorted(set(rows))
    assert joint.labels == tuple(
        ":".join(part.labels[c] for part, c in zip(parts, row, strict=True)) for row in ordered
    )
    assert joint.codes.tolist() == [ordered.index(row) for row in rows]


def test_joint_labels_that_coincide_are_refused():
    a, b = Levels(np.array([0, 1]), ("x", "x:y")), Levels(np.array([1, 0]), ("z", "y:z"))
    with pytest.raises(DataError, match="levels of 'a:b' cannot be told apart"):
        joint_levels([a, b], "a:b")


def test_unseen_levels_follow_the_fitted_ones_in_their_own_order():
    found = factorise(pd.Series(["b", "new", "a", "other", "new"]))
    codes, unseen = match(found, ("a", "b", "c"))
    assert codes.tolist() == [1, 3, 0, 4, 3]
    assert unseen == ("new", "other")
    assert match(factorise(pd.Series([308.0])), ("308",))[0].tolist() == [0]


def test_categories_are_named_by_text():
    assert list(as_categorical(np.array([0.5, 2.0, 1.0])).categories) == ["0.5", "1", "2"]


def test_relevel_names_strangers():
    with pytest.raises(DataError) as caught:
        relevel(pd.Categorical(["a", "bb", "bb"]), ["a", "b"], "f")
    assert "'f' holds 'bb', not among its levels (2 rows)" in str(caught.value)
    assert "Did you mean 'b'?" in str(caught.value)


def test_a_million_rows_take_no_loop_over_rows(monkeypatch):
    n = 1_000_000
    rng = np.random.default_rng(0)
    calls = []
    monkeypatch.setattr("bayeslmm.formula.grouping.label", lambda value: calls.append(value) or str(value))
    parts = [factorise(pd.Series(rng.integers(0, 50, n))), factorise(pd.Series(rng.choice(["a", "b"], n)))]
    assert len(joint_levels(parts, "a:b").labels) == 100
    assert len(calls) < 200
