"""`Left`: what the cleaning and the vocabulary leave of reviews, and whether that is little."""

from dataclasses import asdict, astuple, dataclass, fields
from typing import Self

import numpy as np
import pyarrow as pa

from sentray.text.cleaning import CleaningRules
from sentray.text.encoding import Encoded
from sentray.text.segment import count_letters

MIN_WORDS, MIN_KNOWN = 0.3, 0.5
"""Below this share of the words that cleaning leaves, or of those that the vocabulary has, a warning is said."""
MAX_EMPTY = 0.05
"""The same above this share of reviews without a word."""
MAX_UNSPACED = 0.2
"""The same above this share of letters of scripts that put no spaces between words."""


@dataclass(frozen=True)
class Left:
    """Counts of reviews; those of two parts of a corpus add up with `+`.

    Attributes:
        reviews: how many.
        spaced: their words as white space separates them.
        words: words that the cleaning left or, of punctuation and emoji, made.
        known: those of them that have an id.
        wordless: reviews without a word that the cleaning left.
        unknown: reviews without a word that has an id, those among them.
        letters: letters of a sample.
        unspaced: those of them whose script puts no spaces between words.
    """

    reviews: int = 0
    spaced: int = 0
    words: int = 0
    known: int = 0
    wordless: int = 0
    unknown: int = 0
    letters: int = 0
    unspaced: int = 0

    @classmethod
    def of(cls, encoded: Encoded, texts: pa.ChunkedArray) -> Self:
        """What is left of texts by what became of them."""
        spaced, words, known = (int(n.sum(dtype=np.int64)) for n in (encoded.spaced, encoded.words, encoded.known))
        wordless, unknown = (int(np.count_nonzero(numbers == 0)) for numbers in (encoded.words, encoded.known))
        return cls(len(encoded), spaced, words, known, wordless, unknown, *count_letters(texts))

    def table(self) -> pa.Table:
        """The counts, for a stage to give."""
        return pa.Table.from_pylist([asdict(self)])

    @classmethod
    def sum(cls, table: pa.Table) -> Self:
        """The sum of what stages gave."""
        return cls(*(int(table[each.name].to_numpy().sum()) for each in fields(cls)))

    def __add__(self, other: Self) -> Self:
        return type(self)(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))

    def lines(self, rules: CleaningRules, vocabulary: bool) -> list[str]:
        """What to tell: what is left where something is lost and, where it is little, the cure.

        Args:
            rules: the cleaning.
            vocabulary: whether there is one, so that words may be unknown.
        """
        lines = [self.line()] if self.is_lost else []
        if self.is_little:
            cure = "--cleaning unicode keeps them"
            if rules.punctuation == "words":
                cure = "look at --text-column, --stop-words and --min-token-length"
            lines = [f"warning: {self.line()}; {cure}"]
        if vocabulary and self.words:
            lines.append(
                f"the vocabulary has {self.known / self.words:.1%} of the words; {self.unknown:,} of "
                f"{self.reviews:,} reviews have none of it"
            )
        strange = self.unknown - self.wordless
        if vocabulary and (self.known < MIN_KNOWN * self.words or strange > MAX_EMPTY * self.reviews):
            lines.append(
                "warning: the vocabulary has so few of the words that little is learnt; lower --min-count, raise "
                "--max-words, or take --encoder hash"
            )
        if rules.segment is None and self.unspaced > MAX_UNSPACED * self.letters:
            lines.append(
                f"warning: {self.unspaced / self.letters:.0%} of the letters are of scripts that put no spaces between "
                "words; --segment icu parts them (pip install 'sentray[segment]')"
            )
        return lines

    @property
    def is_lost(self) -> bool:
        """Whether the cleaning drops so much that it shows."""
        return self.wordless > 0 or self.words < 0.9995 * self.spaced

    @property
    def is_little(self) -> bool:
        """Whether the cleaning leaves few words, or many reviews without any."""
        return self.words < MIN_WORDS * self.spaced or self.wordless > MAX_EMPTY * self.reviews

    def line(self) -> str:
        """How much the cleaning leaves."""
        share = min(1.0, self.words / self.spaced) if self.spaced else 1.0
        lost = f"{self.wordless:,} of {self.reviews:,} reviews without any"
        return f"the cleaning leaves {share:.1%} of the words and {lost}"
