"""Response families and links: names, defaults, inverse links. One table, numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bayeslmm.errors import FormulaError, did_you_mean, listing

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

    def __str__(self) -> str:
        return f"{self.name} ({self.link})"


DEFAULT_LINKS: Mapping[str, str] = MappingProxyType(
    {
        "gaussian": "identity",
        "bernoulli": "logit",
        "binomial": "logit",
        "poisson": "log",
        "gamma": "log",
        "inverse_gaussian": "log",
        "negativebinomial": "log",
        "beta": "logit",
        "beta_binomial": "logit",
        "cumulative": "logit",
        "t": "identity",
    }
)

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
    if name not in DEFAULT_LINKS:
        hint = did_you_mean(name, [*DEFAULT_LINKS, *ALIASES])
        raise FormulaError(f"there is no family {family!r}.\n  Families: {listing(DEFAULT_LINKS, 40)}. {hint}".rstrip())
    link = DEFAULT_LINKS[name] if link is None else link
    if link not in LINKS:
        hint = did_you_mean(link, LINKS)
        raise FormulaError(f"there is no link {link!r}.\n  Links: {listing(LINKS, 40)}. {hint}".rstrip())
    return Family(name, link)
