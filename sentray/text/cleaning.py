"""`CleaningRules` and `clean`: from raw text to tokens, the rules as a value and the Python that defines them."""

import html
import re
import string
import sys
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from sentray.text.segment import VERSIONS, require_segmenter, segmented, segmenter
from sentray.text.stop_words import load_stop_words
from sentray.text.unicode_words import unicode_words

if TYPE_CHECKING:
    from sentray.config import TextSettings

# A tag ends at the next `<` at the latest, so that text full of unclosed tags takes linear time.
_TAG = re.compile(r"<[A-Za-z/!][^<>]*>")
_NUMERIC_REFERENCE = re.compile(r"&#0*([0-9]+)")
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_REMOVE = str.maketrans("", "", string.punctuation)


Preset = Literal["tutorial", "reviews", "unicode"]
POLARITY = "nltk:movie_reviews"
"""The tutorial's corpus."""


class CleaningRules(BaseModel):
    """How a review becomes tokens; saved in the bundle, so that scoring does what training did.

    The rules apply in this order; `clean` is their definition.

    Attributes:
        segment: what parts the words of languages that are written without spaces, such as
            `icu4py 1.2.0 (ICU 78.3)`; see `sentray.text.segment`. None leaves them.
        strip_html: tags (`<` followed by an ASCII letter, `/` or `!`, up to `>`, with no `<` between) become
            one space each, then character references are decoded as `html.unescape` does.
        lowercase: `str.lower` on the whole text; where `punctuation` is `words`, each character alone.
        punctuation: `keep`; `remove` deletes the characters of `string.punctuation`; `split` turns every
            character of the Unicode categories P and S into a space, except that the apostrophes `'` and
            U+2019 vanish (`don't` becomes `dont`); `words` cuts the text as `unicode_words` does, into words, pictures
            and runs of punctuation.
        alphabetic_only: after splitting at white space, keep tokens for which `str.isalpha` holds.
        stop_words: tokens to drop, compared as they are after the rules above.
        stop_words_source: where the stop words came from, for the reader.
        min_token_length: drop tokens of fewer characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strip_html: bool
    lowercase: bool
    punctuation: Literal["keep", "remove", "split", "words"]
    alphabetic_only: bool
    stop_words: tuple[str, ...]
    stop_words_source: str
    min_token_length: int
    segment: Annotated[str, Field(pattern=f"^{VERSIONS}$", max_length=100)] | None = None

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Rules that part no words are written as they were before there was a rule for it."""
        return {name: value for name, value in dump(self).items() if name != "segment" or value is not None}


# Without their stop words, which are loaded when a preset is asked for.
_PRESETS: dict[str, tuple[CleaningRules, str]] = {
    "tutorial": (
        CleaningRules(
            strip_html=False,
            lowercase=False,
            punctuation="remove",
            alphabetic_only=True,
            stop_words=(),
            stop_words_source="none",
            min_token_length=2,
        ),
        "nltk:english",
    ),
    "reviews": (
        CleaningRules(
            strip_html=True,
            lowercase=True,
            punctuation="split",
            alphabetic_only=False,
            stop_words=(),
            stop_words_source="none",
            min_token_length=1,
        ),
        "none",
    ),
}
_PRESETS["unicode"] = (_PRESETS["reviews"][0].model_copy(update={"punctuation": "words"}), "none")


def preset(
    name: Preset, *, stop_words: str | None = None, **replaced: bool | int | str | None
) -> tuple[CleaningRules, str | None]:
    """The rules of a preset, with single rules replaced where given.

    Args:
        name: `tutorial` (the tutorial's five rules, for text that is tokenised already), `reviews` (for raw
            text with HTML and capitals; it drops no word, so negations stay) or `unicode` (the same for any
            script, with emoji and punctuation as words).
        stop_words: source as `load_stop_words` takes it.
        **replaced: values of other fields of `CleaningRules`; None leaves them as they are.

    Returns:
        The rules, and one sentence for the user where other stop words were taken than those asked for.

    Raises:
        SentrayError: the stop words can't be loaded.
    """
    rules, default_source = _PRESETS[name]
    loaded = load_stop_words(default_source if stop_words is None else stop_words)
    update: dict[str, object] = {key: value for key, value in replaced.items() if value is not None}
    update |= {"stop_words": loaded.words, "stop_words_source": loaded.source}
    return rules.model_copy(update=update), loaded.note


