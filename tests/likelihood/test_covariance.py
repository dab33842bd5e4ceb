"""Covariance structures: theta to Lambda and back, derivatives, bounds, order."""

import numpy as np
import pytest

from bayeslmm.likelihood.covariance import Covariance, Layout

STRUCTURES = [
    Covariance("us", 1),
    Covariance("us", 3),
    Covariance("diag", 3),
    Covariance("diag", 3, hom=True),
    Covariance("cs", 4),
    Covariance("cs", 4, hom=True),
    Covariance("ar1", 4),
    Covariance("ar1", 4, hom=True),
]
table = pytest.mark.parametrize("covariance", STRUCTURES, ids=str)


def some_theta(covariance, seed=0):
    rng = np.random.default_rng(seed)
    theta = rng.uniform(0.3, 2.0, covariance.n_theta)
    if covariance.kind in ("cs", "ar1"):
        theta[-1] = rng.uniform(-0.2, 0.8)
    return theta


@table
def test_derivative_equals_central_differences(covariance):
    theta = some_theta(covariance)
    differences = [
        (covariance.Lambda(theta + e) - covariance.Lambda(theta - e)) / 2e-6 for e in 1e-6 * np.eye(len(theta))
    ]
    np.testing.assert_allclose(covariance.dLambda(theta), differences, atol=1e-8)


@table
def test_sd_and_corr_go_back_to_theta(covariance):
    theta = some_theta(covariance)
    sd, corr = covariance.sd_corr(theta)
    np.testing.assert_allclose(covariance.theta_from(sd, corr), theta, rtol=1e-12)
    assert len(covariance.labels([f"e{i}" for i in range(covariance.k)])) == covariance.n_theta


@table
def test_lambda_is_lower_triangular_and_bounds_hold(covariance):
    theta = some_theta(covariance)
    assert not np.triu(covariance.Lambda(theta), 1).any()
    assert len(covariance.lower) == len(covariance.upper) == covariance.n_theta
    assert (covariance.lower <= theta).all()
    assert (theta <= covariance.upper).all()
    np.testing.assert_array_equal(covariance.Lambda(covariance.start()), np.eye(covariance.k))


def test_unstructured_theta_is_the_lower_triangle_by_column():
    expected = [[1.0, 0.0, 0.0], [2.0, 4.0, 0.0], [3.0, 5.0, 6.0]]
    np.testing.assert_array_equal(Covariance("us", 3).Lambda([1, 2, 3, 4, 5, 6]), expected)
    np.testing.assert_array_equal(Covariance("us", 2).lower, [0.0, -np.inf, 0.0])


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.6])
def test_structured_correlations_are_what_they_say(rho):
    _, cs = Covariance("cs", 4).sd_corr([1.0, 2.0, 3.0, 4.0, rho])
    np.testing.assert_allclose(cs, np.where(np.eye(4), 1.0, rho), atol=1e-14)
    _, ar1 = Covariance("ar1", 4, hom=True).sd_corr([2.0, rho])
    lag = np.abs(np.subtract.outer(range(4), range(4)))
    np.testing.assert_allclose(ar1, float(rho) ** lag, atol=1e-14)


def test_compound_symmetry_is_bounded_where_it_ends():
    covariance = Covariance("cs", 4)
    eigenvalues = np.linalg.eigvalsh(covariance.sd_corr([1, 1, 1, 1, covariance.lower[-1] + 1e-9])[1])
    assert eigenvalues.min() == pytest.approx(0.0, abs=1e-8)


def test_one_effect_has_no_correlation():
    assert Covariance("cs", 1) == Covariance("diag", 1)
    assert not Covariance("ar1", 1).is_correlated
    assert not Covariance("us", 1).is_correlated
    assert Covariance("us", 2).is_correlated


def test_zero_variance_has_no_correlation():
    sd, corr = Covariance("us", 2).sd_corr([0.0, 0.0, 1.0])
    np.testing.assert_array_equal(sd, [0.0, 1.0])
    assert np.isnan(corr[1, 0])
    np.testing.assert_array_equal(Covariance("us", 2).theta_from([0.0, 2.0], np.eye(2)), [0.0, 0.0, 2.0])


@pytest.mark.parametrize(("kind", "hom"), [("banded", False), ("us", True)])
def test_impossible_structures_are_refused(kind, hom):
    with pytest.raises(ValueError, match=r"kind must be one of|no homogeneous form"):
        Covariance(kind, 2, hom)


def test_layout_orders_theta_by_levels_and_templates_by_factor():
    layout = Layout(
        (Covariance("us", 1), Covariance("us", 2), Covariance("diag", 2), Covariance("us", 1)), (0, 1, 1, 2), (5, 40, 5)
    )
    assert layout.theta_slices == (slice(5, 6), slice(0, 3), slice(3, 5), slice(6, 7))
    assert layout.n_effects == (1, 4, 1)
    theta = np.arange(1.0, 8.0)
    first, second, third = layout.templates(theta)
    np.testing.assert_array_equal(first, [[6.0]])
    np.testing.assert_array_equal(second, [[1, 0, 0, 0], [2, 3, 0, 0], [0, 0, 4, 0], [0, 0, 0, 5]])
    np.testing.assert_array_equal(third, [[7.0]])
    np.testing.assert_array_equal(layout.gather(layout.split(theta)), theta)


def test_layout_pulls_a_gradient_back():
    layout = Layout((Covariance("cs", 3), Covariance("us", 2)), (0, 0), (4,))
    rng = np.random.default_rng(5)
    theta = np.array([1.2, 0.7, 0.9, 0.3, 1.0, -0.4, 0.6])
    weights = np.tril(rng.normal(size=(5, 5)))
    weights[3:, :3] = 0.0
    differences = [
        ((layout.templates(theta + e)[0] - layout.templates(theta - e)[0]) * weights).sum() / 2e-6
        for e in 1e-6 * np.eye(7)
    ]
    np.testing.assert_allclose(layout.pull(theta, weights.ravel()), differences, atol=1e-8)
