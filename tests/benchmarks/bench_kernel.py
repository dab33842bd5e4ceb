"""Linear mixed models: whole calls of this package and its peers, by problem; writes docs/benchmarks.md.

Run ``python tests/benchmarks/bench_kernel.py [problem ...]`` (all problems when none is named; ``--starts``: only
the parts of a call and the first start; ``--programs=bayeslmm,mixedlm``: only these; ``--no-write``: print only). A
pair of program and problem has its own process: data in memory, one call to warm up, then five whole calls (formula
and data frame in, fitted object with standard errors out), of which the median counts. A program begins no further call
when `BUDGET` seconds are over, and is stopped at `LIMIT`. Peak memory is what the process needed above its state before
the first call, data loaded. What was measured is kept in ``results_kernel.json`` beside this file, so that problems can
be measured one at a time; the page holds all that are there, and how they were measured, which `notes` says there.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
REFERENCE = ROOT.parent / "shared" / "reference" / "data"
RESULTS = Path(__file__).with_name("results_kernel.json")
LIMIT, BUDGET = 40.0, 20.0
CALLS = 5


@dataclass(frozen=True)
class Problem:
    """A formula, the structure it stands for, and how its data come about."""

    structure: str
    formula: str
    data: Callable[[], pd.DataFrame]


def packaged(name: str) -> Callable[[], pd.DataFrame]:
    """Return a loader of a data set of this package."""

    def load() -> pd.DataFrame:
        from bayeslmm.datasets import load as load_packaged

        return load_packaged(name)

    return load


def reference(name: str) -> Callable[[], pd.DataFrame]:
    """Return a loader of a data set of the reference folder."""

    def load() -> pd.DataFrame:
        parquet = REFERENCE / f"{name}.parquet"
        frame = pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(REFERENCE / f"{name}.csv")
        side = json.loads((REFERENCE / f"{name}.json").read_text())
        for column, kind in side["columns"].items():
            if kind["type"] == "factor":
                frame[column] = pd.Categorical(frame[column].astype(str), categories=kind["levels"])
        return frame

    return load


def effects(rng: np.random.Generator, codes: np.ndarray, columns: np.ndarray, scale: float) -> np.ndarray:
    """Return the sum over columns of random effects of the levels in `codes`."""
    return (scale * rng.normal(size=(codes.max() + 1, columns.shape[1]))[codes] * columns).sum(axis=1)


def simulated(name: str) -> Callable[[], pd.DataFrame]:
    """Return a simulator of one of the large problems, always of the same data."""

    def simulate() -> pd.DataFrame:
        rng = np.random.default_rng(20)
        codes = CODES[name](rng)
        n = len(next(iter(codes.values())))
        x = rng.normal(size=n)
        one, both = np.ones((n, 1)), np.column_stack([np.ones(n), x])
        columns = both if name in ("million", "crossed_slopes") else one
        y = 1.0 + x + rng.normal(size=n)
        for code in codes.values():
            y += effects(rng, code, columns, 0.5)
        labels = {factor: pd.Categorical.from_codes(code, [f"{factor}{j}" for j in range(code.max() + 1)])
                  for factor, code in codes.items()}  # fmt: skip
        return pd.DataFrame({"y": y, "x": x, **labels})

    return simulate


def covering(rng: np.random.Generator, levels: int, n: int) -> np.ndarray:
    """Return random codes in which every level occurs."""
    return rng.permutation(np.concatenate([np.arange(levels), rng.integers(0, levels, n - levels)]))


def nested_codes(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return 300,000 rows of 100,000 pupils in 10,000 classes in 1,000 schools."""
    pupil = covering(rng, 100_000, 300_000)
    return {"pupil": pupil, "klass": pupil // 10, "school": pupil // 100}


def partly_codes(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return three years of 20,000 pupils with 2,000 teachers in 100 schools; 5 % of the pupils change school."""
    pupil = np.repeat(np.arange(20_000), 3)
    later = np.tile(np.arange(3), 20_000) > 0
    school = pupil // 200
    moves = (rng.random(20_000) < 0.05)[pupil] & later
    school = np.where(moves, rng.integers(0, 100, 20_000)[pupil], school)
    teacher = np.unique(school * 20 + rng.integers(0, 20, len(pupil)), return_inverse=True)[1]
    return {"pupil": pupil, "teacher": teacher, "school": school}


CODES: dict[str, Callable[[np.random.Generator], dict[str, np.ndarray]]] = {
    "million": lambda rng: {"g": covering(rng, 100_000, 1_000_000)},
    "nested": nested_codes,
    "partly_crossed": partly_codes,
    "crossed_slopes": lambda rng: {"a": covering(rng, 300, 300_000), "b": covering(rng, 90, 300_000),
                                   "c": covering(rng, 2_300, 300_000)},
}  # fmt: skip

PROBLEMS = {
    "nlschools": Problem("one factor", "lang ~ IQ + GS + SES + COMB + (1 | class)", packaged("nlschools")),
    "sleepstudy": Problem("one factor, slope", "Reaction ~ Days + (Days | Subject)", packaged("sleepstudy")),
    "Chem97": Problem("nested", "score ~ gcsescore + (1 | lea/school)", reference("Chem97")),
    "ScotsSec": Problem("crossed", "attain ~ sex + (1 | primary) + (1 | second)", reference("ScotsSec")),
    "InstEval": Problem("crossed, large", "y ~ service + (1 | s) + (1 | d) + (1 | dept)", packaged("InstEval")),
    "crossed_slopes": Problem(
        "three crossed, slopes", "y ~ x + (x | a) + (x | b) + (x | c)", simulated("crossed_slopes")
    ),
    "partly_crossed": Problem(
        "partly crossed", "y ~ x + (1 | pupil) + (1 | teacher) + (1 | school)", simulated("partly_crossed")
    ),
    "nested": Problem("nested, large", "y ~ x + (1 | pupil) + (1 | klass) + (1 | school)", simulated("nested")),
    "million": Problem("1,000,000 rows, slope", "y ~ x + (x | g)", simulated("million")),
}

Timed = tuple[float, int]


def call_bayeslmm(formula: str, data: Any) -> Timed:
    """Fit by this package; return criterion and number of evaluations."""
    import bayeslmm as blm

    fit = blm.model(formula, data).fit()
    np.sqrt(np.diag(fit.vcov))
    return fit.criterion, fit.optimum.evaluations


def call_mixedlm(formula: str, data: Any) -> Timed:
    """Fit by mixedlm."""
    import mixedlm

    fit = mixedlm.lmer(formula, data)
    fit.vcov()
    return float(fit.REMLcrit()), int(fit.function_evals) if isinstance(fit.function_evals, int) else int(fit.n_iter)


def call_lme_python(formula: str, data: Any) -> Timed:
    """Fit by lme-python, whose frames are polars'."""
    import lme_python

    fit = lme_python.lmer(formula, data)
    list(fit.std_errors)
    return float(fit.reml_criterion), int(fit.iterations or 0)


def call_statsmodels(formula: str, data: Any) -> Timed:
    """Fit by statsmodels, which knows one grouping factor."""
    import statsmodels.formula.api as smf

    fixed, _, random = formula.partition("+ (")
    columns, _, group = random.rstrip(")").partition("|")
    fit = smf.mixedlm(fixed, data, groups=data[group.strip()].astype(str), re_formula=f"~{columns}").fit()
    return -2.0 * float(fit.llf), 0


PROGRAMS: dict[str, tuple[str, Callable[[str, Any], Timed]]] = {
    "bayeslmm": ("bayeslmm", call_bayeslmm),
    "mixedlm": ("mixedlm", call_mixedlm),
    "lme-python": ("lme_python", call_lme_python),
    "statsmodels": ("statsmodels", call_statsmodels),
}

R_SCRIPT = """
suppressMessages(library(lme4))
arguments <- commandArgs(TRUE)
data <- read.csv(arguments[1], stringsAsFactors = TRUE)
for (name in strsplit(arguments[3], ",")[[1]]) data[[name]] <- factor(data[[name]])
formula <- as.formula(arguments[2])
before <- sum(gc(reset = TRUE)[, 2])
seconds <- c()
while (length(seconds) <= as.integer(arguments[4]) && sum(seconds) < as.numeric(arguments[5])) {
  start <- Sys.time()
  fit <- lmer(formula, data); v <- vcov(fit)
  seconds <- c(seconds, as.numeric(Sys.time() - start, units = "secs"))
}
if (length(seconds) > 1) seconds <- seconds[-1]
peak <- sum(gc()[, 6]) - before
cat(sprintf('{"seconds": [%s], "criterion": %.10f, "evaluations": %d, "peak": %.1f}\n',
  paste(seconds, collapse = ", "), REMLcrit(fit), fit@optinfo$feval, peak))
"""


def grouping(formula: str) -> list[str]:
    """Return the columns that group rows."""
    parts = [part.split("|")[1] for part in formula.split("(")[1:]]
    return sorted({name.strip(" )+") for part in parts for name in part.split("/")})


def load_libraries(program: str) -> None:
    """Fit a small model, so that everything the program loads on first use is in memory."""
    small: Any = packaged("sleepstudy")()
    if program == "lme-python":
        import polars as pl

        small = pl.from_pandas(small.assign(Subject=small["Subject"].astype(str)))
    PROGRAMS[program][1]("Reaction ~ Days + (Days | Subject)", small)


def one(program: str, problem: str) -> dict[str, Any]:
    """Time one program on one problem, in this process."""
    warnings.simplefilter("ignore")
    item = PROBLEMS[problem]
    data: Any = item.data()
    if program == "lme-python":
        import polars as pl

        data = pl.from_pandas(data.assign(**{name: data[name].astype(str) for name in grouping(item.formula)}))
    _, call = PROGRAMS[program]
    load_libraries(program)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, answer = [], (np.nan, 0)
    while len(seconds) <= CALLS and sum(seconds) < BUDGET:
        start = time.perf_counter()
        answer = call(item.formula, data)
        seconds.append(time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024.0
    return {"seconds": seconds[1:] or seconds, "criterion": answer[0], "evaluations": answer[1], "peak": peak}


def run(program: str, problem: str) -> dict[str, Any]:
    """Time one program on one problem, in a process of its own and within the limit."""
    if program == "statsmodels" and len(grouping(PROBLEMS[problem].formula)) > 1:
        return {"failure": "one grouping factor only"}
    with tempfile.TemporaryDirectory() as folder:
        if program == "lme4":
            frame = PROBLEMS[problem].data()
            path = Path(folder) / "data.csv"
            frame.to_csv(path, index=False)
            script = Path(folder) / "time.R"
            script.write_text(R_SCRIPT)
            formula = PROBLEMS[problem].formula
            command = ["Rscript", str(script), str(path), formula, ",".join(grouping(formula)), str(CALLS), str(BUDGET)]
        else:
            command = [sys.executable, __file__, "--one", program, problem]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT, check=False)
        except subprocess.TimeoutExpired:
            return {"failure": f"more than {LIMIT:.0f} s"}
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or ["failed"])[-1][:80]}
    return json.loads(done.stdout.strip().splitlines()[-1])


