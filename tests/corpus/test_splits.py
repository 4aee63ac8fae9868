from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sentray.corpus import splits as module
from sentray.corpus.source import Source, SourceFile, resolve
from sentray.corpus.splits import Piece, ShardPlan, plan_shards
from sentray.errors import SentrayError


def parquet(path: Path, rows: int, group: int) -> Path:
    texts = [str(number) * 40 for number in range(rows)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=group, compression="none", use_dictionary=False)
    return path


@pytest.fixture
def fine(monkeypatch):
    """Lets small files fill shards of a few kilobytes."""
    monkeypatch.setattr(module, "_MIN_WEIGHT", 1)
    monkeypatch.setattr(module, "_MIN_SHARD", 1)
    monkeypatch.setattr(module, "_MIN_SHARDS", 1)


def test_small_files_are_bundled_in_order(write, tmp_path, fine):
    for number in range(10):
        write(f"pos/{number}.txt", "x" * 100)
    plan = plan_shards(resolve(str(tmp_path)), 300)
    assert [[piece.name for piece in shard.pieces] for shard in plan] == [
        ["pos/0.txt", "pos/1.txt", "pos/2.txt"],
        ["pos/3.txt", "pos/4.txt", "pos/5.txt"],
        ["pos/6.txt", "pos/7.txt", "pos/8.txt"],
        ["pos/9.txt"],
    ]
    assert [shard.index for shard in plan] == [0, 1, 2, 3]
    assert [shard.bytes for shard in plan] == [300, 300, 300, 100]
    assert {piece.label for shard in plan for piece in shard.pieces} == {"pos"}


def test_a_large_parquet_file_is_cut_at_its_row_groups(tmp_path, fine):
    path = parquet(tmp_path / "a.parquet", 1000, 100)
    plan = plan_shards(resolve(str(path)), path.stat().st_size // 4)
    bounds = [(piece.start, piece.stop) for shard in plan for piece in shard.pieces]
    assert len(plan) >= 4
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 10
    assert all(left[1] == right[0] for left, right in pairwise(bounds))


def test_parquet_shards_hold_small_files_and_parts_of_large_ones(tmp_path, fine):
    parquet(tmp_path / "a.parquet", 10, 10)
    parquet(tmp_path / "b.parquet", 1000, 100)
    parquet(tmp_path / "c.parquet", 10, 10)
    size = (tmp_path / "b.parquet").stat().st_size // 2
    plan = plan_shards(resolve(str(tmp_path)), size)
    groups: dict[str, list[int]] = {}
    for shard in plan:
        for piece in shard.pieces:
            groups.setdefault(piece.name, []).extend(range(piece.start, 1 if piece.stop is None else piece.stop))
    assert groups == {"a.parquet": [0], "b.parquet": list(range(10)), "c.parquet": [0]}


def test_a_small_input_is_cut_finer_so_that_workers_share_it():
    files = tuple(SourceFile(f"/{n}.csv", f"{n}.csv", 1_000_000) for n in range(32))
    assert len(plan_shards(Source("x", "csv", files), 64_000_000)) == 16
    assert len(plan_shards(Source("x", "csv", files[:2]), 64_000_000)) == 2


def test_shards_of_very_many_small_files_stay_small():
    files = tuple(SourceFile(f"/{n:07}.txt", f"{n:07}.txt", 2_000) for n in range(200_000))
    plan = plan_shards(Source("x", "text", files), 64_000_000)
    assert sum(len(shard.pieces) for shard in plan) == len(files)
    assert max(len(shard.pieces) for shard in plan) < 1_000


def test_synthetic_rows_are_all_there_once():
    plan = plan_shards(resolve("synthetic:20001"), 64_000_000)
    bounds = [(shard.pieces[0].start, shard.pieces[0].stop) for shard in plan]
    assert bounds == [(0, 8192), (8192, 16384), (16384, 20001)]


def test_a_plan_is_the_same_every_time_and_survives_parquet(nltk_polarity, tmp_path):
    plan = plan_shards(resolve(nltk_polarity), 64_000_000)
    assert list(plan) == list(plan_shards(resolve(nltk_polarity), 64_000_000))
    pq.write_table(plan.to_table(), tmp_path / "plan.parquet")
    assert ShardPlan.from_table(pq.read_table(tmp_path / "plan.parquet"), "nltk").to_table() == plan.to_table()
    assert list(plan) == [plan[index] for index in range(len(plan))]
    assert plan.rows == 2000


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"x" * len(content)])
def test_a_damaged_parquet_file_stays_whole(tmp_path, fine, damage):
    path = parquet(tmp_path / "a.parquet", 1000, 100)
    path.write_bytes(damage(path.read_bytes()))
    (shard,) = plan_shards(resolve(str(path)), 1000)
    assert shard.pieces == (Piece(str(path), "a.parquet", bytes=path.stat().st_size),)
    assert shard.rows is None


def test_a_plan_of_a_million_shards_stays_small():
    plan = plan_shards(Source("synthetic:1", "synthetic", rows=8192 * 1_000_000), 64_000_000)
    assert (len(plan), plan.rows) == (1_000_000, 8192 * 1_000_000)
    assert plan.to_table().nbytes < 80_000_000
    assert plan[-1] == plan[999_999]
    assert plan[999_999].pieces[0].start == 8192 * 999_999
    assert [shard.index for shard in plan[5:8]] == [5, 6, 7]
    with pytest.raises(IndexError):
        plan[1_000_000]


def test_a_plan_goes_on_with_another(write, tmp_path, fine):
    write("a.csv", "text\nx\n")
    before = plan_shards(resolve(str(tmp_path)), 1)
    write("b.csv", "text\nx\ny\n")
    added = plan_shards(resolve(str(tmp_path / "b.csv")), 4)
    both = before.extended(added)
    assert [shard.index for shard in both] == list(range(len(before) + len(added)))
    assert [piece.path for shard in both for piece in shard.pieces][len(before) :] == [str(tmp_path / "b.csv")] * 2
    assert both.bytes == before.bytes + added.bytes
    assert [shard.rows for shard in both] == [shard.rows for shard in [*before, *added]]
    assert both.to_table() == before.extended(added).to_table()


def test_what_is_no_plan(nltk_polarity):
    table = plan_shards(resolve(nltk_polarity), 64_000_000).to_table()
    with pytest.raises(SentrayError, match="has other columns"):
        ShardPlan.from_table(table.drop(["row"]), "nltk")
    with pytest.raises(SentrayError, match="has gaps"):
        ShardPlan.from_table(table.filter(pc.not_equal(table["shard"], 3)), "nltk")
    assert len(ShardPlan.from_table(table.slice(0, 0), "nltk")) == 0


def test_rows_are_known_where_planning_saw_them(tmp_path, fine, write):
    path = parquet(tmp_path / "a.parquet", 1000, 100)
    plan = plan_shards(resolve(str(path)), path.stat().st_size // 4)
    assert plan.rows == 1000
    assert [shard.pieces[0].row for shard in plan] == [shard.pieces[0].start * 100 for shard in plan]
    assert plan_shards(resolve(str(path)), 1_000_000_000).rows is None
    write("text/pos/1.txt", "x")
    assert plan_shards(resolve(str(tmp_path / "text")), 1000).rows == 1
