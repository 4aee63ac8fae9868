"""The training network against Keras's own gradients and optimizer, over the same weights."""

from typing import Any

import numpy as np
import pytest

from sentray import models
from sentray.training.batches import pack

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

ROWS, LENGTH = 300, 60


def reviews(lengths: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, ROWS, size).astype(np.int32) for size in lengths]


def padded(parts: list[np.ndarray]) -> np.ndarray:
    matrix = np.zeros((len(parts), LENGTH), np.int32)
    for row, part in enumerate(parts):
        matrix[row, : len(part)] = part
    return matrix


def cross_entropy(labels: np.ndarray, predicted: Any, classes: int) -> Any:
    if classes == 2:
        return keras.losses.binary_crossentropy(labels[:, None].astype(np.float32), predicted)
    return keras.losses.sparse_categorical_crossentropy(labels, predicted)


@pytest.mark.parametrize("classes", [2, 3])
def test_steps_equal_those_of_keras(classes: int) -> None:
    from sentray.training.network import TrainingNetwork

    keras.utils.set_random_seed(1)
    build = models.architecture("tutorial-cnn").build
    ours, theirs = build(ROWS, LENGTH, classes), build(ROWS, LENGTH, classes)
    theirs.set_weights(ours.get_weights())
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(theirs.trainable_variables)
    network = TrainingNetwork(ours, 0.01)
    parts = reviews([0, 1, 2, 7, 8, 9, 31, LENGTH - 1, LENGTH])
    labels = np.arange(len(parts), dtype=np.int32) % classes
    weights = np.linspace(0.5, 2, len(parts)).astype(np.float32)
    for _ in range(5):
        packed = pack(parts, network.window, ROWS)
        result, gradients = network.gradients(packed, labels, weights, len(parts))
        assert network.apply(gradients)
        with tf.GradientTape() as tape:
            predicted = theirs(padded(parts))
            losses = cross_entropy(labels, predicted, classes)
            wanted = tf.reduce_sum(losses * weights) / len(parts)
        keras_gradients = tape.gradient(wanted, [variable.value for variable in theirs.trainable_variables])
        # Dense, since Keras's Adam squares each of a word's sparse gradients in a batch instead of their sum.
        optimizer.apply([tf.convert_to_tensor(part) for part in keras_gradients], theirs.trainable_variables)
        chosen = np.argmax(predicted, 1) if classes > 2 else predicted.numpy()[:, 0] > 0.5
        assert result.loss / len(parts) == pytest.approx(float(wanted), abs=1e-5)
        assert result.correct == (chosen == labels).sum()
    for mine, keras_own in zip(network.keras_model().get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=2e-5)


def test_parts_of_a_batch_add_up_to_its_gradient() -> None:
    from sentray.training.network import Gradients, TrainingNetwork

    network = TrainingNetwork(models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2), 0.001)
    parts = reviews([5, 40, 22, 13])
    labels = np.array([0, 1, 1, 0], np.int32)

    def gradients(rows: list[int]) -> Gradients:
        packed = pack([parts[row] for row in rows], network.window, ROWS)
        return network.gradients(packed, labels[rows], np.ones(len(rows), np.float32), 4)[1]

    whole, halves = gradients([0, 1, 2, 3]), [gradients([0, 3]), gradients([1, 2])]
    rows = np.zeros_like(whole.rows)
    for half in halves:
        rows[np.searchsorted(whole.words, half.words)] += half.rows
    np.testing.assert_allclose(rows, whole.rows, atol=1e-6)
    np.testing.assert_allclose(sum(half.dense for half in halves), whole.dense, atol=1e-6)


def test_no_review_gives_no_gradient() -> None:
    from sentray.training.network import TrainingNetwork

    network = TrainingNetwork(models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2), 0.001)
    packed = pack([], network.window, ROWS)
    result, gradients = network.gradients(packed, np.empty(0, np.int32), np.empty(0, np.float32), 8)
    assert (result.loss, result.correct) == (0.0, 0)
    assert not gradients.rows.any()
    assert not gradients.dense.any()


def test_dead_units_are_noticed() -> None:
    from sentray.training.network import TrainingNetwork

    model = models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2)
    model.layers[4].bias.assign(np.full(10, -1e6, np.float32))
    network = TrainingNetwork(model, 0.001)
    packed = pack(reviews([5, 40]), network.window, ROWS)
    _, gradients = network.gradients(packed, np.array([0, 1], np.int32), np.ones(2, np.float32), 2)
    assert not network.apply(gradients)


def test_another_shape_is_refused() -> None:
    from sentray.training.network import TrainingNetwork

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="Dense"):
        TrainingNetwork(model, 0.001)
