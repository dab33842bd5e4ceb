import numpy as np
import pytest

from bayeslmm.errors import DataError
from bayeslmm.report.varcorr import VarCorr, VarCorrEntry

DAYS = VarCorrEntry(
    "Subject", ("Intercept", "Days"), np.array([24.74066, 5.92214]), np.array([[1, 0.06555], [0.06555, 1]])
)


def test_layout_of_a_correlated_term():
    assert str(VarCorr((DAYS,), 25.59182)).splitlines() == [
        " Groups   Name      Variance Std.Dev. Corr",
        " Subject  Intercept   612.10   24.741",
        "          Days         35.07    5.922 0.07",
        " Residual             654.94   25.592",
    ]


def test_layout_of_three_effects_beside_one():
    corr = np.array([[1, 0.5, -0.25], [0.5, 1, 0.1], [-0.25, 0.1, 1]])
    entries = (
        VarCorrEntry("g", ("Intercept", "f[T.b]", "f[T.c]"), np.array([1.0, 2.0, 3.0]), corr),
        VarCorrEntry("h", ("Intercept",), np.array([0.5])),
    )
    assert str(VarCorr(entries)).splitlines() == [
        " Groups Name      Variance Std.Dev.  Corr",
        " g      Intercept     1.00      1.0",
        "        f[T.b]        4.00      2.0  0.50",
        "        f[T.c]        9.00      3.0 -0.25 0.10",
        " h      Intercept     0.25      0.5",
    ]


def test_layout_without_correlations_has_no_such_column():
    text = str(VarCorr((VarCorrEntry("Batch", ("Intercept",), np.array([0.0])),), 3.71568))
    assert text.splitlines() == [
        " Groups   Name      Variance Std.Dev.",
        " Batch    Intercept     0.00    0.000",
        " Residual              13.81    3.716",
    ]


def test_data_frame_has_lme4s_columns():
    frame = VarCorr((DAYS,), 25.59182).to_pandas()
    assert list(frame.columns) == ["grp", "var1", "var2", "vcov", "sdcor"]
    assert frame["grp"].tolist() == ["Subject", "Subject", "Subject", "Residual"]
    assert frame["vcov"].to_numpy() == pytest.approx([612.1003, 35.07174, 9.60427, 654.9412], rel=1e-5)
    assert frame["sdcor"].to_numpy() == pytest.approx([24.74066, 5.92214, 0.06555, 25.59182])


def test_covariance_of_a_factor_joins_its_terms():
    varcorr = VarCorr((VarCorrEntry("g", ("Intercept",), np.array([2.0])), VarCorrEntry("g", ("x",), np.array([3.0]))))
    assert varcorr["g"].to_numpy().tolist() == [[4.0, 0.0], [0.0, 9.0]]
    assert list(varcorr["g"].columns) == ["Intercept", "x"]


def test_unknown_factor_is_named_with_a_hint():
    with pytest.raises(DataError, match="Did you mean 'Subject'"):
        VarCorr((DAYS,), 1.0)["Subjct"]


def test_html_escapes_names():
    page = VarCorr((VarCorrEntry("<g>", ("a&b",), np.array([1.0])),))._repr_html_()
    assert "&lt;g&gt;" in page
    assert "a&amp;b" in page
    assert "<g>" not in page
