"""The scoring job, from top to bottom: `score` plans the shards, has them scored, commits them, counts every row."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from sentray import __version__, bundle, cluster, tables
from sentray.bundle import Bundle
from sentray.config import SETTINGS_FILE, ScoreSettings, settings_text
from sentray.console import Console, core_time, count
from sentray.corpus.duplicates import Ids, Rows, find_duplicates
from sentray.corpus.readers import may_have_ids
from sentray.corpus.rows import QUARANTINE_FILE, TABLE_BYTES, Reason
from sentray.corpus.source import Source, require_apart, resolve
from sentray.corpus.splits import Shard, ShardPlan, plan_shards, reader
from sentray.errors import SentrayError, first_line
from sentray.inference.engines import KerasEngine, choose
from sentray.lease import Lease
from sentray.scoring import drift, tasks
from sentray.scoring.columns import kept_columns, output_schema, require_task
from sentray.scoring.compaction import compact, compact_quarantine
from sentray.scoring.output import REPORT, SUMMARY, Columns, Commits, Header, OutputFolder, Record
from sentray.scoring.parts import SCORES, quarantine_name, read_part
from sentray.scoring.stats import WORKER_CPUS, Counts, Stats
from sentray.scoring.tasks import MAX_CRASHES, RETRIES, Lost, Tasks, score_without_crashes
from sentray.scoring.worker import Job, ShardScorer, Task
from sentray.telemetry import Telemetry

_PROCESS_MB = {KerasEngine.name: 1000}
_LIGHT_PROCESS_MB = 300
"""Memory of a worker beside the bundle and the tables of rows, about."""
_SPEED = ("workers", "start_seconds", "start_ray_seconds", "start_workers_seconds", "seconds", "rows_per_s", "mb_per_s")
"""Keys of the summary that a run without a shard to score leaves None."""

Summary = dict[str, Any]
Item = Task | tuple[Task, int, int]
"""What the worker's methods take."""


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
    require_apart(settings.input, settings.out)
    console.expect(f"the bundle {settings.bundle} and the plan of {settings.input}")
    model = bundle.load(settings.bundle, settings.trust_model)
    require_task(settings, model.spec.task)
    reference = drift.reference_of(model)
    compare = partial(drift.compare, reference, labels=model.labels)
    if settings.fail_on_drift and reference is None:
        raise SentrayError(f"{drift.UNKNOWN}, or leave out --fail-on-drift")
    settings = settings.model_copy(update={"numeric": model.spec.columns})
    source, out = resolve(settings.input, settings), OutputFolder(settings.out)
    inputs, kept = kept_columns(source, settings, console.say)
    asked = settings.scores == "all", settings.explain is not None, model.spec.task
    schema = output_schema(model.labels, kept, model.digest, *asked)
    job = Job(source.lean(), settings, schema, _engine(settings, model), model.digest, inputs)
    header = _header(job)
    if settings.dry_run:
        return estimate(job, header, model, source, console)
    with out.lease() as lease:
        plan = out.open(header, source, settings.new_input)
        stats = Stats(plan, settings, out.records())
        summary = out.summary()
        if summary is not None and not stats.missing and QUARANTINE_FILE in out.names():
            console.say(f"{settings.out} is finished: {_in_and_out(summary)}; nothing to do")
            _require_no_drift(summary, settings)
            return summary
        out.delete(SUMMARY)
        out.delete(REPORT)
        out.write(SETTINGS_FILE, settings_text(settings).encode())
        # Files that could not be read may be back; a shard that is compacted stays as it is.
        heals = not out.published(out.files()) and out.withdraw(_has_unread)
        if heals:
            stats.reset(out.records())
        _describe(source, plan, stats, settings, console)
        speed: Summary = dict.fromkeys(_SPEED)
        if stats.missing:
            run = Run(job, out, plan, stats, lease, console, heals, compare)
            speed |= run.work(ShardScorer, model.scoring_files, source)
            _require_unchanged(out, settings)
        stats.require_good_rows()
        speed["compaction_seconds"] = _compact(out, console)
        summary = {"sentray_version": __version__, "run": console.run, "bundle": model.digest, "engine": job.engine}
        summary |= {**stats.summary(model), "shards": len(plan), **speed, "drift": compare(stats.total)}
        if model.spec.task == "regression":
            summary["value_span"] = None if reference is None else reference.span
        _write_report(out, summary, stats.total, model, reference, settings, console)
        out.write_json(SUMMARY, summary)
    tables.scores(console, summary, model.labels, model.spec.task)
    if line := _drift_line(summary, reference, settings):
        console.say(line)
    console.say(f"{_in_and_out(summary)} in {settings.out}/{SCORES}")
    _require_no_drift(summary, settings)
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
        heals: Whether shards were taken back because their files may be readable now.
        compare: Finds the drift of counts.
    """

    def __init__(
        self,
        job: Job,
        out: OutputFolder,
        plan: ShardPlan,
        stats: Stats,
        lease: Lease,
        console: Console,
        heals: bool = False,
        compare: Callable[[Counts], drift.Drift | None] = lambda counts: None,
    ) -> None:
        self._job, self._out, self._plan, self._stats = job, out, plan, stats
        self._lease, self._console, self._heals, self._compare = lease, console, heals, compare
        self._telemetry = Telemetry(console.verb, console.run)
        self._began: float | None = None
        self._ids: dict[int, list[Ids]] = {}

    def work(self, worker: Callable[[Job, dict[str, bytes]], Any], files: dict[str, bytes], source: Source) -> Summary:
        """Score; gives how fast it went.

        Args:
            worker: Makes what scores, a `ShardScorer`, in a worker's process.
            files: The packed bundle.
            source: What is scored, with its files.
        """
        settings, out, began = self._job.settings, self._out, time.monotonic()
        self._console.expect("the Ray cluster")
        with cluster.connect(settings.address, verbose=settings.verbose):
            connected = time.monotonic()
            if out.local:
                cluster.require_shared(Path(out.path("")), f"--out {out.out}")
            if file := source.local_file:
                cluster.require_seen(file, f"the input {source.uri}")
            workers = _plan_workers(self._job, self._stats, files, self._console)
            make = partial(worker, self._job, files)
            with (
                Tasks(make, workers, int(settings.gpu), self._note_retry) as self._tasks,
                Commits(out, self._committed) as self._commits,
            ):
                self._score()
            self._telemetry.drift(self._compare(self._stats.total) or {})
            start = self._tasks.start_seconds
            seconds = max(time.monotonic() - connected - start, 1e-3)
        # Tasks that nobody waited for may have left something.
        out.delete_attempts()
        rows, size = self._stats.progress
        return {
            "workers": workers,
            "start_seconds": round(connected - began + start, 3),
            "start_ray_seconds": round(connected - began, 3),
            "start_workers_seconds": round(start, 3),
            "seconds": round(seconds, 3),
            "rows_per_s": round(rows / seconds, 1),
            "mb_per_s": round(size / 1e6 / seconds, 1),
        }

    def _score(self) -> None:
        duplicates, unread = self._duplicates()
        # Which row is the first of an id may have changed with what can be read now.
        if self._heals and self._out.withdraw(partial(_has_duplicates, duplicates)):
            self._stats.reset(self._out.records())
        self._began = time.monotonic()
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
            SentrayError: When a file whose rows are committed cannot be read now: its ids must be known, or another
                row with one of them would be scored too.
        """
        found, unread = self._ids, dict[int, frozenset[str]]()

        def read(items: Iterator[Task]) -> list[Task]:
            """Gives the tasks whose processes died each time."""
            lost = []
            for result in self._tasks.map("ids", items, retries=RETRIES, tick=self._tick):
                if isinstance(result, Lost):
                    lost.append(result.item)
                    continue
                index, found[index], files = result
                if files:
                    unread[index] = files
                self._show()
            return lost

        # A large CSV file's ids are known from planning.
        found |= self._plan.take_ids()
        rest = (shard for shard in self._plan if shard.index not in found)
        lost = read(map(Task, rest)) if may_have_ids(self._job.source, self._job.settings) else []
        if lost := read(replace(task, isolated=True) for task in lost):
            raise SentrayError(tasks.reading_kills(lost[0].shard))
        for record in self._out.records() if any(self._stats.done[index] for index in unread) else ():
            if record.shard in unread and (silent := unread[record.shard] - _unreadable(self._out, record)):
                raise SentrayError(
                    f"{min(silent)} was scored and cannot be read now, so that other rows' ids cannot be "
                    "compared with its own; make it readable and run the same command again to go on"
                )
        self._console.expect("the comparison of the ids")
        return find_duplicates((index, *block) for index in sorted(found) for block in found.pop(index)), unread

    def _committed(self, record: Record) -> None:
        counts = record.counts
        self._stats.add(record)
        self._telemetry.commit(counts)
        fields = {name: getattr(counts, name) for name in ("rows", "scored", "quarantined", "bytes", "seconds")}
        self._console.event(f"shard {record.shard} committed", shard=record.shard, **fields)
        self._show()
        self._stats.require_good_rows()
        self._stats.require_few_partitions()

    def _note_retry(self, item: Item, reason: str, line: str) -> None:
        self._telemetry.retry(reason)
        shard = _shard(item).index
        self._console.note(f"shard {shard}: {line}", shard=shard, reason=reason)

    def _tick(self, moved: bool) -> None:
        self._lease.check()
        self._commits.poll()
        self._console.expect(self._tasks.expected(lambda item: f"a shard of {tasks.files_of(_shard(item))}"))
        self._show(moved)

    def _show(self, moved: bool = True) -> None:
        if self._began is None:
            shards, done = len(self._plan), len(self._ids)
            line = f"looking for ids that occur twice, {done:,} of {count(shards, 'shard')}"
            self._console.progress(line, done / shards, moved=moved)
        else:
            line, share = self._stats.describe(time.monotonic() - self._began)
            # Until the first shard is done there is no rate to tell.
            self._console.progress(line if any(self._stats.progress) else self._console.expected, share, moved=moved)


