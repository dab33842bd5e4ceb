"""Tables of several results: rows merged, brackets, statistics, every output format."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError


@pytest.fixture(scope="module")
def fits():
    sleep = blm.datasets.load("sleepstudy")
    return (
        blm.lmer("Reaction ~ 1 + (1 | Subject)", sleep),
        blm.lmer("Reaction ~ Days + (1 | Subject)", sleep),
        blm.lmer("Reaction ~ Days + I(Days**2) + (Days | Subject)", sleep, reml=False),
    )


def test_rows_are_merged_in_the_order_of_the_models(fits):
    names = blm.table(*fits).estimates.index.get_level_values("name").tolist()
    assert names == [
        "Intercept", "Days", "I(Days**2)", "sd_Subject[Intercept]", "sd_Subject[Days]",
        "corr_Subject[Intercept,Days]", "sigma",
    ]  # fmt: skip


def test_numbers_are_those_of_the_fits(fits):
    frame = blm.table(*fits, names=["a", "b", "c"]).to_pandas()
    for name, fit in zip("abc", fits, strict=True):
        expected = fit.parameter_frame()
        found = frame[name].droplevel("kind").loc[expected.index]
        pd.testing.assert_frame_equal(found, expected[["estimate", "se", "lower", "upper"]], check_names=False)
    assert frame["a"].droplevel("kind").loc["Days"].isna().all()


def test_statistics_stand_below(fits):
    table = blm.table(*fits, names=["a", "b", "c"], statistics={"R2": lambda fit: fit.r2().marginal})
    assert table.statistics.loc["Observations"].tolist() == [180, 180, 180]
    assert table.statistics.loc["AIC", "b"] == pytest.approx(fits[1].aic)
    assert np.isnan(table.statistics.loc["REML criterion", "c"])
    assert table.statistics.loc["Deviance", "c"] == pytest.approx(fits[2].criterion)
    assert list(table.statistics.index)[-1] == "R2"


def test_brackets(fits):
    se = str(blm.table(fits[1]))
    assert "10.467 (0.804)" in se
    assert "standard errors" in se
    interval = str(blm.table(fits[1], show="interval", level=0.9))
    assert "10.5 [9.1, 11.8]" in interval
    assert "90 % intervals" in interval
    assert "(" not in str(blm.table(fits[1], show="none")).replace("(1)", "").split("Fit")[0]


def test_every_format(fits):
    table = blm.table(*fits[:2], names=["null", "days & <1>"])
    assert r"days \& \textless{}1\textgreater{}" in table.to_latex("Sleep", "tab:sleep")
    assert r"\label{tab:sleep}" in table.to_latex("Sleep", "tab:sleep")
    assert "days &amp; &lt;1&gt;" in table.to_html()
    assert table._repr_html_() == table.to_html()
    assert "**Fixed effects**" in table.to_markdown()


def test_names_are_engines_where_they_differ(fits):
    assert blm.table(fits[1], fits[2]).names == ("REML", "ML")
    assert blm.table(fits[0], fits[1]).names == ("(1)", "(2)")


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_estimates_on_the_boundary_have_no_standard_error():
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
    assert "(–)" in str(blm.table(fit))
    assert "nan" not in str(blm.table(fit)).lower()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"names": ["a"]}, "2 results need 2"), ({"names": ["a", "a"]}, "different names"), ({"show": "stars"}, "stars")],
)
def test_bad_requests_are_refused(fits, options, message):
    with pytest.raises(ComparisonError, match=message):
        blm.table(*fits[:2], **options)


def test_an_empty_table_is_refused():
    with pytest.raises(ComparisonError, match="nothing to put"):
        blm.table()


@pytest.mark.slow
def test_a_posterior_stands_beside_a_fit():
    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    post = model.sample(draws=200, seed=1, progress=False)
    table = blm.table(model.fit(), post)
    assert table.names[0] == "REML"
    assert table.estimates.notna().all().all()
    assert "posterior standard deviations" in str(table)
