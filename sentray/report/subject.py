"""`Subject`: a bundle with all that is known of it, as its page and its model card show it."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentray.bundle import Bundle
from sentray.report.evidence import Evidence, array_of, is_right


@dataclass(frozen=True)
class Subject:
    """What a report is of.

    Attributes:
        bundle: The model.
        name: What the page calls it.
        history: Of its training, an epoch a record; empty where that is not known.
        evidence: Rows that it was measured on; None where none are kept.
        metrics: Of a corpus that it was measured on anew; None for what training measured.
        slices: Right and all of that corpus's rows by their value in `slice_column`.
        slice_column: Its name.
    """

    bundle: Bundle
    name: str
    history: list[dict[str, Any]] = field(default_factory=list)
    evidence: Evidence | None = None
    metrics: dict[str, Any] | None = None
    slices: dict[str | None, tuple[int, int]] = field(default_factory=dict)
    slice_column: str | None = None

    @classmethod
    def of(cls, bundle: Bundle, path: str, **more: Any) -> Self:
        """A bundle that lies, or will lie, at a path or URI; `more` as the attributes."""
        return cls(bundle, _last(path), **more)

    @property
    def corpus(self) -> str:
        """What it was trained on."""
        return str(self.bundle.settings.get("corpus", "an unknown corpus"))

    @property
    def measured(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What was measured, by the best rows first: which they are in short and in a sentence, and the metrics."""
        known, of = self.bundle.metrics, self.bundle.metrics.get("figures", {})
        names = {"test": "test rows", "validation": "held-out rows"}
        found = [(about, of.get(name, ""), known[name]) for name, about in names.items() if known.get(name)]
        if self.metrics is None:
            return found
        return [(f"rows of {_last(self.metrics['corpus'])}", self.metrics["why"], self.metrics), *found]

    def right(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Which rows of the evidence got their label, or all their labels and no other."""
        decided = self.bundle.decision.of(array_of(rows["probabilities"]), self.bundle.spec.task)
        return is_right(array_of(rows["truth"]), decided)


def _last(path: str) -> str:
    """The last part of a path or URI."""
    return path.rstrip("/").rpartition("/")[2]
