"""Thrift's compact protocol, in which Parquet writes its footers and the headers of its pages.

Read as Arrow reads it (apache/thrift, doc/specs/thrift-compact-protocol.md), but for what could let Arrow see another
number than is seen here: of a field that occurs twice Arrow takes the last, and it passes over one of another type than
it knows, and over the bits that a number has too many. That is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

BOOL, I32, I64, BINARY = 1, 5, 6, 8
"""Codes of the types of fields."""
_TRUE, _FALSE, _BYTE, _I16, _DOUBLE, _LIST, _SET, _STRUCT = BOOL, 2, 3, 4, 7, 9, 10, 12
_BITS = {I32: 32, I64: 64}
_DEEPEST = 16


class Many(NamedTuple):
    """A list in a structure.

    Attributes:
        of: what it is of: a code, or the fields of a structure.
        bytes: what Arrow takes for an element.
        make: what to make of each.
    """

    of: "int | Fields"
    bytes: int
    make: Callable[[Any], Any] = lambda value: value


Fields = Mapping[int, "int | Many | Fields"]
"""What is known of a structure's fields, by number: a code, a list, or the fields of a structure within. Others are
passed over."""


class TooMuchError(Exception):
    """What is read would take more memory than it may."""


class Compact:
    """Reads structures; one becomes a dictionary of those of its fields that are asked for, by number.

    Args:
        data: what to read.
        room: bytes that the elements of lists may take in Arrow.

    Attributes:
        at: the next byte.
    """

    def __init__(self, data: memoryview, room: int = 0) -> None:
        self._data, self._room, self.at = data, room, 0

    def struct(self, fields: Fields, depth: int = 0) -> dict[int, Any]:
        """The structure that begins here.

        Raises:
            IndexError: it does not end.
            ValueError: it is damaged.
            TooMuchError: its lists would take more than there is room for.
        """
        if depth > _DEEPEST:
            raise ValueError("too deep")
        values: dict[int, Any] = {}
        place = 0
        while kind := (head := self._byte()) & 15:
            place = place + (head >> 4) if head >> 4 else self._signed(16)
            wanted = fields.get(place)
            if place >= 1 << 15 or place in values:
                raise ValueError("a field that is not what Arrow takes it for")
            if wanted is None:
                self._pass(kind, depth)
            else:
                values[place] = self._value(wanted, kind, depth)
        return values

    def _value(self, wanted: "int | Many | Fields", kind: int, depth: int) -> Any:
        if wanted == BOOL and kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind != (wanted if isinstance(wanted, int) else _LIST if isinstance(wanted, Many) else _STRUCT):
            raise ValueError("a field of another type")
        if isinstance(wanted, Many):
            return self._list(wanted, depth)
        if not isinstance(wanted, int):
            return self.struct(wanted, depth + 1)
        return self.take(self.unsigned()) if wanted == BINARY else self._signed(_BITS[wanted])

    def _list(self, wanted: Many, depth: int) -> list[Any]:
        size, kind = self._size()
        self._room -= size * wanted.bytes
        if self._room < 0:
            raise TooMuchError
        return [wanted.make(self._value(wanted.of, kind, depth)) for _ in range(size)]

    def _size(self) -> tuple[int, int]:
        """How many elements a list has, and of what type."""
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self.unsigned()
        if size > len(self._data):
            raise ValueError("a list longer than its file")
        return size, head & 15

    def _pass(self, kind: int, depth: int) -> None:
        if kind in _WIDTHS:
            self.take(_WIDTHS[kind])
        elif kind in (_I16, I32, I64):
            self.unsigned()
        elif kind == BINARY:
            self.take(self.unsigned())
        elif kind == _STRUCT:
            self.struct({}, depth + 1)
        elif kind in (_LIST, _SET) and depth <= _DEEPEST:
            size, kind = self._size()
            for _ in range(size):
                # In a list, unlike in a structure, a truth value has a byte.
                self._pass(_BYTE if kind in (_TRUE, _FALSE) else kind, depth + 1)
        else:
            raise ValueError("a type that Parquet does not use")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def take(self, size: int) -> memoryview:
        """The next bytes.

        Raises:
            IndexError: there are fewer.
        """
        self.at += size
        if self.at > len(self._data):
            raise IndexError(size)
        return self._data[self.at - size : self.at]

    def unsigned(self, bits: int = 64) -> int:
        """The next number, seven bits a byte, the last ones first.

        Raises:
            IndexError: it does not end.
            ValueError: it has more bits.
        """
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                break
        if byte >= 128 or value >> bits:
            raise ValueError("a number of too many bits")
        return value

    def _signed(self, bits: int) -> int:
        value = self.unsigned(bits)
        return (value >> 1) ^ -(value & 1)


_WIDTHS = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8}
