import json

import numpy as np
import pandas as pd
import pytest

from bayeslmm import datasets
from bayeslmm.datasets.catalogue import CATALOGUE
from bayeslmm.errors import DataError

SHAPES = {
    "nlschools": (2287, 6),
    "sleepstudy": (180, 3),
    "InstEval": (73421, 8),
    "nlswork": (28534, 21),
    "nlsw88": (2246, 17),
    "cbpp": (56, 5),
    "Penicillin": (144, 3),
    "Pastes": (60, 4),
    "Dyestuff": (30, 2),
    "Dyestuff2": (30, 2),
    "radon": (919, 4),
    "Machines": (54, 3),
    "Orthodont": (108, 4),
    "Contraception": (1934, 6),
    "cces2016": (64600, 6),
    "states2016": (51, 6),
}

# factor columns: number of levels, first levels in the order of R, ordered or not
FACTORS = {
    ("nlschools", "class"): (133, ["180", "280", "1082"], False),
    ("nlschools", "COMB"): (2, ["0", "1"], False),
    ("sleepstudy", "Subject"): (18, ["308", "309", "310"], False),
    ("InstEval", "s"): (2972, ["1", "2", "3"], False),
    ("InstEval", "d"): (1128, ["1", "6", "7", "8", "12"], False),
    ("InstEval", "studage"): (4, ["2", "4", "6", "8"], True),
    ("InstEval", "lectage"): (6, ["1", "2", "3"], True),
    ("InstEval", "service"): (2, ["0", "1"], False),
    ("InstEval", "dept"): (14, ["15", "5", "10", "12", "6"], False),
    ("cbpp", "herd"): (15, ["1", "2", "3"], False),
    ("cbpp", "period"): (4, ["1", "2", "3", "4"], False),
    ("Penicillin", "plate"): (24, ["a", "b", "c"], False),
    ("Pastes", "sample"): (30, ["A:a", "A:b", "A:c", "B:a"], False),
    ("Dyestuff", "Batch"): (6, ["A", "B", "C"], False),
    ("radon", "county"): (85, ["AITKIN", "ANOKA", "BECKER"], False),
    ("Machines", "Worker"): (6, ["6", "2", "4", "1", "3", "5"], True),
    ("Machines", "Machine"): (3, ["A", "B", "C"], False),
    ("Orthodont", "Subject"): (27, ["M16", "M05", "M02"], True),
    ("Orthodont", "Sex"): (2, ["Male", "Female"], False),
    ("Contraception", "use"): (2, ["N", "Y"], False),
    ("Contraception", "livch"): (4, ["0", "1", "2", "3+"], False),
}


def test_the_list_names_every_data_set_with_its_size_source_and_licence():
    table = datasets.load()
    assert list(table.columns) == ["name", "rows", "columns", "title", "source", "licence"]
    assert {row.name: (row.rows, row.columns) for row in table.itertuples(index=False)} == SHAPES
    for column in ["title", "source", "licence"]:
        assert (table[column].str.len() > 10).all()


@pytest.mark.parametrize("name", SHAPES)
def test_a_data_set_has_the_stated_size_and_columns(name):
    frame = datasets.load(name)
    assert frame.shape == SHAPES[name]
    assert isinstance(frame.index, pd.RangeIndex)
    entry = next(entry for entry in CATALOGUE if entry.name == name)
    assert list(frame.columns) == list(entry.columns)


@pytest.mark.parametrize("name", SHAPES)
def test_every_column_is_a_number_or_a_factor_and_factors_have_no_gaps(name):
    for column, values in datasets.load(name).items():
        if isinstance(values.dtype, pd.CategoricalDtype):
            assert (name, column) in FACTORS or len(values.cat.categories) > 1
            assert all(isinstance(level, str) for level in values.cat.categories)
            assert set(values.cat.codes) - {-1} == set(range(len(values.cat.categories)))
        else:
            assert values.dtype in ("int64", "float64"), column
        assert (name, column) == ("cces2016", "trump") or name in ("nlswork", "nlsw88") or not values.isna().any()


@pytest.mark.parametrize(("name", "column"), FACTORS)
def test_levels_stand_in_the_order_of_the_source(name, column):
    n_levels, first, ordered = FACTORS[name, column]
    dtype = datasets.load(name)[column].dtype
    assert len(dtype.categories) == n_levels
    assert list(dtype.categories[: len(first)]) == first
    assert dtype.ordered is ordered


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"nlswork", "nlsw88", "radon", "cces2016", "states2016"}))
def test_all_values_and_levels_agree_with_the_reference_data(name, shared):
    folder = shared / "reference" / "data"
    columns = json.loads((folder / f"{name}.json").read_text())["columns"]
    factors = {column: str for column, about in columns.items() if about["type"] == "factor"}
    path = folder / f"{name}.csv"
    if path.exists():
        reference = pd.read_csv(path, dtype=factors, keep_default_na=False)
    else:
        reference = pd.read_parquet(folder / f"{name}.parquet")
    frame = datasets.load(name)
    assert list(frame.columns) == list(columns)
    for column, about in columns.items():
        if about["type"] == "factor":
            assert list(frame[column].cat.categories) == about["levels"]
            assert frame[column].cat.ordered is about["ordered"]
            assert frame[column].astype(str).to_list() == reference[column].astype(str).to_list()
        else:
            np.testing.assert_array_equal(frame[column], reference[column])


