"""Log densities of the supported prior families with their derivatives, compiled once and cached on disk."""

from __future__ import annotations

from math import exp, inf, lgamma, log, log1p, pi, sqrt

from bayeslmm.likelihood._compiled import compiled

FLAT, NORMAL, STUDENT_T, CAUCHY, LAPLACE = 0, 1, 2, 3, 4
HALF_FLAT, HALF_NORMAL, HALF_STUDENT_T, HALF_CAUCHY, EXPONENTIAL = 10, 11, 12, 13, 14
GAMMA, INVERSE_GAMMA, LOG_NORMAL, UNIFORM, SQRT_INVERSE_GAMMA = 15, 16, 17, 18, 19

LOG_2 = log(2.0)
LOG_PI = log(pi)
HALF_LOG_2PI = 0.5 * log(2.0 * pi)


@compiled
def student_t(nu: float, mu: float, sigma: float, x: float) -> tuple[float, float]:
    """Return log density and derivative of Student's t.

    Parameters
    ----------
    nu, mu, sigma : float
        Degrees of freedom, location, scale.
    x : float
        Where.

    Returns
    -------
    tuple of float
        Log density, its derivative in x.
    """
    z = (x - mu) / sigma
    constant = lgamma((nu + 1) / 2) - lgamma(nu / 2) - 0.5 * (log(nu) + LOG_PI) - log(sigma)
    return constant - (nu + 1) / 2 * log1p(z * z / nu), -(nu + 1) * z / (nu + z * z) / sigma


@compiled
def log_density(code: int, a: float, b: float, c: float, x: float) -> tuple[float, float]:
    """Return the normalised log density of a prior at x, and its derivative.

    Parameters
    ----------
    code : int
        Family, one of the constants of this module.
    a, b, c : float
        Its parameters, in the order of `bayeslmm.bayes.priors.FAMILIES`; unused ones are ignored.
    x : float
        Where.

    Returns
    -------
    tuple of float
        Log density (-inf outside the support; 0 for improper priors), its derivative in x.

    Examples
    --------
    >>> value, slope = log_density(NORMAL, 0.0, 1.0, 0.0, 1.0)
    >>> round(value, 6), slope
    (-1.418939, -1.0)
    """
    if code == FLAT:
        return 0.0, 0.0
    if code == NORMAL:
        z = (x - a) / b
        return -0.5 * z * z - log(b) - HALF_LOG_2PI, -z / b
    if code == STUDENT_T:
        return student_t(a, b, c, x)
    if code == CAUCHY:
        return student_t(1.0, a, b, x)
    if code == LAPLACE:
        sign = 1.0 if x > a else (-1.0 if x < a else 0.0)
        return -abs(x - a) / b - log(2 * b), -sign / b
    if code == UNIFORM:
        return (-log(b - a), 0.0) if a <= x <= b else (-inf, 0.0)
    if x < 0 or (x == 0 and code >= GAMMA):
        return -inf, 0.0
    if code == HALF_FLAT:
        return 0.0, 0.0
    if code == HALF_NORMAL:
        z = x / a
        return -0.5 * z * z - log(a) - HALF_LOG_2PI + LOG_2, -z / a
    if code == HALF_STUDENT_T:
        value, slope = student_t(a, 0.0, b, x)
        return value + LOG_2, slope
    if code == HALF_CAUCHY:
        value, slope = student_t(1.0, 0.0, a, x)
        return value + LOG_2, slope
    if code == EXPONENTIAL:
        return log(a) - a * x, -a
    if code == GAMMA:
        return a * log(b) - lgamma(a) + (a - 1) * log(x) - b * x, (a - 1) / x - b
    if code == INVERSE_GAMMA:
        return a * log(b) - lgamma(a) - (a + 1) * log(x) - b / x, -(a + 1) / x + b / (x * x)
    if code == LOG_NORMAL:
        z = (log(x) - a) / b
        return -0.5 * z * z - log(b) - HALF_LOG_2PI - log(x), -(z / b + 1) / x
    if code == SQRT_INVERSE_GAMMA:
        square = x * x
        value = a * log(b) - lgamma(a) - (2 * a + 1) * log(x) - b / square + LOG_2
        return value, -(2 * a + 1) / x + 2 * b / (square * x)
    return -inf, 0.0


@compiled
def log_beta(a: float, b: float) -> float:
    """Return the logarithm of the beta function.

    Parameters
    ----------
    a, b : float
        Its arguments.

    Returns
    -------
    float
        The value.
    """
    return lgamma(a) + lgamma(b) - lgamma(a + b)


@compiled
def log_sech2(z: float) -> float:
    """Return log(1 - tanh(z)²), also far out where the bracket rounds to 0.

    Parameters
    ----------
    z : float
        Where.

    Returns
    -------
    float
        The value.
    """
    magnitude = abs(z)
    return 2 * (LOG_2 - magnitude - log1p(exp(-2 * magnitude)))


@compiled
def sqrt_sech2(z: float) -> float:
    """Return sqrt(1 - tanh(z)²) = 1 / cosh(z).

    Parameters
    ----------
    z : float
        Where.

    Returns
    -------
    float
        The value.
    """
    return sqrt(exp(log_sech2(z)))
