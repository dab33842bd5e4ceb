"""The Laplace posterior is that of the PyMC model: value at the mode, curvature there, and the weight of every draw.

With h the log density of the PyMC model in standardised effects and coefficients, all else fixed, the Laplace posterior
is h at its highest plus half of (q + p) log 2 pi - log|-h''|, and the log weight of a draw h(draw) - h(mode) + z'z / 2.
Sampled vector and PyMC's unconstrained values are the same numbers here, so that nothing is lost between the two.
"""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.laplace_entry import draw_given
from bayeslmm.bayes.laplace_nuts import laplace_density
from bayeslmm.bayes.priors import Prior

LEVELS = ["poor", "fair", "good", "best"]


def ratings(seed=2):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"g": np.repeat(list("abcde"), 8), "h": np.tile(list("uvwx"), 10)})
    frame["x"] = rng.normal(30.0, 4.0, len(frame))
    effect = frame["g"].map(dict(zip("abcde", rng.normal(size=5), strict=True)))
    eta = 0.1 * (frame["x"] - 30) + effect + rng.logistic(size=len(frame))
    codes = np.digitize(eta, [-1.0, 0.0, 1.5])
    frame["rating"] = pd.Categorical.from_codes(codes, LEVELS, ordered=True)
    frame["n"] = 3
    return frame.assign(k=np.minimum(codes, 3), count=codes)


CASES = {
    "logit": ("rating ~ x + (1 | g)", "cumulative", {}),
    "probit, crossed": ("rating ~ x + (1 | g) + (1 | h)", ("cumulative", "probit"), {}),
    "no columns": ("rating ~ 1 + (1 | g)", "cumulative", {}),
    "another prior": ("rating ~ x + (1 | g)", "cumulative", {"threshold": Prior("Normal", mu=0.5, sigma=0.8)}),
    "weights": ("rating ~ x + (1 | g)", "cumulative", {}),
    "binomial": ("prop(k, n) ~ x + (1 | g) + (1 | h)", "binomial", {}),
    "own parameter": ("count ~ x + (1 | g)", "negativebinomial", {}),
}


def built(name):
    formula, family, priors = CASES[name]
    family, link = (family, None) if isinstance(family, str) else family
    frame = ratings()
    weights = 1 + np.arange(len(frame)) % 3 if name == "weights" else None
    return blm.model(formula, frame, family, link=link, weights=weights, priors=priors)


def point_of(model, pm_model, density, x):
    """PyMC's values, with standardised effects and slopes left at zero."""
    names = {variable.name for variable in pm_model.value_vars}
    values = {}
    for place, factor in zip(density.coordinates.plan.scale_at, model.design.factors, strict=False):
        values[f"sd_{factor.name}_log__"] = x[[place]]
        values[f"z_{factor.name}"] = np.zeros((len(factor.levels), 1))
    own = model.family.parameter
    if own and own != "threshold":
        values[f"{own}_log__"] = np.asarray(x[density.coordinates.size - 1])
    for name in names & {"threshold_ordered__", "threshold_centred_ordered__"}:
        values[name] = x[density.coordinates.size :]
    if "slopes" in names:
        values["slopes"] = np.zeros(sum(name != "Intercept" for name in model.design.coef_names))
    if "Intercept" in names:
        values["Intercept"] = np.zeros(())
    assert set(values) == names
    return values


def integrated(values):
    return [name for name in values if name.startswith("z_") or name in ("slopes", "Intercept")]


def filled(model, values, beta, effects, sds):
    """The values at a draw: beta as in the design, effects by factor."""
    names, X = list(model.design.coef_names), model.design.X
    new = dict(values)
    if "slopes" in values:
        new["slopes"] = np.array([b for name, b in zip(names, beta, strict=True) if name != "Intercept"])
    if "Intercept" in values:
        new["Intercept"] = np.asarray(X.mean(axis=0) @ beta)
    for factor, effect, sd in zip(model.design.factors, effects, sds, strict=True):
        new[f"z_{factor.name}"] = effect / sd
    return new


