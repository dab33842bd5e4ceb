"""Small real data sets, with their sources and licences."""

from bayeslmm.datasets.loading import describe, load, names

__all__ = ["describe", "load", "names"]
