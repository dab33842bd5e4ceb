"""Rows in Parquet: time of the aggregation beside a bare GROUP BY, of the fit after it, and peak memory.

    python tests/benchmarks/bench_scale.py ROWS FOLDER

100,000 customers and 1,000 shops, crossed; each customer goes to ten shops, so that a million pairs meet however many
rows there are (if every customer met every shop there would be as many pairs as rows).
"""

import resource
import sys
import time
from pathlib import Path

import duckdb

import bayeslmm as blm

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


def main(rows: int, folder: Path) -> None:
    path = folder / f"rows_{rows}.parquet"
    if not path.exists():
        connection = duckdb.connect(config={"threads": 2, "memory_limit": "2GB"})
        connection.sql("set preserve_insertion_order = false")
        connection.execute(GENERATE.format(rows=rows, path=path))
        connection.close()
    formula = "y ~ x1 + x2 + (1 + x1 | customer) + (1 | shop)"
    start = time.perf_counter()
    duckdb.connect(config={"threads": 2}).execute(BARE.format(path=path)).to_arrow_table()
    bare = time.perf_counter() - start
    start = time.perf_counter()
    model = blm.model(formula, str(path))
    engine = time.perf_counter() - start
    start = time.perf_counter()
    fit = model.fit()
    fitted = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{rows:,} rows: bare GROUP BY {bare:.2f} s, model {engine:.2f} s ({engine / bare:.2f}x), fit {fitted:.2f} s, "
        f"{model.design.condensed.n:,} condensed rows, peak {peak:.2f} GB, sigma {fit.sigma:.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
