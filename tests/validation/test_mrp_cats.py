"""rstanarm's MRP vignette: a simulated preference for cats whose truth is known."""

import json

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

FORMULA = "cat_pref ~ C(male) * C(age) + (1 | state) + (1 | eth) + (1 | income)"


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "mrp" / "cats"


@pytest.fixture(scope="module")
def survey(folder):
    return pd.read_csv(folder / "sample.csv")


@pytest.fixture(scope="module")
def frame(folder):
    return blm.PoststratFrame(pd.read_csv(folder / "poststrat.csv"), counts="N")


@pytest.fixture(scope="module")
def truth(folder):
    return pd.read_csv(folder / "published_state_table.csv")[["state", "true_pref"]]


@pytest.fixture(scope="module")
def published(folder):
    return json.loads((folder / "published_fit.json").read_text())


def error_in_points(estimates, truth):
    """Return the mean absolute errors of MRP and of raw means over the states that were polled."""
    table = estimates.select({"state": truth["state"].tolist()}).against(truth, column="true_pref")
    polled = table["raw_error"].notna()
    return 100 * table.loc[polled, "error"].abs().mean(), 100 * table.loc[polled, "raw_error"].abs().mean()


def test_the_truth_of_the_table_is_the_frame_s(folder, truth):
    """The published truth follows from the published cells."""
    cells = pd.read_csv(folder / "true_popn.csv").merge(pd.read_csv(folder / "poststrat.csv"))
    people = cells.groupby("state")["N"].sum()
    known = cells["cat_pref"].mul(cells["N"]).groupby(cells["state"]).sum() / people
    np.testing.assert_allclose(known.to_numpy(), truth.sort_values("state")["true_pref"], atol=5e-5)


def test_the_draft_halves_the_error(survey, frame, truth, published):
    fit = blm.model(FORMULA, survey, family="bernoulli").fit()
    estimates = blm.poststratify(fit, frame, by=["state", ()], new_levels="sample", seed=1)
    mrp, raw = error_in_points(estimates, truth)
    assert round(raw) == published["state_abs_err_pct"]["sample"]["mean"]
    assert mrp < published["state_abs_err_pct"]["mrp"]["mean"] + 0.5
    assert estimates.estimate[estimates.position({})] == pytest.approx(published["true"], abs=0.03)


@pytest.mark.slow
def test_the_posterior_beside_rstanarm(survey, frame, truth, published):
    """Other priors than rstanarm's, so agreement is to posterior SDs."""
    post = blm.model(FORMULA + " + (1 | age)", survey, family="bernoulli").sample(seed=1, progress=False)
    estimates = blm.poststratify(post, frame, by=["state", ()], new_levels="sample", seed=1)
    mrp, raw = error_in_points(estimates, truth)
    national = estimates.position({})
    mean, sd = published["popn_mrp"]["mean"], published["popn_mrp"]["sd"]
    print(
        f"mean absolute error of states: MRP {mrp:.2f}, raw {raw:.2f} points; the population"
        f" {estimates.estimate[national]:.3f} (SD {estimates.sd[national]:.3f}), rstanarm {mean} ({sd}),"
        f" truth {published['true']}; Pareto k {post.run.pareto_k:.2f}"
    )
    assert round(mrp) == published["state_abs_err_pct"]["mrp"]["mean"]
    assert estimates.estimate[national] == pytest.approx(mean, abs=0.5 * sd)
    assert estimates.sd[national] == pytest.approx(sd, rel=0.25)
