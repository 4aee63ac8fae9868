"""What a user sees: lines, a progress line and tables, kept apart from what Ray and TensorFlow print."""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

PROGRESS_SECONDS = 10.0
"""Where the output is no terminal, a progress line is printed at most this often."""
_BAR = 20


class Console:
    """Writes results to the standard output, progress and errors to the standard error.

    Args:
        progress_seconds: Least time between progress lines where the standard error is no terminal.

    Attributes:
        moved_at: When the work was last seen to go on, by `time.monotonic()`.
        expected: What the run waits for, or nothing.
    """

    def __init__(self, progress_seconds: float = PROGRESS_SECONDS) -> None:
        self._streams: tuple[TextIO, TextIO] | None = None
        self._lock = threading.RLock()
        self._open_line = False
        self._progress_seconds = progress_seconds
        self._last_progress = self.moved_at = time.monotonic()
        self.expected = ""

    def expect(self, what: str) -> None:
        """Note what the run waits for from now on, to be told when nothing moves: `2 workers wanted, 1 started`."""
        self.expected = what

    def say(self, line: str = "") -> None:
        """Print one line of results."""
        self._write(0, line)

    def note(self, line: str, *, moved: bool = True) -> None:
        """Print one line that is not a result, so that it stays out of a pipe; `moved` as for `progress`."""
        self._write(1, line, moved)

    def error(self, sentence: str) -> None:
        """Print what went wrong as `sentray: sentence`."""
        self._write(1, f"sentray: {sentence}")

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
            stream = self._stream(1)
            if stream.isatty():
                width = shutil.get_terminal_size().columns - 1
                shown = line if share is None else f"[{bar(share, _BAR).ljust(_BAR)}] {_percent(share)} {line}"
                self._put(stream, f"\r\x1b[K{_printable(shown)[:width]}")
                self._open_line = True
            elif time.monotonic() - self._last_progress >= self._progress_seconds:
                self._last_progress = time.monotonic()
                shown = line if share is None else f"{_percent(share)} {line}"
                self._put(stream, f"{_printable(shown)}\n")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows in columns, numbers to the right; floats get four decimals."""
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
            for descriptor in (1, 2):
                saved = os.dup(descriptor)
                os.dup2(target, descriptor)
                undo.callback(os.close, saved)
                undo.callback(os.dup2, saved, descriptor)
            os.close(target)
            for name, descriptor in (("stdout", 1), ("stderr", 2)):
                stream = getattr(sys, name)
                undo.callback(setattr, sys, name, stream)
                undo.callback(_flush, name)
                if not _is_on(stream, descriptor):
                    setattr(sys, name, os.fdopen(descriptor, "w", buffering=1, closefd=False))
            yield

    def _write(self, which: int, line: str, moved: bool = True) -> None:
        with self._lock:
            if moved:
                self.moved_at = time.monotonic()
            if self._open_line:
                self._put(self._stream(1), "\r\x1b[K")
                self._open_line = False
            self._put(self._stream(which), f"{_printable(line)}\n")

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


def _printable(text: str) -> str:
    """The text with control characters written out: a review must not move the cursor or change colours."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


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
