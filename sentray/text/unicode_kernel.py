"""What `sentray.text.unicode_words` defines, compiled: where words begin in a block of text, and how one is written."""

import string
from typing import Any

import numpy as np

from sentray.text.characters import (
    ALONE,
    ALPHABETIC,
    BOUNDARY,
    COMPOSES,
    DIGIT,
    EXPANDS,
    FOLLOWS,
    LAST_ORDER,
    ORDER,
    VANISHES,
    WHOLE_TEXT,
    WORD,
    character,
    pair,
    put,
)
from sentray.text.simd import BLOCK, byte_at, byte_masks, compiled, int32_at, lowest, run, set_byte
from sentray.text.table import INLINE

_U0, _U1 = np.uint64(0), np.uint64(1)
_APOSTROPHE, _HYPHEN, _THREE, _LESS, _SLASH, _FULL_STOP, _COMMA = b"'-3</.,"
_COLON, _SEMICOLON, _EQUALS = b":;="
_JOINER, _FIRST_FLAG, _LAST_FLAG = 0x200D, 0x1F1E6, 0x1F1FF
_ORDERS, _CODE = 0xFF, (1 << 21) - 1

# Which bytes are white space or controls, of words, digits, capitals, beyond ASCII, an apostrophe, a full stop or
# comma, an emoticon's mouth, what stands before that, `<`, `&`.
masks = byte_masks(
    bytes([*range(33), 127]),
    (string.ascii_letters + string.digits).encode(),
    string.digits.encode(),
    string.ascii_uppercase.encode(),
    bytes(range(128, 256)),
    b"'",
    b".,",
    b"DPOdpo3",
    b":;=-</",
    b"<",
    b"&",
)


@compiled
def _class_at(address: int, end: int, classes: int) -> Any:
    """The class of the character at an address, and the address after it."""
    if address >= end:
        return 0, address
    code, size = character(address, end)
    return int32_at(classes + 4 * code), address + size


@compiled
def _class_before(address: int, begin: int, end: int, classes: int) -> Any:
    """The class of the character that ends at an address."""
    start = address - 1
    while start > begin and byte_at(start) & 0xC0 == 0x80:
        start -= 1
    return _class_at(start, end, classes)[0] if address > begin else 0


@compiled
def _is_mouth(address: int, begin: int, end: int, classes: int, becomes: int) -> Any:
    """Whether a letter or a 3 is the end of an emoticon."""
    eyes = address - 1
    between = _SLASH if byte_at(address) == _THREE else _HYPHEN
    if eyes > begin and byte_at(eyes) == between:
        eyes -= 1
    if eyes < begin:
        return False
    byte = byte_at(eyes)
    if byte_at(address) == _THREE:
        if byte != _LESS:
            return False
    elif byte not in (_COLON, _SEMICOLON, _EQUALS):
        return False
    kind, after = _class_at(address + 1, end, classes)
    if after > address + 1:
        code = character(address + 1, end)[0]
        if code in (_FULL_STOP, _COMMA) or int32_at(becomes + 4 * code) == _APOSTROPHE:
            kind = _class_at(after, end, classes)[0]
    return kind & WORD == 0


@compiled
def _turned(base: int, begin: int, end: int, maybe: np.uint64, classes: int, becomes: int) -> np.uint64:
    """Of ASCII characters those that are of a word only for their neighbours, or only for these are not."""
    turned = _U0
    while maybe:
        bit = lowest(maybe)
        maybe &= maybe - _U1
        at = base + bit
        byte = byte_at(at)
        if byte == _APOSTROPHE or byte in (_FULL_STOP, _COMMA):
            wanted = WORD if byte == _APOSTROPHE else DIGIT
            both = _class_before(at, begin, end, classes) & _class_at(at + 1, end, classes)[0]
            turns = both & wanted != 0
        else:
            turns = _is_mouth(at, begin, end, classes, becomes)
        if turns:
            turned |= run(bit, bit + 1)
    return turned


@compiled
def _picture_end(address: int, end: int, classes: int) -> int:
    """The address after the picture that begins at an address: an emoji with all that belongs to it, or another."""
    code, size = character(address, end)
    address += size
    if _FIRST_FLAG <= code <= _LAST_FLAG:
        if address < end:
            code, size = character(address, end)
            if _FIRST_FLAG <= code <= _LAST_FLAG:
                address += size
        return address
    while address < end:
        code, size = character(address, end)
        if code == _JOINER:
            kind, after = _class_at(address + size, end, classes)
            # A joined flag's letter is none of the picture.
            if kind & ALONE == 0 or _FIRST_FLAG <= character(address + size, end)[0] <= _LAST_FLAG:
                return address
            address = after
        elif int32_at(classes + 4 * code) & FOLLOWS:
            address += size
        else:
            return address
    return address