def _shard(item: Item) -> Shard:
    return item[0].shard if isinstance(item, tuple) else item.shard


def _has_unread(record: Record) -> bool:
    return Reason.UNREADABLE_FILE in record.counts.quarantined


def _has_duplicates(found: dict[int, Rows], record: Record) -> bool:
    return record.shard in found or Reason.DUPLICATE_ID in record.counts.quarantined


def _unreadable(out: OutputFolder, record: Record) -> set[str]:
    """Names of a committed shard's files that were set aside as unreadable."""
    if not _has_unread(record):
        return set()
    rows = read_part(out, quarantine_name(record.shard))
    return set(rows["file"].filter(pc.equal(rows["reason"], Reason.UNREADABLE_FILE)).to_pylist())


def _require_unchanged(out: OutputFolder, settings: ScoreSettings) -> None:
    try:
        source = resolve(settings.input, settings)
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


def _header(job: Job) -> Header:
    settings = job.settings
    return Header(
        bundle=job.digest,
        engine=job.engine,
        input=settings.input,
        shard_size=settings.shard_size * 1_000_000,
        columns=Columns(settings.text_column, settings.id_column, settings.keep, settings.reading),
        schema={column.name: str(column.type) for column in job.schema if column.name != settings.partition_by},
        rows_per_file=settings.rows_per_file,
        partition_by=settings.partition_by,
        by=settings.by,
        explain=settings.explain,
    )


