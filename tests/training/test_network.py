"""Both training networks against Keras's own gradients and optimizer, over the same weights."""

from typing import Any

import numpy as np
import pytest

from sentray import models

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from sentray.training.fast_network import FAST  # noqa: E402
from sentray.training.gradients import Gradients  # noqa: E402
from sentray.training.network import Network  # noqa: E402

ROWS, LENGTH = 300, 60
STACKS = [name for name, known in models.ARCHITECTURES.items() if isinstance(known, models.Stack)]
BOTH = pytest.mark.parametrize("kinds", [{}, FAST], ids=["general", "fast"])


def network_of(kinds: Any, name: str, classes: int = 2, *, rates: Any = (0.001,), **how: Any) -> Any:
    """A new network, trained as `kinds` says."""
    return kinds.get(name, Network)(models.architecture(name).build(ROWS, LENGTH, classes, **how), *rates)


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


def vectors(zero_padding: bool) -> np.ndarray:
    rows = np.random.default_rng(2).normal(0, 0.3, (ROWS, 12)).astype(np.float32)
    if zero_padding:
        rows[0] = 0
    return rows


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", STACKS)
@BOTH
def test_steps_equal_those_of_keras(kinds: Any, name: str, classes: int, freeze: bool) -> None:
    keras.utils.set_random_seed(1)
    average = name.startswith("embedding-average")
    build = models.architecture(name).build
    ours, theirs = (build(ROWS, LENGTH, classes, vectors(average), freeze) for _ in range(2))
    theirs.set_weights(ours.get_weights())
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(theirs.trainable_variables)
    network = kinds.get(name, Network)(ours, 0.01)
    parts = reviews([0, 1, 2, 7, 8, 9, 31, LENGTH - 1, LENGTH])
    labels = np.arange(len(parts), dtype=np.int32) % classes
    weights = np.linspace(0.5, 2, len(parts)).astype(np.float32)
    for _ in range(5):
        gradients = network.gradients(network.pack(parts), labels, weights, len(parts))
        assert network.apply(gradients)
        with tf.GradientTape() as tape:
            predicted = theirs(padded(parts))
            losses = cross_entropy(labels, predicted, classes)
            wanted = tf.reduce_sum(losses * weights) / len(parts)
        keras_gradients = tape.gradient(wanted, [variable.value for variable in theirs.trainable_variables])
        # Dense, since Keras's Adam squares each of a word's sparse gradients in a batch instead of their sum.
        dense = [tf.convert_to_tensor(part) for part in keras_gradients]
        if average and not freeze:
            # Ours keeps the padding's vector at 0.
            dense[0] = tf.concat([tf.zeros_like(dense[0][:1]), dense[0][1:]], 0)
        optimizer.apply(dense, theirs.trainable_variables)
        chosen = np.argmax(predicted, 1) if classes > 2 else predicted.numpy()[:, 0] > 0.5
        assert gradients.loss / len(parts) == pytest.approx(float(wanted), abs=1e-5)
        assert gradients.correct == (chosen == labels).sum()
    for mine, keras_own in zip(network.keras_model().get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=2e-5)
    assert np.array_equal(network.keras_model().get_weights()[0], vectors(average)) == freeze


@BOTH
def test_word_vectors_have_a_step_size_of_their_own(kinds: Any) -> None:
    def step(rate: float | None) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        network = network_of(kinds, "pretrained-cnn.v1", rates=(0.01, rate))
        before = network.keras_model().get_weights()
        packed = network.pack(reviews([9, 31]))
        network.apply(network.gradients(packed, np.array([0, 1], np.int32), np.ones(2, np.float32), 2))
        return [np.abs(new - old).max() for new, old in zip(network.keras_model().get_weights(), before, strict=True)]

    # Adam's first step is the step size, whatever the gradient.
    np.testing.assert_allclose(step(None), 0.01, rtol=1e-2)
    words, *others = step(0.0001)
    assert words == pytest.approx(0.0001, rel=1e-2)
    np.testing.assert_allclose(others, 0.01, rtol=1e-2)


