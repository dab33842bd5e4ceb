"""Where the factor has its entries: nested designs stay sparse, crossed ones have a small tail, none is missing."""

import numpy as np
import pytest

from bayeslmm.likelihood.covariance import Covariance, Layout
from bayeslmm.likelihood.crossproducts import cross_products
from bayeslmm.likelihood.lmm import LmmKernel, criterion_and_gradient
from bayeslmm.likelihood.symbolic import analyse
from tests.likelihood.structures import TABLE, make


def products_of(*codes):
    n = len(codes[0])
    return cross_products(
        np.arange(n) ** 0.5, np.ones((n, 1)), [(np.ones((n, 1)), code, int(code.max()) + 1) for code in codes]
    )


@pytest.mark.parametrize("name", TABLE)
def test_every_level_has_its_place_once(name):
    analysis = make(name).kernel.analysis
    starts = np.concatenate(analysis.first_row)
    assert len(np.unique(starts)) == len(starts) == len(analysis.structure.node_factor)
    assert analysis.n_head + analysis.n_tail == analysis.n_columns


def test_nested_chains_have_no_fill():
    rng = np.random.default_rng(0)
    child = rng.permutation(np.repeat(np.arange(3000), 2))
    analysis = analyse(products_of(child, child // 10, child // 100, child // 1000))
    chain = 3000 * 3 + 300 * 2 + 30
    assert analysis.n_head_values <= 3000 + 300 + 30 + 3 + chain
    assert analysis.n_tail <= 12


def test_two_crossed_factors_leave_the_smaller_to_the_tail():
    rng = np.random.default_rng(0)
    analysis = analyse(products_of(rng.integers(0, 300, 20_000), rng.integers(0, 40, 20_000)))
    assert analysis.n_tail == 40


def test_partly_crossed_is_not_treated_as_dense():
    rng = np.random.default_rng(0)
    pupil = np.repeat(np.arange(6000), 3)
    teacher = pupil // 10
    movers = rng.random(len(pupil)) < 0.02
    teacher = np.where(movers, rng.integers(0, 600, len(pupil)), teacher)
    analysis = analyse(products_of(pupil, teacher))
    assert analysis.n_tail < 450


@pytest.mark.parametrize("padded_share", [0.0, 2.0])
@pytest.mark.parametrize("name", ["crossed", "crossed slopes", "three crossed", "partly crossed"])
def test_padded_and_scattered_updates_agree(name, padded_share, monkeypatch):
    case = make(name)
    monkeypatch.setattr("bayeslmm.likelihood.symbolic.PADDED_SHARE", padded_share)
    other = LmmKernel(case.kernel.products, case.kernel.layout)
    expected = criterion_and_gradient(case.theta, case.kernel)
    got = criterion_and_gradient(case.theta, other)
    assert got[0] == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sparse_seconds", [0.0, 1.0])
@pytest.mark.parametrize("name", ["crossed", "crossed slopes", "three levels of nesting", "partly crossed"])
def test_the_answer_does_not_depend_on_where_the_tail_starts(name, sparse_seconds, monkeypatch):
    case = make(name)
    monkeypatch.setattr("bayeslmm.likelihood.symbolic.SPARSE_SECONDS", sparse_seconds)
    other = LmmKernel(case.kernel.products, case.kernel.layout)
    if sparse_seconds == 0.0:
        assert other.analysis.n_tail == 0
    expected = criterion_and_gradient(case.theta, case.kernel)
    got = criterion_and_gradient(case.theta, other)
    assert got[0] == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-9, atol=1e-9)


def test_layout_of_another_design_is_refused():
    case = make("crossed")
    with pytest.raises(ValueError, match="levels, effects"):
        LmmKernel(case.kernel.products, Layout((Covariance("us", 1),), (0,), (3,)))