def _describe(source: Source, plan: ShardPlan, stats: Stats, settings: ScoreSettings, console: Console) -> None:
    separated = reader("csv").separated(source, settings)
    rows = "" if plan.rows is None or source.format == "synthetic" else f", {count(plan.rows, 'row')}"
    console.say(
        f"{source.describe()}{separated}{rows}, {count(len(plan), 'shard')}, {stats.committed:,} of them committed "
        "before"
    )


def _plan_workers(job: Job, stats: Stats, files: dict[str, bytes], console: Console) -> int:
    """How many workers there shall be; says what each needs: libraries, the bundle read and made ready, tables."""
    gpus = int(job.settings.gpu)
    workers = tasks.plan_workers(job.settings.workers, stats.missing, gpus)
    bundled = sum(map(len, files.values()))
    memory = _PROCESS_MB.get(job.engine, _LIGHT_PROCESS_MB) + round((2 * bundled + 6 * TABLE_BYTES) / 1e6)
    with_gpus = f" and {gpus} GPU" if gpus else ""
    console.say(
        f"workers that read and score: {workers}, with {WORKER_CPUS:g} CPU{with_gpus} each, about {memory:,} MB of "
        f"memory each; engine {job.engine}"
    )
    return workers


def _compact(out: OutputFolder, console: Console) -> float:
    """Put together what is to be; gives the seconds that took."""
    began = time.monotonic()
    console.expect("the compaction of the scores")
    compact(out, lambda done, files: console.progress(f"compacting, {done:,} of {count(files, 'file')}", done / files))
    compact_quarantine(out, partial(console.progress, "compacting the quarantined rows"))
    return round(time.monotonic() - began, 3)


