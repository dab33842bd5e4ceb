"""Profile intervals of generalised fits, against glmmTMB and against the deviance itself."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, SingularFitWarning
from bayeslmm.frequentist.glmm_profile import profile_targets
from bayeslmm.likelihood.quadrature import adaptive_loglik

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "glmm_profiles.json").read_text())
RISE = stats.chi2.ppf(0.95, 1)
MODELS = {
    "contraception": ("y ~ age + city + (city | district)", "bernoulli", None),
    "negativebinomial": ("count ~ Days + (1 | Subject)", "negativebinomial", "log"),
    "gamma": ("ratio ~ Days + (1 | Subject)", "gamma", "log"),
    "beta": ("share ~ Days + (1 | Subject)", "beta", "logit"),
}


def women():
    frame = blm.datasets.load("Contraception")
    return frame.assign(city=1.0 * (frame["urban"] == "Y"), y=1 * (frame["use"] == "Y"))


def fitted(name):
    formula, family, link = MODELS[name]
    if name == "contraception":
        return blm.model(formula, women(), family).fit()
    sleep = blm.datasets.load("sleepstudy")
    reaction = sleep["Reaction"]
    frame = sleep.assign(count=np.round(np.exp(reaction / 90)), ratio=reaction / 250, share=reaction / (reaction + 200))
    return blm.model(formula, frame, family, link=link).fit()


@pytest.mark.parametrize("name", [name for name in MODELS if name in REFERENCE])
def test_limits_as_glmmtmb(name):
    fit, expected = fitted(name), REFERENCE[name]
    assert fit.loglik == pytest.approx(expected["loglik"], abs=1e-5)
    limits, frame = fit.confint(method="profile"), fit.parameter_frame()
    assert list(limits.index) == list(frame.index)
    rows = expected["rows"]
    order = [row for row in rows if row["name"] == "theta"] + [row for row in rows if row["name"] != "theta"]
    for ours, row in zip(limits.index[len(fit.beta) :], order, strict=True):
        assert frame.loc[ours, "estimate"] == pytest.approx(row["estimate"], rel=1e-3, abs=1e-3), ours
        width = row["limits"][1] - row["limits"][0]
        # Theirs interpolates between points of the curve.
        np.testing.assert_allclose(limits.loc[ours], row["limits"], rtol=0, atol=2e-3 * width, err_msg=ours)


def test_at_its_limits_the_deviance_has_risen_by_the_quantile():
    """Of a correlation, by a search of another kind in other coordinates."""
    fit = fitted("contraception")
    name = "corr_district[Intercept,city]"
    limits = fit.confint(method="profile", parameters=name).loc[name]
    kernel, p = fit.kernel, len(fit.beta)
    scale = np.sqrt(np.diag(fit.vcov))

    def deviance(free, corr):
        a, b = np.exp(free[:2])
        theta = [a, corr * b, np.sqrt(1 - corr**2) * b]
        return -2 * kernel.loglik(theta, fit.beta + scale * free[2 : 2 + p])

    start = np.concatenate([np.log(fit.varcorr.entries[0].sd), np.zeros(p)])
    for corr in limits:
        found = optimize.minimize(deviance, start, args=(corr,), method="BFGS", options={"gtol": 1e-4})
        assert found.fun - fit.criterion == pytest.approx(RISE, abs=2e-4)


def test_quadrature_has_its_own_profile():
    frame = women().query("district in ['1', '2', '3', '4', '5', '6', '7', '8', '9', '10']")
    model = blm.model("y ~ age + (1 | district)", frame, "bernoulli")
    fit = model.fit(quadrature=9)
    name = "sd_district[Intercept]"
    upper = fit.confint(method="profile", parameters=name).loc[name, "upper"]
    start = fit.kernel.whiten(fit.beta)

    def deviance(white):
        return -2 * adaptive_loglik(fit.kernel, [upper], white, [], 9)

    found = optimize.minimize(deviance, start, method="Nelder-Mead", options={"fatol": 1e-8, "xatol": 1e-6})
    assert found.fun - fit.criterion == pytest.approx(RISE, abs=1e-3)
    rough = model.fit(quadrature=0).confint(method="profile", parameters=name)
    laplace = model.fit().confint(method="profile", parameters=name)
    np.testing.assert_allclose(rough, laplace, rtol=1e-4)


def test_thresholds_have_profiles():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(15), 12)
    latent = rng.normal(size=15)[g] + rng.logistic(size=len(g))
    rating = pd.Categorical.from_codes(np.digitize(latent, [-1.0, 1.0]), ["low", "mid", "high"], ordered=True)
    fit = blm.model("rating ~ 1 + (1 | g)", pd.DataFrame({"rating": rating, "g": g}), "cumulative").fit()
    limits, frame = fit.confint(method="profile"), fit.parameter_frame()
    assert list(limits.index) == list(frame.index) == ["sd_g[Intercept]", "threshold[low|mid]", "threshold[mid|high]"]
    assert (limits["lower"] < frame["estimate"]).all()
    assert (limits["upper"] > frame["estimate"]).all()
    wald = frame.loc["threshold[low|mid]", ["lower", "upper"]].astype(float)
    np.testing.assert_allclose(limits.loc["threshold[low|mid]"], wald, atol=0.1)


def test_gradients_agree_with_differences():
    fit = fitted("contraception")
    rng = np.random.default_rng(2)
    for target in profile_targets(fit, 2.0):
        x = target.problem.start(fit.theta, 1.0) + 0.1 * rng.normal(size=len(target.problem.start(fit.theta, 1.0)))
        held = target.estimate + 0.3 * target.step
        _, gradient = target.problem(x, held)
        steps = 1e-5 * np.eye(len(x))
        slopes = [(target.problem(x + h, held)[0] - target.problem(x - h, held)[0]) / 2e-5 for h in steps]
        np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-4, err_msg=target.name)


def test_a_limit_that_is_not_there_is_infinite():
    """Counts less spread than Poisson's: nothing bounds the negative binomial's size from above."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"g": np.repeat(np.arange(8), 10), "y": rng.binomial(20, 0.3, 80)})
    with pytest.warns(SingularFitWarning):
        fit = blm.model("y ~ 1 + (1 | g)", frame, "negativebinomial").fit()
    limits = fit.confint(method="profile", parameters="alpha").loc["alpha"]
    assert np.isinf(limits["upper"])
    assert limits["lower"] > 10


def test_bad_names_are_answered():
    with pytest.raises(ComparisonError, match="kapa"):
        fitted("beta").confint(method="profile", parameters="kapa")
