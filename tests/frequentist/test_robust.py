"""Sandwich standard errors against clubSandwich, against the formula, and against dense matrices."""

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, DataError
from bayeslmm.frequentist.robust import whitened_columns
from bayeslmm.likelihood.dense import marginal_covariance
from tests.frequentist.inference_cases import FROM_R, REFERENCE, lmer

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
SCHOOLS = "lang ~ IQ + SES + GS + COMB + (1 | class)"


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1p", "CR1S", "CR2"])
def test_standard_errors_agree_with_clubsandwich(kind):
    se = lmer(SCHOOLS, "nlschools").robust("class", type=kind).se
    np.testing.assert_allclose(se, FROM_R["sandwich"]["se"][kind], rtol=1e-6)


def test_bell_mccaffrey_and_the_joint_test_agree_with_clubsandwich():
    found = lmer(SCHOOLS, "nlschools").robust("class")
    np.testing.assert_allclose(found.coefficients["df"], FROM_R["sandwich"]["df"], rtol=1e-6)
    joint = found.test(np.eye(5)[FROM_R["sandwich"]["tested"]]).joint
    expected = FROM_R["sandwich"]["joint"]
    np.testing.assert_allclose([joint.statistic, joint.df_num, joint.df_den, joint.p_value], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["robust_nlschools_ri_reml", "robust_sleepstudy_rislope_reml"])
def test_sandwiches_of_the_reference(name):
    entry = REFERENCE["tests"][name]
    fit = lmer(entry["formula"], entry["dataset"])
    for kind in ("CR0", "CR1", "CR1S", "CR1p"):
        np.testing.assert_allclose(fit.robust(entry["cluster"], kind).se, entry[f"se_{kind}"], rtol=1e-5)


def test_every_reference_sandwich(shared):
    import json

    for path in sorted((shared / "reference" / "fits").glob("robust_*.json")):
        entry = json.loads(path.read_text())
        fit = lmer(entry["formula"], entry["dataset"], entry["method"] == "REML")
        np.testing.assert_allclose(fit.robust(entry["cluster"], "CR0").vcov, entry["vcov_CR0"]["values"], rtol=1e-5)


def weighted_fit():
    rng = np.random.default_rng(8)
    n = 80
    g = rng.integers(0, 10, n)
    frame = {"x": rng.normal(size=n), "g": g, "town": g % 4, "w": rng.uniform(0.5, 2, n), "o": rng.normal(size=n)}
    frame["y"] = frame["o"] + rng.normal(size=10)[g] * (1 + frame["x"]) + rng.normal(size=n) / np.sqrt(frame["w"])
    return blm.lmer("y ~ x + offset(o) + (1 + x | g)", frame, weights="w"), frame


def dense(fit):
    design = fit.design
    templates = fit.kernel.layout.templates(fit.theta)
    V = marginal_covariance(design.n, [(f.Z, f.codes) for f in design.factors], templates, design.weights)
    return V, np.linalg.inv(V), design.X


def test_whitened_columns_with_weights():
    fit, _ = weighted_fit()
    _, inverse, X = dense(fit)
    np.testing.assert_allclose(whitened_columns(fit), inverse @ X, atol=1e-10)


@pytest.mark.parametrize("kind", ["CR0", "CR2"])
def test_clusters_with_weights_and_offset_equal_the_dense_formula(kind):
    fit, frame = weighted_fit()
    V, inverse, X = dense(fit)
    bread = np.linalg.inv(X.T @ inverse @ X)
    residual = frame["y"] - frame["o"] - X @ fit.solution.beta
    meat = np.zeros((2, 2))
    for town in range(4):
        rows = np.flatnonzero(frame["town"] == town)
        block, Xg = V[np.ix_(rows, rows)], X[rows]
        adjust = np.eye(len(rows))
        if kind == "CR2":
            values, vectors = np.linalg.eigh(block)
            root = vectors * np.sqrt(values) @ vectors.T
            inner = root @ (block - Xg @ bread @ Xg.T) @ root
            values, vectors = np.linalg.eigh(inner)
            keep = values > 1e-10
            adjust = root @ (vectors[:, keep] / np.sqrt(values[keep])) @ vectors[:, keep].T @ root
        score = Xg.T @ np.linalg.solve(block, adjust @ residual[rows])
        meat += np.outer(score, score)
    np.testing.assert_allclose(fit.robust(frame["town"], kind).vcov, bread @ meat @ bread, rtol=1e-6)


