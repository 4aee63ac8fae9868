"""Writing vectors: what gensim and our reader get back is what was written, bit for bit."""

import re
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from sentray.embeddings.read import read_vectors
from sentray.embeddings.vectors import Vectors, write_vectors
from sentray.errors import SentrayError


def _vectors(*rows: list[float]) -> Vectors:
    return Vectors([f"word{index}" for index in range(len(rows))], np.array(rows, np.float32))


def test_writes_the_shortest_decimals(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    write_vectors(str(file), Vectors(["film", "naïve"], np.array([[0.1, -2], [1e-7, 16777216]], np.float32)))
    assert file.read_text() == "2 2\nfilm 0.1 -2\nnaïve 1e-7 16777216\n"


def test_every_bit_comes_back_also_where_float64_lies_between(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 40_000, np.uint64).astype(np.uint32)
    # The shortest decimal of the first is rounded to its neighbour where it is read as a float64 before.
    bits[:6] = [0x15AE43FD, 0, 0x80000000, 1, 0x007FFFFF, 0x7F7FFFFF]
    numbers = bits.view(np.float32)
    rows = np.where(np.isfinite(numbers), numbers, np.float32(0)).reshape(-1, 8)
    vectors = Vectors([f"w{index}" for index in range(len(rows))], rows)
    file = str(tmp_path / "vectors.txt")
    write_vectors(file, vectors)
    theirs, (ours, _) = KeyedVectors.load_word2vec_format(file), read_vectors(file)
    assert theirs.index_to_key == ours.words == vectors.words
    assert theirs.vectors.tobytes() == ours.rows.tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    ("name", "message"), [("", "an empty name is a folder"), ("new/", "new/ is a folder"), (".", "is a folder")]
)
def test_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SentrayError, match=message):
        write_vectors(name, _vectors([1, 2]))
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_not_replaced_and_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(SentrayError, match="is no regular file"):
        write_vectors(str(tmp_path / "null"), _vectors([1, 2]))
    (tmp_path / "old").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    write_vectors(str(tmp_path / "link"), _vectors([1, 2]))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_text() == "1 2\nword0 1 2\n"


def test_an_uri_is_written_too(tmp_path: Path) -> None:
    write_vectors(f"file://{tmp_path}/new/vectors.txt", _vectors([1, 2]))
    assert (tmp_path / "new" / "vectors.txt").read_text() == "1 2\nword0 1 2\n"


@pytest.mark.parametrize("word", ["", "two words", "a\tb", "a\nb", "a\r"])
def test_refuses_words_that_the_format_cannot_hold(tmp_path: Path, word: str) -> None:
    with pytest.raises(SentrayError, match=re.escape(repr(word))):
        write_vectors(str(tmp_path / "vectors.txt"), Vectors([word], np.ones((1, 1), np.float32)))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, number: float) -> None:
    file = tmp_path / "vectors.txt"
    write_vectors(str(file), _vectors([1, 2]))
    with pytest.raises(SentrayError, match="word1"):
        write_vectors(str(file), _vectors([1, 2], [3, number]))
    assert file.read_text() == "1 2\nword0 1 2\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_vectors(str(tmp_path / "vectors.txt"), Vectors(["\ud800"], np.ones((1, 1), np.float32)))
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SentrayError, match="cannot be written"):
        write_vectors(str(tmp_path / "taken" / "vectors.txt"), _vectors([1]))
    with pytest.raises(SentrayError, match="cannot be opened"):
        write_vectors("nosuch://vectors.txt", _vectors([1]))
    with pytest.raises(SentrayError, match="names no"):
        write_vectors("s3://bucket?region=us-east-1", _vectors([1]))
    with pytest.raises(SentrayError, match="is a folder"):
        write_vectors(f"file://{tmp_path}", _vectors([1]))
