"""Which rows belong together, by `group_keys`, and `with_test_fold`, which makes one fold of them the test rows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray.config import CorpusSettings
from sentray.corpus.identity import hashes_of
from sentray.corpus.rows import Hashes, as_mask, kept_name
from sentray.errors import SentrayError

LEFT_OUT = "left out"
"""The split of a row that is no training row where one fold of these is tested on."""

_TAIL = r"^(?s:(?P<prefix>.*?))(?P<number>[0-9]{1,18})$"


def columns_of(settings: CorpusSettings) -> tuple[str, ...]:
    """The columns that settings name besides those of every review."""
    named = (getattr(settings, f"{what}_column", None) for what in ("group", "fold", "weight"))
    return tuple(dict.fromkeys(name for name in named if name is not None))


def group_keys(rows: pa.Table, settings: CorpusSettings) -> Hashes:
    """A 64-bit key of each row's group: of its value in a column, of the block its id is in, or else of its text.

    Args:
        rows: Usable rows of `ROW_SCHEMA`, with the columns of `columns_of`.
        settings: What a group is.

    Raises:
        SentrayError: A row has no value, or an id ends in no number.
    """
    # Numba takes its time to load, and not every run hashes texts.
    from sentray.corpus.duplicates import hash_texts

    if (column := settings.group_column) is not None:
        values = rows[kept_name(column)]
        if values.null_count:
            raise SentrayError(f"a row has no {column}, which says its group: give it one, or name another column")
        return hash_texts(values.combine_chunks())
    if settings.group_by is None:
        return hashes_of(rows)
    parts = pc.extract_regex(rows["id"], _TAIL)
    if parts.null_count:
        odd = rows["id"].filter(pc.is_null(parts))[0].as_py()
        raise SentrayError(
            f"--group-by {settings.group_by} needs ids that end in a number, and {odd[:100]!r} does not: name a column "
            "with --group-column instead"
        )
    size = int(settings.group_by.partition(":")[2])
    number = pc.divide(pc.struct_field(parts, "number").cast(pa.int64()), size).cast(pa.large_string())
    prefix = pc.struct_field(parts, "prefix").cast(pa.large_string())
    blocks = pc.binary_join_element_wise(prefix, number, pa.scalar("\n", pa.large_string()))
    return hash_texts(blocks.combine_chunks())


def with_test_fold(rows: pa.Table, settings: CorpusSettings) -> pa.Table:
    """The rows with the training rows of one fold as test rows, and what was not for training left out.

    Args:
        rows: Of `ROW_SCHEMA`, with the columns of `columns_of`.
        settings: Which fold.

    Raises:
        SentrayError: See `group_keys`.
    """
    if settings.test_fold is None:
        return rows
    good = as_mask(pc.is_null(rows["reason"]))
    chosen = np.zeros(len(rows), bool)
    if settings.fold_column is not None:
        chosen = as_mask(pc.fill_null(pc.equal(rows[kept_name(settings.fold_column)], settings.test_fold), False))
    else:
        number, folds = map(int, settings.test_fold.split("/"))
        keys = group_keys(rows.filter(pa.array(good)), settings)
        # Evenly spread: the fold is in the upper half of the key.
        chosen[good] = (keys >> np.uint64(32)) * np.uint64(folds) >> np.uint64(32) == number - 1
    split = pc.if_else(pa.array(chosen), "test", rows["split"])
    split = pc.if_else(pc.equal(rows["split"], "train"), split, LEFT_OUT)
    index = rows.schema.get_field_index("split")
    return rows.set_column(index, rows.schema.field(index), split)
