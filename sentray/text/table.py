"""`table`: words and their codes in a hash table for compiled code, which never takes a word for another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sentray.text import hashing
from sentray.text.simd import address, byte_at, compiled, inlined, number_at

Bytes = npt.NDArray[np.uint8]

INLINE = 16
"""Bytes of a word that its slot of the table holds itself; as many must be readable after any word."""

_MIX_1, _MIX_2, _MIX_3 = (np.uint64(prime) for prime in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_U0, _U1, _U29, _U32 = (np.uint64(number) for number in (0, 1, 29, 32))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LENGTH = np.uint64(0xFFFFFFFF)
_SLOT_BYTES = 32
_FINAL_1, _FINAL_2, _U33 = (np.uint64(number) for number in (hashing.FACTOR_1, hashing.FACTOR_2, 33))


@inlined
def _first(number: np.uint64, count: int) -> np.uint64:
    """A number's first `count` bytes; none where `count` is below 1."""
    if count >= 8:
        return number
    return _U0 if count <= 0 else number & ((_U1 << np.uint64(8 * count)) - _U1)


@inlined
def _key(start: int, length: int) -> Any:
    """Two numbers: a word of up to 16 bytes itself, else its beginning and a hash of the rest."""
    head, tail = _first(number_at(start), length), _first(number_at(start + 8), length - 8)
    for offset in range(INLINE, length, 8):
        tail = (tail ^ _first(number_at(start + offset), length - offset)) * _MIX_1
        tail ^= tail >> _U29
    return head, tail


@compiled
def _same(left: int, right: int, length: int) -> bool:
    """Whether the bytes at two addresses are the same."""
    for offset in range(length):  # noqa: SIM110
        if byte_at(left + offset) != byte_at(right + offset):
            return False
    return True


@inlined
def find_slot(start: int, length: int, slots: int, shift: np.uint64, blob: int) -> Any:
    """Where the table has a word, or the free slot where it would be."""
    head, tail = _key(start, length)
    mixed = (head * _MIX_1) ^ (tail * _MIX_2)
    mixed = (mixed ^ (mixed >> _U32)) * _MIX_3
    index = mixed >> shift
    while True:
        slot = slots + np.int64(index) * _SLOT_BYTES
        meta = number_at(slot + 16)
        if meta == _U0:
            return slot
        equal = number_at(slot) == head and number_at(slot + 8) == tail and (meta & _LENGTH) == np.uint64(length)
        # Two words may have the same hash.
        if equal and (length <= INLINE or _same(start, blob + np.int64(number_at(slot + 24)), length)):
            return slot
        index = (index + _U1) & (_ALL >> shift)


@compiled
def _fill(blob: Bytes, offsets: Any, codes: Any, slots: Any, shift: np.uint64) -> None:
    """Put words into an empty table; of two equal words the first counts."""
    first, text = address(slots), address(blob)
    for word in range(len(codes)):
        length = offsets[word + 1] - offsets[word]
        slot = (find_slot(text + offsets[word], length, first, shift, text) - first) // 8
        if slots[slot + 2] == _U0:
            slots[slot], slots[slot + 1] = _key(text + offsets[word], length)
            slots[slot + 2] = (np.uint64(codes[word] + 1) << _U32) | np.uint64(length)
            slots[slot + 3] = np.uint64(offsets[word])


@inlined
def code_in(slot: int) -> Any:
    """The code of the word in a slot, -1 where the slot is free."""
    return np.int64(number_at(slot + 16) >> _U32) - 1


@inlined
def hashed_code(start: int, length: int) -> Any:
    """The code of the word of so many bytes at an address, as `hashing.word_code` defines it."""
    number = np.uint64(length)
    for offset in range(0, length, 8):
        number ^= _first(number_at(start + offset), length - offset)
        number = (number ^ (number >> _U33)) * _FINAL_1
        number = (number ^ (number >> _U33)) * _FINAL_2
        number ^= number >> _U33
    return max(np.int64(number >> _U33), 1)


def table(words: Sequence[str], codes: npt.NDArray[np.int64], *, sparse: bool = False) -> Any:
    """Words and their codes in a table for compiled code; of two equal words the first counts.

    Args:
        words: the words.
        codes: int64[words], not negative.
        sparse: leave most slots free, which is faster for words that are not in the table.

    Returns:
        Slots (uint64, four a slot: first 8 bytes, next 8 bytes or a hash of the rest, code + 1 and length, offset in
        the blob), shift from a hash to a slot, all words' bytes, and how many bytes the longest has.
    """
    encoded = [word.encode() for word in words]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(word) for word in encoded], out=offsets[1:])
    blob = np.frombuffer(b"".join(encoded) + bytes(2 * INLINE), np.uint8)
    bits = max(4, (2 * len(encoded)).bit_length()) + (3 if sparse else 0)
    slots, shift = np.zeros(_SLOT_BYTES // 8 << bits, np.uint64), np.uint64(64 - bits)
    _fill(blob, offsets, codes, slots, shift)
    return slots, shift, blob, max(map(len, encoded), default=0)
