"""Held-out rows: groups never straddle folds, and about as many rows are held out as asked for."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.errors import SentrayError
from sentray.training.folds import FOLDS, NEVER, SMALL, group_keys, hold_out


def keys(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**63, rows).astype(np.uint64)


def none(rows: int) -> np.ndarray:
    return np.zeros(rows, bool)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.booleans())
def test_a_group_has_one_fold(groups: list[int], refit: bool) -> None:
    of = np.array(groups, np.uint64) * np.uint64(0x9E3779B185EBCA87)
    folds = hold_out(of, none(len(of)), 0.3, refit)
    assert all(len(set(folds[of == each].tolist())) == 1 for each in of)
    numbers = sorted(set(folds.tolist()) - {NEVER})
    assert numbers == list(range(len(numbers)))
    assert 1 <= len(numbers) <= (FOLDS if refit else 1)


def test_few_rows_are_each_held_out_once_and_of_many_a_share() -> None:
    assert set(np.bincount(hold_out(keys(1000), none(1000), 0.1)).tolist()) == {200}
    many = hold_out(keys(SMALL), none(SMALL), 0.1)
    assert (many == 0).sum() == 0.1 * SMALL
    assert (many == NEVER).sum() == 0.9 * SMALL
    assert (hold_out(keys(1000), none(1000), 0.1, refit=False) == 0).sum() == 100


def test_given_rows_are_the_fold_and_nothing_is_held_out_unless_asked() -> None:
    given = np.arange(100) % 7 == 0
    assert np.array_equal(hold_out(keys(100), given, 0.1) == 0, given)
    assert set(hold_out(keys(100), given, 0).tolist()) == {NEVER}


def test_groups_by_a_column_and_by_blocks_of_ids() -> None:
    def same(values: list[str | None], rule: str | None = None) -> list[int]:
        found = group_keys(pa.chunked_array([values], pa.string()), rule, "film").tolist()
        return [found.index(each) for each in found]

    assert same(["a", "b", "a"]) == [0, 1, 0]
    ids = ["train/pos/0", "train/pos/99", "train/pos/100", "train/neg/99", "train/pos/0100", "7", "12"]
    assert same(ids, "id-block:100") == [0, 0, 2, 3, 2, 5, 5]
    # A number in the prefix stays what it is.
    assert same(["a1/5", "a15"], "id-block:10") == [0, 1]
    with pytest.raises(SentrayError, match="a row has no film, which says its group"):
        same(["a", None])
    with pytest.raises(SentrayError, match=r"'x\.txt' does not: name a column with --group-column"):
        same(["a1", "x.txt"], "id-block:10")
