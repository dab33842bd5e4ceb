"""Where the variance of the response comes from: coefficients, each grouping factor, residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from bayeslmm.formula.design import Design

FIXED, RESIDUAL = "fixed part", "Residual"


@dataclass(frozen=True, repr=False)
class VariancePartition(Tabular):
    """The variance of an average row, part by part.

    Parameters
    ----------
    fixed : float
        Variance over the rows of the linear predictor from the coefficients.
    random : Series
        Variance from each grouping factor's effects, averaged over the rows: with slopes it depends on the row.
    residual : float
        Residual variance, averaged over the rows where there are weights.

    Examples
    --------
    >>> parts = VariancePartition(1.0, pd.Series({"school": 1.0}), 2.0)
    >>> float(parts.shares["school"])
    0.25
    """

    fixed: float
    random: pd.Series
    residual: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return float(self.fixed + self.random.sum() + self.residual)

    @property
    def shares(self) -> pd.Series:
        """Each part as a share of the total, the coefficients first and the residual last."""
        return self.to_pandas()["Share"]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per part.

        Returns
        -------
        DataFrame
            Columns Variance and Share.
        """
        variance = pd.concat([pd.Series({FIXED: self.fixed}), self.random, pd.Series({RESIDUAL: self.residual})])
        return pd.DataFrame({"Variance": variance, "Share": variance / self.total})

    def table(self) -> Table:
        """Return the partition as a table.

        Returns
        -------
        Table
            Columns Variance and Share.
        """
        return Table(self.to_pandas(), title="Variance partition")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the shares as one bar.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from bayeslmm.report.diagnostic_plots import share_bar

        return share_bar(self.shares, ax=ax)


def variance_partition(
    design: Design, beta: NDArray[np.float64], covariances: Mapping[str, NDArray[np.float64]], sigma: float
) -> VariancePartition:
    """Split the variance of an average row into its parts.

    Parameters
    ----------
    design : Design
        The design.
    beta : ndarray (p,)
        Coefficients.
    covariances : mapping of str to ndarray (K, K)
        Covariance of each grouping factor's effects.
    sigma : float
        Residual standard deviation of a row with weight 1.

    Returns
    -------
    VariancePartition
        The parts.

    References
    ----------
    Nakagawa & Schielzeth (2013), *Methods Ecol. Evol.* 4(2); Johnson (2014), *Methods Ecol. Evol.* 5(9), for slopes.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as blm
    >>> design = blm.build_design("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> variance_partition(design, np.array([1527.5]), {"Batch": np.array([[1764.0]])}, 49.5).random.to_dict()
    {'Batch': 1764.0}
    """
    rows = design.condensed
    random = {
        factor.name: float(np.einsum("nk,kl,nl->", factor.Z, covariances[factor.name], factor.Z) / design.n)
        for factor in rows.factors
    }
    residual = sigma**2 * (1.0 if design.weights is None else float(np.mean(1.0 / design.weights)))
    fixed = design.moments(design.centred(rows.X) @ beta)[1] ** 2
    return VariancePartition(fixed, pd.Series(random, dtype=float), float(residual))
