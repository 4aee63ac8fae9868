"""The output folder of a scoring job: its plan, its ledger, and the commits that make attempts part of it.

    scores/part-000017-<digest>.parquet   scores of shard 17 by the bundle whose digest starts so
    scores/COLUMN=value/part-…            the same with --partition-by
    quarantine.parquet  summary.json  settings.json
    _sentray/plan.json                    what the job is, and which generation of its plan counts
    _sentray/plan-000001.parquet          the shards; files-000001.parquet: the input's files as they were
    _sentray/attempts/000017-<uuid>…      files that nobody has committed yet
    _sentray/ledger/000000-….jsonl        a line for each committed shard: its files, their digests, its counts
    _sentray/quarantine/000017.parquet    the rows of shard 17 that were set aside
    _sentray/staged/part-…                scores that wait for compaction, with --rows-per-file
    _sentray/gathered/000000-….jsonl      a line for each file that compaction made of several shards
    _sentray/lease.json                   who works here now

Whatever is written here is first an attempt, whole and under a name of its own. The driver checks its lease after that
and moves the attempt to its final name; a line of the ledger comes when all files of its shard are moved. A driver that
takes the lease deletes all attempts before it reads the ledger. So one that stood still meanwhile, and does not know
yet that the folder is another's, has nothing left to move. Files that no line names are removed at the next start.
"""

import json
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from sentray.corpus import parquet, splits
from sentray.corpus.rows import QUARANTINE_FILE
from sentray.corpus.source import Format, Source
from sentray.corpus.splits import ShardPlan
from sentray.errors import SentrayError
from sentray.lease import Lease
from sentray.scoring.stats import Counts, Number
from sentray.storage import HALF_WRITTEN, Folder, Output

SCORES = "scores"
QUARANTINE = QUARANTINE_FILE
SUMMARY = "summary.json"
OWN = "_sentray"
ATTEMPTS = f"{OWN}/attempts"
STAGED = f"{OWN}/staged"
LEASE = f"{OWN}/lease.json"
_PLAN = f"{OWN}/plan.json"
_COMMITTED = f"{OWN}/ledger"
_COMPACTED = f"{OWN}/gathered"
_QUARANTINED = f"{OWN}/quarantine"
Sizes = dict[str, int]
"""Names of files within the output folder, and their bytes."""
T = TypeVar("T")

MAX_SHARDS = 10**8
_ROWS_AT_ONCE = 1_000_000
"""Rows of a row group of the plan, which is read row group by row group: it may have many millions."""
MAX_MOVES = 64
"""Files that are moved at the same time on an object store, where a move takes some round trips."""
_OTHER_OUT = "choose another --out, or remove it"
_SCORED_AGAIN = "delete it: what it recorded is scored again"
_WRITTEN_AGAIN = "delete it and run the same command again"
_NULL = "__HIVE_DEFAULT_PARTITION__"

