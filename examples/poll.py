# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A poll: from frame to map
#
# Multilevel regression and poststratification (MRP) turns a national poll into estimates for states. The model
# borrows across states and groups; the census then says how many people of each kind live where. The poll here is
# simulated, with states, opinions and a response rate that rises with age and education, so that estimates can be
# held against the truth.

# %%
import bayeslmm as blm

simulated = blm.datasets.simulate_poll(1500, seed=3)
poll, people = simulated.poll, simulated.population
poll.head()

# %% [markdown]
# ## 1. State predictors, standardised once
#
# The state's past vote is joined to poll and census from one table, with one set of moments. Scaling the two
# separately is a mistake that has been published.

# %%
states = blm.group_predictors(simulated.states[["state", "repvote"]], on="state")
survey = states.join(poll)
frame = blm.PoststratFrame(people.drop(columns="p"), counts="n").join(states)
frame

# %% [markdown]
# ## 2. The model

# %%
formula = "yes ~ sex + repvote + (1 | state) + (1 | age) + (1 | educ) + (1 | age:educ)"
model = blm.model(formula, survey, family="bernoulli")
frame.check(model)

# %% [markdown]
# ## 3. A draft in no time
#
# `fit()` finds the modes by Laplace's approximation. Good for trying models; its intervals take the standard
# deviations as known, and the result says so. Here it also warns that one of them is estimated at zero: with so few
# groups the modes cannot tell a small spread from none. The posterior below can.

# %%
draft = blm.poststratify(model.fit(), frame, by="state", new_levels="sample", seed=1)
draft.to_pandas().head().round(3)

# %% [markdown]
# ## 4. The posterior

# %%
post = model.sample(300, chains=2, seed=1, progress=False)
estimates = blm.poststratify(post, frame, by="state", new_levels="sample", seed=1)
ax = estimates.plot()
# %% [markdown]
# ## 5. Against the truth
#
# The raw share of yes in a state with five respondents is no estimate at all. MRP moves it to what people like them
# say elsewhere.

# %%
truth = simulated.truth("state")
errors = estimates.against(truth)
errors[["error", "raw_error"]].abs().mean().rename("mean absolute error").round(3)

# %%
errors[["covered_50", "covered_90"]].mean().rename("intervals that hold the truth").round(2)

# %% [markdown]
# ## 6. What people ask next
#
# Differences, probabilities and ranks are computed draw by draw.

# %%
estimates.difference("CA", "TX")

# %%
print("P(CA above TX) =", round(float(estimates.probability_greater("CA", "TX")), 3))

# %%
blm.poststratify(post, frame, by=["age", "educ"], new_levels="sample", seed=1)

# %% [markdown]
# ## 7. The map

# %%
ax = estimates.plot_states()
