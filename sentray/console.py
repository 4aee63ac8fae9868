"""What a user sees on a `Console`: lines, a progress line and tables, apart from what Ray and TensorFlow print.

Tables and what is drawn on a terminal are rich's. It is imported when the first of them is shown, and gets text alone,
never its markup.
"""

import contextlib
import json
import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

PROGRESS_SECONDS = 10.0
"""Where the output is no terminal, a progress line is printed at most this often."""
_BAR, _WIDEST_BAR, _WIDE = 20, 40, 1 << 20
"""Columns of the progress line's bar, of a bar in a table, and of a table that no terminal limits."""
_STYLES = {"warning": "yellow", "error": "red"}


class Share(float):
    """A cell of a table: a number from 0 to 1 that is shown as a bar."""

    def __rich__(self) -> "RenderableType":
        from rich.bar import Bar

        return Bar(1, 0, self)


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
            if self.is_terminal("stderr"):
                from rich.progress_bar import ProgressBar

                bar = "" if share is None else self._drawn("stderr", ProgressBar(1, share, _BAR)) + " "
                spare = _BAR + 2 if bar else 1
                text = self._drawn("stderr", _text(percent + line), spare, no_wrap=True, overflow="ellipsis")
                self._put("stderr", bar + text, ends=False)
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
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        on_terminal = self.is_terminal("stdout")
        box, gap = (SIMPLE_HEAD, 1) if on_terminal else (None, 2)
        shown = Table(box=box, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
        for name, *cells in zip(header, *rows, strict=True):
            bars = any(isinstance(cell, Share) for cell in cells)
            right = not bars and all(isinstance(cell, int | float) for cell in cells)
            shown.add_column(
                _text(name),
                justify="right" if right else "left",
                no_wrap=right,
                overflow="fold",
                max_width=_WIDEST_BAR if bars else None,
            )
        for row in rows:
            shown.add_row(*(cell if on_terminal and isinstance(cell, Share) else _text(cell) for cell in row))
        self.show(shown)

    def show(self, shown: "RenderableType") -> None:
        """Print what rich draws: in colours on a terminal, as plain lines elsewhere. Text in it must be `printable`."""
        drawn = self._drawn("stdout", shown)
        if self.is_terminal("stdout"):
            # A table ends its last line, a text does not.
            self._put("stdout", drawn.removesuffix("\n") + "\n")
        else:
            for line in drawn.splitlines():
                self.say(line.rstrip())

    def panel(self, lines: Sequence[str]) -> None:
        """Print lines that a user came for: framed on a terminal, else as they are."""
        if not self.is_terminal("stdout"):
            for line in lines:
                self.say(line)
            return
        from rich.panel import Panel
        from rich.text import Text

        self.show(Panel.fit(Text("\n").join(map(_text, lines))))

    def coloured(self, parts: Sequence[tuple[str, str]]) -> None:
        """Print words in styles, as rich names them, where the standard output shows colours; else nothing."""
        if self.is_terminal("stdout") and "NO_COLOR" not in os.environ:
            from rich.text import Text

            self.show(Text(" ").join(_text(part, style) for part, style in parts))

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
            if self._json:
                line = self._object(level, line, fields)
            elif (style := _STYLES.get(level) or _STYLES.get(line.partition(": ")[0])) and self.is_terminal(name):
                line = self._drawn(name, _text(line, style), soft_wrap=True)
            else:
                line = printable(line)
            self._put(name, f"{line}\n")

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

    def is_terminal(self, name: str) -> bool:
        """Whether a stream can show more than plain lines, and shall."""
        plain = self._silent or self._json or not self._stream(name).isatty()
        return not plain and os.environ.get("TERM") not in ("dumb", "unknown")

    def _drawn(self, name: str, shown: "RenderableType", spare: int = 0, **how: Any) -> str:
        """What rich makes of something for a stream, in the colours and the width that this has, less `spare`."""
        from rich.console import Console as Rich

        stream, size = self._stream(name), 0
        if on_terminal := self.is_terminal(name):
            # Where the output is redirected, only the stream itself knows its terminal.
            with contextlib.suppress(OSError):
                size = os.get_terminal_size(stream.fileno()).columns
        width = (size or 80) - spare if on_terminal else _WIDE
        rich = Rich(file=stream, force_terminal=on_terminal, width=width, highlight=False)
        with rich.capture() as captured:
            rich.print(shown, end="", **how)
        return captured.get()

    def _put(self, name: str, text: str, ends: bool = True) -> None:
        """Write over the progress line; the text is the next one where it does not end a line."""
        if not self._silent:
            with self._lock:
                if self._open_line:
                    print("\r\x1b[K", end="", file=self._stream("stderr"), flush=True)
                self._open_line = not ends
                print(text, end="", file=self._stream(name), flush=True)


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


def _text(value: Any, style: str = "") -> "Text":
    """A cell or a line as rich shows it, whatever signs of rich's markup it holds; floats get four decimals."""
    from rich.text import Text

    return Text(printable(_cell(value)), style)


def _cell(value: Any) -> str:
    if isinstance(value, Share):
        return "#" * round(value * _WIDEST_BAR)
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
