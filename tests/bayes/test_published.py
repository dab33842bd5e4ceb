"""Posteriors that others have published or that one integral gives: BUGS' Rats, Dyes and Seeds, and eight schools."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from scipy.integrate import quad_vec

import bayeslmm as blm

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "bayes" / "bugs_examples.json"
needs_bugs = pytest.mark.skipif(not PUBLISHED.exists(), reason="needs ../shared/data/bayes/bugs_examples.json")
VAGUE = blm.Prior("Normal", mu=0, sigma=1000)
PRECISION = blm.Prior("SqrtInverseGamma", alpha=0.001, beta=0.001)


def bugs(name):
    found = json.loads(PUBLISHED.read_text())["models"][name]
    return found["results"], found["data"]


def numbers(text, name):
    """Numbers of `name = c(...)` in BUGS' data language."""
    inside = re.search(rf"{name}\s*=\s*c\(([^)]*)\)", text)
    return np.array([float(part) for part in inside[1].split(",")])


def sd_error(draws, sd, ess):
    """Monte Carlo error of a standard deviation from `ess` independent draws, by the spread of squared deviations."""
    squares = (draws - draws.mean()) ** 2
    return squares.std() / (2 * sd * np.sqrt(ess))


def assert_agrees(name, draws, published, errors=4.0):
    """Means and SDs within four Monte Carlo errors of both runs."""
    mean, sd = draws.mean(), draws.std()
    own = array_stats.mcse(draws, chain_axis=0, draw_axis=1, method="mean")
    # The published figures have four digits.
    digits = 0.5 * 10.0 ** (np.floor(np.log10(abs(published["mean"]))) - 3)
    assert abs(mean - published["mean"]) < errors * np.hypot(own, published["MC_error"]) + digits, (name, mean)
    own_ess = array_stats.ess(draws, chain_axis=0, draw_axis=1, method="sd")
    theirs = min(published["ESS"], (published["sd"] / published["MC_error"]) ** 2)
    error = np.hypot(sd_error(draws, sd, own_ess), sd_error(draws, sd, theirs))
    digits = 0.5 * 10.0 ** (np.floor(np.log10(published["sd"])) - 3)
    assert abs(sd - published["sd"]) < errors * error + digits, (name, sd)


@needs_bugs
def test_rats():
    results, data = bugs("Rats")
    weight = numbers(data, r"\.Data").reshape(30, 5)
    age = np.array([8.0, 15, 22, 29, 36]) - 22
    frame = pd.DataFrame({"y": weight.ravel(), "age": np.tile(age, 30), "rat": np.repeat(np.arange(30), 5)})
    priors = {"Intercept": VAGUE, "age": VAGUE, "sd": PRECISION, "sigma": PRECISION}
    model = blm.model("y ~ age + (age || rat)", frame, priors=priors)
    post = model.sample(draws=2000, seed=1, progress=False)
    assert "marginal" in post.engine
    found = post.data["posterior"]
    intercept, slope = found["beta"].sel(coef="Intercept").values, found["beta"].sel(coef="age").values
    assert_agrees("alpha0", intercept - 22 * slope, results[0]["alpha0"])
    assert_agrees("beta.c", slope, results[0]["beta.c"])
    assert_agrees("sigma", found["sigma"].values, results[0]["sigma"])


@needs_bugs
def test_dyes():
    results, data = bugs("Dyes")
    batches = numbers(data, r"\.Data").reshape(6, 5)
    frame = pd.DataFrame({"y": batches.ravel(), "batch": np.repeat(np.arange(6), 5)})
    priors = {"Intercept": blm.Prior("Normal", mu=0, sigma=1e5), "sd": PRECISION, "sigma": PRECISION}
    post = blm.model("y ~ 1 + (1 | batch)", frame, priors=priors).sample(draws=10_000, seed=1, progress=False)
    found = post.data["posterior"]
    assert_agrees("theta", found["beta"].values[..., 0], results[0]["theta"])
    assert_agrees("sigma2.with", found["sigma"].values ** 2, results[0]["sigma2.with"])
    # The tail of the variance between six batches falls like its power -3.5: its fourth moment is infinite and the
    # published SD has no Monte Carlo error. Mean and quantiles have one.
    between, published = found["sd_batch"].values[..., 0] ** 2, results[0]["sigma2.btw"]
    own = array_stats.mcse(between, chain_axis=0, draw_axis=1, method="mean")
    assert abs(between.mean() - published["mean"]) < 4 * np.hypot(own, published["MC_error"])
    for name, prob in (("median", 0.5), ("val97.5pc", 0.975)):
        how = {"chain_axis": 0, "draw_axis": 1, "method": "quantile", "prob": prob}
        error = array_stats.mcse(between, **how)
        ratio = array_stats.ess(between, **how) / published["ESS"]
        assert abs(np.quantile(between, prob) - published[name]) < 4 * error * np.sqrt(1 + ratio), name


