"""What a generalised fit answers, on data with a known truth and on bad input."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import DataError, DataWarning, FitError, FormulaError, SingularFitWarning
from bayeslmm.families import FAMILIES, as_family
from bayeslmm.frequentist.glmm_checks import overdispersion, quantile_qq, quantile_residuals, zeros
from bayeslmm.frequentist.glmm_fit import ratio_name

GROUPS, PER_GROUP = 60, 25
CASES = [
    ("bernoulli", "logit"),
    ("bernoulli", "probit"),
    ("bernoulli", "cloglog"),
    ("binomial", "logit"),
    ("poisson", "log"),
    ("poisson", "sqrt"),
    ("gamma", "log"),
    ("inverse_gaussian", "log"),
    ("negativebinomial", "log"),
    ("beta", "logit"),
    ("beta_binomial", "logit"),
    ("cumulative", "logit"),
    ("cumulative", "probit"),
    ("gaussian", "log"),
]


def simulated(name, link, seed=4):
    """Return a frame simulated from intercept 0.5, slope 0.4, group SD 0.5, own parameter 4."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(GROUPS), PER_GROUP)
    x = rng.normal(size=len(g))
    base = 2.5 if link == "sqrt" else 0.5
    eta = base + 0.4 * x + 0.5 * rng.normal(size=GROUPS)[g]
    frame = pd.DataFrame({"x": x, "g": g.astype(str)})
    if name == "cumulative":
        noise = rng.logistic(size=len(g)) if link == "logit" else rng.normal(size=len(g))
        frame["y"] = pd.Categorical(np.digitize(eta + noise, [0.0, 1.0, 2.0]), ordered=True)
        return frame
    size = 10.0 if name in ("binomial", "beta_binomial") else 1.0
    family = as_family(name, link)
    y = family.draw(rng, family.inverse_link(eta), 4.0, size)
    frame["k"], frame["n"], frame["y"] = y * size, size, y
    return frame


@pytest.mark.parametrize(("name", "link"), CASES)
def test_recovers_the_truth(name, link):
    frame = simulated(name, link)
    response = "prop(k, n)" if name in ("binomial", "beta_binomial") else "y"
    fit = blm.model(f"{response} ~ x + (1 | g)", frame, family=name, link=link).fit()
    truth = {"x": 0.4, "sd_g[Intercept]": 0.5}
    if name == "cumulative":
        truth |= dict(zip(fit.auxiliary.index, [-0.5, 0.5, 1.5], strict=True))
    else:
        truth["Intercept"] = 2.5 if link == "sqrt" else 0.5
    if name not in ("bernoulli", "binomial", "poisson", "cumulative"):
        truth[FAMILIES[name].parameter] = 4.0
    table = fit.parameter_frame()
    for parameter, value in truth.items():
        row = table.loc[parameter]
        assert abs(row["estimate"] - value) < 4 * row["se"], parameter
        assert row["lower"] < row["estimate"] < row["upper"]
    assert fit.optimum.converged
    assert fit.optimum.hessian_pd
    assert np.isfinite(np.asarray(fit.summary().scaled_residuals)).all()


def test_predictions_agree_with_the_design(cbpp):
    eta = cbpp.predict(scale="link")
    np.testing.assert_allclose(1 / (1 + np.exp(-eta)), cbpp.fitted)
    draws = cbpp.epred_draws(seed=1, draws=4000)
    assert draws.shape == (4000, cbpp.n_obs)
    table = cbpp.predict(interval="confidence", scale="link")
    np.testing.assert_allclose(cbpp.linpred_draws(seed=2, draws=4000).std(axis=0), table["se"], rtol=0.08)
    np.testing.assert_allclose(cbpp.linpred_draws(seed=2, draws=4000).mean(axis=0), eta, atol=0.04)


