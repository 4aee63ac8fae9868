"""What a scoring process does with a shard: read it, score it, write its files, account for its rows."""

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import __version__
from sentray.config import ScoreSettings
from sentray.corpus.duplicates import Rows, mark_duplicates
from sentray.corpus.readers import OnUnreadable, read_shard
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, mark
from sentray.corpus.source import Source
from sentray.corpus.splits import Shard
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer, Scores, unpacked_scorer
from sentray.lease import Fence
from sentray.scoring.compaction import ROW_GROUP
from sentray.scoring.counts import Counts
from sentray.scoring.held import Held
from sentray.scoring.ledger import Ledger, parquet_options, partition_folder
from sentray.scoring.pool import WORKER_CPUS
from sentray.scoring.reading import ShardReader, UnreadableError
from sentray.scoring.records import Part, Record

MAX_PARTITIONS = 1000
_LONGEST_NAME = 255
"""Bytes that file systems give a folder's name."""
T = TypeVar("T")


def output_schema(labels: tuple[str, ...], kept: pa.Schema, digest: str) -> pa.Schema:
    """Columns of the output: the same for every file that a bundle writes from an input.

    Args:
        labels: The bundle's labels; two of them get the column `positive`, the probability of the second.
        kept: Columns of the input that are passed through.
        digest: The bundle's digest, noted in the metadata beside sentray's version.

    Raises:
        SentrayError: When a kept column has the name of one of ours.
    """
    positive = [pa.field("positive", pa.float32())] if len(labels) == 2 else []
    own = [
        pa.field("id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        *positive,
        pa.field("words", pa.int32()),
        pa.field("known_words", pa.int32()),
    ]
    taken = {column.name for column in own}
    if clash := [name for name in kept.names if name in taken]:
        raise SentrayError(
            f"--keep {clash[0]} would hide the output's own column {clash[0]}; rename the input's column"
        )
    return pa.schema([*own, *kept], {"sentray.bundle": digest, "sentray.version": __version__})


def own_columns(ids: pa.ChunkedArray, scores: Scores, labels: tuple[str, ...]) -> list[Any]:
    """The columns of `output_schema` but the kept ones, for scored rows."""
    positive = [scores.probabilities[:, 1]] if len(labels) == 2 else []
    label = pa.array(labels, pa.string()).take(pa.array(scores.classes))
    return [ids, label, scores.best, *positive, scores.words, scores.known]


@dataclass(frozen=True)
class Job:
    """All that a worker must know: it needs neither the driver's folders nor its memory.

    Attributes:
        source: Where the shards lie.
        settings: What the user asked for: columns of the input, columns to keep, engine.
        schema: Columns of the output, the kept ones last; a file lacks the one that the output is partitioned by.
        ledger: The output folder.
        engine: Name of the engine, chosen.
        digest: The bundle's digest.
        fence: Whether the ledger is still the run's; a task names the owner that counts.
    """

    source: Source
    settings: ScoreSettings
    schema: pa.Schema
    ledger: Ledger
    engine: str
    digest: str
    fence: Fence


@dataclass(frozen=True)
class Task:
    """A shard to score.

    Attributes:
        shard: The shard.
        owner: Under which id the run holds its lease as long as files of this attempt count.
        duplicates: Those of its rows whose id an earlier row has.
        crashes: Those of its rows that kill the process which scores them, by their place in the shard from 0.
        ids_unread: Whether not all ids could be read when duplicates were looked for.
    """

    shard: Shard
    owner: str
    duplicates: Rows = field(default_factory=dict)
    crashes: tuple[int, ...] = ()
    ids_unread: bool = False


class ShardScorer(ShardReader):
    """Scores shards; the worker of the pool.

    Args:
        job: What to do.
        files: The packed bundle.
    """

    def __init__(self, job: Job, files: dict[str, bytes]) -> None:
        super().__init__(job.source, job.settings)
        pa.set_cpu_count(WORKER_CPUS)
        self._job = job
        self._scorer = self._load(files)

    def score(self, task: Task) -> Record:
        """Score a shard and write its files; gives the record that commits it.

        A file of an object store that cannot be read is tried again, as the store may be busy. What cannot be read
        then is set aside.
        """
        return self._persist(partial(self._score, task))

    def count(self, task: Task) -> int:
        """Read a shard and do no more; gives its rows."""
        return sum(table.num_rows for table in self._rows(task, "quarantine"))

    def probe(self, item: tuple[Task, int, int]) -> None:
        """Score the rows of a shard from one place to another and keep nothing: the process dies of it or not."""
        task, start, stop = item
        place = 0
        for table in self._rows(task, "quarantine"):
            places = np.arange(place, place + table.num_rows)
            chosen = pc.and_(pc.is_null(table["reason"]), pa.array((places >= start) & (places < stop)))
            texts = table["text"].filter(chosen)
            if len(texts):
                self._scorer.score(texts)
            place += table.num_rows

    def _load(self, files: dict[str, bytes]) -> Scorer:
        return unpacked_scorer(files, self._job.engine, WORKER_CPUS)

    def _score(self, task: Task, on_unreadable: OnUnreadable) -> Record:
        with Held(self._job.schema) as scored, Held(QUARANTINE_SCHEMA) as set_aside:
            return self._score_into(scored, set_aside, task, on_unreadable)

    def _score_into(self, scored: Held, set_aside: Held, task: Task, on_unreadable: OnUnreadable) -> Record:
        job, shard, started = self._job, task.shard, time.perf_counter()
        counts = Counts(bytes=shard.bytes)
        for rows in self._rows(task, on_unreadable):
            good = rows
            if rows["reason"].null_count < rows.num_rows:
                good, bad = rows.filter(pc.is_null(rows["reason"])), rows.filter(pc.is_valid(rows["reason"]))
                counts.add_bad(bad["reason"])
                set_aside.add(bad.select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA))
            if good.num_rows:
                scored.add(self._table(good, counts))
        if task.ids_unread and not counts.quarantined[Reason.UNREADABLE_FILE]:
            raise SentrayError(
                f"{shard.pieces[0].path} (or a file that is read with it) could not be read at first and now can, so "
                "that its ids are not compared with the others; run the same command again to go on"
            )
        self._require_run(task)
        parts = tuple(self._parts(task, scored.table()))
        bad = set_aside.table()
        quarantine = None
        if bad.num_rows:
            quarantine = self._put(task, job.ledger.quarantine_name(shard.index), bad)
            counts.unread_bytes = self._unread_bytes(shard, bad)
        counts.seconds = round(time.perf_counter() - started, 3)
        counts.peak_rss_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        return Record(shard.index, parts, quarantine, counts.to_json())

    def _rows(self, task: Task, on_unreadable: OnUnreadable) -> Iterator[pa.Table]:
        """The shard's rows, those to set aside marked."""
        settings, place = self._job.settings, 0
        tables = read_shard(self._job.source, task.shard, settings, keep=settings.keep, on_unreadable=on_unreadable)
        try:
            # Threads of one process share its CPU, so that reading ahead only pays where reading is waiting.
            for table in _ahead(tables) if self._pauses else tables:
                rows = mark_duplicates(table, task.duplicates)
                if task.crashes:
                    places = np.arange(place, place + rows.num_rows)
                    rows = mark(rows, np.isin(places, task.crashes), Reason.CRASH)
                place += rows.num_rows
                yield rows
        except SentrayError as error:
            if on_unreadable == "raise":
                raise UnreadableError from error
            raise

    def _table(self, rows: pa.Table, counts: Counts) -> pa.Table:
        """Score good rows: the output's columns of them."""
        scores, labels = self._scorer.score(rows["text"]), self._scorer.bundle.labels
        counts.add_scores(scores, labels)
        kept = [self._cast(rows, name) for name in self._job.settings.keep]
        return pa.table([*own_columns(rows["id"], scores, labels), *kept], schema=self._job.schema)

    def _cast(self, rows: pa.Table, name: str) -> pa.ChunkedArray:
        wanted = self._job.schema.field(name).type
        try:
            return rows[name].cast(wanted)
        except pa.ArrowException as error:
            raise SentrayError(
                f"the column {name} of {rows['file'][0]} is {rows[name].type} and does not fit {wanted}, its "
                "type in the input's first files; give it one type in all files, or leave out --keep"
            ) from error

    def _parts(self, task: Task, scored: pa.Table) -> Iterator[Part]:
        """Write the scores of a shard: one file, or one for each value of the column to partition by."""
        job, shard, column = self._job, task.shard, self._job.settings.partition_by
        staged = job.settings.rows_per_file is not None
        if column is None:
            name = job.ledger.part_name(shard.index, job.digest, staged)
            yield self._put(task, name, scored)
            return
        encoded = scored[column].combine_chunks().dictionary_encode("encode")
        # Two values may share a folder: null and the empty string do.
        folders = [partition_folder(column, value.as_py()) for value in encoded.dictionary]
        names = sorted(set(folders))
        if len(names) > MAX_PARTITIONS:
            raise too_many_partitions(scored.num_rows, len(names), column)
        if long := [name for name in names if len(name) > _LONGEST_NAME]:
            raise SentrayError(
                f"a value of {column} makes a folder's name of {len(long[0])} bytes ({long[0][:40]}…), more than the "
                f"{_LONGEST_NAME} that file systems take; choose a column of short values for --partition-by"
            )
        places = np.array([names.index(folder) for folder in folders], np.int64)[encoded.indices.to_numpy()]
        rest = scored.drop_columns([column])
        for place, folder in enumerate(names):
            name = job.ledger.part_name(shard.index, job.digest, staged, folder)
            yield self._put(task, name, rest.take(np.flatnonzero(places == place)))

    def _put(self, task: Task, name: str, rows: pa.Table) -> Part:
        """Put a file into the output, unless the run is over.

        A process that nobody can reach any more, or that outlives the node's raylet, works on while its shard is
        scored elsewhere. It must not change what is finished, an hour later: its rows may have other last digits,
        computed by another processor, or be fewer, where it could not read all.
        """
        with self._job.ledger.create(name) as output:
            pq.write_table(rows, output, ROW_GROUP, **parquet_options(rows.schema))
            self._require_run(task)
        return Part(name, rows.num_rows, output.bytes, output.sha256)

    def _require_run(self, task: Task) -> None:
        if why := replace(self._job.fence, owner=task.owner).broken():
            raise SentrayError(why)

    def _unread_bytes(self, shard: Shard, bad: pa.Table) -> int:
        """About how much of the shard was not read, as stored."""
        unread = pc.equal(bad["reason"], Reason.UNREADABLE_FILE)
        names = set(bad["file"].filter(unread).to_pylist())
        if not names:
            return 0
        read = [piece for piece in shard.pieces if piece.name not in names]
        if not read:
            return shard.bytes
        system = self._job.source.filesystem
        # The sizes of those that were read: one that cannot be may be gone. A row group's is not told.
        if system is None or (shard.format == "parquet" and any(piece.stop is not None for piece in read)):
            return shard.bytes * (len(shard.pieces) - len(read)) // len(shard.pieces)
        infos = system.get_file_info([piece.path for piece in read])
        ends = [info.size or 0 if piece.stop is None else piece.stop for piece, info in zip(read, infos, strict=True)]
        return max(0, shard.bytes - sum(ends) + sum(piece.start for piece in read))


def too_many_partitions(rows: int, values: int, column: str) -> SentrayError:
    """The sentence for a column whose values would make too many folders."""
    return SentrayError(
        f"{rows:,} rows hold {values:,} values of {column}, and --partition-by makes a folder of each; choose a column "
        f"of at most {MAX_PARTITIONS:,} values"
    )


def _ahead(values: Iterator[T]) -> Iterator[T]:
    """The values, each made in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, values, None)
        while (value := coming.result()) is not None:
            coming = thread.submit(next, values, None)
            yield value
