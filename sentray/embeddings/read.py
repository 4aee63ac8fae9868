"""`read_vectors`: word2vec's text and binary format and GloVe's, plain or compressed, whatever the file is called.

A file is read row by row, so that memory follows the words that are kept. Rows that cannot be used are counted, with
the first line and the reason; a file with many of them is refused.
"""

import io
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from sentray.console import count
from sentray.corpus.files import opened
from sentray.embeddings.vectors import MAX_DIMENSIONS, Vectors
from sentray.errors import SentrayError

MAX_BAD = 0.01
"""A file with a larger share of bad rows is refused."""
MAX_ROW_BYTES = 8 << 20
"""A longer row is refused: it cannot be a row of numbers."""

_BLOCK = 1 << 18
_HEAD_LINES = 100
_HEAD_BYTES = 1 << 20
"""How far the format is looked for."""
_SHOWN = 40
_NUMBERS_AT_ONCE = 20_000
_READ = csv.ReadOptions(use_threads=False, column_names=["number"])
_PARSE = csv.ParseOptions(quote_char=False)
_CONVERT = csv.ConvertOptions(column_types={"number": pa.float64()}, null_values=[])
_BOM = b"\xef\xbb\xbf"
_HEADER = re.compile(rb"\s*([0-9]{1,30})\s+([0-9]{1,30})\s*")
_is_number = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?").fullmatch

_OTHERS = (
    (rb"\x80[\x02-\x05]", "a pickle, such as gensim's own .model and .kv files, which can run any program when it is "
     "loaded: load it where you trust it and save it with save_word2vec_format"),
    (rb"\x93NUMPY", "a NumPy array without words: save words and vectors together, as save_word2vec_format does"),
    (rb"\xba\x16O/", "a fastText model: take the .vec file that comes with it"),
    (rb"\x1f\x8b|PK\x03\x04|\xfd7zXZ|BZh[1-9]1AY|\x28\xb5\x2f\xfd", "compressed twice: unpack it once"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml)", "a web page: download the file itself"),
)  # fmt: skip


@dataclass
class FileReport:
    """What a file of word vectors holds.

    Attributes:
        file: as the caller named it.
        format: `word2vec text`, `word2vec binary` or `GloVe`.
        dimensions: numbers of a vector.
        declared: rows by the header, None where there is none.
        compression: `none`, `gzip`, `bzip2`, `xz`, `zstd` or `zip`.
        rows: good rows, wanted or not.
        duplicates: rows left out because an earlier one has the same word; unwanted words are not compared.
        bad: for each reason that occurs the number of rows and the first one's line (row in a binary file).
    """

    file: str
    format: str
    dimensions: int
    declared: int | None
    compression: str = "none"
    rows: int = 0
    duplicates: int = 0
    bad: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def bad_rows(self) -> int:
        """Rows that were skipped, and rows that the header counts but the file lacks."""
        return sum(number for number, _ in self.bad.values())

    def skip(self, reason: str, position: int, number: int = 1) -> None:
        """Count rows that cannot be used."""
        before, first = self.bad.get(reason, (0, position))
        self.bad[reason] = before + number, first

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
        by_position = sorted(self.bad.items(), key=lambda item: item[1][1])
        return "; ".join(f"{number:,} with {why}, first in {unit} {first:,}" for why, (number, first) in by_position)


def read_vectors(file: str, wanted: Collection[str] | None = None) -> tuple[Vectors, FileReport]:
    r"""Read word vectors, each the float32 nearest to the float64 nearest to what is written, as gensim has them.

    A row of text ends at `\n`; its last numbers, separated by ASCII white space, are the vector, and what precedes
    them is the word, spaces included. Of rows whose word is not wanted only the word and the number of fields are
    checked. A last number that is cut off within its digits looks like a whole one.

    Args:
        file: path or URI of a pyarrow file system; `FILE.zip#MEMBER` for one of several members.
        wanted: the words to keep; all where None.

    Returns:
        The vectors in the order of the file, of words that occur several times the first, and what the file holds.

    Raises:
        SentrayError: the file cannot be read, holds something else, or more than 1 % of its rows are bad.
    """
    report = _recognise(file)
    wanted = None if wanted is None else frozenset(wanted)
    rows = _BinaryRows(report) if report.format == "word2vec binary" else _TextRows(report)
    kept = _Kept(report, rows)
    position = 0
    with opened(file) as (stream, report.compression):
        for position, row in rows.read(io.BufferedReader(stream, _BLOCK)):  # type: ignore[type-var]
            try:
                word, numbers = rows.split(row)
            except _BadRowError as bad:
                report.skip(str(bad), position)
                continue
            if wanted is None or word in wanted:
                kept.add(position, word, numbers)
            else:
                report.rows += 1
    vectors = kept.finish()
    missing = (report.declared or 0) - report.rows - report.bad_rows
    if missing > 0:
        report.skip("no row, though the header counts it", position + 1, missing)
    _check(report)
    return vectors, report


