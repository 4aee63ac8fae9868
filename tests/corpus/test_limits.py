"""Files that ask for more than there is: a row or a file is set aside, and memory stays what it was."""

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.config import CorpusSettings
from sentray.corpus import limits, parquet
from sentray.corpus.readers import read_shard
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards
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


def repeated(path: Path, value: str, rows: int) -> Path:
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))
    pq.write_table(pa.table({"text": column}), path, dictionary_pagesize_limit=1 << 30, write_statistics=False)
    return path


def test_bombs_are_set_aside_in_bounded_memory(tmp_path: Path) -> None:
    sparse = tmp_path / "pos" / "a.txt"
    sparse.parent.mkdir()
    with sparse.open("wb") as stream:
        stream.truncate(20 << 30)
    cases = {
        str(bomb(tmp_path / "line.csv.gz", b"text\n", b"a", 2 << 30)): {"unreadable_file": 1},
        str(bomb(tmp_path / "line.jsonl.gz", b'{"text": "x"}\n', b"[", 2 << 30)): {"unreadable_file": 1},
        str(repeated(tmp_path / "a.parquet", "a" * 300_000_000, 200_000)): {"unreadable_file": 1},
        str(repeated(tmp_path / "b.parquet", "a" * 30_000_000, 200)): {"too_large": 200},
        str(repeated(tmp_path / "c.parquet", "word " * 200_000, 2_000_000)): {"None": 1024, "unreadable_file": 1},
        str(repeated(tmp_path / "d.parquet", "good", 100_000_000)): {"unreadable_file": 1},
        str(tmp_path / "pos"): {"too_large": 1},
    }
    ran = subprocess.run([sys.executable, "-c", READ, *cases], capture_output=True, text=True, check=False)
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


def test_rows_of_long_texts_are_read_a_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BATCH_BYTES", 100_000)
    monkeypatch.setattr(parquet, "_gathered", lambda parts, most: parts)
    for dictionary in (True, False):
        texts = ["short"] * 5000 + ["a long text" * 1000] * 60
        table = pa.table({"text": texts})
        pq.write_table(
            table, tmp_path / "a.parquet", use_dictionary=dictionary, data_page_size=1000, write_batch_size=4
        )
        source = resolve(str(tmp_path))
        (shard,) = plan_shards(source, 1 << 30)
        tables = list(read_shard(source, shard, CorpusSettings()))
        assert max(each["text"].nbytes for each in tables) < 400_000
        assert pa.concat_tables(tables)["text"].to_pylist() == texts


def test_too_many_rows_and_too_much_inflation_end_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_ROWS", 5000)
    (tmp_path / "a.csv").write_text("text\n" + "a\n" * 9000)
    assert reasons(tmp_path / "a.csv") == [None] * 4096 + ["unreadable_file"]
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


def test_a_file_of_an_object_store_is_read_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good", "bad"] * 500}), tmp_path / "a.parquet")
    asked = []

    class Stored:
        def __init__(self) -> None:
            self._stream = pa.OSFile(str(tmp_path / "a.parquet"))
            self.size = self._stream.size

        def read_at(self, size: int, start: int) -> bytes:
            asked.append((start, size))
            return self._stream.read_at(size, start)

    stream = parquet._Remembering(Stored())
    footer = parquet.read_footer(stream, "a.parquet", stream._size)
    (group,) = footer.groups
    pages = parquet._look(stream, "a.parquet", footer, group, ["text"])
    found = list(parquet._values(pq.ParquetFile(stream), stream, "a.parquet", 0, group, pages, ["text"]))
    assert found[0][0]["text"].to_pylist() == ["good", "bad"] * 500
    (column,) = group.columns
    assert [start for start, size in asked if start + size <= column.end] == [column.start]


def told(path: Path, keep: tuple[str, ...] = ()) -> list[tuple[str | None, str]]:
    source = resolve(str(path))
    (shard,) = plan_shards(source, 1 << 30)
    tables = list(read_shard(source, shard, CorpusSettings(), keep, on_unreadable="quarantine"))
    return [(row["reason"], row["text"]) for table in tables for row in table.to_pylist()]


