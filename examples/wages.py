# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Wages: growth, robust standard errors, and who the effect is for
#
# 4,710 young women of the United States were interviewed up to fifteen times between 1968 and 1988. The data are
# those of Stata's manuals (`webuse nlswork`), and the first model is printed there: the numbers below are the same.

# %%
import numpy as np
import pandas as pd

import bayeslmm as blm

wages = blm.datasets.load("nlswork")
wages[["idcode", "year", "age", "race", "grade", "ttl_exp", "tenure", "ln_wage"]].head()

# %% [markdown]
# ## The model that Stata prints
#
# `mixed ln_wage ttl_exp i.race age || idcode:` is maximum likelihood by default, so ask for it.

# %%
fit = blm.model("ln_wage ~ ttl_exp + C(race) + age + (1 | idcode)", wages).fit(reml=False)
fit.summary()

# %% [markdown]
# The last line of Stata's output tests the random effect against ordinary regression:

# %%
fit.lr_test()

# %% [markdown]
# ## Standard errors that do not trust the model
#
# Wages of one woman are correlated beyond a constant level: shocks last for a year or two. The cluster sandwich
# allows any pattern within a woman. For experience it is a third larger; the model-based standard error was too sure.

# %%
robust = fit.robust("idcode", type="CR1")
robust

# %% [markdown]
# ## Growth
#
# Do women differ in how their wages grow? Years are counted from 1968 in decades, so that the intercept means
# something and the scales of the effects are alike.

# %%
wages["decade"] = (wages["year"] - 68) / 10
flat = blm.model("ln_wage ~ decade + grade + (1 | idcode)", wages).fit()
growth = blm.model("ln_wage ~ decade + grade + (decade | idcode)", wages).fit()
blm.anova(flat, growth, refit_ml=False)

# %%
growth.varcorr

# %% [markdown]
# The average growth is the fixed effect of `decade`. Its standard deviation between women is half as large again: the
# wages of some women fell in real terms.

# %%
mean, sd = growth.fixef["decade"], float(growth.varcorr.entries[0].sd[1])
print(
    f"growth {mean:.3f} a decade, SD {sd:.3f}: 95 % of women between {mean - 1.96 * sd:.2f} and {mean + 1.96 * sd:.2f}"
)

# %% [markdown]
# ## A cross-level interaction
#
# Does schooling, a property of the woman, explain why growth differs? `decade * grade` asks it. The standard
# deviation of the slopes says how much is left unexplained.

# %%
cross = blm.model("ln_wage ~ decade * grade + (decade | idcode)", wages).fit()
blm.anova(growth, cross)

# %%
pd.DataFrame(
    {name: f.varcorr.entries[0].sd for name, f in (("growth", growth), ("cross-level", cross))}, ["level", "growth"]
)

# %% [markdown]
# It matters, and it explains hardly any of the spread: the standard deviation of growth is nearly what it was. A
# small p-value of a cross-level interaction is not a large share of the differences.

# %% [markdown]
# ## Prediction
#
# For a woman in the data the prediction uses her own effects; for a new one it cannot. `new_levels="zero"` is the
# average woman, `"sample"` widens the interval by what is not known about her.

# %%
ahead = pd.DataFrame({"idcode": [1, 1], "decade": [2.0, 2.5], "grade": [12.0, 12.0]})
growth.predict(ahead, interval="prediction").round(3)

# %%
stranger = ahead.assign(idcode=-1)
growth.predict(stranger, new_levels="sample", interval="prediction").round(3)

# %% [markdown]
# On the scale of wages: the log of the wage is modelled, so exponentiated means are medians of the wage.

# %%
np.exp(growth.predict(ahead)).round(2)
