import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pytest

from sentray.config import CorpusSettings
from sentray.corpus import limits
from sentray.corpus.readers import read_schema, read_shard
from sentray.corpus.source import resolve
from sentray.corpus.splits import Piece, plan_shards
from sentray.errors import SentrayError

NUMBER = 10_000


@pytest.fixture(scope="module")
def table():
    return pa.table(
        {
            "picture": pa.array([b"x" * 10] * NUMBER),
            "text": pa.array([f"review {number}" for number in range(NUMBER)]).dictionary_encode(),
            "label": pa.array([number % 2 for number in range(NUMBER)], pa.int64()),
            "stars": pa.array(np.arange(NUMBER) / 2),
        }
    )


def written(path, table, kind=ipc.new_file, size=3000, **options):
    with kind(str(path), table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=size)
    return path


@pytest.mark.parametrize("kind", [ipc.new_file, ipc.new_stream])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_files_and_streams(read, tmp_path, table, kind, compression):
    for name in ("a.arrow", "a.feather", "a.ipc", "nosuffix"):
        rows = read(written(tmp_path / name, table, kind, compression=compression), keep=["stars"], test_fraction=0)
        assert rows["text"].to_pylist() == table["text"].to_pylist()
        assert rows["label"].to_pylist() == [str(label) for label in table["label"].to_pylist()]
        assert rows["stars"].to_pylist() == table["stars"].to_pylist()
        assert rows["row"].to_pylist() == list(range(1, NUMBER + 1))


def test_columns_are_known_without_the_rows(tmp_path, table):
    source = resolve(str(written(tmp_path / "a.arrow", table)))
    piece = Piece(source.files[0].path, "a.arrow")
    assert read_schema(source, piece, CorpusSettings(), ["stars"]).field("stars").type == pa.float64()
    with pytest.raises(SentrayError, match=r"has no column 'review' \(it has: picture, text, label, stars\)"):
        read_schema(source, piece, CorpusSettings(text_column="review"))


@pytest.mark.parametrize("kind", [ipc.new_file, ipc.new_stream])
def test_a_file_without_rows_and_a_column_that_arrow_cannot_make_empty(tmp_path, kind):
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    table = pa.table({"union": union, "text": ["fine"]})
    for rows in (table, table.slice(0, 0)):
        source = resolve(str(written(tmp_path / "a.arrow", rows, kind)))
        schema = read_schema(source, Piece(source.files[0].path, "a.arrow"), CorpusSettings(), ["text"])
        assert (schema is None) == (not rows.num_rows)


def test_what_is_damaged_is_one_bad_row_after_the_others(tmp_path, table):
    path = written(tmp_path / "a.arrow", table, ipc.new_stream)
    path.write_bytes(path.read_bytes()[:-100_000])
    source = resolve(str(path))
    rows = pa.concat_tables(
        read_shard(source, plan_shards(source, 1 << 30)[0], CorpusSettings(), on_unreadable="quarantine")
    )
    assert rows["reason"].to_pylist() == [None] * (rows.num_rows - 1) + ["unreadable_file"]
    assert rows.num_rows > 3000


def test_offsets_that_lead_out_of_the_file_are_refused(tmp_path, read):
    path = written(tmp_path / "a.arrow", pa.table({"text": ["abcd"] * 10}))
    offsets = np.arange(0, 44, 4, np.int32).tobytes()
    content = path.read_bytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, np.arange(0, 44, 4, np.int32)[::-1].copy().tobytes()))
    with pytest.raises(SentrayError, match=r"a\.arrow cannot be read .*: it seems damaged"):
        read(path)


def test_one_dictionary_value_for_many_rows_is_bounded(tmp_path, read, monkeypatch):
    monkeypatch.setattr(limits, "FREE_INFLATION", 1 << 20)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 10_000]))
    with pytest.raises(SentrayError, match=r"becomes more than 200 times as large as it is stored"):
        read(written(tmp_path / "a.arrow", pa.table({"text": text})))


def test_a_value_longer_than_a_row_may_be(tmp_path, read, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ROW_BYTES", 1000)
    rows = read(written(tmp_path / "a.arrow", pa.table({"text": ["x", "y" * 2000, "z"]})))
    assert rows["reason"].to_pylist() == [None, "too_large", None]


@pytest.mark.parametrize("content", [b"ARROW1\0\0", b"\xff\xff\xff\xff\x10\0\0\0", b"FEA1" + bytes(40)])
def test_what_is_no_arrow_file(write, read, content):
    with pytest.raises(SentrayError, match=r"a\.arrow cannot be read .*: it seems damaged"):
        read(write("a.arrow", content))
