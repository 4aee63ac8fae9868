import sys

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.config import CorpusSettings
from sentray.corpus.rows import Block, Columns, Reason, decode, finish, mark, set_aside


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
