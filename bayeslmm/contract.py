"""What every result answers, whichever engine computed it.

`Fit` is abstract; `LmmFit`, `GlmmFit` and `Posterior` are final. Tables, plots, comparison and poststratification ask
only what stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from bayeslmm.errors import BayesLmmError, DataError, did_you_mean, listing

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design
    from bayeslmm.report.varcorr import VarCorr

NewLevels = Literal["error", "zero", "sample"]
NEW_LEVELS: tuple[str, ...] = get_args(NewLevels)


def tidy_effects(effects: str | Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Return the kinds of effects that a tidy frame is asked for.

    Parameters
    ----------
    effects : str or sequence of str
        One kind, or several.
    kinds : sequence of str
        What there is.

    Returns
    -------
    list of str
        The kinds, in the order asked for.

    Raises
    ------
    DataError
        If there is no such kind of effect.

    Examples
    --------
    >>> tidy_effects("fixed", ["fixed", "ran_pars"])
    ['fixed']
    """
    wanted = [effects] if isinstance(effects, str) else list(effects)
    unknown = [name for name in wanted if name not in kinds]
    if unknown:
        raise DataError(f"there is no kind of effect {unknown[0]!r}. Kinds: {listing(kinds)}.")
    return wanted


def check_effect(factor: str, effect: str, known: Sequence[str], error: type[BayesLmmError] = DataError) -> str:
    """Return the name of an effect of a grouping factor, refusing one that is not there.

    Parameters
    ----------
    factor : str
        The grouping factor.
    effect : str
        The effect.
    known : sequence of str
        Its effects.
    error : type, default DataError
        What is raised.

    Returns
    -------
    str
        The same.

    Examples
    --------
    >>> check_effect("Subject", "Days", ["Intercept", "Days"])
    'Days'
    """
    if effect not in known:
        hint = did_you_mean(effect, known)
        raise error(f"{factor!r} has no effect {effect!r}.\n  Effects: {listing(known)}. {hint}".rstrip())
    return effect


