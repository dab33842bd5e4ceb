"""Which numbers of a fit go into which diagnostic plot, and with what labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bayeslmm.frequentist.diagnostics import residual_qq, residuals
from bayeslmm.predict import numeric_column
from bayeslmm.report.diagnostic_plots import leverage_plot, quantile_plot, residual_plot, scale_location_plot

if TYPE_CHECKING:
    from bayeslmm.frequentist.diagnostics import ResidualKind
    from bayeslmm.frequentist.lmm_fit import LmmFit

KIND_LABELS = {
    "raw": "residual",
    "conditional": "residual",
    "pearson": "residual / sigma",
    "standardized": "standardised residual",
    "marginal": "marginal residual",
    "marginal-standardized": "standardised marginal residual",
}


def fitted_label(fit: LmmFit) -> str:
    """Return the label of an axis of fitted values, in units of the response."""
    return f"fitted {fit.design.response_name}"


def residual_view(fit: LmmFit, kind: ResidualKind = "standardized", against: str | None = None, ax: Any = None) -> Any:
    """Draw residuals against the fitted values or a column.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    kind : str, default "standardized"
        Kind of residual.
    against : str, optional
        A numeric column; the fitted values when absent.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    DataError
        If there is no such numeric column.
    """
    values = residuals(fit, kind)
    label = KIND_LABELS[kind]
    if kind in ("raw", "conditional", "marginal"):
        label = f"{label} (units of {fit.design.response_name})"
    if against is not None:
        x, x_label = numeric_column(fit.design, against), against
    elif kind.startswith("marginal"):
        x, x_label = fit.predict(include=()), f"{fitted_label(fit)}, without group effects"
    else:
        x, x_label = fit.fitted, fitted_label(fit)
    return residual_plot(x, values, x_label=x_label, y_label=label, labels=fit.design.rows, ax=ax)


def scale_location_view(fit: LmmFit, ax: Any = None) -> Any:
    """Draw the spread of the standardised residuals against the fitted values."""
    standardised = residuals(fit, "standardized")
    return scale_location_plot(fit.fitted, standardised, x_label=fitted_label(fit), labels=fit.design.rows, ax=ax)


def leverage_view(fit: LmmFit, ax: Any = None) -> Any:
    """Draw standardised residuals against leverage."""
    return leverage_plot(
        fit.leverage, residuals(fit, "standardized"), len(fit.fixef), labels=fit.design.rows, ax=ax
    )  # fmt: skip


def panel(fit: LmmFit, seed: int | None = 0) -> Any:
    """Draw residuals, spread, quantiles and leverage in one figure; returns the (2, 2) axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.6), layout="constrained")
    residual_view(fit, ax=axes[0, 0])
    scale_location_view(fit, ax=axes[0, 1])
    quantile_plot(residual_qq(fit, seed=seed), ax=axes[1, 0])
    leverage_view(fit, ax=axes[1, 1])
    figure.suptitle(fit.design.formula.text, fontsize=10)
    return axes
