"""Cooperative Congressional Election Study 2018: 50 states by lme4, on 5,000 and on all 59,810 respondents."""

import json

import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SingularFitWarning

TERMS = "(1 | state) + (1 | eth) + (1 | educ) + {}(1 | educ:age) + (1 | educ:eth) + repvote + region + male"
FULL = "abortion ~ " + TERMS.format("(1 | sex:eth) + ")
SEXES = {0.5: "male", -0.5: "female"}

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "mrp"


@pytest.fixture(scope="module")
def votes(folder):
    return blm.group_predictors(pd.read_csv(folder / "cces18_statelevel.csv"), on="state", standardize=False)


@pytest.fixture(scope="module")
def frame(folder, votes):
    cells = pd.read_csv(folder / "cces18_poststrat.csv")
    return blm.PoststratFrame(cells.assign(sex=cells["male"].map(SEXES))).join(votes)


@pytest.fixture(scope="module")
def sample5000(folder, votes):
    survey = pd.read_csv(folder / "cces18_sample5000.csv")
    return votes.join(survey.assign(sex=survey["male"].map(SEXES)))


@pytest.fixture(scope="module")
def everyone(folder, votes):
    survey = pd.read_parquet(folder / "cces18_survey.parquet")
    return votes.join(survey.assign(sex=survey["male"].map(SEXES)))


@pytest.fixture(scope="module")
def reference(folder):
    states = pd.read_csv(folder / "cces18_reference_state_estimates_lme4.csv").set_index("state")
    return states, json.loads((folder / "cces18_reference_fits_lme4.json").read_text())


def points_off(fit, frame, reference, key):
    """Return the largest difference from the reference in percentage points: states, nation, raw."""
    states, fits = reference
    estimates = blm.poststratify(fit, frame, by=["state", ()], seed=1)
    table = estimates.select({"state": states.index.tolist()}).to_pandas().set_index("state")
    national = estimates.estimate[estimates.position({})] - fits[key]["national"]
    state = (table["estimate"] - states[f"mrp_{key}"]).abs().max()
    raw = (table["raw"] - states[f"raw_{key}"]).abs().max()
    return 100 * state, 100 * abs(national), 100 * raw


def test_five_thousand_respondents(sample5000, frame, reference):
    with pytest.warns(SingularFitWarning):
        fit = blm.model(FULL, sample5000, family="bernoulli").fit()
    state, national, raw = points_off(fit, frame, reference, "s5")
    assert state < 0.001
    assert national < 0.001
    assert raw < 1e-9
    fitted = reference[1]["s5"]
    for entry in fit.varcorr.entries:
        name = entry.factor.replace("sex", "male")
        assert entry.sd[0] == pytest.approx(fitted["sd"][name], abs=2e-4)
    assert fit.design.n == fitted["N"]
    assert blm.collapse(blm.model(FULL, sample5000, family="bernoulli")).design.n == fitted["cells"]


@pytest.mark.parametrize("terms", ["(1 | sex:eth) + ", ""], ids=["as published", "without the empty term"])
def test_all_respondents(everyone, frame, reference, terms):
    """lme4 found no variance between sex-by-ethnicity groups: left in, it changes nothing."""
    fit = blm.model("abortion ~ " + TERMS.format(terms), everyone, family="bernoulli").fit()
    state, national, raw = points_off(fit, frame, reference, "full")
    print(f"59,810 respondents: states within {state:.5f}, the nation within {national:.5f} points of lme4")
    assert state < 0.001
    assert national < 0.001
    assert raw < 1e-9


def test_frame_and_survey_agree(sample5000, frame):
    assert frame.check(blm.model(FULL, sample5000, family="bernoulli")).ok


def test_standardising_twice_is_noticed(folder, sample5000, frame):
    """A published vignette scaled the vote share in survey and census separately; the check says so."""
    share = sample5000["repvote"]
    survey = sample5000.assign(repvote=(share - share.mean()) / share.std())
    cells = frame.data["repvote"]
    other = blm.PoststratFrame(frame.data.assign(repvote=(cells - cells.mean()) / cells.std()))
    check = other.check(blm.model(FULL, survey, family="bernoulli"))
    assert any("Standardised separately?" in finding.message for finding in check.findings)
    assert not check.ok


def test_the_mrp_estimate_of_five_thousand_is_nearer_to_sixty_thousand_than_the_raw_one(reference):
    """What MRP is for: the states' full-sample estimates are the yardstick."""
    states = reference[0]
    mrp = (states["mrp_s5"] - states["mrp_full"]).abs().mean()
    raw = (states["raw_s5"] - states["mrp_full"]).abs().mean()
    assert mrp < 0.6 * raw


@pytest.mark.slow
def test_the_posterior_of_all_respondents(everyone, frame, reference):
    post = blm.model(FULL, everyone, family="bernoulli").sample(seed=1, progress=False)
    estimates = blm.poststratify(post, frame, by=["state", ()], seed=1)
    states, fits = reference
    table = estimates.select({"state": states.index.tolist()}).to_pandas().set_index("state")
    state = 100 * (table["estimate"] - states["mrp_full"]).abs()
    whole = estimates.position({})
    nation = 100 * (estimates.estimate[whole] - fits["full"]["national"])
    print(
        f"posterior of 59,810 respondents (Pareto k {post.run.pareto_k:.2f}): states differ from lme4 by"
        f" {state.mean():.2f} points on average, at most {state.max():.2f}; the nation"
        f" {100 * estimates.estimate[whole]:.2f} % (SD {100 * estimates.sd[whole]:.2f}), {nation:+.2f} points"
    )
    assert state.max() < 0.5
    assert abs(nation) < 0.2
    assert (state / (100 * table["sd"])).max() < 0.5
