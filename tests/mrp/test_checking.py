"""What `frame.check` finds, and what it must not report."""

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError
from bayeslmm.formula.design import build_design
from bayeslmm.mrp.checking import nearest_level
from bayeslmm.mrp.frame import PoststratFrame

SURVEY = pd.DataFrame(
    {
        "y": np.arange(12.0),
        "state": ["CA", "NY", "TX"] * 4,
        "eth": ["White", "Hispanic", "Black", "White"] * 3,
        "age": [20, 30, 40, 50, 60, 70] * 2,
        "dem": [0.6, 0.5, 0.4] * 4,
    }
)
FRAME = pd.DataFrame(
    {
        "state": ["CA", "NY", "TX"],
        "eth": ["White", "Hispanic", "Black"],
        "age": [25, 35, 45],
        "dem": [0.6, 0.5, 0.4],
        "n": [50, 30, 20],
    }
)


@pytest.fixture
def design():
    return build_design("y ~ age + dem + (1 | state) + (1 | eth)", SURVEY)


def findings(frame, design, severity):
    return [
        f"{finding.column}: {finding.message}"
        for finding in PoststratFrame(frame).check(design).findings
        if finding.severity == severity
    ]


def test_agreement_finds_nothing(design):
    check = PoststratFrame(FRAME).check(design)
    assert check.findings == ()
    assert check.ok
    assert str(check) == "Frame and survey agree in every column and level."
    check.raise_errors()


@pytest.mark.parametrize(
    ("change", "severity", "message"),
    [
        ({"age": None}, "error", "age: the frame has no such column"),
        ({"age": [25, np.nan, 45]}, "error", "age: missing in 1 cell, 30 % of the population"),
        ({"age": ["young", "old", "old"]}, "error", "age: the frame has text, the survey numbers"),
        (
            {"state": ["CA", "NY", "VT"]},
            "note",
            "state: 1 level not in the survey: 'VT' (1 cell, 20 % of the population)",
        ),
        (
            {"state": ["CA", "NY", "VT"]},
            "warning",
            "state: 1 level of the survey not in the frame: 'TX' (4 respondents",
        ),
        ({"eth": ["White", "hispanic", "Black"]}, "warning", "eth: 'hispanic' in the frame looks like 'Hispanic'"),
        ({"eth": ["White ", "Hispanic", "Black"]}, "warning", "eth: 'White ' in the frame looks like 'White'"),
        ({"age": [25, 35, 99]}, "note", "age: outside the survey's range 20 to 70 in 1 cell, 20 % of the population"),
        ({"dem": [1.0, 0.0, -1.0]}, "warning", "dem: differs between frame and survey for 3 of 3 levels of 'state'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_differences_are_found(design, change, severity, message):
    frame = FRAME.copy()
    for name, values in change.items():
        frame = frame.drop(columns=name) if values is None else frame.assign(**{name: values})
    assert any(found.startswith(message) for found in findings(frame, design, severity))


def test_a_fixed_effect_cannot_have_a_new_level():
    design = build_design("y ~ eth + (1 | state)", SURVEY)
    (error,) = findings(FRAME.assign(eth=["White", "Asian", "Black"]), design, "error")
    assert error.startswith("eth: 1 level not in the survey: 'Asian'")
    with pytest.raises(DataError, match="'eth': 1 level not in the survey"):
        PoststratFrame(FRAME.assign(eth=["White", "Asian", "Black"])).check(design).raise_errors()


def test_numbers_and_their_texts_are_one_level():
    survey = SURVEY.assign(cell=[1.0, 2.0, 3.0] * 4)
    frame = FRAME.assign(cell=[1, 2, 3])
    design = build_design("y ~ (1 | cell)", survey)
    assert PoststratFrame(frame[["cell", "n"]]).check(design).findings == ()


def test_a_factor_of_the_survey_alone_can_be_excluded():
    design = build_design("y ~ age + (1 | state) + (1 | poll)", SURVEY.assign(poll=list("AB") * 6))
    (error,) = findings(FRAME, design, "error")
    assert error.startswith("poll: the frame has no such column")
    assert "exclude=('poll',)" in error
    assert PoststratFrame(FRAME).check(design, exclude=["poll"]).findings == ()


def test_new_combinations_are_counted():
    survey = SURVEY.iloc[:6]
    design = build_design("y ~ (1 | state:eth)", survey)
    crossed = pd.MultiIndex.from_product([["CA", "NY", "TX"], ["White", "Hispanic", "Black"]], names=["state", "eth"])
    frame = crossed.to_frame(index=False).assign(n=1)
    seen = survey[["state", "eth"]].drop_duplicates()
    (note,) = findings(frame, design, "note")
    assert note.startswith(f"state:eth: {9 - len(seen)} of 9 combinations not in the survey")


@pytest.mark.parametrize(
    ("level", "others", "expected"),
    [
        ("hispanic", ["Hispanic", "White"], "Hispanic"),
        ("Some college", ["Some-College", "HS"], "Some-College"),
        ("Masachusetts", ["Massachusetts", "Maine"], "Massachusetts"),
        ("TX", ["TN"], None),
        ("18-29", ["30-39"], None),
        ("West", ["East"], None),
    ],
)
def test_near_matches(level, others, expected):
    assert nearest_level(level, others) == expected


def test_findings_print_and_tabulate(design):
    check = PoststratFrame(FRAME.assign(state=["CA", "NY", "VT"])).check(design)
    assert str(check).splitlines()[0] == "1 warning, 1 note"
    assert check.to_pandas()["severity"].tolist() == ["warning", "note"]
    assert "<table" in check._repr_html_()
    assert not check.ok
