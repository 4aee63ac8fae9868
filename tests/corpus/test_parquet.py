import datetime
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.config import CorpusSettings
from sentray.corpus.readers import read_ids, read_schema, read_shard
from sentray.corpus.rows import ROW_SCHEMA
from sentray.corpus.source import resolve
from sentray.corpus.splits import Piece, Shard, plan_shards
from sentray.errors import SentrayError


@pytest.fixture
def save(tmp_path):
    def save(name: str, **columns: object) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name, row_group_size=100)
        return tmp_path / name

    return save


def invalid(kind: pa.DataType, *values: bytes | None) -> pa.Array:
    """An array of text that was never checked."""
    wide = pa.large_binary() if kind == pa.large_string() else pa.binary()
    array = pa.array(values, wide)
    return pa.Array.from_buffers(kind, len(array), array.buffers(), array.null_count)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([0, 1, None], pa.int8()), ["0", "1", None]),
        (pa.array([0.0, 1.5, float("nan")]), ["0", "1.5", None]),
        (pa.array([False, True, None]), ["false", "true", None]),
        (pa.array(["neg", "pos", None]).dictionary_encode(), ["neg", "pos", None]),
        (pa.array([b"neg", b"pos", None]), ["neg", "pos", None]),
        (pa.array([b"neg", b"pos", None], pa.binary(3)), ["neg", "pos", None]),
        (pa.array(["neg", "pos", None], pa.string_view()), ["neg", "pos", None]),
        (pa.array([datetime.date(2020, 1, 2)] * 2 + [None]), ["2020-01-02", "2020-01-02", None]),
        (pa.nulls(3), [None] * 3),
    ],
)
def test_labels_of_any_scalar_type(save, read, labels, expected):
    table = read(save("a.parquet", text=["x", "y", "z"], label=labels))
    assert table.schema == ROW_SCHEMA
    assert table["label"].to_pylist() == expected


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()],
)
def test_text_of_any_string_type(save, read, kind):
    table = read(save("a.parquet", text=pa.array(["é", None, " \n"], pa.string()).cast(kind)))
    assert table["text"].to_pylist() == ["é", None, " \n"]
    assert table["reason"].to_pylist() == [None, "null_text", "empty_text"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_invalid_utf8_is_told_row_by_row(save, read, kind):
    bad = (
        pa.array([b"fine", b"caf\xe9", None], kind) if kind == pa.binary() else invalid(kind, b"fine", b"caf\xe9", None)
    )
    table = read(save("a.parquet", text=bad, keep=bad), keep=["keep"])
    assert table["reason"].to_pylist() == [None, "invalid_utf8", "null_text"]
    assert table["text"].to_pylist() == ["fine", "caf\ufffd", None]


def test_kept_columns_keep_their_type(save, read):
    stars = pa.array([1, None, 3], pa.int8())
    tags = pa.array([["a"], [], None])
    path = save("a.parquet", text=["x", "", "z"], stars=stars, tags=tags, raw=[b"\xff"] * 3, none=pa.nulls(3))
    table = read(path, keep=["stars", "tags", "raw", "none"])
    assert table["stars"].combine_chunks() == stars
    assert table["tags"].combine_chunks() == tags
    assert table.schema.field("raw").type == pa.binary()
    assert table.schema.field("none").type == pa.null()


def test_ids_and_rows_count_through_row_groups_and_shards(save, read):
    path = save("a.parquet", text=[f"t{number}" for number in range(1000)])
    whole = read(path)
    source = resolve(str(path))
    parts = [(0, 3), (3, 4), (4, 10)]
    shards = [
        Shard(index, "parquet", (Piece(str(path), "a.parquet", start, stop),), 1)
        for index, (start, stop) in enumerate(parts)
    ]
    cut = [pa.concat_tables(read_shard(source, shard, CorpusSettings())) for shard in shards]
    assert whole["id"].to_pylist() == [f"a.parquet:{row}" for row in range(1, 1001)]
    assert pa.concat_tables(cut).combine_chunks() == whole.combine_chunks()
    assert cut[1]["row"].to_pylist()[0] == 301


def test_tables_of_long_texts_stay_small(save, read, monkeypatch):
    path = save("a.parquet", text=[f"{number} " * 500 for number in range(1000)])
    monkeypatch.setattr("sentray.corpus.parquet.TABLE_BYTES", 10_000)
    chunks = read(path)["text"].chunks
    assert max(chunk.nbytes for chunk in chunks) < 40_000


@pytest.mark.parametrize("size", [0, 3, 100, -8, -1])
def test_a_file_cut_short(save, read, size):
    path = save("a.parquet", text=[f"text {number}" for number in range(1000)])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        SentrayError, match=r"a\.parquet (cannot be read|holds no byte).* replace it or leave it out"
    ) as raised:
        read(path)
    assert "\n" not in str(raised.value)


