"""Small real data sets, with their sources and licences; a poll simulated with a known truth."""

from bayeslmm.datasets.loading import describe, load, names
from bayeslmm.datasets.simulate import simulate_poll

__all__ = ["describe", "load", "names", "simulate_poll"]
