"""A corpus on Ray Data: its shards are read in parallel, and results come back in the input's order."""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sentray import cluster
from sentray.config import CorpusSettings
from sentray.console import count
from sentray.corpus.readers import WITH_COLUMNS, read_ids, read_shard
from sentray.corpus.rows import Hashes, Reason, mark
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Shard, ShardPlan, plan_shards
from sentray.errors import SentrayError

if TYPE_CHECKING:
    from ray.data import Dataset

T = TypeVar("T")
Rows = dict[str, npt.NDArray[np.int64]]
"""Rows of files, by the file's name."""
Ids = tuple[str, npt.NDArray[np.int64], Hashes]
"""A file's name, some of its rows and the 64-bit hash of each one's id."""

_MAX_BLOCKS = 4096


@dataclass(frozen=True)
class Corpus:
    """Labelled or unlabelled reviews that Ray can read.

    Attributes:
        source: what the URI stands for.
        settings: names of the columns and the like.
        shards: the plan; the same for the same input.
        need_label: whether a row without a label is bad.
        duplicates: rows whose id an earlier row has, by the shard's index.
    """

    source: Source
    settings: CorpusSettings
    shards: ShardPlan
    need_label: bool
    duplicates: dict[int, Rows] = field(default_factory=dict)

    @classmethod
    def open(cls, uri: str, settings: CorpusSettings, need_label: bool = True) -> "Corpus":
        """Find a corpus, plan its shards and look for ids that occur twice.

        Ids are looked through (hashed to 64 bits, in parallel) only where a column gives them; ids made of
        file and row cannot occur twice.

        Raises:
            SentrayError: there is no such corpus, or a file cannot be read.
        """
        return cls.plan(uri, settings, need_label).without_duplicates()

    @classmethod
    def plan(cls, uri: str, settings: CorpusSettings, need_label: bool = True) -> "Corpus":
        """Find a corpus and plan its shards, without Ray and without a look at its ids.

        Raises:
            SentrayError: there is no such corpus, or a file cannot be read.
        """
        source = resolve(uri)
        return cls(source, settings, plan_shards(source, settings.shard_size * 1_000_000), need_label)

    def without_duplicates(self) -> "Corpus":
        """The corpus with the rows known whose id an earlier row has."""
        if self.source.format not in WITH_COLUMNS:
            return self
        source, settings = self.source.lean(), self.settings

        def ids(shard: Shard, _: Rows) -> Iterator[tuple[int, str, npt.NDArray[np.int64], Hashes]]:
            for found in read_ids(source, shard, settings):
                yield shard.index, *found

        return replace(self, duplicates=find_duplicates(_map_shards(self, ids)))

    def items(self, shards: Iterable[Shard] | None = None) -> list[tuple[Shard, Rows]]:
        """Shards, all of them where not given, each with those of its rows whose id an earlier row has."""
        chosen = self.shards if shards is None else shards
        return [(shard, self.duplicates.get(shard.index, {})) for shard in chosen]

    @property
    def name(self) -> str:
        """The URI."""
        return self.source.uri

    def describe(self) -> str:
        """One line for the user: what, how many files and shards, how large."""
        return f"{self.source.describe()}, {count(len(self.shards), 'shard')}"

    def read(self, shard: Shard) -> Iterator[pa.Table]:
        """The rows of one shard, good and bad, read by this process."""
        return _Read(self)(shard, self.duplicates.get(shard.index, {}))

    def tables(self) -> "Dataset":
        """All rows, good and bad, as a Ray Dataset of `ROW_SCHEMA` in the input's order."""
        read = _Read(self)

        def work(batch: pa.Table) -> Iterator[pa.Table]:
            for shard, duplicates in _unpacked(batch):
                yield from read(shard, duplicates)

        return _shards(self).map_batches(work, batch_size=1, batch_format="pyarrow")

    def map_blocks(self, function: Callable[[pa.Table], T]) -> Iterator[T]:
        """What a function makes of each table of rows, in the input's order; rows stay where they are read.

        Args:
            function: takes a table of `ROW_SCHEMA` with at most 4,096 rows and gives something small that can
                be pickled.

        Raises:
            SentrayError: a file cannot be read, or the function refused a table.
        """
        read = _Read(self)
        return _map_shards(self, lambda shard, duplicates: map(function, read(shard, duplicates)))


