"""`unicode_words`: where words begin and end in text as people write it, after UAX #29, and how they are written.

Each character is replaced with an ASCII character that stands for its kind; a pattern over these finds the words.
`sentray.text.characters` makes the compiled code's table of the same kinds.
"""

import re
import unicodedata
from functools import lru_cache

ALONE, FLAG, SKIN_TONE, JOINER, VANISHES, MARK = "\x01", "\x02", "\x03", "\x04", "\x05", "\x06"
"""Kinds of characters that no ASCII character is of; see `kind`."""
LETTER, DIGIT, PUNCTUATION, SPACE = "a", "0", "!", " "

APOSTROPHES = "'\u2018\u2019\u02bc\uff07"
ZERO_WIDTH_JOINER = "\u200d"
_ZERO_WIDTH_SPACE = "\u200b"
_IDEOGRAPHS = ((0x3005, 0x3007), (0x3041, 0x309F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))
_IDEOGRAPHS_BEYOND = 0x20000

_WORD_CHARACTER = f"[0-9A-Za-z{JOINER}{VANISHES}{MARK}]"
# Eyes, perhaps a nose, and a letter for a mouth; a heart, or a broken one.
_EMOTICON = f"(?:[:;=]-?[DPOdpo]|</?3)(?!['.,]?{_WORD_CHARACTER})"
_PICTURE = f"[{ALONE}{SKIN_TONE}][{SKIN_TONE}{VANISHES}{MARK}]*"
_TOKEN = re.compile(
    f"{_WORD_CHARACTER}(?:{_WORD_CHARACTER}|'(?={_WORD_CHARACTER})|(?<=[0-9])[.,](?=[0-9]))*"
    f"|{_PICTURE}(?:{JOINER}{_PICTURE})*"
    f"|{FLAG}{FLAG}?"
    f"|(?:{_EMOTICON}|[!-/:-@\\[-`{{-~])+"
)
# One character in lower case whatever stands beside it, as Unicode's simple mappings have it.
_LOWER = {0x130: "i", 0x3A3: "\u03c3", 0x3C2: "\u03c3"}


def kind(code: int, segmented: bool = False) -> str:
    """The ASCII character that stands for a character: itself, or one for all of its kind.

    Args:
        code: the character.
        segmented: whether the text is segmented, so that ideographs are letters.

    Returns:
        `SPACE` for white space, controls and the zero-width space; `VANISHES` for other format characters (Cf) and
        variation selectors, but `JOINER` for the zero-width joiner; `ALONE` for symbols (So), all from U+1F000 to
        U+1FAFF, assigned yet or not, and ideographs, hiragana among them; `FLAG` for the letters that flags are made
        of; `MARK` (Mn, Mc, Me), `DIGIT` (Nd) and `PUNCTUATION` (P, S); `'` for apostrophes; `LETTER` for all others.
    """
    character = chr(code)
    if code < 0x80:
        return character if 0x20 < code < 0x7F else SPACE
    if character in APOSTROPHES:
        return "'"
    if character == _ZERO_WIDTH_SPACE:
        return SPACE
    if character == ZERO_WIDTH_JOINER:
        return JOINER
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return VANISHES
    if 0x1F000 <= code <= 0x1FAFF:
        return FLAG if 0x1F1E6 <= code <= 0x1F1FF else SKIN_TONE if 0x1F3FB <= code <= 0x1F3FF else ALONE
    category = unicodedata.category(character)
    if category == "So" or (not segmented and category[0] == "L" and _is_ideograph(code)):
        return ALONE
    if category in _BY_CATEGORY:
        return _BY_CATEGORY[category]
    return {"M": MARK, "P": PUNCTUATION, "S": PUNCTUATION, "Z": SPACE}.get(category[0], LETTER)


_BY_CATEGORY = {"Cc": SPACE, "Cf": VANISHES, "Nd": DIGIT}


def _is_ideograph(code: int) -> bool:
    return code >= _IDEOGRAPHS_BEYOND or any(first <= code <= last for first, last in _IDEOGRAPHS)


def unicode_words(text: str, lowercase: bool, segmented: bool = False) -> list[str]:
    """The words of a text, where punctuation and pictures are words too.

    - A word is letters, marks and digits (`1st`), also around one apostrophe (`don't`) and, between digits, around one
      full stop or comma (`3.5`). Format characters and variation selectors belong to it and vanish.
    - An emoji with all that belongs to it (skin tone, joined emoji, the second letter of a flag), another symbol, and
      an ideograph that no segmentation joined to others, are a word each.
    - A run of punctuation is a word, which spaces end and other words; the letter or digit of an emoticon (`:D`, `:-P`,
      `<3`) counts as punctuation, unless another follows.

    Apostrophes become `'`; lower case is of each character alone, with `i` for U+0130 and one sigma; NFC comes last.

    It departs from UAX #29 where readers of reviews gain by it or never meet it: a full stop or colon between letters
    parts words (people forget the space), so does `_`; runs of punctuation stay together; a digit beside an apostrophe
    does not end a word; marks after punctuation are words; languages of South-East Asia stay whole between spaces.

    Args:
        text: without tags.
        lowercase: whether to lower case.
        segmented: as `kind` takes it.
    """
    words = []
    for found in _TOKEN.finditer(text.translate(_kinds(segmented))):
        word = text[found.start() : found.end()]
        if not word.isascii():
            word = word.translate(_written(found[0][0] in (ALONE, SKIN_TONE)))
        words.append(unicodedata.normalize("NFC", lower(word) if lowercase else word))
    # What vanishes may stand alone.
    return [word for word in words if word]


def lower(word: str) -> str:
    """A word in lower case, character by character."""
    return word.translate(_LOWER).lower()


class _Kinds(dict[int, str]):
    """The kinds of the characters met."""

    def __init__(self, segmented: bool) -> None:
        self._segmented = segmented

    def __missing__(self, code: int) -> str:
        return self.setdefault(code, kind(code, self._segmented))


class _Written(dict[int, str]):
    """What the characters met become in a word."""

    def __init__(self, picture: bool) -> None:
        self._vanishes = {VANISHES} if picture else {VANISHES, JOINER}

    def __missing__(self, code: int) -> str:
        found = kind(code)
        return self.setdefault(code, "" if found in self._vanishes else "'" if found == "'" else chr(code))


_kinds, _written = lru_cache(maxsize=2)(_Kinds), lru_cache(maxsize=2)(_Written)
