"""The compiled cleaning gives what the reference gives, on any text and for all rules."""

import subprocess
import sys
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.text import table
from sentray.text.cleaning import CleaningRules, clean
from sentray.text.encoding import Encoder
from sentray.text.hashing import HashedWords, word_code
from sentray.text.vocabulary import Vocabulary

ALL_RULES = [
    CleaningRules(
        strip_html=strip_html,
        lowercase=lowercase,
        punctuation=punctuation,
        alphabetic_only=alphabetic_only,
        stop_words=("a", "it's", "its", "the"),
        stop_words_source="none",
        min_token_length=length,
    )
    for strip_html, lowercase, punctuation, alphabetic_only, length in product(
        [False, True], [False, True], ["keep", "remove", "split", "words"], [False, True], [1, 3]
    )
]
# Words of every length around the eight and sixteen bytes that the table compares at once.
LONG = ["abcdefghijklmnopqrstuvwxyzabcdefghijklmnop"[:length] for length in (7, 8, 9, 15, 16, 17, 23, 24, 25, 33, 42)]
HOSTILE = """
it\u2019s don\u02bct '' 3.5 3,5 3.x .5 <3 </3 <3.5 <3's <33 :D ;-P :Dog :-D!! =o\u2019x :D\xe9 12:D
GREAT!!!THE _a_ \U0001f621 \u2764\ufe0f \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467
\u200d\U0001f600\u200d \U0001f1e9\U0001f1ea\U0001f1eb \u200dx x\u200d \ufe0f 1\ufe0f\u20e3 x\u200c\xady
\u2605\u2605\u2606 \U0001f3fd \U0001f468\u200d\U0001f1e9 \xa9 \u092f\u0939 \u0928\u093c \u0915\u093c \u095c
\u09af\u09bc\u09be \u09df \u09c7\u09be \u09c7\u09bc\u09be \u0bc6\u0bbe
\u0645\u064f\u062f\u064e\u0631\u0651\u0650 e\u0301 E\u0301\u0323 e\u0323\u0302 \xea\u0323 a\u0327\u0301 \u0301
\u0344 e\u0344 \u1100\u1161\u11a8 \uac00\u11a8 \u304b\u3099 \u212b \u2126 \u037e \u65e5\u672c\u8a9e
\u30ab\u30bf \u0e2b\u0e19\u0e31\u0e07 \uf900 \U0002f800 \u5203\ufe00 \u0665.\u0665 \u06f1\u2019\u06f2 \u0130yi
\u03a3\u03c2
"""
KNOWN = ["film", "don't", "dont", "é", "naïve", "ß", "1st", "\U0001d49c", "οδος", "i\u0307", "x\x00", "amp", *LONG]
MARKED = """
a it's the don\u2019t FILM Film, (film) 'film' fi'lm É İ ΟΔΟΣ Σ ½ ² e\u0301 x -- … € ^ <br/> <b > < </i> <film> &amp;
&lt;p&gt; &#65; & &; &a <&amp> \ufffd \u4e2d\u6587
"""
PIECES = [
    *KNOWN,
    *(word[:-1] + "!" for word in LONG),
    *MARKED.split(),
    *HOSTILE.split(),
    *"'.,:<>;-=/3DPo!\u2019\u200d\ufe0f\u0301\u0323\u093c\u09be\U0001f600\U0001f3fd\U0001f1e9",
    *("<!-- x -->", "< 3", "<br />"),
    *(" ", " ", " ", "\n", "\t", "\x85", "\u2028", "\u00a0", "\u3000", "\x1c", "\u200b", "\x00", " " * 61, "." * 63),
]
TEXTS = st.lists(st.none() | st.text() | st.lists(st.sampled_from(PIECES), max_size=40).map("".join), max_size=6)


def hashed_id(word: str, buckets: int) -> int:
    return 1 + (word_code(word) - 1) % buckets


def assert_equals_the_reference(texts: list[str | None], rules: CleaningRules, column: pa.Array, unknown: str) -> None:
    words = [clean(text or "", rules) for text in texts]
    if unknown == "hash":
        hashed = HashedWords(1_000_003)
        got = Encoder(rules, hashed).encode(column)
        wanted = known = [[hashed_id(word, hashed.buckets) for word in row] for row in words]
    else:
        vocabulary = Vocabulary(KNOWN, unknown)
        got = Encoder(rules, vocabulary).encode(column)
        ids = [[vocabulary.ids.get(word, vocabulary.unknown_id) for word in row] for row in words]
        known = [[number for number in row if number < vocabulary.unknown_id] for row in ids]
        wanted = ids if unknown == "share" else known
    assert [row.tolist() for row in np.split(got.ids, got.offsets[1:-1])] == (wanted or [[]])
    assert got.words.tolist() == [len(row) for row in words]
    assert got.known.tolist() == [len(row) for row in known]


