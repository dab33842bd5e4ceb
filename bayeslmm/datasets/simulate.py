"""A population, an unrepresentative poll of it, and the truth: for teaching and for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError, did_you_mean

REGIONS: Mapping[str, str] = {
    "Midwest": "IA IL IN KS MI MN MO ND NE OH SD WI",
    "Northeast": "CT MA ME NH NJ NY PA RI VT",
    "South": "AL AR DC DE FL GA KY LA MD MS NC OK SC TN TX VA WV",
    "West": "AK AZ CA CO HI ID MT NM NV OR UT WA WY",
}
SIZES = {"CA": 12.0, "TX": 9.0, "FL": 6.6, "NY": 6.0, "PA": 4.0, "IL": 3.9, "OH": 3.6, "GA": 3.3, "NC": 3.2, "MI": 3.1}
"""Shares in percent of the largest states; the others share the rest at random."""
LEVELS: Mapping[str, tuple[str, ...]] = {
    "sex": ("female", "male"),
    "age": ("18-29", "30-44", "45-64", "65+"),
    "educ": ("no HS", "HS", "some college", "college"),
}
SHARES = {"sex": (0.51, 0.49), "age": (0.20, 0.25, 0.33, 0.22), "educ": (0.10, 0.28, 0.29, 0.33)}
RESPONSE = {"sex": (0.0, -0.1), "age": (-0.8, -0.3, 0.2, 0.6), "educ": (-1.0, -0.4, 0.1, 0.6)}
"""Log odds, up to a constant, of answering the poll: the old and the educated answer more."""
OPINION_SD = {"state": 0.3, "age": 0.4, "educ": 0.4, "age:educ": 0.15, "state:age": 0.15}
REPVOTE_SLOPE, MALE_EFFECT = -0.5, -0.3


@dataclass(frozen=True)
class SimulatedPoll:
    """A poll whose population and truth are known.

    Parameters
    ----------
    poll : DataFrame
        One row per respondent: `yes` (0 or 1), `state`, `sex`, `age`, `educ`, and `weight`, which undoes the
        nonresponse.
    population : DataFrame
        One row per cell: `state`, `sex`, `age`, `educ`, `n` people, and `p`, the true share of yes.
    states : DataFrame
        One row per state: `state`, `region`, `repvote` (standardised), known to the analyst.
    effects : mapping of str to Series
        The effects that made the truth, in logits.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> simulated = blm.datasets.simulate_poll(800, seed=1)
    >>> len(simulated.poll), len(simulated.population), len(simulated.states)
    (800, 1632, 51)
    >>> simulated.truth("state").columns.tolist()
    ['state', 'truth']
    """

    poll: pd.DataFrame
    population: pd.DataFrame
    states: pd.DataFrame
    effects: Mapping[str, pd.Series]

    def truth(self, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Return the true share of yes.

        Parameters
        ----------
        by : str or sequence of str, optional
            Columns of the population; the whole when absent.

        Returns
        -------
        DataFrame
            Columns of `by` and `truth`.

        Raises
        ------
        DataError
            If a column is not there.
        """
        names = [by] if isinstance(by, str) else list(by or ())
        for name in names:
            if name not in self.population.columns:
                hint = did_you_mean(name, self.population.columns)
                raise DataError(f"the population has no column {name!r}. {hint}".rstrip())
        yes = self.population["p"] * self.population["n"]
        if not names:
            return pd.DataFrame({"truth": [yes.sum() / self.population["n"].sum()]})
        sums = self.population.assign(yes=yes).groupby(names, sort=True)[["yes", "n"]].sum()
        return (sums["yes"] / sums["n"]).rename("truth").reset_index()


