"""A saved posterior answers as before: families of the latent engine, joint priors, trials and offsets as arguments."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayeslmm as blm
from bayeslmm.bayes.labels import data_groups
from bayeslmm.bayes.posterior import Posterior, Run
from bayeslmm.datatree import posterior_dataset
from bayeslmm.errors import DataError

COUNT = 6


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(2)
    n = 60
    counts = rng.poisson(2.0, n) * rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "count": counts,
            "k": np.minimum(counts, 5),
            "n": 5,
            "cost": counts * rng.gamma(2.0, 1.0, n),
            "rating": pd.Categorical.from_codes(rng.integers(0, 3, n), ["bad", "fair", "good"], ordered=True),
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "g": np.repeat(list("abcdef"), 10),
        }
    )


def made(model):
    """A posterior with made-up draws of every parameter: nothing is compiled or sampled."""
    rng = np.random.default_rng(1)
    design = model.design
    dataset = posterior_dataset(
        design,
        beta=0.3 * rng.normal(size=(2, COUNT, len(design.coef_names))),
        sd={"g": rng.gamma(4, 0.2, size=(2, COUNT, 1))},
        corr={},
        effects={"g": 0.3 * rng.normal(size=(2, COUNT, 6, 1))},
        sigma=1 + rng.random((2, COUNT)) if model.priors.sigma is not None else None,
    )
    for name in model.priors.aux:
        if name == "threshold":
            cuts = np.sort(rng.normal(size=(2, COUNT, len(design.response_levels) - 1)), axis=-1)
            dataset[name] = (("chain", "draw", "threshold_dim"), cuts)
        elif name not in dataset:
            dataset[name] = (("chain", "draw"), rng.uniform(0.3, 0.9, size=(2, COUNT)))
    tree = xr.DataTree.from_dict({"posterior": dataset, **data_groups(design)})
    return Posterior(design, model.family, model.priors, tree, Run("latent", "NUTS", "", COUNT, 2, 1, 1, 0.0))


def check(post, again, frame):
    """Every answer is the same number."""
    xr.testing.assert_identical(again.data["posterior"].to_dataset(), post.data["posterior"].to_dataset())
    assert list(again.priors) == list(post.priors)
    assert (again.response, again.run.draws) == (post.response, post.run.draws)
    np.testing.assert_array_equal(again.log_likelihood(), post.log_likelihood())
    np.testing.assert_array_equal(again.epred_draws(), post.epred_draws())
    rows = frame.head(7).assign(g="new")
    for draw in ("epred_draws", "predictive_draws"):
        options = {"new_levels": "sample", "seed": 3}
        np.testing.assert_array_equal(getattr(again, draw)(rows, **options), getattr(post, draw)(rows, **options))
    assert again.summary().to_pandas().equals(post.summary().to_pandas())


CASES = [
    ("count ~ x + (1 | g)", "zero_inflated_poisson", {}),
    ("count ~ x + (1 | g)", "zero_inflated_negativebinomial", {}),
    ("prop(k, n) ~ x + (1 | g)", "zero_inflated_binomial", {}),
    ("count ~ x + offset(log(n)) + (1 | g)", "hurdle_poisson", {}),
    ("cost ~ x + (1 | g)", "hurdle_gamma", {}),
    ("rating ~ 0 + x + (1 | g)", "sratio", {}),
    ("rating ~ 0 + x + (1 | g)", "cumulative", {}),
    ("I(k / n) ~ x + (1 | g)", "binomial", {"weights": "n"}),
    ("count ~ x + offset(z) + (1 | g)", "poisson", {"offset": "y"}),
    ("y ~ x + (1 | g)", "gaussian", {"weights": "n", "offset": "z"}),
    ("y ~ x + z + (1 | g)", "gaussian", {"priors": {"beta": blm.Prior("R2D2M2", mean_R2=0.4, prec_R2=3.0)}}),
    ("y ~ x + z + (1 | g)", "gaussian", {"priors": {"beta": blm.Prior("RegularisedHorseshoe", scale_global=0.1)}}),
    ("y ~ x + (1 | g)", "t", {"priors": {"x": blm.Prior("Laplace", mu=0, b=1)}}),
]


@pytest.mark.parametrize(("formula", "family", "options"), CASES, ids=lambda value: str(value)[:40])
def test_round_trip(formula, family, options, frame, tmp_path):
    post = made(blm.model(formula, frame, family, **options))
    check(post, Posterior.load(post.save(tmp_path / "p.blm")), frame)


def test_trials_given_as_an_array_come_back(frame, tmp_path):
    model = blm.model("I(k / n) ~ x + (1 | g)", frame, "binomial", weights=frame["n"].to_numpy())
    post = made(model)
    again = Posterior.load(post.save(tmp_path / "p.blm"))
    np.testing.assert_array_equal(again.design.trials, frame["n"])
    np.testing.assert_array_equal(again.log_likelihood(), post.log_likelihood())


def test_an_offset_given_as_an_array_is_still_asked_for(frame, tmp_path):
    post = made(blm.model("y ~ x + offset(z) + (1 | g)", frame, offset=np.arange(60.0)))
    again = Posterior.load(post.save(tmp_path / "p.blm"))
    np.testing.assert_array_equal(again.design.offset, post.design.offset)
    with pytest.raises(DataError, match="an offset given as numbers"):
        again.epred_draws(frame.head(2))


def test_a_prior_given_as_a_function_is_not_saved(frame, tmp_path):
    import pymc as pm

    model = blm.model("y ~ x + (1 | g)", frame, priors={"x": blm.Prior("Own", dist=pm.Normal)})
    with pytest.raises(DataError, match="must not hold code"):
        made(model).save(tmp_path / "p.blm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", [CASES[0], CASES[8]], ids=["zero-inflated", "R2D2M2"])
def test_round_trip_of_sampled_draws(case, frame, tmp_path):
    formula, family, options = case
    post = blm.model(formula, frame, family, **options).sample(50, tune=50, chains=2, seed=1, progress=False)
    check(post, Posterior.load(post.save(tmp_path / "p.blm")), frame)


def test_a_missing_folder_or_file_says_what_and_where(frame, tmp_path):
    post = blm.model("y ~ x + (1 | g)", frame).sample(20, tune=20, chains=1, seed=1, progress=False, method="nuts")
    with pytest.raises(FileNotFoundError, match=r"no folder '.*nowhere' to save 'post.blm' in[^$]*Create it first"):
        post.save(tmp_path / "nowhere" / "post.blm")
    with pytest.raises(FileNotFoundError, match=r"no file '.*post.blm' to load[^$]*relative to"):
        Posterior.load(tmp_path / "post.blm")
    assert list(tmp_path.iterdir()) == []
