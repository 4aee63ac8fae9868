"""The Keras engine gives what plain Keras gives, and the same bits in any company."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sentray import bundle, models
from sentray.bundle import Bundle, GoldenText
from sentray.errors import SentrayError
from sentray.inference.engines import BATCH, KerasEngine, choose, load_engine
from sentray.inference.scorer import Scorer
from sentray.text.encoding import Encoder, pad

keras = pytest.importorskip("keras")


@pytest.mark.parametrize("labels", [("neg", "pos"), ("bad", "fine", "good")])
def test_gives_what_plain_keras_gives(make_bundle, make_reviews, labels: tuple[str, ...]) -> None:
    made: Bundle = make_bundle(labels)
    encoded = Encoder(made.rules, made.vocabulary).encode(pa.array(make_reviews(70)))
    found = KerasEngine(made).scores(encoded)
    # What a stranger without sentray does with the bundle's file.
    model = keras.models.load_model(made.model_file, safe_mode=True)
    wanted = model.predict(pad(encoded, range(70), made.max_length, made.truncating), verbose=0)
    if len(labels) == 2:
        wanted = np.hstack([1 - wanted, wanted])
    assert found.dtype == np.float32
    assert found.shape == (70, len(labels))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("engine", ["folded", "folded16", "keras"])
def test_a_score_has_the_same_bits_alone_and_in_company(small_bundle: Bundle, make_reviews, engine: str) -> None:
    scorer = Scorer(small_bundle, engine)
    texts = pa.array(make_reviews(2 * BATCH + 5, seed=3))
    together = scorer.score(texts).probabilities
    backwards = scorer.score(texts.take(pa.array(range(len(texts) - 1, -1, -1)))).probabilities[::-1]
    alone = np.concatenate([scorer.score(texts.slice(row, 1)).probabilities for row in range(len(texts))])
    assert len(np.unique(together)) > len(texts)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, backwards)


@pytest.mark.parametrize("engine", ["folded", "keras"])
def test_no_reviews_and_reviews_without_words(small_bundle: Bundle, engine: str) -> None:
    scorer = Scorer(small_bundle, engine)
    assert scorer.score(pa.array([], pa.string())).probabilities.shape == (0, 2)
    scores = scorer.score(pa.array(["", None, "zebra", "zebra good"], pa.large_string()))
    assert scores.words.tolist() == [0, 0, 1, 2]
    assert scores.known.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(scores.probabilities[0], scores.probabilities[1])


def test_refuses_what_is_no_network(make_bundle) -> None:
    made: Bundle = make_bundle()
    made.model_file.write_bytes(b"not a zip file")
    with pytest.raises(SentrayError, match=r"cannot load .*model\.keras") as error:
        Scorer(bundle.update(made), "keras")
    assert "\n" not in str(error.value)


def test_refuses_a_network_of_another_shape(make_bundle) -> None:
    short, long = make_bundle(length=20), make_bundle(length=30)
    long.model_file.write_bytes(short.model_file.read_bytes())
    with pytest.raises(SentrayError, match="does not fit the bundle's 30 word ids"):
        Scorer(bundle.update(long), "keras")


def test_refuses_a_network_with_fewer_ids_than_words(make_bundle) -> None:
    made: Bundle = make_bundle()
    models.architecture("tutorial-cnn").build(made.vocabulary.size - 1, made.max_length, 2).save(made.model_file)
    with pytest.raises(SentrayError, match="does not fit the bundle's"):
        Scorer(bundle.update(made), "keras")


def test_refuses_code_hidden_in_a_network(make_bundle, tmp_path: Path) -> None:
    made: Bundle = make_bundle()
    keras.Sequential([keras.Input((40,)), keras.layers.Lambda(lambda ids: ids[:, :1])]).save(made.model_file)
    with pytest.raises(SentrayError, match="cannot load"):
        Scorer(bundle.update(made), "keras")


@pytest.mark.parametrize("engine", ["folded", "keras"])
def test_refuses_a_bundle_that_breaks_its_golden_scores(make_bundle, engine: str) -> None:
    made: Bundle = make_bundle()
    neg, pos = made.golden[0].scores.items()
    moved = {neg[0]: neg[1] - 0.001, pos[0]: pos[1] + 0.001}
    shifted = GoldenText(text=made.golden[0].text, scores=moved)
    with pytest.raises(SentrayError, match=r"differ from its golden texts' by 0\.001"):
        Scorer(bundle.update(made, golden=[shifted]), engine)


@pytest.mark.parametrize("labels", [("neg", "pos"), ("bad", "fine", "good")])
def test_tables_of_16_bits_move_scores_little(make_bundle, make_reviews, labels: tuple[str, ...]) -> None:
    made: Bundle = make_bundle(labels)
    texts = pa.array(make_reviews(200))
    exact, half = (Scorer(made, engine).score(texts).probabilities for engine in ("folded", "folded16"))
    assert 0 < np.abs(exact - half).max() < 1e-3


def test_auto_takes_the_folded_network_where_there_is_one(make_bundle) -> None:
    made: Bundle = make_bundle()
    assert choose("auto", made) == load_engine("auto", made).name == "folded"
    for name in bundle.ENGINE_FILES:
        (made.path / name).unlink()
    bare = bundle.update(made)
    assert choose("auto", bare) == "keras"
    with pytest.raises(SentrayError, match="has no folded network"):
        choose("folded", bare)
    with pytest.raises(SentrayError, match="no engine 'gpu'"):
        choose("gpu", bare)


def test_pads_to_a_few_lengths_where_padding_is_masked(make_bundle, make_reviews) -> None:
    made: Bundle = make_bundle(length=300)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(made.vocabulary.size, 8, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.save(made.model_file)
    engine = KerasEngine(bundle.update(made, golden=[]))
    texts = [*make_reviews(40), " ".join(["good bad film"] * 90)]
    encoded = Encoder(made.rules, made.vocabulary).encode(pa.array(texts))
    wanted = model.predict(pad(encoded, range(len(texts)), 300), verbose=0)
    np.testing.assert_allclose(engine.scores(encoded)[:, 1:], wanted, atol=1e-6)
    assert sorted(engine._networks) == [38, 75, 150, 300]
