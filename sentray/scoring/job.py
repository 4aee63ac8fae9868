"""The scoring job, from top to bottom: `score` plans the shards, has them scored, commits them, counts every row."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sentray import __version__, bundle, cluster, tables
from sentray.bundle import Bundle
from sentray.config import SETTINGS_FILE, ScoreSettings, settings_text
from sentray.console import Console, count
from sentray.corpus.duplicates import Ids, Rows, find_duplicates
from sentray.corpus.readers import WITH_COLUMNS, read_shard
from sentray.corpus.rows import QUARANTINE_FILE, TABLE_BYTES, Reason
from sentray.corpus.sandbox import memory_explained
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Shard, ShardPlan, plan_shards
from sentray.errors import SentrayError
from sentray.inference.engines import KerasEngine, choose
from sentray.inference.scorer import Scorer
from sentray.lease import Lease
from sentray.scoring import tasks
from sentray.scoring.columns import kept_columns, output_schema
from sentray.scoring.compaction import compact, compact_quarantine
from sentray.scoring.output import SCORES, SUMMARY, Commits, Header, OutputFolder, Record
from sentray.scoring.stats import WORKER_CPUS, Progress, Stats
from sentray.scoring.tasks import MAX_CRASHES, RETRIES, Lost, Tasks, score_without_crashes
from sentray.scoring.worker import Job, ShardScorer, Task
from sentray.telemetry import Telemetry

_PROCESS_MB = {KerasEngine.name: 1000}
_LIGHT_PROCESS_MB = 300
"""Memory of a worker beside the bundle and the tables of rows, about."""
SAMPLE_ROWS = 10_000
"""So many rows of a shard are scored at most to estimate how long a job takes."""
_SPEED = ("workers", "start_seconds", "start_ray_seconds", "start_workers_seconds", "seconds", "rows_per_s", "mb_per_s")
"""Keys of the summary that a run without a shard to score leaves None."""

Summary = dict[str, Any]


def score(settings: ScoreSettings, console: Console) -> Summary:
    """Score every review of an input, shard by shard, into Parquet; the same call again goes on where it was.

    Args:
        settings: What to score with what, and where to.
        console: Where to say what happens.

    Returns:
        The summary that is also written as `summary.json`: rows in, scored and quarantined, what the scores look
        like, how fast it went. Of a dry run the estimate, see `estimate`.

    Raises:
        SentrayError: When the bundle, the input or the output cannot be used, or too many rows are bad.
    """
    console.expect(f"the bundle {settings.bundle} and the plan of {settings.input}")
    model = bundle.load(settings.bundle)
    engine = _engine(settings, model)
    source, out = resolve(settings.input), OutputFolder(settings.out)
    schema = output_schema(model.labels, kept_columns(source, settings), model.digest)
    header = _header(settings, schema, model.digest, engine)
    if settings.dry_run:
        return estimate(settings, console, model, header, source)
    with out.lease() as lease:
        plan = out.open(header, source, settings.new_input)
        stats = Stats(plan, settings)
        stats.reset(out.records())
        summary = out.summary()
        if summary is not None and not stats.missing and QUARANTINE_FILE in out.names():
            console.say(f"{settings.out} is finished: {_in_and_out(summary)}; nothing to do")
            return summary
        out.delete(SUMMARY)
        out.write(SETTINGS_FILE, settings_text(settings).encode())
        # Files that could not be read may be back: unless the job ended without them, or part of it is published.
        heals = summary is None and not out.published() and bool(out.withdraw(_has_unread))
        if heals:
            stats.reset(out.records())
        _describe(source, plan, stats.committed, console)
        speed: Summary = dict.fromkeys(_SPEED)
        if stats.missing:
            job = Job(source.lean(), settings, schema, engine, model.digest)
            speed |= Run(job, out, plan, stats, lease, console, heals).work(ShardScorer, model.files, source)
            _require_unchanged(out, settings)
        stats.require_good_rows()
        speed["compaction_seconds"] = _compact(out, console)
        summary = {"sentray_version": __version__, "run": console.run, "bundle": model.digest, "engine": engine}
        summary |= {**stats.summary(model), "shards": len(plan), **speed}
        out.write_json(SUMMARY, summary)
    tables.scores(console, summary, model.labels)
    console.say(f"{_in_and_out(summary)} in {settings.out}/{SCORES}")
    return summary


class Run:
    """Scores the shards that are missing, and keeps count.

    Args:
        job: What the workers must know.
        out: The output folder.
        plan: All shards.
        stats: What is committed; grows.
        lease: Checked as long as the work goes on.
        console: Where to say what happens.
        heals: Whether shards were taken back because they may be read now.
    """

    def __init__(
        self, job: Job, out: OutputFolder, plan: ShardPlan, stats: Stats, lease: Lease, console: Console, heals: bool
    ) -> None:
        self._job, self._out, self._plan, self._stats, self._heals = job, out, plan, stats, heals
        self._lease, self._console = lease, console
        self._progress = Progress(console, plan, stats)
        self._telemetry = Telemetry(console.verb, console.run)

    def work(self, worker: Callable[[Job, dict[str, bytes]], Any], files: dict[str, bytes], source: Source) -> Summary:
        """Score; gives how fast it went.

        Args:
            worker: Makes what scores, a `ShardScorer`, in a worker's process.
            files: The packed bundle.
            source: What is scored, with its files.
        """
        settings, out, began = self._job.settings, self._out, time.monotonic()
        gpus = int(settings.gpu)
        self._console.expect("the Ray cluster")
        with cluster.connect(settings.address, verbose=settings.verbose):
            connected = time.monotonic()
            if out.local:
                cluster.require_shared(Path(out.path("")), f"--out {out.out}")
            if file := source.local_file:
                cluster.require_seen(file, f"the input {source.uri}")
            workers = tasks.plan_workers(settings.workers, self._stats.missing, gpus)
            self._console.say(_workers(workers, gpus, self._job.engine, files))
            make = partial(worker, self._job, files)
            with (
                Tasks(make, workers, gpus, size=_size, on_retry=self._note_retry) as self._tasks,
                Commits(out, self._committed) as self._commits,
            ):
                self._score()
            start = self._tasks.start_seconds
            seconds = max(time.monotonic() - connected - start, 1e-3)
        # Tasks that nobody waited for may have left something.
        out.delete_attempts()
        return {
            "workers": workers,
            "start_seconds": round(connected - began + start, 3),
            "start_ray_seconds": round(connected - began, 3),
            "start_workers_seconds": round(start, 3),
            "seconds": round(seconds, 3),
            "rows_per_s": round(self._progress.rows / seconds, 1),
            "mb_per_s": round(self._progress.bytes / 1e6 / seconds, 1),
        }

    def _score(self) -> None:
        duplicates, unread = self._duplicates()
        # Which row is the first of an id may have changed with what can be read now.
        if self._heals and self._out.withdraw(partial(_has_duplicates, duplicates)):
            self._stats.reset(self._out.records())
        self._progress.begin()
        missing = (
            Task(shard, duplicates.get(shard.index, {}), ids_unread=unread.get(shard.index, frozenset()))
            for shard in self._plan
            if not self._stats.done[shard.index]
        )
        lost: list[Task] = []
        for result in self._tasks.map("score", missing, tick=self._tick):
            if not isinstance(result, Lost):
                self._commits.add(result)
                continue
            lost.append(result.item)
            if len(lost) > MAX_CRASHES:
                raise SentrayError(tasks.died(len(lost), result.deaths))
        for task in lost:
            line = f"processes that scored {tasks.files_of(task.shard)} died; looking for the rows to blame"
            self._note_retry(task, "killing_rows", line)
            self._commits.add(score_without_crashes(self._tasks, task, self._tick))

    def _duplicates(self) -> tuple[dict[int, Rows], dict[int, frozenset[str]]]:
        """Rows whose id an earlier row has, and files of which not all ids were read, by the index of their shard.

        Ids that are made of file and row cannot occur twice, so formats without columns are not read.

        Raises:
            SentrayError: When a file whose rows are scored and committed cannot be read now.
        """
        if self._job.source.format not in WITH_COLUMNS:
            return {}, {}
        found: dict[int, list[Ids]] = {}
        unread: dict[int, frozenset[str]] = {}

        def show() -> None:
            self._lease.check()
            self._progress.show_ids(len(found), self._moved())

        def add(result: tuple[int, list[Ids], frozenset[str]]) -> None:
            index, found[result[0]], files = result
            if files:
                unread[index] = files
            show()

        lost: list[Task] = []
        for result in self._tasks.map("ids", map(Task, self._plan), retries=RETRIES, tick=show):
            if isinstance(result, Lost):
                lost.append(result.item)
            else:
                add(result)
        for task in lost:
            result = next(self._tasks.map("ids", [replace(task, isolated=True)], retries=RETRIES, tick=show))
            if isinstance(result, Lost):
                raise SentrayError(tasks.reading_kills(task.shard))
            add(result)
        self._require_committed_ids(unread)
        self._console.expect("the comparison of the ids")

        def in_order() -> Iterator[tuple[int, str, Any, Any]]:
            for index in sorted(found):
                for block in found.pop(index):
                    yield index, *block

        return find_duplicates(in_order()), unread

    def _require_committed_ids(self, unread: Mapping[int, frozenset[str]]) -> None:
        """Rows that are committed must lend their ids, or later rows with the same ones would be scored too."""
        committed = {index for index in unread if self._stats.done[index]}
        for record in self._out.records() if committed else ():
            if record.shard in committed and not _has_unread(record):
                raise SentrayError(
                    f"{min(unread[record.shard])} was scored and cannot be read now, so that other rows' ids cannot be "
                    "compared with its own; make it readable and run the same command again to go on"
                )

    def _committed(self, record: Record) -> None:
        counts = record.counts
        self._stats.add(record)
        self._telemetry.commit(counts)
        fields = {name: getattr(counts, name) for name in ("rows", "scored", "quarantined", "bytes", "seconds")}
        self._console.event(f"shard {record.shard} committed", shard=record.shard, **fields)
        self._progress.show()
        self._stats.require_good_rows()
        self._stats.require_few_partitions()

    def _note_retry(self, item: Shard | Task | tuple[Task, int, int], reason: str, line: str) -> None:
        self._telemetry.retry(reason)
        shard = _shard(item).index
        self._console.note(f"shard {shard}: {line}", shard=shard, reason=reason)

    def _moved(self) -> bool:
        """Whether the tasks went on since this was asked before; if not, the console notes what is awaited."""
        moved = self._tasks.moved()
        if not moved:
            self._console.expect(self._tasks.expected(lambda item: f"a shard of {tasks.files_of(_shard(item))}"))
        return moved

    def _tick(self) -> None:
        self._lease.check()
        self._commits.poll()
        self._progress.show(self._moved())


def _shard(item: Shard | Task | tuple[Task, int, int]) -> Shard:
    """The shard of an item that the worker's methods take."""
    first = item[0] if isinstance(item, tuple) else item
    return first if isinstance(first, Shard) else first.shard


