"""R2D2M2 and the regularised horseshoe: one prior for many coefficients."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import FormulaError, PriorError

COUNT = 12


def frame(n=240):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, COUNT))
    groups = np.repeat(np.arange(24), n // 24)
    y = 2 * X[:, 0] - 1.5 * X[:, 1] + rng.normal(0, 1, 24)[groups] + rng.normal(size=n)
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(COUNT)]).assign(y=y, g=groups)


def model_with(prior, data=None):
    text = "y ~ " + " + ".join(f"x{i}" for i in range(COUNT)) + " + (1 | g)"
    return blm.model(text, frame() if data is None else data, priors={"beta": prior})


def test_prior_of_explained_variance_is_the_one_asked_for():
    tree = model_with(blm.Prior("R2D2M2", mean_R2=0.6, prec_R2=5.0)).prior_predictive(2000, seed=1)
    prior = tree["prior"]
    R2 = prior["R2"].values.ravel()
    assert R2.mean() == pytest.approx(0.6, abs=4 * R2.std() / np.sqrt(2000))
    assert R2.var() == pytest.approx(0.6 * 0.4 / 6, rel=0.15)
    # Coefficients and group SD together explain R2 / (1 - R2) residual variances.
    X = frame()[[f"x{i}" for i in range(COUNT)]].to_numpy()
    scale = prior["joint_scale"].values[0]
    total = np.square(scale).sum(axis=1) / prior["sigma"].values[0] ** 2
    np.testing.assert_allclose(total, R2 / (1 - R2), rtol=1e-8)
    np.testing.assert_allclose(prior["sd_g"].values[0, :, 0], scale[:, -1])
    standard = prior["slopes"].values[0] * X.std(axis=0, ddof=1) / scale[:, :COUNT]
    assert standard.std() == pytest.approx(1, abs=0.02)


def test_horseshoe_is_spiked_with_a_bounded_slab():
    tree = model_with(blm.Prior("RegularisedHorseshoe", scale_global=0.05)).prior_predictive(2000, seed=1)
    relative = tree["prior"]["slopes"].values[0] / tree["prior"]["sigma"].values[0][:, None]
    assert np.mean(np.abs(relative) < 0.1) > 0.5
    assert np.quantile(np.abs(relative), 0.999) < 40


def test_a_joint_prior_goes_to_the_latent_engine_and_is_for_all_slopes():
    model = model_with(blm.Prior("R2D2M2"))
    assert [entry.prior.name for entry in model.priors].count("R2D2M2") == COUNT + 1
    with pytest.raises(PriorError, match="give it for 'beta'"):
        model.with_priors(x1=blm.Prior("R2D2M2"))
    with pytest.raises(PriorError, match="mean_R2 must be below 1"):
        model_with(blm.Prior("R2D2M2", mean_R2=1.5))
    with pytest.raises(PriorError, match="no parameter 'scale'"):
        model_with(blm.Prior("RegularisedHorseshoe", scale=1))
    with pytest.raises(PriorError, match="Did you mean"):
        model_with(blm.Prior("R2D2M3"))


def test_bambi_does_not_get_a_joint_prior():
    with pytest.raises(FormulaError, match="bambi cannot express the prior R2D2M2"):
        model_with(blm.Prior("R2D2M2")).to_bambi()


@pytest.mark.slow
@pytest.mark.parametrize("prior", [blm.Prior("R2D2M2"), blm.Prior("RegularisedHorseshoe")])
def test_noise_shrinks_and_signals_stay(prior):
    data = frame()
    post = model_with(prior, data).sample(500, tune=800, seed=1, progress=False, target_accept=0.95)
    assert "latent" in post.engine
    reml = blm.lmer("y ~ " + " + ".join(f"x{i}" for i in range(COUNT)) + " + (1 | g)", data)
    ours, theirs = post.fixef.to_numpy()[1:], reml.fixef.to_numpy()[1:]
    np.testing.assert_allclose(ours[:2], theirs[:2], atol=0.1)
    assert np.abs(ours[2:]).mean() < 0.8 * np.abs(theirs[2:]).mean()
    assert post.diagnostics().max_rhat < 1.03
