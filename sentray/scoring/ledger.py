"""The output folder of a scoring job: its plan, which shards are committed, and how files get into it.

    scores/part-000017-<digest>.parquet   scores of shard 17 by the bundle whose digest starts so
    scores/COLUMN=value/part-…            the same with --partition-by
    quarantine.parquet  summary.json  settings.json
    _sentray/plan.json                    what the job is, and which generation of its plan counts
    _sentray/plan-000001.parquet          the shards; files-000001.parquet: the input's files as they were
    _sentray/ledger/000000-….jsonl        a line for each committed shard: its files, their digests, its counts
    _sentray/quarantine/000017.parquet    the rows of shard 17 that were set aside
    _sentray/staged/part-…                scores that wait to be gathered, with --rows-per-file
    _sentray/gathered/000000-….jsonl      a line for each file that shards were gathered in
    _sentray/lease.json                   who works here now

A file appears under its name whole or not at all, and counts once a line names it. What a killed job leaves has a
hidden name or no line; the next start removes it. A shard's next attempt writes the same names again: nothing is lost
and nothing is there twice.
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from sentray.corpus.rows import QUARANTINE_FILE as QUARANTINE
from sentray.corpus.source import Source
from sentray.errors import SentrayError
from sentray.lease import Lease
from sentray.scoring import plans
from sentray.scoring.plans import OWN, Stored
from sentray.scoring.records import Gathered, Header, Part, Record
from sentray.scoring.segments import CURE, CommitLog, merge, named_files, newest_first
from sentray.storage import HALF_WRITTEN, Folder

if TYPE_CHECKING:
    from sentray.corpus.splits import ShardPlan

__all__ = ["QUARANTINE", "SCORES", "SUMMARY", "CommitLog", "Gathered", "Header", "Ledger", "Part", "Record"]

SCORES = "scores"
SUMMARY = "summary.json"
STAGED = f"{OWN}/staged"
LEASE = f"{OWN}/lease.json"
_COMMITTED = f"{OWN}/ledger"
_GATHERED = f"{OWN}/gathered"
_QUARANTINED = f"{OWN}/quarantine"
Sizes = dict[str, int]
"""Names of files within the output folder, and their bytes."""
_AGAIN = "delete it and run the same command again"
_TOTALS = ("rows", "rows_scored", "rows_quarantined")
_NULL = "__HIVE_DEFAULT_PARTITION__"


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How files of the output are written; a dictionary of values that hardly recur would only be work."""
    repeated = [name for name in schema.names if name not in ("id", "score", "positive")]
    return {"compression": "zstd", "use_dictionary": repeated}


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


