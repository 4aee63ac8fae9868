"""A corpus on Ray Data: its shards are read in parallel, and results come back in the input's order."""

import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sentray.config import CorpusSettings
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.readers.records import mark
from sentray.corpus.shards import Shard, plan_shards
from sentray.corpus.source import Source, resolve
from sentray.errors import SentrayError
from sentray.quarantine import Reason

if TYPE_CHECKING:
    from ray.data import Dataset

T = TypeVar("T")
Rows = dict[str, npt.NDArray[np.int64]]
"""Rows of files, by the file's name."""

_MOST_BLOCKS = 4096


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
    shards: tuple[Shard, ...]
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
        source = resolve(uri)
        shards = tuple(plan_shards(source, settings.shard_size * 1_000_000))
        corpus = cls(source, settings, shards, need_label)
        if source.format not in ("csv", "jsonl", "parquet"):
            return corpus
        return replace(corpus, duplicates=_find_duplicates(corpus))

    @property
    def name(self) -> str:
        """The URI."""
        return self.source.uri

    def describe(self) -> str:
        """One line for the user: what, how many files and shards, how large."""
        return f"{self.source.describe()}, {_count(len(self.shards), 'shard')}"

    def tables(self) -> "Dataset":
        """All rows, good and bad, as a Ray Dataset of `ROW_SCHEMA` in the input's order."""
        return _map_shards(self, _Read(self))

    def map_blocks(self, function: Callable[[pa.Table], T]) -> Iterator[T]:
        """What a function makes of each table of rows, in the input's order; rows stay where they are read.

        Args:
            function: takes a table of `ROW_SCHEMA` with at most 4,096 rows and gives something small that can
                be pickled.

        Raises:
            SentrayError: a file cannot be read, or the function refused a table.
        """
        read = _Read(self)

        def work(batch: pa.Table) -> Iterator[pa.Table]:
            for table in read(batch):
                yield _packed(function(table))

        yield from _results(_map_shards(self, work))


class _Read:
    """Reads the shards of a batch; holds no more than a worker needs."""

    def __init__(self, corpus: Corpus) -> None:
        self.source, self.settings, self.need_label = corpus.source.lean(), corpus.settings, corpus.need_label

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for shard, duplicates in _unpacked(batch):
            for table in read_shard(self.source, shard, self.settings, need_label=self.need_label):
                yield _mark_duplicates(table, duplicates) if duplicates else table


def quiet_ray_data() -> None:
    """Keep Ray Data's log lines and progress bars off the console of this process."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False


def _map_shards(corpus: Corpus, work: Callable[[pa.Table], Iterator[pa.Table]]) -> "Dataset":
    """A dataset of what `work` makes of the shards, each with its duplicates."""
    import ray.data

    quiet_ray_data()
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    items = [
        {"packed": pickle.dumps((shard, corpus.duplicates.get(shard.index, {})))} for shard in corpus.shards
    ]
    with ray.data.DataContext.current(context):
        shards = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS))
        return shards.map_batches(work, batch_size=1, batch_format="pyarrow", zero_copy_batch=True)


def _results(dataset: "Dataset") -> Iterator[Any]:
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from _unpacked(batch)
    except Exception as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        raise mistake from None


def _packed(value: object) -> pa.Table:
    return pa.table({"packed": pa.array([pickle.dumps(value)], pa.large_binary())})


def _unpacked(batch: pa.Table) -> Iterator[Any]:
    for value in batch["packed"]:
        yield pickle.loads(value.as_buffer())


def _mistake(error: BaseException | None) -> SentrayError | None:
    """The user's mistake that Ray wrapped on its way here, without the remote traceback."""
    while error is not None:
        if isinstance(error, SentrayError) and not hasattr(error, "cause"):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _find_duplicates(corpus: Corpus) -> dict[int, Rows]:
    """All rows but the first of those with one id."""
    source, settings = corpus.source.lean(), corpus.settings

    def work(batch: pa.Table) -> Iterator[pa.Table]:
        for shard, _ in _unpacked(batch):
            yield _packed((shard.index, list(read_ids(source, shard, settings))))

    found = [(index, *ids) for index, blocks in _results(_map_shards(corpus, work)) for ids in blocks]
    if not found:
        return {}
    hashes = np.concatenate([block[3] for block in found])
    order = np.argsort(hashes, kind="stable")
    repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    repeated = np.zeros(len(hashes), dtype=bool)
    repeated[order[repeats]] = True
    duplicates: dict[int, Rows] = {}
    start = 0
    for index, file, rows, block_hashes in found:
        later = rows[repeated[start : start + len(block_hashes)]]
        start += len(block_hashes)
        if len(later):
            of_shard = duplicates.setdefault(index, {})
            of_shard[file] = np.concatenate([of_shard[file], later]) if file in of_shard else later
    return duplicates


def _mark_duplicates(table: pa.Table, duplicates: Rows) -> pa.Table:
    # A table of a format with columns never holds rows of two files.
    rows = duplicates.get(table["file"][0].as_py())
    if rows is None:
        return table
    return mark(table, np.isin(table["row"].to_numpy(), rows), Reason.DUPLICATE_ID)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
