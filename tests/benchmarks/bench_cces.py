"""Posteriors of an MRP model of 5,000 and of 59,810 respondents: seconds, effective sample size, and exactness.

    python tests/benchmarks/bench_cces.py 5000 all [--bambi] [--exact DRAWS] [--keep FOLDER]

The second of two calls is timed, from data frame to draws; ESS is the smallest bulk effective sample size over the
coefficients and standard deviations. bambi with nutpie gets the same data collapsed by hand to binomial cells, one call
from data frame to draws. `--exact` compares with NUTS on the PyMC model of those cells, that many draws per chain:
means in posterior standard deviations, and estimates of the states in percentage points. With `--keep` its draws are
written to a folder, and read from there the next time.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

import bayeslmm as blm

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "mrp"
GROUPS = "(1 | state) + (1 | eth) + (1 | educ) + (1 | sex:eth) + (1 | educ:age) + (1 | educ:eth)"
BAMBI_GROUPS = "(1|state) + (1|eth) + (1|educ) + (1|sex:eth) + (1|educ:age) + (1|educ:eth)"
FIXED = "male + repvote + region"


def with_states(data: pd.DataFrame) -> pd.DataFrame:
    data = data.merge(pd.read_csv(FOLDER / "cces18_statelevel.csv"), on="state")
    return data.assign(sex=data["male"].astype(str))


def survey(rows: str) -> pd.DataFrame:
    if rows == "5000":
        return with_states(pd.read_csv(FOLDER / "cces18_sample5000.csv"))
    return with_states(pd.read_parquet(FOLDER / "cces18_survey.parquet"))


def collapsed(data: pd.DataFrame) -> pd.DataFrame:
    by = [name for name in data if name != "abortion"]
    return data.groupby(by, observed=True)["abortion"].agg(k="sum", n="size").reset_index()


def smallest_ess(draws) -> float:
    values = [array_stats.ess(v.reshape(*v.shape[:2], -1), chain_axis=0, draw_axis=1, method="bulk") for v in draws]
    return float(np.nanmin(np.concatenate([np.ravel(v) for v in values])))


def ours(data: pd.DataFrame):
    def call():
        began, worked = time.perf_counter(), time.process_time()
        model = blm.model(f"abortion ~ {FIXED} + {GROUPS}", data, family="bernoulli")
        post = model.sample(draws=1000, chains=4, seed=1, progress=False, engine="laplace")
        return post, time.perf_counter() - began, time.process_time() - worked

    call()
    post, seconds, worked = call()
    posterior = post.data["posterior"]
    ess = smallest_ess([posterior[name].values for name in posterior if name == "beta" or str(name).startswith("sd_")])
    print(
        f"  bayeslmm  {seconds:7.1f} s  min ESS {ess:6.0f}  {ess / seconds:7.1f}/s  {worked:.1f} CPU-s,"
        f" {post.run.method}; {post.run.notes[-1]}",
        flush=True,
    )
    return post, ess / seconds


def bambi_rate(cells: pd.DataFrame) -> float:
    import bambi

    began = time.perf_counter()
    model = bambi.Model(f"p(k, n) ~ {FIXED} + {BAMBI_GROUPS}", cells, family="binomial")
    tree = model.fit(inference_method="nutpie", random_seed=1, progressbar=False)
    seconds = time.perf_counter() - began
    posterior = tree["posterior"]
    names = [name for name in posterior.data_vars if "|" not in str(name) or str(name).endswith("_sigma")]
    ess = smallest_ess([posterior[name].values for name in names])
    divergent = int(tree["sample_stats"]["diverging"].sum())
    print(
        f"  bambi     {seconds:7.1f} s  min ESS {ess:6.0f}  {ess / seconds:7.1f}/s  {divergent} divergences", flush=True
    )
    return ess / seconds


def exact(cells: pd.DataFrame, draws: int, keep: Path | None):
    if keep is not None and keep.exists():
        return blm.Posterior.load(keep)
    began = time.perf_counter()
    model = blm.model(f"prop(k, n) ~ {FIXED} + {GROUPS}", cells, family="binomial")
    post = model.sample(draws=draws, chains=4, seed=2, progress=False, tune=2000, engine="latent", target_accept=0.95)
    print(f"  exact     {time.perf_counter() - began:7.1f} s", flush=True)
    if keep is not None:
        post.save(keep)
    return post


def states(post, frame) -> np.ndarray:
    """Draws (C, D, states) of the states' estimates, in percentage points."""
    found = blm.poststratify(post, frame, by="state", new_levels="sample", seed=1)
    sizes = post.data["posterior"].sizes
    return 100 * np.asarray(found.draws).reshape(sizes["chain"], sizes["draw"], -1)


def in_errors(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Differences of means (K,) in their Monte Carlo standard errors."""
    errors = [array_stats.mcse(d, chain_axis=0, draw_axis=1, method="mean") for d in (mine, theirs)]
    return (mine.mean((0, 1)) - theirs.mean((0, 1))) / np.hypot(*errors)


def compare(post, reference, frame) -> None:
    posterior, exactly = post.data["posterior"], reference.data["posterior"]
    names = [str(name) for name in exactly.data_vars if name in posterior]
    shape = tuple(exactly.sizes[dim] for dim in ("chain", "draw"))
    theirs = {name: exactly[name].values.reshape(*shape, -1) for name in names}
    mine = {name: posterior[name].values.reshape(*posterior[name].shape[:2], -1) for name in names}
    gaps = {n: np.abs(mine[n].mean((0, 1)) - theirs[n].mean((0, 1))) / theirs[n].std((0, 1)) for n in names}
    worst = max(gaps, key=lambda name: gaps[name].max())
    errors = np.concatenate([in_errors(mine[name], theirs[name]) for name in names])
    diverging = int(reference.data["sample_stats"]["diverging"].sum())
    print(
        f"  against the exact run ({np.prod(shape)} draws, min ESS {smallest_ess(theirs.values()):.0f}, {diverging}"
        f" divergences), {len(errors)} parameters and effects: largest difference of a mean {gaps[worst].max():.3f}"
        f" posterior SDs ({worst}); in Monte Carlo errors {np.abs(errors).max():.2f}, SD {errors.std():.2f}",
        flush=True,
    )
    ours, exact_states = states(post, frame), states(reference, frame)
    apart = np.abs(ours.mean((0, 1)) - exact_states.mean((0, 1))).max()
    errors = in_errors(ours, exact_states)
    print(
        f"  {len(errors)} states: largest difference {apart:.3f} percentage points; in Monte Carlo errors"
        f" {np.abs(errors).max():.2f}, SD {errors.std():.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", choices=["5000", "all"])
    parser.add_argument("--bambi", action="store_true")
    parser.add_argument("--exact", type=int, default=0, metavar="DRAWS")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only-exact", action="store_true", help="draw and keep the exact run, nothing else")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    frame = blm.PoststratFrame(with_states(pd.read_csv(FOLDER / "cces18_poststrat.csv")), counts="n")
    for rows in arguments.rows:
        data = survey(rows)
        cells = collapsed(data)
        print(f"{len(data)} rows, {len(cells)} cells", flush=True)
        keep = arguments.keep / f"exact_{rows}.zip" if arguments.keep else None
        if arguments.only_exact:
            exact(cells, arguments.exact, keep)
            continue
        post, rate = ours(data)
        if arguments.bambi:
            print(f"  ESS per second, bayeslmm over bambi: {rate / bambi_rate(cells):.0f}", flush=True)
        if arguments.exact:
            compare(post, exact(cells, arguments.exact, keep), frame)


if __name__ == "__main__":
    main()
