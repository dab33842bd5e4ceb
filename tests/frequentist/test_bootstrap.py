"""The parametric bootstrap: simulation, refits, intervals, failures, threads."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, DataError, FitError
from bayeslmm.frequentist.bootstrap import Bootstrap, simulate_response
from tests.frequentist.inference_cases import lmer

SLEEP = ("Reaction ~ Days + (Days | Subject)", "sleepstudy")


def test_refitting_the_data_gives_the_fit_back():
    fit = lmer(*SLEEP)
    again = fit.refit(fit.design.y)
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-12)
    np.testing.assert_allclose(again.theta, fit.theta, rtol=1e-4)
    assert fit.refit(fit.design.y, reml=False).criterion == pytest.approx(1751.9393445, rel=1e-9)


def test_refitting_equals_fitting_anew():
    fit, rng = lmer(*SLEEP), np.random.default_rng(2)
    y = simulate_response(fit, rng)
    data = blm.datasets.load("sleepstudy").assign(Reaction=y)
    fresh, again = blm.lmer(SLEEP[0], data), fit.refit(y)
    assert again.criterion == pytest.approx(fresh.criterion, rel=1e-10)
    np.testing.assert_allclose(again.fixef, fresh.fixef, rtol=1e-5)
    np.testing.assert_array_equal(again.design.y, y)


def test_responses_are_drawn_from_the_model():
    rng = np.random.default_rng(3)
    frame = {"x": np.tile([0.0, 1.0], 50), "g": np.repeat(np.arange(25), 4), "w": np.tile([1.0, 4.0], 50)}
    frame["y"] = rng.normal(size=25)[frame["g"]] + rng.normal(size=100)
    fit = blm.lmer("y ~ x + (1 | g)", frame, weights="w")
    draws = np.array([simulate_response(fit, rng) for _ in range(4000)])
    effect = fit.varcorr.entries[0].sd[0] ** 2
    np.testing.assert_allclose(draws.mean(axis=0), fit.design.X @ fit.solution.beta, atol=0.15)
    assert draws[:, ::2].var(axis=0).mean() == pytest.approx(effect + fit.sigma**2, rel=0.05)
    assert draws[:, 1::2].var(axis=0).mean() == pytest.approx(effect + fit.sigma**2 / 4, rel=0.05)
    assert np.cov(draws[:, 0], draws[:, 2])[0, 1] == pytest.approx(effect, rel=0.2)
    kept = np.array([simulate_response(fit, rng, keep_effects=True) for _ in range(2000)])
    np.testing.assert_allclose(kept.mean(axis=0), fit.fitted, atol=0.15)


def test_threads_do_not_change_the_result():
    fit = lmer(*SLEEP)
    one, two = (fit.bootstrap(30, seed=7, workers=workers, progress=False) for workers in (1, 2))
    pd.testing.assert_frame_equal(one.replicates, two.replicates)
    assert not one.replicates.equals(fit.bootstrap(30, seed=8, progress=False).replicates)


def test_standard_errors_and_intervals_of_coefficients():
    fit = lmer(*SLEEP)
    boot = fit.bootstrap(400, seed=1, progress=False, studentise=True)
    assert boot.n_failed == 0
    assert boot.standard_error["Days"] == pytest.approx(np.sqrt(fit.vcov.loc["Days", "Days"]), rel=0.12)
    wald = fit.confint().loc["Days"]
    for kind in ("percentile", "basic", "studentised"):
        np.testing.assert_allclose(boot.confint(kind=kind).loc["Days"], wald, atol=0.6)
    studentised = boot.confint(kind="studentised")
    assert (studentised.loc["sd_Subject[Days]"] > 0).all()
    assert studentised.loc["corr_Subject[Intercept,Days]"].abs().max() < 1


def test_studentised_intervals_by_hand():
    rng = np.random.default_rng(0)
    replicates = pd.DataFrame({"b": rng.normal(size=500), "sigma": np.exp(rng.normal(size=500))})
    se = pd.DataFrame({"b": np.full(500, 2.0), "sigma": np.full(500, 0.5)})
    boot = Bootstrap(
        pd.Series({"b": 0.1, "sigma": 1.5}), replicates, {}, 0, se, pd.Series({"b": 3.0, "sigma": 0.7}),
        pd.Series({"b": "fixed", "sigma": "sigma"}),
    )  # fmt: skip
    found = boot.confint(0.9, "studentised")
    t = np.quantile((replicates["b"] - 0.1) / 2, [0.05, 0.95])
    np.testing.assert_allclose(found.loc["b"], [0.1 - 3 * t[1], 0.1 - 3 * t[0]])
    variance = replicates["sigma"] ** 2  # standard errors on the log scale, t ratios of the variance
    t = np.quantile((variance - 1.5**2) / (2 * variance * 0.5), [0.05, 0.95])
    limits = 1.5**2 - 2 * 1.5**2 * 0.7 * t[::-1]
    np.testing.assert_allclose(found.loc["sigma"], np.sqrt(np.maximum(limits, 0)))


def test_replicates_at_zero_count_as_the_lowest():
    replicates = pd.DataFrame({"sd": np.concatenate([np.zeros(4), np.linspace(0.5, 2, 96)])})
    se = pd.DataFrame({"sd": np.concatenate([np.full(4, np.nan), np.full(96, 0.3)])})
    boot = Bootstrap(
        pd.Series({"sd": 1.0}), replicates, {}, 4, se, pd.Series({"sd": 0.3}), pd.Series({"sd": "sd"})
    )  # fmt: skip
    wide, narrow = boot.confint(0.95, "studentised").loc["sd"], boot.confint(0.8, "studentised").loc["sd"]
    assert wide["upper"] == np.inf
    assert np.isfinite(wide["lower"])
    assert np.isfinite(narrow["upper"])
    assert narrow["upper"] > 1


def test_any_statistic():
    fit = lmer(*SLEEP)
    number = fit.bootstrap(20, lambda refit: refit.criterion, seed=1, progress=False)
    assert number.replicates.shape == (20, 1)
    assert number.estimate.iloc[0] == fit.criterion
    series = fit.bootstrap(20, lambda refit: refit.ranef["Subject"].loc["308"], seed=1, progress=False)
    assert list(series.replicates) == ["Intercept", "Days"]

    def share(refit):
        return np.array([refit.sigma, refit.sigma**2])

    assert list(fit.bootstrap(20, share, seed=1, progress=False).replicates) == ["share[0]", "share[1]"]


def test_failures_are_counted_and_reported():
    fit = lmer(*SLEEP)

    def fragile(refit):
        if refit is not fit and refit.sigma > 25.5:
            raise FitError("too large\nfor this test")
        return refit.sigma

    boot = fit.bootstrap(40, fragile, seed=1, progress=False)
    assert 0 < boot.n_failed < 40
    assert boot.failures == {"too large": boot.n_failed}
    assert boot.replicates["fragile"].isna().sum() == boot.n_failed
    assert f"{boot.n_failed} failed: too large" in str(boot)


def test_when_all_fail_the_reason_is_given():
    fit = lmer(*SLEEP)

    def hopeless(refit):
        if refit is not fit:
            raise FitError("never")
        return 1.0

    with pytest.raises(FitError, match="all 5 replicates failed; the first because: never"):
        fit.bootstrap(5, hopeless, seed=1, progress=False)


def test_an_error_in_the_statistic_itself_is_not_hidden():
    with pytest.raises(KeyError):
        lmer(*SLEEP).bootstrap(5, lambda refit: {}["x"], progress=False)


def test_singular_replicates_are_results_and_counted():
    boot = lmer("Yield ~ 1 + (1 | Batch)", "Dyestuff").bootstrap(60, seed=2, progress=False)
    zero = (boot.replicates["sd_Batch[Intercept]"] < 1e-3 * boot.replicates["sigma"]).sum()
    assert 0 < zero == boot.singular < 60
    assert f"{zero} on the boundary" in str(boot)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_a_fit_on_the_boundary_can_be_bootstrapped():
    boot = lmer("Yield ~ 1 + (1 | Batch)", "Dyestuff2").bootstrap(60, seed=2, progress=False)
    assert 0 < boot.singular < 60


def test_confint_by_bootstrap():
    fit = lmer(*SLEEP)
    found = fit.confint(0.8, method="boot", n=50, seed=3, progress=False, parameters=["Days", "sigma"])
    pd.testing.assert_frame_equal(
        found, fit.bootstrap(50, seed=3, progress=False).confint(0.8).loc[["Days", "sigma"]].rename_axis("parameter")
    )


def test_bad_input():
    fit = lmer(*SLEEP)
    with pytest.raises(ComparisonError, match="tails"):
        fit.bootstrap(20, seed=1, progress=False).confint()
    with pytest.raises(ComparisonError, match="studentise=True"):
        fit.bootstrap(60, seed=1, progress=False).confint(kind="studentised")
    with pytest.raises(ComparisonError, match="not one of"):
        fit.bootstrap(60, seed=1, progress=False).confint(kind="bca")
    with pytest.raises(ComparisonError, match="at least one"):
        fit.bootstrap(0)
    with pytest.raises(ComparisonError, match="not on a statistic"):
        fit.bootstrap(5, lambda refit: 1.0, studentise=True)
    with pytest.raises(DataError, match="180 rows"):
        fit.refit(np.zeros(3))
    with pytest.raises(DataError, match="not finite in 1 rows"):
        fit.refit(np.where(np.arange(180) == 3, np.nan, 1.0))


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_studentised_limits_of_a_singular_fit_start_at_zero():
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
    boot = fit.bootstrap(200, seed=1, progress=False, studentise=True)
    found, percentile = boot.confint(kind="studentised"), boot.confint()
    assert found.loc["sd_Batch[Intercept]"].tolist() == percentile.loc["sd_Batch[Intercept]"].tolist()
    assert found.loc["sd_Batch[Intercept]", "lower"] == 0 < found.loc["sd_Batch[Intercept]", "upper"] < 3
    assert found.loc["sigma", "lower"] != percentile.loc["sigma", "lower"]
