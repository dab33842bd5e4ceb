"""Responses: numbers, truth values, trials, categories."""

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError, DataWarning, FormulaError
from bayeslmm.families import as_family
from bayeslmm.formula.design import build_design


@pytest.fixture
def data():
    n = 12
    return pd.DataFrame(
        {
            "y": np.arange(n) * 0.5 + 0.25,
            "x": np.sin(np.arange(n)),
            "k": np.arange(n) % 4,
            "n": np.full(n, 5),
            "b": np.arange(n) % 3 == 0,
            "f": np.array(["no", "yes"])[np.arange(n) % 2],
            "o": pd.Categorical(
                np.array(["low", "mid", "high"])[np.arange(n) % 3], categories=["low", "mid", "high"], ordered=True
            ),
            "g": np.repeat([1, 2, 3], 4),
        }
    )


@pytest.mark.parametrize("response", ["cbind(k, n - k)", "prop(k, n)"])
@pytest.mark.parametrize("family", [None, "binomial", as_family("binomial")])
def test_counts(response, family, data):
    design = build_design(f"{response} ~ x + (1|g)", data, family=family)
    np.testing.assert_allclose(design.y, data["k"] / 5)
    np.testing.assert_array_equal(design.trials, data["n"])
    assert design.response_name == response
    assert design.weights is None


def test_counts_with_a_constant_number_of_trials(data):
    assert build_design("prop(k, 5) ~ x", data).trials.tolist() == [5.0] * 12


def test_counts_and_weights(data):
    design = build_design("prop(k, n) ~ x", data, weights="n")
    np.testing.assert_array_equal(design.weights, data["n"])


def test_weights_of_a_proportion_are_trials(data):
    design = build_design("I(k / n) ~ x", data, family="binomial", weights="n")
    np.testing.assert_array_equal(design.trials, data["n"])
    assert design.weights is None
    again = design.at(data)
    np.testing.assert_array_equal(again.trials, data["n"])
    assert again.weights is None


@pytest.mark.parametrize(
    ("column", "expected", "levels"),
    [
        ("b", lambda d: d.b, ("False", "True")),
        ("f", lambda d: d.f == "yes", ("no", "yes")),
        ("I(k > 1)", lambda d: d.k > 1, ("False", "True")),
        ("z", lambda d: d.z, ()),
    ],
)
@pytest.mark.parametrize("family", ["bernoulli", "binomial"])
def test_two_values(column, expected, levels, family, data):
    data = data.assign(z=(data["k"] == 2) * 1)
    design = build_design(f"{column} ~ x + (1|g)", data, family=family)
    np.testing.assert_array_equal(design.y, np.asarray(expected(data), dtype=float))
    assert design.trials is None
    assert design.response_levels == (levels if not (family == "binomial" and column == "z") else ())


def test_the_order_of_a_binary_category_decides_what_is_success(data):
    flipped = data.assign(f=pd.Categorical(data["f"], categories=["yes", "no"]))
    np.testing.assert_array_equal(
        build_design("f ~ x", flipped, family="bernoulli").y, (data["f"] == "no").to_numpy(dtype=float)
    )


@pytest.mark.parametrize("family", ["cumulative", "categorical"])
def test_categories(family, data):
    design = build_design("o ~ x + (1|g)", data, family=family)
    assert design.response_levels == ("low", "mid", "high")
    np.testing.assert_array_equal(design.y, np.arange(12) % 3)
    assert build_design("k ~ x", data, family=family).response_levels == ("0", "1", "2", "3")
    shorter = design.at(data[data["o"] != "low"])
    np.testing.assert_array_equal(shorter.y, [1, 2] * 4)


def test_responses_are_computed(data):
    np.testing.assert_allclose(build_design("log(y) ~ x", data).y, np.log(data["y"]))
    np.testing.assert_allclose(build_design("y / 10 ~ x", data).y, data["y"] / 10)
    np.testing.assert_allclose(build_design("y + x ~ k", data).y, data["y"] + data["x"])
    np.testing.assert_allclose(build_design("b ~ x", data).y, data["b"])


def test_a_scaled_response_keeps_its_scale_in_new_data(data):
    design = build_design("scale(y) ~ x", data)
    np.testing.assert_allclose(design.at(data.iloc[:3]).y, design.y[:3])


