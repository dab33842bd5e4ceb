"""A bar for fits that take longer than a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 1.0


@contextmanager
def fit_progress(patience: float = PATIENCE) -> Iterator[Callable[[int, float], None]]:
    """Give a function that shows evaluations and criterion once `patience` seconds have passed.

    Parameters
    ----------
    patience : float, default 1
        Seconds before anything is shown.

    Yields
    ------
    callable
        To be called with the number of evaluations and the value of the criterion.

    Examples
    --------
    >>> with fit_progress() as watch:
    ...     watch(3, 1743.6)
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    started = time.monotonic()
    bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True)
    task = bar.add_task("fitting", total=None)
    shown = False

    def watch(evaluations: int, value: float) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > patience:
            bar.start()
            shown = True
        bar.update(task, description=f"fitting: {evaluations} evaluations, criterion {value:.4f}")

    try:
        yield watch
    finally:
        if shown:
            bar.stop()
