"""CSV of any dialect: the rows of a file. A row is a record, so that a quoted line break starts no new one."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pyarrow import fs

from sentray.config import CorpusSettings
from sentray.corpus import records
from sentray.corpus.records import Dialect, Window, open_windows, read_records
from sentray.corpus.rows import Block, Columns
from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import Part, Piece
from sentray.errors import SentrayError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Those that are found out, and what they are called."""
_TABS = re.compile(r"\.(tsv|tab)(\.\w+)?$", re.IGNORECASE)
_SNIFFED_BYTES, _SNIFFED_ROWS = 1 << 16, 20


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a piece; see `sentray.corpus.readers`.

    Raises:
        SentrayError: the file has no header, or lacks a column.
    """
    settings = columns.settings
    head, window = open_windows(source, piece, settings.encoding)
    dialect, names = begin(head, piece.path, settings)
    others = f" (separated by {DELIMITERS[dialect.delimiter]})" if dialect.delimiter in (*DELIMITERS,)[1:] else ""
    if not (wanted := _wanted(names, columns, piece.path + others)):
        return
    if not piece.start and head is not window:
        begin(window, piece.path, settings)
    has = "the header has" if settings.header else "--columns names" if settings.columns else "the first row has"
    for found in read_records(window, dialect, len(names), [*wanted.values()], than=f"{has} {len(names)}"):
        values = dict(zip(wanted, found.fields, strict=True))
        # The header is no row.
        rows = found.positions + piece.row + (0 if settings.header and not piece.start else 1)
        yield Block(piece.name, rows, values, found.broken, all_text=True)


def cut(
    filesystem: fs.FileSystem, files: Sequence[SourceFile], size: int, settings: CorpusSettings
) -> list[list[Part]]:
    """Byte ranges of whole records of each file, with their ids, so that nobody has to read it for these alone."""
    columns = Columns(settings, ids_only=True)

    def begun(window: Window, path: str) -> tuple[Dialect, int, list[int]]:
        dialect, names = begin(window, path, settings)
        return dialect, len(names), [*_wanted(names, columns, path).values()]

    return records.cut(filesystem, files, size, settings.encoding, begun)


def _wanted(names: list[str], columns: Columns, path: str) -> dict[str, int]:
    """The columns to read of a file, and which of its fields each is; a name that no column has may be a number."""
    numbers = {*map(str, range(1, len(names) + 1))} - {*names}
    numbered = numbers.intersection([*map(columns.name, columns.roles), *columns.further])
    chosen = columns.choose([*names, *sorted(numbered)], path)
    return {name: names.index(name) if name in names else int(name) - 1 for name in chosen}


def separated(source: Source, settings: CorpusSettings) -> str:
    """What is to be said of a corpus's delimiter, where it was found out: that of its first file."""
    if source.format != "csv" or settings.delimiter or source.filesystem is None:
        return ""
    first = source.files[0].path
    try:
        window, _ = open_windows(source, Piece(first, first), settings.encoding)
        found = dialect_of(window, first, settings).delimiter
    except (SentrayError, OSError):
        # Its reader says what is wrong.
        return ""
    return "" if found == _usual(first) else f", separated by {DELIMITERS[str(found)]}"


def begin(window: Window, path: str, settings: CorpusSettings) -> tuple[Dialect, list[str]]:
    """A file's dialect and the names of its columns; the window is behind the header then.

    Raises:
        SentrayError: the first record is no header where one is wanted, or is broken.
    """
    dialect = dialect_of(window, path, settings)
    if settings.columns:
        return dialect, [*settings.columns]
    first = next(read_records(window, dialect, limit=1), None)
    if not settings.header:
        if first is None or first.broken:
            raise SentrayError(f"{path} has no first row to count the columns of: name them with --columns")
        window.at, window.passed = int(first.starts[0] - window.offset), 0
        return dialect, [str(number) for number in range(1, int(first.widths[0]) + 1)]
    try:
        if first is None or first.broken:
            raise csv.Error
        content = window.data[first.starts[0] - window.offset : first.ends[0] - window.offset].tobytes()
        return dialect, next(dialect.reader(io.StringIO(content.decode(errors="replace"), newline="")))
    except csv.Error as error:
        raise SentrayError(
            f"{path} has no header: its first line must name the columns, as in id,text,label"
        ) from error


def dialect_of(window: Window, path: str, settings: CorpusSettings) -> Dialect:
    """The dialect that the settings, a file's name or its first rows say.

    A delimiter is found out where the usual one does not divide the header and the first rows into equally many fields,
    and one other does.
    """
    default = settings.delimiter or _usual(path)
    dialect = Dialect(default, *(None if sign == "none" else sign for sign in (settings.quote, settings.escape)))
    if settings.delimiter:
        return dialect
    head = window.peek(_SNIFFED_BYTES)
    # A header that is the whole file tells enough.
    fewest = 1 if settings.header and len(head) < _SNIFFED_BYTES else 2
    if _divides(head, dialect, fewest):
        return dialect
    others = [other for each in DELIMITERS if _divides(head, other := replace(dialect, delimiter=each), fewest)]
    return others[0] if len(others) == 1 else dialect


def _usual(path: str) -> str:
    return "\t" if _TABS.search(path) else ","


def _divides(head: bytes, dialect: Dialect, fewest: int) -> bool:
    """Whether a dialect takes a file's beginning into so many records or more, of as many fields each, but not one."""
    some = next(read_records(Window(io.BytesIO(head), _SNIFFED_BYTES), dialect, limit=_SNIFFED_ROWS), None)
    if some is None:
        return False
    # The last one may go on.
    widths = some.widths[(some.ends < len(head)) | (len(head) < _SNIFFED_BYTES)]
    return len(widths) >= fewest and widths[0] > 1 and bool((widths == widths[0]).all())
