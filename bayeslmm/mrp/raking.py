"""Iterative proportional fitting: the counts nearest to a seed that add up to known margins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import ConvergenceWarning, DataError, listing, warn
from bayeslmm.mrp.reading import read_frame, require_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

AGREEMENT = 1e-6
SHOWN_ZEROS = 5


@dataclass(frozen=True)
class Margin:
    """Known totals of one variable, or of a crossing of several.

    Parameters
    ----------
    totals : Series
        Indexed by level (one variable) or by combination of levels; the index carries the variables' names.
    """

    totals: pd.Series

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables it is about."""
        return tuple(map(str, self.totals.index.names))

    @property
    def name(self) -> str:
        """Its variables joined by ":", such as state:age."""
        return ":".join(self.variables)

    def over(self, variables: Sequence[str]) -> pd.Series:
        """Return the totals of some of its variables, summed over the others.

        Parameters
        ----------
        variables : sequence of str
            Which to keep.

        Returns
        -------
        Series
            Totals.
        """
        return self.totals.groupby(level=list(variables), sort=True).sum()


@dataclass(frozen=True)
class Raking:
    """What iterative proportional fitting did.

    Parameters
    ----------
    margins : tuple of str
        Names of the margins.
    gaps : tuple of float
        Largest difference between a count and its known total, by margin, as a share of the whole.
    iterations : int
        Rounds over all margins.
    converged : bool
        Whether every gap is within the tolerance.
    zeros : int
        Cells that stay zero because the seed has them zero (structural zeros).
    absent : int
        Combinations of levels of the raked variables that have no cell, and so stay zero too.
    absent_named : tuple of str
        The first of them.

    Examples
    --------
    >>> import numpy as np
    >>> codes = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> counts, report = rake(np.ones(4), [(codes[0], np.array([30.0, 70.0])), (codes[1], np.array([40.0, 60.0]))])
    >>> counts.round(6).tolist(), report.converged
    ([12.0, 18.0, 28.0, 42.0], True)
    """

    margins: tuple[str, ...]
    gaps: tuple[float, ...]
    iterations: int
    converged: bool
    zeros: int
    absent: int = 0
    absent_named: tuple[str, ...] = ()

    def __str__(self) -> str:
        state = "converged" if self.converged else "did not converge"
        lines = [
            f"Raking {state} after {self.iterations} round{'s' * (self.iterations != 1)}; structural zeros: "
            f"{self.zeros:,} cell{'s' * (self.zeros != 1)} of count zero, {self.absent:,} "
            f"combination{'s' * (self.absent != 1)} without a cell."
        ]
        if self.absent:
            more = self.absent - len(self.absent_named)
            named = ", ".join(self.absent_named) + f" and {more:,} more" * (more > 0)
            lines.append(f"  nobody is put where the seed has no cell: {named}")
        lines += [
            f"  {name}: largest gap {gap:.1e} of the total" for name, gap in zip(self.margins, self.gaps, strict=True)
        ]
        return "\n".join(lines)


def rake(
    counts: NDArray[np.float64],
    margins: Sequence[tuple[NDArray[np.intp], NDArray[np.float64]]],
    *,
    names: Sequence[str] = (),
    tolerance: float = 1e-10,
    max_rounds: int = 1000,
) -> tuple[NDArray[np.float64], Raking]:
    """Scale counts until they add up to every margin.

    Parameters
    ----------
    counts : ndarray (n,)
        Where to start: the seed. What is zero stays zero.
    margins : sequence of (codes (n,), totals (L,))
        For every margin the level of each cell, and the known total of each level.
    names : sequence of str, optional
        Names of the margins, for the report.
    tolerance : float, default 1e-10
        Largest gap allowed, as a share of the whole.
    max_rounds : int, default 1000
        Rounds over all margins before giving up.

    Returns
    -------
    counts : ndarray (n,)
        The counts with the known margins whose log differs from the seed's log by a sum of one term per margin.
    report : Raking
        Rounds, gaps, structural zeros.

    References
    ----------
    Deming & Stephan (1940), *Ann. Math. Stat.* 11, 427-444. Csiszár (1975), *Ann. Probab.* 3, 146-158.
    """
    counts = counts.astype(float)
    whole = max(float(margins[0][1].sum()), np.finfo(float).tiny)
    zeros = int(np.count_nonzero(counts == 0))
    gaps = _gaps(counts, margins, whole)
    rounds = 0
    while max(gaps) > tolerance and rounds < max_rounds:
        for codes, totals in margins:
            current = np.bincount(codes, weights=counts, minlength=len(totals))
            counts *= np.divide(totals, current, out=np.zeros_like(totals), where=current > 0)[codes]
        rounds += 1
        gaps = _gaps(counts, margins, whole)
    return counts, Raking(tuple(names), gaps, rounds, max(gaps) <= tolerance, zeros)


