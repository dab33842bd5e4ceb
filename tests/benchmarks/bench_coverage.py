"""Coverage of 95 % intervals on 12 groups of 6: every method of a fit, and the posterior.

Run ``python tests/benchmarks/bench_coverage.py [data sets]`` (200 when not said); it prints a table in Markdown, and
every 25 data sets where it stands, to standard error. Widths are medians, because an upper limit can be infinite. Where
a method has no limits for some data sets (Wald on the boundary) its share is of the others, and their number is shown.
The data: y = 1 + 0 x + b + e with SDs 1 and 1, x between the groups, six groups at either value.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bayeslmm as blm
from bayeslmm.errors import SingularFitWarning

TRUTH = {"x": 0.0, "sd_g[Intercept]": 1.0, "sigma": 1.0}
GROUPS, SIZE = 12, 6
BOOT, DRAWS, CHAINS = 199, 500, 2


def data_sets(runs: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield simulated data sets."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(GROUPS), SIZE)
    x = (np.arange(GROUPS) % 2).astype(float)[group]
    for _ in range(runs):
        y = TRUTH["sd_g[Intercept]"] * rng.standard_normal(GROUPS)[group] + TRUTH["sigma"] * rng.standard_normal(72)
        yield {"y": 1.0 + TRUTH["x"] * x + y, "x": x, "g": group}


def intervals(data: dict[str, np.ndarray], seed: int) -> dict[str, pd.DataFrame]:
    """Return the intervals of every method for one data set."""
    model = blm.model("y ~ x + (1 | g)", data)
    fit = model.fit()
    boot = fit.bootstrap(BOOT, seed=seed, progress=False, studentise=True)
    post = model.sample(draws=DRAWS, chains=CHAINS, seed=seed, progress=False)
    return {
        "Wald": fit.confint(),
        "Satterthwaite": fit.confint(parameters="x", ddf="satterthwaite"),
        "Kenward-Roger": fit.confint(parameters="x", ddf="kenward-roger"),
        "profile (ML)": fit.confint(method="profile"),
        "bootstrap, percentile": boot.confint(),
        "bootstrap, studentised": boot.confint(kind="studentised"),
        "posterior, default priors": post.confint(),
    }


def coverage(runs: int, seed: int = 20) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Return whether each interval holds the truth (NaN: there is none), and widths, data set by data set."""
    hits: dict[str, list[pd.Series]] = {}
    widths: dict[str, list[pd.Series]] = {}
    truth = pd.Series(TRUTH)
    for k, data in enumerate(data_sets(runs, seed)):
        for name, found in intervals(data, k).items():
            own = found.reindex(truth.index)
            inside = (own["lower"] <= truth) & (truth <= own["upper"])
            hits.setdefault(name, []).append(inside.astype(float).where(own.notna().all(axis=1)))
            widths.setdefault(name, []).append(own["upper"] - own["lower"])
        if (k + 1) % 25 == 0:
            so_far = pd.DataFrame({method: frame.mean() for method, frame in _frames(hits).items()}).T
            print(f"{k + 1} data sets", so_far.round(3).to_string(), sep="\n", file=sys.stderr, flush=True)
    return _frames(hits), _frames(widths)


def _frames(table: dict[str, list[pd.Series]]) -> dict[str, pd.DataFrame]:
    return {method: pd.DataFrame(rows) for method, rows in table.items()}


def cell(hits: pd.Series, widths: pd.Series) -> str:
    """Return share and median width of one method and parameter as two cells of Markdown."""
    there = int(hits.notna().sum())
    if there == 0:
        return "- | -"
    of = "" if there == len(hits) else f" of {there}"
    return f"{100 * hits.mean():.1f} %{of} | {widths.median():.2f}"


def main(runs: int) -> None:
    """Print the table in Markdown."""
    hits, widths = coverage(runs)
    print("| method | " + " | ".join(f"`{name}` | width" for name in TRUTH) + " |")
    print("|---|" + "---:|---:|" * len(TRUTH))
    for method, frame in hits.items():
        print(f"| {method} | " + " | ".join(cell(frame[name], widths[method][name]) for name in TRUTH) + " |")


if __name__ == "__main__":
    warnings.simplefilter("ignore", SingularFitWarning)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
