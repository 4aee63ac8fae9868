import contextlib
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import nltk_data
from sentray.text.cleaning import clean, preset
from sentray.text.encoding import Encoded, Encoder, cut_all, pad
from sentray.text.vocabulary import Vocabulary, count_words

RULES, _ = preset("reviews", stop_words="sentray:english")
TEXTS = st.lists(st.none() | st.text("abcdé '.\n<>\x85\U0001d49c") | st.just("the a of"))
KNOWN = ["a", "b", "ab", "é", "cc", "\U0001d49c"]


def encoded(lengths: list[int]) -> Encoded:
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    size = np.array(lengths, np.int32)
    return Encoded(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets, size + 1, size, size + 1)


def rows(given: Encoded) -> list[list[int]]:
    return [given.ids[start:stop].tolist() for start, stop in zip(given.offsets, given.offsets[1:], strict=False)]


@pytest.mark.parametrize("unknown", ["drop", "share"])
@settings(deadline=None)
@given(texts=TEXTS)
def test_encode_equals_the_reference(unknown: str, texts: list[str | None]) -> None:
    vocabulary = Vocabulary(KNOWN, unknown)
    got = Encoder(RULES, vocabulary).encode(pa.array(texts, pa.string()))
    words = [clean(text or "", RULES) for text in texts]
    other = len(KNOWN) + 1
    ids = [[KNOWN.index(word) + 1 if word in KNOWN else other for word in row] for row in words]
    known = [[i for i in row if i < other] for row in ids]
    assert rows(got) == (ids if unknown == "share" else known)
    assert got.words.tolist() == [len(row) for row in words]
    assert got.known.tolist() == [len(row) for row in known]
    assert got.lengths.tolist() == np.diff(got.offsets).tolist()
    assert (got.ids.dtype, got.offsets.dtype, got.words.dtype, got.known.dtype) == (
        "int32",
        "int64",
        "int32",
        "int32",
    )


@settings(deadline=None)
@given(TEXTS, st.integers(0, 5), st.integers(0, 5))
def test_sliced_and_chunked_texts(texts: list[str | None], start: int, cut: int) -> None:
    vocabulary = Vocabulary(KNOWN)
    column = pa.array(texts, pa.large_string())[start:]
    whole = Encoder(RULES, vocabulary).encode(pa.array(texts[start:], pa.string()))
    for other in (column, pa.chunked_array([column[:cut], column[cut:]])):
        assert rows(Encoder(RULES, vocabulary).encode(other)) == rows(whole)


def test_no_texts() -> None:
    got = Encoder(RULES, Vocabulary(KNOWN)).encode(pa.array([], pa.string()))
    assert len(got) == 0
    assert got.offsets.tolist() == [0]
    assert pad(got, [], 3).shape == (0, 3)


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1), st.integers(0, 5), st.sampled_from(["pre", "post"]), st.data())
def test_pad_equals_the_reference(lengths: list[int], length: int, truncating: str, data: st.DataObject) -> None:
    whole = encoded(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1)))
    wanted = np.zeros((len(chosen), length), np.int32)
    for row, ids in zip(wanted, (rows(whole)[i] for i in chosen), strict=True):
        cut = ids[:length] if truncating == "post" else ids[max(len(ids) - length, 0) :]
        row[: len(cut)] = cut
    got = pad(whole, np.array(chosen, dtype=np.int64), length, truncating)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, wanted)
    ids, offsets = cut_all(whole, length, truncating)
    pieces = np.split(ids, offsets[1:-1])
    everything = pad(whole, range(len(lengths)), length, truncating)
    assert [piece.tolist() for piece in pieces] == [row[row > 0].tolist() for row in everything]


@pytest.mark.usefixtures("nltk_polarity")
def test_real_corpus_figures() -> None:
    found = nltk_data.find("corpora/movie_reviews")
    assert found is not None
    with zipfile.ZipFile(found) if found.suffix == ".zip" else contextlib.nullcontext() as archive:
        folder = zipfile.Path(archive, "movie_reviews/") if archive else found
        files = [file for label in ("neg", "pos") for file in (folder / label).iterdir()]
        texts = pa.array([file.read_text("utf-8") for file in files if "cv000" <= file.name < "cv900"])
    rules, note = preset("tutorial")
    if note is not None:
        pytest.skip(note)
    counts = count_words(texts, rules)
    vocabulary = Vocabulary.from_counts(counts, min_count=2)
    got = Encoder(rules, vocabulary).encode(texts)
    assert len(texts) == 1800
    assert len(counts) == 44_276
    assert len(vocabulary) == 25_767
    assert got.words.sum() == counts.total() == 631_098
    assert got.known.sum() == len(got.ids) == 612_589
    assert got.lengths.max() == 1317
    assert got.words.max() == 1380
