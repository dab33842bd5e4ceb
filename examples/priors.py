# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Priors, and what they do with few groups
#
# Six batches of a dye (Davies & Goldsmith 1972). Six batches say little about how much batches vary: here the prior
# on the standard deviation matters, and it is honest to look at it.

# %%
import bayeslmm as blm

dye = blm.datasets.load("Dyestuff")
model = blm.model("Yield ~ 1 + (1 | Batch)", dye)
model.priors

# %% [markdown]
# ## What the likelihood says
#
# REML and ML ask the same question and answer 42.0 and 37.3: ML forgets that the mean was estimated from the same six
# batches. Both curves rise slowly to the right: the data can rule out small values, hardly large ones.

# %%
blm.teach.sd_likelihood(model)

# %% [markdown]
# ## Four priors
#
# Each panel multiplies the same likelihood by another prior. The default, a half-t scaled by the spread of the data,
# and a uniform prior let the data speak. A half-normal that says "batches hardly differ" overrules them.

# %%
priors = {
    "default": next(entry.prior for entry in model.priors.entries if entry.kind == "sd"),
    "uniform": blm.Prior("Uniform", lower=0, upper=500),
    "exponential": blm.Prior("Exponential", lam=1 / 50),
    "too sure": blm.Prior("HalfNormal", sigma=10),
}
seen = blm.teach.prior_to_posterior(model, priors)
seen

# %%
seen.table().round(1)

# %% [markdown]
# ## In the posterior of everything
#
# The standard deviation of the batches decides how far they are pulled to the mean. So the prior on it moves the
# batches, too.

# %%
import pandas as pd

posts = {
    label: model.with_priors(sd_Batch=prior).sample(500, seed=1, progress=False)
    for label, prior in priors.items()
    if label in ("default", "too sure")
}
pd.DataFrame({label: post.ranef["Batch"]["Intercept"] for label, post in posts.items()}).round(1)

# %% [markdown]
# ## When REML says zero
#
# In `Dyestuff2` the batches differ less than chance would have them, and REML puts the standard deviation at zero:
# nobody believes it is exactly zero. The posterior has no such point mass, and `compare` says what happened.

# %%
flat = blm.model("Yield ~ 1 + (1 | Batch)", blm.datasets.load("Dyestuff2"))
blm.compare(flat.fit(), flat.sample(500, seed=1, progress=False))

# %% [markdown]
# ## How to choose
#
# 1. Think in units of the response: what SD between groups would surprise you?
#    `blm.pc_prior(upper)` turns "larger than this has a chance of 5 %" into a prior.
# 2. With thirty groups or more, any of the reasonable ones will do. Check by trying two.
# 3. With fewer than ten, report the posterior under two priors.
