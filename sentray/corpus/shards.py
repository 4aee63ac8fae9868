"""The plan of a run: the input cut into shards, the same for the same input on every machine."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.parquet as pq

from sentray.corpus.files import reading
from sentray.corpus.source import Format, Source, SourceFile

# Opening a file takes about as long as reading this many bytes, so that a bundle of small files stays at some
# thousand of them.
_LEAST_WEIGHT = 64 * 1024
# A small input is cut finer than asked, into about this many shards, so that several workers get some.
_LEAST_SHARDS = 16
_LEAST_SHARD = 1_000_000
_SYNTHETIC_ROWS = 8192
_SYNTHETIC_ROW_BYTES = 750


@dataclass(frozen=True, slots=True)
class Piece:
    """A file or a part of one.

    Attributes:
        path: where the source's file system has the file.
        name: relative to the URI's root; what ids are made of.
        start: where the part begins: a row group of Parquet, a row of synthetic reviews, else 0.
        stop: where it ends, exclusive; None is the file's end.
        label: of a file that is one review.
        split: of a file that is one review.
    """

    path: str
    name: str
    start: int = 0
    stop: int | None = None
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of the input that is read, scored, retried and committed as one.

    Attributes:
        index: position in the plan, from 0.
        format: of its pieces.
        pieces: in the order in which they are read.
        bytes: size as stored (an estimate for synthetic reviews).
    """

    index: int
    format: Format
    pieces: tuple[Piece, ...]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The shard as JSON values; `from_dict` brings it back."""
        pieces = [[p.path, p.name, p.start, p.stop, p.label, p.split] for p in self.pieces]
        return {"index": self.index, "format": self.format, "bytes": self.bytes, "pieces": pieces}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Shard":
        """The shard that `to_dict` wrote."""
        pieces = tuple(Piece(*piece) for piece in values["pieces"])
        return cls(values["index"], values["format"], pieces, values["bytes"])


def plan_shards(source: Source, shard_size: int) -> list[Shard]:
    """Cut a corpus into shards: small files in bundles, a large Parquet file by its row groups.

    Args:
        source: what `resolve` found.
        shard_size: aimed-at size of a shard in bytes as stored. A file counts at least 64 kB, as opening it
            takes time too; a small input is cut into smaller shards.

    Raises:
        SentrayError: a large Parquet file cannot be read.
    """
    if source.format == "synthetic":
        return _plan_synthetic(source, shard_size)
    total = sum(max(file.size, _LEAST_WEIGHT) for file in source.files)
    size = min(shard_size, max(_LEAST_SHARD, total // _LEAST_SHARDS))
    shards: list[Shard] = []
    pieces: list[Piece] = []
    stored = weight = 0
    for piece, part in (part for file in source.files for part in _parts(source, file, size)):
        cost = max(part, _LEAST_WEIGHT) if piece.stop is None else part
        if pieces and weight + cost > size:
            shards.append(Shard(len(shards), source.format, tuple(pieces), stored))
            pieces, stored, weight = [], 0, 0
        if pieces and pieces[-1].path == piece.path:
            pieces[-1] = replace(pieces[-1], stop=piece.stop)
        else:
            pieces.append(piece)
        stored, weight = stored + part, weight + cost
    return [*shards, Shard(len(shards), source.format, tuple(pieces), stored)]


def _parts(source: Source, file: SourceFile, size: int) -> Iterator[tuple[Piece, int]]:
    """The parts that a file may be cut into, with their sizes."""
    piece = Piece(file.path, file.name, label=file.label, split=file.split)
    if source.format != "parquet" or file.size <= size:
        yield piece, file.size
        return
    assert source.filesystem is not None
    with reading(file.path), source.filesystem.open_input_file(file.path) as stream:
        metadata = pq.ParquetFile(stream).metadata
        sizes = [
            sum(group.column(column).total_compressed_size for column in range(group.num_columns))
            for group in map(metadata.row_group, range(metadata.num_row_groups))
        ]
    for index, part in enumerate(sizes):
        yield replace(piece, start=index, stop=index + 1), part


def _plan_synthetic(source: Source, shard_size: int) -> list[Shard]:
    rows = max(1, min(_SYNTHETIC_ROWS, shard_size // _SYNTHETIC_ROW_BYTES))
    bounds = [(start, min(start + rows, source.rows)) for start in range(0, source.rows, rows)]
    return [
        Shard(
            index,
            "synthetic",
            (Piece(source.uri, "synthetic", start, stop),),
            (stop - start) * _SYNTHETIC_ROW_BYTES,
        )
        for index, (start, stop) in enumerate(bounds)
    ]
