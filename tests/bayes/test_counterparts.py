"""Words of a REML fit on a posterior: the same question, the same answer up to priors and Monte Carlo error."""

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.counterparts import NO_COUNTERPART
from bayeslmm.bayes.linear_forms import tail_share
from bayeslmm.errors import ComparisonError, DataError


@pytest.fixture(scope="module")
def schools():
    model = blm.model("lang ~ IQ + SES + COMB + (1 | class)", blm.datasets.load("nlschools"))
    return model.fit(), model.sample(draws=500, chains=2, seed=1, progress=False)


@pytest.fixture(scope="module")
def herds():
    model = blm.model("prop(incidence, size) ~ period + (1 | herd)", blm.datasets.load("cbpp"), family="binomial")
    return model.fit(), model.sample(draws=500, chains=2, seed=1, progress=False)


def words(kind):
    return {name for name in dir(kind) if not name.startswith("_")} | set(kind.__dataclass_fields__)


def test_every_word_of_a_fit_is_there_or_says_what_answers_instead(schools):
    post = schools[1]
    of_fits = words(blm.LmmFit) | words(blm.GlmmFit)
    own = words(blm.Posterior)
    assert sorted(of_fits - own - set(NO_COUNTERPART)) == []
    assert sorted(set(NO_COUNTERPART) & own) == []
    assert sorted(set(NO_COUNTERPART) - of_fits) == []
    with pytest.raises(AttributeError, match=r"a posterior has no 'lr_test': a variance has a posterior: confint"):
        post.lr_test()
    with pytest.raises(AttributeError, match="no attribute 'bootstap'"):
        post.bootstap()


def test_linear_hypotheses(schools):
    fit, post = schools
    found, expected = post.test("IQ = 2.2, IQ - 10 SES = 0"), fit.test("IQ = 2.2, IQ - 10 SES = 0")
    scale = expected.contrasts["Std. Error"]
    assert (np.abs(found.contrasts["Estimate"] - expected.contrasts["Estimate"]) < 0.25 * scale).all()
    assert found.contrasts["Std. Error"].to_numpy() == pytest.approx(scale.to_numpy(), rel=0.12)
    assert post.test("IQ = 2.2").p_value == pytest.approx(fit.test("IQ = 2.2").p_value, abs=0.1)
    assert "Together: p < 0.001" in str(post.test({"IQ": 0, "SES": 0}))
    assert post.test(np.array([[0.0, 1, 0, 0]]), [2.2]).contrasts.index.tolist() == ["IQ = 2.2"]
    with pytest.raises(ComparisonError, match="Did you mean 'SES'"):
        post.test("SAS = 0")


def test_share_of_draws_farther_out_is_the_chi_squared_tail():
    draws = np.random.default_rng(1).multivariate_normal([1, 2], [[2, 0.5], [0.5, 1]], size=20_000)
    point = np.array([1.0, 2.0]) + np.linalg.cholesky([[2, 0.5], [0.5, 1]]) @ [1.0, 1.5]
    assert tail_share(draws, point) == pytest.approx(np.exp(-0.5 * 3.25), abs=0.01)


def test_tests_of_terms(schools):
    fit, post = schools
    found = post.anova().to_pandas()
    assert found.index.tolist() == fit.anova().to_pandas().index.tolist()
    x = fit.design.X
    sd = [np.std(x[:, j] * fit.beta[j]) for j in (1, 2, 3)]
    assert found["SD"].to_numpy() == pytest.approx(sd, rel=0.15)
    assert (found["farther"] < 0.01).all()


def test_marginal_means(schools, herds):
    fit, post = schools
    ours, theirs = post.emmeans("COMB"), fit.emmeans("COMB")
    assert ours.frame["mean"].to_numpy() == pytest.approx(theirs.frame["mean"].to_numpy(), abs=0.15)
    assert ours.frame["se"].to_numpy() == pytest.approx(theirs.frame["se"].to_numpy(), rel=0.15)
    pairs = ours.pairs().frame
    assert pairs["contrast"].tolist() == ["0 - 1"]
    assert pairs["estimate"][0] == pytest.approx(theirs.pairs().frame["difference"].iloc[0], abs=0.2)
    fit, post = herds
    ours, theirs = post.emmeans("period", scale="response"), fit.emmeans("period", scale="response")
    assert ours.frame["mean"].to_numpy() == pytest.approx(theirs.frame["mean"].to_numpy(), abs=0.03)
    ratios = ours.pairs()
    assert ratios.frame["estimate"][0] > 1
    assert ratios.frame["positive"][0] > 0.95
    assert "above 1" in str(ratios)
    assert "odds ratio" in str(ratios)
    both = ours.contrast({"first against last": [1, 0, 0, -1]}).frame["estimate"][0]
    assert both == pytest.approx(ratios.frame["estimate"][2])


