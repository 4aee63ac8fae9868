"""How many rows of a corpus are usable, and which are not and why: `Inspection`, from what `inspect_rows` counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from sentray.corpus.limits import MAX_LABEL, MAX_LABELS, MAX_NAME
from sentray.corpus.rows import QUARANTINE_SCHEMA, Reason, as_mask, label_form, label_order, mark, set_aside
from sentray.errors import SentrayError
from sentray.task import Task, join, split

LABELS_SCHEMA = pa.schema(
    [pa.field("split", pa.string()), pa.field("label", pa.string()), pa.field("rows", pa.int64())]
)
"""Usable rows by split and label; the label is null for reviews without one."""

FEW = 100
"""With fewer rows a measurement says little."""
MAX_LISTED = 20
"""Labels that a line names."""
_ONCE = 0.9
"""Where more than this share of many labels occur once, they are no labels."""


def inspect_rows(rows: pa.Table, labels: Sequence[str] | None = None, need_label: bool = False) -> dict[str, pa.Table]:
    """A stage that counts rows, for `Inspection.of`; other stages add it to what they make.

    Args:
        rows: a table of `ROW_SCHEMA`.
        labels: the only labels that count as known, where a model's are to be met.
        need_label: set rows aside that have no label, where the reader has not done so.

    Returns:
        `labels`, of `LABELS_SCHEMA`, and the rows that are set aside as `bad`, of `QUARANTINE_SCHEMA`.
    """
    if labels is not None:
        rows = mark_unknown(rows, labels)
    if need_label:
        lacking = pc.and_(pc.is_null(rows["label"]), pc.fill_null(pc.not_equal(rows["split"], "unsup"), True))
        rows = mark(rows, as_mask(lacking), Reason.MISSING_LABEL)
    good = rows.filter(pc.is_null(rows["reason"]))
    counts = good.group_by(["split", "label"], use_threads=False).aggregate([([], "count_all")])
    return {"labels": counts.rename_columns(LABELS_SCHEMA.names).cast(LABELS_SCHEMA), "bad": set_aside(rows)}


def mark_unknown(rows: pa.Table, labels: Sequence[str]) -> pa.Table:
    """Set rows aside that have a label which is none of `labels` (those without a label are left as they are).

    Older bundles have labels such as 0.0 and True: the rows get theirs.
    """
    known = {label_form(label): label for label in labels} | {label: label for label in labels}
    encoded = rows["label"].combine_chunks().dictionary_encode()
    given = [split(label) for label in encoded.dictionary.to_pylist()]
    strange = [next((each for each in of_row if each not in known), None) for of_row in given]
    label = pa.array([join([known.get(each, each) for each in of_row]) for of_row in given], pa.string())
    detail = [None if each is None else f"label '{each[:MAX_NAME]}' is none of {listed(labels)}" for each in strange]
    column = rows.schema.get_field_index("label")
    rows = rows.set_column(column, rows.schema.field(column), label.take(encoded.indices))
    causes = pa.array(detail, pa.string()).take(encoded.indices)
    return mark(rows, as_mask(pc.is_valid(causes)), Reason.UNKNOWN_LABEL, causes)


def listed(labels: Sequence[str]) -> str:
    """Labels for a sentence, at most `MAX_LISTED` of them."""
    more = len(labels) - MAX_LISTED
    return ", ".join(f"'{label[:MAX_NAME]}'" for label in labels[:MAX_LISTED]) + (f" and {more:,} more" * (more > 0))


def cure_of_ids(reasons: Mapping[str, int], rows: int) -> str | None:
    """What to do where more than half of the rows repeat an id: a column that says the product, say, gives none."""
    if 2 * reasons.get(Reason.DUPLICATE_ID, 0) <= rows:
        return None
    return (
        "most rows repeat an earlier one's id, so that the column of the ids seems to be no id: give --id-column none, "
        "and path and position are the ids"
    )


@dataclass
class Inspection:
    """Counts of some rows; those of two parts of a corpus add up with `+`.

    Attributes:
        labels: usable rows by split and label, of several labels by all of them as `task.join` has them; the label is
            None for a review without one.
        bad: the rows set aside, in `QUARANTINE_SCHEMA`.
    """

    labels: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    bad: pa.Table = field(default_factory=QUARANTINE_SCHEMA.empty_table)

    @classmethod
    def of(cls, tables: dict[str, pa.Table]) -> "Inspection":
        """What `inspect_rows` counted, of one block of rows or of several."""
        labels: Counter[tuple[str, str | None]] = Counter()
        for part, label, rows in zip(*(column.to_pylist() for column in tables["labels"].columns), strict=True):
            labels[part, label] += rows
        return cls(labels, tables["bad"])

    @property
    def rows(self) -> int:
        """All of them."""
        return self.usable + len(self.bad)

    @property
    def reasons(self) -> Counter[str]:
        """Rows set aside, by reason."""
        return Counter(self.bad["reason"].to_pylist())

    @property
    def usable(self) -> int:
        """Rows that are not set aside."""
        return self.labels.total()

    def of_split(self, split: str) -> Counter[str]:
        """Labelled usable rows of a split, by label."""
        of_split = {label: count for (part, label), count in self.labels.items() if part == split}
        return Counter({label: count for label, count in of_split.items() if label is not None})

    def classes(self, *splits: str) -> list[str]:
        """The labels that occur in splits, in their order."""
        return sorted({each for part in splits for each in by_label(self.of_split(part))}, key=label_order)

    def check_usable(self, name: str, max_bad_rows: float) -> None:
        """Refuse a corpus without a usable row, or with too many rows that are not.

        Args:
            name: of the corpus, for the message.
            max_bad_rows: the share of rows that may be set aside.

        Raises:
            SentrayError: naming the commonest reasons and the first row with the commonest.
        """
        if self.rows == 0:
            raise SentrayError(f"{name} holds no row: give a corpus with reviews in it")
        bad = self.bad.num_rows
        if not bad or (self.usable and bad <= max_bad_rows * self.rows):
            return
        (commonest, _), *_ = self.reasons.most_common(1)
        first = self.bad.filter(pc.equal(self.bad["reason"], commonest)).slice(0, 1).to_pylist()[0]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common(3))
        allowed = f"more than --max-bad-rows {max_bad_rows:g} allows" if self.usable else "so that none is left"
        cure = cure_of_ids(self.reasons, self.rows) or (
            f"mend the input{' or allow more' if self.usable else ''}, beginning with {first['file']} row "
            f"{first['row']} ({first['reason']}{': ' + first['detail'] if first['detail'] else ''})"
        )
        raise SentrayError(f"{bad:,} of {self.rows:,} rows of {name} cannot be used ({reasons}), {allowed}; {cure}")

    def check_trainable(self, name: str, max_bad_rows: float, task: Task = "classification") -> None:
        """Refuse a corpus that nothing can be learnt from.

        Args:
            name: of the corpus, for the message.
            max_bad_rows: the share of rows that may be set aside.
            task: what is asked of a review.

        Raises:
            SentrayError: as `check_usable`, and where no row is for training, or of one class only, or the labels are
                none.
        """
        rows = self.of_split("train")
        train = rows if task == "regression" else by_label(rows)
        once = sum(rows == 1 for rows in train.values())
        if task != "regression" and len(train) > MAX_LISTED and once > _ONCE * len(train):
            raise SentrayError(
                f"nearly every label of {name} occurs once ({once:,} of {len(train):,}, in {rows.total():,} training "
                "reviews): is --label-column right?"
            )
        if task != "regression" and (len(train) > MAX_LABELS or any(len(label) > MAX_LABEL for label in train)):
            raise SentrayError(
                f"{name} has {len(train):,} labels of up to {max(map(len, train)):,} characters, and a model can have "
                f"{MAX_LABELS:,} of up to {MAX_LABEL:,}: is --label-column right?"
            )
        self.check_usable(name, max_bad_rows)
        classes = self.classes("train")
        if not rows:
            splits = ", ".join(sorted({part for part, _ in self.labels}))
            raise SentrayError(
                f"{name} has no labelled review whose split is train (its splits: {splits}): name the right "
                "columns with --split-column and --label-column, or rename a file whose name says another split"
            )
        if task == "multilabel" and len(rows) == 1:
            raise SentrayError(f"all training reviews of {name} have the same labels: give reviews that differ in them")
        if task != "multilabel" and len(classes) == 1:
            raise SentrayError(
                f"{name} has only the class {classes[0]!r} to train on: give reviews of two classes or more"
            )

    def __add__(self, other: "Inspection") -> "Inspection":
        bad = pa.concat_tables([self.bad, other.bad]) if other.bad.num_rows else self.bad
        return Inspection(self.labels + other.labels, bad)


def warnings_of(rows: Mapping[str, int], total: int | None = None) -> list[str]:
    """What is to be said of the rows, by label, that a model is measured on: they are few, or of one label.

    Args:
        rows: by label; of several labels a row counts for each.
        total: how many rows these are; their sum where not given.
    """
    total, said = sum(rows.values()) if total is None else total, []
    if total < FEW:
        said.append(f"only {total:,} rows are measured, so that a single one is {1 / max(total, 1):.1%} of them")
    if len(rows) == 1 and sum(rows.values()) == total:
        said.append(f"all rows that are measured have the label {', '.join(split(next(iter(rows))))!r}")
    return said


def by_label(rows: Mapping[str, int]) -> Counter[str]:
    """Rows by label from those by all labels of a row: one of several labels counts for each of them."""
    found: Counter[str] = Counter()
    for labels, count in rows.items():
        for label in split(labels):
            found[label] += count
    return found


def counted(labels: Mapping[str, int], total: int = 0) -> str:
    """Labels with their rows in one line, and with their share of a total; of very many the commonest."""
    shown = list(labels) if len(labels) <= MAX_LISTED else sorted(labels, key=lambda label: -labels[label])[:MAX_LISTED]
    shares = [
        f"{label[:MAX_NAME]} {labels[label]:,}" + (f" ({labels[label] / total:.1%})" if total else "")
        for label in shown
    ]
    more = len(labels) - len(shown)
    return ", ".join(shares) + (f" and {more:,} more" if more else "")


def as_trained(
    inspection: Inspection,
    look: Callable[[list[str] | None], Iterable[dict[str, pa.Table]]],
    splits: Sequence[str] = ("train",),
    task: Task = "classification",
) -> Inspection:
    """A corpus's inspection as training sees it: rows without a label, or with one that no training row has, are bad.

    Args:
        inspection: of the corpus.
        look: gives what `inspect_rows` finds with these labels alone, of all blocks of the corpus.
        splits: of the rows that are trained on.
        task: what is asked of a review; a number need not be one that a training row has.
    """
    labels = inspection.classes(*splits)
    lacking = any(label is None and part != "unsup" for part, label in inspection.labels)
    strange = task != "regression" and set(inspection.classes("test")) - set(labels)
    if not labels or not (lacking or strange):
        return inspection
    return sum(map(Inspection.of, look(None if task == "regression" else labels)), start=Inspection())
