"""Residuals, leverage, influence, variance inflation and envelopes against lme4, car and their definitions."""

import json
from pathlib import Path

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError
from bayeslmm.frequentist import diagnostics
from bayeslmm.frequentist.diagnostics import effect_qq, effect_sd, global_band, normal_order_statistics, residual_qq

CASES = json.loads((Path(__file__).parents[1] / "reference" / "quality.json").read_text())
NAMES = [f"{case['dataset']}-{'reml' if case['reml'] else 'ml'}" for case in CASES]


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def pair(request):
    case = request.param
    return blm.lmer(case["formula"], blm.datasets.load(case["dataset"]), reml=case["reml"]), case


@pytest.fixture(scope="module")
def sleep():
    return blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


@pytest.mark.parametrize("kind", ["pearson", "standardized", "marginal"])
def test_residuals_agree_with_lme4(pair, kind):
    fit, case = pair
    np.testing.assert_allclose(fit.residuals(kind)[:8], case[kind], rtol=1e-5, atol=1e-6)


def test_leverage_and_cooks_distance_agree_with_lme4(pair):
    fit, case = pair
    np.testing.assert_allclose(fit.leverage[:8], case["hat"], rtol=1e-6)
    assert fit.leverage.sum() == pytest.approx(case["hat_sum"], rel=1e-6)
    np.testing.assert_allclose(fit.cooks_distance(of="fitted")[:8], case["cooks"], rtol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case["group_deletion"]], ids=lambda case: case["dataset"])
def test_coefficients_without_each_group_agree_with_lme4s_influence(case):
    """lme4 refits; its Cook's distance has the factor (J - p) / J that Cook's definition has not."""
    fit = blm.lmer(case["formula"], blm.datasets.load(case["dataset"]), reml=case["reml"])
    reference = case["group_deletion"]
    result = fit.influence(reference["group"], refit=True)
    levels = list(reference["levels"])
    scale = result.se.to_numpy()
    found = (fit.fixef - result.change).loc[levels].to_numpy() / scale
    np.testing.assert_allclose(found, np.reshape(reference["fixed"], found.shape) / scale, atol=1e-4)
    groups = len(levels)
    factor = (groups - len(fit.fixef)) / groups
    np.testing.assert_allclose(result.cooks.loc[levels] * factor, reference["cooks"], rtol=2e-3, atol=1e-7)


def test_standardised_residuals_have_unit_variance_under_the_model(sleep):
    """Over responses simulated from the fit, theta and sigma known; 400 simulations give a standard error of 0.035."""
    from bayeslmm.likelihood.lmm import solve

    rng = np.random.default_rng(1)
    conditional, marginal = [], []
    for _ in range(400):
        y = sleep.simulate(seed=rng.integers(2**32))[0]
        solution = solve(sleep.theta, sleep.kernel.with_response(y), reml=True)
        fixed = sleep.design.X @ solution.beta
        fitted = fixed + np.einsum("nk,nk->n", sleep.design.factors[0].Z, solution.b[0][sleep.design.factors[0].codes])
        conditional.append((y - fitted) / sleep.sigma / np.sqrt(1 - sleep.leverage))
        marginal.append(y - fixed)
    sd = sleep.residuals("marginal") / sleep.residuals("marginal-standardized")
    assert np.var(conditional, axis=0).mean() == pytest.approx(1, abs=0.03)
    assert (np.var(marginal, axis=0) / sd**2).mean() == pytest.approx(1, abs=0.1)


def test_kinds_of_residual_are_related(sleep):
    raw = sleep.residuals()
    np.testing.assert_array_equal(raw, sleep.residuals("conditional"))
    np.testing.assert_allclose(raw, sleep.design.y - sleep.fitted)
    np.testing.assert_allclose(sleep.residuals("marginal"), sleep.design.y - sleep.predict(include=[]))
    with pytest.raises(DataError, match="Did you mean 'pearson'"):
        sleep.residuals("pearsn")


def test_weights_enter_pearson_residuals():
    data = blm.datasets.load("Dyestuff").assign(w=np.linspace(1, 4, 30))
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", data, weights="w")
    np.testing.assert_allclose(fit.residuals("pearson"), fit.residuals() * np.sqrt(data["w"]) / fit.sigma)


def test_influence_by_column_and_by_row(sleep):
    by_day = sleep.influence("Days")
    assert list(by_day.change.index) == [str(day) for day in range(10)]
    rows = sleep.influence()
    assert len(rows.cooks) == 180
    assert rows.cooks.idxmax() == 59
    np.testing.assert_allclose(rows.dfbetas * rows.se, rows.change)
    solution = np.linalg.inv(sleep.vcov)
    change = rows.change.to_numpy()
    np.testing.assert_allclose(rows.cooks, np.einsum("np,pq,nq->n", change, solution, change) / 2, rtol=1e-8)
    assert "with all rows minus without" in str(sleep.influence("Subject"))


