"""Log-likelihood of one row and its derivatives in the linear predictor, compiled.

`row_terms` is the twin of `bayeslmm.families` for the inner loops: three derivatives in eta (the third enters the
gradient of the Laplace approximation through its log determinant) and those in the family's own parameter. Binary
and ordered families work on log F(eta) and log(1 - F(eta)), so that nothing is lost in the tails; the others go through
the mean by the chain rule.

The family's own parameter enters as its logarithm (shape, size, precision, residual SD), the thresholds of an ordered
family as they are. Terms that depend neither on eta nor on that parameter are left to `likelihood_constant`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood._compiled import compiled, internal

FAMILY_CODES = {
    "bernoulli": 0,
    "binomial": 0,
    "poisson": 1,
    "gamma": 2,
    "inverse_gaussian": 3,
    "negativebinomial": 4,
    "beta": 5,
    "beta_binomial": 6,
    "cumulative": 7,
    "gaussian": 8,
}
LINK_CODES = {
    "identity": 0,
    "log": 1,
    "logit": 2,
    "probit": 3,
    "cloglog": 4,
    "cauchit": 5,
    "inverse": 6,
    "sqrt": 7,
    "inverse_squared": 8,
}
_BINOMIAL, _POISSON, _GAMMA, _INVERSE_GAUSSIAN, _NEGBIN, _BETA, _BETA_BINOMIAL, _CUMULATIVE, _GAUSSIAN = range(9)
_IDENTITY, _LOG, _LOGIT, _PROBIT, _CLOGLOG, _CAUCHIT, _INVERSE, _SQRT, _INVERSE_SQUARED = range(9)

_ROOT_2 = math.sqrt(2.0)
_ROOT_PI = math.sqrt(math.pi)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_NAN = math.nan
_INF = math.inf


@internal
def erfcx(x):  # type: ignore[no-untyped-def]
    """Return exp(x²) erfc(x); by its continued fraction where erfc underflows."""
    if x < 6.0:
        return math.exp(x * x) * math.erfc(x)
    tail = 0.0
    for j in range(24, 0, -1):
        tail = 0.5 * j / (x + tail)
    return 1.0 / (_ROOT_PI * (x + tail))


@internal
def polygamma_012(x):  # type: ignore[no-untyped-def]
    """Return digamma, trigamma and tetragamma of x > 0: recurrence up to 12, then the asymptotic series."""
    first, second, third = 0.0, 0.0, 0.0
    while x < 12.0:
        inverse = 1.0 / x
        first -= inverse
        second += inverse * inverse
        third -= 2.0 * inverse * inverse * inverse
        x += 1.0
    i = 1.0 / x
    s = i * i
    first += math.log(x) - 0.5 * i - s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s * (1 / 132)))))
    second += i * (1 + i * (0.5 + i * (1 / 6 - s * (1 / 30 - s * (1 / 42 - s * (1 / 30 - s * (5 / 66)))))))
    third -= s * (1 + i * (1 + i * (0.5 - s * (1 / 6 - s * (1 / 6 - s * (3 / 10 - s * (5 / 6)))))))
    return first, second, third


@internal
def log_cdf(link, x):  # type: ignore[no-untyped-def]
    """Return log F(x) and its first three derivatives."""
    if link == _LOGIT:
        if x > 0:
            e = math.exp(-x)
            value, p = -math.log1p(e), 1.0 / (1.0 + e)
            q = e * p
        else:
            e = math.exp(x)
            value, q = x - math.log1p(e), 1.0 / (1.0 + e)
            p = e * q
        return value, q, -p * q, p * q * (p - q)
    if link == _PROBIT:
        if x < 0:
            tail = erfcx(-x / _ROOT_2)
            value, r = math.log(0.5 * tail) - 0.5 * x * x, math.sqrt(2.0 / math.pi) / tail
        else:
            beyond = 0.5 * math.erfc(x / _ROOT_2)
            value, r = math.log1p(-beyond), math.exp(-0.5 * x * x - _HALF_LOG_2PI) / (1.0 - beyond)
        second = -r * (x + r)
        return value, r, second, -second * (x + r) - r * (1.0 + second)
    if link == _CLOGLOG:
        e = math.exp(x)
        r = e / math.expm1(e) if e > 0 else 1.0
        value = math.log(-math.expm1(-e)) if e > 1e-300 else x
        inner = 1.0 - e - r
        second = r * inner
        return value, r, second, second * inner - r * (e + second)
    square = 1.0 + x * x
    cdf = math.atan2(1.0, -x) / math.pi
    r = 1.0 / (math.pi * square * cdf)
    slope = -2.0 * x / square
    second = r * (slope - r)
    curve = 2.0 * (x * x - 1.0) / (square * square)
    return math.log(cdf), r, second, second * (slope - r) + r * (curve - second)


@internal
def log_survival(link, x):  # type: ignore[no-untyped-def]
    """Return log(1 - F(x)) and its first three derivatives."""
    if link == _CLOGLOG:
        e = math.exp(x)
        return -e, -e, -e, -e
    value, first, second, third = log_cdf(link, -x)
    return value, -first, second, -third


@internal
def log_density(link, x):  # type: ignore[no-untyped-def]
    """Return log f(x), f'/f and its derivative, for f the density of F."""
    if link == _LOGIT:
        p = 1.0 / (1.0 + math.exp(-abs(x)))
        q = math.exp(-abs(x)) * p
        return -abs(x) + 2.0 * math.log(p), (q - p) if x > 0 else (p - q), -2.0 * p * q
    if link == _PROBIT:
        return -0.5 * x * x - _HALF_LOG_2PI, -x, -1.0
    if link == _CLOGLOG:
        e = math.exp(x)
        return x - e, 1.0 - e, -e
    square = 1.0 + x * x
    return -math.log(math.pi * square), -2.0 * x / square, 2.0 * (x * x - 1.0) / (square * square)


