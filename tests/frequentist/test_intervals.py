"""Wald, profile and bootstrap intervals; profiles on the boundary; coverage."""

import json

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import ComparisonError, DataError, FitError
from bayeslmm.frequentist.profile import power_of_interval, profile_intervals, profile_targets, smooth_curve
from tests.benchmarks.bench_coverage import coverage
from tests.frequentist.inference_cases import REFERENCE, lmer, reference_fit


def our_name(name):
    """Translate "cor_Days.(Intercept)|Subject" and the like."""
    for word, level in (("Machine", "B"), ("Machine", "C"), ("Sex", "Female"), ("COMB", "1")):
        name = name.replace(word + level, f"{word}[T.{level}]")
    name = name.replace("(Intercept)", "Intercept")
    if "|" not in name:
        return name
    effects, factor = name.split("|")
    kind, effects = effects.split("_", 1)
    if kind == "sd":
        return f"sd_{factor}[{effects}]"
    second, first = effects.rsplit(".", 1) if not effects.endswith("]") else effects.split(".Intercept")
    return f"corr_{factor}[{first},{second}]"


def check_profile(fit, expected):
    found = profile_intervals(fit)
    names = [our_name(name) for name in expected["names"]]
    for side in ("lower", "upper"):
        np.testing.assert_allclose(found.loc[names, side], expected[side], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, e in REFERENCE["fits"].items() if "confint_profile_exact" in e])
def test_profile_intervals(name):
    fit, entry = reference_fit(name)
    check_profile(fit, entry["confint_profile_exact"])


def test_a_reml_fit_is_profiled_by_ml():
    reml, ml = (reference_fit(f"sleepstudy_rislope_{kind}")[0] for kind in ("reml", "ml"))
    both = [fit.confint(method="profile", parameters=["sigma", "Days"]) for fit in (reml, ml)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-6)


def test_a_singular_fit_gives_one_sided_intervals():
    found = reference_fit("dyestuff2_ri_ml")[0].confint(method="profile")
    assert found.loc["sd_Batch[Intercept]", "lower"] == 0
    assert found.loc["sd_Batch[Intercept]", "upper"] == pytest.approx(2.08404787, rel=1e-6)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_a_correlation_with_a_zero_variance_is_not_determined():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(20), 6)
    x = np.tile(np.linspace(-1, 1, 6), 20)
    y = 3 * rng.standard_normal(20)[g] + rng.standard_normal(120)
    y -= x * (np.bincount(g, x * y) / np.bincount(g, x * x))[g]  # no slope varies at all
    fit = blm.lmer("y ~ 1 + (1 + x | g)", {"y": y, "x": x, "g": g}, reml=False)
    found = fit.confint(method="profile")
    assert found.loc["sd_g[x]", "lower"] == 0
    assert found.loc["corr_g[Intercept,x]"].tolist() == [-1, 1]
    assert found.notna().all().all()


def test_limits_solve_their_equation():
    fit, _ = reference_fit("sleepstudy_rislope_ml")
    limits = profile_intervals(fit, level=0.9)
    target = {target.name: target for target in profile_targets(fit)}["sd_Subject[Days]"]
    from bayeslmm.frequentist.profile import Curve

    curve = Curve(target, fit)
    assert curve.zeta(limits.loc["sd_Subject[Days]", "upper"]) == pytest.approx(1.6448536, abs=1e-6)
    assert curve.zeta(limits.loc["sd_Subject[Days]", "lower"]) == pytest.approx(-1.6448536, abs=1e-6)


def test_zeta_curves_rise_through_zero_at_the_estimate():
    fit, _ = reference_fit("sleepstudy_rislope_ml")
    curves = fit.profile(["Days", "corr_Subject[Intercept,Days]"])
    for name, frame in curves.frames.items():
        assert frame["zeta"].is_monotonic_increasing
        assert frame.loc[frame["zeta"] == 0, "value"].tolist() == [curves.estimates[name]]
        assert np.abs(frame["zeta"].iloc[[0, -1]]).tolist() == pytest.approx([2.5758293] * 2, abs=1e-5)
        smooth = smooth_curve(frame)
        assert np.trapezoid(smooth["density"], smooth["value"]) == pytest.approx(0.99, abs=2e-3)
    assert set(curves.to_pandas()["parameter"]) == set(curves.frames)


@pytest.mark.parametrize("kind", ["zeta", "density"])
def test_plots_have_a_panel_for_each_parameter(kind):
    import matplotlib

    matplotlib.use("agg")
    figure = reference_fit("dyestuff2_ri_ml")[0].profile().plot(kind)
    assert [ax.get_title() for ax in figure.axes] == ["Intercept", "sd_Batch[Intercept]", "sigma"]
    matplotlib.pyplot.close(figure)


