"""Pages that begin with lengths have as many as values."""

import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.corpus.footers import read_footer
from sentray.corpus.lengths import require_lengths
from sentray.corpus.pages import look_at_pages
from sentray.errors import SentrayError

DELTA = ("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY")


def look(content: bytes) -> None:
    stream = pa.BufferReader(content)
    footer = read_footer(stream, "a.parquet", stream.size())
    for group in footer.groups:
        for leaf, column in zip(footer.leaves, group.columns, strict=True):
            look_at_pages(stream, "a.parquet", leaf, column, group.rows)


def written(column: pa.Array, encoding: str, nullable: bool = True, **how: Any) -> bytes:
    content = io.BytesIO()
    table = pa.table([column], schema=pa.schema([pa.field("a", column.type, nullable)]))
    leaf = "a.list.element" if pa.types.is_list(column.type) else "a"
    pq.write_table(table, content, use_dictionary=False, column_encoding={leaf: encoding}, **how)
    return content.getvalue()


chance = random.Random(1)
TEXTS = ["ab" * chance.randrange(300) + str(chance.random()) for _ in range(3000)]


@pytest.mark.parametrize("encoding", DELTA)
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_what_pyarrow_writes_is_let_through(encoding: str, codec: str, version: str) -> None:
    holes = [None if row % 3 else text for row, text in enumerate(TEXTS)]
    columns = [
        pa.array(TEXTS),
        pa.array(holes),
        pa.nulls(500, pa.string()),
        pa.array([""] * 2000),
        pa.array(TEXTS[:1]),
        pa.array([], pa.string()),
        pa.array([TEXTS[row : row + row % 4] for row in range(2000)]),
        pa.array([None, [], [None], ["a"]] * 100),
    ]
    for column in columns:
        look(written(column, encoding, compression=codec, data_page_version=version, data_page_size=20_000))
    look(written(pa.array(TEXTS), encoding, nullable=False, compression=codec, data_page_version=version))


def number(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def lengths(count: int, block: int = 1 << 20) -> bytes:
    """So many lengths of 0 in a few bytes."""
    return number(block) + b"\x04" + number(count) + b"\0" + bytes(5) * (count // block + 1)


@pytest.mark.parametrize("encoding", DELTA)
def test_more_lengths_than_values_are_damage(encoding: str) -> None:
    content = written(pa.array(TEXTS), encoding, nullable=False, compression="none", write_statistics=False)
    at = content.index(b"\x80\x01\x04" + number(3000))
    forged = lengths(400_000_000)
    with pytest.raises(SentrayError, match=r"a\.parquet cannot be read \(the column 'a' is damaged"):
        look(content[:at] + forged + content[at + len(forged) :])


def test_the_second_lengths_are_looked_at_too() -> None:
    honest, more = lengths(300, 128), lengths(301, 128)
    require_lengths(memoryview(honest + honest), 300, prefixed=True)
    require_lengths(memoryview(honest + more), 300, prefixed=False)
    for values in (honest + more, more + honest):
        with pytest.raises(ValueError, match="other lengths than values"):
            require_lengths(memoryview(values), 300, prefixed=True)


def test_whatever_stands_there_ends_in_one_of_two_ways() -> None:
    for seed in range(3000):
        some = random.Random(seed)
        values = bytearray(lengths(300, 128) * 2)
        for _ in range(some.randrange(1, 4)):
            values[some.randrange(len(values))] = some.randrange(256)
        try:
            require_lengths(memoryview(bytes(values[: some.randrange(len(values) + 1)])), 300, some.random() < 0.5)
        except (ValueError, IndexError):
            continue
