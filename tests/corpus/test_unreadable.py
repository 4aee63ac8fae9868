"""Files that cannot be read are rows to set aside, where that is asked for."""

import gzip
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.config import CorpusSettings
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.rows import ROW_SCHEMA
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Piece, Shard, plan_shards
from sentray.errors import SentrayError

GOOD = {"csv": "text,more\nfine,x\n", "jsonl": '{"text": "fine", "more": "x"}\n'}


def read(source: Source, keep: tuple[str, ...] = ()) -> list[pa.Table]:
    plan = plan_shards(source, 64_000_000)
    return [t for s in plan for t in read_shard(source, s, CorpusSettings(), keep, on_unreadable="quarantine")]


def told(source: Source, keep: tuple[str, ...] = ()) -> list[tuple[str, int, str | None]]:
    tables = pa.concat_tables(read(source, keep), promote_options="default")
    return list(zip(*(tables[name].to_pylist() for name in ("file", "row", "reason")), strict=True))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_without_a_byte_among_good_ones(write, tmp_path, kind):
    for name in "ac":
        write(f"{name}.{kind}", GOOD[kind])
    write(f"b.{kind}", "")
    source = resolve(str(tmp_path))
    assert told(source, ("more",)) == [
        (f"a.{kind}", 1, None),
        (f"b.{kind}", 1, "unreadable_file"),
        (f"c.{kind}", 1, None),
    ]
    bad = read(source, ("more",))[1].to_pylist()[0]
    assert bad["id"] is None
    assert bad["text"].startswith(f"{tmp_path}/b.{kind} holds no byte"[:200])
    with pytest.raises(SentrayError, match=rf"b\.{kind} holds no byte: it seems the rest of a broken copy"):
        list(read_shard(source, plan_shards(source, 64_000_000)[0], CorpusSettings()))


@pytest.mark.parametrize(("kind", "size"), [("csv", 20_000), ("jsonl", 40_000)])
def test_gzip_that_is_cut_short_gives_the_rows_before_the_damage(write, tmp_path, kind, size):
    line = {"csv": "some words {}\n", "jsonl": '{{"text": "some words {}"}}\n'}[kind]
    whole = "text\n" * (kind == "csv") + "".join(line.format(number) for number in range(300_000))
    write(f"a.{kind}.gz", gzip.compress(whole.encode())[:-200_000])
    write(f"b.{kind}", line.format(1) if kind == "jsonl" else "text\nx\n")
    first, second = (pa.concat_tables(read(resolve(str(tmp_path)))) for _ in range(2))
    assert first == second
    *rows, bad, after = first.to_pylist()
    assert len(rows) > size
    assert [row["text"] for row in rows] == [f"some words {number}" for number in range(len(rows))]
    assert {row["reason"] for row in rows} == {None}
    assert (bad["row"], bad["reason"]) == (len(rows) + 1, "unreadable_file")
    assert after["file"] == f"b.{kind}"


def test_a_damaged_page_of_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"text {number}" for number in range(1000)]
    table = pa.table({"text": texts, "stars": pa.array([5] * 1000, pa.int8())})
    pq.write_table(table, path, row_group_size=100)
    place = pq.ParquetFile(path).metadata.row_group(3).column(0).dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 60] = b"\xff" * 60
    path.write_bytes(content)
    rows = pa.concat_tables(read(resolve(str(path)), ("stars",)))
    assert rows.schema.field("stars").type == pa.int8()
    assert rows["row"].to_pylist() == list(range(1, 302))
    assert rows["reason"].to_pylist() == [None] * 300 + ["unreadable_file"]
    later = Shard(0, "parquet", (Piece(str(path), "a.parquet", 3, 5, 300), Piece(str(path), "a.parquet", 5, 6, 500)), 1)
    source = resolve(str(path))
    tables = read_shard(source, later, CorpusSettings(), on_unreadable="quarantine")
    assert pa.concat_tables(tables)["row"].to_pylist() == [301, *range(501, 601)]


@pytest.mark.parametrize("size", [0, 3, 100, -8, -1])
def test_a_parquet_file_cut_short_among_good_ones(tmp_path, size):
    for name in "abc":
        pq.write_table(pa.table({"text": ["x"], "more": [1]}), tmp_path / f"{name}.parquet")
    path = tmp_path / "b.parquet"
    path.write_bytes(path.read_bytes()[:size])
    assert told(resolve(str(tmp_path)), ("more",)) == [
        ("a.parquet", 1, None),
        ("b.parquet", 1, "unreadable_file"),
        ("c.parquet", 1, None),
    ]


@pytest.mark.parametrize("names", [("a.csv", "b.csv"), ("pos/1.txt", "pos/2.txt", "pos/3.txt")])
def test_a_file_that_vanished_after_the_plan(write, tmp_path, names):
    paths = [write(name, "text\nx\n") for name in names]
    source = resolve(str(tmp_path))
    plan = plan_shards(source, 64_000_000)
    paths[1].unlink()
    tables = [t for shard in plan for t in read_shard(source, shard, CorpusSettings(), on_unreadable="quarantine")]
    rows = pa.concat_tables(tables)
    assert rows.schema == ROW_SCHEMA
    assert rows["file"].to_pylist() == list(names)
    assert rows["reason"].to_pylist() == [None, "unreadable_file", None][: len(names)]
    assert (
        rows["text"].to_pylist()[1] == f"{paths[1]} is not there any more: put it back, or run again without it"[:200]
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(write, tmp_path):
    write("a.csv", GOOD["csv"])
    write("b.csv", GOOD["csv"]).chmod(0)
    assert told(resolve(str(tmp_path))) == [("a.csv", 1, None), ("b.csv", 1, "unreadable_file")]


@pytest.mark.parametrize("content", ["other\nx\n", "\n", "te\x00\nx"])
def test_a_file_without_the_column_or_header(write, tmp_path, content):
    write("a.csv", GOOD["csv"])
    write("b.csv", content)
    assert told(resolve(str(tmp_path))) == [("a.csv", 1, None), ("b.csv", 1, "unreadable_file")]


def test_a_parquet_column_that_holds_no_text(tmp_path):
    pq.write_table(pa.table({"text": [[1]]}), tmp_path / "a.parquet")
    (table,) = read(resolve(str(tmp_path)))
    assert table["text"].to_pylist()[0].startswith("column 'text' of a.parquet holds list")


def test_the_ids_before_the_damage(write, tmp_path):
    content = "id,text\n" + "".join(f"{number},some words\n" for number in range(300_000))
    path = write("a.csv.gz", gzip.compress(content.encode())[:-100_000])
    source = resolve(str(path))
    (shard,) = plan_shards(source, 64_000_000)
    rows = pa.concat_tables(read(source))
    blocks = list(read_ids(source, shard, CorpusSettings(), unread=set()))
    assert sum(len(hashes) for _, _, hashes in blocks) == rows.num_rows - 1 > 100_000


def test_every_file_without_a_byte(write, tmp_path):
    write("a.csv", "")
    write("b.csv", "")
    with pytest.raises(SentrayError, match=r"a\.csv holds no byte"):
        resolve(str(tmp_path))
