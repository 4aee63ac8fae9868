"""`Grams`: which n-grams of words and of characters a model knows, and the rows of those that a review has.

A gram is a number of 64 bits, its *key*. That of a gram of words is `w1 | w2 << 21 | w3 << 42`, of three word ids, 0
for none: a word is (w, 0, 0), two neighbours (w1, w2, 0), two words with one between them that may be any (w1, 0, w3),
three neighbours (w1, w2, w3). A gram of 3 to 5 characters of `<word>` has the highest bit set and a hash of its UTF-8
below.

The *table* is all that has to be kept, uint64 [slots]: a gram's row, in weights and in a network's input, is its slot
+ 1, and row 0 is padding. It is exact: no gram is taken for another. Eight slots are a line of the processor's cache
and, on average, 60 % full; a key lies in the line that its hash names or, where that is full, in the next with room.
So a gram is found, or not, by one read and one comparison of eight lanes, and nothing waits for another read.

A table is *closed*: of each gram of words that it has it has the parts (see `parts`), which are never rarer. So a
trigram is looked for only where its parts are known, which spares half of all reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from sentray.text.hashing import FACTOR_1, FACTOR_2
from sentray.text.simd import (
    address,
    byte_at,
    compiled,
    inlined,
    int32_at,
    int64_at,
    lowest,
    number_at,
    prefetch,
    set_byte,
    set_int32,
    set_int64,
    which_equal,
)
from sentray.text.vocabulary import Vocabulary

WORD_BITS = 21
MAX_WORD_ID = (1 << WORD_BITS) - 2
"""The largest word id of a gram."""
CHARACTERS = 1 << 63
"""Set in the key of a gram of characters."""
MIN_CHARACTERS, MAX_CHARACTERS = 3, 5
FILLED = 0.6
"""Share of the slots of a new table that are taken."""
MAX_SLOTS = 1 << 28
"""Of a table, 2 GB: 160 million grams."""

_NO_GRAM = (1 << 3 * WORD_BITS) - 1
"""In a slot of a gram that is left out: what lies behind it is still found."""
_LINE = 8
"""Slots of a line."""
_STRETCH = 32
"""Words whose grams are looked up together, so that their lines of the table are fetched at the same time."""
_HOMES, _ROWS = 0, 2 * (_STRETCH + 1)
_FOUND = _ROWS + 3 * (_STRETCH + 1)
_SEEN = _FOUND + 4 * _STRETCH
"""Where in the numbers of `Grams.scratch` the set of the grams that a review has had begins, a bit each."""

_U1, _U3, _U32, _U33 = (np.uint64(number) for number in (1, 3, 32, 33))
_FACTOR_1, _FACTOR_2 = np.uint64(FACTOR_1), np.uint64(FACTOR_2)
_SECOND, _THIRD, _TOP = np.uint64(WORD_BITS), np.uint64(2 * WORD_BITS), np.uint64(CHARACTERS)

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int32]


class GramSpec(BaseModel):
    """Which grams a model looks at and how they are scaled.

    Attributes:
        max_n: Neighbouring words of the longest gram.
        skip: Whether two words with one between them are a gram.
        characters: Whether 3 to 5 neighbouring characters of a word are grams.
        scale: Value of a gram of words times the square root of how many a review has that are known.
        character_scale: The same of grams of characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_n: int = Field(default=3, ge=1, le=3)
    skip: bool = True
    characters: bool = False
    scale: float = Field(default=10.0, gt=0, lt=1e6)
    character_scale: float = Field(default=5.0, gt=0, lt=1e6)


@dataclass(frozen=True, eq=False)
class GramRows:
    """The known grams of n reviews, each once a review: those of words in the order in which they begin, then others.

    Attributes:
        rows: int32 [total], from 1.
        offsets: int64 [n + 1]; review i has `rows[offsets[i]:offsets[i + 1]]`.
        values: float32 [total], what the network multiplies their weights by.
    """

    rows: Rows
    offsets: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


