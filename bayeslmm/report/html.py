"""A report in one HTML file that opens without a network: nothing is loaded, everything is inside."""

from __future__ import annotations

import base64
import html
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import bayeslmm
from bayeslmm.report.compare import Comparison, parameter_draws
from bayeslmm.report.grid import STYLE

if TYPE_CHECKING:
    from arviz_plots import PlotCollection
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bayeslmm.contract import Fit
    from bayeslmm.report.equation import Equation
    from bayeslmm.report.tables import Table

PACKAGES = ("numpy", "scipy", "pandas", "formulaic", "pymc", "nutpie", "arviz")
DPI, SCREEN_DPI = 144, 96
MOST_TRACES = 12

PAGE_STYLE = """<style>
:root{color-scheme:light;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--accent:#0072B2;--warn:#8a4b00}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:var(--ink);
background:#fff;max-width:62rem;margin:2.2rem auto 4rem;padding:0 1.4rem}
h1{font-size:1.55rem;line-height:1.25;margin:0 0 .3rem}
h2{font-size:1.15rem;margin:2.4rem 0 .7rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
code,pre{font:.9em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:#f6f8fa;padding:.8rem 1rem;border-radius:6px;overflow-x:auto}
nav{margin:1rem 0 0;font-size:.92rem}nav a{margin-right:1.1rem;color:var(--accent);text-decoration:none}
nav a:hover{text-decoration:underline}
.facts{color:var(--soft);margin:.2rem 0}
.wide{overflow-x:auto}
.blm{font-size:.92rem}
figure{margin:1rem 0}figure img{max-width:100%;height:auto}
figcaption{color:var(--soft);font-size:.9rem}
.warnings{border-left:4px solid #D55E00;background:#fff6ef;padding:.6rem 1rem;margin:1.2rem 0}
.warnings p{margin:.25rem 0;color:var(--warn);white-space:pre-line}
li{margin:.35rem 0}
footer{margin-top:3rem;padding-top:.7rem;border-top:1px solid var(--line);color:var(--soft);font-size:.88rem}
@media print{nav{display:none}h2{break-after:avoid}figure,table{break-inside:avoid}body{margin:0;max-width:none}}
</style>"""


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Parameters
    ----------
    title : str
        Its heading.
    body : str
        HTML.
    """

    title: str
    body: str

    @property
    def anchor(self) -> str:
        """The name links use."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


def write_report(
    path: str | Path,
    *,
    fit: Fit | None = None,
    post: Fit | None = None,
    comparison: Comparison | None = None,
    equation: Equation | None = None,
    priors: Table | None = None,
    code: str = "",
    data_name: str = "",
    warnings: Sequence[str] = (),
) -> Path:
    """Write what is known about a model to one HTML file that opens offline.

    Parameters
    ----------
    path : str or Path
        The file; replaced if it exists.
    fit : Fit, optional
        A REML, ML or Laplace fit.
    post : Fit, optional
        A posterior.
    comparison : Comparison, optional
        The two side by side.
    equation : Equation, optional
        The model as mathematics.
    priors : Table, optional
        The priors in effect.
    code : str, default ""
        Python that reproduces the results.
    data_name : str, default ""
        What the data are called.
    warnings : sequence of str, default ()
        What went wrong or deserves a look; shown at the top.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If there is neither a fit nor a posterior.

    Examples
    --------
    >>> import tempfile, bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(f"{folder}/dyestuff.html", fit=fit).read_text(encoding="utf-8")
    >>> "Linear mixed model fit by REML" in page
    True
    """
    page = report_html(
        fit=fit,
        post=post,
        comparison=comparison,
        equation=equation,
        priors=priors,
        code=code,
        data_name=data_name,
        warnings=warnings,
    )
    target = Path(path)
    target.write_text(page, encoding="utf-8")
    return target


