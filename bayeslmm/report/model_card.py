"""What a model says of itself before it is estimated."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from bayeslmm.report.tables import Table

if TYPE_CHECKING:
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design


class Printable(Protocol):
    """What prints as text and as HTML."""

    def _repr_html_(self) -> str: ...


class Describable(Protocol):
    """What a model has to offer to be described."""

    @property
    def design(self) -> Design:
        """The formula met by data."""

    @property
    def family(self) -> Family:
        """Response family with its link."""

    @property
    def priors(self) -> Printable:
        """Priors in effect; prints as a table."""

    @property
    def storage(self) -> tuple[str, ...]:
        """How each block of the likelihood kernel is stored, a line each."""


def groups_table(design: Design) -> Table:
    """Return levels, effects and group sizes of each grouping factor.

    Parameters
    ----------
    design : Design
        The design.

    Returns
    -------
    Table
        One row per grouping factor.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> groups_table(design).frame.loc["Subject", "levels"]
    np.int64(18)
    """
    rows = {}
    for factor in design.factors:
        sizes = design.sizes(factor.name)
        rows[factor.name] = {
            "effects": ", ".join(effect for i in factor.term_indices for effect in design.terms[i].shown_effects),
            "levels": len(sizes),
            "smallest": int(sizes.min()),
            "average": round(float(sizes.mean()), 1),
            "largest": int(sizes.max()),
        }
    return Table(pd.DataFrame.from_dict(rows, orient="index"), title="Groups (rows per level)")


def row_sentence(design: Design) -> str:
    """Return how many rows are used, and why others are not.

    Parameters
    ----------
    design : Design
        The design.

    Returns
    -------
    str
        One sentence.
    """
    used = len(design.rows)
    if used == design.n_total:
        return f"{used:,} rows"
    parts = ", ".join(f"{name}: {count:,}" for name, count in design.missing.items())
    return f"{used:,} of {design.n_total:,} rows; {design.n_total - used:,} left out for missing values ({parts})"


def _lines(model: Describable) -> Iterable[str]:
    design = model.design
    yield f"{model.family}: {design.formula.text}"
    yield row_sentence(design)
    yield f"coefficients: {', '.join(design.coef_names) or 'none'}"
    if design.residuals is not None:
        yield design.residuals.describe()
    if design.survey_weights is not None:
        low, high = design.survey_weights.min(), design.survey_weights.max()
        yield f"pseudo-likelihood: survey weights of {low:.3g} to {high:.3g} (mean 1) as powers of the rows' densities"
    if design.dropped_columns:
        yield f"left out, because others determine them: {', '.join(design.dropped_columns)}"


def model_text(model: Describable) -> str:
    """Return formula, rows, groups, priors and storage as text.

    Parameters
    ----------
    model : Model
        The model.

    Returns
    -------
    str
        Several lines.
    """
    parts = ["\n".join(_lines(model)), groups_table(model.design).to_text(), str(model.priors)]
    if model.storage:
        parts.append("Storage\n" + "\n".join(f"  {line}" for line in model.storage))
    return "\n\n".join(parts)


def model_html(model: Describable) -> str:
    """Return formula, rows, groups, priors and storage as HTML.

    Parameters
    ----------
    model : Model
        The model.

    Returns
    -------
    str
        A fragment.
    """
    first, *rest = _lines(model)
    lines = [f"<p><code>{html.escape(first)}</code><br>{'<br>'.join(map(html.escape, rest))}</p>"]
    lines.append(groups_table(model.design).to_html())
    lines.append(model.priors._repr_html_())
    if model.storage:
        lines.append(f"<p>Storage: {'; '.join(map(html.escape, model.storage))}</p>")
    return "\n".join(lines)
