"""Does the census speak the survey's language? What differs between a poststratification frame and a model's data."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, did_you_mean, listing
from bayeslmm.formula.grouping import factorise, joint_levels, label
from bayeslmm.formula.parse import side_names
from bayeslmm.report.tables import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.mrp.frame import PoststratFrame

Severity = Literal["error", "warning", "note"]
SAME_NUMBER = 1e-8
NEAR = 0.85


@dataclass(frozen=True)
class Finding:
    """One difference between frame and survey.

    Parameters
    ----------
    severity : {"error", "warning", "note"}
        "error" stops poststratification, "warning" is likely a mistake, "note" is worth knowing.
    column : str
        Where.
    message : str
        What, and the way out.
    """

    severity: Severity
    column: str
    message: str


@dataclass(frozen=True, repr=False)
class FrameCheck:
    """What differs between a frame and the data of a model.

    Parameters
    ----------
    findings : tuple of Finding
        Errors first.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> survey = {"y": [1, 2, 3, 4], "age": [20, 30, 40, 50], "state": ["CA", "CA", "TX", "TX"]}
    >>> design = blm.build_design("y ~ age + (1 | state)", survey)
    >>> frame = blm.PoststratFrame({"age": [30, 40, 45], "state": ["CA", "TX", "NY"], "n": [3, 2, 5]})
    >>> print(frame.check(design))
    1 note
      note     state: 1 level not in the survey: 'NY' (1 cell, 50 % of the population).
               new_levels="sample" draws their effects.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    def raise_errors(self) -> None:
        """Raise what stops poststratification.

        Raises
        ------
        DataError
            With every error in its text.
        """
        errors = [f"{finding.column!r}: {finding.message}" for finding in self.findings if finding.severity == "error"]
        if errors:
            raise DataError("the frame does not fit the model.\n  " + "\n  ".join(errors))

    def to_pandas(self) -> pd.DataFrame:
        """Return the findings, one row each.

        Returns
        -------
        DataFrame
            Columns `severity`, `column`, `message`.
        """
        rows = [(finding.severity, finding.column, finding.message) for finding in self.findings]
        return pd.DataFrame(rows, columns=["severity", "column", "message"])

    def __str__(self) -> str:
        if not self.findings:
            return "Frame and survey agree in every column and level."
        kinds = [finding.severity for finding in self.findings]
        head = ", ".join(
            f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) != 1)}"
            for kind in ("error", "warning", "note")
            if kind in kinds
        )
        lines = [f"  {finding.severity:<8} {finding.column}: {finding.message}" for finding in self.findings]
        return "\n".join([head, *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return Table(self.to_pandas().set_index("severity"), title="Frame against survey").to_html()


def design_of(model: Any) -> Design:
    """Return the design of a model, a fit, a posterior, or a design itself.

    Parameters
    ----------
    model : Model, Fit or Design
        What was built from the survey.

    Returns
    -------
    Design
        The formula met by the survey.
    """
    return getattr(model, "design", model)


def covariates(design: Design) -> tuple[str, ...]:
    """Return the columns a prediction needs: fixed columns, random terms and offsets, without the response.

    Parameters
    ----------
    design : Design
        The formula met by the survey.

    Returns
    -------
    tuple of str
        In order of appearance.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> covariates(blm.build_design("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy")))
    ('Days', 'Subject')
    """
    formula = design.formula
    sides = [formula.fixed, *(term.columns for term in formula.random), *formula.offsets]
    names = [name for side in sides for name in side_names(side)]
    names += [name for term in formula.random for name in term.group]
    return tuple(dict.fromkeys(names))


def grouping_columns(design: Design, factors: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return the columns that make grouping factors.

    Parameters
    ----------
    design : Design
        The formula met by the survey.
    factors : tuple of str, optional
        Which factors; all when absent.

    Returns
    -------
    tuple of str
        Each once.
    """
    terms = [term for term in design.formula.random if factors is None or term.factor in factors]
    return tuple(dict.fromkeys(name for term in terms for name in term.group))


def outside(cells: pd.DataFrame, design: Design, factors: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return sentences on respondents whose levels are not in a population.

    Parameters
    ----------
    cells : DataFrame
        The population.
    design : Design
        The formula met by the survey.
    factors : tuple of str, optional
        Grouping factors that count; all when absent.

    Returns
    -------
    tuple of str
        One for each grouping column with such levels.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("y ~ (1 | state)", {"y": [1, 2, 3, 4], "state": ["CA", "CA", "TX", "TX"]})
    >>> outside(pd.DataFrame({"state": ["CA"]}), design)
    ("Not in the frame: 'TX' of 'state' (2 respondents, who inform the model but no estimate).",)
    """
    design = _respondents(design)
    sentences = []
    for name in grouping_columns(design, factors):
        there, survey = set(factorise(cells[name]).labels), factorise(design.data[name])
        absent = [level for level in survey.labels if level not in there]
        if absent:
            rows = np.isin(survey.codes, [survey.labels.index(level) for level in absent])
            people = round(float(rows.sum() if design.trials is None else design.trials[rows].sum()))
            sentences.append(
                f"Not in the frame: {_named(absent)} of {name!r} ({people:,} respondent{'s' * (people != 1)},"
                " who inform the model but no estimate)."
            )
    return tuple(sentences)


def check_frame(frame: PoststratFrame, model: Any, exclude: Sequence[str] = ()) -> FrameCheck:
    """Compare a frame with the data of a model; see `PoststratFrame.check`.

    Parameters
    ----------
    frame : PoststratFrame
        The population.
    model : Model, Fit or Design
        What was built from the survey.
    exclude : sequence of str
        Grouping factors that will not count.

    Returns
    -------
    FrameCheck
        Differences, errors first.
    """
    found = list(_findings(frame, _respondents(design_of(model)), exclude))
    order = ("error", "warning", "note")
    return FrameCheck(tuple(sorted(found, key=lambda finding: order.index(finding.severity))))


def _respondents(design: Design) -> Design:
    """Return the survey's rows; of a source the condensed ones, each with the number of respondents it stands for."""
    cells = design.condensation
    if cells is None:
        return design
    trials = 1.0 if cells.design.trials is None else cells.design.trials
    return replace(cells.design, trials=cells.counts * np.square(cells.ones) * trials)


def _findings(frame: PoststratFrame, design: Design, exclude: Sequence[str]) -> Iterator[Finding]:
    shared = []
    factors = tuple(term.factor for term in design.formula.random if term.factor not in exclude)
    used = {*design.encoder.names, *grouping_columns(design, factors)}
    for name in covariates(design):
        if name not in used:
            continue
        if name not in frame.data.columns:
            hint = did_you_mean(name, frame.covariates)
            only_groups = name not in design.encoder.names
            alone = f" If it belongs to the survey alone: exclude=({name!r},)." if only_groups else ""
            yield Finding("error", name, f"the frame has no such column. {hint}".rstrip() + alone)
        else:
            if name not in design.data.columns:
                continue  # a number that the engine summed: its range is not known here
            shared.append(name)
            yield from _check_column(frame, design, name)
    yield from _check_factors(frame, design, shared)
    yield from _check_group_predictors(frame, design, shared)


def _check_column(frame: PoststratFrame, design: Design, name: str) -> Iterator[Finding]:
    cells, survey = frame.data[name], design.data[name]
    missing = cells.isna().to_numpy()
    if missing.any():
        yield Finding(
            "error", name, f"missing in {_share(frame, missing)}: fill it in, or frame.filter such cells out."
        )
    groups_only = name in grouping_columns(design) and name not in side_names(design.formula.fixed)
    if groups_only or not (_is_number(cells) and _is_number(survey)):
        if _is_number(cells) != _is_number(survey) and not groups_only:
            kinds = ["numbers" if _is_number(column) else "text" for column in (cells, survey)]
            yield Finding("error", name, f"the frame has {kinds[0]}, the survey {kinds[1]}.")
        yield from _check_levels(frame, design, name, groups_only)
    else:
        yield from _check_range(frame, cells.to_numpy(float), survey.to_numpy(float), name)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype)


def _check_levels(frame: PoststratFrame, design: Design, name: str, groups_only: bool) -> Iterator[Finding]:
    cells, survey = factorise(frame.data[name]), factorise(design.data[name])
    new = [level for level in cells.labels if level not in survey.labels]
    absent = [level for level in survey.labels if level not in cells.labels]
    if absent:
        rows = int(np.isin(survey.codes, [survey.labels.index(level) for level in absent]).sum())
        yield Finding(
            "warning",
            name,
            f"{_levels(absent)} of the survey not in the frame: {_named(absent)} "
            f"({rows:,} respondent{'s' * (rows != 1)} outside the population).",
        )
    for level in new:
        near = nearest_level(level, absent) or nearest_level(level, survey.labels)
        if near is not None:
            yield Finding(
                "warning", name, f"{level!r} in the frame looks like {near!r} in the survey: recode one of them."
            )
    if new:
        where = np.isin(cells.codes, [cells.labels.index(level) for level in new])
        message = f"{_levels(new)} not in the survey: {_named(new)} ({_share(frame, where)})."
        strangers = [level for level in new if level not in _placed_levels(design, name, level)]
        if strangers:
            yield Finding(
                "error", name, f"{_named(strangers)} has no place in the structure of {name!r}; recode or filter."
            )
        elif _is_smoothed_only(design, name):
            yield Finding("note", name, message + "\n           Their neighbours say what to expect of them.")
        elif groups_only:
            yield Finding("note", name, message + '\n           new_levels="sample" draws their effects.')
        else:
            yield Finding("error", name, message + " A fixed effect cannot be estimated for them; recode or filter.")


def _placed_levels(design: Design, name: str, otherwise: str) -> tuple[str, ...]:
    """Return the levels that every structured term over a column knows; any level where there is no such term."""
    terms = [term for term in design.formula.random if term.structure is not None and name in term.group]
    return design.encoder.loadings[terms[0].factor].levels if terms else (otherwise,)


def _is_smoothed_only(design: Design, name: str) -> bool:
    terms = [term for term in design.formula.random if name in term.group]
    return bool(terms) and all(term.structure is not None for term in terms)


def nearest_level(level: str, others: tuple[str, ...] | list[str]) -> str | None:
    """Return the level that is spelt almost alike, if there is one.

    Parameters
    ----------
    level : str
        A level of the frame.
    others : sequence of str
        Levels of the survey.

    Returns
    -------
    str or None
        The nearest: equal but for case, blanks and punctuation, or a close match of at least four letters.

    Examples
    --------
    >>> nearest_level("hispanic ", ["Hispanic", "White"])
    'Hispanic'
    >>> nearest_level("TX", ["TN"]) is None
    True
    """
    plain: Callable[[str], str] = lambda text: "".join(ch for ch in text.casefold() if ch.isalnum())  # noqa: E731
    same = {plain(other): other for other in others if plain(other)}
    if plain(level) in same:
        return same[plain(level)]
    if any(character.isdigit() for character in level) or len(level) < 4:
        return None
    close = difflib.get_close_matches(plain(level), list(same), n=1, cutoff=NEAR)
    return same[close[0]] if close else None


def _check_range(
    frame: PoststratFrame, cells: NDArray[np.float64], survey: NDArray[np.float64], name: str
) -> Iterator[Finding]:
    low, high = survey.min(), survey.max()
    slack = SAME_NUMBER * max(abs(low), abs(high), 1.0)
    outside = (cells < low - slack) | (cells > high + slack)
    if outside.any():
        yield Finding(
            "note",
            name,
            f"outside the survey's range {low:.6g} to {high:.6g} in {_share(frame, outside)}: "
            "predictions there extrapolate.",
        )


def _check_factors(frame: PoststratFrame, design: Design, shared: list[str]) -> Iterator[Finding]:
    """Crossed factors: combinations that the survey never saw."""
    crossed = dict.fromkeys(term.group for term in design.formula.random if len(term.group) > 1)
    for group in crossed:
        if not set(group) <= set(shared):
            continue
        name = ":".join(group)
        cells = joint_levels([factorise(frame.data[column]) for column in group], name)
        survey = set(joint_levels([factorise(design.data[column]) for column in group], name).labels)
        new = [code for code, level in enumerate(cells.labels) if level not in survey]
        if new:
            where = np.isin(cells.codes, new)
            yield Finding(
                "note",
                name,
                f"{len(new):,} of {len(cells.labels):,} combinations not in the survey ({_share(frame, where)}).",
            )


def _check_group_predictors(frame: PoststratFrame, design: Design, shared: list[str]) -> Iterator[Finding]:
    """Numbers that are constant within a group on both sides must be the same number."""
    groups = [name for name in grouping_columns(design) if name in shared]
    for name in shared:
        if name in groups or not (_is_number(frame.data[name]) and _is_number(design.data[name])):
            continue
        for group in groups:
            here, there = _constant_within(frame.data, group, name), _constant_within(design.data, group, name)
            if here is None or there is None:
                continue
            both = pd.concat([here, there], axis=1, keys=["frame", "survey"], join="inner")
            gap = (both["frame"] - both["survey"]).abs()
            differ = gap > SAME_NUMBER * both.abs().max(axis=1).clip(lower=1e-300)
            if differ.any():
                at = int(np.argmax(gap.to_numpy()))
                yield Finding(
                    "warning",
                    name,
                    f"differs between frame and survey for {int(differ.sum())} of {len(both)} levels "
                    f"of {group!r} (most for {both.index[at]!r}: {both['frame'].iloc[at]:.6g} against "
                    f"{both['survey'].iloc[at]:.6g}). Standardised separately? Join both from one table with "
                    "group_predictors.",
                )
            break


def _constant_within(data: pd.DataFrame, group: str, name: str) -> pd.Series | None:
    """Return the value of a column per level of a group if it is one value each and varies between them."""
    column = data[name].astype(float)
    by_level = column.groupby(data[group].map(label).to_numpy())
    low, high = by_level.min(), by_level.max()
    constant = bool(((high - low).abs() <= SAME_NUMBER * (1 + high.abs())).all())
    return high if constant and len(high) > 2 and high.nunique() > 2 else None


def _levels(levels: list[str]) -> str:
    return f"{len(levels)} level{'s' * (len(levels) != 1)}"


def _named(levels: list[str]) -> str:
    return listing(map(repr, levels))


def _share(frame: PoststratFrame, cells: NDArray[np.bool_]) -> str:
    count = int(np.count_nonzero(cells))
    people = frame.weights[cells].sum() / frame.total
    return f"{count:,} cell{'s' * (count != 1)}, {100 * people:.3g} % of the population"
