"""The compiled twin against the numpy table (values) and against central differences (derivatives)."""

import numba
import numpy as np
import pytest
from scipy import special, stats

from bayeslmm.families import FAMILIES, as_family
from bayeslmm.likelihood.families_jit import (
    FAMILY_CODES,
    LINK_CODES,
    all_terms,
    erfcx,
    likelihood_constant,
    polygamma_012,
)

compiled_erfcx = numba.njit(lambda x: erfcx(x))
compiled_polygamma = numba.njit(lambda x: polygamma_012(x))
SAFE_ETA = {
    "identity": [0.2, 0.5, 0.8],
    "log": [-2.0, -1.0, -0.2],
    "inverse": [0.3, 1.0, 2.5],
    "inverse_squared": [0.3, 1.0, 2.5],
    "sqrt": [0.4, 1.0, 2.0],
}
RESPONSES = {
    "bernoulli": [0.0, 1.0, 1.0],
    "binomial": [0.25, 0.5, 1.0],
    "poisson": [0.0, 2.0, 90.0],
    "gamma": [0.3, 1.0, 4.0],
    "inverse_gaussian": [0.3, 1.0, 4.0],
    "negativebinomial": [0.0, 2.0, 90.0],
    "beta": [0.1, 0.5, 0.9],
    "beta_binomial": [0.25, 0.5, 1.0],
    "cumulative": [0.0, 1.0, 2.0],
    "gaussian": [-1.0, 0.5, 2.0],
}
PAIRS = [(name, link) for name in FAMILY_CODES for link in FAMILIES[name].links]


def rows(name):
    y = np.array(RESPONSES[name])
    size = np.full(3, 8.0) if name in ("binomial", "beta_binomial") else np.ones(3)
    extra = {"gamma": np.log, "inverse_gaussian": np.reciprocal, "gaussian": np.square}.get(name, np.zeros_like)(y)
    weight = size.copy() if name == "binomial" else np.array([1.0, 2.0, 0.5])
    aux = {"cumulative": np.array([-0.7, 0.4])}.get(name, np.array([0.3]))
    return y, size, extra, weight, aux


def terms(name, link, eta, aux=None):
    y, size, extra, weight, default = rows(name)
    out = np.empty((3, 10))
    aux = default if aux is None else aux
    all_terms(FAMILY_CODES[name], LINK_CODES[link], y, size, extra, weight, np.asarray(eta), aux, out)
    return out


