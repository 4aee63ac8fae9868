"""The Keras engine gives what plain Keras gives, and the same bits in any company."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sentray import bundle, models
from sentray.bundle import Bundle, GoldenText
from sentray.errors import SentrayError
from sentray.inference import folding
from sentray.inference.engines import KerasEngine, choose, load_engine
from sentray.inference.networks import batch
from sentray.inference.scorer import Scorer, golden_texts
from sentray.text.encoding import Encoder, pad
from sentray.text.ngrams import GramSpec, make_table, word_grams
from tests.conftest import LENGTH

keras = pytest.importorskip("keras")


@pytest.fixture(scope="module")
def halves(make_bundle: Any, make_reviews: Any) -> Bundle:
    """A bundle of a wide and a deep half with random weights, which knows half of the n-grams of some reviews."""
    plain, chance = make_bundle(), np.random.default_rng(0)
    encoded = Encoder(plain.spec.cleaning, plain.vocabulary).encode(pa.array(make_reviews(50, seed=9)))
    reviews = np.split(encoded.ids, encoded.offsets[1:-1])
    keys = np.array(sorted({key for ids in reviews for key in word_grams(ids.tolist(), GramSpec())}), np.uint64)
    table = make_table(keys[chance.random(len(keys)) < 0.5])
    deep = models.DeepSpec(widths=(2, 3), filters=5, dimensions=6)
    model = models.architecture("wide-deep").build(
        plain.vocabulary.size, LENGTH, 2, gram_rows=len(table) + 1, deep=deep
    )
    for layer in model.layers:
        weights = [chance.normal(size=each.shape) for each in layer.get_weights()]
        if layer.name in (models.EMBEDDING, models.WIDE):
            weights[0][0] = 0
        layer.set_weights(weights)
    changes = {"architecture": "wide-deep.v1", "grams": GramSpec(), "deep": deep}
    files = {bundle.MODEL: models.keras_file(model), bundle.GRAMS: table.tobytes(), **folding.fold(model)}
    made = bundle.make(plain.spec.model_copy(update=changes), plain.vocabulary, files)
    return bundle.update(made, golden=golden_texts(made, ["good film"]))


@pytest.fixture(params=["small_bundle", "halves"])
def either(request: pytest.FixtureRequest) -> Bundle:
    """A bundle of a network with a fixed length, and one of a network with any."""
    made: Bundle = request.getfixturevalue(request.param)
    return made


def test_golden_texts_reach_n_grams(halves: Bundle) -> None:
    last = halves.golden[-1].text
    encoded = Encoder(halves.spec.cleaning, halves.vocabulary).encode(pa.array([last]))
    assert halves.grams is not None
    known = halves.grams.gram_texts(halves.grams.of(encoded.ids, encoded.offsets).rows.tolist())
    assert {len(gram.split()) for gram in known} == {1, 2, 3}
    spoilt = bundle.make(
        halves.spec,
        halves.vocabulary,
        halves.files | {bundle.GRAMS: np.roll(halves.grams.table, 8).tobytes()},
        golden=halves.golden,
    )
    with pytest.raises(SentrayError, match="differ from its golden texts"):
        Scorer(spoilt)


def test_engines_agree_on_halves(halves: Bundle, make_reviews: Any) -> None:
    texts = pa.array(["", *make_reviews(100, seed=4)])
    found = [Scorer(halves, name).score(texts).probabilities for name in ("folded", "keras")]
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)
    assert np.ptp(found[0]) > 0.1


@pytest.mark.parametrize("labels", [("neg", "pos"), ("bad", "fine", "good")])
def test_gives_what_plain_keras_gives(make_bundle, make_reviews, labels: tuple[str, ...]) -> None:
    made: Bundle = make_bundle(labels)
    encoded = Encoder(made.spec.cleaning, made.vocabulary).encode(pa.array(make_reviews(70)))
    found = KerasEngine(made).scores(encoded)
    # What anyone without sentray does with the bundle's file.
    model = keras.models.load_model(Path(made.path) / bundle.MODEL, safe_mode=True)
    wanted = model.predict(pad(encoded, range(70), made.spec.max_length, made.spec.truncating), verbose=0)
    if len(labels) == 2:
        wanted = np.hstack([1 - wanted, wanted])
    assert found.dtype == np.float32
    assert found.shape == (70, len(labels))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("engine", ["folded", "keras"])
def test_a_score_has_the_same_bits_alone_and_in_company(either: Bundle, make_reviews, engine: str) -> None:
    scorer = Scorer(either, engine)
    texts = pa.array(make_reviews(2 * batch(LENGTH) + 5, seed=3))
    together = scorer.score(texts).probabilities
    backwards = scorer.score(texts.take(pa.array(range(len(texts) - 1, -1, -1)))).probabilities[::-1]
    alone = np.concatenate([scorer.score(texts.slice(row, 1)).probabilities for row in range(len(texts))])
    assert len(np.unique(together)) > len(texts)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, backwards)


@pytest.mark.parametrize("engine", ["folded", "keras"])
def test_no_reviews_and_reviews_without_words(either: Bundle, engine: str) -> None:
    scorer = Scorer(either, engine)
    assert scorer.score(pa.array([], pa.string())).probabilities.shape == (0, 2)
    scores = scorer.score(pa.array(["", None, "zebra", "zebra good"], pa.large_string()))
    assert scores.words.tolist() == [0, 0, 1, 2]
    assert scores.known.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(scores.probabilities[0], scores.probabilities[1])


@pytest.mark.parametrize("engine", ["folded", "keras"])
def test_refuses_a_bundle_that_breaks_its_golden_scores(make_bundle, engine: str) -> None:
    made: Bundle = make_bundle()
    neg, pos = made.golden[0].scores.items()
    moved = {neg[0]: neg[1] - 0.001, pos[0]: pos[1] + 0.001}
    shifted = GoldenText(text=made.golden[0].text, scores=moved)
    with pytest.raises(SentrayError, match=r"differ from its golden texts' by 0\.001"):
        Scorer(bundle.update(made, golden=[shifted]), engine)


def test_auto_takes_the_folded_network_where_there_is_one(make_bundle) -> None:
    made: Bundle = make_bundle()
    assert choose("auto", made) == load_engine("auto", made).name == "folded"
    bare: Bundle = make_bundle(fold=False)
    assert choose("auto", bare) == "keras"
    with pytest.raises(SentrayError, match=f"^the bundle {bare.path} has no folded network"):
        choose("folded", bare)


@pytest.mark.parametrize("name", ["gpu", "folded16"])
def test_an_engine_that_there_is_not_is_named(small_bundle: Bundle, name: str) -> None:
    with pytest.raises(SentrayError, match=f"there is no engine '{name}'; use auto, folded or keras"):
        Scorer(small_bundle, name)


# --- Threads and forks


@pytest.mark.parametrize("engine", ["folded", "keras"])
def test_eight_threads_share_a_scorer(small_bundle: Bundle, make_reviews, engine: str) -> None:
    scorer = Scorer(small_bundle, engine)
    texts = [pa.array(make_reviews(300, seed=number)) for number in range(8)]
    alone = [scorer.score(each).probabilities for each in texts]
    start = threading.Barrier(8)

    def work(number: int) -> list[np.ndarray]:
        start.wait()
        return [scorer.score(texts[number]).probabilities for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        for wanted, found in zip(alone, pool.map(work, range(8)), strict=True):
            for each in found:
                np.testing.assert_array_equal(each, wanted)


def test_eight_threads_load_at_once(small_bundle: Bundle, make_reviews) -> None:
    texts, start = pa.array(make_reviews(50)), threading.Barrier(8)

    def work(_: int) -> np.ndarray:
        start.wait()
        return Scorer(bundle.load(small_bundle.path)).score(texts).probabilities

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(work, range(8))
    for other in others:
        np.testing.assert_array_equal(first, other)


FORK = """
import multiprocessing, os, sys
import pyarrow as pa
from sentray import bundle
from sentray.inference.scorer import Scorer