START = """
import sys, time
start = time.perf_counter()
import formulaic, narwhals, numba, pandas, scipy.linalg, scipy.linalg.cython_blas, scipy.special
libraries = time.perf_counter() - start
start = time.perf_counter()
import bayeslmm as blm
data = blm.datasets.load(sys.argv[1])
blm.model
stages = [libraries, time.perf_counter() - start]
used = time.process_time()

from functools import cached_property
from bayeslmm.likelihood._compiled import CFunction
get = CFunction.address.func
ready = []
def timed(function):
    began = time.perf_counter()
    found = get(function)
    ready.append(time.perf_counter() - began)
    return found
CFunction.address.func = timed

for call in ("fit", "fit", "sample", "sample"):
    start = time.perf_counter()
    model = blm.model(sys.argv[2], data, family=sys.argv[3])
    if call == "fit":
        fit = model.fit()
        fit.summary(), fit.ranef
    else:
        model.sample(100, chains=2, seed=1, progress=False)
    stages.append(time.perf_counter() - start)
    if len(stages) == 3:
        stages += [time.process_time() - used, sum(ready)]
print(*stages)
"""
STARTS = {
    "Gaussian": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", "gaussian"),
    "binomial": ("cbpp", "prop(incidence, size) ~ period + (1 | herd)", "binomial"),
}


