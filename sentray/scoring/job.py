"""The scoring job: plan the shards, run them on a pool of actors, account for every row."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from sentray import __version__, bundle, cluster, tables
from sentray.bundle import Bundle
from sentray.config import SETTINGS_FILE, ScoreSettings, settings_text
from sentray.console import Console, count
from sentray.corpus.duplicates import Rows
from sentray.corpus.rows import QUARANTINE_FILE, TABLE_BYTES, Reason
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import ShardPlan
from sentray.errors import SentrayError
from sentray.inference.engines import KerasEngine, choose
from sentray.lease import Lease
from sentray.scoring import plans, pool
from sentray.scoring.accounts import Accounts, is_intact, withdraw
from sentray.scoring.columns import kept_columns
from sentray.scoring.compaction import gather, gather_quarantine
from sentray.scoring.crashes import MAX_CRASHES, score_without_crashes
from sentray.scoring.ledger import SCORES, SUMMARY, Header, Ledger, Record
from sentray.scoring.pool import Lost, Pool, died
from sentray.scoring.progress import Progress
from sentray.scoring.reading import Duplicates, duplicates, files_of, moved, note_retry, size_of
from sentray.scoring.worker import Job, ShardScorer, Task, output_schema
from sentray.telemetry import ScoringTelemetry

_PROCESS_MB = {KerasEngine.name: 1000}
_LIGHT_PROCESS_MB = 300
"""Memory of a worker beside the bundle and the tables of rows, about."""
_LAST_BREATH_SECONDS = 1.0
"""So long a process that was just killed may still write."""

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
        like, how fast it went.

    Raises:
        SentrayError: When the bundle, the input or the output cannot be used, or too many rows are bad.
    """
    console.expect(f"the bundle {settings.bundle} and the plan of {settings.input}")
    model = bundle.load(settings.bundle)
    engine = _engine(settings, model)
    source, ledger = resolve(settings.input), Ledger(settings.out)
    with ledger.lease() as lease:
        schema = output_schema(model.labels, kept_columns(source, settings), model.digest)
        plan = ledger.open(_header(settings, schema, model.digest, engine), source, settings.new_input)
        accounts = Accounts(plan, settings)
        accounts.count(ledger)
        summary = ledger.summary()
        if summary is not None and not accounts.missing and QUARANTINE_FILE in ledger.names():
            console.say(f"{settings.out} is finished: {_in_and_out(summary)}; nothing to do")
            return summary
        ledger.delete(SUMMARY)
        ledger.write(SETTINGS_FILE, settings_text(settings).encode())
        # Files that could not be read may be back: unless the job ended without them, or part of it is published.
        heals = summary is None and not ledger.published() and bool(withdraw(ledger, _has_unread))
        if heals:
            accounts.count(ledger)
        _describe(source, plan, accounts.committed, console)
        speed: Summary = dict.fromkeys(_SPEED)
        if accounts.missing:
            job = Job(source.lean(), settings, schema, ledger, engine, model.digest, lease.fence)
            speed |= _Run(job, plan, accounts, lease, console, heals).work(model.files, source)
            _require_unchanged(ledger, settings)
        accounts.require_good_rows()
        speed["gather_seconds"] = _gather(ledger, lease, console)
        counted = accounts.summary(model)
        summary = {"sentray_version": __version__, "run": console.run, "bundle": model.digest, "engine": engine}
        summary |= {**counted, "shards": len(plan), **speed}
        ledger.write_summary(summary)
    tables.scores(console, summary, model.labels)
    console.say(f"{_in_and_out(summary)} in {settings.out}/{SCORES}")
    return summary


