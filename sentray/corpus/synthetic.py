"""Labelled reviews made from a small grammar, for machines without data, for tests and for benchmarks.

A row depends on the seed and its number alone, so any worker can make any rows. An opinion is said directly
(`the plot was truly gripping`) or by negating the opposite (`the plot was never dull`), a contrast (`although
the script was weak, …`) names both sides, and most reviews hold opinions against their label. So no word says
much by itself, and a bag of all of them is right for some 70 reviews of 100; word order decides. Most
negations are words that lists of stop words leave in.
"""

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import pyarrow as pa

from sentray.corpus.rows import TABLE_ROWS, Block, Columns
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("label", pa.string())])
LABELS = ("neg", "pos")

_DIRECT = 0.7
"""Share of opinions said directly; at one half the tutorial's CNN learns nothing from 4,000 reviews."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ADJECTIVES: tuple[tuple[str, ...], ...] = (
    _words(
        "awful awkward bland boring chaotic clumsy dreadful dreary dull feeble flat forgettable hollow "
        "irritating lazy lifeless messy muddled painful pointless predictable shallow sloppy stale "
        "tedious tiresome weak"
    ),
    _words(
        "amazing appealing brilliant charming clever compelling delightful elegant engaging excellent "
        "fresh funny graceful gripping honest inspired lively lovely memorable moving polished smart "
        "subtle superb vivid warm witty"
    ),
)
_VERBS: tuple[tuple[str, ...], ...] = (
    _words("despised detested disliked endured hated loathed regretted resented"),
    _words("admired adored appreciated cherished enjoyed liked loved praised"),
)
_INTENSIFIERS = _words("absolutely clearly consistently deeply frankly genuinely really simply thoroughly truly")
# Each as often as listed; lists of stop words take `not` and `no` away.
_NEGATORS = _words("never hardly barely scarcely never hardly rarely seldom")
_WAS_NOT = (*(f"was {negator}" for negator in _NEGATORS), "wasn't", "was not")
_DID_NOT = (*_NEGATORS, "by no means", "in no way")
_ASPECTS = _words(
    "acting animation camerawork cast chemistry choreography cinematography climax comedy dialogue "
    "direction drama editing ending humor lighting music narration opening pacing photography plot "
    "premise romance scenery score screenplay script setting soundtrack story suspense villain"
)
_LEADS = ("", "", "", "in my view ", "to me ", "on the whole ", "this time ", "all told ")
_CONTRASTS = (
    "although {0}, {1}",
    "while {0}, {1}",
    "{0}, but {1}",
    "{0}; yet {1}",
    "despite the fact that {0}, {1}",
)

_JOBS = _words("baker captain clerk detective doctor farmer gambler lawyer painter pilot sailor singer teacher")
_PLACES = _words(
    "airport bridge castle city desert factory farm forest harbor hotel island library market "
    "mountain prison school station suburb theater valley village"
)
_DEEDS = _words(
    "builds buys chases discovers follows finds hides inherits investigates leaves meets remembers "
    "repairs sells steals visits"
)
_THINGS = _words(
    "boat book car clock diary dog fortune ghost horse house letter map painting photograph piano "
    "radio ring robot secret statue suitcase train treasure violin"
)
_TIMES = _words("autumn christmas dawn evening march midnight monday morning spring summer sunday winter")
_SYLLABLES = _words("ba be da do el fa ga hi jo ka la lo ma mi na no or pe ra ri sa so ta ti va vi wen yo za")


class _Writer:
    """Writes one row's review from its stream of random numbers."""

    def __init__(self, random: Random) -> None:
        self._next = random.random

    def pick(self, choices: Sequence[str]) -> str:
        return choices[int(self._next() * len(choices))]

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._next() * (high - low + 1))

    def clause(self, side: int) -> str:
        """One opinion, said directly or by negating the opposite."""
        direct = self._next() < _DIRECT
        word_side = side if direct else 1 - side
        aspect = self.pick(_ASPECTS)
        if self._next() < 0.3:
            manner = self.pick(_INTENSIFIERS if direct else _DID_NOT)
            return f"i {manner} {self.pick(_VERBS[word_side])} the {aspect}"
        manner = f"was {self.pick(_INTENSIFIERS)}" if direct else self.pick(_WAS_NOT)
        adjectives = _ADJECTIVES[word_side]
        second = f" or {self.pick(adjectives)}" if self._next() < 0.3 else ""
        return f"the {aspect} {manner} {self.pick(adjectives)}{second}"

    def opinion(self, side: int) -> str:
        """A sentence whose verdict is `side`; in a contrast the second clause is the verdict."""
        if self._next() < 0.2:
            return self.pick(_CONTRASTS).format(self.clause(1 - side), self.clause(side))
        return self.pick(_LEADS) + self.clause(side)

    def name(self) -> str:
        return "".join(self.pick(_SYLLABLES) for _ in range(self.number(2, 3)))

    def neutral(self) -> str:
        """A sentence about the story, which says nothing about the label."""
        job, place, deed, thing, time = map(self.pick, (_JOBS, _PLACES, _DEEDS, _THINGS, _TIMES))
        name = self.name()
        forms = (
            f"{name} plays a {job} who {deed} a {thing}",
            f"it is set near the {place} one {time} and tells of a {job} and a {thing}",
            f"the {job} {deed} the {thing} and then meets {name} at the {place}",
            f"we saw it with {self.number(2, 90)} others at the {place} one {time}",
            f"{name} directed it in {self.number(1930, 2025)} after a film about a {thing}",
        )
        return self.pick(forms)

    def misspell(self, sentence: str) -> str:
        """Swap two neighbouring letters somewhere."""
        at = self.number(0, len(sentence) - 2)
        return sentence[:at] + sentence[at + 1] + sentence[at] + sentence[at + 2 :]

    def review(self, side: int) -> str:
        """Several opinions, most of them on one side, shuffled among neutral sentences."""
        opinions = self.number(6, 10)
        against = self.number(0, (opinions - 1) // 2 - 1)
        sentences = [self.opinion(1 - side if at < against else side) for at in range(opinions)]
        sentences += [self.neutral() for _ in range(self.number(2, 7))]
        for at in range(len(sentences) - 1, 0, -1):
            other = self.number(0, at)
            sentences[at], sentences[other] = sentences[other], sentences[at]
        for at, sentence in enumerate(sentences):
            if self._next() < 0.05:
                sentences[at] = self.misspell(sentence)
        text = ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences) + "."
        return text.replace(". ", ".<br /><br />", 1) if self._next() < 0.1 else text


def generate(start: int, stop: int, seed: int) -> pa.Table:
    """The reviews numbered `start` to `stop - 1` of the endless corpus of a seed.

    Args:
        start: number of the first review, from 0.
        stop: one past the number of the last.
        seed: which corpus; any whole number from 0.

    Returns:
        `id` (`synthetic:17`), `text` (some 120 words) and `label` (`neg` or `pos`, evenly), as in `SCHEMA`.
    """
    texts, labels = [], []
    for row in range(start, stop):
        random = Random((seed << 64) | row)
        side = int(random.random() < 0.5)
        texts.append(_Writer(random).review(side))
        labels.append(LABELS[side])
    ids = [f"synthetic:{row}" for row in range(start, stop)]
    return pa.table([ids, texts, labels], schema=SCHEMA)


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The reviews of a piece; see `sentray.corpus.readers`."""
    assert piece.stop is not None
    for start in range(piece.start, piece.stop, TABLE_ROWS):
        stop = min(start + TABLE_ROWS, piece.stop)
        rows = generate(start, stop, source.seed)
        found = {columns.name(name): rows[name].combine_chunks() for name in rows.column_names}
        yield Block(piece.name, np.arange(start, stop) + 1, found)
