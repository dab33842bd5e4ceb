"""Profiled ML deviance and REML criterion of a linear mixed model, their gradient, and what follows from them.

With `Q = [X y]' V0^-1 [X y]` from the factorisation, its Cholesky factor holds everything: the leading part is `RX'`,
the last pivot squared is the penalised residual sum of squares r^2, and

    ML deviance     d(theta)  = log|A| + n (1 + log(2 pi r^2 / n))
    REML criterion  dR(theta) = log|A| + log|RX|^2 + (n - p)(1 + log(2 pi r^2 / (n - p)))
"""

from __future__ import annotations

import copyreg
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from bayeslmm.errors import FitError
from bayeslmm.likelihood._compiled import c_function, step
from bayeslmm.likelihood.coordinates import fill_from_means, new_space
from bayeslmm.likelihood.coordinates_entry import coordinates
from bayeslmm.likelihood.covariance import Layout, Space, TermArrays
from bayeslmm.likelihood.crossproducts import COMPILED as OF_ROWS
from bayeslmm.likelihood.crossproducts import CrossProducts, cross_products
from bayeslmm.likelihood.engine import engine
from bayeslmm.likelihood.handle import ARGUMENTS, new_handle
from bayeslmm.likelihood.model_entry import model as model_entry
from bayeslmm.likelihood.numeric import Workspace, new_workspace
from bayeslmm.likelihood.operations import (
    EVALUATE,
    FACTORS,
    GATHER,
    GRAM_MATRIX,
    INVERSE,
    INVERT,
    MIX,
    MIXING,
    OUT,
    POINT,
    PROFILE,
    RHS,
    ROOT,
    SETTINGS,
    SLOPE,
    SOLVE_OTHER_HALF,
    TEMPLATES,
    THETA,
    THETA_SLOPE,
    TO_THETA,
    B,
)
from bayeslmm.likelihood.small import small_cholesky, small_inverse_root
from bayeslmm.likelihood.symbolic import COMPILED as OF_STRUCTURE
from bayeslmm.likelihood.symbolic import Analysis, Structure, analyse
from bayeslmm.likelihood.together import load_together

__all__ = [
    "LmmKernel",
    "Solution",
    "Storage",
    "criterion",
    "criterion_and_gradient",
    "profile",
    "small_cholesky",
    "small_inverse_root",
    "solve",
]


