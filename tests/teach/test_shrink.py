import sys

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, FormulaError, MissingDependencyError


@pytest.fixture(scope="module")
def dye():
    return blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))


def test_at_the_estimate_the_effects_are_those_of_the_fit(dye):
    seen = blm.teach.shrinkage(dye)
    np.testing.assert_allclose(seen.effects(seen.estimate), dye.ranef["Batch"]["Intercept"], rtol=1e-8)


def test_without_shrinkage_the_effects_are_deviations_of_group_means(dye):
    data = blm.datasets.load("Dyestuff")
    means = data.groupby("Batch", observed=True)["Yield"].mean()
    np.testing.assert_allclose(blm.teach.shrinkage(dye).no_pooling, means - means.mean(), rtol=1e-6)


def test_the_share_kept_is_the_ratio_of_effects(dye):
    seen = blm.teach.shrinkage(dye)
    kept = seen.effects(20.0) / seen.no_pooling
    np.testing.assert_allclose(kept, seen.factors(20.0), rtol=1e-6)


def test_a_random_slope_is_shrunk_by_its_own_information():
    fit = blm.lmer("Reaction ~ Days + (0 + Days | Subject)", blm.datasets.load("sleepstudy"))
    seen = blm.teach.shrinkage(fit)
    squares = float((np.arange(10) ** 2).sum())
    expected = squares * seen.estimate**2 / (squares * seen.estimate**2 + fit.sigma**2)
    np.testing.assert_allclose(seen.factors(), expected, rtol=1e-10)


def test_the_picture_has_both_panels_and_their_labels(dye):
    left, right = blm.teach.shrinkage(dye).plot(10.0).axes
    assert "SD 10" in left.get_title()
    assert right.get_xlabel() == "sd_Batch[Intercept], in units of Yield"


def test_two_standard_deviations_are_refused():
    fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    with pytest.raises(FormulaError, match="one random term with one effect"):
        blm.teach.shrinkage(fit)


def test_a_negative_standard_deviation_is_refused(dye):
    with pytest.raises(DataError, match="not negative"):
        blm.teach.shrinkage(dye).effects(-1.0)


def test_the_slider_says_what_it_needs(dye, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingDependencyError, match="pip install ipywidgets"):
        blm.teach.shrinkage(dye).slider()


def test_the_slider_redraws(dye):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    knob, screen = blm.teach.shrinkage(dye).slider().children
    before = screen.outputs[0]["data"]["image/png"]
    knob.value = knob.max / 2
    assert len(screen.outputs) == 1
    assert screen.outputs[0]["data"]["image/png"] != before
