"""Tests, marginal means, bootstrap, simulation and quality of generalised fits, against R and known truths."""

import json
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, DataError
from bayeslmm.frequentist.glmm_quality import latent_residual
from bayeslmm.frequentist.glmm_refit import regression

CASES = {
    case["name"]: case
    for case in json.loads((Path(__file__).parents[1] / "reference" / "glmm_inference.json").read_text())
}


@cache
def fitted(name, which="formula"):
    case = CASES[name]
    family = "poisson" if case["family"] == "poisson" else ("bernoulli" if name == "contraception" else "binomial")
    return blm.glmer(case[which].replace(" * ", "*"), blm.datasets.load(case["dataset"]), family)


@pytest.fixture(params=CASES)
def case(request):
    return fitted(request.param), CASES[request.param]


def test_terms_as_car_tests_them(case):
    fit, reference = case
    for type, key in ((2, "type2"), (3, "type3")):
        table, expected = fit.anova(type).frame, reference[key]
        terms = expected["terms"] if isinstance(expected["terms"], list) else [expected["terms"]]
        assert list(table["Df"]) == list(np.atleast_1d(expected["df"]))
        assert len(table) == len(terms)
        # SAS and lmerTest (and we) do not count urban as contained in age:urban, car does.
        same = [not (type == 2 and name == "urban") for name in table.index]
        np.testing.assert_allclose(table["Chisq"][same], np.atleast_1d(expected["chisq"])[same], rtol=2e-3)


def test_sequential_tests_add_up_to_all_of_them_together(case):
    fit, _ = case
    slopes = np.eye(len(fit.beta))[1:]
    together = fit.test(slopes).joint
    assert fit.anova(1).frame["Chisq"].sum() == pytest.approx(together.statistic * together.df_num, rel=1e-9)


def test_hypotheses_as_car_tests_them(case):
    fit, reference = case
    factor = reference["factor"]
    text = ", ".join(reference["hypothesis"]["text"])
    for level in ("1", "2", "3", "4"):
        text = text.replace(f"{factor}{level}", f"{factor}[T.{level}]")
    joint = fit.test(text).joint
    assert joint.statistic * joint.df_num == pytest.approx(reference["hypothesis"]["chisq"], rel=2e-3)
    assert joint.p_value == pytest.approx(reference["hypothesis"]["p"], rel=5e-3)
    assert "chi2(2)" in str(fit.test(text))
    assert list(fit.test(text).contrasts.columns) == ["Estimate", "Std. Error", "rhs", "z value", "Pr(>|z|)"]


def test_likelihood_ratio_as_lme4(case):
    fit, reference = case
    table = blm.anova(fitted(reference["name"], "small"), fit)
    assert table.tests[0].statistic == pytest.approx(reference["lrt"]["chisq"], abs=1e-4)
    assert table.tests[0].p_value == pytest.approx(reference["lrt"]["p"], rel=1e-3)


@pytest.mark.parametrize("scale", ["link", "response"])
def test_marginal_means_as_emmeans(case, scale):
    fit, reference = case
    means = fit.emmeans(reference["factor"], scale=scale)
    for name, expected in reference[scale].items():
        np.testing.assert_allclose(means.frame[name], expected, rtol=2e-3, atol=1e-4)
    pairs, expected = means.pairs().frame, reference[f"pairs_{scale}"]
    for column, key in ((0, "estimate"), ("se", "se"), ("z value", "z"), ("p", "p")):
        values = pairs.iloc[:, 0] if column == 0 else pairs[column]
        np.testing.assert_allclose(values, expected[key], rtol=3e-3, atol=2e-4)
    np.testing.assert_allclose(
        pairs[["lower", "upper"]].T, [expected["lower"], expected["upper"]], rtol=3e-3, atol=1e-3
    )
    assert pairs.columns[0] == ("difference" if scale == "link" else {"logit": "odds ratio", "log": "ratio"}[
        fit.response_family.link
    ])  # fmt: skip