def key(*words: int) -> int:
    """The key of a gram of words: its ids, 0 for the word between that may be any."""
    return sum(word << WORD_BITS * position for position, word in enumerate(words))


def character_key(gram: str) -> int:
    """The key of a gram of characters.

    As `hashing.word_code`, it chains the finaliser of MurmurHash3 over the gram's UTF-8, eight bytes at a time.
    """
    data = gram.encode()
    number = len(data)
    for start in range(0, len(data), 8):
        number ^= int.from_bytes(data[start : start + 8], "little")
        for factor in (FACTOR_1, FACTOR_2):
            number = (number ^ number >> 33) * factor & (1 << 64) - 1
        number ^= number >> 33
    return number | CHARACTERS


def word_grams(ids: Sequence[int], spec: GramSpec) -> list[int]:
    """The keys of a review's grams of words, each once, in the order of `GramRows`: by where they begin.

    It defines what the compiled code does.
    """
    found: dict[int, None] = {}
    for first, word in enumerate(ids):
        second, third = [*ids[first + 1 : first + 3], 0, 0][:2]
        found[key(word)] = None
        if spec.max_n >= 2 and second:
            found[key(word, second)] = None
        if spec.skip and third:
            found[key(word, 0, third)] = None
        if spec.max_n >= 3 and third:
            found[key(word, second, third)] = None
    return list(found)


def character_grams(word: str) -> Iterator[str]:
    """The grams of characters of a word, the same one as often as it occurs, by where they begin."""
    marked = f"<{word}>"
    for first in range(len(marked)):
        for length in range(MIN_CHARACTERS, MAX_CHARACTERS + 1):
            if first + length <= len(marked):
                yield marked[first : first + length]


def parts(gram: int) -> list[int]:
    """The keys of the grams that a review has in any case which has this one of words."""
    first, second, third = (gram >> WORD_BITS * position & _NO_GRAM >> 2 * WORD_BITS for position in range(3))
    if not third:
        return [key(first), key(second)] if second else []
    return [key(first, second), key(second, third), key(first, 0, third)] if second else [key(first), key(third)]


def character_keys(words: Sequence[str]) -> tuple[npt.NDArray[np.int64], Keys]:
    """The keys of `character_grams` of each word of a vocabulary, by its id.

    Returns:
        Where those of an id start, int64 [ids + 1], and the keys; id 0 has none.
    """
    marked = [f"<{word}>".encode() for word in words]
    ends = np.cumsum([0, 0, *map(len, marked)])
    data = np.frombuffer(b"".join(marked) + bytes(8), np.uint8)
    keys = np.empty((MAX_CHARACTERS - MIN_CHARACTERS + 1) * len(data), np.uint64)
    starts = np.zeros(len(ends), np.int64)
    _write_character_keys(data, ends, starts, keys)
    return starts, keys[: starts[-1]].copy()


def _aligned(slots: int) -> Keys:
    """An empty table whose lines are lines of the processor's cache."""
    memory = np.zeros(slots + _LINE, np.uint64)
    first = -memory.ctypes.data // 8 % _LINE
    return memory[first : first + slots]


def make_table(keys: Keys) -> Keys:
    """The table of keys, uint64 [slots]; those that come first are found a little sooner.

    Args:
        keys: Closed and each once.
    """
    lines = int(len(keys) / (_LINE * FILLED)) + 1
    table = _aligned(lines * _LINE)
    _insert(np.ascontiguousarray(keys, np.uint64), table)
    return table


def require_table(content: bytes | npt.NDArray[np.uint8]) -> None:
    """Refuse what is no table, so that no lookup reads beyond it or never ends.

    Raises:
        ValueError: Saying why.
    """
    if len(content) % (8 * _LINE) or not 0 < len(content) <= 8 * MAX_SLOTS:
        raise ValueError(f"the table of n-grams has {len(content):,} bytes")
    table = np.frombuffer(content, np.uint64)
    if np.count_nonzero(table) > 0.9 * len(table):
        raise ValueError("the table of n-grams is full")


