"""The fast networks: how they lay reviews out, and that they equal the general one."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import models
from sentray.training.fast_network import FAST, pack_bags, pack_padded, pack_windows
from sentray.training.gradients import Gradients
from sentray.training.network import Network

ROWS, LENGTH = 300, 60
STACKS = [name for name, known in models.ARCHITECTURES.items() if isinstance(known, models.Stack)]


def reviews(lengths: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, ROWS, size).astype(np.int32) for size in lengths]


def step_of(kind: Any, name: str) -> Gradients:
    """Gradients of one batch by a new network, the same for every way to compute."""
    keras.utils.set_random_seed(1)
    vectors = np.random.default_rng(2).normal(0, 0.3, (ROWS, 12)).astype(np.float32)
    network = kind(models.architecture(name).build(ROWS, LENGTH, 3, vectors), 0.01)
    parts = reviews([0, 1, 2, 7, 8, 9, 31, LENGTH - 1, LENGTH])
    labels, weights = np.arange(9, dtype=np.int32) % 3, np.linspace(0.5, 2, 9).astype(np.float32)
    return network.gradients(network.pack(parts), labels, weights, 9)


@pytest.mark.parametrize("name", STACKS)
def test_a_step_is_that_of_the_general_network(name: str) -> None:
    wanted, found = step_of(Network, name), step_of(FAST[name], name)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert found.correct == wanted.correct
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.dense, wanted.dense, rtol=1e-4, atol=1e-7)


def test_each_of_our_networks_has_one() -> None:
    assert set(FAST) == set(STACKS)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    kernel=st.integers(1, 9),
    pool=st.integers(1, 4),
)
def test_packed_cells_hold_the_same_windows_as_padded_reviews(lengths: list[int], kernel: int, pool: int) -> None:
    length = 40 + kernel + pool
    max_cells = (length - kernel + 1) // pool
    generator = np.random.default_rng(sum(lengths))
    reviews = [generator.integers(1, 50, size).astype(np.int32) for size in lengths]
    packed = pack_windows(reviews, kernel, pool, max_cells, 50)
    flat = packed.words[packed.ids]
    for review, cells in zip(reviews, packed.cells, strict=True):
        padded = np.zeros(length, np.int32)
        padded[: len(review)] = review
        every_cell = [*cells, *[0] * (max_cells - len(cells))]
        for number, cell in enumerate(every_cell):
            for output in range(pool):
                wanted = padded[number * pool + output :][:kernel]
                assert flat[cell * pool + output :][:kernel].tolist() == wanted.tolist()


def test_packing_no_review_keeps_the_shapes() -> None:
    packed = pack_windows([], 8, 2, 100, 50)
    assert packed.cells.shape == (0, 1)
    assert packed.words.tolist() == [0]


def test_padded_reviews_have_the_networks_length() -> None:
    packed = pack_padded([np.array([3, 1], np.int32), np.empty(0, np.int32)], 3, 50)
    assert packed.words[packed.ids].tolist() == [3, 1, 0, 0, 0, 0]
    assert packed.cells.shape == (2, 0)


def test_bags_hold_no_padding() -> None:
    packed = pack_bags([np.array([3, 1], np.int32), np.empty(0, np.int32), np.array([3], np.int32)], 50)
    assert packed.words[packed.ids].tolist() == [3, 1, 3]
    assert packed.cells.tolist() == [[2], [0], [1]]
    assert pack_bags([], 50).cells.shape == (0, 1)
