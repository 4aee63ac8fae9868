"""Good files of word vectors: every format, the same vectors as gensim has, the words that are wanted."""

import itertools
import logging
import string
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sentray.embeddings import read
from sentray.embeddings.read import read_vectors
from sentray.embeddings.vectors import Vectors, write_vectors
from sentray.errors import SentrayError

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
WORD = st.text(st.characters(codec="utf-8", exclude_characters=" \t\n\v\f\r"), min_size=1, max_size=20)

logging.getLogger("gensim").setLevel(logging.ERROR)


@st.composite
def vectors(draw: st.DrawFn, words: st.SearchStrategy[str] = WORD) -> Vectors:
    names = draw(st.lists(words, min_size=1, max_size=8, unique=True))
    return Vectors(names, draw(hnp.arrays(np.float32, (len(names), draw(st.integers(1, 70))), elements=FINITE)))


def same(ours: Vectors, words: list[str], rows: np.ndarray) -> bool:
    return ours.words == words and ours.rows.dtype == np.float32 and ours.rows.tobytes() == rows.tobytes()


def binary(vectors: Vectors, end: bytes = b"") -> bytes:
    rows = [word.encode() + b" " + row.tobytes() + end for word, row in zip(vectors.words, vectors.rows, strict=True)]
    return b"%d %d\n" % vectors.rows.shape + b"".join(rows)


GOOD = {
    "crime-and-punishment.vec": ("word2vec text", 291, 5, 0),
    "dupped.glove": ("GloVe", 4, 20, 1),
    "dupped.w2v": ("word2vec binary", 4, 20, 1),
    "dupped.w2v.txt": ("word2vec text", 4, 20, 1),
    "euclidean_vectors.bin": ("word2vec binary", 2747, 10, 0),
    "glove.txt": ("GloVe", 15, 20, 0),
    "high_precision.kv.bin": ("word2vec binary", 2, 2, 0),
    "high_precision.kv.txt": ("word2vec text", 2, 2, 0),
    "test_glove.txt": ("GloVe", 76, 50, 0),
    "w2v.bin": ("word2vec binary", 15, 20, 0),
    "w2v.txt": ("word2vec text", 15, 20, 0),
    "../glove.6B.50d.subset.txt": ("GloVe", 16_104, 50, 0),
}


@pytest.mark.parametrize("name", GOOD)
def test_files_of_other_projects_read_as_gensim_reads_them(shared: Path, name: str) -> None:
    file, (kind, rows, dimensions, duplicates) = str(shared / "data" / "vectors" / name), GOOD[name]
    ours, report = read_vectors(file)
    assert (report.format, report.rows, report.dimensions, report.duplicates) == (kind, rows, dimensions, duplicates)
    assert (report.bad, report.compression) == ({}, "none")
    theirs = KeyedVectors.load_word2vec_format(file, binary=kind.endswith("binary"), no_header=kind == "GloVe")
    # Of words that occur again gensim leaves empty rows at the end.
    kept = len(theirs) - duplicates
    assert same(ours, theirs.index_to_key[:kept], theirs.vectors[:kept])


def test_a_header_that_says_more_rows_than_there_are_is_refused(shared: Path) -> None:
    with pytest.raises(SentrayError, match=r"2 bad rows of 3 .*the header counts it, first in line 3\)"):
        read_vectors(str(shared / "data" / "vectors" / "pretrained.vec"))


@settings(max_examples=60, deadline=None)
@given(drawn=vectors(), kind=st.sampled_from(["ours", "gensim", "gensim binary", "original binary"]))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, drawn: Vectors, kind: str) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.vec"
    if kind == "ours":
        write_vectors(str(path), drawn)
    elif kind == "original binary":
        path.write_bytes(binary(drawn, b"\n"))
    else:
        keyed = KeyedVectors(drawn.dimensions)
        keyed.add_vectors(drawn.words, drawn.rows)
        keyed.save_word2vec_format(str(path), binary=kind == "gensim binary", sort_attr=None)
    found, report = read_vectors(str(path))
    assert same(found, drawn.words, drawn.rows)
    assert report.format == ("word2vec binary" if "binary" in kind else "word2vec text")
    some = drawn.words[::2]
    kept, _ = read_vectors(str(path), wanted=[*reversed(some), "is not there"])
    assert same(kept, some, drawn.rows[::2])


