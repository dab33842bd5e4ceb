"""Generalised models: whole calls of fits beside mixedlm, glmer and glmmTMB; writes a section of docs/benchmarks.md.

Run ``python tests/benchmarks/bench_glmm.py [case ...]`` (all but the draws when none is named; ``case+draws`` times 4 x
1,000 draws of the Laplace engine; ``--no-write``: print only). A pair of program and case has its own process: data in
memory, one call to warm up, then at most five whole calls (formula and data frame in, fitted object with standard
errors out), of which the median counts. A program begins no further call when `BUDGET` seconds are over, and is stopped
at `LIMIT`. What was measured is kept in ``results_glmm.json`` beside this file.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bayeslmm as blm

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results_glmm.json")
PAGE = ROOT / "docs" / "benchmarks.md"
TITLE = "## Generalised models"
CALLS, BUDGET, LIMIT = 5, 20.0, 45.0
SHARED = Path(__file__).resolve().parents[3] / "shared"
MRP = (
    "abortion ~ male + repvote + region + (1 | state) + (1 | eth) + (1 | educ) + (1 | sex:eth) + (1 | educ:age)"
    " + (1 | educ:eth)"
)


def contraception() -> pd.DataFrame:
    """Return Contraception with a response of 0 and 1."""
    data = blm.datasets.load("Contraception")
    return data.assign(use=(data["use"].astype(str) == "Y").astype(int))


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
        "use ~ age + I(age**2) + urban + livch + (1 | district)",
        contraception,
        "bernoulli",
    ),
    "verbagg": ("y ~ anger + male + kind + (1 | id) + (1 | item)", verbagg, "bernoulli"),
    "poisson": ("y ~ x + (1 | a) + (1 | b) + (1 | c)", poisson_three, "poisson"),
    "cces5000": (MRP, lambda: cces("5000"), "bernoulli"),
    "cces": (MRP, lambda: cces("all"), "bernoulli"),
}


Answer = tuple[float, int]


def call_bayeslmm(formula: str, data: pd.DataFrame, family: str) -> Answer:
    """Fit by this package; return log-likelihood and number of evaluations."""
    fit = blm.model(formula, data, family=family).fit()
    np.sqrt(np.diag(fit.vcov))
    return fit.loglik, fit.optimum.evaluations


def call_mixedlm(formula: str, data: pd.DataFrame, family: str) -> Answer:
    """Fit by mixedlm."""
    import mixedlm

    kind = mixedlm.families.Poisson() if family == "poisson" else mixedlm.families.Binomial()
    weights = None
    if formula.startswith("cbind"):  # mixedlm takes proportions with their trials
        data, weights = data.assign(share=data["incidence"] / data["size"]), "size"
        formula = "share " + formula[formula.index("~") :]
    fit = mixedlm.glmer(formula, data, family=kind, weights=weights)
    fit.vcov()
    return float(fit.logLik().value), 0


PROGRAMS: dict[str, Callable[[str, pd.DataFrame, str], Answer]] = {"bayeslmm": call_bayeslmm, "mixedlm": call_mixedlm}
R_PACKAGES = {"glmer": "lme4", "glmmTMB": "glmmTMB"}

R_SCRIPT = """
arguments <- commandArgs(TRUE)
suppressMessages(library(arguments[7], character.only = TRUE))
data <- read.csv(arguments[1], stringsAsFactors = TRUE)
for (name in strsplit(arguments[3], ",")[[1]]) data[[name]] <- factor(data[[name]])
formula <- as.formula(arguments[2])
family <- if (arguments[8] == "poisson") poisson() else binomial()
before <- sum(gc(reset = TRUE)[, 2])
seconds <- c()
while (length(seconds) <= as.integer(arguments[4]) && sum(seconds) < as.numeric(arguments[5])) {
  start <- Sys.time()
  fit <- suppressWarnings(suppressMessages(get(arguments[6])(formula, data, family = family))); v <- vcov(fit)
  seconds <- c(seconds, as.numeric(Sys.time() - start, units = "secs"))
}
if (length(seconds) > 1) seconds <- seconds[-1]
peak <- sum(gc()[, 6]) - before
cat(sprintf('{"seconds": [%s], "loglik": %.8f, "evaluations": 0, "peak": %.1f}\\n',
  paste(seconds, collapse = ", "), as.numeric(logLik(fit)), peak))
