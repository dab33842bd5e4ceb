"""Copy the reference numbers that the package's own tests need from the validation data.

Run as ``python tests/reference/make_inference.py ../shared``; writes `inference.json` beside itself.
"""

import json
import sys
from pathlib import Path

FITS = (
    "dyestuff2_ri_ml",
    "dyestuff2_ri_reml",
    "machines_nested_reml",
    "machines_rm_reml",
    "nlschools_ri_reml",
    "nlschools_rislope_uncorr_reml",
    "orthodont_rislope_reml",
    "pastes_nested_reml",
    "penicillin_crossed_reml",
    "sleepstudy_rislope_ml",
    "sleepstudy_rislope_reml",
)
FIELDS = ("dataset", "formula", "method", "satterthwaite", "vcov_varpar", "kenward_roger", "confint_profile_exact")
TESTS = (
    "lr_ols_nlschools_ri_ml",
    "lr_ols_sleepstudy_rislope_reml",
    "lrt_nlschools_IQ_ml",
    "lrt_nlschools_ri_vs_rislope_reml",
    "lrt_sleepstudy_uncorr_vs_rislope_ml",
    "robust_nlschools_ri_reml",
    "robust_sleepstudy_rislope_reml",
)


def main(shared: str) -> None:
    folder = Path(shared) / "reference" / "fits"
    fits = {}
    for name in FITS:
        full = json.loads((folder / f"{name}.json").read_text())
        fits[name] = {key: value for key, value in full.items() if key in FIELDS or key.startswith("anova_type")}
    tests = {name: json.loads((folder / f"{name}.json").read_text()) for name in TESTS}
    target = Path(__file__).with_name("inference.json")
    target.write_text(json.dumps({"fits": fits, "tests": tests}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
