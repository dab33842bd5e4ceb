from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bayeslmm import datasets
from bayeslmm.errors import ComparisonError
from bayeslmm.formula.design import build_design
from bayeslmm.report.compare import DrawShape, Row, compare, flags_of, parameter_draws, sampling_notes

NAN = float("nan")

EXPECTED = """\
REML beside NUTS (marginal): Reaction ~ Days + (Days | Subject)

                             ------------ REML ------------ ------ NUTS (marginal) ------
                             Estimate    SE   2.5 %  97.5 %    Mean    SD   2.5 %  97.5 %
Fixed effects
Intercept                     251.41  6.82  238.03  264.78  251.30  7.10  237.38  265.22
Days                           10.47  1.55    7.44   13.50   10.45  1.60    7.31   13.59
Standard deviations of group effects
sd_Subject[Intercept]          24.74  5.80   13.37   36.11   25.50  6.10   13.54   37.46
sd_Subject[Days]                5.92  1.25    3.47    8.37    6.10  1.30    3.55    8.65
Correlations of group effects
corr_Subject[Intercept,Days]    0.066 0.300  -0.522   0.654   0.080 0.290  -0.488   0.648
Residual standard deviation
sigma                          25.59  1.51   22.63   28.55   25.70  1.52   22.72   28.68

No disagreement worth a remark: points and intervals tell the same story."""


def a_row(kind="fixed", estimate=1.0, se=0.1, mean=1.0, sd=0.1, **more) -> Row:
    return Row(
        "x", kind, estimate, se, estimate - 2 * se, estimate + 2 * se, mean, sd, mean - 2 * sd, mean + 2 * sd, **more
    )


def words(row: Row) -> list[str]:
    return [flag.word for flag in flags_of(row, "REML", 0.95)]


def test_text_of_two_results_that_agree(fit, post):
    assert compare(fit, post).to_text() == EXPECTED


def test_decimal_points_of_a_column_stand_below_each_other(fit, post):
    lines = compare(fit, post).to_text().splitlines()
    rows = [line for line in lines if line.startswith(("Intercept", "corr_", "sigma"))]
    assert len({line.index(".") for line in rows}) == 1


def test_frame_holds_both_results_unrounded(fit, post):
    frame = compare(fit, post).to_pandas()
    assert list(frame.columns) == [
        "kind", "estimate", "se", "lower", "upper", "post_mean", "post_sd", "post_lower", "post_upper", "flag",
    ]  # fmt: skip
    assert frame.loc["Days", "estimate"] == 10.4673
    assert frame.loc["Days", "post_upper"] == pytest.approx(10.45 + 1.959964 * 1.6, rel=1e-6)


def test_level_reaches_both_intervals(fit, post):
    both = compare(fit, post, level=0.8)
    assert both.frame.loc["Days", "upper"] == pytest.approx(10.4673 + 1.281552 * 1.5458, rel=1e-6)
    assert both.frame.loc["Days", "post_upper"] == pytest.approx(10.45 + 1.281552 * 1.6, rel=1e-6)
    assert "10 %" in both.to_text()
    assert "90 %" in both.to_text()


def test_boundary_is_flagged_explained_and_has_no_error(fit, post):
    singular = replace(fit, estimates=(251.4, 10.5, 24.7, 0.0, NAN, 25.6), errors=(6.8, 1.5, 5.8, NAN, NAN, 1.5))
    both = compare(singular, post)
    assert both.frame.loc["sd_Subject[Days]", "flag"] == "boundary"
    assert both.frame.loc["corr_Subject[Intercept,Days]", "flag"] == "boundary"
    text = both.to_text()
    assert "REML estimates zero, the edge of what is possible" in text
    assert "REML gives none, as one of its SDs is zero" in text
    line = next(line for line in text.splitlines() if line.startswith("sd_Subject[Days]"))
    assert "nan" not in text.lower().replace("explanation", "")
    assert line.split() == ["sd_Subject[Days]", "0.00", "6.10", "1.30", "3.55", "8.65", "boundary"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (a_row(), []),
        (a_row(mean=1.02), []),
        (a_row(sd=0.13), ["wider"]),
        (a_row(sd=0.08), ["narrower"]),
        (a_row(mean=0.95), ["shifted"]),
        (a_row(mean=0.95, draws=DrawShape(ess=50.0)), []),
        (a_row("sd", mean=1.05, draws=DrawShape(1.03, 0.9, 5000, 1.0)), ["skewed"]),
        (a_row("sd", mean=1.05, draws=DrawShape(1.03, 0.1, 5000, 1.0)), ["shifted"]),
        (a_row("sd", mean=1.05, factor="g", levels=6), ["few groups"]),
        (a_row("sd", mean=1.0, factor="g", levels=6), []),
        (a_row("sd", estimate=0.0, se=NAN, mean=0.3, factor="g", levels=6), ["boundary", "few groups"]),
        (a_row("corr", estimate=0.9, se=0.3, mean=0.4, sd=0.3), ["prior"]),
        (a_row("corr", estimate=-1.0, se=NAN, mean=-0.3, sd=0.4), ["boundary"]),
        (a_row("sigma", sd=0.2), []),
        (replace(a_row("sd"), lower=0.01, upper=100.0), ["weak data"]),
        (replace(a_row("corr", estimate=0.1, mean=0.1), lower=-0.99, upper=0.98), ["weak data"]),
        (a_row("sd", estimate=1e-14, se=1e-16, mean=0.3), ["boundary"]),
    ],
)
def test_flags(row, expected):
    assert words(row) == expected


