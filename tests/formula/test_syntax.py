"""Text to tree: what is read, how it is written again, where carets point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeslmm.errors import FormulaError
from bayeslmm.formula.syntax import parse_syntax, render, tokenize, walk


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("y~x", "y ~ x"),
        ("y ~ a+b -c", "y ~ a + b - c"),
        ("y ~ a*b:c^2", "y ~ a * b:c^2"),
        ("y ~ (1|g)", "y ~ (1 | g)"),
        ("y ~ (a||g:h)", "y ~ (a || g:h)"),
        ("`a b` ~ log( β , base=2 )", "`a b` ~ log(β, base=2)"),
        ("y ~ Sepal.Length + .", "y ~ Sepal.Length + ."),
        ("y ~ bs(x, knots=[1,2.5, -3])", "y ~ bs(x, knots=[1, 2.5, -3])"),
        ('y ~ C(f, Treatment("it\'s"))', 'y ~ C(f, Treatment("it\'s"))'),
        ("y ~\n  x\n+ z", "y ~ x + z"),
    ],
)
def test_a_tree_is_written_as_it_reads(text, written):
    tree = parse_syntax(text)
    assert render(tree) == written
    assert render(parse_syntax(written)) == written


@pytest.mark.parametrize(
    ("text", "top"),
    [
        ("a + b * c", "Sum"),
        ("a * b:c", "*"),
        ("a:b^2", ":"),
        ("a + b | g", "|"),
        ("-x^2", "-"),
        ("a - b > 0", ">"),
        ("2^3^2", "^"),
    ],
)
def test_operators_bind_as_in_r(text, top):
    tree = parse_syntax(text)
    assert getattr(tree, "operator", type(tree).__name__) == top


def test_powers_associate_to_the_right_and_the_rest_to_the_left():
    assert render(parse_syntax("2^3^2").left) == "2"
    assert render(parse_syntax("a/b/c").right) == "c"


def test_every_node_knows_its_place():
    text = "y ~ log(x + 1) + (z | `g h`)"
    for node in walk(parse_syntax(text)):
        start, stop = node.span
        assert render(parse_syntax(text[start:stop])) == render(node)


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("y ~ (1 | g", "this '(' is not closed", "    ^"),
        ("y ~ 1 | g)", "this ')' closes nothing", "         ^"),
        ("y ~ ()", "nothing in these parentheses", "    ^^"),
        ("y ~ x +", "something is missing after '+'", "      ^"),
        ("y ~ x + * z", "something is missing before '*'", "        ^"),
        ("y ~ x z", "'z' cannot stand after 'x'", "      ^"),
        ("y ~ `x", "the quote ` is not closed", "    ^^"),
        ("y ~ 'x", "the quote ' is not closed", "    ^^"),
        ("y ~ 2x", "'2x' is neither a number nor a name", "    ^^"),
        ("y ~ x$z", "'$' has no meaning", "     ^"),
        ("y ~ x %in% z", "'%' has no meaning", "      ^"),
        ("y ~ x = z", "'=' has no meaning here", "      ^"),
        ("y ~ f(x y)", "'y' cannot stand after 'x'", "        ^"),
    ],
)
def test_what_does_not_fit_together_is_underlined(text, message, caret):
    with pytest.raises(FormulaError) as caught:
        parse_syntax(text)
    lines = str(caught.value).splitlines()
    assert message in lines[0]
    assert lines[1] == "  " + text
    assert lines[2].rstrip() == "  " + caret


def test_nesting_is_limited():
    with pytest.raises(FormulaError, match="nested more than 50 deep"):
        parse_syntax("y ~ " + "(" * 300 + "x" + ")" * 300)
    with pytest.raises(FormulaError, match="more than 50 operators in a row"):
        parse_syntax("y ~ " + ":".join(["x"] * 300))


def test_a_sum_may_be_long():
    names = [f"x{i}" for i in range(3000)]
    tree = parse_syntax(" + ".join(names))
    assert len(tree.parts) == 3000


@given(st.text(alphabet="yxgβ`'\"()[]|~+-*/:^.,=<>0129 _{}%\\", max_size=40))
def test_any_text_is_read_or_refused_with_a_formula_error(text):
    try:
        tree = parse_syntax(text)
    except FormulaError:
        return
    assert render(parse_syntax(render(tree))) == render(tree)


def test_tokens_leave_nothing_out():
    text = "log(y) ~ `a b`:x1 + (0 + x || g) - 1e-3"
    assert "".join(token.text for token in tokenize(text)) == text.replace(" ", "").replace("`ab`", "`a b`")
