"""Response families and links: one table of log-likelihood, variance, deviance and random draws. Numpy only.

The compiled twin of the log-likelihood, with its derivatives, is `bayeslmm.likelihood.families_jit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayeslmm.errors import DataError, FormulaError, did_you_mean, listing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """A link function g and its inverse.

    Parameters
    ----------
    name : str
        Its name in lme4, Stata and bambi.
    link, inverse, inverse_derivative : callable
        g(mu), mu(eta) and dmu/deta, on arrays.

    Examples
    --------
    >>> LINKS["logit"].inverse(0.0)
    np.float64(0.5)
    """

    name: str
    link: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    inverse_derivative: Callable[[Array], Array]


def _cloglog_inverse(eta: Array) -> Array:
    return -np.expm1(-np.exp(eta))


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        link.name: link
        for link in (
            Link("identity", lambda mu: mu, lambda eta: eta, np.ones_like),
            Link("log", np.log, np.exp, np.exp),
            Link("logit", special.logit, special.expit, lambda eta: special.expit(eta) * special.expit(-eta)),
            Link(
                "probit",
                special.ndtri,
                special.ndtr,
                lambda eta: np.exp(-0.5 * np.square(eta)) / np.sqrt(2 * np.pi),
            ),
            Link(
                "cloglog",
                lambda mu: np.log(-np.log1p(-mu)),
                _cloglog_inverse,
                lambda eta: np.exp(eta - np.exp(eta)),
            ),
            Link(
                "cauchit",
                lambda mu: np.tan(np.pi * (mu - 0.5)),
                lambda eta: 0.5 + np.arctan(eta) / np.pi,
                lambda eta: 1 / (np.pi * (1 + np.square(eta))),
            ),
            Link("inverse", lambda mu: 1 / mu, lambda eta: 1 / eta, lambda eta: -1 / np.square(eta)),
            Link("sqrt", np.sqrt, np.square, lambda eta: 2 * eta),
            Link("inverse_squared", lambda mu: mu**-2, lambda eta: eta**-0.5, lambda eta: -0.5 * eta**-1.5),
        )
    }
)


# --- the parts of each family: y, mu, phi (own parameter) and size (trials) broadcast against each other ---


def _binomial_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    k = y * size
    return _log_choose(size, k) + special.xlogy(k, mu) + special.xlog1py(size - k, -mu)


def _log_choose(n: Array, k: Array) -> Array:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def _negative_binomial_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    rising = special.gammaln(y + phi) - special.gammaln(phi) - special.xlogy(y, phi)
    return rising - special.gammaln(y + 1) + special.xlogy(y, mu) - (y + phi) * np.log1p(mu / phi)


def _gaussian_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    return -0.5 * np.log(2 * np.pi * phi**2) - 0.5 * ((y - mu) / phi) ** 2


def _gamma_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    return phi * np.log(phi / mu) - special.gammaln(phi) + (phi - 1) * np.log(y) - phi * y / mu


def _inverse_gaussian_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    return 0.5 * np.log(phi / (2 * np.pi * y**3)) - phi * (y - mu) ** 2 / (2 * mu**2 * y)


def _beta_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    a, b = mu * phi, (1 - mu) * phi
    return (a - 1) * np.log(y) + (b - 1) * np.log1p(-y) - special.betaln(a, b)


def _beta_binomial_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    a, b = mu * phi, (1 - mu) * phi
    k = y * size
    return _log_choose(size, k) + special.betaln(k + a, size - k + b) - special.betaln(a, b)


def _poisson_loglik(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    return special.xlogy(y, mu) - mu - special.gammaln(y + 1)


def _binomial_deviance(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    return 2 * size * (special.xlogy(y, y / mu) + special.xlogy(1 - y, (1 - y) / (1 - mu)))


def _negative_binomial_deviance(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    return 2 * (special.xlogy(y, y / mu) - (y + phi) * np.log((y + phi) / (mu + phi)))


def _beta_deviance(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    """Twice the log-likelihood lost to the mean y with the same precision."""
    return 2 * (_beta_loglik(y, y, phi, size) - _beta_loglik(y, mu, phi, size))


def _beta_binomial_deviance(y: Array, mu: Array, phi: Array, size: Array) -> Array:
    inside = np.clip(y, 1e-12, 1 - 1e-12)
    return 2 * (_beta_binomial_loglik(y, inside, phi, size) - _beta_binomial_loglik(y, mu, phi, size))


THRESHOLD_VARIANCES = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}
Part = Callable[[Array, Array, Array, Array], Array]
Draw = Callable[[np.random.Generator, Array, Array, Array], Array]


@dataclass(frozen=True)
class FamilyRow:
    """One row of the table of families.

    Parameters
    ----------
    links : tuple of str
        The links that make sense, the default first.
    parameter : str
        Name of the family's own parameter, as in bambi; empty when it has none.
    loglik, deviance : callable or None
        Of (y, mu, phi, size), per row, constants included. None for families without a mean per row.
    variance : callable or None
        Var(y) of (mu, phi, size); for binomial families of the proportion.
    draw : callable or None
        Random responses from (rng, mu, phi, size); for binomial families proportions.
    """

    links: tuple[str, ...]
    parameter: str = ""
    loglik: Part | None = None
    deviance: Part | None = None
    variance: Callable[[Array, Array, Array], Array] | None = None
    draw: Draw | None = None


_PROBABILITY_LINKS = ("logit", "probit", "cloglog", "cauchit")
_BINOMIAL_ROW = FamilyRow(
    (*_PROBABILITY_LINKS, "log", "identity"),
    "",
    _binomial_loglik,
    _binomial_deviance,
    lambda mu, phi, size: mu * (1 - mu) / size,
    lambda rng, mu, phi, size: rng.binomial(size.astype(np.int64), mu) / size,
)
FAMILIES: Mapping[str, FamilyRow] = MappingProxyType(
    {
        "gaussian": FamilyRow(
            ("identity", "log", "inverse", "sqrt"),
            "sigma",
            _gaussian_loglik,
            lambda y, mu, phi, size: (y - mu) ** 2,
            lambda mu, phi, size: phi**2 + 0 * mu,
            lambda rng, mu, phi, size: rng.normal(mu, phi),
        ),
        "bernoulli": _BINOMIAL_ROW,
        "binomial": _BINOMIAL_ROW,
        "poisson": FamilyRow(
            ("log", "identity", "sqrt"),
            "",
            _poisson_loglik,
            lambda y, mu, phi, size: 2 * (special.xlogy(y, y / mu) - (y - mu)),
            lambda mu, phi, size: mu,
            lambda rng, mu, phi, size: rng.poisson(mu).astype(np.float64),
        ),
        "gamma": FamilyRow(
            ("log", "inverse", "identity"),
            "alpha",
            _gamma_loglik,
            lambda y, mu, phi, size: 2 * ((y - mu) / mu - np.log(y / mu)),
            lambda mu, phi, size: mu**2 / phi,
            lambda rng, mu, phi, size: rng.gamma(phi, mu / phi),
        ),
        "inverse_gaussian": FamilyRow(
            ("log", "inverse_squared", "inverse", "identity"),
            "lam",
            _inverse_gaussian_loglik,
            lambda y, mu, phi, size: (y - mu) ** 2 / (mu**2 * y),
            lambda mu, phi, size: mu**3 / phi,
            lambda rng, mu, phi, size: rng.wald(mu, phi),
        ),
        "negativebinomial": FamilyRow(
            ("log", "identity", "sqrt"),
            "alpha",
            _negative_binomial_loglik,
            _negative_binomial_deviance,
            lambda mu, phi, size: mu + mu**2 / phi,
            lambda rng, mu, phi, size: rng.negative_binomial(phi, phi / (phi + mu)).astype(np.float64),
        ),
        "beta": FamilyRow(
            (*_PROBABILITY_LINKS, "log"),
            "kappa",
            _beta_loglik,
            _beta_deviance,
            lambda mu, phi, size: mu * (1 - mu) / (1 + phi),
            lambda rng, mu, phi, size: rng.beta(mu * phi, (1 - mu) * phi),
        ),
        "beta_binomial": FamilyRow(
            _PROBABILITY_LINKS,
            "kappa",
            _beta_binomial_loglik,
            _beta_binomial_deviance,
            lambda mu, phi, size: mu * (1 - mu) * (1 + (size - 1) / (phi + 1)) / size,
            lambda rng, mu, phi, size: rng.binomial(size.astype(np.int64), rng.beta(mu * phi, (1 - mu) * phi)) / size,
        ),
        "cumulative": FamilyRow(_PROBABILITY_LINKS, "threshold"),
        "t": FamilyRow(("identity", "log"), "sigma"),
        "asymmetriclaplace": FamilyRow(("identity", "log", "inverse")),
        "exgaussian": FamilyRow(("identity", "log", "inverse")),
        "exponential": FamilyRow(("log", "identity", "inverse")),
        "hurdle_gamma": FamilyRow(("log", "identity", "inverse")),
        "hurdle_lognormal": FamilyRow(("identity", "log", "inverse")),
        "hurdle_negativebinomial": FamilyRow(("log", "identity")),
        "hurdle_poisson": FamilyRow(("log", "identity")),
        "laplace": FamilyRow(("identity", "log", "inverse")),
        "lognormal": FamilyRow(("identity", "log", "inverse")),
        "sratio": FamilyRow(("logit", "probit", "cloglog"), "threshold"),
        "vonmises": FamilyRow(("identity",)),
        "weibull": FamilyRow(("log", "identity", "inverse")),
        "zero_inflated_binomial": FamilyRow(("logit", "probit", "cloglog")),
        "zero_inflated_negativebinomial": FamilyRow(("log", "identity")),
        "zero_inflated_poisson": FamilyRow(("log", "identity")),
    }
)
"""Rows without parts are bambi's families for `sample()`: there is no `fit()` by Laplace for them."""
PER_CATEGORY = ("categorical", "multinomial", "dirichlet_multinomial")
COUNTS = (
    "poisson",
    "negativebinomial",
    "hurdle_poisson",
    "hurdle_negativebinomial",
    "zero_inflated_poisson",
    "zero_inflated_negativebinomial",
)
PROPORTIONS = ("bernoulli", "binomial", "beta_binomial", "zero_inflated_binomial")
POSITIVE = ("gamma", "inverse_gaussian", "exponential", "lognormal", "weibull")