class Ledger(Folder):
    """An output folder, local or on any pyarrow file system; a small value that travels to the workers."""

    def lease(self) -> Lease:
        """Keep other runs out, for the length of a `with` block; take it before `open`.

        Raises:
            SentrayError: When the folder is another's, or another run works in it.
        """
        if plans.load(self) is None:
            self._require_free()
        return Lease(self, LEASE)

    def open(self, header: Header, source: Source, new_input: bool = False) -> "ShardPlan":
        """Start the job here, or go on with it: then the stored plan is used and nothing is planned anew.

        Args:
            header: What the job is.
            source: Its input as it is now.
            new_input: Add files to the plan that were not there before.

        Returns:
            The plan.

        Raises:
            SentrayError: When the folder holds another job's output or anything else, or the input changed.
        """
        stored = plans.load(self)
        if stored is None:
            self._require_free()
        # Nothing is lost with a plan of which no shard was written.
        if stored is None or not any(self.names(folder) for folder in (_COMMITTED, SCORES, STAGED)):
            plan = plans.start(self, header, source, generation=stored.generation + 1 if stored else 1)
        else:
            plans.require_same(self, stored, header)
            plan = plans.resume(self, stored, source, new_input)
        for log in (_COMMITTED, _GATHERED):
            merge(self, log)
        self.clean(header.bundle)
        return plan

    def stored(self) -> Stored:
        """What the job is, as the folder says.

        Raises:
            SentrayError: When the folder is no scoring job's.
        """
        stored = plans.load(self)
        if stored is None:
            raise SentrayError(f"{self.out} is not the output of a scoring job; give the folder that --out named")
        return stored

    def part_name(self, shard: int, bundle: str, staged: bool = False, partition: str = "") -> str:
        """Name of a file with a shard's scores.

        Args:
            shard: Its index.
            bundle: The bundle's digest.
            staged: Whether the file waits to be gathered (`--rows-per-file`).
            partition: Folder that `partition_folder` gives, if any.
        """
        base = f"part-{shard:06d}-{bundle[:12]}.parquet"
        return "/".join(filter(None, (STAGED if staged else SCORES, partition, base)))

    def quarantine_name(self, shard: int) -> str:
        """Name of the file with a shard's rows that were set aside."""
        return f"{_QUARANTINED}/{shard:06d}.parquet"

    def commits(self, check: Callable[[], None] = lambda: None) -> CommitLog:
        """The log that takes the records of committed shards; `check` as in `CommitLog`."""
        return CommitLog(self, _COMMITTED, check=check)

    def gatherings(self, check: Callable[[], None] = lambda: None) -> CommitLog:
        """The log that takes what was gathered; `check` as in `CommitLog`."""
        return CommitLog(self, _GATHERED, check=check)

    def files(self) -> Sizes:
        """Names and bytes of all files of scores and of quarantined rows that are there, hidden ones too."""
        return self.sizes(SCORES) | self.sizes(STAGED) | self.sizes(_QUARANTINED)

    def records(self, there: Sizes | None = None) -> Iterator[Record]:
        """The record of each committed shard whose files are there and as large as recorded, in no order.

        Args:
            there: What `files` gave, if it was asked before.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        there = self.files() if there is None else there
        published = self.published(there)
        for record in self.recorded():
            if record.quarantine and there.get(record.quarantine.name) != record.quarantine.bytes:
                continue
            if all(
                there.get(part.name) == part.bytes
                or ((bits := published.get(partition_of(part.name))) and bits[record.shard])
                for part in record.parts
            ):
                yield record

    def recorded(self) -> Iterator[Record]:
        """The last record of each shard, whether or not its files are there, in no order.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        seen = bytearray(self.stored().shards)
        for record in newest_first(self, _COMMITTED, Record.from_json):
            if record.shard >= len(seen):
                raise self.damaged(_COMMITTED, IndexError(f"there is no shard {record.shard} in the plan"), CURE)
            if not seen[record.shard]:
                seen[record.shard] = 1
                yield record

    def gathered(self, there: Sizes | None = None) -> Iterator[Gathered]:
        """The files that shards were gathered in and that are there, as large as recorded, in no order.

        Args:
            there: What `files` gave, if it was asked before.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        there = self.files() if there is None else there
        return (found for found in self.recorded_gathered() if there.get(found.part.name) == found.part.bytes)

    def recorded_gathered(self) -> Iterator[Gathered]:
        """The last record of each gathered file, whether or not it is there, in no order.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        shards, seen = self.stored().shards, set[str]()
        for gathered in newest_first(self, _GATHERED, Gathered.from_json):
            if (last := max(shard for shard, _ in gathered.members)) >= shards:
                raise self.damaged(_GATHERED, IndexError(f"there is no shard {last} in the plan"), CURE)
            if gathered.part.name not in seen:
                seen.add(gathered.part.name)
                yield gathered

    def published(self, there: Sizes | None = None) -> dict[str, bytearray]:
        """For each partition and each shard of the plan, 1 where its scores are in a gathered file that is there.

        Args:
            there: What `files` gave, if it was asked before.
        """
        shards = self.stored().shards
        found: dict[str, bytearray] = {}
        for gathered in self.gathered(there):
            of_partition = found.setdefault(partition_of(gathered.part.name), bytearray(shards))
            for shard, _ in gathered.members:
                of_partition[shard] = 1
        return found

    def summary(self) -> dict[str, Any] | None:
        """The finished job's summary; None while it is not finished.

        Raises:
            SentrayError: When it is damaged.
        """
        summary = self.read_json(SUMMARY, _AGAIN)
        if summary is not None and any(type(summary.get(name)) is not int for name in _TOTALS):
            raise self.damaged(SUMMARY, ValueError("it does not count the rows"), _AGAIN)
        return summary

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Mark the job as finished."""
        self.write_json(SUMMARY, summary)

    def _require_free(self) -> None:
        if names := [name for name in self.names() if name != OWN]:
            raise SentrayError(f"{self.out} holds {min(names)}, which is not a scoring job's; choose another --out")

    def clean(self, bundle: str) -> None:
        """Remove what killed processes left: half-written files, and whole ones that no line names.

        Nothing may be at work in the folder.
        """
        left = set(self.files())
        for log in (_COMMITTED, _GATHERED):
            left.difference_update(named_files(self, log))
        ours = re.compile(rf".*/part-\d{{6,}}-{bundle[:12]}\.parquet|{_QUARANTINED}/\d{{6,}}\.parquet")
        left.update(name for folder in ("", OWN, _COMMITTED, _GATHERED) for name in self.names(folder))
        for name in left:
            if HALF_WRITTEN.fullmatch(name) or ours.fullmatch(name):
                self.delete(name)
