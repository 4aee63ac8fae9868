"""Compacted files: the same rows in the same order, whatever was killed on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray.corpus.rows import QUARANTINE_SCHEMA
from sentray.errors import SentrayError
from sentray.scoring import compaction
from sentray.scoring.parts import part_name
from sentray.storage import Folder

MakeRun = Callable[..., Any]


def scores(out: Path) -> pa.Table:
    return ds.dataset(out / "scores", partitioning="hive").to_table()


def names(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out / "scores")) for path in (out / "scores").rglob("*.parquet"))


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / "scores" / name).read_bytes() for name in names(out)}


@pytest.fixture
def single(run: MakeRun, tmp_path: Path) -> pa.Table:
    """The scores of a job that gathers nothing."""
    run(tmp_path / "single").whole()
    return scores(tmp_path / "single")


def test_small_shards_come_together_in_order(run: MakeRun, tmp_path: Path, single: pa.Table) -> None:
    job = run(rows_per_file=150).whole()
    out = tmp_path / "out"
    # Shards of 76, 75, 73 and 76 good rows: two make a file, the next two would be 149.
    assert names(out) == [f"part-{shard:06d}-{'b' * 12}.parquet" for shard in (0, 1, 3)]
    assert scores(out).equals(single)
    assert pq.read_schema(out / "scores" / names(out)[0]).metadata[b"sentray.bundle"] == b"b" * 64
    assert not (out / "_sentray/staged").exists()
    assert job.committed() == [0, 1, 2, 3]
    before = content(out)
    job.open()
    assert compaction.compact(job.out) == 0
    assert content(out) == before


def test_each_partition_has_files_of_its_own(run: MakeRun, tmp_path: Path, single: pa.Table) -> None:
    job = run(rows_per_file=100, partition_by="label").whole()
    out = tmp_path / "out"
    assert {name.split("/")[0] for name in names(out)} == {"label=neg", "label=pos"}
    assert "label" not in pq.read_schema(out / "scores" / names(out)[0]).names
    for label in ("neg", "pos"):
        wanted = single.filter(pa.compute.equal(single["label"], label))
        found = ds.dataset(out / "scores" / f"label={label}").to_table()
        assert found["id"].to_pylist() == wanted["id"].to_pylist()
    assert job.committed() == [0, 1, 2, 3]


def test_row_groups_have_the_size_that_readers_like(
    run: MakeRun, tmp_path: Path, monkeypatch, single: pa.Table
) -> None:
    monkeypatch.setattr("sentray.scoring.parts.ROW_GROUP", 40)
    run(rows_per_file=1000).whole()
    metadata = pq.ParquetFile(tmp_path / "out/scores" / names(tmp_path / "out")[0]).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [40] * 7 + [20]
    assert scores(tmp_path / "out").equals(single)


@pytest.mark.parametrize("partition_by", [None, "label"])
def test_a_kill_at_any_moment_changes_nothing(
    run: MakeRun, tmp_path: Path, monkeypatch, partition_by: str | None
) -> None:
    run(tmp_path / "whole", rows_per_file=80, partition_by=partition_by).whole()
    job = run(rows_per_file=80, partition_by=partition_by)
    job.score(job.open())
    create, move, delete = Folder.create, Folder.move, Folder.delete
    for steps in range(100):
        left = [steps]

        def count(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        def stop(usual: Callable[..., Any], count: Callable[[], None] = count) -> Callable[..., Any]:
            return lambda folder, *names: (count(), usual(folder, *names))[1]

        job.open()
        assert job.committed() == [0, 1, 2, 3]
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "create", stop(create))
            patch.setattr(Folder, "move", stop(move))
            patch.setattr(Folder, "delete", stop(delete))
            try:
                compaction.compact(job.out)
                break
            except KeyboardInterrupt:
                pass
    assert steps > 2
    job.open()
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert job.committed() == [0, 1, 2, 3]


def test_a_lost_file_is_made_again(run: MakeRun, tmp_path: Path) -> None:
    job = run(rows_per_file=80, partition_by="label").whole()
    out = tmp_path / "out"
    before = content(out)
    lost = names(out)[1]
    (out / "scores" / lost).unlink()
    plan = job.open()
    missing = sorted(set(range(4)) - set(job.committed()))
    assert missing
    job.score([plan[shard] for shard in missing])
    job.finish()
    # The rows of the other partition lie in files that are still there, and are not published again.
    assert content(out) == before


@pytest.mark.parametrize("partition_by", [None, "label"])
def test_two_lost_files_do_not_become_one(run: MakeRun, tmp_path: Path, partition_by: str | None) -> None:
    first = run(rows_per_file=1, partition_by=partition_by)
    plan = first.open()
    for shard in plan:
        first.score([shard])
        first.finish()
    out = tmp_path / "out"
    before = content(out)
    for name in names(out):
        if "part-000001" in name or "part-000003" in name:
            (out / "scores" / name).unlink()
    job = run(rows_per_file=1, partition_by=partition_by)
    job.open()
    job.score([plan[1], plan[3]])
    # As many rows as fit in one file: they come apart all the same.
    groups = list(compaction._groups(job.out, 10**9))
    assert [[shard for shard, _ in members] for _, members in groups] == [[1], [3]] * (2 if partition_by else 1)
    job.finish()
    assert content(out) == before


def test_staged_files_are_read_once(run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    job, read, seen = run(rows_per_file=150), compaction.read_part, []
    job.score(job.open())
    monkeypatch.setattr(
        compaction, "read_part", lambda folder, name, *more: (seen.append(name), read(folder, name, *more))[1]
    )
    compaction.compact(job.out)
    assert sorted(seen) == [part_name(shard, job.digest, staged=True) for shard in range(4)]


def test_a_run_that_was_taken_over_publishes_nothing(run: MakeRun, out: Path) -> None:
    job = run(rows_per_file=150)
    job.score(job.open())

    def lost() -> None:
        raise SentrayError("taken over")

    job.out._check = lost
    with pytest.raises(SentrayError, match="taken over"):
        compaction.compact(job.out)
    assert list(job.out.compacted()) == []
    assert not (out / "scores").exists()
    assert job.committed() == [0, 1, 2, 3]


def test_new_input_gets_files_of_its_own(run: MakeRun, reviews: Path, tmp_path: Path) -> None:
    job = run(rows_per_file=1000).whole()
    before = content(tmp_path / "out")
    table = pq.read_table(reviews / "part0.parquet")
    ids = pa.array([f"new{row}" for row in range(table.num_rows)])
    pq.write_table(table.set_column(0, "id", ids), reviews / "added.parquet")
    plan = job.open(new_input=True)
    job.score(plan[4:])
    job.finish()
    after = content(tmp_path / "out")
    assert sorted(after) == [*before, f"part-000004-{'b' * 12}.parquet"]
    assert {name: after[name] for name in before} == before


def test_quarantined_rows_come_in_order(run: MakeRun, tmp_path: Path) -> None:
    job = run()
    assert compact_quarantine(job, tmp_path, job.open()[:1]) == []
    assert pq.read_schema(tmp_path / "out/quarantine.parquet").equals(QUARANTINE_SCHEMA)
    rows = compact_quarantine(job, tmp_path, job.open()[:0:-1])
    assert [(row["file"], row["row"]) for row in rows] == [
        ("part1.parquet", 75),
        ("part2.parquet", 9),
        ("part2.parquet", 19),
        ("part2.parquet", 29),
    ]


def compact_quarantine(job: Any, tmp_path: Path, shards: Any) -> list[dict[str, Any]]:
    job.score(shards)
    rows = compaction.compact_quarantine(job.out)
    found: list[dict[str, Any]] = pq.read_table(tmp_path / "out/quarantine.parquet").to_pylist()
    assert len(found) == rows
    return found


def test_names_a_damaged_staged_file(run: MakeRun, tmp_path: Path) -> None:
    job = run(rows_per_file=1000)
    job.score(job.open())
    file = tmp_path / "out" / part_name(1, job.digest, staged=True)
    file.write_bytes(file.read_bytes()[:-5] + b"x" * 5)
    with pytest.raises(SentrayError, match=r"staged/part-000001.* cannot be read .*delete it") as error:
        compaction.compact(job.out)
    assert "\n" not in str(error.value)
    assert names(tmp_path / "out") == []
