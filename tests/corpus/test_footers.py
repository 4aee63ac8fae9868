"""Footers of Parquet: Arrow gets none that would take too much of memory, and sees in it what is seen here."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.corpus import footers
from sentray.corpus.footers import Footer, Leaf, read_footer
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards
from sentray.errors import SentrayError


def parsed(content: bytes) -> Footer:
    return read_footer(pa.BufferReader(content), "a.parquet", len(content))


def with_footer(footer: bytes) -> bytes:
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def listed(count: int, element: bytes) -> bytes:
    """A list of so many of a structure."""
    size, rest = b"", count
    while rest > 127:
        size, rest = size + bytes([rest & 127 | 128]), rest >> 7
    return b"\xfc" + size + bytes([rest]) + element * count


def footer_of(schema: bytes, groups: bytes) -> bytes:
    return b"\x29" + schema + b"\x29" + groups + b"\x00"


ROOT, LEAF = b"\x48\x01r\x15\x02\x00", b"\x15\x0c\x38\x01a\x00"


def test_what_is_in_a_file() -> None:
    table = pa.table(
        {
            "text": ["a", "b", "c"],
            "key": pa.array([b"0" * 16] * 3, pa.binary(16)),
            "tags": [["a"], [], ["b", "c"]],
            "more": [{"n": 1, "m.n": "x"}] * 3,
        }
    )
    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=2)
    found = parsed(content.getvalue())
    assert found.names == ("text", "key", "tags", "more")
    assert found.leaves == (
        Leaf("text", False, 6, 0, 1),
        Leaf("key", False, 7, 16, 1),
        Leaf("tags.list.element", True, 6, 0, 2),
        Leaf("more.n", True, 2, 0, 1),
        Leaf("more.m.n", True, 6, 0, 1),
    )
    metadata = pq.ParquetFile(content).metadata
    for place, group in enumerate(found.groups):
        told = metadata.row_group(place)
        assert (group.rows, group.bytes) == (told.num_rows, told.total_byte_size)
        for column, leaf in enumerate(group.columns):
            chunk = told.column(column)
            assert leaf.values == chunk.num_values
            assert (leaf.start, leaf.end - leaf.start) == (
                chunk.dictionary_page_offset or chunk.data_page_offset,
                chunk.total_compressed_size,
            )


@pytest.mark.parametrize(
    "footer",
    [
        pytest.param(footer_of(listed(2, ROOT), listed(1, b"\x19" + listed(500_000, b"\x26\0\0"))), id="columns"),
        pytest.param(footer_of(listed(300_000, LEAF), listed(0, b"")), id="schema"),
        pytest.param(footer_of(listed(1, ROOT), listed(2_000_000, b"\0")), id="row groups"),
        pytest.param(footer_of(b"\xfc\x66" + ROOT + ROOT * 100 + LEAF, listed(0, b"")), id="depth"),
    ],
)
def test_a_footer_that_would_take_too_much(footer: bytes, tmp_path: Path) -> None:
    content = with_footer(footer)
    with pytest.raises(SentrayError, match=r"a\.parquet has a footer that would take more than 268,435,456 bytes"):
        parsed(content)
    # The driver leaves it whole, and Arrow does not see it.
    (tmp_path / "a.parquet").write_bytes(content)
    assert len(plan_shards(resolve(str(tmp_path)), 100)) == 1


def test_the_names_of_nested_columns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footers, "_MAX_NAMES", 100)
    content = io.BytesIO()
    pq.write_table(pa.table({"a" * 20: [{"b": 1, "c": 2, "d": 3, "e": 4}]}), content)
    with pytest.raises(SentrayError, match="has a footer that would take more"):
        parsed(content.getvalue())


@pytest.mark.parametrize("size", [0, 1, 7, 8, 11])
def test_a_file_without_a_footer(size: int) -> None:
    with pytest.raises(SentrayError, match="the footer is damaged"):
        parsed((b"PAR1\xff\xff\xff\xffPAR1")[-size:] if size else b"")


@pytest.mark.parametrize("size", [60, 130])
def test_columns_that_are_larger_than_their_file_together(size: int) -> None:
    column = b"\x26\0\x1c\x15\x0c\x35\0\x16\0\x26" + bytes([size << 1 & 127 | 128, size >> 6]) + b"\x26\x08\0\0"
    groups = listed(1, b"\x19\x2c" + 2 * column + b"\x16\0\x16\0\0")
    whole = with_footer(footer_of(b"\x3c" + b"\x48\x01r\x15\x04\x00" + 2 * LEAF, groups))
    assert len(parsed(b"PAR1" + bytes(200) + whole[4:]).groups[0].columns) == 2
    with pytest.raises(SentrayError, match="the footer is damaged"):
        parsed(whole)
