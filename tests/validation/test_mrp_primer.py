"""The MRP primer of Kastellec, Lax and Phillips: its printed fit and all 51 state estimates."""

import json

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

FORMULA = (
    "`yes.of.all` ~ `p.relig.full` + `p.kerry.full` + (1 | `race.female`) + (1 | `age.cat`) + (1 | `edu.cat`) "
    "+ (1 | `age.edu.cat`) + (1 | state) + (1 | region) + (1 | poll)"
)
CELLS = {
    "crace.female": "race.female",
    "cage.cat": "age.cat",
    "cedu.cat": "edu.cat",
    "cage.edu.cat": "age.edu.cat",
    "cstate": "state",
    "cregion": "region",
    "cp.relig.full": "p.relig.full",
    "cp.kerry.full": "p.kerry.full",
    "cfreq": "n",
}


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "mrp"


@pytest.fixture(scope="module")
def polls(folder):
    return pd.read_parquet(folder / "primer_megapoll.parquet")


@pytest.fixture(scope="module")
def fit(polls):
    return blm.model(FORMULA, polls, family="bernoulli").fit()


@pytest.fixture(scope="module")
def frame(folder):
    cells = pd.read_csv(folder / "primer_poststratification_2000.csv")
    return blm.PoststratFrame(cells[list(CELLS)].rename(columns=CELLS))


@pytest.fixture(scope="module")
def estimates(fit, frame):
    return blm.poststratify(fit, frame, by=["state", ()], exclude=["poll"], new_levels="zero", seed=1)


@pytest.fixture(scope="module")
def reference(folder):
    table = pd.read_csv(folder / "primer_reference_state_estimates_lme4.csv").set_index("state")
    return table, json.loads((folder / "primer_reference_fit_lme4.json").read_text())


def test_the_printed_fit(fit):
    """As the primer prints it, two decimals, and its AIC with one."""
    assert fit.n_obs == 6341
    assert fit.fixef.round(2).tolist() == [-1.41, -0.02, 0.02]
    printed = {"state": 0.04, "age.edu.cat": 0.09, "race.female": 0.23, "poll": 0.21, "region": 0.20}
    printed |= {"edu.cat": 0.36, "age.cat": 0.55}
    assert {entry.factor: round(float(entry.sd[0]), 2) for entry in fit.varcorr.entries} == printed
    assert round(fit.aic, 1) == 7459.4


def test_the_fit_of_lme4(fit, reference):
    fitted = reference[1]
    assert fit.criterion == pytest.approx(fitted["minus2logLik"], abs=1e-4)
    assert fit.criterion <= fitted["minus2logLik"]
    np.testing.assert_allclose(fit.fixef, list(fitted["fixef"].values()), atol=2e-4)
    for entry in fit.varcorr.entries:
        assert entry.sd[0] == pytest.approx(fitted["theta"][f"{entry.factor}.(Intercept)"], abs=2e-4)


def test_all_states_within_a_hundredth_of_a_point(estimates, reference):
    table = reference[0]
    ours = 100 * estimates.select({"state": table.index.tolist()}).to_pandas().set_index("state")["estimate"]
    assert len(ours) == 51
    assert (ours - table["mrp_pct_tight"]).abs().max() < 0.01
    assert (ours - table["mrp_pct"]).abs().max() < 0.01
    printed = {"AL": 18.35, "CA": 45.52, "MA": 47.08, "UT": 19.00, "AK": 35.69}
    assert ours[list(printed)].to_dict() == pytest.approx(printed, abs=0.01)
    assert 100 * estimates.estimate[estimates.position({})] == pytest.approx(33.62, abs=0.01)


def test_disaggregation_of_all_respondents(polls, reference):
    table = reference[0]
    raw = blm.survey_estimates(polls.dropna(subset=["state"]), "yes.of.all", "state").set_index("state")
    known = table[table["n"] > 0]
    np.testing.assert_allclose(100 * raw.loc[known.index, "raw"], known["disagg_pct"])
    np.testing.assert_array_equal(raw.loc[known.index, "n"], known["n"])


def test_states_without_respondents_are_named_and_get_wider_intervals(fit, frame, estimates):
    assert "'AK', 'HI'" in str(frame.check(fit, exclude=["poll"]))
    sampled = blm.poststratify(fit, frame, by=["state", ()], exclude=["poll"], new_levels="sample", seed=1)
    alaska = sampled.position("AK")
    assert sampled.survey["n"][alaska] == 0
    assert sampled.sd[alaska] > estimates.sd[estimates.position("AK")]
    assert 100 * abs(sampled.estimate[alaska] - estimates.estimate[estimates.position("AK")]) < 0.01


@pytest.mark.slow
def test_the_posterior_beside_the_fit(polls, frame, estimates):
    """Full Bayes moves states by less than two posterior SDs, and is wider."""
    post = blm.collapse(blm.model(FORMULA, polls, family="bernoulli")).sample(seed=1, progress=False)
    bayes = blm.poststratify(post, frame, by=["state", ()], exclude=["poll"], new_levels="sample", seed=1)
    moved, whole = 100 * np.abs(bayes.estimate - estimates.estimate), bayes.position({})
    print(
        f"posterior (Pareto k {post.run.pareto_k:.2f}) against the draft: states move by {moved.mean():.2f} points"
        f" on average, at most {moved.max():.2f} ({bayes.labels[int(moved.argmax())]}); SDs are"
        f" {np.median(bayes.sd / estimates.sd):.2f} times the draft's (median);"
        f" the nation {100 * bayes.estimate[whole]:.2f} %"
    )
    assert np.max(np.abs(bayes.estimate - estimates.estimate) / bayes.sd) < 2
    assert np.median(bayes.sd / estimates.sd) > 1
