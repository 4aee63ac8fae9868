"""`verify`: the proof, from the files alone, that a scoring job's output holds each planned row exactly once.

With the job's input at hand, output and input are also compared row by row.
"""

from collections.abc import Generator, Iterator, Sequence
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
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, mark
from sentray.corpus.sandbox import memory_explained
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Shard
from sentray.errors import SentrayError
from sentray.scoring.compaction import read_part
from sentray.scoring.output import (
    OWN,
    QUARANTINE,
    SCORES,
    STAGED,
    SUMMARY,
    OutputFolder,
    Part,
    Record,
    Stored,
    partition_of,
)
from sentray.scoring.plan_check import footer_faults, plan_faults
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
_OWN_NAMES = (SCORES, OWN, QUARANTINE, SUMMARY, SETTINGS_FILE)


class Faults:
    """What is wrong with an output: the first sentences, and how many there are."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, sentence: str) -> None:
        """Note a fault."""
        self.count += 1
        if self.count <= MAX_SHOWN:
            self.first.append(sentence)

    def require(self, holds: bool, sentence: str) -> None:
        """Note a fault unless something holds."""
        if not holds:
            self.add(sentence)


def verify(settings: VerifySettings, console: Console) -> None:
    """Check that each planned row is in the output or the quarantine once, and that every file is as recorded.

    Neither Ray nor the bundle is needed; the input only when it is given.

    Args:
        settings: The output folder, and the input to compare it with row by row.
        console: Where to say what was checked, and what is wrong.

    Raises:
        SentrayError: When the folder is no scoring job's, or anything is wrong with it.
    """
    out, faults = OutputFolder(settings.directory), Faults()
    audit = _Audit(out, out.stored(), faults)
    audit.check()
    console.say(audit.describe() + ("" if faults.count else "; every file as recorded"))
    if settings.input is not None and not faults.count:
        with memory_explained(settings.input):
            console.say(_compare(out, settings.input, faults))
    for fault in faults.first:
        console.say(f"fault: {fault}")
    if faults.count:
        listed = f"the first {MAX_SHOWN} are" if faults.count > MAX_SHOWN else "each is"
        raise SentrayError(f"{out.out} has {count(faults.count, 'fault')}; {listed} listed above")


class _Audit:
    """Adds up what the ledger says and compares it with the plan and the files."""

    def __init__(self, out: OutputFolder, stored: Stored, faults: Faults) -> None:
        self._out, self._stored, self._faults = out, stored, faults
        self._total = Counts.none()
        self._plan = out.load_plan(stored)
        self._done = np.zeros(len(self._plan), bool)
        self._there = out.files()
        self._unnamed = set(self._there)
        self._unnamed.update(name for name in out.names() if name not in _OWN_NAMES and not name.startswith("."))
        self._published = self._staged = 0
        self._quarantined: dict[int, Part] = {}

    def check(self) -> None:
        """Check everything that needs no look at the input."""
        with ThreadPoolExecutor(_THREADS) as threads:
            parts = self._parts()
            while some := list(islice(parts, _AT_ONCE)):
                for fault in filter(None, threads.map(partial(_file_fault, self._out, self._stored), some)):
                    self._faults.add(fault)
        for name in sorted(self._unnamed):
            self._faults.add(f"{name} is not in the ledger; if another program put it there, move it elsewhere")
        missing = self._stored.shards - int(self._done.sum())
        if missing:
            self._faults.add(f"{missing:,} of {count(self._stored.shards, 'shard')} are not committed; {AGAIN}")
            return
        if self._staged:
            self._faults.add(f"{count(self._staged, 'file')} of scores are not compacted; {AGAIN}")
        self._check_quarantine()
        self._check_summary()

    def describe(self) -> str:
        """What it found in a line."""
        bad = sum(self._total.quarantined.values())
        return (
            f"{self._total.rows:,} planned rows = {self._total.scored:,} in {count(self._published, 'file')} + "
            f"{bad:,} quarantined, {int(self._done.sum()):,} of {count(self._stored.shards, 'shard')} committed"
        )

    def _parts(self) -> Iterator[Part]:
        """Check the ledger's lines; gives the files that they name and that must be there."""
        compacted = yield from self._compacted()
        for fault in plan_faults(self._plan, self._files()):
            self._faults.add(fault)
        rows_of_shards = (-1 if shard.rows is None else shard.rows for shard in self._plan)
        planned = np.fromiter(rows_of_shards, np.int64, len(self._plan))
        for record in self._out.recorded():
            self._done[record.shard] = True
            self._check_counts(record, int(planned[record.shard]))
            for part in record.parts:
                self._unnamed.discard(part.name)
                rows = compacted.get(partition_of(part.name)) if part.name.startswith(STAGED) else None
                if rows is not None and rows.get(record.shard) == part.rows:
                    del rows[record.shard]
                    continue
                self._staged += part.name.startswith(STAGED)
                self._published += part.name.startswith(f"{SCORES}/")
                yield part
            if record.quarantine:
                self._quarantined[record.shard] = record.quarantine
                self._unnamed.discard(record.quarantine.name)
                yield record.quarantine
        for rows in compacted.values():
            for shard, of_shard in rows.items():
                self._faults.add(f"{of_shard:,} rows of shard {shard} were compacted that its record does not have")

    def _compacted(self) -> Generator[Part, None, dict[str, dict[int, int]]]:
        """The files that compaction made; returns the rows of each shard in them, by partition."""
        found: dict[str, dict[int, int]] = {}
        spans: list[tuple[str, int, int, str]] = []
        for compacted in self._out.recorded_compacted():
            part, members = compacted.part, compacted.members
            if part.name not in self._there:
                continue
            shards = [shard for shard, _ in members]
            self._faults.require(shards == sorted(shards), f"{part.name} does not hold its shards in order")
            spans.append((partition_of(part.name), min(shards), max(shards), part.name))
            rows = found.setdefault(partition_of(part.name), {})
            for shard, of_shard in members:
                self._faults.require(shard not in rows, f"shard {shard} is in {part.name} and in another file too")
                rows[shard] = of_shard
            in_members = sum(of_shard for _, of_shard in members)
            self._faults.require(
                in_members == part.rows, f"{part.name} has {part.rows:,} rows of {in_members:,} compacted"
            )
            self._published += 1
            self._unnamed.discard(part.name)
            yield part
        for (partition, _, end, name), (other, begin, _, after) in pairwise(sorted(spans)):
            self._faults.require(
                partition != other or end < begin, f"{after} begins before {name} ends: the order of rows is lost"
            )
        return found

    def _files(self) -> pa.Table:
        """Names and sizes of what was planned."""
        if self._stored.format != "synthetic":
            return self._out.load_files(self._stored)
        return pa.table({"name": ["synthetic"], "size": [resolve(self._stored.header.input).rows]})

    def _check_counts(self, record: Record, planned: int) -> None:
        counts, shard = record.counts, f"shard {record.shard}"
        self._total.add(counts)
        bad = sum(counts.quarantined.values())
        # A file that cannot be read has fewer rows than its footer promised when the job was planned.
        expected = counts.rows if planned < 0 or Reason.UNREADABLE_FILE in counts.quarantined else planned
        for name, rows, wanted in (
            ("rows were read", counts.rows, expected),
            ("rows are scored or quarantined", counts.scored + bad, counts.rows),
            ("rows are in its files of scores", sum(part.rows for part in record.parts), counts.scored),
            ("rows are in its quarantine", record.quarantine.rows if record.quarantine else 0, bad),
        ):
            self._faults.require(rows == wanted, f"{shard}: {rows:,} {name}, there should be {wanted:,}")

    def _check_quarantine(self) -> None:
        try:
            whole, start = read_part(self._out, QUARANTINE), 0
            for shard in sorted(self._quarantined):
                rows = read_part(self._out, self._quarantined[shard].name)
                if not whole.slice(start, rows.num_rows).equals(rows):
                    self._faults.add(f"{QUARANTINE} does not hold the quarantined rows of shard {shard} in their place")
                    return
                start += rows.num_rows
        except SentrayError as error:
            self._faults.add(str(error))
            return
        more = whole.num_rows - start
        self._faults.require(not more, f"{QUARANTINE} holds {more:,} rows that no shard has quarantined")

    def _check_summary(self) -> None:
        try:
            summary = self._out.summary()
        except SentrayError as error:
            self._faults.add(str(error))
            return
        if summary is None:
            self._faults.add(f"{SUMMARY} is missing; {AGAIN}")
            return
        bad = sum(self._total.quarantined.values())
        wanted = {key: getattr(self._total, name) for key, name in _SUMS.items()}
        wanted |= {"rows_quarantined": bad, "shards": self._stored.shards, "bundle": self._stored.header.bundle}
        for key, value in wanted.items():
            has = summary.get(key)
            same = key in summary and (has or 0) == (value or 0)
            self._faults.require(same, f"{SUMMARY} says {key} {has}, the ledger {value}")


