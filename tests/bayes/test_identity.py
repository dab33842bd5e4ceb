"""Latent density = marginal density times the conditional of coefficients and group effects, at random points.

The PyMC model says what a formula means; the conditional is computed densely here, without the kernel.
"""

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.latent import build_pymc_model
from bayeslmm.bayes.logposterior import log_posterior_of
from bayeslmm.bayes.priors import Prior

CASES = {
    "one intercept": ("Yield ~ 1 + (1 | Batch)", "Dyestuff", {}),
    "correlated": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
    "independent": ("Reaction ~ Days + (Days || Subject)", "sleepstudy", {"sd": Prior("Gamma", alpha=2, beta=0.1)}),
    "two terms, one factor": (
        "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
        "sleepstudy",
        {"sd_Subject[Days]": Prior("LogNormal", mu=1, sigma=1), "sigma": Prior("InverseGamma", alpha=2, beta=20)},
    ),
    "three correlated": (
        "Reaction ~ Days + (Days + I(Days**2) | Subject)",
        "sleepstudy",
        {"corr": Prior("LKJ", eta=1.5), "sd": Prior("HalfCauchy", beta=10)},
    ),
    "random walk": ("Reaction ~ Days + rw(1 | Days) + (1 | Subject)", "sleepstudy", {}),
    "compound symmetry": ("Reaction ~ Days + cs(0 + C(Days > 4) | Subject)", "sleepstudy", {}),
    "autoregressive": ("Reaction ~ 0 + Days + ar1(0 + C(Days) | Subject)", "sleepstudy", {}),
    "crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", {"sd": Prior("Exponential", scale=2)}),
    "nested": ("strength ~ 1 + (1 | batch/cask)", "Pastes", {"Intercept": Prior("Flat"), "sd": Prior("HalfFlat")}),
    "sampled coefficients": (
        "Reaction ~ Days + I(Days**2) + (Days | Subject)",
        "sleepstudy",
        {
            "Intercept": Prior("StudentT", nu=4, mu=300, sigma=50),
            "Days": Prior("Laplace", mu=0, b=10),
            "sigma": Prior("Uniform", lower=1, upper=90),
        },
    ),
    "survey weights": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
    "precision prior": (
        "Reaction ~ Days + (1 | Subject)",
        "sleepstudy",
        {"sigma": Prior("SqrtInverseGamma", alpha=2, beta=100), "Days": Prior("Cauchy", alpha=0, beta=5)},
    ),
}


def design_of(name):
    text, data, priors = CASES[name]
    frame = blm.datasets.load(data)
    options = {}
    if name == "correlated":
        rng = np.random.default_rng(3)
        options = {"weights": rng.uniform(0.5, 2, len(frame)), "offset": rng.normal(0, 5, len(frame))}
    if name == "survey weights":
        options = {"survey_weights": np.random.default_rng(4).uniform(0.5, 20, len(frame))}
    return blm.model(text, frame, priors=priors, **options)


def python_logp(model):
    import pytensor

    mode = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
    return model.compile_logp(mode=mode)


def partial_root(z, k):
    """Cholesky root of a correlation matrix from Fisher's z, row by row; works on complex numbers."""
    root = np.zeros((k, k), dtype=z.dtype)
    at = 0
    for i in range(k):
        rest = 1.0
        for j in range(i):
            root[i, j] = np.tanh(z[at]) * rest
            rest = rest / np.cosh(z[at])
            at += 1
        root[i, i] = rest
    return root


def spiral(root):
    """PyMC's unconstrained vector of a Cholesky root: rows divided by their diagonal, in its own order."""
    from pymc.distributions.transforms import CholeskyCorrTransform

    return np.asarray(CholeskyCorrTransform(n=len(root)).forward(root).eval())


def by_diagonal(z, k):
    root = partial_root(z, k)
    return np.concatenate([root[i, :i] / root[i, i] for i in range(1, k)])


def log_jacobian(z, k):
    """log |d (root / diagonal) / d z| by complex steps."""
    step = 1e-30
    columns = [by_diagonal(z + 1j * step * unit, k).imag / step for unit in np.eye(len(z))]
    return np.linalg.slogdet(np.column_stack(columns))[1]


def latent_point(model, density, x, gamma, effects):
    """PyMC's values for a point of the exact engine, and the log Jacobian between the two."""
    design, where = model.design, density.coordinates
    values, jacobian = {}, 0.0
    flat, sigma, _, _ = where.unpack(x)
    by_name = dict(zip(where.names, x, strict=True))
    roots = {f.name: t * sigma for f, t in zip(design.factors, where.layout.unflatten(flat), strict=True)}
    for index, term in enumerate(design.terms):
        z = np.array([by_name[name] for name in where.names if name.startswith(f"corr_{term.factor}.")])
        if len(z) == 0 or model.priors.corr(index) is None:
            continue
        if term.term.covariance == "us":
            k = len(term.effects)
            values[f"chol_{term.factor}_cholesky_corr__"] = spiral(partial_root(z, k))
            jacobian += log_jacobian(z, k)
        else:
            values[f"rho01_{term.factor}_logodds__"] = z[0]
    for name, root in roots.items():
        b = effects[name]
        values[f"z_{name}"] = np.linalg.solve(root, b.T).T
        jacobian -= len(b) * np.log(np.abs(np.diag(root))).sum()
    return values, jacobian, by_name


