import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.config import CorpusSettings
from sentray.corpus.duplicates import hash_texts
from sentray.corpus.jsonl import _lines, _pass_bracket, _read_elements
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.records import Window
from sentray.corpus.rows import ROW_SCHEMA, TABLE_ROWS
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards
from sentray.errors import SentrayError


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_columns_by_their_default_names(write, read):
    content = lines({"id": 7, "text": "good", "label": 1, "split": "test", "x": 1}, {"text": "bad", "label": True})
    table = read(write("a.jsonl", content), test_fraction=0)
    assert table.schema == ROW_SCHEMA
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("7", "good", "1", "test", "a.jsonl", 1, None, None),
        ("a.jsonl:2", "bad", "true", "train", "a.jsonl", 2, None, None),
    ]


def test_whole_floats_are_the_labels_that_whole_numbers_are(write, read):
    table = read(write("a.jsonl", lines({"text": "x", "label": 1.0}, {"text": "x", "label": 1.5})))
    assert table["label"].to_pylist() == ["1", "1.5"]


def test_only_a_line_feed_ends_a_line(write, read):
    text = "a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b"
    content = '\ufeff{"text": "' + text.replace("\x0b", "\\u000b").replace("\x0c", "\\f") + '"}\r\n\n  \n{"text": "c"}'
    content = content.replace("\x1c", "\\u001c").replace("\x1d", "\\u001d").replace("\x1e", "\\u001e")
    table = read(write("a.jsonl", content))
    assert table["text"].to_pylist() == [text, "c"]
    assert table["row"].to_pylist() == [1, 4]


def test_lines_that_are_no_record_are_told_by_number(write, read):
    content = (
        '{"text": "one"}\n{"text": "cut of\n[1]\n"x"\n{"text": [1]}\n{"text": 5}\n'
        '{"text": "x", "label": {}}\n{"text": "two"}\n'
    )
    table = read(write("a.jsonl", content))
    assert table["row"].to_pylist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert table["reason"].to_pylist() == [None, *["invalid_record"] * 6, None]
    assert table["text"].to_pylist()[1] == '{"text": "cut of'


def test_lines_that_hurt_the_parser(write, read):
    content = '{"text": "ok"}\n' + "[" * 100_000 + "\n" + '{"text": "x", "label": ' + "9" * 10_000 + "}\n"
    assert read(write("a.jsonl", content))["reason"].to_pylist() == [None, "invalid_record", "invalid_record"]


def test_invalid_utf8_is_told_row_by_row(write, read):
    content = (
        b'{"text": "caf\xe9"}\n{"text": "\\ud800 lone"}\n{"text": "\\ud83d\\ude00"}\n'
        b'{"text": "x", "id": "\xff"}\n{"te\xff'
    )
    table = read(write("a.jsonl", content))
    assert table["reason"].to_pylist() == [
        "invalid_utf8",
        "invalid_utf8",
        None,
        "invalid_utf8",
        "invalid_record",
    ]
    assert table["text"].to_pylist()[0] == "caf\ufffd"
    assert table["text"].to_pylist()[2:] == ["😀", "x", '{"te\ufffd']


def test_null_empty_and_missing_values(write, read):
    content = lines(
        {"text": None, "label": "a"},
        {"label": "a"},
        {"text": " \n", "label": "a"},
        {"text": "x", "id": None, "label": "a"},
        {"text": "x", "label": None},
        {"text": "x", "label": "a", "split": None},
    )
    table = read(write("a.jsonl", content), need_label=True)
    assert table["reason"].to_pylist() == [
        "null_text",
        "null_text",
        "empty_text",
        "missing_id",
        "missing_label",
        None,
    ]


def test_a_gap_that_python_wrote_as_nan_is_null(write, read):
    table = read(write("a.jsonl", '{"text": NaN, "label": 1.0, "id": NaN}\n{"text": "x", "label": NaN, "id": 2.0}\n'))
    assert table["reason"].to_pylist() == ["null_text", None]
    assert table.select(["id", "label"]).to_pylist() == [
        {"id": None, "label": "1"},
        {"id": "2", "label": None},
    ]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("9223372036854775807", "9223372036854775807"),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("9" * 400, "9" * 400),
        ("1e22", "10000000000000000000000"),
        ("1E400", "Infinity"),
        ("-0", "0"),
        ("0.1", "0.1"),
        ("2.50", "2.5"),
        ("false", "false"),
        (' "\\ud83d\\ude00"\t', "😀"),
    ],
)
def test_values_are_those_of_the_standard_library(write, read, value, label):
    path = write("a.jsonl", f'\ufeff{{"text": "x", "label": {value}, "more": {{"a": [{value}]}}}}\n')
    for table in (read(path, keep=["more"]), read(write("b.jsonl", path.read_text("utf-8-sig")), keep=["more"])):
        assert table.select(["label", "more"]).to_pylist() == [
            {"label": label, "more": json.dumps({"a": [json.loads(value)]}, ensure_ascii=False)}
        ]


