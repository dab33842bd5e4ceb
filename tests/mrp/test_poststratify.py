"""Poststratification against the obvious formula, its identities, new levels, and bad input."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, NewLevelsError
from bayeslmm.formula.design import build_design
from bayeslmm.mrp import streaming
from bayeslmm.mrp.frame import PoststratFrame
from bayeslmm.mrp.poststratify import poststratify
from tests.mrp.conftest import KnownFit


@pytest.fixture(params=["tables", "tiny tables", "asking the fit"], autouse=True)
def way(request, monkeypatch):
    """Sums by looked-up tables, by tables and chunks too small for anything, and by asking the fit chunk by chunk."""
    if request.param == "tiny tables":
        for name, size in {
            "DRAWS_PER_BLOCK": 7,
            "CELLS_PER_CHUNK": 3,
            "CELLS_PER_DESIGN": 4,
            "TABLE_VALUES": 20,
        }.items():
            monkeypatch.setattr(streaming, name, size)
    if request.param == "asking the fit":
        monkeypatch.setattr(streaming, "link_of", lambda fit: None)
    return request.param


def obvious(fit, cells, by, counts="n", **options):
    """Weigh all cells at once: what the streamed sums have to equal."""
    epred = fit.epred_draws(cells, **options)
    keys = cells.groupby(by).groups if by else {"all": cells.index}
    return np.stack(
        [epred[:, rows] @ cells.loc[rows, counts].to_numpy() / cells.loc[rows, counts].sum() for rows in keys.values()],
        axis=1,
    )


@pytest.mark.parametrize("by", [None, "state", ["state", "age"], "region"], ids=str)
@pytest.mark.parametrize("chunk", [None, 5])
def test_streamed_sums_equal_the_obvious_formula(known_fit, cells, by, chunk):
    fit = known_fit()
    estimates = poststratify(fit, PoststratFrame(cells), by=by, chunk=chunk)
    np.testing.assert_allclose(estimates.draws, obvious(fit, cells, by), rtol=1e-12)


def test_several_groupings_at_once_equal_each_alone(known_fit, cells):
    fit, frame = known_fit(), PoststratFrame(cells)
    together = poststratify(fit, frame, by=["state", ("state", "sex"), ()])
    for by, count in (("state", 3), (["state", "sex"], 6), (None, 1)):
        alone = poststratify(fit, frame, by=by)
        assert len(alone) == count
        for position, label in enumerate(alone.groups.to_dict("records")):
            np.testing.assert_allclose(together.draws[:, together.position(label)], alone.draws[:, position])


def test_margins_add_up(known_fit, cells):
    estimates = poststratify(known_fit(), PoststratFrame(cells), by=["state", "age"], margins=True)
    assert len(estimates) == 6 + 3 + 2 + 1
    table = estimates.groups.assign(position=np.arange(len(estimates)))
    for state in ("CA", "NY", "TX"):
        inner = table[(table["state"] == state) & (table["age"] != "(all)")]["position"].to_numpy()
        weighted = estimates.draws[:, inner] @ estimates.population[inner] / estimates.population[inner].sum()
        np.testing.assert_allclose(weighted, estimates.draws[:, estimates.position({"state": state})])
    assert estimates.population[estimates.position({})] == cells["n"].sum()


def test_one_cell_equals_the_expected_response(known_fit, cells):
    fit = known_fit()
    one = cells.iloc[[4]].reset_index(drop=True)
    np.testing.assert_allclose(poststratify(fit, PoststratFrame(one)).draws, fit.epred_draws(one))


def test_all_cells_kept_equal_cell_means(known_fit, cells):
    fit = known_fit()
    estimates = poststratify(fit, PoststratFrame(cells), by=["state", "age", "sex"])
    np.testing.assert_allclose(estimates.draws, fit.epred_draws(cells))


def test_counts_times_ten_change_nothing(known_fit, cells):
    fit = known_fit()
    once = poststratify(fit, PoststratFrame(cells), by="state")
    tenfold = poststratify(fit, PoststratFrame(cells.assign(n=10 * cells["n"])), by="state")
    np.testing.assert_allclose(tenfold.draws, once.draws, rtol=1e-13)
    np.testing.assert_allclose(tenfold.population, 10 * once.population)


def test_splitting_a_cell_changes_nothing(known_fit, cells):
    fit = known_fit()
    split = pd.concat([cells.assign(n=0.25 * cells["n"], part=1), cells.assign(n=0.75 * cells["n"], part=2)])
    np.testing.assert_allclose(
        poststratify(fit, PoststratFrame(split), by="state").draws,
        poststratify(fit, PoststratFrame(cells), by="state").draws,
    )


def test_a_filter_equals_a_smaller_frame(known_fit, cells):
    fit, frame = known_fit(), PoststratFrame(cells)
    filtered = poststratify(fit, frame, by="state", where={"sex": "f"})
    smaller = poststratify(fit, PoststratFrame(cells[cells["sex"] == "f"]), by="state")
    np.testing.assert_allclose(filtered.draws, smaller.draws)
    mask = (cells["sex"] == "f").to_numpy()
    np.testing.assert_allclose(poststratify(fit, frame, by="state", where=mask).draws, smaller.draws)


def with_new_states(cells):
    dc = cells[cells["state"] == "NY"].assign(state="DC")
    pr = cells[cells["state"] == "NY"].assign(state="PR")
    return pd.concat([dc.iloc[:1], cells, pr, dc.iloc[1:]], ignore_index=True)


def test_new_levels_are_refused_by_name(known_fit, cells):
    frame = PoststratFrame(with_new_states(cells))
    with pytest.raises(NewLevelsError, match=r"'DC', 'PR'") as error:
        poststratify(known_fit(), frame, by="state")
    assert 'new_levels="sample"' in str(error.value)


def test_sampled_new_levels_widen_intervals(known_fit, cells):
    fit, frame = known_fit(draws=400), PoststratFrame(with_new_states(cells))
    zero = poststratify(fit, frame, by="state", new_levels="zero", seed=1)
    sampled = poststratify(fit, frame, by="state", new_levels="sample", seed=1)
    for state in ("DC", "PR"):
        assert sampled.sd[sampled.position(state)] > 1.2 * zero.sd[zero.position(state)]
    for state in ("CA", "NY", "TX"):
        np.testing.assert_allclose(sampled.draws[:, sampled.position(state)], zero.draws[:, zero.position(state)])


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_an_unseen_level_has_one_effect_in_all_chunks(known_fit, cells, chunk):
    """DC comes first and last in the frame; chunks must not draw it twice, nor swap it with PR."""
    fit = known_fit(draws=50)
    new = with_new_states(cells)
    whole = obvious(fit, new, "state", new_levels="sample", seed=5)
    streamed = poststratify(fit, PoststratFrame(new), by="state", new_levels="sample", seed=5, chunk=chunk)
    at_once = poststratify(fit, PoststratFrame(new), by="state", new_levels="sample", seed=5, chunk=10_000)
    np.testing.assert_allclose(streamed.draws, at_once.draws)
    assert streamed.draws.std() == pytest.approx(whole.std(), rel=0.3)


def test_a_factor_of_the_survey_alone_is_excluded(known_fit, cells):
    fit = known_fit("yes ~ sex + (1 | state) + (1 | poll)")
    frame = PoststratFrame(cells)
    with pytest.raises(DataError, match=r"(?s)no column 'poll'.*exclude=\('poll',\)") as error:
        poststratify(fit, frame, by="state")
    assert error.match("frame.check")
    excluded = poststratify(fit, frame, by="state", exclude=("poll",))
    included = poststratify(fit, frame, by="state", include=["state"])
    expected = obvious(fit, cells.assign(poll="A"), "state", include=["state"])
    np.testing.assert_allclose(excluded.draws, expected)
    np.testing.assert_allclose(included.draws, expected)


def test_count_draws_carry_the_uncertainty_of_counts(known_fit, cells):
    fit, frame = known_fit(draws=40), PoststratFrame(cells)
    certain = poststratify(fit, frame, by="state")
    same = poststratify(fit, frame, by="state", count_draws=np.tile(cells["n"], (3, 1)), chunk=5)
    np.testing.assert_allclose(same.draws, certain.draws)
    np.testing.assert_allclose(same.population, certain.population)
    rng = np.random.default_rng(0)
    uncertain = rng.gamma(2.0, cells["n"].to_numpy() / 2.0, (40, len(cells)))
    estimates = poststratify(fit, frame, by="state", count_draws=uncertain, where={"sex": "f"})
    kept = (cells["sex"] == "f").to_numpy()
    epred = fit.epred_draws(cells[kept])
    weights = uncertain[:, kept] * (cells["state"][kept] == "TX").to_numpy()
    expected = (weights * epred).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(estimates.draws[:, estimates.position("TX")], expected)


def test_a_draft_takes_its_estimates_at_the_modes_and_says_so(known_fit, cells):
    fit = known_fit(engine="Laplace")
    estimates = poststratify(fit, PoststratFrame(cells), by="state")
    at_modes = fit.predict(cells)
    expected = [np.average(at_modes[rows], weights=cells["n"][rows]) for rows in cells.groupby("state").groups.values()]
    np.testing.assert_allclose(estimates.estimate, expected)
    assert "fast draft" in estimates.notes[0]
    assert "Laplace" in str(estimates.summary())
    posterior = poststratify(known_fit(), PoststratFrame(cells), by="state")
    assert posterior.plug_in is None
    assert posterior.notes == ()


def test_raw_estimates_of_the_survey_stand_beside(known_fit, cells, poll):
    estimates = poststratify(known_fit(), PoststratFrame(with_new_states(cells)), by="state", new_levels="zero")
    raw = poll.groupby("state")["yes"].agg(["size", "mean"])
    for state in raw.index:
        row = estimates.survey.iloc[estimates.position(state)]
        assert (row["n"], row["raw"]) == (raw.loc[state, "size"], pytest.approx(raw.loc[state, "mean"]))
    dc = estimates.survey.iloc[estimates.position("DC")]
    assert dc["n"] == 0
    assert np.isnan(dc["raw"])


def test_no_survey_estimates_for_a_variable_the_model_lacks(known_fit, cells):
    assert poststratify(known_fit(), PoststratFrame(cells), by="region").survey is None


def test_fewer_draws_and_seeds(known_fit, cells):
    fit, frame = known_fit(), PoststratFrame(cells)
    assert poststratify(fit, frame, draws=7).draws.shape == (7, 1)
    first = poststratify(fit, frame, by="state", new_levels="sample", seed=3)
    again = poststratify(fit, frame, by="state", new_levels="sample", seed=3)
    np.testing.assert_array_equal(first.draws, again.draws)


def test_cells_without_people_do_not_count(known_fit, cells):
    fit = known_fit()
    empty = cells.assign(n=cells["n"].where(cells["state"] != "TX", 0))
    estimates = poststratify(fit, PoststratFrame(empty), by="state")
    assert estimates.labels == ("CA", "NY")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"by": "stat"}, r"no column 'stat'.*Did you mean 'state'"),
        ({"sex": None}, {}, r"no column 'sex', which the model uses"),
        ({"age": np.nan}, {}, r"missing covariates: age"),
        ({}, {"new_levels": "ignore"}, r"new_levels='ignore' is not one of"),
        ({}, {"exclude": ["pol"]}, r"no grouping factor 'pol'"),
        ({}, {"where": {"sex": "x"}}, r"no cell has 'sex' equal to 'x'"),
        ({}, {"where": [True]}, r"one truth value per cell"),
        ({}, {"count_draws": [[1.0]]}, r"one column per cell"),
        ({}, {"count_draws": np.full((2, 12), -1.0)}, r"negative"),
        ({"region": np.nan}, {"by": "region"}, r"no value of 'region'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_input_is_explained(known_fit, cells, change, options, message):
    table = cells.copy()
    for name, value in change.items():
        if value is None:
            table = table.drop(columns=name)
        else:
            table[name] = table[name].astype(object)
            table.loc[0, name] = value
    with pytest.raises(DataError) as error:
        poststratify(known_fit(), PoststratFrame(table), **options)
    assert error.match("(?s)" + message)


@pytest.mark.parametrize("link", ["logit", "identity"])
def test_slopes_and_offsets_and_numbers_of_each_cell(poll, cells, link):
    """Varying slopes of a number that differs from cell to cell, where no two cells share a row."""
    survey = poll.assign(x=np.linspace(-1, 1, len(poll)), base=np.linspace(0, 2, len(poll)))
    design = build_design("yes ~ x + offset(base) + (x | state) + (0 + x || age)", survey)
    rng = np.random.default_rng(0)
    effects = {f.name: rng.normal(size=(30, len(f.levels), len(f.effects))) for f in design.factors}
    sd = {f.name: np.ones(len(f.effects)) for f in design.factors}
    fit = KnownFit(design, rng.normal(size=(30, 2)), effects, sd, link=link)
    table = cells.assign(x=np.linspace(-2, 2, len(cells)), base=np.linspace(1, -1, len(cells)))
    np.testing.assert_allclose(
        poststratify(fit, PoststratFrame(table), by="state").draws, obvious(fit, table, "state"), rtol=1e-11
    )


def test_the_categories_of_an_ordered_response_add_up():
    """Shares of all categories are one; a category is asked for by name."""
    rng = np.random.default_rng(0)
    survey = pd.DataFrame({"state": rng.choice(["CA", "TX"], 400), "age": rng.choice(["old", "young"], 400)})
    score = rng.logistic(size=400) + (survey["state"] == "CA")
    survey["answer"] = pd.cut(score, [-np.inf, -0.5, 1.0, np.inf], labels=["no", "maybe", "yes"])
    fit = blm.model("answer ~ age + (1 | state)", survey, family="cumulative").fit()
    frame = PoststratFrame({"state": ["CA", "TX", "TX"], "age": ["old", "old", "young"], "n": [1, 2, 3]})
    by_category = {
        name: poststratify(fit, frame, by="state", category=name, draws=50, seed=1) for name in ("no", "maybe", "yes")
    }
    np.testing.assert_allclose(sum(part.draws for part in by_category.values()), 1.0)
    np.testing.assert_allclose(sum(part.estimate for part in by_category.values()), 1.0)
    np.testing.assert_allclose(sum(part.survey["raw"] for part in by_category.values()), 1.0)
    assert by_category["yes"].outcome == "answer = yes"
    with pytest.raises(DataError, match=r"category=None is not one of its categories(?s:.*)no, maybe, yes"):
        poststratify(fit, frame)
    with pytest.raises(DataError, match="category='si' is not one"):
        poststratify(fit, frame, category="si")


def test_a_response_without_categories_has_none(known_fit, cells):
    with pytest.raises(DataError, match="the response has no categories"):
        poststratify(known_fit(), PoststratFrame(cells), category="yes")


def test_what_is_neither_fit_nor_frame_is_named(known_fit, cells, poll):
    with pytest.raises(DataError, match=r"DataFrame is not a population frame.*\n.*PoststratFrame\(cells"):
        poststratify(known_fit(), cells)
    with pytest.raises(DataError, match=r"a Model has no estimates.*model\.fit\(\)"):
        poststratify(blm.model("y ~ 1 + (1 | state)", poll.assign(y=np.arange(len(poll)))), PoststratFrame(cells))


def test_respondents_outside_the_frame_are_counted(known_fit, cells, poll):
    inside = PoststratFrame(cells[cells["state"] != "CA"])
    count = int((poll["state"] == "CA").sum())
    assert f"Not in the frame: 'CA' of 'state' ({count} respondents" in str(poststratify(known_fit(), inside).summary())
    filtered = poststratify(known_fit(), PoststratFrame(cells), where={"state": "TX"})
    assert not any("Not in the frame" in note for note in filtered.notes)