def compilation() -> dict[str, list[tuple[float, ...]]]:
    """Return what a first and a later start take, by model: on a clean cache, and on the one that this has filled.

    Seconds of importing the libraries we need, of importing our modules and reading data, of the first fit, of
    computing in it, of compiling or loading its code, of a second fit, of a first posterior and of a second one.
    """
    times: dict[str, list[tuple[float, ...]]] = {}
    for name, arguments in STARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            command = [sys.executable, "-c", START, *arguments]
            for _ in range(2):
                done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
                times.setdefault(name, []).append(tuple(float(word) for word in done.stdout.split()))
    return times


def available() -> list[str]:
    """Return the programs that can run here."""
    programs = [name for name, (module, _) in PROGRAMS.items() if importlib.util.find_spec(module)]
    return [*programs, "lme4"] if shutil.which("Rscript") else programs


def versions(programs: list[str]) -> str:
    """Return the versions of the programs, for the record."""
    parts = []
    for name in programs:
        if name == "lme4":
            text = "cat(as.character(packageVersion('lme4')), extSoftVersion()[['BLAS']])"
            found = subprocess.run(["Rscript", "-e", text], capture_output=True, text=True, check=False).stdout.split()
            parts.append(f"lme4 {found[0]} (BLAS: {Path(found[-1]).resolve()})" if found else "lme4")
        elif name == "bayeslmm":
            parts.append(f"bayeslmm {importlib.import_module(name).__version__}")
        else:
            parts.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(parts)


