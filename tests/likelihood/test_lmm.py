"""The kernel against the dense witness: value, gradient, coefficients, effects, covariances, leverage, draws."""

import numpy as np
import pytest

from bayeslmm.errors import FitError
from bayeslmm.likelihood import dense, lmm
from bayeslmm.likelihood.covariance import Covariance, Layout
from bayeslmm.likelihood.crossproducts import cross_products
from bayeslmm.likelihood.lmm import LmmKernel, criterion, criterion_and_gradient, solve
from tests.likelihood.structures import TABLE, make

both = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
table = pytest.mark.parametrize("name", TABLE)


@table
@both
def test_criterion_beta_and_sigma_equal_the_dense_witness(name, reml):
    case = make(name)
    value, beta, sigma = dense.criterion(case.response, case.X, case.covariance(), reml)
    solution = solve(case.theta, case.kernel, reml)
    assert criterion(case.theta, case.kernel, reml) == pytest.approx(value, rel=1e-12)
    assert solution.criterion == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(solution.beta, beta, rtol=1e-10, atol=1e-12)
    assert solution.sigma == pytest.approx(sigma, rel=1e-11)


@table
@both
def test_gradient_equals_central_differences(name, reml):
    case = make(name)
    step = 1e-5
    differences = [
        (criterion(case.theta + e, case.kernel, reml) - criterion(case.theta - e, case.kernel, reml)) / (2 * step)
        for e in step * np.eye(len(case.theta))
    ]
    value, gradient = criterion_and_gradient(case.theta, case.kernel, reml)
    assert value == criterion(case.theta, case.kernel, reml)
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-6)


@table
def test_conditional_moments_equal_the_dense_witness(name):
    case = make(name)
    solution = solve(case.theta, case.kernel)
    precision = np.linalg.inv(case.covariance())
    rest = case.response - case.X @ solution.beta
    for f, Z in enumerate(case.dense_Z()):
        template = case.kernel.layout.templates(case.theta)[f]
        levels, k = case.terms[f][2], len(template)
        prior = np.kron(np.eye(levels), template @ template.T)
        modes = (prior @ Z.T @ precision @ rest).reshape(levels, k)
        covariance = prior - prior @ Z.T @ precision @ Z @ prior
        blocks = covariance.reshape(levels, k, levels, k)[np.arange(levels), :, np.arange(levels)]
        np.testing.assert_allclose(solution.b[f], modes, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(solution.conditional_cov(f), blocks, rtol=1e-9, atol=1e-11)


@table
def test_leverage_equals_the_dense_witness(name):
    case = make(name)
    precision = np.linalg.inv(case.covariance())
    information = case.X.T @ precision @ case.X
    projection = precision - precision @ case.X @ np.linalg.solve(information, case.X.T @ precision)
    noise = np.ones(len(case.y)) if case.weights is None else 1.0 / case.weights
    expected = 1.0 - noise * np.diag(projection)
    np.testing.assert_allclose(solve(case.theta, case.kernel).leverage(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["slope", "crossed slopes", "partly crossed", "weights"])
def test_penalised_residual_sum_of_squares_has_its_parts(name):
    case = make(name)
    solution = solve(case.theta, case.kernel)
    fitted = case.X @ solution.beta + sum(
        (Z * solution.b[f][codes]).sum(axis=1) for f, (Z, codes, _) in enumerate(case.terms)
    )
    weights = 1.0 if case.weights is None else case.weights
    assert solution.wrss == pytest.approx(float((weights * (case.response - fitted) ** 2).sum()), rel=1e-10)
    assert solution.ussq == pytest.approx(sum(float((u**2).sum()) for u in solution.u), rel=1e-12)
    information = case.X.T @ np.linalg.inv(case.covariance()) @ case.X
    np.testing.assert_allclose(solution.RX.T @ solution.RX, information, rtol=1e-9)
    np.testing.assert_allclose(solution.vcov, solution.sigma**2 * np.linalg.inv(information), rtol=1e-9)


@pytest.mark.parametrize("name", ["slope", "crossed slopes", "no fixed effects"])
def test_draws_have_the_conditional_moments(name):
    case = make(name)
    solution = solve(case.theta, case.kernel)
    beta, b = solution.draws(np.random.default_rng(2), 20_000, sigma=1.5)
    error = 1.5 / np.sqrt(20_000)
    root = np.linalg.inv(solution.RX.T @ solution.RX)
    assert np.abs((beta.mean(axis=0) - solution.beta) / np.sqrt(np.diag(root))).max(initial=0.0) < 4.5 * error
    spread = np.cov(beta.T).reshape(root.shape)
    np.testing.assert_allclose(spread, 1.5**2 * root, rtol=0.06, atol=0.06 * root.max(initial=0.0))
    precision = np.linalg.inv(case.covariance())
    for f, Z in enumerate(case.dense_Z()):
        template = case.kernel.layout.templates(case.theta)[f]
        prior = np.kron(np.eye(case.terms[f][2]), template @ template.T)
        conditional = prior - prior @ Z.T @ precision @ Z @ prior
        slope = prior @ Z.T @ precision @ case.X
        covariance = 1.5**2 * (conditional + slope @ root @ slope.T)
        draws = b[f].reshape(20_000, -1)
        deviation = np.sqrt(np.diag(covariance))
        assert np.abs((draws.mean(axis=0) - solution.b[f].ravel()) / deviation).max() < 4.5 / np.sqrt(20_000)
        np.testing.assert_allclose(draws.var(axis=0), deviation**2, rtol=0.06)


def test_draws_repeat_with_the_seed():
    solution = solve((case := make("crossed")).theta, case.kernel)
    first = solution.draws(np.random.default_rng(7), 3)
    second = solution.draws(np.random.default_rng(7), 3)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1][1], second[1][1])


