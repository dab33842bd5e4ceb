"""Deletion without a new fit, against generalised least squares on the rows that are left."""

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.frequentist.diagnostics import subset
from bayeslmm.likelihood.deletion import coefficient_changes, row_changes
from bayeslmm.likelihood.lmm import LmmKernel, solve


def without(fit, rows):
    """Return coefficients from dense matrices: V0 = W^-1 + Z G Z', rows and columns of the group taken out."""
    design = fit.design
    weights = np.ones(design.n) if design.weights is None else design.weights
    V = np.diag(1 / weights)
    for factor, template in zip(design.factors, fit.kernel.layout.templates(fit.theta), strict=True):
        scaled = factor.Z @ template
        V += (scaled @ scaled.T) * (factor.codes[:, None] == factor.codes[None, :])
    kept = np.setdiff1d(np.arange(design.n), rows)
    inverse = np.linalg.inv(V[np.ix_(kept, kept)])
    X = design.X[kept]
    y = design.y[kept] - (0 if design.offset is None else design.offset[kept])
    return np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ y)


def weighted_fit():
    sleep = blm.datasets.load("sleepstudy")
    sleep["w"] = np.linspace(0.5, 2, len(sleep))
    sleep["o"] = np.sin(np.arange(len(sleep)))
    return blm.lmer("Reaction ~ Days + (Days | Subject)", sleep, weights="w", offset="o")


FITS = {
    "slopes": lambda: blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy")),
    "weights and offset": weighted_fit,
    "crossed": lambda: blm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", blm.datasets.load("Penicillin")),
    "nested": lambda: blm.lmer("strength ~ 1 + (1 | batch / cask)", blm.datasets.load("Pastes")),
    "singular": lambda: blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2")),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_leaving_out_rows_and_groups_is_exact(name):
    fit = FITS[name]()
    raw = fit.residuals()
    rows = [np.array([i]) for i in (0, 7, fit.n_obs - 1)]
    groups = [np.flatnonzero(factor.codes == 1) for factor in fit.design.factors]
    change = coefficient_changes(fit.solution, raw, [*rows, *groups])
    expected = np.array([fit.solution.beta - without(fit, group) for group in [*rows, *groups]])
    scale = np.sqrt(np.diag(fit.vcov))
    np.testing.assert_allclose(change / scale, expected / scale, atol=1e-8)
    single = row_changes(fit.solution, raw, fit.leverage)
    np.testing.assert_allclose(single[[0, 7, -1]] / scale, expected[:3] / scale, atol=1e-8)


def test_the_kernel_without_the_rows_agrees():
    fit = FITS["slopes"]()
    kept = np.arange(10, fit.n_obs)
    rest = solve(fit.theta, LmmKernel.from_design(subset(fit.design, kept)), reml=True)
    change = coefficient_changes(fit.solution, fit.residuals(), [np.arange(10)])[0]
    np.testing.assert_allclose(fit.solution.beta - rest.beta, change, rtol=1e-8)


def test_a_coefficient_that_one_group_alone_determines_is_missing():
    data = {"y": np.arange(12.0) ** 1.5, "g": np.repeat(list("abcdef"), 2), "only_a": [1.0, 1.0] + [0.0] * 10}
    fit = blm.lmer("y ~ only_a + (1 | g)", data)
    change = fit.influence("g").change
    assert change.loc["a"].isna().all()
    assert change.drop("a").notna().all().all()
