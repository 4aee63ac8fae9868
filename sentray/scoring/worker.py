"""What a worker process does with a shard: `ShardScorer` reads it, scores it, writes an attempt and counts its rows."""

import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray.config import ScoreSettings
from sentray.corpus.duplicates import Ids, Rows, mark_duplicates
from sentray.corpus.readers import OnUnreadable, read_ids, read_shard
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, kept_name, mark, numbers_of, set_aside
from sentray.corpus.source import Source
from sentray.corpus.splits import Shard
from sentray.errors import SentrayError
from sentray.inference.heaviest import Heaviest
from sentray.inference.scorer import Scorer, Scores, unpacked_scorer
from sentray.scoring.by import bounded
from sentray.scoring.columns import own_columns
from sentray.scoring.drift import reference_of
from sentray.scoring.output import Attempt, Record
from sentray.scoring.parts import PartFile, attempt_name, part_name, partition_folder, quarantine_name
from sentray.scoring.stats import MAX_PARTITIONS, WORKER_CPUS, Counts, too_many_partitions
from sentray.storage import Folder, read_pauses

MAX_HELD_BYTES = 1 << 27
"""Of rows that wait for their row group, in all partitions together; wide rows make smaller groups."""
SAMPLE_ROWS = 10_000
"""So many rows of a shard are scored at most to estimate how long a job takes."""
_MAX_NAME_BYTES = 255
"""Bytes that file systems give a folder's name."""
T = TypeVar("T")
Indices = npt.NDArray[np.int64]


class UnreadableError(Exception):
    """A shard could not be read; another attempt may help."""


