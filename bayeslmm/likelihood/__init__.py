"""The likelihood kernel: arrays in, numbers out."""
