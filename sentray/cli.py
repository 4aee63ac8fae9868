"""The command line: each verb parses its settings, does the work as the Python API does, and prints the result."""

import contextlib
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
from typing import Annotated, Any, NoReturn

import typer

from sentray import __version__, api, options
from sentray.api import VERBS, Verb
from sentray.config import Settings
from sentray.console import Console, printable
from sentray.errors import SentrayError

USER_ERROR, UNEXPECTED_ERROR, INTERRUPTED, STOPPED = SentrayError.status, 3, 130, 143

RESUMABLE = ("train", "score", "reproduce")
"""Verbs that go on where they were when the same command is given again."""


def _show_training(metrics: dict[str, Any], settings: Any, console: Console) -> None:
    if metrics["test_rows"]:
        _show_metrics(metrics["test"], settings, console)
    console.say(f"the bundle is in {settings.out}")


def _show_metrics(metrics: dict[str, Any], settings: Any, console: Console) -> None:
    from sentray import tables

    tables.metrics(console, metrics)


def _show_predictions(predictions: Any, settings: Any, console: Console) -> None:
    for prediction in predictions:
        console.say(str(prediction))


def _show_report(report: Any, settings: Any, console: Console) -> None:
    for line in report.lines():
        console.say(line)


SHOWN: dict[str, Callable[[Any, Any, Console], None]] = {
    "train": _show_training,
    "evaluate": _show_metrics,
    "predict": _show_predictions,
    "check": _show_report,
}
"""How a verb's result is printed, where the verb does not say it while it works."""


app = typer.Typer(
    name="sentray",
    help="Train sentiment models on review text and score reviews, on a laptop or a Ray cluster.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measure the speed of this machine, beside a named baseline.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sentray {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")] = (
        False
    ),
) -> None:
    pass


def _offer(name: str, verb: Verb) -> None:
    invoke = options.command(verb.settings, lambda settings: _run(name, verb, settings))
    group, _, plain = name.rpartition(" ")
    (bench if group else app).command(
        plain,
        cls=options.Command,
        # Where nothing has to be given, no words mean the defaults.
        no_args_is_help=any(field.is_required() for field in verb.settings.model_fields.values()),
        context_settings=options.context(verb.settings),
    )(invoke)


def _run(name: str, verb: Verb, settings: Settings) -> None:
    """Do a verb's work with a quiet console, and turn what goes wrong into one line and an exit status."""
    console = Console(as_json=getattr(settings, "log_format", "text") == "json", verb=name.replace(" ", "-"))
    verbose = getattr(settings, "verbose", False)
    out = None if getattr(settings, "dry_run", False) else getattr(settings, "out", None)
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(_stoppable())
        try:
            log = stack.enter_context(_log_file(console, out))
        except OSError as error:
            console.error(f"{error.filename} cannot be made or written ({error.strerror}); choose another --out")
            raise SystemExit(USER_ERROR) from None
        try:
            with console.quiet(log, verbose):
                result = api.run(verb, settings, console, end_process=True)
                if show := SHOWN.get(name):
                    show(result, settings, console)
        # Ray Train answers Ctrl-C by ending the process; no verb of ours does.
        except (KeyboardInterrupt, SystemExit):
            again = "; the same command goes on from here" if name in RESUMABLE else ""
            console.error(f"{'stopped' if stopped.is_set() else 'interrupted'}{again}")
            raise SystemExit(STOPPED if stopped.is_set() else INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output left, as `head` does; what Python would still flush has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(USER_ERROR) from None
        except SentrayError as mistake:
            console.error(str(mistake))
            raise SystemExit(mistake.status) from None
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


def _report(error: Exception, console: Console, log: Path, verbose: bool) -> NoReturn:
    report = printable("".join(traceback.format_exception(error)))
    with log.open("a", encoding="utf-8") as stream:
        stream.write(report)
    if verbose:
        sys.stderr.write(report)
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


for _name, _verb in VERBS.items():
    _offer(_name, _verb)


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
