import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import FormulaError
from bayeslmm.teach.group_sd import deviance


@pytest.mark.parametrize("reml", [True, False])
def test_the_deviance_at_the_estimate_is_the_criterion(reml):
    fit = blm.lmer("diameter ~ 1 + (1 | sample)", blm.datasets.load("Penicillin"), reml=reml)
    np.testing.assert_allclose(
        deviance(fit.kernel, fit.theta[0] * fit.sigma, fit.sigma, reml), fit.criterion, rtol=1e-12
    )


def test_the_deviance_counts_weights():
    data = blm.datasets.load("Dyestuff").assign(w=np.linspace(0.5, 2.0, 30))
    fit = blm.lmer("Yield ~ 1 + (1 | Batch)", data, weights="w")
    np.testing.assert_allclose(
        deviance(fit.kernel, fit.theta[0] * fit.sigma, fit.sigma, True), fit.criterion, rtol=1e-12
    )


def test_the_curves_have_their_minima_at_the_estimates():
    seen = blm.teach.sd_likelihood(blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")), points=120)
    assert (seen.frame >= -1e-7).all().all()
    assert abs(seen.frame["ML"].idxmin() - seen.ml) < 3.0
    assert abs(seen.frame["REML"].idxmin() - seen.reml) < 3.0


def test_at_zero_the_curve_is_the_likelihood_ratio_against_ordinary_regression():
    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    seen = blm.teach.sd_likelihood(model, points=5)
    assert seen.frame["ML"].iloc[0] == pytest.approx(model.fit(reml=False).lr_test().statistic, abs=1e-6)


def test_the_plot_names_both():
    ax = blm.teach.sd_likelihood(blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")), points=9).plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ML: 37.26", "REML: 42"]


def test_only_gaussian_models():
    data = blm.datasets.load("cbpp")
    with pytest.raises(FormulaError, match="Gaussian"):
        blm.teach.sd_likelihood(blm.model("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", data, "binomial"))
