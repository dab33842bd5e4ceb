"""Multilevel regression and poststratification: population frames, estimates, pictures."""
