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
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

PROGRESS_SECONDS = 10.0
"""Where the output is no terminal, a progress line is printed at most this often."""
_BAR = 20


class Console:
    """Writes results to the standard output, progress and errors to the standard error.

    As JSON each line is an object: `time` (ISO 8601, UTC), `level` (info, progress, warning or error), `verb`, `run`,
    `message`, and fields of its own where it has any.

    Args:
        progress_seconds: Minimum time between progress lines where the standard error is no terminal.
        as_json: Whether each line is a JSON object.
        verb: What runs, for the lines in JSON and for metrics.
        silent: Whether to show nothing, and still know when the work last moved.

    Attributes:
        moved_at: When the work was last seen to go on, by `time.monotonic()`.
        expected: What the run waits for, or nothing.
        failure: What broke in another thread than the one that works, for which the watchdog ends the run.
        run: An id of this start: when it began and six hexadecimal digits.
    """

    def __init__(
        self,
        progress_seconds: float = PROGRESS_SECONDS,
        as_json: bool = False,
        verb: str = "",
        silent: bool = False,
    ) -> None:
        self.verb, self.run = verb, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._json, self._silent = as_json, silent
        self._kept: dict[str, TextIO] = {}
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
        """Print one line of results; an empty one is not for JSON."""
        if line or not self._json:
            self._write("stdout", "info", line)

    def note(self, line: str, *, moved: bool = True, **fields: Any) -> None:
        """Print one line that is not a result, so that it stays out of a pipe.

        Args:
            line: What to print.
            moved: As for `progress`.
            fields: Further fields, for JSON alone.
        """
        self._write("stderr", "warning", line, fields, moved)

    def error(self, sentence: str) -> None:
        """Print what went wrong as `sentray: sentence`."""
        self._write("stderr", "error", sentence if self._json else f"sentray: {sentence}")

    def event(self, message: str, line: str = "", **fields: Any) -> None:
        """Write what happened: in JSON the message, with fields that JSON can hold; for people a line, if any."""
        if self._json:
            self._write("stderr", "info", message, fields)
        elif line:
            self._write("stderr", "info", line)

    def progress(self, line: str, share: float | None = None, *, moved: bool = True) -> None:
        """Show how far the work is.

        A terminal's line is written over until the next line of another kind, and has a bar where the share is known;
        elsewhere a plain line comes every few seconds and the others are left out.

        Args:
            line: What to show.
            share: How much of the work is done, from 0 to 1.
            moved: Whether the work is further than when this was called before.
        """
        # Work is not all done before it is.
        percent = "" if share is None else f"{int(100 * share):3d} % "
        with self._lock:
            if moved:
                self.moved_at = time.monotonic()
            if self._stream("stderr").isatty() and not self._json:
                width = shutil.get_terminal_size().columns - 1
                drawn = "" if share is None else f"[{bar(share, _BAR).ljust(_BAR)}] "
                self._put("stderr", f"\r\x1b[K{printable(drawn + percent + line)[:width]}")
                self._open_line = True
            elif time.monotonic() - self._last_progress >= self._progress_seconds:
                self._last_progress = time.monotonic()
                fields = {} if share is None else {"share": round(share, 4)}
                self._write("stderr", "progress", line if self._json else percent + line, fields, moved=False)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows in columns, numbers to the right; floats get four decimals.

        In JSON each row is a line, with its values by their column's name: the first column is `name` where it has
        none, and others without one, which show in another way what is there already, are left out.

        Args:
            header: The columns' names.
            rows: Values in the columns' order.
        """
        if self._json:
            names = [header[0] or "name", *header[1:]]
            for row in rows:
                values = (value.strip() if isinstance(value, str) else value for value in row)
                fields = {name: value for name, value in zip(names, values, strict=True) if name}
                self._write("stdout", "info", " ".join(map(_cell, fields.values())), fields)
            return
        columns = [[name, *map(_cell, values)] for name, *values in zip(header, *rows, strict=True)]
        widths = [max(map(len, column)) for column in columns]
        right = [all(isinstance(row[at], int | float) for row in rows) for at in range(len(header))]
        for row in zip(*columns, strict=True):
            padded = (
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            )
            self.say("  ".join(padded).rstrip())

    def coloured(self, parts: Sequence[tuple[str, str]]) -> None:
        """Print words in styles, as rich names them, where the standard output shows colours; else nothing."""
        stream = self._stream("stdout")
        if self._silent or self._json or not stream.isatty() or "NO_COLOR" in os.environ:
            return
        from rich.console import Console as Rich
        from rich.text import Text

        Rich(file=stream, highlight=False).print(Text(" ").join(Text(printable(part), style) for part, style in parts))

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
            target = undo.enter_context(log.open("ab"))
            undo.callback(self._kept.clear)
            for descriptor, name in ((1, "stdout"), (2, "stderr")):
                stream: TextIO = getattr(sys, name)
                stream.flush()
                user = os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors="backslashreplace")
                undo.enter_context(user)
                # Where pytest or a notebook replaced it, Python's stream is not on the descriptor.
                self._kept[name] = user if _is_on(stream, descriptor) else stream
                os.dup2(target.fileno(), descriptor)
                undo.callback(os.dup2, user.fileno(), descriptor)
                undo.callback(setattr, sys, name, stream)
                undo.callback(_flush, stream)
                if not _is_on(stream, descriptor):
                    setattr(sys, name, undo.enter_context(os.fdopen(descriptor, "w", buffering=1, closefd=False)))
            yield

    def _write(self, name: str, level: str, line: str, fields: Mapping[str, Any] = {}, moved: bool = True) -> None:
        with self._lock:
            if moved:
                self.moved_at = time.monotonic()
            if self._open_line:
                self._put("stderr", "\r\x1b[K")
                self._open_line = False
            self._put(name, f"{self._object(level, line, fields) if self._json else printable(line)}\n")

    def _object(self, level: str, message: str, fields: Mapping[str, Any]) -> str:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        about = {"time": now, "level": level, "verb": self.verb, "run": self.run, "message": message}
        # JSON has no word for infinity and what is not a number; a field does not hide one of ours of the same name.
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }
        return json.dumps({**about, **finite, **about}, default=str)

    def _stream(self, name: str) -> TextIO:
        stream: TextIO = self._kept.get(name) or getattr(sys, name)
        return stream

    def _put(self, name: str, text: str) -> None:
        if not self._silent:
            stream = self._stream(name)
            stream.write(text)
            stream.flush()


def duration(seconds: float) -> str:
    """A length of time as `0:42` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def core_time(hours: float) -> str:
    """Work of processors as `1.4 core-seconds`, `12 core-minutes` or `1,200 core-hours`."""
    number, unit = next(
        ((hours * each, unit) for each, unit in ((1, "hours"), (60, "minutes")) if hours * each >= 1),
        (hours * 3600, "seconds"),
    )
    return f"{number:,.0f} core-{unit}" if number >= 10 else f"{number:.2g} core-{unit}"


def printable(line: str) -> str:
    """A line with control characters written out: a review must not move the cursor, change colours or add a line."""
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)


def count(number: float, noun: str) -> str:
    """A number with its noun, such as `0.5 CPUs`, `1 file` or `4,000 files`."""
    return f"{f'{number:,}' if isinstance(number, int) else f'{number:g}'} {noun}{'' if number == 1 else 's'}"


def bar(share: float, width: int) -> str:
    """A share from 0 to 1 as a row of at most `width` signs."""
    return "#" * round(min(max(share, 0.0), 1.0) * width)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_on(stream: TextIO, descriptor: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return stream.fileno() == descriptor
    return False


def _flush(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
