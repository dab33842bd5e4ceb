"""Unequal and correlated residuals: nlme's numbers, and what follows from them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, DataError

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "residuals.json").read_text(encoding="utf-8"))
by, ar1, exchangeable = blm.residuals.by, blm.residuals.ar1, blm.residuals.exchangeable

ORTHO = "distance ~ age * Sex"
CASES = {
    "by_sex": (f"{ORTHO} + (1 | Subject)", by("Sex")),
    "by_sex_slopes": (f"{ORTHO} + (age | Subject)", by("Sex")),
    "ar1": (f"{ORTHO} + (1 | Subject)", ar1(group="Subject")),
    "ar1_by_sex": (f"{ORTHO} + (1 | Subject)", ar1("age", group="Subject", by="Sex")),
    "exchangeable": (ORTHO, exchangeable(group="Subject")),
    "exchangeable_by_sex": (ORTHO, exchangeable(group="Subject", by="Sex")),
    "exchangeable_slope": (f"{ORTHO} + (0 + age | Subject)", exchangeable(group="Subject")),
    "ovary_ar1": ("follicles ~ s + c + (s || mare)", ar1(group="mare")),
    "ovary_gls": ("follicles ~ s + c", ar1(group="mare")),
}


def ovary():
    return pd.DataFrame({name: REFERENCE[f"ovary_{name}"] for name in ("mare", "s", "c", "follicles")})


@cache
def fitted(case, reml=True):
    formula, structure = CASES[case]
    data = ovary() if case.startswith("ovary") else blm.datasets.load("Orthodont")
    return blm.lmer(formula, data, reml=reml, residuals=structure)


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("case", CASES)
def test_nlme_is_reproduced(case, reml):
    fit, expected = fitted(case, reml), REFERENCE[f"{case}_{'reml' if reml else 'ml'}"]
    assert fit.loglik == pytest.approx(expected["loglik"][0], abs=1e-6)
    np.testing.assert_allclose(fit.solution.beta, expected["beta"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov)), expected["se"], rtol=1e-4)
    strata = expected.get("strata", expected["sigma"])
    np.testing.assert_allclose(fit.sigma, strata[0], rtol=1e-4)
    natural = [*(sd / strata[0] for sd in strata[1:]), *expected.get("rho", [])]
    np.testing.assert_allclose(fit.residual_parameters, natural, rtol=1e-4)
    if "sd" in expected:
        sd = np.concatenate([entry.sd for entry in fit.varcorr])
        np.testing.assert_allclose(sd, expected["sd"], rtol=1e-4, atol=1e-4)
    # an exchangeable correlation has many roots: nlme takes another one
    for kind in ("pearson",) if "exchangeable" in case else ("normalized", "pearson"):
        np.testing.assert_allclose(fit.residuals(kind)[:6], expected[kind], rtol=1e-3, atol=1e-3)


def test_satterthwaite_counts_the_ratio_as_unknown():
    """With a variance for each group of a two-sample comparison the df are Welch's."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(["a", "b"], [12, 20])})
    data["y"] = np.where(data["g"] == "a", 3.0, 1.0) * rng.standard_normal(32) + (data["g"] == "b")
    fit = blm.lmer("y ~ g", data, residuals=by("g"))
    n = data.groupby("g", observed=True)["y"].agg(["var", "size"])
    share = n["var"] / n["size"]
    welch = share.sum() ** 2 / (share**2 / (n["size"] - 1)).sum()
    assert fit.summary().coefficients.loc["g[T.b]", "df"] == pytest.approx(welch, rel=1e-5)
    assert fit.summary().coefficients.loc["g[T.b]", "Std. Error"] == pytest.approx(np.sqrt(share.sum()), rel=1e-7)


def test_parameters_are_counted_and_shown_everywhere():
    fit, plain = fitted("ar1_by_sex"), blm.lmer(CASES["by_sex"][0], blm.datasets.load("Orthodont"))
    assert fit.n_parameters == plain.n_parameters + 2
    assert fit.glance().loc[0, "df.residual"] == fit.n_obs - fit.n_parameters
    assert list(fit.parameter_frame().index[-2:]) == ["sigma_ratio[Female]", "rho"]
    frame = fit.parameter_frame()
    assert ((frame["lower"] < frame["estimate"]) & (frame["estimate"] < frame["upper"])).all()
    assert {"sigma_ratio[Female]", "cor__Observation"} <= set(fit.tidy()["term"])
    text = str(fit.summary())
    assert "AR(1) within Subject" in text
    assert "2 apart in age" in text
    assert "Female" in text
    assert fit.varcorr.to_pandas()["var1"].tolist()[-3:] == ["Male", "Female", "rho"]
    assert ".hat" not in fit.augment()
    assert ".hat" in fitted("by_sex").augment()


def test_nested_structures_are_compared():
    data = blm.datasets.load("Orthodont")
    plain = blm.lmer(CASES["by_sex"][0], data)
    table = blm.anova(plain, fitted("by_sex"), fitted("ar1_by_sex"))
    assert table.frame["Df"].tolist()[1:] == [1, 1]
    assert table.tests[0].statistic == pytest.approx(2 * (fitted("by_sex").loglik - plain.loglik), abs=1e-8)
    with pytest.raises(ComparisonError, match="no special case"):
        blm.anova(fitted("ar1"), fitted("by_sex_slopes"))
    alone = blm.lmer("distance ~ age * Sex", data, residuals=by("Sex"))  # the same residuals without the group effects
    test = fitted("by_sex").lr_test()
    assert test.statistic == pytest.approx(2 * (fitted("by_sex").loglik - alone.loglik), abs=1e-6)
    assert str(test.mixture) == "chibar2(01)"


