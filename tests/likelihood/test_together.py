"""Compiling by two processes: what the helper does, and what happens when it cannot."""

from __future__ import annotations

import importlib
import sys
from itertools import count

import pytest
from numba.core import config, event

from bayeslmm.likelihood import together

MODULE = """
import os
from bayeslmm.likelihood._compiled import c_function

@c_function("float64(float64)")
def double(x):
    return 2.0 * x

@c_function("float64(float64)")
def half(x):
    return 0.5 * x
"""


NUMBER = count()


class Compilations(event.Listener):
    """Names of the functions that this process compiles."""

    def __init__(self):
        self.names = []

    def on_start(self, event):
        self.names.append(event.data["dispatcher"].__name__)

    def on_end(self, event):
        pass


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Two functions of a module of its own, and an empty cache."""
    name = f"two_functions_{next(NUMBER)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return importlib.import_module(name)


def load(functions):
    """Return which functions were compiled in this process."""
    listener = Compilations()
    with event.install_listener("numba:compile", listener):
        together.load_together([functions.double], [functions.half])
        assert functions.double(3.0) == 6.0
        assert functions.half(3.0) == 1.5
    return listener.names


def test_the_helper_compiles_the_other_half(functions):
    assert not functions.double.is_cached
    assert not functions.half.is_cached
    assert load(functions) == ["double"]


def test_the_helper_has_ended_when_the_call_returns(functions, monkeypatch):
    started = []
    start = together._start
    monkeypatch.setattr(together, "_start", lambda missing: started.append(start(missing)) or started[-1])
    load(functions)
    assert [helper.returncode for helper in started] == [0]


@pytest.mark.parametrize("executable", ["", "python-that-is-not-there", "/usr/bin/blender"])
def test_without_an_interpreter_all_is_compiled_here(functions, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert load(functions) == ["double", "half"]


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import time; time.sleep(60)"])
def test_a_helper_that_fails_or_hangs_costs_nothing_but_time(functions, monkeypatch, program):
    monkeypatch.setattr(together, "_PROGRAM", program)
    monkeypatch.setattr(together, "_PATIENCE", 0.1)
    assert load(functions) == ["double", "half"]


def test_an_interrupt_ends_the_helper_too(functions, monkeypatch):
    started = []
    start = together._start
    monkeypatch.setattr(together, "_start", lambda missing: started.append(start(missing)) or started[-1])

    class Interrupted:
        is_cached = False

        @property
        def address(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        together.load_together([Interrupted()], [functions.half])
    assert started[0].returncode is not None


def test_nothing_is_started_when_only_one_half_is_missing(functions, monkeypatch):
    _ = functions.double.address
    monkeypatch.setattr(together, "_start", lambda missing: pytest.fail("a helper for one half"))
    together.load_together([functions.double], [functions.half])
    together.load_together([functions.half], [functions.double])
