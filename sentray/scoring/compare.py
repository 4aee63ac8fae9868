"""The output of a scoring job compared with its input, row by row: what `sentray verify --input` adds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray.config import CorpusSettings
from sentray.console import count
from sentray.corpus.duplicates import Rows, find_duplicates, mark_duplicates, shard_ids
from sentray.corpus.readers import read_shard
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, mark
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Shard, ShardPlan
from sentray.errors import SentrayError
from sentray.scoring.compaction import read_part
from sentray.scoring.ledger import Ledger, Part, Record, partition_of
from sentray.scoring.plan_check import footer_faults
from sentray.scoring.plans import load_plan
from sentray.scoring.verify import Faults

_WHICH_ROW = ["file", "row", "id", "reason"]


def compare(ledger: Ledger, uri: str, faults: Faults) -> str:
    """Read the input again and find each of its rows in the output; gives what was compared in a line.

    Args:
        ledger: An output in which nothing else is wrong.
        uri: The input, at its old place or another.
        faults: Where differences are noted.

    Raises:
        SentrayError: When the input cannot be found or has another format.
    """
    stored = ledger.stored()
    source = resolve(uri)
    columns = stored.header.columns
    settings = CorpusSettings(text_column=columns["text"], id_column=columns["id"], test_fraction=0)
    if source.format != stored.format:
        raise SentrayError(f"{uri} is {source.format} and the job's input {stored.format}; give that or a copy of it")
    shards = _Here(load_plan(ledger, stored), source)
    for sentence in footer_faults(shards.plan, source, shards.root):
        faults.add(sentence)
    duplicates = find_duplicates(
        (shard.index, *block) for shard in shards for block in shard_ids(source, shard, settings)
    )
    records = {record.shard: record._replace(counts={}) for record in ledger.recorded()}
    scores = _Scores(ledger)
    rows = 0
    for shard in shards:
        record = records[shard.index]
        bad = _quarantined(ledger, record)
        good, set_aside = _read(source, shard, settings, columns["keep"], duplicates.get(shard.index, {}), bad)
        rows += len(good) + set_aside.num_rows
        for fault in (_ids_fault(good, scores.of(record)), _quarantine_fault(set_aside, bad)):
            faults.require(fault is None, f"shard {shard.index} ({shard.pieces[0].name}): {fault}")
    return f"{rows:,} rows of {uri} compared, {count(len(records), 'shard')}"


class _Here:
    """The shards of a plan, at the place where the input is now; what is not there cannot be read."""

    def __init__(self, plan: ShardPlan, source: Source) -> None:
        self.plan = plan
        self.root = source.files[0].path.removesuffix(source.files[0].name) if source.files else ""

    def __iter__(self) -> Iterator[Shard]:
        for shard in self.plan:
            yield replace(shard, pieces=tuple(replace(piece, path=self.root + piece.name) for piece in shard.pieces))


class _Scores:
    """The ids of shards, asked for in the shards' order; of a gathered file they are kept until its last shard."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._file = {
            (partition_of(part.name), shard): (part.name, start, rows, shard == members[-1][0])
            for part, members in ledger.gathered()
            for (shard, rows), start in zip(members, _starts(members), strict=True)
        }
        self._open: dict[str, pa.ChunkedArray] = {}

    def of(self, record: Record) -> list[pa.ChunkedArray]:
        """The ids in each of a shard's parts."""
        return [self._ids(record.shard, part) for part in record.parts]

    def _ids(self, shard: int, part: Part) -> pa.ChunkedArray:
        place = self._file.pop((partition_of(part.name), shard), None)
        if place is None:
            return read_part(self._ledger, part.name, ["id"])["id"]
        name, start, rows, is_last = place
        if name not in self._open:
            self._open[name] = read_part(self._ledger, name, ["id"])["id"]
        ids = self._open[name].slice(start, rows)
        if is_last:
            del self._open[name]
        return ids


def _starts(members: list[list[int]]) -> list[int]:
    return [0, *np.cumsum([rows for _, rows in members])[:-1].tolist()]


def _read(
    source: Source,
    shard: Shard,
    settings: CorpusSettings,
    keep: Sequence[str],
    duplicates: Rows,
    quarantined: pa.Table,
) -> tuple[pa.ChunkedArray, pa.Table]:
    """The ids of a shard's good rows, and which rows are bad.

    Which rows kill the process that scores them cannot be read off the input: there the quarantine is believed.
    """
    deadly = quarantined.filter(pc.equal(quarantined["reason"], str(Reason.CRASH)))
    killers = set(zip(deadly["file"].to_pylist(), deadly["row"].to_pylist(), strict=True))
    good, bad = [pa.chunked_array([], pa.string())], [quarantined.schema.empty_table().select(_WHICH_ROW)]
    for table in read_shard(source, shard, settings, keep, on_unreadable="quarantine"):
        rows = mark_duplicates(table, duplicates)
        if killers:
            of_table = zip(rows["file"].to_pylist(), rows["row"].to_pylist(), strict=True)
            rows = mark(rows, np.fromiter((row in killers for row in of_table), bool, rows.num_rows), Reason.CRASH)
        good.append(rows.filter(pc.is_null(rows["reason"]))["id"])
        bad.append(rows.filter(pc.is_valid(rows["reason"])).select(_WHICH_ROW))
    return pa.chunked_array([chunk for ids in good for chunk in ids.chunks], pa.string()), pa.concat_tables(bad)


def _quarantined(ledger: Ledger, record: Record) -> pa.Table:
    return read_part(ledger, record.quarantine.name) if record.quarantine else QUARANTINE_SCHEMA.empty_table()


def _ids_fault(wanted: pa.ChunkedArray, parts: list[pa.ChunkedArray]) -> str | None:
    """How the ids in a shard's files differ from those of its good rows; within a file the order counts too."""
    places = [pc.index_in(ids, value_set=wanted) for ids in parts]
    for ids, place in zip(parts, places, strict=True):
        if place.null_count:
            foreign = ids.filter(pc.is_null(place))
            return f"{len(foreign):,} scored rows are not in the input (the first has the id {foreign[0]})"
    found = np.concatenate([np.zeros(0, np.int64), *(place.to_numpy() for place in places)])
    times = np.bincount(found, minlength=len(wanted))
    if (times != 1).any():
        row = int(np.argmax(times != 1))
        return f"{int((times != 1).sum()):,} good rows are not scored once (the id {wanted[row]} {times[row]} times)"
    if any((np.diff(place.to_numpy()) < 0).any() for place in places):
        return "its rows are not in the input's order"
    return None


def _quarantine_fault(wanted: pa.Table, found: pa.Table) -> str | None:
    if found.select(_WHICH_ROW).equals(wanted):
        return None
    rows, kept = ([tuple(row.values()) for row in table.select(_WHICH_ROW).to_pylist()] for table in (wanted, found))
    first = next(iter(sorted(set(rows) ^ set(kept), key=lambda row: row[:2])), rows[0] if rows else None)
    return f"its quarantine holds {len(kept):,} rows and the input has {len(rows):,} bad ones (look at {first})"
