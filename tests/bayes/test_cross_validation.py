"""K-fold: against leave-one-group-out integrated exactly, and between engines."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import bayeslmm as blm
from bayeslmm.bayes.refit import refitter
from bayeslmm.errors import DataError
from bayeslmm.formula.design import take_rows


@pytest.fixture(scope="module")
def model():
    return blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def post(model):
    return model.sample(300, chains=2, seed=1, progress=False)


def test_a_group_left_out_has_the_fitted_distribution(model):
    rows = np.flatnonzero(model.design.factors[0].codes != 4)
    refit = refitter(model.design, model.family, model.priors)
    part = refit(take_rows(model.design, rows), rows, draws=1000, chains=2, seed=1)
    effects = part.draws("b_Subject")[:, 4]
    fitted = np.sqrt(np.mean(np.square(part.draws("sd_Subject")), axis=0))
    assert np.abs(effects.mean(axis=0) / fitted).max() < 4 / np.sqrt(1500)
    np.testing.assert_allclose(effects.std(axis=0), fitted, rtol=0.12)
    # The others are those of a model that never heard of the group.
    fewer = blm.model("Reaction ~ Days + (Days | Subject)", model.design.data.iloc[rows]).with_priors(
        {entry.name: entry.prior for entry in model.priors if entry.kind != "corr"}
    )
    alone = fewer.sample(1000, chains=2, seed=2, progress=False)
    for name, draws in alone.parameters.items():
        error = np.hypot(draws.std() / np.sqrt(500), part.parameters[name].std() / np.sqrt(500))
        assert abs(draws.mean() - part.parameters[name].mean()) < 4 * error, name


def test_folds_of_rows_are_near_leave_one_out(post):
    kfold, loo = post.kfold(5, draws=200, chains=2), post.loo()
    assert kfold.n_folds == 5
    assert kfold.elpd == pytest.approx(loo.elpd, abs=loo.se)
    assert kfold.elpd_i.size == 180


def test_folds_of_groups_predict_new_groups(post):
    grouped = post.kfold(6, group="Subject", draws=200, chains=2)
    assert grouped.elpd < post.loo().elpd - 20
    given = np.asarray(post.design.factors[0].codes) % 3
    assert post.kfold(folds=given, draws=100, chains=1).n_folds == 3


def test_impossible_folds_are_refused(post):
    for options, words in (
        ({"k": 19, "group": "Subject"}, "from 2 to 18"),
        ({"k": 1}, "from 2"),
        ({"k": 2, "folds": [1] * 180}, "leave out k="),
        ({"folds": [1, 2]}, "for the 180 rows"),
        ({"folds": [1] * 180}, "one fold only"),
        ({"group": "Subjct"}, "Did you mean 'Subject'"),
    ):
        with pytest.raises(DataError, match=words):
            post.kfold(**options)


@pytest.mark.slow
def test_the_latent_engine_agrees_and_compiles_once(monkeypatch):
    import nutpie

    compiled = []
    once = nutpie.compile_pymc_model
    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    marginal = model.sample(1000, seed=1, progress=False).kfold(group="Batch", draws=2000)
    latent = model.sample(500, seed=1, progress=False, engine="latent")
    monkeypatch.setattr(nutpie, "compile_pymc_model", lambda *a, **k: (compiled.append(1), once(*a, **k))[1])
    found = latent.kfold(group="Batch", draws=2000)
    assert len(compiled) == 1
    np.testing.assert_allclose(found.elpd_i, marginal.elpd_i, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bernoulli", "negativebinomial"])
def test_other_families(family):
    rng = np.random.default_rng(0)
    eta = rng.normal(0, 0.8, 12)[np.repeat(np.arange(12), 15)]
    y = rng.random(180) < expit(eta) if family == "bernoulli" else rng.negative_binomial(3, 3 / (3 + np.exp(1 + eta)))
    frame = pd.DataFrame({"y": y.astype(int), "g": np.repeat(list("abcdefghijkl"), 15)})
    post = blm.model("y ~ 1 + (1 | g)", frame, family).sample(300, seed=1, progress=False)
    kfold, loo = post.kfold(4, draws=200, chains=2), post.loo()
    assert kfold.elpd == pytest.approx(loo.elpd, abs=loo.se)
    assert post.kfold(4, group="g", draws=200, chains=2).elpd < kfold.elpd
