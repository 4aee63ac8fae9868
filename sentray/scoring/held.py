"""The rows of a shard until all of it is scored: few in memory, many in a temporary file that is mapped into it."""

import contextlib
import mmap
import socket
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

import pyarrow as pa

from sentray.errors import SentrayError
from sentray.storage import first_line

MAX_BYTES = 1 << 27
"""What is held in memory; a shard of plain text gives a tenth of it, a compressed file may give any amount."""


class Held:
    """Tables that are added one by one and taken together, within a `with` block.

    Args:
        schema: Of all of them.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._tables, self._bytes = schema, [schema.empty_table()], 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tables = []
        # What a full disk did not take is not wanted any more.
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()

    def add(self, table: pa.Table) -> None:
        """Hold further rows.

        Raises:
            SentrayError: When the temporary folder cannot hold them.
        """
        self._tables.append(table)
        self._bytes += table.nbytes
        if self._bytes > MAX_BYTES:
            self._write()

    def table(self) -> pa.Table:
        """All rows, in the order in which they came.

        Raises:
            SentrayError: When the temporary folder cannot hold them.
        """
        if self._file is None:
            return pa.concat_tables(self._tables)
        self._write()
        with _temporary():
            self._writer.close()
            self._file.flush()
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()

    def _write(self) -> None:
        with _temporary():
            if self._file is None:
                # Without a name: nothing is left of it on the node when the process is killed.
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                self._writer = pa.ipc.new_file(self._file, self._schema)
            self._writer.write_table(pa.concat_tables(self._tables))
        self._tables, self._bytes = [self._schema.empty_table()], 0


@contextlib.contextmanager
def _temporary() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SentrayError(
            f"the rows of a shard do not go into {tempfile.tempdir or 'a temporary folder'} of {socket.gethostname()} "
            f"({first_line(error)}); make room there, or start Ray with TMPDIR set to a larger folder, then run the "
            "same command again to go on"
        ) from error
