"""Likelihood-ratio tests against lme4 and Stata; mixtures, nesting, what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError
from bayeslmm.frequentist.likelihood_ratio import ChiBarSquare, find_term, random_part_is_nested
from tests.frequentist.inference_cases import REFERENCE, lmer, spelled

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
TESTS = REFERENCE["tests"]


def check_lrt(entry):
    small, big = (lmer(spelled(entry[size]), entry["dataset"], entry["method"] != "ML") for size in ("small", "big"))
    test = blm.anova(big, small).tests[0]
    assert (test.statistic, test.df) == (pytest.approx(entry["Chisq"], rel=1e-5, abs=1e-7), entry["Df"])
    assert test.p_chi2 == pytest.approx(entry["p"], rel=1e-5)
    if "mixture" in entry:
        assert test.mixture == ChiBarSquare(tuple(entry["mixture"]["df"]), tuple(entry["mixture"]["weights"]))
        assert test.p_value == pytest.approx(entry["mixture"]["p"], rel=1e-5)
    else:
        assert test.mixture is None


def check_against_regression(entry):
    fit = lmer(spelled(entry["mixed"]), entry["dataset"], entry["method"] == "REML")
    test = fit.lr_test()
    assert (test.statistic, test.df) == (pytest.approx(entry["chi2"], rel=1e-6, abs=1e-9), entry["df"])
    assert test.p_chi2 == pytest.approx(entry["p_conservative_chi2_df"], rel=1e-5)
    if entry["p_chibar2_01"] is None:
        assert test.mixture is None
        assert test.conservative
    else:
        assert str(test.mixture) == "chibar2(01)"
        assert test.p_value == pytest.approx(entry["p_chibar2_01"], rel=1e-5)


@pytest.mark.parametrize("name", [name for name in TESTS if name.startswith("lrt_")])
def test_comparisons(name):
    check_lrt(TESTS[name])


@pytest.mark.parametrize("name", [name for name in TESTS if name.startswith("lr_ols_")])
def test_against_ordinary_regression(name):
    check_against_regression(TESTS[name])


def test_every_reference_comparison(shared):
    folder = shared / "reference" / "fits"
    for path in sorted(folder.glob("lrt_*.json")):
        check_lrt(json.loads(path.read_text()))
    for path in sorted(folder.glob("lr_ols_*.json")):
        check_against_regression(json.loads(path.read_text()))
    for path in sorted(folder.glob("anova_*.json")):
        entry = json.loads(path.read_text())
        fits = []
        for name in entry["order"]:
            fit = json.loads((folder / f"{name}.json").read_text())
            fits.append(lmer(fit["formula"], fit["dataset"], False))
        columns = ["npar", "AIC", "BIC", "logLik", "deviance", "Chisq", "Df", "Pr(>Chisq)"]
        found = blm.anova(*fits).frame[columns].astype(float)
        np.testing.assert_allclose(found, np.array(entry["values"], dtype=float), rtol=1e-5)


def test_the_effect_of_iq_in_dutch_schools():
    small, big = (f"lang ~ {iq}GS + SES + COMB + (1 | class)" for iq in ("", "IQ + "))
    found = blm.anova(lmer(small, "nlschools"), lmer(big, "nlschools"))
    assert f"{found.tests[0].statistic:.2f}" == "825.09"
    assert found.tests[0].df == 1
    assert "2 REML fits refitted by ML" in str(found)


@pytest.mark.slow
def test_stata_prints_this_chibar2():
    fit = blm.lmer("ln_wage ~ ttl_exp + C(race) + age + (1 | idcode)", blm.datasets.load("nlswork"), reml=False)
    assert str(fit.lr_test()).startswith("LR test against ordinary regression (ML): chibar2(01) = 11678.16")


def test_fits_that_differ_in_the_random_part_stay_reml():
    fits = [lmer(f"Reaction ~ Days + ({bar})", "sleepstudy") for bar in ("1 | Subject", "Days | Subject")]
    assert blm.anova(*fits).tests[0].method == "REML"
    again = blm.anova(*fits, refit_ml=True)
    assert again.tests[0].statistic == pytest.approx(42.139297, rel=1e-6)


def test_mixtures():
    mixture = ChiBarSquare((1, 2), (0.5, 0.5))
    assert mixture.sf(0) == 1
    assert mixture.sf(5.138) == pytest.approx(0.05, abs=1e-4)
    assert ChiBarSquare((0, 1), (0.5, 0.5)).sf(1e-9) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("small", "big", "nested"),
    [
        ("(1 | Worker)", "(Machine | Worker)", True),
        ("(Machine | Worker)", "(0 + Machine | Worker)", True),
        ("(0 + Machine || Worker)", "(Machine | Worker)", True),
        ("(Machine | Worker)", "(0 + Machine || Worker)", False),
        ("(1 | Worker/Machine)", "(Machine | Worker)", True),
        ("(1 | Machine)", "(1 | Worker)", False),
        ("diag(0 + Machine | Worker, hom=TRUE)", "(0 + Machine || Worker)", True),
        ("(0 + Machine || Worker)", "diag(0 + Machine | Worker, hom=TRUE)", False),
        ("ar1(0 + Machine | Worker)", "(0 + Machine | Worker)", True),
        ("ar1(0 + Machine | Worker)", "ar1(0 + Machine | Worker) + (1 | Machine)", True),
        ("cs(0 + Machine | Worker, hom=TRUE)", "(1 | Worker/Machine)", True),
        ("(1 | Worker)", "ar1(0 + Machine | Worker)", False),
    ],
)
def test_which_covariances_contain_which(small, big, nested):
    data = blm.datasets.load("Machines")
    one, other = (blm.build_design(f"score ~ 1 + {random}", data) for random in (small, big))
    assert random_part_is_nested(one, other) is nested


def test_models_that_are_not_nested_are_refused():
    with pytest.raises(ComparisonError, match="not nested"):
        blm.anova(*(lmer(f"Reaction ~ {text} | Subject)", "sleepstudy") for text in ("Days + (1", "1 + (Days")))
    with pytest.raises(ComparisonError, match="not nested"):
        blm.anova(*(lmer(f"lang ~ {text} | class)", "nlschools") for text in ("IQ + (1", "SES + (IQ")))
    same = lmer("Reaction ~ Days + (1 | Subject)", "sleepstudy")
    with pytest.raises(ComparisonError, match="the same model"):
        blm.anova(same, same)


def test_different_rows_responses_weights_and_offsets_are_refused():
    data = blm.datasets.load("sleepstudy")
    fit = lmer("Reaction ~ 1 + (1 | Subject)", "sleepstudy")
    holed = data.assign(Days=data["Days"].where(data.index > 2))
    with pytest.raises(ComparisonError, match=r"different rows: 1(77|80) and 1(77|80)") as error:
        blm.anova(fit, blm.lmer("Reaction ~ Days + (1 | Subject)", holed))
    assert "'Days' (3)" in str(error.value)
    with pytest.raises(ComparisonError, match="different responses"):
        blm.anova(fit, blm.lmer("log(Reaction) ~ Days + (1 | Subject)", data))
    with pytest.raises(ComparisonError, match="different responses"):
        blm.anova(fit, blm.lmer("Reaction ~ Days + (1 | Subject)", data.iloc[::-1]))
    with pytest.raises(ComparisonError, match="different weights"):
        blm.anova(fit, blm.lmer("Reaction ~ Days + (1 | Subject)", data, weights=np.linspace(1, 2, 180)))
    with pytest.raises(ComparisonError, match="different offset"):
        blm.anova(fit, blm.lmer("Reaction ~ Days + offset(Days) + (1 | Subject)", data))
    with pytest.raises(ComparisonError, match="argument 2 is a dict"):
        blm.anova(fit, {})
    with pytest.raises(ComparisonError, match="at least one"):
        blm.anova()


def test_one_fit_gives_its_table_of_terms():
    fit = lmer("Reaction ~ Days + (Days | Subject)", "sleepstudy")
    assert blm.anova(fit, type=1).frame.equals(fit.anova(type=1).frame)


def test_ranova_tests_slopes_and_bars():
    fit = lmer("Reaction ~ Days + (Days | Subject)", "sleepstudy")
    frame = blm.ranova(fit).frame
    row = frame.loc["Days in (1 + Days | Subject)"]
    assert (row["LRT"], row["Df"], row["npar"]) == (pytest.approx(42.836813, rel=1e-6), 2, 4)
    assert row["Pr(>chibar2)"] < row["Pr(>Chisq)"]
    nested = lmer("strength ~ 1 + (1 | batch/cask)", "Pastes")
    assert len(blm.ranova(nested).frame) == 3
    single = blm.ranova(lmer("Yield ~ 1 + (1 | Batch)", "Dyestuff")).frame.iloc[1]
    assert single["LRT"] == pytest.approx(lmer("Yield ~ 1 + (1 | Batch)", "Dyestuff").lr_test().statistic)


def test_ranova_respects_interactions_of_slopes():
    fit = lmer("lang ~ IQ + SES + (IQ * SES | class)", "nlschools", False)
    assert [name.split(" in ")[0] for name in blm.ranova(fit).frame.index[1:]] == ["IQ:SES"]


def test_weights_and_offset_survive_leaving_a_term_out():
    data = blm.datasets.load("Pastes")
    weights, shift = np.linspace(1, 2, 60), np.linspace(-1, 1, 60)
    full = blm.lmer("strength ~ 1 + (1 | batch) + (1 | sample)", data, weights=weights, offset=shift)
    small = blm.lmer("strength ~ 1 + (1 | sample)", data, weights=weights, offset=shift)
    assert full.lr_test("batch").statistic == pytest.approx(small.criterion - full.criterion, abs=1e-6)


def test_terms_are_found_as_written():
    design = lmer("score ~ Machine + (1 | Worker/Machine)", "Machines").design
    assert find_term(design, "1 | Worker") == find_term(design, "(1|Worker)")
    assert {find_term(design, 0), find_term(design, 1)} == {0, 1}
    with pytest.raises(ComparisonError, match="no one random term"):
        find_term(design, "1 | Wroker")
    with pytest.raises(ComparisonError, match="no one random term"):
        find_term(design, 5)


def test_the_simulated_null_agrees_with_the_mixture():
    fit = lmer("Yield ~ 1 + (1 | Batch)", "Dyestuff2", True)
    test = fit.lr_test(simulate=300, seed=4, progress=False)
    assert len(test.simulated) == 300
    assert (test.simulated < 1e-6).mean() > 0.4
    assert test.p_simulated == 1
    real = lmer("Yield ~ 1 + (1 | Batch)", "Dyestuff").lr_test(simulate=99, seed=4, progress=False)
    assert real.p_simulated < 0.1
    assert "Simulated null, 99 draws" in str(real)


def test_the_simulated_null_of_two_fits():
    small = lmer("Reaction ~ Days + (1 | Subject)", "sleepstudy")
    big = lmer("Reaction ~ Days + (Days | Subject)", "sleepstudy")
    found = blm.anova(small, big, simulate=39, seed=1, progress=False)
    assert found.frame["Pr(simulated)"].iloc[1] == pytest.approx(1 / 40)
    assert (found.tests[0].simulated >= 0).all()


EXACT = json.loads((Path(__file__).parents[1] / "reference" / "exact_lrt.json").read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("case", ["dyestuff", "small"])
def test_the_simulated_null_is_rlrsims_exact_one(case, method):
    """RLRsim draws from the finite-sample null by its spectrum (Crainiceanu & Ruppert 2004), 100,000 times."""
    reference, runs = EXACT["cases"][case][method], 4000
    data = blm.datasets.load("Dyestuff") if case == "dyestuff" else pd.DataFrame(EXACT["small"])
    fit = blm.lmer(EXACT["cases"][case]["formula"], data, reml=method == "reml")
    test = fit.lr_test(simulate=runs, seed=1, progress=False)
    assert test.statistic == pytest.approx(reference["statistic"], rel=1e-5)
    assert test.p_simulated == pytest.approx(reference["p"], abs=3.3 * (reference["p"] / runs) ** 0.5 + 1 / runs)
    assert (test.simulated < 1e-6).mean() == pytest.approx(reference["zero"], abs=3.3 * 0.5 / runs**0.5)
    for probability, quantile in zip(EXACT["probabilities"], reference["quantiles"], strict=True):
        if quantile > 0.1:
            error = 3.3 * (probability * (1 - probability) / runs) ** 0.5
            assert (test.simulated <= quantile).mean() == pytest.approx(probability, abs=error), probability
