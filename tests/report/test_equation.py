import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from bayeslmm.bayes.priors import Prior, resolve_priors
from bayeslmm.families import as_family
from bayeslmm.formula.design import build_design
from bayeslmm.report.equation import distribution, equation
from bayeslmm.report.mathml import number, squared, sub, symbol, word

GAUSSIAN = as_family("gaussian")

FORMULAS = [
    "y ~ x + (1 | g)",
    "y ~ x + (x | g)",
    "y ~ x + (x || g)",
    "y ~ x * f + (f | g) + (1 | h)",
    "y ~ 0 + f + (0 + f | g)",
    "y ~ x + cs(0 + f | g)",
    "y ~ x + ar1(0 + f | g)",
    "y ~ x + diag(f | g, hom=TRUE)",
    "y ~ x + (1 | g) + (0 + x | g)",
    "y ~ `a_b` + (1 | g:h) + offset(x)",
]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 120
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "a_b": rng.normal(size=n),
            "f": pd.Categorical(np.tile(["p", "q", "r"], n // 3)),
            "g": np.repeat(np.arange(12), 10).astype(str),
            "h": np.tile(np.arange(8), 15).astype(str),
            "w": rng.uniform(1, 2, n),
        }
    )


def lines_of(formula, data, response=GAUSSIAN, **options):
    return equation(build_design(formula, data, **options), response).to_latex().splitlines()[1:-1]


def braces_balance(latex: str) -> bool:
    bare = re.sub(r"\\[{}]", "", latex)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def test_random_slope_with_its_covariance(data):
    assert lines_of("y ~ x + (x | g)", data) == [
        r"\mathrm{y}_{i} &\sim \mathcal{N}(\mu_{i},\ \sigma^{2}) \qquad i = 1,\ \dots,\ 120 \\",
        r"\mu_{i} &= \beta_{0} + \beta_{1} \, \mathrm{x}_{i} + b_{\mathrm{g}[i],0} "
        r"+ b_{\mathrm{g}[i],1} \, \mathrm{x}_{i} \\",
        r"\begin{pmatrix} b_{\mathrm{g}[j],0} \\ b_{\mathrm{g}[j],1} \end{pmatrix} &\sim \mathcal{N}\left(\mathbf{0},\ "
        r"\begin{pmatrix} \sigma_{\mathrm{g},0}^{2} & \rho_{\mathrm{g}} \sigma_{\mathrm{g},0} \sigma_{\mathrm{g},1} \\ "
        r"\rho_{\mathrm{g}} \sigma_{\mathrm{g},0} \sigma_{\mathrm{g},1} & \sigma_{\mathrm{g},1}^{2} "
        r"\end{pmatrix}\right) \qquad j = 1,\ \dots,\ 12",
    ]


def test_single_effects_need_no_number(data):
    lines = lines_of("y ~ 1 + (1 | g) + (1 | h)", data)
    assert lines[1] == r"\mu_{i} &= \beta_{0} + b_{\mathrm{g}[i]} + b_{\mathrm{h}[i]} \\"
    assert lines[3] == r"b_{\mathrm{h}[j]} &\sim \mathcal{N}(0,\ \sigma_{\mathrm{h}}^{2}) \qquad j = 1,\ \dots,\ 8"


def test_independent_terms_of_one_factor_are_numbered_through(data):
    text = "\n".join(lines_of("y ~ x + (1 | g) + (0 + x | g)", data))
    assert r"b_{\mathrm{g}[i],1} \, \mathrm{x}_{i}" in text
    assert r"\rho" not in text


@pytest.mark.parametrize(
    ("formula", "piece"),
    [
        ("y ~ x + cs(0 + f | g)", r"\mathbf{R}_{\mathrm{g},k,m} &= \rho_{\mathrm{g}} \qquad k \neq m"),
        ("y ~ x + ar1(0 + f | g)", r"\mathbf{R}_{\mathrm{g},k,m} &= \rho_{\mathrm{g}}^{| k - m |}"),
        ("y ~ x + (f | g)", r"\mathbf{D}_{\mathrm{g}} \mathbf{R}_{\mathrm{g}} \mathbf{D}_{\mathrm{g}}"),
        ("y ~ x + offset(x) + (1 | g)", r"\mathrm{offset}_{i}"),
    ],
)
def test_structures(formula, piece, data):
    assert piece in "\n".join(lines_of(formula, data))


def test_weights_divide_the_variance(data):
    assert r"\sigma^{2} / w_{i}" in lines_of("y ~ x + (1 | g)", data, weights="w")[0]


