"""Parquet: row groups in batches of bounded size."""

from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq

from sentray.corpus.files import open_file
from sentray.corpus.readers.records import TABLE_BYTES, TABLE_ROWS, Block, Columns
from sentray.corpus.shards import Piece
from sentray.corpus.source import Source
from sentray.errors import SentrayError


def read_parquet(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a Parquet file's row groups `piece.start` to `piece.stop`.

    Raises:
        SentrayError: the file lacks a column, or has fewer row groups than were planned.
    """
    assert source.filesystem is not None
    with open_file(source.filesystem, piece.path) as stream:
        file = pq.ParquetFile(stream)
        chosen = columns.choose(file.schema_arrow.names, piece.path)
        if not chosen:
            return
        stop = file.num_row_groups if piece.stop is None else piece.stop
        if stop > file.num_row_groups:
            raise SentrayError(
                f"{piece.path} has fewer row groups than when the run was planned: put the file back as it was"
            )
        done = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
        for group in range(piece.start, stop):
            metadata = file.metadata.row_group(group)
            a_row = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
            size = max(1, min(TABLE_ROWS, TABLE_BYTES // a_row))
            for batch in file.iter_batches(size, row_groups=[group], columns=chosen, use_threads=False):
                rows = np.arange(done + 1, done + 1 + batch.num_rows, dtype=np.int64)
                done += batch.num_rows
                yield columns.block(piece.name, rows, dict(zip(batch.schema.names, batch.columns, strict=True)))
