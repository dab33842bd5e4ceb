"""The table of structures every fast path is tested on, with a dense twin of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.likelihood.covariance import Covariance, Layout
from bayeslmm.likelihood.crossproducts import cross_products
from bayeslmm.likelihood.dense import marginal_covariance
from bayeslmm.likelihood.lmm import LmmKernel


@dataclass(frozen=True)
class Case:
    """A kernel beside the arrays it was made from."""

    y: np.ndarray
    X: np.ndarray
    terms: list
    weights: np.ndarray | None
    offset: np.ndarray | None
    kernel: LmmKernel
    theta: np.ndarray

    @property
    def response(self):
        return self.y if self.offset is None else self.y - self.offset

    def covariance(self, theta=None):
        templates = self.kernel.layout.templates(self.theta if theta is None else theta)
        return marginal_covariance(len(self.y), [(Z, codes) for Z, codes, _ in self.terms], templates, self.weights)

    def dense_Z(self):
        """Z Lambda's columns, factor by factor, level by level."""
        blocks = []
        for Z, codes, levels in self.terms:
            block = np.zeros((len(self.y), levels, Z.shape[1]))
            block[np.arange(len(self.y)), codes] = Z
            blocks.append(block.reshape(len(self.y), -1))
        return blocks


def us(k=1):
    return Covariance("us", k)


# name: (covariances of each factor's terms, options); codes are made by `codes_of`
TABLE = {
    "single": ([("g", [us()])], {}),
    "slope": ([("g", [us(2)])], {}),
    "three effects": ([("g", [us(3)])], {}),
    "independent": ([("g", [Covariance("diag", 2)])], {}),
    "one variance": ([("g", [Covariance("diag", 3, hom=True)])], {}),
    "two terms on one factor": ([("g", [us(2), us()])], {}),
    "compound symmetry": ([("g", [Covariance("cs", 3)]), ("h", [Covariance("cs", 2, hom=True)])], {}),
    "autoregressive": ([("g", [Covariance("ar1", 4, hom=True)]), ("h", [Covariance("ar1", 2)])], {}),
    "nested": ([("child", [us(2)]), ("parent", [us()])], {}),
    "nested, parent first": ([("parent", [us()]), ("child", [us(2)])], {}),
    "three levels of nesting": ([("grandchild", [us()]), ("child", [us(2)]), ("parent", [us()])], {}),
    "crossed": ([("g", [us()]), ("h", [us()])], {}),
    "crossed slopes": ([("h", [us(2)]), ("g", [us(3)])], {}),
    "three crossed": ([("g", [us(2)]), ("h", [us(3)]), ("few", [us()])], {}),
    "partly crossed": ([("pupil", [us()]), ("teacher", [us(2)]), ("parent", [us()])], {}),
    "constant within": ([("g", [us()]), ("same", [us()])], {}),
    "weights": ([("g", [us(2)]), ("h", [us()])], {"weights": True}),
    "offset": ([("g", [us(2)])], {"offset": True}),
    "no fixed effects": ([("g", [us(2)]), ("h", [us()])], {"p": 0}),
    "many fixed effects": ([("g", [us(2)]), ("h", [us()])], {"p": 7}),
    "one group": ([("one", [us()])], {}),
}


def codes_of(n, rng):
    """Return codes and number of levels of each factor of the table."""

    def random(levels):
        return np.concatenate([np.arange(levels), rng.integers(0, levels, n - levels)])

    pupil = np.arange(n) % (n // 2)
    grandchild = random(24)
    codes = {
        "g": random(8),
        "h": random(15),
        "few": random(3),
        "grandchild": grandchild,
        "child": grandchild // 2,
        "parent": grandchild // 8,
        "pupil": pupil,
        "teacher": (pupil // 3 + (np.arange(n) % 17 == 0)) % (n // 6),
        "one": np.zeros(n, dtype=int),
    }
    codes["same"] = codes["g"]
    return {name: (code.astype(np.int32), int(code.max()) + 1) for name, code in codes.items()}


def make(name, n=90, seed=1):
    """Return the case of the table, at a theta that is no optimum."""
    rng = np.random.default_rng([seed, list(TABLE).index(name)])
    specification, options = TABLE[name]
    p = options.get("p", 2)
    codes = codes_of(n, rng)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, max(p - 1, 0)))])[:, :p]
    terms, covariances, owners = [], [], []
    for f, (factor, structures) in enumerate(specification):
        width = sum(covariance.k for covariance in structures)
        Z = np.column_stack([np.ones(n), rng.normal(size=(n, width - 1))])
        terms.append((Z, *codes[factor]))
        covariances += structures
        owners += [f] * len(structures)
    layout = Layout(tuple(covariances), tuple(owners), tuple(levels for _, _, levels in terms))
    y = 5.0 + X.sum(axis=1) + 2.0 * rng.normal(size=n)
    weights = rng.uniform(0.5, 2.0, n) if options.get("weights") else None
    offset = rng.normal(size=n) if options.get("offset") else None
    kernel = LmmKernel(cross_products(y, X, terms, weights, offset), layout)
    theta = layout.start() * rng.uniform(0.3, 1.5, layout.n_theta) + 0.1 * rng.normal(size=layout.n_theta)
    theta = np.clip(theta, layout.lower + 0.05, np.minimum(layout.upper - 0.1, 5.0))
    return Case(y, X, terms, weights, offset, kernel, theta)
