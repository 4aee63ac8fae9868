"""The plan of a run: the input cut into pieces (`Piece`) and these put into shards (`plan_shards`), always the same."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray.corpus import limits
from sentray.corpus.files import open_stream, try_again
from sentray.corpus.parquet import RowGroups, row_groups
from sentray.corpus.source import Format, Source, SourceFile
from sentray.errors import SentrayError
from sentray.storage import reading

# Opening a file takes about as long as reading this many bytes, so that a bundle of small files stays at some
# thousand of them.
_MIN_WEIGHT = 64 * 1024
# A small input is cut finer than asked, into about this many shards, so that several workers get some.
_MIN_SHARDS = 16
_MIN_SHARD = 1_000_000
_SYNTHETIC_ROWS = 8192
_SYNTHETIC_ROW_BYTES = 750
_MAX = 1 << 48
# Shards are made so many at a time when a plan is gone through.
_BATCH = 4096
_UNKNOWN = -1
_THREADS = 16

Numbers = npt.NDArray[np.int64]
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
        label: of a file that is one review.
        split: of a file that is one review.
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


class ShardPlan(Sequence[Shard]):
    """The shards of an input, kept as columns; one is made when it is asked for.

    A million shards take some 70 MB, or twice that where each is a file of its own.

    Args:
        table: of `PLAN_SCHEMA`, sorted by shard.
        format: of every piece.
    """

    def __init__(self, table: pa.Table, format: Format) -> None:
        self.format = format
        self._table = table.unify_dictionaries().combine_chunks()
        shards = self._column("shard")
        self._first = np.flatnonzero(np.diff(shards, prepend=-1, append=-2))

    @classmethod
    def from_table(cls, table: pa.Table, format: Format) -> "ShardPlan":
        """The plan that `to_table` gave, also after a way through Parquet.

        Raises:
            SentrayError: the table is no plan.
        """
        try:
            plan = cls(table.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA), format)
            plan._require_sound()
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise SentrayError("the plan of shards has other columns than it should: choose another --out") from error
        shards = plan._column("shard")
        if len(shards) and not (shards[0] == 0 and np.isin(np.diff(shards), (0, 1)).all()):
            raise SentrayError("the plan of shards has gaps: choose another --out")
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

    def _require_sound(self) -> None:
        """Refuse what no plan holds.

        Raises:
            ValueError: a number is missing or out of range, or a name leads out of the input's folder.
        """
        table = self._table
        for name in ("path", "name", "start", "row", "shard", "bytes"):
            if table[name].null_count:
                raise ValueError(f"{name} is missing")
        for name in ("start", "stop", "row", "bytes", "rows"):
            if pc.any(pc.or_(pc.less(table[name], 0), pc.greater(table[name], _MAX))).as_py():
                raise ValueError(f"{name} is out of range")
        if pc.any(pc.less(table["stop"], table["start"])).as_py():
            raise ValueError("a piece ends before it begins")
        if pc.any(pc.match_substring_regex(self._strings("name").unique(), r"^/|(^|/)\.\.(/|$)")).as_py():
            raise ValueError("a name leads elsewhere")

    def _strings(self, name: str) -> pa.ChunkedArray:
        return self._table[name].cast(pa.string())

    def extended(self, other: "ShardPlan") -> "ShardPlan":
        """This plan with another's shards after its own, which go on with the numbers."""
        table = other.to_table()
        column = PLAN_SCHEMA.get_field_index("shard")
        moved = table.set_column(column, PLAN_SCHEMA.field(column), pc.add(table["shard"], len(self)))
        return ShardPlan(pa.concat_tables([self._table, moved]), self.format)

    @property
    def bytes(self) -> int:
        """Size of all shards together, as stored."""
        return int(self._column("bytes").sum())

    @property
    def rows(self) -> int | None:
        """How many rows all shards hold, where that is known of each."""
        return None if self._table["rows"].null_count else int(self._column("rows").sum())

    def __len__(self) -> int:
        return len(self._first) - 1

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> list[Shard]: ...
    def __getitem__(self, index: int | slice) -> Shard | list[Shard]:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        position = range(len(self))[index]
        return self._made(position, position + 1)[0]

    def __iter__(self) -> Iterator[Shard]:
        batches = range(0, len(self), _BATCH)
        return chain.from_iterable(self._made(start, min(start + _BATCH, len(self))) for start in batches)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ShardPlan):
            return NotImplemented
        plain = pa.schema([(field.name, pa.string() if field.type == _NAMES else field.type) for field in PLAN_SCHEMA])
        return self.format == other.format and bool(self._table.cast(plain).equals(other.to_table().cast(plain)))

    __hash__ = None  # type: ignore[assignment]

    def _made(self, start: int, stop: int) -> list[Shard]:
        """The shards from `start` to `stop`."""
        first = self._first[start : stop + 1].tolist()
        table = self._table.slice(first[0], first[-1] - first[0])
        *parts, _, sizes, rows = (_values(column) for column in table.columns)
        pieces = list(map(Piece, *parts, sizes))
        shards = []
        for index, (begin, end) in enumerate(pairwise(first), start=start):
            here = slice(begin - first[0], end - first[0])
            known = None if None in rows[here] else sum(rows[here])
            shards.append(Shard(index, self.format, tuple(pieces[here]), sum(sizes[here]), known))
        return shards

    def _column(self, name: str) -> Numbers:
        column: Numbers = self._table[name].to_numpy()
        return column


def _values(column: pa.ChunkedArray) -> list[Any]:
    if column.type != _NAMES and not column.null_count:
        # Several times as fast as Arrow's own way.
        return list(column.to_numpy().tolist())
    return list(column.cast(pa.string()).to_pylist() if column.type == _NAMES else column.to_pylist())


