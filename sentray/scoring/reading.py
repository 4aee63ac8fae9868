"""Reading on the pool's actors: again where an object store is busy, and first of all the ids."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sentray.config import CorpusSettings
from sentray.console import Console
from sentray.corpus.duplicates import Rows, find_duplicates, shard_ids
from sentray.corpus.readers import WITH_COLUMNS, OnUnreadable, read_ids
from sentray.corpus.source import Source
from sentray.corpus.splits import Shard
from sentray.errors import SentrayError
from sentray.scoring.pool import Lost, Pool
from sentray.storage import read_pauses

Ids = tuple[int, list[tuple[str, npt.NDArray[np.int64], npt.NDArray[np.uint64]]], bool]
"""A shard's index, file, rows and hashes of ids for each of its files, and whether these are all."""

T = TypeVar("T")


class UnreadableError(Exception):
    """A shard could not be read; another attempt may help."""


class ShardReader:
    """A worker of the pool that reads shards; its `ids` are what `duplicates` needs.

    Args:
        source: Where the shards lie.
        settings: What the columns are called.
    """

    def __init__(self, source: Source, settings: CorpusSettings) -> None:
        self._source, self._settings = source, settings
        self._pauses = read_pauses(source.filesystem)

    def ids(self, shard: Shard) -> Ids:
        """The shard's index, hashes of the ids that a column gives its rows, and whether all could be read."""

        def read(on_unreadable: OnUnreadable) -> Ids:
            try:
                return shard.index, list(read_ids(self._source, shard, self._settings)), True
            except SentrayError as error:
                if on_unreadable == "raise":
                    raise UnreadableError from error
            return shard.index, shard_ids(self._source, shard, self._settings), False

        return self._persist(read)

    def _persist(self, read: Callable[[OnUnreadable], T]) -> T:
        """Read a shard, again where an object store fails; at last what cannot be read is set aside."""
        for pause in self._pauses:
            try:
                return read("raise")
            except UnreadableError:
                time.sleep(pause)
        return read("quarantine")


@dataclass(frozen=True)
class Duplicates:
    """What a look at all ids has found.

    Attributes:
        rows: Those rows whose id an earlier row has, by the index of their shard.
        unread: Shards of which not all ids could be read.
    """

    rows: dict[int, Rows]
    unread: frozenset[int] = frozenset()


def duplicates(
    pool: Pool, source: Source, shards: Sequence[Shard], tick: Callable[[int], None] = lambda done: None
) -> Duplicates:
    """Look for rows whose id an earlier row has.

    Ids that are made of file and row cannot occur twice, so formats without columns are not read.

    Args:
        pool: Of workers that are `ShardReader`s.
        source: Where the shards lie.
        shards: All of the plan.
        tick: Called now and then with the number of shards that are done.

    Raises:
        SentrayError: When a shard cannot be read at all.
    """
    if source.format not in WITH_COLUMNS:
        return Duplicates({})
    found: dict[int, Any] = {}
    unread = set()
    for result in pool.map("ids", shards, tick=lambda: tick(len(found))):
        if isinstance(result, Lost):
            raise SentrayError(reading_kills(result.item))
        index, blocks, complete = result
        found[index] = blocks
        if not complete:
            unread.add(index)
        tick(len(found))

    def in_order() -> Iterator[tuple[int, str, npt.NDArray[np.int64], npt.NDArray[np.uint64]]]:
        for index in sorted(found):
            for block in found.pop(index):
                yield index, *block

    return Duplicates(find_duplicates(in_order()), frozenset(unread))


def moved(pool: Pool, console: Console) -> bool:
    """Whether a pool's actors did anything since this was asked before; if not, the console notes what is awaited."""
    found = pool.moved()
    if not found:
        console.expect(pool.expected(_shard_named))
    return found


def note_retry(console: Console, item: Any, reason: str, line: str) -> None:
    """Tell that the shard of an item is worked on once more, as a pool does."""
    shard = shard_of(item).index
    console.note(f"shard {shard}: {line}", shard=shard, reason=reason)


def size_of(item: Any) -> int:
    """The size of an item of a map."""
    return shard_of(item).bytes


def shard_of(item: Any) -> Shard:
    """The shard of an item of a map, which is one or has one."""
    first = item[0] if isinstance(item, tuple) else item
    shard: Shard = first if isinstance(first, Shard) else first.shard
    return shard


def _shard_named(item: Any) -> str:
    return f"a shard of {files_of(shard_of(item))}"


def files_of(shard: Shard) -> str:
    """The files of a shard for a sentence about one of them."""
    first, last = shard.pieces[0].path, shard.pieces[-1].path
    return first if first == last else f"one of the files {first} to {last}"


def reading_kills(shard: Shard) -> str:
    """The sentence for a shard whose reader dies each time."""
    return (
        f"the processes that read {files_of(shard)} died each time (out of memory, or damaged in a way that kills the "
        "reader); leave it out, or take fewer --workers or a smaller --shard-size"
    )