def auxiliary_link(name: str) -> str:
    """Return the link of a further parameter that has a formula: logit for a probability, log otherwise, as in bambi.

    Parameters
    ----------
    name : str
        The parameter: "sigma", "alpha", "psi", ...

    Returns
    -------
    str
        A name of `LINKS`.

    Examples
    --------
    >>> auxiliary_link("sigma"), auxiliary_link("psi")
    ('log', 'logit')
    """
    return "logit" if name in ("psi", "q") else "log"


@dataclass(frozen=True)
class Family:
    """A response family with its link.

    Parameters
    ----------
    name : str
        Its name, spelt as in bambi.
    link : str
        Name of the link of the mean.

    Examples
    --------
    >>> as_family("binomial").link
    'logit'
    """

    name: str
    link: str

    @property
    def is_gaussian_identity(self) -> bool:
        """True where group effects can be integrated out exactly."""
        return self.name == "gaussian" and self.link == "identity"

    @property
    def row(self) -> FamilyRow:
        """Its row of the table."""
        return FAMILIES[self.name]

    @property
    def parameter(self) -> str:
        """Name of the family's own parameter ("alpha", "kappa", "threshold" and so on); empty when it has none."""
        return self.row.parameter

    @property
    def ratio(self) -> str:
        """What the exponential of a difference of linear predictors is called; empty where it is nothing."""
        return {"logit": "odds ratio", "log": "ratio"}.get(self.link, "")

    def inverse_link(self, eta: Array) -> Array:
        """Return the mean for a linear predictor.

        Parameters
        ----------
        eta : ndarray
            Linear predictor.

        Returns
        -------
        ndarray
            The mean, same shape.
        """
        return LINKS[self.link].inverse(np.asarray(eta))

    def slope(self, eta: Array) -> Array:
        """Return the derivative of the mean in the linear predictor, in size.

        Parameters
        ----------
        eta : ndarray
            Linear predictor.

        Returns
        -------
        ndarray
            Not negative, same shape.

        Examples
        --------
        >>> as_family("bernoulli").slope(np.zeros(1)).round(6)
        array([0.25])
        """
        return np.abs(LINKS[self.link].inverse_derivative(np.asarray(eta)))

    def loglik(self, y: Array, mu: Array, phi: Array | float = 1.0, size: Array | float = 1.0) -> Array:
        """Return the log-likelihood of each row, constants included.

        Parameters
        ----------
        y, mu : ndarray
            Response and mean; for binomial families proportions.
        phi : ndarray or float, default 1
            The family's own parameter.
        size : ndarray or float, default 1
            Number of trials of binomial families.

        Returns
        -------
        ndarray
            Of the shape they broadcast to.

        Examples
        --------
        >>> round(float(as_family("poisson").loglik(np.array(2.0), np.array(3.0))), 4)
        -1.4959
        """
        return self._part("loglik")(*_arrays(y, mu, phi, size))

    def deviance(self, y: Array, mu: Array, phi: Array | float = 1.0, size: Array | float = 1.0) -> Array:
        """Return the unit deviance of each row: twice the log-likelihood lost to a perfect mean, without the scale.

        Parameters
        ----------
        y, mu, phi, size : ndarray or float
            As for `loglik`.

        Returns
        -------
        ndarray
            Not negative.

        Examples
        --------
        >>> float(as_family("gamma").deviance(np.array(2.0), np.array(2.0)))
        0.0
        """
        return self._part("deviance")(*_arrays(y, mu, phi, size))

    def variance(self, mu: Array, phi: Array | float = 1.0, size: Array | float = 1.0) -> Array:
        """Return the variance of a response (of a proportion, for binomial families).

        Parameters
        ----------
        mu, phi, size : ndarray or float
            As for `loglik`.

        Returns
        -------
        ndarray
            Positive.

        Examples
        --------
        >>> float(as_family("negativebinomial").variance(np.array(2.0), 4.0))
        3.0
        """
        return self._part("variance")(*_arrays(mu, phi, size))

    def latent_variance(self, mu: Array, phi: Array | float = 1.0) -> Array:
        """Return the variance of a response about its mean on the scale of the linear predictor, as R² and ICC need it.

        Of the distribution whose threshold a binary or ordered response is (pi²/3 for the logit link); log(1 + V / mu²)
        for a log link, and V (d eta / d mu)² for other links, V being the variance of a response (of a single trial).

        Parameters
        ----------
        mu : ndarray
            Average expected response.
        phi : ndarray or float, default 1
            The family's own parameter.

        Returns
        -------
        ndarray
            Shaped like `mu`.

        Raises
        ------
        DataError
            If that distribution has no variance.

        References
        ----------
        Nakagawa, Johnson & Schielzeth (2017), *J. R. Soc. Interface* 14: 20170213.

        Examples
        --------
        >>> as_family("poisson").latent_variance(np.array([1.0])).round(4)
        array([0.6931])
        """
        if self.link == "cauchit":
            raise DataError("the Cauchy distribution behind the link 'cauchit' has no variance: no ICC, no R².")
        if self.name in ("bernoulli", "binomial", "cumulative") and self.link in THRESHOLD_VARIANCES:
            return np.full_like(mu, THRESHOLD_VARIANCES[self.link])
        variance = self.variance(mu, phi)
        if self.link == "log":
            return np.log1p(variance / mu**2)
        return variance / self.slope(LINKS[self.link].link(mu)) ** 2

    def draw(self, rng: np.random.Generator, mu: Array, phi: Array | float = 1.0, size: Array | float = 1.0) -> Array:
        """Return random responses.

        Parameters
        ----------
        rng : numpy Generator
            Source.
        mu, phi, size : ndarray or float
            As for `loglik`.

        Returns
        -------
        ndarray
            Of the shape they broadcast to.

        Examples
        --------
        >>> as_family("poisson").draw(np.random.default_rng(1), np.full(3, 2.0))
        array([2., 3., 3.])
        """
        return self._part("draw")(rng, *np.broadcast_arrays(*_arrays(mu, phi, size)))

    def _part(self, name: str) -> Callable[..., Array]:
        part = getattr(self.row, name)
        if part is None:
            raise FormulaError(f"the family {self.name!r} has no {name} by mean: its responses are not single numbers.")
        return part

    def __str__(self) -> str:
        return f"{self.name} ({self.link})"


