"""Reviews to score, runs of a job without Ray, and workers without a network."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray.bundle import Bundle
from sentray.config import CorpusSettings, ScoreSettings, VerifySettings
from sentray.console import Console
from sentray.corpus.readers import read_shard
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, mark
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Shard, ShardPlan
from sentray.inference.scorer import Scores
from sentray.scoring import compaction, job, report
from sentray.scoring.output import LEDGER, Columns, Header, Log, OutputFolder, Record
from sentray.scoring.parts import Part, part_name, partition_folder, quarantine_name
from sentray.scoring.stats import Counts
from sentray.scoring.verify import verify


@pytest.fixture
def reviews(tmp_path: Path, make_reviews: Callable[..., list[str]]) -> Path:
    """A folder of Parquet files, a shard each: 300 good rows and, in the middle one, four bad ones."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    texts: list[str | None] = list(make_reviews(300))
    for row, bad in ((150, None), (160, "  "), (170, ""), (180, None)):
        texts.insert(row, bad)
    for part, start in enumerate(range(0, len(texts), 76)):
        chunk = texts[start : start + 76]
        table = pa.table(
            {
                "id": [f"r{start + row}" for row in range(len(chunk))],
                "text": chunk,
                "label": [("neg", "pos")[row % 2] for row in range(len(chunk))],
                "rating": pa.array([row % 10 for row in range(len(chunk))], pa.int8()),
            }
        )
        pq.write_table(table, folder / f"part{part}.parquet")
    return folder