def test_words_of_any_characters_are_whole(tmp_path: Path) -> None:
    words = ["a\u0085b", "a\u00a0b", "a\u2028b", "a\x1cb", "a\rb", "\ufeffa", "naïve", "漢字", "x" * 5_000]
    vectors = Vectors(words, np.arange(len(words) * 3, dtype=np.float32).reshape(-1, 3))
    write = Vectors([word for word in words if "\r" not in word], vectors.rows[[i != 4 for i in range(len(words))]])
    write_vectors(str(tmp_path / "vectors.txt"), write)
    assert same(read_vectors(str(tmp_path / "vectors.txt"))[0], write.words, write.rows)
    (tmp_path / "vectors.bin").write_bytes(binary(vectors))
    assert same(read_vectors(str(tmp_path / "vectors.bin"))[0], vectors.words, vectors.rows)


def test_rows_and_words_across_the_borders_of_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    words = ["".join(letters) for letters in itertools.islice(itertools.product(string.ascii_letters, repeat=3), 3_000)]
    vectors = Vectors(words, random.normal(size=(3_000, 7)).astype(np.float32))
    write_vectors(str(tmp_path / "vectors.txt"), vectors)
    (tmp_path / "vectors.bin").write_bytes(binary(vectors))
    monkeypatch.setattr(read, "_BLOCK", 1_000)
    for name in ("vectors.txt", "vectors.bin"):
        assert same(read_vectors(str(tmp_path / name))[0], words, vectors.rows)
        assert same(read_vectors(str(tmp_path / name), words[5::9])[0], words[5::9], vectors.rows[5::9])


def test_the_row_may_be_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    vectors = Vectors(["a", "b"], np.random.default_rng(0).normal(size=(2, 90_000)).astype(np.float32))
    write_vectors(str(tmp_path / "vectors.txt"), vectors)
    (tmp_path / "vectors.bin").write_bytes(binary(vectors))
    for name in ("vectors.txt", "vectors.bin"):
        assert same(read_vectors(str(tmp_path / name))[0], vectors.words, vectors.rows)


def test_few_rows_may_be_long(tmp_path: Path) -> None:
    vectors = Vectors(["a", "b"], np.random.default_rng(0).normal(size=(2, 30_000)).astype(np.float32))
    write_vectors(str(tmp_path / "vectors.txt"), vectors)
    text = (tmp_path / "vectors.txt").read_bytes()
    (tmp_path / "glove.txt").write_bytes(text[text.index(b"\n") + 1 :])
    for name in ("vectors.txt", "glove.txt"):
        assert same(read_vectors(str(tmp_path / name))[0], vectors.words, vectors.rows)


def test_binary_numbers_may_be_without_control_characters(tmp_path: Path) -> None:
    vectors = Vectors(["a"], np.array([[0.8123458, -1.7123459]], np.float32))
    assert min(vectors.rows.tobytes()) > 0x1F
    (tmp_path / "vectors.bin").write_bytes(binary(vectors))
    assert same(read_vectors(str(tmp_path / "vectors.bin"))[0], vectors.words, vectors.rows)


@pytest.mark.parametrize(
    ("text", "kind", "words", "rows"),
    [
        pytest.param(b"a 1 2\nb 3 4\n", "GloVe", "a b", [[1, 2], [3, 4]], id="GloVe"),
        pytest.param(b"2 2\na 1 2\nb 3 4\n", "word2vec text", "a b", [[1, 2], [3, 4]], id="header"),
        pytest.param(b"a 1 2\nb 3 4", "GloVe", "a b", [[1, 2], [3, 4]], id="no final newline"),
        pytest.param(b"2 2\r\na 1 2\r\nb 3 4\r\n", "word2vec text", "a b", [[1, 2], [3, 4]], id="CRLF"),
        pytest.param(b"a 1 2 \r\nb 3 4\t\r\n", "GloVe", "a b", [[1, 2], [3, 4]], id="CRLF behind blanks"),
        pytest.param(b"a 1 2  \n b 3 4\t\n", "GloVe", "a b", [[1, 2], [3, 4]], id="blanks around"),
        pytest.param(b"a\t1\t2\nb\t3  4\n", "GloVe", "a b", [[1, 2], [3, 4]], id="tabs"),
        pytest.param(b"a 1 2\n\n\r\n  \nb 3 4\n\n", "GloVe", "a b", [[1, 2], [3, 4]], id="empty lines"),
        pytest.param(b"\xef\xbb\xbf1 2\na 1 2\n", "word2vec text", "a", [[1, 2]], id="byte order mark"),
        pytest.param(b"a 1e0 -2E-3\nb +3 .4\n", "GloVe", "a b", [[1, -2e-3], [3, 0.4]], id="exponents"),
        pytest.param(b"1 0.5\n2 0.25\n", "GloVe", "1 2", [[0.5], [0.25]], id="words that are numbers"),
        pytest.param(b"2 1\na 3\nb 4\n", "word2vec text", "a b", [[3], [4]], id="one number and a header"),
        pytest.param(b"12 1 2\n5 3 4\n", "GloVe", "12 5", [[1, 2], [3, 4]], id="all numbers"),
    ],
)
def test_what_text_may_look_like(tmp_path: Path, text: bytes, kind: str, words: str, rows: list[list[float]]) -> None:
    (tmp_path / "vectors").write_bytes(text)
    found, report = read_vectors(str(tmp_path / "vectors"))
    assert same(found, words.split(), np.array(rows, np.float64).astype(np.float32))
    assert (report.format, report.bad, report.duplicates) == (kind, {}, 0)


