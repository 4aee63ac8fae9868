"""The cleaning rules and the vocabulary compiled: from the bytes of many texts straight to word ids.

Sixty-four bytes at a time become bit masks (see `sentray.masks`), so that finding the words costs no branch a
character. A word whose bytes all stand for themselves is looked up from where it lies; only the others are cleaned
character by character. Texts that need a rule which looks beyond a character (character references, the final sigma)
are left to the reference.

Of the polarity corpus it reads 360 MB/s on a core. It did 70 when functions passed arrays instead of addresses, and
330 without the inlining; the prototype, a loop over the bytes with a running hash, did 200.
"""

import string
import sys
from collections.abc import Sequence
from functools import lru_cache
from html.entities import html5
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sentray.masks import BLOCK, byte_masks, lowest
from sentray.text.cleaning import CleaningRules, marks

Bytes = npt.NDArray[np.uint8]

INLINE = 16
"""Bytes of a word that its slot of the table holds itself; so many must be readable behind any word."""

# Bits of a character's class.
_ALPHABETIC, _BOUNDARY, _VANISHES, _WHOLE_TEXT = 1, 2, 4, 8
# Bits of the rules.
_STRIP_HTML, _LOWERCASE, _REMOVE, _SPLIT, _ALPHABETIC_ONLY, _SHARE = 1, 2, 4, 8, 16, 32

_LESS, _GREATER, _SLASH, _EXCLAMATION, _NUMBER, _SEMICOLON, _HEXADECIMAL = b"<>/!#;x"
_NO_CHARACTER = 0xFFFD