SHORT = {"one grouping factor only": "-", "not measured": ""}


def cell(result: dict[str, Any], own: float) -> str:
    """Return one program's cell: median, and the ratio to ours; short, so that the table fits a page."""
    if "failure" in result:
        return SHORT.get(result["failure"], result["failure"].replace("more than ", "> ").partition(" for ")[0])
    median = statistics.median(result["seconds"])
    few = f", {len(result['seconds'])} calls" if len(result["seconds"]) < CALLS else ""
    return f"{1e3 * median:,.1f} ({median / own:,.1f} x{few})"


def measure(problems: list[str], programs: list[str]) -> dict[str, Any]:
    """Run everything, and return it together with what was measured before."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"problems": {}, "notes": ""}
    for problem in problems:
        results = {}
        for program in programs:
            results[program] = run(program, problem)
            print(f"{problem:16s} {program:12s} {results[program]}", file=sys.stderr, flush=True)
        known["problems"].setdefault(problem, {}).update(results)
    if not problems:
        known["starts"] = compilation()
        known["parts"] = parts()
        print(json.dumps({name: known[name] for name in ("starts", "parts")}, indent=1))
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}), Python {platform.python_version()}"
    return {**known, "machine": machine, "versions": versions(available())}


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Return the table of whole calls as Markdown."""
    peers = ["mixedlm", "lme-python", "statsmodels", "lme4"]
    lines = [
        "| problem | bayeslmm, ms | steps | peak, MB | " + " | ".join(peers) + " |",
        "|---|---:|---:|---:|" + "---:|" * len(peers),
    ]
    for problem in PROBLEMS:
        mine = measured.get(problem, {}).get("bayeslmm", {"failure": "not measured"})
        if "failure" in mine:
            lines.append(f"| {problem} | {mine['failure']} |" + " |" * (2 + len(peers)))
            continue
        own = statistics.median(mine["seconds"])
        others = [cell(measured[problem].get(name, {"failure": "not measured"}), own) for name in peers]
        lines.append(
            f"| {problem} | {1e3 * own:,.1f} | {mine['evaluations']} | {mine['peak']:,.0f} | "
            + " | ".join(others)
            + " |"
        )
    return "\n".join(lines)


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Return the median of repeated calls, in milliseconds, after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def parts() -> dict[str, dict[str, float]]:
    """Return where a whole call on small data spends its time, and what a refit takes, in milliseconds."""
    import formulaic

    import bayeslmm as blm
    from bayeslmm.frequentist.optimize import Control, optimize
    from bayeslmm.likelihood.lmm import LmmKernel, criterion_and_gradient, solve

    found = {}
    for name in ("sleepstudy", "nlschools", "Chem97", "ScotsSec"):
        item = PROBLEMS[name]
        data = item.data()
        model = blm.model(item.formula, data)
        fit = model.fit()
        kernel = LmmKernel.from_design(model.design)
        y = model.design.y.copy()
        fixed = item.formula.partition("~")[2].partition("+ (")[0]
        found[name] = {
            "formulaic": timed(lambda fixed=fixed, data=data: formulaic.model_matrix(fixed, data), 50),
            "parse": timed(lambda item=item: blm.parse_formula(item.formula), 50),
            "model": timed(lambda item=item, data=data: blm.model(item.formula, data), 50),
            "kernel": timed(lambda model=model: LmmKernel.from_design(model.design), 50),
            "search": timed(lambda kernel=kernel: optimize(kernel, Control()), 50),
            "recovery": timed(lambda kernel=kernel, fit=fit: solve(fit.theta, kernel), 50),
            "whole": timed(lambda item=item, data=data: blm.model(item.formula, data).fit().vcov, 50),
            "evaluation": timed(lambda kernel=kernel, fit=fit: criterion_and_gradient(fit.theta, kernel), 50),
            "refit": timed(lambda fit=fit, y=y: fit.refit(y), 200),
        }
    return found


FORMULAS_OF_STARTS = "; ".join(f"{name}: `{formula}`, {data}" for name, (data, formula, _) in STARTS.items()) + "."


