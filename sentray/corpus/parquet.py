"""Parquet: the rows of a file (`read`), its row groups for a plan, and tables of sentray's own.

Whoever wrote a file may have meant harm: what its footer and its pages ask for is bounded by the process that reads
it; see `sandbox`.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from sentray.config import CorpusSettings
from sentray.corpus import limits, sandbox
from sentray.corpus.files import open_file, try_again
from sentray.corpus.limits import EXCERPT_CHARACTERS
from sentray.corpus.rows import (
    TABLE_BYTES,
    TABLE_ROWS,
    Block,
    Columns,
    Mask,
    as_mask,
    is_list,
    is_text,
    no_rows,
    no_text,
)
from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import Part, Piece
from sentray.errors import SentrayError
from sentray.storage import reading

_ROWS_AT_ONCE = (TABLE_ROWS, 64, 1)
"""Rows to read together, and fewer where those take too much memory: a value may be stored once for many rows."""
_READ_BYTES = 4 << 20
"""What is read at once of a column, whose row group may be larger than memory."""
_MAX_TABLE_GROUPS = 1000
"""Row groups of a table that sentray wrote: a million rows each."""
_FOOTERS, _THREADS = 1000, 16
"""Footers that are read by one call of the sandbox, and how many of them at once."""


Way = tuple[str, ...]
"""The name of a column, or those on the way to one within structures, whose path is called `review.body`."""


class RowGroups(NamedTuple):
    """The row groups of a file.

    Attributes:
        rows: how many each has.
        bytes: what the values of each take, decompressed.
    """

    rows: list[int]
    bytes: list[int]


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a file's row groups `piece.start` to `piece.stop`; see `sentray.corpus.readers`.

    Raises:
        SentrayError: the file lacks a column, has fewer row groups than were planned, is damaged, or takes too much
            memory.
        MemoryError: memory is scarce, and not for this file's sake.
    """
    done = 0
    for at_once in _ROWS_AT_ONCE:
        try:
            for block in sandbox.bounded(_blocks(source, piece, columns, at_once, done)):
                done = int(block.rows[-1])
                yield block
            return
        except MemoryError:
            pass
    sandbox.blame(piece.path, _read_all, source, piece, columns)


def _read_all(source: Source, piece: Piece, columns: Columns) -> None:
    with reading(piece.path):
        for _ in _blocks(source, piece, columns, _ROWS_AT_ONCE[-1], 0):
            pass


