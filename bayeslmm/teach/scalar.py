"""Models with one random term of one effect: the ones whose every secret fits on a page."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayeslmm.errors import FormulaError
from bayeslmm.formula.design import GroupTerm
from bayeslmm.frequentist.lmm_fit import LmmFit
from bayeslmm.likelihood.lmm import LmmKernel


def kernel_of(source: Any) -> LmmKernel:
    """Return the likelihood kernel of a Gaussian model or fit.

    Parameters
    ----------
    source : Model or LmmFit
        What to look into.

    Returns
    -------
    LmmKernel
        Its kernel.

    Raises
    ------
    FormulaError
        If the response is not Gaussian.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> kernel_of(blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))).n_rows
    30
    """
    if isinstance(source, LmmFit):
        return source.kernel
    if not source.family.is_gaussian_identity:
        raise FormulaError(f"this picture is for Gaussian models; the family here is {source.family.name!r}.")
    kernel: LmmKernel = source.kernel
    return kernel


def scalar_term(source: Any) -> GroupTerm:
    """Return the only random term of a model, which must have a single effect.

    Parameters
    ----------
    source : Model or LmmFit
        What to look into.

    Returns
    -------
    GroupTerm
        The term.

    Raises
    ------
    FormulaError
        If there are more terms or effects than one.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> scalar_term(blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))).effects
    ('Intercept',)
    """
    terms = source.design.terms
    if len(terms) != 1 or len(terms[0].effects) != 1:
        raise FormulaError(
            "this picture shows one standard deviation, so the model must have one random term with one effect.\n"
            f"  The formula has {sum(len(term.effects) for term in terms)} standard deviations of group effects:"
            f" {source.design.formula.text}\n"
            "  Try '(1 | group)' or '(0 + x | group)'."
        )
    term: GroupTerm = terms[0]
    return term


def sd_grid(estimate: float, sigma: float, n_groups: int, points: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return standard deviations from 0 to where a plausible one ends.

    Parameters
    ----------
    estimate : float
        The REML estimate; may be 0.
    sigma : float
        Residual standard deviation.
    n_groups : int
        Groups; with few of them larger values stay plausible.
    points : int
        Length of the grid.

    Returns
    -------
    ndarray (points,)
        Equally spaced.

    Examples
    --------
    >>> sd_grid(2.0, 1.0, 100, 3).round(2)
    array([0.  , 2.24, 4.48])
    """
    relative = 1.0 + 8.0 / np.sqrt(2.0 * max(n_groups - 1, 1)) + 24.0 / max(n_groups, 2) ** 2
    return np.linspace(0.0, max(relative * estimate * 1.43, sigma), points)
