"""Data that stay in their engine give the same model as the same rows in memory."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, DataWarning, FormulaError, SourceChangedError

pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'bayeslmm[scale]'")
ibis = pytest.importorskip("ibis", reason="ibis is not installed: pip install 'bayeslmm[scale]'")

CCES = Path(__file__).parents[3] / "shared/data/mrp/cces18_survey.parquet"
NO_SPARK = next(
    (
        reason
        for reason, absent in (
            ("pyspark is not installed: pip install pyspark", find_spec("pyspark") is None),
            ("Spark needs Java, and there is none on PATH", shutil.which("java") is None),
        )
        if absent
    ),
    "",
)
GAUSSIAN = [
    ("InstEval", "y ~ service + (1 | s) + (1 | d) + (1 | dept)"),
    ("nlswork", "ln_wage ~ age + I(age^2) + scale(tenure) + C(race) + (1 + age | idcode)"),
    ("nlschools", "lang ~ log(IQ) * COMB + scale(SES) + I(IQ^2) + center(GS) + (1 | class)"),
    ("nlschools", "lang ~ poly(IQ, 2, raw=TRUE) + C(COMB, Sum):SES + sqrt(GS) + (IQ | class)"),
    ("nlschools", "exp(lang / 20) ~ I(COMB == '1') + (IQ || class)"),
]
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def in_memory(name):
    """Return a packaged table with categories as text, as a database has them."""
    frame = blm.datasets.load(name)
    for column in frame:
        if isinstance(frame[column].dtype, pd.CategoricalDtype):
            frame[column] = frame[column].astype(str).where(frame[column].notna(), None).astype(object)
    return frame


def parquet(frame, folder):
    path = folder / "rows.parquet"
    frame.to_parquet(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def spark():
    if NO_SPARK:
        pytest.skip(NO_SPARK)
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.driver.memory", "1g")
        .getOrCreate()
    )
    yield ibis.pyspark.connect(session)
    session.stop()


def assert_same(here, there):
    """Criterion, estimates and standard errors to 1e-9, relative where they are large."""
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(there.criterion, here.criterion, rtol=1e-9)
    assert list(there.fixef.index) == list(here.fixef.index)
    np.testing.assert_allclose(there.fixef, here.fixef, **close)
    np.testing.assert_allclose(np.sqrt(np.diag(there.vcov)), np.sqrt(np.diag(here.vcov)), **close)
    assert there.n_obs == here.n_obs
    assert there.design.missing == here.design.missing


def at_one_theta(here, there):
    """The criterion where no optimiser has been: exact to rounding."""
    theta = 0.7 * here.theta + 0.1
    a, b = (blm.criterion(theta, fit.kernel) for fit in (here, there))
    np.testing.assert_allclose(b, a, rtol=1e-11)


@pytest.mark.parametrize(("name", "formula"), GAUSSIAN)
def test_parquet_equals_memory(name, formula, tmp_path):
    frame = in_memory(name)
    here, there = (blm.model(formula, data).fit() for data in (frame, parquet(frame, tmp_path)))
    at_one_theta(here, there)
    assert_same(here, there)


def test_relation_lazy_frame_and_ibis_table_equal_memory(tmp_path):
    import duckdb
    import polars as pl

    formula, frame = "lang ~ IQ * COMB + (IQ | class)", in_memory("nlschools")
    frame.loc[3, "class"] = None
    frame.loc[5, "IQ"] = np.nan
    here = blm.model(formula, frame).fit()
    connection = duckdb.connect()
    sources = [
        connection.from_df(frame),
        pl.from_pandas(frame).lazy(),
        ibis.duckdb.connect().read_parquet(parquet(frame, tmp_path)),
    ]
    for source in sources:
        there = blm.model(formula, source).fit()
        assert_same(here, there)
        assert there.design.missing == {"IQ": 1, "class": 1}
    assert connection.sql("show tables").fetchall() == []


@pytest.mark.parametrize(("name", "formula"), GAUSSIAN[:4])
def test_spark_equals_memory(name, formula, tmp_path, spark):
    frame = in_memory(name)
    table = spark.read_parquet(parquet(frame, tmp_path))
    here, there = (blm.model(formula, data).fit() for data in (frame, table))
    at_one_theta(here, there)
    assert_same(here, there)


def test_the_sql_that_spark_shows_is_what_spark_runs(tmp_path, spark):
    table = spark.read_parquet(parquet(in_memory("nlschools"), tmp_path), table_name="rows_of_the_test")
    model = blm.model("lang ~ IQ + scale(SES) + C(COMB) + (IQ | class)", table)
    statements = model.sql().rstrip(";").split(";\n")
    source = model.design.condensation.source
    assert len(statements) == len(source.log) == 3
    for statement, (_, query) in zip(statements, source.log, strict=True):
        frames = (spark._session.sql(statement).toPandas(), source.execute(query))
        found, expected = (np.sort(frame.select_dtypes("number").to_numpy(float), axis=0) for frame in frames)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_sql_is_written_for_other_engines(tmp_path):
    model = blm.model("lang ~ IQ + (1 | class)", parquet(in_memory("nlschools"), tmp_path))
    for dialect, word in ((None, "AS BIGINT"), ("duckdb", "AS BIGINT"), ("bigquery", "AS INT64")):
        assert word in model.sql(dialect)
    with pytest.raises(DataError, match="cannot write the scans for 'sparc'"):
        model.sql("sparc")


def test_binomial_cells_equal_memory(tmp_path):
    frame = in_memory("cbpp")
    assert_same(*(blm.model(CBPP, data, "binomial").fit() for data in (frame, parquet(frame, tmp_path))))


def test_binomial_cells_from_spark_equal_memory(tmp_path, spark):
    frame = in_memory("cbpp")
    table = spark.read_parquet(parquet(frame, tmp_path))
    assert_same(*(blm.model(CBPP, data, "binomial").fit() for data in (frame, table)))


@pytest.mark.skipif(not CCES.is_file(), reason="the validation data ../shared are not here")
def test_cces_collapses_to_cells(tmp_path):
    frame, formula = cces()
    here, there = (blm.model(formula, data, "bernoulli") for data in (frame, parquet(frame, tmp_path)))
    assert there.design.condensed.n < 0.2 * there.design.n
    assert_same(here.fit(), there.fit())


@pytest.mark.skipif(not CCES.is_file(), reason="the validation data ../shared are not here")
def test_cces_from_spark_equals_memory(tmp_path, spark):
    frame, formula = cces()
    table = spark.read_parquet(parquet(frame, tmp_path))
    assert_same(*(blm.model(formula, data, "bernoulli").fit() for data in (frame, table)))


def cces():
    """Return the poll and the formula of a model on it."""
    frame = pd.read_parquet(CCES)
    answer = next(name for name in ("abortion", "y", "vote") if name in frame)
    groups = [name for name in ("state", "eth", "age", "educ") if name in frame]
    formula = f"{answer} ~ male + " + " + ".join(f"(1 | {name})" for name in groups)
    frame = frame[[answer, "male", *groups]].copy()
    for name in groups:
        frame[name] = frame[name].astype(str)
    return frame, formula


def test_poisson_with_offset_and_scale_equals_memory(tmp_path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": rng.integers(8, size=400).astype(str), "x": rng.integers(4, size=400) / 2})
    frame["e"] = 1.0 + rng.integers(3, size=400)
    frame["y"] = rng.poisson(frame["e"] * np.exp(0.3 * frame["x"] + 0.1 * frame["g"].astype(int)))
    formula = "y ~ scale(x) + offset(log(e)) + (1 | g)"
    assert_same(*(blm.model(formula, data, "poisson").fit() for data in (frame, parquet(frame, tmp_path))))


def test_inference_from_cross_products_equals_memory(tmp_path):
    frame = in_memory("nlschools")
    formula = "lang ~ IQ * COMB + SES + (1 | class)"
    here, there = (blm.model(formula, data) for data in (frame, parquet(frame, tmp_path)))
    a, b = here.fit(), there.fit()
    for ddf in ("satterthwaite", "kenward-roger"):
        np.testing.assert_allclose(b.denominator(ddf).df(np.eye(5)), a.denominator(ddf).df(np.eye(5)), rtol=1e-6)
    for kind in ("CR0", "CR1S", "CR2"):
        one, other = (fit.robust("class", kind).coefficients for fit in (a, b))
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-12)
    for kind in (1, 2, 3):
        np.testing.assert_allclose(b.anova(kind).frame, a.anova(kind).frame, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(b.variance_partition().random, a.variance_partition().random, rtol=1e-9)
    assert str(there.priors) == str(here.priors)
    smaller = blm.model("lang ~ IQ + (1 | class)", parquet(frame, tmp_path)).fit()
    in_rows = blm.model("lang ~ IQ + (1 | class)", frame).fit()
    np.testing.assert_allclose(
        blm.anova(smaller, b).frame.to_numpy(float), blm.anova(in_rows, a).frame.to_numpy(float), rtol=1e-8
    )
    np.testing.assert_allclose(b.predict(frame.head(9)), a.predict(frame.head(9)), rtol=1e-9)
    assert "GROUP BY" in there.sql()
    assert "2,287" in str(b.summary())


def test_posterior_equals_memory(tmp_path):
    frame = in_memory("nlschools")
    formula = "lang ~ IQ + (1 | class)"
    here, there = (
        blm.model(formula, data).sample(draws=200, chains=2, seed=1, progress=False)
        for data in (frame, parquet(frame, tmp_path))
    )
    np.testing.assert_allclose(there.fixef, here.fixef, rtol=0.02)
    np.testing.assert_allclose(there.sigma, here.sigma, rtol=0.02)
    assert len(blm.compare(blm.model(formula, parquet(frame, tmp_path)).fit(), there).frame)


class Shrinking:
    """A source that loses rows after the first scan."""

    def __init__(self, source):
        self.source, self.calls = source, 0

    def __call__(self, query):
        self.calls += 1
        found = self.source.execute(query)
        return found if self.calls == 1 else found.iloc[1:]


def test_bad_input_is_named(tmp_path, monkeypatch):
    from bayeslmm.formula import pushdown
    from bayeslmm.formula.source import Source, open_source

    path = parquet(in_memory("nlschools"), tmp_path)
    for formula, error, words in [
        ("lang ~ bs(IQ, df=4) + (1 | class)", FormulaError, r"bs\(\) cannot be computed by the engine(.|\n)*mutate"),
        ("lang ~ poly(IQ, 2) + (1 | class)", FormulaError, r"poly\(\)(.|\n)*raw=TRUE"),
        ("lang ~ IQQ + (1 | class)", FormulaError, "no column 'IQQ'(.|\n)*'IQ'"),
        ("class ~ IQ + (1 | COMB)", DataError, "holds text"),
        ("lang ~ log(COMB) + (1 | class)", DataError, "COMB holds text"),
        ("lang ~ log(IQ - 100) + (1 | class)", DataError, "logarithm|outside its domain"),
    ]:
        with pytest.raises(error, match=words):
            blm.model(formula, path)
    with pytest.raises(DataError, match="no file"):
        blm.model("y ~ x + (1 | g)", str(tmp_path / "nothing*.parquet"))
    formula, plain = "lang ~ IQ + (1 | class)", open_source(path)
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        blm.model(formula, Source(plain.table, "duckdb", Shrinking(plain)))
    monkeypatch.setattr(pushdown, "MAX_CELLS", 50)
    with pytest.raises(DataError, match=r"about 1\d\d cells; 50 are the limit"):
        blm.model(formula, path)


def test_what_needs_rows_says_so(tmp_path):
    fit = blm.model("lang ~ IQ + (1 | class)", parquet(in_memory("nlschools"), tmp_path)).fit()
    for ask in (fit.residuals, fit.augment, lambda: fit.robust(type="HC1"), lambda: fit.fitted):
        with pytest.raises(DataError, match="2,287 rows stay in their source"):
            ask()


def test_a_slope_that_does_not_vary_within_groups_is_named(tmp_path):
    path = parquet(in_memory("nlschools"), tmp_path)
    with pytest.warns(DataWarning, match=r"COMB\[T.1\] does not vary within any level of 'class'"):
        blm.model("lang ~ IQ + COMB + (IQ + COMB | class)", path)
    with pytest.warns(DataWarning, match="GS does not vary within any level of 'class'"):
        blm.model("lang ~ IQ + GS + (IQ + GS | class)", path)
