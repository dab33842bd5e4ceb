"""The stand-in for a dear log density: its transformations, what it learns, and the posteriors drawn from it."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import bayeslmm as blm
from bayeslmm.bayes.laplace_nuts import draw_from_stand_in, find_laplace_mode, laplace_density
from bayeslmm.bayes.proposals import AxisDensity, Proposal
from bayeslmm.bayes.surrogate import Difference, fit_surrogate, normal_coordinates
from bayeslmm.errors import SamplingError

GRID = np.linspace(-4.0, 4.0, 9)


@pytest.fixture(scope="module")
def skewed():
    """log density -exp(w) + w: the logarithm of an exponential variable."""
    return AxisDensity.from_slopes(GRID, GRID - np.exp(GRID), 1.0 - np.exp(GRID))


def banana(w):
    """Two coordinates, the second normal about a bend of the first; values and gradients."""
    a, b = w.T
    apart = b - 0.4 * (a**2 - 1.0)
    value = -0.5 * a**2 - 0.5 * (apart / 0.8) ** 2
    return value, np.column_stack([-a + 0.8 * a * apart / 0.64, -apart / 0.64])


@pytest.fixture(scope="module")
def stand_in():
    axes = []
    for axis in range(2):
        points = np.zeros((13, 2))
        points[:, axis] = np.linspace(-6.0, 6.0, 13)
        value, slope = banana(points)
        axes.append((points[:, axis], value, slope[:, axis]))
    close = tuple(AxisDensity.from_slopes(*axis) for axis in axes)
    wide = tuple(AxisDensity.from_slopes(*axis, 0.5) for axis in axes)
    return fit_surrogate(Proposal(close, wide), banana, np.random.default_rng(1))


@pytest.mark.parametrize("w", [-7.0, -3.3, 0.2, 1.4, 2.5])
def test_the_distribution_of_an_axis_is_the_integral_of_its_density(skewed, w):
    def density(x):
        return float(np.exp(skewed.logpdf(np.array([x])))[0])

    below = (
        quad(density, -40.0, -4.0)[0]
        + sum(quad(density, *ends)[0] for ends in pairwise(np.unique(np.clip(skewed.knots, None, max(w, -4.0)))))
        if w > -4.0
        else quad(density, -40.0, w)[0]
    )
    point = np.array([w])
    assert skewed.cdf(point)[0] == pytest.approx(below, rel=1e-6)
    np.testing.assert_allclose(skewed.quantile(skewed.cdf(point)), point, rtol=1e-9)
    step = np.array([w - 1e-7, w + 1e-7])
    away = w + 1e-3
    assert skewed.slope(np.array([away]))[0] == pytest.approx(np.diff(skewed.logpdf(step + 1e-3))[0] / 2e-7, rel=1e-4)


def test_slices_are_standard_normal_in_their_coordinates(stand_in):
    proposal = stand_in.proposal
    w = np.column_stack([axis.draw(np.random.default_rng(i), 20_000) for i, axis in enumerate(proposal.close)])
    z = normal_coordinates(proposal, w)
    for column in z.T:
        np.testing.assert_allclose(np.quantile(column, [0.01, 0.2, 0.9]), norm.ppf([0.01, 0.2, 0.9]), atol=0.06)


def test_a_function_is_learned_from_values_and_gradients():
    def function(z):
        return np.sin(z[:, 0]) * z[:, 1] + 0.5 * z[:, 2] ** 2

    def slope(z):
        return np.column_stack([np.cos(z[:, 0]) * z[:, 1], np.sin(z[:, 0]), z[:, 2]])

    rng = np.random.default_rng(3)
    points, elsewhere = rng.normal(size=(60, 3)), 0.8 * rng.normal(size=(200, 3))
    learned = Difference.fit(points, function(points), slope(points), np.full(60, 1e-3))
    without = Difference.fit(points, function(points), np.zeros((60, 3)), np.full(60, 1e-3))
    error = np.sqrt(np.mean((learned(elsewhere) - function(elsewhere)) ** 2))
    assert error < 0.03
    assert np.sqrt(np.mean((without(elsewhere) - function(elsewhere)) ** 2)) > 5 * error


def test_draws_follow_the_density(stand_in):
    rng = np.random.default_rng(2)
    w = stand_in.draw(rng, 4, 5000).reshape(-1, 2)
    apart = banana(w)[0] - stand_in.logpdf(w)
    weights = np.exp(apart - apart.max())
    assert weights.sum() ** 2 / (weights**2).sum() / len(w) > 0.9
    assert stand_in.efficiency > 0.8
    bend = np.average(w[:, 1] * w[:, 0] ** 2, weights=weights)
    assert bend == pytest.approx(0.8, abs=0.08)
    np.testing.assert_allclose(np.average(w, axis=0, weights=weights), 0.0, atol=0.05)


def test_both_methods_have_the_same_posterior():
    model = blm.model("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"), family="binomial")
    settings = {"draws": 1500, "chains": 4, "progress": False, "engine": "laplace"}
    ours = model.sample(seed=1, method="proposals", **settings)
    nuts = model.sample(seed=2, method="nuts", **settings)
    assert (ours.run.method, nuts.run.method) == ("independent proposals", "NUTS")
    assert ours.run.pareto_k < 0.7
    for name, draws in ours.parameters.items():
        other = nuts.parameters[name]
        assert draws.mean() == pytest.approx(other.mean(), abs=0.12 * other.std()), name
        assert draws.std() == pytest.approx(other.std(), rel=0.1), name


def test_draws_do_not_depend_on_the_cores():
    model = blm.model(
        "count ~ 1 + (1 | spray)",
        blm.datasets.load("cbpp").rename(columns={"incidence": "count", "herd": "spray"}),
        family="poisson",
    )
    density = laplace_density(model.design, model.family, model.priors)
    mode = find_laplace_mode(density)
    one, two = (draw_from_stand_in(density, mode, draws=50, chains=2, seed=4, cores=cores) for cores in (1, 2))
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.log_weights, two.log_weights)


def test_an_unknown_method_is_refused():
    model = blm.model("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"), family="binomial")
    with pytest.raises(SamplingError, match="is not one of 'nuts', 'proposals'"):
        model.sample(method="hmc", draws=10, progress=False)


@pytest.mark.slow
def test_the_learned_stand_in_is_calibrated(monkeypatch):
    """Simulations small enough to repeat, forced onto the route that large data take by themselves."""
    monkeypatch.setattr("bayeslmm.bayes.laplace_nuts.SLOW_EVALUATION", 0.0)
    rng = np.random.default_rng(0)
    g, h = (axis.ravel() for axis in np.meshgrid(np.arange(20), np.arange(6)))
    frame = {
        "g": [f"g{i}" for i in g],
        "h": [f"h{i}" for i in h],
        "x": rng.normal(size=g.size).round(2),
        "n": np.full(g.size, 8),
        "k": rng.integers(0, 9, g.size),
    }
    priors = {
        "beta": blm.Prior("Normal", mu=0, sigma=1),
        "Intercept": blm.Prior("Normal", mu=0, sigma=1),
        "sd": blm.Prior("HalfNormal", sigma=1),
    }
    model = blm.model("cbind(k, n - k) ~ x + (x | g) + (1 | h)", frame, family="binomial", priors=priors)
    assert model.sample(100, chains=2, seed=1, progress=False, engine="laplace").run.method == "independent proposals"
    result = blm.sbc(model, 100, seed=1, engine="laplace")
    table = result.uniformity(level=1 - 0.05 / result.ranks.shape[1])
    print(f"\n{table.to_string()}\nPareto k: {np.quantile(result.pareto_k, [0.5, 0.9, 1.0]).round(2)}")
    assert table["p"].min() > 0.05 / result.ranks.shape[1], str(result)
    assert table["inside"].all(), str(result)
