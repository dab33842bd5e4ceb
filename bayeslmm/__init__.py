"""Mixed models from one formula: REML and NUTS side by side, and poststratification."""
