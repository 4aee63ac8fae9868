import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.training.batches import distinct_words, epoch_batches, share


@settings(deadline=None)
@given(rows=st.integers(1, 200), batch=st.integers(1, 50), seed=st.integers(0, 9), world=st.integers(1, 5))
def test_every_row_is_seen_once_whatever_the_number_of_workers(rows: int, batch: int, seed: int, world: int) -> None:
    lengths = np.random.default_rng(seed).integers(0, 100, rows)
    seen = [
        row
        for rank in range(world)
        for part in epoch_batches(rows, batch, seed, 3)
        for row in share(part, lengths[part], rank, world)
    ]
    assert sorted(seen) == list(range(rows))


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(100, 7, seed, epoch)).tolist()

    assert first(1, 0) == first(1, 0)
    assert len({tuple(first(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_workers_get_equal_shares_of_rows_and_words() -> None:
    lengths = np.random.default_rng(0).integers(1, 1300, 256)
    batch = np.arange(256)
    parts = [share(batch, lengths, rank, 4) for rank in range(4)]
    assert {len(part) for part in parts} == {64}
    words = [lengths[part].sum() for part in parts]
    assert max(words) < 1.05 * min(words)


@pytest.mark.parametrize("world", [1, 3])
def test_distinct_words_hold_each_workers_words(world: int) -> None:
    reviews = [np.array([5, 9], np.int32), np.array([9, 2], np.int32), np.array([], np.int32)]
    everyone = distinct_words(np.concatenate(reviews), 20)
    assert everyone.tolist() == [0, 2, 5, 9]
    for rank in range(world):
        assert set(distinct_words(np.concatenate(reviews[rank::world]), 20)) <= set(everyone)
