"""The command line: each verb parses its settings, calls the room that does the work, prints the result."""

import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer

from sentray import __version__, cluster, options, watchdog
from sentray.bench.settings import (
    BenchDriverSettings,
    BenchScoreSettings,
    BenchTrainSettings,
    BenchVectorsSettings,
    ReproduceSettings,
)
from sentray.config import (
    CheckSettings,
    ClusterSettings,
    EmbedSettings,
    EvaluateSettings,
    PredictSettings,
    QuickstartSettings,
    ScoreSettings,
    Settings,
    TrainSettings,
    VerifySettings,
    VocabSettings,
    WordsSettings,
)
from sentray.console import Console, printable
from sentray.errors import SentrayError
from sentray.submit import SubmitSettings

S = TypeVar("S", bound=Settings)

USER_ERROR, UNEXPECTED_ERROR, INTERRUPTED, STOPPED = SentrayError.status, 3, 130, 143

RESUMABLE = ("train", "score", "reproduce")
"""Verbs that go on where they were when the same command is given again."""

JOBS: dict[str, type[Settings]] = {}
"""The settings of each verb that `jobs/` has a file for."""


def train(settings: TrainSettings, console: Console) -> None:
    """Train and say where the bundle is."""
    from sentray import tables
    from sentray.training.run import train

    metrics = train(settings, console)
    if metrics["test_rows"]:
        tables.metrics(console, metrics["test"])
    console.say(f"the bundle is in {settings.out}")


def evaluate(settings: EvaluateSettings, console: Console) -> None:
    """Evaluate, print the metrics and write them where asked."""
    from sentray import evaluation, tables

    metrics = evaluation.evaluate(settings, console)
    tables.metrics(console, metrics)
    _write_json(settings.json_file, metrics, settings)


def score(settings: ScoreSettings, console: Console) -> None:
    """Score into Parquet."""
    from sentray.scoring.job import score

    score(settings, console)


def verify(settings: VerifySettings, console: Console) -> None:
    """Check a scoring job's files against its plan and its ledger."""
    from sentray.scoring.verify import verify

    verify(settings, console)


def predict(settings: PredictSettings, console: Console) -> None:
    """Print a label and its probability for the text, or for each line of the standard input."""
    from sentray.inference.predict import predict

    with open(0, "rb", closefd=False) as stdin:
        for prediction in predict(settings.bundle, settings.text, stdin, settings.engine):
            console.say(str(prediction))


def check(settings: CheckSettings, console: Console) -> None:
    """Print a report on a corpus and write it where asked."""
    from sentray.corpus.check import check

    report = check(settings, console)
    for line in report.lines():
        console.say(line)
    _write_json(settings.json_file, report.to_dict(), settings)


def vocab(settings: VocabSettings, console: Console) -> None:
    """Write the vocabulary of a corpus's training reviews."""
    from sentray.corpus.vocab import write_vocabulary

    write_vocabulary(settings, console)


def embed(settings: EmbedSettings, console: Console) -> None:
    """Learn word vectors and write them."""
    from sentray.embeddings.learn import embed

    embed(settings, console)


def words(settings: WordsSettings, console: Console) -> None:
    """Export a bundle's word vectors, or print the words nearest to a word."""
    from sentray.words import words

    words(settings, console)


def reproduce(settings: ReproduceSettings, console: Console) -> None:
    """Make the tutorials' systems again, and write table and picture."""
    from sentray.reproduce.run import reproduce

    reproduce(settings, console)


def quickstart(settings: QuickstartSettings, console: Console) -> None:
    """Show the whole way on a small corpus."""
    from sentray.quickstart import quickstart

    quickstart(settings, console)


def submit(settings: SubmitSettings, console: Console) -> None:
    """Run a verb as a job on a cluster."""
    from sentray.submit import submit

    submit(settings, JOBS, console)


def bench_train(settings: BenchTrainSettings, console: Console) -> None:
    """Print how fast training is, and write the figures where asked."""
    from sentray.bench.train import bench_train

    figures = bench_train(settings, console)
    _write_json(settings.json_file, figures, settings)


def bench_score(settings: BenchScoreSettings, console: Console) -> None:
    """Print how fast scoring is, and write the figures where asked."""
    from sentray.bench.score import bench_score

    figures = bench_score(settings, console)
    _write_json(settings.json_file, figures, settings)


def bench_driver(settings: BenchDriverSettings, console: Console) -> None:
    """Print how fast a scoring job's driver is, and write the figures where asked."""
    from sentray.bench.driver import bench_driver

    figures = bench_driver(settings, console)
    _write_json(settings.json_file, figures, settings)


def bench_vectors(settings: BenchVectorsSettings, console: Console) -> None:
    """Print how fast word vectors are read, and write the figures where asked."""
    from sentray.bench.vectors import bench_vectors

    figures = bench_vectors(settings, console)
    _write_json(settings.json_file, figures, settings)


