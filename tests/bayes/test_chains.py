"""Chains on machine code draw what chains on the same density in Python draw, whatever the number of records."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.chains import Chains
from bayeslmm.bayes.folded import fold
from bayeslmm.bayes.logposterior import log_posterior_of, posterior
from bayeslmm.bayes.marginal import find_mode
from bayeslmm.likelihood._compiled import CFunction


def in_python(new_state, evaluate):
    def make_density():
        state = new_state()
        return lambda w: evaluate(state, w)

    return make_density


def folded_model():
    model = blm.model("lang ~ IQ + GS + SES + COMB + (IQ | class)", blm.datasets.load("nlschools"))
    density = log_posterior_of(model.design, model.priors, model.kernel)
    folded = fold(density, find_mode(density).x)
    assert folded is not None
    return posterior.address, folded.state, density.evaluate_whitened, density.size


def plain_model():
    model = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    density = log_posterior_of(model.design, model.priors, model.kernel)
    mode = find_mode(density)
    return posterior.address, lambda: density.state(mode.x, mode.spread), density.evaluate_whitened, density.size


@pytest.mark.parametrize("model", [plain_model, folded_model])
@pytest.mark.parametrize("records", [1, 3])
def test_machine_code_and_python_draw_the_same(model, records):
    function, new_state, evaluate, size = model()
    work = Chains(size, 30, 60, 3, 3, 11, False, 0.8, jitter=0.3)
    w, statistics = work.run_compiled(function, [new_state().ready() for _ in range(records)])
    expected, alongside = work.run_callable(in_python(new_state, evaluate))
    assert w.shape == (3, 30, size)
    np.testing.assert_array_equal(w, expected)
    np.testing.assert_array_equal(statistics["n_steps"], alongside["n_steps"])
    assert not np.array_equal(w[0], w[1])


def test_a_density_that_is_not_finite_is_a_divergence_not_an_end():
    model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    density = log_posterior_of(model.design, model.priors, model.kernel)
    mode = find_mode(density)
    # Axes so long that the first steps leave the range of floating-point numbers.
    states = [density.state(mode.x, 300.0 * mode.spread).ready()]
    w, statistics = Chains(2, 20, 50, 1, 1, 5, False, 0.8, jitter=1e-3).run_compiled(posterior.address, states)
    assert np.isfinite(w).all()
    assert statistics["diverging"].shape == (1, 20)


def test_threads_that_need_compiled_code_first_and_together_share_it():
    """Simulation-based calibration and k-fold begin in threads; each must not load the code on its own."""
    fresh = CFunction(posterior.function, posterior.signature)
    together = Barrier(4)

    def ask(_):
        together.wait()
        return fresh.address

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
