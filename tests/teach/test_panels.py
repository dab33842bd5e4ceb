import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError


@pytest.fixture(scope="module")
def sleep():
    return blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))


def lines(figure, panel=0):
    return {line.get_label(): line for line in figure.axes[panel].get_lines()}


def test_the_multilevel_line_is_the_fit(sleep):
    drawn = lines(blm.teach.pooling(sleep, "Days", ["308"]))["partial pooling"]
    effects = sleep.ranef["Subject"].loc["308"]
    intercept, slope = sleep.fixef["Intercept"] + effects["Intercept"], sleep.fixef["Days"] + effects["Days"]
    np.testing.assert_allclose(drawn.get_ydata(), [intercept, intercept + 9 * slope], rtol=1e-10)


def test_the_other_lines_are_ordinary_regressions(sleep):
    data = blm.datasets.load("sleepstudy")
    drawn = lines(blm.teach.pooling(sleep, "Days", ["308"]))
    own = np.polyfit(data.Days[data.Subject == "308"], data.Reaction[data.Subject == "308"], 1)
    np.testing.assert_allclose(drawn["no pooling"].get_ydata(), np.polyval(own, [0, 9]))
    np.testing.assert_allclose(
        drawn["complete pooling"].get_ydata(), np.polyval(np.polyfit(data.Days, data.Reaction, 1), [0, 9])
    )


def test_groups_are_chosen_from_small_to_large():
    fit = blm.lmer("lang ~ IQ + COMB + (1 | class)", blm.datasets.load("nlschools"))
    titles = [ax.get_title(loc="left") for ax in blm.teach.pooling(fit, "IQ", 5).axes[:5]]
    sizes = [int(title.split("(")[1].rstrip(")")) for title in titles]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (4, 33)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("Dayz",), "Did you mean 'Days'"), (("Days", ["999"]), "no group '999'"), (("Subject",), "not numeric")],
)
def test_what_is_not_there_is_named(sleep, arguments, message):
    with pytest.raises(DataError, match=message):
        blm.teach.pooling(sleep, *arguments)


def test_an_unknown_factor_is_named(sleep):
    with pytest.raises(DataError, match="no grouping factor 'Sub'"):
        blm.teach.pooling(sleep, "Days", factor="Sub")
