"""`HashedWords`: ids without a vocabulary, a word's id being a hash of it, so that no words are counted first.

The hash is part of every bundle that uses it and never changes; `word_code` defines it, `sentray.text.table` compiles
it. It chains the finaliser of MurmurHash3 (Austin Appleby, 2011), in which each bit depends on each other, over
the word, eight bytes at a time.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from sentray.text.vocabulary import Unknown, Vocabulary

FACTOR_1, FACTOR_2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53

MAX_BUCKETS = 2**31 - 1
"""The number of codes: with as many buckets, a word's id is its code."""

_64_BITS = 2**64 - 1


def word_code(word: str) -> int:
    """The number, 1 to `MAX_BUCKETS`, that a word's bucket is computed from.

    The hash starts as the number of bytes that the word has in UTF-8. Then, for every eight bytes (little-endian, the
    last padded with zeros), it is combined with them by exclusive or and goes through the finaliser. The upper 31 bits
    are the code.
    """
    data = word.encode()
    number = len(data)
    for start in range(0, len(data), 8):
        number ^= int.from_bytes(data[start : start + 8], "little")
        for factor in (FACTOR_1, FACTOR_2):
            number = (number ^ number >> 33) * factor & _64_BITS
        number ^= number >> 33
    return max(number >> 33, 1)


@dataclass(frozen=True)
class HashedWords:
    """Every word has an id, from 1 to `buckets`; some share one. The counterpart of `Vocabulary`.

    Use it where the corpus is too large to count, or new words keep coming. A vocabulary, in contrast, takes no word
    for another and can be read.

    Attributes:
        buckets: how many ids there are, up to `MAX_BUCKETS`.
        unknown: no word is unknown, so that none is dropped or shares an id of the unknown.
    """

    buckets: int
    unknown: ClassVar[Unknown] = "drop"

    def __post_init__(self) -> None:
        if not 1 <= self.buckets <= MAX_BUCKETS:
            raise ValueError(f"the number of buckets is {self.buckets}, not one from 1 to {MAX_BUCKETS}")

    @property
    def size(self) -> int:
        """Rows an embedding needs: padding and every bucket."""
        return self.buckets + 1

    def __len__(self) -> int:
        return self.buckets

    def ids_of(self, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The ids of words by their codes, int32 both: `1 + (code - 1) % buckets`."""
        numbers = codes.view(np.uint32) - np.uint32(1)
        # Numpy has a fast division by one number and no fast remainder.
        numbers -= numbers // np.uint32(self.buckets) * np.uint32(self.buckets)
        numbers += np.uint32(1)
        return numbers.view(np.int32)

    def samples(self) -> list[str]:
        """Texts that reach all of cleaning and network, for golden scores."""
        return list(_SAMPLES)

    def describe(self) -> str:
        """What it is, for messages."""
        return f"every word hashed into one of {self.buckets:,} buckets"


Words = Vocabulary | HashedWords
"""How words get their ids."""

_SAMPLES = (
    "a wonderful film with a clever story and great actors i loved every minute of it",
    "a dull plot bad jokes and no end in sight boring from the first scene to the last",
    "<b>GOOD</b>, but the na\u00efve ending!<br />don't go zzqx 42.",
)


@dataclass(frozen=True, eq=False)
class DistinctCodes:
    """How many distinct words there are, in flat memory: the smallest of their codes.

    Up to `MAX` codes are all kept, and the count is exact except for words that share a code: about one pair among
    65,536 words. Of more, the k-th smallest shows how dense they are (Bar-Yossef et al., "Counting Distinct Elements
    in a Data Stream", 2002; without bias after Beyer et al., "On Synopses for Distinct-Value Estimation under Multiset
    Operations", 2007); the standard error is 0.4 %.

    Attributes:
        codes: int32, sorted, each once.
    """

    codes: npt.NDArray[np.int32]

    MAX: ClassVar[int] = 65_536

    @classmethod
    def of(cls, codes: Iterable[npt.NDArray[np.int32]]) -> Self:
        """The distinct ones of some arrays of codes."""
        parts = [np.unique(part)[: cls.MAX + 1] for part in codes]
        return cls(np.unique(np.concatenate([np.zeros(0, np.int32), *parts]))[: cls.MAX + 1])

    def __add__(self, other: Self) -> Self:
        return type(self).of([self.codes, other.codes])

    @property
    def exact(self) -> bool:
        """Whether all codes are here."""
        return len(self.codes) <= self.MAX

    @property
    def count(self) -> int:
        """Distinct words, counted or estimated."""
        if self.exact:
            return len(self.codes)
        codes = self.MAX * MAX_BUCKETS / int(self.codes[self.MAX])
        # So many words have so many codes, since some words have one code.
        return round(-MAX_BUCKETS * math.log1p(-min(codes, MAX_BUCKETS - 1) / MAX_BUCKETS))

    def sharing(self, buckets: int) -> int:
        """Words that share their bucket with another: counted or, as of hashes by chance, expected."""
        if not self.exact:
            return round(self.count * (1 - (1 - 1 / buckets) ** (self.count - 1)))
        _, words = np.unique((self.codes - 1) % buckets, return_counts=True)
        return int(words[words > 1].sum())
