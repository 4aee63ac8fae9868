"""From bytes to records: `read_records` takes a file apart whatever its `Dialect`, `cut` finds where it can be split.

A record is what Python's `csv.reader(strict=True)` makes of lines that end at LF, CR or CRLF; where Python refuses one,
it ends with the line that is wrong. A quote that seems not to be closed ends with its line too, where Python and others
lose all up to the next quote: see `_split`. In JSON Lines a record is a line that ends at LF. (Arrow's CSV parser takes
text behind a closing quote for a part of the field, and is slower on long records.)
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from pyarrow import fs

from sentray.console import count
from sentray.corpus import limits
from sentray.corpus.duplicates import hash_ids
from sentray.corpus.files import Transcoded, is_compressed, open_stream, try_again
from sentray.corpus.rows import TABLE_ROWS, Broken, Numbers, Reason
from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import Part, Piece
from sentray.errors import SentrayError
from sentray.storage import reading
from sentray.text.simd import BLOCK, address, byte_at, compiled, lowest

CHUNK = 4 << 20
"""Bytes to read at once; more where a record is longer."""
HEAD = 1 << 20
"""Bytes to read at once of a file's beginning, where only its columns are looked for."""
_STEP = 1 << 18
_THREADS = 16
_LF, _CR = b"\n\r"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BAD, _LONG, _OPEN = -1, -2, -3
_WRONG = {
    _BAD: "text behind a closing quote; where quotes are text, --quote none",
    _OPEN: "a quote is not closed; where quotes are text, --quote none",
}
_0, _1, _ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Dialect:
    """How a file separates and quotes the fields of a record.

    Attributes:
        delimiter: between fields; one ASCII character, or None where a record is a line and its only field.
        quote: around fields, and doubled for itself within them; one ASCII character, or None where nothing is quoted.
        escape: before a character that is nothing but text; one ASCII character, or None.
    """

    delimiter: str | None = ","
    quote: str | None = '"'
    escape: str | None = None

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Python's reader of lines that have their ends; a field may be as long as a row."""
        csv.field_size_limit(limits.MAX_ROW_BYTES)
        quoting = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        options: Any = {"quotechar": self.quote, "quoting": quoting, "escapechar": self.escape, "strict": True}
        return csv.reader(lines, delimiter=self.delimiter or ",", **options)


LINES = Dialect(None, None)
"""JSON Lines: blank lines are no records, but count in a record's position."""

Begin = Callable[["Window", str], tuple[Dialect, int, list[int]]]
"""Passes over what a file has before its rows, and gives, by its path, its dialect, how many fields a row has (0 is any
number), and which of them is the id, if any."""


class Records(NamedTuple):
    """Records that follow each other.

    Attributes:
        starts: where in the stream each of them begins.
        ends: where it ends.
        positions: how many records of the stream are before each, or, of `LINES`, how many lines.
        widths: how many fields each has; negative where it is broken.
        fields: the wanted fields as large binary, null where the record is broken.
        broken: those that are no records, by index.
    """

    starts: Numbers
    ends: Numbers
    positions: Numbers
    widths: Numbers
    fields: list[pa.Array]
    broken: dict[int, Broken]


