"""Compaction: few files of a good size from those of many shards, and one file of all quarantined rows."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sentray.corpus.rows import QUARANTINE_SCHEMA
from sentray.scoring.output import (
    QUARANTINE,
    STAGED,
    Compacted,
    OutputFolder,
    Part,
    parquet_options,
    part_name,
    partition_of,
    quarantine_name,
)
from sentray.scoring.worker import ROW_GROUP
from sentray.storage import Folder

Members = npt.NDArray[np.int64]
"""A row a staged part: its shard and how many rows it holds."""


def compact(out: OutputFolder, show: Callable[[int, int], None] = lambda done, files: None) -> int:
    """Publish staged scores as files of about `rows_per_file` rows, in the input's order; see `--rows-per-file`.

    Which shards come together depends on their rows alone, and a file is named by its first shard. So a run that was
    killed here goes on with the same files.

    Args:
        out: The output folder; all its shards are committed.
        show: Called after each few rows with how many files are done, and how many there are.

    Returns:
        How many files were published.

    Raises:
        SentrayError: When a staged file is damaged or the folder cannot be written.
    """
    header = out.stored().header
    if header.rows_per_file is None:
        return 0
    groups, log = list(_groups(_staged(out), header.rows_per_file)), out.compactions()
    for done, (partition, members) in enumerate(groups):
        name = part_name(members[0][0], header.bundle, partition=partition)
        staged = [part_name(shard, header.bundle, staged=True, partition=partition) for shard, _ in members]
        schema = _schema(out, staged[0])
        log.add(Compacted(_concatenate(out, name, staged, schema, partial(show, done, len(groups))), members))
        log.flush(only_if_due=True)
    log.flush()
    # Only now: until the log is written the staged files are the ones that count.
    out.delete(STAGED)
    return len(groups)


def compact_quarantine(out: OutputFolder, show: Callable[[], None] = lambda: None) -> int:
    """Write the rows that all shards set aside as `quarantine.parquet`, in the input's order; gives their number.

    Args:
        out: The output folder; all its shards are committed.
        show: Called after each few rows.

    Raises:
        SentrayError: When a shard's quarantined rows are damaged or the folder cannot be written.
    """
    shards = array("q", (record.shard for record in out.records() if record.quarantine))
    parts = map(quarantine_name, sorted(shards))
    return _concatenate(out, QUARANTINE, parts, QUARANTINE_SCHEMA, show).rows


def read_part(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of a file of the output, all columns where none are named.

    Raises:
        SentrayError: When it is gone or damaged.
    """
    with _opened(folder, name) as file:
        return file.read(columns)


def _schema(folder: Folder, name: str) -> pa.Schema:
    with _opened(folder, name) as file:
        return file.schema_arrow


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    try:
        with folder.open_file(name) as stream:
            yield pq.ParquetFile(stream)
    except (OSError, pa.ArrowException) as error:
        raise folder.damaged(name, error, "delete it and run the same command again") from error


def _staged(out: OutputFolder) -> Iterator[tuple[str, Members]]:
    """The staged parts that are in no published file, in the shards' order, with their partition.

    What has a published shard of its partition in between comes apart: in one file it would break the order.
    """
    there = out.files()
    published, shards = out.published(there), out.stored().shards
    # A million shards must not become a million objects.
    found: dict[str, array[int]] = {}
    for record in out.records(there):
        for part in record.parts:
            partition = partition_of(part.name)
            if partition not in published or not published[partition][record.shard]:
                found.setdefault(partition, array("q")).extend((record.shard, part.rows))
    for partition in sorted(found):
        parts = np.array(found[partition]).reshape(-1, 2)
        parts = parts[parts[:, 0].argsort()]
        before = np.cumsum(np.frombuffer(published.get(partition, bytearray(shards)), np.uint8), dtype=np.int64)
        apart = np.flatnonzero(np.diff(before[parts[:, 0]])) + 1
        yield from ((partition, run) for run in np.split(parts, apart.tolist()))


def _groups(staged: Iterable[tuple[str, Members]], rows_per_file: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Shard and rows of the parts that come together, with their partition."""
    for partition, parts in staged:
        first = rows = 0
        for index, more in enumerate(parts[:, 1].tolist()):
            if index > first and rows + more > rows_per_file:
                yield partition, _pairs(parts[first:index])
                first, rows = index, 0
            rows += more
        yield partition, _pairs(parts[first:])


def _pairs(parts: Members) -> list[tuple[int, int]]:
    return [(shard, rows) for shard, rows in parts.tolist()]


def _concatenate(
    out: OutputFolder, name: str, parts: Iterable[str], schema: pa.Schema, show: Callable[[], None]
) -> Part:
    """Write the rows of files one after another into one."""
    rows = 0
    with out.create(name) as output, pq.ParquetWriter(output, schema, **parquet_options(schema)) as writer:
        for table in _row_groups(read_part(out, part) for part in parts):
            writer.write_table(table, row_group_size=ROW_GROUP)
            rows += table.num_rows
            show()
        # The file's end is written when the writer is closed.
        writer.close()
        return Part(name, rows, output.bytes, output.sha256)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `ROW_GROUP` rows or a multiple, but for the last."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        if rows >= ROW_GROUP:
            joined = pa.concat_tables(held)
            rows %= ROW_GROUP
            yield joined.slice(0, joined.num_rows - rows)
            held = [joined.slice(joined.num_rows - rows)]
    if rows:
        yield pa.concat_tables(held)