def simulate_poll(
    n: int = 1500, *, seed: int | None = None, people: int = 250_000_000, nonresponse: float = 1.0
) -> SimulatedPoll:
    """Simulate a national poll in which the old and the educated answer more often.

    Opinion follows a multilevel logistic model, yes ~ sex + repvote + (1 | state) + (1 | age) + (1 | educ) +
    (1 | age:educ) + (1 | state:age), with effects drawn anew from normal distributions for every seed. States, sexes,
    ages and education are made up but for the names of the states.

    Parameters
    ----------
    n : int, default 1500
        Respondents.
    seed : int, optional
        Makes population, truth and poll reproducible.
    people : int, default 250,000,000
        Size of the population.
    nonresponse : float, default 1
        How strongly answering depends on sex, age and education; 0 gives a simple random sample.

    Returns
    -------
    SimulatedPoll
        Poll, population with the truth, states.

    Raises
    ------
    DataError
        If `n` or `people` is not positive.

    Examples
    --------
    >>> import bayeslmm as blm
    >>> simulated = blm.datasets.simulate_poll(2000, seed=3)
    >>> (simulated.poll["educ"] == "college").mean() > 0.4
    np.True_
    """
    if n < 1 or people < 1:
        raise DataError(f"a poll needs respondents and people; got n={n} and people={people}.")
    rng = np.random.default_rng(seed)
    states = _states(rng)
    population = _population(rng, states["state"].tolist(), people)
    effects = _effects(rng, population)
    population["p"] = _opinion(population, states, effects)
    answering = {name: pd.Series(values, index=LEVELS[name]) for name, values in RESPONSE.items()}
    propensity = np.exp(nonresponse * _sum_of_effects(population, answering))
    poll = _draw_poll(rng, population, propensity, n)
    return SimulatedPoll(poll, population, states, effects)


def _states(rng: np.random.Generator) -> pd.DataFrame:
    rows = sorted((state, region) for region, names in REGIONS.items() for state in names.split())
    table = pd.DataFrame(rows, columns=["state", "region"])
    lean = {"Midwest": 0.3, "Northeast": -0.8, "South": 0.6, "West": -0.1}
    vote = table["region"].map(lean).to_numpy() + 0.8 * rng.standard_normal(len(table))
    table["repvote"] = (vote - vote.mean()) / vote.std(ddof=1)
    return table


def _population(rng: np.random.Generator, states: list[str], people: int) -> pd.DataFrame:
    small = [state for state in states if state not in SIZES]
    rest = (100 - sum(SIZES.values())) * rng.dirichlet(np.full(len(small), 1.5))
    size = pd.Series({**SIZES, **dict(zip(small, rest, strict=True))}) / 100
    index = pd.MultiIndex.from_product([states, *LEVELS.values()], names=["state", *LEVELS])
    cells = index.to_frame(index=False)
    share = cells["state"].map(size).to_numpy()
    for name, levels in LEVELS.items():
        by_state = rng.dirichlet(150 * np.array(SHARES[name]), len(states))
        share = share * by_state[cells["state"].map(states.index), cells[name].map(levels.index)]
    cells["n"] = np.maximum(1, np.round(people * share)).astype(np.int64)
    return cells


def _effects(rng: np.random.Generator, cells: pd.DataFrame) -> dict[str, pd.Series]:
    effects = {}
    for factor, sd in OPINION_SD.items():
        levels = list(dict.fromkeys(_key(cells, factor)))
        effects[factor] = pd.Series(sd * rng.standard_normal(len(levels)), index=levels)
    return effects


def _key(cells: pd.DataFrame, factor: str) -> list[str]:
    columns = [cells[name] for name in factor.split(":")]
    return [":".join(values) for values in zip(*columns, strict=True)]


def _sum_of_effects(cells: pd.DataFrame, effects: Mapping[str, pd.Series]) -> NDArray[np.float64]:
    return np.sum([effect.loc[_key(cells, factor)].to_numpy() for factor, effect in effects.items()], axis=0)


def _opinion(cells: pd.DataFrame, states: pd.DataFrame, effects: Mapping[str, pd.Series]) -> NDArray[np.float64]:
    repvote = states.set_index("state")["repvote"].loc[cells["state"]].to_numpy()
    eta = REPVOTE_SLOPE * repvote + MALE_EFFECT * (cells["sex"] == "male").to_numpy() + _sum_of_effects(cells, effects)
    return 1 / (1 + np.exp(-eta))


def _draw_poll(rng: np.random.Generator, cells: pd.DataFrame, propensity: NDArray[np.float64], n: int) -> pd.DataFrame:
    chance = cells["n"].to_numpy() * propensity
    rows = rng.choice(len(cells), n, p=chance / chance.sum())
    poll = cells.loc[rows, ["state", *LEVELS]].reset_index(drop=True)
    poll.insert(0, "yes", rng.binomial(1, cells["p"].to_numpy()[rows]))
    weight = 1 / propensity[rows]
    poll["weight"] = weight / weight.mean()
    return poll
