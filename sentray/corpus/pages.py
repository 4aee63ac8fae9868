"""How large the values of a Parquet column may be, found from its pages' headers before any page is decompressed.

A few bytes of Parquet may stand for any number: a page may be compressed a thousandfold, and a dictionary's value is
stored once for all rows that have it. What a file's footer says of sizes nobody checks; a page that is not as large as
its own header says, Arrow refuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sentray.corpus import limits
from sentray.corpus.compact import BOOL, I32, Compact, Fields
from sentray.corpus.footers import BYTES, FIXED_BYTES, Column, Leaf, damaged, read_footer
from sentray.corpus.lengths import require_lengths, skip_levels
from sentray.errors import SentrayError

_HEADER_BYTES = (1 << 10, 1 << 14, 1 << 24)
"""So much is read to find a page's header in; statistics in it may hold long values."""
_HEADER: Fields = {
    1: I32,
    2: I32,
    3: I32,
    5: {1: I32, 2: I32, 3: I32, 4: I32},
    7: {1: I32},
    8: {1: I32, 4: I32, 5: I32, 6: I32, 7: BOOL},
}
_MAX_PAGES = 100_000
_MAX_TABLE, _FREE_TABLE = 1 << 32, 1 << 28
_MAX_WALKED = 1_000_000
"""Values of a dictionary that are looked at one by one; of a larger one any may be as long as all of it."""
_PREFIXED, _LENGTHS_FIRST = 7, (6, 7)
"""The encoding DELTA_BYTE_ARRAY, in which a value may repeat the one before it, and those in which a page begins with
the lengths of all its values, of which Arrow makes up to 8 bytes each."""
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_DICTIONARY_ENCODINGS, _RLE = (2, 8), 3
_VALUE_BYTES = 16
"""What Arrow takes for a value besides its bytes, in a dictionary or in a list."""


@dataclass
class ColumnPages:
    """What the pages of a column say.

    Attributes:
        leaf: the column.
        count: how many values they have.
        values: how many each data page holds that has its values itself.
        bytes: the sizes of these pages, decompressed.
        page: what the largest data page takes.
        dictionary: size of the dictionary, decompressed; 0 where there is none.
        entries: values of the dictionary.
        longest: what a value takes at most, of the dictionary or of a fixed length.
        prefixed: size of the largest page in which a value may repeat the one before it.
    """

    leaf: Leaf
    count: int = 0
    values: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    page: int = 0
    dictionary: int = 0
    entries: int = 0
    longest: int = 0
    prefixed: int = 0

    @property
    def held(self) -> int:
        """About what is in memory of them at once; of lists all, since a single row may have all values."""
        held = self.page + 2 * self.dictionary + _VALUE_BYTES * self.entries
        return held + (self.all if self.leaf.repeated else 0)

    @property
    def all(self) -> int:
        """What all values take at most."""
        return sum(self.bytes) + self.count * (_VALUE_BYTES + self.longest + self.prefixed)

    def max_bytes(self, rows: int) -> int:
        """What so many neighbouring rows take at most."""
        most = rows * (min(self.longest, limits.MAX_ROW_BYTES) + self.prefixed)
        if not self.values:
            return most
        ends, sums = np.cumsum(self.values), np.cumsum([0, *self.bytes])
        # The rows that touch most begin with the last of a page.
        last = np.searchsorted(ends, np.minimum(ends + rows - 1, ends[-1]))
        return most + int((sums[last + 1] - sums[:-1]).max())


def rows_at_once(columns: Sequence[ColumnPages], most: int) -> int:
    """How many rows to read together, at most so many, that their values take about `MAX_BATCH_BYTES` or less.

    Where the pages that are held anyway are larger than that, rows of two in each column may be.
    """
    columns = [pages for pages in columns if not pages.leaf.repeated]
    allowed = max(limits.MAX_BATCH_BYTES, 2 * sum(max(pages.bytes, default=0) for pages in columns))
    while most > 1 and sum(pages.max_bytes(most) for pages in columns) > allowed:
        most //= 2
    return most


def read_table(stream: pa.NativeFile, path: str, schema: pa.Schema) -> pa.Table:
    """The columns of a schema of numbers and strings; anyone may have written the file. Strings come as dictionaries.

    Raises:
        SentrayError: it lacks a column, has one of another kind, or would take too much memory.
        pyarrow.ArrowException: it is damaged.
    """
    stored = stream.size()
    footer = read_footer(stream, path, stored)
    strings = [name for name, kind in zip(schema.names, schema.types, strict=True) if not pa.types.is_integer(kind)]
    wanted = [(name, False, name in strings) for name in schema.names]
    leaves = {(leaf.path, leaf.nested, leaf.kind == BYTES) for leaf in footer.leaves}
    if not leaves.issuperset(wanted):
        raise SentrayError(f"{path} has other columns than it should")
    most, size = min(_MAX_TABLE, max(_FREE_TABLE, limits.MAX_INFLATION * stored)), 0
    for group in footer.groups:
        for leaf, column in zip(footer.leaves, group.columns, strict=True):
            if leaf.path in schema.names:
                size += look_at_pages(stream, path, leaf, column, group.rows).all
        if size > most:
            raise SentrayError(f"{path} would take more than {most:,} bytes")
    return pq.read_table(stream, columns=schema.names, read_dictionary=strings)


