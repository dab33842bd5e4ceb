"""Rows in Parquet: time of the aggregation beside a bare GROUP BY, of the fit after it, and peak memory.

    python tests/benchmarks/bench_scale.py ROWS FOLDER [DRAWS]

100,000 customers and 1,000 shops, crossed; each customer goes to ten shops, so that a million pairs meet however many
rows there are (if every customer met every shop there would be as many pairs as rows).
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

import bayeslmm as blm
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


def main(rows: int, folder: Path, draws: int) -> None:
    path = folder / f"rows_{rows}.parquet"
    if not path.exists():
        connection = duckdb.connect(config={"threads": 2, "memory_limit": "2GB"})
        connection.sql("set preserve_insertion_order = false")
        connection.execute(GENERATE.format(rows=rows, path=path))
        connection.close()
    with Timer() as bare:
        duckdb.connect(config={"threads": 2}).sql(BARE.format(path=path)).to_arrow_table()
    scans = []
    run = Source.run

    def timed(source: Source, expression: Any, purpose: str) -> Any:
        with Timer() as timer:
            result = run(source, expression, purpose)
        scans.append(timer)
        return result

    Source.run = timed  # type: ignore[method-assign]
    with Timer() as built:
        model = blm.model("y ~ x1 + x2 + (1 + x1 | customer) + (1 | shop)", str(path))
    with Timer() as fitted:
        fit = model.fit()
    print(
        f"{rows:,} rows: bare GROUP BY {bare}; scans {' + '.join(map(str, scans))}, "
        f"{sum(s.wall for s in scans) / bare.wall:.2f}x, {sum(s.cpu for s in scans) / bare.cpu:.2f}x in CPU; "
        f"model, condensing included, {built}; fit {fitted}; {model.design.condensed.n:,} condensed rows, "
        f"peak {peak():.2f} GB, sigma {fit.sigma:.4f}",
        flush=True,
    )
    if draws:
        with Timer() as sampled:
            post = model.sample(draws=draws // 4, chains=4, seed=1, progress=False)
        print(f"sample() {draws} draws: {sampled}, peak {peak():.2f} GB\n{fit.varcorr}\n{post.summary()}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
