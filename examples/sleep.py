# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Sleep in ten lines
#
# Reaction times of 18 people over ten days of little sleep (Belenky et al. 2003): everyone gets slower, not everyone
# at the same rate.

# %%
import bayeslmm as blm

sleep = blm.datasets.load("sleepstudy")
model = blm.model("Reaction ~ Days + (Days | Subject)", sleep)
fit = model.fit()
fit.summary()

# %%
post = model.sample(seed=1, progress=False)
blm.compare(fit, post)

# %%
blm.teach.pooling(fit, "Days", groups=18, columns=6)

# %% [markdown]
# What a hundred milliseconds cost: the expected slowing over nine days, person by person, with its posterior
# interval.

# %%
first, last = (sleep[sleep.Days == day].reset_index(drop=True) for day in (0, 9))
slowing = post.epred_draws(last) - post.epred_draws(first)
first[["Subject"]].assign(mean=slowing.mean(0), sd=slowing.std(0)).round(1).sort_values("mean").head()
