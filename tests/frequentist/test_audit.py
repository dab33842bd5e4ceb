"""Every check of the audit: data made to trip it, and data that must not."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.frequentist import audit as module
from bayeslmm.frequentist.audit import CHECKS, SEVERITIES, Audit, Finding

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLmmWarning")


def plain(groups=25, rows=8, seed=1):
    """Return clean data: a slope of one within and between groups, normal everything."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x = rng.standard_normal(len(g))
    return pd.DataFrame(
        {"g": g, "x": x, "y": 3 + x + rng.standard_normal(groups)[g] + rng.standard_normal(len(g)), "rng": 0}
    ).drop(columns="rng")


def few_groups(groups):
    return lambda: blm.lmer("y ~ x + (1 | g)", plain(groups, 30))


def singletons():
    data = plain(60, 6)
    return blm.lmer(
        "y ~ x + (1 | g)", data.groupby("g").head(6).loc[lambda d: (d["g"] % 2 == 0) | ~d["g"].duplicated()]
    )


def constant_slope():
    data = plain().assign(z=lambda d: np.sin(d["g"].astype(float)))
    return blm.lmer("y ~ x + z + (z || g)", data)


def slope_without_fixed_effect():
    return blm.lmer("y ~ 1 + (x || g)", plain())


def within_between():
    data = plain()
    mean = np.random.default_rng(3).standard_normal(25)[data["g"]]
    return blm.lmer("y ~ x + (1 | g)", data.assign(x=data["x"] + mean, y=data["y"] - 2 * mean))


def wide_scales():
    data = plain().assign(income=lambda d: 1e5 * np.cos(np.arange(len(d))))
    return blm.lmer("y ~ x + income + (1 | g)", data)


def far_from_zero():
    data = plain().assign(year=lambda d: 2000.0 + np.arange(len(d)) % 8)
    return blm.lmer("y ~ year + (1 | g)", data)


def collinear():
    rng = np.random.default_rng(2)
    return blm.lmer("y ~ x + twin + (1 | g)", plain().assign(twin=lambda d: d["x"] + 0.1 * rng.standard_normal(len(d))))


def uncentred_square():
    data = plain().assign(age=lambda d: 40 + 5 * d["x"])
    return blm.lmer("y ~ age + I(age**2) + (1 | g)", data)


def dependent():
    return blm.lmer("y ~ x + double + (1 | g)", plain().assign(double=lambda d: 2 * d["x"]))


def outlier():
    data = plain()
    data.loc[17, "y"] += 12
    return blm.lmer("y ~ x + (1 | g)", data)


def skewed():
    data = plain()
    noise = np.random.default_rng(4).exponential(1, len(data)) ** 1.5
    return blm.lmer("y ~ x + (1 | g)", data.assign(y=10 + data["x"] + noise))


def heavy():
    data = plain()
    return blm.lmer("y ~ x + (1 | g)", data.assign(y=data["x"] + np.random.default_rng(5).standard_t(2, len(data))))


def growing():
    data = plain(25, 12)
    noise = np.random.default_rng(6).standard_normal(len(data))
    return blm.lmer("y ~ x + (1 | g)", data.assign(y=5 * data["x"] + np.exp(0.6 * data["x"]) * noise))


def unequal_groups():
    data = plain(20, 12)
    spread = np.where(data["g"] % 2 == 0, 0.3, 3.0)
    noise = np.random.default_rng(7).standard_normal(len(data))
    return blm.lmer("y ~ x + (1 | g)", data.assign(y=data["x"] + spread * noise))


def strange_group():
    data = plain(40)
    data.loc[data["g"] == 7, "y"] += 15
    return blm.lmer("y ~ x + (1 | g)", data)


def influential():
    data = plain(12, 5).assign(z=lambda d: (d["g"] == 3) * 10.0 + 0.01 * d["g"])
    data.loc[data["g"] == 3, "y"] += 8
    return blm.lmer("y ~ x + z + (1 | g)", data)


def missing():
    data = plain()
    data.loc[data.index % 5 == 0, "x"] = np.nan
    return blm.lmer("y ~ x + (1 | g)", data)


def few_values():
    return blm.lmer("y ~ x + (1 | g)", plain().assign(y=lambda d: d["y"].round().clip(1, 5)))


def ceiling():
    return blm.lmer("y ~ x + (1 | g)", plain().assign(y=lambda d: d["y"].clip(upper=4.0)))


def lopsided_weights():
    data = plain().assign(w=lambda d: np.where(d.index < 10, 1000.0, 1.0))
    return blm.lmer("y ~ x + (1 | g)", data, weights="w")


