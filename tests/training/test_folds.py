"""Held-out rows: groups never straddle folds, and about as many rows are held out as asked for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.training.folds import FOLDS, NEVER, SMALL, hold_out


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
