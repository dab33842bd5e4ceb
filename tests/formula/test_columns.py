"""Columns of X and Z against numbers computed by hand, and against formulaic's own reading of the same formula."""

import formulaic
import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError, FormulaError
from bayeslmm.formula.columns import expand_dot, learn, model_matrix
from bayeslmm.formula.design import build_design


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    n = 60
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.uniform(1, 3, size=n),
            "z": rng.normal(size=n),
            "k": rng.integers(1, 4, n),
            "f": pd.Categorical(rng.choice(["lo", "mid", "hi"], n), categories=["lo", "none", "mid", "hi"]),
            "s": rng.choice(["u", "v"], n),
            "b": rng.random(n) > 0.4,
            "g": np.repeat(np.arange(6), 10),
        }
    )


SAME_AS_FORMULAIC = [
    "1 + x",
    "0 + x + z",
    "1 + f + s",
    "0 + f",
    "1 + f*x",
    "1 + f:x",
    "1 + f:s",
    "1 + s/f",
    "0 + f + s",
    "1 + (x + z + s)^2",
    "1 + x*z*s - x:z:s",
    "1 + poly(x, 3)",
    "1 + poly(x, 2, raw=True)",
    "1 + bs(x, df=5)",
    "1 + bs(x, knots=[1.5, 2.5], degree=2)",
    "1 + cr(x, df=4)",
    "1 + cc(x, df=4)",
    "1 + scale(x) + center(z)",
    "1 + standardize(x)",
    "1 + scale(log(x)):s",
    "1 + log(x) + log10(x) + log2(x) + exp(z)",
    "1 + C(s, Sum)",
    "1 + C(s, contr.sum) + C(f, Treatment('hi'))",
    "1 + C(f, contr.helmert)",
    "1 + C(f, contr.poly):x",
    "1 + C(f, Diff)",
    "1 + C(s, levels=['v', 'u'])",
    "1 + b + b:x",
]


@pytest.mark.parametrize("side", SAME_AS_FORMULAIC)
def test_columns_are_those_of_formulaic(side, data):
    used = data.assign(f=data["f"].cat.remove_unused_categories())
    coding, values = learn(data, ("x", "z", "f", "s", "b"))
    ours = model_matrix(side, values, coding.states, len(data))
    theirs = formulaic.model_matrix(side, used.assign(b=used["b"].astype(float)), output="numpy")
    assert [name.replace(" ", "") for name in ours.names] == [
        name.replace(" ", "") for name in theirs.model_spec.column_names
    ]
    np.testing.assert_allclose(ours.values, np.asarray(theirs, dtype=float), atol=1e-12)
    assert ours.values.flags.c_contiguous
    assert ours.values.dtype == np.float64


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("I(x^2)", lambda d: d.x**2),
        ("I(x**2)", lambda d: d.x**2),
        ("I(x^2 + 1)", lambda d: d.x**2 + 1),
        ("I(-x^2)", lambda d: -(d.x**2)),
        ("I(2 * (x - z) / k)", lambda d: 2 * (d.x - d.z) / d.k),
        ("I(x > 2)", lambda d: d.x > 2),
        ("I(f == 'mid')", lambda d: d.f == "mid"),
        ("I(s != 'u')", lambda d: d.s != "u"),
        ("log1p(x)", lambda d: np.log1p(d.x)),
        ("expm1(z)", lambda d: np.expm1(d.z)),
        ("sqrt(abs(z))", lambda d: np.sqrt(np.abs(d.z))),
        ("sin(x)", lambda d: np.sin(d.x)),
        ("cos(x)", lambda d: np.cos(d.x)),
        ("tan(z)", lambda d: np.tan(d.z)),
        ("I(k^20)", lambda d: d.k.astype(float) ** 20),
        ("b", lambda d: d.b),
        ("scale(x)", lambda d: (d.x - d.x.mean()) / d.x.std()),
        ("scale(x, center=FALSE)", lambda d: d.x / np.sqrt((d.x**2).sum() / (len(d) - 1))),
    ],
)
def test_arithmetic(expression, expected, data):
    design = build_design(f"y ~ {expression} + (1|g)", data)
    assert len(design.coef_names) == 2
    np.testing.assert_allclose(design.X[:, 1], np.asarray(expected(data), dtype=float), rtol=1e-12)


