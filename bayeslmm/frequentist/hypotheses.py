"""Linear hypotheses about coefficients, tested one by one and together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.formula.hypotheses import read_hypotheses
from bayeslmm.frequentist.degrees_of_freedom import Denominator, FTest, f_test, reference_note
from bayeslmm.frequentist.tails import two_sided_t
from bayeslmm.report.numbers import format_p
from bayeslmm.report.tables import Table, Tabular

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bayeslmm.formula.design import Design


@dataclass(frozen=True, repr=False)
class HypothesisTest(Tabular):
    """Linear hypotheses tested one by one and together.

    Parameters
    ----------
    contrasts : DataFrame
        Columns Estimate, Std. Error, rhs, df, t value, Pr(>|t|), one row per hypothesis; without df, and with z in
        place of t, for generalised fits.
    joint : FTest
        All of them together.
    method : str
        Where the degrees of freedom come from.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> fit = blm.lmer("lang ~ IQ + SES + (1 | class)", blm.datasets.load("nlschools"))
    >>> fit.test("IQ = 2.2, SES = 0").joint.df_num
    2
    """

    contrasts: pd.DataFrame
    joint: FTest
    method: str

    @property
    def p_value(self) -> float:
        """p-value of the joint test."""
        return self.joint.p_value

    def table(self) -> Table:
        """Return the tests as a table.

        Returns
        -------
        Table
            Text, HTML, LaTeX and Markdown.
        """
        joint = self.joint
        if np.isinf(joint.df_den):
            statistic = f"chi2({joint.df_num}) = {joint.statistic * joint.df_num:.4g}"
        else:
            statistic = f"F({joint.df_num}, {joint.df_den:.2f}) = {joint.statistic:.4g}"
        together = f"{statistic}, p {_with_relation(joint.p_value)}"
        prefix = "Together: " if len(self.contrasts) > 1 else ""
        return Table(
            self.contrasts,
            title="Linear hypotheses",
            notes=(f"{prefix}{together}", f"Tests with {reference_note(self.method)}."),
            shared=(("Estimate", "Std. Error", "rhs"),),
        )


def _with_relation(p: float) -> str:
    text = format_p(p).strip()
    return text if text.startswith("<") else f"= {text}"


def hypothesis_test(
    design: Design,
    beta: NDArray[np.float64],
    method: Denominator,
    hypothesis: Any,
    rhs: ArrayLike | None = None,
) -> HypothesisTest:
    """Test linear hypotheses about the coefficients.

    Parameters
    ----------
    design : Design
        Names of the coefficients.
    beta : ndarray (p,)
        Estimates.
    method : Denominator
        Covariance and degrees of freedom.
    hypothesis : str, sequence of str, mapping or array_like (q, p)
        ``"IQ = 2.2, SES = 0"``, ``"2 * IQ - SES"`` (equal to zero), ``{"IQ": 2.2}``, or a matrix of contrasts.
    rhs : array_like (q,), optional
        Right-hand side of a matrix; zero when absent.

    Returns
    -------
    HypothesisTest
        Single and joint tests.

    Raises
    ------
    ComparisonError
        If a hypothesis cannot be read, names what is not there, or contradicts or repeats another.
    """
    found = read_hypotheses(design.coef_names, hypothesis, rhs, dropped=design.dropped_columns)
    estimate = found.L @ beta
    se = np.sqrt(np.einsum("qa,ab,qb->q", found.L, method.vcov, found.L))
    df = method.df(found.L)
    t = (estimate - found.rhs) / se
    p = two_sided_t(t, df)
    tests = {"z value": t, "Pr(>|z|)": p} if np.isinf(df).all() else {"df": df, "t value": t, "Pr(>|t|)": p}
    columns = {"Estimate": estimate, "Std. Error": se, "rhs": found.rhs, **tests}
    frame = pd.DataFrame(columns, index=list(found.labels))
    return HypothesisTest(frame, f_test(found.L, beta, method, found.rhs), method.title)
