"""Folded coordinates: the same posterior density, smooth through an SD of zero, and more effective draws."""

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats

import bayeslmm as blm
from bayeslmm.bayes import marginal
from bayeslmm.bayes.folded import fold
from bayeslmm.bayes.folding import Folds
from bayeslmm.bayes.logposterior import log_posterior_of
from bayeslmm.bayes.marginal import find_mode

TEXT = "lang ~ IQ + GS + SES + COMB + (IQ | class)"


def density_of(model):
    density = log_posterior_of(model.design, model.priors, model.kernel)
    return density, find_mode(density)


@pytest.fixture(scope="module")
def schools():
    return blm.model(TEXT, blm.datasets.load("nlschools"))


def simulated(levels, rows, sd, seed=3):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=levels * rows) + 5
    effects = sd * rng.normal(size=(2, levels))
    y = effects[0][g] + effects[1][g] * x + rng.normal(size=levels * rows)
    return pd.DataFrame({"y": y, "x": x, "g": [f"level {i}" for i in g]})


POINTS = [(1.0, 0.4, -0.5), (1.0, 1e-4, 0.3), (0.8, -0.3, 1.5), (2.0, 0.05, -4.0), (-1.5, 0.2, 0.0)]


def unfolded(density, folds, v):
    points = v[None].copy()
    log_slope = density.unfold(density.state(folds=folds), points)
    return points[0], log_slope


def numeric_log_slope(density, folds, v):
    steps = 1e-6 * np.maximum(np.abs(v), 1e-3)
    moved = [
        (unfolded(density, folds, v + h * e)[0] - unfolded(density, folds, v - h * e)[0]) / (2 * h)
        for h, e in zip(steps, np.eye(len(v)), strict=True)
    ]
    return np.log(abs(np.linalg.det(np.array(moved))))


@pytest.mark.parametrize("signed", [(), (1,), (0, 1)])
@pytest.mark.parametrize("a", POINTS)
def test_coordinates_have_their_jacobian(a, signed, schools):
    density, point = density_of(schools)[0], np.array([*a, 0.5])
    folds = Folds.of(dict.fromkeys(signed, 0.7), [(2, 1, 0)], {0: 11.8})
    x, log_slope = unfolded(density, folds, point)
    assert numeric_log_slope(density, folds, point) == pytest.approx(log_slope, abs=1e-5)
    positive = np.prod([1.0, *np.sign(point[list(signed)])])
    mirrored = np.where(np.isin(range(4), signed), np.abs(point), point) * [1, 1, positive, 1]
    np.testing.assert_allclose(folds.inward(x), mirrored, rtol=1e-6, atol=1e-9)
    # The covariance matrix is that of the sheared effects.
    sds = np.exp(x[:2])
    s0, s1 = (0.7 * np.sinh(v) if i in signed else np.exp(v) for i, v in enumerate(point[:2]))
    inner = np.array([[s0**2, np.tanh(a[2]) * s0 * s1], [np.tanh(a[2]) * s0 * s1, s1**2]])
    shear = np.array([[1.0, -11.8], [0.0, 1.0]])
    outer = shear @ inner @ shear.T
    np.testing.assert_allclose(np.diag(outer), sds**2, rtol=1e-10)
    assert outer[0, 1] == pytest.approx(np.tanh(x[2]) * sds.prod(), rel=1e-9)


def test_a_sign_of_an_sd_is_a_sign_of_its_correlations():
    """Partial correlations of three effects: the covariance matrix is diag(a) C diag(a), whatever the signs in a."""
    density, _ = density_of(blm.model("y ~ x + (x + I(x**2) | g)", simulated(12, 6, 0.0)))
    folds = Folds.of({0: 1.0, 1: 2.0, 2: 0.5}, [(3, 1, 0), (4, 2, 0), (5, 2, 1)])
    v = np.array([0.6, -0.9, -0.4, 0.3, -0.8, 0.5, 0.1])
    x, log_slope = unfolded(density, folds, v)
    assert numeric_log_slope(density, folds, v) == pytest.approx(log_slope, abs=1e-6)

    def covariance(sd, z):
        root, partial = np.eye(3), iter(np.tanh(z))
        for i in range(3):
            for j in range(i):
                root[i, j] = next(partial) * root[i, i]
                root[i, i] = np.sqrt(root[i, i] ** 2 - root[i, j] ** 2)
        return np.outer(sd, sd) * (root @ root.T)

    signed = np.array([1.0, 2.0, 0.5]) * np.sinh(v[:3])
    np.testing.assert_allclose(covariance(np.exp(x[:3]), x[3:6]), covariance(signed, v[3:6]), rtol=1e-12)


