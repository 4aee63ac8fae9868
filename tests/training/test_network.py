"""Both training networks against Keras's own gradients and optimizer, over the same weights."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sentray import models

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from sentray.training.fast_network import FAST  # noqa: E402
from sentray.training.gradients import Gradients  # noqa: E402
from sentray.training.network import Network, loss_of  # noqa: E402

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
    first = "weights.0" if kinds is not FAST else "embedding_weights"
    assert (state[first].shape == (ROWS, 100) if first in state else False) != freeze
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


def mixture(spec: models.NetworkSpec, fixed: bool = False, precision: str = "float32") -> Any:
    """A network of two embeddings, a mask, recurrence, attention, dropout and statistics, with its own optimizer."""
    with_policy = {"dtype": precision}
    ids = spec.ids(fixed)
    vectors = keras.layers.Add()([spec.embedding(mask=True)(ids), spec.embedding(name="second")(ids)])
    values = keras.layers.Bidirectional(
        keras.layers.LSTM(4, return_sequences=True, recurrent_dropout=0.2, **with_policy), **with_policy
    )(vectors)
    values = keras.layers.GlobalMaxPooling1D(**with_policy)(keras.layers.Attention(**with_policy)([values, values]))
    values = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization(**with_policy)(values))
    model = keras.Model(ids, spec.output()(values))
    rate = keras.optimizers.schedules.CosineDecay(0.05, 20)
    optimizer: Any = keras.optimizers.AdamW(rate, clipnorm=1.0)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer)
    return model


def spec_of(classes: int = 3, **values: Any) -> models.NetworkSpec:
    return models.NetworkSpec(ROWS, LENGTH, classes, 6, **values)


def test_the_general_network_trains_any_layers_of_keras() -> None:
    """Against Keras's own gradients and optimizer; dropout is left out, whose seeds differ."""
    keras.utils.set_random_seed(1)
    ours, theirs = (mixture(spec_of()) for _ in range(2))
    for layer in [*ours._flatten_layers(), *theirs._flatten_layers()]:
        for name in {"rate", "recurrent_dropout"} & set(vars(layer)):
            setattr(layer, name, 0.0)
    theirs.set_weights(ours.get_weights())
    network = Network(ours, 1, most=LENGTH)
    parts, labels = reviews([3, 9, 31, LENGTH]), np.array([0, 1, 2, 0], "i4")
    for _ in range(3):
        gradients = network.gradients(network.pack(parts), labels, np.ones(4, np.float32), 4)
        network.apply(gradients)
        with tf.GradientTape() as tape:
            wanted = tf.reduce_mean(cross_entropy(labels, theirs(padded(parts), training=True), 3))
        dense = tape.gradient(wanted, [variable.value for variable in theirs.trainable_variables])
        theirs.optimizer.apply([tf.convert_to_tensor(part) for part in dense], theirs.trainable_variables)
        assert gradients.loss / 4 == pytest.approx(float(wanted), abs=1e-5)
    for mine, keras_own in zip(network.keras_model().get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=2e-4)


@pytest.mark.parametrize(("task", "classes"), [("multilabel", 3), ("ordinal", 4), ("regression", 0)])
def test_other_tasks_have_their_losses(task: Any, classes: int) -> None:
    spec = spec_of(classes, task=task)
    logits = np.random.default_rng(0).normal(size=(5, spec.outputs)).astype(np.float32)
    wanted = np.random.default_rng(1).integers(0, 2, logits.shape).astype(np.float32)
    losses, right = loss_of(task, tf.constant(logits), tf.constant(wanted))
    outputs = spec.output().activation(logits)
    if task == "regression":
        np.testing.assert_allclose(losses, 0.5 * ((outputs - wanted) ** 2)[:, 0], rtol=1e-5)
    else:
        crosses = keras.losses.binary_crossentropy(wanted, outputs)
        np.testing.assert_allclose(losses, crosses * spec.outputs, rtol=1e-4)
        np.testing.assert_array_equal(right, ((outputs > 0.5) == (wanted > 0.5)).numpy().all(1))


def test_half_precision_trains_with_a_scaled_loss_and_skips_what_overflows() -> None:
    keras.utils.set_random_seed(1)
    network = Network(mixture(spec_of(), precision="mixed_float16"), 1, most=LENGTH)
    packed, labels, weights = network.pack(reviews([9, 31])), np.array([0, 1], "i4"), np.ones(2, "f4")
    optimizer = network._model.optimizer
    losses = []
    for _ in range(15):
        gradients = network.gradients(packed, labels, weights, 2)
        losses.append(gradients.loss)
        network.apply(gradients)
    assert losses[-1] < 0.7 * losses[0]
    before, scale = network.state(), float(optimizer.dynamic_scale)
    network.apply(replace(gradients, dense=np.full_like(gradients.dense, np.inf)))
    assert float(optimizer.dynamic_scale) == scale / 2
    assert np.array_equal(network.state()["weights.0"], before["weights.0"])


def test_a_review_s_logits_do_not_depend_on_those_beside_it() -> None:
    network = Network(models.architecture("bilstm").build(ROWS, LENGTH, 2), 0.01, most=LENGTH)
    parts = reviews([0, 3, 9, 31, LENGTH])
    alone = [network.logits(network.pack([part]))[0] for part in parts]
    np.testing.assert_allclose(network.logits(network.pack(parts)), alone, atol=1e-6)
