"""ICC, R², design effects and information criteria against R's performance, lme4 and brute force.

`tests/reference/quality.json` was made by `quality.R` (lme4 1.1-31, performance 0.10.2, broom.mixed 0.2.9.4).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError
from bayeslmm.frequentist.model_quality import R2, ConditionalAic

CASES = json.loads((Path(__file__).parents[1] / "reference" / "quality.json").read_text())
NAMES = [f"{case['dataset']}-{'reml' if case['reml'] else 'ml'}" for case in CASES]


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def pair(request):
    case = request.param
    return blm.lmer(case["formula"], blm.datasets.load(case["dataset"]), reml=case["reml"]), case


def test_icc_and_r2_agree_with_performance(pair):
    fit, case = pair
    icc, r2 = fit.icc(), fit.r2()
    expected = [case["icc"]["adjusted"], case["icc"]["unadjusted"], case["r2"]["marginal"], case["r2"]["conditional"]]
    np.testing.assert_allclose([icc.adjusted, icc.conditional, r2.marginal, r2.conditional], expected, rtol=1e-6)


def test_variance_partition_agrees_with_insight(pair):
    fit, case = pair
    parts = fit.variance_partition()
    expected = [case["variance"][name] for name in ("fixed", "random", "residual")]
    np.testing.assert_allclose([parts.fixed, parts.random.sum(), parts.residual], expected, rtol=1e-6, atol=1e-12)
    assert parts.shares.sum() == pytest.approx(1)


def test_aicc_agrees_with_performance(pair):
    fit, case = pair
    if fit.reml:  # for ML fits performance takes the likelihood of a REML refit
        assert fit.aicc == pytest.approx(case["aicc"], rel=1e-9)
    k, n = fit.n_parameters, fit.n_obs
    assert fit.aicc == pytest.approx(fit.aic + 2 * k * (k + 1) / (n - k - 1))


def test_conditional_likelihood_and_size_agree_with_lme4(pair):
    fit, case = pair
    result = fit.conditional_aic("vaida-blanchard")
    assert result.loglik == pytest.approx(case["conditional_loglik"], rel=1e-7)
    assert result.df == pytest.approx(case["hat_sum"] + 1, rel=1e-6)


@pytest.mark.parametrize("reml", [True, False])
def test_greven_kneib_is_the_derivative_of_refitted_values(reml):
    """The definition: sum of d fitted_i / d y_i, theta estimated anew for each y; a few rows by finite differences."""
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"), reml=reml)
    step, total = 0.5, 0.0
    for i in range(fit.n_obs):
        moved = []
        for sign in (1, -1):
            y = fit.design.y.copy()
            y[i] += sign * step
            moved.append(fit.refit(y).fitted[i])
        total += (moved[0] - moved[1]) / (2 * step)
    assert fit.conditional_aic().df == pytest.approx(total + 1, rel=1e-4)
    assert fit.conditional_aic().df > fit.conditional_aic("vaida-blanchard").df


def test_conditional_aic_of_weighted_data_does_not_depend_on_the_scale_of_the_weights():
    sleep = blm.datasets.load("sleepstudy")
    sleep["w"] = np.linspace(1, 3, len(sleep))
    sleep["w10"] = 10 * sleep["w"]
    one, ten = (blm.lmer("Reaction ~ Days + (Days | Subject)", sleep, weights=w) for w in ("w", "w10"))
    assert one.conditional_aic().value == pytest.approx(ten.conditional_aic().value, rel=1e-6)
    assert one.icc().adjusted == pytest.approx(ten.icc().adjusted, rel=1e-5)
    assert one.r2().marginal == pytest.approx(ten.r2().marginal, rel=1e-5)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_conditional_aic_on_the_boundary_is_that_of_ordinary_regression():
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
    assert fit.conditional_aic().df == pytest.approx(2)
    icc = fit.icc()
    assert icc.adjusted == pytest.approx(0, abs=1e-12)
    assert icc.by_factor[["se", "lower", "upper"]].isna().all().all()


def test_icc_by_factor_adds_up_nested_levels():
    fit = blm.lmer("strength ~ 1 + (1 | batch / cask)", blm.datasets.load("Pastes"))
    by = fit.icc().by_factor
    assert by.loc["cask:batch", "icc"] == pytest.approx(by["share"].sum())
    assert by.loc["batch", "icc"] == pytest.approx(by.loc["batch", "share"])
    crossed = blm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", blm.datasets.load("Penicillin")).icc().by_factor
    np.testing.assert_allclose(crossed["icc"], crossed["share"])


def test_icc_interval_agrees_with_statas_delta_method():
    """One grouping factor, balanced: the delta method for rho = t² / (t² + s²), written out in the variances."""
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"), reml=False)
    theta, sigma = fit.theta[0], fit.sigma
    to_variances = np.array([[2 * theta * sigma**2, 2 * theta**2 * sigma], [0, 2 * sigma]])
    cov = to_variances @ fit.varpar_cov @ to_variances.T
    a, b = (theta * sigma) ** 2, sigma**2
    gradient = np.array([b, -a]) / (a + b) ** 2
    assert fit.icc().by_factor.loc["Batch", "se"] == pytest.approx(np.sqrt(gradient @ cov @ gradient), rel=1e-4)
    low, high = fit.icc().by_factor.loc["Batch", ["lower", "upper"]]
    assert 0 < low < a / (a + b) < high < 1


def test_nlswork_rho_is_statas(shared):
    """`xtreg, mle` of the Stata manual prints rho = .4204033 with standard error .0074828."""
    published = json.loads((shared / "data" / "stata" / "published_stata_results.json").read_text())["nlswork"]
    data = pd.read_parquet(shared / "data" / "stata" / "nlswork.parquet")
    data["black"] = np.where(
        data["race"].isna(), np.nan, (data["race"].astype(str).isin(["2", "2.0", "black", "Black"]))
    )
    formula = (
        "ln_wage ~ grade + age + I(age**2) + ttl_exp + I(ttl_exp**2) + tenure + I(tenure**2) + black + not_smsa + south"
        " + (1 | idcode)"
    )
    row = blm.lmer(formula, data, reml=False).icc().by_factor.loc["idcode"]
    assert row["icc"] == pytest.approx(published["xtreg_mle"]["rho"], abs=2e-6)
    assert row["se"] == pytest.approx(published["xtreg_mle"]["rho_se"], rel=1e-3)


def test_design_effect_is_kishs_for_balanced_groups():
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    row = fit.design_effect().frame.loc["Batch"]
    assert row["Average size"] == 5
    assert row["Design effect"] == pytest.approx(1 + 4 * fit.icc().adjusted)
    assert row["Effective rows"] == pytest.approx(30 / row["Design effect"])


def test_design_effect_of_all_is_the_variance_of_the_mean_over_that_of_independent_rows():
    fit = blm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", blm.datasets.load("Penicillin"))
    V = np.eye(fit.n_obs) * fit.sigma**2
    for factor in fit.design.factors:
        V += fit.effect_covariances()[factor.name][0, 0] * (factor.codes[:, None] == factor.codes[None, :])
    expected = V.sum() / np.trace(V)
    assert fit.design_effect().frame.loc["all", "Design effect"] == pytest.approx(expected)


def test_records_print_and_refuse():
    fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    assert "Adjusted ICC 0.7217, conditional ICC 0.5206." in str(fit.icc())
    assert "averages over the rows" in fit.icc()._repr_html_()
    assert "Residual" in str(fit.variance_partition())
    assert repr(R2(0.1, 0.5)) == "R2: marginal 0.1000, conditional 0.5000"
    assert float(ConditionalAic(-1.0, 2.0, "x")) == 6
    with pytest.raises(DataError, match="greven-kneib"):
        fit.conditional_aic("akaike")
    with pytest.raises(DataError, match="between 0 and 1"):
        fit.icc(level=95)