def test_the_density_is_that_of_the_sampled_vector(schools):
    density, mode = density_of(schools)
    folded = fold(density, mode.x)
    assert folded.folds.signed.tolist() == [1]
    assert folded.folds.shift.tolist() == pytest.approx([schools.design.data["IQ"].mean()])
    state = folded.state()
    for w in np.random.default_rng(1).normal(size=(6, 4)) * 1.5:
        value, slope = folded.evaluate_whitened(state, w)
        x = folded.outward(w)
        log_slope = unfolded(density, folded.folds, folded.centre + folded.spread @ w)[1]
        assert value == pytest.approx(density.value_and_gradient(x)[0] + log_slope, abs=1e-9)
        for i in range(4):
            h = 1e-5 * np.eye(4)[i]
            change = folded.evaluate_whitened(state, w + h)[0] - folded.evaluate_whitened(state, w - h)[0]
            assert slope[i] == pytest.approx(change / 2e-5, abs=1e-4, rel=1e-5)


def test_the_density_is_even_and_continuous_through_zero(schools):
    density, mode = density_of(schools)
    folded = fold(density, mode.x)
    state, v = density.state(folds=folded.folds), folded.centre.copy()
    for size in (0.3, 1e-3, 1e-6):
        v[1] = size
        here, slope = density.evaluate_whitened(state, v)
        mirrored = v * [1, -1, -1, 1]
        there, other = density.evaluate_whitened(state, mirrored)
        assert there == pytest.approx(here, abs=1e-9)
        np.testing.assert_allclose(other, slope * [1, -1, -1, 1], atol=1e-3)
    v[1] = 1e-7
    assert density.evaluate_whitened(state, v)[0] == pytest.approx(
        density.evaluate_whitened(state, v * [1, -1, 1, 1])[0], abs=1e-4
    )


@pytest.mark.parametrize(
    ("text", "signed", "centred"),
    [
        ("y ~ x + (1 | g)", [0], []),
        ("y ~ x + (x || g)", [0, 1], []),
        ("y ~ x + (x + I(x**2) | g)", [0, 1, 2], []),
        ("y ~ x + (x | g)", [0, 1], []),
    ],
)
def test_any_sd_near_zero_gets_a_sign(text, signed, centred):
    """Also a lone intercept's; where an intercept's SD as written may be zero its term is not centred."""
    model = blm.model(text, simulated(12, 6, 0.0))
    density, mode = density_of(model)
    folded = fold(density, mode.x)
    state = folded.state()
    assert folded.folds.signed.tolist() == signed
    assert folded.folds.centred.tolist() == centred
    for w in np.random.default_rng(2).normal(size=(4, density.size)):
        value, slope = folded.evaluate_whitened(state, w)
        log_slope = unfolded(density, folded.folds, folded.centre + folded.spread @ w)[1]
        assert value == pytest.approx(density.value_and_gradient(folded.outward(w))[0] + log_slope, abs=1e-9)
        for i in range(density.size):
            h = 1e-5 * np.eye(density.size)[i]
            change = folded.evaluate_whitened(state, w + h)[0] - folded.evaluate_whitened(state, w - h)[0]
            assert slope[i] == pytest.approx(change / 2e-5, abs=1e-4, rel=1e-4)


def test_terms_far_from_zero_or_with_other_priors_are_left_alone(schools):
    sleep = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    density, mode = density_of(sleep)
    assert fold(density, mode.x) is None
    density, mode = density_of(blm.model("lang ~ IQ + (1 | class)", schools.design.data))
    assert fold(density, mode.x) is None
    density, mode = density_of(schools.with_priors(sd_class=blm.Prior("Gamma", alpha=2, beta=1)))
    assert fold(density, mode.x) is None


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("log_radon ~ floor + log_uranium + (1 | county)", blm.datasets.load("radon")),
        ("y ~ x + (1 | g)", simulated(60, 5, 0.0)),
        ("y ~ x + (x | g)", simulated(10, 10, 0.3)),
    ],
    ids=["radon", "no variance", "slopes"],
)
def test_every_parameter_of_a_model_near_its_boundary_mixes(text, data):
    diagnostics = blm.model(text, data).sample(seed=1, progress=False, method="nuts").diagnostics()
    assert diagnostics.min_ess_bulk > 2000
    assert diagnostics.max_rhat < 1.01
    assert diagnostics.divergences == 0


def test_a_slope_near_zero_on_a_predictor_far_from_zero_mixes(schools):
    post = schools.sample(seed=1, progress=False, method="nuts")
    diagnostics = post.diagnostics()
    assert diagnostics.min_ess_bulk > 2000
    assert diagnostics.max_rhat < 1.01
    assert diagnostics.divergences == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "data"),
    [
        (TEXT, blm.datasets.load("nlschools")),
        ("log_radon ~ floor + log_uranium + (1 | county)", blm.datasets.load("radon")),
        ("y ~ x + (x | g)", simulated(10, 10, 0.3)),
        ("y ~ x + (x || g)", simulated(12, 6, 0.0)),
    ],
    ids=["nlschools", "radon", "slopes", "independent"],
)
def test_the_posterior_is_the_one_of_a_long_run_without_folding(text, data, monkeypatch):
    model = blm.model(text, data)
    short = model.sample(2000, seed=1, progress=False, method="nuts")
    monkeypatch.setattr(marginal, "fold", lambda *_: None)
    long = model.sample(20_000, tune=1000, seed=2, progress=False, method="nuts")
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
