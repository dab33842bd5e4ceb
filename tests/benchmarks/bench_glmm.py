"""Generalised models: seconds of fits and draws, beside glmer where R is present.

Run ``python tests/benchmarks/bench_glmm.py [case ...]``; cases are the keys of `CASES`. Every fit is timed warm
(compiled code loaded, model built anew), wall and processor time: on a busy machine only the second can be compared.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as blm

SHARED = Path(__file__).resolve().parents[3] / "shared"
MRP = (
    "abortion ~ male + repvote + region + (1 | state) + (1 | eth) + (1 | educ) + (1 | sex:eth) + (1 | educ:age)"
    " + (1 | educ:eth)"
)


def verbagg() -> pd.DataFrame:
    """Simulate 316 persons by 24 items, as in VerbAgg: 7,584 binary rows, two crossed factors."""
    rng = np.random.default_rng(1)
    person, item = np.repeat(np.arange(316), 24), np.tile(np.arange(24), 316)
    anger, male = rng.normal(20, 5, 316), rng.random(316) < 0.23
    kind = np.array(["curse", "scold", "shout"])[item % 3]
    eta = 0.2 + 0.05 * (anger[person] - 20) + 0.3 * male[person] - 0.8 * (item % 3) + rng.normal(0, 1.3, 316)[person]
    eta = eta + rng.normal(0, 0.5, 24)[item]
    y = (rng.random(len(eta)) < 1 / (1 + np.exp(-eta))).astype(int)
    return pd.DataFrame(
        {"y": y, "anger": anger[person], "male": male[person].astype(int), "kind": kind, "id": person, "item": item}
    )


def poisson_three() -> pd.DataFrame:
    """Simulate counts with three crossed terms: 20,000 rows, 1,000 + 100 + 20 levels."""
    rng = np.random.default_rng(2)
    levels = (1000, 100, 20)
    codes = [rng.integers(0, count, 20_000) for count in levels]
    x = rng.normal(size=20_000)
    eta = 0.5 + 0.3 * x + sum(rng.normal(0, 0.4, count)[code] for count, code in zip(levels, codes, strict=True))
    return pd.DataFrame({"y": rng.poisson(np.exp(eta)), "x": x, "a": codes[0], "b": codes[1], "c": codes[2]})


def cces(rows: str) -> pd.DataFrame:
    """Return the CCES 2018 survey, all of it or the sample of 5,000, with its state-level predictors."""
    folder = SHARED / "data" / "mrp"
    data = pd.read_csv(folder / "cces18_sample5000.csv") if rows == "5000" else pd.read_parquet(
        folder / "cces18_survey.parquet"
    )  # fmt: skip
    data = data.merge(pd.read_csv(folder / "cces18_statelevel.csv"), on="state")
    return data.assign(sex=data["male"].astype(str))


CASES = {
    "cbpp": ("cbind(incidence, size - incidence) ~ period + (1 | herd)", lambda: blm.datasets.load("cbpp"), "binomial"),
    "contraception": (
        "use ~ age + I(age^2) + urban + livch + (1 | district)",
        lambda: blm.datasets.load("Contraception"),
        "bernoulli",
    ),
    "verbagg": ("y ~ anger + male + kind + (1 | id) + (1 | item)", verbagg, "bernoulli"),
    "poisson": ("y ~ x + (1 | a) + (1 | b) + (1 | c)", poisson_three, "poisson"),
    "cces5000": (MRP, lambda: cces("5000"), "bernoulli"),
    "cces": (MRP, lambda: cces("all"), "bernoulli"),
}


def timed(work):
    """Return the result of the second of two calls, with its wall and processor seconds."""
    work()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def glmer_seconds(formula: str, data: pd.DataFrame, family: str) -> dict[str, float] | None:
    """Return user seconds and log-likelihood of glmer with its defaults; None without R."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False)
        kind = "poisson" if family == "poisson" else "binomial"
        factors = [name for name in ("id", "item", "a", "b", "c", "district", "herd", "period") if name in data]
        script = (
            f"suppressMessages(library(lme4)); d <- read.csv('{path}', stringsAsFactors=TRUE);"
            + "".join(f"d${name} <- factor(d${name});" for name in factors)
            + f"t <- system.time(f <- suppressWarnings(suppressMessages(glmer({formula}, d, family={kind}))));"
            "cat(sprintf('{\"seconds\": %f, \"loglik\": %.6f}', t[['user.self']], logLik(f)))"
        )
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, timeout=1800, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def main(names: list[str]) -> None:
    """Time the cases and print a line each."""
    warnings.simplefilter("ignore")
    for name in names or ["cbpp", "contraception", "verbagg", "poisson"]:
        formula, load, family = CASES[name.removesuffix("+draws")]
        data = load()
        if name.endswith("+draws"):
            draw(name, formula, data, family)
            continue
        fit, wall, cpu = timed(lambda: blm.model(formula, data, family=family).fit())  # noqa: B023
        _, fit_wall, fit_cpu = timed(blm.model(formula, data, family=family).fit)
        line = f"{name:14s} fit {fit_wall:7.3f} s wall {fit_cpu:7.3f} s cpu (with the model {wall:.3f}/{cpu:.3f})"
        line += f"  {fit.optimum.evaluations} evaluations  logLik {fit.loglik:.4f}"
        rival = glmer_seconds(formula, data, family)
        if rival:
            line += f"  | glmer {rival['seconds']:.2f} s cpu, logLik {rival['loglik']:.4f}"
        print(line, flush=True)


def draw(name: str, formula: str, data: pd.DataFrame, family: str) -> None:
    """Time 4 x 1,000 draws of the Laplace engine."""
    import arviz as az

    model = blm.model(formula, data, family=family)
    model.sample(draws=20, tune=20, chains=2, seed=2, progress=False, engine="laplace")
    wall, cpu = time.perf_counter(), time.process_time()
    post = model.sample(draws=1000, chains=4, seed=1, progress=False, engine="laplace")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    names = ["beta", *(key for key in post.data["posterior"].data_vars if str(key).startswith("sd_"))]
    ess = az.ess(post.data["posterior"].to_dataset()[names])
    least = min(float(ess[key].min()) for key in names)
    print(
        f"{name:14s} {wall:.1f} s wall {cpu:.1f} s cpu, minimum bulk ESS {least:.0f}, {post.run.notes[-1]}, "
        f"divergences {int(post.data['sample_stats']['diverging'].sum())}",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
