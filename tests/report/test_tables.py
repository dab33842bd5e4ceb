from dataclasses import replace

import numpy as np
import pandas as pd

from bayeslmm.report.tables import Table, abbreviate

SLEEPSTUDY = """\
Linear mixed model fit by REML
Formula: Reaction ~ Days + (Days | Subject)

REML criterion at convergence: 1743.63

Scaled residuals:
    Min      1Q Median     3Q    Max
-3.9536 -0.4634 0.0231 0.4634 5.1793

Random effects:
 Groups   Name      Variance Std.Dev. Corr
 Subject  Intercept   612.10   24.741
          Days         35.07    5.922 0.07
 Residual             654.94   25.592
Number of obs: 180, groups: Subject, 18
Group sizes (min, mean, max): Subject 10, 10.0, 10

Fixed effects:
          Estimate Std. Error t value
Intercept  251.405      6.825  36.838
Days        10.467      1.546   6.771

Correlation of Fixed Effects:
     Intrcp
Days -0.138"""


def test_summary_has_lme4s_layout(fit):
    assert str(fit.summary()) == SLEEPSTUDY


def test_summary_of_a_glmm_prints_family_information_and_p_values(fit):
    coefficients = pd.DataFrame(
        {
            "Estimate": [-1.3983, -0.9919],
            "Std. Error": [0.2312, 0.3032],
            "z value": [-6.048, -3.272],
            "Pr(>|z|)": [1.47e-09, 0.001068],
        },
        index=["Intercept", "period[T.2]"],
    )
    summary = replace(
        fit.summary(),
        title="Generalized linear mixed model fit by maximum likelihood (Laplace)",
        family="binomial (logit)",
        criterion=None,
        information={"AIC": 194.05, "BIC": 204.18, "logLik": -92.03, "deviance": 184.05, "df.resid": 51},
        coefficients=coefficients,
        coef_corr=None,
        notes=("2 of 58 rows left out for missing values (period: 2)",),
    )
    text = str(summary)
    assert "Family: binomial (logit)\nFormula: Reaction" in text
    assert "  AIC   BIC logLik deviance df.resid\n194.1 204.2  -92.0    184.1       51\n" in text
    assert "REML criterion" not in text
    assert "Correlation of Fixed Effects" not in text
    assert text.endswith("\n\n2 of 58 rows left out for missing values (period: 2)")
    assert "Intercept    -1.3983     0.2312  -6.048 1.47e-09" in text
    assert "period[T.2]  -0.9919     0.3032  -3.272   0.0011" in text


def test_summary_html_has_every_part_and_escapes(fit):
    page = replace(fit.summary(), formula="y ~ x + (1 | g<h>)", notes=("a < b",)).to_html()
    for part in (
        "Scaled residuals",
        "Random effects",
        "Fixed effects",
        "Correlation of fixed effects",
        "groups: Subject",
    ):
        assert part in page
    assert "(1 | g&lt;h&gt;)" in page
    assert "<p>a &lt; b</p>" in page


def test_summary_in_latex_and_markdown_has_both_tables(fit):
    assert fit.summary().to_latex("tab:fit").count(r"\begin{tabular}") == 2
    assert r"\label{tab:fit}" in fit.summary().to_latex("tab:fit")
    assert "| Days | 10.467 | 1.546 | 6.771 |" in fit.summary().to_markdown()
    assert "|  | Days | 35.07 | 5.922 | 0.07 |" in fit.summary().to_markdown()


def test_summary_gives_its_numbers_unrounded(fit):
    assert fit.summary().to_pandas().loc["Days", "Estimate"] == 10.4673


def test_wide_correlations_are_not_printed(fit):
    names = [f"x{i}" for i in range(21)]
    summary = replace(fit.summary(), coef_corr=pd.DataFrame(np.eye(21), index=names, columns=names))
    assert "Correlation" not in str(summary)


def test_columns_are_written_by_what_they_hold():
    frame = pd.DataFrame(
        {"n": [1000, 20], "share": [0.5, 0.25], "p": [0.04, 1e-9], "name": ["a", None], "ok": [True, False]},
        index=pd.MultiIndex.from_tuples([("s", "x"), ("t", "y")], names=["site", None]),
    )
    assert Table(frame, title="Counts", notes=("note",)).to_text().splitlines() == [
        "Counts",
        "site       n share        p name ok",
        "s    x 1,000  0.50   0.0400 a    True",
        "t    y    20  0.25 1.00e-09      False",
        "note",
    ]


def test_table_in_other_formats_is_escaped():
    table = Table(pd.DataFrame({"a_b": [1.5]}, index=["<x>"]), title="T")
    assert "&lt;x&gt;" in table.to_html()
    assert table.to_html() == table._repr_html_()
    assert r"a\_b" in table.to_latex()
    assert table.to_markdown().splitlines()[-1] == "| &lt;x> | 1.5 |"


def test_to_pandas_is_a_copy():
    table = Table(pd.DataFrame({"x": [1.0]}))
    copy = table.to_pandas()
    copy.loc[0, "x"] = 2.0
    assert table.frame.iloc[0, 0] == 1.0


def test_abbreviations_drop_vowels_and_stay_distinct():
    assert abbreviate(["Intercept", "IQ"]) == ("Intrcp", "IQ")
    assert abbreviate(["period2", "period3"]) == ("perid2", "perid3")
    assert len(set(abbreviate(["treatment[T.yes]", "treatment[T.no]", "treatment[T.so]"]))) == 3
