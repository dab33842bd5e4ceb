"""Linear predictors for arrays of draws, the one meaning of `new_levels`, and rows with other values of a column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.contract import NEW_LEVELS, NewLevels
from bayeslmm.errors import DataError, NewLevelsError, did_you_mean, listing
from bayeslmm.formula.source import is_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.contract import Fit
    from bayeslmm.formula.design import Design, Factor

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
WEIGHTS = WEIGHTS / WEIGHTS.sum()

RELATIVE_STEP = 1e-4
"""Change of a numeric column behind a derivative, in its standard deviations."""


def check_new_levels(design: Design, new_levels: NewLevels, include: Sequence[str] | None = None) -> None:
    """Refuse unseen levels of a grouping factor unless a policy for them was chosen.

    Parameters
    ----------
    design : Design
        New data under the coding of the fitted model.
    new_levels : {"error", "zero", "sample"}
        The policy.
    include : sequence of str, optional
        Grouping factors that count; all when absent.

    Raises
    ------
    NewLevelsError
        If the policy is "error" and there are unseen levels.
    DataError
        If the policy is not one of the three.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    >>> check_new_levels(design, "error")
    """
    if new_levels not in NEW_LEVELS:
        raise DataError(f"new_levels={new_levels!r} is not one of {listing(map(repr, NEW_LEVELS))}.")
    if new_levels != "error":
        return
    for factor in included_factors(design, include):
        if factor.new_levels:
            rows = int(np.count_nonzero(factor.codes >= len(factor.levels)))
            raise NewLevelsError(
                f"{len(factor.new_levels)} level{'s' * (len(factor.new_levels) > 1)} of {factor.name!r} "
                f"{'were' if len(factor.new_levels) > 1 else 'was'} not in the fitted data: "
                f"{listing(map(repr, factor.new_levels))} ({rows} row{'s' * (rows != 1)}).\n"
                '  new_levels="sample" draws their effects from the fitted distribution; this is what MRP wants.\n'
                '  new_levels="zero" predicts at the population mean.'
            )


def included_factors(design: Design, include: Sequence[str] | None) -> tuple[Factor, ...]:
    """Return the grouping factors that count in a prediction.

    Parameters
    ----------
    design : Design
        The design.
    include : sequence of str, optional
        Names of grouping factors; all when absent.

    Returns
    -------
    tuple of Factor
        In the design's order.

    Raises
    ------
    DataError
        If a name is not a grouping factor of the design.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    >>> [factor.name for factor in included_factors(design, None)]
    ['Subject']
    """
    if include is None:
        return design.factors
    if isinstance(include, str):
        include = (include,)
    names = [factor.name for factor in design.factors]
    for name in include:
        if name not in names:
            hint = did_you_mean(name, names)
            raise DataError(f"there is no grouping factor {name!r}.\n  Factors: {listing(names)}. {hint}".rstrip())
    return tuple(factor for factor in design.factors if factor.name in include)


def linear_predictor(
    design: Design,
    beta: NDArray[np.float64],
    effects: Mapping[str, NDArray[np.float64]],
    *,
    covariances: Mapping[str, NDArray[np.float64]] | None = None,
    new_levels: NewLevels = "error",
    include: Sequence[str] | None = None,
    rng: np.random.Generator | None = None,
) -> NDArray[np.float64]:
    """Return draws of offset + X beta + Z b.

    Parameters
    ----------
    design : Design
        Rows to predict, n of them; from `Design.at` for new data.
    beta : ndarray (S, p)
        Draws of the coefficients.
    effects : mapping of str to ndarray (S, J, K)
        Draws of the effects of each grouping factor.
    covariances : mapping of str to ndarray (S, K, K), optional
        Draws of the covariance of each factor's effects; needed for ``new_levels="sample"``.
    new_levels : {"error", "zero", "sample"}, default "error"
        Policy for unseen levels. A level seen in several rows has one effect per draw.
    include : sequence of str, optional
        Grouping factors that count; all when absent.
    rng : numpy Generator, optional
        Source of the effects of unseen levels.

    Returns
    -------
    ndarray (S, n)
        The linear predictor.

    Raises
    ------
    NewLevelsError
        If there are unseen levels and the policy is "error".

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    >>> eta = linear_predictor(design, np.array([[250.0, 10.0]]), {"Subject": np.zeros((1, 18, 1))})
    >>> eta[0, :3]
    array([250., 260., 270.])
    """
    check_new_levels(design, new_levels, include)
    eta = beta @ design.X.T
    if design.offset is not None:
        eta += design.offset
    for factor in included_factors(design, include):
        values = effects[factor.name]
        if factor.new_levels:
            values = _with_new_levels(factor, values, covariances, new_levels, rng)
        for k in range(factor.Z.shape[1]):
            eta += values[:, factor.codes, k] * factor.Z[:, k]
    return eta


def _with_new_levels(
    factor: Factor,
    values: NDArray[np.float64],
    covariances: Mapping[str, NDArray[np.float64]] | None,
    new_levels: NewLevels,
    rng: np.random.Generator | None,
) -> NDArray[np.float64]:
    """Append the effects of unseen levels, whose codes follow those of the fitted ones."""
    draws, _, width = values.shape
    shape = (draws, len(factor.new_levels), width)
    if new_levels == "zero" or covariances is None:
        return np.concatenate([values, np.zeros(shape)], axis=1)
    rng = np.random.default_rng() if rng is None else rng
    root = matrix_root(covariances[factor.name])
    fresh = np.einsum("skl,sjl->sjk", root, rng.standard_normal(shape))
    return np.concatenate([values, fresh], axis=1)


def matrix_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R with R R' equal to each covariance, also where it is singular.

    Parameters
    ----------
    covariance : ndarray (..., K, K)
        Symmetric, positive semi-definite.

    Returns
    -------
    ndarray (..., K, K)
        The roots.

    Examples
    --------
    >>> import numpy as np
    >>> matrix_root(np.array([[4.0, 0.0], [0.0, 0.0]])) @ np.array([[0.0], [1.0]])
    array([[2.],
           [0.]])
    """
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