# --- Names and formats of files


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How files of the output are written; a dictionary of values that hardly recur would only be work."""
    repeated = [name for name in schema.names if name not in ("id", "score", "positive")]
    return {"compression": "zstd", "use_dictionary": repeated}


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
    return f"{_QUARANTINED}/{shard:06d}.parquet"


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


# --- What plan and ledger hold


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
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _named(pattern: str) -> AfterValidator:
    """Accepts the names that sentray gives: what a ledger names is read, and deleted when it has to be made again."""
    names = re.compile(pattern, re.ASCII)

    def check(part: Part) -> Part:
        if not names.fullmatch(part.name):
            raise ValueError(f"no file has the name {part.name[:100]!r}")
        return part

    return AfterValidator(check)


_Scores = Annotated[
    Part,
    _named(rf"(?:{SCORES}|{STAGED})/(?:[\w.~%-]+=[\w.~%-]+/)?part-\d{{6,}}-[0-9a-f]{{12}}\.parquet"),
]


@dataclass(frozen=True)
class Record:
    """A committed shard: a line of the ledger.

    Attributes:
        shard: Index in the plan.
        parts: Files with its scores: one, or one a value with `--partition-by`.
        quarantine: File with its rows that were set aside, where there are any.
        counts: What its rows add up to.
    """

    shard: Number
    parts: tuple[_Scores, ...]
    quarantine: Annotated[Part, _named(rf"{_QUARANTINED}/\d{{6,}}\.parquet")] | None
    counts: Counts

    @property
    def files(self) -> tuple[Part, ...]:
        """All of its files."""
        return (*self.parts, self.quarantine) if self.quarantine else self.parts


@dataclass(frozen=True)
class Compacted:
    """A file that compaction made of the scores of several shards.

    Attributes:
        part: The file.
        members: Shard and rows of each staged part in it, in the order of its rows.
    """

    part: _Scores
    members: Annotated[list[tuple[Number, Number]], Field(min_length=1)]


@dataclass(frozen=True)
class Attempt:
    """What a worker made of a shard; nothing of it counts yet.

    Attributes:
        record: The line that commits it; names the files as they shall be called.
        names: What they are called now, in the order of `record.files`.
    """

    record: Record
    names: tuple[str, ...]


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
        rows_per_file: Rows that compaction aims at; None where each shard's file stays as it is.
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


@dataclass(frozen=True)
class Stored:
    """What `plan.json` says.

    Attributes:
        header: What the job is.
        format: Of the input's files.
        generation: Number in the names of the files that hold the plan.
        shards: How many the plan has.
    """

    header: Header
    format: Format
    generation: Annotated[int, Field(ge=0, lt=10**9)]
    shards: Annotated[int, Field(ge=0, le=MAX_SHARDS)]

    @property
    def plan_name(self) -> str:
        """File with the shards."""
        return f"{OWN}/plan-{self.generation:06d}.parquet"

    @property
    def files_name(self) -> str:
        """File with name, path, size and time of change of each input file."""
        return f"{OWN}/files-{self.generation:06d}.parquet"


_STORED, _RECORD, _COMPACTED_LINE = TypeAdapter(Stored), TypeAdapter(Record), TypeAdapter(Compacted)
_FILES_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("modified", pa.int64()),
    ]
)
_WHAT_DIFFERS = {
    "engine": "with another --engine",
    "columns": "with other columns",
    "shard_size": "with another --shard-size",
    "rows_per_file": "with another --rows-per-file",
    "partition_by": "with another --partition-by",
    "schema": "with another output schema (other types of kept columns, or other labels)",
}


# --- The folder


class OutputFolder(Folder):
    """An output folder, local or on any pyarrow file system, as the driver and `verify` see it.

    Args:
        out: Path or URI.

    Raises:
        SentrayError: When the path cannot be reached.
    """

    def __init__(self, out: str) -> None:
        super().__init__(out)
        self._check: Callable[[], None] = lambda: None

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Keep other runs out, for the length of a `with` block, and delete what others have not committed.

        Raises:
            SentrayError: When the folder is another's, or another run works in it.
        """
        if self.load() is None:
            self._require_free()
        with Lease(Folder(self.out), LEASE) as lease:
            self._check = lease.check
            self.delete_attempts()
            yield lease

    def delete_attempts(self) -> None:
        """Delete all attempts, one by one: a worker that nobody waits for any more may be writing another."""
        for name in self.names(ATTEMPTS):
            self.delete(name)

    def delete(self, name: str) -> None:
        """Remove a file or a folder with all it holds, unless the output folder is another run's by now.

        Raises:
            SentrayError: When the file system refuses, or another run has taken the folder over.
        """
        self._check()
        super().delete(name)

    @contextmanager
    def create(self, name: str) -> Iterator[Output]:
        """Write a file piece by piece; it appears at the end of the block, unless the folder is another run's by then.

        Raises:
            SentrayError: When the file system refuses, or another run has taken the folder over.
        """
        attempt = attempt_name(name.rpartition("/")[2])
        with super().create(attempt) as output:
            yield output
        self._check()
        self.commit_file(attempt, name)

    def commit_file(self, attempt: str, name: str) -> None:
        """Move an attempt to its final name; the lease has been checked since it was written.

        Raises:
            SentrayError: When it is not there, or cannot be moved.
        """
        try:
            self.move(attempt, name)
        except FileNotFoundError as error:
            self._check()
            raise SentrayError(
                f"{self.out}/{attempt} is gone: another run cleaned the folder, or a worker wrote to one that this "
                "machine does not see; on a cluster, choose an --out that all machines share, such as s3://…, and run "
                "the same command again to go on"
            ) from error

    def open(self, header: Header, source: Source, new_input: bool = False) -> ShardPlan:
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
        stored = self.load()
        if stored is None:
            self._require_free()
        # Nothing is lost with a plan of which no shard was written.
        if stored is None or not any(self.names(folder) for folder in (_COMMITTED, SCORES, STAGED)):
            plan = splits.plan_shards(source, header.shard_size)
            generation = stored.generation + 1 if stored else 1
            self._store(Stored(header, source.format, generation, len(plan)), plan, _files(source))
        else:
            self.require_same(stored, header)
            plan = self._resume(stored, source, new_input)
        for log in (_COMMITTED, _COMPACTED):
            merge(self, log)
        self.clean(header.bundle)
        return plan

    def stored(self) -> Stored:
        """What the job is, as the folder says.

        Raises:
            SentrayError: When the folder is no scoring job's.
        """
        stored = self.load()
        if stored is None:
            raise SentrayError(f"{self.out} is not the output of a scoring job; give the folder that --out named")
        return stored

    def load(self) -> Stored | None:
        """The same; None where there is nothing yet.

        Raises:
            SentrayError: When the plan is damaged.
        """
        values = self.read_json(_PLAN)
        if values is None:
            return None
        try:
            stored = _STORED.validate_python(values)
            columns = stored.header.columns
            if not (isinstance(columns.get("text"), str) and isinstance(columns.get("id"), str)):
                raise ValueError("it does not name the columns")
            if not (isinstance(columns.get("keep"), list) and all(isinstance(name, str) for name in columns["keep"])):
                raise ValueError("it does not name the columns to keep")
            # What the input is, `verify` looks up for generated reviews.
            if (stored.format == "synthetic") != stored.header.input.startswith("synthetic:"):
                raise ValueError("its input has another format")
        except ValueError as error:
            raise self.damaged(_PLAN, error) from error
        return stored

    def load_plan(self, stored: Stored) -> ShardPlan:
        """The shards.

        Raises:
            SentrayError: When they cannot be read or are not those that `plan.json` was written for.
        """
        try:
            plan = ShardPlan.from_table(self._table(stored.plan_name, splits.PLAN_SCHEMA), stored.format)
            if len(plan) != stored.shards:
                raise ValueError(f"it has {len(plan):,} shards, not {stored.shards:,}")
        except (ValueError, KeyError, pa.ArrowException) as error:
            raise self.damaged(stored.plan_name, error) from error
        return plan

    def load_files(self, stored: Stored) -> pa.Table:
        """The input's files as they were: name, path, size and time of change.

        Raises:
            SentrayError: When they cannot be read.
        """
        try:
            return self._table(stored.files_name, _FILES_SCHEMA).cast(_FILES_SCHEMA)
        except (ValueError, pa.ArrowException) as error:
            raise self.damaged(stored.files_name, error) from error

    def require_same(self, stored: Stored, header: Header) -> None:
        """Refuse to go on with another job than the folder's.

        Raises:
            SentrayError: When anything but the content of the input differs.
        """
        was, now = asdict(stored.header), json.loads(json.dumps(asdict(header)))
        if was["bundle"] != now["bundle"]:
            raise SentrayError(
                f"{self.out} was made by another bundle ({was['bundle'][:12]}, this one is {now['bundle'][:12]}); "
                f"{_OTHER_OUT}"
            )
        if was["input"] != now["input"]:
            raise SentrayError(self._other_input(stored, header.input))
        for name, what in _WHAT_DIFFERS.items():
            if was[name] != now[name]:
                raise SentrayError(f"{self.out} was made {what}; {_OTHER_OUT}")

    def require_unchanged(self, source: Source) -> None:
        """Make sure that no file became another while it was scored; one that is gone was set aside.

        Raises:
            SentrayError: When one did, so that the output may hold rows of both.
        """
        before, now = self.load_files(self.stored()), _files(source)
        index = pc.index_in(now["name"], value_set=before["name"])
        then = before.take(index.drop_null())
        if changed := _first_change(then, now.filter(pc.is_valid(index)), then):
            raise SentrayError(
                f"{changed} while {source.uri} was scored, so that {self.out} may hold rows of both versions; score "
                "the input again to another --out when it is complete"
            )

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        try:
            return parquet.read_table(self._filesystem, self.path(name), schema)
        except SentrayError as error:
            raise self.damaged(name, error) from error

    def read_footer(self, name: str) -> tuple[int, pa.Schema]:
        """How many rows a Parquet file of the folder has, and its columns; anyone may have written it.

        Raises:
            SentrayError: When it is damaged.
        """
        return parquet.read_footer(self._filesystem, self.path(name))

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
        for record in newest_first(self, _COMMITTED, _RECORD):
            self._require_planned(_COMMITTED, record.shard, len(seen))
            if not seen[record.shard]:
                seen[record.shard] = 1
                yield record

    def compacted(self, there: Sizes | None = None) -> Iterator[Compacted]:
        """The files that compaction made and that are there, as large as recorded, in no order.

        Args:
            there: What `files` gave, if it was asked before.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        there = self.files() if there is None else there
        return (found for found in self.recorded_compacted() if there.get(found.part.name) == found.part.bytes)

    def recorded_compacted(self) -> Iterator[Compacted]:
        """The last record of each compacted file, whether or not it is there, in no order.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        shards, seen = self.stored().shards, set[str]()
        for compacted in newest_first(self, _COMPACTED, _COMPACTED_LINE):
            self._require_planned(_COMPACTED, max(shard for shard, _ in compacted.members), shards)
            if compacted.part.name not in seen:
                seen.add(compacted.part.name)
                yield compacted

    def published(self, there: Sizes | None = None) -> dict[str, bytearray]:
        """For each partition and each shard of the plan, 1 where its scores are in a compacted file that is there.

        Args:
            there: What `files` gave, if it was asked before.
        """
        shards = self.stored().shards
        found: dict[str, bytearray] = {}
        for compacted in self.compacted(there):
            of_partition = found.setdefault(partition_of(compacted.part.name), bytearray(shards))
            for shard, _ in compacted.members:
                of_partition[shard] = 1
        return found

    def ledger(self) -> "Log[Record]":
        """The log that takes the records of committed shards."""
        return Log(self, _COMMITTED, _RECORD)

    def compactions(self) -> "Log[Compacted]":
        """The log that takes the records of compacted files."""
        return Log(self, _COMPACTED, _COMPACTED_LINE)

    def withdraw(self, wrong: Callable[[Record], bool]) -> list[int]:
        """Take committed shards back: their files go, and without them their records do not count.

        Args:
            wrong: Which; the same ones again after a kill that left some of their files. None is compacted.

        Returns:
            The shards.

        Raises:
            SentrayError: When another run has taken the folder over, or a file cannot be removed.
        """
        found = []
        for record in filter(wrong, self.recorded()):
            found.append(record.shard)
            for part in record.files:
                self.delete(part.name)
        return found

    def summary(self) -> dict[str, Any] | None:
        """The finished job's summary; None while it is not finished.

        Raises:
            SentrayError: When it is damaged.
        """
        summary = self.read_json(SUMMARY, _WRITTEN_AGAIN)
        totals = ("rows", "rows_scored", "rows_quarantined")
        if summary is not None and any(type(summary.get(name)) is not int for name in totals):
            raise self.damaged(SUMMARY, ValueError("it does not count the rows"), _WRITTEN_AGAIN)
        return summary

    def clean(self, bundle: str) -> None:
        """Remove what killed runs left: half-written files, and whole ones that no line names.

        Args:
            bundle: The bundle's digest; files of others are left alone.
        """
        left = set(self.files())
        for log in (_COMMITTED, _COMPACTED):
            left.difference_update(named_files(self, log))
        ours = re.compile(rf".*/part-\d{{6,}}-{bundle[:12]}\.parquet|{_QUARANTINED}/\d{{6,}}\.parquet")
        left.update(name for folder in ("", OWN, _COMMITTED, _COMPACTED) for name in self.names(folder))
        for name in left:
            if HALF_WRITTEN.fullmatch(name) or ours.fullmatch(name):
                self.delete(name)

    def _require_free(self) -> None:
        if names := [name for name in self.names() if name != OWN]:
            raise SentrayError(f"{self.out} holds {min(names)}, which is not a scoring job's; choose another --out")

    def _require_planned(self, log: str, shard: int, shards: int) -> None:
        if shard >= shards:
            raise self.damaged(log, IndexError(f"there is no shard {shard} in the plan"), _SCORED_AGAIN)

    def _resume(self, stored: Stored, source: Source, new_input: bool) -> ShardPlan:
        """The stored plan, when the input is as it was then; with `new_input` extended by new files."""
        plan = self.load_plan(stored)
        before, now = self.load_files(stored), _files(source)
        if before.num_rows:
            plan.require_files(before["path"], before["name"])
        if before.equals(now):
            return plan
        index = pc.index_in(now["name"], value_set=before["name"])
        is_new = pc.is_null(index)
        changed = _first_change(before, now.filter(pc.is_valid(index)), before.take(index.drop_null()))
        if changed:
            raise SentrayError(self._other_input(stored, source.uri, f" ({changed})"))
        if not new_input:
            name = now.filter(is_new)["name"][0]
            raise SentrayError(
                f"{self.out} was made when {source.uri} held fewer files ({name} is new); add --new-input to score the "
                "new ones too, or choose another --out"
            )
        files = tuple(file for file, new in zip(source.files, is_new.to_pylist(), strict=True) if new)
        plan = plan.extended(splits.plan_shards(replace(source, files=files), stored.header.shard_size))
        # What was written at the job's end holds for the old input only.
        self.delete(SUMMARY)
        self._store(replace(stored, generation=stored.generation + 1, shards=len(plan)), plan, now)
        return plan

    def _store(self, stored: Stored, plan: ShardPlan, files: pa.Table) -> None:
        """Write a plan; `plan.json` comes last, so that after a kill the older generation counts."""
        for name, table in ((stored.plan_name, plan.to_table()), (stored.files_name, files)):
            with self.create(name) as output:
                pq.write_table(table, output, _ROWS_AT_ONCE, compression="zstd")
        self.write_json(_PLAN, asdict(stored) | {"files": files.num_rows})
        for name in self.names(OWN):
            if name.endswith(".parquet") and name not in (stored.plan_name, stored.files_name):
                self.delete(name)

    def _other_input(self, stored: Stored, uri: str, how: str = "") -> str:
        was = stored.header.input
        return f"{self.out} was made from the input {was}, and {uri} is not the same now{how}; {_OTHER_OUT}"