@pytest.mark.parametrize("freeze", [False, True])
@BOTH
def test_training_goes_on_from_a_state(kinds: Any, freeze: bool) -> None:
    def network() -> Any:
        keras.utils.set_random_seed(1)
        return network_of(kinds, "pretrained-cnn.v1", rates=(0.01,), freeze=freeze)

    def step(network: Any) -> None:
        packed = network.pack(reviews([9, 31]))
        network.apply(network.gradients(packed, np.array([0, 1], np.int32), np.ones(2, np.float32), 2))

    begun = network()
    step(begun)
    state = {name: values.copy() for name, values in begun.state().items()}
    assert any(name.startswith("embedding") for name in state) != freeze
    step(begun)
    resumed = network()
    resumed.restore(state)
    step(resumed)
    for mine, other in zip(resumed.keras_model().get_weights(), begun.keras_model().get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("name", STACKS)
@BOTH
def test_parts_of_a_batch_add_up_to_its_gradient(kinds: Any, name: str) -> None:
    network = network_of(kinds, name)
    parts = reviews([5, 40, 22, 13])
    labels = np.array([0, 1, 1, 0], np.int32)

    def gradients(rows: list[int]) -> Gradients:
        packed = network.pack([parts[row] for row in rows])
        return network.gradients(packed, labels[rows], np.ones(len(rows), np.float32), 4)

    whole, halves = gradients([0, 1, 2, 3]), [gradients([0, 3]), gradients([1, 2])]
    values = np.zeros_like(whole.values)
    for half in halves:
        values[np.searchsorted(whole.rows, half.rows)] += half.values
    np.testing.assert_allclose(values, whole.values, atol=1e-6)
    np.testing.assert_allclose(sum(half.dense for half in halves), whole.dense, atol=1e-6)


@pytest.mark.parametrize("name", STACKS)
@BOTH
def test_no_review_gives_no_gradient(kinds: Any, name: str) -> None:
    network = network_of(kinds, name)
    packed = network.pack([])
    gradients = network.gradients(packed, np.empty(0, np.int32), np.empty(0, np.float32), 8)
    assert (gradients.loss, gradients.correct) == (0.0, 0)
    assert not np.any(gradients.values)
    assert not np.any(gradients.dense)


@BOTH
def test_dead_units_are_noticed(kinds: Any) -> None:
    model = models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2)
    model.layers[4].bias.assign(np.full(10, -1e6, np.float32))
    network = kinds.get("tutorial-cnn.v1", Network)(model, 0.001)
    packed = network.pack(reviews([5, 40]))
    gradients = network.gradients(packed, np.array([0, 1], np.int32), np.ones(2, np.float32), 2)
    assert not network.apply(gradients)


def layers_of_other_kinds() -> list[Any]:
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(6, activation="tanh"))
    return [keras.layers.Embedding(ROWS, 12, mask_zero=True), recurrent, keras.layers.Dense(3, activation="softmax")]


def test_the_general_network_trains_any_layers_of_keras() -> None:
    keras.utils.set_random_seed(1)
    ours, theirs = (keras.Sequential([keras.Input((LENGTH,)), *layers_of_other_kinds()]) for _ in range(2))
    theirs.set_weights(ours.get_weights())
    network, parts, labels = Network(ours, 0.01), reviews([3, 9, 31, LENGTH]), np.array([0, 1, 2, 0], np.int32)
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(3):
        gradients = network.gradients(network.pack(parts), labels, np.ones(4, np.float32), 4)
        network.apply(gradients)
        with tf.GradientTape() as tape:
            wanted = tf.reduce_mean(cross_entropy(labels, theirs(padded(parts)), 3))
        dense = tape.gradient(wanted, [variable.value for variable in theirs.trainable_variables])
        optimizer.apply([tf.convert_to_tensor(part) for part in dense], theirs.trainable_variables)
        assert gradients.loss / 4 == pytest.approx(float(wanted), abs=1e-5)
    for mine, keras_own in zip(network.keras_model().get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=2e-5)


def test_a_network_without_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match="it needs one Embedding"):
        Network(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), 0.001)


@pytest.mark.parametrize("name", ["BatchNormalization", "Dropout"])
def test_state_that_would_be_lost_is_refused(name: str) -> None:
    layer = keras.layers.Dropout(0.5) if name == "Dropout" else keras.layers.BatchNormalization()
    layers = [keras.layers.Embedding(ROWS, 2), layer, keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")]
    network = Network(keras.Sequential([keras.Input((LENGTH,)), *layers]), 0.001)
    with pytest.raises(ValueError, match="keep state of their own: "):
        network.gradients(network.pack(reviews([9])), np.zeros(1, np.int32), np.ones(1, np.float32), 1)
