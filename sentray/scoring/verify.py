"""`verify`: the proof, from the files alone, that a scoring job's output holds each planned row exactly once.

With the job's input at hand, output and input are also compared row by row.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray.config import SETTINGS_FILE, CorpusSettings, VerifySettings
from sentray.console import Console, count
from sentray.corpus.duplicates import Rows, find_duplicates, mark_duplicates
from sentray.corpus.parquet import row_groups
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.rows import QUARANTINE_FILE, QUARANTINE_SCHEMA, Reason, mark
from sentray.corpus.sandbox import memory_explained
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Piece, Shard, ShardPlan
from sentray.errors import SentrayError
from sentray.scoring.columns import kept_inputs
from sentray.scoring.output import REPORT, SUMMARY, OutputFolder, Record
from sentray.scoring.parts import (
    EARLIER_QUARANTINE,
    OWN,
    SCORES,
    STAGED,
    Part,
    partition_of,
    read_part,
    read_quarantine,
)
from sentray.scoring.stats import Counts
from sentray.storage import first_line, sha256_of

MAX_SHOWN = 20
AGAIN = "run the same score command again"
_THREADS = 8
_AT_ONCE = 256
_SUMS = {
    "rows": "rows",
    "rows_scored": "scored",
    "quarantined": "quarantined",
    "labels": "labels",
    "score_histogram": "histogram",
    "words": "words",
    "known_words": "known_words",
}
"""Keys of the summary, and the counts of the shards that they are the sums of."""
_WHICH_ROW = ["file", "row", "id", "reason"]
_OWN_NAMES = (SCORES, OWN, QUARANTINE_FILE, SUMMARY, REPORT, SETTINGS_FILE)
_NO_COUNTS = Counts.none()


def verify(settings: VerifySettings, console: Console) -> None:
    """Check that each planned row is in the output or the quarantine once, and that every file is as recorded.

    Neither Ray nor the bundle is needed; the input only when it is given.

    Args:
        settings: The output folder, and the input to compare it with row by row.
        console: Where to say what was checked, and what is wrong.

    Raises:
        SentrayError: When the folder is no scoring job's, or anything is wrong with it.
    """
    audit = _Audit(OutputFolder(settings.directory))
    faults = list(audit.faults())
    console.say(audit.describe() + ("" if faults else "; every file as recorded"))
    if settings.input is not None and not faults:
        with memory_explained(settings.input):
            faults = list(audit.differences(settings.input))
        console.say(f"{audit.total.rows:,} rows of {settings.input} compared, {count(len(audit.plan), 'shard')}")
    for fault in faults[:MAX_SHOWN]:
        console.say(f"fault: {fault}")
    if faults:
        listed = f"the first {MAX_SHOWN} are" if len(faults) > MAX_SHOWN else "each is"
        raise SentrayError(f"{audit.out.out} has {count(len(faults), 'fault')}; {listed} listed above")


class _Audit:
    """Adds up what the ledger says and compares it with the plan, the files, and perhaps the input.

    Args:
        out: The output folder.

    Attributes:
        out: As given.
        plan: All shards.
        total: What the ledger's records count.
    """

    def __init__(self, out: OutputFolder) -> None:
        self.out, self._stored = out, out.stored()
        self.plan, self.total = out.load_plan(self._stored), Counts.none()
        self._there = out.files()
        self._unnamed = set(self._there)
        self._unnamed.update(name for name in out.names() if name not in _OWN_NAMES and not name.startswith("."))
        self._done = np.zeros(len(self.plan), bool)
        self._published = self._staged = 0
        self._quarantined: dict[int, str] = {}
        # Where the rows of a partition's shard are: a file that compaction made, the first row in it, and how many.
        self._compacted: dict[tuple[str, int], tuple[str, int, int]] = {}

    def describe(self) -> str:
        """What it found in a line."""
        return (
            f"{self.total.rows:,} planned rows = {self.total.scored:,} in {count(self._published, 'file')} + "
            f"{sum(self.total.quarantined.values()):,} quarantined, {int(self._done.sum()):,} of "
            f"{count(len(self.plan), 'shard')} committed"
        )

    def faults(self) -> Iterator[str]:
        """Everything that is wrong as far as needs no look at the input."""
        yield from plan_faults(self.plan, self._files())
        parts = list[Part]()
        yield from self._compaction_faults(parts.append)
        yield from self._ledger_faults(parts.append)
        with ThreadPoolExecutor(_THREADS) as threads:
            some = iter(parts)
            while several := list(islice(some, _AT_ONCE)):
                yield from filter(None, threads.map(self._file_fault, several))
        for name in sorted(self._unnamed):
            yield f"{name} is not in the ledger; if another program put it there, move it elsewhere"
        if missing := len(self.plan) - int(self._done.sum()):
            yield f"{missing:,} of {count(len(self.plan), 'shard')} are not committed; {AGAIN}"
            return
        if self._staged:
            yield f"{count(self._staged, 'file')} of scores are not compacted; {AGAIN}"
        for check in (self._quarantine_faults, self._summary_faults):
            try:
                yield from check()
            except SentrayError as error:
                yield str(error)

    def _files(self) -> pa.Table:
        """Names and sizes of what was planned."""
        if self._stored.format != "synthetic":
            return self.out.load_files(self._stored)
        return pa.table({"name": ["synthetic"], "size": [resolve(self._stored.header.input).rows]})

    def _compaction_faults(self, check: Callable[[Part], None]) -> Iterator[str]:
        """Compacted files that do not hold each shard once and in order; `check` is given the files."""
        members: dict[str, list[list[int]]] = {}
        for compacted in self.out.compacted():
            part, partition, start = compacted.part, partition_of(compacted.part.name), 0
            if part.name not in self._there:
                continue
            for shard, rows in compacted.members:
                self._compacted[partition, shard] = part.name, start, rows
                start += rows
            if start != part.rows:
                yield f"{part.name} has {part.rows:,} rows of {start:,} compacted"
            members.setdefault(partition, []).append([shard for shard, _ in compacted.members])
            self._published += 1
            self._unnamed.discard(part.name)
            check(part)
        for partition, files in members.items():
            for before, shard in pairwise(shard for shards in sorted(files) for shard in shards):
                if shard <= before:
                    where = f"{SCORES}/{partition}".rstrip("/")
                    yield f"the files in {where} do not hold each shard once and in order: {shard} comes after {before}"
                    break

    def _ledger_faults(self, check: Callable[[Part], None]) -> Iterator[str]:
        """Records that do not fit the plan or what was compacted; `check` is given the files that must be there."""
        planned = np.fromiter(
            (-1 if shard.rows is None else shard.rows for shard in self.plan), np.int64, len(self.plan)
        )
        used: set[tuple[str, int]] = set()
        for record in self.out.recorded():
            self._done[record.shard] = True
            self.total.add(record.counts)
            yield from _count_faults(record, int(planned[record.shard]))
            for part in record.parts:
                self._unnamed.discard(part.name)
                where = partition_of(part.name), record.shard
                is_staged = part.name.startswith(STAGED)
                if is_staged and where in self._compacted and self._compacted[where][2] == part.rows:
                    used.add(where)
                    continue
                self._staged += is_staged
                self._published += not is_staged
                check(part)
            if record.quarantine:
                self._quarantined[record.shard] = record.quarantine.name
                self._unnamed.discard(record.quarantine.name)
                check(record.quarantine)
        for where in self._compacted.keys() - used:
            yield f"{self._compacted[where][2]:,} rows of shard {where[1]} were compacted that its record does not have"

    def _file_fault(self, part: Part) -> str | None:
        """What is wrong with a file of scores or of quarantined rows."""
        # No other file than those in the folders of the output is opened, whatever the ledger says.
        if part.name not in self._there:
            return f"{part.name} is gone; {AGAIN}"
        try:
            with self.out.open_file(part.name) as stream:
                if sha256_of(stream) != part.sha256:
                    return f"{part.name} is not as it was written (its SHA-256 differs); delete it and {AGAIN}"
            rows, schema = self.out.read_footer(part.name)
        except (OSError, SentrayError) as error:
            return f"{part.name} cannot be read ({first_line(error)})"
        if rows != part.rows:
            return f"{part.name} holds {rows:,} rows, recorded were {part.rows:,}"
        if not part.name.startswith((SCORES, STAGED)):
            known = any(map(schema.equals, (QUARANTINE_SCHEMA, EARLIER_QUARANTINE)))
            return None if known else f"{part.name} has other columns than a quarantine"
        header = self._stored.header
        if [(column.name, str(column.type)) for column in schema] != list(header.schema.items()):
            return f"{part.name} has other columns than the plan says"
        if (schema.metadata or {}).get(b"sentray.bundle", b"").decode(errors="replace") != header.bundle:
            return f"{part.name} names another bundle than the plan"
        return None

    def _quarantine_faults(self) -> Iterator[str]:
        whole, start = read_quarantine(self.out, QUARANTINE_FILE), 0
        for shard in sorted(self._quarantined):
            if self._quarantined[shard] not in self._there:
                continue
            rows = read_quarantine(self.out, self._quarantined[shard])
            if not whole.slice(start, rows.num_rows).equals(rows):
                yield f"{QUARANTINE_FILE} does not hold the quarantined rows of shard {shard} in their place"
                return
            start += rows.num_rows
        if more := whole.num_rows - start:
            yield f"{QUARANTINE_FILE} holds {more:,} rows that no shard has quarantined"

    def _summary_faults(self) -> Iterator[str]:
        summary = self.out.summary()
        if summary is None:
            yield f"{SUMMARY} is missing; {AGAIN}"
            return
        wanted = {key: getattr(self.total, name) for key, name in _SUMS.items()}
        wanted["rows_quarantined"] = sum(self.total.quarantined.values())
        wanted |= {"shards": len(self.plan), "bundle": self._stored.header.bundle}
        for key, value in wanted.items():
            if key not in summary or (summary[key] or 0) != (value or 0):
                yield f"{SUMMARY} says {key} {summary.get(key)}, the ledger {value}"

    def differences(self, uri: str) -> Iterator[str]:
        """Read the input again and find each of its rows in the output, in which nothing else is wrong.

        Args:
            uri: The input, where it was or elsewhere.

        Raises:
            SentrayError: When the input cannot be found or has another format.
        """
        header = self._stored.header
        columns = header.columns
        settings = columns.settings()
        source = resolve(uri, settings)
        kept = tuple(kept_inputs(columns.keep, {*header.schema, str(header.partition_by)}).values())
        if source.format != self._stored.format:
            raise SentrayError(
                f"{uri} is {source.format} and the job's input {self._stored.format}; give that or a copy of it"
            )
        root = source.files[0].path.removesuffix(source.files[0].name) if source.files else ""
        yield from footer_faults(self.plan, source, root)
        records, unread = dict[int, Record](), set[int]()
        for record in self.out.recorded():
            records[record.shard] = replace(record, counts=_NO_COUNTS)
            if Reason.UNREADABLE_FILE in record.counts.quarantined:
                # What could not be read may have killed its reader, and would this process.
                unread.add(record.shard)
        duplicates = find_duplicates(
            (shard.index, *block)
            for shard in map(partial(_moved, root), self.plan)
            for block in read_ids(source, shard, settings, unread=set(), isolated=shard.index in unread)
        )
        opened: dict[str, tuple[str, pa.ChunkedArray]] = {}
        for shard in map(partial(_moved, root), self.plan):
            record = records[shard.index]
            bad = read_part(self.out, record.quarantine.name) if record.quarantine else QUARANTINE_SCHEMA.empty_table()
            of_shard = duplicates.get(shard.index, {})
            good, set_aside = _read(source, shard, settings, kept, of_shard, bad, shard.index in unread)
            found = [self._ids(record, part, opened) for part in record.parts]
            for fault in (_ids_fault(good, found), _quarantine_fault(set_aside, bad)):
                if fault is not None:
                    yield f"shard {shard.index} ({shard.pieces[0].name}): {fault}"

    def _ids(self, record: Record, part: Part, opened: dict[str, tuple[str, pa.ChunkedArray]]) -> pa.ChunkedArray:
        """The ids of a shard in one of its parts; the last file of each partition stays open, for the next shard."""
        partition = partition_of(part.name)
        name, start, rows = self._compacted.get((partition, record.shard), (part.name, 0, part.rows))
        if partition not in opened or opened[partition][0] != name:
            opened[partition] = name, read_part(self.out, name, ["id"])["id"]
        return opened[partition][1].slice(start, rows)


def _count_faults(record: Record, planned: int) -> Iterator[str]:
    """What does not add up in a shard's record; `planned` are its rows as planned, negative where not known."""
    counts = record.counts
    bad = sum(counts.quarantined.values())
    # A file that cannot be read has fewer rows than its footer promised when the job was planned.
    expected = counts.rows if planned < 0 or Reason.UNREADABLE_FILE in counts.quarantined else planned
    for name, rows, wanted in (
        ("rows were read", counts.rows, expected),
        ("rows are scored or quarantined", counts.scored + bad, counts.rows),
        ("rows are in its files of scores", sum(part.rows for part in record.parts), counts.scored),
        ("rows are in its quarantine", record.quarantine.rows if record.quarantine else 0, bad),
    ):
        if rows != wanted:
            yield f"shard {record.shard}: {rows:,} {name}, there should be {wanted:,}"


