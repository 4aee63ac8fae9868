"""JSON: the rows of a file. A row is a line, or, where the file is one array, an element of it.

An absent key is null, an absent id the position. A column may be a path into objects, such as `review.body`.
"""

import itertools
import json
from collections.abc import Container, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import fs

from sentray.config import CorpusSettings
from sentray.corpus import limits, records
from sentray.corpus.records import LINES, Dialect, Records, Window, open_windows, read_records
from sentray.corpus.rows import TABLE_ROWS, Block, Broken, Columns, Reason
from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import Part, Piece
from sentray.errors import SentrayError
from sentray.text.simd import compiled

_HEAD = 256
"""Records from whose keys the columns of a file are known."""
_ABSENT: Any = object()
_decode_json = json.JSONDecoder().decode
# Whole numbers from here on are rounded by orjson.
_LARGE = 2.0**63


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a piece; see `sentray.corpus.readers`.

    Raises:
        SentrayError: the first records have no key that the run needs, or the file is an array that is damaged.
    """
    head, window = open_windows(source, piece, columns.settings.encoding)
    in_array = _pass_bracket(head)
    records_of = partial(_read_elements, path=piece.path) if in_array else partial(read_records, dialect=LINES)
    first = next(found := records_of(head), None)
    if first is None:
        return
    # The same ones, however much is read at once.
    count = max(1, min(_HEAD, int(np.searchsorted(first.ends, records.HEAD, "right"))))
    known = [_parse(line) for index, line in enumerate(_lines(first, head)[:count]) if index not in first.broken]
    keys = dict.fromkeys(key for record in known for key in _paths(record or {}))
    if keys:
        columns.choose(list(keys), piece.path)
    fields = _Fields(columns, piece.name)
    for some in itertools.chain([first], found) if head is window else records_of(window):
        rows, broken = some.positions + piece.row + 1, dict(some.broken)
        values, damage = list[list[Any]](), None
        for index, (number, line) in enumerate(zip(rows.tolist(), _lines(some, window), strict=True)):
            row: list[Any] = [None] * len(fields.names)
            if index not in broken:
                try:
                    row = fields.of(line, number)
                # What can be parsed may be nested too deeply to be written.
                except (TypeError, RecursionError) as error:
                    if in_array and not _is_json(line):
                        damage, rows = _damaged(piece.path, number), rows[:index]
                        break
                    broken[index] = Broken(Reason.INVALID_RECORD, limits.excerpt(bytes(line).strip()), str(error))
            values.append(row)
        if values:
            yield Block(piece.name, rows, fields.arrays(values, keys), broken, all_text=True)
        if damage is not None:
            raise damage


def _lines(some: Records, window: Window) -> list[memoryview]:
    """The bytes of records that were just read, with the ends of their lines; not of one that is too long."""
    data = memoryview(window.data)  # type: ignore[arg-type]
    starts, ends = ((bounds - window.offset).tolist() for bounds in (some.starts, some.ends))
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def cut(
    filesystem: fs.FileSystem, files: Sequence[SourceFile], size: int, settings: CorpusSettings
) -> list[list[Part]]:
    """Byte ranges of whole lines of each file; none of a file that is one array."""

    def begin(window: Window, path: str) -> tuple[Dialect, int, list[int]]:
        if _pass_bracket(window):
            raise SentrayError(f"{path} is one JSON array")
        return LINES, 0, []

    return records.cut(filesystem, files, size, settings.encoding, begin)


# --- One array


def _pass_bracket(window: Window) -> bool:
    """Whether a file is one array; then the bytes that follow its bracket are next."""
    begins = window.peek(_HEAD)
    is_array = begins.lstrip().startswith(b"[")
    if is_array:
        window.at += begins.index(b"[") + 1
    return is_array


def _read_elements(window: Window, path: str) -> Iterator[Records]:
    """Take an array apart into its elements, so many at a time; memory stays bounded.

    Raises:
        SentrayError: a bracket or quote is not closed, an element is longer than a row may be, or something follows
            the array.
    """
    spans, closed, last = np.empty((TABLE_ROWS, 2), np.int64), False, False
    while not closed:
        found, window.at, closed = _elements(window.data, window.at, window.size, spans)
        if closed and found and not window.data[spans[found - 1, 0] : spans[found - 1, 1]].tobytes().strip():
            # Behind a last comma, or of an empty array.
            found -= 1
        if found:
            starts, ends = spans[:found].T + window.offset
            yield Records(starts, ends, window.passed + np.arange(found), np.ones(found, int), [], {})
            window.passed += found
        elif not closed:
            if window.final or window.size - window.at > limits.MAX_ROW_BYTES:
                raise _damaged(path, window.passed + 1)
            window.read()
    while not last:
        if window.data[window.at : window.size].tobytes().strip():
            raise SentrayError(f"{path} goes on behind its JSON array: write one object a line (JSON Lines) instead")
        window.at, last = window.size, window.final
        window.read()


def _damaged(path: str, row: int) -> SentrayError:
    return SentrayError(
        f"{path} is one JSON array that cannot be read from its element {row:,} on (is it cut off, or a quote or "
        "bracket not closed?): replace it, or leave it out"
    )


@compiled
def _elements(data: Any, at: int, size: int, spans: Any) -> Any:
    """Find elements of an array from `at` on that end before `size`.

    Args:
        data: the bytes.
        at: where an element begins.
        size: where the bytes end.
        spans: receives start and end of each.

    Returns:
        How many were found, where the first byte behind them is, and whether the array ends there.
    """
    found, depth, inside, escaped = 0, 0, False, False
    for index in range(at, size):
        byte = data[index]
        if inside:
            if escaped:
                escaped = False
            elif byte == 92:
                escaped = True
            elif byte == 34:
                inside = False
        elif byte == 34:
            inside = True
        elif byte == 91 or byte == 123:
            depth += 1
        elif depth and (byte == 93 or byte == 125):
            depth -= 1
        elif not depth and (byte == 44 or byte == 93):
            spans[found, 0], spans[found, 1] = at, index
            found, at = found + 1, index + 1
            if byte == 93 or found == len(spans):
                return found, at, byte == 93
    return found, at, False


# --- What a record holds


class _Fields:
    """The columns that are read of each record.

    Args:
        columns: which the run wants.
        file: the name of the file, of which an absent id is made.

    Attributes:
        names: of the columns.
    """

    def __init__(self, columns: Columns, file: str) -> None:
        roles = {columns.name(role): role for role in columns.roles}
        self._kinds = dict.fromkeys(columns.further, "keep") | roles
        self._file, self._makes_ids = file, not columns.ids_only
        self.names = list(self._kinds)
        self._has_paths = any("." in name for name in self.names)

    def of(self, line: memoryview, row: int) -> list[Any]:
        """What a line holds in each.

        Raises:
            TypeError: the line is no record, or holds what cannot be there.
            RecursionError: it is nested too deeply.
        """
        if (record := _parse(line)) is None:
            raise TypeError("no JSON object")
        values = self._values(record)
        # Most are strings, and a call for each would take a tenth more time.
        if [value for value in values if type(value) is not str and _is_inexact(value)]:
            if (record := _parse_by_python(line)) is None:
                raise TypeError("it is nested too deeply")
            values = self._values(record)
        return [
            value if type(value) is str else self._text(value, kind, row)
            for value, kind in zip(values, self._kinds.values(), strict=True)
        ]

    def _values(self, record: dict[str, Any]) -> list[Any]:
        if self._has_paths:
            return [_get(record, name) for name in self.names]
        return [record.get(name, _ABSENT) for name in self.names]

    def arrays(self, values: list[list[Any]], keys: Container[str]) -> dict[str, pa.Array]:
        """The columns of rows, without those that neither the file's first records nor these have."""
        columns = dict(zip(self.names, zip(*values, strict=True), strict=True))
        return {
            name: _strings(column)
            for name, column in columns.items()
            if name in keys or any(value is not None for value in column)
        }

    def _text(self, value: Any, kind: str, row: int) -> Any:
        """A JSON value as a column of a kind holds it: a string, or a list of them where a label is a list.

        Raises:
            TypeError: the value cannot be what its column is for, such as an object as a label.
        """
        if isinstance(value, str):
            return value
        if value is _ABSENT:
            return f"{self._file}:{row}" if kind == "id" and self._makes_ids else None
        # Python writes a gap in a table as NaN.
        if value is None or value != value:
            return None
        if kind == "keep":
            return json.dumps(value, ensure_ascii=False)
        if kind == "text":
            if isinstance(value, list) and all(isinstance(each, str) for each in value):
                return " ".join(value)
            raise TypeError(f"the text is {_called(value)}")
        if kind == "label" and isinstance(value, list):
            # No list within the list.
            return [self._text(each, "label in a list", row) for each in value]
        if isinstance(value, (list, dict)):
            raise TypeError(f"the {kind} is {_called(value)}")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value) if type(value) is int else json.dumps(value)


