"""F tests of the terms of the fixed part, as lmerTest prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import ComparisonError
from bayeslmm.formula.term_contrasts import MEANING, ROMAN, TermContrasts
from bayeslmm.frequentist.degrees_of_freedom import f_test
from bayeslmm.report.tables import Table

if TYPE_CHECKING:
    from bayeslmm.frequentist.glmm_fit import GlmmFit
    from bayeslmm.frequentist.lmm_fit import LmmFit


def anova_table(fit: LmmFit, type: int = 3, *, ddf: str | None = None) -> Table:
    """Test each term of the fixed part.

    Parameters
    ----------
    fit : LmmFit
        The fit.
    type : {1, 2, 3}, default 3
        Which hypothesis a term stands for.
    ddf : str, optional
        Degrees of freedom of the denominators, Satterthwaite's when absent.

    Returns
    -------
    Table
        Columns Sum Sq, Mean Sq (F times sigma²), NumDF, DenDF, F value, Pr(>F).

    Raises
    ------
    ComparisonError
        If the fixed part has no term but the intercept, or a type III hypothesis is not estimable.

    References
    ----------
    Kuznetsova, Brockhoff & Christensen (2017), *J. Stat. Softw.* 82(13), section 2.
    """
    contrasts = TermContrasts(fit.design).contrasts(type)
    if not contrasts:
        raise ComparisonError(f"the fixed part of {fit.design.formula.text!r} has no term to test.")
    method = fit.denominator(ddf)
    rows = {}
    for name, L in contrasts.items():
        test = f_test(L, fit.solution.beta, method)
        mean = test.statistic * fit.sigma**2
        rows[name] = (mean * test.df_num, mean, test.df_num, test.df_den, test.statistic, test.p_value)
    columns = ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]
    return Table(
        pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype({"NumDF": int}),
        title=f"Type {ROMAN[type]} tests of the fixed part ({method.title} degrees of freedom)",
        notes=(f"Type {ROMAN[type]}: {MEANING[type]}.",),
        shared=(("Sum Sq", "Mean Sq"),),
    )


def wald_table(fit: GlmmFit, type: int = 3) -> Table:
    """Test each term of the fixed part of a generalised fit by Wald's chi-squared.

    Types I and II adjust a term for others in the metric of the coefficients' information, so that a test is what the
    quadratic approximation of the log-likelihood loses without the term.

    Parameters
    ----------
    fit : GlmmFit
        The fit.
    type : {1, 2, 3}, default 3
        Which hypothesis a term stands for.

    Returns
    -------
    Table
        Columns Chisq, Df, Pr(>Chisq), as R's `car::Anova` prints them.

    Raises
    ------
    ComparisonError
        If the fixed part has no term but the intercept, or a type III hypothesis is not estimable.

    References
    ----------
    Fox (2016), *Applied Regression Analysis and Generalized Linear Models*, section 15.3.
    """
    method = fit.denominator()
    contrasts = TermContrasts(fit.design, information=np.linalg.inv(method.vcov)).contrasts(type)
    if not contrasts:
        raise ComparisonError(f"the fixed part of {fit.design.formula.text!r} has no term to test.")
    tests = {name: f_test(L, fit.beta, method) for name, L in contrasts.items()}
    rows = {name: (test.statistic * test.df_num, test.df_num, test.p_value) for name, test in tests.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["Chisq", "Df", "Pr(>Chisq)"]).astype({"Df": int})
    return Table(
        frame,
        title=f"Type {ROMAN[type]} Wald tests of the fixed part",
        notes=(f"Type {ROMAN[type]}: {MEANING[type]}.",),
    )
