# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Schools: why multilevel?
#
# 2,287 Dutch pupils sat a language test in 133 classes (Snijders & Bosker 1999). Pupils of one class share a teacher,
# so their scores are alike beyond what IQ and family explain. One regression for all pupils ignores that; one
# regression per class throws away what the classes have in common. A multilevel model stands between the two, and the
# data say where.

# %%
import bayeslmm as blm

schools = blm.datasets.load("nlschools")
schools.head()

# %% [markdown]
# ## Three ways to pool
#
# `lang` is the score, `IQ` the verbal IQ, `GS` the size of the class, `SES` the family's status, `COMB` whether two
# grades are taught together. The random term `(1 | class)` gives every class its own level, drawn from a common
# distribution.

# %%
model = blm.model("lang ~ IQ + GS + SES + COMB + (1 | class)", schools)
model

# %%
model.equation()

# %%
fit = model.fit()
fit.summary()

# %% [markdown]
# The number in brackets is the size of the class. With four pupils the line of the class alone (dashed) is nonsense;
# the multilevel line (solid) borrows from the others. With thirty-three they nearly agree.

# %%
blm.teach.pooling(fit, "IQ")

# %% [markdown]
# How much is borrowed depends on the standard deviation of the classes: at zero all classes are the same (complete
# pooling), when it is large every class stands alone (no pooling). In a notebook, `blm.teach.shrinkage(fit).slider()`
# lets you turn the knob.

# %%
blm.teach.shrinkage(fit)

# %% [markdown]
# ## Was it needed?
#
# The likelihood ratio against ordinary regression is enormous. A variance cannot be negative, so its null
# distribution is half a point mass at zero and half a χ² with one degree of freedom: Stata writes chibar2(01).

# %%
ml = model.fit(reml=False)
ml.lr_test()

# %% [markdown]
# Does IQ belong in the model? Models with different fixed parts are compared by ML; `anova` refits REML fits and says
# so.

# %%
without_iq = blm.model("lang ~ GS + SES + COMB + (1 | class)", schools)
slopes = blm.model("lang ~ IQ + GS + SES + COMB + (IQ | class)", schools)
comparison = blm.anova(without_iq.fit(reml=False), ml)
comparison

# %% [markdown]
# And should the slope of IQ differ between classes? AIC and BIC stand in the same table: smaller is better.

# %%
blm.anova(ml, slopes.fit(reml=False))

# %% [markdown]
# AIC says yes, BIC no: there is something there, and it is small. The likelihood ratio in the last column takes into
# account that a variance sits on the boundary when there is nothing.

# %% [markdown]
# ## What share of the variance is the class?

# %%
fit.icc()

# %%
ax = fit.variance_partition().plot()
# %% [markdown]
# ## The same model, as a posterior
#
# REML gives a best value with a standard error. The posterior gives a distribution, the standard deviation of the
# classes included. With 133 classes the two should agree, and `compare` looks for places where they do not.

# %%
post = model.sample(seed=1, progress=False)
post.summary()

# %%
both = blm.compare(fit, post)
both

# %%
both.plot_panels()

# %% [markdown]
# ## Does the model look like the data?
#
# Scores simulated from the posterior (light) beside the observed ones. The test has a ceiling, and the model does not
# know it: the left tail is heavier than simulated, and simulated scores run past the highest mark. The averages of
# classes, which the model is about, are not harmed by this; predictions for the best pupils are.

# %%
plot = post.plot_ppc()
# %%
fit.audit()
