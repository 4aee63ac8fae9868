"""What a scoring job has done: which shards are committed, what they add up to, and whether it may go on."""

from collections.abc import Callable
from typing import Any

from sentray.bundle import Bundle
from sentray.config import ScoreSettings
from sentray.corpus.splits import ShardPlan
from sentray.errors import SentrayError
from sentray.scoring.counts import Counts
from sentray.scoring.ledger import Ledger, Part, Record, partition_of
from sentray.scoring.pool import WORKER_CPUS
from sentray.scoring.worker import MAX_PARTITIONS, too_many_partitions
from sentray.storage import sha256_of

EARLY_STOP_ROWS, EARLY_STOP_MARGIN = 10_000, 2.0
"""Before its end a job stops for bad rows only after so many rows, and when this many times too many are bad."""


class Accounts:
    """Which shards are committed, and what their records count.

    Args:
        plan: All shards.
        settings: What the job allows.

    Attributes:
        total: What the committed shards' records count.
        done: For each shard whether it is committed.
        committed: How many are.
    """

    def __init__(self, plan: ShardPlan, settings: ScoreSettings) -> None:
        self._settings, self._bytes, self._shards = settings, plan.bytes, len(plan)
        self._clear()

    def _clear(self) -> None:
        self.total, self.done, self.committed = Counts(), bytearray(self._shards), 0
        self._partitions: set[str] = set()

    @property
    def missing(self) -> int:
        """How many shards are not committed."""
        return self._shards - self.committed

    def count(self, ledger: Ledger) -> None:
        """Begin anew with the shards that are committed now."""
        self._clear()
        for record in ledger.records():
            self.add(record)

    def add(self, record: Record) -> None:
        """Add a shard that is committed."""
        self.total.add(record.counts)
        self.done[record.shard] = 1
        self.committed += 1
        if self._settings.partition_by is not None:
            self._partitions.update(partition_of(part.name) for part in record.parts)

    def require_few_partitions(self) -> None:
        """Stop when the shards together make too many folders.

        Raises:
            SentrayError: When there are more than `MAX_PARTITIONS`.
        """
        if len(self._partitions) > MAX_PARTITIONS:
            assert self._settings.partition_by is not None
            raise too_many_partitions(self.total.scored, len(self._partitions), self._settings.partition_by)

    def require_good_rows(self) -> None:
        """Stop when too many rows are bad.

        Before the end, the input's rows are guessed from the share of its bytes that is done: only after many rows,
        and with room for a wrong guess. A file that cannot be read is one bad row, so its size counts too.

        Raises:
            SentrayError: When more are bad than `--max-bad-rows` allows.
        """
        total, settings, allowed = self.total, self._settings, self._settings.max_bad_rows
        if total.unread_bytes > allowed * self._bytes:
            raise SentrayError(
                f"{total.unread_bytes / 1e6:,.1f} of {self._bytes / 1e6:,.1f} MB of {settings.input} are in files that "
                f"cannot be read, more than --max-bad-rows {allowed:g} allows; put the files back as they were and run "
                "the same command again, or allow more with --max-bad-rows"
            )
        share_done = total.bytes / self._bytes if self._bytes else 1.0
        if share_done < 1:
            if total.rows < EARLY_STOP_ROWS:
                return
            allowed *= EARLY_STOP_MARGIN / share_done
        if total.bad <= allowed * total.rows:
            return
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in total.quarantined.most_common(3))
        raise SentrayError(
            f"{total.bad:,} of {total.rows:,} rows of {settings.input} cannot be scored ({reasons}), more than "
            f"--max-bad-rows {settings.max_bad_rows:g} allows; see {settings.out}/_sentray/quarantine, and allow more, "
            "or mend the input and choose another --out"
        )

    def summary(self, model: Bundle) -> dict[str, Any]:
        """What a job's summary says of rows, scores and work."""
        total = self.total
        hours = total.seconds * WORKER_CPUS / 3600
        return {
            "rows": total.rows,
            "rows_scored": total.scored,
            "rows_quarantined": total.bad,
            "quarantined": dict(total.quarantined.most_common()),
            "labels": dict(sorted(total.labels.items())),
            "score_histogram": total.histogram,
            "words": total.words,
            "known_words": total.known_words,
            "coverage": round(total.known_words / total.words, 6) if total.words else None,
            "training_coverage": model.metrics.get("coverage"),
            "bytes": total.bytes,
            "unread_bytes": total.unread_bytes,
            "peak_rss_mb": total.peak_rss_mb,
            "worker_seconds": round(total.seconds, 3),
            "core_hours": round(hours, 6),
            "core_hours_per_million": round(hours / total.rows * 1e6, 6) if total.rows else None,
        }


def is_intact(ledger: Ledger, record: Record) -> bool:
    """Whether a shard's files are those that its record tells of, to the last byte."""
    return all(_is_as_recorded(ledger, part) for part in _files(record))


def _is_as_recorded(ledger: Ledger, part: Part) -> bool:
    try:
        with ledger.open_file(part.name) as stream:
            return sha256_of(stream) == part.sha256
    except OSError:
        return False


def _files(record: Record) -> tuple[Part, ...]:
    return (*record.parts, record.quarantine) if record.quarantine else record.parts


def withdraw(ledger: Ledger, wrong: Callable[[Record], bool]) -> list[int]:
    """Take committed shards back: their files go, and without them their records do not count.

    Args:
        ledger: The output folder; nothing of it is gathered.
        wrong: Which; the same ones again after a kill that left some of their files.

    Returns:
        The shards.
    """
    found = []
    for record in filter(wrong, ledger.recorded()):
        found.append(record.shard)
        for part in _files(record):
            ledger.delete(part.name)
    return found
