"""Formulas of further parameters: what rows, densities, priors, files and bambi make of them."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.labels import data_groups
from bayeslmm.bayes.posterior import Posterior, Run
from bayeslmm.datatree import posterior_dataset
from bayeslmm.errors import FormulaError, PriorError, SamplingError


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=60), rng.normal(size=60)
    w[7] = np.nan
    group = np.repeat([f"g{i}" for i in range(6)], 10)
    y = 1 + x + rng.normal(0, 0.5, 6)[np.repeat(np.arange(6), 10)] + np.exp(0.3 * x) * rng.normal(size=60)
    return pd.DataFrame({"y": y, "x": x, "w": w, "g": group, "k": rng.negative_binomial(3, 0.4, 60)})


def made(model, count=5):
    """A posterior with made-up draws: nothing is compiled or sampled."""
    rng = np.random.default_rng(1)
    design = model.design
    dataset = posterior_dataset(
        design,
        beta=rng.normal(size=(1, count, len(design.coef_names))),
        sd={"g": rng.gamma(2, size=(1, count, 1))},
        corr={},
        effects={"g": rng.normal(size=(1, count, 6, 1))},
    )
    for name, part in design.auxiliary.items():
        values = 0.3 * rng.normal(size=(1, count, len(part.coef_names)))
        dataset = dataset.assign_coords({f"{name}_coef": list(part.coef_names)})
        dataset[f"{name}_beta"] = (("chain", "draw", f"{name}_coef"), values)
    tree = xr.DataTree.from_dict({"posterior": dataset, **data_groups(design)})
    return Posterior(design, model.family, model.priors, tree, Run("latent", "NUTS", "made up", count, 1, 1, 1, 0.0))


@pytest.fixture(scope="module")
def post(frame):
    return made(blm.model(["y ~ x + (1 | g)", "sigma ~ x + w"], frame))


def test_rows_are_those_that_all_formulas_can_use(post, frame):
    assert post.design.n == 59
    assert post.design.missing == {"w": 1}
    assert post.design.auxiliary["sigma"].coef_names == ("Intercept", "x", "w")
    assert list(post.design.data.columns) == ["y", "x", "g", "w"]
    assert list(post.parameters) == ["Intercept", "x", "sd_g[Intercept]", "sigma_Intercept", "sigma_x", "sigma_w"]


def test_rows_have_a_residual_sd_each(post, frame):
    rows = frame.drop(index=7)
    b = post.draws("sigma_beta")
    sigma = np.exp(b[:, :1] + b[:, 1:2] * rows["x"].to_numpy() + b[:, 2:] * rows["w"].to_numpy())
    expected = stats.norm.logpdf(rows["y"], post.linpred_draws(), sigma)
    np.testing.assert_allclose(post.log_likelihood(), expected, rtol=1e-10)
    new = frame.head(3)
    drawn = post.predictive_draws(pd.concat([new] * 4000), draws=1, seed=1)[0].reshape(4000, 3)
    chosen = post._chosen(1)
    np.testing.assert_allclose(drawn.std(axis=0), sigma[chosen[0], :3], rtol=0.05)
    assert post.predict(new, interval="prediction").shape == (3, 4)
    assert post.ppc(3)["posterior_predictive"]["y"].shape == (1, 3, 59)


def test_priors_are_on_the_scale_of_the_link(post, frame):
    model = blm.model(["y ~ x + (1 | g)", "sigma ~ x"], frame, priors={"sigma_x": blm.Prior("Normal", mu=0, sigma=2)})
    table = model.priors.to_pandas()
    assert table.loc["sigma_x", "prior"] == "Normal(mu=0, sigma=2)"
    assert model.priors["sigma_Intercept"].args["mu"] == pytest.approx(np.log(frame["y"].std()))
    assert "sigma" not in table.index
    assert "sigma ~ x" in str(made(model).summary())


@pytest.mark.parametrize(
    ("formulas", "family"),
    [(["y ~ x + (1 | g)", "sigma ~ x"], "gaussian"), (["k ~ x + (1 | g)", "alpha ~ x"], "negativebinomial")],
)
def test_the_pymc_model_has_the_density_of_rows(formulas, family, frame):
    import pytensor

    post = made(blm.model(formulas, frame, family), 1)
    (name,) = post.design.auxiliary
    pm_model = blm.model(formulas, frame, family).to_pymc()
    mode = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
    beta, effects, sd = post.draws("beta")[0], post.draws("b_g")[0], post.draws("sd_g")[0]
    given = {
        "Intercept": beta[0] + beta[1] * post.design.X[:, 1].mean(),
        "slopes": beta[1:],
        "sd_g": np.log(sd),
        "z_g": effects / sd,
        f"{name}_beta": post.draws(f"{name}_beta")[0],
    }
    values = {pm_model.rvs_to_values[rv]: np.asarray(given[rv.name]) for rv in pm_model.free_RVs}
    theirs = pm_model.logp(vars=[pm_model["y"]], sum=False)[0].eval(values, mode=mode)
    np.testing.assert_allclose(post.log_likelihood()[0], theirs, rtol=1e-8)


def test_a_saved_posterior_keeps_its_formulas(post, frame, tmp_path):
    again = Posterior.load(post.save(tmp_path / "p.blm"))
    np.testing.assert_array_equal(again.log_likelihood(), post.log_likelihood())
    assert str(again.priors) == str(post.priors)
    np.testing.assert_allclose(again.predict(frame.head(2)), post.predict(frame.head(2)))


def test_bambi_gets_the_same_formulas(frame):
    theirs = blm.model(["y ~ x + (1 | g)", "sigma ~ x"], frame.drop(columns="w")).to_bambi()
    assert theirs.formula.additionals == ("sigma ~ 1 + x",)


def test_refusals(frame):
    model = blm.model(["y ~ x + (1 | g)", "sigma ~ x"], frame)
    with pytest.raises(FormulaError, match="Use sample"):
        model.fit()
    with pytest.raises(SamplingError, match="latent"):
        model.sample(10, engine="marginal", progress=False)
    with pytest.raises(PriorError, match="Did you mean 'sigma'"):
        blm.model(["y ~ x + (1 | g)", "sigm ~ x"], frame)
    for formulas, words in (
        (["y ~ x", "sigma ~ (1 | g)"], "only that of the mean"),
        (["y ~ x", "sigma"], "no formula of a parameter"),
        (["y ~ x", "sigma ~ x", "sigma ~ w"], "two formulas"),
        ([], "several formulas"),
    ):
        with pytest.raises(FormulaError, match=words):
            blm.model(formulas, frame)


@pytest.mark.slow
def test_posterior_is_that_of_bambi(frame):
    model = blm.model(["y ~ x + (1 | g)", "sigma ~ x"], frame)
    ours = model.sample(1000, seed=1, progress=False)
    theirs = model.to_bambi().fit(draws=1000, chains=4, inference_method="nutpie", random_seed=1, progressbar=False)[
        "posterior"
    ]
    pairs = {"x": "x", "sd_g[Intercept]": "1|g_sigma", "sigma_Intercept": "sigma_Intercept", "sigma_x": "sigma_x"}
    for mine, other in pairs.items():
        a, b = ours.parameters[mine].ravel(), theirs[other].values.ravel()
        assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(400), mine
        assert a.std() == pytest.approx(b.std(), rel=0.2), mine