def _called(value: Any) -> str:
    if isinstance(value, list):
        return "a list of other things than strings"
    return "an object" if isinstance(value, dict) else "true or false" if isinstance(value, bool) else "a number"


def _get(record: dict[str, Any], name: str) -> Any:
    """The value of a key, or at a path; a key that holds a dot itself comes first."""
    if name in record or "." not in name:
        return record.get(name, _ABSENT)
    key, _, rest = name.partition(".")
    inner = record.get(key)
    return _get(inner, rest) if isinstance(inner, dict) else _ABSENT


def _paths(record: dict[str, Any], depth: int = limits.MAX_DEPTH) -> Iterator[str]:
    """The keys of a record, each followed by the paths to what it holds."""
    for key, value in record.items():
        yield key
        if depth and isinstance(value, dict):
            yield from (f"{key}.{path}" for path in _paths(value, depth - 1))


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


def _is_json(line: memoryview) -> bool:
    """Whether a line is valid JSON, of whatever kind."""
    try:
        _decode_json(bytes(line).decode("utf-8", "surrogateescape"))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _is_inexact(value: object) -> bool:
    """Whether a value of orjson's may be, or hold, a whole number that was rounded because it is large."""
    if isinstance(value, list):
        return not all(isinstance(each, str) for each in value)
    return isinstance(value, dict) or (isinstance(value, float) and abs(value) >= _LARGE)


def _strings(values: tuple[Any, ...]) -> pa.Array:
    """Texts as an array: of strings, or of bytes where one of them holds surrogates; of lists where one is a list."""
    if list in map(type, values):
        lists = [value if value is None or isinstance(value, list) else [value] for value in values]
        inner = _strings(tuple(each for value in lists if value for each in value))
        ends = np.cumsum([0, *(len(value or ()) for value in lists)])
        return pa.LargeListArray.from_arrays(ends, inner, mask=pa.array([value is None for value in lists]))
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