def _file_fault(out: OutputFolder, stored: Stored, part: Part) -> str | None:
    """What is wrong with a file of scores or of quarantined rows."""
    try:
        with out.open_file(part.name) as stream:
            if sha256_of(stream) != part.sha256:
                return f"{part.name} is not as it was written (its SHA-256 differs); delete it and {AGAIN}"
        rows, schema = out.read_footer(part.name)
    except FileNotFoundError:
        return f"{part.name} is gone; {AGAIN}"
    except (OSError, SentrayError) as error:
        return f"{part.name} cannot be read ({first_line(error)})"
    if rows != part.rows:
        return f"{part.name} holds {rows:,} rows, recorded were {part.rows:,}"
    if not part.name.startswith((SCORES, STAGED)):
        return None if schema.equals(QUARANTINE_SCHEMA) else f"{part.name} has other columns than a quarantine"
    columns = [(column.name, str(column.type)) for column in schema]
    if columns != list(stored.header.schema.items()):
        return f"{part.name} has other columns than the plan says"
    if (schema.metadata or {}).get(b"sentray.bundle", b"").decode() != stored.header.bundle:
        return f"{part.name} names another bundle than the plan"
    return None


# --- Compared with the input

_NO_COUNTS = Counts.none()


def _compare(out: OutputFolder, uri: str, faults: Faults) -> str:
    """Read the input again and find each of its rows in the output; gives what was compared in a line.

    Args:
        out: An output in which nothing else is wrong.
        uri: The input, where it was or elsewhere.
        faults: Where differences are noted.

    Raises:
        SentrayError: When the input cannot be found or has another format.
    """
    stored = out.stored()
    source = resolve(uri)
    columns = stored.header.columns
    settings = CorpusSettings(text_column=columns["text"], id_column=columns["id"], test_fraction=0)
    if source.format != stored.format:
        raise SentrayError(f"{uri} is {source.format} and the job's input {stored.format}; give that or a copy of it")
    plan, root = out.load_plan(stored), ""
    if source.files:
        root = source.files[0].path.removesuffix(source.files[0].name)
    for sentence in footer_faults(plan, source, root):
        faults.add(sentence)
    # What could not be read may have killed its reader, and would this process.
    unread = {record.shard for record in out.recorded() if Reason.UNREADABLE_FILE in record.counts.quarantined}
    duplicates = find_duplicates(
        (shard.index, *block)
        for shard in map(partial(_moved, root), plan)
        for block in read_ids(source, shard, settings, unread=set(), isolated=shard.index in unread)
    )
    records = {record.shard: replace(record, counts=_NO_COUNTS) for record in out.recorded()}
    scores = _Scores(out)
    rows = 0
    for shard in map(partial(_moved, root), plan):
        record = records[shard.index]
        bad = read_part(out, record.quarantine.name) if record.quarantine else QUARANTINE_SCHEMA.empty_table()
        good, set_aside = _read(
            source, shard, settings, columns["keep"], duplicates.get(shard.index, {}), bad, shard.index in unread
        )
        rows += len(good) + set_aside.num_rows
        for fault in (_ids_fault(good, scores.of(record)), _quarantine_fault(set_aside, bad)):
            faults.require(fault is None, f"shard {shard.index} ({shard.pieces[0].name}): {fault}")
    return f"{rows:,} rows of {uri} compared, {count(len(records), 'shard')}"


