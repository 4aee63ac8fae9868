"""`read_vectors`: word2vec's text and binary format and GloVe's, plain or compressed, whatever the file is called.

A file is streamed, so that memory follows the words that are kept. Rows that cannot be used are counted, with the
first line and the reason; a file with many of them is refused.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, NoReturn

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

REASONS = (
    "too few numbers",
    "too many numbers",
    "no single word",
    "a word that is not UTF-8",
    "something that is no number",
    "nan or infinity",
    "an end in the middle",
    "no row, though the header counts it",
)
"""What can be wrong with a row."""
FEW, MANY, NO_WORD, NOT_UTF8, NO_NUMBER, NOT_FINITE, CUT, MISSING = REASONS

_BLOCK = 1 << 18
_HEAD = 1 << 20
"""Bytes that are looked at for the format: more than a block of bzip2's, so that its checksum is seen before."""
_MAX_NUMBERS = 1 << 26
_MAX_WORD = 1 << 16
"""Longest word of a binary file, in bytes: after a damaged row anything may look like a word's beginning."""
_BOM = b"\xef\xbb\xbf"

_HEADER = re.compile(rb"[ \t]*([0-9]{1,30})[ \t]+([0-9]{1,30})[ \t]*(?:\r?\n|\Z)")
_DECIMAL = rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_is_decimal = re.compile(_DECIMAL).fullmatch
is_number = re.compile(_DECIMAL + rb"|[+-]?(nan|inf|infinity)", re.IGNORECASE).fullmatch
"""Whether a field is a number; finite or not."""
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_LOOKED_AT = 100
_SHOWN = 40

_OTHERS = (
    (rb"\x80[\x02-\x05]", "a pickle, such as gensim's own .model and .kv files, which can run any program when it is "
     "loaded: load it where you trust it and save it with save_word2vec_format"),
    (rb"\x93NUMPY", "a NumPy array without words: save words and vectors together, as save_word2vec_format does"),
    (rb"\xba\x16O/", "a fastText model: take the .vec file that comes with it"),
    (rb"\x89HDF", "an HDF5 file: save the vectors in word2vec's text format"),
    (rb"PAR1", "a Parquet file: save the vectors in word2vec's text format"),
    (rb"\x28\xb5\x2f\xfd", "compressed by Zstandard: unpack it with `zstd -d`"),
    (rb"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (rb"\x1f\x8b|PK\x03\x04|\xfd7zXZ|BZh[1-9]1AY", "compressed twice: unpack it once"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`"),
    (rb"version https://git-lfs\.github\.com/", "a Git LFS pointer, which stands for the real file: get that with "
     "`git lfs pull`"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml)", "a web page: download the file itself"),
)  # fmt: skip


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
        duplicates: rows left out because an earlier one has the same word; unwanted words are not compared.
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
        """Rows that were skipped, and rows that the header counts but the file lacks."""
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

    A row of text ends at `\n` or `\r\n` alone; its last numbers, separated by spaces or tabs, are the vector, and what
    precedes them is the word, spaces included. Of rows whose word is not wanted only the word and the number of
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
        head, whole = _head(stream)
        form = recognise(head, whole, file)
        reader = _Reader(file, form, wanted)
        for block in _blocks(head, form.start, stream):
            reader.read(block)
        vectors, report = reader.finish(compression)
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
        return recognise(*_head(stream), file).dimensions


def _head(stream: IO[bytes]) -> tuple[bytes, bool]:
    """The beginning of a stream, of two lines or more where there are so many; whether that is all of it."""
    head = b""
    while len(head) < _HEAD or (head.count(b"\n") < 2 and len(head) < MAX_ROW_BYTES):
        if not (piece := stream.read(_BLOCK)):
            return head, True
        head += piece
    return head, False


def _blocks(head: bytes, start: int, stream: IO[bytes]) -> Iterator[bytes]:
    yield from (head[first : first + _BLOCK] for first in range(start, len(head), _BLOCK))
    while block := stream.read(_BLOCK):
        yield block