def _drift_line(summary: Summary, reference: drift.Reference | None, settings: ScoreSettings) -> str | None:
    found = summary["drift"]
    if found is None:
        return drift.UNKNOWN if reference is None else drift.COUNTED_BEFORE
    line = drift.sentence(found)
    return line if line in (None, drift.SEEN) else f"warning: {line}; see {settings.out}/{REPORT}"


def _require_no_drift(summary: Summary, settings: ScoreSettings) -> None:
    """End with an error where it is asked for.

    Raises:
        SentrayError: The reviews differ much from those that the bundle was trained on, or nobody knows.
    """
    found = summary.get("drift")
    if not settings.fail_on_drift or (found is not None and not drift.is_much(found)):
        return
    why = drift.COUNTED_BEFORE if found is None else drift.sentence(found)
    raise SentrayError(f"{why}; {settings.out} is finished all the same (--fail-on-drift)")


def _write_report(
    out: OutputFolder,
    summary: Summary,
    counts: Counts,
    model: Bundle,
    reference: drift.Reference | None,
    settings: ScoreSettings,
    console: Console,
) -> None:
    """Write the page; whatever goes wrong with it does not fail the job."""
    try:
        from sentray.scoring.report import page

        out.write(REPORT, page(out, summary, counts, model, reference, settings).encode())
    except Exception as error:
        console.note(f"warning: {REPORT} is not written ({type(error).__name__}: {first_line(error)}); all else is")


def _in_and_out(summary: Summary) -> str:
    return (
        f"{summary['rows']:,} rows in = {summary['rows_scored']:,} scored + {summary['rows_quarantined']:,} quarantined"
    )


def estimate(job: Job, header: Header, model: Bundle, source: Source, console: Console) -> Summary:
    """Say what a job would do, from its plan and from rows of a shard that a worker scores; writes nothing.

    Args:
        job: What the worker must know.
        header: What the job is.
        model: The bundle.
        source: The input with its files.
        console: Where to say it.

    Returns:
        `shards` and `bytes` that are still to be scored, `workers`, `sample_rows`, and `core_hours` and `seconds`,
        estimated; None where no row of the sample can be scored.

    Raises:
        SentrayError: When the bundle or the input cannot be used, or the output is another job's.
    """
    settings, out = job.settings, OutputFolder(job.settings.out)
    stored = out.load()
    if stored is None:
        plan = plan_shards(source, header.shard_size, settings)
    else:
        out.require_same(stored, header)
        plan = out.load_plan(stored)
    stats = Stats(plan, settings, out.records() if stored else ())
    _describe(source, plan, stats, settings, console)
    first, size = None, 0
    for shard in plan:
        if not stats.done[shard.index]:
            first, size = first or shard, size + shard.bytes
    found: Summary = {"shards": stats.missing, "bytes": size, "sample_rows": 0, "core_hours": None, "seconds": None}
    with cluster.connect(settings.address, verbose=settings.verbose):
        found["workers"] = _plan_workers(job, stats, model.scoring_files, console)
        with Tasks(partial(ShardScorer, job, model.scoring_files), 1, int(settings.gpu)) as running:
            sample: Any = next(running.map("sample", [Task(first)])) if first else Lost(None, 0)
    console.say(f"to be scored: {count(stats.missing, 'shard')}, {size / 1e6:,.1f} MB")
    if first and not isinstance(sample, Lost) and sample[0]:
        found["sample_rows"], seconds = sample
        seconds *= size / max(1, first.bytes)
        found["core_hours"] = round(seconds * WORKER_CPUS / 3600, 9)
        found["seconds"] = round(seconds / found["workers"], 1)
        console.say(
            f"about {core_time(found['core_hours'])}, {found['seconds']:,.0f} s once started: estimated from "
            f"{count(found['sample_rows'], 'row')} of the first shard, scored by one worker"
        )
    console.say("nothing was written: leave out --dry-run to score")
    return found