def _moved(root: str, shard: Shard) -> Shard:
    """A shard where the input is now; what is not there cannot be read."""
    return replace(shard, pieces=tuple(replace(piece, path=root + piece.name) for piece in shard.pieces))


class _Scores:
    """The ids of shards, asked for in the shards' order; of a compacted file they are kept until its last shard."""

    def __init__(self, out: OutputFolder) -> None:
        self._out = out
        self._file = {
            (partition_of(found.part.name), shard): (found.part.name, start, rows, shard == found.members[-1][0])
            for found in out.compacted()
            for (shard, rows), start in zip(found.members, _starts(found.members), strict=True)
        }
        self._open: dict[str, pa.ChunkedArray] = {}

    def of(self, record: Record) -> list[pa.ChunkedArray]:
        """The ids in each of a shard's parts."""
        return [self._ids(record.shard, part) for part in record.parts]

    def _ids(self, shard: int, part: Part) -> pa.ChunkedArray:
        found = self._file.pop((partition_of(part.name), shard), None)
        if found is None:
            return read_part(self._out, part.name, ["id"])["id"]
        name, start, rows, is_last = found
        if name not in self._open:
            self._open[name] = read_part(self._out, name, ["id"])["id"]
        ids = self._open[name].slice(start, rows)
        if is_last:
            del self._open[name]
        return ids


def _starts(members: list[tuple[int, int]]) -> list[int]:
    return [0, *np.cumsum([rows for _, rows in members])[:-1].tolist()]


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
    indices = [pc.index_in(ids, value_set=wanted) for ids in parts]
    for ids, index in zip(parts, indices, strict=True):
        if index.null_count:
            foreign = ids.filter(pc.is_null(index))
            return f"{len(foreign):,} scored rows are not in the input (the first has the id {foreign[0]})"
    found = np.concatenate([np.zeros(0, np.int64), *(index.to_numpy() for index in indices)])
    times = np.bincount(found, minlength=len(wanted))
    if (times != 1).any():
        row = int(np.argmax(times != 1))
        return f"{int((times != 1).sum()):,} good rows are not scored once (the id {wanted[row]} {times[row]} times)"
    if any((np.diff(index.to_numpy()) < 0).any() for index in indices):
        return "its rows are not in the input's order"
    return None


def _quarantine_fault(wanted: pa.Table, found: pa.Table) -> str | None:
    if found.select(_WHICH_ROW).equals(wanted):
        return None
    rows, kept = ([tuple(row.values()) for row in table.select(_WHICH_ROW).to_pylist()] for table in (wanted, found))
    first = next(iter(sorted(set(rows) ^ set(kept), key=lambda row: row[:2])), rows[0] if rows else None)
    return f"its quarantine holds {len(kept):,} rows and the input has {len(rows):,} bad ones (look at {first})"
