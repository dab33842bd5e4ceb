"""A formula may come from a text box. Nothing in it reaches beyond columns of the data and the documented functions."""

import os
import subprocess
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from formulaic.materializers import base
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayeslmm.errors import BayesLmmError, DataError, FormulaError
from bayeslmm.formula.design import build_design
from bayeslmm.formula.functions import FUNCTIONS

EVIL = "__import__('os').system('touch /tmp/bayeslmm_was_here')"


class Reached(BaseException):
    """Raised where code from a formula would have run."""


@pytest.fixture(autouse=True)
def traps(monkeypatch):
    """Make every way to run code fail loudly, past any `except Exception`."""

    def trap(*args, **kwargs):
        raise Reached(args)

    monkeypatch.setattr(base, "stateful_eval", trap)
    monkeypatch.setattr(os, "system", trap)
    monkeypatch.setattr(os, "popen", trap)
    monkeypatch.setattr(subprocess, "Popen", trap)


def test_the_traps_work(data):
    from formulaic import model_matrix

    with pytest.raises(Reached):
        model_matrix("`x` + {" + EVIL + "} + `g`", data)
    with pytest.raises(Reached):
        eval(EVIL)


@pytest.fixture
def data():
    n = 12
    return pd.DataFrame(
        {
            "y": np.arange(n) % 5 + 0.5,
            "x": np.linspace(1, 2, n),
            "f": list("abc") * 4,
            "g": np.repeat([1, 2, 3], 4),
        }
    )


FRAGMENTS = [
    EVIL,
    f"{{{EVIL}}}",
    f"I({EVIL})",
    f"log({EVIL})",
    f"log(x + {EVIL})",
    f"C(f, {EVIL})",
    f"C(f, levels={EVIL})",
    f"C(f, levels=[{EVIL}])",
    f"bs(x, knots=[{EVIL}])",
    f"bs(x, df={EVIL})",
    f"offset({EVIL})",
    "eval('1')",
    "exec('1')",
    "open('/etc/passwd')",
    "getattr(x, '__class__')",
    "globals()",
    "vars(x)",
    "x.__class__",
    "x.__class__.__mro__",
    "().__class__",
    "[].__class__",
    "''.__class__",
    "(x).__class__.__base__.__subclasses__()",
    "log.__globals__",
    "I.__wrapped__(x)",
    "scale.__wrapped__",
    "C.__init__",
    "np.load('a.npy', allow_pickle=True)",
    "np",
    "np.random",
    "numpy.log(x)",
    "pandas.read_pickle('a')",
    "contr.custom([1, 2])",
    "contr.treatment",
    "contr.__class__",
    "x[0]",
    "x['__class__']",
    "log[0]",
    "lambda: 1",
    "(lambda: 1)()",
    "[i for i in x]",
    "{i: i}",
    "(x := 1)",
    "x if x else x",
    "x and x",
    "not x",
    "*x",
    "f'{x}'",
    "`x`(1)",
    "`log`(x)",
    "(log)(x)",
    "log(x)(x)",
    "scale(x, _state=globals)",
    "scale(x, _context=1)",
    "poly(x, 2, _spec=1)",
    "bs(x, **{})",
    "Q('x')",
    "Q('__class__')",
    "hashed(f, levels=3)",
    "lag(x, 1)",
    "I(x; 1)",
    "import os",
    "__FORMULAIC_CONTEXT__",
    "__FORMULAIC_STATE__",
    "__formulaic_metadata__",
    "__builtins__",
    "\\x5f\\x5f",
    "x\x00",
    "x @ x",
    "x & x",
    "x ! x",
    "~x",
    "I(~x)",
    "9**9**9**9",
    "I('a'*999999999)",
    "log('a' * 1000000000)",
]


@pytest.mark.parametrize("fragment", FRAGMENTS)
@pytest.mark.parametrize(
    "frame",
    ["y ~ {}", "y ~ x + {} + (1|g)", "y ~ ({}|g)", "y ~ (1|{})", "{} ~ x", "y ~ us({}|g)", "cbind({}, 1) ~ x"],
)
def test_fragments_are_refused(fragment, frame, data):
    with pytest.raises(BayesLmmError):
        build_design(frame.replace("{}", fragment, 1), data)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.DataWarning")
