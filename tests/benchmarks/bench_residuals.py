"""What a residual structure costs: fits and posteriors with and without one, at growing numbers of rows.

Run ``python tests/benchmarks/bench_residuals.py [calls]`` (3 when not said, after one to warm up); it prints a table in
Markdown: median seconds of a whole call of ``fit()`` (formula and data frame in) and
of ``sample(draws=500, chains=2)`` up to 3,000 rows.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bayeslmm as blm
from bayeslmm.errors import SingularFitWarning

MOST_SAMPLED = 3000


def panel(groups: int, size: int, seed: int = 1) -> pd.DataFrame:
    """Return groups observed at times 0, 1, ..., residuals autocorrelated at 0.4 and unequal between two arms."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((groups, size))
    for t in range(1, size):
        noise[:, t] = 0.4 * noise[:, t - 1] + np.sqrt(1 - 0.4**2) * noise[:, t]
    arm = np.arange(groups) % 2
    time_, slope = np.tile(np.arange(size), (groups, 1)), 0.3 * rng.standard_normal((groups, 1))
    y = 1 + (0.5 + slope) * time_ + rng.standard_normal((groups, 1)) + np.where(arm, 1.5, 1.0)[:, None] * noise
    rows = {"y": y.ravel(), "time": time_.ravel(), "g": np.repeat(np.arange(groups), size)}
    return pd.DataFrame({**rows, "arm": np.repeat(np.where(arm, "b", "a"), size)})


def problems() -> list[tuple[str, pd.DataFrame, str, dict[str, Any]]]:
    """Return name, data, formula and residual structures by name."""
    plain = {"none": None}
    by, ar1 = {"by": blm.residuals.by("arm")}, {"ar1": blm.residuals.ar1("time", group="g")}
    exchangeable = {"exchangeable": blm.residuals.exchangeable(group="g")}
    slope, only = "y ~ time + (time | g)", "y ~ time + (0 + time | g)"
    orthodont = blm.datasets.load("Orthodont")
    own = {
        "by": blm.residuals.by("Sex"),
        "ar1": blm.residuals.ar1("age", group="Subject"),
    }
    found: list[tuple[str, pd.DataFrame, str, dict[str, Any]]] = [
        ("Orthodont", orthodont, "distance ~ age * Sex + (1 | Subject)", plain | own)
    ]
    for groups, size in ((150, 16), (1000, 10), (10_000, 10)):
        data = panel(groups, size)
        found.append((f"panel, {groups:,} x {size}", data, slope, plain | by | ar1))
        found.append((f"panel, {groups:,} x {size}", data, only, plain | exchangeable))
    return found


def seconds(call: Callable[[], object], calls: int) -> float:
    """Return the median time of a call after one to warm up."""
    call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def main(calls: int) -> None:
    """Print the table."""
    print("| data | rows | formula | residuals | fit, s | multiple | sample, s | multiple |")
    print("|---|---:|---|---|---:|---:|---:|---:|")
    for name, data, formula, structures in problems():
        base: dict[str, float] = {}
        for label, structure in structures.items():
            model = blm.model(formula, data, residuals=structure)
            times = {"fit": seconds(lambda f=formula, d=data, r=structure: blm.model(f, d, residuals=r).fit(), calls)}
            if len(data) <= MOST_SAMPLED:
                sample = lambda m=model: m.sample(draws=500, chains=2, seed=1, progress=False)  # noqa: E731
                times["sample"] = seconds(sample, 1)
            base = base or times
            cells = [
                f"{times[what]:.3f} | {times[what] / base[what]:.1f}" if what in times else "- | -"
                for what in ("fit", "sample")
            ]
            print(f"| {name} | {len(data):,} | `{formula}` | {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", SingularFitWarning)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
