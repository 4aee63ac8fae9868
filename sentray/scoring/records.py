"""What the ledger holds: a line for each committed shard, and one for each file that shards were gathered in."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

_PART = re.compile(r"(?:scores|_sentray/staged)/(?:[\w.~%-]+=[\w.~%-]+/)?part-\d{6,}-[0-9a-f]{12}\.parquet", re.ASCII)
_QUARANTINED = re.compile(r"_sentray/quarantine/\d{6,}\.parquet", re.ASCII)
"""Names that sentray gives: what a ledger names is read, and deleted when it has to be written anew."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
HISTOGRAM_BINS = 20


@contextmanager
def _parsing() -> Iterator[None]:
    """Turn whatever a line of other content raises into a ValueError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"it holds a line that is no record ({error})") from error


def _number(value: Any) -> int:
    """A count as JSON has it.

    Raises:
        ValueError: When it is none.
    """
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError("a number is none")
    return value


def _require_counts(counts: Any) -> None:
    """Refuse counts that cannot be added up.

    Raises:
        ValueError: When one has the wrong type.
    """
    for name, value in counts.items():
        if name in ("quarantined", "labels"):
            list(map(_number, value.values()))
        elif name == "histogram":
            if len(list(map(_number, value))) != HISTOGRAM_BINS:
                raise ValueError("a histogram has another number of bins")
        elif not (type(value) is float and math.isfinite(value) and value >= 0):
            _number(value)


class Part(NamedTuple):
    """A file of the output.

    Attributes:
        name: Within the output folder.
        rows: Rows it holds.
        bytes: Its size.
        sha256: Digest of its content, 64 hexadecimal digits.
    """

    name: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def from_json(cls, values: Any, names: re.Pattern[str]) -> Self:
        """The part that a record holds as JSON.

        Raises:
            ValueError: When it is none, or has another name than sentray gives.
        """
        name, rows, size, digest = values
        if not names.fullmatch(name) or not _SHA256.fullmatch(digest):
            raise ValueError(f"no file has the name {name[:100]!r} or such a digest")
        return cls(name, _number(rows), _number(size), digest)


class Record(NamedTuple):
    """A committed shard.

    Attributes:
        shard: Index in the plan.
        parts: Files with its scores: one, or one a value with `--partition-by`.
        quarantine: File with its rows that were set aside, where there are any.
        counts: JSON values; `rows` (those read), `scored` and `quarantined` (rows by reason) among them.
    """

    shard: int
    parts: tuple[Part, ...]
    quarantine: Part | None
    counts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values; `from_json` brings it back."""
        return self._asdict()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The record that `to_json` made.

        Raises:
            ValueError: When the values are no record.
        """
        with _parsing():
            shard, quarantine, counts = _number(values["shard"]), values["quarantine"], values["counts"]
            if not {"rows", "scored", "quarantined"} <= counts.keys():
                raise KeyError("counts")
            _require_counts(counts)
            parts = tuple(Part.from_json(part, _PART) for part in values["parts"])
            return cls(shard, parts, Part.from_json(quarantine, _QUARANTINED) if quarantine else None, counts)


class Gathered(NamedTuple):
    """A published file that holds the scores of several shards.

    Attributes:
        part: The file.
        members: Shard and rows of each staged part in it, in the order of its rows.
    """

    part: Part
    members: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values; `from_json` brings it back."""
        return self._asdict()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The record that `to_json` made.

        Raises:
            ValueError: When the values are no record.
        """
        with _parsing():
            members = [[_number(shard), _number(rows)] for shard, rows in values["members"]]
            if not members:
                raise KeyError("members")
            return cls(Part.from_json(values["part"], _PART), members)


@dataclass(frozen=True)
class Header:
    """What a job is: two runs with equal headers and equal input write the same files.

    Attributes:
        bundle: Digest of the bundle.
        engine: Name of the engine; another one's scores differ in their last digits.
        input: URI of the input, as the user gave it.
        shard_size: Aimed-at size of a shard in bytes.
        columns: Settings that decide what is read from a row: `text`, `id` and `keep`.
        schema: Columns of a file of scores and their types, as Arrow writes them.
        rows_per_file: Rows that published files aim at; None where each shard's file is published as it is.
        partition_by: Column whose values become folders; it is not in `schema`.
    """

    bundle: str
    engine: str
    input: str
    shard_size: int
    columns: dict[str, Any]
    schema: dict[str, str]
    rows_per_file: int | None = None
    partition_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The header as JSON values."""
        return asdict(self)
