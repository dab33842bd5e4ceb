"""Whole groups left out of generalised posteriors: quadrature against closed forms, brute force and exact refitting."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.group_integrals import integrated_log_likelihood
from bayeslmm.bayes.groups import group_log_likelihood
from bayeslmm.errors import DataError

SIZES = [1, 2, 3, 5, 8, 10, 20, 40, 3, 3, 60, 7]


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(12), SIZES)
    x = rng.normal(size=len(g))
    eta = 0.5 + 0.4 * x + 1.5 * rng.normal(size=12)[g]
    return pd.DataFrame(
        {
            "g": g.astype(str),
            "h": (np.arange(len(g)) % 7).astype(str),
            "x": x,
            "b": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "c": rng.poisson(np.exp(eta)),
            "z": eta + rng.normal(size=len(g)),
            "t": rng.choice(["none", "right"], size=len(g)),
        }
    )


def brute_force(post, draw, level):
    """Return the log integral on a wide, fine grid of standardised effects."""
    factor = next(factor for factor in post.design.factors if factor.name == "g")
    rows, width = factor.codes == level, factor.Z.shape[1]
    rest = post._linear(post.design, np.array([draw]), "error", ["h"] if len(post.design.factors) > 1 else [], None)[0]
    axis = np.linspace(-9, 9, 20_001 if width == 1 else 901)
    u = np.stack(np.meshgrid(*[axis] * width, indexing="ij"), axis=-1).reshape(-1, width)
    b = u @ np.linalg.cholesky(post.effect_covariances()["g"][draw]).T
    total = stats.norm.logpdf(u).sum(axis=1)
    own = post.draws(post.response.parameter)[draw] if post.response.parameter else 1.0
    for y, eta, z in zip(post.design.y[rows], rest[rows], factor.Z[rows], strict=True):
        total += post.response.loglik(y, post.response.inverse_link(eta + b @ z), own)
    return np.logaddexp.reduce(np.nan_to_num(total, nan=-np.inf)) + width * np.log(axis[1] - axis[0])


@pytest.mark.parametrize(
    ("formula", "family"),
    [
        ("b ~ x + (1 | g)", "bernoulli"),
        ("c ~ x + (x | g)", "poisson"),
        ("c ~ x + (1 | g) + (1 | h)", "negativebinomial"),
    ],
)
def test_quadrature_is_the_integral(formula, family, frame):
    post = blm.model(formula, frame, family).sample(150, chains=2, seed=1, progress=False)
    values, levels = group_log_likelihood(post, "g")
    assert values.shape == (300, 12)
    for draw, level in ((0, 0), (77, 4), (150, 7), (299, 10)):
        assert values[draw, level] == pytest.approx(brute_force(post, draw, level), abs=1e-4)
    assert list(levels) == sorted(frame["g"].unique())
    assert post.loo(group="g").elpd < post.loo().elpd


@pytest.mark.parametrize("formula", ["z ~ x + (1 | g)", "z ~ x + (x | g) + (1 | h)"])
def test_quadrature_is_exact_for_gaussian_models(formula, frame):
    post = blm.model(formula, frame).sample(100, chains=2, seed=1, progress=False)
    factor = next(factor for factor in post.design.factors if factor.name == "g")
    np.testing.assert_allclose(integrated_log_likelihood(post, factor), group_log_likelihood(post, "g")[0], rtol=1e-8)


def test_too_many_effects_have_a_way_out(frame):
    post = blm.model("z ~ x + (x + I(x**2) + I(x**3) || g)", frame).sample(20, chains=2, seed=1, progress=False)
    with pytest.raises(DataError, match=r"4 effects per level, .*\n.*kfold\(group"):
        integrated_log_likelihood(post, post.design.factors[0])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_leaving_out_by_weights_is_leaving_out_by_drawing_again(family):
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(30), 8)
    eta = 0.3 + 0.7 * rng.normal(size=30)[g]
    y = rng.binomial(1, 1 / (1 + np.exp(-eta))) if family == "bernoulli" else rng.poisson(np.exp(eta))
    post = blm.model("y ~ 1 + (1 | g)", {"y": y, "g": g}, family).sample(2000, seed=1, progress=False)
    found = post.loo(group="g")
    again = np.zeros(30)
    for level in range(30):
        rest = blm.model("y ~ 1 + (1 | g)", {"y": y[g != level], "g": g[g != level]}, family)
        without = rest.sample(1000, seed=1, progress=False)
        mean, sd = without.draws("beta")[:, 0], without.draws("sd_g")[:, 0]
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        eta = mean[:, None] + sd[:, None] * nodes
        log_rows = post.response.loglik(y[g == level][:, None, None], post.response.inverse_link(eta)).sum(axis=0)
        again[level] = np.log(np.mean(np.exp(log_rows) @ weights / np.sqrt(2 * np.pi)))
    np.testing.assert_allclose(np.asarray(found.elpd_i), again, atol=0.06)
    assert found.elpd == pytest.approx(again.sum(), abs=0.15)
