"""What a posterior must survive: each line of the list of bad input, tried."""

import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes import logposterior
from bayeslmm.bayes.nuts import choose_centred
from bayeslmm.bayes.posterior import Posterior
from bayeslmm.errors import DataError, PriorError, SamplingError


@pytest.fixture(scope="module")
def model():
    return blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def post(model):
    return model.sample(50, chains=2, seed=1, progress=False)


def test_priors_that_are_impossible_or_for_nothing(model):
    for key, prior, words in (
        ("sigma", blm.Prior("HalfNormal", sigma=-1), "must be above 0"),
        ("sd", blm.Prior("Normal", mu=0, sigma=1), "Did you mean 'HalfNormal'"),
        ("sd_Subjct", blm.Prior("HalfNormal", sigma=1), "Did you mean 'sd_Subject'"),
        ("Dayz", blm.Prior("Normal", mu=0, sigma=1), "Did you mean 'Days'"),
        ("Days", blm.Prior("Normol", mu=0, sigma=1), "Did you mean 'Normal'"),
    ):
        with pytest.raises(PriorError, match=words):
            model.with_priors({key: prior})


def test_an_improper_posterior_is_refused_with_the_reason():
    frame = pd.DataFrame({"y": np.random.default_rng(0).normal(size=20), "g": np.repeat(["a", "b"], 10)})
    flat = blm.model("y ~ 1 + (1 | g)", frame, priors={"sd": blm.Prior("HalfFlat")})
    with pytest.raises(PriorError, match="improper"):
        flat.sample(10, progress=False)


def test_data_without_variance():
    frame = pd.DataFrame({"y": np.ones(12), "g": np.repeat(list("abc"), 4)})
    with pytest.raises(DataError, match="no variation to explain"):
        blm.model("y ~ 1 + (1 | g)", frame).sample(10, progress=False)
    between = pd.DataFrame({"y": np.repeat([1.0, 2.0, 4.0], 4) + 1e-9 * np.arange(12), "g": np.repeat(list("abc"), 4)})
    post = blm.model("y ~ 1 + (1 | g)", between).sample(20, chains=1, seed=1, progress=False)
    assert all(np.isfinite(draws).all() for draws in post.parameters.values())


def interrupt_at(monkeypatch, chunk):
    """Raise what Ctrl-C raises when this chunk of group effects is to be drawn."""
    calls, really = [], logposterior.draw_effects

    def draw(*arguments):
        calls.append(1)
        if len(calls) == chunk:
            raise KeyboardInterrupt
        really(*arguments)

    monkeypatch.setattr(logposterior, "draw_effects", draw)


def test_an_interruption_while_group_effects_are_drawn_keeps_what_is_complete(model, monkeypatch):
    whole = model.sample(500, chains=2, seed=1, progress=False, cores=1, method="nuts")
    interrupt_at(monkeypatch, 3)
    part = model.sample(500, chains=2, seed=1, progress=False, cores=1, method="nuts")
    assert dict(part.data["posterior"].sizes)["chain"] == 1
    np.testing.assert_array_equal(part.draws("b_Subject"), whole.draws("b_Subject")[:500])
    np.testing.assert_array_equal(part.draws("beta"), whole.draws("beta")[:500])
    assert "interrupted: 500 of 500 draws of 1 chains were kept" in str(part.summary())


def test_an_interruption_before_anything_is_complete_says_so(model, monkeypatch):
    interrupt_at(monkeypatch, 1)
    with pytest.raises(SamplingError, match="no draws to keep"):
        model.sample(100, chains=1, seed=1, progress=False, cores=1, method="nuts")


