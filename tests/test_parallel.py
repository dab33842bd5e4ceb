"""Many fits at once run where joblib's backend in force runs them, and give what one after another gives."""

import os

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@pytest.fixture(scope="module")
def fit():
    return blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy")).fit()


def test_the_bootstrap_runs_in_processes_of_the_backend_in_force(fit):
    from joblib import parallel_config

    with parallel_config("loky", n_jobs=2):
        pids = fit.bootstrap(4, lambda _: float(os.getpid()), seed=1, workers=2, progress=False).replicates
        there = fit.bootstrap(4, seed=1, workers=2, progress=False).replicates
    assert os.getpid() not in set(pids.to_numpy().ravel())
    pd.testing.assert_frame_equal(there, fit.bootstrap(4, seed=1, progress=False).replicates)


def test_groups_left_out_do_not_depend_on_the_number_of_workers():
    simulated = blm.datasets.simulate_poll(600, seed=1)
    frame = blm.PoststratFrame(simulated.population)
    model = blm.model("yes ~ sex + (1 | state)", simulated.poll, family="bernoulli")
    one, two = (blm.leave_one_out(model, frame, levels=["CA", "TX"], workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.draws, two.draws)
