import numpy as np

from bayeslmm.teach.scalar import sd_grid


def test_the_grid_starts_at_zero_and_passes_the_estimate():
    grid = sd_grid(3.0, 1.0, 20, 50)
    assert grid[0] == 0.0
    assert grid[-1] > 1.5 * 3.0


def test_few_groups_need_a_longer_grid():
    assert sd_grid(3.0, 1.0, 4, 5)[-1] > sd_grid(3.0, 1.0, 100, 5)[-1]


def test_a_boundary_estimate_still_has_a_grid():
    assert np.all(np.diff(sd_grid(0.0, 2.0, 6, 5)) > 0)