def test_a_full_disk_does_not_replace_a_good_file(post, tmp_path, monkeypatch):
    path = post.save(tmp_path / "good.blm")
    before = path.read_bytes()
    monkeypatch.setattr(zipfile.ZipFile, "write", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        post.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["good.blm"]


def rewritten(path, target, change):
    """The same archive with another model.json."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "model.json":
                data = json.dumps(change(json.loads(data))).encode()
            new.writestr(name, data)
    return target


def test_files_from_elsewhere(post, tmp_path):
    path = post.save(tmp_path / "good.blm")
    later = rewritten(path, tmp_path / "later.blm", lambda record: record | {"version": 99})
    with pytest.raises(DataError, match="later version"):
        Posterior.load(later)
    other = rewritten(path, tmp_path / "other.blm", lambda record: record | {"format": "something else"})
    with pytest.raises(DataError, match="not a posterior"):
        Posterior.load(other)
    columns = rewritten(path, tmp_path / "columns.blm", lambda record: record | {"coef_names": ["a"]})
    with pytest.raises(DataError, match="codes its columns otherwise"):
        Posterior.load(columns)
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(DataError, match="not one that save"):
        Posterior.load(tmp_path / "foreign.zip")
    whole = path.read_bytes()
    for share in (0.01, 0.5, 0.99):
        (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match="damaged"):
            Posterior.load(tmp_path / "cut")


def test_terms_are_centred_where_the_data_speak_loudly():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 40)
    x = rng.normal(size=480)
    loud = 3 * rng.normal(size=12)[groups] + 0.01 * rng.normal(size=12)[groups] * x + rng.normal(size=480)
    frame = pd.DataFrame({"y": loud, "x": x, "g": groups, "noise": rng.normal(size=480), "w": np.exp(0.3 * loud)})
    one = blm.model("y ~ x + (1 | g)", frame)
    assert choose_centred(one.design, one.family) == ("g",)
    both = blm.model("y ~ x + (1 | g) + (0 + x | g)", frame)
    assert choose_centred(both.design, both.family) == ("(1 | g)",)
    quiet = blm.model("noise ~ x + (1 | g)", frame)
    assert choose_centred(quiet.design, quiet.family) == ()
    frame["h"], frame["k"] = groups // 3, np.tile(np.arange(40) % 4, 12)
    coarse = 3 * rng.normal(size=4)[groups // 3] + rng.normal(size=480)
    crossed = blm.model("y ~ x + (1 | h:k) + (1 | h)", frame.assign(y=coarse))
    # Levels of h:k differ as those of h do, and not beyond.
    assert choose_centred(crossed.design, crossed.family) == ("h",)
    logged = blm.model("w ~ x + (1 | g)", frame, "lognormal")
    assert choose_centred(logged.design, logged.family) == ("g",)
    with pytest.raises(SamplingError, match="Did you mean 'g'"):
        one.sample(10, engine="latent", centred=("gg",), progress=False)
    from bayeslmm.bayes.latent import build_pymc_model

    names = {rv.name for rv in build_pymc_model(both.design, both.family, both.priors, centred=("(1 | g)",)).free_RVs}
    assert {"b_g_1", "z_g_2"} <= names


@pytest.mark.parametrize("text", ["y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (x || g)", "y ~ 0 + x + (x | g)"])
def test_levels_centred_at_the_coefficients_have_the_same_density(text):
    import pytensor

    from bayeslmm.bayes.latent import build_pymc_model

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.normal(size=24), "x": rng.normal(2, 1, 24), "g": np.repeat(list("abcd"), 6)})
    model = blm.model(text, frame)
    factor = model.design.factors[0]
    effects = 0.1 + np.arange(4.0 * len(factor.effects)).reshape(4, -1) / 7
    mode = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
    values = []
    for centred in (("g",), tuple(str(term.term) for term in model.design.terms)):
        pm_model = build_pymc_model(model.design, model.family, model.priors, centred=centred)
        point = {name: np.full(np.shape(start), 0.2) for name, start in pm_model.initial_point().items()}
        if centred == ("g",):
            (at,) = pm_model.replace_rvs_by_values([pm_model["beta"]])
            beta = pm_model.compile_fn(at, inputs=pm_model.value_vars, mode=mode, on_unused_input="ignore")(point)
            named = dict(zip(model.design.coef_names, beta, strict=True))
            point["level_g"] = effects + [named.get(effect, 0.0) for effect in factor.effects]
        else:
            names = [name for name in point if name.startswith("b_g")]
            point |= dict(zip(names, np.split(effects, len(names), axis=1), strict=True))
        values.append(float(pm_model.compile_logp(mode=mode)(point)))
    assert values[0] == pytest.approx(values[1], rel=1e-12)
