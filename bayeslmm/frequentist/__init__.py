"""REML, ML and Laplace fits, and inference from them."""