TRIPS = [
    (few_groups(4), "few groups", "serious", "'g' has 4 levels"),
    (few_groups(8), "few groups", "caution", "'g' has 8 levels"),
    (lambda: blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2")), "singular fit", "serious", "Batch"),
    (
        lambda: blm.lmer("lang ~ IQ + SES + GS + COMB + (IQ | class)", blm.datasets.load("nlschools")),
        "singular fit",
        "caution",
        "correlated by -0.95",
    ),
    (singletons, "unbalanced groups", "caution", "30 of 60 levels of 'g' have a single row"),
    (constant_slope, "group-constant slope", "serious", "'z' does not vary within any level of 'g'"),
    (slope_without_fixed_effect, "slope without fixed effect", "caution", "has no fixed effect 'x'"),
    (within_between, "within and between", "caution", "slope of 'x' between levels of 'g'"),
    (wide_scales, "scaling", "note", "SD of 'income'"),
    (far_from_zero, "scaling", "note", "from the mean of 'year'"),
    (collinear, "collinearity", "serious", "variance of 'x' is inflated"),
    (uncentred_square, "collinearity", "note", "same variables"),
    (dependent, "collinearity", "note", "double"),
    (outlier, "outliers", "caution", "row 17 (+"),
    (skewed, "residual distribution", "caution", "skewed (skewness +"),
    (heavy, "residual distribution", "caution", "heavy tails"),
    (growing, "unequal spread", "caution", "grows with the fitted values"),
    (unequal_groups, "unequal spread", "caution", "differs between levels of 'g'"),
    (strange_group, "group effects", "caution", "'7'"),
    (influential, "influence", "caution", "without g '3'"),
    (missing, "missing values", "caution", "40 of 200 rows"),
    (few_values, "response", "caution", "5 distinct values"),
    (ceiling, "response", "caution", "at its largest value, 4"),
    (lopsided_weights, "weights", "caution", "of 200 rows"),
]


@pytest.mark.parametrize(("make", "topic", "severity", "words"), TRIPS, ids=[f"{row[1]}: {row[3]}" for row in TRIPS])
def test_each_fault_is_found(make, topic, severity, words):
    found = make().audit().findings
    assert any(
        entry.topic == topic and entry.severity == severity and words in entry.message and entry.remedy
        for entry in found
    ), "\n".join(map(str, found))


def test_every_check_can_be_tripped():
    """A check without a row in TRIPS could never have worked; convergence needs a failing optimiser."""
    topics = {"group-constant slope": "random slopes", "slope without fixed effect": "random slopes"}
    assert {topics.get(topic, topic) for _, topic, _, _ in TRIPS} | {"convergence"} == set(CHECKS)


def test_a_search_cut_short_is_serious():
    model = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    fit = model.fit(control=blm.Control(max_evaluations=2))
    assert [entry.severity for entry in fit.audit().findings if entry.topic == "convergence"] == ["serious"]


@pytest.mark.parametrize("seed", range(4))
def test_clean_data_pass(seed):
    report = blm.lmer(
        "y ~ x + (x | g)", plain(30, 10, seed=seed).assign(y=lambda d: d["y"] + d["x"] * np.sin(d["g"]))
    ).audit()
    assert [entry for entry in report.findings if entry.severity == "serious"] == []
    assert len(report) <= 1
    assert "outliers" in report.passed


def test_findings_do_not_depend_on_the_unit_of_the_response():
    data = blm.datasets.load("sleepstudy")
    one = blm.lmer("Reaction ~ Days + (Days | Subject)", data).audit()
    other = blm.lmer("Reaction ~ Days + (Days | Subject)", data.assign(Reaction=data["Reaction"] * 1e-4)).audit()
    assert [str(entry) for entry in one.findings] == [str(entry) for entry in other.findings]


def test_costly_checks_say_that_they_were_left_out(monkeypatch):
    monkeypatch.setattr(module, "COSTLY", 10)
    report = blm.lmer("y ~ x + (1 | g)", plain()).audit()
    assert "influence" not in report.passed
    assert "Not looked at: influence" in str(report)


def test_the_serious_come_first_and_everything_is_escaped():
    report = singletons().audit()
    order = [SEVERITIES.index(entry.severity) for entry in report.findings]
    assert order == sorted(order)
    page = Audit((Finding("note", "a<b", "x & y", "z"),), ("t",))._repr_html_()
    assert "a&lt;b" in page
    assert "x &amp; y" in page
    assert list(report.to_pandas().columns) == ["severity", "topic", "message", "remedy"]
