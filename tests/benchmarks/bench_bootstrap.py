"""The parametric bootstrap on sleepstudy: 1,000 refits here and by lme4's bootMer, the same model, in one run.

Run ``python tests/benchmarks/bench_bootstrap.py``; it needs R with lme4 for the second figure. Each program reads the
data, fits once, refits ten times to warm up, and is then timed over 1,000 simulations and refits in one process;
BLAS has its default threads in both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bayeslmm as blm

R_SCRIPT = """
suppressMessages(library(lme4))
data <- read.csv(commandArgs(TRUE)[1]); data$Subject <- factor(data$Subject)
fit <- lmer(Reaction ~ Days + (Days | Subject), data)
statistic <- function(m) c(fixef(m), as.data.frame(VarCorr(m))$sdcor)
invisible(suppressMessages(suppressWarnings(bootMer(fit, statistic, 10, seed = 1))))
cat(system.time(suppressMessages(suppressWarnings(bootMer(fit, statistic, 1000, seed = 1))))[["elapsed"]])
"""


def ours(n: int = 1000) -> float:
    """Return the seconds that n simulations and refits take."""
    fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    fit.bootstrap(10, seed=1, progress=False)
    start = time.perf_counter()
    found = fit.bootstrap(n, seed=1, progress=False)
    seconds = time.perf_counter() - start
    print(f"bayeslmm: {n:,} refits in {seconds:.2f} s, {found.n_failed} failed")
    return seconds


def lme4() -> float:
    """Return the seconds that bootMer takes for 1,000."""
    with tempfile.TemporaryDirectory() as folder:
        path, script = Path(folder) / "sleep.csv", Path(folder) / "boot.R"
        blm.datasets.load("sleepstudy").to_csv(path, index=False)
        script.write_text(R_SCRIPT)
        done = subprocess.run(["Rscript", str(script), str(path)], capture_output=True, text=True, check=True)
    seconds = float(done.stdout)
    print(f"lme4 bootMer: 1,000 refits in {seconds:.2f} s")
    return seconds


if __name__ == "__main__":
    mine = ours()
    if shutil.which("Rscript"):
        print(f"multiple: {lme4() / mine:.0f}")