def test_names_are_as_written_with_blanks_in_one_way(data):
    design = build_design("y ~ I( x ^2 )+log(x+1) + bs(z,df = 4)", data)
    assert design.coef_names[1:4] == ("I(x^2)", "log(x + 1)", "bs(z, df=4)[1]")


def test_numbers_as_categories_are_named_like_integers(data):
    for column in (data["k"], data["k"].astype(float)):
        design = build_design("y ~ C(k) + factor(k, Treatment(2)):x", data.assign(k=column))
        assert design.coef_names[:3] == ("Intercept", "C(k)[T.2]", "C(k)[T.3]")
        assert (
            "factor(k, Treatment(2))[T.1]:x" in design.coef_names or "factor(k, Treatment(2))[1]:x" in design.coef_names
        )


def test_unused_categories_have_no_column(data):
    assert build_design("y ~ f + (1|g)", data).coef_names == ("Intercept", "f[T.mid]", "f[T.hi]")
    some = data[data["f"] != "mid"]
    assert build_design("y ~ f + (f|g)", some).coef_names == ("Intercept", "f[T.hi]")


def test_text_is_ordered_as_text(data):
    assert build_design("y ~ s", data).coef_names == ("Intercept", "s[T.v]")


@pytest.mark.parametrize(
    ("columns", "effects"),
    [
        ("f|g", ("Intercept", "f[T.mid]", "f[T.hi]")),
        ("f||g", ("Intercept", "f[T.mid]", "f[T.hi]")),
        ("0 + f|g", ("f[lo]", "f[mid]", "f[hi]")),
        ("x + poly(z, 2)|g", ("Intercept", "x", "poly(z, 2)[1]", "poly(z, 2)[2]")),
        ("x:s|g", ("Intercept", "x:s[u]", "x:s[v]")),
    ],
)
def test_effects_of_random_terms(columns, effects, data):
    term = build_design(f"y ~ x + ({columns})", data).terms[0]
    assert term.effects == effects
    assert term.Z.shape == (60, len(effects))
    assert term.term.covariance == ("diag" if "||" in columns else "us")


def test_dot_is_every_other_column(data):
    design = build_design("y ~ . + (1|g)", data.drop(columns=["k", "b"]))
    assert design.coef_names == ("Intercept", "x", "z", "f[T.mid]", "f[T.hi]", "s[T.v]")
    design = build_design("y ~ . - z + (1|g)", data, weights="k", offset="x")
    assert design.coef_names == ("Intercept", "f[T.mid]", "f[T.hi]", "s[T.v]", "b")
    assert expand_dot("1 + .^2", ("a", "b c")) == "1 + (a + `b c`)^2"
    with pytest.raises(FormulaError, match="none is left"):
        build_design("y ~ .", data[["y"]])


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ log(f)", "f holds categories, and arithmetic needs numbers"),
        ("y ~ I(s + 1)", "s holds categories, and arithmetic needs numbers"),
        ("y ~ I(f > 3)", "categories can only be compared with a level in quotes"),
        ("y ~ I(x == 'a')", "categories can only be compared with a level in quotes"),
        ("y ~ log(poly(x, 2))", "poly\\(x, 2\\) has several columns; arithmetic needs one"),
        ("y ~ C(poly(x, 2))", "it needs one column"),
        ("y ~ C(f, Treatment('high'))", "the reference level 'high' does not occur"),
        ("y ~ C(f, levels=['lo'])", "not among its levels"),
        ("y ~ bs(x, df=2)", "bs\\(x, df=2\\) cannot be computed"),
        ("y ~ log(z)", "not a finite number: log\\(z\\)"),
        ("y ~ I(1 / (k - 1))", "not a finite number: I\\(1 / \\(k - 1\\)\\)"),
        ("y ~ exp(1000 * x)", "not a finite number"),
    ],
)
def test_what_cannot_be_computed(formula, message, data):
    with pytest.raises(DataError, match=message):
        build_design(formula, data)


def test_the_caret_points_into_the_text_as_typed(data):
    with pytest.raises(DataError) as caught:
        build_design("y ~ x  +  log( f ) + (1|g)", data)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  y ~ x  +  log( f ) + (1|g)"
    assert lines[2] == "                 ^"


def test_two_columns_of_one_name_are_refused(data):
    with pytest.raises(DataError, match="two columns of the model would be called 'Intercept'"):
        build_design("y ~ Intercept", data.assign(Intercept=data["x"]))
