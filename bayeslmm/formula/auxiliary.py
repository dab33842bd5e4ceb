"""Formulas of a family's further parameters: `sigma ~ 1 + group` beside the formula of the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bayeslmm.errors import FormulaError
from bayeslmm.formula.design import Design, build_design, take_rows
from bayeslmm.formula.parse import parse_formula


def split_formulas(formulas: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the formula of the mean, and the right-hand sides of the others by parameter.

    Parameters
    ----------
    formulas : sequence of str
        That of the mean first.

    Returns
    -------
    main : str
        The first formula.
    auxiliary : dict of str to str
        Right-hand sides.

    Raises
    ------
    FormulaError
        If a formula names no parameter, or one twice.

    Examples
    --------
    >>> split_formulas(["y ~ x + (1 | g)", "sigma ~ x"])
    ('y ~ x + (1 | g)', {'sigma': 'x'})
    """
    if not formulas or not all(isinstance(text, str) for text in formulas):
        raise FormulaError('several formulas are text: ["y ~ x + (1 | g)", "sigma ~ x"], that of the mean first.')
    main, *others = formulas
    found: dict[str, str] = {}
    for text in others:
        name, tilde, right = text.partition("~")
        name = name.strip()
        if not (tilde and name.isidentifier() and right.strip()):
            raise FormulaError(f'{text!r} is no formula of a parameter.\n  Write for example "sigma ~ x".')
        if name in found:
            raise FormulaError(f"the parameter {name!r} has two formulas.")
        found[name] = right.strip()
    return main, found


def attach_auxiliary(design: Design, data: Any, formulas: Mapping[str, str]) -> Design:
    """Return the design with a design for each further parameter, on the rows that all of them can use.

    Parameters
    ----------
    design : Design
        That of the mean.
    data : data frame
        What it was built from.
    formulas : mapping of str to str
        Right-hand sides by parameter.

    Returns
    -------
    Design
        With `auxiliary`.

    Raises
    ------
    FormulaError
        If a formula holds random terms or cannot be read.
    """
    if not formulas:
        return design
    if design.condensation is not None:
        raise FormulaError("formulas of further parameters need rows in memory.")
    parts = {}
    for name, right in formulas.items():
        formula = parse_formula(f"{design.formula.response} ~ {right}")
        if formula.random:
            raise FormulaError(
                f"the formula of {name!r} has the random term {formula.random[0]}: only that of the mean may."
            )
        part = build_design(replace(formula, text=f"{name} ~ {right}"), data, family=design.encoder.family)
        parts[name] = replace(part, weights=None)
    shared = design.rows
    for part in parts.values():
        shared = np.intersect1d(shared, part.rows)
    kept = take_rows(design, np.flatnonzero(np.isin(design.rows, shared)))
    parts = {name: take_rows(part, np.flatnonzero(np.isin(part.rows, shared))) for name, part in parts.items()}
    frame = kept.data.reset_index(drop=True)
    missing = dict(kept.missing)
    for part in parts.values():
        new = [column for column in part.data if column not in frame]
        frame = frame.join(part.data[new].reset_index(drop=True))
        missing |= part.missing
    return replace(kept, data=frame, missing=missing, auxiliary=parts)