def test_pages_of_all_columns_that_are_read_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({name: [name * 100_000] for name in ("id", "text", "label", "other")})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    monkeypatch.setattr(limits, "MAX_PAGE_BYTES", 1_200_000)
    assert [reason for reason, _ in told(tmp_path)] == [None]
    assert [reason for reason, _ in told(tmp_path, keep=("other",))] == ["unreadable_file"]
    source = resolve(str(tmp_path))
    with pytest.raises(
        SentrayError, match=r"more than 1,200,000 bytes at once, most of them for column '(label|other)'"
    ):
        list(read_shard(source, plan_shards(source, 1 << 30)[0], CorpusSettings(), ("other",)))


@pytest.mark.parametrize("column", ["list", "structure", "numbers"])
def test_kept_columns_of_any_type_are_looked_at(column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["a" * 100]))
    many = pa.array(range(100_000))
    columns = {
        "list": pa.ListArray.from_arrays(pa.array([0, 10_000], pa.int32()), references),
        "structure": pa.array([{"a": "a" * 500_000}]),
        "numbers": pa.ListArray.from_arrays(pa.array([0, 100_000], pa.int32()), many),
    }
    pq.write_table(pa.table({"text": ["fine"], "kept": columns[column]}), tmp_path / "a.parquet")
    assert told(tmp_path, ("kept",)) == [(None, "fine")]
    monkeypatch.setattr(limits, "MAX_PAGE_BYTES", 400_000)
    assert told(tmp_path) == [(None, "fine")]
    assert [reason for reason, _ in told(tmp_path, ("kept",))] == ["unreadable_file"]


def test_a_kept_value_of_a_list_that_is_too_large(short: None, tmp_path: Path) -> None:
    lists = [["a" * 400], ["a" * 400] * 4, None]
    pq.write_table(pa.table({"text": ["x", "y", "z"], "kept": lists}), tmp_path / "a.parquet")
    assert [reason for reason, _ in told(tmp_path, ("kept",))] == [None, "too_large", None]


@pytest.mark.parametrize("forged", [b"texu", b"more"])
def test_names_that_arrow_does_not_read_hide_nothing(
    forged: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 100_000]}), path, use_dictionary=False, write_statistics=False)
    _, column = (place for place in range(path.stat().st_size) if path.read_bytes()[place:].startswith(b"text"))
    content = bytearray(path.read_bytes())
    content[column : column + 4] = forged
    path.write_bytes(content)
    assert [reason for reason, _ in told(path)] == [None]
    monkeypatch.setattr(limits, "MAX_PAGE_BYTES", 50_000)
    assert [reason for reason, _ in told(path)] == ["unreadable_file"]


def test_a_file_may_have_rows_in_proportion_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_ROWS", 10)
    limits.require_few_rows("a.jsonl.gz", 10, 1)
    limits.require_few_rows("a.jsonl.gz", 25, 100)
    with pytest.raises(SentrayError, match="more than 25 rows in one piece: split it, or store it uncompressed"):
        limits.require_few_rows("a.jsonl.gz", 26, 100)
    with pytest.raises(SentrayError, match="more than 10 rows in one piece: take a smaller --shard-size"):
        limits.require_few_rows("a.parquet", 11, 1)


def test_few_rows_that_are_read_at_once_make_whole_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BATCH_BYTES", 200_000)
    texts = [f"some words {row}" for row in range(5000)]
    pq.write_table(
        pa.table({"text": texts}),
        tmp_path / "a.parquet",
        use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY"},
    )
    source = resolve(str(tmp_path))
    (shard,) = plan_shards(source, 1 << 30)
    tables = list(read_shard(source, shard, CorpusSettings()))
    assert [table.num_rows for table in tables] == [4096, 904]
    assert pa.concat_tables(tables)["text"].to_pylist() == texts
