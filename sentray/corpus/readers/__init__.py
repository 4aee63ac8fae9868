"""From a shard to checked rows, whatever the format."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sentray.config import CorpusSettings
from sentray.corpus.files import reading
from sentray.corpus.readers.lines import read_csv, read_jsonl
from sentray.corpus.readers.parquet import read_parquet
from sentray.corpus.readers.records import (
    ROW_SCHEMA,
    TABLE_ROWS,
    Block,
    Columns,
    blank_to_null,
    decode,
    finish,
    hash64,
)
from sentray.corpus.readers.trees import read_reviews, read_synthetic
from sentray.corpus.shards import Shard
from sentray.corpus.source import Source
from sentray.errors import SentrayError

__all__ = ["ROW_SCHEMA", "TABLE_ROWS", "hash64", "read_ids", "read_shard"]

_READERS = {"csv": read_csv, "jsonl": read_jsonl, "parquet": read_parquet, "synthetic": read_synthetic}
_WITH_COLUMNS = ("csv", "jsonl", "parquet")


def read_shard(
    source: Source,
    shard: Shard,
    settings: CorpusSettings,
    keep: Sequence[str] = (),
    need_label: bool = False,
) -> Iterator[pa.Table]:
    """All rows of a shard, good and bad, in the input's order.

    Args:
        source: where the shard's files lie (a `lean()` one will do).
        shard: of the plan made for that source.
        settings: names of the columns, and the share of rows for testing.
        keep: further columns to pass through; Parquet's keep their type, others are strings.
        need_label: whether a row without a label is bad (`unsup` rows are not).

    Yields:
        Tables of `ROW_SCHEMA` and the kept columns, of at most 4,096 rows and about 16 MB each. A kept column
        that is one of `id`, `text`, `label` and `split` is that column of the schema.

    Raises:
        SentrayError: a file cannot be read or lacks a column.
    """
    columns = Columns(settings, tuple(keep), need_label)
    if keep and shard.format not in _WITH_COLUMNS:
        raise SentrayError(f"{source.uri} has no columns to keep: leave out --keep")
    for block in _blocks(source, shard, columns):
        yield finish(block, columns)


def read_ids(
    source: Source, shard: Shard, settings: CorpusSettings
) -> Iterator[tuple[str, npt.NDArray[np.int64], npt.NDArray[np.uint64]]]:
    """File, rows and 64-bit hashes of the ids that a column gives; nothing where no column does."""
    if shard.format not in _WITH_COLUMNS:
        return
    for block in _blocks(source, shard, Columns(settings, ids_only=True)):
        if block.id is not None and len(block.rows):
            ids = blank_to_null(decode(block.id, settings.id_column, block.file)[0])
            given = np.flatnonzero(ids.is_valid().to_numpy(zero_copy_only=False))
            hashes = np.fromiter(map(hash64, ids.drop_null().to_pylist()), np.uint64, len(given))
            yield str(block.file), block.rows[given], hashes


def _blocks(source: Source, shard: Shard, columns: Columns) -> Iterator[Block]:
    if shard.format in ("text", "nltk"):
        yield from read_reviews(source, shard, columns)
        return
    for piece in shard.pieces:
        with reading(piece.path):
            yield from _READERS[shard.format](source, piece, columns)