def _next_to_middle(bits: int, steps: int) -> float:
    """The float64 so many steps from the middle between a float32 and the next."""
    lower, upper = np.array([bits, bits + 1], np.uint32).view(np.float32).astype(np.float64)
    middle = np.array([(lower + upper) / 2])
    return float((middle.view(np.int64) + steps).view(np.float64)[0])


DECIMALS = st.one_of(
    FINITE.map(repr),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e38, max_value=1e38).map(repr),
    st.from_regex(r"[+-]?[0-9]{1,22}(\.[0-9]{0,22})?([eE][+-]?[0-9])?", fullmatch=True),
    st.from_regex(r"[+-]?\.[0-9]{1,22}", fullmatch=True),
    st.tuples(st.integers(0x00800000, 0x7F000000), st.integers(-3, 3)).map(lambda drawn: repr(_next_to_middle(*drawn))),
)


@settings(max_examples=300, deadline=None)
@given(decimals=st.lists(DECIMALS, min_size=1, max_size=20), blank=st.sampled_from([" ", "\t", "  "]))
def test_decimals_are_read_as_python_and_gensim_read_them(
    tmp_path_factory: pytest.TempPathFactory, decimals: list[str], blank: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "decimals.vec"
    path.write_text("word" + blank + blank.join(decimals) + "\n" + blank.join(["other"] + ["1"] * len(decimals)) + "\n")
    found, report = read_vectors(str(path))
    expected = np.array([list(map(float, decimals))]).astype(np.float32)
    assert (report.bad, found.rows[:1].tobytes()) == ({}, expected.tobytes())
    theirs = KeyedVectors.load_word2vec_format(str(path), no_header=True) if blank == " " else None
    assert theirs is None or theirs.vectors[:1].tobytes() == expected.tobytes()


def test_words_with_spaces_are_the_fields_before_the_numbers(tmp_path: Path) -> None:
    text = ". . . 1 2 3\nat name@domain.com 4 5 6\nplain 7 8 9\n"
    (tmp_path / "glove.txt").write_text(text)
    (tmp_path / "vectors.txt").write_text("3 3\n" + text)
    for name in ("glove.txt", "vectors.txt"):
        found, _ = read_vectors(str(tmp_path / name))
        assert same(found, [". . .", "at name@domain.com", "plain"], np.arange(1, 10, dtype=np.float32).reshape(3, 3))
        assert read_vectors(str(tmp_path / name), ["at name@domain.com", "."])[0].words == ["at name@domain.com"]


@pytest.mark.parametrize("packed", [lambda rows: binary(rows), lambda rows: binary(rows, b"\n")])
def test_binary_rows_that_look_like_much(tmp_path: Path, packed: Callable[[Vectors], bytes]) -> None:
    looks = struct.unpack("<4f", b"\n\n\n\nabc\n  \n   ab")
    vectors = Vectors(["a", "b"], np.array([looks, (0, 0, 0, 0)], np.float32))
    (tmp_path / "vectors.bin").write_bytes(packed(vectors))
    assert same(read_vectors(str(tmp_path / "vectors.bin"))[0], vectors.words, vectors.rows)


def test_the_report_says_what_is_odd(tmp_path: Path) -> None:
    rows = "".join(f"w{index} {index} 1\n" for index in range(300))
    file = tmp_path / "vectors.txt"
    file.write_text(f"200 2\n{rows}w7 1 1\nw8 nan 1\nw9 1\n")
    _, report = read_vectors(str(file))
    assert report.lines() == [
        f"{file}: word2vec text, 301 rows of 2 numbers",
        "the header says 200 rows; all that are there were read",
        "words that occur again, of which the first row counts: 1",
        "bad rows, skipped: 2 (1 with nan or infinity, first in line 303; 1 with too few numbers, first in line 304)",
    ]
    _, filtered = read_vectors(str(file), ["w3"])
    assert (filtered.rows, filtered.duplicates, filtered.bad_rows) == (302, 0, 1)
