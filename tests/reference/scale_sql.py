"""Print the SQL that docs/scale.md shows: one model, from DuckDB and from a local Spark session (needs Java, pyspark).

python tests/reference/scale_sql.py
"""

import tempfile
from pathlib import Path

import ibis

import bayeslmm as blm


def main() -> None:
    from pyspark.sql import SparkSession

    path = Path(tempfile.mkdtemp()) / "sleepstudy.parquet"
    blm.datasets.load("sleepstudy").astype({"Subject": str}).to_parquet(path)
    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    for backend in (ibis.duckdb.connect(), ibis.pyspark.connect(session)):
        table = backend.read_parquet(str(path), table_name="sleepstudy")
        print(f"-- {backend.name}\n\n{blm.model('Reaction ~ Days + (Days | Subject)', table).sql()}\n")
    session.stop()


if __name__ == "__main__":
    main()
