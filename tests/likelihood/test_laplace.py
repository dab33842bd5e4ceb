"""The Laplace kernel against a dense witness in value, against central differences in gradient, over structures."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import bayeslmm as blm
from bayeslmm.families import FAMILIES, as_family
from bayeslmm.likelihood.cells import collapse
from bayeslmm.likelihood.covariance import Covariance, Layout
from bayeslmm.likelihood.families_jit import FAMILY_CODES
from bayeslmm.likelihood.glmm_record import CELLS
from bayeslmm.likelihood.laplace import LAPLACE, LaplaceKernel, run
from bayeslmm.likelihood.pirls import JOINT

N = 60


def structure(name, rng, n=N):
    """Return layout and (Z, codes) per factor."""
    g, h = rng.integers(0, 7, n).astype(np.int32), rng.integers(0, 4, n).astype(np.int32)
    g[:7], h[:4] = np.arange(7), np.arange(4)
    one, x = np.ones((n, 1)), rng.normal(size=(n, 1))
    us1, us2, diag2 = Covariance("us", 1), Covariance("us", 2), Covariance("diag", 2)
    return {
        "single": (Layout((us1,), (0,), (7,)), [(one, g)]),
        "slope": (Layout((us2,), (0,), (7,)), [(np.hstack([one, x]), g)]),
        "diagonal": (Layout((diag2,), (0,), (7,)), [(np.hstack([one, x]), g)]),
        "crossed": (Layout((us1, us1), (0, 1), (7, 4)), [(one, g), (one, h)]),
        "crossed slopes": (Layout((us1, us2), (0, 1), (4, 7)), [(one, h), (np.hstack([one, x]), g)]),
        "two terms on one factor": (Layout((us1, us1, us1), (0, 0, 1), (7, 4)), [(np.hstack([one, x]), g), (one, h)]),
        "ar1": (Layout((Covariance("ar1", 3, hom=True),), (0,), (7,)), [(rng.normal(size=(n, 3)), g)]),
    }[name]


STRUCTURES = ["single", "slope", "diagonal", "crossed", "crossed slopes", "two terms on one factor", "ar1"]


def data(family, rng, n=N):
    """Return (X, y, trials, offset) whose means fit every link of the family."""
    X = np.column_stack([np.ones(n), rng.normal(size=n) * 0.1])
    trials = rng.integers(1, 9, n).astype(float) if family.name in ("binomial", "beta_binomial") else None
    if family.name == "cumulative":
        return X[:, 1:], np.arange(n) % 4 * 1.0, None, None
    mu = np.full(n, 0.4)
    y = family.draw(rng, mu, 3.0, 1.0 if trials is None else trials)
    if family.name == "beta":
        y = np.clip(y, 0.01, 0.99)
    return X, y, trials, 0.05 * rng.normal(size=n)


def start(family, kernel):
    """Return (beta, aux) at a point that is no optimum."""
    from bayeslmm.families import LINKS

    if family.name == "cumulative":
        return np.array([0.3]), np.array([-0.8, 0.1, 1.2])
    return np.array([LINKS[family.link].link(0.45), 0.2]), np.full(kernel.n_aux, 0.9)


def make(family, name, seed=3):
    rng = np.random.default_rng(seed)
    layout, terms = structure(name, rng)
    X, y, trials, offset = data(family, rng)
    kernel = LaplaceKernel.from_arrays(family, layout, y, X, terms, trials=trials, offset=offset)
    theta = 0.3 * layout.start() + 0.05 * np.cos(np.arange(layout.n_theta))
    return kernel, theta, (X, y, trials, offset, terms)


def dense_laplace(family, theta, beta, phi, layout, X, y, trials, offset, terms):
    """The obvious Laplace approximation: indicator matrices, a generic optimiser, Hessian by differences."""
    columns = []
    for (Z, codes), template, J in zip(terms, layout.templates(theta), layout.n_levels, strict=True):
        indicators = (codes[:, None] == np.arange(J)).astype(float)
        columns.append((indicators[:, :, None] * (Z @ template)[:, None, :]).reshape(len(y), -1))
    ZL = np.hstack(columns)
    size = 1.0 if trials is None else trials
    fixed = X @ beta + (0.0 if offset is None else offset)

    def terms_of(eta):
        h = 1e-4
        value = [family.loglik(y, family.inverse_link(eta + k * h), phi, size) for k in (-2, -1, 0, 1, 2)]
        slope = (value[0] - 8 * value[1] + 8 * value[3] - value[4]) / (12 * h)
        curve = (-value[0] + 16 * value[1] - 30 * value[2] + 16 * value[3] - value[4]) / (12 * h * h)
        return value[2], slope, curve

    def negative(u):
        value, slope, _ = terms_of(fixed + ZL @ u)
        return 0.5 * u @ u - value.sum(), u - ZL.T @ slope

    found = optimize.minimize(negative, np.zeros(ZL.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    curve = terms_of(fixed + ZL @ found.x)[2]
    A = np.eye(ZL.shape[1]) - (ZL.T * curve) @ ZL
    return -found.fun - 0.5 * np.linalg.slogdet(A)[1]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("family", [as_family("bernoulli"), as_family("poisson")], ids=str)
def test_equals_the_dense_witness_over_structures(family, name):
    kernel, theta, arrays = make(family, name)
    beta, aux = start(family, kernel)
    expected = dense_laplace(family, theta, beta, 1.0, kernel.layout, *arrays)
    assert kernel.loglik(theta, beta, aux) == pytest.approx(expected, abs=2e-6)


PAIRS = [(name, link) for name in FAMILY_CODES for link in FAMILIES[name].links]


@pytest.mark.parametrize(("name", "link"), [pair for pair in PAIRS if pair[0] != "cumulative"])
def test_equals_the_dense_witness_over_families(name, link):
    family = as_family(name, link)
    kernel, theta, arrays = make(family, "slope")
    theta = 0.3 * theta
    beta, aux = start(family, kernel)
    phi = np.exp(aux[0]) if len(aux) else 1.0
    expected = dense_laplace(family, theta, beta, phi, kernel.layout, *arrays)
    assert kernel.loglik(theta, beta, aux) == pytest.approx(expected, abs=1e-5)


def check_gradient(kernel, theta, white, aux, **options):
    step = 1e-5
    here = kernel.evaluate(theta, white, aux, **options)
    point = np.concatenate([theta, [] if white is None else white, aux])
    m, p = len(theta), 0 if white is None else len(white)

    def value(x):
        beta = None if white is None else x[m : m + p]
        return kernel.evaluate(x[:m], beta, x[m + p :], gradient=False, **options).value

    slope = [(value(point + step * e) - value(point - step * e)) / (2 * step) for e in np.eye(len(point))]
    analytic = np.concatenate([here.theta, here.beta[:p], here.aux])
    np.testing.assert_allclose(analytic, slope, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize(
    "family", [as_family("bernoulli"), as_family("negativebinomial"), as_family("cumulative")], ids=str
)
def test_gradient_over_structures(family, name):
    kernel, theta, _ = make(family, name)
    beta, aux = start(family, kernel)
    check_gradient(kernel, theta, kernel.whiten(beta), aux)


@pytest.mark.parametrize(("name", "link"), PAIRS)
def test_gradient_over_families(name, link):
    family = as_family(name, link)
    kernel, theta, _ = make(family, "slope")
    beta, aux = start(family, kernel)
    check_gradient(kernel, 0.3 * theta, kernel.whiten(beta), aux)


@pytest.mark.parametrize("integrate", [False, True])
@pytest.mark.parametrize("name", ["slope", "crossed slopes"])
def test_gradient_with_coefficients_that_move(name, integrate):
    family = as_family("binomial", "probit")
    kernel, theta, _ = make(family, name)
    check_gradient(kernel, theta, None, np.zeros(0), integrate_beta=integrate)


def test_the_value_does_not_depend_on_where_the_search_starts():
    kernel, theta, _ = make(as_family("bernoulli"), "crossed slopes")
    beta = kernel.whiten([0.2, -1.0])
    cold = kernel.evaluate(theta, beta, state=kernel.new_state())
    kernel.evaluate(8 * theta, beta + 1.5)
    warm = kernel.evaluate(theta, beta)
    assert warm.value == pytest.approx(cold.value, abs=1e-10)
    np.testing.assert_allclose(warm.theta, cold.theta, atol=1e-8)


def test_an_sd_that_jumps_by_a_thousand_and_back_is_survived():
    kernel, theta, _ = make(as_family("poisson"), "crossed")
    beta = kernel.whiten([0.5, 0.0])
    first = kernel.evaluate(theta, beta).value
    for scale in (1000.0, 1e-6, 1e5, 0.0):
        assert np.isfinite(kernel.evaluate(scale * theta, beta).value)
    assert kernel.evaluate(theta, beta).value == pytest.approx(first, abs=1e-9)


def test_a_failed_search_leaves_no_trace():
    kernel, theta, _ = make(as_family("gamma", "inverse"), "single")
    good, bad = kernel.whiten([1 / 0.45, 0.2]), kernel.whiten([-1.0, 0.0])
    first = kernel.evaluate(theta, good, [0.9]).value
    assert np.isnan(kernel.evaluate(theta, bad, [0.9]).value)
    assert kernel.evaluate(theta, good, [0.9]).value == pytest.approx(first, abs=1e-10)


@pytest.mark.parametrize("name", list(FAMILY_CODES))
def test_collapsing_rows_changes_nothing(name):
    family = as_family(name)
    rng = np.random.default_rng(1)
    layout, terms = structure("crossed", rng)
    X, y, trials, _ = data(family, rng)
    X = np.round(X[:, -1:] * 5) if name == "cumulative" else np.column_stack([X[:, 0], np.round(X[:, 1] * 5)])
    if name in ("beta", "gamma", "inverse_gaussian", "gaussian"):
        y = np.clip(np.round(y, 1), 0.1, 0.9)
    weights = rng.integers(1, 3, N).astype(float)
    beta, theta = np.full(X.shape[1], 0.1), np.array([0.5, 0.3])
    kernel = LaplaceKernel.from_arrays(family, layout, y, X, terms, trials=trials, weights=weights)
    apart = LaplaceKernel.from_arrays(
        family, layout, y, X, terms, trials=trials, weights=weights, offset=1e-13 * np.arange(N)
    )
    _, aux = start(family, kernel)
    assert len(kernel.cells.y) < N == len(apart.cells.y)
    assert kernel.loglik(theta, beta, aux) == pytest.approx(apart.loglik(theta, beta, aux), abs=1e-8)


def test_cells_are_grouped_by_every_column():
    one, codes = np.ones((4, 1)), np.array([0, 0, 0, 1], dtype=np.int32)
    X = np.array([[1.0], [1.0], [2.0], [1.0]])
    cells = collapse("poisson", np.array([1.0, 3.0, 5.0, 7.0]), X, [(one, codes)])
    assert sorted(zip(cells.y, cells.weight, strict=True)) == [(2.0, 2.0), (5.0, 1.0), (7.0, 1.0)]
    apart = collapse(
        "poisson", np.array([1.0, 3.0, 5.0, 7.0]), X, [(one, codes)], offset=np.array([0.0, 1.0, 0.0, 0.0])
    )
    assert len(apart.y) == 4


def test_a_new_response_in_the_same_cells():
    rng = np.random.default_rng(2)
    layout, terms = structure("single", rng)
    X, y, trials, _ = data(as_family("binomial"), rng)
    fresh = np.round(trials * rng.uniform(size=N)) / trials
    kernel = LaplaceKernel.from_arrays(as_family("binomial"), layout, y, X, terms, trials=trials)
    again = LaplaceKernel.from_arrays(as_family("binomial"), layout, fresh, X, terms, trials=trials)
    point = [0.4], [0.1, -0.2]
    assert kernel.with_response(fresh, trials).loglik(*point) == pytest.approx(again.loglik(*point), abs=1e-10)


def nested(rng, n=N):
    """Two factors coarser than a third, one that crosses them, and columns of X that are constant within groups."""
    a, c, d = (rng.integers(0, J, n).astype(np.int32) for J in (3, 4, 5))
    a[:12], c[:12] = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    d[:5] = np.arange(5)
    one, us = np.ones((n, 1)), Covariance("us", 1)
    layout = Layout((us, us, us, us), (0, 1, 2, 3), (3, 12, 5, 4))
    terms = [(one, a), (one, a * 4 + c), (one, d), (one, c)]
    return layout, terms, np.column_stack([np.ones(n), np.array([0.3, -0.2, 0.4])[a], 0.1 * (a * c), 0.2 * d])


@pytest.mark.parametrize("mode", ["given", "maximised", "integrated"])
@pytest.mark.parametrize("name", ["bernoulli", "poisson", "negativebinomial"])
def test_tables_give_what_rows_give(name, mode):
    family, rng = as_family(name), np.random.default_rng(4)
    layout, terms, X = nested(rng)
    y = family.draw(rng, np.full(N, 0.4), 3.0, 1.0)
    almost = [(Z * (1 + 1e-14 * (np.arange(N) == 0))[:, None], codes) for Z, codes in terms]
    tables = LaplaceKernel.from_arrays(family, layout, y, X, terms)
    rows = LaplaceKernel.from_arrays(family, layout, y, X, almost)
    assert (tables.cells.X.shape[1], len(tables.cells.root_at)) == (0, 2)
    assert (rows.cells.X.shape[1], len(rows.cells.root_at)) == (4, 0)
    aux = np.full(tables.n_aux, 0.9)
    white = tables.whiten([-0.5, 0.1, 0.3, -0.2]) if mode == "given" else None
    theta = np.array([0.4, 0.7, 0.3, 0.0 if mode == "given" else 0.2])
    found, expected = (k.evaluate(theta, white, aux, integrate_beta=mode == "integrated") for k in (tables, rows))
    assert found.value == pytest.approx(expected.value, abs=1e-9)
    for part in ("theta", "beta", "aux"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), atol=1e-8)


def test_coefficients_that_no_group_determines_stay_with_the_rows():
    rng = np.random.default_rng(4)
    layout, terms, X = nested(rng)
    y = rng.integers(0, 2, N).astype(float)
    X[:, 3] = rng.normal(size=N)
    kernel = LaplaceKernel.from_arrays(as_family("bernoulli"), layout, y, X, terms)
    assert (kernel.cells.X.shape[1], len(kernel.cells.root_at)) == (4, 2)
    theta = np.array([0.4, 0.7, 0.3, 0.2])
    check_gradient(kernel, theta, kernel.whiten([-0.5, 0.1, 0.3, -0.2]), np.zeros(0))
    check_gradient(kernel, theta, None, np.zeros(0), integrate_beta=True)


def test_a_search_that_stops_early_gives_the_same_to_second_order():
    rng = np.random.default_rng(4)
    layout, terms, X = nested(rng)
    kernel = LaplaceKernel.from_arrays(as_family("bernoulli"), layout, rng.integers(0, 2, N).astype(float), X, terms)
    theta = np.array([0.9, 0.7, 0.3, 0.8])
    exact = kernel.evaluate(theta, None, integrate_beta=True)
    slope, flat = np.zeros(4), layout.flat_templates(theta)
    state, none = kernel.new_state(), np.zeros(0)
    family, link = kernel.codes
    value = kernel.constant + run(
        state, LAPLACE, family=family, link=link, templates=flat, aux=none, joint=JOINT, mean=none,
        precision=np.zeros((0, 0)), tolerance=1e-3, gradients=True, by_template=slope, by_beta=np.zeros(4), by_aux=none,
    )  # fmt: skip
    assert value == pytest.approx(exact.value, abs=1e-7)
    np.testing.assert_allclose(layout.pull(theta, slope), exact.theta, atol=1e-4)


@pytest.mark.parametrize("text", ["y ~ x", "y ~ 1 + (1 | g)", "y ~ x + (x | g) + (1 | h)"])
def test_nothing_is_compiled_anew_for_another_formula(text):
    rng = np.random.default_rng(0)
    data = {"y": rng.integers(0, 2, 60), "x": rng.normal(size=60), "g": np.arange(60) % 5, "h": np.arange(60) % 7}
    model = blm.model(text, pd.DataFrame(data), "bernoulli")
    kernel = LaplaceKernel.from_design(model.design, model.family)
    words = CELLS.words(kernel.cells)  # refuses arrays of other types than those that were compiled
    assert words.size == CELLS.end - CELLS.first
    with pytest.raises(TypeError, match=r"Cells\.at is a C-ordered array of int32"):
        CELLS.words(kernel.cells._replace(at=kernel.cells.at.astype(np.int64)))
