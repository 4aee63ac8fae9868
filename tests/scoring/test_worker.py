"""What one worker makes of one shard: an attempt and its counts, also where reading fails."""

import errno
import threading
from collections.abc import Callable
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
from sentray.scoring import job, parts, worker
from sentray.scoring.columns import output_schema
from sentray.scoring.output import Attempt
from sentray.scoring.stats import Counts
from sentray.scoring.worker import Job, ShardScorer, Task
from sentray.storage import Output

DIGEST = "d" * 64
LABELS = ("neg", "pos")

MakeWorker = Callable[..., tuple[ShardScorer, list[Task]]]

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture
def make(reviews: Path, out: Path) -> MakeWorker:
    """A worker in this process, and the tasks of the reviews."""

    def build(shard_size: int = 1_000_000, **changes: Any) -> tuple[ShardScorer, list[Task]]:
        source = resolve(str(reviews))
        settings = ScoreSettings(bundle="bundle", input=str(reviews), out=str(out), **changes)
        schema = output_schema(LABELS, pa.schema([]), DIGEST)
        work = Job(source, settings, schema, "light", DIGEST)
        made = job.ShardScorer(work, {"bundle.json": b'{"labels": ["neg", "pos"]}'})
        return made, [Task(shard) for shard in plan_shards(source, shard_size)]

    return build


def test_an_attempt_tells_of_its_files_and_rows(make: MakeWorker, out: Path, reviews: Path) -> None:
    scorer, (task,) = make()
    attempt: Attempt = scorer.score(task)
    counts, (part,), quarantine = attempt.record.counts, attempt.record.parts, attempt.record.quarantine
    assert quarantine is not None
    assert part.name == f"scores/part-000000-{'d' * 12}.parquet"
    assert quarantine.name == "_sentray/quarantine/000000.parquet"
    # Nothing has its final name yet.
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == sorted(attempt.names)
    assert all(name.startswith("_sentray/attempts/") for name in written)
    scored, set_aside = (pq.ParquetFile(out / name).metadata.num_rows for name in attempt.names)
    assert scored == part.rows == counts.scored == 300
    assert set_aside == quarantine.rows == 4
    assert counts.rows == 304
    assert counts.quarantined == {"null_text": 2, "empty_text": 2}
    assert sum(counts.labels.values()) == sum(counts.histogram) == 300
    assert counts.bytes == sum(path.stat().st_size for path in reviews.iterdir())
    assert counts.unread_bytes == 0


def test_two_attempts_have_other_names_and_the_same_content(make: MakeWorker, out: Path) -> None:
    scorer, (task,) = make(partition_by="label")
    first, second = (scorer.score(task) for _ in range(2))
    assert not set(first.names) & set(second.names)
    assert first.record.files == second.record.files
    for one, other in zip(first.names, second.names, strict=True):
        assert (out / one).read_bytes() == (out / other).read_bytes()