def _gaps(
    counts: NDArray[np.float64], margins: Sequence[tuple[NDArray[np.intp], NDArray[np.float64]]], whole: float
) -> tuple[float, ...]:
    return tuple(
        float(np.max(np.abs(np.bincount(codes, weights=counts, minlength=len(totals)) - totals))) / whole
        for codes, totals in margins
    )


def rake_cells(
    data: pd.DataFrame,
    counts: NDArray[np.float64],
    margins: Sequence[Margin],
    *,
    tolerance: float,
    max_rounds: int,
) -> tuple[NDArray[np.float64], Raking]:
    """Rake the cells of a frame to margins, refusing what cannot be met.

    Parameters
    ----------
    data : DataFrame
        The cells' covariates, n rows.
    counts : ndarray (n,)
        Their counts.
    margins : sequence of Margin
        Known totals.
    tolerance, max_rounds : float, int
        See `rake`.

    Returns
    -------
    counts : ndarray (n,)
        Raked.
    report : Raking
        What was done.

    Raises
    ------
    DataError
        If levels differ between cells and margins, a positive total has no cell, or margins contradict each other.
    """
    check_margins(margins)
    coded = [_code_margin(data, counts, margin) for margin in margins]
    names = [margin.name for margin in margins]
    raked, report = rake(counts, coded, names=names, tolerance=tolerance, max_rounds=max_rounds)
    report = _with_absent(report, data, list(dict.fromkeys(name for margin in margins for name in margin.variables)))
    if not report.converged:
        warn(
            f"{report}\n  The margins cannot all hold with these zero cells, or agree in pairs but not together.",
            ConvergenceWarning,
        )
    return raked, report


def _with_absent(report: Raking, data: pd.DataFrame, names: list[str]) -> Raking:
    """Add the combinations of levels that no cell has."""
    levels = [data[name].unique() for name in names]
    size = math.prod(len(values) for values in levels)
    present = data[names].drop_duplicates()
    absent = size - len(present)
    if not absent:
        return report
    there = set(present.itertuples(index=False, name=None))
    lacking = (combination for combination in product(*levels) if combination not in there)
    shown = tuple(" x ".join(map(str, combination)) for combination in islice(lacking, SHOWN_ZEROS))
    return replace(report, absent=absent, absent_named=shown)