@pytest.mark.parametrize("name", ["cbpp", "contraception"])
def test_icc_and_r2_as_performance(name):
    fit, reference = fitted(name), CASES[name]
    icc, r2 = fit.icc(), fit.r2()
    expected = [*reference["icc"].values(), *reference["r2"].values()]
    np.testing.assert_allclose([icc.adjusted, icc.conditional, r2.conditional, r2.marginal], expected, rtol=1e-3)


def test_residuals_as_lme4(case):
    fit, reference = case
    for kind, expected in reference["residuals"].items():
        ours = fit.residuals(kind)[: len(expected)]
        if kind == "pearson" and fit.family == "binomial":
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
        else:
            np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=1e-4)


def test_profile_limits_as_lme4():
    fit, reference = fitted("cbpp"), CASES["cbpp"]["profile"]
    limits = fit.confint(method="profile")
    order = ["sd_herd[Intercept]", "Intercept", "period[T.2]", "period[T.3]", "period[T.4]"]
    np.testing.assert_allclose(limits.loc[order, "lower"], reference["lower"], atol=2e-3)
    np.testing.assert_allclose(limits.loc[order, "upper"], reference["upper"], atol=2e-3)


def test_variances_in_place_of_standard_deviations():
    fit = fitted("cbpp")
    sd, variance = fit.confint().loc["sd_herd[Intercept]"], fit.confint(scale="variance").loc["var_herd[Intercept]"]
    np.testing.assert_allclose(variance, sd**2)


# --- variances of the response --------------------------------------------------------------------------------------


def test_observation_scale_agrees_with_simulated_pairs():
    fit = fitted("contraception")
    rng = np.random.default_rng(1)
    sd = fit.varcorr.entries[0].sd[0]
    eta = fit.predict(scale="link", include=[])[:, None]
    b = sd * rng.normal(size=(len(eta), 4000))
    p = 1 / (1 + np.exp(-(eta + b)))
    between, about = p.var(axis=1).mean(), (p * (1 - p)).mean()
    parts = fit.variance_partition("observation")
    assert parts.random["district"] == pytest.approx(between, rel=0.01)
    assert parts.residual == pytest.approx(about, rel=0.01)
    assert parts.fixed == pytest.approx(p.mean(axis=1).var(ddof=1), rel=0.02)
    row = fit.icc(scale="observation").by_factor.loc["district"]
    assert row["icc"] == pytest.approx(between / (between + about), rel=0.02)
    assert row["lower"] < row["icc"] < row["upper"]


def test_two_factors_on_the_observation_scale():
    rng = np.random.default_rng(3)
    a, b = np.repeat(np.arange(30), 40), np.tile(np.arange(20), 60)
    y = rng.poisson(np.exp(0.4 + 0.5 * rng.normal(size=30)[a] + 0.3 * rng.normal(size=20)[b]))
    fit = blm.glmer("y ~ 1 + (1 | a) + (1 | b)", pd.DataFrame({"y": y, "a": a, "b": b}), "poisson")
    parts = fit.variance_partition("observation")
    # A log-normal mean: exact formulas.
    mu, va, vb = float(fit.fixef.iloc[0]), *(entry.variance[0] for entry in fit.varcorr.entries)
    mean = np.exp(mu + (va + vb) / 2)
    assert parts.random["a"] == pytest.approx(mean**2 * np.expm1(va), rel=1e-6)
    assert parts.random["b"] == pytest.approx(mean**2 * np.expm1(vb), rel=1e-6)
    assert parts.random.sum() == pytest.approx(mean**2 * np.expm1(va + vb), rel=1e-6)
    assert parts.residual == pytest.approx(mean, rel=1e-6)
    latent = fit.variance_partition()
    assert latent.residual == pytest.approx(np.log1p(1 / mean), rel=1e-6)
    assert latent.random["a"] == pytest.approx(va)


def test_the_standard_error_of_an_icc_is_that_of_its_transformed_parameter():
    fit = fitted("cbpp")
    row = fit.icc().by_factor.loc["herd"]
    sd, error = fit.parameter_frame().loc["sd_herd[Intercept]", ["estimate", "se"]]
    slope = 2 * sd * (np.pi**2 / 3) / (sd**2 + np.pi**2 / 3) ** 2
    assert row["se"] == pytest.approx(slope * error, rel=1e-4)


