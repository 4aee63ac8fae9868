"""What one worker makes of one shard: its files and its account, also where reading fails."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.config import ScoreSettings
from sentray.corpus.readers import read_shard
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards
from sentray.errors import SentrayError
from sentray.lease import Fence, Lease
from sentray.scoring import job, worker
from sentray.scoring.counts import Counts
from sentray.scoring.ledger import Ledger
from sentray.scoring.worker import Job, ShardScorer, Task, output_schema

DIGEST = "d" * 64
LABELS = ("neg", "pos")

MakeWorker = Callable[..., tuple[ShardScorer, list[Task]]]

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture
def lease(out: Path) -> Iterator[Lease]:
    with Ledger(str(out)).lease() as lease:
        yield lease


@pytest.fixture
def make(reviews: Path, out: Path, lease: Lease) -> MakeWorker:
    """A worker in this process, and the tasks of the reviews."""

    def build(shard_size: int = 1_000_000, **changes: Any) -> tuple[ShardScorer, list[Task]]:
        source = resolve(str(reviews))
        settings = ScoreSettings(bundle="bundle", input=str(reviews), out=str(out), **changes)
        schema = output_schema(LABELS, pa.schema([]), DIGEST)
        work = Job(source, settings, schema, Ledger(settings.out), "light", DIGEST, lease.fence)
        made = job.ShardScorer(work, {"bundle.json": b'{"labels": ["neg", "pos"]}'})
        return made, [Task(shard, lease.fence.owner) for shard in plan_shards(source, shard_size)]

    return build


def test_a_record_tells_of_its_files_and_rows(make: MakeWorker, out: Path, reviews: Path) -> None:
    scorer, (task,) = make()
    record = scorer.score(task)
    counts = record.counts
    (part,) = record.parts
    assert record.quarantine is not None
    assert pq.ParquetFile(out / part.name).metadata.num_rows == part.rows == counts["scored"] == 300
    assert pq.ParquetFile(out / record.quarantine.name).metadata.num_rows == record.quarantine.rows == 4
    assert counts["rows"] == 304
    assert counts["quarantined"] == {"null_text": 2, "empty_text": 2}
    assert sum(counts["labels"].values()) == sum(counts["histogram"]) == 300
    assert counts["bytes"] == sum(path.stat().st_size for path in reviews.iterdir())
    assert counts["unread_bytes"] == 0


def test_counts_of_shards_add_up(make: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, (whole,) = make()
    wanted = Counts()
    wanted.add(scorer.score(whole).counts)
    total = Counts()
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    _, tasks = make(shard_size=1)
    assert len(tasks) > 1
    for task in tasks:
        total.add(scorer.score(task).counts)
    # A part of a file has the size of its row groups, without the footer.
    for name in ("bytes", "seconds", "peak_rss_mb"):
        setattr(wanted, name, getattr(total, name))
    assert total == wanted


def test_the_size_of_files_that_cannot_be_read_is_counted(make: MakeWorker, reviews: Path) -> None:
    content = (reviews / "part1.parquet").read_bytes()
    (reviews / "part1.parquet").write_bytes(content[:1000])
    (reviews / "part2.parquet").write_bytes(b"")
    scorer, (task,) = make()
    record = scorer.score(task)
    assert record.counts["quarantined"]["unreadable_file"] == 2
    assert record.counts["unread_bytes"] == 1000
    assert record.counts["scored"] == 152


def test_the_size_of_files_that_vanished_is_counted(make: MakeWorker, reviews: Path) -> None:
    scorer, (task,) = make()
    gone = [reviews / f"part{number}.parquet" for number in (1, 2)]
    wanted = sum(path.stat().st_size for path in gone)
    for path in gone:
        path.unlink()
    assert scorer.score(task).counts["unread_bytes"] == wanted


def test_a_value_that_makes_too_long_a_folder_name_is_refused(make: MakeWorker, monkeypatch) -> None:
    monkeypatch.setattr(worker, "_LONGEST_NAME", 8)
    scorer, (task,) = make(partition_by="label")
    with pytest.raises(SentrayError, match=r"folder's name of 9 bytes \(label=(neg|pos)….*more than the 8"):
        scorer.score(task)


def test_an_object_store_that_is_busy_is_asked_again(make: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, (task,) = make()
    wanted = scorer.score(task)
    scorer, _ = make()
    monkeypatch.setattr(scorer, "_pauses", (0.0, 0.0))
    failures = iter(["reset", "throttled"])

    def hang_up(*given: Any, on_unreadable: str, **more: Any) -> Any:
        tables = list(read_shard(*given, on_unreadable="raise", **more))
        assert len(tables) > 2
        yield from tables[:2]
        if failure := next(failures, None):
            raise SentrayError(failure)
        yield from tables[2:]

    monkeypatch.setattr(worker, "read_shard", hang_up)
    record = scorer.score(task)
    assert record._replace(counts={}) == wanted._replace(counts={})
    assert record.counts["rows"] == 304


@pytest.mark.parametrize(
    "ends",
    [lambda lease: lease.__exit__(None, None, None), lambda lease: take_over(lease), lambda lease: lease.renew_fence()],
)
def test_a_process_that_outlives_its_run_writes_nothing(
    make: MakeWorker, out: Path, lease: Lease, ends: Callable[[Lease], None]
) -> None:
    scorer, (task,) = make()
    ends(lease)
    with pytest.raises(SentrayError, match=r"out is no longer this run's"):
        scorer.score(task)
    assert not (out / "scores").exists()


def test_of_each_file_the_lease_is_asked_once(make: MakeWorker, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, (task,) = make(partition_by="label")
    asked: list[str] = []
    usual = Fence.broken
    monkeypatch.setattr(Fence, "broken", lambda fence: asked.append(fence.owner) or usual(fence))
    record = scorer.score(task)
    assert len(record.parts) == 2
    # Before the first file, and as each of the two and the quarantined rows appear.
    assert asked == [task.owner] * 4


def test_a_run_that_is_taken_over_while_a_file_is_written_leaves_none(
    make: MakeWorker, out: Path, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, (task,) = make()
    usual = pq.write_table
    monkeypatch.setattr(pq, "write_table", lambda *given, **more: (usual(*given, **more), take_over(lease)))
    with pytest.raises(SentrayError, match=r"out is no longer this run's"):
        scorer.score(task)
    assert not list(out.rglob("*.parquet*"))


def take_over(lease: Lease) -> None:
    path = Path(lease._folder.path("_sentray/lease.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"owner": "another"}))


def test_rows_that_kill_are_left_out_by_their_place(make: MakeWorker, out: Path) -> None:
    scorer, (task,) = make()
    assert scorer.count(task) == 304
    # The row 150 has no text: that is why it is set aside.
    record = scorer.score(replace(task, crashes=(0, 100, 150, 303)))
    assert record.counts["quarantined"] == {"null_text": 2, "empty_text": 2, "crash": 3}
    assert record.quarantine is not None
    bad = pq.read_table(out / record.quarantine.name).to_pylist()
    assert [row["id"] for row in bad if row["reason"] == "crash"] == ["r0", "r100", "r303"]


def test_a_file_whose_ids_were_not_read_is_not_scored_unseen(make: MakeWorker, reviews: Path) -> None:
    scorer, (task,) = make()
    index, blocks, complete = scorer.ids(task.shard)
    assert (index, len(blocks), complete) == (0, 4, True)
    content = (reviews / "part1.parquet").read_bytes()
    (reviews / "part1.parquet").write_bytes(content[:1000])
    _, blocks, complete = scorer.ids(task.shard)
    assert (len(blocks), complete) == (3, False)
    unseen = replace(task, ids_unread=True)
    assert scorer.score(unseen).counts["quarantined"]["unreadable_file"] == 1
    (reviews / "part1.parquet").write_bytes(content)
    with pytest.raises(SentrayError, match="could not be read at first and now can"):
        scorer.score(unseen)
