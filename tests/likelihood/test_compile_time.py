import os
import subprocess
import sys

from bayeslmm.likelihood.compile_time import NOTICE, Stopwatch

PROGRAM = """
from numba import njit
from bayeslmm.likelihood import compile_time
from bayeslmm.likelihood.crossproducts import _bucket
from bayeslmm.bayes.densities import log_sech2
compile_time.WORTH_SAYING = 1e-9
clock = compile_time.Stopwatch()
njit(lambda x: x + 1)(1)
assert clock.compiling() == 0  # not ours
log_sech2(1.0)
once = clock.compiling()
_bucket.address  # C entries count too
print(once, clock.compiling() - once, *clock.notes())
"""


def run(cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.getcwd()}
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)


def test_compiling_is_said_once_and_not_counted_as_computing(tmp_path):
    first, later = run(tmp_path), run(tmp_path)
    assert first.stderr.count(NOTICE) == 1
    loop, entry, note = first.stdout.split(maxsplit=2)
    assert float(loop) > 0.01
    assert float(entry) > 0.01
    assert note.startswith("Not counted: ")
    assert NOTICE not in later.stderr
    assert later.stdout.split() == ["0.0", "0.0"]


def test_a_stopwatch_without_compiling_has_nothing_to_say():
    clock = Stopwatch()
    assert clock.seconds() < 1
    assert clock.notes() == ()