def _size(item: Shard | Task | tuple[Task, int, int]) -> int:
    return _shard(item).bytes


def _require_unchanged(out: OutputFolder, settings: ScoreSettings) -> None:
    try:
        source = resolve(settings.input)
    except SentrayError:
        # Nothing is left of it: what was read is scored, the rest is set aside.
        return
    out.require_unchanged(source)


def _engine(settings: ScoreSettings, model: Bundle) -> str:
    """The engine to use; a GPU serves Keras alone."""
    engine = choose(settings.engine, model)
    if not settings.gpu or engine == KerasEngine.name:
        return engine
    if settings.engine == engine:
        raise SentrayError(f"the engine {engine} uses no GPU: leave out --gpu, or take --engine {KerasEngine.name}")
    return KerasEngine.name


def _header(settings: ScoreSettings, schema: pa.Schema, digest: str, engine: str) -> Header:
    return Header(
        bundle=digest,
        engine=engine,
        input=settings.input,
        shard_size=settings.shard_size * 1_000_000,
        columns={"text": settings.text_column, "id": settings.id_column, "keep": list(settings.keep)},
        schema={column.name: str(column.type) for column in schema if column.name != settings.partition_by},
        rows_per_file=settings.rows_per_file,
        partition_by=settings.partition_by,
    )


