"""What a user sees on a `Console`: lines, a progress line and tables, apart from what Ray and TensorFlow print."""

import contextlib
import json
import math
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

PROGRESS_SECONDS = 10.0
"""Where the output is no terminal, a progress line is printed at most this often."""
_BAR = 20
_STDOUT, _STDERR = 0, 1


class Console:
    """Writes results to the standard output, progress and errors to the standard error.

    As JSON each line is an object: `time` (ISO 8601, UTC), `level` (info, progress, warning or error), `verb`, `run`,
    `message`, and fields of its own where it has any.

    Args:
        progress_seconds: Minimum time between progress lines where the standard error is no terminal.
        as_json: Whether each line is a JSON object.
        verb: What runs, for the lines in JSON and for metrics.

    Attributes:
        moved_at: When the work was last seen to go on, by `time.monotonic()`.
        expected: What the run waits for, or nothing.
        failure: What broke in another thread than the one that works, for which the watchdog ends the run.
        run: An id of this start: when it began and six hexadecimal digits.
    """

    def __init__(self, progress_seconds: float = PROGRESS_SECONDS, as_json: bool = False, verb: str = "") -> None:
        self.verb, self.run = verb, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._json = as_json
        self._streams: tuple[TextIO, TextIO] | None = None
        self._lock = threading.RLock()
        self._open_line = False
        self._progress_seconds = progress_seconds
        self._last_progress = self.moved_at = time.monotonic()
        self.expected = ""
        self.failure: Exception | None = None

    def expect(self, what: str) -> None:
        """Note what the run waits for from now on, for the case that nothing moves: `2 workers wanted, 1 started`."""
        self.expected = what

    def say(self, line: str = "") -> None:
        """Print one line of results."""
        if self._json and not line:
            return
        self._write(_STDOUT, "info", line)

    def note(self, line: str, *, moved: bool = True, **fields: Any) -> None:
        """Print one line that is not a result, so that it stays out of a pipe.

        Args:
            line: What to print.
            moved: As for `progress`.
            fields: Further fields, for JSON alone.
        """
        self._write(_STDERR, "warning", line, moved, fields)

    def error(self, sentence: str) -> None:
        """Print what went wrong as `sentray: sentence`."""
        self._write(_STDERR, "error", sentence if self._json else f"sentray: {sentence}")

    def event(self, message: str, **fields: Any) -> None:
        """Write what is for machines only: in JSON alone, with fields that JSON can hold."""
        if self._json:
            self._write(_STDERR, "info", message, fields=fields)

    def progress(self, line: str, share: float | None = None, *, moved: bool = True) -> None:
        """Show how far the work is.

        A terminal's line is written over until the next line of another kind, and has a bar where the share is known;
        elsewhere a plain line comes every few seconds and the others are left out.

        Args:
            line: What to show.
            share: How much of the work is done, from 0 to 1.
            moved: Whether the work is further than when this was called before.
        """
        with self._lock:
            if moved:
                self.moved_at = time.monotonic()
            stream = self._stream(_STDERR)
            if stream.isatty() and not self._json:
                width = shutil.get_terminal_size().columns - 1
                shown = line if share is None else f"[{bar(share, _BAR).ljust(_BAR)}] {_percent(share)} {line}"
                self._put(stream, f"\r\x1b[K{_printable(shown)[:width]}")
                self._open_line = True
            elif time.monotonic() - self._last_progress >= self._progress_seconds:
                self._last_progress = time.monotonic()
                shown = line if share is None or self._json else f"{_percent(share)} {line}"
                fields = {} if share is None else {"share": round(share, 4)}
                self._write(_STDERR, "progress", shown, moved=False, fields=fields)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows in columns, numbers to the right; floats get four decimals.

        In JSON each row is a line, with its values by their column's name: the first column is `name` where it has
        none, and others without one, which show in another way what is there already, are left out.

        Args:
            header: The columns' names.
            rows: Values in the columns' order.
        """
        if self._json:
            names = [name or ("" if column else "name") for column, name in enumerate(header)]
            for row in rows:
                stripped = (value.strip() if isinstance(value, str) else value for value in row)
                fields = {name: value for name, value in zip(names, stripped, strict=True) if name}
                self._write(_STDOUT, "info", " ".join(map(_cell, fields.values())), fields=fields)
            return
        cells = [[_cell(value) for value in row] for row in (header, *rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        right = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
        for row in cells:
            padded = (
                text.rjust(width) if to_right else text.ljust(width)
                for text, width, to_right in zip(row, widths, right, strict=True)
            )
            self.say("  ".join(padded).rstrip())

    @contextlib.contextmanager
    def quiet(self, log: Path, verbose: bool = False) -> Iterator[None]:
        """Send what this process writes to standard output and error into a log file, but for the console's.

        The file descriptors themselves are redirected, so that libraries in C++ and processes that inherit
        them write to the log too. The log is appended to. Nothing is redirected where `verbose` is set.
        """
        if verbose:
            yield
            return
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            # Python's streams are not on descriptors 1 and 2 when pytest or a notebook replaced them.
            self._streams = (_kept(sys.stdout, 1, undo), _kept(sys.stderr, 2, undo))
            undo.callback(setattr, self, "_streams", None)
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            undo.callback(os.close, target)
            for name, descriptor in (("stdout", 1), ("stderr", 2)):
                saved = os.dup(descriptor)
                os.dup2(target, descriptor)
                undo.callback(os.close, saved)
                undo.callback(os.dup2, saved, descriptor)
                stream = getattr(sys, name)
                undo.callback(setattr, sys, name, stream)
                undo.callback(_flush, name)
                if not _is_on(stream, descriptor):
                    setattr(sys, name, os.fdopen(descriptor, "w", buffering=1, closefd=False))
            yield

    def _write(
        self, which: int, level: str, line: str, moved: bool = True, fields: dict[str, Any] | None = None
    ) -> None:
        with self._lock:
            if moved:
                self.moved_at = time.monotonic()
            if self._open_line:
                self._put(self._stream(_STDERR), "\r\x1b[K")
                self._open_line = False
            self._put(self._stream(which), f"{self._object(level, line, fields) if self._json else _printable(line)}\n")

    def _object(self, level: str, message: str, fields: dict[str, Any] | None) -> str:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        about = {"time": now, "level": level, "verb": self.verb, "run": self.run, "message": message}
        numbers = {name: value if _is_json(value) else None for name, value in (fields or {}).items()}
        # A field does not hide one of ours of the same name.
        return json.dumps({**about, **numbers, **about}, default=str)

    def _stream(self, which: int) -> TextIO:
        return self._streams[which] if self._streams else (sys.stdout, sys.stderr)[which]

    @staticmethod
    def _put(stream: TextIO, text: str) -> None:
        stream.write(text)
        stream.flush()


def duration(seconds: float) -> str:
    """A length of time as `0:42` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_json(value: Any) -> bool:
    """Whether JSON has a word for it: not for infinity and what is not a number."""
    return not isinstance(value, float) or math.isfinite(value)


