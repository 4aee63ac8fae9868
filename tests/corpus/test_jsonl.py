import gzip
import json

import pyarrow as pa
import pytest

from sentray.config import CorpusSettings
from sentray.corpus.duplicates import hash_texts
from sentray.corpus.readers import read_ids
from sentray.corpus.rows import ROW_SCHEMA
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
        '{"text": "one"}\n{"text": "cut of\n[1]\n"x"\n{"text": ["a"]}\n{"text": 5}\n'
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


@pytest.mark.parametrize("content", ['[{"text": "x"}]', '\ufeff \n[\n{"text": "x"}\n]'])
def test_one_json_array(write, read, content):
    with pytest.raises(SentrayError, match="one JSON array: write one object a line"):
        read(write("a.json", content))


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
