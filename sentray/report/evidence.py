"""Rows that a bundle was measured on, kept to be looked at: `Evidence`, and which of them are (`thin`).

Of many rows a sample is kept, and the texts of those alone whose label the bundle denies most.
"""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentray.errors import SentrayError, first_line
from sentray.storage import Folder
from sentray.task import Task

if TYPE_CHECKING:
    from sentray.bundle import Bundle

EVIDENCE_FILE = "evidence.parquet"
MAX_SAMPLE, MAX_SHOWN, MAX_TEXT = 20_000, 100, 10_000
"""Rows of a sample, rows that are kept with their text, characters of it."""

_TRUTHS: dict[Task, pa.DataType] = {
    "classification": pa.int32(),
    "ordinal": pa.int32(),
    "multilabel": pa.list_(pa.uint8()),
    "regression": pa.float32(),
}


def evidence_schema(task: Task) -> pa.Schema:
    """Columns of a row for a review.

    `hash` is of its text, `truth` what is true of it, as `sentray.evaluation.truths` gives it, `words` what cleaning
    left, `known` those that have an id, `sampled` whether it stands for all rows, `text` of the rows to show, at most
    `MAX_TEXT` characters.
    """
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("hash", pa.uint64()),
            pa.field("truth", _TRUTHS[task]),
            pa.field("probabilities", pa.list_(pa.float32())),
            pa.field("words", pa.int32()),
            pa.field("known", pa.int32()),
            pa.field("sampled", pa.bool_()),
            pa.field("text", pa.large_string()),
        ]
    )


_ABOUT = b"sentray"
_BEGINS = 80