class _Run:
    """Scores the shards that are missing, and keeps account.

    Args:
        job: What the workers must know.
        plan: All shards.
        accounts: What is committed; grows.
        lease: Checked as long as the work goes on.
        console: Where to say what happens.
        heals: Whether shards were taken back because they may be read now.
    """

    def __init__(
        self, job: Job, plan: ShardPlan, accounts: Accounts, lease: Lease, console: Console, heals: bool
    ) -> None:
        self._job, self._plan, self._accounts, self._heals = job, plan, accounts, heals
        self._lease, self._console = lease, console
        self._log = job.ledger.commits(lease.check)
        self._progress = Progress(console, plan, accounts)
        self._telemetry = ScoringTelemetry(console.verb, console.run)
        self._told = bytearray(len(plan))

    def work(self, files: dict[str, bytes], source: Source) -> Summary:
        """Score; gives how fast it went.

        Args:
            files: The packed bundle.
            source: What is scored, with its files.
        """
        settings, ledger, began = self._job.settings, self._job.ledger, time.monotonic()
        gpus = int(settings.gpu)
        self._console.expect("the Ray cluster")
        with cluster.connect(settings.address, verbose=settings.verbose):
            connected = time.monotonic()
            if ledger.local:
                cluster.require_shared(Path(ledger.path("")), f"--out {ledger.out}")
            if file := source.local_file:
                cluster.require_seen(file, f"the input {source.uri}")
            workers = pool.place(settings.workers, self._accounts.missing, gpus=gpus)
            memory = _memory_mb(self._job.engine, files)
            self._console.say(
                f"{pool.describe(workers, gpus=gpus)}, about {memory:,} MB of memory each; engine {self._job.engine}"
            )
            make = partial(ShardScorer, self._job, files)
            with Pool(make, workers, gpus=gpus, size=size_of, on_retry=self._note_retry) as self._pool, self._log:
                self._score()
                start = self._pool.start_seconds
                seconds = max(time.monotonic() - connected - start, 1e-3)
        _require_all(ledger, len(self._plan))
        ledger.clean(self._job.digest)
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
        found = duplicates(self._pool, self._job.source, self._plan, self._looked)
        # Which row is the first of an id may have changed with what can be read now.
        if self._heals and withdraw(self._job.ledger, partial(_has_duplicates, found.rows)):
            self._accounts.count(self._job.ledger)
        self._progress.begin()
        self._score_missing(found)
        while self._withdraw_overwritten():
            self._score_missing(found)

    def _score_missing(self, found: Duplicates) -> None:
        owner = self._lease.fence.owner
        tasks = (
            Task(shard, owner, found.rows.get(shard.index, {}), ids_unread=shard.index in found.unread)
            for shard in self._plan
            if not self._accounts.done[shard.index]
        )
        lost: list[Task] = []
        for result in self._pool.map("score", tasks, tick=self._tick):
            if isinstance(result, Lost):
                lost.append(result.item)
                if len(lost) > MAX_CRASHES:
                    raise SentrayError(died(len(lost)))
            else:
                self._commit(result)
        for task in lost:
            line = f"processes that scored {files_of(task.shard)} died; looking for the rows to blame"
            self._note_retry(task, "killing_rows", line)
            self._commit(score_without_crashes(self._pool, task, self._tick))

    def _withdraw_overwritten(self) -> bool:
        """Take shards back whose files are not those of their record: a process thought lost wrote them once more.

        The two differ where the processors of two nodes do not compute the same last digits.
        """
        ledger = self._job.ledger
        contested = {item.shard.index for item in self._pool.contested if isinstance(item, Task)}
        self._pool.contested.clear()
        if not contested:
            return False
        # Whichever attempt comes back later finds that it may not write any more.
        self._lease.renew_fence()
        time.sleep(_LAST_BREATH_SECONDS)
        self._log.flush()
        shards = withdraw(ledger, lambda record: record.shard in contested and not is_intact(ledger, record))
        line = "another process wrote over its files; they are made again"
        for shard in shards:
            self._note_retry(self._plan[shard], "overwritten", line)
        if shards:
            self._accounts.count(ledger)
        return bool(shards)

    def _commit(self, record: Record) -> None:
        self._lease.check()
        self._log.add(record)
        self._accounts.add(record)
        if not self._told[record.shard]:
            self._told[record.shard] = 1
            self._telemetry.commit(record.counts)
            told = {name: record.counts[name] for name in ("rows", "scored", "quarantined", "bytes", "seconds")}
            self._console.event(f"shard {record.shard} committed", shard=record.shard, **told)
        self._progress.show()
        self._accounts.require_good_rows()
        self._accounts.require_few_partitions()

    def _note_retry(self, item: Any, reason: str, line: str) -> None:
        self._telemetry.retry(reason)
        note_retry(self._console, item, reason, line)

    def _looked(self, shards: int) -> None:
        self._lease.check()
        self._progress.show_ids(shards, moved(self._pool, self._console))
        if shards == len(self._plan):
            self._console.expect("the comparison of the ids")

    def _tick(self) -> None:
        self._lease.check()
        self._log.flush(only_if_due=True)
        self._progress.show(moved(self._pool, self._console))


def _require_unchanged(ledger: Ledger, settings: ScoreSettings) -> None:
    try:
        source = resolve(settings.input)
    except SentrayError:
        # Nothing is left of it: what was read is scored, the rest is set aside.
        return
    plans.require_unchanged(ledger, ledger.stored(), source)


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


def _memory_mb(engine: str, files: dict[str, bytes]) -> int:
    """About what a worker needs: its libraries, the bundle read and made ready, a few tables of rows."""
    bundled = sum(map(len, files.values()))
    return _PROCESS_MB.get(engine, _LIGHT_PROCESS_MB) + round((2 * bundled + 6 * TABLE_BYTES) / 1e6)


def _require_all(ledger: Ledger, shards: int) -> None:
    """Refuse to finish when workers wrote to a folder that this machine does not see."""
    lost = shards - sum(1 for _ in ledger.records())
    if lost:
        raise SentrayError(
            f"{lost:,} of {shards:,} shards that workers wrote are not in {ledger.out}; on a cluster, choose "
            "an --out that all machines share, such as s3://…, and run again"
        )


def _has_unread(record: Record) -> bool:
    return Reason.UNREADABLE_FILE in record.counts["quarantined"]


def _has_duplicates(found: Mapping[int, Rows], record: Record) -> bool:
    return record.shard in found or Reason.DUPLICATE_ID in record.counts["quarantined"]


def _gather(ledger: Ledger, lease: Lease, console: Console) -> float:
    """Put together what is to be; gives the seconds that took."""
    began = time.monotonic()
    console.expect("the gathering of the scores")
    gather(ledger, partial(_show_gathering, console), lease.check)
    gather_quarantine(ledger, partial(console.progress, "gathering the quarantined rows"))
    return round(time.monotonic() - began, 3)


def _show_gathering(console: Console, done: int, files: int) -> None:
    console.progress(f"gathering, {done:,} of {count(files, 'file')}", done / files)


def _in_and_out(summary: Summary) -> str:
    return (
        f"{summary['rows']:,} rows in = {summary['rows_scored']:,} scored + {summary['rows_quarantined']:,} quarantined"
    )