@internal
def inverse_link(link, x):  # type: ignore[no-untyped-def]
    """Return mu(eta) and its first three derivatives."""
    if link == _IDENTITY:
        return x, 1.0, 0.0, 0.0
    if link == _LOG:
        e = math.exp(x)
        return e, e, e, e
    if link == _INVERSE:
        i = 1.0 / x
        return i, -i * i, 2.0 * i**3, -6.0 * i**4
    if link == _SQRT:
        return x * x, 2.0 * x, 2.0, 0.0
    if link == _INVERSE_SQUARED:
        if x <= 0:
            return _NAN, _NAN, _NAN, _NAN
        mu = 1.0 / math.sqrt(x)
        return mu, -0.5 * mu / x, 0.75 * mu / (x * x), -1.875 * mu / (x * x * x)
    if link == _LOGIT:
        p = 1.0 / (1.0 + math.exp(-x)) if x > 0 else math.exp(x) / (1.0 + math.exp(x))
        v = p * (1.0 - p)
        return p, v, v * (1.0 - 2.0 * p), v * (1.0 - 6.0 * v)
    if link == _PROBIT:
        f = math.exp(-0.5 * x * x - _HALF_LOG_2PI)
        return 0.5 * math.erfc(-x / _ROOT_2), f, -x * f, (x * x - 1.0) * f
    if link == _CLOGLOG:
        e = math.exp(x)
        f = math.exp(x - e)
        return -math.expm1(-e), f, f * (1.0 - e), f * ((1.0 - e) ** 2 - e)
    square = 1.0 + x * x
    f = 1.0 / (math.pi * square)
    return math.atan2(1.0, -x) / math.pi, f, -2.0 * x * f / square, (6.0 * x * x - 2.0) * f / (square * square)


@internal
def binomial_mean_terms(y, mu):  # type: ignore[no-untyped-def]
    """Return the log-likelihood of a proportion per trial and three derivatives in the mean."""
    if mu <= 0.0 or mu >= 1.0:
        return -_INF, _NAN, _NAN, _NAN
    value, first, second, third = 0.0, 0.0, 0.0, 0.0
    if y > 0:
        value, first = y * math.log(mu), y / mu
        second, third = -y / mu**2, 2.0 * y / mu**3
    if y < 1:
        rest, other = 1.0 - y, 1.0 - mu
        value += rest * math.log1p(-mu)
        first -= rest / other
        second -= rest / other**2
        third -= 2.0 * rest / other**3
    return value, first, second, third


@internal
def negative_binomial_value(y, mu, k):  # type: ignore[no-untyped-def]
    """Return the log-likelihood without log y!, exact also when the size k is huge (the Poisson limit)."""
    if y < 64:
        rising = 0.0
        for j in range(1, int(y)):
            rising += math.log1p(j / k)
    else:
        rising = math.lgamma(y + k) - math.lgamma(k) - y * math.log(k)
    return rising + (y * math.log(mu) if y > 0 else 0.0) - (y + k) * math.log1p(mu / k)