class _Read:
    """Reads shards; holds no more than a worker needs."""

    def __init__(self, corpus: Corpus) -> None:
        self.source, self.settings, self.need_label = corpus.source.lean(), corpus.settings, corpus.need_label

    def __call__(self, shard: Shard, duplicates: Rows) -> Iterator[pa.Table]:
        for table in read_shard(self.source, shard, self.settings, need_label=self.need_label):
            yield mark_duplicates(table, duplicates)


def mark_duplicates(table: pa.Table, duplicates: Rows) -> pa.Table:
    """Set the rows of a table aside whose id an earlier row has.

    Args:
        table: as `read_shard` gives it.
        duplicates: of its shard, from `Corpus.duplicates`.
    """
    # A table of a format with columns never holds rows of two files.
    rows = duplicates.get(table["file"][0].as_py()) if duplicates and table.num_rows else None
    return table if rows is None else mark(table, np.isin(table["row"].to_numpy(), rows), Reason.DUPLICATE_ID)


def quiet_ray_data() -> None:
    """Keep Ray Data's log lines and progress bars off the console of this process."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False


def _shards(corpus: Corpus) -> "Dataset":
    """A dataset of the shards, a block each, with their duplicates."""
    import ray.data

    quiet_ray_data()
    if file := corpus.source.local_file:
        cluster.require_seen(file, f"the corpus {corpus.source.uri}")
    tasks = [{"packed": pickle.dumps((shard, corpus.duplicates.get(shard.index, {})))} for shard in corpus.shards]
    dataset = ray.data.from_items(tasks, override_num_blocks=min(len(tasks), _MAX_BLOCKS))
    dataset.context.execution_options.preserve_order = True
    return dataset


def _map_shards(corpus: Corpus, function: Callable[[Shard, Rows], Iterator[T]]) -> Iterator[T]:
    """What a function gives for each shard, computed in parallel, in the order of the shards."""

    def work(batch: pa.Table) -> Iterator[pa.Table]:
        for shard, duplicates in _unpacked(batch):
            # Ray adds to the text of an error that passes through it, so that ours travels as a value.
            try:
                for value in function(shard, duplicates):
                    yield _packed(value)
            except SentrayError as mistake:
                yield _packed(mistake)

    results = _shards(corpus).map_batches(work, batch_size=1, batch_format="pyarrow")
    for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        for value in _unpacked(batch):
            if isinstance(value, SentrayError):
                raise value
            yield value


def _packed(value: object) -> pa.Table:
    return pa.table({"packed": pa.array([pickle.dumps(value)], pa.large_binary())})


def _unpacked(batch: pa.Table) -> Iterator[Any]:
    for value in batch["packed"]:
        yield pickle.loads(value.as_buffer())


def shard_ids(source: Source, shard: Shard, settings: CorpusSettings) -> list[Ids]:
    """File, rows and 64-bit hashes of the ids of a shard's rows, for `find_duplicates`.

    Empty where no column gives ids: those made of file and row cannot occur twice. Of a file that cannot be read to
    its end, the ids before the damage.
    """
    return list(read_ids(source, shard, settings, on_unreadable="quarantine"))


def find_duplicates(blocks: Iterable[tuple[int, str, npt.NDArray[np.int64], Hashes]]) -> dict[int, Rows]:
    """All rows but the first of those with one id, by the shard's index; takes some 24 bytes a row.

    Args:
        blocks: the index of a shard and what `shard_ids` gave for it, a tuple each; the shards in any order.
    """
    found = sorted(blocks, key=lambda block: block[0])
    if not found:
        return {}
    hashes = np.concatenate([block[3] for block in found])
    hashes.sort()
    twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    del hashes
    seen = np.zeros(len(twice), bool)
    duplicates: dict[int, Rows] = {}
    for index, file, rows, hashes in found:
        place = np.searchsorted(twice, hashes)
        place[place == len(twice)] = 0
        candidates = np.flatnonzero(twice[place] == hashes) if len(twice) else place[:0]
        if len(candidates):
            of = place[candidates]
            first = np.zeros(len(of), bool)
            first[np.unique(of, return_index=True)[1]] = True
            later = rows[candidates[seen[of] | ~first]]
            seen[of] = True
            if len(later):
                of_shard = duplicates.setdefault(index, {})
                of_shard[file] = np.concatenate([of_shard.get(file, later[:0]), later])
    return duplicates
