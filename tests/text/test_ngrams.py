"""The compiled n-grams equal the plain-Python reference, in tables of any filling, and are called what they are."""

import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.text import ngrams
from sentray.text.ngrams import (
    CHARACTERS,
    GramRows,
    Grams,
    GramSpec,
    character_grams,
    character_key,
    key,
    make_table,
    parts,
    require_table,
    word_grams,
)
from sentray.text.vocabulary import Vocabulary

WORDS = Vocabulary(["good", "not", "so", "na\u00efve", "a", "\U0001d49c!", "goo", "it's"])
REVIEWS = st.lists(st.lists(st.integers(1, 8), max_size=80), max_size=6)
SPECS = st.builds(GramSpec, max_n=st.integers(1, 3), skip=st.booleans(), characters=st.booleans())


def flat(reviews: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([word for review in reviews for word in review], np.int32)
    return ids, np.cumsum([0, *map(len, reviews)]).astype(np.int64)


def reference(review: list[int], spec: GramSpec) -> tuple[list[int], list[int]]:
    """A review's grams of words and of characters, by their keys."""
    spelt = [character_key(gram) for word in review for gram in character_grams(WORDS.words[word - 1])]
    return word_grams(review, spec), list(dict.fromkeys(spelt)) if spec.characters else []


def known(reviews: list[list[int]], spec: GramSpec, least: int) -> list[int]:
    """Keys that so many reviews have, the most frequent first."""
    counts = Counter(gram for review in reviews for grams in reference(review, spec) for gram in grams)
    return sorted((gram for gram in counts if counts[gram] >= least), key=lambda gram: (-counts[gram], gram))


def rows(found: GramRows) -> list[list[int]]:
    return [part.tolist() for part in np.split(found.rows, found.offsets[1:-1])] if len(found.offsets) > 1 else []


@settings(deadline=None, max_examples=50)
@given(REVIEWS, REVIEWS, SPECS, st.integers(1, 3), st.integers(0, 60))
def test_grams_equal_the_reference(
    learnt: list[list[int]], reviews: list[list[int]], spec: GramSpec, least: int, most: int
) -> None:
    keys = known(learnt, spec, least)[:most]
    grams = Grams(spec, make_table(np.array(keys, np.uint64)), WORDS)
    found = grams.of(*flat(reviews))
    assert (found.rows.dtype, found.offsets.dtype, found.values.dtype) == ("int32", "int64", "float32")
    for review, of_review, end in zip(reviews, rows(found), found.offsets[1:], strict=True):
        of_words, of_characters = (
            [gram for gram in of_kind if gram in set(keys)] for of_kind in reference(review, spec)
        )
        assert grams.table[np.array(of_review, np.int64) - 1].tolist() == of_words + of_characters
        scales = (10, of_words), (5, of_characters)
        values = [scale / len(kind) ** 0.5 for scale, kind in scales for _ in kind]
        np.testing.assert_allclose(found.values[end - len(of_review) : end], values, rtol=1e-6)


@settings(deadline=None)
@given(st.sets(st.integers(1, 2**64 - 1), max_size=300), st.lists(st.integers(1, 2**64 - 1)))
def test_a_table_has_its_keys_and_no_others(keys: set[int], others: list[int]) -> None:
    table = make_table(np.array(sorted(keys), np.uint64))
    assert sorted(table[table > 0].tolist()) == sorted(keys)
    wanted = [*keys, *others]
    found = Grams(GramSpec(), table, None).find(np.array(wanted, np.uint64)).tolist()
    assert [int(table[row - 1]) if row else 0 for row in found] == [gram if gram in keys else 0 for gram in wanted]
    require_table(table.tobytes())


def test_a_full_line_goes_on_in_the_next_and_behind_the_last_in_the_first() -> None:
    keys = np.arange(1, 1000, dtype=np.uint64)
    table = make_table(keys)
    table[-8:] = 2**63 + np.arange(8, dtype=np.uint64)
    rest = np.setdiff1d(keys, table)
    ngrams._insert(keys, table)
    assert len(rest)
    assert Grams(GramSpec(), table, None).find(keys).all()


@given(st.lists(st.integers(1, 2**21 - 1), min_size=1, max_size=3), st.data())
def test_a_review_that_has_a_gram_has_its_parts(ids: list[int], data: st.DataObject) -> None:
    for gram in word_grams(ids, GramSpec()):
        assert set(parts(gram)) < set(word_grams(ids, GramSpec()))
        # So that a table stays closed where grams as frequent are left out by their key.
        assert all(part < gram for part in parts(gram))


@settings(deadline=None, max_examples=50)
@given(REVIEWS, REVIEWS, st.integers(1, 3))
def test_grams_of_some_of_the_reviews(some: list[list[int]], others: list[list[int]], least: int) -> None:
    spec, learnt = GramSpec(characters=True), [*some, *others]
    keys = np.array(known(learnt, spec, 1), np.uint64)
    grams, wanted = Grams(spec, make_table(keys), WORDS), known(some, spec, least)
    kept = np.zeros(grams.rows, np.bool_)
    kept[grams.find(np.array(wanted, np.uint64))] = True
    fewer = grams.only(kept)
    alone = Grams(spec, make_table(np.array(wanted, np.uint64)), WORDS)
    assert fewer.known == len(wanted)
    found, same = fewer.of(*flat(learnt)), alone.of(*flat(learnt))
    assert fewer.table[found.rows - 1].tolist() == alone.table[same.rows - 1].tolist()
    assert grams.table[found.rows - 1].tolist() == alone.table[same.rows - 1].tolist()
    np.testing.assert_array_equal(found.values, same.values)


def test_texts_of_grams() -> None:
    spec = GramSpec(characters=True)
    keys = [key(1), key(2, 3), key(2, 0, 1), key(2, 3, 1), key(9), *map(character_key, ("<goo", "\u00efve>"))]
    grams = Grams(spec, make_table(np.array(keys, np.uint64)), WORDS)
    texts = grams.gram_texts(grams.find(np.array(keys, np.uint64)).tolist())
    assert texts == ["good", "not so", "not _ good", "not so good", "[9]", "<goo", "\u00efve>"]
    assert (grams.known, grams.rows) == (7, len(grams.table) + 1)
    assert all(gram & CHARACTERS for gram in keys[-2:])
    assert grams.samples() == ["not so good"]


def test_threads_share_grams() -> None:
    reviews = np.random.default_rng(0).integers(1, 9, (200, 40)).tolist()
    grams = Grams(GramSpec(), make_table(np.array(known(reviews, GramSpec(), 2), np.uint64)), WORDS)
    wanted, found = grams.of(*flat(reviews)), [None] * 4

    def work(number: int) -> None:
        found[number] = grams.of(*flat(reviews))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(each.rows, wanted.rows) for each in found)


@pytest.mark.parametrize("content", [b"", bytes(60), bytes([1]) * 640])
def test_what_is_no_table(content: bytes) -> None:
    with pytest.raises(ValueError, match="table of n-grams"):
        require_table(content)