@dataclass(frozen=True)
class Job:
    """All that a worker must know: it needs neither the driver's folders nor its memory.

    Attributes:
        source: Where the shards lie.
        settings: What the user asked for: columns of the input, columns to keep.
        schema: Columns of the output, the kept ones last; a file lacks the one that the output is partitioned by.
        engine: Name of the engine, chosen.
        digest: The bundle's digest.
        kept: The kept columns: by their names in the output those in the input.
    """

    source: Source
    settings: ScoreSettings
    schema: pa.Schema
    engine: str
    digest: str
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A shard to score.

    Attributes:
        shard: The shard.
        duplicates: Those of its rows whose id an earlier row has.
        crashes: Those of its rows that kill the process which scores them, by their index in the shard from 0.
        ids_unread: Names of the files whose ids could not all be read when duplicates were looked for.
        isolated: Whether its files are first read in a process of their own, since they may kill their reader.
    """

    shard: Shard
    duplicates: Rows = field(default_factory=dict)
    crashes: tuple[int, ...] = ()
    ids_unread: frozenset[str] = frozenset()
    isolated: bool = False


class ShardScorer:
    """Scores shards in a worker process; each of its methods takes an item of `Tasks.map`.

    Args:
        job: What to do.
        files: The packed bundle.
    """

    def __init__(self, job: Job, files: dict[str, bytes]) -> None:
        pa.set_cpu_count(WORKER_CPUS)
        self._job, self._out = job, Folder(job.settings.out)
        self._pauses = read_pauses(job.source.filesystem)
        self._scorer, wanted = self._load(files), job.settings.explain
        self._heaviest = Heaviest(self._scorer, wanted) if wanted else None
        by = job.settings.by
        self._by = by and job.kept.get(by, by)
        reference = reference_of(self._scorer.bundle)
        self._span = None if reference is None else reference.span

    def ids(self, task: Task) -> tuple[int, list[Ids], frozenset[str]]:
        """The shard's index, hashes of the ids that a column gives its rows, and the files that could not be read."""

        def read(on_unreadable: OnUnreadable) -> tuple[int, list[Ids], frozenset[str]]:
            unread: set[str] | None = None if on_unreadable == "raise" else set()
            try:
                blocks = list(read_ids(self._job.source, task.shard, self._job.settings, unread, task.isolated))
            except SentrayError as error:
                raise UnreadableError from error
            return task.shard.index, blocks, frozenset(unread or ())

        return self._persist(read)

    def score(self, task: Task) -> Attempt:
        """Score a shard and write its files; gives the attempt to be committed.

        A file of an object store that cannot be read is tried again, as the store may be busy. What cannot be read
        then is set aside.
        """
        return self._persist(partial(self._score, task))

    def probe(self, item: tuple[Task, int, int]) -> int:
        """Score the rows of a shard from one index to another and keep nothing: the process dies of it or not.

        Returns:
            How many rows the shard has.
        """
        task, start, stop = item
        index = 0
        for table in self._rows(task, "quarantine"):
            indices = np.arange(index, index + table.num_rows)
            chosen = pc.and_(pc.is_null(table["reason"]), pa.array((indices >= start) & (indices < stop)))
            some = table.filter(chosen)
            if len(some):
                self._scored(some)
            index += table.num_rows
        return index

    def sample(self, task: Task) -> tuple[int, float]:
        """Score the first rows of a shard and keep nothing: how many, and about the seconds for all of the shard."""
        began, scoring, scored, rows = time.perf_counter(), 0.0, 0, 0
        for table in self._rows(task, "quarantine"):
            rows += table.num_rows
            good = table.filter(pc.is_null(table["reason"]))
            if len(good) and scored < SAMPLE_ROWS:
                before = time.perf_counter()
                self._scored(good)
                scoring += time.perf_counter() - before
                scored += table.num_rows
        reading = time.perf_counter() - began - scoring
        return scored, reading + scoring * rows / max(1, scored)

    def _scored(self, rows: pa.Table) -> tuple[Scores, list[pa.Array]]:
        """Scores of good rows, and the column `explained` where it is wanted."""
        texts, numbers = rows["text"], numbers_of(rows, self._scorer.bundle.spec.columns)
        if self._heaviest is None:
            return self._scorer.score(texts, numbers), []
        scores, words = self._heaviest.score(texts, numbers)
        return scores, [words]

    def _load(self, files: dict[str, bytes]) -> Scorer:
        return unpacked_scorer(files, self._job.engine, WORKER_CPUS, self._job.settings.trust_model)

    def _persist(self, read: Callable[[OnUnreadable], T]) -> T:
        """Read a shard, again where an object store fails; at last what cannot be read is set aside."""
        for pause in self._pauses:
            try:
                return read("raise")
            except UnreadableError:
                time.sleep(pause)
        return read("quarantine")

    def _score(self, task: Task, on_unreadable: OnUnreadable) -> Attempt:
        job, shard, started = self._job, task.shard, time.perf_counter()
        counts = Counts.none()
        counts.bytes = shard.bytes
        unread: set[str] = set()
        with (
            _Files(self._out, job, shard.index) as scored,
            _attempt(self._out, quarantine_name(shard.index), QUARANTINE_SCHEMA) as quarantine,
        ):
            for rows in self._rows(task, on_unreadable):
                good = rows
                if rows["reason"].null_count < rows.num_rows:
                    good, bad = rows.filter(pc.is_null(rows["reason"])), set_aside(rows, job.settings.excerpts)
                    counts.add_bad(bad["reason"])
                    quarantine.add(bad)
                    unread.update(bad["file"].filter(pc.equal(bad["reason"], Reason.UNREADABLE_FILE)).to_pylist())
                if good.num_rows:
                    scored.add(self._table(good, counts))
            if back := task.ids_unread - unread:
                raise SentrayError(
                    f"{min(back)} could not be read at first and now can, so that its ids are not compared with the "
                    "others; run the same command again to go on"
                )
        counts.by = bounded(counts.by)
        counts.unread_bytes = sum(piece.bytes for piece in shard.pieces if piece.name in unread)
        counts.seconds = round(time.perf_counter() - started, 3)
        counts.peak_rss_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        written = [*scored.written, quarantine] if quarantine.rows else scored.written
        parts = tuple(file.part for file in scored.written)
        record = Record(shard.index, parts, quarantine.part if quarantine.rows else None, counts)
        return Attempt(record, tuple(file.path for file in written))

    def _rows(self, task: Task, on_unreadable: OnUnreadable) -> Iterator[pa.Table]:
        """The shard's rows, those to set aside marked."""
        settings, index = self._job.settings, 0
        tables = read_shard(
            self._job.source,
            task.shard,
            settings,
            keep=tuple(dict.fromkeys([*self._job.kept.values(), *filter(None, [self._by])])),
            on_unreadable=on_unreadable,
            isolated=task.isolated,
        )
        try:
            # Threads of one process share its CPU, so that reading ahead only pays where reading is waiting. The memory
            # that reading Parquet may take is the process's, and scoring must not count.
            ahead = self._pauses and task.shard.format != "parquet"
            for table in _ahead(tables) if ahead else tables:
                rows = mark_duplicates(table, task.duplicates)
                if task.crashes:
                    indices = np.arange(index, index + rows.num_rows)
                    rows = mark(rows, np.isin(indices, task.crashes), Reason.CRASH)
                index += rows.num_rows
                yield rows
        except SentrayError as error:
            if on_unreadable == "raise":
                raise UnreadableError from error
            raise

    def _table(self, rows: pa.Table, counts: Counts) -> pa.Table:
        """Score good rows: the output's columns of them."""
        (scores, explained), labels = self._scored(rows), self._scorer.bundle.labels
        counts.add_scores(scores, labels, rows[kept_name(self._by) if self._by else "file"], self._span)
        own = [*own_columns(rows["id"], scores, labels, self._job.settings.scores == "all"), *explained]
        kept = [self._cast(rows, name, column) for name, column in self._job.kept.items()]
        return pa.table([*own, *kept], schema=self._job.schema)

    def _cast(self, rows: pa.Table, name: str, column: str) -> pa.ChunkedArray:
        wanted, found = self._job.schema.field(name).type, rows[kept_name(column)]
        try:
            return found.cast(wanted)
        except pa.ArrowException as error:
            raise SentrayError(
                f"the column {column} of {rows['file'][0]} is {found.type} and does not fit {wanted}, its "
                "type in the input's first files; give it one type in all files, or leave out --keep"
            ) from error


