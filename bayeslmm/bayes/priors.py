"""Priors: what a user may say, what is assumed when nothing is said, and the table of what is in effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, PriorError, did_you_mean, listing
from bayeslmm.families import auxiliary_link
from bayeslmm.formula.design import has_thresholds
from bayeslmm.likelihood.residual import ResidualRows
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design, GroupTerm


@dataclass(frozen=True)
class PriorFamily:
    """A family of prior distributions the exact engine knows.

    Parameters
    ----------
    code : int
        Its number in `bayeslmm.bayes.densities`.
    parameters : tuple of str
        Names of its parameters, as in PyMC.
    positive : tuple of str
        Those that must be above zero.
    support : {"real", "positive", "correlation"}
        Where it has mass.
    """

    code: int
    parameters: tuple[str, ...]
    positive: tuple[str, ...]
    support: str


FAMILIES: Mapping[str, PriorFamily] = {
    "Flat": PriorFamily(0, (), (), "real"),
    "Normal": PriorFamily(1, ("mu", "sigma"), ("sigma",), "real"),
    "StudentT": PriorFamily(2, ("nu", "mu", "sigma"), ("nu", "sigma"), "real"),
    "Cauchy": PriorFamily(3, ("alpha", "beta"), ("beta",), "real"),
    "Laplace": PriorFamily(4, ("mu", "b"), ("b",), "real"),
    "HalfFlat": PriorFamily(10, (), (), "positive"),
    "HalfNormal": PriorFamily(11, ("sigma",), ("sigma",), "positive"),
    "HalfStudentT": PriorFamily(12, ("nu", "sigma"), ("nu", "sigma"), "positive"),
    "HalfCauchy": PriorFamily(13, ("beta",), ("beta",), "positive"),
    "Exponential": PriorFamily(14, ("lam",), ("lam",), "positive"),
    "Gamma": PriorFamily(15, ("alpha", "beta"), ("alpha", "beta"), "positive"),
    "InverseGamma": PriorFamily(16, ("alpha", "beta"), ("alpha", "beta"), "positive"),
    "LogNormal": PriorFamily(17, ("mu", "sigma"), ("sigma",), "positive"),
    "Uniform": PriorFamily(18, ("lower", "upper"), (), "positive"),
    "SqrtInverseGamma": PriorFamily(19, ("alpha", "beta"), ("alpha", "beta"), "positive"),
    "LKJ": PriorFamily(20, ("eta",), ("eta",), "correlation"),
}
"""Families the exact engine knows. `SqrtInverseGamma` is a standard deviation whose square is inverse gamma, that is,
BUGS' gamma prior on the precision."""

JOINT: Mapping[str, PriorFamily] = {
    "R2D2M2": PriorFamily(
        -1, ("mean_R2", "prec_R2", "concentration"), ("mean_R2", "prec_R2", "concentration"), "joint"
    ),
    "RegularisedHorseshoe": PriorFamily(
        -2, ("scale_global", "df_global", "df_local", "scale_slab", "df_slab"),
        ("scale_global", "df_global", "df_local", "scale_slab", "df_slab"), "joint",
    ),
}  # fmt: skip
"""Priors of many coefficients together. `R2D2M2` shares the explained variance out among all slopes and group SDs
(Aguilar & Bürkner 2023); `RegularisedHorseshoe` shrinks most slopes to nearly zero and lets a few escape to a slab
(Piironen & Vehtari 2017). Scales are per SD of the column, in units of sigma (of the link without one)."""

DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "R2D2M2": {"mean_R2": 0.5, "prec_R2": 2.0, "concentration": 0.5},
    "RegularisedHorseshoe": {
        "scale_global": 0.1,
        "df_global": 1.0,
        "df_local": 1.0,
        "scale_slab": 2.0,
        "df_slab": 4.0,
    },
    "Normal": {"mu": 0.0, "sigma": 1.0},
    "StudentT": {"mu": 0.0, "sigma": 1.0},
    "Laplace": {"mu": 0.0},
    "LogNormal": {"mu": 0.0, "sigma": 1.0},
    "HalfStudentT": {"sigma": 1.0},
    "LKJ": {"eta": 2.0},
}
ALIASES: Mapping[str, str] = {"LKJCorr": "LKJ", "LKJCholeskyCov": "LKJ", "Lognormal": "LogNormal"}


