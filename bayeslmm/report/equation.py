"""The model as mathematics, priors included, from the formula met by data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayeslmm.report.mathml import (
    CALLIGRAPHIC_N,
    COMMA,
    DOTS,
    EQUALS,
    GREEK,
    MINUS,
    NOT_EQUAL,
    PLUS,
    QUAD,
    SIM,
    TIMES,
    TRANSPOSE,
    Math,
    at,
    bar,
    bold,
    call,
    matrix,
    number,
    operator,
    row,
    row_tight,
    squared,
    sub,
    sup,
    symbol,
    word,
)
from bayeslmm.report.records import PriorLike

if TYPE_CHECKING:
    from bayeslmm.families import Family
    from bayeslmm.formula.design import Design, GroupTerm
    from bayeslmm.formula.residuals import ResidualStructure
    from bayeslmm.report.records import PriorsLike

MOST_COEFFICIENTS = 20
LINE_WIDTH = 64
INTERCEPT = "Intercept"
EQUATION_STYLE = (
    "<style>.blm-equation{border-collapse:collapse;margin:.8em 0}"
    ".blm-equation td{padding:.18em .15em;border:0;text-align:left;vertical-align:baseline;background:none}"
    ".blm-equation td.left{text-align:right;white-space:nowrap}"
    ".blm-equation tbody+tbody tr:first-child td{padding-top:1em}"
    ".blm-equation math{font-size:1.12em;font-family:STIX Two Math,Cambria Math,Latin Modern Math,math}</style>"
)


@dataclass(frozen=True)
class Line:
    """One line of an aligned display: what stands left and right of the alignment mark.

    Parameters
    ----------
    left : Math or None
        None continues the line above.
    right : Math
        Begins with the relation.
    """

    left: Math | None
    right: Math


@dataclass(frozen=True, repr=False)
class Equation:
    r"""A model as aligned mathematics: LaTeX in a notebook, MathML in a report.

    Parameters
    ----------
    likelihood : tuple of Line
        Response, linear predictor, group effects.
    priors : tuple of Line
        One line per prior; empty when none were given.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> model = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff"))
    >>> print(str(model.equation()).splitlines()[1])
    \mathrm{Yield}_{i} &\sim \mathcal{N}(\mu_{i},\ \sigma^{2}) \qquad i = 1,\ \dots,\ 30 \\
    """

    likelihood: tuple[Line, ...]
    priors: tuple[Line, ...] = ()

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines, the likelihood first."""
        return self.likelihood + self.priors

    def to_latex(self) -> str:
        r"""Return the model as an ``aligned`` environment, to stand in ``\[ \]`` or ``$$``.

        Returns
        -------
        str
            LaTeX that needs amsmath.
        """
        body = (f"{'' if line.left is None else line.left.latex} &{line.right.latex}" for line in self.lines)
        texts = [text.strip() + r" \\" for text in body]
        if self.priors:
            texts[len(self.likelihood) - 1] += "[0.8em]"
        texts[-1] = texts[-1].removesuffix(r" \\")
        return "\n".join([r"\begin{aligned}", *texts, r"\end{aligned}"])

    def to_mathml(self) -> str:
        """Return the model as a table of MathML, which browsers show without scripts or a network.

        Returns
        -------
        str
            A ``<table class="blm-equation">`` that brings its own style.
        """
        likelihood, priors = ("".join(map(_mathml_row, lines)) for lines in (self.likelihood, self.priors))
        bodies = f"<tbody>{likelihood}</tbody>" + (f"<tbody>{priors}</tbody>" if priors else "")
        return f'{EQUATION_STYLE}<table class="blm-equation">{bodies}</table>'

    def __str__(self) -> str:
        return self.to_latex()

    __repr__ = __str__

    def _repr_latex_(self) -> str:
        return f"$$\n{self.to_latex()}\n$$"


def equation(design: Design, family: Family, priors: PriorsLike | None = None) -> Equation:
    """Write a model as mathematics.

    Parameters
    ----------
    design : Design
        The formula met by data.
    family : Family
        Response family with its link.
    priors : Priors, optional
        The priors in effect; their lines are left out when absent.

    Returns
    -------
    Equation
        With the names of the data, escaped.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> model = blm.model("Reaction ~ Days + (Days | Subject)", blm.datasets.load("sleepstudy"))
    >>> len(equation(model.design, model.family).lines)
    3
    """
    lines = (
        *_response_lines(design, family),
        *_predictor_lines(design, family),
        *(line for term, places in _placed_terms(design) for line in _effect_lines(term, places, design)),
    )
    return Equation(lines, tuple(_prior_lines(design, priors)) if priors is not None else ())


