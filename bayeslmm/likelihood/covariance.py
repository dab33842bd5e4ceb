"""Covariance of the group effects: theta to Lambda, and to standard deviations and correlations.

Each random term has a template `Lambda` (k, k), lower triangular, with `Lambda @ Lambda.T` the covariance of its
effects in units of the residual variance. `Covariance` is one such family of templates; `Layout` puts the terms of a
model together: which factor a term belongs to, where its columns stand in that factor's block, and where its
parameters stand in `theta`.

`theta` of a model is in lme4's order: terms by decreasing number of levels (ties as written), within an unstructured
term the lower triangle of `Lambda` column by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayeslmm.likelihood._compiled import internal, step
from bayeslmm.likelihood.small import fill

KINDS = ("us", "diag", "cs", "ar1")
_US, _DIAG, _CS, _AR1 = range(4)


class TermArrays(NamedTuple):
    """The layout as arrays, for compiled code; every field is int64.

    Parameters
    ----------
    kind, k, hom : (T,)
        Position in `KINDS`, number of effects, 1 when all variances are equal; one entry per term.
    theta_start : (T,)
        First parameter of the term in `theta`.
    factor, column : (T,)
        Factor of the term and its first column in that factor's block.
    factor_k, template_start : (F,)
        Columns of each factor's block, and where its template starts in the flat array of all templates.
    """

    kind: NDArray[np.int64]
    k: NDArray[np.int64]
    hom: NDArray[np.int64]
    theta_start: NDArray[np.int64]
    factor: NDArray[np.int64]
    column: NDArray[np.int64]
    factor_k: NDArray[np.int64]
    template_start: NDArray[np.int64]


class Space(NamedTuple):
    """The scales of the search coordinates as arrays, for compiled code; see `bayeslmm.likelihood.search`.

    Parameters
    ----------
    n_levels : (T,) int64
        Levels of each term's factor.
    root_start : (T,) int64
        Where each term's `T` starts in `roots`.
    roots, inverse_roots : float64
        `T` and its inverse, (k, k) for each term.
    """

    n_levels: NDArray[np.int64]
    root_start: NDArray[np.int64]
    roots: NDArray[np.float64]
    inverse_roots: NDArray[np.float64]


@internal
def correlation_root(kind, rho, root, slope):  # type: ignore[no-untyped-def]
    """Fill the Cholesky root of a cs or ar1 correlation matrix (k, k) and its derivative in `rho`."""
    fill(root, 0.0)
    fill(slope, 0.0)
    used, used_slope = 0.0, 0.0
    for j in range(root.shape[0]):
        head, head_slope, below, below_slope = root_column(kind, rho, j, used, used_slope)
        used += below * below
        used_slope += 2.0 * below * below_slope
        root[j, j], slope[j, j] = head, head_slope
        for i in range(j + 1, root.shape[0]):
            root[i, j], slope[i, j] = below, below_slope
            if kind == _AR1:
                below_slope = below_slope * rho + below
                below *= rho


@step
def root_column(kind, rho, j, used, used_slope):  # type: ignore[no-untyped-def]
    """Return diagonal and first entry below it of column j of the root, each with its derivative in `rho`.

    `used` is the sum of squares of a row left of the diagonal, the same for all rows of a compound symmetric root; the
    rest of a column repeats its first entry (cs), or goes on with powers of rho (ar1).
    """
    if kind == _AR1:
        head = 1.0 if j == 0 else np.sqrt(1.0 - rho * rho)
        head_slope = 0.0 if j == 0 else -rho / head
        below, below_slope = head * rho, head_slope * rho + head
    else:
        head = np.sqrt(1.0 - used)
        head_slope = -0.5 * used_slope / head
        below = (rho - used) / head
        below_slope = (1.0 - used_slope - below * head_slope) / head
    return head, head_slope, below, below_slope


@internal
def templates_or_pull(terms, n_terms, theta, flat, out, pull):  # type: ignore[no-untyped-def]
    """Fill `flat` with the templates or, to pull, `out` with the gradient from that in `flat`; both are zero before."""
    for t in range(n_terms):
        kind, k, hom, first = terms.kind[t], terms.k[t], terms.hom[t], terms.theta_start[t]
        width = terms.factor_k[terms.factor[t]]
        base = terms.template_start[terms.factor[t]] + terms.column[t] * (width + 1)
        correlation = first + (1 if hom else k)
        at = first
        used, used_slope, below, below_slope = 0.0, 0.0, 0.0, 0.0
        for j in range(k):
            head, head_slope = 1.0, 0.0
            if kind > _DIAG:
                head, head_slope, below, below_slope = root_column(kind, theta[correlation], j, used, used_slope)
                used += below * below
                used_slope += 2.0 * below * below_slope
            for i in range(j, k):
                place = base + i * width + j
                if kind == _US:
                    if pull:
                        out[at] = flat[place]
                    else:
                        flat[place] = theta[at]
                    at += 1
                    continue
                deviation = first + (0 if hom else i)
                entry = head if i == j else below
                if pull:
                    out[deviation] += flat[place] * entry
                    if kind > _DIAG:
                        out[correlation] += flat[place] * theta[deviation] * (head_slope if i == j else below_slope)
                elif kind > _DIAG or i == j:
                    flat[place] = theta[deviation] * entry
                if i > j and kind == _AR1:
                    below_slope = below_slope * theta[correlation] + below
                    below *= theta[correlation]


@dataclass(frozen=True)
class Covariance:
    """A family of covariance matrices for the k effects of one random term.

    Parameters
    ----------
    kind : {"us", "diag", "cs", "ar1"}
        Unstructured, independent, compound symmetric (one correlation), first-order autoregressive.
    k : int
        Number of effects per level.
    hom : bool, default False
        Whether all effects share one standard deviation; without meaning for "us".

    Notes
    -----
    Parameters are relative standard deviations (units of the residual SD): "us" has the lower triangle of `Lambda`
    column by column, "diag" the k (or one) standard deviations, "cs" and "ar1" those followed by the correlation.
    A single effect has no correlation, so "cs" and "ar1" with k = 1 are "diag".

    Examples
    --------
    >>> Covariance("ar1", 3, hom=True).Lambda([2.0, 0.5]).round(3)
    array([[2.   , 0.   , 0.   ],
           [1.   , 1.732, 0.   ],
           [0.5  , 0.866, 1.732]])
    """

    kind: str
    k: int
    hom: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.kind == "us" and self.hom and self.k > 1:
            raise ValueError("an unstructured covariance has no homogeneous form: use diag or cs")
        if self.k == 1 and self.kind != "us":
            object.__setattr__(self, "kind", "diag")

    @property
    def code(self) -> int:
        """Position in `KINDS`."""
        return KINDS.index(self.kind)

    @property
    def n_theta(self) -> int:
        """Number of parameters."""
        if self.kind == "us":
            return self.k * (self.k + 1) // 2
        return (1 if self.hom else self.k) + (self.kind != "diag")

    @property
    def is_correlated(self) -> bool:
        """Whether effects of one level may be correlated."""
        return self.k > 1 and self.kind != "diag"

    @property
    def lower(self) -> NDArray[np.float64]:
        """Lower bounds (m,): 0 for standard deviations and diagonal entries."""
        if self.kind == "us":
            square = np.full((self.k, self.k), -np.inf)
            np.fill_diagonal(square, 0.0)
            return square[by_column(self.k)]
        bounds = np.zeros(self.n_theta)
        if self.kind == "cs":
            bounds[-1] = -1.0 / (self.k - 1)
        elif self.kind == "ar1":
            bounds[-1] = -1.0
        return bounds

    @property
    def upper(self) -> NDArray[np.float64]:
        """Upper bounds (m,): 1 for a correlation, none otherwise."""
        bounds = np.full(self.n_theta, np.inf)
        if self.kind in ("cs", "ar1"):
            bounds[-1] = 1.0
        return bounds

    def start(self) -> NDArray[np.float64]:
        """Return the parameters (m,) of the identity matrix."""
        return self.theta_from(np.ones(self.k), np.eye(self.k))

    def Lambda(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return the template (k, k), lower triangular, for parameters `theta` (m,)."""
        theta = np.asarray(theta, dtype=np.float64)
        if self.kind == "us":
            out = np.zeros((self.k, self.k))
            out[by_column(self.k)] = theta
            return out
        if self.kind == "diag":
            return np.diag(np.broadcast_to(theta, self.k))
        return np.broadcast_to(theta[:-1], self.k)[:, None] * semidefinite_root(self._corr(theta[-1])[0])

    def dLambda(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return the derivative (m, k, k) of the template in each parameter."""
        theta = np.asarray(theta, dtype=np.float64)
        units = np.eye(self.k)[:, :, None] * np.eye(self.k)[:, None, :]
        if self.kind == "us":
            out = np.zeros((self.n_theta, self.k, self.k))
            out[np.arange(self.n_theta), *by_column(self.k)] = 1.0
            return out
        if self.kind == "diag":
            return units.sum(axis=0, keepdims=True) if self.hom else units
        corr, change = self._corr(theta[-1])
        root = np.linalg.cholesky(corr)
        inverse = np.linalg.inv(root)
        inner = np.tril(inverse @ change @ inverse.T)
        inner[np.diag_indices(self.k)] *= 0.5
        deviations = np.broadcast_to(theta[:-1], self.k)[:, None]
        scaled = root[None] if self.hom else units @ root
        return np.concatenate([scaled, (deviations * (root @ inner))[None]])

    def _corr(self, rho: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the cs or ar1 correlation matrix, and its derivative in rho."""
        lag = np.abs(np.subtract.outer(np.arange(self.k), np.arange(self.k))).astype(np.float64)
        if self.kind == "cs":
            lag = np.minimum(lag, 1.0)
        return rho**lag, lag * rho ** np.maximum(lag - 1.0, 0.0)

    def sd_corr(self, theta: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return standard deviations (k,), in units of sigma, and correlations (k, k).

        A correlation with an effect of zero variance is not a number.
        """
        return sd_and_corr(self.Lambda(theta))

    def theta_from(self, sd: ArrayLike, corr: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return parameters (m,) from standard deviations (k,) in units of sigma and correlations (k, k).

        Structures with fewer parameters take the mean of the variances or correlations they hold equal.
        """
        sd = np.asarray(sd, dtype=np.float64)
        corr = np.eye(self.k) if corr is None else np.asarray(corr, dtype=np.float64)
        if self.kind == "us":
            return semidefinite_root(corr * np.outer(sd, sd))[by_column(self.k)]
        deviations = np.array([np.sqrt(np.mean(sd**2))]) if self.hom else sd
        if self.kind == "diag":
            return deviations.copy()
        pairs = np.diag(corr, -1) if self.kind == "ar1" else corr[np.tril_indices(self.k, -1)]
        return np.append(deviations, pairs.mean())

    def labels(self, effects: Sequence[str]) -> tuple[str, ...]:
        """Return a name for each parameter (m,), built from the names of the effects.

        Examples
        --------
        >>> Covariance("us", 2).labels(["Intercept", "IQ"])
        ('Intercept', 'IQ.Intercept', 'IQ')
        """
        if self.kind == "us":
            return tuple(
                effects[i] if i == j else f"{effects[i]}.{effects[j]}" for j in range(self.k) for i in range(j, self.k)
            )
        deviations = ("sd",) if self.hom else tuple(effects)
        return deviations if self.kind == "diag" else (*deviations, "rho")


@lru_cache(maxsize=64)
def by_column(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the lower triangle of a (k, k) matrix, column by column."""
    columns, rows = np.triu_indices(k)
    return rows, columns


def sd_and_corr(root: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standard deviations (k,) and correlations (k, k) of `root @ root.T`."""
    sd = np.sqrt((root * root).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = root / sd[:, None]
    corr = unit @ unit.T
    np.fill_diagonal(corr, 1.0)
    return sd, corr


def semidefinite_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower Cholesky root of a positive semi-definite matrix, zero columns where it is singular."""
    k = matrix.shape[0]
    root = np.zeros((k, k))
    for j in range(k):
        rest = matrix[j:, j] - root[j:, :j] @ root[j, :j]
        if rest[0] > 1e-14 * abs(matrix[j, j]):
            root[j:, j] = rest / np.sqrt(rest[0])
    return root


@dataclass(frozen=True)
class Layout:
    """The one place that knows user order and engine order of a model's random terms.

    Parameters
    ----------
    covariances : tuple of Covariance
        One per random term, in the order written.
    term_factor : tuple of int
        For each term the index of its factor; factors are numbered by first appearance. Terms on one factor share a
        block whose template is block diagonal.
    n_levels : tuple of int
        Number of levels of each factor.

    Examples
    --------
    >>> layout = Layout((Covariance("us", 1), Covariance("us", 2)), (0, 1), (5, 40))
    >>> layout.theta_slices
    (slice(3, 4, None), slice(0, 3, None))
    """

    covariances: tuple[Covariance, ...]
    term_factor: tuple[int, ...]
    n_levels: tuple[int, ...]

    @classmethod
    def from_design(cls, design: Any) -> Layout:
        """Build the layout of a design: anything with `terms`, each with `term`, `Z`, `factor` and `levels`."""
        names: dict[str, int] = {}
        levels: list[int] = []
        covariances, owners = [], []
        for group in design.terms:
            if group.factor not in names:
                names[group.factor] = len(names)
                levels.append(len(group.levels))
            owners.append(names[group.factor])
            covariances.append(Covariance(group.term.covariance, group.Z.shape[1], group.term.hom))
        return cls(tuple(covariances), tuple(owners), tuple(levels))

    @cached_property
    def engine_order(self) -> tuple[int, ...]:
        """Terms in the order of `theta`: by decreasing number of levels, ties as written."""
        return tuple(sorted(range(len(self.covariances)), key=lambda t: -self.n_levels[self.term_factor[t]]))

    @cached_property
    def theta_slices(self) -> tuple[slice, ...]:
        """For each term, in the order written, its place in `theta`."""
        slices: list[slice] = [slice(0, 0)] * len(self.covariances)
        at = 0
        for t in self.engine_order:
            slices[t] = slice(at, at + self.covariances[t].n_theta)
            at += self.covariances[t].n_theta
        return tuple(slices)

    @property
    def n_theta(self) -> int:
        """Number of covariance parameters."""
        return sum(covariance.n_theta for covariance in self.covariances)

    @cached_property
    def n_effects(self) -> tuple[int, ...]:
        """Number of effects per level of each factor, all its terms together."""
        totals = [0] * len(self.n_levels)
        for covariance, factor in zip(self.covariances, self.term_factor, strict=True):
            totals[factor] += covariance.k
        return tuple(totals)

    @cached_property
    def term_columns(self) -> tuple[slice, ...]:
        """For each term its columns in the block of its factor."""
        at = [0] * len(self.n_levels)
        columns = []
        for covariance, factor in zip(self.covariances, self.term_factor, strict=True):
            columns.append(slice(at[factor], at[factor] + covariance.k))
            at[factor] += covariance.k
        return tuple(columns)

    @cached_property
    def lower(self) -> NDArray[np.float64]:
        """Lower bounds of `theta` (m,)."""
        return self.gather([covariance.lower for covariance in self.covariances])

    @cached_property
    def upper(self) -> NDArray[np.float64]:
        """Upper bounds of `theta` (m,)."""
        return self.gather([covariance.upper for covariance in self.covariances])

    def start(self) -> NDArray[np.float64]:
        """Return the `theta` (m,) of identity templates."""
        return self.gather([covariance.start() for covariance in self.covariances])

    def gather(self, parts: Sequence[ArrayLike]) -> NDArray[np.float64]:
        """Return `theta` (m,) from the parameters of each term in the order written."""
        theta = np.empty(self.n_theta)
        for part, place in zip(parts, self.theta_slices, strict=True):
            theta[place] = part
        return theta

    def split(self, theta: ArrayLike) -> tuple[NDArray[np.float64], ...]:
        """Return the parameters of each term, in the order written."""
        theta = np.asarray(theta, dtype=np.float64)
        return tuple(theta[place] for place in self.theta_slices)

    @cached_property
    def arrays(self) -> TermArrays:
        """The layout as arrays, for compiled code."""

        def ints(values: Sequence[int]) -> NDArray[np.int64]:
            return np.asarray(values, dtype=np.int64)

        widths = ints(self.n_effects)
        return TermArrays(
            kind=ints([covariance.code for covariance in self.covariances]),
            k=ints([covariance.k for covariance in self.covariances]),
            hom=ints([int(covariance.hom) for covariance in self.covariances]),
            theta_start=ints([place.start for place in self.theta_slices]),
            factor=ints(self.term_factor),
            column=ints([columns.start for columns in self.term_columns]),
            factor_k=widths,
            template_start=np.cumsum(widths**2) - widths**2,
        )

    def templates(self, theta: ArrayLike) -> tuple[NDArray[np.float64], ...]:
        """Return the template (K, K) of each factor: block diagonal in its terms."""
        out = tuple(np.zeros((k, k)) for k in self.n_effects)
        for t, part in enumerate(self.split(theta)):
            place = self.term_columns[t]
            out[self.term_factor[t]][place, place] = self.covariances[t].Lambda(part)
        return out

    def flat_templates(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return all factors' templates one after the other, each (K, K) in C order."""
        return np.concatenate([np.zeros(0), *(template.ravel() for template in self.templates(theta))])

    def unflatten(self, flat: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return the flat templates (or their gradient) as one (K, K) array per factor."""
        starts = self.arrays.template_start
        return tuple(flat[start : start + k * k].reshape(k, k) for start, k in zip(starts, self.n_effects, strict=True))

    def pull(self, theta: ArrayLike, flat_gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the gradient in `theta` (m,) from the gradient in the flat templates."""
        blocks = self.unflatten(flat_gradient)
        parts = []
        for t, part in enumerate(self.split(theta)):
            place = self.term_columns[t]
            block = blocks[self.term_factor[t]][place, place]
            parts.append((self.covariances[t].dLambda(part) * block).sum(axis=(1, 2)))
        return self.gather(parts)
