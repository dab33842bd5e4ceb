"""A result with draws that are known, so that poststratification can be tested without an engine."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bayeslmm.contract import Fit
from bayeslmm.datatree import posterior_dataset
from bayeslmm.formula.design import build_design
from bayeslmm.predict import linear_predictor


@dataclass(frozen=True, repr=False)
class KnownFit(Fit):
    """Draws of coefficients and effects, given; everything else follows from them."""

    design: Any
    beta: np.ndarray  # (S, p)
    effects: dict  # factor -> (S, J, K)
    sd: dict  # factor -> (K,)
    link: str = "logit"
    engine: str = "NUTS (known)"
    family: str = "bernoulli"

    def linpred_draws(self, new_data=None, *, new_levels="error", include=None, draws=None, seed=None):
        design = self.design if new_data is None else self.design.at(new_data)
        count = len(self.beta) if draws is None else draws
        covariances = {name: np.broadcast_to(np.diag(sd**2), (count, len(sd), len(sd))) for name, sd in self.sd.items()}
        return linear_predictor(
            design,
            self.beta[:count],
            {name: values[:count] for name, values in self.effects.items()},
            covariances=covariances,
            new_levels=new_levels,
            include=include,
            rng=np.random.default_rng(seed),
        )

    def epred_draws(self, new_data=None, **options):
        eta = self.linpred_draws(new_data, **options)
        return expit(eta) if self.link == "logit" else eta

    def predict(self, new_data=None, *, new_levels="error", include=None, interval=None, level=0.95):
        mean = KnownFit(
            self.design,
            self.beta.mean(axis=0)[None],
            {name: values.mean(axis=0)[None] for name, values in self.effects.items()},
            self.sd,
            self.link,
        )
        zero = "zero" if new_levels == "sample" else new_levels
        return mean.epred_draws(new_data, new_levels=zero, include=include)[0]

    def to_datatree(self):
        import xarray as xr

        posterior = posterior_dataset(
            self.design,
            beta=self.beta[None],
            sd={name: np.broadcast_to(sd, (1, len(self.beta), len(sd))) for name, sd in self.sd.items()},
            corr={},
            effects={name: values[None] for name, values in self.effects.items()},
        )
        return xr.DataTree.from_dict({"posterior": posterior})

    def _not_needed(self, *args, **options):
        raise NotImplementedError

    predictive_draws = summary = confint = parameter_frame = _not_needed
    fixef = ranef = varcorr = sigma = vcov = property(_not_needed)


STATES = ("CA", "NY", "TX")


@pytest.fixture(scope="session")
def poll() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 300
    return pd.DataFrame(
        {
            "yes": rng.integers(0, 2, n),
            "state": rng.choice(STATES, n, p=[0.5, 0.3, 0.2]),
            "age": rng.choice(["18-44", "45+"], n),
            "sex": rng.choice(["f", "m"], n),
            "poll": rng.choice(["A", "B"], n),
            "w": rng.uniform(0.5, 2, n),
        }
    )


@pytest.fixture
def known_fit(poll):
    """Return a maker of fits: formula and number of draws in, KnownFit out."""

    def make(formula="yes ~ sex + (1 | state) + (1 | age) + (1 | state:age)", draws=40, spread=0.3, seed=2, **options):
        design = build_design(formula, poll, family="bernoulli")
        rng = np.random.default_rng(seed)
        beta = rng.normal(0, spread, (draws, design.X.shape[1]))
        effects = {
            factor.name: rng.normal(0, spread, (draws, len(factor.levels), len(factor.effects)))
            for factor in design.factors
        }
        sd = {factor.name: np.full(len(factor.effects), 0.5) for factor in design.factors}
        return KnownFit(design, beta, effects, sd, **options)

    return make


@pytest.fixture
def cells() -> pd.DataFrame:
    """Return the population of the poll: 3 states, 2 ages, 2 sexes, a region above the states."""
    rng = np.random.default_rng(3)
    index = pd.MultiIndex.from_product([STATES, ["18-44", "45+"], ["f", "m"]], names=["state", "age", "sex"])
    table = index.to_frame(index=False)
    table["region"] = np.where(table["state"] == "TX", "South", "Coast")
    table["n"] = rng.integers(50, 500, len(table))
    return table
