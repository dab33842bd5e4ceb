"""Predictions as expressions of an engine equal those of the same rows in memory; nothing is pulled or written."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, NewLevelsError
from tests.formula.test_pushdown import CBPP, in_memory, parquet

duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'bayeslmm[scale]'")
ibis = pytest.importorskip("ibis", reason="ibis is not installed: pip install 'bayeslmm[scale]'")
pl = pytest.importorskip("polars", reason="polars is not installed")

FORMULAS = [
    ("nlschools", "lang ~ log(IQ) * COMB + scale(SES) + I(IQ^2) + center(GS) + (1 | class)"),
    ("nlschools", "lang ~ poly(IQ, 2, raw=TRUE) + C(COMB, Sum):SES + sqrt(GS) + (COMB + IQ | class)"),
    ("nlschools", "lang ~ C(GS) + I(COMB == '1') + (IQ || class) + (1 | GS:COMB)"),
]


def numbered(frame):
    return frame.reset_index(drop=True).assign(row=np.arange(len(frame)))


def estimates(lazy):
    """Fetch a lazy prediction, in the order of the rows."""
    if isinstance(lazy, pl.LazyFrame):
        found = lazy.collect().to_pandas()
    else:
        found = lazy.to_pandas() if hasattr(lazy, "to_pandas") else lazy.df()
    return found.sort_values("row")["estimate"].to_numpy(dtype=float)


@pytest.mark.parametrize(("name", "formula"), FORMULAS)
@pytest.mark.parametrize("include", [None, [], ["class"]])
def test_prediction_in_the_engine_equals_memory(name, formula, include, tmp_path):
    frame = numbered(in_memory(name))
    path = parquet(frame, tmp_path)
    here, there = (blm.model(formula, data).fit() for data in (frame, path))
    for fit in (here, there):
        found = estimates(fit.predict(path, include=include))
        np.testing.assert_allclose(found, fit.predict(frame, include=include), rtol=1e-9)
    np.testing.assert_allclose(
        estimates(there.predict(include=include)), there.predict(frame, include=include), rtol=1e-9
    )


def test_the_kind_of_table_comes_back(tmp_path):
    frame = numbered(in_memory("nlschools"))
    fit = blm.model("lang ~ IQ * COMB + (IQ | class)", frame).fit()
    connection = duckdb.connect()
    relation = connection.from_df(frame)
    table = ibis.duckdb.connect().read_parquet(parquet(frame, tmp_path))
    kinds = [(relation, type(relation)), (pl.from_pandas(frame).lazy(), pl.LazyFrame), (table, ibis.Table)]
    for source, kind in kinds:
        lazy = fit.predict(source)
        assert isinstance(lazy, kind)
        np.testing.assert_allclose(estimates(lazy), fit.predict(frame), rtol=1e-9)
    assert connection.sql("show tables").fetchall() == []


def test_new_levels_and_missing_values(tmp_path):
    frame = numbered(in_memory("nlschools"))
    fit = blm.model("lang ~ IQ * COMB + (IQ | class)", frame).fit()
    frame.loc[[3, 7], "class"] = "elsewhere"
    path = parquet(frame, tmp_path)
    with pytest.raises(NewLevelsError, match=r"'class'(.|\n)*'elsewhere' \(2 rows\)"):
        fit.predict(path)
    for policy in ("zero", "sample"):
        found = estimates(fit.predict(path, new_levels=policy))
        np.testing.assert_allclose(found, fit.predict(frame, new_levels=policy), rtol=1e-9)
    frame.loc[5, "IQ"] = np.nan
    found = estimates(fit.predict(parquet(frame, tmp_path), new_levels="zero"))
    assert np.flatnonzero(np.isnan(found)).tolist() == [5]
    frame.loc[9, "COMB"] = "new"
    with pytest.raises(DataError, match=r"'COMB' holds 'new'(.|\n)*1 row"):
        fit.predict(parquet(frame, tmp_path), new_levels="zero")


@pytest.mark.parametrize("link", ["logit", "cloglog"])
def test_generalised_models_on_both_scales(link, tmp_path):
    frame = numbered(in_memory("cbpp"))
    fit = blm.model(CBPP, parquet(frame, tmp_path), "binomial", link=link).fit()
    new = frame.assign(herd=np.where(frame["row"] < 2, "99", frame["herd"]))
    path = parquet(new, tmp_path)
    for scale in ("response", "link"):
        for policy in ("zero", "sample"):
            found = estimates(fit.predict(path, new_levels=policy, scale=scale))
            np.testing.assert_allclose(found, fit.predict(new, new_levels=policy, scale=scale), rtol=1e-9)


def test_poisson_with_offset_averages_over_new_levels(tmp_path):
    rng = np.random.default_rng(1)
    frame = numbered(pd.DataFrame({"g": rng.integers(8, size=300).astype(str), "x": rng.integers(4, size=300) / 2}))
    frame["e"] = 1.0 + rng.integers(3, size=300)
    frame["y"] = rng.poisson(frame["e"] * np.exp(0.3 * frame["x"] + 0.2 * frame["g"].astype(int)))
    fit = blm.model("y ~ scale(x) + offset(log(e)) + (x | g)", parquet(frame, tmp_path), "poisson").fit()
    frame.loc[frame["row"] < 5, "g"] = "new"
    found = estimates(fit.predict(parquet(frame, tmp_path), new_levels="sample"))
    np.testing.assert_allclose(found, fit.predict(frame, new_levels="sample"), rtol=1e-7)


def test_what_an_engine_does_not_predict_is_named(tmp_path):
    frame = numbered(in_memory("nlschools"))
    fit = blm.model("lang ~ IQ + (1 | class)", frame).fit()
    with pytest.raises(DataError, match="intervals of rows in an engine"):
        fit.predict(parquet(frame, tmp_path), interval="confidence")
    with pytest.raises(DataError, match="no column 'class'"):
        fit.predict(parquet(frame.drop(columns="class"), tmp_path))
    with pytest.raises(DataError, match="'estimate'; rename"):
        fit.predict(parquet(frame.assign(estimate=1.0), tmp_path))


def test_posterior_mean_is_an_expression(tmp_path):
    frame = numbered(in_memory("nlschools"))
    path = parquet(frame, tmp_path)
    post = blm.model("lang ~ IQ + (1 | class)", path).sample(draws=100, chains=2, seed=1, progress=False)
    np.testing.assert_allclose(estimates(post.predict()), post.predict(frame), rtol=1e-8)
