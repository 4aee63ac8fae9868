"""How much one file may ask for before a row of it, or what is left of it, is set aside.

Files are untrusted: a few of their bytes may ask for any amount of memory. Every bound is far
above what reviews need, and a whole file may be as large as it likes: those that are read piece by piece in any case,
one that cannot be cut, as what is compressed with gzip, where its rows and bytes are in proportion to its size.
"""

from sentray.errors import SentrayError

EXCERPT_CHARACTERS = 200
"""How much of a quarantined row's text is kept, in characters."""

MAX_ROW_BYTES = 1 << 24
"""A row: its bytes in CSV and JSON Lines, a file of one review, a value in Parquet. "War and Peace" has 3 million."""

FREE_ROWS, BYTES_A_ROW = 1 << 26, 4
"""Rows that a shard's part of any file may have, and for how many stored bytes there may be one if there are more: ids
are held for all of them, 16 bytes each."""

MAX_INFLATION, FREE_INFLATION = 200, 1 << 30
"""Bytes that a compressed file may become for each that is stored, and what any may become. Text becomes 3 to 10."""

MAX_LABELS, MAX_LABEL = 10_000, 1000
"""Labels of a model, and characters of one."""

MAX_DEPTH = 8
"""Structures within each other that a column's path may lead into."""

MAX_NAME = 100
"""Characters of a name from a file that a message shows."""


def excerpt(row: bytes) -> str:
    """So much of a row that is set aside as is shown of it, without the end of its line."""
    return row[: 4 * EXCERPT_CHARACTERS].decode(errors="replace")[:EXCERPT_CHARACTERS].rstrip("\r\n")


def max_rows(stored: int) -> int:
    """How many rows a part of a file of so many bytes may have."""
    return max(FREE_ROWS, stored // BYTES_A_ROW)


def require_few_rows(path: str, rows: int, stored: int) -> None:
    """Refuse a part of a file with so many rows that to hold their ids would take the memory of a machine.

    Args:
        path: of the file.
        rows: how many it has.
        stored: its size.

    Raises:
        SentrayError: there are more than `max_rows`.
    """
    if rows > max_rows(stored):
        raise SentrayError(
            f"{path} has more than {max_rows(stored):,} rows in one piece: take a smaller --shard-size or smaller row "
            "groups, or store it uncompressed, so that it can be cut"
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
    if inflated > max(FREE_INFLATION, MAX_INFLATION * stored):
        raise SentrayError(
            f"{path} becomes more than {MAX_INFLATION} times as large as it is stored ({stored:,} bytes): if it is no "
            "decompression bomb, store it uncompressed"
        )
