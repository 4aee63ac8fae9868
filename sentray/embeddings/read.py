"""One reader for word2vec's text and binary format and GloVe's, plain or compressed, whatever the file is called.

The file is streamed, so that memory follows the words that are kept. What is wrong with a file is counted, with the
line and the reason; a file with many such rows is refused.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from sentray.console import count
from sentray.embeddings import kernel
from sentray.embeddings.formats import NUMBER, fields_of, recognise
from sentray.embeddings.opening import opened
from sentray.embeddings.vectors import Vectors
from sentray.errors import SentrayError
from sentray.text.simd import BLOCK
from sentray.text.table import table

MAX_BAD = 0.01
"""A file with a larger share of bad rows is refused."""
MAX_ROW_BYTES = 8 << 20
"""A row that is longer is refused: it is no row of numbers."""

_BUFFER = 1 << 20
_HEAD = 1 << 18
_ROOM_BYTES, _ROOM_ROWS = 1 << 20, 8_192
_ROOM_MAX = 1 << 28


@dataclass(frozen=True)
class FileReport:
    """What a file of word vectors holds.

    Attributes:
        file: as the caller named it.
        format: `word2vec text`, `word2vec binary` or `GloVe`.
        compression: `none`, `gzip`, `bzip2`, `xz` or `zip`.
        dimensions: numbers of a vector.
        rows: good rows, wanted or not.
        declared: rows by the header, None where there is none.
        duplicates: rows left out because an earlier one has the same word; of words that are not wanted none is known.
        bad: reason, number of rows and the first one's line (row in a binary file), for each reason that occurs.
    """

    file: str
    format: str
    compression: str
    dimensions: int
    rows: int
    declared: int | None
    duplicates: int
    bad: tuple[tuple[str, int, int], ...]

    @property
    def bad_rows(self) -> int:
        """Rows that were skipped or that the header counts in vain."""
        return sum(number for _, number, _ in self.bad)

    def lines(self) -> list[str]:
        """For the console: what the file is, and what was odd about it."""
        packed = "" if self.compression == "none" else f", {self.compression}"
        shown = [f"{self.file}: {self.format}{packed}, {count(self.rows, 'row')} of {count(self.dimensions, 'number')}"]
        if self.declared is not None and self.rows + self.bad_rows > self.declared:
            shown.append(f"the header says {count(self.declared, 'row')}; all that are there were read")
        if self.duplicates:
            shown.append(f"words that occur again, of which the first row counts: {self.duplicates:,}")
        if self.bad:
            shown.append(f"bad rows, skipped: {self.bad_rows:,} ({self.reasons()})")
        return shown

    def reasons(self) -> str:
        """The bad rows in words, such as `2 with nan or infinity, first in line 7`."""
        unit = "row" if self.format == "word2vec binary" else "line"
        return "; ".join(f"{number:,} with {reason}, first in {unit} {first:,}" for reason, number, first in self.bad)


def read_vectors(file: str, wanted: Collection[str] | None = None) -> tuple[Vectors, FileReport]:
    r"""Read word vectors, each the float32 nearest to the float64 nearest to what is written, as gensim has them.

    A row of text ends at `\n` or `\r\n` alone; its last numbers, parted by spaces or tabs, are the vector, and what
    stands before them is the word, spaces included. Of rows whose word is not wanted only the word and the number of
    fields are checked. A last number that is cut off within its digits cannot be told from a whole one.

    Args:
        file: path or URI of a pyarrow file system; `FILE.zip#MEMBER` for one of several members.
        wanted: the words to keep; all where None.

    Returns:
        The vectors in the order of the file, of words that occur several times the first, and what the file holds.

    Raises:
        SentrayError: the file cannot be read, holds something else, or more than 1 % of its rows are bad.
    """
    with opened(file) as (stream, compression):
        reader = _Reader(file, stream, wanted)
        reader.read()
    vectors, report = reader.vectors(), reader.report(compression)
    rows = report.rows + report.bad_rows
    if rows == 0:
        raise SentrayError(f"{file} holds no row, only a header: it seems the rest of a broken copy; get it again")
    if report.bad_rows > MAX_BAD * rows:
        raise SentrayError(
            f"{file} has {count(report.bad_rows, 'bad row')} of {rows:,} as {report.format} with "
            f"{count(report.dimensions, 'number')} a row ({report.reasons()}), more than {MAX_BAD:.0%}: it seems "
            "damaged; get it again"
        )
    return vectors, report


def dimensions_of(file: str) -> int:
    """Numbers of a vector in a file that `read_vectors` can read, from a look at its beginning.

    Raises:
        SentrayError: the file cannot be read, or seems to hold something else.
    """
    with opened(file) as (stream, _):
        reader = _Reader(file, stream, ())
        reader.recognise()
    return reader.format.dimensions


class _Buffer:
    """The part of a stream that is looked at, at an address, with bytes behind it that may be read as well."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._bytes = np.zeros(_BUFFER + 2 * BLOCK, np.uint8)
        self.start = self.stop = 0
        self.ended = False

    @property
    def address(self) -> int:
        return int(self._bytes.ctypes.data)

    def fill(self) -> bool:
        """Move the rest to the front and read as much as there is room for; False where a row does not fit at all."""
        rest, room = self.stop - self.start, len(self._bytes) - 2 * BLOCK
        if rest == room:
            if room >= MAX_ROW_BYTES:
                return False
            room *= 2
            self._bytes = np.concatenate([self._bytes[: self.stop], np.zeros(room + 2 * BLOCK - self.stop, np.uint8)])
        self._bytes[:rest] = self._bytes[self.start : self.stop].copy()
        self.start, self.stop = 0, rest
        view = self._bytes.data
        while self.stop < room and not self.ended:
            taken = self._stream.readinto(view[self.stop : room])  # type: ignore[attr-defined]
            self.stop, self.ended = self.stop + taken, taken == 0
        return True

    def end_line(self) -> None:
        """Put a newline behind the last byte."""
        self._bytes[self.stop] = ord("\n")
        self.stop += 1

    def rest(self) -> bytes:
        return self.between(self.start, self.stop)

    def between(self, start: int, stop: int) -> bytes:
        return self._bytes[start:stop].tobytes()


