"""Statistics of groups from sums of a source are those of the rows: observed exactly, replicated in distribution."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'bayeslmm[scale]'")
pytest.importorskip("ibis", reason="ibis is not installed: pip install 'bayeslmm[scale]'")

FORMULAS = {
    "gaussian": "y ~ x * s + (1 + x | g) + (1 | h)",
    "bernoulli": "b ~ z + (1 | g)",
    "binomial": "cbind(k, m - k) ~ z + (1 | g)",
    "poisson": "c ~ z + (1 | g)",
}
DRAWS = 1000


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    n = 200
    frame = pd.DataFrame({"g": rng.integers(6, size=n), "h": rng.integers(4, size=n), "x": rng.normal(size=n)})
    frame["s"] = rng.choice(["no", "yes"], n)
    frame["region"] = rng.choice(["east", "west", None], n, p=[0.6, 0.3, 0.1])
    frame["z"] = rng.integers(3, size=n) / 2
    eta = 0.4 * frame["z"] + 0.3 * frame["g"] - 1
    frame["y"] = 100 + 2 * frame["x"] + frame["g"] + (1 + (frame["s"] == "yes")) * rng.normal(size=n)
    frame["b"] = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    frame["m"] = rng.integers(1, 6, size=n)
    frame["k"] = rng.binomial(frame["m"], 1 / (1 + np.exp(-eta)))
    frame["c"] = rng.poisson(np.exp(eta))
    return frame.astype({"g": str, "h": str})


@pytest.fixture(scope="module", params=list(FORMULAS))
def posteriors(request, rows):
    """Draws of the model in memory, with the design of the source in place of the rows for the second."""
    from dataclasses import replace

    here = blm.model(FORMULAS[request.param], rows, request.param)
    there = blm.model(FORMULAS[request.param], duckdb.connect().from_df(rows), request.param)
    post = here.sample(draws=DRAWS // 2, chains=2, seed=1, progress=False)
    return post, replace(post, design=there.design)


def statistics_of(post):
    return ("mean", "sd") if post.family == "gaussian" else ("mean", "sd", "zeros", "ones")


@pytest.mark.parametrize("by", ["g", "region"])
def test_what_was_observed_is_what_the_engine_computes(posteriors, rows, by):
    _, post = posteriors
    found = post.ppc(10, by=by, statistics=statistics_of(post))["observed_data"]
    y = {"gaussian": "y", "bernoulli": "b", "binomial": "k / m", "poisson": "c"}[post.family]
    query = f"select coalesce({by}, '(missing)') as {by}, avg({y}) as mean, stddev_samp({y}) as sd, "
    query += f"avg(({y} = 0)::int) as zeros, avg(({y} = 1)::int) as ones from rows group by 1"
    expected = duckdb.sql(query).df().set_index(by).loc[list(found[by].values)]
    for name in statistics_of(post):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)


@pytest.mark.parametrize("marginal", [False, True])
def test_replications_have_the_distribution_of_replicated_rows(posteriors, marginal):
    """Means over draws within Monte Carlo error (5 SE), spreads within 15 %; 1,000 independent draws of each."""
    here, there = (
        post.ppc(DRAWS, by="g", statistics=statistics_of(post), marginal=marginal, seed=seed)["posterior_predictive"]
        for post, seed in zip(posteriors, (1, 2), strict=True)
    )
    for name in statistics_of(posteriors[0]):
        a, b = (tree[name].values[0] for tree in (here, there))
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / DRAWS)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 5 * error).all(), name
        if not marginal:  # the spread of new groups has heavy tails
            np.testing.assert_allclose(b.std(axis=0), a.std(axis=0), rtol=0.15)


def test_the_plot_has_a_panel_per_group(posteriors):
    for post in posteriors:
        drawn = post.plot_ppc("tstat", by="g", t_stat="sd", draws=50)
        assert len([axes for axes in drawn.viz["figure"].item().axes if axes.lines]) == 6


def test_bad_input_is_named(posteriors):
    here, there = posteriors
    with pytest.raises(DataError, match=r"no column 'regoin'(.|\n)*'region'"):
        there.ppc(by="regoin")
    for post in (here, there):
        with pytest.raises(DataError, match="'meen' is not one of"):
            post.ppc(by="g", statistics=["meen"])
    with pytest.raises(DataError, match=r"200 rows stay in their source(.|\n)*ppc\(by="):
        there.ppc()
    with pytest.raises(DataError, match="stay in their source"):
        there.plot_ppc("dist")
    if there.family == "gaussian":
        with pytest.raises(DataError, match="0 in every replication"):
            there.ppc(by="g", statistics=["zeros"])
