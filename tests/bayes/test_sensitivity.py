"""Log densities of priors against scipy, and what power-scaling says of priors that matter and that do not."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.sensitivity import log_prior_dataset
from bayeslmm.errors import DataError, PriorError


@pytest.fixture(scope="module")
def model():
    return blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def post(model):
    return model.sample(draws=500, chains=2, seed=1, progress=False)


def test_log_priors_are_those_of_scipy(post):
    found, p = log_prior_dataset(post), post.parameters
    assert set(found.data_vars) == {entry.name for entry in post.priors}
    args = {entry.name: entry.prior.args for entry in post.priors}
    centred = p["Intercept"] + p["Days"] * post.design.X[:, 1].mean()
    for name, draws in (("Intercept", centred), ("Days", p["Days"])):
        expected = stats.norm.logpdf(draws, args[name]["mu"], args[name]["sigma"])
        np.testing.assert_allclose(found[name], expected, rtol=1e-10)
    for name in ("sd_Subject[Intercept]", "sd_Subject[Days]", "sigma"):
        expected = np.log(2) + stats.t.logpdf(p[name], 3, scale=args[name]["sigma"])
        np.testing.assert_allclose(found[name], expected, rtol=1e-9)
    # LKJ(2) of two effects has density proportional to 1 - rho².
    rho = p["corr_Subject[Intercept,Days]"]
    np.testing.assert_allclose(found["corr_Subject"], np.log1p(-(rho**2)), rtol=1e-7, atol=1e-10)


def test_log_priors_of_priors_that_only_pymc_has(model):
    other = model.with_priors(Days=blm.Prior("SkewNormal", mu=10.0, sigma=5.0, alpha=2.0))
    post = model.sample(draws=20, chains=1, seed=1, progress=False)
    from dataclasses import replace

    found = log_prior_dataset(replace(post, priors=other.priors))["Days"]
    # PyMC's own constants of this density are in single precision.
    np.testing.assert_allclose(found, stats.skewnorm.logpdf(post.parameters["Days"], 2.0, 10.0, 5.0), rtol=1e-7)


def test_a_wide_prior_does_not_matter_and_a_wrong_one_does(model, post):
    assert set(post.psense(["Days", "sigma"])["diagnosis"]) == {"✓"}
    wrong = model.with_priors(Days=blm.Prior("Normal", mu=0.0, sigma=2.0)).sample(500, seed=1, progress=False)
    table = wrong.psense("Days")
    assert "potential" in table.loc["Days", "diagnosis"]
    assert table.loc["Days", "prior"] > 3 * post.psense("Days").loc["Days", "prior"]
    with pytest.raises(DataError, match="Did you mean 'Days'"):
        post.psense(["Dayz"])


def test_power_scaling_says_where_the_posterior_really_moves(model):
    """Raising a normal prior to a power is dividing its variance: sample that posterior and compare directions."""
    narrow = model.with_priors(Days=blm.Prior("Normal", mu=0.0, sigma=3.0))
    tighter = model.with_priors(Days=blm.Prior("Normal", mu=0.0, sigma=3.0 / np.sqrt(1.5)))
    post = narrow.sample(1000, seed=1, progress=False)
    weights = np.exp(0.5 * log_prior_dataset(post)["Days"].values.ravel())
    predicted = np.average(post.parameters["Days"].ravel(), weights=weights)
    moved = tighter.sample(1000, seed=2, progress=False).parameters["Days"]
    assert predicted == pytest.approx(moved.mean(), abs=6 * moved.std() / np.sqrt(4000))


def test_groups_of_the_datatree_are_what_arviz_reads(post):
    import arviz_stats

    tree = post.to_datatree(log_likelihood=True, log_prior=True)
    assert post.to_datatree() is post.data
    assert "log_prior" not in post.data.children
    ours = post.psense(["sigma"]).loc["sigma", "prior"]
    theirs = arviz_stats.psense(tree, var_names=["sigma"], group="prior")["sigma"].item()
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert post.plot_psense(["sigma"], kind="quantities", backend="none") is not None
    with pytest.raises(DataError, match="Did you mean 'dist'"):
        post.plot_psense(["sigma"], kind="dis")


def test_priors_without_a_density_are_refused(post):
    from dataclasses import replace

    joint = blm.model(
        "Reaction ~ Days + (Days | Subject)",
        blm.datasets.load("sleepstudy"),
        priors={"beta": blm.Prior("R2D2M2")},
    )
    with pytest.raises(PriorError, match="inner scales are not kept"):
        replace(post, priors=joint.priors).psense()


def test_thresholds_have_one_prior_each():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.integers(0, 3, 60), "g": np.repeat(list("abcdef"), 10)})
    model = blm.model("y ~ 0 + (1 | g)", frame, "cumulative")
    from bayeslmm.bayes.bambi import threshold_prior

    prior = model.priors.aux["threshold"]
    mu, sigma = threshold_prior(2, prior)
    assert mu[1] - mu[0] == 4.0
    assert (sigma > 0).all()
