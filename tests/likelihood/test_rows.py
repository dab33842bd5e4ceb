"""The compiled evaluation of rows against the formulas of one row."""

import numba
import numpy as np
import pytest

from bayeslmm.families import as_family
from bayeslmm.likelihood.covariance import Covariance, Layout
from bayeslmm.likelihood.families_jit import FAMILY_CODES, LINK_CODES, all_terms
from bayeslmm.likelihood.glmm_record import CELLS
from bayeslmm.likelihood.laplace import LaplaceKernel
from bayeslmm.likelihood.record import Fields, record_at
from bayeslmm.likelihood.rows import evaluate_rows

CALL = Fields("Call", "family:int link:int aux:f1 eta:f1 terms:f2 value:f1", CELLS.end, {"cells": (CELLS, 0)})
call_at = record_at(CALL)


@numba.njit
def _evaluate(address):
    e = call_at(address)
    e.value[0] = evaluate_rows(e.cells, e.family, e.link, e.aux, e.eta, e.terms)


def evaluate(cells, family, link, eta, terms):
    """Call the compiled function, which knows records only."""
    value, aux = np.empty(1), np.zeros(0)
    words = np.zeros(CALL.end, dtype=np.int64)
    words[CELLS.first : CELLS.end] = CELLS.words(cells)
    words[CALL.first :] = CALL.words((family, link, aux, eta, terms, value))
    _evaluate(words.ctypes.data)
    return value[0]


@pytest.mark.parametrize(("name", "link"), [("binomial", "logit"), ("poisson", "log"), ("binomial", "probit")])
def test_loops_over_rows_equal_the_formulas_of_one_row(name, link):
    rng = np.random.default_rng(1)
    n = 2000
    eta = rng.normal(size=n) * rng.choice([1e-8, 1.0, 8.0, 30.0], n)
    if link == "probit":
        eta /= 4
    y = rng.integers(0, 2, n).astype(float)
    layout = Layout((Covariance("us", 1),), (0,), (2,))
    groups = [(np.ones((n, 1)), (np.arange(n) % 2).astype(np.int32))]
    kernel = LaplaceKernel.from_arrays(as_family(name, link), layout, y, eta[:, None], groups)
    cells = kernel.cells
    eta = kernel.collapsed.X[:, 0]
    terms, expected = np.zeros((4, n)), np.zeros((n, 10))
    family, code = FAMILY_CODES[name], LINK_CODES[link]
    total = evaluate(cells, family, code, eta, terms)
    all_terms(family, code, cells.y, cells.size, cells.extra, cells.weight, eta, np.zeros(0), expected)
    np.testing.assert_allclose(terms, expected[:, :4].T, rtol=1e-13, atol=1e-14)
    assert total == pytest.approx(expected[:, 0].sum(), rel=1e-13)


@pytest.mark.parametrize("eta", [np.inf, -np.inf, np.nan, 800.0])
def test_a_row_beyond_all_numbers_is_refused(eta):
    layout = Layout((Covariance("us", 1),), (0,), (2,))
    groups = [(np.ones((2, 1)), np.arange(2, dtype=np.int32))]
    cells = LaplaceKernel.from_arrays(as_family("poisson"), layout, np.array([1.0, 2.0]), np.ones((2, 1)), groups).cells
    value = evaluate(cells, 1, LINK_CODES["log"], np.array([0.0, eta]), np.zeros((4, 2)))
    assert value == -np.inf or value < -1e300
