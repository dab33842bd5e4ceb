"""Survey answers to census categories, with an audit of every mapping and the rows it touches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import pandas as pd

from bayeslmm.errors import DataError, DataWarning, did_you_mean, listing, warn
from bayeslmm.mrp.reading import require_column
from bayeslmm.report.tables import Table

Rule = Mapping[Hashable, Any] | Callable[[Any], Any]
MISSING = "(missing)"


@dataclass(frozen=True, repr=False)
class Recoding:
    """Recoded data with the audit of what was done; prints as the audit.

    Parameters
    ----------
    data : data frame
        Of the library that was given.
    audit : DataFrame
        One row per column and old value: `column`, `from`, `to`, `rows`, `how` ("mapped", "kept", "not found").

    Examples
    --------
    >>> recoded = recode({"educ": ["HS", "Some college", "AA", "AA"]}, {"educ": {"AA": "Some college"}})
    >>> recoded.data["educ"].tolist()
    ['HS', 'Some college', 'Some college', 'Some college']
    >>> recoded.audit[["from", "to", "how"]].iloc[0].tolist()
    ['AA', 'Some college', 'mapped']
    """

    data: Any
    audit: pd.DataFrame

    def table(self) -> Table:
        """Return the audit as a table that prints.

        Returns
        -------
        Table
            One row per old value.
        """
        return Table(self.audit.set_index("column"), title="Recoding")

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().to_html()


def recode(data: Any, rules: Mapping[str, Rule]) -> Recoding:
    """Map the values of some columns, and say what became of each.

    Parameters
    ----------
    data : data frame or mapping
        A survey or a census: pandas, polars or pyarrow.
    rules : mapping of str to (mapping or callable)
        For each column the new value of each old one; what is not named is kept. A function is called with every
        distinct value. A new value of None makes the row missing.

    Returns
    -------
    Recoding
        The data and the audit.

    Raises
    ------
    DataError
        If a column is not there.

    Warns
    -----
    DataWarning
        If a rule names a value that no row has.

    Examples
    --------
    >>> recode({"age": [23, 67]}, {"age": lambda years: "65+" if years >= 65 else "18-64"}).data["age"].tolist()
    ['18-64', '65+']
    """
    frame = nw.from_native(pd.DataFrame(dict(data)) if isinstance(data, Mapping) else data, eager_only=True)
    audits = []
    for column, rule in rules.items():
        require_column(column, frame.columns)
        values = [None if value != value else value for value in frame[column].to_list()]
        new, audit = _recode_column(column, values, rule)
        audits.append(audit)
        frame = frame.with_columns(nw.new_series(column, new, backend=frame.implementation))
    audit = pd.concat(audits, ignore_index=True) if audits else pd.DataFrame(columns=["column", "from", "to"])
    return Recoding(frame.to_native(), audit)


def _recode_column(column: str, values: list[Any], rule: Rule) -> tuple[list[Any], pd.DataFrame]:
    counts = Counter(values)
    there = [value for value in counts if value is not None]
    if callable(rule):
        table = {value: rule(value) for value in there}
    else:
        table = dict(rule)
        _warn_not_found(column, [old for old in table if old not in counts], there)
    target = {value: table.get(value, value) for value in counts}
    rows = [
        (column, _shown(old), _shown(new), counts.get(old, 0), "mapped" if old in counts else "not found")
        for old, new in table.items()
    ]
    rows += [(column, _shown(old), _shown(old), counts[old], "kept") for old in counts if old not in table]
    return [target[value] for value in values], pd.DataFrame(rows, columns=["column", "from", "to", "rows", "how"])


def _shown(value: Any) -> str:
    return MISSING if value is None else str(value)


def _warn_not_found(column: str, absent: list[Any], there: list[Any]) -> None:
    if absent:
        hint = did_you_mean(str(absent[0]), map(str, there))
        warn(
            f"no row has {column!r} equal to {listing(map(repr, absent))}.\n"
            f"  Values: {listing(map(repr, there))}. {hint}".rstrip(),
            DataWarning,
        )


@dataclass(frozen=True, repr=False)
class GroupPredictors:
    """Group-level predictors, joined to survey and frame from one table with one set of moments.

    Parameters
    ----------
    table : DataFrame
        Indexed by group; standardised columns already are.
    on : str
        The grouping column.
    moments : mapping of str to (float, float)
        Mean and standard deviation over the groups of the table, for the columns that were standardised.

    Examples
    --------
    >>> import pandas as pd
    >>> votes = group_predictors(pd.DataFrame({"state": ["CA", "TX", "NY"], "dem": [60.0, 40.0, 50.0]}), on="state")
    >>> votes.join(pd.DataFrame({"state": ["TX", "TX", "NY"]}))["dem"].tolist()
    [-1.0, -1.0, 0.0]
    """

    table: pd.DataFrame
    on: str
    moments: Mapping[str, tuple[float, float]]

    def join(self, data: Any) -> Any:
        """Return data with the predictors as further columns.

        Parameters
        ----------
        data : data frame
            Survey or census with the grouping column.

        Returns
        -------
        data frame
            Of the library that was given.

        Raises
        ------
        DataError
            If a group of the data is not in the table, has a missing value there, or a column already exists.
        """
        frame = nw.from_native(pd.DataFrame(dict(data)) if isinstance(data, Mapping) else data, eager_only=True)
        require_column(self.on, frame.columns)
        present = [name for name in self.table.columns if name in frame.columns]
        if present:
            raise DataError(
                f"the data already have {listing(map(repr, present))}.\n"
                "  Drop them first, so that survey and frame carry the same values."
            )
        groups = frame[self.on].to_list()
        self._check_groups(list(dict.fromkeys(groups)), groups)
        columns = []
        for name in self.table.columns:
            lookup = dict(zip(self.table.index, self.table[name].tolist(), strict=True))
            columns.append(nw.new_series(name, [lookup[group] for group in groups], backend=frame.implementation))
        return frame.with_columns(*columns).to_native()

    def _check_groups(self, groups: list[Any], rows: list[Any]) -> None:
        lost = [group for group in groups if group not in self.table.index]
        if lost:
            count = sum(group in set(lost) for group in rows)
            hint = did_you_mean(str(lost[0]), map(str, self.table.index))
            raise DataError(
                f"{len(lost)} level{'s' * (len(lost) != 1)} of {self.on!r} not in the table of group predictors: "
                f"{listing(map(repr, lost))} ({count:,} row{'s' * (count != 1)}). {hint}".rstrip()
            )
        for name in self.table.columns:
            empty = [group for group in groups if pd.isna(self.table[name][group])]
            if empty:
                raise DataError(f"the table of group predictors has no {name!r} for {listing(map(repr, empty))}.")

    def __repr__(self) -> str:
        lines = [f"Predictors of {len(self.table)} levels of {self.on!r}: {listing(self.table.columns)}"]
        for name, (mean, sd) in self.moments.items():
            shown = 0.0 if abs(mean) < 1e-12 * sd else mean  # of columns that were standardised before
            lines.append(f"  {name}: standardised with mean {shown:.6g} and SD {sd:.6g} over the groups")
        return "\n".join(lines)


def group_predictors(
    table: Any, on: str, columns: list[str] | None = None, *, standardize: bool | list[str] = True
) -> GroupPredictors:
    """Prepare group-level predictors once, for survey and frame alike.

    Standardising survey and census separately gives the same state two different values, because the two hold states
    in different proportions; here mean and standard deviation are taken once, over the groups of the table.

    Parameters
    ----------
    table : data frame
        One row per group.
    on : str
        The grouping column, for example "state".
    columns : list of str, optional
        Predictors; every other column when absent.
    standardize : bool or list of str, default True
        Whether to centre and scale numeric predictors to SD 1 over the groups, or which of them.

    Returns
    -------
    GroupPredictors
        With a method `join`.

    Raises
    ------
    DataError
        If a group stands twice or is missing, or a predictor to be standardised does not vary.

    Examples
    --------
    >>> group_predictors({"state": ["CA", "TX", "NY"], "dem": [60.0, 40.0, 50.0]}, on="state")
    Predictors of 3 levels of 'state': dem
      dem: standardised with mean 50 and SD 10 over the groups
    """
    frame = nw.from_native(pd.DataFrame(dict(table)) if isinstance(table, Mapping) else table, eager_only=True)
    data = frame.to_pandas()
    names = [name for name in data.columns if name != on] if columns is None else list(columns)
    for name in (on, *names):
        require_column(name, data.columns)
    if data[on].isna().any():
        raise DataError(f"{int(data[on].isna().sum())} rows of the table have no {on!r}.")
    twice = data[on][data[on].duplicated()].unique()
    if len(twice):
        raise DataError(f"the table has more than one row for {listing(map(repr, twice))} in {on!r}.")
    data = data.set_index(data[on].astype(object).rename(on))[names]
    chosen = _standardized(data, standardize)
    moments = {name: (float(data[name].mean()), float(data[name].std())) for name in chosen}
    for name, (mean, sd) in moments.items():
        if not sd > 0:
            raise DataError(f"{name!r} does not vary over the groups and cannot be standardised.")
        data[name] = (data[name] - mean) / sd
    return GroupPredictors(data, on, moments)


def _standardized(data: pd.DataFrame, standardize: bool | list[str]) -> list[str]:
    numeric = [
        name
        for name in data.columns
        if pd.api.types.is_numeric_dtype(data[name]) and not pd.api.types.is_bool_dtype(data[name])
    ]
    if isinstance(standardize, bool):
        return numeric if standardize else []
    for name in standardize:
        require_column(name, numeric, "numeric predictor")
    return list(standardize)
