"""The residuals of a Gaussian model beyond one common variance: an SD for each level, autoregression, exchangeability.

`by` is nlme's ``weights = varIdent(form = ~ 1 | g)``; `ar1` and `exchangeable` are its ``correlation = corAR1()`` and
``corCompSymm()``, and Stata's ``residuals(ar 1, t())`` and ``residuals(exchangeable)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.formula.grouping import Codes, factorise, match

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Residuals", "ar1", "by", "exchangeable"]

Kind = Literal["independent", "ar1", "exchangeable"]
WHOLE = 1e-6


@dataclass(frozen=True)
class Residuals:
    """What the residuals of a model look like; made by `by`, `ar1` and `exchangeable`.

    Parameters
    ----------
    kind : {"independent", "ar1", "exchangeable"}
        Correlation within a group.
    group : str, optional
        Column whose levels are independent of each other.
    time : str, optional
        Column of whole numbers that orders the rows of a group.
    by : str, optional
        Column with a residual standard deviation for each level.

    Examples
    --------
    >>> Residuals("ar1", group="id", time="week")
    ar1('week', group='id')
    """

    kind: Kind
    group: str | None = None
    time: str | None = None
    by: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data it needs."""
        return tuple(dict.fromkeys(name for name in (self.by, self.group, self.time) if name is not None))

    def __repr__(self) -> str:
        if self.kind == "independent":
            return f"by({self.by!r})"
        parts = [repr(self.time)] if self.time else []
        parts.append(f"group={self.group!r}")
        parts += [f"by={self.by!r}"] if self.by else []
        return f"{self.kind}({', '.join(parts)})"


def by(column: str) -> Residuals:
    """Give each level of a column a residual standard deviation of its own.

    Parameters
    ----------
    column : str
        Its first level is the reference: `sigma` is its SD, and ``sigma_ratio[level]`` the ratio of another's to it.

    Returns
    -------
    Residuals
        For the argument `residuals` of `bayeslmm.model`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> data = blm.datasets.load("Orthodont")
    >>> fit = blm.lmer("distance ~ age * Sex + (1 | Subject)", data, residuals=blm.residuals.by("Sex"))
    >>> float(round(fit.residual_parameters["sigma_ratio[Female]"], 3))
    0.468
    """
    return Residuals("independent", by=column)


def ar1(time: str | None = None, *, group: str, by: str | None = None) -> Residuals:
    """Let residuals of one group fade away with their distance in time: correlation rho to the power of the distance.

    Parameters
    ----------
    time : str, optional
        Column of whole numbers; the order of the rows when absent. Gaps are honoured.
    group : str
        Column whose levels are independent of each other; nested in every grouping factor of the formula.
    by : str, optional
        Column with a residual standard deviation for each level.

    Returns
    -------
    Residuals
        For the argument `residuals` of `bayeslmm.model`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> data = blm.datasets.load("sleepstudy")
    >>> fit = blm.lmer(
    ...     "Reaction ~ Days + (1 | Subject)", data, residuals=blm.residuals.ar1("Days", group="Subject")
    ... )
    >>> float(round(fit.residual_parameters["rho"], 3))
    0.653
    """
    return Residuals("ar1", group=group, time=time, by=by)


def exchangeable(*, group: str, by: str | None = None) -> Residuals:
    """Give any two residuals of one group the same correlation, which may be negative: compound symmetry.

    Parameters
    ----------
    group : str
        Column whose levels are independent of each other; nested in every grouping factor of the formula.
    by : str, optional
        Column with a residual standard deviation for each level.

    Returns
    -------
    Residuals
        For the argument `residuals` of `bayeslmm.model`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> data = blm.datasets.load("Orthodont")
    >>> fit = blm.lmer("distance ~ age", data, residuals=blm.residuals.exchangeable(group="Subject"))
    >>> float(round(fit.residual_parameters["rho"], 3))
    0.686
    """
    return Residuals("exchangeable", group=group, by=by)


