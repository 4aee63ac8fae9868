"""The plan of a run: the input cut into pieces (`Piece`) and these put into shards (`plan_shards`), always the same."""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray.config import CorpusSettings
from sentray.corpus.source import Format, Source, SourceFile
from sentray.errors import SentrayError

# Opening a file takes about as long as reading this many bytes, so that a bundle of small files stays at some
# thousand of them.
_MIN_WEIGHT = 64 * 1024
# A small input is cut finer than asked, into about this many shards, so that several workers get some.
_MIN_SHARDS = 16
_MIN_SHARD = 1_000_000
_SYNTHETIC_ROWS = 8192
_SYNTHETIC_ROW_BYTES = 750
_MAX = 1 << 48
# Rows of the plan that are made shards at a time when it is gone through.
_BATCH = 4096
UNKNOWN = -1
_CUT = ("csv", "jsonl", "lines", "parquet")

Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
FileIds = tuple[str, Numbers, Hashes]
"""A file's name, some of its rows, and the 64-bit hash of each one's id."""
_NAMES = pa.dictionary(pa.int32(), pa.string())
PLAN_SCHEMA = pa.schema(
    [
        pa.field("path", _NAMES),
        pa.field("name", _NAMES),
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
        pa.field("row", pa.int64()),
        pa.field("label", _NAMES),
        pa.field("split", _NAMES),
        pa.field("shard", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("rows", pa.int64()),
    ]
)
"""A plan as a table: a row a `Piece`, with the index of its shard, its size as stored and its rows where known."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file or a part of one.

    Attributes:
        path: where the source's file system has the file.
        name: relative to the URI's root; what ids are made of.
        start: where the part begins: a row group of Parquet, a byte of CSV and JSON Lines, a row of synthetic
            reviews, else 0.
        stop: where it ends, exclusive; None is the file's end.
        row: how many rows of the file are before it, so that rows have the same numbers however a file is cut.
        label: of its reviews, where names of files and folders say it.
        split: of its reviews, where names of files and folders say it and no column does.
        bytes: size as stored (an estimate for synthetic reviews).
    """

    path: str
    name: str
    start: int = 0
    stop: int | None = None
    row: int = 0
    label: str | None = None
    split: str | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of the input that is read, scored, retried and committed as one.

    Attributes:
        index: position in the plan, from 0.
        format: of its pieces.
        pieces: in the order in which they are read.
        bytes: size as stored (an estimate for synthetic reviews).
        rows: how many it holds, good and bad, where planning found out.
    """

    index: int
    format: Format
    pieces: tuple[Piece, ...]
    bytes: int
    rows: int | None = None


class Part(NamedTuple):
    """The smallest part of a file that a shard can hold, as a reader's `cut` finds it; `start` to `row` as a piece's.

    Attributes:
        bytes: size as stored.
        rows: how many it has, or `UNKNOWN`.
        ids: which of the file's rows in it have an id, and the id's 64-bit hash, where cutting the file has read them.
    """

    start: int
    stop: int
    row: int
    bytes: int
    rows: int
    ids: tuple[Numbers, Hashes] | None = None


class ShardPlan(Sequence[Shard]):
    """The shards of an input, kept as columns; one is made when it is asked for.

    A million shards take some 70 MB, or twice that where each is a file of its own.

    Args:
        table: of `PLAN_SCHEMA`, sorted by shard.
        format: of every piece.
        ids: of those shards of which planning has read all ids, by the shard's index.
    """

    def __init__(self, table: pa.Table, format: Format, ids: dict[int, list[FileIds]] | None = None) -> None:
        self.format, self._ids = format, ids or {}
        self._table = table.unify_dictionaries().combine_chunks()
        self._first = np.flatnonzero(np.diff(self._table["shard"].to_numpy(), prepend=-1, append=-2))

    @classmethod
    def from_table(cls, table: pa.Table, format: Format) -> "ShardPlan":
        """The plan that `to_table` gave, also after a way through Parquet, from whomever.

        Raises:
            SentrayError: the table is no plan: a column or a number is missing or out of range, or a name leads out of
                the input's folder.
        """
        try:
            plan = cls(table.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA), format)
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise SentrayError("the plan of shards has other columns than it should: choose another --out") from error
        table, steps = plan.to_table(), np.diff(plan.to_table()["shard"].to_numpy(), prepend=-1)
        numbers = [table[name] for name in ("start", "stop", "row", "bytes", "rows")]
        wrong = [pc.or_(pc.less(column, 0), pc.greater(column, _MAX)) for column in numbers]
        wrong += [pc.less(table["stop"], table["start"]), pa.array((steps < 0) | (steps > 1))]
        wrong += [pc.is_null(table[name]) for name in ("path", "name", "start", "row", "shard", "bytes")]
        wrong += [pc.match_substring_regex(plan._strings("name"), r"^/|(^|/)\.\.(/|$)"), pa.array(steps[:1] != 1)]
        if any(pc.any(mask).as_py() for mask in wrong):
            raise SentrayError("the plan of shards has gaps, or numbers that no plan has: choose another --out")
        return plan

    def to_table(self) -> pa.Table:
        """The plan as a table of `PLAN_SCHEMA`."""
        return self._table

    def require_files(self, paths: pa.ChunkedArray, names: pa.ChunkedArray) -> None:
        """Make sure that every piece is of one of these files, and under its name.

        Raises:
            SentrayError: a piece is of another, which nobody asked to be read.
        """
        known = pc.index_in(self._strings("path"), value_set=paths)
        positions = pc.index_in(self._strings("name"), value_set=names)
        if not known.equals(positions) or known.null_count:
            raise SentrayError("the plan of shards names other files than the input's: choose another --out")

    def _strings(self, name: str) -> pa.ChunkedArray:
        return self._table[name].cast(pa.string())

    def take_ids(self) -> dict[int, list[FileIds]]:
        """The ids that planning has read, by the shard's index; the plan holds them no longer."""
        taken, self._ids = self._ids, {}
        return taken

    def extended(self, other: "ShardPlan") -> "ShardPlan":
        """This plan with another's shards after its own, which go on with the numbers."""
        table = other.to_table()
        column = PLAN_SCHEMA.get_field_index("shard")
        moved = table.set_column(column, PLAN_SCHEMA.field(column), pc.add(table["shard"], len(self)))
        return ShardPlan(pa.concat_tables([self._table, moved]), self.format)

    @property
    def bytes(self) -> int:
        """Size of all shards together, as stored."""
        return int(pc.sum(self._table["bytes"]).as_py() or 0)

    @property
    def rows(self) -> int | None:
        """How many rows all shards hold, where that is known of each."""
        return None if self._table["rows"].null_count else int(pc.sum(self._table["rows"]).as_py() or 0)

    def __len__(self) -> int:
        return len(self._first) - 1

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> list[Shard]: ...
    def __getitem__(self, index: int | slice) -> Shard | list[Shard]:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        first, end = self._first[range(len(self))[index] :][:2].tolist()
        return next(self._shards(self._table.slice(first, end - first)))

    def __iter__(self) -> Iterator[Shard]:
        return self._shards(self._table)

    def _shards(self, table: pa.Table) -> Iterator[Shard]:
        rows = (row for batch in table.to_batches(_BATCH) for row in batch.to_pylist())
        for index, pieces in groupby(rows, key=itemgetter("shard")):
            of_shard = list(pieces)
            known = None if any(row["rows"] is None for row in of_shard) else sum(row["rows"] for row in of_shard)
            made = tuple(Piece(*_piece(row)) for row in of_shard)
            yield Shard(index, self.format, made, sum(row["bytes"] for row in of_shard), known)


_piece = itemgetter("path", "name", "start", "stop", "row", "label", "split", "bytes")


def plan_shards(source: Source, shard_size: int, settings: CorpusSettings | None = None) -> ShardPlan:
    """Cut a corpus into shards: small files in bundles, large ones at their records or row groups.

    A large CSV or JSON Lines file is read once to find where its records end. A file that cannot be read stays whole:
    whoever reads it says why.

    Args:
        source: what `resolve` found.
        shard_size: aimed-at size of a shard in bytes as stored. A file counts at least 64 kB, as opening it
            takes time too; a small input is cut into smaller shards.
        settings: how files are taken apart.
    """
    if source.format == "synthetic":
        step = max(1, min(_SYNTHETIC_ROWS, shard_size // _SYNTHETIC_ROW_BYTES))
        start = np.arange(0, source.rows, step)
        stop = np.minimum(start + step, source.rows)
        rows, index = stop - start, np.arange(len(start))
        columns = [np.zeros_like(index), start, stop, start, rows * _SYNTHETIC_ROW_BYTES, rows, index]
        return _plan(source, [SourceFile(source.uri, "synthetic", 0)], np.column_stack(columns))
    size = min(shard_size, max(_MIN_SHARD, sum(max(file.size, _MIN_WEIGHT) for file in source.files) // _MIN_SHARDS))
    cut = _cut(source, size, settings or CorpusSettings())
    rows_of_file = 1 if source.format in ("text", "nltk") else UNKNOWN
    pieces: list[list[int]] = []
    ids: dict[int, list[FileIds]] = {}
    unread = set[int]()
    shard = filled = 0
    for number, file in enumerate(source.files):
        whole = Part(0, UNKNOWN, 0, file.size, rows_of_file)
        for part in cut.get(file.path) or [whole]:
            weight = max(file.size, _MIN_WEIGHT) if part is whole else part.bytes
            if filled and filled + weight > size:
                shard, filled = shard + 1, 0
            if filled and pieces[-1][0] == number:
                # Neighbouring parts of a file that share a shard are one piece.
                before = pieces[-1]
                before[2], before[4], before[5] = part.stop, before[4] + part.bytes, before[5] + part.rows
            else:
                pieces.append([number, *part[:-1], shard])
            filled += weight
            if part.ids is None:
                unread.add(shard)
            else:
                ids.setdefault(shard, []).append((file.name, *part.ids))
    read = {index: found for index, found in ids.items() if index not in unread}
    return _plan(source, source.files, np.array(pieces, np.int64).reshape(-1, 7), read)


def _plan(
    source: Source, files: Sequence[SourceFile], pieces: Numbers, ids: dict[int, list[FileIds]] | None = None
) -> ShardPlan:
    """The plan of pieces: a row each with the file's position, the fields of a `Part`, and the shard."""
    of, start, stop, row, stored, rows, shard = pieces.T

    def texts(values: Iterable[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode().take(pa.array(of))

    columns = {
        "path": texts(file.path for file in files),
        "name": texts(file.name for file in files),
        "start": start,
        "stop": pa.array(stop, mask=stop == UNKNOWN),
        "row": row,
        "label": texts(file.label for file in files),
        "split": texts(file.split for file in files),
        "shard": shard,
        "bytes": stored,
        "rows": pa.array(rows, mask=rows == UNKNOWN),
    }
    return ShardPlan(pa.table(columns, PLAN_SCHEMA), source.format, ids)


def _cut(source: Source, size: int, settings: CorpusSettings) -> dict[str, list[Part]]:
    """The parts of files larger than `size`, by path; none of what is compressed or cannot be read."""
    files = [file for file in source.files if file.size > size]
    if not files or source.filesystem is None or source.format not in _CUT:
        return {}
    parts = reader(source.format).cut(source.filesystem, files, size, settings)
    return {file.path: found for file, found in zip(files, parts, strict=True)}


def reader(format: str) -> Any:
    """The module that reads a format; see `sentray.corpus.readers`. Numba, which some need, takes its time to load."""
    return importlib.import_module(f"sentray.corpus.{format}")
