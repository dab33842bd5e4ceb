"""Poststratified estimates: draws with labels, and everything one reports from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.formula.grouping import label
from bayeslmm.mrp.grouping import ALL
from bayeslmm.mrp.reading import read_frame, require_column, write_table
from bayeslmm.mrp.survey import align
from bayeslmm.report.tables import Table

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Group = str | int | float | tuple[Any, ...] | Mapping[str, Any]
LEVEL = 0.95


@dataclass(frozen=True, repr=False, eq=False)
class Estimates:
    """Estimates for groups of a population, with their draws.

    Parameters
    ----------
    groups : DataFrame (G, V)
        One row per estimate, one column per variable; `(all)` where a variable is summed over.
    draws : ndarray (S, G)
        Draws of every estimate, chain after chain.
    population : ndarray (G,)
        Sum of the counts; missing for differences and ratios.
    plug_in : ndarray (G,) or None
        Estimates with coefficients and group effects at their modes, for REML and Laplace fits; a posterior has none,
        and its estimates are the means of the draws.
    survey : DataFrame or None
        Survey estimates in the same rows: `n`, `raw`, `raw_se`, and with weights `weighted`, `weighted_se`, `n_eff`.
    outcome : str
        What is estimated.
    engine : str
        How the model was estimated.
    chains : int
        Chains that the draws came from.
    notes : tuple of str
        Printed below the table.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> states = Estimates(
    ...     pd.DataFrame({"state": ["CA", "TX"]}), np.array([[0.6, 0.4], [0.7, 0.5]]), np.array([39.0, 30.0])
    ... )
    >>> states.to_pandas()["estimate"].tolist()
    [0.65, 0.45]
    >>> round(float(states.difference("CA", "TX").estimate[0]), 6)
    0.2
    """

    groups: pd.DataFrame
    draws: NDArray[np.float64]
    population: NDArray[np.float64]
    plug_in: NDArray[np.float64] | None = None
    survey: pd.DataFrame | None = None
    outcome: str = "outcome"
    engine: str = ""
    chains: int = 1
    notes: tuple[str, ...] = field(default=())

    # --- numbers -------------------------------------------------------------------------------------------------

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the groups."""
        return tuple(map(str, self.groups.columns))

    @property
    def estimate(self) -> NDArray[np.float64]:
        """The estimates (G,): posterior means, or the plug-in estimates of a fit."""
        return self.draws.mean(axis=0) if self.plug_in is None else self.plug_in

    @property
    def sd(self) -> NDArray[np.float64]:
        """Standard deviations of the draws (G,); missing for a single draw."""
        return self.draws.std(axis=0, ddof=1) if len(self.draws) > 1 else np.full(len(self), np.nan)

    @property
    def labels(self) -> tuple[str, ...]:
        """One text per group: "CA", "CA, 18-29", "(all)"."""
        if not self.variables:
            return tuple("population" for _ in range(len(self.groups)))
        return tuple(", ".join(map(label, row)) for row in self.groups.itertuples(index=False))

    def interval(self, level: float = LEVEL) -> NDArray[np.float64]:
        """Return equal-tailed intervals.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.

        Returns
        -------
        ndarray (G, 2)
            Lower and upper ends.

        Raises
        ------
        DataError
            If the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise DataError(f"level={level!r} is not between 0 and 1; 95 % is level=0.95.")
        return np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2], axis=0).T

    def __len__(self) -> int:
        return len(self.groups)

    # --- tables --------------------------------------------------------------------------------------------------

    def to_pandas(self, level: float = LEVEL) -> pd.DataFrame:
        """Return one row per group: estimate, SD, interval, population, and the survey's own estimates.

        Parameters
        ----------
        level : float, default 0.95
            Coverage of the interval.

        Returns
        -------
        DataFrame
            Label columns, then `estimate`, `sd`, `lower`, `upper`, `population`, and where a survey is known `n`,
            `raw`, `raw_se`, `weighted`, `weighted_se`, `n_eff`, and `shift`, the estimate minus the survey's
            (weighted, else raw).
        """
        lower, upper = self.interval(level).T
        table = self.groups.copy()
        table["estimate"], table["sd"], table["lower"], table["upper"] = self.estimate, self.sd, lower, upper
        if not np.isnan(self.population).all():
            table["population"] = self.population
        if self.survey is not None:
            table = pd.concat([table, self.survey.set_axis(table.index)], axis=1)
            table["shift"] = self.estimate - self.survey.get("weighted", self.survey["raw"]).to_numpy()
        return table

    def to_table(self, connection: Any, name: str, *, overwrite: bool = False, level: float = LEVEL) -> Any:
        """Write the estimates as a table of a database, the one thing of this package that writes to an engine.

        Parameters
        ----------
        connection : DuckDB connection or Ibis backend
            Where to: ``duckdb.connect("results.duckdb")``, ``ibis.pyspark.connect(session)``, ...
        name : str
            The new table.
        overwrite : bool, default False
            Replace a table of that name.
        level : float, default 0.95
            Coverage of the intervals.

        Returns
        -------
        DuckDB relation or Ibis table
            The table written, with the columns of `to_pandas`.

        Raises
        ------
        DataError
            If there is a table of that name and `overwrite` is False, or the engine refuses, with its message.

        Examples
        --------
        >>> import duckdb
        >>> import numpy as np
        >>> import pandas as pd
        >>> states = Estimates(pd.DataFrame({"state": ["CA"]}), np.array([[0.6], [0.7]]), np.array([39.0]))
        >>> states.to_table(duckdb.connect(), "states").fetchall()[0][:2]
        ('CA', 0.65)
        """
        return write_table(self.to_pandas(level), connection, name, overwrite=overwrite)

    def summary(self, level: float = LEVEL, *, sort: bool = False) -> Table:
        """Return the estimates as a table that prints.

        Parameters
        ----------
        level : float, default 0.95
            Coverage of the interval.
        sort : bool, default False
            Largest estimate first.

        Returns
        -------
        Table
            As in `to_pandas`.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> one = Estimates(pd.DataFrame({"state": ["CA"]}), np.array([[0.6], [0.7]]), np.array([39.0]), outcome="yes")
        >>> print(one.summary())
        Poststratified estimates of yes (2 draws), 95 % intervals
           estimate      sd  lower  upper population
        CA     0.65 0.07071 0.6025 0.6975         39
        """
        table = self.to_pandas(level).drop(columns=list(self.variables)).set_axis(pd.Index(self.labels))
        if "population" in table:
            whole = table["population"].round()
            if np.all((table["population"] == whole) | (whole >= 10_000)):  # nobody reads tenths of a person
                table["population"] = whole.astype(np.int64)
        if sort:
            table = table.sort_values("estimate", ascending=False)
        how = f"{self.engine}, " if self.engine else ""
        return Table(
            table,
            title=f"Poststratified estimates of {self.outcome} ({how}{len(self.draws):,} draws), "
            f"{100 * level:.4g} % intervals",
            notes=self.notes,
            shared=(("estimate", "raw", "weighted", "lower", "upper"), ("sd", "raw_se", "weighted_se")),
        )

    def to_datatree(self) -> xr.DataTree:
        """Return the draws in ArviZ's container.

        Returns
        -------
        xarray.DataTree
            Group `posterior` with `estimate[chain, draw, group]` (the dimension is called after the variable where
            there is one), group `constant_data` with `population`, and the survey's numbers where they are known.
        """
        import xarray as xr

        dim = self.variables[0] if len(self.variables) == 1 else "group"
        shape = (self.chains, len(self.draws) // self.chains, len(self))
        coords: dict[str, Any] = {dim: list(self.labels)}
        if len(self.variables) > 1:
            coords |= {name: (dim, self.groups[name].map(label).tolist()) for name in self.variables}
        posterior = xr.Dataset(
            {"estimate": (("chain", "draw", dim), self.draws.reshape(shape))},
            coords=coords | {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])},
            attrs={"outcome": self.outcome, "engine": self.engine, "notes": "; ".join(self.notes)},
        )
        constant: dict[str, Any] = {"population": (dim, self.population)}
        if self.survey is not None:
            constant |= {name: (dim, self.survey[name].to_numpy()) for name in self.survey.columns}
        return xr.DataTree.from_dict({"posterior": posterior, "constant_data": xr.Dataset(constant, coords=coords)})

    # --- choosing ------------------------------------------------------------------------------------------------

    def position(self, group: Group) -> int:
        """Return the row of a group.

        Parameters
        ----------
        group : str, number, tuple or mapping
            ``"CA"`` with one variable, ``("CA", "18-29")`` in the order of the variables, or
            ``{"state": "CA", "age": "18-29"}``; variables that are not named are summed over.

        Returns
        -------
        int
            Position.

        Raises
        ------
        DataError
            If there is no such group.
        """
        wanted = self._as_mapping(group)
        for name in wanted:
            require_column(str(name), self.variables, "variable")
        match = np.ones(len(self), dtype=bool)
        for name in self.variables:
            match &= (self.groups[name].map(label) == label(wanted.get(name, ALL))).to_numpy()
        if not match.any():
            raise DataError(
                f"there is no estimate for {group!r}.\n  Groups: {listing(self.labels)}. "
                f"{did_you_mean(str(group), self.labels)} Margins and the whole population are there if poststratify "
                "was asked for them (margins=True)."
            )
        return int(np.flatnonzero(match)[0])

    def _as_mapping(self, group: Group) -> Mapping[str, Any]:
        if isinstance(group, Mapping):
            return group
        values = group if isinstance(group, tuple) else (group,)
        if len(values) > len(self.variables):
            raise DataError(f"{group!r} has more values than there are variables: {listing(self.variables)}.")
        return dict(zip(self.variables, values, strict=False))

    def select(self, where: Mapping[str, Any] | Sequence[int] | NDArray[Any]) -> Estimates:
        """Return some of the estimates.

        Parameters
        ----------
        where : mapping or array of int or bool
            ``{"age": "18-29"}`` or ``{"state": ["CA", "TX"]}``; or positions.

        Returns
        -------
        Estimates
            The same draws, fewer groups.

        Raises
        ------
        DataError
            If nothing is left or a variable is unknown.
        """
        if isinstance(where, Mapping):
            keep = np.ones(len(self), dtype=bool)
            for name, wanted in where.items():
                require_column(name, self.variables, "variable")
                values = [wanted] if isinstance(wanted, str) or not np.iterable(wanted) else list(wanted)
                keep &= self.groups[name].map(label).isin([label(value) for value in values]).to_numpy()
            positions = np.flatnonzero(keep)
        else:
            positions = np.arange(len(self))[np.asarray(where)]
        if len(positions) == 0:
            raise DataError(f"no estimate is left by {where!r}.")
        return replace(
            self,
            groups=self.groups.iloc[positions].reset_index(drop=True),
            draws=self.draws[:, positions],
            population=self.population[positions],
            plug_in=None if self.plug_in is None else self.plug_in[positions],
            survey=None if self.survey is None else self.survey.iloc[positions].reset_index(drop=True),
        )

    # --- comparing -----------------------------------------------------------------------------------------------

    def difference(self, a: Group, b: Group) -> Estimates:
        """Return a minus b, draw by draw.

        Parameters
        ----------
        a, b : str, number, tuple or mapping
            Groups, as in `position`.

        Returns
        -------
        Estimates
            One estimate, named "a - b".
        """
        i, j = self.position(a), self.position(b)
        point = None if self.plug_in is None else self.plug_in[[i]] - self.plug_in[[j]]
        return self._contrast([f"{self.labels[i]} - {self.labels[j]}"], self.draws[:, [i]] - self.draws[:, [j]], point)

    def ratio(self, a: Group, b: Group) -> Estimates:
        """Return a divided by b, draw by draw.

        Parameters
        ----------
        a, b : str, number, tuple or mapping
            Groups, as in `position`.

        Returns
        -------
        Estimates
            One estimate, named "a / b".
        """
        i, j = self.position(a), self.position(b)
        point = None if self.plug_in is None else self.plug_in[[i]] / self.plug_in[[j]]
        return self._contrast([f"{self.labels[i]} / {self.labels[j]}"], self.draws[:, [i]] / self.draws[:, [j]], point)

    def contrast(self, variable: str, a: Any, b: Any) -> Estimates:
        """Return the difference between two levels of one variable, for every combination of the others.

        Parameters
        ----------
        variable : str
            For example "eth".
        a, b : object
            Two of its levels.

        Returns
        -------
        Estimates
            One estimate per combination of the other variables that has both.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> cells = pd.DataFrame({"state": ["CA", "CA", "TX", "TX"], "sex": ["f", "m", "f", "m"]})
        >>> both = Estimates(cells, np.array([[0.6, 0.5, 0.4, 0.1]]), np.ones(4))
        >>> both.contrast("sex", "f", "m").labels
        ('CA: f - m', 'TX: f - m')
        """
        require_column(variable, self.variables, "variable")
        others = [name for name in self.variables if name != variable]
        first, second = self._rows_by(others, variable, a), self._rows_by(others, variable, b)
        both = [key for key in first if key in second]
        if not both:
            raise DataError(f"no group has both {a!r} and {b!r} of {variable!r}.")
        i, j = [first[key] for key in both], [second[key] for key in both]
        names = [": ".join(filter(None, [", ".join(key), f"{label(a)} - {label(b)}"])) for key in both]
        point = None if self.plug_in is None else self.plug_in[i] - self.plug_in[j]
        return self._contrast(names, self.draws[:, i] - self.draws[:, j], point)

    def _rows_by(self, others: list[str], variable: str, level: Any) -> dict[tuple[str, ...], int]:
        rows = np.flatnonzero((self.groups[variable].map(label) == label(level)).to_numpy())
        if len(rows) == 0:
            levels = dict.fromkeys(map(label, self.groups[variable]))
            raise DataError(f"{variable!r} has no level {level!r}.\n  Levels: {listing(levels)}.")
        return {tuple(label(self.groups[name].iloc[row]) for name in others): int(row) for row in rows}

    def minus(self, other: Estimates) -> Estimates:
        """Return the differences from other estimates of the same groups: another frame, or other counts.

        Parameters
        ----------
        other : Estimates
            From the same posterior, or from the same fit with the same seed, so that the draws belong together.

        Returns
        -------
        Estimates
            One difference per group.

        Raises
        ------
        DataError
            If groups or numbers of draws differ.
        """
        if self.labels != other.labels or self.draws.shape != other.draws.shape:
            raise DataError("the two sets of estimates differ in their groups or in the number of draws.")
        point = None if self.plug_in is None or other.plug_in is None else self.plug_in - other.plug_in
        return self._contrast(list(self.labels), self.draws - other.draws, point)

    def _contrast(self, names: list[str], draws: NDArray[np.float64], plug_in: NDArray[np.float64] | None) -> Estimates:
        return replace(
            self,
            groups=pd.DataFrame({"contrast": names}),
            draws=draws,
            population=np.full(len(names), np.nan),
            plug_in=plug_in,
            survey=None,
        )

    def probability(self, *, above: float | None = None, below: float | None = None) -> pd.Series:
        """Return the probability that each estimate lies above, below or between limits.

        Parameters
        ----------
        above, below : float, optional
            Limits, at least one.

        Returns
        -------
        Series
            One probability per group.

        Raises
        ------
        DataError
            If no limit is given.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> two = Estimates(pd.DataFrame({"g": ["a", "b"]}), np.array([[0.6, 0.4], [0.7, 0.6]]), np.ones(2))
        >>> two.probability(above=0.5).to_dict()
        {'a': 1.0, 'b': 0.5}
        """
        if above is None and below is None:
            raise DataError("probability needs a limit: above=0.5, below=0.5, or both.")
        inside = np.ones(self.draws.shape, dtype=bool)
        if above is not None:
            inside &= self.draws > above
        if below is not None:
            inside &= self.draws < below
        return pd.Series(inside.mean(axis=0), index=pd.Index(self.labels), name="probability")

    def probability_greater(self, a: Group, b: Group) -> float:
        """Return the probability that a is greater than b.

        Parameters
        ----------
        a, b : str, number, tuple or mapping
            Groups, as in `position`.

        Returns
        -------
        float
            Share of draws.
        """
        return float(np.mean(self.draws[:, self.position(a)] > self.draws[:, self.position(b)]))

    def ranks(self, level: float = LEVEL) -> pd.DataFrame:
        """Return the rank of every group, 1 for the largest, with its uncertainty.

        Parameters
        ----------
        level : float, default 0.95
            Coverage of the interval.

        Returns
        -------
        DataFrame
            Columns `rank` (mean over draws), `lower`, `upper`, `p_first`, indexed by group, best first.
        """
        order = np.argsort(-self.draws, axis=1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, len(self) + 1)[None, :], axis=1)
        lower, upper = np.quantile(ranks, [(1 - level) / 2, (1 + level) / 2], axis=0)
        table = pd.DataFrame(
            {"rank": ranks.mean(axis=0), "lower": lower, "upper": upper, "p_first": (ranks == 1).mean(axis=0)},
            index=pd.Index(self.labels, name=", ".join(self.variables)),
        )
        return table.sort_values("rank")

    def with_survey(self, table: Any) -> Estimates:
        """Put survey estimates beside these.

        Parameters
        ----------
        table : data frame
            From `survey_estimates`, with the same grouping variables.

        Returns
        -------
        Estimates
            The same, with `survey` replaced.

        Raises
        ------
        DataError
            If the table lacks a grouping variable or `n` and `raw`.
        """
        frame = read_frame(table)
        for name in (*self.variables, "n", "raw"):
            require_column(name, frame.columns)
        return replace(self, survey=align(frame, self.groups))

    def against(self, truth: Any, column: str = "truth") -> pd.DataFrame:
        """Compare with known outcomes: an election, a census, or the truth of a simulation.

        Parameters
        ----------
        truth : mapping or data frame
            Known value by label (one variable), or a table of the grouping variables and a column of values.
        column : str, default "truth"
            That column.

        Returns
        -------
        DataFrame
            Label columns, `truth`, `estimate`, `error`, `covered_50`, `covered_90`, and with a survey `raw_error`.

        Raises
        ------
        DataError
            If no group has a known value.
        """
        if isinstance(truth, Mapping) and column not in truth:
            truth = {self.variables[0]: list(truth), column: list(truth.values())}
        frame = read_frame(truth)
        for name in (*self.variables, column):
            require_column(name, frame.columns)
        known = align(frame[[*self.variables, column]].assign(n=1), self.groups)[column].to_numpy(dtype=float)
        if np.isnan(known).all():
            raise DataError("no group of the estimates has a known outcome in the table.")
        table = self.groups.assign(truth=known, estimate=self.estimate, error=self.estimate - known)
        for level in (0.5, 0.9):
            lower, upper = self.interval(level).T
            inside = pd.array((lower <= known) & (known <= upper), dtype="boolean")
            inside[np.isnan(known)] = pd.NA
            table[f"covered_{round(100 * level)}"] = inside
        if self.survey is not None:
            table["raw_error"] = self.survey["raw"].to_numpy() - known
        return table

    # --- pictures ------------------------------------------------------------------------------------------------

    def plot(self, **options: Any) -> Axes:
        """Draw estimates and intervals, sorted. See `bayeslmm.mrp.plots.plot_intervals`."""
        from bayeslmm.mrp.plots import plot_intervals

        return plot_intervals(self, **options)

    def plot_raw(self, **options: Any) -> Axes:
        """Draw raw survey means against MRP, bubbles by respondents. See `bayeslmm.mrp.plots.plot_raw_against_mrp`."""
        from bayeslmm.mrp.plots import plot_raw_against_mrp

        return plot_raw_against_mrp(self, **options)

    def plot_pooling(self, **options: Any) -> Axes:
        """Draw how estimates move from complete to partial to no pooling. See `bayeslmm.mrp.plots.plot_pooling`."""
        from bayeslmm.mrp.plots import plot_pooling

        return plot_pooling(self, **options)

    def plot_panels(self, panel: str, **options: Any) -> Figure:
        """Draw small multiples, one panel per level of a variable. See `bayeslmm.mrp.plots.plot_panels`."""
        from bayeslmm.mrp.plots import plot_panels

        return plot_panels(self, panel, **options)

    def plot_states(self, **options: Any) -> Axes:
        """Draw a tile-grid map of US states. See `bayeslmm.mrp.plots.plot_states`."""
        from bayeslmm.mrp.plots import plot_states

        return plot_states(self, **options)

    def plot_map(self, shapes: Any, key: str, **options: Any) -> Axes:
        """Draw a choropleth on given shapes. See `bayeslmm.mrp.plots.plot_map`."""
        from bayeslmm.mrp.plots import plot_map

        return plot_map(self, shapes, key, **options)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary().to_html()
