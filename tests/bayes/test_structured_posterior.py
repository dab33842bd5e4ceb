"""rw() and icar() in posteriors: PyMC's own ICAR density, exact draws, and what is saved."""

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats

import bayeslmm as blm
from bayeslmm.bayes.posterior import Posterior
from bayeslmm.formula.structured import areas, laplacian, read_adjacency
from bayeslmm.mrp.tiles import US_TILES

RING = {"A": ["B"], "B": ["C"], "C": ["D"], "D": ["E"], "E": ["A", "C"]}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    n = 150
    code = rng.integers(0, 5, n)
    area = np.array(list("ABCDE"))[rng.integers(0, 5, n)]
    age = pd.Categorical.from_codes(code, categories=["a", "b", "c", "d", "e", "f"], ordered=True)
    return pd.DataFrame({"age": age, "area": area, "y": 0.4 * code + rng.normal(size=n)})


@pytest.fixture(scope="module")
def post(data):
    model = blm.model("y ~ 1 + rw(1 | age) + icar(1 | area)", data, adjacency=RING)
    return model.sample(draws=500, chains=2, seed=1, progress=False)


def test_the_prior_is_that_of_pymc():
    import pymc as pm
    import pytensor

    levels, pairs = read_adjacency(RING)
    Q, K = laplacian(levels, pairs), areas(RING).matrix
    W = np.diag(np.diag(Q)) - Q
    scale = np.exp(np.log(np.diag(np.linalg.pinv(Q))).mean())
    sd = 0.7
    b = pm.ICAR.dist(W=W.astype(int), sigma=sd / np.sqrt(scale))
    value = b.type()
    logp = pytensor.function([value], pm.logp(b, value), mode="FAST_COMPILE")
    u = np.random.default_rng(2).standard_normal((6, K.shape[1]))
    theirs = np.array([float(logp(sd * K @ row)) for row in u])
    ours = -0.5 * np.square(u).sum(axis=1)
    np.testing.assert_allclose(theirs - theirs[0], ours - ours[0], rtol=1e-9)


def test_effects_of_levels_are_shown_and_draws_equal_predictions(post, data):
    assert "rw(age) 6; icar(area) 5" in str(post.summary())
    assert list(post.parameter_frame().index) == [
        "Intercept",
        "sd_rw(age)[Intercept]",
        "sd_icar(area)[Intercept]",
        "sigma",
    ]
    walk = post.ranef["rw(age)"]["Intercept"]
    assert list(walk.index) == list("abcdef")
    assert walk.sum() == pytest.approx(0, abs=1e-9)
    new = pd.DataFrame({"age": ["f", "e"], "area": ["A", "A"]})
    eta = post.linpred_draws(new)
    beta = post.draws("beta")[:, 0]
    expected = beta.mean() + walk["f"] + post.ranef["icar(area)"].loc["A", "Intercept"]
    assert eta[:, 0].mean() == pytest.approx(expected, abs=1e-9)
    assert eta[:, 0].std() > eta[:, 1].std()


def test_ranks_and_tidy_frames_are_of_levels(post):
    ranks = post.ranks("rw(age)")
    assert set(ranks.index) == set("abcdef")
    values = post.tidy(effects="ran_vals")
    assert list(values.loc[values["group"] == "rw(age)", "level"]) == list("abcdef")
    assert "mode1" not in str(post.tidy())


def test_the_posterior_agrees_with_the_fit(post, data):
    fit = blm.model("y ~ 1 + rw(1 | age)", data).fit()
    walk = fit.ranef["rw(age)"]["Intercept"]
    np.testing.assert_allclose(post.ranef["rw(age)"]["Intercept"], walk, atol=0.25)
    compared = str(blm.compare(blm.model("y ~ 1 + rw(1 | age) + icar(1 | area)", data, adjacency=RING).fit(), post))
    assert "mode1" not in compared
    assert "sd_rw(age)[Intercept]" in compared


def test_a_saved_posterior_keeps_order_and_neighbours(post, tmp_path):
    post.save(tmp_path / "p.blm")
    again = Posterior.load(tmp_path / "p.blm")
    new = pd.DataFrame({"age": ["f", "a"], "area": ["D", "E"]})
    np.testing.assert_allclose(again.linpred_draws(new), post.linpred_draws(new), rtol=1e-12)
    pd.testing.assert_frame_equal(again.ranef["icar(area)"], post.ranef["icar(area)"])


@pytest.mark.slow
def test_binomial_posteriors_by_laplace_and_by_pymc_agree():
    """A poll with neighbouring ages and states: parameters and poststratified estimates within Monte Carlo error.

    States are neighbours where their tiles of the map touch; Florida, on an edge, has none and keeps an effect of its
    own.
    """
    at = {place: state for state, place in US_TILES.items()}
    touching = {
        state: [at[to] for to in ((row + 1, column), (row, column + 1)) if to in at]
        for state, (row, column) in US_TILES.items()
    }
    simulated = blm.datasets.simulate_poll(1500, seed=4)
    ages = pd.CategoricalDtype(["18-29", "30-44", "45-64", "65+"], ordered=True)
    poll = simulated.poll.astype({"age": ages})
    formula = "yes ~ sex + rw(1 | age) + icar(1 | state) + (1 | educ)"
    model = blm.model(formula, poll, family="bernoulli", adjacency=touching)
    frame = blm.PoststratFrame(simulated.population.drop(columns="p"))
    ours = model.sample(1000, chains=2, seed=1, engine="laplace", progress=False)
    theirs = blm.collapse(model).sample(2000, chains=2, tune=1500, seed=2, engine="latent", progress=False)
    estimates = [blm.poststratify(post, frame, by=["state", "age"], seed=1) for post in (ours, theirs)]
    draws = [
        np.concatenate([np.stack(list(post.parameters.values()), axis=-1), shares.draws.reshape(2, -1, len(shares))], 2)
        for post, shares in zip((ours, theirs), estimates, strict=True)
    ]
    ess = [array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk") for values in draws]
    means, sds = ([getattr(values, what)(axis=(0, 1)) for values in draws] for what in ("mean", "std"))
    z = (means[0] - means[1]) / np.sqrt(sds[0] ** 2 / ess[0] + sds[1] ** 2 / ess[1])
    gap = 100 * np.abs(estimates[0].estimate - estimates[1].estimate).max()
    print(
        f"{z.size} quantities: differences of {np.abs(z).max():.1f} Monte Carlo errors at most; shares within {gap:.2f}"
        f" points; SDs {(sds[0] / sds[1]).min():.2f} to {(sds[0] / sds[1]).max():.2f} times PyMC's;"
        f" smallest ESS {ess[0].min():.0f} and {ess[1].min():.0f}, Pareto k {ours.run.pareto_k:.2f}"
    )
    assert np.abs(z).max() < 5
    assert ((sds[0] / sds[1] > 0.8) & (sds[0] / sds[1] < 1.25)).all()