@dataclass(frozen=True)
class Format:
    """How to read a file of word vectors.

    Attributes:
        name: word2vec text, word2vec binary or GloVe.
        dimensions: numbers of a vector.
        declared: rows by the header; None where there is none.
        start: where the first row begins, in bytes.
    """

    name: str
    dimensions: int
    declared: int | None
    start: int

    @property
    def binary(self) -> bool:
        """Whether the numbers are float32 rather than decimals."""
        return self.name == "word2vec binary"


def recognise(head: bytes, whole: bool, file: str) -> Format:
    """Find format and dimension from the beginning of a decompressed file.

    Args:
        head: its first bytes, two lines or more where there are so many.
        whole: whether those are all.
        file: for messages.

    Raises:
        SentrayError: it is something else; known kinds are named, with the cure.
    """
    if not head:
        raise SentrayError(f"{file} holds no byte: it seems the rest of a broken copy; get it again")
    bom = len(_BOM) if head.startswith(_BOM) else 0
    if not head[bom:].strip():
        raise SentrayError(
            f"{file} begins with nothing but white space: it seems the rest of a broken copy; get it again"
        )
    header = _HEADER.match(head, bom)
    if header is not None:
        declared, dimensions = int(header[1]), int(header[2])
        lengths = _row_lengths(head[header.end() :], whole)
        # Rows of a word and one number look like headers themselves.
        if lengths and dimensions != 1 and set(lengths) == {1}:
            header = None
    if header is None:
        dimensions = _dimensions(head[bom:], whole, file)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise SentrayError(
            f"{file} has vectors of {dimensions:,} numbers by its line 1, where 1 to {MAX_DIMENSIONS:,} are possible: "
            "it seems damaged; get it again"
        )
    if header is None:
        return Format("GloVe", dimensions, None, bom)
    binary = not lengths and not _is_text(head[header.end() :])
    return Format(f"word2vec {'binary' if binary else 'text'}", dimensions, declared, header.end())


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(content) is None


def _fields(line: bytes) -> list[bytes]:
    """What spaces and tabs separate; any other white space is part of a field."""
    return [field for field in line.replace(b"\t", b" ").split(b" ") if field]


def _dimensions(head: bytes, whole: bool, file: str) -> int:
    """How many numbers most rows have."""
    lengths = _row_lengths(head, whole)
    # No valid UTF-8 begins as a pickle does, so that it is refused whatever follows.
    if not lengths or head.startswith(b"\x80"):
        for magic, what in _OTHERS:
            if re.match(magic, head):
                raise SentrayError(f"{file} holds no word vectors, it is {what}")
    if lengths:
        return Counter(lengths).most_common(1)[0][0]
    line = head.split(b"\n", 1)[0]
    shown = line[:_SHOWN].decode(errors="replace") + "…" * (len(line) > _SHOWN)
    raise SentrayError(
        f"{file} holds no word vectors that sentray reads: line 1 ({shown!r}) is no word with its numbers; give a file "
        "in word2vec's text or binary format or in GloVe's"
    )


def _row_lengths(text: bytes, whole: bool) -> list[int]:
    """How many numbers end each of the first lines; empty where most lines end with none."""
    lines = text.split(b"\n", _LOOKED_AT)
    if not whole or len(lines) > _LOOKED_AT:
        lines.pop()
    lines = [line for line in lines if line.strip()]
    lengths = []
    for line in lines:
        fields = _fields(line.removesuffix(b"\r"))
        numbers = next((index for index, field in enumerate(reversed(fields)) if not is_number(field)), None)
        # A word may be a number too.
        length = len(fields) - 1 if numbers is None else numbers
        if length:
            lengths.append(length)
    return lengths if 2 * len(lengths) >= len(lines) else []


