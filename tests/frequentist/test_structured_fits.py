"""rw(), icar() and bym2() in fits: against generalised least squares and Laplace with dense matrices."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, FormulaError, SingularFitWarning

AGES = [f"a{j}" for j in range(8)]
RING = {"A": ["B"], "B": ["C"], "C": ["D"], "D": ["E"], "E": ["F"], "F": ["A"], "G": ["A"]}


def covariance_of(pairs, levels):
    """Generalised inverse of the neighbours' matrix, its typical variance one: written here without the package."""
    Q = np.zeros((len(levels), len(levels)))
    for a, b in pairs:
        i, j = levels.index(a), levels.index(b)
        Q[i, i] += 1
        Q[j, j] += 1
        Q[i, j] = Q[j, i] = -1
    inverse = np.linalg.pinv(Q)
    return inverse / np.exp(np.log(np.diag(inverse)).mean())


WALK = covariance_of(list(itertools.pairwise(AGES)), AGES)
SMOOTH = covariance_of([(a, b) for a, others in RING.items() for b in others], list(RING))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    n = 400
    walk = np.cumsum(rng.normal(0, 1, 8))
    code, area = rng.integers(0, 7, n), rng.integers(0, 6, n)
    frame = pd.DataFrame(
        {
            "age": pd.Categorical.from_codes(code, categories=AGES, ordered=True),
            "area": np.array(list("ABCDEF"))[area],
            "x": rng.normal(size=n),
        }
    )
    plain = rng.normal(0, 0.5, 6)[area]
    frame["y"] = 1 + 0.5 * frame["x"] + walk[code] - walk.mean() + plain + rng.normal(size=n)
    frame["z"] = rng.binomial(1, expit(0.4 * (walk[code] - walk.mean())))
    return frame


@pytest.fixture(scope="module")
def fit(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularFitWarning)
        return blm.model("y ~ x + rw(1 | age) + bym2(1 | area)", data, adjacency=RING).fit()


def dense(data, ratios):
    """REML criterion, coefficients and covariance of the rows (over sigma²) with n x n matrices."""
    Za = np.eye(8)[data["age"].cat.codes]
    Zs = np.eye(7)[[list(RING).index(name) for name in data["area"]]]
    V = np.eye(len(data)) + ratios[0] * Za @ WALK @ Za.T + ratios[1] * Zs @ SMOOTH @ Zs.T + ratios[2] * Zs @ Zs.T
    X, y = np.column_stack([np.ones(len(data)), data["x"]]), data["y"].to_numpy()
    inverse = np.linalg.inv(V)
    A = X.T @ inverse @ X
    beta = np.linalg.solve(A, X.T @ inverse @ y)
    residual = y - X @ beta
    df = len(y) - 2
    spread = residual @ inverse @ residual / df
    value = np.linalg.slogdet(V)[1] + np.linalg.slogdet(A)[1] + df * (1 + np.log(2 * np.pi * spread))
    return value, beta, spread, ratios[0] * WALK @ Za.T @ inverse @ residual


def test_reml_equals_generalised_least_squares(data, fit):
    ratios = np.array([entry.sd[0] for entry in fit.varcorr]) ** 2 / fit.sigma**2
    value, beta, spread, walk = dense(data, ratios)
    np.testing.assert_allclose(fit.criterion, value, rtol=1e-12)
    np.testing.assert_allclose(fit.fixef, beta, rtol=1e-9)
    np.testing.assert_allclose(fit.sigma**2, spread, rtol=1e-9)
    np.testing.assert_allclose(fit.ranef["rw(age)"]["Intercept"], walk, atol=1e-9)
    best = minimize(lambda x: dense(data, np.exp(x))[0], np.log(ratios + 1e-3), method="Nelder-Mead")
    assert fit.criterion <= best.fun + 1e-6


def test_a_category_without_rows_takes_the_value_of_its_neighbour_with_more_uncertainty(fit):
    walk = fit.ranef["rw(age)"]["Intercept"]
    assert walk["a7"] == pytest.approx(walk["a6"], abs=1e-12)
    frame = fit.predict(pd.DataFrame({"x": [0.0, 0.0], "age": ["a6", "a7"], "area": ["A", "A"]}), interval="confidence")
    width = frame["upper"] - frame["lower"]
    assert width.iloc[1] > 1.5 * width.iloc[0]


def test_results_show_levels_and_one_standard_deviation(fit):
    text = str(fit.summary())
    assert "groups: rw(age), 8; icar(area), 7; area, 6" in text
    assert "mode1" not in text
    assert list(fit.parameter_frame().index) == [
        "Intercept",
        "x",
        "sd_rw(age)[Intercept]",
        "sd_icar(area)[Intercept]",
        "sd_area[Intercept]",
        "sigma",
    ]
    assert "mode1" not in str(fit.audit())
    assert "mode1" not in str(fit.tidy())
    assert fit.ranef["icar(area)"].index.tolist() == list(RING)
    assert list(fit.influence("rw(age)").dfbetas.index) == AGES[:7]