_MIX_1, _MIX_2, _MIX_3 = (np.uint64(prime) for prime in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_U0, _U1, _U29, _U32 = (np.uint64(number) for number in (0, 1, 29, 32))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LENGTH = np.uint64(0xFFFFFFFF)
_SLOT_BYTES = 32

# By the first letter, a bit for the second: how references begin that need no semicolon, such as `&amp`.
_OPEN_REFERENCES = np.zeros(128, np.uint64)
for _name in (name for name in html5 if not name.endswith(";")):
    _OPEN_REFERENCES[ord(_name[0])] |= np.uint64(1 << (ord(_name[1]) & 63))


def _loader(bits: int, wanted: Any) -> Any:
    """An intrinsic that reads a number of so many bits from an address."""

    @intrinsic
    def load(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            number = builder.load(pointer, align=1)
            return builder.zext(number, ir.IntType(64)) if bits < 64 else number

        return wanted(types.int64), generate

    return load


_byte = _loader(8, types.int64)
_int32 = _loader(32, types.int64)
_number = _loader(64, types.uint64)


@intrinsic
def _set_byte(_: Any, address: Any, value: Any) -> Any:
    """Write the low byte of a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        builder.store(builder.trunc(arguments[1], ir.IntType(8)), pointer)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


# Which bytes are white space, punctuation, capitals, letters, beyond ASCII, an apostrophe, `<`, `&`.
_masks = byte_masks(
    b"\t\n\v\f\r\x1c\x1d\x1e\x1f ",
    string.punctuation.encode(),
    string.ascii_uppercase.encode(),
    string.ascii_letters.encode(),
    bytes(range(128, 256)),
    b"'",
    b"<",
    b"&",
)
_compiled = njit(cache=True, nogil=True)
# Called for every word: as calls they would take a fifth more time.
_inlined = njit(cache=True, nogil=True, inline="always")


@_inlined
def _run(first: int, stop: int) -> np.uint64:
    """Bits from one position to another, exclusive; the latter may lie beyond the block."""
    upto = _ALL if stop >= BLOCK else (_U1 << np.uint64(stop)) - _U1
    return upto & ~((_U1 << np.uint64(first)) - _U1)


@_inlined
def _first(number: np.uint64, count: int) -> np.uint64:
    """A number's first `count` bytes, all of them from 8 on and none below 1."""
    if count >= 8:
        return number
    return _U0 if count <= 0 else number & ((_U1 << np.uint64(8 * count)) - _U1)


@_inlined
def _key(start: int, length: int) -> Any:
    """Two numbers that are a word of up to 16 bytes, or a word's beginning and a hash of its rest."""
    head, tail = _first(_number(start), length), _first(_number(start + 8), length - 8)
    for place in range(INLINE, length, 8):
        tail = (tail ^ _first(_number(start + place), length - place)) * _MIX_1
        tail ^= tail >> _U29
    return head, tail


@_compiled
def _same(left: int, right: int, length: int) -> bool:
    """Whether the bytes at two addresses are the same."""
    for place in range(length):  # noqa: SIM110
        if _byte(left + place) != _byte(right + place):
            return False
    return True


@_inlined
def _slot(start: int, length: int, slots: int, shift: np.uint64, blob: int) -> Any:
    """Where the table has a word, or the free slot where it would be."""
    head, tail = _key(start, length)
    mixed = (head * _MIX_1) ^ (tail * _MIX_2)
    mixed = (mixed ^ (mixed >> _U32)) * _MIX_3
    place = mixed >> shift
    while True:
        slot = slots + np.int64(place) * _SLOT_BYTES
        meta = _number(slot + 16)
        if meta == _U0:
            return slot
        equal = _number(slot) == head and _number(slot + 8) == tail and (meta & _LENGTH) == np.uint64(length)
        # One hash does not make one word.
        if equal and (length <= INLINE or _same(start, blob + np.int64(_number(slot + 24)), length)):
            return slot
        place = (place + _U1) & (_ALL >> shift)


@_compiled
def _fill(blob: Bytes, offsets: Any, codes: Any, slots: Any, shift: np.uint64) -> None:
    """Put words into an empty table; of two equal words the first counts."""
    first, text = slots.ctypes.data, blob.ctypes.data
    for word in range(len(codes)):
        length = offsets[word + 1] - offsets[word]
        slot = (_slot(text + offsets[word], length, first, shift, text) - first) // 8
        if slots[slot + 2] == _U0:
            slots[slot], slots[slot + 1] = _key(text + offsets[word], length)
            slots[slot + 2] = (np.uint64(codes[word] + 1) << _U32) | np.uint64(length)
            slots[slot + 3] = np.uint64(offsets[word])


@_compiled
def _character(place: int, end: int) -> Any:
    """The character at an address and its bytes; what is no UTF-8 counts as U+FFFD, a byte each."""
    lead = _byte(place)
    if lead < 0x80:
        return lead, 1
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC0 or lead > 0xF4 or place + size > end:
        return _NO_CHARACTER, 1
    code = lead & (0x7F >> size)
    for more in range(1, size):
        code = (code << 6) | (_byte(place + more) & 0x3F)
    return (code, size) if code < 0x110000 else (_NO_CHARACTER, 1)


@_compiled
def _put(code: int, place: int) -> int:
    """Write a character as UTF-8 at an address; gives the address behind it."""
    if code < 0x80:
        _set_byte(place, code)
        return place + 1
    size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    _set_byte(place, (0xF00 >> size) | (code >> 6 * (size - 1)))
    for more in range(1, size):
        _set_byte(place + more, 0x80 | ((code >> 6 * (size - 1 - more)) & 0x3F))
    return place + size


@_compiled
def _clean_word(start: int, end: int, rules: int, classes: int, lower: int, word: int, room: int) -> Any:
    """Clean a token character by character into `word`: its bytes, characters, and whether all are letters.

    Of a token of more than `room` bytes the rest is counted and not written.
    """
    target, characters, alphabetic = word, 0, True
    while start < end:
        code, taken = _character(start, end)
        start += taken
        if _byte(classes + code) & _VANISHES:
            continue
        if rules & _LOWERCASE:
            code = _int32(lower + 4 * code)
        characters += 1
        alphabetic &= (_byte(classes + code) & _ALPHABETIC) != 0
        if target - word <= room:
            target = _put(code, target)
    for more in range(INLINE):
        _set_byte(target + more, 0)
    return target - word, characters, alphabetic


@_compiled
def _tag_end(place: int, end: int) -> int:
    """The address behind the tag that begins with the `<` at an address; that address where none begins."""
    if place + 1 >= end:
        return place
    after = _byte(place + 1)
    if not (97 <= after | 0x20 <= 122 or after in (_SLASH, _EXCLAMATION)):
        return place
    for more in range(place + 2, end):
        byte = _byte(more)
        if byte == _GREATER:
            return more + 1
        if byte == _LESS:
            return place
    return place


@_compiled
def _is_reference(place: int, end: int) -> Any:
    """Whether `html.unescape` may take what follows an ampersand for a character reference."""
    if place + 1 >= end:
        return False
    first, second = _byte(place), _byte(place + 1)
    if first == _NUMBER:
        return 48 <= second <= 57 or second | 0x20 == _HEXADECIMAL
    if first < 0x80 and (_OPEN_REFERENCES[first] >> np.uint64(second & 63)) & _U1:
        return True
    # Any other name ends with a semicolon and has none of these before it; the longest has 31 letters.
    for more in range(place, min(end, place + 32)):
        byte = _byte(more)
        if byte == _SEMICOLON:
            return more > place
        if byte in (9, 10, 12, 32, 35, 38, 60):
            return False
    return False


@_compiled
def _html(base: int, end: int, less: np.uint64, ampersand: np.uint64, forced: int) -> Any:
    """A block's tags: the bytes they take, up to where they reach, and whether there may be a character reference."""
    boundary = _U0
    while less:
        bit = lowest(less)
        less &= less - _U1
        if base + bit >= forced:
            stop = _tag_end(base + bit, end)
            if stop > base + bit:
                forced = stop
                boundary |= _run(bit, stop - base)
    while ampersand:
        place = base + lowest(ampersand) + 1
        ampersand &= ampersand - _U1
        if _is_reference(place, end):
            return boundary, forced, True
    return boundary, forced, False


@_compiled
def _beyond_ascii(base: int, end: int, high: np.uint64, forced: int, decoded: int, classes: int) -> Any:
    """A block's other characters: separators, up to where they reach, and whether one needs the whole text."""
    boundary = _U0
    while high:
        bit = lowest(high)
        high &= high - _U1
        if base + bit < decoded:
            continue
        code, size = _character(base + bit, end)
        decoded = base + bit + size
        kind = _byte(classes + code)
        if kind & _WHOLE_TEXT:
            return boundary, forced, decoded, True
        if kind & _BOUNDARY:
            forced = max(forced, decoded)
            boundary |= _run(bit, bit + size)
    return boundary, forced, decoded, False


@_inlined
def _code(
    start: int,
    end: int,
    limit: int,
    dirty: bool,
    rules: int,
    least: int,
    classes: int,
    lower: int,
    slots: int,
    shift: np.uint64,
    blob: int,
    longest: int,
    word: int,
) -> Any:
    """A token's code: 0 where cleaning drops it, -1 where the vocabulary lacks it, else its id."""
    size = end - start
    if dirty:
        size, characters, alphabetic = _clean_word(start, end, rules, classes, lower, word, longest)
        if characters == 0 or characters < least or (rules & _ALPHABETIC_ONLY and not alphabetic):
            return 0
        start = word
    elif size < least:
        return 0
    elif end + INLINE > limit:
        # Behind the last text's last word nothing may be read.
        for place in range(min(size, longest)):
            _set_byte(word + place, _byte(start + place))
        start = word
    if size > longest:
        return -1
    return np.int64(_number(_slot(start, size, slots, shift, blob) + 16) >> _U32) - 1


@_compiled
def encode_rows(
    data: Bytes,
    offsets: npt.NDArray[np.int64],
    rules: int,
    least: int,
    classes: Bytes,
    lower: npt.NDArray[np.int32],
    table: Any,
    unknown_id: int,
    ids: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    words: npt.NDArray[np.int32],
    known: npt.NDArray[np.int32],
    whole: npt.NDArray[np.bool_],
) -> None:
    """Encode texts that lie one after the other.

    Args:
        data: uint8, UTF-8.
        offsets: int64[n + 1], where each text starts and ends in `data`.
        rules: as `rule_bits` gives them.
        least: fewest characters of a word.
        classes: uint8[0x110000], what each character is; see `characters`.
        lower: int32[0x110000], each character in lower case.
        table: the words, as `table` makes it.
        unknown_id: id of words that the vocabulary lacks, where the rules share one.
        ids: int32, filled with the ids; has room for half of the bytes and one a text.
        ends: int64[n + 1], filled with where each text's ids start and end.
        words: int32[n], filled with the words that cleaning keeps.
        known: int32[n], filled with those of them that the vocabulary has.
        whole: bool[n], set for texts that need rules beyond a character; they get no ids.
    """
    slot_array, shift, blob_array, longest = table
    slots, blob = slot_array.ctypes.data, blob_array.ctypes.data
    class_of, lower_of = classes.ctypes.data, lower.ctypes.data
    edge_array = np.full(BLOCK, 32, np.uint8)
    word_array = np.zeros(longest + 4 + 2 * INLINE, np.uint8)
    edge, word = edge_array.ctypes.data, word_array.ctypes.data
    text = data.ctypes.data
    limit = text + len(data)
    share = (rules & _SHARE) != 0
    count = 0
    ends[0] = 0
    for row in range(len(offsets) - 1):
        base, end = text + offsets[row], text + offsets[row + 1]
        first, row_words, row_known = count, 0, 0
        forced = decoded = base
        opened, opened_dirty, carry, needs_whole = 0, False, _U0, False
        while (base < end or opened) and not needs_whole:
            block = base
            if base + BLOCK > limit:
                block = edge
                for place in range(BLOCK):
                    _set_byte(edge + place, _byte(base + place) if base + place < limit else 32)
            space, mark, upper, letter, high, apostrophe, less, ampersand = _masks(block)
            inside = _run(0, end - base)
            boundary, vanishing, dirty = space | ~inside, _U0, high
            if rules & _SPLIT:
                boundary |= mark & ~apostrophe
                vanishing = apostrophe
            if rules & _REMOVE:
                vanishing = mark
            if rules & _LOWERCASE:
                dirty |= upper
            if rules & _ALPHABETIC_ONLY:
                dirty |= ~letter
            if forced > base:
                boundary |= _run(0, forced - base)
            if rules & _STRIP_HTML and (less | ampersand) & inside:
                more, forced, needs_whole = _html(base, end, less & inside, ampersand & inside, forced)
                boundary |= more
            high &= ~boundary
            if high and not needs_whole:
                more, forced, decoded, needs_whole = _beyond_ascii(base, end, high, forced, decoded, class_of)
                boundary |= more
            # What vanishes at a word's edge might as well part words; so most words stay as they are.
            for _ in range(2):
                boundary |= vanishing & ((boundary << _U1) | (boundary >> _U1))
            dirty |= vanishing
            token = ~boundary
            before = (token << _U1) | carry
            starts, stops, carry = token & ~before, boundary & before, token >> np.uint64(BLOCK - 1)
            while stops:
                stop = lowest(stops)
                stops &= stops - _U1
                bit = 0
                start, is_dirty = opened, opened_dirty
                if not opened:
                    bit = lowest(starts)
                    starts &= starts - _U1
                    start, is_dirty = base + bit, False
                opened = 0
                is_dirty |= (dirty & _run(bit, stop)) != _U0
                code = _code(
                    start,
                    base + stop,
                    limit,
                    is_dirty,
                    rules,
                    least,
                    class_of,
                    lower_of,
                    slots,
                    shift,
                    blob,
                    longest,
                    word,
                )
                # Without branches: whether a word is known is what no processor foresees.
                row_words += code != 0
                row_known += code > 0
                ids[count] = code if code > 0 else unknown_id
                count += (code > 0) | ((code < 0) & share)
            if starts:
                opened, opened_dirty = base + lowest(starts), (dirty & _run(lowest(starts), BLOCK)) != _U0
            elif opened:
                opened_dirty |= dirty != _U0
            base += BLOCK
        if needs_whole:
            count, row_words, row_known = first, 0, 0
        whole[row] = needs_whole
        words[row], known[row] = row_words, row_known
        ends[row + 1] = count


def rule_bits(rules: CleaningRules, share: bool) -> int:
    """The rules as `encode_rows` takes them."""
    chosen = (
        (_STRIP_HTML, rules.strip_html),
        (_LOWERCASE, rules.lowercase),
        (_REMOVE, rules.punctuation == "remove"),
        (_SPLIT, rules.punctuation == "split"),
        (_ALPHABETIC_ONLY, rules.alphabetic_only),
        (_SHARE, share),
    )
    return sum(bit for bit, on in chosen if on)


@lru_cache(maxsize=4)
def characters(punctuation: str, lowercase: bool) -> tuple[Bytes, npt.NDArray[np.int32]]:
    """What each character is, uint8[0x110000], and its lower case, int32 (of length 1 where case is kept)."""
    letters = np.arange(sys.maxunicode + 1, dtype=np.uint32).view("<U1")
    classes = np.where(np.strings.isalpha(letters), _ALPHABETIC, 0)
    classes |= np.where(np.strings.isspace(letters), _BOUNDARY, 0)
    if punctuation == "split":
        for code, becomes in marks().items():
            classes[code] |= _BOUNDARY if becomes else _VANISHES
    elif punctuation == "remove":
        classes[[ord(mark) for mark in string.punctuation]] |= _VANISHES
    if not lowercase:
        return classes.astype(np.uint8), np.zeros(1, np.int32)
    # What these become depends on their neighbours, or is two characters.
    for letter in "\N{GREEK CAPITAL LETTER SIGMA}\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}":
        classes[ord(letter)] |= _WHOLE_TEXT
    return classes.astype(np.uint8), np.strings.lower(letters).view(np.uint32).astype(np.int32)


def table(words: Sequence[str], codes: npt.NDArray[np.int64]) -> Any:
    """Words and their codes as `encode_rows` takes them; of two equal words the first counts.

    Returns:
        Slots (uint64, four a slot: first 8 bytes, next 8 bytes or a hash of the rest, code + 1 and length, place in the
        blob), shift from a hash to a slot, all words' bytes, and how many bytes the longest has.
    """
    encoded = [word.encode() for word in words]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(word) for word in encoded], out=offsets[1:])
    blob = np.frombuffer(b"".join(encoded) + bytes(2 * INLINE), np.uint8)
    bits = max(4, (2 * len(encoded)).bit_length())
    slots, shift = np.zeros(_SLOT_BYTES // 8 << bits, np.uint64), np.uint64(64 - bits)
    _fill(blob, offsets, codes, slots, shift)
    return slots, shift, blob, max(map(len, encoded), default=0)
