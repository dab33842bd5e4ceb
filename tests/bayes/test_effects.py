"""Contrasts, comparisons and slopes are arithmetic on draws: done here the long way."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    n = 240
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "k": rng.integers(0, 4, n),
            "c": pd.Categorical(rng.choice(["low", "mid", "high"], n), ["low", "mid", "high"]),
            "g": np.repeat([f"g{i}" for i in range(12)], n // 12),
            "b": rng.random(n) < 0.5,
        }
    )
    eta = 0.8 * frame["x"] - 0.4 * (frame["c"] == "high") + rng.normal(0, 0.5, 12)[np.repeat(np.arange(12), n // 12)]
    return frame.assign(y=(rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int), z=eta + rng.normal(size=n))


@pytest.fixture(scope="module")
def logit(frame):
    return blm.model("y ~ x * c + b + (1 | g)", frame, "bernoulli").sample(150, chains=2, seed=1, progress=False)


@pytest.fixture(scope="module")
def linear(frame):
    model = blm.model("z ~ x + I(x**2) + c + k + (x | g)", frame, offset=np.linspace(0, 1, len(frame)))
    return model.sample(150, chains=2, seed=1, progress=False)


def test_contrasts_of_group_effects(linear):
    b = linear.draws("b_g")[:, :, 0]
    one = linear.contrast("g", "g3 - g0")
    levels = list(linear.design.factors[0].levels)
    np.testing.assert_allclose(one.draws[:, 0], b[:, levels.index("g3")] - b[:, levels.index("g0")])
    assert one.frame.loc[0, "estimate"] == pytest.approx(one.draws.mean())
    assert one.frame.loc[0, "positive"] == (one.draws > 0).mean()
    assert linear.contrast("g").draws.shape == (300, 66)
    weights = linear.contrast("g", {"g1 against the rest": {"g1": 1, "g2": -0.5, "g3": -0.5}}, effect="x")
    b = linear.draws("b_g")[:, :, 1]
    at = [levels.index(name) for name in ("g1", "g2", "g3")]
    np.testing.assert_allclose(weights.draws[:, 0], b[:, at] @ [1, -0.5, -0.5])
    assert "g1 against the rest" in str(weights)
    assert "<table" in weights._repr_html_()
    for bad, words in (("g3", "cannot be read"), ("g3 - gg0", "Did you mean 'g0'"), ({"g1": "x"}, "must be numbers")):
        with pytest.raises(ComparisonError, match=words):
            linear.contrast("g", bad)
    with pytest.raises(ComparisonError, match="no effect"):
        linear.contrast("g", effect="xx")


def test_names_of_levels_may_hold_a_dash():
    frame = blm.datasets.load("Dyestuff").assign(Batch=lambda d: "lot - " + d["Batch"].astype(str))
    post = blm.model("Yield ~ 1 + (1 | Batch)", frame).sample(50, chains=1, seed=1, progress=False)
    b = post.draws("b_Batch")[:, :, 0]
    np.testing.assert_allclose(post.contrast("Batch", "lot - B - lot - A").draws[:, 0], b[:, 1] - b[:, 0])


def test_a_step_of_a_number_the_long_way(logit, frame):
    found = logit.comparisons({"x": 0.5})
    high = logit.epred_draws(frame.assign(x=frame["x"] + 0.5))
    expected = (high - logit.epred_draws()).mean(axis=1)
    np.testing.assert_allclose(found.draws[:, 0], expected, rtol=1e-10)
    by = logit.comparisons({"x": 0.5}, by="c")
    assert list(by.frame["c"]) == ["low", "mid", "high"]
    rows = (frame["c"] == "mid").to_numpy()
    np.testing.assert_allclose(by.draws[:, 1], (high - logit.epred_draws())[:, rows].mean(axis=1), rtol=1e-10)
    link = logit.comparisons({"x": (0, 1)}, scale="link", include=[])
    eta = [logit.linpred_draws(frame.assign(x=float(value)), include=[]).mean(axis=1) for value in (0, 1)]
    np.testing.assert_allclose(link.draws[:, 0], eta[1] - eta[0], rtol=1e-9, atol=1e-12)


def test_changes_of_categories_and_truth_values(logit, frame):
    found = logit.comparisons(["c", "b"])
    assert list(found.frame["contrast"]) == ["mid - low", "high - low", "True - False"]
    expected = logit.epred_draws(frame.assign(c="high")) - logit.epred_draws(frame.assign(c="low"))
    np.testing.assert_allclose(found.draws[:, 1], expected.mean(axis=1), rtol=1e-10)
    assert list(logit.comparisons({"c": "sequential"}).frame["contrast"]) == ["mid - low", "high - mid"]
    assert len(logit.comparisons({"c": "pairwise"}).frame) == 3
    assert list(logit.comparisons().frame["term"].unique()) == ["x", "c", "b"]


def test_slopes_are_derivatives(linear, frame):
    found = linear.slopes("x", include=[])
    beta = linear.draws("beta")
    names = list(linear.design.coef_names)
    square = next(i for i, name in enumerate(names) if "2" in name)
    expected = beta[:, names.index("x")] + 2 * beta[:, square] * frame["x"].mean()
    np.testing.assert_allclose(found.draws[:, 0], expected, rtol=1e-6)
    assert list(linear.slopes().frame["term"]) == ["x", "k"]
    np.testing.assert_allclose(linear.slopes("k").draws[:, 0], beta[:, names.index("k")], rtol=1e-6)
    with pytest.raises(ComparisonError, match="use comparisons"):
        linear.slopes("c")


def test_wide_changes_of_numbers(linear, frame):
    beta = linear.draws("beta")[:, list(linear.design.coef_names).index("k")]
    for how, width in (
        ("sd", frame["k"].std()),
        ("minmax", 3.0),
        ("iqr", np.ptp(np.quantile(frame["k"], [0.25, 0.75]))),
    ):
        np.testing.assert_allclose(linear.comparisons({"k": how}).draws[:, 0], beta * width, rtol=1e-9)


def test_refusals(linear, logit):
    for call, words in (
        (lambda: linear.comparisons("xx"), "Did you mean"),
        (lambda: linear.comparisons({"k": "wide"}), "cannot be read"),
        (lambda: logit.comparisons({"c": ("low", "hi")}), "Did you mean 'high'"),
        (lambda: logit.comparisons({"c": "all"}), "cannot be read"),
        (lambda: logit.comparisons("x", by="cc"), "no column"),
        (lambda: logit.comparisons("x", scale="odds"), "is not one of"),
        (lambda: linear.comparisons("k", new_data=linear.design.data.head(3)), "offset"),
    ):
        with pytest.raises(Exception, match=words):
            call()