def test_the_equation_shows_the_precision(data):
    latex = str(blm.model("y ~ x + rw(1 | age)", data).equation())
    assert r"b_{\mathrm{rw(age)}[i]}" in latex
    assert r"\mathcal{N}(\mathbf{0},\ \sigma_{\mathrm{rw(age)}}^{2} \mathbf{Q}_{\mathrm{rw(age)}}^{-})" in latex
    assert "mode1" not in latex


def test_profile_limits_are_where_the_dense_deviance_has_risen(data):
    model = blm.model("y ~ x + rw(1 | age)", data)
    fit = model.fit(reml=False)
    limits = fit.confint(method="profile").loc["sd_rw(age)[Intercept]"]
    Z, n = np.eye(8)[data["age"].cat.codes], len(data)
    X, y = np.column_stack([np.ones(n), data["x"]]), data["y"].to_numpy()

    def deviance(sd):
        def given(log_sigma):
            V = np.exp(2 * log_sigma) * np.eye(n) + sd**2 * Z @ WALK @ Z.T
            inverse = np.linalg.inv(V)
            residual = y - X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ y)
            return np.linalg.slogdet(V)[1] + residual @ inverse @ residual + n * np.log(2 * np.pi)

        from scipy.optimize import minimize_scalar

        return minimize_scalar(given, bounds=(-0.5, 0.5), method="bounded", options={"xatol": 1e-6}).fun

    for limit in limits[["lower", "upper"]] if "lower" in limits else limits:
        assert deviance(limit) + 2 * fit.loglik == pytest.approx(3.8415, abs=2e-3)


def test_laplace_equals_a_dense_laplace_approximation(data):
    fit = blm.model("z ~ x + rw(1 | age)", data, family="bernoulli").fit()
    sd = next(iter(fit.varcorr)).sd[0]
    vectors = np.linalg.svd(WALK)
    K = vectors[0][:, :7] * np.sqrt(vectors[1][:7])
    Z = sd * np.eye(8)[data["age"].cat.codes] @ K
    eta0 = np.column_stack([np.ones(len(data)), data["x"]]) @ fit.fixef.to_numpy()
    u, z = np.zeros(7), data["z"].to_numpy()
    for _ in range(50):
        p = expit(eta0 + Z @ u)
        H = Z.T @ (Z * (p * (1 - p))[:, None]) + np.eye(7)
        u += np.linalg.solve(H, Z.T @ (z - p) - u)
    p = expit(eta0 + Z @ u)
    loglik = np.log(np.where(z == 1, p, 1 - p)).sum() - 0.5 * u @ u - 0.5 * np.linalg.slogdet(H)[1]
    assert fit.loglik == pytest.approx(loglik, abs=1e-8)
    np.testing.assert_allclose(fit.ranef["rw(age)"]["Intercept"], sd * K @ u, atol=1e-7)
    limits = fit.confint(method="profile").loc["sd_rw(age)[Intercept]"]
    assert limits.iloc[0] < sd < limits.iloc[1]


def test_poststratified_estimates_reach_the_category_nobody_answered_for(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularFitWarning)
        fit = blm.model("z ~ x + rw(1 | age) + icar(1 | area)", data, family="bernoulli", adjacency=RING).fit()
    cells = pd.DataFrame([(a, s, 0.0) for a in AGES for s in RING], columns=["age", "area", "x"]).assign(n=10)
    found = blm.poststratify(fit, blm.PoststratFrame(cells, counts="n"), by="age", seed=1).to_pandas()
    expected = cells.assign(p=np.asarray(fit.predict(cells))).groupby("age")["p"].mean()
    np.testing.assert_allclose(found["estimate"], expected[AGES], atol=1e-12)
    frame = blm.PoststratFrame(cells, counts="n")
    report = str(frame.check(blm.model("z ~ x + rw(1 | age)", data, family="bernoulli")))
    assert "Their neighbours say what to expect" in report
    sd = dict(zip(AGES, found["sd"], strict=True))
    assert sd["a7"] > 1.3 * sd["a6"]


def test_what_needs_independent_groups_says_so(data, fit):
    with pytest.raises(ComparisonError, match="independent groups"):
        fit.summary(ddf="between-within")
    with pytest.raises(FormulaError, match="bambi cannot express rw"):
        blm.model("y ~ x + rw(1 | age)", data).to_bambi()
