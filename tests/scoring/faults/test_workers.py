"""Processes that die while they score: nothing is lost, nothing is there twice, and rows that kill are named."""

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.errors import SentrayError
from sentray.scoring import crashes, job
from sentray.scoring.worker import Task

POISON = "the process that scores this dies"
"""The text of which the scorer of the fixture `light` dies."""

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file", "light")


def test_a_worker_killed_at_work_costs_nothing(score, out: Path, reviews: Path, proved, console, monkeypatch) -> None:
    score(out=out.parent / "undisturbed")
    notes: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(console, "note", lambda line, **fields: notes.append((line, fields)))
    pids = out.parent / "pids"
    pids.mkdir()

    class Slow(job.ShardScorer):
        """Says who it is, and takes its time."""

        def score(self, task: Task) -> Any:
            (pids / str(os.getpid())).touch()
            record = super().score(task)
            time.sleep(0.3)
            return record

    def kill() -> None:
        killed: set[Path] = set()
        while len(killed) < 2:
            for pid in set(pids.iterdir()) - killed:
                # Now and then before, and now and then after the shard's files are written.
                time.sleep(0.2 * len(killed))
                os.kill(int(pid.name), signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    monkeypatch.setattr(job, "ShardScorer", Slow)
    summary = score(workers=2)
    killer.join(60)
    assert len(list(pids.iterdir())) > 2
    assert notes
    for line, fields in notes:
        assert fields == {"shard": fields["shard"], "reason": "process_died"}
        assert re.fullmatch(
            rf"shard {fields['shard']}: process \d+ on [\d.]+ died; what it worked on is done again", line
        )
    assert summary["rows"] == summary["rows_scored"] + summary["rows_quarantined"] == 304
    assert proved(out, reviews).equals(proved(out.parent / "undisturbed", reviews))


def test_files_that_another_process_wrote_over_are_made_again(
    score, out: Path, reviews: Path, proved, monkeypatch
) -> None:
    score(out=out.parent / "undisturbed")
    usual, trace = job.ShardScorer, out.parent / "written"
    counted: list[Any] = []

    class Twice(usual):
        """Once, a second process writes other bytes after the first has told what it wrote; later it comes back."""

        def score(self, task):
            if task.shard.index == 2 and trace.exists():
                try:
                    super().score(self._earlier)
                except SentrayError as refusal:
                    trace.write_text(str(refusal))
            record = super().score(task)
            if task.shard.index == 2 and not trace.exists():
                trace.touch()
                self._earlier = task
                (out / record.parts[0].name).write_bytes(bytes(record.parts[0].bytes))
            return record

    class Counted(job.ScoringTelemetry):
        """Remembers what it is told."""

        def commit(self, counts):
            counted.append(counts["rows"])

        def retry(self, reason):
            counted.append(reason)

    class Contested(job.Pool):
        """Takes each shard for one that two processes had."""

        def map(self, method, items, **more):
            self.contested += (items := list(items))
            yield from super().map(method, items, **more)

    monkeypatch.setattr(job, "ShardScorer", Twice)
    monkeypatch.setattr(job, "Pool", Contested)
    monkeypatch.setattr(job, "ScoringTelemetry", Counted)
    summary = score()
    assert "is no longer this run's" in trace.read_text()
    assert summary["rows"] == 304
    # Each shard counts once, whichever is scored again.
    assert counted == [76, 76, 76, 76, "overwritten"]
    assert proved(out, reviews).equals(proved(out.parent / "undisturbed", reviews))


def test_a_shard_that_always_kills_stops_the_job(score, out: Path, monkeypatch) -> None:
    class Deadly(job.ShardScorer):
        """Dies of a shard, but of none of its rows: as one does that has too little memory."""

        def score(self, task: Task) -> Any:
            if task.shard.index == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().score(task)

    with monkeypatch.context() as patch:
        patch.setattr(job, "ShardScorer", Deadly)
        with pytest.raises(SentrayError, match=r"one shard died, 4 of them \(out of memory\?\)"):
            score(workers=2)
    assert not (out / "summary.json").exists()
    assert score()["rows"] == 304


def test_rows_that_kill_are_found_and_set_aside(score, out: Path, reviews: Path, proved, monkeypatch) -> None:
    score(out=out.parent / "undisturbed")
    wanted = proved(out.parent / "undisturbed", reviews).to_pylist()
    _poison(reviews, [7, 70])
    ticks = []
    monkeypatch.setattr(
        "sentray.scoring.job.score_without_crashes",
        lambda pool, task, tick: crashes.score_without_crashes(pool, task, lambda: ticks.append(tick())),
    )
    summary = score(workers=2)
    assert len(ticks) > 8
    assert summary["quarantined"] == {"null_text": 2, "empty_text": 2, "crash": 2}
    bad = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert [(row["file"], row["row"], row["text"]) for row in bad if row["reason"] == "crash"] == [
        ("part3.parquet", 8, POISON),
        ("part3.parquet", 71, POISON),
    ]
    assert proved(out, reviews).to_pylist() == [row for row in wanted if row["id"] not in ("r235", "r298")]


def test_where_too_many_rows_kill_the_job_stops(score, out: Path, reviews: Path, monkeypatch) -> None:
    monkeypatch.setattr("sentray.scoring.crashes.MAX_CRASHES", 3)
    _poison(reviews, list(range(76)))
    with pytest.raises(SentrayError, match=r"more than 3 rows of .*part3\.parquet kill the process"):
        score(workers=2)
    # What was committed stays.
    assert len(list((out / "scores").iterdir())) == 3


def _poison(reviews: Path, rows: list[int]) -> None:
    """Put texts that kill into one of the files."""
    table = pq.read_table(reviews / "part3.parquet").to_pydict()
    table["text"] = [POISON if row in rows else text for row, text in enumerate(table["text"])]
    pq.write_table(pa.table(table), reviews / "part3.parquet")
