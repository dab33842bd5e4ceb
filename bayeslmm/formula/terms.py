"""What a formula means: a response, fixed columns, random terms, offsets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bayeslmm.formula.syntax import quote

Covariance = Literal["us", "diag", "cs", "ar1"]
Structure = Literal["rw", "icar"]


@dataclass(frozen=True)
class RandomTerm:
    """Columns whose coefficients vary by the levels of a grouping factor.

    Parameters
    ----------
    columns : str
        What varies, as a right-hand side whose first entry is the intercept rule: ``"1 + IQ"``, ``"0 + IQ"``, ``"1"``.
    group : tuple of str
        Columns that make the grouping factor, inner first: ``("cask", "batch")`` for the inner part of
        ``(1 | batch/cask)``.
    covariance : {"us", "diag", "cs", "ar1"}, default "us"
        Structure of the covariance of the effects of one level: unstructured, diagonal, compound symmetry,
        first-order autoregressive. ``(x || g)`` is diagonal.
    hom : bool, default False
        One variance for all effects instead of one each.
    span : tuple of int
        Place in the text of the formula.
    structure : {"rw", "icar"} or None, default None
        How the levels of the factor are related: a random walk in their order, or smoothing over neighbouring areas.
        The effects are then the coordinates of `bayeslmm.formula.structured`: independent, with one variance.

    Examples
    --------
    >>> term = RandomTerm("1 + Days", ("Subject",))
    >>> term.factor, str(term)
    ('Subject', '(1 + Days | Subject)')
    """

    columns: str
    group: tuple[str, ...]
    covariance: Covariance = "us"
    hom: bool = False
    span: tuple[int, int] = field(default=(0, 0), compare=False)
    structure: Structure | None = None

    @property
    def factor(self) -> str:
        """Name of the grouping factor: ``"class"``, ``"cask:batch"``, ``"rw(age)"``."""
        name = ":".join(self.group)
        return name if self.structure is None else f"{self.structure}({name})"

    def __str__(self) -> str:
        group = ":".join(map(quote, self.group))
        if self.structure is not None:
            return f"{self.structure}({self.columns} | {group})"
        if self.covariance == "us":
            return f"({self.columns} | {group})"
        if self.covariance == "diag" and not self.hom:
            return f"({self.columns} || {group})"
        return f"{self.covariance}({self.columns} | {group}, hom={self.hom})"


@dataclass(frozen=True)
class Formula:
    """A formula, read but not yet met by data.

    Parameters
    ----------
    text : str
        As the user wrote it.
    response : str
        Left-hand side: ``"lang"``, ``"log(y)"``, ``"cbind(k, n - k)"``.
    fixed : str
        Right-hand side without random terms and offsets, the intercept rule first: ``"1 + IQ + SES"``.
    random : tuple of RandomTerm
        In the order written; ``a/b`` and ``a*b`` are already expanded.
    offsets : tuple of str
        Expressions added to the linear predictor with coefficient one.

    Examples
    --------
    >>> from bayeslmm.formula.parse import parse_formula
    >>> formula = parse_formula("y ~ x + (1 | g) + offset(log(n))")
    >>> formula.fixed, formula.offsets
    ('1 + x', ('log(n)',))
    """

    text: str
    response: str
    fixed: str
    random: tuple[RandomTerm, ...] = ()
    offsets: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text