def preset_of(settings: "TextSettings") -> Preset:
    """The preset that settings ask for; where they name none, the tutorial's for its own corpus and its networks."""
    ours = getattr(settings, "model", "").startswith(("wide", "deep"))
    own = getattr(settings, "corpus", None) == POLARITY and not ours
    return settings.cleaning or ("tutorial" if own else "unicode")


def rules_from(settings: "TextSettings") -> tuple[CleaningRules, list[str]]:
    """The rules that settings ask for, and lines for the user: which they are, and what `preset` notes."""
    names = ("stop_words", "strip_html", "lowercase", "min_token_length")
    name, segment = preset_of(settings), segmenter() if settings.segment else None
    rules, note = preset(name, **{name: getattr(settings, name) for name in names}, segment=segment)
    line = f"cleaning: {name}" + (f", words parted by {segment}" if segment else "")
    return rules, [line, *([note] if note else [])]


class Tokenizer:
    """The rules prepared for use, in two steps so that many texts share the work that a token needs.

    `clean` is `split` and then `words` for each token. A token's words depend on the token alone, so callers
    that see many texts remember them.
    """

    def __init__(self, rules: CleaningRules) -> None:
        require_segmenter(rules.segment)
        self._rules = rules
        self._stop_words = frozenset(rules.stop_words)
        self._spaces = marks() if rules.punctuation == "split" else None

    def split(self, text: str) -> list[str]:
        """The rules that look at the whole text, then a split at white space.

        Deleting punctuation is left to `words`: none of it is white space, so token by token gives the same. So are
        Unicode words, which no white space is in.
        """
        if self._rules.segment:
            text = segmented(text)
        if self._rules.strip_html:
            text = without_html(text)
        if self._rules.lowercase and self._rules.punctuation != "words":
            text = text.lower()
        if self._spaces is not None:
            text = text.translate(self._spaces)
        return text.split()

    def words(self, token: str) -> list[str]:
        """The rules that look at one token: the words it is kept as."""
        rules, found = self._rules, [token]
        if rules.punctuation == "words":
            found = unicode_words(token, rules.lowercase, rules.segment is not None)
        elif rules.punctuation == "remove":
            found = [token.translate(_REMOVE)]
        return [word for word in found if self._keeps(word)]

    def _keeps(self, word: str) -> bool:
        rules = self._rules
        if not word or word in self._stop_words or len(word) < rules.min_token_length:
            return False
        return not rules.alphabetic_only or word.isalpha()


@lru_cache(maxsize=16)
def tokenizer(rules: CleaningRules) -> Tokenizer:
    """The tokenizer of these rules, prepared once a process."""
    return Tokenizer(rules)


def clean(text: str, rules: CleaningRules) -> list[str]:
    """The tokens of a text: the definition that every faster implementation must equal."""
    prepared = tokenizer(rules)
    return [word for token in prepared.split(text) for word in prepared.words(token)]


@lru_cache(maxsize=1)
def marks() -> dict[int, str | None]:
    """What `split` makes of punctuation and symbols, by code point: a space, or nothing of apostrophes."""
    codes = (code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PS")
    return dict.fromkeys(codes, " ") | dict.fromkeys(map(ord, _APOSTROPHES))


def without_html(text: str) -> str:
    """A text with a space for each tag, and with characters for the references to them."""
    text = _TAG.sub(" ", text)
    try:
        return html.unescape(text)
    except ValueError:
        # Python refuses to read thousands of digits; eight are already beyond Unicode's last character.
        return html.unescape(_NUMERIC_REFERENCE.sub(lambda reference: f"&#{reference[1][:8]}", text))
