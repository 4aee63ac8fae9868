"""Files that are not what they seem: each is read right, or refused or skipped with count, line and reason."""

import contextlib
import io
import pickle
import random
import re
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.embeddings import read as module
from sentray.embeddings.read import FileReport, read_vectors
from sentray.embeddings.vectors import Vectors
from sentray.errors import SentrayError

ROWS = [f"w{index} {index}.5 1 -1".encode() for index in range(400)]


def read(tmp_path: Path, content: bytes, wanted: list[str] | None = None) -> tuple[Vectors, FileReport]:
    (tmp_path / "vectors").write_bytes(content)
    return read_vectors(str(tmp_path / "vectors"), wanted)


def among_good(row: bytes, end: bytes = b"\n") -> bytes:
    """The row as the 201st of a file of good ones."""
    return b"\n".join([*ROWS[:200], row, *ROWS[200:]]) + end


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"bad 1 2", "too few numbers"),
        (b"bad 1 2 3 4", "too many numbers"),
        (b"bad 1 and 2 3 4", "too many numbers"),
        (b"bad 123456789012345678901 1 2 3", "too many numbers"),
        (b"bad 1e-40 1 2 3", "too many numbers"),
        (b"bad", "too few numbers"),
        (b" 1 2 3", "too few numbers"),
        (b"b\xffd 1 2 3", "a word that is not UTF-8"),
        (b"b\xed\xa0\x80d 1 2 3", "a word that is not UTF-8"),
        (b"b\xc3 1 2 3", "a word that is not UTF-8"),
        (b"bad 1 two 3", "something that is no number"),
        (b"bad 1 2 3\x00", "something that is no number"),
        (b"bad 1 2\x0b2 3", "too many numbers"),
        (b"bad 1 0x2 3", "something that is no number"),
        (b"bad 1 2,5 3", "something that is no number"),
        (b"bad 1 nan 3", "nan or infinity"),
        (b"bad 1 -Infinity 3", "nan or infinity"),
        (b"bad 1 1e39 3", "nan or infinity"),
        (b"bad 1 1e999999999999999999999 3", "nan or infinity"),
    ],
)
def test_a_bad_row_is_skipped_and_reported(tmp_path: Path, row: bytes, reason: str) -> None:
    vectors, report = read(tmp_path, among_good(row))
    assert report.bad == {reason: (1, 201)}
    assert (len(vectors.words), report.rows, report.duplicates) == (400, 400, 0)
    assert (vectors.rows[:, 0] == np.arange(400) + 0.5).all()
    _, report = read(tmp_path, b"401 3\r\n" + among_good(row))
    assert report.bad == {reason: (1, 202)}


@pytest.mark.parametrize(
    ("row", "numbers"),
    [
        (b"odd 1 1e-40 3", [1, 1e-40, 3]),
        (b"odd 1 1e-999999999999 3", [1, 0, 3]),
        (b"odd 0000000000000000000000000001.5 16777217 3", [1.5, 16777216, 3]),
        (b"odd 0.1234567890123456789012345678901234567890 3.4028234e38 3", [0.12345678901234568, 3.4028234e38, 3]),
        (b"odd 1 " + b"9" * 30 + b"e-30 3", [1, 1, 3]),
    ],
)
def test_numbers_that_are_hard_to_read(tmp_path: Path, row: bytes, numbers: list[float]) -> None:
    vectors, report = read(tmp_path, among_good(row))
    assert report.bad == {}
    assert vectors.words[200] == "odd"
    assert vectors.rows[200].tolist() == np.array(numbers).astype(np.float32).tolist()


def test_the_first_good_row_of_a_word_counts(tmp_path: Path) -> None:
    rows = [*ROWS, b"w0 9 9 9", b"again nan 9 9", b"again 1 2 3", b"again 4 5 6"]
    for wanted in (None, ["again", "w0", "never"]):
        vectors, report = read(tmp_path, b"\n".join(rows), wanted)
        assert (report.duplicates, report.bad) == (2, {"nan or infinity": (1, 402)})
        found = dict(zip(vectors.words, vectors.rows.tolist(), strict=True))
        assert (found["w0"], found["again"]) == ([0.5, 1, -1], [1, 2, 3])


def test_a_header_may_say_less_but_not_more_than_there_is(tmp_path: Path) -> None:
    text = b"\n".join(ROWS) + b"\n"
    vectors, report = read(tmp_path, b"3 3\n" + text)
    assert (len(vectors.words), report.bad) == (400, {})
    assert "the header says 3 rows" in report.lines()[1]
    _, report = read(tmp_path, b"404 3\n" + text)
    assert report.bad == {"no row, though the header counts it": (4, 402)}
    with pytest.raises(SentrayError, match=r"5 bad rows of 405 .*first in line 402\), more than 1%"):
        read(tmp_path, b"405 3\n" + text)
    with pytest.raises(SentrayError, match=r"400 with too few numbers, first in line 2"):
        read(tmp_path, b"400 4\n" + text)


