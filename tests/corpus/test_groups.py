"""Rows that belong together, and the fold of them that is tested on."""

import numpy as np
import pyarrow as pa
import pytest

from sentray.config import CorpusSettings
from sentray.corpus.groups import LEFT_OUT, group_keys, with_test_fold
from sentray.corpus.rows import ROW_SCHEMA
from sentray.errors import SentrayError


def rows(**columns: list[str | None]) -> pa.Table:
    (count,) = {len(values) for values in columns.values()}
    nothing = {name: [None] * count for name in ROW_SCHEMA.names}
    table = pa.table({**nothing, "split": ["train"] * count, **{n: c for n, c in columns.items() if n in nothing}})
    table = table.cast(ROW_SCHEMA)
    for name in columns.keys() - nothing.keys():
        table = table.append_column(name, pa.array(columns[name], pa.large_string()))
    return table


def same(table: pa.Table, **settings: str) -> list[int]:
    found = group_keys(table, CorpusSettings(**settings)).tolist()
    return [found.index(each) for each in found]


def test_groups_by_text_by_a_column_and_by_blocks_of_ids() -> None:
    assert same(rows(text=["a", "b", "a"])) == [0, 1, 0]
    assert same(rows(film=["a", "b", "a"]), group_column="film") == [0, 1, 0]
    ids = ["train/pos/0", "train/pos/99", "train/pos/100", "train/neg/99", "train/pos/0100", "7", "12"]
    assert same(rows(id=ids), group_by="id-block:100") == [0, 0, 2, 3, 2, 5, 5]
    # A number in the prefix stays what it is.
    assert same(rows(id=["a1/5", "a15"]), group_by="id-block:10") == [0, 1]
    with pytest.raises(SentrayError, match="a row has no film, which says its group"):
        same(rows(film=["a", None]), group_column="film")
    with pytest.raises(SentrayError, match=r"'x\.txt' does not: name a column with --group-column"):
        same(rows(id=["a1", "x.txt"]), group_by="id-block:10")


def test_each_training_row_is_tested_on_in_one_fold_with_its_group() -> None:
    films = [f"film {number // 3}" for number in range(300)]
    splits = ["train"] * 297 + ["test", "validation", "unsup"]
    table = rows(text=[f"text {number}" for number in range(300)], film=films, split=splits)
    grouped = [
        with_test_fold(table, CorpusSettings(group_column="film", test_fold=f"{number}/4"))["split"].to_pylist()
        for number in range(1, 5)
    ]
    tested = np.array([[split == "test" for split in fold] for fold in grouped])
    assert tested[:, :297].sum(0).tolist() == [1] * 297
    assert {split for fold in grouped for split in fold[297:]} == {LEFT_OUT}
    assert all(tested[:, at].tolist() == tested[:, at + 1].tolist() for at in range(0, 297, 3))
    assert tested.sum(1).min() > 40


def test_a_column_says_the_fold_and_bad_rows_have_none() -> None:
    table = rows(text=["a", "b", None], reason=[None, None, "null_text"], fold=["0", "1", None])
    by_column = CorpusSettings(fold_column="fold", test_fold="1")
    assert with_test_fold(table, by_column)["split"].to_pylist() == ["train", "test", "train"]
    by_hash = [with_test_fold(table, CorpusSettings(test_fold=f"{number}/2"))["split"].to_pylist() for number in (1, 2)]
    assert sorted(split for fold in by_hash for split in fold[:2]) == ["test", "test", "train", "train"]
    assert [fold[2] for fold in by_hash] == ["train", "train"]