def report_html(
    *,
    fit: Fit | None = None,
    post: Fit | None = None,
    comparison: Comparison | None = None,
    equation: Equation | None = None,
    priors: Table | None = None,
    code: str = "",
    data_name: str = "",
    warnings: Sequence[str] = (),
) -> str:
    """Return the page that `write_report` writes.

    Parameters
    ----------
    fit, post, comparison, equation, priors, code, data_name, warnings
        As in `write_report`.

    Returns
    -------
    str
        A complete HTML document.

    Raises
    ------
    ValueError
        If there is neither a fit nor a posterior.
    """
    result = fit if fit is not None else post
    if result is None:
        raise ValueError("a report needs a fit, a posterior or both")
    sections = [
        section
        for section in (
            _model_section(equation, priors),
            _comparison_section(comparison),
            _fit_section(fit),
            _posterior_section(post),
            _check_section(post),
            _diagnostics_section(post),
            _group_section(result),
            _code_section(code),
        )
        if section is not None
    ]
    formula = result.design.formula.text
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(formula)}</title>",
            PAGE_STYLE,
            STYLE,
            "</head><body>",
            _header(result, formula, data_name, [r.engine for r in (fit, post) if r is not None], sections),
            _warning_box([*warnings, *(comparison.notes if comparison is not None else ())]),
            *(f'<h2 id="{s.anchor}">{html.escape(s.title)}</h2>\n{s.body}' for s in sections),
            _footer(),
            "</body></html>",
        ]
    )


# --- sections ------------------------------------------------------------------------------------------------------


def _header(result: Fit, formula: str, data_name: str, engines: list[str], sections: Sequence[Section]) -> str:
    counts = [f"{len(result.design.rows):,} observations"]
    counts += [f"{len(factor.members):,} levels of {factor.name}" for factor in result.design.factors]
    facts = [f"Data: {data_name}"] if data_name else []
    facts += [", ".join(counts), f"Family: {result.family}", f"Estimated by {' and '.join(engines)}"]
    links = "".join(f'<a href="#{s.anchor}">{html.escape(s.title)}</a>' for s in sections)
    return (
        f"<header><h1><code>{html.escape(formula)}</code></h1>"
        f'<p class="facts">{" · ".join(map(html.escape, facts))}</p><nav>{links}</nav></header>'
    )


