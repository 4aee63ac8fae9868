"""What reviews look like in bins: each review is in one, and rare words are those that other reviews lack."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import profile

TEXTS = st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=8)


def test_each_review_is_in_the_bin_that_begins_at_it() -> None:
    words, known = np.array([0, 1, 2, 4, 5, 9_999, 10_000, 99_999]), np.array([0, 0, 1, 3, 5, 9_400, 9_500, 99_999])
    assert profile.of_lengths(words).tolist() == [1, 1, 1, 0, 2, *[0] * 19, 3]
    # Shares 0, 0, 0.5, 0.75, 1, 0.94, 0.95, 1.
    assert profile.of_known(words, known).tolist() == [2, 1, 1, 0, 1, 1, 2]
    two = profile.of_scores(np.array([[1, 0], [0.5, 0.5], [0, 1]], np.float32))
    assert (two[0], two[10], two[19]) == (1, 1, 1)
    assert np.flatnonzero(profile.of_scores(np.array([[0.2, 0.3, 0.5]], np.float32))).tolist() == [10]
    assert profile.of_labels(np.array([1, -1, 1, 0]), 3).tolist() == [1, 2, 0]


def test_one_word_in_some_is_counted_and_those_that_are_not_common_together() -> None:
    ids = np.zeros(5 * profile.EVERY, np.int32)
    ids[:: profile.EVERY] = [1, 2, 2, profile.COMMONEST, profile.COMMONEST + 1]
    found = profile.of_words(ids)
    assert (found[0], found[1], found[2], found[profile.COMMONEST], found.sum()) == (1, 1, 2, 1, 5)
    assert profile.of_words(ids[:0]).tolist() == [0] * (profile.COMMONEST + 1)


@pytest.mark.parametrize("least", [1, 2, 3])
@settings(max_examples=60)
@given(texts=TEXTS)
def test_a_word_is_strange_that_a_vocabulary_of_the_others_lacks(least: int, texts: list[list[int]]) -> None:
    total = Counter(word for text in texts for word in text)
    known = [[word for word in text if total[word] >= least] for text in texts]
    wanted = [sum(total[word] - text.count(word) < least for word in text) for text in known]
    counts = np.array([np.iinfo(np.int32).max, *(total[word] for word in range(1, 7))], np.int32)
    offsets = np.cumsum([0, *map(len, known)])
    ids = np.array([word for text in known for word in text], np.int32)
    assert profile.strange_to_others(ids, offsets, counts, least).tolist() == wanted