def scales_into(values, model, pm_model, by_name):
    """Fill in standard deviations and sigma, which have the same unconstrained coordinate in both."""
    jacobian = 0.0
    known = {variable.name for variable in pm_model.value_vars}
    for factor in model.design.factors:
        names = [name for name in by_name if name == f"sd_{factor.name}" or name.startswith(f"sd_{factor.name}[")]
        if f"sd_{factor.name}_log__" in known:
            values[f"sd_{factor.name}_log__"] = np.array([by_name[name] for name in names])
            continue
        for name in names:
            label = name if "[" in name else f"{name}[{', '.join(factor.effects)}]"
            values[f"{label}_log__"] = by_name[name]
    if "sigma_squared_log__" in known:
        values["sigma_squared_log__"] = 2 * by_name["sigma"]
        jacobian += np.log(2)
    else:
        values["sigma_interval__" if "sigma_interval__" in known else "sigma_log__"] = by_name["sigma"]
    return jacobian


def conditional(model, density, x):
    """Mean and precision of (centred integrated coefficients, all effects) given x, densely."""
    design = model.design
    flat, sigma, sampled, _ = density.coordinates.unpack(x)
    centred = design.X @ np.linalg.inv(density.shear)
    y = design.y - (0 if design.offset is None else design.offset)
    y = y - centred[:, density.coordinates.plan.sampled] @ sampled
    w = np.ones(len(y)) / sigma**2
    for weights in (design.weights, design.survey_weights):
        w = w if weights is None else w * weights
    blocks, precisions = [centred[:, list(density.integrated)]], []
    for factor, template in zip(design.factors, density.coordinates.layout.unflatten(flat), strict=True):
        J, K = len(factor.levels), len(factor.effects)
        Z = np.zeros((len(y), J, K))
        Z[np.arange(len(y)), factor.codes] = factor.Z
        blocks.append(Z.reshape(len(y), J * K))
        precisions.append(np.kron(np.eye(J), np.linalg.inv(sigma**2 * template @ template.T)))
    priors = [model.priors.coefficients[i] for i in density.integrated]
    D = np.array([0.0 if prior.name == "Flat" else prior.args["sigma"] ** -2 for prior in priors])
    m = np.array([y.mean() if prior.name == "Flat" else prior.args["mu"] for prior in priors])
    columns = np.hstack(blocks)
    precision = columns.T @ (w[:, None] * columns)
    at = len(D)
    precision[range(at), range(at)] += D
    for block in precisions:
        precision[at : at + len(block), at : at + len(block)] += block
        at += len(block)
    # Solved for the distance from the prior mean, which costs fewer digits.
    mean = np.linalg.solve(precision, columns.T @ (w * (y - columns[:, : len(D)] @ m)))
    mean[: len(D)] += m
    return mean, precision


QUICK = ("one intercept", "correlated", "sampled coefficients", "survey weights")


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.DataWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_latent_density_is_marginal_times_conditional(name):
    model = design_of(name)
    density = log_posterior_of(model.design, model.priors, model.kernel)
    pm_model = build_pymc_model(model.design, model.family, model.priors)
    logp = python_logp(pm_model)
    rng = np.random.default_rng(0)
    state = density.state()
    spread = model.design.y.std()
    start = density.coordinates.start(
        0.5 * spread,
        [0.3 * spread] * (len(density.coordinates.plan.scale_at) - 1),
        np.full(len(density.coordinates.plan.sampled), 2.0),
    )
    for _ in range(20):
        x = start + rng.normal(0, 0.5, density.size)
        mean, precision = conditional(model, density, x)
        root = np.linalg.cholesky(precision)
        noise = rng.standard_normal(len(mean))
        point = mean + np.linalg.solve(root.T, noise)
        log_normal = -0.5 * noise @ noise + np.log(np.diag(root)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
        gamma = np.empty(len(density.shear))
        gamma[list(density.integrated)] = point[: len(density.integrated)]
        gamma[density.coordinates.plan.sampled] = x[density.size - len(density.coordinates.plan.sampled) :]
        effects, at = {}, len(density.integrated)
        for factor in model.design.factors:
            count = len(factor.levels) * len(factor.effects)
            effects[factor.name] = point[at : at + count].reshape(len(factor.levels), -1)
            at += count
        values, jacobian, by_name = latent_point(model, density, x, gamma, effects)
        jacobian += scales_into(values, model, pm_model, by_name)
        by_coefficient = dict(zip(model.design.coef_names, gamma, strict=True))
        known = {variable.name for variable in pm_model.value_vars}
        if "Intercept" in by_coefficient:
            values["Intercept"] = by_coefficient.pop("Intercept")
        if "slopes" in known:
            values["slopes"] = np.array(list(by_coefficient.values()))
        else:
            values |= {f"beta[{name}]": value for name, value in by_coefficient.items()}
        marginal, _ = density.value_and_gradient(x, state)
        latent = float(logp(values)) + jacobian
        assert latent - log_normal == pytest.approx(marginal, rel=1e-10, abs=1e-8)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.DataWarning")
@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_slope_of_the_density(name):
    model = design_of(name)
    density = log_posterior_of(model.design, model.priors, model.kernel)
    state = density.state()
    rng = np.random.default_rng(1)
    spread = model.design.y.std()
    sampled = density.coordinates.plan.sampled
    start = density.coordinates.start(
        0.5 * spread, [0.3 * spread] * (len(density.coordinates.plan.scale_at) - 1), np.full(len(sampled), 2.0)
    )
    for _ in range(3):
        x = start + rng.normal(0, 0.5, density.size)
        _, gradient = density.value_and_gradient(x, state)
        for i, unit in enumerate(np.eye(density.size) * 1e-5):
            up, down = density.value_and_gradient(x + unit, state)[0], density.value_and_gradient(x - unit, state)[0]
            assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-5 * np.abs(gradient).max())
