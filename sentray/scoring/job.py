"""The scoring job: plan the shards, run them on a pool of actors, account for every row."""

import time
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sentray import __version__, bundle, cluster
from sentray.config import ScoreSettings, write_settings
from sentray.console import Console
from sentray.corpus.readers import read_shard
from sentray.corpus.shards import Shard, plan_shards
from sentray.corpus.source import Source, resolve
from sentray.errors import SentrayError
from sentray.quarantine import QUARANTINE_SCHEMA
from sentray.scoring import pool
from sentray.scoring.engines import choose
from sentray.scoring.ledger import QUARANTINE, SCORES, Ledger, Plan
from sentray.scoring.worker import COMPRESSION, Counts, Job, ShardScorer, output_schema

MEGABYTE = 1_000_000

Record = dict[str, Any]


def score(settings: ScoreSettings, console: Console) -> Record:
    """Score every review of an input, shard by shard, into Parquet; the same call again goes on where it was.

    Args:
        settings: What to score with what, and where to.
        console: Where to say what happens.

    Returns:
        The summary that is also written as `summary.json`: rows in, scored and quarantined, and what the
        scores look like.

    Raises:
        SentrayError: When the bundle, the input or the output cannot be used, or too many rows are bad.
    """
    model = bundle.load(settings.bundle)
    engine = choose(settings.engine)
    source = resolve(settings.input)
    shards = plan_shards(source, settings.shard_size * MEGABYTE)
    schema = output_schema(model.labels, _kept_columns(source, shards, settings), model.digest)
    ledger = Ledger(settings.out)
    ledger.open(_plan(source, shards, schema, settings, model.digest))
    done = ledger.committed()
    summary = ledger.summary()
    if summary is not None and len(done) == len(shards):
        console.say(f"{settings.out} is finished: {_accounts(summary)}; nothing to do")
        return summary
    write_settings(settings.out, settings)
    missing = [shard for shard in shards if shard.index not in done]
    console.say(f"{source.describe()}, {len(shards):,} shards, {len(done):,} of them committed before")
    total = Counts()
    for record in done.values():
        total.add(record)
    speed: Record = {"workers": 0, "start_seconds": 0.0, "seconds": 0.0, "rows_per_s": 0.0}
    if missing:
        job = Job(source.lean(), settings, schema, ledger, engine, model.digest)
        with cluster.connect(settings.address, verbose=settings.verbose):
            speed = _run(job, bundle.pack(model), missing, shards, total, console)
        _require_all(ledger, len(shards))
    _require_good_rows(total, 1.0, settings)
    summary = {"bundle": model.digest, "engine": engine, **_counted(total), "shards": len(shards), **speed}
    _gather_quarantine(ledger)
    ledger.write_summary(summary)
    if missing:
        console.say(f"{speed['rows_per_s']:,.0f} rows/s after {speed['start_seconds']:.1f} s to start")
    console.say(f"{_accounts(summary)} in {settings.out}/{SCORES}")
    return summary


def _kept_columns(source: Source, shards: list[Shard], settings: ScoreSettings) -> pa.Schema:
    """Types of the kept columns in the first rows; what is missing is told before anything starts."""
    for shard in shards:
        for table in read_shard(source, shard, settings, keep=settings.keep):
            if table.num_rows:
                return pa.schema([table.schema.field(name) for name in settings.keep]).remove_metadata()
    raise SentrayError(f"{settings.input} holds no row; check the path and that its files are not empty")


def _plan(source: Source, shards: list[Shard], schema: pa.Schema, settings: ScoreSettings, digest: str) -> Plan:
    return Plan(
        bundle=digest,
        input=settings.input,
        files=[[file.name, file.size, file.modified] for file in source.files],
        shards=[shard.to_dict() for shard in shards],
        columns={"text": settings.text_column, "id": settings.id_column, "keep": list(settings.keep)},
        schema={column.name: str(column.type) for column in schema},
    )


def _run(
    job: Job,
    files: dict[str, bytes],
    missing: list[Shard],
    shards: list[Shard],
    total: Counts,
    console: Console,
) -> Record:
    """Score the missing shards and add their counts to the total; gives how fast it went."""
    workers = pool.place(job.settings.workers, len(missing))
    console.say(f"{pool.describe(workers)}; engine {job.engine}")
    all_bytes = sum(shard.bytes for shard in shards)
    done_bytes = all_bytes - sum(shard.bytes for shard in missing)
    left, before, began = len(missing), total.rows, time.perf_counter()
    start_seconds = seconds = rate = 0.0
    for record in pool.run(partial(ShardScorer, job, files), missing, workers):
        seconds = time.perf_counter() - began
        if left == len(missing):
            start_seconds = max(0.0, seconds - record["seconds"])
        total.add(record)
        left, done_bytes = left - 1, done_bytes + record["bytes"]
        rate = (total.rows - before) / max(seconds - start_seconds, 1e-3)
        console.progress(
            f"{len(shards) - left:,} of {len(shards):,} shards, {total.rows:,} rows, {rate:,.0f} rows/s, "
            f"{total.rows - total.scored:,} quarantined"
        )
        _require_good_rows(total, done_bytes / all_bytes if all_bytes else 1.0, job.settings)
    return {
        "workers": workers,
        "start_seconds": round(start_seconds, 3),
        "seconds": round(seconds, 3),
        "rows_per_s": round(rate, 1),
    }


def _require_all(ledger: Ledger, shards: int) -> None:
    """Refuse to finish when workers wrote to a folder that this machine does not see."""
    lost = shards - len(ledger.committed())
    if lost:
        raise SentrayError(
            f"{lost:,} of {shards:,} shards that workers wrote are not in {ledger.out}; on a cluster, choose "
            "an --out that all machines share, such as s3://…, and run again"
        )


def _require_good_rows(total: Counts, share_done: float, settings: ScoreSettings) -> None:
    """Stop when more rows are bad than the whole input, as far as its rows can be told by now, may have."""
    bad = total.rows - total.scored
    if not share_done or bad <= settings.max_bad_rows * total.rows / share_done:
        return
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in total.quarantined.most_common(3))
    raise SentrayError(
        f"{bad:,} of {total.rows:,} rows of {settings.input} cannot be scored ({reasons}), more than "
        f"--max-bad-rows {settings.max_bad_rows:g} allows; see {settings.out}/_sentray/quarantine, and "
        "mend the input or allow more"
    )


def _gather_quarantine(ledger: Ledger) -> None:
    """Write the rows that all shards set aside as one file, in the input's order."""
    bad = pa.BufferOutputStream()
    with pq.ParquetWriter(bad, QUARANTINE_SCHEMA, compression=COMPRESSION) as writer:
        for stream in ledger.quarantined():
            writer.write_table(pq.read_table(stream))
    ledger.write(QUARANTINE, bad.getvalue())


def _counted(total: Counts) -> Record:
    return {
        "sentray_version": __version__,
        "rows": total.rows,
        "rows_scored": total.scored,
        "rows_quarantined": total.rows - total.scored,
        "quarantined": dict(total.quarantined.most_common()),
        "labels": dict(sorted(total.labels.items())),
        "score_histogram": total.histogram,
        "words": total.words,
        "known_words": total.known_words,
        "worker_seconds": round(total.seconds, 3),
    }


def _accounts(summary: dict[str, Any]) -> str:
    return (
        f"{summary['rows']:,} rows in = {summary['rows_scored']:,} scored + {summary['rows_quarantined']:,} quarantined"
    )