# --- response and linear predictor ---------------------------------------------------------------------------------


def _response_lines(design: Design, family: Family) -> Iterator[Line]:
    i = symbol("i")
    response = sub(word(design.response_name), i)
    yield Line(response, row(SIM, _response_distribution(design, family), QUAD, *_range("i", len(design.rows))))
    if design.residuals is not None and design.residuals.spec.kind != "independent":
        yield _correlation_line(design.residuals)


def _correlation_line(structure: ResidualStructure) -> Line:
    """Return the correlation of two rows of one group given their means."""
    i, other, rho = symbol("i"), symbol("i'"), symbol("rho")
    steps_apart = sub(symbol("d"), i, other)
    strength = rho if structure.spec.kind == "exchangeable" else sup(rho, steps_apart)
    group = word(str(structure.spec.group))
    return Line(
        call(operator("Cor"), sub(symbol("epsilon"), i), sub(symbol("epsilon"), other)),
        row(EQUALS, strength, QUAD, at(group, "i"), EQUALS, at(group, "i'")),
    )


def _response_distribution(design: Design, family: Family) -> Math:
    i = symbol("i")
    mean = sub(symbol("mu"), i)
    if family.name == "gaussian":
        structure = design.residuals
        by = None if structure is None or structure.spec.by is None else at(word(structure.spec.by), "i")
        variance = squared(symbol("sigma") if by is None else sub(symbol("sigma"), by))
        if design.weights is not None:
            variance = row(variance, Math("/", "<mo>/</mo>"), sub(symbol("w"), i))
        return call(CALLIGRAPHIC_N, mean, variance)
    if family.name == "binomial" and design.trials is not None:
        return call(operator("Binomial"), sub(symbol("n"), i), mean)
    arguments = [mean, *map(symbol, AUXILIARY.get(family.name, ()))]
    return call(operator(FAMILY_TITLES.get(family.name, family.name.title())), *arguments)


AUXILIARY: Mapping[str, tuple[str, ...]] = {
    "negativebinomial": ("alpha",),
    "gamma": ("alpha",),
    "beta": ("kappa",),
    "t": ("nu", "sigma"),
    "lognormal": ("sigma",),
}
FAMILY_TITLES: Mapping[str, str] = {
    "negativebinomial": "NegBinomial",
    "t": "StudentT",
    "lognormal": "LogNormal",
}


def _predictor_lines(design: Design, family: Family) -> Iterator[Line]:
    mean = sub(symbol("mu"), symbol("i"))
    left = mean if family.link == "identity" else call(operator(family.link), mean)
    terms = _predictor_terms(design)
    for position, part in enumerate(_broken(terms)):
        summed = [piece for term in part for piece in (PLUS, term)]
        yield Line(left, row(EQUALS, *summed[1:])) if position == 0 else Line(None, row(QUAD, *summed))


def _broken(terms: Sequence[Math]) -> list[list[Math]]:
    """Return the terms of a sum line by line, each about as wide as `LINE_WIDTH` letters."""
    lines: list[list[Math]] = [[]]
    width = 0
    for term in terms:
        letters = len(re.sub("<[^>]*>", "", term.mathml)) + 3
        if lines[-1] and width + letters > LINE_WIDTH:
            lines.append([])
            width = 0
        lines[-1].append(term)
        width += letters
    return lines


def _predictor_terms(design: Design) -> list[Math]:
    i = symbol("i")
    if len(design.coef_names) > MOST_COEFFICIENTS:
        terms = [row(sup(sub(bold("x"), i), TRANSPOSE), bold("beta"))]
    else:
        terms = [
            _times_column(sub(symbol("beta"), number(index)), name)
            for index, name in _numbered_coefficients(design.coef_names)
        ]
    if design.offset is not None:
        terms.append(sub(word("offset"), i))
    for term, places in _placed_terms(design):
        terms += [
            _times_column(_effect(term.factor, "i", place), effect)
            for effect, place in zip(term.shown_effects, places, strict=True)
        ]
    return terms


