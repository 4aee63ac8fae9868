"""What a scoring job counts, of a shard or of the whole input."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray.inference.scorer import Scores
from sentray.scoring.records import HISTOGRAM_BINS

_NONE = [0] * HISTOGRAM_BINS


@dataclass
class Counts:
    """Counts over rows read.

    Attributes:
        rows: Rows read.
        scored: Rows scored; the other rows are quarantined.
        quarantined: Rows set aside, by reason.
        labels: Rows by the label they got.
        histogram: Rows in equal bins from 0 to 1 of a probability: the second of two labels' or the best's.
        words: Words of the scored rows.
        known_words: Those of them that the vocabulary has.
        bytes: Size of the input as stored.
        unread_bytes: Size of those of its files that could not be read to their end.
        seconds: Time that workers spent.
        peak_rss_mb: Most memory that a worker has held.
    """

    rows: int = 0
    scored: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)
    words: int = 0
    known_words: int = 0
    bytes: int = 0
    unread_bytes: int = 0
    seconds: float = 0.0
    peak_rss_mb: float = 0.0

    @property
    def bad(self) -> int:
        """Rows set aside."""
        return self.rows - self.scored

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the counts of a shard, given as `to_json` makes them; what is missing counts nothing."""
        for name in ("rows", "scored", "words", "known_words", "bytes", "unread_bytes", "seconds"):
            setattr(self, name, getattr(self, name) + other.get(name, 0))
        self.quarantined.update(other["quarantined"])
        self.labels.update(other.get("labels", {}))
        self.histogram = [a + b for a, b in zip(self.histogram, other.get("histogram", _NONE), strict=True)]
        self.peak_rss_mb = max(self.peak_rss_mb, other.get("peak_rss_mb", 0.0))

    def add_scores(self, scores: Scores, labels: Sequence[str]) -> None:
        """Add rows that were scored."""
        rows = len(scores.words)
        self.rows += rows
        self.scored += rows
        found = np.bincount(scores.classes, minlength=len(labels)).tolist()
        self.labels.update({label: number for label, number in zip(labels, found, strict=True) if number})
        binned = scores.probabilities[:, 1] if len(labels) == 2 else scores.best
        in_bins, _ = np.histogram(binned, HISTOGRAM_BINS, (0, 1))
        self.histogram = [a + b for a, b in zip(self.histogram, in_bins.tolist(), strict=True)]
        self.words += int(scores.words.sum(dtype=np.int64))
        self.known_words += int(scores.known.sum(dtype=np.int64))

    def add_bad(self, reasons: pa.ChunkedArray) -> None:
        """Add rows that were set aside."""
        self.rows += len(reasons)
        self.quarantined.update({each["values"]: each["counts"] for each in pc.value_counts(reasons).to_pylist()})

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {**vars(self), "quarantined": dict(self.quarantined), "labels": dict(self.labels)}
