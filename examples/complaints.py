# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Complaints: a binary outcome in restaurants
#
# A chain wants to know why customers complain. Its data have one row per server: was there a complaint, with the
# server's grade, race, gender, tenure, age and income, and for each restaurant the gender of the manager and the
# number of workers. The columns are those of an exercise in Stata's course on multilevel models; the values here are
# simulated, so that we know the truth.

# %%
import numpy as np
import pandas as pd

import bayeslmm as blm

TRUTH = {"Intercept": -1.2, "grade": -0.25, "tenure": -0.12, "male": 0.3, "manager_male": 0.4, "sd_restaurant": 0.7}


def simulate(restaurants=60, seed=4):
    rng = np.random.default_rng(seed)
    workers = rng.integers(6, 40, restaurants)
    level = TRUTH["sd_restaurant"] * rng.standard_normal(restaurants)
    manager = rng.random(restaurants) < 0.55
    place = np.repeat(np.arange(restaurants), workers)
    n = len(place)
    servers = pd.DataFrame(
        {
            "restaurant": [f"R{i:02d}" for i in place],
            "grade": rng.integers(1, 6, n),
            "race": rng.choice(["asian", "black", "hispanic", "white"], n, p=[0.1, 0.2, 0.3, 0.4]),
            "gender": np.where(rng.random(n) < 0.45, "male", "female"),
            "tenure": rng.gamma(2.0, 1.5, n).round(),
            "age": rng.integers(18, 60, n),
            "manager": np.where(manager, "male", "female")[place],
            "workers": workers[place],
        }
    )
    servers["income"] = (18 + 1.2 * servers.grade + 0.6 * servers.tenure + rng.normal(0, 2, n)).round(1)
    eta = TRUTH["Intercept"] + level[place] + TRUTH["grade"] * (servers.grade - 3) + TRUTH["tenure"] * servers.tenure
    eta += TRUTH["male"] * (servers.gender == "male") + TRUTH["manager_male"] * (servers.manager == "male")
    servers["complaint"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    return servers


servers = simulate()
servers.head()

# %% [markdown]
# ## First, forget the restaurants?
#
# Complaints come from the same kitchens and the same managers. The multilevel logistic model gives each restaurant a
# level of its own on the scale of log odds.

# %%
formula = "complaint ~ grade + race + gender + tenure + age + income + manager + workers + (1 | restaurant)"
model = blm.model(formula, servers, family="bernoulli")
fit = model.fit()
fit.summary()

# %% [markdown]
# ## Odds ratios
#
# A coefficient is a difference in log odds; its exponential multiplies the odds. The intervals are those of the
# coefficients, transformed, so that they are never below zero.

# %%
fit.summary(exp=True)

# %% [markdown]
# These are comparisons *within* a restaurant, or between restaurants with the same level. Averaged over restaurants
# the same model gives probabilities that are closer to one half.

# %%
typical = servers.iloc[[0, 0]].assign(gender=["female", "male"])
pd.DataFrame(
    {
        "gender": typical.gender.to_numpy(),
        "in an average restaurant": fit.predict(typical, include=[]),
        "averaged over restaurants": fit.population_average(typical),
    }
).round(3)

# %% [markdown]
# ## Was the random effect needed?
#
# The same model without restaurants is logistic regression. Twice the difference in log-likelihood has half a point
# mass at zero when there are no differences between restaurants, so the p-value of a χ² is halved.

# %%
small = blm.model("complaint ~ grade + gender + tenure + manager + (1 | restaurant)", servers, family="bernoulli")
multilevel = small.fit()
multilevel.lr_test()

# %% [markdown]
# What goes wrong without restaurants: the manager is the same for all servers of a restaurant, and logistic
# regression counts every server as new evidence about the manager. Its standard error comes out far too small. For
# the server's own gender little changes.

# %%
plain = blm.model("complaint ~ grade + gender + tenure + manager", servers, family="bernoulli").fit()
rows = ["gender[T.male]", "manager[T.male]"]
errors = (
    pd.DataFrame({"logistic": plain.vcov.values.diagonal(), "multilevel": multilevel.vcov.values.diagonal()}) ** 0.5
)
errors.index = multilevel.fixef.index
errors.loc[rows].round(3)

# %% [markdown]
# Laplace's approximation is quick. Adaptive quadrature with seven points, Stata's default, is closer to the exact
# likelihood; with six to forty servers per restaurant the two nearly agree.

# %%
quadrature = small.fit(quadrature=7)
pd.Series(
    {
        "truth": TRUTH["sd_restaurant"],
        "Laplace": float(multilevel.varcorr.entries[0].sd[0]),
        "quadrature, 7 points": float(quadrature.varcorr.entries[0].sd[0]),
    },
    name="SD between restaurants",
).round(3)

# %% [markdown]
# ## The posterior beside the truth

# %%
post = small.sample(250, chains=2, seed=1, progress=False)
frame = post.parameter_frame()
truth = pd.Series(
    {
        "grade": TRUTH["grade"],
        "gender[T.male]": TRUTH["male"],
        "tenure": TRUTH["tenure"],
        "manager[T.male]": TRUTH["manager_male"],
        "sd_restaurant[Intercept]": TRUTH["sd_restaurant"],
    },
    name="truth",
)
frame[["estimate", "lower", "upper"]].join(truth, how="inner").round(3)
