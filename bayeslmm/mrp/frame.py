"""The population as cells with counts: `PoststratFrame`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayeslmm.errors import DataError, listing
from bayeslmm.mrp.checking import FrameCheck, check_frame
from bayeslmm.mrp.raking import Raking, as_margins, check_margins, rake_cells
from bayeslmm.mrp.reading import read_frame, require_column
from bayeslmm.mrp.recoding import GroupPredictors, Recoding, Rule, recode
from bayeslmm.report.tables import Table

TOLERANCE, MAX_ROUNDS = 1e-10, 1000
COUNTED = "n"


@dataclass(frozen=True, repr=False, eq=False)
class PoststratFrame:
    """The population: one row per kind of person (a cell), with how many people it stands for.

    Parameters
    ----------
    data : data frame, mapping, str or Path
        Cells: pandas, polars, pyarrow, a DuckDB relation, an Ibis table, a mapping, or the path of a Parquet file.
    counts : str, default "n"
        Column of counts: people, or weights that are proportional to people.
    history : tuple
        Reports of what was done to the frame: recodings, rakings, joins.

    Raises
    ------
    DataError
        If the counts are negative, missing, all zero or not numbers, or a column is not there.

    Examples
    --------
    >>> frame = PoststratFrame({"state": ["CA", "CA", "TX"], "age": ["young", "old", "old"], "n": [30, 50, 20]})
    >>> frame
    PoststratFrame: 3 cells of state, age; counts 'n' add up to 100
    >>> frame.by("state").data.to_dict("list")
    {'state': ['CA', 'TX'], 'n': [80, 20]}
    """

    data: pd.DataFrame
    counts: str = COUNTED
    history: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        data = read_frame(self.data)
        require_column(self.counts, data.columns)
        _check_counts(data[self.counts])
        object.__setattr__(self, "data", data)

    # --- other ways in -------------------------------------------------------------------------------------------

    @classmethod
    def from_microdata(
        cls, people: Any, cells: Sequence[str], *, weights: str | None = None, counts: str = COUNTED
    ) -> PoststratFrame:
        """Count persons, or sum their weights, into cells.

        Parameters
        ----------
        people : data frame, str or Path
            One row per person, or finer cells with their counts. A lazy frame or a database table is summed where it
            is, and only the cells are loaded.
        cells : sequence of str
            Columns that make the cells.
        weights : str, optional
            Person weights, or counts of finer cells; each row counts once when absent.
        counts : str, default "n"
            Name of the new column of counts.

        Returns
        -------
        PoststratFrame
            Only combinations that occur.

        Examples
        --------
        >>> people = {"sex": ["f", "m", "f"], "weight": [10.0, 12.0, 8.0]}
        >>> PoststratFrame.from_microdata(people, ["sex"], weights="weight").data.to_dict("list")
        {'sex': ['f', 'm'], 'n': [18.0, 12.0]}
        """
        data = read_frame(people, cells=list(cells), total=weights)
        return cls(data.rename(columns={weights or COUNTED: counts}), counts)

    @classmethod
    def from_margins(
        cls,
        margins: Any,
        *,
        seed: Any = None,
        counts: str = COUNTED,
        total: float | None = None,
        tolerance: float = TOLERANCE,
        max_rounds: int = MAX_ROUNDS,
    ) -> PoststratFrame:
        """Make cells whose counts add up to known margins, by iterative proportional fitting (raking).

        Parameters
        ----------
        margins : mapping or sequence
            ``{"sex": {"f": 51, "m": 49}, ...}``, or a sequence of tables, each with one or more variables and a column
            of totals named as `counts`.
        seed : data frame, optional
            Cells whose counts carry the association between variables, a survey or an older census; what is zero or
            absent stays zero (a structural zero). Without it variables are independent given the margins.
        counts : str, default "n"
            Name of the column of counts, in tables and in the frame.
        total : float, optional
            Scale every margin to this sum; for margins given as shares.
        tolerance : float, default 1e-10
            Largest gap to a known total, as a share of the whole.
        max_rounds : int, default 1000
            Rounds before giving up with a `ConvergenceWarning`.

        Returns
        -------
        PoststratFrame
            Its `history` holds the report.

        Raises
        ------
        DataError
            If margins contradict each other or name levels that the seed lacks.

        Examples
        --------
        >>> frame = PoststratFrame.from_margins({"sex": {"f": 60, "m": 40}, "age": {"old": 30, "young": 70}})
        >>> frame.weights.round(6).tolist()
        [18.0, 42.0, 12.0, 28.0]

        References
        ----------
        Deming & Stephan (1940), *Ann. Math. Stat.* 11, 427-444.
        """
        known = as_margins(margins, counts, total)
        check_margins(known)
        if seed is None:
            levels: dict[str, dict[Any, None]] = {}
            for margin in known:
                for name in margin.variables:
                    levels.setdefault(name, {}).update(dict.fromkeys(margin.totals.index.get_level_values(name)))
            crossed = pd.MultiIndex.from_product([list(values) for values in levels.values()], names=list(levels))
            cells = crossed.to_frame(index=False).assign(**{counts: 1.0})
            start = cls(cells, counts)
        else:
            names = list(dict.fromkeys(name for margin in known for name in margin.variables))
            start = seed if isinstance(seed, PoststratFrame) else cls(seed, counts)
            for name in names:
                require_column(name, start.data.columns)
        return start.rake_to(known, tolerance=tolerance, max_rounds=max_rounds)

    # --- what is in it -------------------------------------------------------------------------------------------

    @property
    def covariates(self) -> tuple[str, ...]:
        """Columns other than the counts."""
        return tuple(str(name) for name in self.data.columns if name != self.counts)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Counts (n,)."""
        return self.data[self.counts].to_numpy(dtype=np.float64)

    @property
    def total(self) -> float:
        """Sum of the counts."""
        return float(self.weights.sum())

    def __len__(self) -> int:
        return len(self.data)

    def describe(self) -> Table:
        """Return what the frame holds, one row per covariate.

        Returns
        -------
        Table
            Kind, number of levels, the most and the least frequent level with its share, cells with missing values.

        Examples
        --------
        >>> print(PoststratFrame({"sex": ["f", "m"], "n": [51, 49]}).describe())
        PoststratFrame: 2 cells of sex; counts 'n' add up to 100
              kind levels most frequent least frequent missing cells
        sex   text      2  f (51.0 %)     m (49.0 %)             0
        """
        rows = {name: _describe_column(self.data[name], self.weights) for name in self.covariates}
        columns = ["kind", "levels", "most frequent", "least frequent", "missing cells"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return Table(table, title=str(self), notes=tuple(str(report) for report in self.history))

    def check(self, model: Any, *, exclude: Sequence[str] = ()) -> FrameCheck:
        """Say before fitting what differs between the frame and the data of a model.

        Columns that are missing, categories spelt differently, levels that the survey never saw and respondents
        outside the frame, cells with missing covariates, numbers outside the survey's range, and group-level
        predictors that do not have the same value on both sides.

        Parameters
        ----------
        model : Model, Fit or Design
            What was built from the survey.
        exclude : sequence of str
            Grouping factors that will not count in `poststratify`, such as the poll a respondent was in.

        Returns
        -------
        FrameCheck
            Prints; `.ok` when there is neither an error nor a warning.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> design = blm.build_design("y ~ (1 | state)", {"y": [1, 2, 3, 4], "state": ["CA", "CA", "Texas", "Texas"]})
        >>> frame = PoststratFrame({"state": ["CA", "texas"], "n": [39, 30]})
        >>> frame.check(design).findings[1].message
        "'texas' in the frame looks like 'Texas' in the survey: recode one of them."
        """
        return check_frame(self, model, exclude)

    # --- changes, each of which returns a new frame --------------------------------------------------------------

    def _with(self, data: pd.DataFrame, report: Any = None) -> PoststratFrame:
        history = self.history if report is None else (*self.history, report)
        return replace(self, data=data, history=history)

    def by(self, *columns: str) -> PoststratFrame:
        """Collapse cells that agree in some columns.

        Parameters
        ----------
        *columns : str
            What to keep; counts are summed over the rest.

        Returns
        -------
        PoststratFrame
            Only combinations that occur.
        """
        for name in columns:
            require_column(name, self.covariates)
        if not columns:
            raise DataError("frame.by needs at least one column to keep.")
        summed = self.data.groupby(list(columns), observed=True, sort=True, dropna=False)[self.counts].sum()
        return self._with(summed.reset_index())

    def cross(self, other: PoststratFrame, on: Sequence[str] = ()) -> PoststratFrame:
        """Split every cell by another frame's cells, in their proportions: independence given `on`.

        Parameters
        ----------
        other : PoststratFrame
            Holds the variables to add, for example education by age.
        on : sequence of str
            Variables both frames have; the split follows the other frame's proportions within them.

        Returns
        -------
        PoststratFrame
            The first frame's total and margins are kept.

        Raises
        ------
        DataError
            If a variable of `on` is missing, other variables overlap, or a level of this frame is not in the other.

        Examples
        --------
        >>> states = PoststratFrame({"state": ["CA", "TX"], "n": [80, 20]})
        >>> sexes = PoststratFrame({"sex": ["f", "m"], "n": [3, 1]})
        >>> states.cross(sexes).weights.tolist()
        [60.0, 20.0, 15.0, 5.0]
        """
        on = list(on)
        for name in on:
            require_column(name, self.covariates)
            require_column(name, other.covariates)
        twice = [name for name in other.covariates if name in self.covariates and name not in on]
        if twice:
            raise DataError(
                f"both frames have {listing(map(repr, twice))}; name them in on=, or drop one with frame.by."
            )
        split = other.by(*other.covariates).data.rename(columns={other.counts: "_split"})
        whole = split.groupby(on, observed=True)["_split"].transform("sum") if on else split["_split"].sum()
        split["_split"] = split["_split"] / whole
        joined = self.data.merge(split, on=on, how="left") if on else self.data.merge(split, how="cross")
        lost = joined["_split"].isna()
        if lost.any():
            raise DataError(
                f"{int(lost.sum())} cells have a level of {listing(map(repr, on))} that the other frame lacks: "
                f"{listing(map(repr, joined.loc[lost, on].drop_duplicates().itertuples(index=False, name=None)))}."
            )
        joined[self.counts] = joined[self.counts] * joined.pop("_split")
        return self._with(joined[[*self.covariates, *(n for n in other.covariates if n not in on), self.counts]])

    def filter(self, where: Mapping[str, Any] | ArrayLike) -> PoststratFrame:
        """Keep a sub-population.

        Parameters
        ----------
        where : mapping or array_like (n,) of bool
            ``{"age": ["18-29", "30-44"], "sex": "f"}``: columns with the value or values to keep; or one truth value
            per cell.

        Returns
        -------
        PoststratFrame
            The cells that qualify.

        Raises
        ------
        DataError
            If a column or value is not there, or no cell is left.

        Examples
        --------
        >>> frame = PoststratFrame({"sex": ["f", "m"], "n": [51, 49]})
        >>> frame.filter({"sex": "f"}).total
        51.0
        """
        kept = self.kept(where)
        if not kept.any():
            raise DataError(f"no cell is left by {where!r}." if isinstance(where, Mapping) else "no cell is left.")
        return self._with(self.data.loc[kept])

    def kept(self, where: Mapping[str, Any] | ArrayLike) -> NDArray[np.bool_]:
        """Return which cells a filter keeps.

        Parameters
        ----------
        where : mapping or array_like (n,) of bool
            As in `filter`.

        Returns
        -------
        ndarray (n,) of bool
            One truth value per cell.
        """
        if not isinstance(where, Mapping):
            kept = np.asarray(where)
            if kept.dtype != bool or kept.shape != (len(self),):
                raise DataError(f"a filter needs one truth value per cell, {len(self):,} of them.")
            return kept
        kept = np.ones(len(self), dtype=bool)
        for name, wanted in where.items():
            require_column(name, self.covariates)
            values = [wanted] if isinstance(wanted, str) or not np.iterable(wanted) else list(wanted)
            there = self.data[name].unique()
            for value in values:
                if value not in there:
                    raise DataError(f"no cell has {name!r} equal to {value!r}.\n  Values: {listing(map(repr, there))}.")
            kept &= self.data[name].isin(values).to_numpy()
        return kept

    def with_counts(self, counts: str | ArrayLike) -> PoststratFrame:
        """Change who is counted: adults, registered, or likely voters.

        Parameters
        ----------
        counts : str or array_like (n,)
            Another column of the frame, or one new count per cell. The old counts are left out.

        Returns
        -------
        PoststratFrame
            The same cells with other counts.

        Examples
        --------
        >>> frame = PoststratFrame({"age": ["young", "old"], "n": [40, 60], "turnout": [0.4, 0.7]})
        >>> frame.with_counts(frame.data["n"] * frame.data["turnout"]).weights.tolist()
        [16.0, 42.0]
        """
        data = self.data.drop(columns=self.counts)
        if isinstance(counts, str):
            require_column(counts, self.data.columns)
            return replace(self, data=data if counts != self.counts else self.data, counts=counts)
        values = np.asarray(counts, dtype=float)
        if values.shape != (len(self),):
            raise DataError(f"with_counts got {values.shape} values for {len(self):,} cells.")
        return self._with(data.assign(**{self.counts: values}))

    def rake_to(
        self,
        margins: Any,
        *,
        total: float | None = None,
        tolerance: float = TOLERANCE,
        max_rounds: int = MAX_ROUNDS,
    ) -> PoststratFrame:
        """Adjust the counts to known margins, changing the association between variables as little as possible.

        Parameters
        ----------
        margins : mapping or sequence
            As in `from_margins`.
        total : float, optional
            Scale every margin to this sum.
        tolerance : float, default 1e-10
            Largest gap to a known total, as a share of the whole.
        max_rounds : int, default 1000
            Rounds before giving up with a `ConvergenceWarning`.

        Returns
        -------
        PoststratFrame
            Its `history` ends with the report.

        Raises
        ------
        DataError
            If margins contradict each other, or differ from the frame in their levels.

        Examples
        --------
        >>> frame = PoststratFrame({"sex": ["f", "m"], "n": [50, 50]}).rake_to({"sex": {"f": 0.6, "m": 0.4}}, total=200)
        >>> frame.weights.tolist()
        [120.0, 80.0]
        """
        known = as_margins(margins, self.counts, total)
        counts, report = rake_cells(self.data, self.weights, known, tolerance=tolerance, max_rounds=max_rounds)
        return self._with(self.data.assign(**{self.counts: counts}), report)

    @property
    def raking(self) -> Raking | None:
        """The last raking report, if there was one."""
        reports = [report for report in self.history if isinstance(report, Raking)]
        return reports[-1] if reports else None

    def recode(self, rules: Mapping[str, Rule]) -> PoststratFrame:
        """Rename or merge categories; cells that become equal are summed.

        Parameters
        ----------
        rules : mapping of str to (mapping or callable)
            As in `bayeslmm.recode`.

        Returns
        -------
        PoststratFrame
            Its `history` ends with the audit.

        Examples
        --------
        >>> frame = PoststratFrame({"educ": ["HS", "AA", "BA"], "n": [40, 10, 50]})
        >>> frame.recode({"educ": {"AA": "HS"}}).data.to_dict("list")
        {'educ': ['BA', 'HS'], 'n': [50, 50]}
        """
        for name in rules:
            require_column(name, self.covariates)
        recoded: Recoding = recode(self.data, rules)
        return self._with(recoded.data, recoded).by(*self.covariates)

    def join(self, predictors: GroupPredictors) -> PoststratFrame:
        """Add group-level predictors, the same values that the survey gets from the same object.

        Parameters
        ----------
        predictors : GroupPredictors
            From `bayeslmm.group_predictors`.

        Returns
        -------
        PoststratFrame
            With more columns.
        """
        return self._with(predictors.join(self.data), predictors)

    def __str__(self) -> str:
        return (
            f"PoststratFrame: {len(self):,} cell{'s' * (len(self) != 1)} of {listing(self.covariates)}; "
            f"counts {self.counts!r} add up to {self.total:,.10g}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.describe().to_html()


def _check_counts(counts: pd.Series) -> None:
    name = counts.name
    if not pd.api.types.is_numeric_dtype(counts.dtype) or pd.api.types.is_bool_dtype(counts.dtype):
        raise DataError(f"the counts {name!r} are not numbers.")
    values = counts.to_numpy(dtype=float, na_value=np.nan)
    for bad, what in ((~np.isfinite(values), "missing or infinite"), (values < 0, "negative")):
        if bad.any():
            where, several = listing(map(str, np.flatnonzero(bad).tolist()), 5), "s" * (int(bad.sum()) != 1)
            raise DataError(
                f"the counts {name!r} are {what} in {int(bad.sum()):,} cell{several} (row{several} {where}, from 0).\n"
                "  A count says how many people a cell stands for: leave out cells without any, or write 0."
            )
    if not values.sum() > 0:
        raise DataError(f"the counts {name!r} are all zero." if len(values) else "the frame has no cells.")


def _describe_column(column: pd.Series, weights: NDArray[np.float64]) -> tuple[str, int, str, str, int]:
    number = pd.api.types.is_numeric_dtype(column.dtype) and column.nunique() > 12
    kind = "number" if pd.api.types.is_numeric_dtype(column.dtype) else "text"
    missing = int(column.isna().sum())
    if number:
        values = column.to_numpy(dtype=float, na_value=np.nan)
        return (
            kind,
            int(column.nunique()),
            f"{np.nanmin(values):.6g} (smallest)",
            f"{np.nanmax(values):.6g} (largest)",
            missing,
        )
    shares = pd.Series(weights).groupby(column.to_numpy(), observed=True).sum().sort_values(ascending=False)
    shares = 100 * shares / shares.sum()
    most, least = (f"{shares.index[i]} ({shares.iloc[i]:.1f} %)" for i in (0, -1))
    return kind, len(shares), most, least, missing