def look_at_pages(stream: Any, path: str, leaf: Leaf, column: Column, rows: int) -> ColumnPages:
    """Go through the headers of a column's pages, and through its dictionary.

    Args:
        stream: the file; takes `read_at(size, start)`.
        path: of the file, for messages.
        leaf: what the column is.
        column: where it is.
        rows: how many its row group has.

    Raises:
        SentrayError: a header is damaged, or there are too many pages.
    """
    found = ColumnPages(leaf, longest=leaf.length if leaf.kind == FIXED_BYTES else 0)
    if not leaf.repeated and column.values != rows:
        raise damaged(path, "number of values of a column")
    at, end = column.start, column.end
    for _ in range(_MAX_PAGES):
        if found.count == column.values:
            return found
        header, length = _header(stream, path, at, end)
        kind, size, stored = (_number(header, place, path) for place in (1, 2, 3))
        at += length + stored
        if at > end or found.count > column.values:
            raise damaged(path, "header of a page")
        # What is stored uncompressed Arrow takes as it is.
        size = max(size, stored)
        details = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0), {1: 0})
        count = _number(details, 1, path)
        if kind == _DICTIONARY:
            if found.dictionary:
                raise damaged(path, "dictionary of a column")
            found.dictionary, found.entries = size, count
            if leaf.kind == BYTES:
                found.longest = _longest(stream.read_at(stored, at - stored), size, count, column)
            continue
        found.count += count
        encoding = details.get(4 if kind == _DATA_V2 else 2)
        found.page = max(found.page, size + 8 * count * (encoding in _LENGTHS_FIRST))
        if encoding in _LENGTHS_FIRST and leaf.kind in (BYTES, FIXED_BYTES) and size <= limits.MAX_PAGE_BYTES:
            content = memoryview(stream.read_at(stored, at - stored))
            _require_lengths(path, content, header, leaf, column)
        if encoding not in _DICTIONARY_ENCODINGS:
            found.values.append(count)
            found.bytes.append(size)
            if encoding == _PREFIXED and leaf.kind == BYTES:
                found.prefixed = max(found.prefixed, size)
    raise SentrayError(f"{path} has more than {_MAX_PAGES:,} pages in a column: write it with larger ones")


def _require_lengths(path: str, content: memoryview, header: dict[int, Any], leaf: Leaf, column: Column) -> None:
    """Refuse a data page that begins with more lengths than it has values; see `lengths`."""
    version_2 = header[1] == _DATA_V2
    details, compressed, levels = header[8 if version_2 else 5], column.codec != 0, 0
    if version_2:
        levels, compressed = _number(details, 5, path) + _number(details, 6, path), compressed & details.get(7, True)
    elif leaf.levels and (details.get(3) != _RLE or (leaf.levels > 1 and details.get(4) != _RLE)):
        raise damaged(path, "header of a page")
    values = content[levels:]
    try:
        if compressed:
            values = memoryview(pa.Codec(_CODECS[column.codec]).decompress(values, header[2] - levels)).cast("B")
        if not version_2:
            values = skip_levels(values, leaf.levels)
        require_lengths(values, details[1], prefixed=details[4 if version_2 else 2] == _PREFIXED)
    except KeyError as error:
        raise SentrayError(f"{path} is compressed in a way that sentray does not know: take zstd or snappy") from error
    except (IndexError, ValueError, OSError) as error:
        raise damaged(path, f"column {leaf.path[: limits.MAX_NAME]!r}") from error


def _longest(content: Any, size: int, count: int, column: Column) -> int:
    """What a value of a dictionary takes at most; where that is not easily told, as much as all of them."""
    if count > _MAX_WALKED or size > limits.MAX_BATCH_BYTES:
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
            reader = Compact(memoryview(content))
            return reader.struct(_HEADER), reader.at
        except (IndexError, ValueError):
            if len(content) < size:
                break
    raise damaged(path, "header of a page")


def _number(values: dict[int, Any], place: int, path: str) -> int:
    value = values.get(place)
    if not isinstance(value, int) or value < 0:
        raise damaged(path, "header of a page")
    return value