def test_a_last_row_that_is_cut_off(tmp_path: Path) -> None:
    _, report = read(tmp_path, b"\n".join([*ROWS, b"last 1 2"]))
    assert report.bad == {"an end in the middle": (1, 401)}
    _, report = read(tmp_path, b"\n".join([*ROWS, b"las"]))
    assert report.bad == {"an end in the middle": (1, 401)}


@pytest.mark.parametrize("bad", [4, 5])
def test_more_than_a_hundredth_of_bad_rows_is_refused(tmp_path: Path, bad: int) -> None:
    text = b"\n".join([*ROWS, *[b"bad x 2 3"] * bad])
    if bad == 4:
        assert read(tmp_path, text)[1].bad_rows == 4
    else:
        with pytest.raises(SentrayError, match=r"5 bad rows of 405 as GloVe with 3 numbers .* first in line 401"):
            read(tmp_path, text)


def _binary(head: bytes, rows: int = 400, dimensions: int = 3) -> bytes:
    numbers = np.random.default_rng(0).normal(size=(rows, dimensions)).astype("<f4")
    return head + b"".join(b"w%d " % index + row.tobytes() for index, row in enumerate(numbers))


def test_damaged_binary_rows(tmp_path: Path) -> None:
    good = _binary(b"")
    nan = np.array([1, np.nan, 2], "<f4").tobytes()
    vectors, report = read(tmp_path, b"404 3\n" + b"nan " + nan + b"b\xffd " + bytes(12) + b" " + bytes(12) + good)
    assert report.bad == {
        "no single word": (1, 3),
        "a word that is not UTF-8": (1, 2),
        "nan or infinity": (1, 1),
        "no row, though the header counts it": (1, 404),
    }
    assert (vectors.words[0], len(vectors.words)) == ("w0", 400)
    _, report = read(tmp_path, b"400 3\n" + good[:-5])
    assert report.bad == {"an end in the middle": (1, 400)}
    _, report = read(tmp_path, b"10 3\n" + good)
    assert (report.rows, report.bad, len(report.lines())) == (400, {}, 2)
    with pytest.raises(SentrayError, match="rows of"):
        read(tmp_path, b"400 2\n" + good)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no byte"),
        (b"\n \r\n", r"line 1 \(''\) is no word with its numbers"),
        (b"5 3\n", "bad rows of 5"),
        (b"0 3\n", "only a header"),
        (b"5 3", "bad rows of 5"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer.*lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>404 not found</body></html>\n", "a web page"),
        (b"\n<html>\n<p>1 2 3</p>\n</html>", "a web page"),
        (pickle.dumps({"a": [1.0, 2.0]}), "a pickle.*save_word2vec_format"),
        (pickle.dumps("x", 2) + b"\na 1 2\nb 1 2\nc 1 2\n", "1 bad row of 4"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}", "a NumPy array"),
        (b"\xba\x16O/\x0c\x00\x00\x00", "a fastText model"),
        ("the 0.1 0.2\n".encode("utf-16"), "UTF-16.*iconv"),
        (b"(\xb5/\xfd\x04\x00", "Truncated compressed stream"),
        (b'{"the": [0.1, 0.2]}\n', r"line 1 \('{\"the\": \[0.1, 0.2\]}'\) is no word with its numbers"),
        (b"a review of a film , which was good .\n" * 20, "is no word with its numbers"),
        (b"word,0.1,0.2\nother,0.3,0.4\n", "is no word with its numbers"),
        (b"the 0.1 0.2\rof 0.3 0.4\r", "numbers"),
        (b"1000000000000 3\na 1 2 3\n", "999,999,999,999 with no row"),
        (b"1 1000000000\na 1 2 3\n", "1,000,000,000 numbers by its line 1, where 1 to 100,000"),
        (b"5 0\na\nb\n", "0 numbers"),
        (b"1 " * 100_002 + b"\n", "100,001 numbers by its line 1, where 1 to 100,000"),
        (b"9" * 30 + b" 3\na 1 2 3\n", "bad rows"),
        (b"1000000000000 3\n" + _binary(b""), "no row, though the header counts it, first in row 401"),
        (b"400 1000000000\n" + _binary(b""), "1,000,000,000 numbers"),
        (b"400 100000\n" + _binary(b""), "an end in the middle, first in row 1"),
        (b"400 3\n" + b"\x00" * 100_000, "an end in the middle, first in row 1"),
        (b"400 3\n" + b"\x00 " + b"\x00" * 9_000_000, "no end of line 2"),
    ],
)
def test_refused_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SentrayError, match=message) as refused:
        read(tmp_path, content)
    assert str(refused.value).startswith(str(tmp_path / "vectors"))
    assert "\n" not in str(refused.value)