@dataclass(frozen=True, eq=False)
class ResidualStructure:
    """A `Residuals` met by data.

    Parameters
    ----------
    spec : Residuals
        What was asked for.
    strata : ndarray (n,) of int32
        Level of `by` of each row; zeros without one.
    levels : tuple of str
        Levels of `by`, the reference first; empty without one.
    groups : ndarray (n,) of int32
        Group of each row; zeros for independent residuals.
    n_groups : int
        How many groups.
    position : ndarray (n,) of int64
        Time of each row in units of `unit`; the number within the group where no column was named.
    unit : float
        Greatest distance that divides every distance in time within a group.
    """

    spec: Residuals
    strata: Codes = field(repr=False)
    levels: tuple[str, ...]
    groups: Codes = field(repr=False)
    n_groups: int
    position: NDArray[np.int64] = field(repr=False)
    unit: float = 1.0

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.strata)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the parameters it adds: ratios of standard deviations, then the correlation."""
        ratios = tuple(f"sigma_ratio[{level}]" for level in self.levels[1:])
        return (*ratios, "rho") if self.spec.kind != "independent" else ratios

    def describe(self) -> str:
        """Return the structure in a sentence.

        Returns
        -------
        str
            For the card of the model and the notes of a summary.
        """
        spec, parts = self.spec, []
        if spec.by is not None:
            parts.append(f"an SD for each level of {spec.by} (reference {self.levels[0]})")
        if spec.kind == "ar1":
            step = f"{self.unit:g} apart in {spec.time}" if spec.time else "next to each other"
            parts.append(f"AR(1) within {spec.group}; rho is the correlation of two rows {step}")
        if spec.kind == "exchangeable":
            parts.append(f"one correlation rho within {spec.group}")
        return f"Residuals: {'; '.join(parts)}."

    def within(self, other: ResidualStructure | None) -> bool:
        """Return whether this structure is a special case of another one of the same rows.

        Parameters
        ----------
        other : ResidualStructure or None
            Of the larger model.

        Returns
        -------
        bool
            Unequal variances are within the same with a correlation; two correlations are not within each other.
        """
        if other is None:
            return False
        same_by = self.spec.by is None or self.spec.by == other.spec.by
        if self.spec.kind == "independent":
            return same_by
        mine, theirs = self.spec, other.spec
        return same_by and (mine.kind, mine.group, mine.time) == (theirs.kind, theirs.group, theirs.time)

    def take(self, rows: NDArray[np.intp]) -> ResidualStructure:
        """Return the structure of some of the rows.

        Parameters
        ----------
        rows : ndarray of intp
            Positions.

        Returns
        -------
        ResidualStructure
            Levels stay.
        """
        return ResidualStructure(
            self.spec, self.strata[rows], self.levels, self.groups[rows], self.n_groups, self.position[rows], self.unit
        )


def check_columns(spec: Residuals, names: tuple[str, ...]) -> None:
    """Refuse a structure that names a column that is not there.

    Parameters
    ----------
    spec : Residuals
        What was asked for.
    names : tuple of str
        Columns of the data.

    Raises
    ------
    DataError
        With the nearest name.
    """
    if not isinstance(spec, Residuals):
        raise DataError(
            f"residuals={spec!r} is a {type(spec).__name__}, not a residual structure.\n"
            '  Write blm.residuals.by("sex"), blm.residuals.ar1("week", group="id") or '
            'blm.residuals.exchangeable(group="id").'
        )
    for name in spec.columns:
        if name not in names:
            hint = did_you_mean(str(name), names)
            raise DataError(
                f"residuals={spec!r}: there is no column {name!r}.\n  Columns: {listing(names)}. {hint}".rstrip()
            )


def residual_structure(
    spec: Residuals, frame: pd.DataFrame, factors: Mapping[str, Codes], *, fitted: ResidualStructure | None = None
) -> ResidualStructure:
    """Let a residual structure meet data.

    Parameters
    ----------
    spec : Residuals
        What was asked for.
    frame : DataFrame
        Rows without missing values.
    factors : mapping of str to ndarray (n,)
        Level of each row in every grouping factor of the formula.
    fitted : ResidualStructure, optional
        For new data: what the fitted data taught.

    Returns
    -------
    ResidualStructure
        Codes and times.

    Raises
    ------
    DataError
        If a stratum is unknown or alone, times are not whole or not distinct, or the groups are not nested.
    """
    n = len(frame)
    strata: Codes = np.zeros(n, dtype=np.int32)
    levels: tuple[str, ...] = ()
    if spec.by is not None:
        found = factorise(frame[spec.by])
        strata, levels = found.codes, found.labels
        if fitted is None:
            _check_strata(spec, strata, levels)
        else:
            strata, unseen = match(found, fitted.levels)
            levels = fitted.levels
            if unseen:
                raise DataError(
                    f"{spec.by!r} holds {listing(map(repr, unseen))}, which the fitted data did not: "
                    "their residual SD is unknown."
                )
    if spec.kind == "independent":
        return ResidualStructure(spec, strata, levels, np.zeros(n, np.int32), 1, np.arange(n))
    assert spec.group is not None
    groups = factorise(frame[spec.group])
    if fitted is None:
        _check_nested(spec, groups.codes, factors)
        _check_sizes(spec, groups.codes)
    position, unit = _positions(spec, frame, groups.codes, None if fitted is None else fitted.unit)
    return ResidualStructure(spec, strata, levels, groups.codes, len(groups.labels), position, unit)


def _check_strata(spec: Residuals, strata: Codes, levels: tuple[str, ...]) -> None:
    if len(levels) < 2:
        raise DataError(f"residuals={spec!r}: {spec.by!r} has one level, {levels[0]!r}; its SD is sigma already.")
    few = [level for level, count in zip(levels, np.bincount(strata), strict=True) if count < 2]
    if few:
        raise DataError(
            f"residuals={spec!r}: {listing(map(repr, few))} of {spec.by!r} occurs in one row, which does not tell "
            "its SD.\n  Is this a column of numbers rather than of groups?"
        )


def _check_sizes(spec: Residuals, groups: Codes) -> None:
    if np.bincount(groups).max() < 2:
        raise DataError(
            f"residuals={spec!r}: every level of {spec.group!r} has one row, so no two residuals are correlated."
        )


def _check_nested(spec: Residuals, groups: Codes, factors: Mapping[str, Codes]) -> None:
    for name, codes in factors.items():
        first = np.zeros(groups.max() + 1, dtype=codes.dtype)
        first[groups] = codes
        broken = np.flatnonzero(first[groups] != codes)
        if len(broken):
            raise DataError(
                f"residuals={spec!r}: rows of one level of {spec.group!r} lie in several levels of {name!r}.\n"
                f"  Correlated residuals must stay within one level of every grouping factor: let group= be nested "
                f"in {name!r}, or leave that term out."
            )


def _positions(
    spec: Residuals, frame: pd.DataFrame, groups: Codes, unit: float | None
) -> tuple[NDArray[np.int64], float]:
    """Return the time of each row in whole units, and the unit."""
    if spec.time is None:
        order = np.argsort(groups, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(groups))])[:-1]
        position = np.empty(len(groups), dtype=np.int64)
        position[order] = np.arange(len(groups)) - starts[groups[order]]
        return position, 1.0
    try:
        times = np.asarray(frame[spec.time], dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"residuals={spec!r}: {spec.time!r} holds no numbers; AR(1) needs whole numbers of time steps.\n"
            "  Number the occasions 0, 1, 2, ..., or leave time out to use the order of the rows."
        ) from None
    if (np.abs(times - np.round(times)) > WHOLE).any():
        raise DataError(
            f"residuals={spec!r}: {spec.time!r} holds times that are not whole, e.g. "
            f"{times[np.argmax(np.abs(times - np.round(times)) > WHOLE)]:g}.\n"
            "  AR(1) counts in steps: number the occasions, or leave time out to use the order of the rows."
        )
    whole = np.round(times).astype(np.int64)
    order = np.lexsort((whole, groups))
    same = groups[order][1:] == groups[order][:-1]
    gaps = np.diff(whole[order])[same]
    if (gaps == 0).any():
        at = int(order[1:][same][np.argmax(gaps == 0)])
        raise DataError(
            f"residuals={spec!r}: {spec.group!r} = {frame[spec.group].iloc[at]} has two rows at {spec.time!r} = "
            f"{whole[at]}; the times of a group must differ."
        )
    if unit is None:
        unit = float(np.gcd.reduce(gaps)) if len(gaps) else 1.0
    if (gaps % int(unit) != 0).any():
        raise DataError(f"residuals={spec!r}: distances in {spec.time!r} are no multiples of {unit:g}, as in the fit.")
    first = np.full(groups.max(initial=0) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, groups, whole)
    return (whole - first[groups]) // int(unit), unit


def refuse(structure: ResidualStructure | None, what: str, way_out: str, *, correlated_only: bool = False) -> None:
    """Refuse what has not been worked out for a residual structure, before anything is computed.

    Parameters
    ----------
    structure : ResidualStructure or None
        Of the model; None refuses nothing.
    what : str
        What was asked for.
    way_out : str
        What to do instead.
    correlated_only : bool, default False
        Whether unequal variances alone are no hindrance.

    Raises
    ------
    DataError
        With the way out.
    """
    if structure is None or (correlated_only and structure.spec.kind == "independent"):
        return
    raise DataError(f"{what} is not available with residuals={structure.spec!r}.\n  {way_out}")
