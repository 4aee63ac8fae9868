import pickle
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.errors import SentrayError
from sentray.text.cleaning import clean, preset
from sentray.text.vocabulary import Vocabulary, count_words

WORDS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda w: w.split() == [w]), unique=True)


def test_order_is_by_count_then_alphabet() -> None:
    counts = {"zoo": 3, "ant": 2, "bee": 2, "Cat": 2, "once": 1, "all": 9}
    assert Vocabulary.from_counts(counts, 2).words == ["all", "zoo", "Cat", "ant", "bee"]
    assert Vocabulary.from_counts(counts, 2, 3).words == ["all", "zoo", "Cat"]


def test_ids_and_size() -> None:
    drop, share = Vocabulary(["b", "a"]), Vocabulary(["b", "a"], "share")
    assert drop.ids == {"b": 1, "a": 2}
    assert (len(drop), drop.size, share.size, share.unknown_id) == (2, 3, 4, 3)
    assert drop != share
    assert drop == Vocabulary(["b", "a"])


def test_no_word_left() -> None:
    with pytest.raises(SentrayError, match="--min-count"):
        Vocabulary.from_counts({"one": 1}, 2)


@settings(deadline=None)
@given(WORDS.filter(bool), st.sampled_from(["drop", "share"]))
def test_text_and_pickle_give_it_back(words: list[str], unknown: str) -> None:
    vocabulary = Vocabulary(words, unknown)
    assert Vocabulary.from_text(vocabulary.to_text(), unknown) == vocabulary
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary


def test_an_empty_vocabulary_pickles() -> None:
    assert pickle.loads(pickle.dumps(Vocabulary([]))).words == []


def test_text_is_a_word_a_line() -> None:
    vocabulary = Vocabulary(["naïve", "a", "#", "\ufeffb"])
    assert vocabulary.to_text() == "naïve\na\n#\n\ufeffb\n"
    assert Vocabulary.from_text(vocabulary.to_text()) == vocabulary


@pytest.mark.parametrize(
    ("text", "line"),
    [("", 1), ("\n", 1), ("a\n\nb\n", 2), ("a\nb c\n", 2), ("a\r\nb\r\n", 1), ("a\nb\na\n", 3), ("a\nb\x85c\n", 2)],
)
def test_damaged_text(text: str, line: int) -> None:
    with pytest.raises(SentrayError, match=f"vocabulary.txt is damaged: line {line}"):
        Vocabulary.from_text(text)


@settings(deadline=None)
@given(st.lists(st.none() | st.text("aAb'. \n&<>é½\x85")), st.sampled_from(["tutorial", "reviews"]))
def test_counts_equal_the_reference(texts: list[str | None], name: str) -> None:
    rules, _ = preset(name, stop_words="sentray:english")
    wanted = Counter(word for text in texts for word in clean(text or "", rules))
    column = pa.array(texts, pa.large_string())
    assert count_words(column, rules) == wanted
    half = len(texts) // 2
    chunked = pa.chunked_array([column[:half].cast(pa.string()), column[half:].cast(pa.string())])
    assert count_words(chunked, rules) == wanted
