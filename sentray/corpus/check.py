"""What `sentray check` says of a corpus: rows, labels, lengths, duplicates, overlap of train and test."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray import cluster
from sentray.config import CheckSettings
from sentray.console import Console
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.duplicates import hash_texts
from sentray.corpus.inspect import Inspection, inspect_rows
from sentray.corpus.rows import Hashes
from sentray.errors import SentrayError

EXAMPLES = 5
"""How many pairs of equal reviews are named."""

REVIEWS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("split", pa.string()),
        pa.field("hash", pa.uint64()),
        pa.field("words", pa.int32()),
    ]
)
"""What is kept of a usable review: `hash` is of its text, `words` counts what white space separates."""


@dataclass(frozen=True)
class Report:
    """A corpus at a glance.

    Attributes:
        corpus: one line about where it is and how large.
        inspection: rows by split and label, and the bad ones.
        words: least, mean, median, 95th percentile and most words of a review; empty where there is none.
        duplicates: usable reviews whose text an earlier one has.
        duplicate_examples: ids of such a review and of the first with its text.
        overlap: test reviews whose text is in train too.
        overlap_examples: ids of such a review and of one in train.
        problem: why training would refuse the corpus, or None.
    """

    corpus: str
    inspection: Inspection
    words: dict[str, float] = field(default_factory=dict)
    duplicates: int = 0
    duplicate_examples: tuple[tuple[str, str], ...] = ()
    overlap: int = 0
    overlap_examples: tuple[tuple[str, str], ...] = ()
    problem: str | None = None

    def lines(self) -> list[str]:
        """The report as plain text."""
        counts = self.inspection
        lines = [self.corpus, f"rows            {counts.rows:,}, usable {counts.usable:,}"]
        for split in sorted({split for split, _ in counts.labels}):
            lines.append(f"{split:<16}{_balance(counts, split)}")
        if self.words:
            w = self.words
            lines.append(
                f"words a review  least {w['min']:,.0f}, mean {w['mean']:,.1f}, median {w['median']:,.0f}, "
                f"95 % up to {w['p95']:,.0f}, most {w['max']:,.0f}"
            )
        bad = ", ".join(f"{reason} {count:,}" for reason, count in counts.reasons.most_common())
        lines.append(f"bad rows        {bad or 'none'}")
        lines += [f"  {row['file']} row {row['row']}: {row['reason']}" for row in self._first_bad()]
        lines.append(f"same text       {self.duplicates:,} reviews repeat an earlier one")
        lines += [f"  {later} is {first}" for later, first in self.duplicate_examples]
        lines.append(f"test in train   {self.overlap:,} test reviews are in train too")
        lines += [f"  {test} is {train}" for test, train in self.overlap_examples]
        return lines + ([f"training would stop: {self.problem}"] if self.problem else [])

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values with stable keys."""
        labels: dict[str, dict[str, int]] = {}
        for (split, label), count in sorted(self.inspection.labels.items(), key=str):
            labels.setdefault(split, {})["" if label is None else label] = count
        return {
            "corpus": self.corpus,
            "rows": self.inspection.rows,
            "usable_rows": self.inspection.usable,
            "unlabelled_rows": self.inspection.unlabelled,
            "labels": labels,
            "words": self.words,
            "bad_rows": dict(self.inspection.reasons),
            "first_bad_rows": self._first_bad(),
            "duplicate_texts": self.duplicates,
            "duplicate_examples": [list(pair) for pair in self.duplicate_examples],
            "train_test_overlap": self.overlap,
            "overlap_examples": [list(pair) for pair in self.overlap_examples],
            "problem": self.problem,
        }

    def _first_bad(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (
            self.inspection.bad.slice(0, EXAMPLES).select(["file", "row", "reason"]).to_pylist()
        )
        return rows


def check(settings: CheckSettings, console: Console) -> Report:
    """Look at every row of a corpus, in parallel; labels need not be there.

    Raises:
        SentrayError: there is no such corpus, or a file cannot be read.
    """
    with cluster.connect(settings.address, cpus=settings.workers, verbose=settings.verbose):
        corpus = Corpus.open(settings.corpus, settings, need_label=False)
        return report(corpus.describe(), corpus.map_blocks(look_at), settings, console)


def look_at(rows: pa.Table) -> Tables:
    """A stage: `inspect_rows`, and the usable `reviews` of `REVIEWS_SCHEMA`."""
    good = rows.filter(pc.is_null(rows["reason"]))
    texts = good["text"].combine_chunks()
    words = [len(text.split()) for text in texts.to_pylist()]
    reviews = pa.table([good["id"], good["split"], hash_texts(texts), words], schema=REVIEWS_SCHEMA)
    return {**inspect_rows(rows), "reviews": reviews}


def report(name: str, blocks: Iterable[Tables], settings: CheckSettings, console: Console) -> Report:
    """Put together what `look_at` found.

    Args:
        name: one line about the corpus.
        blocks: of all its rows, in order.
        settings: for the share of bad rows that training allows.
        console: for the progress.
    """
    inspection, tables = Inspection(), [REVIEWS_SCHEMA.empty_table()]
    for found in blocks:
        inspection += Inspection.of(found)
        tables.append(found["reviews"])
        console.progress(f"{inspection.rows:,} rows looked at")
    problem = None
    try:
        inspection.check_trainable(settings.corpus, settings.max_bad_rows)
    except SentrayError as error:
        problem = str(error)
    if not inspection.usable:
        return Report(name, inspection, problem=problem)
    reviews = pa.concat_tables(tables)
    hashes = reviews["hash"].to_numpy()
    train, test = (np.flatnonzero(pc.equal(reviews["split"], split).to_numpy()) for split in ("train", "test"))
    later, first = _repeats(hashes)
    both, source = _found_in(hashes, test, train)
    return Report(
        name,
        inspection,
        _lengths(reviews["words"].to_numpy()),
        len(later),
        _pairs(reviews["id"], later, first),
        len(both),
        _pairs(reviews["id"], both, source),
        problem,
    )


Positions = npt.NDArray[np.intp]


def _repeats(hashes: Hashes) -> tuple[Positions, Positions]:
    """Positions whose hash occurs before, and where each occurs first."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    later = np.flatnonzero(first[group] != np.arange(len(hashes)))
    return later, first[group[later]]


def _found_in(hashes: Hashes, wanted: Positions, among: Positions) -> tuple[Positions, Positions]:
    """Those of the positions `wanted` whose hash occurs `among` others, and where."""
    known, first = np.unique(hashes[among], return_index=True)
    both = wanted[np.isin(hashes[wanted], known)]
    return both, among[first[np.searchsorted(known, hashes[both])]]


def _pairs(ids: pa.ChunkedArray, left: Positions, right: Positions) -> tuple[tuple[str, str], ...]:
    sides = (ids.take(pa.array(side[:EXAMPLES])).to_pylist() for side in (left, right))
    return tuple(zip(*sides, strict=True))


def _lengths(words: npt.NDArray[np.int32]) -> dict[str, float]:
    shares = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    found = np.quantile(words, list(shares.values()), method="inverted_cdf").astype(int).tolist()
    return {**dict(zip(shares, found, strict=True)), "mean": float(words.sum() / len(words))}


def _balance(counts: Inspection, split: str) -> str:
    labels = {label: count for (part, label), count in counts.labels.items() if part == split}
    total = sum(labels.values())
    shares = [
        f"{'no label' if label is None else label} {count:,} ({count / total:.1%})"
        for label, count in sorted(labels.items(), key=lambda item: (item[0] is None, item[0]))
    ]
    return f"{total:,}: {', '.join(shares)}"
