"""From the caller's data frame to columns: names, rows without missing values, weights and offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.formula.functions import Value
from bayeslmm.formula.grouping import as_categorical

Floats = NDArray[np.float64]
Role = Literal["weights", "offset", "survey_weights"]


@dataclass(frozen=True)
class Table:
    """A data frame of any kind, seen as named columns.

    Parameters
    ----------
    names : tuple of str
        Column names.
    n_rows : int
        Rows.
    native : object
        A pandas frame, or a narwhals frame around another kind.
    """

    names: tuple[str, ...]
    n_rows: int
    native: Any

    def select(self, names: Iterable[str]) -> pd.DataFrame:
        """Return columns as a pandas frame with rows numbered from 0.

        Parameters
        ----------
        names : iterable of str
            Columns; each has to exist once.

        Returns
        -------
        DataFrame
            The columns, sharing memory with the caller's frame where pandas copies on write.

        Raises
        ------
        DataError
            If two columns have one of the names.
        """
        names = list(names)
        for name in names:
            if self.names.count(name) > 1:
                raise DataError(f"{self.names.count(name)} columns are called {name!r}. Rename all but one.")
        if isinstance(self.native, pd.DataFrame):
            positions = [self.names.index(name) for name in names]
            frame = self.native.take(positions, axis=1)
            frame.index = pd.RangeIndex(self.n_rows)
            if list(frame.columns) != names:  # not text; an index of text takes longer to make than all else here
                frame.columns = pd.Index(names)
            return frame
        return pd.DataFrame({name: _to_pandas(self.native[name]) for name in names}, index=pd.RangeIndex(self.n_rows))


def read_table(data: Any) -> Table:
    """Look at data of any supported kind.

    Parameters
    ----------
    data : data frame or mapping
        pandas, polars or pyarrow (anything narwhals reads eagerly), or a mapping of names to arrays of one length.

    Returns
    -------
    Table
        Its columns.

    Raises
    ------
    DataError
        If it is no table, lazy, or its columns differ in length.

    Examples
    --------
    >>> read_table({"y": [1.0, 2.0]}).n_rows
    2
    """
    if isinstance(data, Mapping):
        data = _from_mapping(data)
    if isinstance(data, pd.DataFrame):
        return Table(tuple(map(str, data.columns)), len(data), data)
    import narwhals.stable.v2 as nw

    try:
        frame = nw.from_native(data, eager_only=True)
    except TypeError:
        raise DataError(
            f"data of type {type(data).__name__} cannot be read.\n"
            "  Give a pandas, polars or pyarrow table, or a dict of arrays; collect() a lazy frame before."
        ) from None
    except Exception as error:  # e.g. polars or pyarrow refusing duplicate names
        raise DataError(f"the data cannot be read: {error}") from error
    return Table(tuple(frame.columns), len(frame), frame)


def _from_mapping(data: Mapping[Any, Any]) -> pd.DataFrame:
    lengths = {str(name): np.shape(values) for name, values in data.items()}
    for name, shape in lengths.items():
        if len(shape) != 1:
            raise DataError(f"data[{name!r}] has shape {shape}; a column has one dimension.")
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {shape[0]}" for name, shape in lengths.items())
        raise DataError(f"the columns differ in length: {shown}.")
    return pd.DataFrame(dict(data))


def _to_pandas(series: Any) -> pd.Series:
    """Convert a narwhals series without needing more than numpy."""
    import narwhals.stable.v2 as nw

    dtype = series.dtype
    if dtype in (nw.Categorical, nw.Enum):
        categories = series.cat.get_categories().to_list()
        if dtype == nw.Categorical and series.implementation.is_polars():
            categories = sorted(categories)  # polars keeps the order of appearance, which nobody chose
        values = series.cast(nw.String).to_numpy()
        return pd.Series(pd.Categorical(values, categories=categories))
    if dtype.is_decimal():
        series = series.cast(nw.Float64)
    return pd.Series(series.to_numpy())


def values_of(series: pd.Series, name: str) -> Value:
    """Return a column without missing values as numbers, truth values or categories.

    Parameters
    ----------
    series : Series
        The column.
    name : str
        Its name, for messages.

    Returns
    -------
    ndarray (n,) of float64 or bool, or Categorical
        Categories are named by text; unused ones are dropped; text is ordered as text.

    Raises
    ------
    DataError
        For dates, infinite numbers, complex numbers and columns that mix numbers with text.

    Examples
    --------
    >>> values_of(pd.Series([1, 2]), "x")
    array([1., 2.])
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return as_categorical(series)
    if pd.api.types.is_bool_dtype(dtype):
        return series.to_numpy(dtype=bool)
    if pd.api.types.is_complex_dtype(dtype):
        raise DataError(f"column {name!r} holds complex numbers.")
    if pd.api.types.is_numeric_dtype(dtype):
        return _finite(series.to_numpy(dtype=np.float64), name)
    if pd.api.types.is_object_dtype(dtype):
        return _values_of_objects(series, name)
    if isinstance(dtype, pd.StringDtype) or pd.api.types.is_string_dtype(dtype):
        return as_categorical(series)
    raise _no_scale(name)


