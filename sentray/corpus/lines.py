"""CSV and JSON Lines: record by record, so that a damaged one does not touch its neighbours."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from sentray.corpus import limits
from sentray.corpus.files import open_stream
from sentray.corpus.rows import (
    ROLES,
    TABLE_BYTES,
    TABLE_ROWS,
    Block,
    Broken,
    Columns,
    Reason,
    Rows,
    as_read,
    decode,
    sound,
)
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece
from sentray.errors import SentrayError

Record = list[str | None] | Broken
"""The wanted columns' values, or what is no record; non-UTF-8 bytes are surrogates."""
Line = bytes | Broken
"""A line as it is read."""

_BUFFER = 1 << 20
_HEAD = 256
_decode_json = json.JSONDecoder().decode
# Bytes of CSV to look at in one go, and to find the header in.
_CHUNK = 4 << 20
_HEADER = 1 << 16


def read_csv(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a CSV file with a header; a row is a record, so that a quoted line break starts no new one.

    Compiled code finds the records and fields that Python's `csv` would find; what is malformed goes through Python.
    (Arrow's parser gives up at a record longer than its block and at a malformed one whose bytes are no UTF-8.)
    """
    # Numba takes its time to load.
    from sentray.corpus.grammar import CsvSplitter

    csv.field_size_limit(limits.MAX_ROW_BYTES)

    def open_piece(start: int, stop: int | None) -> pa.NativeFile | io.RawIOBase:
        assert source.filesystem is not None
        return open_stream(source.filesystem, piece.path, start, stop)

    chunk = _HEADER if piece.start else _CHUNK
    split = CsvSplitter(open_piece(0, piece.start or piece.stop), chunk)
    _require_utf8(piece.path, split.head)
    split.skip_mark()
    first = split.take(1, np.zeros(0, np.int64), 0)
    if first is not None and first.long[0]:
        raise SentrayError(
            f"{piece.path} has a header of more than {limits.MAX_ROW_BYTES:,} bytes: its first line must name the "
            "columns, as in id,text,label"
        )
    header = None if first is None else _csv_record(first.bytes_of(0))
    if not isinstance(header, list):
        raise SentrayError(f"{piece.path} has no header: its first line must name the columns, as in id,text,label")
    names = [sound(name) for name in header]
    chosen = columns.choose(names, piece.path)
    if not chosen:
        return
    if piece.start:
        split = CsvSplitter(open_piece(piece.start, piece.stop), _CHUNK)
    wanted = np.array([chosen.index(name) if name in chosen else -1 for name in names])
    row = piece.row + 1
    while (records := split.take(TABLE_ROWS, wanted, len(names))) is not None:
        rows = np.arange(row, row + len(records.good))
        arrays = {name: records.column(place) for place, name in enumerate(chosen)}
        block = _string_block(columns, piece, rows[records.good], arrays)
        for place in np.flatnonzero(~records.good).tolist():
            block.broken.append(_broken(row + place, records.bytes_of(place), bool(records.long[place])))
        row += len(rows)
        yield block


def _broken(row: int, content: bytes, is_long: bool) -> Broken:
    """What to tell of a record that is too long or malformed, or has not as many fields as the header."""
    if is_long:
        return Broken(row, limits.beginning(content), Reason.TOO_LARGE)
    record = _csv_record(content)
    return Broken(row, record if isinstance(record, str) else ",".join(record))


def _csv_record(content: bytes) -> list[str] | str:
    """What Python makes of one record: its fields, or the last line of a malformed one as it stands."""
    last = ""

    def remembered() -> Iterator[str]:
        nonlocal last
        for line in io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="surrogateescape", newline=""):
            last = line
            yield line

    try:
        return next(record for record in csv.reader(remembered(), strict=True) if record)
    except csv.Error:
        return last


def read_jsonl(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a JSON Lines file; a row is a line. An absent key is null, an absent id the position."""
    lines = _lines(_open(source, piece.path, piece.start, piece.stop), piece.row)
    # Which columns a file has is told by its first records, also to who reads only a part of it.
    head = list(_first(lines if piece.stop is None else _lines(_open(source, piece.path), 0)))
    parsed = (_parse_json(line) for _, line in head if isinstance(line, bytes))
    keys = dict.fromkeys(key for record in parsed if isinstance(record, dict) for key in record)
    if keys:
        columns.choose(list(keys), piece.path)
    if piece.stop is None:
        lines = itertools.chain(head, lines)
    settings = columns.settings
    roles = ("id",) if columns.ids_only else ROLES
    names = list(dict.fromkeys([*map(columns.name, roles), *columns.keep]))

    def pick(number: int, line: Line) -> Record:
        if not isinstance(line, bytes):
            return line
        record = _parse_json(line)
        if isinstance(record, str):
            return Broken(number, record)
        if not columns.ids_only:
            record.setdefault(settings.id_column, f"{piece.name}:{number}")
        try:
            return [_json_value(record.get(name), name, columns) for name in names]
        # What can be parsed may be nested too deeply to be written.
        except (TypeError, RecursionError):
            return Broken(number, _text(line))

    yield from _blocks(((number, pick(number, line)) for number, line in lines), names, piece, columns)


def _first(lines: Iterator[tuple[int, Line]]) -> Iterator[tuple[int, Line]]:
    """The lines that tell which columns there are."""
    size = 0
    for number, line in itertools.islice(lines, _HEAD):
        yield number, line
        size += len(line)
        if size > TABLE_BYTES:
            return


def _lines(stream: io.BufferedReader, before: int) -> Iterator[tuple[int, Line]]:
    """Number and bytes of each line that is not blank, or what to tell of one that is too long."""
    most = limits.MAX_ROW_BYTES
    for number in itertools.count(before + 1):
        line = stream.readline(most + 1)
        if not line:
            return
        blank = line.isspace()
        if len(line) > most:
            end = line
            while not end.endswith(b"\n") and (end := stream.readline(_BUFFER)):
                blank = blank and end.isspace()
            if not blank:
                yield number, Broken(number, limits.beginning(line), Reason.TOO_LARGE)
        elif not blank:
            yield number, line


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _parse_json(line: bytes) -> dict[str, Any] | str:
    text = _text(line)
    try:
        record = _decode_json(text)
    except (ValueError, RecursionError):
        return text
    return record if isinstance(record, dict) else text


def _json_value(value: Any, name: str, columns: Columns) -> str | None:
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
    if name == columns.settings.text_column or isinstance(value, (list, dict)):
        raise TypeError
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else json.dumps(value)


def _open(source: Source, path: str, start: int = 0, stop: int | None = None) -> io.BufferedReader:
    """The bytes of a file, or from `start` to `stop` of one."""
    assert source.filesystem is not None
    stream = io.BufferedReader(open_stream(source.filesystem, path, start, stop), _BUFFER)
    if not start:
        head = stream.peek(_BUFFER)[:_BUFFER]
        _require_utf8(path, head)
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            raise SentrayError(f"{path} holds one JSON array: write one object a line (JSON Lines) instead")
    return stream


def _require_utf8(path: str, head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SentrayError(f"{path} is UTF-16: save it as UTF-8")


def _string_block(columns: Columns, piece: Piece, rows: Rows, arrays: dict[str, pa.Array]) -> Block:
    """A block of columns all of which are strings, whatever their bytes."""
    block = columns.block(piece.name, rows, arrays)
    block.kept = {name: decode(array, name, piece.name)[0] for name, array in block.kept.items()}
    return block


def _blocks(records: Iterable[tuple[int, Record]], names: list[str], piece: Piece, columns: Columns) -> Iterator[Block]:
    """Gather records into blocks of bounded size."""
    rows: list[int] = []
    values: list[list[str | None]] = []
    broken: list[Broken] = []
    size = 0

    def block() -> Block:
        arrays = dict(zip(names, map(_array, zip(*values, strict=True)), strict=True)) if values else {}
        arrays = arrays or {name: pa.nulls(0, pa.large_string()) for name in names}
        made = _string_block(columns, piece, np.array(rows, np.int64), arrays)
        made.broken = broken
        return made

    damage: Exception | None = None
    try:
        for row, record in records:
            if isinstance(record, Broken):
                broken.append(record)
                size += len(record.text)
            else:
                rows.append(row)
                values.append(record)
                size += sum(map(len, filter(None, record)))
            if len(rows) + len(broken) >= TABLE_ROWS or size >= TABLE_BYTES:
                yield block()
                rows, values, broken, size = [], [], [], 0
    except Exception as error:
        damage = error
    if rows or broken:
        yield block()
    if damage is not None:
        raise damage


def _array(values: Iterable[str | None]) -> pa.Array:
    """Strings, or bytes where one of them holds what UTF-8 cannot."""
    values = list(values)
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        return pa.array([None if value is None else as_read(value) for value in values], pa.large_binary())
