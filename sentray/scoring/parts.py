"""`PartFile`: a Parquet file of the output, written row group by row group; how such files are named and read."""

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from sentray.corpus.rows import QUARANTINE_SCHEMA
from sentray.scoring.stats import Number
from sentray.storage import Folder, Output

SCORES = "scores"
OWN = "_sentray"
ATTEMPTS = f"{OWN}/attempts"
STAGED = f"{OWN}/staged"
QUARANTINED = f"{OWN}/quarantine"
EARLIER_QUARANTINE = QUARANTINE_SCHEMA.remove(QUARANTINE_SCHEMA.get_field_index("detail"))
ROW_GROUP = 122_880
"""Rows of a row group: what DuckDB takes at a time; Spark and Polars split files by row groups too."""
_NULL = "__HIVE_DEFAULT_PARTITION__"


class Part(NamedTuple):
    """A file of the output.

    Attributes:
        name: Within the output folder.
        rows: Rows it holds.
        bytes: Its size.
        sha256: Digest of its content, 64 hexadecimal digits.
    """

    name: str
    rows: Number
    bytes: Number
    sha256: str


def part_name(shard: int, bundle: str, staged: bool = False, partition: str = "") -> str:
    """Name of a file with a shard's scores.

    Args:
        shard: Its index.
        bundle: The bundle's digest.
        staged: Whether the file waits for compaction (`--rows-per-file`).
        partition: Folder that `partition_folder` gives, if any.
    """
    base = f"part-{shard:06d}-{bundle[:12]}.parquet"
    return "/".join(filter(None, (STAGED if staged else SCORES, partition, base)))


def quarantine_name(shard: int) -> str:
    """Name of the file with a shard's rows that were set aside."""
    return f"{QUARANTINED}/{shard:06d}.parquet"


def attempt_name(label: str) -> str:
    """A new name for an attempt to write something."""
    return f"{ATTEMPTS}/{label}-{uuid.uuid4().hex}"


def partition_folder(column: str, value: object) -> str:
    """The folder for a value of the column that the output is partitioned by, as Hive names it.

    Readers give it back as null when the value is null or an empty string.
    """
    text = "" if value is None else str(value)
    return f"{quote(column, safe='')}={quote(text, safe='') or _NULL}"


def partition_of(name: str) -> str:
    """The partition's folder in the name of a file of scores, empty where there is none."""
    root = STAGED if name.startswith(STAGED) else SCORES
    return name[len(root) + 1 :].rpartition("/")[0]


class PartFile:
    """A file of the output, written row group by row group within a `with` block; none where no row comes.

    Args:
        out: The output folder.
        path: What the file is called in it until it is committed.
        name: What it shall be called then.
        schema: Of its rows.
        empty: Whether there is a file even without a row.

    Attributes:
        path: As given.
        rows: Rows added.
        held_bytes: Size of those that wait for their row group.
    """

    def __init__(self, out: Folder, path: str, name: str, schema: pa.Schema, empty: bool = False) -> None:
        self._out, self.path, self._name, self._schema, self._empty = out, path, name, schema, empty
        self._held: list[pa.Table] = []
        self._held_rows = self.held_bytes = self.rows = 0
        self._undo = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self._output: Output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._undo.__exit__(kind, error, trace)
            return
        # What is open makes one sentence of a disk that is full.
        with self._undo:
            if self._held or (self._empty and self._writer is None):
                self.flush()

    @property
    def part(self) -> Part:
        """What the ledger says of it, once it is written."""
        return Part(self._name, self.rows, self._output.bytes, self._output.sha256)

    def add(self, rows: pa.Table) -> None:
        """Append rows."""
        self.rows += rows.num_rows
        while self._held_rows + rows.num_rows >= ROW_GROUP:
            size = ROW_GROUP - self._held_rows
            self._hold(rows.slice(0, size))
            self.flush()
            rows = rows.slice(size)
        if rows.num_rows:
            self._hold(rows)

    def flush(self) -> None:
        """Write what waits as a row group."""
        if self._writer is None:
            self._output = self._undo.enter_context(self._out.create(self.path))
            # A dictionary of values that hardly recur would only be work.
            repeated = [name for name in self._schema.names if not re.fullmatch("id|score.*|positive", name)]
            options: dict[str, Any] = {"compression": "zstd", "use_dictionary": repeated}
            self._writer = self._undo.enter_context(pq.ParquetWriter(self._output, self._schema, **options))
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held), ROW_GROUP)
        self._held, self._held_rows, self.held_bytes = [], 0, 0

    def _hold(self, rows: pa.Table) -> None:
        self._held.append(rows)
        self._held_rows += rows.num_rows
        self.held_bytes += rows.nbytes


@contextmanager
def open_part(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """Open a file of the output.

    Raises:
        SentrayError: When it is gone or damaged, also within the block.
    """
    try:
        with folder.open_file(name) as stream:
            yield pq.ParquetFile(stream)
    except (OSError, pa.ArrowException) as error:
        raise folder.damaged(name, error, "delete it and run the same command again") from error


def read_part(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of a file of the output, all columns where none are named.

    Raises:
        SentrayError: When it is gone or damaged.
    """
    with open_part(folder, name) as file:
        return file.read(columns)


def read_quarantine(folder: Folder, name: str) -> pa.Table:
    """Rows that were set aside, in `QUARANTINE_SCHEMA`; earlier versions wrote them without `detail`.

    Raises:
        SentrayError: When they are gone or damaged.
    """
    rows = read_part(folder, name)
    if rows.schema.equals(EARLIER_QUARANTINE):
        rows = rows.append_column("detail", pa.nulls(rows.num_rows, pa.string()))
    return rows.select(QUARANTINE_SCHEMA.names)
