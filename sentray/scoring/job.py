"""The scoring job: plan the shards, run them on a pool of actors, account for every row."""

import time
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sentray import __version__, bundle, cluster
from sentray.config import ScoreSettings, write_settings
from sentray.console import Console
from sentray.corpus.dataset import Corpus
from sentray.corpus.readers import read_shard
from sentray.corpus.shards import Shard
from sentray.errors import SentrayError
from sentray.quarantine import QUARANTINE_SCHEMA
from sentray.scoring import pool
from sentray.scoring.engines import choose
from sentray.scoring.ledger import QUARANTINE, SCORES, Ledger, Plan
from sentray.scoring.worker import COMPRESSION, Counts, Job, ShardScorer, output_schema

EARLY_STOP_ROWS, EARLY_STOP_MARGIN = 10_000, 2.0
"""Before its end a job stops for bad rows only after so many rows, and when this many times too many are bad."""

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
    corpus = Corpus.plan(settings.input, settings, need_label=False)
    shards = corpus.shards
    schema = output_schema(model.labels, _kept_columns(corpus, settings), model.digest)
    ledger = Ledger(settings.out)
    ledger.open(_plan(corpus, schema, settings, model.digest))
    done = ledger.committed()
    summary = ledger.summary()
    if summary is not None and len(done) == len(shards):
        console.say(f"{settings.out} is finished: {_accounts(summary)}; nothing to do")
        return summary
    write_settings(settings.out, settings)
    missing = [shard for shard in shards if shard.index not in done]
    console.say(f"{corpus.describe()}, {len(done):,} of them committed before")
    total = Counts()
    for record in done.values():
        total.add(record)
    speed: Record = {"workers": 0, "start_seconds": 0.0, "seconds": 0.0, "rows_per_s": 0.0}
    if missing:
        job = Job(corpus.source.lean(), settings, schema, ledger, engine, model.digest)
        with cluster.connect(settings.address, verbose=settings.verbose):
            speed = _run(job, bundle.pack(model), corpus.without_duplicates(), missing, total, console)
        _require_all(ledger, len(shards))
    _require_good_rows(total, 1.0, settings)
    summary = {"bundle": model.digest, "engine": engine, **_counted(total), "shards": len(shards), **speed}
    _gather_quarantine(ledger)
    ledger.write_summary(summary)
    if missing:
        console.say(f"{speed['rows_per_s']:,.0f} rows/s after {speed['start_seconds']:.1f} s to start")
    console.say(f"{_accounts(summary)} in {settings.out}/{SCORES}")
    return summary


def _kept_columns(corpus: Corpus, settings: ScoreSettings) -> pa.Schema:
    """Types of the kept columns in the first rows; what is missing is told before anything starts."""
    for shard in corpus.shards:
        for table in read_shard(corpus.source, shard, settings, keep=settings.keep):
            if table.num_rows:
                return pa.schema([table.schema.field(name) for name in settings.keep]).remove_metadata()
    raise SentrayError(f"{settings.input} holds no row; check the path and that its files are not empty")


def _plan(corpus: Corpus, schema: pa.Schema, settings: ScoreSettings, digest: str) -> Plan:
    return Plan(
        bundle=digest,
        input=settings.input,
        files=[[file.name, file.size, file.modified] for file in corpus.source.files],
        shards=[shard.to_dict() for shard in corpus.shards],
        columns={"text": settings.text_column, "id": settings.id_column, "keep": list(settings.keep)},
        schema={column.name: str(column.type) for column in schema},
    )


def _run(
    job: Job,
    files: dict[str, bytes],
    corpus: Corpus,
    missing: list[Shard],
    total: Counts,
    console: Console,
) -> Record:
    """Score the missing shards and add their counts to the total; gives how fast it went."""
    workers = pool.place(job.settings.workers, len(missing))
    console.say(f"{pool.describe(workers)}; engine {job.engine}")
    shards = corpus.shards
    all_bytes = sum(shard.bytes for shard in shards)
    done_bytes = all_bytes - sum(shard.bytes for shard in missing)
    left, before, began = len(missing), total.rows, time.perf_counter()
    start_seconds = seconds = rate = 0.0
    for record in pool.run(partial(ShardScorer, job, files), corpus.items(missing), workers):
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
    """Stop when too many rows are bad.

    Before the end, the input's rows are guessed from the share of its bytes that is done: only after many rows, and
    with room for a wrong guess.
    """
    bad, allowed = total.rows - total.scored, settings.max_bad_rows
    if share_done < 1:
        if total.rows < EARLY_STOP_ROWS:
            return
        allowed *= EARLY_STOP_MARGIN / share_done
    if bad <= allowed * total.rows:
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
