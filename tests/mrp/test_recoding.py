"""Recoding with its audit; group-level predictors with one set of moments."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bayeslmm.errors import DataError, DataWarning
from bayeslmm.mrp.frame import PoststratFrame
from bayeslmm.mrp.recoding import group_predictors, recode

SURVEY = pd.DataFrame({"educ": ["HS", "AA", "BA", "AA", None], "age": [18, 40, 66, 70, 30]})


def test_the_audit_names_every_value_and_its_rows():
    recoded = recode(SURVEY, {"educ": {"AA": "Some college", "BA": "College"}})
    assert recoded.data["educ"].tolist()[:4] == ["HS", "Some college", "College", "Some college"]
    audit = recoded.audit.set_index("from")
    assert audit.loc["AA", "rows"] == 2
    assert audit["how"].to_dict() == {"AA": "mapped", "BA": "mapped", "HS": "kept", "(missing)": "kept"}
    assert audit["rows"].sum() == len(SURVEY)
    assert "Some college" in str(recoded)
    assert "<table" in recoded._repr_html_()


def test_functions_recode_too():
    recoded = recode(SURVEY, {"age": lambda years: "65+" if years >= 65 else "under 65"})
    assert recoded.data["age"].tolist() == ["under 65", "under 65", "65+", "65+", "under 65"]


def test_the_library_of_the_survey_is_kept():
    recoded = recode(pl.DataFrame({"educ": ["HS", "AA"]}), {"educ": {"AA": "HS"}})
    assert isinstance(recoded.data, pl.DataFrame)
    assert recoded.data["educ"].to_list() == ["HS", "HS"]


def test_a_rule_for_a_value_nobody_has_warns():
    with pytest.warns(DataWarning, match=r"no row has 'educ' equal to 'ba'(?s:.*)Did you mean 'BA'"):
        recoded = recode(SURVEY, {"educ": {"ba": "College"}})
    assert recoded.audit.set_index("from").loc["ba", "how"] == "not found"


def test_an_unknown_column_is_refused():
    with pytest.raises(DataError, match="no column 'education'"):
        recode(SURVEY, {"education": {}})


def test_survey_and_frame_get_the_same_values():
    """Standardising each side by its own rows would not: the two hold states in different proportions."""
    states = pd.DataFrame({"state": ["CA", "NY", "TX", "WY"], "dem": [61.0, 58.0, 44.0, 30.0], "region": list("WESW")})
    votes = group_predictors(states, on="state")
    survey = votes.join(pd.DataFrame({"state": ["CA", "CA", "CA", "TX"]}))
    frame = PoststratFrame({"state": ["CA", "TX", "WY"], "n": [10, 10, 1]}).join(votes)
    assert survey["dem"].iloc[0] == frame.data["dem"].iloc[0]
    assert votes.moments["dem"] == pytest.approx((48.25, np.std([61, 58, 44, 30], ddof=1)))
    assert survey["region"].tolist() == ["W", "W", "W", "S"]
    assert "mean 48.25" in repr(votes)


def test_standardising_is_a_choice():
    states = {"state": ["CA", "TX"], "dem": [60.0, 40.0], "pop": [39.0, 30.0]}
    assert group_predictors(states, on="state", standardize=False).moments == {}
    assert list(group_predictors(states, on="state", standardize=["dem"]).moments) == ["dem"]
    assert group_predictors(states, on="state", columns=["pop"]).table.columns.tolist() == ["pop"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"state": ["CA", "CA"], "dem": [1.0, 2.0]}, "more than one row for 'CA'"),
        ({"state": ["CA", None], "dem": [1.0, 2.0]}, "1 rows of the table have no 'state'"),
        ({"State": ["CA"], "dem": [1.0]}, "no column 'state'"),
        ({"state": ["CA", "TX"], "dem": [1.0, 1.0]}, "'dem' does not vary"),
    ],
)
def test_unusable_tables_are_refused(table, message):
    with pytest.raises(DataError, match=message):
        group_predictors(table, on="state")


def test_groups_that_the_table_lacks_are_named():
    votes = group_predictors({"state": ["CA", "TX"], "dem": [1.0, np.nan]}, on="state", standardize=False)
    with pytest.raises(DataError, match=r"1 level of 'state' not in the table of group predictors: 'NY' \(2 rows\)"):
        votes.join({"state": ["CA", "NY", "NY"]})
    with pytest.raises(DataError, match="no 'dem' for 'TX'"):
        votes.join({"state": ["TX"]})
