"""JSON Lines: the rows of a file (`read_jsonl`), and where a large file can be split (`find_lines`)."""

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
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
    refuse_utf16,
    strings,
)
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece
from sentray.errors import SentrayError

Line = bytes | Broken
"""A line as it is in the file, or what stands for one that is too long."""
Start = tuple[int, int, int]
"""First byte of a line, how many lines are before it, and how many of these are not blank."""

_BUFFER = 1 << 20
# What fits into a core's cache.
_SCANNED = 1 << 18
_HEAD = 256
_decode_json = json.JSONDecoder().decode
# Whole numbers from here on are rounded by orjson.
_LARGE = 2.0**63


def read_jsonl(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a JSON Lines file; a row is a line. An absent key is null, an absent id the position.

    Raises:
        SentrayError: the first records have no key that the run needs, or the file is one JSON array.
    """
    lines = _lines(_open(source, piece.path, piece.start, piece.stop), piece.row)
    # Which columns a file has is read from its first records, also for a later part of it.
    head = list(_first(lines if piece.stop is None else _lines(_open(source, piece.path), 0)))
    parsed = (_parse(line) for _, line in head if isinstance(line, bytes))
    keys = dict.fromkeys(key for record in parsed if isinstance(record, dict) for key in record)
    if keys:
        columns.choose(list(keys), piece.path)
    if piece.stop is None:
        lines = itertools.chain(head, lines)
    roles = ("id",) if columns.ids_only else ROLES
    names = list(dict.fromkeys([*map(columns.name, roles), *columns.keep]))

    def values(number: int, line: Line) -> list[str | None] | Broken:
        if isinstance(line, Broken):
            return line
        record = _parse(line)
        if isinstance(record, dict) and any(_is_inexact(record.get(name)) for name in names):
            record = _parse_by_python(line)
        if isinstance(record, str):
            return Broken(number, record)
        if not columns.ids_only:
            record.setdefault(columns.settings.id_column, f"{piece.name}:{number}")
        try:
            return [_as_text(record.get(name), name, columns) for name in names]
        # What can be parsed may be nested too deeply to be written.
        except (TypeError, RecursionError):
            return Broken(number, _text(line))

    rows: list[int] = []
    found: list[list[str | None]] = []
    broken: list[Broken] = []
    size = 0

    def block() -> Block:
        arrays = {name: strings([row[index] for row in found]) for index, name in enumerate(names)}
        made = columns.block(piece.name, np.array(rows, np.int64), arrays, all_text=True)
        made.broken = broken
        return made

    try:
        for number, line in lines:
            row = values(number, line)
            if isinstance(row, Broken):
                broken.append(row)
                size += len(row.text)
            else:
                rows.append(number)
                found.append(row)
                size += sum(map(len, filter(None, row)))
            if len(rows) + len(broken) >= TABLE_ROWS or size >= TABLE_BYTES:
                yield block()
                rows, found, broken, size = [], [], [], 0
    except Exception:
        # The lines before the damage come first.
        if rows or broken:
            yield block()
        raise
    if rows or broken:
        yield block()


def _open(source: Source, path: str, start: int = 0, stop: int | None = None) -> io.BufferedReader:
    """The bytes of a file, or from `start` to `stop` of one."""
    assert source.filesystem is not None
    stream = io.BufferedReader(open_stream(source.filesystem, path, start, stop), _BUFFER)
    if not start:
        head = stream.peek(_BUFFER)[:_BUFFER]
        refuse_utf16(path, head)
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            raise SentrayError(f"{path} holds one JSON array: write one object a line (JSON Lines) instead")
    return stream


def _lines(stream: io.BufferedReader, before: int) -> Iterator[tuple[int, Line]]:
    """Number and bytes of each line that is not blank, or what stands for one that is too long."""
    longest = limits.MAX_ROW_BYTES
    for number in itertools.count(before + 1):
        line = stream.readline(longest + 1)
        if not line:
            return
        blank = line.isspace()
        if len(line) > longest:
            end = line
            while not end.endswith(b"\n") and (end := stream.readline(_BUFFER)):
                blank = blank and end.isspace()
            if not blank:
                yield number, Broken(number, limits.beginning(line), Reason.TOO_LARGE)
        elif not blank:
            yield number, line


def _first(lines: Iterator[tuple[int, Line]]) -> Iterator[tuple[int, Line]]:
    """The lines from which the columns are known."""
    size = 0
    for number, line in itertools.islice(lines, _HEAD):
        yield number, line
        size += len(line)
        if size > TABLE_BYTES:
            return


def _parse(line: bytes) -> dict[str, Any] | str:
    """The record that a line holds, or the line where it holds none."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _parse_by_python(line)
    return record if isinstance(record, dict) else _text(line)


def _parse_by_python(line: bytes) -> dict[str, Any] | str:
    """The same by the standard library, which also reads NaN, lone surrogates and numbers of any size."""
    text = _text(line)
    try:
        record = _decode_json(text)
    except (ValueError, RecursionError):
        return text
    return record if isinstance(record, dict) else text


def _is_inexact(value: object) -> bool:
    """Whether a value of orjson's may be, or hold, a whole number that was rounded because it is large."""
    return isinstance(value, (dict, list)) or (isinstance(value, float) and abs(value) >= _LARGE)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


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
    if name == columns.settings.text_column or isinstance(value, (list, dict)):
        raise TypeError
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else json.dumps(value)


def find_lines(stream: pa.NativeFile, targets: Sequence[int]) -> tuple[list[Start], int]:
    """Find the first line that begins at or after each target.

    Args:
        stream: the whole file.
        targets: rising byte positions above 0.

    Returns:
        These, rising and each once (the last may be the file's end), and how many lines are not blank.
    """
    starts: dict[int, Start] = {}
    offset = lines = rows = target = 0
    # Whether the line that goes on from chunk to chunk has more than white space so far.
    filled = False
    while chunk := stream.read(_SCANNED):
        data = np.frombuffer(chunk, np.uint8)
        ends = np.flatnonzero(data == ord("\n")) + 1
        begins = np.concatenate(([0], ends[:-1]))[: len(ends)]
        solid = data[begins] > ord(" ")
        for line in np.flatnonzero(~solid).tolist():
            solid[line] = not chunk[begins[line] : ends[line]].isspace()
        solid[:1] |= filled
        before = rows + np.cumsum(solid)
        while len(ends) and target < len(targets) and offset + ends[-1] >= targets[target]:
            which = int(np.searchsorted(ends, targets[target] - offset))
            start = offset + int(ends[which])
            starts[start] = (start, lines + which + 1, int(before[which]))
            target += 1
        lines += len(ends)
        offset += len(chunk)
        if len(ends):
            rows, filled = int(before[-1]), False
        tail = chunk[ends[-1] if len(ends) else 0 :]
        filled = filled or bool(tail and not tail.isspace())
    return list(starts.values()), rows + filled
