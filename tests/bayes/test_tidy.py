"""The words of a REML fit on a posterior: tidy, augment, residuals, R²."""

from dataclasses import replace

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.posterior import Posterior
from bayeslmm.errors import ComparisonError, DataError
from bayeslmm.families import as_family
from bayeslmm.report.variance_partition import variance_partition


@pytest.fixture(scope="module")
def model():
    frame = blm.datasets.load("sleepstudy")
    weights = np.random.default_rng(0).uniform(0.5, 2, len(frame))
    return blm.model("Reaction ~ Days + (Days | Subject)", frame, weights=weights)


@pytest.fixture(scope="module")
def post(model):
    return model.sample(draws=300, chains=2, seed=1, progress=False)


def test_tidy_names_and_numbers_are_those_of_the_fit(model, post):
    theirs = model.fit().tidy(("fixed", "ran_pars", "ran_vals"))
    ours = post.tidy(("fixed", "ran_pars", "ran_vals"))
    key = ["effect", "group", "term"]
    for kind in ("fixed", "ran_pars", "ran_vals"):
        pair = [set(map(tuple, part[part["effect"] == kind][key].fillna("").to_numpy())) for part in (ours, theirs)]
        assert pair[0] == pair[1]
    days = ours[(ours["term"] == "Days") & (ours["effect"] == "fixed")].iloc[0]
    beta = post.draws("beta")[:, 1]
    assert days["estimate"] == pytest.approx(beta.mean())
    assert days["std.error"] == pytest.approx(beta.std(ddof=1))
    assert days["conf.low"] == pytest.approx(np.quantile(beta, 0.025))
    first = ours[ours["effect"] == "ran_vals"].set_index(["level", "term"]).loc[("308", "Days")]
    assert first["estimate"] == pytest.approx(post.ranef["Subject"].loc["308", "Days"])
    assert first["std.error"] == pytest.approx(post.ranef.sd["Subject"].loc["308", "Days"])
    assert "conf.low" not in post.tidy("fixed", conf_int=False)
    with pytest.raises(DataError, match="kind of effect 'random'"):
        post.tidy("random")


def test_r2_of_a_draw_is_that_of_a_fit_with_its_parameters(post):
    found = post.r2()
    covariances = post.effect_covariances()
    for s in (0, 17, 599):
        own = {name: value[s] for name, value in covariances.items()}
        parts = variance_partition(post.design, post.draws("beta")[s], own, float(post.draws("sigma")[s]))
        assert found["marginal"].iloc[s] == pytest.approx(parts.fixed / parts.total, rel=1e-10)
        explained = parts.fixed + parts.random.sum()
        assert found["conditional"].iloc[s] == pytest.approx(explained / parts.total, rel=1e-10)


def test_residuals_and_augment(post):
    raw = post.residuals()
    np.testing.assert_allclose(raw, post.design.y - post.epred_draws().mean(axis=0))
    np.testing.assert_allclose(post.residuals("pearson"), raw * np.sqrt(post.design.weights) / post.sigma)
    rows = post.augment()
    np.testing.assert_allclose(rows[".fitted"] + rows[".resid"], rows["Reaction"])
    np.testing.assert_allclose(rows[".se.fit"], post.epred_draws().std(axis=0, ddof=1))
    with pytest.raises(DataError, match="kind 'deviance'"):
        post.residuals("deviance")


def test_a_family_without_a_variance_is_refused_with_the_reason(post):
    heavy = replace(post, response=as_family("weibull"))
    for word in (heavy.residuals, heavy.augment, heavy.r2, heavy.icc):
        with pytest.raises(ComparisonError, match="variance"):
            word()


@pytest.fixture(scope="module")
def counts():
    model = blm.model("incidence ~ period + offset(log(size)) + (1 | herd)", blm.datasets.load("cbpp"), "poisson")
    fit = model.fit()
    return fit, replace(post_of(model), data=fit.to_datatree())


def post_of(model):
    """A posterior to hold draws made elsewhere: those of the fit, its covariance parameters held, need no sampler."""
    return Posterior(model.design, model.family, model.priors, None, None, None)


def test_shares_and_residuals_of_a_generalised_posterior_are_near_those_of_the_fit(counts):
    fit, post = counts
    assert post.icc()["herd"].median() == pytest.approx(fit.icc().adjusted, abs=0.15)
    assert post.icc()["herd"].between(0, 1).all()
    assert post.r2()["marginal"].median() == pytest.approx(fit.r2().marginal, abs=0.1)
    np.testing.assert_allclose(post.residuals(), fit.residuals(), atol=0.6)
    np.testing.assert_allclose(post.residuals("pearson"), fit.residuals("pearson"), atol=0.5)
    rows = post.augment()
    np.testing.assert_allclose(rows[".fitted"] + rows[".resid"], rows["incidence"])


def test_the_average_expectation_of_a_log_link_is_a_log_normal_mean(counts):
    from bayeslmm.bayes.inference import average_expectation

    post = counts[1]
    variance = post.effect_covariances()["herd"][:, 0, 0]
    eta = post.linpred_draws(include=[])
    np.testing.assert_allclose(average_expectation(post), np.exp(eta + variance[:, None] / 2).mean(axis=1), rtol=1e-6)
