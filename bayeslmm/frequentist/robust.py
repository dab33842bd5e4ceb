"""Standard errors that survive a wrong covariance model: cluster sandwiches CR0 to CR2, and HC0 to HC3.

The residual of a group after its effects are fitted is W⁻¹V0⁻¹(y - X beta), so that CR0 and CR1 need no matrix of the
size of a cluster. CR2 and its degrees of freedom do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import linalg, stats

from bayeslmm.errors import ComparisonError, DataError, did_you_mean, listing
from bayeslmm.formula.grouping import is_nested
from bayeslmm.formula.residuals import refuse
from bayeslmm.frequentist.degrees_of_freedom import coefficient_table
from bayeslmm.frequentist.hypotheses import HypothesisTest, hypothesis_test
from bayeslmm.likelihood.cholesky import solve_other_half
from bayeslmm.likelihood.lmm import profile
from bayeslmm.predict import linear_predictor
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.frequentist.lmm_fit import LmmFit

CLUSTER_TYPES = ("CR0", "CR1", "CR1S", "CR1p", "CR2")
ROW_TYPES = ("HC0", "HC1", "HC2", "HC3")
LARGEST_CLUSTER = 4000
"""Rows of a cluster for which CR2 takes the eigenvalues of a matrix of that size."""


@dataclass(frozen=True)
class Clusters:
    """Rows by cluster.

    Parameters
    ----------
    name : str
        As printed.
    codes : ndarray (n,) of intp
        Cluster of each row.
    count : int
        Number of clusters G.
    """

    name: str
    codes: NDArray[np.intp]
    count: int

    def rows(self) -> Iterator[NDArray[np.intp]]:
        """Yield the rows of each cluster."""
        order = np.argsort(self.codes, kind="stable")
        yield from np.split(order, np.cumsum(np.bincount(self.codes, minlength=self.count))[:-1])


@dataclass(frozen=True)
class ClusterDistribution:
    """Bell and McCaffrey's degrees of freedom of a cluster sandwich, and their extension to F tests.

    Parameters
    ----------
    vcov : ndarray (p, p)
        The sandwich.
    influence : ndarray (G, p, p)
        X_g' u_g per cluster, with u_g the weights that the cluster's residuals have in each coefficient.
    spread : ndarray (G, p, p)
        u_g' V0_g u_g.
    bread : ndarray (p, p)
        (X'V0⁻¹X)⁻¹.

    References
    ----------
    Bell & McCaffrey (2002), *Survey Methodology* 28(2); Pustejovsky & Tipton (2018), *J. Bus. Econ. Stat.* 36(4).
    """

    vcov: NDArray[np.float64]
    influence: NDArray[np.float64]
    spread: NDArray[np.float64]
    bread: NDArray[np.float64]
    title: str = "Bell-McCaffrey"

    def df(self, L: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return Bell and McCaffrey's degrees of freedom of each contrast (q,)."""
        return np.array([self._one(row) for row in L])

    def _one(self, row: NDArray[np.float64]) -> float:
        own = np.einsum("a,gab,b->g", row, self.spread, row)
        shared = self.influence @ row
        middle = shared.T @ shared
        total = own.sum() - np.einsum("ga,ab,gb->", shared, self.bread, shared)
        squares = (own**2).sum() - 2 * np.einsum("g,ga,ab,gb->", own, shared, self.bread, shared)
        squares += np.einsum("ab,bc,cd,da->", middle, self.bread, middle, self.bread)
        return float(total**2 / squares)

    def joint(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return degrees of freedom and scale of Pustejovsky and Tipton's approximate Hotelling test."""
        q = len(L)
        values, vectors = np.linalg.eigh(L @ self.bread @ L.T)
        rows = (vectors / np.sqrt(values)).T @ L
        own = np.einsum("sa,gab,tb->stg", rows, self.spread, rows)
        shared = np.einsum("gab,sb->sga", self.influence, rows)
        cov = -np.einsum("sga,ab,thb->stgh", shared, self.bread, shared)
        diagonal = np.arange(cov.shape[-1])
        cov[:, :, diagonal, diagonal] += own
        variance = np.einsum("ssgh,ttgh->", cov, cov) + np.einsum("stgh,tsgh->", cov, cov)
        eta = q * (q + 1) / float(variance)
        if eta <= q - 1:
            raise ComparisonError(
                f"{q} contrasts are too many for {cov.shape[-1]} clusters: no degrees of freedom are left.\n"
                "  Test fewer contrasts at once, or use the model's own covariance."
            )
        return eta - q + 1, (eta - q + 1) / eta


@dataclass(frozen=True)
class CountedDistribution:
    """A sandwich whose degrees of freedom are counted: clusters less one, or rows less coefficients."""

    vcov: NDArray[np.float64]
    count: float
    title: str

    def df(self, L: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the count for each contrast (q,)."""
        return np.full(len(L), self.count)

    def joint(self, L: NDArray[np.float64]) -> tuple[float, float]:
        """Return the count; the scale is 1."""
        return self.count, 1.0


@dataclass(frozen=True, repr=False)
class Robust(Tabular):
    """Coefficients with sandwich standard errors.

    Parameters
    ----------
    type : str
        "CR0" ... "HC3".
    names : tuple of str
        Coefficients.
    beta : ndarray (p,)
        Estimates, those of the model.
    distribution : Denominator
        Sandwich covariance and degrees of freedom.
    clusters : Clusters or None
        Clusters; None for HC.
    design : Design
        The design.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> fit.robust(cluster="Subject", type="CR0").se.round(3).to_dict()
    {'Intercept': 6.632, 'Days': 1.502}
    """

    type: str
    names: tuple[str, ...]
    beta: NDArray[np.float64]
    distribution: ClusterDistribution | CountedDistribution
    clusters: Clusters | None
    design: Design

    @property
    def vcov(self) -> pd.DataFrame:
        """Sandwich covariance of the coefficients."""
        return pd.DataFrame(self.distribution.vcov, index=list(self.names), columns=list(self.names))

    @property
    def se(self) -> pd.Series:
        """Standard errors."""
        return pd.Series(np.sqrt(np.diag(self.distribution.vcov)), index=list(self.names), name="se")

    @cached_property
    def coefficients(self) -> pd.DataFrame:
        """Estimate, Std. Error, df, t value, Pr(>|t|)."""
        return coefficient_table(self.beta, self.names, self.distribution, self.distribution.vcov)

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Return intervals of the coefficients from the t distribution.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`.
        """
        table = self.coefficients
        half = stats.t.ppf(0.5 + level / 2, table["df"]) * table["Std. Error"]
        return pd.DataFrame({"lower": table["Estimate"] - half, "upper": table["Estimate"] + half})

    def test(self, hypothesis: Any, rhs: ArrayLike | None = None) -> HypothesisTest:
        """Test linear hypotheses with the sandwich covariance; arguments as in `LmmFit.test`.

        Parameters
        ----------
        hypothesis : str, mapping or array_like (q, p)
            What is tested.
        rhs : array_like (q,), optional
            Right-hand side of a matrix.

        Returns
        -------
        HypothesisTest
            The test.
        """
        return hypothesis_test(self.design, self.beta, self.distribution, hypothesis, rhs)

    def table(self) -> Table:
        """Return the coefficients as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        where = "rows" if self.clusters is None else f"{self.clusters.count:,} clusters of {self.clusters.name}"
        note = f"{self.type} sandwich over {where}; t tests with {self.distribution.title} degrees of freedom."
        return Table(self.coefficients, notes=(note,))


def robust(fit: LmmFit, cluster: str | ArrayLike | None = None, type: str = "CR2") -> Robust:
    """Return sandwich standard errors of the coefficients of a fit.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    cluster : str or array_like (n,), optional
        A grouping factor, a column of the data, or labels; the coarsest grouping factor when absent. Each level of
        each grouping factor must lie in one cluster.
    type : str, default "CR2"
        "CR0" without correction, "CR1" times G/(G-1) (Stata's), "CR1S" times G(n-1)/((G-1)(n-p)), "CR1p" times
        G/(G-p), "CR2" unbiased if the model is right, with Bell-McCaffrey degrees of freedom. "HC0" to "HC3" keep the
        estimated covariance of the group effects and let each row have a residual variance of its own.

    Returns
    -------
    Robust
        Table, covariance, intervals and tests.

    Raises
    ------
    ComparisonError
        If a grouping factor is not nested in the clusters, or the type is not known.
    DataError
        If the clusters cannot be read.

    References
    ----------
    Liang & Zeger (1986), *Biometrika* 73(1); Pustejovsky & Tipton (2018), *J. Bus. Econ. Stat.* 36(4).
    """
    kind = next((known for known in (*CLUSTER_TYPES, *ROW_TYPES) if known.casefold() == str(type).casefold()), None)
    if kind is None:
        raise ComparisonError(f"type={type!r} is no sandwich.\n  Types: {listing((*CLUSTER_TYPES, *ROW_TYPES))}.")
    refuse(fit.design.residuals, "robust()", "Fit without residuals= for a sandwich, or keep the structure you fitted.")
    if kind in ROW_TYPES:
        if cluster is not None:
            raise ComparisonError(f"{kind} works on single rows and takes no cluster; CR0, CR1 and CR2 take one.")
        distribution = CountedDistribution(_row_sandwich(fit, kind), fit.n_obs - len(fit.solution.beta), "residual")
        return Robust(kind, fit.design.coef_names, fit.solution.beta, distribution, None, fit.design)
    clusters = find_clusters(fit.design, cluster)
    return Robust(
        kind, fit.design.coef_names, fit.solution.beta, _cluster_sandwich(fit, clusters, kind), clusters, fit.design
    )


def find_clusters(design: Design, cluster: str | ArrayLike | None) -> Clusters:
    """Return the clusters of a design, refusing those that do not nest the grouping factors.

    Parameters
    ----------
    design : Design
        The design.
    cluster : str or array_like (n,) or None
        Factor, column or labels; the coarsest grouping factor when None.

    Returns
    -------
    Clusters
        The clusters.

    Raises
    ------
    ComparisonError
        If a level of a grouping factor lies in two clusters, or there is one cluster only.
    DataError
        If there is no such column, or the labels do not fit.
    """
    name, codes = _cluster_codes(design, cluster)
    count = int(codes.max()) + 1
    for factor in design.condensed.factors:
        if not is_nested(factor.codes, codes):
            raise ComparisonError(
                f"the clusters ({name}) do not nest the grouping factor {factor.name!r}: one of its levels lies in two "
                "clusters, whose rows are then not independent.\n"
                "  Cluster by the coarsest grouping factor; crossed factors leave no clusters to sum over."
            )
    if count < 2:
        raise ComparisonError(f"the clusters ({name}) are one; a sandwich needs several, and to be trusted many.")
    return Clusters(name, codes, count)


def _cluster_codes(design: Design, cluster: Any) -> tuple[str, NDArray[np.intp]]:
    rows = design.condensed
    if cluster is None:
        coarsest = min(rows.factors, key=lambda factor: len(factor.levels))
        return coarsest.name, coarsest.codes.astype(np.intp)
    if isinstance(cluster, str):
        for factor in rows.factors:
            if factor.name == cluster:
                return cluster, factor.member_codes.astype(np.intp)
        if cluster not in rows.data.columns:
            known = [*(factor.name for factor in rows.factors), *map(str, rows.data.columns)]
            known = list(dict.fromkeys(known))
            raise DataError(
                f"there is no grouping factor or column {cluster!r} in the fitted data.\n"
                f"  There are: {listing(known)}. {did_you_mean(cluster, known)}\n"
                "  A column that the formula does not use can be given as an array: cluster=data['district']."
            )
        labels, name = rows.data[cluster], cluster
    else:
        labels, name = pd.Series(np.asarray(cluster)), "given labels"
        if len(labels) == design.n_total and design.n_total != design.n:
            labels = labels.iloc[design.rows]
        if len(labels) != design.n:
            raise DataError(f"{len(labels)} cluster labels for {design.n} rows.")
    codes, _ = pd.factorize(labels, use_na_sentinel=True)
    if (codes < 0).any():
        raise DataError(f"{np.count_nonzero(codes < 0)} rows have no cluster.")
    return name, codes.astype(np.intp)


def _cluster_sandwich(fit: LmmFit, clusters: Clusters, kind: str) -> ClusterDistribution | CountedDistribution:
    design, solution = fit.design, fit.solution
    bread = solution.vcov / solution.sigma**2
    G, n, p = clusters.count, design.n, len(solution.beta)
    if kind == "CR2":
        return _unbiased_sandwich(fit, clusters, bread)
    if kind == "CR1p" and p >= G:
        raise ComparisonError(f"CR1p divides by clusters less coefficients, {G} - {p}. Use CR2.")
    factor = {"CR0": 1.0, "CR1": G / (G - 1), "CR1S": G * (n - 1) / ((G - 1) * (n - p)), "CR1p": G / max(G - p, 1)}
    scores = np.zeros((G, p))
    rows = design.condensed
    np.add.at(scores, clusters.codes, rows.X * _weighted(rows, _residuals(fit, rows))[:, None])
    meat = scores @ bread
    return CountedDistribution(factor[kind] * meat.T @ meat, G - 1, "clusters less one as")


def _residuals(fit: LmmFit, rows: Design) -> NDArray[np.float64]:
    """Return responses minus fitted values of rows, which may be the condensed ones."""
    assert rows.y is not None
    effects = {factor.name: fit.solution.b[i][None] for i, factor in enumerate(rows.factors)}
    return rows.y - linear_predictor(rows, fit.solution.beta[None], effects)[0]


def _weighted(design: Design, values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = design.likelihood_weights
    return values if weights is None else values * weights


def _unbiased_sandwich(fit: LmmFit, clusters: Clusters, bread: NDArray[np.float64]) -> ClusterDistribution:
    design, p = fit.design.condensed, len(fit.solution.beta)
    largest = int(np.bincount(clusters.codes).max())
    if largest > LARGEST_CLUSTER:
        raise ComparisonError(
            f"CR2 takes the eigenvalues of a {largest:,} x {largest:,} matrix for the largest cluster; "
            f"{LARGEST_CLUSTER:,} rows are the limit.\n  CR1 needs none, and with clusters this large differs little "
            "if they are many."
        )
    offset = 0.0 if design.offset is None else design.offset
    assert design.y is not None
    marginal = design.y - offset - design.X @ fit.solution.beta
    meat = np.zeros((p, p))
    influence, spread = np.empty((clusters.count, p, p)), np.empty((clusters.count, p, p))
    for g, (rows, V) in enumerate(cluster_covariances(fit, clusters)):
        X = design.X[rows]
        root = linalg.cholesky(V)
        inner = root @ (V - X @ bread @ X.T) @ root.T
        values, vectors = np.linalg.eigh((inner + inner.T) / 2)
        power = np.where(values > 1e-12 * max(values.max(), 1e-300), values, np.inf) ** -0.5
        adjustment = root.T @ (vectors * power) @ vectors.T @ root
        weights = adjustment.T @ linalg.cho_solve((root, False), X) @ bread
        score = weights.T @ marginal[rows]
        meat += np.outer(score, score)
        influence[g] = X.T @ weights
        spread[g] = weights.T @ V @ weights
    return ClusterDistribution(meat, influence, spread, bread)


def cluster_covariances(fit: LmmFit, clusters: Clusters) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Yield each cluster's rows and the covariance of their responses.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    clusters : Clusters
        Clusters that nest the grouping factors.

    Yields
    ------
    rows : ndarray (n_g,)
        Rows of the cluster.
    V : ndarray (n_g, n_g)
        Their covariance in units of sigma².
    """
    templates = fit.kernel.layout.templates(fit.theta)
    design = fit.design.condensed
    scaled = [factor.Z @ T for factor, T in zip(design.factors, templates, strict=True)]
    weights = design.likelihood_weights
    for rows in clusters.rows():
        V = np.diag(np.ones(len(rows)) if weights is None else 1.0 / weights[rows])
        for factor, Z in zip(design.factors, scaled, strict=True):
            codes = factor.codes[rows]
            V += (Z[rows] @ Z[rows].T) * (codes[:, None] == codes)
        yield rows, V


def _row_sandwich(fit: LmmFit, kind: str) -> NDArray[np.float64]:
    """Return the sandwich with the estimated covariance of the group effects and a residual variance for each row."""
    design, solution = fit.design, fit.solution
    bread = solution.vcov / solution.sigma**2
    columns = whitened_columns(fit) @ bread
    power = {"HC0": 0, "HC1": 0, "HC2": 1, "HC3": 2}[kind]
    variance = fit.residuals() ** 2 / (1 - solution.leverage()) ** power
    if kind == "HC1":
        variance *= design.n / (design.n - len(solution.beta))
    meat = (columns * variance[:, None]).T @ columns
    templates = fit.kernel.layout.templates(fit.theta)
    for factor, T in zip(design.factors, templates, strict=True):
        sums = np.zeros((len(factor.levels), T.shape[0], columns.shape[1]))
        np.add.at(sums, factor.codes, factor.Z[:, :, None] * columns[:, None, :])
        part = np.einsum("ab,jac->jbc", T, sums).reshape(-1, columns.shape[1])
        meat += solution.sigma**2 * part.T @ part
    return meat


def whitened_columns(fit: LmmFit) -> NDArray[np.float64]:
    """Return V0⁻¹X (n, p), by the factorisation of the kernel.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    ndarray (n, p)
        Columns of X after the inverse covariance of the rows, in units of 1 / sigma².
    """
    kernel, design = fit.kernel, fit.design
    structure, workspace = kernel.analysis.structure, kernel.workspace
    flat = kernel.layout.flat_templates(fit.theta)
    profile(
        structure, workspace, flat, kernel.rhs, kernel.products.gram, kernel.n_rows, fit.reml, 0.0,
        np.empty(kernel.products.gram.shape),
    )  # fmt: skip
    effects = workspace.half[:, :-1].copy()
    solve_other_half(structure, workspace, effects)
    columns = np.ascontiguousarray(design.X)
    blocks = zip(design.factors, kernel.split(effects), kernel.layout.templates(fit.theta), strict=True)
    for factor, block, T in blocks:
        level = np.einsum("ab,jbp->jap", T, block) @ kernel.products.R0
        columns = columns - np.einsum("nk,nkp->np", factor.Z, level[factor.codes])
    return _weighted(design, columns.T).T
