"""Processes that die while they score: nothing is lost, nothing is there twice, and rows that kill are named."""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.errors import SentrayError
from sentray.scoring import job, tasks
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
            attempt = super().score(task)
            time.sleep(0.3)
            return attempt

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
    # A busy machine may have stragglers, too.
    died = [(line, fields["shard"]) for line, fields in notes if fields["reason"] == "process_died"]
    assert died
    for line, shard in died:
        assert line == f"shard {shard}: its process died; it is done again, alone"
    assert summary["rows"] == summary["rows_scored"] + summary["rows_quarantined"] == 304
    assert proved(out, reviews).equals(proved(out.parent / "undisturbed", reviews))


def test_innocent_workers_that_are_killed_at_random_quarantine_nothing(
    score, out: Path, reviews: Path, proved, console, monkeypatch
) -> None:
    """As the kernel's memory killer and evicted pods do it: while ids are read, shards scored, and suspects tried."""
    score(out=out.parent / "undisturbed")
    pids, over = out.parent / "pids", threading.Event()
    pids.mkdir()
    monkeypatch.setattr(console, "note", lambda line, **fields: None)

    class Slow(job.ShardScorer):
        """Says when it works."""

        def score(self, task: Task) -> Any:
            mark = pids / str(os.getpid())
            mark.touch()
            attempt = super().score(task)
            time.sleep(0.2)
            mark.unlink(missing_ok=True)
            return attempt

    chance, killed = random.Random(11), []

    def kill() -> None:
        while not over.wait(chance.uniform(0.05, 0.4)) and len(killed) < 8:
            for mark in pids.iterdir():
                mark.unlink(missing_ok=True)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(mark.name), signal.SIGKILL)
                    killed.append(mark.name)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    monkeypatch.setattr(job, "ShardScorer", Slow)
    try:
        summary = score(workers=2)
    finally:
        over.set()
        killer.join(60)
    assert len(killed) > 3
    assert summary["quarantined"] == {"null_text": 2, "empty_text": 2}
    assert proved(out, reviews).equals(proved(out.parent / "undisturbed", reviews))


@pytest.mark.slow
def test_a_shard_that_always_kills_stops_the_job(score, out: Path, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "RETRIES", 1)

    class Deadly(job.ShardScorer):
        """Dies of a shard, but of none of its rows: as one does that has too little memory."""

        def score(self, task: Task) -> Any:
            if task.shard.index == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().score(task)

    with monkeypatch.context() as patch:
        patch.setattr(job, "ShardScorer", Deadly)
        with pytest.raises(SentrayError, match=r"one shard died, \d of them \(out of memory\?\)"):
            score(workers=2)
    assert not (out / "summary.json").exists()
    assert score()["rows"] == 304


@pytest.mark.parametrize("rows", [[70], pytest.param([7, 70], marks=pytest.mark.slow)])
def test_rows_that_kill_are_found_and_set_aside(
    score, out: Path, reviews: Path, proved, monkeypatch, rows: list[int]
) -> None:
    score(out=out.parent / "undisturbed")
    wanted = proved(out.parent / "undisturbed", reviews).to_pylist()
    _poison(reviews, rows)
    ticks = []
    monkeypatch.setattr(
        "sentray.scoring.job.score_without_crashes",
        lambda running, task, tick: tasks.score_without_crashes(running, task, lambda moved: ticks.append(tick(moved))),
    )
    summary = score(workers=2)
    assert ticks
    assert summary["quarantined"] == {"null_text": 2, "empty_text": 2, "crash": len(rows)}
    bad = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert [(row["file"], row["row"], row["text"]) for row in bad if row["reason"] == "crash"] == [
        ("part3.parquet", row + 1, POISON) for row in rows
    ]
    killers = {f"r{228 + row}" for row in rows}
    assert proved(out, reviews).to_pylist() == [row for row in wanted if row["id"] not in killers]


@pytest.mark.slow
def test_where_too_many_rows_kill_the_job_stops(score, out: Path, reviews: Path, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "MAX_CRASHES", 3)
    monkeypatch.setattr(tasks, "RETRIES", 1)
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
