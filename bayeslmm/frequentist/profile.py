"""Profile likelihood of every parameter on the scale the user sees: limits by root finding, zeta curves, plots.

The profile is of the ML criterion, also for REML fits. zeta is the signed root of the rise in deviance; an interval
ends where it reaches the normal quantile, or at the edge of the parameter space where it never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import optimize as scipy_optimize
from scipy import stats

from bayeslmm.errors import ComparisonError, FitError
from bayeslmm.formula.residuals import refuse
from bayeslmm.frequentist.bootstrap import check_parameters, refit
from bayeslmm.frequentist.constrained import Constrained, HeldCorr, HeldSd, Structured, free_chart
from bayeslmm.frequentist.lmm_fit import LmmFit, check_level
from bayeslmm.frequentist.variance_parameters import parameter_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bayeslmm.frequentist.estimated import EstimatedFit

ZETA_TOLERANCE = 1e-6
LOWER_OPTIMUM = 1e-5
POINTS = 8
SLOPE_TOLERANCE = 1e-4
IDLE = 1e-3


@dataclass(frozen=True)
class Target:
    """One parameter to be profiled.

    Parameters
    ----------
    name : str
        As in `parameter_frame`.
    problem : Constrained or HeldDeviance
        The deviance with it held.
    estimate : float
        The ML estimate; NaN for a correlation with an effect of zero variance.
    step : float
        A first guess at its standard error.
    bounds : (float, float)
        Edges of the parameter space.
    power : int
        The parameter is the held one to this power (ar1 correlations at larger lags).
    """

    name: str
    problem: Any
    estimate: float
    step: float
    bounds: tuple[float, float] = (-np.inf, np.inf)
    power: int = 1


@dataclass
class Curve:
    """Deviance minimised at held values of one parameter, each search starting from the nearest before it."""

    target: Target
    fit: EstimatedFit
    held: list[float] = field(default_factory=list)
    points: list[NDArray[np.float64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held.append(self.centre)
        self.points.append(self.target.problem.start(self.fit.theta, self.fit.sigma))

    @property
    def centre(self) -> float:
        """The estimate, or 0 where there is none."""
        return self.target.estimate if np.isfinite(self.target.estimate) else 0.0

    @cached_property
    def metric(self) -> NDArray[np.float64]:
        """Inverse Hessian (d, d) at the estimate, made positive definite: where every search starts."""
        x, step = self.points[0], 1e-4
        rows = [
            self.target.problem(x + h, self.centre)[1] - self.target.problem(x - h, self.centre)[1]
            for h in step * np.eye(len(x))
        ]
        hessian = np.array(rows) / (2 * step)
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        values = np.maximum(np.abs(values), 1e-4 * max(np.abs(values).max(initial=0.0), 1.0))
        root = vectors / np.sqrt(values)
        return root @ root.T

    def zeta(self, value: float) -> float:
        """Return the signed root of the rise in deviance at a held value.

        Raises
        ------
        FitError
            If the deviance falls below that of the fit.
        """
        deviance, x = self._minimise(value)
        self.held.append(value)
        self.points.append(x)
        return float(np.copysign(np.sqrt(max(self._rise(value, deviance), 0.0)), value - self.centre))

    def _rise(self, value: float, deviance: float) -> float:
        rise = deviance - self.fit.criterion
        if rise < -LOWER_OPTIMUM:
            raise FitError(
                f"profiling {self.target.name} at {value:.6g} found a deviance lower by {-rise:.3g} than the fit's: "
                "the fit is a local optimum.\n  Fit again with control=Control(start=...) from another point."
            )
        return rise

    def limit(self, side: int, z: float) -> float:
        """Return where |zeta| reaches z on one side of the estimate, or the edge of the parameter space."""
        if np.isfinite(self.target.estimate):
            self._rise(self.target.estimate, self._search(self.points[0], self.target.estimate)[0])
        return _limit(self, side, z)

    def _minimise(self, value: float) -> tuple[float, NDArray[np.float64]]:
        best = self._search(self._start(value), value)
        idle = np.abs(best[1]) < IDLE
        if self.target.problem.sigma == "free":
            idle[-1] = False
        if idle.any():  # at zero a standard deviation has no slope: look whether it wants to leave
            other = self._search(np.where(idle, 0.1, best[1]), value)
            best = min(best, other, key=lambda pair: pair[0])
        return best

    def _start(self, value: float) -> NDArray[np.float64]:
        """Return the best of the nearest point, the line through the two nearest, and the estimate."""
        order = np.argsort(np.abs(np.array(self.held) - value), kind="stable")
        near = self.points[order[0]]
        candidates = [near, self.points[0]]
        if len(order) > 1 and self.held[order[0]] != self.held[order[1]]:
            share = (value - self.held[order[0]]) / (self.held[order[0]] - self.held[order[1]])
            if abs(share) <= 2:
                candidates.append(near + share * (near - self.points[order[1]]))
        return min(candidates, key=lambda x: self.target.problem(x, value)[0])

    def _search(self, x: NDArray[np.float64], value: float) -> tuple[float, NDArray[np.float64]]:
        found = scipy_optimize.minimize(
            self.target.problem,
            x,
            args=(value,),
            jac=True,
            method="BFGS",
            options={"gtol": SLOPE_TOLERANCE, "hess_inv0": self.metric, "maxiter": 200},
        )
        return float(found.fun), self.target.problem.settle(found.x)


@dataclass(frozen=True, repr=False)
class Profile:
    """Profiles of the ML deviance.

    Parameters
    ----------
    frames : mapping of str to DataFrame
        Per parameter the columns `value` and `zeta`, in increasing order.
    estimates : Series
        ML estimates.
    fit : LmmFit
        The ML fit that was profiled.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"), reml=False)
    >>> curves = fit.profile("sd_Batch[Intercept]")
    >>> bool(curves.frames["sd_Batch[Intercept]"]["zeta"].is_monotonic_increasing)
    True
    """

    frames: dict[str, pd.DataFrame]
    estimates: pd.Series
    fit: LmmFit

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Return profile intervals, solved for anew to full accuracy.

        Parameters
        ----------
        level : float, default 0.95
            Coverage.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`.
        """
        return profile_intervals(self.fit, list(self.frames), level)

    def to_pandas(self) -> pd.DataFrame:
        """Return all curves as one long frame.

        Returns
        -------
        DataFrame
            Columns `parameter`, `value`, `zeta`.
        """
        return pd.concat([frame.assign(parameter=name) for name, frame in self.frames.items()], ignore_index=True)[
            ["parameter", "value", "zeta"]
        ]

    def plot(self, kind: Literal["zeta", "density"] = "zeta", *, columns: int = 3) -> Figure:
        """Draw the curves.

        Parameters
        ----------
        kind : {"zeta", "density"}, default "zeta"
            zeta against the value, a straight line where the likelihood is normal, with intervals of 50, 80, 90, 95
            and 99 %; or the density that makes zeta standard normal.
        columns : int, default 3
            Panels in a row.

        Returns
        -------
        matplotlib Figure
            One panel per parameter.
        """
        if kind not in ("zeta", "density"):
            raise ComparisonError(f'kind={kind!r} is not one of "zeta", "density".')
        import matplotlib.pyplot as plt

        from bayeslmm.report.plots import BLUE, clean

        columns = min(columns, len(self.frames))
        rows = -(-len(self.frames) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.6 * rows), squeeze=False)
        for ax, (name, frame) in zip(axes.flat, self.frames.items(), strict=False):
            curve = smooth_curve(frame)
            ax.set_title(name, fontsize="medium")
            if kind == "density":
                ax.plot(curve["value"], curve["density"], color=BLUE)
                ax.set_ylim(bottom=0)
            else:
                _draw_zeta(ax, curve, float(self.estimates[name]))
            clean(ax)
        for ax in list(axes.flat)[len(self.frames) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel(kind)
        figure.tight_layout()
        return figure

    def __repr__(self) -> str:
        points = sum(len(frame) for frame in self.frames.values())
        return f"Profile of the ML deviance: {len(self.frames)} parameters, {points} points"


def _draw_zeta(ax, curve: pd.DataFrame, estimate: float) -> None:  # type: ignore[no-untyped-def]
    from bayeslmm.report.plots import BLUE, GREY

    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.plot(curve["value"], curve["zeta"], color=BLUE)
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        z = stats.norm.ppf(0.5 + level / 2)
        for side in (-z, z):
            if curve["zeta"].min() <= side <= curve["zeta"].max():
                at = float(np.interp(side, curve["zeta"], curve["value"]))
                ax.plot([at, at], [0, side], color=GREY, linewidth=0.8)
    if np.isfinite(estimate):
        ax.plot([estimate], [0], marker="o", markersize=4, color=BLUE)


def smooth_curve(frame: pd.DataFrame, points: int = 200) -> pd.DataFrame:
    """Return a profile on a fine grid, with the density that makes zeta standard normal.

    Parameters
    ----------
    frame : DataFrame
        Columns `value` and `zeta`.
    points : int, default 200
        Size of the grid.

    Returns
    -------
    DataFrame
        Columns `value`, `zeta`, `density`.
    """
    from scipy.interpolate import PchipInterpolator

    value, at = np.unique(frame["value"].to_numpy(), return_index=True)
    curve = PchipInterpolator(value, frame["zeta"].to_numpy()[at])
    grid = np.linspace(value[0], value[-1], points)
    zeta = curve(grid)
    density = stats.norm.pdf(zeta) * np.maximum(curve.derivative()(grid), 0.0)
    return pd.DataFrame({"value": grid, "zeta": zeta, "density": density})


def profile(fit: LmmFit, parameters: str | Sequence[str] | None = None, level: float = 0.99) -> Profile:
    """Profile the ML deviance.

    Parameters
    ----------
    fit : LmmFit
        The fit; a REML fit is refitted by ML.
    parameters : str or sequence of str, optional
        Which; all when absent.
    level : float, default 0.99
        Coverage of the interval that the curves reach to.

    Returns
    -------
    Profile
        Curves, intervals and plots.

    Raises
    ------
    FitError
        If a lower deviance than the fit's turns up.

    References
    ----------
    Bates & Watts (1988), *Nonlinear Regression Analysis*, chapter 6.
    """
    refuse(fit.design.residuals, "the profile likelihood", 'Use confint(), or confint(method="boot").')
    fit = by_ml(fit)
    z = float(stats.norm.ppf(0.5 + check_level(level) / 2))
    frames, estimates = {}, {}
    for target in _chosen(fit, parameters):
        if target.power > 1:
            continue
        curve = Curve(target, fit)
        ends = [curve.limit(side, z) for side in (-1, 1)]
        values = np.unique(np.concatenate([np.linspace(curve.centre, end, POINTS + 1) for end in ends]))
        zeta = [0.0 if value == target.estimate else curve.zeta(value) for value in values]
        frames[target.name] = pd.DataFrame({"value": values, "zeta": zeta})
        estimates[target.name] = target.estimate
    return Profile(frames, pd.Series(estimates), fit)


def profile_intervals(fit: LmmFit, parameters: str | Sequence[str] | None = None, level: float = 0.95) -> pd.DataFrame:
    """Return profile-likelihood intervals.

    Parameters
    ----------
    fit : LmmFit
        The fit; a REML fit is refitted by ML.
    parameters : str or sequence of str, optional
        Which; all when absent.
    level : float, default 0.95
        Coverage.

    Returns
    -------
    DataFrame
        Columns `lower` and `upper`; 0 for a standard deviation and -1 or 1 for a correlation is the edge of the
        parameter space, and the interval is then one-sided.

    Raises
    ------
    FitError
        If a lower deviance than the fit's turns up.
    """
    refuse(fit.design.residuals, "the profile likelihood", 'Use confint(), or confint(method="boot").')
    fit = by_ml(fit)
    z = float(stats.norm.ppf(0.5 + check_level(level) / 2))
    found: dict[int, tuple[float, float]] = {}
    rows = {}
    for target in _chosen(fit, parameters):
        key = id(target.problem)
        if key not in found:
            curve = Curve(target, fit)
            found[key] = (curve.limit(-1, z), curve.limit(1, z))
        rows[target.name] = power_of_interval(*found[key], target.power)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["lower", "upper"]).rename_axis("parameter")


