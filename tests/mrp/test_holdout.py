"""Held-out states: nothing of their respondents reaches their estimates."""

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError

FORMULA = "yes ~ sex + (1 | state) + (1 | age)"


@pytest.fixture(scope="module")
def simulated():
    return blm.datasets.simulate_poll(1200, seed=4)


@pytest.fixture(scope="module")
def frame(simulated):
    return blm.PoststratFrame(simulated.population.drop(columns="p"))


@pytest.fixture(scope="module")
def model(simulated):
    return blm.model(FORMULA, simulated.poll, family="bernoulli")


@pytest.fixture(scope="module")
def left_out(model, frame):
    return blm.leave_one_out(model, frame, levels=["CA", "FL"])


def test_the_estimate_is_that_of_a_model_of_the_others(simulated, frame, left_out):
    others = simulated.poll[simulated.poll["state"] != "FL"]
    fit = blm.model(FORMULA, others, family="bernoulli").fit()
    expected = blm.poststratify(fit, frame.filter({"state": "FL"}), by="state", new_levels="sample", seed=0)
    florida = left_out.position("FL")
    assert left_out.estimate[florida] == pytest.approx(expected.estimate[0], abs=1e-6)
    np.testing.assert_allclose(left_out.draws[:, florida].std(), expected.draws.std(), rtol=0.02)


def test_changed_answers_of_the_held_out_state_change_nothing_but_its_raw_mean(simulated, frame, left_out):
    poll = simulated.poll.copy()
    poll.loc[poll["state"] == "FL", "yes"] = 1
    changed = blm.leave_one_out(blm.model(FORMULA, poll, family="bernoulli"), frame, levels=["FL"])
    florida = left_out.position("FL")
    np.testing.assert_allclose(changed.draws[:, 0], left_out.draws[:, florida], atol=1e-9)
    assert changed.survey["raw"].item() == 1
    assert left_out.survey["raw"][florida] < 1


def test_cells_give_what_respondents_give(model, frame, left_out):
    collapsed = blm.leave_one_out(blm.collapse(model), frame, levels=["CA"])
    assert collapsed.estimate[0] == pytest.approx(left_out.estimate[0], abs=1e-5)
    assert collapsed.survey["n"].tolist() == left_out.survey["n"].tolist()[:1]


def test_what_cannot_be_left_out_is_named(simulated, model, frame):
    with pytest.raises(DataError, match="no column 'county'"):
        blm.leave_one_out(model, frame, "county")
    with pytest.raises(DataError, match="no respondent has 'state' equal to 'ZZ'"):
        blm.leave_one_out(model, frame, levels=["ZZ"])
    poll = simulated.poll.assign(south=(simulated.poll["state"] == "FL").astype(int))
    alone = blm.model("yes ~ south + (1 | state)", poll, family="bernoulli")
    with pytest.raises(DataError, match="without 'FL' the coefficients cannot all be estimated"):
        blm.leave_one_out(alone, frame, levels=["FL"])