def test_a_damaged_page(save, read):
    path = save("a.parquet", text=[f"text {number}" for number in range(1000)])
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(SentrayError, match=r"a\.parquet cannot be read"):
        read(path)


def test_a_file_that_vanished_after_the_plan(save):
    path = save("a.parquet", text=["x"])
    source = resolve(str(path))
    (shard,) = plan_shards(source, 1_000_000)
    path.unlink()
    with pytest.raises(SentrayError, match=r"a\.parquet is not there any more"):
        list(read_shard(source, shard, CorpusSettings()))


def test_a_file_that_got_fewer_row_groups_after_the_plan(save):
    path = save("a.parquet", text=["x"] * 100)
    shard = Shard(0, "parquet", (Piece(str(path), "a.parquet", 3, 5, 300),), 1)
    with pytest.raises(SentrayError, match=r"a\.parquet has fewer row groups than when the run was planned"):
        list(read_shard(resolve(str(path)), shard, CorpusSettings()))


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([[["a"]]]), pa.array([{"a": 1}])])
def test_nested_columns_hold_no_text(save, read, column):
    with pytest.raises(SentrayError, match=r"column 'text' of a\.parquet holds (list|struct)<.*, not text"):
        read(save("a.parquet", text=column))


def test_nested_columns_are_refused_before_they_are_read(save, read, monkeypatch):
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(SentrayError, match=r"column 'label' of a\.parquet holds list<.*, not text"):
        read(save("a.parquet", text=["x"], label=[[["pos"]]]))


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.large_binary()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ],
)
def test_a_text_that_is_a_list_of_words_is_these_words(save, read, kind):
    value = bytes if kind.value_type == pa.large_binary() else str
    words = [
        None if row is None else [value(word, "utf-8") if value is bytes else word for word in row]
        for row in (["a", "good", "film"], None, [], ["é"])
    ]
    table = read(save("a.parquet", text=pa.array(words, kind)))
    assert table["text"].to_pylist() == ["a good film", None, "", "é"]
    assert table["reason"].to_pylist() == [None, "null_text", "empty_text", None]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.int8()), pa.list_(pa.float64())])
def test_a_list_of_one_label_is_that_label(save, read, kind):
    labels = pa.array([["1"], [], None, ["1", "0"], [None], ["0"]], pa.list_(pa.string())).cast(kind)
    table = read(save("a.parquet", text=["x"] * 6, label=labels), need_label=True)
    assert table["label"].to_pylist() == ["1", None, None, None, None, "0"]
    reasons = [None, "missing_label", "missing_label", "unknown_label", "missing_label", None]
    assert table["reason"].to_pylist() == reasons


def test_columns_within_structures_are_found_by_their_path(save, read):
    reviews = pa.array([{"body": "x", "by": {"age": 7}}, None, {"body": "z", "by": None}])
    columns = {"review": reviews, "a.b": [1, 2, 3], "a": pa.array([{"b": 0, "c": 4}] * 3)}
    path = save("a.parquet", **columns)
    table = read(path, text_column="review.body", label_column="review.by.age", keep=["a.b", "a.c", "review.by"])
    assert table["text"].to_pylist() == ["x", None, "z"]
    assert table["label"].to_pylist() == ["7", None, None]
    # A column whose own name holds the dot comes first.
    assert table["a.b"].to_pylist() == [1, 2, 3]
    assert table["a.c"].to_pylist() == [4, 4, 4]
    assert table["review.by"].to_pylist() == [{"age": 7}, None, None]
    with pytest.raises(
        SentrayError, match=r"'body' \(it has: review, a\.b, a, review\.body, .*: .* --text-column review\.body"
    ):
        read(path, text_column="body")


def test_uuids_are_ids_as_they_are_usually_written(save, read):
    ids = [uuid.UUID(int=1 << 70), None, uuid.UUID(int=7)]
    values = pa.array([None if each is None else each.bytes for each in ids], pa.uuid())
    table = read(save("a.parquet", id=values, key=values, text=["x", "y", "z"]), keep=["key"])
    assert table["id"].to_pylist() == [str(ids[0]), None, str(ids[2])]
    assert table.schema.field("key").type == pa.uuid()


