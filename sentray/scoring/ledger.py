"""The output folder of a scoring job: its plan, which shards are committed, and how files get into it.

    scores/part-000017-<digest>.parquet   scores of shard 17 by the bundle whose digest starts so
    quarantine.parquet  summary.json  settings.json
    _sentray/plan.json                    what the job is
    _sentray/quarantine/000017.parquet    the rows of shard 17 that were set aside
    _sentray/committed/000017.json        shard 17 is done; written last

A file appears under its name whole or not at all. What a killed job leaves has a hidden name or no commit
record, and the shard's next attempt writes the same names again: nothing is lost and nothing is there twice.
"""

import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from sentray.errors import SentrayError

SCORES = "scores"
QUARANTINE = "quarantine.parquet"
SUMMARY = "summary.json"
_OWN = "_sentray"
_PLAN = f"{_OWN}/plan.json"
_COMMITTED = f"{_OWN}/committed"
_QUARANTINED = f"{_OWN}/quarantine"
_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{32}")


@dataclass(frozen=True)
class Plan:
    """What a job is: two runs with equal plans write the same files.

    Attributes:
        bundle: Digest of the bundle.
        input: URI of the input, as the user gave it.
        files: Name, size in bytes and time of change (nanoseconds since 1970) of each input file.
        shards: Each shard of the input as JSON values.
        columns: Settings that decide what is read from a row.
        schema: Columns of the output and their types.
    """

    bundle: str
    input: str
    files: list[list[Any]]
    shards: list[dict[str, Any]]
    columns: dict[str, Any]
    schema: dict[str, str]


class Ledger:
    """An output folder, local or on any pyarrow file system; a small value that travels to the workers.

    Args:
        out: Folder or URI.

    Raises:
        SentrayError: When the place cannot be reached.
    """

    def __init__(self, out: str) -> None:
        self.out = out.rstrip("/")
        try:
            if "://" in out:
                self._filesystem, self._root = pafs.FileSystem.from_uri(out.rstrip("/"))
            else:
                self._filesystem, self._root = pafs.LocalFileSystem(), os.path.abspath(out)
        except (pa.ArrowInvalid, OSError) as error:
            raise SentrayError(f"the output {out} cannot be reached: {error}") from error

    def open(self, plan: Plan) -> None:
        """Start the job here, or go on with it.

        Raises:
            SentrayError: When the folder holds another job's output or anything else.
        """
        found = self._read_json(_PLAN)
        if found is not None and not self._names(_COMMITTED) and not self._names(SCORES):
            # Nothing is lost with a plan of which no shard was written.
            self._write_json(_PLAN, asdict(plan))
        elif found is None:
            if names := [name for name in self._names("") if name != _OWN]:
                raise SentrayError(f"{self.out} holds {min(names)}, which is not a scoring job's; choose another --out")
            self._write_json(_PLAN, asdict(plan))
        else:
            self._require_same(found, plan)
        for folder in ("", SCORES, _OWN, _COMMITTED, _QUARANTINED):
            for name in self._names(folder):
                if _HALF_WRITTEN.fullmatch(name):
                    self._filesystem.delete_file(self._path(f"{folder}/{name}"))

    def part(self, shard: int, bundle: str) -> str:
        """Name of the file with a shard's scores, within the output folder."""
        return f"{SCORES}/part-{shard:06d}-{bundle[:12]}.parquet"

    def commit(self, shard: int, record: dict[str, Any]) -> None:
        """Record that a shard's files are all written."""
        self._write_json(f"{_COMMITTED}/{shard:06d}.json", record)

    def committed(self) -> dict[int, dict[str, Any]]:
        """The record of each committed shard whose file of scores is there."""
        parts = set(self._names(SCORES))
        records = {}
        for name in self._names(_COMMITTED):
            record = self._read_json(f"{_COMMITTED}/{name}")
            if record is not None and record["part"].rpartition("/")[2] in parts:
                records[int(record["shard"])] = record
        return records

    def write_quarantine(self, shard: int, content: pa.Buffer) -> None:
        """Keep the rows of a shard that were set aside, as Parquet."""
        self.write(f"{_QUARANTINED}/{shard:06d}.parquet", content)

    def quarantined(self) -> Iterator[pa.NativeFile]:
        """Open the quarantined rows of each shard that has any, in the shards' order."""
        for name in sorted(self._names(_QUARANTINED)):
            with self._filesystem.open_input_file(self._path(f"{_QUARANTINED}/{name}")) as stream:
                yield stream

    def summary(self) -> dict[str, Any] | None:
        """The finished job's summary; None while it is not finished."""
        return self._read_json(SUMMARY)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Mark the job as finished."""
        self._write_json(SUMMARY, summary)

    def write(self, name: str, content: pa.Buffer | bytes) -> None:
        """Put a file into the folder, whole or not at all; one of that name is replaced.

        Raises:
            SentrayError: When the file system refuses, for instance because it is full.
        """
        folder, _, base = name.rpartition("/")
        try:
            if not isinstance(self._filesystem, pafs.LocalFileSystem):
                # An object appears when its upload is complete: a plain write is already whole or not at all.
                self._put(name, content)
                return
            self._filesystem.create_dir(self._path(folder))
            hidden = f"{folder}/.{base}.{uuid.uuid4().hex}".lstrip("/")
            self._put(hidden, content)
            self._filesystem.move(self._path(hidden), self._path(name))
        except OSError as error:
            raise SentrayError(
                f"{self.out}/{name} cannot be written ({error}); make room or check the permissions, "
                "then run the same command again to go on"
            ) from error

    def _put(self, name: str, content: pa.Buffer | bytes) -> None:
        with self._filesystem.open_output_stream(self._path(name)) as stream:
            stream.write(content)

    def _require_same(self, found: dict[str, Any], plan: Plan) -> None:
        cure = "choose another --out, or remove it"
        if found.get("bundle") != plan.bundle:
            raise SentrayError(
                f"{self.out} was made by another bundle ({str(found.get('bundle'))[:12]}, this one is "
                f"{plan.bundle[:12]}); {cure}"
            )
        if found.get("input") != plan.input or found.get("files") != plan.files:
            changed = _first_change(found.get("files", []), plan.files)
            raise SentrayError(
                f"{self.out} was made from the input {found.get('input')}, and {plan.input} is not the same "
                f"now{changed}; {cure}"
            )
        if found != json.loads(json.dumps(asdict(plan))):
            raise SentrayError(f"{self.out} was made with other columns or another --shard-size; {cure}")

    def _names(self, folder: str) -> list[str]:
        selector = pafs.FileSelector(self._path(folder), allow_not_found=True)
        try:
            return [info.base_name for info in self._filesystem.get_file_info(selector)]
        except OSError as error:
            raise SentrayError(f"{self.out} cannot be read ({error}); choose another --out") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        self.write(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def _read_json(self, name: str) -> dict[str, Any] | None:
        try:
            with self._filesystem.open_input_file(self._path(name)) as stream:
                value: dict[str, Any] = json.loads(bytes(stream.readall()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SentrayError(f"{self.out}/{name} cannot be read ({error}); choose another --out") from error
        return value


def _first_change(before: list[list[Any]], now: list[list[Any]]) -> str:
    old, new = ({name: facts for name, *facts in files} for files in (before, now))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            return f" ({name} is gone)"
        if name not in old:
            return f" ({name} is new)"
        if old[name] != new[name]:
            return f" ({name} has changed)"
    return ""
