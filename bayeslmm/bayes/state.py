"""The memory of one thread of a compiled log density, and what compiled code is asked to do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.likelihood._compiled import CFunction
    from bayeslmm.likelihood.record import Fields

EVALUATE, WHITENED, DRAW = range(3)
"""Operations of every log density; one that can do more numbers on from here."""


@dataclass(frozen=True, eq=False)
class State:
    """The memory of one thread.

    Parameters
    ----------
    fields : Fields
        What the record holds; `operation`, `w`, `x`, `by_x` and `slope` among it.
    function : CFunction
        Does the operation that a record asks for.
    words : ndarray
        The record.
    arrays : dict of str to ndarray
        The arrays whose addresses stand there, by field.
    kept : tuple
        What else lives as long as the words.
    """

    fields: Fields
    function: CFunction
    words: NDArray[np.int64]
    arrays: dict[str, NDArray[np.float64]]
    kept: tuple[Any, ...]

    def give(self, **arrays: NDArray[np.float64]) -> None:
        """Write fields of the record; the caller keeps the arrays alive."""
        for field, array in arrays.items():
            self.fields.write(self.words, field, array)

    def run(self, operation: int) -> float:
        """Let compiled code do one operation; other threads run meanwhile."""
        self.fields.write(self.words, "operation", operation)
        return float(self.function.native(self.words.ctypes.data))

    def ready(self) -> Self:
        """Return the state, told to evaluate the whitened vector `w` into `slope`."""
        self.fields.write(self.words, "operation", WHITENED)
        return self

    def evaluate(self, x: NDArray[np.float64], gradient: NDArray[np.float64]) -> float:
        """Return the log density of the sampled vector; fill its `gradient`. -inf where there is none."""
        self.arrays["x"][:] = x
        value = self.run(EVALUATE)
        gradient[:] = self.arrays["by_x"]
        return value

    def evaluate_whitened(self, w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the log density and its gradient in coordinates w, centre + spread w the vector."""
        self.arrays["w"][:] = w
        value = self.run(WHITENED)
        return value, self.arrays["slope"].copy()