# --- Whether the plan's pieces make up the files of the input


def plan_faults(plan: ShardPlan, files: pa.Table) -> Iterator[str]:
    """How the plan's pieces differ from each file once, from its start to its end without gap or overlap.

    Where a Parquet file ends is not looked up: see `footer_faults`.

    Args:
        plan: The shards.
        files: `name` and `size` of the files; of synthetic reviews the size is their number.
    """
    sizes = dict(zip(files["name"].to_pylist(), files["size"].to_pylist(), strict=True))
    left, before = set(sizes), Piece("", "")

    def end_fault() -> Iterator[str]:
        at_end = before.stop is None or plan.format == "parquet" or before.stop == sizes.get(before.name)
        if before.name and not at_end:
            yield f"the last piece of {before.name} in the plan ends at {before.stop:,}, before the file does"

    for piece in (piece for shard in plan for piece in shard.pieces):
        if piece.name == before.name:
            if piece.start != before.stop or piece.row < before.row:
                yield f"a piece of {piece.name} in the plan does not begin at {piece.start:,} where the one before ends"
        else:
            yield from end_fault()
            if piece.name not in left:
                yield f"the plan has {piece.name} twice, or the input did not have it"
            left.discard(piece.name)
            if piece.start or piece.row:
                yield f"the first piece of {piece.name} in the plan does not begin where the file does"
        if piece.stop is not None and piece.stop <= piece.start:
            yield f"a piece of {piece.name} in the plan ends before it begins"
        before = piece
    yield from end_fault()
    for name in sorted(left):
        yield f"{name} is not in the plan"