def test_flags_do_not_depend_on_the_unit(fit, post):
    for scale in (1e-6, 1e6):
        rows = [a_row(estimate=scale, se=0.1 * scale, mean=0.95 * scale, sd=0.13 * scale)]
        rows.append(a_row("sd", estimate=0.0, se=NAN, mean=0.3 * scale, sd=0.1 * scale))
        assert [words(row) for row in rows] == [["shifted", "wider"], ["boundary"]]


def test_every_flag_has_a_sentence():
    row = a_row("sd", estimate=0.0, se=NAN, mean=0.3, sd=0.1, factor="class", levels=6)
    sentences = [flag.sentence for flag in flags_of(row, "REML", 0.95)]
    assert "95 %" in sentences[0]
    assert "6 levels of class" in sentences[1]
    assert all(sentence.endswith(".") for sentence in sentences)


def test_too_few_draws_are_said_so():
    notes = sampling_notes([a_row(draws=DrawShape(1, 0, 120.0, 1.2))])
    assert "R-hat above 1.01" in notes[0]
    assert "Fewer than 400 effective draws of x" in notes[1]
    assert sampling_notes([a_row(draws=DrawShape(1, 0, 900.0, 1.001))]) == ()


def test_draws_are_found_by_name(post):
    draws = parameter_draws(post)
    assert set(draws) == set(post.parameter_frame().index)
    tree = post.to_datatree()["posterior"]
    assert np.array_equal(draws["sd_Subject[Days]"], tree["sd_Subject"].values[:, :, 1])
    assert np.array_equal(draws["corr_Subject[Intercept,Days]"], tree["corr_Subject"].values[:, :, 0, 1])


def test_results_of_different_models_are_refused(fit, post):
    other = build_design("Reaction ~ 1 + (1 | Subject)", datasets.load("sleepstudy"))
    with pytest.raises(ComparisonError, match=r"different models:\n  Reaction ~ Days .*\n  Reaction ~ 1"):
        compare(fit, replace(post, design=other))


def test_results_on_different_rows_are_refused(fit, post):
    fewer = build_design("Reaction ~ Days + (Days | Subject)", datasets.load("sleepstudy").iloc[:100])
    with pytest.raises(ComparisonError, match=r"different rows \(180 and 100\)"):
        compare(fit, replace(post, design=fewer))


def test_a_parameter_of_one_side_only_is_kept(fit, post):
    class Extra(type(post)):
        def parameter_frame(self, level=0.95):
            more = pd.DataFrame({"kind": "aux", "estimate": 4.0, "se": 1.0, "lower": 2.0, "upper": 6.0}, index=["nu"])
            return pd.concat([super().parameter_frame(level), more])

    both = compare(fit, Extra(**vars(post)))
    assert both.frame.loc["nu", "post_mean"] == 4.0
    assert np.isnan(both.frame.loc["nu", "estimate"])
    assert "Other parameters\nnu" in both.to_text()


def test_html_latex_and_markdown(fit, post):
    both = compare(fit, post)
    page = both._repr_html_()
    assert '<th class="over" colspan="4">REML</th>' in page
    assert "No disagreement worth a remark" in page
    assert r"corr\_Subject[Intercept,Days]" in both.to_latex()
    assert both.to_markdown().splitlines()[0].startswith("|  | REML Estimate | REML SE |")


def test_html_escapes_the_formula(fit, post):
    assert "a &lt; b" in replace(compare(fit, post), formula="a < b").to_html()
