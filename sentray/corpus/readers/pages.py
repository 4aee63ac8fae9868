"""How large the values of a Parquet column may be, found from its pages' headers before any page is decompressed.

A few bytes of Parquet may stand for any number: a page may be compressed a thousandfold, and a dictionary's value is
stored once for all rows that have it. What a file's footer says of sizes nobody checks; a page that is not as large as
its own header says, Arrow refuses. Headers and footer are Thrift's compact protocol (github.com/apache/parquet-format),
read here because pyarrow ends the process where the metadata of a damaged column is asked for (pyarrow 26).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sentray.corpus import limits
from sentray.errors import SentrayError

_HEADER_BYTES = (1 << 10, 1 << 14, 1 << 24)
"""So much is read to find a page's header in; statistics in it may hold long values."""
_MOST_PAGES = 100_000
_MOST_TABLE = 1 << 32
_MOST_WALKED = 1_000_000
"""Values of a dictionary that are looked at one by one; of a larger one any may be as long as all of it."""
_PREFIXED = 7
"""The encoding DELTA_BYTE_ARRAY: a value may repeat the one before it."""
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_BYTES, _FIXED_BYTES = 6, 7
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_DICTIONARY_ENCODINGS = (2, 8)
# Codes of the compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_DEEPEST = 8


class Column(NamedTuple):
    """What a file's footer says of a column of a row group.

    Attributes:
        path: its name; with the names in it where it is nested, parted by points.
        has_length: whether its values are strings or bytes.
        codec: how its pages are compressed.
        values: how many it has.
        start: first byte in the file.
        end: where it ends.
    """

    path: str
    has_length: bool
    codec: int
    values: int
    start: int
    end: int


class RowGroup(NamedTuple):
    """What a file's footer says of a row group.

    Attributes:
        rows: how many it has.
        bytes: of all its values, decompressed.
        columns: all of them.
    """

    rows: int
    bytes: int
    columns: tuple[Column, ...]


@dataclass
class ColumnPages:
    """What the pages of a column say.

    Attributes:
        values: how many each data page holds that has its values itself.
        bytes: the sizes of these pages, decompressed.
        dictionary: size of the dictionary, decompressed; 0 where there is none.
        longest: what a value of the dictionary takes at most.
        prefixed: size of the largest page in which a value may repeat the one before it.
    """

    values: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    dictionary: int = 0
    longest: int = 0
    prefixed: int = 0

    def rows_at_once(self, most: int) -> int:
        """How many rows to read together, at most so many, that their values take about `MOST_BATCH_BYTES` or less.

        Where a single page is larger than that, it is held anyway, and rows of two pages may be.
        """
        rows = most
        for value in (min(self.longest, limits.MOST_ROW_BYTES), self.prefixed):
            rows = min(rows, limits.MOST_BATCH_BYTES // max(value, 1))
        allowed = max(limits.MOST_BATCH_BYTES, 2 * max(self.bytes, default=0))
        while rows > 1 and self._most_bytes(rows) > allowed:
            rows //= 2
        return max(rows, 1)

    def _most_bytes(self, rows: int) -> int:
        """Most bytes of the pages that so many neighbouring rows touch."""
        if not self.values:
            return 0
        ends, sums = np.cumsum(self.values), np.cumsum([0, *self.bytes])
        # The rows that touch most begin with the last of a page.
        last = np.searchsorted(ends, np.minimum(ends + rows - 1, ends[-1]))
        return int((sums[last + 1] - sums[:-1]).max())


def read_footer(stream: Any, path: str, size: int) -> tuple[RowGroup, ...]:
    """The row groups of a file.

    Args:
        stream: the file; takes `read_at(size, start)`.
        path: of the file, for messages.
        size: of the file.

    Raises:
        SentrayError: the footer is damaged.
    """
    try:
        length = int.from_bytes(stream.read_at(8, size - 8)[:4], "little")
        groups = _row_groups(bytes(stream.read_at(min(length, size - 8), size - 8 - length)))
        if any(column.end > size for group in groups for column in group.columns):
            raise ValueError("a column ends behind the file")
        return groups
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(path, "footer") from error


@lru_cache(maxsize=4)
def _row_groups(footer: bytes) -> tuple[RowGroup, ...]:
    """The row groups of a footer, which is read for each part of its file."""
    groups = _Compact(memoryview(footer)).struct()[4]
    return tuple(RowGroup(_count(each[3]), _count(each[2]), tuple(map(_column, each[1]))) for each in groups)


def _column(values: dict[int, Any]) -> Column:
    about = values[3]
    start, dictionary = _count(about[9]), _count(about.get(11, 0))
    start = dictionary if 0 < dictionary < start else start
    path = b".".join(map(bytes, about[3])).decode(errors="replace")
    return Column(path, about[1] in (_BYTES, _FIXED_BYTES), about[4], _count(about[5]), start, start + _count(about[7]))


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError("no count")
    return value


def read_table(stream: pa.NativeFile, path: str) -> pa.Table:
    """All of a file of numbers and strings, which anyone may have written; strings come as dictionaries.

    Raises:
        SentrayError: it would take more than `_MOST_TABLE` bytes, or holds anything else.
        pyarrow.ArrowException: it is damaged.
    """
    size = 0
    for group in read_footer(stream, path, stream.size()):
        for column in group.columns:
            pages = look_at_pages(stream, path, column)
            size += sum(pages.bytes) + pages.dictionary + 8 * max(group.rows, column.values)
            if size > _MOST_TABLE or "." in column.path:
                raise SentrayError(f"{path} would take more than {_MOST_TABLE:,} bytes, or holds lists")
    strings = [field.name for field in pq.read_schema(stream) if pa.types.is_string(field.type)]
    return pq.read_table(stream, read_dictionary=strings)


def look_at_pages(stream: Any, path: str, column: Column) -> ColumnPages:
    """Go through the headers of a column's pages, and through its dictionary.

    Args:
        stream: the file; takes `read_at(size, start)`.
        path: of the file, for messages.
        column: as `read_footer` gives it.

    Raises:
        SentrayError: a header is damaged, or a page too large.
    """
    found, seen = ColumnPages(), 0
    at, end = column.start, column.end
    for _ in range(_MOST_PAGES):
        if at >= end or seen >= column.values:
            return found
        header, length = _header(stream, path, at, end)
        kind, size, stored = (_number(header, place, path) for place in (1, 2, 3))
        at += length + stored
        if at > end:
            raise _damaged(path)
        if size > limits.MOST_PAGE_BYTES:
            raise SentrayError(
                f"{path} has a page of {size:,} bytes, more than {limits.MOST_PAGE_BYTES:,}: write it with smaller "
                "pages or row groups"
            )
        details = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0), {1: 0})
        if not isinstance(details, dict):
            raise _damaged(path)
        count = _number(details, 1, path)
        if kind == _DICTIONARY:
            found.dictionary = size
            found.longest = _longest(stream.read_at(stored, at - stored), size, count, column)
            continue
        seen += count
        encoding = details.get(4 if kind == _DATA_V2 else 2)
        if encoding not in _DICTIONARY_ENCODINGS:
            found.values.append(count)
            found.bytes.append(size)
            found.prefixed = max(found.prefixed, size if encoding == _PREFIXED else 0)
    raise SentrayError(f"{path} has more than {_MOST_PAGES:,} pages in a column: write it with larger ones")


