"""The fast network: which shapes it knows, how it lays reviews out, and that it equals the general one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import models
from sentray.training.fast_network import Average, FastNetwork, Windows, knows
from sentray.training.network import Network, pack_padded

ROWS, LENGTH = 300, 60
LAYERS = keras.layers


def reviews(lengths: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, ROWS, size).astype(np.int32) for size in lengths]


def step_of(kind: Any, name: str, **how: Any) -> tuple[Any, Any]:
    """Result and gradients of one batch by a new network, the same for every way to compute."""
    keras.utils.set_random_seed(1)
    vectors = np.random.default_rng(2).normal(0, 0.3, (ROWS, 12)).astype(np.float32)
    network = kind(models.architecture(name).build(ROWS, LENGTH, 3, vectors), 0.01, **how)
    parts = reviews([0, 1, 2, 7, 8, 9, 31, LENGTH - 1, LENGTH])
    labels, weights = np.arange(9, dtype=np.int32) % 3, np.linspace(0.5, 2, 9).astype(np.float32)
    return network.gradients(network.pack(parts), labels, weights, 9)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_a_step_is_that_of_the_general_network(name: str) -> None:
    (general, wanted), (fast, found) = step_of(Network, name), step_of(FastNetwork, name)
    assert fast.loss == pytest.approx(general.loss, rel=1e-6)
    assert fast.correct == general.correct
    np.testing.assert_array_equal(found.words, wanted.words)
    np.testing.assert_allclose(found.rows, wanted.rows, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.dense, wanted.dense, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_bfloat16_is_near_float32(name: str) -> None:
    (exact, wanted), (coarse, found) = step_of(FastNetwork, name), step_of(FastNetwork, name, precision="bf16")
    assert coarse.loss == pytest.approx(exact.loss, rel=0.01)
    # bfloat16 has 8 bits of precision: a product is off by up to 0.4 %, and where two positions are as near as that,
    # the other one wins the pooling and gets the gradient.
    for mine, other in ((found.rows, wanted.rows), (found.dense, wanted.dense)):
        assert np.asarray(mine).dtype == np.float32
        assert 1e-5 < np.linalg.norm(np.asarray(mine) - other) / np.linalg.norm(other) < 0.05


def test_bfloat16_learns_and_leaves_a_plain_model(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    network = FastNetwork(models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2), 0.01, precision="bf16")
    generator = np.random.default_rng(4)
    labels = np.arange(16, dtype=np.int32) % 2
    parts = [(generator.integers(1, ROWS // 2, 20) + label * ROWS // 2).astype(np.int32) for label in labels]
    losses = []
    for _ in range(20):
        result, gradients = network.gradients(network.pack(parts), labels, np.ones(16, np.float32), 16)
        network.apply(gradients)
        losses.append(result.loss)
    assert losses[-1] < 0.3 * losses[0]
    network.keras_model().save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}
    assert {weights.dtype for weights in saved.get_weights()} == {np.dtype(np.float32)}
    padded = np.zeros((16, LENGTH), np.int32)
    padded[:, :20] = parts
    np.testing.assert_array_equal(saved.predict(padded, verbose=0)[:, 0] > 0.5, labels == 1)


def test_all_our_networks_are_known() -> None:
    assert all(knows(models.architecture(name).build(ROWS, LENGTH, 2)) for name in models.ARCHITECTURES)


@pytest.mark.parametrize(
    "layers",
    [
        [LAYERS.Embedding(9, 4, mask_zero=True), LAYERS.GlobalAveragePooling1D(), LAYERS.LayerNormalization()],
        [LAYERS.Embedding(9, 4), LAYERS.Conv1D(3, 2, padding="same"), LAYERS.MaxPooling1D(2), LAYERS.Flatten()],
        [LAYERS.Embedding(9, 4), LAYERS.Conv1D(3, 2), LAYERS.MaxPooling1D(2, strides=1), LAYERS.Flatten()],
        [LAYERS.Embedding(9, 4), LAYERS.GlobalAveragePooling1D(), LAYERS.LayerNormalization()],
        [LAYERS.Embedding(9, 4), LAYERS.LSTM(3)],
    ],
)
def test_another_shape_is_not_known_and_refused(layers: list[Any]) -> None:
    model = keras.Sequential([keras.Input((8,)), *layers, LAYERS.Dense(1, activation="sigmoid")])
    assert not knows(model)
    with pytest.raises(ValueError, match="cannot train a network of the layers"):
        FastNetwork(model, 0.01)


def windows(kernel: int, pool: int, cells: int) -> Windows:
    convolution = LAYERS.Conv1D(1, kernel)
    return Windows(np.matmul, convolution, LAYERS.MaxPooling1D(pool), SimpleNamespace(output=np.empty((1, cells))))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    kernel=st.integers(1, 9),
    pool=st.integers(1, 4),
)
def test_packed_cells_hold_the_same_windows_as_padded_reviews(lengths: list[int], kernel: int, pool: int) -> None:
    length = 40 + kernel + pool
    layers = windows(kernel, pool, (length - kernel + 1) // pool)
    generator = np.random.default_rng(sum(lengths))
    reviews = [generator.integers(1, 50, size).astype(np.int32) for size in lengths]
    packed = layers.pack(reviews, 50)
    flat = packed.words[packed.ids]
    for review, cells in zip(reviews, packed.cells, strict=True):
        padded = np.zeros(length, np.int32)
        padded[: len(review)] = review
        every_cell = [*cells, *[0] * (layers.max_cells - len(cells))]
        for number, cell in enumerate(every_cell):
            for output in range(pool):
                wanted = padded[number * pool + output :][:kernel]
                assert flat[cell * pool + output :][:kernel].tolist() == wanted.tolist()


def test_packing_no_review_keeps_the_shapes() -> None:
    packed = windows(8, 2, 100).pack([], 50)
    assert packed.cells.shape == (0, 1)
    assert packed.words.tolist() == [0]


def test_padded_reviews_have_the_networks_length() -> None:
    packed = pack_padded([np.array([3, 1], np.int32), np.empty(0, np.int32)], 3, 50)
    assert packed.words[packed.ids].tolist() == [3, 1, 0, 0, 0, 0]
    assert packed.cells.shape == (2, 0)


def test_bags_hold_no_padding() -> None:
    bags = Average(np.matmul, *models.architecture("embedding-average").build(50, 9, 2).layers[1:3])
    packed = bags.pack([np.array([3, 1], np.int32), np.empty(0, np.int32), np.array([3], np.int32)], 50)
    assert packed.words[packed.ids].tolist() == [3, 1, 3]
    assert packed.cells.tolist() == [[2], [0], [1]]
    assert bags.pack([], 50).cells.shape == (0, 1)