class _Reader:
    """Blocks of bytes into words and one growing matrix.

    Args:
        file: for messages.
        form: what the file's beginning says.
        wanted: the words to keep; all where None.
    """

    def __init__(self, file: str, form: Format, wanted: Collection[str] | None) -> None:
        self._file, self._form, self._dimensions = file, form, form.dimensions
        self._wanted = None if wanted is None else frozenset(wanted)
        self._words: dict[str, None] = {}
        # Room that is not used takes no memory, and a header may claim what it likes.
        likely = form.declared or 0 if wanted is None else len(wanted)
        self._matrix = np.empty((min(likely, _MAX_NUMBERS // form.dimensions), form.dimensions), np.float32)
        self._rest = b""
        # Lines are counted from the header on, binary rows after it.
        self._passed = int(form.declared is not None and not form.binary)
        self._good = self._duplicates = 0
        self._bad: dict[str, tuple[int, int]] = {}
        # Wanted rows whose numbers are still to be read: word, numbers, line.
        self._pending: list[tuple[str, bytes, int]] = []

    def read(self, block: bytes) -> None:
        """Take the rows that end in the next bytes of the file."""
        content = self._rest + block
        if self._form.binary:
            taken = self._scan_binary(content)
        else:
            taken = content.rfind(b"\n") + 1
            self._scan_lines(content[:taken])
        self._rest = content[taken:]
        if len(self._rest) > MAX_ROW_BYTES:
            self._refuse_long()
        self._settle()

    def finish(self, compression: str) -> tuple[Vectors, FileReport]:
        """The vectors and what there was in the file, once all blocks are read."""
        form = self._form
        if self._rest and form.binary:
            self._passed += 1
            self._count_bad(CUT, self._passed)
        elif self._rest:
            self._scan_lines(self._rest + b"\n", few=CUT)
            self._settle()
        missing = (form.declared or 0) - self._good - sum(number for number, _ in self._bad.values())
        if missing > 0:
            self._count_bad(MISSING, self._passed + 1, missing)
        self._matrix.resize((len(self._words), form.dimensions), refcheck=False)
        bad = tuple((reason, *self._bad[reason]) for reason in REASONS if reason in self._bad)
        rows, declared, duplicates = self._good, form.declared, self._duplicates
        report = FileReport(self._file, form.name, compression, form.dimensions, rows, declared, duplicates, bad)
        return Vectors(list(self._words), self._matrix), report

    def _scan_lines(self, text: bytes, few: str = FEW) -> None:
        """Pass over whole lines; `few` is what a line with too few numbers is counted as."""
        text = text.replace(b"\r\n", b"\n").replace(b" \n", b"\n")
        # Where single spaces separate all fields, counting them counts the numbers.
        plain = b"\t" not in text and b"  " not in text and b" \n" not in text
        spaces = self._dimensions - 1
        for line in text.split(b"\n")[:-1]:
            self._passed += 1
            word, _, numbers = line.partition(b" ")
            if not (plain and word and numbers and numbers.count(b" ") == spaces):
                fields = _fields(line)
                if not fields:
                    continue
                if len(fields) <= self._dimensions:
                    self._count_bad(few, self._passed)
                    continue
                # A word may have spaces, but where numbers are in it the row is too long.
                further = fields[1 : -self._dimensions]
                if any(map(_is_decimal, further)):
                    self._count_bad(MANY, self._passed)
                    continue
                last = fields[-self._dimensions :]
                word = line.strip(b" \t")
                end = len(word)
                for field in reversed(last):
                    end = word.rindex(field, 0, end)
                word, numbers = word[:end].rstrip(b" \t"), b" ".join(last)
            self._take(word, numbers)

    def _scan_binary(self, content: bytes) -> int:
        """Pass over whole rows: a word, a space, float32 numbers of the low byte first; how many bytes they take."""
        taken = 0
        while True:
            # The original tool writes a newline after each row, gensim does not.
            while content.startswith(b"\n", taken):
                taken += 1
            space = content.find(b" ", taken, taken + _MAX_WORD + 1)
            if space < 0 and len(content) - taken > _MAX_WORD:
                self._refuse_long()
            end = space + 1 + 4 * self._dimensions
            if space < 0 or end > len(content):
                return taken
            word, taken = content[taken:space], end
            self._passed += 1
            if not word or b"\n" in word:
                self._count_bad(NO_WORD, self._passed)
            else:
                self._take(word, content[space + 1 : end])

    def _take(self, word: bytes, numbers: bytes) -> None:
        """Note the row that was just passed, if its word is wanted."""
        try:
            name = word.decode()
        except UnicodeDecodeError:
            self._count_bad(NOT_UTF8, self._passed)
            return
        if self._wanted is None or name in self._wanted:
            self._pending.append((name, numbers, self._passed))
        else:
            self._good += 1

    def _settle(self) -> None:
        """Read the numbers of the noted rows, and keep the good ones, of equal words the first."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        texts = [numbers for _, numbers, _ in pending]
        if self._form.binary:
            rows = np.frombuffer(b"".join(texts), "<f4").reshape(len(texts), self._dimensions)
            damaged: frozenset[int] = frozenset()
        else:
            rows, damaged = _read_decimals(texts, self._dimensions)
        finite = np.isfinite(rows).all(axis=1).tolist()
        kept = []
        for index, (word, _, line) in enumerate(pending):
            if not finite[index]:
                self._count_bad(NO_NUMBER if index in damaged else NOT_FINITE, line)
                continue
            self._good += 1
            if word in self._words:
                self._duplicates += 1
            else:
                self._words[word] = None
                kept.append(index)
        needed = len(self._words)
        if needed > len(self._matrix):
            self._matrix.resize((needed + needed // 32, self._dimensions), refcheck=False)
        self._matrix[needed - len(kept) : needed] = rows[kept]

    def _count_bad(self, reason: str, line: int, number: int = 1) -> None:
        before, first = self._bad.get(reason, (0, line))
        self._bad[reason] = before + number, min(first, line)

    def _refuse_long(self) -> NoReturn:
        unit = "row" if self._form.binary else "line"
        raise SentrayError(
            f"{self._file} is damaged: no end of {unit} {self._passed + 1:,} is found within what a row of word "
            "vectors may take; get it again"
        )


_READ = csv.ReadOptions(use_threads=False, column_names=["number"])
_PARSE = csv.ParseOptions(quote_char=False, ignore_empty_lines=False)
_CONVERT = csv.ConvertOptions(column_types={"number": pa.float64()}, null_values=[])


def _read_decimals(rows: list[bytes], dimensions: int) -> tuple[npt.NDArray[np.float32], frozenset[int]]:
    """Read decimals by way of float64, as Python and gensim do: the float32 nearest to what is written may be another.

    Args:
        rows: as many decimals each, separated by single spaces.
        dimensions: how many.

    Returns:
        float32[rows, dimensions], and which rows hold something else than numbers; those are nan.
    """
    column = b"\n".join(rows).replace(b" ", b"\n")
    # The CSV reader would take a carriage return for the end of a line and drop a byte order mark.
    if b"\r" not in column and not column.startswith(_BOM):
        # Where it meets what it does not know, such as +1, the rows are read one by one.
        with contextlib.suppress(pa.ArrowInvalid):
            # Arrow's own allocator would keep several times the memory of a block.
            table = csv.read_csv(pa.BufferReader(column), _READ, _PARSE, _CONVERT, pa.system_memory_pool())
            column_numbers = _as_float32(table["number"].to_numpy())
            if len(column_numbers) == len(rows) * dimensions and np.isfinite(column_numbers).all():
                return column_numbers.reshape(len(rows), dimensions), frozenset()
    numbers, damaged = np.full((len(rows), dimensions), np.nan, np.float32), set()
    for index, row in enumerate(rows):
        fields = row.split(b" ")
        if all(map(is_number, fields)):
            numbers[index] = _as_float32(np.array(list(map(float, fields))))
        else:
            damaged.add(index)
    return numbers, frozenset(damaged)


def _as_float32(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)
