"""LmmFit against lme4's numbers: every Gaussian fit of `../shared/reference`, and small copies the package carries."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, NewLevelsError, SingularFitWarning
from bayeslmm.likelihood.lmm import criterion

DATASETS = ("nlschools", "sleepstudy", "sleepstudy_wo", "Dyestuff", "Dyestuff2", "Penicillin", "Pastes")
LARGE = ("Machines", "Orthodont", "ScotsSec", "Chem97", "InstEval")


def reference_ids(shared, datasets):
    folder = shared / "reference" / "fits"
    names = []
    for path in sorted(folder.glob("*_*ml.json")):
        record = json.loads(path.read_text())
        if "devfun_probe" in record and record["dataset"] in datasets:
            names.append(path.stem)
    return names


def load_reference(shared, name):
    return json.loads((shared / "reference" / "fits" / f"{name}.json").read_text())


def load_frame(shared, dataset):
    folder = shared / "reference" / "data"
    side = json.loads((folder / f"{dataset}.json").read_text())
    parquet = folder / f"{dataset}.parquet"
    frame = pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(folder / f"{dataset}.csv")
    for name, column in side["columns"].items():
        if column["type"] == "factor":
            frame[name] = pd.Categorical(frame[name].astype(str), categories=column["levels"])
    return frame


def fit_reference(shared, record):
    return blm.model(
        record["formula"], load_frame(shared, record["dataset"]), weights=record["weights"], offset=record["offset"]
    )


def assert_fit_matches(fit, record):
    expected = record["REML_criterion"] if fit.reml else -2 * record["logLik"]
    np.testing.assert_allclose(fit.criterion, expected, rtol=1e-7)
    np.testing.assert_allclose(fit.loglik, record["logLik"], rtol=1e-7)
    np.testing.assert_allclose([fit.aic, fit.bic], [record["AIC"], record["BIC"]], rtol=1e-7)
    np.testing.assert_allclose(fit.theta, record["theta"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fit.sigma, record["sigma"], rtol=1e-5)
    np.testing.assert_allclose(fit.fixef, record["fixef"]["values"], rtol=1e-5)
    scale = np.sqrt(np.diag(record["vcov"]["values"]))
    np.testing.assert_allclose(fit.vcov / np.outer(scale, scale), record["vcov"]["values"] / np.outer(scale, scale),
                               atol=1e-5)  # fmt: skip
    assert fit.singular == record["singular"]
    np.testing.assert_allclose(fit.fitted[:10], record["fitted"]["first10"], rtol=1e-5)
    quantiles = np.quantile(fit.scaled_residuals, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quantiles, record["residual_scaled_pearson_quantiles"], rtol=1e-5, atol=1e-5)


def assert_ranef_matches(fit, record):
    for factor, expected in record["ranef"].items():
        modes, sds = fit.ranef[factor], fit.ranef.sd[factor]
        shown = len(expected["values"])
        order = [modes.index.get_loc(level) for level in expected["levels"]][:shown]
        scale = np.maximum(np.abs(expected["condSD"]), 1e-12)
        assert len(modes) == expected["n_levels"]
        np.testing.assert_allclose(
            (modes.to_numpy()[order] - expected["values"]) / scale, np.zeros_like(scale), atol=1e-4
        )
        np.testing.assert_allclose(modes.to_numpy()[order], expected["values"], rtol=1e-5, atol=1e-5 * scale.max())
        np.testing.assert_allclose(sds.to_numpy()[order], expected["condSD"], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(sds.sum(), expected["condSD_sum"], rtol=1e-5, atol=1e-8)
        if expected["condVar_first3"] is not None:
            np.testing.assert_allclose(
                fit.ranef.cov[factor][order[:3]], expected["condVar_first3"], rtol=2e-5, atol=1e-8
            )


def check(shared, name):
    record = load_reference(shared, name)
    model = fit_reference(shared, record)
    reml = record["method"] == "REML"
    for probe in record["devfun_probe"]:
        np.testing.assert_allclose(criterion(probe["theta"], model.kernel, reml=reml), probe["value"], rtol=1e-9)
    if record["singular"]:
        with pytest.warns(SingularFitWarning, match="boundary"):
            fit = model.fit(reml=reml)
    else:
        fit = model.fit(reml=reml)
    assert_fit_matches(fit, record)
    assert_ranef_matches(fit, record)


@pytest.mark.parametrize("dataset", DATASETS + LARGE)
def test_every_reference_fit_is_reproduced(shared, dataset):
    names = reference_ids(shared, [dataset])
    assert names
    for name in names:
        check(shared, name)


def test_covariance_of_variance_parameters_equals_lmertest(shared):
    for name in ("sleepstudy_rislope_reml", "nlschools_ri_reml", "penicillin_crossed_reml", "sleepstudy_weights_ri_ml"):
        record = load_reference(shared, name)
        fit = fit_reference(shared, record).fit(reml=record["method"] == "REML")
        expected = np.array(record["vcov_varpar"]["values"])
        scale = np.sqrt(np.diag(expected))
        np.testing.assert_allclose(
            fit.varpar_cov / np.outer(scale, scale), expected / np.outer(scale, scale), atol=1e-5
        )


def test_nlswork_equals_stata(shared):
    frame = blm.datasets.load("nlswork")
    published = json.loads((shared / "data" / "stata" / "published_stata_results.json").read_text())
    expected = published["nlswork"]["mixed_ML_known_check"]
    fit = blm.lmer("ln_wage ~ ttl_exp + C(race) + age + (1 | idcode)", frame, reml=False)
    assert fit.n_obs == expected["N"]
    assert len(fit.ranef["idcode"]) == expected["groups"]
    assert round(fit.loglik, 3) == -10471.727
    assert round(float(fit.varcorr.entries[0].sd[0] ** 2), 7) == expected["var_cons"]
    assert round(fit.sigma**2, 7) == expected["var_resid"]
    assert round(fit.fixef["ttl_exp"], 6) == expected["ttl_exp"]


# --- what the package carries: values printed by lme4 1.1-31 -------------------------------------------------------

SCHOOLS = "lang ~ IQ + GS + SES + COMB"


@pytest.fixture(scope="module")
def schools():
    return blm.datasets.load("nlschools")


@pytest.fixture(scope="module")
def sleep_fit():
    return blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


def test_schools_random_intercept(schools):
    fit = blm.lmer(f"{SCHOOLS} + (1 | class)", schools)
    assert round(fit.criterion, 2) == 15132.86
    assert round(float(fit.varcorr.entries[0].sd[0] ** 2), 3) == 8.507
    assert round(fit.sigma**2, 3) == 39.998
    np.testing.assert_allclose(fit.fixef, [10.63524, 2.24696, -0.01562, 0.16538, -2.02161], atol=5e-6)


def test_schools_random_slope_only(schools):
    fit = blm.lmer(f"{SCHOOLS} + (IQ - 1 | class)", schools)
    assert round(fit.criterion, 1) == 15157.4
    assert round(float(fit.varcorr.entries[0].sd[0] ** 2), 4) == 0.0561
    assert round(fit.sigma**2, 4) == 40.5701


def test_reml_and_ml_are_separate_results(schools):
    model = blm.model(f"{SCHOOLS} + (1 | class)", schools)
    reml = model.fit()
    before = reml.criterion, reml.loglik
    ml = model.fit(reml=False)
    assert (reml.criterion, reml.loglik) == before
    assert ml.criterion != reml.criterion
    assert (reml.engine, ml.engine) == ("REML", "ML")


def test_singular_fit_is_reported_and_complete():
    with pytest.warns(SingularFitWarning, match=r"\(1 \| Batch\)"):
        fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
    assert fit.singular
    assert fit.theta == pytest.approx([0.0], abs=1e-6)
    frame = fit.parameter_frame()
    assert np.isnan(frame.loc["sd_Batch[Intercept]", "se"])
    assert frame.loc["sigma", "se"] > 0
    assert "boundary" in str(fit.summary())


def test_no_p_values_without_degrees_of_freedom(sleep_fit):
    text = str(sleep_fit.summary(ddf=None))
    assert "Pr(>|t|)" not in text


def test_missing_rows_are_counted_in_the_summary(schools):
    holes = schools.copy()
    holes.loc[[3, 5], "IQ"] = np.nan
    fit = blm.lmer(f"{SCHOOLS} + (1 | class)", holes)
    assert "2 of 2287 rows left out for missing values (IQ: 2)" in str(fit.summary())


# --- prediction ----------------------------------------------------------------------------------------------------


def test_fitted_rows_predict_as_fitted(sleep_fit):
    frame = blm.datasets.load("sleepstudy")
    np.testing.assert_allclose(sleep_fit.predict(frame.drop(columns="Reaction")), sleep_fit.fitted, rtol=1e-12)
    np.testing.assert_allclose(sleep_fit.predict(include=[]), sleep_fit.design.X @ sleep_fit.fixef, rtol=1e-12)


def test_variance_of_fitted_rows_is_the_leverage(sleep_fit):
    band = sleep_fit.predict(interval="confidence")
    np.testing.assert_allclose(band["se"] ** 2, sleep_fit.sigma**2 * sleep_fit.solution.leverage(), rtol=1e-9)


def test_prediction_variance_equals_the_dense_inverse():
    """The mixed model equations, solved densely, give the same variance for crossed factors and new combinations."""
    fit = blm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", blm.datasets.load("Penicillin"))
    new = {"plate": ["a", "x", "zz"], "sample": ["F", "A", "A"]}
    design = fit.design.at(new)
    blocks = [np.eye(len(factor.levels))[factor.codes] for factor in fit.design.factors]
    Z = np.hstack(blocks)
    precision = np.concatenate(
        [np.full(len(f.levels), fit.sigma**2 / fit.effect_covariances()[f.name][0, 0]) for f in fit.design.factors]
    )
    W = np.hstack([fit.design.X, Z])
    system = W.T @ W
    system[1:, 1:] += np.diag(precision)
    rows = np.hstack(
        [design.X]
        + [
            np.vstack([np.eye(len(f.levels)), np.zeros(len(f.levels))])[np.minimum(f.codes, len(f.levels))]
            for f in design.factors
        ]
    )
    expected = fit.sigma**2 * np.einsum("ij,jk,ik->i", rows, np.linalg.inv(system), rows)
    zero = fit.predict(new, new_levels="zero", interval="confidence")
    np.testing.assert_allclose(zero["se"] ** 2, expected, rtol=1e-8)
    sample = fit.predict(new, new_levels="sample", interval="confidence")
    extra = fit.effect_covariances()["plate"][0, 0]
    np.testing.assert_allclose(sample["se"] ** 2 - expected, [0, 0, extra], rtol=1e-6, atol=1e-10)


def test_draws_have_the_moments_of_the_prediction(sleep_fit):
    draws = sleep_fit.linpred_draws(draws=20_000, seed=1)
    band = sleep_fit.predict(interval="confidence")
    z = (draws.mean(axis=0) - band["estimate"]) / (band["se"] / np.sqrt(20_000))
    assert np.abs(z).max() < 4.5
    np.testing.assert_allclose(draws.std(axis=0), band["se"], rtol=0.03)
    assert np.array_equal(draws, sleep_fit.linpred_draws(draws=20_000, seed=1))


def test_new_levels_have_three_meanings(sleep_fit):
    new = {"Days": [2, 4, 2], "Subject": ["999", "999", "308"]}
    with pytest.raises(
        NewLevelsError, match=re.escape("1 level of 'Subject' was not in the fitted data: '999' (2 rows).")
    ):
        sleep_fit.predict(new)
    zero = sleep_fit.predict(new, new_levels="zero")
    np.testing.assert_allclose(zero[:2], 251.40510 + 10.46729 * np.array([2, 4]), rtol=1e-6)
    draws = sleep_fit.linpred_draws(new, new_levels="sample", draws=4000, seed=3)
    assert draws[:, 0].std() > 3 * sleep_fit.linpred_draws(new, new_levels="zero", draws=4000, seed=3)[:, 0].std()
    assert np.corrcoef(draws[:, 0], draws[:, 1])[0, 1] > 0.8, "rows of one unseen level share its effect"


def test_predictive_draws_add_the_residual_noise(sleep_fit):
    noise = sleep_fit.predictive_draws(draws=4000, seed=2).var(axis=0) - sleep_fit.linpred_draws(
        draws=4000, seed=2
    ).var(axis=0)
    np.testing.assert_allclose(noise.mean(), sleep_fit.sigma**2, rtol=0.03)


def test_wrong_words_are_explained(sleep_fit):
    with pytest.raises(DataError, match="Did you mean 'Subject'"):
        sleep_fit.ranef["subject"]
    with pytest.raises(DataError, match="'error', 'zero', 'sample'"):
        sleep_fit.predict(new_levels="skip")
    with pytest.raises(DataError, match="Did you mean 'Subject'"):
        sleep_fit.predict(include=["subject"])
    with pytest.raises(DataError, match="level=95"):
        sleep_fit.confint(level=95)


def test_to_datatree_has_the_shared_dimensions(sleep_fit):
    posterior = sleep_fit.to_datatree()["posterior"]
    assert posterior["b_Subject"].dims == ("chain", "draw", "Subject", "Subject_effect")
    assert posterior["corr_Subject"].dims == ("chain", "draw", "Subject_effect", "Subject_effect_bis")
    assert float(posterior["beta"].sel(coef="Days").mean()) == pytest.approx(10.467, abs=0.2)


def test_without_random_terms_it_is_linear_regression():
    frame = blm.datasets.load("sleepstudy")
    fit = blm.lmer("Reaction ~ Days", frame)
    X = np.column_stack([np.ones(len(frame)), frame["Days"]])
    beta, rss, *_ = np.linalg.lstsq(X, frame["Reaction"].to_numpy())
    np.testing.assert_allclose(fit.fixef, beta)
    np.testing.assert_allclose(fit.sigma**2, rss[0] / 178)
    np.testing.assert_allclose(fit.vcov, rss[0] / 178 * np.linalg.inv(X.T @ X))
    assert "Linear model fit by REML" in str(fit.summary())
