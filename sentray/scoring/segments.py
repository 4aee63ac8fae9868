"""A log of JSON lines in numbered files, each written at once: what the ledger's folders hold."""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from sentray.scoring.records import Gathered, Record
from sentray.storage import Folder, parse_json

T = TypeVar("T")
FLUSH_SECONDS, FLUSH_SHARE, FLUSH_MAX = 0.5, 0.01, 60.0
"""Lines are written after so long, or after this share of the run so far where that is longer, but not after more
than the last: a kill loses little, and a long run makes a thousand files, not a million."""
MERGE_FROM = 32
_A_PART = re.compile(rb'\["([^"]+)",\d+,\d+,"[0-9a-f]{64}"\]')
_A_SEGMENT = re.compile(r"(?:.*/)?(\d+)(?:-[0-9a-f]{12})?\.jsonl")
CURE = "delete it: what it recorded is scored again"
MERGED_BYTES = 16_000_000


class CommitLog:
    """Appends records to one of the ledger's folders; only one run at a time may (see `lease`).

    Args:
        folder: The output folder.
        name: Folder of the log in it.
        clock: Tells seconds.
        check: Called before each write; raises when this run may not write any more.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._name, self._clock = folder, name, clock
        self._next = max((_number(segment) for segment in segments(folder, name)), default=-1) + 1
        # A run that does not know yet that it lost its lease must not replace the files of the next.
        self._owner = uuid.uuid4().hex[:12]
        self._check = check
        self._lines: list[str] = []
        self._began = self._written = clock()

    def add(self, record: Record | Gathered) -> None:
        """Add a record; it is written soon, and at the latest by `close`."""
        self._lines.append(json.dumps(record.to_json(), ensure_ascii=False, separators=(",", ":")))
        self.flush(only_if_due=True)

    def flush(self, only_if_due: bool = False) -> None:
        """Write what was added; with `only_if_due` only when that was a while ago.

        Raises:
            SentrayError: When it cannot be written, or `check` says so; it stays for the next time.
        """
        now = self._clock()
        due = self._written + min(max(FLUSH_SECONDS, FLUSH_SHARE * (now - self._began)), FLUSH_MAX)
        if not self._lines or (only_if_due and now < due):
            return
        self._check()
        segment = f"{self._name}/{self._next:06d}-{self._owner}.jsonl"
        self._folder.write(segment, "".join(f"{line}\n" for line in self._lines).encode())
        self._next, self._lines, self._written = self._next + 1, [], self._clock()

    def close(self) -> None:
        """Write what was added."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def segments(folder: Folder, name: str) -> list[str]:
    """The files of a log, oldest first."""
    found = [file for file in folder.names(name) if _number(file) >= 0]
    return sorted(found, key=lambda file: (_number(file), file))


def newest_first(folder: Folder, name: str, parse: Callable[[Any], T]) -> Iterator[T]:
    """What `parse` makes of a log's lines, the last one first, a file at a time.

    Raises:
        SentrayError: When a file is damaged.
    """
    for segment in reversed(segments(folder, name)):
        content = folder.read(segment) or b""
        for line in reversed(content.splitlines()):
            try:
                value = parse(parse_json(line))
            except ValueError as error:
                raise folder.damaged(segment, error, CURE) from error
            yield value


def named_files(folder: Folder, name: str) -> Iterator[str]:
    """The names of all files that a log's lines tell of; a tenth of the time that reading the lines takes."""
    for segment in segments(folder, name):
        yield from (found.decode(errors="replace") for found in _A_PART.findall(folder.read(segment) or b""))


def merge(folder: Folder, name: str) -> None:
    """Make few files of a log's many small ones.

    A run of files becomes one under the last one's name, and then the others go: at any moment the last line about
    a shard is still the last.
    """
    found = segments(folder, name)
    if len(found) < MERGE_FROM:
        return
    run: list[str] = []
    content = bytearray()
    for segment in found:
        more = folder.read(segment) or b""
        if len(content) + len(more) > MERGED_BYTES:
            _replace(folder, run, content)
            run, content = [], bytearray()
        run.append(segment)
        content += more
    _replace(folder, run, content)


def _replace(folder: Folder, run: list[str], content: bytearray) -> None:
    if len(run) > 1:
        folder.write(run[-1], bytes(content))
    for old in run[:-1]:
        folder.delete(old)


def _number(segment: str) -> int:
    match = _A_SEGMENT.fullmatch(segment)
    return int(match[1]) if match else -1
