"""Grams are counted as the plain-Python reference does, whatever the partitions and the order."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.text.ngrams import GramSpec, character_grams, character_key, word_grams
from sentray.text.vocabulary import Vocabulary
from sentray.training import gram_counts
from sentray.training.gram_counts import Counting, least_reviews, most_frequent, partitions
from sentray.training.training_set import IDS_FILE

WORDS = Vocabulary(["good", "not", "so", "na\u00efve", "a", "\U0001d49c!", "goo", "it's"])
REVIEWS = st.lists(st.lists(st.integers(1, 8), max_size=30), max_size=20)
SPECS = st.builds(GramSpec, max_n=st.integers(1, 3), skip=st.booleans(), characters=st.booleans())


def counted(reviews: list[list[int]], folder: Path, counting: Counting) -> gram_counts.Counted:
    offsets = np.cumsum([0, *map(len, reviews)]).astype(np.int64)
    np.array([word for review in reviews for word in review], np.int32).tofile(folder / IDS_FILE)
    parts = [gram_counts.count_partition(counting, offsets, part) for part in range(counting.partitions)]
    keys, counts = (np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "counts"))
    distinct, frequent = sum(part.distinct for part in parts), sum(part.frequent for part in parts)
    return gram_counts.Counted(*most_frequent(keys, counts, counting.max_grams), distinct, frequent)


@settings(deadline=None, max_examples=50)
@given(REVIEWS, SPECS, st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 30), st.booleans())
def test_counts_equal_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    reviews: list[list[int]],
    spec: GramSpec,
    least: int,
    most: int,
    parts: int,
    length: int,
    keeps_end: bool,
) -> None:
    truncating = "pre" if keeps_end else "post"
    folder = tmp_path_factory.getbasetemp()
    found = counted(reviews, folder, Counting(str(folder), spec, WORDS, length, truncating, least, most, parts))
    wanted = Counter[int]()
    for review in reviews:
        seen = review[-length:] if keeps_end else review[:length]
        spelt = {character_key(gram) for word in seen for gram in character_grams(WORDS.words[word - 1])}
        wanted.update({*word_grams(seen, spec), *(spelt if spec.characters else ())})
    frequent = sorted((gram for gram in wanted if wanted[gram] >= least), key=lambda gram: (-wanted[gram], gram))
    assert (found.distinct, found.frequent) == (len(wanted), len(frequent))
    assert found.keys.tolist() == frequent[:most]
    assert found.counts.tolist() == [wanted[gram] for gram in frequent[:most]]


def test_a_table_grows_and_reviews_lie_in_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram_counts, "_PIECE", 5000)
    reviews = np.random.default_rng(0).integers(1, 30_000, (1000, 60)).tolist()
    found = counted(reviews, tmp_path, Counting(str(tmp_path), GramSpec(), None, 60, "pre", 1, 10**6, 2))
    wanted = Counter(gram for review in reviews for gram in word_grams(review, GramSpec()))
    assert dict(zip(found.keys.tolist(), found.counts.tolist(), strict=True)) == wanted
    assert len(wanted) > 1 << 16


@pytest.mark.parametrize(
    ("words", "least"), [(0, 2), (213_000, 2), (1_400_000, 2), (3_000_000, 3), (6_000_000, 5), (10**9, 5)]
)
def test_the_least_reviews_of_a_gram(words: int, least: int) -> None:
    assert least_reviews(words) == least


@pytest.mark.parametrize(
    ("words", "cpus", "wanted"), [(0, 8, 1), (6_000_000, 2, 2), (6_000_000, 8, 8), (2 * 10**8, 2, 48)]
)
def test_partitions(words: int, cpus: int, wanted: int) -> None:
    assert partitions(words, cpus) == wanted
