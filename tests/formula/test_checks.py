"""What the data must allow."""

import warnings

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError, DataWarning, FormulaError
from bayeslmm.formula.checks import independent_columns
from bayeslmm.formula.design import build_design


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ("1 x z", [0, 1, 2]),
        ("1 x x", [0, 1]),
        ("1 x 2x z", [0, 1, 3]),
        ("0 1 x", [1, 2]),
        ("x 1 x+1 z z-x", [0, 1, 3]),
        ("1 1 1", [0]),
        ("1 big", [0, 1]),
        ("1 tiny", [0, 1]),
        ("1 almost", [0]),
        ("1 year year2", [0, 1, 2]),
    ],
)
def test_of_dependent_columns_the_earliest_stay(columns, kept):
    rng = np.random.default_rng(0)
    x, z, one = rng.normal(size=50), rng.normal(size=50), np.ones(50)
    year = 2000 + np.arange(50) % 20
    known = {"1": one, "x": x, "z": z, "2x": 2 * x, "x+1": x + 1, "z-x": z - x, "0": 0 * x}
    known |= {"big": 1e9 * x, "tiny": 1e-12 * x, "almost": one + 1e-9 * x, "year": year, "year2": year**2}
    X = np.column_stack([known[name] for name in columns.split()]).astype(float)
    assert independent_columns(X).tolist() == kept


def test_more_columns_than_rows():
    X = np.random.default_rng(1).normal(size=(3, 5))
    assert independent_columns(X).tolist() == [0, 1, 2]


@pytest.fixture
def data():
    n = 30
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "f": np.array(["u", "v"])[np.arange(n) % 2],
            "g": np.repeat(np.arange(6), 5),
            "row": np.arange(n),
            "pair": np.arange(n) // 2,
            "one": "only",
        }
    )


def test_dropped_columns_are_named(data):
    with pytest.warns(DataWarning, match=r"1 column of X dropped, .*: I\(2 \* x\)\.") as caught:
        design = build_design("y ~ x + I(2 * x) + f + (1|g)", data)
    assert design.dropped_columns == ("I(2 * x)",)
    assert design.coef_names == ("Intercept", "x", "f[T.v]")
    assert caught[0].filename == __file__
    assert design.at(data.assign(x=1.0)).X.shape == (30, 3)


def test_one_level_of_a_category_is_named(data):
    with pytest.warns(DataWarning, match="one level only, and so no difference to estimate: one"):
        assert build_design("y ~ x + one", data).coef_names == ("Intercept", "x")


ONE_LEVEL_PER_ROW = [
    ("y ~ x + (1|row)", None, True),
    ("y ~ x + (x|row)", None, True),
    ("y ~ x + (x||row)", None, True),
    ("y ~ x + (0 + f|row)", None, True),
    ("y ~ x + (1|g:row)", None, True),
    ("y ~ x + (1|row)", "equal", True),
    ("y ~ x + (1|row)", "different", False),
    ("y ~ x + (0 + x|row)", None, False),
    ("y ~ x + (0 + x|row)", "inverse square", True),
    ("y ~ x + (1|pair)", None, False),
]


@pytest.mark.parametrize(("formula", "weights", "refused"), ONE_LEVEL_PER_ROW)
def test_a_level_per_row_is_refused_where_the_residual_is_the_same_thing(formula, weights, refused, data):
    rows = {None: None, "equal": np.full(30, 2.0), "different": np.arange(30) + 1.0}
    rows["inverse square"] = 1 / data["x"].to_numpy() ** 2
    if refused:
        with pytest.raises(DataError, match=r"every row has its own level of .* cannot be told from the residual"):
            build_design(formula, data, weights=rows[weights])
    else:
        build_design(formula, data, weights=rows[weights])


def test_other_families_have_no_residual(data):
    count = data.assign(y=np.arange(30) % 4)
    assert build_design("y ~ x + (1|row)", count, family="poisson").terms[0].levels[-1] == "29"


def test_more_effects_than_rows_are_mentioned(data):
    with pytest.warns(DataWarning, match=r"\(1 \+ x \| pair\) has 30 effects for 30 rows"):
        build_design("y ~ x + (x|pair)", data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_design("y ~ x + (x|g)", data)


def test_a_single_level_is_refused(data):
    with pytest.raises(DataError, match=r"grouping factor 'one' has one level \('only'\)") as caught:
        build_design("y ~ x + (1|one)", data)
    assert "Leave (1 | one) out" in str(caught.value)


def test_an_effect_that_comes_twice_is_refused(data):
    with pytest.raises(FormulaError) as caught:
        build_design("y ~ x + (1|g) + (x|g)", data)
    lines = str(caught.value).splitlines()
    assert lines[0] == "Intercept varies by 'g' in two terms, (1 | g) and (1 + x | g)"
    assert lines[1:3] == ["  y ~ x + (1|g) + (x|g)", "                  ^^^^^"]
    build_design("y ~ x + (1|g) + (0 + x|g)", data)


def test_too_few_rows(data):
    with pytest.raises(DataError, match="2 rows cannot support 2 coefficients and a variance"):
        build_design("y ~ x", data.iloc[:2])
    dated = data.assign(date=[f"2025-01-{day:02d}" for day in range(1, len(data) + 1)])
    with pytest.raises(DataError, match=rf"{len(data) - 1} of them are levels of 'date', text(.|\n)*pd.to_datetime"):
        build_design("y ~ date", dated)


def test_a_constant_response_varies_if_its_offset_does(data):
    with pytest.raises(DataError, match="the response 'y' is 3 in every row"):
        build_design("y ~ x", data.assign(y=3))
    build_design("y ~ x + offset(row)", data.assign(y=3))


def two_names_for_one_factor():
    rng = np.random.default_rng(1)
    groups = np.repeat(["a", "b", "c", "d"], 5)
    return {"y": rng.normal(size=20), "x": rng.normal(size=20), "g": groups, "h": np.char.add("level ", groups)}


def test_two_factors_that_split_alike_are_refused():
    with pytest.raises(
        DataError, match="'g' and 'h' split the rows in the same way, and Intercept varies by both"
    ) as error:
        build_design("y ~ x + (1 | g) + (1 | h)", two_names_for_one_factor())
    assert str(error.value).splitlines()[1:3] == ["  y ~ x + (1 | g) + (1 | h)", "                    ^^^^^^^"]


def test_two_factors_that_split_alike_may_share_the_work():
    design = build_design("y ~ x + (1 | g) + (0 + x | h)", two_names_for_one_factor())
    assert [term.factor for term in design.terms] == ["g", "h"]


def test_a_nested_factor_is_not_a_copy():
    data = two_names_for_one_factor()
    data["h"] = np.char.add(data["h"], np.tile(["1", "2"], 10))
    assert len(build_design("y ~ x + (1 | g) + (1 | h)", data).terms) == 2


def test_a_slope_that_does_not_vary_within_groups_is_named():
    data = two_names_for_one_factor()
    data["size"] = np.repeat([1.0, 3.0, 2.0, 5.0], 5)
    with pytest.warns(DataWarning, match=r"size does not vary within any level of 'g', so \(1 \+ size \| g\)"):
        build_design("y ~ x + (size | g)", data)
