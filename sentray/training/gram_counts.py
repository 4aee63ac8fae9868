"""`count_grams`: the n-grams that enough training reviews have, counted exactly, in parallel and in bounded memory.

Each gram belongs to one of several partitions, by its key's hash. A task goes through all reviews and counts the grams
of one partition, so that nothing has to be merged and no process holds more than a part.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentray import cluster
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.storage import Folder
from sentray.text.encoding import Truncating
from sentray.text.hashing import Words
from sentray.text.ngrams import MAX_CHARACTERS, MIN_CHARACTERS, WORD_BITS, GramSpec, Keys, character_keys, mixed
from sentray.text.simd import address, compiled, inlined, number_at, prefetch, set_int64
from sentray.text.vocabulary import Vocabulary
from sentray.training.training_set import IDS_FILE, unseen

OCCURRENCES = 1 << 24
"""Grams of a partition, each as often as it occurs. Half of them or more are distinct, at 32 bytes each in memory."""
_MIN_OCCURRENCES = 1 << 20
"""For fewer no further process is worth its start."""
MIN_LEAST, MAX_LEAST = 2, 5
WORDS_OF_LEAST = 250_000
"""Words of all training reviews for which a gram of one review would be kept; see `least_reviews`."""

_PIECE = 1 << 22
"""Word ids that are read at a time."""
_PENDING = 64
"""Grams that are looked for together, so that their slots are fetched at the same time."""
_U0, _U1, _U2, _U32, _LOW = (np.uint64(number) for number in (0, 1, 2, 32, 0xFFFFFFFF))
_SECOND, _THIRD = np.uint64(WORD_BITS), np.uint64(2 * WORD_BITS)

SHORT = 60
"""Words on average up to which reviews are short: their characters count, and each gram of them for less."""
MAX_GRAMS, MAX_WEIGHTS = 2_000_000, 12_000_000
"""The most grams to keep, and with their weights of each label, where nothing else is asked for."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Counting:
    """What to count.

    Attributes:
        folder: Of the training set, which has the reviews' ids.
        spec: Which grams there are.
        words: The vocabulary's, where grams of characters are counted.
        max_length: Word ids that the network takes of a review.
        truncating: Which end of a longer review is cut.
        least: Reviews that must have a gram for it to be kept.
        max_grams: The most grams to keep.
        partitions: Of the grams.
    """

    folder: str
    spec: GramSpec
    words: Vocabulary | None
    max_length: int
    truncating: Truncating
    least: int
    max_grams: int
    partitions: int


class Counted(NamedTuple):
    """Grams and how they were chosen.

    Attributes:
        keys: Of those that are kept: first what most reviews have, then by key.
        counts: How many reviews have each, int64.
        distinct: How many grams the reviews have.
        frequent: How many of them enough reviews have.
    """

    keys: Keys
    counts: Counts
    distinct: int
    frequent: int


class Chosen(NamedTuple):
    """Which n-grams a network is to look at.

    Attributes:
        spec: Their kinds.
        keys: The most frequent first.
        metrics: What `metrics.json` says of them: how many are `known`, of how many `distinct` ones of the training
            reviews, of how many `frequent` ones, which at least `min_reviews` have.
        line: The same for the user.
    """

    spec: GramSpec
    keys: Keys
    metrics: dict[str, int]
    line: str


