"""Degrees of freedom against lmerTest, pbkrtest and a dense witness; boundary and bad input."""

import json

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, FitError
from bayeslmm.frequentist.degrees_of_freedom import between_within_df, denominator, f_test
from bayeslmm.frequentist.kenward_roger import covariance_generators, kenward_roger
from bayeslmm.likelihood.dense import marginal_covariance
from tests.frequentist.inference_cases import NOT_PACKAGED, REFERENCE, lmer, reference_fit

SATTERTHWAITE = list(REFERENCE["fits"])
KENWARD_ROGER = [name for name, entry in REFERENCE["fits"].items() if "kenward_roger" in entry]


@pytest.mark.parametrize("name", SATTERTHWAITE)
def test_satterthwaite_tables_agree_with_lmertest(name):
    fit, entry = reference_fit(name)
    values = np.array(entry["satterthwaite"]["values"], dtype=float)
    table = fit.summary().coefficients
    assert list(table) == ["Estimate", "Std. Error", "df", "t value", "Pr(>|t|)"]
    np.testing.assert_allclose(table["df"], values[:, 2], rtol=1e-3)
    np.testing.assert_allclose(table[["Std. Error", "t value"]], values[:, [1, 3]], rtol=1e-5)
    np.testing.assert_allclose(table["Pr(>|t|)"], values[:, 4], rtol=1e-2)


@pytest.mark.parametrize("name", KENWARD_ROGER)
def test_kenward_roger_agrees_with_pbkrtest(name):
    fit, entry = reference_fit(name)
    expected = entry["kenward_roger"]
    method = denominator(fit, "kenward-roger")
    np.testing.assert_allclose(method.vcov, expected["vcovAdj"]["values"], rtol=1e-5)
    for row, values in zip(np.eye(len(fit.fixef)), expected["per_coef"]["values"], strict=True):
        test = f_test(row[None], fit.solution.beta, method)
        assert test.statistic == pytest.approx(values[0], rel=1e-5)
        assert test.df_den == pytest.approx(values[2], rel=1e-3)


def dense_kenward_roger(fit):
    """Kenward and Roger's adjusted covariance from n x n matrices."""
    design, sigma2 = fit.design, fit.sigma**2
    blocks = [(factor.Z, factor.codes) for factor in design.factors]
    templates = fit.kernel.layout.templates(fit.theta)
    V = sigma2 * marginal_covariance(design.n, blocks, templates, design.weights)
    derivatives = []
    for f, S in covariance_generators(fit.kernel.layout):
        Z, codes = blocks[f]
        derivatives.append((Z @ S @ Z.T) * (codes[:, None] == codes))
    derivatives.append(np.diag(np.ones(design.n) if design.weights is None else 1 / design.weights))
    inverse, X = np.linalg.inv(V), design.X
    phi = np.linalg.inv(X.T @ inverse @ X)
    P = [-X.T @ inverse @ G @ inverse @ X for G in derivatives]
    r = range(len(P))
    Q = [[X.T @ inverse @ derivatives[i] @ inverse @ derivatives[j] @ inverse @ X for j in r] for i in r]
    traces = [[np.trace(inverse @ derivatives[i] @ inverse @ derivatives[j]) for j in r] for i in r]
    expected = np.array(
        [[traces[i][j] - 2 * np.trace(phi @ Q[i][j]) + np.trace(phi @ P[i] @ phi @ P[j]) for j in r] for i in r]
    )
    W = 2 * np.linalg.inv(expected)
    inner = sum(W[i, j] * (Q[i][j] - P[i] @ phi @ P[j]) for i in r for j in r)
    return phi + 2 * phi @ inner @ phi


def unbalanced(rng, n=60):
    g, h = rng.integers(0, 7, n), rng.integers(0, 5, n)
    x = rng.normal(size=n)
    y = x + rng.normal(size=7)[g] + 0.7 * x * rng.normal(size=7)[g] + rng.normal(size=5)[h] + rng.normal(size=n)
    return {"y": y, "x": x, "g": g, "h": h, "inner": h + 5 * g, "w": rng.uniform(0.5, 2, n)}


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize(
    "random",
    ["(1 | g)", "(x | g)", "(x || g)", "(1 | g) + (1 | h)", "(x | g) + (1 | h)", "(1 | g) + (1 | inner)",
     "(1 | g) + (0 + x | g)", "diag(1 + x | g, hom=TRUE)", "cs(1 + x | g, hom=TRUE) + (1 | h)"],
)  # fmt: skip
def test_kenward_roger_equals_its_dense_witness(random, weights):
    frame = unbalanced(np.random.default_rng(3))
    fit = blm.lmer(f"y ~ x + {random}", frame, weights=weights)
    found = kenward_roger(fit.kernel, fit.solution)
    np.testing.assert_allclose(found.adjusted, dense_kenward_roger(fit), rtol=2e-7)


