"""Where a generalised model lies for compiled code: two factorisations, the data, the numbers of one thread, arguments.

One array of words holds it all: the handle of the factor, that of the selected inverse, then the records of `Cells` and
`State`, then what a call is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.likelihood.handle import SIZE, STRUCTURE, WORKSPACE, engine_handle
from bayeslmm.likelihood.record import Fields

CELLS = Fields(
    "Cells",
    "y:f1 size:f1 extra:f1 weight:f1 offset:f1 X:f2 Z:f2 at:i2 pair:l2 z_start:l1 root_at:i2 root_pair:i2 fold_from:i1 "
    "fold_to:i1 derive_from:i1 derive_to:i1 carrier:f2 carries:b1 evaluator:l1",
    2 * SIZE,
)
STATE = Fields(
    "State",
    "u:f2 b:f2 beta:f2 warm:f1 cold_beta:f2 eta:f1 terms:f2 block_values:f1 inverse_values:f1 step:f2 trial:f2 "
    "beta_step:f2 products:f2 border:f2 schur:f2 change:f1 before:f1 rows:f2 effects:f1 reach:f2 tilt:f2",
    CELLS.end,
    {"work": (WORKSPACE, 0), "inverse_work": (WORKSPACE, SIZE)},
)
GLMM = Fields(
    "Glmm",
    "operation:int family:int link:int joint:int gradients:int tolerance:float templates:f1 aux:f1 mean:f1 "
    "precision:f2 by_template:f1 by_beta:f1 by_aux:f1 beta_noise:f1 noise:f1 beta_out:f1 effects_out:f1 found:f1",
    STATE.end,
    {"cells": (CELLS, 0), "structure": (STRUCTURE, 0), "state": (STATE, 0)},
)
WORDS = GLMM.end


def fill_handle(handle: NDArray[np.int64], state: Any) -> None:
    """Write where the arrays of a state lie; the caller keeps them alive.

    Parameters
    ----------
    handle : ndarray (WORDS,)
        What compiled code will be given.
    state : State
        Of one thread, with structure and cells.
    """
    handle[:SIZE] = engine_handle(state.structure, state.work)
    handle[SIZE : 2 * SIZE] = engine_handle(state.structure, state.inverse_work)
    handle[CELLS.first : CELLS.end] = CELLS.words(state.cells)
    handle[STATE.first : STATE.end] = STATE.words(state[: len(STATE.kinds)])
