"""Posteriors: minimum bulk ESS per second beside bambi with nutpie; writes docs/benchmarks_bayes.md.

    python tests/benchmarks/bench_bayes.py [sleepstudy nlschools ...] [--no-bambi] [--seeds 1 2] [--method nuts]

Each program works on each problem in a process of its own, 4 chains of 1,000 draws. The first call of that process
loads or compiles what it needs; the second call makes model and draws anew. Times are wall times of the whole call.
ESS is the smallest bulk effective sample size over every coefficient, standard deviation, sigma and group effect.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_kernel import ROOT, packaged, reference

RESULTS = Path(__file__).with_name("results_bayes.json")
PAGE = ROOT / "docs" / "benchmarks_bayes.md"
LIMIT = 900
MEMORY = 16
"""GB of address space that bambi's process gets; without a limit the system may kill others in its stead."""
TEXT = """# Benchmarks: posteriors

4 chains of 1,000 draws of every coefficient, standard deviation and group effect, default priors of each program.
Seconds are whole calls, formula and data frame in, draws out: the first call in a process (this package loads code
that was compiled when it was first used on the machine; bambi compiles the model) and the second one. ESS is the
smallest bulk effective sample size over all parameters, in the second call; the last column compares ESS per second of
the second calls.

| problem | how | first, s | second, s | ESS | ESS/s | peak, GB | bambi first, s | second, s | ESS | ratio |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}

The formulas:

{formulas}

{versions}, {machine}. bambi's group effects have no correlation, so for sleepstudy it fits a simpler model.
A process was stopped after {minutes} minutes; bambi's had {memory} GB of address space. {notes}

    python tests/benchmarks/bench_bayes.py
"""
PROBLEMS = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", packaged("sleepstudy")),
    "nlschools": ("lang ~ IQ + GS + SES + COMB + (1 | class)", packaged("nlschools")),
    "radon": ("log_radon ~ floor + log_uranium + (1 | county)", packaged("radon")),
    "ScotsSec": ("attain ~ sex + (1 | primary) + (1 | second)", reference("ScotsSec")),
    "Chem97": ("score ~ gcsescore + (1 | lea) + (1 | lea:school)", reference("Chem97")),
    "InstEval": ("y ~ service + (1 | s) + (1 | d) + (1 | dept)", packaged("InstEval")),
}


def smallest_ess(draws: list[np.ndarray]) -> float:
    """Return the smallest bulk ESS over all numbers of all arrays (chains, draws, ...)."""
    from arviz_stats.base import array_stats

    values = [array_stats.ess(v.reshape(*v.shape[:2], -1), chain_axis=0, draw_axis=1, method="bulk") for v in draws]
    return float(np.nanmin(np.concatenate([np.ravel(v) for v in values])))


def ours(formula: str, data: pd.DataFrame, seed: int, method: str | None) -> dict[str, Any]:
    """Return seconds, ESS and what ran, for one posterior by this package."""
    import bayeslmm as blm

    began = time.perf_counter()
    post = blm.model(formula, data).sample(seed=seed, progress=False, method=method)
    seconds = time.perf_counter() - began
    posterior = post.data["posterior"]
    names = [name for name in posterior.data_vars if not name.startswith("corr_")]
    k = post.run.pareto_k
    return {
        "seconds": seconds,
        "ess": smallest_ess([posterior[name].values for name in names]),
        "how": post.run.method,
        "pareto_k": None if np.isnan(k) else k,
    }


def bambis(formula: str, data: pd.DataFrame, seed: int, method: str | None) -> dict[str, Any]:
    """Return the same for bambi with nutpie; it takes no method."""
    import bambi

    began = time.perf_counter()
    model = bambi.Model(formula, data)
    tree = model.fit(inference_method="nutpie", random_seed=seed, progressbar=False)
    seconds = time.perf_counter() - began
    posterior = tree["posterior"]
    return {
        "seconds": seconds,
        "ess": smallest_ess([posterior[name].values for name in posterior.data_vars]),
        "how": "nutpie",
        "pareto_k": None,
    }


PROGRAMS = {"bayeslmm": ours, "bambi": bambis}