@compiled
def beyond_ascii(
    base: int,
    begin: int,
    end: int,
    high: np.uint64,
    cut: np.uint64,
    forced: int,
    decoded: int,
    classes: int,
    becomes: int,
) -> Any:
    """A block's characters beyond ASCII.

    Args:
        base: address of the block in its text.
        begin: address of the text.
        end: address after it.
        high: bits of the characters.
        cut: a bit where a picture that began before ends.
        forced: address up to which all is separators.
        decoded: address up to which the characters were looked at.
        classes: address of each character's class.
        becomes: address of what each character becomes.

    Returns:
        Bits of separators, of words, and of where pictures begin and end in the block; up to where separators, decoded
        characters and pictures reach; and whether one needs the whole text.
    """
    boundary, word, held = _U0, _U0, 0
    while high:
        bit = lowest(high)
        high &= high - _U1
        at = base + bit
        if at < decoded:
            continue
        code, size = character(at, end)
        decoded = at + size
        kind = int32_at(classes + 4 * code)
        if kind & WHOLE_TEXT:
            return boundary, word, cut, forced, decoded, held, True
        if kind & BOUNDARY:
            forced = max(forced, decoded)
            boundary |= run(bit, bit + size)
        elif kind & ALONE:
            held = decoded = _picture_end(at, end, classes)
            cut |= run(bit, bit + 1)
            if held < base + BLOCK:
                cut |= run(held - base, held - base + 1)
        elif kind & WORD:
            word |= run(bit, bit + size)
        elif int32_at(becomes + 4 * code) == _APOSTROPHE and cut & run(bit, bit + 1) == _U0:
            # What belongs to a picture before it may be of the kind that belongs to words.
            both = _class_before(at, begin, end, classes) & _class_at(decoded, end, classes)[0]
            if both & WORD:
                word |= run(bit, bit + size)
    return boundary, word, cut, forced, decoded, held, False


@compiled
def turned(
    base: int,
    begin: int,
    end: int,
    word: np.uint64,
    digit: np.uint64,
    found: Any,
    classes: int,
    becomes: int,
) -> np.uint64:
    """Of a block's ASCII characters those that are of a word only for their neighbours, or only for these are not."""
    apostrophe, point, mouth, eyes = found
    maybe = (apostrophe & (word << _U1 | _U1)) | (point & (digit << _U1 | _U1)) | (mouth & (eyes << _U1 | _U1))
    return _turned(base, begin, end, maybe, classes, becomes) if maybe else _U0


@compiled
def write_word(start: int, end: int, tables: Any, word: int, room: int) -> Any:
    """Write a token as a word in NFC: its bytes, characters, whether all are letters, and whether this can be done.

    It cannot where a mark has to move before another, or composes with a character that is not beside it. What a token
    has beyond `room` bytes is counted but not written.
    """
    classes, becomes, pairs, pair_count = tables
    target, characters, others = word, 0, 0
    starter, starter_at, beside, order, second = 0, word, False, 0, 0
    picture = _class_at(start, end, classes)[0] & ALONE != 0
    while start < end or second:
        if second:
            code, second = second, 0
        else:
            code, taken = character(start, end)
            start += taken
            if int32_at(classes + 4 * code) & VANISHES or (code == _JOINER and not picture):
                continue
            into = int32_at(becomes + 4 * code)
            if into == EXPANDS:
                both = pair(code, 0, pairs, pair_count)
                into, second = both & _CODE, both >> 21
            code = into
        kind = int32_at(classes + 4 * code)
        own_order = kind >> ORDER & _ORDERS
        if own_order and own_order < order:
            return 0, 0, False, False
        if kind & COMPOSES and starter and (beside or own_order > order):
            composed = pair(starter, code, pairs, pair_count)
            if composed:
                if not beside:
                    return 0, 0, False, False
                characters -= 1
                others -= int32_at(classes + 4 * starter) & ALPHABETIC == 0
                target, code = starter_at, composed
                kind, own_order = int32_at(classes + 4 * code), 0
        beside = own_order == 0
        if beside:
            starter, starter_at = code, target
        order = kind >> LAST_ORDER & _ORDERS
        characters += 1
        others += kind & ALPHABETIC == 0
        if target - word <= room:
            target = put(code, target)
    for more in range(INLINE):
        set_byte(target + more, 0)
    return target - word, characters, others == 0, True
