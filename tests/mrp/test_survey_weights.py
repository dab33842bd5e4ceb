"""Survey weights as powers of the rows' densities: glmmTMB, quadrature, repeated rows, and what is refused."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import bayeslmm as blm
from bayeslmm.errors import DataError, DataWarning

REFERENCE = Path(__file__).parents[1] / "reference" / "survey_weights.json"
MODELS = {
    "gaussian": ("Reaction ~ Days + (Days || Subject)", "sleepstudy", "gaussian", {"reml": False}),
    "bernoulli": ("use ~ age + urban + (1 | district)", "Contraception", "bernoulli", {}),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:survey weights make this a pseudo-likelihood"),
    pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning"),
]


def weighted(name):
    data = blm.datasets.load(name)
    return data.assign(w=1 + (np.arange(1, len(data) + 1) * 7) % 11)


@pytest.fixture(scope="module")
def people():
    """A small poll in which every respondent has a whole weight."""
    poll = blm.datasets.simulate_poll(400, seed=5).poll
    return poll.assign(w=1 + np.arange(len(poll)) % 3)


@pytest.mark.parametrize("kind", MODELS)
def test_fits_are_those_of_glmmtmb(kind):
    text, data, family, options = MODELS[kind]
    fit = blm.model(text, weighted(data), family, survey_weights="w").fit(**options)
    known = json.loads(REFERENCE.read_text())[kind]
    assert fit.loglik == pytest.approx(known["loglik"], abs=2e-6)
    np.testing.assert_allclose(fit.fixef, known["fixef"], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov)), known["se"], rtol=5e-4)
    sds = np.concatenate([entry.sd for entry in fit.varcorr.entries])
    np.testing.assert_allclose(sds, np.atleast_1d(known["sd"]), rtol=2e-4)
    if kind == "gaussian":
        assert fit.sigma == pytest.approx(known["sigma"], rel=2e-5)


def test_the_pseudo_likelihood_is_the_integral_of_powers():
    """One group after the other by quadrature, with scipy's normal density."""
    data = weighted("Dyestuff")
    fit = blm.model("Yield ~ 1 + (1 | Batch)", data, survey_weights="w").fit(reml=False)
    mean, tau, sigma = float(fit.fixef.iloc[0]), float(fit.varcorr.entries[0].sd[0]), fit.sigma
    powers = data["w"] / data["w"].mean()
    total = 0.0
    for batch in data["Batch"].unique():
        y, w = data.loc[data["Batch"] == batch, "Yield"].to_numpy(), powers[data["Batch"] == batch].to_numpy()

        def density(b, y=y, w=w):
            logs = w @ (stats.norm.logpdf(y, mean + b, sigma) - stats.norm.logpdf(0, 0, sigma))
            return np.exp(logs) * stats.norm.pdf(b, 0, tau)

        edges = np.linspace(-6 * tau, 6 * tau, 13)
        pieces = (integrate.quad(density, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in pairwise(edges))
        total += np.log(sum(pieces)) + w.sum() * stats.norm.logpdf(0, 0, sigma)
    assert fit.loglik == pytest.approx(total, rel=1e-9)


def test_whole_weights_are_repeated_rows(people):
    """Not rescaled, as `weights` of a binary response; survey weights are the same after rescaling, on any scale."""
    formula = "yes ~ sex + (1 | state) + (1 | educ)"
    repeated = people.loc[people.index.repeat(people["w"])]
    several = blm.model(formula, repeated, "bernoulli").fit()
    counted = blm.model(formula, people, "bernoulli", weights="w").fit()
    np.testing.assert_allclose(counted.fixef, several.fixef, rtol=1e-6)
    assert counted.loglik == pytest.approx(several.loglik, abs=1e-7)
    powers = people["w"] / people["w"].mean()
    same = blm.model(formula, people, "bernoulli", weights=powers).fit()
    for scale in (1.0, 1000.0):
        rescaled = blm.model(formula, people, "bernoulli", survey_weights=scale * people["w"]).fit()
        np.testing.assert_allclose(rescaled.fixef, same.fixef, rtol=1e-6)
        assert rescaled.loglik == pytest.approx(same.loglik, abs=1e-7)


def test_a_gaussian_model_differs_from_prior_weights_in_what_sigma_means():
    """The same estimates, but the variance of every row is sigma squared, and the likelihoods differ by a constant."""
    data = weighted("sleepstudy")
    powers = data["w"] / data["w"].mean()
    survey = blm.model("Reaction ~ Days + (Days | Subject)", data, survey_weights="w").fit()
    prior = blm.model("Reaction ~ Days + (Days | Subject)", data, weights=powers).fit()
    np.testing.assert_allclose(survey.fixef, prior.fixef, rtol=1e-9)
    assert survey.sigma == pytest.approx(prior.sigma, rel=1e-9)
    assert prior.loglik - survey.loglik == pytest.approx(0.5 * np.log(powers).sum(), rel=1e-9)
    assert survey.r2().conditional > prior.r2().conditional + 0.01
    np.testing.assert_allclose(survey.scaled_residuals, survey.residuals() / survey.sigma)


def test_the_pymc_model_raises_densities_to_powers(people):
    from pytensor.compile.mode import Mode

    formula = "yes ~ sex + (1 | educ)"
    built = blm.model(formula, people, "bernoulli", survey_weights="w")
    weighted_model, plain = built.to_pymc(), blm.model(formula, people, "bernoulli").to_pymc()
    point = {name: np.full_like(value, 0.3) for name, value in plain.initial_point().items()}
    mode = Mode(linker="py", optimizer="fast_compile")
    gap = float(weighted_model.compile_logp(mode=mode)(point)) - float(plain.compile_logp(mode=mode)(point))
    rows = plain.compile_logp(vars=plain.observed_RVs, sum=False, mode=mode)(point)[0]
    powers = built.design.survey_weights
    assert powers.mean() == pytest.approx(1.0)
    assert gap == pytest.approx(float((powers - 1) @ rows), abs=1e-8)


def test_what_is_said(people):
    with pytest.warns(DataWarning, match="(?s)not design-based.*poststratify") as caught:
        model = blm.model("yes ~ sex + (1 | state)", people, "bernoulli", survey_weights="w")
    assert caught[0].filename == __file__
    assert "weights of mean 1" in str(caught[0].message)
    assert "pseudo-likelihood" in repr(model)
    assert "pseudo-likelihood" in str(model.fit().summary())


def test_estimates_stand_beside_weighted_means(people):
    frame = blm.PoststratFrame(blm.datasets.simulate_poll(400, seed=5).population.drop(columns="p"))
    model = blm.model("yes ~ sex + (1 | state) + (1 | educ)", people, "bernoulli", survey_weights="w")
    estimates = blm.poststratify(model.fit(), frame, by="educ", new_levels="sample", seed=1)
    known = blm.survey_estimates(people, "yes", "educ", weights="w")
    for column in ("weighted", "weighted_se", "n_eff"):
        np.testing.assert_allclose(estimates.survey[column], known[column])
    assert any("pseudo-likelihood" in note for note in estimates.notes)
    left_out = blm.leave_one_out(model, frame, "educ", levels=["college"], seed=1)
    assert len(left_out) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"survey_weights": "v"}, "there is no such column"),
        ({"survey_weights": [1.0, 2.0]}, "has shape"),
        ({"survey_weights": "zero"}, "survey_weights must be positive"),
        ({"survey_weights": "sex"}, "survey_weights"),
    ],
)
def test_bad_weights_are_refused(people, changes, message):
    with pytest.raises(DataError, match=message):
        blm.model("yes ~ 1 + (1 | state)", people.assign(zero=0.0), "bernoulli", **changes)


