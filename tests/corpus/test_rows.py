import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.config import CorpusSettings, EmbedSettings, ScoreSettings
from sentray.corpus.rows import Block, Columns, Reason, decode, finish, label_form, label_order, mark, set_aside
from sentray.task import split


def finished(**columns: pa.Array) -> pa.Table:
    count = len(columns["text"])
    return finish(Block("f", np.arange(1, count + 1), columns), Columns(CorpusSettings(), need_label=True))


@settings(deadline=None)
@given(st.lists(st.none() | st.binary(max_size=8), max_size=8), st.integers(0, 8))
def test_bytes_are_text_where_python_says_so(values, start):
    texts, invalid = decode(pa.array(values, pa.binary())[start:], "text", "f")
    expected = [None if value is None else value.decode(errors="replace") for value in values[start:]]
    assert texts.to_pylist() == expected
    for value, flag in zip(values[start:], invalid.tolist(), strict=True):
        assert flag == (value is not None and value.decode(errors="ignore").encode() != value)


def test_text_is_empty_where_python_finds_no_word():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000 and code < 0x30000]
    table = finished(text=pa.array(characters), label=pa.array(["x"] * len(characters)))
    empty = [text for text, reason in zip(characters, table["reason"].to_pylist(), strict=True) if reason]
    assert empty == [text for text in characters if not text.strip()]


def test_the_same_table_has_the_same_labels_in_every_format(write, read, tmp_path):
    for values in ([0.0, 1.0, 2.5, None], [False, True, True, None], [1, 10, 2, None], ["01", "1.50", "a", "1e3"]):
        frame = pd.DataFrame({"text": ["x"] * 4, "label": values})
        frame.to_csv(tmp_path / "a.csv", index=False)
        frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
        frame.to_json(tmp_path / "a.json", orient="records")
        frame.to_parquet(tmp_path / "a.parquet")
        found = [read(tmp_path / name)["label"].to_pylist() for name in ("a.csv", "a.jsonl", "a.json", "a.parquet")]
        assert found == [found[0]] * 4
        assert found[0][:2] in (["0", "1"], ["false", "true"], ["1", "10"], ["01", "1.50"])


@pytest.mark.parametrize(
    ("label", "form"),
    [
        ("-0.0", "0"),
        ("-1.0", "-1"),
        ("1.00", "1.00"),
        ("01.0", "01.0"),
        (".0", ".0"),
        ("true", "true"),
        ("TRUE", "TRUE"),
    ],
)
def test_only_what_pandas_writes_gets_another_form(label, form):
    assert label_form(label) == form


def test_labels_that_are_numbers_are_sorted_by_size():
    labels = ["10", "b", "2", "-1", "1.5", "a", "01"]
    assert sorted(labels, key=label_order) == ["-1", "01", "1.5", "2", "10", "a", "b"]


def test_a_label_that_is_a_list_says_how_many():
    label = pa.array([["a", "b"], ["a"], []], pa.list_(pa.string()))
    table = finished(text=pa.array(["x"] * 3), label=label)
    assert table["detail"].to_pylist() == ["the label is a list of 2; --task multilabel takes several", None, None]
    assert table["reason"].to_pylist() == ["unknown_label", None, "missing_label"]


@pytest.mark.parametrize("verb", [ScoreSettings(bundle="", input="", out=""), EmbedSettings(corpus="", out="")])
def test_labels_that_a_verb_has_no_use_for_are_not_looked_at(verb):
    label = pa.array([[["a"]]] * 2)
    block = Block("f", np.arange(1, 3), {"text": pa.array(["x", "y"]), "label": label})
    assert (
        finish(block, Columns(verb, ("label",))).select(["reason", "kept label"]).to_pylist()
        == [{"reason": None, "kept label": [["a"]]}] * 2
    )


def test_no_column_gives_the_ids():
    columns = Columns(CorpusSettings(id_column="none"), ("id",))
    assert columns.choose(["text", "id"], "f") == ["text", "id"]
    block = Block("f", np.arange(1, 3), {"text": pa.array(["x", "y"]), "id": pa.array([7, 7])})
    found = finish(block, columns)
    assert (found["id"].to_pylist(), found["kept id"].to_pylist()) == (["f:1", "f:2"], [7, 7])


def test_a_row_with_several_faults_has_the_first():
    text = pa.array([None, b" ", b"\xff", b"x", b"x"], pa.binary())
    ids = pa.array([None, None, None, None, "a"])
    table = finished(text=text, id=ids, label=pa.nulls(5))
    assert table["reason"].to_pylist() == [
        "null_text",
        "empty_text",
        "invalid_utf8",
        "missing_id",
        "missing_label",
    ]


