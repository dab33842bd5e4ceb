"""What a formula means."""

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula.parse import formula_names, parse_formula
from bayeslmm.formula.terms import RandomTerm


def terms(text):
    return [(term.columns, term.group, term.covariance, term.hom) for term in parse_formula(text).random]


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ("(1|g)", [("1", ("g",), "us", False)]),
        ("( ( 1 | g ) )", [("1", ("g",), "us", False)]),
        ("(x|g)", [("1 + x", ("g",), "us", False)]),
        ("(1+x|g)", [("1 + x", ("g",), "us", False)]),
        ("(0+x|g)", [("0 + x", ("g",), "us", False)]),
        ("(x-1|g)", [("0 + x", ("g",), "us", False)]),
        ("(-1+x|g)", [("0 + x", ("g",), "us", False)]),
        ("(x||g)", [("1 + x", ("g",), "diag", False)]),
        ("(0 + f||g)", [("0 + f", ("g",), "diag", False)]),
        ("(1|a:b)", [("1", ("a", "b"), "us", False)]),
        ("(1|a/b)", [("1", ("b", "a"), "us", False), ("1", ("a",), "us", False)]),
        (
            "(x||a/b/c)",
            [
                ("1 + x", ("c", "b", "a"), "diag", False),
                ("1 + x", ("b", "a"), "diag", False),
                ("1 + x", ("a",), "diag", False),
            ],
        ),
        (
            "(1|a*b)",
            [("1", ("a",), "us", False), ("1", ("b",), "us", False), ("1", ("a", "b"), "us", False)],
        ),
        ("(1|(a/b):c)", [("1", ("b", "a", "c"), "us", False), ("1", ("a", "c"), "us", False)]),
        ("us(x|g)", [("1 + x", ("g",), "us", False)]),
        ("diag(x|g)", [("1 + x", ("g",), "diag", False)]),
        ("diag(x|g, hom=TRUE)", [("1 + x", ("g",), "diag", True)]),
        ("homdiag(x|g)", [("1 + x", ("g",), "diag", True)]),
        ("cs(0 + f | g)", [("0 + f", ("g",), "cs", False)]),
        ("cs(0 + f | g, hom=True)", [("0 + f", ("g",), "cs", True)]),
        ("homcs(0 + f | g)", [("0 + f", ("g",), "cs", True)]),
        ("ar1(0 + t | g)", [("0 + t", ("g",), "ar1", True)]),
        ("ar1(0 + t | g, hom=FALSE)", [("0 + t", ("g",), "ar1", False)]),
        ("(log(x) + I(z^2)|g)", [("1 + log(x) + I(z^2)", ("g",), "us", False)]),
        ("(`a b`|`class x`)", [("1 + `a b`", ("class x",), "us", False)]),
    ],
)
def test_random_terms(right, expected):
    assert terms(f"y ~ {right}") == expected


@pytest.mark.parametrize(
    ("right", "fixed"),
    [
        ("1", "1"),
        ("x", "1 + x"),
        ("0 + x", "0 + x"),
        ("x - 1", "0 + x"),
        ("-1 + x", "0 + x"),
        ("x + 0", "0 + x"),
        ("0 + x + 1", "1 + x"),
        ("a*b - a:b", "1 + a * b - a:b"),
        ("(a + b)^2", "1 + (a + b)^2"),
        (".", "1 + ."),
        ("(1|g)", "1"),
        ("0 + (1|g)", "0"),
        ("(1|g) + x", "1 + x"),
        ("a + (x|g) + b + offset(z)", "1 + a + b"),
    ],
)
def test_the_fixed_part_begins_with_the_intercept_rule(right, fixed):
    assert parse_formula(f"y ~ {right}").fixed == fixed


def test_terms_may_come_in_any_order():
    formula = parse_formula("y ~ (1 | g) + offset(log(n)) + x + (0 + x | h) + offset(z) + w")
    assert formula.fixed == "1 + x + w"
    assert [term.factor for term in formula.random] == ["g", "h"]
    assert formula.offsets == ("log(n)", "z")
    assert formula_names(formula) == ("y", "x", "w", "g", "h", "n", "z")