def footer_faults(plan: ShardPlan, source: Source, root: str) -> Iterator[str]:
    """Parquet files whose last planned row group is not their last; those that cannot be read are passed over.

    Args:
        plan: The shards.
        source: Where the files lie.
        root: What comes before their names.
    """
    if plan.format != "parquet" or source.filesystem is None:
        return
    # The last piece of a file is the one that stays.
    stops = {piece.name: piece.stop for shard in plan for piece in shard.pieces if piece.stop is not None}
    found = row_groups(source.filesystem, [root + name for name in stops])
    for (name, stop), groups in zip(stops.items(), found, strict=True):
        if groups and len(groups.rows) != stop:
            yield f"{name} has {len(groups.rows):,} row groups and the plan {stop:,}"


# --- Compared with the input


def _moved(root: str, shard: Shard) -> Shard:
    """A shard where the input is now; what is not there cannot be read."""
    return replace(shard, pieces=tuple(replace(piece, path=root + piece.name) for piece in shard.pieces))


def _read(
    source: Source,
    shard: Shard,
    settings: CorpusSettings,
    keep: Sequence[str],
    duplicates: Rows,
    quarantined: pa.Table,
    isolated: bool,
) -> tuple[pa.ChunkedArray, pa.Table]:
    """The ids of a shard's good rows, and which rows are bad.

    Which rows kill the process that scores them cannot be read off the input: there the quarantine is believed.
    """
    killing = quarantined.filter(pc.equal(quarantined["reason"], str(Reason.CRASH)))
    killers = set(zip(killing["file"].to_pylist(), killing["row"].to_pylist(), strict=True))
    good, bad = [pa.chunked_array([], pa.string())], [quarantined.schema.empty_table().select(_WHICH_ROW)]
    for table in read_shard(source, shard, settings, keep, on_unreadable="quarantine", isolated=isolated):
        rows = mark_duplicates(table, duplicates)
        if killers:
            of_table = zip(rows["file"].to_pylist(), rows["row"].to_pylist(), strict=True)
            rows = mark(rows, np.fromiter((row in killers for row in of_table), bool, rows.num_rows), Reason.CRASH)
        good.append(rows.filter(pc.is_null(rows["reason"]))["id"])
        bad.append(rows.filter(pc.is_valid(rows["reason"])).select(_WHICH_ROW))
    return pa.chunked_array([chunk for ids in good for chunk in ids.chunks], pa.string()), pa.concat_tables(bad)


