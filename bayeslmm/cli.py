"""The command `bayeslmm`: fit, sample and compare from a shell, with a report to hand on."""

from __future__ import annotations

import argparse
import secrets
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import bayeslmm
from bayeslmm.errors import BayesLmmError, DataError, did_you_mean, listing

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.bayes.posterior import Posterior
    from bayeslmm.contract import Fit
    from bayeslmm.models import Model

FAILED, INTERRUPTED = 2, 130
LARGEST_SEED = 2**31
FORMATS = ("text", "markdown", "latex", "html")

DESCRIPTION = "Mixed models from one lme4 formula: REML and NUTS side by side."
EXAMPLES = """\
examples:
  bayeslmm compare "lang ~ IQ + GS + SES + COMB + (1 | class)" nlschools --report report.html
  bayeslmm fit "Reaction ~ Days + (Days | Subject)" sleepstudy --ml
  bayeslmm sample "cbind(incidence, size - incidence) ~ period + (1 | herd)" cbpp --family binomial --seed 1
  bayeslmm fit "score ~ time + (time | pupil)" scores.csv --report scores.html
  bayeslmm datasets

DATA is the name of a packaged data set or the path of a CSV, TSV or Parquet file. Put the formula in quotes.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What was typed after `bayeslmm`; the process's own arguments when absent.

    Returns
    -------
    int
        0; 2 after an error, which is explained on standard error; 130 after Ctrl-C.

    Examples
    --------
    >>> main(["fit", "Yield ~ 1 + (1 | Batch)", "Dyestuff"])
    Linear mixed model fit by REML
    ...
    0
    """
    chosen = build_parser().parse_args(arguments)
    with plain_warnings(sys.stderr) as given:
        try:
            chosen.run(chosen, given)
        except BayesLmmError as error:
            print(f"bayeslmm: {error}", file=sys.stderr)
            return FAILED
        except KeyboardInterrupt:
            print("bayeslmm: stopped", file=sys.stderr)
            return INTERRUPTED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Returns
    -------
    argparse.ArgumentParser
        With one sub-command per verb.

    Examples
    --------
    >>> build_parser().parse_args(["fit", "y ~ x + (1 | g)", "data.csv", "--ml"]).reml
    False
    """
    parser = argparse.ArgumentParser(
        "bayeslmm", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"bayeslmm {bayeslmm.__version__}")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    compare = _verb(verbs, "compare", "REML beside the posterior, disagreements flagged and explained", run_compare)
    fit = _verb(verbs, "fit", "REML or ML", run_fit)
    sample = _verb(verbs, "sample", "the posterior by NUTS", run_sample)
    for verb in (compare, fit):
        _add_criterion(verb)
    for verb in (compare, sample):
        _add_sampling(verb)
    for verb in (compare, fit, sample):
        _add_output(verb)
    datasets = verbs.add_parser("datasets", help="list the packaged data sets")
    datasets.set_defaults(run=run_datasets)
    return parser


def _verb(verbs: Any, name: str, summary: str, run: Any) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("formula", metavar="FORMULA", help='in quotes: "y ~ x + (x | g)"')
    verb.add_argument("data", metavar="DATA", help="a packaged data set, or a CSV, TSV or Parquet file")
    verb.add_argument("--family", default="gaussian", help="response family (default: gaussian)")
    verb.add_argument("--link", help="link of the mean (default: the family's usual one)")
    verb.add_argument("--weights", metavar="COLUMN", help="prior weights")
    verb.add_argument("--offset", metavar="COLUMN", help="known part of the linear predictor")
    verb.set_defaults(run=run)
    return verb


def _add_criterion(verb: argparse.ArgumentParser) -> None:
    criterion = verb.add_mutually_exclusive_group()
    criterion.add_argument("--reml", dest="reml", action="store_true", default=True, help="the default")
    criterion.add_argument("--ml", dest="reml", action="store_false", help="maximum likelihood")


def _add_sampling(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seed", type=_whole, help="makes the draws reproducible; chosen and printed when absent")
    verb.add_argument("--draws", type=_whole, default=1000, help="per chain (default: 1000)")
    verb.add_argument("--tune", type=_whole, help="warm-up steps per chain (default: the engine's)")
    verb.add_argument("--chains", type=_whole, default=4, help="default: 4")
    verb.add_argument("--engine", choices=("marginal", "laplace", "latent"), help="default: chosen by the model")
    verb.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")


def _add_output(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--level", type=_level, default=0.95, help="coverage of the intervals (default: 0.95)")
    verb.add_argument("--format", choices=FORMATS, default="text", help="of what is printed (default: text)")
    verb.add_argument("--report", metavar="FILE", help="write one HTML file that opens offline")


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _level(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1; 95 % is 0.95")
    return value


# --- verbs ---------------------------------------------------------------------------------------------------------


def run_compare(chosen: argparse.Namespace, given: Sequence[str]) -> None:
    """Fit, sample, and print both side by side.

    Parameters
    ----------
    chosen : argparse.Namespace
        What was asked for.
    given : sequence of str
        Warnings so far, which the report repeats.
    """
    from bayeslmm.report.compare import compare

    model = _model(chosen)
    fit = _fit(model, chosen)
    post = _sample(model, chosen)
    both = compare(fit, post, level=chosen.level)
    _show(both, chosen.format)
    _report(model, chosen, given, fit=fit, post=post, comparison=both)


def run_fit(chosen: argparse.Namespace, given: Sequence[str]) -> None:
    """Fit and print the summary.

    Parameters
    ----------
    chosen : argparse.Namespace
        What was asked for.
    given : sequence of str
        Warnings so far, which the report repeats.
    """
    model = _model(chosen)
    fit = _fit(model, chosen)
    _show(fit.summary(), chosen.format)
    _report(model, chosen, given, fit=fit)


def run_sample(chosen: argparse.Namespace, given: Sequence[str]) -> None:
    """Sample and print the summary.

    Parameters
    ----------
    chosen : argparse.Namespace
        What was asked for.
    given : sequence of str
        Warnings so far, which the report repeats.
    """
    model = _model(chosen)
    post = _sample(model, chosen)
    _show(post.summary(), chosen.format)
    _report(model, chosen, given, post=post)


def run_datasets(chosen: argparse.Namespace, given: Sequence[str]) -> None:
    """Print the packaged data sets.

    Parameters
    ----------
    chosen : argparse.Namespace
        What was asked for.
    given : sequence of str
        Warnings so far.
    """
    from bayeslmm import datasets
    from bayeslmm.report.tables import Table

    listed = datasets.load().set_index("name").rename_axis(None)[["rows", "columns", "title"]]
    print(Table(listed, notes=("Sources and licences: bayeslmm.datasets.load()",)))


# --- steps ---------------------------------------------------------------------------------------------------------


def _model(chosen: argparse.Namespace) -> Model:
    from bayeslmm.models import model

    return model(
        chosen.formula,
        read_data(chosen.data),
        family=chosen.family,
        link=chosen.link,
        weights=chosen.weights,
        offset=chosen.offset,
    )


def _fit(model: Model, chosen: argparse.Namespace) -> Fit:
    with _stopwatch("fitted"):
        return model.fit(reml=chosen.reml)


def _sample(model: Model, chosen: argparse.Namespace) -> Posterior:
    if chosen.seed is None:
        chosen.seed = secrets.randbelow(LARGEST_SEED)
    with _stopwatch(f"{chosen.chains} chains of {chosen.draws:,} draws with seed {chosen.seed}"):
        return model.sample(
            chosen.draws,
            tune=chosen.tune,
            chains=chosen.chains,
            seed=chosen.seed,
            engine=chosen.engine,
            progress=chosen.progress and sys.stderr.isatty(),
        )


def _show(result: Any, form: str) -> None:
    print(result if form == "text" else getattr(result, f"to_{form}")(), flush=True)


def _report(model: Model, chosen: argparse.Namespace, given: Sequence[str], **results: Any) -> None:
    if chosen.report is None:
        return
    from bayeslmm.report.equation import equation
    from bayeslmm.report.html import write_report

    priors = model.priors if "post" in results else None
    target = Path(chosen.report)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_report(
            target,
            equation=equation(model.design, model.family, priors),
            priors=None if priors is None else priors.table(),
            code=code_for(chosen),
            data_name=chosen.data,
            warnings=given,
            **results,
        )
    except OSError as error:
        raise DataError(f"the report cannot be written to {chosen.report!r}: {error.strerror}.") from None
    print(f"report: {target}", file=sys.stderr)


def read_data(source: str) -> pd.DataFrame:
    """Return a packaged data set, or the content of a CSV, TSV or Parquet file.

    Parameters
    ----------
    source : str
        A name or a path. A file of that name goes before a packaged data set.

    Returns
    -------
    DataFrame
        The data.

    Raises
    ------
    DataError
        If there is neither, or the file cannot be read.

    Examples
    --------
    >>> read_data("sleepstudy").shape
    (180, 3)
    """
    import pandas as pd

    from bayeslmm import datasets

    path = Path(source)
    if not path.is_file():
        if source in datasets.names():
            return datasets.load(source)
        hint = did_you_mean(source, datasets.names())
        raise DataError(
            f"there is no file {source!r} and no packaged data set of that name.\n"
            f"  Data sets: {listing(datasets.names(), 20)}. {hint}".rstrip()
        )
    readers: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".tsv": lambda file: pd.read_csv(file, sep="\t"),
        ".parquet": pd.read_parquet,
    }
    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if f".{suffix}" not in readers:
        raise DataError(f"{source!r} is neither CSV, TSV nor Parquet: its name must end in {listing(readers)}.")
    try:
        data: pd.DataFrame = readers[f".{suffix}"](path)
    except (ValueError, OSError) as error:
        raise DataError(f"{source!r} cannot be read as {suffix}: {error}") from None
    return data


def code_for(chosen: argparse.Namespace) -> str:
    """Return the Python that does what the command line asked for.

    Parameters
    ----------
    chosen : argparse.Namespace
        What was asked for.

    Returns
    -------
    str
        A few lines.

    Examples
    --------
    >>> print(code_for(build_parser().parse_args(["fit", "y ~ x + (1 | g)", "d.csv", "--ml"])))
    import bayeslmm as blm
    import pandas as pd
    <BLANKLINE>
    data = pd.read_csv('d.csv')
    model = blm.model('y ~ x + (1 | g)', data)
    fit = model.fit(reml=False)
    print(fit.summary())
    """
    options = {name: getattr(chosen, name) for name in ("link", "weights", "offset")}
    settings = [f", {name}={value!r}" for name, value in options.items() if value is not None]
    if chosen.family != "gaussian":
        settings.insert(0, f", family={chosen.family!r}")
    lines = [
        "import bayeslmm as blm",
        *([] if _is_packaged(chosen.data) else ["import pandas as pd"]),
        "",
        f"data = {_reading_code(chosen.data)}",
        f"model = blm.model({chosen.formula!r}, data{''.join(settings)})",
    ]
    if chosen.run in (run_compare, run_fit):
        lines.append(f"fit = model.fit({'' if chosen.reml else 'reml=False'})")
    if chosen.run in (run_compare, run_sample):
        lines.append(f"post = model.sample({_sampling_code(chosen)})")
    last = {run_compare: f"blm.compare(fit, post, level={chosen.level})", run_sample: "post.summary()"}
    return "\n".join([*lines, f"print({last.get(chosen.run, 'fit.summary()')})"])


def _is_packaged(source: str) -> bool:
    from bayeslmm import datasets

    return source in datasets.names() and not Path(source).is_file()


def _reading_code(source: str) -> str:
    if _is_packaged(source):
        return f"blm.datasets.load({source!r})"
    name = source.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return f"pd.read_parquet({source!r})"
    return f"pd.read_csv({source!r}, sep='\\t')" if name.endswith(".tsv") else f"pd.read_csv({source!r})"


def _sampling_code(chosen: argparse.Namespace) -> str:
    settings: list[tuple[str, Any, Any]] = [
        ("draws", chosen.draws, 1000),
        ("tune", chosen.tune, None),
        ("chains", chosen.chains, 4),
        ("seed", chosen.seed, None),
        ("engine", chosen.engine, None),
    ]
    return ", ".join(f"{name}={value!r}" for name, value, default in settings if value != default)


@contextmanager
def _stopwatch(what: str) -> Iterator[None]:
    from bayeslmm.likelihood.compile_time import Stopwatch

    clock = Stopwatch()
    yield
    compiling = f", after {clock.compiling():.0f} s of compiling, once on this machine" if clock.notes() else ""
    print(f"{what} in {clock.seconds():.2f} s{compiling}", file=sys.stderr)


@contextmanager
def plain_warnings(stream: TextIO) -> Iterator[list[str]]:
    """Print warnings as sentences, without a place in the source, and keep them.

    Parameters
    ----------
    stream : text stream
        Where to print.

    Yields
    ------
    list of str
        The sentences so far.
    """
    kept: list[str] = []

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):
            return
        kept.append(str(message))
        print(f"warning: {message}", file=stream)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield kept
