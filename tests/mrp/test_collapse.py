"""Collapsed models give the same fit; what cannot be collapsed is refused."""

import numpy as np
import pytest
from scipy.special import gammaln

import bayeslmm as blm
from bayeslmm.errors import DataError


@pytest.fixture(scope="module")
def respondents():
    poll = blm.datasets.simulate_poll(1500, seed=2).poll
    return blm.model("yes ~ sex + (1 | age) + (1 | educ)", poll, family="bernoulli")


def test_cells_keep_answers_and_people(respondents):
    cells = blm.collapse(respondents)
    kinds = respondents.design.data[["sex", "age", "educ"]].drop_duplicates()
    assert cells.design.n == len(kinds)
    assert "missing" not in repr(cells)
    assert cells.design.trials.sum() == 1500
    assert (cells.design.trials * cells.design.y).sum() == pytest.approx(respondents.design.y.sum())
    assert str(cells.family) == "binomial (logit)"


def test_the_fit_is_the_same_up_to_the_binomial_constant(respondents):
    one, two = respondents.fit(), blm.collapse(respondents).fit()
    np.testing.assert_allclose(two.fixef, one.fixef, atol=1e-6)
    np.testing.assert_allclose(two.theta, one.theta, atol=1e-5)
    n, k = two.design.trials, two.design.trials * two.design.y
    constant = np.sum(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
    assert two.loglik == pytest.approx(one.loglik + constant, abs=1e-6)


def test_collapsing_twice_changes_nothing(respondents):
    once = blm.collapse(respondents)
    twice = blm.collapse(once)
    np.testing.assert_array_equal(twice.design.trials, once.design.trials)
    np.testing.assert_allclose(twice.design.y, once.design.y)


def test_rows_with_different_offsets_stay_apart(respondents):
    data = respondents.design.data.assign(base=np.arange(1500) % 2)
    model = blm.model("yes ~ sex + (1 | age) + (1 | educ) + offset(base)", data, family="bernoulli")
    assert blm.collapse(model).design.n == len(data[["sex", "age", "educ", "base"]].drop_duplicates())


def test_numbers_do_not_collapse():
    model = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    with pytest.raises(DataError, match="only binary and binomial"):
        blm.collapse(model)
