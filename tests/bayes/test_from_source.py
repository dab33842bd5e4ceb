"""The PyMC model of rows in a source has the density of the PyMC model of the rows, up to a constant."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'bayeslmm[scale]'")
pytest.importorskip("ibis", reason="ibis is not installed: pip install 'bayeslmm[scale]'")

FORMULAS = {
    "gaussian": "y ~ x * s + (1 + x | g) + (1 | h)",
    "bernoulli": "b ~ z + s + (1 | g)",
    "binomial": "cbind(k, m - k) ~ z + (1 | g)",
    "poisson": "c ~ z + (1 | g)",
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    n = 300
    frame = pd.DataFrame({"g": rng.integers(6, size=n), "h": rng.integers(4, size=n), "x": rng.normal(size=n)})
    frame["s"] = rng.choice(["no", "yes"], n)
    frame["z"] = rng.integers(3, size=n) / 2
    eta = 0.4 * frame["z"] + 0.3 * frame["g"] - 1
    frame["y"] = 100 + 2 * frame["x"] + frame["g"] + rng.normal(size=n)
    frame["b"] = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    frame["m"] = rng.integers(1, 6, size=n)
    frame["k"] = rng.binomial(frame["m"], 1 / (1 + np.exp(-eta)))
    frame["c"] = rng.poisson(np.exp(eta))
    return frame.astype({"g": str, "h": str})


@pytest.mark.parametrize("family", list(FORMULAS))
def test_log_densities_differ_by_a_constant(family, rows):
    models = [blm.model(FORMULAS[family], data, family).to_pymc() for data in (rows, duckdb.connect().from_df(rows))]
    start = models[0].initial_point()
    rng = np.random.default_rng(0)
    points = [{name: value + 0.3 * rng.normal(size=value.shape) for name, value in start.items()} for _ in range(4)]
    here, there = (
        np.array([float(logp(point)) for point in points])
        for logp in (model.compile_logp(mode="FAST_COMPILE") for model in models)
    )
    np.testing.assert_allclose(there - there[0], here - here[0], rtol=1e-9, atol=1e-7)


@pytest.mark.slow
def test_latent_draws_from_a_source(rows):
    model = blm.model(FORMULAS["bernoulli"], duckdb.connect().from_df(rows), "bernoulli")
    post = model.sample(draws=150, tune=150, chains=2, seed=1, engine="latent", progress=False)
    fit = model.fit()
    np.testing.assert_allclose(post.fixef, fit.fixef, atol=1.0)
    assert post.engine == "NUTS (latent)"
    assert len(blm.compare(fit, post).frame) == 4
