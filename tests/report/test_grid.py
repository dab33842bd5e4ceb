import re

import pytest

from bayeslmm.report.grid import Grid, escape_latex, escape_markdown

NASTY = '<script>"a_b" & $x$ | 50%'


@pytest.fixture
def grid() -> Grid:
    return Grid(
        ("", "mean", "n"),
        (("first part", "", ""), ("a", "-1.5", "3"), (NASTY, "20", "14")),
        "ldr",
        over=(("", 1), ("both", 2)),
        parts=(0,),
    )


def test_text_is_aligned_with_a_label_above(grid):
    blank = " " * len(NASTY)
    assert grid.text().splitlines() == [
        f"{blank} - both",
        f"{blank} mean  n",
        "first part",
        f"a{blank[1:]} -1.5  3",
        f"{NASTY} 20   14",
    ]


def test_html_escapes_and_marks_parts(grid):
    page = grid.html("caption <b>")
    assert "<script>" not in page
    assert "&lt;script&gt;&quot;a_b&quot; &amp; $x$ | 50%" in page
    assert "<caption>caption &lt;b&gt;</caption>" in page
    assert '<tr class="part"><td class="l" colspan="3">first part</td></tr>' in page
    assert '<th class="over" colspan="2">both</th>' in page


def test_html_pads_with_spaces_as_wide_as_digits(grid):
    assert "<td>20\u2008\u2007</td>" in grid.html()


def test_latex_escapes_and_uses_booktabs(grid):
    text = grid.latex("a_b", "tab:one")
    assert r"\textless{}script\textgreater{}" in text
    assert r"a\_b" in text
    assert r"\& \$x\$ \textbar{} 50\%" in text
    assert r"\caption{a\_b}" in text
    assert r"\label{tab:one}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"$-$1.5" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1


def test_latex_rows_have_as_many_cells_as_columns(grid):
    rows = [line for line in grid.latex().splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2, 2, 2]


def test_markdown_escapes_and_joins_both_headers(grid):
    lines = grid.markdown().splitlines()
    assert lines[0] == "|  | both mean | both n |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == "| **first part** |  |  |"
    assert lines[4] == r"""| &lt;script>"a\_b" & $x$ \| 50% | 20 | 14 |"""


@pytest.mark.parametrize("text", ["\\", "{}", "^~", "#1"])
def test_latex_leaves_no_active_character(text):
    bare = re.sub(r"\\(textbackslash|textasciicircum|textasciitilde)\{\}|\\[{}#&%$_]", "", escape_latex(text))
    assert not set(bare) & set("\\{}^~#")


def test_markdown_keeps_a_cell_in_one_row():
    assert "\n" not in escape_markdown("a\nb")
