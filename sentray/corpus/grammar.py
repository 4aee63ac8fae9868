"""Where the records and fields of CSV begin and end, compiled.

The grammar is that of Python's `csv.reader(strict=True)` over lines that end at LF, CR or CRLF. Of 64 bytes at a time
those that mean something become the bits of a mask; the others cost nothing more.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from sentray.corpus import limits
from sentray.text.simd import BLOCK, byte_masks, lowest

Numbers = npt.NDArray[np.int64]

_STEP = 1 << 18
_QUOTE, _COMMA, _LF, _CR = b'",\n\r'
_BOM = b"\xef\xbb\xbf"

# At a record's first character, at another field's, in a field without quotes, within quotes, behind a quote within
# quotes, in what is left of the line of a malformed record, behind a CR that ended a record.
_START, _NEXT_FIELD, _PLAIN, _QUOTED, _QUOTE_SEEN, _SKIPPED, _AFTER_CR = range(7)

_0, _1 = np.uint64(0), np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Records:
    """Some records that follow each other, valid until the next ones are taken; positions are those in `data`.

    Attributes:
        data: bytes of the file.
        offset: where in the stream `data` begins.
        ends: of each record, behind its line end, (n,).
        starts: of each record, (n,).
        good: whether it is well-formed, short enough, and has as many fields as it should, (n,).
        long: whether it is longer than a row may be, (n,); of such a one, `data` may hold the beginning only.
        fields: first byte, end, and whether quotes are doubled in it, of a good record's wanted fields, (n, wanted, 3).
    """

    data: npt.NDArray[np.uint8]
    offset: int
    starts: Numbers
    ends: Numbers
    good: npt.NDArray[np.bool_]
    long: npt.NDArray[np.bool_]
    fields: Numbers

    def bytes_of(self, record: int) -> bytes:
        """A record as the file has it, or the beginning of a long one."""
        return bytes(self.data[self.starts[record] : self.ends[record]])

    def column(self, field: int) -> pa.Array:
        """What the good records have in a wanted field, as large binary."""
        bounds = self.fields[self.good, field]
        content = np.empty(int((bounds[:, 1] - bounds[:, 0]).sum()), np.uint8)
        offsets = _gather(self.data, bounds, content)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
        return pa.Array.from_buffers(pa.large_binary(), len(bounds), buffers)


class CsvSplitter:
    """Takes CSV apart, record by record; empty lines are none.

    A record ends at the latest with the line in which it becomes longer than a row may be: so a quote that is never
    closed costs one row and not the rest of the file, and memory stays bounded.

    Args:
        stream: a file, or whole records of it.
        chunk: how many bytes to look at in one go; more where a record is longer.

    Attributes:
        head: the first bytes.
    """

    def __init__(self, stream: pa.NativeFile | io.RawIOBase, chunk: int) -> None:
        self._stream, self._chunk, self._longest = stream, chunk, limits.MAX_ROW_BYTES
        self._buffer = np.empty(chunk + BLOCK, np.uint8)
        # Of the stream's bytes in the buffer, those from `at` to `size` are not taken yet.
        self._offset = self._at = self._size = 0
        self._final = False
        self._damage: Exception | None = None
        self._read()
        self.head = bytes(self._buffer[: min(3, self._size)])

    def skip_mark(self) -> None:
        """Pass over a byte order mark, which a file may begin with."""
        if self.head == _BOM:
            self._at = len(_BOM)

    def take(self, most: int, wanted: Numbers, columns: int) -> Records | None:
        """The next records; None at the end.

        Args:
            most: how many at most.
            wanted: for each column of the file which of `Records.fields` it becomes, or -1.
            columns: how many fields a good record has; 0 is any number.

        Raises:
            Exception: the stream's, once all records before the damage are given.
        """
        starts, ends, good = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, bool)
        fields = np.empty((most, int(wanted.max(initial=-1)) + 1, 3), np.int64)
        while True:
            found, self._at = _split(
                self._buffer,
                self._at,
                self._size,
                self._final,
                self._longest,
                wanted,
                columns,
                starts,
                ends,
                good,
                fields,
            )
            if found:
                return self._records(starts[:found], ends[:found], good[:found], fields[:found])
            if self._final:
                return None
            if self._damage is not None:
                raise self._damage
            # Whether a CR is all of its line's end, only the next byte tells.
            if self._size - self._at > self._longest and self._buffer[self._size - 1] != _CR:
                return self._long_record(fields[:1])
            self._read()

    def _records(self, starts: Numbers, ends: Numbers, good: npt.NDArray[np.bool_], fields: Numbers) -> Records:
        long = ends - starts > self._longest
        return Records(self._buffer, self._offset, starts, ends, good & ~long, long, fields)

    def _long_record(self, fields: Numbers) -> Records:
        """The next record, of which the beginning is held; what follows up to the end of a line is passed over."""
        start, offset, held = self._at, self._offset, self._buffer[: self._size]
        self._buffer = np.empty(self._chunk + BLOCK, np.uint8)
        self._offset, self._at, self._size = offset + self._size, 0, 0
        while not self._pass_line() and not self._final:
            if self._damage is not None:
                raise self._damage
            self._read()
        end = self._offset + self._at - offset
        return Records(held, offset, np.array([start]), np.array([end]), np.zeros(1, bool), np.ones(1, bool), fields)

    def _pass_line(self) -> bool:
        """Pass over the buffer's bytes up to the end of a line; gives whether there is one."""
        rest = self._buffer[self._at : self._size]
        ends = np.flatnonzero((rest == _LF) | (rest == _CR))
        if not ends.size:
            self._at = self._size
            return False
        end = int(ends[0])
        if rest[end] == _CR and end + 1 == len(rest) and not self._final:
            self._at += end
            return False
        self._at += end + (2 if rest[end : end + 2].tobytes() == b"\r\n" else 1)
        return True

    def _read(self) -> None:
        """Read on behind the bytes that are not taken."""
        rest = self._buffer[self._at : self._size]
        if 2 * len(rest) > len(self._buffer) - BLOCK:
            self._buffer = np.empty(len(rest) + max(len(rest) // 2, self._chunk) + BLOCK, np.uint8)
        self._buffer[: len(rest)] = rest
        self._offset += self._at
        self._at, self._size = 0, len(rest)
        # In steps: of the one that fails, every byte is lost.
        while not self._final and (room := self._buffer[self._size : -BLOCK][:_STEP]).size:
            try:
                read = self._stream.readinto(room.data)
            except Exception as error:
                self._damage = error
                return
            self._size += read
            self._final = not read


_special = byte_masks(b'",\n\r')
_quotes = byte_masks(b'"')


@njit(cache=True, nogil=True)
def _split(
    data: Any,
    begin: Any,
    size: int,
    final: bool,
    longest: int,
    wanted: Any,
    columns: int,
    starts: Any,
    ends: Any,
    good: Any,
    fields: Any,
) -> Any:
    """Find the records from `begin` on that end before `size`, or all of them where that is the end of the file.

    Returns:
        How many were found, and where the first byte behind them is.
    """
    found, where, column, first, close, doubled = 0, _START, 0, begin, begin, False
    record, last, fine = begin, begin - 1, True
    for block in range(begin - begin % BLOCK, size + 1, BLOCK):
        bits = _special(data.ctypes.data + block)[0]
        if block < begin:
            bits &= _ALL << np.uint64(begin - block)
        if size - block < BLOCK:
            # The end is a place to stop at too.
            end = _1 << np.uint64(size - block)
            bits = (bits & (end - _1)) | end
        while bits != _0:
            place = block + lowest(bits)
            bits &= bits - _1
            at_end = place == size
            byte = _LF if at_end else data[place]
            gap = place > last + 1
            if where == _AFTER_CR:
                if at_end and not gap and not final:
                    return found, record
                # CRLF is one line end.
                behind = last + 2 if not gap and byte == _LF and not at_end else last + 1
                where, last = _START, behind - 1
                if column:
                    starts[found], ends[found], good[found] = record, behind, fine and columns in (0, column)
                    found += 1
                record, column, fine = behind, 0, True
                if found == len(starts):
                    return found, record
                if behind > place:
                    continue
            if gap:
                if where in (_START, _NEXT_FIELD):
                    where, first, doubled = _PLAIN, last + 1, False
                elif where == _QUOTE_SEEN:
                    where, fine, column = _SKIPPED, False, column + 1
            if at_end and not final:
                return found, record
            last = place
            if byte == _QUOTE:
                if where == _QUOTED:
                    where, close = _QUOTE_SEEN, place
                elif where == _QUOTE_SEEN:
                    where, doubled = _QUOTED, True
                elif where in (_START, _NEXT_FIELD):
                    where, first, doubled = _QUOTED, place + 1, False
                continue
            if where == _QUOTED:
                too_long = place - record >= longest and byte in (_LF, _CR)
                if not at_end and not too_long:
                    continue
                where, fine, column = _SKIPPED, False, column + 1
            if where != _SKIPPED and not (where == _START and byte != _COMMA):
                if column < len(wanted) and wanted[column] >= 0:
                    field = wanted[column]
                    fields[found, field, 0] = first if where in (_PLAIN, _QUOTE_SEEN) else place
                    fields[found, field, 1] = close if where == _QUOTE_SEEN else place
                    fields[found, field, 2] = doubled and where == _QUOTE_SEEN
                column += 1
            if byte == _COMMA:
                if where != _SKIPPED:
                    where = _NEXT_FIELD
            elif byte == _CR:
                where = _AFTER_CR
            else:
                behind = size if at_end else place + 1
                if column:
                    starts[found], ends[found], good[found] = record, behind, fine and columns in (0, column)
                    found += 1
                where, record, column, fine = _START, behind, 0, True
                if found == len(starts):
                    return found, record
    return found, record


@njit(cache=True, nogil=True)
def _gather(data: Any, bounds: Any, content: Any) -> Any:
    """Put fields one behind the other, with one quote for two; gives where each begins and the last ends."""
    offsets = np.zeros(len(bounds) + 1, np.int64)
    to = 0
    for row in range(len(bounds)):
        start, stop = bounds[row, 0], bounds[row, 1]
        if bounds[row, 2]:
            place = start
            while place < stop:
                quotes = _quotes(data.ctypes.data + place)[0]
                # Up to a quote and with it; then its double is passed over.
                taken = min(stop - place, lowest(quotes) + 1 if quotes != _0 else BLOCK)
                content[to : to + taken] = data[place : place + taken]
                to += taken
                place += taken + (data[place + taken - 1] == _QUOTE)
        else:
            content[to : to + stop - start] = data[start:stop]
            to += stop - start
        offsets[row + 1] = to
    return offsets