def test_nlswork_and_radon_agree_with_the_validation_copies(shared):
    nlswork = datasets.load("nlswork")
    theirs = pd.read_parquet(shared / "data" / "stata" / "nlswork.parquet")
    pd.testing.assert_frame_equal(nlswork, theirs, rtol=0, atol=1e-12, check_column_type=False)
    radon = datasets.load("radon")
    theirs = pd.read_csv(shared / "data" / "teaching" / "radon_mn.csv")
    for column in ["log_radon", "floor", "log_uranium"]:
        np.testing.assert_allclose(radon[column], theirs[column], rtol=0, atol=1e-12)
    assert radon["county"].astype(str).to_list() == theirs["county"].to_list()


def test_the_election_is_the_one_that_took_place():
    """Official results: Leip's Atlas for 2012, the Federal Election Commission for 2016, to a tenth of a point."""
    states = datasets.load("states2016").set_index("state")
    assert states["trump2016"][["TX", "MI", "NY", "MD"]].tolist() == pytest.approx(
        [0.522, 0.475, 0.365, 0.339], abs=1e-3
    )
    assert states["obama2012"][["OH", "DC"]].tolist() == pytest.approx([0.506, 0.909], abs=1e-3)
    assert set(datasets.load("cces2016")["state"].cat.categories) == set(states.index)


@pytest.mark.parametrize(
    ("name", "column", "mean"),
    [
        ("Dyestuff", "Yield", 1527.5),
        ("Dyestuff2", "Yield", 5.6656),
        ("Penicillin", "diameter", 22.9722),
        ("Pastes", "strength", 60.0533),
    ],
)
def test_means_are_the_intercepts_that_lme4_prints(name, column, mean):
    # The designs are balanced, so the REML intercept is the mean; printed in the lme4 book, chapters 1 and 2.
    assert datasets.load(name)[column].mean() == pytest.approx(mean, abs=5e-5)


def test_the_line_through_sleepstudy_is_the_published_one():
    frame = datasets.load("sleepstudy")
    slope, intercept = np.polyfit(frame["Days"], frame["Reaction"], deg=1)
    assert (intercept, slope) == pytest.approx((251.4051, 10.4673), abs=5e-5)


def test_nlsw88_agrees_with_the_table_that_ships_with_stata(shared):
    frame = datasets.load("nlsw88")
    theirs = pd.read_csv(shared / "data" / "stata" / "nlsw88.csv")
    for column, values in frame.items():
        if isinstance(values.dtype, pd.CategoricalDtype):
            assert values.astype(object).fillna("").to_list() == theirs[column].astype(object).fillna("").to_list()
        else:
            np.testing.assert_array_equal(values, theirs[column])


def test_nlswork_has_the_complete_rows_that_stata_counts():
    # mixed ln_w ttl_exp i.race age || idcode:  prints 28,510 observations in 4,710 groups.
    complete = datasets.load("nlswork").dropna(subset=["ln_wage", "ttl_exp", "race", "age"])
    assert len(complete) == 28510
    assert complete["idcode"].nunique() == 4710


def test_each_call_gives_a_frame_of_its_own():
    frame = datasets.load("Dyestuff")
    frame.loc[0, "Yield"] = -1
    assert datasets.load("Dyestuff").loc[0, "Yield"] == 1545


def test_describe_gives_kind_and_meaning_of_every_column():
    table = datasets.describe("InstEval")
    assert list(table["column"]) == list(datasets.load("InstEval").columns)
    kinds = dict(zip(table["column"], table["kind"], strict=True))
    assert (kinds["s"], kinds["lectage"], kinds["y"]) == ("factor", "ordered factor", "number")
    assert (table["meaning"].str.len() > 0).all()


@pytest.mark.parametrize("ask", [datasets.load, datasets.describe])
def test_an_unknown_name_lists_the_names_and_offers_the_nearest(ask):
    with pytest.raises(DataError, match=r"no packaged data set 'insteval'.*nlschools.*Did you mean 'InstEval'\?"):
        ask("insteval")
    with pytest.raises(DataError, match=r"no packaged data set 'nope'\. Packaged: .*states2016\.$"):
        ask("nope")


def test_provenance_names_every_data_set():
    from importlib import resources

    text = resources.files("bayeslmm.datasets").joinpath("README.md").read_text(encoding="utf-8")
    assert [name for name in datasets.names() if f"`{name}`" not in text] == []
