"""The training network against Keras's own gradients and optimizer, over the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentray import models

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


def vectors(zero_padding: bool) -> np.ndarray:
    rows = np.random.default_rng(2).normal(0, 0.3, (ROWS, 12)).astype(np.float32)
    if zero_padding:
        rows[0] = 0
    return rows


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_steps_equal_those_of_keras(name: str, classes: int, freeze: bool) -> None:
    from sentray.training.network import TrainingNetwork

    keras.utils.set_random_seed(1)
    average = name.startswith("embedding-average")
    build = models.architecture(name).build
    ours, theirs = (build(ROWS, LENGTH, classes, vectors(average), freeze) for _ in range(2))
    theirs.set_weights(ours.get_weights())
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(theirs.trainable_variables)
    network = TrainingNetwork(ours, 0.01)
    parts = reviews([0, 1, 2, 7, 8, 9, 31, LENGTH - 1, LENGTH])
    labels = np.arange(len(parts), dtype=np.int32) % classes
    weights = np.linspace(0.5, 2, len(parts)).astype(np.float32)
    for _ in range(5):
        result, gradients = network.gradients(network.pack(parts), labels, weights, len(parts))
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
        assert result.loss / len(parts) == pytest.approx(float(wanted), abs=1e-5)
        assert result.correct == (chosen == labels).sum()
    for mine, keras_own in zip(network.keras_model().get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=2e-5)
    assert np.array_equal(network.keras_model().get_weights()[0], vectors(average)) == freeze


def test_word_vectors_have_a_step_size_of_their_own() -> None:
    from sentray.training.network import TrainingNetwork

    def step(rate: float | None) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        network = TrainingNetwork(models.architecture("pretrained-cnn").build(ROWS, LENGTH, 2), 0.01, rate)
        before = network.keras_model().get_weights()
        packed = network.pack(reviews([9, 31]))
        network.apply(network.gradients(packed, np.array([0, 1], np.int32), np.ones(2, np.float32), 2)[1])
        return [np.abs(new - old).max() for new, old in zip(network.keras_model().get_weights(), before, strict=True)]

    # Adam's first step is the step size, whatever the gradient.
    np.testing.assert_allclose(step(None), 0.01, rtol=1e-2)
    words, *others = step(0.0001)
    assert words == pytest.approx(0.0001, rel=1e-2)
    np.testing.assert_allclose(others, 0.01, rtol=1e-2)


@pytest.mark.parametrize("freeze", [False, True])
def test_training_goes_on_from_a_state(freeze: bool) -> None:
    from sentray.training.network import TrainingNetwork

    def network() -> Any:
        keras.utils.set_random_seed(1)
        return TrainingNetwork(models.architecture("pretrained-cnn").build(ROWS, LENGTH, 2, freeze=freeze), 0.01)

    def step(network: Any) -> None:
        packed = network.pack(reviews([9, 31]))
        network.apply(network.gradients(packed, np.array([0, 1], np.int32), np.ones(2, np.float32), 2)[1])

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


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_parts_of_a_batch_add_up_to_its_gradient(name: str) -> None:
    from sentray.training.network import Gradients, TrainingNetwork

    network = TrainingNetwork(models.architecture(name).build(ROWS, LENGTH, 2), 0.001)
    parts = reviews([5, 40, 22, 13])
    labels = np.array([0, 1, 1, 0], np.int32)

    def gradients(rows: list[int]) -> Gradients:
        packed = network.pack([parts[row] for row in rows])
        return network.gradients(packed, labels[rows], np.ones(len(rows), np.float32), 4)[1]

    whole, halves = gradients([0, 1, 2, 3]), [gradients([0, 3]), gradients([1, 2])]
    rows = np.zeros_like(whole.rows)
    for half in halves:
        rows[np.searchsorted(whole.words, half.words)] += half.rows
    np.testing.assert_allclose(rows, whole.rows, atol=1e-6)
    np.testing.assert_allclose(sum(half.dense for half in halves), whole.dense, atol=1e-6)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_no_review_gives_no_gradient(name: str) -> None:
    from sentray.training.network import TrainingNetwork

    network = TrainingNetwork(models.architecture(name).build(ROWS, LENGTH, 2), 0.001)
    packed = network.pack([])
    result, gradients = network.gradients(packed, np.empty(0, np.int32), np.empty(0, np.float32), 8)
    assert (result.loss, result.correct) == (0.0, 0)
    assert not np.any(gradients.rows)
    assert not np.any(gradients.dense)


def test_dead_units_are_noticed() -> None:
    from sentray.training.network import TrainingNetwork

    model = models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2)
    model.layers[4].bias.assign(np.full(10, -1e6, np.float32))
    network = TrainingNetwork(model, 0.001)
    packed = network.pack(reviews([5, 40]))
    _, gradients = network.gradients(packed, np.array([0, 1], np.int32), np.ones(2, np.float32), 2)
    assert not network.apply(gradients)


def test_another_shape_is_refused() -> None:
    from sentray.training.network import TrainingNetwork

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="Dense"):
        TrainingNetwork(model, 0.001)


def step_of(name: str, rows: int = 9, **how: Any) -> tuple[Any, Any]:
    """Result and gradients of one batch by a new network, the same for every way to compute."""
    from sentray.training.network import TrainingNetwork

    keras.utils.set_random_seed(1)
    average = name.startswith("embedding-average")
    network = TrainingNetwork(models.architecture(name).build(ROWS, LENGTH, 3, vectors(average)), 0.01, **how)
    parts = reviews([0, 1, 2, 7, 8, 9, 31, LENGTH - 1, LENGTH, 5, 17, 44])[:rows]
    labels = np.arange(rows, dtype=np.int32) % 3
    return network.gradients(network.pack(parts), labels, np.linspace(0.5, 2, rows).astype(np.float32), rows)


def away(found: Any, wanted: Any) -> float:
    """Length of the difference, as a share of what is wanted."""
    return float(np.linalg.norm(np.asarray(found) - np.asarray(wanted)) / np.linalg.norm(wanted))


@pytest.mark.parametrize("rows", [9, 12], ids=["padded to 12", "not padded"])
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_a_compiled_step_is_the_same_step(name: str, rows: int) -> None:
    (plain, wanted), (compiled, found) = step_of(name, rows), step_of(name, rows, jit=True)
    assert compiled.loss == pytest.approx(plain.loss, rel=1e-6)
    assert compiled.correct == plain.correct
    np.testing.assert_array_equal(found.words, wanted.words)
    np.testing.assert_allclose(found.rows, wanted.rows, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.dense, wanted.dense, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_bfloat16_is_near_float32(name: str) -> None:
    (plain, wanted), (coarse, found) = step_of(name), step_of(name, precision="bf16")
    assert coarse.loss == pytest.approx(plain.loss, rel=0.01)
    # bfloat16 has 8 bits of precision: a product is off by up to 0.4 %, and where two positions are as near as that,
    # the other one wins the pooling and gets the gradient.
    for mine, other in ((found.rows, wanted.rows), (found.dense, wanted.dense)):
        assert np.asarray(mine).dtype == np.float32
        assert 1e-5 < away(mine, other) < 0.05


@pytest.mark.parametrize(("jit", "least", "most"), [(False, 25, 32), (True, 1, 6)])
def test_a_compiled_epoch_has_few_shapes(jit: bool, least: int, most: int) -> None:
    from sentray.training import batches
    from sentray.training.network import TrainingNetwork

    network = TrainingNetwork(models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2), 0.01, jit=jit)
    compiled = network._gradient_graph.get_concrete_function().function_def.attr["_XlaMustCompile"].b
    assert compiled == jit
    # XLA compiles once for each combination of shapes.
    shapes = set()

    def noting(*inputs: Any) -> Any:
        shapes.add(tuple(np.shape(value) for value in inputs))
        return 0.0, 0, inputs[0], inputs[1]

    network._gradient_graph = noting
    parts = reviews(np.random.default_rng(3).integers(0, LENGTH, 500).tolist())
    for batch in batches.epoch_batches(len(parts), 16, 0, 0):
        packed, rows = network.pack([parts[row] for row in batch]), len(batch)
        network.gradients(packed, np.zeros(rows, np.int32), np.ones(rows, np.float32), 16)
    assert least <= len(shapes) <= most


@pytest.mark.parametrize("how", [{"precision": "bf16"}, {"precision": "bf16", "jit": True}])
def test_every_way_to_compute_learns_and_leaves_a_plain_model(tmp_path: Path, how: dict[str, Any]) -> None:
    from sentray.training.network import TrainingNetwork

    keras.utils.set_random_seed(1)
    network = TrainingNetwork(models.architecture("tutorial-cnn").build(ROWS, LENGTH, 2), 0.01, **how)
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
    predicted = saved.predict(padded(parts), verbose=0)[:, 0] > 0.5
    np.testing.assert_array_equal(predicted, labels == 1)