def level_effects(
    design: Design, position: int, effects: NDArray[np.float64], cov: NDArray[np.float64]
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return the effects of a factor's levels with their covariance, labelled.

    Parameters
    ----------
    design : Design
        The formula met by data.
    position : int
        Which factor.
    effects : ndarray (J, K)
        As the engine has them; the coordinates of a structured term, for one level.
    cov : ndarray (J, K, K)
        Their covariance.

    Returns
    -------
    modes : DataFrame
        Levels by effects: of a structured term the intercepts of its levels.
    cov : ndarray (J, K, K)
        The covariance of the effects of each level.
    """
    factor = design.factors[position]
    index = pd.Index(factor.members, name=factor.name)
    if factor.loading is not None:
        K = factor.loading.matrix
        cov = np.einsum("jk,kl,jl->j", K, cov[0], K)[:, None, None]
    return pd.DataFrame(factor.of_members(effects), index, list(factor.shown_effects)), cov


def one_sd_per_structure(frame: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Return a frame of parameters in which the SD of a structured term stands once, as that of its intercepts.

    Parameters
    ----------
    frame : DataFrame
        Indexed by parameter.
    design : Design
        The formula met by data.

    Returns
    -------
    DataFrame
        The same where no term is structured.
    """
    repeated = [
        f"sd_{factor.name}[{label}]"
        for factor in design.factors
        for label in factor.sd_labels[len(factor.shown_effects) :]
    ]
    return frame.drop(index=repeated, errors="ignore") if repeated else frame


@dataclass(frozen=True)
class RandomEffects(Mapping[str, pd.DataFrame]):
    """Group effects by grouping factor: `ranef["class"]` is a frame of levels by effects.

    Parameters
    ----------
    modes : mapping of str to DataFrame
        Conditional modes (REML, ML) or posterior means, levels by effects, in units of the linear predictor.
    cov : mapping of str to ndarray (J, K, K)
        Conditional (or posterior) covariance of the effects of each level.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy")).fit()
    >>> round(float(fit.ranef["Subject"].loc["308", "Intercept"]), 3)
    2.259
    >>> round(float(fit.ranef.sd["Subject"].loc["308", "Days"]), 3)
    2.305
    """

    modes: Mapping[str, pd.DataFrame]
    cov: Mapping[str, NDArray[np.float64]] = field(repr=False)

    def __getitem__(self, factor: str) -> pd.DataFrame:
        try:
            return self.modes[factor]
        except KeyError:
            hint = did_you_mean(factor, self.modes)
            raise DataError(
                f"there is no grouping factor {factor!r}.\n  Grouping factors: {listing(self.modes)}. {hint}".rstrip()
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.modes)

    def __len__(self) -> int:
        return len(self.modes)

    @property
    def sd(self) -> dict[str, pd.DataFrame]:
        """Conditional (or posterior) standard deviations, frames shaped like the effects."""
        return {
            factor: pd.DataFrame(
                np.sqrt(np.maximum(np.einsum("jkk->jk", self.cov[factor]), 0.0)),
                index=frame.index,
                columns=frame.columns,
            )
            for factor, frame in self.modes.items()
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return one long frame: factor, level, effect, value, sd.

        Returns
        -------
        DataFrame
            One row per factor, level and effect.
        """
        sds = self.sd
        parts = []
        for factor, frame in self.modes.items():
            levels, effects = frame.shape
            parts.append(
                pd.DataFrame(
                    {
                        "factor": factor,
                        "level": np.repeat(frame.index.to_numpy(dtype=object), effects),
                        "effect": np.tile(frame.columns.to_numpy(dtype=object), levels),
                        "value": frame.to_numpy().ravel(),
                        "sd": sds[factor].to_numpy().ravel(),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def __repr__(self) -> str:
        return "\n".join(f"{factor}:\n{frame.to_string(max_rows=10)}" for factor, frame in self.modes.items())

    def _repr_html_(self) -> str:
        return "\n".join(f"<p><b>{factor}</b></p>{frame.to_html(max_rows=10)}" for factor, frame in self.modes.items())


class Fit(ABC):
    """The contract of a result: estimates, uncertainty and predictions under one set of names.

    For a posterior the estimates are posterior means and the covariances posterior covariances; for a REML, ML or
    Laplace fit they are the estimates and their asymptotic covariance, and draws come from that approximation, which
    ignores the uncertainty of the variance parameters.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> isinstance(fit, blm.Fit)
    True
    """

    design: Design

    @property
    @abstractmethod
    def family(self) -> str:
        """Name of the response family."""

    @property
    @abstractmethod
    def engine(self) -> str:
        """How it was computed, in a word or two: "REML", "ML", "Laplace", "NUTS (marginal)"."""

    @property
    @abstractmethod
    def fixef(self) -> pd.Series:
        """Coefficients, indexed by name."""

    @property
    @abstractmethod
    def ranef(self) -> RandomEffects:
        """Group effects with their conditional or posterior covariance."""

    @property
    @abstractmethod
    def varcorr(self) -> VarCorr:
        """Standard deviations and correlations of the group effects, and the residual SD."""

    @property
    @abstractmethod
    def sigma(self) -> float:
        """Residual standard deviation; 1 for families without a scale."""

    @property
    @abstractmethod
    def vcov(self) -> pd.DataFrame:
        """Covariance of the coefficients (p, p)."""

    @abstractmethod
    def summary(self) -> Any:
        """Return the printed account of the result."""

    @abstractmethod
    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Return intervals: rows are parameters, columns `lower` and `upper`.

        Rows are named as in `parameter_frame`: coefficients by name, then ``sd_<factor>[<effect>]``,
        ``corr_<factor>[<effect>,<effect>]`` and ``sigma``.
        """

    @abstractmethod
    def parameter_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return every parameter's estimate, standard error and interval, one row each.

        Returns
        -------
        DataFrame
            Columns `kind` ("fixed", "sd", "corr", "sigma", "aux"), `estimate`, `se`, `lower`, `upper`, indexed by
            parameter name. `se` is missing where it has no meaning (an estimate on the boundary).
        """

    @abstractmethod
    def linpred_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return draws of the linear predictor (S, n)."""

    @abstractmethod
    def epred_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return draws of the expected response (S, n); for binomial rows a probability."""

    @abstractmethod
    def predictive_draws(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        draws: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return draws of new responses (S, n)."""

    @abstractmethod
    def predict(
        self,
        new_data: Any = None,
        *,
        new_levels: NewLevels = "error",
        include: Sequence[str] | None = None,
        interval: Literal["confidence", "prediction"] | None = None,
        level: float = 0.95,
    ) -> Any:
        """Return the expected response per row (n,), or a frame with standard errors and an interval.

        Parameters
        ----------
        new_data : data frame, optional
            Rows to predict; the fitted rows when absent.
        new_levels : {"error", "zero", "sample"}, default "error"
            What to do with levels of a grouping factor that the fitted data did not hold: refuse, predict at the
            population mean, or integrate over the fitted distribution of the effects.
        include : sequence of str, optional
            Grouping factors whose effects count; all when absent, none (population mean) when empty.
        interval : {"confidence", "prediction"}, optional
            Adds `se`, `lower` and `upper` for the expected response or for a new observation.
        level : float, default 0.95
            Coverage of the interval.
        """

    def glance(self) -> pd.DataFrame:
        """Return one row about the whole result: at least its number of rows; engines add their criteria.

        Returns
        -------
        DataFrame
            Columns as in R's broom.mixed: `nobs`, `sigma`, ...
        """
        return pd.DataFrame({"nobs": [self.design.n], "sigma": [self.sigma]})

    @abstractmethod
    def to_datatree(self) -> xr.DataTree:
        """Return the result in ArviZ's container, in the dimensions all engines share."""
