"""Estimated marginal means and comparisons against emmeans."""

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError
from tests.frequentist.inference_cases import FROM_R, lmer

MACHINES = ("score ~ Machine + (1 | Worker/Machine)", "Machines")
SCHOOLS = ("lang ~ IQ + COMB*size + (1 | class)", "nlschools")
CASES = {
    "machines_satterthwaite": (MACHINES, "Machine", {}),
    "machines_kr": (MACHINES, "Machine", {"ddf": "kenward-roger"}),
    "schools_equal": (SCHOOLS, "size", {}),
    "schools_proportional": (SCHOOLS, "size", {"weights": "proportional"}),
    "growth": (("distance ~ age * Sex + (1 | Subject)", "Orthodont"), "Sex", {"at": {"age": 14}, "ddf": "kr"}),
}


@pytest.mark.parametrize("name", CASES)
def test_means_and_pairs_agree_with_emmeans(name):
    model, specs, options = CASES[name]
    means = lmer(*model).emmeans(specs, **options)
    expected = FROM_R["means"][name]
    np.testing.assert_allclose(means.frame[["mean", "se", "df", "lower", "upper"]], expected["means"], rtol=1e-5)
    pairs = means.pairs().frame[["difference", "se", "df", "lower", "upper", "t value", "p"]]
    np.testing.assert_allclose(pairs, expected["pairs"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(means.pairs(adjust="holm").frame["p"], expected["holm"], rtol=1e-5)


def test_other_adjustments():
    means = lmer(*MACHINES).emmeans("Machine")
    plain, bonferroni = (means.pairs(adjust=name).frame for name in ("none", "bonferroni"))
    np.testing.assert_allclose(bonferroni["p"], np.minimum(1, 3 * plain["p"]))
    assert (bonferroni["upper"] > plain["upper"]).all()
    with pytest.raises(ComparisonError, match="not one of"):
        means.pairs(adjust="fdr")


def test_contrasts_of_means():
    fit = lmer(*MACHINES)
    found = fit.emmeans("Machine").contrast({"A against the others": [1, -0.5, -0.5]})
    tested = fit.test("-0.5 Machine[T.B] - 0.5 Machine[T.C] = 0").contrasts.iloc[0]
    row = found.frame.iloc[0]
    assert (row["difference"], row["se"], row["p"]) == pytest.approx(
        (tested["Estimate"], tested["Std. Error"], tested["Pr(>|t|)"])
    )
    with pytest.raises(ComparisonError, match="one weight for each"):
        fit.emmeans("Machine").contrast({"x": [1, -1]})
    with pytest.raises(ComparisonError, match="for all pairwise"):
        fit.emmeans("Machine").contrast({"x": [1, -1, 0]}, adjust="tukey")


def test_grids_of_two_columns_and_numbers_as_factors():
    fit = lmer("distance ~ C(age) * Sex + (1 | Subject)", "Orthodont")
    frame = fit.emmeans(["Sex", "age"]).frame
    assert frame[["Sex", "age"]].value_counts().tolist() == [1] * 8
    data = blm.datasets.load("Orthodont")
    first = data[(data["Sex"] == "Male") & (data["age"] == 8)]["distance"].mean()
    assert frame.iloc[0]["mean"] == pytest.approx(first)


def test_the_offset_is_part_of_the_means():
    data = blm.datasets.load("Machines")
    plain = blm.lmer("score ~ Machine + (1 | Worker)", data).emmeans("Machine")
    shifted = blm.lmer("score ~ Machine + (1 | Worker)", data.assign(score=data["score"] + 3), offset=np.full(54, 3.0))
    np.testing.assert_allclose(shifted.emmeans("Machine").frame["mean"], plain.frame["mean"] + 3)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLmmWarning")
def test_a_mean_over_an_empty_cell_is_not_estimable():
    rng = np.random.default_rng(2)
    cells = [("a", "p"), ("a", "q"), ("b", "p"), ("b", "q"), ("c", "p")]
    rows = [cells[i % 5] for i in range(60)]
    frame = {"y": rng.normal(size=60), "f": [r[0] for r in rows], "h": [r[1] for r in rows], "g": np.arange(60) // 6}
    means = blm.lmer("y ~ f * h + (1 | g)", frame).emmeans("f")
    assert means.frame["mean"].isna().tolist() == [False, False, True]
    pairs = means.pairs().frame
    assert pairs["p"].notna().tolist() == [True, False, False]
    assert "not estimable" in str(means)
    assert means.contrast({"a - b": [1, -1, 0], "a - c": [1, 0, -1]}).frame["p"].notna().tolist() == [True, False]


def test_bad_input():
    fit = lmer(*SCHOOLS)
    for call, message in (
        (lambda: fit.emmeans("siz"), "Did you mean 'size'"),
        (lambda: fit.emmeans("class"), "no column of the fixed part"),
        (lambda: fit.emmeans("size", at={"iq": 3}), "at: 'iq'"),
        (lambda: fit.emmeans("size", at={"size": "huge"}), "no level of 'size'"),
        (lambda: fit.emmeans("size", weights="cells"), "not one of"),
        (lambda: fit.emmeans("IQ").pairs(), "one mean only"),
    ):
        with pytest.raises(ComparisonError, match=message):
            call()


def test_the_table_says_what_was_averaged_over():
    text = str(lmer(*SCHOOLS).emmeans("size"))
    assert "Averaged over COMB (equal weights)." in text
    assert "At IQ = 11.83." in text
    assert "Satterthwaite degrees of freedom" in text
