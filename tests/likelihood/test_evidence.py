"""The evidence against the density of y with everything integrated out by dense matrices."""

import numpy as np
import pytest
from scipy import stats

from bayeslmm.likelihood.evidence import log_evidence
from tests.likelihood.structures import TABLE, make

table = pytest.mark.parametrize("name", TABLE)
SIGMA = 1.7


def prior_of(case, rng):
    p = case.X.shape[1]
    root = np.tril(rng.normal(size=(p, p))) + 2.0 * np.eye(p)
    return rng.normal(size=p), root @ root.T


def at(case, templates, sigma, prior):
    return log_evidence(templates, sigma, case.kernel, *prior)


@table
def test_value_and_moments_equal_the_dense_witness(name):
    case = make(name)
    mean, precision = prior_of(case, np.random.default_rng(3))
    covariance = SIGMA**2 * case.covariance()
    S = np.linalg.inv(precision)
    marginal = stats.multivariate_normal(case.X @ mean, covariance + case.X @ S @ case.X.T)
    evidence = at(case, case.kernel.layout.templates(case.theta), SIGMA, (mean, precision))
    assert evidence.value == pytest.approx(marginal.logpdf(case.response), rel=1e-10)
    information = np.linalg.solve(covariance, case.X)
    P = precision + case.X.T @ information
    np.testing.assert_allclose(evidence.covariance, np.linalg.inv(P), rtol=1e-9, atol=1e-12)
    expected = np.linalg.solve(P, precision @ mean + information.T @ case.response)
    np.testing.assert_allclose(evidence.mean, expected, rtol=1e-9, atol=1e-10)


@table
@pytest.mark.parametrize("flat", [False, True])
def test_gradient_equals_central_differences(name, flat):
    case = make(name)
    prior = (None, None) if flat else prior_of(case, np.random.default_rng(4))
    templates = [template.copy() for template in case.kernel.layout.templates(case.theta)]
    gradients, slope = at(case, templates, SIGMA, prior).gradient
    step = 1e-5
    high, low = (at(case, templates, SIGMA + sign * step, prior).value for sign in (1, -1))
    assert slope == pytest.approx((high - low) / (2 * step), rel=1e-6, abs=1e-6)
    for f, template in enumerate(templates):
        for i, j in zip(*np.tril_indices(len(template)), strict=True):
            values = []
            for sign in (1, -1):
                moved = [block.copy() for block in templates]
                moved[f][i, j] += sign * step
                values.append(at(case, moved, SIGMA, prior).value)
            assert gradients[f][i, j] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-6)


def test_flat_prior_is_the_limit_of_a_wide_one():
    case = make("crossed slopes")
    templates = case.kernel.layout.templates(case.theta)
    p, width = case.X.shape[1], 1e6
    wide = log_evidence(templates, SIGMA, case.kernel, np.zeros(p), np.eye(p) / width**2)
    shift = p * np.log(width * np.sqrt(2 * np.pi))
    assert log_evidence(templates, SIGMA, case.kernel).value == pytest.approx(wide.value + shift, rel=1e-9)


def test_draws_have_the_conditional_moments():
    case = make("crossed slopes")
    mean, precision = prior_of(case, np.random.default_rng(5))
    evidence = at(case, case.kernel.layout.templates(case.theta), SIGMA, (mean, precision))
    beta, effects = evidence.draws(np.random.default_rng(1), 20_000)
    deviation = np.sqrt(np.diag(evidence.covariance))
    assert np.abs((beta.mean(axis=0) - evidence.mean) / deviation).max() < 4.5 / np.sqrt(20_000)
    np.testing.assert_allclose(np.cov(beta.T), evidence.covariance, rtol=0.08, atol=0.03 * deviation.max() ** 2)
    V = SIGMA**2 * case.covariance()
    for f, Z in enumerate(case.dense_Z()):
        template = case.kernel.layout.templates(case.theta)[f]
        prior = SIGMA**2 * np.kron(np.eye(case.terms[f][2]), template @ template.T)
        expected = prior @ Z.T @ np.linalg.solve(V, case.response - case.X @ evidence.mean)
        draws = effects[f].reshape(20_000, -1)
        assert np.abs((draws.mean(axis=0) - expected) / draws.std(axis=0)).max() < 4.5 / np.sqrt(20_000)


@pytest.mark.parametrize("factor", [1e200, 1e300])
def test_overflow_is_minus_infinity(factor):
    case = make("crossed slopes")
    templates = [factor * template for template in case.kernel.layout.templates(case.theta)]
    assert log_evidence(templates, SIGMA, case.kernel).value == -np.inf
