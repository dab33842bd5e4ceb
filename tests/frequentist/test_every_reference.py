"""Every reference file with degrees of freedom, Kenward-Roger errors, Wald intervals or type I-III tables, counted."""

import json

import numpy as np
import pytest

from tests.frequentist.test_anova import check_table
from tests.frequentist.test_lmm_fit import fit_reference

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning"),
]


def entries(shared, key):
    for path in sorted((shared / "reference" / "fits").glob("*ml.json")):
        entry = json.loads(path.read_text())
        if key in entry and "offset" in entry:  # those of glmmTMB are the same models once more
            yield path.stem, entry, fit_reference(shared, entry).fit(reml=entry["method"] == "REML")


def test_satterthwaite(shared):
    checked = 0
    for name, entry, fit in entries(shared, "satterthwaite"):
        expected = np.array(entry["satterthwaite"]["values"], dtype=float)
        found = fit.summary().coefficients
        np.testing.assert_allclose(found["df"], expected[:, 2], rtol=1e-3, err_msg=name)
        np.testing.assert_allclose(found["Std. Error"], expected[:, 1], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(found["t value"], expected[:, 3], rtol=1e-5, atol=1e-6, err_msg=name)
        checked += 1
    assert checked == 54


def test_kenward_roger(shared):
    checked = 0
    for name, entry, fit in entries(shared, "kenward_roger"):
        found = fit.summary(ddf="kr").coefficients
        np.testing.assert_allclose(found["Std. Error"], entry["kenward_roger"]["se"], rtol=1e-5, err_msg=name)
        checked += 1
    assert checked == 18


def test_wald_intervals(shared):
    checked = 0
    for name, entry, fit in entries(shared, "confint_wald"):
        lower, upper = (np.array(entry["confint_wald"][end], dtype=float) for end in ("lower", "upper"))
        found = fit.confint().iloc[: len(lower)]
        scale = (upper - lower)[:, None]
        difference = (found.to_numpy() - np.column_stack([lower, upper])) / scale
        np.testing.assert_allclose(difference, 0, atol=1e-5, err_msg=name)
        checked += 1
    assert checked == 54


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_anova(shared, kind):
    checked = 0
    for _, entry, fit in entries(shared, f"anova_type{kind}_satterthwaite"):
        check_table(fit.anova(type=kind), entry[f"anova_type{kind}_satterthwaite"]["values"])
        checked += 1
    assert checked == 46
