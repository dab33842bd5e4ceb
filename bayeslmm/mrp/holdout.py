"""Leave-one-group-out validation: what the model says of a state whose respondents it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.contract import Fit
from bayeslmm.errors import DataError, listing
from bayeslmm.formula.design import Design, GroupTerm, rescaled
from bayeslmm.formula.grouping import factorise
from bayeslmm.models import Model
from bayeslmm.mrp.estimates import Estimates
from bayeslmm.mrp.frame import PoststratFrame
from bayeslmm.mrp.grouping import Groups
from bayeslmm.mrp.poststratify import poststratify
from bayeslmm.mrp.reading import require_column
from bayeslmm.mrp.survey import raw_means
from bayeslmm.parallel import in_order


def leave_one_out(
    model: Model,
    frame: PoststratFrame,
    group: str = "state",
    *,
    levels: Sequence[str] | None = None,
    estimate: Callable[[Model], Fit] = Model.fit,
    exclude: Sequence[str] = (),
    seed: int = 0,
    workers: int = 1,
) -> Estimates:
    """Estimate every group from a model that never saw its respondents.

    Parameters
    ----------
    model : Model
        The model of all respondents.
    frame : PoststratFrame
        The population.
    group : str, default "state"
        A column of the survey.
    levels : sequence of str, optional
        Which levels to leave out, one at a time; all that have respondents when absent.
    estimate : callable, optional
        From a model to a result: ``Model.fit`` when absent, ``lambda m: m.sample(seed=1)`` for posteriors.
    exclude : sequence of str, optional
        Grouping factors that do not count, as in `poststratify`.
    seed : int, default 0
        Of the draws.
    workers : int, default 1
        Levels at a time: threads, -1 for all processors, or whatever backend of joblib is in force, such as Dask's.

    Returns
    -------
    Estimates
        One per level, with the raw means of the respondents left out beside them; `against` compares with known
        outcomes.

    Raises
    ------
    DataError
        If the group is not a column of the survey, or a coefficient cannot be estimated without one of its levels.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> simulated = blm.datasets.simulate_poll(1500, seed=1)
    >>> frame = blm.PoststratFrame(simulated.population)
    >>> model = blm.model("yes ~ sex + (1 | state) + (1 | age)", simulated.poll, family="bernoulli")
    >>> left_out = blm.leave_one_out(model, frame, levels=["CA", "TX"])
    >>> left_out.labels
    ('CA', 'TX')
    """
    design = model.design
    require_column(group, design.data.columns)
    found = factorise(design.data[group])
    chosen = list(found.labels if levels is None else levels)
    for level in chosen:
        if level not in found.labels:
            raise DataError(f"no respondent has {group!r} equal to {level!r}.\n  Levels: {listing(found.labels)}.")
    whole = raw_means_of(design, found.codes, [found.labels.index(level) for level in chosen])

    def left_out(level: str) -> Estimates:
        rest = replace(model, design=without_rows(design, found.codes == found.labels.index(level), level))
        cells = (frame.data[group].map(str) == level).to_numpy()
        return poststratify(
            estimate(rest), frame, by=group, where=cells, new_levels="sample", exclude=exclude, seed=seed
        )

    return _joined(list(in_order(left_out, chosen, workers)), whole)


def raw_means_of(design: Design, codes: NDArray[Any], chosen: Sequence[int]) -> pd.DataFrame:
    """Return number, mean and standard error of the respondents of some levels.

    Parameters
    ----------
    design : Design
        The survey.
    codes : ndarray (n,)
        Level of each row.
    chosen : sequence of int
        Which levels.

    Returns
    -------
    DataFrame
        Columns `n`, `raw`, `raw_se`.
    """
    assert design.y is not None
    groups = Groups(pd.DataFrame(index=range(int(codes.max()) + 1)), (codes.astype(np.intp),))
    trials = np.ones(design.n) if design.trials is None else design.trials
    return raw_means(groups, design.y, trials).iloc[list(chosen)].reset_index(drop=True)


def without_rows(design: Design, left_out: NDArray[np.bool_], level: str = "") -> Design:
    """Return a design without some rows, and without the levels that only they have.

    Parameters
    ----------
    design : Design
        The survey.
    left_out : ndarray (n,) of bool
        Rows to leave out.
    level : str, default ""
        What they are, for messages.

    Returns
    -------
    Design
        The rest.

    Raises
    ------
    DataError
        If the columns of the coefficients depend on each other without these rows.
    """
    keep = ~left_out
    X = np.ascontiguousarray(design.X[keep])
    if np.linalg.matrix_rank(X) < X.shape[1]:
        raise DataError(f"without {level!r} the coefficients cannot all be estimated: a category occurs only there.")
    return replace(
        design,
        y=None if design.y is None else design.y[keep],
        X=X,
        terms=tuple(_term_without(term, keep) for term in design.terms),
        weights=None if design.weights is None else design.weights[keep],
        offset=None if design.offset is None else design.offset[keep],
        survey_weights=rescaled(design.survey_weights, keep),
        rows=design.rows[keep],
        data=design.data.loc[keep].reset_index(drop=True),
        trials=None if design.trials is None else design.trials[keep],
    )


def _term_without(term: GroupTerm, keep: NDArray[np.bool_]) -> GroupTerm:
    codes = term.codes[keep]
    used = np.bincount(codes, minlength=len(term.levels)) > 0
    place = (np.cumsum(used) - 1).astype(np.int32)
    levels = tuple(name for name, kept in zip(term.levels, used, strict=True) if kept)
    return replace(term, Z=np.ascontiguousarray(term.Z[keep]), codes=place[codes], levels=levels)


def _joined(parts: Sequence[Estimates], survey: pd.DataFrame) -> Estimates:
    plug_in = [part.plug_in for part in parts if part.plug_in is not None]
    return replace(
        parts[0],
        groups=pd.concat([part.groups for part in parts], ignore_index=True),
        draws=np.concatenate([part.draws for part in parts], axis=1),
        population=np.concatenate([part.population for part in parts]),
        plug_in=np.concatenate(plug_in) if len(plug_in) == len(parts) else None,
        survey=survey,
        notes=(*parts[0].notes, "Every group was estimated without its own respondents."),
    )
