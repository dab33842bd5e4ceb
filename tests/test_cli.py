import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import bayeslmm
from bayeslmm import cli, datasets
from bayeslmm.errors import DataError


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def parsed(*arguments: str):
    return cli.build_parser().parse_args(arguments)


@pytest.fixture
def scores(tmp_path):
    rng = np.random.default_rng(4)
    group = np.repeat(list("abcdefgh"), 6)
    x = rng.normal(size=48)
    y = 2 + x + np.repeat(rng.normal(size=8), 6) + rng.normal(size=48)
    path = tmp_path / "scores.csv"
    pd.DataFrame({"y": y, "x": x, "g": group, "w": rng.uniform(1, 2, 48)}).to_csv(path, index=False)
    return path


def test_fit_prints_the_summary(capsys):
    code, out, err = run(capsys, "fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff")
    assert code == 0
    assert out.startswith("Linear mixed model fit by REML\nFormula: Yield ~ 1 + (1 | Batch)\n")
    assert "REML criterion at convergence: 319.65" in out
    assert err.startswith("fitted in ")


def test_compare_prints_both_and_writes_the_whole_report(capsys, tmp_path):
    target = tmp_path / "both.html"
    settings = ("--seed", "1", "--draws", "200", "--chains", "2", "--level", "0.9", "--report", str(target))
    code, out, err = run(capsys, "compare", "Yield ~ 1 + (1 | Batch)", "Dyestuff", *settings)
    assert code == 0
    assert out.startswith("REML beside NUTS (marginal): Yield ~ 1 + (1 | Batch)\n")
    assert re.search(r"sd_Batch\[Intercept\] +42\.0", out)
    assert "2 chains of 200 draws with seed 1 in " in err
    page = target.read_text(encoding="utf-8")
    for title in ("Model", "Side by side", "REML fit", "Posterior predictive check", "Sampler", "Reproduce"):
        assert f">{title}</h2>" in page
    assert "model.sample(draws=200, chains=2, seed=1)" in page
    assert not re.search(r"https?://", page)


def test_sample_prints_the_posterior(capsys):
    code, out, _ = run(capsys, "sample", "Yield ~ 1 + (1 | Batch)", "Dyestuff", "--seed", "1", "--draws", "100")
    assert code == 0
    assert "sd_Batch[Intercept]" in out


def test_ml_and_reml_exclude_each_other(capsys):
    assert "fit by maximum likelihood" in run(capsys, "fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff", "--ml")[1]
    with pytest.raises(SystemExit) as stop:
        run(capsys, "fit", "y ~ x + (1 | g)", "Dyestuff", "--ml", "--reml")
    assert stop.value.code == 2


@pytest.mark.parametrize(("form", "mark"), [("markdown", "| ---"), ("latex", r"\toprule"), ("html", "<table")])
def test_other_formats(capsys, form, mark):
    assert mark in run(capsys, "fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff", "--format", form)[1]


def test_files_with_weights_and_a_report(capsys, scores, tmp_path):
    target = tmp_path / "new folder" / "report.html"
    code, out, err = run(capsys, "fit", "y ~ x + (1 | g)", str(scores), "--weights", "w", "--report", str(target))
    assert code == 0
    assert "Number of obs: 48, groups: g, 8" in out
    assert f"report: {target}" in err
    page = target.read_text(encoding="utf-8")
    assert "weights=&#x27;w&#x27;" in page
    assert "pd.read_csv(" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "Yield ~ 1 + (1 | Batch", "Dyestuff"), "^"),
        (("fit", "Yield ~ dose + (1 | Batch)", "Dyestuff"), "dose"),
        (("fit", "Yield ~ 1 + (1 | Batch)", "Dyestufff"), "Did you mean 'Dyestuff'"),
        (("fit", "Yield ~ 1 + (1 | Batch)", "nowhere.csv"), "there is no file 'nowhere.csv'"),
        (("fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff", "--family", "gausian"), "Did you mean 'gaussian'"),
    ],
)
def test_errors_are_explained_without_a_traceback(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("bayeslmm: ")
    assert message in err
    assert "Traceback" not in err


def test_a_report_that_cannot_be_written_is_an_error(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ("fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff", "--report", str(tmp_path / "file" / "r.html"))
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "the report cannot be written" in err


def test_warnings_are_sentences(capsys):
    err = run(capsys, "fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff2")[2]
    assert err.startswith("warning: the fit is on the boundary")
    assert ".py" not in err


def test_interrupt_ends_quietly(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_datasets", interrupted)
    code, _, err = run(capsys, "datasets")
    assert (code, err) == (130, "bayeslmm: stopped\n")


def test_datasets_are_listed(capsys):
    out = run(capsys, "datasets")[1]
    assert all(name in out for name in datasets.names())
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("bad", [("--level", "95"), ("--seed", "-1"), ("--draws", "many")])
def test_impossible_settings_are_refused(bad, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("compare", "y ~ x + (1 | g)", "d.csv", *bad)
    assert stop.value.code == 2
    assert bad[0] in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    assert 'bayeslmm compare "lang ~ IQ' in capsys.readouterr().out


def test_version_from_the_module():
    done = subprocess.run([sys.executable, "-m", "bayeslmm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"bayeslmm {bayeslmm.__version__}\n"


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet"])
def test_files_are_read_by_their_name(suffix, tmp_path):
    frame = pd.DataFrame({"x": [1.5, 2.5], "g": ["a", "b"]})
    path = tmp_path / f"d.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    assert cli.read_data(str(path))["x"].tolist() == [1.5, 2.5]


def test_unreadable_files_are_explained(tmp_path):
    (tmp_path / "d.xlsx").write_text("x")
    (tmp_path / "d.parquet").write_text("x")
    with pytest.raises(DataError, match=r"must end in \.csv, \.tsv, \.parquet"):
        cli.read_data(str(tmp_path / "d.xlsx"))
    with pytest.raises(DataError, match="cannot be read as parquet"):
        cli.read_data(str(tmp_path / "d.parquet"))


def test_a_file_goes_before_a_packaged_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(cli.read_data("Dyestuff")) == 30
    (tmp_path / "Dyestuff").write_text("x")
    with pytest.raises(DataError, match="neither CSV"):
        cli.read_data("Dyestuff")


def test_code_repeats_what_was_asked():
    chosen = parsed(
        "compare", "k ~ x + (1 | g)", "my data.tsv", "--family", "poisson", "--ml", "--seed", "7", "--draws", "500"
    )
    assert cli.code_for(chosen).splitlines() == [
        "import bayeslmm as blm",
        "import pandas as pd",
        "",
        r"data = pd.read_csv('my data.tsv', sep='\t')",
        "model = blm.model('k ~ x + (1 | g)', data, family='poisson')",
        "fit = model.fit(reml=False)",
        "post = model.sample(draws=500, seed=7)",
        "print(blm.compare(fit, post, level=0.95))",
    ]


def test_code_of_a_fit_runs_and_gives_the_same(capsys):
    chosen = parsed("fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff")
    exec(cli.code_for(chosen), {})
    by_code = capsys.readouterr().out
    assert by_code == run(capsys, "fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff")[1]
