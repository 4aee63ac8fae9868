"""The folded engine gives what Keras gives, for every shipped network and for random ones of the shapes it computes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sentray import models
from sentray.errors import SentrayError
from sentray.inference import folded
from sentray.inference.folded import FoldedEngine
from sentray.inference.folding import Unfoldable, fold, fold_if_possible
from sentray.text.encoding import Encoded, pad

keras = pytest.importorskip("keras")
layers = keras.layers

WORDS, LENGTH = 300, 50
PLAIN = {"center": False, "scale": False}


def reviews(lengths: list[int], seed: int = 0) -> Encoded:
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    ids = np.random.default_rng(seed).integers(1, WORDS, offsets[-1]).astype(np.int32)
    size = np.array(lengths, np.int32)
    return Encoded(ids, offsets, size, size, size)


def with_random_weights(model: Any, seed: int) -> Any:
    """Weights of a size with which the scores differ and are not all 0 or 1."""
    chance = np.random.default_rng(seed)
    for layer in model.layers:
        inputs = 1 if isinstance(layer, layers.Embedding) else [np.prod(w.shape[:-1]) for w in layer.get_weights()][:1]
        scale = 1.5 / np.sqrt(inputs)
        layer.set_weights([scale * chance.normal(size=weights.shape) for weights in layer.get_weights()])
    return model


def bundle(
    files: dict[str, bytes], length: int = LENGTH, labels: int = 2, truncating: str = "pre", words: int = WORDS
) -> Any:
    """What the engine wants to know of a bundle."""
    spec = SimpleNamespace(max_length=length, truncating=truncating, task="classification", numeric=())
    words = SimpleNamespace(size=words)
    return SimpleNamespace(files=files, spec=spec, labels=["label"] * labels, vocabulary=words, grams=None)


def engine(model: Any, length: int = LENGTH, truncating: str = "pre") -> FoldedEngine:
    return FoldedEngine(bundle(fold(model), length, max(2, model.output_shape[1]), truncating))


def assert_equals_keras(model: Any, length: int, truncating: str = "pre", widest: int = 8) -> None:
    lengths = [0, 1, 2, widest - 1, widest, widest + 1, length // 2, length - 1, length, length + 1, 3 * length]
    given = reviews([*lengths, *range(3, length, 7)], seed=length)
    wanted = np.asarray(model(pad(given, range(len(given)), length, truncating), training=False))
    if wanted.shape[1] == 1:
        wanted = np.hstack([1 - wanted, wanted])
    found = engine(model, length, truncating).scores(given)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert np.ptp(found[:, 0]) > 0.01


@pytest.mark.parametrize(("classes", "truncating"), [(2, "pre"), (3, "post"), (5, "pre")])
@pytest.mark.parametrize(
    "name", [each.name for each in models.ARCHITECTURES.values() if isinstance(each, models.Stack)]
)
def test_every_shipped_network(name: str, classes: int, truncating: str) -> None:
    # An odd and an even number of windows, the shortest that is allowed, and more words than a vector has lanes.
    for number, length in enumerate((models.ARCHITECTURES[name].min_length, LENGTH, LENGTH + 1)):
        model = with_random_weights(models.ARCHITECTURES[name].build(WORDS, length, classes), seed=number)
        assert_equals_keras(model, length, truncating)


def parallel(*branches: tuple[int, int, str | None, Any]) -> Any:
    words = keras.Input((LENGTH,), dtype="int32")
    embedded = layers.SpatialDropout1D(0.2)(layers.Embedding(WORDS, 11)(words))
    outputs = []
    for width, filters, activation, pooling in branches:
        tensor = pooling(layers.Conv1D(filters, width, activation=activation, use_bias=width != 2)(embedded))
        outputs.append(layers.Flatten()(layers.Dropout(0.1)(tensor)) if len(tensor.shape) == 3 else tensor)
    joined = layers.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]
    hidden = layers.Dense(6, activation="tanh")(layers.Dropout(0.5)(joined))
    return keras.Model(words, layers.Dense(3, activation="softmax")(hidden))


@pytest.mark.parametrize(
    "branches",
    [
        [(3, 7, "relu", layers.GlobalMaxPooling1D()), (4, 16, "relu", layers.GlobalMaxPooling1D())],
        [(1, 33, None, layers.GlobalAveragePooling1D()), (5, 4, "relu", layers.GlobalAveragePooling1D())],
        [(2, 5, None, layers.MaxPooling1D(3, 2)), (3, 17, "relu", layers.AveragePooling1D(2, 3))],
        [(8, 32, "relu", layers.AveragePooling1D(4)), (2, 3, "relu", layers.GlobalMaxPooling1D())],
        [(50, 2, None, layers.GlobalMaxPooling1D())],
        [(49, 1, "relu", layers.MaxPooling1D(2))],
    ],
)
def test_random_networks(branches: list[Any]) -> None:
    assert_equals_keras(with_random_weights(parallel(*branches), seed=1), LENGTH, widest=branches[0][0])


def test_a_network_without_hidden_layer() -> None:
    stack = [
        layers.Embedding(WORDS, 9),
        layers.Conv1D(128, 5, activation="relu"),
        layers.MaxPooling1D(2),
        layers.Flatten(),
    ]
    model = keras.Sequential([keras.Input((LENGTH,), dtype="int32"), *stack, layers.Dense(1, activation="sigmoid")])
    assert_equals_keras(with_random_weights(model, seed=2), LENGTH)


def both_poolings(embedded: Any) -> Any:
    windows = layers.Conv1D(20, 3, activation="relu")(embedded)
    pooled = [layers.GlobalAveragePooling1D()(windows), layers.GlobalMaxPooling1D()(windows)]
    return layers.Concatenate()([*pooled, layers.GlobalMaxPooling1D()(layers.Conv1D(20, 3)(embedded))])


def words_beside_windows(embedded: Any) -> Any:
    windows = layers.Flatten()(layers.Conv1D(3, 2, activation="relu")(embedded))
    return layers.Concatenate()([layers.Flatten()(embedded), windows, layers.GlobalAveragePooling1D()(embedded)])


@pytest.mark.parametrize(
    ("length", "dimensions", "classes", "shape"),
    [
        (4, 8, 2, lambda e: layers.Flatten()(e)),
        (LENGTH, 100, 2, lambda e: layers.Flatten()(e)),
        (LENGTH, 33, 5, lambda e: layers.Flatten()(e)),
        (LENGTH, 11, 2, lambda e: layers.GlobalAveragePooling1D()(e)),
        (LENGTH, 11, 3, lambda e: layers.GlobalMaxPooling1D()(e)),
        (LENGTH, 5, 2, lambda e: layers.Flatten()(layers.AveragePooling1D(3)(e))),
        (LENGTH, 11, 2, lambda e: layers.Flatten()(layers.Conv1D(7, 4, activation="relu")(e))),
        (LENGTH, 11, 2, both_poolings),
        (LENGTH, 11, 3, words_beside_windows),
        (LENGTH, 33, 2, lambda e: layers.LayerNormalization(**PLAIN)(layers.GlobalAveragePooling1D()(e))),
        (LENGTH, 11, 3, lambda e: layers.LayerNormalization(**PLAIN, epsilon=0.5)(both_poolings(e))),
    ],
)
def test_networks_without_pooling_or_convolution(length: int, dimensions: int, classes: int, shape: Any) -> None:
    words = keras.Input((length,), dtype="int32")
    for truncating, hidden in (("pre", []), ("post", [layers.Dense(6, activation="relu")])):
        tensor = shape(layers.SpatialDropout1D(0.2)(layers.Embedding(WORDS, dimensions)(words)))
        for layer in (layers.Dropout(0.5), *hidden, models.NetworkSpec(WORDS, LENGTH, classes, 11).output()):
            tensor = layer(tensor)
        model = with_random_weights(keras.Model(words, tensor), seed=length)
        assert_equals_keras(model, length, truncating)


def test_branches_that_pool_the_same_windows_share_a_table() -> None:
    words = keras.Input((LENGTH,), dtype="int32")
    tensor = models.NetworkSpec(WORDS, LENGTH, 2, 11).output()(both_poolings(layers.Embedding(WORDS, 11)(words)))
    made = engine(with_random_weights(keras.Model(words, tensor), seed=4))
    first, second, other = (branch.table for branch in made.branches)
    assert first is second
    assert first is not other


def test_scores_of_many_reviews_are_those_of_each_alone() -> None:
    made = engine(with_random_weights(models.architecture("tutorial-cnn").build(WORDS, LENGTH, 2), seed=3))
    given = reviews([7, 0, 60, 33, 50, 8])
    together = made.scores(given)
    for row in range(len(given)):
        start, stop = given.offsets[row], given.offsets[row + 1]
        one = Encoded(
            given.ids[start:stop], np.array([0, stop - start]), given.words[:1], given.known[:1], given.spaced[:1]
        )
        np.testing.assert_array_equal(made.scores(one)[0], together[row])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: layers.LSTM(4)(e), "lstm"),
        (lambda e: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3, padding="same")(e)), "conv1d"),
        (lambda e: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3, dilation_rate=2)(e)), "conv1d"),
        (lambda e: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3, activation="gelu")(e)), "conv1d"),
        (lambda e: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3)(layers.Conv1D(4, 3)(e))), "no embedding"),
        (lambda e: layers.Flatten()(layers.MaxPooling1D(2, padding="same")(layers.Conv1D(4, 3)(e))), "pool"),
        (lambda e: layers.GlobalMaxPooling1D(keepdims=True)(layers.Conv1D(4, 3)(e)), "not flattened"),
        (lambda e: layers.Conv1D(4, 3)(e), "not flattened"),
        (lambda e: layers.Flatten(data_format="channels_first")(layers.Conv1D(4, 3)(e)), "channels_first"),
        (lambda e: layers.GlobalAveragePooling1D(data_format="channels_first")(e), "channels_first"),
        (lambda e: layers.LayerNormalization()(layers.GlobalMaxPooling1D()(e)), "center True"),
        (
            lambda e: layers.LayerNormalization(**PLAIN, axis=-1)(layers.Flatten()(layers.Conv1D(16, 3)(e))),
            "768 values",
        ),
    ],
)
def test_tells_networks_of_other_shapes(change: Any, message: str) -> None:
    words = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(words, layers.Dense(1, activation="sigmoid")(change(layers.Embedding(WORDS, 8)(words))))
    with pytest.raises(Unfoldable, match=message):
        fold(model)
    assert fold_if_possible(model) == {}


def test_leaves_networks_to_keras_whose_tables_or_loops_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    # The shapes are looked at before any table is made.
    model = parallel((5, 128, "relu", layers.GlobalMaxPooling1D()), (1, 16, "relu", layers.GlobalMaxPooling1D()))
    monkeypatch.setattr(folded, "MAX_BYTES", 4 * WORDS * (5 * 128 + 16))
    assert fold_if_possible(model)
    monkeypatch.setattr(folded, "MAX_BYTES", 4 * WORDS * (5 * 128 + 16) - 1)
    with pytest.raises(Unfoldable, match="its tables would take"):
        fold(model)
    monkeypatch.undo()
    monkeypatch.setattr(folded, "MAX_TERMS", 39)
    with pytest.raises(Unfoldable, match="a branch adds 40 vectors for an output"):
        fold(model)


def test_refuses_files_that_do_not_fit() -> None:
    model = models.architecture("tutorial-cnn").build(WORDS, LENGTH, 2)
    with pytest.raises(SentrayError, match="it takes 50 words, the bundle 51"):
        engine(model, LENGTH + 1)
    with pytest.raises(SentrayError, match="it knows 300 words, the bundle 301"):
        FoldedEngine(bundle(fold(model), words=WORDS + 1))
    with pytest.raises(SentrayError, match="is damaged or does not fit it"):
        FoldedEngine(bundle(fold(model) | {"folded.npz": b"no archive"}))
    files = fold(model)
    network = files["folded.json"].replace(b'"window": 2', b'"window": 0')
    with pytest.raises(SentrayError, match="a branch has a size of 0"):
        FoldedEngine(bundle(files | {"folded.json": network}))


def test_the_same_network_gives_the_same_files() -> None:
    model = models.architecture("tutorial-cnn").build(WORDS, LENGTH, 2)
    assert fold(model) == fold(model)


def test_kernels_of_the_same_bytes_and_other_shapes_have_tables_of_their_own() -> None:
    kernels = [np.zeros((2**power, 2 ** (9 - power), 2), np.float32) for power in range(10)]
    rows = folded.MAX_BYTES // (4 * 2 * (2**10 - 1))
    folded.require_tables(rows, [*kernels, kernels[-1]])
    with pytest.raises(ValueError, match="its tables would take"):
        folded.require_tables(rows + 1, kernels)
