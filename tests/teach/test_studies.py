import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError
from bayeslmm.frequentist.simulation import Power


def simulated(estimates):
    return Power("x", 0.05, np.array([0.01, 0.2, 0.03, np.nan]), np.array(estimates), 2.0, {"failed": 1}, 0, 60)


def test_bars_count_the_studies_that_gave_a_result():
    ax = blm.teach.studies(simulated([3.0, 1.0, 2.5, np.nan]), bins=5)
    assert sum(bar.get_height() for bar in ax.patches) == 3
    assert ax.get_legend().get_texts()[0].get_text() == "p < 0.05: 67%"


def test_a_test_of_several_coefficients_has_no_such_picture():
    with pytest.raises(ComparisonError, match="no single estimate"):
        blm.teach.studies(simulated([np.nan] * 4))