def test_prediction_intervals_use_the_rows_own_sd():
    fit = fitted("by_sex")
    new = {"age": [8, 8], "Sex": ["Male", "Female"], "Subject": ["M01", "F01"]}
    narrow, wide = (fit.predict(new, interval=kind)["se"] for kind in ("confidence", "prediction"))
    own = fit.sigma * np.array([1.0, fit.residual_parameters["sigma_ratio[Female]"]])
    np.testing.assert_allclose(np.sqrt(wide**2 - narrow**2), own)
    without = blm.lmer("distance ~ age + (1 | Subject)", blm.datasets.load("Orthodont"), residuals=by("Sex"))
    assert len(without.predict({"age": [8], "Subject": ["M01"]})) == 1
    with pytest.raises(DataError, match="depend on 'Sex'"):
        without.predict({"age": [8], "Subject": ["M01"]}, interval="prediction")


def test_simulated_responses_have_the_covariance_of_the_model():
    fit = fitted("ar1_by_sex")
    y = fit.simulate(4000, seed=1)
    rows = fit.residual.kernel.rows
    scale = fit.sigma * rows.scale(fit.residual.psi)
    sd = fit.varcorr.entries[0].sd[0]
    expected = rows.correlation(fit.residual.psi) * np.outer(scale, scale)
    expected += sd**2 * (rows.groups[:, None] == rows.groups)
    found = np.cov(y.T)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / 4000)
    assert np.abs((found - expected) / error).max() < 5.5
    drawn = fit.predictive_draws(draws=2000, seed=2) - fit.epred_draws(draws=2000, seed=2)
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(fit.residual_parameters["rho"], abs=0.08)


def test_bootstrap_refits_the_residual_parameters():
    boot = fitted("by_sex").bootstrap(30, seed=1, progress=False)
    assert boot.n_failed == 0
    assert boot.replicates["sigma_ratio[Female]"].std() > 0.02
    assert boot.replicates["sigma_ratio[Female]"].mean() == pytest.approx(0.468, abs=0.06)


def test_unequal_variances_are_weights():
    fit = fitted("by_sex")
    data = blm.datasets.load("Orthodont")
    weights = 1 / fit.residual.kernel.rows.scale(fit.residual.psi) ** 2
    same = blm.lmer(CASES["by_sex"][0], data, weights=weights)
    np.testing.assert_allclose(fit.solution.beta, same.solution.beta, rtol=1e-6)
    for kind in ("pearson", "standardized", "marginal-standardized"):
        np.testing.assert_allclose(fit.residuals(kind), same.residuals(kind), rtol=1e-5)
    np.testing.assert_allclose(fit.leverage, same.leverage, rtol=1e-5)
    np.testing.assert_allclose(fit.influence("Subject").cooks, same.influence("Subject").cooks, rtol=1e-4)
    np.testing.assert_allclose(fit.r2().conditional, same.r2().conditional, rtol=1e-5)


def test_what_cannot_go_with_it_is_refused():
    fit = fitted("ar1")
    for ask in (
        lambda: fit.summary(ddf="kenward-roger"), lambda: fit.confint(method="profile"), lambda: fit.robust(),
        lambda: fit.influence("Subject"), lambda: fit.residuals("standardized"), lambda: fit.conditional_aic(),
        lambda: fit.icc(), lambda: fit.plot_qq(), lambda: fit.bootstrap(20, studentise=True),
    ):  # fmt: skip
        with pytest.raises(DataError, match="not available with residuals"):
            ask()


@pytest.mark.parametrize(
    ("formula", "structure", "message"),
    [
        ("distance ~ age", by("sex"), "Did you mean 'Sex'"),
        ("distance ~ age", "Sex", "not a residual structure"),
        ("distance ~ age", by("distance"), "occurs in one row"),
        ("distance ~ age", ar1("Sex", group="Subject"), "no numbers"),
        ("distance ~ age", ar1("distance", group="Subject"), "not whole"),
        ("distance ~ age", ar1("age", group="Sex"), "two rows at 'age'"),
        ("distance ~ age + (1 | Subject)", exchangeable(group="Subject"), "cannot tell them apart"),
        ("distance ~ age + (1 | Subject)", exchangeable(group="Sex"), "nested in 'Subject'"),
        ("distance ~ age", exchangeable(group="id"), "has one row"),
        ("distance ~ age", by("one"), "one level"),
    ],
)  # fmt: skip
def test_bad_input(formula, structure, message):
    data = blm.datasets.load("Orthodont").assign(id=np.arange(108), one="a")
    with pytest.raises(DataError, match=message):
        blm.model(formula, data, residuals=structure)


def test_other_families_and_unknown_levels_are_refused():
    data = blm.datasets.load("Orthodont").assign(z=lambda d: (d["distance"] > 24).astype(int))
    with pytest.raises(DataError, match="Gaussian models"):
        blm.model("z ~ age + (1 | Subject)", data, family="bernoulli", residuals=by("Sex"))
    fit = blm.lmer("distance ~ age + (1 | Subject)", data, residuals=by("Sex"))
    with pytest.raises(DataError, match="residual SD is unknown"):
        fit.predict({"age": [8], "Subject": ["M01"], "Sex": ["x"]}, interval="prediction")


def test_missing_values_in_its_columns_leave_rows_out():
    data = blm.datasets.load("Orthodont")
    data = data.assign(Sex=data["Sex"].where(np.arange(108) != 3))
    model = blm.model("distance ~ age + (1 | Subject)", data, residuals=by("Sex"))
    assert model.design.n == 107
    assert dict(model.design.missing) == {"Sex": 1}
