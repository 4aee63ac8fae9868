"""The rows of a shard until all of it is scored: few in memory, many in a temporary file that is mapped into it."""

import tempfile
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import pyarrow as pa

MOST_BYTES = 1 << 27
"""What is held in memory; a shard of plain text gives a tenth of it, a compressed file may give any amount."""


class Held:
    """Tables that are added one by one and taken together, within a `with` block.

    Args:
        schema: Of all of them.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._tables, self._bytes = schema, [schema.empty_table()], 0
        self._undo = ExitStack()
        self._file: pa.NativeFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tables = []
        self._undo.close()

    def add(self, table: pa.Table) -> None:
        """Hold further rows.

        Raises:
            OSError: When the disk is full.
        """
        self._tables.append(table)
        self._bytes += table.nbytes
        if self._bytes > MOST_BYTES:
            self._write()

    def table(self) -> pa.Table:
        """All rows, in the order in which they came; valid within the block."""
        if self._file is None:
            return pa.concat_tables(self._tables)
        self._write()
        self._writer.close()
        mapped = self._undo.enter_context(pa.memory_map(self._name))
        return pa.ipc.open_file(mapped).read_all()

    def _write(self) -> None:
        if self._file is None:
            folder = self._undo.enter_context(tempfile.TemporaryDirectory(prefix="sentray-rows-"))
            self._name = f"{folder}/rows.arrow"
            self._file = self._undo.enter_context(pa.OSFile(self._name, "wb"))
            self._writer = self._undo.enter_context(pa.ipc.new_file(self._file, self._schema))
        self._writer.write_table(pa.concat_tables(self._tables))
        self._tables, self._bytes = [self._schema.empty_table()], 0
