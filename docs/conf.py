"""How the documentation is built: sphinx-build -W -j auto -b html docs docs/_build/html."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
# Its files only, for equations without a network: as an extension it would keep pages from being read side by side.
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin)
sys.path.insert(0, str(HERE.parent))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))

import bayeslmm  # noqa: E402

project = "bayeslmm"
author = "The bayeslmm developers"
version = release = bayeslmm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute", "conf.py", "make_pictures.py"]

# The examples live beside the package, as scripts that pytest runs too; Sphinx wants them below its own folder.
stories = HERE / "stories"
stories.mkdir(exist_ok=True)
for story in sorted((HERE.parent / "examples").glob("*.py")):
    copy = stories / story.name
    if not story.stem.endswith("_app") and (not copy.exists() or copy.read_bytes() != story.read_bytes()):
        shutil.copyfile(story, copy)

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_imported_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
napoleon_preprocess_types = False

html_theme = "pydata_sphinx_theme"
html_title = "bayeslmm"
html_static_path = ["_static", str(MATHJAX.parent / "static")]
mathjax_path = "mathjax/tex-chtml.js"
html_css_files = ["custom.css"]
html_show_sourcelink = False
# Pages without siblings need no list of them.
html_sidebars = {
    name: []
    for name in ("install", "tour", "concepts", "scale", "teaching", "inference", "benchmarks", "benchmarks_bayes")
}
html_theme_options = {
    "show_nav_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
}
copyright = "The bayeslmm developers, Apache-2.0"

# Pages run side by side, and on a machine that never ran bayeslmm each would compile the same kernels.
WARM_UP = """
import bayeslmm as blm
for name, formula, family in (
    ("nlschools", "lang ~ IQ + (1 | class)", "gaussian"),
    ("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial"),
):
    model = blm.model(formula, blm.datasets.load(name), family=family)
    model.fit().summary()
    model.sample(seed=1, progress=False).summary()
"""


def compile_once(app) -> None:
    if not (Path(app.outdir).parent / ".jupyter_cache").exists():
        subprocess.run([sys.executable, "-W", "ignore", "-c", WARM_UP], check=True)


def setup(app) -> None:
    app.connect("builder-inited", compile_once)