class Grams:
    """The grams that a model knows.

    Args:
        spec: Which grams there are.
        table: uint64 [slots], see `make_table`; it is not copied where its lines are lines of the cache, as in a file
            that is mapped.
        words: The vocabulary, for grams of characters and for `gram_texts`; None where words are hashed.

    Attributes:
        spec: As given.
        table: As given.
    """

    def __init__(self, spec: GramSpec, table: Keys, words: Vocabulary | None) -> None:
        if table.ctypes.data % (8 * _LINE):
            table, unaligned = _aligned(len(table)), table
            table[:] = unaligned
        self.spec, self.table, self._words = spec, table, words
        taken = np.flatnonzero((table <= MAX_WORD_ID) & (table > 0))
        self._unigrams = np.zeros(int(table[taken].max(initial=0)) + 1, np.int32)
        self._unigrams[table[taken]] = taken + 1
        self._starts, self._character_rows = np.zeros(1, np.int64), np.zeros(0, np.int32)
        self._longest = 0
        if spec.characters and words is not None:
            starts, keys = character_keys(words.words)
            rows = self.find(keys)
            self._starts = np.append(0, np.cumsum(rows > 0))[starts]
            self._character_rows = rows[rows > 0]
            self._longest = int(np.diff(self._starts).max(initial=0))
        self.lookup = np.array(
            [
                table.ctypes.data,
                self.lines,
                self._unigrams.ctypes.data,
                len(self._unigrams),
                spec.max_n,
                spec.skip,
                self._starts.ctypes.data,
                len(self._starts) - 1,
                self._character_rows.ctypes.data,
            ],
            np.int64,
        )
        """What `walk` takes: addresses and sizes, int64; valid as long as this object is."""

    @property
    def of_characters(self) -> tuple[npt.NDArray[np.int64], Rows]:
        """Where the rows of each word's grams of characters begin, int64 [words + 1], by its id; and these rows."""
        return self._starts, self._character_rows

    @property
    def slots(self) -> int:
        """Slots of the table, taken or free."""
        return len(self.table)

    @property
    def rows(self) -> int:
        """Rows of a table of weights: padding and every slot."""
        return self.slots + 1

    @property
    def lines(self) -> int:
        """Lines of the table."""
        return self.slots // _LINE

    @cached_property
    def known(self) -> int:
        """How many grams the table has."""
        return int(np.count_nonzero(self.table) - np.count_nonzero(self.table == _NO_GRAM))

    def only(self, kept: npt.NDArray[np.bool_]) -> "Grams":
        """The same grams in the same rows, without those that are not kept.

        So a network that is trained on some of the reviews knows what they have and no more, as a new review would be
        met, and its weights are in the same rows. Where enough of these reviews must have a gram, the rest is closed.

        Args:
            kept: bool [rows].
        """
        table = self.table.copy()
        table[(table > 0) & ~kept[1:]] = _NO_GRAM
        return Grams(self.spec, table, self._words)

    def most(self, words: Any) -> Any:
        """The most grams that a review of so many words has, or each of several reviews."""
        # One is written and written over.
        return 4 * words + np.minimum(words * self._longest, len(self._character_rows)) + 1

    def scratch(self) -> npt.NDArray[np.int64]:
        """Memory for `walk`; every thread needs its own."""
        return np.zeros(_SEEN + len(self.table) // 64 + 1, np.int64)

    def of(self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> GramRows:
        """The known grams of reviews and their values.

        Args:
            ids: int32 [total], word ids as the network takes them.
            offsets: int64 [n + 1]; review i has `ids[offsets[i]:offsets[i + 1]]`.
        """
        ids, offsets = np.ascontiguousarray(ids), np.ascontiguousarray(offsets)
        lengths = np.diff(offsets)
        of_characters = np.minimum(lengths * self._longest, len(self._character_rows))
        most = int(4 * lengths.sum() + of_characters.sum()) + 1
        rows, values = np.empty(most, np.int32), np.empty(most, np.float32)
        ends = np.zeros(len(offsets), np.int64)
        scales = self.spec.scale, self.spec.character_scale
        _rows_of_reviews(ids, offsets, self.lookup, self.scratch(), *scales, rows, ends, values)
        return GramRows(rows[: ends[-1]], ends, values[: ends[-1]])

    def find(self, keys: Keys) -> Rows:
        """The rows of grams by their keys, int32; 0 for those that are not known."""
        found = np.empty(len(keys), np.int32)
        _find_all(np.ascontiguousarray(keys, np.uint64), self.table, found)
        return found

    def gram_texts(self, rows: Sequence[int]) -> list[str]:
        """What grams are called, by their rows: `bad`, `not bad`, `not _ good`, `not so good`, `<goo`."""
        keys = [int(self.table[row - 1]) for row in rows]
        spelt = self._spelt({each for each in keys if each & CHARACTERS})
        return [spelt.get(each) or self._word_text(each) for each in keys]

    def samples(self) -> list[str]:
        """A text of grams of the most words, for golden scores; none where words are hashed."""
        second = (self.table >> _SECOND) & np.uint64(MAX_WORD_ID + 1)
        longest = np.flatnonzero((self.table < CHARACTERS) & (self.table >> _THIRD > 0) & (second > 0))
        chosen = longest[:: max(len(longest) // 20, 1)][:20] + 1
        return [" ".join(self.gram_texts(chosen.tolist()))] if self._words is not None and len(chosen) else []

    def _word_text(self, gram: int) -> str:
        ids = [gram >> WORD_BITS * position & _NO_GRAM >> 2 * WORD_BITS for position in range(3)]
        while ids and not ids[-1]:
            ids.pop()
        listed = self._words.words if self._words is not None else []
        return " ".join((listed[word - 1] if word <= len(listed) else f"[{word}]") if word else "_" for word in ids)

    def _spelt(self, keys: set[int]) -> dict[int, str]:
        """The texts of grams of characters: a word that has it is looked for, and spelt."""
        spelt: dict[int, str] = {}
        if keys and self._words is not None:
            wanted = self.find(np.array(sorted(keys), np.uint64))
            places = np.flatnonzero(np.isin(self._character_rows, wanted))
            for word in np.unique(np.searchsorted(self._starts, places, "right") - 1).tolist():
                spelt |= {character_key(gram): gram for gram in character_grams(self._words.words[word - 1])}
        return spelt


@inlined
def mixed(gram: np.uint64) -> np.uint64:
    """A hash of a key: its upper half says the line of a table, its lower half which partition counts the key."""
    number = (gram ^ (gram >> _U33)) * _FACTOR_1
    return (number ^ (number >> _U32)) * _FACTOR_2


@inlined
def _home(gram: np.uint64, lines: np.uint64) -> np.int64:
    """The number of the first slot of a key's line."""
    return np.int64((((mixed(gram) >> _U32) * lines) >> _U32) << _U3)


@inlined
def _find(gram: np.uint64, home: np.int64, table: np.int64, lines: np.uint64) -> np.int64:
    """The row of a key by its line, 0 where the table does not have it."""
    same, free = which_equal(table + 8 * home, gram)
    while not same | free:
        home = home + 8 if home + 8 < 8 * np.int64(lines) else np.int64(0)
        same, free = which_equal(table + 8 * home, gram)
    return home + lowest(same) + 1 if same else np.int64(0)


@inlined
def _word(ids: np.int64, position: np.int64) -> np.uint64:
    return np.uint64(int32_at(ids + 4 * position))


@compiled
def _insert(keys: Any, table: Any) -> None:
    start, lines = address(table), np.uint64(len(table) // _LINE)
    for gram in keys:
        home = _home(gram, lines)
        same, free = which_equal(start + 8 * home, gram)
        while not same | free:
            home = home + 8 if home + 8 < len(table) else 0
            same, free = which_equal(start + 8 * home, gram)
        if not same:
            table[home + lowest(free)] = gram


@compiled
def _find_all(keys: Any, table: Any, found: Any) -> None:
    start, lines = address(table), np.uint64(len(table) // _LINE)
    for position, gram in enumerate(keys):
        found[position] = _find(gram, _home(gram, lines), start, lines)


@inlined
def _add_new(row: np.int64, seen: np.int64, out: np.int64) -> np.int64:
    """Write a row where the review has not had it; how many rows were written.

    The set has a bit for each row. One of hashes would be smaller and take 9 ns a row instead of 6: jumps past what
    other rows take cannot be foretold.
    """
    bits, mask = byte_at(seen + (row >> 3)), np.int64(1) << (row & 7)
    # Written in any case, for the same reason.
    set_int32(out, row)
    set_byte(seen + (row >> 3), bits | mask)
    return np.int64(bits & mask == 0)


@compiled
def walk(ids: int, count: int, lookup: int, scratch: int, rows: int) -> Any:
    """Find the known grams of a review, each once. Arguments are addresses, and a count.

    Args:
        ids: Of int32 [count], the review's word ids as the network takes them.
        count: Of its words.
        lookup: Of `Grams.lookup`.
        scratch: Of `Grams.scratch`, which is no other thread's.
        rows: Where to write them, int32 [`Grams.most` of the words]: grams of words, then grams of characters.

    Returns:
        How many grams of words there are, and how many of characters.
    """
    table, lines = int64_at(lookup), number_at(lookup + 8)
    unigrams, words = int64_at(lookup + 16), int64_at(lookup + 24)
    pairs, skips, triples = int64_at(lookup + 32) >= 2, int64_at(lookup + 40) != 0, int64_at(lookup + 32) >= 3
    homes, row_of = scratch + 8 * _HOMES, scratch + 8 * _ROWS
    found, seen = scratch + 8 * _FOUND, scratch + 8 * _SEEN
    out = rows
    for start in range(0, count, _STRETCH):
        stop = min(start + _STRETCH, count)
        # One word more: a trigram of the last one has a bigram that begins there.
        upto = min(stop + 1, count)
        for position in range(start, upto):
            at = homes + 16 * (position - start)
            if pairs and position + 1 < count:
                home = _home(_word(ids, position) | (_word(ids, position + 1) << _SECOND), lines)
                prefetch(table + 8 * home)
                set_int64(at, home)
            if skips and position + 2 < count:
                home = _home(_word(ids, position) | (_word(ids, position + 2) << _THIRD), lines)
                prefetch(table + 8 * home)
                set_int64(at + 8, home)
        for position in range(start, upto):
            at, of = homes + 16 * (position - start), row_of + 24 * (position - start)
            pair = skip = np.int64(0)
            if pairs and position + 1 < count:
                gram = _word(ids, position) | (_word(ids, position + 1) << _SECOND)
                pair = _find(gram, int64_at(at), table, lines)
            if skips and position + 2 < count:
                gram = _word(ids, position) | (_word(ids, position + 2) << _THIRD)
                skip = _find(gram, int64_at(at + 8), table, lines)
            set_int64(of, pair)
            set_int64(of + 8, skip)
            set_int64(of + 16, 0)
        if triples:
            # Those whose parts are known: where they begin, and their line.
            likely = np.int64(0)
            for position in range(start, min(stop, count - 2)):
                of = row_of + 24 * (position - start)
                known = (int64_at(of) != 0) & (int64_at(of + 24) != 0) & ((int64_at(of + 8) != 0) | (not skips))
                set_int64(homes + 16 * likely, position)
                likely += np.int64(known)
            for number in range(likely):
                position = int64_at(homes + 16 * number)
                gram = _word(ids, position) | (_word(ids, position + 1) << _SECOND)
                home = _home(gram | (_word(ids, position + 2) << _THIRD), lines)
                prefetch(table + 8 * home)
                set_int64(homes + 16 * number + 8, home)
            for number in range(likely):
                position = int64_at(homes + 16 * number)
                gram = _word(ids, position) | (_word(ids, position + 1) << _SECOND)
                gram |= _word(ids, position + 2) << _THIRD
                row = _find(gram, int64_at(homes + 16 * number + 8), table, lines)
                set_int64(row_of + 24 * (position - start) + 16, row)
        many = np.int64(0)
        for position in range(start, stop):
            word, of = np.int64(int32_at(ids + 4 * position)), row_of + 24 * (position - start)
            row = np.int64(int32_at(unigrams + 4 * word)) if word < words else np.int64(0)
            set_int64(found + 8 * many, row)
            many += np.int64(row != 0)
            for kind in range(3):
                row = int64_at(of + 8 * kind)
                set_int64(found + 8 * many, row)
                many += np.int64(row != 0)
        for number in range(many):
            out += 4 * _add_new(int64_at(found + 8 * number), seen, out)
    of_words = (out - rows) // 4
    starts, listed, character_rows = int64_at(lookup + 48), int64_at(lookup + 56), int64_at(lookup + 64)
    if listed:
        for position in range(count):
            word = np.int64(int32_at(ids + 4 * position))
            if word < listed:
                for number in range(int64_at(starts + 8 * word), int64_at(starts + 8 * word + 8)):
                    out += 4 * _add_new(np.int64(int32_at(character_rows + 4 * number)), seen, out)
    for at in range(rows, out, 4):
        set_byte(seen + (np.int64(int32_at(at)) >> 3), 0)
    return of_words, (out - rows) // 4 - of_words


@compiled
def _rows_of_reviews(
    ids: Any,
    offsets: Any,
    lookup: Any,
    scratch: Any,
    scale: float,
    character_scale: float,
    rows: Any,
    ends: Any,
    values: Any,
) -> None:
    """`walk` over reviews, and the values of their grams; see `Grams.of`."""
    ids_at, lookup_at, scratch_at = address(ids), address(lookup), address(scratch)
    rows_at, end = address(rows), 0
    for review in range(len(offsets) - 1):
        first, last = offsets[review], offsets[review + 1]
        words, characters = walk(ids_at + 4 * first, last - first, lookup_at, scratch_at, rows_at + 4 * end)
        values[end : end + words] = scale / np.sqrt(max(words, 1))
        end += words
        values[end : end + characters] = character_scale / np.sqrt(max(characters, 1))
        end += characters
        ends[review + 1] = end


@inlined
def _character_key(start: np.int64, length: np.int64) -> np.uint64:
    """`character_key` of so many bytes at an address; 8 more must be readable."""
    number = np.uint64(length)
    for offset in range(0, length, 8):
        part = number_at(start + offset)
        if length - offset < 8:
            part &= (_U1 << np.uint64(8 * (length - offset))) - _U1
        number ^= part
        number = (number ^ (number >> _U33)) * _FACTOR_1
        number = (number ^ (number >> _U33)) * _FACTOR_2
        number ^= number >> _U33
    return number | _TOP


@compiled
def _write_character_keys(data: Any, ends: Any, starts: Any, keys: Any) -> None:
    """Write the keys of marked words, which lie one after the other; see `character_keys`."""
    text, many = address(data), 0
    for word in range(1, len(ends) - 1):
        for first in range(ends[word], ends[word + 1]):
            if byte_at(text + first) & 0xC0 == 0x80:
                continue
            characters, last = 0, first
            while characters < MAX_CHARACTERS and last < ends[word + 1]:
                last += 1
                while last < ends[word + 1] and byte_at(text + last) & 0xC0 == 0x80:
                    last += 1
                characters += 1
                if characters >= MIN_CHARACTERS:
                    keys[many] = _character_key(text + first, last - first)
                    many += 1
        starts[word + 1] = many
