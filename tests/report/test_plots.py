from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from bayeslmm.errors import DataError
from bayeslmm.report.compare import compare
from bayeslmm.report.plots import BLUE, GREY, ORANGE, caterpillar, forest, traces


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("Agg")
    yield
    plt.close("all")


def test_caterpillar_sorts_and_greys_what_may_be_zero(fit):
    ax = caterpillar(fit.ranef, "Subject", "Intercept")
    clear, unclear = ax.get_lines()[:2]
    assert (clear.get_color(), unclear.get_color()) == (BLUE, GREY)
    assert np.all(np.abs(clear.get_xdata()) > 1.959964 * 9)
    assert np.all(np.abs(unclear.get_xdata()) <= 1.959964 * 9)
    assert len(clear.get_xdata()) + len(unclear.get_xdata()) == 18
    assert ax.get_xlabel() == "Intercept by Subject, with 95 % intervals"


def test_caterpillar_draws_on_given_axes_and_refuses_unknown_effects(fit):
    _, ax = plt.subplots()
    assert caterpillar(fit.ranef, effect="Days", ax=ax) is ax
    with pytest.raises(DataError, match="Did you mean 'Days'"):
        caterpillar(fit.ranef, effect="Dayz")


def test_forest_of_one_result(fit):
    ax = forest(fit.parameter_frame(), parameters=["Days", "sigma"])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["sigma", "Days"]
    with pytest.raises(DataError, match="there is no parameter 'IQ'"):
        forest(fit.parameter_frame(), parameters=["IQ"])


def test_panels_show_both_results_on_their_own_scales(fit, post):
    figure = compare(fit, post).plot_panels(columns=4)
    drawn = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in drawn] == list(fit.parameter_frame().index)
    first, second = drawn[1].get_lines()[:2]
    assert (first.get_xdata()[0], second.get_xdata()[0]) == (10.4673, 10.45)
    assert (first.get_color(), second.get_color()) == (BLUE, ORANGE)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["REML", "NUTS (marginal)"]


def test_panels_leave_out_an_interval_that_does_not_exist(fit, post):
    nan = float("nan")
    singular = replace(fit, estimates=(251.4, 10.5, 24.7, 0.0, nan, 25.6), errors=(6.8, 1.5, 5.8, nan, nan, 1.5))
    figure = compare(singular, post).plot_panels(["sd_Subject[Days]", "Days"])
    assert [len(ax.collections) for ax in figure.axes] == [2, 4]


def test_arviz_forest_shows_the_given_intervals(fit, post):
    both = compare(fit, post)
    plot = both.plot_forest()
    assert plot.coords is None or "column" in plot.viz["plot"].coords
    twig = plot.viz["twig"]["value"]
    assert twig.sizes["model"] == 2
    assert list(twig["parameter"].values) == [name for name in both.frame.index if name != "Intercept"]
    drawn = twig.sel(model="REML", parameter="Days").item()
    assert np.allclose(np.asarray(drawn.get_xdata()), both.frame.loc["Days", ["lower", "upper"]].astype(float))


def test_arviz_forest_of_chosen_parameters(fit, post):
    plot = compare(fit, post).plot_forest(["Days"])
    assert list(plot.viz["twig"]["value"]["parameter"].values) == ["Days"]


def test_traces_give_each_chain_a_colour_of_its_own():
    draws = {"a": np.random.default_rng(0).normal(size=(3, 50)), "b": np.zeros((3, 50))}
    plot = traces(draws)
    lines = plot.viz["trace"]["a"]
    assert lines.sizes == {"chain": 3}
    assert len({line.item().get_color() for line in lines}) == 3
    assert np.allclose(lines.sel(chain=1).item().get_ydata(), draws["a"][1])
