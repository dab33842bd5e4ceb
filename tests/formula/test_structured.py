"""Random walks over categories and smoothing over areas: what each level loads on, and what cannot be read."""

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError, DataWarning, FormulaError
from bayeslmm.formula.design import build_design
from bayeslmm.formula.structured import areas, laplacian, random_walk, read_adjacency, scaled_root

RING = {"A": ["B"], "B": ["C"], "C": ["D"], "D": ["A"]}


def ordered(values, categories):
    return pd.Series(pd.Categorical(values, categories=categories, ordered=True))


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    n = 60
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "age": pd.Categorical(rng.choice(["18", "30", "45"], n), categories=["18", "30", "45", "65"], ordered=True),
            "area": rng.choice(list("ABC"), n),
            "two": rng.choice(["f", "m"], n),
        }
    )


def test_steps_of_a_random_walk_are_independent_and_of_one_variance():
    walk = random_walk(ordered(["a", "e"], list("abcde")), "age")
    assert walk.levels == tuple("abcde")
    steps = np.diff(walk.matrix, axis=0)
    covariance = steps @ steps.T
    np.testing.assert_allclose(covariance, covariance[0, 0] * np.eye(4), atol=1e-12)
    np.testing.assert_allclose(walk.matrix.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.log(np.square(walk.matrix).sum(axis=1)).mean(), 0, atol=1e-12)


def test_smoothing_is_the_generalised_inverse_of_the_neighbours_matrix():
    levels, pairs = read_adjacency(RING | {"E": ["A", "C"]})
    Q = laplacian(levels, pairs)
    K = scaled_root(Q)
    scale = np.exp(np.log(np.diag(np.linalg.pinv(Q))).mean())
    np.testing.assert_allclose(K @ K.T, np.linalg.pinv(Q) / scale, atol=1e-12)


def test_pieces_of_a_map_are_scaled_each_and_islands_are_independent():
    loading = areas({"A": ["B"], "B": ["C"], "X": ["Y"], "HI": []})
    covariance = loading.matrix @ loading.matrix.T
    place = {name: position for position, name in enumerate(loading.levels)}
    assert covariance[place["HI"], place["HI"]] == pytest.approx(1)
    assert np.count_nonzero(np.abs(covariance[place["HI"]]) > 1e-12) == 1
    np.testing.assert_allclose(
        covariance[np.ix_([place["X"], place["Y"]], [place["X"], place["Y"]])], [[1, -1], [-1, 1]]
    )
    first = [place[name] for name in "ABC"]
    np.testing.assert_allclose(np.log(np.diag(covariance)[first]).mean(), 0, atol=1e-12)
    np.testing.assert_allclose(covariance[np.ix_(first, first)].sum(axis=0), 0, atol=1e-12)


def test_every_way_to_say_who_is_next_to_whom_is_the_same():
    names = list("ABCD")
    table = pd.DataFrame(0, names, names)
    for a, b in ("AB", "BC", "CD", "DA"):
        table.loc[a, b] = table.loc[b, a] = 1
    pairs = [("A", "B"), ("C", "B"), ("D", "C"), ("D", "A")]
    both = {a: [b for b in names if table.loc[a, b]] for a in names}
    expected = areas(RING)
    for given in (table, pairs, both):
        found = areas(given)
        order = [found.levels.index(name) for name in expected.levels]
        np.testing.assert_allclose(
            (found.matrix @ found.matrix.T)[np.ix_(order, order)], expected.matrix @ expected.matrix.T
        )