def test_kept_columns_are_strings(write, read):
    content = lines({"text": "x", "stars": 5, "tags": ["é"]}, {"text": "x", "stars": "b"}, {"text": "", "tags": None})
    table = read(write("a.jsonl", content), keep=["stars", "tags"])
    assert table.select(["stars", "tags"]).to_pylist() == [
        {"stars": "5", "tags": '["é"]'},
        {"stars": "b", "tags": None},
        {"stars": None, "tags": None},
    ]


def test_a_label_that_comes_late(write, read):
    content = lines(*[{"text": "x"}] * 300, {"text": "x", "label": "pos"})
    assert read(write("a.jsonl", content))["label"].to_pylist()[-2:] == [None, "pos"]


def test_a_missing_column(write, read):
    path = write("a.jsonl", lines({"review": "x", "stars": 1}))
    with pytest.raises(SentrayError, match=r"no column 'text' \(it has: review, stars\): .* with --text-column$"):
        read(path)
    with pytest.raises(SentrayError, match=r"no column 'label' .* with --label-column$"):
        read(path, text_column="review", need_label=True)


ROWS = [{"text": 'a ] "b" \\', "label": [1, {"x": "}"}]}, {"text": "é\u2028", "n": {"m": [[]]}}, 7, None, {"text": ","}]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_one_json_array(write, read, name, indent):
    content = f"\ufeff \n{json.dumps(ROWS, indent=indent)}\n".encode()
    table = read(write(name, gzip.compress(content) if name.endswith(".gz") else content), keep=["n.m"])
    assert table["row"].to_pylist() == [1, 2, 3, 4, 5]
    assert table["reason"].to_pylist() == ["invalid_record", None, "invalid_record", "invalid_record", None]
    assert table["text"].to_pylist()[1:] == ["é\u2028", "7", "null", ","]
    assert table["id"].to_pylist()[-1] == f"{name}:5"
    assert table["n.m"].to_pylist() == [None, "[[]]", None, None, None]


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(alphabet='"\\,[]{} aé\n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='"],a'), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(values, max_size=6), st.sampled_from([None, 0, 2]), st.integers(1, 40), st.booleans())
def test_elements_are_those_that_the_standard_library_finds(rows, indent, chunk, as_ascii):
    content = json.dumps(rows, indent=indent, ensure_ascii=as_ascii).encode()
    window = Window(io.BytesIO(content), chunk)
    window.at = 0
    window.read()
    assert _pass_bracket(window)
    found = []
    for some in _read_elements(window, "a.json"):
        assert some.positions.tolist() == list(range(len(found), len(found) + len(some.starts)))
        found += [json.loads(bytes(line)) for line in _lines(some, window)]
    assert found == rows


def test_a_large_array_stays_whole_and_a_large_file_of_lines_is_cut(write, monkeypatch):
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    rows = [{"text": f"review {number}"} for number in range(20_000)]
    write("a.json", json.dumps(rows))
    write("b.json", lines(*rows))
    source = resolve(str(write("c.json", json.dumps(rows, indent=1)).parent))
    shards = plan_shards(source, 200_000)
    pieces = {}
    for piece in (piece for shard in shards for piece in shard.pieces):
        pieces.setdefault(piece.name, []).append(piece.stop)
    assert pieces["a.json"] == pieces["c.json"] == [None]
    assert len(pieces["b.json"]) > 1
    found = [table for shard in shards for table in read_shard(source, shard, CorpusSettings())]
    assert sum(table.num_rows for table in found) == 60_000
    assert max(table.num_rows for table in found) <= TABLE_ROWS


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("", r"a\.json is one JSON array that cannot be read from its element 3 on"),
        (', {"text": "x}]', "from its element 3 on"),
        (', {"text": x}, {"text": "y"}]', "from its element 3 on"),
        (', {"text": "x"}}]', "from its element 3 on"),
        (']\n{"text": "x"}', r"a\.json goes on behind its JSON array: write one object a line"),
    ],
)
def test_an_array_that_is_damaged_is_read_up_to_there(write, read, end, message):
    path = write("a.json", '[{"text": "a"},\n {"text": "b"}' + (end or ","))
    with pytest.raises(SentrayError, match=message):
        read(path)
    source = resolve(str(path))
    (shard,) = plan_shards(source, 1_000_000)
    table = pa.concat_tables(read_shard(source, shard, CorpusSettings(), on_unreadable="quarantine"))
    assert table["reason"].to_pylist() == [None, None, "unreadable_file"]