def _attempt(out: Folder, name: str, schema: pa.Schema, empty: bool = False) -> PartFile:
    return PartFile(out, attempt_name(name.rpartition("/")[2]), name, schema, empty)


class _Files(ExitStack):
    """The files of scores of an attempt: one, or one for each value of the column to partition by.

    Args:
        out: The output folder.
        job: What the output is like.
        shard: Index of the shard.
    """

    def __init__(self, out: Folder, job: Job, shard: int) -> None:
        super().__init__()
        self._out, self._job, self._shard = out, job, shard
        self._column = job.settings.partition_by
        self._schema = job.schema
        self._files: dict[str, PartFile] = {}
        if self._column is None:
            self._file("")
        else:
            self._schema = self._schema.remove(self._schema.get_field_index(self._column))

    @property
    def written(self) -> list[PartFile]:
        """The files, in the order of their partitions' names."""
        return [self._files[partition] for partition in sorted(self._files)]

    def add(self, rows: pa.Table) -> None:
        """Append scored rows, each to the file of its partition.

        Raises:
            SentrayError: When the column makes too many folders, or a folder with too long a name.
        """
        if self._column is None:
            self._file("").add(rows)
        else:
            column = rows[self._column].combine_chunks().dictionary_encode("encode")
            # Two values may share a folder: null and the empty string do.
            folders = [partition_folder(self._column, value.as_py()) for value in column.dictionary]
            rest = rows.drop_columns([self._column])
            for folder, which in self._chosen(folders, column.indices.to_numpy()):
                self._file(folder).add(rest.take(which))
        while sum(file.held_bytes for file in self._files.values()) > MAX_HELD_BYTES:
            max(self._files.values(), key=lambda file: file.held_bytes).flush()

    def _chosen(self, folders: list[str], indices: Indices) -> Iterator[tuple[str, Indices]]:
        """Each folder with its rows, in their order."""
        names = sorted(set(folders))
        known = len(self._files.keys() | set(names))
        if known > MAX_PARTITIONS:
            rows = len(indices) + sum(file.rows for file in self._files.values())
            raise too_many_partitions(rows, known, str(self._column))
        if long := [name for name in names if len(name) > _MAX_NAME_BYTES]:
            raise SentrayError(
                f"a value of {self._column} makes a folder's name of {len(long[0])} bytes ({long[0][:40]}…), more than "
                f"the {_MAX_NAME_BYTES} that file systems take; choose a column of short values for --partition-by"
            )
        of_row = np.array([names.index(folder) for folder in folders], np.int64)[indices]
        for index, folder in enumerate(names):
            yield folder, np.flatnonzero(of_row == index)

    def _file(self, partition: str) -> PartFile:
        if partition not in self._files:
            name = part_name(self._shard, self._job.digest, self._job.settings.rows_per_file is not None, partition)
            self._files[partition] = self.enter_context(
                _attempt(self._out, name, self._schema, empty=self._column is None)
            )
        return self._files[partition]


def _ahead(values: Iterator[T]) -> Iterator[T]:
    """The values, each made in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, values, None)
        while (value := coming.result()) is not None:
            coming = thread.submit(next, values, None)
            yield value