def test_a_later_mark_does_not_hide_an_earlier_fault():
    table = finished(text=pa.array(["", "x" * 300, "y"]), label=pa.array(["a", None, "a"]))
    marked = mark(table, np.array([True, True, False]), Reason.DUPLICATE_ID, "as row 1")
    assert marked["reason"].to_pylist() == ["empty_text", "duplicate_id", None]
    assert marked["detail"].to_pylist() == [None, "as row 1", None]
    assert marked["text"].to_pylist()[1] == "x" * 200
    assert marked.schema == table.schema
    assert mark(marked, np.array([True, True, False]), Reason.UNKNOWN_LABEL) is marked


def test_bad_rows_are_set_aside_with_or_without_their_texts():
    table = mark(finished(text=pa.array(["a", "", "c"]), label=pa.array(["x"] * 3)), np.arange(3) == 2, Reason.CRASH)
    assert set_aside(table)["text"].to_pylist() == ["", "c"]
    without = set_aside(table, excerpts=False)
    assert without.schema == set_aside(table).schema
    assert without.drop_columns("text") == set_aside(table).drop_columns("text")
    assert without["text"].to_pylist() == [None, None]


def labels_of(table):
    both = zip(table["label"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return [(label and split(label), reason) for label, reason in both]


def in_parquet(path, labels):
    pq.write_table(pa.table({"text": ["x"] * len(labels), "label": labels}), path)
    return path


MISSING = (None, "missing_label")


def test_several_labels_are_read_alike_from_every_format(write, read, tmp_path):
    """An empty list says that no label fits, which is not the same as nothing."""
    wanted = [(["1", "a"], None), ("", None), MISSING, (["b"], None)]
    lists = [["a", "1", "a"], [], None, [" b ", None]]
    parquet = in_parquet(tmp_path / "a.parquet", pa.array(lists))
    rows = "".join(json.dumps({"text": "x", "label": label}) + "\n" for label in [["a", 1], [], None, "b"])
    csv = write("a.csv", "text,label\nx,a; 1\nx,;\nx,\nx,b;b\n")
    found = [
        read(parquet, need_label=True, task="multilabel"),
        read(write("a.jsonl", rows), need_label=True, task="multilabel"),
        read(csv, need_label=True, task="multilabel", label_separator=";"),
    ]
    assert [labels_of(table) for table in found] == [wanted] * 3
    lines = read(write("a.ft", "__label__b __label__a x\n__label__b x\nx\n"), need_label=True, task="multilabel")
    assert labels_of(lines) == [(["a", "b"], None), (["b"], None), MISSING]
    whole = in_parquet(tmp_path / "b.parquet", pa.array([[2, 10], [3]], pa.list_(pa.int8())))
    assert labels_of(read(whole, task="multilabel")) == [(["10", "2"], None), (["3"], None)]
    bytes_ = in_parquet(tmp_path / "c.parquet", pa.array([[b"caf\xe9", b"a"], [b"b"]]))
    assert [reason for _, reason in labels_of(read(bytes_, task="multilabel"))] == ["invalid_utf8", None]


@pytest.mark.parametrize("task", ["ordinal", "regression"])
def test_numbers_have_one_form_and_what_is_none_is_set_aside(write, read, task):
    path = write("a.csv", "text,label\nx,1.50\nx,+3\nx,1e2\nx,good\nx,\nx,nan\nx,1e999\nx,-1e39\n")
    table = read(path, need_label=True, task=task)
    bad = [(None, "unknown_label")]
    assert labels_of(table) == [(["1.5"], None), (["3"], None), (["100"], None), *bad, MISSING, *bad * 3]
    assert table["detail"][3].as_py() == f"label 'good' is no number that --task {task} can use"
    assert sorted(["10", "-2", "1e1", "1.5", "x"], key=label_order) == ["-2", "1.5", "10", "1e1", "x"]


def test_numbers_beside_the_text_are_what_a_float32_can_hold():
    values = pa.array(["-3e38", "TRUE", "1e39", "1e200", "x"])
    block = Block("f", np.arange(1, 6), {"text": pa.array(["x"] * 5), "label": pa.array(["a"] * 5), "n": values})
    table = finish(block, Columns(CorpusSettings(numeric="n"), need_label=True))
    assert table["reason"].to_pylist() == [None, None, *["invalid_number"] * 3]
    assert table["detail"][2].as_py() == "n '1e39' is no number that can be used"