def _files(source: Source) -> pa.Table:
    columns = [[getattr(file, name) for file in source.files] for name in _FILES_SCHEMA.names]
    return pa.table(columns, schema=_FILES_SCHEMA).combine_chunks()


def _first_change(before: pa.Table, now: pa.Table, then: pa.Table) -> str:
    """What happened to the first planned file that is not as it was; `now` and `then` are the same files' facts."""
    gone = before.filter(pc.invert(pc.is_in(before["name"], value_set=now["name"])))
    if gone.num_rows:
        return f"{gone['name'][0]} is gone"
    for column, what in (("size", "has changed"), ("modified", "has changed"), ("path", "lies elsewhere")):
        same = pc.fill_null(pc.equal(now[column], then[column]), False)
        both_null = pc.and_(pc.is_null(now[column]), pc.is_null(then[column]))
        other = now.filter(pc.invert(pc.or_(same, both_null)))
        if other.num_rows:
            return f"{other['name'][0]} {what}"
    return ""


# --- Commits


class Commits:
    """Makes attempts part of the output, within a `with` block: their files are moved, then their lines are written.

    On an object store many files are moved at once; a shard is committed when all of its own are moved.

    Args:
        folder: The output folder.
        done: Called with the record of each shard whose files are moved; its line is written soon after.
    """

    def __init__(self, folder: OutputFolder, done: Callable[[Record], None]) -> None:
        self._folder, self._done = folder, done
        self._log = folder.ledger()
        self._threads = 1 if folder.local else MAX_MOVES
        self._moves: deque[Future[Record]] = deque()

    def __enter__(self) -> Self:
        self._executor = ThreadPoolExecutor(self._threads, "commit")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an error too, as each shard that is committed is not scored again.
            self._collect(all_of_them=True)
        finally:
            self._executor.shutdown(cancel_futures=True)
            self._log.flush()

    def add(self, attempt: Attempt) -> None:
        """Commit a shard, soon.

        Raises:
            SentrayError: When another run has taken the folder over, or an earlier attempt could not be committed.
        """
        # The attempt is there by now: who takes the lease from here on deletes it.
        self._folder._check()
        self._moves.append(self._executor.submit(self._move, attempt))
        self.poll()

    def poll(self) -> None:
        """Note what has been moved, and write its lines if that is due.

        Raises:
            SentrayError: When an attempt could not be committed.
        """
        self._collect(all_of_them=False)
        self._log.flush(only_if_due=True)

    def _move(self, attempt: Attempt) -> Record:
        for name, part in zip(attempt.names, attempt.record.files, strict=True):
            self._folder.commit_file(name, part.name)
        return attempt.record

    def _collect(self, all_of_them: bool) -> None:
        while self._moves and (all_of_them or self._moves[0].done() or len(self._moves) > 2 * self._threads):
            record = self._moves.popleft().result()
            self._log.add(record)
            self._done(record)


