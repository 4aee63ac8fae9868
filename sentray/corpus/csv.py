"""CSV: the rows of a file with a header (`read_csv`), and where a large file can be split (`find_records`).

A record is what Python's `csv.reader(strict=True)` makes of lines that end at LF, CR or CRLF. Compiled code takes
records apart as long as all quotes stand where they belong; where one does not, Python reads some records. (Arrow's
parser takes text behind a closing quote for a part of the field, and is slower on long records.)
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sentray.corpus import limits
from sentray.corpus.files import open_stream
from sentray.corpus.rows import TABLE_ROWS, Block, Broken, Columns, Reason, Rows, as_read, refuse_utf16, sound, strings
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece
from sentray.errors import SentrayError
from sentray.text.simd import BLOCK, compiled, lowest

Numbers = npt.NDArray[np.int64]
Start = tuple[int, int, int]
"""First byte of a record, how many records are before it, and how many rows."""

_CHUNK = 4 << 20
_STEP = 1 << 18
# Bytes to look for the header in, and to give to Python at once, which reads some 50 MB/s.
_HEADER = 1 << 16
_SLOW = 1 << 14
_LF, _CR = b"\n\r"
_BOM = b"\xef\xbb\xbf"
_0, _1, _ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Dialect:
    """How a file separates and quotes its fields.

    Attributes:
        delimiter: between fields; one ASCII character.
        quote: around fields, and doubled for itself within them; one ASCII character, or None where nothing is quoted.
    """

    delimiter: str = ","
    quote: str | None = '"'

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Python's reader of lines that have their ends."""
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)


class Records(NamedTuple):
    """Records that follow each other.

    Attributes:
        ends: where in the stream each of them ends.
        good: which of them have as many fields as they should, counted from 0.
        fields: what the good ones have in each wanted field.
        broken: the others; `row` is counted from 0.
    """

    ends: Numbers
    good: Rows
    fields: list[pa.Array]
    broken: list[Broken]


class Window:
    """The bytes of a stream that were read and not taken yet.

    Args:
        stream: a file, or whole records of it.
        chunk: how many bytes to read at once; more where a record is longer.

    Attributes:
        data: holds them from `at` to `size`.
        offset: where in the stream `data` begins.
        final: whether the stream ends with them.
    """

    def __init__(self, stream: pa.NativeFile | io.RawIOBase, chunk: int) -> None:
        self._stream, self._chunk = stream, min(chunk, limits.MAX_ROW_BYTES)
        self.data = np.empty(self._chunk + BLOCK, np.uint8)
        self.offset = self.at = self.size = 0
        self.final = False
        self._damage: Exception | None = None

    @property
    def rest(self) -> memoryview:
        """The bytes."""
        return memoryview(self.data)[self.at : self.size]  # type: ignore[arg-type]

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

    def pass_line(self) -> None:
        """Pass over the rest of a line; the second byte of CRLF may be left, as a blank line."""
        while not (ends := np.flatnonzero(np.isin(self.data[self.at : self.size], (_LF, _CR)))).size and not self.final:
            self.at = self.size
            self.read()
        self.at = self.at + int(ends[0]) + 1 if ends.size else self.size