def _describe(source: Source, plan: ShardPlan, done: int, console: Console) -> None:
    rows = "" if plan.rows is None or source.format == "synthetic" else f", {count(plan.rows, 'row')}"
    console.say(f"{source.describe()}{rows}, {count(len(plan), 'shard')}, {done:,} of them committed before")


def _workers(workers: int, gpus: int, engine: str, files: dict[str, bytes]) -> str:
    """The workers in a line, with about what each needs: libraries, the bundle read and made ready, tables of rows."""
    bundled = sum(map(len, files.values()))
    memory = _PROCESS_MB.get(engine, _LIGHT_PROCESS_MB) + round((2 * bundled + 6 * TABLE_BYTES) / 1e6)
    return f"{tasks.describe(workers, gpus)}, about {memory:,} MB of memory each; engine {engine}"


def _has_unread(record: Record) -> bool:
    return Reason.UNREADABLE_FILE in record.counts.quarantined


def _has_duplicates(found: Mapping[int, Rows], record: Record) -> bool:
    return record.shard in found or Reason.DUPLICATE_ID in record.counts.quarantined


def _compact(out: OutputFolder, console: Console) -> float:
    """Put together what is to be; gives the seconds that took."""
    began = time.monotonic()
    console.expect("the compaction of the scores")
    compact(out, partial(_show_compaction, console))
    compact_quarantine(out, partial(console.progress, "compacting the quarantined rows"))
    return round(time.monotonic() - began, 3)


