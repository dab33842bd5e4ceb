"""Folded coordinates: the same posterior density, smooth through a slope SD of zero, and more effective draws."""

import numpy as np
import pytest
from arviz_stats.base import array_stats

import bayeslmm as blm
from bayeslmm.bayes import marginal
from bayeslmm.bayes.folded import FoldedTerm, fold
from bayeslmm.bayes.logposterior import log_posterior_of
from bayeslmm.bayes.marginal import find_mode

TEXT = "lang ~ IQ + GS + SES + COMB + (IQ | class)"


def density_of(model):
    density = log_posterior_of(model.design, model.priors, model.kernel)
    return density, find_mode(density)


@pytest.fixture(scope="module")
def schools():
    return blm.model(TEXT, blm.datasets.load("nlschools"))


POINTS = [(1.0, 0.4, -0.5), (1.0, 1e-4, 0.3), (0.8, -0.3, 1.5), (2.0, 0.05, -4.0), (-1.5, 0.2, 0.0)]


@pytest.mark.parametrize("signed", [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("a", POINTS)
def test_coordinates_have_their_jacobian(a, signed, schools):
    density, _ = density_of(schools)
    term, point = FoldedTerm(0, 11.8, (1.0, 0.3), signed), np.array(a)
    state = density.state(folded=[term])

    def outward(v):
        row = np.append(v, 0.0)[None]
        return row[0, :3], density.unfold(state, row)

    x, log_slope = outward(point)
    steps = 1e-6 * np.maximum(np.abs(point), 1e-3)
    moved = [
        (outward(point + h * e)[0] - outward(point - h * e)[0]) / (2 * h) for h, e in zip(steps, np.eye(3), strict=True)
    ]
    if signed == (False, False):
        np.testing.assert_allclose(term.inward(x), point, atol=1e-8)
    assert np.log(abs(np.linalg.det(np.array(moved)))) == pytest.approx(log_slope, abs=1e-5)
    # The covariance matrix is that of the sheared effects.
    sds = np.exp(x[:2])
    s0, s1 = (abs(v) if s else np.exp(v) for v, s in zip(point[:2], signed, strict=True))
    sign = np.prod([np.sign(v) for v, s in zip(point[:2], signed, strict=True) if s])
    inner = np.array([[s0**2, sign * np.tanh(a[2]) * s0 * s1], [sign * np.tanh(a[2]) * s0 * s1, s1**2]])
    shear = np.array([[1.0, -11.8], [0.0, 1.0]])
    outer = shear @ inner @ shear.T
    np.testing.assert_allclose(np.diag(outer), sds**2, rtol=1e-10)
    assert outer[0, 1] == pytest.approx(np.tanh(x[2]) * sds.prod(), rel=1e-9)


def test_the_density_is_that_of_the_sampled_vector(schools):
    density, mode = density_of(schools)
    folded = fold(density, mode.x)
    assert folded.terms[0].signed == (False, True)
    assert folded.terms[0].shift == pytest.approx(schools.design.data["IQ"].mean())
    state = folded.state()
    for w in np.random.default_rng(1).normal(size=(6, 4)) * 1.5:
        value, slope = folded.evaluate_whitened(state, w)
        x = folded.outward(w)
        v = folded.centre + folded.spread @ w
        log_slope = density.unfold(state, v[None].copy())
        assert value == pytest.approx(density.value_and_gradient(x)[0] + log_slope, abs=1e-9)
        for i in range(4):
            h = 1e-5 * np.eye(4)[i]
            change = folded.evaluate_whitened(state, w + h)[0] - folded.evaluate_whitened(state, w - h)[0]
            assert slope[i] == pytest.approx(change / 2e-5, abs=1e-4, rel=1e-5)


def test_the_density_is_even_and_continuous_through_zero(schools):
    density, mode = density_of(schools)
    folded = fold(density, mode.x)
    state, v = density.state(folded=folded.terms), folded.centre.copy()
    for size in (0.3, 1e-3, 1e-6):
        v[1] = size
        here, slope = density.evaluate_whitened(state, v)
        mirrored = v * [1, -1, -1, 1]
        there, other = density.evaluate_whitened(state, mirrored)
        assert there == pytest.approx(here, abs=1e-9)
        np.testing.assert_allclose(other, slope * [1, -1, -1, 1], atol=1e-3)
    v[1] = 1e-6
    assert density.evaluate_whitened(state, v)[0] == pytest.approx(
        density.evaluate_whitened(state, v * [1, -1, 1, 1])[0], abs=1e-4
    )


def test_terms_far_from_zero_or_with_other_priors_are_left_alone(schools):
    sleep = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    density, mode = density_of(sleep)
    assert fold(density, mode.x) is None
    density, mode = density_of(blm.model("lang ~ IQ + (1 | class)", schools.design.data))
    assert fold(density, mode.x) is None
    density, mode = density_of(schools.with_priors(sd_class=blm.Prior("Gamma", alpha=2, beta=1)))
    assert fold(density, mode.x) is None


def test_a_slope_near_zero_on_a_predictor_far_from_zero_mixes(schools):
    post = schools.sample(seed=1, progress=False, method="nuts")
    diagnostics = post.diagnostics()
    assert diagnostics.min_ess_bulk > 2000
    assert diagnostics.max_rhat < 1.01
    assert diagnostics.divergences == 0


@pytest.mark.slow
def test_the_posterior_is_the_one_of_a_long_run_without_folding(schools, monkeypatch):
    short = schools.sample(2000, seed=1, progress=False, method="nuts")
    monkeypatch.setattr(marginal, "fold", lambda *_: None)
    long = schools.sample(20_000, tune=1000, seed=2, progress=False, method="nuts")
    a, b = (np.stack(list(post.parameters.values()), axis=-1) for post in (short, long))
    statistics = {
        "mean": (lambda d: d.mean(axis=(0, 1)), {"method": "mean"}),
        "sd": (lambda d: d.std(axis=(0, 1)), {"method": "sd"}),
        "5%": (lambda d: np.quantile(d, 0.05, axis=(0, 1)), {"method": "quantile", "prob": 0.05}),
        "95%": (lambda d: np.quantile(d, 0.95, axis=(0, 1)), {"method": "quantile", "prob": 0.95}),
    }
    for name, (statistic, options) in statistics.items():
        error = np.hypot(*(array_stats.mcse(d, chain_axis=0, draw_axis=1, **options) for d in (a, b)))
        z = (statistic(a) - statistic(b)) / error
        print(name, np.round(z, 2))
        assert np.abs(z).max() < 4, name
