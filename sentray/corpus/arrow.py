"""Arrow IPC: the rows of a file or a stream, as Feather, Polars and Hugging Face's `save_to_disk` write them.

It is as untrusted as Parquet, and read in the same bounds. It is not cut, so that a file is read by one task.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import fs, ipc

from sentray.corpus import limits, sandbox
from sentray.corpus.files import open_file
from sentray.corpus.parquet import _at, _chosen, _ranges, _shortened, empty_rows
from sentray.corpus.rows import TABLE_ROWS, Block, Columns
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece
from sentray.storage import reading

_MAGIC = b"ARROW1"


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a file; see `sentray.corpus.readers`.

    Raises:
        SentrayError: the file lacks a column, is damaged, or takes too much memory.
        MemoryError: memory is scarce, and not for this file's sake.
    """
    try:
        yield from sandbox.bounded(_blocks(source, piece, columns))
        return
    except MemoryError:
        pass
    sandbox.blame(piece.path, _read_all, source, piece, columns)


def _read_all(source: Source, piece: Piece, columns: Columns) -> None:
    with reading(piece.path):
        for _ in _blocks(source, piece, columns):
            pass


def _blocks(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    assert source.filesystem is not None
    with open_file(source.filesystem, piece.path) as stream:
        chosen = _chosen(_opened(stream).schema, piece, columns)
        if not chosen:
            return
        rows = inflated = 0
        for batch in _batches(stream, (way[0] for way in chosen.values())):
            # What its numbers say of where values are, nobody has looked at yet.
            batch.validate(full=True)
            for start in range(0, batch.num_rows, TABLE_ROWS):
                some = batch.slice(start, TABLE_ROWS)
                values, too_large = _shortened({name: _at(some, way) for name, way in chosen.items()}, some.num_rows)
                for first, end in _ranges(values, 0, values.num_rows):
                    part = values.slice(first, end - first)
                    inflated += part.nbytes
                    limits.require_little_inflation(piece.path, inflated, stream.size())
                    arrays = dict(zip(part.schema.names, part.columns, strict=True))
                    numbers = np.arange(rows + first + 1, rows + end + 1, dtype=np.int64)
                    yield Block(piece.name, numbers, arrays, too_large=too_large[first:end])
                rows += values.num_rows


def _opened(
    stream: pa.NativeFile, fields: Sequence[int] = ()
) -> ipc.RecordBatchFileReader | ipc.RecordBatchStreamReader:
    """A file or a stream, of which some fields are read, or all."""
    stream.seek(0)
    magic = stream.read(len(_MAGIC))
    stream.seek(0)
    options = ipc.IpcReadOptions(included_fields=list(fields), use_threads=False)
    try:
        opened = ipc.open_file if magic == _MAGIC else ipc.open_stream
        return opened(stream, options=options)
    except (MemoryError, OSError, pa.ArrowException):
        raise
    except Exception as error:
        # That of a library that has registered a type with Arrow.
        raise pa.ArrowInvalid(f"{type(error).__name__} in its schema") from error


def _batches(stream: pa.NativeFile, columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
    names = _opened(stream).schema.names
    reader = _opened(stream, [names.index(name) for name in dict.fromkeys(columns)])
    if isinstance(reader, ipc.RecordBatchFileReader):
        yield from map(reader.get_batch, range(reader.num_record_batches))
    else:
        yield from reader


def empty_block(source: Source, piece: Piece, columns: Columns) -> Block | None:
    """A block without a row that has the columns of a file; none of a file without rows.

    Raises:
        SentrayError: the file lacks a column, or cannot be read.
    """
    assert source.filesystem is not None
    with sandbox.memory_explained(piece.path):
        has_rows, schema = sandbox.run(piece.path, _look, source.filesystem, piece.path)
    found = empty_rows(schema, piece, columns)
    return found if has_rows else None


def _look(filesystem: fs.FileSystem, path: str) -> tuple[bool, pa.Schema]:
    """Whether a file has a row, and its columns."""
    with reading(path), open_file(filesystem, path) as stream:
        schema = _opened(stream).schema
        return bool(schema.names) and any(batch.num_rows for batch in _batches(stream, schema.names[:1])), schema
