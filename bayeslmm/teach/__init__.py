"""Pictures that explain multilevel models: pooling, shrinkage, the likelihood of a group SD, priors, power."""

from bayeslmm.teach.group_sd import SdLikelihood, sd_likelihood
from bayeslmm.teach.panels import pooling
from bayeslmm.teach.shrink import Shrinkage, shrinkage
from bayeslmm.teach.studies import studies
from bayeslmm.teach.updating import PriorToPosterior, prior_to_posterior

__all__ = [
    "PriorToPosterior",
    "SdLikelihood",
    "Shrinkage",
    "pooling",
    "prior_to_posterior",
    "sd_likelihood",
    "shrinkage",
    "studies",
]
