"""Tail probabilities and quantiles of t, F, chi-squared and normal: what a fit prints, without loading scipy.stats.

`scipy.stats` takes longer to import than all else that a REML fit needs; `scipy.special` holds the same functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


def normal_quantile(probability: float) -> float:
    """Return the value below which a standard normal lies with this probability."""
    return float(special.ndtri(probability))


def two_sided_t(t: float | Floats, df: float | Floats) -> Any:
    """Return the probability that a t with `df` degrees of freedom (infinite: a normal) is as far from 0 as `t`."""
    return 2 * special.stdtr(df, -np.abs(t))


def t_quantile(probability: float | Floats, df: float | Floats) -> Any:
    """Return the value below which a t with `df` degrees of freedom lies with this probability."""
    return special.stdtrit(df, probability)


def chi2_above(x: float, df: float) -> float:
    """Return the probability that a chi-squared with `df` degrees of freedom exceeds `x`."""
    return float(special.chdtrc(df, max(x, 0.0)))


def f_above(x: float, numerator: float, denominator: float) -> float:
    """Return the probability that an F exceeds `x`; with infinite `denominator` it is a chi-squared over its df."""
    if not np.isfinite(denominator):
        return chi2_above(numerator * x, numerator)
    return float(special.fdtrc(numerator, denominator, max(x, 0.0)))
