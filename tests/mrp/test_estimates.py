"""Tables, contrasts, probabilities and ranks of draws that are known."""

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError
from bayeslmm.mrp.estimates import Estimates
from bayeslmm.mrp.survey import survey_estimates


@pytest.fixture
def states():
    rng = np.random.default_rng(0)
    draws = np.array([0.6, 0.5, 0.4]) + 0.05 * rng.standard_normal((200, 3))
    return Estimates(pd.DataFrame({"state": ["CA", "NY", "TX"]}), draws, np.array([39.0, 20.0, 30.0]), chains=2)


@pytest.fixture
def crossed():
    groups = pd.DataFrame({"state": ["CA", "CA", "TX", "(all)"], "sex": ["f", "m", "f", "(all)"]})
    draws = np.random.default_rng(1).uniform(size=(50, 4))
    return Estimates(groups, draws, np.ones(4))


def test_the_table_holds_mean_sd_and_interval(states):
    table = states.to_pandas(level=0.5).set_index("state")
    draws = states.draws[:, 1]
    assert table.loc["NY", "estimate"] == pytest.approx(draws.mean())
    assert table.loc["NY", "sd"] == pytest.approx(draws.std(ddof=1))
    assert table.loc["NY", ["lower", "upper"]].tolist() == pytest.approx(np.quantile(draws, [0.25, 0.75]))
    assert table.loc["NY", "population"] == 20
    with pytest.raises(DataError, match="not between 0 and 1"):
        states.to_pandas(level=95)


def test_the_summary_prints(states):
    text = str(states.summary())
    assert "200 draws" in text
    assert text.count("\n") == 4
    assert [line.split()[0] for line in str(states.summary(sort=True)).splitlines()[2:]] == ["CA", "NY", "TX"]
    assert "<table" in states._repr_html_()
    assert repr(states) == text


def test_differences_and_ratios_are_taken_draw_by_draw(states):
    ca, tx = states.draws[:, 0], states.draws[:, 2]
    difference = states.difference("CA", "TX")
    np.testing.assert_allclose(difference.draws[:, 0], ca - tx)
    assert difference.labels == ("CA - TX",)
    assert "population" not in difference.to_pandas()
    np.testing.assert_allclose(states.ratio("CA", "TX").draws[:, 0], ca / tx)


def test_contrasts_within_the_other_variables(crossed):
    contrast = crossed.contrast("sex", "f", "m")
    assert contrast.labels == ("CA: f - m",)
    np.testing.assert_allclose(contrast.draws[:, 0], crossed.draws[:, 0] - crossed.draws[:, 1])
    with pytest.raises(DataError, match="no level 'x'"):
        crossed.contrast("sex", "x", "m")


def test_groups_are_found_by_any_of_their_names(crossed, states):
    assert crossed.position(("CA", "m")) == crossed.position({"sex": "m", "state": "CA"}) == 1
    assert crossed.position({}) == 3
    assert states.position("TX") == 2
    with pytest.raises(DataError, match="no estimate for 'Texas'"):
        states.position("Texas")
    with pytest.raises(DataError, match="no variable 'county'"):
        states.position({"county": 1})
    with pytest.raises(DataError, match="more values than there are variables"):
        states.position(("CA", "f"))


def test_changes_of_frame_are_compared_draw_by_draw(states):
    other = Estimates(states.groups, states.draws - 0.1, states.population)
    np.testing.assert_allclose(states.minus(other).draws, 0.1)
    with pytest.raises(DataError, match="differ in their groups"):
        states.minus(states.select({"state": "CA"}))


def test_probabilities_and_ranks(states):
    above = states.probability(above=0.5)
    assert above["CA"] == pytest.approx(np.mean(states.draws[:, 0] > 0.5))
    between = states.probability(above=0.4, below=0.6)
    assert between["NY"] == pytest.approx(np.mean((states.draws[:, 1] > 0.4) & (states.draws[:, 1] < 0.6)))
    assert states.probability_greater("CA", "TX") == np.mean(states.draws[:, 0] > states.draws[:, 2])
    ranks = states.ranks()
    assert ranks.index.tolist() == ["CA", "NY", "TX"]
    assert ranks["p_first"].sum() == pytest.approx(1)
    assert ranks["rank"].sum() == pytest.approx(6)
    with pytest.raises(DataError, match="needs a limit"):
        states.probability()


def test_selection_keeps_draws(crossed):
    chosen = crossed.select({"state": ["CA", "TX"], "sex": "f"})
    assert chosen.labels == ("CA, f", "TX, f")
    np.testing.assert_array_equal(chosen.draws, crossed.draws[:, [0, 2]])
    with pytest.raises(DataError, match="no estimate is left"):
        crossed.select({"state": "NY"})


def test_the_datatree_keeps_chains_and_labels(states, crossed):
    tree = states.to_datatree()
    estimate = tree["posterior"]["estimate"]
    assert estimate.dims == ("chain", "draw", "state")
    np.testing.assert_array_equal(estimate.sel(state="NY", chain=1).to_numpy(), states.draws[100:, 1])
    assert tree["constant_data"]["population"].sel(state="TX") == 30
    assert crossed.to_datatree()["posterior"]["estimate"].sel(group="CA, m").coords["sex"] == "m"


def test_a_survey_beside_the_estimates(states, poll):
    beside = states.with_survey(survey_estimates(poll, "yes", "state", weights="w"))
    table = beside.to_pandas().set_index("state")
    expected = np.average(poll["yes"], weights=poll["w"] * (poll["state"] == "TX"))
    assert table.loc["TX", "weighted"] == pytest.approx(expected)
    assert table.loc["TX", "shift"] == pytest.approx(table.loc["TX", "estimate"] - expected)
    with pytest.raises(DataError, match="no column 'state'"):
        states.with_survey(survey_estimates(poll, "yes", "sex"))


def test_plug_in_estimates_lead_where_there_are_any(states):
    fit = Estimates(states.groups, states.draws, states.population, plug_in=np.array([0.61, 0.5, 0.42]))
    assert fit.to_pandas()["estimate"].tolist() == [0.61, 0.5, 0.42]
    assert fit.difference("CA", "TX").estimate[0] == pytest.approx(0.19)
    assert fit.ratio("CA", "TX").estimate[0] == pytest.approx(0.61 / 0.42)


def test_known_outcomes(states):
    table = states.against({"CA": 0.61, "TX": 0.9}).set_index("state")
    assert table.loc["CA", "error"] == pytest.approx(states.estimate[0] - 0.61)
    assert bool(table.loc["CA", "covered_90"])
    assert not bool(table.loc["TX", "covered_90"])
    assert pd.isna(table.loc["NY", "covered_90"])
    assert states.against({"state": ["CA"], "vote": [0.61]}, column="vote").loc[0, "truth"] == 0.61
    with pytest.raises(DataError, match="no group of the estimates"):
        states.against({"FL": 0.5})
