"""What each character means to the cleaning rules, and UTF-8, tags and references of HTML read by compiled code."""

import string
import sys
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sentray.text.cleaning import marks
from sentray.text.simd import byte_at, compiled, set_byte

ALPHABETIC, BOUNDARY, VANISHES, WHOLE_TEXT = 1, 2, 4, 8
"""Bits of a character's class: a letter, a separator, deleted, changed by a rule that looks at its neighbours too."""

_NO_CHARACTER = 0xFFFD
_LESS, _GREATER, _SLASH, _EXCLAMATION, _NUMBER = b"<>/!#"


@compiled
def character(address: int, end: int) -> Any:
    """The character at an address and its bytes; invalid UTF-8 counts as U+FFFD, a byte each."""
    lead = byte_at(address)
    if lead < 0x80:
        return lead, 1
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC0 or lead > 0xF4 or address + size > end:
        return _NO_CHARACTER, 1
    code = lead & (0x7F >> size)
    for more in range(1, size):
        code = (code << 6) | (byte_at(address + more) & 0x3F)
    return (code, size) if code < 0x110000 else (_NO_CHARACTER, 1)


@compiled
def put(code: int, address: int) -> int:
    """Write a character as UTF-8 at an address; returns the address after it."""
    if code < 0x80:
        set_byte(address, code)
        return address + 1
    size = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    set_byte(address, (0xF00 >> size) | (code >> 6 * (size - 1)))
    for more in range(1, size):
        set_byte(address + more, 0x80 | ((code >> 6 * (size - 1 - more)) & 0x3F))
    return address + size


@compiled
def tag_end(address: int, end: int) -> int:
    """The address after the tag that begins with the `<` at an address; that address where no tag begins."""
    if address + 1 >= end:
        return address
    after = byte_at(address + 1)
    if not (97 <= after | 0x20 <= 122 or after in (_SLASH, _EXCLAMATION)):
        return address
    for more in range(address + 2, end):
        byte = byte_at(more)
        if byte == _GREATER:
            return more + 1
        if byte == _LESS:
            return address
    return address


@compiled
def is_reference(address: int, end: int) -> Any:
    """Whether `html.unescape` may take what follows an ampersand for a character reference: `#`, or a letter of one."""
    if address == end:
        return False
    first = byte_at(address)
    return first == _NUMBER or 97 <= first | 0x20 <= 122


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
