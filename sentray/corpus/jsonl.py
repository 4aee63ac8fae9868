"""JSON Lines: the rows of a file. A row is a line; an absent key is null, an absent id the position."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import fs

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
    head, window = open_windows(source, piece)
    _refuse_array(head, piece.path)
    found, first = read_records(head, LINES, 1, [0]), list[Records]()
    while sum(len(some.ends) for some in first) < _HEAD and (some := next(found, None)):
        first.append(some)
    lines = [line for some in first for line in some.fields[0].drop_null().to_pylist()]
    if keys := dict.fromkeys(key for line in lines[:_HEAD] for key in _parse(line) or ()):
        columns.choose(list(keys), piece.path)
    found = itertools.chain(first, found) if head is window else read_records(window, LINES, 1, [0])
    names = list(dict.fromkeys([columns.name(role) for role in columns.roles] + list(columns.keep)))
    for some in found:
        rows, broken = some.positions + piece.row + 1, dict(some.broken)
        values: list[list[str | None]] = []
        for index, (number, line) in enumerate(zip(rows.tolist(), some.fields[0].to_pylist(), strict=True)):
            row = None if line is None else _values(line, names, columns, f"{piece.name}:{number}")
            if row is None and line is not None:
                broken[index] = Broken(Reason.INVALID_RECORD, limits.excerpt(line))
            values.append(row or [None] * len(names))
        arrays = dict(zip(names, map(_strings, zip(*values, strict=True)), strict=True))
        yield Block(piece.name, rows, arrays, broken, all_text=True)


def cut(filesystem: fs.FileSystem, files: Sequence[SourceFile], size: int) -> list[list[Part]]:
    """Byte ranges of whole lines of each file."""
    return records.cut(filesystem, files, size, LINES, header=False)


def _refuse_array(window: Window, path: str) -> None:
    if window.data[window.at : window.size][:_HEAD].tobytes().lstrip().startswith(b"["):
        raise SentrayError(f"{path} holds one JSON array: write one object a line (JSON Lines) instead")


def _values(line: bytes, names: list[str], columns: Columns, position: str) -> list[str | None] | None:
    """What a line holds in some columns; None where it is no record, or holds what cannot be there."""
    record = _parse(line)
    if record is not None and any(_is_inexact(record.get(name)) for name in names):
        record = _parse_by_python(line)
    if record is None:
        return None
    if not columns.ids_only:
        record.setdefault(columns.name("id"), position)
    try:
        return [_as_text(record.get(name), name, columns) for name in names]
    # What can be parsed may be nested too deeply to be written.
    except (TypeError, RecursionError):
        return None


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record that a line holds, if any."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _parse_by_python(line)
    return record if isinstance(record, dict) else None


def _parse_by_python(line: bytes) -> dict[str, Any] | None:
    """The same by the standard library, which also reads NaN, lone surrogates and numbers of any size."""
    try:
        record = _decode_json(line.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
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
