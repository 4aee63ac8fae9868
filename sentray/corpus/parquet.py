"""Parquet: row groups in batches of bounded size."""

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from sentray.corpus import limits
from sentray.corpus.files import open_file
from sentray.corpus.footers import FIXED_BYTES, Footer, RowGroup, read_footer
from sentray.corpus.limits import EXCERPT_CHARACTERS
from sentray.corpus.pages import ColumnPages, look_at_pages, rows_at_once
from sentray.corpus.rows import ROLES, TABLE_BYTES, TABLE_ROWS, Block, Columns, Mask, as_mask, no_rows, no_text
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece
from sentray.errors import SentrayError

_MAX_COPIED = 1 << 36
"""Bytes of dictionaries to copy for a row group: each batch of rows comes with all of them."""
_MAX_DICTIONARY = 1 << 26
"""Bytes of a dictionary that may hold a value which is too large; Arrow takes some five times as much to read it."""

Values = tuple[dict[str, pa.Array], Mask]
"""Columns of some rows, and which rows hold a value that is too large, of which the beginning is left."""


def read_parquet(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a Parquet file's row groups `piece.start` to `piece.stop`.

    Raises:
        SentrayError: the file lacks a column, has fewer row groups than were planned, or would become too large.
    """
    assert source.filesystem is not None
    with open_file(source.filesystem, piece.path) as opened:
        stored = opened.size()
        stream = opened if isinstance(source.filesystem, fs.LocalFileSystem) else _Remembering(opened)
        footer = read_footer(stream, piece.path, stored)
        chosen = columns.choose(footer.names, piece.path)
        if not chosen:
            return
        file = _opened(stream, piece, footer, chosen, columns)
        stop = len(footer.groups) if piece.stop is None else piece.stop
        if stop > len(footer.groups):
            raise SentrayError(
                f"{piece.path} has fewer row groups than when the run was planned: put the file back as it was"
            )
        groups = footer.groups[:stop]
        done, inflated = sum(group.rows for group in groups[: piece.start]), 0
        limits.require_few_rows(piece.path, sum(group.rows for group in groups[piece.start :]), stored)
        for place, group in enumerate(groups[piece.start :], piece.start):
            end = done + group.rows
            pages = _look(stream, piece.path, footer, group, chosen)
            for arrays, too_large in _values(file, stream, piece.path, place, group, pages, chosen):
                rows = np.arange(done + 1, done + 1 + len(too_large), dtype=np.int64)
                done += len(rows)
                inflated += sum(array.nbytes for array in arrays.values())
                limits.require_little_inflation(piece.path, inflated, stored)
                block = columns.block(piece.name, rows, arrays)
                block.too_large = too_large
                yield block
            if done != end:
                raise SentrayError(
                    f"{piece.path} does not hold the rows that its footer counts: replace it or leave it out"
                )


def parquet_columns(source: Source, piece: Piece, columns: Columns) -> Block | None:
    """A block without a row that has the columns of a Parquet file; none of a file without rows.

    Raises:
        SentrayError: the file lacks a column.
    """
    assert source.filesystem is not None
    with open_file(source.filesystem, piece.path) as stream:
        footer = read_footer(stream, piece.path, stream.size())
        chosen = columns.choose(footer.names, piece.path)
        if not any(group.rows for group in footer.groups):
            return None
        schema = _opened(stream, piece, footer, chosen, columns).schema_arrow
    arrays = {name: _shortened(pa.array([], schema.field(name).type))[0] for name in chosen}
    return columns.block(piece.name, np.zeros(0, np.int64), arrays)


def _opened(stream: Any, piece: Piece, footer: Footer, chosen: Sequence[str], columns: Columns) -> pq.ParquetFile:
    """The file, of which the columns that have a role hold no lists or structures."""
    file = pq.ParquetFile(stream)
    for name in {columns.name(role) for role in ROLES}.intersection(chosen):
        leaves = [leaf for leaf in footer.leaves if leaf.of(name)]
        if len(leaves) != 1 or leaves[0].nested:
            raise no_text(name, piece.name, file.schema_arrow.field(name).type)
    return file


def _look(stream: Any, path: str, footer: Footer, group: RowGroup, chosen: Sequence[str]) -> list[ColumnPages]:
    """What the pages say of the chosen columns.

    Raises:
        SentrayError: to read them would take too much memory.
    """
    pairs = zip(footer.leaves, group.columns, strict=True)
    some = [(leaf, column) for leaf, column in pairs if any(map(leaf.of, chosen))]
    if isinstance(stream, _Remembering):
        stream.remember([(column.start, column.end) for _, column in some])
    found = [look_at_pages(stream, path, leaf, column, group.rows) for leaf, column in some]
    if sum(pages.held for pages in found) > limits.MAX_PAGE_BYTES:
        largest = max(found, key=lambda pages: pages.held)
        raise SentrayError(
            f"{path} would take more than {limits.MAX_PAGE_BYTES:,} bytes at once, most of them for column "
            f"{largest.leaf.path[: limits.MAX_NAME]!r}: write it with smaller pages or row groups"
        )
    return found


def _values(
    file: pq.ParquetFile,
    stream: Any,
    path: str,
    place: int,
    group: RowGroup,
    pages: Sequence[ColumnPages],
    chosen: Sequence[str],
) -> Iterator[Values]:
    """The rows of a row group, so many at once that their values are bounded whatever the file says of itself."""
    long = [each for each in pages if each.longest > limits.MAX_ROW_BYTES and not each.leaf.repeated]
    size = max(1, min(TABLE_ROWS, TABLE_BYTES * group.rows // max(1, group.bytes)))
    at_once = min(size, rows_at_once([each for each in pages if each not in long], TABLE_ROWS))
    copied = sum(each.dictionary for each in long) * -(-group.rows // at_once)
    # Such a value is not to be made for each row that has it: the column is read as places in the dictionary.
    for each in long:
        as_places = not each.leaf.nested and each.leaf.kind != FIXED_BYTES
        if not as_places or each.dictionary > _MAX_DICTIONARY or copied > _MAX_COPIED:
            raise SentrayError(
                f"{path} has a dictionary of {each.dictionary:,} bytes for a column of repeated values: write it "
                "without one, or leave it out"
            )
    if long:
        file = pq.ParquetFile(stream, read_dictionary=[each.leaf.path for each in long])
    batches = file.iter_batches(at_once, row_groups=[place], columns=list(chosen), use_threads=False)
    parts = (
        part
        for batch in batches
        for part in _in_parts(dict(zip(batch.schema.names, batch.columns, strict=True)), batch.num_rows)
    )
    return _gathered(parts, size) if at_once < size else parts


def _gathered(parts: Iterable[Values], most: int) -> Iterator[Values]:
    """Neighbouring rows together, up to a table's worth: to check a table takes long, however few rows it has."""
    some: list[Values] = []
    rows = size = 0
    for arrays, too_large in parts:
        bytes_ = sum(array.nbytes for array in arrays.values())
        if some and (rows + len(too_large) > most or size + bytes_ > TABLE_BYTES):
            yield _joined(some)
            some, rows, size = [], 0, 0
        some.append((arrays, too_large))
        rows, size = rows + len(too_large), size + bytes_
    if some:
        yield _joined(some)


def _joined(parts: Sequence[Values]) -> Values:
    arrays = {name: pa.concat_arrays([arrays[name] for arrays, _ in parts]) for name in parts[0][0]}
    return arrays, np.concatenate([too_large for _, too_large in parts])


def _in_parts(arrays: dict[str, pa.Array], rows: int) -> Iterator[Values]:
    """Some rows; where columns are places in dictionaries, only so many at once as may be made of them."""
    too_large, sizes = no_rows(rows), np.zeros(rows, np.int64)
    for name, array in arrays.items():
        kind = array.type
        if pa.types.is_dictionary(kind):
            values, long = _shortened(array.dictionary)
            long = as_mask(pa.array(long).take(array.indices).fill_null(False))
            if _has_length(values.type):
                sizes += pc.binary_length(values).take(array.indices).fill_null(0).to_numpy(zero_copy_only=False)
            arrays[name] = pa.DictionaryArray.from_arrays(array.indices, values)
        else:
            arrays[name], long = _shortened(array)
        too_large |= long
    parts = np.cumsum(sizes) // limits.MAX_BATCH_BYTES
    for part in np.split(np.arange(rows), np.flatnonzero(np.diff(parts)) + 1) if rows else []:
        some = {name: array.slice(part[0], len(part)) for name, array in arrays.items()}
        made = {
            name: array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            for name, array in some.items()
        }
        yield made, too_large[part]


def _shortened(array: pa.Array) -> tuple[pa.Array, Mask]:
    """The values, of those that are too large the beginning, and which these are; of a list or structure nothing."""
    if isinstance(array, pa.ExtensionArray):
        storage, mask = _shortened(array.storage)
        return (array if storage is array.storage else array.type.wrap_array(storage)), mask
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_string() if pa.types.is_string_view(array.type) else pa.large_binary())
    if pa.types.is_nested(array.type) and array.nbytes > limits.MAX_ROW_BYTES:
        mask = np.array([array.slice(row, 1).nbytes > limits.MAX_ROW_BYTES for row in range(len(array))], bool)
        return array.take(pa.array(np.arange(len(array)), mask=mask)) if mask.any() else array, mask
    if not _has_length(array.type):
        return array, no_rows(len(array))
    long = pc.greater(pc.binary_length(array), limits.MAX_ROW_BYTES).fill_null(False)
    mask = as_mask(long)
    if mask.any():
        beginnings = pc.binary_slice(array.filter(long).cast(pa.large_binary()), 0, 4 * EXCERPT_CHARACTERS)
        texts = [value.decode(errors="replace") for value in beginnings.to_pylist()]
        array = pc.replace_with_mask(array, long, pa.array(texts, pa.large_string()).cast(array.type))
    return array, mask


def _has_length(kind: pa.DataType) -> bool:
    """Whether values are strings or bytes of any length."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


class _Remembering(io.RawIOBase):
    """A file of an object store, of which columns are kept that are looked at before they are read."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._size, self._at = stream, stream.size(), 0
        self._kept: list[tuple[int, memoryview]] = []

    def remember(self, columns: Sequence[tuple[int, int]]) -> None:
        """Read the bytes from some starts to some ends, and forget those that were read before."""
        self._kept = []
        self._kept = [(start, memoryview(self.read_at(max(0, end - start), start))) for start, end in columns]

    def read_at(self, size: int, start: int) -> memoryview | bytes:
        """So many bytes from there on, or fewer at the end."""
        for begin, kept in self._kept:
            if begin <= start and start + size <= begin + len(kept):
                return kept[start - begin : start - begin + size]
        content: bytes = self._stream.read_at(min(size, max(0, self._size - start)), start)
        return content

    def read(self, size: int = -1) -> Any:
        content = self.read_at(self._size - self._at if size < 0 else size, self._at)
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
