"""A fit and a posterior with chosen numbers, so that what is printed can be known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

from bayeslmm import datasets
from bayeslmm.contract import Fit, RandomEffects
from bayeslmm.formula.design import Design, build_design
from bayeslmm.report.tables import Summary
from bayeslmm.report.varcorr import VarCorr, VarCorrEntry

PARAMETERS = ("Intercept", "Days", "sd_Subject[Intercept]", "sd_Subject[Days]", "corr_Subject[Intercept,Days]", "sigma")
KINDS = ("fixed", "fixed", "sd", "sd", "corr", "sigma")


@dataclass(frozen=True)
class FakeFit(Fit):
    """A result whose numbers are given."""

    design: Design
    estimates: tuple[float, ...]
    errors: tuple[float, ...]
    how: str = "REML"
    chains: int = 1
    draws: int = 1

    family = "gaussian (identity)"

    @property
    def engine(self) -> str:
        return self.how

    @property
    def fixef(self) -> pd.Series:
        return pd.Series(self.estimates[:2], index=list(self.design.coef_names))

    @property
    def ranef(self) -> RandomEffects:
        factor = self.design.factors[0]
        modes = np.linspace(-30, 30, len(factor.levels))[:, None] * np.array([1.0, 0.2])
        frame = pd.DataFrame(modes, index=list(factor.levels), columns=list(factor.effects))
        return RandomEffects(
            {factor.name: frame}, {factor.name: np.broadcast_to(np.diag([81.0, 4.0]), (len(frame), 2, 2))}
        )

    @property
    def varcorr(self) -> VarCorr:
        _, _, sd0, sd1, corr, sigma = self.estimates
        entry = VarCorrEntry(
            "Subject", ("Intercept", "Days"), np.array([sd0, sd1]), np.array([[1.0, corr], [corr, 1.0]])
        )
        return VarCorr((entry,), sigma)

    @property
    def sigma(self) -> float:
        return self.estimates[-1]

    @property
    def vcov(self) -> pd.DataFrame:
        names = list(self.design.coef_names)
        return pd.DataFrame(np.diag(np.square(self.errors[:2])), index=names, columns=names)

    def summary(self) -> Summary:
        errors = np.array(self.errors[:2])
        return Summary(
            title=f"Linear mixed model fit by {self.how}",
            formula=self.design.formula.text,
            criterion_name="REML criterion at convergence",
            criterion=1743.6283,
            information={},
            scaled_residuals=np.array([-3.9536, -0.4634, 0.0231, 0.4634, 5.1793]),
            varcorr=self.varcorr,
            n_obs=180,
            groups=(("Subject", 18, 10, 10.0, 10),),
            coefficients=pd.DataFrame(
                {"Estimate": self.estimates[:2], "Std. Error": errors, "t value": self.estimates[:2] / errors},
                index=list(self.design.coef_names),
            ),
            coef_corr=pd.DataFrame([[1, -0.1375], [-0.1375, 1]], index=list(self.design.coef_names)),
        )

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        return self.parameter_frame(level)[["lower", "upper"]]

    def parameter_frame(self, level: float = 0.95) -> pd.DataFrame:
        estimate, se = np.array(self.estimates), np.array(self.errors)
        reach = ndtri((1 + level) / 2) * se
        return pd.DataFrame(
            {"kind": KINDS, "estimate": estimate, "se": se, "lower": estimate - reach, "upper": estimate + reach},
            index=list(PARAMETERS),
        )

    def linpred_draws(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    epred_draws = predictive_draws = predict = linpred_draws

    def plot_ppc(self) -> Any:
        import arviz_plots
        import xarray as xr

        y = np.asarray(self.design.y)
        rng = np.random.default_rng(3)
        simulated = y + rng.normal(size=(2, 20, len(y)))
        tree = xr.DataTree.from_dict(
            {
                "posterior_predictive": xr.Dataset({"y": (("chain", "draw", "obs"), simulated)}),
                "observed_data": xr.Dataset({"y": (("obs",), y)}),
            }
        )
        return arviz_plots.plot_ppc_dist(tree, num_samples=5)

    def diagnostics(self) -> Summary:
        return self.summary()

    def to_datatree(self) -> Any:
        import xarray as xr

        rng = np.random.default_rng(1)
        shape = (self.chains, self.draws)
        drawn = [
            mean + np.nan_to_num(error) * rng.standard_normal(shape)
            for mean, error in zip(self.estimates, self.errors, strict=True)
        ]
        corr = np.broadcast_to(np.eye(2), (*shape, 2, 2)).copy()
        corr[..., 0, 1] = corr[..., 1, 0] = drawn[4]
        dims = ("chain", "draw")
        posterior = xr.Dataset(
            {
                "beta": ((*dims, "coef"), np.stack(drawn[:2], axis=-1)),
                "sd_Subject": ((*dims, "Subject_effect"), np.stack(drawn[2:4], axis=-1)),
                "corr_Subject": ((*dims, "Subject_effect", "Subject_effect_bis"), corr),
                "sigma": (dims, drawn[5]),
            }
        )
        return xr.DataTree.from_dict({"posterior": posterior})


@pytest.fixture(scope="session")
def design() -> Design:
    return build_design("Reaction ~ Days + (Days | Subject)", datasets.load("sleepstudy"))


@pytest.fixture(scope="session")
def fit(design: Design) -> FakeFit:
    return FakeFit(
        design, (251.4051, 10.4673, 24.7407, 5.9221, 0.0656, 25.5918), (6.8246, 1.5458, 5.8, 1.25, 0.3, 1.51)
    )


@pytest.fixture(scope="session")
def post(design: Design) -> FakeFit:
    return FakeFit(
        design,
        (251.3, 10.45, 25.5, 6.1, 0.08, 25.7),
        (7.1, 1.6, 6.1, 1.3, 0.29, 1.52),
        "NUTS (marginal)",
        chains=4,
        draws=500,
    )
