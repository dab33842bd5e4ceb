"""The optimiser: every reference optimum, boundaries, local optima, units, what it reports."""

import json

import numpy as np
import pandas as pd
import pytest

from bayeslmm.formula.design import build_design
from bayeslmm.frequentist.optimize import Control, canonical, optimize
from bayeslmm.likelihood.covariance import Covariance, Layout
from bayeslmm.likelihood.crossproducts import cross_products
from bayeslmm.likelihood.lmm import LmmKernel, criterion, criterion_and_gradient, solve
from tests.likelihood.structures import TABLE, make

both = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])

# lme4 1.1-31, optima polished by Newton; copied from the reference fits named in each row. Value: criterion, theta.
KNOWN = {
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)", True): (
        1743.6282719584906,
        [0.9667329518627107, 0.015169054270743504, 0.23090959476025794],
    ),
    ("sleepstudy", "Reaction ~ Days + (Days || Subject)", False): (
        1752.0032551122,
        [0.9458106860501713, 0.22692823390441202],
    ),
    ("Dyestuff", "Yield ~ 1 + (1 | Batch)", True): (319.65427684225216, [0.8483237814325]),
    ("Dyestuff2", "Yield ~ 1 + (1 | Batch)", True): (161.82827781228846, [0.0]),
    ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", True): (
        330.8605889909948,
        [1.5396775729883583, 3.512415223572848],
    ),
    ("Pastes", "strength ~ 1 + (1 | batch/cask)", False): (247.99446586289676, [3.5269018105863754, 1.329912031351987]),
}


@pytest.mark.parametrize(("dataset", "formula", "reml"), KNOWN, ids=lambda value: str(value))
def test_known_optima_of_packaged_data(dataset, formula, reml):
    from bayeslmm.datasets import load

    value, theta = KNOWN[dataset, formula, reml]
    optimum = optimize(LmmKernel.from_design(build_design(formula, load(dataset))), Control(reml=reml))
    assert optimum.converged
    assert optimum.value == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(optimum.theta, theta, rtol=1e-6, atol=1e-6)


def reference_names(shared):
    folder = shared / "reference" / "fits"
    for path in sorted([*folder.glob("*_ml.json"), *folder.glob("*_reml.json")]):
        record = json.loads(path.read_text())
        if "devfun_probe" in record and record["family"] == "gaussian":
            yield path.stem, record


def kernel_of(record, shared, cache={}):  # noqa: B006 - designs are shared by the ML and REML record
    key = (record["dataset"], record["formula"], record["weights"], record["offset"])
    if key not in cache:
        folder = shared / "reference" / "data"
        side = json.loads((folder / f"{record['dataset']}.json").read_text())
        path = folder / f"{record['dataset']}.parquet"
        frame = pd.read_parquet(path) if path.exists() else pd.read_csv(path.with_suffix(".csv"))
        for name, column in side["columns"].items():
            if column["type"] == "factor":
                frame[name] = pd.Categorical(frame[name].astype(str), categories=column["levels"])
        design = build_design(record["formula"], frame, weights=record["weights"], offset=record["offset"])
        cache[key] = LmmKernel.from_design(design)
    return cache[key]


def test_every_gaussian_reference_fit(shared):
    checked = 0
    for name, record in reference_names(shared):
        kernel, reml = kernel_of(record, shared), record["method"] == "REML"
        for probe in record["devfun_probe"]:
            assert criterion(probe["theta"], kernel, reml) == pytest.approx(probe["value"], rel=1e-9), name
        optimum = optimize(kernel, Control(reml=reml))
        solution = solve(optimum.theta, kernel, reml)
        expected = record["REML_criterion"] if reml else record["deviance"]
        assert optimum.converged, name
        assert optimum.value == pytest.approx(expected, rel=1e-7, abs=1e-5), name
        np.testing.assert_allclose(optimum.theta, record["theta"], rtol=1e-5, atol=1e-6, err_msg=name)
        assert solution.sigma == pytest.approx(record["sigma"], rel=1e-5), name
        scale = np.sqrt(np.diag(record["vcov"]["values"]))
        np.testing.assert_allclose(np.abs(solution.beta / record["fixef"]["values"]), 1.0, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(np.sqrt(np.diag(solution.vcov)) / scale, 1.0, rtol=1e-5, err_msg=name)
        assert solution.logdet_A == pytest.approx(record["getME_devcomp"]["ldL2"], rel=1e-5, abs=1e-6), name
        assert solution.pwrss == pytest.approx(record["getME_devcomp"]["pwrss"], rel=1e-5), name
        checked += 1
    assert checked >= 50


@pytest.mark.parametrize("name", TABLE)
@both
def test_no_point_nearby_is_better(name, reml):
    kernel = make(name).kernel
    optimum = optimize(kernel, Control(reml=reml))
    assert optimum.value == pytest.approx(criterion(optimum.theta, kernel, reml), rel=1e-10)
    rng = np.random.default_rng(0)
    lower, upper = kernel.layout.lower, kernel.layout.upper
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(5):
            theta = np.clip(optimum.theta + scale * rng.normal(size=len(lower)), lower + 1e-9, upper - 1e-6)
            assert criterion(theta, kernel, reml) >= optimum.value - 1e-8


def test_zero_variance_is_an_answer():
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(10), 6).astype(np.int32)
    y = rng.normal(size=60)
    y -= np.bincount(codes, y)[codes] / 6.0
    products = cross_products(y, np.ones((60, 1)), [(np.ones((60, 1)), codes, 10)])
    optimum = optimize(LmmKernel(products, Layout((Covariance("us", 1),), (0,), (10,))))
    assert optimum.converged
    assert optimum.singular
    assert optimum.hessian_pd
    assert optimum.theta[0] == pytest.approx(0.0, abs=1e-6)