class Prior:
    """A prior distribution by name, with its parameters; used as given, never rescaled.

    The signature is bambi's, and `bambi.Prior` objects are accepted wherever this is.

    Parameters
    ----------
    name : str
        Name of a PyMC distribution, "LKJ" for correlations, or "SqrtInverseGamma" for a standard deviation whose
        square is inverse gamma.
    auto_scale : bool, default False
        Only for the sake of bambi's signature: parameters are never rescaled.
    dist : callable, optional
        Makes the PyMC distribution itself; such a prior needs the PyMC engine.
    **parameters : float or Prior
        Parameters as PyMC calls them, in units of the data.

    Examples
    --------
    >>> Prior("HalfNormal", sigma=5)
    HalfNormal(sigma=5)
    """

    __slots__ = ("args", "auto_scale", "dist", "name")

    name: str
    args: Mapping[str, Any]
    auto_scale: bool
    dist: Callable[..., Any] | None

    def __init__(
        self, name: str, auto_scale: bool = False, dist: Callable[..., Any] | None = None, **parameters: Any
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "args", dict(parameters))
        object.__setattr__(self, "auto_scale", auto_scale)
        object.__setattr__(self, "dist", dist)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Prior does not change; make another one")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.name, self.dist, dict(self.args))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prior):
            return NotImplemented
        return self.name == other.name and self.args == other.args and self.dist is other.dist

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted((key, repr(value)) for key, value in self.args.items()))))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={_number(value)}' for key, value in self.args.items())})"

    @property
    def is_normal(self) -> bool:
        """Whether it is normal or flat: coefficients with such a prior are integrated out exactly."""
        return self.name in ("Normal", "Flat") and self.dist is None

    @property
    def is_known(self) -> bool:
        """Whether the exact engine knows the family."""
        return self.name in FAMILIES and self.dist is None

    @property
    def coded(self) -> tuple[int, NDArray[np.float64]]:
        """Family number and three parameters for compiled code."""
        family = FAMILIES[self.name]
        values = np.zeros(3)
        for i, parameter in enumerate(family.parameters):
            values[i] = self.args[parameter]
        return family.code, values

    def logpdf(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the normalised log density at each x.

        Parameters
        ----------
        x : array_like
            Where.

        Returns
        -------
        ndarray
            Log densities; -inf outside the support, 0 for improper priors.

        Examples
        --------
        >>> Prior("HalfNormal", sigma=1.0).logpdf([0.0, -1.0]).round(4)
        array([-0.2258,    -inf])
        """
        from bayeslmm.bayes.densities import log_density

        code, (a, b, c) = checked(self, self.name).coded
        points = np.asarray(x, dtype=np.float64)
        return np.array([log_density(code, a, b, c, point)[0] for point in points.ravel()]).reshape(points.shape)


def _rebuild(name: str, dist: Callable[..., Any] | None, parameters: Mapping[str, Any]) -> Prior:
    return Prior(name, dist=dist, **parameters)


def _number(value: Any) -> str:
    if isinstance(value, Prior):
        return repr(value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return repr(value)
    return f"{float(array):.4g}" if array.ndim == 0 else np.array2string(array, precision=4, separator=", ")


def with_parameters(name: str, parameters: Mapping[str, Any], dist: Callable[..., Any] | None = None) -> Prior:
    """Return a prior from a mapping of its parameters.

    Parameters
    ----------
    name : str
        The family.
    parameters : mapping
        Its parameters.
    dist : callable, optional
        Makes the PyMC distribution itself.

    Returns
    -------
    Prior
        The prior.
    """
    return Prior(name, False, dist, **parameters)


def as_prior(value: Any, where: str) -> Prior:
    """Return a Prior from ours, bambi's (by its `name` and `args`), or a plain number's absence.

    Parameters
    ----------
    value : Prior or bambi.Prior
        What the user gave.
    where : str
        The key it was given for, for the message.

    Returns
    -------
    Prior
        Ours.

    Raises
    ------
    PriorError
        If it is not a prior.

    Examples
    --------
    >>> as_prior(Prior("Exponential", scale=2), "sigma")
    Exponential(scale=2)
    """
    if isinstance(value, Prior):
        return value
    name, args = getattr(value, "name", None), getattr(value, "args", None)
    if isinstance(name, str) and isinstance(args, Mapping):
        inner = {
            key: as_prior(item, where) if isinstance(getattr(item, "args", None), Mapping) else item
            for key, item in args.items()
        }
        return with_parameters(name, inner, getattr(value, "dist", None))
    raise PriorError(
        f"the prior of {where!r} is {value!r}, a {type(value).__name__}, not a prior.\n"
        '  Write for example blm.Prior("HalfNormal", sigma=5).'
    )


def checked(prior: Prior, where: str, support: str | None = None) -> Prior:
    """Return the prior with its parameters complete and possible, in the exact engine's parametrisation.

    Families the exact engine does not know are left to PyMC, which checks them when the model is built.

    Parameters
    ----------
    prior : Prior
        What the user gave.
    where : str
        The key it was given for, for messages.
    support : {"real", "positive", "correlation"}, optional
        Support the parameter has.

    Returns
    -------
    Prior
        The same distribution.

    Raises
    ------
    PriorError
        If a parameter is missing, unknown or impossible, or the support is wrong.

    Examples
    --------
    >>> checked(Prior("Exponential", scale=2), "sigma")
    Exponential(lam=0.5)
    """
    prior = replace_name(prior, ALIASES.get(prior.name, prior.name))
    if prior.dist is not None:
        return prior
    if prior.name not in FAMILIES and prior.name not in JOINT:
        _check_pymc_knows(prior, where)
        return prior
    family = JOINT[prior.name] if prior.name in JOINT else FAMILIES[prior.name]
    if prior.name in FAMILIES:
        _check_support(prior, family, where, support)
    args = {key: _as_float(value, prior, key, where) for key, value in canonical(prior.name, prior.args).items()}
    args = {**DEFAULTS.get(prior.name, {}), **args}
    for key in args:
        if key not in family.parameters:
            hint = did_you_mean(key, family.parameters)
            raise PriorError(
                f"the prior of {where!r} is {prior!r}, but {prior.name} has no parameter {key!r}.\n"
                f"  Its parameters: {listing(family.parameters)}. {hint}".rstrip()
            )
    for key in family.parameters:
        if key not in args:
            raise PriorError(f"the prior of {where!r} is {prior!r}: parameter {key!r} of {prior.name} is missing.")
        if key in family.positive and not args[key] > 0:
            raise PriorError(f"the prior of {where!r} is {prior!r}: {key} must be above 0.")
    if prior.name == "R2D2M2" and not args["mean_R2"] < 1:
        raise PriorError(f"the prior of {where!r} is {prior!r}: mean_R2 must be below 1.")
    if prior.name == "Uniform" and not args["lower"] < args["upper"]:
        raise PriorError(f"the prior of {where!r} is {prior!r}: lower must be below upper.")
    if prior.name == "Uniform" and support == "positive" and args["lower"] < 0:
        raise PriorError(f"the prior of {where!r} is {prior!r}, but a standard deviation is never below 0.")
    return with_parameters(prior.name, {key: args[key] for key in family.parameters})


def replace_name(prior: Prior, name: str) -> Prior:
    """Return the same prior under another name.

    Parameters
    ----------
    prior : Prior
        A prior.
    name : str
        The name.

    Returns
    -------
    Prior
        Unchanged when the name is its own.
    """
    return prior if prior.name == name else Prior(name, dist=prior.dist, **prior.args)


def _check_pymc_knows(prior: Prior, where: str) -> None:
    from importlib.util import find_spec

    known = {**FAMILIES, **JOINT}
    if find_spec("pymc") is not None:
        import pymc as pm

        known = dict.fromkeys(pm.distributions.__all__, FAMILIES["Flat"]) | known
    if prior.name not in known:
        hint = did_you_mean(prior.name, known)
        raise PriorError(
            f"the prior of {where!r} is {prior!r}, but PyMC has no distribution {prior.name!r}. {hint}".rstrip()
        )


def _check_support(prior: Prior, family: PriorFamily, where: str, support: str | None) -> None:
    if support is None or family.support == support or (support == "real" and family.support == "positive"):
        return
    if support == "positive":
        half = {"Normal": "HalfNormal", "StudentT": "HalfStudentT", "Cauchy": "HalfCauchy", "Flat": "HalfFlat"}
        way_out = half.get(prior.name, "HalfNormal")
        raise PriorError(
            f"the prior of {where!r} is {prior!r}, which has mass where a standard deviation cannot be.\n"
            f"  Did you mean {way_out!r}?"
        )
    if support == "correlation":
        raise PriorError(
            f"the prior of {where!r} is {prior!r}, but correlations take an LKJ prior: "
            'blm.Prior("LKJ", eta=2); eta=1 is uniform, larger is nearer to independence.'
        )
    raise PriorError(f"the prior of {where!r} is {prior!r}, which is for correlations.")


def _as_float(value: Any, prior: Prior, key: str, where: str) -> float:
    try:
        number = float(np.asarray(value, dtype=np.float64).reshape(()))
    except (TypeError, ValueError):
        raise PriorError(f"the prior of {where!r} is {prior!r}: {key} must be one number.") from None
    if not np.isfinite(number):
        raise PriorError(f"the prior of {where!r} is {prior!r}: {key} must be finite.")
    return number


def canonical(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in the one parametrisation compiled code uses.

    Parameters
    ----------
    name : str
        Family.
    args : mapping
        Parameters in any of PyMC's parametrisations.

    Returns
    -------
    dict
        Parameters of `FAMILIES`.

    Examples
    --------
    >>> canonical("Gamma", {"mu": 2.0, "sigma": 1.0})
    {'alpha': 4.0, 'beta': 2.0}
    """
    args = dict(args)
    if name == "Exponential" and "scale" in args:
        return {"lam": 1.0 / float(args["scale"])} if float(args["scale"]) != 0 else {"lam": 0.0}
    if {"mu", "sigma"} == set(args) and name == "Gamma":
        mu, sigma = float(args["mu"]), float(args["sigma"])
        return {"alpha": (mu / sigma) ** 2, "beta": mu / sigma**2}
    if {"mu", "sigma"} == set(args) and name == "InverseGamma":
        mu, sigma = float(args["mu"]), float(args["sigma"])
        alpha = (mu / sigma) ** 2 + 2
        return {"alpha": alpha, "beta": mu * (alpha - 1)}
    if "tau" in args and "sigma" not in args and name in ("Normal", "HalfNormal", "LogNormal"):
        args["sigma"] = float(args.pop("tau")) ** -0.5
    return args


def pc_prior(upper: float, probability: float = 0.05) -> Prior:
    """Return the penalised-complexity prior of a standard deviation: P(SD > upper) = probability.

    Parameters
    ----------
    upper : float
        A value the standard deviation is unlikely to exceed, in units of the linear predictor.
    probability : float, default 0.05
        How unlikely.

    Returns
    -------
    Prior
        Exponential with rate -log(probability) / upper.

    Raises
    ------
    PriorError
        If `upper` is not positive or `probability` is not between 0 and 1.

    Examples
    --------
    >>> pc_prior(10.0, 0.05)
    Exponential(lam=0.2996)

    References
    ----------
    Simpson, Rue, Riebler, Martins & Sørbye (2017), *Statistical Science* 32(1).
    """
    if not (upper > 0 and 0 < probability < 1):
        raise PriorError(f"pc_prior({upper}, {probability}): upper must be above 0 and probability between 0 and 1.")
    return Prior("Exponential", lam=-float(np.log(probability)) / upper)


# --- priors of a model ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PriorEntry:
    """The prior of one parameter of a model.

    Parameters
    ----------
    name : str
        The parameter: a coefficient, ``sd_class[IQ]``, ``corr_class``, ``sigma``.
    kind : {"intercept", "coefficient", "sd", "corr", "sigma", "ratio", "rho", "aux", "distributional"}
        What it is; "distributional" is a coefficient of a further parameter.
    prior : Prior
        The prior in effect.
    note : str
        Where it comes from: "given", or the reason of the default.
    term : int
        Position of the random term, for standard deviations and correlations; -1 otherwise.
    parameter : str
        The further parameter whose coefficient it is; empty otherwise.
    """

    name: str
    kind: str
    prior: Prior
    note: str
    term: int = -1
    parameter: str = ""


@dataclass(frozen=True, repr=False)
class Priors(Tabular):
    """Every prior of a model, defaults included; prints as a table.

    Parameters
    ----------
    entries : tuple of PriorEntry
        Coefficients in the design's order, then standard deviations and correlations term by term, then sigma and
        what else the family has.
    centred : bool
        Whether there is an intercept, whose prior is then that of the intercept for predictors at their means.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> print(blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff")).priors)
                        Prior                           Reason
    Intercept           Normal(mu=1528, sigma=157.6)    mean(y), 2.5 SD(y)
    sd_Batch[Intercept] HalfStudentT(nu=3, sigma=63.02) SD(y)
    sigma               HalfStudentT(nu=3, sigma=63.02) SD(y)
    Intercept: for predictors at their means.
    """

    entries: tuple[PriorEntry, ...]
    centred: bool = field(default=True)

    def __iter__(self) -> Iterator[PriorEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> Prior:
        for entry in self.entries:
            if entry.name == name:
                return entry.prior
        names = [entry.name for entry in self.entries]
        raise PriorError(
            f"there is no parameter {name!r}.\n  Parameters: {listing(names)}. {did_you_mean(name, names)}"
        )

    @property
    def coefficients(self) -> tuple[Prior, ...]:
        """Priors of the coefficients, in the design's order; that of an intercept is for centred predictors."""
        return tuple(entry.prior for entry in self.entries if entry.kind in ("intercept", "coefficient"))

    def sd(self, term: int) -> tuple[Prior, ...]:
        """Return the priors of the standard deviations of a term: one per effect, or one when they are all equal.

        Parameters
        ----------
        term : int
            Position of the random term.

        Returns
        -------
        tuple of Prior
            In the order of the effects.
        """
        return tuple(entry.prior for entry in self.entries if entry.kind == "sd" and entry.term == term)

    def corr(self, term: int) -> Prior | None:
        """Return the prior of the correlations of a term, or None when it has none.

        Parameters
        ----------
        term : int
            Position of the random term.

        Returns
        -------
        Prior or None
            An LKJ prior.
        """
        return next((entry.prior for entry in self.entries if entry.kind == "corr" and entry.term == term), None)

    @property
    def sigma(self) -> Prior | None:
        """Prior of the residual standard deviation; None for families without one."""
        return next((entry.prior for entry in self.entries if entry.kind == "sigma"), None)

    @property
    def residual(self) -> tuple[PriorEntry, ...]:
        """Priors of ratios of residual standard deviations, then of the residual correlation."""
        return tuple(entry for entry in self.entries if entry.kind in ("ratio", "rho"))

    @property
    def aux(self) -> dict[str, Prior]:
        """Priors of the family's further parameters, by name."""
        return {entry.name: entry.prior for entry in self.entries if entry.kind == "aux"}

    @property
    def distributional(self) -> dict[str, tuple[Prior, ...]]:
        """Priors of the coefficients of further parameters that have a formula, by parameter."""
        found: dict[str, tuple[Prior, ...]] = {}
        for entry in self.entries:
            if entry.kind == "distributional":
                found[entry.parameter] = (*found.get(entry.parameter, ()), entry.prior)
        return found

    @property
    def unknown(self) -> tuple[PriorEntry, ...]:
        """Entries the exact engine does not know; one is enough to need the PyMC engine."""
        return tuple(
            entry
            for entry in self.entries
            if not entry.prior.is_known
            or (entry.kind in ("intercept", "coefficient") and FAMILIES[entry.prior.name].support != "real")
            or (entry.kind in ("intercept", "coefficient") and entry.prior.name == "Uniform")
        )

    def table(self) -> Table:
        """Return the table that is printed.

        Returns
        -------
        Table
            One row per parameter: prior and reason.
        """
        frame = self.to_pandas()[["prior", "reason"]].rename(columns={"prior": "Prior", "reason": "Reason"})
        centred = "Thresholds" if "threshold" in self.aux else "Intercept"
        notes = (f"{centred}: for predictors at their means.",) if self.centred else ()
        return Table(frame.rename_axis(None), notes=notes)

    def to_pandas(self) -> pd.DataFrame:
        """Return parameter, kind, prior and reason, one row per parameter.

        Returns
        -------
        DataFrame
            Indexed by parameter.
        """
        rows = [(entry.kind, repr(entry.prior), entry.note) for entry in self.entries]
        index = pd.Index([entry.name for entry in self.entries], name="parameter")
        return pd.DataFrame(rows, index=index, columns=["kind", "prior", "reason"])


def resolve_priors(design: Design, family: Family, user: Mapping[str, Any] | None = None) -> Priors:
    """Return every prior of a model: defaults from the data's scale, replaced by what the user said.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.
    user : mapping of str to Prior, optional
        Keys: "Intercept" (for centred predictors), a coefficient's name or "beta[name]", "beta" (all slopes), "sd"
        (every group SD), "sd_class" (all of a factor), "sd_class[IQ]" (one), "corr", "corr_class", "sigma", names of
        further parameters of the family, and bambi's "1|class" with a Normal prior whose sigma is a prior.

    Returns
    -------
    Priors
        The table of priors.

    Raises
    ------
    PriorError
        If a key names nothing in the model, or a prior is impossible.

    Notes
    -----
    Defaults are weakly informative and move with the units of the data. Intercept: normal around the mean response
    with 2.5 SDs. Slopes: normal with 2.5 SDs of the response per SD of the predictor. Group SDs: half-t with 3 degrees
    of freedom and a scale of one SD of the response per SD of the effect's column, whose flat top lets the data speak
    and whose tail lets them contradict. Correlations: LKJ(2), which shies away from ±1 where few groups leave the
    likelihood flat. Sigma: half-t with 3 degrees of freedom and the SD of the response.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> schools = blm.datasets.load("nlschools")
    >>> m = blm.model("lang ~ IQ + (IQ | class)", schools, priors={"sd": blm.Prior("HalfNormal", sigma=5)})
    >>> m.priors["sd_class[IQ]"]
    HalfNormal(sigma=5)
    """
    entries = list(default_entries(design, family))
    keys = _keys(design, entries)
    for key, value in sorted((user or {}).items(), key=lambda item: _rank(item[0], keys)):
        _apply(entries, keys, key, value)
    return Priors(tuple(entries), centred=has_intercept(design) or has_thresholds(family.name))


def has_intercept(design: Design) -> bool:
    """Return whether the design has an intercept.

    Parameters
    ----------
    design : Design
        The design.

    Returns
    -------
    bool
        True when a coefficient is called "Intercept".
    """
    return "Intercept" in design.coef_names


# --- defaults ------------------------------------------------------------------------------------------------------

GROUP_DF = 3.0
SLOPE_WIDTH = 2.5
LKJ_SHAPE = 2.0
DISTRIBUTIONAL_WIDTH = 1.5


def default_entries(design: Design, family: Family) -> Iterator[PriorEntry]:
    """Yield the default prior of every parameter, scaled by the data.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.

    Yields
    ------
    PriorEntry
        Coefficients, group SDs and correlations, then sigma or the family's further parameters.
    """
    centre, scale, words = response_scale(design, family)
    for name, column in zip(design.coef_names, design.condensed.X.T, strict=True):
        if name == "Intercept":
            yield PriorEntry(
                name,
                "intercept",
                Prior("Normal", mu=centre, sigma=SLOPE_WIDTH * scale),
                f"{words.centre}, 2.5 {words.scale}",
            )
            continue
        spread, spread_word = column_scale(column, design)
        yield PriorEntry(
            name,
            "coefficient",
            Prior("Normal", mu=0.0, sigma=SLOPE_WIDTH * scale / spread),
            f"2.5 {words.scale} per {spread_word} of the column",
        )
    for index, term in enumerate(design.condensed.terms):
        yield from _term_entries(index, term, design, scale, words.scale)
    scales = tuple(_scale_entries(family, scale, words.scale))
    known = [entry.name for entry in scales if entry.name != "threshold"]
    for name in design.auxiliary:
        if name not in known:
            hint = did_you_mean(name, known)
            raise PriorError(
                f"the family {family.name!r} has no parameter {name!r} to give a formula to.\n"
                f"  Its further parameters: {listing(known) or 'none'}. {hint}".rstrip()
            )
    for entry in scales:
        if entry.name in design.auxiliary:
            yield from _distributional_entries(design.auxiliary[entry.name], entry, family)
        else:
            yield entry
    yield from _residual_entries(design)


@dataclass(frozen=True)
class ScaleWords:
    """How the scale of the response is named in the table of priors."""

    centre: str
    scale: str


def response_scale(design: Design, family: Family) -> tuple[float, float, ScaleWords]:
    """Return centre and scale of the linear predictor that the data suggest.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family.

    Returns
    -------
    centre, scale : float
        Mean and SD of the response for an identity link; otherwise the link of the overall mean, and 1.
    words : ScaleWords
        Their names.

    Raises
    ------
    DataError
        If the response is constant.
    """
    rows = design.condensed
    y = np.asarray(rows.y, dtype=np.float64)
    mean, spread = design.moments(y)
    logged = "lognormal" in family.name
    if logged and np.any(y > 0):
        logs = np.log(y[y > 0])
        mean, spread = float(logs.mean()), float(logs.std(ddof=1)) if len(logs) > 1 else 0.0
    shift = 0.0 if rows.offset is None else design.moments(rows.offset)[0]
    if family.link == "identity":
        if not spread > 0:
            raise DataError("the response is constant: its scale, from which default priors are made, is zero.")
        name = "log y" if logged else "y"
        centre = f"mean({name})" if shift == 0 else f"mean({name} - offset)"
        return mean - shift, spread, ScaleWords(centre, f"SD({name})")
    if family.link == "log":
        return (np.log(mean) if mean > 0 else 0.0) - shift, 1.0, ScaleWords("log mean(y)", "units of the log mean")
    return 0.0 - shift, 1.0, ScaleWords("0", f"units of the {family.link}")


def column_scale(column: NDArray[np.float64], design: Design) -> tuple[float, str]:
    """Return the SD of a column and its name, or 1 where a column is constant.

    Parameters
    ----------
    column : ndarray (n,)
        A column of `design.condensed`.
    design : Design
        The formula met by data.

    Returns
    -------
    float, str
        Scale and its name.
    """
    spread = design.moments(column)[1]
    if spread > 1e-12 * max(1.0, float(np.abs(column).max(initial=0.0))):
        return spread, "SD"
    return 1.0, "unit"


def effect_scale(column: NDArray[np.float64], design: Design) -> tuple[float, str]:
    """Return the scale of an effect's column: 1 for an intercept or indicator, otherwise its SD.

    Parameters
    ----------
    column : ndarray (n,)
        A column of Z of `design.condensed`.
    design : Design
        The formula met by data.

    Returns
    -------
    float, str
        Scale and its name.
    """
    if design.is_indicator(column):
        return 1.0, "unit"
    return column_scale(column, design)


def _term_entries(index: int, term: GroupTerm, design: Design, scale: float, word: str) -> Iterator[PriorEntry]:
    scales = [effect_scale(column, design) for column in term.Z.T]
    if is_homogeneous(term):
        shared = "a typical level" if term.term.structure else "one for all effects"
        spread = 1.0 if term.term.structure else float(np.mean([value for value, _ in scales]))
        prior = Prior("HalfStudentT", nu=GROUP_DF, sigma=scale / spread)
        yield PriorEntry(f"sd_{term.factor}", "sd", prior, f"{word}, {shared}", index)
    else:
        for effect, (spread, spread_word) in zip(term.effects, scales, strict=True):
            prior = Prior("HalfStudentT", nu=GROUP_DF, sigma=scale / spread)
            reason = word if spread_word == "unit" else f"{word} per {spread_word} of the column"
            yield PriorEntry(f"sd_{term.factor}[{effect}]", "sd", prior, reason, index)
    if is_correlated(term):
        yield PriorEntry(f"corr_{term.factor}", "corr", Prior("LKJ", eta=LKJ_SHAPE), "shies away from ±1", index)


def is_homogeneous(term: GroupTerm) -> bool:
    """Return whether all effects of a term share one standard deviation.

    Parameters
    ----------
    term : GroupTerm
        A random term met by data.

    Returns
    -------
    bool
        False for a single effect, whose standard deviation has a name of its own.
    """
    return bool(term.term.hom) and len(term.effects) > 1


def is_correlated(term: GroupTerm) -> bool:
    """Return whether effects of one level of a term may be correlated.

    Parameters
    ----------
    term : GroupTerm
        A random term met by data.

    Returns
    -------
    bool
        Whether it has correlations.
    """
    return term.term.covariance != "diag" and len(term.effects) > 1


def _distributional_entries(part: Design, constant: PriorEntry, family: Family) -> Iterator[PriorEntry]:
    """Yield priors of the coefficients of a further parameter, on the scale of its link."""
    name, link = constant.name, auxiliary_link(constant.name)
    in_units = constant.prior.name == "HalfStudentT" and link == "log"
    centre = float(np.log(constant.prior.args["sigma"])) if in_units else 0.0
    for coefficient, column in zip(part.coef_names, part.X.T, strict=True):
        if coefficient == "Intercept":
            prior = Prior("Normal", mu=centre, sigma=DISTRIBUTIONAL_WIDTH)
            note = f"log {constant.note}" if in_units else f"units of the {link}"
        else:
            spread, word = column_scale(column, part)
            prior, note = Prior("Normal", mu=0.0, sigma=1.0 / spread), f"units of the {link} per {word} of the column"
        yield PriorEntry(f"{name}_{coefficient}", "distributional", prior, note, parameter=name)


def _scale_entries(family: Family, scale: float, word: str) -> Iterator[PriorEntry]:
    if family.name in WITH_SIGMA:
        yield PriorEntry("sigma", "sigma", Prior("HalfStudentT", nu=GROUP_DF, sigma=scale), word)
    if family.name not in ("gaussian", "bernoulli", "binomial", "poisson"):
        from bayeslmm.bayes.bambi import auxiliary_defaults

        for name, prior in auxiliary_defaults(family).items():
            if name == "sigma" and family.name in WITH_SIGMA:
                continue
            power = IN_UNITS_OF_Y.get((family.name, name))
            if power is not None and family.link == "identity":
                half = Prior("HalfStudentT", nu=GROUP_DF, sigma=scale**power)
                yield PriorEntry(name, "aux", half, word if power > 0 else f"1 / {word}")
                continue
            if name == "threshold":
                note = f"2.5 {word}, centres spread from -2 to 2"
                yield PriorEntry(name, "aux", Prior("Normal", mu=0.0, sigma=SLOPE_WIDTH), note)
                continue
            yield PriorEntry(name, "aux", as_prior(prior, name), "bambi's default")


def _residual_entries(design: Design) -> Iterator[PriorEntry]:
    if design.residuals is None:
        return
    for name in design.residuals.parameter_names:
        if name != "rho":
            yield PriorEntry(name, "ratio", Prior("LogNormal", mu=0.0, sigma=1.0), "between 1/7 and 7 times sigma")
        else:
            lowest = round(ResidualRows.from_design(design).lowest, 12)
            yield PriorEntry(name, "rho", Prior("Uniform", lower=lowest, upper=1.0), "all values it can have")


WITH_SIGMA = ("gaussian", "t", "exgaussian", "lognormal", "hurdle_lognormal")
IN_UNITS_OF_Y = {("laplace", "b"): 1, ("exgaussian", "nu"): 1, ("asymmetriclaplace", "b"): -1}
"""Further parameters in units of the response, and to which power."""


# --- what the user said --------------------------------------------------------------------------------------------


def _keys(design: Design, entries: Sequence[PriorEntry]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return for each key a user may write how specific it is, and the entries it stands for."""

    def where(*kinds: str, terms: Sequence[int] | None = None) -> tuple[int, ...]:
        return tuple(
            i for i, entry in enumerate(entries) if entry.kind in kinds and (terms is None or entry.term in terms)
        )

    keys: dict[str, tuple[int, tuple[int, ...]]] = {
        "beta": (0, where("coefficient")),
        "sd": (0, where("sd")),
        "corr": (0, where("corr")),
        "sigma_ratio": (0, where("ratio")),
    }
    for factor in dict.fromkeys(term.factor for term in design.terms):
        terms = [i for i, term in enumerate(design.terms) if term.factor == factor]
        keys[f"sd_{factor}"] = (1, where("sd", terms=terms))
        keys[f"corr_{factor}"] = (1, where("corr", terms=terms))
        for i in terms:
            for position, effect in enumerate(design.terms[i].effects):
                found = where("sd", terms=[i])
                found = found if is_homogeneous(design.terms[i]) else (found[position],)
                label = "1" if effect == "Intercept" else effect
                keys[f"{label}|{factor}"] = (2, found)
                column = effect.split("[", 1)[0]
                if column != effect:
                    keys[f"{column}|{factor}"] = (2, (*keys.get(f"{column}|{factor}", (2, ()))[1], *found))
    for i, entry in enumerate(entries):
        if entry.name not in keys:
            keys[entry.name] = (3, (i,))
        if entry.kind == "coefficient":
            keys[f"beta[{entry.name}]"] = (3, (i,))
    return {key: value for key, value in keys.items() if value[1]}


def _rank(key: str, keys: Mapping[str, tuple[int, tuple[int, ...]]]) -> int:
    return keys[key][0] if key in keys else 9


def _apply(entries: list[PriorEntry], keys: Mapping[str, tuple[int, tuple[int, ...]]], key: str, value: Any) -> None:
    if key not in keys:
        raise PriorError(
            f"there is no parameter {key!r} to give a prior to.\n"
            f"  Parameters: {listing(entry.name for entry in entries)}; whole groups: "
            f"{listing(name for name, (rank, _) in keys.items() if rank < 2)}. {did_you_mean(key, keys)}".rstrip()
        )
    positions = keys[key][1]
    prior = as_prior(value, key)
    if "|" in key:
        prior = _spread_of(prior, key)
    if prior.name in JOINT:
        _apply_joint(entries, key, prior)
        return
    support = {"sd": "positive", "corr": "correlation", "sigma": "positive", "ratio": "positive", "aux": None}
    for prior_i, i in zip(_split(prior, len(positions), key), positions, strict=True):
        wanted = support.get(entries[i].kind, "real")
        if entries[i].name == "threshold" and prior_i.name != "Normal":
            raise PriorError(f"the prior of 'threshold' is {prior_i!r}, but thresholds have normal priors.")
        entries[i] = replace(entries[i], prior=checked(prior_i, key, wanted), note="given")


def _apply_joint(entries: list[PriorEntry], key: str, prior: Prior) -> None:
    """Give a joint prior to all slopes, and R2D2M2 to all group SDs too."""
    kinds = ("coefficient", "sd") if prior.name == "R2D2M2" else ("coefficient",)
    if key != "beta":
        raise PriorError(f"{prior.name} is a prior of all slopes together: give it for 'beta', not for {key!r}.")
    prior = checked(prior, key)
    for i, entry in enumerate(entries):
        if entry.kind in kinds:
            entries[i] = replace(entry, prior=prior, note="given, jointly")


def _spread_of(prior: Prior, key: str) -> Prior:
    """Return the prior of the standard deviation inside bambi's Normal(0, sigma=Prior(...))."""
    inner = prior.args.get("sigma")
    if prior.name != "Normal" or not isinstance(inner, Prior) or np.any(np.asarray(prior.args.get("mu", 0.0)) != 0):
        raise PriorError(
            f"the prior of {key!r} is {prior!r}, but group effects are normal around 0 with an SD to be estimated.\n"
            f'  Write blm.Prior("Normal", mu=0, sigma=blm.Prior("HalfNormal", sigma=5)), or give the prior of the SD.'
        )
    return inner


def _split(prior: Prior, count: int, key: str) -> list[Prior]:
    """Return one prior per parameter: vectors of parameters are dealt out, numbers repeated."""
    sizes = {np.asarray(value).size for value in prior.args.values() if not isinstance(value, Prior)} - {1}
    if not sizes:
        return [prior] * count
    if sizes != {count}:
        raise PriorError(
            f"the prior of {key!r} is {prior!r}: it stands for {count} parameters, so give 1 or {count} values."
        )
    dealt = {name: np.broadcast_to(np.asarray(value).ravel(), count) for name, value in prior.args.items()}
    parameters = [{name: float(values[i]) for name, values in dealt.items()} for i in range(count)]
    return [with_parameters(prior.name, own, prior.dist) for own in parameters]
