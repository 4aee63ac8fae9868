"""Corpora on Ray Data: `read_reviews` gives a Ray Dataset, and the verbs map stages over the rows of a `Corpus`."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sentray import cluster
from sentray.config import CorpusSettings
from sentray.console import count
from sentray.corpus.duplicates import IdBlock, Rows, find_duplicates, mark_duplicates
from sentray.corpus.groups import columns_of, with_test_fold
from sentray.corpus.readers import may_have_ids, read_ids, read_shard
from sentray.corpus.rows import NUMBERS, ROLES, ROW_SCHEMA, TABLE_BYTES, decode, kept_name, numbers_type
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Shard, ShardPlan, plan_shards, reader
from sentray.errors import SentrayError

if TYPE_CHECKING:
    from ray.data import Dataset

    from sentray.corpus.datasource import Read

Tables = dict[str, pa.Table]
"""What a stage makes of a block of rows: tables, each of the same schema for every block."""
Stage = Callable[..., Tables]

MAX_READ_TASKS = 1000
"""A task costs Ray about 10 ms; where there are more shards than this, one task reads several."""
RETRIES = 3
"""How often a task is tried again whose process died; Ray Data's own way is to try for ever."""
_REMOTE = {"max_retries": RETRIES}
MERGED = 32
"""Where a stage's results are merged, tasks merge them until about so many are left for the driver."""

_IDS_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int64()),
        pa.field("file", pa.string()),
        pa.field("rows", pa.list_(pa.int64())),
        pa.field("hashes", pa.list_(pa.uint64())),
    ]
)
"""A row for some ids of a file: which rows have them, and their 64-bit hashes."""


def read_reviews(uri: str, settings: CorpusSettings | None = None) -> "Dataset":
    """A corpus as a Ray Dataset, lazily read, in the input's order.

    Args:
        uri: what `sentray train` takes: files, a folder, a glob or a URL, `nltk:movie_reviews`, `synthetic:N`.
        settings: names of the columns, share of rows for testing, size of a shard.

    Returns:
        A row a review: `id`, `text`, `label` (null where there is none) and `split`, all strings. Rows that cannot
        be used are left out; `sentray check` counts them and says why.

    Raises:
        SentrayError: there is no such corpus, or a file cannot be read (also while the dataset is consumed).
    """
    corpus = Corpus.open(uri, settings or CorpusSettings(), need_label=False)
    return corpus.rows().map_batches(good_rows, batch_format="pyarrow")


def good_rows(rows: pa.Table) -> pa.Table:
    """Id, text, label and split of the usable rows of a table of `ROW_SCHEMA`."""
    return rows.filter(pc.is_null(rows["reason"])).select(ROLES)