def test_scales_that_do_not_exist():
    frame = blm.datasets.load("Contraception")
    heavy = blm.model("use ~ age + (1 | district)", frame, "bernoulli", link="cauchit").fit()
    with pytest.raises(DataError, match="no variance"):
        heavy.icc()
    assert 0 < heavy.icc(scale="observation").adjusted < 1
    with pytest.raises(DataError, match="not one of"):
        heavy.r2("respons")
    with pytest.raises(DataError, match="not one of"):
        blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")).icc(scale="obs")


@pytest.mark.parametrize(("link", "value"), [("logit", np.pi**2 / 3), ("probit", 1.0), ("cloglog", np.pi**2 / 6)])
def test_latent_variances(link, value):
    fit = blm.model("use ~ age + (1 | district)", blm.datasets.load("Contraception"), "bernoulli", link=link).fit()
    assert latent_residual(fit, fit.theta, fit.beta, fit.optimum.aux) == pytest.approx(value)


# --- marginal effects -----------------------------------------------------------------------------------------------


def test_marginal_effects_in_closed_form():
    fit = fitted("contraception", "small")
    found = fit.marginal_effects(group_effects="zero").frame.set_index("term")
    X, beta, vcov = fit.design.X, fit.beta, fit.vcov.to_numpy()
    density = stats.logistic.pdf(X @ beta)
    assert found.loc["age", "estimate"] == pytest.approx(float(density.mean() * beta[1]), rel=1e-6)
    curvature = density * (1 - 2 * stats.logistic.cdf(X @ beta))
    slope = beta[1] * (curvature[:, None] * X).mean(axis=0) + np.array([0, density.mean(), 0])
    assert found.loc["age", "std.error"] == pytest.approx(float(np.sqrt(slope @ vcov @ slope)), rel=1e-4)
    on, off = X.copy(), X.copy()
    on[:, 2], off[:, 2] = 1.0, 0.0
    difference = (stats.logistic.cdf(on @ beta) - stats.logistic.cdf(off @ beta)).mean()
    assert found.loc["urban", "estimate"] == pytest.approx(float(difference), rel=1e-9)


def test_integrated_marginal_effects_are_differences_of_population_averages():
    fit = fitted("cbpp")
    data = blm.datasets.load("cbpp")
    found = fit.marginal_effects("period").frame
    first = fit.population_average(data.assign(period="1")).mean()
    for row, level in zip(found.itertuples(), "234", strict=True):
        assert row.contrast == f"{level} - 1"
        assert row.estimate == pytest.approx(fit.population_average(data.assign(period=level)).mean() - first)


def test_marginal_effects_of_a_linear_model_are_its_coefficients():
    fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    found = fit.marginal_effects().frame.iloc[0]
    assert found["estimate"] == pytest.approx(fit.fixef["Days"])
    assert found["std.error"] == pytest.approx(np.sqrt(fit.vcov.loc["Days", "Days"]))
    with pytest.raises(DataError, match="Did you mean 'Days'"):
        fit.marginal_effects("days")
    with pytest.raises(DataError, match="not one of"):
        fit.marginal_effects(group_effects="none")


# --- simulation and refits ------------------------------------------------------------------------------------------


def test_simulated_responses_have_the_moments_of_the_model():
    fit = fitted("counts")
    y = fit.simulate(2000, seed=1)
    np.testing.assert_allclose(y.mean(axis=0), fit.population_average(), rtol=0.15)
    assert fit.simulate(1, seed=5).tolist() == fit.simulate(1, seed=5).tolist()
    kept = fit.simulate(2000, keep_effects=True, seed=2)
    np.testing.assert_allclose(kept.mean(axis=0), fit.fitted, rtol=0.15, atol=0.02)


