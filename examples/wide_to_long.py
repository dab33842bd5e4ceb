# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # From wide to long, and what "fixed" and "random" mean to whom
#
# Growth of the jaw of 27 children, measured at ages 8, 10, 12 and 14 (Potthoff & Roy 1964). Such data often arrive
# wide: one row per child. Multilevel models want them long: one row per measurement.

# %%
import numpy as np
import pandas as pd

import bayeslmm as blm

children = blm.datasets.load("Orthodont")
wide = children.pivot(index=["Subject", "Sex"], columns="age", values="distance").add_prefix("distance_").reset_index()
wide.columns = [str(name).removesuffix(".0") for name in wide.columns]
wide.head(3)

# %% [markdown]
# `pandas.wide_to_long` turns columns into rows. A missing measurement becomes a missing row, and the child stays in
# the analysis with the others: one reason to leave repeated-measures ANOVA.

# %%
long = pd.wide_to_long(wide, stubnames="distance", i="Subject", j="age", sep="_").reset_index()
long.sort_values(["Subject", "age"]).head()

# %% [markdown]
# ## Two kinds of covariates
#
# `age` changes within a child: time-varying. `Sex` does not: time-invariant. The first is estimated from differences
# within and between children, the second only from differences between them. So its standard error depends on the
# number of children, 27, whatever the number of rows.

# %%
long["year"] = long["age"] - 11
fit = blm.model("distance ~ year * Sex + (year | Subject)", long).fit()
fit.summary(ddf="kenward-roger")

# %% [markdown]
# The degrees of freedom in the table show it: about 25 for `Sex`, which is 27 children less two.
#
# ## Within and between
#
# A coefficient of a time-varying covariate mixes two questions: do women earn more *when* they have more tenure, and
# do women *with* more tenure earn more? Add the mean of each group (Mundlak) to keep them apart.

# %%
wages = blm.datasets.load("nlswork")[["idcode", "ln_wage", "tenure", "ttl_exp"]].dropna()
wages["tenure_mean"] = wages.groupby("idcode")["tenure"].transform("mean")
mixed = blm.model("ln_wage ~ tenure + (1 | idcode)", wages).fit()
mundlak = blm.model("ln_wage ~ tenure + tenure_mean + (1 | idcode)", wages).fit()
pd.DataFrame({"random effects": mixed.fixef, "with group means": mundlak.fixef}).round(4)

# %% [markdown]
# In the second column `tenure` is the effect within women: exactly what econometricians call the fixed-effects or
# within estimator. `tenure_mean` is how far the effect between women differs from it. If it is not zero, the first
# column is a mixture; testing it is the regression form of Hausman's test.

# %%
centred = wages["tenure"] - wages["tenure_mean"]
within = float((centred @ wages["ln_wage"]) / (centred @ centred))
print(f"within estimator {within:.6f}, mundlak {mundlak.fixef['tenure']:.6f}")
assert np.isclose(within, mundlak.fixef["tenure"], rtol=1e-3)

# %%
mundlak.test("tenure_mean = 0")

# %% [markdown]
# ## A vocabulary
#
# | word | to a statistician | to an econometrician |
# |---|---|---|
# | fixed effects | coefficients common to all groups (`fixef`) | one dummy per group: the within estimator |
# | random effects | effects drawn from a distribution (`ranef`) | `xtreg, re`: effects unrelated to the predictors |
# | mixed, multilevel, hierarchical | a model with both | rarely used; panel data with random coefficients |
# | level 1, level 2 | rows, groups | time, unit |
# | growth curve | random slope of time | random trend |
# | shrinkage, BLUP, partial pooling | `ranef`: the conditional mean of the effects | empirical Bayes |
#
# Neither side is wrong. With the group means in the model, the two camps agree about the effect within groups, and
# the statistician's model also tells about the groups.