def test_structured_covariances_have_profiles_too():
    data = blm.datasets.load("Machines")
    hom = blm.lmer("score ~ Machine + diag(0 + Machine | Worker, hom=TRUE)", data, reml=False)
    found = hom.confint(method="profile", parameters=["sd_Worker[Machine[A]]", "sd_Worker[Machine[C]]"])
    np.testing.assert_array_equal(found.iloc[0], found.iloc[1])
    ar1 = blm.lmer("score ~ Machine + ar1(0 + Machine | Worker)", data, reml=False)
    rho = ar1.confint(method="profile")
    one, two = (rho.loc[f"corr_Worker[Machine[A],Machine[{level}]]"] for level in "BC")
    assert two["upper"] == pytest.approx(one["upper"] ** 2)
    assert power_of_interval(-0.5, 0.2, 2) == (0.0, 0.25)


def test_a_local_optimum_is_found_out():
    from dataclasses import replace

    from bayeslmm.likelihood.lmm import solve

    fit, _ = reference_fit("sleepstudy_rislope_ml")
    theta = fit.theta * 1.5
    bad = replace(fit, solution=solve(theta, fit.kernel, reml=False), optimum=replace(fit.optimum, theta=theta))
    with pytest.raises(FitError, match="lower by"):
        bad.confint(method="profile", parameters="Days")


def test_wald_intervals_with_degrees_of_freedom_are_wider():
    fit, _ = reference_fit("sleepstudy_rislope_reml")
    normal, t = fit.confint(), fit.confint(ddf="satterthwaite")
    half = (t["upper"] - t["lower"]) / (normal["upper"] - normal["lower"])
    assert half["Days"] == pytest.approx(2.1098156 / 1.959964, rel=1e-5)
    assert half["sigma"] == pytest.approx(1)


def test_wald_intervals_agree_with_lme4(shared):
    entry = json.loads((shared / "reference" / "fits" / "sleepstudy_rislope_reml.json").read_text())
    found = reference_fit("sleepstudy_rislope_reml")[0].confint()
    np.testing.assert_allclose(found.iloc[:2]["lower"], entry["confint_wald"]["lower"], rtol=1e-6)
    np.testing.assert_allclose(found.iloc[:2]["upper"], entry["confint_wald"]["upper"], rtol=1e-6)


def test_variances_are_named_as_such():
    fit, _ = reference_fit("sleepstudy_rislope_reml")
    sd, variance = fit.confint(), fit.confint(scale="variance")
    np.testing.assert_allclose(variance.loc["var_Subject[Days]"], sd.loc["sd_Subject[Days]"] ** 2)
    np.testing.assert_allclose(variance.loc["sigma2"], sd.loc["sigma"] ** 2)
    np.testing.assert_allclose(variance.loc["corr_Subject[Intercept,Days]"], sd.loc["corr_Subject[Intercept,Days]"])


def test_a_coefficient_may_be_called_sd_something():
    rng = np.random.default_rng(1)
    frame = {"y": rng.normal(size=40), "sd_x": rng.normal(size=40), "g": np.arange(40) % 8}
    frame["y"] += rng.normal(size=8)[frame["g"]]
    found = blm.lmer("y ~ sd_x + (1 | g)", frame).confint(scale="variance")
    assert found.index.tolist() == ["Intercept", "sd_x", "var_g[Intercept]", "sigma2"]
    assert found.loc["sd_x", "lower"] < 0 < found.loc["sd_x", "upper"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "bayes"}, "not one of"),
        ({"scale": "log"}, "not one of"),
        ({"parameters": "Dayz"}, "Did you mean 'Days'"),
        ({"method": "profile", "ddf": "kr"}, "ddf belongs to Wald"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ComparisonError, match=message):
        reference_fit("sleepstudy_rislope_reml")[0].confint(**options)


def test_a_level_is_a_probability():
    with pytest.raises(DataError, match="95 %"):
        reference_fit("sleepstudy_rislope_reml")[0].confint(95, method="profile")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_every_reference_profile(shared):
    checked = 0
    for path in sorted((shared / "reference" / "fits").glob("*_ml.json")):
        entry = json.loads(path.read_text())
        if "confint_profile_exact" in entry:
            check_profile(lmer(entry["formula"], entry["dataset"], False), entry["confint_profile_exact"])
            checked += 1
    assert checked == 17


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_coverage_with_twelve_groups_of_six():
    """95 % intervals on 100 data sets: fewer than 87 that hold the truth happen once in a thousand times by chance."""
    hits, widths = coverage(100, seed=21)
    share = {method: frame.mean() for method, frame in hits.items()}
    width = {method: frame["x"].median() for method, frame in widths.items()}
    for method in ("Satterthwaite", "Kenward-Roger", "bootstrap, studentised", "posterior, default priors"):
        assert share[method]["x"] >= 0.87, method
        assert width[method] > width["Wald"], method
    for method in ("Wald", "bootstrap, studentised", "posterior, default priors"):
        assert share[method]["sd_g[Intercept]"] >= 0.87, method
    for method in set(share) - {"Satterthwaite", "Kenward-Roger"}:
        assert share[method]["sigma"] >= 0.87, method
