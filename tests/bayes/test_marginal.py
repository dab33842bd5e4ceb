"""The exact engine, against dense conditionals, itself with other seeds, and what it must not do."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.logposterior import log_posterior_of
from bayeslmm.bayes.marginal import conditional_draws, find_mode, keep_complete
from bayeslmm.bayes.priors import Prior
from bayeslmm.bayes.proposals import WIDE_POWER, AxisDensity, Proposal, independence_metropolis, pareto_k
from bayeslmm.errors import PriorError, SamplingError


@pytest.fixture(scope="module")
def sleep():
    return blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def post(sleep):
    return sleep.sample(draws=500, chains=2, seed=1, progress=False)


def test_draws_are_labelled_and_complete(post):
    posterior = post.data["posterior"]
    assert posterior["beta"].dims == ("chain", "draw", "coef")
    assert posterior["b_Subject"].dims == ("chain", "draw", "Subject", "Subject_effect")
    assert posterior["corr_Subject"].dims == ("chain", "draw", "Subject_effect", "Subject_effect_bis")
    assert all(np.isfinite(posterior[name].values).all() for name in posterior.data_vars)
    assert (posterior["sd_Subject"].values > 0).all()
    assert post.diagnostics().max_rhat < 1.03
    assert post.diagnostics().min_ess_bulk > 400
    assert post.diagnostics().divergences == 0


def test_posterior_lies_where_reml_does(post):
    fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    ours, theirs = post.parameter_frame(), fit.parameter_frame()
    distance = (ours["estimate"] - theirs["estimate"]) / ours["se"]
    assert distance.abs().max() < 1
    assert post.ranef["Subject"].corrwith(fit.ranef["Subject"]).min() > 0.99


def test_the_same_seed_gives_the_same_draws_whatever_the_cores(sleep):
    first, second = (sleep.sample(draws=60, chains=2, seed=7, progress=False, cores=cores) for cores in (1, 2))
    third = sleep.sample(draws=60, chains=2, seed=8, progress=False)
    for name in ("beta", "sigma", "b_Subject", "sd_Subject", "corr_Subject"):
        np.testing.assert_array_equal(first.data["posterior"][name], second.data["posterior"][name])
        assert not np.array_equal(first.data["posterior"][name], third.data["posterior"][name])


def test_conditional_draws_have_the_dense_mean_and_covariance(sleep):
    density = log_posterior_of(sleep.design, sleep.priors, sleep.kernel)
    x = find_mode(density).x
    count = 20_000
    beta, effects, values = conditional_draws(density, np.tile(x, (1, count, 1)), seed=3, progress=False, cores=1)
    flat, sigma, _, _ = density.coordinates.unpack(x)
    design, factor = sleep.design, sleep.design.factors[0]
    root = sigma * density.coordinates.layout.unflatten(flat)[0]
    Z = np.zeros((len(design.y), len(factor.levels), 2))
    Z[np.arange(len(design.y)), factor.codes] = factor.Z
    columns = np.hstack([design.X, Z.reshape(len(design.y), -1)])
    precision = columns.T @ columns / sigma**2
    normal = np.diag([prior.args["sigma"] ** -2 for prior in sleep.priors.coefficients])
    centre = np.array([prior.args["mu"] for prior in sleep.priors.coefficients])
    precision[:2, :2] += density.shear.T @ normal @ density.shear
    precision[2:, 2:] += np.kron(np.eye(len(factor.levels)), np.linalg.inv(root @ root.T))
    shift = columns.T @ design.y / sigma**2
    shift[:2] += density.shear.T @ normal @ centre
    covariance = np.linalg.inv(precision)
    mean = covariance @ shift
    draws = np.concatenate([beta[0], effects["Subject"][0].reshape(count, -1)], axis=1)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 5 / np.sqrt(count)
    scaled = (np.cov(draws, rowvar=False) - covariance) / np.outer(sd, sd)
    assert np.abs(scaled).max() < 6 / np.sqrt(count)
    assert np.ptp(values) == 0


def test_mode_is_a_stationary_point(sleep):
    density = log_posterior_of(sleep.design, sleep.priors, sleep.kernel)
    mode = find_mode(density)
    value, gradient = density.value_and_gradient(mode.x)
    assert value == pytest.approx(mode.value)
    assert np.abs(mode.spread.T @ gradient).max() < 1e-3


def test_overflow_gives_minus_infinity_not_an_error(sleep):
    density = log_posterior_of(sleep.design, sleep.priors, sleep.kernel)
    for far in (800.0, -800.0):
        value, gradient = density.value_and_gradient(np.full(density.size, far))
        assert value == -np.inf
        assert np.isfinite(gradient).all()


def test_a_variance_of_zero_is_no_obstacle():
    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
    post = model.sample(draws=500, chains=2, seed=1, progress=False)
    assert post.diagnostics().max_rhat < 1.02
    assert post.draws("sd_Batch").min() < 0.2


def test_pytensor_is_not_loaded():
    code = (
        "import sys, bayeslmm as blm\n"
        "m = blm.model('Yield ~ 1 + (1 | Batch)', blm.datasets.load('Dyestuff'))\n"
        "m.sample(draws=50, chains=1, seed=1, progress=False).summary()\n"
        "assert not {'pytensor', 'pymc', 'bambi'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_interrupted_run_keeps_what_all_chains_have():
    w = np.zeros((3, 10, 2))
    w[0, 6:], w[1, 8:], w[2] = np.nan, np.nan, np.nan
    kept, statistics, notes = keep_complete(w, {"diverging": np.zeros((3, 10))}, 10)
    assert kept.shape == (2, 6, 2)
    assert statistics["diverging"].shape == (2, 6)
    assert "6 of 10 draws of 2 chains" in notes[0]
    with pytest.raises(SamplingError, match="warm-up"):
        keep_complete(np.full((2, 4, 1), np.nan), {}, 4)


def skewed(power: float = 1.0) -> AxisDensity:
    """A log-gamma density of shape 2 from its values and slopes at a few points: skewed, its left tail exponential."""
    w = np.array([-9.0, -6.0, -4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0])
    return AxisDensity.from_slopes(w, 2 * w - np.exp(w), 2 - np.exp(w), power)


def test_axis_density_is_that_of_its_draws_and_follows_what_it_interpolates():
    from scipy import stats

    density = skewed()
    draws = density.draw(np.random.default_rng(0), 100_000)
    grid = np.linspace(-30, 6, 200_001)
    mass = np.exp(density.logpdf(grid)).cumsum() * (grid[1] - grid[0])
    assert mass[-1] == pytest.approx(1, abs=1e-4)
    at = np.quantile(draws, [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
    assert np.interp(at, grid, mass) == pytest.approx([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999], abs=0.005)
    exact = stats.loggamma(2).logpdf(grid)
    where = (grid > -12) & (grid < 2)
    assert np.abs(density.logpdf(grid) - exact)[where].max() < 0.05


def test_proposal_density_is_that_of_its_draws_and_wide_in_the_tails():
    proposal = Proposal((skewed(), skewed()), (skewed(WIDE_POWER), skewed(WIDE_POWER)))
    draws = proposal.draw(np.random.default_rng(0), 200_000)
    fine = np.linspace(-0.995, 0.995, 200)
    square = np.column_stack([np.repeat(fine, 200), np.tile(fine, 200)])
    inside = (np.abs(draws) < 1).all(axis=1).mean()
    assert inside == pytest.approx(np.exp(proposal.logpdf(square)).sum() * 1e-4, abs=0.005)
    far = np.array([[-8.0, -8.0]])
    assert proposal.logpdf(far) > sum(axis.logpdf(far[:, 0]) for axis in proposal.close) + 3


def test_independence_metropolis_has_the_target_as_its_distribution():
    rng = np.random.default_rng(0)
    proposals = rng.standard_t(5, size=(4, 20_000)) * 1.3
    from scipy import stats

    log_weights = stats.norm.logpdf(proposals, 0.3, 0.8) - stats.t.logpdf(proposals / 1.3, 5)
    kept, accepted = independence_metropolis(log_weights, rng)
    draws = np.take_along_axis(proposals, kept, axis=1)
    assert draws.mean() == pytest.approx(0.3, abs=0.02)
    assert draws.std() == pytest.approx(0.8, abs=0.02)
    assert 0.4 < accepted.mean() < 0.95


def test_pareto_k_has_the_right_sign():
    """Proposals narrower than the target have heavy weights, wider ones light weights."""
    rng = np.random.default_rng(0)
    from scipy import stats

    def k(scale):
        w = rng.normal(0, scale, 4000)
        return pareto_k(stats.norm.logpdf(w) - stats.norm.logpdf(w, 0, scale))

    assert k(0.5) > 0.6
    assert k(1.5) < 0.3


def test_proposals_agree_with_nuts():
    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    proposals = model.sample(draws=2000, chains=2, seed=1, progress=False, method="proposals")
    nuts = model.sample(draws=2000, chains=2, seed=2, progress=False, method="nuts")
    assert proposals.engine == "independent proposals (marginal)"
    assert np.isfinite(proposals.run.pareto_k)
    a, b = proposals.parameter_frame(), nuts.parameter_frame()
    assert ((a["estimate"] - b["estimate"]) / b["se"]).abs().max() < 0.15


@pytest.mark.parametrize("seed", range(4))
def test_one_far_proposal_does_not_hold_the_chains(seed):
    """Few levels of one crossed factor: its log SD has an exponential tail that a common t meets too rarely."""
    model = blm.model("diameter ~ 1 + (1 | plate) + (1 | sample)", blm.datasets.load("Penicillin"))
    post = model.sample(seed=seed, progress=False, method="proposals")
    assert post.run.pareto_k < 0.3
    assert post.diagnostics().min_ess_bulk > 2_000


def test_nuts_takes_over_where_proposals_do_not_fit(sleep, monkeypatch):
    monkeypatch.setattr("bayeslmm.bayes.sample.SLOW_EVALUATION", 0.0)
    taken = sleep.sample(seed=1, progress=False)
    assert taken.run.method == "independent proposals"
    monkeypatch.setattr("bayeslmm.bayes.sample.LEAST_EFFICIENCY", 0.99)
    left = sleep.sample(draws=200, seed=1, progress=False)
    assert left.run.method == "NUTS"
    assert "of them were effective" in left.run.reason


def test_priors_the_engine_does_not_know_go_to_pymc_and_say_so(sleep):
    odd = sleep.with_priors(sigma=Prior("Weibull", alpha=2, beta=30))
    with pytest.raises(PriorError, match="does not know the prior of 'sigma'"):
        odd.sample(engine="marginal", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws=0"),
        ({"chains": -1}, "chains=-1"),
        ({"tune": 0}, "tune=0"),
        ({"seed": -3}, "seed=-3"),
        ({"engine": "margnal"}, "Did you mean 'marginal'"),
        ({"method": "gibbs"}, "method='gibbs'"),
    ],
)
def test_options_that_make_no_sense_are_refused(sleep, options, message):
    with pytest.raises(SamplingError, match=message):
        sleep.sample(progress=False, **options)


def test_the_cost_that_chooses_the_method_is_counted_from_the_structure():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": rng.integers(0, 700, 5000), "h": rng.integers(0, 700, 5000), "y": rng.normal(size=5000)})
    model = blm.model("y ~ 1 + (1 | g) + (1 | h)", frame)
    assert model.kernel.analysis.seconds > 1e-3
    small = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    assert small.kernel.analysis.seconds < 1e-5