def split(window: Window, dialect: Dialect, width: int, wanted: Sequence[int]) -> Iterator[Records]:
    """Take CSV apart into records, at most `TABLE_ROWS` at a time; blank lines are none.

    A record ends at the latest with the line in which it becomes longer than a row may be: so a quote that is never
    closed costs one row and not the rest of the file, and memory stays bounded.

    Args:
        window: on the file, behind its header.
        dialect: of the file.
        width: how many fields a good record has; 0 is any number.
        wanted: which of them to give.

    Raises:
        Exception: the stream's, after all records before the damage.
    """
    order = np.full(width, -1)
    order[wanted] = range(len(wanted))
    quote = -1 if dialect.quote is None else ord(dialect.quote)
    while window.at < window.size or not window.final:
        data, begin, size = window.data, window.at, window.size
        spans, fields = np.empty((TABLE_ROWS, 3), np.int64), np.empty((TABLE_ROWS, len(wanted), 3), np.int64)
        found, at, in_order = _split(
            data, begin, size, window.final, ord(dialect.delimiter), quote, order, spans, fields
        )
        spans, fields = spans[:found], fields[:found]
        long = np.flatnonzero(spans[:, 1] - spans[:, 0] > limits.MAX_ROW_BYTES)
        if len(long):
            spans, fields, in_order = spans[: long[0]], fields[: long[0]], False
            at = int(spans[-1, 1]) if len(spans) else begin
        if len(spans):
            window.at = at
            fits = (spans[:, 2] == width) | (width == 0)
            values = [_gathered(data, fields[fits, field], quote) for field in range(len(wanted))]
            broken = [
                _broken(_read(data[slice(*spans[n, :2])].tobytes(), True, dialect, 1)[0][0], n, dialect)
                for n in np.flatnonzero(~fits).tolist()
            ]
            yield Records(spans[:, 1] + window.offset, np.flatnonzero(fits), values, broken)
        elif in_order and not window.final and size - begin <= limits.MAX_ROW_BYTES:
            window.read()
        elif (read := _by_python(window, dialect, TABLE_ROWS))[0]:
            yield _sorted(*read, dialect, width, wanted)