def one(program: str, problem: str, seeds: list[int], method: str | None) -> None:
    """Print as JSON what two or more calls in this process took."""
    formula, load = PROBLEMS[problem]
    data = load()
    calls = [PROGRAMS[program](formula, data, seed, method) for seed in seeds]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print("RESULT " + json.dumps({"calls": calls, "peak_gb": peak}))


def limit_memory() -> None:
    """Let this process have no more than `MEMORY`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY * 10**9, MEMORY * 10**9))


def run(program: str, problem: str, seeds: list[int], method: str | None) -> dict[str, Any]:
    """Return what a fresh process measured, or why there is nothing."""
    command = [sys.executable, __file__, problem, "--one", program, "--seeds", *map(str, seeds)]
    command += ["--method", method] if method else []
    began = time.perf_counter()
    limit = limit_memory if program == "bambi" else None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, preexec_fn=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {LIMIT // 60} minutes"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines and program == "bambi":
        said = (done.stderr.strip().splitlines() or [""])[-1][:60] if done.returncode > 0 else "killed"
        return {"failed": f"failed after {time.perf_counter() - began:.0f} s with {MEMORY} GB: {said}"}
    if not lines:
        raise SystemExit(f"{program} on {problem} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return result


def rate(call: dict[str, Any]) -> float:
    """Return effective draws per second."""
    return float(call["ess"] / call["seconds"])


def row(problem: str, results: dict[str, Any]) -> str:
    """Return one line of the table."""
    mine = results["bayeslmm"]
    first, second = mine["calls"][0], mine["calls"][1]
    how = second["how"] + ("" if second["pareto_k"] is None else f", k {second['pareto_k']:.2f}")
    cells = [problem, how, f"{first['seconds']:.1f}", f"{second['seconds']:.2f}", f"{second['ess']:,.0f}"]
    cells += [f"{rate(second):,.0f}", f"{mine['peak_gb']:.2f}"]
    other = results.get("bambi")
    if other is None:
        cells += ["not run", "", "", ""]
    elif "failed" in other:
        cells += [other["failed"], "", "", ""]
    else:
        a, b = other["calls"][0], other["calls"][1]
        cells += [f"{a['seconds']:.1f}", f"{b['seconds']:.1f}", f"{b['ess']:,.0f}", f"{rate(second) / rate(b):,.0f} x"]
    return "| " + " | ".join(cells) + " |"


def page(known: dict[str, Any]) -> str:
    """Return docs/benchmarks_bayes.md."""
    rows = [row(problem, known["problems"][problem]) for problem in PROBLEMS if problem in known["problems"]]
    formulas = [f"- {problem}: `{PROBLEMS[problem][0]}`" for problem in PROBLEMS if problem in known["problems"]]
    notes = "\n".join(known.get("notes", []))
    return TEXT.format(
        rows="\n".join(rows), formulas="\n".join(formulas), minutes=LIMIT // 60, memory=MEMORY, notes=notes,
        versions=known["versions"], machine=known["machine"],
    )  # fmt: skip


def main() -> None:
    """Measure the problems named, keep the others, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", choices=[*PROBLEMS, []], default=[])
    parser.add_argument("--no-bambi", action="store_true")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="one call each, two at least")
    parser.add_argument("--method", choices=["nuts", "proposals"], help="print only, for this package")
    parser.add_argument("--one", choices=list(PROGRAMS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.problems[0], arguments.seeds, arguments.method)
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"problems": {}}
    for problem in arguments.problems or list(PROBLEMS):
        results = {"bayeslmm": run("bayeslmm", problem, arguments.seeds, arguments.method)}
        if not arguments.no_bambi and not arguments.method:
            results["bambi"] = run("bambi", problem, [1, 2], None)
        print(problem, json.dumps(results), flush=True)
        if "failed" not in results["bayeslmm"] and not arguments.method:
            known["problems"].setdefault(problem, {}).update(results)
    known["versions"] = ", ".join(f"{name} {version(name)}" for name in ("bayeslmm", "bambi", "nutpie", "pymc"))
    known["machine"] = f"Python {platform.python_version()}, {platform.machine()}"
    if not arguments.method:
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        PAGE.write_text(page(known))


if __name__ == "__main__":
    main()