def page(known: dict[str, Any]) -> str:
    """Return the page of documentation."""
    starts = "\n".join(
        f"| {name} | {cache} | " + " | ".join(f"{seconds:,.2f}" for seconds in times) + " |"
        for name, pair in known["starts"].items()
        for cache, times in zip(("clean", "filled"), pair, strict=True)
    )
    rows = "\n".join(
        f"| {name} | " + " | ".join(f"{part[key]:,.3f}" for key in PARTS) + " |"
        for name, part in known["parts"].items()
    )
    evaluations = "\n".join(
        f"| {name} | {beside} | {own:,.1f} | {other:,.1f} | {own / other:.2f} |"
        for name, beside, own, other in known.get("evaluations", ())
    )
    formulas = "\n".join(f"- {name} ({item.structure}): `{item.formula}`" for name, item in PROBLEMS.items())
    return f"""# Benchmarks

Linear mixed models by REML, whole calls: formula and data frame in, fitted object with standard errors out. Median of
{CALLS} calls after one to warm up, in milliseconds; in brackets how many times longer than bayeslmm. *Steps* are
evaluations of the criterion, *peak* is the memory that the calls needed above the loaded data and libraries.

{table(known["problems"])}

A program that has used {BUDGET:.0f} seconds begins no further call (the number of calls is then given), and is stopped
after {LIMIT:.0f} seconds (shown as >). statsmodels' mixed model has one grouping factor (-). lme-python is given
strings and polars frames, lme4 a data frame read from CSV.

The formulas:

{formulas}

## Where a small call spends its time

Milliseconds, median. *Formulaic* is `formulaic.model_matrix` of the fixed part alone, which a call contains; *model* is
formula and data frame to design, formulaic and *parse* (our parser) among it; *kernel* the cross-products and the
symbolic step; *search* the optimiser; *recovery* coefficients, group effects and their factor at the optimum; *whole*
everything. What is left of *model* after formulaic is columns, levels and checks by pandas. *Evaluation* is one
criterion with its gradient, *refit* is `fit.refit(y)`, the same design with a new response.

| problem | formulaic | parse | model | kernel | search | recovery | whole | evaluation | refit |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}

## One evaluation beside the algebra it needs

Milliseconds of one criterion with its gradient, and of what stands beside it, timed in turns; medians. Made by
`python tests/benchmarks/bench_evaluations.py`{known.get("evaluation_notes", "")}.

| problem | beside | evaluation | beside it | ratio |
|---|---|---:|---:|---:|
{evaluations}

## The first start

Compiled code is cached on disk, so the first fit ever on a machine takes longer, and so does the first posterior.
Seconds on a clean cache and in a later start. *Libraries* is the import of numpy, pandas, scipy, numba, narwhals and
formulaic, which no fit can do without; *ours* the import of our own modules with what else they need, and reading the
data. *Computing* is the processor time of the first fit in this process (a helper process compiles beside it on a clean
cache), *code* the part of the first fit that compiles the code or loads it. A posterior is 2 chains of 100 draws.
{FORMULAS_OF_STARTS}

| model | cache | libraries | ours | first fit | computing | code | second fit | first posterior | second |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
{starts}

## How this was made

On {known["machine"]}:
{known["versions"]}. The peers come with
`uv sync --group bench`, lme4 with R. {known["notes"]}
"""


def write_page(known: dict[str, Any]) -> None:
    """Write the page of documentation; what the benchmark of generalised models put at its end stays there."""
    place = ROOT / "docs" / "benchmarks.md"
    _, heading, rest = place.read_text().partition("\n## Generalised models\n")
    place.write_text(page(known) + heading + rest)


PARTS = ("formulaic", "parse", "model", "kernel", "search", "recovery", "whole", "evaluation", "refit")


def main(arguments: list[str]) -> None:
    """Run what was asked for."""
    if arguments[:1] == ["--one"]:
        print(json.dumps(one(*arguments[1:3])))
        return
    named = [name for name in arguments if name in PROBLEMS]
    chosen = [name.partition("=")[2].split(",") for name in arguments if name.startswith("--programs=")]
    programs = [name for name in available() if not chosen or name in chosen[0]]
    known = measure(named, programs)
    if not named and "--starts" not in arguments:
        known = {**known, "problems": measure(list(PROBLEMS), programs)["problems"]}
    print(table(known["problems"]))
    if "--no-write" not in arguments:
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        if "starts" in known:
            write_page(known)


if __name__ == "__main__":
    main(sys.argv[1:])