def test_a_quote_in_a_string_does_not_reach_the_parser_of_formulaic(data):
    for text in ("`", "` + {" + EVIL + "} + `", "\\", "\\`", "'", "{x}", "\\'` + {" + EVIL + "}"):
        quoted = f'"{text}"' if '"' not in text else f"'{text}'"
        for formula in (f"y ~ C(f, levels=[{quoted}])", f"y ~ I(f == {quoted})", f"y ~ C(f, Treatment({quoted}))"):
            try:
                design = build_design(formula, data)
            except BayesLmmError:
                continue
            assert text in " ".join((*design.coef_names, *design.dropped_columns))


@pytest.mark.parametrize(
    "name",
    [
        "a\\",
        "{x}",
        "{" + EVIL + "}",
        EVIL,
        "a b",
        "log(x)",
        "x + g",
        "x:g",
        "1",
        "'",
        '"',
        "__class__",
        "%s",
        "~",
        "|",
        "(",
        "é\u200b",
        "__FORMULAIC_CONTEXT__",
    ],
)
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.DataWarning")
def test_column_names_are_only_names(name, data):
    data = data.assign(**{name: np.arange(12) ** 2.0 % 7})
    design = build_design(f"y ~ x + `{name}` + (`{name}`|g)", data)
    shown = "`1`" if name == "1" else name
    assert design.coef_names == ("Intercept", "x", shown)
    np.testing.assert_array_equal(design.X[:, 2], data[name])
    np.testing.assert_array_equal(design.at(data).X, design.X)
    dotted = build_design("y ~ . - f + (1|g)", data)
    assert set(dotted.coef_names) == {"Intercept", "x", shown}


def test_a_backtick_in_a_column_name_cannot_end_a_quote(data):
    data["` + {" + EVIL + "} + `"] = 1.0
    with pytest.raises(FormulaError, match="which a formula cannot name"):
        build_design("y ~ . + (1|g)", data)


def test_level_names_are_only_names(data):
    levels = {"a" + EVIL, "{" + EVIL + "}", "`"}
    data["f"] = np.array(sorted(levels), dtype=object)[np.arange(12) % 3]
    design = build_design("y ~ 0 + f + (1|f)", data)
    assert set(design.coef_names) == {f"f[{level}]" for level in levels}
    assert set(design.terms[0].levels) == levels


def test_a_level_that_formulaic_would_leave_out_is_refused(data):
    data["f"] = np.array(["__a", "b", "c"], dtype=object)[np.arange(12) % 3]
    with pytest.raises(DataError, match="column 'f' has the level '__a'"):
        build_design("y ~ f + (1|g)", data)
    assert build_design("y ~ x + (1|f)", data).terms[0].levels == ("__a", "b", "c")


def test_columns_hide_no_functions_and_functions_hide_no_columns(data):
    data["log"] = data["np"] = data["C"] = np.arange(12.0) ** 2
    design = build_design("y ~ log + log(x) + I(log * np) + C(C) - C(C)", data)
    assert design.coef_names[:3] == ("Intercept", "log", "log(x)")
    np.testing.assert_allclose(design.X[:, 2], np.log(data["x"]))


def test_the_table_of_functions_is_the_documented_one():
    assert set(FUNCTIONS) == {
        *("log", "log2", "log10", "log1p", "exp", "expm1", "sqrt", "abs", "sin", "cos", "tan"),
        *("I", "C", "factor", "poly", "bs", "cr", "cs", "cc", "center", "scale", "standardize"),
    }


ALPHABET = ["x", "y", "f", "g", "1", "0", " ", "(", ")", "|", "~", "+", "*", ":", "^", ".", ",", "=", "'", '"', "`"]
WORDS = [
    "__class__",
    "{",
    "}",
    "[",
    "]",
    "log",
    "C",
    "I",
    "np",
    "eval",
    "lambda",
    "import",
    "%",
    "@",
    "\\",
    "\n",
    "scale",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(ALPHABET + WORDS), max_size=25))
def test_random_text_is_a_design_or_our_error(pieces, data):
    with suppress(BayesLmmError):
        build_design("y ~ " + "".join(pieces), data)
