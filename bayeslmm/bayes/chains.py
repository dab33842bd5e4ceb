"""A compiled log density for nutpie: its chains call machine code, without Python and its lock in between.

The records of `bayeslmm.likelihood.record` belong to one thread each, while nutpie hands all its threads the same
pointer. It points to a *pool* of records here; a call takes one that is free and gives it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from bayeslmm.likelihood._compiled import beyond, c_function, doubles, longs
from bayeslmm.likelihood.handle import call

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.state import State

_DOUBLES, _POOL = "CPointer(float64)", "CPointer(int64)"
HEAD, ENTRY = 2, 4
"""Words of a pool before its entries: how many there are, and the C function. Words of an entry: whether it is taken,
and the addresses of record, vector and gradient."""
NOT_FINITE = 3
STATISTICS = {
    "diverging": "diverging",
    "energy": "energy",
    "logp": "lp",
    "n_steps": "n_steps",
    "depth": "tree_depth",
    "step_size": "step_size",
    "mean_tree_accept": "acceptance_rate",
    "maxdepth_reached": "reached_max_treedepth",
}
"""Statistics of a draw that are kept: nutpie's name, and ArviZ's."""


@intrinsic
def take(typing_context, flag):  # type: ignore[no-untyped-def]
    """Set a flag that is 0 to 1, in one step for all threads; return whether it was 0."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        zero, one = ir.Constant(ir.IntType(64), 0), ir.Constant(ir.IntType(64), 1)
        found = builder.cmpxchg(arguments[0], zero, one, "acq_rel", "acquire")
        return builder.zext(builder.extract_value(found, 1), ir.IntType(64))

    return types.int64(flag), generate


@intrinsic
def give_back(typing_context, flag):  # type: ignore[no-untyped-def]
    """Set a flag to 0 after all that was written before."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store_atomic(ir.Constant(ir.IntType(64), 0), arguments[0], "release", 8)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(flag), generate


@c_function(f"int64(uint64, {_DOUBLES}, {_DOUBLES}, {_DOUBLES}, {_POOL})")
def nuts_density(size, x, gradient, value, pool):  # type: ignore[no-untyped-def]
    """Evaluate the log density and its gradient with a record of the pool that is free."""
    count, entry = pool[0], 0
    while not take(beyond(pool, HEAD + ENTRY * entry)):
        entry = entry + 1 if entry + 1 < count else 0
    at = HEAD + ENTRY * entry
    w, slope = doubles(pool[at + 2]), doubles(pool[at + 3])
    finite = True
    for i in range(size):
        w[i] = x[i]
    value[0] = call(pool[1], longs(pool[at + 1]))
    for i in range(size):
        gradient[i] = slope[i]
        finite = finite and abs(slope[i]) < np.inf
    finite = finite and abs(value[0]) < np.inf
    give_back(beyond(pool, at))
    return 0 if finite else NOT_FINITE


@c_function(f"int64(uint64, uint64, {_DOUBLES}, {_DOUBLES}, {_POOL})")
def copy_vector(size, expanded, x, out, pool):  # type: ignore[no-untyped-def]
    """Hand the vector on as it is: what the chain stores."""
    for i in range(size):
        out[i] = x[i]
    return 0


type Run = tuple[NDArray[np.float64], dict[str, NDArray[Any]]]


def new_pool(function: int, states: Sequence[State]) -> NDArray[np.int64]:
    """Return the words of a pool of records, which must live as long as it is used."""
    words = [len(states), function]
    for state in states:
        words += [0, *(array.ctypes.data for array in (state.words, state.arrays["w"], state.arrays["slope"]))]
    return np.array(words, dtype=np.int64)


@dataclass(frozen=True)
class Chains:
    """What NUTS is to do.

    Parameters
    ----------
    size : int
        Length of the vector.
    draws, tune, chains, cores : int
        Draws and warm-up steps per chain, chains, and chains at a time.
    seed : int
        Makes the draws reproducible.
    progress : bool
        Show a bar.
    target_accept : float
        Acceptance the step size is tuned to.
    jitter : float
        SD of the normal starting points.
    """

    size: int
    draws: int
    tune: int
    chains: int
    cores: int
    seed: int
    progress: bool
    target_accept: float
    jitter: float = 1.0

    def start(self, seed: int) -> NDArray[np.float64]:
        """Return a starting point (size,)."""
        return np.asarray(self.jitter * np.random.default_rng(seed).standard_normal(self.size))

    def run_compiled(self, function: int, states: Sequence[State]) -> Run:
        """Run NUTS on a compiled log density that depends on nothing but the vector.

        Which chain gets which record is a matter of time: one that starts from what it found before, such as a mode,
        would make the draws depend on that.

        Parameters
        ----------
        function : int
            Address of the C function that evaluates a record.
        states : sequence of State
            One for each chain at work at a time, told what to evaluate.

        Returns
        -------
        w : ndarray (C, D, size)
            Draws, not a number where a chain was interrupted.
        statistics : dict of str to ndarray (C, D)
            Alongside.
        """
        from nutpie.compile_pymc import CompiledPyMCModel

        model = CompiledPyMCModel(
            dims=None, compiled_logp_func=nuts_density, compiled_expand_func=copy_vector, initial_point_func=self.start,
            shared_data={}, shared_var_keys={}, user_data=new_pool(function, states), n_expanded=self.size,
            shape_info=(["w"], [slice(0, self.size)], [(self.size,)]), logp_func=None, expand_func=None,
            _n_dim=self.size, _shapes={"w": (self.size,)}, _coords=None,
        )  # fmt: skip
        return self._run(model)

    def run_callable(self, make_density: Callable[[], Callable[[NDArray[np.float64]], Any]]) -> Run:
        """Run NUTS on a Python function; `make_density` returns one with a state of its own for a thread."""
        from nutpie.compiled_pyfunc import from_pyfunc

        model = from_pyfunc(
            self.size, make_density, lambda *_: lambda w: {"w": w}, [np.dtype("float64")], [(self.size,)], ["w"],
            make_initial_point_fn=self.start,
        )  # fmt: skip
        return self._run(model)

    def _run(self, model: Any) -> Run:
        import nutpie

        trace = nutpie.sample(
            model, draws=self.draws, tune=self.tune, chains=self.chains, cores=self.cores, seed=self.seed,
            progress_bar=self.progress, target_accept=self.target_accept, save_warmup=False, return_raw_trace=True,
        )  # fmt: skip
        return read_trace(trace, self.draws, self.size)


def read_trace(trace: Any, draws: int, size: int) -> Run:
    """Return draws (C, D, size) and statistics (C, D) after warm-up of nutpie's Arrow tables; see `Chains`."""
    import pyarrow

    vectors, alongside = trace.get_arrow_trace()
    w = np.full((len(vectors), draws, size), np.nan)
    statistics: dict[str, NDArray[Any]] = {}
    for chain, (vector, stats) in enumerate(zip(vectors, alongside, strict=True)):
        kept = ~pyarrow.array(stats.column("tuning")).to_numpy(zero_copy_only=False)
        values = pyarrow.array(vector.column("w")).flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
        w[chain, : kept.sum()] = values[kept]
        for name in STATISTICS:
            column = pyarrow.array(stats.column(name)).to_numpy(zero_copy_only=False)
            whole = statistics.setdefault(name, np.zeros((len(vectors), draws), dtype=column.dtype))
            whole[chain, : kept.sum()] = column[kept]
    return w, {ours: statistics[theirs] for theirs, ours in STATISTICS.items()}
