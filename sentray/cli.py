"""The command line: each verb parses its settings, does the work as the Python API does, and prints the result."""

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from sentray import __version__, api, options, tables
from sentray.api import VERBS, Verb
from sentray.config import Settings
from sentray.console import Console, printable
from sentray.errors import SentrayError, SentrayWarning, first_line

USER_ERROR, UNEXPECTED_ERROR, INTERRUPTED, STOPPED = SentrayError.status, 3, 130, 143

RESUMABLE = ("train", "crossvalidate", "tune", "score", "reproduce")
"""Verbs that go on where they were when the same command is given again."""


def _show(name: str, result: Any, settings: Any, console: Console) -> None:
    """Print a verb's result, where the verb does not say it while it works."""
    if name == "evaluate":
        tables.metrics(console, result)
    elif name == "compare":
        tables.comparison(console, result)
        if not result["passed"]:
            raise SentrayError(f"{settings.other} is not what --require {settings.require} asks for: see the last line")
    elif name in ("train", "tune"):
        result = result.get("metrics", result)
        if measured := [name for name in ("validation", "test") if name in result]:
            console.say(f"{measured[-1]} rows ({result['figures'][measured[-1]]}):")
            tables.metrics(console, result[measured[-1]])
        pages = [f"a page about it is {settings.out}/report.html"] if settings.report else []
        console.panel([f"the bundle is in {settings.out}", *pages])
    elif name in ("check", "predict"):
        for line in result.lines() if name == "check" else result:
            console.say(str(line))
        if getattr(settings, "strict", False) and result.problem:
            raise SentrayError(f"{settings.corpus} cannot be trained on (--strict): the report's last line says why")


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


def _run(name: str, verb: Verb, settings: Settings) -> None:
    """Do a verb's work with a quiet console, and turn what goes wrong into one line and an exit status.

    When the process is told to terminate, as Ray and Kubernetes do to stop a job, it ends as after Ctrl-C.
    """
    console = Console(as_json=getattr(settings, "log_format", "text") == "json", verb=name.replace(" ", "-"))
    out = None if getattr(settings, "dry_run", False) else getattr(settings, "out", None)
    verbose, stopped = getattr(settings, "verbose", False), threading.Event()

    def stop(*_: object) -> NoReturn:
        stopped.set()
        raise SystemExit(STOPPED)

    def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if issubclass(category, SentrayWarning):
            console.note(str(message))
        else:
            usual(message, category, *where, **more)

    usual = warnings.showwarning
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as temporary, warnings.catch_warnings():
        warnings.showwarning = show
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, stop))
        try:
            log = _log_file(console, out, temporary)
            with console.quiet(log, verbose):
                result = api.run(verb, settings, console, end_process=True)
                _show(name, result, settings, console)
        # Ray Train answers Ctrl-C by ending the process, and what Ray waits for SIGTERM by an interrupt.
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
            temporary.pop_all()
            # It may quote what a review holds.
            lines = "".join(traceback.format_exception(error)).split("\n")
            report = "\n".join(map(printable, lines))
            with log.open("a", encoding="utf-8") as stream:
                stream.write(report)
            if verbose:
                sys.stderr.write(report)
            console.error(f"unexpected {type(error).__name__}: {first_line(error)[:300]} (the traceback is in {log})")
            raise SystemExit(UNEXPECTED_ERROR) from None


def _log_file(console: Console, out: str | None, temporary: contextlib.ExitStack) -> Path:
    """The run's log: beside a local output, or in the temporary folder until the stack ends.

    Raises:
        SentrayError: It cannot be made.
    """
    try:
        if out is None or "://" in out:
            handle, name = tempfile.mkstemp(prefix=f"sentray-{console.verb}-", suffix=".log")
            os.close(handle)
            temporary.callback(os.unlink, name)
            return Path(name)
        log = Path(out.rstrip("/") + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(printable(f"sentray {__version__}, run {console.run}: {shlex.join(sys.argv)}") + "\n")
        return log
    except OSError as error:
        raise SentrayError(
            f"{error.filename or f'{out}.log'} cannot be made or written ({error.strerror}); choose another --out"
        ) from error


for _name, _verb in VERBS.items():
    _group, _, _plain = _name.rpartition(" ")
    options.offer(bench if _group else app, _plain, _verb.settings, partial(_run, _name, _verb))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status.

    Whatever the locale, arguments, file names and output are UTF-8, here and in the processes that Ray starts.

    Args:
        arguments: The words after `sentray`; those of this process where not given.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="sentray")
    except SentrayError as error:
        Console().error(str(error))
        sys.exit(error.status)
    sys.exit(0)