@intrinsic
def _special(_: Any, address: Any, delimiter: Any, quote: Any) -> Any:
    """Which of the 64 bytes at an address are a delimiter, a quote or of a line end: a bit a byte."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), BLOCK)
        block = builder.load(builder.inttoptr(arguments[0], vector.as_pointer()), align=1)
        first, nothing = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), None), ir.Constant(vector, ir.Undefined)
        found = ir.Constant(ir.VectorType(ir.IntType(1), BLOCK), [0] * BLOCK)
        given = [builder.trunc(argument, ir.IntType(8)) for argument in arguments[1:]]
        for byte in (*given, ir.Constant(ir.IntType(8), _LF), ir.Constant(ir.IntType(8), _CR)):
            one = builder.insert_element(nothing, byte, ir.Constant(ir.IntType(32), 0))
            everywhere = builder.shuffle_vector(one, nothing, first)
            found = builder.or_(found, builder.icmp_unsigned("==", block, everywhere))
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(types.int64, types.int64, types.int64), generate


@compiled
def _split(
    data: Any, begin: Any, size: int, final: bool, delimiter: int, quote: int, order: Any, spans: Any, fields: Any
) -> Any:
    """Find records from `begin` on that end before `size` (the file's end if `final`), up to a quote out of order.

    In order is a quote at the beginning of a field, the next one after that, which closes the field, and one right
    behind a closing one, which opens the field again, since the two stand for one; behind a closed field comes its end.
    For each record `spans` receives its start, its end and its number of fields; `fields` receives the start and the
    end of each field for which `order` has an index, and whether quotes are doubled in it. A `quote` of -1 is none.

    Returns:
        How many records were found, where the first byte behind them is, and whether all quotes so far are in order.
    """
    found, column, record, first, close = 0, 0, begin, begin, begin - 2
    inside, quoted, doubled = False, False, False
    other = delimiter if quote < 0 else quote
    for block in range(begin - begin % BLOCK, size + 1, BLOCK):
        bits = _special(data.ctypes.data + block, delimiter, other)
        if block < begin:
            bits &= _ALL << np.uint64(begin - block)
        if size - block < BLOCK:
            # The end of the file ends a record too.
            end = _1 << np.uint64(size - block)
            bits = (bits & (end - _1)) | (end if final else _0)
        while bits != _0:
            at = block + lowest(bits)
            bits &= bits - _1
            if at < first:
                # The second byte of CRLF.
                continue
            byte = np.int64(data[at]) if at < size else _LF
            if byte == quote:
                if inside:
                    inside, close = False, at
                elif at == first:
                    inside, quoted = True, True
                elif quoted and close == at - 1:
                    inside, doubled = True, True
                else:
                    return found, record, False
                continue
            if inside:
                continue
            if quoted and close != at - 1:
                return found, record, False
            behind = min(at + 1, size)
            if byte == _CR:
                if behind == size and not final:
                    return found, record, True
                behind += behind < size and data[behind] == _LF
            if at > record or byte == delimiter:
                if column < len(order) and order[column] >= 0:
                    field = order[column]
                    fields[found, field, 0] = first + quoted
                    fields[found, field, 1] = close if quoted else at
                    fields[found, field, 2] = doubled
                column += 1
            first, quoted, doubled = behind, False, False
            if byte == delimiter:
                continue
            if column:
                spans[found, 0], spans[found, 1], spans[found, 2] = record, behind, column
                found += 1
            record, column = behind, 0
            if found == len(spans):
                return found, record, True
    return found, record, True


@compiled
def _gather(data: Any, bounds: Any, quote: int, content: Any) -> Any:
    """Put fields one behind the other, with one quote for two; gives where each begins and the last ends."""
    offsets = np.zeros(len(bounds) + 1, np.int64)
    to = 0
    for row in range(len(bounds)):
        start, stop = bounds[row, 0], bounds[row, 1]
        if bounds[row, 2]:
            at = start
            while at < stop:
                bits = _special(data.ctypes.data + at, quote, quote)
                # Up to such a byte and with it; where it is a quote, its double is passed over.
                taken = min(stop - at, lowest(bits) + 1 if bits != _0 else BLOCK)
                content[to : to + taken] = data[at : at + taken]
                to += taken
                at += taken + (data[at + taken - 1] == quote)
        else:
            content[to : to + stop - start] = data[start:stop]
            to += stop - start
        offsets[row + 1] = to
    return offsets


def _gathered(data: npt.NDArray[np.uint8], bounds: Numbers, quote: int) -> pa.Array:
    """Fields as large binary."""
    content = np.empty(int((bounds[:, 1] - bounds[:, 0]).sum()), np.uint8)
    offsets = _gather(data, bounds, quote, content)
    return pa.Array.from_buffers(pa.large_binary(), len(bounds), [None, pa.py_buffer(offsets), pa.py_buffer(content)])


Record = list[str] | Broken
"""What Python makes of a record: its fields, or what is to be set aside; `row` is 0."""


def _broken(record: Record, row: int, dialect: Dialect) -> Broken:
    """A record as a row to set aside."""
    return record._replace(row=row) if isinstance(record, Broken) else Broken(row, dialect.delimiter.join(record))


def _sorted(read: list[Record], ends: list[int], dialect: Dialect, width: int, wanted: Sequence[int]) -> Records:
    """Records that Python has read, as the compiled code gives its own."""
    good = {n: row for n, row in enumerate(read) if isinstance(row, list) and len(row) == (width or len(row))}
    values = [strings([row[column] for row in good.values()]) for column in wanted]
    broken = [_broken(record, n, dialect) for n, record in enumerate(read) if n not in good]
    return Records(np.array(ends), np.array(list(good), np.int64), values, broken)


def _by_python(window: Window, dialect: Dialect, limit: int) -> tuple[list[Record], list[int]]:
    """The next records as Python reads them, `limit` at most, and where each ends in the stream.

    There is none only at the stream's end.
    """
    size = _SLOW
    while window.at < window.size or not window.final:
        rest = window.rest
        read, ends, taken = _read(rest[:size].tobytes(), window.final and size >= len(rest), dialect, limit)
        offset = window.offset + window.at
        window.at += taken
        if read:
            return read, [offset + end for end in ends]
        if taken:
            continue
        if size < len(rest):
            size *= 4
        elif len(rest) > limits.MAX_ROW_BYTES and rest[-1] != _CR:
            record = Broken(0, limits.beginning(rest.tobytes()), Reason.TOO_LARGE)
            window.at = window.size
            window.pass_line()
            return [record], [window.offset + window.at]
        else:
            window.read()
    return [], []


def _read(content: bytes, final: bool, dialect: Dialect, limit: int) -> tuple[list[Record], list[int], int]:
    """Records as Python reads them, `limit` at most, where each ends, and the end of the last record or blank line.

    Args:
        content: bytes from the beginning of a record on.
        final: whether a record ends with them in any case.
        dialect: of the file.
        limit: how many records are enough.
    """
    lines = content.splitlines(keepends=True)
    if lines and not final and not lines[-1].endswith(b"\n"):
        # The last line may go on, and a CR may be half of its end.
        lines.pop()
    whole = iter(lines)
    line, start, end, wants_more = b"", 0, 0, False

    def lines_of_record() -> Iterator[str]:
        nonlocal line, end, wants_more
        for line in whole:
            end += len(line)
            yield line.decode("utf-8", "surrogateescape")
            if end - start > limits.MAX_ROW_BYTES:
                return
        wants_more = True

    read: list[Record] = []
    ends: list[int] = []
    csv.field_size_limit(limits.MAX_ROW_BYTES)
    while len(read) < limit:
        try:
            record: Record = next(dialect.reader(lines_of_record()), [])
        except csv.Error:
            record = Broken(0, line.decode("utf-8", "surrogateescape"))
        if end == start or (wants_more and not final):
            break
        if end - start > limits.MAX_ROW_BYTES:
            record = Broken(0, limits.beginning(content[start:end]), Reason.TOO_LARGE)
        if record != []:
            read.append(record)
            ends.append(end)
        start = end
    return read, ends, start


def _open(stream: pa.NativeFile | io.RawIOBase, dialect: Dialect, chunk: int = _CHUNK) -> tuple[Window, Record | None]:
    """A window on a file behind its header, and the header, if there is one."""
    window = Window(stream, chunk)
    window.read()
    window.at = len(_BOM) if window.rest[:3] == _BOM else 0
    read, _ = _by_python(window, dialect, 1)
    return window, read[0] if read else None


def read_csv(source: Source, piece: Piece, columns: Columns, dialect: Dialect = Dialect()) -> Iterator[Block]:
    """The rows of a CSV file with a header; a row is a record, so that a quoted line break starts no new one.

    Raises:
        SentrayError: the file has no header, or lacks a column.
    """
    assert source.filesystem is not None
    stream = open_stream(source.filesystem, piece.path, 0, piece.start or piece.stop)
    window, header = _open(stream, dialect, _HEADER if piece.start else _CHUNK)
    names = _names(header, piece.path)
    chosen = columns.choose(names, piece.path)
    if not chosen:
        return
    if piece.start:
        window = Window(open_stream(source.filesystem, piece.path, piece.start, piece.stop), _CHUNK)
    row = piece.row + 1
    for some in split(window, dialect, len(names), [names.index(name) for name in chosen]):
        values = dict(zip(chosen, some.fields, strict=True))
        block = columns.block(piece.name, some.good + row, values, all_text=True)
        block.broken = [broken._replace(row=broken.row + row) for broken in some.broken]
        row += len(some.ends)
        yield block


def _names(header: Record | None, path: str) -> list[str]:
    """The names of the columns."""
    refuse_utf16(path, as_read(header.text if isinstance(header, Broken) else header[0]) if header else b"")
    if isinstance(header, list):
        return [sound(name) for name in header]
    wrong = "no header"
    if header and header.reason == Reason.TOO_LARGE:
        wrong = f"a header of more than {limits.MAX_ROW_BYTES:,} bytes"
    raise SentrayError(f"{path} has {wrong}: its first line must name the columns, as in id,text,label")


def find_records(
    stream: pa.NativeFile, targets: Sequence[int], dialect: Dialect = Dialect()
) -> tuple[list[Start], int | None]:
    """Find the first record that begins at or after each target.

    Args:
        stream: the whole file.
        targets: rising byte positions above 0.
        dialect: of the file.

    Returns:
        These, rising and each once (the last may be the file's end), and how many rows the file has, None where it has
        no proper header; the header is not a row.
    """
    window, header = _open(stream, dialect)
    if not isinstance(header, list):
        return [], None
    header_end = np.array([window.offset + window.at])
    found = (records.ends for records in split(window, dialect, 0, ()))
    starts: dict[int, Start] = {}
    rows, target = -1, 0
    for ends in chain([header_end], found):
        while target < len(targets) and ends[-1] >= targets[target]:
            which = int(np.searchsorted(ends, targets[target]))
            starts[int(ends[which])] = (int(ends[which]), rows + which + 1, rows + which + 1)
            target += 1
        rows += len(ends)
    return list(starts.values()), rows
