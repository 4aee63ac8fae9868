"""Files that ask for more than there is: a row or a file is set aside, and memory stays what it was."""

import gzip
import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.config import CorpusSettings
from sentray.corpus import limits, parquet
from sentray.corpus.readers import read_shard
from sentray.corpus.rows import TABLE_ROWS, Block, Columns
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Piece, plan_shards
from sentray.errors import SentrayError

READ = """
import collections, json, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (1200 << 20, 1200 << 20))
from sentray.config import CorpusSettings
from sentray.corpus.readers import read_shard
from sentray.corpus.splits import plan_shards
from sentray.corpus.source import resolve
for path in sys.argv[1:]:
    source, reasons = resolve(path), collections.Counter()
    for shard in plan_shards(source, 64_000_000):
        for table in read_shard(source, shard, CorpusSettings(test_fraction=0), on_unreadable="quarantine"):
            reasons.update(str(reason) for reason in table["reason"].to_pylist())
    # Not ru_maxrss, which begins with that of the process that started this one.
    most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps(reasons), int(most.split()[1]) >> 10, flush=True)
"""


def bomb(path: Path, head: bytes, unit: bytes, size: int) -> Path:
    """A gzip file of `size` bytes of `unit` again and again, made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    chunk = unit * ((4 << 20) // len(unit))
    packed += packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(packed + again * (size // len(chunk) - 1) + packer.flush())
    return path


def test_bombs_are_set_aside_in_bounded_memory(tmp_path: Path) -> None:
    sparse = tmp_path / "pos" / "a.txt"
    sparse.parent.mkdir()
    with sparse.open("wb") as stream:
        stream.truncate(20 << 30)
    cases = {
        str(bomb(tmp_path / "line.csv.gz", b"text\n", b"a", 2 << 30)): {"unreadable_file": 1},
        # The row before the damage is given.
        str(bomb(tmp_path / "line.jsonl.gz", b'{"text": "x"}\n', b"[", 2 << 30)): {"None": 1, "unreadable_file": 1},
        str(tmp_path / "pos"): {"too_large": 1},
    }
    # Arrow's default allocator reserves a gigabyte, which would count.
    env = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    ran = subprocess.run([sys.executable, "-c", READ, *cases], capture_output=True, text=True, check=False, env=env)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = [line.rpartition(" ") for line in ran.stdout.splitlines()]
    assert [json.loads(reasons) for reasons, _, _ in found] == list(cases.values())
    assert max(int(megabytes) for _, _, megabytes in found) < 1000


def reasons(path: Path, **settings: Any) -> list[str | None]:
    source = resolve(str(path))
    tables = [
        table
        for shard in plan_shards(source, 64_000_000)
        for table in read_shard(source, shard, CorpusSettings(**settings), on_unreadable="quarantine")
    ]
    return [reason for table in tables for reason in table["reason"].to_pylist()]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROW_BYTES", 1000)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz"])
def test_a_row_that_is_too_large_leaves_its_neighbours_alone(short: None, tmp_path: Path, name: str) -> None:
    texts = ["fine", "x" * 950, "long" * 400, "good"]
    rows = [json.dumps({"text": text}) if "json" in name else text for text in texts]
    content = "\n".join(rows if "json" in name else ["text", *rows]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert reasons(tmp_path / name) == [None, None, "too_large", None]


@pytest.mark.parametrize("repeats", [True, False])
def test_values_of_parquet_that_are_too_large(short: None, tmp_path: Path, repeats: bool) -> None:
    texts = ["fine", "é" * 800, None, "é" * 400, "é" * 800] * 3
    pq.write_table(pa.table({"text": texts, "id": [f"{row}" for row in range(15)]}), tmp_path / "a.parquet")
    if not repeats:
        pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "a.parquet", use_dictionary=False)
    assert reasons(tmp_path / "a.parquet") == [None, "too_large", "null_text", None, "too_large"] * 3
    source = resolve(str(tmp_path))
    (table,) = read_shard(source, plan_shards(source, 1000)[0], CorpusSettings())
    assert table["text"].to_pylist()[1] == "é" * 200
    assert table["id"].to_pylist() == [f"{row}" for row in range(15)]


def test_tables_of_long_texts_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "TABLE_BYTES", 100_000)
    texts = ["short"] * 5000 + ["a long text" * 1000] * 60
    for how in (
        {},
        {"use_dictionary": False},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ):
        pq.write_table(
            pa.table({"text": texts}), tmp_path / "a.parquet", data_page_size=1000, write_batch_size=4, **how
        )
        source = resolve(str(tmp_path))
        (shard,) = plan_shards(source, 1 << 30)
        tables = list(read_shard(source, shard, CorpusSettings()))
        assert max(each["text"].nbytes for each in tables) < 210_000
        assert pa.concat_tables(tables)["text"].to_pylist() == texts


@pytest.mark.parametrize("done", [0, 1, 4095, 4096, 5000])
def test_rows_that_take_too_much_together_are_read_a_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    texts = [f"text {row}" for row in range(6000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=5000)
    read, tried = parquet._blocks, []

    def scarce(source: Source, piece: Piece, columns: Columns, at_once: int, done_before: int) -> Iterator[Block]:
        tried.append((at_once, done_before))
        for block in read(source, piece, columns, at_once, done_before):
            if at_once > 64 and block.rows[-1] > done:
                raise MemoryError
            yield block

    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", (4096, 64, 1))
    monkeypatch.setattr(parquet, "_blocks", scarce)
    source = resolve(str(tmp_path))
    (shard,) = plan_shards(source, 1 << 30)
    rows = pa.concat_tables(read_shard(source, shard, CorpusSettings()))
    assert rows["text"].to_pylist() == texts
    assert rows["row"].to_pylist() == list(range(1, 6001))
    assert tried == [(4096, 0), (64, 0 if done < 4096 else 5000 if done == 5000 else 4096)]


def test_what_is_legal_though_large_is_read(tmp_path: Path) -> None:
    rows = 30_000
    table = pa.table(
        {
            "text": ["fine"] * rows,
            "lists": [["a" * 2000, None, "b"]] * rows,
            "structures": [{"a": "c" * 2000, "b": [1, 2]}] * rows,
            "delta": ["d" * 2000] * rows,
            "long": ["e" * 5_000] * rows,
        }
    )
    # One page a column, 300 MB together, in one row group.
    how: dict[str, Any] = {"use_dictionary": False, "data_page_size": 1 << 30, "compression": "lz4"}
    pq.write_table(table, tmp_path / "a.parquet", column_encoding={"delta": "DELTA_BYTE_ARRAY"}, **how)
    source, keep = resolve(str(tmp_path)), ("lists", "structures", "delta", "long")
    (shard,) = plan_shards(source, 1 << 30)
    found = done = 0
    for part in read_shard(source, shard, CorpusSettings(), keep):
        assert part["reason"].null_count == part.num_rows
        assert part.select(keep).to_pylist() == table.slice(done, part.num_rows).select(keep).to_pylist()
        done, found = done + part.num_rows, found + 1
    assert done == rows
    assert found > 5


def test_too_many_rows_and_too_much_inflation_end_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_ROWS", TABLE_ROWS + 1000)
    (tmp_path / "a.csv").write_text("text\n" + "a\n" * 2 * TABLE_ROWS)
    assert reasons(tmp_path / "a.csv") == [None] * TABLE_ROWS + ["unreadable_file"]
    monkeypatch.undo()
    monkeypatch.setattr(limits, "FREE_INFLATION", 2_000_000)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"text\n" + b"some words\n" * 300_000))
    found = reasons(tmp_path / "b.csv.gz")
    assert found[-1] == "unreadable_file"
    assert 0 < len(found) < 300_000
    source = resolve(str(tmp_path / "b.csv.gz"))
    with pytest.raises(SentrayError, match=r"becomes more than 200 times as large as it is stored"):
        list(read_shard(source, plan_shards(source, 1000)[0], CorpusSettings()))


def test_json_that_can_be_read_and_not_written_again(tmp_path: Path) -> None:
    nested = (f'{{"text": {"[" * depth}{"]" * depth}}}\n' for depth in range(800, 1010))
    (tmp_path / "a.jsonl").write_text("".join(nested))
    assert reasons(tmp_path / "a.jsonl") == ["invalid_record"] * 210


def test_a_file_of_an_object_store_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"some words {row} " * 100 for row in range(20_000)]
    table = pa.table({"text": texts, "other": texts})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    asked: list[tuple[int, int]] = []

    class Stored(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            start = self.tell()
            content = super().read(size)
            asked.append((start, len(content)))
            return content

    monkeypatch.setattr(parquet, "open_file", lambda _, path: pa.PythonFile(Stored(path), "r"))
    source = resolve(str(tmp_path))
    (shard,) = plan_shards(source, 1 << 30)
    assert sum(table.num_rows for table in read_shard(source, shard, CorpusSettings())) == 20_000
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0)
    size = column.total_compressed_size
    of_column = [size for start, size in asked if start < column.data_page_offset + column.total_compressed_size]
    assert sum(of_column) < 1.2 * size
    # Each request takes as long as some megabytes do.
    assert len(of_column) < 3 + size // (4 << 20)
    assert sum(size for _, size in asked) < 1.5 * size


def told(path: Path, keep: tuple[str, ...] = ()) -> list[tuple[str | None, str]]:
    source = resolve(str(path))
    (shard,) = plan_shards(source, 1 << 30)
    tables = list(read_shard(source, shard, CorpusSettings(), keep, on_unreadable="quarantine"))
    return [(row["reason"], row["text"]) for table in tables for row in table.to_pylist()]


def test_a_kept_value_of_a_list_that_is_too_large(short: None, tmp_path: Path) -> None:
    lists = [["a" * 400], ["a" * 400] * 4, None]
    pq.write_table(pa.table({"text": ["x", "y", "z"], "kept": lists}), tmp_path / "a.parquet")
    assert [reason for reason, _ in told(tmp_path, ("kept",))] == [None, "too_large", None]


def test_a_file_may_have_rows_in_proportion_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_ROWS", 10)
    limits.require_few_rows("a.jsonl.gz", 10, 1)
    limits.require_few_rows("a.jsonl.gz", 25, 100)
    with pytest.raises(SentrayError, match=r"more than 25 rows in one piece: .* store it uncompressed"):
        limits.require_few_rows("a.jsonl.gz", 26, 100)
    with pytest.raises(SentrayError, match="more than 10 rows in one piece: take a smaller --shard-size"):
        limits.require_few_rows("a.parquet", 11, 1)
