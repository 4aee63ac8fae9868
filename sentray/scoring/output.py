"""The output folder of a scoring job: its plan, its ledger, and the commits that make attempts part of it.

    scores/part-000017-<digest>.parquet   scores of shard 17 by the bundle whose digest starts so
    scores/COLUMN=value/part-…            the same with --partition-by
    quarantine.parquet  summary.json  settings.json  report.html
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

import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Annotated, Any, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from sentray.config import ScoreSettings
from sentray.corpus import parquet, splits
from sentray.corpus.identity import FILES_SCHEMA, by_name, files_of, first_change
from sentray.corpus.source import Format, Source
from sentray.corpus.splits import ShardPlan
from sentray.errors import SentrayError
from sentray.lease import Lease, s3_store
from sentray.scoring.parts import ATTEMPTS, OWN, QUARANTINED, SCORES, STAGED, Part, attempt_name, partition_of
from sentray.scoring.stats import Counts, Number
from sentray.storage import HALF_WRITTEN, Folder, Output

SUMMARY, REPORT = "summary.json", "report.html"
LEASE = f"{OWN}/lease.json"
_PLAN = f"{OWN}/plan.json"
LEDGER = f"{OWN}/ledger"
COMPACTIONS = f"{OWN}/gathered"
T = TypeVar("T")

_ROWS_AT_ONCE = 1_000_000
"""Rows of a row group of the plan, which is read row group by row group: it may have many millions."""
MAX_MOVES = 64
"""Files that are moved at the same time on an object store, where a move takes some round trips."""
MOVE_TIMEOUT = timedelta(minutes=10)
"""A store may take minutes to copy a large file."""
_OTHER_OUT = "choose another --out, or remove it"
_SCORED_AGAIN = "delete it: what it recorded is scored again"

# --- What plan and ledger hold


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
    parts: tuple[Part, ...]
    quarantine: Part | None
    counts: Counts

    @property
    def files(self) -> tuple[Part, ...]:
        """All of its files."""
        return (*self.parts, self.quarantine) if self.quarantine else self.parts


@dataclass(frozen=True)
class Compacted:
    """A file that compaction made of the scores of several shards: a line of a second log.

    Attributes:
        part: The file.
        members: Shard and rows of each staged part in it, in the order of its rows.
    """

    part: Part
    members: list[tuple[Number, Number]]


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
class Columns:
    """Settings that decide what is read: where text and id are, what is passed through, how files are taken apart."""

    text: str
    id: str
    keep: tuple[str, ...] = ()
    reading: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> ScoreSettings:
        """The same as settings of a job, which looks at no column that it has no use for.

        Raises:
            SentrayError: They cannot be what a job wrote.
        """
        try:
            return ScoreSettings(bundle="", input="", out="", text_column=self.text, id_column=self.id, **self.reading)
        except (ValidationError, TypeError) as error:
            raise SentrayError(f"the plan of the job reads files in a way that there is not: {_OTHER_OUT}") from error


@dataclass(frozen=True)
class Header:
    """What a job is: two runs with equal headers and equal input write the same files.

    Attributes:
        bundle: Digest of the bundle.
        engine: Name of the engine; another one's scores differ in their last digits.
        input: URI of the input, as the user gave it.
        shard_size: Aimed-at size of a shard in bytes.
        columns: What is read from a row.
        schema: Columns of a file of scores and their types, as Arrow writes them.
        rows_per_file: Rows that compaction aims at; None where each shard's file stays as it is.
        partition_by: Column whose values become folders; it is not in `schema`.
        by: Column by whose values the labels are counted; None for the file.
        explain: Most words of the column `explained`; None where there is none.
    """

    bundle: str
    engine: str
    input: str
    shard_size: int
    columns: Columns
    schema: dict[str, str]
    rows_per_file: int | None = None
    partition_by: str | None = None
    by: str | None = None
    explain: int | None = None


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
    shards: int

    @property
    def plan_name(self) -> str:
        """File with the shards."""
        return f"{OWN}/plan-{self.generation:06d}.parquet"

    @property
    def files_name(self) -> str:
        """File with name, path, size and time of change of each input file."""
        return f"{OWN}/files-{self.generation:06d}.parquet"


_WHAT_DIFFERS = {
    "engine": "with another --engine",
    "columns": "with other columns, or another --delimiter, --encoding or the like",
    "shard_size": "with another --shard-size",
    "rows_per_file": "with another --rows-per-file",
    "partition_by": "with another --partition-by",
    "by": "with another --by, or none",
    "explain": "with another --explain",
    "schema": "with another output schema (other types of kept columns, another --scores, or other labels)",
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
        self._store: Any = None

    # Writing

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
            if lease.store is not None:
                self._store = s3_store(self, MOVE_TIMEOUT)
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

    def move(self, source: str, target: str) -> None:
        """Give a file another name; on S3 in two requests where pyarrow takes three."""
        if self._store is None:
            super().move(source, target)
            return
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.rename(self._store, source, target)
        except BaseError:
            # Such as a file that is too large for one copy.
            super().move(source, target)

    # The plan

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
        if stored is None or not any(self.names(folder) for folder in (LEDGER, SCORES, STAGED)):
            plan = splits.plan_shards(source, header.shard_size, header.columns.settings())
            self._store_plan(
                Stored(header, source.format, stored.generation + 1 if stored else 1, len(plan)), plan, source
            )
        else:
            self.require_same(stored, header)
            plan = self._resume(stored, source, new_input)
        self._clean(header.bundle)
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
        try:
            return None if values is None else TypeAdapter(Stored).validate_python(values)
        except ValidationError as error:
            raise self.damaged(_PLAN, error) from error

    def load_plan(self, stored: Stored) -> ShardPlan:
        """The shards.

        Raises:
            SentrayError: When they cannot be read or are not those that `plan.json` was written for.
        """
        plan = ShardPlan.from_table(self._table(stored.plan_name, splits.PLAN_SCHEMA), stored.format)
        if len(plan) != stored.shards:
            raise self.damaged(stored.plan_name, ValueError(f"it has {len(plan):,} shards, not {stored.shards:,}"))
        return plan

    def load_files(self, stored: Stored) -> pa.Table:
        """The input's files as they were: name, path, size and time of change.

        Raises:
            SentrayError: When they cannot be read.
        """
        return self._table(stored.files_name, FILES_SCHEMA)

    def require_same(self, stored: Stored, header: Header) -> None:
        """Refuse to go on with another job than the folder's.

        Raises:
            SentrayError: When anything but the content of the input differs.
        """
        was = stored.header
        if was.bundle != header.bundle:
            raise SentrayError(
                f"{self.out} was made by another bundle ({was.bundle[:12]}, this one is {header.bundle[:12]}); "
                f"{_OTHER_OUT}"
            )
        if was.input != header.input:
            raise SentrayError(self._other_input(stored, header.input))
        for name, what in _WHAT_DIFFERS.items():
            if getattr(was, name) != getattr(header, name):
                raise SentrayError(f"{self.out} was made {what}; {_OTHER_OUT}")

    def require_unchanged(self, source: Source) -> None:
        """Make sure that no file became another while it was scored; one that is gone was set aside.

        Raises:
            SentrayError: When one did, so that the output may hold rows of both.
        """
        before, now = by_name(self.load_files(self.stored())), by_name(files_of(source))
        if changed := first_change({name: facts for name, facts in before.items() if name in now}, now):
            raise SentrayError(
                f"{changed} while {source.uri} was scored, so that {self.out} may hold rows of both versions; score "
                "the input again to another --out when it is complete"
            )

    def read_footer(self, name: str) -> tuple[int, pa.Schema]:
        """How many rows a Parquet file of the folder has, and its columns; anyone may have written it.

        Raises:
            SentrayError: When it is damaged.
        """
        return parquet.read_footer(self._filesystem, self.path(name))

    def _resume(self, stored: Stored, source: Source, new_input: bool) -> ShardPlan:
        """The stored plan, when the input is as it was then; with `new_input` extended by new files."""
        plan, files = self.load_plan(stored), self.load_files(stored)
        if files.num_rows:
            plan.require_files(files["path"], files["name"])
        before = by_name(files)
        if changed := first_change(before, by_name(files_of(source))):
            raise SentrayError(self._other_input(stored, source.uri, f" ({changed})"))
        added = tuple(file for file in source.files if file.name not in before)
        if not added:
            return plan
        if not new_input:
            raise SentrayError(
                f"{self.out} was made when {source.uri} held fewer files ({added[0].name} is new); add --new-input to "
                "score the new ones too, or choose another --out"
            )
        plan = plan.extended(splits.plan_shards(replace(source, files=added), stored.header.shard_size))
        # What was written at the job's end holds for the old input only.
        self.delete(SUMMARY)
        self._store_plan(replace(stored, generation=stored.generation + 1, shards=len(plan)), plan, source)
        return plan

    def _store_plan(self, stored: Stored, plan: ShardPlan, source: Source) -> None:
        """Write a plan; `plan.json` comes last, so that after a kill the older generation counts."""
        for name, table in ((stored.plan_name, plan.to_table()), (stored.files_name, files_of(source))):
            with self.create(name) as output:
                pq.write_table(table, output, _ROWS_AT_ONCE, compression="zstd")
        self.write_json(_PLAN, asdict(stored))
        for name in self.names(OWN):
            if name.endswith(".parquet") and name not in (stored.plan_name, stored.files_name):
                self.delete(name)

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        try:
            return parquet.read_table(self._filesystem, self.path(name), schema).cast(schema)
        except (SentrayError, ValueError, pa.ArrowException) as error:
            raise self.damaged(name, error) from error

    def _require_free(self) -> None:
        if names := [name for name in self.names() if name != OWN]:
            raise SentrayError(f"{self.out} holds {min(names)}, which is not a scoring job's; choose another --out")

    def _other_input(self, stored: Stored, uri: str, how: str = "") -> str:
        was = stored.header.input
        return f"{self.out} was made from the input {was}, and {uri} is not the same now{how}; {_OTHER_OUT}"

    # What is committed

    def files(self) -> dict[str, int]:
        """Names and bytes of all files of scores and of quarantined rows that are there, hidden ones too."""
        return self.sizes(SCORES) | self.sizes(STAGED) | self.sizes(QUARANTINED)

    def records(self, there: dict[str, int] | None = None) -> Iterator[Record]:
        """The record of each committed shard whose files are there and as large as recorded, in no order.

        Args:
            there: What `files` gave, if it was asked before.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        there = self.files() if there is None else there
        published = self.published(there)

        def is_there(record: Record, part: Part) -> bool:
            return there.get(part.name) == part.bytes or record.shard in published.get(partition_of(part.name), ())

        return (record for record in self.recorded() if all(is_there(record, part) for part in record.files))

    def recorded(self) -> Iterator[Record]:
        """The last record of each shard, whether or not its files are there, in no order.

        Raises:
            SentrayError: When the ledger is damaged.
        """
        shards, seen = self.stored().shards, set[int]()
        for segment, record in read_log(self, LEDGER, Record):
            if record.shard >= shards:
                raise self.damaged(segment, IndexError(f"there is no shard {record.shard} in the plan"), _SCORED_AGAIN)
            if record.shard not in seen:
                seen.add(record.shard)
                yield record

    def compacted(self) -> Iterator[Compacted]:
        """The last record of each file that compaction made, whether or not it is there, in no order.

        Raises:
            SentrayError: When the log is damaged.
        """
        seen = set[str]()
        for _, compacted in read_log(self, COMPACTIONS, Compacted):
            if compacted.part.name not in seen:
                seen.add(compacted.part.name)
                yield compacted

    def published(self, there: dict[str, int]) -> dict[str, set[int]]:
        """For each partition, the shards whose scores are in a compacted file that is there, as large as recorded.

        Args:
            there: What `files` gave.
        """
        found: dict[str, set[int]] = {}
        for part, members in ((compacted.part, compacted.members) for compacted in self.compacted()):
            if there.get(part.name) == part.bytes:
                found.setdefault(partition_of(part.name), set()).update(shard for shard, _ in members)
        return found

    def withdraw(self, wrong: Callable[[Record], bool]) -> bool:
        """Take committed shards back: their files go, and without them their records do not count.

        Args:
            wrong: Which; the same ones again after a kill that left some of their files. None is compacted.

        Returns:
            Whether there were any.

        Raises:
            SentrayError: When another run has taken the folder over, or a file cannot be removed.
        """
        found = list(filter(wrong, self.recorded()))
        for record in found:
            for part in record.files:
                self.delete(part.name)
        return bool(found)

    def summary(self) -> dict[str, Any] | None:
        """The finished job's summary; None while it is not finished.

        Raises:
            SentrayError: When it is damaged.
        """
        return self.read_json(SUMMARY, "delete it and run the same command again")

    def _clean(self, bundle: str) -> None:
        """Remove what killed runs left: half-written files, and whole ones of this bundle that no line names."""
        left = set(self.files())
        for record in self.recorded():
            left.difference_update(part.name for part in record.files)
        left.difference_update(compacted.part.name for compacted in self.compacted())
        ours = re.compile(rf".*/part-\d{{6,}}-{bundle[:12]}\.parquet|{QUARANTINED}/\d{{6,}}\.parquet")
        left.update(name for folder in ("", OWN, LEDGER, COMPACTIONS) for name in self.names(folder))
        for name in left:
            if HALF_WRITTEN.fullmatch(name) or ours.fullmatch(name):
                self.delete(name)


