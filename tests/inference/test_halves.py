"""The folded engine gives what Keras gives for networks of n-grams and windows' sums, at any padded length."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sentray import models
from sentray.errors import SentrayError
from sentray.inference import folded
from sentray.inference.folded import FoldedEngine, Mean, Network, Sums, Wide, pack
from sentray.inference.folding import Unfoldable, fold
from sentray.models import DeepSpec
from sentray.text.encoding import Encoded, pad
from sentray.text.ngrams import Grams, GramSpec, character_grams, character_key, make_table, word_grams
from sentray.text.vocabulary import Vocabulary

keras = pytest.importorskip("keras")
layers = keras.layers

WORDS = 60
LENGTHS = [0, 1, 2, 3, 4, 5, 8, 19, 20, 21, 33, 64, 1200, 0]


def encoded(lengths: list[int], seed: int = 0) -> Encoded:
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    # As in a text, a few words are most of it.
    ids = np.random.default_rng(seed).zipf(1.3, offsets[-1]).astype(np.int64) % (WORDS - 1) + 1
    size = np.array(lengths, np.int32)
    return Encoded(ids.astype(np.int32), offsets, size, size, size)


def some_grams(given: Encoded, seed: int = 0, characters: bool = False) -> Grams:
    """Half of the n-grams that reviews have."""
    made, words = GramSpec(characters=characters), Vocabulary([f"word{number}" for number in range(1, WORDS)])
    known = {character_key(gram) for word in words.words * characters for gram in character_grams(word)}
    for start, stop in zip(given.offsets, given.offsets[1:], strict=False):
        known.update(word_grams(given.ids[start:stop].tolist(), made))
    keys = np.array(sorted(known), np.uint64)
    return Grams(made, make_table(keys[np.random.default_rng(seed).random(len(keys)) < 0.5]), words)


def network(name: str, grams: Grams | None, classes: int, widths: tuple[int, ...], filters: int, seed: int) -> Any:
    deep = DeepSpec(widths=widths, filters=filters, dimensions=filters + 3)
    model = models.architecture(name).build(WORDS, 1, classes, gram_rows=grams.rows if grams else 1, deep=deep)
    chance = np.random.default_rng(seed)
    for layer in model.layers:
        if not layer.get_weights():
            continue
        shape = layer.get_weights()[0].shape
        if isinstance(layer, layers.Embedding):
            weights = chance.normal(size=shape)
            weights[0] = 0
            layer.set_weights([weights])
        else:
            scale = 2 / np.sqrt(shape[-2])
            layer.set_weights([scale * chance.normal(size=each.shape) for each in layer.get_weights()])
    return model


def bundle(
    files: dict[str, bytes],
    grams: Grams | None,
    labels: int,
    length: int = 2000,
    truncating: str = "pre",
    words: int = WORDS,
) -> Any:
    spec = SimpleNamespace(max_length=length, truncating=truncating, task="classification", numeric=())
    known = SimpleNamespace(size=words)
    files = files | ({"grams.bin": grams.table.tobytes()} if grams else {})
    return SimpleNamespace(files=files, spec=spec, labels=["label"] * labels, vocabulary=known, grams=grams)


def keras_scores(model: Any, given: Encoded, grams: Grams | None, length: int, more: int, truncating: str) -> Any:
    """Each review alone, padded by so many ids and grams more than it has."""
    scores = []
    for row in range(len(given)):
        own = pad(given, [row], min(max(given.lengths[row], 1), length), truncating)[0]
        own = own[own > 0]
        inputs = {"ids": np.pad(own, (0, 1 + more))[None]}
        if grams is not None:
            found = grams.of(own, np.array([0, len(own)]))
            inputs["grams"] = np.pad(found.rows, (0, 1 + more))[None]
            inputs["values"] = np.pad(found.values, (0, 1 + more))[None]
        scores.append(np.asarray(model({each.name: inputs[each.name] for each in model.inputs}, training=False))[0])
    scores = np.array(scores)
    return np.hstack([1 - scores, scores]) if scores.shape[1] == 1 else scores


@pytest.mark.parametrize(
    ("name", "widths", "filters", "classes", "truncating"),
    [
        ("wide-deep", (3, 7, 20), 128, 2, "pre"),
        ("wide-deep", (2, 5), 33, 4, "post"),
        ("deep", (1, 3), 40, 2, "pre"),
        ("deep", (4,), 7, 3, "post"),
        ("wide", (1,), 1, 2, "pre"),
        ("wide", (1,), 1, 5, "post"),
    ],
)
def test_equals_keras(name: str, widths: tuple[int, ...], filters: int, classes: int, truncating: str) -> None:
    given = encoded(LENGTHS, seed=filters)
    for length, more in ((2000, 0), (37, 30)):
        # With three labels or more also n-grams of characters.
        grams = some_grams(given, characters=classes > 2) if "wide" in name else None
        model = network(name, grams, classes, widths, filters, seed=classes + length)
        wanted = keras_scores(model, given, grams, length, more, truncating)
        found = FoldedEngine(bundle(fold(model), grams, classes, length, truncating)).scores(given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        assert np.ptp(found[:, 0]) > 0.01


def test_many_reviews_have_the_same_bits_as_each_alone() -> None:
    given = encoded([7, 0, 60, 33, 50, 8] * 100)
    grams = some_grams(given)
    engine = FoldedEngine(bundle(fold(network("wide-deep", grams, 2, (3, 7), 40, seed=1)), grams, 2))
    together = engine.scores(given)
    for row in (0, 1, 255, 256, 599):
        start, stop = given.offsets[row], given.offsets[row + 1]
        size = given.words[row : row + 1]
        one = Encoded(given.ids[start:stop], np.array([0, stop - start]), size, size, size)
        np.testing.assert_array_equal(engine.scores(one)[0], together[row])


def test_rounding_errors_of_sums_do_not_add_up() -> None:
    """Every fiftieth word is a thousand times as long as the others, and nothing of it may be left where it is not."""
    chance = np.random.default_rng(0)
    ids = chance.integers(2, 9, 100_000).astype(np.int32)
    ids[::50] = 1
    size = np.array([len(ids)], np.int32)
    table = chance.normal(size=(9, 4)).astype(np.float32)
    table[0], table[1] = 0, -1000
    weights = {
        "embedding": table,
        "kernel0": np.eye(4, dtype=np.float32),
        "weights0": np.eye(4, dtype=np.float32),
        "units0": np.zeros(4, np.float32),
    }
    files = pack(Network(None, (Sums(5, 4),), ("linear",)), weights)
    engine = FoldedEngine(bundle(files, None, 4, len(ids), words=9))
    found = engine.scores(Encoded(ids, np.array([0, len(ids)]), size, size, size))[0]
    windows = np.lib.stride_tricks.sliding_window_view(table[ids].astype(np.float64), 5, axis=0).mean(axis=2)
    np.testing.assert_allclose(found, windows.max(axis=0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: layers.GlobalMaxPooling1D()(layers.AveragePooling1D(3, 1)(e)), "not the largest of rectified"),
        (lambda e: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3, activation="relu", use_bias=False)(e)), "rectified"),
        (lambda e: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 1, activation="relu")(e)), "rectified windows without"),
        (lambda e: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 1, use_bias=False)(e)), "rectified"),
        (lambda e: largest(layers.AveragePooling1D(3, 1)(e)), "does not pool all windows"),
        (lambda e: largest(layers.AveragePooling1D(3, 1)(layers.ZeroPadding1D(1)(e))), "does not pool all windows"),
        (lambda e: largest(layers.AveragePooling1D(3)(layers.ZeroPadding1D(2)(e))), "does not pool all windows"),
        (lambda e: layers.GlobalAveragePooling1D()(e), "not the largest"),
        (lambda e: layers.LayerNormalization(center=False, scale=False)(largest(e)), "does not normalize a mean"),
    ],
)
def test_tells_networks_of_other_shapes(change: Any, message: str) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, layers.Dense(1, activation="sigmoid")(change(layers.Embedding(WORDS, 8)(ids))))
    with pytest.raises(Unfoldable, match=message):
        fold(model)


def largest(windows: Any) -> Any:
    return layers.GlobalMaxPooling1D()(layers.Conv1D(4, 1, activation="relu", use_bias=False)(windows))


def test_a_vector_of_padding_is_told() -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(ids, layers.Dense(1, activation="sigmoid")(largest(layers.Embedding(WORDS, 8)(ids))))
    with pytest.raises(Unfoldable, match="its padding has a vector"):
        fold(model)


def test_refuses_files_that_do_not_fit() -> None:
    given = encoded([30, 40])
    grams = some_grams(given)
    files = fold(network("wide-deep", grams, 2, (3,), 4, seed=0))
    for wrong, message in ((some_grams(encoded([300])), "n-grams, the bundle"), (None, "n-grams, the bundle 0")):
        with pytest.raises(SentrayError, match=message):
            FoldedEngine(bundle(files, wrong, 2))
    for old, new, message in (
        (b'"width": 3', b'"width": 0', "a window has 0 words"),
        (b'"width": 3', b'"width": 5000', "a window has 5,000 words"),
        (b'"filters": 4', b'"filters": 5', "kernel1 has the shape"),
        (b'"columns": 1', b'"columns": 2', "kernel0 has the shape"),
        (b'"epsilon": 1e-20', b'"epsilon": -1', "its epsilon is -1"),
        (b'"length": null', b'"length": 2000', "do not go together"),
    ):
        assert old in files["folded.json"]
        with pytest.raises(SentrayError, match=message):
            FoldedEngine(bundle(files | {"folded.json": files["folded.json"].replace(old, new, 1)}, grams, 2))


def test_tables_are_counted_with_what_fills_their_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"embedding": (WORDS, 5), "kernel0": (5, 33), "weights0": (38, 1), "units0": (1,)}
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    shape = Network(None, (Sums(3, 33), Mean(1e-12)), ("sigmoid",))
    monkeypatch.setattr(folded, "MAX_BYTES", 4 * WORDS * 32 * 3)
    folded.checked(shape, weights.__getitem__)
    monkeypatch.setattr(folded, "MAX_BYTES", 4 * WORDS * 32 * 3 - 1)
    with pytest.raises(ValueError, match="its tables would take"):
        folded.checked(shape, weights.__getitem__)


def test_a_network_of_grams_alone_has_no_embedding() -> None:
    given = encoded([30, 40])
    grams = some_grams(given)
    weights = {
        "kernel0": np.random.default_rng(0).normal(size=(grams.rows, 1)).astype(np.float32),
        "weights0": np.ones((1, 1), np.float32),
        "units0": np.zeros(1, np.float32),
    }
    files = pack(Network(None, (Wide(1),), ("linear",)), weights)
    found = FoldedEngine(bundle(files, grams, 2)).scores(given)[:, 1]
    rows = grams.of(given.ids, given.offsets)
    sums = np.add.reduceat(rows.values * weights["kernel0"][rows.rows, 0], rows.offsets[:-1])
    np.testing.assert_allclose(found, sums, atol=1e-5)
