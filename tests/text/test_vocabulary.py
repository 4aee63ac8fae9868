import pickle
from collections import Counter
from pathlib import Path

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


def test_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["naïve", "a", "#", "\ufeffb"])
    vocabulary.save(tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_bytes() == "naïve\na\n#\n\ufeffb\n".encode()
    assert Vocabulary.load(tmp_path / "v.txt") == vocabulary


@pytest.mark.parametrize(
    ("content", "position"),
    [
        (b"", "line 1"),
        (b"\n", "line 1"),
        (b"a\n\nb\n", "line 2"),
        (b"a\nb c\n", "line 2"),
        (b"a\r\nb\r\n", "line 1"),
        (b"a\nb\na\n", "line 3"),
        ("a\nb\x85c\n".encode(), "line 2"),
        (b"a\n\xff\n", "byte 3"),
    ],
)
def test_damaged_file(tmp_path: Path, content: bytes, position: str) -> None:
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    with pytest.raises(SentrayError, match=f"v.txt is damaged: {position}"):
        Vocabulary.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match="can't be read"):
        Vocabulary.load(tmp_path / "none.txt")


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