@pytest.mark.parametrize("group_effects", ["integrated", "zero", "fitted"])
def test_marginal_effects(herds, group_effects):
    fit, post = herds
    ours = post.marginal_effects("period", group_effects=group_effects).frame
    theirs = fit.marginal_effects("period", group_effects=group_effects).frame
    assert ours["contrast"].tolist() == theirs["contrast"].tolist()
    assert ours["estimate"].to_numpy() == pytest.approx(theirs["estimate"].to_numpy(), abs=0.025)


def test_shares_of_variance(schools, herds):
    for fit, post in (schools, herds):
        assert post.icc().adjusted == pytest.approx(fit.icc().adjusted, abs=0.06)
        assert post.r2().marginal == pytest.approx(fit.r2().marginal, abs=0.04)
        shares = post.variance_partition().shares
        assert shares.index.tolist() == fit.variance_partition().shares.index.tolist()
        assert shares.sum() == pytest.approx(1)


def test_icc_of_nested_factors_counts_the_coarser_one_in():
    model = blm.model("strength ~ 1 + (1 | batch/cask)", blm.datasets.load("Pastes"))
    icc = model.sample(draws=300, chains=2, seed=1, progress=False).icc().draws
    assert icc["cask:batch"].to_numpy() == pytest.approx(icc["adjusted"].to_numpy())
    assert (icc["batch"] < icc["cask:batch"]).all()


def test_simulated_responses_have_the_spread_of_the_data(schools):
    fit, post = schools
    y = fit.design.y
    assert post.simulate(50, seed=1).std() == pytest.approx(y.std(), rel=0.05)
    kept = post.simulate(300, keep_effects=True, seed=1).mean(axis=0)
    assert np.corrcoef(kept, fit.fitted)[0, 1] > 0.99
    assert post.simulate(2, {"IQ": [10.0], "SES": [20.0], "COMB": ["0"], "class": ["new"]}, seed=1).shape == (2, 1)
    with pytest.raises(DataError, match="at least one"):
        post.simulate(0)


def test_tidy_and_glance(schools, herds):
    fit, post = schools
    ours, theirs = post.tidy("ran_coefs"), fit.tidy("ran_coefs")
    assert ours["estimate"].to_numpy() == pytest.approx(theirs["estimate"].to_numpy(), abs=0.8)
    row = post.glance(looic=True).iloc[0]
    assert row["pss"] == 1000
    assert row["looic"] == pytest.approx(-2 * float(post.loo().elpd))
    assert "Posterior" in str(blm.table(fit, post, names=["REML", "Posterior"]))
    ratios = herds[1].tidy("fixed", exp=True)
    assert ratios["conf.low"].to_numpy() == pytest.approx(
        np.exp(herds[1].tidy("fixed")["conf.low"].to_numpy()), rel=1e-3
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda post: post.summary(),
        lambda post: post.test("IQ = 0"),
        lambda post: post.anova(),
        lambda post: post.emmeans("COMB"),
        lambda post: post.emmeans("COMB").pairs(),
        lambda post: post.icc(),
        lambda post: post.r2(),
        lambda post: post.variance_partition(),
        lambda post: post.varcorr,
        lambda post: post.priors,
    ],
)
def test_every_table_is_written_four_ways(schools, ask):
    table = ask(schools[1])
    assert "\\toprule" in table.to_latex()
    assert "| --- |" in table.to_markdown()
    assert "<table" in table.to_html()
    assert not table.to_pandas().empty


def test_plots(schools):
    post = schools[1]
    assert "class" in post.plot_caterpillar().get_ylabel()
    assert post.plot_residuals().get_xlabel() == "expected lang"
    assert post.plot_residuals("raw", against="IQ").get_xlabel() == "IQ"
    assert post.plot_scale_location().get_xlabel() == "expected lang"
    assert post.variance_partition().plot() is not None
