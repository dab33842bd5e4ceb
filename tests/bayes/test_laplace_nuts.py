"""The Laplace engine: gradient, importance weights against quadrature, their sign, and published posteriors."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes import laplace_nuts
from bayeslmm.bayes.laplace_nuts import (
    conditional_draws,
    laplace_density,
    resample,
    smooth,
)
from bayeslmm.errors import DataError, SamplingError
from bayeslmm.likelihood.quadrature import adaptive_loglik

CBPP = "prop(incidence, size) ~ period + (1 | herd)"


def frame(seed=5, groups=12, per=8):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), per)
    x = rng.normal(size=len(g))
    mu = np.exp(0.5 + 0.3 * x + 0.5 * rng.normal(size=groups)[g])
    return pd.DataFrame({"x": x, "g": g.astype(str), "count": rng.poisson(mu), "cost": rng.gamma(4.0, mu / 4.0)})


@pytest.fixture(scope="module")
def herds():
    return blm.model(CBPP, blm.datasets.load("cbpp"), family="binomial")


@pytest.mark.parametrize(
    ("formula", "family"),
    [("count ~ x + (x | g)", "poisson"), ("count ~ x + (x || g)", "negativebinomial"), ("cost ~ x + (1 | g)", "gamma")],
)
def test_gradient_agrees_with_differences(formula, family):
    model = blm.model(formula, frame(), family=family)
    density = laplace_density(model.design, model.family, model.priors)
    state, x = density.state(tolerance=1e-12), density.start() + 0.2
    gradient, other = np.empty(len(x)), np.empty(len(x))
    value = state.evaluate(x, gradient)
    assert density.state().evaluate(x, other) == pytest.approx(value, abs=1e-5)
    np.testing.assert_allclose(other, gradient, atol=1e-3)
    for i in density.active:
        step = 1e-5 * (np.arange(len(x)) == i)
        up, down = (state.evaluate(x + sign * step, other) for sign in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-5)


def test_the_mean_weight_is_what_laplace_misses():
    data = frame(groups=6, per=3).assign(y=lambda d: (d["count"] > 1).astype(float))
    model = blm.model("y ~ 0 + (1 | g)", data, family="bernoulli")
    density = laplace_density(model.design, model.family, model.priors)
    point = density.start()
    theta = [float(np.exp(point[0]))]
    missed = adaptive_loglik(density.kernel, theta, [], [], 40) - density.kernel.loglik(theta, [])
    _, _, exact, approximate = conditional_draws(density, np.tile(point, (1, 40_000, 1)), seed=1, cores=1)
    log_weights = exact - approximate
    assert np.log(np.mean(np.exp(log_weights))) == pytest.approx(missed, abs=0.003)
    assert abs(missed) > 0.005


def test_draws_have_the_moments_of_the_gaussian_at_the_mode(herds):
    density = laplace_density(herds.design, herds.family, herds.priors)
    point = density.start()
    beta, effects, *_ = conditional_draws(density, np.tile(point, (1, 20_000, 1)), seed=1, cores=2)
    again, *_ = conditional_draws(density, np.tile(point, (1, 20_000, 1)), seed=2, cores=1)
    np.testing.assert_allclose(beta[0].mean(axis=0), again[0].mean(axis=0), atol=0.02)
    at_mode = density.kernel.evaluate([np.exp(point[0])], None, integrate_beta=True)
    flat_mode = density.kernel.unwhiten(density.kernel.state.beta[:, 0])
    assert np.isfinite(at_mode.value)
    np.testing.assert_allclose(beta[0].mean(axis=0), flat_mode, atol=0.1)
    assert effects["herd"].shape == (1, 20_000, 15, 1)


def test_smoothing_weights_the_right_way_round():
    z = np.random.default_rng(1).standard_normal((2, 20_000))
    smoothed, k = smooth(0.5 * z)
    assert np.sum(np.exp(smoothed) * z) == pytest.approx(0.5, abs=0.03)
    assert k < 0.5
    kept = resample(smoothed, np.random.default_rng(2))
    assert np.take_along_axis(z, kept, axis=1).mean() == pytest.approx(0.5, abs=0.05)


def test_a_handful_of_draws_has_weights_but_no_tail():
    smoothed, k = smooth(np.log([[1.0, 3.0]]))
    np.testing.assert_allclose(np.exp(smoothed), [[0.25, 0.75]])
    assert np.isnan(k)


def test_heavy_weights_are_noticed():
    z = np.random.default_rng(1).standard_normal((1, 5_000))
    assert smooth(1.5 * z**2)[1] > 0.7


def test_the_posterior_answers_as_any_fit_does(herds):
    post = herds.sample(draws=300, chains=2, seed=1, progress=False)
    assert post.run.engine == "Laplace"
    assert "Pareto k" in " ".join(post.run.notes)
    fit = herds.fit()
    z = (post.fixef - fit.fixef) / np.sqrt(np.diag(fit.vcov))
    assert np.abs(z).max() < 0.5
    assert list(post.parameter_frame().index) == list(fit.parameter_frame().index)
    again = herds.sample(draws=300, chains=2, seed=1, progress=False)
    np.testing.assert_array_equal(again.data["posterior"]["beta"], post.data["posterior"]["beta"])


def test_a_poor_approximation_hands_over_to_the_pymc_model(herds, monkeypatch):
    taken = []

    def latent(*args, reason, **options):
        taken.append(reason)
        return "latent"

    monkeypatch.setattr(laplace_nuts, "WORST_PARETO_K", -1.0)
    monkeypatch.setattr("bayeslmm.bayes.nuts.sample_latent", latent)
    assert herds.sample(draws=100, chains=1, seed=1, progress=False) == "latent"
    assert "Pareto k" in taken[0]
    assert herds.sample(draws=100, chains=1, seed=1, progress=False, engine="laplace").run.engine == "Laplace"


def test_the_engine_says_why_it_does_not_apply(herds):
    skewed = herds.with_priors({"period[T.2]": blm.Prior("StudentT", nu=3, mu=0, sigma=1)})
    with pytest.raises(SamplingError, match="not normal"):
        skewed.sample(draws=10, chains=1, engine="laplace")
    gaussian = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    with pytest.raises(SamplingError, match="marginal"):
        gaussian.sample(draws=10, chains=1, engine="laplace")


@pytest.mark.parametrize("change", [-1, 0.5])
@pytest.mark.parametrize("engine", [None, "laplace", "latent"])
def test_impossible_responses_are_refused_before_anything_is_drawn(change, engine):
    data = frame().assign(count=lambda d: d["count"] + change)
    with pytest.raises(DataError, match="must be counts"):
        blm.model("count ~ x + (1 | g)", data, family="poisson").sample(10, engine=engine, progress=False)


def test_a_row_of_weight_two_is_two_rows_in_leave_one_out():
    data = frame().assign(w=lambda d: 1 + np.arange(len(d)) % 3)
    post = blm.model("count ~ x + (1 | g)", data, family="poisson", weights="w").sample(
        50, chains=1, seed=1, progress=False
    )
    single = stats.poisson.logpmf(data["count"], np.exp(post.linpred_draws()))
    np.testing.assert_allclose(post.log_likelihood(), single * data["w"].to_numpy())


def test_a_row_of_weight_two_is_two_rows_in_the_pymc_model():
    data = frame().assign(w=lambda d: 1 + np.arange(len(d)) % 3)
    again = data.loc[data.index.repeat(data["w"])]
    # Without predictors: they would be centred at other means.
    priors = {"Intercept": blm.Prior("Normal", mu=0, sigma=2), "sd_g": blm.Prior("HalfNormal", sigma=1)}
    values = []
    for rows, weights in ((data, "w"), (again, None)):
        pm_model = blm.model("count ~ 1 + (1 | g)", rows, family="poisson", weights=weights, priors=priors).to_pymc()
        shapes = pm_model.eval_rv_shapes()
        point = {pm_model.rvs_to_values[rv]: np.full(shapes[rv.name], 0.3) for rv in pm_model.free_RVs}
        terms = [pm_model.logp(vars=[pm_model["y"]]), *pm_model.potentials]
        terms = pm_model.replace_rvs_by_values(terms)
        values.append(sum(float(term.eval(point, mode="FAST_COMPILE", on_unused_input="ignore")) for term in terms))
    assert values[0] == pytest.approx(values[1], rel=1e-12)