def _code_margin(
    data: pd.DataFrame, counts: NDArray[np.float64], margin: Margin
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    for name in margin.variables:
        require_column(name, data.columns)
    keys = pd.MultiIndex.from_frame(data[list(margin.variables)].astype(object))
    index = margin.totals.index
    index = index if isinstance(index, pd.MultiIndex) else pd.MultiIndex.from_arrays([index], names=index.names)
    codes = index.get_indexer(keys)
    outside = codes < 0
    if outside.any():
        lost = [_level(key) for key in keys[outside].unique()]
        raise DataError(
            f"the margin of {margin.name!r} has no total for {len(lost)} level{'s' * (len(lost) != 1)} of the cells: "
            f"{listing(lost)}.\n  Levels of the margin: {listing(_level(key) for key in index)}."
        )
    totals = margin.totals.to_numpy(dtype=float)
    held = np.bincount(codes, weights=counts, minlength=len(totals))
    empty = [_level(key) for key in index[(totals > 0) & (held == 0)]]
    if empty:
        raise DataError(
            f"the margin of {margin.name!r} wants people where there are no cells: {listing(empty)}.\n"
            "  Add such cells to the frame or the seed, or set their totals to zero."
        )
    return codes.astype(np.intp), totals


def _level(key: Any) -> str:
    return repr(key[0]) if len(key) == 1 else repr(tuple(key))


def as_margins(margins: Any, counts: str, total: float | None = None) -> tuple[Margin, ...]:
    """Read margins in any of their forms.

    Parameters
    ----------
    margins : mapping or sequence
        A mapping of a variable to its totals by level, ``{"sex": {"f": 51, "m": 49}}``; or a sequence of tables, each
        with one or more variables and a column of totals named as `counts`; or of Series named by their index.
    counts : str
        Name of the column of totals.
    total : float, optional
        Scale every margin to this sum, for margins given as shares.

    Returns
    -------
    tuple of Margin
        One per margin.

    Raises
    ------
    DataError
        If a margin is empty, negative, missing or names a level twice.

    Examples
    --------
    >>> as_margins({"sex": {"f": 0.51, "m": 0.49}}, "n", total=200)[0].totals.to_dict()
    {'f': 102.0, 'm': 98.0}
    """
    entries = list(margins.items()) if isinstance(margins, Mapping) else [(None, entry) for entry in margins]
    if not entries:
        raise DataError("there are no margins to rake to.")
    read = tuple(_as_margin(name, entry, counts) for name, entry in entries)
    return read if total is None else tuple(Margin(m.totals * (total / m.totals.sum())) for m in read)


def _as_margin(name: str | None, entry: Any, counts: str) -> Margin:
    if isinstance(entry, Margin):
        totals = entry.totals
    elif name is not None:
        totals = entry if isinstance(entry, pd.Series) else pd.Series(dict(entry))
        totals = totals.rename_axis(name)
    elif isinstance(entry, pd.Series):
        totals = entry
    else:
        table = read_frame(entry)
        require_column(counts, table.columns)
        variables = [column for column in table.columns if column != counts]
        totals = table.set_index(variables)[counts] if variables else pd.Series(dtype=float)
    names = list(totals.index.names)
    if len(totals) == 0 or any(entry is None for entry in names):
        raise DataError("a margin needs at least one named variable and one total.")
    label = ":".join(map(str, names))
    values = pd.to_numeric(totals, errors="coerce").astype(float)
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise DataError(f"the margin of {label!r} has missing, negative or only zero totals.")
    if not totals.index.is_unique:
        twice = totals.index[totals.index.duplicated()].unique()
        raise DataError(f"the margin of {label!r} has more than one total for {listing(map(repr, twice))}.")
    index = totals.index
    if isinstance(index, pd.MultiIndex):
        index = pd.MultiIndex.from_frame(index.to_frame(index=False).astype(object))
    return Margin(
        pd.Series(values.to_numpy(), index=index if isinstance(index, pd.MultiIndex) else index.astype(object))
    )


def check_margins(margins: Sequence[Margin]) -> None:
    """Refuse margins that contradict each other.

    Parameters
    ----------
    margins : sequence of Margin
        Known totals.

    Raises
    ------
    DataError
        If two margins differ in their sum, or in what they say of the variables they share.

    Examples
    --------
    >>> check_margins(as_margins({"sex": {"f": 51, "m": 49}, "age": {"young": 30, "old": 70}}, "n"))
    """
    for a, b in combinations(margins, 2):
        sums = float(a.totals.sum()), float(b.totals.sum())
        if abs(sums[0] - sums[1]) > AGREEMENT * max(sums):
            raise DataError(
                f"the margins contradict each other: {a.name!r} adds up to {sums[0]:,.6g}, {b.name!r} to "
                f"{sums[1]:,.6g}.\n  If they are shares, or differ by rounding, total=... scales all to one sum."
            )
        shared = [name for name in a.variables if name in b.variables]
        if shared:
            both = pd.concat([a.over(shared), b.over(shared)], axis=1, keys=[0, 1]).fillna(0.0)
            gap = (both[0] - both[1]).abs()
            if gap.max() > AGREEMENT * max(sums):
                at = int(np.argmax(gap.to_numpy()))
                raise DataError(
                    f"the margins {a.name!r} and {b.name!r} contradict each other on {':'.join(shared)!r}: for "
                    f"{both.index[at]!r} one adds up to {both[0].iloc[at]:,.6g}, the other to {both[1].iloc[at]:,.6g}."
                )
