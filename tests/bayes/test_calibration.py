"""Simulation-based calibration: what the check itself can see, and (slow) that both engines pass it."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.calibration import Calibration
from bayeslmm.errors import DataError, SamplingError

SIMULATIONS = 200


@pytest.fixture(scope="module")
def known():
    rng = np.random.default_rng(0)
    ranks = {"good": rng.integers(0, 101, 500), "bad": rng.binomial(100, 0.5, 500), "high": rng.integers(12, 101, 500)}
    return Calibration(pd.DataFrame(ranks), 100, np.full(500, np.nan))


def test_uniformity_sees_ranks_that_are_not(known):
    table = known.uniformity()
    assert table.loc["good", "p"] > 0.01
    assert (table.loc[["bad", "high"], "p"] < 1e-4).all()
    assert table["inside"].tolist() == [True, False, False]


def test_bands_hold_as_often_as_they_say():
    rng = np.random.default_rng(1)
    ranks = pd.DataFrame(rng.integers(0, 51, (200, 400)), columns=[f"r{i}" for i in range(400)])
    calibration = Calibration(ranks, 50, np.full(200, np.nan))
    band = calibration.bands(0.95)
    inside = [
        bool(((curve >= band["lower"]) & (curve <= band["upper"])).all()) for curve in map(calibration.ecdf, ranks)
    ]
    # 400 independent curves: 0.95 with a standard error of 0.011.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.035)


def test_plots_have_a_panel_each(known):
    for kind in ("ecdf", "rank"):
        figure = known.plot(kind)
        assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == ["good", "bad", "high"]
    with pytest.raises(DataError, match="Did you mean 'rank'"):
        known.plot("rnk")
    with pytest.raises(DataError, match="no parameter"):
        known.ecdf("beta")


def test_sbc_does_not_depend_on_the_number_of_workers():
    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    one, two = (blm.sbc(model, 3, draws=20, seed=4, workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one.ranks, two.ranks)
    expected = ["Intercept", "sd_Batch[Intercept]", "sigma", "b_Batch[A,Intercept]", "log likelihood"]
    assert list(one.ranks.columns) == expected
    assert "log likelihood" in str(one)
    with pytest.raises(SamplingError, match="n_sims"):
        blm.sbc(model, 0)


def crossed():
    rows = [(i, j) for i in range(6) for j in range(5)]
    frame = pd.DataFrame(rows, columns=["item", "judge"])
    return frame.assign(y=np.random.default_rng(3).normal(size=len(frame)))


MODELS = {
    "random intercept": lambda: blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")),
    "correlated slopes": lambda: blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy")),
    "crossed": lambda: blm.model("y ~ 1 + (1 | item) + (1 | judge)", crossed()),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["marginal", "latent"])
@pytest.mark.parametrize("name", MODELS)
def test_both_engines_are_calibrated(name, engine, tmp_path):
    result = blm.sbc(MODELS[name](), SIMULATIONS, seed=1, engine=engine)
    table = result.uniformity(level=1 - 0.05 / result.ranks.shape[1])
    print(f"\n{name}, {engine} engine\n{table.to_string()}")
    result.plot().savefig(tmp_path / "ecdf.png")
    # Both tests at 0.05 over the parameters of a model together.
    assert table["p"].min() > 0.05 / result.ranks.shape[1], str(result)
    assert table["inside"].all(), str(result)
