"""What each character means to the cleaning rules, and UTF-8, tags and references of HTML read by compiled code."""

import string
import sys
import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sentray.text import unicode_words
from sentray.text.cleaning import CleaningRules, marks
from sentray.text.simd import byte_at, compiled, int64_at, set_byte

ALPHABETIC, BOUNDARY, VANISHES, WHOLE_TEXT = 1, 2, 4, 8
"""Bits of a character's class: a letter, a separator, deleted, changed by a rule that looks at its neighbours too."""
WORD, DIGIT, ALONE, FOLLOWS, COMPOSES = 16, 32, 64, 128, 256
"""Further bits for Unicode words: of a word, a digit, a word of its own, what may follow that, the second of a pair."""
ORDER, LAST_ORDER = 16, 24
"""Where its combining class begins, and that of the last character of its canonical decomposition."""
EXPANDS = sys.maxunicode + 1
"""In place of a character that becomes two, for which `pair` has these."""

Tables = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], npt.NDArray[np.int64]]

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


@compiled
def pair(first: int, second: int, pairs: int, count: int) -> Any:
    """What two characters become together, or where the second is 0 the two that the first becomes; 0 for nothing."""
    key, low = first << 21 | second, 0
    while count > low:
        middle = (low + count) // 2
        found = int64_at(pairs + 16 * middle)
        if found == key:
            return int64_at(pairs + 16 * middle + 8)
        if found < key:
            low = middle + 1
        else:
            count = middle
    return 0


def characters(rules: CleaningRules) -> Tables:
    """What each character means to rules.

    Returns:
        Its class, uint32[0x110000]; its lower case or what else it becomes, int32 (of length 1 where it stays); and for
        Unicode words the pairs that `pair` looks up, int64[n, 2], sorted.
    """
    if rules.punctuation == "words":
        return _of_words(rules.lowercase, rules.segment is not None)
    return _of_text(rules.punctuation, rules.lowercase)


@lru_cache(maxsize=4)
def _of_text(punctuation: str, lowercase: bool) -> Tables:
    letters = _letters()
    classes = np.where(np.strings.isalpha(letters), ALPHABETIC, 0)
    classes |= np.where(np.strings.isspace(letters), BOUNDARY, 0)
    none = np.zeros((1, 2), np.int64)
    if punctuation == "split":
        for code, becomes in marks().items():
            classes[code] |= BOUNDARY if becomes else VANISHES
    elif punctuation == "remove":
        classes[[ord(mark) for mark in string.punctuation]] |= VANISHES
    if not lowercase:
        return classes.astype(np.uint32), np.zeros(1, np.int32), none
    # What these become depends on their neighbours, or is two characters.
    for letter in "\N{GREEK CAPITAL LETTER SIGMA}\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}":
        classes[ord(letter)] |= WHOLE_TEXT
    return classes.astype(np.uint32), np.strings.lower(letters).view(np.uint32).astype(np.int32), none


_BITS = {
    unicode_words.ALONE: ALONE,
    unicode_words.SKIN_TONE: ALONE | FOLLOWS,
    unicode_words.FLAG: ALONE,
    unicode_words.JOINER: WORD,
    unicode_words.VANISHES: WORD | VANISHES | FOLLOWS,
    unicode_words.MARK: WORD | FOLLOWS,
    unicode_words.LETTER: WORD,
    unicode_words.DIGIT: WORD | DIGIT,
    unicode_words.SPACE: BOUNDARY,
}
# Those beyond are letters, but for variation selectors and tags.
_ASSIGNED = (*range(0x32000), *range(0xE0000, 0xE0200))
# A consonant or vowel that composes with the syllable before it.
_JAMO = ((0x1161, 0x1176), (0x11A8, 0x11C3))


@lru_cache(maxsize=2)
def _of_words(lowercase: bool, segmented: bool) -> Tables:
    letters = _letters()
    classes = np.where(np.strings.isalpha(letters), ALPHABETIC, 0).astype(np.uint32)
    becomes = np.arange(len(letters), dtype=np.int32)
    pairs: dict[int, int] = {}
    others = np.ones(len(letters), np.bool_)
    others[list(_ASSIGNED)] = False
    classes[others] |= WORD
    for code in _ASSIGNED:
        letter, kind = chr(code), unicode_words.kind(code, segmented)
        classes[code] |= _BITS.get(kind, WORD if kind.isalpha() else WORD | DIGIT if kind.isdigit() else 0)
        if kind == "'":
            becomes[code] = ord(kind)
            continue
        into, found = unicode_words.lower(letter) if lowercase else letter, unicodedata.decomposition(letter)
        if order := unicodedata.combining(letter):
            classes[code] |= order << ORDER | order << LAST_ORDER
        # One that begins with `<` is for compatibility alone.
        if found and found[0] != "<":
            whole, parts = unicodedata.normalize("NFD", letter), [int(part, 16) for part in found.split(" ")]
            classes[code] |= unicodedata.combining(whole[-1]) << LAST_ORDER
            if len(parts) == 2 and unicodedata.normalize("NFC", letter) == letter:
                pairs[parts[0] << 21 | parts[1]] = code
                classes[parts[1]] |= COMPOSES
            into = unicodedata.normalize("NFC", into)
        if len(into) == 1:
            becomes[code] = ord(into)
        elif len(into) == 2:
            becomes[code], pairs[code << 21] = EXPANDS, ord(into[0]) | ord(into[1]) << 21
        else:
            classes[code] |= WHOLE_TEXT
    for first, end in _JAMO:
        classes[first:end] |= WHOLE_TEXT
    return classes, becomes, np.array(sorted(pairs.items()), np.int64)


def _letters() -> npt.NDArray[np.str_]:
    return np.arange(sys.maxunicode + 1, dtype=np.uint32).view("<U1")