def test_kenward_roger_of_many_rows_needs_no_matrix_of_their_size():
    rng = np.random.default_rng(5)
    n = 40_000
    frame = {"y": rng.normal(size=n), "x": rng.normal(size=n), "g": np.arange(n) // 20}
    frame["y"] += rng.normal(size=n // 20)[frame["g"]]
    df = blm.lmer("y ~ x + (1 | g)", frame).denominator("kr").df(np.eye(2))
    assert df[0] == pytest.approx(n // 20 - 1, rel=0.01)
    assert df[1] == pytest.approx(n - n // 20, rel=0.01)


def test_structures_that_kenward_roger_cannot_take_are_refused_with_a_way_out():
    frame = unbalanced(np.random.default_rng(3))
    fit = blm.lmer("y ~ x + ar1(1 + x | g)", frame)
    with pytest.raises(FitError, match="satterthwaite"):
        fit.denominator("kenward-roger")
    assert np.isfinite(fit.denominator("satterthwaite").df(np.eye(2))).all()


def test_kenward_roger_of_an_ml_fit_is_refused():
    fit, _ = reference_fit("sleepstudy_rislope_ml")
    with pytest.raises(ComparisonError, match="reml=True"):
        fit.summary(ddf="kenward-roger")


def test_the_method_is_named_and_none_means_no_p_values():
    fit, _ = reference_fit("sleepstudy_rislope_reml")
    assert "Satterthwaite degrees of freedom" in str(fit.summary())
    assert "Kenward-Roger degrees of freedom" in str(fit.summary(ddf="KR"))
    assert list(fit.summary(ddf=None).coefficients) == ["Estimate", "Std. Error", "t value"]
    with pytest.raises(ComparisonError, match="Did you mean 'satterthwaite'"):
        fit.summary(ddf="satterthwait")


def test_methods_are_computed_once():
    fit, _ = reference_fit("sleepstudy_rislope_reml")
    assert fit.denominator("kr") is fit.denominator("Kenward-Roger")


def test_residual_and_between_within():
    fit = lmer("distance ~ age * Sex + (1 | Subject)", "Orthodont")
    assert fit.summary(ddf="residual").coefficients["df"].tolist() == [104.0] * 4
    assert between_within_df(fit.design).tolist() == [25.0, 79.0, 25.0, 79.0]
    nested = lmer("score ~ Machine + (1 | Worker/Machine)", "Machines")
    assert between_within_df(nested.design).tolist() == [5.0, 10.0, 10.0]
    crossed = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin")
    with pytest.raises(ComparisonError, match="crossed"):
        crossed.summary(ddf="between-within")


def test_joint_degrees_of_freedom_of_equal_directions_are_theirs():
    fit, entry = reference_fit("machines_nested_reml")
    test = f_test(np.eye(3)[1:], fit.solution.beta, fit.denominator())
    expected = entry["anova_type1_satterthwaite"]["values"][0]
    assert (test.df_num, test.df_den) == (2, pytest.approx(expected[3], rel=1e-6))
    assert test.statistic == pytest.approx(expected[4], rel=1e-6)


def test_satterthwaite_to_sixty_digits(shared):
    exact = json.loads((shared / "reference" / "satterthwaite_exact.json").read_text())
    checked = 0
    for name, df in exact.items():
        entry = json.loads((shared / "reference" / "fits" / f"{name}.json").read_text())
        if entry["dataset"] == "InstEval":
            continue
        fit = lmer(entry["formula"], entry["dataset"], entry["method"] == "REML")
        np.testing.assert_allclose(fit.denominator().df(np.eye(len(df))), df, rtol=1e-4, err_msg=name)
        checked += 1
    assert checked == 10


def read_shared(folder, name):
    """Read a validation data set with its factors in their order."""
    path = folder / f"{name}.csv"
    frame = pd.read_csv(path) if path.exists() else pd.read_parquet(folder / f"{name}.parquet")
    for column, kind in json.loads((folder / f"{name}.json").read_text())["columns"].items():
        if kind.get("type") == "factor":
            frame[column] = pd.Categorical(frame[column].astype(str), categories=[str(v) for v in kind["levels"]])
    return frame


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["sleepstudy_wo", "Chem97", "ScotsSec", "InstEval"])
def test_data_that_are_not_packaged(shared, dataset):
    checked = 0
    for path in sorted((shared / "reference" / "fits").glob("*ml.json")):
        entry = json.loads(path.read_text())
        if entry["dataset"] != dataset or "satterthwaite" not in entry:
            continue
        frame = read_shared(shared / "reference" / "data", dataset)
        options = {"weights": entry["weights"], "offset": entry["offset"]}
        fit = blm.lmer(entry["formula"], frame, reml=entry["method"] == "REML", **options)
        values = np.array(entry["satterthwaite"]["values"], dtype=float)
        table = fit.summary().coefficients
        np.testing.assert_allclose(table["df"], values[:, 2], rtol=1e-3)
        np.testing.assert_allclose(table["Std. Error"], values[:, 1], rtol=1e-5)
        for kind in (1, 2, 3):
            expected = np.array(entry[f"anova_type{kind}_satterthwaite"]["values"], dtype=float)
            found = fit.anova(type=kind).frame
            np.testing.assert_allclose(found["DenDF"], expected[:, 3], rtol=1e-3)
            np.testing.assert_allclose(found["F value"], expected[:, 4], rtol=1e-5)
        if "kenward_roger" in entry:
            found = fit.summary(ddf="kr").coefficients
            np.testing.assert_allclose(found["Std. Error"], entry["kenward_roger"]["se"], rtol=1e-5)
        checked += 1
    assert checked >= 2


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_every_satterthwaite_and_kenward_roger_reference(shared):
    checked = 0
    for path in sorted((shared / "reference" / "fits").glob("*ml.json")):
        entry = json.loads(path.read_text())
        if "satterthwaite" not in entry or entry["dataset"] in NOT_PACKAGED:
            continue
        fit = lmer(entry["formula"], entry["dataset"], entry["method"] == "REML")
        values = np.array(entry["satterthwaite"]["values"], dtype=float)
        np.testing.assert_allclose(fit.denominator().df(np.eye(len(values))), values[:, 2], rtol=1e-3)
        if "kenward_roger" in entry:
            found = fit.summary(ddf="kr").coefficients
            np.testing.assert_allclose(found["Std. Error"], entry["kenward_roger"]["se"], rtol=1e-5)
        checked += 1
    assert checked > 30