def test_population_average_integrates_over_the_groups(cbpp):
    rows = {"period": ["1", "2"], "herd": ["1", "1"]}
    eta = cbpp.predict(rows, include=[], scale="link")
    noise = np.random.default_rng(1).normal(size=(400_000, 1)) * cbpp.varcorr.entries[0].sd[0]
    expected = (1 / (1 + np.exp(-(eta + noise)))).mean(axis=0)
    np.testing.assert_allclose(cbpp.population_average(rows), expected, atol=1e-3)
    unseen = cbpp.predict({"period": ["1"], "herd": ["new"]}, new_levels="sample")
    np.testing.assert_allclose(unseen, cbpp.population_average(rows)[:1])


def test_a_population_average_may_keep_some_factors(cbpp):
    np.testing.assert_allclose(cbpp.population_average(include=["herd"]), cbpp.fitted)


def test_summary_prints_like_glmer(cbpp):
    text = str(cbpp.summary())
    for part in ("Family: binomial (logit)", "AIC", "df.resid", "z value", "Pr(>|z|)", "herd", "-1.3985"):
        assert part in text
    ratios = str(cbpp.summary(exp=True))
    assert "Odds ratio" in ratios
    assert "delta method" in ratios


def test_ratios_are_transformed_intervals(cbpp):
    frame = cbpp.ratios().frame
    np.testing.assert_allclose(frame["Odds ratio"], np.exp(cbpp.fixef))
    np.testing.assert_allclose(np.log(frame["97.5 %"]), cbpp.confint().loc[frame.index, "upper"])


@pytest.mark.parametrize(
    ("family", "link", "name"),
    [("poisson", "log", "Rate ratio"), ("bernoulli", "log", "Risk ratio"), ("gamma", "log", "Mean ratio"),
     ("bernoulli", "cloglog", "Hazard ratio"), ("cumulative", "logit", "Odds ratio")],
)  # fmt: skip
def test_names_of_ratios(family, link, name):
    assert ratio_name(as_family(family, link)) == name


def test_no_ratio_under_probit():
    with pytest.raises(DataError, match="no meaning"):
        ratio_name(as_family("bernoulli", "probit"))


def test_profile_interval_agrees_with_the_drop_in_deviance(cbpp):
    interval = cbpp.confint(method="profile", parameters=["period[T.2]", "sd_herd[Intercept]"])
    wald = cbpp.confint()
    assert interval.loc["period[T.2]", "lower"] == pytest.approx(wald.loc["period[T.2]", "lower"], abs=0.06)
    sd = interval.loc["sd_herd[Intercept]"]
    assert 0.3 < sd["lower"] < 0.4
    assert 1.0 < sd["upper"] < 1.3


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_vector_valued_quadrature_refines_laplace():
    frame = simulated("bernoulli", "logit").iloc[::3]
    model = blm.model("y ~ x + (x || g)", frame, family="bernoulli")
    laplace, coarse, fine = (model.fit(quadrature=points) for points in (1, 5, 9))
    assert abs(fine.loglik - coarse.loglik) < 0.2 * abs(fine.loglik - laplace.loglik)
    assert fine.engine == "quadrature (9)"


def test_one_point_of_quadrature_is_laplace(cbpp):
    from bayeslmm.likelihood.quadrature import adaptive_loglik

    beta = cbpp.kernel.whiten(cbpp.optimum.beta)
    assert adaptive_loglik(cbpp.kernel, cbpp.theta, beta, [], 1) == pytest.approx(cbpp.loglik, abs=1e-10)


def test_crossed_factors_refuse_quadrature():
    frame = simulated("poisson", "log").assign(h=lambda d: (np.arange(len(d)) % 5).astype(str))
    with pytest.raises(FitError, match="one grouping factor"):
        blm.model("y ~ x + (1 | g) + (1 | h)", frame, family="poisson").fit(quadrature=5)


def test_quantile_residuals_are_uniform_under_the_model():
    fit = blm.model("y ~ x + (1 | g)", simulated("negativebinomial", "log"), family="negativebinomial").fit()
    assert stats.kstest(quantile_residuals(fit), "uniform").pvalue > 0.01
    wrong = blm.model("y ~ x + (1 | g)", simulated("negativebinomial", "log"), family="poisson").fit()
    assert stats.kstest(quantile_residuals(wrong), "uniform").pvalue < 1e-4
    assert overdispersion(wrong)["ratio"] > 1.2
    assert "over-dispersion" in str(wrong.audit())
    assert zeros(wrong)["ratio"] > 1.05