def printable(text: str) -> str:
    """Lines with control characters written out, as a traceback may quote what a review holds."""
    return "\n".join(map(_printable, text.split("\n")))


def _printable(text: str) -> str:
    """A line with control characters written out: a review must not move the cursor, change colours or add a line."""
    if text.isprintable():
        return text
    begin, end = len(text) - len(text.lstrip("\n")), len(text.rstrip("\n"))
    line = "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text[begin:end])
    return text[:begin] + line + text[max(begin, end) :]


def count(number: float, noun: str) -> str:
    """A number with its noun, such as `0.5 CPUs`, `1 file` or `4,000 files`."""
    return f"{f'{number:,}' if isinstance(number, int) else f'{number:g}'} {noun}{'' if number == 1 else 's'}"


def bar(share: float, width: int) -> str:
    """A share from 0 to 1 as a row of at most `width` signs."""
    return "#" * round(min(max(share, 0.0), 1.0) * width)


def _percent(share: float) -> str:
    # Work is not all done before it is.
    return f"{int(100 * share):3d} %"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_on(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def _kept(stream: TextIO, descriptor: int, undo: contextlib.ExitStack) -> TextIO:
    """A stream that goes on reaching the user once the descriptor is redirected."""
    stream.flush()
    if not _is_on(stream, descriptor):
        return stream
    copy = os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors="backslashreplace")
    undo.callback(copy.close)
    return copy


def _flush(name: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        getattr(sys, name).flush()