# --- what would be, had a column another value ---------------------------------------------------------------------


@dataclass(frozen=True)
class Counterfactual:
    """The fitted rows twice, with two values of one column.

    Parameters
    ----------
    term : str
        The column.
    contrast : str
        "dY/dX", or two levels of a factor: "4 - 1".
    low, high : Design
        The rows with either value.
    step : float
        What a difference of expected responses is divided by.
    """

    term: str
    contrast: str
    low: Design
    high: Design
    step: float


def counterfactuals(design: Design, variables: str | Sequence[str] | None = None) -> Iterator[Counterfactual]:
    """Yield the changes behind marginal effects: small ones of numeric columns, from the first level of factors.

    Parameters
    ----------
    design : Design
        The fitted rows.
    variables : str or sequence of str, optional
        Columns of the fixed part; all when absent.

    Yields
    ------
    Counterfactual
        One for each numeric column and each level of a factor but the first.

    Raises
    ------
    DataError
        If there is no such column in the fixed part.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("score ~ Machine + (1 | Worker)", blm.datasets.load("Machines"))
    >>> [change.contrast for change in counterfactuals(design)]
    ['B - A', 'C - A']
    """
    from bayeslmm.formula.parse import side_names

    used = set(side_names(design.encoder.fixed.text))
    known = {name: kinds for name, kinds in design.encoder.coding.levels.items() if name in used}
    wanted = list(known) if variables is None else [variables] if isinstance(variables, str) else list(variables)
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            raise DataError(f"{name!r} is no column of the fixed part.\n  Columns: {listing(known)}. {hint}".rstrip())
    frame = design.data
    for name in wanted:
        kinds = known[name]
        if kinds is None:
            values = frame[name].to_numpy(dtype=np.float64)
            step = RELATIVE_STEP * (float(values.std()) or 1.0)
            pair = [design.at(frame.assign(**{name: values + move})) for move in (-step / 2, step / 2)]
            yield Counterfactual(name, "dY/dX", pair[0], pair[1], step)
            continue
        at = [design.at(frame.assign(**{name: _all_equal(frame[name], level)})) for level in kinds]
        for level, high in zip(kinds[1:], at[1:], strict=True):
            yield Counterfactual(name, f"{level} - {kinds[0]}", at[0], high, 1.0)


def _all_equal(column: pd.Series, level: str) -> pd.Series:
    """Return a column of the same kind with one value throughout: the one whose name is `level`."""
    here = column.astype(str) == level
    value = column[here].iloc[0] if here.any() else level
    return pd.Series([value] * len(column), index=column.index).astype(column.dtype)


def stays_in_engine(design: Design, new_data: Any) -> bool:
    """Return whether the rows to predict are in an engine: those given, or the fitted ones.

    Parameters
    ----------
    design : Design
        Of the fitted model.
    new_data : object
        Rows to predict; None for the fitted ones.

    Returns
    -------
    bool
        True where `predict_lazily` serves.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
    >>> stays_in_engine(design, None), stays_in_engine(design, "new/*.parquet")
    (False, True)
    """
    return design.condensation is not None if new_data is None else is_source(new_data)