def test_quantile_plots_show_a_wrong_family():
    frame = simulated("negativebinomial", "log")
    right, wrong = (blm.model("y ~ x + (1 | g)", frame, family=f).fit() for f in ("negativebinomial", "poisson"))
    assert quantile_qq(right).outside == 0
    assert quantile_qq(wrong).outside > 50
    left, against = wrong.plot_diagnostics()
    assert left.get_ylabel() == against.get_ylabel() == "quantile residual"
    assert against.get_xlabel() == "expected y"
    with pytest.raises(DataError, match="a band needs 20"):
        right.plot_qq(n_sim=3)


def test_quantile_plots_of_an_ordered_response():
    fit = blm.model("y ~ x + (1 | g)", simulated("cumulative", "logit"), family="cumulative").fit()
    assert quantile_qq(fit).outside == 0
    assert fit.plot_diagnostics()[1].get_xlabel() == "expected y"


def test_refit_to_a_simulated_response(cbpp):
    y = cbpp.predictive_draws(draws=1, seed=3)[0]
    again = cbpp.refit(y)
    assert again.loglik != cbpp.loglik
    assert again.optimum.converged


def test_an_ordered_response_has_thresholds_and_probabilities():
    fit = blm.model("y ~ x + (1 | g)", simulated("cumulative", "logit"), family="cumulative").fit()
    assert "Intercept" not in fit.fixef
    assert fit.fitted.shape == (GROUPS * PER_GROUP, 4)
    np.testing.assert_allclose(fit.fitted.sum(axis=1), 1.0)
    assert fit.predict({"x": [0.0], "g": ["0"]}).shape == (1, 4)
    assert set(np.unique(fit.predictive_draws(draws=5, seed=1))) == {0.0, 1.0, 2.0, 3.0}


def test_a_zero_variance_is_reported_and_standard_errors_stay():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"y": rng.poisson(2.0, 200), "x": rng.normal(size=200), "g": np.repeat(np.arange(20), 10)})
    frame["y"] = np.tile([1, 2, 3, 2, 2, 1, 3, 2, 2, 2], 20)
    with pytest.warns(SingularFitWarning, match="zero variance"):
        fit = blm.model("y ~ x + (1 | g)", frame, family="poisson").fit()
    assert fit.singular
    assert np.isfinite(np.sqrt(np.diag(fit.vcov))).all()
    assert np.isnan(fit.parameter_frame().loc["sd_g[Intercept]", "se"])


def test_complete_separation_ends_with_advice():
    x = np.repeat([0.0, 1.0], 40)
    frame = pd.DataFrame({"y": x, "x": x, "g": np.tile(np.arange(8), 10)})
    with pytest.warns((DataWarning, SingularFitWarning)) as found:
        blm.model("y ~ x + (1 | g)", frame, family="bernoulli").fit()
    assert any("separate the responses" in str(item.message) for item in found)


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
@pytest.mark.parametrize("quadrature", [0, 1, 5])
def test_a_level_without_events_ends_with_advice(family, quadrature):
    rng = np.random.default_rng(1)
    level = np.tile(list("pqr"), 40)
    y = rng.poisson(2.0, 120) if family == "poisson" else rng.integers(0, 2, 120)
    frame = pd.DataFrame({"y": np.where(level == "p", 0, y), "f": level, "g": np.repeat(np.arange(12), 10)})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit = blm.model("y ~ f + (1 | g)", frame, family=family).fit(quadrature=quadrature)
    assert any("separate the responses" in str(item.message) for item in found)
    assert any("sample() with a prior" in str(item.message) for item in found)
    difference = fit.fixef["f[T.r]"] - fit.fixef["f[T.q]"]
    assert abs(difference) < 1.5


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
@pytest.mark.parametrize("size", [2, 10])
def test_a_spread_of_groups_without_end_is_named(link, size):
    g = np.repeat(np.arange(12), size)
    frame = pd.DataFrame({"y": g % 2, "x": np.random.default_rng(1).normal(size=len(g)), "g": g})
    with pytest.warns(DataWarning, match=r"standard deviation of \(1 \| g\) runs away: the responses within a level"):
        fit = blm.model("y ~ x + (1 | g)", frame, family="bernoulli", link=link).fit()
    assert fit.parameter_frame().loc["sd_g[Intercept]", "estimate"] == pytest.approx(fit.varcorr.entries[0].sd[0])
    assert "runaway SD" in str(fit.audit())


