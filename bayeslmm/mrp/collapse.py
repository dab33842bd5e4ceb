"""Respondents who agree in every covariate become one binomial cell, exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayeslmm.errors import DataError
from bayeslmm.families import Family
from bayeslmm.formula.design import Design
from bayeslmm.likelihood.cells import group_rows
from bayeslmm.models import Model

BINARY = ("bernoulli", "binomial")


def collapse(model: Model) -> Model:
    """Return the same model on binomial cells instead of respondents.

    Rows with equal columns of X and Z, equal groups, offset and weights have one probability, so their answers count
    only through their sum: likelihood, estimates and posterior are the same up to a constant, and expected responses
    stay probabilities. `fit()` does this by itself; `sample()` by the PyMC model is faster for it.

    Parameters
    ----------
    model : Model
        With a binary or binomial response.

    Returns
    -------
    Model
        Binomial, with as many rows as there are distinct kinds of respondents.

    Raises
    ------
    DataError
        If the response is not binary or binomial.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> poll = blm.datasets.simulate_poll(5000, seed=1).poll
    >>> small = blm.collapse(blm.model("yes ~ sex + (1 | age) + (1 | educ)", poll, family="bernoulli"))
    >>> small.design.n, small.design.trials.sum()
    (32, np.float64(5000.0))
    """
    if model.family.name not in BINARY:
        raise DataError(
            f"only binary and binomial responses collapse into cells; this one is {model.family}.\n"
            "  A Gaussian model needs no collapsing: its kernel works on cross-products."
        )
    family = Family("binomial", model.family.link)
    return replace(model, design=collapse_design(model.design), family=family)


def collapse_design(design: Design) -> Design:
    """Return a design with one row per distinct kind of respondent.

    Parameters
    ----------
    design : Design
        With a binary response, or a proportion and trials.

    Returns
    -------
    Design
        `y` is the share, `trials` the number of respondents; `data` holds the first respondent of each kind.
    """
    assert design.y is not None
    columns = [design.X, *(term.Z for term in design.terms)]
    beside = (design.offset, design.weights, design.survey_weights)
    columns += [extra[:, None] for extra in beside if extra is not None]
    codes = np.stack([term.codes for term in design.terms], axis=1) if design.terms else np.zeros((design.n, 0))
    cell, first = group_rows(np.ascontiguousarray(np.hstack(columns) + 0.0), codes.astype(np.int64))
    trials = np.ones(design.n) if design.trials is None else design.trials
    total = np.bincount(cell, weights=trials)
    return replace(
        design,
        y=np.bincount(cell, weights=trials * design.y) / total,
        trials=total,
        X=np.ascontiguousarray(design.X[first]),
        terms=tuple(replace(term, Z=term.Z[first], codes=term.codes[first]) for term in design.terms),
        offset=None if design.offset is None else design.offset[first],
        weights=None if design.weights is None else design.weights[first],
        survey_weights=None if design.survey_weights is None else design.survey_weights[first],
        rows=np.arange(len(first)),
        n_total=len(first),
        missing={},
        data=design.data.iloc[first].reset_index(drop=True),
    )