def _longest(content: Any, size: int, count: int, column: Column) -> int:
    """What a value of a dictionary takes at most; where that is not easily told, as much as all of them."""
    if count > _MOST_WALKED or size > limits.MOST_BATCH_BYTES:
        return size
    try:
        plain = content if not column.codec else pa.Codec(_CODECS[column.codec]).decompress(content, size)
    # Arrow has no name for LZ4 as Hadoop frames it.
    except (KeyError, ValueError, OSError):
        return size
    data, at, longest = memoryview(plain), 0, 0
    for _ in range(count):
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4 + length
        longest = max(longest, length)
    return min(longest, size)


def _header(stream: Any, path: str, at: int, end: int) -> tuple[dict[int, Any], int]:
    """A page's header, and how many bytes it takes."""
    for size in _HEADER_BYTES:
        content = stream.read_at(min(size, end - at), at)
        try:
            reader = _Compact(memoryview(content))
            return reader.struct(), reader.at
        except (IndexError, ValueError):
            if len(content) < size:
                break
    raise _damaged(path)


def _damaged(path: str, what: str = "header of a page") -> SentrayError:
    return SentrayError(f"{path} cannot be read (the {what} is damaged): replace it or leave it out")


def _number(values: dict[int, Any], place: int, path: str) -> int:
    value = values.get(place)
    if not isinstance(value, int) or value < 0:
        raise _damaged(path)
    return value


class _Compact:
    """Reads Thrift's compact protocol; a structure becomes a dictionary by field.

    Attributes:
        at: the next byte.
    """

    def __init__(self, data: memoryview) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("too deep")
        values: dict[int, Any] = {}
        place = 0
        while byte := self._byte():
            place = place + (byte >> 4) if byte >> 4 else self._signed()
            values[place] = self._value(byte & 15, depth)
        return values

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return None
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _BINARY:
            return self._take(self._unsigned())
        if kind in (_BYTE, _DOUBLE):
            return self._take(1 if kind == _BYTE else 8)
        if kind == _MAP:
            raise ValueError("Parquet has none")
        return self._signed()

    def _list(self, depth: int) -> list[Any]:
        byte = self._byte()
        size = byte >> 4 if byte >> 4 < 15 else self._unsigned()
        if size > len(self._data) or depth > _DEEPEST:
            raise ValueError("a list longer than its file")
        kind = byte & 15
        return [self._take(1) if kind in (_TRUE, _FALSE) else self._value(kind, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _take(self, size: int) -> memoryview:
        self.at += size
        if self.at > len(self._data):
            raise IndexError(size)
        return self._data[self.at - size : self.at]

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number without an end")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