def _values_of_objects(series: pd.Series, name: str) -> Value:
    kind = pd.api.types.infer_dtype(series, skipna=True)
    if kind in ("integer", "floating", "mixed-integer-float", "decimal"):
        return _finite(series.to_numpy(dtype=np.float64), name)
    if kind == "boolean":
        return series.to_numpy(dtype=bool)
    if kind in ("string", "empty"):
        return as_categorical(series)
    if "date" in kind or "time" in kind or kind == "period":
        raise _no_scale(name)
    raise DataError(f"column {name!r} mixes kinds of values ({kind}).\n  Make it numbers, or text, before fitting.")


def _no_scale(name: str) -> DataError:
    return DataError(
        f"column {name!r} holds dates or times, which have no scale of their own.\n"
        f"  Compute a number before fitting, e.g. data['days'] = (data[{name!r}] - data[{name!r}].min()).dt.days;\n"
        f"  or use it as a grouping factor: (1 | {name})."
    )


def _finite(values: Floats, name: str, role: str = "") -> Floats:
    infinite = int(np.count_nonzero(np.isinf(values)))
    if infinite:
        raise DataError(
            f"column {name!r} is infinite in {infinite} row{'s' * (infinite != 1)}.\n"
            "  Infinity is not a missing value: correct it, or set it to NaN to leave the rows out."
            + "\n  An offset log(exposure) is minus infinity where the exposure is zero."
            * ("offset" in (name, role))
        )
    return values


@dataclass(frozen=True)
class Rows:
    """Rows that can be used: none of their values is missing.

    Parameters
    ----------
    kept : ndarray (n,) of intp
        Positions in the caller's frame.
    n_total : int
        Rows of the caller's frame.
    missing : dict of str to int
        Rows missing per column, columns without missing values left out.
    """

    kept: NDArray[np.intp]
    n_total: int
    missing: dict[str, int]

    @property
    def all_kept(self) -> bool:
        """True if no row was dropped."""
        return len(self.kept) == self.n_total


def complete_rows(frame: pd.DataFrame, arrays: Mapping[str, Floats | None]) -> Rows:
    """Find the rows without missing values.

    Parameters
    ----------
    frame : DataFrame
        The columns used.
    arrays : mapping of str to ndarray (n,) or None
        Weights and offsets given as arrays.

    Returns
    -------
    Rows
        Positions, and counts per column.

    Examples
    --------
    >>> complete_rows(pd.DataFrame({"x": [1.0, np.nan]}), {}).missing
    {'x': 1}
    """
    complete = np.ones(len(frame), dtype=bool)
    missing = {}
    masks = dict(zip(map(str, frame.columns), frame.isna().to_numpy().T, strict=True))
    masks.update({name: np.isnan(values) for name, values in arrays.items() if values is not None})
    for name, mask in masks.items():
        count = int(np.count_nonzero(mask))
        if count:
            missing[name] = count
            complete &= ~mask
    return Rows(np.flatnonzero(complete), len(frame), missing)


@dataclass(frozen=True)
class Selection:
    """Columns, weights and offset of the rows that can be used.

    Parameters
    ----------
    frame : DataFrame
        Columns as given, rows kept, numbered from 0.
    rows : Rows
        Which rows they are.
    weights, offset : ndarray (n,) or None
        What the arguments gave for these rows.
    weights_name, offset_name : str or None
        Columns they name.
    survey_weights : ndarray (n,) or None
        As given, not rescaled.
    """

    frame: pd.DataFrame
    rows: Rows
    weights: Floats | None
    offset: Floats | None
    weights_name: str | None
    offset_name: str | None
    survey_weights: Floats | None = None


