"""Iterative proportional fitting: known margins met, association kept, contradictions refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayeslmm.errors import ConvergenceWarning, DataError
from bayeslmm.mrp.frame import PoststratFrame

SEED = {"sex": ["f", "f", "m", "m"], "age": ["old", "young", "old", "young"], "n": [10.0, 20.0, 40.0, 30.0]}
MARGINS = {"sex": {"f": 60.0, "m": 40.0}, "age": {"old": 30.0, "young": 70.0}}


def odds_ratio(frame):
    a, b, c, d = frame.weights
    return a * d / (b * c)


def test_raked_counts_meet_the_margins_and_keep_the_association():
    raked = PoststratFrame(SEED).rake_to(MARGINS)
    for name, totals in MARGINS.items():
        assert raked.by(name).data.set_index(name)["n"].to_dict() == pytest.approx(totals)
    assert odds_ratio(raked) == pytest.approx(odds_ratio(PoststratFrame(SEED)))
    assert raked.raking.converged
    assert max(raked.raking.gaps) <= 1e-10
    assert "converged" in str(raked.describe())


def test_a_two_by_two_table_has_the_closed_form():
    """With the seed's odds ratio r, the first count solves a quadratic."""
    raked = PoststratFrame(SEED).rake_to(MARGINS)
    r, row, column, total = odds_ratio(PoststratFrame(SEED)), 60.0, 30.0, 100.0
    b = total - row - column + r * (row + column)
    first = (b - np.sqrt(b**2 - 4 * (r - 1) * r * row * column)) / (2 * (r - 1))
    assert raked.weights[0] == pytest.approx(first, rel=1e-9)


def test_without_a_seed_variables_are_independent():
    frame = PoststratFrame.from_margins(MARGINS)
    expected = {("f", "old"): 18, ("f", "young"): 42, ("m", "old"): 12, ("m", "young"): 28}
    assert frame.data.set_index(["sex", "age"])["n"].to_dict() == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 5), st.integers(2, 4))
def test_any_consistent_margins_are_met(seed, a, b, c):
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product([range(a), range(b), range(c)], names=["a", "b", "c"])
    truth = pd.Series(rng.uniform(0.5, 5, len(index)), index=index)
    margins = [truth.groupby(level=["a", "b"]).sum(), truth.groupby(level=["b", "c"]).sum()]
    frame = PoststratFrame(index.to_frame(index=False).assign(n=rng.uniform(0.5, 2, len(index)))).rake_to(margins)
    for margin in margins:
        got = frame.data.groupby(list(margin.index.names))["n"].sum()
        np.testing.assert_allclose(got, margin.sort_index(), rtol=1e-7)


def test_joint_margins_from_tables():
    joint = pd.DataFrame({"sex": ["f", "f", "m", "m"], "age": ["old", "young"] * 2, "n": [1.0, 2.0, 3.0, 4.0]})
    third = {"educ": ["lo", "hi"], "n": [4.0, 6.0]}
    frame = PoststratFrame.from_margins([joint, third])
    assert frame.covariates == ("sex", "age", "educ")
    assert frame.filter({"educ": "hi"}).total == pytest.approx(6)
    assert frame.filter({"sex": "m", "age": "old"}).total == pytest.approx(3)


def test_structural_zeros_stay_and_are_counted():
    seed = {**SEED, "n": [0.0, 20.0, 40.0, 30.0]}
    raked = PoststratFrame(seed).rake_to({"sex": {"f": 40.0, "m": 60.0}, "age": {"old": 30.0, "young": 70.0}})
    assert raked.weights[0] == 0
    assert raked.raking.zeros == 1


def test_combinations_without_a_cell_are_named():
    seed = {"sex": ["f", "f", "m"], "age": ["old", "young", "young"], "n": [1.0, 2.0, 3.0]}
    raked = PoststratFrame.from_margins({"sex": {"f": 60, "m": 40}, "age": {"old": 30, "young": 70}}, seed=seed)
    assert (raked.raking.zeros, raked.raking.absent) == (0, 1)
    assert "1 combination without a cell.\n  nobody is put where the seed has no cell: m x old" in str(raked.raking)


def test_margins_that_zeros_forbid_warn():
    """f are all young; more f than young people cannot be."""
    seed = {**SEED, "n": [0.0, 20.0, 40.0, 30.0]}
    with pytest.warns(ConvergenceWarning, match="did not converge after 50 rounds"):
        PoststratFrame(seed).rake_to({"sex": {"f": 80, "m": 20}, "age": {"old": 60, "young": 40}}, max_rounds=50)


def test_shares_need_a_total():
    shares = {"sex": {"f": 0.6, "m": 0.4}, "age": {"old": 30, "young": 70}}
    with pytest.raises(DataError, match=r"contradict each other: 'sex' adds up to 1, 'age' to 100") as error:
        PoststratFrame(SEED).rake_to(shares)
    assert "total=" in str(error.value)
    assert PoststratFrame(SEED).rake_to(shares, total=1000).total == pytest.approx(1000)


@pytest.mark.parametrize(
    ("margins", "message"),
    [
        ({}, r"no margins"),
        ({"sex": {}}, r"needs at least one"),
        ({"sex": {"f": 1.0}}, r"no total for 1 level of the cells: 'm'"),
        ({"sex": {"f": 1.0, "m": 1.0, "x": 1.0}}, r"wants people where there are no cells: 'x'"),
        ({"sex": {"f": -1.0, "m": 2.0}}, r"negative"),
        ({"sex": {"f": np.nan, "m": 2.0}}, r"missing"),
        ({"colour": {"f": 1.0}}, r"no column 'colour'"),
        ([{"sex": ["f", "f", "m"], "n": [1, 2, 3]}], r"more than one total for 'f'"),
        ([{"sex": ["f", "m"], "N": [1, 2]}], r"no column 'n'"),
        (
            [
                {"sex": ["f", "m"] * 2, "age": ["old", "old", "young", "young"], "n": [1, 2, 3, 4]},
                {"sex": ["f", "m"], "n": [5, 5]},
            ],
            r"'sex:age' and 'sex' contradict each other on 'sex'",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_margins_that_cannot_be_are_refused(margins, message):
    with pytest.raises(DataError, match=message):
        PoststratFrame(SEED).rake_to(margins)