def predict_lazily(
    fit: Fit,
    new_data: Any,
    *,
    link: str,
    new_levels: NewLevels = "error",
    include: Sequence[str] | None = None,
    interval: str | None = None,
    covariances: Mapping[str, NDArray[np.float64]] | None = None,
) -> Any:
    """Return a table of an engine with its expected responses, computed when it is asked for its rows.

    Parameters
    ----------
    fit : Fit
        Coefficients and group effects.
    new_data : Ibis table, DuckDB relation, Polars LazyFrame, path or None
        The rows; the source of the fitted rows when None.
    link : str
        Link of the mean; "identity" for the linear predictor.
    new_levels : {"error", "zero", "sample"}, default "error"
        Policy for unseen levels. "error" counts them by one scan.
    include : sequence of str, optional
        Grouping factors that count; all when absent.
    interval : None
        Refused otherwise.
    covariances : mapping of str to ndarray (K, K), optional
        Of the effects of each factor: ``new_levels="sample"`` averages over them.

    Returns
    -------
    Ibis table, DuckDB relation or Polars LazyFrame
        The columns of the table and `estimate`, which is null where a value is missing.

    Raises
    ------
    NewLevelsError
        If there are unseen levels of a grouping factor and the policy is "error".
    DataError
        If a category was not in the fitted data, or the engine cannot compute the prediction.
    """
    from bayeslmm.formula.lazy import OWN, LazyPredictor
    from bayeslmm.formula.source import open_source

    if interval is not None:
        raise DataError(
            "standard errors and intervals of rows in an engine are not computed by it.\n"
            "  predict(table) gives the estimates; for an interval fetch the rows: predict(table.to_pandas(), ...)."
        )
    if new_levels not in NEW_LEVELS:
        raise DataError(f"new_levels={new_levels!r} is not one of {listing(map(repr, NEW_LEVELS))}.")
    design = fit.design
    source = design.condensation.source if new_data is None and design.condensation else open_source(new_data)
    effects = {factor.name: fit.ranef[factor.name].to_numpy() for factor in included_factors(design, include)}
    lazy = LazyPredictor(design, source, fit.fixef.to_numpy(), effects)
    if new_data is not None:
        _refuse_unseen(lazy, new_levels)
    spread = covariances if new_levels == "sample" and link != "identity" else None
    eta, variance = lazy.predictor(spread)
    names = source.table.columns
    table = lazy.joined.mutate(**{f"{OWN}eta": eta, **({} if variance is None else {f"{OWN}v": variance})})
    mean = _engine_mean(link, table[f"{OWN}eta"], None if variance is None else table[f"{OWN}v"])
    return source.lazily(table.mutate(estimate=mean).select(*names, "estimate"), lazy.frame)


def _refuse_unseen(lazy: Any, new_levels: NewLevels) -> None:
    factors, categories = lazy.unseen()
    for name, (rows, level) in categories.items():
        raise DataError(
            f"{name!r} holds {level!r}, not among its levels ({rows} row{'s' * (rows != 1)}).\n"
            "  A coefficient exists only for these; leave the rows out, or recode them."
        )
    if new_levels == "error":
        for name, (rows, level) in factors.items():
            raise NewLevelsError(
                f"levels of {name!r} were not in the fitted data, e.g. {level!r} ({rows} row{'s' * (rows != 1)}).\n"
                '  new_levels="sample" averages over the fitted distribution of their effects.\n'
                '  new_levels="zero" predicts at the population mean.'
            )


def _engine_mean(link: str, eta: Any, variance: Any) -> Any:
    """Return the inverse link as an expression, averaged over a normal part of the linear predictor."""
    if link == "identity":
        return eta
    if link == "log":
        return (eta if variance is None else eta + 0.5 * variance).exp()
    inverses = {"logit": lambda x: 1.0 / (1.0 + (-x).exp()), "cloglog": lambda x: 1.0 - (-x.exp()).exp()}
    if link not in inverses:
        raise DataError(
            f"engines do not compute the inverse of the link {link!r}.\n"
            '  Ask for scale="link" and transform it, or fetch the rows.'
        )
    if variance is None:
        return inverses[link](eta)
    sd = variance.sqrt()
    nodes = zip(map(float, NODES), map(float, WEIGHTS), strict=True)
    terms = [weight * inverses[link](eta + node * sd) for node, weight in nodes]
    return sum(terms[1:], terms[0])


def numeric_column(design: Design, name: str) -> NDArray[np.float64]:
    """Return a numeric column of the fitted rows.

    Parameters
    ----------
    design : Design
        The formula met by data.
    name : str
        The column.

    Returns
    -------
    ndarray (n,)
        Its values.

    Raises
    ------
    DataError
        If there is no such numeric column.
    """
    data = design.data
    numeric = [str(column) for column in data.columns if pd.api.types.is_numeric_dtype(data[column])]
    if name not in numeric:
        raise DataError(
            f"there is no numeric column {name!r} in the model.\n"
            f"  Numeric columns: {listing(numeric)}. {did_you_mean(name, numeric)}".rstrip()
        )
    return data[name].to_numpy(dtype=np.float64)
