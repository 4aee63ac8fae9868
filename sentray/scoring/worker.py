"""What a scoring process does with a shard: read it, score it, write its files, record the commit."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sentray import __version__
from sentray.config import ScoreSettings
from sentray.corpus.dataset import Rows, mark_duplicates
from sentray.corpus.readers import read_shard
from sentray.corpus.shards import Shard
from sentray.corpus.source import Source
from sentray.errors import SentrayError
from sentray.quarantine import QUARANTINE_SCHEMA
from sentray.scoring.ledger import Ledger
from sentray.scoring.pool import WORKER_CPUS
from sentray.scoring.scorer import Scorer, unpacked_scorer

HISTOGRAM_BINS = 20
COMPRESSION = "zstd"


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


@dataclass
class Counts:
    """Counts over scored rows, of a shard or of a whole job.

    Attributes:
        rows: Rows read.
        scored: Rows scored; the other rows are quarantined.
        quarantined: Rows set aside, by reason.
        labels: Rows by the label they got.
        histogram: Rows in equal bins from 0 to 1 of a probability: the second of two labels' or the best's.
        words: Words of the scored rows.
        known_words: Those of them that the vocabulary has.
        seconds: Time that workers spent on the shards.
    """

    rows: int = 0
    scored: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)
    words: int = 0
    known_words: int = 0
    seconds: float = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Add the counts of a shard's record."""
        self.rows += other["rows"]
        self.scored += other["scored"]
        self.quarantined.update(other["quarantined"])
        self.labels.update(other["labels"])
        self.histogram = [a + b for a, b in zip(self.histogram, other["histogram"], strict=True)]
        self.words += other["words"]
        self.known_words += other["known_words"]
        self.seconds += other["seconds"]

    def add_scored(self, table: pa.Table) -> None:
        """Add the rows of a table of the output's schema."""
        self.scored += table.num_rows
        self.labels.update(table["label"].to_pylist())
        scores = table["positive" if "positive" in table.column_names else "score"].to_numpy()
        in_bins, _ = np.histogram(scores, HISTOGRAM_BINS, (0, 1))
        self.histogram = [a + b for a, b in zip(self.histogram, in_bins.tolist(), strict=True)]
        self.words += int(table["words"].to_numpy().sum())
        self.known_words += int(table["known_words"].to_numpy().sum())


@dataclass(frozen=True)
class Job:
    """All that a worker must know: it needs neither the driver's folders nor its memory.

    Attributes:
        source: Where the shards lie.
        settings: What the user asked for: columns of the input, columns to keep, engine.
        schema: Columns of the output, the kept ones last.
        ledger: The output folder.
        engine: Name of the engine, chosen.
        digest: The bundle's digest.
    """

    source: Source
    settings: ScoreSettings
    schema: pa.Schema
    ledger: Ledger
    engine: str
    digest: str


class ShardScorer:
    """Scores shards; an actor of the pool.

    Args:
        job: What to do.
        files: The packed bundle.
    """

    def __init__(self, job: Job, files: dict[str, bytes]) -> None:
        self._job = job
        self._scorer = unpacked_scorer(files, job.engine, WORKER_CPUS)

    def __call__(self, item: tuple[Shard, Rows]) -> dict[str, Any]:
        """Score and commit a shard, given with those of its rows whose id an earlier row has; gives its record."""
        job, scorer = self._job, self._scorer
        shard, duplicates = item
        started = time.perf_counter()
        counts = Counts()
        scored, set_aside = [job.schema.empty_table()], [QUARANTINE_SCHEMA.empty_table()]
        for table in read_shard(job.source, shard, job.settings, keep=job.settings.keep):
            rows = mark_duplicates(table, duplicates)
            counts.rows += rows.num_rows
            good, bad = rows.filter(rows["reason"].is_null()), rows.filter(rows["reason"].is_valid())
            if good.num_rows:
                scored.append(self._table(good, scorer))
                counts.add_scored(scored[-1])
            counts.quarantined.update(bad["reason"].to_pylist())
            set_aside.append(bad.select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA))
        part = job.ledger.part(shard.index, job.digest)
        job.ledger.write(part, _parquet(scored))
        if counts.scored < counts.rows:
            job.ledger.write_quarantine(shard.index, _parquet(set_aside))
        counts.seconds = round(time.perf_counter() - started, 3)
        record = {
            "shard": shard.index,
            "part": part,
            "bytes": shard.bytes,
            "engine": scorer.engine.name,
            **vars(counts),
        }
        job.ledger.commit(shard.index, record)
        return record

    def _table(self, rows: pa.Table, scorer: Scorer) -> pa.Table:
        scores, labels = scorer.score(rows["text"]), scorer.bundle.labels
        positive = [scores.probabilities[:, 1]] if len(labels) == 2 else []
        own = [
            rows["id"],
            pa.array(labels, pa.string()).take(pa.array(scores.classes)),
            scores.best,
            *positive,
            scores.words,
            scores.known,
        ]
        kept = [self._cast(rows, name) for name in self._job.settings.keep]
        return pa.table([*own, *kept], schema=self._job.schema)

    def _cast(self, rows: pa.Table, name: str) -> pa.ChunkedArray:
        wanted = self._job.schema.field(name).type
        try:
            return rows[name].cast(wanted)
        except pa.ArrowException as error:
            raise SentrayError(
                f"the column {name} of {rows['file'][0]} is {rows[name].type} and does not fit {wanted}, its "
                "type in the input's first file; give it one type in all files, or leave out --keep"
            ) from error


def _parquet(tables: list[pa.Table]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables), sink, compression=COMPRESSION)
    return sink.getvalue()
