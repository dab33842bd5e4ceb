"""Mixed models from one formula: REML and NUTS side by side, and poststratification.

`import bayeslmm` loads neither a sampler nor a plotting library: public names are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayeslmm import datasets, teach
    from bayeslmm.bayes.calibration import sbc
    from bayeslmm.bayes.inference import compare_models
    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.bayes.priors import Prior, pc_prior
    from bayeslmm.contract import Fit, RandomEffects
    from bayeslmm.families import Family
    from bayeslmm.formula import residuals
    from bayeslmm.formula.design import Design, build_design
    from bayeslmm.formula.parse import parse_formula
    from bayeslmm.frequentist.glmm_fit import GlmmFit
    from bayeslmm.frequentist.likelihood_ratio import anova, ranova
    from bayeslmm.frequentist.lmm_fit import LmmFit
    from bayeslmm.frequentist.optimize import Control, Optimum
    from bayeslmm.frequentist.simulation import extend, power, power_curve, simulate
    from bayeslmm.likelihood.crossproducts import cross_products
    from bayeslmm.likelihood.lmm import LmmKernel, criterion
    from bayeslmm.models import Model, glmer, lmer, model
    from bayeslmm.mrp.collapse import collapse
    from bayeslmm.mrp.estimates import Estimates
    from bayeslmm.mrp.frame import PoststratFrame
    from bayeslmm.mrp.holdout import leave_one_out
    from bayeslmm.mrp.poststratify import poststratify
    from bayeslmm.mrp.recoding import group_predictors, recode
    from bayeslmm.mrp.survey import survey_estimates
    from bayeslmm.report.compare import compare
    from bayeslmm.report.side_by_side import table

__version__ = "0.1.0"

_HOME = {
    "Control": "frequentist.optimize",
    "Design": "formula.design",
    "Estimates": "mrp.estimates",
    "Family": "families",
    "Fit": "contract",
    "GlmmFit": "frequentist.glmm_fit",
    "LmmFit": "frequentist.lmm_fit",
    "LmmKernel": "likelihood.lmm",
    "Model": "models",
    "Optimum": "frequentist.optimize",
    "Posterior": "bayes.posterior",
    "PoststratFrame": "mrp.frame",
    "Prior": "bayes.priors",
    "RandomEffects": "contract",
    "anova": "frequentist.likelihood_ratio",
    "build_design": "formula.design",
    "collapse": "mrp.collapse",
    "compare": "report.compare",
    "compare_models": "bayes.inference",
    "criterion": "likelihood.lmm",
    "cross_products": "likelihood.crossproducts",
    "extend": "frequentist.simulation",
    "glmer": "models",
    "group_predictors": "mrp.recoding",
    "leave_one_out": "mrp.holdout",
    "lmer": "models",
    "model": "models",
    "parse_formula": "formula.parse",
    "pc_prior": "bayes.priors",
    "poststratify": "mrp.poststratify",
    "power": "frequentist.simulation",
    "power_curve": "frequentist.simulation",
    "ranova": "frequentist.likelihood_ratio",
    "recode": "mrp.recoding",
    "sbc": "bayes.calibration",
    "simulate": "frequentist.simulation",
    "survey_estimates": "mrp.survey",
    "table": "report.side_by_side",
}

__all__ = [
    "Control",
    "Design",
    "Estimates",
    "Family",
    "Fit",
    "GlmmFit",
    "LmmFit",
    "LmmKernel",
    "Model",
    "Optimum",
    "Posterior",
    "PoststratFrame",
    "Prior",
    "RandomEffects",
    "anova",
    "build_design",
    "collapse",
    "compare",
    "compare_models",
    "criterion",
    "cross_products",
    "datasets",
    "extend",
    "glmer",
    "group_predictors",
    "leave_one_out",
    "lmer",
    "model",
    "parse_formula",
    "pc_prior",
    "poststratify",
    "power",
    "power_curve",
    "ranova",
    "recode",
    "residuals",
    "sbc",
    "simulate",
    "survey_estimates",
    "table",
    "teach",
]


def __getattr__(name: str) -> Any:
    if name in ("datasets", "teach"):
        return import_module(f"bayeslmm.{name}")
    if name == "residuals":
        return import_module("bayeslmm.formula.residuals")
    if name in _HOME:
        value = getattr(import_module(f"bayeslmm.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bayeslmm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
