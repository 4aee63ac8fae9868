"""Which rows belong together (`group_keys`), their folds (`folds_of`), and one fold as test rows (`with_test_fold`)."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray.config import CorpusSettings
from sentray.corpus.identity import hashes_of
from sentray.corpus.rows import Hashes, kept_name
from sentray.errors import SentrayError

LEFT_OUT = "left out"
"""The split of a given test row that has no fold, where one fold is tested on."""

_TAIL = r"^(?s:(?P<prefix>.*?))(?P<number>[0-9]{1,18})$"


def columns_of(settings: CorpusSettings) -> tuple[str, ...]:
    """The columns that settings name besides those of every review."""
    named = (getattr(settings, f"{what}_column", None) for what in ("group", "fold", "weight", "slice"))
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
    prefix, number = _blocks(rows, settings.group_by)
    blocks = pc.binary_join_element_wise(prefix, number.cast(pa.large_string()), pa.scalar("\n", pa.large_string()))
    return hash_texts(blocks.combine_chunks())


def _blocks(rows: pa.Table, rule: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """What is before the number at the end of each row's id, as text, and of which block that number is."""
    parts = pc.extract_regex(rows["id"], _TAIL)
    if parts.null_count:
        odd = rows["id"].filter(pc.is_null(parts))[0].as_py()
        raise SentrayError(
            f"--group-by {rule} needs ids that end in a number, and {odd[:100]!r} does not: name a column with "
            "--group-column instead"
        )
    number = pc.divide(pc.struct_field(parts, "number").cast(pa.int64()), int(rule.partition(":")[2]))
    return pc.struct_field(parts, "prefix").cast(pa.large_string()), number


def folds_of(rows: pa.Table, settings: CorpusSettings, folds: int) -> pa.ChunkedArray:
    """The fold of each row: its value in `--fold-column`, or `K/N` by its group's key.

    Blocks of ids that are alike before their number are dealt in turn, so that a few of them make folds of one size.

    Args:
        rows: Usable rows of `ROW_SCHEMA`, with the columns of `columns_of`.
        settings: What a group is, or the column.
        folds: How many, if no column says it.

    Raises:
        SentrayError: See `group_keys`.
    """
    from sentray.corpus.duplicates import hash_texts

    if settings.fold_column is not None:
        return rows[kept_name(settings.fold_column)]
    count = np.uint64(folds)
    if settings.group_by is not None:
        prefix, block = _blocks(rows, settings.group_by)
        numbers = (hash_texts(prefix.combine_chunks()) % count + block.to_numpy().astype(np.uint64)) % count
    else:
        # Evenly spread: the fold is in the upper half of the key.
        numbers = (group_keys(rows, settings) >> np.uint64(32)) * count >> np.uint64(32)
    names = pa.array([f"{number}/{folds}" for number in range(1, folds + 1)], pa.large_string())
    return pa.chunked_array([names.take(pa.array(numbers.astype(np.int64)))])


def with_test_fold(rows: pa.Table, settings: CorpusSettings) -> pa.Table:
    """The rows with one fold as test rows and the others to train on.

    Where no column says the fold, the training rows have one, and no others. A row that has none keeps its split, but
    for given test rows, which are left out.

    Args:
        rows: Of `ROW_SCHEMA`, with the columns of `columns_of`.
        settings: Which fold.

    Raises:
        SentrayError: See `group_keys`.
    """
    if settings.test_fold is None:
        return rows
    dealt = dealt_rows(rows, settings)
    folds = folds_of(rows.filter(dealt), settings, int(settings.test_fold.partition("/")[2] or 0))
    mine = pc.if_else(pc.equal(folds, settings.test_fold), "test", "train").combine_chunks()
    mine = pc.replace_with_mask(pa.nulls(len(rows), pa.string()), dealt.combine_chunks(), mine)
    split = pc.coalesce(mine, pc.if_else(pc.equal(rows["split"], "test"), LEFT_OUT, rows["split"]))
    index = rows.schema.get_field_index("split")
    return rows.set_column(index, rows.schema.field(index), split)


def dealt_rows(rows: pa.Table, settings: CorpusSettings) -> pa.ChunkedArray:
    """Which rows may have a fold: usable ones and, where no column says the fold, training rows."""
    usable = pc.is_null(rows["reason"])
    return usable if settings.fold_column else pc.and_(usable, pc.equal(rows["split"], "train"))
