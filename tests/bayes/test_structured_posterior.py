"""rw() and icar() in posteriors: PyMC's own ICAR density, exact draws, and what is saved."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.posterior import Posterior
from bayeslmm.formula.structured import areas, laplacian, read_adjacency

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
