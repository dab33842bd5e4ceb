"""Sums of fixed cross-products against the dense witness with the residual covariance written out."""

import numpy as np
import pytest

from bayeslmm.likelihood import dense
from bayeslmm.likelihood.covariance import Covariance, Layout
from bayeslmm.likelihood.crossproducts import cross_products
from bayeslmm.likelihood.lmm import LmmKernel, solve
from bayeslmm.likelihood.residual import Moving, ResidualKernel, ResidualRows

CASES = [
    ("independent", [0.3, -0.5]),
    ("ar1", [0.3, -0.5, 0.6]),
    ("ar1", [0.3, -0.5, -0.6]),
    ("exchangeable", [0.3, -0.5, 0.6]),
    ("exchangeable", [0.3, -0.5, -3.0]),
]


@pytest.fixture(scope="module")
def setting():
    """Two nested factors, gaps in time, rows in no order, strata within groups, prior weights."""
    rng = np.random.default_rng(1)
    n = 60
    inner = np.unique(np.sort(rng.integers(0, 9, n)), return_inverse=True)[1]
    levels = int(inner.max()) + 1
    outer = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])[:levels][inner]
    position = np.empty(n, int)
    for level in range(levels):
        rows = np.flatnonzero(inner == level)
        position[rows] = rng.permutation(np.cumsum(rng.integers(1, 4, len(rows))))
    order = rng.permutation(n)
    x = rng.normal(size=(n, 2))
    parts = {
        "y": rng.normal(size=n) + 5, "X": np.column_stack([np.ones(n), x[:, 0]]),
        "Z": np.column_stack([np.ones(n), x[:, 1]]), "inner": inner, "outer": outer, "position": position,
        "strata": rng.integers(0, 3, n), "weights": rng.uniform(0.5, 2, n),
    }  # fmt: skip
    return {name: values[order] for name, values in parts.items()} | {"levels": levels, "n": n}


def kernels(s, kind):
    one = np.ones((s["n"], 1))
    products = cross_products(
        s["y"], s["X"], [(s["Z"], s["inner"], s["levels"]), (one, s["outer"], 3)], weights=s["weights"]
    )
    base = LmmKernel(products, Layout((Covariance("us", 2), Covariance("us", 1)), (0, 1), (s["levels"], 3)))
    return ResidualKernel(base, ResidualRows(kind, s["strata"], 3, s["inner"], s["position"]))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("kind", "psi"), CASES)
def test_criterion_coefficients_and_sigma_are_the_witness(setting, kind, psi, reml):
    s, theta = setting, np.array([0.8, 0.2, 0.5, 0.7])
    kernel = kernels(s, kind)
    scale = kernel.rows.scale(psi) / np.sqrt(s["weights"])
    V = dense.marginal_covariance(
        s["n"], [(s["Z"], s["inner"]), (np.ones((s["n"], 1)), s["outer"])], kernel.base.layout.templates(theta)
    )
    V += kernel.rows.correlation(psi) * np.outer(scale, scale) - np.eye(s["n"])
    value, beta, sigma = dense.criterion(s["y"], s["X"], V, reml)
    for model in (kernel.at(psi), Moving(kernel).at(psi)):
        solution = solve(theta, model, reml)
        assert solution.criterion == pytest.approx(value, rel=1e-11)
        assert solution.sigma == pytest.approx(sigma, rel=1e-11)
        np.testing.assert_allclose(solution.beta, beta, rtol=1e-11)


@pytest.mark.parametrize(("kind", "psi"), CASES)
def test_whitening_colouring_and_determinant(setting, kind, psi):
    rows = kernels(setting, kind).rows
    covariance = rows.correlation(psi) * np.outer(rows.scale(psi), rows.scale(psi))
    root = rows.whiten(np.eye(rows.n), psi)
    np.testing.assert_allclose(root @ covariance @ root.T, np.eye(rows.n), atol=1e-12)
    noise = np.random.default_rng(0).normal(size=(rows.n, 2))
    np.testing.assert_allclose(rows.colour(rows.whiten(noise, psi), psi), noise, atol=1e-12)
    assert rows.log_det(psi) == pytest.approx(np.linalg.slogdet(covariance)[1], rel=1e-11)
    np.testing.assert_allclose(rows.unconstrained(*(lambda r, c: (r[1:], c))(*rows.natural(psi))), psi, rtol=1e-11)


@pytest.mark.parametrize(("kind", "psi"), CASES)
def test_slopes_of_the_natural_parameters(setting, kind, psi):
    rows, h = kernels(setting, kind).rows, 1e-6

    def natural(point):
        ratios, rho = rows.natural(point)
        return np.append(ratios[1:], rho)[: rows.n_parameters]

    found = [
        (natural(np.array(psi) + h * e) - natural(np.array(psi) - h * e))[j] / (2 * h)
        for j, e in enumerate(np.eye(rows.n_parameters))
    ]
    np.testing.assert_allclose(rows.natural_slopes(psi), found, rtol=1e-7)