@pytest.mark.parametrize("response", ["y", "log(y)", "cbind(k, n - k)", "prop(k, n)", "y / 10", "`a b`", "class", "β"])
def test_responses(response):
    assert parse_formula(f"{response} ~ x").response == response


def test_a_term_writes_itself_and_knows_its_place():
    text = "y ~ x + (`a b` || g/h)"
    inner, outer = parse_formula(text).random
    assert str(inner) == "(1 + `a b` || h:g)"
    assert inner.factor == "h:g"
    assert outer.factor == "g"
    assert text[slice(*inner.span)] == "(`a b` || g/h)"
    assert inner == RandomTerm("1 + `a b`", ("h", "g"), "diag")


REFUSED = [
    ("", "the formula is empty", None),
    ("y", "there is no '~'", "^"),
    ("~ x", "the response is missing", "^"),
    ("y ~", "something is missing after '~'", "  ^"),
    ("y ~ x ~ z", "a formula has one '~'", "      ^"),
    ("(y ~ x)", "'~' cannot stand in parentheses", "   ^"),
    ("y ~ x + 1 | g", "a random term needs parentheses around its '|'", "          ^"),
    ("y ~ x || g", "a random term needs parentheses around its '||'", "      ^^"),
    ("y ~ log(x | g)", "'|' has no meaning inside a function", "          ^"),
    ("y ~ I(x + (1|g))", "'|' has no meaning inside a function", "            ^"),
    ("y ~ x * (1|g)", "a random term stands by itself", "          ^"),
    ("y ~ x:us(1|g)", "a random term stands by itself", "      ^^^^^^^"),
    ("y ~ x - (1|g)", "a random term cannot be taken away", "        ^^^^^"),
    ("y ~ (1|)", "something is missing after '|'", "      ^"),
    ("y ~ (|g)", "something is missing before '|'", "     ^"),
    ("y ~ (1|g|h)", "a random term has one bar", "      ^"),
    ("y ~ (0|g)", "nothing varies in this random term", "     ^"),
    ("y ~ (.|g)", "'.' cannot stand in a random term", "     ^"),
    ("y ~ (x + offset(z)|g)", "offset() cannot stand in a random term", "         ^^^^^^^^^"),
    ("y ~ (1|g + h)", "grouping factors are not added", "       ^^^^^"),
    ("y ~ (1|2)", "a grouping factor is a column, not a number", "       ^"),
    ("y ~ (1|log(g))", "'log(g)' cannot be a grouping factor", "       ^^^^^^"),
    ("y ~ us(x||g)", "us() takes one random term with a single bar", "    ^^^^^^^^"),
    ("y ~ us(x|g, hom=TRUE)", "us() takes no hom=", "                ^^^^"),
    ("y ~ cs(x|g, hom=3)", "hom is TRUE or FALSE", "                ^"),
    ("y ~ cs(x|g, hmo=TRUE)", "cs() has no option 'hmo'", "                ^^^^"),
    ("y ~ us(x)", "there is no function 'us'", "    ^^"),
    ("y ~ x + offset(z, w)", "offset() takes one column", "        ^^^^^^^^^^^^"),
    ("y ~ x - offset(z)", "an offset cannot be taken away", "        ^^^^^^^^^"),
    ("y ~ x:offset(z)", "offset() stands by itself", "      ^^^^^^^^^"),
    ("y ~ x + offset(z|g)", "'|' has no meaning inside a function", "                ^"),
    ("k | trials(n) ~ x", "'|' cannot stand in the response", "  ^"),
    ("cbind(k) ~ x", "cbind() takes two columns", "^^^^^^^^"),
    ("poly(y, 2) ~ x", "poly() has several columns and cannot be a response", "^^^^^^^^^^"),
    ("C(y) ~ x", "categories cannot be made in the response", "^^^^"),
    ("1 ~ x", "the response holds no column", "^"),
    ("y ~ cbind(a, b)", "there is no function 'cbind'", "    ^^^^^"),
    ("y ~ x + y", "'y' is the response and cannot predict itself", "        ^"),
    ("y ~ x + (y|g)", "'y' is the response and cannot predict itself", "         ^"),
    ("y ~ x + (1|y)", "'y' is the response and cannot be a grouping factor", "           ^"),
    ("log(y) ~ x + (1|g:y)", "'y' is the response and cannot be a grouping factor", "                  ^"),
    ("y ~ 2*x", "the number 2 has no meaning as a term", "    ^"),
    ("y ~ (1 + x):z", "the number 1 has no meaning as a term", "     ^"),
    ("y ~ x^2", "as terms x^2 is just x", "    ^^^"),
    ("y ~ (a + b)^x", "the exponent of terms is a whole number from 1 to 9", "            ^"),
    ("y ~ (a + b)^99", "the exponent of terms is a whole number from 1 to 9", "            ^^"),
    ("y ~ (a+b+c+d+e)^9", "this expands to more than 10,000 terms", "    ^^^^^^^^^^^^^"),
    ("y ~ a > b", "'>' compares", "      ^"),
    ("y ~ 'a b'", "text in quotes cannot be a term", "    ^^^^^"),
    ("y ~ I(2)", "I(2) holds no column", "    ^^^^"),
    ("y ~ -x", "'x' is taken away before anything was added", "     ^"),
    ("y ~ lgo(x)", "there is no function 'lgo'", "    ^^^"),
    ("y ~ log()", "log() needs a column", "    ^^^^^"),
    ("y ~ log(x, 2)", "log() has too many arguments", "           ^"),
    ("y ~ bs(x, dff=4)", "bs() has no option 'dff'", "              ^"),
    ("y ~ bs(x, df=4, df=5)", "the option 'df' is given twice", "                   ^"),
    ("y ~ bs(x, df=z)", "'z' is not a constant", "             ^"),
    ("y ~ bs(x, df=1e9)", "df must be a whole number between 0 and 200", "             ^^^"),
    ("y ~ poly(x, 100000)", "degree must be a whole number between 0 and 200", "            ^^^^^^"),
    ("y ~ C(f, Foo)", "'Foo' is not a contrast", "         ^^^"),
    ("y ~ log(x:z)", "':' has no meaning in arithmetic", "         ^"),
    ("y ~ log(.)", "'.' stands for columns and cannot be computed with", "        ^"),
]


