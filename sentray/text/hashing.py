"""`HashedWords`: ids without a vocabulary, a word's id being a hash of it, so that no words are counted first.

The hash is part of every bundle that uses it and never changes; `word_code` defines it, `sentray.text.table` compiles
it. It chains the finaliser of MurmurHash3 (Austin Appleby, 2011), in which each bit depends on each other, over
the word, eight bytes at a time.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

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
        return (codes - 1) % self.buckets + 1

    def estimate(self, used: int) -> tuple[int, int]:
        """How many distinct words there are about, and how many of them share their bucket with another.

        It is what hashing gives by chance (linear counting: Whang et al., "A Linear-Time Probabilistic Counting
        Algorithm for Database Applications", 1990): near where buckets are left, and too few where none is.

        Args:
            used: Buckets with a word in them.
        """
        distinct = round(-self.buckets * math.log1p(-min(used, self.buckets - 0.5) / self.buckets))
        return distinct, round(distinct * (1 - (1 - 1 / self.buckets) ** max(distinct - 1, 0)))

    def samples(self) -> list[str]:
        """Texts that reach all of cleaning and network, for golden scores."""
        return list(_SAMPLES)


Words = Vocabulary | HashedWords
"""How words get their ids."""

_SAMPLES = (
    "a wonderful film with a clever story and great actors i loved every minute of it",
    "a dull plot bad jokes and no end in sight boring from the first scene to the last",
    "<b>GOOD</b>, but the na\u00efve ending!<br />don't go zzqx 42.",
)
