"""Hashed words: a hash that never changes, the compiled code equal to it, and honest counts of what shares a bucket."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.text.cleaning import CleaningRules, clean, preset
from sentray.text.encoding import Encoder
from sentray.text.hashing import MAX_BUCKETS, HashedWords, word_code

RULES, _ = preset("reviews")
PINNED = {
    "a": 428_715_933,
    "good": 1_822_513_510,
    "bad": 1_467_201_978,
    "film": 1_275_602_084,
    "don": 1_332_901_712,
    "na\u00efve": 153_340_742,
    "\u4e2d\u6587": 1_514_544_255,
    "\u00df": 2_136_835_052,
    "averyveryverylongwordofmorethansixteenbytes": 1_004_822_697,
    "42": 1_409_396_355,
}


def test_the_finaliser_is_that_of_murmurhash3() -> None:
    # Its `fmix64`, step by step, of a word of eight bytes.
    number = int.from_bytes(b"eightbit", "little") ^ 8
    number ^= number >> 33
    number = number * 0xFF51AFD7ED558CCD % 2**64
    number ^= number >> 33
    number = number * 0xC4CEB9FE1A85EC53 % 2**64
    number ^= number >> 33
    assert word_code("eightbit") == number >> 33


def test_the_hash_never_changes() -> None:
    # Bundles hold these ids: a change here makes every one of them wrong.
    codes = {word: word_code(word) for word in PINNED}
    assert codes == PINNED
    got = Encoder(RULES, HashedWords(MAX_BUCKETS)).encode(pa.array([" ".join(PINNED)]))
    assert got.ids.tolist() == list(PINNED.values())


def test_codes_are_even() -> None:
    # Of chi squared with 255 degrees of freedom, more than 350 has a chance of one in 10,000.
    codes = np.array([word_code(f"word{number}") for number in range(20_000)], np.int64)
    for bits in (codes & 255, codes >> 23):
        counts = np.bincount(bits, minlength=256)
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 350


@pytest.mark.parametrize("buckets", [1, 2, 50, 65_536, MAX_BUCKETS])
def test_ids_are_those_of_the_reference(buckets: int) -> None:
    words = HashedWords(buckets)
    codes = np.array([1, 2, 49, 50, 51, 65_536, 65_537, MAX_BUCKETS - 1, MAX_BUCKETS], np.int32)
    ids = words.ids_of(codes)
    assert ids.dtype == np.int32
    assert ids.tolist() == [1 + (code - 1) % buckets for code in codes.tolist()]


def test_it_is_a_value() -> None:
    words = HashedWords(50)
    assert (len(words), words.size, words.unknown) == (50, 51, "drop")
    assert words == pickle.loads(pickle.dumps(words)) != HashedWords(51)
    assert all(clean(text, RULES) for text in words.samples())
    for buckets in (0, -1, 2**31):
        with pytest.raises(ValueError, match="number of buckets"):
            HashedWords(buckets)


@settings(deadline=None)
@given(st.lists(st.text()), st.sampled_from([1, 7, 1000, MAX_BUCKETS]))
def test_no_word_is_unknown(texts: list[str], buckets: int) -> None:
    got = Encoder(RULES, HashedWords(buckets)).encode(pa.array(texts, pa.string()))
    assert got.words.tolist() == got.known.tolist() == got.lengths.tolist()
    assert len(got.ids) == 0 or 1 <= got.ids.min() <= got.ids.max() <= buckets


def test_words_longer_than_any_listed() -> None:
    # Longer than the table's longest word, dirty and clean, at the end of memory, grown by lower-casing.
    rules = CleaningRules(
        strip_html=False,
        lowercase=True,
        punctuation="remove",
        alphabetic_only=False,
        stop_words=("a",),
        stop_words_source="none",
        min_token_length=1,
    )
    texts = ["\u023a" * 5_000, "x" * 100_000, "X-" * 70_000, "a", "a a\u023a", "\U00010400" * 3_000 + "!"]
    for column in ([text] for text in texts):
        got = Encoder(rules, HashedWords(1000)).encode(pa.array(column))
        assert got.ids.tolist() == [1 + (word_code(word) - 1) % 1000 for text in column for word in clean(text, rules)]


@pytest.mark.parametrize("words", [0, 1, 7, 1_000, 30_000])
def test_words_are_estimated_from_the_buckets_that_they_fill(words: int) -> None:
    buckets = 10_000
    codes = np.unique(np.random.default_rng(words).integers(1, MAX_BUCKETS, 2 * words + 1, np.int32))[:words]
    _, met = np.unique((codes - 1) % buckets, return_counts=True)
    distinct, sharing = HashedWords(buckets).estimate(len(met))
    # Within five standard errors, as Whang et al. give it for three words a bucket.
    assert abs(distinct - words) <= 0.04 * words
    assert abs(sharing - met[met > 1].sum()) <= 0.05 * words


def test_full_buckets_tell_the_least_that_there_may_be() -> None:
    distinct, sharing = HashedWords(500).estimate(500)
    assert 500 < sharing <= distinct < 5_000
    assert HashedWords(1).estimate(1)[0] == 1
