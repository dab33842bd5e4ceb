"""Generalised fits against glmer and glmmTMB: deviance at fixed parameters, optimum, estimates, standard errors."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.families import as_family
from bayeslmm.likelihood.laplace import LaplaceKernel

LAPLACE = [
    ("cbpp_laplace", "binomial", 1),
    ("cbpp_tmb", "binomial", 1),
    ("cbpp_nagq0", "binomial", 0),
    ("cbpp_agq9", "binomial", 9),
    ("cbpp_agq25", "binomial", 25),
    ("cbpp_tmb_betabinomial", "beta_binomial", 1),
    ("contraception_ri_laplace", "bernoulli", 1),
    ("contraception_ri_tmb", "bernoulli", 1),
    ("contraception_ri_nagq0", "bernoulli", 0),
    ("contraception_ri_agq9", "bernoulli", 9),
    ("sleepstudy_tmb_gamma_log", "gamma", 1),
]


@cache
def fit_and_reference(shared, name, family, quadrature):
    reference = json.loads((shared / "reference" / "fits" / f"{name}.json").read_text())
    data = blm.datasets.load(reference["dataset"])
    model = blm.model(reference["formula"], data, family=family, link=reference["link"])
    return model.fit(quadrature=quadrature), reference


@pytest.fixture(params=LAPLACE, ids=[row[0] for row in LAPLACE])
def case(request, shared):
    return fit_and_reference(shared, *request.param)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_log_likelihood_at_the_optimum(case):
    fit, reference = case
    if fit.optimum.quadrature > 1:
        pytest.skip("glmer drops a constant with quadrature: deviances at fixed parameters are compared further below")
    assert fit.loglik == pytest.approx(reference["logLik"], abs=1e-6)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_estimates_within_a_ten_thousandth_of_a_standard_error(case):
    fit, reference = case
    se = np.array(reference.get("fixef_se_refined") or reference["fixef_se"])
    assert np.abs((fit.fixef.to_numpy() - reference["fixef"]["values"]) / se).max() < 1e-4


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_standard_errors_from_the_full_hessian(case):
    fit, reference = case
    se = np.array(reference.get("fixef_se_refined") or reference["fixef_se"])
    np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov)), se, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_standard_deviations(case):
    fit, reference = case
    for entry in fit.varcorr.entries:
        expected = reference["VarCorr"][entry.factor]["sd"]
        np.testing.assert_allclose(entry.sd, expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["cbpp_laplace", "contraception_ri_laplace"])
def test_deviance_at_fixed_parameters(shared, name):
    reference = json.loads((shared / "reference" / "fits" / f"{name}.json").read_text())
    family = as_family("binomial" if "cbind" in reference["formula"] else "bernoulli")
    design = blm.build_design(reference["formula"], blm.datasets.load(reference["dataset"]), family=family)
    kernel = LaplaceKernel.from_design(design, family)
    for probe in reference["devfun_probe"]["probes"]:
        value = -2 * kernel.loglik(probe["par"][:1], probe["par"][1:])
        assert value == pytest.approx(probe["value"], abs=1e-7)


@pytest.mark.parametrize("name", ["cbpp_nagq0", "contraception_ri_nagq0"])
def test_deviance_with_coefficients_at_their_joint_mode(shared, name):
    reference = json.loads((shared / "reference" / "fits" / f"{name}.json").read_text())
    family = as_family("binomial" if "cbind" in reference["formula"] else "bernoulli")
    design = blm.build_design(reference["formula"], blm.datasets.load(reference["dataset"]), family=family)
    kernel = LaplaceKernel.from_design(design, family)
    for probe in reference["devfun_probe"]["probes"]:
        assert -2 * kernel.evaluate(probe["par"], None).value == pytest.approx(probe["value"], abs=2e-7)


def test_quadrature_reaches_the_exact_log_likelihood(shared):
    fit, reference = fit_and_reference(shared, "cbpp_agq25", "binomial", 25)
    assert fit.loglik == pytest.approx(reference["logLik_quadrature50_at_estimates"], abs=1e-8)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_own_parameters(shared):
    gamma, reference = fit_and_reference(shared, "sleepstudy_tmb_gamma_log", "gamma", 1)
    assert 1 / np.sqrt(gamma.phi) == pytest.approx(reference["sigma"], rel=1e-6)
    beta_binomial, reference = fit_and_reference(shared, "cbpp_tmb_betabinomial", "beta_binomial", 1)
    assert beta_binomial.phi == pytest.approx(reference["sigma"], rel=1e-5)
    assert beta_binomial.singular


def test_group_effects_and_their_conditional_sds(shared):
    fit, reference = fit_and_reference(shared, "cbpp_laplace", "binomial", 1)
    herd = reference["ranef"]["herd"]
    np.testing.assert_allclose(fit.ranef["herd"].loc[herd["levels"]], herd["values"], atol=2e-6)
    np.testing.assert_allclose(fit.ranef.sd["herd"].loc[herd["levels"]], herd["condSD"], atol=2e-5)


def test_residuals_of_the_summary(shared):
    fit, reference = fit_and_reference(shared, "cbpp_laplace", "binomial", 1)
    expected = reference["residual_scaled_pearson_quantiles"]
    np.testing.assert_allclose(np.quantile(fit.scaled_residuals, [0, 0.25, 0.5, 0.75, 1]), expected, atol=1e-5)
    assert fit.criterion == pytest.approx(reference["minus2logLik"], abs=1e-6)
    assert (fit.aic, fit.bic) == pytest.approx((reference["AIC"], reference["BIC"]), abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
@pytest.mark.parametrize("which", ["s5", "full"])
def test_cces_reaches_the_better_of_two_optima(shared, which):
    folder = shared / "data" / "mrp"
    reference = json.loads((folder / "cces18_reference_fits_lme4.json").read_text())[which]
    sample, survey = folder / "cces18_sample5000.csv", folder / "cces18_survey.parquet"
    data = pd.read_csv(sample) if which == "s5" else pd.read_parquet(survey)
    data = data.merge(pd.read_csv(folder / "cces18_statelevel.csv"), on="state").assign(
        sex=lambda d: d["male"].astype(str)
    )
    groups = ("state", "eth", "educ", "sex:eth", "educ:age", "educ:eth")
    formula = "abortion ~ male + repvote + region" + "".join(f" + (1 | {group})" for group in groups)
    fit = blm.glmer(formula, data, "bernoulli")
    np.testing.assert_allclose(fit.fixef, list(reference["fixef"].values()), atol=5e-5)  # glmer's defaults stop there
    sds = {entry.factor.replace("sex", "male"): entry.sd[0] for entry in fit.varcorr.entries}
    for name, value in reference["sd"].items():
        assert sds[name] == pytest.approx(value, abs=2e-5), name


@pytest.mark.parametrize("name", ["cbpp_agq9", "cbpp_agq25", "contraception_ri_agq9"])
def test_quadrature_deviances_at_fixed_parameters(shared, name):
    from bayeslmm.likelihood.quadrature import adaptive_loglik

    reference = json.loads((shared / "reference" / "fits" / f"{name}.json").read_text())
    family = as_family("binomial" if "cbind" in reference["formula"] else "bernoulli")
    design = blm.build_design(reference["formula"], blm.datasets.load(reference["dataset"]), family=family)
    kernel = LaplaceKernel.from_design(design, family)
    probes = reference["devfun_probe"]["probes"]
    ours = np.array(
        [
            -2
            * adaptive_loglik(kernel, probe["par"][:1], kernel.whiten(probe["par"][1:]), [], int(name[-2:].strip("q")))
            for probe in probes
        ]
    )
    gaps = ours - np.array([probe["value"] for probe in probes])
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-7)  # glmer leaves a constant out


@pytest.mark.parametrize("name", ["nlschools_ri_tmb_ml", "nlschools_rislope_tmb_ml", "sleepstudy_rislope_tmb_ml"])
def test_gaussian_fits_by_tmb(shared, name):
    reference = json.loads((shared / "reference" / "fits" / f"{name}.json").read_text())
    fit = blm.lmer(reference["formula"], blm.datasets.load(reference["dataset"]), reml=False)
    assert fit.loglik == pytest.approx(reference["logLik"], abs=1e-6)
    se = np.array(reference["fixef_se"])
    assert np.abs((fit.fixef.to_numpy() - reference["fixef"]["values"]) / se).max() < 1e-4