def _arrays(*values: Array | float) -> tuple[Array, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in values)


def check_response(family: Family, y: Array, trials: Array | None, name: str = "the response") -> None:
    """Refuse responses that the family cannot produce.

    Parameters
    ----------
    family : Family
        The family.
    y : ndarray (n,)
        Response; for binomial families the proportion, for ordered ones category codes.
    trials : ndarray (n,) or None
        Number of trials.
    name : str
        What to call the response in the message.

    Raises
    ------
    DataError
        With the first offending row and the way out.

    Examples
    --------
    >>> check_response(as_family("gamma"), np.array([1.0, 0.0]), None, "cost")
    Traceback (most recent call last):
    ...
    bayeslmm.errors.DataError: cost must be positive for the family 'gamma'; 1 value is not, the first is 0 (row 1).
      A two-part model (whether, and how much if at all) or a small constant added are the usual ways out.
    """
    if trials is not None:
        _refuse(trials <= 0, trials, f"the number of trials of {name} must be positive", "", "Leave those rows out.")
        count = y * trials
        _refuse(
            np.abs(count - np.round(count)) > 1e-6 * np.maximum(1.0, trials),
            count,
            f"the successes of {name} must be whole numbers",
            "",
            "A proportion needs its number of trials: prop(p, n), or weights=.",
        )
    of_family = f" for the family '{family.name}'"
    whole = np.abs(y - np.round(y)) > 1e-8
    if family.name in COUNTS:
        _refuse(
            (y < 0) | whole, y, f"{name} must be counts (0, 1, 2, ...)", of_family, "A rate needs offset=log(exposure)."
        )
    elif family.name in PROPORTIONS:
        _refuse(
            (y < 0) | (y > 1), y, f"{name} must lie between 0 and 1", of_family, "Write cbind(k, n - k) or prop(k, n)."
        )
        if trials is None:
            _refuse(
                whole, y, f"{name} must be 0 or 1", of_family, "A proportion needs its number of trials: prop(k, n)."
            )
        if np.all(y == y[0]) and y[0] in (0.0, 1.0):
            raise DataError(
                f"{name} has one class only: every value is {y[0]:.0f}. There is nothing to estimate.\n"
                "  Was a filter applied to the rows, or the response coded the wrong way?"
            )
    elif family.name in POSITIVE:
        remedy = "A two-part model (whether, and how much if at all) or a small constant added are the usual ways out."
        _refuse(y <= 0, y, f"{name} must be positive", of_family, remedy)
    elif family.name == "beta":
        remedy = "Shrink the ends, for example (y (n - 1) + 0.5) / n, or model 0 and 1 apart."
        _refuse((y <= 0) | (y >= 1), y, f"{name} must lie strictly between 0 and 1", of_family, remedy)
    elif family.name in ("hurdle_gamma", "hurdle_lognormal"):
        _refuse(y < 0, y, f"{name} must be zero or positive", of_family, "A hurdle family has no values below zero.")
    elif family.name == "vonmises":
        _refuse(np.abs(y) > np.pi, y, f"{name} must be angles between -pi and pi", of_family, "Are they in degrees?")
    elif family.name in ("cumulative", "sratio"):
        _check_categories(y, name)