def test_a_large_spread_that_the_data_determine_is_left_alone(cbpp):
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(60), 20)
    eta = 4 * rng.normal(size=60)[g]
    frame = pd.DataFrame({"y": rng.binomial(1, 1 / (1 + np.exp(-eta))), "g": g})
    assert blm.model("y ~ 1 + (1 | g)", frame, family="bernoulli").fit().runaway == ""
    assert cbpp.runaway == ""


BAD = [
    ("poisson", [1.0, -1.0, 2.0], "counts"),
    ("poisson", [1.0, 0.5, 2.0], "counts"),
    ("negativebinomial", [1.0, -2.0, 2.0], "counts"),
    ("gamma", [1.0, 0.0, 2.0], "must be positive"),
    ("beta", [0.5, 1.0, 0.2], "strictly between"),
    ("bernoulli", [1.0, 1.0, 1.0], "no variation|one class only"),
    ("bernoulli", [0.0, 0.0, 0.0], "no variation|one class only"),
    ("binomial", [0.5, 0.2, 0.1], "trials"),
]


@pytest.mark.parametrize(("family", "y", "words"), BAD)
def test_impossible_responses(family, y, words):
    frame = pd.DataFrame({"y": np.tile(y, 4), "g": np.repeat(["a", "b", "c", "d"], 3)})
    with pytest.raises(DataError, match=words):
        blm.model("y ~ 1 + (1 | g)", frame, family=family).fit()


def test_counts_larger_than_trials():
    frame = pd.DataFrame({"k": [1, 3, 2, 1], "n": [2, 2, 2, 2], "g": ["a", "a", "b", "b"]})
    with pytest.raises(DataError, match="larger than the number of trials"):
        blm.model("prop(k, n) ~ 1 + (1 | g)", frame, family="binomial")


def test_unknown_families_and_links():
    with pytest.raises(FormulaError, match="Did you mean 'poisson'"):
        as_family("poison")
    with pytest.raises(FormulaError, match="Did you mean 'logit'"):
        as_family("bernoulli", "logitt")
    with pytest.raises(FormulaError, match="has no link 'sqrt'"):
        as_family("gamma", "sqrt")


def test_glmer_refuses_the_gaussian_family():
    with pytest.raises(FormulaError, match="use lmer"):
        blm.glmer("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"), family="gaussian")


@pytest.fixture(scope="module")
def cbpp():
    return blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))


def test_every_word_of_a_gaussian_fit_is_there_or_says_what_answers_instead():
    from bayeslmm.frequentist.glmm_fit import GAUSSIAN_ONLY

    gaussian, own = (
        {name for name in dir(kind) if not name.startswith("_")} | set(kind.__dataclass_fields__)
        for kind in (blm.LmmFit, blm.GlmmFit)
    )
    assert gaussian - own == set(GAUSSIAN_ONLY)
    fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    with pytest.raises(AttributeError, match="a generalised fit has no 'robust': sandwiches are for Gaussian fits"):
        fit.robust(cluster="herd")
    with pytest.raises(AttributeError, match="no attribute 'fixf'"):
        _ = fit.fixf
    assert fit.plot_residuals().get_ylabel() == "quantile residual"
    assert fit.plot_residuals("pearson", against="size").get_xlabel() == "size"
