"""The proof, from the files alone, that a scoring job's output holds each planned row exactly once."""

from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sentray.config import SETTINGS_FILE, VerifySettings
from sentray.console import Console, count
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.scoring.compaction import read_part
from sentray.scoring.ledger import QUARANTINE, SCORES, STAGED, SUMMARY, Ledger, Part, Record, partition_of
from sentray.scoring.plan_check import plan_faults
from sentray.scoring.plans import OWN, Stored, load_files, load_plan
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
    ledger, faults = Ledger(settings.directory), Faults()
    accounts = _Accounts(ledger, ledger.stored(), faults)
    accounts.check()
    console.say(accounts.describe() + ("" if faults.count else "; every file as recorded"))
    if settings.input is not None and not faults.count:
        from sentray.scoring.compare import compare

        console.say(compare(ledger, settings.input, faults))
    for fault in faults.first:
        console.say(f"fault: {fault}")
    if faults.count:
        listed = f"the first {MAX_SHOWN} are" if faults.count > MAX_SHOWN else "each is"
        raise SentrayError(f"{ledger.out} has {count(faults.count, 'fault')}; {listed} listed above")


class _Accounts:
    """Adds up what the ledger says and compares it with the plan and the files."""

    def __init__(self, ledger: Ledger, stored: Stored, faults: Faults) -> None:
        self._ledger, self._stored, self._faults = ledger, stored, faults
        self._sums: dict[str, Any] = dict.fromkeys(_SUMS.values(), 0)
        self._plan = load_plan(ledger, stored)
        self._done = np.zeros(len(self._plan), bool)
        self._there = ledger.files()
        self._unnamed = set(self._there)
        self._unnamed.update(name for name in ledger.names() if name not in _OWN_NAMES and not name.startswith("."))
        self._published = self._staged = 0
        self._quarantined: dict[int, Part] = {}

    def check(self) -> None:
        """Check everything that needs no look at the input."""
        with ThreadPoolExecutor(_THREADS) as threads:
            parts = self._parts()
            while some := list(islice(parts, _AT_ONCE)):
                for fault in filter(None, threads.map(partial(_file_fault, self._ledger, self._stored), some)):
                    self._faults.add(fault)
        for name in sorted(self._unnamed):
            self._faults.add(f"{name} is not in the ledger; if another program put it there, move it elsewhere")
        missing = self._stored.shards - int(self._done.sum())
        if missing:
            self._faults.add(f"{missing:,} of {count(self._stored.shards, 'shard')} are not committed; {AGAIN}")
            return
        if self._staged:
            self._faults.add(f"{count(self._staged, 'file')} of scores are not gathered; {AGAIN}")
        self._check_quarantine()
        self._check_summary()

    def describe(self) -> str:
        """The accounts in a line."""
        bad = sum(self._sums["quarantined"].values()) if self._sums["quarantined"] else 0
        return (
            f"{self._sums['rows']:,} planned rows = {self._sums['scored']:,} in {count(self._published, 'file')} + "
            f"{bad:,} quarantined, {int(self._done.sum()):,} of {count(self._stored.shards, 'shard')} committed"
        )

    def _parts(self) -> Iterator[Part]:
        """Check the ledger's lines; gives the files that they name and that must be there."""
        gathered = yield from self._gathered()
        for fault in plan_faults(self._plan, self._files()):
            self._faults.add(fault)
        rows_of_shards = (-1 if shard.rows is None else shard.rows for shard in self._plan)
        planned = np.fromiter(rows_of_shards, np.int64, len(self._plan))
        for record in self._ledger.recorded():
            self._done[record.shard] = True
            self._check_counts(record, int(planned[record.shard]))
            for part in record.parts:
                self._unnamed.discard(part.name)
                rows = gathered.get(partition_of(part.name)) if part.name.startswith(STAGED) else None
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
        for rows in gathered.values():
            for shard, of_shard in rows.items():
                self._faults.add(f"{of_shard:,} rows of shard {shard} were gathered that its record does not have")

    def _gathered(self) -> Generator[Part, None, dict[str, dict[int, int]]]:
        """The files that shards were gathered in; returns the rows of each shard in them, by partition."""
        found: dict[str, dict[int, int]] = {}
        spans: list[tuple[str, int, int, str]] = []
        for part, members in self._ledger.recorded_gathered():
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
                in_members == part.rows, f"{part.name} has {part.rows:,} rows of {in_members:,} gathered"
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
            return load_files(self._ledger, self._stored)
        return pa.table({"name": ["synthetic"], "size": [resolve(self._stored.header.input).rows]})

    def _check_counts(self, record: Record, planned: int) -> None:
        counts, shard = record.counts, f"shard {record.shard}"
        for name in _SUMS.values():
            self._sums[name] = _added(self._sums[name], counts.get(name, 0))
        bad = sum(counts["quarantined"].values())
        # A file that cannot be read has fewer rows than its footer promised when the job was planned.
        expected = counts["rows"] if planned < 0 or Reason.UNREADABLE_FILE in counts["quarantined"] else planned
        for name, rows, wanted in (
            ("rows were read", counts["rows"], expected),
            ("rows are scored or quarantined", counts["scored"] + bad, counts["rows"]),
            ("rows are in its files of scores", sum(part.rows for part in record.parts), counts["scored"]),
            ("rows are in its quarantine", record.quarantine.rows if record.quarantine else 0, bad),
        ):
            self._faults.require(rows == wanted, f"{shard}: {rows:,} {name}, there should be {wanted:,}")

    def _check_quarantine(self) -> None:
        try:
            whole, start = read_part(self._ledger, QUARANTINE), 0
            for shard in sorted(self._quarantined):
                rows = read_part(self._ledger, self._quarantined[shard].name)
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
            summary = self._ledger.summary()
        except SentrayError as error:
            self._faults.add(str(error))
            return
        if summary is None:
            self._faults.add(f"{SUMMARY} is missing; {AGAIN}")
            return
        bad = sum(self._sums["quarantined"].values()) if self._sums["quarantined"] else 0
        wanted = {key: self._sums[name] for key, name in _SUMS.items()}
        wanted |= {"rows_quarantined": bad, "shards": self._stored.shards, "bundle": self._stored.header.bundle}
        for key, value in wanted.items():
            has = summary.get(key)
            same = key in summary and (has or 0) == (value or 0)
            self._faults.require(same, f"{SUMMARY} says {key} {has}, the ledger {value}")


def _added(total: Any, more: Any) -> Any:
    """The sum of numbers, of lists place by place, or of dictionaries key by key."""
    if isinstance(more, dict):
        return dict(Counter(total or {}) + Counter(more))
    if isinstance(more, list):
        return [a + b for a, b in zip(total or [0] * len(more), more, strict=True)]
    return total + more


def _file_fault(ledger: Ledger, stored: Stored, part: Part) -> str | None:
    """What is wrong with a file of scores or of quarantined rows."""
    try:
        with ledger.open_file(part.name) as stream:
            if sha256_of(stream) != part.sha256:
                return f"{part.name} is not as it was written (its SHA-256 differs); delete it and {AGAIN}"
            file = pq.ParquetFile(stream)
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except FileNotFoundError:
        return f"{part.name} is gone; {AGAIN}"
    except (OSError, pa.ArrowException) as error:
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
