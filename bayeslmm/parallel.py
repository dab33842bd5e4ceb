"""Many independent computations in the order asked for: here, in threads, or on a cluster through joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def in_order(compute: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Compute something for every item.

    Parameters
    ----------
    compute : callable
        From an item to its result; pickled where workers are processes or other machines.
    items : iterable
        What to compute for.
    workers : int
        1 computes here; more are threads, -1 one per processor. Inside ``joblib.parallel_config`` (or
        ``parallel_backend``) the backend chosen there takes their place: Dask, Ray, loky.

    Yields
    ------
    object
        Results in the order of the items.

    Examples
    --------
    >>> list(in_order(abs, [-1, 2, -3], workers=2))
    [1, 2, 3]
    """
    if workers == 1:
        yield from map(compute, items)
        return
    from joblib import Parallel, delayed

    # A preference, not a choice: a backend that the caller has put in force wins.
    run = Parallel(n_jobs=workers, prefer="threads", batch_size="auto", return_as="generator")
    yield from run(delayed(compute)(item) for item in items)