"""


def grouping(formula: str) -> list[str]:
    """Return the columns that group rows, and others that R has to take for factors."""
    parts = [part.split("|")[1].strip(" )+") for part in formula.split("(1 ")[1:]]
    columns = {name.split(")")[0].strip() for part in parts for name in part.split(":")}
    return sorted(columns | ({"period"} if "period" in formula else set()))


def one(program: str, case: str) -> dict[str, Any]:
    """Time one program on one case, in this process."""
    warnings.simplefilter("ignore")
    formula, load, family = CASES[case]
    data, call = load(), PROGRAMS[program]
    call("use ~ age + (1 | district)", contraception(), "bernoulli")  # everything that is loaded on first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: list[float] = []
    answer: Answer = (np.nan, 0)
    while len(seconds) <= CALLS and sum(seconds) < BUDGET:
        start = time.perf_counter()
        answer = call(formula, data, family)
        seconds.append(time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024.0
    return {"seconds": seconds[1:] or seconds, "loglik": answer[0], "evaluations": answer[1], "peak": peak}


def run(program: str, case: str) -> dict[str, Any]:
    """Time one program on one case, in a process of its own and within the limit."""
    formula, load, family = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", program, case]
        if program in R_PACKAGES:
            path, script = Path(folder) / "data.csv", Path(folder) / "time.R"
            load().to_csv(path, index=False)
            script.write_text(R_SCRIPT)
            text = formula.replace("**", "^")
            command = ["Rscript", str(script), str(path), text, ",".join(grouping(formula)), str(CALLS), str(BUDGET)]
            command += [program, R_PACKAGES[program], family]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT, check=False)
        except subprocess.TimeoutExpired:
            return {"failure": f"more than {LIMIT:.0f} s"}
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or ["failed"])[-1][:80]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def available() -> list[str]:
    """Return the programs that can run here."""
    found = [name for name in PROGRAMS if importlib.util.find_spec(name)]
    if shutil.which("Rscript") is None:
        return found
    check = "cat(rownames(installed.packages()))"
    installed = subprocess.run(["Rscript", "-e", check], capture_output=True, text=True, check=False).stdout.split()
    return found + [name for name, package in R_PACKAGES.items() if package in installed]


def versions(programs: list[str]) -> str:
    """Return the versions of the programs, for the record."""
    parts = []
    for name in programs:
        if name in R_PACKAGES:
            text = f"cat(as.character(packageVersion('{R_PACKAGES[name]}')))"
            found = subprocess.run(["Rscript", "-e", text], capture_output=True, text=True, check=False).stdout
            parts.append(f"{name} ({R_PACKAGES[name]} {found.strip()})")
        else:
            parts.append(f"{name} {blm.__version__ if name == 'bayeslmm' else importlib.metadata.version(name)}")
    return ", ".join(parts)


def cell(result: dict[str, Any], own: dict[str, Any]) -> str:
    """Return one program's cell: median, the ratio to ours, and by how much its log-likelihood falls short."""
    if "failure" in result:
        return result["failure"]
    median = statistics.median(result["seconds"])
    count = len(result["seconds"])
    few = f", {count} call{'s' * (count > 1)}" if count < CALLS else ""
    gap = result["loglik"] - own["loglik"]
    away = f", logLik {gap:+.2g}" if abs(gap) >= 0.0005 else ""
    return f"{1e3 * median:,.0f} ({median / statistics.median(own['seconds']):,.1f} x{few}{away})"


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Return the table of whole calls as Markdown."""
    peers = ["mixedlm", *R_PACKAGES]
    lines = ["| case | bayeslmm, ms | evaluations | peak, MB | " + " | ".join(peers) + " |", "|---|" + "---:|" * 6]
    for case in (name for name in CASES if name in measured):
        mine = measured[case]["bayeslmm"]
        others = [cell(measured[case].get(name, {"failure": "not measured"}), mine) for name in peers]
        own = f"{1e3 * statistics.median(mine['seconds']):,.0f} | {mine['evaluations']} | {mine['peak']:,.0f}"
        lines.append(f"| {case} | {own} | " + " | ".join(others) + " |")
    return "\n".join(lines)


def section(known: dict[str, Any]) -> str:
    """Return the section of the page."""
    formulas = "\n".join(f"- {name}: `{CASES[name][0]}`" for name in CASES if name in known["cases"])
    return f"""{TITLE}

Whole calls as above (Laplace approximation, standard errors from the Hessian in all parameters), in milliseconds; in
brackets how many times longer than bayeslmm in the same run, and by how much a log-likelihood differs where it does.

{table(known["cases"])}

{formulas}

On {known["machine"]}: {known["versions"]}. {known["notes"]}
"""


def write_section(text: str) -> None:
    """Put the section in place of the one on the page, or at its end."""
    page = PAGE.read_text()
    before, found, after = page.partition(TITLE)
    rest = after[after.index("\n## ") + 1 :] if found and "\n## " in after else ""
    PAGE.write_text(before.rstrip() + "\n\n" + text.rstrip() + "\n" + (f"\n{rest}" if rest else ""))


def main(arguments: list[str]) -> None:
    """Run what was asked for."""
    warnings.simplefilter("ignore")
    if arguments[:1] == ["--one"]:
        print(json.dumps(one(*arguments[1:3])))
        return
    names = [name for name in arguments if not name.startswith("--")]
    for name in (name for name in names if name.endswith("+draws")):
        formula, load, family = CASES[name.removesuffix("+draws")]
        draw(name, formula, load(), family)
    cases = [name for name in names if name in CASES] if names else list(CASES)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}, "notes": ""}
    programs = available()
    for case in cases:
        for program in programs:
            found = run(program, case)
            known["cases"].setdefault(case, {})[program] = found
            print(f"{case:14s} {program:10s} {found}", file=sys.stderr, flush=True)
    if cases:
        machine = (
            f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}), Python {platform.python_version()}"
        )
        known |= {"machine": machine, "versions": versions(programs)}
        print(table(known["cases"]))
    if cases and "--no-write" not in arguments:
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        write_section(section(known))


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
