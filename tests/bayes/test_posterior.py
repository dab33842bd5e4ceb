"""What a posterior answers."""

import os

import numpy as np
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm.bayes.groups import group_log_likelihood
from bayeslmm.bayes.inference import compare_models
from bayeslmm.bayes.posterior import Posterior, row_chunks
from bayeslmm.bayes.predictive_views import single_trials
from bayeslmm.errors import ComparisonError, DataError, NewLevelsError


@pytest.fixture(scope="module")
def frame():
    return blm.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def post(frame):
    weights = np.random.default_rng(0).uniform(0.5, 2, len(frame))
    model = blm.model("Reaction ~ Days + (Days | Subject)", frame, weights=weights)
    return model.sample(draws=300, chains=2, seed=1, progress=False)


def test_estimates_are_those_of_the_draws(post):
    beta = post.draws("beta")
    np.testing.assert_allclose(post.fixef, beta.mean(axis=0))
    np.testing.assert_allclose(post.vcov, np.cov(beta, rowvar=False))
    effects = post.draws("b_Subject")
    np.testing.assert_allclose(post.ranef["Subject"], effects.mean(axis=0))
    np.testing.assert_allclose(post.ranef.sd["Subject"], effects.std(axis=0, ddof=1))
    assert post.varcorr.residual == pytest.approx(post.sigma)
    assert list(post.parameter_frame()["kind"]) == ["fixed", "fixed", "sd", "sd", "corr", "sigma"]
    assert "corr_Subject[Intercept,Days]" in post.parameter_frame().index


def test_summary_prints_and_escapes(post):
    text = str(post.summary())
    assert "NUTS (marginal)" in text
    assert "R-hat at most" in text
    assert "<table" in post.summary()._repr_html_()
    frame = post.summary(level=0.9).to_pandas()
    assert list(frame.columns) == ["mean", "sd", "5%", "95%", "r_hat", "ess_bulk", "ess_tail"]
    assert frame.loc["Days", "mean"] == pytest.approx(post.fixef["Days"])


def test_predictions_follow_from_the_draws(post, frame):
    eta = post.linpred_draws()
    np.testing.assert_allclose(post.predict(), eta.mean(axis=0))
    again = post.linpred_draws(frame.head(3))
    np.testing.assert_allclose(again, eta[:, :3])
    population = post.epred_draws({"Days": [5], "Subject": ["308"]}, include=[])
    np.testing.assert_allclose(population[:, 0], post.draws("beta") @ [1, 5])
    interval = post.predict(frame.head(4), interval="confidence", level=0.8)
    np.testing.assert_allclose(interval["lower"], np.quantile(eta[:, :4], 0.1, axis=0))
    wider = post.predict(frame.head(4), interval="prediction")
    assert (wider["se"] > interval["se"]).all()


def test_new_levels_have_one_meaning(post):
    new = {"Days": [0, 9], "Subject": ["new", "new"]}
    with pytest.raises(NewLevelsError, match="new_levels="):
        post.linpred_draws(new)
    zero = post.linpred_draws(new, new_levels="zero")
    np.testing.assert_allclose(zero, post.draws("beta") @ np.array([[1, 1], [0, 9]]))
    drawn = post.linpred_draws(new, new_levels="sample", seed=1)
    np.testing.assert_array_equal(drawn, post.linpred_draws(new, new_levels="sample", seed=1))
    deviation = drawn - zero
    expected = np.sqrt(np.mean(np.square(post.draws("sd_Subject")[:, 0])))
    assert deviation[:, 0].std() == pytest.approx(expected, rel=0.15)
    assert np.corrcoef(deviation.T)[0, 1] > 0.2


def test_row_chunks_are_the_design_in_pieces(post):
    parts = list(row_chunks(post.design, 50))
    assert [len(part.X) for part in parts] == [50, 50, 50, 30]
    np.testing.assert_array_equal(
        np.concatenate([part.factors[0].codes for part in parts]), post.design.factors[0].codes
    )


def test_log_likelihood_and_loo(post):
    eta, sigma = post.linpred_draws(), post.draws("sigma")
    expected = stats.norm.logpdf(post.design.y, eta, sigma[:, None] / np.sqrt(post.design.weights))
    np.testing.assert_allclose(post.log_likelihood(), expected)
    elpd = post.loo()
    assert elpd.elpd < expected.mean(axis=0).sum()


