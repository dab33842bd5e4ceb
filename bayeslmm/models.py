"""A formula met by data, before anything is estimated: `fit()` and `sample()` start here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from bayeslmm.errors import DataError, DataWarning, FormulaError, warn
from bayeslmm.families import Family, as_family
from bayeslmm.formula.auxiliary import attach_auxiliary, split_formulas
from bayeslmm.formula.design import PSEUDO_LIKELIHOOD, Design, build_design
from bayeslmm.formula.parse import parse_formula
from bayeslmm.formula.terms import Formula
from bayeslmm.frequentist.lmm_fit import LmmFit, fit_lmm
from bayeslmm.likelihood.lmm import LmmKernel, Storage

if TYPE_CHECKING:
    import bambi
    import pymc as pm
    import xarray as xr
    from numpy.typing import ArrayLike

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.bayes.priors import Priors
    from bayeslmm.formula.residuals import Residuals
    from bayeslmm.formula.terms import Formula
    from bayeslmm.frequentist.glmm_fit import GlmmFit
    from bayeslmm.frequentist.optimize import Control
    from bayeslmm.report.equation import Equation


@dataclass(frozen=True)
class Model:
    """A hierarchical model: a formula met by data, a family and priors.

    A model is a value: nothing done with it changes it, and `fit()` and `sample()` return results of their own.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family with its link.
    user_priors : mapping of str to Prior
        What replaces the default priors.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> round(m.fit().sigma, 4)
    25.5918
    """

    design: Design
    family: Family
    user_priors: Mapping[str, Any] = field(default_factory=dict)

    @property
    def formula(self) -> Formula:
        """The parsed formula."""
        return self.design.formula

    @cached_property
    def kernel(self) -> LmmKernel:
        """The likelihood kernel: cross-products and the symbolic factorisation, computed once."""
        return LmmKernel.from_design(self.design)

    @property
    def storage(self) -> tuple[str, ...]:
        """How each block of the likelihood kernel is stored, a line each; empty for other than Gaussian models."""
        if not self.family.is_gaussian_identity:
            return ()
        names = [factor.name for factor in self.design.factors]
        return tuple(_storage_line(names[block.factor], block) for block in self.kernel.blocks)

    @cached_property
    def priors(self) -> Priors:
        """Every prior in effect, defaults included; prints as a table."""
        from bayeslmm.bayes.priors import resolve_priors

        return resolve_priors(self.design, self.family, self.user_priors)

    def with_priors(self, priors: Mapping[str, Any] | None = None, **named: Any) -> Model:
        """Return the same model with other priors.

        Parameters
        ----------
        priors : mapping of str to Prior, optional
            Keys as in `model`.
        **named : Prior
            The same, for keys that are Python names.

        Returns
        -------
        Model
            A new model; this one is unchanged.

        Raises
        ------
        PriorError
            If a key names nothing in the model.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Reaction ~ Days + (1 | Subject)", blm.datasets.load("sleepstudy"))
        >>> tight = m.with_priors(sd_Subject=blm.Prior("HalfNormal", sigma=10))
        """
        changed = replace(self, user_priors={**self.user_priors, **(priors or {}), **named})
        changed.priors  # noqa: B018  a wrong name is reported here, not at sampling
        return changed

    def fit(
        self,
        reml: bool = True,
        *,
        quadrature: int = 1,
        control: Control | None = None,
        progress: bool = False,
    ) -> LmmFit | GlmmFit:
        """Estimate by restricted maximum likelihood, or by maximum likelihood.

        Parameters
        ----------
        reml : bool, default True
            REML; `False` for ML. Families other than the Gaussian are always fitted by ML.
        quadrature : int, default 1
            For other families: 1 is the Laplace approximation, more are points per dimension of adaptive Gauss-Hermite
            quadrature, 0 is faster and a little biased (lme4's nAGQ).
        control : Control, optional
            Tolerance, largest number of evaluations, start.
        progress : bool, default False
            Show a bar when the fit takes longer than a second.

        Returns
        -------
        LmmFit or GlmmFit
            Estimates with their standard errors.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> round(m.fit(reml=False).loglik, 4)
        -163.6635
        """
        if self.design.limits is not None:
            raise FormulaError(f"fit() has no {self.design.limits.kind} responses. Use sample().")
        if self.design.auxiliary:
            raise FormulaError(
                f"fit() has no formulas of further parameters ({', '.join(self.design.auxiliary)}).\n"
                "  Use sample(), or leave them out."
            )
        if not self.family.is_gaussian_identity:
            from bayeslmm.frequentist.glmm_fit import fit_glmm

            return fit_glmm(self.design, self.family, quadrature=quadrature, control=control)
        return fit_lmm(self.design, self.kernel, reml=reml, control=control, progress=progress)

    def sample(
        self,
        draws: int = 1000,
        *,
        tune: int | None = None,
        chains: int = 4,
        seed: int | None = None,
        engine: Literal["marginal", "laplace", "latent"] | None = None,
        progress: bool = True,
        **options: Any,
    ) -> Posterior:
        """Draw from the posterior.

        Gaussian models are sampled with the group effects and coefficients integrated out exactly and drawn
        afterwards; other families, and ``engine="latent"``, run NUTS on the PyMC model of `to_pymc`.

        Parameters
        ----------
        draws : int, default 1000
            Draws per chain.
        tune : int, optional
            Warm-up steps per chain; chosen by the engine when absent.
        chains : int, default 4
            Chains.
        seed : int, optional
            Makes the draws reproducible, exactly.
        engine : {"marginal", "laplace", "latent"}, optional
            Chosen by the model when absent.
        progress : bool, default True
            Show a progress bar.
        **options : Any
            Further options of `bayeslmm.bayes.sample.sample`.

        Returns
        -------
        Posterior
            Draws in a plain DataTree, with summaries and checks.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> post = m.sample(draws=200, seed=1, progress=False)
        >>> post.data["posterior"]["beta"].shape
        (4, 200, 1)
        """
        from bayeslmm.bayes.logposterior import compile_for_posterior
        from bayeslmm.bayes.sample import sample

        if self.family.is_gaussian_identity and engine != "latent":
            compile_for_posterior()
        return sample(
            self.design,
            self.family,
            self.priors,
            kernel=self.kernel if self.family.is_gaussian_identity else None,
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            engine=engine,
            progress=progress,
            **options,
        )

    def prior_predictive(self, draws: int = 500, *, seed: int | None = None) -> xr.DataTree:
        """Return responses the model expects before it sees the data.

        Parameters
        ----------
        draws : int, default 500
            How many.
        seed : int, optional
            Makes the draws reproducible.

        Returns
        -------
        xarray.DataTree
            Groups `prior`, `prior_predictive` and `observed_data`, as ArviZ's plots want them. A warning says when most
            of the expected responses lie far beyond the scale of the observed ones.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> m.prior_predictive(draws=10, seed=1)["prior_predictive"]["y"].shape
        (1, 10, 30)
        """
        from bayeslmm.bayes.simulation import prior_predictive

        return prior_predictive(self, draws=draws, seed=seed)

    def plot_prior_predictive(self, draws: int = 100, *, seed: int | None = None) -> Any:
        """Plot responses that the priors expect beside the observed ones, by ArviZ.

        Parameters
        ----------
        draws : int, default 100
            How many data sets.
        seed : int, optional
            Makes the draws reproducible.

        Returns
        -------
        PlotCollection
            ArviZ's plot.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> plot = m.plot_prior_predictive(draws=20, seed=1)
        """
        from bayeslmm.bayes.simulation import plot_prior_predictive

        return plot_prior_predictive(self, draws=draws, seed=seed)

    def to_pymc(self) -> pm.Model:
        """Return the textbook hierarchical model in PyMC, ready to be read, drawn and edited.

        Returns
        -------
        pymc.Model
            With named dims and coords.

        Notes
        -----
        Functions such as ``pm.sample_posterior_predictive`` need draws of the model's own free variables, those that
        ``pm.sample`` makes. They would draw what is missing in `Posterior.data` from the prior, without a word.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> m = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
        >>> sorted(rv.name for rv in m.to_pymc().free_RVs)
        ['Intercept', 'sd_Batch', 'sigma', 'z_Batch']
        """
        from bayeslmm.bayes.latent import build_pymc_model

        return build_pymc_model(self.design, self.family, self.priors)

    def to_bambi(self) -> bambi.Model:
        """Hand the model over to bambi, where bambi can express it.

        Returns
        -------
        bambi.Model
            The same model.

        Raises
        ------
        FormulaError
            If bambi cannot express it, with the reason.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")).to_bambi().formula.main
        'Yield ~ 1 + (1|Batch)'
        """
        from bayeslmm.bayes.bambi import to_bambi

        return to_bambi(self.design, self.family, self.priors)

    def sql(self, dialect: str | None = None) -> str:
        """Return the SQL that was run over the source, where the data stay in a database.

        Parameters
        ----------
        dialect : str, optional
            As Ibis names it ("duckdb", "bigquery", "postgres"); the engine's own when absent.

        Returns
        -------
        str
            One statement per scan.

        Raises
        ------
        DataError
            If the data are in memory, or Ibis cannot write that dialect without a connection, as for Spark.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")).sql()
        Traceback (most recent call last):
        ...
        bayeslmm.errors.DataError: the data of this model are in memory: no SQL was run.
        """
        if self.design.condensation is None:
            raise DataError("the data of this model are in memory: no SQL was run.")
        return str(self.design.condensation.source.sql(dialect))

    def equation(self) -> Equation:
        """Return the model in LaTeX, priors included.

        Returns
        -------
        Equation
            Renders in a notebook; `str()` gives the LaTeX source.

        Examples
        --------
        >>> import bayeslmm as blm
        >>> "mathcal{N}" in str(blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")).equation())
        True
        """
        from bayeslmm.report.equation import equation

        return equation(self.design, self.family, self.priors)

    def __repr__(self) -> str:
        from bayeslmm.report.model_card import model_text

        return model_text(self)

    def _repr_html_(self) -> str:
        from bayeslmm.report.model_card import model_html

        return model_html(self)


def _storage_line(name: str, block: Storage) -> str:
    size = f"{8e-6 * block.numbers:,.2f} MB" if block.head else ""
    parts = [f"{block.head:,} sparse columns ({size})" * bool(block.head), f"{block.tail:,} dense" * bool(block.tail)]
    return f"{name}: {block.n_levels:,} levels x {block.n_effects}, {block.kind}: {', '.join(filter(None, parts))}"


def model(
    formula: str | Formula | Sequence[str],
    data: Any,
    family: str | Family = "gaussian",
    *,
    link: str | None = None,
    weights: str | ArrayLike | None = None,
    survey_weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    residuals: Residuals | None = None,
    priors: Mapping[str, Any] | None = None,
    adjacency: Any = None,
) -> Model:
    """Build a hierarchical model from a formula in lme4's language and a data frame.

    Parameters
    ----------
    formula : str, Formula or sequence of str
        For example ``"lang ~ IQ + SES + (IQ | class)"``. Several formulas, that of the mean first, give further
        parameters of the family predictors of their own: ``["y ~ x + (1 | g)", "sigma ~ x"]``, for `sample()`.
    data : data frame, Ibis table, DuckDB relation, Polars LazyFrame or path
        pandas, polars or pyarrow, or a mapping of names to columns. Tables of an engine, lazy frames and Parquet files
        (a path or glob) stay where they are; only sums are fetched.
    family : str or Family, default "gaussian"
        Response family.
    link : str, optional
        Link of the mean; the family's usual one when absent.
    weights : str or array_like (n,), optional
        Prior weights: a column name or an array. For Gaussian models the residual variance is sigma² / weight.
    survey_weights : str or array_like (n,), optional
        How many people each respondent stands for: a column name or an array. The density of each row is raised to the
        power of its weight, the weights rescaled to add up to the number of rows. This is a pseudo-likelihood, and its
        standard errors and intervals are not design-based; a `DataWarning` says so.
    offset : str or array_like (n,), optional
        Known part of the linear predictor; added to any `offset()` in the formula.
    residuals : Residuals, optional
        For Gaussian models: ``blm.residuals.by("sex")``, a residual SD for each level;
        ``blm.residuals.ar1("week", group="id")`` or ``blm.residuals.exchangeable(group="id")``, correlation within
        groups; the latter two take `by` too.
    priors : mapping of str to Prior, optional
        Keys: "Intercept" (of centred predictors), a coefficient's name, "beta" (all slopes), "sd" (every group SD),
        "sd_class" (those of one factor), "sd_class[IQ]" (one), "corr" or "corr_class" (LKJ), "sigma"; with `residuals`
        "sigma_ratio" (all), "sigma_ratio[level]" and "rho".
    adjacency : mapping, pairs, square DataFrame or GeoDataFrame, optional
        Which areas are neighbours, for `icar(1 | area)` and `bym2(1 | area)`: a mapping of areas to lists of
        neighbours, pairs, a symmetric table of 0 and 1 labelled by area, or polygons indexed by area.

    Returns
    -------
    Model
        Ready for `fit()` and `sample()`.

    Raises
    ------
    FormulaError
        If the formula cannot be read or names a column that is not there.
    DataError
        If the data cannot be used.
    PriorError
        If a prior names nothing in the model.

    Warns
    -----
    DataWarning
        If survey weights turn the likelihood into a pseudo-likelihood.

    References
    ----------
    Savitsky & Toth (2016), *Electronic Journal of Statistics* 10(1), 1677-1708: weights as powers in a posterior.
    Rabe-Hesketh & Skrondal (2006), *Journal of the Royal Statistical Society A* 169(4), 805-827: in multilevel models.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> schools = blm.datasets.load("nlschools")
    >>> fit = blm.model("lang ~ IQ + GS + SES + COMB + (1 | class)", schools).fit()
    >>> round(fit.criterion, 2)
    15132.86
    """
    others: Mapping[str, str] = {}
    if not isinstance(formula, str | Formula):
        formula, others = split_formulas(formula)
    parsed = parse_formula(formula) if isinstance(formula, str) else formula
    resolved = as_family(family, link)
    if adjacency is not None and not any(term.structure == "icar" for term in parsed.random):
        raise DataError("adjacency= was given, but the formula has neither icar() nor bym2().")
    if residuals is not None and not resolved.is_gaussian_identity:
        raise DataError(
            f"residuals= is for Gaussian models with an identity link; this one is {resolved}.\n"
            "  Other families have no residuals of their own: add a random term for rows or groups instead."
        )
    design = build_design(
        parsed, data, weights=weights, offset=offset, family=resolved.name, adjacency=adjacency, residuals=residuals,
        survey_weights=survey_weights,
    )  # fmt: skip
    if survey_weights is not None:
        warn(
            f"{PSEUDO_LIKELIHOOD}\n"
            "  For estimates of a population put what the weights were made of into the model and poststratify.",
            DataWarning,
        )
    design = attach_auxiliary(design, data, others)
    if residuals is not None and (design.auxiliary or design.limits is not None):
        raise DataError(
            "residuals= cannot go with a formula for a further parameter or a censored or truncated response.\n"
            '  For a residual SD by a factor alone, a formula such as "sigma ~ sex" does what residuals.by() does.'
        )
    built = Model(design=design, family=resolved, user_priors=dict(priors or {}))
    if priors or others:
        built.priors  # noqa: B018  a wrong name is reported before any computing
    return built


def lmer(formula: str | Formula, data: Any, *, reml: bool = True, **options: Any) -> LmmFit:
    """Fit a linear mixed model in one call, as lme4's `lmer` does.

    Parameters
    ----------
    formula : str or Formula
        Model formula.
    data : data frame
        The data.
    reml : bool, default True
        REML; `False` for ML.
    **options : Any
        Passed to `model`: weights, survey_weights, offset, residuals.

    Returns
    -------
    LmmFit
        The fit.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> fit.fixef.round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    fit = model(formula, data, **options).fit(reml=reml)
    assert isinstance(fit, LmmFit)
    return fit


def glmer(
    formula: str | Formula, data: Any, family: str | Family = "binomial", *, quadrature: int = 1, **options: Any
) -> GlmmFit:
    """Fit a generalised linear mixed model in one call, as lme4's `glmer` does.

    Parameters
    ----------
    formula : str or Formula
        Model formula; counts of successes as ``cbind(k, n - k)`` or ``prop(k, n)``.
    data : data frame
        The data.
    family : str or Family, default "binomial"
        Response family.
    quadrature : int, default 1
        1 is the Laplace approximation; see `Model.fit`.
    **options : Any
        Passed to `model`: link, weights, survey_weights, offset.

    Returns
    -------
    GlmmFit
        The fit.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", blm.datasets.load("cbpp"))
    >>> round(fit.loglik, 4)
    -92.0263
    """
    from bayeslmm.frequentist.glmm_fit import GlmmFit

    fit = model(formula, data, family, **options).fit(quadrature=quadrature)
    if not isinstance(fit, GlmmFit):
        raise FormulaError("glmer() fits other families than the Gaussian; use lmer().")
    return fit
