"""Which training rows are held out of which fit: `hold_out` deals them, `group_keys` says which belong together."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentray.corpus.duplicates import hash_texts
from sentray.corpus.rows import Hashes
from sentray.errors import SentrayError

NEVER = 255
"""Stands for the fold of a row that no fit leaves out."""
SMALL, FOLDS = 5000, 5
"""With fewer rows each is held out once, by one of so many folds: a tenth of them would say little."""

Folds = NDArray[np.uint8]

_TAIL = r"^(?s:(?P<prefix>.*?))(?P<number>[0-9]{1,18})$"


def hold_out(keys: Hashes, given: NDArray[np.bool_], fraction: float, refit: bool = True) -> Folds:
    """The fold that holds each row out, or `NEVER`; uint8 [rows].

    Rows that are given as validation rows are the one fold. Else whole groups are dealt in the order of their keys: to
    five folds where there are few rows, or else about a fraction of the rows to one.

    Args:
        keys: Of the rows' groups, spread evenly, such as hashes of their texts; those of a group are equal. [rows]
        given: Which rows are given as validation rows.
        fraction: Share of the rows to hold out; 0 for none, whatever is given.
        refit: Whether the last fit sees the rows that were held out. Where it does not, there is but one fold.
    """
    rows = len(keys)
    folds = np.full(rows, NEVER, np.uint8)
    if not fraction:
        return folds
    if given.any():
        folds[given] = 0
        return folds
    # How much of the rows lies before a row's group.
    before = np.searchsorted(np.sort(keys), keys) / max(rows, 1)
    if rows < SMALL and refit:
        _, numbers = np.unique((before * FOLDS).astype(np.uint8), return_inverse=True)
        return numbers.astype(np.uint8)
    folds[before < fraction] = 0
    return folds


def group_keys(column: pa.ChunkedArray, rule: str | None, name: str) -> Hashes:
    """A 64-bit key of each row's group.

    Args:
        column: What says the group: a column's values, or ids.
        rule: None where equal values are a group; `id-block:N` where the numbers at the end of the ids are, N together,
            of those ids that are alike before it.
        name: Of the column, for messages.

    Raises:
        SentrayError: A row has no value, or an id ends in no number.
    """
    values = column.cast(pa.large_string())
    if values.null_count:
        raise SentrayError(f"a row has no {name}, which says its group: give it one, or name another column")
    if rule is not None:
        parts = pc.extract_regex(values, _TAIL)
        if parts.null_count:
            odd = values.filter(pc.is_null(parts))[0].as_py()
            raise SentrayError(
                f"--group-by {rule} needs ids that end in a number, and {odd[:100]!r} does not: name a column with "
                "--group-column instead"
            )
        size = int(rule.partition(":")[2])
        number = pc.divide(pc.struct_field(parts, "number").cast(pa.int64()), size).cast(pa.large_string())
        prefix = pc.struct_field(parts, "prefix").cast(pa.large_string())
        values = pc.binary_join_element_wise(prefix, number, pa.scalar("\n", pa.large_string()))
    return hash_texts(values.combine_chunks())
