"""Where large files may be cut: Parquet between row groups, CSV and JSON Lines between records."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from sentray.corpus import limits
from sentray.corpus.files import open_file, open_stream, read_pauses, reading
from sentray.corpus.footers import read_footer
from sentray.corpus.source import Source, SourceFile
from sentray.errors import SentrayError

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
    if not groups or max(rows) > limits.most_rows(file.size):
        return []
    ends = [file.size * size // max(1, sum(sizes)) for size in accumulate(sizes)]
    before = list(accumulate(rows, initial=0))
    return [
        (place, place + 1, before[place], end - start, rows[place])
        for place, (start, end) in enumerate(pairwise([0, *ends]))
    ]


def _records(source: Source, file: SourceFile, size: int) -> list[Cut]:
    """Byte ranges of whole records; none of what is compressed or is one record."""
    # Numba takes its time to load, which only large files are worth.
    from sentray.corpus.scan import find_records

    if file.name.lower().endswith(".gz"):
        return []
    assert source.filesystem is not None
    count = -(-file.size // size)
    targets = [file.size * part // count for part in range(1, count)]
    stream = open_stream(source.filesystem, file.path, 0, file.size)
    places, rows = find_records(stream, source.format, targets)
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
