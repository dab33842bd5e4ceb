"""Cross-products against dense matrices, and what is refused."""

import numpy as np
import pytest

from bayeslmm.errors import DataError
from bayeslmm.likelihood.crossproducts import cross_products
from tests.likelihood.structures import TABLE, make


@pytest.mark.parametrize("name", TABLE)
def test_every_block_equals_the_dense_product(name):
    case = make(name)
    products = case.kernel.products
    weights = np.ones(len(case.y)) if case.weights is None else case.weights
    Z = case.dense_Z()
    white = np.column_stack([np.linalg.solve(products.R0.T, case.X.T).T, case.response - case.X @ products.beta0])
    np.testing.assert_allclose(products.gram, white.T @ (weights[:, None] * white), atol=1e-11)
    for f, block in enumerate(Z):
        levels, k = products.n_levels[f], products.n_effects[f]
        inner = (block.T @ (weights[:, None] * block)).reshape(levels, k, levels, k)
        np.testing.assert_allclose(products.diagonal[f], inner[np.arange(levels), :, np.arange(levels)], atol=1e-12)
        right = (block.T @ (weights[:, None] * white)).reshape(levels, k, -1)
        np.testing.assert_allclose(products.rhs[f], right, atol=1e-11)
    for pair in products.pairs:
        J, K = products.n_levels[pair.first], products.n_effects[pair.first]
        M, L = products.n_levels[pair.second], products.n_effects[pair.second]
        expected = (Z[pair.first].T @ (weights[:, None] * Z[pair.second])).reshape(J, K, M, L)
        found = np.zeros((J, K, M, L))
        found[pair.rows, :, pair.columns, :] = pair.values
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert len(set(zip(pair.rows.tolist(), pair.columns.tolist(), strict=True))) == len(pair.rows)


def test_pairs_hold_only_what_meets():
    case = make("nested")
    (pair,) = case.kernel.products.pairs
    assert len(pair.rows) == max(case.kernel.products.n_levels)


def test_columns_are_whitened():
    products = make("many fixed effects").kernel.products
    np.testing.assert_allclose(products.gram[:-1, :-1], np.eye(7), atol=1e-12)
    np.testing.assert_allclose(products.gram[:-1, -1], 0.0, atol=1e-11)


def test_badly_conditioned_X_goes_through_qr():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    X = np.column_stack([np.ones(50), x, x + 1e-7 * rng.normal(size=50)])
    products = cross_products(rng.normal(size=50), X)
    np.testing.assert_allclose(products.gram[:3, :3], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(products.R0.T @ products.R0, X.T @ X, rtol=1e-9)


ONES, CODES = np.ones((4, 1)), np.array([0, 0, 1, 1], dtype=np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": np.ones((3, 1))}, "X has shape"),
        ({"X": np.ones((4, 2))}, "linearly dependent"),
        ({"terms": [(np.ones((3, 1)), CODES, 2)]}, r"Z\[0\] has shape"),
        ({"terms": [(ONES, CODES[:3], 2)]}, r"codes\[0\] has shape"),
        ({"terms": [(ONES, CODES - 1, 2)]}, "between 0 and 1"),
        ({"terms": [(ONES, CODES, 1)]}, "between 0 and 0"),
        ({"weights": [1.0, 0.0, 1.0, 1.0]}, "weights must be positive"),
        ({"weights": [1.0, np.nan, 1.0, 1.0]}, "weights must be positive"),
        ({"offset": [1.0]}, "the offset has shape"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        cross_products([1.0, 2.0, 3.0, 5.0], **{"X": ONES, "terms": [(ONES, CODES, 2)], **arguments})


def test_a_new_response_of_the_wrong_length_is_refused():
    with pytest.raises(DataError, match="the new response has shape"):
        make("single").kernel.with_response(np.ones(3))
