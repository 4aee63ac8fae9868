"""Tables in memory as input: `stored` writes one as a Parquet file whose name is a digest of its content."""

import contextlib
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sentray.errors import SentrayError
from sentray.storage import Folder, behind

GROUP_ROWS = 16_384
"""Rows of a row group, so that the same rows give the same file however they were cut into pieces; about 64 MB."""
_PREFIX, _DIGITS = "input-", 16


def is_table(value: object) -> bool:
    """Whether it can be stored: it has Arrow's PyCapsule stream, or it is a Ray Dataset."""
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "iter_batches")


@contextlib.contextmanager
def stored(table: Any, work: str | None = None) -> Iterator[str]:
    """A table's rows as a Parquet file, for the length of the block.

    Args:
        table: `pyarrow.Table`, pandas, Polars, a DuckDB relation or whatever else offers `__arrow_c_stream__`; or a
            Ray Dataset. It is read once, as a stream.
        work: Folder or URI in which the file stays, so that the same call finds the same file; a temporary one where
            not given.

    Yields:
        Path or URI of the file, `input-DIGEST.parquet`. The digest is of the values, names and types of the columns.

    Raises:
        SentrayError: The table has no row or cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="sentray-input-") as scratch:
        file = _written(table, Path(scratch))
        if work is None:
            yield str(file)
            return
        folder = Folder(work)
        names = [name for name in folder.names() if name.startswith(_PREFIX)]
        # A file that is there keeps its time: a job that goes on asks whether its input is what it was.
        if file.name not in names:
            with folder.create(file.name) as target, file.open("rb") as source:
                shutil.copyfileobj(source, target)
    try:
        yield behind(work, f"/{file.name}")
    except SentrayError:
        if names and file.name not in names:
            # The folder belongs to a run on other data, which goes on without this file.
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
    schema, batches = _stream(table)
    rows, file = 0, folder / "rows.parquet"
    try:
        # Without Arrow's own schema, texts with offsets of 32 and of 64 bits and views make the same file.
        with pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
            for group in _groups(batches):
                writer.write_table(group)
                rows += group.num_rows
    except (pa.ArrowException, OSError) as error:
        raise SentrayError(
            f"the table in memory cannot be written as Parquet ({error}): leave the column out, or convert it"
        ) from error
    if not rows:
        raise SentrayError("the table in memory has no row: give one that has some")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return file.rename(folder / f"{_PREFIX}{digest[:_DIGITS]}.parquet")


def _stream(table: Any) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """A table's schema and its rows, piece by piece, without metadata and dictionaries."""
    if hasattr(table, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(table)
        pieces = (pa.Table.from_batches([batch], reader.schema) for batch in reader)
        first = reader.schema.empty_table()
    else:
        # Otherwise the same dataset would give its rows in another order each time.
        table.context.execution_options.preserve_order = True
        pieces = iter(table.iter_batches(batch_size=None, batch_format="pyarrow"))
        first = next(pieces, pa.table({}))
    schema = _plain(first).schema
    return schema, (_plain(piece).cast(schema) for piece in itertools.chain([first], pieces))


def _plain(piece: pa.Table) -> pa.Table:
    return pa.table({name: decoded(piece[name]) for name in piece.column_names})


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
