import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.calibration import sbc
from bayeslmm.bayes.priors import Prior
from bayeslmm.bayes.simulation import RANDOM, correlation_roots, prior_draws, prior_predictive
from bayeslmm.errors import DataError, DataWarning, PriorError

HALF = Prior("HalfNormal", sigma=1)


@pytest.fixture(scope="module")
def sleep():
    return blm.model("Reaction ~ Days + (Days + I(Days**2) | Subject)", blm.datasets.load("sleepstudy"))


@pytest.mark.parametrize("name", RANDOM)
def test_random_values_follow_the_density(name):
    values = {
        "nu": 4.0,
        "mu": 0.5,
        "sigma": 1.5,
        "alpha": 3.0,
        "beta": 2.0,
        "b": 2.0,
        "lam": 0.5,
        "lower": 1.0,
        "upper": 3.0,
    }
    from bayeslmm.bayes.priors import FAMILIES

    prior = Prior(name, **{key: values[key] for key in FAMILIES[name].parameters})
    draws = RANDOM[name](np.random.default_rng(0), prior.args, 200_000)
    lower, upper = np.quantile(draws, [0.2, 0.7])
    grid = np.linspace(lower, upper, 4001)
    mass = np.trapezoid(np.exp(prior.logpdf(grid)), grid)
    assert mass == pytest.approx(0.5, abs=0.01)


def test_correlations_follow_lkj(sleep):
    roots = correlation_roots(sleep.design.terms[0], Prior("LKJ", eta=2.0), np.random.default_rng(0), 100_000)
    corr = roots @ roots.transpose(0, 2, 1)
    np.testing.assert_allclose(np.einsum("skk->sk", corr), 1)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        # Each correlation is Beta(eta + (k - 2) / 2) on (-1, 1), here with variance 1 / (2 * 2.5 + 1).
        assert corr[:, i, j].var() == pytest.approx(1 / 6, rel=0.02)


def test_the_intercept_is_that_of_centred_predictors(sleep):
    found = prior_draws(sleep.design, sleep.family, sleep.priors, 20_000, seed=1)
    centred = found.beta @ sleep.design.X.mean(axis=0)
    assert centred.mean() == pytest.approx(sleep.priors["Intercept"].args["mu"], rel=0.01)
    assert centred.std() == pytest.approx(sleep.priors["Intercept"].args["sigma"], rel=0.02)


def test_prior_predictive_is_a_datatree_and_warns_when_absurd(sleep):
    tree = prior_predictive(sleep, 50, seed=1)
    assert tree["prior_predictive"]["y"].shape == (1, 50, 180)
    assert tree["prior"]["corr_Subject"].shape == (1, 50, 3, 3)
    with pytest.warns(DataWarning, match="far too wide"):
        prior_predictive(sleep.with_priors(sigma=Prior("HalfNormal", sigma=1e7)), 50, seed=1)
    with pytest.raises(PriorError, match="flat"):
        prior_predictive(sleep.with_priors(Days=Prior("Flat")), 50)


def trials(groups, rows, size, seed=0):
    """A frame of binomial counts, their groups crossed with eight others; the response is replaced."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"g": np.repeat(np.arange(groups), rows), "n": size})
    frame["x"], frame["h"] = rng.normal(size=len(frame)), np.arange(len(frame)) % 8
    return frame.assign(k=rng.integers(0, size + 1, len(frame)))


@pytest.mark.parametrize(("family", "sign"), [("gamma", -1.0), ("beta", 1.0)])
def test_responses_the_family_cannot_have_are_refused_before_drawing(family, sign):
    batches = blm.datasets.load("Dyestuff").assign(z=sign * np.arange(1.0, 31.0))
    with pytest.raises(DataError, match=f"'z' must .* for the family '{family}'"):
        blm.model("z ~ 1 + (1 | Batch)", batches, family).prior_predictive(draws=5)


def test_the_pymc_model_works_with_pymc_and_arviz_as_it_is():
    import arviz as az
    import pymc as pm

    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    pm_model = model.to_pymc()
    quiet = {"model": pm_model, "progressbar": False}
    assert pm.sample_prior_predictive(20, model=pm_model, random_seed=1)["prior_predictive"]["y"].shape == (1, 20, 30)
    tree = pm.sample(500, tune=500, chains=2, random_seed=1, **quiet)
    replicated = pm.sample_posterior_predictive(tree, random_seed=1, **quiet)["posterior_predictive"]["y"]
    assert float(replicated.mean()) == pytest.approx(1527.5, abs=15)
    tree = pm.compute_log_likelihood(tree, **quiet)
    ours = model.sample(seed=1, progress=False).loo()
    assert az.loo(tree).elpd == pytest.approx(ours.elpd, abs=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["(1 | g)", "(1 | g) + (1 | h)"])
def test_the_laplace_engine_is_calibrated(groups):
    priors = {"Intercept": Prior("Normal", mu=0, sigma=1), "x": Prior("Normal", mu=0, sigma=1), "sd": HALF}
    model = blm.model(f"prop(k, n) ~ x + {groups}", trials(20, 8, 4), "binomial", priors=priors)
    result = sbc(model, 200, seed=1, engine="laplace")
    assert result.uniformity()["p"].min() > 0.01 / result.ranks.shape[1], str(result)
    assert np.mean(result.pareto_k < 0.7) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["(1 | g)", "(1 | g) + (1 | h)"])
def test_the_latent_engine_is_calibrated_for_binomial_models(groups):
    priors = {"Intercept": Prior("Normal", mu=0, sigma=1), "x": Prior("Normal", mu=0, sigma=1), "sd": HALF}
    model = blm.model(f"prop(k, n) ~ x + {groups}", trials(20, 8, 4), "binomial", priors=priors)
    result = sbc(model, 200, seed=1, engine="latent")
    print(result)
    assert result.uniformity()["p"].min() > 0.01 / result.ranks.shape[1], str(result)


@pytest.mark.slow
def test_few_trials_in_a_group_send_some_posteriors_to_the_exact_engine():
    priors = {"Intercept": Prior("Normal", mu=0, sigma=1), "sd": Prior("HalfNormal", sigma=3)}
    model = blm.model("k ~ 1 + (1 | g)", trials(40, 2, 1), "bernoulli", priors=priors)
    result = sbc(model, 100, seed=1, engine="laplace")
    sent = np.mean(result.pareto_k > 0.7)
    print(f"Pareto k: quartiles {np.quantile(result.pareto_k, [0.25, 0.5, 0.75])}, above 0.7 in {100 * sent:.0f} %")
    print(result)
    assert 0.0 < sent < 1.0
