"""Type I, II and III tables against lmerTest, in several codings."""

import json

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError
from bayeslmm.formula.term_contrasts import TermContrasts
from tests.frequentist.inference_cases import FROM_R, NOT_PACKAGED, REFERENCE, lmer, reference_fit

TABLES = [
    (name, kind)
    for name, entry in REFERENCE["fits"].items()
    for kind in (1, 2, 3)
    if f"anova_type{kind}_satterthwaite" in entry
]


def check_table(table, values):
    values = np.array(values, dtype=float)
    frame = table.frame
    assert list(frame) == ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]
    np.testing.assert_array_equal(frame["NumDF"], values[:, 2])
    np.testing.assert_allclose(frame["DenDF"], values[:, 3], rtol=1e-3)
    np.testing.assert_allclose(frame[["Sum Sq", "Mean Sq", "F value"]], values[:, [0, 1, 4]], rtol=2e-5)
    np.testing.assert_allclose(frame["Pr(>F)"], values[:, 5], rtol=1e-2)


@pytest.mark.parametrize(("name", "kind"), TABLES)
def test_tables_agree_with_lmertest(name, kind):
    fit, entry = reference_fit(name)
    expected = entry[f"anova_type{kind}_satterthwaite"]
    table = fit.anova(type=kind)
    assert table.frame.index.tolist() == expected["terms"]
    check_table(table, expected["values"])


CROSSED = "lang ~ IQ + COMB*size + (1 | class)"
OTHER_CODINGS = [
    CROSSED,
    "lang ~ IQ + C(COMB, contr.sum)*C(size, contr.helmert) + (1 | class)",
    "lang ~ IQ + C(COMB, contr.treatment(base='1'))*C(size, contr.poly) + (1 | class)",
]


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_unbalanced_cells(kind):
    check_table(lmer(CROSSED, "nlschools").anova(type=kind), FROM_R["anova"][f"type{kind}"]["values"])


@pytest.mark.parametrize("formula", OTHER_CODINGS)
def test_type_three_does_not_depend_on_the_coding(formula):
    check_table(lmer(formula, "nlschools").anova(type=3), FROM_R["anova"]["type3"]["values"])


def test_kenward_roger_denominators():
    check_table(lmer(CROSSED, "nlschools").anova(type=3, ddf="kr"), FROM_R["anova"]["type3_kr"]["values"])
    fit, entry = reference_fit("machines_nested_reml")
    F, numerator, denominator, _, p = entry["kenward_roger"]["type3_terms"]["values"][0]
    row = fit.anova(ddf="kenward-roger").frame.loc["Machine"]
    np.testing.assert_allclose(row[["F value", "NumDF", "DenDF", "Pr(>F)"]], [F, numerator, denominator, p], rtol=1e-5)


def test_which_terms_contain_which():
    design = blm.build_design("distance ~ age * Sex + (1 | Subject)", blm.datasets.load("Orthodont"))
    terms = {term.name: term for term in TermContrasts(design).terms}
    assert terms["age"].is_contained_in(terms["age:Sex"])
    assert not terms["Sex"].is_contained_in(terms["age:Sex"])


def test_terms_of_a_formula_without_intercept_and_with_a_basis():
    fit = lmer("lang ~ 0 + size + poly(SES, 2) + (1 | class)", "nlschools")
    frame = fit.anova(type=3).frame
    assert frame["NumDF"].tolist() == [3, 2]
    tested = fit.test([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]])
    assert frame["F value"].iloc[0] == pytest.approx(tested.joint.statistic)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLmmWarning")
def test_an_empty_cell_makes_type_three_not_estimable():
    rng = np.random.default_rng(2)
    cells = [("a", "p"), ("a", "q"), ("b", "p"), ("b", "q"), ("c", "p")]
    rows = [cells[i % 5] for i in range(60)]
    frame = {"y": rng.normal(size=60), "f": [r[0] for r in rows], "h": [r[1] for r in rows], "g": np.arange(60) // 6}
    fit = blm.lmer("y ~ f * h + (1 | g)", frame)
    with pytest.raises(ComparisonError, match=r"(?s)not estimable.*type=2"):
        fit.anova(type=3)
    assert fit.anova(type=2).frame.index.tolist() == ["f", "h", "f:h"]


def test_bad_input():
    with pytest.raises(ComparisonError, match="no term to test"):
        lmer("Yield ~ 1 + (1 | Batch)", "Dyestuff").anova()
    with pytest.raises(ComparisonError, match="types 1, 2 and 3"):
        lmer(CROSSED, "nlschools").anova(type=4)


def test_every_reference_table(shared):
    checked = 0
    for path in sorted((shared / "reference" / "fits").glob("*ml.json")):
        entry = json.loads(path.read_text())
        if "anova_type3_satterthwaite" not in entry or entry["dataset"] in NOT_PACKAGED:
            continue
        fit = lmer(entry["formula"], entry["dataset"], entry["method"] == "REML")
        for kind in (1, 2, 3):
            check_table(fit.anova(type=kind), entry[f"anova_type{kind}_satterthwaite"]["values"])
            checked += 1
    assert checked > 60
