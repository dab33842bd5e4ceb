import pickle

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.priors import Prior, checked, pc_prior, resolve_priors
from bayeslmm.bayes.sample import check_proper
from bayeslmm.errors import PriorError


@pytest.fixture(scope="module")
def sleep():
    return blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def schools():
    return blm.model("lang ~ IQ + COMB + (1 | class)", blm.datasets.load("nlschools"))


def resolved(model, priors):
    return resolve_priors(model.design, model.family, priors)


def test_defaults_follow_the_scale_of_the_data(sleep):
    y, days = sleep.design.y, sleep.design.X[:, 1]
    priors = sleep.priors
    assert priors["Intercept"].args == {"mu": pytest.approx(y.mean()), "sigma": pytest.approx(2.5 * y.std(ddof=1))}
    assert priors["Days"].args["sigma"] == pytest.approx(2.5 * y.std(ddof=1) / days.std(ddof=1))
    assert priors["sd_Subject[Intercept]"].args == {"nu": 3.0, "sigma": pytest.approx(y.std(ddof=1))}
    assert priors["sd_Subject[Days]"].args["sigma"] == pytest.approx(y.std(ddof=1) / days.std(ddof=1))
    assert priors["corr_Subject"] == Prior("LKJ", eta=2.0)
    assert priors["sigma"].args["sigma"] == pytest.approx(y.std(ddof=1))


def test_defaults_do_not_depend_on_the_unit_of_y():
    frame = blm.datasets.load("sleepstudy")
    small = blm.model("Reaction ~ Days + (Days | Subject)", frame.assign(Reaction=frame["Reaction"] / 1000)).priors
    large = blm.model("Reaction ~ Days + (Days | Subject)", frame).priors
    for name in ("Intercept", "Days", "sd_Subject[Days]", "sigma"):
        assert small[name].args["sigma"] * 1000 == pytest.approx(large[name].args["sigma"])


def test_a_key_reaches_the_right_entries(sleep):
    five, nine = Prior("HalfNormal", sigma=5.0), Prior("Exponential", lam=9.0)
    priors = resolved(sleep, {"sd_Subject[Days]": nine, "sd": five})
    assert priors["sd_Subject[Intercept]"] == five
    assert priors["sd_Subject[Days]"] == nine
    assert resolved(sleep, {"beta": Prior("Normal", sigma=3)})["Days"] == Prior("Normal", mu=0.0, sigma=3.0)
    assert resolved(sleep, {"beta[Days]": Prior("Flat")})["Days"] == Prior("Flat")
    assert resolved(sleep, {"Days|Subject": Prior("Normal", mu=0, sigma=five)})["sd_Subject[Days]"] == five
    assert resolved(sleep, {"corr_Subject": Prior("LKJ", eta=1)})["corr_Subject"] == Prior("LKJ", eta=1.0)


def test_vectors_of_parameters_are_dealt_out(schools):
    priors = resolved(schools, {"beta": Prior("Normal", mu=0, sigma=[1.0, 2.0])})
    assert priors["IQ"].args["sigma"] == 1
    assert priors["COMB[T.1]"].args["sigma"] == 2


def test_anything_that_looks_like_bambis_prior_is_accepted(sleep):
    class Lookalike:
        name, args = "HalfNormal", {"sigma": np.array(4.0)}

    assert resolved(sleep, {"sigma": Lookalike()})["sigma"] == Prior("HalfNormal", sigma=4.0)


@pytest.mark.parametrize(
    ("key", "prior", "message"),
    [
        ("sd_Subject[Dayz]", Prior("HalfNormal", sigma=1), "Did you mean 'sd_Subject\\[Days\\]'"),
        ("sd", Prior("Normal", mu=0, sigma=1), "Did you mean 'HalfNormal'"),
        ("sigma", Prior("HalfNormal", sigma=-1), "sigma must be above 0"),
        ("sigma", Prior("HalfNormal", sigma=float("nan")), "sigma must be finite"),
        ("sigma", Prior("HalfNorml", sigma=1), "no distribution 'HalfNorml'. Did you mean 'HalfNormal'"),
        ("sigma", Prior("HalfNormal", sd=1), "no parameter 'sd'"),
        ("sigma", Prior("HalfNormal"), "parameter 'sigma' of HalfNormal is missing"),
        ("sigma", Prior("Uniform", lower=3, upper=2), "lower must be below upper"),
        ("sigma", Prior("Uniform", lower=-1, upper=2), "never below 0"),
        ("sigma", 3, "not a prior"),
        ("corr", Prior("Normal", mu=0, sigma=1), "take an LKJ prior"),
        ("Days", Prior("LKJ", eta=2), "which is for correlations"),
        ("1|Subject", Prior("Normal", mu=1, sigma=Prior("HalfNormal", sigma=1)), "normal around 0"),
        ("sd", Prior("HalfNormal", sigma=[1.0, 2.0, 3.0]), "it stands for 2 parameters"),
    ],
)
def test_impossible_priors_are_refused_in_words(sleep, key, prior, message):
    with pytest.raises(PriorError, match=message):
        resolved(sleep, {key: prior})


def test_a_flat_sd_needs_enough_groups():
    frame = blm.datasets.load("Dyestuff")
    two = frame[frame["Batch"].isin(["A", "B"])]
    flat = {"sd": Prior("HalfFlat")}
    check_proper(*(lambda m: (m.design, m.priors))(blm.model("Yield ~ 1 + (1 | Batch)", frame, priors=flat)))
    few = blm.model("Yield ~ 1 + (1 | Batch)", two, priors=flat)
    with pytest.raises(PriorError, match="improper"):
        check_proper(few.design, few.priors)


def test_priors_print_as_a_table_with_reasons(sleep):
    text = str(sleep.priors)
    assert "HalfStudentT(nu=3" in text
    assert "2.5 SD(y) per SD of the column" in text
    assert "<table" in sleep.priors._repr_html_()
    assert list(sleep.priors.to_pandas().columns) == ["kind", "prior", "reason"]


def test_pc_prior_has_the_stated_tail():
    prior = pc_prior(10, 0.05)
    assert np.exp(-prior.args["lam"] * 10) == pytest.approx(0.05)
    with pytest.raises(PriorError):
        pc_prior(-1)


def test_a_prior_is_a_value():
    prior = Prior("HalfNormal", sigma=5)
    assert prior == Prior("HalfNormal", sigma=5)
    assert hash(prior) == hash(Prior("HalfNormal", sigma=5))
    assert pickle.loads(pickle.dumps(prior)) == prior
    with pytest.raises(AttributeError):
        prior.name = "Normal"
    assert checked(Prior("Exponential", scale=4), "x") == Prior("Exponential", lam=0.25)
