"""Rows of word vectors, compiled: from the bytes of a file straight to float32 rows and the words before them.

A line's end and the number of its fields come from masks of 64 bytes (see `sentray.text.simd`), so that a row whose
word is not wanted costs no look at its digits. Rows with a decimal that compiled code cannot read are left to Python.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from sentray.embeddings.decimals import is_blank, is_decimal, read_decimals
from sentray.text.simd import BLOCK, byte_at, byte_masks, compiled, inlined, int32_at, lowest, set_byte
from sentray.text.table import code_in, find_slot

REASONS = (
    "too few numbers",
    "too many numbers",
    "no single word",
    "a word that is not UTF-8",
    "something that is no number",
    "nan or infinity",
    "an end in the middle",
    "no row, though the header counts it",
)
"""What is wrong with a row."""
FEW, MANY, NO_WORD, NOT_UTF8, NO_NUMBER, NOT_FINITE, CUT, MISSING = range(len(REASONS))

# Places of what a scan counts: next byte, rows and bytes of words it gave, lines or rows it passed, good ones, rows for
# Python; then for each reason how many and the first one.
NEXT, ROWS, WORD_BYTES, PASSED, GOOD, SLOW, BAD = range(7)
STATE = BAD + 2 * len(REASONS)

WORD_MAX = 1 << 16
"""Longest word of a binary file, in bytes: behind a damaged row anything may look like a word's beginning."""
TOO_LONG = -1
"""What `scan_binary` gives where a word is longer."""

_U0, _U1 = np.uint64(0), np.uint64(1)
_SPACE, _RETURN, _NEWLINE = b" \r\n"

_masks = byte_masks(b"\n", b" \t")


