"""Every example runs as a script, and ends with the numbers that its story states or that were published."""

import json
import re
import runpy
from pathlib import Path

import matplotlib as mpl
import pytest

import bayeslmm as blm

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STORIES = sorted(path for path in EXAMPLES.glob("*.py") if not path.stem.endswith("_app"))


@pytest.fixture(autouse=True)
def without_a_screen():
    with mpl.rc_context({"backend": "agg", "figure.max_open_warning": 0}):
        yield
    from matplotlib import pyplot

    pyplot.close("all")


def schools(space):
    # lme4 prints these for nlschools; MASS, chapter 10, has the same data.
    assert space["fit"].criterion == pytest.approx(15132.86, abs=5e-3)
    assert space["fit"].varcorr.entries[0].variance[0] == pytest.approx(8.507, abs=5e-4)
    assert space["fit"].sigma ** 2 == pytest.approx(39.998, abs=5e-4)
    assert list(space["fit"].fixef) == pytest.approx([10.63524, 2.24696, -0.01562, 0.16538, -2.02161], abs=5e-6)
    assert space["comparison"].tests[0].statistic == pytest.approx(825.09, abs=5e-3)
    assert space["both"].flags == ()


def ratings(space):
    # lme4's REML criteria and standard deviations of the three models by department, and of the crossed one.
    assert space["intercepts"].criterion == pytest.approx(249883.07, abs=5e-3)
    assert space["slopes"].criterion == pytest.approx(249850.80, abs=5e-3)
    assert space["both"].criterion == pytest.approx(249812.46, abs=5e-3)
    assert space["both"].varcorr.entries[0].sd == pytest.approx([0.08044, 0.02978], abs=5e-6)
    assert space["fit"].criterion == pytest.approx(237733.83, abs=5e-3)
    assert space["post"].ranks("d").shape[0] == 1128
    assert [entry.sd[0] for entry in space["fit"].varcorr.entries] == pytest.approx(
        [0.32557, 0.51500, 0.08314], abs=5e-6
    )


@pytest.mark.parametrize(
    ("terms", "criterion"),
    [("(1 | dept)", 249883.07), ("(-1 + lectage_num | dept)", 249850.80), ("(lectage_num | dept)", 249812.46)],
)
def test_the_three_models_by_department(terms, criterion):
    fit = blm.lmer(f"y ~ lectage_num + service + {terms}", blm.datasets.load("InstEval"))
    assert fit.criterion == pytest.approx(criterion, abs=5e-3)


def wages(space):
    # Stata's output of `mixed ln_wage ttl_exp i.race age || idcode:`.
    fit = space["fit"]
    assert (fit.n_obs, len(fit.ranef["idcode"])) == (28510, 4710)
    assert fit.loglik == pytest.approx(-10471.727, abs=5e-4)
    assert fit.varcorr.entries[0].variance[0] == pytest.approx(0.1037959, abs=5e-8)
    assert fit.sigma**2 == pytest.approx(0.0890420, abs=5e-8)
    assert fit.lr_test().statistic == pytest.approx(11678.16, abs=5e-3)


def complaints(space):
    truth = space["truth"]
    frame = space["frame"].loc[truth.index]
    assert ((frame["lower"] < truth) & (truth < frame["upper"])).sum() >= 4
    ratio = space["errors"].loc["manager[T.male]"]
    assert ratio["multilevel"] > 1.5 * ratio["logistic"]
    assert space["quadrature"].loglik != space["multilevel"].loglik


def poll(space):
    errors = space["errors"]
    assert errors["error"].abs().mean() < 0.7 * errors["raw_error"].abs().mean()
    assert errors["covered_90"].mean() > 0.75


def election(space):
    # The census has fewer graduates than the survey; the errors are those that the story states.
    errors = 100 * space["errors"][["error", "raw_error"]]
    assert space["frame"].raking.converged
    assert errors["error"].abs().mean() < 0.6 * errors["raw_error"].abs().mean()
    assert errors["raw_error"].abs().mean() > 10
    assert -4 < errors["error"].mean() < -1
    assert 0.4 < space["errors"]["covered_90"].mean() < 0.6


def priors(space):
    medians = space["seen"].table()["posterior median"]
    assert medians["too sure"] < 0.5 * medians["uniform"]


def sleep(space):
    assert space["fit"].criterion == pytest.approx(1743.628, abs=5e-4)
    assert list(space["fit"].fixef) == pytest.approx([251.405, 10.467], abs=5e-4)


def wide_to_long(space):
    assert len(space["long"]) == len(space["children"]) == 108
    assert space["mundlak"].fixef["tenure"] == pytest.approx(space["within"], rel=1e-3)


CHECKS = {
    check.__name__: check
    for check in (schools, ratings, wages, complaints, poll, election, priors, sleep, wide_to_long)
}


def test_every_story_has_its_check():
    assert {path.stem for path in STORIES} == set(CHECKS)


# The posterior of 4,117 parameters takes a minute.
LONG = {"ratings"}


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in LONG), id=path.stem) for path in STORIES]
)
def test_the_story_runs_and_its_numbers_hold(path):
    CHECKS[path.stem](runpy.run_path(str(path)))


def test_stories_begin_with_a_title_and_have_no_stored_output():
    for path in STORIES:
        text = path.read_text(encoding="utf-8")
        cells = re.split(r"^# %%", text, flags=re.MULTILINE)
        assert re.match(r" \[markdown\]\n# # \w", cells[1]), path.name


def test_the_app_names_what_it_needs():
    text = (EXAMPLES / "shrinkage_app.py").read_text(encoding="utf-8")
    compile(text, "shrinkage_app.py", "exec")
    assert "import marimo" in text


# `mixed wage tenure married || occupation:` and its kin, by lme4 (tests/reference/nlsw88.R): the likelihood of Stata.
NLSW88 = json.loads((EXAMPLES.parent / "tests" / "reference" / "nlsw88.json").read_text())["models"]


@pytest.mark.parametrize("stata", NLSW88)
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_wages_by_occupation_are_those_of_lme4(stata):
    theirs = NLSW88[stata]
    data = blm.datasets.load("nlsw88")
    data["married"] = (data["married"] == "Married").astype(float)
    fit = blm.lmer(f"wage ~ tenure + married + {theirs['term']}", data, reml=False)
    assert fit.n_obs == theirs["rows"]
    assert fit.loglik == pytest.approx(theirs["loglik"], abs=2e-6)
    assert list(fit.fixef) == pytest.approx(theirs["fixef"], rel=2e-5)
    assert list(fit.vcov.to_numpy().diagonal() ** 0.5) == pytest.approx(theirs["se"], rel=1e-4)
    found = [(entry.factor, value) for entry in fit.varcorr.entries for value in entry.variance]
    found = sorted([*found, ("Residual", fit.sigma**2)], key=lambda pair: pair[0])
    # lme4 calls the second of two independent terms of a factor occupation.1
    names = [name.partition(".")[0] for name in theirs["groups"]]
    expected = sorted(zip(names, theirs["variances"], strict=True), key=lambda pair: pair[0])
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=2e-4, abs=2e-6)
