"""Censored and truncated responses: densities against scipy and PyMC, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.groups import group_log_likelihood
from bayeslmm.bayes.labels import data_groups
from bayeslmm.bayes.posterior import Posterior, Run
from bayeslmm.datatree import posterior_dataset
from bayeslmm.errors import DataError, FormulaError, SamplingError


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(6), 10)
    true = 2 + rng.normal(0, 0.7, 6)[group] + rng.normal(size=60)
    status = np.where(true < 1, "left", np.where(true > 3, "right", "none"))
    frame = pd.DataFrame({"y": np.clip(true, 1, 3), "s": status, "g": [f"g{i}" for i in group]})
    return frame.assign(t=np.clip(true, 0.51, 3.99), top=4.0, k=1 + rng.poisson(2, 60))


def made(model, count=4):
    """A posterior with made-up draws: nothing is compiled or sampled."""
    rng = np.random.default_rng(1)
    dataset = posterior_dataset(
        model.design,
        beta=0.5 + 0.2 * rng.normal(size=(1, count, 1)),
        sd={"g": rng.gamma(2, size=(1, count, 1))},
        corr={},
        effects={"g": 0.5 * rng.normal(size=(1, count, 6, 1))},
        sigma=1 + rng.random((1, count)),
    )
    tree = xr.DataTree.from_dict({"posterior": dataset, **data_groups(model.design)})
    return Posterior(model.design, model.family, model.priors, tree, Run("latent", "NUTS", "", count, 1, 1, 1, 0.0))


def by_pymc(model, post, mode):
    pm_model = model.to_pymc()
    sd = post.draws("sd_g")[0]
    given = {
        "Intercept": post.draws("beta")[0, 0],
        "sd_g": np.log(sd),
        "z_g": post.draws("b_g")[0] / sd,
        "sigma": np.log(post.draws("sigma")[0]),
    }
    values = {pm_model.rvs_to_values[rv]: np.asarray(given[rv.name]) for rv in pm_model.free_RVs}
    return pm_model.logp(vars=[pm_model["y"]], sum=False)[0].eval(values, mode=mode)


@pytest.mark.parametrize(
    ("left", "family"),
    [
        ("censored(y, s)", "gaussian"),
        ("truncated(t, 0.5, top)", "gaussian"),
        ("truncated(t, ub=4)", "gaussian"),
        ("truncated(k, lb=1)", "poisson"),
    ],
)
def test_densities_are_those_of_the_pymc_model(left, family, frame):
    import pytensor

    mode = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
    model = blm.model(f"{left} ~ 1 + (1 | g)", frame, family)
    post = made(model, 1)
    # PyMC's own constants are in single precision; scipy's densities are met to 1e-9 below.
    np.testing.assert_allclose(post.log_likelihood()[0], by_pymc(model, post, mode), rtol=1e-7, atol=1e-7)


def test_densities_of_scipy(frame):
    post = made(blm.model("censored(y, s) ~ 1 + (1 | g)", frame))
    mean, sigma = post.linpred_draws(), post.draws("sigma")[:, None]
    found, y, s = post.log_likelihood(), frame["y"].to_numpy(), frame["s"].to_numpy()
    np.testing.assert_allclose(found[:, s == "left"], stats.norm.logcdf(y, mean, sigma)[:, s == "left"])
    np.testing.assert_allclose(found[:, s == "right"], stats.norm.logsf(y, mean, sigma)[:, s == "right"])
    np.testing.assert_allclose(found[:, s == "none"], stats.norm.logpdf(y, mean, sigma)[:, s == "none"])
    cut = made(blm.model("truncated(t, lb=0.5, ub=top) ~ 1 + (1 | g)", frame))
    mean, sigma = cut.linpred_draws(), cut.draws("sigma")[:, None]
    expected = stats.truncnorm.logpdf(frame["t"].to_numpy(), (0.5 - mean) / sigma, (4 - mean) / sigma, mean, sigma)
    np.testing.assert_allclose(cut.log_likelihood(), expected, rtol=1e-9)


def test_replications_stay_within_their_bounds(frame, tmp_path):
    cut = made(blm.model("truncated(t, lb=0.5, ub=top) ~ 1 + (1 | g)", frame))
    drawn = cut.predictive_draws(seed=1)
    assert drawn.min() >= 0.5
    assert drawn.max() <= 4
    new = cut.predictive_draws({"g": ["g0"] * 2000}, draws=1, seed=1)
    assert new.min() < 0.5
    again = Posterior.load(cut.save(tmp_path / "cut.blm"))
    np.testing.assert_array_equal(again.log_likelihood(), cut.log_likelihood())


def test_groups_of_censored_rows_are_left_out_as_a_whole(frame):
    model = blm.model("censored(y, s) ~ 1 + (1 | g)", frame)
    post = made(model)
    values, _ = group_log_likelihood(post, "g")
    u = np.linspace(-9, 9, 20_001)
    codes = model.design.factors[0].codes
    for draw, level in ((0, 0), (1, 3), (3, 5)):
        rows, sigma = codes == level, post.draws("sigma")[draw]
        mean = post.draws("beta")[draw, 0] + post.draws("sd_g")[draw, 0] * u[:, None]
        y, low, high = (part[rows] for part in (model.design.y, model.design.limits.lower, model.design.limits.upper))
        logs = stats.norm.logpdf(y, mean, sigma)
        logs = np.where(np.isfinite(low), stats.norm.logcdf(y, mean, sigma), logs)
        logs = np.where(np.isfinite(high), stats.norm.logsf(y, mean, sigma), logs)
        total = np.logaddexp.reduce(logs.sum(axis=1) + stats.norm.logpdf(u)) + np.log(u[1] - u[0])
        assert values[draw, level] == pytest.approx(total, abs=1e-5)


def test_refusals(frame):
    model = blm.model("censored(y, s) ~ 1 + (1 | g)", frame)
    with pytest.raises(FormulaError, match="Use sample"):
        model.fit()
    with pytest.raises(SamplingError, match="latent"):
        model.sample(10, engine="marginal", progress=False)
    with pytest.raises(SamplingError, match="neither censored nor truncated"):
        blm.sbc(model, 2)
    for left, family, error, words in (
        ("censored(y)", "gaussian", FormulaError, "takes two columns"),
        ("censored(y, t, s)", "gaussian", FormulaError, "interval censoring"),
        ("censored(y, k)", "gaussian", DataError, "not one of"),
        ("truncated(t)", "gaussian", FormulaError, "one or two bounds"),
        ("truncated(t, lower=1)", "gaussian", FormulaError, "one or two bounds"),
        ("truncated(t, lb=2)", "gaussian", DataError, "outside its bounds"),
        ("censored(k, s)", "bernoulli", FormulaError, "not for family"),
    ):
        with pytest.raises(error, match=words):
            blm.model(f"{left} ~ 1 + (1 | g)", frame, family)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["censored(y, s)", "truncated(t, 0.5, 4)"])
def test_posterior_is_that_of_bambi(left, frame):
    model = blm.model(f"{left} ~ 1 + (1 | g)", frame)
    ours = model.sample(1000, seed=1, progress=False)
    options = {"draws": 1000, "chains": 4, "inference_method": "nutpie", "random_seed": 1, "progressbar": False}
    theirs = model.to_bambi().fit(**options)["posterior"]
    for mine, other in {"Intercept": "Intercept", "sd_g[Intercept]": "1|g_sigma", "sigma": "sigma"}.items():
        a, b = ours.parameters[mine].ravel(), theirs[other].values.ravel()
        assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(400), mine
        assert a.std() == pytest.approx(b.std(), rel=0.2), mine