def _warning_box(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    unique = dict.fromkeys(warnings)
    return f'<div class="warnings">{"".join(f"<p>{html.escape(text)}</p>" for text in unique)}</div>'


def _model_section(equation: Equation | None, priors: Table | None) -> Section | None:
    parts = [_wide(equation.to_mathml())] if equation is not None else []
    if priors is not None:
        parts.append(_wide(priors.grid().html("Priors")) + "".join(f"<p>{html.escape(n)}</p>" for n in priors.notes))
    return Section("Model", "".join(parts)) if parts else None


def _comparison_section(comparison: Comparison | None) -> Section | None:
    if comparison is None:
        return None
    caption = (
        "Points are the estimate and the posterior mean; thick lines hold half of the probability, thin lines "
        f"{100 * comparison.level:.4g} %. Every panel has its own scale."
    )
    return Section(
        "Side by side",
        _wide(comparison.grid().html())
        + comparison.closing_html(with_notes=False)
        + figure_html(comparison.plot_panels(), "Intervals of both methods, one panel per parameter", caption),
    )


def _fit_section(fit: Fit | None) -> Section | None:
    return None if fit is None else Section(f"{fit.engine} fit", _wide(_as_html(fit.summary())))


def _posterior_section(post: Fit | None) -> Section | None:
    if post is None:
        return None
    return Section("Posterior", _wide(_as_html(post.summary())))


def _check_section(post: Fit | None) -> Section | None:
    """Return the posterior predictive check, drawn by the posterior itself."""
    if post is None:
        return None
    figure = figure_of(cast("Any", post).plot_ppc())
    caption = (
        "The observed responses (black) against responses simulated from the posterior (blue): where the two part, the "
        "model misses something."
    )
    return Section(
        "Posterior predictive check", figure_html(figure, "Observed responses against simulated ones", caption)
    )


def _diagnostics_section(post: Fit | None) -> Section | None:
    if post is None:
        return None
    from bayeslmm.report.plots import traces

    draws = _slowest(parameter_draws(post))
    kept = "" if len(draws) < MOST_TRACES else f" The {MOST_TRACES} parameters with the fewest effective draws."
    caption = f"Draws in order, one colour per chain: the chains should look alike and wander nowhere.{kept}"
    body = str(cast("Any", post).diagnostics()._repr_html_())
    return Section("Sampler", body + figure_html(figure_of(traces(draws)), "Draws of each chain in order", caption))


def _slowest(draws: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Return at most `MOST_TRACES` parameters, those with the fewest effective draws, in their order."""
    from arviz_stats.base import array_stats

    moving = {name: values for name, values in draws.items() if values.std() > 0}
    ess = {name: float(array_stats.ess(values, chain_axis=0, draw_axis=1)) for name, values in moving.items()}
    chosen = set(sorted(ess, key=ess.__getitem__)[:MOST_TRACES])
    return {name: values for name, values in moving.items() if name in chosen}


def _group_section(result: Fit) -> Section | None:
    from matplotlib.figure import Figure

    from bayeslmm.report.plots import caterpillar

    ranef = result.ranef
    panels = [(factor, str(effect)) for factor, frame in ranef.items() for effect in frame.columns]
    if not panels:
        return None
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = min(max(2.4, 0.13 * max(len(frame) for frame in ranef.values()) + 0.8), 7.5)
    figure = Figure(figsize=(4.7 * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (factor, effect) in zip(axes, panels, strict=False):
        caterpillar(ranef, factor, effect, ax=ax)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    kind = "Conditional modes" if result.engine in ("REML", "ML", "Laplace") else "Posterior means"
    caption = f"{kind} with 95 % intervals ({result.engine}); in grey those whose interval holds zero."
    return Section("Group effects", figure_html(figure, "Group effects with intervals", caption))


def _code_section(code: str) -> Section | None:
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    body = f"<pre>{html.escape(code.strip())}</pre>" if code else ""
    return Section("Reproduce", f"{body}<p>{html.escape(versions)}; Python {platform.python_version()}.</p>")


def _footer() -> str:
    return (
        f"<footer>Written by bayeslmm on {date.today().isoformat()}. This file loads nothing from elsewhere.</footer>"
    )


# --- pieces --------------------------------------------------------------------------------------------------------


def package_versions() -> dict[str, str]:
    """Return the versions of bayeslmm and of the packages that matter, without importing them.

    Returns
    -------
    dict of str to str
        Installed ones only.

    Examples
    --------
    >>> "numpy" in package_versions()
    True
    """
    versions = {"bayeslmm": bayeslmm.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def figure_html(figure: Figure, alternative: str, caption: str = "") -> str:
    """Return a figure as an image inside the page.

    Parameters
    ----------
    figure : matplotlib Figure
        The figure.
    alternative : str
        What a screen reader says.
    caption : str, default ""
        Stands below.

    Returns
    -------
    str
        A ``<figure>`` element that holds the image itself.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    image_bytes = buffer.getvalue()
    width = round(int.from_bytes(image_bytes[16:20], "big") * SCREEN_DPI / DPI)
    data = base64.b64encode(image_bytes).decode("ascii")
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    image = f'<img alt="{html.escape(alternative)}" width="{width}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}{below}</figure>"


def figure_of(plot: PlotCollection) -> Figure:
    """Return the matplotlib figure of an ArviZ plot, taken out of pyplot so that notebooks do not show it twice.

    Parameters
    ----------
    plot : PlotCollection
        What a plot function of ArviZ returned.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    import matplotlib.pyplot as plt

    figure: Figure = plot.viz["figure"].item()
    plt.close(figure)
    return figure


def _as_html(thing: Any) -> str:
    return str(thing._repr_html_())


def _wide(body: str) -> str:
    return f'<div class="wide">{body}</div>'
