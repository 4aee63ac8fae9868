"""The plan of a run: the input cut into shards, the same for the same input on every machine."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray.corpus import limits
from sentray.corpus.files import open_file, open_stream
from sentray.corpus.footers import read_footer
from sentray.corpus.source import Format, Source, SourceFile
from sentray.errors import SentrayError
from sentray.storage import read_pauses, reading

Numbers = npt.NDArray[np.int64]
Cut = tuple[int, int, int, int, int]
"""Start, stop, rows of the file before, bytes as stored and rows of a part."""

UNKNOWN = -1
_THREADS = 16


@dataclass(frozen=True)
class Parts:
    """The smallest parts that a shard can hold, in the order of the files; an array an attribute.

    Attributes:
        file: which of the source's files.
        whole: whether it is all of the file.
        start: as a piece's.
        stop: as a piece's, `UNKNOWN` for the file's end.
        row: as a piece's.
        bytes: size as stored.
        rows: how many it holds, or `UNKNOWN`.
    """

    file: Numbers
    whole: npt.NDArray[np.bool_]
    start: Numbers
    stop: Numbers
    row: Numbers
    bytes: Numbers
    rows: Numbers


def cut_files(source: Source, size: int) -> Parts:
    """Cut the files larger than `size` into parts of about so many bytes, and leave the others whole."""
    sizes = np.fromiter((file.size for file in source.files), np.int64, len(source.files))
    large = np.flatnonzero(sizes > size) if source.format in _CUTS else np.zeros(0, np.int64)
    found: list[list[Cut]] = []
    if len(large):
        with ThreadPoolExecutor(min(_THREADS, len(large))) as threads:
            found = list(threads.map(lambda place: _cut(source, source.files[place], size), large.tolist()))
    counts = np.ones(len(sizes), np.int64)
    counts[large] = [max(1, len(parts)) for parts in found]
    file = np.repeat(np.arange(len(sizes)), counts)
    one = 1 if source.format in ("text", "nltk") else UNKNOWN
    table = np.zeros((5, len(file)), np.int64)
    table[1], table[3], table[4] = UNKNOWN, sizes[file], one
    whole = np.ones(len(file), bool)
    for begin, parts in zip((np.cumsum(counts) - counts)[large].tolist(), found, strict=True):
        if parts:
            table[:, begin : begin + len(parts)] = np.transpose(parts)
            whole[begin : begin + len(parts)] = False
    return Parts(file, whole, *table)


def _cut(source: Source, file: SourceFile, size: int) -> list[Cut]:
    """Where a large file may be cut; nowhere when it cannot be read: its reader will say why.

    A file of an object store is asked for again: a store that is busy for a moment must not make a plan that stays.
    """
    for pause in (*read_pauses(source.filesystem), None):
        try:
            with reading(file.path):
                return _CUTS[source.format](source, file, size)
        except SentrayError:
            if pause is not None:
                time.sleep(pause)
    return []


def _row_groups(source: Source, file: SourceFile, _: int) -> list[Cut]:
    """A Parquet file's row groups; their share of its bytes is that of their values' sizes."""
    assert source.filesystem is not None
    with open_file(source.filesystem, file.path) as stream:
        groups = read_footer(stream, file.path, stream.size()).groups
    rows, sizes = [group.rows for group in groups], [group.bytes for group in groups]
    # A footer may say what it likes.
    if not groups or max(rows) > limits.max_rows(file.size):
        return []
    ends = [file.size * size // max(1, sum(sizes)) for size in accumulate(sizes)]
    before = list(accumulate(rows, initial=0))
    return [
        (place, place + 1, before[place], end - start, rows[place])
        for place, (start, end) in enumerate(pairwise([0, *ends]))
    ]


def _records(source: Source, file: SourceFile, size: int) -> list[Cut]:
    """Byte ranges of whole records; none of what is compressed or is one record."""
    from sentray.corpus import csv, jsonl

    if file.name.lower().endswith(".gz"):
        return []
    assert source.filesystem is not None
    count = -(-file.size // size)
    targets = [file.size * part // count for part in range(1, count)]
    stream = open_stream(source.filesystem, file.path, 0, file.size)
    found = csv.find_records(stream, targets) if source.format == "csv" else jsonl.find_lines(stream, targets)
    places, rows = found
    places = [place for place in places if place[0] < file.size]
    if not places:
        return []
    bounds = [(0, 0, 0), *places]
    stops = [place for place, _, _ in places] + [file.size]
    totals = [rows_before for _, _, rows_before in places] + [rows]
    return [
        (start, stop, before, stop - start, UNKNOWN if total is None else total - rows_before)
        for (start, before, rows_before), stop, total in zip(bounds, stops, totals, strict=True)
    ]


_CUTS = {"parquet": _row_groups, "csv": _records, "jsonl": _records}


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
    """

    path: str
    name: str
    start: int = 0
    stop: int | None = None
    row: int = 0
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
        place = pc.index_in(self._strings("name"), value_set=names)
        if not known.equals(place) or known.null_count:
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
        place = PLAN_SCHEMA.get_field_index("shard")
        moved = table.set_column(place, PLAN_SCHEMA.field(place), pc.add(table["shard"], len(self)))
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
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        return self._made(place, place + 1)[0]

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
        pieces = list(map(Piece, *parts))
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
        return _plan_synthetic(source, shard_size)
    files = source.files
    weights = np.maximum(np.fromiter((file.size for file in files), np.int64, len(files)), _MIN_WEIGHT)
    size = min(shard_size, max(_MIN_SHARD, int(weights.sum()) // _MIN_SHARDS))
    parts = cut_files(source, size)
    shard = _bundled(np.where(parts.whole, weights[parts.file], parts.bytes), size)
    # Neighbouring parts of a file that share a shard are one piece.
    first = np.flatnonzero(np.diff(shard, prepend=-1) | np.diff(parts.file, prepend=-1))
    last = np.append(first[1:], len(shard)) - 1
    of = parts.file[first]

    def texts(values: Iterable[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode().take(pa.array(of))

    rows, stop = np.add.reduceat(parts.rows, first), parts.stop[last]
    unknown = np.minimum.reduceat(parts.rows, first) == UNKNOWN
    columns = {
        "path": texts(file.path for file in files),
        "name": texts(file.name for file in files),
        "start": parts.start[first],
        "stop": pa.array(stop, mask=stop == UNKNOWN),
        "row": parts.row[first],
        "label": texts(file.label for file in files),
        "split": texts(file.split for file in files),
        "shard": shard[first],
        "bytes": np.add.reduceat(parts.bytes, first),
        "rows": pa.array(rows, mask=unknown),
    }
    return ShardPlan(pa.table(columns, PLAN_SCHEMA), source.format)


def _bundled(weights: Numbers, size: int) -> Numbers:
    """The shard of each part: as many neighbours as `size` has room for, and at least one."""
    shards = np.empty_like(weights)
    shard = filled = 0
    for part, weight in enumerate(weights.tolist()):
        if filled and filled + weight > size:
            shard, filled = shard + 1, 0
        shards[part] = shard
        filled += weight
    return shards


def _plan_synthetic(source: Source, shard_size: int) -> ShardPlan:
    step = max(1, min(_SYNTHETIC_ROWS, shard_size // _SYNTHETIC_ROW_BYTES))
    start = np.arange(0, source.rows, step)
    stop = np.minimum(start + step, source.rows)

    def texts(value: str | None) -> pa.Array:
        return pa.array([value], pa.string()).dictionary_encode().take(pa.array(np.zeros(len(start), np.int64)))

    columns = {
        "path": texts(source.uri),
        "name": texts("synthetic"),
        "start": start,
        "stop": stop,
        "row": start,
        "label": texts(None),
        "split": texts(None),
        "shard": np.arange(len(start)),
        "bytes": (stop - start) * _SYNTHETIC_ROW_BYTES,
        "rows": stop - start,
    }
    return ShardPlan(pa.table(columns, PLAN_SCHEMA), source.format)
