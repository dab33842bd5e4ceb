"""Design-based estimates against formulas written out, and against replication."""

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError
from bayeslmm.mrp.grouping import make_groups
from bayeslmm.mrp.survey import raw_means, survey_estimates


def test_raw_means_and_their_standard_errors(poll):
    table = survey_estimates(poll, "yes", "state").set_index("state")
    for state, group in poll.groupby("state")["yes"]:
        assert table.loc[state, "raw"] == pytest.approx(group.mean())
        assert table.loc[state, "raw_se"] == pytest.approx(group.std(ddof=1) / np.sqrt(len(group)))


def test_binomial_rows_give_what_their_respondents_give(poll):
    cells = poll.groupby(["state", "age"])["yes"].agg(["mean", "size"]).reset_index()
    groups = make_groups(cells, (("state",),))
    collapsed = raw_means(groups, cells["mean"].to_numpy(), cells["size"].to_numpy(float))
    pd.testing.assert_frame_equal(
        collapsed, survey_estimates(poll, "yes", "state")[["n", "raw", "raw_se"]], check_exact=False
    )


def test_weighted_mean_of_the_whole_sample(poll):
    """The ratio estimator's linearised variance, written out."""
    row = survey_estimates(poll, "yes", weights="w").iloc[0]
    w, y, n = poll["w"], poll["yes"], len(poll)
    mean = np.average(y, weights=w)
    variance = n / (n - 1) * np.sum((w * (y - mean)) ** 2) / w.sum() ** 2
    assert row["weighted"] == pytest.approx(mean)
    assert row["weighted_se"] == pytest.approx(np.sqrt(variance))
    assert row["n_eff"] == pytest.approx(w.sum() ** 2 / np.sum(w**2))


def test_a_domain_uses_the_whole_design(poll):
    row = survey_estimates(poll, "yes", "state", weights="w").set_index("state").loc["TX"]
    inside, n = (poll["state"] == "TX").to_numpy(), len(poll)
    w, y = poll["w"].to_numpy(), poll["yes"].to_numpy()
    mean = np.average(y[inside], weights=w[inside])
    score = np.where(inside, w * (y - mean), 0) / w[inside].sum()
    assert row["weighted_se"] == pytest.approx(np.sqrt(n / (n - 1) * np.sum(score**2)))


def test_clusters_and_strata(poll):
    data = poll.assign(unit=np.arange(len(poll)) // 10, stratum=np.arange(len(poll)) // 100)
    row = survey_estimates(data, "yes", weights="w", strata="stratum", clusters="unit").iloc[0]
    w, y = data["w"], data["yes"]
    score = w * (y - np.average(y, weights=w)) / w.sum()
    totals = score.groupby([data["stratum"], data["unit"]]).sum()
    variance = sum(len(t) * t.var(ddof=1) for _, t in totals.groupby(level=0))
    assert row["weighted_se"] == pytest.approx(np.sqrt(variance))


def test_the_standard_error_is_the_spread_over_repeated_samples():
    rng = np.random.default_rng(4)
    population = pd.DataFrame({"g": rng.choice(["a", "b"], 20_000, p=[0.3, 0.7])})
    population["y"] = rng.binomial(1, np.where(population["g"] == "a", 0.3, 0.6))
    chance = np.where(population["y"] == 1, 2.0, 1.0)
    chance /= chance.sum()
    estimates, errors = [], []
    for _ in range(150):
        sample = population.iloc[rng.choice(len(population), 400, p=chance)]
        sample = sample.assign(w=1 / chance[sample.index])
        row = survey_estimates(sample, "y", "g", weights="w").iloc[0]
        estimates.append(row["weighted"])
        errors.append(row["weighted_se"])
    truth = population.loc[population["g"] == "a", "y"].mean()
    assert np.mean(estimates) == pytest.approx(truth, abs=0.01)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.2)


def test_missing_answers_are_left_out(poll):
    holes = poll.assign(yes=poll["yes"].where(np.arange(len(poll)) > 9))
    assert survey_estimates(holes, "yes")["n"].iloc[0] == len(poll) - 10


def test_a_survey_without_answers_is_refused(poll):
    with pytest.raises(DataError, match="no respondent has a value in all of yes, state"):
        survey_estimates(poll.assign(yes=np.nan), "yes", "state")


def test_margins(poll):
    table = survey_estimates(poll, "yes", ["state", "sex"], weights="w", margins=True)
    assert len(table) == 6 + 3 + 2 + 1
    assert table.loc[(table["state"] == "(all)") & (table["sex"] == "(all)"), "n"].item() == len(poll)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outcome": "answer"}, "no column 'answer'"),
        ({"outcome": "state"}, "'state' is not numeric"),
        ({"outcome": "yes", "weights": "negative"}, "negative or all zero"),
        ({"outcome": "yes", "by": "county"}, "no column 'county'"),
    ],
)
def test_bad_input(poll, options, message):
    with pytest.raises(DataError, match=message):
        survey_estimates(poll.assign(negative=-poll["w"]), **options)
