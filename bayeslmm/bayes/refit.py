"""The posterior again, of other rows or another response, with nothing compiled a second time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.posterior import Posterior
from bayeslmm.bayes.sample import choose_engine, sample
from bayeslmm.formula.design import refuse_survey_weights
from bayeslmm.formula.residuals import refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.priors import Priors
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design

Refit = Callable[..., Posterior]


def refitter(design: Design, family: Family, priors: Priors, engine: Any = None, method: Any = "nuts") -> Refit:
    """Return a function that draws from the posterior of the same model given other rows, or another response.

    Groups without rows stay in the model: their effects are draws from the fitted distribution.

    Parameters
    ----------
    design : Design
        All rows.
    family : Family
        Response family.
    priors : Priors
        Priors, which do not change with the rows.
    engine : {"marginal", "laplace", "latent"}, optional
        As in `sample`.
    method : {"nuts", "proposals"}, default "nuts"
        Of the marginal and the Laplace engine; not left to the clock, so that draws depend on the seed alone.

    Returns
    -------
    callable
        Of the design of the rows wanted, their positions (None: all rows) and the settings draws, chains, tune, seed,
        cores; returns a `Posterior`.
    """
    refuse_survey_weights(design, "kfold() or sbc()", "Compare or calibrate the model without the weights.")
    refuse(design.residuals, "drawing again from the posterior of other rows (kfold())", "Compare ML fits by AIC.")
    chosen, reason = choose_engine(design, family, priors, engine)
    if chosen == "latent":
        return latent_refitter(design, family, priors, reason)

    def refit(part: Design, rows: NDArray[np.intp] | None, **settings: Any) -> Posterior:
        return sample(part, family, priors, engine=chosen, progress=False, method=method, **settings)

    return refit


def latent_refitter(design: Design, family: Family, priors: Priors, reason: str) -> Refit:
    """Return such a function for the PyMC model, compiled once with rows and response as data.

    Parameters
    ----------
    design, family, priors
        As in `refitter`.
    reason : str
        Why this engine.

    Returns
    -------
    callable
        As in `refitter`.
    """
    import nutpie

    from bayeslmm.bayes.bambi import observed_values
    from bayeslmm.bayes.latent import build_pymc_model
    from bayeslmm.bayes.nuts import TUNE, choose_centred, relabel, run_of, spread_at_start

    centred = choose_centred(design, family)
    model = build_pymc_model(design, family, priors, centred=centred, replaceable=True)
    compiled = nutpie.compile_pymc_model(model, jitter_rvs=spread_at_start(model))
    everything = np.arange(len(np.asarray(design.y)))

    def refit(
        part: Design,
        rows: NDArray[np.intp] | None,
        *,
        draws: int,
        chains: int,
        seed: int,
        tune: int | None = None,
        cores: int | None = None,
    ) -> Posterior:
        began, warmup = time.perf_counter(), TUNE if tune is None else tune
        data = {
            "used_rows": everything if rows is None else rows,
            "response_values": observed_values(part, family),
        }
        tree = nutpie.sample(
            compiled.with_data(**data), draws=draws, tune=warmup, chains=chains,
            cores=min(chains, cores or chains), seed=seed, progress_bar=False, target_accept=0.9, save_warmup=False,
        )  # fmt: skip
        labelled, notes = relabel(tree, part, priors, draws)
        run = run_of(labelled, "nutpie", warmup, seed, time.perf_counter() - began, reason, notes)
        return Posterior(part, family, priors, labelled, run, None)

    return refit
