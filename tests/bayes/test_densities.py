import numpy as np
import pytest
from scipy import integrate, stats

from bayeslmm.bayes.densities import log_density, log_sech2
from bayeslmm.bayes.priors import Prior

PROPER = [
    (Prior("Normal", mu=1, sigma=2), stats.norm(1, 2)),
    (Prior("StudentT", nu=3, mu=1, sigma=2), stats.t(3, 1, 2)),
    (Prior("Cauchy", alpha=1, beta=2), stats.cauchy(1, 2)),
    (Prior("Laplace", mu=1, b=2), stats.laplace(1, 2)),
    (Prior("HalfNormal", sigma=2), stats.halfnorm(0, 2)),
    (Prior("HalfCauchy", beta=2), stats.halfcauchy(0, 2)),
    (Prior("Exponential", scale=2), stats.expon(0, 2)),
    (Prior("Gamma", alpha=2, beta=3), stats.gamma(2, scale=1 / 3)),
    (Prior("Gamma", mu=2, sigma=1), stats.gamma(4, scale=1 / 2)),
    (Prior("InverseGamma", alpha=2, beta=3), stats.invgamma(2, scale=3)),
    (Prior("LogNormal", mu=1, sigma=0.5), stats.lognorm(0.5, scale=np.e)),
    (Prior("Uniform", lower=1, upper=4), stats.uniform(1, 3)),
]


@pytest.mark.parametrize(
    ("prior", "reference"), PROPER, ids=lambda value: str(value) if isinstance(value, Prior) else ""
)
def test_log_density_is_scipys(prior, reference):
    x = np.array([-1.0, 0.3, 1.7, 3.9, 40.0])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(prior.logpdf(x), reference.logpdf(x), rtol=1e-12)


@pytest.mark.parametrize(
    "prior",
    [Prior("HalfStudentT", nu=3, sigma=2), Prior("SqrtInverseGamma", alpha=2, beta=3)],
    ids=str,
)
def test_log_density_integrates_to_one(prior):
    total, _ = integrate.quad(lambda x: float(np.exp(prior.logpdf(x))), 0, np.inf)
    assert total == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize(
    "prior", [prior for prior, _ in PROPER] + [Prior("SqrtInverseGamma", alpha=2, beta=3)], ids=str
)
def test_derivative_is_the_slope(prior):
    from bayeslmm.bayes.priors import checked

    code, (a, b, c) = checked(prior, "x").coded
    for x in (1.3, 2.9):
        up, down = (log_density(code, a, b, c, x + step)[0] for step in (1e-6, -1e-6))
        assert log_density(code, a, b, c, x)[1] == pytest.approx((up - down) / 2e-6, rel=1e-7, abs=1e-8)


def test_improper_priors_are_flat_on_their_support():
    assert Prior("Flat").logpdf(1e6) == 0
    np.testing.assert_array_equal(Prior("HalfFlat").logpdf([-1.0, 2.0]), [-np.inf, 0.0])


def test_log_sech2_far_out():
    assert log_sech2(400.0) == pytest.approx(2 * np.log(2) - 800)
    assert log_sech2(0.3) == pytest.approx(np.log(1 - np.tanh(0.3) ** 2))