def _numbered_coefficients(names: Sequence[str]) -> list[tuple[int, str]]:
    """Return coefficients with their index: the intercept is 0, slopes count from 1."""
    slopes = (name for name in names if name != INTERCEPT)
    numbered = list(enumerate(slopes, start=1))
    return [(0, INTERCEPT), *numbered] if INTERCEPT in names else numbered


def _times_column(coefficient: Math, column: str) -> Math:
    return coefficient if column == INTERCEPT else row(coefficient, TIMES, sub(word(column), symbol("i")))


# --- group effects -------------------------------------------------------------------------------------------------


def _placed_terms(design: Design) -> list[tuple[GroupTerm, tuple[int | None, ...]]]:
    """Return every random term with the numbers of its effects within their factor; None if it has only one."""
    totals: dict[str, int] = {}
    for term in design.terms:
        totals[term.factor] = totals.get(term.factor, 0) + len(term.shown_effects)
    used = dict.fromkeys(totals, 0)
    placed: list[tuple[GroupTerm, tuple[int | None, ...]]] = []
    for term in design.terms:
        first = used[term.factor]
        used[term.factor] += len(term.shown_effects)
        numbers = tuple(range(first, used[term.factor]))
        placed.append((term, numbers if totals[term.factor] > 1 else (None,)))
    return placed


def _effect(factor: str, letter: str, place: int | None) -> Math:
    index = [at(word(factor), letter)]
    return sub(symbol("b"), *index, *([] if place is None else [number(place)]))


def _effect_sd(factor: str, place: int | None) -> Math:
    return sub(symbol("sigma"), word(factor), *([] if place is None else [number(place)]))


def _effect_lines(term: GroupTerm, places: tuple[int | None, ...], design: Design) -> Iterator[Line]:
    if term.term.structure is not None:
        yield from _related_levels(term.factor)
        return
    levels = (QUAD, *_range("j", len(term.levels)))
    structure = term.term.covariance
    if structure == "diag" or len(places) == 1:
        for place in places:
            sd = _effect_sd(term.factor, places[0] if term.term.hom else place)
            yield Line(
                _effect(term.factor, "j", place), row(SIM, call(CALLIGRAPHIC_N, number(0), squared(sd)), *levels)
            )
        return
    effects = matrix([[_effect(term.factor, "j", place)] for place in places])
    sds = [_effect_sd(term.factor, places[0] if term.term.hom else place) for place in places]
    rho, corr = sub(symbol("rho"), word(term.factor)), sub(bold("R"), word(term.factor))
    if structure == "us" and len(places) == 2:
        cross = row(rho, *sds)
        covariance = matrix([[squared(sds[0]), cross], [cross, squared(sds[1])]])
        yield Line(effects, row(SIM, call(CALLIGRAPHIC_N, bold("0"), covariance), *levels))
        return
    diagonal = sub(bold("D"), word(term.factor))
    yield Line(effects, row(SIM, call(CALLIGRAPHIC_N, bold("0"), row(diagonal, corr, diagonal)), *levels))
    yield Line(diagonal, row(EQUALS, *((sds[0], bold("I")) if term.term.hom else (call(operator("diag"), *sds),))))
    if structure in ("cs", "ar1"):
        yield _structured_correlation(term.factor, rho, structure)


def _related_levels(factor: str) -> Iterator[Line]:
    """Yield an intrinsic autoregression: Q has the numbers of neighbours on its diagonal and -1 where two meet."""
    j, k, c = symbol("j"), symbol("k"), symbol("c")
    precision = sub(bold("Q"), word(factor))
    covariance = row(squared(_effect_sd(factor, None)), sup(precision, MINUS))
    yield Line(sub(bold("b"), word(factor)), row(SIM, call(CALLIGRAPHIC_N, bold("0"), covariance)))
    diagonal = row(EQUALS, c, sub(symbol("n"), j))
    apart = row(sub(bold("Q"), word(factor), j, k), EQUALS, MINUS, c)
    yield Line(sub(bold("Q"), word(factor), j, j), row(diagonal, QUAD, apart, QUAD, j, SIM, k))


