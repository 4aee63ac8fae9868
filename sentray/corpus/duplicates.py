"""Ids that occur twice: `find_duplicates` finds the rows by their hashes, `mark_duplicates` sets them aside."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sentray.corpus.rows import Hashes, Reason, as_mask, blank_to_null, decode, mark
from sentray.text.simd import compiled

Rows = dict[str, npt.NDArray[np.int64]]
"""Rows of files, by the file's name."""
Ids = tuple[str, npt.NDArray[np.int64], Hashes]
"""A file's name, some of its rows and the 64-bit hash of each one's id."""
IdBlock = tuple[int, str, npt.NDArray[np.int64], Hashes]
"""The index of a shard, and `Ids` of it."""

# Those of XXH64 (Collet), whose step for short inputs this is, taken for inputs of any length.
_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(prime)
    for prime in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)
_8, _27, _29, _31, _32, _33, _37 = (np.uint64(bits) for bits in (8, 27, 29, 31, 32, 33, 37))


def hash_texts(texts: pa.Array) -> Hashes:
    """A 64-bit hash of each text, the same on every machine.

    Args:
        texts: large strings without a null.
    """
    if not len(texts):
        return np.zeros(0, np.uint64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    hashes: Hashes = _hash(np.frombuffer(data or b"", np.uint8), bounds)
    return hashes


def hash_ids(rows: npt.NDArray[np.int64], ids: pa.Array, name: str, file: object) -> tuple[Any, Hashes]:
    """Those of some rows that have an id, and the 64-bit hash of each one's.

    Args:
        rows: their numbers.
        ids: as the file holds them.
        name: of the column, for messages.
        file: for messages.

    Raises:
        SentrayError: the column holds lists or structures.
    """
    texts = blank_to_null(decode(ids, name, file)[0])
    return rows[as_mask(texts.is_valid())], hash_texts(texts.drop_null())


@compiled
def _hash(data: Any, bounds: Any) -> Any:
    hashes = np.empty(len(bounds) - 1, np.uint64)
    for text in range(len(hashes)):
        start, stop = bounds[text], bounds[text + 1]
        value = _P5 + np.uint64(stop - start)
        for at in range(start, stop, 8):
            word = np.uint64(0)
            for byte in range(min(8, stop - at)):
                word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            word *= _P2
            word = ((word << _31) | (word >> _33)) * _P1
            value ^= word
            value = ((value << _27) | (value >> _37)) * _P1 + _P4
        value = (value ^ (value >> _33)) * _P2
        value = (value ^ (value >> _29)) * _P3
        hashes[text] = value ^ (value >> _32)
    return hashes


def find_duplicates(blocks: Iterable[IdBlock]) -> dict[int, Rows]:
    """All rows but the first of those with one id, by the shard's index; takes some 40 bytes a row.

    Args:
        blocks: the index of a shard and what `read_ids` gave for it, a tuple each; the shards in any order.
    """
    found = sorted(blocks, key=lambda block: block[0])
    hashes = np.concatenate([np.zeros(0, np.uint64), *(block[3] for block in found)])
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    later = np.zeros(len(hashes), bool)
    later[order[1:][hashes[1:] == hashes[:-1]]] = True
    duplicates: dict[int, Rows] = {}
    start = 0
    for index, file, rows, _ in found:
        again = rows[later[start : start + len(rows)]]
        start += len(rows)
        if len(again):
            of_shard = duplicates.setdefault(index, {})
            of_shard[file] = np.concatenate([of_shard.get(file, again[:0]), again])
    return duplicates


def mark_duplicates(table: pa.Table, duplicates: Rows) -> pa.Table:
    """Set the rows of a table aside whose id an earlier row has.

    Args:
        table: as `read_shard` gives it.
        duplicates: of its shard, from `find_duplicates`.
    """
    # A table of a format with columns never holds rows of two files.
    rows = duplicates.get(table["file"][0].as_py()) if duplicates and table.num_rows else None
    return table if rows is None else mark(table, np.isin(table["row"].to_numpy(), rows), Reason.DUPLICATE_ID)
