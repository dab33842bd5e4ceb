"""The documentation names what there is, and its links lead somewhere. Building it executes every cell."""

import re
from pathlib import Path

import pytest

import bayeslmm

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "howto").glob("*.md"))]


def test_every_public_name_is_on_the_reference_page():
    listed = set(
        re.findall(r"^   ([A-Za-z0-9_.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    public = {name for name in bayeslmm.__all__ if name not in ("datasets", "residuals", "teach")}
    public |= {f"datasets.{name}" for name in bayeslmm.datasets.__all__}
    public |= {f"formula.residuals.{name}" for name in bayeslmm.residuals.__all__}
    public |= {f"teach.{name}" for name in bayeslmm.teach.__all__}
    assert listed == public


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if target.startswith("http"):
            continue
        # Stories are copied below docs/ when it is built.
        path = ROOT / "examples" / Path(target).name if "stories/" in target else page.parent / target
        assert path.exists(), target


def test_every_page_is_in_a_table_of_contents():
    trees = "\n".join(
        f"howto/{block}".replace("\n", "\nhowto/") if page.parent.name == "howto" else block
        for page in PAGES[1:]
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
    listed = {
        re.sub(r".*<(.+)>$", r"\1", line)
        for line in trees.splitlines()
        if line and ":" not in line and not line.endswith("/")
    }
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES[1:]} - {"index"}
    stories = {f"stories/{path.stem}" for path in (ROOT / "examples").glob("*.py") if not path.stem.endswith("_app")}
    assert listed == pages | stories