def by_ml(fit: LmmFit) -> LmmFit:
    """Return the fit, or its ML counterpart if it is by REML.

    Parameters
    ----------
    fit : LmmFit
        The fit.

    Returns
    -------
    LmmFit
        By ML.
    """
    assert fit.design.y is not None
    return refit(fit, fit.design.y, reml=False) if fit.reml else fit


def _chosen(fit: LmmFit, parameters: str | Sequence[str] | None) -> list[Target]:
    targets = {target.name: target for target in profile_targets(fit)}
    wanted = parameters if parameters is None or isinstance(parameters, str) else list(parameters)
    return [targets[name] for name in check_parameters(list(targets), wanted)]


def power_of_interval(lower: float, upper: float, power: int) -> tuple[float, float]:
    """Return the image of an interval under a power.

    Parameters
    ----------
    lower, upper : float
        Its ends.
    power : int
        At least 1.

    Returns
    -------
    lower, upper : float
        Ends of the image.

    Examples
    --------
    >>> power_of_interval(-0.5, 0.25, 2)
    (0.0, 0.25)
    """
    ends = (lower**power, upper**power)
    crosses = power % 2 == 0 and lower < 0 < upper
    return (0.0 if crosses else min(ends), max(ends))


def _limit(curve: Curve, side: int, z: float) -> float:
    """Return where |zeta| reaches z on one side of the estimate, or the edge of the parameter space."""
    target = curve.target
    edge = target.bounds[0] if side < 0 else target.bounds[1]
    if not np.isfinite(target.estimate) or target.estimate == edge:
        return edge
    inner, inner_zeta = target.estimate, 0.0
    step = target.step * z
    for _ in range(60):
        outer = inner + side * step
        outer = max(outer, edge) if side < 0 else min(outer, edge)
        outer_zeta = abs(curve.zeta(outer))
        if outer_zeta >= z:
            return _root(curve, z, (inner, inner_zeta), (outer, outer_zeta))
        if outer == edge:
            return edge
        grown = step * np.clip(1.1 * (z - inner_zeta) / max(outer_zeta - inner_zeta, 1e-3) - 1.0, 0.1, 3.0)
        inner, inner_zeta, step = outer, outer_zeta, max(float(grown), 1e-3 * target.step)
    raise FitError(
        f"the profile of {target.name} is flat: at {inner:.6g} the deviance has risen by {inner_zeta**2:.3g} only.\n"
        "  The data say almost nothing about it on this side; the interval is open."
    )


