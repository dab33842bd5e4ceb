"""Generalised models fitted to other responses and without some terms: what bootstrap and likelihood ratios ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bayeslmm.families import check_response
from bayeslmm.frequentist.bootstrap import Outcome, check_new_response
from bayeslmm.frequentist.glmm_search import optimize_glmm
from bayeslmm.frequentist.likelihood_ratio import reduced_design
from bayeslmm.frequentist.optimize import Control
from bayeslmm.frequentist.simulation import draw_given
from bayeslmm.likelihood.descent import bfgs
from bayeslmm.likelihood.laplace import LaplaceKernel, start_aux

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design
    from bayeslmm.formula.terms import RandomTerm
    from bayeslmm.frequentist.glmm_fit import GlmmFit


SHARED_CELLS = ("bernoulli", "binomial", "poisson")
"""Families whose cells do not depend on the response."""


def kernel_for(fit: GlmmFit, y: NDArray[np.float64]) -> LaplaceKernel:
    """Return the kernel of the same design with another response, in a state of its own.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    y : ndarray (n,)
        The response.

    Returns
    -------
    LaplaceKernel
        Cells and symbolic factorisation are shared where they do not depend on the response.
    """
    design = fit.design
    if fit.family in SHARED_CELLS:
        return fit.kernel.with_response(y, design.trials, design.likelihood_weights)
    return LaplaceKernel.from_design(replace(design, y=y), fit.response_family)


def refit(fit: GlmmFit, y: ArrayLike) -> GlmmFit:
    """Fit the same model to another response, starting at a fit, without its warnings.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    y : array_like (n,)
        The response, one value per row kept.

    Returns
    -------
    GlmmFit
        The new fit.

    Raises
    ------
    DataError
        If `y` has another length, is not finite, or cannot come from the family.
    FitError
        If the search breaks down.
    """
    from bayeslmm.frequentist.glmm_fit import assemble

    response = check_new_response(fit.design, y)
    check_response(fit.response_family, response, fit.design.trials, "the new response")
    kernel = kernel_for(fit, response)
    optimum = optimize_glmm(kernel, fit.optimum.quadrature, near(fit))
    return assemble(replace(fit.design, y=response), fit.response_family, kernel, optimum)


def fit_silently(design: Design, family: Family, quadrature: int) -> GlmmFit:
    """Fit a design, without warnings: of many fits to simulated responses only counts are of interest.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family with its link.
    quadrature : int
        As in `fit`.

    Returns
    -------
    GlmmFit
        The fit.

    Raises
    ------
    DataError
        If the response cannot come from the family, or has one class only.
    """
    from bayeslmm.frequentist.glmm_fit import assemble

    assert design.y is not None
    check_response(family, design.y, design.trials, "the simulated response")
    kernel = LaplaceKernel.from_design(design, family)
    return assemble(design, family, kernel, optimize_glmm(kernel, quadrature))


def near(fit: GlmmFit) -> Control:
    """Return settings that start a search at a fit, unless it lies on the boundary."""
    return Control(start=None if fit.singular else fit.theta)


def criterion_of(fit: GlmmFit, y: NDArray[np.float64]) -> float:
    """Return the deviance of the same model at its optimum for another response."""
    return optimize_glmm(kernel_for(fit, y), fit.optimum.quadrature, near(fit)).value


def estimates_of(fit: GlmmFit, y: NDArray[np.float64] | None, *, errors: bool) -> Outcome:
    """Return every parameter for another response, or the fit's own.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    y : ndarray (n,) or None
        The response; None for the estimates of the fit itself.
    errors : bool
        Whether standard errors on the working scales are wanted.

    Returns
    -------
    Outcome
        Values in the order of ``fit.parameter_frame()``.
    """
    found = fit if y is None else refit(fit, y)
    if not found.optimum.converged:
        return Outcome(None, failure=f"the optimiser {found.optimum.status}")
    variances, first = found.variance_parameters, len(found.theta) + len(found.beta)
    aux = found.optimum.aux
    own = aux if fit.family == "cumulative" else np.exp(aux)
    values = np.concatenate([found.beta, variances.estimates, own])
    if not errors:
        return Outcome(values, None, found.singular)
    se = np.sqrt(np.diag(found.optimum.covariance))
    return Outcome(
        values, np.concatenate([np.sqrt(np.diag(found.vcov)), variances.working_se, se[first:]]), found.singular
    )


def without_terms(fit: GlmmFit, random: tuple[RandomTerm, ...]) -> GlmmFit:
    """Return the fit of the model with other random terms, by the same approximation.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    random : tuple of RandomTerm
        The terms.

    Returns
    -------
    GlmmFit
        The fit.
    """
    return fit_silently(reduced_design(fit.design, random), fit.response_family, fit.optimum.quadrature)


# --- without group effects ---------------------------------------------------------------------------------------


class Regression(NamedTuple):
    """An ordinary generalised regression: no group effects.

    Parameters
    ----------
    deviance : float
        Minus twice its maximised log-likelihood.
    beta : ndarray (p,)
        Coefficients.
    aux : ndarray (a,)
        Log of the family's own parameter, or the thresholds.
    """

    deviance: float
    beta: NDArray[np.float64]
    aux: NDArray[np.float64]


def regression(kernel: LaplaceKernel) -> Regression:
    """Fit the model without group effects, exactly.

    Parameters
    ----------
    kernel : LaplaceKernel
        The model.

    Returns
    -------
    Regression
        Its optimum.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> round(regression(fit.kernel).deviance - fit.criterion, 4)
    14.0059
    """
    zero, state = np.zeros(kernel.layout.n_theta), kernel.new_state()
    aux = start_aux(kernel)
    if kernel.n_aux:

        def deviance(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            found = kernel.evaluate(zero, None, point, state=state)
            value = -2 * found.value
            return (value, -2 * found.aux) if np.isfinite(value) else (np.inf, np.zeros_like(point))

        aux = bfgs(deviance, aux, np.eye(len(aux)) * 4.0 / kernel.cells.weight.sum(), 1e-10, 200).x
    value = kernel.evaluate(zero, None, aux, gradient=False, state=state).value
    return Regression(-2 * float(value), kernel.unwhiten(state.beta[:, 0]), aux)


def regression_gain(fit: GlmmFit, rng: np.random.Generator) -> float:
    """Draw a response from the model without group effects; return by how much these lower the deviance.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    float
        The likelihood-ratio statistic of one simulation.
    """
    design, plain = fit.design, fit.plain
    eta = design.X @ plain.beta + (0.0 if design.offset is None else design.offset)
    y = draw_given(design, fit.response_family, eta, plain.aux, rng)
    kernel = kernel_for(fit, y)
    return regression(kernel).deviance - optimize_glmm(kernel, fit.optimum.quadrature).value