def test_other_families_show_their_link(data):
    counts = data.assign(y=np.arange(len(data)) % 5)
    lines = lines_of("y ~ x + (1 | g)", counts, as_family("poisson"), family="poisson")
    assert lines[0].startswith(r"\mathrm{y}_{i} &\sim \operatorname{Poisson}(\mu_{i})")
    assert lines[1].startswith(r"\operatorname{log}(\mu_{i}) &= \beta_{0}")


def test_long_predictors_are_broken(data):
    lines = lines_of("y ~ x * f + (f | g) + (1 | h)", data)
    assert lines[2].startswith(r"&\qquad +")
    assert sum(line.count(" + ") for line in lines) == 5 + 4
    assert len(lines_of("y ~ x + f + (1 | g)", data)) == 3


def test_many_coefficients_become_a_vector(data):
    wide = data.assign(**{f"x{i}": np.random.default_rng(i).normal(size=len(data)) for i in range(25)})
    text = "\n".join(lines_of("y ~ " + " + ".join(f"x{i}" for i in range(25)) + " + (1 | g)", wide))
    assert r"\mathbf{x}_{i}^{\top} \boldsymbol{\beta}" in text
    assert r"\beta_{7}" not in text


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_formula_gives_sound_latex_and_mathml(formula, data):
    design = build_design(formula, data)
    written = equation(design, GAUSSIAN, resolve_priors(design, GAUSSIAN))
    latex = written.to_latex()
    assert braces_balance(latex)
    assert not re.search(r"\}\^\{[^{}]*\}\^|\}_\{[^{}]*\}_\{", latex), "a double index"
    assert latex.count(r"\\") >= len(written.lines) - 1
    page = written.to_mathml()
    root = ET.fromstring(f"<p>{page}</p>")
    assert len(root.findall(".//tr")) == len(written.lines)
    assert len(root.findall(".//tbody")) == 2
    for element, children in (("msub", 2), ("msup", 2), ("msubsup", 3), ("mover", 2)):
        assert all(len(found) == children for found in root.iter(element))


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_prior_has_its_own_line(formula, data):
    design = build_design(formula, data)
    priors = resolve_priors(design, GAUSSIAN)
    lines = equation(design, GAUSSIAN, priors).priors
    assert len(lines) == len(priors.entries)
    assert len({line.left.latex for line in lines}) == len(lines)


def test_priors_of_sleepstudy_like_model(data):
    design = build_design("y ~ x + (x | g)", data)
    given = {
        "Intercept": Prior("Normal", mu=1.0, sigma=2.5),
        "x": Prior("StudentT", nu=3, mu=0, sigma=1),
        "sd": Prior("HalfNormal", sigma=5),
        "corr": Prior("LKJ", eta=2),
        "sigma": Prior("HalfStudentT", nu=3, sigma=10),
    }
    lines = equation(design, GAUSSIAN, resolve_priors(design, GAUSSIAN, given)).priors
    assert [f"{line.left.latex} {line.right.latex}" for line in lines] == [
        r"\beta_{0} + \bar{\mathbf{x}}^{\top} \boldsymbol{\beta} \sim \mathcal{N}(1,\ 2.5^{2})",
        r"\beta_{1} \sim t_{3}(0,\ 1)",
        r"\sigma_{\mathrm{g},0} \sim \operatorname{half-}\mathcal{N}(0,\ 5^{2})",
        r"\sigma_{\mathrm{g},1} \sim \operatorname{half-}\mathcal{N}(0,\ 5^{2})",
        r"\rho_{\mathrm{g}} \sim \operatorname{LKJ}(2)",
        r"\sigma \sim \operatorname{half-}t_{3}(0,\ 10)",
    ]


def test_the_intercept_of_a_model_without_slopes_stands_alone(data):
    design = build_design("y ~ 1 + (1 | g)", data)
    assert equation(design, GAUSSIAN, resolve_priors(design, GAUSSIAN)).priors[0].left.latex == r"\beta_{0}"


def test_unknown_distributions_are_named():
    assert distribution(Prior("Gamma", alpha=2, beta=0.5)).latex == r"\operatorname{Gamma}(2,\ 0.5)"


def test_names_are_escaped_in_both_languages():
    assert word("a_b %<").latex == r"\mathrm{a\_b\ \%<}"
    assert word("a_b %<").mathml == "<mtext>a_b %&lt;</mtext>"


def test_squares_of_powers_of_ten_are_bracketed():
    assert squared(number(1e-7)).latex == r"(1 \times 10^{-7})^{2}"
    assert squared(sub(symbol("sigma"), word("g"))).mathml.startswith("<msubsup>")


def test_notebook_and_text_show_the_same(data):
    written = equation(build_design("y ~ x + (1 | g)", data), GAUSSIAN)
    assert written._repr_latex_() == f"$$\n{written}\n$$"
    assert written.priors == ()