# --- Commits


class Commits:
    """Makes attempts part of the output, within a `with` block: their files are moved, then their lines are written.

    On an object store many files are moved at once; a shard is committed when all of its own are moved.

    Args:
        folder: The output folder.
        done: Called with the record of each shard whose files are moved; its line is written soon after.
    """

    def __init__(self, folder: OutputFolder, done: Callable[[Record], None]) -> None:
        self._folder, self._done, self._log = folder, done, Log(folder, LEDGER)
        self._threads = 1 if folder.local else MAX_MOVES
        self._moves: deque[Future[Record]] = deque()

    def __enter__(self) -> Self:
        self._executor = ThreadPoolExecutor(self._threads, "commit")
        return self

    def __exit__(self, *_: object) -> None:
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


class Log:
    """Appends records to one of the folder's logs.

    Args:
        folder: The output folder.
        name: Folder of the log in it.
        clock: Tells seconds.
    """

    def __init__(self, folder: Folder, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._name, self._clock = folder, name, clock
        self._next = max((number for number, _ in _segments(folder, name)), default=-1) + 1
        # Two runs never write the same file.
        self._owner = uuid.uuid4().hex[:12]
        self._lines: list[bytes] = []
        self._began = self._written = clock()

    def add(self, record: Record | Compacted) -> None:
        """Add a record, to be written by the next `flush`."""
        self._lines.append(to_json(record) + b"\n")

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


def _segments(folder: Folder, name: str) -> list[tuple[int, str]]:
    """Number and name of a log's files, oldest first."""
    found = (re.fullmatch(r".*/(\d+)(-\w+)?\.jsonl", file) for file in folder.names(name))
    return sorted((int(match[1]), match[0]) for match in found if match)


def read_log(folder: Folder, name: str, line_type: type[T]) -> Iterator[tuple[str, T]]:
    """A log's lines, the last one first, a file at a time; each with its file.

    Raises:
        SentrayError: When a file is damaged.
    """
    line = TypeAdapter(line_type)
    for _, segment in reversed(_segments(folder, name)):
        for content in reversed((folder.read(segment) or b"").splitlines()):
            try:
                yield segment, line.validate_json(content)
            except ValidationError as error:
                reason = ValueError(f"it holds a line that is no record ({error.errors()[0]['msg']})")
                raise folder.damaged(segment, reason, _SCORED_AGAIN) from error
