"""Many fits at once run where joblib's backend in force runs them, and give what one after another gives."""

import os

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.simulation import sbc
from bayeslmm.frequentist.simulation import power


@pytest.fixture(scope="module")
def dask():
    """Register a Dask cluster of one worker process as a backend of joblib."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'dask[distributed]'")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    client = distributed.Client(cluster)
    yield client
    client.close()
    cluster.close()


@pytest.fixture(scope="module")
def fit():
    return blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy")).fit()


def where(_fit):
    return float(os.getpid())


def test_the_bootstrap_runs_in_the_workers_of_dask(dask, fit):
    from joblib import parallel_config

    with parallel_config("dask"):
        pids = fit.bootstrap(4, where, seed=1, workers=-1, progress=False).replicates
        there = fit.bootstrap(4, seed=1, workers=-1, progress=False).replicates
    assert os.getpid() not in set(pids.to_numpy().ravel())
    pd.testing.assert_frame_equal(there, fit.bootstrap(4, seed=1, progress=False).replicates)


def test_power_and_calibration_do_not_depend_on_where_they_run(dask, fit):
    from joblib import parallel_config

    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    with parallel_config("dask"):
        studies = power(fit, "Days", n_sim=4, seed=1, workers=-1, progress=False)
        ranks = sbc(model, n_sims=2, draws=20, seed=1, workers=-1).ranks
    assert str(studies) == str(power(fit, "Days", n_sim=4, seed=1, progress=False))
    pd.testing.assert_frame_equal(ranks, sbc(model, n_sims=2, draws=20, seed=1).ranks)


def test_groups_left_out_do_not_depend_on_the_number_of_workers():
    simulated = blm.datasets.simulate_poll(600, seed=1)
    frame = blm.PoststratFrame(simulated.population)
    model = blm.model("yes ~ sex + (1 | state)", simulated.poll, family="bernoulli")
    one, two = (blm.leave_one_out(model, frame, levels=["CA", "TX"], workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.draws, two.draws)