@pytest.mark.parametrize("how", [{}, {"partition_by": "label"}])
def test_many_rows_are_written_row_group_by_row_group(
    make: MakeWorker, out: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    scorer, (task,) = make(**how)
    wanted = scorer.score(task)
    monkeypatch.setattr(parts, "ROW_GROUP", 50)
    grouped = scorer.score(task)
    # As if the rows were wide: no more than those of one table are held.
    monkeypatch.setattr(worker, "MAX_HELD_BYTES", 1)
    wide = scorer.score(task)
    for attempt in (grouped, wide):
        for name, whole in zip(attempt.names, wanted.names, strict=True):
            assert pq.read_table(out / name).equals(pq.read_table(out / whole))
    for attempt, groups in ((grouped, -(-wanted.record.parts[0].rows // 50)), (wide, 4)):
        metadata = pq.ParquetFile(out / attempt.names[0]).metadata
        assert metadata.num_row_groups >= groups
        assert all(metadata.row_group(group).num_rows <= 76 for group in range(metadata.num_row_groups))


def test_counts_of_shards_add_up(make: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, (whole,) = make()
    wanted = Counts.none()
    wanted.add(scorer.score(whole).record.counts)
    total = Counts.none()
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    _, tasks = make(shard_size=1)
    assert len(tasks) > 1
    for task in tasks:
        total.add(scorer.score(task).record.counts)
    # A part of a file has the size of its row groups, without the footer.
    for name in ("bytes", "seconds", "peak_rss_mb"):
        setattr(wanted, name, getattr(total, name))
    assert total == wanted


def test_the_size_of_files_that_cannot_be_read_is_counted(make: MakeWorker, reviews: Path) -> None:
    content = (reviews / "part1.parquet").read_bytes()
    (reviews / "part1.parquet").write_bytes(content[:1000])
    (reviews / "part2.parquet").write_bytes(b"")
    scorer, (task,) = make()
    counts = scorer.score(task).record.counts
    assert counts.quarantined["unreadable_file"] == 2
    assert counts.unread_bytes == 1000
    assert counts.scored == 152


def test_the_size_of_files_that_vanished_is_counted(make: MakeWorker, reviews: Path) -> None:
    scorer, (task,) = make()
    gone = [reviews / f"part{number}.parquet" for number in (1, 2)]
    wanted = sum(path.stat().st_size for path in gone)
    for path in gone:
        path.unlink()
    assert scorer.score(task).record.counts.unread_bytes == wanted


def test_a_disk_that_is_full_at_the_last_flush_is_one_sentence(
    make: MakeWorker, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, (task,) = make()

    def write(self: Output, content: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Output, "write", write)
    with pytest.raises(SentrayError, match=r"cannot be written \(.*No space left on device\); make room"):
        scorer.score(task)
    assert not list((out / "_sentray/attempts").iterdir())


def test_a_value_that_makes_too_long_a_folder_name_is_refused(make: MakeWorker, monkeypatch) -> None:
    monkeypatch.setattr(worker, "_MAX_NAME_BYTES", 8)
    scorer, (task,) = make(partition_by="label")
    with pytest.raises(SentrayError, match=r"folder's name of 9 bytes \(label=(neg|pos)….*more than the 8"):
        scorer.score(task)


def test_an_object_store_that_is_busy_is_asked_again(
    make: MakeWorker, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, (task,) = make()
    wanted = scorer.score(task).record
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
    attempt = scorer.score(task)
    assert attempt.record.files == wanted.files
    assert attempt.record.counts.rows == 304
    # Of the readings that broke off nothing is left.
    assert len(list((out / "_sentray/attempts").iterdir())) == 2 * len(attempt.names)


def test_parquet_is_read_by_the_thread_that_scores(make: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, (task,) = make()
    monkeypatch.setattr(scorer, "_pauses", (0.0,))
    threads = set()

    def read(*given: Any, **more: Any) -> Any:
        for table in read_shard(*given, **more):
            threads.add(threading.current_thread())
            yield table

    monkeypatch.setattr(worker, "read_shard", read)
    scorer.score(task)
    assert threads == {threading.main_thread()}


def test_rows_that_kill_are_left_out_by_their_index(make: MakeWorker, out: Path) -> None:
    scorer, (task,) = make()
    assert scorer.probe((task, 0, 0)) == 304
    # The row 150 has no text: that is why it is set aside.
    attempt = scorer.score(replace(task, crashes=(0, 100, 150, 303)))
    assert attempt.record.counts.quarantined == {"null_text": 2, "empty_text": 2, "crash": 3}
    bad = pq.read_table(out / attempt.names[-1]).to_pylist()
    assert [row["id"] for row in bad if row["reason"] == "crash"] == ["r0", "r100", "r303"]


def test_a_file_whose_ids_were_not_read_is_not_scored_unseen(make: MakeWorker, out: Path, reviews: Path) -> None:
    scorer, (task,) = make()
    index, blocks, unread = scorer.ids(task)
    assert (index, len(blocks), unread) == (0, 4, set())
    content = (reviews / "part1.parquet").read_bytes()
    (reviews / "part1.parquet").write_bytes(content[:1000])
    _, blocks, unread = scorer.ids(task)
    assert (len(blocks), unread) == (3, {"part1.parquet"})
    unseen = replace(task, ids_unread=unread)
    attempt = scorer.score(unseen)
    assert attempt.record.counts.quarantined["unreadable_file"] == 1
    (reviews / "part1.parquet").write_bytes(content)
    with pytest.raises(SentrayError, match=r"^part1\.parquet could not be read at first and now can"):
        scorer.score(unseen)
    # Another file that cannot be read now does not stand for it.
    other = (reviews / "part2.parquet").read_bytes()
    (reviews / "part2.parquet").write_bytes(other[:1000])
    with pytest.raises(SentrayError, match=r"^part1\.parquet could not be read at first and now can"):
        scorer.score(unseen)
    assert sorted(attempt.names) == sorted(
        f"_sentray/attempts/{path.name}" for path in (out / "_sentray/attempts").iterdir()
    )