# --- Logs of JSON lines in numbered files, each written at once

FLUSH_SECONDS, FLUSH_SHARE, FLUSH_MAX = 0.5, 0.01, 60.0
"""Lines are written after so long, or after this share of the run so far where that is longer, but not after more
than the last: a kill loses little, and a long run makes a thousand files, not a million."""
MERGE_FROM, MERGED_BYTES = 32, 16_000_000
"""So many small files of a log are merged, into files of about so many bytes."""
_A_PART = re.compile(rb'\["([^"]+)",\d+,\d+,"[0-9a-f]{64}"\]')
_A_SEGMENT = re.compile(r"(?:.*/)?(\d+)(?:-[0-9a-f]{12})?\.jsonl")


class Log(Generic[T]):
    """Appends records to one of the folder's logs.

    Args:
        folder: The output folder.
        name: Folder of the log in it.
        line_type: What a line holds.
        clock: Tells seconds.
    """

    def __init__(
        self, folder: Folder, name: str, line_type: TypeAdapter[T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._name, self._line_type, self._clock = folder, name, line_type, clock
        self._next = max((_number(segment) for segment in segments(folder, name)), default=-1) + 1
        # Two runs never write the same file.
        self._owner = uuid.uuid4().hex[:12]
        self._lines: list[bytes] = []
        self._began = self._written = clock()

    def add(self, record: T) -> None:
        """Add a record, to be written by the next `flush`."""
        self._lines.append(self._line_type.dump_json(record) + b"\n")

    def flush(self, only_if_due: bool = False) -> None:
        """Write what was added; with `only_if_due` only when that was a while ago.

        Raises:
            SentrayError: When it cannot be written; it stays for the next time.
        """
        now = self._clock()
        due = self._written + min(max(FLUSH_SECONDS, FLUSH_SHARE * (now - self._began)), FLUSH_MAX)
        if not self._lines or (only_if_due and now < due):
            return
        self._folder.write(f"{self._name}/{self._next:06d}-{self._owner}.jsonl", b"".join(self._lines))
        self._next, self._lines, self._written = self._next + 1, [], self._clock()


def segments(folder: Folder, name: str) -> list[str]:
    """The files of a log, oldest first."""
    found = [file for file in folder.names(name) if _number(file) >= 0]
    return sorted(found, key=lambda file: (_number(file), file))


def newest_first(folder: Folder, name: str, line_type: TypeAdapter[T]) -> Iterator[T]:
    """A log's lines, the last one first, a file at a time.

    Raises:
        SentrayError: When a file is damaged.
    """
    for segment in reversed(segments(folder, name)):
        for line in reversed((folder.read(segment) or b"").splitlines()):
            try:
                yield line_type.validate_json(line)
            except ValidationError as error:
                reason = ValueError(f"it holds a line that is no record ({error.errors()[0]['msg']})")
                raise folder.damaged(segment, reason, _SCORED_AGAIN) from error


def named_files(folder: Folder, name: str) -> Iterator[str]:
    """The names of all files that a log's lines tell of; a tenth of the time that reading the lines takes."""
    for segment in segments(folder, name):
        yield from (found.decode(errors="replace") for found in _A_PART.findall(folder.read(segment) or b""))


def merge(folder: Folder, name: str) -> None:
    """Make few files of a log's many small ones.

    A run of files becomes one under the last one's name, and then the others go: at any moment the last line about
    a shard is still the last.
    """
    found = segments(folder, name)
    if len(found) < MERGE_FROM:
        return
    run: list[str] = []
    content = bytearray()
    for segment in found:
        more = folder.read(segment) or b""
        if len(content) + len(more) > MERGED_BYTES:
            _replace(folder, run, content)
            run, content = [], bytearray()
        run.append(segment)
        content += more
    _replace(folder, run, content)


def _replace(folder: Folder, run: list[str], content: bytearray) -> None:
    if len(run) > 1:
        folder.write(run[-1], bytes(content))
    for old in run[:-1]:
        folder.delete(old)


def _number(segment: str) -> int:
    match = _A_SEGMENT.fullmatch(segment)
    return int(match[1]) if match else -1