class Window:
    """The bytes of a stream that were read and not taken yet.

    Args:
        stream: a file, or whole records of it.
        chunk: how many bytes to read at once.

    Attributes:
        data: holds them from `at` to `size`.
        offset: where in the stream `data` begins.
        final: whether the stream ends with them.
        passed: records, or lines, before them.
        transcoded: whether they are the stream's in another encoding.
    """

    transcoded = False

    def __init__(self, stream: pa.NativeFile | io.RawIOBase, chunk: int) -> None:
        self._stream, self._chunk = stream, min(chunk, limits.MAX_ROW_BYTES)
        self.data = np.empty(self._chunk + BLOCK, np.uint8)
        self.offset = self.at = self.size = self.passed = 0
        self.final = False
        self._damage: Exception | None = None

    def read(self) -> None:
        """Read on behind them; arrays that share memory with `data` are no longer valid.

        Raises:
            Exception: the stream's, at the first call after what is before the damage was given.
        """
        if self._damage is not None:
            raise self._damage
        rest = self.data[self.at : self.size]
        if 2 * len(rest) > len(self.data) - BLOCK:
            self.data = np.empty(len(rest) + max(len(rest) // 2, self._chunk) + BLOCK, np.uint8)
        self.data[: len(rest)] = rest
        self.offset += self.at
        self.at, self.size = 0, len(rest)
        # In steps: of the one that fails, every byte is lost.
        while not self.final and (room := self.data[self.size : -BLOCK][:_STEP]).size:
            try:
                read = self._stream.readinto(room.data)
            except Exception as error:
                self._damage = error
                return
            self.size += read
            self.final = not read

    def peek(self, size: int) -> bytes:
        """So many of them, or all where there are no more."""
        while self.size - self.at < size and not self.final and self._damage is None:
            self.read()
        return self.data[self.at : min(self.size, self.at + size)].tobytes()

    def pass_line(self, ends: tuple[int, ...]) -> None:
        """Pass over all bytes and the rest of the line; the second byte of CRLF may be left, as a blank line."""
        while True:
            self.at = self.size
            if self.final:
                return
            self.read()
            if (found := np.flatnonzero(np.isin(self.data[: self.size], ends))).size:
                self.at = int(found[0]) + 1
                return


def open_windows(source: Source, piece: Piece, encoding: str | None = None) -> tuple[Window, Window]:
    """On a file, whose beginning tells its columns, and on a piece of it; the same where that is the whole file.

    Args:
        source: where it is.
        piece: of it.
        encoding: of its text; UTF-8, or UTF-16 where its mark says so, where None.
    """
    assert source.filesystem is not None
    window = _open(source.filesystem, piece.path, CHUNK, encoding, piece.start, piece.stop)
    return window if piece.stop is None else _open(source.filesystem, piece.path, HEAD, encoding), window


def _open(
    filesystem: fs.FileSystem,
    path: str,
    chunk: int,
    encoding: str | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Window:
    """On a file, behind its byte order mark, or on a part of it."""
    stream = open_stream(filesystem, path, start, stop)
    window = Window(Transcoded(stream, encoding) if encoding else stream, chunk)
    window.transcoded = encoding is not None
    if start:
        return window
    begins = window.peek(len(_BOM))
    if begins[:2] in _UTF16 and not encoding:
        return _open(filesystem, path, chunk, "utf-16")
    window.at = len(_BOM) if begins == _BOM else 0
    return window


def read_records(
    window: Window,
    dialect: Dialect,
    width: int = 0,
    wanted: Sequence[int] = (),
    limit: int = TABLE_ROWS,
    than: str = "",
) -> Iterator[Records]:
    """Take a file apart into records, so many at a time; blank lines are none.

    A record ends at the latest with the line in which it becomes longer than a row may be, so memory stays bounded.

    Args:
        window: on the file.
        dialect: of the file.
        width: how many fields a record has, or it is broken; 0 is any number.
        wanted: which of them to give.
        limit: how many records to give at once.
        than: what has that many fields, such as "the header has 3", for what is said of a record with another number.

    Raises:
        Exception: the stream's, after all records before the damage.
    """
    order = np.full(width, -1)
    order[list(wanted)] = range(len(wanted))
    signs = (dialect.delimiter, dialect.quote, dialect.escape)
    delimiter, quote, escape = (-1 if each is None else ord(each) for each in signs)
    line_ends = (_LF, _CR) if dialect.delimiter else (_LF, _LF)
    while True:
        data, longest = window.data, limits.MAX_ROW_BYTES
        spans, fields = np.empty((limit, 4), np.int64), np.empty((limit, len(wanted), 3), np.int64)
        found, lines, again = 0, 0, True
        while again and found < limit:
            some, window.at, lines, again = _split(
                *(data, window.at, window.size, window.final, delimiter, quote, escape, line_ends[1], longest),
                *(order, spans[found:], fields[found:]),
            )
            found += some
        if found:
            positions = window.passed + (np.arange(found) if dialect.delimiter else spans[:found, 3])
            window.passed += found if dialect.delimiter else lines
            wrong = spans[:found, 2] != width if width else spans[:found, 2] < 0
            broken = {n: _broken(data, spans[n], than) for n in np.flatnonzero(wrong).tolist()}
            fields[:found][wrong] = 0
            values = [_gathered(data, fields[:found, field], quote, escape) for field in range(len(wanted))]
            if broken:
                values = [pc.if_else(pa.array(wrong), None, array) for array in values]
            starts, ends = spans[:found, :2].T + window.offset
            yield Records(starts, ends, positions, spans[:found, 2], values, broken)
            continue
        window.passed += 0 if dialect.delimiter else lines
        if window.final:
            return
        if window.size - window.at > longest and data[window.size - 1] != line_ends[1]:
            start, broken = window.offset + window.at, {0: _broken(data, [window.at, window.size, _LONG], than)}
            window.pass_line(line_ends)
            starts, ends, positions = map(np.array, ([start], [window.offset + window.at], [window.passed]))
            yield Records(
                starts, ends, positions, np.array([_LONG]), [pa.nulls(1, pa.large_binary())] * len(wanted), broken
            )
            window.passed += 1
        else:
            window.read()


def _broken(data: npt.NDArray[np.uint8], span: Sequence[int] | Numbers, than: str) -> Broken:
    """What stands for a record that is too long, is none, or has another number of fields."""
    start, stop, kind = map(int, span[:3])
    text = limits.excerpt(data[start : min(stop, start + limits.MAX_ROW_BYTES)].tobytes())
    if kind == _LONG:
        return Broken(Reason.TOO_LARGE, text)
    wrong = _WRONG.get(kind) or f"{count(kind, 'field')}, {than}"
    return Broken(Reason.INVALID_RECORD, text, wrong)


@intrinsic
def _special(_: Any, address: Any, delimiter: Any, quote: Any, escape: Any, end: Any) -> Any:
    """Which of the 64 bytes at an address are LF or one of the given four: a bit a byte."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), BLOCK)
        block = builder.load(builder.inttoptr(arguments[0], vector.as_pointer()), align=1)
        zero, nothing = ir.Constant(ir.IntType(32), 0), ir.Constant(vector, ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), None)
        found = builder.icmp_unsigned("==", block, ir.Constant(vector, [_LF] * BLOCK))
        for argument in arguments[1:]:
            one = builder.insert_element(nothing, builder.trunc(argument, ir.IntType(8)), zero)
            found = builder.or_(found, builder.icmp_unsigned("==", block, builder.shuffle_vector(one, nothing, first)))
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(*[types.int64] * 5), generate


@compiled
def _is_open(address: int, broken: int, close: int, delimiter: int, line_end: int, width: int) -> bool:
    """Whether a quote that closes a field with line breaks seems to be none, by what is in the field; see `_split`.

    Args:
        address: of the bytes.
        broken: behind the field's first line break.
        close: where the quote is.
        delimiter: between fields.
        line_end: besides LF.
        width: how many fields a record has; 0 is any number.
    """
    lines, whole, alike, blank = 0, 0, 0, False
    line, delimiters, punctuation = broken, 0, False
    for block in range(broken, close, BLOCK):
        bits = _special(address + block, delimiter, delimiter, line_end, line_end)
        while bits != _0:
            at = block + lowest(bits)
            bits &= bits - _1
            if at >= close:
                break
            if byte_at(address + at) == delimiter:
                delimiters += 1
                punctuation |= byte_at(address + at + 1) == 32
                continue
            if at > line:
                # With one delimiter, one at a line's end is punctuation as well.
                punctuation |= width < 3 and byte_at(address + at - 1) == delimiter
                fits = delimiters == width - 1
                lines += 1
                whole += fits
                alike += fits and not punctuation
                if lines > 2 * whole + 2:
                    return False
            elif byte_at(address + at) != _LF or byte_at(address + at - 1) != _CR:
                blank = True
            line, delimiters, punctuation = at + 1, 0, False
    if width > 1 and alike >= 2 and 5 * alike >= 4 * lines:
        return True
    return lines >= (20 if width > 1 else 50) and 20 * whole >= 19 * lines and not blank


@compiled
def _split(
    data: Any,
    begin: Any,
    size: int,
    final: bool,
    delimiter: int,
    quote: int,
    escape: int,
    line_end: int,
    longest: int,
    order: Any,
    spans: Any,
    fields: Any,
) -> Any:
    """Find records from `begin` on that end before `size` (the file's end if `final`).

    A quote at the beginning of a field opens it, the next one closes it, and one right behind opens it again, since the
    two stand for one. Text behind a closed field makes the record bad.

    A field with line breaks is suspect where text is behind its closing quote, where none closes it before the file's
    end or within `longest` bytes, and where its inner lines look like records. They do where at least two, and four of
    five, have the wanted number of fields, more than one, with no punctuation: no delimiter that has a space behind it
    or, of two fields, is at the line's end. They do as well, with punctuation or not, where there are at least 20 (50
    where a record has one field), 19 of 20 have the wanted number, and none is blank. They do not where, of those up to
    any of them, three more have another number than have it: prose is left early.

    The line with a suspect field's opening quote ends the record, which is bad, and what is behind that line is looked
    at anew. Nothing but the bytes from the record on decides, so that a file read from there gives the same. No byte is
    looked at more than three times, since a field that stays open ends at the next quote.

    Args:
        data: the bytes; 64 more may be read.
        begin: where a record begins.
        size: where the bytes end.
        final: whether the file ends there.
        delimiter: -1 where a record is a line, and one of white space is blank.
        quote: -1 for none.
        escape: what takes away the meaning of the byte behind it; -1 for none.
        line_end: besides LF.
        longest: bytes of a record with the end of its last line.
        order: by a field's position, where in `fields` it belongs; -1 for those that are not wanted.
        spans: receives start, end, number of fields (or `_BAD`, `_LONG`, `_OPEN`) and lines before of each record.
        fields: receives the start and the end of each wanted field, and whether quotes are doubled in it (1) or bytes
            escaped (2).

    Returns:
        How many records were found, where the first byte behind them is, how many lines they are, and whether the last
        one is suspect, so that there is more to find.
    """
    found, column, lines, record, first, close = 0, 0, 0, begin, begin, begin - 2
    # Bytes before it belong to what is done; a record begins behind `before` lines.
    behind, before = begin, 0
    # Of an open field: behind its first line break.
    broken = 0
    inside, quoted, doubled, bad, is_open = False, False, 0, False, False
    separator = _LF if delimiter < 0 else delimiter
    other = _LF if quote < 0 else quote
    away = _LF if escape < 0 else escape
    for block in range(begin - begin % BLOCK, size + 1, BLOCK):
        bits = _special(address(data) + block, separator, other, away, line_end)
        if block < begin:
            bits &= _ALL << np.uint64(begin - block)
        if size - block < BLOCK:
            # The end of the file ends a record too.
            end = _1 << np.uint64(size - block)
            bits = (bits & (end - _1)) | (end if final else _0)
        while bits != _0:
            at = block + lowest(bits)
            bits &= bits - _1
            if at < behind:
                # The second byte of CRLF, or one that is escaped.
                continue
            byte = np.int64(data[at]) if at < size else _LF
            if byte == quote:
                if bad:
                    continue
                if inside:
                    if broken > 0:
                        if at + 1 == size and not final:
                            break
                        follows = np.int64(data[at + 1]) if at + 1 < size else _LF
                        if follows != quote:
                            is_open = _is_open(address(data), broken, at, delimiter, line_end, len(order))
                        is_open |= follows not in (quote, delimiter, _LF, line_end) or at + 1 - record > longest
                        if is_open:
                            break
                    inside, close = False, at
                elif at == first:
                    inside, quoted, broken = True, True, 0
                elif quoted and close == at - 1:
                    inside = True
                    doubled |= 1
                continue
            if byte == escape:
                if at + 1 == size and not final:
                    break
                behind = min(at + 2, size)
                doubled |= 2
                continue
            if byte == delimiter:
                if inside or bad:
                    continue
                behind = at + 1
            else:
                behind = min(at + 1, size)
                if byte == _CR:
                    if behind == size and not final:
                        break
                    behind += behind < size and data[behind] == _LF
                lines += 1
                if inside:
                    if at < size:
                        broken = broken if broken > 0 else behind
                        if behind - record <= longest:
                            continue
                    if broken > 0:
                        is_open = True
                        break
            was_open = inside
            bad |= inside or (quoted and close != at - 1)
            if column < len(order) and order[column] >= 0 and not bad:
                field = order[column]
                fields[found, field, 0] = first + quoted
                fields[found, field, 1] = close if quoted else at
                fields[found, field, 2] = doubled
            column += 1
            first, inside, quoted, doubled = behind, False, False, 0
            if byte == delimiter:
                continue
            start = record
            while delimiter < 0 and start < at and (data[start] == 32 or 9 <= data[start] <= 13):
                start += 1
            if start < at:
                kind = _LONG if behind - record > longest else _OPEN if was_open else _BAD if bad else column
                spans[found, 0], spans[found, 1], spans[found, 2], spans[found, 3] = record, behind, kind, before
                found += 1
            record, before, column, bad = behind, lines, 0, False
            if found == len(spans):
                return found, record, before, False
        if is_open:
            break
    if inside and broken > 0 and (is_open or (not final and size - record > longest)):
        spans[found, 0], spans[found, 1], spans[found, 3] = record, broken, before
        spans[found, 2] = _LONG if broken - record > longest else _OPEN
        return found + 1, broken, before, True
    return found, record, before, False


@compiled
def _gather(data: Any, bounds: Any, quote: int, escape: int, content: Any) -> Any:
    """Put fields one behind the other, with one quote for two and without escapes.

    Returns:
        Where each begins and the last ends.
    """
    offsets = np.zeros(len(bounds) + 1, np.int64)
    to = 0
    for row in range(len(bounds)):
        start, stop = bounds[row, 0], bounds[row, 1]
        if bounds[row, 2]:
            twice = quote if bounds[row, 2] & 1 else _LF
            away = escape if bounds[row, 2] & 2 else _LF
            at = start
            while at < stop:
                bits = _special(address(data) + at, twice, away, away, away)
                # Up to such a byte and with it; where it is a quote, its double is passed over.
                taken = min(stop - at, lowest(bits) + 1 if bits != _0 else BLOCK)
                content[to : to + taken] = data[at : at + taken]
                to += taken
                at += taken
                if data[at - 1] == _LF:
                    continue
                if data[at - 1] == away:
                    to -= at < stop
                    if at < stop:
                        content[to] = data[at]
                        to += 1
                        at += 1
                elif data[at - 1] == twice:
                    at += 1
        else:
            content[to : to + stop - start] = data[start:stop]
            to += stop - start
        offsets[row + 1] = to
    return offsets


def _gathered(data: npt.NDArray[np.uint8], bounds: Numbers, quote: int, escape: int) -> pa.Array:
    """Fields as large binary."""
    content = np.empty(int((bounds[:, 1] - bounds[:, 0]).sum()), np.uint8)
    offsets = _gather(data, bounds, quote, escape, content)
    return pa.Array.from_buffers(pa.large_binary(), len(bounds), [None, pa.py_buffer(offsets), pa.py_buffer(content)])


def cut(
    filesystem: fs.FileSystem,
    files: Sequence[SourceFile],
    size: int,
    encoding: str | None,
    begin: Begin,
) -> list[list[Part]]:
    """Parts of whole records of each file, about as large as asked.

    There are none of a file that cannot be read, is compressed or has to be transcoded.

    Args:
        filesystem: where the files are.
        files: each is read to its end.
        size: how large a part should be.
        encoding: of the text, where the user gave one.
        begin: where it raises an error, the file stays whole.
    """

    def parts(file: SourceFile) -> list[Part]:
        with reading(file.path):
            return [] if encoding or is_compressed(filesystem, file.path) else _parts(filesystem, file, size, begin)

    with ThreadPoolExecutor(min(_THREADS, len(files))) as threads:
        return list(threads.map(lambda file: try_again(filesystem, partial(parts, file)) or [], files))


def _parts(filesystem: fs.FileSystem, file: SourceFile, size: int, begin: Begin) -> list[Part]:
    count = -(-file.size // size)
    targets = np.array([file.size * part // count for part in range(1, count)])
    window = _open(filesystem, file.path, CHUNK)
    if window.transcoded:
        return []
    try:
        dialect, width, id_field = begin(window, file.path)
    except SentrayError:
        return []
    header = window.passed
    # The first byte of each part, the rows (or lines) before it, and the records.
    starts, records = [(0, 0, 0)], 0
    ids = [(np.zeros(0, np.int64), np.zeros(0, np.uint64))]
    for found in read_records(window, dialect, width, id_field):
        ids += (hash_ids(found.positions + 1 - header, column, "id", file.path) for column in found.fields)
        which = np.searchsorted(found.ends, targets[targets <= found.ends[-1]])
        begins = (found.ends[which], found.positions[which] + 1 - header, records + which + 1)
        starts += zip(*(numbers.tolist() for numbers in begins), strict=True)
        records += len(found.ends)
        targets = targets[len(which) :]
    starts = [*dict.fromkeys(start for start in starts if start[0] < file.size), (file.size, 0, records)]
    rows, hashes = map(np.concatenate, zip(*ids, strict=True))
    firsts = [*np.searchsorted(rows, [row for _, row, _ in starts[:-1]], "right").tolist(), len(rows)]
    parts = []
    for ((start, row, before), first), ((stop, _, after), end) in pairwise(zip(starts, firsts, strict=True)):
        of_part = (rows[first:end], hashes[first:end]) if id_field else None
        parts.append(Part(start, stop, row, stop - start, after - before, of_part))
    return parts