def test_simulation_from_parameters_of_a_model():
    data = blm.datasets.load("cbpp")
    model = blm.model("incidence ~ 1 + (1 | herd)", data, "negativebinomial")
    truth = {"Intercept": np.log(3.0), "sd_herd[Intercept]": 0.0, "alpha": 2.0}
    y = blm.simulate(model, 3000, parameters=truth, seed=1)
    assert y.mean() == pytest.approx(3.0, rel=0.02)
    assert y.var() == pytest.approx(3.0 + 9.0 / 2.0, rel=0.05)
    with pytest.raises(DataError, match="missing: 'alpha'"):
        blm.simulate(model, parameters={"Intercept": 1.0, "sd_herd[Intercept]": 0.0})
    with pytest.raises(DataError, match="must be positive"):
        blm.simulate(model, parameters=truth | {"alpha": 0.0})


def test_simulation_of_an_ordered_model():
    data = blm.datasets.load("cbpp").assign(grade=lambda d: pd.Categorical(d["incidence"].clip(0, 2), ordered=True))
    model = blm.model("grade ~ period + (1 | herd)", data, "cumulative")
    truth = {f"period[T.{i}]": 0.0 for i in (2, 3, 4)} | {"sd_herd[Intercept]": 0.0}
    truth |= {"threshold[0|1]": -1.0, "threshold[1|2]": 1.0}
    y = blm.simulate(model, 2000, parameters=truth, seed=1)
    shares = np.bincount(y.astype(int).ravel()) / y.size
    np.testing.assert_allclose(shares, np.diff([0, *stats.logistic.cdf([-1, 1]), 1]), atol=0.01)
    with pytest.raises(DataError, match="must increase"):
        blm.simulate(model, parameters=truth | {"threshold[1|2]": -2.0})


def test_bootstrap_agrees_with_wald():
    fit = fitted("cbpp")
    boot = fit.bootstrap(100, seed=1, progress=False)
    wald = fit.parameter_frame()["se"]
    np.testing.assert_allclose(boot.standard_error.iloc[:4], wald.iloc[:4], rtol=0.25)
    assert boot.n_failed == 0
    assert list(boot.replicates.columns) == list(fit.parameter_frame().index)
    own = fit.bootstrap(20, lambda f: f.icc().adjusted, seed=1, progress=False)
    assert own.replicates.shape == (20, 1)
    limits = fit.confint(0.8, method="boot", n=40, seed=2, kind="studentised", progress=False)
    assert (limits["lower"] < fit.parameter_frame()["estimate"]).all()


def test_bootstrap_does_not_depend_on_the_number_of_workers():
    fit = fitted("cbpp")
    one, two = (fit.bootstrap(8, seed=3, workers=workers, progress=False).replicates for workers in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def test_bootstrap_of_a_family_with_a_parameter_of_its_own():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(30), 10)
    mean = np.exp(1 + 0.4 * rng.normal(size=30)[g])
    frame = pd.DataFrame({"y": rng.gamma(4.0, mean / 4.0), "g": g})
    fit = blm.glmer("y ~ 1 + (1 | g)", frame, "gamma")
    boot = fit.bootstrap(40, seed=1, studentise=True, progress=False)
    assert boot.confint(0.8, "studentised").loc["alpha"].between(2.0, 8.0).all()


def test_power_of_a_generalised_study():
    fit = fitted("counts")
    strong = blm.power(fit, "period", n_sim=20, seed=1, progress=False)
    none = {f"period[T.{i}]": 0.0 for i in (2, 3, 4)}
    null = blm.power(fit, "period", parameters=none, n_sim=30, seed=1, progress=False)
    assert strong.power > 0.8
    assert null.power < 0.25
    with pytest.raises(ComparisonError, match="Gaussian"):
        blm.power(fit, "period", ddf="kenward-roger", n_sim=2)
    larger = blm.extend(blm.datasets.load("cbpp"), "herd", 20)
    assert blm.power(fit, "period[T.2]", new_data=larger, n_sim=3, seed=1, progress=False).rows == len(larger)


# --- likelihood ratios ----------------------------------------------------------------------------------------------