def score(scorer):
    return scorer.score(pa.array(["good film", "not a good film", ""])).probabilities.tobytes()

def fresh(_):
    return score(Scorer(bundle.load(sys.argv[1])))

scorer = Scorer(bundle.load(sys.argv[1]))
wanted = score(scorer)
receive, send = os.pipe()
if not os.fork():
    os.write(send, score(scorer))
    os._exit(0)
assert os.read(receive, 1000) == wanted
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(fresh, range(4)) == [wanted] * 4
print(sorted({"keras", "tensorflow", "ray"} & sys.modules.keys()))
"""


def test_a_forked_process_scores_and_loads_and_needs_neither_ray_nor_tensorflow(small_bundle: Bundle) -> None:
    ran = subprocess.run([sys.executable, "-c", FORK, small_bundle.path], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[]\n", ran.stderr


KERAS_FORK = """
import os, sys
import pyarrow as pa
from sentray import bundle
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer

scorer = Scorer(bundle.load(sys.argv[1]), "keras")
receive, send = os.pipe()
if not os.fork():
    try:
        scorer.score(pa.array(["good film"]))
    except SentrayError as error:
        os.write(send, str(error).encode())
    os._exit(0)
os.close(send)
print(os.read(receive, 1000).decode())
"""


def test_the_keras_engine_refuses_a_fork_where_it_would_wait_for_ever(small_bundle: Bundle) -> None:
    command = [sys.executable, "-c", KERAS_FORK, small_bundle.path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "cannot be used in a fork of its process; load the bundle in the process that scores" in ran.stdout