def _blocks(source: Source, piece: Piece, columns: Columns, at_once: int, done: int) -> Iterator[Block]:
    """The rows after row `done`, at most so many at once."""
    assert source.filesystem is not None
    with open_file(source.filesystem, piece.path) as stream:
        stored = stream.size()
        file = _opened(stream, buffer_size=_READ_BYTES, pre_buffer=False)
        chosen = _chosen(file.schema_arrow, piece, columns)
        if not chosen:
            return
        stop = file.num_row_groups if piece.stop is None else piece.stop
        if stop > file.num_row_groups:
            raise SentrayError(
                f"{piece.path} has fewer row groups than when the run was planned: put the file back as it was"
            )
        groups = [file.metadata.row_group(index) for index in range(stop)]
        limits.require_few_rows(piece.path, sum(group.num_rows for group in groups[piece.start :]), stored)
        row, inflated = sum(group.num_rows for group in groups[: piece.start]), 0
        for index, group in enumerate(groups[piece.start :], piece.start):
            end = row + group.num_rows
            size = max(1, min(at_once, TABLE_BYTES * group.num_rows // max(1, group.total_byte_size)))
            for batch in file.iter_batches(size, row_groups=[index], columns=list(chosen), use_threads=False):
                values, too_large = _shortened({name: _at(batch, way) for name, way in chosen.items()}, batch.num_rows)
                for start, stop in _ranges(values, 0, batch.num_rows):
                    part = values.slice(start, stop - start)
                    inflated += part.nbytes
                    limits.require_little_inflation(piece.path, inflated, stored)
                    if (start := max(start, done - row)) < stop:
                        part = values.slice(start, stop - start)
                        rows = np.arange(row + start + 1, row + stop + 1, dtype=np.int64)
                        arrays = dict(zip(part.schema.names, part.columns, strict=True))
                        yield Block(piece.name, rows, arrays, too_large=too_large[start:stop])
                row += batch.num_rows
            if row != end:
                raise SentrayError(
                    f"{piece.path} does not hold the rows that its footer counts: replace it or leave it out"
                )


def _opened(stream: pa.NativeFile, **how: Any) -> pq.ParquetFile:
    """A file with its footer read.

    Raises:
        pa.ArrowException: its footer is damaged. A column's type may be one that a library has registered with Arrow,
            as Ray does, whose own code then reads what the footer says of it and raises whatever it likes.
    """
    try:
        return pq.ParquetFile(stream, **how)
    except (MemoryError, OSError, pa.ArrowException):
        raise
    except Exception as error:
        # Ray's own words advise to unpickle.
        raise pa.ArrowInvalid(f"{type(error).__name__} in its footer") from error


def empty_block(source: Source, piece: Piece, columns: Columns) -> Block | None:
    """A block without a row that has the columns of a file; none of a file without rows.

    Raises:
        SentrayError: the file lacks a column, or its footer cannot be read.
    """
    rows, schema = read_footer(source.filesystem, piece.path)
    found = empty_rows(schema, piece, columns)
    return found if rows else None


def empty_rows(schema: pa.Schema, piece: Piece, columns: Columns) -> Block:
    """A block without a row that has the columns of a schema.

    Raises:
        SentrayError: it lacks a column.
    """
    chosen = _chosen(schema, piece, columns)
    # Arrow can make no empty column of some types, such as dense unions.
    names = list(dict.fromkeys(way[0] for way in chosen.values()))
    empty = pa.RecordBatch.from_arrays([pa.array([], schema.field(name).type) for name in names], names)
    arrays = {name: _shortened_column(_at(empty, way))[0] for name, way in chosen.items()}
    return Block(piece.name, np.zeros(0, np.int64), arrays)


def _chosen(schema: pa.Schema, piece: Piece, columns: Columns) -> dict[str, Way]:
    """The columns to read, of which those that have a role hold values, or lists of what may come in lists."""
    # A column whose name holds a dot itself comes before one at that path.
    found = list(_columns(schema))
    known = {".".join(way): (way, kind) for way, kind in sorted(found, key=lambda each: -len(each[0]))}
    names = dict.fromkeys(schema.names)
    inner = dict.fromkeys(path for path in (".".join(way) for way, _ in found) if path not in names)
    chosen = columns.choose([*schema.names, *inner], piece.path)
    for name, role in ((columns.name(role), role) for role in columns.roles):
        kind = known[name][1] if name in chosen else pa.null()
        may_be_list = is_list(kind) and (role == "label" or (role == "text" and is_text(kind.value_type)))
        if pa.types.is_nested(kind.value_type if may_be_list else kind):
            raise no_text(name, piece.name, kind)
    return {name: known[name][0] for name in chosen}


def _columns(fields: Iterable[pa.Field], before: Way = ()) -> Iterator[tuple[Way, pa.DataType]]:
    """The columns of a file, and those within structures, with their types."""
    for field in fields:
        yield (*before, field.name), field.type
        if pa.types.is_struct(field.type) and len(before) < limits.MAX_DEPTH:
            yield from _columns(field.type, (*before, field.name))


def _at(batch: pa.RecordBatch, way: Way) -> pa.Array:
    """A column, or one within structures."""
    column = batch[way[0]]
    return pc.struct_field(column, list(way[1:])) if way[1:] else column


def _ranges(batch: pa.RecordBatch, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where to cut rows, in halves of halves, so that their values make tables of the usual size."""
    if stop - start > 1 and batch.slice(start, stop - start).nbytes > 2 * TABLE_BYTES:
        yield from _ranges(batch, start, (start + stop) // 2)
        yield from _ranges(batch, (start + stop) // 2, stop)
    elif start < stop:
        yield start, stop


def _shortened(columns: dict[str, pa.Array], rows: int) -> tuple[pa.RecordBatch, Mask]:
    """The rows without dictionaries, and which hold a value that is too large, of which the beginning is left."""
    too_large, arrays = no_rows(rows), []
    for array in columns.values():
        array, mask = _shortened_column(array)
        too_large |= mask
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, list(columns)), too_large


def _shortened_column(array: pa.Array) -> tuple[pa.Array, Mask]:
    """The values, of those that are too large the beginning, and which these are; of a list or structure nothing."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array.type, pa.ExtensionType):
        # One that a library has registered, such as Ray's for pickled objects: not every process knows it.
        return _shortened_column(array.storage)
    if isinstance(array, pa.ExtensionArray):
        storage, mask = _shortened_column(array.storage)
        return (array if storage is array.storage else array.type.wrap_array(storage)), mask
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_string() if pa.types.is_string_view(array.type) else pa.large_binary())
    if array.nbytes <= limits.MAX_ROW_BYTES:
        return array, no_rows(len(array))
    if pa.types.is_nested(array.type):
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


def read_footer(filesystem: fs.FileSystem, path: str) -> tuple[int, pa.Schema]:
    """How many rows a file has, and its columns; anyone may have written it.

    Raises:
        SentrayError: the file is gone, damaged or no Parquet, or takes too much memory.
    """
    with sandbox.memory_explained(path):
        return sandbox.run(path, _footer, filesystem, path)


def _footer(filesystem: fs.FileSystem, path: str) -> tuple[int, pa.Schema]:
    with reading(path), open_file(filesystem, path) as stream:
        file = _opened(stream)
        return file.metadata.num_rows, file.schema_arrow


def read_table(filesystem: fs.FileSystem, path: str, schema: pa.Schema) -> pa.Table:
    """A table that sentray wrote, or anyone else in its name; a row group at a time, as it may have millions of rows.

    Raises:
        SentrayError: it is gone or damaged, lacks a column, has one of another type, or takes too much memory.
    """
    tables, inflated = [schema.empty_table()], 0
    with sandbox.memory_explained(path):
        groups, stored = sandbox.run(path, _table_size, filesystem, path, schema)
        if groups > _MAX_TABLE_GROUPS:
            raise SentrayError(f"{path} has more than {_MAX_TABLE_GROUPS:,} row groups")
        for group in range(groups):
            tables.append(sandbox.run(path, _table, filesystem, path, schema, group))
            inflated += tables[-1].nbytes
            limits.require_little_inflation(path, inflated, stored)
    return pa.concat_tables(tables)


def _table_size(filesystem: fs.FileSystem, path: str, schema: pa.Schema) -> tuple[int, int]:
    """How many row groups a table has, and its size as stored, once its columns are as they should be."""
    with reading(path), open_file(filesystem, path) as stream:
        file = _opened(stream)
        for field in schema:
            index = file.schema_arrow.get_field_index(field.name)
            if index < 0 or _value_type(file.schema_arrow.field(index).type) != _value_type(field.type):
                raise SentrayError(f"{path} has other columns than it should")
        return file.num_row_groups, stream.size()


def _table(filesystem: fs.FileSystem, path: str, schema: pa.Schema, group: int) -> pa.Table:
    # A name may be stored once for all of a million rows.
    strings = [field.name for field in schema if pa.types.is_string(_value_type(field.type))]
    with reading(path), open_file(filesystem, path) as stream:
        file = _opened(stream, read_dictionary=strings)
        return file.read_row_group(group, schema.names, use_threads=False).select(schema.names).cast(schema)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def row_groups(filesystem: fs.FileSystem, paths: Sequence[str]) -> list[RowGroups | None]:
    """The row groups of files, None of those that cannot be read: whoever reads the rows says why."""
    if len(paths) <= _FOOTERS:
        try:
            with sandbox.memory_explained(" ".join(paths[:1])):
                return sandbox.run(paths[0], _row_groups, filesystem, paths) if paths else []
        except (sandbox.CrashError, sandbox.TooMuchError):
            if len(paths) == 1:
                return [None]
    # They are too many, or one of them ends its reader.
    middle = len(paths) // 2
    return row_groups(filesystem, paths[:middle]) + row_groups(filesystem, paths[middle:])


def _row_groups(filesystem: fs.FileSystem, paths: Sequence[str]) -> list[RowGroups | None]:
    with ThreadPoolExecutor(min(_THREADS, len(paths))) as threads:
        return list(threads.map(lambda path: try_again(filesystem, partial(_groups, filesystem, path)), paths))


def _groups(filesystem: fs.FileSystem, path: str) -> RowGroups:
    with reading(path), open_file(filesystem, path) as stream:
        metadata = _opened(stream).metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        return RowGroups([group.num_rows for group in groups], [group.total_byte_size for group in groups])


def cut(filesystem: fs.FileSystem, files: Sequence[SourceFile], size: int, _: CorpusSettings) -> list[list[Part]]:
    """The row groups of each file, whatever the size; none of what cannot be read."""
    return list(map(_parts, files, row_groups(filesystem, [file.path for file in files])))


def _parts(file: SourceFile, groups: RowGroups | None) -> list[Part]:
    """A file's row groups as parts; their share of its bytes is that of their values' sizes."""
    # A footer may say what it likes.
    if (
        groups is None
        or not groups.rows
        or min(groups.rows + groups.bytes) < 0
        or max(groups.rows) > limits.max_rows(file.size)
    ):
        return []
    ends = [file.size * size // max(1, sum(groups.bytes)) for size in accumulate(groups.bytes)]
    before = accumulate(groups.rows, initial=0)
    stored = [end - start for start, end in pairwise([0, *ends])]
    return [
        Part(index, index + 1, *numbers) for index, numbers in enumerate(zip(before, stored, groups.rows, strict=False))
    ]
