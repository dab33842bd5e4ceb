"""Linear hypotheses: reading them, testing them, refusing what cannot be tested."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError
from bayeslmm.formula.hypotheses import read_hypotheses
from tests.frequentist.inference_cases import lmer

NAMES = ("Intercept", "IQ", "IQ:SES", "C(x, contr.sum)[S.a, b]", "x1", "x10", "a b")


@pytest.mark.parametrize(
    ("text", "L", "rhs"),
    [
        ("IQ = 2.2", {"IQ": 1}, 2.2),
        ("IQ", {"IQ": 1}, 0),
        ("2.2 = IQ", {"IQ": -1}, -2.2),
        ("2 * IQ - 3 x1 = 1e-1", {"IQ": 2, "x1": -3}, 0.1),
        ("IQ:SES = IQ", {"IQ:SES": 1, "IQ": -1}, 0),
        ("x10 - x1 = 0", {"x10": 1, "x1": -1}, 0),
        ("C(x, contr.sum)[S.a, b] + 1 = 3", {"C(x, contr.sum)[S.a, b]": 1}, 2),
        ("`a b` / 2 = 1", {"a b": 0.5}, 1),
        ("-(IQ - 2 * (x1 + 1)) = 0", {"IQ": -1, "x1": 2}, -2),
        ("(Intercept) + 10 IQ = 5", {"Intercept": 1, "IQ": 10}, 5),
        ("a b=1", {"a b": 1}, 1),
    ],
)
def test_hypotheses_are_read(text, L, rhs):
    found = read_hypotheses(NAMES, text)
    expected = np.array([[L.get(name, 0) for name in NAMES]])
    np.testing.assert_allclose(found.L, expected)
    np.testing.assert_allclose(found.rhs, [rhs])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IQ:SEX = 1", "Did you mean .IQ:SES."),
        ("IQ * x1 = 0", "not linear"),
        ("1 / IQ = 0", "only division"),
        ("IQ = ", "missing"),
        ("(IQ = 1", "parenthesis"),
        ("IQ = 1 = 2", "does not belong"),
        ("x2", "no coefficient 'x2'"),
        ("2IQ", "no coefficient '2IQ'"),
        ("1 = 1", "involves no coefficient"),
        ("IQ = 1, 2 IQ = 2", "follows from those before"),
        ("IQ = 1, x1 = 0, IQ + x1 = 2", "contradicts those before"),
        ("`IQ", "no coefficient"),
        ("", "missing"),
        ("IQ;", "no coefficient"),
    ],
)
def test_hypotheses_that_cannot_be_read_say_why(text, message):
    with pytest.raises(ComparisonError, match=message):
        read_hypotheses(NAMES, text)


def test_a_caret_stands_under_the_unknown_name():
    with pytest.raises(ComparisonError) as error:
        read_hypotheses(NAMES, "IQ = 2.2, SES = 0")
    lines = str(error.value).splitlines()
    assert lines[2].index("^") == lines[1].index("SES")


def test_ways_to_write_the_same_hypotheses_agree():
    fit = lmer("lang ~ IQ + SES + GS + (1 | class)", "nlschools")
    texts = fit.test("IQ = 2.2, SES = 0.1")
    L = np.array([[0, 1.0, 0, 0], [0, 0, 1, 0]])
    for other in (
        fit.test(["IQ = 2.2", "SES = 0.1"]),
        fit.test({"IQ": 2.2, "SES": 0.1}),
        fit.test(L, [2.2, 0.1]),
        fit.test(pd.DataFrame({"IQ": [1, 0], "SES": [0, 1]}), [2.2, 0.1]),
    ):
        assert other.joint == texts.joint
    assert texts.contrasts.index.tolist() == ["IQ = 2.2", "SES = 0.1"]
    assert fit.test(L, [2.2, 0.1]).contrasts.index.tolist() == ["IQ = 2.2", "SES = 0.1"]


def test_a_single_hypothesis_is_the_square_of_its_t():
    fit = lmer("lang ~ IQ + SES + GS + (1 | class)", "nlschools")
    for ddf in ("satterthwaite", "kenward-roger", "residual"):
        found = fit.test("IQ - 10 SES = 0", ddf=ddf)
        row = found.contrasts.iloc[0]
        assert found.joint.statistic == pytest.approx(row["t value"] ** 2)
        assert found.p_value == pytest.approx(row["Pr(>|t|)"])
    zero = fit.test("IQ = 0").contrasts.iloc[0]
    expected = fit.summary().coefficients.loc["IQ"]
    np.testing.assert_allclose(zero[["Estimate", "Std. Error", "df", "t value"]], expected.iloc[:4])


def test_bad_matrices_are_refused():
    fit = lmer("lang ~ IQ + SES + GS + (1 | class)", "nlschools")
    with pytest.raises(ComparisonError, match="4 columns"):
        fit.test([[1, 0, 0]])
    with pytest.raises(ComparisonError, match="rhs has shape"):
        fit.test(np.eye(4), [1, 2])
    with pytest.raises(ComparisonError, match="no coefficient 'iq'"):
        fit.test(pd.DataFrame({"iq": [1]}))
    with pytest.raises(ComparisonError, match="rhs goes with a matrix"):
        fit.test("IQ = 1", [2])


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLmmWarning")
def test_the_coefficient_of_a_dropped_column_is_not_estimable():
    rng = np.random.default_rng(1)
    frame = {"y": rng.normal(size=40), "x": rng.normal(size=40), "g": np.arange(40) % 8}
    frame["z"] = 2 * frame["x"]
    fit = blm.lmer("y ~ x + z + (1 | g)", frame)
    with pytest.raises(ComparisonError, match="not estimable"):
        fit.test("x = 0, z = 0")


def test_the_printed_test_names_its_degrees_of_freedom():
    text = str(lmer("lang ~ IQ + SES + GS + (1 | class)", "nlschools").test("IQ = 2.2, SES = 0"))
    assert "Together: F(2, " in text
    assert "Satterthwaite degrees of freedom." in text
