"""What each character is for the cleaning rules, and UTF-8 read and written by compiled code."""

import string
import sys
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sentray.native import byte_at, compiled, set_byte
from sentray.text.cleaning import marks

ALPHABETIC, BOUNDARY, VANISHES, WHOLE_TEXT = 1, 2, 4, 8
"""Bits of a character's class: a letter, a separator, deleted, changed by a rule that looks at its neighbours too."""

_NO_CHARACTER = 0xFFFD


@compiled
def character(place: int, end: int) -> Any:
    """The character at an address and its bytes; what is no UTF-8 counts as U+FFFD, a byte each."""
    lead = byte_at(place)
    if lead < 0x80:
        return lead, 1
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC0 or lead > 0xF4 or place + size > end:
        return _NO_CHARACTER, 1
    code = lead & (0x7F >> size)
    for more in range(1, size):
        code = (code << 6) | (byte_at(place + more) & 0x3F)
    return (code, size) if code < 0x110000 else (_NO_CHARACTER, 1)


@compiled
def put(code: int, place: int) -> int:
    """Write a character as UTF-8 at an address; gives the address behind it."""
    if code < 0x80:
        set_byte(place, code)
        return place + 1
    size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    set_byte(place, (0xF00 >> size) | (code >> 6 * (size - 1)))
    for more in range(1, size):
        set_byte(place + more, 0x80 | ((code >> 6 * (size - 1 - more)) & 0x3F))
    return place + size


@lru_cache(maxsize=4)
def characters(punctuation: str, lowercase: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """What each character is, uint8[0x110000], and its lower case, int32 (of length 1 where case is kept)."""
    letters = np.arange(sys.maxunicode + 1, dtype=np.uint32).view("<U1")
    classes = np.where(np.strings.isalpha(letters), ALPHABETIC, 0)
    classes |= np.where(np.strings.isspace(letters), BOUNDARY, 0)
    if punctuation == "split":
        for code, becomes in marks().items():
            classes[code] |= BOUNDARY if becomes else VANISHES
    elif punctuation == "remove":
        classes[[ord(mark) for mark in string.punctuation]] |= VANISHES
    if not lowercase:
        return classes.astype(np.uint8), np.zeros(1, np.int32)
    # What these become depends on their neighbours, or is two characters.
    for letter in "\N{GREEK CAPITAL LETTER SIGMA}\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}":
        classes[ord(letter)] |= WHOLE_TEXT
    return classes.astype(np.uint8), np.strings.lower(letters).view(np.uint32).astype(np.int32)
