"""Questions to a posterior: hypotheses, practical equivalence, explained variance, comparison of models."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.bayes.responses import mean_residual_variance
from bayeslmm.errors import ComparisonError, did_you_mean, listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.formula.design import Design

OPERATORS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {"abs": np.abs, "exp": np.exp, "log": np.log, "sqrt": np.sqrt}
CHUNK_NUMBERS = 1 << 23


@dataclass(frozen=True, repr=False)
class Hypothesis:
    """The posterior probability of an inequality between parameters.

    Parameters
    ----------
    text : str
        As typed.
    probability : float
        Share of the draws in which it holds.
    mean, sd, lower, upper : float
        Of the left side minus the right side; a central 95 % interval.
    draws : ndarray (S,)
        Of that difference.

    Notes
    -----
    `odds` is the probability over its complement: the Bayes factor of the direction where the prior is even-handed.
    """

    text: str
    probability: float
    mean: float
    sd: float
    lower: float
    upper: float
    draws: NDArray[np.float64]

    @property
    def odds(self) -> float:
        """Probability over its complement; infinite when it holds in every draw."""
        return self.probability / (1 - self.probability) if self.probability < 1 else float("inf")

    def __str__(self) -> str:
        return (
            f"P({self.text}) = {self.probability:.4f} (odds {self.odds:.3g}); "
            f"difference {self.mean:.4g}, SD {self.sd:.3g}, 95 % between {self.lower:.4g} and {self.upper:.4g}"
        )

    __repr__ = __str__


def hypothesis(post: Posterior, text: str) -> Hypothesis:
    """Return the posterior probability of an inequality such as ``"IQ > 2"`` or ``"sd_class[Intercept] / sigma < 1"``.

    Names of parameters are read as they are printed; numbers, ``+ - * / **``, parentheses and abs, exp, log, sqrt are
    understood, and nothing else is evaluated.

    Parameters
    ----------
    post : Posterior
        The posterior.
    text : str
        Two expressions with ``<`` or ``>`` between them.

    Returns
    -------
    Hypothesis
        Probability, odds and the difference.

    Raises
    ------
    ComparisonError
        If the text cannot be read or names no parameter.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> m = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> post = m.sample(draws=200, chains=2, seed=1, progress=False)
    >>> hypothesis(post, "Days > 0").probability
    1.0
    """
    draws = {name: values.ravel() for name, values in post.parameters.items()}
    coded, placeholders = with_placeholders(text, draws)
    try:
        tree = ast.parse(coded, mode="eval").body
    except SyntaxError:
        raise ComparisonError(f"the hypothesis {text!r} cannot be read: write for example 'IQ > 2'.") from None
    if not (isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Lt | ast.Gt)):
        raise ComparisonError(f"the hypothesis {text!r} needs one < or > between two expressions.")
    values = {key: draws[name] for key, name in placeholders.items()}
    left, right = (evaluate(part, values, text, draws) for part in (tree.left, tree.comparators[0]))
    difference = np.broadcast_to(np.asarray(left - right, dtype=np.float64), (post.n_draws,))
    holds = difference < 0 if isinstance(tree.ops[0], ast.Lt) else difference > 0
    lower, upper = np.quantile(difference, [0.025, 0.975])
    return Hypothesis(
        text, float(holds.mean()), float(difference.mean()), float(difference.std(ddof=1)), float(lower), float(upper),
        difference,
    )  # fmt: skip


def with_placeholders(text: str, names: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the text with parameter names replaced by plain identifiers, longest names first.

    Parameters
    ----------
    text : str
        An expression.
    names : mapping
        Parameter names are its keys.

    Returns
    -------
    text : str
        The expression.
    placeholders : dict of str to str
        Identifier to parameter name.
    """
    placeholders = {f"parameter_{i}_": name for i, name in enumerate(sorted(names, key=len, reverse=True))}
    by_name = {name: key for key, name in placeholders.items()}
    pattern = "|".join(re.escape(name) for name in by_name)
    coded = re.sub(rf"(?<![\w.\[])(?:{pattern})(?![\w.\[(])", lambda match: by_name[match.group()], text)
    return coded, placeholders


def evaluate(node: ast.AST, values: Mapping[str, NDArray[np.float64]], text: str, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression of known names, numbers and arithmetic.

    Parameters
    ----------
    node : ast.AST
        The expression.
    values : mapping of str to ndarray
        By identifier.
    text : str
        The whole text, for the message.
    names : mapping
        Parameter names, for the message.

    Returns
    -------
    ndarray or float
        Its value.

    Raises
    ------
    ComparisonError
        At anything else.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in values:
        return values[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](*(evaluate(part, values, text, names) for part in (node.left, node.right)))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](evaluate(node.operand, values, text, names))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in FUNCTIONS
        and len(node.args) == 1
    ):
        return FUNCTIONS[node.func.id](evaluate(node.args[0], values, text, names))
    word = ast.unparse(node)
    raise ComparisonError(
        f"the hypothesis {text!r} has no parameter {word!r}.\n"
        f"  Parameters: {listing(names)}. {did_you_mean(word, names)}".rstrip()
    )


def rope(post: Posterior, name: str, lower: float, upper: float) -> pd.Series:
    """Return the posterior probability below, inside and above a region of practical equivalence.

    Parameters
    ----------
    post : Posterior
        The posterior.
    name : str
        A parameter as printed.
    lower, upper : float
        Ends of the region, in units of the parameter.

    Returns
    -------
    Series
        `below`, `inside`, `above`.

    Raises
    ------
    ComparisonError
        If there is no such parameter or the region is empty.
    """
    if name not in post.parameters:
        hint = did_you_mean(name, post.parameters)
        raise ComparisonError(
            f"there is no parameter {name!r}.\n  Parameters: {listing(post.parameters)}. {hint}".rstrip()
        )
    if not lower < upper:
        raise ComparisonError(f"the region from {lower} to {upper} is empty.")
    draws = post.parameters[name]
    below, above = float((draws < lower).mean()), float((draws > upper).mean())
    return pd.Series({"below": below, "inside": 1 - below - above, "above": above}, name=name)