class _Danger:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_ever_unpickled(tmp_path: Path, protocol: int) -> None:
    with pytest.raises(SentrayError):
        read(tmp_path, pickle.dumps(_Danger(), protocol))


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"1.5 "), (b"", b"x"), (b"9 3\n", b"1.5 "), (b"9 3\n", b"\x00"), (b"w 1 2\nw 3 4\n", b"5"),
        (b"9 3\n", b"x"), (b"w 1 2\nw 3 4\n", b"\xc2\xa0"),
    ],
)  # fmt: skip
def test_an_endless_row_takes_little_memory(monkeypatch: pytest.MonkeyPatch, head: bytes, piece: bytes) -> None:
    given: list[int] = []
    monkeypatch.setattr(module, "opened", lambda _: contextlib.nullcontext((_Endless(head, piece, given), "none")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SentrayError):
        read_vectors("endless")
    assert sum(given) <= 2 * module.MAX_ROW_BYTES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000


def test_a_line_of_millions_of_words_takes_bounded_memory(tmp_path: Path) -> None:
    content = among_good(b"x " * 3_500_000 + b"1 2 3")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    vectors, report = read(tmp_path, content)
    assert (len(vectors.words), report.bad) == (401, {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


class _Endless(io.RawIOBase):
    def __init__(self, head: bytes, piece: bytes, given: list[int]) -> None:
        self._head, self._piece, self._given = head, piece * (1 << 16), given

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = (self._head + self._piece)[: len(buffer)]
        self._head = b""
        buffer[: len(content)] = content
        self._given.append(len(content))
        return len(content)


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b"", b"3 2\n", b"2 1\r\n", b"\xef\xbb\xbf", b"a 1 2\n", b"PK\x03\x04", b"\x1f\x8b"]),
    body=st.one_of(
        st.binary(max_size=300),
        st.lists(st.sampled_from(b"a 1.-e+n\t\r\n\x00\xc3\xa9\xff" + b" \n"), max_size=200).map(bytes),
    ),
)  # fmt: skip
def test_any_bytes_give_vectors_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, body: bytes
) -> None:
    _any_bytes(tmp_path_factory.getbasetemp(), head + body)


def test_damaged_files_give_vectors_or_one_sentence(tmp_path: Path) -> None:
    drawn = random.Random(0)
    for seed in range(400):
        content = bytearray(among_good(b"w 1 2 3") if seed % 2 else _binary(b"400 3\n"))
        for _ in range(drawn.randint(1, 8)):
            index = drawn.randrange(len(content))
            content[index : index + drawn.choice([0, 1, 7])] = drawn.randbytes(drawn.choice([0, 1, 3]))
        _any_bytes(tmp_path, bytes(content[: drawn.choice([None, drawn.randrange(len(content))])]))


def _expected(text: bytes, dimensions: int) -> tuple[dict[bytes, list[float]], Counter[str]]:
    """Words, vectors and what is wrong, by the definition and in plain Python."""
    vectors: dict[bytes, list[float]] = {}
    bad: Counter[str] = Counter()
    lines = text.split(b"\n")
    for index, line in enumerate(lines):
        fields = re.findall(rb"\S+", line)
        word = re.match(rb"(?:\s*\S+){%d}" % max(len(fields) - dimensions, 1), line)
        if not fields or word is None:
            continue
        try:
            if len(fields) <= dimensions:
                raise ValueError("an end in the middle" if index == len(lines) - 1 else "too few numbers")
            if any(re.fullmatch(DECIMAL, field) for field in fields[1:-dimensions]):
                raise ValueError("too many numbers")
            try:
                word[0].decode()
            except UnicodeDecodeError:
                raise ValueError("a word that is not UTF-8") from None
            try:
                with np.errstate(over="ignore"):
                    numbers = np.array(list(map(float, fields[-dimensions:]))).astype(np.float32)
            except ValueError:
                raise ValueError("something that is no number") from None
            if not np.isfinite(numbers).all():
                raise ValueError("nan or infinity")
        except ValueError as error:
            bad[str(error)] += 1
        else:
            vectors.setdefault(word[0].strip(), numbers.tolist())
    return vectors, bad


DECIMAL = rb"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
PIECES = [
    b"a", b"b\xc3\xa9", b"\xff", b"\xc2\x85", b"1", b"-2.5", b".5", b"3e-41", b"nan", b"1e99", b"123456789012345678901",
    b"16777217", b" ", b" ", b" ", b"\t", b"\r", b"\x0b", b"\n", b"\n", b"\r\n", b"a 1 2\n", b"c 1 2\n",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=60), buffer=st.sampled_from([64, 200, 1 << 20]))
def test_equals_the_definition_in_plain_python(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], buffer: int
) -> None:
    text = b"w1 1 2\nw2 1 2\nw3 1 2\n" * 20 + b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_BAD", 1.0)
        patch.setattr(module, "_BLOCK", buffer)
        vectors, report = read(tmp_path_factory.getbasetemp(), b"1 2\n" + text)
    expected, bad = _expected(text, 2)
    assert {reason: number for reason, (number, _) in report.bad.items()} == bad
    assert [word.encode() for word in vectors.words] == list(expected)
    assert vectors.rows.tolist() == list(expected.values())


def _any_bytes(folder: Path, content: bytes) -> None:
    try:
        vectors, report = read(folder, content)
    except SentrayError:
        return
    assert len(set(vectors.words)) == len(vectors.words) == report.rows - report.duplicates
    assert vectors.rows.shape == (len(vectors.words), report.dimensions)
    assert np.isfinite(vectors.rows).all()
    some = vectors.words[::2]
    assert read(folder, content, some)[0].rows.tobytes() == vectors.rows[::2].tobytes()
