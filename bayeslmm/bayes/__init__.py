"""Posteriors: priors, the PyMC model, the exact marginal engine, checks."""
