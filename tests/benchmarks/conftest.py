"""The scripts of this folder are run by hand: no tests, and no doctests, are collected from them."""

collect_ignore_glob = ["bench_*.py"]
