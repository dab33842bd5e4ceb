"""The deviance with a parameter held: gradients against central differences, values against a direct minimum."""

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.frequentist.constrained import (
    Constrained,
    FreeRoot,
    HeldCorr,
    HeldSd,
    Structured,
    free_chart,
    ml_deviance,
)
from bayeslmm.likelihood.covariance import Covariance
from bayeslmm.likelihood.lmm import LmmKernel, criterion

FORMULAS = [
    "score ~ Machine + (Machine | Worker)",
    "score ~ Machine + (0 + Machine | Worker) + (1 | Worker:Machine)",
    "score ~ Machine + ar1(0 + Machine | Worker)",
    "score ~ Machine + cs(0 + Machine | Worker)",
    "score ~ Machine + diag(0 + Machine | Worker, hom=TRUE)",
]


def problems(kernel):
    covariances = kernel.layout.covariances
    free = tuple(free_chart(covariance) for covariance in covariances)
    first, rest = covariances[0], free[1:]
    yield Constrained(kernel, free, np.array([0.0, 1.0, -1.0])), 3.0
    yield Constrained(kernel, free, sigma="held"), 2.5
    if first.kind == "us":
        yield from ((Constrained(kernel, (HeldSd(3, effect), *rest), sigma="free"), 4.0) for effect in range(3))
        yield from ((Constrained(kernel, (HeldCorr(3, a, b), *rest)), 0.4) for a, b in ((0, 1), (0, 2), (1, 2)))
        yield Constrained(kernel, (HeldCorr(3, 0, 2), *rest)), -1.0
        yield Constrained(kernel, (HeldSd(3, 1), *rest), sigma="free"), 0.0
    else:
        charts = (Structured(first, i) for i in range(first.n_theta))
        yield from ((Constrained(kernel, (chart, *rest), sigma="free"), 0.3) for chart in charts)


@pytest.mark.parametrize("formula", FORMULAS)
def test_gradients(formula):
    kernel = LmmKernel.from_design(blm.build_design(formula, blm.datasets.load("Machines")))
    rng = np.random.default_rng(0)
    for problem, held in problems(kernel):
        x = 0.3 + 0.5 * rng.standard_normal(sum(problem.sizes) + (problem.sigma == "free"))
        if problem.sigma == "free":
            x[-1] = 1.0
        gradient = problem(x, held)[1]
        steps = 1e-5 * np.eye(len(x))
        numeric = np.array([(problem(x + h, held)[0] - problem(x - h, held)[0]) / 2e-5 for h in steps])
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-6 * np.abs(numeric).max())


def test_with_nothing_held_it_is_the_kernels_deviance():
    kernel = LmmKernel.from_design(blm.build_design(FORMULAS[0], blm.datasets.load("Machines")))
    theta = np.array([1.3, -0.4, 0.2, 0.9, 0.1, 0.5])
    assert ml_deviance(kernel, kernel.layout.flat_templates(theta)).value == pytest.approx(
        criterion(theta, kernel, reml=False), rel=1e-12
    )


@pytest.mark.parametrize("chart", [HeldSd(3, 0), HeldSd(3, 2)])
def test_a_held_standard_deviation_is_the_length_of_its_row(chart):
    x = np.array([0.3, -0.8, 0.5, 1.0, 0.2, -0.6])
    root = chart.root(x, sigma=2.0, held=5.0)
    assert np.linalg.norm(root[chart.effect]) == pytest.approx(2.5)
    np.testing.assert_allclose(chart.root(chart.settle(x), 2.0, 5.0), root)


@pytest.mark.parametrize("held", [-1.0, -0.3, 0.0, 0.9, 1.0])
def test_a_held_correlation_is_met(held):
    chart = HeldCorr(3, 0, 2)
    x = np.array([0.3, -0.8, 0.5, 1.0, 0.2, -0.6])
    root = chart.root(x, 1.0, held)
    assert Covariance("us", 3).sd_corr(FreeRoot(3).root(x, 1, 0).T[np.triu_indices(3)])[0].shape == (3,)
    rows = root / np.linalg.norm(root, axis=1)[:, None]
    assert rows[0] @ rows[2] == pytest.approx(held)
    np.testing.assert_allclose(chart.root(chart.settle(x), 1.0, held), root)
