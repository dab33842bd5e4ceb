"""Many fits at once run on a Dask cluster of this machine, and give what one after another gives."""

import pandas as pd
import pytest

import bayeslmm as blm

distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'dask[distributed]'")


def test_the_bootstrap_runs_in_the_worker_of_a_dask_cluster():
    from joblib import parallel_backend

    fit = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy")).fit()
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        with parallel_backend("dask"):
            there = fit.bootstrap(4, seed=1, workers=-1, progress=False).replicates
        assert set(client.run(eval, "'bayeslmm' in __import__('sys').modules").values()) == {True}
    pd.testing.assert_frame_equal(there, fit.bootstrap(4, seed=1, progress=False).replicates)
