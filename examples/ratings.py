# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Ratings: from one grouping factor to three that cross
#
# 73,421 ratings of lectures at ETH Zurich, from 1 (poor) to 5 (very good), by 2,972 students of 1,128 lecturers in 14
# departments. `lectage_num` says how many semesters ago the lecture was, `service` whether it was held for another
# department.

# %%
import bayeslmm as blm

ratings = blm.datasets.load("InstEval")
ratings.head()

# %% [markdown]
# ## Departments: intercepts, slopes, or both
#
# Three readings of "departments differ". Their levels differ:

# %%
intercepts = blm.model("y ~ lectage_num + service + (1 | dept)", ratings).fit()
intercepts.varcorr

# %% [markdown]
# The effect of time differs, from a common level today (`-1` or `0` takes the intercept out):

# %%
slopes = blm.model("y ~ lectage_num + service + (-1 + lectage_num | dept)", ratings).fit()
slopes.varcorr

# %% [markdown]
# Both differ, and may be correlated:

# %%
both = blm.model("y ~ lectage_num + service + (lectage_num | dept)", ratings).fit()
both.summary()

# %% [markdown]
# The standard error of `lectage_num` is three times larger when departments may differ in it: the effective sample
# for a slope that varies is 14 departments, not 73,421 ratings.

# %%
{
    name: float(f.vcov.loc["lectage_num", "lectage_num"] ** 0.5)
    for name, f in (("intercepts", intercepts), ("both", both))
}

# %% [markdown]
# The models are nested, so a likelihood ratio compares them. All three have the same fixed part, so REML will do.

# %%
blm.anova(intercepts, both, refit_ml=False)

# %% [markdown]
# ## Students and lecturers cross
#
# Every student rates several lecturers and every lecturer is rated by many students: neither is nested in the other.
# The formula just adds terms. The model says how it will be stored: a sparse part and a dense one, chosen from the
# pattern of who rated whom.

# %%
crossed = blm.model("y ~ 1 + service + (1 | s) + (1 | d) + (1 | dept)", ratings)
crossed

# %%
fit = crossed.fit()
fit.summary()

# %% [markdown]
# Lecturers differ most (SD 0.51 of a mark), students less (0.33), departments hardly (0.08): what looked like
# differences between departments is mostly who teaches there.

# %%
fit.icc()

# %% [markdown]
# The twelve lecturers with the clearest departures, with intervals from the conditional standard deviations:

# %%
modes, spread = fit.ranef["d"]["Intercept"], fit.ranef.sd["d"]["Intercept"]
clear = (modes / spread).abs().sort_values(ascending=False).index[:12]
modes.to_frame("effect").assign(sd=spread, ratings=ratings["d"].value_counts()).loc[clear].round(3)

# %% [markdown]
# ## The posterior of 4,117 parameters
#
# One evaluation of this likelihood costs tens of milliseconds, so `sample()` proposes independent points that
# follow the posterior along its axes and corrects them by importance weights; coefficients and all group effects are
# drawn exactly. A hundred draws per chain are a sketch; ask for more when you publish.

# %%
post = crossed.sample(100, seed=1, method="proposals", progress=False)
blm.compare(fit, post)

# %% [markdown]
# A league table with its uncertainty: the place of each lecturer, draw by draw. The interval of the "best" one
# reaches from first to well down the list, and that is the honest answer to a request for rankings.

# %%
post.ranks("d").head()