def test_without_group_effects_it_is_ordinary_regression():
    fit = fitted("contraception", "small")
    plain = regression(fit.kernel)
    X, y = fit.design.X, fit.design.y
    mu = 1 / (1 + np.exp(-(X @ plain.beta)))
    np.testing.assert_allclose(X.T @ (y - mu), 0.0, atol=1e-5)
    assert plain.deviance == pytest.approx(-2 * np.sum(np.log(np.where(y == 1, mu, 1 - mu))))
    assert fit.lr_test().statistic == pytest.approx(plain.deviance - fit.criterion)


def test_random_terms_are_left_out_one_by_one():
    data = blm.datasets.load("Contraception")
    slopes = blm.glmer("use ~ age + urban + (urban | district)", data, "bernoulli")
    plain = blm.glmer("use ~ age + urban + (1 | district)", data, "bernoulli")
    table = blm.ranova(slopes).frame
    expected = plain.criterion - slopes.criterion
    assert table["LRT"].iloc[1] == pytest.approx(expected, abs=1e-5)
    assert blm.anova(plain, slopes).tests[0].p_value == pytest.approx(table["Pr(>chibar2)"].iloc[1], rel=1e-4)


def test_the_null_can_be_simulated():
    test = fitted("cbpp").lr_test(simulate=30, seed=1, progress=False)
    assert test.p_simulated == pytest.approx(1 / 31)
    compared = blm.anova(fitted("cbpp", "small"), fitted("cbpp"), simulate=15, seed=1, progress=False)
    assert compared.tests[0].p_simulated == pytest.approx(1 / 16)


def test_fits_that_cannot_be_compared():
    data = blm.datasets.load("cbpp")
    text = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = fitted("cbpp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = {
            "different families": blm.model(text, data, "binomial", link="probit").fit(),
            "approximated differently": blm.glmer(text, data, quadrature=5),
            "different rows": blm.glmer(text, data.iloc[:-1]),
        }
    for words, other in others.items():
        with pytest.raises(ComparisonError, match=words):
            blm.anova(other, fit)
    with pytest.raises(ComparisonError, match="Gaussian models"):
        fit.test("period[T.2]", ddf="kenward-roger")


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_an_ordered_fit_has_tests_and_means():
    graded = blm.datasets.load("cbpp").assign(grade=lambda d: pd.Categorical(d["incidence"].clip(0, 2), ordered=True))
    fit = blm.model("grade ~ period + (1 | herd)", graded, "cumulative").fit()
    means = fit.emmeans("period")
    np.testing.assert_allclose(means.frame["mean"].iloc[1:], fit.fixef)
    chisq = {type: float(fit.anova(type).frame["Chisq"].iloc[0]) for type in (1, 2, 3)}
    joint = fit.test(np.eye(3)).joint
    np.testing.assert_allclose(list(chisq.values()), joint.statistic * 3)
    with pytest.raises(ComparisonError, match="probabilities of categories"):
        fit.emmeans("period", scale="response")
    effects = fit.marginal_effects().frame
    np.testing.assert_allclose(effects.groupby("contrast")["estimate"].sum(), 0.0, atol=1e-12)
    assert fit.bootstrap(4, seed=1, progress=False).n_failed == 0


def test_tidy_frames():
    fit = fitted("cbpp")
    frame = fit.tidy(conf_int=True)
    assert frame["term"].tolist() == ["Intercept", "period[T.2]", "period[T.3]", "period[T.4]", "sd__Intercept"]
    ratios = fit.tidy("fixed", exp=True, conf_int=True)
    np.testing.assert_allclose(ratios["estimate"], fit.ratios().frame["Odds ratio"])
    np.testing.assert_allclose(ratios["std.error"], fit.ratios().frame["Std. Error"])
    assert fit.glance().loc[0, "deviance"] == fit.criterion
    assert fit.aicc > fit.aic
    rows = fit.augment()
    np.testing.assert_allclose(rows[".mu"], fit.fitted)
    np.testing.assert_allclose(rows[".fitted"], fit.predict(scale="link"))
    assert len(fit.tidy("ran_vals")) == 15
