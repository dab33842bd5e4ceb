"""Exceptions and warnings: what went wrong, where (a caret), the likely cause, the way out."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from pathlib import Path


class BayesLmmError(Exception):
    """Base of every error that bayeslmm raises on purpose."""


class FormulaError(BayesLmmError, ValueError):
    """The formula cannot be read, or asks for something that is not there."""


class DataError(BayesLmmError, ValueError):
    """The data cannot be used with this formula."""


class NewLevelsError(DataError):
    """New data hold levels of a grouping factor that the fitted data did not."""


class SourceChangedError(DataError):
    """The rows of a source were not the same in two scans."""


class PriorError(BayesLmmError, ValueError):
    """A prior names something the model does not have, or has impossible parameters."""


class FitError(BayesLmmError, RuntimeError):
    """The fit could not be computed."""


class SamplingError(BayesLmmError, RuntimeError):
    """The posterior could not be drawn."""


class ComparisonError(BayesLmmError, ValueError):
    """Two results cannot be compared, or a hypothesis cannot be tested."""


class MissingDependencyError(BayesLmmError, ImportError):
    """An optional package is needed and not installed."""


class BayesLmmWarning(UserWarning):
    """Base of every warning that bayeslmm gives."""


class SingularFitWarning(BayesLmmWarning):
    """The estimate lies on the boundary of the parameter space."""


class ConvergenceWarning(BayesLmmWarning):
    """The optimiser or sampler did not reach its tolerance."""


class DataWarning(BayesLmmWarning):
    """The data were used, but something about them deserves a look."""


def warn(message: str, kind: type[Warning]) -> None:
    """Warn at the user's own line, however deep in the package the reason was found.

    Parameters
    ----------
    message : str
        What to know, and what to do.
    kind : type
        One of the warnings above.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("three rows only", DataWarning)
    >>> str(caught[0].message)
    'three rows only'
    """
    warnings.warn(message, kind, skip_file_prefixes=(str(Path(__file__).parent),))


def underline(text: str, span: tuple[int, int]) -> str:
    """Return the line of `text` that holds `span`, with carets under it.

    Parameters
    ----------
    text : str
        The whole text, possibly of several lines.
    span : tuple of int
        Start and stop, in characters of `text`.

    Returns
    -------
    str
        Two lines, indented by two blanks.

    Examples
    --------
    >>> print(underline("y ~ dayz", (4, 8)))
      y ~ dayz
          ^^^^
    """
    start, stop = span
    line_start = text.rfind("\n", 0, start) + 1
    line_stop = text.find("\n", start)
    line = text[line_start:] if line_stop < 0 else text[line_start:line_stop]
    width = max(1, min(stop, line_start + len(line)) - start)
    return f"  {line}\n  {' ' * (start - line_start)}{'^' * width}"


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return a sentence that offers the nearest of `options`, or an empty string.

    Parameters
    ----------
    word : str
        What was typed.
    options : iterable of str
        What could have been meant.

    Returns
    -------
    str
        ``"Did you mean 'days'?"``, or ``""`` when nothing is near.

    Examples
    --------
    >>> did_you_mean("dayz", ["reaction", "days"])
    "Did you mean 'days'?"
    """
    options = list(options)
    folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return f"Did you mean '{folded[near[0]]}'?" if near else ""


def listing(names: Iterable[str], limit: int = 12) -> str:
    """Return names separated by commas, the tail of a long list counted instead of shown.

    Parameters
    ----------
    names : iterable of str
        What to list.
    limit : int, default 12
        How many to show.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> listing(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    names = [str(name) for name in names]
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