def _check_categories(y: Array, name: str) -> None:
    counts = np.bincount(y.astype(np.int64))
    if len(counts) < 3:
        raise DataError(f"{name} has {len(counts)} categories; an ordered model needs three. Use family='bernoulli'.")
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise DataError(
            f"categories {listing(map(str, empty + 1))} of {name} never occur: their thresholds have no estimate.\n"
            "  Merge them with a neighbour, or drop unused categories."
        )


def _refuse(bad: NDArray[np.bool_], values: Array, sentence: str, tail: str, remedy: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        verb = "value is" if len(rows) == 1 else "values are"
        raise DataError(
            f"{sentence}{tail}; {len(rows)} {verb} not, the first is {values[rows[0]]:g} (row {rows[0]}).\n  {remedy}"
        )


DEFAULT_LINKS: Mapping[str, str] = MappingProxyType({name: row.links[0] for name, row in FAMILIES.items()})

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "normal": "gaussian",
        "inverse.gaussian": "inverse_gaussian",
        "wald": "inverse_gaussian",
        "negative_binomial": "negativebinomial",
        "nbinom": "negativebinomial",
        "nbinom2": "negativebinomial",
        "betabinomial": "beta_binomial",
        "ordinal": "cumulative",
        "ordered": "cumulative",
        "student": "t",
    }
)


