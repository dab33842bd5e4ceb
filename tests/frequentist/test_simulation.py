"""Simulated responses and power against known moments and power formulas."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, DataError
from bayeslmm.frequentist.simulation import Power, truth

TWO_ARMS = pd.DataFrame({"y": 0.0, "treated": np.repeat([0.0, 1.0], 40), "site": np.repeat(np.arange(16), 5)})
TWO_ARMS["y"] = np.sin(np.arange(80.0))
ARM_TRUTH = {"Intercept": 0.0, "treated": 1.0, "sd_site[Intercept]": 0.5, "sigma": 1.0}


@pytest.fixture(scope="module")
def sleep():
    return blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def arms():
    return blm.model("y ~ treated + (1 | site)", TWO_ARMS)


def test_simulated_responses_have_the_models_moments(sleep):
    y = sleep.simulate(4000, seed=1)
    Z, codes = sleep.design.factors[0].Z[:20], sleep.design.factors[0].codes[:20]
    V = Z @ sleep.effect_covariances()["Subject"] @ Z.T * (codes[:, None] == codes) + np.eye(20) * sleep.sigma**2
    se = np.sqrt(np.diag(V) / 4000)
    assert (np.abs(y.mean(axis=0)[:20] - sleep.predict(include=[])[:20]) < 4.5 * se).all()
    np.testing.assert_allclose(np.cov(y[:, :20].T), V, atol=0.12 * V.max())


def test_given_parameters_replace_the_estimates(sleep):
    silent = {"sd_Subject[Intercept]": 0, "sd_Subject[Days]": 0, "sigma": 0, "Days": 3}
    y = sleep.simulate(1, parameters=silent)[0]
    np.testing.assert_allclose(y, sleep.fixef["Intercept"] + 3 * blm.datasets.load("sleepstudy")["Days"])


def test_kept_effects_leave_residual_noise_only(sleep):
    y = sleep.simulate(500, keep_effects=True, seed=3)
    np.testing.assert_allclose(y.mean(axis=0), sleep.fitted, atol=5 * sleep.sigma / np.sqrt(500))
    assert y.std(axis=0).mean() == pytest.approx(sleep.sigma, rel=0.02)


def test_new_rows_and_new_levels_can_be_simulated(sleep):
    new = {"Days": [0, 5, 0, 5], "Subject": ["308", "308", "new", "new"]}
    y = sleep.simulate(2000, new, seed=1)
    assert y.shape == (2000, 4)
    assert np.corrcoef(y[:, 2], y[:, 3])[0, 1] > 0.3
    assert abs(np.corrcoef(y[:, 0], y[:, 2])[0, 1]) < 0.1
    kept = sleep.simulate(300, new, keep_effects=True, seed=1)
    assert kept[:, 0].std() < 1.2 * sleep.sigma < kept[:, 3].std()


def test_the_seed_decides(sleep):
    np.testing.assert_array_equal(sleep.simulate(2, seed=5), sleep.simulate(2, seed=5))
    assert (sleep.simulate(1, seed=5) != sleep.simulate(1, seed=6)).all()


def test_weights_and_offset_enter():
    data = blm.datasets.load("Dyestuff").assign(w=np.repeat([1.0, 100.0], 15), o=np.arange(30.0))
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", data, weights="w", offset="o")
    y = fit.simulate(2000, parameters={"sd_Batch[Intercept]": 0, "Intercept": 0}, seed=1)
    np.testing.assert_allclose(y.mean(axis=0), np.arange(30), atol=5 * fit.sigma / np.sqrt(2000))
    assert y[:, :15].std() / (y[:, 15:] - np.arange(15, 30)).std() == pytest.approx(10, rel=0.1)


def test_a_fits_truth_is_its_estimates(sleep):
    values = truth(sleep)
    np.testing.assert_allclose(values.covariances["Subject"], sleep.varcorr["Subject"])
    np.testing.assert_allclose(values.beta, sleep.fixef)


def test_a_models_correlation_is_zero_unless_given():
    model = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    given = {"Intercept": 250, "Days": 10, "sd_Subject[Intercept]": 20, "sd_Subject[Days]": 5, "sigma": 25}
    np.testing.assert_allclose(truth(model, given).covariances["Subject"], np.diag([400, 25]))
    tied = truth(model, given | {"corr_Subject[Intercept,Days]": 0.5})
    assert tied.covariances["Subject"][0, 1] == pytest.approx(50)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Dayz": 1}, "Did you mean 'Days'"),
        ({"sigma": -1}, "cannot be negative"),
        ({"corr_Subject[Intercept,Days]": 1.2}, "between -1 and 1"),
        ({"Days": np.nan}, "not a finite number"),
    ],
)
def test_impossible_parameters_are_refused(sleep, parameters, message):
    with pytest.raises(DataError, match=message):
        sleep.simulate(parameters=parameters)


def test_what_a_model_needs_is_said(arms):
    with pytest.raises(DataError, match="'treated', 'sd_site"):
        blm.simulate(arms, parameters={"Intercept": 0, "sigma": 1})
    with pytest.raises(DataError, match="needs a fit"):
        blm.simulate(arms, parameters=ARM_TRUTH, keep_effects=True)
    with pytest.raises(DataError, match="one response or more"):
        blm.simulate(arms, 0, parameters=ARM_TRUTH)


def test_contradictory_correlations_are_refused():
    data = pd.DataFrame({"y": np.sin(np.arange(60.0)), "a": np.cos(np.arange(60.0)), "b": np.arange(60.0) % 7})
    data["g"] = np.repeat(np.arange(12), 5)
    fit = blm.lmer("y ~ a + b + (a + b | g)", data)
    clash = {"corr_g[Intercept,a]": 0.9, "corr_g[Intercept,b]": 0.9, "corr_g[a,b]": -0.9}
    with pytest.raises(DataError, match="contradict"):
        fit.simulate(parameters=clash)


def test_power_agrees_with_the_formula_of_a_two_arm_trial(arms):
    """Balanced clusters: a t test of 8 against 8 cluster means, whose variance is tau² + sigma² / 5."""
    result = blm.power(arms, "treated", parameters=ARM_TRUTH, n_sim=400, seed=1, progress=False)
    noncentral = 1 / np.sqrt(2 * (0.25 + 0.2) / 8)
    critical = stats.t.isf(0.025, 14)
    expected = stats.nct.sf(critical, 14, noncentral) + stats.nct.cdf(-critical, 14, noncentral)
    low, high = stats.binomtest(round(result.power * 400), 400).proportion_ci(0.999)
    assert low < expected < high
    assert result.interval == pytest.approx(stats.binomtest(round(result.power * 400), 400).proportion_ci(0.95))
    assert np.nanmean(result.estimates) == pytest.approx(1, abs=0.1)
    assert result.exaggeration > 1


def test_under_the_null_the_test_keeps_its_size(arms):
    result = blm.power(arms, "treated", parameters=ARM_TRUTH | {"treated": 0}, n_sim=400, seed=2, progress=False)
    assert stats.binomtest(round(result.power * 400), 400, 0.05).pvalue > 0.001
    assert np.isnan(result.exaggeration)


def test_power_does_not_depend_on_the_number_of_workers(arms):
    one, two = (
        blm.power(arms, "treated", parameters=ARM_TRUTH, n_sim=30, seed=3, workers=w, progress=False) for w in (1, 2)
    )
    np.testing.assert_array_equal(one.p_values, two.p_values)


def test_effects_can_be_terms_hypotheses_and_functions():
    fit = blm.lmer("score ~ Machine + (1 | Worker)", blm.datasets.load("Machines"))
    options = {"n_sim": 20, "seed": 1, "progress": False}
    term = blm.power(fit, "Machine", **options)
    names = list(fit.fixef.index)[1:]
    text = blm.power(fit, f"`{names[0]}` = 0, `{names[1]}` = 0", **options)
    own = blm.power(fit, lambda new: new.test(dict.fromkeys(names, 0)).p_value, **options)
    np.testing.assert_allclose(term.p_values, text.p_values)
    np.testing.assert_allclose(term.p_values, own.p_values)


def test_power_of_a_planned_study_uses_its_rows(sleep):
    plan = blm.extend(blm.datasets.load("sleepstudy"), "Subject", 30)
    assert plan["Subject"].nunique() == 30
    assert len(plan) == 300
    result = blm.power(sleep, "Days", new_data=plan.drop(columns="Reaction"), n_sim=10, seed=1, progress=False)
    assert result.rows == 300
    curve = blm.power_curve(
        sleep, "Days", along="Subject", sizes=[3, 20], parameters={"Days": 5}, n_sim=40, seed=1, progress=False
    )
    assert curve.to_pandas()["power"].is_monotonic_increasing
    assert list(curve.to_pandas().index) == [3, 20]
    assert "Subject" in str(curve)


def test_failures_are_counted_and_named(arms):
    def sometimes(fit):
        return np.nan if fit.solution.beta[1] > 1 else 0.01

    result = blm.power(arms, sometimes, parameters=ARM_TRUTH, n_sim=30, seed=1, progress=False)
    failed = sum(result.failures.values())
    assert 0 < failed < 30
    assert result.n_sim == 30 - failed
    assert result.power == 1
    assert f"{failed} failed: the test gave no p-value" in str(result)


@pytest.mark.parametrize(("options", "message"), [({"n_sim": 0}, "at least one"), ({"alpha": 5}, "between 0 and 1")])
def test_power_refuses(arms, options, message):
    with pytest.raises(ComparisonError, match=message):
        blm.power(arms, "treated", parameters=ARM_TRUTH, progress=False, **options)


def test_power_of_what_is_not_there_is_refused(arms):
    with pytest.raises(ComparisonError, match="treatd"):
        blm.power(arms, "treatd", parameters=ARM_TRUTH, progress=False)


def test_extend_refuses_and_cuts():
    data = {"g": ["a", "a", "b"], "x": [1, 2, 3]}
    assert blm.extend(data, "g", 1)["x"].tolist() == [1, 2]
    with pytest.raises(DataError, match="Did you mean 'g'"):
        blm.extend(data, "G", 2)
    with pytest.raises(DataError, match="one level or more"):
        blm.extend(data, "g", 0)


def test_power_prints_what_is_known():
    values = np.array([0.01, 0.2, 0.03, 0.04])
    shown = str(Power("x", 0.05, values, values, 0.02, {"bad": 2}, 3, 60))
    assert shown.splitlines()[0].startswith("Power for x at alpha = 0.05: 75.0 %")
    assert "1.33 times the true size" in shown
    assert "3 fits on the boundary" in shown
    assert "2 failed: bad" in shown