def dimensions_of(file: str) -> int:
    """Numbers of a vector in a file that `read_vectors` can read, from a look at its beginning.

    Raises:
        SentrayError: the file cannot be read, or seems to hold something else.
    """
    return _recognise(file).dimensions


def _check(report: FileReport) -> None:
    rows = report.rows + report.bad_rows
    if rows == 0:
        raise SentrayError(
            f"{report.file} holds no row, only a header: it seems the rest of a broken copy; get it again"
        )
    if report.bad_rows > MAX_BAD * rows:
        raise SentrayError(
            f"{report.file} has {count(report.bad_rows, 'bad row')} of {rows:,} as {report.format} with "
            f"{count(report.dimensions, 'number')} a row ({report.reasons()}), more than {MAX_BAD:.0%}: it seems "
            "damaged; get it again"
        )


def _endless(file: str, where: str) -> SentrayError:
    return SentrayError(
        f"{file} is damaged: no end of {where} is found within what a row of word vectors may take; get it again"
    )


# --- Which format it is


def _recognise(file: str) -> FileReport:
    """Format and dimension from a file's first lines; nothing is counted yet.

    Raises:
        SentrayError: it is something else; known kinds are named, with the cure.
    """
    head = _first_lines(file)
    header = _HEADER.fullmatch(head[0])
    rows = [line for line in (head[1:] if header else head) if line.strip()]
    lengths = [length for line in rows if (length := _numbers_at_end(line))]
    # Among lines of a binary file hardly one ends with a number.
    is_text = bool(lengths) and 2 * len(lengths) >= len(rows)
    if header:
        declared, dimensions = int(header[1]), int(header[2])
        kind = "word2vec text" if is_text else "word2vec binary"
    elif is_text:
        declared, dimensions, kind = None, Counter(lengths).most_common(1)[0][0], "GloVe"
    else:
        raise _not_vectors(file, b"".join(head))
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise SentrayError(
            f"{file} has vectors of {dimensions:,} numbers by its line 1, where 1 to {MAX_DIMENSIONS:,} are possible: "
            "it seems damaged; get it again"
        )
    return FileReport(file, kind, dimensions, declared)


def _first_lines(file: str) -> list[bytes]:
    """The lines that show the format, one at least, without a byte order mark."""
    lines: list[bytes] = []
    with opened(file) as (stream, _):
        buffered = io.BufferedReader(stream, _BLOCK)  # type: ignore[type-var]
        while len(lines) < _HEAD_LINES and sum(map(len, lines)) < _HEAD_BYTES:
            # Behind the end of the file all lines are empty.
            lines.append(buffered.readline(MAX_ROW_BYTES))
            if len(lines[-1]) == MAX_ROW_BYTES:
                raise _endless(file, f"line {len(lines)}")
    return [lines[0].removeprefix(_BOM), *lines[1:]]


def _numbers_at_end(line: bytes) -> int:
    """How many numbers end a line, of which the first field is a word, even if it looks like a number."""
    fields = line.split()[1:]
    return next((index for index, part in enumerate(reversed(fields)) if not _is_number(part)), len(fields))


def _not_vectors(file: str, start: bytes) -> SentrayError:
    for magic, what in _OTHERS:
        if re.match(magic, start):
            return SentrayError(f"{file} holds no word vectors, it is {what}")
    line = start.split(b"\n", 1)[0]
    shown = line[:_SHOWN].decode(errors="replace") + "…" * (len(line) > _SHOWN)
    return SentrayError(
        f"{file} holds no word vectors that sentray reads: line 1 ({shown!r}) is no word with its numbers; give a file "
        "in word2vec's text or binary format or in GloVe's"
    )


# --- Rows: found in the stream (`read`), split into word and numbers (`split`), and many at once read (`vectors`)


class _BadRowError(Exception):
    """A row cannot be used; the text is the reason."""


