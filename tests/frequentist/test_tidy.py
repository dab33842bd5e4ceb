"""Tidy frames against broom.mixed: columns and numbers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError

CASES = json.loads((Path(__file__).parents[1] / "reference" / "quality.json").read_text())
NAMES = [f"{case['dataset']}-{'reml' if case['reml'] else 'ml'}" for case in CASES]


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def pair(request):
    case = request.param
    return blm.lmer(case["formula"], blm.datasets.load(case["dataset"]), reml=case["reml"]), case


@pytest.fixture(scope="module")
def sleep():
    return blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


def our_name(term):
    """Return broom's term in our names: the intercept, and treatment contrasts."""
    return term.replace("(Intercept)", "Intercept").replace("COMB1", "COMB[T.1]").replace("SexFemale", "Sex[T.Female]")


def test_tidy_agrees_with_broom_mixed(pair):
    fit, case = pair
    theirs = pd.DataFrame(case["tidy"]).assign(term=lambda d: d["term"].map(our_name))
    ours = fit.tidy(conf_int=True)
    assert set(theirs.columns) <= set(ours.columns)
    keys = ["effect", "group", "term"]
    merged = theirs.merge(ours, on=keys, suffixes=("_r", ""), how="left")
    assert len(merged) == len(ours) == len(theirs)
    np.testing.assert_allclose(merged["estimate"], merged["estimate_r"], rtol=2e-5, atol=1e-6)
    fixed = merged[merged["effect"] == "fixed"]
    for column in ("std.error", "statistic", "conf.low", "conf.high"):
        np.testing.assert_allclose(fixed[column].astype(float), fixed[f"{column}_r"].astype(float), rtol=1e-5)


def test_one_terms_parameters_stand_in_brooms_order(sleep):
    theirs = [our_name(row["term"]) for row in CASES[0]["tidy"]]
    assert sleep.tidy()["term"].tolist() == theirs


def test_glance_agrees_with_broom_mixed(pair):
    fit, case = pair
    (theirs,) = case["glance"]
    ours = fit.glance()
    assert list(ours.columns) == list(theirs)
    for name, value in theirs.items():
        assert ours.loc[0, name] == pytest.approx(value, rel=1e-7)


def test_augment_agrees_with_broom_mixed(pair):
    fit, case = pair
    ours = fit.augment()
    added = [name for name in case["augment_columns"] if name.startswith(".")]
    assert [name for name in ours.columns if name.startswith(".")] == [*added, ".std.resid"]
    theirs = pd.DataFrame(case["augment"])
    np.testing.assert_allclose(ours[added].head(5), theirs[added], rtol=1e-4, atol=1e-7)


def test_group_effects_and_coefficients_of_levels(sleep):
    values = sleep.tidy("ran_vals", conf_int=True, level=0.9)
    row = values[(values["level"] == "308") & (values["term"] == "Days")].iloc[0]
    assert row["estimate"] == pytest.approx(sleep.ranef["Subject"].loc["308", "Days"])
    assert row["conf.high"] - row["estimate"] == pytest.approx(1.6448536 * row["std.error"])
    coefficients = sleep.tidy("ran_coefs")
    days = coefficients[coefficients["term"] == "Days"]["estimate"]
    np.testing.assert_allclose(days, sleep.fixef["Days"] + sleep.ranef["Subject"]["Days"])
    assert "std.error" not in coefficients


def test_degrees_of_freedom_are_chosen_or_left_out(sleep):
    assert sleep.tidy("fixed").loc[1, "df"] == pytest.approx(17, abs=0.01)
    plain = sleep.tidy("fixed", ddf=None)
    assert "df" not in plain
    assert "p.value" not in plain


def test_other_intervals_can_be_asked_for(sleep):
    wald = sleep.tidy("ran_pars", conf_int=True)
    profile = sleep.tidy("ran_pars", conf_int=True, method="profile")
    assert (wald["conf.low"] != profile["conf.low"]).all()
    assert profile.loc[2, "conf.low"] == pytest.approx(3.801, abs=1e-3)


def test_an_unknown_kind_of_effect_is_refused(sleep):
    with pytest.raises(DataError, match="fixed, ran_pars, ran_vals, ran_coefs"):
        sleep.tidy("random")
