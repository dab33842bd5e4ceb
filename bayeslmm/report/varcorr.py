"""Standard deviations and correlations of group effects, and how they print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.report.grid import STYLE, Grid
from bayeslmm.report.numbers import correlation_texts, format_numbers


@dataclass(frozen=True)
class VarCorrEntry:
    """Standard deviations and correlations of the effects of one random term.

    Parameters
    ----------
    factor : str
        Grouping factor.
    effects : tuple of str
        Names of the k effects.
    sd : ndarray (k,)
        Standard deviations, in units of the linear predictor.
    corr : ndarray (k, k) or None
        Correlations; None where the term has none.

    Examples
    --------
    >>> VarCorrEntry("class", ("Intercept",), np.array([2.0]), None).variance
    array([4.])
    """

    factor: str
    effects: tuple[str, ...]
    sd: NDArray[np.float64]
    corr: NDArray[np.float64] | None = None

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variances (k,)."""
        return np.square(self.sd)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance matrix (k, k)."""
        corr = np.eye(len(self.sd)) if self.corr is None else self.corr
        return corr * np.outer(self.sd, self.sd)


@dataclass(frozen=True, repr=False)
class VarCorr:
    """Variance parameters of a model, printed as lme4 users know them.

    Parameters
    ----------
    entries : tuple of VarCorrEntry
        One per random term.
    residual : float or None
        Residual standard deviation; None for families without a scale.
    strata : tuple of (str, float)
        Levels with a residual standard deviation of their own; empty when all rows share one.
    rho : float or None
        Correlation of residuals within a group.

    Examples
    --------
    >>> corr = np.array([[1, 0.066], [0.066, 1]])
    >>> days = VarCorrEntry("Subject", ("Intercept", "Days"), np.array([24.74, 5.922]), corr)
    >>> print(VarCorr((days,), 25.59))
     Groups   Name      Variance Std.Dev. Corr
     Subject  Intercept 612.07   24.740
              Days       35.07    5.922   0.07
     Residual           654.85   25.590
    """

    entries: tuple[VarCorrEntry, ...]
    residual: float | None = None
    strata: tuple[tuple[str, float], ...] = ()
    rho: float | None = None

    @property
    def residual_rows(self) -> tuple[tuple[str, float], ...]:
        """Label and standard deviation of each line about the residuals."""
        if self.strata:
            return self.strata
        return () if self.residual is None else (("", float(self.residual)),)

    def __getitem__(self, factor: str) -> pd.DataFrame:
        """Return the covariance matrix of all effects of a factor, labelled."""
        entries = [entry for entry in self.entries if entry.factor == factor]
        if not entries:
            names = tuple(dict.fromkeys(entry.factor for entry in self.entries))
            hint = did_you_mean(factor, names)
            raise DataError(
                f"there is no grouping factor {factor!r}.\n  Grouping factors: {listing(names)}. {hint}".rstrip()
            )
        effects = [effect for entry in entries for effect in entry.effects]
        covariance = np.zeros((len(effects), len(effects)))
        start = 0
        for entry in entries:
            stop = start + len(entry.effects)
            covariance[start:stop, start:stop] = entry.covariance
            start = stop
        return pd.DataFrame(covariance, index=effects, columns=effects)

    def __iter__(self) -> Iterator[VarCorrEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per variance and per covariance, with the columns of lme4's data frame.

        Returns
        -------
        DataFrame
            Columns `grp`, `var1`, `var2` (None for a variance), `vcov` (variance or covariance) and `sdcor`
            (standard deviation or correlation); the residual comes last.
        """
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for entry in self.entries:
            rows.extend(
                (entry.factor, effect, None, float(sd**2), float(sd))
                for effect, sd in zip(entry.effects, entry.sd, strict=True)
            )
            rows.extend(_covariance_rows(entry))
        rows.extend(("Residual", label or None, None, float(sd**2), float(sd)) for label, sd in self.residual_rows)
        if self.rho is not None:
            rows.append(("Residual", "rho", "rho", float("nan"), float(self.rho)))
        return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])

    def grid(self, digits: int = 4) -> Grid:
        """Return the cells of lme4's table.

        Parameters
        ----------
        digits : int, default 4
            Significant digits of the smallest variance and of the smallest SD.

        Returns
        -------
        Grid
            Columns Groups, Name, Variance, Std.Dev. and, if there are correlations, Corr.
        """
        names = [
            (entry.factor if k == 0 else "", effect) for entry in self.entries for k, effect in enumerate(entry.effects)
        ]
        sds = [float(sd) for entry in self.entries for sd in entry.sd]
        triangle = [row for entry in self.entries for row in _triangle(entry, max(digits - 2, 2))]
        for k, (label, sd) in enumerate(self.residual_rows):
            names.append(("Residual" if k == 0 else "", label))
            sds.append(sd)
            triangle.append([] if self.rho is None or k else [f"{self.rho:.{max(digits - 2, 2)}f}"])
        width = max(map(len, triangle), default=0)
        variances = format_numbers([sd**2 for sd in sds], digits)
        rows = tuple(
            (*name, variance, sd, *cells, *[""] * (width - len(cells)))
            for name, variance, sd, cells in zip(names, variances, format_numbers(sds, digits), triangle, strict=True)
        )
        header = ("Groups", "Name", "Variance", "Std.Dev.", *(["Corr", *[""] * (width - 1)] if width else []))
        return Grid(header, rows, "lldd" + "r" * width)

    def to_html(self) -> str:
        """Return the table as an HTML fragment that brings its own style.

        Returns
        -------
        str
            A ``<style>`` and a ``<table>`` element.
        """
        return STYLE + self.grid().html("Random effects")

    def to_latex(self, label: str = "") -> str:
        """Return the table in LaTeX's booktabs style.

        Parameters
        ----------
        label : str, default ""
            For a reference from the text.

        Returns
        -------
        str
            A ``tabular`` inside a ``table``.
        """
        return self.grid().latex("Random effects", label)

    def to_markdown(self) -> str:
        """Return the table as a Markdown pipe table.

        Returns
        -------
        str
            The lines.
        """
        return self.grid().markdown()

    def __str__(self) -> str:
        return self.grid().text(indent=" ")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()


def _triangle(entry: VarCorrEntry, decimals: int) -> list[list[str]]:
    if entry.corr is None or len(entry.effects) == 1:
        return [[] for _ in entry.effects]
    return correlation_texts(entry.corr, decimals)


def _covariance_rows(entry: VarCorrEntry) -> Iterator[tuple[str, str, str, float, float]]:
    if entry.corr is None:
        return
    for i in range(len(entry.effects)):
        for j in range(i + 1, len(entry.effects)):
            covariance = float(entry.corr[i, j] * entry.sd[i] * entry.sd[j])
            yield entry.factor, entry.effects[i], entry.effects[j], covariance, float(entry.corr[i, j])