@pytest.mark.parametrize(("name", "link"), PAIRS)
def test_derivatives_in_eta_agree_with_differences(name, link):
    eta = np.array(SAFE_ETA.get(link, [-2.5, 0.3, 1.7]))
    here, h = terms(name, link, eta), 1e-5
    up, down = terms(name, link, eta + h), terms(name, link, eta - h)
    slope = (up - down) / (2 * h)
    for order, sign in ((1, 1.0), (2, -1.0), (3, 1.0)):
        np.testing.assert_allclose(here[:, order], sign * slope[:, order - 1], rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize(("name", "link"), [(n, k) for n, k in PAIRS if FAMILIES[n].parameter])
def test_derivatives_in_the_own_parameter_agree_with_differences(name, link):
    eta = np.array(SAFE_ETA.get(link, [-2.5, 0.3, 1.7]))
    y, _, _, _, aux = rows(name)
    here, h = terms(name, link, eta), 1e-5
    for position in range(len(aux)):
        step = h * (np.arange(len(aux)) == position)
        slope = (terms(name, link, eta, aux + step) - terms(name, link, eta, aux - step))[:, :3] / (2 * h)
        if name != "cumulative":
            np.testing.assert_allclose(here[:, 4:7], slope, rtol=2e-6, atol=2e-7)
            continue
        np.testing.assert_allclose(here[y == position, 4:7], slope[y == position], rtol=2e-6, atol=2e-7)
        np.testing.assert_allclose(here[y == position + 1, 7:10], slope[y == position + 1], rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(("name", "link"), [(n, k) for n, k in PAIRS if n != "cumulative"])
def test_values_agree_with_the_numpy_table(name, link):
    eta = np.array(SAFE_ETA.get(link, [-2.5, 0.3, 1.7]))
    y, size, _, weight, aux = rows(name)
    family = as_family(name, link)
    phi = np.exp(aux[0])
    trials = size if name in ("binomial", "beta_binomial") else None
    own = np.ones(3) if name == "binomial" else weight
    expected = np.sum(own * family.loglik(y, family.inverse_link(eta), phi, size))
    got = terms(name, link, eta)[:, 0].sum() + likelihood_constant(name, y, trials, own)
    assert got == pytest.approx(expected, rel=1e-12)


SCIPY = [
    ("poisson", 1.0, lambda y, mu, phi: stats.poisson.logpmf(y, mu)),
    ("gamma", 2.5, lambda y, mu, phi: stats.gamma.logpdf(y, phi, scale=mu / phi)),
    ("inverse_gaussian", 2.5, lambda y, mu, phi: stats.invgauss.logpdf(y, mu / phi, scale=phi)),
    ("negativebinomial", 2.5, lambda y, mu, phi: stats.nbinom.logpmf(y, phi, phi / (phi + mu))),
    ("beta", 2.5, lambda y, mu, phi: stats.beta.logpdf(y, mu * phi, (1 - mu) * phi)),
    ("binomial", 1.0, lambda y, mu, phi: stats.binom.logpmf(8 * y, 8, mu)),
    ("beta_binomial", 2.5, lambda y, mu, phi: stats.betabinom.logpmf(8 * y, 8, mu * phi, (1 - mu) * phi)),
    ("gaussian", 2.5, lambda y, mu, phi: stats.norm.logpdf(y, mu, phi)),
]


@pytest.mark.parametrize(("name", "phi", "expected"), SCIPY, ids=[row[0] for row in SCIPY])
def test_the_numpy_table_agrees_with_scipy(name, phi, expected):
    y, mu = np.array(RESPONSES[name]), np.array([0.2, 0.5, 0.7])
    size = 8.0 if "binomial" in name and not name.startswith("neg") else 1.0
    np.testing.assert_allclose(as_family(name).loglik(y, mu, phi, size), expected(y, mu, phi), rtol=1e-10)


@pytest.mark.parametrize("name", [n for n in FAMILIES if FAMILIES[n].draw is not None])
def test_draws_have_the_mean_and_variance_of_the_table(name):
    family = as_family(name)
    mu, phi, size = np.full(200_000, 0.4), 3.0, 8.0 if name in ("binomial", "beta_binomial") else 1.0
    draws = family.draw(np.random.default_rng(1), mu, phi, size)
    variance = float(family.variance(mu[0], phi, size))
    assert abs(draws.mean() - 0.4) < 5 * np.sqrt(variance / len(mu))
    assert draws.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("name", [n for n in FAMILIES if FAMILIES[n].deviance is not None])
def test_deviance_is_zero_at_the_response_and_positive_elsewhere(name):
    family = as_family(name)
    y = np.array([0.25, 0.5])
    np.testing.assert_allclose(family.deviance(y, y, 2.0, 8.0), 0.0, atol=1e-9)
    assert np.all(family.deviance(y, np.array([0.5, 0.25]), 2.0, 8.0) > 0) or name == "beta"


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
@pytest.mark.parametrize("eta", [-35.0, -8.0, 8.0, 30.0])
def test_binary_tails_stay_finite(link, eta):
    out = np.empty((2, 10))
    one = np.ones(2)
    all_terms(0, LINK_CODES[link], np.array([0.0, 1.0]), one, 0 * one, one, np.full(2, eta), np.zeros(0), out)
    if not (link == "cloglog" and eta == 30.0):
        assert np.isfinite(out).all()
    assert np.isfinite(out[1, :2]).all()


def test_special_functions_agree_with_scipy():
    for x in (-3.0, 0.0, 2.0, 5.9, 6.1, 20.0, 300.0):
        assert compiled_erfcx(x) == pytest.approx(special.erfcx(x), rel=2e-14)
    for x in (1e-3, 0.3, 1.0, 7.7, 11.9, 12.1, 1e4):
        expected = [special.digamma(x), special.polygamma(1, x), special.polygamma(2, x)]
        np.testing.assert_allclose(compiled_polygamma(x), expected, rtol=1e-12)


def test_negative_binomial_has_the_poisson_limit():
    huge = terms("negativebinomial", "log", [0.1, 1.0, 4.0], np.array([np.log(1e9)]))
    limit = terms("poisson", "log", [0.1, 1.0, 4.0])
    np.testing.assert_allclose(huge[:, :4], limit[:, :4], rtol=1e-5)