@dataclass(frozen=True)
class Evidence:
    """Rows that a bundle was measured on.

    Attributes:
        rows: Of `evidence_schema`.
        which: `validation` for rows that were held out of the fits that gave these probabilities, else `test`.
        of: Rows that were measured; more than `rows` where they are a sample.
        about: What else is known: the `bundle`'s digest, and `seconds` by stage of the training's last start.
    """

    rows: pa.Table
    which: str
    of: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def sample(self) -> pa.Table:
        """The rows that stand for all."""
        return self.rows.filter(self.rows["sampled"])

    @property
    def is_part(self) -> bool:
        """Whether the sample is not all rows."""
        return bool(len(self.sample) < self.of)

    @property
    def shown(self) -> pa.Table:
        """The rows whose label is denied most, the surest first, with texts where these are kept."""
        margins = margin(array_of(self.rows["probabilities"]), array_of(self.rows["truth"]))
        return self.rows.take(np.argsort(margins, kind="stable")[:MAX_SHOWN])

    def without_texts(self) -> Self:
        """The same rows without their texts."""
        column = self.rows.schema.get_field_index("text")
        rows = self.rows.set_column(column, self.rows.schema.field("text"), pa.nulls(len(self.rows), pa.large_string()))
        return type(self)(rows, self.which, self.of, self.about)

    @classmethod
    def beside(cls, bundle: "Bundle", texts: bool = True) -> Self | None:
        """What lies beside a bundle, None where nothing does.

        Args:
            bundle: Which.
            texts: Whether texts are wanted.

        Raises:
            SentrayError: It cannot be read, or is of another bundle.
        """
        if (kept := Folder(bundle.path).read(EVIDENCE_FILE)) is None:
            return None
        file, cure = f"{bundle.path}/{EVIDENCE_FILE}", "remove it, and give a corpus to measure on"
        try:
            found = cls.from_bytes(kept)
        except (ValueError, pa.ArrowException) as error:
            raise SentrayError(f"{file} is damaged ({first_line(error)}): {cure}") from error
        if found.about.get("bundle") != bundle.digest:
            raise SentrayError(f"{file} is of another bundle: {cure}")
        return found if texts else found.without_texts()

    def to_bytes(self) -> bytes:
        """A Parquet file."""
        about = json.dumps({"which": self.which, "of": self.of, "about": self.about})
        sink = pa.BufferOutputStream()
        pq.write_table(self.rows.replace_schema_metadata({_ABOUT: about}), sink, compression="zstd")
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` gave.

        Raises:
            ValueError: It is something else.
        """
        table = pq.read_table(pa.BufferReader(content))
        about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"null"))
        plain = table.replace_schema_metadata(None)
        if about is None or plain.schema not in map(evidence_schema, _TRUTHS):
            raise ValueError("it is no evidence of sentray")
        return cls(plain, **about)


def column_of(values: NDArray[Any]) -> pa.Array:
    """Numbers of rows, [rows] or [rows, n], as a column."""
    if values.ndim == 1:
        return pa.array(values)
    rows, count = values.shape
    return pa.ListArray.from_arrays(np.arange(0, rows * count + 1, count, dtype=np.int32), values.ravel())


def array_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """What `column_of` was given; [0, 0] where there are no rows of lists."""
    if not pa.types.is_list(column.type):
        return np.asarray(column.to_numpy())
    flat: NDArray[Any] = pc.list_flatten(column).to_numpy()
    return flat.reshape(len(column), len(flat) // max(len(column), 1))


def is_right(truth: NDArray[Any], decided: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows got their label, or all their labels and no other; [rows].

    Args:
        truth: As `sentray.evaluation.truths` gives it.
        decided: As `Decision.of` gives it.
    """
    same = np.asarray(truth == decided)
    return same if same.ndim == 1 else np.asarray(same.all(axis=1))


def margin(probabilities: NDArray[np.floating[Any]], truth: NDArray[Any]) -> NDArray[np.float64]:
    """By how much the true label's probability exceeds the greatest other; below 0 where the row is a mistake.

    Of several labels the least of their margins, each against having it not; of a number how far it is off, below 0.
    """
    at, others = np.arange(len(truth)), probabilities.astype(np.float64)
    if truth.dtype.kind == "f":
        return np.asarray(-np.abs(others[:, 0] - truth))
    if truth.ndim == 2:
        return np.asarray(((2 * others - 1) * np.where(truth, 1, -1)).min(axis=1, initial=1))
    own = others[at, truth]
    others[at, truth] = -1
    found: NDArray[np.float64] = own - others.max(axis=1, initial=-1)
    return found


def chosen(hashes: NDArray[np.uint64], margins: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are sampled, those of the lowest hashes, and which are shown, those of the lowest margins."""
    sampled, shown = np.zeros((2, len(hashes)), bool)
    sampled[np.argsort(hashes, kind="stable")[:MAX_SAMPLE]] = True
    shown[np.argsort(margins, kind="stable")[:MAX_SHOWN]] = True
    return sampled, shown


def thin(rows: pa.Table) -> pa.Table:
    """Of rows of `evidence_schema` those that are kept; of two parts that were thinned, what all rows would give."""
    sampled, shown = chosen(rows["hash"].to_numpy(), margin(array_of(rows["probabilities"]), array_of(rows["truth"])))
    texts = pc.if_else(pa.array(shown), pc.utf8_slice_codeunits(rows["text"], 0, MAX_TEXT), None)
    columns = {**{name: rows[name] for name in rows.column_names}, "sampled": pa.array(sampled), "text": texts}
    return pa.table(columns, rows.schema).filter(pa.array(sampled | shown))


@dataclass(frozen=True)
class Doubt:
    """A row whose label is likely wrong.

    Attributes:
        id: Of the row.
        label: It has.
        likely: Label that it likely should have.
        own: Probability of its own label.
        other: Probability of the likely one.
        text: Its beginning, where that is kept.
    """

    id: str
    label: str
    likely: str
    own: float
    other: float
    text: str | None

    def line(self) -> str:
        """For a terminal: row, both labels with their probabilities, and how the text begins."""
        begins = "" if self.text is None else f": {self.text[:_BEGINS]}{'…' * (len(self.text) > _BEGINS)}"
        return f"{self.id} is {self.label} ({self.own:.3f}), likely {self.likely} ({self.other:.3f}){begins}"


def label_errors(evidence: Evidence, labels: tuple[str, ...]) -> tuple[list[Doubt], int]:
    """Rows whose label is likely wrong, the likeliest first, and how many of the sample are such.

    By the confident joint of Northcutt et al. 2021 ("Confident Learning", JAIR 70): a row counts as of another label
    where that one's probability reaches what rows of that label have on average; of several such labels the most
    probable counts. Ranked by normalized margin. The probabilities must come from a model that did not see the rows.

    Args:
        evidence: The rows.
        labels: Of the bundle.
    """
    sample, shown = evidence.sample, evidence.shown
    truth, probabilities = sample["truth"].to_numpy(), array_of(sample["probabilities"])
    rows_of = np.bincount(truth, minlength=len(labels))
    sums = np.bincount(truth, probabilities[np.arange(len(truth)), truth], len(labels))
    means = np.divide(sums, rows_of, out=np.full(len(labels), np.inf), where=rows_of > 0)

    def confident(rows: pa.Table) -> NDArray[np.int64]:
        """The label that each row counts as; -1 for none."""
        above = np.where(array_of(rows["probabilities"]) >= means, array_of(rows["probabilities"]), -1)
        return np.where(above.max(axis=1, initial=-1) < 0, -1, above.argmax(axis=1)) if len(rows) else np.zeros(0, int)

    counted = confident(sample)
    found, likely = [], confident(shown)
    for row, other in zip(shown.to_pylist(), likely.tolist(), strict=True):
        if other not in (-1, row["truth"]):
            own, chances = row["truth"], row["probabilities"]
            found.append(Doubt(row["id"], labels[own], labels[other], chances[own], chances[other], row["text"]))
    return found, int(((counted >= 0) & (counted != truth)).sum())
