"""Both engines draw from one posterior: means, SDs and quantiles of every parameter, group effects included."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

import bayeslmm as blm

pytestmark = pytest.mark.slow
CASES = {
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "nlschools": "lang ~ IQ + GS + SES + COMB + (1 | class)",
}


def flat(post):
    posterior = post.data["posterior"]
    parts = [posterior[name].values for name in sorted(posterior.data_vars) if not name.startswith("corr_")]
    parts += [values for name, values in post.parameters.items() if name.startswith("corr_")]
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)


def errors(draws, method, **options):
    return array_stats.mcse(draws, chain_axis=0, draw_axis=1, method=method, **options)


@pytest.mark.parametrize("data", CASES)
def test_marginal_and_latent_agree(data):
    model = blm.model(CASES[data], blm.datasets.load(data))
    marginal, latent = (
        flat(model.sample(draws=1500, seed=seed, engine=engine, progress=False))
        for seed, engine in ((1, "marginal"), (2, "latent"))
    )
    checks = {
        "mean": (lambda d: d.mean(axis=(0, 1)), {"method": "mean"}),
        "sd": (lambda d: d.std(axis=(0, 1)), {"method": "sd"}),
        "5%": (lambda d: np.quantile(d, 0.05, axis=(0, 1)), {"method": "quantile", "prob": 0.05}),
        "95%": (lambda d: np.quantile(d, 0.95, axis=(0, 1)), {"method": "quantile", "prob": 0.95}),
    }
    for name, (statistic, options) in checks.items():
        error = np.hypot(errors(marginal, **options), errors(latent, **options))
        z = (statistic(marginal) - statistic(latent)) / error
        # Largest of some 150 standard normal values: beyond 4.5 once in a thousand runs.
        assert np.abs(z).max() < 4.5, (name, np.abs(z).max())
        assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6, (name, np.sqrt(np.mean(z**2)))
