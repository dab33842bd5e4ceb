# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # An election: from a poll and a census to a map
#
# What share of the vote did Trump get in each state in 2016? We take a poll of 1,500 voters and go the whole way an
# analyst goes: recode the survey, make the population's cells, check that the two agree, fit, poststratify, compare
# with the result, draw, hand on. The data are real:
#
# | what | source |
# |---|---|
# | respondents | Cooperative Congressional Election Study 2016, 64,600 people, published in the R package stevedata |
# | college graduates by state | US Census Bureau, in `election_turnout` of stevedata |
# | vote of 2012 by state | David Leip's Atlas of U.S. Presidential Elections, in the R package pscl |
# | result of 2016 by state | `results_us_election_2016` of the R package dslabs |
#
# `blm.datasets.describe("cces2016")` and `describe("states2016")` say what each column means.

# %%
import pandas as pd

import bayeslmm as blm

cces, states = blm.datasets.load("cces2016"), blm.datasets.load("states2016")
voters = cces.dropna(subset=["trump"])
len(cces), len(voters)

# %% [markdown]
# ## 1. The survey in the census's words
#
# `recode` keeps an audit of what became of every value, and of how many rows it touched: here of race, of age likewise.

# %%
AGES = {17: "18-29", 29: "30-44", 44: "45-64", 64: "65+"}
recoding = blm.recode(
    voters,
    {
        "race": dict.fromkeys(("Asian", "Mixed", "Native American", "Middle Eastern"), "Other"),
        "age": lambda years: next(name for above, name in reversed(AGES.items()) if years > above),
    },
)
recoding.audit.query("column == 'race'")

# %%
poll = recoding.data.sample(1500, random_state=2)
poll.head()

# %% [markdown]
# ## 2. The population as cells
#
# No census table crosses all five variables by state. The joint distribution is taken from the large survey, and raked
# to what the census knows and surveys get wrong: how many people have a college degree in each state.

# %%
large = blm.PoststratFrame.from_microdata(recoding.data, ["state", "sex", "age", "race", "college"])
people = large.by("state").data.merge(states[["state", "college"]], on="state").astype({"state": str})
margin = pd.concat(
    [
        people.assign(n=people["n"] * people["college"], college="yes"),
        people.assign(n=people["n"] * (1 - people["college"]), college="no"),
    ]
)
frame = large.rake_to([margin])
frame.history[-1]

# %%
surveyed, census = (table.by("college").data.set_index("college")["n"] for table in (large, frame))
pd.DataFrame({"survey": surveyed / surveyed.sum(), "census": census / census.sum()}).round(3)

# %% [markdown]
# ## 3. What is known of states
#
# The vote of 2012, standardised once over the states and joined to both sides from one table. Scaling survey and census
# separately gives one state two values, a mistake that has been published.

# %%
past = blm.group_predictors(states[["state", "region", "obama2012"]], on="state")
frame = frame.join(past)
model = blm.model(
    "trump ~ sex + obama2012 + (1 | state) + (1 | region) + (1 | age) + (1 | race) + (1 | college)"
    " + (1 | race:college)",
    past.join(poll),
    family="bernoulli",
)
frame.check(model)

# %% [markdown]
# ## 4. A draft, then the posterior
#
# `fit()` takes a second and is good for trying models; its intervals take the standard deviations as known. It warns
# that some of them are estimated at zero: with so few groups the modes cannot tell a small spread from none. The
# posterior can, and is what gets published.

# %%
draft = blm.poststratify(model.fit(), frame, by="state", new_levels="sample", seed=1)
post = model.sample(500, chains=2, seed=1, progress=False)
estimates = blm.poststratify(post, frame, by="state", new_levels="sample", seed=1)
estimates.summary(sort=True)

# %% [markdown]
# ## 5. Against the result
#
# The raw shares of a state with twenty respondents are off by more than ten points. The model halves that.

# %%
result = states.rename(columns={"trump2016": "truth"})
errors = estimates.against(result)
(100 * errors[["error", "raw_error"]].abs().mean()).rename("mean absolute error, points").round(1)

# %%
ax = estimates.plot_raw()

# %%
ax = estimates.plot(truth=result.set_index("state")["truth"])

# %% [markdown]
# What remains has a direction: Trump's share is too low in most states. Poststratification puts right what the census
# knows, education above all; it cannot know that his voters answered less often than others of the same education, and
# intervals do not include that error: those of 90 % hold the result in only half of the states. It is the error of the
# polls of 2016.

# %%
print("mean error:", round(100 * errors["error"].mean(), 1), "points")
errors[["covered_50", "covered_90"]].mean().rename("intervals that hold the result").round(2)

# %% [markdown]
# ## 6. What people ask next
#
# Differences, probabilities and ranks are computed draw by draw; so is any other grouping of the same cells.

# %%
estimates.difference("OH", "PA")

# %%
print("P(Ohio above Pennsylvania) =", round(estimates.probability_greater("OH", "PA"), 2))
estimates.probability(above=0.5).sort_values(ascending=False).head()

# %%
by_education = blm.poststratify(post, frame, by=["race", "college"], margins=True, seed=1, new_levels="sample")
by_education.summary()

# %%
by_education.contrast("college", "yes", "no")

# %% [markdown]
# ## 7. The map, and the table to hand on

# %%
ax = estimates.plot_states(limits=(0.3, 0.6))

# %%
table = estimates.to_pandas().merge(states[["state", "trump2016"]], on="state")
table.round(3).head()