def test_group_likelihood_is_the_dense_one(post):
    values, _ = group_log_likelihood(post, "Subject")
    assert values.shape == (600, 18)
    design, factor = post.design, post.design.factors[0]
    for draw, j in ((0, 0), (7, 5), (599, 17)):
        rows = factor.codes == j
        covariance = post.effect_covariances()["Subject"][draw]
        V = factor.Z[rows] @ covariance @ factor.Z[rows].T + np.diag(
            post.draws("sigma")[draw] ** 2 / design.weights[rows]
        )
        mean = design.X[rows] @ post.draws("beta")[draw]
        assert values[draw, j] == pytest.approx(stats.multivariate_normal.logpdf(design.y[rows], mean, V), rel=1e-9)
    assert post.loo(group="Subject").elpd < post.loo().elpd
    with pytest.raises(DataError, match="Did you mean 'Subject'"):
        post.loo(group="Subjct")


def test_compare_models_prefers_the_model_with_slopes(post, frame):
    smaller = blm.model("Reaction ~ Days + (1 | Subject)", frame).sample(draws=200, chains=2, seed=1, progress=False)
    table = compare_models({"slopes": post, "intercepts": smaller})
    assert table.index[0] == "slopes"
    other = blm.model("Reaction ~ Days + (1 | Subject)", frame.head(100)).sample(
        draws=50, chains=1, seed=1, progress=False
    )
    with pytest.raises(ComparisonError, match="other rows"):
        compare_models({"a": post, "b": other})


def test_hypotheses_are_arithmetic_on_draws_and_nothing_else(post):
    result = post.hypothesis("sd_Subject[Intercept] / sigma > 2 * abs(corr_Subject[Intercept,Days])")
    p = post.parameters
    expected = p["sd_Subject[Intercept]"] / p["sigma"] > 2 * np.abs(p["corr_Subject[Intercept,Days]"])
    assert result.probability == expected.mean()
    assert post.hypothesis("Days < 0").odds == pytest.approx(0)
    for text in ("Dayz > 0", "Days", "Days > 0 > 1", "__import__('os') > 0", "Days.__class__ > 0", "Days >"):
        with pytest.raises(ComparisonError):
            post.hypothesis(text)
    with pytest.raises(ComparisonError, match="Did you mean 'Days'"):
        post.hypothesis("Dayz > 0")


def test_variance_shares_ranks_r2_and_rope(post):
    shares = post.icc()
    assert list(shares.draws) == ["Subject", "adjusted", "conditional"]
    np.testing.assert_array_equal(shares["Subject"], shares["adjusted"])
    assert (shares["conditional"] < shares["adjusted"]).all()
    assert 0.5 < post.bayes_r2().mean() < 0.95
    table = post.ranks("Subject", "Days")
    assert table["rank"].is_monotonic_increasing
    assert table["rank"].sum() == pytest.approx(18 * 19 / 2)
    assert table["effect"].iloc[0] == post.ranef["Subject"]["Days"].max()
    assert post.rope("Days", -1, 1).sum() == pytest.approx(1)


def test_replications_given_the_groups_and_for_new_ones(post):
    given, new = post.ppc(100), post.ppc(100, marginal=True)
    assert given["posterior_predictive"]["y"].shape == (1, 100, 180)
    observed = post.design.y
    error = [
        np.abs(tree["posterior_predictive"]["y"].values[0].mean(axis=0) - observed).mean() for tree in (given, new)
    ]
    assert error[0] < error[1]
    np.testing.assert_array_equal(given["posterior_predictive"]["y"], post.ppc(100)["posterior_predictive"]["y"])
    with pytest.raises(DataError, match="Did you mean 'rootogram'"):
        post.plot_ppc("rootogramm")
    with pytest.raises(DataError, match="a rootogram is for counts"):
        post.plot_ppc("rootogram")


def below(plot):
    from matplotlib import pyplot

    figure = plot.viz["figure"].item()
    figure.canvas.draw()
    labels = [ax.get_xlabel() for ax in figure.axes]
    titles = [ax.get_title() for ax in figure.axes]
    boxes = [ax.xaxis.label.get_window_extent().ymin for ax in figure.axes]
    pyplot.close(figure)
    assert min(boxes) >= 0  # inside the figure, also when it is saved without a tight box
    return labels, titles