@intrinsic
def _count_ones(_: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@compiled
def _valid_utf8(place: int, end: int) -> bool:
    """Whether bytes are UTF-8 as Python's strict decoder has it."""
    while place < end:
        first = byte_at(place)
        place += 1
        if first < 0x80:
            continue
        if first < 0xC2 or first > 0xF4:
            return False
        more = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
        if place + more > end:
            return False
        second = byte_at(place)
        # No overlong forms, no surrogates, nothing above U+10FFFF.
        least = 0xA0 if first == 0xE0 else 0x90 if first == 0xF0 else 0x80
        most = 0x9F if first == 0xED else 0x8F if first == 0xF4 else 0xBF
        if second < least or second > most:
            return False
        for further in range(1, more):
            if byte_at(place + further) & 0xC0 != 0x80:
                return False
        place += more
    return True


@inlined
def _is_wanted(start: int, length: int, slots: int, shift: np.uint64, blob: int) -> bool:
    """Whether the table has a word; every word is wanted where there is no table."""
    return slots == 0 or code_in(find_slot(start, length, slots, shift, blob)) >= 0


@compiled
def _copy_word(start: int, length: int, target: int) -> None:
    for place in range(length):
        set_byte(target + place, byte_at(start + place))
    set_byte(target + length, _NEWLINE)


@compiled
def _bad(state: Any, reason: int) -> None:
    """Count the row that is just passed."""
    if state[BAD + 2 * reason] == 0:
        state[BAD + 2 * reason + 1] = state[PASSED]
    state[BAD + 2 * reason] += 1


@compiled
def _line(start: int, stop: int) -> Any:
    """The end of the line that begins at an address, and its number of fields; an end of -1 where none lies before."""
    fields, before, place = 0, _U1, start
    while place < stop:
        newline, blank = _masks(place)
        if stop - place < BLOCK:
            newline &= (_U1 << np.uint64(stop - place)) - _U1
        starts = ~blank & ((blank << _U1) | before)
        before = blank >> np.uint64(BLOCK - 1)
        if newline != _U0:
            last = lowest(newline)
            return place + last, fields + _count_ones(starts & ((_U1 << np.uint64(last)) - _U1))
        fields += _count_ones(starts)
        place += BLOCK
    return -1, 0


@inlined
def _field_end(place: int, end: int) -> int:
    while place < end and not is_blank(byte_at(place)):
        place += 1
    return place


@inlined
def _field_start(place: int, end: int) -> int:
    while place < end and is_blank(byte_at(place)):
        place += 1
    return place


@compiled
def _word(start: int, end: int, fields: int) -> Any:
    """Where the word that so many fields make begins and ends, and whether one but the first of them is a decimal."""
    start = _field_start(start, end)
    after, number = _field_end(start, end), False
    for _ in range(fields - 1):
        last = _field_start(after, end)
        after = _field_end(last, end)
        number |= is_decimal(last, after)
    return start, after, number


@compiled
def scan_text(
    start: int, stop: int, cut: bool, dimensions: int, rows: int, room: int, words: int,
    slots: int, shift: np.uint64, blob: int, slow: Any, state: Any,
) -> None:  # fmt: skip
    """Read the whole lines between two addresses, as many as there is room for.

    Args:
        start: the first byte.
        stop: behind the last; 64 more must be readable.
        cut: whether the last line has no newline of its own in the file.
        dimensions: numbers of a row.
        rows: address for float32 rows.
        room: how many rows fit there.
        words: address for the words, a newline behind each.
        slots: address of a table of the words to keep (see `sentray.text.table`), 0 for all.
        shift: of the table.
        blob: of the table.
        slow: int64[room, 4], gets row, address and end of the numbers, and line, of each row that is left to Python.
        state: int64[STATE], what is counted.
    """
    place = start
    while state[ROWS] < room:
        newline, fields = _line(place, stop)
        if newline < 0:
            break
        end = newline
        if end > place and byte_at(end - 1) == _RETURN:
            end -= 1
            if end == place or is_blank(byte_at(end - 1)):
                fields -= 1
        begin, place = place, newline + 1
        state[PASSED] += 1
        if fields == 0:
            continue
        if fields <= dimensions:
            _bad(state, CUT if cut and place >= stop else FEW)
            continue
        word, after, number = _word(begin, end, fields - dimensions)
        # A word may have spaces, but where numbers are in it the row is too long.
        if number:
            _bad(state, MANY)
        elif not _valid_utf8(word, after):
            _bad(state, NOT_UTF8)
        elif not _is_wanted(word, after - word, slots, shift, blob):
            state[GOOD] += 1
        else:
            row = state[ROWS]
            if read_decimals(after, end, dimensions, rows + 4 * row * dimensions):
                state[GOOD] += 1
            else:
                left = slow[state[SLOW]]
                left[0], left[1], left[2], left[3] = row, after, end, state[PASSED]
                state[SLOW] += 1
            _copy_word(word, after - word, words + state[WORD_BYTES])
            state[WORD_BYTES] += after - word + 1
            state[ROWS] += 1
    state[NEXT] = place


@compiled
def _finite(start: int, dimensions: int) -> bool:
    """Whether no float32 of a row has all bits of the exponent."""
    finite = True
    for place in range(dimensions):
        finite &= bool(int32_at(start + 4 * place) & 0x7F800000 != 0x7F800000)
    return finite


@compiled
def scan_binary(
    start: int, stop: int, dimensions: int, rows: int, room: int, words: int,
    slots: int, shift: np.uint64, blob: int, state: Any,
) -> None:  # fmt: skip
    """The same for word2vec's binary rows: a word, a space, float32 numbers of the low byte first.

    Where a word is too long to be one, `state[NEXT]` becomes `TOO_LONG`.
    """
    place = start
    while state[ROWS] < room:
        # The original tool writes a newline behind each row, gensim does not.
        word = place
        while word < stop and byte_at(word) == _NEWLINE:
            word += 1
        after = word
        single = True
        while after < stop and after - word <= WORD_MAX and byte_at(after) != _SPACE:
            single &= byte_at(after) != _NEWLINE
            after += 1
        if after - word > WORD_MAX:
            state[NEXT] = TOO_LONG
            return
        numbers = after + 1
        if numbers + 4 * dimensions > stop:
            break
        place = numbers + 4 * dimensions
        state[PASSED] += 1
        if word == after or not single:
            _bad(state, NO_WORD)
        elif not _valid_utf8(word, after):
            _bad(state, NOT_UTF8)
        elif not _is_wanted(word, after - word, slots, shift, blob):
            state[GOOD] += 1
        elif not _finite(numbers, dimensions):
            _bad(state, NOT_FINITE)
        else:
            state[GOOD] += 1
            target = rows + 4 * state[ROWS] * dimensions
            for byte in range(4 * dimensions):
                set_byte(target + byte, byte_at(numbers + byte))
            _copy_word(word, after - word, words + state[WORD_BYTES])
            state[WORD_BYTES] += after - word + 1
            state[ROWS] += 1
    state[NEXT] = place