def select_rows(table: Table, names: Iterable[str], weights: Any, offset: Any, survey_weights: Any = None) -> Selection:
    """Read columns, weights and offset, and leave out rows where any of them is missing.

    Parameters
    ----------
    table : Table
        The data.
    names : iterable of str
        Columns of the formula.
    weights, offset, survey_weights : str, array or None
        As the caller gave them.

    Returns
    -------
    Selection
        Rows without missing values.

    Raises
    ------
    DataError
        If weights or offset do not fit the data.

    Examples
    --------
    >>> select_rows(read_table({"x": [1.0, np.nan], "w": [1, 2]}), ["x"], "w", None).weights
    array([1.])
    """
    given: dict[Role, Any] = {"weights": weights, "offset": offset, "survey_weights": survey_weights}
    named = {role: named_column(value, role, table.names) for role, value in given.items()}
    frame = table.select(dict.fromkeys((*names, *(name for name in named.values() if name is not None))))
    arrays: dict[str, Floats | None] = {role: row_values(value, role, table.n_rows) for role, value in given.items()}
    rows = complete_rows(frame, arrays)
    if not rows.all_kept:
        frame = frame.take(rows.kept).reset_index(drop=True)
        arrays = {role: None if values is None else values[rows.kept] for role, values in arrays.items()}
    values = {role: arrays[role] if name is None else numbers(frame[name], role) for role, name in named.items()}
    for kind in ("weights", "survey_weights"):
        if (found := values[kind]) is not None:
            check_weights(found, kind)
    return Selection(
        frame, rows, values["weights"], values["offset"], named["weights"], named["offset"], values["survey_weights"]
    )


def row_values(given: Any, role: Role, n_rows: int) -> Floats | None:
    """Return weights or offsets given as an array, or None if a column was named or nothing given.

    Parameters
    ----------
    given : str, array or None
        What the caller gave.
    role : {"weights", "offset", "survey_weights"}
        For the message.
    n_rows : int
        Rows of the data.

    Returns
    -------
    ndarray (n_rows,) or None
        The numbers.

    Raises
    ------
    DataError
        If the length is wrong or the values are no numbers.

    Examples
    --------
    >>> row_values([1, 2], "weights", 2)
    array([1., 2.])
    """
    if given is None or isinstance(given, str):
        return None
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{role} must be a column name or numbers, one per row.") from None
    if values.ndim == 0 and role == "offset":
        values = np.full(n_rows, float(values))
    if values.shape != (n_rows,):
        raise DataError(f"{role} has shape {values.shape}, and the data have {n_rows} rows.")
    return _finite(values, role)


def named_column(given: Any, role: Role, names: tuple[str, ...]) -> str | None:
    """Return the column that holds weights or offsets, or None if none was named.

    Parameters
    ----------
    given : str, array or None
        What the caller gave.
    role : {"weights", "offset", "survey_weights"}
        For the message.
    names : tuple of str
        Columns of the data.

    Returns
    -------
    str or None
        The name.

    Raises
    ------
    DataError
        If there is no such column.

    Examples
    --------
    >>> named_column("w", "weights", ("y", "w"))
    'w'
    """
    if not isinstance(given, str):
        return None
    if given not in names:
        hint = did_you_mean(given, names)
        raise DataError(f"{role}={given!r}: there is no such column.\n  Columns: {listing(names)}. {hint}".rstrip())
    return given


def numbers(series: pd.Series, role: str) -> Floats:
    """Return a column that has to be numeric.

    Parameters
    ----------
    series : Series
        The column, without missing values.
    role : str
        What it is for, for the message.

    Returns
    -------
    ndarray (n,)
        The numbers.

    Raises
    ------
    DataError
        If it holds text or categories.

    Examples
    --------
    >>> numbers(pd.Series([1, 2], name="w"), "weights")
    array([1., 2.])
    """
    if pd.api.types.is_float_dtype(series.dtype):
        return _finite(series.to_numpy(dtype=np.float64), str(series.name), role)
    values = values_of(series, str(series.name))
    if isinstance(values, pd.Categorical):
        raise DataError(f"{role}={series.name!r} must hold numbers, and the column holds text or categories.")
    return values.astype(np.float64)


def check_weights(weights: Floats, role: str = "weights") -> Floats:
    """Return weights that are positive.

    Parameters
    ----------
    weights : ndarray (n,)
        Prior weights, or survey weights.
    role : str, default "weights"
        Which, for the message.

    Returns
    -------
    ndarray (n,)
        The same.

    Raises
    ------
    DataError
        If one is zero or negative.

    Examples
    --------
    >>> check_weights(np.array([1.0, 2.0]))
    array([1., 2.])
    """
    bad = int(np.count_nonzero(weights <= 0))
    if bad:
        raise DataError(
            f"{role} must be positive; {bad} row{'s have' if bad != 1 else ' has'} a weight of zero or less.\n"
            "  A weight says how many units of information a row carries: leave rows without any out of the data."
        )
    return weights
