"""Effects whose levels are related in a known way: random walks over ordered categories, smoothing over areas.

An effect with improper precision `Q / sd^2` over J levels is `b = sd K u` with `u ~ N(0, I)` and `K K' = Q^-`, the
generalised inverse: the sum-to-zero constraint is built in. A row's effect is then a row of `K` times `u`, so that the
term is an ordinary random term with as many independent effects of one variance as `K` has columns, on a factor with a
single level. Every engine has such terms.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, DataWarning, did_you_mean, listing, warn
from bayeslmm.formula.grouping import Levels, factorise, label, match

Floats = NDArray[np.float64]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Loading:
    """Levels of a structured effect, and what each loads on.

    Parameters
    ----------
    levels : tuple of str, length J
        All levels of the structure, also those without rows.
    matrix : ndarray (J, r)
        `K`: the effects of the levels are `sd * K @ u`.
    """

    levels: tuple[str, ...]
    matrix: Floats = field(repr=False)

    @property
    def modes(self) -> tuple[str, ...]:
        """A name for each column, the smoothest first."""
        return tuple(f"mode{j}" for j in range(1, self.matrix.shape[1] + 1))

    def rows(self, found: Levels, term: object) -> Floats:
        """Return the row of the matrix (n, r) that each row of the data loads on.

        Parameters
        ----------
        found : Levels
            The grouping column.
        term : object
            The random term, for the message.

        Returns
        -------
        ndarray (n, r)
            The columns of Z.

        Raises
        ------
        DataError
            If a level is not part of the structure.
        """
        codes, strangers = match(found, self.levels)
        if strangers:
            count = int(np.count_nonzero(codes >= len(self.levels)))
            raise DataError(
                f"{listing(map(repr, strangers))} ({count} row{'s' * (count != 1)}) has no place in the structure of "
                f"{term}.\n  Its levels: {listing(self.levels)}. {did_you_mean(strangers[0], self.levels)}".rstrip()
                + "\n  A level without a place among the others cannot be smoothed: add it, recode or leave the rows "
                "out."
            )
        return self.matrix[codes]


def random_walk(series: pd.Series, name: str) -> Loading:
    """Return the loading of a first-order random walk over the categories of a column.

    Parameters
    ----------
    series : Series
        Ordered categories, unused ones included; or numbers, in their order.
    name : str
        The column's name, for messages.

    Returns
    -------
    Loading
        Neighbouring categories differ by N(0, sd^2) up to the scaling of `scaled_root`.

    Raises
    ------
    DataError
        If there are fewer than three categories.

    Warns
    -----
    DataWarning
        If the column is text, whose order is that of the alphabet.

    Examples
    --------
    >>> random_walk(pd.Series(pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"])), "x").levels
    ('lo', 'mid', 'hi')
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        levels = tuple(label(value) for value in series.cat.categories)
    else:
        levels = factorise(series).labels
    if len(levels) < 3:
        raise DataError(
            f"rw() over {name!r}, which has {len(levels)} level{'s' * (len(levels) != 1)}: a walk needs three.\n"
            f"  With two, (1 | {name}) is the same model."
        )
    if not isinstance(series.dtype, pd.CategoricalDtype) and not pd.api.types.is_numeric_dtype(series.dtype):
        warn(
            f"{name!r} is text, so rw() walks through it in the order of the alphabet: {listing(levels)}.\n"
            "  If that is not their order, make it pandas.Categorical(..., categories=[...], ordered=True).",
            DataWarning,
        )
    return Loading(levels, scaled_root(laplacian(levels, tuple(itertools.pairwise(levels)))))


def areas(adjacency: Any) -> Loading:
    """Return the loading of an intrinsic conditional autoregression over areas.

    Parameters
    ----------
    adjacency : mapping, iterable of pairs, square DataFrame or GeoDataFrame
        See `read_adjacency`.

    Returns
    -------
    Loading
        One column less than areas for each connected piece of the map; an area without neighbours has its own.

    Examples
    --------
    >>> areas({"a": ["b"], "b": ["c"]}).matrix.shape
    (3, 2)
    """
    levels, pairs = read_adjacency(adjacency)
    return Loading(levels, scaled_root(laplacian(levels, pairs)))


def laplacian(levels: tuple[str, ...], pairs: Pairs) -> Floats:
    """Return the precision (J, J) of an intrinsic autoregression: neighbours on the diagonal, -1 for each pair.

    Parameters
    ----------
    levels : tuple of str, length J
        Levels.
    pairs : tuple of pairs of str
        Neighbours, each pair once.

    Returns
    -------
    ndarray (J, J)
        The precision for sd = 1.

    Examples
    --------
    >>> laplacian(("a", "b"), (("a", "b"),)).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    place = {name: position for position, name in enumerate(levels)}
    Q = np.zeros((len(levels), len(levels)))
    for a, b in pairs:
        i, j = place[a], place[b]
        Q[i, j] = Q[j, i] = -1.0
    np.fill_diagonal(Q, -Q.sum(axis=1))
    return Q


def scaled_root(Q: Floats) -> Floats:
    """Return K with `K K'` the generalised inverse of Q, scaled so that sd is the typical SD of an effect.

    The geometric mean of the variances of the effects is 1 in every connected piece, each of which sums to zero; an
    area without neighbours has variance 1 and is independent of all.

    Parameters
    ----------
    Q : ndarray (J, J)
        Laplacian of a graph.

    Returns
    -------
    ndarray (J, r)
        Its columns are orthogonal, those of the largest variance first within each piece.

    References
    ----------
    .. [1] Riebler, A., Sørbye, S. H., Simpson, D., Rue, H. (2016). An intuitive Bayesian spatial model for disease
       mapping that accounts for scaling. Statistical Methods in Medical Research 25(4), section 3.2.
    .. [2] Freni-Sterrantino, A., Ventrucci, M., Rue, H. (2018). A note on intrinsic conditional autoregressive models
       for disconnected graphs. Spatial and Spatio-temporal Epidemiology 26.

    Examples
    --------
    >>> K = scaled_root(laplacian(("a", "b", "c"), (("a", "b"), ("b", "c"))))
    >>> bool(np.isclose(np.log(np.diag(K @ K.T)).mean(), 0))
    True
    """
    from scipy.sparse.csgraph import connected_components

    count, piece = connected_components(Q != 0, directed=False)
    columns = []
    for number in range(count):
        members = np.flatnonzero(piece == number)
        block = np.ones((1, 1))
        if len(members) > 1:
            values, vectors = np.linalg.eigh(Q[np.ix_(members, members)])
            block = vectors[:, 1:] / np.sqrt(values[1:])
            block /= np.exp(0.5 * np.log((block**2).sum(axis=1)).mean())
        wide = np.zeros((len(Q), block.shape[1]))
        wide[members] = block
        columns.append(wide)
    return np.hstack(columns)


def read_adjacency(adjacency: Any) -> tuple[tuple[str, ...], Pairs]:
    """Return areas and pairs of neighbours.

    Parameters
    ----------
    adjacency : mapping, iterable of pairs, square DataFrame or GeoDataFrame
        An area's neighbours by area; pairs of neighbours; a symmetric table of 0 and 1 whose rows and columns are the
        areas; or polygons indexed by area, of which those that touch are neighbours. It is enough to name a pair from
        one side. An area without neighbours is a key with an empty list, or a row of zeros.

    Returns
    -------
    areas : tuple of str
        In order of appearance.
    pairs : tuple of pairs of str
        Each once.

    Raises
    ------
    DataError
        If it cannot be read, names an area as its own neighbour or is not symmetric.

    Examples
    --------
    >>> read_adjacency([("NY", "NJ"), ("NJ", "PA")])
    (('NY', 'NJ', 'PA'), (('NY', 'NJ'), ('NJ', 'PA')))
    """
    if isinstance(adjacency, pd.DataFrame):
        names, found = _from_polygons(adjacency) if hasattr(adjacency, "geometry") else _from_table(adjacency)
    elif isinstance(adjacency, Mapping):
        names, found = _from_mapping(adjacency)
    elif isinstance(adjacency, Iterable) and not isinstance(adjacency, str | bytes | np.ndarray):
        names, found = [], [_pair(item) for item in adjacency]
    else:
        raise DataError(
            f"adjacency cannot be read from {type(adjacency).__name__}.\n"
            "  Give a mapping of areas to neighbours, pairs, a square data frame labelled by area or a GeoDataFrame."
        )
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for a, b in found:
        if a == b:
            raise DataError(f"adjacency names {a!r} as its own neighbour.")
        pairs.setdefault(frozenset((a, b)), (a, b))
    every = tuple(dict.fromkeys([*names, *(name for pair in found for name in pair)]))
    if not pairs:
        raise DataError("adjacency holds no pair of neighbours: use (1 | area), which is the same model.")
    return every, tuple(pairs.values())


def neighbours(adjacency: Any) -> dict[str, list[str]]:
    """Return every area with its neighbours, each pair from one side, in the order of `read_adjacency`.

    Parameters
    ----------
    adjacency : mapping, iterable of pairs, square DataFrame or GeoDataFrame
        See `read_adjacency`.

    Returns
    -------
    dict
        Reads as the same areas and pairs.

    Examples
    --------
    >>> neighbours([("NY", "NJ"), ("NJ", "PA")])
    {'NY': ['NJ'], 'NJ': ['PA'], 'PA': []}
    """
    names, pairs = read_adjacency(adjacency)
    return {name: [b for a, b in pairs if a == name] for name in names}


def _pair(item: Any) -> tuple[str, str]:
    if isinstance(item, str) or not isinstance(item, Iterable) or len(both := tuple(item)) != 2:
        raise DataError(f"adjacency holds {item!r}, which is not a pair of areas.")
    return label(both[0]), label(both[1])


def _from_mapping(adjacency: Mapping[Any, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    found = []
    for area, neighbours in adjacency.items():
        if isinstance(neighbours, str) or not isinstance(neighbours, Iterable):
            raise DataError(
                f"adjacency[{area!r}] is {neighbours!r}, not a list of neighbours.\n  Write {{{area!r}: [...]}}."
            )
        found += [(label(area), label(other)) for other in neighbours]
    return [label(area) for area in adjacency], found


def _from_table(table: pd.DataFrame) -> tuple[list[str], list[tuple[str, str]]]:
    names, columns = [label(name) for name in table.index], [label(name) for name in table.columns]
    if sorted(names) != sorted(columns) or len(set(names)) < len(names):
        raise DataError("an adjacency table has the areas, each once, as its index and as its columns.")
    values = table.set_axis(names, axis=0).set_axis(columns, axis=1)[names].to_numpy()
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise DataError("an adjacency table holds 0 and 1, and nothing else.")
    if (values != values.T).any():
        i, j = np.argwhere(values != values.T)[0]
        raise DataError(
            f"the adjacency table is not symmetric: {names[i]!r} and {names[j]!r} are neighbours from one side only."
        )
    return names, [(names[i], names[j]) for i, j in np.argwhere(np.tril(values)).tolist()]


def _from_polygons(polygons: Any) -> tuple[list[str], list[tuple[str, str]]]:
    names = [label(name) for name in polygons.index]
    if isinstance(polygons.index, pd.RangeIndex):
        raise DataError("a GeoDataFrame must be indexed by area: adjacency=polygons.set_index('state').")
    if len(set(names)) < len(names):
        raise DataError("the GeoDataFrame holds an area twice: polygons.dissolve(by='state') makes one of each.")
    left, right = polygons.sindex.query(polygons.geometry, predicate="intersects")
    return names, [(names[i], names[j]) for i, j in zip(left.tolist(), right.tolist(), strict=True) if i < j]
