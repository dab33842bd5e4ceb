"""Make the pictures that README and the first page show: uv run python docs/make_pictures.py."""

from pathlib import Path

import bayeslmm as blm

TARGET = Path(__file__).parent / "_static"


def main() -> None:
    schools = blm.datasets.load("nlschools")
    fit = blm.lmer("lang ~ IQ + GS + SES + COMB + (1 | class)", schools)
    figure = blm.teach.pooling(fit, "IQ", groups=8)
    figure.savefig(TARGET / "pooling.png", dpi=110)


if __name__ == "__main__":
    main()
