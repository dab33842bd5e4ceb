"""The light functions against scipy.stats, far into the tails."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from bayeslmm.frequentist.tails import chi2_above, f_above, normal_quantile, t_quantile, two_sided_t

DF = np.array([0.7, 1.0, 2.5, 17.0, 400.0, 1e6, np.inf])


@pytest.mark.parametrize("t", [0.0, 0.3, -2.0, 12.0, -35.0])
def test_two_sided_t(t: float) -> None:
    assert_allclose(two_sided_t(t, DF), 2 * stats.t.sf(abs(t), DF), rtol=1e-8)


@pytest.mark.parametrize("probability", [0.005, 0.5, 0.975, 0.9999])
def test_quantiles(probability: float) -> None:
    assert_allclose(t_quantile(probability, DF), stats.t.ppf(probability, DF), rtol=1e-8, atol=1e-12)
    assert_allclose(normal_quantile(probability), stats.norm.ppf(probability), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("x", [-1e-12, 0.0, 0.8, 7.0, 90.0])
def test_chi2_and_f(x: float) -> None:
    for numerator in (1, 2, 5):
        assert_allclose(chi2_above(x, numerator), stats.chi2.sf(x, numerator), rtol=1e-10)
        assert_allclose(f_above(x, numerator, 13.4), stats.f.sf(x, numerator, 13.4), rtol=1e-8)
        assert_allclose(f_above(x, numerator, np.inf), stats.chi2.sf(numerator * x, numerator), rtol=1e-10)


def test_missing_stays_missing() -> None:
    assert np.isnan(two_sided_t(np.nan, 5.0))
    assert np.isnan(f_above(np.nan, 2, 5.0))
    assert np.isnan(chi2_above(np.nan, 2))


def test_a_fit_and_its_summary_load_neither_scipy_stats_nor_pymc() -> None:
    program = (
        "import sys, bayeslmm as blm\n"
        "fit = blm.model('Reaction ~ Days + (Days | Subject)', blm.datasets.load('sleepstudy')).fit()\n"
        "str(fit.summary())\n"
        "sys.exit([name for name in ('scipy.stats', 'scipy.optimize', 'pymc') if name in sys.modules] or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