@internal
def mean_terms(family, y, size, extra, mu, phi):  # type: ignore[no-untyped-def]
    """Return the log-likelihood, three derivatives in mu, and those of (value, first, second) in log phi."""
    if family == _BINOMIAL:
        value, first, second, third = binomial_mean_terms(y, mu)
        return value, first, second, third, 0.0, 0.0, 0.0
    if family == _GAUSSIAN:
        precision = 1.0 / (phi * phi)
        square = extra - 2.0 * y * mu + mu * mu
        first = (y - mu) * precision
        value = -_HALF_LOG_2PI - math.log(phi) - 0.5 * square * precision
        return value, first, -precision, 0.0, square * precision - 1.0, -2.0 * first, 2.0 * precision
    if mu <= 0.0:
        return -_INF, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN
    i = 1.0 / mu
    if family == _POISSON:
        value = (y * math.log(mu) if y > 0 else 0.0) - mu
        return value, y * i - 1.0, -y * i * i, 2.0 * y * i**3, 0.0, 0.0, 0.0
    if family == _GAMMA:
        unit = extra - math.log(mu) - y * i
        first, second, third = (
            phi * i * (y * i - 1.0),
            phi * i * i * (1.0 - 2.0 * y * i),
            phi * i**3 * (6.0 * y * i - 2.0),
        )
        value = phi * (math.log(phi) + unit) - math.lgamma(phi) - extra
        digamma = polygamma_012(phi)[0]
        return value, first, second, third, phi * (math.log(phi) + 1.0 + unit - digamma), first, second
    if family == _INVERSE_GAUSSIAN:
        unit = 0.5 * y * i * i - i + 0.5 * extra
        value = 0.5 * math.log(phi) - _HALF_LOG_2PI - phi * unit
        first = phi * (y * i**3 - i * i)
        second = phi * (2.0 * i**3 - 3.0 * y * i**4)
        third = phi * (12.0 * y * i**5 - 6.0 * i**4)
        return value, first, second, third, 0.5 - phi * unit, first, second
    if family == _NEGBIN:
        total, joint = y + phi, 1.0 / (mu + phi)
        value = negative_binomial_value(y, mu, phi)
        first = y * i - total * joint
        second = -y * i * i + total * joint**2
        third = 2.0 * y * i**3 - 2.0 * total * joint**3
        if y < 64:
            rise = 0.0
            for j in range(1, int(y)):
                rise -= j / (phi + j)
        else:
            rise = phi * (polygamma_012(total)[0] - polygamma_012(phi)[0]) - y
        slope = rise - phi * math.log1p(mu / phi) + total * mu * joint
        return (
            value,
            first,
            second,
            third,
            slope,
            phi * (y - mu) * joint**2,
            phi * joint**2 * (1.0 - 2.0 * total * joint),
        )
    if mu >= 1.0:
        return -_INF, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN
    a, b = mu * phi, (1.0 - mu) * phi
    a0, a1, a2 = polygamma_012(a)
    b0, b1, b2 = polygamma_012(b)
    nu = 1.0 - mu
    if family == _BETA:
        log_y, log_rest = math.log(y), math.log1p(-y)
        value = math.lgamma(phi) - math.lgamma(a) - math.lgamma(b) + (a - 1.0) * log_y + (b - 1.0) * log_rest
        inner = log_y - log_rest - a0 + b0
        slope = polygamma_012(phi)[0] - mu * a0 - nu * b0 + mu * log_y + nu * log_rest
        curve = -a1 - b1
        return (
            value,
            phi * inner,
            phi**2 * curve,
            phi**3 * (b2 - a2),
            phi * slope,
            phi * (inner + phi * (nu * b1 - mu * a1)),
            phi * (2.0 * phi * curve - phi**2 * (mu * a2 + nu * b2)),
        )
    k, rest = y * size, (1.0 - y) * size
    c0, c1, c2 = polygamma_012(k + a)
    d0, d1, d2 = polygamma_012(rest + b)
    value = (
        math.lgamma(k + a) - math.lgamma(a) + math.lgamma(rest + b) - math.lgamma(b)
        - math.lgamma(size + phi) + math.lgamma(phi)
    )  # fmt: skip
    inner = c0 - a0 - d0 + b0
    curve = c1 - a1 + d1 - b1
    slope = mu * (c0 - a0) + nu * (d0 - b0) - polygamma_012(size + phi)[0] + polygamma_012(phi)[0]
    return (
        value,
        phi * inner,
        phi**2 * curve,
        phi**3 * (c2 - a2 - d2 + b2),
        phi * slope,
        phi * (inner + phi * (mu * (c1 - a1) - nu * (d1 - b1))),
        phi * (2.0 * phi * curve + phi**2 * (mu * (c2 - a2) + nu * (d2 - b2))),
    )


