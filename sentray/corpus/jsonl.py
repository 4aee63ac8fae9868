"""JSON Lines: the rows of a file. A row is a line; an absent key is null, an absent id the position."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import fs

from sentray.config import CorpusSettings
from sentray.corpus import limits, records
from sentray.corpus.records import LINES, Records, Window, open_windows, read_records
from sentray.corpus.rows import ROLES, Block, Broken, Columns, Reason
from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import Part, Piece
from sentray.errors import SentrayError

_HEAD = 256
"""Records from whose keys the columns of a file are known."""
_decode_json = json.JSONDecoder().decode
# Whole numbers from here on are rounded by orjson.
_LARGE = 2.0**63


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a piece; see `sentray.corpus.readers`.

    Raises:
        SentrayError: the first records have no key that the run needs, or the file is one JSON array.
    """
    head, window = open_windows(source, piece, columns.settings.encoding)
    _refuse_array(head, piece.path)
    first = next(found := read_records(head, LINES), None)
    if first is None:
        return
    # The same ones, however much is read at once.
    count = max(1, min(_HEAD, int(np.searchsorted(first.ends, records.HEAD, "right"))))
    known = [_parse(line) for index, line in enumerate(_lines(first, head)[:count]) if index not in first.broken]
    if keys := dict.fromkeys(key for record in known for key in record or ()):
        columns.choose(list(keys), piece.path)
    names = list(dict.fromkeys([columns.name(role) for role in columns.roles] + list(columns.keep)))
    for some in itertools.chain([first], found) if head is window else read_records(window, LINES):
        rows, broken = some.positions + piece.row + 1, dict(some.broken)
        values: list[list[str | None]] = []
        for index, (number, line) in enumerate(zip(rows.tolist(), _lines(some, window), strict=True)):
            row = None if index in broken else _values(line, names, columns, piece.name, number)
            if row is None and index not in broken:
                broken[index] = Broken(Reason.INVALID_RECORD, limits.excerpt(bytes(line)))
            values.append(row or [None] * len(names))
        arrays = dict(zip(names, map(_strings, zip(*values, strict=True)), strict=True))
        yield Block(piece.name, rows, arrays, broken, all_text=True)


def _lines(some: Records, window: Window) -> list[memoryview]:
    """The bytes of records that were just read, with the ends of their lines; not of one that is too long."""
    data = memoryview(window.data)  # type: ignore[arg-type]
    starts, ends = ((bounds - window.offset).tolist() for bounds in (some.starts, some.ends))
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def cut(
    filesystem: fs.FileSystem, files: Sequence[SourceFile], size: int, settings: CorpusSettings
) -> list[list[Part]]:
    """Byte ranges of whole lines of each file."""
    if settings.encoding:
        return [[] for _ in files]
    return records.cut(filesystem, files, size, lambda *_: (LINES, 0))


def _refuse_array(window: Window, path: str) -> None:
    if window.data[window.at : window.size][:_HEAD].tobytes().lstrip().startswith(b"["):
        raise SentrayError(f"{path} holds one JSON array: write one object a line (JSON Lines) instead")


def _values(line: memoryview, names: list[str], columns: Columns, file: str, row: int) -> list[str | None] | None:
    """What a line holds in some columns; None where it is no record, or holds what cannot be there."""
    record = _parse(line)
    if record is not None and any(_is_inexact(record.get(name)) for name in names):
        record = _parse_by_python(line)
    if record is None:
        return None
    if not columns.ids_only and columns.name("id") not in record:
        record[columns.name("id")] = f"{file}:{row}"
    try:
        return [_as_text(record.get(name), name, columns) for name in names]
    # What can be parsed may be nested too deeply to be written.
    except (TypeError, RecursionError):
        return None


def _parse(line: memoryview) -> dict[str, Any] | None:
    """The record that a line holds, if any."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _parse_by_python(line)
    return record if isinstance(record, dict) else None


def _parse_by_python(line: memoryview) -> dict[str, Any] | None:
    """The same by the standard library, which also reads NaN, lone surrogates and numbers of any size."""
    try:
        record = _decode_json(bytes(line).decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_inexact(value: object) -> bool:
    """Whether a value of orjson's may be, or hold, a whole number that was rounded because it is large."""
    return isinstance(value, (dict, list)) or (isinstance(value, float) and abs(value) >= _LARGE)


def _as_text(value: Any, name: str, columns: Columns) -> str | None:
    """A JSON value as a column holds it.

    Raises:
        TypeError: the value cannot be what its column is for, such as a list as a label.
    """
    if value is None or isinstance(value, str):
        return value
    # Python writes a gap in a table as NaN.
    if value != value:
        return None
    if name in columns.keep and name not in map(columns.name, ROLES):
        return json.dumps(value, ensure_ascii=False)
    if name == columns.name("text") or isinstance(value, (list, dict)):
        raise TypeError
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else json.dumps(value)


def _strings(values: tuple[str | None, ...]) -> pa.Array:
    """Texts as an array: of strings, or of bytes where one of them holds surrogates."""
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        return pa.array([None if value is None else _as_read(value) for value in values], pa.large_binary())


def _as_read(text: str) -> bytes:
    """The bytes of a text: undecodable ones as they were, or the lone surrogate that JSON escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
