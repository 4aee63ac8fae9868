"""Coverage, and the embedding matrix under each policy."""

import json

import numpy as np
import pytest

from sentray.embeddings.matrix import SHOWN_MISSING, centred, coverage, embedding_matrix
from sentray.embeddings.vectors import Vectors
from sentray.errors import SentrayError

WORDS = ["film", "plot", "cast", "wit"]
COUNTS = {"film": 60, "plot": 30, "cast": 9, "wit": 1}
VECTORS = Vectors(["wit", "other", "film"], np.array([[3, 4], [9, 9], [0, 1]], np.float32))


def test_counts_words_and_tokens() -> None:
    found = coverage(WORDS, COUNTS, VECTORS)
    assert (found.words, found.words_found, found.tokens, found.tokens_found) == (4, 2, 100, 61)
    assert found.missing == (("plot", 30), ("cast", 9))
    assert found.norms == (1.0, 3.0, 5.0)
    assert json.loads(json.dumps(found.to_dict()))["missing"] == [["plot", 30], ["cast", 9]]
    assert found.lines() == [
        "words with a vector: 2 of 4 (50.0%), of their occurrences 61.0%",
        "norm of a vector: 3.00 on average, 1.00 to 5.00",
        "2 words without a vector, the commonest: plot 30, cast 9",
    ]


def test_names_the_commonest_words_without_a_vector_and_not_all() -> None:
    words = [f"w{index:02}" for index in range(40)] + ["wit"]
    counts = {word: index for index, word in enumerate(words)}
    missing = coverage(words, counts, VECTORS).missing
    assert missing == tuple((f"w{index}", index) for index in range(39, 39 - SHOWN_MISSING, -1))


def test_a_full_coverage_names_none_and_counts_may_lack() -> None:
    found = coverage(["wit"], {}, VECTORS)
    assert (found.missing, found.tokens, len(found.lines())) == ((), 0, 2)


@pytest.mark.parametrize("oov", ["zero", "random", "mean"])
def test_places_each_vector_at_its_word(oov: str) -> None:
    matrix = embedding_matrix(WORDS, 6, VECTORS, oov, seed=0)  # type: ignore[arg-type]
    assert matrix.dtype == np.float32
    assert matrix.shape == (6, 2)
    assert matrix[[0, 1, 4]].tolist() == [[0, 0], [0, 1], [3, 4]]


def test_zero_and_mean() -> None:
    assert embedding_matrix(WORDS, 6, VECTORS, "zero", 0)[[2, 3, 5]].tolist() == [[0, 0]] * 3
    assert embedding_matrix(WORDS, 6, VECTORS, "mean", 0)[[2, 3, 5]].tolist() == [[1.5, 2.5]] * 3


def test_random_has_the_scale_of_the_vectors_found() -> None:
    drawn = np.random.default_rng(1).normal([5, -1, 0], [0.1, 2, 0], (500, 3)).astype(np.float32)
    words = [f"w{index}" for index in range(20_000)]
    vectors = Vectors(words[:500], drawn)
    matrix = embedding_matrix(words, 20_001, vectors, "random", seed=3)
    assert np.abs(matrix[501:].mean(axis=0) - drawn.mean(axis=0)).max() < 0.1
    assert np.abs(matrix[501:].std(axis=0) - drawn.std(axis=0)).max() < 0.1
    assert (matrix[1:501] == drawn).all()
    assert (matrix == embedding_matrix(words, 20_001, vectors, "random", seed=3)).all()
    assert (matrix[501:] != embedding_matrix(words, 20_001, vectors, "random", seed=4)[501:])[:, :2].all()


@pytest.mark.parametrize("vectors", [VECTORS, Vectors([], np.zeros((0, 2), np.float32))])
def test_no_word_found_is_a_mistake(vectors: Vectors) -> None:
    with pytest.raises(SentrayError, match=r"^none of the vocabulary's 1 word has a vector: .*--lowercase"):
        coverage(["Film"], {"Film": 3}, vectors)
    with pytest.raises(SentrayError, match="none of the vocabulary"):
        embedding_matrix(["Film"], 2, vectors, "mean", 0)


def test_centred_vectors_have_a_mean_of_nothing() -> None:
    vectors = Vectors(["a", "b", "c"], np.array([[1, 0], [0, 1], [4, 4]], np.float32))
    counts = {"a": 3, "b": 1}
    moved = centred(vectors, counts)
    assert moved.words == vectors.words
    np.testing.assert_allclose(3 * moved.rows[0] + moved.rows[1], 0, atol=1e-6)
    np.testing.assert_allclose(moved.rows[2], [3.25, 3.75])
    np.testing.assert_array_equal(centred(vectors, {}).rows, vectors.rows)