def test_an_array_without_an_element_and_one_with_a_comma_too_many(write, read, tmp_path):
    write("a.json", " [ ]\n")
    write("b.json", '[{"text": "x"},]')
    assert read(tmp_path)["id"].to_pylist() == ["b.json:1"]


def test_columns_by_their_path(write, read):
    content = lines(
        {"id": 1, "review": {"body": "x", "by": {"age": 7}}, "a.b": 1, "a": {"b": 0, "c.d": 4}},
        {"review": "no object", "meta": {"id": 2}},
        {"review": {"body": ["two", "words"]}},
    )
    names = {"text_column": "review.body", "label_column": "review.by.age", "id_column": "meta.id"}
    table = read(write("a.jsonl", content), **names, keep=["a.b", "a.c.d"])
    assert table["text"].to_pylist() == ["x", None, "two words"]
    assert table["label"].to_pylist() == ["7", None, None]
    assert table["id"].to_pylist() == ["a.jsonl:1", "2", "a.jsonl:3"]
    # A key that holds the dot itself comes first.
    assert table.select(["a.b", "a.c.d"]).to_pylist()[0] == {"a.b": "1", "a.c.d": "4"}
    with pytest.raises(
        SentrayError,
        match=r"no column 'body' \(it has: id, review, review\.body, review\.by, .*: .* --text-column review\.body",
    ):
        read(write("a.jsonl", content), text_column="body")


def test_a_list_of_one_label_is_that_label(write, read):
    labels = [["pos"], "neg", [], None, ["pos", "neg"], [1.0], [["pos"]], [None], [True]]
    table = read(write("a.jsonl", lines(*({"text": "x", "label": label} for label in labels))), need_label=True)
    assert table["label"].to_pylist() == ["pos", "neg", None, None, None, "1", None, None, "true"]
    missing, several, wrong = "missing_label", "unknown_label", "invalid_record"
    assert table["reason"].to_pylist() == [None, None, missing, missing, several, None, wrong, missing, None]


def test_a_text_that_is_a_list_of_words_is_these_words(write, read):
    table = read(write("a.jsonl", lines({"text": ["a", "good", "film"]}, {"text": []}, {"text": ["a", None]})))
    assert table["text"].to_pylist()[:2] == ["a good film", ""]
    assert table["reason"].to_pylist() == [None, "empty_text", "invalid_record"]


def test_gzip_whole_and_cut_short(write, read):
    content = gzip.compress(lines(*({"text": f"word{number}"} for number in range(50_000))).encode())
    assert read(write("a.jsonl.gz", content)).num_rows == 50_000
    with pytest.raises(SentrayError, match=r"b\.jsonl\.gz cannot be read"):
        read(write("b.jsonl.gz", content[:-100]))


def test_ids_that_a_key_gives_are_read_alone(write):
    path = write("a.jsonl", lines({"id": 1, "text": "x"}, {"text": "x"}, {"id": "b", "text": ["y"]}))
    source = resolve(str(path))
    ((_, rows, hashes),) = read_ids(source, plan_shards(source, 100)[0], CorpusSettings())
    assert (rows.tolist(), hashes.tolist()) == (
        [1, 3],
        hash_texts(pa.array(["1", "b"], pa.large_string())).tolist(),
    )


@pytest.mark.parametrize(("encoding", "told"), [("utf-16", None), ("cp1252", "cp1252")])
def test_lines_in_another_encoding(write, read, encoding, told):
    path = write("a.jsonl", lines({"text": "\u201ccaf\u00e9\u201d"}, {"text": "no"}).encode(encoding))
    assert read(path, encoding=told)["text"].to_pylist() == ["\u201ccaf\u00e9\u201d", "no"]
