"""Fits and reference numbers that the tests of inference share."""

import json
import warnings
from functools import cache
from pathlib import Path

import pandas as pd

import bayeslmm as blm

FOLDER = Path(__file__).resolve().parents[1] / "reference"
REFERENCE = json.loads((FOLDER / "inference.json").read_text(encoding="utf-8"))
NOT_PACKAGED = ("InstEval", "Chem97", "ScotsSec", "sleepstudy_wo")  # InstEval is packaged, and slow here
FROM_R = json.loads((FOLDER / "inference_r.json").read_text(encoding="utf-8"))


@cache
def data(name):
    frame = blm.datasets.load(name)
    if name == "nlschools":
        frame["size"] = pd.cut(frame["GS"].astype(float), [0, 20, 27, 50], labels=["small", "middle", "large"])
    return frame


@cache
def lmer(formula, dataset, reml=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=blm.errors.SingularFitWarning)
        return blm.lmer(formula, data(dataset), reml=reml)


def reference_fit(name):
    entry = REFERENCE["fits"][name]
    return lmer(entry["formula"], entry["dataset"], entry["method"] == "REML"), entry


def spelled(formula):
    """R's update() leaves parentheses around the bars that (x || g) became."""
    return formula.replace("((", "(").replace("))", ")")
