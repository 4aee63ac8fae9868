"""What a Parquet file's footer says, read before Arrow reads it.

A footer may come from a stranger, and Arrow makes hundreds of bytes of a few of its own; a damaged one ends the process
(pyarrow 26) where more is asked of it than a schema. So it is bounded here first, and the planning of shards, which is
the driver's, needs no more than is read here.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sentray.corpus.compact import BINARY, I32, I64, Compact, Fields, Many, TooMuchError
from sentray.corpus.limits import MAX_FOOTER_BYTES
from sentray.errors import SentrayError

BYTES, FIXED_BYTES = 6, 7
"""Parquet's types of strings and bytes, and of bytes of a fixed length."""
_REPEATED = 2
_REPETITIONS = {0: 0, 1: 1, 2: _REPEATED}
_DEEPEST = 64
# Names of nested columns repeat those that they are in: pyarrow makes all of these.
_MAX_NAMES = 1 << 24


class Leaf(NamedTuple):
    """A column without columns in it, as the schema has it.

    Attributes:
        path: its name; in a nested column all names on the way, parted by points.
        nested: whether it is in another, or a list.
        kind: Parquet's type.
        length: bytes of each value, where the type is `FIXED_BYTES`.
        levels: of how many kinds its pages have levels: none, those that say which values are null, or also those that
            say which belong to one list.
    """

    path: str
    nested: bool
    kind: int
    length: int
    levels: int

    @property
    def repeated(self) -> bool:
        """Whether a row may have several of its values."""
        return self.levels == _REPEATED

    def of(self, name: str) -> bool:
        """Whether Arrow reads it for a column of that name."""
        return self.path == name or self.path.startswith(name + ".")


class Column(NamedTuple):
    """What a leaf has in a row group.

    Attributes:
        codec: how its pages are compressed.
        values: how many it has.
        start: first byte in the file.
        end: where it ends.
    """

    codec: int
    values: int
    start: int
    end: int


class RowGroup(NamedTuple):
    """A part of a file's rows.

    Attributes:
        rows: how many it has.
        bytes: of all its values, decompressed.
        columns: those of the leaves, in the same order: names and types that are repeated here, Arrow does not read.
    """

    rows: int
    bytes: int
    columns: tuple[Column, ...]


class Footer(NamedTuple):
    """What is in a file.

    Attributes:
        names: of the columns.
        leaves: of these columns.
        groups: the row groups.
    """

    names: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    groups: tuple[RowGroup, ...]


def read_footer(stream: Any, path: str, size: int) -> Footer:
    """A file's footer, which Arrow then reads in bounded memory.

    Args:
        stream: the file; takes `read_at(size, start)`.
        path: of the file, for messages.
        size: of the file.

    Raises:
        SentrayError: the footer is damaged or too large.
    """
    try:
        end = bytes(stream.read_at(min(size, 8), max(0, size - 8)))
        length = int.from_bytes(end[:4], "little")
        if end[4:] != b"PAR1" or length > size - 8:
            raise ValueError("no footer")
        if length > MAX_FOOTER_BYTES:
            raise TooMuchError
        return _footer(bytes(stream.read_at(length, size - 8 - length)), size)
    except TooMuchError as error:
        raise SentrayError(
            f"{path} has a footer that would take more than {MAX_FOOTER_BYTES:,} bytes: write the file with fewer "
            "columns or larger row groups, or split it"
        ) from error
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged(path, "footer") from error


def damaged(path: str, what: str) -> SentrayError:
    """The sentence for a file of which something is not as Parquet has it."""
    return SentrayError(f"{path} cannot be read (the {what} is damaged or encrypted): replace it or leave it out")


@lru_cache(maxsize=1)
def _footer(content: bytes, size: int) -> Footer:
    """A footer, which is read for each part of its file."""
    values = Compact(memoryview(content), MAX_FOOTER_BYTES - len(content)).struct(_FILE)
    names, leaves = _schema(values[2])
    groups = tuple(values[4])
    if any(len(group.columns) != len(leaves) for group in groups):
        raise ValueError("not a column for each leaf")
    columns = [column for group in groups for column in group.columns]
    if sum(column.end - column.start for column in columns) > size or any(column.end > size for column in columns):
        raise ValueError("columns larger than the file")
    return Footer(names, leaves, groups)


def _schema(elements: Sequence[tuple[str, int | None, int, int, int]]) -> tuple[tuple[str, ...], tuple[Leaf, ...]]:
    """Names and leaves of columns, which stand one after the other, each before what is in it."""
    room, leaves, names = _MAX_NAMES, [], []
    # Of each column on the way here: how many columns are still to come in it, its path, and the kinds of its levels.
    lacking, way = [elements[0][4]], [("", 0)]
    for name, kind, length, repetition, children in elements[1:]:
        while lacking and not lacking[-1]:
            lacking.pop()
            way.pop()
        if not lacking:
            break
        lacking[-1] -= 1
        parent, levels = way[-1]
        nested, levels = len(way) > 1, max(levels, _REPETITIONS[repetition])
        path = f"{parent}.{name}" if nested else name
        room -= len(path)
        if room < 0 or len(way) > _DEEPEST:
            raise TooMuchError
        if not nested:
            names.append(name)
        if children or kind is None:
            lacking.append(children)
            way.append((path, levels))
        else:
            leaves.append(Leaf(path, nested or levels == _REPEATED, kind, length, levels))
    if any(lacking):
        raise ValueError("a schema without its end")
    return tuple(names), tuple(leaves)


def _element(values: dict[int, Any]) -> tuple[str, int | None, int, int, int]:
    name = bytes(values[4]).decode(errors="replace")
    return name, values.get(1), _count(values.get(2, 0)), values.get(3, 0), _count(values.get(5, 0))


def _row_group(values: dict[int, Any]) -> RowGroup:
    return RowGroup(_count(values[3]), _count(values[2]), tuple(values[1]))


def _column(values: dict[int, Any]) -> Column:
    about = values[3]
    start, dictionary = _count(about[9]), _count(about.get(11, 0))
    start = dictionary if 0 < dictionary < start else start
    return Column(about[4], _count(about[5]), start, start + _count(about[7]))


def _count(value: int) -> int:
    if not 0 <= value < 1 << 62:
        raise ValueError("no count")
    return value


# Arrow believes a list to be of what it should be, whatever it says it is of: so all lists are here (parquet.thrift).
# It takes 640 bytes for an empty column chunk and 1,600 for a leaf of the schema; pyarrow takes more for its name.
_KEY_VALUES = Many({}, 80)
_CHUNK: Fields = {
    2: Many(I32, 4),
    3: Many(BINARY, 32),
    4: I32,
    5: I64,
    7: I64,
    8: _KEY_VALUES,
    9: I64,
    11: I64,
    13: Many({}, 32),
    16: {2: Many(I64, 8), 3: Many(I64, 8)},
    17: {2: Many(I32, 4)},
}
_COLUMN: Fields = {3: _CHUNK, 8: {2: {1: Many(BINARY, 32)}}}
_GROUP: Fields = {1: Many(_COLUMN, 700, _column), 2: I64, 3: I64, 4: Many({}, 32)}
_ELEMENT: Fields = {1: I32, 2: I32, 3: I32, 4: BINARY, 5: I32}
_FILE: Fields = {2: Many(_ELEMENT, 2000, _element), 4: Many(_GROUP, 150, _row_group), 5: _KEY_VALUES, 7: Many({}, 50)}
