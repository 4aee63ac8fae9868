"""What is found in the headers of pages, and how many rows are read together for it."""

import io
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.corpus import limits
from sentray.corpus.footers import read_footer
from sentray.corpus.pages import ColumnPages, look_at_pages, read_table, rows_at_once
from sentray.errors import SentrayError

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.int64())])


@pytest.fixture
def look() -> Callable[..., ColumnPages]:
    """Writes one column and looks at it."""

    def look(column: pa.Array, **how: Any) -> ColumnPages:
        content = io.BytesIO()
        pq.write_table(pa.table({"a": column}), content, **how)
        stream = pa.BufferReader(content.getvalue())
        footer = read_footer(stream, "a.parquet", stream.size())
        (leaf,), (group,) = footer.leaves, footer.groups
        return look_at_pages(stream, "a.parquet", leaf, group.columns[0], group.rows)

    return look


@pytest.mark.parametrize("dictionary", [True, False])
def test_values_of_a_fixed_length_are_of_that_length(look: Callable[..., ColumnPages], dictionary: bool) -> None:
    ids = look(pa.array([uuid.UUID(int=row).bytes for row in range(20_000)], pa.binary(16)), use_dictionary=dictionary)
    assert ids.longest == 16
    assert rows_at_once([ids], 4096) == 4096
    zeros = look(pa.array([bytes(1 << 20)] * 3, pa.binary(1 << 20)), use_dictionary=dictionary)
    assert zeros.longest == 1 << 20
    assert rows_at_once([zeros], 4096) <= 64
    # Without a value in the file, the rows take as much.
    assert rows_at_once([look(pa.nulls(5, pa.binary(1 << 20)))], 4096) <= 64


def test_a_row_of_a_list_may_have_all_of_its_values(look: Callable[..., ColumnPages]) -> None:
    references = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, np.int32)), pa.array(["a" * 700]))
    found = look(pa.ListArray.from_arrays(pa.array([0, 1_000_000], pa.int32()), references))
    assert found.held > 700_000_000
    assert look(pa.array([["a", "b"]] * 1000)).held < 100_000


def test_columns_share_what_they_may_take(look: Callable[..., ColumnPages], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BATCH_BYTES", 1_000_000)
    found = look(pa.array(["a" * 1000, "b"] * 5000))
    assert rows_at_once([found], 4096) == 512
    assert rows_at_once([found] * 4, 4096) == 128


def test_a_table_of_the_expected_columns() -> None:
    table = pa.table({"name": ["a", "b"], "size": [1, 2]}, SCHEMA)
    content = io.BytesIO()
    pq.write_table(table.append_column("more", pa.array([[1], [2]])), content)
    found = read_table(pa.BufferReader(content.getvalue()), "a.parquet", SCHEMA)
    assert found.cast(SCHEMA) == table


@pytest.mark.parametrize("name", [pa.array([["a"]]), pa.array([1]), pa.array([b"a"], pa.binary(1))])
def test_a_table_of_other_columns(name: pa.Array) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"name": name, "size": [1]}), content)
    with pytest.raises(SentrayError, match=r"a\.parquet has other columns than it should"):
        read_table(pa.BufferReader(content.getvalue()), "a.parquet", SCHEMA)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_table_that_would_take_too_much(dictionary: bool) -> None:
    content = io.BytesIO()
    names = pa.array(["a" * 10_000_000] * 30, pa.binary())
    table = pa.table({"name": names, "size": pa.array([1] * 30)})
    pq.write_table(table, content, compression="zstd", use_dictionary=dictionary, write_statistics=False)
    with pytest.raises(SentrayError, match=r"a\.parquet would take more than 268,435,456 bytes"):
        read_table(pa.BufferReader(content.getvalue()), "a.parquet", SCHEMA)
