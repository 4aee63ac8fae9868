"""`ShardDatasource`: shards as a Ray Datasource, whose tasks read several where there are many."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.context import DataContext

from sentray.corpus.duplicates import Rows
from sentray.corpus.splits import Shard

Item = tuple[Shard, Rows]
"""A shard, with those of its rows whose id an earlier row has."""
Read = Callable[[Shard, Rows], Iterator[pa.Table]]


class ShardDatasource(Datasource):
    """Reads shards in their order.

    Args:
        name: what is read; Ray calls the stage `Read…`.
        items: the shards.
        read: gives the tables of one shard; runs in a task.
        schema: of these tables.
    """

    def __init__(self, name: str, items: Sequence[Item], read: Read, schema: pa.Schema) -> None:
        super().__init__()
        self._name, self._items, self._read, self._schema = name, items, read, schema

    def get_name(self) -> str:
        """What is read."""
        return self._name

    def estimate_inmemory_data_size(self) -> int:
        """Size of all shards in bytes, as stored."""
        return sum(shard.bytes for shard, _ in self._items)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """As many tasks as asked for, each of neighbouring shards."""
        bounds = np.linspace(0, len(self._items), parallelism + 1).astype(int).tolist()
        return [
            ReadTask(
                partial(_read_items, self._items[start:stop], self._read, self._schema),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None),
                schema=self._schema,
                per_task_row_limit=per_task_row_limit,
            )
            for start, stop in pairwise(bounds)
        ]


def _read_items(items: Sequence[Item], read: Read, schema: pa.Schema) -> Iterator[pa.Table]:
    # Ray would make up a block without columns for a task that reads no row.
    yield schema.empty_table()
    for shard, duplicates in items:
        yield from read(shard, duplicates)