def _root(curve: Curve, z: float, inner: tuple[float, float], outer: tuple[float, float]) -> float:
    """Return where zeta reaches z inside a bracket: secant steps, with bisection as a guard."""
    a, fa = inner[0], inner[1] - z
    b, fb = outer[0], outer[1] - z
    value = b
    for _ in range(60):
        if fb == 0:
            return b
        value = (a * fb - b * fa) / (fb - fa)
        f = abs(curve.zeta(value)) - z
        if abs(f) < ZETA_TOLERANCE or abs(b - a) < 1e-12 * max(abs(a), abs(b)):
            return value
        if (f > 0) == (fb > 0):
            b, fb, fa = value, f, fa * (f_ratio if 0 < (f_ratio := 1 - f / fb if fb else 0.5) < 1 else 0.5)
        else:
            a, fa, b, fb = b, fb, value, f
    return value


def profile_targets(fit: LmmFit) -> list[Target]:
    """Return what can be profiled, in the order of `parameter_frame`.

    Parameters
    ----------
    fit : LmmFit
        An ML fit.

    Returns
    -------
    list of Target
        Coefficients, standard deviations and correlations term by term, sigma.
    """
    layout = fit.kernel.layout
    free = tuple(free_chart(covariance) for covariance in layout.covariances)
    se = np.sqrt(np.diag(fit.vcov))
    targets = [
        Target(name, Constrained(fit.kernel, free, unit), float(beta), float(error))
        for name, unit, beta, error in zip(fit.design.coef_names, np.eye(len(se)), fit.solution.beta, se, strict=True)
    ]
    names = iter(parameter_names(fit.design, layout)[0])
    for position, covariance in enumerate(layout.covariances):
        sd, corr = covariance.sd_corr(layout.split(fit.theta)[position])
        targets += _sd_targets(fit, free, position, fit.sigma * sd, names)
        if covariance.is_correlated:
            targets += _corr_targets(fit, free, position, sd, corr, names)
    error = fit.sigma / np.sqrt(2 * fit.n_obs)
    problem = Constrained(fit.kernel, free, sigma="held")
    targets.append(Target(next(names), problem, fit.sigma, float(error), (fit.sigma * 1e-6, np.inf)))
    return targets


