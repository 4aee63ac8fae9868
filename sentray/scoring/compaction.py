"""Compaction: few files of a good size from those of many shards, and one file of all quarantined rows."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pyarrow as pa

from sentray.corpus.rows import QUARANTINE_FILE, QUARANTINE_SCHEMA
from sentray.scoring.output import COMPACTIONS, Compacted, Log, OutputFolder
from sentray.scoring.parts import (
    STAGED,
    Part,
    PartFile,
    open_part,
    part_name,
    partition_of,
    quarantine_name,
    read_part,
    read_quarantine,
)

Members = list[tuple[int, int]]
"""Shards and how many rows each has in a partition."""


def compact(out: OutputFolder, show: Callable[[int, int], None] = lambda done, files: None) -> int:
    """Publish staged scores as files of about `rows_per_file` rows, in the input's order; see `--rows-per-file`.

    Which shards come together depends on their rows alone, and a file is named by its first shard. So a run that was
    killed here goes on with the same files.

    Args:
        out: The output folder; all its shards are committed.
        show: Called after each shard with how many files are done, and how many there are.

    Returns:
        How many files were published.

    Raises:
        SentrayError: When a staged file is damaged or the folder cannot be written.
    """
    header = out.stored().header
    if header.rows_per_file is None:
        return 0
    groups, log = list(_groups(out, header.rows_per_file)), Log(out, COMPACTIONS)
    for done, (partition, members) in enumerate(groups):
        name = part_name(members[0][0], header.bundle, partition=partition)
        staged = [part_name(shard, header.bundle, staged=True, partition=partition) for shard, _ in members]
        with open_part(out, staged[0]) as file:
            schema = file.schema_arrow
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
        show: Called after each shard.

    Raises:
        SentrayError: When a shard's quarantined rows are damaged or the folder cannot be written.
    """
    shards = sorted(record.shard for record in out.records() if record.quarantine)
    return _concatenate(out, QUARANTINE_FILE, map(quarantine_name, shards), QUARANTINE_SCHEMA, show).rows


def _groups(out: OutputFolder, rows_per_file: int) -> Iterator[tuple[str, Members]]:
    """The parts that come together, with their partition: neighbours that are in no published file.

    What has a published shard in between comes apart: in one file it would break the order.
    """
    there = out.files()
    published = out.published(there)
    found: dict[str, Members] = {}
    for record in out.records(there):
        for part in record.parts:
            found.setdefault(partition_of(part.name), []).append((record.shard, part.rows))
    for partition in sorted(found):
        members, size = Members(), 0
        for shard, rows in sorted(found[partition]):
            is_published = shard in published.get(partition, ())
            if members and (is_published or size + rows > rows_per_file):
                yield partition, members
                members, size = [], 0
            if not is_published:
                members.append((shard, rows))
                size += rows
        if members:
            yield partition, members


def _concatenate(
    out: OutputFolder, name: str, parts: Iterable[str], schema: pa.Schema, show: Callable[[], None]
) -> Part:
    """Write the rows of files one after another into one."""
    read = read_quarantine if schema is QUARANTINE_SCHEMA else read_part
    with PartFile(out, name, name, schema, empty=True) as file:
        for part in parts:
            file.add(read(out, part))
            show()
    return file.part
