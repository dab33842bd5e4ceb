"""The textbook hierarchical model in PyMC: what a formula means, with every group effect a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.priors import (
    FAMILIES,
    JOINT,
    Prior,
    Priors,
    column_scale,
    effect_scale,
    has_intercept,
    is_correlated,
    is_homogeneous,
)
from bayeslmm.datatree import THRESHOLD_DIM
from bayeslmm.likelihood.residual import ResidualRows

if TYPE_CHECKING:
    import pymc as pm
    from numpy.typing import NDArray
    from pytensor.tensor.variable import TensorVariable

    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design, Factor, GroupTerm


@dataclass(frozen=True)
class Observed:
    """The response in the PyMC model: constant, or data that can be replaced along with the rows that are used.

    Parameters
    ----------
    values : ndarray or TensorVariable
        The response as the family takes it.
    dims : str or None
        Dimension of the rows; None when their number can change.
    rows : TensorVariable or None
        Positions of the rows used; None for all.
    """

    values: Any
    dims: str | None
    rows: Any = None

    def of(self, quantity: Any) -> Any:
        """Return a quantity of all rows for the rows used."""
        return quantity if self.rows is None or np.ndim(quantity) == 0 else pt_array(quantity)[self.rows]


def pt_array(quantity: Any) -> TensorVariable:
    """Return a PyTensor variable."""
    import pytensor.tensor as pt

    return pt.as_tensor_variable(quantity)


def observe(design: Design, values: NDArray[np.generic], replaceable: bool) -> Observed:
    """Return the response for the PyMC model.

    Parameters
    ----------
    design : Design
        The rows.
    values : ndarray
        The response as the family takes it.
    replaceable : bool
        Whether rows and response are data of the model, `used_rows` and `response_values`.

    Returns
    -------
    Observed
        What to give as observed.
    """
    import pymc as pm

    if not replaceable:
        return Observed(values, obs_dim(design))
    return Observed(pm.Data("response_values", values), None, pm.Data("used_rows", np.arange(len(values))))


def build_pymc_model(
    design: Design, family: Family, priors: Priors, *, centred: Sequence[str] = (), replaceable: bool = False
) -> pm.Model:
    """Return the hierarchical model in PyMC.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.
    priors : Priors
        Every prior.
    centred : sequence of str, optional
        Grouping factors, or terms such as "(1 | g)", whose effects are parameters themselves; the others are
        standardised ("non-centred"), which suits groups with few or noisy rows. The levels of the first such factor are
        centred at the coefficients of the same names (Gelfand, Sahu & Carlin 1995, *Biometrika* 82(3)): `level_g` is
        what the data determine, and the coefficients no longer lie on a ridge with the mean of the effects.
    replaceable : bool, default False
        Make the rows used and the response data of the model, so that neither needs compiling again.

    Returns
    -------
    pymc.Model
        Variables `Intercept`, `slopes`, `beta[coef]`, and for each grouping factor g `sd_g`, `corr_g`, `z_g`
        (standardised effects) and `b_g[g, g_effect]`; then `sigma` and the response `y[obs]`.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> build_pymc_model(m.design, m.family, m.priors).named_vars_to_dims["b_Subject"]
    ('Subject', 'Subject_effect')
    """
    import pymc as pm

    whole = design
    design = rows_of_source(design)
    with pm.Model(coords=model_coords(design)) as model:
        add_joint_shares(design, family, priors)
        eta = fixed_part(design, priors)
        first = next((factor.name for factor in design.factors if factor.name in centred), None)
        for factor in design.factors:
            means = coefficients_of(design, factor.effects) if factor.name == first else None
            eta = eta + group_part(design, factor, priors, centred, means)
        if design.offset is not None:
            eta = eta + design.offset
        add_response(design, family, priors, eta, replaceable)
        if whole.condensation is not None and family.is_gaussian_identity:
            # Condensed rows have the sums of squares of all rows; their density lacks the other rows' factors 1/sigma.
            pm.Potential("rows_in_source", -(whole.n - design.n) * pt_log(model["sigma"]))
    return model


def pt_log(quantity: TensorVariable) -> TensorVariable:
    """Return the natural logarithm."""
    import pytensor.tensor as pt

    return pt.log(quantity)


def rows_of_source(design: Design) -> Design:
    """Return the condensed rows in place of rows that stay in a source; any other design as it is.

    Parameters
    ----------
    design : Design
        The formula met by data.

    Returns
    -------
    Design
        For families other than the Gaussian the log density of a cell counts as often as it has rows.
    """
    cells = design.condensation
    if cells is None:
        return design
    rows = cells.design
    if rows.weights is None:
        return replace(rows, condensation=cells)
    weights = rows.weights / cells.counts
    own = None if np.all(weights == 1.0) else weights
    return replace(rows, weights=own, survey_weights=cells.counts, condensation=cells)


def model_coords(design: Design) -> dict[str, Sequence[Any]]:
    """Return the coordinates of the PyMC model.

    Parameters
    ----------
    design : Design
        The formula met by data.

    Returns
    -------
    dict
        Coefficients, slopes, levels and effects of each grouping factor, and rows.
    """
    coords: dict[str, Sequence[Any]] = {"coef": list(design.coef_names)}
    if slopes := [name for name in design.coef_names if name != "Intercept"]:
        coords["slope"] = slopes
    for factor in design.factors:
        coords[factor.name] = list(factor.levels)
        coords[f"{factor.name}_effect"] = list(factor.effects)
        coords[f"{factor.name}_effect_bis"] = list(factor.effects)
    for name, part in design.auxiliary.items():
        coords[f"{name}_coef"] = list(part.coef_names)
    if design.threshold_labels:
        coords[THRESHOLD_DIM] = list(design.threshold_labels)
    coords[obs_dim(design)] = list(design.rows)
    if design.residuals is not None and design.residuals.levels:
        coords["residual_level"] = list(design.residuals.levels[1:])
    return coords


def obs_dim(design: Design) -> str:
    """Return the name of the dimension of rows: "obs", or "row" when a grouping factor is called "obs".

    Parameters
    ----------
    design : Design
        The design.

    Returns
    -------
    str
        The name.
    """
    return "row" if any(factor.name == "obs" for factor in design.factors) else "obs"


# --- coefficients --------------------------------------------------------------------------------------------------


def fixed_part(design: Design, priors: Priors) -> TensorVariable:
    """Add the coefficients and return X beta.

    Parameters
    ----------
    design : Design
        Columns of X.
    priors : Priors
        Their priors; that of the intercept, or of the thresholds in its place, is for centred columns.

    Returns
    -------
    TensorVariable (n,)
        X beta.
    """
    import pymc as pm
    import pytensor.tensor as pt

    names = design.coef_names
    is_slope = np.array([name != "Intercept" for name in names], dtype=bool)
    X = design.X[:, is_slope]
    by_name = dict(zip(names, priors.coefficients, strict=True))
    slopes = None
    if any(prior.name in JOINT for prior in priors.coefficients):
        slopes = joint_slopes(design, X, next(prior for prior in priors.coefficients if prior.name in JOINT))
    elif is_slope.any():
        chosen = [name for name in names if name != "Intercept"]
        slopes = random_vector("slopes", [f"beta[{name}]" for name in chosen], [by_name[n] for n in chosen], "slope")
    if not has_intercept(design):
        if slopes is None:
            return pt.zeros(design.X.shape[0])
        beta = pm.Deterministic("beta", slopes, dims="coef")
        return (design.centred(X) if priors.centred else X) @ beta
    intercept = random_scalar("Intercept", by_name["Intercept"])
    ones, counts = np.ones(len(X)), np.ones(len(X))
    if design.condensation is not None:
        ones, counts = design.condensation.ones, design.condensation.counts
    if slopes is None:
        pm.Deterministic("beta", pt.stack([intercept]), dims="coef")
        return intercept * ones
    means = (counts * ones) @ X / (counts @ np.square(ones))
    position = names.index("Intercept")
    at_zero = intercept - pt.dot(means, slopes)
    pm.Deterministic("beta", pt.concatenate([slopes[:position], [at_zero], slopes[position:]]), dims="coef")
    return intercept * ones + pt.dot(X - np.outer(ones, means), slopes)


def random_scalar(name: str, prior: Prior) -> TensorVariable:
    """Add a parameter with this prior.

    Parameters
    ----------
    name : str
        Its name.
    prior : Prior
        Its prior.

    Returns
    -------
    TensorVariable
        The parameter.
    """
    import pymc as pm
    import pytensor.tensor as pt

    if prior.dist is not None:
        return prior.dist(name, **prior.args)
    parameters = {key: double(value) for key, value in prior.args.items()}
    if prior.name == "SqrtInverseGamma":
        return pm.Deterministic(name, pt.sqrt(pm.InverseGamma(f"{name}_squared", **parameters)))
    return getattr(pm, prior.name)(name, **parameters)


def double(value: Any) -> Any:
    """Return a number as a float64 array: PyTensor computes with Python numbers such as 3.0 in single precision.

    Parameters
    ----------
    value : float or other
        A parameter of a prior.

    Returns
    -------
    ndarray or other
        Unchanged when it is not a number.
    """
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "fiu" else value


def random_vector(name: str, names: Sequence[str], priors: Sequence[Prior], dim: str) -> TensorVariable:
    """Add parameters as one vector where their priors share a family, otherwise one by one and stacked.

    Parameters
    ----------
    name : str
        Name of the vector.
    names : sequence of str
        Names of the parameters when they stand alone.
    priors : sequence of Prior
        Their priors.
    dim : str
        Dimension of the vector.

    Returns
    -------
    TensorVariable (m,)
        The vector.
    """
    import pymc as pm
    import pytensor.tensor as pt

    family = priors[0].name
    one_family = all(prior.name == family and prior.dist is None for prior in priors)
    if not one_family or family not in FAMILIES or family == "SqrtInverseGamma":
        parts = [random_scalar(single, prior) for single, prior in zip(names, priors, strict=True)]
        return pm.Deterministic(name, pt.stack(parts), dims=dim)
    return getattr(pm, family)(name, **shared_parameters(priors), dims=dim)


def shared_parameters(priors: Sequence[Prior]) -> dict[str, NDArray[np.float64]]:
    """Return the parameters of priors of one family: numbers where all agree, vectors where they differ.

    Parameters
    ----------
    priors : sequence of Prior
        Priors of one family.

    Returns
    -------
    dict
        Parameters by name.
    """
    parameters: dict[str, NDArray[np.float64]] = {}
    for key in priors[0].args:
        values = np.array([float(prior.args[key]) for prior in priors])
        parameters[key] = double(values[0]) if (values == values[0]).all() else values
    return parameters


def parameter_by_formula(design: Design, priors: Priors, name: str) -> TensorVariable:
    """Add the coefficients of a further parameter and return its value in each row.

    Parameters
    ----------
    design : Design
        With the columns of that parameter.
    priors : Priors
        Every prior.
    name : str
        The parameter.

    Returns
    -------
    TensorVariable (n,)
        Its values.
    """
    import pytensor.tensor as pt

    from bayeslmm.families import auxiliary_link

    part = design.auxiliary[name]
    names = [f"{name}_{column}" for column in part.coef_names]
    beta = random_vector(f"{name}_beta", names, priors.distributional[name], f"{name}_coef")
    eta = pt.dot(part.X, beta)
    eta = eta if part.offset is None else eta + part.offset
    return pt.sigmoid(eta) if auxiliary_link(name) == "logit" else pt.exp(eta)


# --- joint priors --------------------------------------------------------------------------------------------------


def add_joint_shares(design: Design, family: Family, priors: Priors) -> None:
    """Add what the parameters of a joint prior share: sigma, and for R2D2M2 the explained variance and its shares.

    Parameters
    ----------
    design : Design
        The design.
    family : Family
        Response family.
    priors : Priors
        Every prior.

    References
    ----------
    Aguilar & Bürkner (2023), *Electronic Journal of Statistics* 17(1), section 3.
    """
    import pymc as pm
    import pytensor.tensor as pt

    joint = next((entry.prior for entry in priors if entry.prior.name in JOINT), None)
    if joint is None:
        return
    one_sigma = family.is_gaussian_identity and priors.sigma is not None
    sigma = random_scalar("sigma", priors.sigma) if one_sigma and priors.sigma is not None else pt.constant(1.0)
    if joint.name != "R2D2M2":
        pm.Deterministic("joint_scale", sigma)
        return
    count = sum(entry.prior.name in JOINT for entry in priors)
    mean, precision = double(joint.args["mean_R2"]), double(joint.args["prec_R2"])
    explained = pm.Beta("R2", alpha=mean * precision, beta=(1 - mean) * precision)
    if count == 1:
        shares = pt.ones(1)
    else:
        shares = pm.Dirichlet("R2_shares", a=np.full(count, float(joint.args["concentration"])))
    pm.Deterministic("joint_scale", sigma * pt.sqrt(shares * explained / (1 - explained)))


def joint_slopes(design: Design, X: NDArray[np.float64], prior: Prior) -> TensorVariable:
    """Add slopes under a joint prior, standardised.

    Parameters
    ----------
    design : Design
        The design.
    X : ndarray (n, m)
        Columns of the slopes.
    prior : Prior
        R2D2M2 or the regularised horseshoe.

    Returns
    -------
    TensorVariable (m,)
        Slopes in units of the data.

    References
    ----------
    Piironen & Vehtari (2017), *Electronic Journal of Statistics* 11(2), equation 2.8.
    """
    import pymc as pm
    import pytensor.tensor as pt

    width = np.array([column_scale(column, design)[0] for column in X.T])
    standard = pm.Normal("z_slopes", mu=0.0, sigma=1.0, dims="slope")
    common = pm.modelcontext(None)["joint_scale"]
    if prior.name == "R2D2M2":
        scale = common[: X.shape[1]]
    else:
        a = {key: double(value) for key, value in prior.args.items()}
        tau = pm.HalfStudentT("horseshoe_global", nu=a["df_global"], sigma=a["scale_global"])
        local = pm.HalfStudentT("horseshoe_local", nu=a["df_local"], sigma=double(1.0), dims="slope")
        half = 0.5 * a["df_slab"]
        slab = pm.InverseGamma("horseshoe_slab", alpha=half, beta=half * a["scale_slab"] ** 2)
        scale = common * tau * local * pt.sqrt(slab / (slab + (tau * local) ** 2))
    return pm.Deterministic("slopes", standard * scale / width, dims="slope")


def shared_sds(design: Design, name: str, terms: Sequence[tuple[int, GroupTerm]], priors: Priors) -> TensorVariable:
    """Return the standard deviations of a factor's effects under R2D2M2: their shares of the explained variance.

    Parameters
    ----------
    design : Design
        The design.
    name : str
        The grouping factor.
    terms : sequence of (int, GroupTerm)
        Its random terms with their positions.
    priors : Priors
        Every prior.

    Returns
    -------
    TensorVariable (K,)
        One standard deviation per effect.
    """
    import pymc as pm
    import pytensor.tensor as pt

    common = pm.modelcontext(None)["joint_scale"]
    joint = [entry for entry in priors if entry.prior.name in JOINT]
    parts = []
    for i, term in terms:
        own = [entry for entry in priors if entry.kind == "sd" and entry.term == i]
        for position, column in enumerate(term.Z.T):
            entry = own[0 if is_homogeneous(term) else position]
            if entry.prior.name not in JOINT:
                parts.append(random_scalar(f"{entry.name}_own", entry.prior))
                continue
            at = next(k for k, candidate in enumerate(joint) if candidate is entry)
            parts.append(common[at] / effect_scale(column, design)[0])
    return pm.Deterministic(f"sd_{name}", pt.stack(parts), dims=f"{name}_effect")


# --- group effects -------------------------------------------------------------------------------------------------


def coefficients_of(design: Design, effects: Sequence[str]) -> TensorVariable | None:
    """Return the coefficients that carry the names of group effects, zero for effects without one.

    Parameters
    ----------
    design : Design
        Names of the coefficients.
    effects : sequence of str
        Names of the effects of a level.

    Returns
    -------
    TensorVariable (K,) or None
        None when no effect has a coefficient.
    """
    import pymc as pm
    import pytensor.tensor as pt

    names = list(design.coef_names)
    if not set(names) & set(effects):
        return None
    beta = pm.modelcontext(None)["beta"]
    return pt.stack([beta[names.index(name)] if name in names else pt.zeros(()) for name in effects])


def group_part(
    design: Design,
    factor: Factor,
    priors: Priors,
    centred: Sequence[str] = (),
    means: TensorVariable | None = None,
) -> TensorVariable:
    """Add the effects of one grouping factor and return Z b.

    Parameters
    ----------
    design : Design
        Its terms.
    factor : Factor
        The grouping factor.
    priors : Priors
        Every prior.
    centred : sequence of str
        Grouping factors and terms whose effects are parameters themselves.
    means : TensorVariable (K,), optional
        What centred levels are centred at, instead of zero.

    Returns
    -------
    TensorVariable (n,)
        Z b.
    """
    import pymc as pm
    import pytensor.tensor as pt

    name = factor.name
    terms = [(i, design.terms[i]) for i in factor.term_indices]
    sd = factor_sds(design, name, terms, priors)
    root = factor_root(name, terms, priors)
    dims = (name, f"{name}_effect")
    is_centred = [name in centred or str(term.term) in centred for _, term in terms]
    if len(set(is_centred)) == 1:
        effects = level_effects(name, len(factor.effects), sd, root, dims, centred=is_centred[0], means=means)
    else:
        parts, at = [], 0
        for number, ((_, term), one) in enumerate(zip(terms, is_centred, strict=True), start=1):
            part = slice(at, at + len(term.effects))
            at = part.stop
            own = None if root is None else root[part, part]
            parts.append(level_effects(f"{name}_{number}", len(term.effects), sd[part], own, (name, None), centred=one))
        effects = pm.Deterministic(f"b_{name}", pt.concatenate(parts, axis=1), dims=dims)
    if factor.Z.shape[1] == 1:
        column = factor.Z[:, 0]
        values = effects[factor.codes, 0]
        return values if (column == 1.0).all() else values * column
    return (effects[factor.codes] * factor.Z).sum(axis=-1)


def level_effects(
    name: str,
    count: int,
    sd: TensorVariable,
    root: TensorVariable | None,
    dims: tuple[str | None, ...],
    *,
    centred: bool,
    means: TensorVariable | None = None,
) -> TensorVariable:
    """Add the effects of all levels and return them.

    Parameters
    ----------
    name : str
        Ends the names of the new variables.
    count : int
        Effects of a level.
    sd : TensorVariable (count,)
        Their standard deviations.
    root : TensorVariable (count, count) or None
        Cholesky root of their correlation matrix.
    dims : tuple of str
        Dimensions: levels and effects.
    centred : bool
        Whether the effects are parameters themselves.
    means : TensorVariable (count,), optional
        Centred effects are sampled with these added, as `level_g`.

    Returns
    -------
    TensorVariable (J, count)
        The effects.
    """
    import pymc as pm
    import pytensor.tensor as pt

    named: dict[str, Any] = {"dims": dims} if None not in dims else {}
    shape: dict[str, Any] = named or {"shape": (len(pm.modelcontext(None).coords[dims[0]]), count)}
    scaled_root = None if root is None else sd[:, None] * root
    if centred:
        free, mean = (f"b_{name}", np.zeros(count)) if means is None else (f"level_{name}", means)
        if scaled_root is None:
            levels = pm.Normal(free, mu=mean, sigma=sd, **shape)
        else:
            levels = pm.MvNormal(free, mu=mean, chol=scaled_root, **shape)
        return levels if means is None else pm.Deterministic(f"b_{name}", levels - means, **named)
    standard = pm.Normal(f"z_{name}", mu=0.0, sigma=1.0, **shape)
    scaled = standard * sd if scaled_root is None else pt.dot(standard, scaled_root.T)
    return pm.Deterministic(f"b_{name}", scaled, **named)


def factor_sds(design: Design, name: str, terms: Sequence[tuple[int, GroupTerm]], priors: Priors) -> TensorVariable:
    """Add the standard deviations of a factor's effects.

    Parameters
    ----------
    design : Design
        The design.
    name : str
        The grouping factor.
    terms : sequence of (int, GroupTerm)
        Its random terms with their positions.
    priors : Priors
        Every prior.

    Returns
    -------
    TensorVariable (K,)
        One standard deviation per effect.
    """
    import pymc as pm
    import pytensor.tensor as pt

    if any(prior.name in JOINT for i, _ in terms for prior in priors.sd(i)):
        return shared_sds(design, name, terms, priors)
    if not any(is_homogeneous(term) for _, term in terms):
        effects = [effect for _, term in terms for effect in term.effects]
        flat = [prior for i, _ in terms for prior in priors.sd(i)]
        return random_vector(f"sd_{name}", [f"sd_{name}[{effect}]" for effect in effects], flat, f"{name}_effect")
    parts = []
    for i, term in terms:
        if is_homogeneous(term):
            one = random_scalar(f"sd_{name}[{', '.join(term.effects)}]", priors.sd(i)[0])
            parts += [one] * len(term.effects)
        else:
            parts += [
                random_scalar(f"sd_{name}[{effect}]", prior)
                for effect, prior in zip(term.effects, priors.sd(i), strict=True)
            ]
    return pm.Deterministic(f"sd_{name}", pt.stack(parts), dims=f"{name}_effect")


def factor_root(name: str, terms: Sequence[tuple[int, GroupTerm]], priors: Priors) -> TensorVariable | None:
    """Add the correlations of a factor's effects and return the Cholesky root of their matrix.

    Parameters
    ----------
    name : str
        The grouping factor.
    terms : sequence of (int, GroupTerm)
        Its random terms with their positions.
    priors : Priors
        Every prior.

    Returns
    -------
    TensorVariable (K, K) or None
        Lower triangular; None where all effects are independent.
    """
    import pymc as pm
    import pytensor.tensor as pt

    if not any(is_correlated(term) for _, term in terms):
        return None
    correlated = sum(is_correlated(term) for _, term in terms)
    blocks = []
    for number, (i, term) in enumerate(terms, start=1):
        suffix = name if correlated == 1 else f"{name}_{number}"
        blocks.append(term_root(suffix, term, priors.corr(i)))
    root = blocks[0] if len(blocks) == 1 else pt.linalg.block_diag(*blocks)
    pm.Deterministic(f"corr_{name}", pt.dot(root, root.T), dims=(f"{name}_effect", f"{name}_effect_bis"))
    return root


def term_root(suffix: str, term: GroupTerm, prior: Prior | None) -> TensorVariable:
    """Add the correlation parameters of one random term and return the root of its correlation matrix.

    Parameters
    ----------
    suffix : str
        Ends the names of the new variables.
    term : GroupTerm
        The random term.
    prior : Prior or None
        Its LKJ prior; None for a term without correlations.

    Returns
    -------
    TensorVariable (k, k)
        Lower triangular.
    """
    import pymc as pm
    import pytensor.tensor as pt

    k = len(term.effects)
    if prior is None:
        return pt.eye(k)
    eta = float(prior.args["eta"])
    if term.term.covariance == "us":
        return pm.LKJCorr(f"chol_{suffix}", n=k, eta=double(eta))
    lower, a, b = correlation_beta(term.term.covariance, k, eta)
    share = pm.Beta(f"rho01_{suffix}", alpha=double(a), beta=double(b))
    rho = pm.Deterministic(f"rho_{suffix}", lower + (1 - lower) * share)
    if term.term.covariance == "cs":
        matrix = rho + (1 - rho) * np.eye(k)
    else:
        matrix = rho ** np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    return pt.linalg.cholesky(matrix)


def correlation_beta(kind: str, k: int, eta: float) -> tuple[float, float, float]:
    """Return what LKJ means for a structure with one correlation: a beta distribution on its range.

    The density of LKJ(eta) is proportional to det(R)^(eta - 1). With one correlation rho in (lower, 1) and
    t = (rho - lower) / (1 - lower), compound symmetry has det R proportional to t (1 - t)^(k - 1), and the
    autoregressive structure (t (1 - t))^(k - 1).

    Parameters
    ----------
    kind : {"cs", "ar1"}
        Structure.
    k : int
        Number of effects.
    eta : float
        Shape.

    Returns
    -------
    lower, alpha, beta : float
        Lower end of the range and the beta distribution's parameters.

    Examples
    --------
    >>> correlation_beta("cs", 2, 2.0), correlation_beta("ar1", 2, 2.0)
    ((-1.0, 2.0, 2.0), (-1.0, 2.0, 2.0))
    """
    tail = (k - 1) * (eta - 1) + 1
    if kind == "cs":
        return -1.0 / (k - 1), eta, tail
    return -1.0, tail, tail


# --- response ------------------------------------------------------------------------------------------------------


def add_distribution(design: Design, seen: Observed, distribution: Any, parameters: Mapping[str, Any]) -> None:
    """Add the response, cut off at its limits where it is censored or truncated.

    Parameters
    ----------
    design : Design
        Limits of the response.
    seen : Observed
        The response.
    distribution : type
        A PyMC distribution.
    parameters : mapping
        Its parameters, in the rows used.
    """
    import pymc as pm

    if design.limits is not None:
        cut = pm.Censored if design.limits.kind == "censored" else pm.Truncated
        lower, upper = (seen.of(bound) for bound in (design.limits.lower, design.limits.upper))
        parameters = {"dist": distribution.dist(**parameters), "lower": lower, "upper": upper}
        distribution = cut
    distribution("y", **parameters, observed=seen.values, dims=seen.dims)
    if design.survey_weights is not None:
        density = pm.logp(distribution.dist(**parameters), seen.values)
        pm.Potential("survey_weights", (seen.of(design.survey_weights - 1.0) * density).sum())


def add_response(
    design: Design, family: Family, priors: Priors, eta: TensorVariable, replaceable: bool = False
) -> None:
    """Add the response given the linear predictor.

    Parameters
    ----------
    design : Design
        Response and weights.
    family : Family
        Its distribution.
    priors : Priors
        Every prior.
    eta : TensorVariable (n,)
        The linear predictor.
    replaceable : bool, default False
        Whether rows and response are data.
    """
    import pymc as pm

    if family.is_gaussian_identity:
        sigma = pm.modelcontext(None).named_vars.get("sigma")
        if "sigma" in design.auxiliary:
            sigma = parameter_by_formula(design, priors, "sigma")
        elif sigma is None:
            assert priors.sigma is not None
            sigma = random_scalar("sigma", priors.sigma)
        scale = sigma if design.weights is None else sigma / np.sqrt(design.weights)
        if design.residuals is not None:
            eta, scale = residual_conditionals(design, priors, eta, scale)
        seen = observe(design, np.asarray(design.y), replaceable)
        add_distribution(design, seen, pm.Normal, {"mu": seen.of(eta), "sigma": seen.of(scale)})
        return
    from bayeslmm.bayes.bambi import add_bambi_response

    add_bambi_response(design, family, priors, eta, replaceable)


def residual_conditionals(
    design: Design, priors: Priors, eta: TensorVariable, scale: TensorVariable
) -> tuple[TensorVariable, TensorVariable]:
    """Add ratios and correlation of the residuals; return mean and SD of each row given those before it in its group.

    Parameters
    ----------
    design : Design
        Response and residual structure.
    priors : Priors
        Every prior.
    eta : TensorVariable (n,)
        Linear predictor.
    scale : TensorVariable
        Residual SD of the reference level.

    Returns
    -------
    mean, sd : TensorVariable (n,)
        Their product of normals over the rows is the joint normal density of the response.
    """
    import pymc as pm
    import pytensor.tensor as pt

    assert design.residuals is not None
    rows = ResidualRows.from_design(design)
    entries = [entry for entry in priors.residual if entry.kind == "ratio"]
    if entries:
        names, chosen = [entry.name for entry in entries], [entry.prior for entry in entries]
        ratios = random_vector("sigma_ratio", names, chosen, "residual_level")
        scale = scale * pt.concatenate([np.ones(1), ratios])[rows.strata]
    if rows.kind == "independent":
        return eta, scale
    prior = next(entry.prior for entry in priors.residual if entry.kind == "rho")
    if prior.name == "Uniform":
        rho = random_scalar("rho", prior)
    else:
        inside = getattr(pm, prior.name).dist(**{key: double(value) for key, value in prior.args.items()})
        rho = pm.Truncated("rho", inside, lower=rows.lowest, upper=1.0)
    before, count = rows.previous
    later = before >= 0
    standard = (np.asarray(design.y) - eta) / scale
    if rows.kind == "ar1":
        gap = np.where(later, rows.position - rows.position[before], 1)
        weight, variance = rho**gap, 1 - rho ** (2 * gap)
        past = standard[before]
    else:
        cumulative = pt.cumsum(standard[rows.order])[np.argsort(rows.order)] - standard
        first = rows.order[np.arange(rows.n) - count[rows.order]][np.argsort(rows.order)]
        past = cumulative - cumulative[first]
        weight = rho / (1 + (count - 1) * rho)
        variance = (1 - rho) * (1 + count * rho) / (1 + (count - 1) * rho)
    mean = eta + scale * pt.switch(later, weight * past, 0.0)
    return mean, scale * pt.sqrt(pt.switch(later, variance, 1.0))
