"""What a scoring job counts: `Counts` of rows, `Stats` of a job's shards, and its `Progress` for the user."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from sentray import profile
from sentray.bundle import Bundle
from sentray.config import ScoreSettings
from sentray.console import count, duration
from sentray.corpus.inspect import cure_of_ids
from sentray.corpus.splits import ShardPlan
from sentray.errors import SentrayError
from sentray.inference.scorer import Scores
from sentray.scoring import by
from sentray.scoring.by import MAX_VALUES
from sentray.task import NO_LABEL

if TYPE_CHECKING:
    from sentray.scoring.output import Record

WORKER_CPUS = 1
MAX_PARTITIONS = 1000
EARLY_STOP_ROWS, EARLY_STOP_MARGIN = 10_000, 2.0
"""Before its end a job stops for bad rows only after so many rows, and when this many times too many are bad."""

Number = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
"""A count as a ledger may hold it."""
_Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
ScoresBins = Annotated[list[Number], Field(min_length=profile.SCORE_BINS, max_length=profile.SCORE_BINS)]
LengthsBins = Annotated[list[Number], Field(min_length=len(profile.LENGTHS) + 1, max_length=len(profile.LENGTHS) + 1)]
KnownBins = Annotated[list[Number], Field(min_length=len(profile.KNOWN) + 1, max_length=len(profile.KNOWN) + 1)]
WordsBins = Annotated[list[Number], Field(min_length=profile.COMMONEST + 1, max_length=profile.COMMONEST + 1)]


@dataclass
class Counts:
    """Counts over rows read.

    Attributes:
        rows: Rows read.
        scored: Rows scored; the other rows are quarantined.
        quarantined: Rows set aside, by reason.
        labels: Rows by the label they got; those of which the bundle is unsure got none. Of several labels a row counts
            for each, and one without any for `NO_LABEL`.
        histogram: Rows in bins of a probability, or of the number; see `profile.of_scores`.
        words: Words of the scored rows.
        known_words: Those of them that the vocabulary has.
        spaced_words: Words of the scored rows as white space separates them.
        wordless: Scored rows of which the cleaning left no word.
        unknown: Scored rows without a word that the vocabulary has, those among them.
        bytes: Size of the input as stored.
        unread_bytes: Size of those of its files that could not be read to their end.
        seconds: Time that workers spent.
        peak_rss_mb: Most memory that a worker has held.
        lengths: Scored rows by their words, as `profile.of_lengths`; of no row where an earlier version counted, and so
            are the next two.
        known_shares: The same by the share of their words that is known, as `profile.of_known`.
        commonest: The commonest words in them, as `profile.of_words`.
        by: Scored rows by file, or by a column's value, and by label; see `sentray.scoring.by`.
    """

    rows: Number
    scored: Number
    quarantined: dict[str, Number]
    labels: dict[str, Number] = field(default_factory=dict)
    histogram: ScoresBins = field(default_factory=lambda: [0] * profile.SCORE_BINS)
    words: Number = 0
    known_words: Number = 0
    spaced_words: Number = 0
    wordless: Number = 0
    unknown: Number = 0
    bytes: Number = 0
    unread_bytes: Number = 0
    seconds: _Amount = 0.0
    peak_rss_mb: _Amount = 0.0
    lengths: LengthsBins = field(default_factory=lambda: [0] * (len(profile.LENGTHS) + 1))
    known_shares: KnownBins = field(default_factory=lambda: [0] * (len(profile.KNOWN) + 1))
    commonest: WordsBins = field(default_factory=lambda: [0] * (profile.COMMONEST + 1))
    by: Annotated[dict[str, dict[str, Number]], Field(max_length=MAX_VALUES + 2)] = field(default_factory=dict)

    @classmethod
    def none(cls) -> "Counts":
        """Counts of no rows, to add to."""
        return cls(0, 0, {})

    @property
    def bad(self) -> int:
        """Rows set aside."""
        return self.rows - self.scored

    def add(self, other: "Counts") -> None:
        """Add the counts of a shard."""
        words = ("words", "known_words", "spaced_words", "wordless", "unknown")
        for name in ("rows", "scored", *words, "bytes", "unread_bytes", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        _add(self.quarantined, other.quarantined)
        _add(self.labels, other.labels)
        self._add_bins(**{name: getattr(other, name) for name in _BINS})
        by.add(self.by, other.by)
        if len(self.by) > 2 * MAX_VALUES:
            self.by = by.bounded(self.by)
        self.peak_rss_mb = max(self.peak_rss_mb, other.peak_rss_mb)

    def add_scores(
        self,
        scores: Scores,
        labels: Sequence[str],
        values: pa.ChunkedArray | None = None,
        span: tuple[float, float] | None = None,
    ) -> None:
        """Add rows that were scored.

        Args:
            scores: Of the rows.
            labels: The bundle's.
            values: By which of each row's values `by` counts it.
            span: Of a regression's bins; see `profile.of_scores`.
        """
        rows = len(scores.words)
        self.rows += rows
        self.scored += rows
        if scores.task != "regression":
            decided = scores.decided
            found = dict(zip(labels, profile.of_labels(decided, len(labels)).tolist(), strict=True))
            if decided.ndim == 2:
                found[NO_LABEL] = int(np.count_nonzero(~decided.any(axis=1)))
            _add(self.labels, {label: number for label, number in found.items() if number})
            if values is not None:
                by.add(self.by, by.count(values, decided, labels))
        self._add_bins(
            histogram=profile.of_scores(scores.probabilities, scores.task, span).tolist(),
            lengths=profile.of_lengths(scores.words).tolist(),
            known_shares=profile.of_known(scores.words, scores.known).tolist(),
            commonest=profile.of_words(scores.ids).tolist(),
        )
        self.words += int(scores.words.sum(dtype=np.int64))
        self.known_words += int(scores.known.sum(dtype=np.int64))
        self.spaced_words += int(scores.spaced.sum(dtype=np.int64))
        self.wordless += int(np.count_nonzero(scores.words == 0))
        self.unknown += int(np.count_nonzero(scores.known == 0))

    def _add_bins(self, **more: list[int]) -> None:
        for name, bins in more.items():
            setattr(self, name, [a + b for a, b in zip(getattr(self, name), bins, strict=True)])

    def add_bad(self, reasons: pa.ChunkedArray) -> None:
        """Add rows that were set aside."""
        self.rows += len(reasons)
        _add(self.quarantined, {each["values"]: each["counts"] for each in pc.value_counts(reasons).to_pylist()})


_BINS = ("histogram", "lengths", "known_shares", "commonest")


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        total[name] = total.get(name, 0) + number


class Stats:
    """Which shards of a job are committed, what they add up to, and whether the job may go on.

    Args:
        plan: All shards.
        settings: What the job allows.
        records: Of the shards that are committed already.

    Attributes:
        total: What the committed shards' records count.
        done: For each shard whether it is committed.
        committed: How many are.
    """

    def __init__(self, plan: ShardPlan, settings: ScoreSettings, records: Iterable["Record"] = ()) -> None:
        self._settings, self._bytes, self._shards = settings, plan.bytes, len(plan)
        self.reset(records)

    def reset(self, records: Iterable["Record"]) -> None:
        """Count anew.

        Args:
            records: Of the shards that are committed now.
        """
        self.total, self.done, self.committed = Counts.none(), bytearray(self._shards), 0
        self._partitions: set[str] = set()
        for record in records:
            self.add(record)
        self._rows_before, self._bytes_before = self.total.rows, self.total.bytes

    @property
    def missing(self) -> int:
        """How many shards are not committed."""
        return self._shards - self.committed

    @property
    def progress(self) -> tuple[int, int]:
        """Rows and bytes as stored of what was committed since these were made or reset."""
        return self.total.rows - self._rows_before, self.total.bytes - self._bytes_before

    def describe(self, seconds: float) -> tuple[str, float]:
        """How far the job is, with rates and the time that is left: in a line, and as a share.

        Args:
            seconds: How long it scores by now.
        """
        total, (rows, size), seconds = self.total, self.progress, max(seconds, 1e-3)
        left = duration((self._bytes - total.bytes) * seconds / size) if size else "?"
        line = (
            f"{rows / seconds:,.0f} rows/s, {size / 1e6 / seconds:,.1f} MB/s, {left} left, {total.rows:,} rows, "
            f"{total.bad:,} quarantined, {self.committed:,} of {count(self._shards, 'shard')}"
        )
        return line, total.bytes / self._bytes if self._bytes else 1.0

    def add(self, record: "Record") -> None:
        """Add a shard that is committed."""
        self.total.add(record.counts)
        self.done[record.shard] = 1
        self.committed += 1
        if self._settings.partition_by is not None:
            self._partitions.update(part.name.rpartition("/")[0] for part in record.parts)

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
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in Counter(total.quarantined).most_common(3))
        cure = cure_of_ids(total.quarantined, total.rows)
        cure = cure and f"{cure}; choose another --out"
        cure = (
            cure
            or f"see {settings.out}/_sentray/quarantine, and allow more, or mend the input and choose another --out"
        )
        raise SentrayError(
            f"{total.bad:,} of {total.rows:,} rows of {settings.input} cannot be scored ({reasons}), more than "
            f"--max-bad-rows {settings.max_bad_rows:g} allows; {cure}"
        )

    def summary(self, model: Bundle) -> dict[str, Any]:
        """What a job's summary says of rows, scores and work."""
        total = self.total
        hours = total.seconds * WORKER_CPUS / 3600
        return {
            "rows": total.rows,
            "rows_scored": total.scored,
            "rows_quarantined": total.bad,
            "quarantined": dict(Counter(total.quarantined).most_common()),
            "labels": dict(sorted(total.labels.items())),
            "score_histogram": total.histogram,
            "words": total.words,
            "known_words": total.known_words,
            "spaced_words": total.spaced_words,
            "rows_without_words": total.wordless,
            "rows_without_known_words": total.unknown,
            "coverage": round(total.known_words / total.words, 6) if total.words else None,
            "training_coverage": model.metrics.get("coverage"),
            "bytes": total.bytes,
            "unread_bytes": total.unread_bytes,
            "peak_rss_mb": total.peak_rss_mb,
            "worker_seconds": round(total.seconds, 3),
            "core_hours": round(hours, 6),
            "core_hours_per_million": round(hours / total.rows * 1e6, 6) if total.rows else None,
        }


def too_many_partitions(rows: int, values: int, column: str) -> SentrayError:
    """The sentence for a column whose values would make too many folders."""
    return SentrayError(
        f"{rows:,} rows hold {values:,} values of {column}, and --partition-by makes a folder of each; choose a column "
        f"of at most {MAX_PARTITIONS:,} values"
    )
