"""A formula met by data, and met again by other data."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError, FormulaError
from bayeslmm.formula.design import Design, build_design
from bayeslmm.formula.parse import parse_formula


@pytest.fixture
def data():
    rng = np.random.default_rng(11)
    n = 48
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.uniform(1, 4, size=n),
            "f": pd.Categorical(np.array(["lo", "mid", "hi"])[np.arange(n) % 3], categories=["lo", "mid", "hi", "no"]),
            "k": np.arange(n) % 4,
            "a": np.array(["A", "B", "C"])[np.arange(n) // 16],
            "b": np.array(list("pqrs"))[np.arange(n) // 4 % 4],
            "s": np.arange(n) % 6 + 300,
            "w": rng.uniform(1, 2, size=n),
        },
        index=np.arange(n) + 100,
    )


def test_shapes_types_and_names(data):
    design = build_design("y ~ x + f + (x|a/b) + (1|s)", data)
    assert design.formula == parse_formula("y ~ x + f + (x|a/b) + (1|s)")
    assert design.X.shape == (48, 4)
    assert design.coef_names == ("Intercept", "x", "f[T.mid]", "f[T.hi]")
    assert [term.factor for term in design.terms] == ["b:a", "a", "s"]
    assert design.n == design.n_total == 48
    assert design.weights is None
    assert design.offset is None
    assert design.trials is None
    for term in design.terms:
        assert term.Z.dtype == np.float64
        assert term.Z.flags.c_contiguous
        assert term.codes.dtype == np.int32
        assert term.codes.min() == 0
        assert term.codes.max() == len(term.levels) - 1
    assert design.terms[2].levels == ("300", "301", "302", "303", "304", "305")
    assert set(design.data.columns) == {"y", "x", "f", "a", "b", "s"}


def test_nested_levels_are_named_inner_first(data):
    inner, outer = build_design("y ~ 1 + (1|a/b)", data).terms
    assert inner.factor == "b:a"
    assert outer.levels == ("A", "B", "C")
    assert len(inner.levels) == 12
    assert inner.levels[:4] == ("p:A", "p:B", "p:C", "q:A")
    rows = [f"{b}:{a}" for a, b in zip(data["a"], data["b"], strict=True)]
    assert [inner.levels[code] for code in inner.codes] == rows


def test_crossed_and_explicit_interactions(data):
    names = [term.factor for term in build_design("y ~ 1 + (1|a*b)", data).terms]
    assert names == ["a", "b", "a:b"]
    assert build_design("y ~ 1 + (1|a:b)", data).terms[0].levels[0] == "A:p"


def test_terms_of_one_factor_are_merged_in_order_of_appearance(data):
    a, s = build_design("y ~ x + (1|a) + (0 + x|s) + (0 + x|a)", data).factors
    assert (a.name, a.term_indices, a.effects) == ("a", (0, 2), ("Intercept", "x"))
    assert (s.name, s.term_indices, s.effects) == ("s", (1,), ("x",))
    np.testing.assert_array_equal(a.Z, np.column_stack([np.ones(48), data["x"]]))
    assert a.Z.flags.c_contiguous


def test_missing_rows_are_dropped_counted_and_placed(data):
    data.loc[103, "x"] = np.nan
    data.loc[[103, 110], "a"] = None
    design = build_design("y ~ x + (1|a)", data)
    assert design.missing == {"x": 1, "a": 2}
    assert design.n_total == 48
    np.testing.assert_array_equal(design.rows, np.delete(np.arange(48), [3, 10]))
    assert len(design.data) == design.n == 46
    assert "2 dropped" in repr(design)


def test_levels_that_only_occur_in_dropped_rows_are_gone(data):
    data.loc[data["f"] == "mid", "x"] = np.nan
    data.loc[data["a"] == "A", "x"] = np.nan
    design = build_design("y ~ x + f + (1|a)", data)
    assert design.coef_names == ("Intercept", "x", "f[T.hi]")
    assert design.terms[0].levels == ("B", "C")


def test_weights_and_offsets_follow_the_rows(data):
    data.loc[105, "x"] = np.nan
    design = build_design("y ~ x + (1|a)", data, weights=np.arange(48) + 1, offset=np.arange(48))
    np.testing.assert_array_equal(design.weights, np.delete(np.arange(48) + 1, 5))
    np.testing.assert_array_equal(design.offset, np.delete(np.arange(48), 5))


STATEFUL = [
    "y ~ scale(x) + (scale(x)|a)",
    "y ~ poly(x, 3) + (1|a)",
    "y ~ bs(x, df=5) + (bs(x, df=4)|s)",
    "y ~ cr(x, df=4) - 1 + (1|a)",
    "y ~ center(log(x)):f + (0 + f||a)",
    "y ~ C(k, Sum)*x + (1|a)",
    "y ~ C(f, Treatment('hi')) + C(k, levels=[3, 2, 1, 0]) + (1|a/b)",
    "y ~ standardize(x) + offset(center(w)) + (1|a)",
    "y ~ I(f == 'mid') + I(x^2) + (1|s)",
]


@pytest.mark.parametrize("formula", STATEFUL)
def test_new_rows_get_the_coding_of_the_fitted_ones(formula, data):
    design = build_design(formula, data)
    chosen = [7, 3, 40, 3]
    for again in (design.at(data.iloc[chosen]), design.at(data.iloc[chosen].drop(columns="y"))):
        np.testing.assert_allclose(again.X, design.X[chosen], atol=1e-12)
        for term, other in zip(again.terms, design.terms, strict=True):
            np.testing.assert_allclose(term.Z, other.Z[chosen], atol=1e-12)
            np.testing.assert_array_equal(term.codes, other.codes[chosen])
            assert term.levels == other.levels
            assert term.new_levels == ()
        if design.offset is not None:
            np.testing.assert_allclose(again.offset, design.offset[chosen], atol=1e-12)
    np.testing.assert_allclose(design.at(data).X, design.X, atol=1e-12)


def test_one_new_row_with_one_category_is_enough(data):
    design = build_design("y ~ f*x + (f|a)", data)
    one = design.at({"f": ["hi"], "x": [2.0], "a": ["B"]})
    assert one.y is None
    np.testing.assert_array_equal(one.X, [[1, 0, 1, 2, 0, 2]])
    np.testing.assert_array_equal(one.terms[0].Z, [[1, 0, 1]])


def test_no_new_rows(data):
    design = build_design("y ~ f + x + (x|a)", data)
    assert design.at(data.iloc[:0]).X.shape == (0, 4)


def test_unseen_levels_share_a_code_after_the_fitted_ones(data):
    design = build_design("y ~ x + (1|a/b) + (1|s)", data)
    new = design.at({"x": [1.0, 2.0, 3.0, 4.0], "a": ["Z", "A", "Z", "B"], "b": ["p"] * 4, "s": [300, 1, 1, 2]})
    inner, outer, s = new.factors
    assert outer.codes.tolist() == [3, 0, 3, 1]
    assert outer.new_levels == ("Z",)
    assert inner.new_levels == ("p:Z",)
    assert inner.codes.tolist() == [12, 0, 12, 1]
    assert s.codes.tolist() == [0, 6, 6, 7]
    assert s.new_levels == ("1", "2")


def test_levels_are_matched_by_name(data):
    design = build_design("y ~ h + (1|s)", data.assign(h=data["k"].astype("category")))
    for s, h in (([301.0], [2.0]), (["301"], ["2"]), (pd.Categorical([301]), pd.Categorical([2]))):
        new = design.at({"s": s, "h": h})
        assert new.terms[0].codes.tolist() == [1]
        np.testing.assert_array_equal(new.X, [[1, 0, 1, 0]])


def test_the_response_is_read_where_it_is_there(data):
    design = build_design("log(x) ~ k + (1|a)", data)
    np.testing.assert_allclose(design.at(data.iloc[:4]).y, design.y[:4])
    gone = data.iloc[:4].assign(x=[1.0, np.nan, 2.0, 3.0])
    assert design.at(gone).y is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f": "new"}, "'f' holds 'new', not among its levels \\(2 rows\\)"),
        ({"x": "text"}, "column 'x' held numbers in the fitted data and holds text or categories here"),
        ({"x": [1.0, np.nan]}, "the new data have missing values: x \\(1 row\\)"),
        ({"a": [None, None]}, "the new data have missing values: a \\(2 rows\\)"),
        ({"x": [1.0, np.inf]}, "column 'x' is infinite in 1 row"),
        ({"x": [2.0, 99.0]}, "extrapolation='extend' or 'clip'"),
    ],
)
def test_new_data_that_do_not_fit(change, message, data):
    design = build_design("y ~ bs(x, df=4) + f + (1|a)", data)
    with pytest.raises(DataError, match=message):
        design.at(data.iloc[:2].assign(**change))


def test_new_levels_of_c_of_numbers_are_refused(data):
    design = build_design("y ~ C(k) + (1|a)", data)
    with pytest.raises(DataError, match="'k' holds '9', not among its levels \\(1 row\\)"):
        design.at({"k": [1, 9], "a": ["A", "A"]})


def test_absent_columns_are_named(data):
    design = build_design("y ~ x + f + (1|a)", data)
    with pytest.raises(DataError, match="the new data have no columns 'x', 'f'"):
        design.at(data[["a"]])
    with pytest.raises(DataError, match="the new data have no column 'a'"):
        design.at(data[["x", "f"]])


def test_missing_values_in_new_data_can_be_dropped(data):
    design = build_design("y ~ x + (1|a)", data)
    new = design.at(data.iloc[:4].assign(x=[1.0, np.nan, 2.0, 3.0]), na="drop")
    assert new.rows.tolist() == [0, 2, 3]
    assert new.missing == {"x": 1}
    with pytest.raises(DataError, match="na='ignore' is neither"):
        design.at(data, na="ignore")


def test_weights_and_offsets_in_new_data(data):
    named = build_design("y ~ x + (1|a)", data, weights="w", offset="w")
    new = named.at(data.iloc[:3])
    np.testing.assert_array_equal(new.weights, data["w"].iloc[:3])
    np.testing.assert_array_equal(new.offset, data["w"].iloc[:3])
    with pytest.raises(DataError, match="offset='w': there is no such column"):
        named.at(data.iloc[:3].drop(columns="w"))
    arrays = build_design("y ~ x + (1|a)", data, weights=data["w"], offset=data["w"])
    with pytest.raises(DataError, match="an offset given as numbers, which new data do not have"):
        arrays.at(data.iloc[:3])
    assert arrays.at(data.iloc[:3], offset=0).offset.tolist() == [0, 0, 0]
    assert arrays.at(data.iloc[:3], offset=0).weights is None


def test_a_design_survives_pickle_and_copy(data):
    design = build_design("y ~ scale(x)*C(f, Sum) + poly(w, 2) + (x|a/b)", data)
    for twin in (pickle.loads(pickle.dumps(design)), copy.deepcopy(design)):
        np.testing.assert_array_equal(twin.X, design.X)
        np.testing.assert_array_equal(twin.at(data.iloc[5:9]).X, design.at(data.iloc[5:9]).X)


def test_predicting_changes_nothing_in_the_fitted_design(data):
    design = build_design("y ~ scale(x) + bs(w, df=4) + C(k) + (1|a)", data)
    before = pickle.dumps(design)
    design.at(data.iloc[:3])
    assert pickle.dumps(design) == before


def test_from_arrays_is_the_same_as_the_formula(data):
    design = build_design("y ~ x + (x|a) + (1|s)", data, weights="w")
    ones = np.ones(48)
    matrices = Design.from_arrays(
        data["y"],
        np.column_stack([ones, data["x"]]),
        [(np.column_stack([ones, data["x"]]), data["a"], "a"), (ones, data["s"])],
        weights=data["w"],
        coef_names=["Intercept", "x"],
    )
    np.testing.assert_array_equal(matrices.X, design.X)
    np.testing.assert_array_equal(matrices.weights, design.weights)
    assert matrices.coef_names == design.coef_names
    assert [factor.name for factor in matrices.factors] == ["a", "g2"]
    for ours, theirs in zip(matrices.factors, design.factors, strict=True):
        np.testing.assert_array_equal(ours.Z, theirs.Z)
        np.testing.assert_array_equal(ours.codes, theirs.codes)
        assert ours.levels == theirs.levels
    assert matrices.terms[0].effects == ("Intercept", "z1_2")


@pytest.mark.parametrize(
    ("X", "terms", "options", "message"),
    [
        (np.ones((4, 2, 2)), [], {}, "X has shape"),
        (np.ones((4, 1)), [], {"coef_names": ["a", "b"]}, "coef_names: 2 names for 1 columns"),
        (np.ones((4, 1)), [(np.ones(4), [1, 1, 2, 2], "g", "un")], {}, "'un' is no covariance structure"),
        (np.ones((4, 1)), [(np.ones(4), [1, 1, 2, 2], "y")], {}, "the name 'y' already stands for another column"),
        (np.ones((3, 1)), [], {}, "the columns differ in length"),
    ],
)
def test_matrices_that_do_not_fit(X, terms, options, message):
    with pytest.raises(DataError, match=message):
        Design.from_arrays([1.0, 2.0, 3.0, 5.0], X, terms, **options)


@pytest.mark.parametrize("name", ["class", "a b", "β", "Sepal.Length", "T", "1st", "x:y", "TRUE", "(1 | g)"])
def test_any_name_works_everywhere(name, data):
    quoted = f"`{name}`"
    fixed = build_design(f"y ~ {quoted} + ({quoted}|a)", data.rename(columns={"x": name}))
    assert fixed.coef_names == ("Intercept", name)
    assert fixed.terms[0].effects == ("Intercept", name)
    inside = build_design(f"y ~ log({quoted}) + I({quoted}^2)", data.rename(columns={"x": name}))
    np.testing.assert_allclose(inside.X[:, 1], np.log(data["x"]))
    group = build_design(f"y ~ x + (1|{quoted}/b)", data.rename(columns={"a": name}))
    assert [term.factor for term in group.terms] == [f"b:{name}", name]
    response = build_design(f"{quoted} ~ x + (1|a)", data.rename(columns={"y": name}))
    np.testing.assert_array_equal(response.y, data["y"])


@pytest.mark.parametrize("name", ["class", "β", "lambda", "Sepal.Length", "_x", "None"])
def test_names_of_words_need_no_quotes(name, data):
    design = build_design(f"y ~ {name} + log({name}) + ({name}|a)", data.rename(columns={"x": name}))
    assert design.coef_names == ("Intercept", name, f"log({name})")


def test_an_unknown_column_is_underlined_and_the_nearest_offered(data):
    for formula, caret in (
        ("y ~ xx + (1|a)", "      ^^"),
        ("y ~ x + (1|aa)", "             ^^"),
        ("y ~ x + log(xx)", "              ^^"),
        ("yy ~ x", "  ^^"),
    ):
        with pytest.raises(FormulaError) as caught:
            build_design(formula, data)
        lines = str(caught.value).splitlines()
        assert lines[0].startswith("there is no column '")
        assert lines[1:3] == [f"  {formula}", caret]
        assert "Columns: y, x, f, k, a, b, s, w." in lines[3]


def test_duplicate_column_names_matter_only_if_used(data):
    twice = pd.concat([data, data[["x"]]], axis=1)
    with pytest.raises(DataError, match="2 columns are called 'x'"):
        build_design("y ~ x + (1|a)", twice)
    assert build_design("y ~ k + (1|a)", twice).n == 48


def test_no_rows_and_no_complete_rows(data):
    with pytest.raises(DataError, match="the data have no rows"):
        build_design("y ~ x", data.iloc[:0])
    with pytest.raises(DataError, match=r"every one of the 48 rows has a missing value.\n  Missing: x 48"):
        build_design("y ~ x", data.assign(x=np.nan))


@pytest.mark.parametrize(("values", "labels"), [([1.0, 2.0], ("1", "2")), ([True, False], ("False", "True"))])
def test_groups_given_as_whole_floats_or_truth_values(values, labels, data):
    design = build_design("y ~ x + (1|h)", data.assign(h=np.resize(values, 48)))
    assert design.terms[0].levels == labels


def test_groups_given_as_other_floats_are_refused(data):
    with pytest.raises(DataError, match=r"grouping factor 'x' holds numbers that are not whole, e.g."):
        build_design("y ~ k + (1|x)", data)
    with pytest.raises(DataError, match=r"holds numbers that are not whole, e.g. inf"):
        build_design("y ~ k + (1|h)", data.assign(h=np.where(np.arange(48) == 3, np.inf, 1.0)))


def test_dates_make_groups_but_no_columns(data):
    dates = data.assign(day=pd.to_datetime("2024-01-01") + pd.to_timedelta(np.arange(48) % 4, unit="D"))
    assert len(build_design("y ~ x + (1|day)", dates).terms[0].levels) == 4
    with pytest.raises(DataError, match=r"column 'day' holds dates or times.*\n.*data\['days'\]"):
        build_design("y ~ day + (1|a)", dates)