def _sd_targets(fit, free, position, sd, names) -> list[Target]:  # type: ignore[no-untyped-def]
    covariance = fit.kernel.layout.covariances[position]
    levels = fit.kernel.layout.n_levels[fit.kernel.layout.term_factor[position]]
    problems: dict[int, Constrained] = {}
    targets = []
    for effect in range(covariance.k):
        which = 0 if covariance.kind != "us" and covariance.hom else effect
        if which not in problems:
            chart = HeldSd(covariance.k, which) if covariance.kind == "us" else Structured(covariance, which)
            problems[which] = Constrained(fit.kernel, _with(free, position, chart), sigma="free")
        step = max(float(sd[effect]), 0.1 * fit.sigma * _unit_of(fit, position, effect)) / np.sqrt(2 * levels)
        targets.append(Target(next(names), problems[which], float(sd[effect]), step, (0.0, np.inf)))
    return targets


def _unit_of(fit: LmmFit, position: int, effect: int) -> float:
    """Return what one unit of an effect is worth, against the residual."""
    column = fit.design.terms[position].Z[:, effect]
    return 1.0 / max(float(np.sqrt(np.mean(column**2))), 1e-300)


def _corr_targets(fit, free, position, sd, corr, names) -> list[Target]:  # type: ignore[no-untyped-def]
    covariance = fit.kernel.layout.covariances[position]
    levels = fit.kernel.layout.n_levels[fit.kernel.layout.term_factor[position]]
    step = 1.0 / np.sqrt(levels)
    k = covariance.k
    pairs = [(a, b) for a in range(k) for b in range(a + 1, k)]
    defined = (sd > 1e-8 * max(float(sd.max()), 1e-300)) & (sd > 0)
    if covariance.kind == "us":
        return [
            Target(
                next(names),
                Constrained(fit.kernel, _with(free, position, HeldCorr(k, a, b))),
                float(corr[a, b]) if defined[a] and defined[b] else np.nan,
                step,
                (-1.0, 1.0),
            )
            for a, b in pairs
        ]
    index = covariance.n_theta - 1
    problem = Constrained(fit.kernel, _with(free, position, Structured(covariance, index)))
    rho = float(fit.kernel.layout.split(fit.theta)[position][index])
    edges = (float(covariance.lower[-1]) + 1e-6, 1 - 1e-6)
    return [
        Target(next(names), problem, rho, step, edges, power=b - a if covariance.kind == "ar1" else 1) for a, b in pairs
    ]


def _with(charts, position, chart):  # type: ignore[no-untyped-def]
    return (*charts[:position], chart, *charts[position + 1 :])
