"""Vectors by counting: against the definition, spelt out with NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.embeddings import ppmi

WORDS = 6


def packed(reviews: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([word for review in reviews for word in review], np.int32)
    return ids, np.concatenate([[0], np.cumsum([len(review) for review in reviews])]).astype(np.int64)


def defined(reviews: list[list[int]]) -> np.ndarray:
    """Positive pointwise mutual information with smoothed contexts, word by word."""
    near = np.zeros((WORDS, WORDS))
    for review in reviews:
        for at, word in enumerate(review):
            for other in range(max(at - ppmi.WINDOW, 0), min(at + ppmi.WINDOW + 1, len(review))):
                if other != at and word >= 0 and review[other] >= 0:
                    near[word, review[other]] += 1
    rows = near.sum(axis=1)
    contexts = rows**ppmi.SMOOTHING
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(near / np.outer(rows, contexts / contexts.sum()))
        return np.maximum(np.log(ratio), 0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(-1, WORDS - 1), max_size=30), min_size=1, max_size=4))
def test_information_is_as_defined(reviews: list[list[int]]) -> None:
    found = ppmi.information(*packed(reviews), WORDS)
    np.testing.assert_allclose(found.toarray(), defined(reviews), atol=1e-6)
    assert (found.data > 0).all()


def topics() -> tuple[np.ndarray, np.ndarray]:
    """Reviews of words 1 to 10 and others of 11 to 20; word 21 occurs once."""
    generator = np.random.default_rng(0)
    reviews = [(generator.integers(1, 11, 12) + 10 * (number % 2)).tolist() for number in range(60)]
    reviews[0].append(21)
    return packed(reviews)


def test_words_of_one_topic_are_close() -> None:
    learnt = ppmi.learn(*topics(), 22, 8)
    directions = learnt.vectors[1:21] / np.linalg.norm(learnt.vectors[1:21], axis=1, keepdims=True)
    close = directions @ directions.T
    assert close[:10, :10].mean() > 0.3 > -0.3 > close[:10, 10:].mean()
    assert (learnt.words, learnt.reviews, learnt.sampled) == (20, 60, False)
    assert not learnt.vectors[0].any()
    assert 0 < np.abs(learnt.vectors[21]).max() < 0.1


def test_vectors_are_centred_and_of_one_scale() -> None:
    ids, offsets = topics()
    vectors = ppmi.learn(ids, offsets, 22, 8).vectors
    counts = np.bincount(ids, minlength=22)[1:21]
    np.testing.assert_allclose(counts @ vectors[1:21] / counts.sum(), 0, atol=1e-6)
    np.testing.assert_allclose(vectors[1:21].std(), ppmi.SCALE, rtol=1e-6)


def test_the_same_seed_gives_the_same_vectors_and_a_large_corpus_is_sampled() -> None:
    ids, offsets = topics()
    first, again = (ppmi.learn(ids, offsets, 22, 8, max_tokens=300, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert first.sampled
    assert first.reviews == 24


def test_a_corpus_of_few_words_fills_what_it_can() -> None:
    learnt = ppmi.learn(*packed([[1, 2, 1, 2], [2, 1]]), 4, 16)
    assert learnt.vectors.shape == (4, 16)
    assert np.isfinite(learnt.vectors).all()
    assert np.isfinite(ppmi.learn(*packed([[1], [], [2]]), 4, 16).vectors).all()
