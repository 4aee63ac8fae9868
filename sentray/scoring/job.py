"""The scoring job: plan the shards, run them on a pool of actors, account for every row."""

import time
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sentray import __version__, bundle, cluster
from sentray.config import ScoreSettings, write_settings
from sentray.corpus.readers import read_shard
from sentray.corpus.shards import Shard, plan_shards
from sentray.corpus.source import Source, resolve
from sentray.errors import SentrayError
from sentray.quarantine import QUARANTINE_SCHEMA
from sentray.scoring import pool
from sentray.scoring.ledger import QUARANTINE, SCORES, Ledger, Plan
from sentray.scoring.worker import COMPRESSION, Counts, Job, ShardScorer, output_schema

MEGABYTE = 1_000_000

Record = dict[str, Any]


class Teller(Protocol):
    """Where a run says what it does; the command line's console is one."""

    def say(self, line: str = "") -> None:
        """Print a line."""
        ...

    def progress(self, line: str) -> None:
        """Show how far the run is."""
        ...


def score(settings: ScoreSettings, console: Teller) -> Record:
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
    job = Job(source.lean(), settings, schema, ledger, model.digest)
    started = time.perf_counter()
    total = Counts()
    for record in done.values():
        total.add(record)
    if missing:
        with cluster.connect(settings.address, verbose=settings.verbose):
            _run(job, bundle.pack(model), missing, shards, total, settings, console)
    _require_good_rows(total, 1.0, settings)
    summary = _finish(ledger, shards, total, model.digest, time.perf_counter() - started)
    console.say(f"{_accounts(summary)} in {settings.out}/{SCORES}")
    return summary


def _kept_columns(source: Source, shards: list[Shard], settings: ScoreSettings) -> pa.Schema:
    """Types of the kept columns in the first rows; what is missing is told before anything starts."""
    for shard in shards:
        for table in read_shard(source, shard, settings, keep=settings.keep):
            if table.num_rows:
                return pa.schema([table.schema.field(name) for name in settings.keep]).remove_metadata()
    raise SentrayError(f"{settings.input} holds no row; check the path and that its files are not empty")


def _plan(
    source: Source, shards: list[Shard], schema: pa.Schema, settings: ScoreSettings, digest: str
) -> Plan:
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
    settings: ScoreSettings,
    console: Teller,
) -> None:
    """Score the missing shards and add their counts to the total."""
    placement = pool.place(settings.workers, len(missing))
    console.say(f"{placement.describe()}; engine {settings.engine}")
    all_bytes = sum(shard.bytes for shard in shards)
    done_bytes = all_bytes - sum(shard.bytes for shard in missing)
    left, before, started = len(missing), total.rows, time.perf_counter()
    for record in pool.run(partial(ShardScorer, job, files), missing, placement.workers):
        total.add(record)
        left, done_bytes = left - 1, done_bytes + record["bytes"]
        rate = (total.rows - before) / (time.perf_counter() - started)
        console.progress(
            f"{len(shards) - left:,} of {len(shards):,} shards, {total.rows:,} rows, {rate:,.0f} rows/s, "
            f"{total.rows - total.scored:,} quarantined"
        )
        _require_good_rows(total, done_bytes / all_bytes if all_bytes else 1.0, settings)


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


def _finish(ledger: Ledger, shards: list[Shard], total: Counts, digest: str, seconds: float) -> Record:
    """Gather the quarantine and write the summary, which marks the job as finished."""
    bad = pa.BufferOutputStream()
    with pq.ParquetWriter(bad, QUARANTINE_SCHEMA, compression=COMPRESSION) as writer:
        for stream in ledger.quarantined([shard.index for shard in shards]):
            writer.write_table(pq.read_table(stream))
    ledger.write(QUARANTINE, bad.getvalue())
    summary = {
        "bundle": digest,
        "sentray_version": __version__,
        "rows": total.rows,
        "rows_scored": total.scored,
        "rows_quarantined": total.rows - total.scored,
        "quarantined": dict(total.quarantined.most_common()),
        "labels": dict(sorted(total.labels.items())),
        "score_histogram": total.histogram,
        "words": total.words,
        "known_words": total.known_words,
        "shards": len(shards),
        "seconds": round(seconds, 3),
        "worker_seconds": round(total.seconds, 3),
    }
    ledger.write_summary(summary)
    return summary


def _accounts(summary: dict[str, Any]) -> str:
    return (
        f"{summary['rows']:,} rows in = {summary['rows_scored']:,} scored + "
        f"{summary['rows_quarantined']:,} quarantined"
    )
