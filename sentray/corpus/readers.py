"""From a shard to checked rows, whatever the format: `read_shard`, `read_schema`, `read_ids`.

A reader is a module with `read(source, piece, columns)`, which gives `Block`s, and, where large files can be cut,
`cut(filesystem, files, size, settings)`, which gives the `Part`s of each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa

from sentray.config import CorpusSettings
from sentray.corpus import sandbox
from sentray.corpus.limits import require_few_rows
from sentray.corpus.names import said_of, says_label, with_said
from sentray.corpus.rows import (
    NO_COLUMN,
    Block,
    Broken,
    Columns,
    Hashes,
    Numbers,
    Reason,
    finish,
    kept_name,
)
from sentray.corpus.source import TYPED, WITH_COLUMNS, Source, resolve
from sentray.corpus.splits import Piece, Shard, reader
from sentray.corpus.text_files import read_reviews
from sentray.errors import SentrayError
from sentray.storage import reading

OnUnreadable = Literal["raise", "quarantine"]


def read_shard(
    source: Source,
    shard: Shard,
    settings: CorpusSettings,
    keep: Sequence[str] = (),
    need_label: bool = False,
    on_unreadable: OnUnreadable = "raise",
    isolated: bool = False,
) -> Iterator[pa.Table]:
    """All rows of a shard, good and bad, in the input's order.

    Args:
        source: where the shard's files lie (a `lean()` one will do).
        shard: of the plan made for that source.
        settings: names of the columns, and the share of rows for testing.
        keep: further columns to pass through; those of Parquet and Arrow keep their type, others are strings.
        need_label: whether a row without a label is bad (`unsup` rows are not).
        on_unreadable: with "quarantine", a piece that cannot be read, or not to its end, gives the rows before the
            damage and then one bad row: its number is that of the first row not read, its reason
            `Reason.UNREADABLE_FILE`, its text what is wrong. The other pieces are read as ever.
        isolated: for a process that must not die of a file, as an earlier one may have: each piece is first read in a
            process of its own. One that ends it cannot be read, and none of its rows are given. Takes twice as long.

    Yields:
        Tables of `ROW_SCHEMA` and the kept columns, named by `kept_name`, of at most 4,096 rows and about 16 MB each.
        Where a Parquet file cannot be read at all, its bad row's kept columns have the type of the table before it, or
        null.

    Raises:
        SentrayError: a file cannot be read or lacks a column.
    """
    columns = Columns(settings, tuple(keep), need_label)
    quarantine = on_unreadable == "quarantine"
    if shard.format in ("text", "nltk"):
        for block in read_reviews(source, shard, columns, quarantine):
            yield finish(block, columns)
        return
    nulls: dict[str, pa.Array] = dict.fromkeys(keep, pa.nulls(1, pa.null() if shard.format in TYPED else pa.string()))
    for piece in shard.pieces:
        row = piece.row + 1
        try:
            for block in _blocks(source, shard, piece, columns, isolated):
                table = finish(block, columns)
                nulls = {name: pa.nulls(1, table.schema.field(kept_name(name)).type) for name in keep}
                if table.num_rows:
                    row = table["row"][-1].as_py() + 1
                    yield table
        except SentrayError as error:
            if not quarantine:
                raise
            bad = Broken(Reason.UNREADABLE_FILE, str(error), str(error))
            yield finish(Block(piece.name, np.array([row]), nulls, {0: bad}), columns)


def read_schema(
    source: Source,
    piece: Piece,
    settings: CorpusSettings,
    keep: Sequence[str] = (),
    need_keep: bool = True,
    need_label: bool = False,
) -> pa.Schema | None:
    """The columns to keep that a file has, by their names in it; none where it holds no row.

    Parquet says so in its footer and Arrow IPC at its beginning, and none of their rows are read.

    Raises:
        SentrayError: the file cannot be read, or lacks a column; one to keep only with `need_keep`.
    """
    columns, said = _with_given(Columns(settings, tuple(keep), need_label, need_keep=need_keep), piece)
    if need_keep and source.format not in WITH_COLUMNS and not said.keys() >= set(columns.further):
        if keep:
            raise SentrayError(f"{source.uri} has no columns to keep: leave out --keep")
        raise SentrayError(f"{source.uri} has no columns, and so none of numbers: give CSV, JSON Lines or Parquet")
    shard = Shard(0, source.format, (piece,), piece.bytes)
    if source.format in TYPED:
        block = reader(source.format).empty_block(source, piece, columns)
        block = block and with_said(block, piece, columns, said)
    else:
        by_file = source.format in ("text", "nltk")
        blocks = read_reviews(source, shard, columns, False) if by_file else _blocks(source, shard, piece, columns)
        block = next((block for block in blocks if len(block.rows)), None)
    if block is None:
        return None
    table = finish(block, columns)
    return pa.schema([(name, table.schema.field(kept_name(name)).type) for name in keep if name in block.columns])


def may_have_ids(source: Source, settings: CorpusSettings) -> bool:
    """Whether a column may give the ids; those that are made of file and row cannot occur twice."""
    return source.format in WITH_COLUMNS and settings.id_column != NO_COLUMN


def require_columns(uri: str, settings: CorpusSettings, need_label: bool) -> None:
    """Find a corpus, and look at the first of its files that has a row.

    Raises:
        SentrayError: there is no such corpus, or that file lacks a column or cannot be read.
    """
    source = resolve(uri, settings)
    pieces = [Piece(file.path, file.name, label=file.label, split=file.split) for file in source.files]
    if need_label and source.format == "text":
        # A review may lie beside the class folders.
        pieces.sort(key=lambda piece: says_label(piece, Columns(settings)), reverse=True)
    any(read_schema(source, piece, settings, need_label=need_label) is not None for piece in pieces)


def read_ids(
    source: Source,
    shard: Shard,
    settings: CorpusSettings,
    unread: set[str] | None = None,
    isolated: bool = False,
) -> Iterator[tuple[str, Numbers, Hashes]]:
    """File, rows and 64-bit hashes of the ids that a column gives; nothing where no column does.

    With a set `unread`, a piece that cannot be read ends where the damage begins, and its name is put there; `isolated`
    as for `read_shard`.

    Raises:
        SentrayError: a file cannot be read, without `unread`.
    """
    # Numba takes its time to load, and not every run looks for ids.
    from sentray.corpus.duplicates import hash_ids

    if not may_have_ids(source, settings):
        return
    columns = Columns(settings, ids_only=True)
    for piece in shard.pieces:
        try:
            for block in _blocks(source, shard, piece, columns, isolated):
                if settings.id_column in block.columns:
                    ids = block.columns[settings.id_column]
                    yield piece.name, *hash_ids(block.rows, ids, settings.id_column, block.file)
        except SentrayError:
            if unread is None:
                raise
            unread.add(piece.name)


def _blocks(source: Source, shard: Shard, piece: Piece, columns: Columns, isolated: bool = False) -> Iterator[Block]:
    """What a piece holds; only what goes wrong in reading it is the file's fault."""
    if isolated:
        try:
            sandbox.run(piece.path, _read_all, source.lean(), replace(shard, pieces=(piece,)), piece, columns)
        except sandbox.CrashError:
            raise
        # What else is wrong, its reader says.
        except SentrayError:
            pass
    columns, said = _with_given(columns, piece)
    rows = 0
    with reading(piece.path):
        for block in reader(shard.format).read(source, piece, columns):
            rows += len(block.rows)
            require_few_rows(piece.path, rows, shard.bytes)
            yield with_said(block, piece, columns, said)


def _with_given(columns: Columns, piece: Piece) -> tuple[Columns, dict[str, str | None]]:
    """The columns with those that a piece's name gives, and what it says."""
    said = said_of(piece, columns)
    return replace(columns, given=frozenset(said)), said


def _read_all(source: Source, shard: Shard, piece: Piece, columns: Columns) -> None:
    for block in _blocks(source, shard, piece, columns):
        finish(block, columns)
