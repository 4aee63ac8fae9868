"""CSV and JSON Lines: record by record, so that a damaged one does not touch its neighbours."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from sentray.corpus.files import open_stream
from sentray.corpus.readers.records import ROLES, TABLE_BYTES, TABLE_ROWS, Block, Columns, as_read, sound
from sentray.corpus.shards import Piece
from sentray.corpus.source import Source
from sentray.errors import SentrayError

Record = list[str | None] | str
"""The wanted columns' values, or the raw text of what is no record; non-UTF-8 bytes are surrogates."""

_BUFFER = 1 << 20
_HEAD = 256
# A quote that is never closed makes the rest of the file one field.
_LONGEST_FIELD = 1 << 28


def read_csv(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a CSV file with a header; a row is a record, so that a quoted line break starts no new one.

    Arrow's parser is faster (700 MB/s here against 300) but gives up at a record longer than its block and at
    a malformed one whose bytes are no UTF-8.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.TextIOWrapper(_open(source, piece), encoding="utf-8-sig", errors="surrogateescape", newline="")
    records = _csv_records(text)
    header = next(records, None)
    if not isinstance(header, list):
        raise SentrayError(f"{piece.path} has no header: its first line must name the columns, as in id,text,label")
    names = [sound(str(name)) for name in header]
    chosen = columns.choose(names, piece.path)
    places = [names.index(name) for name in chosen]

    def pick(record: Record) -> Record:
        if isinstance(record, str):
            return record
        return [record[place] for place in places] if len(record) == len(names) else ",".join(map(str, record))

    if chosen:
        yield from _blocks(enumerate(map(pick, records), start=1), chosen, piece, columns)


def _csv_records(text: io.TextIOWrapper) -> Iterator[Record]:
    """All records but empty lines; the last line of a malformed one as it stands."""
    last = ""

    def remembered() -> Iterator[str]:
        nonlocal last
        for line in text:
            last = line
            yield line

    reader = csv.reader(remembered(), strict=True)
    while True:
        try:
            for record in reader:
                if record:
                    yield list(record)
            return
        except csv.Error:
            yield last


def read_jsonl(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a JSON Lines file; a row is a line. An absent key is null, an absent id the position."""
    stream = _open(source, piece)
    if stream.peek(_BUFFER)[:_BUFFER].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise SentrayError(f"{piece.path} holds one JSON array: write one object a line (JSON Lines) instead")
    lines = ((number, line) for number, line in enumerate(stream, start=1) if not line.isspace())
    parsed = ((number, _parse_json(line)) for number, line in lines)
    head = list(itertools.islice(parsed, _HEAD))
    keys = dict.fromkeys(key for _, record in head if isinstance(record, dict) for key in record)
    if keys:
        columns.choose(list(keys), piece.path)
    settings = columns.settings
    roles = ("id",) if columns.ids_only else ROLES
    names = list(dict.fromkeys([*map(columns.name, roles), *columns.keep]))

    def pick(number: int, record: dict[str, Any] | str) -> Record:
        if isinstance(record, str):
            return record
        if not columns.ids_only:
            record.setdefault(settings.id_column, f"{piece.name}:{number}")
        try:
            return [_json_value(record.get(name), name, columns) for name in names]
        except TypeError:
            return json.dumps(record, ensure_ascii=False)

    records = ((number, pick(number, record)) for number, record in itertools.chain(head, parsed))
    yield from _blocks(records, names, piece, columns)


def _parse_json(line: bytes) -> dict[str, Any] | str:
    text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    try:
        record = json.loads(text)
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
    return json.dumps(value)


def _open(source: Source, piece: Piece) -> io.BufferedReader:
    assert source.filesystem is not None
    stream = io.BufferedReader(open_stream(source.filesystem, piece.path), _BUFFER)
    if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SentrayError(f"{piece.path} is UTF-16: save it as UTF-8")
    return stream


def _blocks(records: Iterable[tuple[int, Record]], names: list[str], piece: Piece, columns: Columns) -> Iterator[Block]:
    """Gather records into blocks of bounded size."""
    rows: list[int] = []
    values: list[list[str | None]] = []
    broken: list[tuple[int, str]] = []
    size = 0

    def block() -> Block:
        arrays = dict(zip(names, map(_array, zip(*values, strict=True)), strict=True)) if values else {}
        arrays = arrays or {name: pa.nulls(0, pa.large_string()) for name in names}
        made = columns.block(piece.name, np.array(rows, np.int64), arrays)
        made.broken = broken
        return made

    for row, record in records:
        if isinstance(record, str):
            broken.append((row, record))
            size += len(record)
        else:
            rows.append(row)
            values.append(record)
            size += sum(map(len, filter(None, record)))
        if len(rows) + len(broken) >= TABLE_ROWS or size >= TABLE_BYTES:
            yield block()
            rows, values, broken, size = [], [], [], 0
    if rows or broken:
        yield block()


def _array(values: Iterable[str | None]) -> pa.Array:
    """Strings, or bytes where one of them holds what UTF-8 cannot."""
    values = list(values)
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        return pa.array([None if value is None else as_read(value) for value in values], pa.large_binary())