def test_rows_keep_their_place_in_the_callers_frame():
    data = blm.datasets.load("sleepstudy")
    data.loc[[0, 3], "Reaction"] = np.nan
    fit = blm.lmer("Reaction ~ Days + (Days | Subject)", data)
    assert list(fit.influence().cooks.index[:3]) == [1, 2, 4]
    assert list(fit.augment().index[:3]) == [1, 2, 4]


@pytest.mark.parametrize(("by", "message"), [("Subjct", "Did you mean 'Subject'"), ("one", "has one value")])
def test_influence_refuses(by, message):
    data = blm.datasets.load("sleepstudy").assign(one=1.0)
    fit = blm.lmer("Reaction ~ Days + offset(one) + (1 | Subject)", data)
    with pytest.raises(DataError, match=message):
        fit.influence(by)


def test_cooks_distance_refuses(sleep):
    with pytest.raises(DataError, match="single rows"):
        sleep.cooks_distance("Subject", of="fitted")
    with pytest.raises(DataError, match="coefficients"):
        sleep.cooks_distance(of="rows")


def test_vif_agrees_with_car(pair):
    fit, case = pair
    if not case["vif"]:
        with pytest.raises(DataError, match="two or more terms"):
            fit.vif()
        return
    found = fit.vif().frame["GVIF"]
    for term, value in case["vif"].items():
        assert found[term] == pytest.approx(value, rel=1e-6)


def test_generalised_vif_does_not_depend_on_the_coding():
    data = blm.datasets.load("Machines").assign(x=lambda d: d["score"].rank() + d["Machine"].cat.codes * 20.0)
    one = blm.lmer("score ~ Machine + x + (1 | Worker)", data).vif().frame
    other = data.assign(Machine=data["Machine"].cat.reorder_categories(["C", "A", "B"]))
    two = blm.lmer("score ~ Machine + x + (1 | Worker)", other).vif().frame
    assert one.loc["Machine", "Df"] == 2
    np.testing.assert_allclose(one["GVIF"], two["GVIF"], rtol=1e-6)


def test_global_band_holds_its_share_of_curves():
    rng = np.random.default_rng(2)
    curves = rng.standard_normal((2000, 5)).cumsum(axis=1)
    lower, upper = global_band(curves, 0.9)
    inside = ((curves >= lower) & (curves <= upper)).all(axis=1).mean()
    assert 0.9 <= inside < 0.92


def test_envelope_flags_heavy_tails_and_passes_the_model_itself(sleep):
    assert residual_qq(sleep, n_sim=200).outside > 10
    clean = sleep.refit(sleep.simulate(seed=4)[0])
    assert residual_qq(clean, n_sim=200).outside == 0
    assert effect_qq(clean, effect="Days", n_sim=200).outside == 0


def test_order_statistics_have_the_right_distribution():
    drawn = normal_order_statistics(np.random.default_rng(3), 4000, 100, np.array([0, 9, 50, 99]))
    sorted_values = np.sort(np.random.default_rng(4).standard_normal((4000, 100)), axis=1)[:, [0, 9, 50, 99]]
    np.testing.assert_allclose(drawn.mean(axis=0), sorted_values.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(drawn.std(axis=0), sorted_values.std(axis=0), rtol=0.08)


def test_bands_of_independent_and_of_simulated_residuals_agree_with_many_rows(monkeypatch):
    fit = blm.lmer("lang ~ IQ + (1 | class)", blm.datasets.load("nlschools"))
    exact = residual_qq(fit, n_sim=200)
    monkeypatch.setattr(diagnostics, "MANY_ROWS", 100)
    quick = residual_qq(fit, n_sim=200)
    ratio = ((quick.upper - quick.lower) / (exact.upper - exact.lower))[60:-60]
    assert ratio.mean() == pytest.approx(1, abs=0.06)
    np.testing.assert_array_equal(quick.observed, exact.observed)


def test_effect_sd_is_that_of_the_modes_in_simulations(sleep):
    from bayeslmm.likelihood.lmm import solve

    modes = [
        solve(sleep.theta, sleep.kernel.with_response(sleep.simulate(seed=i)[0]), reml=True).b[0] for i in range(300)
    ]
    ratio = np.var(modes, axis=0) / effect_sd(sleep, 0) ** 2
    assert ratio.mean(axis=0) == pytest.approx([1, 1], abs=0.1)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_effect_qq_refuses(sleep):
    with pytest.raises(DataError, match="Effects: Intercept, Days"):
        effect_qq(sleep, effect="Age")
    with pytest.raises(DataError, match="no grouping factor"):
        effect_qq(sleep, factor="Item")
    flat = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
    with pytest.raises(DataError, match="estimated as zero"):
        effect_qq(flat)
    with pytest.raises(DataError, match="20 simulations"):
        residual_qq(sleep, n_sim=5)