def test_missing_weights_leave_rows_out(people):
    holes = people.assign(w=people["w"].where(people.index % 10 > 0))
    model = blm.model("yes ~ 1 + (1 | state)", holes, "bernoulli", survey_weights="w")
    assert model.design.n == holes["w"].notna().sum()
    assert model.design.survey_weights.sum() == pytest.approx(model.design.n)


def test_what_a_pseudo_likelihood_cannot_answer(people):
    formula = "yes ~ sex + (1 | state)"
    fit = blm.model(formula, people, "bernoulli", survey_weights="w").fit()
    smaller = blm.model("yes ~ 1 + (1 | state)", people, "bernoulli", survey_weights="w").fit()
    with pytest.raises(DataError, match="likelihood-ratio test needs the density of the data"):
        blm.anova(fit, smaller)
    sleep = blm.datasets.load("sleepstudy")
    with pytest.raises(DataError, match="residuals="):
        blm.model(
            "Reaction ~ Days + (1 | Subject)", sleep, survey_weights=np.ones(180), residuals=blm.residuals.by("Subject")
        )


@pytest.fixture(scope="module")
def posterior():
    data = weighted("Dyestuff")
    with pytest.warns(DataWarning):
        model = blm.model("Yield ~ 1 + (1 | Batch)", data, survey_weights="w")
    return model.sample(100, chains=2, seed=1, progress=False)


def test_a_posterior_says_so_and_remembers(posterior, tmp_path):
    assert "pseudo-likelihood" in str(posterior.summary())
    with pytest.raises(DataError, match=r"loo\(\) needs the density"):
        posterior.loo()
    posterior.save(tmp_path / "post.zip")
    again = blm.Posterior.load(tmp_path / "post.zip")
    np.testing.assert_allclose(again.design.survey_weights, posterior.design.survey_weights)
    assert isinstance(again.design.data, pd.DataFrame)


@pytest.mark.slow
def test_laplace_and_latent_engines_agree(people):
    """Means within four Monte Carlo errors, and SDs within a tenth."""
    model = blm.model("yes ~ sex + (1 | state) + (1 | educ)", people, "bernoulli", survey_weights="w")
    laplace = model.sample(1000, seed=1, progress=False, engine="laplace")
    latent = model.sample(1000, seed=2, progress=False, engine="latent")
    for name, values in latent.parameters.items():
        ours, theirs = laplace.parameters[name].ravel(), values.ravel()
        error = theirs.std() / np.sqrt(300)
        print(f"{name}: {ours.mean():.3f} and {theirs.mean():.3f}, SDs {ours.std():.3f} and {theirs.std():.3f}")
        assert abs(ours.mean() - theirs.mean()) < 4 * error
        assert ours.std() == pytest.approx(theirs.std(), rel=0.15)
