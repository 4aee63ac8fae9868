"""How many rows of a corpus are usable, and which are not and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, mark
from sentray.errors import SentrayError


@dataclass
class Inspection:
    """Counts of some rows; those of two parts of a corpus add up with `+`.

    Attributes:
        rows: all of them.
        labels: usable rows by split and label; the label is None for a review without one.
        reasons: rows set aside, by reason.
        bad: the rows set aside, in `QUARANTINE_SCHEMA`.
    """

    rows: int = 0
    labels: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bad: pa.Table = field(default_factory=QUARANTINE_SCHEMA.empty_table)

    @property
    def usable(self) -> int:
        """Rows that are not set aside."""
        return self.rows - self.reasons.total()

    @property
    def unlabelled(self) -> int:
        """Usable rows without a label."""
        return sum(count for (_, label), count in self.labels.items() if label is None)

    def of_split(self, split: str) -> Counter[str]:
        """Labelled usable rows of a split, by label."""
        return Counter(
            {label: count for (part, label), count in self.labels.items() if part == split and label is not None}
        )

    def classes(self, split: str | None = None) -> list[str]:
        """The labels that occur, sorted; in one split where given."""
        parts = {label for part, label in self.labels if label is not None and split in (None, part)}
        return sorted(parts)

    def check_usable(self, name: str, max_bad_rows: float) -> None:
        """Refuse a corpus without a usable row, or with too many rows that are not.

        Args:
            name: of the corpus, for the message.
            max_bad_rows: the share of rows that may be set aside.

        Raises:
            SentrayError: naming the commonest reasons and the first bad row.
        """
        if self.rows == 0:
            raise SentrayError(f"{name} holds no row: give a corpus with reviews in it")
        bad = self.reasons.total()
        if not bad or (self.usable and bad <= max_bad_rows * self.rows):
            return
        first = self.bad.slice(0, 1).to_pylist()[0]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common(3))
        allowed = f"more than --max-bad-rows {max_bad_rows:g} allows" if self.usable else "so that none is left"
        raise SentrayError(
            f"{bad:,} of {self.rows:,} rows of {name} cannot be used ({reasons}), {allowed}; mend the input"
            f"{' or allow more' if self.usable else ''}, beginning with {first['file']} row {first['row']} "
            f"({first['reason']})"
        )

    def check_trainable(self, name: str, max_bad_rows: float) -> None:
        """Refuse a corpus that nothing can be learnt from.

        Raises:
            SentrayError: as `check_usable`, and where no row is for training, or of one class only.
        """
        self.check_usable(name, max_bad_rows)
        classes = self.classes("train")
        if not classes:
            splits = ", ".join(sorted({split for split, _ in self.labels}))
            raise SentrayError(
                f"{name} has no labelled review whose split is train (its splits: {splits}): name the right "
                "columns with --split-column and --label-column"
            )
        if len(classes) == 1:
            raise SentrayError(
                f"{name} has only the class {classes[0]!r} to train on: give reviews of two classes or more"
            )

    def __add__(self, other: "Inspection") -> "Inspection":
        bad = pa.concat_tables([self.bad, other.bad]) if other.bad.num_rows else self.bad
        return Inspection(self.rows + other.rows, self.labels + other.labels, self.reasons + other.reasons, bad)


def inspect_block(table: pa.Table, labels: Sequence[str] | None = None) -> Inspection:
    """Count a table of `ROW_SCHEMA`.

    Args:
        table: as `read_shard` or `Corpus.map_blocks` gives it.
        labels: the only labels that count as known, where a model's are to be met.
    """
    if labels is not None:
        table = mark_unknown(table, labels)
    good = table.filter(pc.is_null(table["reason"]))
    bad = table.filter(pc.is_valid(table["reason"])).select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA)
    return Inspection(
        rows=table.num_rows,
        labels=Counter(zip(good["split"].to_pylist(), good["label"].to_pylist(), strict=True)),
        reasons=Counter(bad["reason"].to_pylist()),
        bad=bad,
    )


def mark_unknown(table: pa.Table, labels: Sequence[str]) -> pa.Table:
    """Set rows aside whose label is none of `labels` (those without a label are left as they are)."""
    known = pc.is_in(table["label"], pa.array(labels, pa.string()))
    unknown = pc.and_(pc.is_valid(table["label"]), pc.invert(known))
    return mark(table, unknown.to_numpy().astype(np.bool_), Reason.UNKNOWN_LABEL)
