"""Time and peak memory of poststratifying 1,000,000 cells with 4,000 draws.

Run from the root of the repository: ``python tests/benchmarks/bench_mrp_million_cells.py [cells] [draws]``. Draws of
coefficients and effects are random numbers; seven grouping factors, four groupings at once (520 estimates).
"""

import resource
import sys
import time
from importlib import util
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import bayeslmm as blm  # noqa: E402

LEVELS = {"state": 51, "county": 3143, "age": 10, "educ": 6, "eth": 8, "sex": 2}
FORMULA = (
    "yes ~ sex + vote + (1 | state) + (1 | county) + (1 | age) + (1 | educ) + (1 | eth) + (1 | age:educ) "
    "+ (1 | state:eth)"
)


def known_fit():
    """Return the class of the tests whose draws are given, not estimated."""
    path = ROOT / "tests" / "mrp" / "conftest.py"
    spec = util.spec_from_file_location("known_fit", path)
    module = util.module_from_spec(spec)
    sys.modules["known_fit"] = module
    spec.loader.exec_module(module)
    return module.KnownFit


def make_cells(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return distinct cells of counties by age, education, ethnicity and sex."""
    within = 10 * 6 * 8 * 2
    kinds = rng.choice(LEVELS["county"] * within, count, replace=False)
    county, rest = kinds // within, kinds % within
    codes = {
        "state": county % LEVELS["state"],
        "county": county,
        "age": rest % 10,
        "educ": rest // 10 % 6,
        "eth": rest // 60 % 8,
        "sex": rest // 480,
    }
    cells = pd.DataFrame({name: np.char.add(name[:2], code.astype(str)) for name, code in codes.items()})
    cells["vote"] = codes["state"] / LEVELS["state"]
    return cells.assign(n=rng.integers(1, 500, count))


def main(count: int = 1_000_000, draws: int = 4_000) -> None:
    """Print time, CPU time and memory."""
    rng = np.random.default_rng(0)
    cells = make_cells(count, rng)
    poll = cells.sample(20_000, random_state=1).reset_index(drop=True).assign(yes=rng.integers(0, 2, 20_000))
    design = blm.build_design(FORMULA, poll, family="bernoulli")
    effects = {f.name: rng.normal(0, 0.3, (draws, len(f.levels), 1)) for f in design.factors}
    fit = known_fit()(
        design, rng.normal(0, 0.3, (draws, 3)), effects, {f.name: np.array([0.3]) for f in design.factors}
    )
    frame = blm.PoststratFrame(cells)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    by = ["state", ("state", "eth"), ("age", "educ"), ()]
    estimates = blm.poststratify(fit, frame, by=by, new_levels="sample", seed=1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} cells, {draws:,} draws, {len(estimates)} estimates")
    print(f"{wall:.1f} s, {cpu:.1f} s of processor time; peak {peak:,.0f} MB ({before:,.0f} MB before)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