def test_row_sandwiches_equal_the_dense_formula():
    fit, frame = weighted_fit()
    V, inverse, X = dense(fit)
    bread = np.linalg.inv(X.T @ inverse @ X)
    effects = V - np.diag(1 / frame["w"])
    hat = np.eye(len(V)) - np.diag(1 / frame["w"]) @ (inverse - inverse @ X @ bread @ X.T @ inverse)
    residual = frame["y"] - fit.fitted
    for kind, power in (("HC0", 0), ("HC2", 1), ("HC3", 2)):
        omega = np.diag(residual**2 / (1 - np.diag(hat)) ** power)
        expected = bread @ X.T @ inverse @ (fit.sigma**2 * effects + omega) @ inverse @ X @ bread
        np.testing.assert_allclose(fit.robust(type=kind).vcov, expected, rtol=1e-7)


def test_cr2_is_unbiased_when_the_model_is_right():
    """The expectation of the sandwich under the model is the model's covariance."""
    fit, frame = weighted_fit()
    found = fit.robust(frame["town"]).distribution
    mean = found.spread.sum(axis=0) - np.einsum("gab,ac,gcd->bd", found.influence, found.bread, found.influence)
    np.testing.assert_allclose(mean, found.bread, rtol=1e-8)


def test_intervals_use_the_degrees_of_freedom():
    found = lmer("Reaction ~ Days + (Days | Subject)", "sleepstudy").robust()
    half = (found.confint().loc["Days", "upper"] - found.confint().loc["Days", "lower"]) / 2
    assert half == pytest.approx(2.1098156 * found.se["Days"], rel=1e-6)


def test_clusters_may_be_coarser_and_a_column_or_labels():
    frame = blm.datasets.load("Machines")
    fit = blm.lmer("score ~ Machine + (1 | Worker:Machine)", {**frame, "Worker": frame["Worker"]})
    by_factor = fit.robust("Worker:Machine", "CR0").clusters.count
    by_column = fit.robust("Worker", "CR0").clusters.count
    by_labels = fit.robust(frame["Worker"].to_numpy(), "CR0").clusters.count
    assert (by_factor, by_column, by_labels) == (18, 6, 6)


def test_labels_follow_dropped_rows():
    frame = blm.datasets.load("sleepstudy")
    frame.loc[3, "Days"] = np.nan
    fit = blm.lmer("Reaction ~ Days + (1 | Subject)", frame)
    np.testing.assert_allclose(fit.robust(frame["Subject"], "CR0").se, fit.robust("Subject", "CR0").se)


def test_bad_input():
    crossed = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin")
    with pytest.raises(ComparisonError, match="do not nest the grouping factor"):
        crossed.robust("plate")
    fit = lmer("Reaction ~ Days + (Days | Subject)", "sleepstudy")
    with pytest.raises(ComparisonError, match="do not nest"):
        fit.robust(np.arange(180) % 7)
    with pytest.raises(ComparisonError, match="are one"):
        fit.robust(np.zeros(180))
    with pytest.raises(DataError, match="Did you mean 'Subject'"):
        fit.robust("subject")
    with pytest.raises(DataError, match="10 cluster labels for 180 rows"):
        fit.robust(np.zeros(10))
    with pytest.raises(DataError, match="1 rows have no cluster"):
        fit.robust(np.where(np.arange(180) == 5, np.nan, 1.0))
    with pytest.raises(ComparisonError, match="no sandwich"):
        fit.robust(type="CR9")
    with pytest.raises(ComparisonError, match="takes no cluster"):
        fit.robust("Subject", type="HC3")


def test_too_many_contrasts_for_the_clusters():
    rng = np.random.default_rng(0)
    frame = {f"x{i}": rng.normal(size=40) for i in range(4)}
    frame |= {"g": np.arange(40) % 3, "y": rng.normal(size=40) + 3 * rng.normal(size=3)[np.arange(40) % 3]}
    fit = blm.lmer("y ~ x0 + x1 + x2 + x3 + (1 | g)", frame)
    with pytest.raises(ComparisonError, match="no degrees of freedom"):
        fit.robust().test("x0 = 0, x1 = 0, x2 = 0, x3 = 0")