def latent_residual(post: Posterior) -> NDArray[np.float64]:
    """Return draws of the variance of a response about its expectation, on the scale of the linear predictor.

    Parameters
    ----------
    post : Posterior
        A posterior of a family with a variance, or of an ordered one.

    Returns
    -------
    ndarray (S,)
        Variances, at the average over the rows of the expected response, group effects integrated out by quadrature.

    Raises
    ------
    ComparisonError
        If the family has no variance function here.
    """
    from bayeslmm.bayes.bambi import response_arguments

    family = post.response
    if family.name in ("bernoulli", "binomial", "cumulative"):
        return family.latent_variance(np.full(post.n_draws, 0.5))
    if family.row.variance is None:
        raise ComparisonError(f"the family {family.name!r} has no variance function here: no ICC, no R².")
    everyone = np.arange(post.n_draws)
    phi = np.broadcast_to(np.asarray(response_arguments(post, post.design, everyone)), (post.n_draws, 1))[:, 0]
    return family.latent_variance(average_expectation(post), phi)


def average_expectation(post: Posterior) -> NDArray[np.float64]:
    """Return draws of the expected response averaged over rows and over the distribution of the group effects.

    Parameters
    ----------
    post : Posterior
        The posterior.

    Returns
    -------
    ndarray (S,)
        Averages.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    covariances, design = post.effect_covariances(), post.design
    averages = np.empty(post.n_draws)
    step = max(1, CHUNK_NUMBERS // len(design.rows))
    for start in range(0, post.n_draws, step):
        chosen = np.arange(start, min(start + step, post.n_draws))
        eta = post._linear(design, chosen, "error", (), None)
        spread = spread_of_effects(design, {name: value[chosen] for name, value in covariances.items()})
        at_nodes = [post.response.inverse_link(eta + z * spread).mean(axis=1) for z in nodes]
        averages[chosen] = weights @ np.array(at_nodes) / weights.sum()
    return averages


def spread_of_effects(design: Design, covariances: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the SD of the group effects' part of the linear predictor of each row.

    Parameters
    ----------
    design : Design
        The rows.
    covariances : mapping of str to ndarray (S, K, K)
        Draws of the covariance of each factor's effects.

    Returns
    -------
    ndarray (S, n)
        Standard deviations; zero without group effects.
    """
    draws = len(next(iter(covariances.values()))) if covariances else 1
    variance = np.zeros((draws, design.n))
    for factor in design.factors:
        variance += np.einsum("nk,skl,nl->sn", factor.Z, covariances[factor.name], factor.Z)
    return np.sqrt(variance)


def bayes_r2(post: Posterior) -> NDArray[np.float64]:
    """Return draws of the share of variance the linear predictor explains.

    Parameters
    ----------
    post : Posterior
        A Gaussian posterior.

    Returns
    -------
    ndarray (S,)
        Between 0 and 1.

    Raises
    ------
    ComparisonError
        If the model is not Gaussian.

    References
    ----------
    Gelman, Goodrich, Gabry & Vehtari (2019), *The American Statistician* 73(3).
    """
    if not post.response.is_gaussian_identity:
        raise ComparisonError("Bayesian R² is defined here for Gaussian models only.")
    explained = np.empty(post.n_draws)
    step = max(1, CHUNK_NUMBERS // len(post.design.rows))
    for start in range(0, post.n_draws, step):
        chosen = np.arange(start, min(start + step, post.n_draws))
        explained[chosen] = post._linear(post.design, chosen, "error", None, None).var(axis=1)
    return explained / (explained + mean_residual_variance(post))


def compare_models(
    posteriors: Mapping[str, Posterior], *, group: str | None = None, method: str = "stacking"
) -> pd.DataFrame:
    """Rank posteriors of the same rows by expected log predictive density, with model weights, through ArviZ.

    Parameters
    ----------
    posteriors : mapping of str to Posterior
        Models by name.
    group : str, optional
        Leave out whole levels of this grouping factor instead of rows.
    method : str, default "stacking"
        How weights are made.

    Returns
    -------
    DataFrame
        ArviZ's comparison, best model first.

    Raises
    ------
    ComparisonError
        If there are fewer than two models or they rest on different rows.

    References
    ----------
    Yao, Vehtari, Simpson & Gelman (2018), *Bayesian Analysis* 13(3).

    Examples
    --------
    >>> import bayeslmm as blm
    >>> sleep = blm.datasets.load("sleepstudy")
    >>> models = {"intercepts": "Reaction ~ Days + (1 | Subject)", "slopes": "Reaction ~ Days + (Days | Subject)"}
    >>> posts = {
    ...     name: blm.model(text, sleep).sample(250, seed=1, progress=False) for name, text in models.items()
    ... }
    >>> compare_models(posts, group="Subject").index[0]
    'slopes'
    """
    from arviz_stats import compare

    from bayeslmm.bayes.checks import log_likelihood_tree

    if len(posteriors) < 2:
        raise ComparisonError("compare_models() needs at least two posteriors.")
    first = next(iter(posteriors.values()))
    for name, post in posteriors.items():
        if not np.array_equal(np.asarray(post.design.y), np.asarray(first.design.y)):
            raise ComparisonError(f"{name!r} rests on other rows or another response; fit all models to the same data.")
    return compare({name: log_likelihood_tree(post, group) for name, post in posteriors.items()}, method=method)