def test_start_on_the_boundary_does_not_hold_the_search():
    case = make("slope")
    y = case.y + 4.0 * np.repeat([1.0, -1.0], 45)[np.argsort(case.terms[0][1], kind="stable").argsort()]
    kernel = case.kernel.with_response(y)
    free = optimize(kernel)
    held = optimize(kernel, Control(start=np.array([0.0, 0.0, 0.0])))
    assert not free.singular or free.value <= held.value + 1e-7
    assert held.value == pytest.approx(free.value, abs=1e-6)


@pytest.mark.parametrize("name", ["slope", "crossed", "three effects", "crossed slopes"])
def test_far_starts_end_at_the_same_optimum(name):
    kernel = make(name).kernel
    best = optimize(kernel)
    for scale in (0.05, 20.0):
        other = optimize(kernel, Control(start=scale * kernel.layout.start()))
        assert other.value == pytest.approx(best.value, abs=1e-6)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_units_of_the_response_do_not_matter(factor):
    kernel = make("crossed slopes").kernel
    plain = optimize(kernel)
    scaled = optimize(kernel.with_response(make("crossed slopes").y * factor))
    np.testing.assert_allclose(scaled.theta, plain.theta, rtol=1e-5, atol=1e-6)
    assert scaled.singular == plain.singular
    assert scaled.converged


@pytest.mark.parametrize(("ratio", "precise"), [(1e3, True), (1e6, False)])
def test_variances_that_differ_by_many_orders_are_found_or_reported(ratio, precise):
    """With a ratio of 1e3 the smaller variance is that of the data with the means of the larger factor taken out."""
    rng = np.random.default_rng(0)
    big, small = np.repeat(np.arange(24), 10), rng.integers(0, 8, 240)
    y = ratio * rng.normal(size=24)[big] + 0.5 * rng.normal(size=8)[small] + rng.normal(size=240)
    one = np.ones((240, 1))
    layout = Layout((Covariance("us", 1), Covariance("us", 1)), (0, 1), (24, 8))
    found = optimize(LmmKernel(cross_products(y, one, [(one, big, 24), (one, small, 8)]), layout))
    assert found.converged == precise
    if precise:
        fixed = np.eye(24)[big]
        alone = Layout((Covariance("us", 1),), (0,), (8,))
        within = optimize(LmmKernel(cross_products(y, fixed, [(one, small, 8)]), alone))
        np.testing.assert_allclose(found.theta[1], within.theta[0], rtol=1e-4)
    else:
        assert "rounding" in found.status


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_of_a_predictor_do_not_matter(factor):
    case = make("slope")
    Z, codes, levels = case.terms[0]
    scaled = LmmKernel(cross_products(case.y, case.X, [(Z * [1.0, factor], codes, levels)]), case.kernel.layout)
    first, second = optimize(case.kernel), optimize(scaled)
    assert second.value == pytest.approx(first.value, abs=1e-7)
    assert second.singular == first.singular


@pytest.mark.parametrize("name", ["slope", "crossed", "autoregressive"])
def test_report_of_the_optimum(name):
    kernel = make(name, n=300).kernel
    optimum = optimize(kernel, Control(reml=False))
    assert optimum.evaluations == len(optimum.path)
    assert optimum.path.min() >= optimum.value - 1e-8
    assert optimum.status == "converged"
    value, gradient = criterion_and_gradient(optimum.theta, kernel, reml=False)
    assert value == pytest.approx(optimum.value, rel=1e-12)
    if not optimum.singular:
        np.testing.assert_allclose(gradient, 0.0, atol=1e-3)
        step = 1e-4
        differences = [
            (criterion_and_gradient(optimum.theta + e, kernel, False)[1]
             - criterion_and_gradient(optimum.theta - e, kernel, False)[1]) / (2 * step)
            for e in step * np.eye(len(optimum.theta))
        ]  # fmt: skip
        np.testing.assert_allclose(optimum.hessian, differences, rtol=1e-3, atol=1e-2 * np.abs(differences).max())


def test_too_few_evaluations_are_reported():
    optimum = optimize(make("three effects").kernel, Control(max_evaluations=2))
    assert not optimum.converged
    assert "largest number of evaluations" in optimum.status


def test_a_watcher_sees_the_search():
    seen = []
    optimize(make("three crossed", n=2000).kernel, watch=lambda count, value: seen.append((count, value)))
    assert all(count > 0 and np.isfinite(value) for count, value in seen)


def test_canonical_signs_and_zeros():
    layout = Layout((Covariance("us", 2), Covariance("diag", 2)), (0, 0), (9,))
    theta = np.array([-2.0, 1.0, -3.0, -0.5, 0.25])
    np.testing.assert_allclose(canonical(layout, theta), [2.0, -1.0, 3.0, 0.5, 0.25])
    np.testing.assert_array_equal(canonical(layout, np.array([0.0, 3.0, 0.0, 0.0, 1.0])), [0.0, 0.0, 3.0, 0.0, 1.0])
