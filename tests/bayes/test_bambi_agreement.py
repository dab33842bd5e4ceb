"""Marginal or Laplace, latent and bambi's own posteriors of one model agree within Monte Carlo error."""

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats

import bayeslmm as blm

pytestmark = pytest.mark.slow
DRAWS, CHAINS = 1500, 4


def simulated(family):
    rng = np.random.default_rng(6)
    g = np.repeat(np.arange(24), 15)
    x = rng.normal(size=len(g))
    eta = 0.4 + 0.5 * x + 0.7 * rng.normal(size=24)[g]
    y = rng.binomial(1, 1 / (1 + np.exp(-eta))) if family == "bernoulli" else rng.poisson(np.exp(eta))
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i:02}" for i in g]})


def model_of(family):
    if family == "gaussian":
        return blm.model("Reaction ~ Days + (Days || Subject)", blm.datasets.load("sleepstudy"))
    return blm.model("y ~ x + (1 | g)", simulated(family), family)


def ours(post):
    """Coefficients, SDs, sigma and group effects (C, D, m), in the order of `theirs`."""
    named = list(post.parameters.values())
    effects = [post.data["posterior"][f"b_{factor.name}"].values for factor in post.design.factors]
    return np.concatenate([np.stack(named, axis=-1), *(e.reshape(*e.shape[:2], -1) for e in effects)], axis=-1)


def theirs(model, posterior):
    factor = model.design.factors[0]
    terms = {"Intercept": f"1|{factor.name}"} | {name: f"{name}|{factor.name}" for name in factor.effects[1:]}
    scalars = [*model.design.coef_names, *(f"{terms[name]}_sigma" for name in factor.effects)]
    scalars += ["sigma"] if "sigma" in posterior else []
    parts = [posterior[name].values[..., None] for name in scalars]
    effects = np.stack([posterior[terms[name]].values for name in factor.effects], axis=-1)
    return np.concatenate([*parts, effects.reshape(*effects.shape[:2], -1)], axis=-1)


def z_values(a, b):
    """Differences of means, SDs and quantiles in their Monte Carlo errors, all parameters."""
    statistics = {
        "mean": (lambda d: d.mean(axis=(0, 1)), {"method": "mean"}),
        "sd": (lambda d: d.std(axis=(0, 1)), {"method": "sd"}),
        "5%": (lambda d: np.quantile(d, 0.05, axis=(0, 1)), {"method": "quantile", "prob": 0.05}),
        "95%": (lambda d: np.quantile(d, 0.95, axis=(0, 1)), {"method": "quantile", "prob": 0.95}),
    }
    return {
        name: (statistic(a) - statistic(b))
        / np.hypot(*(array_stats.mcse(d, chain_axis=0, draw_axis=1, **options) for d in (a, b)))
        for name, (statistic, options) in statistics.items()
    }


@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "poisson"])
def test_three_posteriors_of_one_model(family):
    model = model_of(family)
    short = model.sample(DRAWS, chains=CHAINS, seed=1, progress=False)
    assert short.run.engine == ("marginal" if family == "gaussian" else "Laplace")
    latent = model.sample(DRAWS, chains=CHAINS, seed=2, engine="latent", progress=False)
    options = {"draws": DRAWS, "chains": CHAINS, "inference_method": "nutpie", "random_seed": 3, "progressbar": False}
    bambi = theirs(model, model.to_bambi().fit(**options)["posterior"])
    assert bambi.shape == ours(short).shape
    for name, draws in {short.run.engine: ours(short), "latent": ours(latent)}.items():
        for statistic, z in z_values(draws, bambi).items():
            largest, rms = np.abs(z).max(), np.sqrt(np.mean(z**2))
            print(f"{family} {name} - bambi, {statistic}: largest {largest:.2f}, rms {rms:.2f}")
            # Largest of some 40 nearly standard normal values: beyond 4.5 once in several thousand runs.
            assert largest < 4.5, (family, name, statistic)
            assert rms < 1.6, (family, name, statistic)
