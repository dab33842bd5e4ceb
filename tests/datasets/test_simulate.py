"""The simulated poll: reproducible, unrepresentative in the way it says, with weights that undo it."""

import numpy as np
import pandas as pd
import pytest

from bayeslmm.datasets import simulate_poll
from bayeslmm.errors import DataError


@pytest.fixture(scope="module")
def simulated():
    return simulate_poll(20_000, seed=5)


def test_a_seed_reproduces_everything():
    one, two = simulate_poll(300, seed=8), simulate_poll(300, seed=8)
    pd.testing.assert_frame_equal(one.poll, two.poll)
    pd.testing.assert_frame_equal(one.population, two.population)
    assert not one.poll.equals(simulate_poll(300, seed=9).poll)


def test_the_truth_is_the_average_over_people(simulated):
    cells = simulated.population
    assert simulated.truth()["truth"].item() == pytest.approx(np.average(cells["p"], weights=cells["n"]))
    ohio = cells[cells["state"] == "OH"]
    by_state = simulated.truth("state").set_index("state")["truth"]
    assert by_state["OH"] == pytest.approx(np.average(ohio["p"], weights=ohio["n"]))
    assert len(simulated.truth(["state", "age"])) == 51 * 4
    with pytest.raises(DataError, match=r"no column 'stat'. Did you mean 'state'"):
        simulated.truth("stat")


def test_the_poll_has_too_many_old_and_educated_and_weights_undo_it(simulated):
    poll, cells = simulated.poll, simulated.population
    for name, level in (("educ", "college"), ("age", "65+")):
        there = cells["n"][cells[name] == level].sum() / cells["n"].sum()
        chosen = (poll[name] == level).to_numpy()
        assert chosen.mean() > there + 0.08
        assert np.average(chosen, weights=poll["weight"]) == pytest.approx(there, abs=0.02)


def test_without_nonresponse_the_poll_is_a_simple_random_sample():
    simulated = simulate_poll(20_000, seed=5, nonresponse=0)
    assert simulated.poll["weight"].nunique() == 1
    assert simulated.poll["yes"].mean() == pytest.approx(simulated.truth()["truth"].item(), abs=0.015)


def test_the_population_has_the_size_asked_for(simulated):
    assert simulated.population["n"].sum() == pytest.approx(250_000_000, rel=1e-4)
    assert simulated.states["repvote"].mean() == pytest.approx(0, abs=1e-12)
    assert set(simulated.poll["state"]) <= set(simulated.states["state"])


def test_an_empty_poll_is_refused():
    with pytest.raises(DataError, match="n=0"):
        simulate_poll(0)