def curvature(slope, values):
    """-h'' in everything that is integrated out, by central differences of the gradient (value, coordinate)."""
    order = [variable for variable in values if variable in integrated(values)]
    rows = []
    for name in order:
        for at in range(np.size(values[name])):
            ends = []
            for step in (1e-5, -1e-5):
                moved = dict(values)
                flat = np.array(values[name], dtype=float).ravel()
                flat[at] += step
                moved[name] = flat.reshape(np.shape(values[name]))
                ends.append(np.concatenate([slope(moved)[other] for other in order]))
            rows.append((ends[1] - ends[0]) / 2e-5)
    return np.array(rows)


@pytest.mark.parametrize("name", CASES)
def test_laplace_posterior_and_weights_are_those_of_the_pymc_model(name):
    import pytensor

    model = built(name)
    density = laplace_density(model.design, model.family, model.priors)
    pm_model = model.to_pymc()
    mode = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
    logp, by_all = pm_model.compile_logp(mode=mode), pm_model.compile_dlogp(mode=mode)
    sizes = {v.name: v for v in pm_model.value_vars}

    def slope(values):
        flat, found, at = by_all(values), {}, 0
        for variable in sizes:
            count = np.size(values[variable])
            found[variable] = flat[at : at + count]
            at += count
        return found

    rng = np.random.default_rng(0)
    state, gradient = density.state(tolerance=1e-20), np.empty(density.length)
    kernel, p, q = density.kernel, density.kernel.p, density.kernel.analysis.n_columns
    # Where a family has no parameter of its own, a constant 1 stands in its place in the vector, with a prior.
    constant = 0.0 if len(density.active) == density.length else float(Prior("HalfNormal", sigma=1).logpdf(1.0))
    for _ in range(3):
        x = density.start()
        x[density.active] += rng.normal(0, 0.4, density.size)
        values = point_of(model, pm_model, density, x)
        noise = [np.vstack([np.zeros((1, size)), rng.standard_normal((4, size))]) for size in (p, q)]
        white, flat, exact, approximate = np.empty((5, p)), np.empty((5, q)), np.empty(5), np.empty(5)
        draw_given(density.state(), np.tile(x, (5, 1)), noise[0], noise[1], white, flat, exact, approximate)
        sds = np.exp(x[density.coordinates.plan.scale_at])
        heights = []
        for i in range(5):
            beta = kernel.unwhiten(white[i])
            effects = [flat[i, first][:, None] for first in kernel.analysis.first_row]
            at = filled(model, values, beta, effects, sds[: len(effects)])
            heights.append(float(logp(at)))
            if i == 0:
                top = at
        weights = exact - approximate
        square = 0.5 * (noise[0] ** 2).sum(axis=1) + 0.5 * (noise[1] ** 2).sum(axis=1)
        # bambi's probit has the root of two in single precision.
        tolerance = 1e-6 if model.family.link == "probit" else 1e-8
        np.testing.assert_allclose(np.diff(weights - square), np.diff(heights), rtol=0, atol=tolerance)
        _, log_det = np.linalg.slogdet(curvature(slope, top))
        expected = heights[0] + 0.5 * (p + q) * np.log(2 * np.pi) - 0.5 * log_det
        found = state.evaluate(x, gradient)
        assert found - constant == pytest.approx(expected, abs=1e-5)
        assert approximate[0] == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("name", ["logit", "probit, crossed", "another prior"])
def test_gradient_in_thresholds_agrees_with_differences(name):
    model = built(name)
    density = laplace_density(model.design, model.family, model.priors)
    state, x = density.state(tolerance=1e-16), density.start() + 0.2
    gradient, other = np.empty(len(x)), np.empty(len(x))
    state.evaluate(x, gradient)
    for i in density.active:
        step = 1e-5 * (np.arange(len(x)) == i)
        up, down = (state.evaluate(x + sign * step, other) for sign in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-6)