class Run:
    """A run of a scoring job without Ray and without a network: a row's score follows from its text's length.

    Attributes:
        out: The output folder.
        header: What the job is.
        crashes: File and row of rows that kill who scores them.
    """

    digest = "b" * 64

    def __init__(self, reviews: Path, out: Path, **changes: Any) -> None:
        self.reviews, self.out = reviews, OutputFolder(str(out))
        self.crashes: set[tuple[str, int]] = set()
        schema = {"id": "string", "label": "string", "score": "float"}
        schema.pop(changes.get("partition_by", ""), None)
        self.header = Header(
            **{
                "bundle": self.digest,
                "engine": "folded",
                "input": str(reviews),
                "shard_size": 1,
                "columns": Columns("text", "id"),
                "schema": schema,
            }
            | changes
        )

    @property
    def source(self) -> Source:
        return resolve(str(self.reviews))

    def open(self, new_input: bool = False) -> ShardPlan:
        return self.out.open(self.header, self.source, new_input)

    def committed(self) -> list[int]:
        return sorted(record.shard for record in self.out.records())

    def score(self, shards: Iterable[Shard]) -> None:
        self.record(map(self.files, shards))

    def record(self, records: Iterable[Record]) -> None:
        """Write lines into the ledger."""
        log = Log(self.out, LEDGER)
        for record in records:
            log.add(record)
        log.flush()

    def files(self, shard: Shard) -> Record:
        """Write a shard's files and do not record them."""
        rows = pa.concat_tables(read_shard(self.source, shard, CorpusSettings(), on_unreadable="quarantine"))
        killers = [row in self.crashes for row in zip(rows["file"].to_pylist(), rows["row"].to_pylist(), strict=True)]
        rows = mark(rows, np.array(killers, bool), Reason.CRASH)
        good, bad = (rows.filter(mask) for mask in (rows["reason"].is_null(), rows["reason"].is_valid()))
        lengths = [len(text) for text in good["text"].to_pylist()]
        scored = pa.table(
            {
                "id": good["id"],
                "label": pa.array([("neg", "pos")[length % 2] for length in lengths], pa.string()),
                "score": pa.array([length % 101 / 101 for length in lengths], pa.float32()),
            }
        ).replace_schema_metadata({"sentray.bundle": self.digest})
        counts = Counts(
            rows=rows.num_rows,
            scored=good.num_rows,
            quarantined=Counter(bad["reason"].to_pylist()),
            labels=Counter(scored["label"].to_pylist()),
            histogram=np.histogram(scored["score"], 20, (0, 1))[0].tolist(),
            words=sum(lengths),
            known_words=sum(lengths) // 2,
        )
        parts = tuple(self._put(shard, *partition) for partition in self._partitions(scored))
        set_aside = bad.select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA)
        name = quarantine_name(shard.index)
        quarantine = self.put(name, parquet(set_aside), bad.num_rows) if bad.num_rows else None
        return Record(shard.index, parts, quarantine, counts)

    def _partitions(self, scored: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        column = self.header.partition_by
        if column is None:
            yield "", scored
            return
        for value in scored[column].unique().to_pylist():
            rows = scored.filter(pa.compute.equal(scored[column], value)).drop_columns(column)
            yield partition_folder(column, value), rows

    def _put(self, shard: Shard, partition: str, rows: pa.Table) -> Part:
        staged = self.header.rows_per_file is not None
        name = part_name(shard.index, self.digest, staged, partition)
        return self.put(name, parquet(rows), rows.num_rows)

    def put(self, name: str, content: pa.Buffer | bytes, rows: int) -> Part:
        """Write a file; gives what a record says of it."""
        with self.out.create(name) as output:
            output.write(content)
        return Part(name, rows, output.bytes, output.sha256)

    def finish(self) -> None:
        compaction.compact(self.out)
        compaction.compact_quarantine(self.out)
        total, shards = Counts.none(), 0
        for record in self.out.records():
            total.add(record.counts)
            shards += 1
        self.out.write_json(
            "summary.json",
            {
                "bundle": self.digest,
                "rows": total.rows,
                "rows_scored": total.scored,
                "rows_quarantined": total.bad,
                "shards": shards,
                "score_histogram": total.histogram,
                "words": total.words,
                "known_words": total.known_words,
                "quarantined": total.quarantined,
                "labels": total.labels,
            },
        )

    def whole(self) -> "Run":
        """Do all of it."""
        self.score(self.open())
        self.finish()
        return self


def parquet(table: pa.Table) -> pa.Buffer:
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    return content.getvalue()


@pytest.fixture
def run(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Make a run over the reviews; small files make a shard each."""
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    return lambda out=tmp_path / "out", **changes: Run(reviews, out, **changes)


POISON = "the process that scores this dies"


class LightScorer:
    """Gives scores that depend on a text's length; dies of `POISON`."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.bundle = SimpleNamespace(labels=labels, metrics={}, spec=SimpleNamespace(columns=()))

    def score(self, texts: pa.ChunkedArray, numbers: None = None) -> Scores:
        values = texts.to_pylist()
        if POISON in values:
            os.kill(os.getpid(), signal.SIGKILL)
        length = np.array([len(text) for text in values], np.int32)
        positive = (length % 101 / 101).astype(np.float32)
        return Scores(np.stack([1 - positive, positive], axis=1), length, length // 2)


@pytest.fixture
def a_shard_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files make a shard each."""
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers without a network, which start in a tenth of the time, and a report without pictures."""

    class LightShardScorer(job.ShardScorer):
        def _load(self, files: dict[str, bytes]) -> Any:
            return LightScorer(tuple(json.loads(files["bundle.json"])["labels"]))

    monkeypatch.setattr(job, "ShardScorer", LightShardScorer)
    # Drawing takes as long as such a job.
    monkeypatch.setattr(report, "_pictures", lambda *given: [])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def score(small_bundle: Bundle, reviews: Path, out: Path, console: Console) -> Callable[..., dict[str, Any]]:
    """Runs the job in this process, with one worker unless told otherwise."""

    def run(**changes: Any) -> dict[str, Any]:
        values = {"bundle": small_bundle.path, "input": reviews, "out": out, "workers": 1} | changes
        values |= {name: str(values[name]) for name in ("bundle", "input", "out")}
        return job.score(ScoreSettings(**{"max_bad_rows": 0.05} | values), console)

    return run


@pytest.fixture
def proved() -> Callable[[Path, Path], pa.Table]:
    """Lets `verify` prove an output against its input; gives the scores."""

    def prove(out: Path, given: Path) -> pa.Table:
        verify(VerifySettings(directory=str(out), input=str(given)), Console())
        return ds.dataset(out / "scores", partitioning="hive").to_table()

    return prove
