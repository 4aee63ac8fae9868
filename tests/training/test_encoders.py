"""Encoders against the layers of Keras that they replace."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import models

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from sentray.training import encoders  # noqa: E402
from sentray.training.network import Network  # noqa: E402

ROWS, LENGTH = 40, 12
Build = Callable[[models.NetworkSpec], Any]


def over(*made: Callable[[Any], Any], mask: bool = False, fixed: bool = True, **embedding: Any) -> Build:
    """A network of these features of the vectors, beside each other under the last layer."""

    def build(spec: models.NetworkSpec) -> Any:
        ids = spec.ids(fixed)
        vectors = keras.layers.Embedding(ROWS, 6, mask_zero=mask, **embedding)(ids)
        found = [each(vectors) for each in made]
        return keras.Model(ids, spec.output()(keras.layers.Concatenate()(found) if len(found) > 1 else found[0]))

    return build


def windows(filters: int, width: int, activation: Any = "relu", **how: Any) -> Callable[[Any], Any]:
    layers = keras.layers
    how = {"activation": activation, "bias_initializer": "glorot_uniform"} | how
    return lambda vectors: layers.GlobalMaxPooling1D()(layers.Conv1D(filters, width, **how)(vectors))


def lstm(units: int, **how: Any) -> Callable[[Any], Any]:
    return lambda vectors: keras.layers.LSTM(units, bias_initializer="glorot_uniform", **how)(vectors)


def both_ends(units: int, **how: Any) -> Callable[[Any], Any]:
    return lambda vectors: keras.layers.Bidirectional(keras.layers.LSTM(units, **how))(vectors)


def model_of(build: Build) -> Any:
    keras.utils.set_random_seed(1)
    return build(models.NetworkSpec(ROWS, LENGTH, 2, 6))


def reviews(lengths: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(1, ROWS, size).astype(np.int32) for size in lengths]


def check(build: Build, lengths: list[int], found: int) -> None:
    """Features and gradients of some reviews are those of Keras's own layers."""
    model, ids = model_of(build), np.zeros((len(lengths), LENGTH), np.int32)
    for row, review in zip(ids, reviews(lengths), strict=True):
        row[: len(review)] = review
    ours = encoders.found_in(model)
    assert len(ours) == found
    by_keras = keras.Model(model.inputs, [each.output for each in ours])
    weights = [each.value for each in by_keras.trainable_variables]

    def theirs(ids: Any) -> list[Any]:
        return keras.tree.flatten(by_keras(ids))

    def computed(features: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
        generator = np.random.default_rng(1)
        with tf.GradientTape() as tape:
            made = features(tf.constant(ids))
            total = tf.add_n([tf.reduce_sum(each * generator.normal(size=each.shape)) for each in made])
        return made, [tf.convert_to_tensor(each) for each in tape.gradient(total, weights)]

    for mine, other in zip(computed(partial(encoders.features, ours)), computed(theirs), strict=True):
        for left, right in zip(mine, other, strict=True):
            np.testing.assert_allclose(left, right, atol=5e-6)


def shared(vectors: Any) -> Any:
    """A layer that is used twice."""
    layer = keras.layers.LSTM(4)
    return keras.layers.Add()([layer(vectors), layer(vectors)])


def embedded_twice(spec: models.NetworkSpec) -> Any:
    """An embedding of the ids and, before, of others."""
    ids, embedding = spec.ids(), spec.embedding()
    other, own = embedding(keras.ops.flip(ids, 1)), embedding(ids)
    made = [lstm(4)(own), windows(4, 3)(embedding(ids)), lstm(4)(other)]
    return keras.Model(ids, spec.output()(keras.layers.Concatenate()(made)))


def added(spec: models.NetworkSpec) -> Any:
    """Layers one by one, for each of which Keras calls those before anew."""
    model = keras.Sequential()
    for layer in (spec.ids(), spec.embedding(mask=True), keras.layers.LSTM(5), spec.output()):
        model.add(layer)
    return model


LENGTHS = [0, 1, 2, 5, LENGTH - 3, LENGTH - 2, LENGTH - 1, LENGTH]


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (over(windows(4, 3)), 1),
        (over(windows(4, 1, "linear"), windows(3, LENGTH, "tanh", use_bias=False), windows(5, 2, "sigmoid")), 3),
        (over(windows(4, 3), mask=True), 1),
        (over(windows(4, 3), trainable=False), 1),
        (over(lstm(5)), 1),
        (over(lstm(5), mask=True), 1),
        (over(lstm(5, go_backwards=True), mask=True), 1),
        (over(lstm(5, use_bias=False), mask=True, fixed=False), 1),
        (over(both_ends(4)), 1),
        (over(both_ends(4), mask=True), 1),
        (over(shared), 2),
        (embedded_twice, 2),
        (added, 1),
        (over(both_ends(3), windows(4, 2), lambda vectors: keras.layers.GlobalMaxPooling1D()(vectors)), 2),
    ],
    ids=[
        *("windows", "widths and activations", "a mask is not for windows", "frozen", "lstm", "masked", "backwards"),
        *(
            "any length",
            "both ends",
            "both ends, masked",
            "layer used twice",
            "embedding used twice",
            "added",
            "beside each other and others",
        ),
    ],
)
def test_features_and_gradients_are_those_of_keras(build: Build, found: int) -> None:
    check(build, LENGTHS, found)


