"""Networks of halves: what they compute, whatever the padding and the reviews beside one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import models
from sentray.models import DeepSpec

keras = pytest.importorskip("keras")

WORDS, GRAMS, DEEP = 30, 50, DeepSpec(widths=(1, 3, 4), filters=5, dimensions=6)
HALVES = [name for name, known in models.ARCHITECTURES.items() if isinstance(known, models.Halves)]
REVIEWS = st.lists(st.lists(st.integers(1, WORDS - 1), max_size=9), min_size=1, max_size=4)


def network_of(name: str, classes: int) -> Any:
    """A network with random weights; those of the padding are 0, as trained ones are."""
    model = models.architecture(name).build(WORDS, 7, classes, gram_rows=GRAMS, deep=DEEP)
    generator = np.random.default_rng(1)
    for layer in model.layers:
        weights = [generator.normal(size=values.shape).astype(np.float32) for values in layer.get_weights()]
        if layer.name in (models.EMBEDDING, models.WIDE):
            weights[0][0] = 0
        layer.set_weights(weights)
    return model


def fed(model: Any, reviews: list[list[int]], more: int) -> np.ndarray:
    """The scores of reviews whose grams are their words, with so much padding behind the longest."""
    ids = np.zeros((len(reviews), max(map(len, reviews)) + more), np.int32)
    for row, review in zip(ids, reviews, strict=True):
        row[: len(review)] = review
    values = np.where(ids > 0, 1 + ids / 10, 0).astype(np.float32)
    inputs = {"ids": ids, "grams": ids, "values": values}
    return np.asarray(model([inputs[each.name] for each in model.inputs]))


@pytest.fixture(scope="module", params=[(name, classes) for name in HALVES for classes in (2, 3)], ids=str)
def network(request: pytest.FixtureRequest) -> Any:
    return network_of(*request.param)


@settings(deadline=None, max_examples=15)
@given(reviews=REVIEWS, more=st.integers(1, 40))
def test_a_review_has_one_score_at_any_padded_length(network: Any, reviews: list[list[int]], more: int) -> None:
    found = fed(network, reviews, more)
    for review, scores in zip(reviews, found, strict=True):
        np.testing.assert_allclose(fed(network, [review], 1)[0], scores, atol=1e-6)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


@pytest.mark.parametrize("review", [[], [3], [4, 1, 7, 7, 2, 9]])
def test_what_a_network_of_both_halves_computes(review: list[int]) -> None:
    model = network_of("wide-deep", 3)
    table, vectors = (model.get_layer(name).get_weights()[0] for name in (models.WIDE, models.EMBEDDING))
    kernel, bias = model.get_layer(models.OUTPUT).get_weights()
    words = np.array(review, int)
    features = [((1 + words / 10)[:, None] * table[words]).sum(0)]
    for width in DEEP.widths:
        units = model.get_layer(f"units{width}").get_weights()[0][0]
        around = np.pad(vectors[words], ((width - 1, width - 1), (0, 0)))
        windows = [around[first : first + width].mean(0) for first in range(len(around) - width + 1)]
        features.append(np.max([np.zeros(DEEP.filters), *(np.maximum(window @ units, 0) for window in windows)], 0))
    mean = vectors[words].mean(0) if review else np.zeros(DEEP.dimensions)
    features.append((mean - mean.mean()) / (mean.std() or 1))
    wanted = softmax(np.concatenate(features) @ kernel + bias)
    np.testing.assert_allclose(fed(model, [review], 3)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("name", HALVES)
def test_plain_keras_loads_it_in_safe_mode(name: str, tmp_path: Path) -> None:
    model = network_of(name, 2)
    (tmp_path / "model.keras").write_bytes(models.keras_file(model))
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(fed(loaded, [[4, 1, 7]], 2), fed(model, [[4, 1, 7]], 2))


def test_a_name_without_version_means_the_latest() -> None:
    assert [models.architecture(name.partition(".")[0]).name for name in HALVES] == HALVES