class _Part(NamedTuple):
    """The smallest part of a file that a shard can hold; `start`, `stop`, `row` as a piece's.

    Attributes:
        bytes: size as stored.
        rows: how many it has, or `_UNKNOWN`.
    """

    start: int
    stop: int
    row: int
    bytes: int
    rows: int


def plan_shards(source: Source, shard_size: int) -> ShardPlan:
    """Cut a corpus into shards: small files in bundles, large ones at their records or row groups.

    A large CSV or JSON Lines file is read once to find where its records end. A file that cannot be read stays whole:
    whoever reads it says why.

    Args:
        source: what `resolve` found.
        shard_size: aimed-at size of a shard in bytes as stored. A file counts at least 64 kB, as opening it
            takes time too; a small input is cut into smaller shards.
    """
    if source.format == "synthetic":
        step = max(1, min(_SYNTHETIC_ROWS, shard_size // _SYNTHETIC_ROW_BYTES))
        start = np.arange(0, source.rows, step)
        stop = np.minimum(start + step, source.rows)
        rows, index = stop - start, np.arange(len(start))
        columns = [np.zeros_like(index), start, stop, start, rows * _SYNTHETIC_ROW_BYTES, rows, index]
        return _plan(source, [SourceFile(source.uri, "synthetic", 0)], np.column_stack(columns))
    size = min(shard_size, max(_MIN_SHARD, sum(max(file.size, _MIN_WEIGHT) for file in source.files) // _MIN_SHARDS))
    cut, rows_of_file = _cut(source, size), 1 if source.format in ("text", "nltk") else _UNKNOWN
    pieces: list[list[int]] = []
    shard = filled = 0
    for number, file in enumerate(source.files):
        whole = _Part(0, _UNKNOWN, 0, file.size, rows_of_file)
        for part in cut.get(file.path) or [whole]:
            weight = max(file.size, _MIN_WEIGHT) if part is whole else part.bytes
            if filled and filled + weight > size:
                shard, filled = shard + 1, 0
            if filled and pieces[-1][0] == number:
                # Neighbouring parts of a file that share a shard are one piece.
                before = pieces[-1]
                unknown = _UNKNOWN in (before[5], part.rows)
                before[2], before[4] = part.stop, before[4] + part.bytes
                before[5] = _UNKNOWN if unknown else before[5] + part.rows
            else:
                pieces.append([number, *part, shard])
            filled += weight
    return _plan(source, source.files, np.array(pieces, np.int64).reshape(-1, 7))


def _plan(source: Source, files: Sequence[SourceFile], pieces: Numbers) -> ShardPlan:
    """The plan of pieces: a row each with the file's position, the fields of a `_Part`, and the shard."""
    of, start, stop, row, stored, rows, shard = pieces.T

    def texts(values: Iterable[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode().take(pa.array(of))

    columns = {
        "path": texts(file.path for file in files),
        "name": texts(file.name for file in files),
        "start": start,
        "stop": pa.array(stop, mask=stop == _UNKNOWN),
        "row": row,
        "label": texts(file.label for file in files),
        "split": texts(file.split for file in files),
        "shard": shard,
        "bytes": stored,
        "rows": pa.array(rows, mask=rows == _UNKNOWN),
    }
    return ShardPlan(pa.table(columns, PLAN_SCHEMA), source.format)


def _cut(source: Source, size: int) -> dict[str, list[_Part]]:
    """The parts of files larger than `size`, by path; none of what cannot be read or is one record."""
    files, filesystem = [file for file in source.files if file.size > size], source.filesystem
    if not files or filesystem is None or source.format not in ("parquet", "csv", "jsonl"):
        return {}
    paths = [file.path for file in files]
    if source.format == "parquet":
        found = row_groups(filesystem, paths)
        return {file.path: _at_row_groups(file, groups) for file, groups in zip(files, found, strict=True) if groups}
    with ThreadPoolExecutor(min(_THREADS, len(files))) as threads:
        cut = threads.map(lambda file: try_again(filesystem, partial(_at_records, source, file, size)), files)
        return {path: parts for path, parts in zip(paths, cut, strict=True) if parts}


def _at_row_groups(file: SourceFile, groups: RowGroups) -> list[_Part]:
    """A Parquet file's row groups; their share of its bytes is that of their values' sizes."""
    # A footer may say what it likes.
    if not groups.rows or min(groups.rows + groups.bytes) < 0 or max(groups.rows) > limits.max_rows(file.size):
        return []
    ends = [file.size * size // max(1, sum(groups.bytes)) for size in accumulate(groups.bytes)]
    before = accumulate(groups.rows, initial=0)
    stored = [end - start for start, end in pairwise([0, *ends])]
    return [
        _Part(index, index + 1, *numbers)
        for index, numbers in enumerate(zip(before, stored, groups.rows, strict=False))
    ]


def _at_records(source: Source, file: SourceFile, size: int) -> list[_Part]:
    """Byte ranges of whole records; none of what is compressed."""
    # csv's compiled loop takes its time to load, which only large files are worth.
    from sentray.corpus import csv, jsonl

    if file.name.lower().endswith(".gz"):
        return []
    count = -(-file.size // size)
    targets = [file.size * part // count for part in range(1, count)]
    assert source.filesystem is not None
    with reading(file.path):
        stream = open_stream(source.filesystem, file.path, 0, file.size)
        starts, rows = (csv.find_records if source.format == "csv" else jsonl.find_lines)(stream, targets)
    if not (starts := [start for start in starts if start[0] < file.size]):
        return []
    bounds = pairwise([(0, 0, 0), *starts, (file.size, 0, rows)])
    return [
        _Part(start, stop, lines, stop - start, _UNKNOWN if total is None or before is None else total - before)
        for (start, lines, before), (stop, _, total) in bounds
    ]