app = typer.Typer(
    name="sentray",
    help="Train sentiment models on review text and score reviews, on a laptop or a Ray cluster.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


bench = typer.Typer(help="Measure the speed of this machine, beside a named baseline.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def _offer(
    model: type[S],
    work: Callable[[S, Console], None],
    needs_arguments: bool = True,
    under: typer.Typer = app,
    name: str | None = None,
) -> None:
    invoke = options.command(model, lambda settings: _run(work.__name__, work, settings))
    if under is app and model is not SubmitSettings:
        JOBS[work.__name__] = model
    under.command(name or work.__name__, no_args_is_help=needs_arguments, context_settings=options.context(model))(
        invoke
    )


def _run(verb: str, work: Callable[[S, Console], None], settings: S) -> None:
    """Do a verb's work with a quiet console, and turn what goes wrong into one line and an exit status."""
    console = Console(as_json=getattr(settings, "log_format", "text") == "json", verb=verb.replace("_", "-"))
    verbose = getattr(settings, "verbose", False)
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(_stoppable())
        try:
            out = None if getattr(settings, "dry_run", False) else getattr(settings, "out", None)
            log = stack.enter_context(_log_file(console, out))
        except OSError as error:
            console.error(f"{error.filename} cannot be made or written ({error.strerror}); choose another --out")
            raise SystemExit(USER_ERROR) from None
        try:
            with console.quiet(log, verbose), _watched(settings, console):
                work(settings, console)
        # Ray Train answers Ctrl-C by ending the process; no verb of ours does.
        except (KeyboardInterrupt, SystemExit):
            again = "; the same command goes on from here" if verb in RESUMABLE else ""
            console.error(f"{'stopped' if stopped.is_set() else 'interrupted'}{again}")
            raise SystemExit(STOPPED if stopped.is_set() else INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output left, as `head` does; what Python would still flush has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(USER_ERROR) from None
        except Exception as error:
            _report(error, console, log, verbose)


@contextlib.contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """End as after Ctrl-C when the process is told to terminate, as Ray and Kubernetes do to stop a job.

    Yields:
        Whether it was: what Ray waits for ends with Ctrl-C's exception either way.
    """
    stopped = threading.Event()

    def stop(*_: object) -> NoReturn:
        stopped.set()
        raise SystemExit(STOPPED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)


def _watched(settings: Settings, console: Console) -> contextlib.AbstractContextManager[None]:
    """Watch over a verb that works on a cluster, and leave the others alone."""
    if isinstance(settings, ClusterSettings):
        return watchdog.watch(console, settings.stall_timeout)
    return contextlib.nullcontext()


def _report(error: Exception, console: Console, log: Path, verbose: bool) -> NoReturn:
    mistake = cluster.user_error(error)
    if mistake is not None:
        console.error(str(mistake))
        raise SystemExit(mistake.status)
    told = printable("".join(traceback.format_exception(error)))
    with log.open("a", encoding="utf-8") as stream:
        stream.write(told)
    if verbose:
        sys.stderr.write(told)
    first_line = next(iter(str(error).strip().splitlines()), "")
    console.error(f"unexpected {type(error).__name__}: {first_line[:300]} (the traceback is in {log})")
    raise SystemExit(UNEXPECTED_ERROR)


@contextlib.contextmanager
def _log_file(console: Console, out: str | None) -> Iterator[Path]:
    """The run's log: beside a local output, or in the temporary folder and kept only after a failure."""
    if out is not None and "://" not in out:
        log = Path(out.rstrip("/") + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(printable(f"sentray {__version__}, run {console.run}: {shlex.join(sys.argv)}\n"))
        yield log
        return
    handle, name = tempfile.mkstemp(prefix=f"sentray-{console.verb}-", suffix=".log")
    os.close(handle)
    try:
        yield Path(name)
    except SystemExit as status:
        if status.code != UNEXPECTED_ERROR:
            os.unlink(name)
        raise
    os.unlink(name)


def _write_json(file: str | None, content: dict[str, Any], settings: Settings) -> None:
    if file is not None:
        from sentray.config import write_settings_beside
        from sentray.storage import write_text

        write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        write_settings_beside(file, settings)


_offer(TrainSettings, train)
_offer(EvaluateSettings, evaluate)
_offer(ScoreSettings, score)
_offer(VerifySettings, verify)
_offer(PredictSettings, predict)
_offer(CheckSettings, check)
_offer(VocabSettings, vocab)
_offer(EmbedSettings, embed)
_offer(WordsSettings, words)
_offer(ReproduceSettings, reproduce, needs_arguments=False)
_offer(QuickstartSettings, quickstart, needs_arguments=False)
_offer(SubmitSettings, submit)
_offer(BenchTrainSettings, bench_train, needs_arguments=False, under=bench, name="train")
_offer(BenchScoreSettings, bench_score, needs_arguments=False, under=bench, name="score")
_offer(BenchDriverSettings, bench_driver, needs_arguments=False, under=bench, name="driver")
_offer(BenchVectorsSettings, bench_vectors, needs_arguments=False, under=bench, name="vectors")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status.

    Args:
        arguments: The words after `sentray`; those of this process where not given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--log-format=json" in words or ("--log-format", "json") in pairwise(words)
    console = Console(as_json=as_json, verb=words[0] if words else "")
    try:
        # Typer prints what is wrong with the words in its own way, unless it is told not to.
        app(args=words, prog_name="sentray", standalone_mode=not as_json)
    except SentrayError as error:
        console.error(str(error))
        sys.exit(error.status)
    except options.MISUSE as error:
        console.error(error.format_message())
        sys.exit(error.exit_code)
    sys.exit(0)
