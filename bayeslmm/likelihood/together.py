"""Compiling two parts at once: a helper process fills numba's cache with one half while this process makes the other.

Numba compiles under one lock, so a thread would not help. The helper is a plain interpreter that is told what to
compile; it is started only when both halves are missing in the cache, and has ended when the call returns. Whatever
keeps it from its work (no interpreter to start, a machine with one core, a crash) costs time and nothing else: what is
still missing then is compiled here, on first use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from numba.core import config

from bayeslmm.likelihood import compile_time
from bayeslmm.likelihood._compiled import CFunction

_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from importlib import import_module
for place in sys.argv[2:]:
    module, _, name = place.partition(":")
    getattr(import_module(module), name).address
"""
_PATIENCE = 120.0  # seconds to wait for the helper when this process has done its half
_ONE_AT_A_TIME = threading.Lock()


def load_together(here: Sequence[CFunction], there: Sequence[CFunction]) -> None:
    """Compile what is missing in the cache, in this process and in a helper at the same time.

    Nothing happens when one half is complete: a function that is cached, or missing alone, is loaded or compiled when
    it is first called.

    Parameters
    ----------
    here, there : sequence of CFunction
        What a computation is about to need, in two parts that take about as long.
    """
    with _ONE_AT_A_TIME:
        mine = [function for function in here if not function.is_cached]
        others = [function for function in there if not function.is_cached] if mine else []
        if not others:
            return
        helper = _start(others)
        if helper is None:
            return
        try:
            for function in mine:
                _ = function.address
            began = time.perf_counter()
            helper.wait(_PATIENCE)
            compile_time.count(time.perf_counter() - began)
        except subprocess.TimeoutExpired:
            pass  # what is missing is compiled in this process
        finally:
            helper.kill()
            helper.wait()


def _start(functions: Sequence[CFunction]) -> subprocess.Popen[bytes] | None:
    """Return a process that compiles functions into the cache, nothing where there can be none."""
    # an application that embeds Python may name itself as the interpreter
    if (os.cpu_count() or 1) < 2 or not Path(sys.executable or "").name.lower().startswith("python"):
        return None
    path = json.dumps([str(entry) for entry in sys.path])
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, path, *(function.place for function in functions)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NUMBA_CACHE_DIR": config.CACHE_DIR},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError:
        return None