class _Reader:
    """Rows from a buffer into words and one growing matrix."""

    def __init__(self, file: str, stream: IO[bytes], wanted: Collection[str] | None) -> None:
        self._file, self._buffer = file, _Buffer(stream)
        self._words: list[str] = []
        self._seen: set[str] = set()
        self._duplicates = 0
        self._state = np.zeros(kernel.STATE, np.int64)
        self._word_bytes = np.empty(0, np.uint8)
        self._wanted = None if wanted is None else list(wanted)
        self._table = None if self._wanted is None else table(self._wanted, np.arange(len(self._wanted)))

    def recognise(self) -> None:
        """Look at the beginning of the stream for the format."""
        buffer = self._buffer
        buffer.fill()
        head = buffer.between(0, min(_HEAD, buffer.stop))
        while head.count(b"\n") < 2 and (len(head) < buffer.stop or (not buffer.ended and buffer.fill())):
            head = buffer.rest()
        if not head:
            raise SentrayError(f"{self._file} holds no byte: it seems the rest of a broken copy; get it again")
        self.format = recognise(head, buffer.ended and len(head) == buffer.stop, self._file)

    def read(self) -> None:
        """Read the whole stream."""
        self.recognise()
        buffer = self._buffer
        buffer.start = self.format.start
        self._prepare()
        cut = False
        while True:
            if buffer.ended and not self.format.binary and not cut and not buffer.rest().endswith(b"\n"):
                buffer.end_line()
                cut = True
            while self._scan(cut):
                pass
            if buffer.ended:
                break
            if not buffer.fill():
                self._refuse_long()
        self._finish()

    def _prepare(self) -> None:
        """Make room for rows, now that their length is known."""
        row_bytes = 4 * self.format.dimensions
        self._room = min(max(_ROOM_BYTES // row_bytes, 1), _ROOM_ROWS)
        self._slow = np.empty((self._room, 4), np.int64)
        # Room that is not used takes no memory, and a header may claim what it likes.
        likely = self.format.declared or self._room if self._wanted is None else len(self._wanted)
        most = min(likely, _ROOM_MAX // row_bytes)
        self._rows = np.empty((most + 1, self.format.dimensions), np.float32)
        # Lines are counted from the header on.
        self._state[kernel.PASSED] = self.format.declared is not None and not self.format.binary

    def _scan(self, cut: bool) -> bool:
        """Take the whole rows of the buffer; whether some may be left because there was no more room for them."""
        buffer, state, dimensions = self._buffer, self._state, self.format.dimensions
        have = len(self._words)
        if have == len(self._rows):
            self._rows.resize((have + max(self._room, have // 8), dimensions), refcheck=False)
        room = min(self._room, len(self._rows) - have)
        if len(self._word_bytes) < buffer.stop:
            self._word_bytes = np.empty(buffer.stop, np.uint8)
        words = self._word_bytes
        keep = (0, np.uint64(0), 0)
        if self._table is not None:
            slots, shift, blob, _ = self._table
            keep = (slots.ctypes.data, shift, blob.ctypes.data)
        state[[kernel.ROWS, kernel.WORD_BYTES, kernel.SLOW]] = 0
        start, stop = buffer.address + buffer.start, buffer.address + buffer.stop
        rows = self._rows[have:].ctypes.data
        if self.format.binary:
            kernel.scan_binary(start, stop, dimensions, rows, room, words.ctypes.data, *keep, state)
        else:
            kernel.scan_text(start, stop, cut, dimensions, rows, room, words.ctypes.data, *keep, self._slow, state)
        if state[kernel.NEXT] == kernel.TOO_LONG:
            self._refuse_long()
        good = self._settle()
        buffer.start = int(state[kernel.NEXT]) - buffer.address
        if taken := int(state[kernel.ROWS]):
            self._take(words[: state[kernel.WORD_BYTES] - 1].tobytes().decode().split("\n"), good)
        return taken == room

    def _settle(self) -> npt.NDArray[np.bool_]:
        """Read the rows that are left to Python; bool[rows of the scan], which are good."""
        good = np.ones(int(self._state[kernel.ROWS]), np.bool_)
        have, buffer = len(self._words), self._buffer
        for row, start, end, line in self._slow[: self._state[kernel.SLOW]].tolist():
            text = buffer.between(start - buffer.address, end - buffer.address)
            fields = fields_of(text)
            if all(NUMBER.fullmatch(field) for field in fields):
                with np.errstate(over="ignore"):
                    numbers = np.array([float(field) for field in fields]).astype(np.float32)
                if np.isfinite(numbers).all():
                    self._rows[have + row] = numbers
                    self._state[kernel.GOOD] += 1
                    continue
                reason = kernel.NOT_FINITE
            else:
                reason = kernel.NO_NUMBER
            good[row] = False
            self._bad(reason, 1, line)
        return good

    def _take(self, words: list[str], good: npt.NDArray[np.bool_]) -> None:
        """Keep the good ones of the rows that lie behind the words so far, of equal words the first."""
        have = len(self._words)
        if not good.all() or len(set(words)) < len(words) or not self._seen.isdisjoint(words):
            for row, word in enumerate(words):
                if good[row] and word in self._seen:
                    self._duplicates += 1
                    good[row] = False
                elif good[row]:
                    self._seen.add(word)
            kept = np.flatnonzero(good)
            self._rows[have : have + len(kept)] = self._rows[have + kept]
            words = [words[row] for row in kept.tolist()]
        self._seen.update(words)
        self._words += words

    def _bad(self, reason: int, number: int, first: int) -> None:
        place = kernel.BAD + 2 * reason
        before = self._state[place + 1] if self._state[place] else first
        self._state[place : place + 2] += number, 0
        self._state[place + 1] = min(before, first)

    def _finish(self) -> None:
        """Count what is missing at the end, and give back the room for more rows."""
        state, following = self._state, int(self._state[kernel.PASSED]) + 1
        if self._buffer.rest().strip(b"\n"):
            self._bad(kernel.CUT, 1, following)
            following += 1
        if self.format.declared is not None:
            missing = self.format.declared - int(state[kernel.GOOD]) - sum(number for _, number, _ in self._reasons())
            if missing > 0:
                self._bad(kernel.MISSING, min(missing, 2**62), following)
        self._rows.resize((len(self._words), self.format.dimensions), refcheck=False)

    def _reasons(self) -> Sequence[tuple[str, int, int]]:
        counts = self._state[kernel.BAD :].reshape(-1, 2).tolist()
        return [(what, number, first) for what, (number, first) in zip(kernel.REASONS, counts, strict=True) if number]

    def _refuse_long(self) -> None:
        unit = "row" if self.format.binary else "line"
        raise SentrayError(
            f"{self._file} is damaged: no end of {unit} {self._state[kernel.PASSED] + 1:,} is found within what a row "
            "of word vectors may take; get it again"
        )

    def vectors(self) -> Vectors:
        return Vectors(self._words, self._rows)

    def report(self, compression: str) -> FileReport:
        kind, rows = self.format, int(self._state[kernel.GOOD])
        return FileReport(
            self._file, kind.name, compression, kind.dimensions, rows, kind.declared, self._duplicates,
            tuple(self._reasons()),
        )  # fmt: skip
