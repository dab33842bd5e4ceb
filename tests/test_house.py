"""The rules of the house: layers, lazy imports, docstrings, the map. CONTRIBUTING.md states them in words."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import bayeslmm

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bayeslmm"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

# A unit imports only from rows above its own, and from units beside it in the same set.
LAYERS = [
    {"errors"},
    {"families"},
    {"datasets"},
    {"formula"},
    {"likelihood"},
    {"parallel", "contract", "predict", "datatree"},
    {"report"},
    {"frequentist"},
    {"bayes"},
    {"models"},
    {"mrp"},
    {"teach"},
    {"cli"},
    {"__main__"},
]
RANK = {unit: rank for rank, row in enumerate(LAYERS) for unit in row}
# Units on one level of the plan: neither knows the other, although one stands above the other in LAYERS.
STRANGERS = [{"families", "datasets"}, {"frequentist", "bayes"}]

SAMPLERS = {"pymc", "pytensor", "bambi", "nutpie", "numpyro", "blackjax", "jax"}
HEAVY = SAMPLERS | {"arviz", "arviz_base", "arviz_plots", "arviz_stats", "matplotlib", "xarray"}


@dataclass(frozen=True)
class Import:
    """One import statement of a module of the package."""

    module: str  # "report/tables.py"
    target: str  # "bayeslmm.formula.design", "numpy"
    line: int
    in_function: bool

    @property
    def top(self) -> str:
        return self.target.split(".")[0]

    @property
    def unit(self) -> str:
        """First name below bayeslmm, "" for other packages and for bayeslmm itself."""
        parts = self.target.split(".")
        return parts[1] if parts[0] == "bayeslmm" and len(parts) > 1 else ""

    @property
    def importer(self) -> str:
        return self.module.split("/")[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def targets(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
        return [f"{base}.{alias.name}" if base == "bayeslmm" else base for alias in node.names]
    return []


def imports_of(path: Path) -> list[Import]:
    """Return what a module imports when it runs: imports for the type checker alone do not count."""
    module = path.relative_to(PACKAGE).as_posix()
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found: list[Import] = []

    def walk(node: ast.AST, in_function: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            found.extend(Import(module, target, child.lineno, in_function) for target in targets(child, package))
            walk(child, in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    walk(ast.parse(path.read_text(encoding="utf-8")), in_function=False)
    return found


ALL_IMPORTS = [entry for path in sorted(PACKAGE.rglob("*.py")) for entry in imports_of(path)]


def breaks_layers(entry: Import) -> bool:
    if entry.importer == "__init__" or entry.importer == entry.unit or not entry.unit:
        return False
    strangers = {entry.importer, entry.unit} in STRANGERS
    return strangers or RANK[entry.unit] > RANK[entry.importer]


def test_every_unit_of_the_package_has_a_layer():
    units = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert units <= set(RANK), f"give these a row in LAYERS: {sorted(units - set(RANK))}"


def test_modules_import_only_from_layers_above_them():
    assert [str(entry) for entry in ALL_IMPORTS if breaks_layers(entry)] == []


@pytest.mark.parametrize(
    ("module", "target", "in_function", "broken"),
    [
        ("report/tables.py", "bayeslmm.formula.design", False, False),
        ("report/tables.py", "bayeslmm.frequentist.lmm_fit", False, True),
        ("report/tables.py", "bayeslmm.frequentist.lmm_fit", True, True),
        ("bayes/sample.py", "bayeslmm.frequentist.optimize", True, True),
        ("frequentist/lmm_fit.py", "bayeslmm.bayes.priors", True, True),
        ("contract.py", "bayeslmm.predict", True, False),
        ("formula/parse.py", "numpy", False, False),
    ],
)
def test_the_layer_rule_tells_right_from_wrong(module, target, in_function, broken):
    assert breaks_layers(Import(module, target, 1, in_function)) is broken


def test_the_import_reader_sees_every_form(tmp_path, monkeypatch):
    package = tmp_path / "bayeslmm"
    module = package / "report" / "x.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "import numpy as np, scipy.linalg\n"
        "from .. import models\n"
        "from ..formula import design\n"
        "if TYPE_CHECKING:\n    import pymc\n"
        "class A:\n    def f(self):\n        from bayeslmm import cli\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    seen = {(entry.target, entry.in_function) for entry in imports_of(module)}
    assert seen >= {("numpy", False), ("scipy.linalg", False), ("bayeslmm.cli", True), ("bayeslmm.models", False)}
    assert ("bayeslmm.formula", False) in seen
    assert "pymc" not in {target for target, _ in seen}


def test_only_bayes_imports_a_sampler():
    wrong = [str(entry) for entry in ALL_IMPORTS if entry.top in SAMPLERS and entry.importer != "bayes"]
    assert wrong == []


def test_heavy_libraries_are_imported_inside_functions():
    at_import = [entry for entry in ALL_IMPORTS if entry.top in HEAVY and not entry.in_function]
    assert [str(entry) for entry in at_import if entry.importer != "bayes"] == []


def test_likelihood_knows_arrays_only():
    foreign = {"pandas", "narwhals", "polars", "pyarrow", "formulaic"} | HEAVY
    assert [str(entry) for entry in ALL_IMPORTS if entry.importer == "likelihood" and entry.top in foreign] == []


def test_folders_are_two_levels_deep():
    deep = [str(path) for path in PACKAGE.rglob("*.py") if len(path.relative_to(PACKAGE).parts) > 2]
    assert deep == []


def test_every_imported_library_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower().replace("-", "_") for line in lines}
    names |= {"arviz_base", "arviz_plots", "arviz_stats", "llvmlite"}  # what arviz and numba are made of
    names |= {"ibis"} if "ibis_framework" in names else set()
    used = {entry.top.lower() for entry in ALL_IMPORTS} - set(sys.stdlib_module_names) - {"bayeslmm"}
    assert used - names == set()


def loaded_after(code: str) -> set[str]:
    """Return the heavy libraries in `sys.modules` of a fresh process that ran `code`."""
    report = "\nimport sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1])) & HEAVY


@pytest.mark.parametrize(
    "code",
    [
        "import bayeslmm",
        "import bayeslmm as blm; blm.datasets.load('Dyestuff')",
        "import bayeslmm as blm\n"
        "fit = blm.model('Reaction ~ Days + (Days | Subject)', blm.datasets.load('sleepstudy')).fit()\n"
        "str(fit.summary())",
    ],
    ids=["import", "data", "reml"],
)
def test_what_needs_no_sampler_loads_none(code):
    assert loaded_after(code) == set()


def test_the_lazy_import_test_can_fail():
    assert "xarray" in loaded_after("import xarray")


def test_public_names_mean_the_same_in_any_order():
    """A module must not hide a public name: `bayeslmm.model` is a function, although a module could shadow it."""
    code = (
        "import importlib, json, types, bayeslmm\n"
        f"for name in {[path.stem for path in MODULES if path.parent == PACKAGE and path.stem != 'cli']!r}:\n"
        "    importlib.import_module('bayeslmm.' + name)\n"
        "print(json.dumps([n for n in bayeslmm.__all__ if isinstance(getattr(bayeslmm, n), types.ModuleType)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == ["datasets", "residuals", "teach"]


def public_objects() -> list[tuple[str, object]]:
    objects = []
    for name in bayeslmm.__all__:
        value = getattr(bayeslmm, name)
        if isinstance(value, ModuleType):
            objects += [(f"{name}.{inner}", getattr(value, inner)) for inner in value.__all__]
        else:
            objects.append((name, value))
    return objects


def test_every_public_name_has_a_docstring_with_examples():
    assert len(bayeslmm.__all__) > 0
    bare = [name for name, value in public_objects() if "Examples\n" not in (getattr(value, "__doc__", None) or "")]
    assert bare == []


def map_rows() -> str:
    """Return the map as it must stand in CONTRIBUTING.md: in layer order, each module and what its docstring says."""
    rows = []
    for path in sorted(MODULES, key=lambda path: (RANK[path.relative_to(PACKAGE).parts[0].removesuffix(".py")], path)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = " ".join(docstring.split("\n\n")[0].split()).rstrip(".").replace("|", "\\|")
        rows.append(f"| `{path.relative_to(PACKAGE).as_posix()}` | {first} |\n")
    return "".join(rows)


def split_contributing() -> tuple[str, str, str]:
    """Return CONTRIBUTING.md before, in and after the rows of the map."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    head = "| module | what is in it |\n|---|---|\n"
    before, rest = text.split(head)
    rows, after = rest.split("\n\n", maxsplit=1)
    return before + head, rows + "\n", "\n" + after


def test_the_map_names_every_module():
    assert split_contributing()[1] == map_rows(), "run: uv run --group test python tests/test_house.py"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_tests_mirror_the_tree():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    others = {"reference", "validation", "benchmarks"} | folders
    tests = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert tests - others == set(), "a folder of tests without a folder of the package"
    with_code = {path.parent.name for path in MODULES if path.parent != PACKAGE}
    assert with_code - tests == set(), "a folder of the package without tests"


def quick_start_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quick start")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_the_readme_has_exactly_two_quick_start_commands():
    commands = quick_start_commands()
    assert len(commands) == 2
    formula = "lang ~ IQ + GS + SES + COMB + (1 | class)"
    assert f'bayeslmm compare "{formula}" nlschools --report report.html' in commands[0]
    assert "pytest" in commands[1]


def test_the_version_stands_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?({re.escape(bayeslmm.__version__)}|Unreleased)\]?", text, flags=re.MULTILINE)


if __name__ == "__main__":
    before, _, after = split_contributing()
    (ROOT / "CONTRIBUTING.md").write_text(before + map_rows() + after, encoding="utf-8")
