"""Minimum bulk ESS per second of bayeslmm beside bambi with nutpie, in one run on one machine.

    python tests/benchmarks/bench_bayes.py [--models sleepstudy nlschools ...] [--no-bambi]

Times are wall times of the whole call, compilation included, and processor seconds of all its threads: the first call
of the process, and the second. ESS is the smallest bulk effective sample size over every coefficient, standard
deviation, sigma and group effect.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from arviz_stats.base import array_stats

import bayeslmm as blm

MODELS = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (Days|Subject)", "sleepstudy"),
    "nlschools": (
        "lang ~ IQ + GS + SES + COMB + (1 | class)",
        "lang ~ IQ + GS + SES + COMB + (1|class)",
        "nlschools",
    ),
    "Penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "diameter ~ 1 + (1|plate) + (1|sample)", "Penicillin"),
    "InstEval": ("y ~ service + (1 | s) + (1 | d) + (1 | dept)", None, "InstEval"),
}


def smallest_ess(draws) -> float:
    values = [array_stats.ess(v.reshape(*v.shape[:2], -1), chain_axis=0, draw_axis=1, method="bulk") for v in draws]
    return float(np.nanmin(np.concatenate([np.ravel(v) for v in values])))


def run_ours(formula: str, data: str, **options):
    began, busy = time.perf_counter(), time.process_time()
    post = blm.model(formula, blm.datasets.load(data)).sample(seed=1, progress=False, **options)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    posterior = post.data["posterior"]
    names = [name for name in posterior.data_vars if not name.startswith("corr_")]
    return seconds, cpu, smallest_ess([posterior[name].values for name in names]), post.engine


def run_bambi(formula: str, data: str):
    import bambi

    began, busy = time.perf_counter(), time.process_time()
    frame = blm.datasets.load(data)
    tree = bambi.Model(formula, frame).fit(inference_method="nutpie", random_seed=1, progressbar=False)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    posterior = tree["posterior"]
    return seconds, cpu, smallest_ess([posterior[name].values for name in posterior.data_vars]), "bambi + nutpie"


def report(name: str, call: str, seconds: float, cpu: float, ess: float, engine: str) -> None:
    times = f"{seconds:8.2f} s wall {cpu:8.2f} s CPU"
    print(f"{name:11s} {engine:30s} {call:7s} {times}  min ESS {ess:6.0f}  {ess / seconds:8.1f}/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sleepstudy", "nlschools"], choices=list(MODELS))
    parser.add_argument("--no-bambi", action="store_true")
    parser.add_argument("--draws", type=int, default=1000, help="per chain")
    parser.add_argument("--method", choices=["nuts", "proposals"])
    arguments = parser.parse_args()
    options = {"method": arguments.method, "draws": arguments.draws}
    for name in arguments.models:
        ours, theirs, data = MODELS[name]
        for call in ("first", "second"):
            report(name, call, *run_ours(ours, data, **options))
        if theirs is not None and not arguments.no_bambi:
            report(name, "first", *run_bambi(theirs, data))


if __name__ == "__main__":
    main()