@pytest.mark.parametrize("unknown", ["drop", "share", "hash"])
@settings(deadline=None, max_examples=150)
@given(texts=TEXTS, rules=st.sampled_from(ALL_RULES), start=st.integers(0, 2), kind=st.sampled_from(["s", "l", "c"]))
def test_equals_the_reference(texts, rules: CleaningRules, start: int, kind: str, unknown: str) -> None:
    column = pa.array(texts, pa.string() if kind == "s" else pa.large_string())[start:]
    if kind == "c":
        column = pa.chunked_array([column[:1], column[1:]])
    assert_equals_the_reference(texts[start:], rules, column, unknown)


@pytest.mark.parametrize("unknown", ["share", "hash"])
@pytest.mark.parametrize("rules", ALL_RULES[::2])
def test_texts_of_megabytes(rules: CleaningRules, unknown: str) -> None:
    chance = np.random.default_rng(0)
    # The last has words of a megabyte, and ends where its memory ends.
    texts = [
        "".join(chance.choice(PIECES, 30_000)),
        "<" * 100_000,
        "&amp;film " * 5_000,
        "film" + "é" * 500_000 + " fi",
    ]
    assert_equals_the_reference(texts, rules, pa.array(texts), unknown)


def test_every_character() -> None:
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = ["".join(f"x{chr(code)}y " for code in codes[start : start + 4096]) for start in range(0, len(codes), 4096)]
    for rules in (ALL_RULES[4], ALL_RULES[24], ALL_RULES[60]):
        words = [clean(text, rules) for text in texts]
        vocabulary = Vocabulary(dict.fromkeys(word for row in words for word in row))
        got = Encoder(rules, vocabulary).encode(pa.array(texts))
        assert got.words.tolist() == [len(row) for row in words]
        assert got.ids.tolist() == [vocabulary.ids[word] for row in words for word in row]
    hashed = HashedWords(1_000_003)
    got = Encoder(rules, hashed).encode(pa.array(texts))
    assert got.ids.tolist() == [hashed_id(word, hashed.buckets) for row in words for word in row]


def test_words_with_one_hash_stay_apart() -> None:
    # In a table of 16 slots, words must share slots; longer ones share the numbers that are compared first as well.
    words = [f"{'same beginning of a word'.replace(' ', '')}{number}" for number in range(7)]
    slots, shift, blob, _ = table.table(words, np.arange(1, 8))
    assert len(slots) == 4 * 16
    vocabulary = Vocabulary(words)
    rules = ALL_RULES[0]
    got = Encoder(rules, vocabulary).encode(pa.array([" ".join(words), words[3] + "x", words[3][:-1]]))
    assert got.ids.tolist() == list(range(1, 8))
    # Even a word whose hash and length are those of another is distinguished by its bytes.
    slot = next(start for start in range(0, len(slots), 4) if slots[start + 2])
    forged = blob.copy()
    forged[int(slots[slot + 3])] ^= 1
    data = np.frombuffer(words[int(slots[slot + 2] >> np.uint64(32)) - 2].encode() + bytes(32), np.uint8)
    length = int(slots[slot + 2] & np.uint64(0xFFFFFFFF))
    same = table.find_slot(data.ctypes.data, length, slots.ctypes.data, shift, blob.ctypes.data)
    other = table.find_slot(data.ctypes.data, length, slots.ctypes.data, shift, forged.ctypes.data)
    assert same == slots.ctypes.data + 8 * slot
    assert other != same


def test_nothing_is_read_behind_the_texts() -> None:
    # The text lies at the end of a page behind which nothing may be read.
    code = """
import ctypes, mmap
import numpy as np, pyarrow as pa
from sentray.text.cleaning import preset
from sentray.text.encoding import Encoder
from sentray.text.hashing import HashedWords
from sentray.text.vocabulary import Vocabulary
libc = ctypes.CDLL(None, use_errno=True)
area = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
assert libc.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
rules = preset("reviews", stop_words="sentray:english")[0]
listed = Encoder(rules, Vocabulary(["good", "film", "x" * 30]))
hashed, whole = Encoder(rules, HashedWords(1000)), pa.array(["good film", "good " + "x" * 30, "good film \u00e9"])
ids = [row.tolist() for row in np.split(hashed.encode(whole).ids, [2, 4])]
for text in (b"a good film", b"good " + b"x" * 30, b"A GOOD FILM", "good film é".encode(), b"<b>good</b>film"):
    first = start + mmap.PAGESIZE - len(text)
    ctypes.memmove(first, text, len(text))
    data = pa.foreign_buffer(first, len(text))
    offsets = pa.py_buffer(np.array([0, len(text)]).tobytes())
    column = pa.LargeStringArray.from_buffers(1, offsets, data)
    assert listed.encode(column).known.tolist() == [2], text
    assert hashed.encode(column).ids.tolist() in ids, text
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
