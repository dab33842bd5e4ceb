"""Diagnostic plots: axes come back labelled, what is drawn is the data."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError
from bayeslmm.report import diagnostic_plots
from bayeslmm.report.diagnostic_plots import power_plot, share_bar, smooth, stems

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def sleep():
    return blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


PLOTS = {
    "residuals": (lambda fit: fit.plot_residuals(), "fitted Reaction", "standardised residual"),
    "raw": (lambda fit: fit.plot_residuals("raw"), "fitted Reaction", "residual (units of Reaction)"),
    "marginal": (
        lambda fit: fit.plot_residuals("marginal"),
        "fitted Reaction, without group effects",
        "marginal residual (units of Reaction)",
    ),
    "against": (lambda fit: fit.plot_residuals(against="Days"), "Days", "standardised residual"),
    "scale": (lambda fit: fit.plot_scale_location(), "fitted Reaction", "√|standardised residual|"),
    "leverage": (lambda fit: fit.plot_leverage(), "leverage of the row", "standardised residual"),
    "qq": (lambda fit: fit.plot_qq(n_sim=50), "standard normal quantile", "standardised residual"),
    "effects": (
        lambda fit: fit.plot_ranef_qq(effect="Days", n_sim=50),
        "standard normal quantile",
        "standardised Subject effect: Days",
    ),
    "groups": (
        lambda fit: fit.influence("Subject").plot(),
        "Subject",
        "Cook's distance (one level of Subject left out)",
    ),
    "rows": (
        lambda fit: fit.influence().plot(),
        "row, in the order of the data",
        "Cook's distance (one row left out)",
    ),
    "shares": (lambda fit: fit.variance_partition().plot(), "share of the variance of the response (%)", ""),
    "caterpillar": (lambda fit: fit.plot_caterpillar(effect="Days"), "Days by Subject, with 95 % intervals", ""),
}


@pytest.mark.parametrize("name", PLOTS)
def test_axes_come_back_labelled_and_can_be_drawn(sleep, name):
    draw, x_label, y_label = PLOTS[name]
    ax = draw(sleep)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x_label, y_label)
    ax.figure.canvas.draw()


def test_points_are_the_residuals(sleep):
    ax = sleep.plot_residuals("raw")
    points = max(ax.get_lines(), key=lambda line: len(line.get_xdata()))
    np.testing.assert_allclose(points.get_xdata(), sleep.fitted)
    np.testing.assert_allclose(points.get_ydata(), sleep.residuals())
    assert {text.get_text() for text in ax.texts} == {"56", "59", "7"}


def test_a_given_axes_is_used(sleep):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    assert sleep.plot_leverage(ax=axes[1]) is axes[1]
    assert not axes[0].has_data()
    assert figure is axes[1].figure


def test_the_panel_has_four_axes(sleep):
    axes = sleep.plot_diagnostics()
    assert axes.shape == (2, 2)
    assert all(ax.has_data() for ax in axes.ravel())


def test_points_outside_the_band_are_counted(sleep):
    ax = sleep.plot_qq(n_sim=100)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[0] == "95 % of simulations"
    assert labels[1].startswith("outside (")


def test_a_column_that_is_not_numeric_is_refused(sleep):
    with pytest.raises(DataError, match="Numeric columns: Reaction, Days"):
        sleep.plot_residuals(against="Subject")


def test_shares_fill_the_bar():
    ax = share_bar(pd.Series({"fixed part": 0.2, "g": 0.5, "Residual": 0.3}))
    widths = [patch.get_width() for patch in ax.patches]
    assert widths == pytest.approx([20, 50, 30])
    assert len({patch.get_facecolor() for patch in ax.patches}) == 3


def test_many_groups_are_not_all_named():
    values = pd.Series(np.arange(100.0), index=[f"g{i}" for i in range(100)]).rename_axis("g")
    assert 0 < len(stems(values, label="d").texts) <= 5
    assert len(stems(values.head(10), label="d").get_xticklabels()) == 10


def test_labels_that_would_hide_each_other_are_left_out():
    values = pd.Series(np.r_[np.ones(50), 9.0, 8.99, np.ones(50), 5.0], name="d").rename_axis("g")
    assert {text.get_text() for text in stems(values, label="d", most=3).texts} == {"50", "102"}


def test_power_is_drawn_in_percent():
    frame = pd.DataFrame({"power": [0.2, 0.8], "lower": [0.1, 0.7], "upper": [0.3, 0.9], "effect": "x", "alpha": 0.05})
    ax = power_plot(frame.set_index(pd.Index([10, 40])), "site")
    assert ax.get_xlabel() == "number of levels of site"
    assert ax.get_ylabel() == "power for x at α = 0.05 (%)"


def test_the_smooth_follows_a_curve_and_survives_ties():
    x = np.linspace(0, 1, 400)
    at = np.array([0.2, 0.5, 0.8])
    assert np.abs(smooth(x, x**2, at) - at**2).max() < 0.02
    assert smooth(np.zeros(20), np.arange(20.0), np.array([0.0])) == pytest.approx(9.5)


def test_colours_are_told_apart_by_lightness():
    from matplotlib.colors import to_rgb

    light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in map(to_rgb, diagnostic_plots.SHARES[:3]))
    assert np.diff(light).min() > 0.05
