import math

import numpy as np
import pytest

from bayeslmm.report.numbers import (
    align_decimal_points,
    correlation_texts,
    format_number,
    format_numbers,
    format_p,
    shared_decimals,
)

# What R's format(x, digits = 4) shows for the same columns.
R_COLUMNS = [
    ([612.10024, 35.07171, 654.94001], ["612.10", "35.07", "654.94"]),
    ([24.74066, 5.92214, 25.59182], ["24.741", "5.922", "25.592"]),
    ([251.4051, 6.8246, 10.4673, 1.5458], ["251.405", "6.825", "10.467", "1.546"]),
    ([10.63524, 1.5009, 2.24696, 0.07141, -0.01562], ["10.63524", "1.50090", "2.24696", "0.07141", "-0.01562"]),
    ([0.0, 13.80642], ["0.00", "13.81"]),
    ([8.43369, 1.65733, 0.67800], ["8.434", "1.657", "0.678"]),
    ([17.0, 17.0], ["17", "17"]),
]


@pytest.mark.parametrize(("values", "expected"), R_COLUMNS)
def test_columns_have_the_decimals_of_r(values, expected):
    assert format_numbers(values) == expected


def test_numbers_too_far_apart_are_written_one_by_one():
    assert shared_decimals([1e-11, 5.0]) is None
    assert format_numbers([1e-11, 5.0, 0.5]) == ["1e-11", "5", "0.5"]


def test_rounding_error_is_written_as_zero():
    assert format_numbers([2.3e-15, 3.65299]) == ["0.000", "3.653"]


def test_missing_infinite_and_negative_zero():
    assert format_numbers([math.nan, math.inf, -math.inf, -0.00001, 1.5]) == ["", "Inf", "-Inf", "-0.00001", "1.50000"]
    assert format_number(-1e-9, 2) == "0.00"
    assert format_numbers([math.nan]) == [""]


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.5, "0.5000"), (0.0001, "0.0001"), (0.000099, "9.90e-05"), (1e-17, "<2e-16"), (0.0, "<2e-16"), (math.nan, "")],
)
def test_p_values(p, text):
    assert format_p(p) == text


def test_decimal_points_stand_below_each_other():
    texts = align_decimal_points(["251.4", "-0.066", "7", ""])
    points = {text.index(".") - len(text) for text in texts if "." in text}
    assert points == {-4}
    assert texts == ["251.4  ", "-0.066", "7    ", "    "]


def test_correlations_show_the_lower_triangle():
    corr = np.array([[1, 0.5, -0.25], [0.5, 1, 0.125], [-0.25, 0.125, 1]])
    assert correlation_texts(corr, 2) == [["", ""], ["0.50", ""], ["-0.25", "0.12"]]
