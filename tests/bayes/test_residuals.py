"""Unequal and correlated residuals in the exact engine: its density is that of PyMC and of the dense witness."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.logposterior import log_posterior_of
from bayeslmm.bayes.marginal import find_mode
from bayeslmm.errors import DataError, FormulaError
from bayeslmm.likelihood.residual import ResidualRows
from tests.benchmarks.bench_residuals import panel

by, ar1, exchangeable = blm.residuals.by, blm.residuals.ar1, blm.residuals.exchangeable
FORMULA = "distance ~ age + (1 | Subject)"
CASES = {
    "by": (FORMULA, by("Sex")),
    "ar1": (FORMULA, ar1("age", group="Subject")),
    "ar1 by": (FORMULA, ar1("age", group="Subject", by="half")),
    "exchangeable": ("distance ~ age + (0 + age | Subject)", exchangeable(group="Subject", by="half")),
}


def data():
    """Orthodont with rows in no order, some left out, and strata within subjects."""
    frame = blm.datasets.load("Orthodont").sample(70, random_state=3).reset_index(drop=True)
    return frame.assign(half=np.where(frame["age"] > 10, "late", "early"))


def model(case):
    formula, structure = CASES[case]
    return blm.model(formula, data(), residuals=structure)


@pytest.mark.parametrize("case", CASES)
def test_density_is_the_dense_one_and_its_gradient_is_right(case):
    m = model(case)
    density = log_posterior_of(m.design, m.priors, m.kernel)
    design, rows = m.design, ResidualRows.from_design(m.design)
    x = np.array([np.log(1.3), np.log(1.8), *([0.3, 0.5][: density.residual.size])])
    psi = x[2:]
    value, gradient = density.value_and_gradient(x)
    sd, sigma = np.exp(x[:2])
    scale = sigma * rows.scale(psi)
    Z = design.factors[0].Z
    V = rows.correlation(psi) * np.outer(scale, scale)
    V += sd**2 * (Z @ Z.T) * (design.factors[0].codes[:, None] == design.factors[0].codes)
    centred = design.X.copy()
    centred[:, 1] -= centred[:, 1].mean()
    normal = [entry.prior.args for entry in m.priors if entry.kind in ("intercept", "coefficient")]
    mean, spread = (np.array([a[key] for a in normal]) for key in ("mu", "sigma"))
    total = V + centred @ np.diag(spread**2) @ centred.T
    expected = stats.multivariate_normal(centred @ mean, total).logpdf(design.y)
    for entry, point, jacobian in zip(
        [e for e in m.priors if e.kind in ("sd", "sigma", "ratio", "rho")],
        [sd, sigma, *density.residual.natural(psi)],
        [sd, sigma, *rows.natural_slopes(psi)],
        strict=True,
    ):
        expected += float(entry.prior.logpdf(point)) + np.log(jacobian)
    assert value == pytest.approx(expected, abs=1e-8)
    h = 1e-5
    found = [
        (density.value_and_gradient(x + h * e)[0] - density.value_and_gradient(x - h * e)[0]) / (2 * h)
        for e in np.eye(len(x))
    ]
    np.testing.assert_allclose(gradient, found, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_pymc_model_has_the_joint_density_of_the_residuals(case):
    import pytensor

    m = model(case)
    mode = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
    built = m.to_pymc()
    observed = built.compile_logp(vars=built.observed_RVs, sum=True, mode=mode)
    point = built.initial_point()
    rng = np.random.default_rng(5)
    point = {name: np.asarray(value) + 0.2 * rng.standard_normal(np.shape(value)) for name, value in point.items()}
    natural = dict(
        zip(
            [v.name for v in built.free_RVs],
            built.compile_fn(built.replace_rvs_by_values(built.free_RVs), inputs=built.value_vars, mode=mode)(point),
            strict=True,
        )
    )
    design, rows = m.design, ResidualRows.from_design(m.design)
    psi = rows.unconstrained(np.ravel(natural.get("sigma_ratio", [])), float(natural.get("rho", 0.0)))
    X = design.X[:, 1] - design.X[:, 1].mean()
    effect = natural["sd_Subject"][0] * natural["z_Subject"][design.factors[0].codes, 0] * design.factors[0].Z[:, 0]
    mean = natural["Intercept"] + X * natural["slopes"][0] + effect
    scale = natural["sigma"] * rows.scale(psi)
    covariance = rows.correlation(psi) * np.outer(scale, scale)
    expected = stats.multivariate_normal(mean, covariance).logpdf(design.y)
    assert float(observed(point)) == pytest.approx(expected, abs=1e-7)


@pytest.fixture(scope="module")
def posteriors():
    frame = blm.datasets.load("Orthodont")
    made = {}
    for name, structure in (("by", by("Sex")), ("ar1", ar1("age", group="Subject", by="Sex"))):
        m = blm.model(FORMULA, frame, residuals=structure)
        made[name] = m, m.sample(draws=150, chains=2, seed=1, progress=False)
    return made


def test_a_posterior_answers_like_a_fit(posteriors):
    for m, post in posteriors.values():
        fit, frame = m.fit(), post.parameter_frame()
        assert list(frame.index) == list(fit.parameter_frame().index)
        shift = (frame["estimate"] - fit.parameter_frame()["estimate"]) / frame["se"]
        assert shift.abs().max() < 0.8
        assert "an SD for each level of Sex" in str(post.summary())
        assert len(post.varcorr.strata) == 2
        pearson = np.corrcoef(post.residuals("pearson"), fit.residuals("pearson"))[0, 1]
        assert pearson > 0.99
        assert 0 < post.r2().conditional < 1


def test_new_responses_have_the_rows_own_sd_and_correlation(posteriors):
    _, post = posteriors["ar1"]
    noise = post.predictive_draws(seed=1) - post.epred_draws()
    male = (post.design.data["Sex"] == "Male").to_numpy()
    ratio = noise[:, ~male].std() / noise[:, male].std()
    assert ratio == pytest.approx(post.draws("sigma_ratio").mean(), abs=0.06)
    following = np.corrcoef(noise[:, 0:-1:4].ravel(), noise[:, 1::4].ravel())[0, 1]
    assert following == pytest.approx(post.draws("rho").mean(), abs=0.06)


def test_leave_one_out_where_rows_are_independent(posteriors):
    assert np.isfinite(posteriors["by"][1].loo().elpd)
    with pytest.raises(DataError, match="not available with residuals"):
        posteriors["ar1"][1].loo()
    with pytest.raises(DataError, match="not available with residuals"):
        posteriors["by"][1].loo(group="Subject")


def test_save_and_load_keep_the_structure(posteriors, tmp_path):
    _, post = posteriors["ar1"]
    again = blm.Posterior.load(post.save(tmp_path / "p.zip"))
    pd.testing.assert_frame_equal(again.parameter_frame(), post.parameter_frame())
    assert again.design.residuals.describe() == post.design.residuals.describe()


def test_priors_by_name_and_what_other_packages_cannot_express():
    m = blm.model(
        FORMULA, data(), residuals=ar1("age", group="Subject", by="Sex"),
        priors={"sigma_ratio": blm.Prior("HalfNormal", sigma=2), "rho": blm.Prior("Uniform", lower=0, upper=1)},
    )  # fmt: skip
    assert m.priors["sigma_ratio[Female]"] == blm.Prior("HalfNormal", sigma=2)
    assert "AR(1) within Subject" in repr(m)
    with pytest.raises(FormulaError, match="bambi cannot express"):
        m.to_bambi()


@pytest.mark.parametrize("call", [lambda m: m.prior_predictive(draws=5), lambda m: blm.sbc(m, n_sims=2, draws=5)])
def test_what_would_ignore_the_structure_is_refused(call):
    orthodont = blm.datasets.load("Orthodont")
    model = blm.model("distance ~ age + (1 | Subject)", orthodont, residuals=blm.residuals.by("Sex"))
    with pytest.raises(DataError, match="is not available with residuals="):
        call(model)


def test_formulas_of_further_parameters_are_refused_beside_a_structure():
    orthodont = blm.datasets.load("Orthodont")
    with pytest.raises(DataError, match="cannot go with a formula for a further parameter"):
        blm.model(["distance ~ age + (1 | Subject)", "sigma ~ Sex"], orthodont, residuals=blm.residuals.by("Sex"))


def test_the_equation_shows_the_structure():
    orthodont = blm.datasets.load("Orthodont")
    unequal = blm.model("distance ~ age + (1 | Subject)", orthodont, residuals=blm.residuals.by("Sex"))
    assert r"\sigma_{\mathrm{Sex}[i]}^{2}" in str(unequal.equation()).replace(" ", "").replace("{\\sigma", "\\sigma")
    serial = blm.model("distance ~ age + (1 | Subject)", orthodont, residuals=blm.residuals.ar1("age", group="Subject"))
    assert r"\rho^{d" in str(serial.equation()).replace(" ", "")


def test_the_search_for_the_mode_is_not_thrown_off_by_a_steep_start():
    """With many rows the gradient at the start is long: a whole step of it ends where the density is not finite."""
    m = blm.model("y ~ time + (time | g)", panel(150, 16), residuals=ar1("time", group="g"))
    density = log_posterior_of(m.design, m.priors, m.kernel)
    mode = find_mode(density)
    value, gradient = density.value_and_gradient(mode.x)
    assert value == pytest.approx(mode.value)
    np.testing.assert_allclose(mode.spread.T @ gradient, 0, atol=1e-3)
    assert density.residual.natural(mode.x[-1:])[0] == pytest.approx(0.4, abs=0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
@pytest.mark.parametrize("case", ["by", "ar1", "exchangeable"])
def test_both_engines_have_one_posterior(case):
    m = model(case)
    exact, latent = (
        m.sample(1500, chains=4, seed=seed, engine=engine, progress=False)
        for seed, engine in ((1, "marginal"), (2, "latent"))
    )
    ours, theirs = exact.summary().to_pandas(), latent.summary().to_pandas()
    assert list(ours.index) == list(theirs.index)
    error = np.sqrt(ours["sd"] ** 2 / ours["ess_bulk"] + theirs["sd"] ** 2 / theirs["ess_bulk"])
    np.testing.assert_array_less(np.abs(ours["mean"] - theirs["mean"]), 4 * error)
    np.testing.assert_allclose(ours["sd"], theirs["sd"], rtol=0.15)
