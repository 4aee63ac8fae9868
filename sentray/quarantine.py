"""Rows that could not be used: why, and how they are kept."""

from enum import StrEnum

import pyarrow as pa


class Reason(StrEnum):
    """Why a row was set aside. Values are written to `quarantine.parquet` and are stable.

    Members come in the order in which a row with several faults gets its reason.
    """

    TOO_LARGE = "too_large"
    """The row is longer than one that is read; see `sentray.corpus.limits`."""
    NULL_TEXT = "null_text"
    EMPTY_TEXT = "empty_text"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_RECORD = "invalid_record"
    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    MISSING_LABEL = "missing_label"
    UNKNOWN_LABEL = "unknown_label"
    CRASH = "crash"
    """The process that scored the row died of it, each time."""
    UNREADABLE_FILE = "unreadable_file"
    """The file cannot be read from this row on; the text says why."""


QUARANTINE_FILE = "quarantine.parquet"

EXCERPT_CHARACTERS = 200
"""How much of a quarantined row's text is kept, in characters."""

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("id", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("text", pa.large_string()),
    ]
)
"""`file` as in the row's id, `row` counted from 1 within the file, `text` the first 200 characters."""