@pytest.mark.parametrize(("name", "found"), [("kim-cnn", 3), ("bilstm", 1)])
def test_a_network_s_steps_are_those_of_keras(name: str, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its dropout."""

    def network() -> Network:
        keras.utils.set_random_seed(1)
        return Network(models.architecture(name).build(ROWS, LENGTH, 2), 0.01, most=LENGTH, seed=3)

    ours = network()
    monkeypatch.setattr(encoders, "found_in", lambda model: [])
    theirs = network()
    assert (len(ours._encoders), len(theirs._encoders)) == (found, 0)
    parts, labels = reviews(LENGTHS), np.arange(len(LENGTHS), dtype=np.int32) % 2
    for _ in range(3):
        mine, other = (
            each.gradients(each.pack(parts), labels, np.ones(len(parts), np.float32), 8) for each in (ours, theirs)
        )
        assert mine.loss == pytest.approx(other.loss, rel=1e-5)
        np.testing.assert_array_equal(mine.rows, other.rows)
        np.testing.assert_allclose(mine.values, other.values, atol=2e-6)
        np.testing.assert_allclose(mine.dense, other.dense, atol=5e-6)
        for each in (ours, theirs):
            each.apply(other)
    np.testing.assert_allclose(ours.logits(ours.pack(parts)), theirs.logits(theirs.pack(parts)), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(0, LENGTH), min_size=1, max_size=9),
    units=st.integers(1, 20),
    width=st.integers(1, LENGTH),
    mask=st.booleans(),
    backwards=st.booleans(),
)
def test_any_sizes_give_the_numbers_of_keras(
    lengths: list[int], units: int, width: int, mask: bool, backwards: bool
) -> None:
    check(over(windows(units, width), lstm(units, go_backwards=backwards), mask=mask), lengths, found=2)


def tanh(values: Any) -> Any:
    """An activation that Keras writes down by the name of its own."""
    return 1.7159 * keras.ops.tanh(values * 2 / 3)


def flipped(spec: models.NetworkSpec) -> Any:
    """An embedding that reads no ids as they are."""
    ids, embedding = spec.ids(), spec.embedding()
    vectors = embedding(keras.ops.flip(ids, 1))
    return keras.Model(ids, spec.output()(keras.layers.Concatenate()([lstm(4)(vectors), windows(4, 3)(vectors)])))


def late(vectors: Any) -> Any:
    return keras.layers.LSTM(4)(keras.layers.LSTM(4, return_sequences=True)(vectors))


@pytest.mark.parametrize(
    "build",
    [
        flipped,
        over(windows(4, 3, padding="same")),
        over(windows(4, 3, strides=2)),
        over(windows(4, 3, dilation_rate=2)),
        over(windows(4, 3, "gelu")),
        over(lambda vectors: keras.layers.GlobalMaxPooling1D(keepdims=True)(keras.layers.Conv1D(4, 3)(vectors))[:, 0]),
        over(windows(4, 3), fixed=False),
        over(windows(4, 3, kernel_regularizer="l2")),
        over(windows(4, 3, dtype="mixed_bfloat16")),
        over(windows(4, 3), embeddings_regularizer="l2"),
        over(lambda vectors: windows(4, 3)(keras.layers.SpatialDropout1D(0.2)(vectors))),
        over(lstm(4, dropout=0.2)),
        over(lstm(4, recurrent_activation="hard_sigmoid")),
        over(lstm(4, activation=tanh)),
        over(lambda vectors: keras.layers.LSTM(4)(vectors, mask=np.arange(LENGTH)[None] < 6)),
        over(lstm(4), lora_rank=2),
        over(late),
        over(lambda vectors: keras.layers.LSTM(6)(vectors, initial_state=[vectors[:, 0], vectors[:, 1]])),
        over(lambda vectors: keras.layers.Bidirectional(keras.layers.LSTM(4), merge_mode="sum")(vectors)),
        over(lambda vectors: keras.layers.Bidirectional(keras.layers.LSTM(4), activity_regularizer="l2")(vectors)),
        over(lambda vectors: keras.layers.GRU(4)(vectors)),
    ],
)
def test_other_settings_are_left_to_keras(build: Build) -> None:
    assert encoders.found_in(model_of(build)) == []


def test_a_gpu_s_layers_are_left_to_keras() -> None:
    assert Network(model_of(over(lstm(4))), 0.01, device="/CPU:0")._encoders == []


WINDOWS = windows(4, 3, "linear")


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("made", [WINDOWS, lstm(4)])
def test_no_number_stays_no_number(made: Any, value: float) -> None:
    """A run that diverged is found by its loss."""
    model = model_of(over(made))
    kernel = model.trainable_variables[1]
    kernel.assign(np.full(kernel.shape, value, np.float32))
    model.trainable_variables[0].assign(np.ones((ROWS, 6), np.float32))
    with tf.GradientTape() as tape:
        (features,) = encoders.features(encoders.found_in(model), tf.ones((1, LENGTH), tf.int32))
    assert len(tape.gradient(features, [each.value for each in model.trainable_variables[:2]])) == 2
    assert np.isfinite(features).all() == (made is not WINDOWS and value < 0)