@pytest.mark.parametrize(("text", "message", "caret"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_with_a_caret(text, message, caret):
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    lines = str(caught.value).splitlines()
    assert message in lines[0]
    if caret is not None:
        assert lines[1] == f"  {text}"
        assert lines[2] == f"  {caret}"


def test_messages_offer_a_way_out():
    with pytest.raises(FormulaError, match=r"Write x \+ \(1 \| g\)\."):
        parse_formula("y ~ x + 1 | g")
    with pytest.raises(FormulaError, match=r"Did you mean 'log'\?"):
        parse_formula("y ~ lgo(x)")
    with pytest.raises(FormulaError, match=r"Write \(1 \| g\) \+ \(1 \| h\)\."):
        parse_formula("y ~ (1|g + h)")
    with pytest.raises(FormulaError, match=r"Did you mean 'df'\?"):
        parse_formula("y ~ bs(x, dff=4)")


def test_change_from_baseline_is_allowed():
    assert parse_formula("I(after - before) ~ before + (1|g)").fixed == "1 + before"


@pytest.mark.parametrize("value", [3, None, ["y ~ x"]])
def test_a_formula_is_text(value):
    with pytest.raises(FormulaError, match="a formula is text"):
        parse_formula(value)


def test_cs_is_a_spline_without_a_bar_and_a_structure_with_one():
    formula = parse_formula("y ~ cs(x, df=4) + cs(x | g)")
    assert formula.fixed == "1 + cs(x, df=4)"
    assert formula.random[0].covariance == "cs"