@needs_bugs
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["laplace", "latent"])
def test_seeds(engine):
    results, data = bugs("Seeds")
    columns = {name: numbers(data, rf"\b{name}") for name in ("r", "n", "x1", "x2")}
    frame = pd.DataFrame(columns).assign(plate=np.arange(21))
    # The published file states no prior of sigma: uniform is inferred. With a gamma(0.001, 0.001) on the precision
    # alpha0 has an SD of 0.194, and 0.214 is published.
    # The prior of the intercept is for centred columns; so wide a normal is the same for the intercept at zero.
    priors = {"Intercept": VAGUE, "beta": VAGUE, "sd": blm.Prior("Uniform", lower=0, upper=10)}
    model = blm.model("prop(r, n) ~ x1 * x2 + (1 | plate)", frame, "binomial", priors=priors)
    post = model.sample(draws=5000, seed=1, engine=engine, progress=False, target_accept=0.97)
    beta = post.data["posterior"]["beta"]
    names = {"alpha0": "Intercept", "alpha1": "x1", "alpha2": "x2", "alpha12": "x1:x2"}
    for theirs, ours in names.items():
        assert_agrees(theirs, beta.sel(coef=ours).values, results[0][theirs])
    assert_agrees("sigma", post.data["posterior"]["sd_plate"].values[..., 0], results[0]["sigma"])


EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def eight_schools_by_quadrature():
    """Mean and SD of mu, tau and each school's effect: normal given tau, and tau by one integral."""

    def moments(tau):
        total = tau**2 + ERRORS**2
        precision = 1 / 25 + np.sum(1 / total)
        mu = np.sum(EFFECTS / total) / precision
        log_density = 0.5 * (mu**2 * precision - np.log(precision) - np.sum(np.log(total) + EFFECTS**2 / total))
        density = np.exp(log_density + 40) / (1 + (tau / 5) ** 2)
        share = tau**2 / total
        mean = share * EFFECTS + (1 - share) * mu
        second = mean**2 + share * ERRORS**2 + (1 - share) ** 2 / precision
        parts = [1.0, mu, mu**2 + 1 / precision, tau, tau**2]
        return density * np.concatenate([parts, mean, second])

    total, *rest = quad_vec(moments, 0, 2000, epsrel=1e-10, limit=2000)[0]
    first = np.array([rest[0], rest[2], *rest[4:12]]) / total
    second = np.array([rest[1], rest[3], *rest[12:20]]) / total
    return first, np.sqrt(second - first**2)


def test_eight_schools():
    frame = pd.DataFrame({"y": EFFECTS, "w": ERRORS**-2.0, "school": list("ABCDEFGH")})
    priors = {
        "Intercept": blm.Prior("Normal", mu=0, sigma=5),
        "sd": blm.Prior("HalfCauchy", beta=5),
        "sigma": blm.Prior("LogNormal", mu=0, sigma=1e-3),  # the errors are known
    }
    model = blm.model("y ~ 1 + (1 | school)", frame, weights="w", priors=priors)
    found = model.sample(draws=5000, seed=1, progress=False).data["posterior"]
    mu, tau = found["beta"].values[..., :1], found["sd_school"].values
    draws = np.concatenate([mu, tau, mu + found["b_school"].values[..., 0]], axis=2)
    mean, sd = eight_schools_by_quadrature()
    error = array_stats.mcse(draws, chain_axis=0, draw_axis=1, method="mean")
    assert np.abs((draws.mean(axis=(0, 1)) - mean) / error).max() < 4
    error = array_stats.mcse(draws, chain_axis=0, draw_axis=1, method="sd")
    assert np.abs((draws.std(axis=(0, 1)) - sd) / error).max() < 4