@internal
def cumulative_terms(link, category, eta, thresholds):  # type: ignore[no-untyped-def]
    """Return the terms of an ordered response: P(y <= k) = F(threshold_k - eta)."""
    k = int(category)
    last = thresholds.size
    has_upper, has_lower = k < last, k > 0
    upper = thresholds[k] - eta if has_upper else _INF
    lower = thresholds[k - 1] - eta if has_lower else -_INF
    if upper <= lower:
        return -_INF, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN
    if not has_lower:
        value = log_cdf(link, upper)[0]
    elif not has_upper:
        value = log_survival(link, lower)[0]
    elif lower > 0:
        big = log_survival(link, lower)[0]
        value = big + math.log(-math.expm1(log_survival(link, upper)[0] - big))
    else:
        big = log_cdf(link, upper)[0]
        value = big + math.log(-math.expm1(log_cdf(link, lower)[0] - big))
    p, slope_p, curve_p, q, slope_q, curve_q = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if has_upper:
        log_f, slope_p, curve_p = log_density(link, upper)
        p = math.exp(log_f - value)
    if has_lower:
        log_f, slope_q, curve_q = log_density(link, lower)
        q = math.exp(log_f - value)
    g = q - p
    p_eta, q_eta = -p * (slope_p + g), -q * (slope_q + g)
    second = q_eta - p_eta
    p_eta_eta = -p_eta * (slope_p + g) - p * (second - curve_p)
    q_eta_eta = -q_eta * (slope_q + g) - q * (second - curve_q)
    return value, g, -second, -(q_eta_eta - p_eta_eta), p, p_eta, -p_eta_eta, -q, -q_eta, q_eta_eta


@internal
def row_terms(family, link, y, size, extra, eta, aux):  # type: ignore[no-untyped-def]
    """Return the terms of one row of unit weight.

    Returns (l, l', w, w', l_a, l'_a, w_a, l_b, l'_b, w_b) with w = -l'' and primes for derivatives in eta; a is the log
    of the family's own parameter or the upper threshold, b the lower threshold.
    """
    if family == _CUMULATIVE:
        return cumulative_terms(link, y, eta, aux)
    if family == _BINOMIAL and _LOGIT <= link <= _CAUCHIT:
        if link == _LOGIT:
            down = log_survival(link, eta)
            return down[0] + y * eta, down[1] + y, -down[2], -down[3], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        v0, v1, v2, v3 = 0.0, 0.0, 0.0, 0.0
        if y > 0:
            c0, c1, c2, c3 = log_cdf(link, eta)
            v0, v1, v2, v3 = y * c0, y * c1, y * c2, y * c3
        if y < 1:
            s0, s1, s2, s3 = log_survival(link, eta)
            rest = 1.0 - y
            v0, v1, v2, v3 = v0 + rest * s0, v1 + rest * s1, v2 + rest * s2, v3 + rest * s3
        return v0, v1, -v2, -v3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if family == _POISSON and link == _LOG:
        mu = math.exp(eta)
        return y * eta - mu, y - mu, mu, mu, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    phi = math.exp(aux[0]) if aux.size else 1.0
    mu, m1, m2, m3 = inverse_link(link, eta)
    l0, l1, l2, l3, la, l1a, l2a = mean_terms(family, y, size, extra, mu, phi)
    return (
        l0,
        l1 * m1,
        -(l2 * m1 * m1 + l1 * m2),
        -(l3 * m1**3 + 3.0 * l2 * m1 * m2 + l1 * m3),
        la,
        l1a * m1,
        -(l2a * m1 * m1 + l1a * m2),
        0.0,
        0.0,
        0.0,
    )


@compiled
def all_terms(family, link, y, size, extra, weight, eta, aux, out):  # type: ignore[no-untyped-def]
    """Fill `out` (n, 10) with the weighted terms of every row."""
    for i in range(y.size):
        terms = row_terms(family, link, y[i], size[i], extra[i], eta[i], aux)
        for j in range(10):
            out[i, j] = weight[i] * terms[j]


def likelihood_constant(
    name: str, y: NDArray[np.float64], trials: NDArray[np.float64] | None, weights: NDArray[np.float64]
) -> float:
    """Return the part of the log-likelihood that no parameter touches.

    Parameters
    ----------
    name : str
        The family.
    y : ndarray (n,)
        Response; for binomial families the proportion.
    trials : ndarray (n,) or None
        Number of trials.
    weights : ndarray (n,)
        Row weights; 1 for binomial families, whose trials are their weights.

    Returns
    -------
    float
        The constant.
    """
    from scipy.special import gammaln

    if name in ("bernoulli", "binomial", "beta_binomial"):
        if trials is None:
            return 0.0
        k = y * trials
        constant = gammaln(trials + 1) - gammaln(k + 1) - gammaln(trials - k + 1)
    elif name in ("poisson", "negativebinomial"):
        constant = -gammaln(y + 1)
    elif name == "inverse_gaussian":
        constant = -1.5 * np.log(y)
    else:
        return 0.0
    return float(np.sum(weights * constant))