def _show_compaction(console: Console, done: int, files: int) -> None:
    console.progress(f"compacting, {done:,} of {count(files, 'file')}", done / files)


def _in_and_out(summary: Summary) -> str:
    return (
        f"{summary['rows']:,} rows in = {summary['rows_scored']:,} scored + {summary['rows_quarantined']:,} quarantined"
    )


# --- Before anything is done


def estimate(settings: ScoreSettings, console: Console, model: Bundle, header: Header, source: Source) -> Summary:
    """Say what a job would do, from its plan and from a sample of rows that are scored here; writes nothing.

    Args:
        settings: As for `score`.
        console: Where to say it.
        model: The bundle.
        header: What the job is.
        source: Its input.

    Returns:
        `shards` and `bytes` that are still to be scored, `workers`, `sample_rows`, and `core_hours` and `seconds`,
        estimated; None where no row of the sample can be scored.

    Raises:
        SentrayError: When the bundle or the input cannot be used, or the output is another job's.
    """
    out = OutputFolder(settings.out)
    stored = out.load()
    if stored is None:
        plan = plan_shards(source, header.shard_size)
    else:
        out.require_same(stored, header)
        plan = out.load_plan(stored)
    stats = Stats(plan, settings)
    if stored is not None:
        stats.reset(out.records())
    _describe(source, plan, stats.committed, console)

    def missing() -> Iterator[Shard]:
        return (shard for shard in plan if not stats.done[shard.index])

    size = sum(shard.bytes for shard in missing())
    with cluster.connect(settings.address, verbose=settings.verbose):
        workers = tasks.plan_workers(settings.workers, stats.missing, int(settings.gpu))
    console.say(_workers(workers, int(settings.gpu), header.engine, model.files))
    with memory_explained(source.uri):
        rows, per_byte = _sample(settings, model, header.engine, source, missing())
    found: Summary = {"shards": stats.missing, "bytes": size, "workers": workers, "sample_rows": rows}
    seconds = size * per_byte if rows else None
    found["core_hours"] = None if seconds is None else round(seconds * WORKER_CPUS / 3600, 9)
    found["seconds"] = None if seconds is None else round(seconds / workers, 1)
    console.say(f"to be scored: {count(stats.missing, 'shard')}, {size / 1e6:,.1f} MB")
    if seconds is not None:
        console.say(
            f"about {found['core_hours']:.4f} core-hours, {found['seconds']:,.0f} s once started: estimated from "
            f"{count(rows, 'row')} of the first shard, scored here in one process"
        )
    console.say("nothing was written: leave out --dry-run to score")
    return found


def _sample(
    settings: ScoreSettings, model: Bundle, engine: str, source: Source, shards: Iterable[Shard]
) -> tuple[int, float]:
    """Score the first rows of the first shard that can be read: how many, and the seconds a byte as stored took."""
    scorer: Scorer | None = None
    for shard in shards:
        began, rows, text = 0.0, 0, 0
        read = partial(read_shard, source, shard, settings, keep=settings.keep, on_unreadable="quarantine")
        # A file may kill its reader, which is the driver here; a process of its own would count as slowness.
        isolated = any(
            pc.any(pc.equal(table["reason"], Reason.UNREADABLE_FILE)).as_py() for table in read(isolated=True)
        )
        for table in read(isolated=isolated):
            good = table.filter(pc.is_null(table["reason"]))
            scorer = scorer or Scorer(model, engine, WORKER_CPUS)
            if not began:
                # What is compiled at first is not counted.
                scorer.score(good["text"].slice(0, 1))
                began = time.perf_counter()
            if good.num_rows:
                scorer.score(good["text"])
            rows += table.num_rows
            text += pc.sum(pc.binary_length(good["text"])).as_py() or 0
            if rows >= SAMPLE_ROWS:
                share = rows / shard.rows if shard.rows else min(1.0, text / shard.bytes)
                return rows, (time.perf_counter() - began) / max(1.0, share * shard.bytes)
        if text:
            return rows, (time.perf_counter() - began) / max(1, shard.bytes)
    return 0, 0.0
