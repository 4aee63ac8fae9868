"""Tables in memory and streams as input: `stored` writes one as a file whose name is a digest of its content."""

import contextlib
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sentray.errors import SentrayError, first_line
from sentray.storage import Folder, behind

GROUP_ROWS = 16_384
"""Rows of a row group, so that the same rows give the same file however they were cut into pieces; about 64 MB."""
_PREFIX, _DIGITS = "input-", 16


def is_table(value: object) -> bool:
    """Whether it can be stored: it has Arrow's PyCapsule stream, or it is a Ray Dataset."""
    # A Parquet file has batches, too.
    return hasattr(value, "__arrow_c_stream__") or (hasattr(value, "iter_batches") and hasattr(value, "context"))


@contextlib.contextmanager
def stored(table: Any, work: str | None = None, out: str | None = None, add: bool = True) -> Iterator[str]:
    """A table's rows as a Parquet file, or a stream's bytes as a file, for the length of the block.

    Args:
        table: `pyarrow.Table`, pandas, Polars, a DuckDB relation or whatever else offers `__arrow_c_stream__`; or a
            Ray Dataset; or a binary stream, such as the standard input. It is read once, as a stream.
        work: Folder or URI in which the file stays, so that the same call finds the same file; a temporary one where
            not given.
        out: Folder or URI of what is made of the table; while it is empty, a job may not have begun.
        add: Whether to put the file into that folder where it is not; if not, a temporary file takes its place.

    Yields:
        Path or URI of the file, `input-DIGEST.parquet`, or `input-DIGEST` for a stream, whose first bytes tell what it
        is. The digest is of the file: another version of pyarrow may write the same rows in other bytes.

    Raises:
        SentrayError: The table has no row or the stream no byte, or it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="sentray-input-") as scratch:
        file = _spooled(table, Path(scratch)) if hasattr(table, "read") else _written(table, Path(scratch))
        names = [] if work is None else Folder(work).names()
        new = file.name not in names
        if work is None or (new and not add):
            yield str(file)
            return
        folder = Folder(work)
        # A file that is there keeps its time: a job that goes on asks whether its input is what it was.
        if new:
            with folder.create(file.name) as target, file.open("rb") as source:
                shutil.copyfileobj(source, target)
    try:
        yield behind(work, f"/{file.name}")
    except SentrayError:
        others = any(name.startswith(_PREFIX) for name in names)
        begun = folder.names() != [file.name] or (out is not None and Folder(out).names() != [])
        if new and (others or not begun):
            # The folder belongs to a run on other data, which goes on without this file, or nothing was begun.
            folder.delete(file.name)
        raise


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with its values written out, where it is dictionary-encoded."""
    if not pa.types.is_dictionary(column.type):
        return column
    kind = column.type.value_type
    # Arrow cannot take from the views that Polars has in its dictionaries.
    kind = pa.large_string() if pa.types.is_string_view(kind) else kind
    return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks], kind)


def _written(table: Any, folder: Path) -> Path:
    """Write a table, and name the file by its digest."""
    rows, file = 0, folder / "rows.parquet"
    try:
        with _in_order(table):
            schema, batches = _stream(table)
            # Without Arrow's own schema, texts with offsets of 32 and of 64 bits and views make the same file.
            with pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
                for group in _groups(batches):
                    writer.write_table(group)
                    rows += group.num_rows
    # Each library refuses what it cannot turn into Arrow's columns by an exception of its own choice.
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        # What broke in a process of Ray's is in the cause of Ray's exception.
        reason = first_line(getattr(error, "cause", error))
        raise SentrayError(
            f"the table in memory cannot be written as Parquet ({reason}): leave the column out, or convert it "
            "(a series: by to_frame)"
        ) from error
    if not rows:
        raise SentrayError("the table in memory has no row: give one that has some")
    return _named(file, ".parquet")


def _spooled(stream: BinaryIO, folder: Path) -> Path:
    """Write a stream, and name the file by its digest."""
    file = folder / "stream"
    try:
        with file.open("wb") as target:
            shutil.copyfileobj(stream, target)
    except OSError as error:
        raise SentrayError(
            f"the piped input cannot be read to its end and kept in {folder} ({error.strerror}): make room, or set "
            "TMPDIR to another folder"
        ) from error
    if not file.stat().st_size:
        raise SentrayError("the piped input is empty: pipe reviews in, or name a file")
    return _named(file, "")


def _named(file: Path, suffix: str) -> Path:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return file.rename(file.with_name(f"{_PREFIX}{digest[:_DIGITS]}{suffix}"))


def _stream(table: Any) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """A table's schema and its rows, piece by piece, without metadata and dictionaries."""
    if hasattr(table, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(table)
        pieces = (pa.Table.from_batches([batch], reader.schema) for batch in reader)
        first = reader.schema.empty_table()
    else:
        blocks = table.iter_batches(batch_size=None, batch_format="pyarrow")
        # A block without rows may not know its columns.
        pieces = (block for block in blocks if any(block.shape))
        first = next(pieces, pa.table({}))
    schema = _plain(first).schema
    return schema, (_alike(_plain(piece), schema) for piece in itertools.chain([first], pieces))


@contextlib.contextmanager
def _in_order(table: Any) -> Iterator[None]:
    """Let a Ray Dataset give its rows in one order, so that they are the same each time, and without progress bars."""
    if hasattr(table, "__arrow_c_stream__"):
        yield
        return
    context, options = table.context, table.context.execution_options
    before = options.preserve_order, context.enable_progress_bars
    options.preserve_order, context.enable_progress_bars = True, False
    try:
        yield
    finally:
        options.preserve_order, context.enable_progress_bars = before


def _plain(piece: pa.Table) -> pa.Table:
    names = piece.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise SentrayError(f"the table in memory has several columns {twice[0]!r}: give each a name of its own")
    return pa.table({name: decoded(piece[name]) for name in names})


def _alike(piece: pa.Table, schema: pa.Schema) -> pa.Table:
    """A block with the columns and types of the first; that of a text may differ in how Arrow keeps it."""
    if piece.column_names != schema.names:
        raise SentrayError(
            f"a block of the dataset has the columns {', '.join(piece.column_names)}, and the first has "
            f"{', '.join(schema.names)}: give all the same, such as by dataset.select_columns"
        )
    for name, kind, first in zip(schema.names, piece.schema.types, schema.types, strict=True):
        if kind != first and not (_is_text(kind) and _is_text(first)):
            raise SentrayError(
                f"the column {name!r} is {first} in the first block of the dataset and {kind} in another: give it one "
                "type, such as by dataset.map_batches(lambda table: table.cast(schema), batch_format='pyarrow')"
            )
    return piece.cast(schema)


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _groups(pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `GROUP_ROWS`; the last may have fewer."""
    held: list[pa.Table] = []
    rows = 0
    for piece in pieces:
        while rows + piece.num_rows >= GROUP_ROWS:
            wanted = GROUP_ROWS - rows
            yield pa.concat_tables([*held, piece.slice(0, wanted)]).combine_chunks()
            held, rows, piece = [], 0, piece.slice(wanted)
        if piece.num_rows:
            held.append(piece)
            rows += piece.num_rows
    if held:
        yield pa.concat_tables(held).combine_chunks()
