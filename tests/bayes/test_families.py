"""bambi's families beyond those with a fast path: densities, means and draws of one set of parameters fit together."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.bambi import expected_response, log_density_bambi, simulate_bambi
from bayeslmm.bayes.priors import resolve_priors
from bayeslmm.errors import DataError, FitError, FormulaError
from bayeslmm.families import FAMILIES, as_family

LATENT_ONLY = [name for name, row in FAMILIES.items() if row.loglik is None and name not in ("t", "cumulative")]
VALUES = {"sigma": 0.5, "nu": 0.7, "b": 1.5, "kappa": 1.3, "alpha": 2.5, "psi": 0.7}
ETA = 0.4


def response(name, rng, n):
    if name == "sratio":
        return rng.integers(0, 4, n).astype(float)
    if name == "vonmises":
        return rng.uniform(-1, 1, n)
    if name == "zero_inflated_binomial":
        return rng.integers(0, 2, n).astype(float)
    if "poisson" in name or "negativebinomial" in name:
        return rng.poisson(2.0, n).astype(float)
    return rng.gamma(2.0, 1.0, n)


def made(name, n=12):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": response(name, rng, n), "g": np.repeat(list("abc"), n // 3)})
    return blm.model("y ~ 1 + (1 | g)", frame, name)


def one_draw(model, count=1):
    """What `Posterior` answers, with chosen parameters."""
    thresholds = np.tile([-1.0, 0.0, 1.0], (count, 1))
    values = {**{key: np.full(count, value) for key, value in VALUES.items()}, "threshold": thresholds}
    return SimpleNamespace(response=model.family, priors=model.priors, draws=values.__getitem__, data=None)


@pytest.mark.parametrize("name", LATENT_ONLY)
def test_pymc_model_has_the_density_of_rows(name):
    import pytensor

    model = made(name)
    post = one_draw(model)
    pm_model = model.to_pymc()
    eta = np.full((1, model.design.n), ETA)
    ours = log_density_bambi(post, model.design, eta, np.array([0]))[0]
    given = {"z_g": np.full((3, 1), ETA), "sd_g": np.ones(1), "Intercept": np.array(0.0)}
    given |= {key: np.array(value) for key, value in VALUES.items()} | {"threshold": np.array([-1.0, 0.0, 1.0])}
    mode = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
    logp = pm_model.logp(vars=[pm_model["y"]], sum=False)[0]
    values = {pm_model.rvs_to_values[rv]: rv for rv in pm_model.free_RVs}
    replaced = {}
    for value, rv in values.items():
        transform = pm_model.rvs_to_transforms[rv]
        number = np.asarray(given[rv.name], dtype=np.float64)
        forward = number if transform is None else transform.forward(number, *rv.owner.inputs).eval(mode=mode)
        replaced[value] = forward
    theirs = logp.eval(replaced, mode=mode)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LATENT_ONLY if name not in ("sratio", "vonmises")])
def test_draws_have_the_stated_mean(name):
    model = made(name)
    count = 1000
    post = one_draw(model, count)
    eta, chosen = np.full((count, model.design.n), ETA), np.arange(count)
    drawn = simulate_bambi(post, model.design, eta, chosen, np.random.default_rng(1))
    stated = expected_response(post, model.design, model.family.inverse_link(eta), chosen)[0, 0]
    error = drawn.std() / np.sqrt(drawn.size)
    assert abs(drawn.mean() - stated) < 4 * error


def test_densities_of_scipy():
    model = made("lognormal")
    y = model.design.y
    ours = log_density_bambi(one_draw(model), model.design, np.full((1, len(y)), ETA), np.array([0]))[0]
    np.testing.assert_allclose(ours, stats.lognorm.logpdf(y, 0.5, scale=np.exp(ETA)), rtol=1e-12)
    model = made("zero_inflated_poisson")
    y = model.design.y
    ours = log_density_bambi(one_draw(model), model.design, np.full((1, len(y)), ETA), np.array([0]))[0]
    theirs = np.log(0.3 * (y == 0) + 0.7 * stats.poisson.pmf(y, np.exp(ETA)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_stopping_ratio_by_hand():
    model = made("sratio")
    post = one_draw(model)
    y = model.design.y.astype(int)
    stop = 1 / (1 + np.exp(-(np.array([-1.0, 0.0, 1.0]) - ETA)))
    p = [stop[0], stop[1] * (1 - stop[0]), stop[2] * (1 - stop[0]) * (1 - stop[1])]
    p = np.array([*p, 1 - sum(p)])
    ours = log_density_bambi(post, model.design, np.full((1, len(y)), ETA), np.array([0]))[0]
    np.testing.assert_allclose(ours, np.log(p[y]), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero_inflated_poisson", "lognormal", "weibull", "sratio"])
def test_sampling_finds_the_truth(name):
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), 20)
    model = made(name)
    eta = ETA + rng.normal(0, 0.5, 30)[groups][None]
    wide = SimpleNamespace(X=np.ones((600, 1)), trials=None, weights=None, auxiliary={}, limits=None)
    y = simulate_bambi(one_draw(model), wide, eta, np.array([0]), rng)[0]
    text = "y ~ 0 + (1 | g)" if name == "sratio" else "y ~ 1 + (1 | g)"
    post = blm.model(text, pd.DataFrame({"y": y, "g": groups}), name).sample(500, tune=500, seed=1, progress=False)
    assert post.diagnostics().max_rhat < 1.03
    truth = {"sd_g[Intercept]": 0.5} | {key: VALUES[key] for key in post.parameters if key in VALUES}
    for key, value in truth.items():
        draws = post.parameters[key]
        assert abs(draws.mean() - value) < 4 * draws.std(), key
    assert np.isfinite(post.log_likelihood(20)).all()
    assert post.predictive_draws(draws=5, seed=1).shape == (5, 600)


def test_refusals_say_why():
    with pytest.raises(FormulaError, match="linear predictor for each category"):
        as_family("categorical")
    frame = pd.DataFrame({"y": [0.0, 1.0, 2.0, -1.0], "g": list("aabb")})
    model = blm.model("y ~ 1 + (1 | g)", frame, "hurdle_gamma")
    with pytest.raises(DataError, match="zero or positive"):
        model.sample(10, progress=False)
    with pytest.raises(FitError, match="Use sample"):
        made("weibull").fit()


def test_scales_of_further_parameters_follow_the_response():
    model = made("laplace")
    assert model.priors["b"].args["sigma"] == pytest.approx(model.design.y.std(ddof=1))
    model = made("lognormal")
    assert resolve_priors(model.design, model.family)["sigma"].args["sigma"] == pytest.approx(
        np.log(model.design.y).std(ddof=1)
    )
