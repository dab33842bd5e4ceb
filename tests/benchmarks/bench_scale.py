"""Rows in Parquet: time of the aggregation beside a bare GROUP BY, of the fit after it, and peak memory.

    python tests/benchmarks/bench_scale.py FOLDER ROWS... [--draws 1000]

prints a table, a process for each number of rows. The bare query sums the same nine products by the same two columns
and hands the result over as an Arrow table; it runs before and after the model, and the faster of the two counts.

100,000 customers and 1,000 shops, crossed; each customer goes to ten shops, so that a million pairs meet however many
rows there are (if every customer met every shop there would be as many pairs as rows).
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

import bayeslmm as blm
from bayeslmm.bayes.checks import worst_of
from bayeslmm.formula.source import Source

GENERATE = """
copy (
  with ids as (
    select i, (hash(i) % 100000)::int as customer from range({rows}) r(i)
  ), placed as (
    select i, customer, (hash(customer * 16 + hash(i + 7) % 10) % 1000)::int as shop,
      (hash(i + 1000000007) % 1000003) / 1000003.0 - 0.5 as x1, (hash(i + 3000000019) % 1000003) / 1000003.0 as x2,
      sqrt(-2 * ln((hash(i + 5000000029) % 1000003 + 1) / 1000004.0))
        * cos(6.283185307 * (hash(i + 7000000001) % 1000003) / 1000003.0) as noise,
      (hash(customer + 11) % 10007) / 10007.0 - 0.5 as u, (hash(customer + 17) % 10007) / 10007.0 - 0.5 as slope
    from ids
  )
  select customer, shop, x1::double as x1, x2::double as x2,
    (2 + (0.5 + slope) * x1 - 0.3 * x2 + 2 * u + ((hash(shop + 23) % 10007) / 10007.0 - 0.5) + noise)::double as y
  from placed
) to '{path}' (format parquet)
"""
BARE = """
select customer, shop, count(*), sum(x1), sum(x2), sum(y), sum(x1 * x1), sum(x1 * x2), sum(x1 * y), sum(x2 * x2),
  sum(x2 * y), sum(y * y) from '{path}' group by customer, shop
"""


class Timer:
    """Seconds on the clock, and of all processors together, which other work on the machine does not change."""

    def __enter__(self) -> "Timer":
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]

    def __str__(self) -> str:
        return f"{self.wall:.2f} s (CPU {self.cpu:.2f} s)"


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


FORMULA = "y ~ x1 + x2 + (1 + x1 | customer) + (1 | shop)"
HEADER = ("rows", "bare GROUP BY", "two scans", "ratio", "CPU ratio", "blm.model", "fit()", "condensed rows", "peak GB",
          "sample()", "draws", "min ESS", "peak GB with draws")  # fmt: skip


def bare(path: Path) -> Timer:
    with Timer() as timer:
        duckdb.connect(config={"threads": 2}).sql(BARE.format(path=path)).to_arrow_table()
    return timer


def measure(rows: int, folder: Path, draws: int) -> None:
    """Print a line of the table."""
    path = folder / f"rows_{rows}.parquet"
    if not path.exists():
        connection = duckdb.connect(config={"threads": 2, "memory_limit": "2GB"})
        connection.sql("set preserve_insertion_order = false")
        connection.execute(GENERATE.format(rows=rows, path=path))
        connection.close()
    before = bare(path)
    scans = []
    run = Source.run

    def timed(source: Source, expression: Any, purpose: str) -> Any:
        with Timer() as timer:
            result = run(source, expression, purpose)
        scans.append(timer)
        return result

    Source.run = timed  # type: ignore[method-assign]
    with Timer() as built:
        model = blm.model(FORMULA, str(path))
    Source.run = run  # type: ignore[method-assign]
    with Timer() as fitted:
        model.fit()
    peak_before = peak()
    cells = [""] * 4
    if draws:
        with Timer() as sampled:
            post = model.sample(draws=draws // 4, chains=4, seed=1, progress=False, storage=np.float32)
        least, _ = worst_of({"": np.stack(list(post.parameters.values()), axis=-1)}, "ess", largest=False)
        cells = [f"{sampled.wall:.1f} s", f"{post.n_draws:,}", f"{least:,.0f}", f"{peak():.2f}"]
        del post
    after = bare(path)
    best, cpu = min(before.wall, after.wall), min(before.cpu, after.cpu)
    wall = sum(scan.wall for scan in scans)
    line = [
        f"{rows:,}", f"{best:.2f} s", f"{wall:.2f} s", f"{wall / best:.2f}", f"{sum(s.cpu for s in scans) / cpu:.2f}",
        f"{built.wall:.2f} s", f"{fitted.wall:.2f} s", f"{model.design.condensed.n:,}", f"{peak_before:.2f}", *cells,
    ]  # fmt: skip
    print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int, nargs="+")
    parser.add_argument("--draws", type=int, default=0)
    parser.add_argument("--line", action="store_true", help="one number of rows in this process, without the header")
    given = parser.parse_args()
    if given.line:
        measure(given.rows[0], given.folder, given.draws)
    else:
        print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|", flush=True)
        for count in given.rows:
            options = [str(given.folder), str(count), "--draws", str(given.draws), "--line"]
            subprocess.run([sys.executable, "-W", "ignore", __file__, *options], check=True)