def _ids_fault(wanted: pa.ChunkedArray, parts: list[pa.ChunkedArray]) -> str | None:
    """How the ids in a shard's files differ from those of its good rows; within a file the order counts too."""
    found = [pc.fill_null(pc.index_in(ids, value_set=wanted), -1).to_numpy() for ids in parts]
    times = np.bincount(np.concatenate([np.zeros(0, np.int64), *found]) + 1, minlength=len(wanted) + 1)
    if times[0]:
        return f"{times[0]:,} scored rows are not in the input"
    if (wrong := np.flatnonzero(times[1:] != 1)).size:
        return f"{wrong.size:,} good rows are not scored once (the first has the id {wanted[int(wrong[0])]})"
    return None if all((np.diff(index) > 0).all() for index in found) else "its rows are not in the input's order"


def _quarantine_fault(wanted: pa.Table, found: pa.Table) -> str | None:
    if found.select(_WHICH_ROW).equals(wanted):
        return None
    rows, kept = ([tuple(row.values()) for row in table.select(_WHICH_ROW).to_pylist()] for table in (wanted, found))
    first = next(iter(sorted(set(rows) ^ set(kept), key=lambda row: row[:2])), rows[0] if rows else None)
    return f"its quarantine holds {len(kept):,} rows and the input has {len(rows):,} bad ones (look at {first})"