def as_family(family: str | Family, link: str | None = None) -> Family:
    """Return the family of that name, with its default link unless another is given.

    Parameters
    ----------
    family : str or Family
        "gaussian", "bernoulli", "binomial", "poisson" and so on; R's and bambi's spellings are both read.
    link : str, optional
        Name of a link.

    Returns
    -------
    Family
        The family.

    Raises
    ------
    FormulaError
        If the family or link is unknown.

    Examples
    --------
    >>> str(as_family("bernoulli", "probit"))
    'bernoulli (probit)'
    """
    if isinstance(family, Family):
        return family if link is None else as_family(family.name, link)
    name = str(family).strip().lower()
    name = ALIASES.get(name, name)
    if name in PER_CATEGORY:
        raise FormulaError(
            f"the family {name!r} needs a linear predictor for each category, and a formula here has one.\n"
            "  Ordered categories: family='cumulative' or 'sratio'. Otherwise: bambi, or a binary model per category."
        )
    if name not in DEFAULT_LINKS:
        hint = did_you_mean(name, [*DEFAULT_LINKS, *ALIASES])
        raise FormulaError(f"there is no family {family!r}.\n  Families: {listing(DEFAULT_LINKS, 40)}. {hint}".rstrip())
    link = DEFAULT_LINKS[name] if link is None else link
    if link not in LINKS:
        hint = did_you_mean(link, LINKS)
        raise FormulaError(f"there is no link {link!r}.\n  Links: {listing(LINKS, 40)}. {hint}".rstrip())
    links = FAMILIES[name].links
    if link not in links:
        raise FormulaError(f"the family {name!r} has no link {link!r}.\n  Its links: {listing(links)}.")
    return Family(name, link)
