"""Where records begin in large CSV and JSON Lines files: one compiled pass over the bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from sentray.corpus.grammar import CsvSplitter
from sentray.text.simd import BLOCK, byte_masks, lowest

_CHUNK = 1 << 20
_RECORDS = 1 << 14
_0, _1 = np.uint64(0), np.uint64(1)
_line_masks = byte_masks(b"\n", b" \t\n\x0b\x0c\r")

Place = tuple[int, int, int]
"""First byte of a record, how many records are before it, and how many rows."""


def find_records(stream: pa.NativeFile, format: str, targets: Sequence[int]) -> tuple[list[Place], int | None]:
    """Find the first record that begins at or after each target.

    Args:
        stream: the whole file.
        format: csv or jsonl.
        targets: rising byte positions above 0.

    Returns:
        The places, rising and each once (the last may be the file's end), and how many rows the file has, None for
        CSV without a proper header. Records are counted as the readers count rows: blank lines of JSON Lines are some,
        CSV's header is none.
    """
    if format == "jsonl":
        return _find_lines(stream, targets)
    splitter = CsvSplitter(stream, _CHUNK)
    splitter.skip_mark()
    everything = np.zeros(0, np.int64)
    places: dict[int, Place] = {}
    rows, target = -1, 0
    while (records := splitter.take(_RECORDS, everything, 0)) is not None:
        if rows < 0 and not records.good[0]:
            return [], None
        ends = records.ends + records.offset
        while target < len(targets) and ends[-1] >= targets[target]:
            which = int(np.searchsorted(ends, targets[target]))
            before = rows + which + 1
            places[int(ends[which])] = (int(ends[which]), before, before)
            target += 1
        rows += len(ends)
    return list(places.values()), rows


def _find_lines(stream: pa.NativeFile, targets: Sequence[int]) -> tuple[list[Place], int]:
    wanted = np.array([*targets, np.iinfo(np.int64).max])
    found = np.zeros((len(wanted), 3), np.int64)
    state = np.zeros(5, np.int64)
    buffer = np.zeros(_CHUNK + BLOCK, np.uint8)
    while size := stream.readinto(buffer[:_CHUNK].data):
        _scan_lines(buffer, size, state, wanted, found)
    places = dict.fromkeys(map(tuple, found[: state[_FOUND]].tolist()))
    return list(places), int(state[_ROWS] + state[_FILLED])


# What a scan remembers from chunk to chunk: bytes, lines and rows done, targets found, and whether the line has more
# than white space.
_DONE, _LINES, _ROWS, _FOUND, _FILLED = range(5)


@njit(cache=True, nogil=True)
def _scan_lines(data: Any, size: int, state: Any, wanted: Any, found: Any) -> None:
    """Go on through the next `size` bytes."""
    lines, rows, filled, target = state[_LINES], state[_ROWS], state[_FILLED] != 0, state[_FOUND]
    for block in range(0, size, BLOCK):
        ends, blank = _line_masks(data.ctypes.data + block)
        solid = ~blank
        if size - block < BLOCK:
            here = (_1 << np.uint64(size - block)) - _1
            ends, solid = ends & here, solid & here
        while ends != _0:
            bit = lowest(ends)
            before = (_1 << np.uint64(bit)) - _1
            filled |= (solid & before) != _0
            lines += 1
            rows += filled
            place = state[_DONE] + block + bit + 1
            while place >= wanted[target]:
                found[target, 0], found[target, 1], found[target, 2] = place, lines, rows
                target += 1
            filled = False
            solid &= ~before
            ends &= ends - _1
        filled |= solid != _0
    state[_LINES], state[_ROWS], state[_FILLED], state[_FOUND] = lines, rows, filled, target
    state[_DONE] += size
