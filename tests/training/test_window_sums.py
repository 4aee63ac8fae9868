"""The deep half: its numbers are Keras's, whatever the padding, the batch or the number of workers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import models
from sentray import task as tasks
from sentray.models import DeepSpec
from sentray.task import Task
from sentray.training.window_sums import NUMBERS, DeepSizes, WindowSums, sizes

ROWS = 40
SPEC = DeepSpec(widths=(1, 3, 7), filters=4, dimensions=6)
SIZES = DeepSizes(SPEC, drop_words=0, drop_features=0, pace=1, reason="")
DROPPING = DeepSizes(SPEC, drop_words=0.2, drop_features=0.5, pace=1, reason="")


def network(
    sizes: DeepSizes = SIZES,
    classes: int = 3,
    freeze: bool = False,
    task: Task = "classification",
    numbers: int = 0,
) -> WindowSums:
    vectors = np.random.default_rng(2).normal(0, 0.3, (ROWS, sizes.spec.dimensions)).astype(np.float32)
    vectors[0] = 0
    found = WindowSums(vectors, sizes, classes, 5, 0.01, freeze=freeze, task=task, numbers=numbers)
    # A bias and numbers' weights that are not 0, as after training.
    found.dense.weights[0, -1 - numbers :] = 0.25
    return found


def reviews(lengths: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(len(lengths))
    return [generator.integers(1, ROWS, length).astype(np.int32) for length in lengths]


def keras_model(trained: WindowSums, classes: int, task: Task = "classification", numbers: int = 0) -> Any:
    """The Keras model with these weights, but for its last activation."""
    import keras

    model = models.architecture("deep.v1").build(ROWS, 0, classes, deep=SPEC, task=task, numbers=numbers)
    for name, weights in trained.layers().items():
        model.get_layer(name).set_weights(weights)
    model.get_layer(models.OUTPUT).activation = keras.activations.linear
    return model


def padded(parts: list[np.ndarray], length: int) -> np.ndarray:
    matrix = np.zeros((len(parts), length), np.int32)
    for row, review in zip(matrix, parts, strict=True):
        row[: len(review)] = review
    return matrix


@pytest.mark.parametrize(
    ("task", "classes", "numbers"),
    [
        ("classification", 2, 0),
        ("classification", 3, 0),
        ("classification", 3, 2),
        ("ordinal", 4, 0),
        ("regression", 0, 2),
    ],
)
def test_a_step_is_that_of_keras(task: Task, classes: int, numbers: int) -> None:
    import keras
    import tensorflow as tf

    trained, parts = network(classes=classes, task=task, numbers=numbers), reviews([1, 2, 3, 8, 31, 60])
    values = np.random.default_rng(0).normal(size=(6, numbers)).astype(np.float32)
    labels, weights = np.arange(6, dtype=np.int32) % (classes or 9), np.linspace(0.5, 2, 6).astype(np.float32)
    labels = tasks.wanted(task, labels, classes)
    model = keras_model(trained, classes, task, numbers)
    with tf.GradientTape() as tape:
        logits = model([padded(parts, 66), values] if numbers else padded(parts, 66))
        if task == "regression":
            losses = keras.losses.mean_squared_error(labels, logits) / 2
        elif task == "ordinal":
            losses = (classes - 1) * keras.losses.binary_crossentropy(labels, logits, from_logits=True)
        elif classes == 2:
            losses = keras.losses.binary_crossentropy(labels[:, None], logits, from_logits=True)
        else:
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        loss = tf.reduce_sum(losses * weights)
        mean = loss / 7
    embedding, *kernels, output, bias = tape.gradient(mean, model.trainable_variables)
    packed = trained.pack(parts, values)
    step = trained.gradients(packed, labels, weights, 7)
    np.testing.assert_allclose(trained.logits(packed), logits, atol=1e-5)
    assert step.loss == pytest.approx(float(loss), rel=1e-5)
    # A window's sum is divided by the root of its width here, by its width there.
    scaled = [kernel[0] * np.sqrt(width) for kernel, width in zip(kernels, SPEC.widths, strict=True)]
    output = np.array(output)
    output[len(output) - numbers :] *= NUMBERS
    wanted = np.concatenate([np.concatenate(scaled, 1).ravel(), output.ravel(), np.ravel(bias)])
    np.testing.assert_allclose(step.dense, wanted, atol=2e-5)
    np.testing.assert_allclose(step.values[1:], tf.convert_to_tensor(embedding).numpy()[step.rows[1:]], atol=1e-5)
    assert not step.values[0].any()


def test_rounding_errors_do_not_build_up_over_a_long_review() -> None:
    trained, parts = network(), reviews([20_000])
    layers, packed = trained.layers(), trained.pack(parts)
    vectors = layers["embedding"][0].astype(np.float64)[parts[0]]
    sums = np.cumsum(np.vstack([np.zeros((7, 6)), vectors, np.zeros((6, 6))]), axis=0)
    windows = (sums[7:] - sums[:-7]) / 7 @ layers["units7"][0][0]
    found = trained._features(packed, trained.embedding.rows(packed.words), trained._parts(trained.dense.weights[0])[0])
    np.testing.assert_allclose(found[0][0, 8:], np.maximum(windows.max(axis=0), 0), rtol=2e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_a_review_has_one_score_in_any_batch(lengths: list[int]) -> None:
    trained, parts = network(), reviews(lengths)
    alone = np.concatenate([trained.logits(trained.pack([part])) for part in parts])
    np.testing.assert_allclose(trained.logits(trained.pack(parts)), alone, atol=1e-6)


@pytest.mark.parametrize("sizes", [SIZES, DROPPING])
def test_the_workers_shares_add_up_to_the_whole_step(sizes: DeepSizes) -> None:
    trained, parts = network(sizes), reviews([5, 0, 12, 31, 2])
    labels, weights = np.array([0, 1, 2, 1, 0], np.int32), np.ones(5, np.float32)
    trained.dense.step = 3
    whole = trained.gradients(trained.pack(parts), labels, weights, 5)
    dense, rows = np.zeros_like(whole.dense), np.zeros((ROWS, 6), np.float32)
    for mine in ([0, 3], [1, 2, 4], []):
        share = trained.gradients(trained.pack([parts[row] for row in mine]), labels[mine], weights[mine], 5)
        dense += share.dense
        rows[share.rows] += share.values
    np.testing.assert_allclose(dense, whole.dense, atol=1e-6)
    np.testing.assert_allclose(rows[whole.rows], whole.values, atol=1e-6)


def test_dropout_leaves_out_other_words_and_features_at_each_step() -> None:
    trained, parts = network(DROPPING), reviews([20, 20, 20, 20])
    packed, masks, kept = trained.pack(parts), [], []
    for step in range(200):
        trained.dense.step = step
        ids, mask = trained._dropout(packed, 18)
        masks.append(mask)
        kept.append((ids == packed.ids).reshape(4, 20))
        assert set(ids[ids != packed.ids]) <= {0}
    for drawn, share in ((np.array(masks) > 0, 0.5), (np.array(kept), 0.8)):
        np.testing.assert_allclose(drawn.mean(axis=0), share, atol=0.15)
        assert abs(np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1]) < 0.1
    assert set(np.unique(masks)) == {0, 2}


def test_gradients_under_dropout_are_the_slopes_of_the_loss() -> None:
    trained, parts = network(DROPPING), reviews([9, 14, 3])
    # The mean's weights start at 0, which hides its gradients.
    trained.dense.weights[0, -60:] += np.random.default_rng(1).normal(0, 0.3, 60).astype(np.float32)
    arguments = trained.pack(parts), np.array([0, 1, 2], np.int32), np.ones(3, np.float32), 3
    found = trained.gradients(*arguments)

    def slope(array: np.ndarray, at: tuple[int, int]) -> float:
        value, losses = array[at], []
        for moved in (value + 0.001, value - 0.001):
            array[at] = moved
            losses.append(trained.gradients(*arguments).loss / 3)
        array[at] = value
        return (losses[0] - losses[1]) / 0.002

    size = trained.dense.weights.shape[1]
    slopes = [slope(trained.dense.weights, (0, number)) for number in range(0, size, 5)]
    np.testing.assert_allclose(found.dense[::5], slopes, atol=2e-3)
    slopes = [slope(trained.embedding.weights, (row, 2)) for row in found.rows[1:]]
    np.testing.assert_allclose(found.values[1:, 2], slopes, atol=2e-3)


def trained_on_topics(steps: int, start: dict[str, Any] | None = None) -> WindowSums:
    """A network that has learnt which of two words a review holds, from its start or from a state."""
    trained = network(DROPPING, classes=2)
    if start:
        trained.restore(start)
    parts = [np.append(review, 1 + number % 2).astype(np.int32) for number, review in enumerate(reviews([8] * 40))]
    labels, weights = np.arange(40, dtype=np.int32) % 2, np.ones(40, np.float32)
    for _ in range(steps):
        assert trained.apply(trained.gradients(trained.pack(parts), labels, weights, 40))
    return trained


def test_it_learns_and_goes_on_from_a_state_to_the_same_bits() -> None:
    first, whole = trained_on_topics(60), trained_on_topics(100)
    resumed = trained_on_topics(40, {name: values.copy() for name, values in first.state().items()})
    for name, values in whole.state().items():
        np.testing.assert_array_equal(resumed.state()[name], values)
    held = [np.array([3, 4, 5, word, 6], np.int32) for word in (1, 2)]
    below, above = whole.logits(whole.pack(held))[:, 0]
    assert below < 0 < above


def test_frozen_vectors_stay() -> None:
    trained, parts, losses = network(classes=2, freeze=True), reviews([4, 9]), []
    before = trained.embedding.weights.copy()
    for _ in range(30):
        step = trained.gradients(trained.pack(parts), np.array([0, 1], np.int32), np.ones(2, np.float32), 2)
        losses.append(step.loss)
        assert trained.apply(step)
    assert losses[-1] < 0.8 * losses[0]
    np.testing.assert_array_equal(trained.embedding.weights, before)
    np.testing.assert_array_equal(trained.constants()[0], before)


def test_sizes_follow_the_reviews() -> None:
    short, long = sizes(500, 20), sizes(25_000, 230)
    assert max(short.spec.widths) < max(long.spec.widths)
    assert short.pace > long.pace
    assert "learning rate times 3, for 500 short reviews (of 20 words)" in short.reason
    assert long.reason.endswith("vectors of 100 numbers, for 25,000 long reviews (of 230 words)")
    assert sizes(500, 20, 50).spec.dimensions == 50


def test_weights_are_taken_over() -> None:
    first, packed = network(numbers=2), reviews([4, 9])
    other = WindowSums(first.embedding.weights.copy(), SIZES, 3, 6, 0.01, numbers=2)
    other.start(first.layers())
    values = np.ones((2, 2), np.float32)
    np.testing.assert_allclose(
        other.logits(other.pack(packed, values)), first.logits(first.pack(packed, values)), rtol=1e-6
    )