BAD = [
    ("prop(k, n) ~ x", {"k": [-1] + [1] * 11}, None, "k is negative in 1 row \\(the first is row 0"),
    ("prop(k, n) ~ x", {"k": [1.5] + [1] * 11}, None, "successes or trials are no whole numbers in 1 row"),
    ("prop(k, n) ~ x", {"k": [1] * 11 + [6]}, None, "k is larger than the number of trials in 1 row .*row 11"),
    ("prop(k, n) ~ x", {"k": [0] * 12, "n": [0] * 12}, None, "there are no trials in 12 rows"),
    ("cbind(k, n) ~ x", {"n": [-1] * 12}, None, "n is negative in 12 rows.*successes and failures"),
    ("prop(f, n) ~ x", {}, None, "f holds categories|'f' holds text or categories"),
    ("f ~ x", {}, None, "the response 'f' holds text or categories \\('no', 'yes'\\), and family \"gaussian\""),
    ("f ~ x", {}, "poisson", 'family "poisson" needs numbers'),
    ("o ~ x", {}, "gaussian", 'For ordered categories: family="cumulative"'),
    ("o ~ x", {}, "bernoulli", "has 3 levels \\('low', 'mid', 'high'\\), and family \"bernoulli\" needs two"),
    ("k ~ x", {}, "bernoulli", "'k' must be 0 or 1 .* 6 rows hold something else, e.g. 2"),
    ("y ~ x", {}, "binomial", "is not between 0 and 1"),
    ("I(y / 10) ~ x", {}, "binomial", "the number of trials is not known"),
    ("log(x) ~ k", {}, None, "the response 'log\\(x\\)' is not a finite number in"),
    ("f ~ x", {"f": ["yes"] * 12}, "bernoulli", "has one class only: every value is 'yes'"),
    ("I(y / 2) ~ x", {}, "binomial", "not between 0 and 1 in 8 rows \\(the first is row 4"),
    (
        "k ~ x + offset(log(n))",
        {"n": [0] + [1] * 11},
        "poisson",
        "in 1 row \\(.*row 0.*\n.*an exposure above zero",
    ),
    ("k ~ x + offset(log(n))", {"n": [2, -1] * 6}, "poisson", "in 6 rows \\(the first is row 1"),
    ("y ~ x", {"y": pd.date_range("2020-01-01", periods=12)}, None, "column 'y' holds dates or times"),
    ("y ~ x", {"y": [np.inf] + [1.0] * 11}, None, "column 'y' is infinite in 1 row"),
    ("y ~ x", {"y": [2.5] * 12}, None, "the response 'y' is 2.5 in every row"),
    ("b ~ x", {"b": [True] * 12}, "bernoulli", "the response 'b' is 1 in every row"),
]


@pytest.mark.parametrize(("formula", "change", "family", "message"), BAD)
def test_bad_responses(formula, change, family, message, data):
    with pytest.raises(DataError, match=message):
        build_design(formula, data.assign(**change), family=family)


@pytest.mark.parametrize("give", [lambda log: log, lambda log: "log_n"])
def test_the_logarithm_of_no_exposure_is_refused_as_an_argument_too(give, data):
    with np.errstate(divide="ignore"):
        log = np.log(data["n"].where(data.index != 3, 0.0).to_numpy())
    with pytest.raises(DataError, match=r"is infinite in 1 row[^~]*exposure is zero"):
        build_design("k ~ x", data.assign(log_n=log), family="poisson", offset=give(log))


def test_new_rows_without_exposure_are_refused(data):
    design = build_design("k ~ x + offset(log(n))", data, family="poisson")
    with pytest.raises(DataError, match="an exposure above zero"):
        design.at(data.assign(n=0))


def test_empty_categories_of_an_ordered_response_are_named(data):
    some = data[data["o"] != "mid"].assign(
        o=lambda d: pd.Categorical(d["o"], categories=["none", "low", "mid", "high"], ordered=True)
    )
    with pytest.warns(DataWarning, match="no row has categories 'none', 'mid' .* where their thresholds lie"):
        design = build_design("o ~ x", some, family="sratio")
    assert design.response_levels == ("low", "high")


def test_text_has_no_order(data):
    with pytest.warns(DataWarning, match="the alphabet's is used: high < low < mid"):
        build_design("o ~ x", data.assign(o=data["o"].astype(str)), family="cumulative")


def test_counts_need_a_family_of_counts(data):
    with pytest.raises(FormulaError, match='cbind\\(\\) is a response of family "binomial", not of "bernoulli"'):
        build_design("cbind(k, n - k) ~ x", data, family="bernoulli")


def test_a_category_unknown_to_the_fitted_data_is_refused(data):
    design = build_design("o ~ x", data, family="cumulative")
    with pytest.raises(DataError, match="the response 'o' holds 'top', which the fitted data did not"):
        design.at(data.assign(o="top"))