def test_polygons_that_touch_are_neighbours():
    geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed")
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    squares = [shapely.box(i, 0, i + 1, 1) for i in range(3)]
    frame = geopandas.GeoDataFrame({"area": list("ABC")}, geometry=squares).set_index("area")
    assert read_adjacency(frame) == (("A", "B", "C"), (("A", "B"), ("B", "C")))
    with pytest.raises(DataError, match="indexed by area"):
        read_adjacency(frame.reset_index())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"A": "B"}, "not a list of neighbours"),
        ({"A": ["A"]}, "its own neighbour"),
        ({"A": []}, "no pair of neighbours"),
        ([("A", "B", "C")], "not a pair"),
        ("AB", "cannot be read from str"),
        (pd.DataFrame([[0, 1], [0, 0]], ["A", "B"], ["A", "B"]), "not symmetric"),
        (pd.DataFrame([[0, 2], [2, 0]], ["A", "B"], ["A", "B"]), "0 and 1"),
        (pd.DataFrame([[0, 1], [1, 0]], ["A", "B"], ["A", "C"]), "as its index and as its columns"),
    ],
)
def test_an_adjacency_that_cannot_be_right_is_refused(given, message):
    with pytest.raises(DataError, match=message):
        read_adjacency(given)


def test_a_term_stands_for_all_its_levels_also_those_without_rows(data):
    design = build_design("y ~ x + rw(1 | age) + bym2(1 | area)", data, adjacency=RING)
    assert [factor.name for factor in design.factors] == ["rw(age)", "icar(area)", "area"]
    walk, smooth, plain = design.factors
    assert walk.members == ("18", "30", "45", "65")
    assert walk.shown_effects == ("Intercept",)
    assert smooth.members == ("A", "B", "C", "D")
    assert plain.members == plain.levels == ("A", "B", "C")
    assert design.sizes("rw(age)").tolist() == [*data["age"].value_counts(sort=False)[:3], 0]
    assert "rw(age) 4" in repr(design)
    new = design.at(pd.DataFrame({"x": [0.0], "age": ["65"], "area": ["A"]}))
    np.testing.assert_array_equal(new.terms[0].Z[0], design.encoder.loadings["rw(age)"].matrix[3])


def test_text_is_walked_through_in_the_order_of_the_alphabet_with_a_warning(data):
    with pytest.warns(DataWarning, match="order of the alphabet"):
        build_design("y ~ rw(1 | area)", data)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ rw(x | age)", "only the intercept can vary"),
        ("y ~ rw(1 | age:area)", "the levels of rw"),
        ("y ~ rw(1 | age, 3)", r"takes one random intercept[^`]*Write rw\(1 \| group\)"),
        ("y ~ rw(age)", r"takes one random intercept[^`]*Write rw\(1 \| group\)"),
        ("y ~ rw()", "takes one random intercept"),
        ("y ~ rw(1 || age)", r"takes one random intercept[^`]*Write rw\(1 \| group\)"),
        ("y ~ x - rw(1 | age)", "cannot be taken away"),
    ],
)
def test_what_a_walk_cannot_be_is_refused_with_a_caret(formula, message, data):
    with pytest.raises(FormulaError, match=message) as error:
        build_design(formula, data)
    assert "^" in str(error.value)


def test_data_that_a_structure_cannot_hold_are_refused(data):
    with pytest.raises(DataError, match="a walk needs three"):
        build_design("y ~ rw(1 | two)", data)
    with pytest.raises(DataError, match="which areas are neighbours"):
        build_design("y ~ icar(1 | area)", data)
    with pytest.raises(DataError, match=r"'C' \(\d+ rows\) has no place in the structure"):
        build_design("y ~ icar(1 | area)", data, adjacency={"A": ["B"]})
    design = build_design("y ~ rw(1 | age)", data)
    with pytest.raises(DataError, match=r"'99' .1 row. has no place"):
        design.at(pd.DataFrame({"age": ["99"]}))
    with pytest.raises(FormulaError, match=r"varies by .rw.age.. in two terms"):
        build_design("y ~ rw(1 | age) + rw(1 | age)", data)


def test_adjacency_without_a_term_that_uses_it_is_refused(data):
    import bayeslmm as blm

    with pytest.raises(DataError, match=r"neither icar\(\) nor bym2\(\)"):
        blm.model("y ~ (1 | area)", data, adjacency=RING)
