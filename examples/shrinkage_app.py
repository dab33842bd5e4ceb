"""A marimo app for the classroom: turn the standard deviation of the groups and watch them shrink.

From a clone: uv run --with marimo marimo run examples/shrinkage_app.py
"""

import marimo

app = marimo.App(width="medium", app_title="Shrinkage")


@app.cell
def _():
    import marimo as mo

    import bayeslmm as blm

    examples = {
        "Language scores by school class": ("nlschools", "lang ~ IQ + GS + SES + COMB + (1 | class)"),
        "Radon by county": ("radon", "log_radon ~ floor + log_uranium + (1 | county)"),
        "Reaction times by person": ("sleepstudy", "Reaction ~ Days + (1 | Subject)"),
        "Yield by batch (six groups)": ("Dyestuff", "Yield ~ 1 + (1 | Batch)"),
    }
    return blm, examples, mo


@app.cell
def _(examples, mo):
    choice = mo.ui.dropdown(examples, value="Language scores by school class", label="Data")
    mo.vstack([mo.md("# Partial pooling\nHow far are groups pulled to the mean?"), choice])
    return (choice,)


@app.cell
def _(blm, choice):
    name, formula = choice.value
    model = blm.model(formula, blm.datasets.load(name))
    fit = model.fit()
    shrinkage = blm.teach.shrinkage(fit)
    curves = blm.teach.sd_likelihood(model, points=80)
    return curves, fit, formula, model, shrinkage


@app.cell
def _(fit, mo, shrinkage):
    largest = max(3 * shrinkage.estimate, fit.sigma)
    places = [float(f"{largest * i / 60:.3g}") for i in range(61)]
    sd = mo.ui.slider(
        steps=places,
        value=min(places, key=lambda place: abs(place - shrinkage.estimate)),
        label="standard deviation of the groups",
        show_value=True,
        full_width=True,
    )
    sd
    return (sd,)


@app.cell
def _(formula, mo, sd, shrinkage):
    kept = shrinkage.factors(sd.value)
    mo.vstack(
        [
            mo.as_html(shrinkage.plot(sd.value)),
            mo.md(
                f"`{formula}`  \nA group with {shrinkage.sizes.min()} rows keeps **{kept.min():.0%}** of its own "
                f"deviation, one with {shrinkage.sizes.max()} keeps **{kept.max():.0%}**. "
                f"REML puts the standard deviation at {shrinkage.estimate:.3g}."
            ),
        ]
    )
    return


@app.cell
def _(curves, mo, sd):
    ax = curves.plot()
    ax.axvline(sd.value, color="black", linewidth=1.0)
    mo.accordion({"How plausible is this standard deviation?": mo.as_html(ax.figure)})
    return


@app.cell
def _(blm, mo, model, shrinkage):
    scale = mo.ui.slider(
        0.1, 3.0, 0.1, value=1.0, label="scale of a half-normal prior, in REML estimates", show_value=True
    )

    def updated(value):
        prior = blm.Prior("HalfNormal", sigma=value * max(shrinkage.estimate, 1e-3))
        return blm.teach.prior_to_posterior(model, {"half-normal prior": prior}, points=80).plot()

    scale
    return scale, updated


@app.cell
def _(mo, scale, updated):
    mo.accordion({"From prior to posterior": mo.as_html(updated(scale.value))})
    return


if __name__ == "__main__":
    app.run()