def test_text_of_another_extension_type(save, read):
    values = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}']))
    assert read(save("a.parquet", text=values))["text"].to_pylist() == ['{"a": 1}']


@pytest.fixture
def foreign():
    """Registers an extension type of Python code with Arrow, as Ray does, and takes the error of its code."""
    raises: list[Exception] = []

    class Foreign(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pa.binary(), "tests.foreign")

        def __arrow_ext_serialize__(self) -> bytes:
            return b"no JSON"

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "Foreign":
            for error in raises:
                raise error
            return cls()

    pa.register_extension_type(Foreign())
    yield Foreign(), raises
    pa.unregister_extension_type("tests.foreign")


@pytest.mark.parametrize("error", [ValueError("no JSON"), TypeError("an int"), RecursionError("too deep"), KeyError()])
def test_a_footer_that_the_code_of_a_type_refuses(save, read, foreign, error):
    kind, raises = foreign
    path = save("a.parquet", text=["x"], other=pa.ExtensionArray.from_storage(kind, pa.array([b"y"])))
    raises.append(error)
    with pytest.raises(SentrayError, match=rf"a\.parquet cannot be read \({type(error).__name__} in its footer\)"):
        read(path)
    source = resolve(str(path))
    (shard,) = plan_shards(source, 1000)
    (table,) = read_shard(source, shard, CorpusSettings(), on_unreadable="quarantine")
    assert table["reason"].to_pylist() == ["unreadable_file"]


def test_a_kept_column_of_a_type_that_only_this_process_knows(save, read, foreign):
    path = save("a.parquet", text=["x"], kept=pa.ExtensionArray.from_storage(foreign[0], pa.array([b"y"])))
    table = read(path, keep=["kept"])
    found = read_schema(resolve(str(path)), Piece(str(path), "a.parquet"), CorpusSettings(), ("kept",))
    assert found == pa.schema([table.schema.field("kept")])
    assert table["kept"].to_pylist() == [b"y"]


def test_kept_lists_with_text_that_is_no_utf8(save, read):
    lists = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), invalid(pa.string(), b"caf\xe9"))
    with pytest.raises(SentrayError, match=r"column 'tags' of a\.parquet holds invalid values in its list<"):
        read(save("a.parquet", text=["x"], tags=lists), keep=["tags"])


def test_the_schema_is_told_without_reading_rows(save, read):
    kept = {
        "stars": pa.array([1, None], pa.int8()),
        "tags": pa.array([["a"], []]),
        "raw": [b"\xff"] * 2,
        "none": pa.nulls(2),
        "view": pa.array([b"x"] * 2, pa.binary_view()),
        "few": pa.array(["a", "b"]).dictionary_encode(),
        "key": pa.array([b"0" * 16] * 2, pa.uuid()),
    }
    path = save("a.parquet", text=["x", ""], **kept)
    wanted = pa.schema(list(read(path, keep=tuple(kept)).schema)[-len(kept) :])
    source, piece = resolve(str(path)), Piece(str(path), "a.parquet")
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little") + 8
    path.write_bytes(bytes(path.stat().st_size - footer) + path.read_bytes()[-footer:])
    assert read_schema(source, piece, CorpusSettings(), tuple(kept)) == wanted
    with pytest.raises(SentrayError, match="has no column 'other'"):
        read_schema(source, piece, CorpusSettings(), ("other",))
    assert read_schema(source, piece, CorpusSettings(), ("other", "stars"), need_keep=False).names == ["stars"]
    assert read_schema(source, Piece(str(save("b.parquet", text=[])), "b.parquet"), CorpusSettings()) is None


def test_a_missing_column(save, read):
    with pytest.raises(SentrayError, match=r"a\.parquet has no column 'text' \(it has: review, stars\)"):
        read(save("a.parquet", review=["x"], stars=[1]))


def test_the_ids_of_a_file_without_them_are_not_read(save):
    source = resolve(str(save("a.parquet", text=["x"])))
    assert list(read_ids(source, plan_shards(source, 100)[0], CorpusSettings())) == []


def test_the_imdb_reviews(shared, read):
    path = shared / "data" / "imdb_train.parquet"
    table = read(path, keep=["rating"], need_label=True)
    stored = pq.read_table(path)
    assert table.num_rows == 25_000
    assert table["reason"].null_count == 25_000
    assert table["rating"].type == pa.int8()
    for name in ("id", "text", "label", "rating"):
        assert table[name].to_pylist() == stored[name].to_pylist()
    assert sum("\x85" in text for text in table["text"].to_pylist()) == 350
