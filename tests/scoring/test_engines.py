"""The Keras engine gives what plain Keras gives, and the same bits in any company."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sentray import bundle
from sentray.bundle import Bundle, GoldenText
from sentray.errors import SentrayError
from sentray.scoring.engines import BATCH, KerasEngine, load_engine
from sentray.scoring.scorer import Scorer
from sentray.text.encoding import encode, pad

keras = pytest.importorskip("keras")


@pytest.mark.parametrize("labels", [("neg", "pos"), ("bad", "fine", "good")])
def test_gives_what_plain_keras_gives(make_bundle, make_reviews, labels: tuple[str, ...]) -> None:
    made: Bundle = make_bundle(labels)
    encoded = encode(pa.array(make_reviews(70)), made.rules, made.vocabulary)
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


def test_a_score_has_the_same_bits_alone_and_in_company(small_bundle: Bundle, make_reviews) -> None:
    scorer = Scorer(small_bundle)
    texts = pa.array(make_reviews(2 * BATCH + 5, seed=3))
    together = scorer.score(texts).probabilities
    backwards = scorer.score(texts.take(pa.array(range(len(texts) - 1, -1, -1)))).probabilities[::-1]
    alone = np.concatenate([scorer.score(texts.slice(row, 1)).probabilities for row in range(len(texts))])
    assert len(np.unique(together)) > len(texts)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, backwards)


def test_no_reviews_and_reviews_without_words(small_bundle: Bundle) -> None:
    scorer = Scorer(small_bundle)
    assert scorer.score(pa.array([], pa.string())).probabilities.shape == (0, 2)
    scores = scorer.score(pa.array(["", None, "zebra", "zebra good"], pa.large_string()))
    assert scores.words.tolist() == [0, 0, 1, 2]
    assert scores.known.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(scores.probabilities[0], scores.probabilities[1])


def test_refuses_what_is_no_network(make_bundle) -> None:
    made: Bundle = make_bundle()
    made.model_file.write_bytes(b"not a zip file")
    with pytest.raises(SentrayError, match=r"cannot load .*model\.keras") as error:
        Scorer(bundle.update(made))
    assert "\n" not in str(error.value)


def test_refuses_a_network_of_another_shape(make_bundle) -> None:
    short, long = make_bundle(length=20), make_bundle(length=30)
    long.model_file.write_bytes(short.model_file.read_bytes())
    with pytest.raises(SentrayError, match="does not fit the bundle's 30 word ids"):
        Scorer(bundle.update(long))


def test_refuses_code_hidden_in_a_network(make_bundle, tmp_path: Path) -> None:
    made: Bundle = make_bundle()
    keras.Sequential([keras.Input((40,)), keras.layers.Lambda(lambda ids: ids[:, :1])]).save(made.model_file)
    with pytest.raises(SentrayError, match="cannot load"):
        Scorer(bundle.update(made))


def test_refuses_a_bundle_that_breaks_its_golden_scores(make_bundle) -> None:
    made: Bundle = make_bundle()
    neg, pos = made.golden[0].scores.items()
    moved = {neg[0]: neg[1] - 0.001, pos[0]: pos[1] + 0.001}
    shifted = GoldenText(text=made.golden[0].text, scores=moved)
    with pytest.raises(SentrayError, match=r"differ from its golden texts' by 0\.001"):
        Scorer(bundle.update(made, golden=[shifted]))


def test_names_the_engines_there_are(small_bundle: Bundle) -> None:
    assert load_engine("auto", small_bundle).name == "keras"
    with pytest.raises(SentrayError, match="no engine 'gpu'"):
        load_engine("gpu", small_bundle)