def choose_grams(
    settings: TrainSettings,
    folder: str,
    words: Words,
    offsets: NDArray[np.int64],
    max_length: int,
    outputs: int,
    console: Console,
) -> Chosen:
    """Count the n-grams of the training reviews, and choose those that the network is to look at.

    Args:
        settings: Of the run.
        folder: Of the training set, which has the reviews' ids.
        words: How words got ids.
        offsets: int64 [reviews + 1], where each review starts in the file of ids, and the end of the last.
        max_length: Word ids that the network takes of a review.
        outputs: Numbers that the network gives for a review.
        console: Where to say how far it is.
    """
    lengths = np.minimum(np.diff(offsets), max_length)
    total, average = int(lengths.sum()), float(lengths.mean())
    listed = words if isinstance(words, Vocabulary) else None
    characters = listed is not None and (average <= SHORT if settings.characters is None else settings.characters)
    spec = GramSpec(characters=characters, scale=5.0 if average <= SHORT else 10.0)
    least = settings.min_gram_reviews or least_reviews(total)
    most = settings.max_grams or min(MAX_GRAMS, MAX_WEIGHTS // outputs)
    parts = partitions(total, int(cluster.resources().cpus))
    counting = Counting(folder, spec, listed, max_length, "pre", least, most, parts)
    keys, counts, distinct, frequent = count_grams(counting, offsets, console)
    which = f"those of {least:,} reviews or more"
    if len(keys) < frequent:
        which = f"of {frequent:,} that {least:,} reviews or more have the most frequent, of {counts[-1]:,} or more"
    line = (
        f"n-grams: {len(keys):,} of {distinct:,} distinct, {which} (--min-gram-reviews, --max-grams; reviews have "
        f"{average:,.0f} words on average, {total:,} in all)"
        + (f"; grams of {MIN_CHARACTERS} to {MAX_CHARACTERS} characters too (--no-characters)" if characters else "")
    )
    metrics = {"known": len(keys), "distinct": distinct, "frequent": frequent, "min_reviews": least}
    return Chosen(spec, keys, metrics, line)


def least_reviews(words: int) -> int:
    """How many reviews must have a gram for it to be kept, by the words of all training reviews.

    The square root of the words, from 2 to 5: 2 up to 1.5 million words, 5 from 5 million on. Beyond, `--max-grams`
    is the bound. On held-out reviews 5 did best at 25,000 reviews of 240 words, and 2 or 3 at 4,000 (89.4 and 89.5 %; 5
    89.1); at 1,000 reviews and for sentences 1 is hardly better than 2 and makes a table three times as large or more
    (1,000 reviews 86.5 and 86.3 %, MR 79.1 and 79.1, CR 81.4 and 81.9, TREC 86.2 and 86.8).
    """
    return min(max(round(math.sqrt(words / WORDS_OF_LEAST)), MIN_LEAST), MAX_LEAST)


def partitions(words: int, cpus: int) -> int:
    """Into how many partitions to cut the grams of so many words: as many as memory asks for, or as CPUs are free."""
    occurrences = 4 * words
    return max(-(-occurrences // OCCURRENCES), min(cpus, -(-occurrences // _MIN_OCCURRENCES)), 1)


def count_grams(counting: Counting, offsets: NDArray[np.int64], console: Console) -> Counted:
    """Count the grams of training reviews, in as many Ray tasks at once as there are CPUs.

    Args:
        counting: What to count.
        offsets: int64 [reviews + 1], where each review starts in the file of ids, and the end of the last.
        console: Where to say how far it is.

    Raises:
        SentrayError: A node does not see the training set.
    """
    import ray

    task = ray.remote(num_cpus=1)(count_partition)
    shared = ray.put(counting), ray.put(offsets)
    left, running = iter(range(counting.partitions)), set[Any]()
    total, done = Counted(np.zeros(0, np.uint64), np.zeros(0, np.int64), 0, 0), 0
    console.expect("the n-grams to be counted")
    while True:
        while len(running) < max(cluster.resources().cpus, 1) and (partition := next(left, None)) is not None:
            running.add(task.options(name="sentray count n-grams").remote(*shared, partition))
        if not running:
            return total
        (ready,), _ = ray.wait(list(running))
        running.remove(ready)
        try:
            found = ray.get(ready)
        except ray.exceptions.RayError as error:
            raise cluster.user_error(error) or error from None
        keys, counts = np.concatenate([total.keys, found.keys]), np.concatenate([total.counts, found.counts])
        distinct, frequent = total.distinct + found.distinct, total.frequent + found.frequent
        total = Counted(*most_frequent(keys, counts, counting.max_grams), distinct, frequent)
        done += 1
        console.progress(f"n-grams: {done} of {counting.partitions} parts counted", done / counting.partitions)


def most_frequent(keys: Keys, counts: Counts, most: int) -> tuple[Keys, Counts]:
    """At most so many grams, those with the largest counts; of equal ones those with the least keys; in this order."""
    if len(keys) > most:
        # What is clearly less frequent need not be sorted.
        chosen = counts >= np.partition(counts, -most)[-most]
        keys, counts = keys[chosen], counts[chosen]
    order = np.lexsort((keys, -counts))[:most]
    return keys[order], counts[order]


def count_partition(counting: Counting, offsets: NDArray[np.int64], partition: int) -> Counted:
    """A task: count the grams of one partition."""
    counter = _Counter(counting, partition)
    for ids, first, last in _pieces(counting.folder, offsets):
        counter.add(ids, offsets, first, last)
    return counter.result()


def _pieces(folder: str, offsets: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int32], int, int]]:
    """The ids of neighbouring reviews, the first of them, and the one behind the last."""
    try:
        with Folder(folder).open_file(IDS_FILE) as file:
            first = 0
            while first < len(offsets) - 1:
                last = max(int(np.searchsorted(offsets, offsets[first] + _PIECE, "right")) - 1, first + 1)
                yield np.frombuffer(file.read(4 * int(offsets[last] - offsets[first])), np.int32), first, last
                first = last
    except OSError as error:
        raise unseen(folder, error) from error


class _Counter:
    """Counts, in how many reviews they occur, the grams of a partition.

    Args:
        counting: What to count.
        partition: Its number.
    """

    def __init__(self, counting: Counting, partition: int) -> None:
        self._counting, self._partition = counting, partition
        self._starts, self._characters = np.zeros(1, np.int64), np.zeros(0, np.uint64)
        if counting.words is not None and counting.spec.characters:
            starts, keys = character_keys(counting.words.words)
            mine = _in_partition(keys, partition, counting.partitions)
            self._starts, self._characters = np.append(0, np.cumsum(mine))[starts], keys[mine]
        # Two numbers a slot: the key, and the last review with it, from 1, and how many there were.
        self._table, self._taken = np.zeros(2 << 16, np.uint64), 0
        # Keys and their reviews, and room for those that a word begins.
        self._pending = np.empty(2 * _PENDING + 8, np.uint64)

    def add(self, ids: NDArray[np.int32], offsets: NDArray[np.int64], first: int, last: int) -> None:
        """Count the grams of some reviews, whose ids are given, by their numbers."""
        counting = self._counting
        while True:
            first, self._taken = _count(
                ids,
                offsets,
                first,
                last,
                offsets[last] - len(ids),
                counting.max_length,
                counting.truncating == "pre",
                counting.spec.max_n,
                counting.spec.skip,
                self._starts,
                self._characters,
                self._partition,
                counting.partitions,
                self._pending,
                self._table,
                self._taken,
            )
            if first == last:
                return
            larger = np.zeros(2 * len(self._table), np.uint64)
            _move(self._table, larger)
            self._table = larger

    def result(self) -> Counted:
        """The grams that are to be kept of the partition."""
        keys, counts = _collect(self._table, self._counting.least)
        return Counted(*most_frequent(keys, counts, self._counting.max_grams), self._taken, len(keys))


@inlined
def _partition(hash: np.uint64, partitions: int) -> np.int64:
    # The upper half of the hash says the slot.
    return np.int64(((hash & _LOW) * np.uint64(partitions)) >> _U32)


@compiled
def _in_partition(keys: Any, partition: int, partitions: int) -> Any:
    mine = np.empty(len(keys), np.bool_)
    for number, gram in enumerate(keys):
        mine[number] = _partition(mixed(gram), partitions) == partition
    return mine


@inlined
def _shift(table: Any) -> np.uint64:
    """By how much a hash is shifted to a slot."""
    shift, slots = np.uint64(64), len(table) // 2
    while slots > 1:
        shift -= _U1
        slots >>= 1
    return shift


@compiled
def _count(
    ids: Any,
    offsets: Any,
    review: int,
    stop: int,
    base: int,
    max_length: int,
    keeps_end: bool,
    max_n: int,
    skip: bool,
    starts: Any,
    characters: Any,
    partition: int,
    partitions: int,
    pending: Any,
    table: Any,
    taken: int,
) -> Any:
    """Count the grams of reviews until all are or the table has no room for those of the next.

    Args:
        ids: Of the reviews.
        offsets: Of all reviews.
        review: The first to count.
        stop: The review behind the last.
        base: Where the ids begin, as `offsets` say it.
        max_length: As in `Counting`.
        keeps_end: Whether a longer review's end is kept.
        max_n: As in `GramSpec`.
        skip: As in `GramSpec`.
        starts: Where the keys of a word's characters begin, by its id.
        characters: These keys, as far as they are in the partition.
        partition: To count.
        partitions: How many there are.
        pending: Memory for what waits for `_flush`, which the caller keeps, as only its address is used.
        table: Of `_Counter`.
        taken: Its slots that are taken.

    Returns:
        The first review that is not counted, and how many slots are taken.
    """
    waiting = address(pending)
    at, full = waiting, waiting + 16 * _PENDING
    room, shift = int(0.6 * (len(table) // 2)), _shift(table)
    pairs, triples = max_n >= 2, max_n >= 3
    while review < stop:
        first, last = offsets[review] - base, offsets[review + 1] - base
        if keeps_end:
            first = max(first, last - max_length)
        else:
            last = min(last, first + max_length)
        if taken + _PENDING + 4 * (last - first) + len(characters) > room:
            break
        owner = review + 1
        for position in range(first, last):
            word = np.uint64(ids[position])
            at = _pend(at, word, owner, partition, partitions)
            if position + 1 < last and pairs:
                pair = word | (np.uint64(ids[position + 1]) << _SECOND)
                at = _pend(at, pair, owner, partition, partitions)
                if position + 2 < last and triples:
                    third = np.uint64(ids[position + 2]) << _THIRD
                    at = _pend(at, pair | third, owner, partition, partitions)
            if position + 2 < last and skip:
                third = np.uint64(ids[position + 2]) << _THIRD
                at = _pend(at, word | third, owner, partition, partitions)
            if at >= full:
                taken, at = _flush(waiting, at, table, shift, taken), waiting
            if word + _U1 < np.uint64(len(starts)):
                for number in range(starts[word], starts[word + _U1]):
                    at = _pend(at, characters[number], owner, partition, partitions)
                    if at >= full:
                        taken, at = _flush(waiting, at, table, shift, taken), waiting
        review += 1
    return review, _flush(waiting, at, table, shift, taken)


@inlined
def _pend(at: np.int64, gram: np.uint64, owner: int, partition: int, partitions: int) -> np.int64:
    """Write a gram and its review; the address behind it, or the same one where it is not of the partition."""
    set_int64(at, np.int64(gram))
    set_int64(at + 8, owner)
    return at + 16 * np.int64(_partition(mixed(gram), partitions) == partition)


@compiled
def _flush(start: int, stop: int, table: Any, shift: np.uint64, taken: int) -> int:
    """Count grams of reviews, by their numbers from 1, in which they are new; how many slots are taken then."""
    last = np.uint64(len(table) // 2 - 1)
    for at in range(start, stop, 16):
        prefetch(address(table) + 16 * np.int64(mixed(number_at(at)) >> shift))
    for at in range(start, stop, 16):
        gram, owner = number_at(at), number_at(at + 8)
        slot = mixed(gram) >> shift
        while table[_U2 * slot] != _U0 and table[_U2 * slot] != gram:
            slot = (slot + _U1) & last
        entry = _U2 * slot
        taken += table[entry] == _U0
        table[entry] = gram
        if table[entry + _U1] >> _U32 != owner:
            table[entry + _U1] = (owner << _U32) | ((table[entry + _U1] & _LOW) + _U1)
    return taken


@compiled
def _move(table: Any, larger: Any) -> None:
    """Put the entries of a table into a larger one that is empty."""
    shift, last = _shift(larger), np.uint64(len(larger) // 2 - 1)
    for entry in range(0, len(table), 2):
        if table[entry] != _U0:
            slot = mixed(table[entry]) >> shift
            while larger[2 * np.int64(slot)] != _U0:
                slot = (slot + _U1) & last
            larger[2 * np.int64(slot)], larger[2 * np.int64(slot) + 1] = table[entry], table[entry + 1]


@compiled
def _collect(table: Any, least: int) -> Any:
    """The grams that at least so many reviews have, and their counts."""
    many = 0
    for entry in range(0, len(table), 2):
        many += table[entry + 1] & _LOW >= np.uint64(least)
    keys, counts, many = np.empty(many, np.uint64), np.empty(many, np.int64), 0
    for entry in range(0, len(table), 2):
        if table[entry + 1] & _LOW >= np.uint64(least):
            keys[many], counts[many] = table[entry], np.int64(table[entry + 1] & _LOW)
            many += 1
    return keys, counts
