"""How a corpus is known again: its files (`files_of`), what its rows hold (`content_of`), its texts (`TextHashes`)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray.corpus.rows import Hashes, Mask
from sentray.corpus.source import Source

MAX_HASHES = 1 << 22
"""Hashes of texts that are kept at most, 32 MB."""

FILES_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("modified", pa.int64()),
    ]
)
"""A row for a file of a corpus: `modified` is its time of change in nanoseconds since 1970, where that is known."""

CONTENT_SCHEMA = pa.schema([pa.field("sum", pa.uint64())])
"""A number for what some rows hold."""

Files = dict[str, tuple[str, int, int | None]]
"""Path, size and time of change of files, by their names."""


def files_of(source: Source) -> pa.Table:
    """The files of a corpus as they are now, of `FILES_SCHEMA`."""
    columns = [[getattr(file, name) for file in source.files] for name in FILES_SCHEMA.names]
    return pa.table(columns, schema=FILES_SCHEMA)


def by_name(files: pa.Table) -> Files:
    """The facts of files of `FILES_SCHEMA` by their names."""
    name, *facts = (column.to_pylist() for column in files.columns)
    return dict(zip(name, zip(*facts, strict=True), strict=True))


def first_change(before: Files, now: Files, sizes_only: bool = False) -> str | None:
    """What happened to the first file that is not as it was, or whose size is not; new files do not count."""
    for name, was in before.items():
        if name not in now:
            return f"{name} is gone"
        if was[1] != now[name][1] or (was != now[name] and not sizes_only):
            return f"{name} {'has changed' if was[1:] != now[name][1:] else 'lies elsewhere'}"
    return None


def content_of(rows: pa.Table) -> dict[str, pa.Table]:
    """A stage: a number for what the usable rows of a table of `ROW_SCHEMA` hold; those of several tables add up.

    It is a sum modulo 2**64 of a hash of each row's text, label and split, so that the order does not matter.
    """
    good = rows.filter(pc.is_null(rows["reason"]))
    mixed = np.zeros(good.num_rows, np.uint64)
    for name in ("text", "label", "split"):
        mixed = (mixed ^ _hashes(good[name])) * np.uint64(0x9E3779B185EBCA87)
        mixed ^= mixed >> np.uint64(32)
    return {"content": pa.table([[int(mixed.sum())]], CONTENT_SCHEMA)}


def content_in(found: Mapping[str, pa.Table]) -> int:
    """The number that `content_of` gave, for one table or the sum for several."""
    return sum(found["content"]["sum"].to_pylist())


def digest(source: Source, contents: Iterable[int]) -> str:
    """SHA-256, in hexadecimal digits, of the names and sizes of a corpus's files and of what its rows hold.

    Args:
        source: the corpus.
        contents: `content_in` for all of its tables.
    """
    files = [[file.name, file.size] for file in source.files]
    return hashlib.sha256(json.dumps([files, sum(contents) % 2**64]).encode()).hexdigest()


@dataclass(frozen=True)
class TextHashes:
    """The distinct texts of some reviews by 64-bit hashes, of which at most `MAX_HASHES` are kept.

    Another text passes for one of them with a probability of at most 2**22 / 2**64, or 2e-13.

    Attributes:
        values: sorted.
        sampled: one hash of so many is kept, those that it divides.
    """

    values: Hashes
    sampled: int = 1

    @classmethod
    def of(cls, hashes: Iterable[Hashes]) -> Self:
        """Of the hashes of all texts, in any number of pieces."""
        values, sampled = np.unique(np.concatenate([np.zeros(0, np.uint64), *hashes])), 1
        while len(values) > MAX_HASHES:
            sampled *= 2
            values = values[values % np.uint64(sampled) == 0]
        return cls(values, sampled)

    @classmethod
    def from_bytes(cls, content: bytes, sampled: int) -> Self:
        """What `to_bytes` gave.

        Raises:
            ValueError: The content has no such length.
        """
        return cls(np.frombuffer(content, "<u8"), sampled)

    def __or__(self, other: Self) -> Self:
        """Those of both."""
        sampled = max(self.sampled, other.sampled)
        values = np.union1d(self.values, other.values)
        return type(self)(values[values % np.uint64(sampled) == 0], sampled)

    def to_bytes(self) -> bytes:
        """The hashes, 8 bytes each, the lowest first."""
        return self.values.astype("<u8").tobytes()

    def among(self, texts: pa.ChunkedArray) -> Mask:
        """Which texts are among these; where hashes are sampled, one of `sampled` of those that are."""
        hashes = _hashes(texts)
        if not len(self.values):
            return np.zeros(len(hashes), bool)
        at = np.searchsorted(self.values, hashes).clip(max=len(self.values) - 1)
        found: Mask = self.values[at] == hashes
        return found


def hashes_of(rows: pa.Table) -> Hashes:
    """The hash of each text of a table of `ROW_SCHEMA`."""
    return _hashes(rows["text"])


def _hashes(texts: pa.ChunkedArray) -> Hashes:
    # Numba takes its time to load, and not every run hashes texts.
    from sentray.corpus.duplicates import hash_texts

    return hash_texts(pc.fill_null(texts, "").cast(pa.large_string()).combine_chunks())
