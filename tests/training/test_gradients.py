"""The workers' gradients are summed to the same bits on each."""

import numpy as np
import pytest

from sentray.training.gradients import Gradients, clipped, summed
from tests.training.test_allreduce import on_all


def part_of(seed: int, rows: list[int], width: int) -> Gradients:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(len(rows), width)).astype(np.float32)
    return Gradients(float(seed), seed, np.array(rows, np.int32), values, generator.normal(size=3).astype(np.float32))


# Of a table in which a row is every worker's, of one and of none, and of a frozen one.
PARTS = [
    [part_of(1, [1, 4, 7], 2), part_of(2, [], 1)],
    [part_of(3, [0, 4], 2), part_of(4, [], 1)],
    [part_of(5, [4, 9], 2), part_of(6, [], 1)],
]


def test_the_workers_parts_are_summed() -> None:
    found = on_all(len(PARTS), lambda allreduce: summed(PARTS[allreduce.rank], allreduce))
    for rank, (of_words, frozen) in enumerate(found):
        assert of_words.rows.tolist() == [0, 1, 4, 7, 9]
        wanted = np.zeros((10, 2), np.float32)
        for first, _ in PARTS:
            wanted[first.rows] += first.values
        np.testing.assert_array_equal(of_words.values, wanted[of_words.rows])
        np.testing.assert_array_equal(of_words.dense, sum(first.dense for first, _ in PARTS))
        assert (of_words.loss, of_words.correct) == (PARTS[rank][0].loss, PARTS[rank][0].correct)
        assert (len(frozen.rows), frozen.values.shape) == (0, (0, 1))
        np.testing.assert_array_equal(frozen.dense, sum(second.dense for _, second in PARTS))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_one_workers_part_is_the_whole(workers: int) -> None:
    parts = [PARTS[0]] + [[part_of(0, [], 2), part_of(0, [], 1)]] * (workers - 1)
    first, _ = on_all(workers, lambda allreduce: summed(parts[allreduce.rank], allreduce))[-1]
    np.testing.assert_array_equal(first.values, PARTS[0][0].values)


def test_large_gradients_are_made_as_small_as_allowed() -> None:
    given = Gradients(1.0, 1, np.array([2], np.int32), np.array([[3.0]], np.float32), np.array([4.0], np.float32))
    assert clipped(given, None) is given
    assert clipped(given, 5) is given
    found = clipped(given, 1)
    assert (found.values.tolist(), found.dense.tolist()) == ([[pytest.approx(0.6)]], [pytest.approx(0.8)])
