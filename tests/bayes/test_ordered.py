"""Ordered responses by both routes: the same names, the same answers, and (slow) the same posterior."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.simulation import random_thresholds
from bayeslmm.errors import ComparisonError, DataError, DataWarning, PriorError
from bayeslmm.predict import linear_predictor

LEVELS = ["poor", "fair", "good", "best"]


def ratings(groups=12, per=12, seed=3):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), per)
    x = rng.normal(50.0, 10.0, len(g))
    latent = 0.05 * (x - 50) + 0.8 * rng.normal(size=groups)[g] + rng.logistic(size=len(g))
    rating = pd.Categorical.from_codes(np.digitize(latent, [-1.0, 0.0, 1.5]), LEVELS, ordered=True)
    return pd.DataFrame({"rating": rating, "x": x, "g": [f"g{i:02}" for i in g]})


@pytest.fixture(scope="module")
def model():
    return blm.model("rating ~ x + (1 | g)", ratings(), family="cumulative")


@pytest.fixture(scope="module")
def post(model):
    return model.sample(draws=300, chains=2, seed=1, progress=False)


def test_the_laplace_engine_is_chosen_and_good(model, post):
    assert post.run.engine == "Laplace"
    assert post.run.pareto_k < 0.7
    fit = model.fit()
    assert list(post.parameter_frame().index) == list(fit.parameter_frame().index)
    thresholds = [name for name in fit.parameter_frame().index if name.startswith("threshold")]
    assert thresholds == [f"threshold[{label}]" for label in ("poor|fair", "fair|good", "good|best")]
    ours, theirs = post.parameter_frame().loc[["x", *thresholds]], fit.parameter_frame().loc[["x", *thresholds]]
    assert np.abs((ours["estimate"] - theirs["estimate"]) / theirs["se"]).max() < 0.3
    cuts = post.data["posterior"]["threshold"]
    assert (np.diff(cuts.values, axis=-1) > 0).all()
    assert "sd_g[Intercept]" in str(blm.compare(fit, post))


def test_both_routes_have_the_same_variables(model, post):
    pm_model = model.to_pymc()
    theirs = {name: pm_model.named_vars_to_dims[name] for name in ("beta", "threshold", "sd_g", "b_g")}
    dataset = post.data["posterior"]
    assert {name: dataset[name].dims[2:] for name in theirs} == theirs
    assert list(pm_model.coords["threshold_dim"]) == list(dataset["threshold_dim"].values)


def test_bambi_gets_the_prior_of_the_thresholds(model):
    with pytest.warns(UserWarning, match="intercept is omitted"):
        theirs = model.to_bambi()
    prior = theirs.marginal_parameters["threshold"].prior
    np.testing.assert_allclose(prior.args["mu"], [-2.0, 0.0, 2.0])
    assert prior.args["sigma"] == 2.5


def test_answers_follow_from_the_draws(model, post, tmp_path):
    eta = linear_predictor(model.design, post.draws("beta"), {"g": post.draws("b_g")})
    below = 1 / (1 + np.exp(-(post.draws("threshold")[:, None, :] - eta[:, :, None])))
    probability = np.diff(np.concatenate([0 * below[:, :, :1], below, 1 + 0 * below[:, :, :1]], axis=2), axis=2)
    np.testing.assert_allclose(post.epred_draws(), probability, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(post.predict(), probability.mean(axis=0), rtol=1e-9)
    codes = np.asarray(model.design.y, dtype=int)
    expected = np.log(np.take_along_axis(probability, codes[None, :, None], axis=2)[:, :, 0])
    np.testing.assert_allclose(post.log_likelihood(), expected, rtol=1e-9)
    assert np.isfinite(post.loo().elpd)
    assert np.isfinite(post.loo(group="g").elpd)
    path = post.save(tmp_path / "ordered.blm")
    again = type(post).load(path)
    np.testing.assert_array_equal(again.draws("threshold"), post.draws("threshold"))
    np.testing.assert_array_equal(again.log_likelihood(), post.log_likelihood())


def test_poststratified_shares_add_up(post):
    cells = pd.DataFrame({"g": [f"g{i:02}" for i in range(12)], "x": 50.0, "n": 10})
    frame = blm.PoststratFrame(cells, counts="n")
    parts = [blm.poststratify(post, frame, category=category).draws for category in LEVELS]
    np.testing.assert_allclose(sum(parts), 1.0)
    assert min(part.mean() for part in parts) > 0.05


def test_the_intercept_is_the_thresholds():
    frame = ratings()
    with_one, without = (blm.model(f"rating ~ {text} + (1 | g)", frame, "cumulative") for text in ("1 + x", "0 + x"))
    assert with_one.design.coef_names == without.design.coef_names == ("x",)
    frame["f"] = np.tile(["a", "b"], len(frame) // 2)
    with pytest.warns(DataWarning, match=r"linear combination of earlier ones: f\[b\]"):
        full = blm.model("rating ~ 0 + f + (1 | g)", frame, "cumulative")
    assert full.design.coef_names == ("f[a]",)
    assert full.design.dropped_columns == ("f[b]",)


def test_thresholds_from_the_prior_are_increasing_and_have_its_moments():
    prior = blm.Prior("Normal", mu=0.0, sigma=1.0)
    found = random_thresholds(2, prior, np.random.default_rng(1), 4_000)
    assert (np.diff(found, axis=1) > 0).all()
    free = np.random.default_rng(2).normal([-2.0, 2.0], 1.0, (400_000, 2))
    kept = free[free[:, 0] < free[:, 1]]
    np.testing.assert_allclose(found.mean(axis=0), kept.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(np.cov(found.T), np.cov(kept.T), atol=0.08)


def test_prior_predictive_has_every_category(model):
    tree = model.prior_predictive(draws=50, seed=1)
    assert set(np.unique(tree["prior_predictive"]["y"].values)) == {0.0, 1.0, 2.0, 3.0}
    assert tree["prior"]["threshold"].shape == (1, 50, 3)


def test_bad_input(model, post):
    with pytest.raises(PriorError, match="normal priors"):
        model.with_priors(threshold=blm.Prior("StudentT", nu=3, mu=0, sigma=1))
    with pytest.raises(ComparisonError, match="probabilities of categories"):
        post.slopes("x")
    with pytest.raises(DataError, match="epred_draws"):
        post.predict(interval="confidence")
    gaps = pd.DataFrame({"y": [0, 1, 3] * 8, "g": list("abcd") * 6})
    declared = gaps.assign(y=pd.Categorical(gaps["y"], [0, 1, 2, 3], ordered=True))
    with pytest.warns(DataWarning, match="no row has category '2'"):
        occurring = blm.model("y ~ 1 + (1 | g)", declared, "cumulative")
    assert occurring.design.threshold_labels == ("0|1", "1|3")
    two = blm.model("y ~ 1 + (1 | g)", gaps.assign(y=gaps["y"] > 0), "cumulative")
    for engine in (None, "laplace", "latent"):
        with pytest.raises(DataError, match="an ordered model needs three"):
            two.sample(10, engine=engine, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("link", ["logit", "probit"])
def test_both_routes_draw_from_the_same_posterior(link):
    from arviz_stats.base import array_stats

    model = blm.model("rating ~ x + (1 | g)", ratings(), family="cumulative", link=link)
    exact = model.sample(draws=2000, seed=2, engine="latent", progress=False, target_accept=0.95)
    found = model.sample(draws=4000, seed=3, progress=False)
    assert found.run.engine == "Laplace"
    how = {"chain_axis": 0, "draw_axis": 1}
    scores = {}
    assert max(array_stats.rhat(draws, **how) for draws in exact.parameters.values()) < 1.02
    for name, draws in found.parameters.items():
        other = exact.parameters[name]
        for word, power in (("mean", 1), ("SD", 2)):
            a, b = ((values - other.mean()) ** power for values in (draws, other))
            errors = [array_stats.mcse(values, **how, method="mean") for values in (a, b)]
            scores[name, word] = float((a.mean() - b.mean()) / np.hypot(*errors))
    print(f"\n{link}, Pareto k {found.run.pareto_k:.2f}\n{pd.Series(scores).unstack().round(2)}")
    assert max(map(abs, scores.values())) < 4


@pytest.mark.slow
def test_the_laplace_engine_is_calibrated_for_ordered_responses():
    # So that no simulated response lacks a category.
    priors = {"x": blm.Prior("Normal", mu=0, sigma=0.03), "sd": blm.Prior("HalfNormal", sigma=0.5)}
    priors["threshold"] = blm.Prior("Normal", mu=0, sigma=0.4)
    result = blm.sbc(
        blm.model("rating ~ x + (1 | g)", ratings(), "cumulative", priors=priors), 100, seed=1, engine="laplace"
    )
    print(
        f"{result}\nlargest Pareto k {np.max(result.pareto_k):.2f}, above 0.7 in {np.sum(result.pareto_k > 0.7)} of 100"
    )
    assert result.uniformity()["p"].min() > 0.01 / result.ranks.shape[1], str(result)
