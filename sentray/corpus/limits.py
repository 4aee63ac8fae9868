"""How much one file may ask for before a row of it, or what is left of it, is set aside.

A file may come from a stranger, and a few of its bytes may stand for as many as there is memory. Every bound is far
above what reviews need, and a whole file may be as large as it likes where it is read piece by piece.
"""

from sentray.errors import SentrayError
from sentray.quarantine import EXCERPT_CHARACTERS

MOST_ROW_BYTES = 1 << 24
"""A row: its bytes in CSV and JSON Lines, a file of one review, a value in Parquet. "War and Peace" has 3 million."""

MOST_ROWS = 1 << 26
"""Rows of a shard's part of a file: ids are held for all of them, 16 bytes each."""

MOST_INFLATION, FREE_INFLATION = 200, 1 << 30
"""Bytes that a compressed file may become for each that is stored, and what any may become. Text becomes 3 to 10."""

MOST_PAGE_BYTES = 1 << 29
"""A page of Parquet, which is held whole; writers make pages of about a megabyte."""

MOST_BATCH_BYTES = 1 << 26
"""What some rows of Parquet that are read together may take, where they are of less than the longest length."""

MOST_NAME = 100
"""Characters of a name from a file that a message shows."""


def beginning(row: bytes) -> str:
    """So much of a row that is too large as is shown of it; non-UTF-8 bytes are surrogates."""
    return row[: min(4 * EXCERPT_CHARACTERS, MOST_ROW_BYTES)].decode("utf-8", "surrogateescape")


def require_few_rows(path: str, rows: int) -> None:
    """Refuse a part of a file with so many rows that to hold their ids would take the memory of a machine.

    Raises:
        SentrayError: there are more than `MOST_ROWS`.
    """
    if rows > MOST_ROWS:
        raise SentrayError(
            f"{path} has more than {MOST_ROWS:,} rows in one piece: split it, write smaller row groups, or take a "
            "smaller --shard-size"
        )


def require_little_inflation(path: str, inflated: int, stored: int) -> None:
    """Refuse to decompress what becomes more than any text would.

    Args:
        path: of the file.
        inflated: bytes that it has become so far.
        stored: its size.

    Raises:
        SentrayError: they are too many.
    """
    if inflated > max(FREE_INFLATION, MOST_INFLATION * stored):
        raise SentrayError(
            f"{path} becomes more than {MOST_INFLATION} times as large as it is stored ({stored:,} bytes): if it is no "
            "decompression bomb, store it uncompressed"
        )