class _TextRows:
    """Lines of a word and decimals."""

    def __init__(self, report: FileReport) -> None:
        self._file, self._dimensions, self._header = report.file, report.dimensions, report.declared is not None

    def read(self, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        for position, line in enumerate(iter(lambda: stream.readline(MAX_ROW_BYTES), b""), 1):
            if len(line) == MAX_ROW_BYTES:
                raise _endless(self._file, f"line {position}")
            if position == 1:
                line = b"" if self._header else line.removeprefix(_BOM)
            if line.strip():
                yield position, line

    def split(self, line: bytes) -> tuple[str, list[bytes]]:
        word, *numbers = line.strip().rsplit(None, self._dimensions)
        if len(numbers) < self._dimensions:
            raise _BadRowError("too few numbers" if line.endswith(b"\n") else "an end in the middle")
        # A word may have spaces, but where numbers are in it the row is too long.
        if any(map(_is_number, word.split()[1:])):
            raise _BadRowError("too many numbers")
        return _decoded(word), numbers

    def vectors(self, rows: list[list[bytes]]) -> npt.NDArray[np.float32]:
        column = pa.BufferReader(b"\n".join(itertools.chain.from_iterable(rows)))
        try:
            # Arrow's own allocator would keep several times the memory of these rows.
            table = csv.read_csv(column, _READ, _PARSE, _CONVERT, pa.system_memory_pool())
            # Not to_numpy, which loads pandas: 37 MB.
            numbers = np.from_dlpack(table["number"].combine_chunks())
        except pa.ArrowInvalid:
            # Some decimals Arrow does not know, such as +1.
            numbers = np.array([list(map(float, row)) for row in rows])
        # By way of float64: the float32 nearest to what is written may be another.
        with np.errstate(over="ignore"):
            vectors: npt.NDArray[np.float32] = numbers.astype(np.float32)
        return vectors.reshape(len(rows), self._dimensions)


class _BinaryRows:
    """A word, a space, and float32 numbers of the low byte first."""

    def __init__(self, report: FileReport) -> None:
        self._file, self._bytes = report.file, 4 * report.dimensions

    def read(self, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        stream.readline()
        content, start, position = b"", 0, 1
        while True:
            # The original tool writes a newline after each row, gensim does not.
            while content.startswith(b"\n", start):
                start += 1
            space = content.find(b" ", start)
            end = space + 1 + self._bytes
            if space >= 0 and end <= len(content):
                yield position, content[start:end]
                start, position = end, position + 1
            elif len(content) - start > MAX_ROW_BYTES:
                raise _endless(self._file, f"row {position}")
            elif block := stream.read(_BLOCK):
                content, start = content[start:] + block, 0
            else:
                break
        if start < len(content):
            yield position, content[start:]

    def split(self, row: bytes) -> tuple[str, list[bytes]]:
        word, _, numbers = row.partition(b" ")
        if len(numbers) < self._bytes:
            raise _BadRowError("an end in the middle")
        if not word or b"\n" in word:
            raise _BadRowError("no single word")
        return _decoded(word), [numbers]

    def vectors(self, rows: list[list[bytes]]) -> npt.NDArray[np.float32]:
        return np.frombuffer(b"".join(itertools.chain.from_iterable(rows)), "<f4").reshape(len(rows), -1)


def _decoded(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError as error:
        raise _BadRowError("a word that is not UTF-8") from error


class _Kept:
    """Words and vectors of the good rows that are wanted, read some at once."""

    def __init__(self, report: FileReport, rows: _TextRows | _BinaryRows) -> None:
        self._report, self._rows = report, rows
        self._words: dict[str, None] = {}
        self._numbers = bytearray()
        self._pending: list[tuple[int, str, list[bytes]]] = []
        self._at_once = max(_NUMBERS_AT_ONCE // report.dimensions, 1)

    def add(self, position: int, word: str, numbers: list[bytes]) -> None:
        self._pending.append((position, word, numbers))
        if len(self._pending) >= self._at_once:
            self._settle(self._pending)
            self._pending = []

    def finish(self) -> Vectors:
        if self._pending:
            self._settle(self._pending)
        return Vectors(list(self._words), np.frombuffer(self._numbers, np.float32).reshape(-1, self._report.dimensions))

    def _settle(self, some: list[tuple[int, str, list[bytes]]]) -> None:
        """Read the numbers of some rows, and keep those of new words."""
        reason = ""
        try:
            vectors = self._rows.vectors([numbers for _, _, numbers in some])
            if not np.isfinite(vectors).all():
                reason = "nan or infinity"
        except ValueError:
            reason = "something that is no number"
        if reason and len(some) > 1:
            for row in some:
                self._settle([row])
        elif reason:
            self._report.skip(reason, some[0][0])
        else:
            self._report.rows += len(some)
            for (_, word, _), vector in zip(some, vectors, strict=True):
                if word in self._words:
                    self._report.duplicates += 1
                else:
                    self._words[word] = None
                    self._numbers += vector.tobytes()
