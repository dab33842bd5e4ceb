"""Compiling takes tens of seconds, once on a machine: say so while it goes on, and keep it apart from computing."""

from __future__ import annotations

import sys
import time
from typing import Any

from numba.core import event

NOTICE = "bayeslmm compiles its numerical code: this takes up to two minutes, once on this machine ..."
WORTH_SAYING = 1.0  # seconds


class _Compiling(event.Listener):
    """Adds up the time of our own compilations; one that another started counts as part of that.

    Numba compiles under a lock, so no two threads are in here together.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.depth = 0
        self.began = 0.0
        self.said = False

    def on_start(self, event: Any) -> None:
        if self.depth == 0 and not _ours(event.data["dispatcher"]):
            return
        if self.depth == 0:
            self.began = time.perf_counter()
            self.say()
        self.depth += 1

    def say(self) -> None:
        """Tell the user, once in a process."""
        if not self.said:
            self.said = True
            print(NOTICE, file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        if self.depth == 0:
            return
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.began


def _ours(dispatcher: Any) -> bool:
    function = getattr(dispatcher, "py_func", None) or getattr(dispatcher, "__wrapped__", None)
    return str(getattr(function, "__module__", "")).startswith("bayeslmm.")


_LISTENER = _Compiling()


def watch() -> None:
    """Begin to listen to numba; a second call changes nothing."""
    event.register("numba:compile", _LISTENER)


def count(seconds: float) -> None:
    """Count time spent waiting for another process that compiles for this one.

    Parameters
    ----------
    seconds : float
        To be left out of what computing takes.
    """
    _LISTENER.say()
    _LISTENER.seconds += seconds


class Stopwatch:
    """Measures what a computation took, without the time that compiling took meanwhile.

    Examples
    --------
    >>> clock = Stopwatch()
    >>> clock.seconds() < 1, clock.notes()
    (True, ())
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._compiled = _LISTENER.seconds

    def compiling(self) -> float:
        """Return the seconds that went into compiling our code since the start.

        Returns
        -------
        float
            Seconds.
        """
        return _LISTENER.seconds - self._compiled

    def seconds(self) -> float:
        """Return the wall time since the start, compiling left out.

        Returns
        -------
        float
            Seconds.
        """
        return max(time.perf_counter() - self._began - self.compiling(), 0.0)

    def notes(self) -> tuple[str, ...]:
        """Return what a reader should know about the time.

        Returns
        -------
        tuple of str
            Empty unless compiling took a second or more.
        """
        if self.compiling() < WORTH_SAYING:
            return ()
        return (f"Not counted: {self.compiling():.0f} s of compiling, once on this machine.",)
