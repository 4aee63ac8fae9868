"""The scoring job: plan the shards, run them on a pool of actors, account for every row."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from sentray import __version__, bundle, cluster, tables
from sentray.bundle import Bundle
from sentray.config import SETTINGS_FILE, ScoreSettings, settings_text
from sentray.console import Console, count
from sentray.corpus.readers import read_shard
from sentray.corpus.readers.records import TABLE_BYTES
from sentray.corpus.shards import Piece, Shard, ShardPlan
from sentray.corpus.source import Source, resolve
from sentray.errors import SentrayError
from sentray.scoring import pool
from sentray.scoring.counts import Counts
from sentray.scoring.crashes import MOST_CRASHES, score_without_crashes
from sentray.scoring.engines import KerasEngine, choose
from sentray.scoring.gather import gather, gather_quarantine
from sentray.scoring.lease import Lease
from sentray.scoring.ledger import SCORES, Header, Ledger, Record
from sentray.scoring.pool import Lost, Pool, died
from sentray.scoring.progress import Progress
from sentray.scoring.reading import duplicates
from sentray.scoring.worker import Job, ShardScorer, Task, output_schema

EARLY_STOP_ROWS, EARLY_STOP_MARGIN = 10_000, 2.0
"""Before its end a job stops for bad rows only after so many rows, and when this many times too many are bad."""
_FIRST_FILES = 1000
"""Among so many files one must have a row that tells what columns there are."""
_PROCESS_MB = {KerasEngine.name: 1000}
_LIGHT_PROCESS_MB = 300
"""Memory of a worker beside the bundle and the tables of rows, about."""

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
    model = bundle.load(settings.bundle)
    engine = _engine(settings, model)
    source, ledger = resolve(settings.input), Ledger(settings.out)
    with ledger.lease() as lease:
        schema = output_schema(model.labels, _kept_columns(source, settings), model.digest)
        plan = ledger.open(_header(settings, schema, model.digest, engine), source, settings.new_input)
        total, done = Counts(), bytearray(len(plan))
        for record in ledger.records():
            total.add(record.counts)
            done[record.shard] = 1
        summary = ledger.summary()
        if summary is not None and all(done):
            console.say(f"{settings.out} is finished: {_accounts(summary)}; nothing to do")
            return summary
        ledger.write(SETTINGS_FILE, settings_text(settings).encode())
        _describe(source, plan, sum(done), console)
        speed: Summary = {"workers": 0, "start_seconds": 0.0, "seconds": 0.0, "rows_per_s": 0.0}
        if not all(done):
            job = Job(source.lean(), settings, schema, ledger, engine, model.digest)
            speed = _Run(job, plan, done, total, lease, console).work(bundle.pack(model))
            _require_all(ledger, len(plan))
            ledger.clean(model.digest)
        _require_good_rows(total, plan, settings)
        began = time.monotonic()
        gather(ledger, partial(_show_gathering, lease, console))
        gather_quarantine(ledger)
        speed["gather_seconds"] = round(time.monotonic() - began, 3)
        summary = {
            "sentray_version": __version__,
            "bundle": model.digest,
            "engine": engine,
            **_counted(total, model),
            "shards": len(plan),
            **speed,
        }
        ledger.write_summary(summary)
    tables.scores(console, summary, model.labels)
    console.say(f"{_accounts(summary)} in {settings.out}/{SCORES}")
    return summary


class _Run:
    """Scores the shards that are missing, and keeps account.

    Args:
        job: What the workers must know.
        plan: All shards.
        done: For each shard whether it is committed.
        total: What the committed shards' records count; grows.
        lease: Checked as long as the work goes on.
        console: Where to say what happens.
    """

    def __init__(
        self, job: Job, plan: ShardPlan, done: bytearray, total: Counts, lease: Lease, console: Console
    ) -> None:
        self._job, self._plan, self._done, self._total = job, plan, done, total
        self._lease, self._console = lease, console
        self._log = job.ledger.commits()
        self._progress = Progress(console, plan, total, sum(done))

    def work(self, files: dict[str, bytes]) -> Summary:
        """Score; gives how fast it went.

        Args:
            files: The packed bundle.
        """
        settings, rows, size = self._job.settings, self._total.rows, self._total.bytes
        gpus, began = int(settings.gpu), time.monotonic()
        with cluster.connect(settings.address, verbose=settings.verbose):
            connected = time.monotonic()
            workers = pool.place(settings.workers, len(self._done) - sum(self._done), gpus=gpus)
            memory = _memory_mb(self._job.engine, files)
            self._console.say(
                f"{pool.describe(workers, gpus=gpus)}, about {memory:,} MB of memory each; engine {self._job.engine}"
            )
            make = partial(ShardScorer, self._job, files)
            with Pool(make, workers, gpus=gpus) as actors, self._log:
                self._score(actors)
                start = actors.start_seconds
                seconds = max(time.monotonic() - connected - start, 1e-3)
        return {
            "workers": workers,
            "start_seconds": round(connected - began + start, 3),
            "start_ray_seconds": round(connected - began, 3),
            "start_workers_seconds": round(start, 3),
            "seconds": round(seconds, 3),
            "rows_per_s": round((self._total.rows - rows) / seconds, 1),
            "mb_per_s": round((self._total.bytes - size) / 1e6 / seconds, 1),
        }

    def _score(self, actors: Pool) -> None:
        found = duplicates(actors, self._job.source, self._plan, self._looked)
        tasks = (
            Task(shard, found.rows.get(shard.index, {}), ids_unread=shard.index in found.unread)
            for shard in self._plan
            if not self._done[shard.index]
        )
        self._progress.begin()
        lost: list[Task] = []
        for result in actors.map("score", tasks, tick=self._tick):
            if isinstance(result, Lost):
                lost.append(result.item)
                if len(lost) > MOST_CRASHES:
                    raise SentrayError(died(len(lost)))
            else:
                self._commit(result)
        for task in lost:
            pieces = task.shard.pieces
            self._console.note(
                f"the processes that scored {pieces[0].name}"
                + (f" to {pieces[-1].name}" if len(pieces) > 1 else "")
                + " died; looking for the rows to blame"
            )
            self._commit(score_without_crashes(actors, task))

    def _commit(self, record: Record) -> None:
        self._lease.check()
        self._log.add(record)
        self._total.add(record.counts)
        self._progress.shards += 1
        self._progress.show()
        _require_good_rows(self._total, self._plan, self._job.settings)

    def _looked(self, shards: int) -> None:
        self._lease.check()
        self._progress.show_ids(shards)

    def _tick(self) -> None:
        self._lease.check()
        self._log.flush(only_if_due=True)
        self._progress.show()


def _engine(settings: ScoreSettings, model: Bundle) -> str:
    """The engine to use; a GPU serves Keras alone."""
    engine = choose(settings.engine, model)
    if not settings.gpu or engine == KerasEngine.name:
        return engine
    if settings.engine == engine:
        raise SentrayError(f"the engine {engine} uses no GPU: leave out --gpu, or take --engine {KerasEngine.name}")
    return KerasEngine.name


def _kept_columns(source: Source, settings: ScoreSettings) -> pa.Schema:
    """Types of the kept columns in the first row there is; what is missing is told before anything starts."""
    mistake: SentrayError | None = None
    for piece in _first_pieces(source):
        try:
            for table in read_shard(source, Shard(0, source.format, (piece,), 0), settings, keep=settings.keep):
                if table.num_rows:
                    kept = pa.schema([table.schema.field(name) for name in settings.keep]).remove_metadata()
                    _require_partition(settings, kept)
                    return kept
        except SentrayError as error:
            mistake = mistake or error
    raise mistake or SentrayError(f"{settings.input} holds no row; check the path and that its files are not empty")


def _first_pieces(source: Source) -> Iterator[Piece]:
    if source.format == "synthetic":
        yield Piece(source.uri, "synthetic", 0, 1)
    for file in source.files[:_FIRST_FILES]:
        yield Piece(file.path, file.name, label=file.label, split=file.split)


def _require_partition(settings: ScoreSettings, kept: pa.Schema) -> None:
    column = settings.partition_by
    if column not in (None, "label", *kept.names):
        raise SentrayError(
            f"--partition-by {column} is no column of few values in the output; take label, or --keep {column}"
        )


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


def _require_good_rows(total: Counts, plan: ShardPlan, settings: ScoreSettings) -> None:
    """Stop when too many rows are bad.

    Before the end, the input's rows are guessed from the share of its bytes that is done: only after many rows, and
    with room for a wrong guess. A file that cannot be read is one bad row, so its size counts too.
    """
    cure = f"see {settings.out}/_sentray/quarantine, and mend the input or allow more"
    if total.unread_bytes > settings.max_bad_rows * plan.bytes:
        raise SentrayError(
            f"{total.unread_bytes / 1e6:,.1f} of {plan.bytes / 1e6:,.1f} MB of {settings.input} are in files that "
            f"cannot be read, more than --max-bad-rows {settings.max_bad_rows:g} allows; {cure}"
        )
    bad, allowed, share_done = total.bad, settings.max_bad_rows, total.bytes / plan.bytes if plan.bytes else 1.0
    if share_done < 1:
        if total.rows < EARLY_STOP_ROWS:
            return
        allowed *= EARLY_STOP_MARGIN / share_done
    if bad <= allowed * total.rows:
        return
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in total.quarantined.most_common(3))
    raise SentrayError(
        f"{bad:,} of {total.rows:,} rows of {settings.input} cannot be scored ({reasons}), more than "
        f"--max-bad-rows {settings.max_bad_rows:g} allows; {cure}"
    )


def _show_gathering(lease: Lease, console: Console, done: int, files: int) -> None:
    lease.check()
    console.progress(f"gathering, {done:,} of {count(files, 'file')}", done / files)


def _counted(total: Counts, model: Bundle) -> Summary:
    hours = total.seconds * pool.WORKER_CPUS / 3600
    return {
        "rows": total.rows,
        "rows_scored": total.scored,
        "rows_quarantined": total.bad,
        "quarantined": dict(total.quarantined.most_common()),
        "labels": dict(sorted(total.labels.items())),
        "score_histogram": total.histogram,
        "words": total.words,
        "known_words": total.known_words,
        "coverage": round(total.known_words / total.words, 6) if total.words else None,
        "training_coverage": model.metrics.get("coverage"),
        "bytes": total.bytes,
        "unread_bytes": total.unread_bytes,
        "peak_rss_mb": total.peak_rss_mb,
        "worker_seconds": round(total.seconds, 3),
        "core_hours": round(hours, 6),
        "core_hours_per_million": round(hours / total.rows * 1e6, 6) if total.rows else None,
    }


def _accounts(summary: Summary) -> str:
    return (
        f"{summary['rows']:,} rows in = {summary['rows_scored']:,} scored + {summary['rows_quarantined']:,} quarantined"
    )