class Call:
    """What one thread needs to call the compiled model: a handle, and the arrays it points to.

    Parameters
    ----------
    structure : Structure
        The symbolic factorisation.
    workspace : Workspace
        The numbers of the factorisation.
    terms : TermArrays
        The layout.
    space : Space
        Scales of the search coordinates.
    """

    def __init__(self, structure: Structure, workspace: Workspace, terms: TermArrays, space: Space) -> None:
        size = workspace.half.shape[1]
        templates = int((terms.factor_k**2).sum())
        parameters = int(terms.theta_start.size and (terms.theta_start + _counts(terms)).max())
        self.handle = new_handle(structure, workspace, terms, space)
        self.place = self.handle.ctypes.data
        self.workspace, self.space = workspace, space
        self.root = np.zeros((size, size))
        self.settings = np.zeros(4)
        self.templates = np.zeros(templates)
        self.answer = np.nan
        self.work = 0.0  # multiply-adds of an evaluation, once somebody has counted them
        self.buffers: dict[str, NDArray[np.float64]] = {}
        self._kept: dict[int, NDArray[np.float64]] = {}
        scratch = {
            ROOT: self.root, SETTINGS: self.settings, TEMPLATES: self.templates, OUT: np.zeros(templates),
            INVERSE: np.zeros((size, size)), MIXING: np.zeros(size * size), FACTORS: np.ones(2),
            THETA: np.zeros(parameters), THETA_SLOPE: np.zeros(parameters),
        }  # fmt: skip
        for argument, array in scratch.items():
            self.set(argument, array)

    def set(self, argument: int, array: NDArray[np.float64]) -> None:
        """Make `array`, C-ordered, an argument of the calls to come, and keep it alive."""
        self._kept[argument] = array
        handle, at = self.handle, ARGUMENTS + 3 * argument  # number by number: numpy takes longer over a slice
        handle[at] = array.__array_interface__["data"][0]
        for size in array.shape:
            at += 1
            handle[at] = size

    def aim(self, rhs: NDArray[np.float64], gram: NDArray[np.float64]) -> None:
        """Make these the data of the calls to come, which compiled code leaves in their places."""
        if self._kept.get(RHS) is not rhs:
            self.set(RHS, rhs)
            self.set(GRAM_MATRIX, gram)

    def __call__(self, operation: int) -> float:
        """Let the compiled model do one operation."""
        self.handle[0] = operation
        self.answer = float(model_entry.native(self.place))
        return self.answer

    def theta(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the covariance parameters (m,) at search coordinates."""
        self.set(POINT, x)
        self.handle[0] = TO_THETA
        coordinates.native(self.place)
        return self._kept[THETA].copy()

    def invert(self) -> None:
        """Overwrite the factorisation by the selected inverse."""
        self._engine(INVERT)

    def pull_back(self, mixing: NDArray[np.float64], weight: float, scale: float) -> NDArray[np.float64]:
        """Return the gradient of `weight log|A| + scale tr(F' Q F)` in the flat templates, F = `mixing`."""
        q, rank = self.workspace.half.shape[0], mixing.shape[1]
        kept = {name: self._kept[name] for name in (MIXING, FACTORS, OUT)}
        out = np.empty_like(self.templates)
        self.set(MIXING, np.ascontiguousarray(mixing))
        self.set(FACTORS, np.array([weight, scale]))
        self.set(OUT, out)
        self._engine(MIX)
        self.solve_other_half(self.workspace.full[: q * rank].reshape(q, rank))
        self.invert()
        self._engine(GATHER)
        for name, array in kept.items():
            self.set(name, array)
        return out

    def solve_other_half(self, b: NDArray[np.float64]) -> None:
        """Overwrite `b` (q, r), C-ordered, by the solution of L' x = b."""
        self.set(B, b)
        self._engine(SOLVE_OTHER_HALF)

    def _engine(self, operation: int) -> None:
        self.handle[0] = operation
        engine.native(self.place)


def _counts(terms: TermArrays) -> NDArray[np.int64]:
    """Return the number of parameters of each term."""
    free = np.where(terms.hom > 0, 1, terms.k)
    return np.where(terms.kind == 0, terms.k * (terms.k + 1) // 2, free + (terms.kind > 1))


@dataclass(frozen=True)
class Storage:
    """How the columns of one factor are stored in the factorisation.

    Parameters
    ----------
    factor : int
        The factor.
    n_levels, n_effects : int
        Its levels and effects per level.
    head, tail : int
        Columns in the sparse head and in the dense tail.
    numbers : int
        Numbers held in the head for this factor's columns.
    """

    factor: int
    n_levels: int
    n_effects: int
    head: int
    tail: int
    numbers: int

    @property
    def kind(self) -> str:
        """In words: block diagonal, sparse, dense, or sparse with a dense rest."""
        if self.tail:
            return "dense" if self.head == 0 else "sparse, the rest dense"
        if self.numbers == self.n_levels * self.n_effects**2:
            return "diagonal" if self.n_effects == 1 else "block diagonal"
        return "sparse"


def _with_own_engine(*arrays: Any) -> Structure:
    return Structure(*arrays, np.array([engine.address], dtype=np.int64))  # type: ignore[call-arg]


# The address of the compiled engine is another one in the process, or on the machine, where a pickled fit arrives.
copyreg.pickle(Structure, lambda structure: (_with_own_engine, tuple(structure[:-1])))


@dataclass(frozen=True)
class LmmKernel:
    """A design ready for evaluation: cross-products, layout and symbolic factorisation.

    Parameters
    ----------
    products : CrossProducts
        The data.
    layout : Layout
        The random terms.

    Raises
    ------
    FitError
        If the dense tail would not fit into memory; nothing has been allocated then.

    Examples
    --------
    >>> import numpy as np
    >>> from bayeslmm.likelihood.covariance import Covariance, Layout
    >>> codes = np.repeat([0, 1, 2], 2)
    >>> products = cross_products([1.0, 2, 4, 5, 9, 8], np.ones((6, 1)), [(np.ones((6, 1)), codes, 3)])
    >>> kernel = LmmKernel(products, Layout((Covariance("us", 1),), (0,), (3,)))
    >>> round(criterion([1.0], kernel), 6)
    24.567583
    """

    products: CrossProducts
    layout: Layout
    analysis: Analysis = field(init=False, repr=False)
    rhs: NDArray[np.float64] = field(init=False, repr=False)
    _local: threading.local = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.layout.n_effects != self.products.n_effects or self.layout.n_levels != self.products.n_levels:
            raise ValueError(
                f"the layout has (levels, effects) {self.layout.n_levels, self.layout.n_effects}, "
                f"the data {self.products.n_levels, self.products.n_effects}"
            )
        analysis = analyse(self.products)
        check_memory(analysis, self.products.n_fixed + 1)
        object.__setattr__(self, "analysis", analysis)
        object.__setattr__(self, "rhs", self.permuted_rhs(self.products))
        object.__setattr__(self, "_local", threading.local())

    def __getstate__(self) -> dict[str, Any]:
        # The workspaces of threads hold addresses, which mean nothing in another process.
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in {**state, "_local": threading.local()}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_design(cls, design: Any) -> LmmKernel:
        """Build the kernel of a design."""
        load_together((engine,), (model_entry, coordinates, *OF_ROWS, *OF_STRUCTURE))
        return cls(cross_products(design), Layout.from_design(design))

    def with_response(self, y: ArrayLike) -> LmmKernel:
        """Return the kernel of the same design with another response (n,); the symbolic step is shared."""
        return self.with_products(self.products.with_response(y))

    def with_products(self, products: CrossProducts, analysis: Analysis | None = None) -> LmmKernel:
        """Return a kernel whose cross-products differ in the response, or, with an analysis of its own, in Z'Z too."""
        other = object.__new__(LmmKernel)
        object.__setattr__(other, "layout", self.layout)
        object.__setattr__(other, "analysis", self.analysis if analysis is None else analysis)
        object.__setattr__(other, "_local", self._local if analysis is None else threading.local())
        object.__setattr__(other, "products", products)
        object.__setattr__(other, "rhs", self.permuted_rhs(products))
        return other

    def permuted_rhs(self, products: CrossProducts) -> NDArray[np.float64]:
        """Return Z'[X y] (q, p + 1) of cross-products with the same pattern, in the engine's order."""
        out = np.empty((self.analysis.n_columns, products.n_fixed + 1))
        for rows, block in zip(self.analysis.rows, products.rhs, strict=True):
            out[rows] = block
        return out

    @property
    def n_rows(self) -> int:
        """Number of observations."""
        return self.products.n_rows

    @property
    def workspace(self) -> Workspace:
        """The numbers of this thread's factorisation, allocated on first use."""
        return self._call.workspace

    @property
    def _call(self) -> Call:
        call: Call | None = getattr(self._local, "call", None)
        if call is None:
            call = self._local.call = self._new_call()
        return call

    def _new_call(self) -> Call:
        space, terms = new_space(self.layout), self.layout.arrays
        fill_from_means([block.mean(axis=0) for block in self.products.diagonal], terms, space)
        return Call(self.analysis.structure, self.new_workspace(), terms, space)

    def prepared(self, reml: bool) -> Call:
        """Return this thread's call, aimed at this kernel's response and at REML or ML."""
        call = self._call
        call.aim(self.rhs, self.products.gram)
        call.settings[:3] = self.n_rows, reml, self.constant(reml)
        return call

    def new_workspace(self) -> Workspace:
        """Return a workspace of its own, for a thread that compiled code runs in."""
        return new_workspace(self.analysis, self.products.n_fixed + 1)

    def constant(self, reml: bool) -> float:
        """Return what the criterion has beside whitened coordinates: log|R0|^2 and the prior weights."""
        return (2.0 * self.products.logdet_R0 if reml else 0.0) - self.products.sum_log_weights

    def reduced(self, templates: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return Q = [X y]' V0^-1 [X y] (p + 1, p + 1) in whitened coordinates, for the template of each factor.

        This thread's workspace then holds the factorisation, and `log_det_A` its log determinant.
        """
        call = self.prepared(reml=False)
        call.templates[:] = np.concatenate([template.ravel() for template in templates])
        call(PROFILE)
        root = np.tril(call.root)
        return root @ root.T

    @property
    def log_det_A(self) -> float:
        """log|A| of this thread's last factorisation."""
        return float(self._call.settings[3])

    def pull_back(self, mixing: NDArray[np.float64], weight: float, scale: float) -> NDArray[np.float64]:
        """Return the gradient of `weight log|A| + scale tr(F' Q F)` in the flat templates, after `reduced`.

        The factorisation is overwritten by the selected inverse.
        """
        return self._call.pull_back(mixing, weight, scale)

    def effects_given(
        self, whitened: NDArray[np.float64], noise: NDArray[np.float64], templates: Sequence[NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], ...]:
        """Return draws (n, J, K) of each factor's effects, after a factorisation at the same templates.

        Parameters
        ----------
        whitened : (p, n)
            Draws of the coefficients in whitened coordinates.
        noise : (q, n)
            Independent normal numbers with standard deviation sigma.
        templates : sequence of (K, K)
            Lambda of each factor.
        """
        p, call = self.products.n_fixed, self._call
        u = call.workspace.half[:, [p]] - call.workspace.half[:, :p] @ whitened + noise
        call.solve_other_half(u)
        return tuple(
            np.einsum("ab,jbs->sja", template, block) for template, block in zip(templates, self.split(u), strict=True)
        )

    @property
    def blocks(self) -> tuple[Storage, ...]:
        """How each factor is stored, in the order of the factors."""
        s = self.analysis.structure
        n_head = len(s.row_start) - 1
        numbers = np.diff(s.value_start)
        owner = s.node_factor[:n_head]
        return tuple(
            Storage(
                factor=f,
                n_levels=levels,
                n_effects=k,
                head=k * int((owner == f).sum()),
                tail=k * int((s.node_factor[n_head:] == f).sum()),
                numbers=int(numbers[owner == f].sum()),
            )
            for f, (levels, k) in enumerate(zip(self.layout.n_levels, self.layout.n_effects, strict=True))
        )

    def split(self, columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return an array (q, ...) in engine order as one array (J, K, ...) per factor."""
        return tuple(columns[rows] for rows in self.analysis.rows)


def check_memory(analysis: Analysis, n_rhs: int) -> None:
    """Refuse a factorisation that would not fit into the memory at hand.

    Parameters
    ----------
    analysis : Analysis
        The symbolic factorisation.
    n_rhs : int
        Columns p + 1 of [X y].

    Raises
    ------
    FitError
        With the size needed and the way out.
    """
    tail, head = analysis.n_tail, analysis.n_head_values
    need = 8.0 * (tail**2 + 2.0 * head + 4.0 * analysis.n_columns * n_rhs)
    have = available_memory()
    if need > 0.9 * have:
        raise FitError(
            f"the factorisation needs {need / 2**30:,.1f} GB and {have / 2**30:,.1f} GB are free.\n"
            f"  {tail:,} of {analysis.n_columns:,} columns of Z remain in a dense block, "
            f"{tail:,} x {tail:,} numbers:\n"
            "  crossed factors with many levels, or many effects for each level, fill it.\n"
            "  Way out: fewer random slopes on the crossed factors, `||` does not help here; leave out or coarsen the\n"
            "  crossed factor with fewer levels, or use its levels as fixed effects within parts of the data."
        )


def available_memory() -> float:
    """Return the free memory in bytes, infinity where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable"):
                    return 1024.0 * float(line.split()[1])
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


_NO_GRADIENT = np.empty(0)


def criterion(theta: ArrayLike, model: LmmKernel, reml: bool = True) -> float:
    """Return the profiled REML criterion, or ML deviance, at `theta`.

    Parameters
    ----------
    theta : (m,) array_like
        Covariance parameters in the order of `model.layout`.
    model : LmmKernel
        The design.
    reml : bool, default True
        REML criterion, or ML deviance (minus twice the log-likelihood).

    Returns
    -------
    float
        Not a number where the factorisation breaks down.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> round(criterion([1.0, 0.0, 1.0], LmmKernel.from_design(design)), 4)
    1773.6803

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), *J. Stat. Softw.* 67(1), equations 34 and 41.
    """
    return _evaluate(theta, model, reml, _NO_GRADIENT)


def criterion_and_gradient(theta: ArrayLike, model: LmmKernel, reml: bool = True) -> tuple[float, NDArray[np.float64]]:
    """Return the criterion and its gradient (m,) in `theta`; parameters as in `criterion`."""
    gradient = np.empty(model.layout.n_theta)
    return _evaluate(theta, model, reml, gradient), gradient


def _evaluate(theta: ArrayLike, model: LmmKernel, reml: bool, gradient: NDArray[np.float64]) -> float:
    theta = np.ascontiguousarray(theta, dtype=np.float64)
    if theta.shape != (model.layout.n_theta,):
        raise ValueError(f"theta has shape {theta.shape}, the model has {model.layout.n_theta} covariance parameters")
    call = model.prepared(reml)
    call.set(POINT, theta)
    call.set(SLOPE, gradient)
    return call(EVALUATE)


@dataclass(frozen=True)
class Solution:
    """Everything that follows from theta.

    Parameters
    ----------
    model : LmmKernel
        The design.
    reml : bool
        Whether `sigma` and `criterion` are those of REML.
    theta : (m,)
        Covariance parameters.
    beta : (p,)
        Coefficients.
    RX : (p, p)
        Upper triangular with `RX' RX = X' V0^-1 X`; the covariance of beta is `sigma^2 (RX' RX)^-1`.
    u, b : tuple of (J, K)
        Spherical and actual group effects at their conditional modes, one array per factor.
    pwrss, wrss, ussq : float
        Penalised residual sum of squares and its parts, `pwrss = wrss + ussq`.
    logdet_A, logdet_RX2 : float
        log|A| and log|RX|^2.
    sigma : float
        Residual standard deviation.
    criterion : float
        REML criterion or ML deviance.
    """

    model: LmmKernel = field(repr=False)
    reml: bool
    theta: NDArray[np.float64]
    beta: NDArray[np.float64]
    RX: NDArray[np.float64]
    u: tuple[NDArray[np.float64], ...] = field(repr=False)
    b: tuple[NDArray[np.float64], ...] = field(repr=False)
    pwrss: float
    wrss: float
    ussq: float
    logdet_A: float
    logdet_RX2: float
    sigma: float
    criterion: float

    @property
    def vcov(self) -> NDArray[np.float64]:
        """Covariance of the coefficients (p, p)."""
        # trtri, not solve_triangular: OpenBLAS wakes its threads for several right-hand sides, even of length 2
        root = lapack.dtrtri(self.RX)[0] if len(self.beta) else self.RX
        return self.sigma**2 * root @ root.T

    @cached_property
    def _conditional_covariances(self) -> tuple[NDArray[np.float64], ...]:
        s, w = self.model.analysis.structure, self.model.workspace
        call, _ = _profile_at(self.theta, self.model, self.reml)
        call.invert()
        blocks = []
        templates = self.model.layout.templates(self.theta)
        for first, template in zip(self.model.analysis.first_row, templates, strict=True):
            blocks.append(template @ inverse_blocks(s, w, first, template) @ template.T)
        return tuple(blocks)

    def conditional_cov(self, factor: int) -> NDArray[np.float64]:
        """Return the conditional covariance (J, K, K) of each level's effects given beta, in units of sigma squared."""
        return self._conditional_covariances[factor]

    def leverage(self) -> NDArray[np.float64]:
        """Return the diagonal (n,) of the matrix that takes y to the fitted values; its sum is the model's size."""
        model, rows = self.model, self.model.products.source
        s, w = model.analysis.structure, model.workspace
        call, root = _profile_at(self.theta, model, self.reml)
        effects = w.half[:, :-1].copy()
        if effects.size:
            call.solve_other_half(effects)
        call.invert()
        p = model.products.n_fixed
        fixed = rows.X @ model.products.whitener
        share = np.zeros(model.n_rows)
        scaled = self._scaled_rows()
        for f, (Z, codes) in enumerate(zip(scaled, rows.codes, strict=True)):
            at = model.analysis.first_row[f][codes]
            for k in range(Z.shape[1]):
                fixed -= Z[:, [k]] * effects[at + k]
            for g in range(f + 1):
                other = model.analysis.first_row[g][rows.codes[g]]
                add_quadratic(s, w, (at, other), (Z, scaled[g]), 1.0 if f == g else 2.0, share)
        half = fixed @ lapack.dtrtri(root[:p, :p], lower=1)[0].T if p else fixed
        share += (half * half).sum(axis=1)
        return share * rows.weights if rows.weights.size else share

    def _scaled_rows(self) -> list[NDArray[np.float64]]:
        templates = self.model.layout.templates(self.theta)
        return [np.ascontiguousarray(Z @ T) for Z, T in zip(self.model.products.source.Z, templates, strict=True)]

    def draws(
        self, rng: np.random.Generator, n: int, sigma: float | None = None
    ) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
        """Draw coefficients and group effects from their joint normal distribution given theta and sigma.

        Under a flat prior on beta this is their exact posterior given the variance parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        n : int
            Number of draws.
        sigma : float, optional
            Residual standard deviation; the estimate when absent.

        Returns
        -------
        beta : (n, p) ndarray
        b : tuple of (n, J, K) ndarray
            One array per factor.
        """
        model = self.model
        p, q = model.products.n_fixed, model.analysis.n_columns
        scale = self.sigma if sigma is None else sigma
        _, root = _profile_at(self.theta, model, self.reml)
        inverse = lapack.dtrtri(root[:p, :p], lower=1)[0] if p else root[:p, :p]
        whitened = (inverse.T @ root[p, :p])[:, None] + scale * inverse.T @ rng.standard_normal((p, n))
        beta = model.products.beta0 + (model.products.whitener @ whitened).T
        noise = scale * rng.standard_normal((q, n))
        return beta, model.effects_given(whitened, noise, model.layout.templates(self.theta))


def _profile_at(theta: NDArray[np.float64], model: LmmKernel, reml: bool) -> tuple[Call, NDArray[np.float64]]:
    """Evaluate at `theta`; return the call, whose workspace holds the factorisation, and the Cholesky factor of Q."""
    _evaluate(theta, model, reml, _NO_GRADIENT)
    call = model._call
    return call, np.where(_lower(len(call.root)), call.root, 0.0)


@lru_cache(maxsize=16)
def _lower(size: int) -> NDArray[np.bool_]:
    """Return where the lower triangle of a matrix is."""
    return np.tri(size, dtype=bool)


def profile(
    structure: Structure,
    workspace: Workspace,
    templates: NDArray[np.float64],
    rhs: NDArray[np.float64],
    gram: NDArray[np.float64],
    n_rows: int,
    reml: bool,
    constant: float,
    root: NDArray[np.float64],
) -> tuple[float, float]:
    """Return the criterion for given templates, and log|A|; fill `root` with the Cholesky factor of Q.

    Parameters
    ----------
    structure : Structure
    workspace : Workspace
    templates : float64
        Lambda of each factor, (K, K) in C order, one after the other.
    rhs : (q, p + 1)
        Z'[X y] in engine order.
    gram, root : (p + 1, p + 1)
        [X y]'[X y]; lower triangular result.
    n_rows : int
        Number of observations.
    reml : bool
        REML criterion or ML deviance.
    constant : float
        Added to the criterion.
    """
    nothing = np.zeros(0, dtype=np.int64)
    terms, space = TermArrays(*[nothing] * 8), Space(nothing, nothing, np.zeros(0), np.zeros(0))
    call = Call(structure, workspace, terms, space)
    call.settings[:3] = n_rows, reml, constant
    for argument, array in ((RHS, rhs), (GRAM_MATRIX, gram), (ROOT, root), (TEMPLATES, templates)):
        call.set(argument, array)
    value = call(PROFILE)
    return value, float(call.settings[3])


def solve(theta: ArrayLike, model: LmmKernel, reml: bool = True) -> Solution:
    """Return coefficients, group effects and all else that follows from `theta`.

    Parameters
    ----------
    theta : (m,) array_like
        Covariance parameters in the order of `model.layout`.
    model : LmmKernel
        The design.
    reml : bool, default True
        Whether sigma and the criterion are those of REML.

    Returns
    -------
    Solution

    Raises
    ------
    FitError
        If the factorisation breaks down at this theta.
    """
    theta = np.ascontiguousarray(theta, dtype=np.float64)
    products = model.products
    p = products.n_fixed
    call, root = _profile_at(theta, model, reml)
    value, logdet_A = call.answer, call.settings[3]
    if not np.isfinite(value):
        raise FitError(
            "the factorisation broke down: theta is too large for double precision, or the response is an exact\n"
            "  linear function of the predictors, so that there is no residual variance."
        )
    whitened = lapack.dtrtrs(root[:p, :p], root[p, :p], lower=1, trans=1)[0] if p else np.zeros(0)
    direction = np.ones(p + 1)
    np.negative(whitened, out=direction[:p])
    u = (call.workspace.half @ direction)[:, None]
    call.solve_other_half(u)
    spherical = model.split(u[:, 0])
    pwrss, ussq = float(root[p, p] ** 2), float((u * u).sum())
    RX = root[:p, :p].T @ products.R0
    degrees = model.n_rows - p if reml else model.n_rows
    return Solution(
        model=model,
        reml=reml,
        theta=theta,
        beta=products.beta0 + products.whitener @ whitened,
        RX=RX,
        u=spherical,
        b=tuple(block @ T.T for block, T in zip(spherical, model.layout.unflatten(call.templates), strict=True)),
        pwrss=pwrss,
        wrss=pwrss - ussq,
        ussq=ussq,
        logdet_A=float(logdet_A),
        logdet_RX2=2.0 * float(np.log(np.diag(root)[:p]).sum() + products.logdet_R0),
        sigma=float(np.sqrt(pwrss / degrees)),
        criterion=float(value),
    )


def inverse_blocks(
    s: Structure, w: Workspace, first: NDArray[np.int64], template: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the diagonal blocks of A^-1 (J, K, K) of one factor's levels, which start at rows `first`."""
    n_head_rows = s.offset[len(s.row_start) - 1]
    k = len(template)
    row, column = np.indices((k, k))
    out = np.empty((len(first), k, k))
    inside = first < n_head_rows
    start = s.value_start[np.searchsorted(s.offset, first[inside])]
    out[inside] = w.head_inverse[start[:, None, None] + k * row + column]
    at = first[~inside, None, None] - n_head_rows
    out[~inside] = w.tail[at + np.maximum(row, column), at + np.minimum(row, column)]
    return out


_LONGS, _DOUBLES = "CPointer(int64)", "CPointer(float64)"


@step
def place_of(numbers, start, stop, wanted):  # type: ignore[no-untyped-def]
    """Return where `wanted` stands among ascending numbers[start:stop]; it is there."""
    while stop - start > 1:
        middle = (start + stop) // 2
        if numbers[middle] <= wanted:
            start = middle
        else:
            stop = middle
    return start


@c_function(
    f"void(int64, int64, int64, int64, int64, float64, {', '.join([_LONGS] * 4)}, CPointer(int32), {_LONGS}, "
    f"{', '.join([_DOUBLES] * 5)})"
)
def _add_quadratic(  # type: ignore[no-untyped-def]
    n, n_head, n_tail, k1, k2, weight, first, second, offset, row_start, below, value_start, head_inverse, tail, Z1,
    Z2, out,
):  # fmt: skip
    """Do `add_quadratic`."""
    n_head_rows = offset[n_head]
    for i in range(n):
        swapped = first[i] < second[i]
        later, earlier = (second[i], first[i]) if swapped else (first[i], second[i])
        height, width = (k2, k1) if swapped else (k1, k2)
        base = np.int64(-1)
        if earlier < n_head_rows:
            node = place_of(offset, 0, n_head, earlier)
            base = value_start[node]
            if later != earlier:
                rows = row_start[node]
                base += width * (width + place_of(below, rows, row_start[node + 1], later) - rows)
        total = 0.0
        for a in range(height):
            for b in range(width):
                if base >= 0:
                    inverse = head_inverse[base + a * width + b]
                else:
                    p, q = later + a - n_head_rows, earlier + b - n_head_rows
                    inverse = tail[p * n_tail + q] if p > q else tail[q * n_tail + p]
                z1 = Z1[i * k1 + b] if swapped else Z1[i * k1 + a]
                z2 = Z2[i * k2 + a] if swapped else Z2[i * k2 + b]
                total += z1 * inverse * z2
        out[i] += weight * total


def add_quadratic(
    s: Structure,
    w: Workspace,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    columns: tuple[NDArray[np.float64], NDArray[np.float64]],
    weight: float,
    out: NDArray[np.float64],
) -> None:
    """Add `weight * z1' S z2` of each row to `out`, S the block of A^-1 between the levels starting at the two rows."""
    (first, second), (Z1, Z2) = rows, columns
    _add_quadratic(
        len(first), len(s.row_start) - 1, w.tail.shape[0], Z1.shape[1], Z2.shape[1], weight, first, second, s.offset,
        s.row_start, s.rows, s.value_start, w.head_inverse, w.tail, Z1, Z2, out,
    )  # fmt: skip
