"""Rows that belong together, and the fold of them that is tested on."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sentray.config import CorpusSettings
from sentray.corpus.dataset import Corpus
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


def in_folds(table: pa.Table, names: list[str], **settings: str) -> np.ndarray:
    """The splits of the rows where each fold is tested on; [folds, rows]."""
    made = [CorpusSettings(test_fold=name, **settings) for name in names]
    return np.array([with_test_fold(table, each)["split"].to_pylist() for each in made])


def test_each_training_row_is_tested_on_in_one_fold_with_its_group() -> None:
    films = [f"film {number // 3}" for number in range(300)]
    splits = ["train"] * 297 + ["test", "validation", "unsup"]
    table = rows(text=[f"text {number}" for number in range(300)], film=films, split=splits)
    found = in_folds(table, [f"{number}/4" for number in range(1, 5)], group_column="film")
    tested = found == "test"
    assert tested[:, :297].sum(0).tolist() == [1] * 297
    assert set(found[:, :297].ravel()) == {"train", "test"}
    # What else is given stays, but for test rows, which belong to no fold.
    assert found[:, 297:].tolist() == [[LEFT_OUT, "validation", "unsup"]] * 4
    assert all(tested[:, at].tolist() == tested[:, at + 1].tolist() for at in range(0, 297, 3))
    assert tested.sum(1).min() > 40


def test_a_few_blocks_of_ids_make_folds_of_one_size() -> None:
    table = rows(id=[f"train/{label}/{number}" for label in ("neg", "pos") for number in range(200)])
    tested = in_folds(table, [f"{number}/5" for number in range(1, 6)], group_by="id-block:20") == "test"
    assert tested.sum(0).tolist() == [1] * 400
    for label in (tested[:, :200], tested[:, 200:]):
        assert label.sum(1).tolist() == [40] * 5
        assert (label.reshape(5, 10, 20).sum(2) % 20 == 0).all()


def test_a_column_says_the_fold_whatever_the_split_and_bad_rows_have_none() -> None:
    splits = ["train", "test", "train", "test", "train"]
    reasons = [None, None, "null_text", None, None]
    table = rows(split=splits, reason=reasons, fold=["0", "1", "1", None, None])
    assert in_folds(table, ["0", "1"], fold_column="fold").tolist() == [
        ["test", "train", "train", LEFT_OUT, "train"],
        ["train", "test", "train", LEFT_OUT, "train"],
    ]
    by_hash = in_folds(rows(text=["a", "b", "c"], reason=[None, None, "null_text"]), ["1/2", "2/2"])
    assert [sorted(fold) for fold in by_hash[:, :2].T] == [["test", "train"]] * 2
    assert by_hash[:, 2].tolist() == ["train"] * 2


def test_the_authors_folds_of_the_polarity_corpus(nltk_polarity: str) -> None:
    corpus = Corpus.plan(nltk_polarity, CorpusSettings(fold_column="fold", test_fold="3"))
    tables = [table for shard in corpus.shards for table in corpus.read(shard)]
    tested = pa.concat_tables(tables).filter(pc.equal(pa.concat_tables(tables)["split"], "test"))
    assert len(tested) == 200
    assert all("/cv3" in name for name in tested["id"].to_pylist())
