"""CSV: the rows of a file with a header. A row is a record, so that a quoted line break starts no new one."""

import csv
import io
from collections.abc import Iterator, Sequence

from pyarrow import fs

from sentray.corpus import records
from sentray.corpus.records import Dialect, Window, open_windows, read_records
from sentray.corpus.rows import Block, Columns
from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import Part, Piece
from sentray.errors import SentrayError

DIALECT = Dialect()


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a piece; see `sentray.corpus.readers`.

    Raises:
        SentrayError: the file has no header, or lacks a column.
    """
    head, window = open_windows(source, piece)
    names = _header(head, piece.path)
    if not (chosen := columns.choose(names, piece.path)):
        return
    row = piece.row + 1
    if not piece.start:
        # The header is no row.
        row -= 1
        if head is not window:
            _header(window, piece.path)
    for found in read_records(window, DIALECT, len(names), [names.index(name) for name in chosen]):
        values = dict(zip(chosen, found.fields, strict=True))
        yield Block(piece.name, found.positions + row, values, found.broken, all_text=True)


def cut(filesystem: fs.FileSystem, files: Sequence[SourceFile], size: int) -> list[list[Part]]:
    """Byte ranges of whole records of each file."""
    return records.cut(filesystem, files, size, DIALECT, header=True)


def _header(window: Window, path: str) -> list[str]:
    """The names of the columns."""
    first = next(read_records(window, DIALECT, limit=1), None)
    try:
        if first is None or first.broken:
            raise csv.Error
        content = window.data[first.starts[0] - window.offset : first.ends[0] - window.offset].tobytes()
        return next(DIALECT.reader(io.StringIO(content.decode(errors="replace"), newline="")))
    except csv.Error as error:
        raise SentrayError(
            f"{path} has no header: its first line must name the columns, as in id,text,label"
        ) from error