@pytest.mark.parametrize("name", ["slope", "crossed slopes", "weights", "offset", "no fixed effects"])
def test_new_response_equals_a_new_kernel(name):
    case = make(name)
    y = case.y[::-1].copy() * 3.0 + 1.0
    again = LmmKernel(cross_products(y, case.X, case.terms, case.weights, case.offset), case.kernel.layout)
    refitted = case.kernel.with_response(y)
    assert criterion(case.theta, refitted) == pytest.approx(criterion(case.theta, again), rel=1e-13)
    np.testing.assert_allclose(solve(case.theta, refitted).b[0], solve(case.theta, again).b[0], rtol=1e-10)
    assert refitted.analysis is case.kernel.analysis


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_units_of_the_response_only_shift_the_criterion(factor):
    case = make("crossed slopes")
    other = case.kernel.with_response(case.y * factor)
    theta = [case.theta, case.theta * 0.7]
    shift = criterion(theta[0], other) - criterion(theta[0], case.kernel)
    assert criterion(theta[1], other) - criterion(theta[1], case.kernel) == pytest.approx(shift, abs=1e-8)
    np.testing.assert_allclose(
        criterion_and_gradient(theta[0], other)[1], criterion_and_gradient(theta[0], case.kernel)[1], rtol=1e-8
    )


def test_a_large_mean_costs_no_digits():
    case = make("slope")
    shifted = case.kernel.with_response(case.y + 1e7)
    assert criterion(case.theta, shifted) == pytest.approx(criterion(case.theta, case.kernel), abs=1e-5)
    X = case.X.copy()
    X[:, 1] += 2000.0
    moved = LmmKernel(cross_products(case.y, X, case.terms), case.kernel.layout)
    assert criterion(case.theta, moved) == pytest.approx(criterion(case.theta, case.kernel), abs=1e-8)


def test_variances_twelve_orders_apart_keep_value_and_gradient():
    case = make("crossed")
    theta = np.array([1e3, 1e-3])
    value, _, _ = dense.criterion(case.response, case.X, case.covariance(theta), True)
    got, gradient = criterion_and_gradient(theta, case.kernel)
    assert got == pytest.approx(value, rel=1e-9)
    assert np.isfinite(gradient).all()


def test_no_residual_variance_is_a_clear_error():
    codes = np.repeat(np.arange(4), 3).astype(np.int32)
    products = cross_products(np.full(12, 3.0), np.ones((12, 1)), [(np.ones((12, 1)), codes, 4)])
    kernel = LmmKernel(products, Layout((Covariance("us", 1),), (0,), (4,)))
    with pytest.raises(FitError, match="no residual variance"):
        solve([1.0], kernel)


def test_a_tail_that_cannot_fit_is_refused_with_its_size(monkeypatch):
    case = make("crossed")
    monkeypatch.setattr(lmm, "available_memory", lambda: 1000.0)
    with pytest.raises(FitError, match=r"needs .* GB .*\n.*dense block, \d+ x \d+"):
        LmmKernel(case.kernel.products, case.kernel.layout)


def test_storage_says_how_each_factor_is_kept():
    assert [block.kind for block in make("single").kernel.blocks] == ["diagonal"]
    assert [block.kind for block in make("slope").kernel.blocks] == ["block diagonal"]
    crossed = make("crossed").kernel
    assert [block.kind for block in crossed.blocks] == ["dense", "sparse"]
    assert sum(block.head + block.tail for block in crossed.blocks) == crossed.analysis.n_columns == 23


def test_theta_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="1 covariance parameters"):
        criterion([1.0, 2.0], make("single").kernel)