@dataclass(frozen=True)
class Corpus:
    """Labelled or unlabelled reviews that Ray can read.

    Attributes:
        source: what the URI stands for.
        settings: names of the columns and the like.
        shards: the plan; the same for the same input.
        need_label: whether a row without a label is bad.
        duplicates: rows whose id an earlier row has, by the shard's index.
        workers: tasks at a time; as many as the cluster has CPUs where not given.
    """

    source: Source
    settings: CorpusSettings
    shards: ShardPlan
    need_label: bool
    duplicates: dict[int, Rows] = field(default_factory=dict)
    workers: int | None = None

    @classmethod
    def open(cls, uri: str, settings: CorpusSettings, need_label: bool = True, workers: int | None = None) -> "Corpus":
        """Find a corpus, plan its shards and look for ids that occur twice.

        Ids are looked through (hashed to 64 bits, in parallel) only where a column gives them; ids made of
        file and row cannot occur twice.

        Raises:
            SentrayError: there is no such corpus, or a file cannot be read.
        """
        corpus = replace(cls.plan(uri, settings, need_label), workers=workers)
        if not may_have_ids(corpus.source, settings):
            return corpus
        known = corpus.shards.take_ids()
        blocks = [(index, *ids) for index, of_shard in known.items() for ids in of_shard]
        if rest := [shard for shard in corpus.shards if shard.index not in known]:
            read = functools.partial(_read_ids, corpus.source.lean(), settings)
            ids = corpus._read("Ids", read, _IDS_SCHEMA, rest, concurrency=workers, ray_remote_args=_REMOTE)
            blocks += _id_blocks(_run(ids))
        return replace(corpus, duplicates=find_duplicates(blocks))

    @classmethod
    def plan(cls, uri: str, settings: CorpusSettings, need_label: bool = True) -> "Corpus":
        """Find a corpus and plan its shards, without Ray and without a look at its ids.

        Raises:
            SentrayError: there is no such corpus, or a file cannot be read.
        """
        source = resolve(uri, settings)
        return cls(source, settings, plan_shards(source, settings.shard_size * 1_000_000, settings), need_label)

    @property
    def name(self) -> str:
        """The URI."""
        return self.source.uri

    def describe(self) -> str:
        """One line for the user: what, how many files and shards, how large."""
        separated = reader("csv").separated(self.source, self.settings)
        return f"{self.source.describe()}{separated}, {count(len(self.shards), 'shard')}"

    def read(self, shard: Shard) -> Iterator[pa.Table]:
        """The rows of one shard, good and bad, read by this process."""
        return self._read_rows(shard, self.duplicates.get(shard.index, {}))

    def rows(self, **options: Any) -> "Dataset":
        """All rows, good and bad, as a Ray Dataset of `ROW_SCHEMA` in the input's order.

        Args:
            options: for `ray.data.read_datasource`.
        """
        kept = [pa.field(kept_name(column), pa.large_string()) for column in columns_of(self.settings)]
        numbers = [pa.field(NUMBERS, numbers_type(names))] if (names := self.settings.numeric) else []
        return self._read("Reviews", self._read_rows, pa.schema([*ROW_SCHEMA, *kept, *numbers]), **options)

    def map_blocks(
        self, stage: Stage, merge: Callable[[Tables], Tables] | None = None, **arguments: Any
    ) -> Iterator[Tables]:
        """What a stage makes of the rows, block after block in the input's order; texts stay where they are read.

        The stage runs in the task that reads the rows, under its own name in `Dataset.stats` and in Ray's dashboard.

        Args:
            stage: takes a table of `ROW_SCHEMA` with about 16 MB of text, and the arguments.
            merge: makes less of the tables of several blocks, one behind the other, before they come to the driver,
                such as sums.
            arguments: for the stage; sent once.

        Raises:
            SentrayError: a file cannot be read, the stage refused a table, or its process died each time.
        """
        # Ray Data lets one task read and map where both ask for the same.
        rows = self.rows(concurrency=self.workers, ray_remote_args=_REMOTE)
        rows.context.target_max_block_size = TABLE_BYTES
        with _no_deprecations():
            work = _named(stage, lambda rows: stage(rows, **arguments))
            results = rows.map_batches(work, batch_format="pyarrow", concurrency=self.workers, **_REMOTE)
            at_once = -(-len(self.shards) // MERGED)
            if merge is not None and at_once > 1:
                # A stage that asks for something else has tasks of its own, which get the results of several others.
                work = _named(merge, lambda results: merge(_unpacked(results)))
                results = results.map_batches(work, batch_format="pyarrow", batch_size=at_once, num_cpus=0.5, **_REMOTE)
        yield from map(_unpacked, _run(results))

    @property
    def _read_rows(self) -> "Read":
        return functools.partial(_read_rows, self.source.lean(), self.settings, self.need_label)

    def _read(
        self, name: str, read: "Read", schema: pa.Schema, shards: Iterable[Shard] | None = None, **options: Any
    ) -> "Dataset":
        """What a function reads of each shard, or of some, as a dataset in the order of the shards."""
        import ray.data

        from sentray.corpus.datasource import ShardDatasource

        if file := self.source.local_file:
            cluster.require_seen(file, f"the corpus {self.source.uri}")
        items = [(shard, self.duplicates.get(shard.index, {})) for shard in shards or self.shards]
        tasks = max(1, min(len(items), MAX_READ_TASKS))
        source = ShardDatasource(name, items, read, schema)
        with _no_deprecations():
            dataset = ray.data.read_datasource(source, override_num_blocks=tasks, **options)
        dataset.context.execution_options.preserve_order = True
        dataset.context.raise_original_map_exception = True
        return dataset


@contextlib.contextmanager
def _no_deprecations() -> Iterator[None]:
    """Keep quiet of Ray's advice to name each parameter of a task: it has no name for `max_retries` yet."""
    from ray.util.annotations import RayDeprecationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def _read_rows(
    source: Source, settings: CorpusSettings, need_label: bool, shard: Shard, duplicates: Rows
) -> Iterator[pa.Table]:
    keep = columns_of(settings)
    for table in read_shard(source, shard, settings, keep, need_label=need_label):
        for index, column in enumerate(keep, len(ROW_SCHEMA)):
            texts = decode(table.column(index).combine_chunks(), column, shard.pieces[0].name)[0]
            table = table.set_column(index, kept_name(column), texts)
        yield with_test_fold(mark_duplicates(table, duplicates), settings)


def _read_ids(source: Source, settings: CorpusSettings, shard: Shard, _: Rows) -> Iterator[pa.Table]:
    for file, rows, hashes in read_ids(source, shard, settings):
        yield pa.table([[shard.index], [file], [rows], [hashes]], schema=_IDS_SCHEMA)


def _id_blocks(batches: Iterable[pa.Table]) -> Iterator[IdBlock]:
    for batch in batches:
        for shard, file, rows, hashes in zip(*(batch[name] for name in _IDS_SCHEMA.names), strict=True):
            yield shard.as_py(), file.as_py(), rows.values.to_numpy(), hashes.values.to_numpy()


def _named(name: Callable[..., Tables], work: Callable[[pa.Table], Tables]) -> Callable[[pa.Table], pa.Table]:
    """A function for Ray Data that is called as another one is, and gives its tables as one row."""

    @functools.wraps(name)
    def packed(rows: pa.Table) -> pa.Table:
        columns = {key: table.to_struct_array().combine_chunks() for key, table in work(rows).items()}
        # A list of structures each.
        return pa.table({key: pa.ListArray.from_arrays([0, len(column)], column) for key, column in columns.items()})

    return packed


def _unpacked(results: pa.Table) -> Tables:
    """The tables of one row or several, those of one name one behind the other."""
    return {name: pa.Table.from_struct_array(pc.list_flatten(results[name])) for name in results.column_names}


def _run(dataset: "Dataset") -> Iterator[pa.Table]:
    """The blocks of a dataset, in the memory of this process.

    Raises:
        SentrayError: a task raised it, or its process died each time.
    """
    from ray.exceptions import RayTaskError, WorkerCrashedError

    # What goes wrong is raised, and not also printed.
    logger = logging.getLogger("ray.data")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    dataset.context.enable_progress_bars = False
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield _copied(block)
    except RayTaskError as error:
        if isinstance(error.cause, SentrayError):
            # Ray Data puts advice about retries behind the sentence.
            error.cause.args = (str(error.cause).partition("\n")[0],)
            raise error.cause from None
        raise
    except WorkerCrashedError as error:
        raise SentrayError(
            f"the processes that worked on one shard died, {RETRIES + 1} of them (out of memory?); take "
            "fewer --workers or a smaller --shard-size"
        ) from error
    finally:
        logger.setLevel(before)


def _copied(block: pa.Table) -> pa.Table:
    """A table that keeps no memory of Ray's object store, where a slice would keep its whole block."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as stream:
        stream.write_table(block)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