def _structured_correlation(factor: str, rho: Math, structure: str) -> Line:
    k, m = symbol("k"), symbol("m")
    element = sub(bold("R"), word(factor), k, m)
    if structure == "cs":
        return Line(element, row(EQUALS, rho, QUAD, k, NOT_EQUAL, m))
    stroke = Math("|", '<mo stretchy="false">|</mo>')
    return Line(element, row(EQUALS, sup(rho, row(stroke, k, MINUS, m, stroke))))


def _range(letter: str, count: int) -> tuple[Math, ...]:
    return (symbol(letter), EQUALS, row_tight(number(1), COMMA, DOTS, COMMA, number(count)))


# --- priors --------------------------------------------------------------------------------------------------------


def _prior_lines(design: Design, priors: PriorsLike) -> Iterator[Line]:
    numbers = {name: index for index, name in _numbered_coefficients(design.coef_names)}
    many = len(design.coef_names) > MOST_COEFFICIENTS
    placed = _placed_terms(design)
    seen: dict[int, int] = {}
    for entry in priors.entries:
        if entry.kind == "coefficient" and many:
            continue
        if entry.kind in ("intercept", "coefficient"):
            left = sub(symbol("beta"), number(numbers[entry.name]))
            if entry.kind == "intercept" and priors.centred and len(numbers) > 1:
                left = row(left, PLUS, sup(bar(bold("x")), TRANSPOSE), bold("beta"))
        elif entry.kind in ("sd", "corr"):
            term, places = placed[entry.term]
            left = (
                _corr_symbol(term)
                if entry.kind == "corr"
                else _effect_sd(term.factor, places[seen.setdefault(entry.term, 0)])
            )
            seen[entry.term] = seen.get(entry.term, 0) + (entry.kind == "sd")
        else:
            left = symbol(entry.name) if entry.name in GREEK else word(entry.name)
            if entry.name == "threshold" and priors.centred and numbers:
                left = row(left, MINUS, sup(bar(bold("x")), TRANSPOSE), bold("beta"))
        yield Line(left, row(SIM, distribution(entry.prior)))
    if many:
        k = symbol("k")
        spread = squared(sub(symbol("s"), k))
        slopes = len(design.coef_names) - ("Intercept" in design.coef_names)
        yield Line(
            sub(symbol("beta"), k), row(SIM, call(CALLIGRAPHIC_N, number(0), spread), QUAD, *_range("k", slopes))
        )


def _corr_symbol(term: GroupTerm) -> Math:
    plain = term.term.covariance in ("cs", "ar1") or len(term.effects) == 2
    return sub(symbol("rho") if plain else bold("R"), word(term.factor))


def distribution(prior: PriorLike) -> Math:
    r"""Return a prior distribution as mathematics.

    Parameters
    ----------
    prior : Prior
        With a name and parameters as in PyMC.

    Returns
    -------
    Math
        Half-distributions as "half-" their whole; SDs of normals as squares.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> print(distribution(blm.Prior("HalfNormal", sigma=5)).latex)
    \operatorname{half-}\mathcal{N}(0,\ 5^{2})
    """
    args = {name: _argument(value) for name, value in prior.args.items()}
    zero, half = number(0), operator("half-")
    match prior.name:
        case "Normal":
            return call(CALLIGRAPHIC_N, args.get("mu", zero), squared(args["sigma"]))
        case "HalfNormal":
            return call(row_tight(half, CALLIGRAPHIC_N), zero, squared(args["sigma"]))
        case "StudentT":
            return call(sub(symbol("t"), args["nu"]), args.get("mu", zero), args["sigma"])
        case "HalfStudentT":
            return call(row_tight(half, sub(symbol("t"), args["nu"])), zero, args["sigma"])
        case "HalfCauchy":
            return call(operator("half-Cauchy"), zero, args["beta"])
        case "Flat" | "HalfFlat":
            return operator("flat")
    return call(operator(prior.name), *args.values())


def _argument(value: Any) -> Math:
    if isinstance(value, int | float):
        return number(value)
    return distribution(value) if isinstance(value, PriorLike) else word(str(value))


def _mathml_row(line: Line) -> str:
    left = "" if line.left is None else _mathml(line.left)
    return f'<tr><td class="left">{left}</td><td>{_mathml(line.right)}</td></tr>'


def _mathml(part: Math) -> str:
    return f'<math displaystyle="true">{part.mathml}</math>'