def test_replications_are_plotted_under_the_name_of_the_response(post):
    curves = ": observed black, replicated blue"
    assert below(post.plot_ppc("dist", draws=20)) == ([f"Reaction{curves}"], [""])
    assert below(post.plot_ppc("tstat", draws=20, t_stat="std")) == ([f"std of Reaction{curves}"], [""])
    labels, titles = below(post.plot_ppc("dist", draws=20, by="Days", col_wrap=5))
    assert set(labels) == {f"Reaction{curves}"}
    assert titles == [f"Days: {day}" for day in range(10)]
    labels, titles = below(post.plot_ppc("tstat", draws=20, by="Days", t_stat="mean", col_wrap=5))
    assert set(labels) == {f"mean of Reaction{curves}"}
    assert below(post.plot_ppc("interval", draws=20)) == (["data point (index)"], [""])
    assert below(post.plot_ppc("pit", draws=20)) == (["PIT"], ["Reaction"])


def test_a_rootogram_has_a_bar_for_each_count():
    data = blm.datasets.load("cbpp")
    counts = blm.model("incidence ~ period + offset(log(size)) + (1 | herd)", data, family="poisson")
    sampled = counts.sample(30, chains=2, seed=1, progress=False)
    assert below(sampled.plot_ppc("rootogram", draws=30)) == (["counts"], ["incidence"])
    assert below(counts.plot_prior_predictive(20, seed=1)) == (["incidence: observed black, replicated blue"], [""])


@pytest.fixture(scope="module")
def herds():
    model = blm.model("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"), family="binomial")
    return model.sample(300, chains=2, seed=1, progress=False)


def test_probabilities_are_held_against_what_happened(herds):
    assert below(herds.plot_ppc("calibration")) == (["probability according to the model"], ["prop(incidence, size)"])
    with pytest.raises(DataError, match="of all rows"):
        herds.plot_ppc("calibration", by="herd")


def test_proportions_of_groups_are_held_against_their_replications(herds):
    labels, _ = below(herds.plot_ppc("groups", by="herd"))
    assert labels == ["herd: prop(incidence, size) observed black, replicated blue"]
    with pytest.raises(DataError, match=r"needs by=, .* Factors: herd"):
        herds.plot_ppc("groups")


def test_single_trials_keep_the_successes_of_each_row_at_random_places(herds):
    trials = herds.design.trials
    tree = single_trials(herds.ppc(400), trials, np.random.default_rng(1))
    ends = np.cumsum(trials).astype(int)
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    observed = tree["observed_data"]["y"].values
    np.testing.assert_allclose([observed[row].mean() for row in rows], herds.design.y)
    replicated = tree["posterior_predictive"]["y"].values[0]
    wide = max(rows, key=len)
    shares = replicated[:, wide].mean(axis=0)
    error = np.sqrt(shares.mean() * (1 - shares.mean()) / 400)
    assert np.abs(shares - shares.mean()).max() < 4.5 * error


def test_calibration_needs_probabilities(post):
    with pytest.raises(DataError, match='kind="pit"'):
        post.plot_ppc("calibration")


def test_a_saved_posterior_comes_back_whole(post, frame, tmp_path):
    path = post.save(tmp_path / "sleep.blm")
    again = Posterior.load(path)
    for name in post.data["posterior"].data_vars:
        np.testing.assert_array_equal(again.data["posterior"][name], post.data["posterior"][name])
    np.testing.assert_allclose(again.predict(frame.head(5)), post.predict(frame.head(5)))
    assert again.run == post.run or np.isnan(again.run.pareto_k)
    assert str(again.priors) == str(post.priors)
    assert again.summary().to_pandas().equals(post.summary().to_pandas())
    assert os.listdir(tmp_path) == ["sleep.blm"]


def test_files_that_are_not_ours_are_refused(post, tmp_path):
    (tmp_path / "noise").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="damaged"):
        Posterior.load(tmp_path / "noise")
    whole = post.save(tmp_path / "whole").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        Posterior.load(tmp_path / "half")


def test_a_failed_save_leaves_the_earlier_file(post, tmp_path, monkeypatch):
    path = post.save(tmp_path / "sleep.blm")
    before = path.read_bytes()
    monkeypatch.setattr("bayeslmm.bayes.storage.write_parts", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        post.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["sleep.blm"]
