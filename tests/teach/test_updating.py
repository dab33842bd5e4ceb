import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import PriorError


@pytest.fixture(scope="module")
def model():
    return blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))


def test_densities_integrate_to_one(model):
    seen = blm.teach.prior_to_posterior(model, {"a": blm.Prior("HalfNormal", sigma=40)}, points=150)
    grid = seen.frame.index.to_numpy()
    assert np.trapezoid(seen.frame["a", "posterior"], grid) == pytest.approx(1.0, abs=1e-9)
    assert np.trapezoid(seen.frame["a", "prior"], grid) == pytest.approx(1.0, abs=0.02)


def test_the_grid_gives_the_posterior_that_nuts_draws(model):
    prior = blm.Prior("HalfNormal", sigma=40)
    seen = blm.teach.prior_to_posterior(model, {"a": prior}, points=200).table().loc["a"]
    draws = (
        model.with_priors({"sd_Batch[Intercept]": prior}).sample(1000, seed=1, progress=False).draws("sd_Batch").ravel()
    )
    assert seen["posterior mean"] == pytest.approx(draws.mean(), abs=4 * draws.std() / np.sqrt(1500))
    assert seen["posterior sd"] == pytest.approx(draws.std(), rel=0.1)


def test_a_tight_prior_pulls_the_posterior_in(model):
    priors = {"tight": blm.Prior("HalfNormal", sigma=5), "wide": blm.Prior("HalfNormal", sigma=500)}
    medians = blm.teach.prior_to_posterior(model, priors, points=80).table()["posterior median"]
    assert medians["tight"] < 0.4 * medians["wide"]


def test_the_models_own_prior_is_the_default(model):
    assert str(blm.teach.prior_to_posterior(model, points=20).priors["default"]).startswith("HalfStudentT")


def test_one_panel_per_prior(model):
    priors = {name: blm.Prior("HalfNormal", sigma=sd) for name, sd in (("a", 5), ("b", 10), ("c", 20), ("d", 40))}
    figure = blm.teach.prior_to_posterior(model, priors, points=20).plot(columns=3)
    assert [ax.get_title(loc="left").split("\n")[0] for ax in figure.axes[:4]] == ["a", "b", "c", "d"]


def test_a_prior_without_a_known_density_is_refused(model):
    with pytest.raises(PriorError, match="weird"):
        blm.teach.prior_to_posterior(model, {"weird": blm.Prior("SkewNormal", mu=0, sigma=1, alpha=2)})
