"""Pictures show the numbers they are given; what cannot be drawn is refused."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError
from bayeslmm.mrp.estimates import Estimates
from bayeslmm.mrp.plots import _spread
from bayeslmm.mrp.tiles import US_TILES

mpl.use("Agg")

STATES = ["CA", "NY", "TX", "WY"]


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture
def states():
    rng = np.random.default_rng(0)
    survey = pd.DataFrame({"n": [200, 120, 150, 0], "raw": [0.7, 0.5, 0.3, np.nan], "raw_se": 0.04})
    draws = np.array([0.6, 0.55, 0.4, 0.45]) + 0.03 * rng.standard_normal((100, 4))
    return Estimates(pd.DataFrame({"state": STATES}), draws, np.ones(4), survey=survey, outcome="yes")


@pytest.fixture
def crossed():
    groups = pd.MultiIndex.from_product([STATES[:3], ["young", "old"]], names=["state", "age"]).to_frame(index=False)
    groups.loc[len(groups)] = ["(all)", "young"]
    return Estimates(groups, np.random.default_rng(1).uniform(size=(50, 7)), np.ones(7))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_dots_stand_at_the_estimates_in_order(states):
    ax = states.plot(truth={"TX": 0.42})
    dots = next(line for line in ax.lines if line.get_label() == "MRP")
    np.testing.assert_allclose(dots.get_xdata(), np.sort(states.estimate))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["TX", "WY", "NY", "CA"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["MRP", "raw survey mean", "known outcome"]
    assert ax.xaxis.get_major_formatter()(0.5).endswith(" %")


def test_bubbles_grow_with_respondents(states):
    ax = states.plot_raw()
    bubbles = ax.collections[0]
    np.testing.assert_allclose(bubbles.get_offsets()[:, 1], states.estimate[:3])
    assert np.argmax(bubbles.get_sizes()) == 0
    assert "120 to 200 respondents" in texts(ax)[-1]


def test_pooling_goes_from_the_mean_over_mrp_to_the_raw_mean(states):
    ax = states.plot_pooling()
    overall = np.average([0.7, 0.5, 0.3], weights=[200, 120, 150])
    ends = {tuple(np.round(line.get_ydata(), 6)) for line in ax.lines}
    assert (round(overall, 6), round(states.estimate[0], 6), 0.7) in ends
    assert len(ax.lines) == 3
    assert "CA (200)" in texts(ax)


def test_panels(crossed):
    figure = crossed.plot_panels("state", columns=2)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == STATES[:3]
    np.testing.assert_allclose(shown[1].lines[1].get_ydata(), crossed.estimate[2:4])
    with pytest.raises(DataError, match="no variable 'county'"):
        crossed.plot_panels("county")


def test_every_state_has_a_tile_of_its_own(states):
    assert len(US_TILES) == 51
    assert len(set(US_TILES.values())) == 51
    ax = states.plot_states()
    assert len(ax.patches) == 51
    assert str(round(100 * states.estimate[0])) in texts(ax)
    with pytest.raises(DataError, match="no column 'nonsense'"):
        states.plot_states(what="nonsense")


def test_shifts_are_drawn_around_zero(states):
    ax = states.plot_states(what="shift")
    assert "\N{MINUS SIGN}10" in texts(ax)
    bar = ax.figure.axes[1]
    assert bar.get_xlim()[0] == pytest.approx(-bar.get_xlim()[1])


SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
HOLE = [[0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.4]]


def geojson(names):
    features = [
        {
            "type": "Feature",
            "properties": {"code": name},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x + 2 * i, y] for x, y in ring] for ring in (SQUARE, HOLE)],
            },
        }
        for i, name in enumerate(names)
    ]
    features[0]["geometry"] = {"type": "MultiPolygon", "coordinates": [[SQUARE], [HOLE]]}
    return {"type": "FeatureCollection", "features": features}


def test_a_map_from_geojson(states, tmp_path):
    shapes = geojson(["CA", "TX", "OH"])
    path = tmp_path / "shapes.json"
    path.write_text(json.dumps(shapes))
    for source in (shapes, path, type("Frame", (), {"__geo_interface__": shapes})()):
        ax = states.plot_map(source, "code")
        assert len(ax.collections[0].get_paths()) == 4
        colours = ax.collections[0].get_facecolor()
        assert tuple(colours[0]) == tuple(colours[1]) != tuple(colours[2])


def test_maps_that_cannot_be_drawn_say_why(states, crossed):
    with pytest.raises(DataError, match="no shape's 'code' is a group"):
        states.plot_map(geojson(["ZZ"]), "code")
    with pytest.raises(DataError, match="no property 'name'"):
        states.plot_map(geojson(["CA"]), "name")
    with pytest.raises(DataError, match="by one variable"):
        crossed.plot_states()
    other = Estimates(pd.DataFrame({"state": ["Bavaria"]}), np.array([[0.5]]), np.ones(1))
    with pytest.raises(DataError, match="postal abbreviation"):
        other.plot_states()


@pytest.mark.parametrize("picture", ["plot_raw", "plot_pooling"])
def test_pictures_of_the_survey_need_one(crossed, picture):
    with pytest.raises(DataError, match="no survey estimates"):
        getattr(crossed, picture)()


def test_labels_are_moved_apart():
    moved = _spread(np.array([0.5, 0.5, 0.51, 0.9]), 0.1)
    assert np.diff(np.sort(moved)).min() >= 0.0999
    assert moved[3] == pytest.approx(0.9)
